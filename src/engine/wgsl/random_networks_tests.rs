//! Networks other than the built-in ones: chosen ones, and random ones over all operations, each with fusion, with one
//! kernel per layer, and on the Candle engine. All three must agree.

use super::device::Gpu;
use super::harness::{adapter, relative_error};
use super::test_networks::{Builder, CASES, CLASSES, SAME, random_network};
use super::{Checks, WgslEngine, WgslOptions};
use crate::data::ImageShape;
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::{
    Batch, BatchNormMode, Engine, EngineError, Input, LossSpec, LossTerm, Norm, Objective, SearchSpec, SgdStep, Start,
    Term, View,
};
use crate::model::{Layer, ModelError, Network, Op, State};
use crate::rng::{Purpose, Stream};

const IMAGES: usize = 6;
/// Largest relative difference of an array. Most are below 1e-6; batch norm of few or of almost equal values amplifies
/// them to some 1e-5.
const TOLERANCE: f64 = 1e-4;
/// Number of states that differ by rounding from the compared one. One of them must agree if a ReLU is at its kink.
const NUDGES: u32 = 16;
/// Number of random networks, one per seed.
const SEEDS: u32 = 20;

/// Parameters as after some training: batch norm is not in its initial state, so that every term of its gradients
/// matters.
fn state(network: &Network) -> State {
    let mut state = State::initialise(network, 5);
    for (i, spec) in network.state_specs().iter().enumerate() {
        let stream = Stream::new(5, Purpose::Test, 1, i as u32);
        let array = state.0.get_mut(&spec.name).unwrap();
        if array.shape.len() == 1 {
            for (j, value) in array.data.iter_mut().enumerate() {
                *value += if spec.name.ends_with("running_var") { 0.5 } else { 0.2 } * stream.unit(j as u32);
            }
        }
    }
    state
}

/// `state` with each value changed by about one millionth, the size of rounding errors.
fn nudge(network: &Network, state: &State, sample: u32) -> State {
    let mut nudged = state.clone();
    for (i, spec) in network.state_specs().iter().enumerate() {
        let stream = Stream::new(6, Purpose::Test, sample, i as u32);
        let values = &mut nudged.0.get_mut(&spec.name).unwrap().data;
        values.iter_mut().enumerate().for_each(|(j, value)| *value *= 1.0 + 1e-6 * stream.normal(j as u32));
    }
    nudged
}

struct Images {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
}

impl Images {
    fn new(shape: ImageShape, images: usize) -> Self {
        let mut random = Stream::new(4, Purpose::Test, 0, 0).sequence();
        Self {
            pixels: (0..images * shape.len()).map(|_| random.word() as u8).collect(),
            labels: (0..images as u32).map(|i| i % CLASSES as u32).collect(),
            ids: (0..images as u32).collect(),
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch { pixels: &self.pixels, labels: &self.labels, ids: &self.ids, augment: None, seed: 6, epoch: 2 }
    }
}

/// A search with step size zero: it runs the program of a step and leaves the images at the start.
fn still(images: usize, batch_norm: BatchNormMode) -> SearchSpec {
    SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![8.0 / 255.0; images],
        step_size: vec![0.0; images],
        steps: 1,
        start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 2 },
        batch_norm,
        ..SearchSpec::default()
    }
}

fn both_views() -> LossSpec {
    let term = |term, weight| LossTerm::mean(weight, term);
    let kl = Term::Kl { from: View::Clean, to: View::Adversarial };
    LossSpec::of(vec![term(Term::CrossEntropy(View::Clean), 1.0), term(kl, 2.0)])
}

/// Without earlier momentum and without weight decay, the momentum equals the gradient.
const SGD: SgdStep = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 0.0, nesterov: false };

/// The results of an engine: named arrays, and the magnitude that differences are relative to.
#[derive(Default)]
struct Outcome {
    /// Continuous in the weights.
    values: Vec<(String, Vec<f32>)>,
    /// Gradients, which are discontinuous where a ReLU or a maximum is at its kink.
    gradients: Vec<(String, Vec<f32>)>,
}

/// Logits and input gradients in both modes, and the gradients of one update on two views.
fn outcome(engine: &mut dyn Engine) -> Outcome {
    let images = Images::new(engine.network().input, IMAGES);
    let (batch, labels) = (images.batch(), &images.labels);
    let mut found = Outcome::default();
    for mode in [BatchNormMode::Eval, BatchNormMode::Train] {
        let logits = engine.logits(&Input::Batch(&batch), mode).unwrap();
        found.values.push((format!("logits, {mode:?}"), logits));
        let objective = Objective::Targeted(labels.iter().map(|label| (label + 1) % CLASSES as u32).collect());
        let (_, gradient) = engine.input_gradient(&Input::Batch(&batch), &objective, mode).unwrap();
        found.gradients.push((format!("input gradient, {mode:?}"), gradient));
    }
    let spec = still(IMAGES, BatchNormMode::Train);
    let views = engine.perturb(&batch, &spec).unwrap();
    engine.train_step(&views, &both_views(), &SGD).unwrap();
    let after = engine.state().unwrap();
    for (name, array) in after.momentum.0 {
        found.gradients.push((format!("gradient of {name}"), array.data));
    }
    for (name, array) in after.model.0.into_iter().filter(|(name, _)| name.contains("running")) {
        found.values.push((name, array.data));
    }
    found
}

