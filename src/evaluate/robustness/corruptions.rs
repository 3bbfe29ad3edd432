//! Accuracy under common corruptions (Hendrycks and Dietterich 2019): generated for any data set, or read from
//! CIFAR-10-C's and CIFAR-100-C's files.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::RobustnessError;
use super::files::escaped;
use crate::attack::{Attack, Measured, Report, measure};
use crate::data::corruptions::{Corruption, PublishedSet, Severity, corrupt_set};
use crate::data::{DataError, Dataset, ImageShape};
use crate::engine::Engine;
use crate::evaluate::figures::{
    Context, CorruptionMeans, CorruptionRow, Figure, FigureError, corruption_classes, corruption_heatmap,
};
use crate::fairness::{Confusion, DENSE_CLASSES, MANY_CLASSES};
use crate::model::Network;
use crate::train::limited;

/// Where corrupted images come from.
#[derive(Debug)]
pub enum CorruptedImages<'a> {
    /// They are made from the images of a data set.
    Generated(&'a Dataset),
    /// They are read from the published files.
    Published(PublishedSet),
}

/// Accuracy under one corruption of one severity.
#[derive(Debug, Clone, PartialEq)]
pub struct CorruptedRow {
    /// The corruption.
    pub corruption: Corruption,
    /// Its severity.
    pub severity: Severity,
    /// True class × prediction.
    pub confusion: Confusion,
}

/// Accuracy under several corruptions, five severities each.
#[derive(Debug, Clone, PartialEq)]
pub struct Corrupted {
    /// Corruptions in the given order, severities ascending.
    pub rows: Vec<CorruptedRow>,
    /// How the images were made, in words.
    pub source: String,
    class_names: Vec<String>,
}

