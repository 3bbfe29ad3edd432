//! Failure signatures: patterns in the rows of a run that indicate known failure modes.
//!
//! Every kind has a *score* for each epoch, which is 1 if its thresholds are just met. A signature appears when the
//! score is at least 1 in [`HOLD`] epochs in a row, and disappears when it falls below [`RELEASE`]. Between the two it
//! keeps its state, so that noise does not make it flicker. Curves are compared as means over [`WINDOW`] epochs, and a
//! change counts only if it is larger than the sampling error for that number of validation images.
//!
//! Accuracies on the validation split are comparable only if they were measured under one attack. If the attack changed
//! during the run, every kind that uses them restarts with the first epoch of the new attack, as if the run had begun
//! there.

mod adapted;
mod kind;
mod score;

#[cfg(test)]
mod tests;

use crate::config::Experiment;
use crate::train::{ClassRow, MetricsRow, ValidationSetting};

pub use adapted::{Adapted, Meaning};

/// Epochs that a curve is averaged over before it is compared. The worst class moves by five to ten points from one
/// epoch to the next in published runs (CFA, section 3.3), so fewer than three epochs are not meaningful.
pub const WINDOW: usize = 3;
/// Epochs in a row that must show a signature before it is reported.
pub const HOLD: u32 = 2;
/// Score below which a reported signature disappears.
pub const RELEASE: f64 = 0.7;
/// Standard errors of an accuracy on the validation split that a change must exceed, in addition to its own threshold.
pub const NOISE: f64 = 2.0;
/// Loss of clean accuracy that counts as large: in a published run of PGD-AT it changes by only 2 points over the last
/// 90 epochs (82.9 % to 84.9 %), and upwards.
pub const CLEAN_FALL: f64 = 0.03;
/// Gain of robust accuracy that counts as a gain.
pub const ROBUST_GAIN: f64 = 0.01;
/// Loss of the mean that counts as large: class-fair methods lose at most 2.5 points in CFA's table 1.
pub const MEAN_DROP: f64 = 0.05;
/// Gain of the worst class that goes with it.
pub const WORST_GAIN: f64 = 0.05;
/// Loss of validation robust accuracy from its best window; robust overfitting costs 8 points in the published run of
/// PGD-AT on CIFAR-10 (53.5 % to 45.6 %), and 2 points are visible well before.
pub const ROBUST_FALL: f64 = 0.02;
/// Gain of training robust accuracy that goes with it.
pub const TRAIN_GAIN: f64 = 0.02;
/// Excess of training over validation robust accuracy, beyond the same excess of clean accuracy. Ten points are normal,
/// because an attack towards one drawn target is weaker and the network was trained on these images. Twice that means
/// that the network is more robust to the targeted attack than to others.
pub const TARGETED_EXCESS: f64 = 0.2;
/// Loss as a multiple of the loss of guessing, `ln K`, above which training has diverged.
pub const DIVERGED: f64 = 1.2;
/// Robust accuracy up to which a class that was reported for having none still counts as lost: one image of 20.
pub const LOST: f64 = 0.05;
/// Mean robust accuracy as a multiple of guessing, `1 / K`, from which a class at zero counts. Below it, the run has
/// not begun to learn.
pub const LEARNING: f64 = 1.5;
/// Share of the budget below which a class uses practically none of it: with a budget of 3 steps, 0.06 steps per image.
pub const UNUSED: f64 = 0.02;

/// A failure mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The loss is not a number, or worse than guessing.
    Diverged,
    /// A class has had no robust accuracy for several epochs.
    DeadClass,
    /// Clean accuracy falls and robust accuracy does not rise.
    CleanFalls,
    /// The worst class gains while the mean loses a lot.
    LevellingDown,
    /// Targets are drawn from a few classes only.
    TargetCollapse,
    /// Few classes have most of the weight in the loss.
    WeightsConcentrated,
    /// The weight of a class is at its lower bound.
    WeightAtMinimum,
    /// The multipliers of the class weights sum to their limit.
    MultipliersAtLimit,
    /// Searches that may stop early never do.
    BudgetUnused,
    /// Robust accuracy rises in training and falls in validation.
    RobustOverfitting,
    /// Robust to the targeted training attack, but much less to others.
    TargetedOverfitting,
}

