//! The thread that owns the engine: what a window talks to.
//!
//! Requests go in over a bounded channel, updates come out of a mailbox that never makes either side wait: the newest
//! progress and the newest examples replace older ones that nobody has fetched, everything else is kept in order.

mod desk;
mod failure;
mod inspect;
mod mailbox;
mod messages;
mod open;
pub mod session;
mod thread;
mod watcher;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

pub use inspect::{
    DecisionMap, Direction, INSPECTING, Inspection, InspectionAttack, InspectionJob, InspectionStep, MAPPING, MapJob,
    Subject, inspect, map,
};
pub use messages::{
    BatchPoint, Ended, EpochRecord, Examples, ExamplesWish, Failure, Hold, Phase, Request, RunInfo, Update,
};

pub(crate) use failure::sentence;
use mailbox::Mailbox;

/// Requests that may wait; a window sends a few a second.
const REQUESTS: usize = 256;

/// A handle to the worker. Dropping it stops a run with a checkpoint and waits for that.
#[derive(Debug)]
pub struct Worker {
    requests: Option<SyncSender<Request>>,
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// The worker has not taken up earlier requests yet, or is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker does not take requests; try again in a moment")]
pub struct Busy;

impl Worker {
    /// Starts the thread. `wake` is called after every update, from that thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn spawn(wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let (sender, requests) = sync_channel(REQUESTS);
        let mailbox = Arc::new(Mailbox::new(Box::new(wake)));
        let theirs = Arc::clone(&mailbox);
        let thread =
            std::thread::Builder::new().name("worker".into()).spawn(move || thread::serve(&requests, &theirs))?;
        Ok(Self { requests: Some(sender), mailbox, thread: Some(thread) })
    }

    /// Hands over a request without waiting.
    ///
    /// # Errors
    /// [`Busy`] when too many wait already.
    pub fn send(&self, request: Request) -> Result<(), Busy> {
        let Some(sender) = &self.requests else { return Err(Busy) };
        sender.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }

    /// Everything that has happened since the last call, in order. Does not wait.
    pub fn updates(&self) -> Vec<Update> {
        self.mailbox.take()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The worker takes a closed channel for a request to stop and save.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A worker that panicked has said so already; there is nothing left to wait for.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
