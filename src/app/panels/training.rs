//! The panel `Training`.

use crate::app::context::{Context, Panel};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Training;

impl Panel for Training {
    fn ui(&mut self, ui: &mut egui::Ui, _context: &mut Context<'_>) {
        ui.label("Training");
    }
}
