//! Tests whether matrix products can broadcast values within a subgroup (shaders/shared/broadcast_product.wgsl).
//!
//! Subgroups are a feature beyond the base tier. Broadcasts help where a load is executed lane by lane and costs as
//! much as dozens of multiply-adds, as on software adapters. On GPUs they have not been measured; workgroup memory
//! serves the same purpose there.

use super::device::Gpu;
use super::error::GpuError;
use super::kernel::{BufferId, Dispatch, Kernel, Slice, Work};
#[cfg(test)]
use super::layout::Layout;
use super::layout::gpu_struct;
use super::recorded;

/// Number of lanes that share the rows of a tile.
pub(super) const LANES: u32 = 8;

const KERNEL: &str = "subgroup_size.wgsl";
/// Number of workgroups of the test, of [`LANES`] invocations each.
const GROUPS: u32 = 8;

gpu_struct! {
    struct SubgroupSizeParams for "subgroup_size.wgsl" {
        number: u32,
    }
}

/// The size of the smallest subgroup in workgroups like those of the products. It is measured by running a kernel,
/// because adapters report at best a range. Zero if a subgroup is smaller than such a workgroup, or if a broadcast
/// returns a wrong value.
pub(super) fn lanes(gpu: &Gpu) -> Result<u32, GpuError> {
    let size = u64::from(4 * LANES * GROUPS);
    let sizes = gpu.buffer("subgroup sizes", size)?;
    let slice = Slice { buffer: BufferId(0), offset: 0, size };
    let (kernel, params) = (Kernel::plain(KERNEL), SubgroupSizeParams { number: 20 });
    let dispatch = Dispatch::new(kernel, params, &[slice], [GROUPS, 1, 1], Work::default());
    let commands = recorded::commands(gpu, [&dispatch].into_iter(), std::slice::from_ref(&sizes))?;
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        commands.iter().for_each(|command| command.record(&mut pass));
    }
    gpu.queue.submit([encoder.finish()]);
    let bytes = gpu.read(&[(&sizes, 0, size)])?.concat();
    Ok(bytemuck::pod_collect_to_vec::<u8, u32>(&bytes).into_iter().min().unwrap_or(0))
}

/// Whether a kernel needs subgroups.
#[cfg(test)]
pub(super) fn are_needed(kernel: &Kernel) -> bool {
    kernel.file == KERNEL || kernel.file.ends_with("_broadcast.wgsl")
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(super) fn layouts() -> Vec<Layout> {
    vec![SubgroupSizeParams::LAYOUT]
}

/// Every kernel of this module.
#[cfg(test)]
pub(super) fn variants() -> Vec<Kernel> {
    vec![Kernel::plain(KERNEL)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgsl::device::{GpuOptions, Subgroups};
    use crate::engine::wgsl::harness::adapter;

    /// A device uses subgroups only if they were requested and have as many lanes as the tiles need.
    #[test]
    fn a_device_says_how_many_lanes_it_has() {
        let found = adapter();
        let open =
            |subgroups| Gpu::open_with(&found.adapter, &GpuOptions { subgroups, ..GpuOptions::default() }).unwrap();
        assert!(!open(Subgroups::Never).subgroups);
        let gpu = open(Subgroups::Always);
        let there = found.adapter.features().contains(wgpu::Features::SUBGROUP);
        if there {
            let lanes = lanes(&gpu).unwrap();
            // Zero if there are fewer than eight: lavapipe has four lanes with 128-bit vectors.
            assert!(lanes == 0 || lanes.is_power_of_two() && (LANES..=128).contains(&lanes), "{lanes}");
            assert_eq!(gpu.subgroups, lanes >= LANES);
        } else {
            assert!(!gpu.subgroups);
        }
        let software = gpu.info.device_type == wgpu::DeviceType::Cpu;
        assert_eq!(open(Subgroups::WhereFaster).subgroups, gpu.subgroups && software);
    }
}
