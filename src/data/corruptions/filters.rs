//! Linear filters of planes, with the borders and truncations of the libraries that the authors used.

use super::picture::Plane;

/// What a filter reads beyond the edge of `a b c d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Border {
    /// `a a | a b c d | d d`: the default of scikit-image and ImageMagick.
    Nearest,
    /// `b a | a b c d | d c`: SciPy's `reflect`.
    Reflect,
    /// `c b | a b c d | c b`: OpenCV's default, `BORDER_REFLECT_101`.
    Reflect101,
}

impl Border {
    /// The position within `0..n` that stands for `i`; `n` must not be 0.
    pub(super) fn index(self, i: isize, n: usize) -> usize {
        let last = n as isize - 1;
        let folded = match self {
            Self::Nearest => i.clamp(0, last),
            Self::Reflect => {
                let j = i.rem_euclid(2 * n as isize);
                j.min(2 * last + 1 - j)
            }
            Self::Reflect101 if n == 1 => 0,
            Self::Reflect101 => {
                let j = i.rem_euclid(2 * last);
                j.min(2 * last - j)
            }
        };
        folded as usize
    }
}

/// `exp(−i²/2σ²)` for `i` from `−radius` to `radius`, normalised.
pub(super) fn gaussian_weights(sigma: f64, radius: usize) -> Vec<f64> {
    let at = |i: usize| {
        let x = i as f64 - radius as f64;
        (-0.5 * x * x / (sigma * sigma)).exp()
    };
    let weights: Vec<f64> = (0..2 * radius + 1).map(at).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Gaussian filter, cut off at `truncate` standard deviations. No effect if that is less than half a pixel.
pub(super) fn gaussian(plane: &Plane, sigma: f64, truncate: f64, border: Border) -> Plane {
    let radius = (truncate * sigma + 0.5) as usize;
    if radius == 0 {
        return plane.clone();
    }
    separable(plane, &gaussian_weights(sigma, radius), border)
}

/// Filters the columns, then the rows, with weights of odd number.
pub(super) fn separable(plane: &Plane, weights: &[f64], border: Border) -> Plane {
    let (height, width, radius) = (plane.height, plane.width, weights.len() / 2);
    let mut out = plane.clone();
    let mut line = Vec::new();
    let mut filter = |values: &mut [f64], start: usize, step: usize, n: usize| {
        line.clear();
        line.extend((0..n + 2 * radius).map(|i| values[start + step * border.index(i as isize - radius as isize, n)]));
        for (i, window) in line.windows(weights.len()).enumerate() {
            values[start + step * i] = window.iter().zip(weights).map(|(v, w)| v * w).sum();
        }
    };
    for x in 0..width {
        filter(&mut out.values, x, width, height);
    }
    for y in 0..height {
        filter(&mut out.values, y * width, 1, width);
    }
    out
}

/// A value of a filter's kernel: `weight` times the pixel at `dy` rows below and `dx` columns to the right.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tap {
    pub(super) dy: isize,
    pub(super) dx: isize,
    pub(super) weight: f64,
}

/// The sum over `taps` at every pixel.
pub(super) fn correlate(plane: &Plane, taps: &[Tap], border: Border) -> Plane {
    let mut out = Plane { values: vec![0.0; plane.values.len()], ..*plane };
    let (mut rows, mut columns) = (vec![0; plane.height], vec![0; plane.width]);
    for tap in taps {
        for (y, row) in rows.iter_mut().enumerate() {
            *row = border.index(y as isize + tap.dy, plane.height) * plane.width;
        }
        for (x, column) in columns.iter_mut().enumerate() {
            *column = border.index(x as isize + tap.dx, plane.width);
        }
        for (row, line) in rows.iter().zip(out.values.chunks_exact_mut(plane.width)) {
            for (column, value) in columns.iter().zip(line) {
                *value += tap.weight * plane.values[row + column];
            }
        }
    }
    out
}

