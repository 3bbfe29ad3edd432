//! A dialog for typing a path, where the system has no file dialog.

use std::path::PathBuf;

use super::dialogs::Purpose;
use super::widgets::{strong, weak};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct TypedPath {
    asked: Option<Purpose>,
    text: String,
}

impl TypedPath {
    /// Asks for a path.
    pub(super) fn ask(&mut self, purpose: Purpose) {
        self.text = match &purpose {
            Purpose::Save { name, .. } => name.clone(),
            Purpose::Open(_) => String::new(),
        };
        self.asked = Some(purpose);
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
            ui.label(weak(
                ui,
                "This system has no file dialog to show: type the path, or drop the file onto the window.",
            ));
            let field = ui.add(egui::TextEdit::singleline(&mut self.text).desired_width(f32::INFINITY));
            let field = field.labelled_by(title.id);
            done |= field.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            ui.horizontal(|ui| {
                done |= ui.add_enabled(!self.text.trim().is_empty(), egui::Button::new("OK")).clicked();
                cancelled |= ui.button("Cancel").clicked();
            });
        });
        if done && !self.text.trim().is_empty() {
            self.asked = None;
            return Some((purpose, PathBuf::from(self.text.trim())));
        }
        if cancelled || response.should_close() {
            self.asked = None;
        }
        None
    }
}
