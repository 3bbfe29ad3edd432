//! Confusion counts, and the statistics derived from them.

use serde::{Deserialize, Serialize};

/// With more classes than this, the mean of their worst tenth is reported beside the worst class, which is then often at or
/// near zero in every run and decided by a few images.
pub const MANY_CLASSES: usize = 20;

/// How often each true class (row) was predicted as each class (column).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<u64>,
}

impl Confusion {
    /// Empty counts.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// From counts, `K × K` with a row for each true class; `None` if their number is not a square.
    pub fn from_counts(counts: Vec<u64>) -> Option<Self> {
        let classes = counts.len().isqrt();
        (classes > 0 && classes * classes == counts.len()).then_some(Self { classes, counts })
    }

    /// From what a file says, which may be damaged ([`ClassStats::is_for`]).
    pub(super) fn of(classes: usize, counts: Vec<u64>) -> Self {
        Self { classes, counts }
    }

    /// Counts one image.
    ///
    /// # Panics
    /// Panics if a class is not below [`Self::classes`].
    pub fn add(&mut self, truth: u32, prediction: u32) {
        let (truth, prediction) = (truth as usize, prediction as usize);
        assert!(truth < self.classes && prediction < self.classes, "classes {truth} and {prediction}");
        self.counts[truth * self.classes + prediction] += 1;
    }

    /// Counts a batch.
    ///
    /// # Panics
    /// As [`Self::add`]; also if the lengths differ.
    pub fn add_all(&mut self, truths: &[u32], predictions: &[u32]) {
        assert_eq!(truths.len(), predictions.len(), "one prediction for each image");
        truths.iter().zip(predictions).for_each(|(t, p)| self.add(*t, *p));
    }

    /// Adds counts, `K × K` with a row for each true class.
    ///
    /// # Panics
    /// Panics if there are not `K × K` of them.
    pub fn add_counts(&mut self, counts: &[u32]) {
        assert_eq!(counts.len(), self.counts.len(), "one count for each pair of classes");
        self.counts.iter_mut().zip(counts).for_each(|(sum, count)| *sum += u64::from(*count));
    }

    /// Number of classes `K`.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// `K × K` counts, a row for each true class.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Images of true class `class` that were predicted as `prediction`.
    pub fn at(&self, class: usize, prediction: usize) -> u64 {
        self.counts[class * self.classes + prediction]
    }

    /// Number of images.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Number of images of a class.
    pub fn of_class(&self, class: usize) -> u64 {
        self.counts[class * self.classes..][..self.classes].iter().sum()
    }

    /// Number of images predicted correctly.
    pub fn correct(&self) -> u64 {
        (0..self.classes).map(|k| self.at(k, k)).sum()
    }

    /// Number of images predicted incorrectly.
    pub fn mistakes(&self) -> u64 {
        self.total() - self.correct()
    }

    /// Proportion of all images predicted correctly; 0 if nothing was counted.
    pub fn accuracy(&self) -> f64 {
        ratio(self.correct(), self.total())
    }

    /// Proportion of each class predicted correctly; 0 for a class without images.
    pub fn class_accuracy(&self) -> Vec<f64> {
        (0..self.classes).map(|k| ratio(self.at(k, k), self.of_class(k))).collect()
    }

    /// Proportion of each class predicted correctly; `None` for a class without images.
    pub fn measured_class_accuracy(&self) -> Vec<Option<f64>> {
        let measured = |(k, accuracy)| (self.of_class(k) > 0).then_some(accuracy);
        self.class_accuracy().into_iter().enumerate().map(measured).collect()
    }

