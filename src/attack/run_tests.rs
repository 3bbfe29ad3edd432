//! What every attack must do, whatever its steps: stay in its ball, tell the truth about its images, treat each image
//! alone, and exist for any number of classes.

use clap::ValueEnum;

use super::apgd::{Apgd, Loss};
use super::geometry::distance;
use super::oracle::Oracle;
use super::{Attack, AttackError, AttackKind};
use crate::data::ImageShape;
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::{Batch, BatchNormMode, Engine, Input, Norm, loss};
use crate::model::{Architecture, State};
use crate::rng::{Purpose, Stream};
use crate::units::Epsilon;

const N: usize = 12;

struct Subject {
    engine: CandleEngine,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
}

impl Subject {
    /// A random network, and random images of which it classifies all but the first correctly.
    fn new(shape: ImageShape, classes: usize) -> Self {
        let network = Architecture::SmallCnn.build(shape, classes, None, Some(2));
        let mut state = State::initialise(&network, 3);
        let bias = format!("{}.bias", network.layers.last().unwrap().name);
        let mut engine = CandleEngine::new(network, &state, CandleDevice::Cpu).unwrap();
        let mut values = vec![0.0; N * shape.len()];
        Stream::new(5, Purpose::Test, 0, 0).fill_symmetric(&mut values);
        let pixels: Vec<u8> = values.iter().map(|v| ((v + 1.0) * 127.9) as u8).collect();
        let ids: Vec<u32> = (0..N as u32).map(|id| 7 * id).collect();
        let labels = vec![0; N];
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
        let logits = engine.logits(&Input::Batch(&batch), BatchNormMode::Eval).unwrap();
        // No class is ahead in the mean: a random network that always answers the same cannot be attacked.
        for (k, value) in state.0.get_mut(&bias).unwrap().data.iter_mut().enumerate() {
            *value -= logits.iter().skip(k).step_by(classes).sum::<f32>() / N as f32;
        }
        engine.load_model(&state).unwrap();
        let logits = engine.logits(&Input::Batch(&batch), BatchNormMode::Eval).unwrap();
        let mut labels: Vec<u32> = logits.chunks(classes).map(loss::argmax).collect();
        labels[0] = (labels[0] + 1) % classes as u32;
        Self { engine, pixels, labels, ids }
    }

    fn batch(&self, range: std::ops::Range<usize>) -> Batch<'_> {
        let len = self.pixels.len() / N;
        Batch {
            pixels: &self.pixels[range.start * len..range.end * len],
            labels: &self.labels[range.clone()],
            ids: &self.ids[range],
            augment: None,
            seed: 0,
            epoch: 0,
        }
    }
}

/// Every kind in every norm in which it exists, with few steps.
fn attacks() -> Vec<Attack> {
    let mut all = Vec::new();
    for kind in AttackKind::value_variants() {
        for (norm, epsilon) in [(Norm::Linf, Epsilon::levels(64.0)), (Norm::L2, Epsilon::new(2.5).unwrap())] {
            let mut attack = Attack::published(*kind, epsilon, norm, 3);
            match kind {
                AttackKind::Fgsm => attack = Attack::fgsm(epsilon, norm),
                AttackKind::Pgd | AttackKind::PgdTargeted => {
                    let pgd = Attack::pgd(epsilon, Epsilon::new(epsilon.exact() / 4.0).unwrap(), 6, norm, 3);
                    attack = Attack { kind: *kind, any_iterate: norm == Norm::L2, ..pgd };
                }
                _ => attack.steps = attack.steps.min(if *kind == AttackKind::Square { 40 } else { 8 }),
            }
            attack.restarts = if *kind == AttackKind::Clean { 1 } else { 2 };
            if attack.check().is_ok() {
                all.push(attack);
            }
        }
    }
    all
}

