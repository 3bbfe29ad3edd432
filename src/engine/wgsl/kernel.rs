//! What runs on a device: kernels, and dispatches of them over ranges of buffers.
//!
//! Conventions that all kernels share:
//!
//! * The entry point is `main`. Binding 0 of group 0 is a uniform struct `Params` of at most 128 bytes, declared as
//!   [`super::shader::PARAMS`] so that a device with immediates can have it as these; bindings 1 and up are buffers, at most
//!   eight of them storage (the settings of a call are a second uniform).
//! * Activations are `B × H × W × C` with `C` rounded up to a multiple of four, as `array<vec4<f32>>`; four channels are
//!   a *quad*. The channels added are zero, in activations, gradients and parameters alike, and every kernel keeps them
//!   so.
//! * Convolution weights are `tap × C_in × C_out` (tap `= ky · k + kx`), with both channel counts rounded up; linear
//!   weights are `C_in × K`, vectors are rounded up.
//! * A buffer that a dispatch writes is bound for writing alone: reading it through another binding is not allowed, even
//!   elsewhere in it.

use super::layout::Params;

/// A kernel variant: a file of `shaders/` and the constants that it is expanded with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Kernel {
    pub(super) file: &'static str,
    pub(super) constants: Vec<(&'static str, u32)>,
}

impl Kernel {
    /// A kernel without variants.
    pub(super) const fn plain(file: &'static str) -> Self {
        Self { file, constants: Vec::new() }
    }

    pub(super) fn new(file: &'static str, constants: &[(&'static str, u32)]) -> Self {
        Self { file, constants: constants.to_vec() }
    }

    /// Such as `conv_forward BM=64 BN=32`.
    pub(super) fn label(&self) -> String {
        let mut label = self.file.trim_end_matches(".wgsl").to_owned();
        for (name, value) in &self.constants {
            label += &format!(" {name}={value}");
        }
        label
    }
}

/// Which buffer, in the table of a program (or of a test).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BufferId(pub(super) usize);

/// A range of bytes of a buffer. The offset is a multiple of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) buffer: BufferId,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Arithmetic and memory traffic, for plans, pacing and benches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Work {
    /// Floating-point operations, a multiply-add counted as two.
    pub(super) flops: u64,
    /// Bytes read and written if every value moved once.
    pub(super) bytes: u64,
}

impl Work {
    /// What a dispatch of this work costs in time: arithmetic, with a byte of traffic weighing as much as ten operations, and
    /// a launch as much as 100,000.
    pub(super) const fn cost(self) -> u64 {
        self.flops + 10 * self.bytes + 100_000
    }
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dispatch {
    pub(super) kernel: Kernel,
    /// The struct `Params`, of a type that [`super::layout`] declares.
    pub(super) params: Vec<u8>,
    /// Bindings 1 and up.
    pub(super) bindings: Vec<Slice>,
    /// Workgroups in each direction.
    pub(super) grid: [u32; 3],
    pub(super) work: Work,
}

impl Dispatch {
    pub(super) fn new<P: Params>(kernel: Kernel, params: P, bindings: &[Slice], grid: [u32; 3], work: Work) -> Self {
        debug_assert!(P::KERNELS.contains(&kernel.file), "{} reads other parameters", kernel.file);
        let params = bytemuck::bytes_of(&params).to_vec();
        Self { kernel, params, bindings: bindings.to_vec(), grid, work }
    }
}

/// Most workgroups in one direction, by `wgpu::Limits::default()`.
pub(super) const MAX_GROUPS: u32 = 65_535;

/// A grid of at least `groups` workgroups, in rows of at most [`MAX_GROUPS`]. Kernels find their index with
/// `linear_group` (shared/grid.wgsl) and must check it against the size of their work.
pub(super) const fn grid(groups: u64) -> [u32; 3] {
    let groups = if groups == 0 { 1 } else { groups };
    if groups <= MAX_GROUPS as u64 {
        return [groups as u32, 1, 1];
    }
    [MAX_GROUPS, groups.div_ceil(MAX_GROUPS as u64) as u32, 1]
}

/// Quads that hold `channels`.
pub(super) const fn quads(channels: usize) -> usize {
    channels.div_ceil(4)
}

/// `channels` rounded up to whole quads.
pub(super) const fn padded(channels: usize) -> usize {
    4 * quads(channels)
}
