//! The panel `Inspector`.

use crate::app::context::{Context, Panel};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Inspector;

impl Panel for Inspector {
    fn ui(&mut self, ui: &mut egui::Ui, _context: &mut Context<'_>) {
        ui.label("Inspector");
    }
}
impl Inspector {
    /// x
    pub fn open(&mut self, _: crate::worker::Subject) {}
}
