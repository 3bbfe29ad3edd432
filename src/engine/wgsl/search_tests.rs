//! Searches that pause, stop images and keep iterates: they give the same bits in one call and in pieces, and agree
//! with Candle.

use super::engine_tests::{CLASSES, IMAGES, Images, network, open, open_with};
use super::harness::relative_error;
use super::{Checks, WgslEngine};
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::{
    Batch, BatchNormMode, Engine, Input, LossSpec, LossTerm, Norm, Objective, SearchSpec, SgdStep, Snapshots, Start,
    Stop, TargetTable, Term, View,
};
use crate::model::State;
use crate::rng::Purpose;

const VIEWS: [View; 4] = [View::Clean, View::Adversarial, View::LastClean, View::FirstAdversarial];

fn objectives() -> [Objective; 6] {
    [
        Objective::CrossEntropy,
        Objective::Drawn(TargetTable::new(CLASSES, |label| {
            (0..CLASSES as u32).map(|k| f64::from(u8::from(k != label))).collect()
        })),
        Objective::LeastLikely,
        Objective::KlToClean,
        Objective::Dlr,
        Objective::Margin,
    ]
}

fn spec(objective: Objective, batch_norm: BatchNormMode, norm: Norm, stop: Stop) -> SearchSpec {
    let (epsilon, step_size) = if norm == Norm::L2 { (1.0, 0.4) } else { (0.08, 0.03) };
    SearchSpec {
        objective,
        norm,
        epsilon: vec![epsilon; IMAGES],
        step_size: vec![step_size; IMAGES],
        steps: 4,
        start: Start::Normal { deviation: 0.03, purpose: Purpose::AttackStart, epoch: 1 },
        project_start: false,
        noise: 0.002,
        batch_norm,
        stop,
        snapshots: Snapshots { last_clean: true, first_adversarial: true },
    }
}

/// Every view, the targets, the images without gradient and the running statistics.
type SearchResult = ([Vec<f32>; 4], Option<Vec<u32>>, Vec<bool>, State);

/// The results of a search in pieces of `steps`.
fn search(
    engine: &mut dyn Engine,
    batch: &Batch<'_>,
    spec: &SearchSpec,
    pieces: &[u32],
    mut between: impl FnMut(&mut dyn Engine) -> bool,
) -> SearchResult {
    let mut views = engine.begin(batch, spec).unwrap();
    for (i, steps) in pieces.iter().enumerate() {
        engine.advance(&views, *steps).unwrap();
        if i % 2 == 0 {
            // Calls without a search do not affect the paused one; calls with a search need it set aside.
            engine.logits(&Input::Batch(batch), BatchNormMode::Eval).unwrap();
            engine.input_gradient(&Input::Batch(batch), &Objective::CrossEntropy, BatchNormMode::Eval).unwrap();
        } else {
            let aside = engine.set_aside(&views).unwrap();
            assert_eq!(between(engine), engine.advance(&views, 0).is_err());
            for view in VIEWS {
                if let Ok(images) = engine.read_view(&views, view) {
                    assert_eq!(images.len(), IMAGES * network().input.len());
                }
            }
            views = engine.take_up(&aside).unwrap();
            // Read in the middle of the search.
            VIEWS.iter().for_each(|view| drop(engine.read_view(&views, *view).unwrap()));
        }
    }
    let targets = engine.targets(&views).unwrap().map(<[u32]>::to_vec);
    let without = engine.without_gradient(&views).unwrap().to_vec();
    let images = VIEWS.map(|view| engine.read_view(&views, view).unwrap());
    (images, targets, without, engine.running_statistics().unwrap())
}

/// Calls with three other images, including a search that needs the same buffers.
fn meddle(engine: &mut dyn Engine) -> bool {
    let images = Images::new();
    let batch =
        Batch { pixels: &images.pixels[..3 * 3 * 13 * 11], labels: &[4, 0, 1], ids: &[9, 8, 7], ..images.batch() };
    let spec = SearchSpec {
        epsilon: vec![0.3; 3],
        step_size: vec![0.1; 3],
        steps: 2,
        ..spec(Objective::KlToClean, BatchNormMode::Eval, Norm::Linf, Stop::Spent { budget: 0 })
    };
    engine.perturb(&batch, &spec).unwrap();
    true
}

