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

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::collections::HashSet;

    fn small(seed: u64) -> TrainTest {
        shapes(&ShapesOptions { seed, train_per_class: 12, test_per_class: 7 }).unwrap()
    }

    /// Whoever changes what is drawn changes every number ever reported on the set: this must not happen by accident.
    #[test]
    fn the_default_set_never_changes() {
        let set = shapes(&ShapesOptions::default()).unwrap();
        let hash =
            |part: &Dataset| Sha256::digest(part.images()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hash(&set.train), "cb2de3dad69b3e2349e653f1b7d9313d23fb6c35a55b8419bf482514f27c3ba5");
        assert_eq!(hash(&set.test), "04bc7ee43f284a4a7f8e21bd3ad94e721c32bc0107dc1e174515cf5017744dc1");
    }

    #[test]
    fn classes_are_balanced_and_named() {
        let TrainTest { train, test } = shapes(&ShapesOptions::default()).unwrap();
        assert_eq!(train.class_counts(), [300; 10]);
        assert_eq!(test.class_counts(), [100; 10]);
        assert_eq!(train.shape(), ImageShape::new(3, 32, 32));
        assert_eq!(train.class_names(), test.class_names());
        assert_eq!(train.class_names().iter().collect::<HashSet<_>>().len(), 10);
    }

    #[test]
    fn an_image_depends_on_its_index_alone() {
        let (few, many) =
            (small(3), shapes(&ShapesOptions { seed: 3, train_per_class: 30, test_per_class: 9 }).unwrap());
        for (few, many, split) in [(&few.train, &many.train, 0), (&few.test, &many.test, 1)] {
            for i in (0..few.len()).rev() {
                let mut alone = vec![0; few.shape().len()];
                draw(3, split, i as u32, &mut alone);
                assert_eq!(few.image(i), many.image(i));
                assert_eq!(few.image(i), alone);
                assert_eq!(few.labels()[i], many.labels()[i]);
            }
        }
    }

    #[test]
    fn no_image_comes_twice_in_parts_or_seeds() {
        let sets = [small(0), small(1), small(1 << 32)];
        let images: Vec<&[u8]> =
            sets.iter().flat_map(|s| [&s.train, &s.test]).flat_map(|p| (0..p.len()).map(|i| p.image(i))).collect();
        assert_eq!(images.len(), 3 * 190);
        assert_eq!(images.iter().collect::<HashSet<_>>().len(), images.len());
    }

    #[test]
    fn absurd_numbers_are_refused() {
        for (train, test) in [(0, 5), (5, 0), (50_001, 5), (5, usize::MAX)] {
            let options = ShapesOptions { seed: 0, train_per_class: train, test_per_class: test };
            let message = shapes(&options).unwrap_err().to_string();
            assert!(message.contains("expected 1 to 50000"), "{message}");
        }
    }
}
