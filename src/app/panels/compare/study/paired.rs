//! One quantity of all arms: a row for each arm, a line for each seed between them, and the differences from the
//! baseline with their intervals.

use egui::{Align2, Color32, FontId, Painter, Pos2, Rect, Sense, Stroke, Ui, pos2, vec2};

use crate::app::context::{Context, Export};
use crate::app::runs::Study;
use crate::app::theme;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::{color_key, elided, export_menu, name_room, rows, weak};
use crate::evaluate::figures::{share_bounds, ticks};
use crate::study::{CellReport, Comparison, Metric, Verdict, paired_figure, report_csv};

/// Height of an arm.
const ROW: f32 = 44.0;
/// Height of the scales above them.
const SCALE: f32 = 18.0;
/// The scale of differences ends at this multiple of the largest one; wider intervals are cut off.
const MOST: f64 = 3.0;
/// Seeds with a name; more lines are not told apart by colours.
const SEEDS: usize = 12;

/// The scale of one of the two plots of a row.
#[derive(Clone, Copy)]
struct Axis {
    left: f32,
    right: f32,
    low: f64,
    high: f64,
}

impl Axis {
    fn x(self, value: f64) -> f32 {
        let part = (value - self.low) / (self.high - self.low).max(f64::MIN_POSITIVE);
        egui::lerp(self.left..=self.right, part.clamp(-0.2, 1.2) as f32)
    }

    fn ticks(self, width: f32) -> Vec<f64> {
        let inside = |value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(value);
        ticks(self.low, self.high, (width / 56.0).clamp(1.0, 6.0) as usize).into_iter().filter(inside).collect()
    }
}

/// Shows a quantity of the cell.
pub(super) fn ui(ui: &mut Ui, context: &mut Context<'_>, study: &Study, cell: &CellReport, quantity: &mut String) {
    let names = cell.quantities();
    if !names.contains(&quantity.as_str()) {
        *quantity = ["robust worst class", "robust"]
            .into_iter()
            .find(|name| names.contains(name))
            .or(names.first().copied())
            .unwrap_or_default()
            .to_owned();
    }
    ui.horizontal_wrapped(|ui| {
        let label = ui.label("Quantity");
        let width = (ui.available_width() - 80.0).clamp(140.0, 360.0);
        let chosen = egui::ComboBox::from_id_salt("quantity").selected_text(quantity.clone()).width(width).truncate();
        let chosen = chosen.show_ui(ui, |ui| {
            for name in names {
                ui.selectable_value(quantity, name.to_owned(), name);
            }
        });
        chosen.response.labelled_by(label.id);
        export_menu(ui, context, "arms paired by seed", || export(study, cell, quantity));
    });
    let baseline = study.report.baseline.as_str();
    let seeds = cell.seeds();
    let dark = ui.visuals().dark_mode;
    ui.horizontal_wrapped(|ui| {
        for (at, seed) in seeds.iter().enumerate().take(SEEDS) {
            color_key(ui, theme::class_color(at, dark), &format!("seed {seed}"));
        }
    });
    let note = format!(
        "Left: a line for each seed, a bar at the mean, in %. Right: mean difference from {baseline} of the same seed, in \
         points, with Student's 95 % interval (thin) and that of the bootstrap (thick)."
    );
    ui.label(weak(ui, unbroken(&note)).size(13.0));

    let metrics: Vec<(&str, Option<&Metric>)> =
        cell.arms.iter().map(|arm| (arm.arm.as_str(), arm.quantity(quantity))).collect();
    let values: Vec<f64> = metrics
        .iter()
        .filter_map(|(_, metric)| *metric)
        .flat_map(|metric| &metric.values)
        .map(|(_, value)| *value)
        .filter(|value| value.is_finite())
        .collect();
    let differences: Vec<&Comparison> =
        metrics.iter().filter_map(|(_, metric)| metric.as_ref()?.against(baseline)).collect();
    let arms: Vec<String> = cell.arms.iter().map(|arm| arm.arm.clone()).collect();
    let font = FontId::proportional(13.5);
    let room = name_room(ui, &arms, &font).max(92.0);
    let left = ui.cursor().left() + room;
    // Scroll bars, the names of the outermost ticks.
    let right = ui.cursor().left() + ui.available_width() - 26.0;
    let middle = f32::midpoint(left, right);
    let (low, high) = share_bounds(&values);
    let of_values = Axis { left: left + 10.0, right: middle - 16.0, low, high };
    let end = most(&differences);
    let of_differences = Axis { left: middle + 16.0, right, low: -end, high: end };
    scales(ui, [of_values, of_differences]);
    let plot = Plot { metrics: &metrics, seeds: &seeds, baseline, axes: [of_values, of_differences], room, font };
    rows(ui, "arms", ROW, metrics.len(), |ui, at| plot.row(ui, at));
}

