//! The training loop.

mod batch;
mod best;
#[cfg(test)]
mod epoch_tests;
mod live;
mod opening;
mod saving;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::live::Written;
pub use live::{Change, Live};
pub use opening::{ResumeOptions, check_classes};

use super::average::Average;
use super::batches::Batches;
use super::checkpoint::Progress;
use super::evaluation::evaluation_attack;
use super::events::{Event, Observer};
use super::methods::{ClassCosts, Evidence, Method, Needs, Radii, ValidationCounts};
use super::recalibrate::RunningAverage;
use super::run_dir::{RunDir, RunDirError};
use super::setup::{self, Splits};
use super::tensorboard::EventWriter;
use super::warnings::{missing_averages, run_warnings};
use super::{ClassRow, MetricsRow, Predicted, StoredError};
use crate::attack::{Attack, Measured, measure};
use crate::config::{ConfigError, Experiment};
use crate::data::DataError;
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, Start, View};
use crate::files::FileError;
use crate::model::{ModelError, State};
use crate::rng::{Purpose, Stream};

/// An error that ends a run early.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The experiment contradicts itself or its data.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The run directory cannot be read or written.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The initial weights cannot be used.
    #[error("the weights to start from (--init): {0}")]
    Initial(#[source] Box<StoredError>),
    /// TensorBoard's file cannot be written.
    #[error(transparent)]
    TensorBoard(FileError),
    /// The checkpoint to resume from cannot be read, or holds what no run can have written.
    #[error("{error}; {advice}")]
    Damaged {
        /// What is wrong with it; part of the message, and therefore not its source.
        error: Box<ModelError>,
        /// What is left, and what to do.
        advice: String,
    },
    /// The run or its images are not those of the checkpoint.
    #[error("{changes}; undo this, or go on with it by `fairtat resume {path} --accept-changes`")]
    Changed {
        /// The run directory.
        path: std::path::PathBuf,
        /// Each of them, in words.
        changes: String,
    },
    /// Weights, loss or gradients are no longer finite. The last checkpoint does not change.
    #[error("training diverged in epoch {epoch}, batch {batch} of {batches}: {what}; {then}")]
    Diverged {
        /// The epoch, counted from 1.
        epoch: u32,
        /// The batch, counted from 1.
        batch: u32,
        /// Batches in an epoch.
        batches: u32,
        /// What is not finite.
        what: String,
        /// What is left, and what to do.
        then: String,
    },
    /// The engine that the run began with is no longer available.
    #[error(
        "the run began with {began}, which cannot be opened now; `fairtat resume {path} --engine candle` \
         continues with another engine"
    )]
    EngineGone {
        /// The run directory.
        path: std::path::PathBuf,
        /// The engine, in words.
        began: String,
        /// Why it cannot be opened.
        source: Box<EngineError>,
    },
}

