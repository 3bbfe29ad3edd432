//! How an epoch is split into batches.

use std::ops::Range;

use crate::config::{ConfigError, LastBatch};
use crate::model::{Network, Op};

/// The batches of one epoch. Larger batches come first, so that the buffers that an engine allocates for the first
/// batch of a run fit all others.
///
/// ```
/// use fairtat::config::LastBatch;
/// use fairtat::train::Batches;
///
/// assert_eq!(Batches::new(1000, 300, LastBatch::Even).sizes(), [250, 250, 250, 250]);
/// assert_eq!(Batches::new(1001, 300, LastBatch::Even).sizes(), [251, 250, 250, 250]);
/// assert_eq!(Batches::new(1000, 300, LastBatch::Keep).sizes(), [300, 300, 300, 100]);
/// assert_eq!(Batches::new(1000, 300, LastBatch::Drop).sizes(), [300, 300, 300]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    images: usize,
    batch_size: usize,
    last: LastBatch,
    count: usize,
}

impl Batches {
    /// Splits `images` images into batches of `batch_size`.
    ///
    /// [`LastBatch::Even`] gives `⌈images / batch_size⌉` batches whose sizes differ by at most one. If some of them
    /// would hold one image and others two, there is one batch less, because batch norm cannot train on one image.
    pub fn new(images: usize, batch_size: usize, last: LastBatch) -> Self {
        let batch_size = batch_size.max(1);
        let count = match last {
            LastBatch::Keep => images.div_ceil(batch_size),
            LastBatch::Drop => images / batch_size,
            LastBatch::Even if batch_size == 1 => images,
            LastBatch::Even => images.div_ceil(batch_size).min((images / 2).max(usize::from(images > 0))),
        };
        Self { images, batch_size, last, count }
    }

    /// Number of batches.
    pub fn count(&self) -> u32 {
        self.count as u32
    }

    /// The images of a batch as positions in the epoch's order; empty if `index` is beyond the last batch.
    pub fn range(&self, index: u32) -> Range<usize> {
        let index = (index as usize).min(self.count);
        let start = |index: usize| match self.last {
            LastBatch::Even if self.count == 0 => 0,
            LastBatch::Even => index * (self.images / self.count) + index.min(self.images % self.count),
            LastBatch::Keep | LastBatch::Drop => (index * self.batch_size).min(self.images),
        };
        start(index)..start((index + 1).min(self.count))
    }

    /// Images in each batch.
    pub fn sizes(&self) -> Vec<usize> {
        (0..self.count()).map(|index| self.range(index).len()).collect()
    }

    /// The sizes that occur, the largest first.
    pub fn distinct_sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = [0, self.count().saturating_sub(1)].map(|index| self.range(index).len()).into();
        sizes.dedup();
        sizes
    }

    /// Checks that a network can be trained on these batches.
    ///
    /// # Errors
    /// If there is no batch, or if a batch holds only one image: batch norm would take its statistics from that image
    /// alone, and they would dominate the running statistics if that batch came last. PyTorch refuses such a batch for
    /// feature maps of one pixel.
    pub fn check(&self, network: &Network) -> Result<(), ConfigError> {
        let fail = |field, what: String| Err(ConfigError::Invalid { field, what });
        let Self { images, batch_size, .. } = self;
        if self.count == 0 {
            let what = format!(
                "with 'drop', {images} training images do not fill one batch of {batch_size}; a smaller --batch-size or \
                 --last-batch even trains on them"
            );
            return fail("optimizer.last_batch", what);
        }
        let has_batch_norm = network.layers.iter().any(|layer| matches!(layer.op, Op::BatchNorm { .. }));
        if !has_batch_norm || self.distinct_sizes().last() != Some(&1) {
            return Ok(());
        }
        if *batch_size == 1 || *images == 1 {
            let what = format!("batch norm needs at least 2 images in a batch, found {}", batch_size.min(images));
            return fail("optimizer.batch_size", what);
        }
        let what = format!(
            "with 'keep', the last batch of {images} images in batches of {batch_size} holds one image, on which batch \
             norm cannot train; use --last-batch even or drop, or another --batch-size"
        );
        fail("optimizer.last_batch", what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::model::{Architecture, Layer};
    use proptest::prelude::*;

    fn network(batch_norm: bool) -> Network {
        let mut network = Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 10, None, None);
        if !batch_norm {
            network.layers.retain(|layer: &Layer| !matches!(layer.op, Op::BatchNorm { .. }));
        }
        network
    }

    proptest! {
        #[test]
        fn batches_follow_one_another(images in 0usize..500, batch_size in 1usize..80) {
            for last in [LastBatch::Even, LastBatch::Keep, LastBatch::Drop] {
                let batches = Batches::new(images, batch_size, last);
                let sizes = batches.sizes();
                prop_assert!(sizes.iter().all(|size| *size >= 1));
                prop_assert!(sizes.is_sorted_by(|a, b| a >= b), "{sizes:?}");
                for index in 0..batches.count() {
                    let end = batches.range(index).end;
                    prop_assert_eq!(batches.range(index + 1).start, end);
                }
                prop_assert!(batches.range(batches.count()).is_empty());
                let covered: usize = sizes.iter().sum();
                match last {
                    LastBatch::Drop => prop_assert!(covered <= images && images - covered < batch_size),
                    _ => prop_assert_eq!(covered, images),
                }
                if let (LastBatch::Even, Some(largest), Some(least)) = (last, sizes.first(), sizes.last()) {
                    prop_assert!(largest - least <= 1);
                    // No batch of one image if two are possible.
                    prop_assert!(*least >= 2 || images < 2 || batch_size == 1, "{sizes:?}");
                    prop_assert!(*largest <= batch_size || (batch_size == 2 && *largest == 3));
                }
                let mut distinct = sizes.clone();
                distinct.dedup();
                prop_assert_eq!(if distinct.is_empty() { vec![0] } else { distinct }, batches.distinct_sizes());
            }
        }
    }

    #[test]
    fn one_image_is_no_batch_for_batch_norm() {
        let check = |images, batch_size, last, batch_norm| {
            Batches::new(images, batch_size, last).check(&network(batch_norm)).map_err(|error| error.to_string())
        };
        for (images, batch_size, last, part) in [
            (147, 73, LastBatch::Keep, "last batch of 147 images in batches of 73 holds one image"),
            (10, 1, LastBatch::Even, "at least 2 images in a batch"),
            (10, 1, LastBatch::Keep, "at least 2 images in a batch"),
            (1, 8, LastBatch::Even, "at least 2 images in a batch"),
        ] {
            let error = check(images, batch_size, last, true).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert_eq!(check(images, batch_size, last, false), Ok(()));
        }
        let error = check(50, 64, LastBatch::Drop, false).unwrap_err();
        assert!(error.contains("50 training images do not fill one batch of 64"), "{error}");
        for last in [LastBatch::Even, LastBatch::Drop] {
            assert_eq!(check(147, 73, last, true), Ok(()), "{last:?}");
        }
        assert_eq!(check(7, 2, LastBatch::Even, true), Ok(()));
    }
}
