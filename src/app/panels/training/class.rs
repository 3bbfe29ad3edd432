//! The curves of a class that is highlighted, in the plot of accuracies.

use egui::{Align2, Color32, RichText};
use egui_plot::{LineStyle, PlotPoint, PlotUi, Text};

use super::curves::position;
use crate::app::view::RunView;
use crate::app::widgets::plot;
use crate::train::{ClassRow, ValidationChange, uninterrupted};
use crate::worker::EpochRecord;

/// What a curve shows, its value in a row, and its style.
type Curve = (&'static str, fn(&ClassRow) -> f64, LineStyle);

/// Draws the clean and the robust accuracy of a class in its colour, and its name at the top. Lines are interrupted where
/// the validation attack changed, as those of the means.
pub(super) fn draw(ui: &mut PlotUi<'_>, run: &RunView, changes: &[ValidationChange], class: usize, color: Color32) {
    let lines: [Curve; 2] = [
        ("clean", |row| row.val_clean_accuracy, LineStyle::dashed_dense()),
        ("robust", |row| row.val_robust_accuracy, LineStyle::Solid),
    ];
    let Some(class_name) = run.class_names().get(class) else { return };
    for (what, value, style) in lines {
        let name = format!("{class_name}, {what}");
        let at = |epoch: &EpochRecord| {
            let row = epoch.classes.iter().find(|row| row.class as usize == class);
            [position(epoch), row.map_or(f64::NAN, value)]
        };
        let breaks: Vec<ValidationChange> =
            changes.iter().filter(|change| what == "robust" || change.concerns_clean()).cloned().collect();
        for part in uninterrupted(&run.epochs, &breaks, |epoch| epoch.metrics.epoch) {
            plot::Curve { name: &name, color, width: 3.0, style, hover: false }.draw(ui, part.iter().map(at).collect());
        }
    }
    let text = RichText::new(format!("{class_name}: robust (solid), clean (dashed)")).size(12.0).color(color);
    // Below the labels of changes of the attack, where curves have not risen yet; within the range that the plot has anyway.
    let at = PlotPoint::new(0.3, 0.99 - 0.07 * changes.len().min(5) as f64);
    ui.text(Text::new(class_name.clone(), at, text).anchor(Align2::LEFT_TOP).allow_hover(false));
}
