//! [`LossSpec`]: the outer loss as data.

use super::{EngineError, View};

/// Largest number of views that a loss may name.
pub const MAX_VIEWS: usize = 8;

/// Weight of each image in a term of a loss, before [`Reduction`].
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// Every image has weight 1.
    Equal,
    /// A weight for each image.
    PerImage(Vec<f32>),
    /// A weight for each class; an image has the weight of its label.
    PerClass(Vec<f32>),
}

/// How the weighted values of a term are reduced over the `n` images of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// `1/n · Σ w_i v_i`.
    Mean,
    /// `Σ w_i v_i / Σ w_i`; zero if the weights sum to zero (FRL).
    WeightedMean,
    /// `Σ w_i v_i`.
    Sum,
}

/// What a term measures for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// Cross-entropy of the true label on a view.
    CrossEntropy(View),
    /// `KL(p(from) ‖ p(to))`; the gradient flows through both.
    Kl {
        /// The reference distribution.
        from: View,
        /// The distribution compared with it.
        to: View,
    },
    /// `KL(p ‖ uniform)` on a view: minus the entropy, up to a constant.
    KlToUniform(View),
    /// The margin `max_{i≠y} z_i - z_y` on a view.
    Margin(View),
}

/// One term of a loss: `factor` times the weighted and reduced values of the images.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTerm {
    /// What is measured.
    pub term: Term,
    /// Factor of the term.
    pub factor: f32,
    /// Weight of each image.
    pub weights: Weights,
    /// How the images' values are reduced.
    pub reduction: Reduction,
}

impl LossTerm {
    /// `factor` times the mean over the batch.
    pub const fn mean(factor: f32, term: Term) -> Self {
        Self { term, factor, weights: Weights::Equal, reduction: Reduction::Mean }
    }

    /// The factor of each image's value: factor of the term and weight, divided as [`Reduction`] says.
    pub fn image_weights(&self, labels: &[u32]) -> Vec<f32> {
        let weights: Vec<f32> = match &self.weights {
            Weights::Equal => vec![1.0; labels.len()],
            Weights::PerImage(weights) => weights.clone(),
            Weights::PerClass(weights) => labels.iter().map(|label| weights[*label as usize]).collect(),
        };
        let divisor = match self.reduction {
            Reduction::Mean => labels.len() as f64,
            Reduction::WeightedMean => weights.iter().map(|weight| f64::from(*weight)).sum(),
            Reduction::Sum => 1.0,
        };
        let scale = if divisor == 0.0 { 0.0 } else { f64::from(self.factor) / divisor };
        weights.into_iter().map(|weight| (scale * f64::from(weight)) as f32).collect()
    }
}

/// Factors for the classes, chosen for each batch: those that make the loss largest in a ball around equal factors
/// (FAAL, Zhang et al. 2024). [`super::loss::worst_case`] computes them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WorstCase {
    /// The view whose margins decide.
    pub view: View,
    /// Radius of the ball: the largest `KL(uniform ‖ q)` of the class distribution `q`.
    pub radius: f64,
}

/// The outer loss: a sum of terms. Forward passes run in the order in which the terms name the views.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LossSpec {
    /// The terms.
    pub terms: Vec<LossTerm>,
    /// If set, the weight of each image in every term is multiplied by a factor for its class, which the engine computes
    /// between the forward passes and the loss. The factors count as constants in the gradient.
    pub worst_case: Option<WorstCase>,
    /// Whether [`BatchStats::logits`](super::BatchStats::logits) is filled.
    pub keep_logits: bool,
}

impl LossSpec {
    /// The sum of these terms.
    pub fn of(terms: Vec<LossTerm>) -> Self {
        Self { terms, ..Self::default() }
    }

    /// Mean cross-entropy on one view.
    pub fn cross_entropy(view: View) -> Self {
        Self::of(vec![LossTerm::mean(1.0, Term::CrossEntropy(view))])
    }

    /// The same loss with [`Self::worst_case`] resolved to the given factor for each class.
    pub(super) fn with_class_factors(&self, factors: &[f64], labels: &[u32]) -> Self {
        let times = |weight: f32, class: usize| (f64::from(weight) * factors[class]) as f32;
        let scaled = |term: &LossTerm| {
            let weights = match &term.weights {
                Weights::Equal => Weights::PerClass(factors.iter().map(|factor| *factor as f32).collect()),
                Weights::PerClass(weights) => {
                    Weights::PerClass(weights.iter().enumerate().map(|(k, weight)| times(*weight, k)).collect())
                }
                Weights::PerImage(weights) => Weights::PerImage(
                    weights.iter().zip(labels).map(|(weight, label)| times(*weight, *label as usize)).collect(),
                ),
            };
            LossTerm { weights, ..term.clone() }
        };
        Self { terms: self.terms.iter().map(scaled).collect(), worst_case: None, ..self.clone() }
    }

    /// The views that the terms name, each once, in order of appearance.
    pub fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        for term in &self.terms {
            let named = match term.term {
                Term::CrossEntropy(view) | Term::KlToUniform(view) | Term::Margin(view) => [view, view],
                Term::Kl { from, to } => [from, to],
            };
            for view in named {
                if !views.contains(&view) {
                    views.push(view);
                }
            }
        }
        views
    }

    /// Checks weights and views for a batch of `n` images of `classes` classes.
    ///
    /// # Errors
    /// Returns [`EngineError::Invalid`] with the expected and the actual value.
    pub fn check(&self, n: usize, classes: usize) -> Result<(), EngineError> {
        let fail = |what: String| Err(EngineError::Invalid(what));
        if self.terms.is_empty() {
            return fail("a loss needs at least one term".into());
        }
        let views = self.views().len();
        if views > MAX_VIEWS {
            return fail(format!("a loss names {views} views, expected at most {MAX_VIEWS}"));
        }
        if let Some(WorstCase { view, radius }) = self.worst_case {
            if !(radius.is_finite() && radius >= 0.0) {
                return fail(format!("the radius of the class factors is {radius}, expected a number of at least 0"));
            }
            if !self.views().contains(&view) {
                return fail(format!("the class factors need the view {view:?}, which no term of the loss names"));
            }
            if self.terms.iter().any(|term| term.reduction == Reduction::WeightedMean) {
                return fail("a weighted mean would divide by the class factors".into());
            }
        }
        for term in &self.terms {
            let (of, expected, weights) = match &term.weights {
                Weights::Equal => continue,
                Weights::PerImage(weights) => ("images", n, weights),
                Weights::PerClass(weights) => ("classes", classes, weights),
            };
            if weights.len() != expected {
                return fail(format!("a loss has weights for {} {of}, expected {expected}", weights.len()));
            }
            if let Some(bad) = weights.iter().find(|weight| !weight.is_finite()) {
                return fail(format!("a loss has the weight {bad}, expected a number"));
            }
        }
        Ok(())
    }
}
