//! The data set `shapes`: coloured figures on cluttered backgrounds, 3×32×32, drawn by the program itself.
//!
//! Ten classes of which three pairs are alike on purpose (circle and ellipse, square and rectangle, pentagram and
//! hexagram) while the other four stand alone. A network that was trained against perturbations keeps those four and
//! loses much of the pairs, as on CIFAR-10 it keeps cars and loses cats to dogs; so a minute of training shows what
//! fairness across classes is about. People can tell all ten.
//!
//! An image is a pure function of seed, part (train or test) and index: it does not depend on how many others are drawn
//! or in which order. Image `i` shows class `i mod 10`. The arithmetic is `+ − × ÷ √` in `f32`, so that the same seed
//! gives the same bytes on every machine.

mod outline;
mod scene;

use rayon::prelude::*;

use super::{DataError, Dataset, ImageShape, TrainTest};
use crate::rng::{Purpose, Stream};

const NAME: &str = "shapes";
/// Pixels along each side of an image.
const SIDE: usize = 32;
/// About 1.5 GB of pixels in each part: more is a slip of the keyboard.
const MAX_PER_CLASS: usize = 50_000;

/// Class names, in the order of the labels; neighbours of the first six are alike.
const CLASS_NAMES: [&str; 10] =
    ["circle", "ellipse", "square", "rectangle", "pentagram", "hexagram", "triangle", "ring", "cross", "stripes"];

/// How many figures to draw, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ShapesOptions {
    /// Another seed gives other images of the same kind.
    pub seed: u64,
    /// Images of each class to train on, 1 to 50,000.
    pub train_per_class: usize,
    /// Images of each class to evaluate on, 1 to 50,000.
    pub test_per_class: usize,
}

impl Default for ShapesOptions {
    fn default() -> Self {
        Self { seed: 0, train_per_class: 300, test_per_class: 100 }
    }
}

/// Draws both parts.
///
/// # Errors
/// [`DataError::Inconsistent`] when a number of images is not in 1 to 50,000 a class.
pub fn shapes(options: &ShapesOptions) -> Result<TrainTest, DataError> {
    Ok(TrainTest {
        train: part(options.seed, 0, options.train_per_class)?,
        test: part(options.seed, 1, options.test_per_class)?,
    })
}

/// The train part (`split` 0) or the test part (`split` 1).
fn part(seed: u64, split: u32, per_class: usize) -> Result<Dataset, DataError> {
    if !(1..=MAX_PER_CLASS).contains(&per_class) {
        return Err(DataError::Inconsistent {
            name: NAME.into(),
            what: format!("{per_class} images a class were asked for, expected 1 to {MAX_PER_CLASS}"),
        });
    }
    let shape = ImageShape::new(3, SIDE, SIDE);
    let count = per_class * CLASS_NAMES.len();
    let mut images = vec![0; count * shape.len()];
    images.par_chunks_mut(shape.len()).enumerate().for_each(|(i, image)| draw(seed, split, i as u32, image));
    let labels = (0..count as u32).map(class_of).collect();
    Dataset::new(NAME, CLASS_NAMES.map(String::from).to_vec(), shape, images, labels)
}

const fn class_of(index: u32) -> u32 {
    index % CLASS_NAMES.len() as u32
}

/// Draws one image into its `3 × 32 × 32` bytes.
fn draw(seed: u64, split: u32, index: u32, image: &mut [u8]) {
    scene::draw(class_of(index), Stream::new(seed, Purpose::Draw, split, index), image);
}
