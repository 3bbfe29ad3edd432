//! DAFA: distance-aware fair adversarial training (Lee et al., ICLR 2024, arXiv 2401.12532).
//!
//! Shifts robustness from easy classes to the hard classes that resemble them. In the last epoch `W` of the warm-up (or, if
//! the method comes into force later, in its first epoch), the similarity of classes is measured once: `S_ij` is the mean probability of class `j` on the adversarial images of
//! class `i`, in train mode and before the update. From then on
//!
//! ```text
//! w_i = 1 + Σ_{j≠i} { λ S_ij S_jj   if S_ii < S_jj   (i is the harder one and gains)
//!                   { -λ S_ji S_ii  otherwise
//! ε_i = w_i · ε,  step of the search w_i · α
//! loss = mean w_y CE(f(x + d), y)                                   on AT
//! loss = mean w_y CE(f(x), y) + β · mean KL(p(x) ‖ p(x + d))        on TRADES; the KL term is not weighted
//! ```
//!
//! What one class of a pair gains the other loses, so the weights sum to `K` unless two diagonals are equal. Weights are
//! clamped to at least [`MINIMUM`]; without that, a very easy class would get a negative radius.
//!
//! Both searches start from `0.001 · N(0, 1)` with batch norm in eval mode. In the authors' code (rucy74/DAFA) the search
//! on AT takes a second step and projection without weights in every iteration; here it does not.

use std::collections::BTreeMap;

use super::trades::{CLEAN_TO_ADVERSARIAL, search};
use super::{ClassSeries, Evidence, Memory, Method, Radii};
use crate::config::{AttackConfig, DafaConfig, Experiment, LossForm, TradesConfig};
use crate::engine::{Batch, BatchStats, LossSpec, LossTerm, Objective, SearchSpec, Term, View, Weights, loss};

/// The smallest weight of a class.
pub const MINIMUM: f64 = DafaConfig::MINIMUM;
/// Name of the similarities in [`Memory`], `K × K`.
const SIMILARITY: &str = "similarity";
/// Names of the sums over the epoch that measures: images of each class, and their probabilities, `K × K`.
const IMAGES: &str = "images";
const PROBABILITIES: &str = "probabilities";

/// See the [module](self).
#[derive(Debug)]
pub struct Dafa {
    attack: AttackConfig,
    trades: TradesConfig,
    settings: DafaConfig,
    epsilon: Vec<f64>,
    weights: Vec<f64>,
    /// Similarities of classes, `K × K`, once they are measured.
    similarity: Option<Vec<f64>>,
    /// Whether this epoch measures the similarity of classes.
    measures: bool,
}

/// The weight of each class from the similarities `S`, `K × K`, before it is clamped.
fn weights(similarity: &[f64], classes: usize, lambda: f64) -> Vec<f64> {
    let s = |i: usize, j: usize| similarity[i * classes + j];
    let change = |i: usize, j: usize| if s(i, i) < s(j, j) { s(i, j) * s(j, j) } else { -s(j, i) * s(i, i) };
    let weight = |i: usize| 1.0 + lambda * (0..classes).filter(|j| *j != i).map(|j| change(i, j)).sum::<f64>();
    (0..classes).map(weight).collect()
}

impl Dafa {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            settings: experiment.dafa.clone(),
            weights: vec![1.0; classes],
            similarity: None,
            measures: false,
        }
    }

    /// The similarities from the sums of an epoch; `None` if they are not complete. A class without images resembles none.
    fn measured(&self, sums: &Memory) -> Option<Vec<f64>> {
        let classes = self.epsilon.len();
        let (images, sums) = (sums.numbers(IMAGES, classes)?, sums.numbers(PROBABILITIES, classes * classes)?);
        let mean = |(i, sum): (usize, &f64)| sum / images[i / classes].max(1.0);
        Some(sums.iter().enumerate().map(mean).collect())
    }
}

