//! Outlines as signed distances: negative inside, positive outside, in pixels.
//!
//! Only `+ − × ÷ √` and comparisons, which IEEE 754 defines to the last bit, so an image is the same on every machine.
//! The formulas are the usual ones for boxes, polygons and ellipses (for instance I. Quilez, "2D distance functions").

/// A point or vector in pixels.
pub(super) type Point = [f32; 2];

pub(super) const fn minus(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1]]
}

pub(super) const fn dot(a: Point, b: Point) -> f32 {
    a[0] * b[0] + a[1] * b[1]
}

pub(super) fn length(a: Point) -> f32 {
    dot(a, a).sqrt()
}

/// A plane figure centred on the origin.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outline {
    /// Semi-axes along x and y.
    Ellipse(Point),
    /// Radius of the middle line and half the width.
    Ring(f32, f32),
    /// Half the sides along x and y.
    Rectangle(Point),
    /// Two crossing bars: half length and half width.
    Cross(f32, f32),
    /// Three parallel bars along x: half the sides of one, and the distance between neighbours.
    Stripes(Point, f32),
    /// Corners in order.
    Polygon(Vec<Point>),
}

impl Outline {
    /// Signed distance of `p`. Exact except for the ellipse, where it is exact to first order at the outline.
    pub(super) fn distance(&self, p: Point) -> f32 {
        match self {
            Self::Ellipse(semi) => ellipse(p, *semi),
            Self::Ring(radius, half) => (length(p) - radius).abs() - half,
            Self::Rectangle(half) => rectangle(p, *half),
            Self::Cross(long, short) => rectangle(p, [*long, *short]).min(rectangle(p, [*short, *long])),
            Self::Stripes(half, step) => [-step, 0.0, *step]
                .into_iter()
                .map(|y| rectangle([p[0], p[1] - y], *half))
                .fold(f32::INFINITY, f32::min),
            Self::Polygon(corners) => polygon(p, corners),
        }
    }
}

fn rectangle(p: Point, half: Point) -> f32 {
    let q = [p[0].abs() - half[0], p[1].abs() - half[1]];
    length([q[0].max(0.0), q[1].max(0.0)]) + q[0].max(q[1]).min(0.0)
}

/// `f / |∇f|` of the implicit form `f = |p / semi| − 1`.
fn ellipse(p: Point, semi: Point) -> f32 {
    let scaled = [p[0] / semi[0], p[1] / semi[1]];
    let level = length(scaled);
    let slope = length([scaled[0] / semi[0], scaled[1] / semi[1]]);
    if slope == 0.0 { -semi[0].min(semi[1]) } else { level * (level - 1.0) / slope }
}

/// Distance to the nearest edge; the sign follows from the number of edges that a ray from `p` towards +x crosses.
fn polygon(p: Point, corners: &[Point]) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    for (i, &a) in corners.iter().enumerate() {
        let b = corners[(i + 1) % corners.len()];
        nearest = nearest.min(segment_squared(p, a, b));
        let (above_a, above_b) = (a[1] > p[1], b[1] > p[1]);
        if above_a != above_b && p[0] < a[0] + (p[1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) {
            inside = !inside;
        }
    }
    let nearest = nearest.sqrt();
    if inside { -nearest } else { nearest }
}

/// Distance of `p` from the segment from `a` to `b`.
pub(super) fn segment(p: Point, a: Point, b: Point) -> f32 {
    segment_squared(p, a, b).sqrt()
}

fn segment_squared(p: Point, a: Point, b: Point) -> f32 {
    let (along, to) = (minus(b, a), minus(p, a));
    let squared = dot(along, along);
    let t = if squared == 0.0 { 0.0 } else { (dot(to, along) / squared).clamp(0.0, 1.0) };
    let rest = [to[0] - t * along[0], to[1] - t * along[1]];
    dot(rest, rest)
}

/// Corners of a regular triangle with circumradius 1, the first one up (−y).
pub(super) const TRIANGLE: [Point; 3] = [[0.0, -1.0], [0.866_025_4, 0.5], [-0.866_025_4, 0.5]];

/// Directions of the ten corners of a five-point star, alternately outer and inner.
const TENTHS: [Point; 10] = [
    [0.0, -1.0],
    [0.587_785_25, -0.809_017],
    [0.951_056_5, -0.309_017],
    [0.951_056_5, 0.309_017],
    [0.587_785_25, 0.809_017],
    [0.0, 1.0],
    [-0.587_785_25, 0.809_017],
    [-0.951_056_5, 0.309_017],
    [-0.951_056_5, -0.309_017],
    [-0.587_785_25, -0.809_017],
];

