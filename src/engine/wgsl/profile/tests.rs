use std::time::Duration;

use super::*;
use crate::data::ImageShape;
use crate::engine::wgsl::device::{Gpu, GpuOptions};
use crate::engine::wgsl::harness::adapter;
use crate::engine::wgsl::kernels::bench;
use crate::engine::wgsl::program::Program;
use crate::engine::wgsl::recorded::{Command, Recorded, SlotPool};
use crate::engine::wgsl::{Plan, WgslEngine, WgslOptions};
use crate::engine::{Batch, BatchNormMode, Engine, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View};
use crate::model::{Architecture, State};
use crate::rng::Purpose;

fn gpu(timestamps: bool) -> Gpu {
    Gpu::open_with(&adapter().adapter, &GpuOptions { timestamps, ..GpuOptions::default() }).unwrap()
}

fn has_clock() -> bool {
    adapter().summary.features.timestamps
}

fn commands(gpu: &Gpu, rounds: &[u32]) -> Vec<Command> {
    let mut program = Program::default();
    let result = program.transient(bench::fma_bytes(8), "sums");
    for rounds in rounds {
        program.push(None, DispatchKind::Other, bench::fma(4, 8, *rounds, result));
    }
    Recorded::new(gpu, program, &mut SlotPool::default(), 0, |_, _| unreachable!()).unwrap().commands
}

#[test]
fn a_longer_dispatch_takes_longer_by_either_clock() {
    for timestamps in [false, true] {
        let gpu = gpu(timestamps);
        let watch = Stopwatch::new(&gpu).unwrap();
        let expected = if timestamps && has_clock() { Clock::Timestamps } else { Clock::Submissions };
        assert_eq!(watch.clock(), expected);
        assert!(watch.submission > 0.0);
        // More parts than a query set holds.
        let rounds: Vec<u32> = (0..40).map(|i| if i % 2 == 0 { 1 } else { 512 }).collect();
        let commands = commands(&gpu, &rounds);
        let parts: Vec<&[Command]> = commands.chunks(1).collect();
        let seconds = watch.time(&gpu, &parts).unwrap();
        assert_eq!(seconds.len(), 40);
        let of = |first: usize| median(&mut seconds[first..].iter().step_by(2).copied().collect::<Vec<_>>());
        let (short, long) = (of(0), of(1));
        assert!(short >= 0.0 && long > 4.0 * short, "{expected:?}: {short} {long}");
        assert!(watch.time(&gpu, &[]).unwrap().is_empty());
    }
}

#[test]
fn figures_are_those_of_a_device() {
    for timestamps in [false, true] {
        let figures = DeviceFigures::of(&gpu(timestamps)).unwrap();
        assert_eq!(figures.clock == Clock::Timestamps, timestamps && has_clock());
        // Between a very slow processor and a thousand of the fastest GPUs: a wrong unit falls outside.
        assert!((1e8..1e17).contains(&figures.fma_flops_per_second), "{figures:?}");
        assert!((1e8..1e16).contains(&figures.copy_bytes_per_second), "{figures:?}");
        for seconds in [figures.seconds_per_recorded_dispatch, figures.seconds_per_submission] {
            assert!(seconds > 0.0 && seconds < 0.1, "{figures:?}");
        }
        assert!(figures.seconds_per_dispatch >= 0.0 && figures.seconds_per_dispatch < 0.1, "{figures:?}");
        assert!(figures.copy_buffer_bytes <= 128 << 20);
    }
}