fn candle(network: &Network, state: &State) -> CandleEngine {
    CandleEngine::new(network.clone(), state, CandleDevice::Cpu).unwrap()
}

/// A device that consecutive engines share, because most of their pipelines are the same.
fn device() -> Gpu {
    Gpu::open(&adapter().adapter, Checks::Off).unwrap()
}

fn wgsl(gpu: Gpu, network: &Network, state: &State, plain: bool) -> WgslEngine {
    WgslEngine::on(gpu, network.clone(), state, &WgslOptions { pipelines: None, plain, ..WgslOptions::default() })
        .unwrap()
}

/// Magnitudes of gradients differ by orders of magnitude, and a gradient that batch norm makes zero is only rounding
/// error: differences are relative to the array, and to a tenth of the largest array of its kind.
fn difference(found: &[f32], expected: &[f32], largest: f64) -> f64 {
    let length = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let size = length(expected);
    if size == 0.0 && length(found) == 0.0 {
        return 0.0;
    }
    let error = relative_error(found, expected) * if size == 0.0 { 1.0 } else { size };
    error / size.max(0.1 * largest)
}

/// Differences of all arrays of one kind, in order.
fn differences<'a>(found: &[(String, Vec<f32>)], expected: &'a [(String, Vec<f32>)]) -> Vec<(&'a str, f64)> {
    let length = |values: &[f32]| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let largest = expected.iter().map(|(_, values)| length(values)).fold(0.0, f64::max);
    assert_eq!(found.len(), expected.len());
    let pairs = found.iter().zip(expected);
    pairs.map(|((_, found), (what, expected))| (what.as_str(), difference(found, expected, largest))).collect()
}

fn worst(differences: &[(&str, f64)]) -> f64 {
    // `f64::max` would drop NaN.
    differences.iter().map(|(_, error)| *error).fold(0.0, |a, b| if b.is_nan() || b > a { b } else { a })
}

/// Whether a difference is within the tolerance; false for NaN.
fn is_within(error: f64) -> bool {
    error <= TOLERANCE
}

/// Compares the engines on a network. Returns the device, and the largest difference or the arrays that do not agree.
fn compare(gpu: Gpu, network: &Network) -> (Gpu, Result<f64, String>) {
    let state = state(network);
    let expected = outcome(&mut candle(network, &state));
    let (mut gpu, mut largest) = (gpu, 0.0f64);
    for plain in [true, false] {
        let mut engine = wgsl(gpu, network, &state, plain);
        let found = outcome(&mut engine);
        gpu = engine.gpu;
        let values = differences(&found.values, &expected.values);
        let gradients = differences(&found.gradients, &expected.gradients);
        let mut error = worst(&gradients);
        if !is_within(error) {
            let nudged = (0..NUDGES).map(|sample| {
                let nudged = outcome(&mut candle(network, &nudge(network, &state, sample)));
                worst(&differences(&found.gradients, &nudged.gradients))
            });
            error = nudged.fold(error, |a, b| if b < a { b } else { a });
        }
        if !is_within(error) || !is_within(worst(&values)) {
            let all = values.iter().chain(&gradients).filter(|(_, error)| !is_within(*error));
            let all: Vec<String> = all.map(|(what, error)| format!("  {what}: {error:.1e}")).collect();
            return (gpu, Err(format!("{}, plain {plain}:\n{}", network.architecture, all.join("\n"))));
        }
        largest = largest.max(error).max(worst(&values));
    }
    (gpu, Ok(largest))
}

