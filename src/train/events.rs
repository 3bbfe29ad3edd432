//! Events that a run reports, and the points at which it can be steered. The command line draws progress bars from
//! them, the window its panels.

use std::path::Path;
use std::sync::Arc;

use super::trainer::Live;
use super::{ClassRow, Examples, KeptBest, MetricsRow, Predicted, ValidationChange, WatchRequest};
use crate::engine::Engine;
use crate::fairness::Confusion;

/// An event of a run.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// An epoch begins, or continues after a resume.
    EpochStarted {
        /// Its index.
        epoch: u32,
        /// Number of epochs.
        epochs: u32,
        /// The first batch.
        batch: u32,
        /// Batches in it.
        batches: u32,
    },
    /// The inner maximisation of a batch begins.
    Attack,
    /// The weight update of a batch begins.
    Update,
    /// Images of the batch under attack, if [`Observer::watch`] asked for them.
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
        /// Radius of each class that was used.
        epsilon: &'a [f64],
        /// Radius of each class by the method's rule.
        rule: &'a [f64],
        /// The distribution that targets were drawn from, if any.
        targets: Option<&'a [f64]>,
    },
    /// Images were evaluated.
    Evaluating {
        /// The attack, in words.
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
        /// What each image was counted as.
        predicted: &'a Predicted,
    },
    /// The validation attack changed: scores before and after are not comparable, and the search for the best epoch
    /// restarts.
    NewComparison {
        /// What changed.
        change: &'a ValidationChange,
        /// The best checkpoint until then; `None` if its file is missing.
        kept: Option<&'a KeptBest>,
    },
    /// A checkpoint or figures are about to be written.
    Saving,
    /// A checkpoint was written.
    Checkpoint {
        /// The epoch that a resume begins or continues with.
        epoch: u32,
        /// Its next batch.
        batch: u32,
        /// Batches in an epoch.
        batches: u32,
        /// The file.
        path: &'a Path,
    },
    /// A fact about the run that users should know.
    Note(&'a str),
    /// A problem that does not stop the run.
    Warning(&'a str),
}

/// Watches a run and may steer or end it.
///
/// Watching alone does not change any result: the requests of [`Observer::watch`] leave the engine's state unchanged,
/// and an attack that runs step by step finds the same images. Time spent in an observer is not counted
/// as time of the run.
pub trait Observer {
    /// Called for every event, on the training thread. It must not block.
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

    /// What the observer wants to see of the attack. Called before each attack, and after each step of one that runs
    /// step by step.
    fn watch(&self) -> WatchRequest {
        WatchRequest::default()
    }

    /// Called after each step of an attack that runs step by step, with the number of steps done and in all; first at
    /// its start, with 0 steps done. It may block.
    fn stepped(&mut self, _live: &mut Live<'_>, _step: (u32, u32)) {}

    /// Called before every batch of an evaluation. It may block. Its argument is the network and the number of epochs
    /// that it has been trained for; `None` if the engine holds an average or an earlier network.
    fn wait(&mut self, _network: Option<(&mut dyn Engine, f64)>) {}
}

/// An observer that does nothing.
impl Observer for () {
    fn event(&mut self, _event: &Event<'_>) {}
}
