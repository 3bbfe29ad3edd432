//! Batch norm over rows (pixels of all images) of `C` channels.
//!
//! Statistics and the sums of the backward pass are computed in blocks of rows, each with partial results; a second
//! kernel merges them in a fixed order. A batch may be split into ranges: each appends its blocks to those of the
//! previous one, and the merge covers all of them. The kernels here use blocks of 256 rows; convolutions write the same
//! partials for their tiles.
//!
//! The transformation of each channel is an *affine*, `4 × C`: `scale = weight · rstd`, `shift = bias - mean · scale`,
//! `mean`, `rstd = 1 / √(variance + ε)`.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

/// Rows of a block.
const BLOCK: u64 = 256;
/// Invocations of a workgroup.
const LANES: usize = 256;
/// Maximum number of quads per row that a workgroup reads: 128 bytes, the size of a memory transaction.
const MAX_COLUMNS: usize = 8;

/// How a block is assigned to the lanes of a workgroup (shared/norm_rows.wgsl).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tiling {
    /// Quads per row of a workgroup.
    columns: usize,
    /// Workgroups that cover all quads of a block.
    tiles: usize,
    /// Rows read in parallel.
    lanes: usize,
    /// Rows per lane.
    held: usize,
}

impl Tiling {
    fn new(channels: usize) -> Self {
        let tiles = quads(channels).div_ceil(MAX_COLUMNS);
        Self::of(quads(channels).div_ceil(tiles), tiles)
    }

    const fn of(columns: usize, tiles: usize) -> Self {
        let lanes = LANES / columns;
        Self { columns, tiles, lanes, held: (BLOCK as usize).div_ceil(lanes) }
    }
}

gpu_struct! {
    struct RowsParams for "norm_statistics.wgsl", "norm_backward_sums.wgsl" {
        rows: u32,
        quads: u32,
        columns: u32,
        tiles: u32,
        lanes: u32,
        first_block: u32,
    }
}

impl RowsParams {
    fn new(rows: u64, channels: usize, tiling: Tiling, first_block: usize) -> Self {
        Self {
            rows: rows as u32,
            quads: quads(channels) as u32,
            columns: tiling.columns as u32,
            tiles: tiling.tiles as u32,
            lanes: tiling.lanes as u32,
            first_block: first_block as u32,
        }
    }
}

gpu_struct! {
    struct FinalizeParams for "norm_finalize.wgsl" {
        blocks: u32,
        channels: u32,
        quads: u32,
        epsilon: f32,
        keep: f32,
        momentum: f32,
    }
}

gpu_struct! {
    struct FromRunningParams for "norm_from_running.wgsl" {
        channels: u32,
        quads: u32,
        epsilon: f32,
    }
}

gpu_struct! {
    struct ElementsParams for "norm_apply.wgsl", "norm_backward_apply.wgsl" {
        count: u32,
        quads: u32,
    }
}

gpu_struct! {
    struct BackwardFinalizeParams for "norm_backward_finalize.wgsl" {
        blocks: u32,
        quads: u32,
        count: f32,
    }
}

/// Values of `rows × channels`, padding included.
const fn values(rows: u64, channels: usize) -> u64 {
    rows * padded(channels) as u64
}

fn elements(rows: u64, channels: usize) -> (ElementsParams, [u32; 3]) {
    let count = rows * quads(channels) as u64;
    (ElementsParams { count: count as u32, quads: quads(channels) as u32 }, grid(count.div_ceil(256)))
}

/// Number of blocks of `rows` rows.
pub(in crate::engine::wgsl) fn statistics_blocks(rows: u64) -> usize {
    rows.div_ceil(BLOCK) as usize
}

/// Number of values in a buffer for the partials of [`statistics`] or of [`backward_sums`].
pub(in crate::engine::wgsl) fn partials_len(blocks: usize, channels: usize) -> usize {
    blocks * (2 * padded(channels) + 4)
}

