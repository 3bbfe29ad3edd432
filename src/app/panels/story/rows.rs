//! The rows: bars that move from one epoch to the next.

use std::sync::Arc;

use egui::{Align2, Color32, Rect, Sense, Stroke, TextStyle, Ui, WidgetInfo, accesskit::Role, pos2, vec2};

use super::told;
use crate::app::context::Context;
use crate::app::focus;
use crate::app::theme::{self, Palette};
use crate::app::view::RunView;
use crate::app::widgets::picture::{self, Textures};
use crate::app::widgets::{color_key, epsilon, mark_key, name_room, percent, weak};
use crate::data::Dataset;
use crate::evaluate::figure_context;
use crate::evaluate::figures::{Story, StoryColumn, StoryQuantity, StoryRow, StoryScale};

/// Seconds that a bar takes from one epoch's value to the next.
const MOVES_FOR: f32 = 0.3;
/// Width of a number beside its bar; in narrow columns numbers are small.
const NUMBER: f32 = 74.0;
const SMALL_NUMBER: f32 = 61.0;
/// Width of the mark of a value that is no bar.
const POINT: f32 = 5.0;
/// In a panel that scrolls as a whole: height of a row, and the number of them that are shown of many.
const LOW: f32 = 26.0;
const MOST: f32 = 20.0;
/// Minimum width of the panel for pictures of the most frequent mistake, and for its name.
const PICTURES: f32 = 860.0;
const NAMED: f32 = 640.0;
/// Columns narrower than this have short titles and small numbers.
const NARROW: f32 = 130.0;

/// Columns narrower than this have no room for a bar beside its number; then fewer columns are shown.
const LEAST: f32 = 88.0;
/// The same if the panel is wide enough for pictures, which take the room of two columns.
const LEAST_BESIDE_PICTURES: f32 = 104.0;

/// A column of bars or points.
struct Column {
    what: StoryColumn,
    tooltip: &'static str,
    color: Color32,
}

impl Column {
    fn new(what: StoryColumn, palette: &Palette) -> Self {
        let (tooltip, color) = match what.quantity {
            StoryQuantity::Cfps => ("Share of all mistakes that landed on this class", palette.gap),
            StoryQuantity::Target => ("Probability that an image is attacked towards this class", palette.accent),
            StoryQuantity::Epsilon => ("Radius of the attack on images of this class", palette.accent),
            StoryQuantity::Decimal | StoryQuantity::Number => ("What the method adapted for this class", palette.good),
        };
        Self { what, tooltip, color }
    }

    fn write(&self, value: f64) -> String {
        match self.what.quantity {
            StoryQuantity::Cfps | StoryQuantity::Target => percent(value),
            StoryQuantity::Epsilon => levels(value),
            StoryQuantity::Decimal => format!("{value:.3}"),
            StoryQuantity::Number => ((1000.0 * value).round() / 1000.0).to_string(),
        }
    }

    /// What the column is, of which images, and where its line or its ends are.
    fn explain(&self, statistics: &str) -> String {
        let counted = match self.what.quantity {
            StoryQuantity::Cfps => format!(": {statistics}"),
            _ => String::new(),
        };
        let scale = match (self.what.scale, self.what.scale.marked()) {
            (_, Some(marked)) => format!("Line: {}, {}.", self.what.mark, self.write(marked)),
            (StoryScale::Between { low, high }, None) => {
                format!("From {} on the left to {} on the right.", self.write(low), self.write(high))
            }
            (_, None) => String::new(),
        };
        format!("{}{counted}. {scale}", self.tooltip)
    }
}

/// The horizontal extent of each part of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Layout {
    name: f32,
    column: f32,
    mistake: f32,
    pictures: bool,
    /// Number of columns before the accuracy.
    columns: usize,
}

impl Layout {
    /// The widest arrangement of `wanted` columns within `width`: with less room first without pictures, then without
    /// the most frequent mistake, then with fewer columns.
    fn new(width: f32, name: f32, wanted: usize, with_pictures: bool) -> Self {
        let of = |mistake: f32, pictures: bool, columns: usize| {
            let column = (width - name - mistake) / (columns + 1) as f32;
            Self { name, column, mistake, pictures, columns }
        };
        let mut all = Vec::new();
        if with_pictures && width >= PICTURES {
            all.push((of((0.22 * width).clamp(190.0, 260.0), true, wanted), LEAST_BESIDE_PICTURES));
        }
        if width >= NAMED {
            all.push((of(130.0, false, wanted), LEAST));
        }
        all.extend((1..=wanted).rev().map(|columns| (of(0.0, false, columns), LEAST)));
        let fits = all.into_iter().find(|(layout, least)| layout.column >= *least);
        fits.map_or_else(|| of(0.0, false, wanted.min(1)), |(layout, _)| layout)
    }
}

