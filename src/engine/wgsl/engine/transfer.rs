//! Transfers between host and device: inputs of a call and its results.

use std::collections::HashMap;

use super::WgslEngine;
use crate::data::ImageShape;
use crate::engine::wgsl::device::Gpu;
use crate::engine::wgsl::error::GpuError;
use crate::engine::wgsl::kernel::padded;
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::wgsl::lower;
use crate::engine::wgsl::pacing::Pacer;
use crate::engine::wgsl::program::Fixed;
use crate::engine::{Batch, EngineError};

impl WgslEngine {
    /// The named buffer of at least `bytes` bytes; created if no program has used it yet.
    pub(super) fn buffer(&mut self, images: usize, home: Fixed, bytes: u64) -> Result<wgpu::Buffer, EngineError> {
        self.set(images)?;
        let (buffer, replaced) = find_or_make(&self.gpu, &mut self.pacer, &mut self.buffers, home, bytes)?;
        self.forget_programs(replaced);
        Ok(buffer)
    }

    /// Writes into a buffer, after all earlier commands.
    pub(super) fn write<T: bytemuck::NoUninit>(
        &mut self,
        images: usize,
        home: Fixed,
        bytes: u64,
        values: &[T],
    ) -> Result<(), EngineError> {
        let buffer = self.buffer(images, home, bytes)?;
        self.pacer.flush(&self.gpu)?;
        self.gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        Ok(())
    }

    pub(super) fn write_call(&mut self, images: usize, home: Fixed, call: &Call) -> Result<(), EngineError> {
        self.write(images, home, size_of::<Call>() as u64, std::slice::from_ref(call))
    }

    pub(super) fn write_info(&mut self, home: Fixed, info: &[ImageInfo]) -> Result<(), EngineError> {
        self.write(info.len(), home, size_of_val(info) as u64, info)
    }

    pub(super) fn write_pixels(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        let mut bytes = batch.pixels.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.write(batch.len(), Fixed::Pixels, bytes.len() as u64, &bytes)
    }

    /// Uploads images or perturbations, `B × C × H × W`.
    pub(super) fn write_images(&mut self, home: fn(usize) -> Fixed, data: &[f32]) -> Result<(), EngineError> {
        self.write_tensor(home, data, self.network.input)
    }

    /// Uploads a tensor, `B × C × H × W`.
    pub(super) fn write_tensor(
        &mut self,
        home: fn(usize) -> Fixed,
        data: &[f32],
        shape: ImageShape,
    ) -> Result<(), EngineError> {
        let images = data.len() / shape.len();
        let ranges = self.set(images)?.ranges.clone();
        let mut rest = data;
        for (r, count) in ranges.into_iter().enumerate() {
            let (now, later) = rest.split_at(count * shape.len());
            rest = later;
            let packed = pack_images(now, shape);
            self.write(images, home(r), 4 * packed.len() as u64, &packed)?;
        }
        Ok(())
    }

    /// Copies an image tensor into another.
    pub(super) fn copy_images(
        &mut self,
        images: usize,
        from: fn(usize) -> Fixed,
        to: fn(usize) -> Fixed,
    ) -> Result<(), EngineError> {
        let shape = self.network.input;
        self.copy(images, from, to, shape)
    }

    pub(super) fn copy(
        &mut self,
        images: usize,
        from: fn(usize) -> Fixed,
        to: fn(usize) -> Fixed,
        shape: ImageShape,
    ) -> Result<(), EngineError> {
        let ranges = self.set(images)?.ranges.clone();
        for (r, count) in ranges.into_iter().enumerate() {
            let bytes = lower::bytes(count, shape);
            let from = self.buffer(images, from(r), bytes)?;
            let to = self.buffer(images, to(r), bytes)?;
            self.pacer.copy(&self.gpu, &from, &to, bytes);
        }
        Ok(())
    }

    /// Waits, and reads a named tensor back, `B × C × H × W`.
    pub(super) fn read_named(
        &mut self,
        images: usize,
        home: fn(usize) -> Fixed,
        shape: ImageShape,
    ) -> Result<Vec<f32>, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let ranges = self.set(images)?.ranges.clone();
        let mut buffers = Vec::with_capacity(ranges.len());
        for (r, count) in ranges.into_iter().enumerate() {
            let bytes = lower::bytes(count, shape);
            buffers.push((self.buffer(images, home(r), bytes)?, bytes));
        }
        let wanted: Vec<_> = buffers.iter().map(|(buffer, bytes)| (buffer, 0, *bytes)).collect();
        Ok(unpack(&self.gpu.read(&wanted)?, shape))
    }
}

/// A buffer of at least `bytes` bytes, and whether it replaced a smaller one, whose contents it received.
///
/// Batches of all sizes share their buffers: only the images of the last search outlive a call, and a smaller batch
/// occupies the beginning of a buffer. So an epoch whose batch sizes differ by one takes no more memory than one size.
pub(super) fn find_or_make(
    gpu: &Gpu,
    pacer: &mut Pacer,
    buffers: &mut HashMap<Fixed, wgpu::Buffer>,
    home: Fixed,
    bytes: u64,
) -> Result<(wgpu::Buffer, bool), GpuError> {
    let smaller = match buffers.get(&home) {
        Some(buffer) if buffer.size() >= bytes => return Ok((buffer.clone(), false)),
        found => found.cloned(),
    };
    let buffer = gpu.buffer(&format!("{home:?}"), bytes)?;
    if let Some(smaller) = &smaller {
        pacer.copy(gpu, smaller, &buffer, smaller.size());
    }
    buffers.insert(home, buffer.clone());
    Ok((buffer, smaller.is_some()))
}

/// `B × C × H × W` to `B × H × W × C`, channels padded with zeros.
pub(super) fn pack_images(data: &[f32], shape: ImageShape) -> Vec<f32> {
    let (channels, plane) = (padded(shape.channels), shape.height * shape.width);
    let mut out = vec![0.0; data.len() / shape.channels * channels];
    for (image, out) in data.chunks(shape.len()).zip(out.chunks_mut(plane * channels)) {
        for (c, values) in image.chunks(plane).enumerate() {
            for (p, value) in values.iter().enumerate() {
                out[p * channels + c] = *value;
            }
        }
    }
    out
}

/// `B × H × W × C` to `B × C × H × W`, from the bytes of each range.
pub(super) fn unpack(ranges: &[Vec<u8>], shape: ImageShape) -> Vec<f32> {
    let (channels, plane) = (padded(shape.channels), shape.height * shape.width);
    let mut out = Vec::new();
    for bytes in ranges {
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
        for image in values.chunks(plane * channels) {
            for c in 0..shape.channels {
                out.extend((0..plane).map(|p| image[p * channels + c]));
            }
        }
    }
    out
}
