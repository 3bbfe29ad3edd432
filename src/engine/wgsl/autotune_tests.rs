use std::collections::BTreeSet;

use super::winners::{winner, winners};
use super::*;
use crate::data::ImageShape;
use crate::engine::wgsl::fusion_tests::everything;
use crate::engine::wgsl::harness::{adapter, relative_error};
use crate::engine::wgsl::kernel::Kernel;
use crate::engine::wgsl::kernels::conv;
use crate::engine::wgsl::{Checks, WgslEngine, WgslOptions};
use crate::model::{Architecture, Layer, State};

/// One convolution that Winograd's algorithm may compute.
fn small() -> Network {
    let (plane, one) = (ImageShape::new(8, 7, 6), ImageShape::new(8, 1, 1));
    let conv = Op::Conv2d { in_channels: 8, out_channels: 8, kernel: 3, stride: 1, padding: 1 };
    let layers = [
        ("conv", conv, plane),
        ("bn", Op::BatchNorm { channels: 8 }, plane),
        ("relu", Op::Relu, plane),
        ("mean", Op::GlobalAvgPool, one),
        ("linear", Op::Linear { in_features: 8, out_features: 6 }, ImageShape::new(6, 1, 1)),
    ];
    let layer = |(i, (name, op, shape)): (usize, (&str, Op, ImageShape))| Layer {
        name: name.into(),
        op,
        inputs: vec![i],
        shape,
    };
    let layers = layers.into_iter().enumerate().map(layer).collect();
    Network { architecture: "test".into(), input: plane, classes: 6, layers }
}

fn open(network: &Network, tuning: Tuning, choices: Option<KernelTable>, folder: Option<&Path>) -> WgslEngine {
    let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    let pipelines = folder.map(Path::to_path_buf);
    let options = WgslOptions { adapter, pipelines, tuning, choices, ..WgslOptions::default() };
    WgslEngine::new(network.clone(), &State::initialise(network, 3), &options).unwrap()
}

fn assert_same(expected: &[(String, Vec<f32>)], tuned: WgslEngine) {
    for ((what, expected), (_, found)) in expected.iter().zip(everything(tuned)) {
        let error = relative_error(&found, expected);
        assert!(expected.iter().any(|v| *v != 0.0) && error < 1e-4, "{what}: relative error {error:.1e}");
    }
}

#[test]
fn times_of_shaders_with_checks_are_not_those_without() {
    let device = |checks| {
        let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
        let options = WgslOptions { adapter, checks, pipelines: None, ..WgslOptions::default() };
        WgslEngine::new(small(), &State::initialise(&small(), 3), &options).unwrap().choices().device
    };
    let (off, on) = (device(Checks::Off), device(Checks::On));
    assert_eq!(off, device(Checks::Off));
    assert_ne!(off.shaders, on.shaders);
}

#[test]
fn measured_kernels_compute_the_same_and_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let (network, folder) = (small(), folder.path());
    let long = Tuning::Measured(Duration::from_secs(600));
    let engine = open(&network, long, None, Some(folder));
    let table = engine.choices();
    assert_eq!(table.convolutions.len(), 3);
    for row in &table.convolutions {
        let timing = row.timing.unwrap();
        assert_eq!((&row.layers[..], row.fixed), (&["conv".to_owned()][..], fixed(&row.shape, row.pass, false)));
        assert!(timing.milliseconds > 0.0 && timing.milliseconds < 1e4, "{timing:?}");
        if row.pass == Pass::WeightGradient {
            assert!(timing.milliseconds <= timing.fixed_milliseconds, "{timing:?}");
        }
    }
    assert_same(&everything(open(&network, Tuning::Fixed, None, None)), engine);

    // The budget leaves no time for measurements.
    let short = Tuning::Measured(Duration::from_nanos(1));
    assert_eq!(open(&network, short, None, Some(folder)).choices(), table);
    let file = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|end| end == "json")).collect::<Vec<_>>();
    assert_eq!(file.len(), 1);
    std::fs::write(&file[0], "{").unwrap();
    let unmeasured = open(&network, short, None, Some(folder)).choices();
    assert!(unmeasured.convolutions.iter().all(|row| !row.is_measured() && row.algorithm == row.fixed));
    assert_eq!(open(&network, Tuning::Fixed, Some(table.clone()), None).choices(), unmeasured);
    assert_eq!(open(&network, short, Some(table.clone()), None).choices(), table);
    let mut foreign = table;
    foreign.device.driver.push('1');
    assert_eq!(open(&network, short, Some(foreign), None).choices(), unmeasured);
}

#[test]
fn without_time_everything_is_fixed() {
    let network = small();
    let table = open(&network, Tuning::Measured(Duration::ZERO), None, None).choices();
    assert_eq!(table, open(&network, Tuning::Fixed, None, None).choices());
    assert!(table.convolutions.iter().all(|row| !row.is_measured() && row.algorithm == row.fixed));
}

