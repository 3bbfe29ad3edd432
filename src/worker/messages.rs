//! The messages to and from the worker.
//!
//! Everything here is plain data, so that a window can be shown, tested and captured without a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cell::{CellImages, CellJob};
use super::inspect::{DecisionMap, Inspection, InspectionJob, MapJob};
use super::seek::{SeekJob, Sought};
use crate::config::{Derived, EngineOptions, Experiment};
use crate::data::{Dataset, ImageShape};
use crate::evaluate::FinalReport;
use crate::fairness::Confusion;
use crate::train::{ClassRow, KeptBest, MetricsRow, Predicted, RunDir};
pub use crate::train::{Examples, Hold};

/// A request to the worker.
#[derive(Debug, Clone)]
pub enum Request {
    /// Begin a run in a new directory.
    Begin {
        /// What to train.
        experiment: Box<Experiment>,
        /// Its directory, which must not hold a run yet, claimed or not.
        directory: RunDir,
        /// Values derived from its data set, for the comment at the top of its config.toml.
        derived: Option<Box<Derived>>,
        /// Open everything, then wait before the first batch.
        paused: bool,
    },
    /// Resume a run from its last checkpoint.
    Resume {
        /// Its directory.
        directory: PathBuf,
        /// Another engine than the run's own; `None` for the run's own.
        engine: Option<EngineOptions>,
        /// Open everything, then wait before the next batch.
        paused: bool,
    },
    /// Pause before the next batch, or within an attack before its next step.
    Pause,
    /// Continue after a pause.
    Continue,
    /// Train on one batch, then pause.
    OneBatch,
    /// Take one step of the attack on the current batch, then pause; after the last step, train on the batch first.
    OneAttackStep,
    /// How fast the run goes from now on.
    Speed(Speed),
    /// End the run after the current operation.
    Stop {
        /// Whether to write a checkpoint first. If not, files of earlier epochs and checkpoints do not change.
        save: bool,
    },
    /// Continue training with another experiment; see [`crate::config::Applies`] for when a field takes effect.
    Change(Box<Experiment>),
    /// Radii set by hand, one entry per class; used from the next batch on.
    Epsilon(Vec<Hold>),
    /// Number of images of the current batch to show, and their highest rate; `None` while they are not visible.
    Examples(Option<ExamplesWish>),
    /// Attack one image and show every step. A newer job replaces one that has not started.
    Inspect(Box<InspectionJob>),
    /// Colour a plane of images by predicted class. A newer job replaces one that has not started.
    Map(Box<MapJob>),
    /// Attack the images of a cell of a statistic, in portions, instead of those that were asked for before; `None` ends
    /// that work.
    Cell(Option<Box<CellJob>>),
    /// Look for a misclassified image; `None` ends a search.
    Seek(Option<Box<SeekJob>>),
    /// Load a checkpoint for inspections, without a run.
    Look {
        /// The checkpoint, or a run directory, whose best checkpoint is used.
        path: PathBuf,
        /// Engine that runs it.
        engine: EngineOptions,
    },
}

/// How fast a run goes: at full speed, or with a least time for one of its parts, so that it can be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speed {
    /// Full speed.
    #[default]
    Full,
    /// An epoch takes at least this time.
    Epoch(Duration),
    /// A batch takes at least this time.
    Batch(Duration),
    /// Every step of the attack is shown for at least this time.
    Step(Duration),
}

impl Speed {
    /// Least time of a step of the attack, of a batch and of an epoch.
    pub(super) fn least(self) -> [Duration; 3] {
        let none = Duration::ZERO;
        match self {
            Self::Full => [none; 3],
            Self::Step(time) => [time, none, none],
            Self::Batch(time) => [none, time, none],
            Self::Epoch(time) => [none, none, time],
        }
    }
}

/// The images of the current batch that a window wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExamplesWish {
    /// Number of images; fewer if the batch has fewer.
    pub count: usize,
    /// Shortest time between two sets.
    pub every: Duration,
}

/// The worker's current activity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Phase {
    /// Idle: there is no run.
    #[default]
    Idle,
    /// Reading the data set.
    LoadingData,
    /// Opening the engine: device, shaders, memory.
    OpeningEngine,
    /// The inner maximisation.
    Attack,
    /// The weight update and statistics.
    Update,
    /// Measuring accuracy under this attack.
    Evaluating(String),
    /// Writing a checkpoint or figures.
    Saving,
    /// Waiting for the user.
    Paused,
}

impl Phase {
    /// A few words for a status bar.
    pub fn describe(&self) -> String {
        match self {
            Self::Idle => "idle".into(),
            Self::LoadingData => "loading data".into(),
            Self::OpeningEngine => "opening the engine, compiling shaders".into(),
            Self::Attack => "attack".into(),
            Self::Update => "update".into(),
            Self::Evaluating(attack) => format!("evaluating {attack}"),
            Self::Saving => "saving".into(),
            Self::Paused => "paused".into(),
        }
    }

    /// The same without the attack of an evaluation, for a place that is shared by all phases of an epoch.
    pub fn short(&self) -> String {
        match self {
            Self::Evaluating(_) => "evaluation".into(),
            phase => phase.describe(),
        }
    }
}

