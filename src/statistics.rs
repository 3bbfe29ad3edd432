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
//! | [`normal_cdf`], [`normal_quantile`], [`t_quantile`] | distributions | `scipy.stats.norm`, `scipy.stats.t` |
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

use std::f64::consts::{PI, TAU};

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
            Draws::new(seed, index).shuffle(&mut permuted);
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
/// `a = Σ dᵢ³ / (6 (Σ dᵢ²)^1.5)`, `dᵢ = valueᵢ - mean` (Efron and Tibshirani, equations 14.9, 14.14 and 14.15; for a mean
/// the jackknife deviations are proportional to `dᵢ`).
///
/// **Three values give an interval within `[min, max]` that covers the true mean in less than 75 % of cases**, not 95 %;
/// see the module documentation. There are only 27 resamples, in 10 distinct combinations.
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
    let power_sum = |power| values.iter().map(|value| (value - mean).powi(power)).sum::<f64>();
    let acceleration = power_sum(3) / (6.0 * power_sum(2).powf(1.5));
    let end = |z: f64| {
        let shifted = bias + z;
        let probability = normal_cdf(bias + shifted / (1.0 - acceleration * shifted));
        if probability.is_nan() { None } else { quantile(means, probability) }
    };
    Some([end(normal_quantile(TAIL))?, end(normal_quantile(1.0 - TAIL))?])
}