impl From<StoredError> for TrainError {
    fn from(error: StoredError) -> Self {
        Self::Initial(Box::new(error))
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was stopped and left a checkpoint.
    Stopped,
    /// It was stopped without writing anything more.
    Discarded,
}

/// A run: experiment, data, engine, method and progress.
pub struct Trainer {
    /// The experiment in force.
    experiment: Experiment,
    /// The experiment in force from the next epoch on, if it differs.
    wanted: Option<Experiment>,
    splits: Splits,
    engine: Box<dyn Engine>,
    method: Box<dyn Method>,
    directory: RunDir,
    progress: Progress,
    ema: Average,
    fawa: Average,
    metrics: Vec<MetricsRow>,
    classes: Vec<ClassRow>,
    board: EventWriter,
    /// The changes by hand that the run directory already records.
    written: Written,
    /// What the images of this epoch were counted as.
    predicted: Predicted,
    /// Time in this epoch spent in observers or on work for them alone.
    watched: Duration,
    /// Current warnings about the experiment that were already reported.
    warned: Vec<String>,
    /// Whether the warning about validation images without a gradient was already reported.
    warned_of_gradients: bool,
    /// When the run was opened or last wrote a checkpoint, and the epoch and batch of the last checkpoint.
    saved: (Instant, Option<(u32, u32)>),
    /// What was found, repaired or missing when the run was opened, until it is reported.
    notes: Vec<Note>,
}

/// What is to be reported about the opening of a run.
enum Note {
    /// As [`Event::Note`].
    Fact(String),
    /// As [`Event::Warning`].
    Problem(String),
}

/// The results of one evaluation after an epoch.
struct Validation {
    clean: Measured,
    robust: Measured,
    costs: Option<ClassCosts>,
}

impl Validation {
    /// The counts for a method with these needs. `None` if it does not need them.
    fn counts(&self, needs: Needs) -> Option<ValidationCounts> {
        (needs.validation || needs.costs).then(|| ValidationCounts {
            clean: self.clean.confusion.clone(),
            robust: self.robust.confusion.clone(),
            costs: self.costs.clone(),
        })
    }
}

impl Trainer {
    /// The experiment.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The images.
    pub fn splits(&self) -> &Splits {
        &self.splits
    }

    /// The engine, for evaluations between and after epochs.
    pub fn engine(&mut self) -> &mut dyn Engine {
        self.engine.as_mut()
    }

    /// Ends the run and returns its engine.
    pub fn into_engine(self) -> Box<dyn Engine> {
        self.engine
    }

    /// Progress of the run.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The run directory.
    pub fn directory(&self) -> &RunDir {
        &self.directory
    }

    /// The rows of `metrics.csv` and `classes.csv` so far.
    pub fn rows(&self) -> (&[MetricsRow], &[ClassRow]) {
        (&self.metrics, &self.classes)
    }

    /// The averages over epochs, EMA and FAWA, if they have begun.
    pub fn averages(&self) -> (Option<&State>, Option<&State>) {
        (self.ema.state(), self.fawa.state())
    }

    /// The attack of the evaluation after each epoch, with `steps` steps.
    pub fn evaluation_attack(&self, steps: u32) -> Attack {
        evaluation_attack(&self.experiment, steps)
    }

    /// How an epoch is split into batches.
    pub fn cut(&self) -> Batches {
        let o = &self.experiment.optimizer;
        Batches::new(self.splits.train.len(), o.batch_size, o.last_batch)
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> u32 {
        self.cut().count()
    }

    /// Trains until all epochs are done or `observer` asks to stop.
    ///
    /// # Errors
    /// If something fails; the last checkpoint is then unchanged. [`TrainError::Diverged`] if a number is not finite.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        for note in std::mem::take(&mut self.notes) {
            observer.event(&match &note {
                Note::Fact(text) => Event::Note(text),
                Note::Problem(text) => Event::Warning(text),
            });
        }
        self.warn_of_experiment(observer);
        loop {
            while self.progress.epoch < self.experiment.optimizer.epochs {
                let ended = self.epoch(observer).map_err(|error| match error {
                    TrainError::Engine(EngineError::NotFinite { what, batch }) => {
                        let what = format!("NaN or infinity in the {what}, in a batch of {batch} images");
                        self.diverged(self.progress.batch + 1, what)
                    }
                    other => other,
                });
                match ended? {
                    Outcome::Finished => {}
                    _ if observer.discard() => return Ok(Outcome::Discarded),
                    _ => {
                        self.save_checkpoint(observer)?;
                        return Ok(Outcome::Stopped);
                    }
                }
                let (done, every) = (self.progress.epoch, self.experiment.run.checkpoint_every);
                if done % every == 0 || done >= self.experiment.optimizer.epochs {
                    self.save_checkpoint(observer)?;
                }
            }
            // The last point at which an observer can ask for more epochs.
            observer.between(&mut Live::between_batches(self));
            self.warn_of_experiment(observer);
            if self.progress.epoch >= self.experiment.optimizer.epochs || observer.stop() || observer.discard() {
                break;
            }
        }
        if !observer.discard() {
            self.write_changes()?;
        }
        let has = [self.ema.state().is_some(), self.fawa.state().is_some()];
        if let Some(warning) = missing_averages(&self.experiment, self.progress.epoch, has, &self.metrics) {
            observer.event(&Event::Warning(&warning));
        }
        Ok(Outcome::Finished)
    }