/// Shows the rows of these classes; returns the cell of the confusion matrix that was clicked. `scrolls` says whether the
/// panel scrolls as a whole.
pub(super) fn show(
    ui: &mut Ui,
    context: &Context<'_>,
    facts: &Story,
    order: &[usize],
    portraits: &mut Portraits,
    scrolls: bool,
) -> Option<(usize, usize)> {
    let run = context.run;
    let palette = theme::palette(ui);
    let base = run.experiment.as_ref().map_or(0.0, |experiment| experiment.attack.epsilon.exact());
    let columns: Vec<Column> = facts.columns(base).into_iter().map(|column| Column::new(column, palette)).collect();
    let font = TextStyle::Body.resolve(ui.style());
    let scroll = ui.spacing().scroll.allocated_width();
    let width = ui.available_width() - scroll;
    let name = name_room(ui, run.class_names(), &font).min(0.2 * width) + 16.0;
    let layout = Layout::new(width, name, columns.len(), order.len() <= super::MANY);
    let (shown, left_out) = columns.split_at(layout.columns);
    // As high as it was in the last frame, because its lines wrap.
    let foot_id = ui.scope_id().with("foot");
    let foot = ui.data(|data| data.get_temp::<f32>(foot_id)).unwrap_or(40.0);
    let height = match ui.available_height() - foot - 24.0 {
        _ if scrolls => LOW,
        room if order.len() <= super::MANY => (room / order.len() as f32).clamp(24.0, 40.0),
        _ => 22.0,
    };
    let x = ui.max_rect().left();
    header(ui, x, &layout, shown, facts, run);
    if layout.pictures {
        portraits.renew(run);
    }
    let mut clicked = None;
    let each = height - ui.spacing().item_spacing.y;
    let mut row = |ui: &mut Ui, class: usize| {
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), each), Sense::hover());
        let row = Row { run, facts, class, rect, x, layout: &layout };
        focus::row(ui, rect, class);
        row.show(ui, shown, left_out);
        if row.mistake(ui, portraits) {
            clicked = facts.rows[class].confused.map(|(other, _)| (class, other));
        }
    };
    if scrolls && order.len() <= super::MANY {
        order.iter().for_each(|class| row(ui, *class));
    } else {
        let most = if scrolls { LOW * MOST } else { (ui.available_height() - foot).max(80.0) };
        egui::ScrollArea::vertical()
            .id_salt("rows")
            .max_height(most)
            .min_scrolled_height(if scrolls { most } else { 64.0 })
            .auto_shrink([false, true])
            .show_rows(ui, each, order.len(), |ui, range| order[range].iter().for_each(|class| row(ui, *class)));
    }
    let found = ui.vertical(|ui| legend(ui, shown, left_out)).response.rect.height() + ui.spacing().item_spacing.y;
    if found != foot {
        ui.data_mut(|data| data.insert_temp(foot_id, found));
        ui.request_repaint();
    }
    clicked
}

/// The meaning of colours and lines, and the columns that have no room.
fn legend(ui: &mut Ui, shown: &[Column], left_out: &[Column]) {
    let palette = theme::palette(ui);
    ui.horizontal_wrapped(|ui| {
        color_key(ui, palette.robust, "robust");
        color_key(ui, palette.worst, "robust, worst class");
        color_key(ui, palette.clean, "clean");
        mark_key(ui, ui.visuals().text_color(), "95 % interval; what the rule says");
        let mut marks: Vec<&str> = Vec::new();
        for mark in shown.iter().map(|column| column.what.mark) {
            if !mark.is_empty() && !marks.contains(&mark) {
                marks.push(mark);
            }
        }
        let from = if shown.iter().all(|column| column.what.scale.start() == Some(0.5)) {
            "bars begin there, each column is zoomed to its values"
        } else {
            "each column is zoomed to its values"
        };
        mark_key(ui, palette.weak, &format!("{}: {from}", marks.join(", ")));
    });
    if !left_out.is_empty() {
        let names: Vec<&str> = left_out.iter().map(|column| column.what.short).collect();
        let text = format!("No room for {}: the tooltip of each row has the values.", names.join(", "));
        ui.label(weak(ui, text).small());
    }
}

