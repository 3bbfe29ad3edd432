//! The WGSL engine: the whole network in our own compute shaders, on any GPU that wgpu supports.

mod adapters;
mod autotune;
mod cache;
mod device;
#[cfg(test)]
mod device_tests;
mod engine;
#[cfg(test)]
mod engine_tests;
mod error;
#[cfg(test)]
mod fusion_tests;
#[cfg(test)]
mod harness;
mod kernel;
mod kernel_tables;
mod kernels;
mod layout;
mod lower;
mod memory;
mod opening;
mod pacing;
mod parameters;
mod plan;
mod profile;
mod program;
mod programs;
#[cfg(test)]
mod random_networks_tests;
mod recorded;
#[cfg(test)]
mod search_tests;
mod shader;
mod subgroups;
#[cfg(test)]
mod test_networks;
mod tuning;
#[cfg(test)]
mod validation;
mod wait;

pub use adapters::{
    AdapterFeatures, AdapterKind, AdapterLimits, AdapterSummary, Tier, adapters, default_adapter, how_to_get_an_adapter,
};
pub use device::{Checks, Subgroups};
pub use engine::{WgslEngine, WgslOptions};
pub use error::GpuError;
pub use pacing::PaceStats;
pub use plan::{LayerPlan, MemoryPlan, Plan, ProgramPlan};
pub use profile::{Clock, DeviceFigures, KernelRow, Profile, Share};
pub use tuning::{KernelChoice, KernelDevice, KernelTable, Tuning};
