//! Correlations, resampling tests and intervals for small samples: a few seeds, or the classes of a data set.
//!
//! | function | result | reference |
//! |---|---|---|
//! | [`pearson`], [`spearman`] | correlation | `scipy.stats.pearsonr`, `spearmanr` |
//! | [`fisher_interval`] | 95 % interval of Pearson's correlation | `pearsonr(…).confidence_interval(0.95)` |
//! | [`bootstrap_correlation`] | 95 % interval of either correlation | `scipy.stats.bootstrap(…, paired=True, method="percentile")` |
//! | [`permutation_test`] | p-value of either correlation | `scipy.stats.permutation_test(…, permutation_type="pairings")` |
//! | [`bootstrap_mean`] | 95 % intervals of a mean | `scipy.stats.bootstrap`, methods `percentile` and `BCa` |
//! | [`t_interval`] | 95 % interval of a mean, for normal data | `scipy.stats.ttest_1samp(…).confidence_interval()` |
//!
//! Source of the bootstrap: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), sections 13.3 (percentile)
//! and 14.3 (BCa).
//!
//! Samples of at most [`ENUMERATED`] values are not resampled at random: all `n^n` resamples are used, each once. Such
//! results depend on neither the seed nor the requested number of resamples. Everything else is a pure function of its
//! arguments, including the seed.
//!
//! # Few seeds
//!
//! A bootstrap interval of a mean of three values cannot leave `[min, max]`. If the values are independent with a
//! symmetric distribution, `[min, max]` of `n` values covers the mean with probability `1 - 2^(1-n)`: 75 % for `n = 3`,
//! 87.5 % for `n = 4`, and no bootstrap interval reaches 95 % below `n = 6`. Report [`t_interval`] next to it: for
//! normal values it covers 95 % at any `n ≥ 2`.
//!
//! ```
//! use fairtat::statistics::{bootstrap_mean, t_interval};
//! let differences = [0.5, 0.75, 1.5];
//! let bootstrap = bootstrap_mean(&differences, 9_999, 0).unwrap();
//! assert!(bootstrap.exact && bootstrap.resamples == 27);
//! assert!(bootstrap.percentile[0] >= 0.5 && bootstrap.percentile[1] <= 1.5);
//! let t = t_interval(&differences).unwrap();
//! assert!(t[0] < 0.0 && t[1] > 1.5);
//! ```

pub mod distributions;

use self::distributions::{normal_cdf, normal_quantile, t_quantile};
use crate::rng::{Purpose, Sequence, Stream};

/// Default number of random resamples and permutations, as in SciPy.
pub const RESAMPLES: usize = 9_999;
/// Largest sample of which the bootstrap enumerates all `n^n` resamples (46,656 for 6).
pub const ENUMERATED: usize = 6;
/// Largest sample of which the permutation test enumerates all `n!` permutations (40,320 for 8).
pub const PERMUTED: usize = 8;

/// Probability in each tail outside a 95 % interval.
const TAIL: f64 = 0.025;
/// Relative difference up to which two values of a statistic count as equal: SciPy's tolerance, `100 ε`.
const TIE: f64 = 100.0 * f64::EPSILON;

/// A correlation coefficient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correlation {
    /// Of the values: linear association.
    Pearson,
    /// Of the ranks: monotonic association.
    Spearman,
}

impl Correlation {
    /// [`pearson`] or [`spearman`].
    pub fn of(self, x: &[f64], y: &[f64]) -> Option<f64> {
        self.unit_vectors(x, y).map(|[u, v]| correlation_of_units(&u, &v))
    }

    /// Values or ranks of `x` and `y`, each shifted to mean 0 and scaled to norm 1.
    fn unit_vectors(self, x: &[f64], y: &[f64]) -> Option<[Vec<f64>; 2]> {
        if x.len() != y.len() {
            return None;
        }
        match self {
            Self::Pearson => Some([unit_vector(x)?, unit_vector(y)?]),
            Self::Spearman => Some([unit_vector(&ranks(x)?)?, unit_vector(&ranks(y)?)?]),
        }
    }
}

