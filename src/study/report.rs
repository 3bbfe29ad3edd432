//! The comparison of the arms of a study: means over seeds, paired differences with intervals, correlations.

use std::collections::BTreeSet;

use serde::Serialize;

use super::measure::Targeted;
use super::results::{Finished, Outcome, Results};
use super::{PlannedRun, StudyFile};
use crate::evaluate::WeightsReport;
use crate::fairness::MANY_CLASSES;
use crate::statistics::{self, RESAMPLES, bootstrap_correlation, bootstrap_mean, permutation_test, t_interval};

/// Seed of all resampling. It matters only for more values than [`statistics::ENUMERATED`].
const SEED: u64 = 0;

/// Mean and sample standard deviation of a value over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with `n - 1`. `None` for a single value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Mean and deviation of `values`. `None` without values.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Some(Self { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }
}

/// `71.3 ± 0.8` in percent.
impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.deviation {
            Some(deviation) => write!(f, "{:.1} ± {:.1}", 100.0 * self.mean, 100.0 * deviation),
            None => write!(f, "{:.1}", 100.0 * self.mean),
        }
    }
}

/// A difference is stated from at least as many seeds.
const FEWEST_SEEDS: usize = 3;

/// What paired differences show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Both intervals lie above 0.
    Higher,
    /// Both intervals lie below 0.
    Lower,
    /// At least one interval contains 0.
    NotShown,
    /// There are fewer than three pairs: nothing is stated from them.
    TooFewSeeds,
}

impl Verdict {
    /// In words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::NotShown => "no difference shown",
            Self::TooFewSeeds => "fewer than three seeds",
        }
    }
}

/// The differences of an arm from another, of the same cell and seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The other arm.
    pub against: String,
    /// Seeds that both have.
    pub seeds: Vec<u64>,
    /// Mean and standard deviation of the differences.
    pub spread: Spread,
    /// 95 % percentile bootstrap interval of their mean ([`bootstrap_mean`]). With `n` seeds it cannot leave the range
    /// of the `n` differences, and covers the mean less often than 95 %.
    pub bootstrap: Option<[f64; 2]>,
    /// 95 % interval of their mean, Student's t.
    pub t: Option<[f64; 2]>,
    /// What follows.
    pub verdict: Verdict,
}

impl Comparison {
    /// From pairs of seed and difference; `None` without any.
    fn of(against: &str, pairs: &[(u64, f64)]) -> Option<Self> {
        let values: Vec<f64> = pairs.iter().map(|(_, difference)| *difference).collect();
        let (bootstrap, t) = (bootstrap_mean(&values, RESAMPLES, SEED), t_interval(&values));
        let bootstrap = bootstrap.map(|found| found.percentile);
        let verdict = match (bootstrap, t) {
            // Two accuracies that are multiples of one image are often equally far apart, and Student's interval is then a
            // point.
            _ if values.len() < FEWEST_SEEDS => Verdict::TooFewSeeds,
            (Some([a, _]), Some([b, _])) if a > 0.0 && b > 0.0 => Verdict::Higher,
            (Some([_, a]), Some([_, b])) if a < 0.0 && b < 0.0 => Verdict::Lower,
            _ => Verdict::NotShown,
        };
        let seeds = pairs.iter().map(|(seed, _)| *seed).collect();
        Some(Self { against: against.into(), seeds, spread: Spread::of(&values)?, bootstrap, t, verdict })
    }
}

/// `+3.2 [-1.0, 7.4]` in points, with Student's interval.
impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // No minus sign before a 0.
        let points = |value: f64| (1000.0 * value).round() / 10.0 + 0.0;
        write!(f, "{:+.1}", points(self.spread.mean))?;
        match self.t {
            Some([low, high]) => write!(f, " [{:.1}, {:.1}]", points(low), points(high)),
            None => Ok(()),
        }
    }
}

/// One number of an arm over its seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Metric {
    /// Its name, such as `robust worst class`.
    pub name: String,
    /// Seed and value of each run.
    pub values: Vec<(u64, f64)>,
    /// Mean and standard deviation; `None` without values.
    pub spread: Option<Spread>,
    /// Differences from the baseline, then from the arms that this one names.
    pub comparisons: Vec<Comparison>,
}

