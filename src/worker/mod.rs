//! The worker thread, which owns the engine and serves the window.
//!
//! Requests arrive over a bounded channel. Updates leave through a mailbox that never blocks either side: the newest
//! progress and the newest examples replace older ones that were not fetched yet; everything else is kept in order.

mod cell;
mod desk;
pub mod evaluation;
mod failure;
mod inspect;
mod mailbox;
mod messages;
mod open;
mod seek;
pub mod session;
mod thread;
mod watcher;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

pub use cell::{COUNTING, CellImages, CellJob, Counted};
pub use inspect::{
    DecisionMap, Direction, INSPECTING, Inspection, InspectionAttack, InspectionJob, InspectionStep, MAPPING, MapJob,
    Subject, inspect, map,
};
pub use messages::{
    BatchPoint, Ended, EpochRecord, Examples, ExamplesWish, Failure, Hold, Looked, Phase, Request, RunInfo, Speed,
    Update,
};
#[cfg(test)]
pub(crate) use seek::seek;
pub use seek::{SeekJob, SeekState, Sought};

pub(crate) use failure::{is_full, sentence};
use mailbox::Mailbox;

/// Capacity of the request channel; a window sends a few requests per second.
const REQUESTS: usize = 256;

/// A handle to the worker. Dropping it stops a run, writes a checkpoint and waits for the thread to end.
#[derive(Debug)]
pub struct Worker {
    requests: Option<SyncSender<Request>>,
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
}

/// The request channel is full, or the worker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the worker cannot accept requests now; try again in a moment")]
pub struct Busy;

impl Worker {
    /// Starts the thread. `wake` is called after every update, from that thread.
    ///
    /// # Errors
    /// Returns an error if the system cannot start a thread.
    pub fn spawn(wake: impl Fn() + Send + Sync + 'static) -> std::io::Result<Self> {
        let (sender, requests) = sync_channel(REQUESTS);
        let mailbox = Arc::new(Mailbox::new(Box::new(wake)));
        let theirs = Arc::clone(&mailbox);
        let thread =
            std::thread::Builder::new().name("worker".into()).spawn(move || thread::serve(&requests, &theirs))?;
        Ok(Self { requests: Some(sender), mailbox, thread: Some(thread) })
    }

    /// Sends a request without blocking.
    ///
    /// # Errors
    /// Returns [`Busy`] if the channel is full or closed.
    pub fn send(&self, request: Request) -> Result<(), Busy> {
        let Some(sender) = &self.requests else { return Err(Busy) };
        sender.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Busy,
        })
    }

    /// All updates since the last call, in order. Does not block.
    pub fn updates(&self) -> Vec<Update> {
        self.mailbox.take()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The worker treats a closed channel as a request to stop and save.
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the worker has been reported already, so the result is ignored.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
