//! The rows of `metrics.csv` and `classes.csv`.
//!
//! Scripts read these files by column name: columns may be added, never renamed. Accuracies and probabilities are
//! fractions, epsilon is in `[0, 1]` pixel units, times are in seconds.

use serde::{Deserialize, Serialize};

use super::{ValidationChange, ValidationSetting, validation_changes};
use crate::config::Experiment;

/// One epoch: a row of `metrics.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricsRow {
    /// Epoch index, from 0.
    pub epoch: u32,
    /// Learning rate at the epoch's last step.
    pub lr: f64,
    /// Mean outer loss over the training images.
    pub train_loss: f64,
    /// Accuracy on the unperturbed training images; empty if the epoch did not measure it.
    pub train_clean_accuracy: Option<f64>,
    /// Accuracy on the training attack's images, before each step.
    pub train_robust_accuracy: f64,
    /// Mean accuracy on the validation split.
    pub val_clean_accuracy: f64,
    /// Accuracy of the worst class on the validation split.
    pub val_clean_worst: f64,
    /// Mean accuracy on the validation split under the run's evaluation attack.
    pub val_robust_accuracy: f64,
    /// Accuracy of the worst class under that attack.
    pub val_robust_worst: f64,
    /// Wall-clock time of the whole epoch.
    pub seconds: f64,
    /// Part of `seconds` for the inner maximisation.
    pub seconds_attack: f64,
    /// Part of `seconds` for the weight updates.
    pub seconds_update: f64,
    /// Part of `seconds` for class statistics and the forward passes on clean images.
    pub seconds_statistics: f64,
    /// The attack on the validation split, as [`super::ValidationSetting`] writes it; empty if an earlier version wrote
    /// the row. Validation accuracies are comparable only between epochs with the same attack.
    #[serde(default)]
    pub val_attack: String,
    /// Images of the validation split for which that attack found no gradient; empty if they were not counted.
    #[serde(default)]
    pub val_without_gradient: Option<u64>,
    /// The method that trained this epoch, as the command line names it; empty if an earlier version wrote the row.
    #[serde(default)]
    pub method: String,
    /// Mean accuracy of the worst tenth of the classes on the validation split, under the run's evaluation attack. `None`,
    /// and without a column if no row has it, up to [`MANY_CLASSES`](crate::fairness::MANY_CLASSES) classes and if an earlier
    /// version wrote the row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_robust_worst_tenth: Option<f64>,
}

impl MetricsRow {
    /// The setting of this epoch's validation; if the row does not record it, the setting of `experiment`.
    pub fn validation_attack(&self, experiment: &Experiment) -> String {
        if self.val_attack.is_empty() { ValidationSetting::of(experiment).to_string() } else { self.val_attack.clone() }
    }
}

/// Every change of the validation attack between these rows, which must be in the order of epochs.
pub fn changes_between<'a>(rows: impl IntoIterator<Item = &'a MetricsRow>) -> Vec<ValidationChange> {
    validation_changes(rows.into_iter().map(|row| (row.epoch, row.val_attack.as_str())))
}

/// One epoch and class: a row of `classes.csv`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassRow {
    /// Epoch index, from 0.
    pub epoch: u32,
    /// Class index.
    pub class: u32,
    /// Class name.
    pub name: String,
    /// Radius of the attack on images of this class, used in this epoch.
    pub epsilon: f64,
    /// Probability of this class as a target before the true class is excluded, used in this epoch; empty if targets
    /// are not drawn.
    pub target_probability: Option<f64>,
    /// Share of all mistakes that landed on this class, measured in this epoch.
    pub cfps: f64,
    /// Accuracy of this class under the training attack, measured in this epoch.
    pub train_robust_accuracy: f64,
    /// Accuracy of this class on unperturbed training images; empty if the epoch did not measure it.
    pub train_clean_accuracy: Option<f64>,
    /// Accuracy of this class on the validation split.
    pub val_clean_accuracy: f64,
    /// The same under the run's evaluation attack.
    pub val_robust_accuracy: f64,
    /// Other class-wise values that the method adapted, used in this epoch: separate columns after all others
    /// ([`super::methods::Method::shown`]).
    #[serde(skip)]
    pub series: Vec<(String, f64)>,
}
