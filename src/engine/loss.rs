//! Losses of one image and their gradients with respect to its logits, in plain Rust.
//!
//! Engines on the CPU call these functions directly, since their cost is negligible next to that of the network. They
//! are also the reference for engines that compute the same on a GPU. `z` are logits, `p = softmax(z)`, `y` is a class.

mod search;
mod worst_case;

pub use search::{GradientScale, objective, objective_gradient};
pub use worst_case::{with_worst_case, worst_case};

use super::{EngineError, LossSpec, Term, View};

/// `log softmax(z)`, shifted by the largest logit so that nothing overflows.
pub fn log_softmax(z: &[f32]) -> Vec<f32> {
    let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = z.iter().map(|v| (v - max).exp()).sum::<f32>().ln() + max;
    z.iter().map(|v| v - log_sum).collect()
}

/// The class with the largest logit; the first if several are equal.
pub fn argmax(z: &[f32]) -> u32 {
    let mut best = 0;
    for (k, value) in z.iter().enumerate() {
        if *value > z[best] {
            best = k;
        }
    }
    best as u32
}

/// Cross-entropy `-log p_y`; adds its gradient `weight · (p - e_y)` to `gradient`. The label's entry is computed as
/// minus the sum of the others: `p_y - 1` loses all digits if `p_y` is near one.
pub fn cross_entropy(z: &[f32], y: u32, weight: f32, gradient: &mut [f32]) -> f32 {
    let y = y as usize;
    let log_p = log_softmax(z);
    let mut others = 0.0;
    for (j, (g, log_p)) in gradient.iter_mut().zip(&log_p).enumerate() {
        if j != y {
            let p = log_p.exp();
            *g += weight * p;
            others += f64::from(p);
        }
    }
    gradient[y] -= (f64::from(weight) * others) as f32;
    -log_p[y]
}

/// `KL(p(a) ‖ p(b)) = Σ p_a (log p_a - log p_b)`; adds `weight ·` its gradients to those of `a` and `b`:
/// `p_a ∘ (log p_a - log p_b - KL)` and `p_b - p_a`.
pub fn kl(a: &[f32], b: &[f32], weight: f32, gradient_a: Option<&mut [f32]>, gradient_b: Option<&mut [f32]>) -> f32 {
    let (log_a, log_b) = (log_softmax(a), log_softmax(b));
    let ratio = |j: usize| log_a[j] - log_b[j];
    // Ratios are taken relative to that of the likeliest class: if `p_a` is almost certain, KL equals that ratio up to
    // rounding, and the difference of the two would be rounding error only.
    let reference = ratio(argmax(a) as usize);
    let beyond: f32 = (0..a.len()).map(|j| log_a[j].exp() * (ratio(j) - reference)).sum();
    if let Some(gradient) = gradient_a {
        for (j, g) in gradient.iter_mut().enumerate() {
            *g += weight * log_a[j].exp() * (ratio(j) - reference - beyond);
        }
    }
    if let Some(gradient) = gradient_b {
        for ((g, la), lb) in gradient.iter_mut().zip(&log_a).zip(&log_b) {
            *g += weight * (lb.exp() - la.exp());
        }
    }
    reference + beyond
}

/// `KL(p ‖ uniform) = log K + Σ p log p`; adds `weight · p ∘ (log p - Σ p log p)` to `gradient`.
pub fn kl_to_uniform(z: &[f32], weight: f32, gradient: &mut [f32]) -> f32 {
    let log_p = log_softmax(z);
    // In `f64`, because near the uniform distribution the sum over many classes almost cancels `log K`.
    let negative_entropy: f64 = log_p.iter().map(|lp| f64::from(lp.exp()) * f64::from(*lp)).sum();
    for (g, lp) in gradient.iter_mut().zip(&log_p) {
        *g += weight * lp.exp() * (f64::from(*lp) - negative_entropy) as f32;
    }
    ((z.len() as f64).ln() + negative_entropy) as f32
}

/// Difference-of-logits ratio `-(z_y - max_{i≠y} z_i) / (z_(1) - z_(3) + 1e-12)`, where `z_(k)` is the k-th largest
/// logit (Croce and Hein 2020, eq. 6); adds `weight ·` its gradient to `gradient`. Needs at least three logits.
pub fn dlr(z: &[f32], y: u32, weight: f32, gradient: &mut [f32]) -> f32 {
    let (value, found) = search::Scaled::dlr(&search::wide(z), y);
    for (g, value) in gradient.iter_mut().zip(&found.values) {
        *g += (f64::from(weight) * found.factor * value) as f32;
    }
    value as f32
}

