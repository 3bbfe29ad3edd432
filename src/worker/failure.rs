//! Errors as messages, with advice for the user.

use std::any::Any;
use std::error::Error;
use std::io::ErrorKind;
use std::path::Path;

use super::Failure;
use super::session::{SessionError, free_directory};
use crate::config::ConfigError;
use crate::data::DataError;
use crate::data::publishers::publisher;
use crate::engine::{EngineError, GpuError};
use crate::evaluate::ReportError;
use crate::evaluate::robustness::RobustnessError;
use crate::model::ModelError;
use crate::model::pytorch::ImportError;
use crate::train::{RunDirError, StoredError, TrainError};

/// The root cause of an error.
enum Root<'a> {
    Config,
    Data(&'a DataError),
    Engine(&'a EngineError),
    Diverged,
    RunDir(&'a RunDirError),
    Io(&'a std::io::Error),
    Other,
}

impl<'a> Root<'a> {
    fn of_session(error: &'a SessionError) -> Self {
        match error {
            SessionError::Config(_) => Self::Config,
            SessionError::Data { source, .. } => Self::of_data(source),
            SessionError::Directory(error) => Self::of_run_dir(error),
            SessionError::Begin(error) | SessionError::Train(error) => Self::of_train(error),
            SessionError::Resume { source, .. } => Self::of_train(source),
            SessionError::Report(error) => match error {
                ReportError::Engine(error) => Self::of_engine(error),
                ReportError::Model(error) => Self::of_model(error),
                ReportError::RunDir(error) => Self::of_run_dir(error),
                ReportError::Figure(_) | ReportError::Image(_) => Self::Other,
            },
            SessionError::Path(error) => Self::Io(error),
            SessionError::Stopped => Self::Other,
        }
    }

    fn of_train(error: &'a TrainError) -> Self {
        match error {
            TrainError::Config(_) => Self::Config,
            TrainError::Data(error) => Self::of_data(error),
            TrainError::Engine(error) => Self::of_engine(error),
            TrainError::Model(error) => Self::of_model(error),
            TrainError::RunDir(error) => Self::of_run_dir(error),
            TrainError::TensorBoard(file) => Self::Io(file.cause()),
            TrainError::Initial(error) => Self::of_stored(error),
            // The error itself says what to do.
            TrainError::Changed { .. } | TrainError::EngineGone { .. } | TrainError::Damaged { .. } => Self::Other,
            TrainError::Diverged { .. } => Self::Diverged,
        }
    }

    fn of_stored(error: &'a StoredError) -> Self {
        match error {
            StoredError::Model(error) => Self::of_model(error),
            StoredError::Config(_) => Self::Config,
            StoredError::File(file) => Self::Io(file.cause()),
            StoredError::Engine { source, .. } => Self::of_engine(source),
            StoredError::Data { source, .. } => Self::of_data(source),
            StoredError::Import(ImportError::File(file)) => Self::Io(file.cause()),
            StoredError::Import(ImportError::Numbers { source, .. }) => Self::of_model(source),
            StoredError::Import(_)
            | StoredError::NoBest { .. }
            | StoredError::Foreign { .. }
            | StoredError::Metadata { .. }
            | StoredError::Size { .. }
            | StoredError::Channels { .. }
            | StoredError::Shape { .. }
            | StoredError::Classes { .. }
            | StoredError::Architecture { .. } => Self::Other,
        }
    }

    fn of_data(error: &'a DataError) -> Self {
        if let DataError::File(file) = error { Self::Io(file.cause()) } else { Self::Data(error) }
    }

    fn of_engine(error: &'a EngineError) -> Self {
        if let EngineError::Model(error) = error { Self::of_model(error) } else { Self::Engine(error) }
    }

    fn of_model(error: &'a ModelError) -> Self {
        if let ModelError::File(file) = error { Self::Io(file.cause()) } else { Self::Other }
    }

    fn of_run_dir(error: &'a RunDirError) -> Self {
        match error {
            RunDirError::File(file) => Self::Io(file.cause()),
            RunDirError::Config(_) => Self::Config,
            other => Self::RunDir(other),
        }
    }

    /// Advice for this cause. `resumable` says whether there is a run that can be resumed.
    fn advice(&self, resumable: bool) -> Option<String> {
        let then = if resumable { "then resume the run" } else { "then try again" };
        let text = match self {
            Self::Config => format!("Correct that field, {then}."),
            Self::Data(DataError::Checksum { .. } | DataError::Format { .. }) => {
                "The files of the data set are damaged or of another kind: fetch them again with `fairtat data fetch`, \
                 or choose another directory."
                    .into()
            }
            Self::Engine(EngineError::Gpu(GpuError::Lost { .. })) if resumable => {
                "Resume the run on the same engine, on another adapter, or with Candle on the CPU.".into()
            }
            Self::Engine(EngineError::Gpu(GpuError::Lost { .. })) => {
                "Try again on the same engine, on another adapter, or with Candle on the CPU.".into()
            }
            Self::Engine(EngineError::Gpu(GpuError::OutOfMemory { .. } | GpuError::Limits(_))) => {
                "Choose a smaller batch or network, another adapter, or Candle on the CPU.".into()
            }
            Self::Engine(EngineError::Gpu(_) | EngineError::Candle(_) | EngineError::Unavailable(_)) => {
                format!("Choose another engine or adapter, such as Candle on the CPU, {then}.")
            }
            Self::Engine(EngineError::NotFinite { .. }) | Self::Diverged if resumable => {
                "Resume from the last checkpoint paused, lower the learning rate there, and continue.".into()
            }
            Self::RunDir(RunDirError::Taken { path }) => {
                let name = path.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy());
                let free = free_directory(path.parent().unwrap_or(Path::new("")), &name);
                format!("Resume that run, or begin this one in {}.", free.display())
            }
            Self::RunDir(RunDirError::InUse { .. }) => "Stop the run there, or choose another directory.".into(),
            Self::RunDir(RunDirError::NoCheckpoint { .. }) => {
                "Put the file back from a copy, or begin a new run with this run's config.toml.".into()
            }
            Self::RunDir(RunDirError::Empty { .. }) => {
                "Choose a directory that a run has written: it holds a config.toml.".into()
            }
            Self::Io(error) => match error.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => format!("Free some space on that disk, {then}."),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                    "Choose a directory that you may write to, or change its permissions.".into()
                }
                _ => return None,
            },
            _ => return None,
        };
        Some(text)
    }
}

