//! Auto-PGD (Croce and Hein 2020: "Reliable evaluation of adversarial robustness with an ensemble of diverse
//! parameter-free attacks", algorithm 1), as in its authors' code.
//!
//! Gradient ascent with momentum whose step size begins at `2ε`. At checkpoints that come ever closer, an image's step is
//! halved, and its search returns to its best iterate, if its loss rose in at most three quarters of the steps since the
//! last checkpoint, or if neither the step nor the best loss has changed since then. All of it is decided for each image
//! alone, so a result does not depend on the other images of a batch.

use rayon::prelude::*;

use super::geometry::{clip, length, project};
use super::oracle::{Aim, AttackError, Oracle};
use crate::engine::{Norm, Objective, loss};

/// What is maximised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Loss {
    /// Cross-entropy of the label.
    CrossEntropy,
    /// Difference-of-logits ratio; the margin with fewer than three classes, for which it is not defined.
    Dlr,
    /// Targeted difference-of-logits ratio; the margin of the target with fewer than four classes.
    DlrTowards(Vec<u32>),
}

impl Loss {
    fn objective(&self, images: &[usize], classes: usize) -> Objective {
        match self {
            Self::CrossEntropy => Objective::CrossEntropy,
            Self::Dlr if classes < 3 => Objective::Margin,
            Self::Dlr => Objective::Dlr,
            Self::DlrTowards(targets) => {
                let targets = images.iter().map(|image| targets[*image]).collect();
                if classes < 4 { Objective::MarginTo(targets) } else { Objective::DlrTowards(targets) }
            }
        }
    }
}

/// One search for each image of a batch.
pub(super) struct Apgd<'a> {
    pub(super) norm: Norm,
    pub(super) epsilon: f32,
    pub(super) steps: u32,
    pub(super) loss: &'a Loss,
    /// Whether an image leaves the search at its first misclassified iterate. Its flag is the same either way; the image
    /// that is returned is that iterate, not the last misclassified one.
    pub(super) stop_at_success: bool,
}

/// One image that is still searched.
pub(super) struct Iterate<'a> {
    /// Its index.
    #[cfg_attr(not(test), expect(dead_code, reason = "for comparisons with the authors' code"))]
    pub(super) image: usize,
    /// The size of its next step.
    #[cfg_attr(not(test), expect(dead_code, reason = "for comparisons with the authors' code"))]
    pub(super) step: f32,
    /// The loss of its iterate.
    #[cfg_attr(not(test), expect(dead_code, reason = "for comparisons with the authors' code"))]
    pub(super) loss: f32,
    /// Its iterate; the best one if its search has just returned there.
    #[cfg_attr(not(test), expect(dead_code, reason = "for comparisons with the authors' code"))]
    pub(super) x: &'a [f32],
}

/// Gets the number of each step, and every image that is still searched.
pub(super) type Observer<'a> = dyn FnMut(u32, &[Iterate<'_>]) + 'a;

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The misclassified iterate of each image that has one, otherwise the clean image.
    pub(super) adversarial: Vec<f32>,
    /// Whether an iterate was misclassified.
    pub(super) fooled: Vec<bool>,
    /// The iterate with the largest loss, and that loss.
    pub(super) best: Vec<f32>,
    pub(super) best_loss: Vec<f32>,
    /// Whether the gradient of an iterate was zero in every value.
    pub(super) without_gradient: Vec<bool>,
}

/// The share of steps of a window in which the loss must rise (ρ of the paper).
const RISING: f64 = 0.75;
/// The weight of the step against the momentum (α of the paper).
const WEIGHT: f32 = 0.75;

/// The numbers of steps after which step sizes are reviewed: 22, 41, 57, 70, 80, 87, 93 and 99 of 100 steps.
pub(super) fn checkpoints(steps: u32) -> Vec<u32> {
    let share = |of: f64| ((of * f64::from(steps)) as u32).max(1);
    let (mut window, decrease, least) = (share(0.22), share(0.03), share(0.06));
    let (mut all, mut at) = (Vec::new(), window);
    while at <= steps {
        all.push(at);
        window = window.saturating_sub(decrease).max(least);
        at += window;
    }
    all
}

/// The search of one image.
struct Walker {
    /// Its index in the batch.
    image: usize,
    x: Vec<f32>,
    before: Vec<f32>,
    gradient: Vec<f32>,
    best: Vec<f32>,
    best_gradient: Vec<f32>,
    best_loss: f32,
    best_loss_before: f32,
    step: f32,
    halved: bool,
    losses: Vec<f32>,
}

