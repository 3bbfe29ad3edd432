//! Closing the window: asks about a run that is under way, saves it and waits for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};

use super::widgets::strong;
use super::window::App;
use crate::worker::{Phase, Request, Worker};

/// Ends the window from another thread, as a signal does. It does not depend on frames, because the system draws none of a
/// window that nobody sees.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// `None` before the window is open, and once the worker has ended.
    worker: Arc<Mutex<Option<Worker>>>,
    asked: Arc<AtomicBool>,
    context: Arc<OnceLock<egui::Context>>,
}

impl Ending {
    /// Stops a run that is under way after its batch, writes its checkpoint, and waits until that is done. The window then
    /// does nothing any more; the caller ends the program.
    pub fn save_and_stop(&self) {
        self.asked.store(true, Ordering::SeqCst);
        if let Some(context) = self.context.get() {
            context.request_repaint();
        }
        self.stop();
    }

    /// As [`Self::save_and_stop`], without a word to the user.
    pub(super) fn stop(&self) {
        // Locked until the worker has ended, so that nothing else ends the program before.
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Draws this window when it ends.
    pub(super) fn watch(&self, context: &egui::Context) {
        // An application that is made again in a test keeps the first one.
        let _ = self.context.set(context.clone());
    }

    /// Takes over the worker of the window.
    pub(super) fn put(&self, worker: Worker) {
        *self.worker.lock().unwrap_or_else(PoisonError::into_inner) = Some(worker);
    }

    /// Uses the worker; `None` if there is none, or if it is being stopped.
    pub(super) fn worker<T>(&self, use_it: impl FnOnce(&Worker) -> T) -> Option<T> {
        match self.worker.try_lock() {
            Ok(worker) => worker.as_ref().map(use_it),
            Err(TryLockError::Poisoned(worker)) => worker.into_inner().as_ref().map(use_it),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether the window is being ended from outside.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }
}

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Closing {
    /// No request to close.
    #[default]
    No,
    /// The question is shown.
    Asking,
    /// The run is being stopped; the window closes when that is done.
    Stopping,
    /// The window may close.
    Yes,
}

impl Closing {
    /// Whether the question, or the wait after it, covers the window.
    pub(super) fn is_asking(self) -> bool {
        matches!(self, Self::Asking | Self::Stopping)
    }
}

impl App {
    /// Answers a request to close, and draws the question.
    pub(super) fn closing_ui(&mut self, context: &egui::Context) {
        if self.is_ended() {
            // The run is saved and the program ends without an answer.
            self.closing = Closing::Stopping;
            return self.wait(context);
        }
        let live = self.view.status.is_live();
        if context.input(|input| input.viewport().close_requested()) && live && self.closing != Closing::Yes {
            context.send_viewport_cmd(egui::ViewportCommand::CancelClose);
            if self.closing == Closing::No {
                self.closing = Closing::Asking;
            }
        }
        match self.closing {
            Closing::No | Closing::Yes => {}
            Closing::Asking if !live => self.close(context),
            Closing::Asking => self.question(context),
            Closing::Stopping if !live => self.close(context),
            Closing::Stopping => self.wait(context),
        }
    }

    fn wait(&self, context: &egui::Context) {
        egui::Modal::new(egui::Id::unique("closing")).show(context, |ui| {
            ui.label(strong("Finishing the batch that is under way, then closing…"));
            if let Phase::Saving = self.view.phase {
                ui.label("Writing the checkpoint.");
            }
            ui.add(egui::Spinner::new());
        });
    }

    fn question(&mut self, context: &egui::Context) {
        let place = self.view.directory().map(|d| d.display().to_string()).unwrap_or_default();
        let response = egui::Modal::new(egui::Id::unique("closing")).show(context, |ui| {
            ui.set_max_width(420.0);
            ui.label(strong("A run is under way").size(17.0));
            ui.label(format!("If you save it, it can be resumed from this point: {place}"));
            ui.add_space(8.0);
            ui.horizontal_wrapped(|ui| {
                let chosen = [
                    ui.button("Save and close").clicked(),
                    ui.button("Close without saving").clicked(),
                    ui.button("Keep running").clicked(),
                ];
                chosen.iter().position(|clicked| *clicked)
            })
            .inner
        });
        match response.inner {
            Some(choice @ (0 | 1)) => {
                self.closing = Closing::Stopping;
                self.send(Request::Stop { save: choice == 0 });
            }
            Some(_) => self.closing = Closing::No,
            None if response.should_close() => self.closing = Closing::No,
            None => {}
        }
    }

    fn close(&mut self, context: &egui::Context) {
        self.closing = Closing::Yes;
        context.send_viewport_cmd(egui::ViewportCommand::Close);
    }
}
