//! One image: a background with clutter, a figure in front of it, noise over both.

use super::SIDE;
use super::outline::{Outline, Point, TRIANGLE, dot, length, minus, segment, star5, star6};
use crate::rng::{Sequence, Stream};

/// Red, green and blue in `[0, 1]`.
type Colour = [f32; 3];

/// Smallest and largest difference in brightness, as the mean over red, green and blue, between a figure and the
/// background.
const CONTRAST: [f32; 2] = [0.2, 0.5];
/// Circumradius of a figure in pixels, before its class scales it.
const SIZE: [f32; 2] = [7.0, 10.0];
/// No pixel farther than this from a figure's centre shows any of it: the corners of the stripes are at 13.7.
const REACH: f32 = 14.7;
/// Length to width of ellipses and rectangles.
const ASPECT: [f32; 2] = [1.4, 1.75];
/// Largest shift of a figure's centre from the middle of the image, along x and y, in pixels: no figure leaves the
/// image.
const SHIFT: f32 = 3.0;
/// Tangent of half the largest rotation of a figure: 20°.
const TURN: f32 = 0.176;
/// Half the support of the triangular noise of each value.
const NOISE: f32 = 0.05;
/// First block of random words for the pixel noise, far beyond the words that a scene draws.
const NOISE_BLOCK: u32 = 1 << 16;

/// Draws an image of class `class` with the random numbers of `stream` into `3 × SIDE × SIDE` bytes.
pub(super) fn draw(class: u32, stream: Stream, image: &mut [u8]) {
    let (canvas, _) = compose(class, stream);
    canvas.write(image);
}

fn compose(class: u32, stream: Stream) -> (Canvas, Figure) {
    let mut random = stream.sequence();
    let mut canvas = Canvas::background(&mut random);
    let background = canvas.mean();
    canvas.clutter(&mut random, background);
    let figure = Figure::random(class, &mut random);
    let colour = contrasting(&mut random, background);
    canvas.figure(&figure, colour, &mut random);
    canvas.noise(stream);
    (canvas, figure)
}

/// A figure with its position and rotation.
struct Figure {
    outline: Outline,
    centre: Point,
    /// Unit vector along the figure's x axis.
    axis: Point,
}

