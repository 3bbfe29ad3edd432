//! What a method adapts per class besides radii and targets, such as weights of the loss: one card for each class series
//! of the method ([`SeriesInfo`]), with the values of the epoch shown as bars and all epochs as a heatmap.

use std::collections::BTreeMap;

use egui::{Color32, Ui, vec2};

use super::heatmap::class_rows;
use super::{round_above, row, version};
use crate::app::context::Context;
use crate::app::theme;
use crate::app::view::RunView;
use crate::app::widgets::{
    BarRow, Bars, Matrix, MatrixState, bars, color_bar, drawn, export_menu, matrix, section, table, weak,
};
use crate::config::{Experiment, SeriesInfo, SeriesKind};
use crate::evaluate::figures::{self, SeriesScale};
use crate::worker::EpochRecord;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Series {
    /// By column of `classes.csv`.
    cards: BTreeMap<&'static str, Card>,
}

#[derive(Default)]
struct Card {
    matrix: MatrixState,
    /// The version of the data, and the values by class and epoch with their scale.
    cells: Option<(u64, Vec<f64>, Scale)>,
}

/// How values become colours.
struct Scale {
    /// Mean of each epoch.
    means: Vec<f64>,
    places: SeriesScale,
}

/// The factors of relative scales, few enough that similar runs have the same scale.
const FACTORS: [f64; 5] = [1.25, 1.5, 2.0, 4.0, 8.0];
/// A weight far below the mean does not widen the scale beyond this: weights of 0 are common.
const WIDEST_BELOW: f64 = 4.0;

impl Scale {
    /// The scale of values by class and epoch.
    fn new(kind: SeriesKind, experiment: &Experiment, cells: &[f64], epochs: &[EpochRecord]) -> Self {
        let of = |epoch: usize| mean(cells.iter().copied().skip(epoch).step_by(epochs.len()));
        let means: Vec<f64> = (0..epochs.len()).map(of).collect();
        let places = match kind {
            SeriesKind::Weight { .. } | SeriesKind::LimitedWeight(_) => {
                let ratios = cells.iter().enumerate().map(|(i, value)| value / means[i % epochs.len()]);
                let distance = |ratio: f64| if ratio >= 1.0 { ratio } else { (1.0 / ratio).min(WIDEST_BELOW) };
                let farthest = ratios.filter(|ratio| ratio.is_finite()).map(distance).fold(1.0, f64::max);
                let factor = FACTORS.into_iter().find(|factor| *factor >= farthest).unwrap_or(FACTORS[4]);
                SeriesScale::Relative { factor }
            }
            SeriesKind::Budget(budget) => {
                let budgets = epochs.iter().map(|epoch| budget(experiment, epoch.metrics.epoch));
                SeriesScale::Absolute { top: f64::from(budgets.max().unwrap_or(0).max(1)) }
            }
            SeriesKind::Number => {
                let known = cells.iter().copied().filter(|value| value.is_finite());
                SeriesScale::Absolute { top: round_above(known.fold(0.0, f64::max)) }
            }
        };
        Self { means, places }
    }

    fn color(&self, value: f64, epoch: usize) -> Color32 {
        let place = self.places.place(value, self.means.get(epoch).copied().unwrap_or(f64::NAN));
        match self.places {
            SeriesScale::Relative { .. } => theme::diverging(place),
            SeriesScale::Absolute { .. } => theme::sequential(place),
        }
    }

    fn legend(&self, ui: &mut Ui) {
        match self.places {
            SeriesScale::Relative { factor } => {
                let write = |power: f64| format!("{} ×", (100.0 * factor.powf(power)).round() / 100.0);
                color_bar(ui, &|power| theme::diverging(0.5 + 0.5 * power), (-1.0, 1.0), &write, None);
                ui.label(weak(ui, "Colour: weight relative to the mean weight of the epoch.").small());
            }
            SeriesScale::Absolute { top } => {
                color_bar(ui, &|value| theme::sequential(value / top), (0.0, top), &short, None);
            }
        }
    }
}

/// The mean of the values that are known.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.filter(|v| v.is_finite()).fold((0.0, 0u32), |(sum, count), v| (sum + v, count + 1));
    sum / f64::from(count)
}

impl Series {
    /// Shows the cards; a method without series has none. Returns the epoch of the cell that was chosen.
    pub(super) fn show(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: Option<&EpochRecord>) -> Option<u32> {
        let experiment = context.run.experiment.as_deref()?;
        let mut chosen = None;
        for series in experiment.series() {
            let card = self.cards.entry(series.name).or_default();
            chosen = card.show(ui, context, (series, experiment), shown).or(chosen);
        }
        chosen
    }
}