    /// The error that training diverged in this batch of the epoch, counted from 1.
    fn diverged(&self, batch: u32, what: String) -> TrainError {
        let (path, batches) = (self.directory.path().display(), self.batches());
        let then = match self.saved.1 {
            Some((epoch, batch)) => format!(
                "resume.safetensors keeps the state before epoch {}, batch {}: lower optimizer.lr in {path}/config.toml \
                 and go on with `fairtat resume {path} --accept-changes`",
                epoch + 1,
                batch + 1
            ),
            None => "there is no checkpoint yet: begin another run with a lower --lr".into(),
        };
        TrainError::Diverged { epoch: self.progress.epoch + 1, batch: batch.min(batches), batches, what, then }
    }

    /// Trains the rest of an epoch and evaluates after it.
    fn epoch(&mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let started = Instant::now();
        let already = self.progress.seconds[0];
        self.watched = Duration::ZERO;
        self.predicted = Predicted::of_training_images(self.splits.train.len());
        let (epoch, batches) = (self.progress.epoch, self.batches());
        if !self.gather_evidence(observer)? {
            return Ok(Outcome::Stopped);
        }
        let order = self.order(epoch);
        let epochs = self.experiment.optimizer.epochs;
        observer.event(&Event::EpochStarted { epoch, epochs, batch: self.progress.batch, batches });
        while self.progress.batch < batches {
            let clock = Instant::now();
            observer.between(&mut Live::between_batches(self));
            self.warn_of_experiment(observer);
            self.watched += clock.elapsed();
            if observer.stop() || observer.discard() {
                return Ok(Outcome::Stopped);
            }
            // Another method may have come into force, which needs what this one did not.
            if self.progress.batch == 0 && !self.gather_evidence(observer)? {
                return Ok(Outcome::Stopped);
            }
            let Some(trained) = self.batch(&order, observer)? else { return Ok(Outcome::Stopped) };
            self.progress.seconds[0] = already + (started.elapsed().saturating_sub(self.watched)).as_secs_f64();
            let seen = self.progress.counted.robust.total();
            observer.event(&Event::Batch {
                epoch,
                epochs: self.experiment.optimizer.epochs,
                done: self.progress.batch,
                batches,
                images: trained.images,
                loss: self.progress.loss_sum / seen as f64,
                robust_accuracy: self.progress.counted.robust.accuracy(),
                lr: trained.lr,
                seconds: self.progress.seconds,
                epsilon: &trained.epsilon,
                rule: self.method.class_epsilon(),
                targets: self.method.target_distribution().map(|d| d.probabilities()),
            });
            if observer.stop() || observer.discard() {
                return Ok(Outcome::Stopped);
            }
            let clock = Instant::now();
            let minutes = self.experiment.run.checkpoint_minutes;
            if minutes > 0.0 && self.saved.0.elapsed().as_secs_f64() >= 60.0 * minutes {
                self.save_checkpoint(observer)?;
                self.watched += clock.elapsed();
            }
        }
        // An observer that stepped through the last batch may have changed the experiment.
        self.warn_of_experiment(observer);
        let trained = self.engine.state()?.model;
        if let Some(name) = trained.not_finite() {
            return Err(self.diverged(batches, format!("NaN or infinity in '{name}'")));
        }
        let (evaluated, validation) = self.evaluate(&trained, observer)?;
        let Some(validation) = validation else { return Ok(Outcome::Stopped) };
        // Once per run: it rarely concerns one epoch alone, and metrics.csv has the count of each.
        if !self.warned_of_gradients
            && let Some(warning) = validation.robust.warning()
        {
            observer.event(&Event::Warning(&warning));
            self.warned_of_gradients = true;
        }
        self.progress.seconds[0] = already + (started.elapsed().saturating_sub(self.watched)).as_secs_f64();
        self.finish_epoch(&evaluated, &validation, observer)?;
        if self.experiment.evaluation.recalibrate_bn > 0 {
            // Recalibrating the averages has replaced the weights in the engine.
            self.engine.load_model(&trained)?;
        }
        Ok(Outcome::Finished)
    }

