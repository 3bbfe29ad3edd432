//! One engine with a whole small network: run-time checks in shaders change no result, and after the loss of the device
//! every call returns an error; it never panics and never blocks forever.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use super::harness::relative_error;
use super::{Checks, GpuError, WgslEngine, WgslOptions};
use crate::data::ImageShape;
use crate::engine::{
    Batch, BatchNormMode, Engine, EngineError, EngineState, Input, LossSpec, LossTerm, Norm, Objective, SearchSpec,
    SgdStep, Start, Term, View,
};
use crate::model::{Layer, Network, Op, State, Value};
use crate::rng::{Purpose, Stream};

pub(super) const IMAGES: usize = 7;
pub(super) const CLASSES: usize = 5;
/// Time limit of one call, on a software adapter that shares its processor.
const PATIENCE: Duration = Duration::from_secs(120);

/// Every kind of layer, with channel counts that are no multiples of four and sizes that leave remainders.
pub(super) fn network() -> Network {
    let mut layers: Vec<Layer> = Vec::new();
    let mut add = |name: &str, op: Op, inputs: &[Value], (channels, height, width)| {
        let shape = ImageShape::new(channels, height, width);
        layers.push(Layer { name: name.into(), op, inputs: inputs.to_vec(), shape });
        layers.len()
    };
    let conv =
        |in_channels, out_channels, stride| Op::Conv2d { in_channels, out_channels, kernel: 3, stride, padding: 1 };
    let x = add("normalize", Op::Normalize { mean: vec![0.4, 0.5, 0.6], std: vec![0.2, 0.25, 0.3] }, &[0], (3, 13, 11));
    let x = add("conv1", conv(3, 6, 1), &[x], (6, 13, 11));
    let x = add("bn1", Op::BatchNorm { channels: 6 }, &[x], (6, 13, 11));
    let x = add("relu1", Op::Relu, &[x], (6, 13, 11));
    let y = add("conv2", conv(6, 6, 1), &[x], (6, 13, 11));
    let x = add("add", Op::Add, &[y, x], (6, 13, 11));
    let x = add("relu2", Op::Relu, &[x], (6, 13, 11));
    let x = add("conv3", conv(6, 9, 2), &[x], (9, 7, 6));
    let x = add("bn2", Op::BatchNorm { channels: 9 }, &[x], (9, 7, 6));
    let x = add("relu3", Op::Relu, &[x], (9, 7, 6));
    let x = add("pool", Op::MaxPool { size: 2 }, &[x], (9, 3, 3));
    let x = add("mean", Op::GlobalAvgPool, &[x], (9, 1, 1));
    add("linear", Op::Linear { in_features: 9, out_features: CLASSES }, &[x], (CLASSES, 1, 1));
    Network { architecture: "test".into(), input: ImageShape::new(3, 13, 11), classes: CLASSES, layers }
}

pub(super) fn open(checks: Checks) -> WgslEngine {
    open_with(checks, None)
}

/// With a bound for bindings that cuts batches into ranges.
pub(super) fn open_with(checks: Checks, binding_limit: Option<u64>) -> WgslEngine {
    let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    // The engine with checks also uses immediates: neither changes a result.
    let immediates = checks == Checks::On;
    let options = WgslOptions { adapter, checks, immediates, pipelines: None, binding_limit, ..WgslOptions::default() };
    let network = network();
    let state = State::initialise(&network, 3);
    WgslEngine::new(network, &state, &options).unwrap()
}

pub(super) struct Images {
    pub(super) pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
}

impl Images {
    pub(super) fn new() -> Self {
        let mut random = Stream::new(4, Purpose::Test, 0, 0).sequence();
        Self {
            pixels: (0..IMAGES * network().input.len()).map(|_| random.word() as u8).collect(),
            labels: (0..IMAGES as u32).map(|i| i % CLASSES as u32).collect(),
            ids: (0..IMAGES as u32).collect(),
        }
    }

    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { pixels: &self.pixels, labels: &self.labels, ids: &self.ids, augment: None, seed: 6, epoch: 2 }
    }
}

fn spec(steps: u32) -> SearchSpec {
    SearchSpec {
        objective: Objective::Targeted((0..IMAGES as u32).map(|i| (i + 1) % CLASSES as u32).collect()),
        norm: Norm::Linf,
        epsilon: vec![8.0 / 255.0; IMAGES],
        step_size: vec![2.0 / 255.0; IMAGES],
        steps,
        start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 2 },
        batch_norm: BatchNormMode::Train,
        ..SearchSpec::default()
    }
}

fn both_views() -> LossSpec {
    let term = |term, weight| LossTerm::mean(weight, term);
    let kl = Term::Kl { from: View::Clean, to: View::Adversarial };
    LossSpec::of(vec![term(Term::CrossEntropy(View::Clean), 1.0), term(kl, 2.0)])
}

