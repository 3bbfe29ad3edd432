//! 3×3 convolutions of stride 1 by Winograd's F(M×M, 3×3): M × M pixels of a feature map from (M + 2)² products instead
//! of 9 M², which is 4 times less for M = 4 and 2.25 times less for M = 2.
//!
//! Each pass has three kernels: the transform of the source's tiles (`v`), a matrix product for each of the (M + 2)²
//! slots (`m`), and the transform to tiles of the result. Adjacent operations are fused: batch norm on load, and in the
//! epilogue a residual, the statistics of the next batch norm and the sums of a batch norm's backward pass. The input
//! gradient uses the same transformed weights, transposed (shared/winograd_line.wgsl).
//!
//! (Lavin, Gray: Fast Algorithms for Convolutional Neural Networks, CVPR 2016.)

use super::conv::{Conv, Pass};
use super::gemm::{self, Tile};
use super::read::{self, Flags, Read};
#[cfg(test)]
use super::read::{BACKWARD_FLAGS, FORWARD_FLAGS};
use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

/// Invocations of a workgroup that computes tiles of the result.
const LANES: usize = 256;
/// Maximum number of quads per pixel that such a workgroup writes: 128 bytes, the size of a memory transaction.
const MAX_COLUMNS: usize = 8;
/// Maximum size of `v` and of `m` in bytes. Batches that need more are processed in chunks of images.
const WORKSPACE: u64 = 80 << 20;

/// Whether a convolution can be computed by Winograd's algorithm.
pub(in crate::engine::wgsl) const fn fits(conv: &Conv) -> bool {
    conv.kernel == 3 && conv.stride == 1 && conv.padding <= 2
}

/// Slots of F(M×M, 3×3).
const fn slots(outputs: usize) -> usize {
    (outputs + 2) * (outputs + 2)
}

/// Floats of the transformed weights: `slot × C_in × C_out`, channels in whole quads.
pub(in crate::engine::wgsl) const fn weight_len(conv: &Conv, outputs: usize) -> usize {
    slots(outputs) * padded(conv.in_channels) * padded(conv.out_channels)
}

/// The tile of the matrix products if nothing was measured.
pub(in crate::engine::wgsl) fn fixed_tile(conv: &Conv, pass: Pass, outputs: usize) -> Tile {
    let (height, width, columns) = match pass {
        Pass::InputGradient => (conv.height, conv.width, conv.in_channels),
        Pass::Forward | Pass::WeightGradient => (conv.out_height, conv.out_width, conv.out_channels),
    };
    match gemm::fixed_tile(height.div_ceil(outputs) * width.div_ceil(outputs), columns, slots(outputs)) {
        gemm::SINGLE => gemm::NARROW,
        tile => tile,
    }
}

/// The epilogue: what is computed while a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine::wgsl) enum Finish {
    #[default]
    Nothing,
    /// Writes the partials of [`super::norm::statistics`].
    Statistics { partials: Slice },
    /// The result is the gradient of the output of a batch norm with input `input`: applies the mask of its ReLU, and
    /// writes the partials of [`super::norm::backward_sums`].
    Sums { partials: Slice, norm: Slice, relu: bool, input: Slice },
}

impl Finish {
    /// Constants STATISTICS, SUMS, RELU.
    fn flags(&self) -> [u32; 3] {
        match self {
            Self::Nothing => [0, 0, 0],
            Self::Statistics { .. } => [1, 0, 0],
            Self::Sums { relu, .. } => [0, 1, u32::from(*relu)],
        }
    }

    fn bindings(&self) -> Vec<Slice> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Statistics { partials } => vec![*partials],
            Self::Sums { partials, norm, input, .. } => vec![*partials, *norm, *input],
        }
    }
}

/// A forward pass or an input gradient.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct Product {
    pub(in crate::engine::wgsl) conv: Conv,
    pub(in crate::engine::wgsl) pass: Pass,
    /// M.
    pub(in crate::engine::wgsl) outputs: usize,
    /// Tile of the matrix products.
    pub(in crate::engine::wgsl) tile: Tile,
    /// Maximum FLOPs of one dispatch.
    pub(in crate::engine::wgsl) budget: u64,
    /// Maximum size of a binding in bytes.
    pub(in crate::engine::wgsl) binding: u64,
}

