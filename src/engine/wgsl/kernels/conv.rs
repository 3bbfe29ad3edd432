//! Convolutions of any kernel size, stride and padding as tiled implicit matrix products.
//!
//! | pass | rows M | columns N | depth K |
//! |---|---|---|---|
//! | forward | pixels of `y` | `C_out` | tap, `C_in` |
//! | input gradient | pixels of `dx`, by phase of the stride | `C_in` | tap of the phase, `C_out` |
//! | weight gradient | tap, `C_in` | `C_out` | pixels of `dy`, in parts |
//!
//! "Implicit": the matrix of patches is never stored; a workgroup gathers its tile of it from the images. The sum over
//! K has a fixed order that does not depend on the budget, so that the same input gives the same bits.

use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::gemm::{BROADCAST_TILES, BROADCAST_WEIGHTS, PIXEL_TILES, WEIGHT_TILES};
use super::gemm::{BUSY_GROUPS, MEDIUM, NARROW, Tile, WIDE, cut, fixed_tile};
use super::read::{self, Flags, Read};
#[cfg(test)]
use super::read::{BACKWARD_FLAGS, FORWARD_FLAGS};
use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

/// Geometry of a convolution with square kernels; channel counts without padding to quads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(in crate::engine::wgsl) struct Conv {
    pub(in crate::engine::wgsl) in_channels: usize,
    pub(in crate::engine::wgsl) height: usize,
    pub(in crate::engine::wgsl) width: usize,
    pub(in crate::engine::wgsl) out_channels: usize,
    pub(in crate::engine::wgsl) out_height: usize,
    pub(in crate::engine::wgsl) out_width: usize,
    pub(in crate::engine::wgsl) kernel: usize,
    pub(in crate::engine::wgsl) stride: usize,
    pub(in crate::engine::wgsl) padding: usize,
}

/// The three passes of a convolution, each a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::engine::wgsl) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

impl std::fmt::Display for Pass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward pass",
            Self::InputGradient => "input gradient",
            Self::WeightGradient => "weight gradient",
        })
    }
}

impl Conv {
    const fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    const fn out_pixels(&self, images: usize) -> usize {
        images * self.out_height * self.out_width
    }

    fn work(&self, images: usize, weights: usize) -> Work {
        let flops = 2 * self.out_pixels(images) * self.taps() * self.in_channels * self.out_channels;
        let x = images * self.height * self.width * padded(self.in_channels);
        let y = self.out_pixels(images) * padded(self.out_channels);
        Work { flops: flops as u64, bytes: 4 * (x + y + weights) as u64 }
    }

    /// The fixed choice of the tile for a pass.
    pub(in crate::engine::wgsl) fn tile(&self, pass: Pass) -> Tile {
        match pass {
            Pass::Forward => fixed_tile(self.out_height * self.out_width, self.out_channels, 1),
            Pass::InputGradient => fixed_tile(self.height * self.width, self.in_channels, 1),
            Pass::WeightGradient => match self.out_channels {
                0..=16 => NARROW,
                17..=32 => MEDIUM,
                _ => WIDE,
            },
        }
    }
}

/// Floats of the weights: `tap × C_in × C_out`, channels in whole quads.
pub(in crate::engine::wgsl) fn weight_len(conv: &Conv) -> usize {
    conv.taps() * padded(conv.in_channels) * padded(conv.out_channels)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![PixelParams::LAYOUT, WeightParams::LAYOUT, SumParams::LAYOUT]
}

/// Every kernel that this module uses.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = Vec::new();
    for tile in PIXEL_TILES.into_iter().chain(BROADCAST_TILES) {
        for add in [false, true] {
            for statistics in [false, true] {
                all.extend(FORWARD_FLAGS.map(|flags| pixel_kernel(tile, false, flags, add, statistics)));
            }
            all.extend(BACKWARD_FLAGS.map(|flags| pixel_kernel(tile, true, flags, add, false)));
        }
    }
    for tile in WEIGHT_TILES.into_iter().chain([BROADCAST_WEIGHTS]) {
        for x in FORWARD_FLAGS {
            all.extend(BACKWARD_FLAGS.map(|dy| weight_kernel(tile, x, dy)));
        }
    }
    all.extend([false, true].map(sum_kernel));
    all
}

