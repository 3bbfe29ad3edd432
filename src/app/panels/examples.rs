//! The panel `Examples`.

use crate::app::context::{Context, Panel};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Examples;

impl Panel for Examples {
    fn ui(&mut self, ui: &mut egui::Ui, _context: &mut Context<'_>) {
        ui.label("Examples");
    }
}
