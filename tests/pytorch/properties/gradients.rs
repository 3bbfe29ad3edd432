//! Gradients against finite differences of their losses.

use fairtat::engine::{Engine, Input, LossSpec, LossTerm, Objective, Reduction, SgdStep, Term, View, Weights, loss};
use fairtat::model::State;
use fairtat::rng::{Purpose, Stream};

use super::{CLASSES, Subject, settled};
use crate::engines::ENGINES;
use crate::passes::{MODES, no_search};

/// A direction of length one, drawn with the stream `sample`; half of it is along `gradient`, so that the directional
/// derivative is not a small difference of large terms.
fn direction(gradient: &[f32], sample: u32) -> Vec<f32> {
    let unit = |values: Vec<f32>| {
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.into_iter().map(|v| v / length).collect::<Vec<f32>>()
    };
    let stream = Stream::new(17, Purpose::Test, 3, sample);
    let drawn = unit((0..gradient.len() as u32).map(|i| stream.normal(i)).collect());
    unit(unit(gradient.to_vec()).iter().zip(drawn).map(|(g, d)| g + d).collect())
}

fn along(values: &[f32], direction: &[f32], step: f32) -> Vec<f32> {
    values.iter().zip(direction).map(|(v, d)| v + step * d).collect()
}

/// Asserts that the slope of `value` at zero is `<gradient, direction>`, to within 1 %.
///
/// A long step crosses kinks of ReLU, pooling and DLR; a short one is lost in rounding. The right length depends on
/// where the next kink is, so it suffices that one of several agrees; a wrong gradient agrees with none.
#[track_caller]
fn check(what: &str, gradient: &[f32], direction: &[f32], mut value: impl FnMut(f32) -> f64) {
    let expected: f64 = gradient.iter().zip(direction).map(|(g, d)| f64::from(*g) * f64::from(*d)).sum();
    let errors = [2e-3, 5e-4, 1.25e-4].map(|change| {
        let step = change / expected.abs();
        let slope = (value(step as f32) - value(-step as f32)) / (2.0 * step);
        (slope - expected).abs() / expected.abs()
    });
    let least = errors.into_iter().fold(f64::INFINITY, f64::min);
    println!("{what}: off by {least:.1e}");
    assert!(least < 1e-2, "{what}: the slopes at three steps differ from {expected} by {errors:?} of it");
}

#[test]
fn input_gradients_are_the_slopes_of_objectives() {
    for tested in ENGINES {
        for kind in 0..4 {
            let subject = settled(tested, kind, 21);
            let (images, labels) = (subject.images(), &subject.labels);
            let targets: Vec<u32> = labels.iter().map(|label| (label + 2) % CLASSES as u32).collect();
            for (mode, batch_norm) in MODES {
                let objectives = [
                    Objective::CrossEntropy,
                    Objective::Targeted(targets.clone()),
                    Objective::Dlr,
                    Objective::DlrTowards(targets.clone()),
                    Objective::MarginTo(targets.clone()),
                ];
                for (index, objective) in objectives.into_iter().enumerate() {
                    let mut engine = subject.open(tested);
                    let input = Input::Images(&images, labels);
                    let (_, gradient) = engine.input_gradient(&input, &objective, batch_norm).unwrap();
                    let direction = direction(&gradient, kind as u32);
                    check(
                        &format!("{}, network {kind}, {mode}, objective {index}", tested.name),
                        &gradient,
                        &direction,
                        |step| {
                            // In train mode the running statistics change, but nothing here depends on them.
                            let moved = along(&images, &direction, step);
                            let logits = engine.logits(&Input::Images(&moved, labels), batch_norm).unwrap();
                            let (values, _) = loss::objective(&objective, &logits, labels, CLASSES, None).unwrap();
                            values.into_iter().map(f64::from).sum()
                        },
                    );
                }
            }
        }
    }
}

/// A step with learning rate zero returns the loss and stores the gradient as momentum.
fn loss_and_gradient(engine: &mut dyn Engine, subject: &Subject, loss: &LossSpec) -> (f64, State) {
    let mut spec = no_search(subject.labels.len());
    // A second view that differs from the clean one.
    spec.epsilon.fill(0.1);
    spec.start = fairtat::engine::Start::Uniform { purpose: Purpose::Test, epoch: 0 };
    let views = engine.perturb(&subject.batch(), &spec).unwrap();
    let stats = engine
        .train_step(&views, loss, &SgdStep { lr: 0.0, momentum: 0.0, weight_decay: 0.0, nesterov: false })
        .unwrap();
    (stats.loss, engine.state().unwrap().momentum)
}

#[test]
fn training_steps_go_along_the_slope_of_the_loss() {
    let mean = |term| LossTerm::mean(1.0, term);
    let (clean, adversarial) = (View::Clean, View::Adversarial);
    let each = Weights::PerImage(vec![0.3, 0.0, 0.1, 0.2, 0.3, 0.1]);
    let losses = [
        LossSpec::cross_entropy(adversarial),
        LossSpec::of(vec![mean(Term::CrossEntropy(clean)), mean(Term::Kl { from: clean, to: adversarial })]),
        LossSpec::of(vec![LossTerm {
            term: Term::CrossEntropy(adversarial),
            factor: 1.0,
            weights: each,
            reduction: Reduction::Sum,
        }]),
        LossSpec::of(vec![mean(Term::CrossEntropy(adversarial)), mean(Term::KlToUniform(adversarial))]),
    ];
    for tested in ENGINES {
        for kind in 0..4 {
            let subject = settled(tested, kind, 22);
            for (index, loss) in losses.iter().enumerate() {
                let mut engine = subject.open(tested);
                let (_, gradient) = loss_and_gradient(engine.as_mut(), &subject, loss);
                let flat: Vec<f32> = gradient.0.values().flat_map(|array| array.data.clone()).collect();
                let direction = direction(&flat, 100 + kind as u32);
                check(&format!("{}, network {kind}, loss {index}", tested.name), &flat, &direction, |step| {
                    let mut state = subject.state.clone();
                    let mut rest = direction.as_slice();
                    for name in gradient.0.keys() {
                        let array = state.0.get_mut(name).unwrap();
                        let (here, later) = rest.split_at(array.data.len());
                        array.data = along(&array.data, here, step);
                        rest = later;
                    }
                    engine.load_model(&state).unwrap();
                    loss_and_gradient(engine.as_mut(), &subject, loss).0
                });
            }
        }
    }
}