const SGD: SgdStep = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov: false };

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn checks_in_shaders_change_nothing() {
    let images = Images::new();
    let run = |checks| {
        let mut engine = open(checks);
        let mut found: Vec<(String, Vec<f32>)> = Vec::new();
        let mut keep = |what: &str, values: &[f32]| {
            assert!(
                !values.is_empty() && values.iter().all(|v| v.is_finite()) && values.iter().any(|v| *v != 0.0),
                "{what}"
            );
            found.push((what.to_owned(), values.to_vec()));
        };
        for mode in [BatchNormMode::Train, BatchNormMode::Eval] {
            let input = Input::Batch(&images.batch());
            keep("logits", &engine.logits(&input, mode).unwrap());
            let (logits, gradient) = engine.input_gradient(&input, &Objective::CrossEntropy, mode).unwrap();
            keep("logits beside a gradient", &logits);
            keep("input gradient", &gradient);
        }
        for step in 0..2 {
            let views = engine.perturb(&images.batch(), &spec(2)).unwrap();
            keep("adversarial images", &engine.read_view(&views, View::Adversarial).unwrap());
            keep("loss", &[engine.train_step(&views, &both_views(), &SGD).unwrap().loss as f32]);
            let EngineState { model, momentum } = engine.state().unwrap();
            for (name, array) in model.0.iter() {
                keep(&format!("{name} after step {step}"), &array.data);
            }
            for (name, array) in momentum.0.iter() {
                keep(&format!("momentum of {name} after step {step}"), &array.data);
            }
        }
        found
    };
    let (off, on) = (run(Checks::Off), run(Checks::On));
    assert_eq!(off.len(), on.len());
    // A driver may contract arithmetic differently next to a check; lavapipe does not. On other adapters, the sign of a
    // gradient near zero may then flip one pixel of an attack.
    let exact = open(Checks::Off).gpu.info.device_type == wgpu::DeviceType::Cpu;
    for ((what, off), (_, on)) in off.into_iter().zip(on) {
        let error = relative_error(&off, &on);
        assert!(if exact { bits(&off) == bits(&on) } else { error < 1e-3 }, "{what}: {error:.2e}");
    }
}

fn digits(images: usize) -> (Vec<u8>, Vec<u32>, Vec<u32>) {
    let mut random = Stream::new(4, Purpose::Test, 0, 0).sequence();
    let labels: Vec<u32> = (0..images as u32).map(|i| i % 10).collect();
    ((0..images * 64).map(|_| random.word() as u8).collect(), labels, (0..images as u32).collect())
}

/// One batch of an epoch: a search with drawn starts, an update.
fn train_on(engine: &mut WgslEngine, images: usize) -> (Vec<f32>, f64) {
    let (pixels, labels, ids) = digits(images);
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 6, epoch: 2 };
    let per_image = |value: f32| vec![value / 255.0; images];
    let spec = SearchSpec {
        objective: Objective::CrossEntropy,
        epsilon: per_image(24.0),
        step_size: per_image(6.0),
        ..spec(2)
    };
    let views = engine.perturb(&batch, &spec).unwrap();
    // A forward pass on more images than any batch so far, between the search and its update.
    let (pixels, labels, ids) = digits(3 * images);
    let other = Batch { pixels: &pixels, labels: &labels, ids: &ids, ..batch };
    engine.logits(&Input::Batch(&other), BatchNormMode::Eval).unwrap();
    let loss = engine.train_step(&views, &both_views(), &SGD).unwrap().loss;
    (engine.read_view(&views, View::Adversarial).unwrap(), loss)
}

/// The batch sizes of an epoch differ by one: the second size takes no memory and compiles no pipeline, even with other
/// calls between a search and its update.
#[test]
fn a_second_batch_size_costs_nothing() {
    let network = crate::model::Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 10, None, Some(8));
    let state = State::initialise(&network, 3);
    let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    // A limit with which the larger batch is split into two ranges, and the smaller one is not.
    for (binding_limit, ranges) in [(None, [1, 1]), (Some(33 * 4 * 16 * 64), [2, 1])] {
        let options =
            WgslOptions { adapter: adapter.clone(), pipelines: None, binding_limit, ..WgslOptions::default() };
        let open = || WgslEngine::new(network.clone(), &state, &options).unwrap();
        let mut engine = open();
        assert_eq!([34, 33].map(|n| engine.ranges(n).unwrap().len()), ranges);
        train_on(&mut engine, 34);
        let (bytes, pipelines) = (engine.device_bytes(), engine.gpu.pipeline_count());
        let second = train_on(&mut engine, 33);
        // The terms of the loss, with a weight per image, and small buffers for which no slot was free. A batch that is
        // not split needs larger slots than one in two ranges.
        let more = engine.device_bytes() - bytes;
        let most = if ranges == [2, 1] { bytes } else { bytes / 50 };
        assert!(more <= most, "{more} bytes beside {bytes}");
        assert_eq!(engine.gpu.pipeline_count(), pipelines);
        // The same results as an engine that has run no other size.
        let mut alone = open();
        train_on(&mut alone, 34);
        let after_first = alone.state().unwrap();
        let mut fresh = open();
        fresh.load_state(&after_first).unwrap();
        let expected = train_on(&mut fresh, 33);
        assert_eq!(bits(&second.0), bits(&expected.0));
        assert_eq!(second.1.to_bits(), expected.1.to_bits());
        assert_eq!(engine.state().unwrap(), fresh.state().unwrap());
    }
}

