//! The report of a study as Markdown.

use std::fmt::Write as _;

use super::report::{Comparison, Correlation, Metric, Verdict};
use super::{ArmReport, CellReport, CostReport, StudyReport};

/// Most classes whose accuracies get a table of their own.
const MOST_CLASSES: usize = 20;

/// How [`claims`] are made.
pub const HOW_STATED: &str = "Differences are in points, paired by seed. A difference is stated if its bootstrap interval over the \
     seeds and Student's interval (both 95 %) exclude 0 and there are at least three seeds; the interval in brackets is Student's, which is the wider one for few seeds.";

/// The report: what was found in sentences, then the tables.
pub fn markdown(report: &StudyReport) -> String {
    let mut text = format!("# {}\n", report.title);
    if !report.about.is_empty() {
        let _ = write!(text, "\n{}\n", report.about);
    }
    let [done, all] = report.complete;
    if done < all {
        let _ = write!(text, "\n**{done} of {all} runs are complete.**\n");
    }
    text += "\n## What the numbers show\n\n";
    let _ = writeln!(text, "{HOW_STATED}\n");
    for cell in &report.cells {
        if !cell.cell.is_empty() {
            let _ = writeln!(text, "{}:\n", cell.cell);
        }
        match claims(cell).as_slice() {
            [] => text += "* One arm: nothing is compared.\n",
            claims => claims.iter().for_each(|claim| _ = writeln!(text, "* {claim}")),
        }
        text += "\n";
    }
    for cell in &report.cells {
        text += &cell_text(report, cell);
    }
    if !report.failed.is_empty() {
        text += "## Runs that failed\n\n";
        report.failed.iter().for_each(|(run, what)| _ = writeln!(text, "* {run}: {what}"));
        text += "\n";
    }
    if !report.missing.is_empty() {
        let _ = writeln!(text, "## Runs that are not complete\n\n{}\n", report.missing.join(", "));
    }
    if !report.warnings.is_empty() {
        text += "## Warnings\n\n";
        report.warnings.iter().for_each(|warning| _ = writeln!(text, "* {warning}"));
    }
    text
}

/// A sentence for each arm and what it is compared with; none if there is only one arm.
pub fn claims(cell: &CellReport) -> Vec<String> {
    let mut claims = Vec::new();
    for arm in &cell.arms {
        let against: Vec<&str> = arm.metrics.first().map_or_else(Vec::new, |metric| {
            metric.comparisons.iter().map(|comparison| comparison.against.as_str()).collect()
        });
        for other in against {
            let transfer = arm.transfer.iter().flatten();
            let of = |metrics: &mut dyn Iterator<Item = &Metric>| {
                let found = metrics.filter_map(|metric| Some((metric.name.clone(), metric.against(other)?.clone())));
                found.collect::<Vec<_>>()
            };
            let mut all = of(&mut arm.metrics.iter());
            all.extend(of(&mut transfer.into_iter()));
            claims.push(format!("{} against {other}. {}", arm.arm, sentences(&all)));
        }
    }
    claims
}

/// Longest list of quantities without a difference, of which there are many where many attacks and corruptions are measured.
const MOST_NAMES: usize = 6;

fn sentences(all: &[(String, Comparison)]) -> String {
    if all.iter().all(|(_, comparison)| comparison.verdict == Verdict::TooFewSeeds) {
        return "Fewer than three seeds, so no difference is stated.".into();
    }
    let of = |verdict: Verdict| {
        let found = all.iter().filter(move |(_, comparison)| comparison.verdict == verdict);
        found.map(|(name, comparison)| format!("{name} {comparison}")).collect::<Vec<_>>()
    };
    let names = |verdict: Verdict| {
        let of = all.iter().filter(|(_, comparison)| comparison.verdict == verdict);
        let mut names: Vec<String> = of.map(|(name, _)| name.clone()).collect();
        if names.len() > MOST_NAMES {
            let more = names.len() - (MOST_NAMES - 1);
            names.truncate(MOST_NAMES - 1);
            names.push(format!("{more} others"));
        }
        names
    };
    let parts = [
        ("Higher", of(Verdict::Higher)),
        ("Lower", of(Verdict::Lower)),
        ("No difference shown", names(Verdict::NotShown)),
        ("Fewer than three seeds", names(Verdict::TooFewSeeds)),
    ];
    // Names of attacks contain commas.
    let told = parts.into_iter().filter(|(_, found)| !found.is_empty());
    told.map(|(word, found)| format!("{word}: {}.", found.join("; "))).collect::<Vec<_>>().join(" ")
}

