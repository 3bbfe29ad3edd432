//! The panel `Experiment`.

use crate::app::context::{Context, Panel};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Experiment;

impl Panel for Experiment {
    fn ui(&mut self, ui: &mut egui::Ui, _context: &mut Context<'_>) {
        ui.label("Experiment");
    }
}
