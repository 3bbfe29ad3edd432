//! [`SearchSpec`]: the inner maximisation as data.
//!
//! A specification is complete: engines with the same specification, batch and parameters perform the same search.

use std::borrow::Cow;

use super::checks::check_labels;
use super::{Batch, BatchNormMode, EngineError, TargetTable};
use crate::data::ImageShape;
use crate::rng::Purpose;

/// What a search maximises, separately for each image.
#[derive(Debug, Clone, PartialEq)]
pub enum Objective {
    /// Cross-entropy of the true label: away from it (untargeted).
    CrossEntropy,
    /// Minus the cross-entropy of a target class for each image: towards it (targeted). An image whose target is its own
    /// class is moved away from that, as by [`Self::CrossEntropy`], so that a batch can mix both.
    Targeted(Vec<u32>),
    /// As [`Self::Targeted`], with a class that the engine draws for each image from the stream
    /// `(seed, Target, epoch, id)` of its batch.
    Drawn(TargetTable),
    /// As [`Self::Targeted`], with the class other than the true one whose logit on the clean image is smallest, with
    /// batch norm in eval mode; the first if several are equal (Kurakin et al. 2017).
    LeastLikely,
    /// `KL(p(clean) ‖ p(x))`, with the prediction on the unperturbed image held fixed (TRADES). The search must start
    /// away from the clean image, where this gradient is zero.
    KlToClean,
    /// Difference-of-logits ratio of the true label (Croce and Hein 2020). Needs three classes.
    Dlr,
    /// The margin `max_{i≠y} z_i - z_y` (Carlini and Wagner 2017, with negative sign).
    Margin,
    /// Targeted difference-of-logits ratio `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)` for a class `t` of each
    /// image (Croce and Hein 2020). Needs four classes. Only for gradients outside a search.
    DlrTowards(Vec<u32>),
    /// The margin `z_t - z_y` of a class `t` of each image. Only for gradients outside a search.
    MarginTo(Vec<u32>),
}

impl Objective {
    /// Checks targets and classes for `n` images and a network with `classes` classes.
    ///
    /// # Errors
    /// Returns [`EngineError::Invalid`] with the expected and the actual value.
    pub fn check(&self, n: usize, classes: usize) -> Result<(), EngineError> {
        let fail = |what: String| Err(EngineError::Invalid(what));
        match self {
            Self::Targeted(targets) | Self::DlrTowards(targets) | Self::MarginTo(targets) if targets.len() != n => {
                fail(format!("targets are given for {} images, expected {n}", targets.len()))
            }
            Self::DlrTowards(_) if classes < 4 => {
                fail(format!("targeted DLR compares four logits, the network has {classes}"))
            }
            Self::Targeted(targets) | Self::DlrTowards(targets) | Self::MarginTo(targets) => {
                check_labels(targets, classes)
            }
            Self::Drawn(table) if table.classes() != classes => {
                fail(format!("targets are drawn from {} classes, the network has {classes}", table.classes()))
            }
            Self::Dlr if classes < 3 => fail(format!("DLR compares three logits, the network has {classes}")),
            Self::CrossEntropy | Self::Drawn(_) | Self::LeastLikely | Self::KlToClean | Self::Dlr | Self::Margin => {
                Ok(())
            }
        }
    }

    /// Checks that this objective can be evaluated outside a search.
    pub(super) fn check_without_search(&self) -> Result<(), EngineError> {
        let what = match self {
            Self::KlToClean => "the KL objective needs the clean images, which only a perturbation has",
            Self::Drawn(_) | Self::LeastLikely => {
                "only a search can choose its targets; a gradient outside a search needs given targets"
            }
            Self::CrossEntropy
            | Self::Targeted(_)
            | Self::Dlr
            | Self::Margin
            | Self::DlrTowards(_)
            | Self::MarginTo(_) => return Ok(()),
        };
        Err(EngineError::Invalid(what.into()))
    }

