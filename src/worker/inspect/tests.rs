use super::*;
use crate::data::{Dataset, digits};
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::{
    Batch, BatchNormMode, Engine, EngineError, Input, LossSpec, Objective, SearchSpec, SgdStep, Start, View,
};
use crate::model::{Architecture, State};
use crate::rng::Purpose;

/// A small, briefly trained network for digits, and the digits.
pub(in crate::worker) fn trained() -> (CandleEngine, Dataset) {
    let set = digits().unwrap().train;
    let network = Architecture::DigitsCnn.build(set.shape(), set.classes(), None, Some(4));
    let state = State::initialise(&network, 1);
    let mut engine = CandleEngine::new(network, &state, CandleDevice::Cpu).unwrap();
    for step in 0..20 {
        let ids: Vec<u32> = (0..64).map(|i| (step * 64 + i) * 7 % 1400).collect();
        let pixels: Vec<u8> = ids.iter().flat_map(|i| set.image(*i as usize)).copied().collect();
        let labels: Vec<u32> = ids.iter().map(|i| set.labels()[*i as usize]).collect();
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
        let none = SearchSpec {
            objective: Objective::CrossEntropy,
            norm: Norm::Linf,
            epsilon: vec![0.0; 64],
            step_size: vec![0.0; 64],
            steps: 0,
            start: Start::Zero,
            batch_norm: BatchNormMode::Eval,
            ..SearchSpec::default()
        };
        let views = engine.perturb(&batch, &none).unwrap();
        let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 0.0, nesterov: false };
        engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &sgd).unwrap();
    }
    (engine, set)
}

pub(in crate::worker) fn subject(set: &Dataset, index: usize) -> Subject {
    let (pixels, label) = (set.image(index).into(), Some(set.labels()[index]));
    Subject { name: format!("training image {index}"), shape: set.shape(), pixels, label }
}

pub(in crate::worker) fn pgd(norm: Norm, random_start: bool, target: Option<u32>) -> InspectionAttack {
    let epsilon = if norm == Norm::L2 { Epsilon::new(1.0).unwrap() } else { Epsilon::levels(40.0) };
    let step_size = Epsilon::new(epsilon.exact() / 4.0).unwrap();
    InspectionAttack { target, norm, epsilon, step_size, steps: 6, random_start, seed: 5 }
}

fn map_job(set: &Dataset, axes: [Direction; 2], resolution: usize) -> MapJob {
    let attack = InspectionAttack { epsilon: Epsilon::levels(16.0), ..pgd(Norm::Linf, false, None) };
    MapJob { id: 3, subject: subject(set, 11), axes, extent: Some(Epsilon::levels(64.0)), resolution, attack }
}

