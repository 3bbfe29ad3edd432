//! What a run tells while it goes on. The command line draws progress bars from it, a window its panels.

use std::path::Path;

use super::MetricsRow;

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
    /// A batch was trained on.
    Batch {
        /// Epoch index.
        epoch: u32,
        /// Batches done in this epoch.
        done: u32,
        /// Images in the batch.
        images: usize,
        /// Mean loss of this epoch so far.
        loss: f64,
        /// Accuracy under the training attack of this epoch so far.
        robust_accuracy: f64,
        /// Learning rate of the step.
        lr: f64,
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
    EpochDone(&'a MetricsRow),
    /// A checkpoint was written.
    Checkpoint {
        /// The epoch that runs next, or goes on.
        epoch: u32,
        /// Its next batch.
        batch: u32,
        /// The file.
        path: &'a Path,
    },
    /// Something that the user should know but that does not stop the run.
    Warning(&'a str),
}

/// Somebody who watches a run and may end it.
pub trait Observer {
    /// Called for every event, on the thread that trains: it must not block.
    fn event(&mut self, event: &Event<'_>);

    /// Whether the run should end after the current batch, with a checkpoint.
    fn stop(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Observer for () {
    fn event(&mut self, _event: &Event<'_>) {}
}