/// Pearson's correlation `Σ (xᵢ - x̄)(yᵢ - ȳ) / (‖x - x̄‖ ‖y - ȳ‖)`. With two values it is 1 or -1.
///
/// `None` if the lengths differ, with fewer than two values, if all values of an input are equal (the correlation is
/// undefined), or if a value is not finite.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    Correlation::Pearson.of(x, y)
}

/// Spearman's rank correlation: [`pearson`] of the ranks. Equal values share the mean of their ranks.
///
/// `None` if the lengths differ, with fewer than two values, if all values of an input are equal, or if a value is NaN.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    Correlation::Spearman.of(x, y)
}

/// Ranks from 1; equal values share the mean of their ranks. `None` if a value is NaN.
fn ranks(values: &[f64]) -> Option<Vec<f64>> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for ties in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (ties.len() + 1) as f64 / 2.0;
        ties.iter().for_each(|&index| ranks[index] = rank);
        before += ties.len();
    }
    Some(ranks)
}

/// `(values - mean) / ‖values - mean‖`. `None` with fewer than two values, if all are equal or one is not finite.
fn unit_vector(values: &[f64]) -> Option<Vec<f64>> {
    if values.len() < 2 || values.iter().all(|value| *value == values[0]) {
        return None;
    }
    let mean = mean(values);
    // Scaled by the largest deviation, so that the squares neither overflow nor underflow.
    let largest = values.iter().map(|value| (value - mean).abs()).fold(0.0, f64::max);
    let scaled: Vec<f64> = values.iter().map(|value| (value - mean) / largest).collect();
    let norm = dot(&scaled, &scaled).sqrt();
    norm.is_finite().then(|| scaled.iter().map(|value| value / norm).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The scalar product of two results of [`unit_vector`], without what rounding adds beyond ±1.
fn correlation_of_units(u: &[f64], v: &[f64]) -> f64 {
    let product = dot(u, v).clamp(-1.0, 1.0);
    if u.len() == 2 { product.round() } else { product }
}

/// 95 % interval of Pearson's correlation for bivariate normal data: `tanh(atanh r ± z / √(n - 3))`, with `z` the 97.5 %
/// quantile of the normal distribution (Fisher, "On the probable error of a coefficient of correlation", 1921).
///
/// `None` with fewer than four pairs (SciPy returns `[-1, 1]`) and where [`pearson`] is `None`.
pub fn fisher_interval(x: &[f64], y: &[f64]) -> Option<[f64; 2]> {
    let r = pearson(x, y).filter(|_| x.len() > 3)?;
    let half = normal_quantile(1.0 - TAIL) / (x.len() as f64 - 3.0).sqrt();
    Some([(r.atanh() - half).tanh(), (r.atanh() + half).tanh()])
}

/// Result of [`bootstrap_correlation`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CorrelationBootstrap {
    /// Low and high end of the 95 % percentile interval.
    pub interval: [f64; 2],
    /// Number of resamples in the interval.
    pub resamples: usize,
    /// Number of resamples without a correlation, because all values of an input were equal.
    pub skipped: usize,
    /// Whether all `n^n` resamples were used, so that the result does not depend on the seed.
    pub exact: bool,
}

/// Percentile bootstrap of a correlation: pairs are drawn with replacement, and the ends of the interval are the 2.5 %
/// and 97.5 % quantiles of the correlations of the resamples.
///
/// Resamples in which an input is constant have no correlation. They are skipped and counted, so that the interval is
/// conditional on a defined correlation (`scipy.stats.bootstrap` returns NaN). With few pairs the interval covers less
/// than 95 %, as for [`bootstrap_mean`].
///
/// `None` where the correlation of the sample itself is `None`, and if no resample is left.
pub fn bootstrap_correlation(
    correlation: Correlation,
    x: &[f64],
    y: &[f64],
    resamples: usize,
    seed: u64,
) -> Option<CorrelationBootstrap> {
    correlation.of(x, y)?;
    let (mut values, mut skipped) = (Vec::new(), 0);
    let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    let exact = for_each_resample(x.len(), resamples, seed, |indices| {
        for (to, &from) in indices.iter().enumerate() {
            (a[to], b[to]) = (x[from], y[from]);
        }
        match correlation.of(&a, &b) {
            Some(value) => values.push(value),
            None => skipped += 1,
        }
    });
    values.sort_unstable_by(f64::total_cmp);
    let interval = [quantile(&values, TAIL)?, quantile(&values, 1.0 - TAIL)?];
    Some(CorrelationBootstrap { interval, resamples: values.len(), skipped, exact })
}

/// Result of [`permutation_test`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PermutationTest {
    /// Correlation of the sample.
    pub statistic: f64,
    /// Two-sided p-value.
    pub p: f64,
    /// Number of permutations.
    pub permutations: usize,
    /// Whether these are all `n!` permutations, so that the result does not depend on the seed.
    pub exact: bool,
}

