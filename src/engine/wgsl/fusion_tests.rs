//! Compares networks as the engine runs them, with Winograd's algorithm and fused kernels, with one kernel per layer.

use super::harness::relative_error;
use super::{Checks, WgslEngine, WgslOptions};
use crate::data::ImageShape;
use crate::engine::{
    Batch, BatchNormMode, Engine, Input, LossSpec, LossTerm, Norm, Objective, SearchSpec, SgdStep, Start, Term, View,
};
use crate::model::{Architecture, Network, State};
use crate::rng::{Purpose, Stream};

const CLASSES: usize = 6;
const IMAGES: usize = 5;

fn open(network: &Network, plain: bool, binding_limit: Option<u64>) -> WgslEngine {
    let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    let checks = Checks::On;
    let options = WgslOptions { adapter, checks, pipelines: None, plain, binding_limit, ..WgslOptions::default() };
    WgslEngine::new(network.clone(), &State::initialise(network, 3), &options).unwrap()
}

struct Images {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
}

impl Images {
    fn new(shape: ImageShape) -> Self {
        let mut random = Stream::new(4, Purpose::Test, 0, 0).sequence();
        Self {
            pixels: (0..IMAGES * shape.len()).map(|_| random.word() as u8).collect(),
            labels: (0..IMAGES as u32).map(|i| i % CLASSES as u32).collect(),
            ids: (0..IMAGES as u32).collect(),
        }
    }

    fn batch(&self) -> Batch<'_> {
        Batch { pixels: &self.pixels, labels: &self.labels, ids: &self.ids, augment: None, seed: 6, epoch: 2 }
    }
}

/// All results of an engine for a network: logits and gradients in both modes, a search, an update on both views, and
/// the logits after it.
pub(super) fn everything(mut engine: WgslEngine) -> Vec<(String, Vec<f32>)> {
    let images = Images::new(engine.network().input);
    let (batch, mut found) = (images.batch(), Vec::new());
    for mode in [BatchNormMode::Train, BatchNormMode::Eval] {
        found.push((format!("logits, {mode:?}"), engine.logits(&Input::Batch(&batch), mode).unwrap()));
        let objective = Objective::Targeted(images.labels.iter().map(|label| (label + 1) % CLASSES as u32).collect());
        let (_, gradient) = engine.input_gradient(&Input::Batch(&batch), &objective, mode).unwrap();
        found.push((format!("input gradient, {mode:?}"), gradient));
    }
    let spec = SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![8.0 / 255.0; IMAGES],
        step_size: vec![0.0; IMAGES],
        // Step size zero, because signs of tiny gradients would differ.
        steps: 2,
        start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 2 },
        batch_norm: BatchNormMode::Train,
        ..SearchSpec::default()
    };
    let views = engine.perturb(&batch, &spec).unwrap();
    let term = |term, weight| LossTerm::mean(weight, term);
    let kl = Term::Kl { from: View::Clean, to: View::Adversarial };
    let loss = LossSpec::of(vec![term(Term::CrossEntropy(View::Clean), 1.0), term(kl, 2.0)]);
    let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
    engine.train_step(&views, &loss, &sgd).unwrap();
    let state = engine.state().unwrap();
    let flat = |state: &State, running: bool| -> Vec<f32> {
        let arrays = state.0.iter().filter(|(name, _)| name.contains("running") == running);
        arrays.flat_map(|(_, array)| array.data.clone()).collect()
    };
    found.push(("momentum, which is the gradient".into(), flat(&state.momentum, false)));
    found.push(("parameters".into(), flat(&state.model, false)));
    found.push(("running statistics".into(), flat(&state.model, true)));
    let after = engine.logits(&Input::Batch(&batch), BatchNormMode::Train).unwrap();
    found.push(("logits after an update".into(), after));
    found
}

#[test]
fn fused_kernels_compute_what_a_kernel_for_each_layer_does() {
    let normalisation: (&[f32], &[f32]) = (&[0.4, 0.5, 0.6], &[0.2, 0.25, 0.3]);
    for (architecture, width, [height, side], limit) in [
        (Architecture::PreActResNet18, 12, [13, 11], None),
        // Several ranges of images, and transformed weights that exceed a binding.
        (Architecture::ResNet20, 14, [24, 23], Some(130_000)),
        (Architecture::SmallCnn, 13, [10, 14], None),
        (Architecture::WideResNet28x10, 16, [8, 8], None),
    ] {
        let shape = ImageShape::new(3, height, side);
        let network = architecture.build(shape, CLASSES, Some(normalisation), Some(width));
        let expected = everything(open(&network, true, None));
        let found = everything(open(&network, false, limit));
        for ((what, expected), (_, found)) in expected.iter().zip(&found) {
            let error = relative_error(found, expected);
            println!("{architecture} {what}: {error:.1e}");
            assert!(expected.iter().any(|v| *v != 0.0) && found.iter().all(|v| v.is_finite()), "{what}");
            assert!(error < 1e-4, "{architecture}, {what}: relative error {error:.1e}");
        }
    }
}

#[test]
fn fusion_saves_dispatches_and_arithmetic() {
    let network = Architecture::PreActResNet18.build(ImageShape::new(3, 32, 32), 10, None, None);
    let plan = super::Plan::new(&network, 128).unwrap();
    let plain = super::Plan::without_fusion(&network, 128).unwrap();
    for (fused, plain) in plan.programs.iter().zip(&plain.programs) {
        assert!(fused.dispatches < plain.dispatches, "{fused:?} {plain:?}");
        assert!(5 * fused.flops < 3 * plain.flops, "{fused:?} {plain:?}");
    }
}
