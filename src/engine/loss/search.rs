//! The objectives of a search, and their gradients with respect to the logits.
//!
//! If a network is certain of an image, the gradient is too small for `f32`: `p - e_y` underflows where the logits are
//! 104 apart, and `p_y - 1` is zero where they are 17 apart. A search needs only the direction, so exponentials are
//! computed relative to the largest one that contributes, and the factor between this scaled gradient and the true one
//! is kept separately. All of it is in `f64`; the cost is negligible next to that of the network.

use super::{EngineError, argmax, dlr, kl, log_softmax, margin};
use crate::engine::{BatchNormMode, Objective};
use crate::model::{Network, Op};

/// The scale of the gradient of each image's objective.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GradientScale {
    /// Unscaled: the derivative of the objective.
    True,
    /// Times a positive factor for each image, which brings the largest entries near one whatever the size of the
    /// logits. It cancels where a search takes the sign of the gradient or divides by its norm.
    PerImage,
}

impl GradientScale {
    /// The scale for a search on `network`.
    ///
    /// If batch norm takes its statistics from the batch, the gradient of an image is a sum over the objectives of all
    /// images in the batch. A factor per image would change that sum, so the gradients stay unscaled.
    pub fn of_search(network: &Network, mode: BatchNormMode) -> Self {
        let tied = mode == BatchNormMode::Train && network.layers.iter().any(|l| matches!(l.op, Op::BatchNorm { .. }));
        if tied { Self::True } else { Self::PerImage }
    }
}

/// Value of an attack's objective for each image and its gradient, `B × K`.
///
/// `clean` are the logits of the unperturbed images, which [`Objective::KlToClean`] needs.
///
/// # Errors
/// Returns [`EngineError::Invalid`] if `clean` is missing, or if targets are not drawn yet ([`Objective::aimed`]).
pub fn objective(
    objective: &Objective,
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    clean: Option<&[f32]>,
) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
    let gradient = objective_gradient(objective, GradientScale::True, logits, labels, classes, clean)?;
    let value = |(i, z): (usize, &[f32])| match objective {
        Objective::CrossEntropy | Objective::Drawn(_) | Objective::LeastLikely => -log_softmax(z)[labels[i] as usize],
        Objective::Targeted(targets) if targets[i] == labels[i] => -log_softmax(z)[labels[i] as usize],
        Objective::Targeted(targets) => log_softmax(z)[targets[i] as usize],
        Objective::Dlr => dlr(z, labels[i], 0.0, &mut vec![0.0; classes]),
        Objective::Margin => margin(z, labels[i], 0.0, &mut vec![0.0; classes]),
        Objective::DlrTowards(targets) => Scaled::dlr_towards(&wide(z), labels[i], targets[i]).0 as f32,
        Objective::MarginTo(targets) => z[targets[i] as usize] - z[labels[i] as usize],
        Objective::KlToClean => clean.map_or(0.0, |clean| kl(&clean[i * classes..][..classes], z, 0.0, None, None)),
    };
    Ok((logits.chunks(classes).enumerate().map(value).collect(), gradient))
}

