//! The main loop of the worker thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::Receiver;

use super::desk::Desk;
use super::mailbox::Mailbox;
use super::open::Open;
use super::session::{self, Ending, RunStart, SessionError};
use super::watcher::{Watcher, history};
use super::{Ended, EpochRecord, INSPECTING, Looked, Phase, Request, RunInfo, Update, failure};
use crate::config::EngineOptions;
use crate::train::{ClassRow, Matching, RunDir, RunDirError, StoredError, StoredNetwork};

/// Serves requests until the channel closes.
pub(super) fn serve(requests: &Receiver<Request>, mailbox: &Mailbox) {
    give_way();
    let mut desk = Desk::new(requests, mailbox);
    let mut open = None;
    while let Some(request) = desk.next_between_runs() {
        match desk.take(request) {
            Some(Request::Begin { experiment, directory, derived, paused }) => {
                let start = RunStart::New { experiment, directory, derived };
                open = run(&mut desk, "beginning a run", start, paused, open.take());
            }
            Some(Request::Resume { directory, engine, paused }) => {
                let start = RunStart::Resume { directory, engine, accept_changes: false };
                open = run(&mut desk, "resuming a run", start, paused, open.take());
            }
            Some(Request::Look { path, engine }) => {
                let doing = format!("opening {}", path.display());
                let opened = guarded(&mut desk, &doing, None, |desk| look(desk, &path, &engine, &mut open));
                open = opened.flatten().or(open);
                desk.phase(Phase::Idle);
            }
            // Requests that steer a run have no effect without one.
            _ => {}
        }
        while desk.has_jobs() {
            // Take all waiting requests first, so that a newer job replaces an older one.
            while let Some(request) = desk.waiting() {
                if let Some(other) = desk.take(request) {
                    desk.put_off(other);
                }
            }
            // Nobody waits for the rest of long work when the window is closed or another network is wanted.
            if desk.closed() || desk.awaits_a_network() {
                desk.drop_long_jobs();
            }
            match &mut open {
                Some(Open { engine, position }) => {
                    let engine = engine.as_mut();
                    guarded(&mut desk, INSPECTING, None, |desk| desk.do_jobs(engine, *position));
                }
                None => desk.refuse_jobs(),
            }
        }
    }
}

/// Runs a training from start to end. Returns the network for inspections afterwards; `former` is dropped when a new
/// one is about to be opened.
fn run(desk: &mut Desk<'_>, doing: &str, start: RunStart, paused: bool, former: Option<Open>) -> Option<Open> {
    let directory = start.directory().to_path_buf();
    // Also of a run that cannot begin: the return to idleness is what ends it.
    desk.phase(Phase::LoadingData);
    let ended = guarded(desk, "training", Some(&directory), |desk| {
        let mut watcher = Watcher::new(desk, &directory, paused, former);
        let ended = session::run(start, &mut watcher);
        watcher.say_what_is_left();
        (watcher.is_open(), watcher.former(), ended)
    });
    let open = match ended {
        None => None,
        // There was nothing to save yet, or nothing new.
        Some((_, former, Err(SessionError::Stopped))) => {
            desk.tell(Update::Ended(Ended::Discarded));
            former
        }
        Some((opened, former, Err(error))) => {
            let doing = if opened { "training" } else { doing };
            desk.tell(Update::Failed(failure::of_run(doing, &error, &directory)));
            former
        }
        Some((_, _, Ok((ending, trainer)))) => {
            let position = Some(trainer.position());
            // The claim of the directory ends here, before anyone hears that the run has ended.
            let engine = trainer.into_engine();
            desk.tell(Update::Ended(match ending {
                Ending::Finished(report) => Ended::Finished(report),
                Ending::Stopped => Ended::Saved,
                Ending::Discarded => Ended::Discarded,
            }));
            Some(Open { engine, position })
        }
    };
    desk.phase(Phase::Idle);
    open
}

/// Opens a checkpoint for inspections; `former` is dropped when the new one is about to be opened.
fn look(desk: &mut Desk<'_>, path: &Path, options: &EngineOptions, former: &mut Option<Open>) -> Option<Open> {
    desk.phase(Phase::LoadingData);
    let stored = match StoredNetwork::load(path, None) {
        Ok(stored) => stored,
        Err(error) => {
            desk.tell(Update::Failed(failure::of_stored(path, &error)));
            return None;
        }
    };
    if let Some(note) = stored.unverified() {
        desk.tell(Update::Warning(note));
    }
    if let Err(error) = stored.experiment.validate() {
        desk.tell(Update::Failed(failure::of_stored(path, &error.into())));
        return None;
    }
    let splits = match stored.splits(Matching::default()) {
        Ok(splits) => splits,
        Err(StoredError::Data { source, .. }) => {
            desk.tell(Update::Failed(failure::of_data(path, &source)));
            return None;
        }
        Err(error) => {
            desk.tell(Update::Failed(failure::of_stored(path, &error)));
            return None;
        }
    };
    splits.notes.iter().for_each(|note| desk.tell(Update::Warning(note.clone())));
    desk.phase(Phase::OpeningEngine);
    *former = None;
    let engine = match stored.open(&splits, options) {
        Ok(engine) => engine,
        Err(error) => {
            desk.tell(Update::Failed(failure::of_stored(path, &error)));
            return None;
        }
    };
    let history = history_beside(&stored.file, splits.train.class_names()).unwrap_or_else(|error| {
        desk.tell(Update::Warning(format!("The epochs of the run are not shown: {error}")));
        Vec::new()
    });
    desk.tell(Update::Opened(Box::new(RunInfo {
        directory: None,
        experiment: Box::new(stored.experiment),
        engine: engine.describe(),
        parameters: engine.network().parameter_count(),
        train: splits.train,
        validation: splits.validation,
        test: splits.test,
        history,
        checkpoints: Vec::new(),
        kept: Vec::new(),
        looked: Some(Looked { file: stored.file, position: stored.position }),
    })));
    Some(Open { engine, position: stored.position })
}

/// The epochs of the run that a checkpoint lies in; none if it lies elsewhere, or if that run has other classes.
fn history_beside(file: &Path, names: &[String]) -> Result<Vec<EpochRecord>, RunDirError> {
    let Some(directory) = Looked::run_directory(file).filter(|path| path.join("metrics.csv").exists()) else {
        return Ok(Vec::new());
    };
    let directory = RunDir::at(directory);
    let (metrics, classes) = directory.read_rows()?;
    let same = |row: &ClassRow| names.get(row.class as usize) == Some(&row.name);
    if !classes.iter().all(same) {
        return Ok(Vec::new());
    }
    history(&directory, &metrics, &classes)
}

/// Runs `work`; a panic in it is reported as a failure.
fn guarded<'a, T>(
    desk: &mut Desk<'a>,
    doing: &str,
    directory: Option<&Path>,
    work: impl FnOnce(&mut Desk<'a>) -> T,
) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(|| work(desk))) {
        Ok(done) => Some(done),
        Err(panic) => {
            desk.tell(Update::Failed(failure::of_panic(doing, panic.as_ref(), directory)));
            None
        }
    }
}

/// Lowers the priority of this thread below that of the window, because training uses all cores. Threads that an engine
/// starts from here inherit the priority.
pub(super) fn give_way() {
    // On Linux the nice value applies to the calling thread. A failure can be ignored: the priority then stays as it
    // is.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, 10);
}
