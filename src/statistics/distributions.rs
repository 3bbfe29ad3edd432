//! The normal distribution and Student's t distribution: what intervals and tests need of them, to 12 digits.
//!
//! | function | reference |
//! |---|---|
//! | [`normal_cdf`], [`normal_quantile`] | `scipy.special.ndtr`, `ndtri` |
//! | [`t_quantile`] | `scipy.stats.t.ppf` |
//!
//! ```
//! use fairtat::statistics::distributions::{normal_quantile, t_quantile};
//! assert!((normal_quantile(0.975) - 1.959_963_984_540_054).abs() < 1e-12);
//! assert!((t_quantile(0.975, 2.0) - 4.302_652_729_749_464).abs() < 1e-12);
//! ```

use std::f64::consts::{PI, TAU};

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

/// Quantile of Student's t distribution with `freedom` degrees of freedom. Error below `1e-12 · max(1, |t|)` where both
/// tails are at least 1e-12. Infinite for 0 and 1. NaN for a probability outside `[0, 1]` and unless `freedom` is positive
/// and finite.
///
/// The inverse of the upper tail `½ I(ν / (ν + t²); ν/2, ½)` with the regularised incomplete beta function `I`
/// (Abramowitz and Stegun, 26.7.1). From 20,000 degrees of freedom, where the fraction for `I` loses digits, three terms
/// of the expansion around the normal quantile in `1 / ν` (26.7.5).
pub fn t_quantile(probability: f64, freedom: f64) -> f64 {
    if !(freedom > 0.0 && freedom.is_finite()) {
        return f64::NAN;
    }
    if freedom < 2e4 {
        return symmetric_quantile(probability, |t| t_tail(t, freedom));
    }
    let z = normal_quantile(probability);
    if z.is_infinite() {
        return z;
    }
    let (s, inverse) = (z * z, 1.0 / freedom);
    let third = (((3.0 * s + 19.0) * s + 17.0) * s - 15.0) / 384.0;
    let second = ((5.0 * s + 16.0) * s + 3.0) / 96.0;
    z + z * inverse * ((s + 1.0) / 4.0 + inverse * (second + inverse * third))
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
    for m in 1..10_000 {
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Golden {
        normal_cdf: Vec<[f64; 2]>,
        normal_quantile: Vec<[f64; 2]>,
        /// Probability, degrees of freedom, SciPy's quantile, the quantile from 40 digits.
        t_quantile: Vec<[f64; 4]>,
    }

    fn golden() -> Golden {
        serde_json::from_str(include_str!("../../tests/golden/statistics.json")).unwrap()
    }

    #[test]
    fn normal_distribution_matches_scipy() {
        let golden = golden();
        let (mut worst_cdf, mut worst_quantile) = (0.0f64, 0.0f64);
        for [x, scipy] in golden.normal_cdf {
            let difference = (normal_cdf(x) / scipy - 1.0).abs();
            assert!(difference < 1e-12, "Φ({x}) = {:e}, SciPy {scipy:e}", normal_cdf(x));
            worst_cdf = worst_cdf.max(difference);
        }
        for [p, scipy] in golden.normal_quantile {
            let difference = (normal_quantile(p) - scipy).abs() / scipy.abs().max(1.0);
            assert!(difference < 1e-12, "Φ⁻¹({p:e}) = {}, SciPy {scipy}", normal_quantile(p));
            worst_quantile = worst_quantile.max(difference);
        }
        println!("Φ: relative {worst_cdf:.1e}, Φ⁻¹: {worst_quantile:.1e}");
    }

    #[test]
    fn t_quantiles_match_forty_digits_and_scipy() {
        let (mut worst_exact, mut worst_scipy) = (0.0f64, 0.0f64);
        for [p, freedom, scipy, exact] in golden().t_quantile {
            let t = t_quantile(p, freedom);
            let difference = |other: f64| (t - other).abs() / other.abs().max(1.0);
            assert!(difference(exact) < 1e-12, "t({p:e}, {freedom}) = {t}, not {exact}");
            assert!(difference(scipy) < 1e-12, "t({p:e}, {freedom}) = {t}, SciPy {scipy}");
            worst_exact = worst_exact.max(difference(exact));
            worst_scipy = worst_scipy.max(difference(scipy));
        }
        println!("t quantile: {worst_exact:.1e} from 40 digits, {worst_scipy:.1e} from SciPy");
    }

    /// One degree of freedom is the Cauchy distribution, two have a closed form.
    #[test]
    fn t_quantiles_have_their_closed_forms() {
        for p in [1e-8, 0.01, 0.2, 0.49, 0.5, 0.6, 0.8, 0.975, 0.9999] {
            let cauchy = (p - 0.5f64).signum() / (PI * p.min(1.0 - p)).tan();
            let two = (2.0 * p - 1.0) / (2.0 * p * (1.0 - p)).sqrt();
            assert!((t_quantile(p, 1.0) - cauchy).abs() < 1e-12 * cauchy.abs().max(1.0), "{p}: {cauchy}");
            assert!((t_quantile(p, 2.0) - two).abs() < 1e-12 * two.abs().max(1.0));
            assert!((t_quantile(p, 1e12) - normal_quantile(p)).abs() < 1e-9);
        }
    }

    #[test]
    fn ends_of_the_range() {
        for quantile in [normal_quantile, |p| t_quantile(p, 3.0)] {
            assert_eq!((quantile(0.0), quantile(1.0), quantile(0.5)), (f64::NEG_INFINITY, f64::INFINITY, 0.0));
            assert!([-0.1, 1.1, f64::NAN].into_iter().all(|p| quantile(p).is_nan()));
            assert!((quantile(0.3) + quantile(0.7)).abs() < 1e-15);
        }
        assert!([0.0, -1.0, f64::NAN, f64::INFINITY].into_iter().all(|freedom| t_quantile(0.9, freedom).is_nan()));
        assert_eq!((normal_cdf(f64::NEG_INFINITY), normal_cdf(f64::INFINITY), normal_cdf(0.0)), (0.0, 1.0, 0.5));
        assert!(normal_cdf(f64::NAN).is_nan());
    }
}
