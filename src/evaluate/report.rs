//! The end of a run: accuracy on the test set for every kind of weights, figures, examples.

use serde::{Deserialize, Serialize};

use super::figures::{self, Context, Example, FigureError};
use crate::attack::{Attack, Measured, describe_without_gradient, describe_worst_class, measure};
use crate::config::{Experiment, SearchKind, StatisticsSource};
use crate::data::Dataset;
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, Norm, SearchSpec, View, loss};
use crate::fairness::{ClassStats, Confusion, MANY_CLASSES};
use crate::files::write_atomic;
use crate::model::{ModelError, State};
use crate::train::methods::{self, Evidence, Method, Radii};
use crate::train::{Event, Observer, RunDir, RunDirError, Trainer, ValidationSetting, evaluation_attack};

/// An error at the end of a run.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A checkpoint cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The run directory cannot be written.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Figure(#[from] FigureError),
    /// An image cannot be encoded.
    #[error("example images: {0}")]
    Image(#[from] image::ImageError),
}

/// Accuracy of one kind of weights on the test set. Values that older files lack are `None` or empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WeightsReport {
    /// `last`, `best` (by the validation split), `ema` or `fawa`.
    pub weights: String,
    /// Mean accuracy on the images themselves.
    pub clean: f64,
    /// Its worst class.
    pub clean_worst: f64,
    /// Mean accuracy under the attack.
    pub robust: f64,
    /// Its worst class.
    pub robust_worst: f64,
    /// Best minus worst class under the attack.
    pub robust_gap: f64,
    /// Mean of the worst tenth of the classes under the attack.
    pub robust_worst_tenth: f64,
    /// Accuracy of each class on the images themselves, in the order of the labels; `None` for a class without test
    /// images.
    pub clean_classes: Vec<Option<f64>>,
    /// Accuracy of each class under the attack.
    pub robust_classes: Vec<Option<f64>>,
    /// 95 % interval of `clean`, low and high ([`crate::fairness::wilson`]).
    #[serde(default)]
    pub clean_interval: Option<[f64; 2]>,
    /// 95 % interval of `clean_worst`.
    #[serde(default)]
    pub clean_worst_interval: Option<[f64; 2]>,
    /// 95 % interval of `robust`.
    #[serde(default)]
    pub robust_interval: Option<[f64; 2]>,
    /// 95 % interval of `robust_worst`.
    #[serde(default)]
    pub robust_worst_interval: Option<[f64; 2]>,
    /// Intervals of `clean_classes`.
    #[serde(default)]
    pub clean_class_intervals: Vec<[f64; 2]>,
    /// Intervals of `robust_classes`.
    #[serde(default)]
    pub robust_class_intervals: Vec<[f64; 2]>,
    /// Index of the worst class under the attack.
    #[serde(default)]
    pub robust_worst_class: Option<usize>,
    /// Indices of other classes whose interval overlaps that of the worst class under the attack.
    #[serde(default)]
    pub robust_worst_ties: Vec<usize>,
    /// Images whose gradient was exactly zero in at least one step of the attack. If there are many, the robust
    /// accuracy is overestimated.
    #[serde(default)]
    pub images_without_gradient: Option<u64>,
}

/// `evaluation.json`: accuracy on the test set at the end of a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FinalReport {
    /// Training method.
    pub method: String,
    /// Data set.
    pub dataset: String,
    /// Architecture.
    pub architecture: String,
    /// Seed of the run.
    pub seed: u64,
    /// The attack in one line, with steps, step size, epsilon, restarts and seed.
    pub attack: String,
    /// Images in the test set.
    pub images: usize,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// A row for each kind of weights.
    pub weights: Vec<WeightsReport>,
    /// Reasons why the robust accuracies are higher than under a stronger attack ([`Attack::warning`],
    /// [`Measured::warning`]).
    #[serde(default)]
    pub warnings: Vec<String>,
}

impl FinalReport {
    /// The row of the given weights.
    pub fn of(&self, weights: &str) -> Option<&WeightsReport> {
        self.weights.iter().find(|row| row.weights == weights)
    }

