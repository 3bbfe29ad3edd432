//! The result of an evaluation on the terminal.

use super::super::counted_as;
use crate::attack::{AttackKind, Report, describe_without_gradient, describe_worst_class};
use crate::evaluate::robustness::{Described, Evaluation, Role};
use crate::fairness::DENSE_CLASSES;

/// An accuracy or a gap, with its 95 % interval if it has one. `None` for a class without images.
type Cell = Option<(f64, Option<[f64; 2]>)>;

/// Number of classes shown of more than [`DENSE_CLASSES`].
const WORST_SHOWN: usize = 20;

/// More columns than this do not fit a terminal.
const COLUMNS: usize = 4;

/// A line about an attack below the table.
struct Line {
    report: Report,
    /// Its column, if it has one.
    column: bool,
    /// More about it.
    notes: Vec<String>,
}

/// Classes as rows, attacks as columns, and the names of the attacks below. If there are many attacks, only clean
/// accuracy, the suites and the worst case are columns. `warnings` belong to the attacks.
pub(super) fn text(evaluation: &Evaluation, described: &Described, warnings: &[Vec<String>]) -> String {
    let lines = lines(evaluation, warnings);
    let columns: Vec<&Report> = lines.iter().filter(|line| line.column).map(|line| &line.report).collect();
    let images = counted_as(evaluation.labels().len(), "image", "images");
    let Described { checkpoint, dataset, part, .. } = described;
    let mut text = format!("{checkpoint} on {dataset} ({part}, {images})\nIn brackets: 95 % intervals.\n\n");
    let width = evaluation.class_names().iter().map(|name| name.chars().count()).max().unwrap_or(0).max(12);
    let header: Vec<String> = (0..columns.len()).map(|i| format!("{:>9}{:15}", number(i), "")).collect();
    text += format!("{:<width$} {}", "", header.join(" ")).trim_end();
    text += "\n";
    let mut line = |name: &str, cell: &dyn Fn(&Report) -> Cell| {
        let cell = |report: &&Report| {
            let Some((value, interval)) = cell(report) else { return format!("{:>7}   {:14}", "n/a", "") };
            format!("{:>7.1} % {:<14}", 100.0 * value, interval.map(bounds).unwrap_or_default())
        };
        let cells: Vec<String> = columns.iter().map(cell).collect();
        text += format!("{name:<width$} {}", cells.join(" ")).trim_end();
        text += "\n";
    };
    line("mean", &|r| Some((r.accuracy, Some(r.interval))));
    line("worst class", &|r| Some((r.worst_class_accuracy, Some(r.worst_class_interval))));
    if columns.iter().any(|report| report.shown_worst_tenth().is_some()) {
        line("worst 10 %", &|r| Some((r.worst_tenth_accuracy, None)));
    }
    line("gap", &|r| Some((r.gap, None)));
    let names = evaluation.class_names();
    // The last column is the strongest attack, or all of them together.
    let shown = match columns.last() {
        Some(report) if names.len() > DENSE_CLASSES => report.worst_classes(WORST_SHOWN),
        _ => (0..names.len()).collect(),
    };
    for k in &shown {
        line(&names[*k], &|r| Some((r.classes[*k].accuracy?, Some(r.classes[*k].interval))));
    }
    if shown.len() < names.len() {
        text += &format!(
            "Shown are the {} worst of {} classes in the last column; --report and --json have all.\n",
            shown.len(),
            names.len()
        );
    }
    text += "\n";
    let mut next = 0;
    for Line { report, column, notes } in &lines {
        let Report { attack, worst_class, worst_class_accuracy, worst_class_interval, worst_class_ties, .. } = report;
        if *column {
            let worst =
                describe_worst_class(worst_class, *worst_class_accuracy, *worst_class_interval, worst_class_ties);
            text += &format!("{} {attack}\n    worst class: {worst}\n", number(next));
            next += 1;
        } else {
            text += &format!("    {attack}: {:.1} % {}\n", 100.0 * report.accuracy, bounds(report.interval));
        }
        for note in notes {
            text += &format!("    {note}\n");
        }
    }
    text
}

fn number(i: usize) -> String {
    format!("[{}]", i + 1)
}

fn bounds([low, high]: [f64; 2]) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high)
}

fn lines(evaluation: &Evaluation, warnings: &[Vec<String>]) -> Vec<Line> {
    let all = evaluation.rows.iter().all(|row| row.entry.suite.is_none() && row.entry.role == Role::Attack)
        && evaluation.rows.len() <= COLUMNS;
    let suites = evaluation.suites();
    let attacks = evaluation.rows.iter().filter(|row| row.entry.role.counts());
    let attacks = attacks.filter(|row| row.entry.attack.kind != AttackKind::Clean).count();
    let mut lines = Vec::new();
    for (i, row) in evaluation.rows.iter().enumerate() {
        let mut report = evaluation.report(row);
        if row.entry.role == Role::Control {
            report.attack += " (control)";
        }
        let mut notes = Vec::new();
        if let Some(targets) = row.targets {
            let interval = crate::fairness::wilson(targets.hit, targets.images).into();
            let share = 100.0 * crate::fairness::ratio(targets.hit, targets.images);
            notes.push(format!("reached its target: {share:.1} % {}", bounds(interval)));
        }
        if row.entry.suite.is_some() {
            let seconds = row.seconds;
            notes.push(format!("    on the {} images that were left, in {seconds:.1} s", row.attacked));
        }
        if row.without_gradient > 0 {
            notes.push(describe_without_gradient(row.without_gradient, row.attacked));
        }
        notes.extend(warnings.get(i).into_iter().flatten().map(|warning| format!("warning: {warning}")));
        lines.push(Line { report, column: all || row.entry.attack.kind == AttackKind::Clean, notes });
        if let Some((suite, _)) = suites.iter().find(|(_, last)| last.entry.name == row.entry.name) {
            let report = evaluation.report_of(suite.title(), &row.predictions);
            let notes = vec![format!("{:.1} s", evaluation.seconds_of(*suite))];
            lines.push(Line { report, column: true, notes });
        }
    }
    if attacks > 1 {
        let report = evaluation.report_of("worst case of each image over all attacks", &evaluation.worst_case());
        lines.push(Line { report, column: true, notes: Vec::new() });
    }
    if let Some(last) = lines.last_mut() {
        last.notes.extend(evaluation.warnings.iter().map(|warning| format!("warning: {warning}")));
    }
    lines
}