/// The slices that a pass reads and writes.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct Places {
    pub(in crate::engine::wgsl) source: Slice,
    pub(in crate::engine::wgsl) read: Read,
    /// The transformed weights.
    pub(in crate::engine::wgsl) u: Slice,
    /// At least [`Product::workspace`] bytes each.
    pub(in crate::engine::wgsl) v: Slice,
    pub(in crate::engine::wgsl) m: Slice,
    pub(in crate::engine::wgsl) result: Slice,
    pub(in crate::engine::wgsl) add: Option<Slice>,
    pub(in crate::engine::wgsl) finish: Finish,
    /// Index of the first block in the partials of `finish`.
    pub(in crate::engine::wgsl) first_block: usize,
}

/// Height, width, channels.
type Sizes = [usize; 3];

gpu_struct! {
    struct WeightParams for "winograd_weight.wgsl" {
        quads: u32,
    }
}

gpu_struct! {
    struct InputParams for "winograd_input.wgsl" {
        tiles: u32,
        first_tile: u32,
        across: u32,
        down: u32,
        height: u32,
        width: u32,
        quads: u32,
        padding: u32,
    }
}

gpu_struct! {
    struct GemmParams for "winograd_gemm.wgsl", "winograd_gemm_broadcast.wgsl" {
        rows: u32,
        depth_quads: u32,
        column_quads: u32,
        row_tiles: u32,
        column_tiles: u32,
        slots: u32,
    }
}

gpu_struct! {
    struct OutputParams for "winograd_output.wgsl" {
        tiles: u32,
        first_tile: u32,
        across: u32,
        down: u32,
        height: u32,
        width: u32,
        quads: u32,
        channels: u32,
        columns: u32,
        column_tiles: u32,
        lanes: u32,
        first_block: u32,
    }
}

/// Transforms the weights `tap × C_in × C_out` for both passes.
pub(in crate::engine::wgsl) fn transform_weight(conv: &Conv, outputs: usize, weight: Slice, u: Slice) -> Dispatch {
    let quads = padded(conv.in_channels) * quads(conv.out_channels);
    let work = Work { flops: (80 * 4 * quads) as u64, bytes: (16 * quads * (9 + slots(outputs))) as u64 };
    let params = WeightParams { quads: quads as u32 };
    Dispatch::new(weight_kernel(outputs), params, &[weight, u], grid(quads.div_ceil(64) as u64), work)
}

impl Product {
    /// Source and result, and the padding of the source.
    fn sides(&self) -> (Sizes, Sizes, usize) {
        let c = &self.conv;
        let x = [c.height, c.width, c.in_channels];
        let y = [c.out_height, c.out_width, c.out_channels];
        match self.pass {
            Pass::InputGradient => (y, x, 2 - c.padding.min(2)),
            Pass::Forward | Pass::WeightGradient => (x, y, c.padding),
        }
    }

    /// Tiles of an image, down and across.
    fn tiles(&self) -> [usize; 2] {
        let ([height, width, _], m) = (self.sides().1, self.outputs);
        [height.div_ceil(m), width.div_ceil(m)]
    }

    fn image_tiles(&self) -> usize {
        let [down, across] = self.tiles();
        down * across
    }

    /// Bytes of `v` and of `m` for one image.
    fn image_bytes(&self) -> [u64; 2] {
        let (source, result, _) = self.sides();
        [source, result].map(|[.., channels]| 4 * (slots(self.outputs) * self.image_tiles() * padded(channels)) as u64)
    }

    fn image_flops(&self) -> u64 {
        let (source, result, _) = self.sides();
        (2 * slots(self.outputs) * self.image_tiles() * padded(source[2]) * padded(result[2])) as u64
    }

    /// Whether the transformed weights and the tiles of one image fit into bindings.
    pub(in crate::engine::wgsl) fn fits(&self) -> bool {
        let weights = 4 * weight_len(&self.conv, self.outputs) as u64;
        fits(&self.conv) && self.image_bytes().into_iter().chain([weights]).all(|bytes| bytes <= self.binding)
    }