/// Replaces the fixed choice of every pass of every convolution by each other candidate, as a measurement might.
#[test]
fn any_choice_computes_the_same() {
    let normalisation: (&[f32], &[f32]) = (&[0.4, 0.5, 0.6], &[0.2, 0.25, 0.3]);
    let network = Architecture::SmallCnn.build(ImageShape::new(3, 10, 9), 6, Some(normalisation), Some(12));
    let fixed = open(&network, Tuning::Fixed, None, None);
    let unchanged = fixed.choices();
    let expected = everything(fixed);
    for which in [1, usize::MAX] {
        let mut table = unchanged.clone();
        for row in &mut table.convolutions {
            let candidates = candidates(&row.shape, row.pass, false);
            row.algorithm = candidates[which.min(candidates.len() - 1)];
        }
        let tuned = open(&network, Tuning::Measured(Duration::ZERO), Some(table.clone()), None);
        assert_eq!(tuned.choices(), table);
        assert!(table.convolutions.iter().all(|row| row.algorithm != row.fixed));
        assert_same(&expected, tuned);
    }
}

#[test]
fn candidates_have_kernels_and_begin_with_the_fixed_choice() {
    let known: BTreeSet<Kernel> = conv::variants().into_iter().chain(winograd::variants()).collect();
    let limits = wgpu::Limits::default();
    for (architecture, width) in [
        (Architecture::PreActResNet18, None),
        (Architecture::ResNet20, Some(10)),
        (Architecture::SmallCnn, Some(20)),
        (Architecture::DigitsCnn, Some(4)),
    ] {
        let network = architecture.build(ImageShape::new(3, 32, 32), 10, None, width);
        let parameters = Parameters::new(&network, &limits).unwrap();
        let both =
            [false, true].into_iter().flat_map(|subgroups| units(&network).into_iter().map(move |u| (subgroups, u)));
        for (subgroups, unit) in both {
            let subject = Subject { network: &network, parameters: &parameters, limits: &limits, subgroups };
            for pass in unit.passes {
                let candidates = candidates(&unit.conv, *pass, subgroups);
                assert_eq!(candidates[0], fixed(&unit.conv, *pass, subgroups));
                assert!((2..=12).contains(&candidates.len()), "{candidates:?}");
                let mut seen = BTreeSet::new();
                for algorithm in candidates {
                    assert!(algorithm.is_for(&unit.conv, *pass, subgroups) && seen.insert(algorithm), "{algorithm}");
                    let program = program(subject, u64::MAX, &unit, (*pass, algorithm), 3).unwrap();
                    let files = ["conv_gemm", "conv_weight_gradient", "winograd_gemm"];
                    let name = |kernel: &Kernel| kernel.file.trim_end_matches(".wgsl").trim_end_matches("_broadcast");
                    let product = |kernel: &Kernel| files.contains(&name(kernel));
                    let kernels = program.steps.iter().map(|step| &step.dispatch.kernel);
                    // One product, the right one; a convolution of images may have a dedicated kernel.
                    let products: Vec<_> = kernels.filter(|kernel| product(kernel)).collect();
                    let [kernel] = products[..] else {
                        assert!(unit.conv.in_channels == 3 && products.is_empty(), "{algorithm}: {products:?}");
                        continue;
                    };
                    assert!(known.contains(kernel), "{kernel:?}");
                    assert_eq!(name(kernel) == "winograd_gemm", algorithm.outputs().is_some());
                }
            }
        }
    }
}

#[test]
fn expensive_layers_come_first_and_every_shape_comes_once() {
    let network = Architecture::PreActResNet18.build(ImageShape::new(3, 32, 32), 10, None, None);
    let units = units(&network);
    assert!(units.windows(2).all(|pair| pair[0].cost >= pair[1].cost));
    let shapes: BTreeSet<(Conv, usize)> = units.iter().map(|unit| (unit.conv, unit.passes.len())).collect();
    assert_eq!((units.len(), shapes.len()), (22, 22));
    let first = &units[0];
    assert_eq!((first.conv.in_channels, first.passes), (64, &[Pass::Forward, Pass::InputGradient][..]));
}

