//! Bars: parts of a whole, and values by class.

use std::sync::Arc;

use egui::{
    Align2, Color32, FontId, Galley, Rect, Sense, Stroke, TextStyle, TextWrapMode, Ui, Vec2, WidgetInfo, WidgetText,
    accesskit::Role, pos2, vec2,
};

use crate::app::theme;

/// Text in at most `width` points, truncated with an ellipsis if it is longer.
pub fn elided(ui: &Ui, text: &str, font: FontId, width: f32, color: Color32) -> Arc<Galley> {
    let text = egui::RichText::new(text).font(font.clone()).color(color);
    WidgetText::from(text).into_galley(ui, Some(TextWrapMode::Truncate), width.max(8.0), font)
}

/// A part of a [`stacked`] bar.
pub struct Part<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: f64,
    /// Its colour.
    pub color: Color32,
    /// Tooltip and accessible text.
    pub describe: String,
}

/// Parts of a whole side by side, each with a tooltip.
pub fn stacked(ui: &mut Ui, parts: &[Part<'_>]) {
    let total: f64 = parts.iter().map(|part| part.value.max(0.0)).sum();
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 24.0), Sense::hover());
    let palette = theme::palette(ui);
    ui.painter().rect_filled(rect, 3, palette.line);
    if total <= 0.0 {
        return;
    }
    let font = TextStyle::Small.resolve(ui.style());
    let mut left = rect.left();
    for part in parts {
        let width = rect.width() * (part.value.max(0.0) / total) as f32;
        let piece = Rect::from_min_size(pos2(left, rect.top()), vec2(width, rect.height()));
        left += width;
        ui.painter().rect_filled(piece.shrink2(vec2(0.5, 0.0)), 2, part.color);
        let text = format!("{} {:.0} %", part.name, 100.0 * part.value / total);
        let galley = ui.painter().layout_no_wrap(text, font.clone(), theme::text_on(part.color));
        if galley.size().x + 8.0 <= width {
            let at = piece.center() - galley.size() / 2.0;
            ui.painter().galley(at, galley, Color32::PLACEHOLDER);
        }
        let response = ui.interact(piece, ui.scope_id().with(("part", part.name)), Sense::HOVER);
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &part.describe));
        response.on_hover_text(&part.describe);
    }
}

/// A class in a chart of [`bars`].
pub struct BarRow<'a> {
    /// The class, for the highlight.
    pub class: usize,
    /// Its name.
    pub name: &'a str,
    /// Colour of the name if it is highlighted.
    pub emphasis: Option<Color32>,
    /// Values and their colours, one below the other.
    pub bars: Vec<(f64, Color32)>,
    /// Numbers to the right of the bars.
    pub numbers: Vec<(String, Color32)>,
    /// Tooltip and accessible text.
    pub describe: String,
}

/// Data shared by all rows of a chart of [`bars`].
pub struct Bars<'a> {
    /// Id of this chart, unique in the window.
    pub id: &'a str,
    /// Names of all classes; the widest one determines the width of the column.
    pub names: &'a [String],
    /// Value at the right end of the axis.
    pub maximum: f64,
    /// Formats a value.
    pub write: &'a dyn Fn(f64) -> String,
    /// Lines across all rows: value, colour and description.
    pub marks: &'a [(f64, Color32, String)],
    /// Width of a number to the right of the bars.
    pub number: f32,
    /// Number of numbers per row.
    pub numbers: usize,
}

/// A chart with more rows than this scrolls.
const ROWS: usize = 20;

/// Width of the widest name, at most a third of the available width.
pub fn name_room(ui: &Ui, names: &[String], font: &FontId) -> f32 {
    let widest = names
        .iter()
        .map(|name| ui.painter().layout_no_wrap(name.clone(), font.clone(), Color32::WHITE).size().x)
        .fold(0.0, f32::max);
    widest.min(0.33 * ui.available_width()) + 8.0
}

/// Shows `count` rows of `height`, in a scroll area if there are many.
pub fn rows(ui: &mut Ui, id: &str, height: f32, count: usize, mut row: impl FnMut(&mut Ui, usize)) {
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing.y = 0.0;
        if count <= ROWS {
            (0..count).for_each(|i| row(ui, i));
        } else {
            egui::ScrollArea::vertical()
                .id_salt(id)
                .max_height(ROWS as f32 * height)
                .auto_shrink([false, true])
                .show_rows(ui, height, count, |ui, range| range.for_each(|i| row(ui, i)));
        }
    });
}

