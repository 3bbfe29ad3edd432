//! Brightness, contrast and saturation. HSV as in scikit-image: all three in `[0, 1]`.

use super::Severity;
use super::picture::Picture;

/// The value in HSV plus a constant.
pub(super) fn brightness(picture: Picture, severity: Severity) -> Vec<u8> {
    let c = severity.of([0.05, 0.1, 0.15, 0.2, 0.3]);
    if picture.planes.len() != 3 {
        return picture.map_planes(|plane| plane.map(|v| v + c)).truncated();
    }
    in_hsv(picture, |[h, s, v]| [h, s, (v + c).clamp(0.0, 1.0)])
}

/// The saturation in HSV times a constant plus another. A grey pixel of an image with three channels has hue 0, so it
/// becomes reddish at severities 4 and 5, as in the authors' code. An image with one channel stays as it is.
pub(super) fn saturate(picture: Picture, severity: Severity) -> Vec<u8> {
    let (factor, offset) = severity.of([(0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)]);
    if picture.planes.len() != 3 {
        return picture.rounded();
    }
    in_hsv(picture, |[h, s, v]| [h, (s * factor + offset).clamp(0.0, 1.0), v])
}

/// `(x − mean) c + mean`, with the mean of each channel.
pub(super) fn contrast(picture: Picture, severity: Severity) -> Vec<u8> {
    let c = severity.of([0.75, 0.5, 0.4, 0.3, 0.15]);
    picture
        .map_planes(|plane| {
            let mean = plane.values.iter().sum::<f64>() / plane.values.len() as f64;
            plane.map(|v| (v - mean) * c + mean)
        })
        .truncated()
}

fn in_hsv(mut picture: Picture, change: impl Fn([f64; 3]) -> [f64; 3]) -> Vec<u8> {
    for i in 0..picture.planes[0].values.len() {
        let colour = [0, 1, 2].map(|c| picture.planes[c].values[i]);
        let changed = hsv_to_rgb(change(rgb_to_hsv(colour)));
        for (plane, value) in picture.planes.iter_mut().zip(changed) {
            plane.values[i] = value;
        }
    }
    picture.truncated()
}

pub(super) fn rgb_to_hsv([red, green, blue]: [f64; 3]) -> [f64; 3] {
    let value = red.max(green).max(blue);
    let spread = value - red.min(green).min(blue);
    if spread == 0.0 {
        return [0.0, 0.0, value];
    }
    // A tie goes to blue, then green.
    let sixths = if blue == value {
        4.0 + (red - green) / spread
    } else if green == value {
        2.0 + (blue - red) / spread
    } else {
        (green - blue) / spread
    };
    [(sixths / 6.0).rem_euclid(1.0), spread / value, value]
}

pub(super) fn hsv_to_rgb([hue, saturation, value]: [f64; 3]) -> [f64; 3] {
    let sector = (hue * 6.0).floor();
    let fraction = hue * 6.0 - sector;
    let low = value * (1.0 - saturation);
    let falling = value * (1.0 - fraction * saturation);
    let rising = value * (1.0 - (1.0 - fraction) * saturation);
    match sector as u32 % 6 {
        0 => [value, rising, low],
        1 => [falling, value, low],
        2 => [low, value, rising],
        3 => [low, falling, value],
        4 => [rising, low, value],
        _ => [value, low, falling],
    }
}
