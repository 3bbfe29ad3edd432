//! The common corruptions of CIFAR-10-C: noise, blur, weather and digital artefacts at five severities.
//!
//! Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
//! ICLR 2019, and the authors' script for 32×32 images, `ImageNet-C/create_c/make_cifar_c.py` of
//! <https://github.com/hendrycks/robustness>: all constants are theirs.
//!
//! [`corrupt`] computes a corruption for images of any size, [`corrupt_set`] for a whole set. [`PublishedSet`] reads the
//! published files. **Compare with published figures only on the published files**: the authors' script draws its random
//! numbers without a seed, so no other program repeats its images.
//!
//! # Differences from the published files
//!
//! * `frost`: the authors blend in photos of ice. Here the ice is drawn (`frost.rs`), with the mean
//!   colour and the variation of five of the photos. Results under `frost` are not comparable with published ones.
//! * All others use the authors' operations: those of scikit-image, SciPy, OpenCV, Pillow and ImageMagick, written anew.
//!   `tests/published/corruptions.py` compares them with these libraries, given the same random numbers.
//! * The authors' swap of two pixels in `glass_blur` copies one pixel over the other, because NumPy evaluates the right
//!   side to views. The published files were made by that code, so it is what happens here.
//! * `zoom_blur` includes the factors 1.06 and 1.11 at severities 1 and 2, because `numpy.arange` does.
//!
//! # Values
//!
//! Bytes are divided by 255, results are clipped to `[0, 1]`, multiplied by 255 and truncated (not rounded), as the
//! authors do. Where they go through an image with 8 bits (`motion_blur`, `pixelate`, `jpeg_compression`), it is rounded.
//!
//! # Sizes other than 32×32
//!
//! Let `s = max(1, min(height, width) / 32)`. Radii, standard deviations of filters and the reach of `glass_blur` are
//! multiplied by `s`; so is the zoom of the layer of `snow`, and the frost is drawn in units of `s` pixels. Below 32
//! pixels the lengths stay, because most of them are about one pixel. `elastic_transform` has its lengths in sides of
//! the image already. `fog` covers the image with one fractal of the next power of two. `zoom_blur`, `pixelate` and
//! `jpeg_compression` have no length. Two amplitudes grow by `s` so that smoothing over more pixels leaves the same
//! result: the noise of `spatter` and the displacement of `elastic_transform`.
//!
//! # Grey images
//!
//! An image with one channel is treated as its own luma: `brightness` adds to the value, `saturate` has no effect,
//! colours of `frost` and `spatter` are replaced by their luma, and `jpeg_compression` stores one component.
//!
//! # Random numbers
//!
//! They are a function of seed, corruption, severity and the image's number, see [`crate::rng`]. On another platform
//! the last bit of a logarithm or cosine may differ, and with it a few pixels by 1.
//!
//! ```
//! use fairtat::data::ImageShape;
//! use fairtat::data::corruptions::{Corruption, Severity, corrupt};
//! let shape = ImageShape::new(1, 2, 2);
//! let corrupted = corrupt(Corruption::Brightness, Severity::ALL[4], &[0, 51, 102, 255], shape, 0, 0);
//! assert_eq!(corrupted, [76, 127, 178, 255]);
//! ```

mod blur;
mod colour;
mod edges;
mod elastic;
mod filters;
mod fog;
mod frost;
mod jpeg;
mod kind;
mod noise;
mod picture;
mod pixelate;
mod published;
#[cfg(test)]
mod published_tests;
mod snow;
mod spatter;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

pub use kind::{Corruption, Severity};
pub use published::PublishedSet;

use super::{DataError, Dataset, ImageShape};
use crate::rng::{Purpose, Stream};
use picture::Picture;