/// An error and what it comes from, in one sentence. Many errors have the text of their cause in their own, and some causes
/// begin with what the error says.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        let more = error.to_string();
        let goes_on = |last: &String| more.strip_prefix(last.as_str()).is_some_and(|rest| rest.starts_with([':', ' ']));
        if let Some(last) = parts.last_mut().filter(|last| goes_on(last)) {
            *last = more;
        } else if !parts.iter().any(|part| part.contains(&more)) {
            parts.push(more);
        }
        cause = error.source();
    }
    parts.join(": ")
}

/// Whether a disk is full.
pub(crate) fn is_full(error: &SessionError) -> bool {
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    matches!(Root::of_session(error), Root::Io(cause) if full.contains(&cause.kind()))
}

/// A run that could not begin, or failed. `directory` is the run's.
pub(super) fn of_run(doing: &str, error: &SessionError, directory: &Path) -> Failure {
    let run = run_in(directory).filter(|_| !is_beyond_reach(error));
    Failure {
        doing: doing.into(),
        what: sentence(error),
        advice: fetch(error).or_else(|| Root::of_session(error).advice(run.is_some())),
        run,
    }
}

/// The command that downloads a missing data set; `None` if the error is another one or the set is not published.
fn fetch(error: &SessionError) -> Option<String> {
    let SessionError::Data { name, source } = error else { return None };
    fetch_set(name, source)
}

/// As [`fetch`], for the images of a named set.
fn fetch_set(name: &str, error: &DataError) -> Option<String> {
    let missing = matches!(error, DataError::Missing(_)) && publisher(name).is_ok();
    missing.then(|| format!("Fetch it with `fairtat data fetch {name}`, or choose another data set."))
}

/// `directory` if it holds a run that can be resumed, otherwise `None`.
fn run_in(directory: &Path) -> Option<std::path::PathBuf> {
    directory.join("config.toml").exists().then(|| directory.to_path_buf())
}

/// Whether the run in the directory is not the one that failed, or cannot be resumed unchanged.
fn is_beyond_reach(error: &SessionError) -> bool {
    let SessionError::Directory(error) = error else { return false };
    matches!(
        error,
        RunDirError::Taken { .. }
            | RunDirError::InUse { .. }
            | RunDirError::NoCheckpoint { .. }
            | RunDirError::Config(_)
    )
}

/// A panic, which is a bug in the program.
pub(super) fn of_panic(doing: &str, panic: &(dyn Any + Send), directory: Option<&Path>) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let run = directory.and_then(run_in);
    let checkpoint = directory.map(|directory| directory.join("checkpoints").join("resume.safetensors"));
    let checkpoint = checkpoint.filter(|path| run.is_some() && path.exists());
    Failure {
        doing: doing.into(),
        what: format!("a bug in fairtat: {}", text.unwrap_or("no message")),
        advice: Some(match checkpoint {
            Some(path) => format!("The last checkpoint, {}, is whole: the run can be resumed from it.", path.display()),
            None => "Please report it with the log and the config.toml of the run.".into(),
        }),
        run,
    }
}