/// Compares networks in order and reports all that fail, with their layers.
fn compare_all(networks: impl Iterator<Item = Network>) {
    let (mut gpu, mut failures) = (device(), Vec::new());
    for network in networks {
        let result;
        (gpu, result) = compare(gpu, &network);
        match result {
            Ok(error) => println!("{}: {error:.1e}", network.architecture),
            Err(what) => {
                let layers = network.layers.iter().enumerate();
                let layers = layers.map(|(i, l)| format!("  {i}: {:?} of {:?}, {}", l.op, l.inputs, l.shape));
                failures.push(format!("{what}\n{}", layers.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn combinations_that_no_architecture_has_agree_with_candle() {
    compare_all(CASES.iter().map(|(name, [channels, height, width], layers)| {
        let mut builder = Builder::new(*channels, *height, *width);
        layers(&mut builder);
        builder.build(name)
    }));
}

#[test]
fn random_networks_agree_with_candle() {
    compare_all((0..SEEDS).map(random_network));
}

/// The generator produces every operation, values with several consumers, residual additions, and every kind of last
/// layer.
#[test]
fn random_networks_have_everything() {
    let networks: Vec<Network> = (0..SEEDS).map(random_network).collect();
    let layers = || networks.iter().flat_map(|network| &network.layers);
    let has = |wanted: fn(&Op) -> bool| layers().filter(|layer| wanted(&layer.op)).count() >= 5;
    assert!(has(|op| matches!(op, Op::Normalize { .. })) && has(|op| matches!(op, Op::Conv2d { .. })));
    assert!(has(|op| matches!(op, Op::BatchNorm { .. })) && has(|op| *op == Op::Relu) && has(|op| *op == Op::Add));
    assert!(has(|op| matches!(op, Op::MaxPool { .. })) && has(|op| matches!(op, Op::Linear { .. })));
    assert!(has(|op| *op == Op::GlobalAvgPool));
    let count = |wanted: &dyn Fn(&Network) -> bool| networks.iter().filter(|network| wanted(network)).count();
    assert!(count(&|network| network.readers().iter().any(|readers| *readers > 1)) >= 10);
    let ends = |wanted: fn(&Op) -> bool| count(&|network| network.layers.last().is_some_and(|l| wanted(&l.op)));
    assert!(ends(|op| matches!(op, Op::Linear { .. })) >= 3 && ends(|op| *op == Op::Add) >= 2);
    assert!(ends(|op| matches!(op, Op::BatchNorm { .. })) >= 1 && ends(|op| *op == Op::Relu) >= 1);
    let small = |l: &Layer| matches!(l.op, Op::BatchNorm { .. }) && (l.shape.height, l.shape.width) == (1, 1);
    assert!(count(&|network| network.layers.iter().any(small)) >= 3);
}

/// As in PyTorch ("Expected more than 1 value per channel when training").
#[test]
fn batch_norm_of_one_value_per_channel_is_refused() {
    let mut b = Builder::new(3, 4, 4);
    let x = b.conv(0, 5, SAME);
    let x = b.norm_relu(x);
    let x = b.conv(x, 12, [4, 1, 0]);
    let x = b.norm_relu(x);
    b.linear(x, CLASSES);
    let network = b.build("maps of 1×1");
    let state = state(&network);
    let engines: [Box<dyn Engine>; 2] =
        [Box::new(wgsl(device(), &network, &state, false)), Box::new(candle(&network, &state))];
    for mut engine in engines {
        let before = engine.state().unwrap();
        for count in [1, 2] {
            let images = Images::new(network.input, count);
            let (batch, objective) = (images.batch(), Objective::CrossEntropy);
            let input = Input::Batch(&batch);
            engine.logits(&input, BatchNormMode::Eval).unwrap();
            engine.input_gradient(&input, &objective, BatchNormMode::Eval).unwrap();
            let pixels = batch.prepare(network.input);
            let given = Input::Images(&pixels, &images.labels);
            let views = engine.perturb(&batch, &still(count, BatchNormMode::Eval)).unwrap();
            let view = Input::View(&views, View::Adversarial);
            let train = BatchNormMode::Train;
            // The perturbation is last, because it replaces the views if it succeeds.
            let results = [
                ("logits", engine.logits(&input, train).map(|_| ())),
                ("logits of images", engine.logits(&given, train).map(|_| ())),
                ("logits of a view", engine.logits(&view, train).map(|_| ())),
                ("input_gradient", engine.input_gradient(&input, &objective, train).map(|_| ())),
                ("train_step", engine.train_step(&views, &both_views(), &SGD).map(|_| ())),
                ("perturb", engine.perturb(&batch, &still(count, train)).map(|_| ())),
            ];
            for (call, result) in results {
                let what = format!("{}, {call} of {count} images: {result:?}", engine.name());
                match result {
                    Ok(()) => assert_eq!(count, 2, "{what}"),
                    Err(EngineError::Invalid(error)) => {
                        assert!(count == 1 && error.contains("'layer4'") && error.contains("at least two"), "{what}");
                    }
                    Err(_) => panic!("{what}"),
                }
            }
            assert_eq!(
                engine.state().unwrap() == before,
                count == 1,
                "{}: a refused call changed the state",
                engine.name()
            );
        }
    }
}

#[test]
fn networks_that_cannot_run_are_refused() {
    let mut b = Builder::new(3, 4, 4);
    let x = b.conv(0, 5, SAME);
    b.head(x);
    let mut network = b.build("a linear layer of maps");
    network.layers[2].inputs = vec![1];
    network.layers[2].op = Op::Linear { in_features: 5, out_features: CLASSES };
    let state = state(&network);
    let options = WgslOptions { pipelines: None, ..WgslOptions::default() };
    for error in [
        WgslEngine::new(network.clone(), &state, &options).unwrap_err(),
        CandleEngine::new(network.clone(), &state, CandleDevice::Cpu).unwrap_err(),
        super::Plan::new(&network, 2).unwrap_err(),
    ] {
        assert!(matches!(error, EngineError::Model(ModelError::Layers { .. })), "{error}");
        assert!(error.to_string().contains("'layer2'"), "{error}");
    }
}