/// The image `image` (`C × H × W` bytes, `shape.len()` of them) under `corruption`.
///
/// `id` is the number of the image in its set: together with `seed`, `corruption` and `severity` it determines all
/// random numbers.
pub fn corrupt(
    corruption: Corruption,
    severity: Severity,
    image: &[u8],
    shape: ImageShape,
    seed: u64,
    id: u32,
) -> Vec<u8> {
    if shape.is_empty() {
        return Vec::new();
    }
    let draws = Draws { seed, corruption, severity, id };
    let picture = Picture::new(image, shape);
    match corruption {
        Corruption::GaussianNoise => noise::gaussian(picture, severity, &draws),
        Corruption::ShotNoise => noise::shot(image, severity, &draws),
        Corruption::ImpulseNoise => noise::impulse(image, severity, &draws),
        Corruption::SpeckleNoise => noise::speckle(picture, severity, &draws),
        Corruption::DefocusBlur => blur::defocus(picture, severity),
        Corruption::GlassBlur => blur::glass(picture, severity, &draws),
        Corruption::MotionBlur => blur::motion(picture, severity, &draws),
        Corruption::ZoomBlur => blur::zoom(picture, severity),
        Corruption::GaussianBlur => blur::gaussian(picture, severity),
        Corruption::Snow => snow::snow(picture, severity, &draws),
        Corruption::Frost => frost::frost(picture, severity, &draws),
        Corruption::Fog => fog::fog(picture, severity, &draws),
        Corruption::Spatter => spatter::spatter(picture, severity, &draws),
        Corruption::Brightness => colour::brightness(picture, severity),
        Corruption::Contrast => colour::contrast(picture, severity),
        Corruption::Saturate => colour::saturate(picture, severity),
        Corruption::ElasticTransform => elastic::elastic(picture, severity, &draws),
        Corruption::Pixelate => pixelate::pixelate(image, shape, severity),
        Corruption::JpegCompression => jpeg::compress(image, shape, severity),
    }
}

/// All images of `set` under `corruption`; image `i` of the set has the number `i`.
///
/// The result does not depend on the number of threads, and a set that holds only the first images gets the same ones.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if the set holds more than 2³² images, or images with other than 1 or 3 channels.
pub fn corrupt_set(set: &Dataset, corruption: Corruption, severity: Severity, seed: u64) -> Result<Dataset, DataError> {
    let (shape, name) = (set.shape(), format!("{}-{corruption}-{severity}", set.name()));
    if !matches!(shape.channels, 1 | 3) {
        let what = format!("images of {} channels, expected 1 (grey) or 3 (red, green, blue)", shape.channels);
        return Err(DataError::Inconsistent { name, what });
    }
    if u32::try_from(set.len() - 1).is_err() {
        let what = format!("{} images, expected at most 2³²: each needs a number of 32 bits", set.len());
        return Err(DataError::Inconsistent { name, what });
    }
    let mut images = vec![0; set.images().len()];
    images.par_chunks_exact_mut(shape.len()).enumerate().for_each(|(i, out)| {
        out.copy_from_slice(&corrupt(corruption, severity, set.image(i), shape, seed, i as u32));
    });
    Dataset::new(name, set.class_names().to_vec(), shape, images, set.labels().to_vec())
}

/// The random numbers of one image.
#[derive(Debug, Clone, Copy)]
struct Draws {
    seed: u64,
    corruption: Corruption,
    severity: Severity,
    id: u32,
}

impl Draws {
    /// Independent numbers for each `part` (below 256) of a corruption.
    fn part(&self, part: u32) -> Stream {
        let epoch = (self.corruption as u32) << 16 | u32::from(self.severity.get()) << 8 | part;
        Stream::new(self.seed, Purpose::Corruption, epoch, self.id)
    }

    /// Uniform in `[low, high)`, the only number of its part.
    fn between(&self, part: u32, low: f64, high: f64) -> f64 {
        low + (high - low) * f64::from(self.part(part).unit(0))
    }
}

/// Lengths of an image in relation to those of a 32×32 image, see the module's documentation.
fn length_scale(height: usize, width: usize) -> f64 {
    (height.min(width) as f64 / 32.0).max(1.0)
}
