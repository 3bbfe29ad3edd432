//! The worker's state beyond a run: requests, settings that outlive a run, and jobs that wait for an engine.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Instant;

use super::cell::{COUNTING, CellWork};
use super::failure;
use super::inspect::{INSPECTING, InspectionJob, MAPPING, MapJob, inspect, map};
use super::mailbox::Mailbox;
use super::seek::{SeekState, SeekWork};
use super::{ExamplesWish, Phase, Request, Speed, Update};
use crate::engine::{Engine, EngineError};

/// See the [module](self).
pub(super) struct Desk<'a> {
    requests: &'a Receiver<Request>,
    mailbox: &'a Mailbox,
    /// Requests to handle after the ending run.
    later: VecDeque<Request>,
    closed: bool,
    pub(super) wish: Option<ExamplesWish>,
    pub(super) speed: Speed,
    inspection: Option<Box<InspectionJob>>,
    map: Option<Box<MapJob>>,
    cell: Option<CellWork>,
    seek: Option<SeekWork>,
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
            speed: Speed::Full,
            inspection: None,
            map: None,
            cell: None,
            seek: None,
            phase: Phase::Idle,
        }
    }

    /// Sends an update.
    pub(super) fn tell(&self, update: Update) {
        self.mailbox.put(update);
    }

    /// Sends the phase if it has changed.
    pub(super) fn phase(&mut self, phase: Phase) {
        if self.phase != phase {
            self.phase = phase.clone();
            self.tell(Update::Phase(phase));
        }
    }

    /// The phase sent last.
    pub(super) fn current_phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether the request channel is closed.
    pub(super) fn closed(&self) -> bool {
        self.closed
    }

    /// The next waiting request; `None` if there is none.
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

    /// The next request; blocks until `deadline` if there is one. `None` on a timeout or if the channel is closed.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Option<Request> {
        let received = match deadline {
            Some(deadline) => self.requests.recv_timeout(deadline.saturating_duration_since(Instant::now())),
            None => self.requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        self.closed |= matches!(received, Err(RecvTimeoutError::Disconnected));
        received.ok()
    }

    /// The next request while there is no run: a postponed one, or a new one.
    pub(super) fn next_between_runs(&mut self) -> Option<Request> {
        match self.later.pop_front() {
            Some(request) => Some(request),
            None => self.next(None),
        }
    }

    /// Whether a postponed request opens another network.
    pub(super) fn awaits_a_network(&self) -> bool {
        let opens = |request: &Request| {
            matches!(request, Request::Begin { .. } | Request::Resume { .. } | Request::Look { .. })
        };
        self.later.iter().any(opens)
    }

    /// Gives up the work that takes many portions.
    pub(super) fn drop_long_jobs(&mut self) {
        (self.cell, self.seek) = (None, None);
    }

    /// Postpones a request until there is no run.
    pub(super) fn put_off(&mut self, request: Request) {
        self.later.push_back(request);
    }

    /// Handles a request that does not depend on a run; returns any other.
    pub(super) fn take(&mut self, request: Request) -> Option<Request> {
        match request {
            Request::Speed(speed) => self.speed = speed,
            Request::Examples(wish) => self.wish = wish,
            Request::Inspect(job) => self.inspection = Some(job),
            Request::Map(job) => self.map = Some(job),
            Request::Cell(job) => self.cell = job.map(CellWork::new),
            Request::Seek(job) => self.seek = job.map(SeekWork::new),
            other => return Some(other),
        }
        None
    }

    /// Whether a job waits for an engine.
    pub(super) fn has_jobs(&self) -> bool {
        self.inspection.is_some() || self.map.is_some() || self.cell.is_some() || self.seek.is_some()
    }

    /// Runs the waiting jobs, of the longer ones one portion. They do not change the engine's state.
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
        if let Some(mut work) = self.cell.take() {
            match work.portion(engine, position) {
                Ok(found) => {
                    if !found.done {
                        self.cell = Some(work);
                    }
                    self.tell(Update::Cell(found.into()));
                }
                Err(error) => self.tell(Update::Failed(failure::of_job(COUNTING, &work.name(), &error))),
            }
        }
        if let Some(mut work) = self.seek.take() {
            let sought = work.portion(engine);
            if sought.state == SeekState::Trying {
                self.seek = Some(work);
            }
            self.tell(Update::Sought(sought));
        }
    }

    /// Reports for each waiting job why the engine cannot run it.
    pub(super) fn fail_jobs(&mut self, error: &EngineError) {
        if let Some(job) = self.inspection.take() {
            self.tell(Update::Failed(failure::of_job(INSPECTING, &job.subject.name, error)));
        }
        if let Some(job) = self.map.take() {
            self.tell(Update::Failed(failure::of_job(MAPPING, &job.subject.name, error)));
        }
        if let Some(work) = self.cell.take() {
            self.tell(Update::Failed(failure::of_job(COUNTING, &work.name(), error)));
        }
        if let Some(work) = self.seek.take() {
            self.tell(Update::Sought(work.failed(error)));
        }
    }

    /// Reports for each waiting job that no network is open.
    pub(super) fn refuse_jobs(&mut self) {
        if self.inspection.take().is_some() {
            self.tell(Update::Failed(failure::no_network(INSPECTING)));
        }
        if self.map.take().is_some() {
            self.tell(Update::Failed(failure::no_network(MAPPING)));
        }
        if self.cell.take().is_some() {
            self.tell(Update::Failed(failure::no_network(COUNTING)));
        }
        if let Some(work) = self.seek.take() {
            self.tell(Update::Sought(work.refused()));
        }
    }
}
