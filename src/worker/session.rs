//! A run from its experiment to its report, for both the command line and the window.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::config::{ConfigError, Derived, EngineOptions, Experiment};
use crate::data::DataError;
use crate::engine::EngineError;
use crate::engines;
use crate::evaluate::{self, FinalReport, ReportError};
use crate::train::{
    Batches, Event, Observer, Outcome, ResumeOptions, RunDir, RunDirError, Splits, TrainError, Trainer, numbered,
};

/// What to run.
#[derive(Debug, Clone)]
pub enum RunStart {
    /// A new experiment, in a directory that does not hold a run yet.
    New {
        /// What to train.
        experiment: Box<Experiment>,
        /// Its directory, claimed or not.
        directory: RunDir,
        /// Values derived from its data set, for the comment at the top of its config.toml.
        derived: Option<Box<Derived>>,
    },
    /// An earlier run, from its last checkpoint, or from its beginning if it has none.
    Resume {
        /// Its directory.
        directory: PathBuf,
        /// Another engine than the run's own; its config.toml does not change. If `None`, an automatic choice gives the
        /// engine that the run began with.
        engine: Option<EngineOptions>,
        /// Whether to go on even if the experiment or the images are not those of the checkpoint
        /// ([`TrainError::Changed`]).
        accept_changes: bool,
    },
}

impl RunStart {
    /// The run directory.
    pub fn directory(&self) -> &Path {
        match self {
            Self::New { directory, .. } => directory.path(),
            Self::Resume { directory, .. } => directory,
        }
    }
}

/// The stages of a run other than training.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// Reading a data set.
    LoadingData(&'a str),
    /// The run was stopped before its first checkpoint, so it starts again from the beginning.
    BeginningAnew(&'a Path),
    /// Opening the engine and the run directory.
    OpeningEngine,
    /// Training is over; the test set is next.
    Testing,
}

/// An observer of a run that also gets the stages before and after training.
pub trait Host: Observer {
    /// The run enters a stage.
    fn stage(&mut self, _stage: Stage<'_>) {}

    /// Called often while the run is being opened, before [`Observer::stop`] is asked. It must not block.
    fn attend(&mut self) {}

    /// Everything is open; training is next.
    fn opened(&mut self, _trainer: &mut Trainer) {}
}

/// How a run ended.
#[derive(Debug)]
pub enum Ending {
    /// All epochs are completed and the test set is evaluated.
    Finished(Box<FinalReport>),
    /// Stopped, in training or in the evaluation after it, with a checkpoint.
    Stopped,
    /// Stopped without a new checkpoint.
    Discarded,
}

/// Why a run could not begin, or failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The experiment is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The path of the data set cannot be made absolute.
    #[error("data.path: {0}")]
    Path(std::io::Error),
    /// The data set cannot be loaded.
    #[error("data set '{name}'")]
    Data {
        /// The data set.
        name: String,
        /// Why.
        source: DataError,
    },
    /// The host asked to stop before there was anything to save.
    #[error("stopped before training began")]
    Stopped,
    /// The run directory cannot be used.
    #[error(transparent)]
    Directory(#[from] RunDirError),
    /// A new run cannot begin. Its directory is removed again.
    #[error(transparent)]
    Begin(TrainError),
    /// An earlier run cannot be resumed.
    #[error("{path} cannot be resumed")]
    Resume {
        /// Its directory.
        path: PathBuf,
        /// Why. Boxed, because the variant would be larger than all others.
        source: Box<TrainError>,
    },
    /// Training failed.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The evaluation at the end failed.
    #[error(transparent)]
    Report(#[from] ReportError),
}

/// Opens everything, trains, evaluates and writes the report. Returns how the run ended, and its trainer.
///
/// # Errors
/// Returns an error if anything cannot be opened or fails; the last checkpoint does not change.
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
        RunStart::New { experiment, directory, derived } => {
            let valid = experiment.validate();
            if valid.is_err() {
                directory.clone().abandon();
            }
            valid?;
            // Before anything slow: another process may be about to begin a run here.
            let directory = directory.claimed()?;
            let comment = derived.map_or(String::new(), |derived| derived.comment());
            let begun = begin(*experiment, &directory, &comment, host);
            if begun.is_err() {
                directory.abandon();
            }
            begun
        }
        RunStart::Resume { directory: path, engine, accept_changes } => {
            let (directory, mut experiment) = RunDir::claim(&path)?;
            let options = ResumeOptions { any_engine: engine.is_some(), accept_changes };
            if let Some(options) = engine {
                experiment.run.set_engine_options(options);
            }
            experiment.validate()?;
            let has_checkpoint = directory.checkpoint("resume").exists();
            if !has_checkpoint {
                if !accept_changes {
                    directory.check_config()?;
                }
                directory.check_beginning_again(&experiment)?;
                host.stage(Stage::BeginningAnew(&path));
            }
            let splits = load(&experiment, host)?;
            host.stage(Stage::OpeningEngine);
            if has_checkpoint {
                let resumed =
                    Trainer::resume_unless(experiment, splits, directory, options, &mut || wants_to_stop(host));
                resumed.map_err(|error| match error {
                    TrainError::Engine(EngineError::Stopped) => SessionError::Stopped,
                    error => SessionError::Resume { path, source: Box::new(error) },
                })
            } else {
                Trainer::begin_unless(experiment, splits, directory, &mut || wants_to_stop(host)).map_err(|error| {
                    match error {
                        TrainError::Engine(EngineError::Stopped) => SessionError::Stopped,
                        error => error.into(),
                    }
                })
            }
        }
    }
}

/// Begins a run in a claimed directory.
fn begin(
    mut experiment: Experiment,
    directory: &RunDir,
    comment: &str,
    host: &mut dyn Host,
) -> Result<Trainer, SessionError> {
    experiment.make_paths_absolute().map_err(SessionError::Path)?;
    experiment.check_paths()?;
    let splits = load(&experiment, host)?;
    host.stage(Stage::OpeningEngine);
    directory.begin(&experiment, comment)?;
    let begun = Trainer::begin_unless(experiment, splits, directory.clone(), &mut || wants_to_stop(host));
    begun.map_err(|error| match error {
        TrainError::Engine(EngineError::Stopped) => SessionError::Stopped,
        error => SessionError::Begin(error),
    })
}

/// Whether the host asks to stop the run that is being opened.
fn wants_to_stop(host: &mut dyn Host) -> bool {
    host.attend();
    host.stop() || host.discard()
}

/// Time between two looks at whether the host asks to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Loads the images, on a thread of its own: the host may ask to stop in the middle of a large folder.
fn load(experiment: &Experiment, host: &mut dyn Host) -> Result<Splits, SessionError> {
    host.stage(Stage::LoadingData(&experiment.data.dataset));
    let (sender, receiver) = mpsc::channel();
    let wanted = experiment.clone();
    let reader = std::thread::spawn(move || {
        // Nobody waits for it any more if the run was stopped.
        let _ = sender.send(Splits::load(&wanted));
    });
    let splits = loop {
        match receiver.recv_timeout(LOOK) {
            Ok(loaded) => break loaded,
            Err(RecvTimeoutError::Timeout) if wants_to_stop(host) => return Err(SessionError::Stopped),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => match reader.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => return Err(SessionError::Stopped),
            },
        }
    };
    let name = || experiment.data.dataset.clone();
    let splits = splits.map_err(|source| SessionError::Data { name: name(), source })?;
    if wants_to_stop(host) {
        return Err(SessionError::Stopped);
    }
    check_memory(experiment, &splits)?;
    splits.notes.iter().for_each(|note| host.event(&Event::Warning(note)));
    Ok(splits)
}

