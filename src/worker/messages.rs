//! What goes into the worker and what comes out.
//!
//! Everything here is plain data, so that a window can be shown, tested and photographed without a run behind it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::inspect::{DecisionMap, Inspection, InspectionJob, MapJob};
use crate::config::{Derived, EngineOptions, Experiment};
use crate::data::{Dataset, ImageShape};
use crate::evaluate::FinalReport;
use crate::fairness::Confusion;
use crate::train::{ClassRow, KeptBest, MetricsRow};
pub use crate::train::{Examples, Hold};

/// What the worker is asked for.
#[derive(Debug, Clone)]
pub enum Request {
    /// Begin a run in a new directory.
    Begin {
        /// What to train.
        experiment: Box<Experiment>,
        /// Its directory, which must hold no run yet.
        directory: PathBuf,
        /// What it has from its data set, for the head of its config.toml.
        derived: Option<Box<Derived>>,
        /// Open everything, then wait before the first batch.
        paused: bool,
    },
    /// Go on with a run from its last checkpoint.
    Resume {
        /// Its directory.
        directory: PathBuf,
        /// Another engine than the run's own.
        engine: Option<EngineOptions>,
        /// Open everything, then wait before the next batch.
        paused: bool,
    },
    /// Wait before the next batch, or within an attack before its next step.
    Pause,
    /// Go on after a pause.
    Continue,
    /// Train on one batch, then wait.
    OneBatch,
    /// Take one step of the attack on the current batch, then wait; after the last step the batch is trained on.
    OneAttackStep,
    /// Slow motion: show every step of the attack, each for at least this long; zero for full speed.
    Slow(Duration),
    /// End the run after what is under way.
    Stop {
        /// Whether to write a checkpoint first. Without one, files of earlier epochs and checkpoints stay as they are.
        save: bool,
    },
    /// Train on with another experiment; see [`crate::config::Applies`] for when a field takes effect.
    Change(Box<Experiment>),
    /// Radii given by hand, one entry for each class; in force from the next batch.
    Epsilon(Vec<Hold>),
    /// How many images of the current batch to show, and how often at most; none while nobody looks.
    Examples(Option<ExamplesWish>),
    /// Attack one image and show every step. A newer job replaces one that has not begun.
    Inspect(Box<InspectionJob>),
    /// Colour a plane of images by predicted class. A newer job replaces one that has not begun.
    Map(Box<MapJob>),
    /// Load a checkpoint for looking at, without a run.
    Look {
        /// The checkpoint, or a run directory, of which the best is taken.
        path: PathBuf,
        /// Engine that runs it.
        engine: EngineOptions,
    },
}

/// Which images of the current batch a window wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExamplesWish {
    /// Number of images; fewer where the batch has fewer.
    pub count: usize,
    /// Least time from one set to the next.
    pub every: Duration,
}

/// What the worker is doing, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Phase {
    /// Nothing: there is no run.
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
    /// Measuring accuracy; under which attack.
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
}

/// What is known of a run when it has been opened.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// The run directory; none for a checkpoint that is only looked at.
    pub directory: Option<PathBuf>,
    /// The experiment.
    pub experiment: Box<Experiment>,
    /// Engine and device in words.
    pub engine: String,
    /// Parameters of the network.
    pub parameters: usize,
    /// Images trained on.
    pub train: Arc<Dataset>,
    /// Images of the validation split.
    pub validation: Arc<Dataset>,
    /// Test images.
    pub test: Arc<Dataset>,
    /// Epochs that are done already.
    pub history: Vec<EpochRecord>,
    /// Checkpoints known from the run's log: epochs done, with the fraction of the one that was under way.
    pub checkpoints: Vec<f64>,
    /// The best checkpoints of earlier comparisons, oldest first.
    pub kept: Vec<KeptBest>,
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

/// What one epoch measured.
#[derive(Debug, Clone)]
pub struct EpochRecord {
    /// Its row of `metrics.csv`.
    pub metrics: MetricsRow,
    /// Its rows of `classes.csv`, one a class.
    pub classes: Vec<ClassRow>,
    /// Counts under the training attack; none where the file is gone.
    pub train: Option<Confusion>,
    /// Counts on the validation split under the evaluation attack; none where the file is gone.
    pub validation: Option<Confusion>,
}

/// Where a run stands, after every batch.
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
    /// Radius of each class that was in force, in `[0, 1]` pixel units.
    pub epsilon: Arc<[f64]>,
    /// What the method's rule says for each class in this epoch.
    pub rule: Arc<[f64]>,
    /// The distribution that targets are drawn from, where there is one.
    pub targets: Option<Arc<[f64]>>,
}

impl BatchPoint {
    /// Epochs done, with the fraction of the one that is under way.
    pub fn position(&self) -> f64 {
        f64::from(self.epoch) + f64::from(self.done) / f64::from(self.batches.max(1))
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// All epochs are done and the test set is evaluated.
    Finished(Box<FinalReport>),
    /// Stopped with a checkpoint: it can be resumed.
    Saved,
    /// Stopped without one.
    Discarded,
}

/// Something that went wrong, and what can be done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done, such as `training` or `opening cat.png`.
    pub doing: String,
    /// The error in one sentence.
    pub what: String,
    /// What the user may do next, if more is known than the error says.
    pub advice: Option<String>,
    /// The run that it ended, which can be resumed from its last checkpoint.
    pub run: Option<PathBuf>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.doing, self.what)?;
        self.advice.as_ref().map_or(Ok(()), |advice| write!(f, " {advice}"))
    }
}

/// What the worker tells.
#[derive(Debug, Clone)]
pub enum Update {
    /// It does something else now.
    Phase(Phase),
    /// A run or a checkpoint has been opened.
    Opened(Box<RunInfo>),
    /// A batch is done. Some may be left out where the window does not keep up.
    Batch(BatchPoint),
    /// Images of an evaluation are done.
    Evaluating {
        /// Images done.
        done: usize,
        /// Images in all.
        total: usize,
    },
    /// An epoch is done.
    Epoch(Box<EpochRecord>),
    /// A checkpoint was written: epochs done, with the fraction of the one under way.
    Checkpoint(f64),
    /// The validation attack changed, and the best checkpoint until then was kept.
    Kept(KeptBest),
    /// The experiment that is in force, after a change.
    Changed(Box<Experiment>),
    /// Radii given by hand that are in force.
    Held(Vec<Hold>),
    /// Images of the current batch. Only the newest is kept.
    Examples(Arc<Examples>),
    /// The answer to [`Request::Inspect`].
    Inspected(Arc<Inspection>),
    /// The answer to [`Request::Map`].
    Mapped(Arc<DecisionMap>),
    /// Something that the user should know but that does not stop the run.
    Warning(String),
    /// A run ended.
    Ended(Ended),
    /// Something failed. If it was the run, it is over.
    Failed(Failure),
}
