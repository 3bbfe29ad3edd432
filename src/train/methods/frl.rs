//! FRL: fair robust learning (Xu et al., ICML 2021, arXiv 2010.06121), which fine-tunes a robust network.
//!
//! Before every epoch, with the clean accuracy `c_k` and the robust accuracy `r_k` of class `k` on the validation split
//! (the evaluation attack of the run; the authors: PGD-20), their means over images `c` and `r`, and a tolerance `τ`:
//!
//! ```text
//! g0_k = (1 - c_k) - (1 - c) - τ                   excess of the clean error
//! g1_k = (c_k - r_k) - (c - r) - τ                 excess of the boundary error
//! l0 ← P(l0 + α₁ g0),  l1 ← P(l1 + 2 α₁ g1)        P: clamp at 0, then scale to a sum of at most `limit`
//! l2 ← l2 + α₂ g1                                  with remargin
//! w0_k = 1/K + l0_k - mean l0,  w1 likewise        weights
//! ε_k = clamp(exp(2 l2_k), 0.98, 3) · ε            radius
//! loss = Σ w0_y CE(f(x), y) / Σ w0_y + β Σ w1_y KL(p(x) ‖ p(x + d)) / Σ w1_y
//! ```
//!
//! The search is that of TRADES. Its step size is that of the attack for reweight, and a quarter of the largest radius
//! in the batch for reweight-remargin. α₁ is halved every 40 epochs. The authors' code (hannxu123/fair_robust).

use std::collections::BTreeMap;

use super::trades::{CLEAN_TO_ADVERSARIAL, search};
use super::{ClassSeries, Evidence, Memory, Method, Needs, Radii, ValidationCounts};
use crate::config::{AttackConfig, Experiment, FrlConfig, FrlVariant, TradesConfig};
use crate::engine::{Batch, LossSpec, LossTerm, Objective, Reduction, SearchSpec, Term, View, Weights};

/// Epochs after which the step of the weights' multipliers is halved.
const HALVED_EVERY: u32 = 40;
/// Factors of the radius, at least and at most.
const MARGIN: (f64, f64) = (0.98, 3.0);

/// See the [module](self).
#[derive(Debug)]
pub struct Frl {
    attack: AttackConfig,
    trades: TradesConfig,
    settings: FrlConfig,
    /// Multipliers of clean error, boundary error and margin.
    multipliers: [Vec<f64>; 3],
    epsilon: Vec<f64>,
}

/// Names of the multipliers in [`Memory`].
const NAMES: [&str; 3] = ["clean", "boundary", "margin"];

impl Frl {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            settings: experiment.frl.clone(),
            multipliers: [0; 3].map(|_| vec![0.0; classes]),
        }
    }

    fn remargins(&self) -> bool {
        self.settings.variant == FrlVariant::ReweightRemargin
    }

    /// Weights of the classes from multipliers.
    fn weights(multipliers: &[f64]) -> Vec<f64> {
        let classes = multipliers.len() as f64;
        let mean = multipliers.iter().sum::<f64>() / classes;
        multipliers.iter().map(|l| 1.0 / classes + l - mean).collect()
    }

    /// How much the clean and boundary errors of each class exceed the tolerance; 0 for a class without images.
    fn excess(counts: &ValidationCounts, tau: f64) -> [Vec<f64>; 2] {
        let (clean, robust) = (&counts.clean, &counts.robust);
        let (c, r) = (clean.accuracy(), robust.accuracy());
        let (c_k, r_k) = (clean.class_accuracy(), robust.class_accuracy());
        let there = |k: usize, excess: f64| if clean.of_class(k) > 0 { excess } else { 0.0 };
        let of = |excess: &dyn Fn(usize) -> f64| (0..c_k.len()).map(|k| there(k, excess(k) - tau)).collect();
        [of(&|k| (1.0 - c_k[k]) - (1.0 - c)), of(&|k| (c_k[k] - r_k[k]) - (c - r))]
    }
}

