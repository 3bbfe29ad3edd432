//! Opening a device and testing whether its subgroups can be used.

use super::device::{Gpu, GpuOptions};
use super::error::GpuError;
use super::subgroups;

impl Gpu {
    /// Opens a separate device on `adapter`, without a pipeline cache.
    #[cfg(test)]
    pub(super) fn open(adapter: &wgpu::Adapter, checks: super::device::Checks) -> Result<Self, GpuError> {
        Self::open_with(adapter, &GpuOptions { checks, ..GpuOptions::default() })
    }

    /// Opens a separate device on `adapter`, with the limits of the base tier. A device with subgroups first runs a
    /// kernel that tests whether they can be used.
    pub(super) fn open_with(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Self, GpuError> {
        let mut gpu = Self::new(adapter, options)?;
        if gpu.device.features().contains(wgpu::Features::SUBGROUP) {
            gpu.subgroups = match subgroups::lanes(&gpu) {
                Ok(lanes) => lanes >= subgroups::LANES,
                Err(lost @ GpuError::Lost { .. }) => return Err(lost),
                // The driver reports subgroups, but they do not work.
                Err(_) => false,
            };
        }
        Ok(gpu)
    }
}
