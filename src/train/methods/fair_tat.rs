//! FAIR-TAT: fair targeted adversarial training (Medi, Jung, Keuper; WACV 2025, arXiv 2410.23142).
//!
//! For every epoch `e` after the warm-up, with CFPS and robust accuracy `r` of epoch `e - 1`:
//!
//! ```text
//! π   = softmax(2 · CFPS)                          target distribution
//! ε_k = (λ + r_k) · ε                              radius for true class k
//! t_i ~ π without y_i                              target of image i
//! d_i = PGD-10 towards t_i inside ε_{y_i}          perturbation
//! θ   ← SGD on mean CE(f(x_i + d_i), y_i)          update
//! ```
//!
//! The defaults are the authors' final code; in warm-up epochs targets are uniform and every class has the base radius.

use super::{Method, start};
use crate::config::{AttackConfig, Experiment, FairnessConfig};
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, Objective, PerturbSpec};
use crate::fairness::{ClassStats, Margins, TargetDistribution, TargetMode};

/// See the [module](self).
#[derive(Debug)]
pub struct FairTat {
    attack: AttackConfig,
    fairness: FairnessConfig,
    margins: Margins,
    seed: u64,
    epsilon: Vec<f64>,
    distribution: TargetDistribution,
    adapted: bool,
}

impl FairTat {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            attack: experiment.attack.clone(),
            fairness: experiment.fairness.clone(),
            margins: experiment.margins(),
            seed: experiment.run.seed,
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            distribution: TargetDistribution::uniform(classes),
            adapted: false,
        }
    }

    /// The fixed target, or the class after it for images of that class.
    fn fixed(&self, label: u32) -> u32 {
        let classes = self.epsilon.len() as u32;
        let target = self.fairness.fixed_target;
        if target == label { (target + 1) % classes } else { target }
    }
}

impl Method for FairTat {
    fn plan(&mut self, epoch: u32, statistics: Option<&ClassStats>) {
        let classes = self.epsilon.len();
        let statistics = statistics.filter(|_| epoch >= self.fairness.warmup_epochs);
        self.adapted = statistics.is_some();
        let Some(statistics) = statistics else {
            self.epsilon = vec![self.margins.base; classes];
            self.distribution = TargetDistribution::uniform(classes);
            return;
        };
        self.epsilon = self.margins.class_epsilon(statistics);
        let cfps = statistics.robust.cfps();
        self.distribution = match self.fairness.target_mode {
            TargetMode::Softmax => TargetDistribution::softmax(&cfps, self.fairness.temperature),
            TargetMode::Proportional => TargetDistribution::proportional(&cfps),
            TargetMode::Uniform | TargetMode::LeastLikely | TargetMode::Fixed => TargetDistribution::uniform(classes),
        };
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn target_distribution(&self) -> Option<&TargetDistribution> {
        let drawn = !matches!(self.fairness.target_mode, TargetMode::LeastLikely | TargetMode::Fixed);
        (self.fairness.targeted && (drawn || !self.adapted)).then_some(&self.distribution)
    }

    fn targets(&self, engine: &mut dyn Engine, batch: &Batch<'_>) -> Result<Option<Vec<u32>>, EngineError> {
        if !self.fairness.targeted {
            return Ok(None);
        }
        Ok(Some(match self.fairness.target_mode {
            TargetMode::Fixed if self.adapted => batch.labels.iter().map(|label| self.fixed(*label)).collect(),
            TargetMode::LeastLikely if self.adapted => {
                let logits = engine.logits(&Input::Batch(batch), BatchNormMode::Eval)?;
                logits.chunks(self.epsilon.len()).zip(batch.labels).map(|(z, label)| least_likely(z, *label)).collect()
            }
            _ => self.distribution.sample(batch.labels, batch.ids, self.seed, batch.epoch),
        }))
    }

    fn perturbation(&self, batch: &Batch<'_>, targets: Option<&[u32]>) -> PerturbSpec {
        PerturbSpec {
            objective: targets.map_or(Objective::CrossEntropy, |targets| Objective::Targeted(targets.to_vec())),
            norm: self.attack.norm,
            // The radius belongs to the true class, not to the target.
            epsilon: batch.labels.iter().map(|label| self.epsilon[*label as usize] as f32).collect(),
            step_size: vec![self.attack.step_size.value(); batch.len()],
            steps: self.attack.steps,
            start: start(self.attack.random_start, batch.epoch),
            batch_norm: self.attack.attack_bn,
        }
    }
}

/// The class with the smallest logit that is not the true one; the first of equals.
fn least_likely(logits: &[f32], label: u32) -> u32 {
    let others = logits.iter().enumerate().filter(|(k, _)| *k != label as usize);
    others.min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(k, _)| k as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::EpsilonRule;

    fn statistics() -> ClassStats {
        let mut s = ClassStats::new(3);
        s.add_robust(&[0, 0, 1, 1, 2, 2], Some(&[1, 1, 2, 2, 0, 0]), &[0, 0, 1, 0, 0, 1]);
        s
    }

    #[test]
    fn adapts_after_the_warm_up_only() {
        let mut experiment = Experiment::default();
        experiment.fairness.warmup_epochs = 2;
        let mut method = FairTat::new(&experiment, 3);
        let base = experiment.attack.epsilon.exact();
        for epoch in 0..2 {
            method.plan(epoch, Some(&statistics()));
            assert_eq!(method.class_epsilon(), [base; 3]);
        }
        method.plan(2, Some(&statistics()));
        assert_eq!(method.class_epsilon(), [1.5 * base, base, 0.5 * base]);
        let cfps = statistics().robust.cfps();
        assert_eq!(method.target_distribution(), Some(&TargetDistribution::softmax(&cfps, 2.0)));
        method.plan(3, None);
        assert_eq!(method.class_epsilon(), [base; 3]);
    }

    #[test]
    fn each_image_gets_the_radius_of_its_own_class() {
        let mut experiment = Experiment::default();
        experiment.fairness.epsilon_rules = vec![EpsilonRule::GRob];
        let mut method = FairTat::new(&experiment, 3);
        method.plan(1, Some(&statistics()));
        let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 1 };
        let spec = method.perturbation(&batch, Some(&[0, 1]));
        let base = experiment.attack.epsilon.exact();
        assert_eq!(spec.epsilon, [0.5 * base, 1.5 * base].map(|epsilon| epsilon as f32));
        assert_eq!(spec.objective, Objective::Targeted(vec![0, 1]));
    }

    #[test]
    fn fixed_and_least_likely_targets_avoid_the_label() {
        let mut experiment = Experiment::default();
        experiment.fairness.fixed_target = 2;
        let method = FairTat::new(&experiment, 3);
        assert_eq!([0, 1, 2].map(|label| method.fixed(label)), [2, 2, 0]);
        assert_eq!(least_likely(&[1.0, -3.0, 0.0], 1), 2);
        assert_eq!(least_likely(&[1.0, -3.0, 0.0], 0), 1);
    }
}