fn pixel_kernel(tile: Tile, transposed: bool, read: Flags, add: bool, statistics: bool) -> Kernel {
    let mut constants = tile.constants().to_vec();
    let flags = [("TRANSPOSED", transposed), ("ADD", add), ("STATISTICS", statistics)];
    constants.extend(flags.map(|(name, flag)| (name, u32::from(flag))));
    constants.extend(read::constants(read));
    let file = if tile.broadcast { "conv_gemm_broadcast.wgsl" } else { "conv_gemm.wgsl" };
    Kernel::new(file, &constants)
}

fn weight_kernel(tile: Tile, x: Flags, dy: Flags) -> Kernel {
    let mut constants = tile.constants().to_vec();
    let [_, relu, backward, batch] = dy;
    constants.extend([("X_NORM", x[0]), ("X_RELU", x[1]), ("RELU", relu), ("BACKWARD", backward), ("BATCH", batch)]);
    let file = if tile.broadcast { "conv_weight_gradient_broadcast.wgsl" } else { "conv_weight_gradient.wgsl" };
    Kernel::new(file, &constants)
}

fn sum_kernel(accumulate: bool) -> Kernel {
    Kernel::new("sum_parts.wgsl", &[("ACCUMULATE", u32::from(accumulate))])
}

gpu_struct! {
    struct PixelParams for "conv_gemm.wgsl", "conv_gemm_broadcast.wgsl" {
        images: u32,
        source_height: u32,
        source_width: u32,
        source_quads: u32,
        result_height: u32,
        result_width: u32,
        result_quads: u32,
        result_channels: u32,
        kernel: u32,
        stride: u32,
        padding: u32,
        column_tiles: u32,
        first_tile: u32,
        first_block: u32,
    }
}

/// A product over pixels: its tile, how it loads its source, and its epilogue.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct Product {
    pub(in crate::engine::wgsl) tile: Tile,
    /// Maximum FLOPs of one dispatch: larger work is split.
    pub(in crate::engine::wgsl) budget: u64,
    pub(in crate::engine::wgsl) read: Read,
    pub(in crate::engine::wgsl) add: Option<Slice>,
    /// In a forward pass: the buffer for the partials of [`super::norm::statistics`] of the result, and the index of
    /// the first of [`statistics_blocks`].
    pub(in crate::engine::wgsl) statistics: Option<(Slice, usize)>,
}

/// Number of blocks of partials for `images` images.
pub(in crate::engine::wgsl) fn statistics_blocks(conv: &Conv, tile: Tile, images: usize) -> usize {
    conv.out_pixels(images).div_ceil(tile.rows as usize)
}

impl Product {
    /// With the fixed tile and without fused operations.
    #[cfg(test)]
    pub(super) fn plain(conv: &Conv, pass: Pass, budget: u64) -> Self {
        Self { tile: conv.tile(pass), budget, read: Read::Plain, add: None, statistics: None }
    }

    fn bindings(&self, source: Slice, weight: Slice, result: Slice) -> Vec<Slice> {
        let partials = self.statistics.map(|(partials, _)| partials);
        [source, weight, result].into_iter().chain(self.read.bindings()).chain(self.add).chain(partials).collect()
    }
}