/// Horizontal bars by class.
pub fn bars<'a>(ui: &mut Ui, what: &Bars<'_>, count: usize, row: impl Fn(usize) -> BarRow<'a>) {
    let font = TextStyle::Body.resolve(ui.style());
    let small = TextStyle::Small.resolve(ui.style());
    let palette = theme::palette(ui);
    let ink = ui.visuals().text_color();
    let many = count > ROWS;
    let room = name_room(ui, what.names, &font);
    let scroll = if many { ui.spacing().scroll.allocated_width() } else { 0.0 };
    let width = ui.available_width() - room - what.number * what.numbers as f32 - scroll - 6.0;
    let x_of = |left: f32, value: f64| left + room + width * (value / what.maximum).clamp(0.0, 1.0) as f32;
    let height = if many { 19.0 } else { 24.0 };
    rows(ui, what.id, height, count, |ui, i| {
        let row = row(i);
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
        let (left, middle) = (rect.left(), rect.center().y);
        let painter = ui.painter();
        crate::app::focus::row(ui, rect, row.class);
        let ground =
            Rect::from_x_y_ranges(x_of(left, 0.0)..=x_of(left, what.maximum), rect.shrink2(vec2(0.0, 3.0)).y_range());
        painter.rect_filled(ground, 2, ui.visuals().faint_bg_color);
        let each = ground.height() / row.bars.len().max(1) as f32;
        for (place, (value, color)) in row.bars.iter().enumerate() {
            let top = ground.top() + place as f32 * each;
            let bar = Rect::from_x_y_ranges(ground.left()..=x_of(left, *value), top + 0.5..=top + each - 0.5);
            if value.is_finite() {
                painter.rect_filled(bar, 1, *color);
            }
        }
        for (value, color, _) in what.marks.iter().filter(|(value, ..)| value.is_finite()) {
            let x = x_of(left, *value);
            painter.line_segment([pos2(x, rect.top()), pos2(x, rect.bottom())], Stroke::new(1.5, *color));
        }
        let name = elided(ui, row.name, font.clone(), room - 8.0, row.emphasis.unwrap_or(ink));
        painter.galley(pos2(left, middle - name.size().y / 2.0), name, ink);
        for (place, (text, color)) in row.numbers.iter().enumerate() {
            let x = rect.right() - scroll.min(2.0) - (row.numbers.len() - 1 - place) as f32 * what.number;
            painter.text(pos2(x, middle), Align2::RIGHT_CENTER, text, font.clone(), *color);
        }
        let response = ui.interact(rect, ui.scope_id().with((what.id, i)), Sense::HOVER);
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &row.describe));
        response.on_hover_text_at_pointer(row.describe);
    });
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 14.0), Sense::hover());
    for step in 0..=4 {
        let value = what.maximum * f64::from(step) / 4.0;
        let text = (what.write)(value);
        let at = pos2(x_of(rect.left(), value), rect.top());
        ui.painter().text(at, Align2::CENTER_TOP, text, small.clone(), palette.weak);
    }
    ui.horizontal_wrapped(|ui| {
        for (_, color, name) in what.marks.iter().filter(|(.., name)| !name.is_empty()) {
            mark_key(ui, *color, name);
        }
    });
}

/// A sample of a line with its meaning.
pub fn mark_key(ui: &mut Ui, color: Color32, name: &str) {
    key(ui, vec2(2.0, 13.0), color, name);
}

/// A filled square with its meaning.
pub fn color_key(ui: &mut Ui, color: Color32, name: &str) {
    key(ui, vec2(10.0, 10.0), color, name);
}

/// Kept together, so that lines break only between entries of a legend.
fn key(ui: &mut Ui, swatch: Vec2, color: Color32, name: &str) {
    let ink = ui.visuals().text_color();
    let galley =
        ui.painter().layout(name.to_owned(), TextStyle::Small.resolve(ui.style()), ink, ui.max_rect().width() - 18.0);
    let (rect, response) =
        ui.allocate_exact_size(vec2(galley.size().x + swatch.x + 6.0, galley.size().y.max(16.0)), Sense::HOVER);
    let at = pos2(rect.left() + swatch.x / 2.0, rect.center().y);
    ui.painter().rect_filled(Rect::from_center_size(at, swatch), 2.0_f32.min(swatch.x / 2.0), color);
    let at = pos2(rect.left() + swatch.x + 5.0, rect.center().y - galley.size().y / 2.0);
    ui.painter().galley(at, galley, ink);
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, name));
}
