//! The verdicts of all attacks on all images, and what follows from them.

use std::path::Path;

use serde::Serialize;

use super::compare::classify;
use super::files::read_images;
use super::{Entry, RobustnessError, Role, Suite};
use crate::attack::{AttackKind, Cost, Measured, Report};
use crate::data::Dataset;
use crate::engine::Engine;
use crate::fairness::Confusion;

/// How often a targeted attack reached its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TargetCount {
    /// Images that are classified as their target.
    pub hit: u64,
    /// Images with a target.
    pub images: u64,
}

/// One attack's verdicts.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The attack.
    pub entry: Entry,
    /// Images that it attacked: all, or the survivors of its suite.
    pub attacked: u64,
    /// The prediction for each image of the set after this attack; in a suite, after the attacks so far.
    pub predictions: Vec<u32>,
    /// Images whose gradient was exactly zero in at least one step.
    pub without_gradient: u64,
    /// How often the target was reached, for attacks with one target.
    pub targets: Option<TargetCount>,
    /// Passes of the network.
    pub cost: Cost,
    /// Time.
    pub seconds: f64,
}

/// The result of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// One row for each attack, clean images first.
    pub rows: Vec<Row>,
    /// Reasons to distrust the numbers ([`super::signals()`]).
    pub warnings: Vec<String>,
    /// Why attacks are weaker than their radius suggests ([`Attack::warning`](crate::attack::Attack::warning)).
    pub attack_warnings: Vec<String>,
    labels: Vec<u32>,
    class_names: Vec<String>,
}

impl Evaluation {
    /// An evaluation of these images by no attack yet.
    pub fn new(set: &Dataset) -> Self {
        Self {
            rows: Vec::new(),
            warnings: Vec::new(),
            attack_warnings: Vec::new(),
            labels: set.labels().to_vec(),
            class_names: set.class_names().to_vec(),
        }
    }

    /// True class of each image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Names of the classes.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// The predictions from which an attack starts: those after the previous attack of its suite among the first `rows`
    /// rows, else the clean ones; without those, every image counts as classified correctly.
    pub(super) fn before(&self, entry: &Entry, rows: usize) -> &[u32] {
        let earlier = &self.rows[..rows.min(self.rows.len())];
        let own = earlier.iter().rev().find(|row| entry.suite.is_some() && row.entry.suite == entry.suite);
        let clean = || earlier.iter().find(|row| row.entry.attack.kind == AttackKind::Clean);
        own.or_else(clean).map_or(&self.labels, |row| &row.predictions)
    }

    /// The images, by number, that were classified correctly before an attack and are not after it.
    pub fn fallen(&self, row: &Row) -> Vec<usize> {
        let at = self.rows.iter().position(|other| other.entry.name == row.entry.name).unwrap_or(self.rows.len());
        let before = self.before(&row.entry, at);
        let labels = &self.labels;
        (0..labels.len()).filter(|i| before[*i] == labels[*i] && row.predictions[*i] != labels[*i]).collect()
    }

    /// True class × prediction of one attack.
    pub fn confusion(&self, predictions: &[u32]) -> Confusion {
        let mut confusion = Confusion::new(self.class_names.len());
        confusion.add_all(&self.labels, predictions);
        confusion
    }

    /// Proportion of images that withstand an attack.
    pub fn accuracy(&self, row: &Row) -> f64 {
        self.confusion(&row.predictions).accuracy()
    }

    /// Whether each image is classified correctly.
    pub fn flags(&self, predictions: &[u32]) -> Vec<u8> {
        predictions.iter().zip(&self.labels).map(|(found, label)| u8::from(found == label)).collect()
    }

    /// The last row of each suite: its predictions are those of the whole suite.
    pub fn suites(&self) -> Vec<(Suite, &Row)> {
        let mut all: Vec<(Suite, &Row)> = Vec::new();
        for row in &self.rows {
            let Some(suite) = row.entry.suite else { continue };
            match all.iter_mut().find(|(known, _)| *known == suite) {
                Some(known) => known.1 = row,
                None => all.push((suite, row)),
            }
        }
        all
    }

    /// Time of all attacks of a suite.
    pub fn seconds_of(&self, suite: Suite) -> f64 {
        self.rows.iter().filter(|row| row.entry.suite == Some(suite)).map(|row| row.seconds).sum()
    }

    /// For each image, the first wrong prediction under any attack or control, else its class: the worst case.
    pub fn worst_case(&self) -> Vec<u32> {
        let mut worst = self.labels.clone();
        for row in self.rows.iter().filter(|row| row.entry.role.counts()) {
            for ((worst, found), label) in worst.iter_mut().zip(&row.predictions).zip(&self.labels) {
                if worst == label {
                    *worst = *found;
                }
            }
        }
        worst
    }

    /// Whether more than clean images were evaluated.
    pub fn has_attacks(&self) -> bool {
        self.rows.iter().any(|row| row.entry.role == Role::Attack && row.entry.attack.kind != AttackKind::Clean)
    }

    /// Reads the images that an evaluation has written to `directory`, and compares their predictions with the
    /// reported ones. Returns what differs.
    ///
    /// # Errors
    /// If the engine fails, or a file cannot be read.
    pub fn recomputed(
        &self,
        engine: &mut dyn Engine,
        directory: &Path,
        batch_size: usize,
    ) -> Result<Vec<String>, RobustnessError> {
        let mut differences = Vec::new();
        let worst = self.worst_case();
        let files = self.rows.iter().map(|row| (row.entry.name.as_str(), &row.predictions));
        for (name, predictions) in files.chain([("worst-case", &worst)]) {
            let images = read_images(directory, name)?;
            let found = classify(engine, &images, batch_size)?;
            // A wrong prediction of the worst case is that of one attack.
            let (read, told) = (self.flags(&found), self.flags(predictions));
            let differ = read.iter().zip(&told).filter(|(a, b)| a != b).count();
            if differ > 0 || read.len() != told.len() {
                differences.push(format!(
                    "adversarial/{name}.npy: the network classifies {differ} of {} images otherwise than reported",
                    told.len()
                ));
            }
        }
        Ok(differences)
    }

    /// The numbers of one attack.
    pub fn report(&self, row: &Row) -> Report {
        let confusion = self.confusion(&row.predictions);
        Measured {
            attack: row.entry.attack.clone(),
            confusion,
            predictions: Vec::new(),
            without_gradient: row.without_gradient,
        }
        .report(&self.class_names)
    }

    /// The numbers of any predictions, under the name of an attack.
    pub fn report_of(&self, name: &str, predictions: &[u32]) -> Report {
        let confusion = self.confusion(predictions);
        let measured = Measured {
            attack: crate::attack::Attack::clean(),
            confusion,
            predictions: Vec::new(),
            without_gradient: 0,
        };
        Report { attack: name.into(), settings: None, ..measured.report(&self.class_names) }
    }
}