/// `y = x ⋆ w` for `images` images.
pub(in crate::engine::wgsl) fn forward(
    conv: &Conv,
    images: usize,
    product: Product,
    x: Slice,
    weight: Slice,
    y: Slice,
) -> Vec<Dispatch> {
    let Product { tile, budget, read, add, statistics } = product;
    let column_tiles = conv.out_channels.div_ceil(tile.columns as usize);
    let row_tiles = statistics_blocks(conv, tile, images);
    let params = PixelParams {
        images: images as u32,
        source_height: conv.height as u32,
        source_width: conv.width as u32,
        source_quads: quads(conv.in_channels) as u32,
        result_height: conv.out_height as u32,
        result_width: conv.out_width as u32,
        result_quads: quads(conv.out_channels) as u32,
        result_channels: conv.out_channels as u32,
        kernel: conv.kernel as u32,
        stride: conv.stride as u32,
        padding: conv.padding as u32,
        column_tiles: column_tiles as u32,
        first_tile: 0,
        first_block: statistics.map_or(0, |(_, first)| first) as u32,
    };
    let group_flops = 2 * (tile.rows * tile.columns) as usize * conv.taps() * padded(conv.in_channels);
    let mut work = conv.work(images, weight_len(conv));
    if statistics.is_some() {
        work.flops += 5 * (conv.out_pixels(images) * conv.out_channels) as u64;
    }
    cut(row_tiles * column_tiles, group_flops, budget, work, |first_tile, grid, work| {
        let kernel = pixel_kernel(tile, false, read.flags(), add.is_some(), statistics.is_some());
        Dispatch::new(kernel, PixelParams { first_tile, ..params }, &product.bindings(x, weight, y), grid, work)
    })
}

/// The gradient of `x`, given that of `y`. Writes every element of `dx`, zero for inputs that no output uses.
pub(in crate::engine::wgsl) fn input_gradient(
    conv: &Conv,
    images: usize,
    product: Product,
    dy: Slice,
    weight: Slice,
    dx: Slice,
) -> Vec<Dispatch> {
    let Product { tile, budget, read, add, .. } = product;
    let column_tiles = conv.in_channels.div_ceil(tile.columns as usize);
    // All phases are in one grid, each with as many tiles as the largest.
    let phase_pixels = images * conv.height.div_ceil(conv.stride) * conv.width.div_ceil(conv.stride);
    let row_tiles = phase_pixels.div_ceil(tile.rows as usize) * conv.stride * conv.stride;
    let params = PixelParams {
        images: images as u32,
        source_height: conv.out_height as u32,
        source_width: conv.out_width as u32,
        source_quads: quads(conv.out_channels) as u32,
        result_height: conv.height as u32,
        result_width: conv.width as u32,
        result_quads: quads(conv.in_channels) as u32,
        result_channels: conv.in_channels as u32,
        kernel: conv.kernel as u32,
        stride: conv.stride as u32,
        padding: conv.padding as u32,
        column_tiles: column_tiles as u32,
        first_tile: 0,
        first_block: 0,
    };
    let phase_taps = conv.kernel.div_ceil(conv.stride).pow(2);
    let group_flops = 2 * (tile.rows * tile.columns) as usize * phase_taps * padded(conv.out_channels);
    let work = conv.work(images, weight_len(conv));
    cut(row_tiles * column_tiles, group_flops, budget, work, |first_tile, grid, work| {
        let kernel = pixel_kernel(tile, true, read.flags(), add.is_some(), false);
        Dispatch::new(kernel, PixelParams { first_tile, ..params }, &product.bindings(dy, weight, dx), grid, work)
    })
}

/// Maximum size of the parts of a weight gradient in bytes.
const PARTS_BYTES: usize = 32 << 20;
/// Minimum number of pixels per part; with fewer, writing and adding the parts costs more than the products.
const PART_PIXELS: usize = 64;

/// Pixels per part except the last, a multiple of the tile's depth. Broadcast tiles use the parts of the fixed tile, so
/// that both add in the same order.
fn part_pixels(conv: &Conv, tile: Tile, images: usize) -> usize {
    let tile = if tile.broadcast { conv.tile(Pass::WeightGradient) } else { tile };
    let tiles = weight_tiles(conv, tile).0;
    let most = (PARTS_BYTES / (4 * weight_len(conv)).max(1)).max(1);
    let parts = BUSY_GROUPS.div_ceil(tiles).clamp(1, most);
    conv.out_pixels(images).div_ceil(parts).max(PART_PIXELS).next_multiple_of(tile.depth as usize)
}

/// Number of tiles of one part, and of tiles per row.
fn weight_tiles(conv: &Conv, tile: Tile) -> (usize, usize) {
    let rows = conv.taps() * padded(conv.in_channels);
    let column_tiles = conv.out_channels.div_ceil(tile.columns as usize);
    (rows.div_ceil(tile.rows as usize) * column_tiles, column_tiles)
}