/// A correlation over the classes, with what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Correlation {
    /// What CFPS is compared with: success of attacks `towards` or `from` a class.
    pub with: String,
    /// `pearson` or `spearman`.
    pub kind: String,
    /// The coefficient; `None` if one of the quantities is the same for all classes.
    pub value: Option<f64>,
    /// 95 % interval: Fisher's for Pearson's coefficient, the percentile bootstrap for Spearman's.
    pub interval: Option<[f64; 2]>,
    /// Two-sided p-value of a permutation test.
    pub p: Option<f64>,
}

/// CFPS and the success of targeted attacks, class by class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vulnerability {
    /// Mean over seeds of CFPS of each class; `None` for a class without images.
    pub cfps: Vec<Option<f64>>,
    /// Mean over seeds of the success of attacks towards each class.
    pub towards: Vec<Option<f64>>,
    /// Mean over seeds of the success of attacks on the images of each class.
    pub from: Vec<Option<f64>>,
    /// Correlations of these means over the classes.
    pub correlations: Vec<Correlation>,
}

impl Metric {
    /// The difference from an arm.
    pub fn against(&self, arm: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| comparison.against == arm)
    }

    /// The value with a seed.
    pub fn of_seed(&self, seed: u64) -> Option<f64> {
        self.values.iter().find(|(of, _)| *of == seed).map(|(_, value)| *value)
    }
}

/// One arm of a cell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmReport {
    /// Its name.
    pub arm: String,
    /// Accuracies on the test set: clean, robust, of the worst class, and the gap.
    pub metrics: Vec<Metric>,
    /// Robust accuracy of each class.
    pub classes: Vec<Metric>,
    /// Mean and worst class under each attack or corruption that was measured.
    pub transfer: Vec<[Metric; 2]>,
    /// CFPS and targeted attacks, if they were measured.
    pub vulnerability: Option<Vulnerability>,
}

impl ArmReport {
    /// Its numbers on the test set, then those under each attack or corruption that was measured.
    pub fn quantities(&self) -> impl Iterator<Item = &Metric> {
        self.metrics.iter().chain(self.transfer.iter().flatten())
    }

    /// The number of this name.
    pub fn quantity(&self, name: &str) -> Option<&Metric> {
        self.quantities().find(|metric| metric.name == name)
    }
}

/// All arms under one combination of the values of the axes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellReport {
    /// The values of the axes; empty without axes.
    pub cell: String,
    /// Data set, architecture, epochs, number of training and test images.
    pub subject: String,
    /// The attack of the robust accuracies, without its seed.
    pub attack: String,
    /// Names of the classes.
    pub class_names: Vec<String>,
    /// The arms, the baseline first.
    pub arms: Vec<ArmReport>,
}

impl CellReport {
    /// The seeds of all its arms, in increasing order.
    pub fn seeds(&self) -> Vec<u64> {
        let values = self.arms.iter().flat_map(|arm| &arm.metrics).flat_map(|metric| &metric.values);
        values.map(|(seed, _)| *seed).collect::<BTreeSet<u64>>().into_iter().collect()
    }

    /// The names of all numbers that an arm has.
    pub fn quantities(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for metric in self.arms.iter().flat_map(ArmReport::quantities) {
            if !names.contains(&metric.name.as_str()) {
                names.push(&metric.name);
            }
        }
        names
    }
}

/// The report of a study.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyReport {
    /// Heading.
    pub title: String,
    /// What the study asks.
    pub about: String,
    /// Weights that are compared.
    pub weights: String,
    /// The arm from which differences are computed.
    pub baseline: String,
    /// Number of complete runs and of all.
    pub complete: [usize; 2],
    /// The cells.
    pub cells: Vec<CellReport>,
    /// Runs that failed, with their errors.
    pub failed: Vec<(String, String)>,
    /// Runs that are not complete for another reason.
    pub missing: Vec<String>,
    /// Warnings about evaluations and directories.
    pub warnings: Vec<String>,
}

