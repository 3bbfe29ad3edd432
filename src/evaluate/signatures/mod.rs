//! Failure signatures: patterns in the rows of a run by which known ways of going wrong show.
//!
//! Every kind has a *score* for each epoch: 1 is where its thresholds are just met. A signature appears when the score is
//! at least 1 in [`HOLD`] epochs in a row, and is gone when it falls below [`RELEASE`]; between the two it stays as it is,
//! so that noise does not make it flicker. Curves are compared as means over [`WINDOW`] epochs, and a change counts only
//! if it is larger than what chance does to so few validation images.
//!
//! Accuracies on the validation split compare only where they were measured under one attack. Where that changed on the way,
//! every kind that looks at them begins anew with the first epoch of the new attack, as if the run had begun there.

mod score;

#[cfg(test)]
mod tests;

use crate::train::{ClassRow, MetricsRow};

/// Epochs that a curve is averaged over before it is compared. The worst class moves by five to ten points from one epoch
/// to the next in published runs (CFA, section 3.3): less than three epochs tell nothing.
pub const WINDOW: usize = 3;
/// Epochs in a row that must show a signature before it is named.
pub const HOLD: u32 = 2;
/// Score below which a signature that was named is gone.
pub const RELEASE: f64 = 0.7;
/// Standard errors of an accuracy on the validation split that a change must exceed, beside its own threshold.
pub const NOISE: f64 = 2.0;
/// Loss of clean accuracy that is no small matter: in a published run of PGD-AT it moves by 2 points over the last 90
/// epochs (82.9 % to 84.9 %), and upwards.
pub const CLEAN_FALL: f64 = 0.03;
/// Gain of robust accuracy that counts as a gain.
pub const ROBUST_GAIN: f64 = 0.01;
/// Loss of the mean that is a lot to pay: class-fair methods cost at most 2.5 points of it in CFA's table 1.
pub const MEAN_DROP: f64 = 0.05;
/// Gain of the worst class that goes with it.
pub const WORST_GAIN: f64 = 0.05;
/// Loss of validation robust accuracy from its best window; robust overfitting costs 8 points in the published run of
/// PGD-AT on CIFAR-10 (53.5 % to 45.6 %), and 2 are seen well before.
pub const ROBUST_FALL: f64 = 0.02;
/// Gain of training robust accuracy that goes with it.
pub const TRAIN_GAIN: f64 = 0.02;
/// Robust accuracy that training has more than validation, beyond what clean accuracy has too. Ten points are normal, for
/// an attack towards one drawn target is weaker and training has seen the images; twice that says that the network knows
/// the targeted attack better than others.
pub const TARGETED_EXCESS: f64 = 0.2;
/// Loss as a multiple of guessing, `ln K`, that is no longer learning.
pub const DIVERGED: f64 = 1.2;
/// Robust accuracy up to which a class that was named for having none still counts as lost: with 20 images, one.
pub const LOST: f64 = 0.05;
/// Mean robust accuracy as a multiple of guessing, `1 / K`, from which a class at zero is told from a run that has not
/// begun to learn.
pub const LEARNING: f64 = 1.5;

/// Which way of going wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The loss is not a number, or worse than guessing.
    Diverged,
    /// A class has had no robust accuracy for several epochs.
    DeadClass,
    /// Clean accuracy falls and robust accuracy gains nothing.
    CleanFalls,
    /// The worst class gains while the mean loses a lot.
    LevellingDown,
    /// Targets are drawn from a few classes only.
    TargetCollapse,
    /// Robust accuracy rises in training and falls in validation.
    RobustOverfitting,
    /// Robust against the training's targeted attack, much less against others.
    TargetedOverfitting,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Notice,
    /// Results suffer.
    Warning,
    /// The run is of no use as it is.
    Error,
}

/// A signature that is present.
#[derive(Debug, Clone, PartialEq)]
pub struct Signature {
    /// Which one.
    pub kind: Kind,
    /// Index of the first of the epochs that show it.
    pub since_epoch: u32,
    /// How bad it is.
    pub severity: Severity,
    /// The numbers that decide, in a sentence.
    pub numbers: String,
    /// What it means.
    pub explanation: &'static str,
    /// What can be done.
    pub advice: &'static str,
}

/// Whether a signature is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It cannot appear in this run, such as target collapse without targets.
    NotApplicable,
    /// Nothing to see.
    Quiet,
    /// It would be there if this many more epochs showed it; or so many are missing before it can be looked for.
    Watching {
        /// Epochs.
        needs: u32,
        /// Whether the last epochs show it already.
        suspected: bool,
    },
    /// It is there.
    Present {
        /// Index of the first of the epochs that show it.
        since: u32,
    },
}

