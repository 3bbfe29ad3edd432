//! When results are bitwise identical.

use fairtat::attack::{Attack, measure};
use fairtat::engine::{
    BatchNormMode, BatchStats, Engine, EngineState, Input, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View,
};
use fairtat::model::State;
use fairtat::rng::Purpose;
use fairtat::units::Epsilon;

use super::{Subject, trained};
use crate::engines::{ENGINES, Tested};

fn search(n: usize, batch_norm: BatchNormMode) -> SearchSpec {
    SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![0.05; n],
        step_size: vec![0.02; n],
        steps: 4,
        start: Start::Uniform { purpose: Purpose::AttackStart, epoch: 1 },
        batch_norm,
        ..SearchSpec::default()
    }
}

#[test]
fn in_eval_mode_an_image_is_attacked_alike_in_any_batch() {
    for tested in ENGINES {
        for kind in 0..4 {
            let n = 11;
            let subject = Subject::new(kind, n, 3);
            let mut engine = subject.open(tested);
            let mut run = |range: std::ops::Range<usize>| {
                let spec = search(range.len(), BatchNormMode::Eval);
                let views = engine.perturb(&subject.part(range), &spec).unwrap();
                let images = engine.read_view(&views, View::Adversarial).unwrap();
                let logits = engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval).unwrap();
                (images, logits)
            };
            let whole = run(0..n);
            for size in [1, 2, 4, 7] {
                let (mut images, mut logits) = (Vec::new(), Vec::new());
                for first in (0..n).step_by(size) {
                    let part = run(first..(first + size).min(n));
                    images.extend(part.0);
                    logits.extend(part.1);
                }
                assert!(images == whole.0, "{}: network {kind}, images of batches of {size}", tested.name);
                assert!(logits == whole.1, "{}: network {kind}, logits of batches of {size}", tested.name);
            }
        }
    }
}

#[test]
fn a_measured_accuracy_does_not_depend_on_the_batch_size() {
    for tested in ENGINES {
        let (mut engine, set) = trained(tested);
        let attack = Attack::pgd(Epsilon::levels(12.0), Epsilon::levels(3.0), 5, Norm::Linf, 7);
        let mut run =
            |size| measure(engine.as_mut(), &set, &attack, size, &mut |_, _| true).unwrap().unwrap().confusion;
        let whole = run(64);
        assert!(whole.accuracy() > 0.0 && whole.mistakes() > 0);
        for size in [1, 7] {
            assert_eq!(run(size), whole, "batches of {size}");
        }
    }
}

/// Three training steps on searched images; returns the state afterwards and the results of each step.
fn train(tested: Tested, subject: &Subject) -> (EngineState, Vec<BatchStats>, Vec<f32>) {
    let mut engine = subject.open(tested);
    let mut stats = Vec::new();
    for _ in 0..3 {
        let batch = subject.batch();
        let views = engine.perturb(&batch, &search(batch.len(), BatchNormMode::Train)).unwrap();
        let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
        stats.push(engine.train_step(&views, &LossSpec::cross_entropy(View::Adversarial), &sgd).unwrap());
    }
    let logits = engine.logits(&Input::Batch(&subject.batch()), BatchNormMode::Eval).unwrap();
    (engine.state().unwrap(), stats, logits)
}

#[test]
fn the_same_calls_give_the_same_bits() {
    for tested in ENGINES {
        for kind in 0..4 {
            let subject = Subject::new(kind, 9, 8);
            assert!(train(tested, &subject) == train(tested, &subject), "{}: network {kind}", tested.name);
        }
    }
}

#[test]
fn a_state_that_is_loaded_goes_on_as_the_one_that_was_read() {
    for tested in ENGINES {
        let subject = Subject::new(2, 8, 4);
        let (state, ..) = train(tested, &subject);
        let go_on = |mut engine: Box<dyn Engine>| {
            let views = engine.perturb(&subject.batch(), &search(8, BatchNormMode::Train)).unwrap();
            let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
            engine.train_step(&views, &LossSpec::cross_entropy(View::Adversarial), &sgd).unwrap();
            engine.state().unwrap()
        };
        let mut one = subject.open(tested);
        one.load_state(&state).unwrap();
        assert_eq!(one.state().unwrap(), state);
        let other = Subject { state: State::initialise(&subject.network, 99), ..Subject::new(2, 8, 4) };
        let mut two = other.open(tested);
        two.load_state(&state).unwrap();
        assert!(go_on(one) == go_on(two));
    }
}
