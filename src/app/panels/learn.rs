//! The panel `Learn`.

use crate::app::context::{Context, Panel};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Learn;

impl Panel for Learn {
    fn ui(&mut self, ui: &mut egui::Ui, _context: &mut Context<'_>) {
        ui.label("Learn");
    }
}