type Answer = (&'static str, Result<(), EngineError>);

/// Runs calls in a separate thread and returns their answers. The test fails if a call panics or times out.
fn watched(calls: impl FnOnce(&Sender<Answer>) + Send + 'static) -> Vec<Answer> {
    let (sender, receiver) = channel();
    let thread = std::thread::spawn(move || calls(&sender));
    let mut answers: Vec<Answer> = Vec::new();
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) => answers.push(answer),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no answer within {PATIENCE:?} after {:?}", answers.last())
            }
        }
    }
    thread.join().expect("no call panics");
    answers
}

/// Every call that needs no views, twice: the second runs in the state that the first left.
fn call_everything(engine: &mut WgslEngine, good: &EngineState, say: &Sender<Answer>) {
    let images = Images::new();
    let (batch, mode) = (images.batch(), BatchNormMode::Eval);
    for _ in 0..2 {
        let input = Input::Batch(&batch);
        say.send(("perturb", engine.perturb(&batch, &spec(2)).map(|_| ()))).unwrap();
        say.send(("logits", engine.logits(&input, mode).map(|_| ()))).unwrap();
        let gradient = engine.input_gradient(&input, &Objective::CrossEntropy, mode);
        say.send(("input_gradient", gradient.map(|_| ()))).unwrap();
        say.send(("state", engine.state().map(|_| ()))).unwrap();
        say.send(("load_model", engine.load_model(&good.model))).unwrap();
        say.send(("load_state", engine.load_state(good))).unwrap();
        // A batch size without programs so far.
        let one = Batch { pixels: &images.pixels[..429], labels: &[1], ids: &[1], ..batch };
        say.send(("logits of another batch", engine.logits(&Input::Batch(&one), mode).map(|_| ()))).unwrap();
    }
}

fn assert_lost(answers: &[Answer], calls: usize) {
    assert_eq!(answers.len(), calls);
    for (i, (call, answer)) in answers.iter().enumerate() {
        assert!(matches!(answer, Err(EngineError::Gpu(GpuError::Lost { .. }))), "{call}, answer {i}: {answer:?}");
    }
}

fn assert_a_new_engine_works(logits: &[f32]) {
    let found = open(Checks::Off).logits(&Input::Batch(&Images::new().batch()), BatchNormMode::Eval).unwrap();
    assert_eq!(bits(&found), bits(logits));
}

fn logits() -> Vec<f32> {
    open(Checks::Off).logits(&Input::Batch(&Images::new().batch()), BatchNormMode::Eval).unwrap()
}

#[test]
fn a_device_lost_between_calls_is_an_error_of_every_call() {
    let before = logits();
    for under_way in [false, true] {
        let answers = watched(move |say| {
            let images = Images::new();
            let mut engine = open(Checks::Off);
            let views = engine.perturb(&images.batch(), &spec(1)).unwrap();
            let good = engine.state().unwrap();
            if under_way {
                // This update has not been waited for.
                engine.train_step(&views, &both_views(), &SGD).unwrap();
            }
            engine.gpu.device.destroy();
            // Before the next perturbation replaces the views.
            for _ in 0..2 {
                say.send(("train_step", engine.train_step(&views, &both_views(), &SGD).map(|_| ()))).unwrap();
                say.send(("read_view", engine.read_view(&views, View::Clean).map(|_| ()))).unwrap();
                let input = Input::View(&views, View::Adversarial);
                say.send(("logits of a view", engine.logits(&input, BatchNormMode::Train).map(|_| ()))).unwrap();
            }
            call_everything(&mut engine, &good, say);
        });
        assert_lost(&answers, 6 + 14);
    }
    assert_a_new_engine_works(&before);
}

#[test]
fn a_device_lost_during_a_search_ends_it() {
    let before = logits();
    for after in [Duration::ZERO, Duration::from_millis(30), Duration::from_millis(400)] {
        let answers = watched(move |say| {
            let images = Images::new();
            let mut engine = open(Checks::Off);
            engine.perturb(&images.batch(), &spec(1)).unwrap();
            let good = engine.state().unwrap();
            let device = engine.gpu.device.clone();
            let thief = std::thread::spawn(move || {
                std::thread::sleep(after);
                device.destroy();
            });
            // Would take days if the device were not lost.
            let answer = engine.perturb(&images.batch(), &spec(1_000_000_000));
            say.send(("perturb", answer.map(|_| ()))).unwrap();
            thief.join().unwrap();
            call_everything(&mut engine, &good, say);
        });
        assert_lost(&answers, 1 + 14);
    }
    assert_a_new_engine_works(&before);
}