/// Permutation test of the hypothesis that `x` and `y` are independent, two-sided.
///
/// With up to [`PERMUTED`] pairs every permutation of `y` is used once, and a one-sided p-value is `count / n!`, where
/// `count` is the number of permutations whose correlation is at least (at most) the observed one. With more pairs
/// `permutations` of them are drawn, and it is `(count + 1) / (permutations + 1)` (Phipson and Smyth, "Permutation
/// p-values should never be zero", 2010). The two-sided p-value is `min(1, 2 · min(less, greater))`, as in
/// `scipy.stats.permutation_test`; it is not the share of permutations with a larger absolute value.
///
/// Correlations count as equal up to SciPy's tolerance `100 ε |r|`. For `|r| < 0.1` the tolerance is `10 ε`, the size of
/// the rounding error: SciPy's falls below it, so that its p-value of data with `r = 0` can depend on the order of
/// summation.
///
/// `None` where the correlation of the sample is `None`.
pub fn permutation_test(
    correlation: Correlation,
    x: &[f64],
    y: &[f64],
    permutations: usize,
    seed: u64,
) -> Option<PermutationTest> {
    let [u, v] = correlation.unit_vectors(x, y)?;
    let statistic = correlation_of_units(&u, &v);
    let tolerance = TIE * statistic.abs().max(0.1);
    let (mut less, mut greater, mut total) = (0, 0, 0);
    let mut visit = |permuted: &[f64]| {
        let value = correlation_of_units(&u, permuted);
        less += usize::from(value <= statistic + tolerance);
        greater += usize::from(value >= statistic - tolerance);
        total += 1;
    };
    let exact = v.len() <= PERMUTED;
    let mut permuted = v.clone();
    if exact {
        for_each_permutation(&mut permuted, &mut visit);
    } else {
        for index in 0..permutations {
            permuted.copy_from_slice(&v);
            draws(seed, index).shuffle(&mut permuted);
            visit(&permuted);
        }
    }
    let observed = usize::from(!exact);
    let p = 2.0 * (less.min(greater) + observed) as f64 / (total + observed) as f64;
    Some(PermutationTest { statistic, p: p.min(1.0), permutations: total, exact })
}

/// Result of [`bootstrap_mean`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanBootstrap {
    /// Mean of the sample.
    pub mean: f64,
    /// Low and high end of the 95 % percentile interval.
    pub percentile: [f64; 2],
    /// Low and high end of the 95 % BCa interval (bias-corrected and accelerated). `None` if all values are equal or all
    /// means of resamples are on one side of the mean.
    pub bca: Option<[f64; 2]>,
    /// Number of resamples.
    pub resamples: usize,
    /// Whether these are all `n^n` resamples, so that the result does not depend on the seed.
    pub exact: bool,
}

