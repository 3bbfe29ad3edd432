//! A synthetic run: fixed numbers for tests and for pictures of panels. They follow the shape of a real run (clean and
//! robust accuracy rise, cats and dogs lag behind), so that a panel can be judged by them.

pub(in crate::app) mod evaluation;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::view::RunView;
use crate::config::{Experiment, MethodChoice};
use crate::data::{Dataset, ImageShape};
use crate::fairness::Confusion;
use crate::train::{ClassRow, MetricsRow};
use crate::worker::{
    BatchPoint, CellImages, DecisionMap, Direction, EpochRecord, Examples, Inspection, InspectionStep, Phase, Request,
    RunInfo, Update,
};

const NAMES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// Difficulty of each class; 0 is easiest.
const HARD: [f64; 10] = [0.3, 0.15, 0.62, 1.0, 0.7, 0.8, 0.4, 0.35, 0.25, 0.3];
const EPOCHS: u32 = 30;

/// A run of 30 epochs on ten classes that has finished 18 of them and half of the next.
pub(in crate::app) fn run() -> RunView {
    let now = Instant::now();
    let mut view = RunView::default();
    let mut experiment = Experiment::preset("cifar10-small").unwrap_or_default();
    experiment.optimizer.epochs = EPOCHS;
    let history: Vec<EpochRecord> = (0..18).map(epoch).collect();
    view.apply(
        Update::Opened(Box::new(RunInfo {
            directory: Some(PathBuf::from("runs/cifar10-small")),
            experiment: Box::new(experiment),
            engine: "wgsl (Example GPU, Vulkan)".into(),
            parameters: 1_234_567,
            train: Arc::new(images(40)),
            validation: Arc::new(images(20)),
            test: Arc::new(images(30)),
            history,
            checkpoints: (1..=18).filter(|e| e % 3 == 0).map(f64::from).collect(),
            kept: Vec::new(),
            looked: None,
        })),
        now,
    );
    view.apply(Update::Phase(Phase::Attack), now);
    for done in 1..=45 {
        let at = now + Duration::from_millis(140 * u64::from(done));
        view.apply(Update::Batch(BatchPoint { done, ..batch(18, done) }), at);
    }
    view.apply(Update::Examples(Arc::new(examples())), now);
    view.apply(Update::Warning("The learning rate fell to 0.01.".into()), now + Duration::from_secs(3));
    view
}

/// A finished run of three epochs on `classes` classes; the lower ones are harder.
pub(in crate::app) fn of_classes(classes: usize) -> RunView {
    let now = Instant::now();
    let mut view = RunView::default();
    let names: Vec<String> = (0..classes).map(|k| format!("class {k}")).collect();
    let shape = ImageShape { channels: 1, height: 4, width: 4 };
    let labels: Vec<u32> = (0..2 * classes as u32).map(|i| i / 2).collect();
    let pixels = (0..labels.len() * shape.len()).map(|i| (i * 37 % 256) as u8).collect();
    let images = Arc::new(Dataset::new("many", names.clone(), shape, pixels, labels).unwrap());
    let epoch = |epoch: u32| {
        let robust = |k: usize| (0.1 + 0.1 * f64::from(epoch) + 0.5 * k as f64 / classes as f64).min(1.0);
        let mut counts = Confusion::new(classes);
        let mut all = vec![0; classes * classes];
        for k in 0..classes {
            let right = (50.0 * robust(k)).round() as u32;
            all[k * classes + k] = right;
            all[k * classes + (k + 1) % classes] += 50 - right;
        }
        counts.add_counts(&all);
        let cfps = counts.cfps();
        let mut record = self::epoch(epoch);
        let row = record.classes[0].clone();
        record.classes = (0..classes)
            .map(|k| ClassRow {
                class: k as u32,
                name: names[k].clone(),
                epsilon: (0.5 + robust(k)) * 8.0 / 255.0,
                target_probability: Some(1.0 / classes as f64),
                cfps: cfps[k],
                val_clean_accuracy: (robust(k) + 0.2).min(1.0),
                val_robust_accuracy: robust(k),
                ..row.clone()
            })
            .collect();
        (record.train, record.validation) = (Some(counts.clone()), Some(counts));
        record
    };
    let info = RunInfo {
        directory: Some(PathBuf::from("runs/many")),
        experiment: Box::new(Experiment::preset("cifar10-small").unwrap_or_default()),
        engine: "candle (cpu)".into(),
        parameters: 1_000,
        train: images.clone(),
        validation: images.clone(),
        test: images,
        history: (0..3).map(epoch).collect(),
        checkpoints: Vec::new(),
        kept: Vec::new(),
        looked: None,
    };
    view.apply(Update::Opened(Box::new(info)), now);
    view.apply(Update::Phase(Phase::Idle), now);
    view
}

