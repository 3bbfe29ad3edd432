//! Ice on the lens, drawn: crossing needles, grain, and clouds of several sizes.
//!
//! The authors blend in crops of photos, scaled to a fifth. Their mean colours, the standard deviation within a crop of
//! 32×32 pixels and that of the crops' means were measured on five of the photos (two of which show the same ice) and
//! are the constants here; the pattern itself is invented.

use super::picture::Picture;
use super::{Draws, Severity};
use crate::rng::Stream;

/// Statistics of one photo, in units of a byte.
#[derive(Debug, Clone, Copy)]
struct Ice {
    colour: [f64; 3],
    /// Standard deviation within a crop.
    deviation: f64,
    /// Standard deviation of the mean from crop to crop.
    drift: f64,
}

const TEAL: Ice = Ice { colour: [77.0, 149.0, 166.0], deviation: 14.0, drift: 11.0 };
const PALE: Ice = Ice { colour: [201.0, 205.0, 214.0], deviation: 16.0, drift: 6.0 };
const GREY: Ice = Ice { colour: [138.0, 153.0, 166.0], deviation: 26.0, drift: 14.0 };
const DARK: Ice = Ice { colour: [112.0, 123.0, 135.0], deviation: 35.0, drift: 23.0 };
const PHOTOS: [Ice; 5] = [TEAL, PALE, PALE, GREY, DARK];

/// Angle between the two directions of the needles, in degrees.
const CROSSING: f64 = 70.0;

/// `c₀ x + c₁ ice`.
pub(super) fn frost(mut picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let (keep, strength) = severity.of([(1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]);
    let mut random = draws.part(0).sequence();
    let ice = PHOTOS[random.below(PHOTOS.len() as u32) as usize];
    let drift = ice.drift * f64::from(random.normal());
    let angle = f64::from(random.unit()) * 180.0;
    let pattern = pattern(picture.height(), picture.width(), picture.length_scale(), angle, draws);
    let colour = picture.in_channels(ice.colour);
    for (plane, colour) in picture.planes.iter_mut().zip(colour) {
        for (value, pattern) in plane.values.iter_mut().zip(&pattern) {
            let ice = (colour + drift + ice.deviation * pattern).clamp(0.0, 255.0);
            *value = keep * *value + strength * ice / 255.0;
        }
    }
    picture.truncated()
}

/// Values with mean 0 and standard deviation 1, for pixels of `1/scale` units.
pub(super) fn pattern(height: usize, width: usize, scale: f64, angle: f64, draws: &Draws) -> Vec<f64> {
    let noise = |part: u32, size: [f64; 2], turn: f64, [y, x]: [f64; 2]| {
        let (sine, cosine) = turn.to_radians().sin_cos();
        lattice(&draws.part(part), (x * cosine + y * sine) / size[0], (y * cosine - x * sine) / size[1])
    };
    let at = |y: usize, x: usize| {
        let p = [y as f64 / scale, x as f64 / scale];
        let clouds = noise(1, [16.0; 2], 0.0, p) + 0.8 * noise(2, [6.0; 2], 0.0, p);
        let needles = noise(3, [5.0, 1.2], angle, p).max(noise(4, [5.0, 1.2], angle + CROSSING, p));
        0.8 * clouds + 1.6 * needles + 0.7 * noise(5, [1.0; 2], 0.0, p)
    };
    let mut values: Vec<f64> = (0..height).flat_map(|y| (0..width).map(move |x| at(y, x))).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
    for value in &mut values {
        // A single pixel has no deviation.
        *value = if deviation > 1e-9 { (*value - mean) / deviation } else { 0.0 };
    }
    values
}

/// Smooth noise in `[0, 1)`: random values at whole coordinates, interpolated.
fn lattice(stream: &Stream, x: f64, y: f64) -> f64 {
    let (left, top) = (x.floor(), y.floor());
    let ease = |t: f64| t * t * (3.0 - 2.0 * t);
    let (u, v) = (ease(x - left), ease(y - top));
    // The lattice repeats after 4,096 cells.
    let cell = |i: f64| (i as i64).rem_euclid(4096) as u32;
    let value = |dy: f64, dx: f64| f64::from(stream.unit(cell(top + dy) * 4096 + cell(left + dx)));
    let line = |dy: f64| (1.0 - u) * value(dy, 0.0) + u * value(dy, 1.0);
    (1.0 - v) * line(0.0) + v * line(1.0)
}
