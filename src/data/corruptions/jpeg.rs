//! JPEG artefacts: what libjpeg loses with its default settings (4:2:0).
//!
//! Entropy coding loses nothing, so no file is written: colour conversion, subsampling of the two colour components, the
//! transform of 8×8 blocks, quantisation with the tables of the standard (ITU-T T.81, Annex K) scaled by libjpeg's
//! rule, and the way back with libjpeg's smooth upsampling.

use super::Severity;
use crate::data::ImageShape;

#[rustfmt::skip]
const LUMA: [u16; 64] = [
    16, 11, 10, 16,  24,  40,  51,  61,
    12, 12, 14, 19,  26,  58,  60,  55,
    14, 13, 16, 24,  40,  57,  69,  56,
    14, 17, 22, 29,  51,  87,  80,  62,
    18, 22, 37, 56,  68, 109, 103,  77,
    24, 35, 55, 64,  81, 104, 113,  92,
    49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103,  99,
];

#[rustfmt::skip]
const CHROMA: [u16; 64] = [
    17, 18, 24, 47, 99, 99, 99, 99,
    18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99,
    47, 66, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99,
];

/// The image after compression.
pub(super) fn compress(image: &[u8], shape: ImageShape, severity: Severity) -> Vec<u8> {
    round_trip(image, shape, severity.of([80, 65, 58, 50, 40]))
}

/// The image after compression with `quality`, 1 to 100.
pub(super) fn round_trip(image: &[u8], shape: ImageShape, quality: u16) -> Vec<u8> {
    let (luma, chroma) = (scaled(&LUMA, quality), scaled(&CHROMA, quality));
    let plane_len = shape.height * shape.width;
    if shape.channels != 3 {
        let plane = |plane: &[u8]| Component::new(plane, shape.height, shape.width).quantised(&luma).values;
        return image.chunks_exact(plane_len).flat_map(plane).collect();
    }
    let [mut y, mut blue, mut red] = [(); 3].map(|()| Vec::with_capacity(plane_len));
    for i in 0..plane_len {
        let converted = to_ycc([0, 1, 2].map(|c| image[c * plane_len + i]));
        for (component, value) in [&mut y, &mut blue, &mut red].into_iter().zip(converted) {
            component.push(value);
        }
    }
    let component = |values: &[u8]| Component::new(values, shape.height, shape.width);
    let y = component(&y).quantised(&luma);
    let [blue, red] = [blue, red].map(|values| component(&values).halved().quantised(&chroma).doubled(shape));
    let mut out = vec![0; 3 * plane_len];
    for i in 0..plane_len {
        for (c, value) in to_rgb([y.values[i], blue.values[i], red.values[i]]).into_iter().enumerate() {
            out[c * plane_len + i] = value;
        }
    }
    out
}

fn scaled(table: &[u16; 64], quality: u16) -> [i32; 64] {
    let percent = i32::from(if quality < 50 { 5000 / quality.max(1) } else { 200 - 2 * quality.min(100) });
    table.map(|entry| ((i32::from(entry) * percent + 50) / 100).clamp(1, 255))
}