impl StudyReport {
    /// Compares what is complete.
    pub fn new(file: &StudyFile, plan: &[PlannedRun], results: &Results) -> Self {
        let mut cells: Vec<&str> = Vec::new();
        for run in plan {
            if !cells.contains(&run.cell.as_str()) {
                cells.push(&run.cell);
            }
        }
        let mut report = Self {
            title: file.title.clone(),
            about: file.about.trim().to_owned(),
            weights: file.weights.clone(),
            baseline: file.baseline().to_owned(),
            complete: [plan.iter().filter(|run| results.finished(&run.name).is_some()).count(), plan.len()],
            cells: cells.into_iter().filter_map(|cell| cell_report(file, plan, results, cell)).collect(),
            failed: Vec::new(),
            missing: Vec::new(),
            warnings: results.problems.clone(),
        };
        for run in plan {
            match results.runs.get(&run.name) {
                Some(Outcome::Finished(finished)) => {
                    let told = |warning: &String| format!("{}: {warning}", run.name);
                    report.warnings.extend(finished.report.warnings.iter().map(told));
                    let measured = finished.measured.iter().flat_map(|measured| &measured.rows);
                    let of_row = measured.filter_map(|row| row.warning.as_ref());
                    report.warnings.extend(of_row.map(told));
                    if finished.measured.is_none() && file.measure.needs_network() {
                        report.warnings.push(format!("{}: not measured yet; `fairtat study run` continues", run.name));
                    }
                    if finished.report.of(&file.weights).is_none() {
                        let weights = &file.weights;
                        report.warnings.push(format!("{}: it has no {weights} weights, and is left out", run.name));
                    }
                }
                Some(Outcome::Failed(what)) => report.failed.push((run.name.clone(), what.clone())),
                _ => report.missing.push(run.name.clone()),
            }
        }
        report
    }
}

/// The runs of an arm in a cell that are complete.
fn of_arm<'a>(
    plan: &'a [PlannedRun],
    results: &'a Results,
    cell: &'a str,
    arm: &'a str,
) -> impl Iterator<Item = (u64, &'a Finished)> {
    let of = move |run: &&PlannedRun| run.cell == cell && run.arm == arm;
    plan.iter().filter(of).filter_map(|run| Some((run.seed, results.finished(&run.name)?)))
}

fn cell_report(file: &StudyFile, plan: &[PlannedRun], results: &Results, cell: &str) -> Option<CellReport> {
    let arms = || file.arms.iter().map(|arm| arm.name.as_str());
    let first = arms().find_map(|arm| of_arm(plan, results, cell, arm).next())?.1;
    let (report, experiment) = (&first.report, &first.experiment);
    let epochs = experiment.optimizer.epochs;
    let plural = if epochs == 1 { "" } else { "s" };
    let width = experiment.model.width.map_or(String::new(), |width| format!(" (width {width})"));
    // The validation split is taken from these images.
    let split = experiment.data.validation_per_class.map(|count| format!(" with {count} of each class for validation"));
    let limit = experiment.data.limit.map_or(String::new(), |limit| {
        format!(
            ", {limit} images of the training set{}",
            split.unwrap_or_else(|| ", validation split among them".into())
        )
    });
    let mut context = Context { file, plan, results, cell, class_names: &report.class_names };
    Some(CellReport {
        cell: cell.into(),
        subject: format!(
            "{}, {}{width}, {epochs} epoch{plural}{limit}, {} test images",
            report.dataset, report.architecture, report.images
        ),
        attack: report.attack.split(", seed ").next().unwrap_or_default().to_owned(),
        class_names: report.class_names.clone(),
        arms: arms()
            .filter(|arm| of_arm(plan, results, cell, arm).next().is_some())
            .map(|arm| context.arm(arm))
            .collect(),
    })
}

struct Context<'a> {
    file: &'a StudyFile,
    plan: &'a [PlannedRun],
    results: &'a Results,
    cell: &'a str,
    class_names: &'a [String],
}

