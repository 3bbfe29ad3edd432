//! Falling snow: random flakes, blurred along their fall.

use super::filters::{Border, correlate, motion_taps, zoom};
use super::picture::{Picture, Plane, rounded, truncated};
use super::{Draws, Severity};

/// Constants of a severity; lengths in pixels of a 32×32 image.
#[derive(Debug, Clone, Copy)]
struct Constants {
    mean: f64,
    deviation: f64,
    zoom: f64,
    threshold: f64,
    radius: f64,
    sigma: f64,
    /// Weight of the image; the rest is the image after whitening.
    keep: f64,
}

const fn constants([mean, deviation, zoom, threshold, radius, sigma, keep]: [f64; 7]) -> Constants {
    Constants { mean, deviation, zoom, threshold, radius, sigma, keep }
}

/// Whitens the image, then adds the layer of flakes and the layer rotated by 180°.
pub(super) fn snow(mut picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let c = severity.of([
        constants([0.1, 0.2, 1.0, 0.6, 8.0, 3.0, 0.95]),
        constants([0.1, 0.2, 1.0, 0.5, 10.0, 4.0, 0.9]),
        constants([0.15, 0.3, 1.75, 0.55, 10.0, 4.0, 0.9]),
        constants([0.25, 0.3, 2.25, 0.6, 12.0, 6.0, 0.85]),
        constants([0.3, 0.3, 1.25, 0.65, 14.0, 12.0, 0.8]),
    ]);
    let layer = layer(&picture, &c, draws);
    let count = layer.values.len();
    let white: Vec<f64> = (0..count).map(|i| picture.luma(i) * 1.5 + 0.5).collect();
    for plane in &mut picture.planes {
        for (i, value) in plane.values.iter_mut().enumerate() {
            let whitened = c.keep * *value + (1.0 - c.keep) * value.max(white[i]);
            *value = whitened + layer.values[i] + layer.values[count - 1 - i];
        }
    }
    picture.truncated()
}

/// Enlarged Gaussian noise, 0 below a threshold, blurred at an angle from −135° to −45°. Bytes before and after the
/// blur, as the authors pass it to another program.
fn layer(picture: &Picture, c: &Constants, draws: &Draws) -> Plane {
    let (height, width, scale) = (picture.height(), picture.width(), picture.length_scale());
    let stream = draws.part(0);
    let noise =
        Plane::from_fn(height, width, |y, x| c.mean + c.deviation * f64::from(stream.normal((y * width + x) as u32)));
    let flakes =
        zoom(&noise, c.zoom * scale).map(|v| if v < c.threshold { 0.0 } else { f64::from(truncated(v)) / 255.0 });
    let taps = motion_taps(c.radius * scale, c.sigma * scale, draws.between(1, -135.0, -45.0));
    correlate(&flakes, &taps, Border::Nearest).map(|v| f64::from(rounded(v)) / 255.0)
}
