//! What a method adapts per class, such as weights, over epochs.

use colorous::Color;

use super::axes::{MARGIN, header, trimmed};
use super::classes::ClassTable;
use super::heatmap::{ASIDE, Cell, ColorBar, EpochGrid, hex};
use super::shown::Shown;
use super::{Context, Figure, FigureError};
use crate::config::SeriesInfo;
use crate::train::ClassRow;

/// How the values of a class series become colours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SeriesScale {
    /// Weights: the logarithm of a weight relative to the mean of its epoch, from `1 / factor` to `factor`.
    Relative {
        /// Larger than 1.
        factor: f64,
    },
    /// Other values, from 0 to `top`.
    Absolute {
        /// Larger than 0.
        top: f64,
    },
}

impl SeriesScale {
    /// The place of a value on the scale, from 0 to 1. `mean` is the mean of its epoch.
    pub fn place(&self, value: f64, mean: f64) -> f64 {
        match self {
            // Weights of 0 have a place, missing ones have none.
            Self::Relative { factor } => {
                0.5 + 0.5 * (value / mean).clamp(f64::MIN_POSITIVE, f64::MAX).ln() / factor.ln()
            }
            Self::Absolute { top } => value / top,
        }
    }

    fn color(&self, place: f64) -> Color {
        let place = place.clamp(0.0, 1.0);
        match self {
            Self::Relative { .. } => colorous::RED_BLUE.eval_continuous(1.0 - place),
            Self::Absolute { .. } => colorous::VIRIDIS.eval_continuous(place),
        }
    }
}

