//! Blurs: defocus, glass, motion, zoom, Gaussian.

use super::filters::{Border, correlate, disk, gaussian as gaussian_filter, motion_taps, zoom as zoom_in};
use super::picture::{Picture, Plane, truncated};
use super::{Draws, Severity};

/// scikit-image cuts a Gaussian filter off at four standard deviations.
pub(super) const TRUNCATE: f64 = 4.0;

/// Radius of the disk and standard deviation of its smoothing, in pixels of a 32×32 image.
pub(super) const DEFOCUS: [(f64, f64); 5] = [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)];

/// Filter with a smoothed disk.
pub(super) fn defocus(picture: Picture, severity: Severity) -> Vec<u8> {
    let (radius, sigma) = severity.of(DEFOCUS);
    let scale = picture.length_scale();
    let taps = disk(radius * scale, sigma * scale, scale.round() as usize);
    picture.map_planes(|plane| correlate(&plane, &taps, Border::Reflect101)).truncated()
}

/// Gaussian filter.
pub(super) fn gaussian(picture: Picture, severity: Severity) -> Vec<u8> {
    let sigma = severity.of([0.4, 0.6, 0.7, 0.8, 1.0]) * picture.length_scale();
    picture.map_planes(|plane| gaussian_filter(&plane, sigma, TRUNCATE, Border::Nearest)).truncated()
}

/// Gaussian filter to bytes, copies of random neighbours, Gaussian filter.
///
/// From the lower right to the upper left, each pixel farther than `reach` from the edges becomes a copy of the pixel
/// at a random offset in `−reach..reach` along both axes. The authors write this as a swap, see the parent module.
pub(super) fn glass(picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let (sigma, reach, iterations) =
        severity.of([(0.05, 1.0, 1), (0.25, 1.0, 1), (0.4, 1.0, 1), (0.25, 1.0, 2), (0.4, 1.0, 2)]);
    let scale = picture.length_scale();
    let (sigma, reach) = (sigma * scale, f64::round(reach * scale) as usize);
    let filter = |plane: &Plane| gaussian_filter(plane, sigma, TRUNCATE, Border::Nearest);
    let mut picture = picture.map_planes(|plane| filter(&plane).map(|v| f64::from(truncated(v)) / 255.0));
    shuffle(&mut picture, reach, iterations, draws);
    picture.map_planes(|plane| filter(&plane)).truncated()
}

/// The copies of [`glass`].
pub(super) fn shuffle(picture: &mut Picture, reach: usize, iterations: u32, draws: &Draws) {
    let (height, width) = (picture.height(), picture.width());
    for iteration in 0..iterations {
        let mut random = draws.part(iteration).sequence();
        for y in (reach + 1..=height.saturating_sub(reach)).rev() {
            for x in (reach + 1..=width.saturating_sub(reach)).rev() {
                let dx = random.below(2 * reach as u32) as usize;
                let dy = random.below(2 * reach as u32) as usize;
                // y + reach ≤ height and dy < 2 reach, so both stay inside.
                let source = (y + dy - reach) * width + x + dx - reach;
                for plane in &mut picture.planes {
                    plane.values[y * width + x] = plane.values[source];
                }
            }
        }
    }
}

/// Blur along a line at an angle from −45° to 45°.
pub(super) fn motion(picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let (radius, sigma) = severity.of([(6.0, 1.0), (6.0, 1.5), (6.0, 2.0), (8.0, 2.0), (9.0, 2.5)]);
    let scale = picture.length_scale();
    let taps = motion_taps(radius * scale, sigma * scale, draws.between(0, -45.0, 45.0));
    picture.map_planes(|plane| correlate(&plane, &taps, Border::Nearest)).rounded()
}

/// The number of factors, in steps of 0.01 from 1.
pub(super) const ZOOMS: [u32; 5] = [7, 12, 16, 21, 26];

/// `numpy.arange` computes its step from the first two values. The difference to 0.01 decides how 26 · 1.25 is rounded.
const ZOOM_STEP: f64 = 1.01 - 1.0;

/// Mean of the image and of the image at every zoom factor (with 1 among them).
pub(super) fn zoom(picture: Picture, severity: Severity) -> Vec<u8> {
    let count = severity.of(ZOOMS);
    picture
        .map_planes(|plane| {
            let mut sum = plane.clone();
            for i in 0..count {
                let layer = zoom_in(&plane, 1.0 + ZOOM_STEP * f64::from(i));
                for (total, value) in sum.values.iter_mut().zip(layer.values) {
                    *total += value;
                }
            }
            sum.map(|total| total / f64::from(count + 1))
        })
        .truncated()
}