    /// A table for the terminal.
    pub fn table(&self) -> String {
        if self.weights.is_empty() {
            return String::new();
        }
        let mut text = format!("Test set: {} images. Robust: {}.\n", self.images, self.attack);
        text += "In brackets: 95 % intervals of the robust accuracies.\n";
        let many = self.class_names.len() > MANY_CLASSES;
        let tenth = if many { "   worst 10 %" } else { "" };
        text += &format!("weights    clean   worst   robust                 worst                  gap{tenth}\n");
        let percent = |value: f64| format!("{:5.1} %", 100.0 * value);
        let within = |value: f64, interval: Option<[f64; 2]>| {
            let bounds = interval.map(|[low, high]| format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high));
            format!("{} {:<14}", percent(value), bounds.unwrap_or_default())
        };
        for row in &self.weights {
            let tenth = if many { format!("    {}", percent(row.robust_worst_tenth)) } else { String::new() };
            text += &format!(
                "{:<8} {} {} {} {} {}{tenth}\n",
                row.weights,
                percent(row.clean),
                percent(row.clean_worst),
                within(row.robust, row.robust_interval),
                within(row.robust_worst, row.robust_worst_interval),
                percent(row.robust_gap),
            );
        }
        if many {
            let count = self.class_names.len().div_ceil(10);
            text += &format!(
                "Worst 10 %: mean robust accuracy of the {count} worst of {} classes.\n",
                self.class_names.len()
            );
        }
        text += "\n";
        for row in &self.weights {
            if let (Some(worst), Some(interval)) = (row.robust_worst_class, row.robust_worst_interval) {
                let name = |k: usize| self.class_names.get(k).cloned().unwrap_or_else(|| k.to_string());
                let ties: Vec<String> = row.robust_worst_ties.iter().map(|k| name(*k)).collect();
                let worst = describe_worst_class(&name(worst), row.robust_worst, interval, &ties);
                text += &format!("{:<8} worst robust class: {worst}\n", row.weights);
            }
            if let Some(without) = row.images_without_gradient.filter(|without| *without > 0) {
                let gradients = describe_without_gradient(without, self.images as u64);
                text += &format!("{:<8} {gradients}\n", "");
            }
        }
        for warning in &self.warnings {
            text += &format!("warning: {warning}\n");
        }
        text
    }
}

/// Evaluates every kind of weights on the test set, draws the figures and writes the examples. `None` if the observer
/// asks to stop.
///
/// # Errors
/// If the engine fails, or the directory cannot be read or written.
pub fn finish(trainer: &mut Trainer, observer: &mut dyn Observer) -> Result<Option<FinalReport>, ReportError> {
    let experiment = trainer.experiment().clone();
    let test = trainer.splits().test.clone();
    let directory = trainer.directory().clone();
    // Evaluate the exported files: the running statistics in the engine and in the averages may differ from them.
    let exported = |weights: &str, is_there: bool| match is_there {
        true => Ok(Some(State::load(&directory.checkpoint(weights))?.0)),
        false => Ok::<_, ReportError>(None),
    };
    let has_best = trainer.progress().best.is_some();
    let [has_ema, has_fawa] = <[_; 2]>::from(trainer.averages()).map(|average| average.is_some());
    let last = State::load(&directory.checkpoint("last"))?.0;
    let kinds = [
        ("last", Some(last.clone())),
        ("best", exported("best", has_best)?),
        ("ema", exported("ema", has_ema)?),
        ("fawa", exported("fawa", has_fawa)?),
    ];

    let attack = evaluation_attack(&experiment, experiment.evaluation.test_steps);
    let mut report = FinalReport {
        method: experiment.fairness.method.title().into(),
        dataset: experiment.data.dataset.clone(),
        architecture: experiment.model.arch.name().into(),
        seed: experiment.run.seed,
        attack: if experiment.evaluation.test_steps > 0 { attack.to_string() } else { "none".into() },
        images: test.len(),
        class_names: test.class_names().to_vec(),
        weights: Vec::new(),
        warnings: Vec::new(),
    };
    let mut confusion = None;
    if experiment.evaluation.test_steps > 0 {
        report.warnings.extend(attack.warning());
        for (weights, state) in kinds {
            let Some(state) = state else { continue };
            trainer.engine().load_model(&state)?;
            let batch_size = experiment.evaluation.eval_batch_size;
            let position = (weights == "last").then(|| trainer.position());
            let measured = evaluate(trainer.engine(), &test, &attack, batch_size, position, observer)?;
            let Some((clean, robust)) = measured else {
                trainer.engine().load_model(&last)?;
                return Ok(None);
            };
            report.weights.push(row(weights, &clean.confusion, &robust));
            report.warnings.extend(robust.warning().map(|warning| format!("{weights}: {warning}")));
            if weights == "last" {
                confusion = Some(robust.confusion);
            }
        }
    }
    observer.event(&Event::Saving);
    directory.write_class_json("evaluation.json", &report, test.classes())?;
    trainer.engine().load_model(&last)?;
    let statistics = trainer.progress().statistics.clone();
    let epoch = experiment.optimizer.epochs;
    let examples = examples(trainer.engine(), &experiment, statistics.as_ref(), &test, epoch)?;
    directory.check()?;
    write_examples(&directory, &examples)?;
    draw(trainer, confusion.as_ref(), &attack, &examples, observer)?;
    Ok(Some(report))
}

