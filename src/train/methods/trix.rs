//! TRIX: mixed adversarial training (Medi, Jung, Keuper, 2025, arXiv 2507.07768). A reconstruction.
//!
//! Strong classes train on weaker, targeted attacks with uniformly drawn targets, weak classes on stronger, untargeted
//! ones; radii and loss weights are class-wise. Which statistic makes a class strong, and the formulas of radii and
//! weights, are not public as text. Here, with the robust accuracy `r_k` of class `k` under the training attack of the
//! last epoch:
//!
//! ```text
//! strong: r_k ≥ mean r                  targets uniform over the other classes; otherwise away from the true class
//! ε_k = (λ + r_k) · ε                   as in FAIR-TAT
//! w_k = (1 - r_k) / mean (1 - r)        mean 1; all 1 if no class makes mistakes
//! loss = mean w_y CE(f(x + d), y)
//! ```
//!
//! A class without images has `r = 0`. In the warm-up every class is weak and has the base radius and weight 1, which is
//! PGD-AT.

use super::{ClassSeries, Evidence, Memory, Method, Radii, attack};
use crate::config::{AttackConfig, Experiment, TrixConfig};
use crate::engine::{Batch, LossSpec, LossTerm, Objective, SearchSpec, TargetTable, Term, View, Weights};
use crate::fairness::TargetDistribution;

/// See the [module](self).
#[derive(Debug)]
pub struct Trix {
    attack: AttackConfig,
    settings: TrixConfig,
    epsilon: Vec<f64>,
    weights: Vec<f64>,
    /// Whether each class is strong.
    strong: Vec<bool>,
    targets: TargetTable,
}

impl Trix {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        let strong = vec![false; classes];
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            settings: experiment.trix.clone(),
            weights: vec![1.0; classes],
            targets: targets(&strong),
            strong,
        }
    }
}

/// Uniform targets for strong classes; the class itself, which makes the search untargeted, for weak ones.
fn targets(strong: &[bool]) -> TargetTable {
    let uniform = TargetDistribution::uniform(strong.len());
    let own = |label: u32| (0..strong.len() as u32).map(|j| f64::from(u8::from(j == label))).collect();
    TargetTable::new(strong.len(), |label| if strong[label as usize] { uniform.given(label) } else { own(label) })
}

impl Method for Trix {
    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>) {
        let (classes, base) = (self.epsilon.len(), self.attack.epsilon.exact());
        (self.epsilon, self.weights, self.strong) = (vec![base; classes], vec![1.0; classes], vec![false; classes]);
        if let Some(statistics) = seen.statistics.filter(|_| epoch >= self.settings.warmup_epochs) {
            let robust = statistics.robust.class_accuracy();
            let mean = robust.iter().sum::<f64>() / classes as f64;
            // Classes of equal accuracy are all strong, also where their mean is rounded up.
            self.strong = robust.iter().map(|r| *r >= mean - 1e-12).collect();
            self.epsilon = robust.iter().map(|r| (self.settings.lambda + r) * base).collect();
            if self.settings.weighted && mean < 1.0 {
                self.weights = robust.iter().map(|r| (1.0 - r) / (1.0 - mean)).collect();
            }
        }
        self.targets = targets(&self.strong);
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        attack(&self.attack, Objective::Drawn(self.targets.clone()), batch, radii)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        let weights = Weights::PerClass(self.weights.iter().map(|weight| *weight as f32).collect());
        LossSpec::of(vec![LossTerm { weights, ..LossTerm::mean(1.0, Term::CrossEntropy(View::Adversarial)) }])
    }

    fn shown(&self, _sums: &Memory) -> Vec<ClassSeries> {
        let targeted = self.strong.iter().map(|strong| f64::from(u8::from(*strong))).collect();
        vec![
            ClassSeries { name: "weight", values: self.weights.clone() },
            ClassSeries { name: "targeted", values: targeted },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::ClassStats;

    fn planned(classes: usize, right: &[u32], epoch: u32) -> Trix {
        let mut statistics = ClassStats::new(classes);
        for (class, right) in (0..).zip(right) {
            for i in 0..4 {
                statistics.robust.add(class, if i < *right { class } else { (class + 1) % classes as u32 });
            }
        }
        let mut method = Trix::new(&Experiment::default(), classes);
        method.plan(epoch, &Evidence { statistics: Some(&statistics), ..Evidence::default() });
        method
    }

    #[test]
    fn strong_classes_have_targets_and_weak_ones_do_not() {
        let method = planned(3, &[4, 2, 0], 1);
        assert_eq!((&method.strong[..], &method.weights[..]), (&[true, true, false][..], &[0.0, 1.0, 2.0][..]));
        let base = Experiment::default().attack.epsilon.exact();
        assert_eq!(method.class_epsilon(), [1.5 * base, base, 0.5 * base]);
        let batch = Batch { pixels: &[], labels: &[0, 1, 2], ids: &[5, 6, 7], augment: None, seed: 1, epoch: 1 };
        let spec = method.search(&batch, &Radii(method.class_epsilon().to_vec()));
        let Objective::Targeted(targets) = spec.objective.aimed(&batch).into_owned() else { panic!() };
        assert!(targets[0] != 0 && targets[1] != 1 && targets[2] == 2, "{targets:?}");
    }

    #[test]
    fn the_warm_up_is_plain_adversarial_training() {
        let method = planned(3, &[4, 2, 0], 0);
        assert_eq!((&method.strong[..], &method.weights[..]), (&[false; 3][..], &[1.0; 3][..]));
    }

    #[test]
    fn perfect_and_absent_classes_two_and_a_hundred() {
        assert_eq!(planned(2, &[4, 4], 1).weights, [1.0; 2]);
        assert_eq!(planned(2, &[4], 1).weights, [0.0, 2.0]);
        // The mean of ten times 0.25 in floating point; of three times 0.75 and the like as well.
        assert!((2..50).all(|classes| planned(classes, &vec![3; classes], 1).strong.iter().all(|strong| *strong)));
        let many = planned(100, &[2; 100], 1);
        assert!(many.strong.iter().all(|strong| *strong) && many.weights.iter().all(|w| (w - 1.0).abs() < 1e-12));
    }
}
