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
mod tests;
