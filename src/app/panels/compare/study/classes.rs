//! The robust accuracy of each class with every arm: mean and deviation over seeds, and the difference from the baseline.

use egui::{Align2, Color32, FontId, Rect, Response, Sense, Stroke, Ui, pos2, vec2};

use crate::app::runs::Study;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::{color_key, elided, name_room, rows, weak};
use crate::app::{focus, theme};
use crate::study::{ArmReport, CellReport, Verdict};

/// Height of a bar.
const BAR: f32 = 15.0;
/// Width of the numbers beside a bar, with and without the difference.
const NUMBERS: [f32; 2] = [168.0, 74.0];
/// With less room for a bar, the difference is only in the tooltip.
const NARROW: f32 = 420.0;

/// Shows the classes of a cell; `open` are those of the run of this window, which are highlighted in all panels.
pub(super) fn ui(ui: &mut Ui, open: &[String], study: &Study, cell: &CellReport, in_order: &mut bool) {
    let baseline = study.report.baseline.as_str();
    let dark = ui.visuals().dark_mode;
    ui.horizontal_wrapped(|ui| {
        ui.toggle_value(in_order, "Class order").on_hover_text("Otherwise the least robust class stands first");
        for (at, arm) in cell.arms.iter().enumerate() {
            color_key(ui, theme::class_color(at, dark), &arm.arm);
        }
    });
    let note = format!(
        "Mean ± standard deviation over seeds in %, and the mean difference from {baseline} of the same seed with Student's \
         95 % interval. Grey: no difference shown."
    );
    ui.label(weak(ui, unbroken(&note)).size(13.0));
    let mean = |class: usize| {
        let spread = cell.arms.first().and_then(|arm| arm.classes.get(class)?.spread);
        spread.map_or(f64::INFINITY, |spread| spread.mean)
    };
    let mut order: Vec<usize> = (0..cell.class_names.len()).collect();
    if !*in_order {
        order.sort_by(|a, b| mean(*a).total_cmp(&mean(*b)).then(a.cmp(b)));
    }
    let font = FontId::proportional(13.5);
    let room = name_room(ui, &cell.class_names, &font);
    let height = BAR * cell.arms.len() as f32 + 8.0;
    rows(ui, "classes of the study", height, order.len(), |ui, at| {
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), height), Sense::hover());
        focus::row_named(ui, rect, &cell.class_names[order[at]], open, order[at]);
        row(ui, (rect, response), cell, order[at], baseline, room, &font);
    });
}

fn row(
    ui: &mut Ui,
    (rect, response): (Rect, Response),
    cell: &CellReport,
    class: usize,
    baseline: &str,
    room: f32,
    font: &FontId,
) {
    let name = &cell.class_names[class];
    let words: Vec<String> = cell.arms.iter().map(|arm| described(arm, class, baseline)).collect();
    let words = format!("{name}: {}", words.join("; "));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &words));
    response.on_hover_text(&words);
    if !ui.is_rect_visible(rect) {
        return;
    }
    let (palette, text, dark) = (theme::palette(ui), ui.visuals().text_color(), ui.visuals().dark_mode);
    let painter = ui.painter_at(rect.intersect(ui.clip_rect()));
    let title = elided(ui, name, font.clone(), room - 8.0, text);
    painter.galley(pos2(rect.left(), rect.center().y - title.size().y / 2.0), title, Color32::PLACEHOLDER);
    let left = rect.left() + room;
    let numbers = if rect.right() - left < NARROW { NUMBERS[1] } else { NUMBERS[0] };
    let full = (rect.right() - left - numbers - 12.0).max(20.0);
    for (at, arm) in cell.arms.iter().enumerate() {
        let top = rect.top() + 4.0 + BAR * at as f32;
        let ground = Rect::from_min_size(pos2(left, top + 1.0), vec2(full, BAR - 2.0));
        painter.rect_filled(ground, 2.0, palette.line);
        let Some(metric) = arm.classes.get(class) else { continue };
        let place = pos2(ground.right() + 8.0, ground.center().y);
        let small = FontId::proportional(12.0);
        let Some(spread) = metric.spread.filter(|spread| spread.mean.is_finite()) else {
            painter.text(place, Align2::LEFT_CENTER, "n/a", small, palette.weak);
            continue;
        };
        let x = |value: f64| ground.left() + full * value.clamp(0.0, 1.0) as f32;
        let bar = Rect::from_min_max(ground.min, pos2(x(spread.mean), ground.bottom()));
        painter.rect_filled(bar, 2.0, theme::class_color(at, dark));
        if let Some(deviation) = spread.deviation {
            let (low, high) = (x(spread.mean - deviation), x(spread.mean + deviation));
            painter.hline(low..=high, ground.center().y, Stroke::new(1.5, text));
            for end in [low, high] {
                painter.vline(end, ground.center().y - 3.0..=ground.center().y + 3.0, Stroke::new(1.5, text));
            }
        }
        let comparison = metric.against(baseline);
        let written = match comparison {
            Some(found) if numbers == NUMBERS[0] => format!("{spread}  {found}"),
            _ => spread.to_string(),
        };
        let stated = comparison.is_none_or(|found| matches!(found.verdict, Verdict::Higher | Verdict::Lower));
        painter.text(place, Align2::LEFT_CENTER, written, small, if stated { text } else { palette.weak });
    }
}

/// An arm's accuracy of a class, and its difference from the baseline.
fn described(arm: &ArmReport, class: usize, baseline: &str) -> String {
    let metric = arm.classes.get(class);
    let Some((metric, spread)) = metric.and_then(|metric| Some((metric, metric.spread?))) else {
        return format!("{} n/a", arm.arm);
    };
    match metric.against(baseline) {
        Some(found) => format!("{} {spread} ({found} points, {})", arm.arm, found.verdict.words()),
        None => format!("{} {spread}", arm.arm),
    }
}
