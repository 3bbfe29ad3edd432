//! The choice of the target class of each image.

use serde::{Deserialize, Serialize};

use crate::engine::TargetTable;
use crate::rng::{Purpose, Stream};

/// How targets are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TargetMode {
    /// Every other class alike
    Uniform,
    /// In proportion to exp(temperature × CFPS); the authors' code, with temperature 2
    Softmax,
    /// In proportion to CFPS itself; the literal reading of the paper
    Proportional,
    /// The class that the network holds least likely on the clean image
    LeastLikely,
    /// Always the same class; images of that class go to the next one
    Fixed,
}

/// A distribution over classes, from which targets other than the true class are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TargetDistribution {
    probabilities: Vec<f64>,
}

impl TargetDistribution {
    /// The uniform distribution.
    pub fn uniform(classes: usize) -> Self {
        Self { probabilities: vec![1.0 / classes as f64; classes] }
    }

    /// `π_j ∝ exp(temperature · CFPS(j))`.
    pub fn softmax(cfps: &[f64], temperature: f64) -> Self {
        let largest = cfps.iter().map(|s| s * temperature).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = cfps.iter().map(|s| (s * temperature - largest).exp()).collect();
        Self::from_weights(&weights)
    }

    /// `π_j ∝ CFPS(j)`.
    pub fn proportional(cfps: &[f64]) -> Self {
        Self::from_weights(cfps)
    }

    /// In proportion to non-negative weights; uniform if all of them are zero.
    fn from_weights(weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        if total > 0.0 && total.is_finite() {
            Self { probabilities: weights.iter().map(|w| w / total).collect() }
        } else {
            Self::uniform(weights.len())
        }
    }

    /// `π`, before the true class is excluded. Sums to 1.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// `P(t = j | y) = π_j / (1 - π_y)` for `j ≠ y`, and 0 for `j = y`. If all other classes have probability 0, they
    /// become equally likely.
    ///
    /// The closed form of drawing until the target is not the true class. (The authors' loop does not redraw if exactly
    /// one image of a batch collides, so some targets can be the true class.)
    pub fn given(&self, label: u32) -> Vec<f64> {
        let others = self.other_weight(label);
        let share = |j: usize| match (j == label as usize, others > 0.0) {
            (true, _) => 0.0,
            (false, true) => self.probabilities[j] / others,
            (false, false) => 1.0 / (self.probabilities.len() - 1) as f64,
        };
        (0..self.probabilities.len()).map(share).collect()
    }

    fn other_weight(&self, label: u32) -> f64 {
        self.probabilities.iter().enumerate().filter(|(j, _)| *j != label as usize).map(|(_, p)| p).sum()
    }

    /// The smallest `j` whose cumulative probability given `label` is above `u`, for `u` in `[0, 1)`.
    pub fn pick(&self, label: u32, u: f64) -> u32 {
        let given = self.given(label);
        let mut sum = 0.0;
        let mut last = 0;
        for (j, p) in given.iter().enumerate().filter(|(_, p)| **p > 0.0) {
            sum += p;
            last = j as u32;
            if u < sum {
                break;
            }
        }
        last
    }

    /// `P(t | y)` for every `y`, for engines that draw targets themselves: the same targets as [`Self::sample`].
    pub fn table(&self) -> TargetTable {
        TargetTable::new(self.probabilities.len(), |label| self.given(label))
    }

    /// The target of each image, from the stream `(seed, Target, epoch, id)`.
    pub fn sample(&self, labels: &[u32], ids: &[u32], seed: u64, epoch: u32) -> Vec<u32> {
        let draw = |(label, id): (&u32, &u32)| {
            let u = Stream::new(seed, Purpose::Target, epoch, *id).unit(0);
            self.pick(*label, f64::from(u))
        };
        labels.iter().zip(ids).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn softmax_of_the_authors_range() {
        let cfps = [0.03, 0.2, 0.77];
        let pi = TargetDistribution::softmax(&cfps, 2.0);
        let p = pi.probabilities();
        assert!((p[1] / p[0] - (2.0f64 * 0.17).exp()).abs() < 1e-12);
        assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((pi.given(2)[1] - p[1] / (1.0 - p[2])).abs() < 1e-12);
    }

    /// Frequencies of 200,000 draws for each class against the closed form.
    #[test]
    fn draws_follow_the_closed_form() {
        let cfps = [0.05, 0.3, 0.0, 0.4, 0.25];
        for (i, pi) in [
            TargetDistribution::softmax(&cfps, 2.0),
            TargetDistribution::softmax(&cfps, 10.0),
            TargetDistribution::proportional(&cfps),
            TargetDistribution::uniform(5),
        ]
        .into_iter()
        .enumerate()
        {
            for label in 0..5 {
                let n = 200_000u32;
                let ids: Vec<u32> = (0..n).collect();
                let mut counts = [0u32; 5];
                for t in pi.sample(&vec![label; n as usize], &ids, 9, i as u32) {
                    counts[t as usize] += 1;
                }
                let given = pi.given(label);
                let (mut chi2, mut free) = (0.0, -1);
                for j in 0..5 {
                    let expected = given[j] * f64::from(n);
                    if expected == 0.0 {
                        assert_eq!(counts[j], 0);
                    } else {
                        chi2 += (f64::from(counts[j]) - expected).powi(2) / expected;
                        free += 1;
                    }
                }
                // The 1 - 1e-5 quantiles of chi-squared with 2 and 3 degrees of freedom are 23.0 and 25.9.
                assert!((2..=3).contains(&free) && chi2 < 25.9, "{i} {label}: {chi2}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_target_is_never_the_label(
            weights in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1.0f64], 2..12),
            label in 0u32..12, u in 0.0..1.0f64, temperature in 0.0..1000.0f64,
        ) {
            let label = label % weights.len() as u32;
            for pi in [TargetDistribution::proportional(&weights), TargetDistribution::softmax(&weights, temperature)] {
                for u in [u, 0.0, 1.0 - f64::EPSILON] {
                    let target = pi.pick(label, u);
                    prop_assert!(target != label && (target as usize) < weights.len());
                }
                let given = pi.given(label);
                prop_assert!((given.iter().sum::<f64>() - 1.0).abs() < 1e-9 && given[label as usize] == 0.0);
            }
        }
    }
}
