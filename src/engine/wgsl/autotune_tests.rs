use std::collections::BTreeSet;

use super::*;
use crate::data::ImageShape;
use crate::engine::wgsl::fusion_tests::everything;
use crate::engine::wgsl::harness::relative_error;
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

    // There is no time to measure anything now.
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

/// Whatever a measurement may find: another candidate than the fixed one for every pass of every convolution.
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
                    // One product, the right one; an image's convolution may have a kernel that leaves no choice.
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
    // Two ways of transforming for a gain of 3 %, and for one of a half.
    let forward = [(of(4), 1.0), (of(2), 1.2)];
    assert_eq!(choice(&forward, &[(of(4), 1.0), (of(2), 0.94)]), [of(4), of(4)]);
    assert_eq!(choice(&forward, &[(of(4), 3.0), (of(2), 1.0)]), [of(4), of(2)]);
    // A product needs no transformed weights.
    assert_eq!(choice(&forward, &[(of(2), 3.0), (product(large), 1.0)]), [of(4), product(large)]);
    // Those that share need not be the first of either.
    let gradient = [(of(2), 1.0), (of(4), 1.01), (product(small), 2.0)];
    assert_eq!(choice(&[(of(4), 1.0), (of(2), 1.04)], &gradient), [of(4), of(4)]);
}