/// A curve that a signature looks at, one value an epoch.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// What it is, with the attack where it is a robust accuracy.
    pub name: String,
    /// Its values; none where an epoch did not measure it.
    pub values: Vec<Option<f64>>,
}

/// What is known of one signature in a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Which one.
    pub kind: Kind,
    /// Whether it is there.
    pub state: State,
    /// The numbers that decide, in a sentence; empty while there are none.
    pub numbers: String,
    /// The curves that decide, at most two.
    pub series: Vec<Series>,
    /// A level that one of them must not cross, where there is one.
    pub limit: Option<f64>,
    /// Places in those curves at which the validation attack changed: values from there on are under another one.
    pub changes: Vec<usize>,
}

impl Reading {
    /// The signature, if it is there.
    pub fn signature(&self) -> Option<Signature> {
        let State::Present { since } = self.state else { return None };
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

/// What of a run decides, beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Setup {
    /// Whether the training attack is targeted.
    pub targeted: bool,
    /// The training attack in a few words.
    pub train_attack: String,
    /// The attack of the evaluation after each epoch.
    pub attack: String,
    /// Whether the evaluation attacks within a larger ball than the training: its accuracy is lower then for that reason
    /// alone, and does not compare with the training's.
    pub harder_validation: bool,
    /// Images of the validation split; 0 where it is not known.
    pub validation_images: usize,
}

/// The numbers of one epoch that signatures look at.
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
    /// What the validation accuracies were measured under; empty where the row does not tell.
    attack: String,
}

impl Point {
    /// From the rows of an epoch; `classes` are those of that epoch.
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
            attack: row.val_attack.clone(),
        }
    }
}

/// The points of whole tables, as `metrics.csv` and `classes.csv` have them.
pub fn points(metrics: &[MetricsRow], classes: &[ClassRow]) -> Vec<Point> {
    let of = |epoch: u32| classes.iter().filter(|row| row.epoch == epoch).cloned().collect::<Vec<_>>();
    metrics.iter().map(|row| Point::new(row, &of(row.epoch))).collect()
}

/// `exp(H(π))`: how many equally likely choices are as varied as `distribution`. None where it is not a distribution.
pub fn effective_number(distribution: &[f64]) -> Option<f64> {
    let sum: f64 = distribution.iter().sum();
    let sound = distribution.iter().all(|p| p.is_finite() && *p >= 0.0) && (sum - 1.0).abs() < 1e-3;
    let entropy: f64 = distribution.iter().filter(|p| **p > 0.0).map(|p| -p / sum * (p / sum).ln()).sum();
    (sound && !distribution.is_empty()).then(|| entropy.exp())
}

/// The effective number of targets below which sampling has collapsed: a third of the classes, but at least two.
pub fn fewest_targets(classes: usize) -> f64 {
    (classes as f64 / 3.0).max(2.0)
}

/// What is known of every signature, in the order of [`Kind::ALL`].
pub fn readings(points: &[Point], setup: &Setup) -> Vec<Reading> {
    let mut setup = setup.clone();
    // The numbers of a run that has just been changed were measured before.
    if let Some(measured) = points.iter().rev().find(|point| !point.attack.is_empty()) {
        setup.attack.clone_from(&measured.attack);
    }
    Kind::ALL.iter().map(|kind| score::reading(*kind, points, &setup)).collect()
}

/// The signatures that are present after the last of `points`.
pub fn present(points: &[Point], setup: &Setup) -> Vec<Signature> {
    readings(points, setup).iter().filter_map(Reading::signature).collect()
}

impl Kind {
    /// All, the worst first.
    pub const ALL: [Self; 7] = [
        Self::Diverged,
        Self::DeadClass,
        Self::TargetCollapse,
        Self::CleanFalls,
        Self::LevellingDown,
        Self::RobustOverfitting,
        Self::TargetedOverfitting,
    ];

