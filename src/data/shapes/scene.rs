//! One picture: a background with clutter, a figure before it, noise over both.

use super::SIDE;
use super::outline::{Outline, Point, TRIANGLE, dot, length, minus, segment, star5, star6};
use crate::rng::{Sequence, Stream};

/// Red, green and blue in `[0, 1]`.
type Colour = [f32; 3];

/// Mean absolute difference over red, green and blue between figure and background, least and most.
const CONTRAST: [f32; 2] = [0.16, 0.42];
/// Circumradius of a figure in pixels, before its class scales it.
const SIZE: [f32; 2] = [7.0, 10.0];
/// Length to width of ellipses and rectangles.
const ASPECT: [f32; 2] = [1.35, 1.65];
/// How far a figure's centre may lie from the middle, along x and y, in pixels.
const SHIFT: f32 = 3.5;
/// Half the support of the triangular noise of each value.
const NOISE: f32 = 0.05;
/// The pixel noise reads its words from here on, well past what a scene draws.
const NOISE_BLOCK: u32 = 1 << 16;

/// Draws class `class` with the numbers of `stream` into `3 × SIDE × SIDE` bytes.
pub(super) fn draw(class: u32, stream: Stream, image: &mut [u8]) {
    let mut random = stream.sequence();
    let mut canvas = Canvas::background(&mut random);
    let background = canvas.mean();
    canvas.clutter(&mut random, background);
    let figure = Figure::random(class, &mut random);
    let colour = contrasting(&mut random, background);
    canvas.figure(&figure, colour, &mut random);
    canvas.noise(stream);
    canvas.write(image);
}

/// A figure where it stands.
struct Figure {
    outline: Outline,
    centre: Point,
    /// Unit vector along the figure's x axis.
    axis: Point,
}

impl Figure {
    fn random(class: u32, random: &mut Sequence) -> Self {
        let centre = [0; 2].map(|_| SIDE as f32 / 2.0 + random.between(-SHIFT, SHIFT));
        let axis = direction(random);
        let size = random.between(SIZE[0], SIZE[1]);
        // Elongation keeps the area, so that only the form tells the alike classes apart.
        let stretch = random.between(ASPECT[0], ASPECT[1]).sqrt();
        let outline = match class {
            0 => Outline::Ellipse([0.95 * size; 2]),
            1 => Outline::Ellipse([0.95 * size * stretch, 0.95 * size / stretch]),
            2 => Outline::Rectangle([0.85 * size; 2]),
            3 => Outline::Rectangle([0.85 * size * stretch, 0.85 * size / stretch]),
            4 => star5(1.2 * size, 0.55 * size),
            5 => star6(1.15 * size, 0.6 * size),
            6 => Outline::Polygon(TRIANGLE.map(|[x, y]| [1.2 * size * x, 1.2 * size * y]).to_vec()),
            7 => Outline::Ring(0.85 * size, 0.2 * size),
            8 => Outline::Cross(1.1 * size, 0.3 * size),
            _ => Outline::Stripes([size, 0.18 * size], 0.75 * size),
        };
        Self { outline, centre, axis }
    }

    fn distance(&self, p: Point) -> f32 {
        let from = minus(p, self.centre);
        self.outline.distance([dot(from, self.axis), dot(from, [-self.axis[1], self.axis[0]])])
    }
}

/// A uniformly random unit vector.
fn direction(random: &mut Sequence) -> Point {
    loop {
        let v = [random.between(-1.0, 1.0), random.between(-1.0, 1.0)];
        let size = length(v);
        if (0.1..=1.0).contains(&size) {
            return [v[0] / size, v[1] / size];
        }
    }
}

fn colour(random: &mut Sequence, low: f32, high: f32) -> Colour {
    [0; 3].map(|_| random.between(low, high))
}

/// A random colour that stands out from `background` as much as [`CONTRAST`] says.
fn contrasting(random: &mut Sequence, background: Colour) -> Colour {
    loop {
        let candidate = colour(random, 0.02, 0.98);
        if (CONTRAST[0]..=CONTRAST[1]).contains(&difference(candidate, background)) {
            return candidate;
        }
    }
}

/// Mean absolute difference of two colours.
fn difference(a: Colour, b: Colour) -> f32 {
    ((a[0] - b[0]).abs() + (a[1] - b[1]).abs() + (a[2] - b[2]).abs()) / 3.0
}

/// The picture while it is painted, row by row.
struct Canvas(Vec<Colour>);

impl Canvas {
    /// A linear gradient in a random direction.
    fn background(random: &mut Sequence) -> Self {
        let base = colour(random, 0.2, 0.8);
        let change = colour(random, -0.1, 0.1);
        let axis = direction(random);
        let half = SIDE as f32 / 2.0;
        let at = |i: usize| {
            let p = centre_of(i);
            let t = dot(minus(p, [half; 2]), axis) / half;
            [0, 1, 2].map(|c| base[c] + t * change[c])
        };
        Self((0..SIDE * SIDE).map(at).collect())
    }

