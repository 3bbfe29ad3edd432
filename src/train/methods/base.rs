//! The method that another one is built on: its search and its loss.

use super::fat::Budget;
use super::trades::{class_loss, search};
use super::{ClassSeries, Memory, Radii, attack};
use crate::config::{AttackConfig, BaseMethod, Experiment, TradesConfig};
use crate::engine::{Batch, BatchStats, LossSpec, Objective, SearchSpec, View};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Base {
    pub(super) method: BaseMethod,
    pub(super) attack: AttackConfig,
    pub(super) trades: TradesConfig,
    budget: Budget,
}

impl Base {
    /// `method` with the settings of an experiment.
    pub(super) fn new(experiment: &Experiment, method: BaseMethod) -> Self {
        Self {
            method,
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            budget: Budget::new(&experiment.fat),
        }
    }

    /// The same radius for all classes.
    pub(super) fn equal_radii(&self, classes: usize) -> Vec<f64> {
        vec![self.attack.epsilon.exact(); classes]
    }

    /// The objective of the untargeted search.
    pub(super) fn untargeted(&self) -> Objective {
        match self.method {
            BaseMethod::At | BaseMethod::Fat => Objective::CrossEntropy,
            BaseMethod::Trades => Objective::KlToClean,
        }
    }

    /// Its search, with `objective`.
    pub(super) fn search(&self, objective: Objective, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        match self.method {
            BaseMethod::At => attack(&self.attack, objective, batch, radii),
            BaseMethod::Fat => self.budget.limit(attack(&self.attack, objective, batch, radii), batch.epoch),
            BaseMethod::Trades => search(&self.attack, &self.trades, objective, batch, radii),
        }
    }

    /// Its loss; on TRADES the scaled form, with the β of each class.
    pub(super) fn loss(&self, beta: &[f64]) -> LossSpec {
        match self.method {
            BaseMethod::At | BaseMethod::Fat => LossSpec::cross_entropy(View::Adversarial),
            BaseMethod::Trades => class_loss(beta),
        }
    }

    /// Sums up what [`Self::shown`] needs.
    pub(super) fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, classes: usize, sums: &mut Memory) {
        if self.method == BaseMethod::Fat {
            self.budget.observe(batch, stats, classes, sums);
        }
    }

    /// Class-wise values of Friendly adversarial training; none for other bases.
    pub(super) fn shown(&self, classes: usize, sums: &Memory) -> Vec<ClassSeries> {
        if self.method == BaseMethod::Fat { vec![Budget::shown(classes, sums)] } else { Vec::new() }
    }
}