/// Refuses a network and batches that do not fit this machine.
fn check_memory(experiment: &Experiment, splits: &Splits) -> Result<(), TrainError> {
    let (model, train) = (&experiment.model, &splits.train);
    let network = model.arch.build(train.shape(), train.classes(), None, model.width);
    let o = &experiment.optimizer;
    let batches = Batches::new(train.len(), o.batch_size, o.last_batch).distinct_sizes();
    let largest = batches.first().copied().unwrap_or(0);
    Ok(engines::check_memory(&experiment.run.engine_options(), &network, largest, true)?)
}

/// `parent/name`, or `parent/name-2` and so on if it exists. [`RunDir::claim_free`] also claims it.
pub fn free_directory(parent: &Path, name: &str) -> PathBuf {
    numbered(parent, name).find(|path| !path.exists()).unwrap_or_else(|| parent.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::EngineChoice;
    use crate::train::Event;

    fn experiment() -> Experiment {
        let mut e = Experiment::preset("digits-60s").unwrap();
        (e.data.limit, e.data.test_limit, e.data.validation_per_class) = (Some(60), Some(20), Some(2));
        (e.model.width, e.attack.steps, e.optimizer.epochs) = (Some(4), 1, 1);
        (e.evaluation.eval_steps, e.evaluation.test_steps, e.run.examples) = (1, 1, 1);
        (e.run.engine, e.run.deterministic) = (EngineChoice::Candle, true);
        e
    }

    fn new(experiment: &Experiment, path: &Path) -> RunStart {
        RunStart::New { experiment: Box::new(experiment.clone()), directory: RunDir::at(path), derived: None }
    }

    fn resume(path: &Path) -> RunStart {
        RunStart::Resume { directory: path.into(), engine: None, accept_changes: false }
    }

    /// Does something while data are loaded and when everything is open, and may then end the run.
    struct At<'a> {
        loading: &'a dyn Fn(),
        opened: &'a dyn Fn(),
        discard: bool,
        is_open: bool,
    }

    impl Observer for At<'_> {
        fn event(&mut self, _: &Event<'_>) {}

        fn discard(&self) -> bool {
            self.discard && self.is_open
        }
    }

    impl Host for At<'_> {
        fn stage(&mut self, stage: Stage<'_>) {
            if matches!(stage, Stage::LoadingData(_)) {
                (self.loading)();
            }
        }

        fn opened(&mut self, _: &mut Trainer) {
            self.is_open = true;
            (self.opened)();
        }
    }

    fn quiet() -> At<'static> {
        At { loading: &|| (), opened: &|| (), discard: false, is_open: false }
    }

    fn is_in_use(start: RunStart) -> bool {
        let error = run(start, &mut quiet()).err();
        matches!(error, Some(SessionError::Directory(RunDirError::InUse { .. })))
    }

    #[test]
    fn a_run_claims_its_directory_before_it_loads_data_and_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let e = experiment();
        let refused = || assert!(is_in_use(new(&e, &path)));
        let both_refused = || assert!(is_in_use(new(&e, &path)) && is_in_use(resume(&path)));
        drop(
            run(new(&e, &path), &mut At { loading: &refused, opened: &both_refused, discard: true, is_open: false })
                .unwrap(),
        );
        // Two resumes.
        let mut host = At { loading: &both_refused, opened: &both_refused, discard: true, is_open: false };
        drop(run(resume(&path), &mut host).unwrap());
        // Nothing is left of a run whose data cannot be loaded.
        let mut missing = e.clone();
        (missing.data.dataset, missing.data.path) = ("cifar10".into(), Some(dir.path().join("nothing")));
        let path = dir.path().join("other");
        let claimed = || assert!(path.exists());
        assert!(
            run(new(&missing, &path), &mut At { loading: &claimed, opened: &|| (), discard: true, is_open: false })
                .is_err()
        );
        assert!(!path.exists());
        missing.optimizer.lr = -1.0;
        let directory = RunDir::claim_new(&path).unwrap();
        let start = RunStart::New { experiment: Box::new(missing), directory, derived: None };
        assert!(matches!(run(start, &mut quiet()), Err(SessionError::Config(_))) && !path.exists());
    }

    #[test]
    fn a_finished_run_without_its_checkpoint_is_not_trained_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        drop(run(new(&experiment(), &path), &mut quiet()).unwrap());
        std::fs::remove_file(path.join("checkpoints/resume.safetensors")).unwrap();
        let files = ["checkpoints/best.safetensors", "metrics.csv", "classes.csv", "evaluation.json", "log.jsonl"];
        let contents = || files.map(|name| std::fs::read(path.join(name)).unwrap());
        let before = contents();
        let error = run(resume(&path), &mut quiet()).err().unwrap();
        assert!(matches!(error, SessionError::Directory(RunDirError::NoCheckpoint { epochs: 1, .. })), "{error}");
        assert!(before == contents());
    }

    /// A host that asks to stop once the engine is being opened and it has been asked a number of times.
    struct StopOpening {
        patience: usize,
        asked: std::cell::Cell<Option<usize>>,
    }

    impl Observer for StopOpening {
        fn event(&mut self, _event: &Event<'_>) {}

        fn stop(&self) -> bool {
            let asked = self.asked.get().map(|asked| asked + 1);
            self.asked.set(asked);
            asked.is_some_and(|asked| asked > self.patience)
        }
    }

    impl Host for StopOpening {
        fn stage(&mut self, stage: Stage<'_>) {
            if stage == Stage::OpeningEngine {
                self.asked.set(Some(0));
            }
        }

        fn opened(&mut self, _: &mut Trainer) {
            panic!("the run has begun");
        }
    }

    #[test]
    fn a_run_that_is_stopped_while_its_engine_is_opened_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let [fresh, path] = ["fresh", "run"].map(|name| dir.path().join(name));
        drop(run(new(&experiment(), &path), &mut quiet()).unwrap());
        let contents = || {
            ["config.toml", "log.jsonl", "checkpoints/resume.safetensors", "checkpoints/best.safetensors"]
                .map(|name| std::fs::read(path.join(name)).unwrap())
        };
        let before = contents();
        for patience in 0..3 {
            let host = || StopOpening { patience, asked: None.into() };
            for start in [new(&experiment(), &fresh), resume(&path)] {
                let stopped = run(start, &mut host()).err().unwrap();
                assert!(matches!(stopped, SessionError::Stopped), "{stopped}");
            }
            assert!(!fresh.exists() && contents() == before, "{patience}");
        }
    }

    /// A host that asks to stop from the beginning.
    struct Stopping;

    impl Observer for Stopping {
        fn event(&mut self, _event: &Event<'_>) {}

        fn stop(&self) -> bool {
            true
        }
    }

    impl Host for Stopping {}

    #[test]
    fn a_run_that_is_stopped_while_its_images_are_loaded_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("run");
        let experiment = Box::new(Experiment::preset("digits-60s").unwrap());
        let start = RunStart::New { experiment, directory: RunDir::at(&directory), derived: None };
        let stopped = run(start, &mut Stopping).err().unwrap();
        assert!(matches!(stopped, SessionError::Stopped), "{stopped}");
        assert!(!directory.exists());
    }
}
