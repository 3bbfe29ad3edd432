//! Opens a run: begins one in a new directory, or resumes one from its last checkpoint.

use std::time::Instant;

use serde_json::json;

use super::best;
use super::live::Written;
use super::{Note, TrainError, Trainer};
use crate::config::{Applies, ConfigError, Experiment};
use crate::data::Dataset;
use crate::engine::{Cancel, Engine, EngineError};
use crate::engines::open_engine_unless;
use crate::model::{ModelError, State};
use crate::train::average::Average;
use crate::train::batches::Batches;
use crate::train::binding::{Differences, HeldOut, checksum};
use crate::train::checkpoint::{Checkpoint, Progress, is_of_later_version};
use crate::train::initial::InitialWeights;
use crate::train::run_dir::RunDir;
use crate::train::setup::{self, Splits};
use crate::train::tensorboard::EventWriter;
use crate::train::{EngineRecord, Predicted, methods};

/// How a run is resumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResumeOptions {
    /// Make an automatic choice of the engine again, instead of the engine that the run began with.
    pub any_engine: bool,
    /// Go on with an experiment or images that are not those of the checkpoint, even if that alters results.
    pub accept_changes: bool,
}

impl Trainer {
    /// Begins a run in a new directory.
    ///
    /// # Errors
    /// If the experiment is invalid, or if data, engine or directory cannot be opened.
    pub fn begin(experiment: Experiment, splits: Splits, directory: RunDir) -> Result<Self, TrainError> {
        Self::begin_unless(experiment, splits, directory, &mut || false)
    }

    /// As [`Self::begin`], unless `stop` asks to stop before the engine is open.
    ///
    /// # Errors
    /// As [`Self::begin`]; [`EngineError::Stopped`].
    pub fn begin_unless(
        experiment: Experiment,
        splits: Splits,
        directory: RunDir,
        stop: Cancel<'_>,
    ) -> Result<Self, TrainError> {
        let network = setup::network(&experiment, &splits.train);
        let initial = InitialWeights::of(&experiment, &network)?;
        let state = match &initial {
            Some(initial) => {
                initial.check(&network)?;
                initial.state.clone()
            }
            None => State::initialise(&network, experiment.run.seed),
        };
        let engine = open_engine_unless(&experiment.run.engine_options(), network, &state, None, stop)?;
        let mut trainer = Self::begin_with(experiment, splits, engine, directory)?;
        if let Some(initial) = initial {
            trainer.directory.write_json("init.json", &initial.record)?;
            trainer.notes.extend(initial.notes.into_iter().map(Note::Problem));
        }
        Ok(trainer)
    }

