//! The WGSL engine: the whole network in our own compute shaders, on any GPU that wgpu reaches.

mod adapters;
mod cache;
mod device;
#[cfg(test)]
mod device_tests;
mod error;
#[cfg(test)]
mod harness;
mod kernel;
mod kernels;
mod shader;
#[cfg(test)]
mod validation;

pub use adapters::{
    AdapterFeatures, AdapterKind, AdapterLimits, AdapterSummary, Tier, adapters, default_adapter, how_to_get_an_adapter,
};
pub use device::Checks;
pub use error::GpuError;

use std::path::PathBuf;

/// How a WGSL engine is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgslOptions {
    /// Index or a part of the name of an adapter, `high-performance` or `low-power`; none takes the fastest kind.
    pub adapter: Option<String>,
    /// Whether shaders check their indices while they run.
    pub checks: Checks,
    /// Only choices that do not depend on measurements.
    pub deterministic: bool,
    /// Directory for compiled pipelines; none keeps them nowhere.
    pub pipelines: Option<PathBuf>,
}

impl Default for WgslOptions {
    /// The fastest adapter, without checks, with pipelines in the user's cache directory (`FAIRTAT_CACHE` names another,
    /// empty for none).
    fn default() -> Self {
        Self { adapter: None, checks: Checks::Off, deterministic: false, pipelines: cache::default_folder() }
    }
}

impl WgslOptions {
    /// Opens a device on the adapter.
    fn open(&self) -> Result<device::Gpu, GpuError> {
        let options = device::GpuOptions { checks: self.checks, pipelines: self.pipelines.clone() };
        device::Gpu::open_with(&adapters::choose(self.adapter.as_deref())?.adapter, &options)
    }
}

/// Opens a device as an engine would, and gives the adapter's name.
pub(crate) fn open_adapter(options: &WgslOptions) -> Result<String, GpuError> {
    options.open().map(|gpu| gpu.info.name.clone())
}
