//! The L2 attack of Carlini and Wagner 2017 ("Towards evaluating the robustness of neural networks", section VI.A): Adam
//! on `‖x - x₀‖² + c · max(z_y - max_{i≠y} z_i, -κ)` with `x = (tanh w + 1) / 2`.
//!
//! With one search, the settings of torchattacks 3.5, which replaces the label's logit by zero where it takes the largest
//! of the others, and does not move black and white pixels; here all others compete and all pixels move. Several searches find `c` by
//! bisection for each image, as the authors' code does. Both of these programs end the search of a whole batch when its
//! cost rises; here every image takes all steps, so that its result does not depend on the batch.

use super::geometry::distance;
use super::oracle::{Aim, AttackError, Oracle};
use crate::engine::{Norm, loss};

/// One search for each image of a batch.
pub(super) struct Cw {
    /// Steps of Adam in each search.
    pub(super) steps: u32,
    /// Searches with other values of `c`.
    pub(super) searches: u32,
    /// The first `c`.
    pub(super) c: f32,
}

/// Step size of Adam.
const RATE: f32 = 0.01;
/// Decay rates of Adam's moments.
const DECAY: [f32; 2] = [0.9, 0.999];
/// Keeps `atanh` finite at black and white, as in the authors' code.
const SHRINK: f32 = 0.999_999;
/// The largest `c` of a bisection.
const LARGEST_C: f32 = 1e10;

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The nearest misclassified iterate of each image, otherwise the clean image.
    pub(super) nearest: Vec<f32>,
    /// Its L2 distance; infinite without one.
    pub(super) distance: Vec<f32>,
    /// Whether a gradient was zero in every value.
    pub(super) without_gradient: Vec<bool>,
}

/// The search of one image.
struct Walker {
    image: usize,
    w: Vec<f32>,
    moments: [Vec<f32>; 2],
}

impl Cw {
    /// Searches the nearest misclassified images, `B × C × H × W`.
    pub(super) fn run(
        &self,
        oracle: &mut Oracle<'_>,
        images: &[f32],
        labels: &[u32],
        done: &dyn Fn(f64) -> f64,
    ) -> Result<Found, AttackError> {
        let n = labels.len();
        let mut found =
            Found { nearest: images.to_vec(), distance: vec![f32::INFINITY; n], without_gradient: vec![false; n] };
        let (mut c, mut low, mut high) = (vec![self.c; n], vec![0.0f32; n], vec![LARGEST_C; n]);
        for search in 0..self.searches.max(1) {
            let all = f64::from(self.searches.max(1));
            let part = |share: f64| done((f64::from(search) + share) / all);
            let succeeded = self.search(oracle, images, labels, &c, &mut found, &part)?;
            for (i, succeeded) in succeeded.into_iter().enumerate() {
                if succeeded {
                    high[i] = high[i].min(c[i]);
                } else {
                    low[i] = low[i].max(c[i]);
                }
                c[i] = if high[i] < LARGEST_C { (low[i] + high[i]) / 2.0 } else { (c[i] * 10.0).min(0.1 * LARGEST_C) };
            }
        }
        Ok(found)
    }

    /// One search with these `c`. Returns which images were misclassified in it.
    fn search(
        &self,
        oracle: &mut Oracle<'_>,
        images: &[f32],
        labels: &[u32],
        c: &[f32],
        found: &mut Found,
        done: &dyn Fn(f64) -> f64,
    ) -> Result<Vec<bool>, AttackError> {
        let (len, classes) = (oracle.shape().len(), oracle.classes());
        let mut succeeded = vec![false; labels.len()];
        let mut walkers: Vec<Walker> = images
            .chunks(len)
            .enumerate()
            .map(|(image, x)| Walker {
                image,
                w: x.iter().map(|x| ((2.0 * x - 1.0) * SHRINK).atanh()).collect(),
                moments: [vec![0.0; len], vec![0.0; len]],
            })
            .collect();
        for step in 0..self.steps {
            oracle.tick(done(f64::from(step) / f64::from(self.steps)))?;
            let batch: Vec<f32> =
                walkers.iter().flat_map(|walker| walker.w.iter().map(|w| 0.5 * (w.tanh() + 1.0))).collect();
            let own: Vec<u32> = walkers.iter().map(|walker| labels[walker.image]).collect();
            let (logits, gradients) = oracle.gradient(&batch, &own, &Aim::Margin)?;
            for ((walker, z), (x, gradient)) in
                walkers.iter_mut().zip(logits.chunks(classes)).zip(batch.chunks(len).zip(gradients.chunks(len)))
            {
                let (image, label) = (walker.image, labels[walker.image]);
                let clean = &images[image * len..][..len];
                let far = distance(Norm::L2, x, clean);
                let margin = -loss::margin(z, label, 0.0, &mut vec![0.0; classes]);
                found.without_gradient[image] |= gradient.iter().all(|g| *g == 0.0);
                if loss::argmax(z) != label {
                    succeeded[image] = true;
                    if far < found.distance[image] {
                        found.distance[image] = far;
                        found.nearest[image * len..][..len].copy_from_slice(x);
                    }
                }
                // Behind the boundary only the distance has a gradient.
                let pull = if margin > 0.0 { c[image] } else { 0.0 };
                walker.update(step, clean, x, gradient, pull);
            }
        }
        Ok(succeeded)
    }
}

impl Walker {
    /// A step of Adam on the cost, whose margin has the weight `pull` and the gradient `-towards`.
    fn update(&mut self, step: u32, clean: &[f32], x: &[f32], towards: &[f32], pull: f32) {
        let corrections = DECAY.map(|decay| 1.0 - decay.powi(step as i32 + 1));
        let [first, second] = &mut self.moments;
        let state = self.w.iter_mut().zip(first).zip(second);
        state.zip(clean).zip(x).zip(towards).for_each(|(((((w, m), v), clean), x), towards)| {
            let slope = 2.0 * x * (1.0 - x);
            let gradient = slope * (2.0 * (x - clean) - pull * towards);
            *m = DECAY[0] * *m + (1.0 - DECAY[0]) * gradient;
            *v = DECAY[1] * *v + (1.0 - DECAY[1]) * gradient * gradient;
            *w -= RATE * (*m / corrections[0]) / ((*v / corrections[1]).sqrt() + 1e-8);
        });
    }
}