    /// Begins a run with an existing engine and the parameters in it: fine-tuning, or a network that the experiment
    /// cannot describe. The experiment's network, engine and device are ignored.
    ///
    /// # Errors
    /// As [`Self::begin`], and if the engine's network is not for these images.
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
        let (images, held_out) = (checksum(&splits.train), Some(HeldOut::of(&splits)));
        let start = Progress { images, held_out, ..Progress::start(classes) };
        let began = EngineRecord::of(engine.as_ref());
        let epochs = experiment.optimizer.epochs;
        let trainer = Self::assemble(experiment, splits, engine, directory, start, epochs)?;
        trainer.directory.write_engine(&began)?;
        Ok(trainer)
    }

    /// Resumes a run from its last checkpoint, with the engine that it began with if the choice is automatic.
    ///
    /// # Errors
    /// As [`Self::begin`]; [`TrainError::EngineGone`]; [`TrainError::Changed`]; and if there is no checkpoint or it does
    /// not fit.
    pub fn resume(experiment: Experiment, splits: Splits, directory: RunDir) -> Result<Self, TrainError> {
        Self::resume_unless(experiment, splits, directory, ResumeOptions::default(), &mut || false)
    }

    /// As [`Self::resume`], with options.
    ///
    /// # Errors
    /// As [`Self::resume`].
    pub fn resume_with(
        experiment: Experiment,
        splits: Splits,
        directory: RunDir,
        options: ResumeOptions,
    ) -> Result<Self, TrainError> {
        Self::resume_unless(experiment, splits, directory, options, &mut || false)
    }

    /// As [`Self::resume_with`], unless `stop` asks to stop before the engine is open.
    ///
    /// # Errors
    /// As [`Self::resume`]; [`EngineError::Stopped`].
    pub fn resume_unless(
        experiment: Experiment,
        splits: Splits,
        directory: RunDir,
        options: ResumeOptions,
        stop: Cancel<'_>,
    ) -> Result<Self, TrainError> {
        let path = directory.checkpoint("resume");
        let mut checkpoint = Checkpoint::load(&path).map_err(|error| damaged(error, &directory))?;
        if stop() {
            return Err(EngineError::Stopped.into());
        }
        let Differences { changes, mut notes } =
            Differences::of(&checkpoint, &experiment, &splits, &directory.path().join("log.jsonl"));
        if !changes.is_empty() && !options.accept_changes {
            let path = directory.path().to_path_buf();
            return Err(TrainError::Changed { path, changes: changes.join("; ") });
        }
        if !changes.is_empty() {
            let (epoch, batch) = (checkpoint.progress.epoch, checkpoint.progress.batch);
            directory.log(&json!({ "event": "accepted", "epoch": epoch, "batch": batch, "changes": changes }))?;
        }
        notes.extend(changes);
        let network = setup::network(&experiment, &splits.train);
        let model = &checkpoint.engine.model;
        let (mut engine, problems) =
            setup::reopen_engine(&experiment, network, model, &directory, options.any_engine, stop)?;
        if let Some(name) = checkpoint.not_finite() {
            let what = format!(
                "'{name}' is not finite: the run had diverged when it was saved; begin another run from \
                 checkpoints/best.safetensors with --init and a lower --lr"
            );
            return Err(ModelError::Format { path, what }.into());
        }
        engine.load_state(&checkpoint.engine)?;
        for average in [&checkpoint.ema, &checkpoint.fawa].into_iter().flatten() {
            average.check(engine.network())?;
        }
        best::settle(&mut checkpoint.progress, &directory)?;
        let mut progress = checkpoint.progress;
        // With accepted changes these are the images from now on.
        (progress.images, progress.held_out) = (checksum(&splits.train), Some(HeldOut::of(&splits)));
        let (rows, found) = directory.continue_rows(progress.epoch, splits.train.classes())?;
        // A change was waiting for the next epoch, or was accepted within one: the rest of this one runs without it.
        let recorded = checkpoint.experiment.as_ref();
        let old = progress.this_epoch.as_deref().or(recorded.filter(|_| progress.batch > 0));
        let in_force = old.map_or_else(|| experiment.clone(), |old| experiment.with(old, &[Applies::NextEpoch]));
        if progress.batch == 0 && recorded.is_some_and(|old| old.fairness.method != experiment.fairness.method) {
            progress.forget_method();
        }
        progress.this_epoch = (in_force != experiment).then(|| Box::new(in_force.clone()));
        let epochs = recorded.map_or(experiment.optimizer.epochs, |old| old.optimizer.epochs);
        let saved = (Instant::now(), Some((progress.epoch, progress.batch)));
        let mut trainer = Self::assemble(in_force, splits, engine, directory, progress, epochs)?;
        trainer.wanted = (trainer.experiment != experiment).then_some(experiment);
        trainer.written.experiment = trainer.wanted().clone();
        trainer.notes.splice(0..0, notes.into_iter().map(Note::Fact));
        trainer.notes.extend(problems.into_iter().chain(found).map(Note::Problem));
        trainer.saved = saved;
        (trainer.ema, trainer.fawa) = (Average::new(checkpoint.ema), Average::new(checkpoint.fawa));
        (trainer.metrics, trainer.classes) = rows;
        trainer.restore_checkpoints()?;
        Ok(trainer)
    }

    /// `epochs` is how many epochs the run had when `progress` was written.
    fn assemble(
        experiment: Experiment,
        splits: Splits,
        engine: Box<dyn Engine>,
        directory: RunDir,
        progress: Progress,
        epochs: u32,
    ) -> Result<Self, TrainError> {
        let classes = splits.train.classes();
        check(&experiment, &splits.train)?;
        let o = &experiment.optimizer;
        let batches = Batches::new(splits.train.len(), o.batch_size, o.last_batch);
        batches.check(engine.network())?;
        let impossible = |what| {
            let path = directory.checkpoint("resume");
            damaged(ModelError::Format { path, what }, &directory)
        };
        progress.check(classes, epochs, &batches).map_err(impossible)?;
        let method = methods::build(&experiment, classes);
        if method.needs().validation && progress.batch > 0 && progress.validation.is_none() {
            return Err(impossible("its counts on the validation split are missing".into()));
        }
        if let Some(kernels) = engine.kernels() {
            directory.write_kernels(&kernels)?;
        }
        directory.check()?;
        let notes = directory.unprotected().into_iter().map(Note::Problem).collect();
        let board =
            EventWriter::create(directory.path(), u64::from(progress.epoch)).map_err(TrainError::TensorBoard)?;
        let (wanted, ema, fawa, metrics, classes, watched, warned, warned_of_gradients) = Default::default();
        let written = Written { experiment: experiment.clone(), holds: progress.holds.clone() };
        Ok(Self {
            experiment,
            wanted,
            splits,
            engine,
            method,
            directory,
            progress,
            ema,
            fawa,
            metrics,
            classes,
            board,
            written,
            predicted: Predicted::default(),
            watched,
            warned,
            warned_of_gradients,
            notes,
            saved: (Instant::now(), None),
        })
    }
}

