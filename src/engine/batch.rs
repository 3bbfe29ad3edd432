//! [`Batch`]: the labelled images of one engine call, and how they are augmented.

use super::EngineError;
use super::checks::check_labels;
use crate::data::ImageShape;
use crate::rng::{Purpose, Stream};

/// How the border is filled before a random crop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// Mirror the image without repeating its edge (CFA, FAIR-TAT, Rice et al.)
    Reflect,
    /// Black pixels (TRADES, Friendly AT, FRL, BAT)
    Zero,
}

/// Augmentation of training images: a random crop of the padded image, and a random horizontal flip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Augment {
    /// Pixels added on every side before the crop; 0 for no crop.
    pub padding: usize,
    /// How those pixels are filled.
    pub mode: Padding,
    /// Whether each image is mirrored with probability 1/2.
    pub flip: bool,
}

impl Augment {
    /// Row offset, column offset and flip of one image, from its stream.
    fn draw(&self, stream: Stream) -> (usize, usize, bool) {
        let words = stream.block(0);
        // A multiplication and a shift instead of a remainder; the bias is below 2⁻²⁷.
        let offset = |word: u32| ((word >> 16) as usize * (2 * self.padding + 1)) >> 16;
        (offset(words[0]), offset(words[1]), self.flip && words[2] >> 31 == 1)
    }
}

/// Labelled images for one engine call.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `B × C × H × W` bytes.
    pub pixels: &'a [u8],
    /// Class of each image.
    pub labels: &'a [u32],
    /// Index of each image in the data set: the key of its random numbers, so that they do not depend on the batch.
    pub ids: &'a [u32],
    /// Augmentation; `None` if the images are used as they are.
    pub augment: Option<Augment>,
    /// Key of the random numbers.
    pub seed: u64,
    /// Epoch, the second part of the key.
    pub epoch: u32,
}

impl Batch<'_> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Checks sizes and labels against a network's input shape and number of classes.
    ///
    /// # Errors
    /// Returns [`EngineError::Invalid`] with the expected and the actual value.
    pub fn check(&self, shape: ImageShape, classes: usize) -> Result<(), EngineError> {
        let n = self.len();
        let fail = |what: String| Err(EngineError::Invalid(what));
        if n == 0 {
            return fail("a batch needs at least one image".into());
        }
        if self.pixels.len() != n * shape.len() || self.ids.len() != n {
            return fail(format!(
                "a batch of {n} labels with images of {shape} needs {} bytes and {n} ids, found {} and {}",
                n * shape.len(),
                self.pixels.len(),
                self.ids.len()
            ));
        }
        check_labels(self.labels, classes)
    }

    /// Augmented images in `[0, 1]`, `B × C × H × W`. The reference for engines that augment on their device.
    pub fn prepare(&self, shape: ImageShape) -> Vec<f32> {
        let scale = |pixel: u8| f32::from(pixel) / 255.0;
        let Some(augment) = self.augment else { return self.pixels.iter().map(|p| scale(*p)).collect() };
        let (height, width) = (shape.height, shape.width);
        let mut out = vec![0.0; self.pixels.len()];
        for (i, (image, target)) in self.pixels.chunks(shape.len()).zip(out.chunks_mut(shape.len())).enumerate() {
            let stream = Stream::new(self.seed, Purpose::Augment, self.epoch, self.ids[i]);
            let (row_offset, column_offset, flip) = augment.draw(stream);
            for (y, row) in target.chunks_mut(width).enumerate() {
                let (channel, y) = (y / height, y % height);
                let source_y = source(y + row_offset, augment.padding, height, augment.mode);
                for (x, value) in row.iter_mut().enumerate() {
                    let x = if flip { width - 1 - x } else { x };
                    let source_x = source(x + column_offset, augment.padding, width, augment.mode);
                    if let (Some(sy), Some(sx)) = (source_y, source_x) {
                        *value = scale(image[(channel * height + sy) * width + sx]);
                    }
                }
            }
        }
        out
    }
}

/// The pixel of the original at `position` of the padded image; `None` if it is black padding.
fn source(position: usize, padding: usize, size: usize, mode: Padding) -> Option<usize> {
    let (position, size) = (position as isize - padding as isize, size as isize);
    if (0..size).contains(&position) {
        return Some(position as usize);
    }
    match mode {
        Padding::Zero => None,
        Padding::Reflect => {
            let period = (2 * (size - 1)).max(1);
            let folded = position.rem_euclid(period);
            Some(folded.min(period - folded).min(size - 1) as usize)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_repeats_no_edge() {
        let row: Vec<_> = (0..8).map(|p| source(p, 2, 4, Padding::Reflect).unwrap()).collect();
        assert_eq!(row, [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(source(0, 3, 1, Padding::Reflect), Some(0));
        assert_eq!([0, 2, 5, 6].map(|p| source(p, 2, 4, Padding::Zero)), [None, Some(0), Some(3), None]);
    }

    #[test]
    fn augmentation_is_uniform_over_offsets_and_depends_only_on_the_image() {
        let augment = Augment { padding: 4, mode: Padding::Reflect, flip: true };
        let (mut rows, mut columns, mut flips) = ([0u32; 9], [0u32; 9], 0);
        let n = 9000;
        for id in 0..n {
            let (row, column, flip) = augment.draw(Stream::new(1, Purpose::Augment, 0, id));
            rows[row] += 1;
            columns[column] += 1;
            flips += u32::from(flip);
        }
        for counts in [rows, columns] {
            let chi2: f64 = counts.iter().map(|c| (f64::from(*c) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi2 < 31.8, "chi-squared {chi2} with 8 degrees of freedom, p < 1e-4");
        }
        assert!((f64::from(flips) - 4500.0).abs() < 4.0 * 2250f64.sqrt());

        let shape = ImageShape::new(1, 4, 4);
        let pixels: Vec<u8> = (0..32).map(|i| i * 7).collect();
        let batch =
            |pixels, ids| Batch { pixels, labels: &[0, 0][..1], ids, augment: Some(augment), seed: 3, epoch: 1 };
        let both = Batch { labels: &[0, 0], ..batch(&pixels, &[5, 9]) }.prepare(shape);
        assert_eq!(both[16..], batch(&pixels[16..], &[9]).prepare(shape));
    }

    #[test]
    fn padding_zero_without_offset_is_the_image() {
        let shape = ImageShape::new(3, 2, 3);
        let pixels: Vec<u8> = (0..18).collect();
        let batch = Batch { pixels: &pixels, labels: &[1], ids: &[0], augment: None, seed: 0, epoch: 0 };
        let plain = batch.prepare(shape);
        let augment = Some(Augment { padding: 0, mode: Padding::Zero, flip: false });
        assert_eq!(plain, Batch { augment, ..batch }.prepare(shape));
        assert_eq!(plain[17], 17.0 / 255.0);
    }
}
