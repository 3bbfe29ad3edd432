//! What each kind of failure is called, when it is reported, what it means and what can be done.

use super::{
    CLEAN_FALL, DIVERGED, Kind, MEAN_DROP, ROBUST_FALL, ROBUST_GAIN, Severity, TARGETED_EXCESS, TRAIN_GAIN, UNUSED,
    WINDOW, WORST_GAIN,
};

impl Kind {
    /// All kinds, the most serious first.
    pub const ALL: [Self; 11] = [
        Self::Diverged,
        Self::DeadClass,
        Self::TargetCollapse,
        Self::WeightsConcentrated,
        Self::WeightAtMinimum,
        Self::CleanFalls,
        Self::LevellingDown,
        Self::RobustOverfitting,
        Self::MultipliersAtLimit,
        Self::BudgetUnused,
        Self::TargetedOverfitting,
    ];

    /// A short heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Diverged => "Training diverged",
            Self::DeadClass => "A class has no robust accuracy",
            Self::CleanFalls => "Clean accuracy falls for nothing",
            Self::LevellingDown => "Fairness by levelling down",
            Self::TargetCollapse => "Targets collapse onto few classes",
            Self::WeightsConcentrated => "Weights concentrate on few classes",
            Self::WeightAtMinimum => "A class weight is at its lower bound",
            Self::MultipliersAtLimit => "Weights have reached their limit",
            Self::BudgetUnused => "Searches never stop early",
            Self::RobustOverfitting => "Robust overfitting",
            Self::TargetedOverfitting => "Overfit to the targeted attack",
        }
    }

    /// How serious it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::Diverged => Severity::Error,
            Self::LevellingDown | Self::MultipliersAtLimit | Self::BudgetUnused | Self::TargetedOverfitting => {
                Severity::Notice
            }
            Self::DeadClass
            | Self::CleanFalls
            | Self::TargetCollapse
            | Self::WeightsConcentrated
            | Self::WeightAtMinimum
            | Self::RobustOverfitting => Severity::Warning,
        }
    }

    /// The related term of the glossary.
    pub const fn term(self) -> &'static str {
        match self {
            Self::Diverged => "cross-entropy",
            Self::DeadClass | Self::LevellingDown => "worst-class",
            Self::CleanFalls => "clean-accuracy",
            Self::TargetCollapse => "effective-targets",
            Self::WeightsConcentrated | Self::WeightAtMinimum => "class-weight",
            Self::MultipliersAtLimit => "multiplier",
            Self::BudgetUnused => "budget",
            Self::RobustOverfitting => "robust-overfitting",
            Self::TargetedOverfitting => "targeted-attack",
        }
    }

    /// The condition under which it is reported, with its thresholds.
    pub fn rule(self) -> String {
        let points = |share: f64| format!("{:.0}", 100.0 * share);
        match self {
            Self::Diverged => format!("The loss is not a number, or above {DIVERGED} × ln K after the first epochs."),
            Self::DeadClass => {
                format!("The same class has 0 % in {WINDOW} epochs in a row, while the mean is well above guessing.")
            }
            Self::CleanFalls => format!(
                "Clean accuracy is {} points below its best, and robust accuracy has gained less than {}.",
                points(CLEAN_FALL),
                points(ROBUST_GAIN)
            ),
            Self::LevellingDown => format!(
                "The worst class gains {} points while the mean loses {}.",
                points(WORST_GAIN),
                points(MEAN_DROP)
            ),
            Self::TargetCollapse => "The effective number of targets is below K/3, or below 2.".into(),
            Self::WeightsConcentrated => "The effective number of class weights is below K/3, or below 2.".into(),
            Self::WeightAtMinimum => {
                "The weight of a class equals the lower bound to which weights are clamped.".into()
            }
            Self::MultipliersAtLimit => "The multipliers of the classes sum to their limit.".into(),
            Self::BudgetUnused => {
                format!("The budget is not 0, and no class uses {} % of it.", points(UNUSED))
            }
            Self::RobustOverfitting => format!(
                "Validation robust accuracy is {} points below its best, and training robust accuracy has gained {} \
                 since.",
                points(ROBUST_FALL),
                points(TRAIN_GAIN)
            ),
            Self::TargetedOverfitting => format!(
                "Training accuracy under the targeted attack is {} points above validation accuracy under the untargeted \
                 one, beyond the difference that clean accuracy also shows.",
                points(TARGETED_EXCESS)
            ),
        }
    }

    /// What it means.
    pub const fn explanation(self) -> &'static str {
        match self {
            Self::Diverged => {
                "The loss is not a number, or worse than guessing: the weights have diverged, and all later values are \
                 meaningless."
            }
            Self::DeadClass => {
                "The attack succeeds on every validation image of this class; the mean comes from the other classes. If radii \
                 follow robust accuracy, the class is also attacked less strongly in training, so it may not recover."
            }
            Self::CleanFalls => {
                "Robust training trades some clean accuracy for robustness. Here clean accuracy falls without a gain in \
                 robustness: the attack may be too strong for the network, or the learning rate too high."
            }
            Self::LevellingDown => {
                "The gap closes because good classes get worse, more than because the worst gets better. The gap alone looks \
                 fair, so it is always shown with the mean."
            }
            Self::TargetCollapse => {
                "Nearly all images are attacked towards the same few classes. The other decision boundaries are hardly \
                 trained any more. CFPS is then measured under those few targets only, which can reinforce the collapse."
            }
            Self::WeightsConcentrated => {
                "A few classes have most of the weight in the loss, so the update hardly counts the mistakes on the others. \
                 A class that stays the worst at any weight, such as one of a pair that looks alike, can attract all of it."
            }
            Self::WeightAtMinimum => {
                "The rule would give this class a weight near zero or a negative one; the lower bound prevents that. Its \
                 images hardly count in the loss. Where the radius follows the weight, they are hardly attacked either."
            }
            Self::MultipliersAtLimit => {
                "The errors of some classes exceed the mean by so much that the multipliers have reached the limit of their \
                 sum. From now on a class gains weight only if another class loses it, so the errors may never come within \
                 the tolerance."
            }
            Self::BudgetUnused => {
                "The search almost never misclassifies a training image before its last step, so it stops none of them early. \
                 The run is the same as one without early stopping."
            }
            Self::RobustOverfitting => {
                "The network memorises the adversarial examples of its training images. Its robustness on new images falls, \
                 often soon after a drop of the learning rate."
            }
            Self::TargetedOverfitting => {
                "Training uses an attack towards one drawn target. An untargeted attack moves towards any class, and succeeds \
                 much more often here. Part of such a difference is ordinary overfitting, because one value is from training \
                 images and the other from validation images; the part that clean accuracy shows is already subtracted."
            }
        }
    }

    /// What can be done.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Diverged => "Stop the run. Lower the learning rate or epsilon, and start a new run.",
            Self::DeadClass => {
                "Check the confusion matrix for the classes that it is mistaken for. Train longer, use a wider network or a \
                 larger λ, or set its radius by hand."
            }
            Self::CleanFalls => {
                "Compare with the run's best checkpoint. If the fall continues, lower the learning rate or epsilon."
            }
            Self::LevellingDown => {
                "Read worst class and mean together, and decide whether you want this trade-off. A larger λ or a bound on \
                 epsilon makes the classes differ less."
            }
            Self::TargetCollapse => "Lower the temperature, or choose uniform targets; the default temperature is 2.",
            Self::WeightsConcentrated => {
                "Compare the worst class with the mean: if the worst class does not gain, the weight is wasted. For the next \
                 run, lower the setting that moves the weights, such as their step size or the radius of their ball."
            }
            Self::WeightAtMinimum => {
                "Watch the robust accuracy of this class. If it falls, lower λ for the next run, or measure the similarity of \
                 the classes later, after a longer warm-up."
            }
            Self::MultipliersAtLimit => {
                "Check whether the errors of the classes with the largest weights still fall. If they do not, raise the \
                 tolerance τ, or raise the limit if the other classes can spare weight."
            }
            Self::BudgetUnused => {
                "Compare robust accuracy in training and validation: a large difference is robust overfitting. If validation \
                 accuracy is high too, the training attack is weak; raise its steps or epsilon."
            }
            Self::RobustOverfitting => {
                "Use the best checkpoint instead of the last, or the average (EMA). For the next run: fewer epochs or more \
                 augmentation."
            }
            Self::TargetedOverfitting => {
                "Judge the run by the untargeted evaluation, never by training accuracy. To distinguish this from ordinary \
                 overfitting, train once untargeted or with uniform targets, and compare."
            }
        }
    }
}