impl Context<'_> {
    fn arm(&mut self, arm: &str) -> ArmReport {
        type Value = fn(&WeightsReport) -> f64;
        let metrics: [(&str, Value); 6] = [
            ("clean", |row| row.clean),
            ("clean worst class", |row| row.clean_worst),
            ("robust", |row| row.robust),
            ("robust worst class", |row| row.robust_worst),
            ("robust worst 10 %", |row| row.robust_worst_tenth),
            ("robust gap", |row| row.robust_gap),
        ];
        let many = self.class_names.len() > MANY_CLASSES;
        let of_weights = |value: Value| {
            let weights = &self.file.weights;
            move |finished: &Finished| finished.report.of(weights).map(value)
        };
        let metrics = metrics.into_iter().filter(|(name, _)| many || *name != "robust worst 10 %");
        let metrics = metrics.map(|(name, value)| self.metric(arm, name, &of_weights(value))).collect();
        let class = |(k, name): (usize, &String)| {
            let value = |finished: &Finished| *finished.report.of(&self.file.weights)?.robust_classes.get(k)?;
            self.metric(arm, name, &value)
        };
        let classes = self.class_names.iter().enumerate().map(class).collect();
        let runs: Vec<&Finished> = of_arm(self.plan, self.results, self.cell, arm).map(|(_, run)| run).collect();
        let mut titles: Vec<&str> = Vec::new();
        for row in runs.iter().filter_map(|run| run.measured.as_ref()).flat_map(|measured| &measured.rows) {
            if !titles.contains(&row.title.as_str()) {
                titles.push(&row.title);
            }
        }
        let row = |finished: &Finished, title: &str| {
            finished.measured.as_ref()?.rows.iter().find(|row| row.title == title).cloned()
        };
        let transfer = titles.into_iter().map(|title| {
            let mean = self.metric(arm, title, &|finished| Some(row(finished, title)?.accuracy));
            let worst =
                self.metric(arm, &format!("{title}, worst class"), &|finished| Some(row(finished, title)?.worst()));
            [mean, worst]
        });
        let transfer = transfer.collect();
        let targeted = runs.iter().filter_map(|run| run.measured.as_ref()?.targeted.as_ref());
        let targeted = targeted.filter(|targeted| targeted.is_of(self.class_names.len())).collect::<Vec<_>>();
        let vulnerability = (!targeted.is_empty()).then(|| vulnerability(&targeted));
        ArmReport { arm: arm.into(), metrics, classes, transfer, vulnerability }
    }

    fn metric(&self, arm: &str, name: &str, value: &dyn Fn(&Finished) -> Option<f64>) -> Metric {
        let of = |arm: &str| {
            let runs = of_arm(self.plan, self.results, self.cell, arm);
            runs.filter_map(|(seed, run)| Some((seed, value(run)?))).collect::<Vec<(u64, f64)>>()
        };
        let values = of(arm);
        let mut others = vec![self.file.baseline()];
        let own = self.file.arms.iter().find(|known| known.name == arm);
        others.extend(own.iter().flat_map(|own| &own.against).map(String::as_str));
        let compared = others.into_iter().filter(|other| *other != arm).filter_map(|other| {
            let theirs = of(other);
            let pair = |(seed, value): &(u64, f64)| {
                let other = theirs.iter().find(|(other, _)| other == seed)?.1;
                Some((*seed, difference(*value, other)))
            };
            Comparison::of(other, &values.iter().filter_map(pair).collect::<Vec<_>>())
        });
        let comparisons = compared.collect();
        let spread = Spread::of(&values.iter().map(|(_, value)| *value).collect::<Vec<_>>());
        Metric { name: name.into(), values, spread, comparisons }
    }
}

/// `value - other`, and 0 where only rounding makes a difference: accuracies are fractions, and equal ones of different sums
/// would differ by the same 1e-17 for every seed.
fn difference(value: f64, other: f64) -> f64 {
    let difference = value - other;
    if difference.abs() < 1e-12 { 0.0 } else { difference }
}

fn vulnerability(runs: &[&Targeted]) -> Vulnerability {
    let classes = runs.first().map_or(0, |run| run.images.len());
    let mean = |value: &dyn Fn(&Targeted, usize) -> Option<f64>| {
        let of_class = |k: usize| {
            let values: Vec<f64> = runs.iter().filter_map(|run| value(run, k)).collect();
            Spread::of(&values).map(|spread| spread.mean)
        };
        (0..classes).map(of_class).collect::<Vec<_>>()
    };
    // Without mistakes CFPS are not measured.
    let cfps = mean(&|run, k| (run.mistakes > 0).then(|| run.cfps[k]));
    let towards = mean(&|run, k| run.towards_class(k));
    let from = mean(&|run, k| run.from_class(k));
    let mut correlations = Vec::new();
    for (with, other) in [("towards", &towards), ("from", &from)] {
        let pairs: Vec<(f64, f64)> = cfps.iter().zip(other).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
        let (x, y): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
        for (kind, coefficient) in
            [("pearson", statistics::Correlation::Pearson), ("spearman", statistics::Correlation::Spearman)]
        {
            let interval = match coefficient {
                statistics::Correlation::Pearson => statistics::fisher_interval(&x, &y),
                statistics::Correlation::Spearman => {
                    bootstrap_correlation(coefficient, &x, &y, RESAMPLES, SEED).map(|found| found.interval)
                }
            };
            correlations.push(Correlation {
                with: with.into(),
                kind: kind.into(),
                value: coefficient.of(&x, &y),
                interval,
                p: permutation_test(coefficient, &x, &y, RESAMPLES, SEED).map(|test| test.p),
            });
        }
    }
    Vulnerability { cfps, towards, from, correlations }
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