/// Only the gradient of an attack's objective, `B × K`, with the given scale.
///
/// # Errors
/// As [`objective`].
pub fn objective_gradient(
    objective: &Objective,
    scale: GradientScale,
    logits: &[f32],
    labels: &[u32],
    classes: usize,
    clean: Option<&[f32]>,
) -> Result<Vec<f32>, EngineError> {
    let mut gradient = Vec::with_capacity(logits.len());
    for (i, row) in logits.chunks(classes).enumerate() {
        let z = wide(row);
        let found = match objective {
            Objective::CrossEntropy => Scaled::cross_entropy(&z, labels[i]),
            Objective::Targeted(targets) if targets[i] == labels[i] => Scaled::cross_entropy(&z, labels[i]),
            Objective::Targeted(targets) => Scaled::cross_entropy(&z, targets[i]).negated(),
            Objective::Drawn(_) | Objective::LeastLikely => {
                return Err(EngineError::Invalid(
                    "the targets of an objective must be chosen before it is evaluated".into(),
                ));
            }
            Objective::Dlr => Scaled::dlr(&z, labels[i]).1,
            Objective::Margin => Scaled::margin(&z, labels[i]),
            Objective::DlrTowards(targets) => Scaled::dlr_towards(&z, labels[i], targets[i]).1,
            Objective::MarginTo(targets) => Scaled::margin_to(z.len(), labels[i], targets[i]),
            Objective::KlToClean => {
                let clean = clean.ok_or_else(|| {
                    EngineError::Invalid("the KL objective needs the prediction on the clean images".into())
                })?;
                Scaled::kl(&wide(&clean[i * classes..][..classes]), &z, argmax(row) as usize)
            }
        };
        let factor = match scale {
            GradientScale::True => found.factor,
            GradientScale::PerImage => 1.0,
        };
        gradient.extend(found.values.iter().map(|value| (factor * value) as f32));
    }
    Ok(gradient)
}

pub(super) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// The class with the largest value among all but `beside`; `None` if there is no other.
fn largest_beside(values: &[f64], beside: usize) -> Option<usize> {
    let others = (0..values.len()).filter(|j| *j != beside);
    others.reduce(|best, j| if values[j] > values[best] { j } else { best })
}

/// A gradient with respect to the logits of one image: `factor · values`, with a positive factor.
pub(super) struct Scaled {
    pub(super) values: Vec<f64>,
    pub(super) factor: f64,
}

impl Scaled {
    fn zero(classes: usize) -> Self {
        Self { values: vec![0.0; classes], factor: 1.0 }
    }

    fn negated(mut self) -> Self {
        self.values.iter_mut().for_each(|value| *value = -*value);
        self
    }

    /// Sets one class to minus the sum of the others: the gradient of a function of logit differences sums to zero.
    fn balanced(mut self, class: usize) -> Self {
        self.values[class] = 0.0;
        self.values[class] = -self.values.iter().sum::<f64>();
        self
    }

    /// `e_i - e_y` for the likeliest class `i` other than `y`.
    fn margin(z: &[f64], y: u32) -> Self {
        let mut found = Self::zero(z.len());
        if let Some(other) = largest_beside(z, y as usize) {
            found.values[other] = 1.0;
            found.values[y as usize] = -1.0;
        }
        found
    }

    /// `e_t - e_y`.
    fn margin_to(classes: usize, y: u32, t: u32) -> Self {
        let mut found = Self::zero(classes);
        found.values[y as usize] -= 1.0;
        found.values[t as usize] += 1.0;
        found
    }

    /// `p - e_y`, relative to the likeliest class `t` other than `y`: `exp(z_j - z_t)` for `j ≠ y`.
    fn cross_entropy(z: &[f64], y: u32) -> Self {
        let y = y as usize;
        let Some(top) = largest_beside(z, y) else { return Self::zero(z.len()) };
        let values: Vec<f64> = z.iter().map(|v| (v - z[top]).exp()).collect();
        let factor = 1.0 / values.iter().sum::<f64>();
        Self { values, factor }.balanced(y)
    }

