//! The rows: bars that move from one epoch to the next.

use egui::{Align2, Color32, Rect, Sense, Stroke, TextStyle, Ui, WidgetInfo, accesskit::Role, pos2, vec2};

use super::told;
use crate::app::context::Context;
use crate::app::focus;
use crate::app::theme::{self, Palette};
use crate::app::view::RunView;
use crate::app::widgets::picture::{self, Textures};
use crate::app::widgets::{color_key, epsilon, mark_key, name_room, percent};
use crate::data::Dataset;
use crate::evaluate::figures::{Story, StoryRow, story_span};

/// Seconds that a bar takes from one epoch's value to the next.
const MOVES_FOR: f32 = 0.3;
/// Width of a number beside its bar.
const NUMBER: f32 = 58.0;
/// Minimum width of the panel for pictures of the most frequent mistake, and for its name.
const PICTURES: f32 = 860.0;
const NAMED: f32 = 640.0;
/// Columns narrower than this have short titles.
const NARROW: f32 = 130.0;

/// A column of bars that begin at a value without effect.
struct Column<'a> {
    title: String,
    /// The same for a narrow column.
    short: &'static str,
    tooltip: &'static str,
    value: fn(&StoryRow) -> Option<f64>,
    /// A second value, shown as a mark.
    mark: fn(&StoryRow) -> Option<f64>,
    base: f64,
    base_name: &'a str,
    span: f64,
    write: fn(f64) -> String,
    color: Color32,
}

/// The horizontal extent of each part of a row.
struct Layout {
    name: f32,
    column: f32,
    mistake: f32,
    pictures: bool,
}

/// Shows the rows of these classes; returns the cell of the confusion matrix that was clicked.
pub(super) fn show(
    ui: &mut Ui,
    context: &Context<'_>,
    facts: &Story,
    order: &[usize],
    textures: &mut Textures,
) -> Option<(usize, usize)> {
    let run = context.run;
    let columns = columns(ui, run, facts);
    let font = TextStyle::Body.resolve(ui.style());
    let scroll = ui.spacing().scroll.allocated_width();
    let width = ui.available_width() - scroll;
    let name = name_room(ui, run.class_names(), &font).min(0.2 * width) + 16.0;
    let pictures = width >= PICTURES && order.len() <= super::MANY;
    let mistake = match width {
        width if pictures => (0.22 * width).clamp(190.0, 260.0),
        width if width >= NAMED => 130.0,
        _ => 0.0,
    };
    let column = (width - name - mistake) / (columns.len() + 1) as f32;
    let height = match ui.available_height() - 64.0 {
        room if order.len() <= super::MANY => (room / order.len() as f32).clamp(24.0, 40.0),
        _ => 22.0,
    };
    let layout = Layout { name, column, mistake, pictures };
    let x = ui.max_rect().left();
    header(ui, x, &layout, &columns, facts);
    let images = representatives(run);
    let mut clicked = None;
    let foot = 40.0;
    egui::ScrollArea::vertical()
        .max_height((ui.available_height() - foot).max(80.0))
        .auto_shrink([false, true])
        .show_rows(ui, height - ui.spacing().item_spacing.y, order.len(), |ui, range| {
            for class in order[range].iter().copied() {
                let (rect, _) = ui.allocate_exact_size(
                    vec2(ui.available_width(), height - ui.spacing().item_spacing.y),
                    Sense::hover(),
                );
                let row = Row { run, facts, class, rect, x, layout: &layout };
                focus::row(ui, rect, class);
                row.show(ui, &columns);
                if row.mistake(ui, &images, textures) {
                    clicked = facts.rows[class].confused.map(|(other, _)| (class, other));
                }
            }
        });
    let palette = theme::palette(ui);
    ui.horizontal_wrapped(|ui| {
        color_key(ui, palette.robust, "robust");
        color_key(ui, palette.worst, "robust, worst class");
        color_key(ui, palette.clean, "clean");
        mark_key(ui, ui.visuals().text_color(), "95 % interval; what the rule says");
        mark_key(ui, palette.weak, "even share, base epsilon: bars begin there, each column is zoomed to its values");
    });
    clicked
}

fn columns<'a>(ui: &Ui, run: &RunView, facts: &Story) -> Vec<Column<'a>> {
    let palette = theme::palette(ui);
    let even = 1.0 / facts.rows.len().max(1) as f64;
    let base = run.experiment.as_ref().map_or(0.0, |experiment| experiment.attack.epsilon.exact());
    let counted = facts.counted.map_or_else(String::new, |epoch| format!(", epoch {}", epoch + 1));
    let now = facts.epoch + 1;
    let all = [
        (
            (format!("CFPS{counted}"), "CFPS"),
            "Share of all mistakes under the training attack that landed on this class",
            (|row: &StoryRow| row.cfps) as fn(&StoryRow) -> Option<f64>,
            (|_: &StoryRow| None) as fn(&StoryRow) -> Option<f64>,
            (even, "even share", percent as fn(f64) -> String, palette.gap),
        ),
        (
            (format!("Target, epoch {now}"), "Target"),
            "Probability that an image is attacked towards this class",
            |row: &StoryRow| row.target,
            |_: &StoryRow| None,
            (even, "even share", percent, palette.accent),
        ),
        (
            (format!("Epsilon, epoch {now}"), "Epsilon"),
            "Radius of the attack on images of this class",
            |row: &StoryRow| row.epsilon,
            |row: &StoryRow| row.rule,
            (base, "base epsilon", levels, palette.accent),
        ),
    ];
    let known = all.into_iter().filter(|(_, _, value, ..)| facts.rows.iter().any(|row| value(row).is_some()));
    known
        .map(|((title, short), tooltip, value, mark, (base, base_name, write, color))| {
            let span = story_span(facts.rows.iter().flat_map(|row| [value(row), mark(row)]), base);
            Column { title, short, tooltip, value, mark, base, base_name, span, write, color }
        })
        .collect()
}

