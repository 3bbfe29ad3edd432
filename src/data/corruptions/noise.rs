//! Noise on every value: Gaussian, shot, impulse and speckle noise.
//!
//! Number `i` of the part is for value `i` of the image, in planar order.

use std::sync::OnceLock;

use super::picture::{Picture, truncated};
use super::{Draws, Severity};

/// `x + N(0, c)`.
pub(super) fn gaussian(mut picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let c = severity.of([0.04, 0.06, 0.08, 0.09, 0.10]);
    add(&mut picture, draws, |_, normal| c * normal);
    picture.truncated()
}

/// `x + x N(0, c)`.
pub(super) fn speckle(mut picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let c = severity.of([0.06, 0.1, 0.12, 0.16, 0.2]);
    add(&mut picture, draws, |x, normal| x * (c * normal));
    picture.truncated()
}

/// Adds `noise(value, standard normal number)` to every value.
fn add(picture: &mut Picture, draws: &Draws, noise: impl Fn(f64, f64) -> f64) {
    let stream = draws.part(0);
    let values = picture.planes.iter_mut().flat_map(|plane| &mut plane.values);
    for (i, value) in values.enumerate() {
        *value += noise(*value, f64::from(stream.normal(i as u32)));
    }
}

/// Photons per unit of brightness.
pub(super) const PHOTONS: [f64; 5] = [500.0, 250.0, 100.0, 75.0, 50.0];

/// `Poisson(x c) / c`, by inversion of the distribution function at the word `(w + ½) / 2³²`.
pub(super) fn shot(image: &[u8], severity: Severity, draws: &Draws) -> Vec<u8> {
    static TABLES: [OnceLock<Vec<Poisson>>; 5] = [const { OnceLock::new() }; 5];
    let c = severity.of(PHOTONS);
    let tables = TABLES[usize::from(severity.get()) - 1]
        .get_or_init(|| (0..=255).map(|byte| Poisson::new(f64::from(byte) / 255.0 * c)).collect());
    let stream = draws.part(0);
    let value = |(i, byte): (usize, &u8)| {
        let uniform = (f64::from(stream.word(i as u32)) + 0.5) / 4_294_967_296.0;
        truncated(tables[usize::from(*byte)].quantile(uniform) / c)
    };
    image.iter().enumerate().map(value).collect()
}

/// The distribution function of a Poisson variable.
#[derive(Debug)]
pub(super) struct Poisson {
    /// The value that the first entry is for.
    first: usize,
    /// `P(X ≤ first + i)`.
    cumulative: Vec<f64>,
}

impl Poisson {
    /// Entries for the values within ten standard deviations and a few more.
    pub(super) fn new(mean: f64) -> Self {
        let reach = 10.0 * mean.sqrt() + 20.0;
        let (first, last) = ((mean - reach).max(0.0) as usize, (mean + reach) as usize);
        let mode = mean as usize;
        // Relative to the mode, so that nothing underflows: p(k + 1) = p(k) mean / (k + 1).
        let mut weights = vec![1.0; last - first + 1];
        for k in mode + 1..=last {
            weights[k - first] = weights[k - 1 - first] * mean / k as f64;
        }
        for k in (first..mode).rev() {
            weights[k - first] = weights[k + 1 - first] * (k + 1) as f64 / mean;
        }
        let sum: f64 = weights.iter().sum();
        let mut below = 0.0;
        for weight in &mut weights {
            below += *weight / sum;
            *weight = below;
        }
        Self { first, cumulative: weights }
    }

    /// The smallest `k` with `P(X ≤ k) ≥ uniform`.
    pub(super) fn quantile(&self, uniform: f64) -> f64 {
        (self.first + self.cumulative.partition_point(|p| *p < uniform)) as f64
    }
}

/// Shares of the values that [`impulse`] replaces.
pub(super) const IMPULSES: [f64; 5] = [0.01, 0.02, 0.03, 0.05, 0.07];

/// A share of the values becomes 0 or 255, both with probability ½. Channels are independent.
pub(super) fn impulse(image: &[u8], severity: Severity, draws: &Draws) -> Vec<u8> {
    let share = severity.of(IMPULSES);
    let (flip, side) = (draws.part(0), draws.part(1));
    let value = |(i, byte): (usize, &u8)| match i as u32 {
        i if f64::from(flip.unit(i)) >= share => *byte,
        i if side.unit(i) < 0.5 => 255,
        _ => 0,
    };
    image.iter().enumerate().map(value).collect()
}