    /// Validates before the epoch's first batch, if the method needs what was not counted, and plans the epoch. Within an epoch
    /// nothing is counted: the plan is that of its beginning. `false` if the observer asks to stop.
    fn gather_evidence(&mut self, observer: &mut dyn Observer) -> Result<bool, TrainError> {
        let needs = self.method.needs();
        let known = self.progress.validation.as_ref();
        // Losses adapt nothing before the first epoch is done.
        let costs = needs.costs && self.progress.epoch > 0 && known.is_none_or(|counts| counts.costs.is_none());
        if (needs.validation && known.is_none() || costs) && self.progress.batch == 0 {
            let trained = self.engine.state()?.model;
            let Some(validation) = self.evaluate(&trained, observer)?.1 else { return Ok(false) };
            self.progress.validation = validation.counts(needs);
        }
        self.plan();
        Ok(true)
    }

    /// Validates `trained`, the weights in the engine, after recalibration if the experiment asks for it. Afterwards
    /// the engine holds `trained` again, because training continues with its own running statistics. Returns the
    /// weights that were evaluated, and no results if the observer asks to stop.
    fn evaluate(
        &mut self,
        trained: &State,
        observer: &mut dyn Observer,
    ) -> Result<(State, Option<Validation>), TrainError> {
        let evaluated = self.recalibrated(trained)?;
        let validation = self.validate(observer)?;
        if self.experiment.evaluation.recalibrate_bn > 0 {
            self.engine.load_model(trained)?;
        }
        Ok((evaluated, validation))
    }

    /// Plans the current epoch. Repeated calls give the same plan, because it depends only on the results of the last
    /// epoch.
    fn plan(&mut self) {
        let Progress { epoch, statistics, validation, memory, last_sums, .. } = &self.progress;
        self.method.restore(memory);
        let (statistics, validation) = (statistics.as_ref(), validation.as_ref());
        self.method.plan(*epoch, &Evidence { statistics, validation, sums: Some(last_sums) });
    }

