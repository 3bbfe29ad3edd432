//! The WGSL engine: the whole network in our own compute shaders, on any GPU that wgpu reaches.

mod device;
#[cfg(test)]
mod harness;
mod kernel;
mod kernels;
mod shader;

pub use device::{Checks, GpuError};