/// A radius in levels of 255.
pub(super) fn levels(value: f64) -> String {
    format!("{}/255", (25_500.0 * value).round() / 100.0)
}

/// The titles above the columns.
fn header(ui: &mut Ui, left: f32, layout: &Layout, columns: &[Column], facts: &Story, run: &RunView) {
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 20.0), Sense::hover());
    let small = TextStyle::Small.resolve(ui.style());
    let color = ui.visuals().strong_text_color();
    let statistics = run.experiment.as_deref().map(|experiment| figure_context(experiment, &[]).statistics);
    let statistics = statistics.unwrap_or_default();
    let put = |index: usize, title: &str, tooltip: &str, width: f32| {
        let from = left + layout.name + index as f32 * layout.column;
        let place = Rect::from_min_size(pos2(from, rect.top()), vec2(width, 20.0));
        let galley = crate::app::widgets::elided(ui, title, small.clone(), width - 8.0, color);
        ui.painter().galley(place.left_center() - vec2(0.0, galley.size().y / 2.0), galley, color);
        let response = ui.interact(place, ui.scope_id().with(("column", index)), Sense::HOVER);
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, title));
        response.on_hover_text(tooltip);
    };
    for (index, column) in columns.iter().enumerate() {
        let title = if layout.column < NARROW { column.what.short } else { &column.what.title };
        let tooltip = format!("{}: {}", column.what.title, column.explain(&statistics));
        put(index, title, &tooltip, layout.column);
    }
    let after = facts.measured.map_or_else(String::new, |epoch| format!(", after epoch {}", epoch + 1));
    let tooltip = "Clean and robust accuracy of the validation images of this class";
    let title = if layout.column < NARROW { "Accuracy".to_owned() } else { format!("Accuracy{after}") };
    put(columns.len(), &title, tooltip, layout.column);
    if layout.mistake > 0.0 {
        let tooltip = "The class that images of this class are most often mistaken for under the evaluation attack";
        let title = if layout.pictures { "Most often mistaken for" } else { "Mistaken for" };
        put(columns.len() + 1, title, tooltip, layout.mistake);
    }
}

/// An image of each class: of the validation split, or of the training images.
#[derive(Debug, Default)]
pub(super) struct Portraits {
    /// The training images that they were chosen for.
    of: Option<Arc<Dataset>>,
    chosen: Vec<Option<(Arc<Dataset>, usize)>>,
    textures: Textures,
}

impl Portraits {
    /// Chooses them again if another run is open.
    fn renew(&mut self, run: &RunView) {
        let Some(info) = run.info.as_ref() else { return };
        if self.of.as_ref().is_some_and(|known| Arc::ptr_eq(known, &info.train)) {
            return;
        }
        let of = |class: usize| {
            [&info.validation, &info.train].into_iter().find_map(|set| {
                let index = set.labels().iter().position(|label| *label as usize == class)?;
                Some((Arc::clone(set), index))
            })
        };
        let chosen = (0..run.class_names().len()).map(of).collect();
        *self = Self { of: Some(Arc::clone(&info.train)), chosen, textures: Textures::default() };
    }

    fn texture(&mut self, context: &egui::Context, class: usize) -> Option<&egui::TextureHandle> {
        let (set, index) = self.chosen.get(class)?.as_ref()?;
        let draw = || {
            let values: Vec<f32> = set.image(*index).iter().map(|v| f32::from(*v) / 255.0).collect();
            picture::plain(&values, set.shape())
        };
        Some(self.textures.get(context, class, draw))
    }
}

struct Row<'a> {
    run: &'a RunView,
    facts: &'a Story,
    class: usize,
    rect: Rect,
    /// Left end of the panel's content.
    x: f32,
    layout: &'a Layout,
}

