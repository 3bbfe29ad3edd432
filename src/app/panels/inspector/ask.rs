//! Repeats a request to the worker when its inputs change, but not for every movement of a slider.

use egui::Ui;

use crate::worker::Failure;

/// Seconds from a change to the request: a drag sends several requests.
const DEBOUNCE: f64 = 0.15;
/// After this many seconds, an unchanged failure counts as a new one.
const PATIENCE: f64 = 1.0;

/// The last request, and whether its answer is pending. `J` contains everything that the answer depends on.
#[derive(Debug)]
pub(super) struct Asking<J> {
    last: Option<J>,
    id: u64,
    waiting: bool,
    asked_at: f64,
    changed_at: Option<f64>,
    failure: Option<Failure>,
}

impl<J> Default for Asking<J> {
    fn default() -> Self {
        Self { last: None, id: 0, waiting: false, asked_at: 0.0, changed_at: None, failure: None }
    }
}

impl<J: Clone + PartialEq> Asking<J> {
    /// Whether to send a request now: `wanted` has differed from the last request for long enough. Returns the id of
    /// the request.
    pub(super) fn due(&mut self, ui: &Ui, wanted: &J, failure: Option<&Failure>) -> Option<u64> {
        if self.last.as_ref() == Some(wanted) {
            self.changed_at = None;
            return None;
        }
        let now = ui.input(|input| input.time);
        // The first request does not have to wait for the end of a drag.
        let left = match &self.last {
            None => 0.0,
            Some(_) => DEBOUNCE - (now - *self.changed_at.get_or_insert(now)),
        };
        if left > 0.0 {
            ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(left));
            return None;
        }
        self.last = Some(wanted.clone());
        self.id += 1;
        (self.waiting, self.asked_at, self.changed_at) = (true, now, None);
        self.failure = failure.cloned();
        Some(self.id)
    }

    /// Whether the answer with this id belongs to the last request, which is then no longer pending.
    pub(super) fn accepts(&mut self, id: u64) -> bool {
        let newest = id == self.id;
        self.waiting &= !newest;
        newest
    }

    /// Whether an answer is pending or a request is about to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting || self.changed_at.is_some()
    }

    /// The failure that came instead of the pending answer; `doing` identifies the failures of this kind of request.
    pub(super) fn failed<'f>(&self, ui: &Ui, failure: Option<&'f Failure>, doing: &str) -> Option<&'f Failure> {
        let failure = failure.filter(|failure| self.waiting && failure.doing == doing)?;
        let late = ui.input(|input| input.time) - self.asked_at > PATIENCE;
        (late || self.failure.as_ref() != Some(failure)).then_some(failure)
    }
}