fn stops() -> [Stop; 4] {
    [
        Stop::Never,
        Stop::WhileMisclassified { budget: 0 },
        Stop::WhileMisclassified { budget: 2 },
        Stop::Spent { budget: 1 },
    ]
}

#[test]
fn a_search_in_pieces_is_one_search() {
    let images = Images::new();
    let mut engine = open(Checks::Off);
    let before = engine.state().unwrap();
    for (i, objective) in objectives().into_iter().enumerate() {
        for batch_norm in [BatchNormMode::Train, BatchNormMode::Eval] {
            let norm =
                if (i + usize::from(batch_norm == BatchNormMode::Train)) % 2 == 0 { Norm::Linf } else { Norm::L2 };
            let spec = spec(objective.clone(), batch_norm, norm, stops()[i % 4]);
            let mut found = |pieces: &[u32], between: fn(&mut dyn Engine) -> bool| {
                engine.load_state(&before).unwrap();
                search(&mut engine, &images.batch(), &spec, pieces, between)
            };
            let whole = found(&[4], |_| false);
            for pieces in [&[1, 1, 1, 1, 0][..], &[0, 3, 1], &[0, 0, 2, 1, 1]] {
                assert!(whole == found(pieces, meddle), "{objective:?} {batch_norm:?} {pieces:?} among others");
                assert!(whole == found(pieces, |_| false), "{objective:?} {batch_norm:?} {pieces:?}");
            }
        }
    }
}

#[test]
fn stopped_images_and_kept_iterates_are_those_of_candle() {
    let images = Images::new();
    let state = State::initialise(&network(), 3);
    let mut candle = CandleEngine::new(network(), &state, CandleDevice::Cpu).unwrap();
    let mut wgsl = open(Checks::On);
    let mut kinds = [0; 3];
    for objective in objectives() {
        for stop in stops() {
            let mut spec = spec(objective.clone(), BatchNormMode::Eval, Norm::L2, stop);
            // Half of the labels are the network's predictions, so that some images start correctly classified.
            let predicted = candle.logits(&Input::Batch(&images.batch()), BatchNormMode::Eval).unwrap();
            let predicted: Vec<u32> = predicted.chunks(CLASSES).map(crate::engine::loss::argmax).collect();
            let labels: Vec<u32> = (0..IMAGES)
                .map(|i| if i % 3 == 0 { (predicted[i] + 1) % CLASSES as u32 } else { predicted[i] })
                .collect();
            let batch = Batch { labels: &labels, ..images.batch() };
            spec.step_size = vec![0.9; IMAGES];
            spec.epsilon = vec![3.0; IMAGES];
            let run = |engine: &mut dyn Engine| search(engine, &batch, &spec, &[2, 2], |_| false);
            let (expected, targets, without, _) = run(&mut candle);
            let (found, same_targets, same_without, _) = run(&mut wgsl);
            assert_eq!((targets, without), (same_targets, same_without));
            for ((view, expected), found) in VIEWS.iter().zip(&expected).zip(&found) {
                let error = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 1e-3, "{objective:?} {stop:?} {view:?}: {error:e}");
            }
            let image = |view: usize, i: usize| expected[view].chunks(3 * 13 * 11).nth(i).unwrap();
            for i in 0..IMAGES {
                kinds[0] += u32::from(image(2, i) != image(1, i));
                kinds[1] += u32::from(image(3, i) != image(1, i));
                kinds[2] += u32::from(image(2, i) != image(3, i));
            }
        }
    }
    assert!(kinds.iter().all(|count| *count > 10), "views that differ: {kinds:?}");
}

#[test]
fn a_view_that_was_not_kept_is_an_error() {
    let images = Images::new();
    let mut engine: WgslEngine = open(Checks::Off);
    let plain = SearchSpec {
        snapshots: Snapshots::default(),
        ..spec(Objective::CrossEntropy, BatchNormMode::Eval, Norm::Linf, Stop::Never)
    };
    let views = engine.perturb(&images.batch(), &plain).unwrap();
    for view in [View::LastClean, View::FirstAdversarial] {
        let error = engine.read_view(&views, view).unwrap_err().to_string();
        assert!(error.contains("did not keep"), "{error}");
        assert!(engine.logits(&Input::View(&views, view), BatchNormMode::Eval).is_err());
    }
}

