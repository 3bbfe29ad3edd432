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
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, Objective, SearchSpec, TargetTable};
use crate::fairness::{ClassStats, Margins, TargetDistribution, TargetMode};

/// See the [module](self).
#[derive(Debug)]
pub struct FairTat {
    attack: AttackConfig,
    fairness: FairnessConfig,
    margins: Margins,
    epsilon: Vec<f64>,
    distribution: TargetDistribution,
    /// The same as engines draw from it.
    table: TargetTable,
    adapted: bool,
}

impl FairTat {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        let distribution = TargetDistribution::uniform(classes);
        Self {
            attack: experiment.attack.clone(),
            fairness: experiment.fairness.clone(),
            margins: experiment.margins(),
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            table: distribution.table(),
            distribution,
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
        self.epsilon = match statistics {
            Some(statistics) => self.margins.class_epsilon(statistics),
            None => vec![self.margins.base; classes],
        };
        let cfps = statistics.map(|statistics| statistics.robust.cfps());
        self.distribution = match (self.fairness.target_mode, cfps) {
            (TargetMode::Softmax, Some(cfps)) => TargetDistribution::softmax(&cfps, self.fairness.temperature),
            (TargetMode::Proportional, Some(cfps)) => TargetDistribution::proportional(&cfps),
            _ => TargetDistribution::uniform(classes),
        };
        self.table = self.distribution.table();
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn target_distribution(&self) -> Option<&TargetDistribution> {
        let drawn = !matches!(self.fairness.target_mode, TargetMode::LeastLikely | TargetMode::Fixed);
        (self.fairness.targeted && (drawn || !self.adapted)).then_some(&self.distribution)
    }

    fn objective(&self, engine: &mut dyn Engine, batch: &Batch<'_>) -> Result<Objective, EngineError> {
        if !self.fairness.targeted {
            return Ok(Objective::CrossEntropy);
        }
        let classes = self.epsilon.len();
        Ok(match self.fairness.target_mode {
            TargetMode::Fixed if self.adapted => {
                Objective::Targeted(batch.labels.iter().map(|label| self.fixed(*label)).collect())
            }
            TargetMode::LeastLikely if self.adapted => {
                let logits = engine.logits(&Input::Batch(batch), BatchNormMode::Eval)?;
                let images = logits.chunks(classes).zip(batch.labels);
                Objective::Targeted(images.map(|(z, label)| least_likely(z, *label)).collect())
            }
            _ => Objective::Drawn(self.table.clone()),
        })
    }

    fn perturbation(&self, batch: &Batch<'_>, objective: Objective) -> SearchSpec {
        SearchSpec {
            objective,
            norm: self.attack.norm,
            // The radius belongs to the true class, not to the target.
            epsilon: batch.labels.iter().map(|label| self.epsilon[*label as usize] as f32).collect(),
            step_size: vec![self.attack.step_size.value(); batch.len()],
            steps: self.attack.steps,
            start: start(self.attack.random_start, batch.epoch),
            batch_norm: self.attack.attack_bn,
            ..SearchSpec::default()
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
    use crate::data::ImageShape;
    use crate::engine::candle::{CandleDevice, CandleEngine};
    use crate::fairness::EpsilonRule;
    use crate::model::State;

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
    fn each_way_to_targets_is_an_objective() {
        let network = crate::model::Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 3, None, Some(2));
        let state = State::initialise(&network, 0);
        let mut engine = CandleEngine::new(network, &state, CandleDevice::Cpu).unwrap();
        let (pixels, labels) = ([100; 128], [2, 0]);
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &[0, 1], augment: None, seed: 0, epoch: 1 };
        let mut objective = |targeted, mode, adapted: bool| {
            let mut experiment = Experiment::default();
            experiment.fairness.targeted = targeted;
            experiment.fairness.target_mode = mode;
            let mut method = FairTat::new(&experiment, 3);
            method.plan(1, adapted.then(statistics).as_ref());
            method.objective(&mut engine, &batch).unwrap()
        };
        let uniform = Objective::Drawn(TargetDistribution::uniform(3).table());
        let cfps = statistics().robust.cfps();
        assert_eq!(objective(false, TargetMode::Softmax, true), Objective::CrossEntropy);
        assert_eq!(
            objective(true, TargetMode::Softmax, true),
            Objective::Drawn(TargetDistribution::softmax(&cfps, 2.0).table())
        );
        assert_eq!(
            objective(true, TargetMode::Proportional, true),
            Objective::Drawn(TargetDistribution::proportional(&cfps).table())
        );
        assert_eq!(objective(true, TargetMode::Uniform, true), uniform);
        assert_eq!(objective(true, TargetMode::Fixed, true), Objective::Targeted(vec![0, 1]));
        let least_likely = objective(true, TargetMode::LeastLikely, true);
        assert!(matches!(&least_likely, Objective::Targeted(t) if t.len() == 2 && t[0] != 2 && t[1] != 0));
        for mode in [TargetMode::Softmax, TargetMode::Fixed, TargetMode::LeastLikely] {
            assert_eq!(objective(true, mode, false), uniform, "{mode:?} in the warm-up");
        }
    }

    #[test]
    fn each_image_gets_the_radius_of_its_own_class() {
        let mut experiment = Experiment::default();
        experiment.fairness.epsilon_rules = vec![EpsilonRule::GRob];
        let mut method = FairTat::new(&experiment, 3);
        method.plan(1, Some(&statistics()));
        let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 1 };
        let spec = method.perturbation(&batch, Objective::Targeted(vec![0, 1]));
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