fn message<T: std::fmt::Debug>(result: Result<T, EngineError>) -> String {
    match result.unwrap_err() {
        EngineError::Invalid(what) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn steps_are_those_of_one_search() {
    let (mut engine, set) = trained();
    for norm in [Norm::Linf, Norm::L2] {
        for (random_start, target) in [(false, None), (true, None), (true, Some(3))] {
            let subject = Subject { label: Some(1), ..subject(&set, 1) };
            let attack = pgd(norm, random_start, target);
            let job = InspectionJob { id: 7, subject: subject.clone(), attack: attack.clone() };
            let found = inspect(&mut engine, &job, Some(2.5)).unwrap();
            assert_eq!((found.steps.len(), found.position, &found.job), (8, Some(2.5), &job));
            let start = match random_start {
                true => Start::Uniform { purpose: Purpose::EvaluationStart, epoch: 0 },
                false => Start::Zero,
            };
            let spec = SearchSpec {
                objective: target.map_or(Objective::CrossEntropy, |t| Objective::Targeted(vec![t])),
                norm,
                epsilon: vec![attack.epsilon.value()],
                step_size: vec![attack.step_size.value()],
                steps: 6,
                start,
                batch_norm: BatchNormMode::Eval,
                ..SearchSpec::default()
            };
            let batch = Batch { pixels: &subject.pixels, labels: &[1], ids: &[0], augment: None, seed: 5, epoch: 0 };
            for steps in [0, 1, 6] {
                let views = engine.perturb(&batch, &SearchSpec { steps, ..spec.clone() }).unwrap();
                let whole = engine.read_view(&views, View::Adversarial).unwrap();
                let apart = whole
                    .iter()
                    .zip(&found.steps[1 + steps as usize].image)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                // Reading back an image rounds once more than keeping the perturbation in the engine.
                assert!(apart < 1e-6, "{norm:?} {random_start} {target:?} {steps}: {apart}");
            }
            let last = &found.steps[7];
            assert_eq!(found.steps[0].linf, 0.0);
            let radius = if norm == Norm::L2 { last.l2 } else { last.linf };
            assert!(radius > 0.0 && radius < attack.epsilon.exact() + 1e-6, "{radius}");
            if target.is_none() {
                assert!(last.loss > found.steps[0].loss, "{} {}", last.loss, found.steps[0].loss);
            } else {
                assert!(last.probabilities[3] > found.steps[0].probabilities[3]);
            }
            for step in &found.steps {
                assert!((step.probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
                assert!((step.loss + f64::from(step.probabilities[1]).ln()).abs() < 1e-4);
                assert!(step.image.iter().all(|v| (0.0..=1.0).contains(v)));
            }
        }
    }
}

#[test]
fn one_step_of_the_radius_is_the_fast_gradient_sign() {
    let (mut engine, set) = trained();
    let epsilon = Epsilon::levels(16.0);
    let attack = InspectionAttack { epsilon, step_size: epsilon, steps: 1, ..pgd(Norm::Linf, false, None) };
    let subject = subject(&set, 4);
    let (clean, label) = (subject.scaled(), subject.label.unwrap());
    let found = inspect(&mut engine, &InspectionJob { id: 1, subject, attack }, None).unwrap();
    assert_eq!(found.steps[0].image, clean);
    assert_eq!(found.steps[1].image, clean);
    let input = Input::Images(&clean, &[label]);
    let (_, gradient) = engine.input_gradient(&input, &Objective::CrossEntropy, BatchNormMode::Eval).unwrap();
    for ((x, g), after) in clean.iter().zip(&gradient).zip(&found.steps[2].image) {
        let sign = if *g == 0.0 { 0.0 } else { g.signum() };
        assert!((after - (x + sign * epsilon.value()).clamp(0.0, 1.0)).abs() < 1e-6);
    }
}

#[test]
fn an_image_without_a_label_is_attacked_away_from_its_prediction() {
    let (mut engine, set) = trained();
    let foreign = Subject { label: None, ..subject(&set, 20) };
    let predicted = {
        let logits = engine.logits(&Input::Images(&foreign.scaled(), &[0]), BatchNormMode::Eval).unwrap();
        loss::argmax(&logits)
    };
    let attack = pgd(Norm::Linf, false, None);
    let job = InspectionJob { id: 1, subject: foreign, attack };
    let found = inspect(&mut engine, &job, None).unwrap();
    assert_eq!(found.label, predicted);
    assert!(found.steps.last().unwrap().loss > found.steps[0].loss);
    let own = InspectionAttack { target: Some(predicted), ..job.attack.clone() };
    assert!(message(inspect(&mut engine, &InspectionJob { attack: own, ..job }, None)).contains("already predicts"));
}

#[test]
fn inspections_do_not_change_the_engine() {
    let (mut engine, set) = trained();
    let before = engine.state().unwrap();
    let bytes = |state: &crate::engine::EngineState| -> Vec<u32> {
        state
            .model
            .0
            .values()
            .chain(state.momentum.0.values())
            .flat_map(|a| a.data.iter().map(|v| v.to_bits()))
            .collect()
    };
    let job = InspectionJob { id: 1, subject: subject(&set, 0), attack: pgd(Norm::Linf, true, None) };
    inspect(&mut engine, &job, None).unwrap();
    map(&mut engine, &map_job(&set, [Direction::Class(1), Direction::Random(2)], 5), None).unwrap();
    assert_eq!(bytes(&before), bytes(&engine.state().unwrap()));
}

#[test]
fn a_map_shows_the_plane_through_the_image() {
    let (mut engine, set) = trained();
    // More points than one batch holds.
    let job = map_job(&set, [Direction::Random(1), Direction::Random(2)], 33);
    let found = map(&mut engine, &job, Some(1.0)).unwrap();
    assert_eq!((found.predictions.len(), found.confidence.len(), found.position), (1089, 1089, Some(1.0)));
    let clean = job.subject.scaled();
    let mut predict = |image: &[f32]| {
        let logits = engine.logits(&Input::Images(image, &[0]), BatchNormMode::Eval).unwrap();
        let predicted = loss::argmax(&logits);
        (predicted, probabilities(&logits)[predicted as usize])
    };
    let centre = predict(&clean);
    assert_eq!(found.predictions[16 * 33 + 16], centre.0);
    assert!((found.confidence[16 * 33 + 16] - centre.1).abs() < 1e-5);
    // The right end of the middle row is one extent along the first axis, the top of the middle column one extent along
    // the second.
    let drawn = |seed: u64| {
        let stream = crate::rng::Stream::new(seed, Purpose::Direction, 0, 0);
        (0..clean.len() as u32).map(|i| f64::from(stream.normal(i))).collect::<Vec<f64>>()
    };
    let (u, v) = (drawn(1), drawn(2));
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let share = dot(&u, &v) / dot(&u, &u);
    let v: Vec<f64> = v.iter().zip(&u).map(|(v, u)| v - share * u).collect();
    for (axis, place) in [(u, 16 * 33 + 32), (v, 16)] {
        let unit = 64.0 / 255.0 / axis.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
        let moved = |(x, u): (&f32, &f64)| (f64::from(*x) + unit * u).clamp(0.0, 1.0) as f32;
        let end = predict(&clean.iter().zip(&axis).map(moved).collect::<Vec<f32>>());
        assert_eq!(found.predictions[place], end.0);
        assert!((found.confidence[place] - end.1).abs() < 1e-5, "{} {}", found.confidence[place], end.1);
        let other_end = 33 * 33 - 1 - place;
        assert!((found.confidence[other_end] - end.1).abs() > 1e-4);
    }
    let towards = map(&mut engine, &map_job(&set, [Direction::Class(3), Direction::Random(2)], 1), None).unwrap();
    assert_eq!(towards.predictions, [centre.0]);
}

#[test]
fn jobs_that_do_not_fit_say_why() {
    let (mut engine, set) = trained();
    let job = InspectionJob { id: 1, subject: subject(&set, 0), attack: pgd(Norm::Linf, true, None) };
    let label = set.labels()[0];
    let mut inspect = |subject: Subject, attack: InspectionAttack| {
        message(super::inspect(&mut engine, &InspectionJob { id: 1, subject, attack }, None))
    };
    let target = |target| InspectionAttack { target: Some(target), ..job.attack.clone() };
    assert!(inspect(job.subject.clone(), target(label)).contains("own class"));
    assert!(inspect(job.subject.clone(), target(10)).contains("class 10, expected 0 to 9"));
    let steps = InspectionAttack { steps: 1001, ..job.attack.clone() };
    assert!(inspect(job.subject.clone(), steps).contains("at most 1000 attack steps, found 1001"));
    let shape = ImageShape::new(3, 8, 8);
    let colour = Subject { shape, pixels: vec![0; shape.len()].into(), ..job.subject.clone() };
    assert!(inspect(colour, job.attack.clone()).contains("3×8×8, the network takes 1×8×8"));
    let short = Subject { pixels: vec![0; 5].into(), ..job.subject.clone() };
    assert!(inspect(short, job.attack.clone()).contains("needs 64 bytes, found 5"));
    let label = Subject { label: Some(12), ..job.subject.clone() };
    assert!(inspect(label, job.attack.clone()).contains("class 12, expected 0 to 9"));

    let mut map = |axes, resolution| message(super::map(&mut engine, &map_job(&set, axes, resolution), None));
    let random = [Direction::Random(1), Direction::Random(2)];
    assert!(map(random, 0).contains("1 to 256 points along a side, found 0"));
    assert!(map(random, 257).contains("found 257"));
    assert!(map([Direction::Random(1); 2], 3).contains("parallel"));
    assert!(map([Direction::Class(2); 2], 3).contains("parallel"));
    assert!(map([Direction::Class(10), Direction::Random(2)], 3).contains("expected 0 to 9"));
}

/// The plane of the attack: its end is on the first axis, at the distance of its largest change, and has the colour of its
/// prediction.
#[test]
fn the_plane_through_the_attack_shows_where_it_ends() {
    let (mut engine, set) = trained();
    let axes = [Direction::Attack, Direction::Rival];
    for (norm, target) in [(Norm::Linf, None), (Norm::Linf, Some(3)), (Norm::L2, None)] {
        for index in [1, 4, 11, 20] {
            let subject = Subject { label: Some(set.labels()[index]), ..subject(&set, index) };
            if subject.label == target {
                continue;
            }
            let attack = pgd(norm, false, target);
            let asked = InspectionJob { id: 1, subject: subject.clone(), attack: attack.clone() };
            let found = inspect(&mut engine, &asked, None).unwrap();
            let job = MapJob { id: 1, subject, axes, extent: None, resolution: 5, attack: attack.clone() };
            let plane = map(&mut engine, &job, None).unwrap();
            assert_eq!(plane.path.len(), 7, "the start and six steps");
            assert_eq!(plane.path[0], [0.0, 0.0], "it starts at the image");
            let last = found.steps.last().unwrap();
            let [right, up] = plane.path[6];
            assert!((right - last.linf).abs() < 1e-6 && up.abs() < 1e-6, "{norm:?} {right} {up} {}", last.linf);
            // Twice the ball.
            if norm == Norm::Linf {
                assert_eq!(plane.extent, 2.0 * attack.epsilon.exact());
                // The column at one radius is the last step, if that used the whole radius and was not clipped.
                if (last.linf - attack.epsilon.exact()).abs() < 1e-6 {
                    assert_eq!(plane.predictions[2 * 5 + 3], loss::argmax(&last.probabilities));
                }
            } else {
                let border = plane.ball.iter().map(|[a, _]| *a).fold(0.0, f64::max);
                assert!((plane.extent - 2.0 * border).abs() < 1e-9);
                assert!(right <= border + 1e-6);
            }
            assert_eq!(plane.axes[0], Direction::Attack);
            let said = loss::argmax(&last.probabilities);
            match (target, plane.axes[1]) {
                (Some(target), rival) => assert_eq!(rival, Direction::Class(target)),
                (None, Direction::Class(rival)) => {
                    assert_ne!(rival, found.label);
                    assert!(said == found.label || said == rival, "{said} {rival}");
                }
                (None, other) => panic!("{other:?}"),
            }
        }
    }
    // Without a change there is no such axis.
    let attack = InspectionAttack { steps: 0, ..pgd(Norm::Linf, false, None) };
    let job = MapJob { id: 1, subject: subject(&set, 1), axes, extent: None, resolution: 3, attack };
    assert!(message(map(&mut engine, &job, None)).contains("does not change this image"));
    let nothing = InspectionAttack { epsilon: Epsilon::levels(0.0), ..pgd(Norm::Linf, false, None) };
    let axes = [Direction::Random(1), Direction::Random(2)];
    let job = MapJob { attack: nothing, axes, ..job };
    assert!(message(map(&mut engine, &job, None)).contains("extent above 0"));
}