/// A change of the experiment or of radii that was rejected. The run continues unchanged.
pub(super) fn of_change(error: &ConfigError) -> Failure {
    let advice = Some("The run continues unchanged.".into());
    Failure { doing: "changing the run".into(), what: sentence(error), advice, run: None }
}

/// A failed inspection or decision map.
pub(super) fn of_job(doing: &str, subject: &str, error: &EngineError) -> Failure {
    let advice = Root::of_engine(error).advice(false);
    Failure { doing: doing.into(), what: format!("{subject}: {}", sentence(error)), advice, run: None }
}

/// A checkpoint that cannot be opened.
pub(super) fn of_stored(path: &Path, error: &StoredError) -> Failure {
    Failure {
        doing: format!("opening {}", path.display()),
        what: sentence(error),
        advice: match error {
            StoredError::NoBest { .. } => Some("Train it for at least an epoch, or choose a .safetensors file.".into()),
            StoredError::Foreign { .. } => {
                Some("`fairtat eval --config` evaluates it with the experiment that it belongs to.".into())
            }
            _ => Root::of_stored(error).advice(false),
        },
        run: None,
    }
}

/// An evaluation that could not begin, or failed.
pub(super) fn of_evaluation(path: &Path, error: &RobustnessError) -> Failure {
    let root = match error {
        RobustnessError::Engine(error) => Root::of_engine(error),
        RobustnessError::File(file) => Root::Io(file.cause()),
        RobustnessError::State { .. }
        | RobustnessError::Other { .. }
        | RobustnessError::Busy { .. }
        | RobustnessError::Figure(_) => Root::Other,
    };
    Failure { doing: evaluating(path), what: sentence(error), advice: root.advice(false), run: None }
}

/// The images of an evaluation cannot be loaded.
pub(super) fn of_images(path: &Path, name: &str, error: &DataError) -> Failure {
    let advice = fetch_set(name, error).or_else(|| Root::of_data(error).advice(false));
    let advice = advice.unwrap_or_else(|| "Choose another number of images, or another checkpoint.".into());
    Failure { doing: evaluating(path), what: sentence(error), advice: Some(advice), run: None }
}

/// An evaluation that was asked for cannot be carried out.
pub(super) fn refused(path: &Path, what: String, advice: &str) -> Failure {
    Failure { doing: evaluating(path), what, advice: Some(advice.into()), run: None }
}

/// What an evaluation of this checkpoint is called in messages.
pub(super) fn evaluating(path: &Path) -> String {
    format!("evaluating {}", path.display())
}

/// The data set of a checkpoint cannot be loaded.
pub(super) fn of_data(path: &Path, error: &DataError) -> Failure {
    Failure {
        doing: format!("opening {}", path.display()),
        what: sentence(error),
        advice: Root::of_data(error).advice(false),
        run: None,
    }
}

/// An inspection or decision map was requested without an open network.
pub(super) fn no_network(doing: &str) -> Failure {
    Failure {
        doing: doing.into(),
        what: "no network is open".into(),
        advice: Some("Begin or resume a run, or open a checkpoint.".into()),
        run: None,
    }
}

/// A request that is not possible during a run.
pub(super) fn busy(doing: &str) -> Failure {
    Failure {
        doing: doing.into(),
        what: "a run is under way".into(),
        advice: Some("Stop it first; it can be resumed later.".into()),
        run: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FileError;

    #[test]
    fn a_sentence_says_everything_once() {
        let gone = || std::io::Error::from_raw_os_error(2);
        let io = gone().to_string();
        let file = || DataError::File(FileError::reading("nope")(gone()));
        assert_eq!(sentence(&file()), format!("cannot read nope: {io}"));
        let in_set = |source| SessionError::Data { name: "digits".into(), source };
        assert_eq!(sentence(&in_set(file())), format!("data set 'digits': cannot read nope: {io}"));
        let small = DataError::Inconsistent { name: "digits".into(), what: "too small".into() };
        assert_eq!(sentence(&in_set(small)), "data set 'digits': too small");
        let folder = DataError::Missing("data set 'digits' needs --path DIR".into());
        assert_eq!(sentence(&in_set(folder)), "data set 'digits' needs --path DIR");
        // A name that begins like another is not the same.
        let other = DataError::Missing("data set 'digits'2 is unknown".into());
        assert_eq!(sentence(&in_set(other)), "data set 'digits': data set 'digits'2 is unknown");
    }
}