    /// Mean colour.
    fn mean(&self) -> Colour {
        let sum = self.0.iter().fold([0.0; 3], |s, c| [s[0] + c[0], s[1] + c[1], s[2] + c[2]]);
        sum.map(|s| s / self.0.len() as f32)
    }

    /// Soft blobs, thin lines and dots, all near the background's colour.
    fn clutter(&mut self, random: &mut Sequence, background: Colour) {
        let near = |random: &mut Sequence, by: f32| {
            let change = colour(random, -by, by);
            [0, 1, 2].map(|c| background[c] + change[c])
        };
        for _ in 0..3 + random.below(3) {
            let (centre, radius) = (anywhere(random), random.between(4.0, 9.0));
            let paint = near(random, 0.2);
            self.paint(paint, |p| {
                let t = length(minus(p, centre)) / radius;
                let fall = (1.0 - t * t).max(0.0);
                0.8 * fall * fall
            });
        }
        for _ in 0..2 + random.below(3) {
            let (from, to) = (anywhere(random), anywhere(random));
            let half = random.between(0.3, 0.6);
            let paint = near(random, 0.3);
            self.paint(paint, |p| 0.7 * coverage(segment(p, from, to) - half));
        }
        for _ in 0..4 + random.below(5) {
            let (centre, radius) = (anywhere(random), random.between(0.6, 1.4));
            let paint = near(random, 0.35);
            self.paint(paint, |p| coverage(length(minus(p, centre)) - radius));
        }
    }

    /// The figure, lit a little from one side.
    fn figure(&mut self, figure: &Figure, paint: Colour, random: &mut Sequence) {
        let light = direction(random);
        let strength = random.between(0.0, 0.06);
        for (i, pixel) in self.0.iter_mut().enumerate() {
            let p = centre_of(i);
            let covered = supersample(figure, p);
            let shade = strength * dot(minus(p, figure.centre), light) / SIZE[1];
            blend(pixel, paint.map(|c| c + shade), covered);
        }
    }

    fn noise(&mut self, stream: Stream) {
        for (i, pixel) in self.0.iter_mut().enumerate() {
            let words = stream.block(NOISE_BLOCK + i as u32);
            for (value, word) in pixel.iter_mut().zip(words) {
                // The difference of two uniform numbers of 16 bits is triangular.
                let triangular = ((word & 0xffff) as f32 - (word >> 16) as f32) / 65_536.0;
                *value += NOISE * triangular;
            }
        }
    }

    fn paint(&mut self, paint: Colour, opacity: impl Fn(Point) -> f32) {
        for (i, pixel) in self.0.iter_mut().enumerate() {
            blend(pixel, paint, opacity(centre_of(i)));
        }
    }

    /// Planes of bytes, each value rounded to the nearest and held in its range.
    fn write(&self, image: &mut [u8]) {
        for (channel, plane) in image.chunks_mut(SIDE * SIDE).enumerate() {
            for (byte, pixel) in plane.iter_mut().zip(&self.0) {
                *byte = (pixel[channel] * 255.0 + 0.5) as u8;
            }
        }
    }
}

/// Middle of pixel `i`, rows from the top.
const fn centre_of(i: usize) -> Point {
    [(i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5]
}

fn anywhere(random: &mut Sequence) -> Point {
    [0; 2].map(|_| random.between(0.0, SIDE as f32))
}

/// Part of a pixel inside an outline at this distance from its middle, for an edge across the pixel.
fn coverage(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

/// Part of the pixel round `p` that the figure covers: 4×4 points near the outline, one elsewhere.
fn supersample(figure: &Figure, p: Point) -> f32 {
    let distance = figure.distance(p);
    // The ellipse's distance is only near the truth, so keep some way beyond the pixel's half diagonal of 0.71.
    if distance.abs() > 1.5 {
        return if distance < 0.0 { 1.0 } else { 0.0 };
    }
    let mut inside = 0.0;
    for i in 0..16 {
        let offset = [(i % 4) as f32 / 4.0 - 0.375, (i / 4) as f32 / 4.0 - 0.375];
        // Each point stands for a square of a quarter pixel.
        inside += (0.5 - 4.0 * figure.distance([p[0] + offset[0], p[1] + offset[1]])).clamp(0.0, 1.0);
    }
    inside / 16.0
}

fn blend(pixel: &mut Colour, paint: Colour, opacity: f32) {
    for (value, paint) in pixel.iter_mut().zip(paint) {
        *value += opacity * (paint - *value);
    }
}
