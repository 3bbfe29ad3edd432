//! Steering a run in progress: radii set by hand, changes of the experiment.

use serde_json::json;

use super::{TrainError, Trainer};
use crate::config::{Applies, ConfigError, Difference, Experiment};
use crate::engine::{Engine, EngineError, Norm, SetAside, Views};
use crate::train::{Hold, Progress, Splits, methods};

/// Access to a run between two batches, or between two steps of an attack.
pub struct Live<'a> {
    trainer: &'a mut Trainer,
    /// The search that is paused between two steps, if any.
    search: Option<Views>,
    /// The same search, set aside because the engine was handed out.
    set_aside: Option<SetAside>,
}

/// The outcome of a change of the experiment.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// Fields that were accepted; they take effect now or with the next epoch.
    pub taken: Vec<Difference>,
    /// Fields that only take effect in a new run.
    pub ignored: Vec<Difference>,
}

impl<'a> Live<'a> {
    pub(super) fn between_batches(trainer: &'a mut Trainer) -> Self {
        Self { trainer, search: None, set_aside: None }
    }

    pub(super) fn within_a_batch(trainer: &'a mut Trainer, search: Views) -> Self {
        Self { trainer, search: Some(search), set_aside: None }
    }

    /// The interrupted search, if the engine was handed out.
    pub(super) fn into_set_aside(self) -> Option<SetAside> {
        self.set_aside
    }

    /// The engine, for any work that leaves parameters and running statistics unchanged. That includes other searches:
    /// the current one is set aside first.
    ///
    /// # Errors
    /// If the engine cannot set the search aside.
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

    /// Progress of the run.
    pub fn progress(&self) -> &Progress {
        &self.trainer.progress
    }

    /// Completed epochs plus the fraction of the current one.
    pub fn position(&self) -> f64 {
        self.trainer.position()
    }

    /// Sets radii by hand, one entry for each class, from the next batch on.
    ///
    /// # Errors
    /// If an entry is not a valid radius, or if their number is not that of the classes. Nothing is changed then.
    pub fn hold(&mut self, holds: Vec<Hold>) -> Result<(), ConfigError> {
        self.trainer.hold(holds)
    }

    /// Continues with another experiment; [`Applies`] says when each field takes effect. Before the first batch of an
    /// epoch, that epoch counts as the next one.
    ///
    /// # Errors
    /// If the new experiment is invalid. Nothing is changed then.
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

    /// Completed epochs plus the fraction of the current one.
    pub fn position(&self) -> f64 {
        f64::from(self.progress.epoch) + f64::from(self.progress.batch) / f64::from(self.batches().max(1))
    }

    /// Radius of each class: set by hand if it is held, else by the method's rule.
    pub fn radii(&self) -> Vec<f64> {
        let held = |k: usize| self.progress.holds.get(k).and_then(|hold| hold.epsilon);
        self.method.class_epsilon().iter().enumerate().map(|(k, rule)| held(k).unwrap_or(*rule)).collect()
    }

    fn hold(&mut self, holds: Vec<Hold>) -> Result<(), ConfigError> {
        let classes = self.splits.train.classes();
        let fail = |what: String| Err(ConfigError::Invalid { field: "attack.epsilon", what });
        if holds.len() != classes {
            return fail(format!("expected one radius for each of the {classes} classes, found {}", holds.len()));
        }
        let largest = match self.experiment.attack.norm {
            Norm::Linf => 1.0,
            // The diameter of the unit cube.
            Norm::L2 => (self.splits.train.shape().len() as f64).sqrt(),
        };
        if let Some(bad) = holds.iter().filter_map(|hold| hold.epsilon).find(|e| !(0.0..=largest).contains(e)) {
            return fail(format!("expected a radius between 0 and {largest}, found {bad}"));
        }
        // Stored as if there were none: the checkpoints then have the same bytes as those of a run without holds.
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
        super::opening::check(&wanted, &self.splits.train)?;
        let epoch = self.progress.epoch;
        let epochs = self.wanted().optimizer.epochs;
        if wanted.optimizer.epochs != epochs && wanted.optimizer.epochs <= epoch {
            let what = format!("expected at least {}, the current epoch, found {}", epoch + 1, wanted.optimizer.epochs);
            return Err(ConfigError::Invalid { field: "optimizer.epochs", what });
        }
        self.put_in_force(wanted, epoch_begun);
        Ok(change)
    }

    /// Replaces the experiment: all of it, or, once the epoch has begun, only the fields that take effect within an
    /// epoch.
    pub(super) fn put_in_force(&mut self, wanted: Experiment, epoch_begun: bool) {
        let before = self.experiment.fairness.method;
        self.experiment = if epoch_begun { self.experiment.with(&wanted, &[Applies::Now]) } else { wanted.clone() };
        self.wanted = (wanted != self.experiment).then_some(wanted);
        self.progress.this_epoch = self.wanted.is_some().then(|| Box::new(self.experiment.clone()));
        if self.experiment.fairness.method != before {
            self.progress.forget_method();
        }
        self.method = methods::build(&self.experiment, self.splits.train.classes());
        self.plan();
    }

    /// Writes the changes made by hand since the last call: rewrites config.toml and adds a line to the log. Called
    /// when a change takes effect, so that dragging a slider leaves one line.
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

/// The state of changes by hand that config.toml and the log already hold.
pub(super) struct Written {
    pub(super) experiment: Experiment,
    pub(super) holds: Vec<Hold>,
}
