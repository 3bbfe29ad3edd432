//! Confidence intervals of an accuracy measured on `n` images.

use super::Confusion;

/// 97.5 % quantile of the normal distribution: 2.5 % of it lies above.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % score interval of a proportion from `correct` of `n` trials (Wilson 1927; Brown, Cai and DasGupta 2001
/// recommend it for small `n`). Unlike the mean ± 1.96 standard errors it stays within `[0, 1]` and does not shrink to
/// a point at 0 % and 100 %. `(0, 1)` if `n` is 0.
///
/// `(p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n)` with `p = correct / n`.
///
/// ```
/// let (low, high) = fairtat::fairness::wilson(8, 10);
/// assert!((low - 0.4902).abs() < 5e-5 && (high - 0.9433).abs() < 5e-5);
/// ```
pub fn wilson(correct: u64, n: u64) -> (f64, f64) {
    if n == 0 {
        return (0.0, 1.0);
    }
    let correct = correct.min(n);
    let (p, size, z2) = (correct as f64 / n as f64, n as f64, Z * Z);
    let centre = p + z2 / (2.0 * size);
    let half = Z * (p * (1.0 - p) / size + z2 / (4.0 * size * size)).sqrt();
    let scale = 1.0 + z2 / size;
    // At the ends the formula gives 0 and 1 only up to rounding.
    let low = if correct == 0 { 0.0 } else { (centre - half) / scale };
    let high = if correct == n { 1.0 } else { (centre + half) / scale };
    (low, high)
}

impl Confusion {
    /// 95 % interval of [`Self::accuracy`], low and high ([`wilson`]).
    pub fn interval(&self) -> [f64; 2] {
        wilson(self.correct(), self.total()).into()
    }

    /// 95 % interval of the accuracy of each class; `[0, 1]` for a class without images.
    pub fn class_intervals(&self) -> Vec<[f64; 2]> {
        (0..self.classes()).map(|k| wilson(self.at(k, k), self.of_class(k)).into()).collect()
    }

    /// 95 % interval of the accuracy of the worst class; `[0, 1]` if nothing was counted.
    pub fn worst_interval(&self) -> [f64; 2] {
        self.worst_class().map_or([0.0, 1.0], |(k, _)| self.class_intervals()[k])
    }

    /// Classes other than the worst one whose intervals overlap that of the worst: each of them may be the worst on
    /// other images of the same kind. Classes without images are left out.
    pub fn worst_class_ties(&self) -> Vec<usize> {
        let Some((worst, _)) = self.worst_class() else { return Vec::new() };
        let intervals = self.class_intervals();
        let overlaps = |k: &usize| *k != worst && self.of_class(*k) > 0 && intervals[*k][0] <= intervals[worst][1];
        (0..self.classes()).filter(overlaps).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_literature() {
        // R: binom::binom.confint(k, n, method = "wilson").
        for (correct, n, low, high) in [
            (8, 10, 0.4902, 0.9433),
            (0, 10, 0.0, 0.2775),
            (10, 10, 0.7225, 1.0),
            (1, 1, 0.2065, 1.0),
            (12, 100, 0.0700, 0.1981),
            (5000, 10_000, 0.4902, 0.5098),
            (0, 0, 0.0, 1.0),
            // More correct than trials: treated as all correct.
            (3, 2, 0.3424, 1.0),
        ] {
            let found = wilson(correct, n);
            assert!((found.0 - low).abs() < 5e-5 && (found.1 - high).abs() < 5e-5, "{correct}/{n}: {found:?}");
            assert_eq!(found.0 == 0.0, correct == 0);
            assert_eq!(found.1 == 1.0, correct >= n);
        }
    }

    #[test]
    fn an_interval_contains_its_proportion_and_mirrors_that_of_the_mistakes() {
        for n in 1..60 {
            for correct in 0..=n {
                let ((low, high), p) = (wilson(correct, n), correct as f64 / n as f64);
                assert!(0.0 <= low && low <= p && p <= high && high <= 1.0 && low < high);
                let mirrored = wilson(n - correct, n);
                assert!((low + mirrored.1 - 1.0).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn classes_that_may_be_the_worst_are_named() {
        let mut c = Confusion::new(5);
        let mut add = |class: u32, correct: u32, n: u32| {
            (0..n).for_each(|i| c.add(class, if i < correct { class } else { (class + 1) % 5 }));
        };
        // Class 3 is the worst, [0.07, 0.20]; 1 overlaps, 0 does not, 2 has no images. Later 4 has two images, both
        // wrong: it is the worst, but its interval is so wide that it overlaps all others.
        add(0, 50, 100);
        add(1, 20, 100);
        add(3, 12, 100);
        assert_eq!((c.worst_class().unwrap().0, c.worst_class_ties()), (3, vec![1]));
        assert_eq!(c.worst_interval(), c.class_intervals()[3]);
        assert_eq!(c.class_intervals()[2], [0.0, 1.0]);
        c.add(4, 0);
        c.add(4, 0);
        assert_eq!((c.worst_class().unwrap().0, c.worst_class_ties()), (4, vec![0, 1, 3]));
        let nothing = Confusion::new(2);
        assert_eq!(
            (nothing.interval(), nothing.worst_interval(), nothing.worst_class_ties()),
            ([0.0, 1.0], [0.0, 1.0], vec![])
        );
    }
}
