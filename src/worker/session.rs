//! A run from its description to its report. The command line and the window both come through here.

use std::path::{Path, PathBuf};

use crate::config::{ConfigError, Derived, EngineOptions, Experiment};
use crate::data::DataError;
use crate::evaluate::{self, FinalReport, ReportError};
use crate::train::{Observer, Outcome, RunDir, RunDirError, Splits, TrainError, Trainer};

/// What to run.
#[derive(Debug, Clone)]
pub enum RunStart {
    /// An experiment, in a directory that holds no run yet.
    New {
        /// What to train.
        experiment: Box<Experiment>,
        /// Its directory.
        directory: PathBuf,
        /// What it has from its data set, for the head of its config.toml.
        derived: Option<Box<Derived>>,
    },
    /// An earlier run, from its last checkpoint; from its beginning where it has none.
    Resume {
        /// Its directory.
        directory: PathBuf,
        /// Another engine than the run's own. Its config.toml stays as it is. Without, an automatic choice is the engine
        /// that the run began with.
        engine: Option<EngineOptions>,
    },
}

impl RunStart {
    /// The run directory.
    pub fn directory(&self) -> &Path {
        match self {
            Self::New { directory, .. } | Self::Resume { directory, .. } => directory,
        }
    }
}

/// What a run is at, apart from training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// Reading a data set.
    LoadingData(&'a str),
    /// The run was stopped before its first checkpoint: it begins anew.
    BeginningAnew(&'a Path),
    /// Opening the engine and the run directory.
    OpeningEngine,
    /// Training is over; the test set is next.
    Testing,
}

/// Somebody who watches a run from before there is one.
pub trait Host: Observer {
    /// The run comes to another stage.
    fn stage(&mut self, _stage: Stage<'_>) {}

    /// Everything is open; training is next.
    fn opened(&mut self, _trainer: &mut Trainer) {}
}

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// All epochs are done and the test set is evaluated.
    Finished(Box<FinalReport>),
    /// Stopped, in training or in the evaluation after it, with a checkpoint.
    Stopped,
    /// Stopped without a new one.
    Discarded,
}

/// Why a run could not begin, or ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The experiment contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The directory of the data set is no path.
    #[error("data.path: {0}")]
    Path(std::io::Error),
    /// There are no images.
    #[error("data set '{name}'")]
    Data {
        /// The data set.
        name: String,
        /// Why.
        source: DataError,
    },
    /// The run directory cannot be used.
    #[error(transparent)]
    Directory(#[from] RunDirError),
    /// A new run does not begin. Its directory is given up again.
    #[error(transparent)]
    Begin(TrainError),
    /// An earlier run does not go on.
    #[error("{path} cannot be resumed")]
    Resume {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: TrainError,
    },
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The evaluation at the end failed.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Opens everything, trains, evaluates and writes the report. Gives how that ended, and what there is to look at.
///
/// # Errors
/// When something cannot be opened, or fails on the way; the last checkpoint stays as it was.
pub fn run(start: RunStart, host: &mut dyn Host) -> Result<(Ending, Trainer), SessionError> {
    let mut trainer = open(start, host)?;
    host.opened(&mut trainer);
    match trainer.run(host)? {
        Outcome::Finished => {}
        Outcome::Stopped => return Ok((Ending::Stopped, trainer)),
        Outcome::Discarded => return Ok((Ending::Discarded, trainer)),
    }
    host.stage(Stage::Testing);
    let ending = match evaluate::finish(&mut trainer, host)? {
        Some(report) => Ending::Finished(Box::new(report)),
        None if host.discard() => Ending::Discarded,
        None => Ending::Stopped,
    };
    Ok((ending, trainer))
}

fn open(start: RunStart, host: &mut dyn Host) -> Result<Trainer, SessionError> {
    match start {
        RunStart::New { mut experiment, directory, derived } => {
            experiment.validate()?;
            RunDir::check_free(&directory)?;
            if let Some(data) = &mut experiment.data.path {
                // A resume may be called from elsewhere.
                *data = std::path::absolute(&data).map_err(SessionError::Path)?;
            }
            let splits = load(&experiment, host)?;
            host.stage(Stage::OpeningEngine);
            let comment = derived.map_or(String::new(), |derived| derived.comment());
            let directory = RunDir::create_with(&directory, &experiment, &comment)?;
            Trainer::begin(*experiment, splits, directory.clone()).map_err(|error| {
                directory.abandon();
                SessionError::Begin(error)
            })
        }
        RunStart::Resume { directory: path, engine } => {
            let (directory, mut experiment) = RunDir::open(&path)?;
            let chosen = engine.is_some();
            if let Some(options) = engine {
                experiment.run.set_engine_options(options);
            }
            experiment.validate()?;
            let has_checkpoint = directory.checkpoint("resume").exists();
            if !has_checkpoint {
                host.stage(Stage::BeginningAnew(&path));
            }
            let splits = load(&experiment, host)?;
            host.stage(Stage::OpeningEngine);
            if has_checkpoint {
                let resumed = match chosen {
                    true => Trainer::resume_on_any_engine(experiment, splits, directory),
                    false => Trainer::resume(experiment, splits, directory),
                };
                resumed.map_err(|source| SessionError::Resume { path, source })
            } else {
                Ok(Trainer::begin(experiment, splits, directory)?)
            }
        }
    }
}

fn load(experiment: &Experiment, host: &mut dyn Host) -> Result<Splits, SessionError> {
    host.stage(Stage::LoadingData(&experiment.data.dataset));
    Splits::load(experiment).map_err(|source| SessionError::Data { name: experiment.data.dataset.clone(), source })
}

/// `parent/name`, or `parent/name-2` and so on where that is taken.
pub fn free_directory(parent: &Path, name: &str) -> PathBuf {
    let numbered = (2u32..).map(|n| parent.join(format!("{name}-{n}")));
    let mut candidates = std::iter::once(parent.join(name)).chain(numbered);
    candidates.find(|path| !path.exists()).unwrap_or_else(|| parent.join(name))
}