/// The loss of Balance Adversarial Training, which names three views, and one that names all four.
#[test]
fn a_step_on_kept_iterates_is_that_of_candle() {
    let images = Images::new();
    let state = State::initialise(&network(), 3);
    let kl = |from, to| LossTerm::mean(2.0, Term::Kl { from, to });
    let three = vec![
        LossTerm::mean(1.0, Term::CrossEntropy(View::LastClean)),
        kl(View::Clean, View::FirstAdversarial),
        LossTerm::mean(1.0, Term::KlToUniform(View::LastClean)),
        LossTerm::mean(1.0, Term::KlToUniform(View::FirstAdversarial)),
    ];
    let mut four = three.clone();
    four.push(LossTerm::mean(0.5, Term::Margin(View::Adversarial)));
    let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
    for terms in [three, four] {
        let loss = LossSpec::of(terms);
        // Whole, and in ranges of few images.
        for binding_limit in [None, Some(20_000)] {
            let mut candle = CandleEngine::new(network(), &state, CandleDevice::Cpu).unwrap();
            let mut wgsl = open_with(Checks::On, binding_limit);
            assert_eq!(wgsl.ranges(IMAGES).unwrap().len() > 1, binding_limit.is_some());
            let spec = SearchSpec {
                step_size: vec![0.9; IMAGES],
                epsilon: vec![3.0; IMAGES],
                ..spec(Objective::CrossEntropy, BatchNormMode::Eval, Norm::L2, Stop::WhileMisclassified { budget: 1 })
            };
            let run = |engine: &mut dyn Engine| {
                let views = engine.perturb(&images.batch(), &spec).unwrap();
                let stats = engine.train_step(&views, &loss, &sgd).unwrap();
                (stats, engine.state().unwrap())
            };
            let ((expected, model), (found, other)) = (run(&mut candle), run(&mut wgsl));
            assert!(
                (expected.loss - found.loss).abs() < 1e-4 * expected.loss.abs(),
                "{} {}",
                expected.loss,
                found.loss
            );
            assert_eq!((expected.predictions, expected.confusion), (found.predictions, found.confusion));
            for (name, array) in &model.momentum.0 {
                let error = relative_error(&other.momentum.0[name].data, &array.data);
                assert!(error < 2e-3, "{name}: {error:e}");
            }
        }
    }
}

/// A network that gives every image the same logits has no gradient. Noise and an unprojected start still have to end in
/// ball and box, as with Candle.
#[test]
fn images_without_a_gradient_are_projected_all_the_same() {
    let images = Images::new();
    let mut state = State::initialise(&network(), 3);
    state.0.get_mut("linear.weight").unwrap().data.fill(0.0);
    let mut candle = CandleEngine::new(network(), &state, CandleDevice::Cpu).unwrap();
    let mut wgsl = open(Checks::Off);
    wgsl.load_model(&state).unwrap();
    for norm in [Norm::Linf, Norm::L2] {
        for noise in [0.0, 0.2] {
            let start = Start::Normal { deviation: 0.5, purpose: Purpose::AttackStart, epoch: 1 };
            let spec = spec(Objective::CrossEntropy, BatchNormMode::Eval, norm, Stop::Never);
            let spec = SearchSpec { start, noise, ..spec };
            let run = |engine: &mut dyn Engine| search(engine, &images.batch(), &spec, &[1, 3], |_| false);
            let (expected, _, without, _) = run(&mut candle);
            let (found, _, same_without, _) = run(&mut wgsl);
            assert_eq!((&without, &same_without), (&vec![true; IMAGES], &vec![true; IMAGES]));
            for (view, (expected, found)) in VIEWS.iter().zip(expected.iter().zip(&found)) {
                let error = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 1e-5, "{norm:?}, noise {noise}, {view:?}: {error:e}");
            }
            let delta = |i: usize| found[1][i] - found[0][i];
            assert!(found[1].iter().all(|v| (0.0..=1.0).contains(v)), "{norm:?}, noise {noise}");
            let image = network().input.len();
            for first in (0..IMAGES * image).step_by(image) {
                let inside = match norm {
                    Norm::Linf => (first..first + image).all(|i| delta(i).abs() <= spec.epsilon[0] + 1e-6),
                    Norm::L2 => {
                        (first..first + image).map(|i| delta(i) * delta(i)).sum::<f32>().sqrt()
                            <= spec.epsilon[0] + 1e-4
                    }
                };
                assert!(inside, "{norm:?}, noise {noise}");
            }
        }
    }
}