/// Count, mean and sum of squared deviations of each block of `x`, `rows × C`, written to `partials` from `first_block`
/// on.
pub(in crate::engine::wgsl) fn statistics(
    rows: u64,
    channels: usize,
    x: Slice,
    partials: Slice,
    first_block: usize,
) -> Dispatch {
    let tiling = Tiling::new(channels);
    let blocks = statistics_blocks(rows);
    let kernel = Kernel::new("norm_statistics.wgsl", &[("HELD", tiling.held as u32)]);
    let work = Work {
        flops: 5 * values(rows, channels),
        bytes: 4 * (values(rows, channels) + partials_len(blocks, channels) as u64),
    };
    let params = RowsParams::new(rows, channels, tiling, first_block);
    Dispatch::new(kernel, params, &[x, partials], grid((blocks * tiling.tiles) as u64), work)
}

/// Merges the partials of [`statistics`] into `affine`, and updates the `running` mean and (unbiased) variance,
/// `2 × C`.
#[allow(clippy::too_many_arguments, reason = "all that a batch norm layer has")]
pub(in crate::engine::wgsl) fn finalize(
    blocks: usize,
    channels: usize,
    epsilon: f32,
    momentum: f32,
    partials: Slice,
    weight: Slice,
    bias: Slice,
    running: Slice,
    affine: Slice,
) -> Dispatch {
    let read = partials_len(blocks, channels) as u64;
    let work = Work { flops: 4 * read, bytes: 4 * (read + 10 * padded(channels) as u64) };
    let params = FinalizeParams {
        blocks: blocks as u32,
        channels: channels as u32,
        quads: quads(channels) as u32,
        epsilon,
        keep: (1.0 - f64::from(momentum)) as f32,
        momentum,
    };
    let bindings = [partials, weight, bias, running, affine];
    Dispatch::new(Kernel::plain("norm_finalize.wgsl"), params, &bindings, grid(quads(channels) as u64), work)
}

/// The `affine` of a layer that normalises with its `running` mean and variance.
pub(in crate::engine::wgsl) fn from_running(
    channels: usize,
    epsilon: f32,
    weight: Slice,
    bias: Slice,
    running: Slice,
    affine: Slice,
) -> Dispatch {
    let work = Work { flops: 6 * padded(channels) as u64, bytes: 32 * padded(channels) as u64 };
    let params = FromRunningParams { channels: channels as u32, quads: quads(channels) as u32, epsilon };
    let groups = quads(channels).div_ceil(64) as u64;
    let bindings = [weight, bias, running, affine];
    Dispatch::new(Kernel::plain("norm_from_running.wgsl"), params, &bindings, grid(groups), work)
}

/// `y = scale · x + shift`, followed by ReLU if `relu`.
pub(in crate::engine::wgsl) fn apply(
    rows: u64,
    channels: usize,
    relu: bool,
    x: Slice,
    affine: Slice,
    y: Slice,
) -> Dispatch {
    let (params, grid) = elements(rows, channels);
    let work = Work { flops: 2 * values(rows, channels), bytes: 8 * values(rows, channels) };
    let kernel = Kernel::new("norm_apply.wgsl", &[("RELU", u32::from(relu))]);
    Dispatch::new(kernel, params, &[x, affine, y], grid, work)
}

/// `Σ g` and `Σ g · x̂` of each block, where `g` is `dy` after the mask of the ReLU. Written to `partials` from
/// `first_block` on.
#[allow(clippy::too_many_arguments, reason = "the inputs of one backward pass")]
pub(in crate::engine::wgsl) fn backward_sums(
    rows: u64,
    channels: usize,
    relu: bool,
    x: Slice,
    dy: Slice,
    affine: Slice,
    partials: Slice,
    first_block: usize,
) -> Dispatch {
    let tiling = Tiling::new(channels);
    let blocks = statistics_blocks(rows);
    let constants = [("RELU", u32::from(relu)), ("HELD", tiling.held as u32)];
    let work = Work {
        flops: 8 * values(rows, channels),
        bytes: 4 * (2 * values(rows, channels) + partials_len(blocks, channels) as u64),
    };
    let params = RowsParams::new(rows, channels, tiling, first_block);
    let kernel = Kernel::new("norm_backward_sums.wgsl", &constants);
    Dispatch::new(kernel, params, &[x, dy, affine, partials], grid((blocks * tiling.tiles) as u64), work)
}

