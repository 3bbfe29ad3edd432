//! The Square attack (Andriushchenko, Croce, Flammarion and Hein 2020: "Square attack: a query-efficient black-box
//! adversarial attack via random search", algorithms 1 to 3), as in its authors' code in AutoAttack. It needs logits only.
//!
//! Each query changes a square window of the best image so far, and keeps the change if it lowers the margin
//! `z_y - max_{i≠y} z_i`. The windows shrink on a fixed schedule. In the authors' code the images of a batch share their
//! windows; here each image has its own, so that a result does not depend on the other images.

use rayon::prelude::*;

use super::geometry::{clip, project};
use super::oracle::{AttackError, Oracle};
use crate::data::ImageShape;
use crate::engine::{Norm, loss};
use crate::rng::Sequence;

/// The share of pixels that the first windows cover.
const FIRST_SHARE: f64 = 0.8;

/// One search for each image of a batch.
pub(super) struct Square {
    pub(super) norm: Norm,
    pub(super) epsilon: f32,
    /// Queries after the first.
    pub(super) queries: u32,
}

/// What a search has found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    /// The image with the smallest margin.
    pub(super) best: Vec<f32>,
    /// Whether that is misclassified.
    pub(super) fooled: Vec<bool>,
}

/// The share of pixels that the window of a query covers.
pub(super) fn share(query: u32) -> f64 {
    let halvings = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000].iter().filter(|last| query > **last).count();
    FIRST_SHARE / f64::from(1u32 << halvings)
}

/// The side of the window of a query, in L∞ or L2.
pub(super) fn side(norm: Norm, query: u32, shape: ImageShape) -> usize {
    let covered = (share(query) * (shape.height * shape.width) as f64).sqrt().round_ties_even() as usize;
    let side = match norm {
        Norm::Linf => covered.max(1),
        Norm::L2 => covered.max(3) | 1,
    };
    side.min(shape.height).min(shape.width)
}

/// The search of one image.
struct Walker {
    image: usize,
    best: Vec<f32>,
    margin: f32,
    draws: Draws,
}

/// The random choices of a search.
#[derive(Debug, Clone)]
pub(super) enum Draws {
    /// From a stream of random numbers.
    Random(Sequence),
    /// Given, in the order in which they are asked for: numbers in `[0, 1)` for places and turns, ±1 for signs.
    #[cfg(test)]
    Given(std::collections::VecDeque<f32>),
}

impl Draws {
    fn sign(&mut self) -> f32 {
        match self {
            Self::Random(sequence) => f32::from(u8::from(sequence.unit() >= 0.5)) * 2.0 - 1.0,
            #[cfg(test)]
            Self::Given(values) => values.pop_front().unwrap(),
        }
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        match self {
            Self::Random(sequence) => sequence.below(end as u32) as usize,
            #[cfg(test)]
            Self::Given(values) => (values.pop_front().unwrap() * end as f32) as usize,
        }
    }

    fn is_turned(&mut self) -> bool {
        match self {
            Self::Random(sequence) => sequence.unit() > 0.5,
            #[cfg(test)]
            Self::Given(values) => values.pop_front().unwrap() > 0.5,
        }
    }
}

impl Square {
    /// Searches with these random choices, one sequence for each image.
    pub(super) fn run(
        &self,
        oracle: &mut Oracle<'_>,
        images: &[f32],
        labels: &[u32],
        draws: Vec<Draws>,
        done: &dyn Fn(f64) -> f64,
    ) -> Result<Found, AttackError> {
        let (shape, classes) = (oracle.shape(), oracle.classes());
        let len = shape.len();
        let mut found = Found { best: images.to_vec(), fooled: vec![false; labels.len()] };
        let walker = |(image, draws)| Walker { image, best: Vec::new(), margin: f32::INFINITY, draws };
        let mut walkers: Vec<Walker> = draws.into_iter().enumerate().map(walker).collect();
        let mut candidates = Vec::new();
        for query in 0..=self.queries {
            if walkers.is_empty() {
                break;
            }
            oracle.tick(done(f64::from(query) / f64::from(self.queries.max(1))))?;
            candidates.resize(walkers.len() * len, 0.0);
            candidates.par_chunks_mut(len).zip(&mut walkers).for_each(|(x, walker)| {
                let clean = &images[walker.image * len..][..len];
                match query.checked_sub(1) {
                    None => self.begin(shape, clean, x, &mut walker.draws),
                    Some(query) => self.propose(shape, query, clean, x, walker),
                }
            });
            let logits = oracle.logits(&candidates)?;
            for ((walker, z), x) in walkers.iter_mut().zip(logits.chunks(classes)).zip(candidates.chunks(len)) {
                let label = labels[walker.image];
                let margin = -loss::margin(z, label, 0.0, &mut vec![0.0; classes]);
                if margin < walker.margin || margin <= 0.0 || walker.best.is_empty() {
                    walker.margin = margin;
                    walker.best.clear();
                    walker.best.extend_from_slice(x);
                    found.fooled[walker.image] = loss::argmax(z) != label;
                }
                if margin <= 0.0 {
                    found.best[walker.image * len..][..len].copy_from_slice(x);
                }
            }
            walkers.retain(|walker| walker.margin > 0.0);
        }
        for walker in walkers {
            found.best[walker.image * len..][..len].copy_from_slice(&walker.best);
        }
        Ok(found)
    }