    /// Images per chunk, for `images` images.
    fn chunk(&self, images: usize) -> usize {
        let largest = self.image_bytes().into_iter().max().unwrap_or(1).max(1);
        let room = WORKSPACE.min(self.binding) / largest;
        let most = room.min(self.budget / self.image_flops().max(1)).max(1) as usize;
        images.div_ceil(images.div_ceil(most).max(1))
    }

    /// Bytes of `v` and of `m` for `images` images.
    pub(in crate::engine::wgsl) fn workspace(&self, images: usize) -> [u64; 2] {
        self.image_bytes().map(|bytes| bytes * self.chunk(images) as u64)
    }

    /// Quads per row of a workgroup, workgroups per row of the result, rows per workgroup.
    fn columns(&self) -> [usize; 3] {
        let quads = quads(self.sides().1[2]);
        let tiles = quads.div_ceil(MAX_COLUMNS).max(1);
        let columns = quads.div_ceil(tiles).max(1);
        [columns, tiles, LANES / columns]
    }

    /// Number of blocks of partials for `images` images.
    pub(in crate::engine::wgsl) fn blocks(&self, images: usize) -> usize {
        let [.., lanes] = self.columns();
        self.chunks(images).map(|(_, count)| (count * self.image_tiles()).div_ceil(lanes)).sum()
    }

    /// First image and number of images of each chunk.
    fn chunks(&self, images: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let chunk = self.chunk(images).max(1);
        (0..images).step_by(chunk).map(move |first| (first, chunk.min(images - first)))
    }

    /// The dispatches for `images` images.
    pub(in crate::engine::wgsl) fn dispatches(&self, images: usize, places: &Places) -> Vec<Dispatch> {
        let [_, _, lanes] = self.columns();
        let mut all = Vec::new();
        let mut block = places.first_block;
        for (first, count) in self.chunks(images) {
            all.extend([
                self.input(first, count, places),
                self.gemm(count, places),
                self.output(first, count, block, places),
            ]);
            block += (count * self.image_tiles()).div_ceil(lanes);
        }
        all
    }

    fn flipped(&self) -> bool {
        self.pass == Pass::InputGradient
    }

    fn input(&self, first: usize, images: usize, places: &Places) -> Dispatch {
        let ([height, width, channels], _, padding) = self.sides();
        let ([down, across], quads) = (self.tiles(), quads(channels));
        let tiles = images * self.image_tiles();
        let params = InputParams {
            tiles: tiles as u32,
            first_tile: (first * self.image_tiles()) as u32,
            across: across as u32,
            down: down as u32,
            height: height as u32,
            width: width as u32,
            quads: quads as u32,
            padding: padding as u32,
        };
        let (operations, reads) = places.read.cost();
        let (pixels, side) = ((images * height * width * 4 * quads) as u64, self.outputs as u64 + 2);
        let points = side * side * (tiles * 4 * quads) as u64;
        // Two passes of lines with about three operations per value. Values computed on load are recomputed where tiles
        // overlap.
        let work = Work { flops: points * (6 + operations), bytes: 4 * (pixels * reads + points) };
        let kernel = input_kernel(self.outputs, self.flipped(), places.read.flags());
        let bindings: Vec<Slice> = [places.source, places.v].into_iter().chain(places.read.bindings()).collect();
        Dispatch::new(kernel, params, &bindings, grid((tiles * quads).div_ceil(128) as u64), work)
    }

    fn gemm(&self, images: usize, places: &Places) -> Dispatch {
        let ([.., depth], [.., columns], _) = self.sides();
        let (rows, slots) = (images * self.image_tiles(), slots(self.outputs));
        let row_tiles = rows.div_ceil(self.tile.rows as usize);
        let column_tiles = columns.div_ceil(self.tile.columns as usize);
        let params = GemmParams {
            rows: rows as u32,
            depth_quads: quads(depth) as u32,
            column_quads: quads(columns) as u32,
            row_tiles: row_tiles as u32,
            column_tiles: column_tiles as u32,
            slots: slots as u32,
        };
        let moved = slots * (rows * (padded(depth) + padded(columns)) + padded(depth) * padded(columns));
        let work = Work { flops: (2 * slots * rows * depth * columns) as u64, bytes: 4 * moved as u64 };
        let kernel = gemm_kernel(self.tile, self.flipped());
        let groups = (row_tiles * column_tiles * slots) as u64;
        Dispatch::new(kernel, params, &[places.v, places.u, places.m], grid(groups), work)
    }