    /// The target of each image that the caller has given.
    pub(super) fn given_targets(&self) -> Option<&[u32]> {
        match self {
            Self::Targeted(targets) | Self::DlrTowards(targets) | Self::MarginTo(targets) => Some(targets),
            _ => None,
        }
    }

    /// Whether a search with this objective has target classes.
    pub const fn is_targeted(&self) -> bool {
        matches!(self, Self::Targeted(_) | Self::Drawn(_) | Self::LeastLikely)
    }

    /// Replaces [`Self::Drawn`] by [`Self::Targeted`] with the drawn targets. The reference for engines that draw on
    /// their device.
    pub fn aimed(&self, batch: &Batch<'_>) -> Cow<'_, Self> {
        let Self::Drawn(table) = self else { return Cow::Borrowed(self) };
        let draw = |(label, id): (&u32, &u32)| table.draw(*label, batch.seed, batch.epoch, *id);
        Cow::Owned(Self::Targeted(batch.labels.iter().zip(batch.ids).map(draw).collect()))
    }
}

/// For each image, the class other than the true one with the smallest logit; the first if several are equal.
pub(super) fn least_likely(logits: &[f32], labels: &[u32], classes: usize) -> Vec<u32> {
    let of = |(z, label): (&[f32], &u32)| {
        let others = z.iter().enumerate().filter(|(k, _)| *k != *label as usize);
        others.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(k, _)| k as u32)
    };
    logits.chunks(classes).zip(labels).map(of).collect()
}

/// The norm of the ball that a perturbation stays in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Largest absolute change of a value; steps follow the sign of the gradient
    Linf,
    /// Euclidean length of the change; steps follow the gradient scaled to length one
    L2,
}

/// Where a search starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// At the clean image.
    Zero,
    /// Uniform in the ball, from the stream `(seed, purpose, epoch, id)`: `ε · u` with `u` uniform in `[-1, 1)` for each
    /// value (L∞), or `ε · u^(1/d)` times a uniform direction
    /// ([`Stream::fill_ball`](crate::rng::Stream::fill_ball), L2).
    Uniform {
        /// [`Purpose::AttackStart`] or [`Purpose::EvaluationStart`].
        purpose: Purpose,
        /// Epoch, or restart of an evaluation.
        epoch: u32,
    },
    /// `deviation · n` with `n` standard normal (TRADES: 0.001).
    Normal {
        /// Standard deviation in pixel units.
        deviation: f32,
        /// As for [`Start::Uniform`].
        purpose: Purpose,
        /// As for [`Start::Uniform`].
        epoch: u32,
    },
    /// At the clean image plus these values, `B × C × H × W`. The perturbation is projected into the ball and the image
    /// clipped to `[0, 1]`, as after a step. For noise that was drawn elsewhere, and to continue from an earlier
    /// perturbation.
    Given(Vec<f32>),
}

/// When a search stops moving an image. Each step first evaluates the prediction on the image that it would move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stop {
    /// Never: every image takes all steps.
    #[default]
    Never,
    /// An image takes at most `budget` more steps while it is misclassified. A misclassified image with no budget left
    /// does not move; one that is classified correctly does (Friendly adversarial training, Zhang et al. 2020). With a
    /// budget of 0 an image stays at its first misclassification.
    WhileMisclassified {
        /// Steps that may be taken from a misclassified image.
        budget: u32,
    },
    /// As [`Self::WhileMisclassified`], but an image whose budget is used up no longer moves even if it is classified
    /// correctly again (the code of CFA and FAIR-TAT). With a budget of 0 no image moves.
    Spent {
        /// Steps that may be taken from a misclassified image.
        budget: u32,
    },
}

/// Iterates of a search that are kept as views in addition to the last one. An image that is never misclassified keeps
/// its last iterate. The prediction on the last iterate itself is not evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Snapshots {
    /// The last iterate before an image is first misclassified, or the start if that is already misclassified
    /// ([`View::LastClean`](super::View)).
    pub last_clean: bool,
    /// The first misclassified iterate ([`View::FirstAdversarial`](super::View)).
    pub first_adversarial: bool,
}