    /// `weights` for evaluation: with running statistics recomputed over the first batches of this epoch, unperturbed,
    /// if the experiment asks for it. Leaves them in the engine.
    pub(super) fn recalibrated(&mut self, weights: &State) -> Result<State, TrainError> {
        let batches = self.experiment.evaluation.recalibrate_bn.min(self.batches());
        if batches == 0 {
            return Ok(weights.clone());
        }
        self.engine.load_model(weights)?;
        let (epoch, seed, augment) = (self.progress.epoch, self.experiment.run.seed, self.experiment.augment());
        let (order, cut) = (self.order(epoch), self.cut());
        let mut average = RunningAverage::default();
        for index in 0..batches {
            let ids = &order[cut.range(index)];
            let (pixels, labels) = batch::gather(&self.splits.train, ids);
            let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed, epoch };
            average.add(&self.engine.batch_statistics(&Input::Batch(&batch))?);
        }
        let recalibrated = average.put_into(weights);
        self.engine.load_model(&recalibrated)?;
        Ok(recalibrated)
    }

    /// The order in which an epoch takes the training images.
    fn order(&self, epoch: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.splits.train.len() as u32).collect();
        Stream::new(self.experiment.run.seed, Purpose::Shuffle, epoch, 0).sequence().shuffle(&mut order);
        order
    }

    /// Reports warnings about the attacks and about averaging at the start of a run, and new ones after a change of the
    /// experiment.
    fn warn_of_experiment(&mut self, observer: &mut dyn Observer) {
        let warnings = run_warnings(self.wanted());
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            observer.event(&Event::Warning(warning));
        }
        self.warned = warnings;
    }

    /// Clean and robust accuracy on the validation split. `None` if the observer asks to stop.
    fn validate(&mut self, observer: &mut dyn Observer) -> Result<Option<Validation>, TrainError> {
        let attack = self.evaluation_attack(self.experiment.evaluation.eval_steps);
        let Some(clean) = self.measure_validation(&Attack::clean(), observer)? else { return Ok(None) };
        let Some(robust) = self.measure_validation(&attack, observer)? else { return Ok(None) };
        let costs = if self.method.needs().costs {
            let Some(costs) = self.measure_costs(observer)? else { return Ok(None) };
            Some(costs)
        } else {
            None
        };
        Ok(Some(Validation { clean, robust, costs }))
    }

    /// Losses of each class on the validation split under the training search, with batch norm in eval mode. `None` if
    /// the observer asks to stop.
    fn measure_costs(&mut self, observer: &mut dyn Observer) -> Result<Option<ClassCosts>, TrainError> {
        let set = Arc::clone(&self.splits.validation);
        let radii = Radii(self.radii());
        let mut costs = ClassCosts::new(set.classes());
        let (seed, epoch, position) = (self.experiment.run.seed, self.progress.epoch, self.position());
        let ids: Vec<u32> = (0..set.len() as u32).collect();
        for (done, ids) in ids.chunks(self.experiment.evaluation.eval_batch_size.max(1)).enumerate() {
            let done = done * self.experiment.evaluation.eval_batch_size;
            observer.event(&Event::Evaluating { attack: "the training search", done, total: set.len() });
            let clock = Instant::now();
            observer.wait(Some((self.engine.as_mut(), position)));
            self.watched += clock.elapsed();
            if observer.stop() || observer.discard() {
                return Ok(None);
            }
            let (pixels, labels) = batch::gather(&set, ids);
            let batch = Batch { pixels: &pixels, labels: &labels, ids, augment: None, seed, epoch };
            let mut spec = self.method.search(&batch, &radii);
            spec.batch_norm = BatchNormMode::Eval;
            if let Start::Uniform { purpose, .. } | Start::Normal { purpose, .. } = &mut spec.start {
                *purpose = Purpose::EvaluationStart;
            }
            let views = self.engine.perturb(&batch, &spec)?;
            let mut logits = |view| self.engine.logits(&Input::View(&views, view), BatchNormMode::Eval);
            costs.add(&labels, &logits(View::Clean)?, &logits(View::Adversarial)?);
        }
        if !costs.is_for(set.classes()) {
            let (what, batch) = ("losses on the validation split".into(), set.len());
            return Err(EngineError::NotFinite { what, batch }.into());
        }
        Ok(Some(costs))
    }

    fn measure_validation(
        &mut self,
        attack: &Attack,
        observer: &mut dyn Observer,
    ) -> Result<Option<Measured>, TrainError> {
        let set = &self.splits.validation;
        let name = attack.to_string();
        let batch_size = self.experiment.evaluation.eval_batch_size;
        let mut waited = Duration::ZERO;
        let position = self.position();
        let measured = measure(self.engine.as_mut(), set, attack, batch_size, &mut |engine, done| {
            observer.event(&Event::Evaluating { attack: &name, done, total: set.len() });
            let clock = Instant::now();
            observer.wait(Some((engine, position)));
            waited += clock.elapsed();
            !(observer.stop() || observer.discard())
        })?;
        self.watched += waited;
        Ok(measured)
    }
}
