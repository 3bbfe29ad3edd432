//! Opening a device, and finding out what it does.

use super::device::{Gpu, GpuOptions};
use super::error::GpuError;
use super::subgroups;

impl Gpu {
    /// Opens a device of its own on `adapter`, without a cache of pipelines.
    #[cfg(test)]
    pub(super) fn open(adapter: &wgpu::Adapter, checks: super::device::Checks) -> Result<Self, GpuError> {
        Self::open_with(adapter, &GpuOptions { checks, ..GpuOptions::default() })
    }

    /// Opens a device of its own on `adapter`, with the limits of the base tier. A device with subgroups runs a kernel first,
    /// which shows whether they can be used.
    pub(super) fn open_with(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Self, GpuError> {
        let mut gpu = Self::new(adapter, options)?;
        if gpu.device.features().contains(wgpu::Features::SUBGROUP) {
            gpu.subgroups = match subgroups::lanes(&gpu) {
                Ok(lanes) => lanes >= subgroups::LANES,
                Err(lost @ GpuError::Lost { .. }) => return Err(lost),
                // A driver that has them in name alone.
                Err(_) => false,
            };
        }
        Ok(gpu)
    }
}
