//! Plain adversarial training (Madry et al. 2018) with the settings of Rice et al. 2020: the baseline.
//!
//! Inner: PGD away from the true class, one epsilon for all. Outer: `mean CE(f(x + d), y)`. Nothing adapts.

use super::{Method, start};
use crate::config::{AttackConfig, Experiment};
use crate::engine::{Batch, Engine, EngineError, Objective, SearchSpec};
use crate::fairness::{ClassStats, TargetDistribution};

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
    fn plan(&mut self, _epoch: u32, _statistics: Option<&ClassStats>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn target_distribution(&self) -> Option<&TargetDistribution> {
        None
    }

    fn objective(&self, _engine: &mut dyn Engine, _batch: &Batch<'_>) -> Result<Objective, EngineError> {
        Ok(Objective::CrossEntropy)
    }

    fn perturbation(&self, batch: &Batch<'_>, objective: Objective) -> SearchSpec {
        SearchSpec {
            objective,
            norm: self.attack.norm,
            epsilon: vec![self.attack.epsilon.value(); batch.len()],
            step_size: vec![self.attack.step_size.value(); batch.len()],
            steps: self.attack.steps,
            start: start(self.attack.random_start, batch.epoch),
            batch_norm: self.attack.attack_bn,
            ..SearchSpec::default()
        }
    }
}