/// 95 % interval of the mean for independent normal values: `mean ± t(0.975, n - 1) · s / √n`, with `s` the standard
/// deviation with `n - 1`. `None` with fewer than two values.
pub fn t_interval(values: &[f64]) -> Option<[f64; 2]> {
    if values.len() < 2 {
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

/// Standard normal distribution function Φ. Relative error below 1e-12, also in the tails, up to underflow at -38.
///
/// Near 0 the series `½ + φ(x) (x + x³/3 + x⁵/15 + …)` (Marsaglia, "Evaluating the normal distribution", 2004), otherwise
/// the continued fraction `φ(x) / (x + 1/(x + 2/(x + 3/…)))` of the tail (Abramowitz and Stegun, 26.2.14).
pub fn normal_cdf(x: f64) -> f64 {
    if x < 0.0 { normal_tail(-x) } else { 1.0 - normal_tail(x) }
}

/// `1 - Φ(x)` for `x ≥ 0`; NaN for NaN.
fn normal_tail(x: f64) -> f64 {
    if x < 2.0 {
        let (mut term, mut sum, mut odd) = (x, x, 1.0);
        while term > f64::EPSILON * 0.1 * sum {
            odd += 2.0;
            term *= x * x / odd;
            sum += term;
        }
        return 0.5 - normal_density(x) * sum;
    }
    normal_density(x) / (1..=120).rev().fold(x, |below, k| x + f64::from(k) / below)
}

fn normal_density(x: f64) -> f64 {
    (-0.5 * x * x).exp() / TAU.sqrt()
}

/// Standard normal quantile Φ⁻¹. Error below `1e-12 · max(1, |z|)`. Infinite for 0 and 1, NaN outside `[0, 1]`.
pub fn normal_quantile(probability: f64) -> f64 {
    symmetric_quantile(probability, |x| (normal_tail(x), normal_density(x)))
}

/// Quantile of Student's t distribution with `freedom` degrees of freedom. Error below `1e-12 · max(1, |t|)`.
/// Infinite for 0 and 1. NaN for a probability outside `[0, 1]` and unless `freedom` is positive and finite.
///
/// The inverse of the upper tail `½ I(ν / (ν + t²); ν/2, ½)` with the regularised incomplete beta function `I`
/// (Abramowitz and Stegun, 26.7.1).
pub fn t_quantile(probability: f64, freedom: f64) -> f64 {
    if !(freedom > 0.0 && freedom.is_finite()) {
        return f64::NAN;
    }
    symmetric_quantile(probability, |t| t_tail(t, freedom))
}

/// Upper tail and density at `t > 0` of Student's t distribution with `freedom` degrees of freedom.
fn t_tail(t: f64, freedom: f64) -> (f64, f64) {
    let (a, square) = (freedom / 2.0, t * (t / freedom));
    // Γ(a + ½) / Γ(a) by its asymptotic series at a + 20 and the recurrence of Γ: the difference of two logarithms of Γ
    // loses digits where `freedom` is large.
    let far = a + 20.0;
    let s = 1.0 / (far * far);
    let series = -(0.125 - s * (1.0 / 192.0 - s * (1.0 / 640.0 - s * (17.0 / 14_336.0 - s * 31.0 / 18_432.0)))) / far;
    let ratio = (0..20).map(|k| a + f64::from(k)).fold(far.sqrt() * series.exp(), |ratio, a| ratio * (a / (a + 0.5)));
    // x^a (1 - x)^½ / B(a, ½) with x = ν / (ν + t²).
    let (x, complement) = (1.0 / (1.0 + square), square / (1.0 + square));
    let front = (-a * square.ln_1p()).exp() * complement.sqrt() * ratio / PI.sqrt();
    let tail = if x < (a + 1.0) / (a + 2.5) {
        0.5 * front / a * beta_fraction(a, 0.5, x)
    } else {
        0.5 - front * beta_fraction(0.5, a, complement)
    };
    (tail, front / t)
}

/// The continued fraction of the incomplete beta function, `a B(a, b) I(x; a, b) / (x^a (1 - x)^b)`, by the modified Lentz
/// algorithm (Press et al., "Numerical Recipes", section 6.4). For `x < (a + 1) / (a + b + 2)`.
fn beta_fraction(a: f64, b: f64, x: f64) -> f64 {
    let nonzero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / nonzero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..100_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let before = fraction;
        for numerator in [even, odd] {
            d = 1.0 / nonzero(1.0 + numerator * d);
            c = nonzero(1.0 + numerator / c);
            fraction *= c * d;
        }
        if (fraction - before).abs() <= f64::EPSILON * fraction.abs() {
            break;
        }
    }
    fraction
}

/// Quantile of a distribution that is symmetric around 0, from its upper tail and density at positive values: Newton's
/// method for `ln tail` as a function of `ln t`, with bisection where a step leaves the bracket.
fn symmetric_quantile(probability: f64, tail_and_density: impl Fn(f64) -> (f64, f64)) -> f64 {
    if !(0.0..=1.0).contains(&probability) {
        return f64::NAN;
    }
    let (sign, tail) = if probability < 0.5 { (-1.0, probability) } else { (1.0, 1.0 - probability) };
    if tail == 0.0 || tail == 0.5 {
        return if tail == 0.0 { sign * f64::INFINITY } else { 0.0 };
    }
    let (mut low, mut high, mut t) = (1e-20f64, 1e300f64, 1.0);
    for _ in 0..200 {
        let (value, density) = tail_and_density(t);
        let excess = (value / tail).ln();
        *(if excess > 0.0 { &mut low } else { &mut high }) = t;
        let step = excess * value / (t * density);
        let newton = t * step.exp();
        t = if newton >= low && newton <= high { newton } else { low.sqrt() * high.sqrt() };
        if step.abs() < f64::EPSILON {
            break;
        }
    }
    sign * t
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
            let mut draws = Draws::new(seed, number);
            indices.iter_mut().for_each(|index| *index = draws.below(n as u32) as usize);
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

/// Random numbers of one resample or permutation: SplitMix64 (Steele, Lea, Flood, 2014), keyed by seed and number.
/// Same methods as `rng::Sequence`, which can replace it.
struct Draws {
    state: u64,
}

impl Draws {
    fn new(seed: u64, number: usize) -> Self {
        let state = Self { state: seed }.next().wrapping_add(number as u64);
        Self { state: Self { state }.next() }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Uniform in `0..bound`, without bias (Lemire's rejection). `bound` is positive.
    fn below(&mut self, bound: u32) -> u32 {
        loop {
            let product = (self.next() >> 32) * u64::from(bound);
            if product as u32 >= bound.wrapping_neg() % bound {
                return (product >> 32) as u32;
            }
        }
    }

    /// Puts `items` in random order (Fisher and Yates).
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u32 + 1) as usize);
        }
    }
}
