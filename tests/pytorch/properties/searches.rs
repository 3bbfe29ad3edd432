//! Constraints on the result of a search, and what it must achieve.

use fairtat::attack::{Attack, measure};
use fairtat::engine::{Batch, BatchNormMode, Engine, Input, Norm, Objective, SearchSpec, Start, View, Views, loss};
use fairtat::rng::{Purpose, Stream};
use fairtat::units::Epsilon;
use proptest::prelude::*;

use super::{CLASSES, Subject, config, trained};
use crate::engines::ENGINES;

fn spec() -> impl Strategy<Value = SearchSpec> {
    let n = 1..5usize;
    let distance = || prop::sample::select(vec![0.0f32, 1e-4, 8.0 / 255.0, 0.5, 3.0]);
    n.prop_flat_map(move |n| {
        let objective = prop_oneof![
            Just(Objective::CrossEntropy),
            prop::collection::vec(0..CLASSES as u32, n).prop_map(Objective::Targeted),
            Just(Objective::KlToClean),
            Just(Objective::Dlr),
        ];
        let purpose = Purpose::AttackStart;
        let start = prop_oneof![
            Just(Start::Zero),
            Just(Start::Uniform { purpose, epoch: 4 }),
            prop::sample::select(vec![0.001f32, 1.0]).prop_map(move |d| Start::Normal {
                deviation: d,
                purpose,
                epoch: 4
            }),
            // The test truncates this to the size of the images, because it knows the network.
            prop::collection::vec(-2.0f32..2.0, n * 3 * 64).prop_map(Start::Given),
        ];
        let norm = prop::sample::select(vec![Norm::Linf, Norm::L2]);
        let batch_norm = prop::sample::select(vec![BatchNormMode::Train, BatchNormMode::Eval]);
        let distances = || prop::collection::vec(distance(), n);
        (objective, norm, distances(), distances(), 0..4u32, start, batch_norm).prop_map(
            |(objective, norm, epsilon, step_size, steps, start, batch_norm)| SearchSpec {
                objective,
                norm,
                // Some networks have feature maps of one pixel, for which train mode refuses a single image.
                batch_norm: if epsilon.len() == 1 { BatchNormMode::Eval } else { batch_norm },
                epsilon,
                step_size,
                steps,
                start,
                ..SearchSpec::default()
            },
        )
    })
}

/// `spec` for images with `values` values in total.
fn fitted(mut spec: SearchSpec, values: usize) -> SearchSpec {
    if let Start::Given(start) = &mut spec.start {
        start.truncate(values);
    }
    spec
}

fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|v| v * v).sum::<f64>().sqrt()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_perturbation_stays_in_its_ball_and_in_the_box(spec in spec(), kind in 0..4usize, seed: u64) {
        let subject = Subject::new(kind, spec.epsilon.len(), seed);
        let spec = fitted(spec, subject.pixels.len());
        for tested in ENGINES {
            let mut engine = subject.open(tested);
            let views = engine.perturb(&subject.batch(), &spec).unwrap();
            let clean = engine.read_view(&views, View::Clean).unwrap();
            let adversarial = engine.read_view(&views, View::Adversarial).unwrap();
            prop_assert_eq!(&clean, &subject.images());
            prop_assert!(adversarial.iter().all(|v| (0.0..=1.0).contains(v)));
            let image = subject.network.input.len();
            for ((clean, adversarial), epsilon) in clean.chunks(image).zip(adversarial.chunks(image)).zip(&spec.epsilon) {
                if *epsilon == 0.0 {
                    prop_assert_eq!(clean, adversarial);
                }
                let epsilon = f64::from(*epsilon);
                let moved = clean.iter().zip(adversarial).map(|(c, a)| f64::from(*a) - f64::from(*c));
                // Each value of an image is rounded by up to half of 2⁻²⁴: 4e-7 in the length of 192 of them.
                match spec.norm {
                    Norm::Linf => prop_assert!(moved.map(f64::abs).fold(0.0, f64::max) <= epsilon + 1e-7),
                    Norm::L2 => prop_assert!(length(moved) <= epsilon * (1.0 + 1e-6) + 1e-6),
                }
            }
        }
    }

    #[test]
    fn no_steps_give_the_start_inside_the_ball_and_the_box(spec in spec(), kind in 0..4usize, seed: u64) {
        let subject = Subject::new(kind, spec.epsilon.len(), seed);
        let spec = SearchSpec { steps: 0, ..fitted(spec, subject.pixels.len()) };
        let image = subject.network.input.len();
        let clean = subject.images();
        let mut expected = Vec::new();
        for (i, clean) in clean.chunks(image).enumerate() {
            let epsilon = spec.epsilon[i];
            let stream = Stream::new(seed, Purpose::AttackStart, 4, subject.ids[i]);
            let mut delta: Vec<f32> = match &spec.start {
                Start::Zero => vec![0.0; image],
                Start::Uniform { .. } if spec.norm == Norm::L2 => {
                    let mut inside = vec![0.0; image];
                    stream.fill_ball(epsilon, &mut inside);
                    inside
                }
                Start::Uniform { .. } => (0..image as u32).map(|j| epsilon * stream.symmetric(j)).collect(),
                Start::Normal { deviation, .. } => (0..image as u32).map(|j| deviation * stream.normal(j)).collect(),
                Start::Given(values) => values[i * image..][..image].to_vec(),
            };
            match spec.norm {
                Norm::Linf => delta.iter_mut().for_each(|d| *d = d.clamp(-epsilon, epsilon)),
                Norm::L2 => {
                    let length = length(delta.iter().map(|d| f64::from(*d))) as f32;
                    let factor = if length > epsilon { epsilon / length } else { 1.0 };
                    delta.iter_mut().for_each(|d| *d *= factor);
                }
            }
            expected.extend(clean.iter().zip(delta).map(|(c, d)| (c + d).clamp(0.0, 1.0)));
        }
        for tested in ENGINES {
            let mut engine = subject.open(tested);
            let views = engine.perturb(&subject.batch(), &spec).unwrap();
            let found = engine.read_view(&views, View::Adversarial).unwrap();
            let distance = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            prop_assert!(distance <= 1e-6, "{distance}");
        }
    }
}

