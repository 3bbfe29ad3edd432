//! Conversion of images to a given number of channels and a given size.
//!
//! *Channels.* Colour to grey: Rec. 601 luma, `round(0.299 R + 0.587 G + 0.114 B)`, exact in integers. Grey to colour:
//! the plane is repeated three times.
//!
//! *Size.* The largest centred square is cropped (of `d` surplus rows or columns, `⌊d/2⌋` are cut at the top or left),
//! then scaled to `size × size` with a triangle filter. Its support is one pixel of the coarser of the two grids, so
//! that shrinking averages over all source pixels and enlarging is bilinear. Values are used as stored (no gamma). A
//! square of the right size does not change, bit for bit. Channels are converted before the size.

use std::borrow::Cow;

use image::imageops::{self, FilterType};

use super::{DataError, Dataset, ImageShape};
use crate::memory;

/// Converts `from` channels to `to` channels, where both are 1 or 3.
pub(super) fn convert_channels(planar: &[u8], from: usize, to: usize) -> Cow<'_, [u8]> {
    match (from, to) {
        (3, 1) => {
            let plane = planar.len() / 3;
            let (red, rest) = planar.split_at(plane);
            let (green, blue) = rest.split_at(plane);
            let luma = |((r, g), b): ((&u8, &u8), &u8)| {
                ((299 * u32::from(*r) + 587 * u32::from(*g) + 114 * u32::from(*b) + 500) / 1000) as u8
            };
            Cow::Owned(red.iter().zip(green).zip(blue).map(luma).collect())
        }
        (1, 3) => Cow::Owned(planar.repeat(3)),
        _ => Cow::Borrowed(planar),
    }
}

/// Crops and scales every plane of a `shape` image to `size × size`.
pub(super) fn fit_square(planar: &[u8], shape: ImageShape, size: usize) -> Vec<u8> {
    if shape.height == size && shape.width == size {
        return planar.to_vec();
    }
    let side = shape.height.min(shape.width);
    let (top, left) = ((shape.height - side) / 2, (shape.width - side) / 2);
    let mut out = Vec::with_capacity(shape.channels * size * size);
    for plane in planar.chunks_exact(shape.height * shape.width) {
        let square = image::GrayImage::from_fn(side as u32, side as u32, |x, y| {
            image::Luma([plane[(top + y as usize) * shape.width + left + x as usize]])
        });
        if side == size {
            out.extend(square.into_raw());
        } else {
            out.extend(imageops::resize(&square, size as u32, size as u32, FilterType::Triangle).into_raw());
        }
    }
    out
}

/// The images of `set` with `channels` planes of `size × size`, by the rules above; `None` keeps channels or size.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] as [`check_request`].
pub(super) fn fit_dataset(set: Dataset, channels: Option<usize>, size: Option<usize>) -> Result<Dataset, DataError> {
    use rayon::prelude::*;
    check_request(set.name(), channels, size)?;
    let from = set.shape();
    let converted = ImageShape { channels: channels.unwrap_or(from.channels), ..from };
    let to = size.map_or(converted, |s| ImageShape::new(converted.channels, s, s));
    if from == to {
        return Ok(set);
    }
    let mut images = vec![0; set.len() * to.len()];
    images.par_chunks_exact_mut(to.len()).enumerate().for_each(|(i, out)| {
        let planar = convert_channels(set.image(i), from.channels, to.channels);
        match size {
            Some(size) => out.copy_from_slice(&fit_square(&planar, converted, size)),
            None => out.copy_from_slice(&planar),
        }
    });
    Dataset::new(set.name(), set.class_names().to_vec(), to, images, set.labels().to_vec())
}

/// Checks that the images of a set, and copies of some of them, fit the memory of this machine.
///
/// # Errors
/// Returns [`DataError::Inconsistent`] if they do not.
pub fn check_memory(name: &str, images: usize, copies: usize, shape: ImageShape) -> Result<(), DataError> {
    let ImageShape { channels, height, width } = shape;
    let each = [channels, height, width].iter().fold(1, |all: u128, n| all.saturating_mul(*n as u128));
    let bytes = each.saturating_mul(images as u128 + copies as u128);
    let what = || match copies {
        0 => format!("{images} images of {shape} need"),
        _ => format!("{images} images of {shape} and the {copies} copies for its parts need"),
    };
    memory::check(bytes, what, "choose a smaller --image-size")
        .map_err(|refused| DataError::Inconsistent { name: name.to_owned(), what: refused.to_string() })
}