/// Measures accuracy under every severity of `corruptions`. `progress` gets the number of images done and of all, and
/// stops the work by returning `false`; then the result is `None`.
///
/// # Errors
/// If the engine fails or a file cannot be read.
pub fn corrupted(
    engine: &mut dyn Engine,
    images: &CorruptedImages<'_>,
    corruptions: &[Corruption],
    seed: u64,
    limit: Option<usize>,
    batch_size: usize,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<Option<Corrupted>, CorruptedError> {
    let mut rows = Vec::new();
    let mut class_names = Vec::new();
    let parts: Vec<(Corruption, Severity)> =
        corruptions.iter().flat_map(|c| Severity::ALL.map(|severity| (*c, severity))).collect();
    for (i, (corruption, severity)) in parts.iter().enumerate() {
        let set = match images {
            CorruptedImages::Generated(set) => corrupt_set(set, *corruption, *severity, seed)?,
            CorruptedImages::Published(published) => limited(published.load(*corruption, *severity, None)?, limit)?,
        };
        check_fits(engine.network(), set.name(), set.shape(), set.classes())?;
        class_names = set.class_names().to_vec();
        let total = set.len() * parts.len();
        let measured =
            measure(engine, &set, &Attack::clean(), batch_size, &mut |_, done| progress(i * set.len() + done, total))
                .map_err(RobustnessError::from)?;
        let Some(Measured { confusion, .. }) = measured else { return Ok(None) };
        rows.push(CorruptedRow { corruption: *corruption, severity: *severity, confusion });
    }
    let source = match images {
        CorruptedImages::Generated(_) => format!(
            "generated with seed {seed}; frost is drawn, not photographed, so these numbers are not those of the published files"
        ),
        CorruptedImages::Published(_) => "the published files".into(),
    };
    Ok(Some(Corrupted { rows, source, class_names }))
}

/// Refuses images that are not those of a network.
///
/// # Errors
/// [`CorruptedError::Other`].
pub fn check_fits(network: &Network, name: &str, shape: ImageShape, classes: usize) -> Result<(), CorruptedError> {
    if (shape, classes) == (network.input, network.classes) {
        return Ok(());
    }
    let own = format!("{} and {} classes", network.input, network.classes);
    Err(CorruptedError::Other(format!("{name} has {shape} images of {classes} classes; the network is for {own}")))
}

/// Why corrupted images cannot be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum CorruptedError {
    /// The images cannot be made or read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The evaluation failed.
    #[error(transparent)]
    Evaluation(#[from] RobustnessError),
    /// The images do not fit the network.
    #[error("{0}")]
    Other(String),
}

/// The mean over corruptions and severities of a set of corruptions.
#[derive(Debug, Clone, Serialize)]
pub struct CorruptedMean {
    /// Which corruptions.
    pub name: String,
    /// How many.
    pub corruptions: usize,
    /// Mean accuracy.
    pub accuracy: f64,
    /// Mean accuracy of each class.
    pub classes: Vec<f64>,
    /// Name and mean accuracy of the worst class.
    pub worst_class: (String, f64),
    /// Mean accuracy of the worst tenth of the classes; `None` up to [`MANY_CLASSES`] classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worst_tenth: Option<f64>,
}

#[derive(Debug, Serialize)]
struct JsonRow {
    corruption: &'static str,
    severity: u8,
    #[serde(flatten)]
    report: Report,
}

impl Corrupted {
    /// Names of the classes.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The corruptions, in order.
    pub fn corruptions(&self) -> Vec<Corruption> {
        let mut all: Vec<Corruption> = self.rows.iter().map(|row| row.corruption).collect();
        all.dedup();
        all
    }

    /// Accuracy of each severity of a corruption.
    pub fn severities(&self, corruption: Corruption) -> Vec<f64> {
        self.rows.iter().filter(|row| row.corruption == corruption).map(|row| row.confusion.accuracy()).collect()
    }

    /// Mean accuracy over some rows, and that of each class, NaN for a class without images: the mean over corruptions and severities, as usual, not over
    /// images.
    fn mean_of(&self, wanted: impl Fn(&CorruptedRow) -> bool) -> (f64, Vec<f64>) {
        let rows: Vec<&CorruptedRow> = self.rows.iter().filter(|row| wanted(row)).collect();
        let n = rows.len().max(1) as f64;
        let mut classes = vec![0.0; self.class_names.len()];
        for row in &rows {
            classes.iter_mut().zip(row.confusion.measured_class_accuracy()).for_each(|(sum, value)| {
                *sum += value.unwrap_or(f64::NAN) / n;
            });
        }
        (rows.iter().map(|row| row.confusion.accuracy()).sum::<f64>() / n, classes)
    }

    /// The class with the lowest of these accuracies, of those that have images.
    pub fn worst_of(&self, classes: &[f64]) -> Option<(&str, f64)> {
        let first = self.rows.first()?;
        let with_images = (0..classes.len()).filter(|k| first.confusion.of_class(*k) > 0);
        let worst = with_images.min_by(|a, b| classes[*a].total_cmp(&classes[*b]))?;
        Some((self.class_names.get(worst)?, classes[worst]))
    }

    /// Mean of the lowest tenth of these accuracies, of classes with images. `None` up to [`MANY_CLASSES`] classes.
    pub fn worst_tenth_of(&self, classes: &[f64]) -> Option<f64> {
        let mut measured: Vec<f64> = classes.iter().copied().filter(|accuracy| !accuracy.is_nan()).collect();
        measured.sort_by(f64::total_cmp);
        let worst = &measured[..measured.len().div_ceil(10)];
        (classes.len() > MANY_CLASSES && !worst.is_empty()).then(|| worst.iter().sum::<f64>() / worst.len() as f64)
    }

    /// Mean accuracy of each class under a corruption.
    pub fn classes(&self, corruption: Corruption) -> Vec<f64> {
        self.mean_of(|row| row.corruption == corruption).1
    }

    /// Mean accuracy under a corruption.
    pub fn mean(&self, corruption: Corruption) -> f64 {
        self.mean_of(|row| row.corruption == corruption).0
    }

    /// Mean accuracy of each severity.
    pub fn by_severity(&self) -> Vec<f64> {
        Severity::ALL.iter().map(|severity| self.mean_of(|row| row.severity == *severity).0).collect()
    }

    /// The means: over all corruptions here, and over the standard 15 and the 18 of the paper if they are all here.
    pub fn means(&self) -> Vec<CorruptedMean> {
        let here = self.corruptions();
        let mut sets = vec![(format!("all {} measured", here.len()), here.clone())];
        for (name, set) in [
            ("the standard 15 (RobustBench)", Corruption::STANDARD.to_vec()),
            ("the 18 of FAIR-TAT", Corruption::AUTHORS.to_vec()),
        ] {
            if set.iter().all(|corruption| here.contains(corruption)) {
                sets.push((name.into(), set));
            }
        }
        let mean = |(name, set): (String, Vec<Corruption>)| {
            let (accuracy, classes) = self.mean_of(|row| set.contains(&row.corruption));
            let worst_class = self.worst_of(&classes).map_or((String::new(), 0.0), |(name, v)| (name.to_owned(), v));
            let worst_tenth = self.worst_tenth_of(&classes);
            CorruptedMean { name, corruptions: set.len(), accuracy, classes, worst_class, worst_tenth }
        };
        sets.into_iter().map(mean).collect()
    }

    fn report(&self, row: &CorruptedRow) -> Report {
        let measured = Measured {
            attack: Attack::clean(),
            confusion: row.confusion.clone(),
            predictions: Vec::new(),
            without_gradient: 0,
        };
        Report {
            attack: format!("{}, severity {}", row.corruption, row.severity),
            ..measured.report(&self.class_names)
        }
    }

    /// Everything as JSON. Of more than [`DENSE_CLASSES`] classes the results have no lists of classes: those are in
    /// [`Self::csv`], with a line for each.
    pub fn to_json(&self) -> serde_json::Value {
        let row = |row: &CorruptedRow| {
            let mut report = self.report(row);
            if self.class_names.len() > DENSE_CLASSES {
                report.classes.clear();
                report.worst_class_ties.clear();
            }
            JsonRow { corruption: row.corruption.name(), severity: row.severity.get(), report }
        };
        serde_json::json!({
            "source": self.source,
            "means": self.means(),
            "by_severity": self.by_severity(),
            "results": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }

    /// One line for each corruption, severity and class.
    pub fn csv(&self) -> String {
        let mut text = String::from("corruption,severity,class,accuracy,low,high,images\n");
        for row in &self.rows {
            let report = self.report(row);
            let (name, severity) = (row.corruption.name(), row.severity);
            let [low, high] = report.interval;
            let _ = writeln!(text, "{name},{severity},,{},{low},{high},{}", report.accuracy, report.images);
            for class in &report.classes {
                let [low, high] = class.interval;
                let quoted = class.name.replace('"', "\"\"");
                let accuracy = class.accuracy.map(|accuracy| accuracy.to_string()).unwrap_or_default();
                let _ = writeln!(text, "{name},{severity},\"{quoted}\",{accuracy},{low},{high},{}", class.images);
            }
        }
        text
    }

    /// The tables for people.
    pub fn markdown(&self) -> String {
        let percent = |value: f64| format!("{:.1}", 100.0 * value);
        let mut text = format!("## Corruptions\n\nImages: {}.\n\n", self.source);
        text += "![Accuracy by corruption and severity](figures/corruptions.png)\n\n\
                 ![Accuracy by corruption and class](figures/corruptions-classes.png)\n\n| mean over | accuracy % | worst class % |\n|---|---|---|\n";
        for mean in self.means() {
            let (class, worst) = &mean.worst_class;
            let _ = writeln!(
                text,
                "| {} | {} | {}, {}{} |",
                mean.name,
                percent(mean.accuracy),
                escaped(class),
                percent(*worst),
                mean.worst_tenth.map_or(String::new(), |tenth| format!("; worst 10 % of classes {}", percent(tenth)))
            );
        }
        text += "\n| corruption | 1 | 2 | 3 | 4 | 5 | mean | worst class |\n|---|---|---|---|---|---|---|---|\n";
        for corruption in self.corruptions() {
            let severities = self.severities(corruption);
            let cells: Vec<String> = severities.iter().map(|value| percent(*value)).collect();
            let mean = self.mean(corruption);
            let classes = self.classes(corruption);
            let worst =
                self.worst_of(&classes).map_or(String::new(), |(name, v)| format!("{}, {}", escaped(name), percent(v)));
            let _ = writeln!(text, "| {} | {} | {} | {worst} |", corruption.title(), cells.join(" | "), percent(mean));
        }
        let cells: Vec<String> = self.by_severity().iter().map(|value| percent(*value)).collect();
        let all = percent(self.mean_of(|_| true).0);
        let _ = writeln!(text, "| **mean** | {} | {all} | |", cells.join(" | "));
        text
    }

    /// Writes `corruptions.json`, `corruptions.csv` and the figures.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path, context: &Context) -> Result<(), RobustnessError> {
        for figure in self.figures(context)? {
            figure.save(directory)?;
        }
        let json = serde_json::to_vec_pretty(&self.to_json()).unwrap_or_default();
        crate::files::write_atomic(&directory.join("corruptions.json"), &json)?;
        Ok(crate::files::write_atomic(&directory.join("corruptions.csv"), self.csv().as_bytes())?)
    }

    /// The figures by severity and by class. Their means are those of the tables.
    fn figures(&self, context: &Context) -> Result<[Figure; 2], FigureError> {
        let row = |corruption: &Corruption| CorruptionRow {
            name: corruption.title().into(),
            severities: self.severities(*corruption),
            classes: self.classes(*corruption),
            mean: self.mean(*corruption),
        };
        let rows: Vec<CorruptionRow> = self.corruptions().iter().map(row).collect();
        let (all, classes) = self.mean_of(|_| true);
        let means = CorruptionMeans { severities: self.by_severity(), classes, all };
        Ok([corruption_heatmap(&rows, &means, context)?, corruption_classes(&rows, &means, context)?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 200 images make ten rows whose mean is often halfway between two tenths of a percent, where the order of a sum decides
    /// the last digit. The classes are of different sizes.
    #[test]
    fn means_in_figures_are_those_of_the_tables() {
        let class_names = ["a", "b"].map(str::to_owned).to_vec();
        let context = Context {
            title: "t".into(),
            attack: "no attack".into(),
            train_attack: String::new(),
            train_robust: "train robust",
            statistics: String::new(),
            frozen_after: None,
            class_names: class_names.clone(),
            base_epsilon: 0.0,
        };
        let mut random = crate::rng::Stream::new(1, crate::rng::Purpose::Test, 0, 0).sequence();
        for _ in 0..200 {
            let mut rows = Vec::new();
            for corruption in &Corruption::STANDARD[..2] {
                for severity in Severity::ALL {
                    let mut confusion = Confusion::new(2);
                    let (a, b) = (random.word() % 151, random.word() % 51);
                    confusion.add_counts(&[a, 150 - a, 50 - b, b]);
                    rows.push(CorruptedRow { corruption: *corruption, severity, confusion });
                }
            }
            let corrupted = Corrupted { rows, source: "here".into(), class_names: class_names.clone() };
            let table = corrupted.markdown();
            let cells = |start: &str| -> Vec<String> {
                let line = table.lines().find(|line| line.starts_with(start)).unwrap();
                line.split('|').map(|cell| cell.trim().to_owned()).collect()
            };
            let last = cells("| **mean** |");
            let mut of_rows: Vec<String> =
                corrupted.corruptions().iter().map(|c| cells(&format!("| {} |", c.title()))[7].clone()).collect();
            of_rows.sort();
            let figures = corrupted.figures(&context).unwrap();
            for (figure, columns) in figures.iter().zip([5, 2]) {
                // The cells, then the means of the rows, of the columns, and of all.
                let texts = figure.svg.split(['<', '>']).map(str::trim);
                let is_cell = |text: &&str| text.len() >= 3 && text.parse::<f64>().is_ok() && text.contains('.');
                let numbers: Vec<&str> = texts.filter(is_cell).skip(2 * columns).collect();
                let mut means = numbers[..2].to_vec();
                means.sort();
                assert_eq!(means, of_rows, "{table}");
                assert_eq!(numbers[2 + columns], last[7], "{table}");
                if columns == 5 {
                    assert_eq!(numbers[2..7], last[2..7], "{table}");
                }
            }
        }
    }

    #[test]
    fn a_class_without_images_has_no_accuracy_under_corruptions() {
        let mut confusion = Confusion::new(3);
        confusion.add_all(&[0, 0, 2], &[0, 1, 2]);
        let row =
            |severity| CorruptedRow { corruption: Corruption::STANDARD[0], severity, confusion: confusion.clone() };
        let class_names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let corrupted = Corrupted { rows: Severity::ALL.map(row).to_vec(), source: "here".into(), class_names };
        let classes = corrupted.classes(Corruption::STANDARD[0]);
        assert!((classes[0] - 0.5).abs() < 1e-12 && classes[1].is_nan() && (classes[2] - 1.0).abs() < 1e-12);
        assert_eq!(corrupted.worst_of(&classes).map(|worst| worst.0), Some("a"));
        assert!(corrupted.csv().contains(",\"b\",,0,1,0\n"), "{}", corrupted.csv());
        let json = corrupted.to_json();
        assert!(json["means"][0]["classes"][1].is_null(), "{json}");
    }
}
