//! What the worker has in hand beside a run: requests, wishes that outlive a run, and jobs that wait for an engine.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use super::failure;
use super::inspect::{INSPECTING, InspectionJob, MAPPING, MapJob, inspect, map};
use super::mailbox::Mailbox;
use super::{ExamplesWish, Phase, Request, Update};
use crate::engine::{Engine, EngineError};

/// See the [module](self).
pub(super) struct Desk<'a> {
    requests: &'a Receiver<Request>,
    mailbox: &'a Mailbox,
    /// Requests for when the run that is ending has ended.
    later: VecDeque<Request>,
    closed: bool,
    pub(super) wish: Option<ExamplesWish>,
    pub(super) slow: Duration,
    inspection: Option<Box<InspectionJob>>,
    map: Option<Box<MapJob>>,
    phase: Phase,
}

impl<'a> Desk<'a> {
    pub(super) fn new(requests: &'a Receiver<Request>, mailbox: &'a Mailbox) -> Self {
        mailbox.put(Update::Phase(Phase::Idle));
        Self {
            requests,
            mailbox,
            later: VecDeque::new(),
            closed: false,
            wish: None,
            slow: Duration::ZERO,
            inspection: None,
            map: None,
            phase: Phase::Idle,
        }
    }

    /// Tells something.
    pub(super) fn tell(&self, update: Update) {
        self.mailbox.put(update);
    }

    /// Tells what is being done, if that is news.
    pub(super) fn phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase.clone();
            self.tell(Update::Phase(phase));
        }
    }

    /// What was told last.
    pub(super) fn current_phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether nobody can ask for anything any more.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// A request that is there already.
    pub(super) fn waiting(&mut self) -> Option<Request> {
        match self.requests.try_recv() {
            Ok(request) => Some(request),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.closed = true;
                None
            }
        }
    }

    /// The next request, waiting for it until `deadline` if there is one; none when it does not come.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Option<Request> {
        let received = match deadline {
            Some(deadline) => self.requests.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        self.closed |= matches!(received, Err(RecvTimeoutError::Disconnected));
        received.ok()
    }

    /// The next request while there is no run: one that was put off, or a new one.
    pub(super) fn next_between_runs(&mut self) -> Option<Request> {
        match self.later.pop_front() {
            Some(request) => Some(request),
            None => self.next(None),
        }
    }

    /// Keeps a request until there is no run.
    pub(super) fn put_off(&mut self, request: Request) {
        self.later.push_back(request);
    }

    /// Takes up what does not depend on a run; gives back what does.
    pub(super) fn take(&mut self, request: Request) -> Option<Request> {
        match request {
            Request::Slow(duration) => self.slow = duration,
            Request::Examples(wish) => self.wish = wish,
            Request::Inspect(job) => self.inspection = Some(job),
            Request::Map(job) => self.map = Some(job),
            other => return Some(other),
        }
        None
    }

    /// Whether a job waits for an engine.
    pub(super) fn has_jobs(&self) -> bool {
        self.inspection.is_some() || self.map.is_some()
    }

    /// Does the jobs that wait. They leave the engine's state as it is.
    pub(super) fn do_jobs(&mut self, engine: &mut dyn Engine, position: Option<f64>) {
        if let Some(job) = self.inspection.take() {
            match inspect(engine, &job, position) {
                Ok(inspection) => self.tell(Update::Inspected(inspection.into())),
                Err(error) => self.tell(Update::Failed(failure::of_job(INSPECTING, &job.subject.name, &error))),
            }
        }
        if let Some(job) = self.map.take() {
            match map(engine, &job, position) {
                Ok(map) => self.tell(Update::Mapped(map.into())),
                Err(error) => self.tell(Update::Failed(failure::of_job(MAPPING, &job.subject.name, &error))),
            }
        }
    }

    /// Says of the jobs that wait why the engine cannot do them.
    pub(super) fn fail_jobs(&mut self, error: &EngineError) {
        if let Some(job) = self.inspection.take() {
            self.tell(Update::Failed(failure::of_job(INSPECTING, &job.subject.name, error)));
        }
        if let Some(job) = self.map.take() {
            self.tell(Update::Failed(failure::of_job(MAPPING, &job.subject.name, error)));
        }
    }

    /// Says of jobs that there is no engine for them.
    pub(super) fn refuse_jobs(&mut self) {
        if self.inspection.take().is_some() {
            self.tell(Update::Failed(failure::no_network(INSPECTING)));
        }
        if self.map.take().is_some() {
            self.tell(Update::Failed(failure::no_network(MAPPING)));
        }
    }
}