/// The error that `resume.safetensors` cannot be continued from, with what is left of the run. A file that is missing, or that
/// a later version wrote, is not damaged.
fn damaged(error: ModelError, directory: &RunDir) -> TrainError {
    if matches!(error, ModelError::File(_)) || is_of_later_version(&error) {
        return error.into();
    }
    let run = directory.path();
    let again = format!("fairtat train --config {}", run.join("config.toml").display());
    // Only what can be read is recommended.
    let is_whole = |name: &&&str| State::load(&directory.checkpoint(name)).is_ok();
    let advice = match ["best", "last", "ema", "fawa"].iter().find(is_whole) {
        Some(name) => {
            let file = directory.checkpoint(name);
            let file = file.display();
            format!(
                "put back another copy of it; or begin another run from the weights in {file}, which is whole, with `{again} \
                 --init {file}`; `fairtat eval {file}` evaluates them"
            )
        }
        None => format!(
            "put back another copy of it; no other checkpoint of the run can be read: otherwise it has to be trained again, \
             in a new directory, with `{again}`"
        ),
    };
    TrainError::Damaged { error: Box::new(error), advice }
}

/// Checks an experiment, and that it fits images such as those of `set`.
pub(super) fn check(experiment: &Experiment, set: &Dataset) -> Result<(), ConfigError> {
    experiment.validate()?;
    experiment.check_distances(Some(set.shape()))?;
    check_classes(experiment, set.classes())
}

/// Checks that an experiment fits images of `classes` classes.
///
/// # Errors
/// If it names a class that does not exist.
pub fn check_classes(experiment: &Experiment, classes: usize) -> Result<(), ConfigError> {
    if experiment.fairness.fixed_target as usize >= classes {
        let what = format!("expected 0 to {}, found {}", classes - 1, experiment.fairness.fixed_target);
        return Err(ConfigError::Invalid { field: "fairness.fixed_target", what });
    }
    Ok(())
}