    /// A few words for a heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Diverged => "Training diverged",
            Self::DeadClass => "A class has no robust accuracy",
            Self::CleanFalls => "Clean accuracy falls for nothing",
            Self::LevellingDown => "Fairness by levelling down",
            Self::TargetCollapse => "Targets collapse onto few classes",
            Self::RobustOverfitting => "Robust overfitting",
            Self::TargetedOverfitting => "Overfit to the targeted attack",
        }
    }

    /// How bad it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Diverged => Severity::Error,
            Self::LevellingDown | Self::TargetedOverfitting => Severity::Notice,
            Self::DeadClass | Self::CleanFalls | Self::TargetCollapse | Self::RobustOverfitting => Severity::Warning,
        }
    }

    /// The term of the glossary that it belongs to.
    pub const fn term(self) -> &'static str {
        match self {
            Self::Diverged => "cross-entropy",
            Self::DeadClass | Self::LevellingDown => "worst-class",
            Self::CleanFalls => "clean-accuracy",
            Self::TargetCollapse => "effective-targets",
            Self::RobustOverfitting => "robust-overfitting",
            Self::TargetedOverfitting => "targeted-attack",
        }
    }

    /// When it is named, with its thresholds.
    pub fn rule(self) -> String {
        let points = |share: f64| format!("{:.0}", 100.0 * share);
        match self {
            Self::Diverged => format!("The loss is not a number, or above {DIVERGED} × ln K after the first epochs."),
            Self::DeadClass => {
                format!("The same class has 0 % in {WINDOW} epochs in a row, while the mean is well above guessing.")
            }
            Self::CleanFalls => format!(
                "Clean accuracy lies {} points below its best, robust accuracy has gained less than {}.",
                points(CLEAN_FALL),
                points(ROBUST_GAIN)
            ),
            Self::LevellingDown => format!(
                "The worst class gains {} points while the mean loses {}.",
                points(WORST_GAIN),
                points(MEAN_DROP)
            ),
            Self::TargetCollapse => "The effective number of targets is below K/3, or below 2.".into(),
            Self::RobustOverfitting => format!(
                "Validation robust accuracy lies {} points below its best, training robust accuracy has gained {} since.",
                points(ROBUST_FALL),
                points(TRAIN_GAIN)
            ),
            Self::TargetedOverfitting => format!(
                "Training under the targeted attack is {} points above validation under the untargeted one, beyond the \
                 same difference of clean accuracy.",
                points(TARGETED_EXCESS)
            ),
        }
    }

    /// What it means.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Diverged => {
                "A loss that is not a number, or worse than guessing, means that the weights have left every useful region. \
                 What follows is noise."
            }
            Self::DeadClass => {
                "Every validation image of this class can be attacked; the other classes carry the mean. Where radii follow robust \
                 accuracy, it is also attacked more gently in training, and may stay behind."
            }
            Self::CleanFalls => {
                "Robust training trades some clean accuracy for robustness. Here the price is being paid and nothing is \
                 bought: the attack may be too strong for the network, or the learning rate too high."
            }
            Self::LevellingDown => {
                "The gap closes because good classes get worse, more than because the worst gets better. That looks fair in \
                 the gap alone, and is why the gap never stands without the mean."
            }
            Self::TargetCollapse => {
                "Nearly all images are led towards the same few classes. The other boundaries are hardly trained on any \
                 more, and CFPS is then measured under those few targets only, which can feed on itself."
            }
            Self::RobustOverfitting => {
                "The network learns the adversarial examples of its training images by heart. Its robustness on new images \
                 falls, often soon after a drop of the learning rate."
            }
            Self::TargetedOverfitting => {
                "Training meets an attack towards one drawn target. An untargeted attack goes wherever it is easiest, and \
                 finds much more. Part of such a difference is ordinary overfitting, as one number is from training images and \
                 the other from validation images; what clean accuracy shows of that is already taken off."
            }
        }
    }

    /// What can be done.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Diverged => "Stop the run. Lower the learning rate, or epsilon, and begin again.",
            Self::DeadClass => {
                "See in the confusion matrix what it is mistaken for. Train longer, or give it more room: a wider network, a \
                 larger λ, or its radius by hand."
            }
            Self::CleanFalls => {
                "Compare with the run's best checkpoint. If it goes on, lower the learning rate or epsilon."
            }
            Self::LevellingDown => {
                "Read worst class and mean together, and decide whether the trade is wanted. A larger λ or a bound on epsilon \
                 changes less between classes."
            }
            Self::TargetCollapse => "Lower the temperature, or choose uniform targets; the default temperature is 2.",
            Self::RobustOverfitting => {
                "Use the best checkpoint instead of the last, or the average (EMA). For the next run: fewer epochs or more \
                 augmentation."
            }
            Self::TargetedOverfitting => {
                "Judge the run by the untargeted evaluation, never by training accuracy. To tell it from overfitting, train \
                 once untargeted, or with uniform targets, and compare."
            }
        }
    }
}
