//! Convolutions of any kernel size, stride and padding as tiled implicit matrix products.
//!
//! | pass | rows M | columns N | depth K |
//! |---|---|---|---|
//! | forward | pixels of `y` | `C_out` | tap, `C_in` |
//! | input gradient | pixels of `dx`, by phase of the stride | `C_in` | tap of the phase, `C_out` |
//! | weight gradient | tap, `C_in` | `C_out` | pixels of `dy`, in parts |
//!
//! "Implicit": the matrix of patches is never stored; a workgroup gathers its tile of it from the images. The sum over K
//! has a fixed order, whatever the budget, so that the same input gives the same bits.

use bytemuck::{Pod, Zeroable};

use crate::engine::wgsl::kernel::{Dispatch, Kernel, MAX_GROUPS, Slice, Work, grid, padded, quads};

/// Sizes of a convolution of square kernels; channels as the network counts them, without padding to quads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// Which of the three products of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::wgsl) enum Pass {
    Forward,
    InputGradient,
    WeightGradient,
}

/// Rows, columns and depth that a workgroup works on at a time, and the rows and columns of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Tile {
    rows: u32,
    columns: u32,
    depth: u32,
    thread_rows: u32,
    thread_columns: u32,
}

impl Tile {
    const fn new(rows: u32, columns: u32, thread_rows: u32, thread_columns: u32) -> Self {
        Self { rows, columns, depth: 16, thread_rows, thread_columns }
    }

    fn constants(self) -> [(&'static str, u32); 5] {
        [
            ("BM", self.rows),
            ("BN", self.columns),
            ("BK", self.depth),
            ("TM", self.thread_rows),
            ("TN", self.thread_columns),
        ]
    }
}

/// For many columns: 64 sums a thread, the most that stays in the registers of all GPUs.
const WIDE: Tile = Tile::new(64, 64, 8, 8);
const MEDIUM: Tile = Tile::new(64, 32, 8, 4);
/// For small results: more workgroups, each with less work.
const SMALL: Tile = Tile::new(32, 32, 4, 4);
const NARROW: Tile = Tile::new(64, 16, 4, 4);
/// For the gradient of an image of up to four channels.
const SINGLE: Tile = Tile::new(128, 4, 2, 4);

/// Tiles of [`Pass::Forward`] and [`Pass::InputGradient`].
#[cfg(test)]
const PIXEL_TILES: [Tile; 5] = [WIDE, MEDIUM, SMALL, NARROW, SINGLE];
/// Tiles of [`Pass::WeightGradient`].
#[cfg(test)]
const WEIGHT_TILES: [Tile; 3] = [WIDE, MEDIUM, NARROW];

/// The batch that tiles are chosen for. They must not depend on the batch itself, or its last, smaller one would need
/// other kernels.
const NOMINAL_IMAGES: usize = 128;
/// Workgroups that keep a large GPU busy.
const BUSY_GROUPS: usize = 256;

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

    /// A fixed choice for each shape and pass.
    fn tile(&self, pass: Pass) -> Tile {
        let (pixels, columns) = match pass {
            Pass::Forward => (self.out_height * self.out_width, self.out_channels),
            Pass::InputGradient => (self.height * self.width, self.in_channels),
            Pass::WeightGradient => {
                return match self.out_channels {
                    0..=16 => NARROW,
                    17..=32 => MEDIUM,
                    _ => WIDE,
                };
            }
        };
        let groups = |tile: Tile| {
            (NOMINAL_IMAGES * pixels).div_ceil(tile.rows as usize) * columns.div_ceil(tile.columns as usize)
        };
        let tile = match columns {
            0..=4 => return SINGLE,
            5..=16 => return NARROW,
            // Narrower columns where they leave a fifth less to padding, such as for 80 channels.
            _ if 5 * columns.next_multiple_of(32) <= 4 * columns.next_multiple_of(64) => MEDIUM,
            _ => WIDE,
        };
        if groups(tile) < BUSY_GROUPS { SMALL } else { tile }
    }
}

/// Floats of the weights: `tap × C_in × C_out`, channels in whole quads.
pub(in crate::engine::wgsl) fn weight_len(conv: &Conv) -> usize {
    conv.taps() * padded(conv.in_channels) * padded(conv.out_channels)
}

/// Algorithm and tile of a pass, such as `implicit GEMM 64x64x16`.
pub(in crate::engine::wgsl) fn tile_label(conv: &Conv, pass: Pass) -> String {
    let Tile { rows, columns, depth, .. } = conv.tile(pass);
    format!("implicit GEMM {rows}x{columns}x{depth}")
}

/// Every kernel that this module can ask for.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = Vec::new();
    for tile in PIXEL_TILES {
        all.extend([false, true].map(|transposed| pixel_kernel(tile, transposed)));
    }
    all.extend(WEIGHT_TILES.map(weight_kernel));
    all.extend([false, true].map(sum_kernel));
    all
}

fn pixel_kernel(tile: Tile, transposed: bool) -> Kernel {
    let mut constants = tile.constants().to_vec();
    constants.push(("TRANSPOSED", u32::from(transposed)));
    Kernel::new("conv_gemm.wgsl", &constants)
}

fn weight_kernel(tile: Tile) -> Kernel {
    Kernel::new("conv_weight_gradient.wgsl", &tile.constants())
}

fn sum_kernel(accumulate: bool) -> Kernel {
    Kernel::new("sum_parts.wgsl", &[("ACCUMULATE", u32::from(accumulate))])
}

