//! Plain adversarial training (Madry et al. 2018) with the settings of Rice et al. 2020: the baseline.
//!
//! Inner: PGD away from the true class, one epsilon for all. Outer: `mean CE(f(x + d), y)`. Nothing adapts between
//! epochs.

use super::{Evidence, Method, Radii, attack};
use crate::config::{AttackConfig, Experiment};
use crate::engine::{Batch, LossSpec, Objective, SearchSpec, View};

/// See the [module](self).
#[derive(Debug)]
pub struct AdversarialTraining {
    attack: AttackConfig,
    epsilon: Vec<f64>,
}

impl AdversarialTraining {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        let attack = experiment.attack.clone();
        Self { epsilon: vec![attack.epsilon.exact(); classes], attack }
    }
}

impl Method for AdversarialTraining {
    fn plan(&mut self, _epoch: u32, _seen: &Evidence<'_>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        attack(&self.attack, Objective::CrossEntropy, batch, radii)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        LossSpec::cross_entropy(View::Adversarial)
    }
}