#[test]
fn a_profile_has_every_dispatch_of_a_step() {
    const IMAGES: usize = 6;
    const STEPS: u32 = 3;
    let network = Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 10, Some((&[0.5], &[0.25])), Some(5));
    let plan = Plan::new(&network, IMAGES).unwrap();
    let state = State::initialise(&network, 1);
    let options =
        WgslOptions { adapter: Some(adapter().summary.index.to_string()), pipelines: None, ..WgslOptions::default() };
    let labels: Vec<u32> = (0..IMAGES as u32).collect();
    let pixels: Vec<u8> = (0..IMAGES * network.input.len()).map(|i| (i * 37 % 251) as u8).collect();
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &labels, augment: None, seed: 0, epoch: 0 };
    let spec = SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![0.1; IMAGES],
        step_size: vec![0.02; IMAGES],
        steps: STEPS,
        start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 0 },
        batch_norm: BatchNormMode::Train,
        ..SearchSpec::default()
    };
    let loss = LossSpec::cross_entropy(View::Adversarial);
    let sgd = SgdStep { lr: 0.01, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    let figures = DeviceFigures {
        clock: Clock::Submissions,
        fma_flops_per_second: 2e9,
        copy_bytes_per_second: 4e9,
        copy_buffer_bytes: 1 << 20,
        seconds_per_dispatch: 1e-6,
        seconds_per_recorded_dispatch: 1e-6,
        seconds_per_submission: 1e-5,
    };
    let without_clock = WgslEngine::new(network.clone(), &state, &options).unwrap();
    let with_clock = WgslEngine::for_profile(network, &state, &options).unwrap();
    for (mut engine, clock) in [(without_clock, false), (with_clock, has_clock())] {
        let profile = engine.profile(&batch, &spec, &loss, &sgd, &figures, Duration::ZERO).unwrap();
        assert_eq!(profile.clock == Clock::Timestamps, clock);
        assert_eq!(profile.repeats, 3);

        for planned in &plan.programs {
            let rows = || profile.rows.iter().filter(|row| row.program == planned.name);
            assert_eq!(rows().map(|row| row.flops).sum::<u64>(), planned.flops, "{}", planned.name);
            assert_eq!(rows().map(|row| row.bytes).sum::<u64>(), planned.bytes, "{}", planned.name);
            assert_eq!(rows().map(|row| row.dispatches).sum::<u64>(), planned.dispatches as u64, "{}", planned.name);
            let runs = if planned.name == "update" { 1 } else { u64::from(STEPS) };
            assert!(rows().all(|row| row.runs == runs), "{}", planned.name);
        }
        // The engine still works, and its step has as many dispatches as the profile reports.
        let before = engine.pace().dispatches;
        let views = engine.perturb(&batch, &spec).unwrap();
        engine.train_step(&views, &loss, &sgd).unwrap();
        engine.wait().unwrap();
        assert_eq!(engine.pace().dispatches - before, profile.dispatches);

        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
        let sum = |of: fn(&KernelRow) -> f64| profile.rows.iter().map(of).sum::<f64>();
        assert!(profile.seconds > 0.0 && close(sum(|row| row.share), 1.0));
        assert!(close(sum(|row| row.runs as f64 * row.seconds), profile.seconds));
        for shares in [&profile.phases, &profile.files, &profile.programs] {
            assert!(close(shares.iter().map(|share| share.share).sum(), 1.0));
            assert_eq!(shares.iter().map(|share| share.dispatches).sum::<u64>(), profile.dispatches);
            assert_eq!(shares.iter().map(|share| share.flops).sum::<u64>(), profile.flops);
            assert!(shares.is_sorted_by(|a, b| a.seconds >= b.seconds));
        }
        let phases: std::collections::BTreeSet<&str> = profile.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(phases.into_iter().collect::<Vec<_>>(), ["backward", "forward", "other", "weights"]);
        for row in profile.rows.iter().filter(|row| row.seconds > 0.0) {
            assert!(close(row.flops_per_second, row.flops as f64 / row.seconds));
            assert!(close(row.of_fma_peak, row.flops_per_second / 2e9));
            assert!(close(row.of_copy_bandwidth, row.bytes as f64 / row.seconds / 4e9));
        }
        // The product and the sum of its parts, whichever takes longer.
        let mut conv =
            profile.rows.iter().filter(|row| row.layer.as_deref() == Some("conv2") && row.phase == "weights");
        let product = conv.find(|row| row.file.starts_with("conv"));
        assert!(product.is_some_and(|row| row.kernel.len() > row.file.len() - 5), "{:?}", profile.rows);
    }
}

#[test]
fn the_middle_of_values() {
    assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    assert_eq!(median(&mut []), 0.0);
}
