//! A random affine map, then a field of small displacements.

use super::filters::{Border, bilinear, gaussian};
use super::picture::{Picture, Plane};
use super::{Draws, Severity};

/// The authors cut the field's filter off at three standard deviations.
const TRUNCATE: f64 = 3.0;

/// Amplitude and smoothing of the displacements, and the reach of the affine map, in sides of the image.
const CONSTANTS: [(f64, f64, f64); 5] =
    [(0.0, 0.0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)];

/// Moves three corners of a square by up to the reach along both axes and the rest of the image with them; then each
/// pixel takes the value at a displaced point.
pub(super) fn elastic(picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let (alpha, sigma, reach) = severity.of(CONSTANTS);
    let (height, width, scale) = (picture.height(), picture.width(), picture.length_scale());
    let side = height.min(width) as f64;
    let source = affine(height, width, reach * side, draws);
    let moved = picture.map_planes(|plane| {
        Plane::from_fn(height, width, |y, x| {
            let [x, y] = source([x as f64, y as f64]);
            bilinear(&plane, y, x, Border::Reflect101)
        })
    });
    if alpha == 0.0 {
        return moved.truncated();
    }
    let field = |part: u32| {
        let stream = draws.part(part);
        let noise = Plane::from_fn(height, width, |y, x| f64::from(stream.symmetric((y * width + x) as u32)));
        gaussian(&noise, sigma * side, TRUNCATE, Border::Reflect).map(|v| v * alpha * side * scale)
    };
    let (right, down) = (field(1), field(2));
    moved
        .map_planes(|plane| {
            Plane::from_fn(height, width, |y, x| {
                bilinear(&plane, y as f64 + down.at(y, x), x as f64 + right.at(y, x), Border::Reflect)
            })
        })
        .truncated()
}

/// For a point of the result, the point of the image that it shows. The identity for images of fewer than three pixels
/// along a side, which have no square of three distinct corners.
fn affine(height: usize, width: usize, reach: f64, draws: &Draws) -> impl Fn([f64; 2]) -> [f64; 2] {
    let stream = draws.part(0);
    let (x, y) = ((width / 2) as f64, (height / 2) as f64);
    let size = (height.min(width) / 3) as f64;
    let corners = [[x + size, y + size], [x + size, y - size], [x - size, y - size]];
    let shift = |i: usize| reach * f64::from(stream.symmetric(i as u32));
    let moved = [0, 1, 2].map(|i| [corners[i][0] + shift(2 * i), corners[i][1] + shift(2 * i + 1)]);
    // From the second corner: p ↦ corner + a (p − moved corner), where a maps the moved edges to the edges.
    let edge = |points: [[f64; 2]; 3], i: usize| [points[i][0] - points[1][0], points[i][1] - points[1][1]];
    let ([p, q], [u, v]) = ([edge(moved, 0), edge(moved, 2)], [edge(corners, 0), edge(corners, 2)]);
    let determinant = p[0] * q[1] - p[1] * q[0];
    let row = |i: usize| [(u[i] * q[1] - v[i] * p[1]) / determinant, (v[i] * p[0] - u[i] * q[0]) / determinant];
    let a = if size > 0.0 { [row(0), row(1)] } else { [[1.0, 0.0], [0.0, 1.0]] };
    let (from, to) = if size > 0.0 { (moved[1], corners[1]) } else { ([0.0; 2], [0.0; 2]) };
    move |point| {
        let d = [point[0] - from[0], point[1] - from[1]];
        [0, 1].map(|i| to[i] + a[i][0] * d[0] + a[i][1] * d[1])
    }
}