/// How serious a signature is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// Results suffer.
    Warning,
    /// The run is unusable.
    Error,
}

/// A signature that is present.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Its kind.
    pub kind: Kind,
    /// Index of the first of the epochs that show it.
    pub since_epoch: u32,
    /// How serious it is.
    pub severity: Severity,
    /// The measured values and thresholds, in a sentence.
    pub numbers: String,
    /// What it means.
    pub explanation: &'static str,
    /// What can be done.
    pub advice: &'static str,
}

/// Whether a signature is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureState {
    /// It cannot appear in this run, such as target collapse without targets.
    NotApplicable,
    /// The signature is absent.
    Quiet,
    /// It becomes present if this many more epochs show it, or this many more epochs are needed before it can be
    /// detected.
    Watching {
        /// Epochs.
        needs: u32,
        /// Whether the last epochs show it already.
        suspected: bool,
    },
    /// The signature is present.
    Present {
        /// Index of the first of the epochs that show it.
        since: u32,
    },
}

/// A curve that a signature is computed from, one value per epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Its name, with the attack if it is a robust accuracy.
    pub name: String,
    /// Its values; `None` for epochs that did not measure it.
    pub values: Vec<Option<f64>>,
}

/// The result of evaluating one signature on a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Its kind.
    pub kind: Kind,
    /// Whether it is present.
    pub state: SignatureState,
    /// The measured values and thresholds, in a sentence; empty while there are none.
    pub numbers: String,
    /// The curves that it is computed from, at most two.
    pub series: Vec<Series>,
    /// A level that one of them must not cross, if any.
    pub limit: Option<f64>,
    /// Indices in those curves at which the validation attack changed: values from there on were measured under another
    /// one.
    pub changes: Vec<usize>,
}

impl Reading {
    /// The signature, if it is present.
    pub fn signature(&self) -> Option<Signature> {
        let SignatureState::Present { since } = self.state else { return None };
        Some(Signature {
            kind: self.kind,
            since_epoch: since,
            severity: self.kind.severity(),
            numbers: self.numbers.clone(),
            explanation: self.kind.explanation(),
            advice: self.kind.advice(),
        })
    }
}

/// The properties of a run, other than its rows, that signatures depend on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Setup {
    /// Whether the training attack is targeted.
    pub targeted: bool,
    /// Whether the method trains without an attack.
    pub without_attack: bool,
    /// The training attack in a few words.
    pub train_attack: String,
    /// The attack of the evaluation after each epoch.
    pub attack: String,
    /// Whether the ball of the evaluation attack is larger than that of training. Validation accuracy is then lower for
    /// that reason alone, and is not comparable with training accuracy.
    pub harder_validation: bool,
    /// Images of the validation split; 0 if unknown.
    pub validation_images: usize,
    /// The class series of the method that signatures depend on.
    pub adapted: Vec<Adapted>,
}

impl Setup {
    /// That of an experiment whose validation split has this many images.
    pub fn of(experiment: &Experiment, validation_images: usize) -> Self {
        let (attack, evaluation) = (&experiment.attack, &experiment.evaluation);
        let mixed = experiment.method().mixed;
        let targeted = experiment.is_targeted() && !mixed;
        let kind = if mixed {
            "partly targeted"
        } else if targeted {
            "targeted"
        } else {
            "untargeted"
        };
        let scaled = (experiment.method().class_radii)(experiment);
        let scaled = if scaled { " by class" } else { "" };
        Self {
            targeted,
            train_attack: if experiment.trains_on_attacked_images() {
                format!("{kind} PGD-{}, ε {}{scaled}", attack.steps, attack.epsilon)
            } else {
                "no attack".into()
            },
            without_attack: !experiment.trains_on_attacked_images(),
            attack: ValidationSetting::of(experiment).to_string(),
            harder_validation: evaluation.eval_epsilon.is_some_and(|radius| radius > attack.epsilon),
            validation_images,
            adapted: Adapted::of(experiment),
        }
    }
}