#[test]
fn a_small_gain_changes_nothing() {
    let [large, small, ..] = PIXEL_TILES;
    let product = |tile| Algorithm::ImplicitGemm { tile };
    let of = |outputs| Algorithm::Winograd { outputs, tile: large };
    assert_eq!(winner(&[]), None);
    assert_eq!(winner(&[(product(large), 1.0), (product(small), 0.96)]), Some((product(large), 1.0)));
    assert_eq!(winner(&[(product(large), 1.0), (product(small), 0.94)]), Some((product(small), 0.94)));

    let choice = |forward: &[Timed], gradient: &[Timed]| winners(forward, gradient).unwrap().map(|timed| timed.0);
    // Two different transforms for a gain of 3 %, and for a gain of 50 %.
    let forward = [(of(4), 1.0), (of(2), 1.2)];
    assert_eq!(choice(&forward, &[(of(4), 1.0), (of(2), 0.94)]), [of(4), of(4)]);
    assert_eq!(choice(&forward, &[(of(4), 3.0), (of(2), 1.0)]), [of(4), of(2)]);
    // A product needs no transformed weights.
    assert_eq!(choice(&forward, &[(of(2), 3.0), (product(large), 1.0)]), [of(4), product(large)]);
    // The sharing candidates need not be the first of either pass.
    let gradient = [(of(2), 1.0), (of(4), 1.01), (product(small), 2.0)];
    assert_eq!(choice(&[(of(4), 1.0), (of(2), 1.04)], &gradient), [of(4), of(4)]);
}

#[test]
fn a_winner_must_compute_the_same() {
    let [large, small, other, ..] = PIXEL_TILES;
    let [fixed, fast, faster] = [large, small, other].map(|tile| Algorithm::ImplicitGemm { tile });
    let timed = || vec![vec![(fixed, 1.0), (fast, 0.5), (faster, 0.2)]];
    // Which candidates are right, and the expected choice.
    for (right, expected) in [
        (vec![fast, faster], (faster, 0.2)),
        (vec![fast], (fast, 0.5)),
        (vec![], (fixed, 1.0)),
        (vec![faster], (faster, 0.2)),
    ] {
        let mut asked = Vec::new();
        let best = settled(&mut timed(), |pass, algorithm| {
            asked.push((pass, algorithm));
            Ok::<_, GpuError>(Some(right.contains(&algorithm)))
        });
        assert_eq!(best.unwrap().unwrap(), [expected], "{right:?}");
        // In order of their times, each at most once.
        let until = if expected.0 == faster { 1 } else { 2 };
        assert_eq!(asked, [(0, faster), (0, fast)][..until]);
    }
    assert_eq!(settled(&mut timed(), |_, _| Ok::<_, GpuError>(None)).unwrap(), None);
    // In a pair, rejecting one can change the other: passes that share transformed weights are chosen together.
    let of = |outputs| Algorithm::Winograd { outputs, tile: large };
    let pair = || [vec![(fixed, 3.0), (of(4), 1.0), (of(2), 1.02)], vec![(fixed, 3.0), (of(4), 1.01), (of(2), 1.0)]];
    let choose = |wrong: Option<(usize, Algorithm)>| {
        let is_right = |pass, algorithm| Ok::<_, GpuError>(Some(Some((pass, algorithm)) != wrong));
        let best = settled(&mut pair(), is_right).unwrap().unwrap();
        [best[0].0, best[1].0]
    };
    assert_eq!(choose(None), [of(4), of(4)]);
    assert_eq!(choose(Some((1, of(4)))), [of(2), of(2)]);
}

#[test]
fn differences_are_detected_and_nan_counts_as_one() {
    let results = |values: &[&[f32]]| values.iter().map(|v| ("y".to_owned(), v.to_vec())).collect::<Results>();
    let expected = results(&[&[3.0, 4.0], &[0.0]]);
    assert_eq!(check::difference(&expected, &expected), 0.0);
    assert_eq!(check::difference(&results(&[&[3.0, 4.5], &[0.0]]), &expected), 0.1);
    for (found, against) in [
        (results(&[&[3.0, f32::NAN], &[0.0]]), &expected),
        (results(&[&[3.0, f32::INFINITY], &[0.0]]), &expected),
        (results(&[&[3.0, 4.0], &[1.0]]), &expected),
        (results(&[&[3.0, 4.0]]), &expected),
        (results(&[&[3.0], &[0.0]]), &expected),
        (expected.clone(), &results(&[&[f32::NAN, 4.0], &[0.0]])),
        (expected.clone(), &results(&[])),
    ] {
        let difference = check::difference(&found, against);
        let is_right = difference <= 1e30;
        assert!(!is_right, "{found:?} against {against:?}: {difference}");
    }
}

/// A network with every context of a convolution: residual additions, several consumers, batch norms after the next
/// convolution, strides, pooling, channel counts that are no multiples of four.
fn networks() -> Vec<Network> {
    let normalisation: (&[f32], &[f32]) = (&[0.4, 0.5, 0.6], &[0.2, 0.25, 0.3]);
    let build = |architecture: Architecture, side, width| {
        architecture.build(ImageShape::new(3, side, side + 1), 6, Some(normalisation), Some(width))
    };
    vec![
        small(),
        build(Architecture::PreActResNet18, 9, 10),
        build(Architecture::ResNet20, 8, 9),
        build(Architecture::SmallCnn, 11, 13),
    ]
}

