//! Results of the last epoch, large enough to be read from the back of a classroom.

use egui::{Align2, Color32, FontId, Rect, Sense, TextStyle, Ui, WidgetInfo, accesskit::Role, vec2};

use crate::app::context::Context;
use crate::app::focus;
use crate::app::theme;
use crate::app::view::RunView;
use crate::app::widgets::{card, percent, points, strong, weak};
use crate::train::{ClassRow, ValidationSetting, changes_between};
use crate::worker::EpochRecord;

/// The attack of the robust numbers of the last epoch. Right after a change it differs from the experiment's.
pub(super) fn attack(run: &RunView) -> String {
    let experiment = run.experiment.as_deref();
    let of = |experiment| match run.epochs.last() {
        Some(last) => last.metrics.validation_attack(experiment),
        None => ValidationSetting::of(experiment).to_string(),
    };
    experiment.map_or_else(String::new, of)
}

/// The attack of the robust numbers of an epoch.
fn under(run: &RunView, epoch: &EpochRecord) -> String {
    let experiment = run.experiment.as_deref();
    experiment.map_or_else(String::new, |experiment| epoch.metrics.validation_attack(experiment))
}

/// The worst and the best class of an epoch under the evaluation attack; `None` if nothing was measured.
pub(super) fn extremes(epoch: &EpochRecord) -> Option<(&ClassRow, &ClassRow)> {
    let measured = || epoch.classes.iter().filter(|row| row.val_robust_accuracy.is_finite());
    let by = |a: &&ClassRow, b: &&ClassRow| a.val_robust_accuracy.total_cmp(&b.val_robust_accuracy);
    Some((measured().min_by(by)?, measured().max_by(by)?))
}

/// Robust accuracy of the best minus the worst class of an epoch under the evaluation attack.
pub(super) fn gap(epoch: &EpochRecord) -> Option<f64> {
    extremes(epoch).map(|(worst, best)| best.val_robust_accuracy - worst.val_robust_accuracy)
}

/// Shows the card.
pub(super) fn show(ui: &mut Ui, context: &Context<'_>) {
    let run = context.run;
    card(ui, "", |ui| {
        ui.set_width(ui.available_width());
        let palette = theme::palette(ui);
        let epochs = context.focus.until(run);
        let Some(last) = epochs.last() else {
            ui.label(strong("Accuracy"));
            ui.label(weak(ui, "Measured on the validation split when the first epoch is done."));
            return;
        };
        let before = epochs.len().checked_sub(2).map(|i| &epochs[i]);
        let changed = before.and_then(|before| changes_between([&before.metrics, &last.metrics]).pop());
        let difference = |of: &dyn Fn(&EpochRecord) -> f64| before.map(|before| of(last) - of(before));
        // If the attack differs from that of the epoch before, the difference would be due to the attack.
        let change = |of: &dyn Fn(&EpochRecord) -> f64| difference(of).filter(|_| changed.is_none());
        let clean_change = difference(&|e| e.metrics.val_clean_accuracy)
            .filter(|_| changed.as_ref().is_none_or(|changed| !changed.concerns_clean()));
        let worst = extremes(last);
        let numbers: [(String, f64, Option<f64>, Color32, bool); 4] = [
            ("Clean".into(), last.metrics.val_clean_accuracy, clean_change, palette.clean, true),
            (
                "Robust".into(),
                last.metrics.val_robust_accuracy,
                change(&|e| e.metrics.val_robust_accuracy),
                palette.robust,
                true,
            ),
            (
                worst.map_or("Worst class, robust".into(), |(worst, _)| format!("Worst class, robust: {}", worst.name)),
                last.metrics.val_robust_worst,
                change(&|e| e.metrics.val_robust_worst),
                palette.worst,
                true,
            ),
            (
                worst.map_or("Gap".into(), |(worst, best)| format!("Gap, {} to {}", best.name, worst.name)),
                gap(last).unwrap_or(f64::NAN),
                change(&|e| gap(e).unwrap_or(f64::NAN)),
                palette.gap,
                false,
            ),
        ];
        let columns = if ui.available_width() >= 760.0 { 4 } else { 2 };
        let width = (ui.available_width() - 8.0 * (columns - 1) as f32) / columns as f32;
        for row in numbers.chunks(columns) {
            ui.horizontal(|ui| {
                for (name, value, change, color, up_is_good) in row {
                    let rect = number(ui, width, name, *value, (*change, *up_is_good), *color);
                    if let Some((worst, _)) = worst.filter(|_| *color == palette.worst) {
                        focus::row(ui, rect, worst.class as usize);
                    }
                }
            });
        }
        let mut text =
            format!("After epoch {}, validation split. Robust: under {}.", last.metrics.epoch + 1, under(run, last));
        if let Some(tenth) = last.metrics.val_robust_worst_tenth {
            text += &format!(" Worst 10 % of the classes, robust: {}.", percent(tenth));
        }
        ui.label(weak(ui, text).small());
    });
}

/// Shows a number under its name; returns where.
fn number(
    ui: &mut Ui,
    width: f32,
    name: &str,
    value: f64,
    (change, up_is_good): (Option<f64>, bool),
    color: Color32,
) -> Rect {
    let palette = theme::palette(ui);
    let small = TextStyle::Small.resolve(ui.style());
    let large = FontId::new(if width < 220.0 { 30.0 } else { 36.0 }, theme::strong_family());
    let galley = ui.painter().layout_no_wrap(percent(value), large, color);
    let name_galley = crate::app::widgets::elided(ui, name, small.clone(), width, palette.weak);
    let size = vec2(width, name_galley.size().y + galley.size().y);
    let (rect, response) = ui.allocate_exact_size(size, Sense::HOVER);
    let top = name_galley.size().y;
    ui.painter().galley(rect.min, name_galley, palette.weak);
    let right = rect.min + vec2(galley.size().x + 8.0, top + galley.size().y * 0.72);
    ui.painter().galley(rect.min + vec2(0.0, top), galley, color);
    let text = change.filter(|change| change.is_finite()).map(points);
    if let (Some(text), Some(change)) = (&text, change) {
        // Changes below the displayed precision count as none.
        let tone = match (change.abs() < 5e-4, (change > 0.0) == up_is_good) {
            (true, _) => palette.weak,
            (false, true) => palette.good,
            (false, false) => palette.worst,
        };
        ui.painter().text(right, Align2::LEFT_BOTTOM, text, small, tone);
    }
    let change = text.map_or(String::new(), |text| format!(", {text} since the epoch before"));
    let text = format!("{name}: {}{change}", percent(value));
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
    response.on_hover_text(text);
    rect
}