/// Red, green and blue → luma, and the differences to blue and red (JFIF), in units of 2⁻¹⁶ and rounded.
fn to_ycc([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (r, g, b) = (i32::from(red), i32::from(green), i32::from(blue));
    [
        (19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16,
        (-11_059 * r - 21_709 * g + 32_768 * b + (128 << 16) + 32_767) >> 16,
        (32_768 * r - 27_439 * g - 5_329 * b + (128 << 16) + 32_767) >> 16,
    ]
    .map(|v| v.clamp(0, 255) as u8)
}

fn to_rgb([luma, to_blue, to_red]: [u8; 3]) -> [u8; 3] {
    let (y, b, r) = (i32::from(luma), i32::from(to_blue) - 128, i32::from(to_red) - 128);
    [
        y + ((91_881 * r + 32_768) >> 16),
        y + ((-22_554 * b - 46_802 * r + 32_768) >> 16),
        y + ((116_130 * b + 32_768) >> 16),
    ]
    .map(|v| v.clamp(0, 255) as u8)
}

/// Bytes of one component.
#[derive(Debug, Clone)]
struct Component {
    height: usize,
    width: usize,
    values: Vec<u8>,
}

impl Component {
    fn new(values: &[u8], height: usize, width: usize) -> Self {
        Self { height, width, values: values.to_vec() }
    }

    /// The value at (`y`, `x`), or that of the nearest edge.
    fn at(&self, y: usize, x: usize) -> i32 {
        i32::from(self.values[y.min(self.height - 1) * self.width + x.min(self.width - 1)])
    }

    /// Means of 2×2 pixels, as many columns as whole blocks have. Ties are rounded down and up in turn.
    fn halved(&self) -> Self {
        let (height, width) = (self.height.div_ceil(2), self.width.div_ceil(2).next_multiple_of(8));
        let mean = |i: usize| {
            let (y, x) = (i / width * 2, i % width * 2);
            let sum = self.at(y, x) + self.at(y, x + 1) + self.at(y + 1, x) + self.at(y + 1, x + 1);
            ((sum + 1 + (x as i32 / 2) % 2) >> 2) as u8
        };
        Self { height, width, values: (0..height * width).map(mean).collect() }
    }

    /// The image of `shape` that this is the half of: ¾ of the nearest row and column and ¼ of the second nearest.
    fn doubled(&self, shape: ImageShape) -> Self {
        // libjpeg repeats the pixels of images that are too narrow.
        let last = shape.width.div_ceil(2) - 1;
        let narrow = last < 2;
        let value = |i: usize| {
            let (y, x) = (i / shape.width, i % shape.width);
            if narrow {
                return self.at(y / 2, x / 2) as u8;
            }
            let other_y = if y % 2 == 0 { (y / 2).saturating_sub(1) } else { y / 2 + 1 };
            let column = |x: usize| 3 * self.at(y / 2, x.min(last)) + self.at(other_y, x.min(last));
            let other_x = if x % 2 == 0 { (x / 2).saturating_sub(1) } else { x / 2 + 1 };
            ((3 * column(x / 2) + column(other_x) + 8 - (x as i32 % 2)) >> 4) as u8
        };
        let values = (0..shape.height * shape.width).map(value).collect();
        Self { height: shape.height, width: shape.width, values }
    }

    /// Each 8×8 block transformed, quantised and transformed back. Blocks beyond the edge repeat the last pixels.
    fn quantised(mut self, table: &[i32; 64]) -> Self {
        let original = self.clone();
        for top in (0..self.height).step_by(8) {
            for left in (0..self.width).step_by(8) {
                let block = std::array::from_fn(|i| original.at(top + i / 8, left + i % 8) - 128);
                let mut frequencies = forward(&block);
                for (value, step) in frequencies.iter_mut().zip(table) {
                    // `forward` is eight times too large; ties are rounded away from 0.
                    *value = value.signum() * ((value.abs() + 4 * step) / (8 * step)) * step;
                }
                for (i, value) in inverse(&frequencies).into_iter().enumerate() {
                    let (y, x) = (top + i / 8, left + i % 8);
                    if y < self.height && x < self.width {
                        self.values[y * self.width + x] = (value + 128).clamp(0, 255) as u8;
                    }
                }
            }
        }
        self
    }
}

/// √8 times the orthonormal cosine of each frequency (a row) at the first four positions, in units of 2⁻¹³. The other
/// half mirrors it, with the opposite sign for odd frequencies.
///
/// These are the sums of rounded multipliers that libjpeg's accurate integer transform (`islow`) amounts to, which is why
/// some differ by 1 from the rounded cosine. Only with them are the same coefficients rounded up.
const COSINES: [[i32; 4]; 8] = [
    [8192, 8192, 8192, 8192],
    [11_363, 9633, 6437, 2260],
    [10_703, 4433, -4433, -10_703],
    [9633, -2259, -11_362, -6436],
    [8192, -8192, -8192, 8192],
    [6437, -11_362, 2261, 9633],
    [4433, -10_704, 10_704, -4433],
    [2260, -6436, 9633, -11_363],
];

fn cosine(frequency: usize, position: usize) -> i32 {
    match position {
        0..4 => COSINES[frequency][position],
        _ if frequency.is_multiple_of(2) => COSINES[frequency][7 - position],
        _ => -COSINES[frequency][7 - position],
    }
}

/// `sum / 2^bits`, rounded.
const fn descaled(sum: i32, bits: u32) -> i32 {
    (sum + (1 << (bits - 1))) >> bits
}

/// Eight times the orthonormal cosine transform: rows with two additional bits, then columns without.
fn forward(block: &[i32; 64]) -> [i32; 64] {
    let rows: [i32; 64] =
        std::array::from_fn(|i| descaled((0..8).map(|n| cosine(i % 8, n) * block[i / 8 * 8 + n]).sum(), 11));
    std::array::from_fn(|i| descaled((0..8).map(|n| cosine(i / 8, n) * rows[n * 8 + i % 8]).sum(), 15))
}

/// The orthonormal inverse: columns, then rows.
fn inverse(block: &[i32; 64]) -> [i32; 64] {
    let columns: [i32; 64] =
        std::array::from_fn(|i| descaled((0..8).map(|k| cosine(k, i / 8) * block[k * 8 + i % 8]).sum(), 11));
    std::array::from_fn(|i| descaled((0..8).map(|k| cosine(k, i % 8) * columns[i / 8 * 8 + k]).sum(), 18))
}