/// Runs `work` with a bench for `network` on the test device.
fn with_bench<T>(network: &Network, work: impl FnOnce(&mut Bench<'_>) -> T) -> T {
    let gpu = Gpu::open(&adapter().adapter, Checks::Off).unwrap();
    let limits = gpu.limits.clone();
    let parameters = Parameters::new(network, &limits).unwrap();
    let subject = Subject { network, parameters: &parameters, limits: &limits, subgroups: false };
    let deadline = Instant::now() + Duration::from_secs(600);
    work(&mut Bench::new(&gpu, subject, deadline).unwrap())
}

/// On a device that computes correctly, no candidate is rejected, and the bound is not far above the measured
/// differences.
#[test]
fn every_candidate_computes_the_same_within_the_bound() {
    let mut worst: BTreeMap<(Pass, Option<usize>), f64> = BTreeMap::new();
    for network in networks() {
        with_bench(&network, |bench| {
            for unit in units(&network) {
                for pass in unit.passes.iter().copied() {
                    let [fixed, rest @ ..] = &candidates(&unit.conv, pass, false)[..] else { panic!("no candidates") };
                    let steps = |algorithm| program(bench.subject, 1 << 30, &unit, (pass, algorithm), 3).unwrap().steps;
                    // Convolutions of images have a dedicated kernel for every choice.
                    let others: Vec<_> = rest.iter().filter(|other| steps(**other) != steps(*fixed)).collect();
                    if others.is_empty() {
                        continue;
                    }
                    let expected = bench.results(&unit, pass, *fixed, 3).unwrap();
                    let is_noise = |values: &Vec<f32>| values.iter().any(|v| *v != 0.0);
                    let layer = &network.layers[unit.layer].name;
                    assert!(!expected.is_empty() && expected.iter().all(|(_, v)| is_noise(v)), "{layer}, {pass}");
                    for algorithm in others {
                        let found = bench.results(&unit, pass, *algorithm, 3).unwrap();
                        let bound = check::tolerance(&unit.conv, pass, 3, [*algorithm, *fixed]);
                        let share = check::difference(&found, &expected) / bound;
                        assert!(
                            share <= 1.0,
                            "{}, {layer}, {pass}, {algorithm}: {share} of {bound:.1e}",
                            network.architecture
                        );
                        let outputs = algorithm.outputs().max(fixed.outputs());
                        let worst = worst.entry((pass, outputs)).or_default();
                        *worst = worst.max(share);
                    }
                }
                bench.pool.clear();
            }
        });
    }
    println!("share of the bound: {worst:.2?}");
    // Implicit products for every pass, and both transforms of Winograd's algorithm for two passes.
    assert_eq!(worst.len(), 7);
}

#[test]
fn measurements_end_when_they_are_asked_to() {
    let network = small();
    let measured = |most: usize| {
        let mut asked = 0;
        let mut stop = || {
            asked += 1;
            asked > most
        };
        with_bench(&network, |bench| bench.measure(&units(&network), &mut stop).unwrap().measured.len())
    };
    assert_eq!(measured(0), 0);
    assert!((1..units(&network).iter().map(|unit| unit.passes.len()).sum()).contains(&measured(1)));
}

/// Candidates that skip most of their work are fast and wrong: none is chosen, and none is kept.
#[test]
fn a_wrong_kernel_is_neither_chosen_nor_kept() {
    let network = small();
    check::sabotage::WRONG.set(|pass, algorithm| algorithm != fixed(&shapes(&small())[0].0, pass, false));
    let (found, rejected) = with_bench(&network, |bench| {
        (bench.measure(&units(&network), &mut || false).unwrap(), std::mem::take(&mut bench.rejected))
    });
    let conv = shapes(&network)[0].0;
    for pass in PASSES {
        assert_eq!(found.of(&conv, pass), fixed(&conv, pass, false), "{pass}");
        let of_pass: Vec<&String> = rejected.iter().filter(|rejected| rejected.contains(&pass.to_string())).collect();
        println!("{of_pass:#?}");
        assert!(!of_pass.is_empty(), "{pass}: no wrong kernel was faster than the right one, so nothing was shown");
        assert!(of_pass.iter().all(|rejected| rejected.contains("'conv'") && !rejected.contains('\n')), "{of_pass:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    let long = Tuning::Measured(Duration::from_secs(600));
    let table = open(&network, long, None, Some(folder.path())).choices();
    assert!(table.convolutions.iter().all(|row| row.algorithm == row.fixed && row.is_measured()), "{table:?}");
    // The next start finds the stored choices.
    check::sabotage::WRONG.set(|_, _| false);
    let short = Tuning::Measured(Duration::from_nanos(1));
    assert_eq!(open(&network, short, None, Some(folder.path())).choices(), table);
}