impl Walker {
    /// Step `i` of the search.
    fn walk(&mut self, search: &Apgd<'_>, clean: &[f32], i: u32) {
        let weight = if i == 0 { 1.0 } else { WEIGHT };
        let mut stepped = self.x.clone();
        match search.norm {
            Norm::Linf => {
                for (x, g) in stepped.iter_mut().zip(&self.gradient) {
                    *x += self.step * sign(*g);
                }
            }
            Norm::L2 => {
                let scale = self.step / (length(Norm::L2, &self.gradient) + 1e-12);
                for (x, g) in stepped.iter_mut().zip(&self.gradient) {
                    *x += scale * g;
                }
            }
        }
        project(search.norm, search.epsilon, clean, &mut stepped);
        for ((stepped, x), before) in stepped.iter_mut().zip(&self.x).zip(&self.before) {
            *stepped = x + (*stepped - x) * weight + (x - before) * (1.0 - weight);
        }
        project(search.norm, search.epsilon, clean, &mut stepped);
        self.before = std::mem::replace(&mut self.x, stepped);
    }

    /// Takes the loss and the gradient after step `i`.
    fn observe(&mut self, loss: f32, gradient: &[f32]) {
        self.losses.push(loss);
        self.gradient.copy_from_slice(gradient);
        if loss > self.best_loss {
            self.best_loss = loss;
            self.best.copy_from_slice(&self.x);
            self.best_gradient.copy_from_slice(gradient);
        }
    }

    /// Reviews the last `window` of `steps` steps.
    fn review(&mut self, window: usize, steps: u32) {
        let taken = self.losses.len();
        // The first step of all is compared with zero, not with the loss at the start, in the authors' code.
        let earlier = |i: usize| match i.checked_sub(1) {
            Some(earlier) => self.losses[earlier],
            None if steps == 1 => self.losses[0],
            None => 0.0,
        };
        let rises = (taken - window..taken).filter(|i| self.losses[*i] > earlier(*i)).count();
        let oscillates = rises as f64 <= RISING * window as f64;
        let stalled = !self.halved && self.best_loss_before >= self.best_loss;
        self.halved = oscillates || stalled;
        self.best_loss_before = self.best_loss;
        if self.halved {
            self.step /= 2.0;
            // The iterate before the last step is kept: the next one has a momentum from there to the best iterate.
            self.x.copy_from_slice(&self.best);
            self.gradient.copy_from_slice(&self.best_gradient);
        }
    }
}

/// The sign, 0 for 0, as in PyTorch.
fn sign(value: f32) -> f32 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        0.0
    }
}

/// The first iterate: the clean image plus noise of length `ε` in the norm, clipped to the box.
pub(super) fn start(norm: Norm, epsilon: f32, clean: &[f32], noise: &[f32]) -> Vec<f32> {
    let scale = epsilon / (length(norm, noise) + 1e-12);
    let mut x: Vec<f32> = clean.iter().zip(noise).map(|(c, t)| c + scale * t).collect();
    clip(&mut x);
    x
}

