//! What a run tells while it goes on, and where it can be steered. The command line draws progress bars from it, a window
//! its panels.

use std::path::Path;
use std::sync::Arc;

use super::trainer::Live;
use super::{ClassRow, Examples, Hold, KeptBest, MetricsRow, ValidationChange, Watch};
use crate::engine::Engine;
use crate::fairness::Confusion;

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// An epoch begins, or goes on after a resume.
    EpochStarted {
        /// Its index.
        epoch: u32,
        /// Number of epochs.
        epochs: u32,
        /// The batch it begins with.
        batch: u32,
        /// Batches in it.
        batches: u32,
    },
    /// The inner maximisation of a batch begins.
    Attack,
    /// The weight update of a batch begins.
    Update,
    /// Images of the batch under attack, where [`Observer::watch`] asked for them.
    Examples(Arc<Examples>),
    /// A batch was trained on.
    Batch {
        /// Epoch index.
        epoch: u32,
        /// Number of epochs.
        epochs: u32,
        /// Batches done in this epoch.
        done: u32,
        /// Batches in an epoch.
        batches: u32,
        /// Images in the batch.
        images: usize,
        /// Mean loss of this epoch so far.
        loss: f64,
        /// Accuracy under the training attack of this epoch so far.
        robust_accuracy: f64,
        /// Learning rate of the step.
        lr: f64,
        /// Seconds of this epoch so far: all, attack, update, statistics.
        seconds: [f64; 4],
        /// Radius of each class that was in force.
        epsilon: &'a [f64],
        /// Radius of each class by the method's rule.
        rule: &'a [f64],
        /// The distribution that targets were drawn from, where there is one.
        targets: Option<&'a [f64]>,
    },
    /// Images were evaluated.
    Evaluating {
        /// Under which attack, in words.
        attack: &'a str,
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// An epoch is complete.
    EpochDone {
        /// Its row of `metrics.csv`.
        row: &'a MetricsRow,
        /// Its rows of `classes.csv`.
        classes: &'a [ClassRow],
        /// Counts under the training attack.
        train: &'a Confusion,
        /// Counts on the validation split under the evaluation attack.
        validation: &'a Confusion,
    },
    /// The validation attack changed: scores before and after do not compare, and "best" begins anew.
    NewComparison {
        /// What changed.
        change: &'a ValidationChange,
        /// The best checkpoint until then; none where its file is gone.
        kept: Option<&'a KeptBest>,
    },
    /// Radii that are given by hand changed: an epoch ended, and with it those that are not locked.
    Held(&'a [Hold]),
    /// A checkpoint or figures are about to be written.
    Saving,
    /// A checkpoint was written.
    Checkpoint {
        /// The epoch that runs next, or goes on.
        epoch: u32,
        /// Its next batch.
        batch: u32,
        /// Batches in an epoch.
        batches: u32,
        /// The file.
        path: &'a Path,
    },
    /// Something that the user should know but that does not stop the run.
    Warning(&'a str),
}

/// Somebody who watches a run and may steer or end it.
///
/// Whoever does nothing but watch changes no result: what [`Observer::watch`] asks for leaves no trace in the engine, and
/// an attack that is run step by step finds the same images up to rounding. Time that passes in here is not counted as
/// the run's.
pub trait Observer {
    /// Called for every event, on the thread that trains: it must not block.
    fn event(&mut self, event: &Event<'_>);

    /// Whether the run should end after the current batch, with a checkpoint.
    fn stop(&self) -> bool {
        false
    }

    /// Whether the run should end now and write nothing more.
    fn discard(&self) -> bool {
        false
    }

    /// Called before every batch. It may block.
    fn between(&mut self, _live: &mut Live<'_>) {}

    /// What is to be seen of the attack; asked before it, and after each step of one that runs step by step.
    fn watch(&self) -> Watch {
        Watch::default()
    }

    /// Called after each step of an attack that runs step by step, with the number of steps done and in all; first with 0
    /// at its start. It may block.
    fn stepped(&mut self, _live: &mut Live<'_>, _step: (u32, u32)) {}

    /// Called before every batch of an evaluation. It may block. It is given the network and the epochs that it has been
    /// trained for, unless an average or an earlier network stands in for it.
    fn wait(&mut self, _network: Option<(&mut dyn Engine, f64)>) {}
}

/// Watches nothing.
impl Observer for () {
    fn event(&mut self, _event: &Event<'_>) {}
}
