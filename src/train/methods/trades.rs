//! TRADES (Zhang et al., ICML 2019, arXiv 1901.08573): a trade-off between clean accuracy and robustness.
//!
//! ```text
//! d   ← argmax KL(p(x) ‖ p(x + d))                 search in eval mode, from 0.001 · N(0, 1), not projected
//! θ   ← SGD on mean CE(f(x), y) + β · mean KL(p(x) ‖ p(x + d))      the gradient flows through both
//! ```
//!
//! This follows the authors' code. CFA's code divides the loss by `1 + β`, which makes it another method when weight
//! decay is used ([`TradesConfig::scaled`](crate::config::TradesConfig)).

use super::{Evidence, Method, Radii, attack};
use crate::config::{AttackConfig, Experiment, TradesConfig};
use crate::engine::{
    Batch, BatchNormMode, LossSpec, LossTerm, Objective, Reduction, SearchSpec, Start, Term, View, Weights,
};
use crate::rng::Purpose;

/// The divergence that TRADES regularises with.
pub(super) const CLEAN_TO_ADVERSARIAL: Term = Term::Kl { from: View::Clean, to: View::Adversarial };

/// See the [module](self).
#[derive(Debug)]
pub struct Trades {
    attack: AttackConfig,
    settings: TradesConfig,
    epsilon: Vec<f64>,
}

impl Trades {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        let attack = experiment.attack.clone();
        Self { epsilon: vec![attack.epsilon.exact(); classes], attack, settings: experiment.trades.clone() }
    }
}

impl Method for Trades {
    fn plan(&mut self, _epoch: u32, _seen: &Evidence<'_>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        search(&self.attack, &self.settings, Objective::KlToClean, batch, radii)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        trades_loss(&self.settings, self.epsilon.len())
    }
}

/// The loss of TRADES.
pub(super) fn trades_loss(settings: &TradesConfig, classes: usize) -> LossSpec {
    if settings.scaled {
        return class_loss(&vec![settings.beta; classes]);
    }
    LossSpec::of(vec![
        LossTerm::mean(1.0, Term::CrossEntropy(View::Clean)),
        LossTerm::mean(settings.beta as f32, CLEAN_TO_ADVERSARIAL),
    ])
}

/// The search of TRADES, with `objective`.
pub(super) fn search(
    settings: &AttackConfig,
    trades: &TradesConfig,
    objective: Objective,
    batch: &Batch<'_>,
    radii: &Radii,
) -> SearchSpec {
    let deviation = trades.start_deviation as f32;
    SearchSpec {
        start: Start::Normal { deviation, purpose: Purpose::AttackStart, epoch: batch.epoch },
        project_start: false,
        batch_norm: BatchNormMode::Eval,
        ..attack(settings, objective, batch, radii)
    }
}

/// `mean (1 - b_y) CE(f(x), y) + b_y KL(p(x) ‖ p(x + d))` with `b_k = β_k / (1 + β_k)`: CFA's form, with the β of each
/// class.
pub(super) fn class_loss(beta: &[f64]) -> LossSpec {
    let term = |term, weight: fn(f64) -> f64| LossTerm {
        term,
        factor: 1.0,
        weights: Weights::PerClass(beta.iter().map(|beta| weight(*beta) as f32).collect()),
        reduction: Reduction::Mean,
    };
    LossSpec::of(vec![
        term(Term::CrossEntropy(View::Clean), |beta| 1.0 / (1.0 + beta)),
        term(CLEAN_TO_ADVERSARIAL, |beta| beta / (1.0 + beta)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Batch<'static> {
        Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 7 }
    }

    #[test]
    fn the_search_is_that_of_the_authors() {
        let method = Trades::new(&Experiment::default(), 3);
        let spec = method.search(&batch(), &Radii(vec![0.1, 0.2, 0.3]));
        assert_eq!((spec.epsilon, spec.batch_norm, spec.project_start), (vec![0.3, 0.1], BatchNormMode::Eval, false));
        assert_eq!(spec.objective, Objective::KlToClean);
        let start = Start::Normal { deviation: 0.001, purpose: Purpose::AttackStart, epoch: 7 };
        assert_eq!(spec.start, start);
    }

    #[test]
    fn the_scaled_loss_is_the_other_divided_by_one_plus_beta() {
        let mut experiment = Experiment::default();
        let weights = |experiment: &Experiment| {
            let loss = Trades::new(experiment, 3).loss(&batch());
            loss.terms.iter().map(|term| term.image_weights(&[2, 0])[0]).collect::<Vec<f32>>()
        };
        let plain = weights(&experiment);
        experiment.trades.scaled = true;
        for (plain, scaled) in plain.iter().zip(weights(&experiment)) {
            assert!((plain / 7.0 - scaled).abs() < 1e-7, "{plain} {scaled}");
        }
        assert_eq!(plain, [0.5, 3.0]);
    }
}
