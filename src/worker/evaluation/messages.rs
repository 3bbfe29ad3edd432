//! The messages from the evaluation thread. Everything is plain data, as in the messages of the worker.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::{EvaluationJob, Prospect};
use crate::data::ImageShape;
use crate::evaluate::robustness::{Described, Entry, Evaluation, Fallen};
use crate::worker::Failure;
use crate::worker::mailbox::Queued;

/// An update from the evaluation thread. `checkpoint` counts the checkpoints of the job.
#[derive(Debug, Clone)]
pub enum EvaluationUpdate {
    /// The answer to [`super::Evaluator::look`].
    Prospect(Arc<Prospect>),
    /// A job has been started.
    Started(Box<EvaluationJob>),
    /// What is being done for a checkpoint, beside attacks.
    Stage {
        /// The checkpoint.
        checkpoint: usize,
        /// The activity.
        stage: EvaluationStage,
    },
    /// The attacks on a checkpoint begin.
    Began(Box<Began>),
    /// An attack goes on. Some of these are dropped if the window does not keep up.
    Progress(AttackProgress),
    /// A checkpoint is evaluated, and its report is written.
    Finished(Arc<FinishedEvaluation>),
    /// A few images that fell to an attack.
    Fallen(Arc<FallenImages>),
    /// A checkpoint cannot be evaluated; the next one follows.
    Failed {
        /// The checkpoint.
        checkpoint: usize,
        /// Why.
        failure: Failure,
    },
    /// The job is over.
    Ended(EvaluationEnd),
}

/// What is being done for a checkpoint beside attacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationStage {
    /// Reading checkpoint and data set.
    LoadingData,
    /// Opening the engine.
    OpeningEngine,
    /// Writing the report.
    Saving,
    /// Attacking a few images again, to show them.
    Examples,
}

impl EvaluationStage {
    /// A few words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::LoadingData => "loading data",
            Self::OpeningEngine => "opening the engine, compiling shaders",
            Self::Saving => "writing the report",
            Self::Examples => "collecting adversarial examples",
        }
    }
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationEnd {
    /// All checkpoints are evaluated, or have failed.
    Done,
    /// Cancelled; finished batches are kept.
    Cancelled,
}

/// What is known when the attacks on a checkpoint begin.
#[derive(Debug, Clone)]
pub struct Began {
    /// The checkpoint.
    pub checkpoint: usize,
    /// Directory of the report.
    pub directory: PathBuf,
    /// Network, images, engine, ball.
    pub described: Described,
    /// The attacks.
    pub entries: Vec<Entry>,
    /// Number of images.
    pub images: usize,
    /// Why an attack is weaker than its radius suggests.
    pub warnings: Vec<String>,
}

/// Where an attack is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttackProgress {
    /// The checkpoint.
    pub checkpoint: usize,
    /// The attack's place in the plan.
    pub entry: usize,
    /// Images that it attacks.
    pub images: usize,
    /// How many of them are done; the batch at work counts in part.
    pub done: f64,
    /// How many images have withstood it or are still to come.
    pub standing: usize,
    /// Time since it began.
    pub seconds: f64,
    /// Images per second, without those that an earlier evaluation had finished; `None` if not known yet.
    pub rate: Option<f64>,
}

impl AttackProgress {
    /// Seconds that are left; `None` if there is no basis for an estimate.
    pub fn eta_secs(&self) -> Option<f64> {
        self.rate.filter(|rate| *rate > 0.0).map(|rate| (self.images as f64 - self.done).max(0.0) / rate)
    }

    /// Whether all images are done.
    pub fn is_done(&self) -> bool {
        self.done >= self.images as f64
    }
}

/// A checkpoint's evaluation.
#[derive(Debug, Clone)]
pub struct FinishedEvaluation {
    /// The checkpoint.
    pub checkpoint: usize,
    /// Directory of the report.
    pub directory: PathBuf,
    /// What was evaluated.
    pub described: Described,
    /// The verdicts.
    pub evaluation: Evaluation,
}

/// A few images that fell to an attack.
#[derive(Debug, Clone)]
pub struct FallenImages {
    /// The checkpoint.
    pub checkpoint: usize,
    /// The attack's place in the plan.
    pub entry: usize,
    /// Shape of the images.
    pub shape: ImageShape,
    /// The images.
    pub images: Vec<Fallen>,
}

impl Queued for EvaluationUpdate {
    fn supersede(&self, waiting: &mut VecDeque<Self>) {
        match self {
            Self::Prospect(_) => waiting.retain(|old| !matches!(old, Self::Prospect(_))),
            Self::Progress(new) => waiting.retain(
                |old| !matches!(old, Self::Progress(old) if (old.checkpoint, old.entry) == (new.checkpoint, new.entry)),
            ),
            Self::Stage { .. } => waiting.retain(|old| !matches!(old, Self::Stage { .. })),
            _ => {}
        }
    }
}