/// Mean and deviation, and the difference from the baseline.
fn cell_of(metric: &Metric, baseline: &str) -> String {
    let Some(spread) = metric.spread else { return "n/a".into() };
    match metric.against(baseline) {
        Some(comparison) => format!("{spread} ({comparison})"),
        None => spread.to_string(),
    }
}

fn cell_text(report: &StudyReport, cell: &CellReport) -> String {
    let baseline = &report.baseline;
    let heading = if cell.cell.is_empty() { "Results" } else { &cell.cell };
    let mut text = format!(
        "## {heading}\n\n{}, {} weights. Robust: {}, seed of the run. ",
        cell.subject, report.weights, cell.attack
    );
    let _ = writeln!(
        text,
        "Mean ± standard deviation over seeds in %; in brackets the difference from {baseline} with its 95 % interval.\n"
    );
    let names: Vec<&str> =
        cell.arms.first().map_or_else(Vec::new, |arm| arm.metrics.iter().map(|m| m.name.as_str()).collect());
    let _ = writeln!(text, "| arm | seeds | {} |\n|---|---{}|", names.join(" | "), "|---".repeat(names.len()));
    for arm in &cell.arms {
        let seeds = arm.metrics.first().map_or(0, |metric| metric.values.len());
        let cells: Vec<String> = arm.metrics.iter().map(|metric| cell_of(metric, baseline)).collect();
        let _ = writeln!(text, "| {} | {seeds} | {} |", plain(&arm.arm), cells.join(" | "));
    }
    text += "\n";
    text += &classes(baseline, cell);
    text += &transfer(baseline, cell);
    text += &vulnerability(cell);
    text
}

/// A row for each class or attack, a column for each arm.
fn by_arm(heading: &str, first: &str, rows: &[(String, Vec<String>)], arms: &[ArmReport]) -> String {
    let names: Vec<String> = arms.iter().map(|arm| plain(&arm.arm)).collect();
    let mut text =
        format!("### {heading}\n\n| {first} | {} |\n|---{}|\n", names.join(" | "), "|---".repeat(names.len()));
    rows.iter().for_each(|(name, cells)| _ = writeln!(text, "| {} | {} |", plain(name), cells.join(" | ")));
    text + "\n"
}

fn classes(baseline: &str, cell: &CellReport) -> String {
    if cell.class_names.len() > MOST_CLASSES {
        return format!("The {} classes are in report.csv.\n\n", cell.class_names.len());
    }
    let row = |(k, name): (usize, &String)| {
        (name.clone(), cell.arms.iter().map(|arm| cell_of(&arm.classes[k], baseline)).collect())
    };
    let rows: Vec<(String, Vec<String>)> = cell.class_names.iter().enumerate().map(row).collect();
    by_arm("Robust accuracy of each class", "class", &rows, &cell.arms)
}

fn transfer(baseline: &str, cell: &CellReport) -> String {
    let Some(longest) = cell.arms.iter().max_by_key(|arm| arm.transfer.len()).filter(|arm| !arm.transfer.is_empty())
    else {
        return String::new();
    };
    let mut text = String::new();
    for (which, heading) in
        ["Mean accuracy under other attacks and corruptions", "Worst class under other attacks and corruptions"]
            .into_iter()
            .enumerate()
    {
        let row = |title: &str| {
            let of = |arm: &ArmReport| {
                let found = arm.transfer.iter().find(|[mean, _]| mean.name == title);
                found.map_or_else(|| "n/a".into(), |metrics| cell_of(&metrics[which], baseline))
            };
            (title.to_owned(), cell.arms.iter().map(of).collect())
        };
        let rows: Vec<(String, Vec<String>)> = longest.transfer.iter().map(|[mean, _]| row(&mean.name)).collect();
        text += &by_arm(heading, "attack", &rows, &cell.arms);
    }
    text
}

