//! Steering a run while it goes on: radii by hand, another experiment.

use serde_json::json;

use super::{TrainError, Trainer};
use crate::config::{Applies, ConfigError, Difference, Experiment};
use crate::engine::{Engine, EngineError, Norm, SetAside, Views};
use crate::train::methods::Memory;
use crate::train::{Hold, Progress, Splits, methods};

/// A run between two batches, or between two steps of an attack.
pub struct Live<'a> {
    trainer: &'a mut Trainer,
    /// The search that waits between two steps, if there is one.
    search: Option<Views>,
    /// The same search, once the engine was handed out.
    set_aside: Option<SetAside>,
}

/// What became of a change of the experiment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// Fields that were taken over, now or for the next epoch.
    pub taken: Vec<Difference>,
    /// Fields that only a new run can take over.
    pub ignored: Vec<Difference>,
}

impl<'a> Live<'a> {
    pub(super) fn between_batches(trainer: &'a mut Trainer) -> Self {
        Self { trainer, search: None, set_aside: None }
    }

    pub(super) fn within_a_batch(trainer: &'a mut Trainer, search: Views) -> Self {
        Self { trainer, search: Some(search), set_aside: None }
    }

    /// The search that was interrupted, if the engine was handed out.
    pub(super) fn into_set_aside(self) -> Option<SetAside> {
        self.set_aside
    }

    /// The engine, for whatever leaves parameters and running statistics as they are: other searches included, for which
    /// the one under way is set aside.
    ///
    /// # Errors
    /// When the engine cannot set the search aside.
    pub fn engine(&mut self) -> Result<&mut dyn Engine, EngineError> {
        if let (Some(views), None) = (&self.search, &self.set_aside) {
            self.set_aside = Some(self.trainer.engine.set_aside(views)?);
        }
        Ok(self.trainer.engine.as_mut())
    }

    /// The experiment, with changes that wait for the next epoch.
    pub fn experiment(&self) -> &Experiment {
        self.trainer.wanted()
    }

    /// The images.
    pub fn splits(&self) -> &Splits {
        &self.trainer.splits
    }

    /// Where the run stands.
    pub fn progress(&self) -> &Progress {
        &self.trainer.progress
    }

    /// Epochs done, with the fraction of the one that is under way.
    pub fn position(&self) -> f64 {
        self.trainer.position()
    }

    /// Gives radii by hand, one entry for each class, from the next batch on.
    ///
    /// # Errors
    /// When an entry is no radius or there are too few. Nothing is changed then.
    pub fn hold(&mut self, holds: Vec<Hold>) -> Result<(), ConfigError> {
        self.trainer.hold(holds)
    }

    /// Trains on with another experiment; [`Applies`] says when each field takes effect. Before the first batch of an
    /// epoch that epoch is the next.
    ///
    /// # Errors
    /// When the new experiment is invalid. Nothing is changed then.
    pub fn change(&mut self, new: &Experiment) -> Result<Change, ConfigError> {
        let begun = self.search.is_some() || self.trainer.progress.batch > 0;
        self.trainer.change(new, begun)
    }
}

impl Trainer {
    /// The experiment, with changes that wait for the next epoch.
    pub fn wanted(&self) -> &Experiment {
        self.wanted.as_ref().unwrap_or(&self.experiment)
    }

    /// Epochs done, with the fraction of the one that is under way.
    pub fn position(&self) -> f64 {
        f64::from(self.progress.epoch) + f64::from(self.progress.batch) / f64::from(self.batches().max(1))
    }

    /// Radius of each class: by hand where it is held, else by the method's rule.
    pub fn radii(&self) -> Vec<f64> {
        let held = |k: usize| self.progress.holds.get(k).and_then(|hold| hold.epsilon);
        self.method.class_epsilon().iter().enumerate().map(|(k, rule)| held(k).unwrap_or(*rule)).collect()
    }