/// Directions of the twelve corners of a six-point star, alternately outer and inner.
const TWELFTHS: [Point; 12] = [
    [0.0, -1.0],
    [0.5, -0.866_025_4],
    [0.866_025_4, -0.5],
    [1.0, 0.0],
    [0.866_025_4, 0.5],
    [0.5, 0.866_025_4],
    [0.0, 1.0],
    [-0.5, 0.866_025_4],
    [-0.866_025_4, 0.5],
    [-1.0, 0.0],
    [-0.866_025_4, -0.5],
    [-0.5, -0.866_025_4],
];

/// A five-point star with points at radius `outer` and notches at radius `inner`.
pub(super) fn star5(outer: f32, inner: f32) -> Outline {
    star(&TENTHS, outer, inner)
}

/// A six-point star with points at radius `outer` and notches at radius `inner`.
pub(super) fn star6(outer: f32, inner: f32) -> Outline {
    star(&TWELFTHS, outer, inner)
}

fn star(directions: &[Point], outer: f32, inner: f32) -> Outline {
    let corner = |(i, d): (usize, &Point)| {
        let radius = if i % 2 == 0 { outer } else { inner };
        [d[0] * radius, d[1] * radius]
    };
    Outline::Polygon(directions.iter().enumerate().map(corner).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f32, expected: f32) {
        assert!((found - expected).abs() < 1e-5, "found {found}, expected {expected}");
    }

    #[test]
    fn distances_at_known_points() {
        close(Outline::Rectangle([3.0, 2.0]).distance([6.0, 6.0]), 5.0);
        close(Outline::Rectangle([3.0, 2.0]).distance([0.5, 0.0]), -2.0);
        close(Outline::Ring(5.0, 1.0).distance([0.0, 0.0]), 4.0);
        close(Outline::Ring(5.0, 1.0).distance([3.0, 4.0]), -1.0);
        close(Outline::Cross(4.0, 1.0).distance([3.0, 3.0]), 2.0);
        close(Outline::Stripes([4.0, 1.0], 3.0).distance([0.0, 4.5]), 0.5);
        close(Outline::Ellipse([4.0, 2.0]).distance([0.0, 0.0]), -2.0);
        close(Outline::Ellipse([3.0, 3.0]).distance([3.0, 4.0]), 2.0);
        close(Outline::Polygon(TRIANGLE.to_vec()).distance([0.0, 0.0]), -0.5);
        close(Outline::Polygon(TRIANGLE.to_vec()).distance([0.0, -3.0]), 2.0);
        close(segment([1.0, 1.0], [2.0, 1.0], [2.0, 1.0]), 1.0);
    }

    #[test]
    fn an_ellipse_is_zero_on_its_outline_and_rises_by_one() {
        let outline = Outline::Ellipse([7.0, 4.0]);
        for k in 0..24 {
            let (s, c) = (k as f32 / 24.0 * std::f32::consts::TAU).sin_cos();
            let on = [7.0 * c, 4.0 * s];
            assert!(outline.distance(on).abs() < 1e-4);
            let normal = [c / 7.0, s / 4.0];
            let size = length(normal);
            let out = [on[0] + 0.01 * normal[0] / size, on[1] + 0.01 * normal[1] / size];
            assert!((outline.distance(out) - 0.01).abs() < 1e-3);
        }
    }

    #[test]
    fn stars_have_their_points_and_notches() {
        for (directions, star) in [(&TENTHS[..], star5(8.0, 4.0)), (&TWELFTHS[..], star6(8.0, 4.0))] {
            for (i, d) in directions.iter().enumerate() {
                close(length(*d), 1.0);
                let tau = std::f32::consts::TAU;
                let (s, c) = (i as f32 / directions.len() as f32 * tau).sin_cos();
                assert!(length(minus(*d, [s, -c])) < 1e-6);
                let radius = if i % 2 == 0 { 8.0 } else { 4.0 };
                assert!(star.distance([d[0] * (radius - 0.3), d[1] * (radius - 0.3)]) < 0.0);
                assert!(star.distance([d[0] * (radius + 0.3), d[1] * (radius + 0.3)]) > 0.0);
            }
        }
    }
}