    /// The worst class that has images, and its accuracy; the first if several are equal.
    pub fn worst_class(&self) -> Option<(usize, f64)> {
        let accuracy = self.class_accuracy();
        (0..self.classes).filter(|k| self.of_class(*k) > 0).map(|k| (k, accuracy[k])).min_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Accuracy of the worst class; 0 if nothing was counted.
    pub fn worst(&self) -> f64 {
        self.worst_class().map_or(0.0, |(_, accuracy)| accuracy)
    }

    /// Accuracy of the best class minus that of the worst, among classes with images.
    pub fn gap(&self) -> f64 {
        let accuracy = self.class_accuracy();
        let best = (0..self.classes).filter(|k| self.of_class(*k) > 0).map(|k| accuracy[k]).fold(0.0, f64::max);
        best - self.worst()
    }

    /// Mean accuracy of the worst tenth of the classes with images; their number is rounded up. Reported beside the worst
    /// class if there are more than [`MANY_CLASSES`].
    pub fn worst_tenth(&self) -> f64 {
        let accuracy = self.class_accuracy();
        let mut present: Vec<f64> = (0..self.classes).filter(|k| self.of_class(*k) > 0).map(|k| accuracy[k]).collect();
        present.sort_by(f64::total_cmp);
        let count = present.len().div_ceil(10);
        if count == 0 { 0.0 } else { present[..count].iter().sum::<f64>() / count as f64 }
    }

    /// Class-wise false-positive score: of all mistakes, the proportion predicted as each class. `1 / K` for every
    /// class if there was no mistake.
    ///
    /// `CFPS(j) = #{i : ŷ_i = j, y_i ≠ j} / #{i : ŷ_i ≠ y_i}` (FAIR-TAT, the authors' `CW_log`). Sums to 1.
    pub fn cfps(&self) -> Vec<f64> {
        // By rows, as the counts are stored.
        let mut landed = vec![0; self.classes];
        for (truth, row) in self.counts.chunks(self.classes.max(1)).enumerate() {
            for (prediction, count) in row.iter().enumerate().filter(|(prediction, _)| *prediction != truth) {
                landed[prediction] += count;
            }
        }
        self.shares_of_mistakes(|j| landed[j])
    }

    /// Class-wise false-negative score: of all mistakes, the proportion made on images of each class.
    pub fn cfns(&self) -> Vec<f64> {
        self.shares_of_mistakes(|j| self.of_class(j) - self.at(j, j))
    }

    fn shares_of_mistakes(&self, of: impl Fn(usize) -> u64) -> Vec<f64> {
        let mistakes = self.mistakes();
        let share = |j| if mistakes == 0 { 1.0 / self.classes as f64 } else { ratio(of(j), mistakes) };
        (0..self.classes).map(share).collect()
    }
}

/// `part / whole`; 0 without a whole. Every share of images is computed by this function, so that tables and figures round
/// the same number.
pub fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Counts of one pass over the training images.
///
/// In addition to the confusion counts there are counts with respect to the *target* of each image, which only some
/// rules for the class-wise epsilon use. For these, "correct" means that the attack reached its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassStats {
    /// True class × prediction on the training attack's images.
    pub robust: Confusion,
    /// True class × prediction on the unperturbed images, if the method evaluated them.
    pub clean: Confusion,
    /// For each true class, the number of images predicted as their target.
    reached: Vec<u64>,
    /// For each class, the number of images predicted as it that had another target.
    missed_into: Vec<u64>,
}

impl ClassStats {
    /// Empty counts.
    pub fn new(classes: usize) -> Self {
        let (robust, clean) = (Confusion::new(classes), Confusion::new(classes));
        Self { robust, clean, reached: vec![0; classes], missed_into: vec![0; classes] }
    }

    /// Number of classes `K`.
    pub fn classes(&self) -> usize {
        self.robust.classes()
    }

    /// Whether all counters have the size for `classes` classes; values read from a file may be damaged.
    pub fn is_for(&self, classes: usize) -> bool {
        let whole = |c: &Confusion| c.classes == classes && c.counts.len() == classes * classes;
        whole(&self.robust) && whole(&self.clean) && self.reached.len() == classes && self.missed_into.len() == classes
    }

    /// Counts a batch of attacked images. `targets` is `None` if the attack was untargeted.
    ///
    /// # Panics
    /// Panics if lengths differ or a class is out of range.
    pub fn add_robust(&mut self, truths: &[u32], targets: Option<&[u32]>, predictions: &[u32]) {
        self.robust.add_all(truths, predictions);
        if let Some(targets) = targets {
            self.add_targets(truths, targets, predictions);
        }
    }

    /// Counts a batch of attacked images with respect to their targets only. To be combined with
    /// [`Confusion::add_counts`] on [`Self::robust`].
    ///
    /// # Panics
    /// As [`Self::add_robust`].
    pub fn add_targets(&mut self, truths: &[u32], targets: &[u32], predictions: &[u32]) {
        let n = truths.len();
        assert_eq!((targets.len(), predictions.len()), (n, n), "one target and one prediction for each image");
        for ((truth, target), prediction) in truths.iter().zip(targets).zip(predictions) {
            if prediction == target {
                self.reached[*truth as usize] += 1;
            } else {
                self.missed_into[*prediction as usize] += 1;
            }
        }
    }

    /// Number of images of each true class predicted as their target.
    pub fn reached(&self) -> &[u64] {
        &self.reached
    }

    /// Proportion of each class predicted as its target; 0 for a class without images.
    pub fn target_rate(&self) -> Vec<f64> {
        (0..self.classes()).map(|k| ratio(self.reached[k], self.robust.of_class(k))).collect()
    }

