//! WAT: worst-class adversarial training (Li and Liu, AAAI 2023, arXiv 2302.04025).
//!
//! Hedge over `K + 1` experts, the `K` classes and their average. After every epoch, with the search of training on the
//! validation split and batch norm in eval mode, each class costs its mean loss and the average that of all images:
//!
//! ```text
//! c_k = mean_{y=k} CE(f(x), y) + β · mean_{y=k} KL(p(x) ‖ p(x + d)),   c_avg likewise over all images
//! w_j = K · exp(η Σ_e c_{e,j}) / Σ_l exp(η Σ_e c_{e,l})                 j, l over the K + 1 experts; all 1 at first
//! loss = mean (w_y + w_avg) · (CE(f(x), y) + β · KL(p(x) ‖ p(x + d)))
//! ```
//!
//! Search and loss are those of TRADES. The costs grow with every epoch, so that the weights concentrate on a class that
//! stays the worst. The authors' code (boqili/WAT) divides the costs by the images in whole validation batches; here
//! they are means. A class without validation images costs as much as the average.

use std::collections::BTreeMap;

use super::trades::{CLEAN_TO_ADVERSARIAL, search};
use super::{ClassCosts, ClassSeries, Evidence, Memory, Method, Needs, Radii};
use crate::config::{AttackConfig, Experiment, TradesConfig, WatConfig};
use crate::engine::{Batch, LossSpec, LossTerm, Objective, SearchSpec, Term, View, Weights};

/// Name of the cumulative costs in [`Memory`].
const COSTS: &str = "costs";

/// See the [module](self).
#[derive(Debug)]
pub struct Wat {
    attack: AttackConfig,
    trades: TradesConfig,
    settings: WatConfig,
    epsilon: Vec<f64>,
    /// Sums over epochs of the costs of the `K + 1` experts; empty before the first.
    costs: Vec<f64>,
}

impl Wat {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            settings: experiment.wat.clone(),
            costs: Vec::new(),
        }
    }

    /// The costs of an epoch: of every class, then of the average.
    fn costs(&self, seen: &ClassCosts) -> Vec<f64> {
        let images: u64 = seen.images.iter().sum();
        let total = |k: usize| seen.cross_entropy[k] + self.settings.beta * seen.divergence[k];
        let average = (0..seen.images.len()).map(total).sum::<f64>() / (images as f64).max(1.0);
        let of = |k: usize| if seen.images[k] > 0 { total(k) / seen.images[k] as f64 } else { average };
        (0..seen.images.len()).map(of).chain([average]).collect()
    }

    /// The weights of the experts.
    fn weights(&self) -> Vec<f64> {
        let classes = self.epsilon.len();
        if self.costs.is_empty() {
            return vec![1.0; classes + 1];
        }
        // Relative to the largest, so that nothing overflows.
        let largest = self.costs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let factors: Vec<f64> = self.costs.iter().map(|cost| (self.settings.eta * (cost - largest)).exp()).collect();
        let sum: f64 = factors.iter().sum();
        factors.into_iter().map(|factor| classes as f64 * factor / sum).collect()
    }

    /// The weight of each class in the loss: its own and that of the average.
    fn class_weights(&self) -> Vec<f64> {
        let weights = self.weights();
        let classes = self.epsilon.len();
        weights[..classes].iter().map(|weight| weight + weights[classes]).collect()
    }
}

impl Method for Wat {
    fn needs(&self) -> Needs {
        Needs { costs: true, ..Needs::default() }
    }