fn evaluate(
    engine: &mut dyn Engine,
    test: &Dataset,
    attack: &Attack,
    batch_size: usize,
    position: Option<f64>,
    observer: &mut dyn Observer,
) -> Result<Option<(Measured, Measured)>, EngineError> {
    let mut run = |attack: &Attack| {
        let name = attack.to_string();
        measure(engine, test, attack, batch_size, &mut |engine, done| {
            observer.event(&Event::Evaluating { attack: &name, done, total: test.len() });
            observer.wait(position.map(|position| (engine, position)));
            !(observer.stop() || observer.discard())
        })
    };
    let Some(clean) = run(&Attack::clean())? else { return Ok(None) };
    Ok(run(attack)?.map(|robust| (clean, robust)))
}

fn row(weights: &str, clean: &Confusion, robust: &Measured) -> WeightsReport {
    let (without_gradient, robust) = (robust.without_gradient, &robust.confusion);
    WeightsReport {
        weights: weights.into(),
        clean: clean.accuracy(),
        clean_worst: clean.worst(),
        robust: robust.accuracy(),
        robust_worst: robust.worst(),
        robust_gap: robust.gap(),
        robust_worst_tenth: robust.worst_tenth(),
        clean_classes: clean.measured_class_accuracy(),
        robust_classes: robust.measured_class_accuracy(),
        clean_interval: Some(clean.interval()),
        clean_worst_interval: Some(clean.worst_interval()),
        robust_interval: Some(robust.interval()),
        robust_worst_interval: Some(robust.worst_interval()),
        clean_class_intervals: clean.class_intervals(),
        robust_class_intervals: robust.class_intervals(),
        robust_worst_class: robust.worst_class().map(|(class, _)| class),
        robust_worst_ties: robust.worst_class_ties(),
        images_without_gradient: Some(without_gradient),
    }
}

/// Draws every figure for which there is data.
fn draw(
    trainer: &Trainer,
    confusion: Option<&Confusion>,
    test_attack: &Attack,
    examples: &[Example],
    observer: &mut dyn Observer,
) -> Result<(), ReportError> {
    let (metrics, classes) = trainer.rows();
    if metrics.is_empty() {
        return Ok(());
    }
    let experiment = trainer.experiment();
    let mut context = figure_context(experiment, trainer.splits().train.class_names());
    if let Some(last) = metrics.last() {
        // The experiment may have been changed after the last epoch.
        context.attack = last.validation_attack(experiment);
    }
    let directory = trainer.directory().path();
    figures::draw_all(directory, metrics, classes, &[], &[], &context)?;
    let (title, train_attack) = (context.title.clone(), context.train_attack.clone());
    let (part, attack, counts) = match confusion {
        Some(confusion) => ("test set", test_attack.to_string(), confusion.counts().to_vec()),
        None => {
            let last = metrics.last().map_or(0, |row| row.epoch);
            let counts = trainer.directory().confusion(last, "validation").unwrap_or_else(|error| {
                observer.event(&Event::Warning(&format!("{error}: the confusion matrix is not drawn")));
                None
            });
            let counts = counts.map(|confusion| confusion.counts().to_vec()).unwrap_or_default();
            ("validation split", context.attack.clone(), counts)
        }
    };
    let of_part = Context { title: format!("{title}, {part}"), attack, ..context.clone() };
    if !counts.is_empty() {
        figures::confusion_matrix(&counts, figures::CellUnit::Percent, &of_part)?.save(directory)?;
    }
    if !examples.is_empty() {
        let title = format!("{title}, test set");
        let train_attack = train_attack.replace("batch norm in train mode", "but batch norm in eval mode");
        figures::adversarial_examples(examples, &Context { title, train_attack, ..context })?.save(directory)?;
    }
    Ok(())
}