    /// `p - q` of `p = softmax(z)` and `q = softmax(clean)`, relative to the largest probability in either, except for
    /// the class `r` that `z` predicts.
    ///
    /// If `p` and `q` are close, their difference is computed as `q_j (exp δ_j - 1)` with `δ_j = log p_j - log q_j`.
    /// With `m_j`, the change of logit `j` relative to that of `r`, `δ_j = m_j - log Σ_k q_k exp m_k`.
    fn kl(clean: &[f64], z: &[f64], r: usize) -> Self {
        let highest = clean.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let log_sum = clean.iter().map(|w| (w - highest).exp()).sum::<f64>().ln();
        let log_q: Vec<f64> = clean.iter().map(|w| (w - highest) - log_sum).collect();
        let log_p_r = -z.iter().map(|v| (v - z[r]).exp()).sum::<f64>().ln();
        let log_p: Vec<f64> = z.iter().map(|v| (v - z[r]) + log_p_r).collect();
        let moved: Vec<f64> = z.iter().zip(clean).map(|(v, w)| (v - w) - (z[r] - clean[r])).collect();
        let growth: f64 = (0..z.len()).map(|j| difference((z[j] - z[r]) + log_q[r], log_q[j], moved[j])).sum();
        let all = if growth > -0.5 { growth.ln_1p() } else { log_q[r] - log_p_r };

        let larger: Vec<f64> = log_p.iter().zip(&log_q).map(|(p, q)| p.max(*q)).collect();
        let Some(top) = largest_beside(&larger, r) else { return Self::zero(z.len()) };
        let ahead = moved[top] - all;
        let value = |j: usize| {
            let (log_p, log_q) = ((z[j] - z[top]) + ahead.min(0.0), (clean[j] - clean[top]) - ahead.max(0.0));
            difference(log_p.min(0.0), log_q.min(0.0), moved[j] - all)
        };
        Self { values: (0..z.len()).map(value).collect(), factor: larger[top].exp() }.balanced(r)
    }

    /// The value and the gradient of `-(z_y - z_o) / (z_(1) - z_(3) + 1e-12)`, where `z_o` is the largest logit other
    /// than `z_y` (see [`super::dlr`]). The gradient is relative to the larger of `1 / denominator` and
    /// `|numerator| / denominator²`.
    ///
    /// If `y` is the third, numerator and denominator differ only by 1e-12, and the two contributions to the gradient
    /// cancel up to `1e-12 / denominator²`. That term is written out because the computed difference would have no
    /// correct digits.
    pub(super) fn dlr(z: &[f64], y: u32) -> (f64, Self) {
        let y = y as usize;
        let mut order: Vec<usize> = (0..z.len()).collect();
        order.sort_by(|a, b| z[*b].total_cmp(&z[*a]).then(a.cmp(b)));
        let (first, second, third) = (order[0], order[1], order[2]);
        let other = if first == y { second } else { first };
        let (numerator, denominator) = (z[y] - z[other], z[first] - z[third] + 1e-12);
        let (straight, through, factor) = if y == third {
            (1.0, 0.0, 1e-12 / denominator / denominator)
        } else if numerator.abs() > denominator {
            (denominator / numerator.abs(), numerator.signum(), numerator.abs() / denominator / denominator)
        } else {
            (1.0, numerator / denominator, 1.0 / denominator)
        };
        let mut values = vec![0.0; z.len()];
        values[y] -= straight;
        values[other] += straight;
        values[first] += through;
        values[third] -= through;
        (-numerator / denominator, Self { values, factor })
    }
}

impl Scaled {
    /// The value and the gradient of `-(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12)`, relative to the larger of
    /// `1 / denominator` and `|numerator| / denominator²`.
    fn dlr_towards(z: &[f64], y: u32, t: u32) -> (f64, Self) {
        let (y, t) = (y as usize, t as usize);
        let mut order: Vec<usize> = (0..z.len()).collect();
        order.sort_by(|a, b| z[*b].total_cmp(&z[*a]).then(a.cmp(b)));
        let (first, third, fourth) = (order[0], order[2], order[3]);
        let (numerator, denominator) = (z[y] - z[t], z[first] - 0.5 * (z[third] + z[fourth]) + 1e-12);
        let (straight, through, factor) = if numerator.abs() > denominator {
            (denominator / numerator.abs(), numerator.signum(), numerator.abs() / denominator / denominator)
        } else {
            (1.0, numerator / denominator, 1.0 / denominator)
        };
        let mut found = Self { factor, ..Self::zero(z.len()) };
        found.values[y] -= straight;
        found.values[t] += straight;
        found.values[first] += through;
        found.values[third] -= 0.5 * through;
        found.values[fourth] -= 0.5 * through;
        (-numerator / denominator, found)
    }
}