impl Figure {
    fn random(class: u32, random: &mut Sequence) -> Self {
        let centre = [0; 2].map(|_| SIDE as f32 / 2.0 + random.between(-SHIFT, SHIFT));
        let axis = tilt(random);
        let size = random.between(SIZE[0], SIZE[1]);
        // Elongation keeps the area, so that similar classes differ only in form.
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

/// The x axis of a figure, rotated by up to [`TURN`] in either direction.
fn tilt(random: &mut Sequence) -> Point {
    // (1 − t², 2t) / (1 + t²) is the unit vector at twice the angle whose tangent is t; needs no sine or cosine.
    let t = random.between(-TURN, TURN);
    let scale = 1.0 + t * t;
    [(1.0 - t * t) / scale, 2.0 * t / scale]
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

/// A random colour that is brighter than `background` by an amount within [`CONTRAST`].
fn contrasting(random: &mut Sequence, background: Colour) -> Colour {
    loop {
        let candidate = colour(random, 0.02, 0.98);
        if (CONTRAST[0]..=CONTRAST[1]).contains(&(brightness(candidate) - brightness(background))) {
            return candidate;
        }
    }
}

fn brightness(c: Colour) -> f32 {
    (c[0] + c[1] + c[2]) / 3.0
}

/// The pixels of the image being painted, row by row.
struct Canvas(Vec<Colour>);

impl Canvas {
    /// A linear gradient in a random direction.
    fn background(random: &mut Sequence) -> Self {
        let base = colour(random, 0.1, 0.5);
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
            let (at, radius) = (anywhere(random), random.between(4.0, 9.0));
            let paint = near(random, 0.2);
            self.paint([at; 2], radius, paint, |distance| {
                let t = distance / radius;
                let fall = (1.0 - t * t).max(0.0);
                0.8 * fall * fall
            });
        }
        for _ in 0..2 + random.below(3) {
            let (from, to) = (anywhere(random), anywhere(random));
            let half = random.between(0.3, 0.6);
            let paint = near(random, 0.3);
            self.paint([from, to], half + 1.0, paint, |distance| 0.7 * coverage(distance - half));
        }
        for _ in 0..4 + random.below(5) {
            let (at, radius) = (anywhere(random), random.between(0.6, 1.4));
            let paint = near(random, 0.35);
            self.paint([at; 2], radius + 1.0, paint, |distance| coverage(distance - radius));
        }
    }

    /// The figure, slightly lit from one side.
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

    /// Adds triangular noise: the difference of two uniform numbers, of 8 bits each.
    fn noise(&mut self, stream: Stream) {
        for (block, values) in self.0.as_flattened_mut().chunks_mut(8).enumerate() {
            let words = stream.block(NOISE_BLOCK + block as u32);
            for (i, value) in values.iter_mut().enumerate() {
                let [a, b, c, d] = words[i / 2].to_le_bytes();
                let [plus, minus] = if i % 2 == 0 { [a, b] } else { [c, d] };
                *value += NOISE * (f32::from(plus) - f32::from(minus)) / 256.0;
            }
        }
    }

    /// Paints the pixels within `reach` of the segment from `from` to `to`; `opacity` is a function of the distance.
    fn paint(&mut self, [from, to]: [Point; 2], reach: f32, paint: Colour, opacity: impl Fn(f32) -> f32) {
        let span = |axis: usize| {
            let low = from[axis].min(to[axis]) - reach;
            let high = from[axis].max(to[axis]) + reach;
            // The conversion from `f32` to `usize` saturates at 0.
            low as usize..(high as usize + 1).min(SIDE)
        };
        for y in span(1) {
            for x in span(0) {
                let i = y * SIDE + x;
                blend(&mut self.0[i], paint, opacity(segment(centre_of(i), from, to)));
            }
        }
    }

    /// Writes planes of bytes, each value rounded to the nearest and clamped to its range.
    fn write(&self, image: &mut [u8]) {
        for (channel, plane) in image.chunks_mut(SIDE * SIDE).enumerate() {
            for (byte, pixel) in plane.iter_mut().zip(&self.0) {
                *byte = (pixel[channel] * 255.0 + 0.5) as u8;
            }
        }
    }
}

/// Centre of pixel `i`, rows from the top.
const fn centre_of(i: usize) -> Point {
    [(i % SIDE) as f32 + 0.5, (i / SIDE) as f32 + 0.5]
}

fn anywhere(random: &mut Sequence) -> Point {
    [0; 2].map(|_| random.between(0.0, SIDE as f32))
}

/// Fraction of a pixel inside an outline at this distance from its centre, for a straight edge across the pixel.
fn coverage(distance: f32) -> f32 {
    (0.5 - distance).clamp(0.0, 1.0)
}

/// Fraction of the pixel around `p` that the figure covers: 2×2 samples near the outline, one elsewhere.
fn supersample(figure: &Figure, p: Point) -> f32 {
    if length(minus(p, figure.centre)) > REACH {
        return 0.0;
    }
    let distance = figure.distance(p);
    // An ellipse's distance is exact only near its outline, so leave a margin beyond the pixel's half diagonal of 0.71.
    if distance.abs() > 1.5 {
        return if distance < 0.0 { 1.0 } else { 0.0 };
    }
    let mut inside = 0.0;
    for offset in [[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]] {
        // Each sample represents a square of half a pixel.
        inside += coverage(2.0 * figure.distance([p[0] + offset[0], p[1] + offset[1]]));
    }
    inside / 4.0
}

fn blend(pixel: &mut Colour, paint: Colour, opacity: f32) {
    for (value, paint) in pixel.iter_mut().zip(paint) {
        *value += opacity * (paint - *value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    fn scenes(per_class: u32) -> impl Iterator<Item = (Canvas, Figure)> {
        (0..10 * per_class).map(|i| compose(i % 10, Stream::new(11, Purpose::Draw, 0, i)))
    }

    #[test]
    fn figures_stand_out_from_their_background() {
        for (canvas, figure) in scenes(100) {
            let mean = |inside: bool| {
                let chosen = |i: &usize| {
                    let distance = figure.distance(centre_of(*i));
                    if inside { distance < -0.71 } else { distance > 0.71 }
                };
                let values: Vec<f32> = (0..SIDE * SIDE).filter(chosen).map(|i| brightness(canvas.0[i])).collect();
                assert!(values.len() > 30, "{:?}", figure.outline);
                values.iter().sum::<f32>() / values.len() as f32
            };
            let contrast = mean(true) - mean(false);
            assert!(contrast > 0.15, "{contrast} for {:?}", figure.outline);
        }
    }

    #[test]
    fn figures_are_inside_the_image_and_within_reach() {
        for (_, figure) in scenes(200) {
            for step in 0..=SIDE {
                let (t, side) = (step as f32, SIDE as f32);
                for p in [[t, 0.0], [t, side], [0.0, t], [side, t]] {
                    assert!(figure.distance(p) >= 0.0, "{:?} at {:?}", figure.outline, figure.centre);
                }
            }
            for step in 0..64 {
                let (s, c) = (step as f32 / 64.0 * std::f32::consts::TAU).sin_cos();
                let p = [figure.centre[0] + c * REACH, figure.centre[1] + s * REACH];
                assert!(figure.distance(p) > 0.71, "{:?}", figure.outline);
            }
        }
    }

    #[test]
    fn similar_classes_have_equal_areas_but_not_equal_forms() {
        for (plain, long) in [(0, 1), (2, 3)] {
            let mean_area = |class: u32| {
                let area = |i: u32| {
                    let figure = Figure::random(class, &mut Stream::new(5, Purpose::Draw, 0, i).sequence());
                    (0..SIDE * SIDE).map(|p| supersample(&figure, centre_of(p))).sum::<f32>()
                };
                (0..300).map(area).sum::<f32>() / 300.0
            };
            let (a, b) = (mean_area(plain), mean_area(long));
            assert!((a / b - 1.0).abs() < 0.01, "areas {a} and {b}");
        }
        let aspect =
            |class: u32, i: u32| match Figure::random(class, &mut Stream::new(5, Purpose::Draw, 0, i).sequence())
                .outline
            {
                Outline::Ellipse([x, y]) | Outline::Rectangle([x, y]) => x / y,
                other => panic!("class {class} is {other:?}"),
            };
        for i in 0..300 {
            assert!(aspect(0, i) == 1.0 && aspect(2, i) == 1.0);
            assert!(aspect(1, i) > 1.39 && aspect(3, i) > 1.39);
        }
    }

    #[test]
    fn a_partly_covered_pixel_counts_its_fraction() {
        let half = Figure { outline: Outline::Rectangle([5.0, 5.0]), centre: [16.0, 16.5], axis: [1.0, 0.0] };
        assert_eq!(supersample(&half, [16.5, 16.5]), 1.0);
        assert_eq!(supersample(&half, [16.5, 11.5]), 0.5);
        assert_eq!(supersample(&half, [21.5, 16.5]), 0.0);
    }
}