fn vulnerability(cell: &CellReport) -> String {
    if cell.arms.iter().all(|arm| arm.vulnerability.is_none()) {
        return String::new();
    }
    let mut text = String::from(
        "### CFPS and the success of targeted attacks\n\nCorrelation over the classes of CFPS (share of all mistakes under the \
         untargeted attack that land on the class) with the success of attacks *towards* the class and of attacks on images \
         *from* the class, means over seeds; 95 % interval (Fisher's for Pearson's r, bootstrap for Spearman's ρ), and \
         two-sided p of a permutation test.\n\n| arm | CFPS with | Pearson's r | p | Spearman's ρ | p |\n|---|---|---|---|---|---|\n",
    );
    for arm in &cell.arms {
        let Some(found) = &arm.vulnerability else { continue };
        for (with, title) in [("towards", "success towards"), ("from", "success from")] {
            let of = |kind: &str| {
                let found = found.correlations.iter().find(|found| found.with == with && found.kind == kind);
                found.map_or_else(|| ["n/a".to_owned(), "n/a".to_owned()], coefficient)
            };
            let [pearson, spearman] = ["pearson", "spearman"].map(of);
            let _ = writeln!(
                text,
                "| {} | {title} | {} | {} | {} | {} |",
                plain(&arm.arm),
                pearson[0],
                pearson[1],
                spearman[0],
                spearman[1]
            );
        }
    }
    text + "\n"
}

fn coefficient(found: &Correlation) -> [String; 2] {
    let Some(value) = found.value else { return ["n/a".into(), "n/a".into()] };
    let interval = found.interval.map_or(String::new(), |[low, high]| format!(" [{low:.2}, {high:.2}]"));
    let p = match found.p {
        None => "n/a".into(),
        Some(p) if p < 0.001 => "< 0.001".into(),
        Some(p) => format!("{p:.3}"),
    };
    [format!("{value:.2}{interval}"), p]
}

/// Text in a table.
fn plain(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// Time and memory.
pub fn cost_markdown(cost: &CostReport) -> String {
    let mut text = format!(
        "# Time and memory\n\nMedian seconds of an epoch without validation, and its parts; relative to {}. Only runs on one \
         otherwise idle machine compare. Memory: most that a process used that trained one short epoch.\n\n\
         | cell | arm | epochs | seconds | searches | updates | statistics | relative | memory |\n|---|---|---|---|---|---|---|---|---|\n",
        cost.baseline
    );
    for row in &cost.rows {
        let relative = row.relative.map_or_else(|| "n/a".into(), |relative| format!("{relative:.2}"));
        let memory = row.peak_bytes.map_or_else(|| "not measured".into(), |bytes| format!("{} MiB", bytes >> 20));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {relative} | {memory} |",
            plain(&row.cell),
            plain(&row.arm),
            row.epochs,
            row.seconds,
            row.attack,
            row.update,
            row.statistics
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::report::{Comparison, Spread};

    #[test]
    fn a_long_list_without_a_difference_is_cut() {
        let of = |count: usize, verdict: Verdict| {
            let comparison = Comparison {
                against: "AT".into(),
                seeds: vec![0, 1, 2],
                spread: Spread { mean: 0.0, deviation: Some(0.1) },
                bootstrap: Some([-0.1, 0.1]),
                t: Some([-0.2, 0.2]),
                verdict,
            };
            (0..count).map(|i| (format!("q{i}"), comparison.clone())).collect::<Vec<_>>()
        };
        assert_eq!(sentences(&of(6, Verdict::NotShown)), "No difference shown: q0; q1; q2; q3; q4; q5.");
        assert_eq!(sentences(&of(40, Verdict::NotShown)), "No difference shown: q0; q1; q2; q3; q4; 35 others.");
        let mixed = [of(1, Verdict::Higher), of(2, Verdict::TooFewSeeds)].concat();
        assert!(sentences(&mixed).ends_with(". Fewer than three seeds: q0; q1."), "{}", sentences(&mixed));
    }
}