/// End of the scale of differences.
fn most(differences: &[&Comparison]) -> f64 {
    let largest = |values: &mut dyn Iterator<Item = f64>| {
        values.map(f64::abs).filter(|value| value.is_finite()).fold(0.0, f64::max)
    };
    let means = largest(&mut differences.iter().map(|found| found.spread.mean));
    let inner = largest(&mut differences.iter().filter_map(|found| found.bootstrap).flatten()).max(means);
    let outer = largest(&mut differences.iter().filter_map(|found| found.t).flatten()).max(inner);
    (1.05 * outer.min(MOST * inner)).max(0.01)
}

/// The names of the ticks above the rows.
fn scales(ui: &mut Ui, axes: [Axis; 2]) {
    let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), SCALE), Sense::hover());
    let color = theme::palette(ui).weak;
    for (which, axis) in axes.into_iter().enumerate() {
        for value in axis.ticks(axis.right - axis.left) {
            let number = (1000.0 * value).round() / 10.0;
            let text = if which == 0 || number == 0.0 { format!("{number}") } else { format!("{number:+}") };
            let at = pos2(axis.x(value), rect.center().y);
            ui.painter().text(at, Align2::CENTER_CENTER, text, FontId::proportional(12.0), color);
        }
    }
}

struct Plot<'a> {
    metrics: &'a [(&'a str, Option<&'a Metric>)],
    seeds: &'a [u64],
    baseline: &'a str,
    axes: [Axis; 2],
    room: f32,
    font: FontId,
}

