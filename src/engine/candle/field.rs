//! Activations on the CPU: `B × C/16 × H × W × 16`, in lines of sixteen channels.
//!
//! A line is one 512-bit vector (two of 256 bits, four of 128) and one cache line. Every kernel works on whole lines,
//! so none needs a remainder loop: the padding channels of the last block are zero and stay zero. oneDNN calls this
//! layout `nChw16c`.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::{Pod, Zeroable};

/// Channels in a line.
pub(super) const LANES: usize = 16;

/// Sixteen channels of one pixel.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [f32; LANES]);

impl Line {
    pub(super) const ZERO: Self = Self([0.0; LANES]);

    /// The values of `per_channel`, sixteen per line, padded with zeros.
    pub(super) fn fill(per_channel: impl Iterator<Item = f32>, blocks: usize) -> Vec<Self> {
        let mut lines = vec![Self::ZERO; blocks];
        bytemuck::cast_slice_mut::<Self, f32>(&mut lines).iter_mut().zip(per_channel).for_each(|(v, x)| *v = x);
        lines
    }
}

/// Number of blocks of sixteen for `channels` channels.
pub(super) const fn blocks(channels: usize) -> usize {
    channels.div_ceil(LANES)
}

/// Freed buffers by size, for reuse. Fresh memory costs a page fault for every 4 KiB, which takes longer than computing
/// the values stored there.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    images: AtomicUsize,
    free: Mutex<HashMap<usize, Vec<Vec<Line>>>>,
}

impl BufferPool {
    /// A buffer of `len` lines with unspecified contents.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&len).and_then(Vec::pop);
        let mut lines = kept.unwrap_or_else(|| vec![Line::ZERO; len]);
        if cfg!(test) {
            // Makes tests fail if a kernel reads lines that it has not written.
            lines.fill(Line([f32::NAN; LANES]));
        }
        Buffer { lines, pool: Some(Arc::clone(self)) }
    }

    /// Sets the number of images of the next pass. Frees all buffers if it differs from that of the last pass.
    pub(super) fn begin(&self, images: usize) {
        if self.images.swap(images, Ordering::Relaxed) != images {
            self.free.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
    }
}

/// Lines that return to their pool when dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    lines: Vec<Line>,
    pool: Option<Arc<BufferPool>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            let lines = std::mem::take(&mut self.lines);
            pool.free.lock().unwrap_or_else(PoisonError::into_inner).entry(lines.len()).or_default().push(lines);
        }
    }
}

impl Deref for Buffer {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        &self.lines
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [Line] {
        &mut self.lines
    }
}

/// Activations of a batch, or their gradient.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) images: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) lines: Buffer,
}

impl Field {
    /// A field with unspecified contents.
    pub(super) fn new(pool: &Arc<BufferPool>, [images, channels, height, width]: [usize; 4]) -> Self {
        let lines = pool.take(images * blocks(channels) * height * width);
        Self { images, channels, height, width, lines }
    }

    pub(super) const fn dims(&self) -> [usize; 4] {
        [self.images, self.channels, self.height, self.width]
    }

    pub(super) const fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub(super) const fn blocks(&self) -> usize {
        blocks(self.channels)
    }

    /// From `B × C × H × W`.
    pub(super) fn from_planes(pool: &Arc<BufferPool>, dims: [usize; 4], values: &[f32]) -> Self {
        let mut field = Self::new(pool, dims);
        let (channels, pixels, blocks) = (field.channels, field.pixels(), field.blocks());
        if values.is_empty() {
            return field;
        }
        let images = field.lines.chunks_mut(blocks * pixels).zip(values.chunks(channels * pixels));
        for (lines, image) in images {
            for (lines, planes) in lines.chunks_mut(pixels).zip(image.chunks(LANES * pixels)) {
                if planes.len() < LANES * pixels {
                    lines.fill(Line::ZERO);
                }
                for (c, plane) in planes.chunks(pixels).enumerate() {
                    lines.iter_mut().zip(plane).for_each(|(line, v)| line.0[c] = *v);
                }
            }
        }
        field
    }

    /// As `B × C × H × W`.
    pub(super) fn to_planes(&self) -> Vec<f32> {
        let (pixels, blocks) = (self.pixels(), self.blocks());
        let mut values = vec![0.0; self.images * self.channels * pixels];
        if values.is_empty() {
            return values;
        }
        for (image, lines) in values.chunks_mut(self.channels * pixels).zip(self.lines.chunks(blocks * pixels)) {
            for (planes, lines) in image.chunks_mut(LANES * pixels).zip(lines.chunks(pixels)) {
                for (c, plane) in planes.chunks_mut(pixels).enumerate() {
                    plane.iter_mut().zip(lines).for_each(|(v, line)| *v = line.0[c]);
                }
            }
        }
        values
    }
}