/// The values of one epoch that signatures are computed from.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    epoch: u32,
    loss: f64,
    train_clean: Option<f64>,
    train_robust: f64,
    clean: f64,
    clean_worst: f64,
    robust: f64,
    robust_worst: f64,
    /// Effective number of targets.
    targets: Option<f64>,
    /// Name and robust accuracy of each class on the validation split.
    robust_classes: Vec<(String, f64)>,
    classes: usize,
    /// Column and values, by class, of the method's class series; a series that a class lacks is left out.
    series: Vec<(String, Vec<f64>)>,
    /// The setting of the validation; empty if the row does not record it.
    attack: String,
    /// The method that trained the epoch; empty likewise.
    method: String,
}

impl Point {
    /// The point of an epoch, from its row and the rows of its classes.
    pub fn new(row: &MetricsRow, classes: &[ClassRow]) -> Self {
        let targets: Option<Vec<f64>> = classes.iter().map(|class| class.target_probability).collect();
        Self {
            epoch: row.epoch,
            loss: row.train_loss,
            train_clean: row.train_clean_accuracy,
            train_robust: row.train_robust_accuracy,
            clean: row.val_clean_accuracy,
            clean_worst: row.val_clean_worst,
            robust: row.val_robust_accuracy,
            robust_worst: row.val_robust_worst,
            targets: targets.and_then(|targets| effective_number(&targets)),
            robust_classes: classes.iter().map(|class| (class.name.clone(), class.val_robust_accuracy)).collect(),
            classes: classes.len(),
            series: series(classes),
            attack: row.val_attack.clone(),
            method: row.method.clone(),
        }
    }
}

/// The class series that all rows of an epoch have.
fn series(classes: &[ClassRow]) -> Vec<(String, Vec<f64>)> {
    let columns = classes.first().map(|class| class.series.iter().map(|(name, _)| name)).into_iter().flatten();
    let value = |class: &ClassRow, column: &str| class.series.iter().find(|(name, _)| name == column).map(|(_, v)| *v);
    let values = |column: &String| {
        let values: Option<Vec<f64>> = classes.iter().map(|class| value(class, column)).collect();
        Some((column.clone(), values?))
    };
    columns.filter_map(values).collect()
}

/// The points of whole tables, as read from `metrics.csv` and `classes.csv`.
pub fn points(metrics: &[MetricsRow], classes: &[ClassRow]) -> Vec<Point> {
    let of = |epoch: u32| classes.iter().filter(|row| row.epoch == epoch).cloned().collect::<Vec<_>>();
    metrics.iter().map(|row| Point::new(row, &of(row.epoch))).collect()
}

/// `exp(H(π))`: the number of equally likely choices with the entropy of `distribution`. `None` if it is not a
/// distribution.
pub fn effective_number(distribution: &[f64]) -> Option<f64> {
    let sum: f64 = distribution.iter().sum();
    let sound = distribution.iter().all(|p| p.is_finite() && *p >= 0.0) && (sum - 1.0).abs() < 1e-3;
    let entropy: f64 = distribution.iter().filter(|p| **p > 0.0).map(|p| -p / sum * (p / sum).ln()).sum();
    (sound && !distribution.is_empty()).then(|| entropy.exp())
}

/// The effective number of targets below which sampling has collapsed, and that of weights below which they are
/// concentrated: a third of the classes, but at least two.
pub fn fewest_targets(classes: usize) -> f64 {
    (classes as f64 / 3.0).max(2.0)
}

/// The readings of all signatures, in the order of [`Kind::ALL`].
pub fn readings(points: &[Point], setup: &Setup) -> Vec<Reading> {
    let mut setup = setup.clone();
    // If the run has just been changed, its values were measured under the earlier attack.
    if let Some(measured) = points.iter().rev().find(|point| !point.attack.is_empty()) {
        setup.attack.clone_from(&measured.attack);
    }
    Kind::ALL.iter().map(|kind| score::reading(*kind, points, &setup)).collect()
}

/// The signatures that are present after the last of `points`.
pub fn present(points: &[Point], setup: &Setup) -> Vec<Signature> {
    readings(points, setup).iter().filter_map(Reading::signature).collect()
}
