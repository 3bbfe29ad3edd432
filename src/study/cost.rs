//! Time and memory of the arms of a study. They depend on the machine and on what else runs there, so they are no part of
//! the report itself.

use serde::Serialize;

use super::results::Results;
use super::{PlannedRun, StudyFile};

/// Time and memory of one arm in one cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostRow {
    /// The values of the axes.
    pub cell: String,
    /// The arm.
    pub arm: String,
    /// Number of epochs that were timed, over all seeds.
    pub epochs: usize,
    /// Median seconds of an epoch without validation.
    pub seconds: f64,
    /// Median seconds of its searches.
    pub attack: f64,
    /// Median seconds of its updates.
    pub update: f64,
    /// Median seconds of its class statistics, forward passes on clean images included.
    pub statistics: f64,
    /// `seconds` relative to the baseline of the cell; `None` without one.
    pub relative: Option<f64>,
    /// Most memory that a process used that trained one short epoch, in bytes; the largest over seeds.
    pub peak_bytes: Option<u64>,
}

/// Time and memory of a study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CostReport {
    /// The arm that times are relative to.
    pub baseline: String,
    /// A row for each arm of each cell.
    pub rows: Vec<CostRow>,
}

impl CostReport {
    /// The cost of what is complete.
    pub fn new(file: &StudyFile, plan: &[PlannedRun], results: &Results) -> Self {
        let mut rows: Vec<CostRow> = Vec::new();
        for run in plan {
            if rows.iter().any(|row| (&row.cell, &row.arm) == (&run.cell, &run.arm)) {
                continue;
            }
            let same = plan.iter().filter(|other| (&other.cell, &other.arm) == (&run.cell, &run.arm));
            let finished: Vec<_> = same.filter_map(|other| results.finished(&other.name)).collect();
            let epochs: Vec<[f64; 3]> = finished
                .iter()
                .flat_map(|run| &run.rows)
                .map(|row| [row.seconds_attack, row.seconds_update, row.seconds_statistics])
                .collect();
            let Some(seconds) = median(epochs.iter().map(|parts| parts.iter().sum()).collect()) else { continue };
            let part = |i: usize| median(epochs.iter().map(|parts| parts[i]).collect()).unwrap_or(0.0);
            rows.push(CostRow {
                cell: run.cell.clone(),
                arm: run.arm.clone(),
                epochs: epochs.len(),
                seconds,
                attack: part(0),
                update: part(1),
                statistics: part(2),
                relative: None,
                peak_bytes: finished.iter().filter_map(|run| run.measured.as_ref()?.peak_bytes).max(),
            });
        }
        let bases: Vec<(String, f64)> = rows
            .iter()
            .filter(|row| row.arm == file.baseline() && row.seconds > 0.0)
            .map(|row| (row.cell.clone(), row.seconds))
            .collect();
        for row in &mut rows {
            row.relative = bases.iter().find(|(cell, _)| *cell == row.cell).map(|(_, base)| row.seconds / base);
        }
        Self { baseline: file.baseline().to_owned(), rows }
    }
}

/// The median; the mean of the two in the middle of an even number. `None` without values.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn medians_of_odd_and_even_numbers() {
        assert_eq!(super::median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(super::median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(super::median(Vec::new()), None);
    }
}
