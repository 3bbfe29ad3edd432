//! BAT: balance adversarial training (Sun et al., AAAI 2023, arXiv 2209.07534).
//!
//! One search by KL divergence, as in TRADES, keeps two iterates of each image: `x_lc`, the last one before it is
//! misclassified (balance of source classes), and `x_fa`, where Friendly adversarial training with a budget of `τ` stops
//! (balance of target classes). With the uniform distribution `U` over all classes:
//!
//! ```text
//! loss = mean CE(f(x_lc), y) + β · mean KL(p(x) ‖ p(x_fa)) + mean KL(p(x_lc) ‖ U) + mean KL(p(x_fa) ‖ U)
//! ```
//!
//! The gradient flows through every probability. The start, `0.001 · N(0, 1)`, is clipped to `[0, 1]`. The authors' code
//! (silvercherry/Improving-Robust-Fairness-via-Balance-Adversarial-Training, `train.py`) runs two searches that differ
//! only in the noise of their start; both iterates come from one search here, which takes half the time. Its uniform
//! distribution is that of ten classes.

use super::trades::{CLEAN_TO_ADVERSARIAL, search};
use super::{Evidence, Method, Radii};
use crate::config::{AttackConfig, BatConfig, Experiment, TradesConfig};
use crate::engine::{Batch, LossSpec, LossTerm, Objective, SearchSpec, Snapshots, Stop, Term, View};

/// See the [module](self).
#[derive(Debug)]
pub struct Bat {
    attack: AttackConfig,
    trades: TradesConfig,
    settings: BatConfig,
    epsilon: Vec<f64>,
}

impl Bat {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            settings: experiment.bat.clone(),
        }
    }
}

impl Method for Bat {
    fn plan(&mut self, _epoch: u32, _seen: &Evidence<'_>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        SearchSpec {
            project_start: true,
            stop: Stop::WhileMisclassified { budget: self.settings.tau },
            snapshots: Snapshots { last_clean: true, first_adversarial: false },
            ..search(&self.attack, &self.trades, Objective::KlToClean, batch, radii)
        }
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        let uniform = self.settings.uniform as f32;
        // The order of the authors' forward passes: last clean, first adversarial, clean.
        LossSpec::of(vec![
            LossTerm::mean(1.0, Term::CrossEntropy(View::LastClean)),
            LossTerm::mean(uniform, Term::KlToUniform(View::LastClean)),
            LossTerm::mean(uniform, Term::KlToUniform(View::Adversarial)),
            LossTerm::mean(self.settings.beta as f32, CLEAN_TO_ADVERSARIAL),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::BatchNormMode;

    #[test]
    fn one_search_keeps_both_iterates_and_the_loss_names_three_views() {
        let method = Bat::new(&Experiment::default(), 3);
        let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 7 };
        let spec = method.search(&batch, &Radii(vec![0.1, 0.2, 0.3]));
        assert_eq!((spec.stop, spec.batch_norm), (Stop::WhileMisclassified { budget: 1 }, BatchNormMode::Eval));
        assert_eq!(spec.snapshots, Snapshots { last_clean: true, first_adversarial: false });
        assert_eq!(method.loss(&batch).views(), [View::LastClean, View::Adversarial, View::Clean]);
        let factors: Vec<f32> = method.loss(&batch).terms.iter().map(|term| term.factor).collect();
        assert_eq!(factors, [1.0, 1.0, 1.0, 6.0]);
    }
}