/// Class accuracies of an epoch: clean, robust on the training images, robust on the validation split.
fn accuracies(epoch: u32) -> [Vec<f64>; 3] {
    let t = 1.0 - (-f64::from(epoch + 1) / 7.0).exp();
    let wave = |k: usize, phase: f64| 0.015 * ((f64::from(epoch) * 1.3 + k as f64 * 2.1 + phase).sin());
    let of = |top: f64, cost: f64, phase: f64| {
        (0..10).map(|k| (t * (top - cost * HARD[k]) + wave(k, phase)).clamp(0.0, 1.0)).collect::<Vec<f64>>()
    };
    [of(0.96, 0.3, 0.0), of(0.78, 0.5, 1.0), of(0.72, 0.52, 2.0)]
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn worst(values: &[f64]) -> f64 {
    values.iter().copied().fold(1.0, f64::min)
}

/// True × predicted counts for these class accuracies; errors fall on similar classes.
fn confusion(accuracy: &[f64], images: f64) -> Confusion {
    let mut counts = Vec::new();
    for (truth, correct) in accuracy.iter().enumerate() {
        let likeness = |p: usize| {
            let animal = |k: usize| (2..8).contains(&k);
            let pair = matches!((truth, p), (3, 5) | (5, 3) | (1, 9) | (9, 1) | (0, 8) | (8, 0) | (2, 4) | (4, 2));
            if p == truth {
                0.0
            } else {
                0.3 + f64::from(u8::from(animal(truth) == animal(p))) + if pair { 3.0 } else { 0.0 }
            }
        };
        let sum: f64 = (0..10).map(likeness).sum();
        counts.extend((0..10).map(|p| {
            let share = if p == truth { *correct } else { (1.0 - correct) * likeness(p) / sum };
            (share * images).round() as u32
        }));
    }
    let mut confusion = Confusion::new(10);
    confusion.add_counts(&counts);
    confusion
}

fn radii(epoch: u32) -> Vec<f64> {
    match epoch.checked_sub(1) {
        None => vec![8.0 / 255.0; 10],
        Some(last) => accuracies(last)[1].iter().map(|r| (0.5 + r) * 8.0 / 255.0).collect(),
    }
}

fn distribution(epoch: u32) -> Vec<f64> {
    let cfps = match epoch.checked_sub(1) {
        None => vec![0.1; 10],
        Some(last) => confusion(&accuracies(last)[1], 4900.0).cfps(),
    };
    let sum: f64 = cfps.iter().map(|c| (2.0 * c).exp()).sum();
    cfps.iter().map(|c| (2.0 * c).exp() / sum).collect()
}

/// The measurements of epoch `epoch`.
pub(in crate::app) fn epoch(epoch: u32) -> EpochRecord {
    let [clean, train, robust] = accuracies(epoch);
    let counted = confusion(&train, 4900.0);
    let cfps = counted.cfps();
    let (epsilon, targets) = (radii(epoch), distribution(epoch));
    let classes = (0..10)
        .map(|k| ClassRow {
            epoch,
            class: k as u32,
            name: NAMES[k].into(),
            epsilon: epsilon[k],
            target_probability: Some(targets[k]),
            cfps: cfps[k],
            train_robust_accuracy: train[k],
            train_clean_accuracy: Some((clean[k] + 0.02).min(1.0)),
            val_clean_accuracy: clean[k],
            val_robust_accuracy: robust[k],
            series: Vec::new(),
        })
        .collect();
    let metrics = MetricsRow {
        epoch,
        lr: rate(epoch),
        train_loss: 2.1 - 1.2 * mean(&train),
        train_clean_accuracy: Some(mean(&clean) + 0.02),
        train_robust_accuracy: mean(&train),
        val_clean_accuracy: mean(&clean),
        val_clean_worst: worst(&clean),
        val_robust_accuracy: mean(&robust),
        val_robust_worst: worst(&robust),
        seconds: 14.0,
        seconds_attack: 10.4,
        seconds_update: 2.1,
        seconds_statistics: 0.6,
        val_attack: String::new(),
        val_without_gradient: None,
        method: String::new(),
        val_robust_worst_tenth: None,
    };
    let validation = confusion(&robust, 100.0);
    EpochRecord { metrics, classes, train: Some(counted), validation: Some(validation), predicted: None }
}

/// The rows of a run whose validation attack became stronger before epoch `at`, which lowers the robust accuracy by
/// three fifths.
pub(in crate::app) fn strengthen(epochs: &mut [EpochRecord], at: u32) {
    for epoch in epochs {
        let strong = epoch.metrics.epoch >= at;
        let radius = if strong { 16 } else { 2 };
        let m = &mut epoch.metrics;
        m.val_attack = format!("PGD-10, L∞, ε {radius}/255, step 2/255, 1 random start, seed 0");
        if strong {
            m.val_robust_accuracy *= 0.4;
            m.val_robust_worst *= 0.4;
            epoch.classes.iter_mut().for_each(|class| class.val_robust_accuracy *= 0.4);
        }
    }
}

fn rate(epoch: u32) -> f64 {
    if epoch < 15 { 0.1 } else { 0.01 }
}

fn batch(epoch: u32, done: u32) -> BatchPoint {
    let last = self::epoch(epoch).metrics;
    let ripple = 0.03 * (f64::from(done) * 0.7).sin() / f64::from(done.max(1)).sqrt();
    let share = f64::from(done) / 90.0;
    BatchPoint {
        epoch,
        epochs: EPOCHS,
        done,
        batches: 90,
        images: 128,
        loss: last.train_loss + ripple,
        robust_accuracy: last.train_robust_accuracy - ripple / 2.0,
        lr: last.lr,
        seconds: [12.6, 10.4, 2.1, 0.6].map(|seconds| seconds * share),
        epsilon: radii(epoch).into(),
        rule: radii(epoch).into(),
        targets: Some(distribution(epoch).into()),
    }
}

/// `per_class` small colour images of each class: a characteristic shape and hue on a background with a gradient.
pub(in crate::app) fn images(per_class: usize) -> Dataset {
    let shape = ImageShape::new(3, 32, 32);
    let (mut pixels, mut labels) = (Vec::new(), Vec::new());
    for i in 0..per_class * 10 {
        let class = i % 10;
        labels.push(class as u32);
        let (cx, cy) = (16.0 + 4.0 * (i as f64 * 1.7).sin(), 16.0 + 4.0 * (i as f64 * 2.3).cos());
        for channel in 0..3 {
            for y in 0..32 {
                for x in 0..32 {
                    let (dx, dy) = (f64::from(x) - cx, f64::from(y) - cy);
                    let angle = dy.atan2(dx) * (2 + class / 2) as f64 + i as f64;
                    let inside = dx.hypot(dy) < 9.0 + 3.0 * angle.sin();
                    let hue = (class as f64 * 0.63 + f64::from(channel) * 2.1).sin();
                    let ground = 90.0 + 2.0 * f64::from(y) + 10.0 * f64::from(channel);
                    pixels.push(if inside { 128.0 + 110.0 * hue } else { ground } as u8);
                }
            }
        }
    }
    let names = NAMES.map(str::to_owned).to_vec();
    // Sizes, labels and names match by construction.
    Dataset::new("cifar10", names, shape, pixels, labels).unwrap_or_else(|error| unreachable!("{error}"))
}

/// Sixteen images of a batch, before and after an attack.
pub(in crate::app) fn examples() -> Examples {
    let set = images(4);
    let (shape, count) = (set.shape(), 16usize);
    let epsilon = radii(18);
    let labels: Vec<u32> = set.labels()[..count].to_vec();
    let targets: Vec<u32> = labels.iter().enumerate().map(|(i, label)| (label + 1 + i as u32 % 9) % 10).collect();
    let clean: Vec<f32> = set.images()[..count * shape.len()].iter().map(|v| f32::from(*v) / 255.0).collect();
    let sign = |i: usize| if (i * 7919) % 13 < 6 { -1.0 } else { 1.0 };
    let radius = |i: usize| epsilon[labels[i / shape.len()] as usize] as f32;
    let move_by = |(i, v): (usize, &f32)| (v + sign(i) * radius(i)).clamp(0.0, 1.0);
    let adversarial: Vec<f32> = clean.iter().enumerate().map(move_by).collect();
    let (mut clean_probabilities, mut probabilities) = (Vec::new(), Vec::new());
    for i in 0..count {
        let prediction = match i % 3 {
            0 => labels[i],
            1 => targets[i],
            _ => (labels[i] + 5) % 10,
        };
        let confidence = 0.45 + 0.03 * i as f32;
        clean_probabilities.extend((0..10).map(|k| if k == labels[i] { 0.82 } else { 0.02 }));
        let rest = (1.0 - confidence) / 9.0;
        probabilities.extend((0..10).map(|k| if k == prediction { confidence } else { rest }));
    }
    Examples {
        epoch: 18,
        batch: 45,
        step: (10, 10),
        shape,
        ids: (0..count as u32).collect(),
        epsilon: labels.iter().map(|label| epsilon[*label as usize] as f32).collect(),
        labels,
        targets: Some(targets),
        adversarial,
        clean,
        clean_probabilities,
        probabilities,
    }
}

/// As [`run`], with numbers from a formula for `classes` classes: for panels with few or many classes.
pub(in crate::app) fn run_with(classes: usize) -> RunView {
    let names: Vec<String> = (0..classes).map(|k| format!("{} {}", NAMES[k % 10], k / 10)).collect();
    let shape = ImageShape::new(1, 2, 2);
    let labels: Vec<u32> = (0..classes as u32).collect();
    let set = Dataset::new("many", names.clone(), shape, vec![0; 4 * classes], labels);
    let set = Arc::new(set.unwrap_or_else(|error| unreachable!("{error}")));
    let value = |seed: usize| (seed as f64 * 0.618_033_988_75).fract();
    let history: Vec<EpochRecord> = (0..18u32)
        .map(|e| {
            let robust = |k: usize| 0.05 + 0.6 * value(7 * k + 3) * f64::from(e + 1) / 18.0;
            let counts: Vec<u32> = (0..classes * classes)
                .map(|i| match (i / classes, i % classes) {
                    (t, p) if t == p => (100.0 * robust(t)) as u32,
                    _ => (40.0 * value(i + e as usize)).powi(2) as u32 / classes as u32,
                })
                .collect();
            let mut counted = Confusion::new(classes);
            counted.add_counts(&counts);
            let (cfps, accuracy) = (counted.cfps(), counted.class_accuracy());
            let mut record = epoch(e);
            record.metrics.val_robust_accuracy = mean(&accuracy);
            record.metrics.val_robust_worst = worst(&accuracy);
            record.classes = (0..classes)
                .map(|k| ClassRow {
                    epoch: e,
                    class: k as u32,
                    name: names[k].clone(),
                    epsilon: (0.5 + accuracy[k]) * 8.0 / 255.0,
                    target_probability: Some(1.0 / classes as f64),
                    cfps: cfps[k],
                    train_robust_accuracy: accuracy[k],
                    train_clean_accuracy: None,
                    val_clean_accuracy: (accuracy[k] + 0.3).min(1.0),
                    val_robust_accuracy: accuracy[k],
                    series: Vec::new(),
                })
                .collect();
            EpochRecord { train: Some(counted.clone()), validation: Some(counted), ..record }
        })
        .collect();
    let last: Vec<f64> = history[17].classes.iter().map(|row| row.epsilon).collect();
    let base = run();
    let info = base.info.as_ref().unwrap_or_else(|| unreachable!("the sample is open"));
    let now = Instant::now();
    let mut view = RunView::default();
    let splits = RunInfo { train: set.clone(), validation: set.clone(), test: set, history, ..(**info).clone() };
    view.apply(Update::Opened(Box::new(splits)), now);
    view.apply(Update::Phase(Phase::Attack), now);
    let targets = Some(vec![1.0 / classes as f64; classes].into());
    view.apply(
        Update::Batch(BatchPoint { epsilon: last.clone().into(), rule: last.into(), targets, ..batch(18, 45) }),
        now,
    );
    view
}

/// As [`run`], or as [`run_with`] for other numbers of classes, of a method with these values of its class series: by
/// column, epoch and class.
pub(in crate::app) fn run_of(method: MethodChoice, classes: usize, value: impl Fn(&str, u32, usize) -> f64) -> RunView {
    let mut view = if classes == NAMES.len() { run() } else { run_with(classes) };
    let Some(experiment) = view.experiment.as_mut() else { return view };
    experiment.fairness.method = method;
    let names: Vec<&str> = experiment.series().map(|series| series.name).collect();
    for record in &mut view.epochs {
        for row in &mut record.classes {
            let of = |name: &&str| ((*name).to_owned(), value(name, row.epoch, row.class as usize));
            row.series = names.iter().map(of).collect();
        }
    }
    view
}

/// As [`run_of`], of a method with two class series: weights between 0.5 and 1.6, and a switch.
pub(in crate::app) fn with_series(classes: usize) -> RunView {
    run_of(MethodChoice::Trix, classes, |name, epoch, class| match name {
        "weight" => 0.5 + ((class * 7 + 3) % 10) as f64 / 10.0 + 0.01 * f64::from(epoch),
        _ => f64::from(u32::from((class + epoch as usize).is_multiple_of(2))),
    })
}

/// What a worker would answer to an inspection or a decision map: an attack that succeeds half way, and three regions.
pub(in crate::app) fn answer(request: &Request) -> Option<Update> {
    match request {
        Request::Inspect(job) => {
            let label = job.subject.label.unwrap_or(0);
            let wrong = job.attack.target.unwrap_or((label + 2) % 10) as usize;
            let clean: Vec<f32> = job.subject.pixels.iter().map(|v| f32::from(*v) / 255.0).collect();
            let count = job.attack.steps + 2;
            let steps = (0..count).map(|step| {
                let t = f64::from(step) / f64::from(count - 1);
                let radius = t.sqrt() * job.attack.epsilon.exact();
                let sign = |i: usize| if (i * 7919) % 13 < 6 { -1.0 } else { 1.0 };
                let image: Vec<f32> =
                    clean.iter().enumerate().map(|(i, v)| (v + sign(i) * radius as f32).clamp(0.0, 1.0)).collect();
                let (right, other) = (0.8 - 0.7 * t, 0.05 + 0.75 * t);
                let rest = (1.0 - right - other) / 8.0;
                let probability = |k| {
                    if k == label as usize {
                        right
                    } else if k == wrong {
                        other
                    } else {
                        rest
                    }
                };
                let probabilities = (0..10).map(|k| probability(k) as f32).collect();
                let l2 = radius * (clean.len() as f64).sqrt();
                InspectionStep { image, probabilities, loss: -f64::ln(right), linf: radius, l2 }
            });
            let steps = steps.collect();
            Some(Update::Inspected(Arc::new(Inspection { job: (**job).clone(), label, steps, position: Some(18.5) })))
        }
        Request::Map(job) => {
            let radius = job.attack.epsilon.exact();
            let (n, extent) = (job.resolution, job.extent.map_or(2.0 * radius, |extent| extent.exact()));
            let mut predictions = Vec::new();
            let mut confidence = Vec::new();
            for row in 0..n {
                for column in 0..n {
                    let at = |i: usize| 2.0 * i as f64 / (n - 1) as f64 - 1.0;
                    let (x, y) = (at(column), -at(row));
                    let (right, up) = (x - 0.35 - 0.2 * (4.0 * y).sin(), y - 0.4 + 0.2 * (5.0 * x).cos());
                    let class = if right > 0.0 && right > up { 1 } else { 4 * u32::from(up > 0.0) };
                    predictions.push(class);
                    confidence.push((0.45 + 0.5 * right.abs().min(up.abs())) as f32);
                }
            }
            let e = radius.min(extent);
            let ball = vec![[e, 0.0], [0.7 * e, 0.7 * e], [0.0, e], [-e, 0.0], [-0.7 * e, -0.7 * e], [0.0, -e]];
            let steps = f64::from(job.attack.steps.max(1));
            let along = |step: u32| f64::from(step) / steps;
            let path =
                (0..=job.attack.steps).map(|step| [e * along(step), 0.5 * e * along(step) * (1.0 - along(step))]);
            // What the axis towards the rival stands for.
            let wrong = job.attack.target.unwrap_or((job.subject.label.unwrap_or(0) + 2) % 10);
            let resolved = |axis| if axis == Direction::Rival { Direction::Class(wrong) } else { axis };
            let map = DecisionMap {
                job: (**job).clone(),
                predictions,
                confidence,
                axes: job.axes.map(resolved),
                extent,
                ball,
                path: path.collect(),
                position: Some(18.5),
            };
            Some(Update::Mapped(Arc::new(map)))
        }
        Request::Cell(Some(job)) => {
            let (set, chosen) = (&job.set, &job.images[..job.images.len().min(job.most)]);
            let scaled = |image: &u32| set.image(*image as usize).iter().map(|v| f32::from(*v) / 255.0);
            let clean: Vec<f32> = chosen.iter().flat_map(scaled).collect();
            let labels: Vec<u32> = chosen.iter().map(|image| set.labels()[*image as usize]).collect();
            let row = |class: u32| (0..10).map(move |k| if k == class { 0.82 } else { 0.02 });
            let said = |label: &u32| row(job.wanted.unwrap_or((label + 2) % 10));
            let images = Examples {
                epoch: job.epoch.epoch,
                batch: 0,
                step: (10, 10),
                shape: set.shape(),
                ids: chosen.to_vec(),
                targets: None,
                epsilon: vec![8.0 / 255.0; chosen.len()],
                adversarial: clean.iter().enumerate().map(|(i, v)| v + if i % 3 == 0 { 0.03 } else { -0.03 }).collect(),
                clean,
                clean_probabilities: labels.iter().flat_map(|label| row(*label)).collect(),
                probabilities: labels.iter().flat_map(said).collect(),
                labels,
            };
            let tried = job.images.len();
            Some(Update::Cell(Arc::new(CellImages { id: job.id, images, tried, done: true, position: Some(18.5) })))
        }
        _ => None,
    }
}