/// Bootstrap intervals of the mean of `values`, such as paired differences of two methods over seeds.
///
/// The ends of the percentile interval are the 2.5 % and 97.5 % quantiles of the means of the resamples. BCa replaces
/// these probabilities by `Φ(z₀ + (z₀ + z) / (1 - a (z₀ + z)))` with `z = Φ⁻¹(0.025)` and `Φ⁻¹(0.975)`, the bias
/// correction `z₀ = Φ⁻¹(share of resamples with a smaller mean, ties counting half)`, and the acceleration
/// `a = Σ dᵢ³ / (6 (Σ dᵢ²)^1.5)`, `dᵢ = valueᵢ - mean` (Efron and Tibshirani, section 14.3; ties as in SciPy; for a
/// mean, the deviations of the jackknife are proportional to `dᵢ`).
///
/// **With three values, these are not 95 % intervals**: both lie within `[min, max]`, and for normal values the percentile
/// interval covers the true mean in 67 % and the BCa interval in 69 % of cases (simulated in the tests). There are only 27
/// resamples, in 10 combinations. See the module documentation, and report [`t_interval`].
///
/// A mean of a resample counts as tied if it differs from the mean by at most `100 ε · max |value|`. SciPy compares without
/// tolerance, so that its `z₀` depends on rounding if there are ties.
///
/// `None` with fewer than two values, without resamples, and if a value is not finite.
pub fn bootstrap_mean(values: &[f64], resamples: usize, seed: u64) -> Option<MeanBootstrap> {
    if values.len() < 2 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let mut means = Vec::new();
    let exact = for_each_resample(values.len(), resamples, seed, |indices| {
        means.push(indices.iter().map(|&index| values[index]).sum::<f64>() / values.len() as f64);
    });
    means.sort_unstable_by(f64::total_cmp);
    let percentile = [quantile(&means, TAIL)?, quantile(&means, 1.0 - TAIL)?];
    Some(MeanBootstrap { mean: mean(values), percentile, bca: bca(values, &means), resamples: means.len(), exact })
}

/// The BCa interval of the mean of `values` from the sorted means of its resamples.
fn bca(values: &[f64], means: &[f64]) -> Option<[f64; 2]> {
    let (mean, n) = (mean(values), means.len() as f64);
    let tolerance = TIE * values.iter().map(|value| value.abs()).fold(0.0, f64::max);
    let below = means.partition_point(|value| *value < mean - tolerance);
    let above = means.len() - means.partition_point(|value| *value <= mean + tolerance);
    let bias = normal_quantile(0.5 + (below as f64 - above as f64) / (2.0 * n));
    let acceleration = unit_vector(values)?.iter().map(|unit| unit.powi(3)).sum::<f64>() / 6.0;
    let end = |z: f64| {
        let shifted = bias + z;
        let probability = normal_cdf(bias + shifted / (1.0 - acceleration * shifted));
        if probability.is_nan() { None } else { quantile(means, probability) }
    };
    Some([end(normal_quantile(TAIL))?, end(normal_quantile(1.0 - TAIL))?])
}

/// 95 % interval of the mean for independent normal values: `mean ± t(0.975, n - 1) · s / √n`, with `s` the standard
/// deviation with `n - 1`. `None` with fewer than two values, and if a value is not finite.
pub fn t_interval(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < 2 || !values.iter().all(|value| value.is_finite()) {
        return None;
    }
    let (mean, n) = (mean(values), values.len() as f64);
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let half = t_quantile(1.0 - TAIL, n - 1.0) * (variance / n).sqrt();
    Some([mean - half, mean + half])
}

/// The quantile of sorted values: `h = probability · (n - 1)`, interpolated between the neighbours of `h` (definition 7 of
/// Hyndman and Fan, 1996; NumPy's and SciPy's `linear`). `None` without values.
fn quantile(sorted: &[f64], probability: f64) -> Option<f64> {
    let position = probability * (sorted.len().checked_sub(1)?) as f64;
    let (low, share) = (position.floor() as usize, position.fract());
    let high = (low + 1).min(sorted.len() - 1);
    Some((1.0 - share) * sorted[low] + share * sorted[high])
}

/// Calls `visit` with the indices of each resample of `n` values: of all `n^n` if `n` is at most [`ENUMERATED`],
/// otherwise of `resamples` random ones. Returns whether these are all.
fn for_each_resample(n: usize, resamples: usize, seed: u64, mut visit: impl FnMut(&[usize])) -> bool {
    let mut indices = vec![0; n];
    let exact = n <= ENUMERATED;
    if exact {
        for number in 0..n.pow(n as u32) {
            let mut rest = number;
            for index in &mut indices {
                (*index, rest) = (rest % n, rest / n);
            }
            visit(&indices);
        }
    } else {
        for number in 0..resamples {
            let mut sequence = draws(seed, number);
            indices.iter_mut().for_each(|index| *index = sequence.below(n as u32) as usize);
            visit(&indices);
        }
    }
    exact
}