/// A radius in levels of 255.
pub(super) fn levels(value: f64) -> String {
    format!("{}/255", (25_500.0 * value).round() / 100.0)
}

/// The titles above the columns.
fn header(ui: &mut Ui, left: f32, layout: &Layout, columns: &[Column<'_>], facts: &Story) {
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), 20.0), Sense::hover());
    let small = TextStyle::Small.resolve(ui.style());
    let color = ui.visuals().strong_text_color();
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
        let tooltip =
            format!("{}. The line is the {}: {}", column.tooltip, column.base_name, (column.write)(column.base));
        let title = if layout.column < NARROW { column.short } else { &column.title };
        put(index, title, &tooltip, layout.column);
    }
    let after = facts.measured.map_or_else(String::new, |epoch| format!(", after epoch {}", epoch + 1));
    let tooltip = "Clean and robust accuracy of the validation images of this class";
    let title = if layout.column < NARROW { "Accuracy".to_owned() } else { format!("Accuracy{after}") };
    put(columns.len(), &title, tooltip, layout.column);
    if layout.mistake > 0.0 {
        let tooltip = "The class that images of this class are most often mistaken for under the evaluation attack";
        put(columns.len() + 1, "Most often mistaken for", tooltip, layout.mistake);
    }
}

/// An image of each class: of the validation split, or of the training images.
fn representatives(run: &RunView) -> Vec<Option<(&Dataset, usize)>> {
    let Some(info) = run.info.as_ref() else { return Vec::new() };
    let of = |class: usize| {
        [&info.validation, &info.train].into_iter().find_map(|set| {
            let index = set.labels().iter().position(|label| *label as usize == class)?;
            Some((&**set, index))
        })
    };
    (0..run.class_names().len()).map(of).collect()
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

    /// `value`, on its way from the last one.
    fn moving(&self, ui: &Ui, what: usize, value: f64) -> f64 {
        let id = ui.scope_id().with(("moving", self.class, what));
        f64::from(ui.ctx().animate_value_with_time(id, value as f32, MOVES_FOR))
    }

    fn show(&self, ui: &mut Ui, columns: &[Column<'_>]) {
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
        let text = self.describe(columns);
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
        response.on_hover_text_at_pointer(text);
    }

    /// The rectangle of the bars of a column, without its number.
    fn place(&self, index: usize) -> Rect {
        let left = self.x + self.layout.name + index as f32 * self.layout.column;
        let width = (self.layout.column - NUMBER - 12.0).max(12.0);
        Rect::from_min_size(pos2(left, self.rect.top() + 3.0), vec2(width, self.rect.height() - 6.0))
    }

    fn bar(&self, ui: &Ui, index: usize, column: &Column<'_>, palette: &Palette) {
        let (place, painter) = (self.place(index), ui.painter());
        painter.rect_filled(place, 2, ui.visuals().faint_bg_color);
        let x_of = |value: f64| {
            let part = ((value - column.base) / column.span).clamp(-1.0, 1.0) as f32;
            place.center().x + part * place.width() / 2.0
        };
        let font = TextStyle::Body.resolve(ui.style());
        let (text, color) = match (column.value)(self.facts()) {
            Some(value) => {
                let to = x_of(self.moving(ui, index, value));
                let base = place.center().x;
                let bar = Rect::from_x_y_ranges(base.min(to)..=base.max(to), place.shrink2(vec2(0.0, 2.0)).y_range());
                painter.rect_filled(bar, 1, column.color);
                ((column.write)(value), ui.visuals().text_color())
            }
            None => ("–".to_owned(), palette.weak),
        };
        painter.vline(place.center().x, self.rect.y_range(), Stroke::new(1.0, palette.weak));
        if let Some(mark) = (column.mark)(self.facts()) {
            painter.vline(x_of(mark), place.y_range(), Stroke::new(2.0, ui.visuals().text_color()));
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
        let font = TextStyle::Body.resolve(ui.style());
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
    fn mistake(&self, ui: &Ui, images: &[Option<(&Dataset, usize)>], textures: &mut Textures) -> bool {
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
                if let Some((set, index)) = images.get(class).copied().flatten() {
                    let texture = textures.get(ui.ctx(), (set.name(), class, index, set.len()), || {
                        let values: Vec<f32> = set.image(index).iter().map(|v| f32::from(*v) / 255.0).collect();
                        picture::plain(&values, set.shape())
                    });
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

    fn describe(&self, columns: &[Column<'_>]) -> String {
        let facts = self.facts();
        let mut parts = Vec::new();
        for column in columns {
            if let Some(value) = (column.value)(facts) {
                parts.push(format!("{} {}", column.title, (column.write)(value)));
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