/// The buffers for the gradients of weight and bias, and whether they are added to the existing values.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct NormGradients {
    pub(in crate::engine::wgsl) accumulate: bool,
    pub(in crate::engine::wgsl) weight: Slice,
    pub(in crate::engine::wgsl) bias: Slice,
}

/// Adds up the partials of [`backward_sums`] over `count` rows. `means`: `Σ g / count` and `Σ g · x̂ / count`, `2 × C`.
pub(in crate::engine::wgsl) fn backward_finalize(
    blocks: usize,
    channels: usize,
    count: u64,
    partials: Slice,
    means: Slice,
    gradients: Option<NormGradients>,
) -> Dispatch {
    let read = partials_len(blocks, channels) as u64;
    let work = Work { flops: read, bytes: 4 * (read + 4 * padded(channels) as u64) };
    let accumulate = gradients.is_some_and(|g| g.accumulate);
    let constants = [("GRADIENTS", u32::from(gradients.is_some())), ("ACCUMULATE", u32::from(accumulate))];
    let params = BackwardFinalizeParams { blocks: blocks as u32, quads: quads(channels) as u32, count: count as f32 };
    let mut bindings = vec![partials, means];
    if let Some(g) = gradients {
        bindings.extend([g.weight, g.bias]);
    }
    let kernel = Kernel::new("norm_backward_finalize.wgsl", &constants);
    Dispatch::new(kernel, params, &bindings, grid(quads(channels) as u64), work)
}

/// Gradient of the input, plus `add`. `means` is `None` if the statistics were constants instead of those of the batch.
#[allow(clippy::too_many_arguments, reason = "the inputs of one backward pass")]
pub(in crate::engine::wgsl) fn backward_apply(
    rows: u64,
    channels: usize,
    relu: bool,
    x: Slice,
    dy: Slice,
    affine: Slice,
    means: Option<Slice>,
    add: Option<Slice>,
    dx: Slice,
) -> Dispatch {
    let (params, grid) = elements(rows, channels);
    let reads_x = relu || means.is_some();
    let reads = 1 + u64::from(reads_x) + u64::from(add.is_some());
    let work = Work { flops: 6 * values(rows, channels), bytes: 4 * (1 + reads) * values(rows, channels) };
    let mut bindings = vec![dy, affine, dx];
    if reads_x {
        bindings.push(x);
    }
    bindings.extend(means);
    bindings.extend(add);
    let constants =
        [("BATCH", u32::from(means.is_some())), ("RELU", u32::from(relu)), ("ADD", u32::from(add.is_some()))];
    Dispatch::new(Kernel::new("norm_backward_apply.wgsl", &constants), params, &bindings, grid, work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![
        RowsParams::LAYOUT,
        FinalizeParams::LAYOUT,
        FromRunningParams::LAYOUT,
        ElementsParams::LAYOUT,
        BackwardFinalizeParams::LAYOUT,
    ]
}

/// Every kernel that the functions of this file use.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = vec![Kernel::plain("norm_finalize.wgsl"), Kernel::plain("norm_from_running.wgsl")];
    let mut held: Vec<u32> = (1..=MAX_COLUMNS).map(|columns| Tiling::of(columns, 1).held as u32).collect();
    held.dedup();
    for held in held {
        all.push(Kernel::new("norm_statistics.wgsl", &[("HELD", held)]));
        all.extend([0, 1].map(|relu| Kernel::new("norm_backward_sums.wgsl", &[("RELU", relu), ("HELD", held)])));
    }
    for relu in [0, 1] {
        all.push(Kernel::new("norm_apply.wgsl", &[("RELU", relu)]));
        for add in [0, 1] {
            let constants = |batch| [("BATCH", batch), ("RELU", relu), ("ADD", add)];
            all.extend([0, 1].map(|batch| Kernel::new("norm_backward_apply.wgsl", &constants(batch))));
        }
    }
    for (gradients, accumulate) in [(0, 0), (1, 0), (1, 1)] {
        let constants = [("GRADIENTS", gradients), ("ACCUMULATE", accumulate)];
        all.push(Kernel::new("norm_backward_finalize.wgsl", &constants));
    }
    all
}

#[cfg(test)]
mod tests;