impl Card {
    fn show(
        &mut self,
        ui: &mut Ui,
        context: &mut Context<'_>,
        (series, experiment): (&SeriesInfo, &Experiment),
        shown: Option<&EpochRecord>,
    ) -> Option<u32> {
        let run = context.run;
        let term = match series.kind {
            SeriesKind::Weight { .. } => "class-weight",
            SeriesKind::LimitedWeight(_) => "multiplier",
            SeriesKind::Budget(_) => "budget",
            SeriesKind::Number => series.name,
        };
        let mut chosen = None;
        let explanation = context.glossary.tooltip(term);
        let places = self.cells.as_ref().map(|cells| cells.2.places);
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, series.title, || {
                let (scale, rows) = (places?, class_rows(run, None));
                drawn(run, |figure| figures::class_series(&rows, series, &scale, figure), || csv(run, series.name))
            });
        };
        section(ui, series.title, explanation, controls, |ui| {
            let classes = run.class_names().len();
            let values: Option<Vec<f64>> = (0..classes).map(|class| value(shown?, class, series.name)).collect();
            let (Some(values), Some(epoch)) = (values, shown) else {
                ui.label(weak(ui, "Known from the end of the first epoch on."));
                return;
            };
            of_one_epoch(ui, run.class_names(), (series, experiment), epoch, &values);
            ui.add_space(6.0);
            chosen = self.of_all_epochs(ui, run, (series, experiment), epoch);
        });
        chosen
    }

    /// The heatmap of classes and epochs.
    fn of_all_epochs(
        &mut self,
        ui: &mut Ui,
        run: &RunView,
        (series, experiment): (&SeriesInfo, &Experiment),
        shown: &EpochRecord,
    ) -> Option<u32> {
        let (names, epochs) = (run.class_names(), &run.epochs[..]);
        let key = version(run, (series.name, names.len()));
        if self.cells.as_ref().is_none_or(|(old, ..)| *old != key) {
            let of = |class| epochs.iter().map(move |epoch| value(epoch, class, series.name).unwrap_or(f64::NAN));
            let cells: Vec<f64> = (0..names.len()).flat_map(of).collect();
            let scale = Scale::new(series.kind, experiment, &cells, epochs);
            self.cells = Some((key, cells, scale));
        }
        let (_, cells, scale) = self.cells.as_ref()?;
        let columns: Vec<String> = epochs.iter().map(|epoch| (epoch.metrics.epoch + 1).to_string()).collect();
        let at = |class: usize, epoch: usize| cells.get(class * columns.len() + epoch).copied().unwrap_or(f64::NAN);
        let largest = cells.iter().copied().filter(|value| value.is_finite()).fold(0.0, f64::max);
        // Such as switches.
        let whole = matches!(series.kind, SeriesKind::Number) && cells.iter().all(|value| value.fract() == 0.0);
        let many = names.len() > 20;
        let what = Matrix {
            name: &format!("{} by class and epoch", series.title),
            rows: names,
            columns: &columns,
            classes_in_columns: false,
            axis: "Epoch",
            color: &|class, epoch| scale.color(at(class, epoch), epoch),
            text: &|class, epoch, wide| match at(class, epoch) {
                value if whole => short(value),
                value => in_cell(value, largest, wide),
            },
            describe: &|class, epoch| {
                let value = describe(
                    (series, experiment),
                    at(class, epoch),
                    scale.means.get(epoch).copied(),
                    epochs[epoch].metrics.epoch,
                );
                format!("{}, epoch {}: {value}", names[class], columns[epoch])
            },
            marked: epochs.iter().position(|epoch| epoch.metrics.epoch == shown.metrics.epoch),
            key: version(run, (series.name, "colours", names.len())),
            cell: (vec2(4.0, if many { 14.0 } else { 20.0 }), vec2(44.0, if many { 14.0 } else { 26.0 })),
            height: 420.0,
        };
        let cell = matrix(ui, &mut self.matrix, &what);
        scale.legend(ui);
        cell.and_then(|(_, column)| epochs.get(column)).map(|epoch| epoch.metrics.epoch)
    }
}