/// A class series of a method in each epoch.
///
/// # Errors
/// [`FigureError::Empty`] without values, rows or class names, [`FigureError::Class`] for a class without a name.
pub fn class_series(
    rows: &[ClassRow],
    series: &SeriesInfo,
    scale: &SeriesScale,
    context: &Context,
) -> Result<Figure, FigureError> {
    const NAME: &str = "class-series";
    let table = ClassTable::new(NAME, rows, context)?;
    let (epochs, classes) = (table.epochs.len(), table.classes);
    let value = |class: usize, epoch: usize| table.series(epoch, class, series.name);
    let mean = |epoch: usize| {
        let values: Vec<f64> = (0..classes).filter_map(|class| value(class, epoch)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let means: Vec<f64> = (0..epochs).map(mean).collect();
    if means.iter().all(|mean| mean.is_nan()) {
        return Err(FigureError::Empty { figure: NAME, missing: "no epoch has values of this series" });
    }
    let all = || (0..classes).flat_map(|class| (0..epochs).filter_map(move |epoch| value(class, epoch)));
    let largest = all().map(f64::abs).fold(0.0, f64::max);

    let shown = Shown::highest(classes, |class| value(class, epochs - 1).unwrap_or(f64::NAN));
    let names = &shown.names(context);
    let grid = EpochGrid::new(epochs, shown.len(), names);
    let mut canvas = grid.canvas();
    let mut notes = match scale {
        SeriesScale::Relative { .. } => vec!["Colour: weight relative to the mean weight of the epoch".to_owned()],
        SeriesScale::Absolute { .. } => Vec::new(),
    };
    notes.extend(shown.note("with the highest value in the last epoch, highest first"));
    let top = header(&mut canvas, series.title, context, &notes) + 12.0;

    let whole = matches!(scale, SeriesScale::Absolute { .. }) && all().all(|value| value.fract() == 0.0);
    let decimals = match largest {
        _ if whole => 0,
        ..1.0 => 2 + usize::from(grid.cell.0 >= 33.0),
        1.0..10.0 => 1 + usize::from(grid.cell.0 >= 26.0),
        _ => usize::from(grid.cell.0 >= 26.0),
    };
    let matrix = grid.matrix(top);
    matrix.draw(&mut canvas, NAME, |row, epoch| match value(shown.classes[row], epoch) {
        Some(value) => Cell {
            color: Some(scale.color(scale.place(value, means[epoch]))),
            text: format!("{value:.decimals$}"),
            quiet: false,
        },
        None => Cell { color: None, text: "–".to_owned(), quiet: true },
    })?;
    let bottom = grid.labels(&mut canvas, names, &table.epochs, top);

    // The bar begins at 0.
    let (maximum, title, marks) = match scale {
        SeriesScale::Relative { factor } => {
            let marks = [-1.0, -0.5, 0.0, 0.5, 1.0];
            let text = |power: f64| format!("{} ×", trimmed(factor.powf(power), 2));
            (2.0, "Weight", marks.map(|power| (power + 1.0, text(power))))
        }
        SeriesScale::Absolute { top } => {
            let marks = [0.0, 0.25, 0.5, 0.75, 1.0];
            (*top, "", marks.map(|part| (part * top, trimmed(part * top, 3))))
        }
    };
    let bar = ColorBar {
        id: "series-scale",
        x: grid.right() + ASIDE,
        top: top + 22.0,
        height: (bottom - top - 22.0).clamp(60.0, 170.0),
        maximum,
        title,
    };
    let colors = (0..=16).map(|i| hex(scale.color(f64::from(i) / 16.0))).collect::<Vec<_>>();
    bar.draw(&mut canvas, &colors, &marks, None);
    let height = (bottom + 40.0).max(bar.top + bar.height + 8.0) + MARGIN - 6.0;
    Ok(Figure { name: series.name, svg: canvas.finish(height, series.title) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MethodChoice;

    fn rows(classes: u32, epochs: u32, value: impl Fn(u32, u32) -> f64) -> Vec<ClassRow> {
        let row = |epoch: u32, class: u32| ClassRow {
            epoch,
            class,
            name: format!("c{class}"),
            epsilon: 0.03,
            target_probability: None,
            cfps: 0.1,
            train_robust_accuracy: 0.4,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.8,
            val_robust_accuracy: 0.4,
            series: vec![("weight".into(), value(epoch, class))],
        };
        (0..epochs).flat_map(|epoch| (0..classes).map(move |class| row(epoch, class))).collect()
    }

    fn context(classes: u32) -> Context {
        Context {
            title: "WAT on digits".into(),
            attack: "PGD-10".into(),
            train_attack: "PGD-10".into(),
            train_robust: "train robust",
            statistics: String::new(),
            frozen_after: None,
            class_names: (0..classes).map(|class| format!("c{class}")).collect(),
            base_epsilon: 0.03,
        }
    }

    fn weight() -> &'static SeriesInfo {
        &MethodChoice::Wat.about().series[0]
    }

    #[test]
    fn weights_are_coloured_relative_to_the_mean_of_their_epoch() {
        let scale = SeriesScale::Relative { factor: 2.0 };
        // Equal weights are neutral, whatever they are; a weight of 0 is at the lower end.
        assert_eq!((scale.place(2.0, 2.0), scale.place(4.0, 2.0), scale.place(1.0, 2.0)), (0.5, 1.0, 0.0));
        assert!(scale.place(0.0, 1.0) < 0.0 && scale.place(f64::NAN, 1.0).is_nan());
        let rows = rows(3, 2, |epoch, class| if epoch == 0 { 2.0 } else { f64::from(class) });
        let svg = class_series(&rows, weight(), &scale, &context(3)).unwrap().svg;
        for text in ["Weight of the loss", "0.5 ×", "2 ×", &hex(colorous::RED_BLUE.eval_continuous(0.5))] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn two_and_a_hundred_classes_become_pictures() {
        for (classes, epochs) in [(2, 1), (100, 60)] {
            let rows = rows(classes, epochs, |epoch, class| f64::from(epoch + class));
            for scale in [SeriesScale::Relative { factor: 8.0 }, SeriesScale::Absolute { top: 160.0 }] {
                let figure = class_series(&rows, weight(), &scale, &context(classes)).unwrap();
                super::super::png(&figure.svg).unwrap();
            }
        }
    }

    #[test]
    fn a_run_without_values_has_no_figure() {
        let mut rows = rows(3, 2, |_, _| 1.0);
        rows.iter_mut().for_each(|row| row.series.clear());
        let scale = SeriesScale::Absolute { top: 1.0 };
        let error = class_series(&rows, weight(), &scale, &context(3)).unwrap_err();
        assert!(matches!(error, FigureError::Empty { .. }), "{error}");
    }
}