/// Cuts `groups` workgroups into dispatches that compute at most `budget` FLOPs each, or one workgroup.
/// `dispatch` makes one of them from its first workgroup, its grid and its share of `work`.
fn cut(
    groups: usize,
    group_flops: usize,
    budget: u64,
    work: Work,
    dispatch: impl Fn(u32, [u32; 3], Work) -> Dispatch,
) -> Vec<Dispatch> {
    let groups = groups as u64;
    let chunk = (budget / (group_flops as u64).max(1)).clamp(1, u64::from(MAX_GROUPS));
    let until = |total: u64, end: u64| (u128::from(total) * u128::from(end) / u128::from(groups.max(1))) as u64;
    let mut all = Vec::new();
    let mut first = 0;
    while first < groups {
        let end = groups.min(first + chunk);
        let share = |total: u64| until(total, end) - until(total, first);
        let work = Work { flops: share(work.flops), bytes: share(work.bytes) };
        all.push(dispatch(first as u32, [(end - first) as u32, 1, 1], work));
        first = end;
    }
    all
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct PixelParams {
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
}

/// `y = x ⋆ w` for `images` images. `budget` is the most FLOPs of one dispatch: larger work becomes several.
pub(in crate::engine::wgsl) fn forward(
    conv: &Conv,
    images: usize,
    budget: u64,
    x: Slice,
    weight: Slice,
    y: Slice,
) -> Vec<Dispatch> {
    let tile = conv.tile(Pass::Forward);
    let column_tiles = conv.out_channels.div_ceil(tile.columns as usize);
    let row_tiles = conv.out_pixels(images).div_ceil(tile.rows as usize);
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
    };
    let group_flops = 2 * (tile.rows * tile.columns) as usize * conv.taps() * padded(conv.in_channels);
    let work = conv.work(images, weight_len(conv));
    cut(row_tiles * column_tiles, group_flops, budget, work, |first_tile, grid, work| {
        let kernel = pixel_kernel(tile, false);
        Dispatch::new(kernel, PixelParams { first_tile, ..params }, &[x, weight, y], grid, work)
    })
}

/// The gradient of `x`, given that of `y`. Writes every element of `dx`: zeros where no output reads.
pub(in crate::engine::wgsl) fn input_gradient(
    conv: &Conv,
    images: usize,
    budget: u64,
    dy: Slice,
    weight: Slice,
    dx: Slice,
) -> Vec<Dispatch> {
    let tile = conv.tile(Pass::InputGradient);
    let column_tiles = conv.in_channels.div_ceil(tile.columns as usize);
    // All phases in one grid, each with the tiles of the largest.
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
    };
    let phase_taps = conv.kernel.div_ceil(conv.stride).pow(2);
    let group_flops = 2 * (tile.rows * tile.columns) as usize * phase_taps * padded(conv.out_channels);
    let work = conv.work(images, weight_len(conv));
    cut(row_tiles * column_tiles, group_flops, budget, work, |first_tile, grid, work| {
        let kernel = pixel_kernel(tile, true);
        Dispatch::new(kernel, PixelParams { first_tile, ..params }, &[dy, weight, dx], grid, work)
    })
}

/// Most bytes that the parts of one weight gradient take.
const PARTS_BYTES: usize = 32 << 20;
/// Fewest pixels of a part; below, writing and adding the parts costs more than the products.
const PART_PIXELS: usize = 64;

/// Pixels of each part but the last, a multiple of the tile's depth.
fn part_pixels(conv: &Conv, images: usize) -> usize {
    let tile = conv.tile(Pass::WeightGradient);
    let tiles = weight_tiles(conv, tile).0;
    let most = (PARTS_BYTES / (4 * weight_len(conv)).max(1)).max(1);
    let parts = BUSY_GROUPS.div_ceil(tiles).clamp(1, most);
    conv.out_pixels(images).div_ceil(parts).max(PART_PIXELS).next_multiple_of(tile.depth as usize)
}

/// Tiles of one part, and those side by side.
fn weight_tiles(conv: &Conv, tile: Tile) -> (usize, usize) {
    let rows = conv.taps() * padded(conv.in_channels);
    let column_tiles = conv.out_channels.div_ceil(tile.columns as usize);
    (rows.div_ceil(tile.rows as usize) * column_tiles, column_tiles)
}

/// How many parts the pixels of `images` images are split into. Each takes [`weight_len`] floats.
pub(in crate::engine::wgsl) fn weight_gradient_parts(conv: &Conv, images: usize) -> usize {
    conv.out_pixels(images).div_ceil(part_pixels(conv, images))
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct WeightParams {
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

/// The gradient of the weights, in [`weight_gradient_parts`] parts that [`sum_parts`] adds. They go to `parts` from index
/// `first_part` on, so that several ranges of images can share one sum.
pub(in crate::engine::wgsl) fn weight_gradient(
    conv: &Conv,
    images: usize,
    budget: u64,
    x: Slice,
    dy: Slice,
    parts: Slice,
    first_part: usize,
) -> Vec<Dispatch> {
    let tile = conv.tile(Pass::WeightGradient);
    let (tiles, column_tiles) = weight_tiles(conv, tile);
    let (part_pixels, count) = (part_pixels(conv, images), weight_gradient_parts(conv, images));
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
        let kernel = weight_kernel(tile);
        Dispatch::new(kernel, WeightParams { first_tile, ..params }, &[x, dy, parts], grid, work)
    })
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SumParams {
    quads: u32,
    parts_count: u32,
}

/// `out = Σ parts`, or `out += Σ parts`, in index order. `len` floats a part, a multiple of four.
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
mod tests;