    /// As [`Confusion::cfps`] with the target in place of the true class: of the images that did not reach their
    /// target, the proportion predicted as each class.
    pub fn target_cfps(&self) -> Vec<f64> {
        self.shares_of_missed(|j| self.missed_into[j])
    }

    /// As [`Confusion::cfns`] with the target in place of the true class: of the images that did not reach their
    /// target, the proportion that belongs to each true class.
    pub fn target_cfns(&self) -> Vec<f64> {
        self.shares_of_missed(|j| self.robust.of_class(j) - self.reached[j])
    }

    fn shares_of_missed(&self, of: impl Fn(usize) -> u64) -> Vec<f64> {
        let missed: u64 = self.missed_into.iter().sum();
        let uniform = 1.0 / self.classes() as f64;
        (0..self.classes()).map(|j| if missed == 0 { uniform } else { ratio(of(j), missed) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cfps_of_a_small_table_by_hand() {
        let mut c = Confusion::new(3);
        // Two correct, three predicted as class 2 (two of 0, one of 1), one of 2 predicted as 0.
        c.add_all(&[0, 1, 0, 0, 1, 2], &[0, 1, 2, 2, 2, 0]);
        assert_eq!(c.cfps(), [0.25, 0.0, 0.75]);
        assert_eq!(c.cfns(), [0.5, 0.25, 0.25]);
        assert_eq!(c.class_accuracy(), [1.0 / 3.0, 0.5, 0.0]);
        assert_eq!((c.worst_class(), c.gap(), c.accuracy()), (Some((2, 0.0)), 0.5, 1.0 / 3.0));
    }

    #[test]
    fn without_mistakes_every_share_is_uniform() {
        let mut c = Confusion::new(4);
        assert_eq!(c.cfps(), [0.25; 4]);
        c.add_all(&[0, 1, 2, 3], &[0, 1, 2, 3]);
        assert_eq!((c.cfps(), c.cfns()), (vec![0.25; 4], vec![0.25; 4]));
        assert_eq!((c.accuracy(), c.worst(), c.gap()), (1.0, 1.0, 0.0));
    }

    #[test]
    fn a_class_without_images_is_not_the_worst() {
        let mut c = Confusion::new(3);
        c.add_all(&[0, 0, 1], &[0, 1, 1]);
        assert_eq!(c.worst_class(), Some((0, 0.5)));
        assert_eq!(c.worst_tenth(), 0.5);
        assert_eq!(c.measured_class_accuracy(), [Some(0.5), Some(1.0), None]);
        assert_eq!(Confusion::new(3).worst_class(), None);
    }

    #[test]
    fn counters_against_the_target() {
        let mut s = ClassStats::new(3);
        // Per image: reached, missed and predicted as 0 (its true class), missed and predicted as 1, reached.
        s.add_robust(&[0, 0, 0, 2], Some(&[1, 1, 2, 0]), &[1, 0, 1, 0]);
        assert_eq!(s.target_rate(), [1.0 / 3.0, 0.0, 1.0]);
        assert_eq!(s.target_cfps(), [0.5, 0.5, 0.0]);
        assert_eq!(s.target_cfns(), [1.0, 0.0, 0.0]);
    }

    #[test]
    fn adding_counts_equals_adding_images() {
        let (truths, targets, predictions) = ([0, 1, 2, 2, 1, 0], [1, 2, 0, 1, 0, 2], [1, 1, 0, 2, 2, 0]);
        let (mut images, mut counts) = (ClassStats::new(3), ClassStats::new(3));
        for _ in 0..2 {
            images.add_robust(&truths, Some(&targets), &predictions);
            counts.robust.add_counts(&crate::engine::loss::confusion(&truths, &predictions, 3));
            counts.add_targets(&truths, &targets, &predictions);
        }
        assert_eq!(counts, images);
        assert_eq!((counts.robust.total(), counts.reached()), (12, &[2, 0, 2][..]));
    }

    proptest! {
        #[test]
        fn shares_sum_to_one(pairs in prop::collection::vec((0u32..5, 0u32..5, 0u32..5), 0..200)) {
            let mut s = ClassStats::new(5);
            for (truth, target, prediction) in &pairs {
                s.add_robust(&[*truth], Some(&[*target]), &[*prediction]);
            }
            for shares in [s.robust.cfps(), s.robust.cfns(), s.target_cfps(), s.target_cfns()] {
                prop_assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                prop_assert!(shares.iter().all(|v| (0.0..=1.0).contains(v)));
            }
            prop_assert!(s.robust.gap() >= 0.0 && s.robust.worst() <= s.robust.accuracy() + 1e-12);
            prop_assert_eq!(s.robust.total(), pairs.len() as u64);
        }
    }
}
