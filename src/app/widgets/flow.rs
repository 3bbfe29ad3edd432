//! Cards that are side by side if there is room and otherwise below each other.

use egui::{Align, Layout, Ui};

use super::{card, scrolled, strong};

/// Minimum width for two columns, in points.
const WIDE: f32 = 900.0;

/// The position of a part of a panel.
pub struct Flow<'a, P> {
    /// Full width, above everything else.
    pub top: &'a [P],
    /// The left column.
    pub left: &'a [P],
    /// The right column.
    pub right: &'a [P],
    /// All parts, in the order of a single column.
    pub narrow: &'a [P],
}

/// Shows the parts of a panel in two columns or, if it is narrow, in one; the whole scrolls.
pub fn flow<P: Copy>(ui: &mut Ui, parts: &Flow<'_, P>, mut show: impl FnMut(&mut Ui, P)) {
    // The same width with and without a scroll bar: otherwise, at some heights, the text fits only while there is none, and
    // the bar comes and goes in every frame.
    let width = ui.available_width() - ui.spacing().scroll.allocated_width();
    scrolled(ui, egui::ScrollArea::vertical().auto_shrink(false), |ui| {
        ui.set_max_width(width);
        parts.top.iter().for_each(|part| show(ui, *part));
        if ui.available_width() >= WIDE {
            let columns = [parts.left, parts.right];
            ui.columns(columns.len(), |uis| {
                for (ui, parts) in uis.iter_mut().zip(columns) {
                    parts.iter().for_each(|part| show(ui, *part));
                }
            });
        } else {
            parts.narrow.iter().for_each(|part| show(ui, *part));
        }
    });
}

/// A full-width card with controls to the right of its title, which has a tooltip.
pub fn section(
    ui: &mut Ui,
    title: &str,
    explanation: Option<&str>,
    controls: impl FnOnce(&mut Ui),
    contents: impl FnOnce(&mut Ui),
) {
    card(ui, "", |ui| {
        ui.set_width(ui.available_width());
        ui.horizontal(|ui| {
            let title = ui.label(strong(title));
            if let Some(explanation) = explanation {
                title.on_hover_text(explanation);
            }
            ui.with_layout(Layout::right_to_left(Align::Center), controls);
        });
        contents(ui);
    });
}
