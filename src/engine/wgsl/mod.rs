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

pub use adapters::{AdapterFeatures, AdapterKind, AdapterLimits, AdapterSummary, Tier, adapters, default_adapter};
pub use device::Checks;
pub use error::GpuError;
