//! Forward and backward passes of every architecture.

use fairtat::engine::{BatchNormMode, Input, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View, loss};
use fairtat::model::{Array, State};

use crate::engines::{ENGINES, Tested};
use crate::golden::{Case, Errors, wide};

pub(crate) const MODES: [(&str, BatchNormMode); 2] = [("eval", BatchNormMode::Eval), ("train", BatchNormMode::Train)];
const CASES: [&str; 5] = ["digits-cnn", "small-cnn", "resnet-20", "preact-resnet-18", "wide-resnet-28-10"];

/// Runs a check on every engine and case.
fn each(cases: &[&'static str], check: impl Fn(&Case, Tested, &mut Errors)) {
    for name in cases {
        let case = Case::load(name);
        for tested in ENGINES {
            check(&case, tested, &mut Errors::of(tested, name));
        }
    }
}

/// A search without steps: the views are the clean images.
pub(crate) fn no_search(n: usize) -> SearchSpec {
    SearchSpec {
        objective: Objective::CrossEntropy,
        norm: Norm::Linf,
        epsilon: vec![0.0; n],
        step_size: vec![0.0; n],
        steps: 0,
        start: Start::Zero,
        batch_norm: BatchNormMode::Eval,
        ..SearchSpec::default()
    }
}

/// The running statistics in a state.
pub(crate) fn running(state: State) -> State {
    State(state.0.into_iter().filter(|(name, _)| name.contains(".running_")).collect())
}

#[test]
fn logits_and_losses_are_pytorchs() {
    each(&CASES, |case, tested, errors| {
        for (name, mode) in MODES {
            let logits = case.open(tested).logits(&Input::Batch(&case.batch(8)), mode).unwrap();
            errors.close(&format!("logits {name}"), &logits, case.golden.floats(&format!("logits_{name}")));
            let (losses, _) = loss::objective(&Objective::CrossEntropy, &logits, &case.labels, 10, None).unwrap();
            errors.close(&format!("loss {name}"), &losses, case.golden.floats(&format!("loss_{name}")));
        }
    });
}

#[test]
fn input_gradients_are_pytorchs() {
    each(&CASES, |case, tested, errors| {
        for (name, mode) in MODES {
            let (logits, gradient) = case
                .open(tested)
                .input_gradient(&Input::Batch(&case.batch(8)), &Objective::CrossEntropy, mode)
                .unwrap();
            let expected = case.golden.floats(&format!("input_grad_{name}"));
            errors.close(&format!("input gradient {name}"), &gradient, expected);
            assert_eq!(logits, case.open(tested).logits(&Input::Batch(&case.batch(8)), mode).unwrap());
        }
    });
}

#[test]
fn running_statistics_move_in_train_mode_alone() {
    each(&CASES, |case, tested, errors| {
        let mut engine = case.open(tested);
        engine.logits(&Input::Batch(&case.batch(8)), BatchNormMode::Eval).unwrap();
        assert_eq!(engine.state().unwrap().model, case.state);
        engine.logits(&Input::Batch(&case.batch(8)), BatchNormMode::Train).unwrap();
        let model = engine.state().unwrap().model;
        errors.close_states("running statistics", &model, &case.golden.state("after_forward"));
        assert_eq!(running(model).0.len(), case.golden.state("after_forward").0.len());
    });
}

/// PyTorch's running statistics after one pass, `0.9 · before + 0.1 · batch`, determine those of the batch.
#[test]
fn statistics_of_a_batch_are_pytorchs_and_leave_no_trace() {
    each(&CASES, |case, tested, errors| {
        let mut engine = case.open(tested);
        let before = engine.state().unwrap();
        let found = engine.batch_statistics(&Input::Batch(&case.batch(8))).unwrap();
        assert_eq!(engine.state().unwrap(), before);
        let after = case.golden.state("after_forward");
        assert_eq!(found.0.len(), after.0.len());
        for (name, after) in &after.0 {
            let pairs = case.state.0[name].data.iter().zip(&found.0[name].data);
            let moved: Vec<f32> = pairs.map(|(before, batch)| 0.9 * before + 0.1 * batch).collect();
            errors.close(name, &moved, &after.data);
        }
        let mut running = engine.running_statistics().unwrap();
        assert_eq!(running, self::running(before.model.clone()));
        running.0.values_mut().for_each(|array| array.data.iter_mut().for_each(|v| *v += 0.25));
        engine.load_running_statistics(&running).unwrap();
        let mut expected = before;
        expected.model.0.extend(running.0.clone());
        assert_eq!(engine.state().unwrap(), expected);
        let (name, array) = running.0.pop_first().unwrap();
        for (name, array) in [
            (name.replace("running_", "walking_"), array.clone()),
            (name.clone(), Array { data: vec![f32::NAN; array.data.len()], ..array.clone() }),
            (name, Array { shape: vec![1, array.data.len()], ..array }),
        ] {
            let error = engine.load_running_statistics(&State([(name.clone(), array)].into())).unwrap_err().to_string();
            assert!(error.contains(&name), "{error}");
        }
        assert_eq!(engine.state().unwrap(), expected);
    });
}

/// After the first step of SGD without weight decay, the momentum is the gradient itself. With a learning rate of 2³⁰
/// the step is so much longer than the parameter that the change of the parameter is the gradient too, up to one
/// rounding.
#[test]
fn parameter_gradients_are_pytorchs() {
    each(&CASES[..4], |case, tested, errors| {
        let mut engine = case.open(tested);
        let views = engine.perturb(&case.batch(8), &no_search(8)).unwrap();
        let lr = 2f64.powi(30);
        let step = SgdStep { lr, momentum: 0.0, weight_decay: 0.0, nesterov: false };
        engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &step).unwrap();
        let after = engine.state().unwrap();
        let expected = case.golden.state("param_grad");
        errors.close_states("parameter gradient", &after.momentum, &expected);
        assert_eq!(after.momentum.0.len(), expected.0.len());
        for (name, gradient) in &expected.0 {
            let pairs = case.state.0[name].data.iter().zip(&after.model.0[name].data);
            let found: Vec<f64> = pairs.map(|(before, after)| (f64::from(*before) - f64::from(*after)) / lr).collect();
            errors.close_f64("parameter gradient from a step", &found, &wide(&gradient.data));
        }
    });
}
