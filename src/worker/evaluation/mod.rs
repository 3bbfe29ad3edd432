//! The thread that evaluates checkpoints for a window, with an engine of its own: a run may go on beside it.
//!
//! It answers two requests: what an evaluation would do ([`Evaluator::look`]), and to do it ([`Evaluator::start`]).
//! Updates leave through a mailbox, as those of the worker do. Finished batches are stored, so that an evaluation that
//! was cancelled continues when the same is asked for again.

mod job;
mod look;
mod messages;
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

pub use job::{EvaluationJob, Foreign};
pub use look::{Candidate, Known, Prospect};
pub use messages::{
    AttackProgress, Began, EvaluationEnd, EvaluationStage, EvaluationUpdate, FallenImages, FinishedEvaluation,
};

use super::mailbox::Mailbox;
use super::{Busy, failure, thread};

/// Capacity of the request channel; a window sends a few requests per second.
const REQUESTS: usize = 64;

enum Request {
    Look(Box<EvaluationJob>),
    Start(Box<EvaluationJob>, Arc<AtomicBool>),
}

/// A handle to the thread. Dropping it cancels an evaluation and waits for the thread to end.
#[derive(Debug)]
pub struct Evaluator {
    requests: Option<SyncSender<Request>>,
    mailbox: Arc<Mailbox<EvaluationUpdate>>,
    /// Cancels the evaluation that was started last.
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Evaluator {
    /// Starts the thread. `wake` is called after every update, from that thread.
    ///
    /// # Errors
    /// Returns an error if the system cannot start a thread.
    pub fn spawn(wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let (sender, requests) = sync_channel(REQUESTS);
        let mailbox = Arc::new(Mailbox::new(Box::new(wake)));
        let theirs = Arc::clone(&mailbox);
        let thread = std::thread::Builder::new().name("evaluation".into()).spawn(move || serve(&requests, &theirs))?;
        Ok(Self { requests: Some(sender), mailbox, stop: Arc::default(), thread: Some(thread) })
    }

    /// Asks what an evaluation would do. A newer question replaces one that is not answered yet.
    ///
    /// # Errors
    /// Returns [`Busy`] if the channel is full or closed.
    pub fn look(&self, job: EvaluationJob) -> Result<(), Busy> {
        self.send(Request::Look(Box::new(job)))
    }

    /// Starts an evaluation, or continues one that was cancelled; it begins after the one that is under way.
    ///
    /// # Errors
    /// Returns [`Busy`] if the channel is full or closed.
    pub fn start(&mut self, job: EvaluationJob) -> Result<(), Busy> {
        let stop = Arc::new(AtomicBool::new(false));
        self.send(Request::Start(Box::new(job), Arc::clone(&stop)))?;
        self.stop = stop;
        Ok(())
    }

    /// Cancels the evaluation that was started last, after the pass of the network that is under way.
    pub fn cancel(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// All updates since the last call, in order. Does not block.
    pub fn updates(&self) -> Vec<EvaluationUpdate> {
        self.mailbox.take()
    }

    fn send(&self, request: Request) -> Result<(), Busy> {
        let Some(sender) = &self.requests else { return Err(Busy) };
        sender.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }
}

impl Drop for Evaluator {
    fn drop(&mut self) {
        self.cancel();
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported already, so the result is ignored.
            let _ = thread.join();
        }
    }
}

/// Serves requests until the channel closes.
fn serve(requests: &Receiver<Request>, mailbox: &Mailbox<EvaluationUpdate>) {
    thread::give_way();
    let mut library = look::Library::default();
    let mut waiting: std::collections::VecDeque<Request> = std::collections::VecDeque::new();
    loop {
        if waiting.is_empty() {
            let Ok(request) = requests.recv() else { return };
            waiting.push_back(request);
        }
        waiting.extend(requests.try_iter());
        // Only the newest question is still of interest.
        let newest = waiting.iter().rposition(|request| matches!(request, Request::Look(_)));
        let mut place = 0..;
        waiting.retain(|request| {
            let place = place.next();
            !matches!(request, Request::Look(_)) || place == newest
        });
        match waiting.pop_front() {
            Some(Request::Look(job)) => {
                let answer = catch_unwind(AssertUnwindSafe(|| library.prospect(&job)));
                match answer {
                    Ok(prospect) => mailbox.put(EvaluationUpdate::Prospect(Arc::new(prospect))),
                    Err(panic) => {
                        let failure = failure::of_panic("opening a checkpoint", panic.as_ref(), None);
                        mailbox.put(EvaluationUpdate::Failed { checkpoint: 0, failure });
                    }
                }
            }
            Some(Request::Start(job, stop)) => evaluate(&job, &stop, mailbox),
            None => {}
        }
    }
}

/// Evaluates every checkpoint of a job.
fn evaluate(job: &EvaluationJob, stop: &AtomicBool, mailbox: &Mailbox<EvaluationUpdate>) {
    mailbox.put(EvaluationUpdate::Started(Box::new(job.clone())));
    let mut end = EvaluationEnd::Done;
    for (checkpoint, path) in job.checkpoints.iter().enumerate().skip(job.skip) {
        let work = || run::evaluate(job, checkpoint, stop, &|update| mailbox.put(update));
        let ended = catch_unwind(AssertUnwindSafe(work))
            .unwrap_or_else(|panic| Err(failure::of_panic(&failure::evaluating(path), panic.as_ref(), None)));
        match ended {
            Ok(true) => {}
            Ok(false) => {
                end = EvaluationEnd::Cancelled;
                break;
            }
            // The other checkpoints may be whole.
            Err(failure) => mailbox.put(EvaluationUpdate::Failed { checkpoint, failure }),
        }
    }
    mailbox.put(EvaluationUpdate::Ended(end));
}
