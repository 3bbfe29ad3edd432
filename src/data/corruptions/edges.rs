//! Edges of an image of bytes and the distance to them, as OpenCV computes them: the shape of the drops in `spatter`.

use super::filters::Border;

/// Bytes of one channel, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes<'a> {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: &'a [u8],
}

impl Bytes<'_> {
    fn at(&self, y: isize, x: isize, border: Border) -> i32 {
        let (y, x) = (border.index(y, self.height), border.index(x, self.width));
        i32::from(self.values[y * self.width + x])
    }

    /// The sum of the 3×3 `kernel` times the pixels around (`y`, `x`).
    fn around(&self, y: usize, x: usize, kernel: &[[i32; 3]; 3], border: Border) -> i32 {
        let mut sum = 0;
        for (i, row) in kernel.iter().enumerate() {
            for (j, weight) in row.iter().enumerate() {
                sum += weight * self.at(y as isize + i as isize - 1, x as isize + j as isize - 1, border);
            }
        }
        sum
    }

    /// [`Self::around`] at every pixel.
    pub(super) fn filter(&self, kernel: &[[i32; 3]; 3]) -> Vec<i32> {
        let place = |i: usize| self.around(i / self.width, i % self.width, kernel, Border::Reflect101);
        (0..self.values.len()).map(place).collect()
    }
}

/// Canny's edges: local maxima of `|dx| + |dy|` (Sobel) above `low` that are connected to one above `high`.
pub(super) fn canny(image: Bytes<'_>, low: i32, high: i32) -> Vec<bool> {
    const DX: [[i32; 3]; 3] = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]];
    const DY: [[i32; 3]; 3] = [[-1, -2, -1], [0, 0, 0], [1, 2, 1]];
    let (height, width) = (image.height, image.width);
    let gradient: Vec<(i32, i32)> = (0..height * width)
        .map(|i| (i / width, i % width))
        .map(|(y, x)| (image.around(y, x, &DX, Border::Nearest), image.around(y, x, &DY, Border::Nearest)))
        .collect();
    let size = |y: isize, x: isize| {
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x);
        if inside { gradient[y as usize * width + x as usize] } else { (0, 0) }
    };
    let size = |y, x| {
        let (dx, dy) = size(y, x);
        dx.abs() + dy.abs()
    };
    let candidate = |i: usize| {
        let (y, x) = ((i / width) as isize, (i % width) as isize);
        let (dx, dy) = gradient[i];
        let here = size(y, x);
        // Tangents of 22.5° and 67.5°, as multiples of 2⁻¹⁵.
        let (flat, rise) = (13_573 * i64::from(dx.abs()), i64::from(dy.abs()) << 15);
        let steep = flat + (i64::from(dx.abs()) << 16);
        let largest = if rise < flat {
            here > size(y, x - 1) && here >= size(y, x + 1)
        } else if rise > steep {
            here > size(y - 1, x) && here >= size(y + 1, x)
        } else {
            let side = if (dx < 0) == (dy < 0) { 1 } else { -1 };
            here > size(y - 1, x - side) && here > size(y + 1, x + side)
        };
        here > low && largest
    };
    let candidates: Vec<bool> = (0..height * width).map(candidate).collect();
    let strong = |i: &usize| candidates[*i] && gradient[*i].0.abs() + gradient[*i].1.abs() > high;
    let mut open: Vec<usize> = (0..height * width).filter(strong).collect();
    let mut edges = vec![false; height * width];
    for i in &open {
        edges[*i] = true;
    }
    while let Some(i) = open.pop() {
        let (y, x) = (i / width, i % width);
        for near_y in y.saturating_sub(1)..=(y + 1).min(height - 1) {
            for near_x in x.saturating_sub(1)..=(x + 1).min(width - 1) {
                let near = near_y * width + near_x;
                if candidates[near] && !edges[near] {
                    edges[near] = true;
                    open.push(near);
                }
            }
        }
    }
    edges
}

/// The distance of each pixel to the nearest edge, at most `limit`: the length of a path of steps to the neighbours
/// (length 1), the diagonal ones (1.4) and a knight's move (2.1969).
pub(super) fn distance(edges: &[bool], width: usize, limit: f64) -> Vec<f64> {
    /// Steps from pixels above or to the left, in 1/65,536 pixels; the others by symmetry.
    const STEPS: [(isize, isize, u32); 8] = [
        (0, -1, 65_536),
        (-1, 0, 65_536),
        (-1, -1, 91_750),
        (-1, 1, 91_750),
        (-1, -2, 143_976),
        (-1, 2, 143_976),
        (-2, -1, 143_976),
        (-2, 1, 143_976),
    ];
    let height = (edges.len() / width) as isize;
    let far = u32::MAX / 2;
    let mut found: Vec<u32> = edges.iter().map(|edge| if *edge { 0 } else { far }).collect();
    let mut pass = |order: &mut dyn Iterator<Item = usize>, sign: isize| {
        for i in order {
            let (y, x) = ((i / width) as isize, (i % width) as isize);
            for (dy, dx, length) in STEPS {
                let (y, x) = (y + sign * dy, x + sign * dx);
                if (0..height).contains(&y) && (0..width as isize).contains(&x) {
                    found[i] = found[i].min(found[y as usize * width + x as usize].saturating_add(length));
                }
            }
        }
    };
    pass(&mut (0..edges.len()), 1);
    pass(&mut (0..edges.len()).rev(), -1);
    found.into_iter().map(|length| (f64::from(length) / 65_536.0).min(limit)).collect()
}

/// Replaces each level by the share of the levels up to it, from 0 for the lowest to 255 for the highest.
pub(super) fn equalize(values: &mut [u8]) {
    let mut counts = [0u32; 256];
    for value in &*values {
        counts[usize::from(*value)] += 1;
    }
    let Some(lowest) = counts.iter().position(|count| *count > 0) else { return };
    let rest = values.len() as u32 - counts[lowest];
    if rest == 0 {
        return;
    }
    let scale = 255.0 / rest as f32;
    let mut table = [0; 256];
    let mut below = 0;
    for level in lowest + 1..256 {
        below += counts[level];
        table[level] = (below as f32 * scale).round_ties_even() as u8;
    }
    for value in values {
        *value = table[usize::from(*value)];
    }
}
