//! The panel `Compare`.

use crate::app::context::{Context, Panel};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Compare;

impl Panel for Compare {
    fn ui(&mut self, ui: &mut egui::Ui, _context: &mut Context<'_>) {
        ui.label("Compare");
    }
}
