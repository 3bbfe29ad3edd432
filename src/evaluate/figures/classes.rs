//! The rows of `classes.csv` as a table of epoch × class.

use super::{Context, FigureError};
use crate::train::ClassRow;

/// Rows by epoch and class; `None` for missing rows.
pub(super) struct ClassTable<'a> {
    pub(super) epochs: Vec<u32>,
    pub(super) classes: usize,
    rows: Vec<Option<&'a ClassRow>>,
}

impl<'a> ClassTable<'a> {
    /// If two rows have the same epoch and class, as after a resume, the later one counts.
    pub(super) fn new(figure: &'static str, rows: &'a [ClassRow], context: &Context) -> Result<Self, FigureError> {
        let classes = context.class_names.len();
        if rows.is_empty() || classes == 0 {
            let missing = if classes == 0 { "no class names" } else { "no rows of classes" };
            return Err(FigureError::Empty { figure, missing });
        }
        let mut epochs: Vec<u32> = rows.iter().map(|row| row.epoch).collect();
        epochs.sort_unstable();
        epochs.dedup();
        let mut table = vec![None; epochs.len() * classes];
        for row in rows {
            let class = row.class as usize;
            if class >= classes {
                return Err(FigureError::Class { figure, epoch: row.epoch, class: row.class, count: classes });
            }
            if let Ok(epoch) = epochs.binary_search(&row.epoch) {
                table[epoch * classes + class] = Some(row);
            }
        }
        Ok(Self { epochs, classes, rows: table })
    }

    /// A value of the class in the epoch with this index (not number). `None` if it is missing or out of range.
    pub(super) fn value(&self, epoch: usize, class: usize, value: impl Fn(&ClassRow) -> f64) -> Option<f64> {
        self.rows[epoch * self.classes + class].map(value).filter(is_fraction)
    }

    /// A value of the class series in this column. `None` if it is missing.
    pub(super) fn series(&self, epoch: usize, class: usize, column: &str) -> Option<f64> {
        let series = &self.rows[epoch * self.classes + class]?.series;
        series.iter().find(|(name, _)| name == column).map(|(_, value)| *value).filter(|value| value.is_finite())
    }

    /// The values of all classes in one epoch.
    pub(super) fn column(&self, epoch: usize, value: impl Fn(&ClassRow) -> f64) -> Vec<Option<f64>> {
        (0..self.classes).map(|class| self.value(epoch, class, &value)).collect()
    }
}

/// Accuracies, probabilities and epsilons are in `[0, 1]` up to rounding; any other value means not measured.
pub(super) fn is_fraction(value: &f64) -> bool {
    (-1e-6..=1.0 + 1e-6).contains(value)
}