    fn plan(&mut self, _epoch: u32, seen: &Evidence<'_>) {
        if let Some(costs) = seen.validation.and_then(|validation| validation.costs.as_ref()) {
            let costs = self.costs(costs);
            if self.costs.is_empty() {
                self.costs = vec![0.0; costs.len()];
            }
            self.costs.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost);
        }
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        search(&self.attack, &self.trades, Objective::KlToClean, batch, radii)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        let weights: Vec<f32> = self.class_weights().into_iter().map(|weight| weight as f32).collect();
        let term =
            |factor, term| LossTerm { weights: Weights::PerClass(weights.clone()), ..LossTerm::mean(factor, term) };
        LossSpec::of(vec![
            term(1.0, Term::CrossEntropy(View::Clean)),
            term(self.settings.beta as f32, CLEAN_TO_ADVERSARIAL),
        ])
    }

    fn memory(&self) -> Memory {
        if self.costs.is_empty() {
            return Memory::default();
        }
        Memory(BTreeMap::from([(COSTS.to_owned(), self.costs.clone())]))
    }

    fn restore(&mut self, memory: &Memory) {
        self.costs = memory.numbers(COSTS, self.epsilon.len() + 1).map_or_else(Vec::new, <[f64]>::to_vec);
    }

    fn shown(&self, _sums: &Memory) -> Vec<ClassSeries> {
        vec![ClassSeries { name: "weight", values: self.class_weights() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::Confusion;
    use crate::train::methods::ValidationCounts;

    fn planned(method: &mut Wat, images: &[u64], cross_entropy: &[f64], divergence: &[f64]) {
        let empty = Confusion::new(images.len());
        let costs = ClassCosts {
            images: images.to_vec(),
            cross_entropy: cross_entropy.to_vec(),
            divergence: divergence.to_vec(),
        };
        let counts = ValidationCounts { clean: empty.clone(), robust: empty, costs: Some(costs) };
        method.plan(1, &Evidence { validation: Some(&counts), ..Evidence::default() });
    }

    #[test]
    fn all_weights_are_one_before_anything_is_measured() {
        let mut method = Wat::new(&Experiment::default(), 3);
        method.plan(0, &Evidence::default());
        assert_eq!(method.weights(), [1.0; 4]);
        assert_eq!(method.shown(&Memory::default())[0].values, [2.0; 3]);
        assert!(method.memory().is_empty());
    }

    #[test]
    fn weights_follow_the_sum_of_all_costs() {
        let mut method = Wat::new(&Experiment::default(), 2);
        planned(&mut method, &[2, 1], &[1.0, 2.0], &[0.5, 0.25]);
        // (1 + 6 · 0.5) / 2, 2 + 6 · 0.25, and the average (4 + 3.5) / 3.
        assert_eq!(method.costs, [2.0, 3.5, 2.5]);
        planned(&mut method, &[2, 1], &[1.0, 2.0], &[0.5, 0.25]);
        let factors = [4.0f64, 7.0, 5.0].map(|cost| (0.1 * cost).exp());
        let expected = factors.map(|factor| 2.0 * factor / factors.iter().sum::<f64>());
        assert!(method.weights().iter().zip(expected).all(|(w, e)| (w - e).abs() < 1e-12), "{:?}", method.weights());
        assert!((method.weights().iter().sum::<f64>() - 2.0).abs() < 1e-12);
        let mut resumed = Wat::new(&Experiment::default(), 2);
        resumed.restore(&method.memory());
        assert_eq!(resumed.weights(), method.weights());
    }

    #[test]
    fn absent_classes_no_loss_and_huge_costs_leave_finite_weights() {
        let mut method = Wat::new(&Experiment::default(), 3);
        planned(&mut method, &[2, 0, 2], &[1.0, 0.0, 3.0], &[0.0; 3]);
        assert_eq!(method.costs, [0.5, 1.0, 1.5, 1.0]);
        planned(&mut method, &[2, 0, 2], &[0.0; 3], &[0.0; 3]);
        for _ in 0..3 {
            planned(&mut method, &[1, 1, 1], &[1e6, 0.0, 0.0], &[0.0; 3]);
        }
        let weights = method.weights();
        assert!(weights.iter().all(|w| w.is_finite()) && (weights[0] - 3.0).abs() < 1e-9, "{weights:?}");
        let mut many = Wat::new(&Experiment::default(), 100);
        planned(&mut many, &[0; 100], &[0.0; 100], &[0.0; 100]);
        assert!(many.weights().iter().all(|w| (w - 100.0 / 101.0).abs() < 1e-12));
    }
}