#[test]
fn images_are_in_the_ball_and_are_classified_as_told() {
    for (shape, classes) in [
        (ImageShape::new(1, 8, 8), 10),
        (ImageShape::new(3, 6, 9), 4),
        (ImageShape::new(3, 8, 8), 3),
        (ImageShape::new(1, 5, 5), 2),
    ] {
        let mut subject = Subject::new(shape, classes);
        let clean = subject.batch(0..N).prepare(shape);
        for attack in attacks() {
            let (pixels, labels, ids) = (subject.pixels.clone(), subject.labels.clone(), subject.ids.clone());
            let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
            let mut done = 0.0;
            let mut tick = |share: f64| {
                assert!((done..=1.0).contains(&share), "{attack}: {share} after {done}");
                done = share;
                true
            };
            let found = attack.run(&mut subject.engine, &batch, true, &mut tick).unwrap();
            let images = found.images.unwrap();
            assert!(images.iter().all(|x| (0.0..=1.0).contains(x)), "{attack}");
            for (x, clean) in images.chunks(shape.len()).zip(clean.chunks(shape.len())) {
                let far = distance(attack.norm, x, clean);
                assert!(far <= attack.epsilon.value() * (1.0 + 1e-5) + 1e-6, "{attack}, {classes} classes: {far}");
            }
            let again = crate::evaluate::robustness::classify(&mut subject.engine, &images, 5).unwrap();
            assert_eq!(again, found.predictions, "{attack}, {classes} classes");
            assert_eq!(found.logits.chunks(classes).map(loss::argmax).collect::<Vec<_>>(), found.predictions);
            let broken = found.predictions.iter().zip(&labels).skip(1).filter(|(found, label)| found != label).count();
            match attack.kind {
                AttackKind::Clean => assert_eq!(broken, 0),
                // Too weak for a random network.
                AttackKind::Noise | AttackKind::Fgsm | AttackKind::PgdTargeted => {}
                _ => assert!(broken > 0, "{attack}, {classes} classes: no image is misclassified"),
            }
        }
    }
}

#[test]
fn an_image_is_attacked_as_if_it_were_alone() {
    let shape = ImageShape::new(3, 8, 8);
    let mut subject = Subject::new(shape, 10);
    let (pixels, labels, ids) = (subject.pixels.clone(), subject.labels.clone(), subject.ids.clone());
    let len = shape.len();
    for attack in attacks() {
        let mut run = |range: std::ops::Range<usize>| {
            let batch = Batch {
                pixels: &pixels[range.start * len..range.end * len],
                labels: &labels[range.clone()],
                ids: &ids[range],
                augment: None,
                seed: 9,
                epoch: 0,
            };
            attack.run(&mut subject.engine, &batch, true, &mut |_| true).unwrap()
        };
        let together = run(0..N);
        for i in [0, 3, 7, 11] {
            let alone = run(i..i + 1);
            assert_eq!(alone.predictions[0], together.predictions[i], "{attack}, image {i}");
            let (a, b) = (alone.images.unwrap(), &together.images.as_ref().unwrap()[i * len..][..len]);
            let apart = distance(Norm::Linf, &a, b);
            assert!(apart < 1e-3, "{attack}, image {i}: {apart}");
        }
    }
}

#[test]
fn attacks_stop_when_they_are_told_to() {
    let mut subject = Subject::new(ImageShape::new(1, 8, 8), 10);
    let (pixels, labels, ids) = (subject.pixels.clone(), subject.labels.clone(), subject.ids.clone());
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
    for attack in attacks().into_iter().filter(|attack| attack.kind != AttackKind::Clean) {
        let stopped = attack.run(&mut subject.engine, &batch, false, &mut |_| false);
        assert!(matches!(stopped, Err(AttackError::Stopped)), "{attack}");
    }
}

/// Targeted attacks of one restart report their targets, which are never the label.
#[test]
fn targets_are_wrong_classes() {
    let mut subject = Subject::new(ImageShape::new(1, 8, 8), 10);
    let (pixels, labels, ids) = (subject.pixels.clone(), subject.labels.clone(), subject.ids.clone());
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
    let attack = attacks().into_iter().find(|attack| attack.kind == AttackKind::PgdTargeted).unwrap();
    let found = attack.predictions(&mut subject.engine, &batch).unwrap();
    let targets = found.targets.unwrap();
    assert!(targets.iter().zip(&labels).all(|(target, label)| target != label));
    assert!(targets.iter().any(|target| *target != targets[0]));
}

/// APGD that goes on after a success ends with a loss at least as large as any iterate's.
#[test]
fn the_best_iterate_is_the_best() {
    let shape = ImageShape::new(3, 8, 8);
    let mut subject = Subject::new(shape, 10);
    let (images, labels) = (subject.batch(0..N).prepare(shape), subject.labels.clone());
    for norm in [Norm::Linf, Norm::L2] {
        let mut tick = |_| true;
        let mut oracle = Oracle::new(&mut subject.engine, 5, &mut tick);
        let search = Apgd { norm, epsilon: 0.1, steps: 12, loss: &Loss::CrossEntropy, stop_at_success: false };
        let mut largest = [f32::NEG_INFINITY; N];
        let found = search
            .run(&mut oracle, &images, &labels, images.clone(), &|share| share, &mut |_, iterates| {
                iterates.iter().for_each(|iterate| largest[iterate.image] = largest[iterate.image].max(iterate.loss));
            })
            .unwrap();
        assert_eq!(found.best_loss, largest);
        assert_eq!(oracle.cost().gradient, 13 * N as u64);
    }
}
