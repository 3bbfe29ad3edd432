//! The training loop.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::json;

use super::average::Average;
use super::checkpoint::{Checkpoint, Progress};
use super::events::{Event, Observer};
use super::methods::{self, Method};
use super::run_dir::{RunDir, RunDirError};
use super::setup::{self, Splits};
use super::tensorboard::EventWriter;
use super::{ClassRow, MetricsRow};
use crate::attack::{Attack, Measured, measure};
use crate::config::{ConfigError, Experiment, StatisticsSource};
use crate::data::{DataError, Dataset};
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, SgdStep, View, loss};
use crate::fairness::ClassStats;
use crate::model::{ModelError, State};
use crate::rng::{Purpose, Stream};

/// What can end a run before its end.
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
    /// TensorBoard's file cannot be written.
    #[error("TensorBoard events: {0}")]
    TensorBoard(std::io::Error),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was stopped and left a checkpoint.
    Stopped,
}

/// A run: what it trains, with what, and where it stands.
pub struct Trainer {
    experiment: Experiment,
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
}

/// What went on in one evaluation after an epoch.
struct Validation {
    clean: Measured,
    robust: Measured,
}

impl Trainer {
    /// Begins a run in a new directory.
    ///
    /// # Errors
    /// When the experiment is invalid, or data, engine or directory cannot be had.
    pub fn begin(experiment: Experiment, splits: Splits, directory: RunDir) -> Result<Self, TrainError> {
        let network = setup::network(&experiment, &splits.train);
        let state = State::initialise(&network, experiment.run.seed);
        let engine = setup::open_engine(&experiment.run.engine_options(), network, &state)?;
        Self::begin_with(experiment, splits, engine, directory)
    }

    /// Begins a run with an engine that is there already, from the parameters in it: fine-tuning, or a network that the
    /// experiment cannot describe. The experiment's choice of network, engine and device is not looked at.
    ///
    /// # Errors
    /// As [`Self::begin`], and when the engine's network is not for these images.
    pub fn begin_with(
        experiment: Experiment,
        splits: Splits,
        engine: Box<dyn Engine>,
        directory: RunDir,
    ) -> Result<Self, TrainError> {
        let (shape, classes) = (splits.train.shape(), splits.train.classes());
        let network = engine.network();
        if network.input != shape || network.classes != classes {
            let what = format!(
                "the images are {shape} of {classes} classes, the engine's network takes {} of {}",
                network.input, network.classes
            );
            return Err(EngineError::Invalid(what).into());
        }
        let start = Progress { images: fingerprint(&splits.train), ..Progress::start(classes) };
        Self::assemble(experiment, splits, engine, directory, start)
    }

    /// Goes on with a run from its last checkpoint.
    ///
    /// # Errors
    /// As [`Self::begin`], and when there is no checkpoint or it does not fit.
    pub fn resume(experiment: Experiment, splits: Splits, directory: RunDir) -> Result<Self, TrainError> {
        let checkpoint = Checkpoint::load(&directory.checkpoint("resume"))?;
        let network = setup::network(&experiment, &splits.train);
        let options = experiment.run.engine_options();
        let mut engine = setup::open_engine(&options, network, &checkpoint.engine.model)?;
        engine.load_state(&checkpoint.engine)?;
        for average in [&checkpoint.ema, &checkpoint.fawa].into_iter().flatten() {
            average.check(engine.network())?;
        }
        let (mut metrics, mut classes) = directory.read_rows()?;
        metrics.retain(|row| row.epoch < checkpoint.progress.epoch);
        classes.retain(|row| row.epoch < checkpoint.progress.epoch);
        let trainer = Self::assemble(experiment, splits, engine, directory, checkpoint.progress)?;
        let (ema, fawa) = (Average::new(checkpoint.ema), Average::new(checkpoint.fawa));
        Ok(Self { ema, fawa, metrics, classes, ..trainer })
    }