    /// The first image: vertical stripes in L∞, a grid of bumps in L2.
    fn begin(&self, shape: ImageShape, clean: &[f32], x: &mut [f32], draws: &mut Draws) {
        let (height, width) = (shape.height, shape.width);
        match self.norm {
            Norm::Linf => {
                for (plane, clean) in x.chunks_mut(height * width).zip(clean.chunks(height * width)) {
                    let signs: Vec<f32> = (0..width).map(|_| draws.sign()).collect();
                    for (i, (x, c)) in plane.iter_mut().zip(clean).enumerate() {
                        *x = c + self.epsilon * signs[i % width];
                    }
                }
                clip(x);
            }
            Norm::L2 => {
                let size = (height / 5).max(1);
                let offset = height.saturating_sub(5 * size) / 2;
                x.fill(0.0);
                let tiles =
                    |length: usize| (0..length / size).map(move |k| offset + k * size).filter(move |at| *at < length);
                for top in tiles(height) {
                    for left in tiles(width) {
                        let bumps = bumps(size, draws.is_turned());
                        for plane in x.chunks_mut(height * width) {
                            let sign = draws.sign();
                            for row in 0..size.min(height - top) {
                                for column in 0..size.min(width - left) {
                                    plane[(top + row) * width + left + column] += sign * bumps[row * size + column];
                                }
                            }
                        }
                    }
                }
                self.onto_sphere(clean, x);
            }
        }
    }

    /// Turns a perturbation into the image on the sphere in its direction, clipped to the box.
    fn onto_sphere(&self, clean: &[f32], x: &mut [f32]) {
        let scale = self.epsilon / (super::geometry::length(Norm::L2, x) + 1e-12);
        for (x, c) in x.iter_mut().zip(clean) {
            *x = (c + scale * *x).clamp(0.0, 1.0);
        }
    }

    /// A change of the best image.
    fn propose(&self, shape: ImageShape, query: u32, clean: &[f32], x: &mut [f32], walker: &mut Walker) {
        let (height, width) = (shape.height, shape.width);
        let side = side(self.norm, query, shape);
        let draws = &mut walker.draws;
        // Without the last row and column, as in the authors' code.
        let mut window = || (draws.below(height - side), draws.below(width - side));
        match self.norm {
            Norm::Linf => {
                let (top, left) = window();
                x.copy_from_slice(&walker.best);
                for plane in x.chunks_mut(height * width) {
                    let change = 2.0 * self.epsilon * walker.draws.sign();
                    for row in plane[top * width..(top + side) * width].chunks_mut(width) {
                        row[left..left + side].iter_mut().for_each(|x| *x += change);
                    }
                }
                project(Norm::Linf, self.epsilon, clean, x);
            }
            Norm::L2 => {
                let windows = [window(), window()];
                let bumps = bumps(side, walker.draws.is_turned());
                for ((x, best), c) in x.iter_mut().zip(&walker.best).zip(clean) {
                    *x = best - c;
                }
                let square = |v: f32| f64::from(v) * f64::from(v);
                let total: f64 = x.iter().map(|v| square(*v)).sum();
                let unused = (square(self.epsilon) - total).max(0.0) / shape.channels as f64;
                for plane in x.chunks_mut(height * width) {
                    let sign = walker.draws.sign();
                    let at = |(top, left): (usize, usize), i: usize| (top + i / side) * width + left + i % side;
                    let first: Vec<f32> = (0..side * side).map(|i| plane[at(windows[0], i)]).collect();
                    let own = first.iter().map(|v| square(*v)).sum::<f64>().sqrt();
                    // The energy of both windows, each value counted once.
                    let mut both: f64 = first.iter().map(|v| square(*v)).sum();
                    (0..side * side).for_each(|i| plane[at(windows[0], i)] = 0.0);
                    both += (0..side * side).map(|i| square(plane[at(windows[1], i)])).sum::<f64>();
                    (0..side * side).for_each(|i| plane[at(windows[1], i)] = 0.0);
                    let mut change: Vec<f64> = first
                        .iter()
                        .zip(&bumps)
                        .map(|(v, bump)| f64::from(sign * bump) + f64::from(*v) / (1e-12 + own))
                        .collect();
                    let length = change.iter().map(|v| v * v).sum::<f64>().sqrt();
                    let scale = (unused + both).sqrt() / (1e-12 + length);
                    change.iter_mut().for_each(|v| *v *= scale);
                    change.iter().enumerate().for_each(|(i, v)| plane[at(windows[0], i)] = *v as f32);
                }
                self.onto_sphere(clean, x);
            }
        }
    }
}

/// Two bumps of opposite sign, one above the other (or beside it), of unit length: `side × side`.
pub(super) fn bumps(side: usize, transposed: bool) -> Vec<f32> {
    let upper = side / 2;
    let mut all = bump(upper, side);
    all.extend(bump(side - upper, side).iter().map(|v| -v));
    let length = all.iter().map(|v| v * v).sum::<f64>().sqrt();
    let value = |i: usize| all[if transposed { i % side * side + i / side } else { i }] / length;
    (0..side * side).map(|i| value(i) as f32).collect()
}

