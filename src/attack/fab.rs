//! FAB, the fast adaptive boundary attack (Croce and Hein 2020: "Minimally distorted adversarial examples with a fast
//! adaptive boundary attack"), as in AutoAttack: it looks for the nearest misclassified image, and succeeds if that is in
//! the ball.
//!
//! Each step projects the iterate and the clean image onto the linearised decision boundary, mixes both, overshoots by
//! 5 %, and goes a tenth of the way back after a misclassified iterate.

use rayon::prelude::*;

use super::geometry::{clip, distance, length, project_onto_hyperplane};
use super::oracle::{Aim, AttackError, Oracle};
use crate::engine::{Norm, loss};

/// Overshoot behind the boundary (η of the paper).
const OVERSHOOT: f32 = 1.05;
/// The part of the way that remains after a misclassified iterate (β).
const KEPT: f32 = 0.9;
/// The largest weight of the clean image's projection (α_max).
const LARGEST_WEIGHT: f32 = 0.1;

/// One search for each image of a batch.
pub(super) struct Fab<'a> {
    pub(super) norm: Norm,
    pub(super) epsilon: f32,
    pub(super) steps: u32,
    /// The class towards which each image is moved; without, the one with the nearest boundary in every step.
    pub(super) targets: Option<&'a [u32]>,
    /// Whether an image leaves the search as soon as a misclassified iterate is in the ball. Its flag is the same either
    /// way; the distance that is found is not the smallest.
    pub(super) stop_at_success: bool,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The nearest misclassified iterate of each image, otherwise the clean image.
    pub(super) nearest: Vec<f32>,
    /// Its distance; infinite without one.
    pub(super) distance: Vec<f32>,
    /// Whether a gradient was zero in every value.
    pub(super) without_gradient: Vec<bool>,
}

impl Fab<'_> {
    /// Searches from `starts`, both `B × C × H × W`. The clean images must be classified correctly.
    pub(super) fn run(
        &self,
        oracle: &mut Oracle<'_>,
        images: &[f32],
        labels: &[u32],
        starts: Vec<f32>,
        done: &dyn Fn(f64) -> f64,
    ) -> Result<Found, AttackError> {
        let (len, n) = (oracle.shape().len(), labels.len());
        let mut found =
            Found { nearest: images.to_vec(), distance: vec![f32::INFINITY; n], without_gradient: vec![false; n] };
        let mut active: Vec<(usize, Vec<f32>)> = starts.chunks(len).map(<[f32]>::to_vec).enumerate().collect();
        for i in 0..self.steps {
            if active.is_empty() {
                break;
            }
            oracle.tick(done(f64::from(i) / f64::from(self.steps)))?;
            self.step(oracle, images, labels, &mut active, &mut found)?;
            if self.stop_at_success {
                active.retain(|(image, _)| found.distance[*image] > self.epsilon);
            }
        }
        Ok(found)
    }

    fn step(
        &self,
        oracle: &mut Oracle<'_>,
        images: &[f32],
        labels: &[u32],
        active: &mut [(usize, Vec<f32>)],
        found: &mut Found,
    ) -> Result<(), AttackError> {
        let (len, classes) = (oracle.shape().len(), oracle.classes());
        let batch: Vec<f32> = active.iter().flat_map(|(_, x)| x.iter().copied()).collect();
        let own: Vec<u32> = active.iter().map(|(image, _)| labels[*image]).collect();
        // For each image: the difference of logits towards a class, its gradient, and the distance of the linearised
        // boundary.
        let mut planes: Vec<(f32, Vec<f32>, f32)> = vec![(0.0, Vec::new(), f32::INFINITY); active.len()];
        let rounds = if self.targets.is_some() { 1 } else { classes - 1 };
        for round in 1..=rounds {
            let towards: Vec<u32> = active
                .iter()
                .zip(&own)
                .map(|((image, _), label)| match self.targets {
                    Some(targets) => targets[*image],
                    None => (label + round as u32) % classes as u32,
                })
                .collect();
            let (logits, gradients) = oracle.gradient(&batch, &own, &Aim::MarginTo(&towards))?;
            let rows = logits.par_chunks(classes).zip(gradients.par_chunks(len)).zip(own.par_iter().zip(&towards));
            planes.par_iter_mut().zip(rows).for_each(|(plane, ((z, gradient), (label, target)))| {
                let margin = z[*target as usize] - z[*label as usize];
                let dual = match self.norm {
                    Norm::Linf => gradient.iter().map(|g| f64::from(g.abs())).sum::<f64>() as f32,
                    Norm::L2 => length(Norm::L2, gradient),
                };
                let near = margin.abs() / (1e-12 + dual);
                if near < plane.2 || plane.1.is_empty() {
                    *plane = (margin, gradient.to_vec(), near);
                }
            });
        }
        for ((image, _), plane) in active.iter().zip(&planes) {
            found.without_gradient[*image] |= plane.1.iter().all(|g| *g == 0.0);
        }
        active.par_iter_mut().zip(&planes).for_each(|((image, x), (margin, w, _))| {
            self.move_to_boundary(&images[*image * len..][..len], x, *margin, w);
        });
        let batch: Vec<f32> = active.iter().flat_map(|(_, x)| x.iter().copied()).collect();
        let logits = oracle.logits(&batch)?;
        for ((image, x), z) in active.iter_mut().zip(logits.chunks(classes)) {
            if loss::argmax(z) == labels[*image] {
                continue;
            }
            let clean = &images[*image * len..][..len];
            let far = distance(self.norm, x, clean);
            if far < found.distance[*image] {
                found.distance[*image] = far;
                found.nearest[*image * len..][..len].copy_from_slice(x);
            }
            x.iter_mut().zip(clean).for_each(|(x, c)| *x = c + KEPT * (*x - c));
        }
        Ok(())
    }

    /// Moves `x` towards the hyperplane `margin + w · (v - x) = 0`.
    fn move_to_boundary(&self, clean: &[f32], x: &mut [f32], margin: f32, w: &[f32]) {
        let here: f64 = w.iter().zip(&*x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        let b = here - f64::from(margin);
        let own = project_onto_hyperplane(self.norm, x, w, b);
        let from_clean = project_onto_hyperplane(self.norm, clean, w, b);
        let [a1, a2] = [&own, &from_clean].map(|change| length(self.norm, change).max(1e-8));
        let weight = (a1 / (a1 + a2)).clamp(0.0, LARGEST_WEIGHT);
        for (((x, c), own), from_clean) in x.iter_mut().zip(clean).zip(&own).zip(&from_clean) {
            *x = (*x + OVERSHOOT * own) * (1.0 - weight) + (c + OVERSHOOT * from_clean) * weight;
        }
        clip(x);
    }
}