/// Number of parts into which the pixels of `images` images are split (split-K). Each has [`weight_len`] floats.
pub(in crate::engine::wgsl) fn weight_gradient_parts(conv: &Conv, tile: Tile, images: usize) -> usize {
    conv.out_pixels(images).div_ceil(part_pixels(conv, tile, images))
}

gpu_struct! {
    struct WeightParams for "conv_weight_gradient.wgsl", "conv_weight_gradient_broadcast.wgsl" {
        height: u32,
        width: u32,
        in_quads: u32,
        in_channels: u32,
        out_height: u32,
        out_width: u32,
        out_quads: u32,
        out_channels: u32,
        kernel: u32,
        stride: u32,
        padding: u32,
        pixels: u32,
        part_pixels: u32,
        tiles: u32,
        column_tiles: u32,
        first_tile: u32,
        first_part: u32,
    }
}

/// The gradient of the weights, in [`weight_gradient_parts`] parts that [`sum_parts`] adds. They are written to `parts`
/// from index `first_part` on, so that several ranges of images can share one sum.
#[allow(clippy::too_many_arguments, reason = "two inputs, and how they are read")]
pub(in crate::engine::wgsl) fn weight_gradient(
    conv: &Conv,
    images: usize,
    (tile, budget): (Tile, u64),
    (x, read_x): (Slice, Read),
    (dy, read_dy): (Slice, Read),
    parts: Slice,
    first_part: usize,
) -> Vec<Dispatch> {
    let (tiles, column_tiles) = weight_tiles(conv, tile);
    let (part_pixels, count) = (part_pixels(conv, tile, images), weight_gradient_parts(conv, tile, images));
    let mut bindings = vec![x, dy, parts];
    bindings.extend(read_x.bindings());
    bindings.extend(read_dy.bindings());
    let params = WeightParams {
        height: conv.height as u32,
        width: conv.width as u32,
        in_quads: quads(conv.in_channels) as u32,
        in_channels: conv.in_channels as u32,
        out_height: conv.out_height as u32,
        out_width: conv.out_width as u32,
        out_quads: quads(conv.out_channels) as u32,
        out_channels: conv.out_channels as u32,
        kernel: conv.kernel as u32,
        stride: conv.stride as u32,
        padding: conv.padding as u32,
        pixels: conv.out_pixels(images) as u32,
        part_pixels: part_pixels as u32,
        tiles: tiles as u32,
        column_tiles: column_tiles as u32,
        first_tile: 0,
        first_part: first_part as u32,
    };
    let group_flops = 2 * (tile.rows * tile.columns) as usize * part_pixels;
    let work = conv.work(images, count * weight_len(conv));
    cut(tiles * count, group_flops, budget, work, |first_tile, grid, work| {
        let kernel = weight_kernel(tile, read_x.flags(), read_dy.flags());
        Dispatch::new(kernel, WeightParams { first_tile, ..params }, &bindings, grid, work)
    })
}

gpu_struct! {
    struct SumParams for "sum_parts.wgsl" {
        quads: u32,
        parts_count: u32,
    }
}

/// `out = Σ parts`, or `out += Σ parts`, in index order. `len` is the number of floats per part, a multiple of four.
pub(in crate::engine::wgsl) fn sum_parts(
    len: usize,
    parts_count: usize,
    accumulate: bool,
    parts: Slice,
    out: Slice,
) -> Dispatch {
    let adds = if accumulate { parts_count } else { parts_count.saturating_sub(1) };
    let moves = parts_count + 1 + usize::from(accumulate);
    let work = Work { flops: (len * adds) as u64, bytes: (4 * len * moves) as u64 };
    let params = SumParams { quads: (len / 4) as u32, parts_count: parts_count as u32 };
    Dispatch::new(sum_kernel(accumulate), params, &[parts, out], grid((len / 4).div_ceil(64) as u64), work)
}

#[cfg(test)]
#[path = "conv_tests.rs"]
pub(super) mod tests;