/// A pyramid of rectangles around the centre, of unit length, `rows × columns`: the `m`-th ring adds `1 / (m + 1)²` to
/// all values within `m` of the centre.
fn bump(rows: usize, columns: usize) -> Vec<f64> {
    let mut all = vec![0.0; rows * columns];
    let (row, column) = (rows / 2, columns / 2);
    for ring in 0..(rows / 2 + 1).max(columns / 2 + 1) {
        let weight = 1.0 / ((ring + 1) * (ring + 1)) as f64;
        for (i, value) in all.iter_mut().enumerate() {
            if (i / columns).abs_diff(row) <= ring && (i % columns).abs_diff(column) <= ring {
                *value += weight;
            }
        }
    }
    let length = all.iter().map(|v| v * v).sum::<f64>().sqrt();
    all.iter_mut().for_each(|v| *v /= length);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::geometry::{distance, length};
    use crate::rng::{Purpose, Stream};

    #[test]
    fn windows_shrink_as_published() {
        let cifar = ImageShape::new(3, 32, 32);
        let sides = |norm, shape| {
            let mut all: Vec<usize> = (0..5000).map(|query| side(norm, query, shape)).collect();
            all.dedup();
            all
        };
        assert_eq!(sides(Norm::Linf, cifar), [29, 20, 14, 10, 7, 5, 4, 3]);
        assert_eq!(sides(Norm::L2, cifar), [29, 21, 15, 11, 7, 5, 3]);
        assert_eq!([10, 11, 50, 51, 4000, 4001, 9000].map(share), [0.8, 0.4, 0.4, 0.2, 0.0125, 0.00625, 0.8 / 512.0]);
        assert_eq!(side(Norm::L2, 0, ImageShape::new(1, 2, 5)), 2);
    }

    #[test]
    fn bumps_are_balanced_and_of_unit_length() {
        for side in 1..9 {
            for transposed in [false, true] {
                let all = bumps(side, transposed);
                assert!((length(Norm::L2, &all) - 1.0).abs() < 1e-6);
            }
            let (plain, transposed) = (bumps(side, false), bumps(side, true));
            assert!((0..side * side).all(|i| plain[i] == transposed[i % side * side + i / side]));
        }
    }

    /// The published code lays five tiles of six pixels, from the second pixel on: the border keeps its values.
    #[test]
    fn the_first_image_in_l2_has_as_many_tiles_as_published() {
        for (side, inside) in [(32, 1..31), (28, 1..26), (8, 1..8)] {
            let shape = ImageShape::new(1, side, side);
            let square = Square { norm: Norm::L2, epsilon: 0.5, queries: 1 };
            let clean = vec![0.5; shape.len()];
            let mut x = clean.clone();
            let mut draws = Draws::Random(Stream::new(1, Purpose::Test, 1, 0).sequence());
            square.begin(shape, &clean, &mut x, &mut draws);
            let changed = |at: usize| (0..side).any(|other| x[at * side + other] != 0.5);
            let rows: Vec<usize> = (0..side).filter(|row| changed(*row)).collect();
            assert_eq!((rows.first(), rows.last()), (Some(&inside.start), Some(&(inside.end - 1))), "{side}");
        }
    }

    #[test]
    fn every_proposal_is_in_ball_and_box() {
        for (shape, norm, epsilon) in [
            (ImageShape::new(3, 8, 8), Norm::Linf, 0.1),
            (ImageShape::new(3, 8, 8), Norm::L2, 0.7),
            (ImageShape::new(1, 1, 1), Norm::Linf, 0.1),
            (ImageShape::new(1, 1, 1), Norm::L2, 0.1),
            (ImageShape::new(1, 3, 7), Norm::L2, 0.5),
            (ImageShape::new(1, 7, 3), Norm::Linf, 0.5),
            (ImageShape::new(3, 12, 12), Norm::L2, 0.5),
        ] {
            let square = Square { norm, epsilon, queries: 100 };
            let mut clean = vec![0.0; shape.len()];
            Stream::new(1, Purpose::Test, 0, 0).fill_symmetric(&mut clean);
            clean.iter_mut().for_each(|v| *v = (*v + 0.5).clamp(0.0, 1.0));
            let draws = Draws::Random(Stream::new(1, Purpose::Test, 1, 0).sequence());
            let mut walker = Walker { image: 0, best: vec![], margin: 1.0, draws };
            let mut x = vec![0.0; shape.len()];
            square.begin(shape, &clean, &mut x, &mut walker.draws);
            for query in 0..100 {
                assert!(x.iter().all(|v| (0.0..=1.0).contains(v)), "{shape} {norm:?} {x:?}");
                assert!(distance(norm, &x, &clean) <= epsilon * 1.0001, "{shape} {norm:?}");
                walker.best = x.clone();
                square.propose(shape, 50 * query, &clean, &mut x, &mut walker);
            }
        }
    }
}