/// The largest side that a network's input may have.
pub const MAX_IMAGE_SIZE: usize = 4096;

/// Checks that channels and size are possible for an image.
pub(super) fn check_request(name: &str, channels: Option<usize>, size: Option<usize>) -> Result<(), DataError> {
    let fail = |what| Err(DataError::Inconsistent { name: name.to_owned(), what });
    match (channels, size) {
        (Some(c), _) if c != 1 && c != 3 => {
            fail(format!("{c} channels were requested, expected 1 (grey) or 3 (colour)"))
        }
        (_, Some(s)) if s == 0 || s > MAX_IMAGE_SIZE => {
            fail(format!("an image size of {s} was requested, expected 1 to {MAX_IMAGE_SIZE}"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_no_machine_can_hold_are_refused_before_they_are_made() {
        let shape = ImageShape::new(3, 4096, 4096);
        check_memory("s", 2, 1, ImageShape::new(1, 8, 8)).unwrap();
        let message = |copies| check_memory("s", 1 << 24, copies, shape).unwrap_err().to_string();
        assert!(
            message(0).starts_with("data set 's': 16777216 images of 3×4096×4096 need at least 768.0 TiB"),
            "{}",
            message(0)
        );
        assert!(message(9).contains("and the 9 copies for its parts need at least"), "{}", message(9));
        assert!(message(9).ends_with(": choose a smaller --image-size"), "{}", message(9));
        assert!(check_memory("s", usize::MAX, usize::MAX, ImageShape::new(3, usize::MAX, usize::MAX)).is_err());
    }

    #[test]
    fn luma_is_rec_601_rounded() {
        let planar = [255, 0, 0, 200, 7, 0, 255, 0, 200, 8, 0, 0, 255, 200, 9];
        // 76.245, 149.685, 29.07, 200, 2.093 + 4.696 + 1.026 = 7.815
        assert_eq!(&*convert_channels(&planar, 3, 1), [76, 150, 29, 200, 8]);
        assert_eq!(&*convert_channels(&[1, 2], 1, 3), [1, 2, 1, 2, 1, 2]);
        assert_eq!(&*convert_channels(&[1, 2], 1, 1), [1, 2]);
    }

    #[test]
    fn centre_square_is_cut_exactly() {
        let wide: Vec<u8> = (0..10).collect();
        assert_eq!(fit_square(&wide, ImageShape::new(1, 2, 5), 2), [1, 2, 6, 7]);
        let tall: Vec<u8> = (0..12).collect();
        assert_eq!(fit_square(&tall, ImageShape::new(2, 3, 2), 2), [0, 1, 2, 3, 6, 7, 8, 9]);
    }

    #[test]
    fn shrinking_averages_and_keeps_constants() {
        assert_eq!(fit_square(&[77; 49 * 3], ImageShape::new(3, 7, 7), 3), [77; 27]);
        let checker: Vec<u8> = (0..256).map(|i| if (i % 16 + i / 16) % 2 == 0 { 0 } else { 200 }).collect();
        let small = fit_square(&checker, ImageShape::new(1, 16, 16), 4);
        assert!(small.iter().all(|v| (95..=105).contains(v)), "{small:?}");
        // Far corners of an enlarged 2×2 image are the source pixels.
        let large = fit_square(&[0, 100, 200, 50], ImageShape::new(1, 2, 2), 8);
        assert_eq!([large[0], large[7], large[56], large[63]], [0, 100, 200, 50]);
    }

    #[test]
    fn whole_sets_are_converted() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        let set = Dataset::new("s", names, ImageShape::new(1, 2, 3), (0..12).collect(), vec![0, 1]).unwrap();
        let same = fit_dataset(set.clone(), None, None).unwrap();
        assert_eq!(same, set);
        let fitted = fit_dataset(set.clone(), Some(3), Some(2)).unwrap();
        assert_eq!(fitted.shape(), ImageShape::new(3, 2, 2));
        assert_eq!(fitted.image(1), [6, 7, 9, 10, 6, 7, 9, 10, 6, 7, 9, 10]);
        for (channels, size, expected) in
            [(Some(2), None, "2 channels"), (None, Some(0), "size of 0"), (None, Some(5000), "expected 1 to 4096")]
        {
            let message = fit_dataset(set.clone(), channels, size).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
