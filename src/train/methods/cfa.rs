//! CFA: class-wise calibrated fair adversarial training (Wei et al., CVPR 2023, arXiv 2303.14460).
//!
//! With the robust accuracy `t_k` of class `k` under the training attack of the last epoch:
//!
//! ```text
//! ε_k = (λ₁ + t_k) · ε                             class-wise calibrated margin (CCM, eq. 6)
//! β_k = (λ₂ + t_k) · β                             class-wise calibrated regularisation (CCR, eq. 7), on TRADES
//! loss = mean (CE(f(x), y) + β_y KL) / (1 + β_y)   on TRADES; on AT mean CE(f(x + d), y)
//! ```
//!
//! Both begin after a warm-up. The third part, the fairness-aware weight average (FAWA, eq. 8), is
//! [`AveragingConfig::fawa`](crate::config::AveragingConfig), which is available to every method.

use super::base::Base;
use super::{ClassSeries, Evidence, Memory, Method, Radii};
use crate::config::{BaseMethod, CfaConfig, Experiment};
use crate::engine::{Batch, BatchStats, LossSpec, SearchSpec};

/// See the [module](self).
#[derive(Debug)]
pub struct Cfa {
    base: Base,
    settings: CfaConfig,
    epsilon: Vec<f64>,
    beta: Vec<f64>,
}

impl Cfa {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        let base = Base::new(experiment, experiment.cfa.base);
        Self {
            epsilon: base.equal_radii(classes),
            beta: vec![experiment.trades.beta; classes],
            base,
            settings: experiment.cfa.clone(),
        }
    }
}

impl Method for Cfa {
    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>) {
        let settings = &self.settings;
        let classes = self.epsilon.len();
        let accuracy = seen.statistics.filter(|_| epoch >= settings.warmup_epochs).map(|s| s.robust.class_accuracy());
        // (λ + t_k) · base, or base before it adapts.
        let scaled = |on: bool, lambda: f64, base: f64| match &accuracy {
            Some(accuracy) if on => accuracy.iter().map(|t| (lambda + t) * base).collect(),
            _ => vec![base; classes],
        };
        let epsilon = scaled(settings.ccm, settings.lambda_1(), self.base.attack.epsilon.exact());
        let beta = scaled(settings.ccr, settings.lambda_2, self.base.trades.beta);
        (self.epsilon, self.beta) = (epsilon, beta);
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        self.base.search(self.base.untargeted(), batch, radii)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        self.base.loss(&self.beta)
    }

    fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, sums: &mut Memory) {
        self.base.observe(batch, stats, self.epsilon.len(), sums);
    }

    fn shown(&self, sums: &Memory) -> Vec<ClassSeries> {
        if self.base.method == BaseMethod::Trades {
            return vec![ClassSeries { name: "beta", values: self.beta.clone() }];
        }
        self.base.shown(self.epsilon.len(), sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::ClassStats;

    fn statistics(classes: usize, right: &[u32]) -> ClassStats {
        let mut statistics = ClassStats::new(classes);
        for (class, right) in right.iter().enumerate() {
            for i in 0..4u32 {
                let predicted = if i < *right { class as u32 } else { (class as u32 + 1) % classes as u32 };
                statistics.robust.add(class as u32, predicted);
            }
        }
        statistics
    }

    fn planned(experiment: &Experiment, epoch: u32, statistics: Option<&ClassStats>, classes: usize) -> Cfa {
        let mut method = Cfa::new(experiment, classes);
        method.plan(epoch, &Evidence { statistics, ..Evidence::default() });
        method
    }

    #[test]
    fn radii_and_betas_follow_robust_accuracy_after_the_warm_up() {
        let mut experiment = Experiment::default();
        let epsilon = experiment.attack.epsilon.exact();
        let counted = statistics(3, &[4, 2, 0]);
        let before = planned(&experiment, 9, Some(&counted), 3);
        assert_eq!((before.class_epsilon(), before.beta.as_slice()), (&[epsilon; 3][..], &[6.0; 3][..]));
        let after = planned(&experiment, 10, Some(&counted), 3);
        assert_eq!(after.class_epsilon(), [1.5 * epsilon, epsilon, 0.5 * epsilon]);
        assert!(after.shown(&Memory::default()).is_empty());
        experiment.cfa.base = BaseMethod::Trades;
        let after = planned(&experiment, 10, Some(&counted), 3);
        assert_eq!(after.class_epsilon(), [1.3, 0.8, 0.3].map(|scale| scale * epsilon));
        assert_eq!(after.shown(&Memory::default()), [ClassSeries { name: "beta", values: vec![9.0, 6.0, 3.0] }]);
        (experiment.cfa.ccm, experiment.cfa.ccr) = (false, false);
        let off = planned(&experiment, 10, Some(&counted), 3);
        assert_eq!((off.class_epsilon(), off.beta.as_slice()), (&[epsilon; 3][..], &[6.0; 3][..]));
    }

    #[test]
    fn two_classes_a_hundred_and_none_without_images() {
        let experiment = Experiment::default();
        let epsilon = experiment.attack.epsilon.exact();
        // A class without images counts as one at 0 %.
        let counted = statistics(2, &[4]);
        assert_eq!(planned(&experiment, 10, Some(&counted), 2).class_epsilon(), [1.5 * epsilon, 0.5 * epsilon]);
        let counted = statistics(100, &[4; 100]);
        assert_eq!(planned(&experiment, 10, Some(&counted), 100).class_epsilon(), [1.5 * epsilon; 100]);
        assert_eq!(planned(&experiment, 10, None, 2).class_epsilon(), [epsilon; 2]);
    }
}
