//! How often each class is mistaken for each other class under attack.

use egui::{Color32, Ui, vec2};

use super::source::Source;
use super::version;
use crate::app::context::{Action, Context, Export};
use crate::app::layout::PanelKind;
use crate::app::panels::Cell;
use crate::app::settings::CellUnit;
use crate::app::theme;
use crate::app::view::RunView;
use crate::app::widgets::{
    Matrix, MatrixState, color_bar, drawn, export_menu, matrix, percent, points, section, short_percent, table, weak,
};
use crate::evaluate::figures;
use crate::fairness::Confusion;
use crate::worker::EpochRecord;

/// See the [module](self).
pub(super) struct Pairs {
    matrix: MatrixState,
    source: Source,
    /// The epoch that others are compared with; `None` if there is none.
    pinned: Option<u32>,
    cells: Option<(u64, Cells)>,
}

impl Default for Pairs {
    fn default() -> Self {
        Self { matrix: MatrixState::default(), source: Source::Validation, pinned: None, cells: None }
    }
}

/// The values of the cells in row-major order, and the largest one for the colour scale.
struct Cells {
    values: Vec<f64>,
    largest: f64,
}

/// Every cell in a unit: the number of images, or the share of its row or column; NaN if that is empty.
fn in_unit(confusion: &Confusion, unit: CellUnit) -> Vec<f64> {
    let classes = confusion.classes();
    let column = |p: usize| (0..classes).map(|t| confusion.at(t, p)).sum::<u64>();
    let whole: Vec<u64> = match unit {
        CellUnit::Counts => Vec::new(),
        CellUnit::Row => (0..classes).map(|t| confusion.of_class(t)).collect(),
        CellUnit::Column => (0..classes).map(column).collect(),
    };
    let cells = (0..classes).flat_map(|t| (0..classes).map(move |p| (t, p)));
    let value = |(t, p): (usize, usize)| {
        let count = confusion.at(t, p) as f64;
        match unit {
            CellUnit::Counts => count,
            CellUnit::Row => count / whole[t] as f64,
            CellUnit::Column => count / whole[p] as f64,
        }
    };
    cells.map(value).collect()
}

impl Cells {
    fn new(now: &Confusion, before: Option<&Confusion>, unit: CellUnit) -> Self {
        let classes = now.classes();
        let mut values = in_unit(now, unit);
        if let Some(before) = before {
            values.iter_mut().zip(in_unit(before, unit)).for_each(|(now, before)| *now -= before);
        }
        // The diagonal would dwarf the errors; in a difference it matters as much as they do.
        let counted = |i: usize| before.is_some() || i / classes != i % classes;
        let all = values.iter().enumerate().filter(|(i, v)| counted(*i) && v.is_finite());
        let largest = all.map(|(_, v)| v.abs()).fold(0.0, f64::max);
        Self { values, largest }
    }
}

/// Upper end of the fixed colour scale: half of a class, or a fifth for a difference.
fn fixed_top(confusion: &Confusion, unit: CellUnit, difference: bool) -> f64 {
    let share = if difference { 0.2 } else { 0.5 };
    let classes = confusion.classes();
    let most = (0..classes).map(|k| confusion.of_class(k)).max().unwrap_or(1).max(1);
    if unit == CellUnit::Counts { (share * most as f64).max(1.0) } else { share }
}