/// A disk of `radius` pixels, smoothed by a Gaussian of `sigma` that is cut off at `smoothing` pixels; the sum is 1.
pub(super) fn disk(radius: f64, sigma: f64, smoothing: usize) -> Vec<Tap> {
    let half = radius.ceil() as usize + smoothing;
    let offset = |i: usize| i as f64 - half as f64;
    let side = 2 * half + 1;
    let mut kernel = Plane::from_fn(side, side, |y, x| {
        f64::from(u8::from(offset(y) * offset(y) + offset(x) * offset(x) <= radius * radius))
    });
    let sum: f64 = kernel.values.iter().sum();
    // OpenCV's kernel has single precision. Its sum exceeds 1 a little more often than not, which keeps values such as
    // 99.999… from being truncated.
    let single = |v: f64| f64::from(v as f32);
    kernel = kernel.map(|v| single(v / sum));
    // The kernel is 0 within `smoothing` pixels of its edge, so the border does not matter.
    kernel = separable(&kernel, &gaussian_weights(sigma, smoothing), Border::Nearest);
    let tap = |(i, weight): (usize, &f64)| {
        let place = |i: usize| i as isize - half as isize;
        Tap { dy: place(i / side), dx: place(i % side), weight: single(*weight) }
    };
    kernel.values.iter().enumerate().map(tap).filter(|tap| tap.weight > 0.0).collect()
}

/// ImageMagick's motion blur: `2⌈radius⌉ + 1` pixels on a line at `angle` degrees from the x axis, with the weights of
/// one half of a Gaussian.
pub(super) fn motion_taps(radius: f64, sigma: f64, angle: f64) -> Vec<Tap> {
    let count = 2 * radius.ceil() as usize + 1;
    let weights: Vec<f64> = (0..count).map(|i| (-0.5 * (i * i) as f64 / (sigma * sigma)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let (sine, cosine) = angle.to_radians().sin_cos();
    let place = |i: usize, along: f64| (i as f64 * along - 0.5).ceil() as isize;
    let tap = |(i, w): (usize, f64)| Tap { dy: place(i, sine), dx: place(i, cosine), weight: w / sum };
    weights.into_iter().enumerate().map(tap).collect()
}

/// The centre of the plane, enlarged `factor` times (at least 1) to the size of the plane.
///
/// The cut has `⌈n/factor⌉` of `n` rows. It is enlarged linearly to `round(⌈n/factor⌉ · factor)` rows so that the outer
/// pixels of both coincide (`scipy.ndimage.zoom`), and of these the middle `n` are kept.
pub(super) fn zoom(plane: &Plane, factor: f64) -> Plane {
    let (rows, columns) = (zoom_positions(plane.height, factor), zoom_positions(plane.width, factor));
    Plane::from_fn(plane.height, plane.width, |y, x| {
        let ((y, v), (x, u)) = (rows[y], columns[x]);
        let (below, right) = ((y + 1).min(plane.height - 1), (x + 1).min(plane.width - 1));
        let upper = (1.0 - u) * plane.at(y, x) + u * plane.at(y, right);
        let lower = (1.0 - u) * plane.at(below, x) + u * plane.at(below, right);
        (1.0 - v) * upper + v * lower
    })
}

/// For each of `n` positions the source position below it and the weight of the next one.
fn zoom_positions(n: usize, factor: f64) -> Vec<(usize, f64)> {
    let cut = (n as f64 / factor).ceil();
    let first = ((n as f64 - cut) / 2.0).floor();
    let enlarged = (cut * factor).round_ties_even().max(n as f64);
    let trim = ((enlarged - n as f64) / 2.0).floor();
    let ratio = if enlarged > 1.0 { (cut - 1.0) / (enlarged - 1.0) } else { 0.0 };
    let position = |i: usize| {
        let at = (i as f64 + trim) * ratio;
        ((first + at) as usize, at.fract())
    };
    (0..n).map(position).collect()
}

/// Bilinear interpolation at the point (`y`, `x`), where pixel centres have whole numbers.
pub(super) fn bilinear(plane: &Plane, y: f64, x: f64, border: Border) -> f64 {
    let (top, left) = (y.floor(), x.floor());
    let (v, u) = (y - top, x - left);
    let row = |i: isize| border.index(top as isize + i, plane.height);
    let column = |i: isize| border.index(left as isize + i, plane.width);
    let line = |i: isize| (1.0 - u) * plane.at(row(i), column(0)) + u * plane.at(row(i), column(1));
    (1.0 - v) * line(0) + v * line(1)
}
