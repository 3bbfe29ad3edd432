//! Compares methods over seeds: accuracies with intervals, paired differences from a baseline, and time.

use serde::Serialize;

use super::FinalReport;
use super::study::Spread;
use crate::config::{Experiment, MethodChoice, Schedule};
use crate::fairness::MANY_CLASSES;

/// One run of the comparison.
#[derive(Debug, Clone)]
pub struct MethodRun {
    /// Its method.
    pub method: MethodChoice,
    /// Its evaluation on the test set.
    pub report: FinalReport,
    /// Seconds of each training epoch for searches, updates and statistics, without validation.
    pub epoch_seconds: Vec<f64>,
}

/// A value over seeds, with a 95 % interval of the mean (Student's t).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean and standard deviation.
    pub spread: Spread,
    /// Low and high end of the interval; `None` for a single seed.
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    /// The estimate from the values of all seeds.
    pub fn of(values: &[f64]) -> Self {
        let spread = Spread::of(values);
        let half = |deviation: f64| t_quantile(values.len() - 1) * deviation / (values.len() as f64).sqrt();
        let interval = spread.deviation.map(half).map(|half| [spread.mean - half, spread.mean + half]);
        Self { spread, interval }
    }
}

/// The 97.5 % quantile of Student's t distribution with `freedom` degrees of freedom, from tables; above 30 that of the
/// normal distribution with two terms of its expansion in `1 / freedom`.
fn t_quantile(freedom: usize) -> f64 {
    const TABLE: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
        2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
    ];
    let normal: f64 = 1.959_964;
    let beyond = || {
        let n = freedom as f64;
        let second = 5.0 * normal.powi(5) + 16.0 * normal.powi(3) + 3.0 * normal;
        normal + (normal.powi(3) + normal) / (4.0 * n) + second / (96.0 * n * n)
    };
    TABLE.get(freedom.wrapping_sub(1)).copied().unwrap_or_else(beyond)
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodRow {
    /// Title of the method.
    pub method: String,
    /// Seeds with a result.
    pub seeds: Vec<u64>,
    /// Mean accuracy on the images themselves.
    pub clean: Estimate,
    /// Its worst class.
    pub clean_worst: Estimate,
    /// Mean accuracy under the attack.
    pub robust: Estimate,
    /// Its worst class.
    pub robust_worst: Estimate,
    /// Mean of the worst tenth of the classes under the attack; `None` up to [`MANY_CLASSES`] classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub robust_worst_tenth: Option<Estimate>,
    /// Differences of clean, clean worst, robust and robust worst from the baseline with the same seed, in the same order. `None` for the baseline and
    /// without common seeds.
    pub differences: Option<[Estimate; 4]>,
    /// Median seconds of an epoch relative to the baseline; `None` if it was not measured.
    pub time: Option<f64>,
}

/// The comparison of methods.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MethodStudy {
    /// Data set, architecture and number of test images.
    pub title: String,
    /// The evaluation attack, without its seed.
    pub attack: String,
    /// The weights that are compared.
    pub weights: &'static str,
    /// Title of the baseline.
    pub baseline: String,
    /// The rows, in the order of the runs.
    pub rows: Vec<MethodRow>,
    /// Settings of methods other than their defaults, as flags.
    pub settings: Vec<String>,
    /// Warnings of evaluations, with method and seed of the run.
    pub warnings: Vec<String>,
}

/// The weights that are compared: the last ones need no choice.
const WEIGHTS: &str = "last";

impl MethodStudy {
    /// Compares runs with those of `baseline`. Methods appear in the order of their first run.
    pub fn new(runs: &[MethodRun], baseline: MethodChoice, settings: Vec<String>) -> Self {
        let mut methods: Vec<MethodChoice> = Vec::new();
        for run in runs {
            if !methods.contains(&run.method) {
                methods.push(run.method);
            }
        }
        let rows = methods.into_iter().map(|method| row(runs, method, baseline)).collect();
        let (title, attack) = runs.first().map_or_else(Default::default, |MethodRun { report, .. }| {
            let attack = report.attack.split(", seed ").next().unwrap_or_default().to_owned();
            (format!("{}, {}, {} test images", report.dataset, report.architecture, report.images), attack)
        });
        let of_run = |run: &MethodRun| {
            let name = format!("{}, seed {}", run.method.title(), run.report.seed);
            run.report.warnings.iter().map(|warning| format!("{name}: {warning}")).collect::<Vec<_>>()
        };
        let warnings = runs.iter().flat_map(of_run).collect();
        Self { title, attack, weights: WEIGHTS, baseline: baseline.title().into(), rows, settings, warnings }
    }