impl Pairs {
    /// Shows the card.
    pub(super) fn show(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: Option<&EpochRecord>) {
        let run = context.run;
        let (mut unit, mut fixed) = (context.settings.cell_unit, context.settings.confusion_scale_fixed);
        // A new run may not have reached the pinned epoch; then there is nothing to compare with.
        let pinned = self.pinned.and_then(|pinned| run.epochs.iter().find(|epoch| epoch.metrics.epoch == pinned));
        self.pinned = pinned.map(|epoch| epoch.metrics.epoch);
        let (source, chosen_unit) = (self.source, unit);
        let explanation = context.glossary.tooltip("confusion-matrix");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "confusion", || export(run, source, chosen_unit, shown?, pinned));
        };
        let mut clicked = None;
        section(ui, "Confusion under attack", explanation, controls, |ui| {
            self.choices(ui, shown, &mut unit, &mut fixed);
            clicked = self.cells(ui, run, shown, pinned, unit, fixed);
        });
        context.settings.cell_unit = unit;
        context.settings.confusion_scale_fixed = fixed;
        if let (Some((truth, prediction)), Some(shown)) = (clicked, shown) {
            let of = self.source.counted();
            let (label, prediction) = (Some(truth as u32), prediction as u32);
            context.ask(Action::ShowCell(Cell { of, epoch: shown.metrics.epoch, label, prediction }));
            context.ask(Action::Show(PanelKind::Examples));
        }
    }

    fn choices(&mut self, ui: &mut Ui, shown: Option<&EpochRecord>, unit: &mut CellUnit, fixed: &mut bool) {
        ui.horizontal_wrapped(|ui| {
            self.source.choose(ui, "Confusion");
            ui.separator();
            ui.selectable_value(unit, CellUnit::Counts, "Counts").on_hover_text("Number of images");
            ui.selectable_value(unit, CellUnit::Row, "Row %").on_hover_text("Share of the true class");
            ui.selectable_value(unit, CellUnit::Column, "Column %").on_hover_text("Share of the prediction");
            ui.separator();
            match (self.pinned, shown) {
                (Some(pinned), _) => {
                    if ui.button(format!("Unpin epoch {}", pinned + 1)).clicked() {
                        self.pinned = None;
                    }
                }
                (None, Some(shown)) => {
                    let button = ui.button(format!("Pin epoch {}", shown.metrics.epoch + 1));
                    if button.on_hover_text("Show other epochs as their difference from this one").clicked() {
                        self.pinned = Some(shown.metrics.epoch);
                    }
                }
                (None, None) => {}
            }
            ui.checkbox(fixed, "Fixed scale").on_hover_text(
                "The colour scale ends at half of a class, or a fifth for differences, in every epoch; otherwise at the largest value shown.",
            );
        });
    }

    /// Draws the matrix; returns the cell that was clicked.
    fn cells(
        &mut self,
        ui: &mut Ui,
        run: &RunView,
        shown: Option<&EpochRecord>,
        pinned: Option<&EpochRecord>,
        unit: CellUnit,
        fixed: bool,
    ) -> Option<(usize, usize)> {
        let names = run.class_names();
        let Some(epoch) = shown else {
            ui.label(weak(ui, "Counted when the first epoch is done."));
            return None;
        };
        let of = |epoch: &EpochRecord| self.source.of(epoch).filter(|c| c.classes() == names.len()).cloned();
        let key =
            version(run, ("confusion", self.source, unit as u8, epoch.metrics.epoch, pinned.map(|p| p.metrics.epoch)));
        let Some(now) = self.source.of(epoch).filter(|confusion| confusion.classes() == names.len()) else {
            let number = epoch.metrics.epoch + 1;
            ui.label(weak(ui, format!("The confusion file of epoch {number} is not there; choose another epoch.")));
            return None;
        };
        let before = pinned.and_then(of);
        if pinned.is_some() && before.is_none() {
            ui.label(weak(ui, "The confusion file of the pinned epoch is not there; pin another one."));
            return None;
        }
        if self.cells.as_ref().is_none_or(|(old, _)| *old != key) {
            self.cells = Some((key, Cells::new(now, before.as_ref(), unit)));
        }
        let (_, cells) = self.cells.as_ref()?;
        let difference = before.is_some();
        let top = if fixed { fixed_top(now, unit, difference) } else { cells.largest.max(1e-9) };
        let at = |t: usize, p: usize| cells.values[t * names.len() + p];
        let grey = if ui.visuals().dark_mode { Color32::from_gray(70) } else { Color32::from_gray(226) };
        let what = Matrix {
            name: "Confusion matrix",
            rows: names,
            columns: names,
            classes_in_columns: true,
            axis: "Predicted class (rows: true class)",
            color: &|t, p| match difference {
                true => theme::diverging(0.5 + at(t, p) / (2.0 * top)),
                false if t == p => grey,
                false => theme::sequential(at(t, p) / top),
            },
            text: &|t, p, _| in_cell(at(t, p), unit, difference),
            describe: &|t, p| {
                let value = in_words(at(t, p), unit, difference);
                let count = now.at(t, p);
                format!("true {}, predicted {}: {value} ({count} of {} images)", names[t], names[p], now.of_class(t))
            },
            marked: None,
            key: version(run, (key, top.to_bits(), ui.visuals().dark_mode)),
            cell: (vec2(5.0, 5.0), vec2(64.0, 26.0)),
            height: 560.0,
        };
        let clicked = matrix(ui, &mut self.matrix, &what);
        let write = |v: f64| match unit {
            CellUnit::Counts => format!("{v:.0}"),
            CellUnit::Row | CellUnit::Column => short_percent(v),
        };
        match difference {
            true => color_bar(ui, &|v| theme::diverging(0.5 + v / (2.0 * top)), (-top, top), &write, None),
            false => color_bar(ui, &|v| theme::sequential(v / top), (0.0, top), &write, None),
        }
        let number = epoch.metrics.epoch + 1;
        let experiment = run.experiment.as_ref()?;
        let attack = |epoch: &EpochRecord| epoch.metrics.validation_attack(experiment);
        let other = pinned.map(attack).filter(|other| self.source == Source::Validation && *other != attack(epoch));
        let mut under = self.source.describe(experiment, epoch);
        if let Some(other) = other {
            under += &format!(", the pinned epoch under {other}: the difference is the attack's, too");
        }
        let text = match pinned {
            Some(pinned) => format!("Epoch {number} minus epoch {}: {under}.", pinned.metrics.epoch + 1),
            None => format!(
                "Epoch {number}: {under}. Correct predictions are grey. Click a cell to see the images that were counted there."
            ),
        };
        ui.label(weak(ui, text).small());
        clicked
    }
}