    fn hold(&mut self, holds: Vec<Hold>) -> Result<(), ConfigError> {
        let classes = self.splits.train.classes();
        let fail = |what: String| Err(ConfigError::Invalid { field: "attack.epsilon", what });
        if holds.len() != classes {
            return fail(format!("expected a radius by hand for each of {classes} classes, found {}", holds.len()));
        }
        let largest = match self.experiment.attack.norm {
            Norm::Linf => 1.0,
            // The diameter of the box.
            Norm::L2 => (self.splits.train.shape().len() as f64).sqrt(),
        };
        if let Some(bad) = holds.iter().filter_map(|hold| hold.epsilon).find(|e| !(0.0..=largest).contains(e)) {
            return fail(format!("expected a radius by hand between 0 and {largest}, found {bad}"));
        }
        // As a run without any: its checkpoints stay the same to the byte.
        let holds = if holds.iter().all(|hold| *hold == Hold::default()) { Vec::new() } else { holds };
        self.progress.holds = holds;
        Ok(())
    }

    fn change(&mut self, new: &Experiment, epoch_begun: bool) -> Result<Change, ConfigError> {
        new.validate()?;
        let (taken, ignored) = self.wanted().differences(new).into_iter().partition(|d| d.applies != Applies::Restart);
        let change = Change { taken, ignored };
        if change.taken.is_empty() {
            return Ok(change);
        }
        let wanted = self.wanted().with(new, &[Applies::Now, Applies::NextEpoch]);
        super::check(&wanted, &self.splits.train)?;
        let epoch = self.progress.epoch;
        let epochs = self.wanted().optimizer.epochs;
        if wanted.optimizer.epochs != epochs && wanted.optimizer.epochs <= epoch {
            let what =
                format!("expected at least {}, the epoch under way, found {}", epoch + 1, wanted.optimizer.epochs);
            return Err(ConfigError::Invalid { field: "optimizer.epochs", what });
        }
        self.put_in_force(wanted, epoch_begun);
        Ok(change)
    }

    /// Replaces the experiment: all of it, or once the epoch has begun what takes effect within one.
    pub(super) fn put_in_force(&mut self, wanted: Experiment, epoch_begun: bool) {
        let before = self.experiment.fairness.method;
        self.experiment = if epoch_begun { self.experiment.with(&wanted, &[Applies::Now]) } else { wanted.clone() };
        self.wanted = (wanted != self.experiment).then_some(wanted);
        self.progress.this_epoch = self.wanted.is_some().then(|| Box::new(self.experiment.clone()));
        if self.experiment.fairness.method != before {
            // Another method has nothing to do with what this one remembers.
            self.progress.memory = Memory::default();
        }
        self.method = methods::build(&self.experiment, self.splits.train.classes());
        self.plan();
    }

    /// Writes what was changed by hand since the last time: config.toml anew, and a line in the log. Called when it takes
    /// effect, so that a slider on its way through many values leaves one line.
    pub(super) fn write_changes(&mut self) -> Result<(), TrainError> {
        let (epoch, batch) = (self.progress.epoch, self.progress.batch);
        if self.written.holds != self.progress.holds {
            let (old, new) = (&self.written.holds, &self.progress.holds);
            self.directory.log(&json!({ "event": "hold", "epoch": epoch, "batch": batch, "old": old, "new": new }))?;
            self.written.holds.clone_from(&self.progress.holds);
        }
        let wanted = self.wanted().clone();
        let fields: Vec<_> = self.written.experiment.differences(&wanted);
        if !fields.is_empty() {
            self.directory.change_config(&wanted, epoch, batch)?;
            let field = |d: &Difference| json!({ "field": d.path, "old": d.old, "new": d.new });
            let fields: Vec<_> = fields.iter().map(field).collect();
            self.directory.log(&json!({ "event": "change", "epoch": epoch, "batch": batch, "fields": fields }))?;
            self.written.experiment = wanted;
        }
        Ok(())
    }
}

/// What config.toml and the log say of changes by hand.
pub(super) struct Written {
    pub(super) experiment: Experiment,
    pub(super) holds: Vec<Hold>,
}