impl Apgd<'_> {
    /// Searches from `starts`, which are in the balls of `images`, both `B × C × H × W`. `seen` gets the number of the
    /// step, and the step size and the loss of each image that is still searched.
    pub(super) fn run(
        &self,
        oracle: &mut Oracle<'_>,
        images: &[f32],
        labels: &[u32],
        starts: Vec<f32>,
        done: &dyn Fn(f64) -> f64,
        seen: &mut Observer<'_>,
    ) -> Result<Found, AttackError> {
        let (len, n) = (oracle.shape().len(), labels.len());
        let mut found = Found {
            adversarial: images.to_vec(),
            fooled: vec![false; n],
            best: starts.clone(),
            best_loss: vec![f32::NEG_INFINITY; n],
            without_gradient: vec![false; n],
        };
        let mut walkers: Vec<Walker> = starts
            .chunks(len)
            .enumerate()
            .map(|(image, x)| Walker {
                image,
                x: x.to_vec(),
                before: x.to_vec(),
                gradient: vec![0.0; len],
                best: x.to_vec(),
                best_gradient: vec![0.0; len],
                best_loss: f32::NEG_INFINITY,
                best_loss_before: f32::NEG_INFINITY,
                step: 2.0 * self.epsilon,
                halved: true,
                losses: Vec::with_capacity(self.steps as usize),
            })
            .collect();
        let reviews = checkpoints(self.steps);
        let mut reviewed = 0;
        for i in 0..=self.steps {
            if walkers.is_empty() {
                break;
            }
            oracle.tick(done(f64::from(i) / f64::from(self.steps.max(1))))?;
            if let Some(step) = i.checked_sub(1) {
                walkers.par_iter_mut().for_each(|w| w.walk(self, &images[w.image * len..][..len], step));
            }
            let (losses, gradients) = self.evaluate(oracle, labels, &walkers, &mut found)?;
            let seen_by = walkers.par_iter_mut().zip(&losses).zip(gradients.par_chunks(len));
            seen_by.for_each(|((w, loss), gradient)| {
                w.observe(*loss, gradient);
                if i == 0 {
                    w.losses.clear();
                    w.best_loss_before = *loss;
                }
            });
            if i > 0 && reviews.contains(&i) {
                walkers.par_iter_mut().for_each(|w| w.review((i - reviewed) as usize, self.steps));
                reviewed = i;
            }
            let state: Vec<_> = walkers
                .iter()
                .zip(&losses)
                .map(|(w, loss)| Iterate { image: w.image, step: w.step, loss: *loss, x: &w.x })
                .collect();
            seen(i, &state);
            if self.stop_at_success {
                walkers.retain(|w| !found.fooled[w.image]);
            }
        }
        for w in walkers {
            found.best[w.image * len..][..len].copy_from_slice(&w.best);
            found.best_loss[w.image] = w.best_loss;
        }
        Ok(found)
    }

    /// Losses and gradients at the iterates of all walkers; notes the misclassified ones.
    fn evaluate(
        &self,
        oracle: &mut Oracle<'_>,
        labels: &[u32],
        walkers: &[Walker],
        found: &mut Found,
    ) -> Result<(Vec<f32>, Vec<f32>), AttackError> {
        let (len, classes) = (oracle.shape().len(), oracle.classes());
        let batch: Vec<f32> = walkers.iter().flat_map(|w| w.x.iter().copied()).collect();
        let at: Vec<usize> = walkers.iter().map(|w| w.image).collect();
        let own: Vec<u32> = at.iter().map(|image| labels[*image]).collect();
        let objective = self.loss.objective(&at, classes);
        let aim = match &objective {
            Objective::CrossEntropy => Aim::CrossEntropy,
            Objective::Dlr => Aim::Dlr,
            Objective::DlrTowards(targets) => Aim::DlrTowards(targets),
            Objective::MarginTo(targets) => Aim::MarginTo(targets),
            _ => Aim::Margin,
        };
        let (logits, gradients) = oracle.gradient(&batch, &own, &aim)?;
        let (losses, _) = loss::objective(&objective, &logits, &own, classes, None)?;
        for (((image, z), x), gradient) in
            at.iter().zip(logits.chunks(classes)).zip(batch.chunks(len)).zip(gradients.chunks(len))
        {
            if loss::argmax(z) != labels[*image] {
                found.fooled[*image] = true;
                found.adversarial[image * len..][..len].copy_from_slice(x);
            }
            found.without_gradient[*image] |= gradient.iter().all(|g| *g == 0.0);
        }
        Ok((losses, gradients))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::geometry::distance;

    #[test]
    fn checkpoints_are_those_of_the_authors() {
        assert_eq!(checkpoints(100), [22, 41, 57, 70, 80, 87, 93, 99]);
        assert_eq!(checkpoints(20), [4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(checkpoints(5), [1, 2, 3, 4, 5]);
        assert_eq!((checkpoints(1), checkpoints(0)), (vec![1], vec![]));
    }

    fn walker(losses: &[f32], best_before: f32, halved: bool) -> Walker {
        Walker {
            image: 0,
            x: vec![0.5],
            before: vec![0.4],
            gradient: vec![1.0],
            best: vec![0.7],
            best_gradient: vec![-1.0],
            best_loss: losses.iter().copied().fold(f32::NEG_INFINITY, f32::max),
            best_loss_before: best_before,
            step: 1.0,
            halved,
            losses: losses.to_vec(),
        }
    }

    #[test]
    fn steps_are_halved_by_the_two_conditions() {
        // Four of four rise: nothing happens. The first counts as a rise because it is above zero.
        let mut w = walker(&[0.1, 0.2, 0.3, 0.4], 0.05, true);
        w.review(4, 100);
        assert_eq!((w.step, w.halved, w.x[0]), (1.0, false, 0.5));
        // Three of four are at most three quarters.
        let mut w = walker(&[0.1, 0.2, 0.15, 0.4], 0.05, true);
        w.review(4, 100);
        assert_eq!((w.step, w.halved, w.x[0], w.gradient[0], w.before[0]), (0.5, true, 0.7, -1.0, 0.4));
        // Below zero, the first is no rise.
        let mut w = walker(&[-0.4, -0.3, -0.2, -0.1], -0.5, true);
        w.review(4, 100);
        assert_eq!(w.step, 0.5);
        // Rising again, but not above the best: halved only if it was not at the last checkpoint.
        for (halved, step) in [(false, 0.5), (true, 1.0)] {
            let mut w = walker(&[0.9, 0.1, 0.2, 0.3, 0.4], 0.9, halved);
            w.review(3, 100);
            assert_eq!(w.step, step);
        }
    }

    #[test]
    fn starts_touch_the_sphere() {
        let clean = [0.5, 0.5, 0.0];
        let x = start(Norm::Linf, 0.1, &clean, &[-0.5, 0.25, 0.1]);
        assert!(distance(Norm::Linf, &x, &[0.4, 0.55, 0.02]) < 1e-7, "{x:?}");
        let x = start(Norm::L2, 0.1, &clean, &[3.0, 4.0, 0.0]);
        assert!((distance(Norm::L2, &x, &clean) - 0.1).abs() < 1e-6);
    }
}