    fn assemble(
        experiment: Experiment,
        splits: Splits,
        engine: Box<dyn Engine>,
        directory: RunDir,
        progress: Progress,
    ) -> Result<Self, TrainError> {
        experiment.validate()?;
        let classes = splits.train.classes();
        if experiment.fairness.fixed_target as usize >= classes {
            let what = format!("expected 0 to {}, found {}", classes - 1, experiment.fairness.fixed_target);
            return Err(ConfigError::Invalid { field: "fairness.fixed_target", what }.into());
        }
        let statistics = [Some(&progress.counted), progress.statistics.as_ref()];
        let path = directory.checkpoint("resume");
        if !statistics.into_iter().flatten().all(|statistics| statistics.is_for(classes)) {
            let what = format!("its statistics are not for the {classes} classes of the data set");
            return Err(ModelError::Format { path, what }.into());
        }
        if progress.images != fingerprint(&splits.train) {
            let what = "the training images are not those that the run began with".into();
            return Err(ModelError::Format { path, what }.into());
        }
        let method = methods::build(&experiment, classes);
        let board =
            EventWriter::create(directory.path(), u64::from(progress.epoch)).map_err(TrainError::TensorBoard)?;
        let (ema, fawa, metrics, classes) = Default::default();
        Ok(Self { experiment, splits, engine, method, directory, progress, ema, fawa, metrics, classes, board })
    }

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

    /// Where the run stands.
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

    /// The averages over epochs, where they have begun: EMA and FAWA.
    pub fn averages(&self) -> (Option<&State>, Option<&State>) {
        (self.ema.state(), self.fawa.state())
    }

    /// The attack of the evaluation after each epoch, or with `steps` another number of steps.
    pub fn evaluation_attack(&self, steps: u32) -> Attack {
        evaluation_attack(&self.experiment, steps)
    }

    /// Batches in an epoch.
    pub fn batches(&self) -> u32 {
        self.splits.train.len().div_ceil(self.experiment.optimizer.batch_size) as u32
    }

