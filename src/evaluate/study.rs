//! Aggregates several runs: mean and standard deviation over seeds.

use serde::Serialize;

use super::FinalReport;
use crate::fairness::MANY_CLASSES;

/// Mean and sample standard deviation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with `n - 1`. `None` for a single value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Mean and deviation of `values`; a mean of 0 if there are none.
    pub fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        if values.is_empty() {
            return Self { mean: 0.0, deviation: None };
        }
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        Self { mean, deviation: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) }
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

/// One line of the table: a method with some weights over all seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StudyRow {
    /// Training method.
    pub method: String,
    /// `last`, `best`, `ema` or `fawa`.
    pub weights: String,
    /// Seeds with a result.
    pub seeds: Vec<u64>,
    /// Mean accuracy on the images themselves.
    pub clean: Spread,
    /// Its worst class.
    pub clean_worst: Spread,
    /// Mean accuracy under the attack.
    pub robust: Spread,
    /// Its worst class.
    pub robust_worst: Spread,
    /// Best minus worst class under the attack.
    pub robust_gap: Spread,
    /// Mean of the worst tenth of the classes under the attack; `None` up to [`MANY_CLASSES`] classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub robust_worst_tenth: Option<Spread>,
}

/// A table over runs that share everything but method and seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Study {
    /// Data set and architecture.
    pub title: String,
    /// The evaluation attack of all runs, without its seed.
    pub attack: String,
    /// The rows, a block for each method.
    pub rows: Vec<StudyRow>,
    /// Reasons why robust accuracies are higher than under a stronger attack, with method and seed of the run.
    pub warnings: Vec<String>,
}

impl Study {
    /// Aggregates reports. Methods appear in the order of their first report.
    pub fn new(reports: &[FinalReport]) -> Self {
        let mut methods: Vec<&str> = Vec::new();
        for report in reports {
            if !methods.contains(&report.method.as_str()) {
                methods.push(&report.method);
            }
        }
        let many = reports.first().is_some_and(|report| report.class_names.len() > MANY_CLASSES);
        let mut rows = Vec::new();
        for method in methods {
            for weights in ["last", "best", "ema", "fawa"] {
                let found: Vec<_> = reports
                    .iter()
                    .filter(|report| report.method == method)
                    .filter_map(|report| report.of(weights).map(|row| (report.seed, row)))
                    .collect();
                if found.is_empty() {
                    continue;
                }
                let spread = |value: fn(&super::WeightsReport) -> f64| {
                    Spread::of(&found.iter().map(|(_, row)| value(row)).collect::<Vec<_>>())
                };
                rows.push(StudyRow {
                    method: method.into(),
                    weights: weights.into(),
                    seeds: found.iter().map(|(seed, _)| *seed).collect(),
                    clean: spread(|row| row.clean),
                    clean_worst: spread(|row| row.clean_worst),
                    robust: spread(|row| row.robust),
                    robust_worst: spread(|row| row.robust_worst),
                    robust_gap: spread(|row| row.robust_gap),
                    robust_worst_tenth: many.then(|| spread(|row| row.robust_worst_tenth)),
                });
            }
        }
        let (title, attack) = reports.first().map_or_else(Default::default, |report| {
            let attack = report.attack.split(", seed ").next().unwrap_or_default().to_owned();
            (format!("{}, {}, {} test images", report.dataset, report.architecture, report.images), attack)
        });
        let of_run = |report: &FinalReport| {
            let run = format!("{}, seed {}", report.method, report.seed);
            report.warnings.iter().map(move |warning| format!("{run}: {warning}")).collect::<Vec<_>>()
        };
        let warnings = reports.iter().flat_map(of_run).collect();
        Self { title, attack, rows, warnings }
    }

    /// The table as Markdown, in percent.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("{}. Robust: {}, seed of the run.\n\n", self.title, self.attack);
        let many = self.rows.iter().any(|row| row.robust_worst_tenth.is_some());
        let (tenth, rule) = if many { (" robust worst 10 % |", "---|") } else { ("", "") };
        text += &format!(
            "| method | weights | seeds | clean | clean worst | robust | robust worst | robust gap |{tenth}\n"
        );
        text += &format!("|---|---|---|---|---|---|---|---|{rule}\n");
        for row in &self.rows {
            let (seeds, StudyRow { method, weights, .. }) = (row.seeds.len(), row);
            let tenth = row.robust_worst_tenth.map_or(String::new(), |tenth| format!(" {tenth} |"));
            text += &format!(
                "| {method} | {weights} | {seeds} | {} | {} | {} | {} | {} |{tenth}\n",
                row.clean, row.clean_worst, row.robust, row.robust_worst, row.robust_gap
            );
        }
        if !self.warnings.is_empty() {
            text += "\n";
        }
        self.warnings.iter().for_each(|warning| text += &format!("* Warning: {warning}.\n"));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::WeightsReport;

    #[test]
    fn mean_and_deviation() {
        assert_eq!(Spread::of(&[1.0, 2.0, 3.0]), Spread { mean: 2.0, deviation: Some(1.0) });
        assert_eq!(Spread::of(&[0.5]), Spread { mean: 0.5, deviation: None });
        assert_eq!(Spread { mean: 0.7134, deviation: Some(0.0081) }.to_string(), "71.3 ± 0.8");
    }

    #[test]
    fn reports_become_rows_by_method_and_weights() {
        let report = |method: &str, seed, robust| FinalReport {
            method: method.into(),
            dataset: "digits".into(),
            architecture: "digits-cnn".into(),
            seed,
            attack: format!("PGD-20, ε 8/255, 1 random start, seed {seed}"),
            images: 360,
            class_names: vec!["0".into(), "1".into()],
            weights: vec![WeightsReport {
                weights: "last".into(),
                clean: 1.0,
                clean_worst: 1.0,
                robust,
                robust_worst: 0.5,
                robust_gap: 0.25,
                robust_worst_tenth: 0.5,
                clean_classes: vec![Some(1.0); 2],
                robust_classes: vec![Some(0.75), Some(0.5)],
                ..WeightsReport::default()
            }],
            warnings: if seed == 1 { vec!["PGD-20: too short".into()] } else { vec![] },
        };
        let study = Study::new(&[report("PGD-AT", 0, 0.5), report("FAIR-TAT", 0, 0.6), report("PGD-AT", 1, 0.7)]);
        assert_eq!(study.rows.len(), 2);
        assert_eq!((study.rows[0].seeds.as_slice(), study.rows[0].robust.mean), (&[0, 1][..], 0.6));
        let text = study.to_markdown();
        assert!(text.contains("| PGD-AT | last | 2 | 100.0 ± 0.0 |") && text.contains("60.0 ± 14.1"), "{text}");
        assert!(text.contains("PGD-20, ε 8/255, 1 random start, seed of the run"), "{text}");
        assert!(text.ends_with("\n\n* Warning: PGD-AT, seed 1: PGD-20: too short.\n"), "{text}");
        assert!(!text.contains("worst 10 %") && study.rows[0].robust_worst_tenth.is_none(), "{text}");
        let class_names = (0..100).map(|class| class.to_string()).collect();
        let text = Study::new(&[FinalReport { class_names, ..report("PGD-AT", 0, 0.5) }]).to_markdown();
        assert!(text.contains("| robust gap | robust worst 10 % |\n|---|---|---|---|---|---|---|---|---|\n"), "{text}");
        assert!(text.contains("| 25.0 | 50.0 |\n"), "{text}");
    }
}