impl Snapshots {
    /// Whether any is kept.
    pub const fn any(self) -> bool {
        self.last_clean || self.first_adversarial
    }
}

/// The inner maximisation: projected gradient ascent, in a separate ball for each image.
///
/// A step depends only on the direction of the gradient. Where a factor per image does not change that direction,
/// gradients are computed up to such a factor ([`super::loss::GradientScale`]), so they do not underflow for images of
/// which the network is certain.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchSpec {
    /// What is maximised.
    pub objective: Objective,
    /// Shape of the ball.
    pub norm: Norm,
    /// Radius for each image, in `[0, 1]` pixel units.
    pub epsilon: Vec<f32>,
    /// Step size for each image.
    pub step_size: Vec<f32>,
    /// Number of steps; with 0 the result is the start.
    pub steps: u32,
    /// Where the search starts.
    pub start: Start,
    /// Whether the start is projected into the ball and the image clipped to `[0, 1]`. TRADES does neither before the
    /// first step.
    pub project_start: bool,
    /// Standard deviation of normal noise that each step adds to the perturbation before it is projected, from the
    /// stream `(seed, AttackNoise, epoch, id)` (Friendly adversarial training: 0.001); 0 disables it.
    pub noise: f32,
    /// Mode of batch norm during the search.
    pub batch_norm: BatchNormMode,
    /// When an image stops moving.
    pub stop: Stop,
    /// Iterates to keep.
    pub snapshots: Snapshots,
}

impl Default for SearchSpec {
    /// No images and no steps; the base for struct update syntax.
    fn default() -> Self {
        Self {
            objective: Objective::CrossEntropy,
            norm: Norm::Linf,
            epsilon: Vec::new(),
            step_size: Vec::new(),
            steps: 0,
            start: Start::Zero,
            project_start: true,
            noise: 0.0,
            batch_norm: BatchNormMode::Eval,
            stop: Stop::Never,
            snapshots: Snapshots::default(),
        }
    }
}

impl SearchSpec {
    /// Checks sizes and numbers for a batch of `n` images of `shape` and a network with `classes` classes.
    ///
    /// # Errors
    /// Returns [`EngineError::Invalid`] with the expected and the actual value.
    pub fn check(&self, n: usize, shape: ImageShape, classes: usize) -> Result<(), EngineError> {
        let fail = |what: String| Err(EngineError::Invalid(what));
        for (name, values) in [("epsilon", &self.epsilon), ("step_size", &self.step_size)] {
            if values.len() != n {
                return fail(format!("{name} is given for {} images, expected {n}", values.len()));
            }
            if let Some(bad) = values.iter().find(|v| !(v.is_finite() && **v >= 0.0)) {
                return fail(format!("{name} is {bad}, expected a number of at least 0"));
            }
        }
        match &self.start {
            Start::Given(values) if values.len() != n * shape.len() => {
                let (expected, found) = (n * shape.len(), values.len());
                return fail(format!("a start for {n} images of {shape} holds {expected} values, found {found}"));
            }
            Start::Given(values) if !values.iter().all(|v| v.is_finite()) => {
                return fail("a start holds values that are not finite".into());
            }
            Start::Normal { deviation, .. } if !deviation.is_finite() => {
                return fail(format!("the deviation of the start is {deviation}, expected a number"));
            }
            Start::Zero | Start::Uniform { .. } | Start::Normal { .. } | Start::Given(_) => {}
        }
        if matches!(self.objective, Objective::DlrTowards(_) | Objective::MarginTo(_)) {
            return fail("the margin and DLR of a given class are for gradients outside a search".into());
        }
        if !(self.noise.is_finite() && self.noise >= 0.0) {
            return fail(format!("the noise of a step is {}, expected a number of at least 0", self.noise));
        }
        self.objective.check(n, classes)
    }
}