/// `exp a - exp b`, where `ahead` is `a - b` without its rounding error.
fn difference(a: f64, b: f64, ahead: f64) -> f64 {
    if ahead.abs() < 0.5 { b.exp() * ahead.exp_m1() } else { a.exp() - b.exp() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::loss::tests::random;

    const CLASSES: [usize; 4] = [2, 3, 10, 100];

    /// Logits with one class `margin` ahead of all others, and slightly different logits of a clean image.
    fn certain(classes: usize, margin: f32, sample: u32) -> (Vec<f32>, Vec<f32>) {
        let mut z = random(classes, sample);
        z[sample as usize % classes] = 4.0 + margin;
        let clean = z.iter().zip(random(classes, sample + 100)).map(|(z, r)| z + 0.1 * r).collect();
        (z, clean)
    }

    fn objectives(classes: usize) -> Vec<Objective> {
        let mut all = vec![Objective::CrossEntropy, Objective::Targeted(vec![1]), Objective::KlToClean];
        if classes > 2 {
            all.push(Objective::Dlr);
        }
        all
    }

    /// The gradient by its formula in `f64`; the entry of the likeliest class is minus the sum of the others.
    fn exact(what: &Objective, z: &[f32], clean: &[f32], label: usize) -> Vec<f64> {
        let softmax = |z: &[f32]| -> Vec<f64> {
            let highest = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let u: Vec<f64> = z.iter().map(|v| (f64::from(*v) - f64::from(highest)).exp()).collect();
            let sum: f64 = u.iter().sum();
            u.iter().map(|u| u / sum).collect()
        };
        let (p, q) = (softmax(z), softmax(clean));
        let (likeliest, classes) = (argmax(z) as usize, z.len());
        let minus = |p: &[f64], y: usize| -> Vec<f64> {
            let one = |j: usize| if j == y { 1.0 } else { 0.0 };
            (0..classes).map(|j| p[j] - one(j)).collect()
        };
        let mut gradient: Vec<f64> = match what {
            Objective::CrossEntropy => minus(&p, label),
            Objective::Targeted(targets) if targets[0] as usize == label => minus(&p, label),
            Objective::Targeted(targets) => minus(&p, targets[0] as usize).iter().map(|g| -g).collect(),
            Objective::KlToClean => p.iter().zip(&q).map(|(p, q)| p - q).collect(),
            _ => {
                let mut gradient = vec![0.0; classes];
                let mut order: Vec<usize> = (0..classes).collect();
                order.sort_by(|a, b| z[*b].total_cmp(&z[*a]));
                let z: Vec<f64> = z.iter().map(|v| f64::from(*v)).collect();
                let other = if order[0] == label { order[1] } else { order[0] };
                let (top, bottom) = (z[label] - z[other], z[order[0]] - z[order[2]] + 1e-12);
                if label == order[2] {
                    gradient[other] = 1e-12 / bottom / bottom;
                    gradient[label] = -gradient[other];
                    return gradient;
                }
                gradient[label] -= 1.0 / bottom;
                gradient[other] += 1.0 / bottom;
                gradient[order[0]] += top / bottom / bottom;
                gradient[order[2]] -= top / bottom / bottom;
                return gradient;
            }
        };
        gradient[likeliest] = 0.0;
        gradient[likeliest] = -gradient.iter().sum::<f64>();
        gradient
    }

    fn largest(values: &[f64]) -> f64 {
        values.iter().fold(0.0, |most: f64, v| most.max(v.abs()))
    }

    #[test]
    fn the_scale_of_an_image_leaves_the_direction() {
        for classes in CLASSES {
            for (sample, margin) in [0.0f32, 1.0, 17.0, 87.0, 104.0, 300.0].into_iter().enumerate() {
                let (z, clean) = certain(classes, margin, sample as u32);
                for label in [sample % classes, (sample + 1) % classes] {
                    for what in objectives(classes) {
                        let exact = exact(&what, &z, &clean, label);
                        let size = largest(&exact);
                        let labels = [label as u32];
                        let gradient =
                            |scale| objective_gradient(&what, scale, &z, &labels, classes, Some(&clean)).unwrap();
                        let (own, truth) = (gradient(GradientScale::PerImage), gradient(GradientScale::True));
                        let found = largest(&wide(&own));
                        assert!((1e-3..=classes as f64).contains(&found), "{what:?} {margin}: {found}");
                        for ((own, truth), exact) in own.iter().zip(truth).zip(&exact) {
                            let error = (f64::from(*own) / found - exact / size).abs();
                            assert!(error < 1e-6, "{what:?}, {classes} classes, margin {margin}: {error:e}");
                            // Numbers below the smallest normal one have fewer digits.
                            let error = (f64::from(truth) - exact).abs();
                            assert!(error <= 1e-6 * size + 1e-45, "{what:?}, {classes} classes, {margin}: {error:e}");
                        }
                    }
                }
            }
        }
    }

    /// DLR does not depend on the scale; for large logits the others tend to the gradient of the margin.
    #[test]
    fn logits_of_any_size_have_a_direction() {
        for classes in CLASSES {
            for scale in [1e-30f32, 1e-6, 1e4, 1e6, 1e30] {
                for sample in 0..5 {
                    let [z, clean] = [sample, sample + 50]
                        .map(|sample| random(classes, sample).iter().map(|z| z * scale).collect::<Vec<f32>>());
                    for what in objectives(classes) {
                        let found = objective_gradient(&what, GradientScale::PerImage, &z, &[0], classes, Some(&clean))
                            .unwrap();
                        let (size, sum) = (largest(&wide(&found)), wide(&found).iter().sum::<f64>());
                        let smallest =
                            if what == Objective::KlToClean { f64::from(scale.min(1.0)) * 1e-3 } else { 0.1 };
                        assert!(size > smallest && size <= classes as f64, "{what:?}, {classes}, {scale:e}: {size:e}");
                        assert!(sum.abs() <= 1e-6 * size * classes as f64, "{what:?}, {classes}, {scale:e}: {sum:e}");
                    }
                    if classes > 2 && scale > 1e-7 {
                        let direction = |z: &[f32]| {
                            objective_gradient(&Objective::Dlr, GradientScale::PerImage, z, &[0], classes, None)
                                .unwrap()
                        };
                        let near = direction(&random(classes, sample));
                        let apart = direction(&z).iter().zip(near).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        assert!(apart < 1e-4, "{classes} {scale:e}: {apart:e}");
                    }
                }
            }
        }
    }

    #[test]
    fn ties_have_finite_gradients_and_the_clean_prediction_has_none() {
        for (z, label) in [([1.0, 1.0, 1.0], 0), ([1.0, 1.0, 1.0], 2), ([2.0, 2.0, 1.0], 2), ([3e38, -3e38, 3e38], 1)] {
            for what in [Objective::CrossEntropy, Objective::Targeted(vec![1]), Objective::Dlr] {
                let found = objective_gradient(&what, GradientScale::PerImage, &z, &[label], 3, None).unwrap();
                assert!(found.iter().all(|g| g.is_finite()) && found.iter().any(|g| *g != 0.0), "{what:?} {found:?}");
            }
            let kl = objective_gradient(&Objective::KlToClean, GradientScale::PerImage, &z, &[label], 3, Some(&z));
            assert_eq!(kl.unwrap(), [0.0; 3]);
        }
    }

    /// A relative change of 10⁻⁷ in the probabilities keeps its significant digits.
    #[test]
    fn small_changes_of_the_prediction_keep_their_digits() {
        let clean = random(10, 3);
        let z: Vec<f32> = clean.iter().zip(random(10, 4)).map(|(w, r)| w + 1e-6 * r).collect();
        let found = objective_gradient(&Objective::KlToClean, GradientScale::True, &z, &[0], 10, Some(&clean)).unwrap();
        let exact = exact(&Objective::KlToClean, &z, &clean, 0);
        let error = found.iter().zip(&exact).map(|(g, e)| (f64::from(*g) - e).abs()).fold(0.0, f64::max);
        assert!(largest(&exact) > 1e-8 && error < 1e-6 * largest(&exact), "{error:e} of {:e}", largest(&exact));
    }
}