/// The margin `max_{i≠y} z_i - z_y`; adds `weight ·` its gradient `e_i - e_y` to `gradient`. If several logits are
/// largest, `i` is the first of them.
pub fn margin(z: &[f32], y: u32, weight: f32, gradient: &mut [f32]) -> f32 {
    let y = y as usize;
    let others = (0..z.len()).filter(|j| *j != y);
    let Some(other) = others.reduce(|best, j| if z[j] > z[best] { j } else { best }) else { return 0.0 };
    gradient[other] += weight;
    gradient[y] -= weight;
    z[other] - z[y]
}

/// Confusion counts of a batch: how often each true class (row) was predicted as each class (column), `K × K`.
///
/// # Panics
/// Panics if a class is not below `classes`.
pub fn confusion(labels: &[u32], predictions: &[u32], classes: usize) -> Vec<u32> {
    let mut counts = vec![0; classes * classes];
    for (label, prediction) in labels.iter().zip(predictions) {
        counts[*label as usize * classes..][..classes][*prediction as usize] += 1;
    }
    counts
}

/// The outer loss and its gradient with respect to the logits of each view, in the order of `views`.
///
/// `logits` holds `B × K` values for each of `views`.
pub fn outer(
    loss: &LossSpec,
    views: &[View],
    logits: &[Vec<f32>],
    labels: &[u32],
    classes: usize,
) -> (f64, Vec<Vec<f32>>) {
    let mut gradients: Vec<Vec<f32>> = logits.iter().map(|z| vec![0.0; z.len()]).collect();
    let at = |view: View| views.iter().position(|v| *v == view).unwrap_or(0);
    let mut total = 0.0;
    for term in &loss.terms {
        for (i, (&label, weight)) in labels.iter().zip(term.image_weights(labels)).enumerate() {
            let row = i * classes..(i + 1) * classes;
            let mut on = |view: View, of: &dyn Fn(&[f32], &mut [f32]) -> f32| {
                let v = at(view);
                of(&logits[v][row.clone()], &mut gradients[v][row.clone()])
            };
            let value = match term.term {
                Term::CrossEntropy(view) => on(view, &|z, gradient| cross_entropy(z, label, weight, gradient)),
                Term::KlToUniform(view) => on(view, &|z, gradient| kl_to_uniform(z, weight, gradient)),
                Term::Margin(view) => on(view, &|z, gradient| margin(z, label, weight, gradient)),
                Term::Kl { from, to } => {
                    let (a, b) = (at(from), at(to));
                    let (za, zb) = (&logits[a][row.clone()], &logits[b][row.clone()]);
                    let value = kl(za, zb, weight, Some(&mut gradients[a][row.clone()]), None);
                    kl(za, zb, weight, None, Some(&mut gradients[b][row]));
                    value
                }
            };
            total += f64::from(weight) * f64::from(value);
        }
    }
    (total, gradients)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{LossTerm, Objective, Reduction, Weights};
    use crate::rng::{Purpose, Stream};

    pub(super) fn random(n: usize, sample: u32) -> Vec<f32> {
        let stream = Stream::new(11, Purpose::Test, 0, sample);
        (0..n as u32).map(|i| 2.0 * stream.normal(i)).collect()
    }

    /// Compares `gradient` with central differences of `value`, which must have no kink at `z`.
    fn check(z: &[f32], gradient: &[f32], value: impl Fn(&[f32]) -> f32) {
        for k in 0..z.len() {
            let at = |h: f32| {
                let mut moved = z.to_vec();
                moved[k] += h;
                f64::from(value(&moved))
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!((numeric - f64::from(gradient[k])).abs() < 2e-3, "{k}: {numeric} {}", gradient[k]);
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        for sample in 0..20 {
            let (z, other, y) = (random(5, sample), random(5, 100 + sample), sample % 5);
            let mut g = vec![0.0; 5];
            cross_entropy(&z, y, 1.0, &mut g);
            check(&z, &g, |z| cross_entropy(z, y, 0.0, &mut [0.0; 5]));
            g.fill(0.0);
            kl_to_uniform(&z, 1.0, &mut g);
            check(&z, &g, |z| kl_to_uniform(z, 0.0, &mut [0.0; 5]));
            let mut sorted = z.clone();
            sorted.sort_by(f32::total_cmp);
            if sorted.windows(2).all(|w| w[1] - w[0] > 0.1) {
                g.fill(0.0);
                dlr(&z, y, 1.0, &mut g);
                check(&z, &g, |z| dlr(z, y, 0.0, &mut [0.0; 5]));
            }
            let (mut ga, mut gb) = (vec![0.0; 5], vec![0.0; 5]);
            kl(&z, &other, 1.0, Some(&mut ga), Some(&mut gb));
            check(&z, &ga, |z| kl(z, &other, 0.0, None, None));
            check(&other, &gb, |b| kl(&z, b, 0.0, None, None));
        }
    }

    #[test]
    fn known_values() {
        let mut g = [0.0; 2];
        assert!((cross_entropy(&[0.0, 0.0], 1, 1.0, &mut g) - 2f32.ln()).abs() < 1e-6);
        assert_eq!(g, [0.5, -0.5]);
        assert!(kl_to_uniform(&[3.0, 3.0, 3.0], 1.0, &mut [0.0; 3]).abs() < 1e-6);
        assert_eq!(kl(&[1.0, 2.0], &[1.0, 2.0], 1.0, None, None), 0.0);
        assert_eq!(dlr(&[3.0, 1.0, 0.0], 0, 1.0, &mut [0.0; 3]), -2.0 / 3.0);
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(confusion(&[0, 1, 1, 2, 1], &[2, 1, 0, 2, 1], 3), [0, 0, 1, 1, 2, 0, 0, 0, 1]);
    }

    /// `Σ p log p` is near `-log 1000` while its terms are near 0.007.
    #[test]
    fn kl_to_uniform_of_many_classes_is_that_in_f64() {
        for (sample, scale) in [(0, 1.0), (1, 0.1), (2, 0.01), (3, 0.0)] {
            let z: Vec<f32> = random(1000, sample).iter().map(|v| scale * v).collect();
            let exact: Vec<f64> = z.iter().map(|v| f64::from(*v)).collect();
            let log_sum = exact.iter().map(|v| v.exp()).sum::<f64>().ln();
            let entropy: f64 = exact.iter().map(|v| (v - log_sum).exp() * (log_sum - v)).sum();
            let expected = 1000f64.ln() - entropy;
            let mut gradient = vec![0.0; 1000];
            let found = f64::from(kl_to_uniform(&z, 1.0, &mut gradient));
            let error = |(g, v): (&f32, &f64)| (f64::from(*g) - (v - log_sum).exp() * (v - log_sum + entropy)).abs();
            let largest = gradient.iter().zip(&exact).map(error).fold(0.0, f64::max);
            assert!((found - expected).abs() < 1e-5 && largest < 1e-6, "{found} {expected} {largest}");
        }
    }

    #[test]
    fn huge_logits_stay_finite() {
        let mut g = [0.0; 3];
        let value = cross_entropy(&[1e30, -1e30, 0.0], 0, 1.0, &mut g);
        assert!(value == 0.0 && g.iter().all(|v| v.is_finite()), "{value} {g:?}");
    }

    #[test]
    fn targeted_is_minus_the_cross_entropy_of_the_target() {
        let z = random(6, 1);
        let (up, gradient_up) = objective(&Objective::CrossEntropy, &z, &[2, 0], 3, None).unwrap();
        let (down, gradient_down) = objective(&Objective::Targeted(vec![2, 0]), &z, &[1, 1], 3, None).unwrap();
        assert!(up.iter().zip(&down).all(|(a, b)| a == &-b));
        assert!(gradient_up.iter().zip(&gradient_down).all(|(a, b)| a == &-b));
        assert!(objective(&Objective::KlToClean, &z, &[0, 0], 3, None).is_err());
    }

    #[test]
    fn outer_loss_adds_weighted_terms() {
        let (za, zb) = (random(6, 1), random(6, 2));
        let loss = LossSpec::of(vec![
            LossTerm::mean(0.25, Term::CrossEntropy(View::Clean)),
            LossTerm {
                term: Term::Kl { from: View::Clean, to: View::Adversarial },
                factor: 1.0,
                weights: Weights::PerImage(vec![2.0, 0.0]),
                reduction: Reduction::Sum,
            },
        ]);
        let views = loss.views();
        assert_eq!(views, [View::Clean, View::Adversarial]);
        let (value, gradients) = outer(&loss, &views, &[za.clone(), zb.clone()], &[1, 2], 3);
        let ce = |i: usize, y| cross_entropy(&za[i..i + 3], y, 0.0, &mut [0.0; 3]);
        let expected = 0.125 * (ce(0, 1) + ce(3, 2)) + 2.0 * kl(&za[..3], &zb[..3], 0.0, None, None);
        assert!((value - f64::from(expected)).abs() < 1e-5);
        assert_eq!(gradients[1][3..], [0.0; 3]);
        assert_ne!(gradients[1][..3], [0.0; 3]);
    }
}