impl Plot<'_> {
    fn value(&self, arm: usize, seed: u64) -> Option<f64> {
        self.metrics.get(arm)?.1?.of_seed(seed).filter(|value| value.is_finite())
    }

    fn row(&self, ui: &mut Ui, at: usize) {
        let (name, metric) = self.metrics[at];
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), ROW), Sense::hover());
        let comparison = metric.and_then(|metric| metric.against(self.baseline));
        let mean = metric.and_then(|metric| metric.spread).filter(|spread| spread.mean.is_finite());
        let number = mean.map_or_else(|| "n/a".to_owned(), |spread| spread.to_string());
        let told = match comparison {
            Some(found) => format!(", {found} points against {}, {}", self.baseline, found.verdict.words()),
            None if name == self.baseline => ", baseline".into(),
            None => String::new(),
        };
        let count = metric.map_or(0, |metric| metric.values.len());
        let seeds = if count == 1 { "seed" } else { "seeds" };
        let words = format!("{name}: {number} over {count} {seeds}{told}");
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &words));
        response.on_hover_text(&words);

        let palette = theme::palette(ui);
        let (text, dark) = (ui.visuals().text_color(), ui.visuals().dark_mode);
        let painter = ui.painter_at(rect.intersect(ui.clip_rect()));
        let title = elided(ui, name, self.font.clone(), self.room - 8.0, text);
        painter.galley(pos2(rect.left(), rect.center().y - title.size().y), title, Color32::PLACEHOLDER);
        let small = FontId::proportional(12.5);
        painter.text(pos2(rect.left(), rect.center().y + 1.0), Align2::LEFT_TOP, &number, small.clone(), palette.weak);
        let [values, differences] = self.axes;
        for axis in self.axes {
            for value in axis.ticks(axis.right - axis.left) {
                painter.vline(axis.x(value), rect.y_range(), Stroke::new(1.0, palette.line));
            }
        }
        for (index, seed) in self.seeds.iter().enumerate() {
            let color = theme::class_color(index, dark);
            self.line(&painter, rect, at, *seed, color);
        }
        if let Some(spread) = mean {
            let x = values.x(spread.mean);
            painter.vline(x, rect.center().y - 11.0..=rect.center().y + 11.0, Stroke::new(3.0, text));
        }
        painter.vline(differences.x(0.0), rect.y_range(), Stroke::new(1.5, palette.weak));
        let y = rect.center().y - 7.0;
        match comparison {
            Some(found) => {
                let stated = matches!(found.verdict, Verdict::Higher | Verdict::Lower);
                let color = if stated { text } else { palette.weak };
                let plot = Rect::from_x_y_ranges(differences.left - 8.0..=differences.right + 8.0, rect.y_range());
                let inside = painter.with_clip_rect(plot.intersect(painter.clip_rect()));
                for (interval, width) in [(found.t, 1.5), (found.bootstrap, 5.0)] {
                    if let Some([low, high]) = interval {
                        inside.hline(differences.x(low)..=differences.x(high), y, Stroke::new(width, color));
                    }
                }
                if found.spread.mean.is_finite() {
                    let at = pos2(differences.x(found.spread.mean), y);
                    inside.circle(at, 4.5, palette.card, Stroke::new(2.0, color));
                }
                let words = match found.verdict {
                    Verdict::TooFewSeeds => format!("{found} (too few seeds)"),
                    _ => found.to_string(),
                };
                let at = pos2(f32::midpoint(differences.left, differences.right), rect.center().y + 12.0);
                on_ground(&painter, at, &words, small, color, palette.card);
            }
            None if name == self.baseline => {
                on_ground(
                    &painter,
                    pos2(differences.x(0.0), rect.center().y),
                    "baseline",
                    small,
                    palette.weak,
                    palette.card,
                );
            }
            None => {}
        }
    }

    /// The point of a seed, and the parts of its line within this row. Arms without the seed are passed over.
    fn line(&self, painter: &Painter, rect: Rect, at: usize, seed: u64, color: Color32) {
        let axis = self.axes[0];
        let place =
            |arm: usize, value: f64| -> Pos2 { pos2(axis.x(value), rect.center().y + ROW * (arm as f32 - at as f32)) };
        let known = |arm: usize| Some(place(arm, self.value(arm, seed)?));
        let above = (0..at).rev().find_map(known);
        let below = (at + 1..self.metrics.len()).find_map(known);
        let stroke = Stroke::new(1.5, color);
        let Some(own) = known(at) else {
            if let (Some(above), Some(below)) = (above, below) {
                painter.line_segment([above, below], stroke);
            }
            return;
        };
        for other in [above, below].into_iter().flatten() {
            painter.line_segment([own, other], stroke);
        }
        painter.circle_filled(own, 3.5, color);
    }
}

/// Text on a ground in the colour of the card, so that lines do not cross it.
fn on_ground(painter: &Painter, at: Pos2, text: &str, font: FontId, color: Color32, ground: Color32) {
    let galley = painter.layout_no_wrap(text.to_owned(), font, color);
    let rect = Align2::CENTER_CENTER.anchor_size(at, galley.size());
    painter.rect_filled(rect.expand2(vec2(3.0, 0.0)), 2.0, ground);
    painter.galley(rect.min, galley, color);
}

fn export(study: &Study, cell: &CellReport, quantity: &str) -> Option<Export> {
    let figure = paired_figure(&study.report, cell, &[quantity]).ok()?;
    let csv = String::from_utf8(report_csv(&study.report)).ok()?;
    Some(Export { name: format!("{}-paired", study.name), svg: figure.svg, csv })
}