    /// The table as Markdown, in percent, with what the intervals show in sentences.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}, {} weights. Robust: {}, seed of the run. Mean ± standard deviation over seeds; in brackets the difference \
             from {} with the same seed, with its 95 % interval; time of an epoch without validation, relative to {}.\n\n",
            self.title, self.weights, self.attack, self.baseline, self.baseline
        );
        let many = self.rows.iter().any(|row| row.robust_worst_tenth.is_some());
        let (tenth, rule) = if many { (" robust worst 10 % |", "---|") } else { ("", "") };
        text += &format!("| method | seeds | clean | clean worst | robust | robust worst |{tenth} time |\n");
        text += &format!("|---|---|---|---|---|---|{rule}---|\n");
        for row in &self.rows {
            let cell = |at: usize, estimate: &Estimate| {
                let difference =
                    row.differences.map(|all| all[at]).map(|difference| format!(" ({})", signed(&difference)));
                format!("{}{}", estimate.spread, difference.unwrap_or_default())
            };
            let cells = [&row.clean, &row.clean_worst, &row.robust, &row.robust_worst];
            let mut cells: Vec<String> =
                cells.into_iter().enumerate().map(|(at, estimate)| cell(at, estimate)).collect();
            cells.extend(row.robust_worst_tenth.map(|tenth| tenth.spread.to_string()));
            let time = row.time.map_or_else(|| "–".into(), |time| format!("{time:.1}"));
            text += &format!("| {} | {} | {} | {time} |\n", row.method, row.seeds.len(), cells.join(" | "));
        }
        text += "\n";
        for row in &self.rows {
            if let Some(differences) = row.differences {
                text += &format!("* {}: {}.\n", row.method, verdict(&differences));
            }
        }
        if !self.settings.is_empty() {
            text += &format!("\nSettings other than the defaults: {}.\n", self.settings.join("; "));
        }
        self.warnings.iter().for_each(|warning| text += &format!("* Warning: {warning}.\n"));
        text
    }
}

