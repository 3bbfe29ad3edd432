//! [`LossSpec`]: the outer loss as data.

use super::{EngineError, View};

/// Weight of each image in a term of a loss.
#[derive(Debug, Clone, PartialEq)]
pub enum Weights {
    /// The mean over the batch, times a factor.
    Mean(f32),
    /// A factor for each image; the term is the sum.
    PerSample(Vec<f32>),
}

impl Weights {
    /// The factor of image `i` in a batch of `n`.
    pub fn at(&self, i: usize, n: usize) -> f32 {
        match self {
            Self::Mean(factor) => factor / n as f32,
            Self::PerSample(factors) => factors[i],
        }
    }
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
        /// The distribution that is compared with it.
        to: View,
    },
    /// `KL(p ‖ uniform)` on a view: minus the entropy, up to a constant.
    KlToUniform(View),
}

/// One term of a loss with its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct LossTerm {
    /// What is measured.
    pub term: Term,
    /// How the images' values are added up.
    pub weights: Weights,
}

/// The outer loss: a sum of terms. The first view named gets its forward pass first.
#[derive(Debug, Clone, PartialEq)]
pub struct LossSpec {
    /// The terms.
    pub terms: Vec<LossTerm>,
}

impl LossSpec {
    /// Mean cross-entropy on one view.
    pub fn cross_entropy(view: View) -> Self {
        Self { terms: vec![LossTerm { term: Term::CrossEntropy(view), weights: Weights::Mean(1.0) }] }
    }

    /// The views that the terms name, each once, in order of appearance.
    pub fn views(&self) -> Vec<View> {
        let mut views = Vec::new();
        for term in &self.terms {
            let named = match term.term {
                Term::CrossEntropy(view) | Term::KlToUniform(view) => [view, view],
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

    /// Checks the number of weights for a batch of `n` images.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with expected and found.
    pub fn check(&self, n: usize) -> Result<(), EngineError> {
        if self.terms.is_empty() {
            return Err(EngineError::Invalid("a loss needs at least one term".into()));
        }
        for term in &self.terms {
            if let Weights::PerSample(weights) = &term.weights
                && weights.len() != n
            {
                let found = weights.len();
                return Err(EngineError::Invalid(format!("a loss has weights for {found} images, expected {n}")));
            }
        }
        Ok(())
    }
}