    /// Trains until all epochs are done or `observer` asks to stop.
    ///
    /// # Errors
    /// When something fails; the last checkpoint stays as it was.
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        while self.progress.epoch < self.experiment.optimizer.epochs {
            if self.epoch(observer)? == Outcome::Stopped {
                self.save_checkpoint(observer)?;
                return Ok(Outcome::Stopped);
            }
            let (done, every) = (self.progress.epoch, self.experiment.run.checkpoint_every);
            if done % every == 0 || done == self.experiment.optimizer.epochs {
                self.save_checkpoint(observer)?;
            }
        }
        let averaging = &self.experiment.averaging;
        if averaging.fawa && self.fawa.state().is_none() {
            observer.event(&Event::Warning(&format!(
                "no epoch's worst class reached the robust accuracy of {} that the fairness-aware average asks for, so \
                 there is none; --fawa-threshold sets another",
                averaging.fawa_threshold
            )));
        }
        Ok(Outcome::Finished)
    }

    /// Trains the rest of an epoch and evaluates after it.
    fn epoch(&mut self, observer: &mut dyn Observer) -> Result<Outcome, TrainError> {
        let started = Instant::now();
        let already = self.progress.seconds[0];
        let (epoch, batches) = (self.progress.epoch, self.batches());
        self.method.plan(epoch, self.progress.statistics.as_ref());
        let order = self.order(epoch);
        let epochs = self.experiment.optimizer.epochs;
        observer.event(&Event::EpochStarted { epoch, epochs, batch: self.progress.batch, batches });
        while self.progress.batch < batches {
            let (images, lr) = self.batch(&order)?;
            self.progress.seconds[0] = already + started.elapsed().as_secs_f64();
            let seen = self.progress.counted.robust.total();
            observer.event(&Event::Batch {
                epoch,
                done: self.progress.batch,
                images,
                loss: self.progress.loss_sum / seen as f64,
                robust_accuracy: self.progress.counted.robust.accuracy(),
                lr,
            });
            if observer.stop() {
                return Ok(Outcome::Stopped);
            }
        }
        let model = self.engine.state()?.model;
        let Some(validation) = self.validate(observer)? else { return Ok(Outcome::Stopped) };
        self.progress.seconds[0] = already + started.elapsed().as_secs_f64();
        self.finish_epoch(&model, &validation, observer)?;
        Ok(Outcome::Finished)
    }

    /// The order in which an epoch takes the training images.
    fn order(&self, epoch: u32) -> Vec<u32> {
        let mut order: Vec<u32> = (0..self.splits.train.len() as u32).collect();
        Stream::new(self.experiment.run.seed, Purpose::Shuffle, epoch, 0).sequence().shuffle(&mut order);
        order
    }

    /// Trains on the next batch. Gives its number of images and the learning rate.
    fn batch(&mut self, order: &[u32]) -> Result<(usize, f64), TrainError> {
        let o = &self.experiment.optimizer;
        let (epoch, index) = (self.progress.epoch, self.progress.batch);
        let first = index as usize * o.batch_size;
        let ids = &order[first..(first + o.batch_size).min(order.len())];
        let (pixels, labels) = gather(&self.splits.train, ids);
        let augment = self.experiment.augment();
        let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed: self.experiment.run.seed, epoch };
        let lr = o.schedule.lr(o.lr, epoch, o.epochs, index, self.batches());
        let engine = self.engine.as_mut();

        let clock = Instant::now();
        let objective = self.method.objective(engine, &batch)?;
        let chosen = clock.elapsed();
        let views = engine.perturb(&batch, &self.method.perturbation(&batch, objective))?;
        let attacked = clock.elapsed();
        let clean_passes = self.experiment.fairness.clean_passes;
        if clean_passes == 2 {
            engine.logits(&Input::View(&views, View::Clean), BatchNormMode::Train)?;
        }
        let before_update = clock.elapsed();
        let sgd = SgdStep { lr, momentum: o.momentum, weight_decay: o.weight_decay };
        let result = engine.train_step(&views, &self.method.loss(), &sgd)?;
        let updated = clock.elapsed();
        if !result.loss.is_finite() {
            return Err(EngineError::NotFinite { what: "loss".into(), batch: labels.len() }.into());
        }
        let counted = &mut self.progress.counted;
        if let Some(counts) = result.confusion(View::Adversarial) {
            counted.robust.add_counts(counts);
        }
        if let (Some(targets), Some(predictions)) = (engine.targets(&views)?, result.predictions(View::Adversarial)) {
            counted.add_targets(&labels, targets, predictions);
        }
        if clean_passes > 0 {
            let logits = engine.logits(&Input::View(&views, View::Clean), BatchNormMode::Train)?;
            let predictions: Vec<u32> = logits.chunks(counted.classes()).map(loss::argmax).collect();
            counted.clean.add_all(&labels, &predictions);
        } else if let Some(counts) = result.confusion(View::Clean) {
            counted.clean.add_counts(counts);
        }
        self.progress.loss_sum += result.loss * labels.len() as f64;
        let statistics = clock.elapsed() - updated + chosen + (before_update - attacked);
        let seconds = &mut self.progress.seconds;
        seconds[1] += (attacked - chosen).as_secs_f64();
        seconds[2] += (updated - before_update).as_secs_f64();
        seconds[3] += statistics.as_secs_f64();
        self.progress.batch += 1;
        Ok((labels.len(), lr))
    }

    /// Clean and robust accuracy on the validation split; none when the observer asks to stop.
    fn validate(&mut self, observer: &mut dyn Observer) -> Result<Option<Validation>, TrainError> {
        let attack = self.evaluation_attack(self.experiment.evaluation.eval_steps);
        let mut results = Vec::new();
        for attack in [Attack::clean(), attack] {
            match self.measure_validation(&attack, observer)? {
                Some(measured) => results.push(measured),
                None => return Ok(None),
            }
        }
        let [clean, robust] = results.try_into().unwrap_or_else(|_| unreachable!("two attacks give two results"));
        Ok(Some(Validation { clean, robust }))
    }

    fn measure_validation(
        &mut self,
        attack: &Attack,
        observer: &mut dyn Observer,
    ) -> Result<Option<Measured>, TrainError> {
        let set = &self.splits.validation;
        let name = attack.to_string();
        let batch_size = self.experiment.evaluation.eval_batch_size;
        let measured = measure(self.engine.as_mut(), set, attack, batch_size, &mut |done| {
            observer.event(&Event::Evaluating { attack: &name, done, total: set.len() });
            !observer.stop()
        })?;
        Ok(measured)
    }

    /// Averages, statistics, rows, best checkpoint: everything between two epochs.
    fn finish_epoch(
        &mut self,
        model: &State,
        validation: &Validation,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let robust = &validation.robust.confusion;
        let averaging = &self.experiment.averaging;
        let begun = epoch >= averaging.average_from;
        let update_ema = begun && averaging.ema;
        let update_fawa = begun && averaging.fawa && robust.worst() >= averaging.fawa_threshold;
        if update_ema {
            self.ema.update(model, averaging.average_decay);
        }
        if update_fawa {
            self.fawa.update(model, averaging.average_decay);
        }
        self.record(validation);
        let row = &self.metrics[self.metrics.len() - 1];
        self.directory.write_rows(&self.metrics, &self.classes)?;
        self.directory.write_confusion(epoch, "train", &self.progress.counted.robust)?;
        self.directory.write_confusion(epoch, "validation", robust)?;
        self.directory.log(&json!({ "event": "epoch", "row": row }))?;
        self.board.epoch(row, &self.classes).map_err(TrainError::TensorBoard)?;
        observer.event(&Event::EpochDone(row));

        // The checkpoint score of CFA and FAIR-TAT, on the validation split instead of the test set.
        let score = robust.accuracy() + robust.worst();
        if self.progress.best.is_none_or(|(best, _)| score > best) {
            self.progress.best = Some((score, epoch));
            self.save_model("best", model, Some(validation))?;
        }
        self.save_model("last", model, Some(validation))?;
        for (name, average, updated) in [("ema", &self.ema, update_ema), ("fawa", &self.fawa, update_fawa)] {
            if let (Some(state), true) = (average.state(), updated) {
                self.save_model(name, state, None)?;
            }
        }

        let f = &self.experiment.fairness;
        if f.freeze_after.is_none_or(|last| epoch <= last) {
            self.progress.statistics = Some(match f.statistics_source {
                StatisticsSource::Training => self.progress.counted.clone(),
                StatisticsSource::Validation => {
                    let mut statistics = ClassStats::new(robust.classes());
                    statistics.robust = robust.clone();
                    statistics
                }
            });
        }
        self.progress.next_epoch();
        Ok(())
    }

    /// Adds the epoch's rows.
    fn record(&mut self, validation: &Validation) {
        let (epoch, counted) = (self.progress.epoch, &self.progress.counted);
        let (clean, robust) = (&validation.clean.confusion, &validation.robust.confusion);
        let measured_clean = counted.clean.total() > 0;
        let o = &self.experiment.optimizer;
        let [seconds, seconds_attack, seconds_update, seconds_statistics] = self.progress.seconds;
        self.metrics.push(MetricsRow {
            epoch,
            lr: o.schedule.lr(o.lr, epoch, o.epochs, self.batches() - 1, self.batches()),
            train_loss: self.progress.loss_sum / counted.robust.total() as f64,
            train_clean_accuracy: measured_clean.then(|| counted.clean.accuracy()),
            train_robust_accuracy: counted.robust.accuracy(),
            val_clean_accuracy: clean.accuracy(),
            val_clean_worst: clean.worst(),
            val_robust_accuracy: robust.accuracy(),
            val_robust_worst: robust.worst(),
            seconds,
            seconds_attack,
            seconds_update,
            seconds_statistics,
        });
        let cfps = match self.experiment.fairness.statistics_source {
            StatisticsSource::Training => counted.robust.cfps(),
            StatisticsSource::Validation => robust.cfps(),
        };
        let (train_robust, train_clean) = (counted.robust.class_accuracy(), counted.clean.class_accuracy());
        let (val_clean, val_robust) = (clean.class_accuracy(), robust.class_accuracy());
        let distribution = self.method.target_distribution();
        for (k, name) in self.splits.train.class_names().iter().enumerate() {
            self.classes.push(ClassRow {
                epoch,
                class: k as u32,
                name: name.clone(),
                epsilon: self.method.class_epsilon()[k],
                target_probability: distribution.map(|d| d.probabilities()[k]),
                cfps: cfps[k],
                train_robust_accuracy: train_robust[k],
                train_clean_accuracy: measured_clean.then(|| train_clean[k]),
                val_clean_accuracy: val_clean[k],
                val_robust_accuracy: val_robust[k],
            });
        }
    }

    /// Writes `checkpoints/NAME.safetensors` and its `.json`.
    fn save_model(&self, name: &str, state: &State, validation: Option<&Validation>) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let train = &self.splits.train;
        let names = serde_json::to_string(train.class_names()).unwrap_or_default();
        let mut metadata = BTreeMap::from([
            ("epoch".to_owned(), epoch.to_string()),
            ("experiment".to_owned(), self.experiment.to_toml()),
            ("class_names".to_owned(), names),
            ("shape".to_owned(), train.shape().to_string()),
        ]);
        if let Some((mean, std)) = setup::normalisation(&self.experiment, train) {
            metadata.insert("mean".to_owned(), serde_json::to_string(&mean).unwrap_or_default());
            metadata.insert("std".to_owned(), serde_json::to_string(&std).unwrap_or_default());
        }
        state.save(&self.directory.checkpoint(name), &metadata)?;
        let o = &self.experiment.optimizer;
        let results = validation.map(
            |v| json!({ "clean": v.clean.report(train.class_names()), "robust": v.robust.report(train.class_names()) }),
        );
        let description = json!({
            "epoch": epoch,
            "architecture": self.experiment.model.arch,
            "parameters": self.engine.network().parameter_count(),
            "class_names": train.class_names(),
            "validation": results,
            "score": validation.map(|v| v.robust.confusion.accuracy() + v.robust.confusion.worst()),
            "optimizer": { "name": "sgd", "momentum": o.momentum, "weight_decay": o.weight_decay, "schedule": o.schedule },
            "rng": { "generator": "philox4x32-10", "seed": self.experiment.run.seed },
            "statistics": self.progress.counted,
        });
        Ok(self.directory.write_json(format!("checkpoints/{name}.json"), &description)?)
    }

    /// Writes the checkpoint that a resume goes on from.
    fn save_checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let path = self.directory.checkpoint("resume");
        let checkpoint = Checkpoint {
            progress: self.progress.clone(),
            engine: self.engine.state()?,
            ema: self.ema.state().cloned(),
            fawa: self.fawa.state().cloned(),
        };
        checkpoint.save(&path)?;
        let (epoch, batch) = (self.progress.epoch, self.progress.batch);
        self.directory.log(&json!({ "event": "checkpoint", "epoch": epoch, "batch": batch }))?;
        observer.event(&Event::Checkpoint { epoch, batch, path: &path });
        Ok(())
    }
}

/// A checksum of all training images and labels, in order.
fn fingerprint(set: &Dataset) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(set.images());
    set.labels().iter().for_each(|label| crc.update(&label.to_le_bytes()));
    crc.sum()
}

/// PGD as an experiment evaluates with it.
pub fn evaluation_attack(experiment: &Experiment, steps: u32) -> Attack {
    let (attack, evaluation) = (&experiment.attack, &experiment.evaluation);
    let epsilon = evaluation.eval_epsilon.unwrap_or(attack.epsilon);
    let step_size = evaluation.eval_step_size.unwrap_or(attack.step_size);
    Attack::pgd(epsilon, step_size, steps, attack.norm, experiment.run.seed)
}

/// Bytes and labels of the images `ids`.
fn gather(set: &Dataset, ids: &[u32]) -> (Vec<u8>, Vec<u32>) {
    let mut pixels = Vec::with_capacity(ids.len() * set.shape().len());
    for &id in ids {
        pixels.extend_from_slice(set.image(id as usize));
    }
    (pixels, ids.iter().map(|id| set.labels()[*id as usize]).collect())
}