/// A number, short enough for a cell.
fn in_cell(value: f64, unit: CellUnit, difference: bool) -> String {
    let scaled = if unit == CellUnit::Counts { value } else { 100.0 * value };
    match (value.is_finite(), difference) {
        (false, _) => "–".into(),
        (true, true) if scaled.abs() >= 0.5 => format!("{scaled:+.0}").replace('-', "−"),
        (true, true) => "0".into(),
        (true, false) => format!("{scaled:.0}"),
    }
}

/// A value with its unit.
fn in_words(value: f64, unit: CellUnit, difference: bool) -> String {
    match (unit, difference) {
        (CellUnit::Counts, false) => format!("{value:.0} images"),
        (CellUnit::Counts, true) => format!("{value:+.0} images").replace('-', "−"),
        (CellUnit::Row, false) => format!("{} of the true class", percent(value)),
        (CellUnit::Column, false) => format!("{} of the predictions", percent(value)),
        (CellUnit::Row, true) => format!("{} of the true class", points(value)),
        (CellUnit::Column, true) => format!("{} of the predictions", points(value)),
    }
}

/// The matrix as a figure, with counts and the shown unit of every cell.
fn export(
    run: &RunView,
    source: Source,
    unit: CellUnit,
    epoch: &EpochRecord,
    pinned: Option<&EpochRecord>,
) -> Option<Export> {
    let now = source.of(epoch)?;
    let old = match pinned {
        Some(pinned) => Some(source.of(pinned)?),
        None => None,
    };
    let drawn_unit = match unit {
        CellUnit::Counts => figures::CellUnit::Count,
        CellUnit::Row => figures::CellUnit::Percent,
        CellUnit::Column => figures::CellUnit::ColumnPercent,
    };
    let names = run.class_names();
    let experiment = run.experiment.as_deref();
    let draw = |context: &figures::Context| {
        let (part, attack) = match source {
            Source::Train => ("training images", context.train_attack.clone()),
            Source::Validation => {
                let attack = experiment.map(|experiment| epoch.metrics.validation_attack(experiment));
                ("validation split", attack.unwrap_or_else(|| context.attack.clone()))
            }
        };
        let title = format!("{}, {part}, epoch {}", context.title, epoch.metrics.epoch + 1);
        let context = figures::Context { title, attack, ..context.clone() };
        match (old, pinned) {
            (Some(old), Some(pinned)) => {
                let than = format!("epoch {}", pinned.metrics.epoch + 1);
                figures::confusion_difference(now.counts(), old.counts(), drawn_unit, &than, &context)
            }
            _ => figures::confusion_matrix(now.counts(), drawn_unit, &context),
        }
    };
    let csv = || {
        let shares = Cells::new(now, old, unit).values;
        let name = |k: usize| names.get(k).cloned().unwrap_or_default();
        let rows = shares.iter().enumerate().map(|(i, value)| {
            let (t, p) = (i / now.classes(), i % now.classes());
            let value = if value.is_finite() { value.to_string() } else { String::new() };
            [epoch.metrics.epoch.to_string(), name(t), name(p), now.at(t, p).to_string(), value]
        });
        let shown = match (unit, old.is_some()) {
            (CellUnit::Counts, false) => "count_shown",
            (CellUnit::Row, false) => "share_of_true_class",
            (CellUnit::Column, false) => "share_of_prediction",
            (CellUnit::Counts, true) => "count_difference",
            (CellUnit::Row, true) => "share_of_true_class_difference",
            (CellUnit::Column, true) => "share_of_prediction_difference",
        };
        table(&["epoch", "true_class", "predicted_class", "count", shown], rows)
    };
    drawn(run, draw, csv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_a_matrix_by_hand() {
        let mut confusion = Confusion::new(2);
        confusion.add_counts(&[3, 1, 0, 2]);
        assert_eq!(in_unit(&confusion, CellUnit::Counts), [3.0, 1.0, 0.0, 2.0]);
        assert_eq!(in_unit(&confusion, CellUnit::Row), [0.75, 0.25, 0.0, 1.0]);
        assert_eq!(in_unit(&confusion, CellUnit::Column), [1.0, 1.0 / 3.0, 0.0, 2.0 / 3.0]);
        assert_eq!(Cells::new(&confusion, None, CellUnit::Row).largest, 0.25);
        assert_eq!(Cells::new(&confusion, Some(&confusion), CellUnit::Row).largest, 0.0);
    }
}