impl Method for Dafa {
    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>) {
        let (warmup, classes) = (self.settings.warmup_epochs, self.epsilon.len());
        if self.similarity.is_none() && epoch >= warmup {
            self.similarity = seen.sums.and_then(|sums| self.measured(sums));
        }
        self.measures = self.similarity.is_none() && epoch + 1 >= warmup;
        self.weights = match &self.similarity {
            Some(similarity) if epoch >= warmup => {
                let found = weights(similarity, classes, self.settings.lambda);
                found.into_iter().map(|weight| weight.max(MINIMUM)).collect()
            }
            _ => vec![1.0; classes],
        };
        let base = self.attack.epsilon.exact();
        self.epsilon = self.weights.iter().map(|weight| weight * base).collect();
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        let objective = match self.settings.base {
            LossForm::At => Objective::CrossEntropy,
            LossForm::Trades => Objective::KlToClean,
        };
        let mut spec = search(&self.attack, &self.trades, objective, batch, radii);
        for (step, label) in spec.step_size.iter_mut().zip(batch.labels) {
            *step = (f64::from(*step) * self.weights[*label as usize]) as f32;
        }
        spec
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        let weights = Weights::PerClass(self.weights.iter().map(|weight| *weight as f32).collect());
        let weighted = |view| LossTerm { weights, ..LossTerm::mean(1.0, Term::CrossEntropy(view)) };
        let terms = match self.settings.base {
            LossForm::At => vec![weighted(View::Adversarial)],
            LossForm::Trades => {
                vec![weighted(View::Clean), LossTerm::mean(self.trades.beta as f32, CLEAN_TO_ADVERSARIAL)]
            }
        };
        LossSpec { keep_logits: self.measures, ..LossSpec::of(terms) }
    }

    fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, sums: &mut Memory) {
        let classes = self.epsilon.len();
        let Some(logits) = stats.logits(View::Adversarial).filter(|_| self.measures) else { return };
        for (label, z) in batch.labels.iter().zip(logits.chunks(classes)) {
            let label = *label as usize;
            sums.values(IMAGES, classes)[label] += 1.0;
            let row = &mut sums.values(PROBABILITIES, classes * classes)[label * classes..][..classes];
            row.iter_mut().zip(loss::log_softmax(z)).for_each(|(sum, log_p)| *sum += f64::from(log_p.exp()));
        }
    }

    fn memory(&self) -> Memory {
        let named = self.similarity.iter().map(|similarity| (SIMILARITY.to_owned(), similarity.clone()));
        Memory(named.collect::<BTreeMap<_, _>>())
    }

    fn restore(&mut self, memory: &Memory) {
        self.similarity = memory.numbers(SIMILARITY, self.epsilon.len().pow(2)).map(<[f64]>::to_vec);
    }

    fn shown(&self, _sums: &Memory) -> Vec<ClassSeries> {
        vec![ClassSeries { name: "weight", values: self.weights.clone() }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn the_weights_of_a_small_table_by_hand() {
        // Class 0 is easy, class 2 hard and like class 1.
        let s = [0.8, 0.1, 0.1, 0.2, 0.5, 0.3, 0.1, 0.5, 0.4];
        let expected = [1.0 - 0.2 * 0.8 - 0.1 * 0.8, 1.0 + 0.2 * 0.8 - 0.5 * 0.5, 1.0 + 0.1 * 0.8 + 0.5 * 0.5];
        let found = weights(&s, 3, 1.0);
        assert!(found.iter().zip(expected).all(|(w, e)| (w - e).abs() < 1e-12), "{found:?}");
        // With S diagonal nothing moves.
        assert_eq!(weights(&[0.8, 0.0, 0.0, 0.5], 2, 1.0), [1.0; 2]);
    }

    #[test]
    fn what_one_class_gains_another_loses() {
        for classes in [2, 3, 10, 100] {
            for sample in 0..20 {
                let stream = Stream::new(3, Purpose::Test, 0, sample);
                let mut s: Vec<f64> =
                    (0..classes * classes).map(|i| f64::from(stream.normal(i as u32)).exp()).collect();
                s.chunks_mut(classes).for_each(|row| {
                    let sum: f64 = row.iter().sum();
                    row.iter_mut().for_each(|p| *p /= sum);
                });
                let sum: f64 = weights(&s, classes, 1.5).iter().sum();
                assert!((sum - classes as f64).abs() < 1e-9 * classes as f64, "{classes}: {sum}");
            }
        }
    }

    /// Two batches in the last epoch of the warm-up, then the plan of the epoch after it.
    #[test]
    fn the_similarity_is_measured_once_and_scales_radius_step_and_loss() {
        let mut experiment = Experiment::default();
        experiment.dafa.warmup_epochs = 2;
        let mut method = Dafa::new(&experiment, 2);
        let batch =
            |labels: &'static [u32]| Batch { pixels: &[], labels, ids: &[0, 1], augment: None, seed: 0, epoch: 1 };
        let stats =
            |logits: Vec<f32>| BatchStats { logits: vec![(View::Adversarial, logits)], ..BatchStats::default() };
        let mut sums = Memory::default();
        method.plan(0, &Evidence::default());
        method.observe(&batch(&[0, 1]), &stats(vec![9.0, 0.0, 0.0, 9.0]), &mut sums);
        assert!(sums.is_empty() && !method.loss(&batch(&[0, 1])).keep_logits);
        method.plan(1, &Evidence::default());
        assert!(method.loss(&batch(&[0, 1])).keep_logits);
        let certain = 3f32.ln();
        method.observe(&batch(&[0, 1]), &stats(vec![certain, 0.0, 0.0, 0.0]), &mut sums);
        method.observe(&batch(&[1, 1]), &stats(vec![0.0; 4]), &mut sums);
        method.plan(2, &Evidence { sums: Some(&sums), ..Evidence::default() });
        // S = 0.75 0.25 / 0.5 0.5: class 1 gains 0.5 · 0.75.
        let close = |found: &[f64], expected: [f64; 2]| found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-6);
        assert!(close(&method.weights, [0.625, 1.375]), "{:?}", method.weights);
        let base = experiment.attack.epsilon.exact();
        assert!(close(method.class_epsilon(), [0.625 * base, 1.375 * base]));
        let spec = method.search(&batch(&[1, 0]), &Radii(method.class_epsilon().to_vec()));
        let steps: Vec<f64> =
            spec.step_size.iter().map(|step| f64::from(*step) / experiment.attack.step_size.exact()).collect();
        assert!(close(&steps, [1.375, 0.625]), "{steps:?}");
        // They stay, also in a resumed run.
        let mut resumed = Dafa::new(&experiment, 2);
        resumed.restore(&method.memory());
        resumed.plan(5, &Evidence::default());
        assert_eq!((&resumed.weights, resumed.class_epsilon()), (&method.weights, method.class_epsilon()));
    }

    /// A run that changes to DAFA, or shortens its warm-up, measures in the next epoch and adapts in the one after it.
    #[test]
    fn a_warm_up_that_is_over_already_is_made_up_for() {
        let mut experiment = Experiment::default();
        experiment.dafa.warmup_epochs = 2;
        let mut method = Dafa::new(&experiment, 2);
        method.plan(7, &Evidence { sums: Some(&Memory::default()), ..Evidence::default() });
        assert!(method.measures && method.weights == [1.0; 2]);
        let mut sums = Memory::default();
        sums.values(IMAGES, 2).copy_from_slice(&[1.0, 1.0]);
        sums.values(PROBABILITIES, 4).copy_from_slice(&[0.75, 0.25, 0.5, 0.5]);
        method.plan(8, &Evidence { sums: Some(&sums), ..Evidence::default() });
        assert!(!method.measures && method.weights == [0.625, 1.375], "{:?}", method.weights);
        // Another λ takes effect with the similarities that are known.
        experiment.dafa.lambda = 2.0;
        let mut changed = Dafa::new(&experiment, 2);
        changed.restore(&method.memory());
        changed.plan(9, &Evidence::default());
        assert_eq!(changed.weights, [0.25, 1.75]);
    }

    #[test]
    fn weights_are_clamped_and_absent_classes_keep_theirs() {
        let mut experiment = Experiment::default();
        (experiment.dafa.warmup_epochs, experiment.dafa.lambda) = (1, 10.0);
        let mut method = Dafa::new(&experiment, 3);
        let mut sums = Memory::default();
        sums.values(IMAGES, 3).copy_from_slice(&[1.0, 1.0, 0.0]);
        sums.values(PROBABILITIES, 9).copy_from_slice(&[0.9, 0.1, 0.0, 0.6, 0.4, 0.0, 0.0, 0.0, 0.0]);
        method.plan(1, &Evidence { sums: Some(&sums), ..Evidence::default() });
        assert_eq!(method.weights, [MINIMUM, 1.0 + 10.0 * 0.6 * 0.9, 1.0]);
        assert!(method.class_epsilon().iter().all(|epsilon| *epsilon > 0.0));
    }
}
