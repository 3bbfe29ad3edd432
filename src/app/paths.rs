//! A dialog for typing a path, where the system has no file dialog or it does not answer.

use std::path::{Path, PathBuf};
use std::time::Instant;

use egui::text::{CCursor, CCursorRange};

use super::dialogs::{PATIENCE, Purpose};
use super::widgets::{strong, weak};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct TypedPath {
    asked: Option<Purpose>,
    text: String,
    /// Whether the field has to take the focus.
    new: bool,
}

impl TypedPath {
    /// Asks for a path, starting from `suggestion`.
    pub(super) fn ask(&mut self, purpose: Purpose, suggestion: &Path) {
        self.text = suggestion.display().to_string();
        self.asked = Some(purpose);
        self.new = true;
    }

    /// Whether it is open and takes the keyboard input.
    pub(super) fn is_open(&self) -> bool {
        self.asked.is_some()
    }

    /// Draws the dialog; returns the answer.
    pub(super) fn ui(&mut self, context: &egui::Context) -> Option<(Purpose, PathBuf)> {
        let purpose = self.asked.clone()?;
        let (mut done, mut cancelled) = (false, false);
        let response = egui::Modal::new(egui::Id::unique("typed-path")).show(context, |ui| {
            ui.set_width(440.0_f32.min(context.content_rect().width() - 40.0));
            let title = ui.label(strong(purpose.title()));
            ui.label(weak(ui, format!("The system shows no file dialog. {}", purpose.typed())));
            let mut field = egui::TextEdit::singleline(&mut self.text).desired_width(f32::INFINITY).show(ui);
            if std::mem::take(&mut self.new) {
                field.response.request_focus();
                let end = CCursor::new(self.text.chars().count());
                field.state.cursor.set_char_range(Some(CCursorRange::one(end)));
                field.state.store(context, field.response.id);
            }
            done |= field.response.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            let response: egui::Response = (*field.response).clone();
            response.labelled_by(title.id);
            ui.horizontal(|ui| {
                done |= ui.add_enabled(!self.text.trim().is_empty(), egui::Button::new("OK")).clicked();
                cancelled |= ui.button("Cancel").clicked();
            });
        });
        if done && !self.text.trim().is_empty() {
            self.asked = None;
            return Some((purpose, PathBuf::from(self.text.trim())));
        }
        if done {
            // Enter takes the focus from the field.
            self.new = true;
        }
        if cancelled || response.should_close() {
            self.asked = None;
        }
        None
    }
}

/// Offers to type the path, while a dialog that was asked for `since` does not answer: it may be open on another screen, or
/// never come. Returns whether the user accepts.
pub(super) fn offer(context: &egui::Context, since: Instant) -> bool {
    let waited = since.elapsed();
    if waited < PATIENCE {
        context.request_repaint_after(PATIENCE - waited);
        return false;
    }
    let area = egui::Window::new("Waiting for the file dialog").collapsible(false).resizable(false);
    let shown = area.anchor(egui::Align2::CENTER_TOP, [0.0, 60.0]).show(context, |ui| {
        ui.label("The system has been asked for a file dialog. If there is none to be seen, type the path.");
        ui.button("Type the path").clicked()
    });
    shown.and_then(|shown| shown.inner).unwrap_or_default()
}
