//! Cards that stand side by side where there is room and below each other where not.

use egui::{Align, Layout, Ui};

use super::{card, strong};

/// From this width on there are two columns, in points.
const WIDE: f32 = 900.0;

/// Shows parts of a panel in two columns or, where it is narrow, in one; the whole scrolls.
pub fn flow<P: Copy>(ui: &mut Ui, left: &[P], right: &[P], narrow: &[P], mut show: impl FnMut(&mut Ui, P)) {
    let columns = [left, right];
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        if ui.available_width() >= WIDE {
            ui.columns(columns.len(), |uis| {
                for (ui, parts) in uis.iter_mut().zip(columns) {
                    parts.iter().for_each(|part| show(ui, *part));
                }
            });
        } else {
            narrow.iter().for_each(|part| show(ui, *part));
        }
    });
}

/// A card over the whole width, with controls at the right of its title.
pub fn section(ui: &mut Ui, title: &str, controls: impl FnOnce(&mut Ui), contents: impl FnOnce(&mut Ui)) {
    card(ui, "", |ui| {
        ui.set_width(ui.available_width());
        ui.horizontal(|ui| {
            ui.label(strong(title));
            ui.with_layout(Layout::right_to_left(Align::Center), controls);
        });
        contents(ui);
    });
}
