//! A lower resolution: fewer pixels, then enlarged to the old size, both with Pillow's box filter.

use super::Severity;
use crate::data::ImageShape;

/// Resizes to `⌊c · side⌋` pixels along both axes and back.
pub(super) fn pixelate(image: &[u8], shape: ImageShape, severity: Severity) -> Vec<u8> {
    let c = severity.of([0.95, 0.9, 0.85, 0.75, 0.65]);
    let less = |side: usize| ((side as f64 * c) as usize).max(1);
    let (height, width) = (less(shape.height), less(shape.width));
    let plane = |plane: &[u8]| {
        let small = resize(plane, shape.width, width, height);
        resize(&small, width, shape.width, shape.height)
    };
    image.chunks_exact(shape.height * shape.width).flat_map(plane).collect()
}

/// Rows first, rounded to bytes, then columns.
pub(super) fn resize(plane: &[u8], from_width: usize, width: usize, height: usize) -> Vec<u8> {
    let from_height = plane.len() / from_width;
    let columns = windows(from_width, width);
    let narrow: Vec<u8> = plane
        .chunks_exact(from_width)
        .flat_map(|row| columns.iter().map(|(first, count)| mean(row[*first..][..*count].iter())))
        .collect();
    let rows = windows(from_height, height);
    rows.into_iter()
        .flat_map(|(first, count)| {
            let narrow = &narrow;
            (0..width).map(move |x| mean((first..first + count).map(|y| &narrow[y * width + x])))
        })
        .collect()
}

fn mean<'a>(values: impl ExactSizeIterator<Item = &'a u8>) -> u8 {
    let count = values.len() as u32;
    let sum: u32 = values.map(|v| u32::from(*v)).sum();
    ((2 * sum + count) / (2 * count)) as u8
}

/// For each of `to` pixels the first of the `from` pixels that it averages, and their number: those whose centre is
/// within half a (larger) pixel of its centre, without the point at the left end.
fn windows(from: usize, to: usize) -> Vec<(usize, usize)> {
    let ratio = from as f64 / to as f64;
    let reach = 0.5 * ratio.max(1.0);
    let window = |i: usize| {
        let centre = (i as f64 + 0.5) * ratio;
        let inside = |j: &usize| {
            let from_centre = (*j as f64 - centre + 0.5) / (2.0 * reach);
            from_centre > -0.5 && from_centre <= 0.5
        };
        let (first, end) = ((centre - reach + 0.5).max(0.0) as usize, ((centre + reach + 0.5) as usize).min(from));
        let first = (first..end).find(inside).unwrap_or(first.min(from - 1));
        (first, (first..end).filter(inside).count().max(1))
    };
    (0..to).map(window).collect()
}
