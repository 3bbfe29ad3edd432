//! Kernels, and dispatches of kernels over ranges of buffers.
//!
//! Conventions of all kernels:
//!
//! * The entry point is `main`. Binding 0 of group 0 is a uniform struct `Params` of at most 128 bytes, declared as
//!   [`super::shader::PARAMS`] so that it can be replaced by immediates; bindings 1 and up are buffers, at most eight
//!   of them storage buffers (the settings of a call are a second uniform).
//! * Activations are `B × H × W × C` with `C` rounded up to a multiple of four, as `array<vec4<f32>>`; four channels
//!   are a *quad*. Padding channels are zero in activations, gradients and parameters, and every kernel preserves this.
//! * Convolution weights are `tap × C_in × C_out` (tap `= ky · k + kx`), with both channel counts rounded up; linear
//!   weights are `C_in × K`, vectors are rounded up.
//! * A buffer that a dispatch writes has no other binding in that dispatch: reading another range of it is not allowed
//!   either.

use super::layout::Params;

/// A kernel variant: a file of `shaders/` and the constants of its expansion.
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

    /// A label such as `conv_gemm BM=64 BN=32`.
    pub(super) fn label(&self) -> String {
        let mut label = self.file.trim_end_matches(".wgsl").to_owned();
        for (name, value) in &self.constants {
            label += &format!(" {name}={value}");
        }
        label
    }
}

/// Index of a buffer in the table of a program (or of a test).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BufferId(pub(super) usize);

/// A range of bytes of a buffer. The offset is a multiple of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) buffer: BufferId,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// Arithmetic and memory traffic, for plans, pacing and benchmarks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Work {
    /// Floating-point operations, a multiply-add counted as two.
    pub(super) flops: u64,
    /// Bytes read and written if every value moved once.
    pub(super) bytes: u64,
}

impl Work {
    /// Estimated cost of a dispatch in floating-point operations: a byte of traffic counts as ten operations, and a
    /// launch as 100,000.
    pub(super) const fn cost(self) -> u64 {
        self.flops + 10 * self.bytes + 100_000
    }
}

/// A dispatch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Dispatch {
    pub(super) kernel: Kernel,
    /// Bytes of the struct `Params`, declared with [`super::layout`].
    pub(super) params: Vec<u8>,
    /// Bindings 1 and up.
    pub(super) bindings: Vec<Slice>,
    /// Number of workgroups in each dimension.
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

/// Maximum number of workgroups in one dimension, from `wgpu::Limits::default()`.
pub(super) const MAX_GROUPS: u32 = 65_535;

/// A grid of at least `groups` workgroups, in rows of at most [`MAX_GROUPS`]. Kernels compute their index with
/// `linear_group` (shared/grid.wgsl) and must check it against the size of their work.
pub(super) const fn grid(groups: u64) -> [u32; 3] {
    let groups = if groups == 0 { 1 } else { groups };
    if groups <= MAX_GROUPS as u64 {
        return [groups as u32, 1, 1];
    }
    [MAX_GROUPS, groups.div_ceil(MAX_GROUPS as u64) as u32, 1]
}

/// Number of quads that hold `channels` channels.
pub(super) const fn quads(channels: usize) -> usize {
    channels.div_ceil(4)
}

/// `channels` rounded up to whole quads.
pub(super) const fn padded(channels: usize) -> usize {
    4 * quads(channels)
}
