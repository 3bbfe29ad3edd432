//! FAAL: fairness-aware adversarial learning (Zhang et al., CVPR 2024, arXiv 2402.17729), which fine-tunes a robust
//! network for two epochs.
//!
//! For every batch, the class distribution `q` in a KL ball around the uniform one that is worst for the network:
//!
//! ```text
//! m_i = max_{j≠y} p_j(x + d) - p_y(x + d)          margin of probabilities, in train mode
//! q   = argmax Σ_i q_{y_i} m_i                     Σ q = 1, KL(u ‖ q) ≤ r
//! loss = mean K q_y · CE(f(x + d), y)                                    on AT
//! loss = mean K q_y · (CE(f(x), y) + β KL(p(x) ‖ p(x + d)))              on TRADES
//! ```
//!
//! `q` counts as a constant in the gradient. Over the classes that the batch holds; in the authors' code
//! (TrustAI/FAAL) a class without images has the coefficient 0, which is more than that of any class that is classified
//! well, so that it would draw weight to itself. With ten classes and batches of 128 this does not happen.

use super::trades::{CLEAN_TO_ADVERSARIAL, search};
use super::{ClassSeries, Evidence, Memory, Method, Needs, Radii, attack};
use crate::config::{AttackConfig, Experiment, FaalConfig, LossForm, TradesConfig};
use crate::engine::{Batch, BatchStats, LossSpec, LossTerm, Objective, SearchSpec, Term, View, WorstCase};

/// Names of the sums over an epoch: batches that hold each class, and its weight in them.
const BATCHES: &str = "batches";
const WEIGHT: &str = "weight";

/// See the [module](self).
#[derive(Debug)]
pub struct Faal {
    attack: AttackConfig,
    trades: TradesConfig,
    settings: FaalConfig,
    epsilon: Vec<f64>,
}

impl Faal {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            settings: experiment.faal.clone(),
        }
    }
}

impl Method for Faal {
    fn needs(&self) -> Needs {
        Needs { trained_network: true, ..Needs::default() }
    }

    fn plan(&mut self, _epoch: u32, _seen: &Evidence<'_>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        match self.settings.base {
            LossForm::At => attack(&self.attack, Objective::CrossEntropy, batch, radii),
            LossForm::Trades => search(&self.attack, &self.trades, Objective::KlToClean, batch, radii),
        }
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        let terms = match self.settings.base {
            LossForm::At => vec![LossTerm::mean(1.0, Term::CrossEntropy(View::Adversarial))],
            LossForm::Trades => vec![
                LossTerm::mean(1.0, Term::CrossEntropy(View::Clean)),
                LossTerm::mean(self.trades.beta as f32, CLEAN_TO_ADVERSARIAL),
            ],
        };
        let worst_case = WorstCase { view: View::Adversarial, radius: self.settings.radius };
        LossSpec { worst_case: Some(worst_case), ..LossSpec::of(terms) }
    }

    fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, sums: &mut Memory) {
        let classes = self.epsilon.len();
        for (k, factor) in stats.class_factors.iter().enumerate() {
            if batch.labels.contains(&(k as u32)) {
                sums.values(WEIGHT, classes)[k] += factor;
                sums.values(BATCHES, classes)[k] += 1.0;
            }
        }
    }

    /// The mean weight of each class over the batches that hold it; 1 if there are none.
    fn shown(&self, sums: &Memory) -> Vec<ClassSeries> {
        let classes = self.epsilon.len();
        let mean = |(sum, batches): (&f64, &f64)| if *batches > 0.0 { sum / batches } else { 1.0 };
        let values = match (sums.numbers(WEIGHT, classes), sums.numbers(BATCHES, classes)) {
            (Some(weight), Some(batches)) => weight.iter().zip(batches).map(mean).collect(),
            _ => vec![1.0; classes],
        };
        vec![ClassSeries { name: WEIGHT, values }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_averaged_over_the_batches_that_hold_a_class() {
        let method = Faal::new(&Experiment::default(), 3);
        assert_eq!(method.shown(&Memory::default())[0].values, [1.0; 3]);
        let mut sums = Memory::default();
        for (labels, class_factors) in [([0, 1], vec![0.5, 1.5, 0.0]), ([0, 0], vec![1.0, 0.0, 0.0])] {
            let batch = Batch { pixels: &[], labels: &labels, ids: &[0, 1], augment: None, seed: 0, epoch: 0 };
            method.observe(&batch, &BatchStats { class_factors, ..BatchStats::default() }, &mut sums);
        }
        assert_eq!(method.shown(&sums)[0].values, [0.75, 1.5, 1.0]);
    }

    #[test]
    fn both_forms_weight_every_term_by_the_worst_case() {
        let mut experiment = Experiment::default();
        for (base, terms) in [(LossForm::At, 1), (LossForm::Trades, 2)] {
            experiment.faal.base = base;
            let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 7 };
            let loss = Faal::new(&experiment, 3).loss(&batch);
            assert_eq!((loss.terms.len(), loss.worst_case.map(|worst| worst.radius)), (terms, Some(0.5)));
            loss.check(2, 3).unwrap();
        }
    }
}
