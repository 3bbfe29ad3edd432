//! Arrows that the fonts lack.

use std::f32::consts::TAU;

use egui::{Button, Pos2, Response, Shape, Ui, Vec2, vec2};

/// The meaning of an arrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Icon {
    /// Counterclockwise circle: reset one value.
    Reset,
    /// To the left.
    Undo,
    /// To the right.
    Redo,
}

/// A button with an arrow. The caller must give it an accessible name.
pub(super) fn button(ui: &mut Ui, icon: Icon, enabled: bool, size: Vec2) -> Response {
    let framed = icon != Icon::Reset;
    let button = Button::new("").min_size(size).frame(framed);
    let response = ui.add_enabled_ui(enabled, |ui| {
        ui.spacing_mut().button_padding = Vec2::ZERO;
        ui.add(button)
    });
    let response = response.inner;
    let color = if enabled { ui.style().interact(&response).fg_stroke.color } else { ui.visuals().weak_text_color() };
    let center = response.rect.center();
    // Angles are clockwise from the right, in turns.
    let (radius, from, to, center) = match icon {
        Icon::Reset => (5.0, 0.05, -0.72, center),
        Icon::Undo => (5.5, 0.06, -0.5, center + vec2(0.5, 2.0)),
        Icon::Redo => (5.5, -0.56, 0.0, center + vec2(-0.5, 2.0)),
    };
    let at = |turn: f32| center + radius * Vec2::angled(turn * TAU);
    let points: Vec<Pos2> = (0..=16u8).map(|i| at(from + (to - from) * f32::from(i) / 16.0)).collect();
    ui.painter().add(Shape::line(points, (1.4, color)));
    let sign: f32 = if to > from { 1.0 } else { -1.0 };
    let forward = Vec2::angled((to + 0.25 * sign) * TAU);
    let tip = at(to) + forward * 2.6;
    let (back, side) = (tip - forward * 4.6, forward.rot90() * 3.0);
    ui.painter().add(Shape::convex_polygon(vec![tip, back + side, back - side], color, egui::Stroke::NONE));
    response
}
