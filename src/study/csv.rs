//! The tables of a study for other programs.

use super::report::{Comparison, Metric, Spread};
use super::{CellReport, CostReport, PlannedRun, Results, StudyReport};

/// Every number of a report, a row for each comparison: `part` is `test`, `class`, `transfer` or a correlation.
pub fn report_csv(report: &StudyReport) -> Vec<u8> {
    let header = [
        "cell",
        "arm",
        "part",
        "metric",
        "seeds",
        "mean",
        "deviation",
        "against",
        "pairs",
        "difference",
        "difference_deviation",
        "bootstrap_low",
        "bootstrap_high",
        "t_low",
        "t_high",
        "verdict",
    ];
    table(&header, report.cells.iter().flat_map(rows))
}

fn rows(cell: &CellReport) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for arm in &cell.arms {
        let parts = [("test", &arm.metrics), ("class", &arm.classes)];
        let transfer: Vec<Metric> = arm.transfer.iter().flatten().cloned().collect();
        for (part, metrics) in parts.into_iter().chain([("transfer", &transfer)]) {
            for metric in metrics {
                let start = vec![cell.cell.clone(), arm.arm.clone(), part.to_owned()];
                rows.extend(of_metric(metric).into_iter().map(|row| [start.clone(), row].concat()));
            }
        }
    }
    rows
}

fn of_metric(metric: &Metric) -> Vec<Vec<String>> {
    let spread = |spread: Option<Spread>| {
        let mean = spread.map_or_else(String::new, |spread| spread.mean.to_string());
        [mean, spread.and_then(|spread| spread.deviation).map_or_else(String::new, |value| value.to_string())]
    };
    let start = [vec![metric.name.clone(), metric.values.len().to_string()], spread(metric.spread).to_vec()].concat();
    let ends = |interval: Option<[f64; 2]>| {
        interval.map_or_else(|| [String::new(), String::new()], |ends| ends.map(|end| end.to_string()))
    };
    let of = |comparison: &Comparison| {
        let verdict = serde_json::to_value(comparison.verdict).ok().and_then(|value| Some(value.as_str()?.to_owned()));
        [
            start.clone(),
            vec![comparison.against.clone(), comparison.seeds.len().to_string()],
            spread(Some(comparison.spread)).to_vec(),
            ends(comparison.bootstrap).to_vec(),
            ends(comparison.t).to_vec(),
            vec![verdict.unwrap_or_default()],
        ]
        .concat()
    };
    match metric.comparisons.as_slice() {
        [] => vec![[start, vec![String::new(); 9]].concat()],
        comparisons => comparisons.iter().map(of).collect(),
    }
}

/// One row for each complete run: its accuracies with the weights of the study.
pub fn runs_csv(report: &StudyReport, plan: &[PlannedRun], results: &Results) -> Vec<u8> {
    let header = [
        "run",
        "cell",
        "arm",
        "seed",
        "clean",
        "clean_worst",
        "robust",
        "robust_worst",
        "robust_worst_tenth",
        "robust_gap",
    ];
    let row = |run: &PlannedRun| {
        let found = results.finished(&run.name)?.report.of(&report.weights)?;
        let values = [
            found.clean,
            found.clean_worst,
            found.robust,
            found.robust_worst,
            found.robust_worst_tenth,
            found.robust_gap,
        ];
        let names = vec![run.name.clone(), run.cell.clone(), run.arm.clone(), run.seed.to_string()];
        Some([names, values.map(|value| value.to_string()).to_vec()].concat())
    };
    table(&header, plan.iter().filter_map(row))
}

/// CFPS and success of targeted attacks of every class: the points of the scatter plot. `None` if they were not measured.
pub fn vulnerability_csv(report: &StudyReport) -> Option<Vec<u8>> {
    let text = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let mut rows = Vec::new();
    for cell in &report.cells {
        for arm in &cell.arms {
            let Some(found) = &arm.vulnerability else { continue };
            for (k, name) in cell.class_names.iter().enumerate() {
                let values = [found.cfps[k], found.towards[k], found.from[k]].map(text);
                rows.push([vec![cell.cell.clone(), arm.arm.clone(), name.clone()], values.to_vec()].concat());
            }
        }
    }
    let header = ["cell", "arm", "class", "cfps", "success_towards", "success_from"];
    (!rows.is_empty()).then(|| table(&header, rows))
}

/// Time and memory.
pub fn cost_csv(cost: &CostReport) -> Vec<u8> {
    let header = [
        "cell",
        "arm",
        "epochs",
        "seconds",
        "seconds_attack",
        "seconds_update",
        "seconds_statistics",
        "relative",
        "peak_bytes",
    ];
    let row = |row: &super::CostRow| {
        vec![
            row.cell.clone(),
            row.arm.clone(),
            row.epochs.to_string(),
            row.seconds.to_string(),
            row.attack.to_string(),
            row.update.to_string(),
            row.statistics.to_string(),
            row.relative.map_or_else(String::new, |value| value.to_string()),
            row.peak_bytes.map_or_else(String::new, |value| value.to_string()),
        ]
    };
    table(&header, cost.rows.iter().map(row))
}

fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    // Writing into memory cannot fail, and all rows have the length of the header.
    let _ = writer.write_record(header);
    for row in rows {
        let _ = writer.write_record(row);
    }
    writer.into_inner().unwrap_or_default()
}