impl Row<'_> {
    fn facts(&self) -> &StoryRow {
        &self.facts.rows[self.class]
    }

    /// `value`, on its way from the last one of this run.
    fn moving(&self, ui: &Ui, what: usize, value: f64) -> f64 {
        let run = self.run.info.as_ref().map(|info| Arc::as_ptr(&info.train).addr());
        let id = ui.scope_id().with(("moving", run, self.class, what));
        f64::from(ui.ctx().animate_value_with_time(id, value as f32, MOVES_FOR))
    }

    fn show(&self, ui: &mut Ui, columns: &[Column], left_out: &[Column]) {
        let palette = theme::palette(ui);
        let names = self.run.class_names();
        let swatch = Rect::from_center_size(pos2(self.x + 5.0, self.rect.center().y), vec2(8.0, 14.0));
        ui.painter().rect_filled(swatch, 2, theme::class_color(self.class, ui.visuals().dark_mode));
        let name = super::name(ui, &names[self.class], self.layout.name - 22.0);
        let at = pos2(self.x + 14.0, self.rect.center().y - name.size().y / 2.0);
        ui.painter().galley(at, name, ui.visuals().text_color());
        for (index, column) in columns.iter().enumerate() {
            self.bar(ui, index, column, palette);
        }
        self.accuracy(ui, columns.len(), palette);
        let response = ui.interact(self.rect, ui.scope_id().with(("row", self.class)), Sense::HOVER);
        let text = self.describe(columns.iter().chain(left_out));
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
        response.on_hover_text_at_pointer(text);
    }

    /// The font of numbers.
    fn font(&self, ui: &Ui) -> egui::FontId {
        let style = if self.layout.column < NARROW { TextStyle::Small } else { TextStyle::Body };
        style.resolve(ui.style())
    }

    /// The rectangle of the bars of a column, without its number.
    fn place(&self, index: usize) -> Rect {
        let left = self.x + self.layout.name + index as f32 * self.layout.column;
        let number = if self.layout.column < NARROW { SMALL_NUMBER } else { NUMBER };
        let width = (self.layout.column - number - 12.0).max(12.0);
        Rect::from_min_size(pos2(left, self.rect.top() + 3.0), vec2(width, self.rect.height() - 6.0))
    }

    fn bar(&self, ui: &Ui, index: usize, column: &Column, palette: &Palette) {
        let (place, painter) = (self.place(index), ui.painter());
        painter.rect_filled(place, 2, ui.visuals().faint_bg_color);
        let scale = column.what.scale;
        // A point has no beginning, and lies within the ends as a whole.
        let within = if scale.start().is_none() { place.shrink2(vec2(POINT / 2.0, 0.0)) } else { place };
        let at = |share: f64| within.left() + within.width() * share as f32;
        let x_of = |value: f64| at(scale.place(value));
        let font = self.font(ui);
        let (text, color) = match column.what.values[self.class] {
            Some(value) => {
                let to = x_of(self.moving(ui, index, value));
                let band = place.shrink2(vec2(0.0, 2.0)).y_range();
                let point = (to - POINT / 2.0, to + POINT / 2.0);
                let ends = scale.start().map_or(point, |start| (at(start).min(to), at(start).max(to)));
                painter.rect_filled(Rect::from_x_y_ranges(ends.0..=ends.1, band), 1, column.color);
                (column.write(value), ui.visuals().text_color())
            }
            None => ("–".to_owned(), palette.weak),
        };
        if let Some(marked) = scale.marked() {
            painter.vline(x_of(marked), self.rect.y_range(), Stroke::new(1.0, palette.weak));
        }
        if let Some(rule) = column.what.rule[self.class] {
            painter.vline(x_of(rule), place.y_range(), Stroke::new(2.0, ui.visuals().text_color()));
        }
        painter.text(pos2(place.right() + 5.0, self.rect.center().y), Align2::LEFT_CENTER, text, font, color);
    }

    fn accuracy(&self, ui: &Ui, index: usize, palette: &Palette) {
        let (place, painter) = (self.place(index), ui.painter());
        painter.rect_filled(place, 2, ui.visuals().faint_bg_color);
        let x_of = |value: f64| place.left() + place.width() * value.clamp(0.0, 1.0) as f32;
        if let Some(clean) = self.facts().clean {
            let to = x_of(self.moving(ui, index, clean.value));
            let bar = Rect::from_x_y_ranges(place.left()..=to, place.y_range());
            painter.rect_filled(bar, 1, palette.clean.gamma_multiply(0.45));
        }
        let font = self.font(ui);
        let Some(robust) = self.facts().robust else {
            let at = pos2(place.right() + 5.0, self.rect.center().y);
            painter.text(at, Align2::LEFT_CENTER, "–", font, palette.weak);
            return;
        };
        let is_worst = self.facts.extremes().is_some_and(|(worst, _)| worst == self.class);
        let color = if is_worst { palette.worst } else { palette.robust };
        let to = x_of(self.moving(ui, index + 1, robust.value));
        let bar = Rect::from_x_y_ranges(place.left()..=to, place.shrink2(vec2(0.0, place.height() / 4.0)).y_range());
        painter.rect_filled(bar, 1, color);
        if let Some([low, high]) = robust.interval {
            // A dark edge, because the line crosses bars of light colours.
            let (ends, y) = (x_of(low)..=x_of(high), place.center().y);
            painter.hline(*ends.start() - 1.0..=*ends.end() + 1.0, y, Stroke::new(4.0, ui.visuals().panel_fill));
            painter.hline(ends, y, Stroke::new(1.5, ui.visuals().text_color()));
        }
        let at = pos2(place.right() + 5.0, self.rect.center().y);
        painter.text(at, Align2::LEFT_CENTER, percent(robust.value), font, color);
    }

    /// An image of the class, and one of the class that it is most often mistaken for. Returns whether it was clicked.
    fn mistake(&self, ui: &Ui, portraits: &mut Portraits) -> bool {
        let Some((other, share)) = self.facts().confused.filter(|_| self.layout.mistake > 0.0) else { return false };
        let names = self.run.class_names();
        let mut x = self.rect.left().max(self.x) + self.layout.name;
        let columns = (self.rect.right() - x - self.layout.mistake).max(0.0);
        x += columns;
        let right = x + self.layout.mistake;
        let place = Rect::from_x_y_ranges(x..=right, self.rect.y_range());
        let response = ui.interact(place, ui.scope_id().with(("mistake", self.class)), Sense::CLICK);
        let text = format!(
            "{} of the images of {} are taken for {} under attack. Show them",
            percent(share),
            names[self.class],
            names[other]
        );
        response.widget_info(|| WidgetInfo::labeled(Role::Button, true, &text));
        let clicked = response.clicked();
        response.on_hover_text(&text).on_hover_cursor(egui::CursorIcon::PointingHand);
        let side = self.rect.height() - 4.0;
        let ink = ui.visuals().text_color();
        if self.layout.pictures {
            for (class, gap) in [(self.class, 16.0), (other, 6.0)] {
                if let Some(texture) = portraits.texture(ui.ctx(), class) {
                    let frame = Rect::from_center_size(pos2(x + side / 2.0, place.center().y), vec2(side, side));
                    let all = Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0));
                    ui.painter().image(texture.id(), frame, all, Color32::WHITE);
                }
                if gap > 10.0 {
                    let from = pos2(x + side + 3.0, place.center().y);
                    ui.painter().arrow(from, vec2(10.0, 0.0), Stroke::new(1.5, ink));
                }
                x += side + gap;
            }
        }
        let label = super::name(ui, &format!("{} {}", percent(share), names[other]), right - x - 4.0);
        ui.painter().galley(pos2(x, place.center().y - label.size().y / 2.0), label, ink);
        clicked
    }

    fn describe<'c>(&self, columns: impl Iterator<Item = &'c Column>) -> String {
        let facts = self.facts();
        let mut parts = Vec::new();
        for column in columns {
            if let Some(value) = column.what.values[self.class] {
                parts.push(format!("{} {}", column.what.title, column.write(value)));
            }
        }
        if let Some(rule) = facts.rule.filter(|rule| Some(*rule) != facts.epsilon) {
            parts.push(format!("by the rule {}", epsilon(rule)));
        }
        for (name, value) in [("clean", facts.clean), ("robust", facts.robust)] {
            parts.extend(value.map(|value| format!("{name} {}", told::rated(value))));
        }
        let names = self.run.class_names();
        if let Some((other, share)) = facts.confused {
            parts.push(format!("most often mistaken for {} ({})", names[other], percent(share)));
        }
        format!("{}: {}", names[self.class], parts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_never_overlap_and_keep_room_for_a_bar() {
        for width in (300..2000).step_by(7).map(|width| width as f32) {
            for wanted in 1..=6 {
                let layout = Layout::new(width, 100.0, wanted, true);
                let right = 100.0 + (layout.columns + 1) as f32 * layout.column + layout.mistake;
                assert!(right <= width + 0.01, "{width} {layout:?}");
                assert!((1..=wanted).contains(&layout.columns) && layout.column >= LEAST, "{width} {layout:?}");
            }
        }
        let of = |width| Layout::new(width, 100.0, 5, true);
        assert!(of(1400.0).pictures && of(1400.0).columns == 5);
        assert!(!of(900.0).pictures && of(900.0).mistake > 0.0 && of(900.0).columns == 5);
        assert_eq!((of(660.0).mistake, of(660.0).columns), (0.0, 5));
        assert_eq!(of(460.0).columns, 3);
    }
}
