//! Closing the window: asks about a run that is under way, saves it and waits for it.

use super::widgets::strong;
use super::window::App;
use crate::worker::{Phase, Request};

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
            Closing::Stopping => {
                egui::Modal::new(egui::Id::unique("closing")).show(context, |ui| {
                    ui.label(strong("Finishing the batch that is under way, then closing…"));
                    if let Phase::Saving = self.view.phase {
                        ui.label("Writing the checkpoint.");
                    }
                    ui.add(egui::Spinner::new());
                });
            }
        }
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
