//! Drops of water or splashes of mud: smoothed noise above a threshold.

use super::blur::TRUNCATE;
use super::edges::{Bytes, canny, distance, equalize};
use super::filters::{Border, gaussian, separable};
use super::picture::{Picture, Plane};
use super::{Draws, Severity};

/// Pale turquoise.
const WATER: [f64; 3] = [175.0 / 255.0, 238.0 / 255.0, 238.0 / 255.0];
const MUD: [f64; 3] = [63.0 / 255.0, 42.0 / 255.0, 20.0 / 255.0];
/// Splashes of mud thinner than this are not visible.
const THINNEST: f64 = 0.8;

/// What lies on the lens. Lengths in pixels of a 32×32 image.
#[derive(Debug, Clone, Copy)]
enum Liquid {
    /// Drops with a bright rim of this opacity.
    Water { opacity: f64 },
    /// Splashes whose outline is smoothed by this standard deviation.
    Mud { sigma: f64 },
}

/// Mean, standard deviation, smoothing and threshold of the noise, and the liquid.
const CONSTANTS: [(f64, f64, f64, f64, Liquid); 5] = [
    (0.62, 0.1, 0.7, 0.7, Liquid::Water { opacity: 0.5 }),
    (0.65, 0.1, 0.8, 0.7, Liquid::Water { opacity: 0.5 }),
    (0.65, 0.3, 1.0, 0.69, Liquid::Water { opacity: 0.5 }),
    (0.65, 0.1, 0.7, 0.69, Liquid::Mud { sigma: 0.6 }),
    (0.65, 0.1, 0.5, 0.68, Liquid::Mud { sigma: 0.6 }),
];

/// Adds water, or covers parts with mud.
pub(super) fn spatter(mut picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let (mean, deviation, sigma, threshold, liquid) = severity.of(CONSTANTS);
    let (height, width, scale) = (picture.height(), picture.width(), picture.length_scale());
    let stream = draws.part(0);
    // Smoothing divides the deviation by the number of pixels along the filter.
    let noise = Plane::from_fn(height, width, |y, x| {
        mean + deviation * scale * f64::from(stream.normal((y * width + x) as u32))
    });
    let layer = gaussian(&noise, sigma * scale, TRUNCATE, Border::Nearest).map(|v| if v < threshold { 0.0 } else { v });
    let (mask, colour, keeps) = match liquid {
        Liquid::Water { opacity } => (drops(&layer).map(|v| v * opacity), WATER, true),
        Liquid::Mud { sigma } => {
            let solid = layer.map(|v| f64::from(u8::from(v > threshold)));
            let smooth = gaussian(&solid, sigma * scale, TRUNCATE, Border::Nearest);
            (smooth.map(|v| if v < THINNEST { 0.0 } else { v }), MUD, false)
        }
    };
    let colour = picture.in_channels(colour);
    for (plane, colour) in picture.planes.iter_mut().zip(colour) {
        for (value, mask) in plane.values.iter_mut().zip(&mask.values) {
            *value = if keeps { *value } else { *value * (1.0 - mask) } + colour * mask;
        }
    }
    picture.truncated()
}

/// Opacity of the drops, at most 1: the layer times a relief made from the distance to its edges.
///
/// Without any drop it is 0; the authors' code divides 0 by 0 there.
fn drops(layer: &Plane) -> Plane {
    let (height, width) = (layer.height, layer.width);
    // Noise above 1, which is rare, starts again at 0, as in the authors' code.
    let level: Vec<u8> = layer.values.iter().map(|v| (*v * 255.0) as u32 as u8).collect();
    let relief = relief(&level, height, width);
    let drops = Plane {
        values: level.iter().zip(relief).map(|(level, relief)| f64::from(*level) * f64::from(relief)).collect(),
        ..*layer
    };
    match drops.max() {
        0.0 => drops,
        largest => drops.map(|v| v / largest),
    }
}

/// Distance to the edges, smoothed, equalised, lit from one corner and smoothed again.
pub(super) fn relief(level: &[u8], height: usize, width: usize) -> Vec<u8> {
    const LIGHT: [[i32; 3]; 3] = [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]];
    const FARTHEST: f64 = 20.0;
    let bytes = |values| Bytes { height, width, values };
    let edges = canny(bytes(level), 50, 150);
    let distance = Plane { height, width, values: distance(&edges, width, FARTHEST) };
    let smooth = separable(&distance, &[1.0 / 3.0; 3], Border::Reflect101);
    let mut values: Vec<u8> = smooth.values.iter().map(|v| (*v + 1e-9) as u8).collect();
    equalize(&mut values);
    let lit: Vec<u8> = bytes(&values).filter(&LIGHT).into_iter().map(|v| v.clamp(0, 255) as u8).collect();
    bytes(&lit).filter(&[[1; 3]; 3]).into_iter().map(|sum| ((2 * sum + 9) / 18) as u8).collect()
}