    fn output(&self, first: usize, images: usize, first_block: usize, places: &Places) -> Dispatch {
        let [height, width, channels] = self.sides().1;
        let ([down, across], [columns, column_tiles, lanes]) = (self.tiles(), self.columns());
        let tiles = images * self.image_tiles();
        let params = OutputParams {
            tiles: tiles as u32,
            first_tile: (first * self.image_tiles()) as u32,
            across: across as u32,
            down: down as u32,
            height: height as u32,
            width: width as u32,
            quads: quads(channels) as u32,
            channels: channels as u32,
            columns: columns as u32,
            column_tiles: column_tiles as u32,
            lanes: lanes as u32,
            first_block: first_block as u32,
        };
        let values = (images * height * width * padded(channels)) as u64;
        let points = (slots(self.outputs) * tiles * padded(channels)) as u64;
        let (operations, reads) = match places.finish {
            Finish::Nothing => (0, 0),
            Finish::Statistics { .. } => (5, 0),
            Finish::Sums { .. } => (8, 1),
        };
        let reads = reads + u64::from(places.add.is_some());
        let work = Work { flops: 4 * points + operations * values, bytes: 4 * (points + (1 + reads) * values) };
        let mut bindings = vec![places.m, places.result];
        bindings.extend(places.add);
        bindings.extend(places.finish.bindings());
        let kernel = output_kernel(self.outputs, self.flipped(), places.add.is_some(), places.finish.flags());
        let groups = tiles.div_ceil(lanes) * column_tiles;
        Dispatch::new(kernel, params, &bindings, grid(groups as u64), work)
    }
}

fn weight_kernel(outputs: usize) -> Kernel {
    Kernel::new("winograd_weight.wgsl", &[("M", outputs as u32)])
}

fn input_kernel(outputs: usize, flipped: bool, flags: Flags) -> Kernel {
    let mut constants = vec![("M", outputs as u32), ("FLIPPED", u32::from(flipped))];
    constants.extend(read::constants(flags));
    Kernel::new("winograd_input.wgsl", &constants)
}

fn gemm_kernel(tile: Tile, transposed: bool) -> Kernel {
    let mut constants = tile.constants().to_vec();
    constants.push(("TRANSPOSED", u32::from(transposed)));
    let file = if tile.broadcast { "winograd_gemm_broadcast.wgsl" } else { "winograd_gemm.wgsl" };
    Kernel::new(file, &constants)
}

fn output_kernel(outputs: usize, flipped: bool, add: bool, [statistics, sums, relu]: [u32; 3]) -> Kernel {
    let constants = [
        ("M", outputs as u32),
        ("FLIPPED", u32::from(flipped)),
        ("ADD", u32::from(add)),
        ("STATISTICS", statistics),
        ("SUMS", sums),
        ("RELU", relu),
    ];
    Kernel::new("winograd_output.wgsl", &constants)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![WeightParams::LAYOUT, InputParams::LAYOUT, GemmParams::LAYOUT, OutputParams::LAYOUT]
}

/// Every kernel that this module uses.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = Vec::new();
    for outputs in [2, 4] {
        all.push(weight_kernel(outputs));
        all.extend(FORWARD_FLAGS.map(|flags| input_kernel(outputs, false, flags)));
        all.extend(BACKWARD_FLAGS.map(|flags| input_kernel(outputs, true, flags)));
        for add in [false, true] {
            all.extend([[0, 0, 0], [1, 0, 0]].map(|flags| output_kernel(outputs, false, add, flags)));
            let backward = [[0, 0, 0], [0, 1, 0], [0, 1, 1]];
            all.extend(backward.map(|flags| output_kernel(outputs, true, add, flags)));
        }
    }
    // Four columns occur only for images, and their convolution does not use Winograd's algorithm.
    let tiles = gemm::PIXEL_TILES.into_iter().filter(|tile| *tile != gemm::SINGLE);
    for tile in tiles.chain(gemm::BROADCAST_TILES) {
        all.extend([false, true].map(|transposed| gemm_kernel(tile, transposed)));
    }
    all
}

#[cfg(test)]
#[path = "winograd_tests.rs"]
mod tests;
