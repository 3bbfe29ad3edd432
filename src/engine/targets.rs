//! [`TargetTable`]: the distributions from which an engine draws the targets of a search.

use std::sync::Arc;

use crate::rng::{Purpose, Stream};

/// Number of values that a 24-bit random number `u = drawn / 2²⁴` can take ([`Stream::unit`]).
const GRID: u32 = 1 << 24;

/// `P(target | label)` for every label, as integers, which compare the same on every device.
///
/// Each row holds the cumulative probabilities `P(t ≤ j | label)` on the grid of the random numbers. The target is the
/// first class whose threshold is above the drawn number: exactly the class that probabilities in `f64` select. Clones
/// share one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTable {
    classes: usize,
    thresholds: Arc<[u32]>,
}

impl TargetTable {
    /// `distribution` gives `P(j | label)` for each class `j`. Negative numbers and NaN count as 0.
    ///
    /// The last class with nonzero probability gets what rounding leaves over.
    pub fn new(classes: usize, distribution: impl Fn(u32) -> Vec<f64>) -> Self {
        let mut thresholds = Vec::with_capacity(classes * classes);
        for label in 0..classes as u32 {
            let probabilities = distribution(label);
            let last = probabilities.iter().rposition(|p| *p > 0.0).unwrap_or(0);
            let mut sum = 0.0;
            thresholds.extend((0..classes).map(|j| {
                sum += probabilities.get(j).filter(|p| **p > 0.0).unwrap_or(&0.0);
                // The product is exact, so `drawn < ⌈sum · 2²⁴⌉` is `u < sum`.
                if j < last { (sum * f64::from(GRID)).ceil().min(f64::from(GRID)) as u32 } else { GRID }
            }));
        }
        Self { classes, thresholds: thresholds.into() }
    }

    /// Number of classes `K`.
    pub const fn classes(&self) -> usize {
        self.classes
    }

    /// `K × K` thresholds, one row per label; every row rises to 2²⁴.
    pub fn thresholds(&self) -> &[u32] {
        &self.thresholds
    }

    /// The target of image `id`, from the stream `(seed, Target, epoch, id)`. The reference for engines that draw on
    /// their device.
    ///
    /// # Panics
    /// Panics if `label` is not below [`Self::classes`].
    pub fn draw(&self, label: u32, seed: u64, epoch: u32, id: u32) -> u32 {
        let drawn = Stream::new(seed, Purpose::Target, epoch, id).word(0) >> 8;
        self.pick(label, drawn)
    }

    /// The first class whose threshold is above `drawn`, which must be below 2²⁴.
    fn pick(&self, label: u32, drawn: u32) -> u32 {
        let row = &self.thresholds[label as usize * self.classes..][..self.classes];
        row.partition_point(|threshold| *threshold <= drawn) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::TargetDistribution;

    /// Several distributions, among them some that put all or almost all of their weight on one class.
    fn skewed(classes: usize) -> Vec<TargetDistribution> {
        let mut nearly_certain = vec![1e-9 / (classes - 1) as f64; classes];
        nearly_certain[classes / 2] = 1.0 - 1e-9;
        let mut none = vec![0.0; classes];
        none[classes - 1] = 1.0;
        let gaps: Vec<f64> = (0..classes).map(|j| if j % 3 == 1 { 0.0 } else { (j * j + 1) as f64 }).collect();
        let spread: Vec<f64> = (0..classes).map(|j| (j as f64 * 0.7).sin().abs()).collect();
        vec![
            TargetDistribution::uniform(classes),
            TargetDistribution::softmax(&spread, 10.0),
            TargetDistribution::proportional(&gaps),
            TargetDistribution::proportional(&nearly_certain),
            TargetDistribution::proportional(&none),
        ]
    }

    #[test]
    fn targets_are_those_that_probabilities_pick() {
        for classes in [2, 3, 10, 100] {
            let ids: Vec<u32> = (0..5000).map(|i| i * 977).collect();
            let labels: Vec<u32> = ids.iter().map(|id| id % classes as u32).collect();
            for pi in skewed(classes) {
                for (seed, epoch) in [(0xabc_0000_0009, 4), (0, 0)] {
                    let table = pi.table();
                    let draw = |(label, id): (&u32, &u32)| table.draw(*label, seed, epoch, *id);
                    let drawn: Vec<u32> = labels.iter().zip(&ids).map(draw).collect();
                    assert_eq!(drawn, pi.sample(&labels, &ids, seed, epoch), "{pi:?}");
                    assert!(drawn.iter().zip(&labels).all(|(target, label)| target != label));
                }
            }
        }
    }

    /// On both sides of each threshold and at both ends, where a rounding error would show.
    #[test]
    fn thresholds_agree_with_probabilities_on_the_grid() {
        for classes in [2, 3, 10, 30] {
            for pi in skewed(classes) {
                let table = pi.table();
                assert_eq!((table.classes(), table.thresholds().len()), (classes, classes * classes));
                for (label, row) in (0..).zip(table.thresholds().chunks(classes)) {
                    assert!(row.is_sorted() && row[classes - 1] == GRID);
                    let beside = row.iter().flat_map(|t| [t.saturating_sub(1), *t]);
                    for drawn in beside.chain([0, GRID - 1]).filter(|drawn| *drawn < GRID) {
                        let expected = pi.pick(label, f64::from(drawn) / f64::from(GRID));
                        assert_eq!(table.pick(label, drawn), expected, "{pi:?}, label {label}, {drawn}");
                    }
                }
            }
        }
    }

    #[test]
    fn invalid_probabilities_still_give_a_target() {
        for row in [vec![], vec![f64::NAN; 3], vec![-1.0, f64::INFINITY, 0.0], vec![0.0; 3], vec![5.0; 4]] {
            let table = TargetTable::new(3, |_| row.clone());
            for drawn in [0, GRID / 2, GRID - 1] {
                assert!(table.pick(2, drawn) < 3, "{row:?}");
            }
        }
    }
}