/// Calls `visit` with every order of `items`, `n!` in all (Heap, "Permutations by interchanges", 1963).
fn for_each_permutation(items: &mut [f64], visit: &mut impl FnMut(&[f64])) {
    let mut counters = vec![0; items.len()];
    visit(items);
    let mut at = 1;
    while at < items.len() {
        if counters[at] < at {
            items.swap(if at % 2 == 0 { 0 } else { counters[at] }, at);
            visit(items);
            counters[at] += 1;
            at = 1;
        } else {
            counters[at] = 0;
            at += 1;
        }
    }
}

/// Random numbers of the resample or permutation with the given number.
fn draws(seed: u64, number: usize) -> Sequence {
    Stream::new(seed, Purpose::Resample, 0, number as u32).sequence()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        runs: f64,
        resamples: usize,
        correlations: Vec<Pairs>,
        means: Vec<Values>,
    }

    #[derive(Deserialize)]
    struct Pairs {
        name: String,
        x: Vec<f64>,
        y: Vec<f64>,
        pearson: Option<f64>,
        spearman: Option<f64>,
        fisher: Option<[f64; 2]>,
        pearson_bootstrap: Option<Bootstrap>,
        spearman_bootstrap: Option<Bootstrap>,
        pearson_permutation: Option<Permutation>,
        spearman_permutation: Option<Permutation>,
    }

    /// `deviation` and `skipped_deviation` are standard deviations of one run; `None` for all resamples.
    #[derive(Deserialize)]
    struct Bootstrap {
        interval: [f64; 2],
        deviation: Option<[f64; 2]>,
        skipped: f64,
        skipped_deviation: Option<f64>,
    }

    #[derive(Deserialize)]
    struct Permutation {
        p: f64,
        permutations: usize,
        exact: bool,
    }

    #[derive(Deserialize)]
    struct Values {
        name: String,
        values: Vec<f64>,
        mean: f64,
        t: [f64; 2],
        percentile: [f64; 2],
        percentile_deviation: Option<[f64; 2]>,
        bca: Option<[f64; 2]>,
        bca_deviation: Option<[f64; 2]>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/statistics.json")).unwrap()
    }

    /// Difference of two intervals relative to the larger of 1 and their ends.
    fn difference(a: [f64; 2], b: [f64; 2]) -> f64 {
        a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f64::max)
    }

    /// The larger distance of two ends in standard errors of one random run minus the mean of `runs`.
    fn standard_errors(ours: [f64; 2], mean: [f64; 2], deviation: [f64; 2], runs: f64) -> f64 {
        let distance = |at: usize| {
            let error = deviation[at] * (1.0 + 1.0 / runs).sqrt();
            // Intervals can end in a value of the sample in every run.
            if error < 1e-12 { (ours[at] - mean[at]).abs() * 1e12 } else { (ours[at] - mean[at]).abs() / error }
        };
        distance(0).max(distance(1))
    }

    fn normals(draws: &mut Sequence, n: usize) -> Vec<f64> {
        (0..n).map(|_| f64::from(draws.normal())).collect()
    }

    #[test]
    fn correlations_and_fisher_intervals_match_scipy() {
        let (mut worst, mut worst_fisher) = (0.0f64, 0.0f64);
        for case in golden().correlations {
            for (ours, scipy) in
                [(pearson(&case.x, &case.y), case.pearson), (spearman(&case.x, &case.y), case.spearman)]
            {
                assert_eq!(ours.is_some(), scipy.is_some(), "{}", case.name);
                let difference = ours.zip(scipy).map_or(0.0, |(ours, scipy)| (ours - scipy).abs());
                assert!(difference < 1e-14, "{}: {ours:?}, SciPy {scipy:?}", case.name);
                worst = worst.max(difference);
            }
            let ours = fisher_interval(&case.x, &case.y);
            assert_eq!(ours.is_some(), case.fisher.is_some(), "{}", case.name);
            let difference = ours.zip(case.fisher).map_or(0.0, |(ours, scipy)| difference(ours, scipy));
            assert!(difference < 1e-13, "{}: {ours:?}, SciPy {:?}", case.name, case.fisher);
            worst_fisher = worst_fisher.max(difference);
        }
        println!("correlation: {worst:.1e}, Fisher interval: {worst_fisher:.1e}");
    }

    #[test]
    fn bootstraps_of_correlations_match_scipy() {
        let golden = golden();
        let (mut worst, mut worst_error) = (0.0f64, 0.0f64);
        for case in golden.correlations {
            for (kind, scipy) in
                [(Correlation::Pearson, case.pearson_bootstrap), (Correlation::Spearman, case.spearman_bootstrap)]
            {
                let ours = bootstrap_correlation(kind, &case.x, &case.y, golden.resamples, 1);
                let (Some(ours), Some(scipy)) = (ours, &scipy) else {
                    assert_eq!(ours.is_some(), scipy.is_some(), "{} {kind:?}", case.name);
                    continue;
                };
                let n = case.x.len();
                let all = if n <= ENUMERATED { n.pow(n as u32) } else { golden.resamples };
                assert_eq!(ours.resamples + ours.skipped, all);
                let skipped = (ours.skipped as f64 - scipy.skipped).abs();
                if let Some(deviation) = scipy.deviation {
                    assert!(!ours.exact);
                    let errors = standard_errors(ours.interval, scipy.interval, deviation, golden.runs);
                    assert!(errors < 4.0, "{} {kind:?}: {ours:?}, SciPy {:?}", case.name, scipy.interval);
                    assert!(skipped <= 4.0 * scipy.skipped_deviation.unwrap() + 1.0, "{}: {ours:?}", case.name);
                    worst_error = worst_error.max(errors);
                } else {
                    let difference = difference(ours.interval, scipy.interval);
                    assert!(ours.exact && skipped == 0.0, "{} {kind:?}: {ours:?}", case.name);
                    assert!(difference < 1e-14, "{} {kind:?}: {ours:?}, SciPy {:?}", case.name, scipy.interval);
                    worst = worst.max(difference);
                }
            }
        }
        println!("bootstrap of a correlation: exact {worst:.1e}, random {worst_error:.1} standard errors");
    }

    #[test]
    fn permutation_tests_match_scipy() {
        let golden = golden();
        let (mut worst, mut worst_error) = (0.0f64, 0.0f64);
        for case in golden.correlations {
            for (kind, scipy) in
                [(Correlation::Pearson, case.pearson_permutation), (Correlation::Spearman, case.spearman_permutation)]
            {
                let ours = permutation_test(kind, &case.x, &case.y, golden.resamples, 1);
                let (Some(ours), Some(scipy)) = (ours, &scipy) else {
                    assert_eq!(ours.is_some(), scipy.is_some(), "{} {kind:?}", case.name);
                    continue;
                };
                assert_eq!((Some(ours.statistic), ours.exact), (kind.of(&case.x, &case.y), scipy.exact));
                let difference = (ours.p - scipy.p).abs();
                if scipy.exact {
                    assert_eq!(ours.permutations, scipy.permutations);
                    assert!(difference < 1e-15, "{} {kind:?}: {ours:?}, SciPy {}", case.name, scipy.p);
                    worst = worst.max(difference);
                } else {
                    // Twice a binomial share; one more permutation in each for p-values near 0.
                    let half = scipy.p / 2.0;
                    let counts = 1.0 / golden.resamples as f64 + 1.0 / scipy.permutations as f64;
                    let error = 2.0 * (half * (1.0 - half) * counts).sqrt() + counts;
                    assert!(difference < 4.0 * error, "{} {kind:?}: {ours:?}, SciPy {}", case.name, scipy.p);
                    worst_error = worst_error.max(difference / error);
                }
            }
        }
        println!("permutation test: exact {worst:.1e}, random {worst_error:.1} standard errors");
    }

    #[test]
    fn intervals_of_means_match_scipy() {
        let golden = golden();
        let (mut worst, mut worst_bca, mut worst_t, mut worst_error) = (0.0f64, 0.0f64, 0.0f64, 0.0f64);
        for case in golden.means {
            let ours = bootstrap_mean(&case.values, golden.resamples, 1).unwrap();
            assert!((ours.mean - case.mean).abs() < 1e-13, "{}", case.name);
            let t = difference(t_interval(&case.values).unwrap(), case.t);
            assert!(t < 1e-13, "{}: t interval", case.name);
            worst_t = worst_t.max(t);
            assert_eq!(ours.bca.is_some(), case.bca.is_some(), "{}", case.name);
            let bca = ours.bca.zip(case.bca);
            if let (Some(percentile), Some(deviation)) = (case.percentile_deviation, case.bca_deviation) {
                let errors = standard_errors(ours.percentile, case.percentile, percentile, golden.runs);
                let of_bca = bca.map_or(0.0, |(ours, scipy)| standard_errors(ours, scipy, deviation, golden.runs));
                assert!(errors < 4.0 && of_bca < 4.0 && !ours.exact, "{}: {errors} and {of_bca}", case.name);
                worst_error = worst_error.max(errors).max(of_bca);
            } else {
                let n = case.values.len();
                assert!(ours.exact && ours.resamples == n.pow(n as u32));
                let percentile = difference(ours.percentile, case.percentile);
                let bca = bca.map_or(0.0, |(ours, scipy)| difference(ours, scipy));
                assert!(percentile < 1e-14, "{}: {ours:?}, SciPy {:?}", case.name, case.percentile);
                assert!(bca < 1e-13, "{}: {ours:?}, SciPy {:?}", case.name, case.bca);
                (worst, worst_bca) = (worst.max(percentile), worst_bca.max(bca));
            }
        }
        println!("mean: percentile {worst:.1e}, BCa {worst_bca:.1e}, t {worst_t:.1e}, random {worst_error:.1} errors");
    }

    #[test]
    fn undefined_inputs_have_no_result() {
        let (line, nan) = ([1.0, 2.0, 3.0, 4.0], [1.0, f64::NAN, 3.0, 4.0]);
        for other in [&[][..], &[1.0], &[1.0, 2.0], &[0.1; 4], &nan] {
            for kind in [Correlation::Pearson, Correlation::Spearman] {
                assert_eq!(kind.of(&line, other), None);
                assert_eq!(kind.of(other, &line), None);
                assert_eq!(bootstrap_correlation(kind, &line, other, 9, 0), None);
                assert_eq!(permutation_test(kind, &line, other, 9, 0), None);
            }
            assert_eq!(fisher_interval(&line, other), None);
        }
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            assert_eq!(kind.of(&[], &[]), None);
            assert_eq!(kind.of(&[1.0], &[1.0]), None);
        }
        let infinite = [1.0, 2.0, f64::INFINITY, 3.0];
        assert_eq!(pearson(&line, &infinite), None);
        assert!((spearman(&line, &infinite).unwrap() - 0.8).abs() < 1e-15);
        assert_eq!(fisher_interval(&line[..3], &[1.0, 3.0, 2.0]), None);
        for values in [&[][..], &[1.0], &nan, &infinite] {
            assert_eq!(t_interval(values), None);
            assert_eq!(bootstrap_mean(values, 99, 0), None);
        }
        assert_eq!(bootstrap_mean(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0, 0), None, "no resamples");
        let constant = bootstrap_mean(&[0.1; 7], 99, 0).unwrap();
        assert!(constant.bca.is_none() && difference(constant.percentile, [0.1; 2]) < 1e-15);
    }

    /// With `r = 0` and ties, half of the other permutations are on either side: p is 1.
    #[test]
    fn ties_at_zero_count_on_both_sides() {
        let (x, y) = ([0.1, 0.2, 0.3, 0.4, 0.5], [0.3, 0.1, 0.2, 0.1, 0.3]);
        for kind in [Correlation::Pearson, Correlation::Spearman] {
            let test = permutation_test(kind, &x, &y, 0, 0).unwrap();
            assert!(test.statistic.abs() < 1e-15 && test.p == 1.0, "{test:?}");
        }
    }

    /// Of ten pairs, one order in 3,628,800 is as extreme as the observed one: only the observed one counts.
    #[test]
    fn p_is_never_zero() {
        let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        for y in [x, x.map(|value: f64| -value)] {
            let test = permutation_test(Correlation::Spearman, &x, &y, 199, 0).unwrap();
            assert!(test.p == 2.0 / 200.0 && test.permutations == 199 && !test.exact, "{test:?}");
        }
    }

    /// Exact p-values of `n` pairs without ties are `2k / n!` with equal probability; random ones `2k / (permutations + 1)`.
    #[test]
    fn permutation_p_is_uniform_under_independence() {
        let mut draws = draws(3, 0);
        for (n, permutations, runs) in [(5, 0, 4000), (12, 199, 4000)] {
            let p: Vec<f64> = (0..runs)
                .map(|seed| {
                    let (x, y) = (normals(&mut draws, n), normals(&mut draws, n));
                    permutation_test(Correlation::Pearson, &x, &y, permutations, seed).unwrap().p
                })
                .collect();
            for level in [0.05, 0.1, 0.3, 0.5, 0.8] {
                let share = p.iter().filter(|p| **p <= level + 1e-9).count() as f64 / runs as f64;
                let error = (level * (1.0 - level) / runs as f64).sqrt();
                assert!((share - level).abs() < 4.0 * error, "n = {n}: {share} at most {level}");
            }
        }
    }

    /// Share of samples of standard normal values whose interval contains 0.
    fn coverage(n: usize, runs: usize, interval: impl Fn(&[f64]) -> [f64; 2]) -> f64 {
        let mut draws = draws(4, n);
        let covered = |_: &usize| {
            let [low, high] = interval(&normals(&mut draws, n));
            low <= 0.0 && 0.0 <= high
        };
        (0..runs).filter(covered).count() as f64 / runs as f64
    }

    #[test]
    fn t_intervals_cover_and_bootstrap_intervals_of_three_values_do_not() {
        let runs = 20_000;
        for n in [2, 3, 5, 30] {
            let share = coverage(n, runs, |values| t_interval(values).unwrap());
            assert!((share - 0.95).abs() < 4.0 * (0.95 * 0.05 / runs as f64).sqrt(), "n = {n}: {share}");
        }
        let bootstrap = |values: &[f64]| bootstrap_mean(values, 0, 0).unwrap();
        let percentile = coverage(3, runs, |values| bootstrap(values).percentile);
        let bca = coverage(3, runs, |values| bootstrap(values).bca.unwrap());
        println!("coverage with n = 3: percentile {percentile:.3}, BCa {bca:.3}");
        let limit = 0.75 + 4.0 * (0.75 * 0.25 / runs as f64).sqrt();
        assert!(percentile < limit && bca < limit, "{percentile} and {bca}");
        assert!((percentile - 0.67).abs() < 0.02 && (bca - 0.69).abs() < 0.02, "{percentile} and {bca}");
        let range = |values: &[f64]| values.iter().fold([0.0f64; 2], |[low, high], v| [low.min(*v), high.max(*v)]);
        for seed in 0..100 {
            let values = normals(&mut draws(5, seed), 3);
            let ([low, high], result) = (range(&values), bootstrap(&values));
            for interval in [result.percentile, result.bca.unwrap()] {
                assert!(interval[0] >= low && interval[1] <= high && interval[0] < interval[1]);
            }
        }
    }

    /// For 150 normal values both bootstrap intervals are close to `mean ± 1.96 s / √n`, `s` with `n`.
    #[test]
    fn bootstrap_of_many_values_is_normal() {
        let values = normals(&mut draws(6, 0), 150);
        let result = bootstrap_mean(&values, 20_000, 2).unwrap();
        let deviation = (values.iter().map(|v| (v - result.mean).powi(2)).sum::<f64>() / 150.0).sqrt();
        let width = 2.0 * 1.96 * deviation / 150f64.sqrt();
        for [low, high] in [result.percentile, result.bca.unwrap()] {
            assert!(((high - low) / width - 1.0).abs() < 0.03, "{} for {width}", high - low);
        }
        assert_eq!(bootstrap_mean(&values, 20_000, 2), Some(result), "same seed");
        assert_ne!(bootstrap_mean(&values, 20_000, 3), Some(result), "other seed");
    }

    #[test]
    fn every_permutation_and_every_resample_is_visited_once() {
        for n in 1..=6usize {
            let mut seen = std::collections::HashSet::new();
            let mut items: Vec<f64> = (0..n).map(|i| i as f64).collect();
            let mut calls = 0;
            for_each_permutation(&mut items, &mut |items| {
                calls += 1;
                seen.insert(items.iter().map(|v| *v as u8).collect::<Vec<_>>());
            });
            assert_eq!((calls, seen.len()), ((1..=n).product(), (1..=n).product()));
            let mut seen = std::collections::HashSet::new();
            assert!(for_each_resample(n, 0, 0, |indices| assert!(seen.insert(indices.to_vec()))));
            assert_eq!(seen.len(), n.pow(n as u32));
        }
    }
}