/// Data about a run that has been opened.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run directory; `None` for a checkpoint that was opened only for inspections.
    pub directory: Option<PathBuf>,
    /// The experiment.
    pub experiment: Box<Experiment>,
    /// Engine and device, as text.
    pub engine: String,
    /// Number of parameters of the network.
    pub parameters: usize,
    /// Images trained on.
    pub train: Arc<Dataset>,
    /// Images of the validation split.
    pub validation: Arc<Dataset>,
    /// Test images.
    pub test: Arc<Dataset>,
    /// Completed epochs; of a checkpoint, those of the run that it lies in.
    pub history: Vec<EpochRecord>,
    /// Checkpoints in the run's log: number of completed epochs, with the fraction of the current one.
    pub checkpoints: Vec<f64>,
    /// The best checkpoints of earlier comparisons, oldest first.
    pub kept: Vec<KeptBest>,
    /// The checkpoint, if one was opened only for inspections.
    pub looked: Option<Looked>,
}

/// A checkpoint that was opened for inspections.
#[derive(Debug, Clone, PartialEq)]
pub struct Looked {
    /// The file.
    pub file: PathBuf,
    /// Epochs that the network was trained for, if the file records them.
    pub position: Option<f64>,
}

impl Looked {
    /// The run directory that a checkpoint lies in, by its path; `None` if it lies elsewhere.
    pub fn run_directory(file: &Path) -> Option<&Path> {
        file.parent().filter(|parent| parent.ends_with("checkpoints"))?.parent()
    }
}

impl RunInfo {
    /// Shape of the images.
    pub fn shape(&self) -> ImageShape {
        self.train.shape()
    }

    /// Names of the classes.
    pub fn class_names(&self) -> &[String] {
        self.train.class_names()
    }
}

/// The measurements of one epoch.
#[derive(Debug, Clone)]
pub struct EpochRecord {
    /// Its row of `metrics.csv`.
    pub metrics: MetricsRow,
    /// Its rows of `classes.csv`, one per class.
    pub classes: Vec<ClassRow>,
    /// Counts under the training attack; `None` if the file is missing.
    pub train: Option<Confusion>,
    /// Counts on the validation split under the evaluation attack; `None` if the file is missing.
    pub validation: Option<Confusion>,
    /// What each image was counted as; `None` for an epoch from before the run was opened.
    pub predicted: Option<Arc<Predicted>>,
}

/// Progress of a run after a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchPoint {
    /// Epoch index.
    pub epoch: u32,
    /// Number of epochs.
    pub epochs: u32,
    /// Batches done in this epoch.
    pub done: u32,
    /// Batches in an epoch.
    pub batches: u32,
    /// Images in the batch.
    pub images: usize,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Accuracy under the training attack of the epoch so far.
    pub robust_accuracy: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Seconds of this epoch so far: all, attack, update, statistics.
    pub seconds: [f64; 4],
    /// Radius used for each class, in `[0, 1]` pixel units.
    pub epsilon: Arc<[f64]>,
    /// Radius of each class by the method's rule in this epoch.
    pub rule: Arc<[f64]>,
    /// The distribution of the targets; `None` if targets are not drawn.
    pub targets: Option<Arc<[f64]>>,
}

impl BatchPoint {
    /// Number of completed epochs, with the fraction of the current one.
    pub fn position(&self) -> f64 {
        f64::from(self.epoch) + f64::from(self.done) / f64::from(self.batches.max(1))
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// All epochs are completed and the test set is evaluated.
    Finished(Box<FinalReport>),
    /// Stopped with a checkpoint, so it can be resumed.
    Saved,
    /// Stopped without a checkpoint.
    Discarded,
}

/// An error, with advice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The operation that failed, such as `training` or `opening cat.png`.
    pub doing: String,
    /// The error in one sentence.
    pub what: String,
    /// What the user can do next; `None` if the error itself says all that is known.
    pub advice: Option<String>,
    /// The run that the error ended, if it can be resumed from its last checkpoint.
    pub run: Option<PathBuf>,
}

impl Failure {
    /// What went wrong, and the advice as a sentence of its own.
    pub fn with_advice(&self) -> String {
        let Some(advice) = &self.advice else { return self.what.clone() };
        let stop = if self.what.ends_with(['.', '!', '?', ':']) { "" } else { "." };
        format!("{}{stop} {advice}", self.what)
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.doing, self.with_advice())
    }
}

/// An update from the worker.
#[derive(Debug, Clone)]
pub enum Update {
    /// The activity has changed.
    Phase(Phase),
    /// A run or a checkpoint has been opened.
    Opened(Box<RunInfo>),
    /// A batch is done. Some of these are dropped if the window does not keep up.
    Batch(BatchPoint),
    /// Progress of an evaluation.
    Evaluating {
        /// Images done.
        done: usize,
        /// Images in total.
        total: usize,
    },
    /// An epoch is done.
    Epoch(Box<EpochRecord>),
    /// A checkpoint was written: number of completed epochs, with the fraction of the current one.
    Checkpoint(f64),
    /// The validation attack changed, and the best checkpoint up to then was kept.
    Kept(KeptBest),
    /// The current experiment after a change.
    Changed(Box<Experiment>),
    /// The radii set by hand that are in use.
    Held(Vec<Hold>),
    /// Images of the current batch. Only the newest is kept.
    Examples(Arc<Examples>),
    /// The answer to [`Request::Inspect`].
    Inspected(Arc<Inspection>),
    /// The answer to [`Request::Map`].
    Mapped(Arc<DecisionMap>),
    /// Images for [`Request::Cell`], all that there are so far. Only the newest is kept.
    Cell(Arc<CellImages>),
    /// How far [`Request::Seek`] is. Only the newest is kept.
    Sought(Sought),
    /// A message that does not stop the run.
    Warning(String),
    /// A run ended.
    Ended(Ended),
    /// An operation failed. If it was the run, the run has ended.
    Failed(Failure),
}
