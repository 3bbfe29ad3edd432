//! The class distribution for which a loss is largest, in a ball around the uniform one (FAAL, Zhang et al., CVPR 2024,
//! arXiv 2402.17729).

use std::borrow::Cow;

use crate::engine::{LossSpec, View};

/// Bisection steps. Each halves an interval of the logarithm of the multiplier, at first about 90 wide.
const STEPS: usize = 100;

/// The distribution `q` over classes that maximises `Σ_k c_k q_k` subject to `KL(uniform ‖ q) ≤ radius`.
///
/// With Lagrange multipliers, `q_k ∝ 1 / (ν - c_k)` with `ν > max c`. The divergence falls from infinity to zero as `ν`
/// grows, so `ν` is found by bisection. If all `c_k` are equal, or if the radius is zero, `q` is uniform.
pub fn worst_case(c: &[f64], radius: f64) -> Vec<f64> {
    let classes = c.len() as f64;
    let (low, high) = c.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let range = high - low;
    if !(range > 0.0 && range.is_finite() && radius > 0.0) {
        return vec![1.0 / classes; c.len()];
    }
    // Distances from the largest value, in units of the range: ν = max c + t · range.
    let distances: Vec<f64> = c.iter().map(|v| (high - v) / range).collect();
    let mean = |of: &dyn Fn(f64) -> f64| distances.iter().map(|d| of(*d)).sum::<f64>() / classes;
    let divergence = |t: f64| {
        if t > 1.0 {
            // The two terms cancel for large t; both are small relative to t here.
            mean(&|d| (d / t).ln_1p()) + mean(&|d| -d / (t + d)).ln_1p()
        } else {
            mean(&|d| (t + d).ln()) + mean(&|d| 1.0 / (t + d)).ln()
        }
    };
    let (mut from, mut to) = (-60.0f64, 30.0f64);
    for _ in 0..STEPS {
        let middle = 0.5 * (from + to);
        if divergence(middle.exp()) > radius { from = middle } else { to = middle }
    }
    let t = to.exp();
    let weights: Vec<f64> = distances.iter().map(|d| 1.0 / (t + d)).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

/// The classes in a batch and their coefficients: the sum over the images of a class of the margin `max_{j≠y} p_j - p_y`
/// of probabilities, so that a class counts once for each of its images, as in the authors' code.
fn coefficients(logits: &[f32], labels: &[u32], classes: usize) -> (Vec<usize>, Vec<f64>) {
    let mut sums = vec![0.0; classes];
    for (z, label) in logits.chunks(classes).zip(labels) {
        let own = *label as usize;
        let top = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // In `f64`: if all classes are classified well, coefficients differ in their last digits only, and the weights
        // depend on these differences alone.
        let shares: Vec<f64> = z.iter().map(|z| (f64::from(*z) - f64::from(top)).exp()).collect();
        let all: f64 = shares.iter().sum();
        let other = (0..classes).filter(|j| *j != own).map(|j| shares[j]).fold(0.0, f64::max);
        sums[own] += (other - shares[own]) / all;
    }
    let present: Vec<usize> = (0..classes).filter(|k| labels.contains(&(*k as u32))).collect();
    let coefficients = present.iter().map(|k| sums[*k]).collect();
    (present, coefficients)
}

/// Resolves [`LossSpec::worst_case`] with the logits of the views: the loss with its class factors, and the factors.
/// These are `q` times the number of classes in the batch, and 0 for the others. Without a worst case, the loss itself
/// and no factors.
pub fn with_worst_case<'a>(
    loss: &'a LossSpec,
    views: &[View],
    logits: &[Vec<f32>],
    labels: &[u32],
    classes: usize,
) -> (Cow<'a, LossSpec>, Vec<f64>) {
    let found = loss.worst_case.and_then(|worst| Some((worst, views.iter().position(|view| *view == worst.view)?)));
    let Some((worst, at)) = found else { return (Cow::Borrowed(loss), Vec::new()) };
    let (present, coefficients) = coefficients(&logits[at], labels, classes);
    let mut factors = vec![0.0; classes];
    for (k, q) in present.iter().zip(worst_case(&coefficients, worst.radius)) {
        factors[*k] = q * present.len() as f64;
    }
    (Cow::Owned(loss.with_class_factors(&factors, labels)), factors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{LossTerm, Term, Weights, WorstCase};
    use crate::rng::{Purpose, Stream};

    fn divergence(q: &[f64]) -> f64 {
        let u = 1.0 / q.len() as f64;
        q.iter().map(|q| u * (u / q).ln()).sum()
    }

    fn random(classes: usize, sample: u32) -> Vec<f64> {
        let stream = Stream::new(5, Purpose::Test, 0, sample);
        (0..classes as u32).map(|i| 3.0 * f64::from(stream.normal(i))).collect()
    }

    /// The optimum lies on the edge of the ball, and no distribution in the ball is better.
    #[test]
    fn it_is_the_best_distribution_in_the_ball() {
        for classes in [2, 3, 10, 100] {
            for (sample, radius) in (0..).zip([1e-6, 1e-3, 0.05, 0.5, 1.0, 5.0]) {
                let c = random(classes, sample);
                let q = worst_case(&c, radius);
                let value = |q: &[f64]| -> f64 { c.iter().zip(q).map(|(c, q)| c * q).sum() };
                assert!((q.iter().sum::<f64>() - 1.0).abs() < 1e-12 && q.iter().all(|q| *q > 0.0));
                assert!((divergence(&q) - radius).abs() < 1e-6 * radius.max(1e-3), "{classes} {radius}");
                let u = 1.0 / classes as f64;
                for other in 0..200 {
                    let weights: Vec<f64> = random(classes, 1000 + other).iter().map(|v| v.exp()).collect();
                    let sum: f64 = weights.iter().sum();
                    // The random distribution, moved towards the uniform one until it is in the ball.
                    let mut share = 1.0;
                    let at = |share: f64| -> Vec<f64> { weights.iter().map(|w| u + share * (w / sum - u)).collect() };
                    while divergence(&at(share)) > radius {
                        share *= 0.9;
                    }
                    assert!(value(&at(share)) <= value(&q) + 1e-9, "{classes} {radius}");
                }
            }
        }
    }

    /// Two classes in closed form: `q (1 - q) = exp(-2 r) / 4`.
    #[test]
    fn two_classes_have_a_closed_form() {
        for radius in [1e-4, 0.1, 0.5, 2.0] {
            let expected = 0.5 * (1.0 + (1.0 - (-2.0f64 * radius).exp()).sqrt());
            let q = worst_case(&[-0.3, 0.4], radius);
            assert!((q[1] - expected).abs() < 1e-9, "{radius}: {q:?} {expected}");
        }
    }

    #[test]
    fn equal_coefficients_and_a_ball_of_no_size_give_equal_weights() {
        assert_eq!(worst_case(&[0.5; 4], 0.5), [0.25; 4]);
        assert_eq!(worst_case(&[0.1, 0.7], 0.0), [0.5; 2]);
        assert_eq!(worst_case(&[f64::NAN, 0.7], 0.5), [0.5; 2]);
    }

    /// Class 2 is absent and gets nothing; class 0, which is misclassified, gets more than class 1.
    #[test]
    fn only_classes_of_the_batch_take_part() {
        let worst_case = Some(WorstCase { view: View::Clean, radius: 0.5 });
        let loss = LossSpec { worst_case, ..LossSpec::cross_entropy(View::Clean) };
        let logits = [vec![0.0, 2.0, 0.0, 0.0, 2.0, 0.0]];
        let (resolved, factors) = with_worst_case(&loss, &[View::Clean], &logits, &[0, 1], 3);
        assert!(factors[0] > 1.5 && factors[1] > 0.0 && factors[2] == 0.0, "{factors:?}");
        assert!((factors[0] + factors[1] - 2.0).abs() < 1e-12);
        let weights = resolved.terms[0].image_weights(&[0, 1]);
        assert!((f64::from(weights[0]) - 0.5 * factors[0]).abs() < 1e-7);
        let (same, none) = with_worst_case(&resolved, &[View::Clean], &logits, &[0, 1], 3);
        assert!(*same == *resolved && none.is_empty());
    }

    #[test]
    fn every_kind_of_weight_is_multiplied() {
        let weighted = |weights| LossTerm { weights, ..LossTerm::mean(1.0, Term::CrossEntropy(View::Clean)) };
        let loss = LossSpec::of(vec![
            weighted(Weights::Equal),
            weighted(Weights::PerClass(vec![1.0, 2.0])),
            weighted(Weights::PerImage(vec![3.0, 5.0])),
        ]);
        let resolved = loss.with_class_factors(&[0.5, 2.0], &[1, 0]);
        let found: Vec<Vec<f32>> = resolved.terms.iter().map(|term| term.image_weights(&[1, 0])).collect();
        assert_eq!(found, [vec![1.0, 0.25], vec![2.0, 0.25], vec![3.0, 1.25]]);
    }
}