/// The context of an experiment's figures.
pub fn figure_context(experiment: &Experiment, class_names: &[String]) -> Context {
    let train_attack = describe_training_attack(experiment);
    let attack = ValidationSetting::of(experiment).to_string();
    let fairness = &experiment.fairness;
    Context {
        statistics: match fairness.statistics_source {
            StatisticsSource::Training => format!("training images under {train_attack}"),
            StatisticsSource::Validation => format!("validation split under {attack}"),
        },
        frozen_after: fairness.freeze_after,
        title: format!("{} on {}, {}", fairness.method.title(), experiment.data.dataset, experiment.model.arch),
        attack,
        train_attack,
        train_robust: methods::train_robust(experiment),
        class_names: class_names.to_vec(),
        base_epsilon: experiment.attack.epsilon.exact(),
    }
}

/// The training attack in one line.
fn describe_training_attack(experiment: &Experiment) -> String {
    let (attack, method) = (&experiment.attack, experiment.method());
    if !experiment.trains_on_attacked_images() {
        return "no attack".into();
    }
    let norm = match attack.norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    };
    let mode = match experiment.attack_batch_norm() {
        BatchNormMode::Train => "batch norm in train mode",
        BatchNormMode::Eval => "batch norm in eval mode",
    };
    let kind = if method.mixed {
        "targeted for strong classes and untargeted for weak ones"
    } else if experiment.is_targeted() {
        "targeted"
    } else if (method.divergence)(experiment) {
        "on the divergence from the clean prediction"
    } else {
        "untargeted"
    };
    let scaled = if (method.class_radii)(experiment) { " scaled by class" } else { "" };
    let start = match (method.search)(experiment) {
        SearchKind::Trades => format!("from normal noise of {}", experiment.trades.start_deviation),
        SearchKind::Attack if attack.random_start => "random start".into(),
        SearchKind::Attack | SearchKind::None => "no random start".into(),
    };
    let (steps, epsilon) = (attack.steps, attack.epsilon);
    let own = (method.own_step_size)(experiment);
    let step = if own { "a quarter of the largest radius".into() } else { attack.step_size.to_string() };
    let stopped = if experiment.stops_early() { ", stopped early" } else { "" };
    format!("PGD-{steps}{stopped}, {kind}, {norm}, ε {epsilon}{scaled}, step {step}, {start}, {mode}")
}