/// The value of an objective for each image of `view`.
fn values(engine: &mut dyn Engine, views: &Views, view: View, objective: &Objective, labels: &[u32]) -> Vec<f32> {
    let clean = engine.logits(&Input::View(views, View::Clean), BatchNormMode::Eval).unwrap();
    let logits = engine.logits(&Input::View(views, view), BatchNormMode::Eval).unwrap();
    loss::objective(objective, &logits, labels, CLASSES, Some(&clean)).unwrap().0
}

#[test]
fn a_search_raises_its_objective() {
    for tested in ENGINES {
        let (mut engine, set) = trained(tested);
        let n = set.len();
        let ids: Vec<u32> = (0..n as u32).collect();
        let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 1, epoch: 0 };
        let targets = set.labels().iter().map(|label| (label + 1) % CLASSES as u32).collect();
        let objectives = [Objective::CrossEntropy, Objective::Targeted(targets), Objective::Dlr, Objective::KlToClean];
        for objective in objectives {
            for (norm, epsilon) in [(Norm::Linf, 8.0 / 255.0), (Norm::L2, 0.25)] {
                let start = match objective {
                    Objective::KlToClean => Start::Normal { deviation: 0.001, purpose: Purpose::Test, epoch: 0 },
                    _ => Start::Zero,
                };
                let mut after = |steps| {
                    let spec = SearchSpec {
                        objective: objective.clone(),
                        norm,
                        epsilon: vec![epsilon; n],
                        step_size: vec![epsilon / 4.0; n],
                        steps,
                        start: start.clone(),
                        batch_norm: BatchNormMode::Eval,
                        ..SearchSpec::default()
                    };
                    let views = engine.perturb(&batch, &spec).unwrap();
                    values(engine.as_mut(), &views, View::Adversarial, &objective, set.labels())
                };
                let (start, end) = (after(0), after(6));
                let raised = start.iter().zip(&end).filter(|(s, e)| e >= s).count();
                assert!(raised * 100 >= 97 * n, "{objective:?}, {norm:?}: {raised} of {n} rose");
                let mean = |values: &[f32]| values.iter().sum::<f32>() / n as f32;
                assert!(mean(&end) > mean(&start) + 1e-3, "{objective:?}, {norm:?}: {} {}", mean(&start), mean(&end));
            }
        }
    }
}

#[test]
fn more_restarts_never_raise_the_accuracy() {
    for tested in ENGINES {
        let (mut engine, set) = trained(tested);
        let mut accuracy = |attack: &Attack| {
            measure(engine.as_mut(), &set, attack, 32, &mut |_, _| true).unwrap().unwrap().confusion.accuracy()
        };
        let clean = accuracy(&Attack::clean());
        let radius = Epsilon::levels(12.0);
        let one = Attack::pgd(radius, Epsilon::levels(3.0), 5, Norm::Linf, 7);
        let (single, worst_of_three) = (accuracy(&one), accuracy(&Attack { restarts: 3, ..one }));
        assert!(clean > 0.9 && single < clean, "{clean} {single}");
        assert!(worst_of_three <= single && worst_of_three > 0.0, "{worst_of_three} {single}");
    }
}