/// The bars of the epoch shown.
fn of_one_epoch(
    ui: &mut Ui,
    names: &[String],
    (series, experiment): (&SeriesInfo, &Experiment),
    shown: &EpochRecord,
    values: &[f64],
) {
    let palette = theme::palette(ui);
    let epoch = shown.metrics.epoch;
    let mean = mean(values.iter().copied());
    let ink = ui.visuals().text_color();
    let marks = match series.kind {
        SeriesKind::Weight { .. } | SeriesKind::LimitedWeight(_) => vec![(mean, ink, format!("mean {mean:.3}"))],
        SeriesKind::Budget(budget) => {
            let budget = budget(experiment, epoch);
            vec![(f64::from(budget), ink, format!("budget {budget}"))]
        }
        SeriesKind::Number => Vec::new(),
    };
    let largest = values.iter().copied().chain(marks.iter().map(|mark| mark.0)).filter(|v| v.is_finite());
    let what = Bars {
        id: series.name,
        names,
        maximum: round_above(largest.fold(0.0, f64::max)),
        write: &short,
        marks: &marks,
        number: 60.0,
        numbers: 1,
    };
    bars(ui, &what, values.len(), |class| BarRow {
        class,
        name: &names[class],
        emphasis: None,
        bars: vec![(values[class], palette.accent)],
        numbers: vec![(number(series.kind, values[class]), palette.weak)],
        describe: format!(
            "{}: {} {}",
            names[class],
            series.title,
            describe((series, experiment), values[class], Some(mean), epoch)
        ),
    });
    let text = match series.kind {
        SeriesKind::Budget(_) => format!("Steps per image, mean over the images of a class in epoch {}.", epoch + 1),
        _ => format!("Used in epoch {}.", epoch + 1),
    };
    ui.label(weak(ui, text).small());
}

/// A value of an epoch with what it compares with.
fn describe((series, experiment): (&SeriesInfo, &Experiment), value: f64, mean: Option<f64>, epoch: u32) -> String {
    if !value.is_finite() {
        return "not measured".into();
    }
    let compared = match series.kind {
        SeriesKind::Weight { .. } | SeriesKind::LimitedWeight(_) => {
            mean.map(|mean| format!(", {:.2} × the mean weight", value / mean))
        }
        SeriesKind::Budget(budget) => Some(format!(" of {} steps", budget(experiment, epoch))),
        SeriesKind::Number => None,
    };
    format!("{}{}", number(series.kind, value), compared.unwrap_or_default())
}

/// A value with three decimals, which align; numbers may be switches and have as many as needed.
fn number(kind: SeriesKind, value: f64) -> String {
    if matches!(kind, SeriesKind::Number) { short(value) } else { format!("{value:.3}") }
}

/// A value in a cell: with three significant digits if the cell is wide, otherwise with two.
fn in_cell(value: f64, largest: f64, wide: bool) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let decimals = match largest {
        ..1.0 => 2,
        1.0..10.0 => 1,
        _ => 0,
    };
    let decimals = decimals + usize::from(wide);
    let text = format!("{value:.decimals$}");
    match text.strip_prefix("0.") {
        Some(fraction) if !wide && largest < 1.0 => format!(".{fraction}"),
        _ => text,
    }
}

/// A number on an axis.
fn short(value: f64) -> String {
    ((1000.0 * value).round() / 1000.0).to_string()
}

/// The value of a class in an epoch.
fn value(epoch: &EpochRecord, class: usize, name: &str) -> Option<f64> {
    row(epoch, class)?.series.iter().find(|(of, _)| of == name).map(|(_, value)| *value)
}

fn csv(run: &RunView, name: &str) -> String {
    let rows = run.epochs.iter().flat_map(|epoch| epoch.classes.iter().map(move |row| (epoch, row)));
    let rows = rows.filter_map(|(epoch, row)| {
        let value = value(epoch, row.class as usize, name)?;
        Some([row.epoch.to_string(), row.class.to_string(), row.name.clone(), value.to_string()])
    });
    table(&["epoch", "class", "name", name], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_weights_are_neutral_and_missing_ones_grey() {
        let scale = Scale { means: vec![2.0, 0.1], places: SeriesScale::Relative { factor: 4.0 } };
        assert_eq!(scale.color(2.0, 0), theme::diverging(0.5));
        assert_eq!(scale.color(0.1, 1), theme::diverging(0.5));
        assert_eq!((scale.color(8.0, 0), scale.color(0.5, 0)), (theme::diverging(1.0), theme::diverging(0.0)));
        assert_eq!(scale.color(0.0, 0), theme::diverging(0.0));
        for scale in [scale, Scale { means: vec![1.0], places: SeriesScale::Absolute { top: 3.0 } }] {
            assert_eq!(scale.color(f64::NAN, 0), Color32::GRAY);
        }
    }
}