/// Adversarial examples of images of `set`, in turn from each class. If the method is targeted, they have the targets
/// and radii of the next training epoch; otherwise they come from the evaluation attack. Batch norm is in eval mode, so
/// the predictions are those of an evaluation.
///
/// # Errors
/// If the engine fails.
pub fn examples(
    engine: &mut dyn Engine,
    experiment: &Experiment,
    statistics: Option<&ClassStats>,
    set: &Dataset,
    epoch: u32,
) -> Result<Vec<Example>, EngineError> {
    let ids = spread(set, experiment.run.examples);
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut pixels = Vec::new();
    ids.iter().for_each(|id| pixels.extend_from_slice(set.image(*id as usize)));
    let labels: Vec<u32> = ids.iter().map(|id| set.labels()[*id as usize]).collect();
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: experiment.run.seed, epoch };
    let mut method: Box<dyn Method> = methods::build(experiment, set.classes());
    method.plan(epoch, &Evidence { statistics, ..Evidence::default() });
    let spec = method.search(&batch, &Radii(method.class_epsilon().to_vec()));
    let spec = if spec.objective.is_targeted() {
        SearchSpec { batch_norm: BatchNormMode::Eval, ..spec }
    } else {
        evaluation_attack(experiment, experiment.evaluation.eval_steps).perturbation(ids.len(), 0)
    };
    let views = engine.perturb(&batch, &spec)?;
    let targets = engine.targets(&views)?.map(<[u32]>::to_vec);
    let mut predict = |view| {
        let logits = engine.logits(&Input::View(&views, view), BatchNormMode::Eval)?;
        Ok::<_, EngineError>(logits.chunks(set.classes()).map(loss::argmax).collect::<Vec<u32>>())
    };
    let (clean_predictions, predictions) = (predict(View::Clean)?, predict(View::Adversarial)?);
    let (clean, adversarial) = (engine.read_view(&views, View::Clean)?, engine.read_view(&views, View::Adversarial)?);
    let shape = set.shape();
    let image = |values: &[f32], i: usize| values[i * shape.len()..][..shape.len()].to_vec();
    let example = |i: usize| Example {
        original: image(&clean, i),
        adversarial: image(&adversarial, i),
        channels: shape.channels,
        height: shape.height,
        width: shape.width,
        label: labels[i] as usize,
        // An image whose target is its own class is attacked without one.
        target: targets.as_ref().map(|t| t[i]).filter(|target| *target != labels[i]).map(|target| target as usize),
        prediction: predictions[i] as usize,
        clean_prediction: Some(clean_predictions[i] as usize),
        epsilon: f64::from(spec.epsilon[i]),
    };
    Ok((0..ids.len()).map(example).collect())
}

/// The first image of each class, then the second of each, until there are `count`.
fn spread(set: &Dataset, count: usize) -> Vec<u32> {
    let mut rank = vec![0usize; set.classes()];
    let mut order: Vec<(usize, u32, u32)> = Vec::with_capacity(set.len());
    for (id, &label) in set.labels().iter().enumerate() {
        order.push((rank[label as usize], label, id as u32));
        rank[label as usize] += 1;
    }
    order.sort_unstable();
    order.into_iter().take(count).map(|(_, _, id)| id).collect()
}

/// Writes `examples/NN-original.png` and `NN-adversarial.png`, pixel for pixel.
fn write_examples(directory: &RunDir, examples: &[Example]) -> Result<(), ReportError> {
    for (i, example) in examples.iter().enumerate() {
        for (part, values) in [("original", &example.original), ("adversarial", &example.adversarial)] {
            let bytes = encode(values, example)?;
            let path = directory.path().join("examples").join(format!("{i:02}-{part}.png"));
            write_atomic(&path, &bytes).map_err(RunDirError::from)?;
        }
    }
    Ok(())
}

fn encode(values: &[f32], example: &Example) -> Result<Vec<u8>, image::ImageError> {
    let plane = example.height * example.width;
    let byte = |channel: usize, i: usize| (values[channel * plane + i] * 255.0).round().clamp(0.0, 255.0) as u8;
    let interleaved: Vec<u8> =
        (0..plane).flat_map(|i| (0..example.channels).map(move |c| (c, i))).map(|(c, i)| byte(c, i)).collect();
    let color = if example.channels == 3 { image::ExtendedColorType::Rgb8 } else { image::ExtendedColorType::L8 };
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    image::ImageEncoder::write_image(encoder, &interleaved, example.width as u32, example.height as u32, color)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_test_images_is_not_measured_and_keeps_its_place() {
        let mut confusion = Confusion::new(3);
        confusion.add_all(&[0, 0, 2], &[0, 1, 2]);
        let robust = Measured {
            attack: Attack::clean(),
            confusion: confusion.clone(),
            predictions: Vec::new(),
            without_gradient: 0,
        };
        let row = row("last", &confusion, &robust);
        assert_eq!(row.robust_classes, [Some(0.5), None, Some(1.0)]);
        assert_eq!((row.robust_worst_class, row.robust_worst, row.robust_gap), (Some(0), 0.5, 0.5));
        assert!(!row.robust_worst_ties.contains(&1), "{:?}", row.robust_worst_ties);
        let text = serde_json::to_string(&row).unwrap();
        assert!(text.contains("\"robust_classes\":[0.5,null,1.0]"), "{text}");
        assert_eq!(serde_json::from_str::<WeightsReport>(&text).unwrap(), row);
    }
}