fn row(runs: &[MethodRun], method: MethodChoice, baseline: MethodChoice) -> MethodRow {
    let of = |method: MethodChoice| runs.iter().filter(move |run| run.method == method);
    type Value = fn(&super::WeightsReport) -> f64;
    let values: [Value; 4] = [|row| row.clean, |row| row.clean_worst, |row| row.robust, |row| row.robust_worst];
    let value = |run: &MethodRun, value: Value| run.report.of(WEIGHTS).map(value);
    let estimate = |of_row| Estimate::of(&of(method).filter_map(|run| value(run, of_row)).collect::<Vec<_>>());
    let paired = |of_row| {
        let with_same_seed = |run: &MethodRun| {
            let other = of(baseline).find(|other| other.report.seed == run.report.seed)?;
            Some(value(run, of_row)? - value(other, of_row)?)
        };
        of(method).filter_map(with_same_seed).collect::<Vec<f64>>()
    };
    let seconds = |method| median(of(method).flat_map(|run| run.epoch_seconds.iter().copied()).collect());
    let [clean, clean_worst, robust, robust_worst] = values.map(estimate);
    let many = of(method).any(|run| run.report.class_names.len() > MANY_CLASSES);
    MethodRow {
        method: method.title().into(),
        seeds: of(method).map(|run| run.report.seed).collect(),
        clean,
        clean_worst,
        robust,
        robust_worst,
        robust_worst_tenth: many.then(|| estimate(|row| row.robust_worst_tenth)),
        differences: (method != baseline && !paired(values[0]).is_empty())
            .then(|| values.map(|of_row| Estimate::of(&paired(of_row)))),
        time: seconds(method).zip(seconds(baseline)).map(|(own, base)| own / base),
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().filter(|value| *value > 0.0)
}

/// `+3.2 [-1.0, 7.4]` in points.
fn signed(difference: &Estimate) -> String {
    let mean = format!("{:+.1}", 100.0 * difference.spread.mean);
    match difference.interval {
        Some([low, high]) => format!("{mean} [{:.1}, {:.1}]", 100.0 * low, 100.0 * high),
        None => mean,
    }
}

/// What the differences from the baseline show, in words.
fn verdict(differences: &[Estimate; 4]) -> String {
    let names = ["clean", "clean worst class", "robust", "robust worst class"];
    let (mut better, mut worse) = (Vec::new(), Vec::new());
    for (name, difference) in names.into_iter().zip(differences) {
        match difference.interval {
            Some([low, _]) if low > 0.0 => better.push(name),
            Some([_, high]) if high < 0.0 => worse.push(name),
            _ => {}
        }
    }
    if differences.iter().any(|difference| difference.interval.is_none()) {
        return "one seed shows no spread".into();
    }
    let part = |what: &str, names: Vec<&str>| (!names.is_empty()).then(|| format!("{what} in {}", names.join(", ")));
    let parts: Vec<String> = [part("better", better), part("worse", worse)].into_iter().flatten().collect();
    if parts.is_empty() { "no difference shown".into() } else { parts.join("; ") }
}

/// The settings of a method in a comparison where all train for as many epochs as `base`: shares of the published
/// schedules. FRL and FAAL fine-tune the baseline of the same seed, with epochs and rates that follow from those of
/// `base`. Settings of a method for which `named` is true stay as they are.
pub fn recipe(base: &Experiment, method: MethodChoice, named: impl Fn(&str) -> bool) -> Experiment {
    let mut e = base.clone();
    e.fairness.method = method;
    let epochs = base.optimizer.epochs;
    let share = |of: u32, all: u32| ((f64::from(epochs * of) / f64::from(all)).round() as u32).max(1);
    let fine_tune = |e: &mut Experiment, epochs: u32, rate: f64, milestone: u32| {
        let o = &mut e.optimizer;
        (o.epochs, o.lr, o.schedule, o.milestones, o.decay) =
            (epochs, rate, Schedule::MultiStep, vec![milestone], vec![0.1]);
        e.averaging.average_from = 0;
    };
    match method {
        MethodChoice::Cfa if !named("cfa.warmup_epochs") => e.cfa.warmup_epochs = share(10, 200),
        MethodChoice::Dafa if !named("dafa.warmup_epochs") => e.dafa.warmup_epochs = share(70, 110),
        MethodChoice::Frl => fine_tune(&mut e, share(40, 200), base.optimizer.lr / 100.0, share(40, 200)),
        MethodChoice::Faal => fine_tune(&mut e, 2, base.optimizer.lr / 10.0, 1),
        MethodChoice::FairTat
        | MethodChoice::At
        | MethodChoice::Trades
        | MethodChoice::Cfa
        | MethodChoice::Dafa
        | MethodChoice::Fat
        | MethodChoice::Bat
        | MethodChoice::Wat
        | MethodChoice::Trix => {}
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::WeightsReport;

    fn run(method: MethodChoice, seed: u64, robust_worst: f64, seconds: f64) -> MethodRun {
        let weights = WeightsReport {
            weights: "last".into(),
            clean: 0.9,
            clean_worst: 0.8,
            robust: 0.5,
            robust_worst,
            ..WeightsReport::default()
        };
        MethodRun {
            method,
            report: FinalReport {
                method: method.title().into(),
                dataset: "shapes".into(),
                architecture: "small-cnn".into(),
                seed,
                attack: format!("PGD-20, ε 8/255, seed {seed}"),
                images: 1000,
                class_names: Vec::new(),
                weights: vec![weights],
                warnings: Vec::new(),
            },
            epoch_seconds: vec![seconds; 3],
        }
    }

    /// By hand: differences 0.1, 0.12, 0.14 have the mean 0.12, the deviation 0.02, and t = 4.303.
    #[test]
    fn differences_are_paired_by_seed() {
        let runs = [
            run(MethodChoice::At, 0, 0.10, 2.0),
            run(MethodChoice::At, 1, 0.20, 2.0),
            run(MethodChoice::At, 2, 0.30, 2.0),
            run(MethodChoice::Wat, 2, 0.44, 5.0),
            run(MethodChoice::Wat, 0, 0.20, 5.0),
            run(MethodChoice::Wat, 1, 0.32, 5.0),
        ];
        let study = MethodStudy::new(&runs, MethodChoice::At, vec!["x".into()]);
        let wat = &study.rows[1];
        let worst = wat.differences.unwrap()[3];
        let half = 4.303 * 0.02 / 3f64.sqrt();
        assert!((worst.spread.mean - 0.12).abs() < 1e-12 && (worst.interval.unwrap()[0] - (0.12 - half)).abs() < 1e-9);
        assert_eq!((study.rows[0].differences, wat.time), (None, Some(2.5)));
        let text = study.to_markdown();
        assert!(text.contains("| WAT | 3 |") && text.contains("(+12.0 [7.0, 17.0]) | 2.5 |"), "{text}");
        assert!(text.contains("* WAT: better in robust worst class.\n"), "{text}");
        assert!(text.contains("Settings other than the defaults: x."), "{text}");
    }

    #[test]
    fn what_the_intervals_do_not_show_is_not_claimed() {
        let at = [0, 1, 2].map(|seed| run(MethodChoice::At, seed, 0.2, 1.0));
        let other = [(0, 0.1), (1, 0.3), (2, 0.25)].map(|(seed, worst)| run(MethodChoice::Bat, seed, worst, 1.0));
        let study = MethodStudy::new(&[&at[..], &other[..]].concat(), MethodChoice::At, vec![]);
        assert!(study.to_markdown().contains("* BAT: no difference shown.\n"));
        let study = MethodStudy::new(&[&at[..1], &other[..1]].concat(), MethodChoice::At, vec![]);
        assert!(study.to_markdown().contains("* BAT: one seed shows no spread.\n"));
    }

    #[test]
    fn quantiles_meet_at_the_end_of_the_table() {
        assert_eq!((t_quantile(1), t_quantile(2), t_quantile(30)), (12.706, 4.303, 2.042));
        assert!((t_quantile(31) - 2.0395).abs() < 1e-3 && (t_quantile(1000) - 1.9623).abs() < 1e-4);
    }

    #[test]
    fn recipes_are_shares_of_the_published_schedules() {
        let base = Experiment::preset("shapes-unfair").unwrap();
        let e = recipe(&base, MethodChoice::Dafa, |_| false);
        assert_eq!((e.dafa.warmup_epochs, e.optimizer.epochs), (6, 10));
        let e = recipe(&base, MethodChoice::Frl, |_| false);
        assert_eq!((e.optimizer.epochs, e.optimizer.schedule), (2, Schedule::MultiStep));
        assert!((e.optimizer.lr - 0.001).abs() < 1e-12 && (e.optimizer.lr_at(1, 0, 1) - 0.001).abs() < 1e-12);
        // The study's own schedule may have several factors.
        let mut base_of_paper = Experiment::preset("cifar10-paper-fat").unwrap();
        base_of_paper.optimizer.epochs = 20;
        let e = recipe(&base_of_paper, MethodChoice::Faal, |path| path == "optimizer.epochs");
        assert_eq!((e.optimizer.epochs, e.validate().is_ok()), (2, true));
        assert_eq!(recipe(&base, MethodChoice::Dafa, |path| path == "dafa.warmup_epochs").dafa.warmup_epochs, 70);
        for method in [MethodChoice::FairTat, MethodChoice::At] {
            let e = recipe(&base, method, |_| false);
            assert_eq!(Experiment { fairness: base.fairness.clone(), ..e }, base);
        }
    }
}