/// Clamps multipliers at 0, then scales them to a sum of at most `limit`.
fn project(multipliers: &mut [f64], limit: f64) {
    multipliers.iter_mut().for_each(|l| *l = l.max(0.0));
    let sum: f64 = multipliers.iter().sum();
    if sum > limit {
        multipliers.iter_mut().for_each(|l| *l *= limit / sum);
    }
}

impl Method for Frl {
    fn needs(&self) -> Needs {
        Needs { validation: true, trained_network: true, ..Needs::default() }
    }

    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>) {
        if let Some(counts) = seen.validation {
            let settings = &self.settings;
            let [clean, boundary] = Self::excess(counts, settings.tau());
            let alpha_1 = settings.alpha_1 * 0.5f64.powi(((epoch + 1) / HALVED_EVERY) as i32);
            let steps = [(&clean, alpha_1), (&boundary, 2.0 * alpha_1), (&boundary, settings.alpha_2)];
            let kinds = if self.remargins() { 3 } else { 2 };
            for (kind, (multipliers, (excess, alpha))) in self.multipliers.iter_mut().zip(steps).take(kinds).enumerate()
            {
                multipliers.iter_mut().zip(excess).for_each(|(l, g)| *l += alpha * g);
                if kind < 2 {
                    project(multipliers, settings.limit);
                }
            }
        }
        let base = self.attack.epsilon.exact();
        let margin = |l: &f64| (2.0 * l).exp().clamp(MARGIN.0, MARGIN.1) * base;
        self.epsilon = if self.remargins() {
            self.multipliers[2].iter().map(margin).collect()
        } else {
            vec![base; self.epsilon.len()]
        };
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        let mut spec = search(&self.attack, &self.trades, Objective::KlToClean, batch, radii);
        if self.remargins() {
            let largest = spec.epsilon.iter().copied().fold(0.0, f32::max);
            spec.step_size = vec![largest / 4.0; batch.len()];
        }
        spec
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        let term = |term, factor: f64, kind: usize| LossTerm {
            term,
            factor: factor as f32,
            weights: Weights::PerClass(Self::weights(&self.multipliers[kind]).into_iter().map(|w| w as f32).collect()),
            reduction: Reduction::WeightedMean,
        };
        LossSpec::of(vec![
            term(Term::CrossEntropy(View::Clean), 1.0, 0),
            term(CLEAN_TO_ADVERSARIAL, self.settings.beta, 1),
        ])
    }

    fn memory(&self) -> Memory {
        let named = NAMES.into_iter().zip(&self.multipliers);
        Memory(named.map(|(name, values)| (name.to_owned(), values.clone())).collect::<BTreeMap<_, _>>())
    }

    fn restore(&mut self, memory: &Memory) {
        for (name, multipliers) in NAMES.into_iter().zip(&mut self.multipliers) {
            match memory.numbers(name, multipliers.len()) {
                Some(values) => multipliers.copy_from_slice(values),
                None => multipliers.fill(0.0),
            }
        }
    }

    fn shown(&self, _sums: &Memory) -> Vec<ClassSeries> {
        vec![
            ClassSeries { name: "clean_weight", values: Self::weights(&self.multipliers[0]) },
            ClassSeries { name: "boundary_weight", values: Self::weights(&self.multipliers[1]) },
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::Confusion;

    fn counts(right: &[(u32, u32)]) -> ValidationCounts {
        let classes = right.len() as u32;
        let (mut clean, mut robust) = (Confusion::new(right.len()), Confusion::new(right.len()));
        for (class, (of_clean, of_robust)) in (0..).zip(right) {
            for i in 0..20 {
                let predicted = |right: u32| if i < right { class } else { (class + 1) % classes };
                clean.add(class, predicted(*of_clean));
                robust.add(class, predicted(*of_robust));
            }
        }
        ValidationCounts { clean, robust, costs: None }
    }

    fn plan(method: &mut Frl, epoch: u32, counts: &ValidationCounts) {
        method.plan(epoch, &Evidence { validation: Some(counts), ..Evidence::default() });
    }

    #[test]
    fn classes_with_larger_errors_get_larger_weights_and_radii() {
        let mut method = Frl::new(&Experiment::default(), 4);
        let found = counts(&[(20, 16), (20, 12), (18, 10), (10, 2)]);
        plan(&mut method, 0, &found);
        let [clean, boundary, margin] = &method.multipliers;
        // c = 0.85, r = 0.5, τ = 0.07: only class 3 has too many clean errors, 1 - 0.5 - 0.15 - 0.07 = 0.28.
        assert!((clean[3] - 0.05 * 0.28).abs() < 1e-12 && clean[..3] == [0.0; 3], "{clean:?}");
        // c_k - r_k: 0.2, 0.4, 0.4, 0.4 against 0.35: none exceeds it by more than τ.
        assert_eq!(boundary.as_slice(), [0.0; 4]);
        assert!((margin[0] - 0.2 * (0.2 - 0.35 - 0.07)).abs() < 1e-12);
        let base = method.attack.epsilon.exact();
        assert!((method.class_epsilon()[0] - 0.98 * base).abs() < 1e-12, "clamped: {:?}", method.class_epsilon());
        let weights = &method.shown(&Memory::default())[0].values;
        assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12 && weights[3] > weights[0]);
    }

    #[test]
    fn multipliers_stay_within_their_limit_and_come_back_from_memory() {
        let mut experiment = Experiment::default();
        (experiment.frl.alpha_1, experiment.frl.alpha_2) = (5.0, 5.0);
        let mut method = Frl::new(&experiment, 2);
        let found = counts(&[(20, 20), (0, 0)]);
        for epoch in 0..3 {
            plan(&mut method, epoch, &found);
        }
        assert!((method.multipliers[0].iter().sum::<f64>() - 0.5).abs() < 1e-12);
        assert!(method.class_epsilon().iter().all(|e| (0.98..=3.0).contains(&(e / method.attack.epsilon.exact()))));
        let mut resumed = Frl::new(&experiment, 2);
        resumed.restore(&method.memory());
        plan(&mut resumed, 3, &found);
        plan(&mut method, 3, &found);
        assert_eq!((&resumed.multipliers, resumed.class_epsilon()), (&method.multipliers, method.class_epsilon()));
        // A memory for another number of classes is ignored.
        let mut other = Frl::new(&experiment, 3);
        other.restore(&method.memory());
        assert_eq!(other.multipliers, [0; 3].map(|_| vec![0.0; 3]));
    }

    #[test]
    fn the_step_of_the_weights_is_halved_every_forty_epochs() {
        let found = counts(&[(20, 20), (4, 4)]);
        let step = |epoch| {
            let mut method = Frl::new(&Experiment::default(), 2);
            plan(&mut method, epoch, &found);
            method.multipliers[0][1]
        };
        assert!((step(38) / step(39) - 2.0).abs() < 1e-12 && (step(39) / step(79) - 2.0).abs() < 1e-12);
        assert_eq!(step(0), step(38));
    }

    #[test]
    fn no_errors_and_absent_classes_are_no_problem() {
        let mut method = Frl::new(&Experiment::default(), 100);
        plan(&mut method, 0, &counts(&[(20, 20); 100]));
        assert_eq!(method.multipliers[0], vec![0.0; 100]);
        let mut absent = counts(&[(20, 20), (20, 20), (20, 20)]);
        absent.clean = Confusion::from_counts(vec![20, 0, 0, 0, 20, 0, 0, 0, 0]).unwrap();
        absent.robust = absent.clean.clone();
        let mut method = Frl::new(&Experiment::default(), 3);
        plan(&mut method, 0, &absent);
        assert_eq!(method.multipliers[0], [0.0; 3]);
    }
}
