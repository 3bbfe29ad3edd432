//! A network's stem: the normalisation of up to four colour channels and a convolution of stride 1. Fused with it are
//! the statistics of the next batch norm in the forward pass, and that batch norm's gradient and the step of the search
//! in the backward pass. [`super::norm`], [`super::conv`] and [`super::attack`] have the separate kernels.
//!
//! These convolutions are direct, not matrix products: four columns would leave most of a tile empty. Rows of the
//! source are in workgroup memory; [`fits_forward`], [`fits_gradient`] and [`fits_step`] tell whether there is room.

use super::conv::Conv;
use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
use crate::engine::wgsl::layout::gpu_struct;

/// Invocations of a workgroup.
const LANES: usize = 256;
/// Quads of workgroup memory.
const SHARED: usize = 1024;
/// Quads of workgroup memory for sums over lanes, in `stem_forward` with statistics.
const SUMS: usize = 2 * LANES;
/// The same in the step of a search.
const STEP_SUMS: usize = LANES / 4;
/// Maximum number of strips of an image whose gradients a lane keeps in registers: 64 × 64 pixels.
const MAX_STRIPS: usize = 16;
/// Maximum number of quads per pixel that a workgroup of `stem_forward` computes.
const MAX_COLUMNS: usize = 16;
/// Maximum number of channels whose affine fits a uniform.
const MAX_CHANNELS: usize = 4096;

/// Whether this convolution can be part of a fused stem.
const fn is_stem(conv: &Conv) -> bool {
    conv.stride == 1 && conv.in_channels <= 4 && conv.out_channels <= MAX_CHANNELS
}

/// Maximum number of source pixels, padding included, needed for `step` consecutive pixels of a feature map.
fn tile_pixels(pixels: usize, width: usize, step: usize, kernel: usize) -> usize {
    let rows = |first: usize| ((first + step).min(pixels) - 1) / width - first / width + 1;
    let most = (0..pixels).step_by(step).map(rows).max().unwrap_or(1);
    (most + kernel - 1) * (width + kernel - 1)
}

/// Splits `groups` workgroups into dispatches of at most `budget` FLOPs each, or of one workgroup. `dispatch` creates
/// one of them from its first workgroup, its grid and its share of `work`.
fn cut(groups: usize, work: Work, budget: u64, dispatch: impl Fn(u32, [u32; 3], Work) -> Dispatch) -> Vec<Dispatch> {
    let groups = groups as u64;
    let chunk = (budget / (work.flops / groups.max(1)).max(1)).max(1);
    let until = |total: u64, end: u64| (u128::from(total) * u128::from(end) / u128::from(groups.max(1))) as u64;
    let mut all = Vec::new();
    let mut first = 0;
    while first < groups {
        let end = groups.min(first.saturating_add(chunk));
        let share = |total: u64| until(total, end) - until(total, first);
        let work = Work { flops: share(work.flops), bytes: share(work.bytes) };
        all.push(dispatch(first as u32, grid(end - first), work));
        first = end;
    }
    all
}

/// Arithmetic of the convolution; traffic of images and output, and of `more` further tensors of the output's size.
fn work(conv: &Conv, images: usize, more: usize) -> Work {
    let out_pixels = images * conv.out_height * conv.out_width;
    let flops = 2 * out_pixels * conv.kernel * conv.kernel * conv.in_channels * conv.out_channels;
    let image_values = 4 * images * conv.height * conv.width;
    let values = out_pixels * padded(conv.out_channels);
    Work { flops: flops as u64, bytes: 4 * (image_values + (1 + more) * values) as u64 }
}

/// How [`forward`] assigns pixels and quads to the lanes of a workgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Blocks {
    /// Quads per pixel of a workgroup.
    columns: usize,
    /// Workgroups that cover all quads of a pixel.
    tiles: usize,
    /// Pixels computed in parallel.
    lanes: usize,
    /// Pixels per lane.
    held: usize,
    /// Source pixels in workgroup memory.
    tile: usize,
}

impl Blocks {
    fn new(conv: &Conv) -> Option<Self> {
        let tiles = quads(conv.out_channels).div_ceil(MAX_COLUMNS);
        let columns = quads(conv.out_channels).div_ceil(tiles);
        let lanes = LANES / columns;
        let pixels = conv.out_height * conv.out_width;
        // The more pixels per lane, the fewer loads of weights.
        [8, 4, 2, 1].into_iter().find_map(|held| {
            let tile = tile_pixels(pixels, conv.out_width, held * lanes, conv.kernel);
            (tile + SUMS <= SHARED).then_some(Self { columns, tiles, lanes, held, tile })
        })
    }

    const fn of_image(self, conv: &Conv) -> usize {
        (conv.out_height * conv.out_width).div_ceil(self.held * self.lanes)
    }

    fn kernel(self, conv: &Conv, statistics: bool) -> Kernel {
        let constants = [
            ("KERNEL", conv.kernel as u32),
            ("PADDING", conv.padding as u32),
            ("COLOURS", conv.in_channels as u32),
            ("HELD", self.held as u32),
            ("TILE", self.tile as u32),
            ("STATISTICS", u32::from(statistics)),
        ];
        Kernel::new("stem_forward.wgsl", &constants)
    }
}

/// Whether [`forward`] supports this convolution.
pub(in crate::engine::wgsl) fn fits_forward(conv: &Conv) -> bool {
    is_stem(conv) && Blocks::new(conv).is_some()
}

/// Number of blocks of the statistics of `images` images; [`super::norm::partials_len`] gives their size.
pub(in crate::engine::wgsl) fn statistics_blocks(conv: &Conv, images: usize) -> usize {
    Blocks::new(conv).map_or(0, |blocks| images * blocks.of_image(conv))
}

gpu_struct! {
    struct ForwardParams for "stem_forward.wgsl" {
        images: u32,
        height: u32,
        width: u32,
        out_height: u32,
        out_width: u32,
        channels: u32,
        quads: u32,
        columns: u32,
        tiles: u32,
        lanes: u32,
        blocks: u32,
        first_block: u32,
        first_group: u32,
    }
}

/// `y = (scale · x + shift) ⋆ w` with `normalization` (scale, shift, mean, rstd of the colours), zero outside of the
/// image. `statistics`: the buffer for the partial statistics of `y` for [`super::norm::finalize`], and the first
/// block. Empty if [`fits_forward`] is false.
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn forward(
    conv: &Conv,
    images: usize,
    budget: u64,
    x: Slice,
    normalization: Slice,
    weight: Slice,
    y: Slice,
    statistics: Option<(Slice, usize)>,
) -> Vec<Dispatch> {
    let Some(blocks) = Blocks::new(conv).filter(|_| is_stem(conv)) else { return Vec::new() };
    let params = ForwardParams {
        images: images as u32,
        height: conv.height as u32,
        width: conv.width as u32,
        out_height: conv.out_height as u32,
        out_width: conv.out_width as u32,
        channels: conv.out_channels as u32,
        quads: quads(conv.out_channels) as u32,
        columns: blocks.columns as u32,
        tiles: blocks.tiles as u32,
        lanes: blocks.lanes as u32,
        blocks: blocks.of_image(conv) as u32,
        first_block: statistics.map_or(0, |(_, first)| first as u32),
        first_group: 0,
    };
    let mut bindings = vec![x, normalization, weight, y];
    bindings.extend(statistics.map(|(partials, _)| partials));
    let kernel = blocks.kernel(conv, statistics.is_some());
    let groups = images * blocks.of_image(conv) * blocks.tiles;
    cut(groups, work(conv, images, 0), budget, |first_group, grid, work| {
        Dispatch::new(kernel.clone(), ForwardParams { first_group, ..params }, &bindings, grid, work)
    })
}

/// A batch norm directly after the convolution, with an optional ReLU: its backward pass is computed on load.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct StemNorm {
    /// Its input: the convolution's output.
    pub(in crate::engine::wgsl) x: Slice,
    /// Scale, shift, mean and rstd, `4 × C`.
    pub(in crate::engine::wgsl) affine: Slice,
    /// The means of [`super::norm::backward_finalize`]. `None` if the statistics were constants.
    pub(in crate::engine::wgsl) means: Option<Slice>,
    /// Whether the gradient must still pass through the ReLU.
    pub(in crate::engine::wgsl) relu: bool,
}

/// How the pixels of an image are divided for the gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Strips {
    /// Strips per image, 256 pixels each.
    count: usize,
    /// Quads of output channels per iteration.
    depth: usize,
    /// Pixels of the output's gradient in workgroup memory.
    tile: usize,
}

impl Strips {
    fn new(conv: &Conv) -> Option<Self> {
        let pixels = conv.height * conv.width;
        let tile = tile_pixels(pixels, conv.width, LANES, conv.kernel);
        let fits = |depth: &usize| depth * (tile + 4 * conv.kernel * conv.kernel) + STEP_SUMS <= SHARED;
        let depth = [2, 1].into_iter().find(fits)?;
        Some(Self { count: pixels.div_ceil(LANES), depth, tile })
    }

    /// `norm`: 0 without a batch norm, 1 with batch statistics, 2 with constants.
    fn kernel(self, file: &'static str, conv: &Conv, norm: u32, relu: bool, more: &[(&'static str, u32)]) -> Kernel {
        let mut constants = vec![
            ("KERNEL", conv.kernel as u32),
            ("PADDING", conv.padding as u32),
            ("QUADS", quads(conv.out_channels) as u32),
            ("DEPTH", self.depth as u32),
            ("TILE", self.tile as u32),
            ("NORM", norm),
            ("RELU", u32::from(relu)),
        ];
        constants.extend(more);
        Kernel::new(file, &constants)
    }

    fn step_kernel(self, conv: &Conv, norm: u32, relu: bool) -> Kernel {
        self.kernel("stem_step.wgsl", conv, norm, relu, &[("STRIPS", self.count as u32)])
    }
}

/// Whether [`input_gradient`] supports this convolution.
pub(in crate::engine::wgsl) fn fits_gradient(conv: &Conv) -> bool {
    is_stem(conv) && Strips::new(conv).is_some()
}

/// Whether [`step`] supports this convolution: images of up to 64 × 64 pixels.
pub(in crate::engine::wgsl) fn fits_step(conv: &Conv) -> bool {
    is_stem(conv) && Strips::new(conv).is_some_and(|strips| strips.count <= MAX_STRIPS)
}

gpu_struct! {
    struct GradientParams for "stem_gradient.wgsl", "stem_step.wgsl" {
        images: u32,
        first_image: u32,
        channels: u32,
        height: u32,
        width: u32,
        out_height: u32,
        out_width: u32,
        strips: u32,
        first_group: u32,
    }
}

impl GradientParams {
    fn new(conv: &Conv, images: usize, first_image: usize, strips: Strips) -> Self {
        Self {
            images: images as u32,
            first_image: first_image as u32,
            channels: conv.in_channels as u32,
            height: conv.height as u32,
            width: conv.width as u32,
            out_height: conv.out_height as u32,
            out_width: conv.out_width as u32,
            strips: strips.count as u32,
            first_group: 0,
        }
    }
}

/// The constants NORM and RELU for a batch norm, and its bindings.
fn norm_part(norm: Option<StemNorm>) -> (u32, bool, Vec<Slice>) {
    let Some(norm) = norm else { return (0, false, Vec::new()) };
    let mut bindings = vec![norm.affine];
    if norm.relu || norm.means.is_some() {
        bindings.push(norm.x);
    }
    bindings.extend(norm.means);
    (if norm.means.is_some() { 1 } else { 2 }, norm.relu, bindings)
}

/// The gradient of the images, given that of the convolution's output, or of the output of the batch norm after it.
/// Empty if [`fits_gradient`] is false.
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn input_gradient(
    conv: &Conv,
    images: usize,
    budget: u64,
    dy: Slice,
    norm: Option<StemNorm>,
    weight: Slice,
    normalization: Slice,
    gradient: Slice,
) -> Vec<Dispatch> {
    let Some(strips) = Strips::new(conv).filter(|_| is_stem(conv)) else { return Vec::new() };
    let (constant, relu, more) = norm_part(norm);
    let params = GradientParams::new(conv, images, 0, strips);
    let bindings = [vec![dy, weight, normalization], more, vec![gradient]].concat();
    let kernel = strips.kernel("stem_gradient.wgsl", conv, constant, relu, &[]);
    let work = work(conv, images, usize::from(norm.is_some()));
    cut(images * strips.count, work, budget, |first_group, grid, work| {
        Dispatch::new(kernel.clone(), GradientParams { first_group, ..params }, &bindings, grid, work)
    })
}

/// The tensors of a search, as [`super::attack::pgd_step`] takes them.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct Search {
    pub(in crate::engine::wgsl) call: Slice,
    pub(in crate::engine::wgsl) info: Slice,
    pub(in crate::engine::wgsl) clean: Slice,
    pub(in crate::engine::wgsl) delta: Slice,
    pub(in crate::engine::wgsl) x: Slice,
    pub(in crate::engine::wgsl) stopped: Slice,
    pub(in crate::engine::wgsl) flags: Slice,
}

/// A step of the search along the gradient of [`input_gradient`], which is not materialised. Empty if [`fits_step`] is
/// false.
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn step(
    conv: &Conv,
    images: usize,
    first_image: usize,
    budget: u64,
    dy: Slice,
    norm: Option<StemNorm>,
    weight: Slice,
    normalization: Slice,
    search: &Search,
) -> Vec<Dispatch> {
    let Some(strips) = Strips::new(conv).filter(|_| fits_step(conv)) else { return Vec::new() };
    let (constant, relu, more) = norm_part(norm);
    let params = GradientParams::new(conv, images, first_image, strips);
    let Search { call, info, clean, delta, x, stopped, flags } = *search;
    let tensors = vec![call, info, clean, delta, x, stopped, flags];
    let bindings = [vec![dy, weight, normalization], more, tensors].concat();
    let kernel = strips.step_kernel(conv, constant, relu);
    let gradient = work(conv, images, usize::from(norm.is_some()));
    let quads = (images * conv.height * conv.width) as u64;
    let work = Work { flops: gradient.flops + 32 * quads, bytes: gradient.bytes + 64 * quads };
    cut(images, work, budget, |first_group, grid, work| {
        Dispatch::new(kernel.clone(), GradientParams { first_group, ..params }, &bindings, grid, work)
    })
}

/// Stems of the built-in networks, unusual ones, and the largest images: channels, size, kernel, padding.
#[cfg(test)]
const SHAPES: [([usize; 2], [usize; 2], usize, usize); 10] = [
    ([3, 64], [32, 32], 3, 1),
    ([3, 16], [32, 32], 3, 1),
    ([1, 16], [8, 8], 3, 1),
    ([1, 32], [28, 28], 3, 1),
    ([3, 160], [10, 12], 3, 1),
    ([3, 20], [41, 41], 3, 1),
    ([4, 5], [9, 8], 5, 2),
    ([2, 36], [11, 6], 1, 0),
    ([3, 10], [5, 90], 3, 0),
    ([3, 8], [64, 64], 3, 1),
];

/// A convolution; its output size follows from the arguments.
#[cfg(test)]
const fn shape(channels: [usize; 2], size: [usize; 2], kernel: usize, padding: usize) -> Conv {
    let ([in_channels, out_channels], [height, width]) = (channels, size);
    let (out_height, out_width) = (height + 2 * padding + 1 - kernel, width + 2 * padding + 1 - kernel);
    Conv { in_channels, height, width, out_channels, out_height, out_width, kernel, stride: 1, padding }
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<crate::engine::wgsl::layout::Layout> {
    vec![ForwardParams::LAYOUT, GradientParams::LAYOUT]
}

/// Every kernel that the functions of this file can give, for some shapes.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = Vec::new();
    for (channels, size, kernel, padding) in SHAPES {
        let conv = shape(channels, size, kernel, padding);
        if let Some(blocks) = Blocks::new(&conv) {
            all.extend([false, true].map(|statistics| blocks.kernel(&conv, statistics)));
        }
        let Some(strips) = Strips::new(&conv) else { continue };
        for (norm, relu) in [(0, false), (1, false), (1, true), (2, false), (2, true)] {
            all.push(strips.kernel("stem_gradient.wgsl", &conv, norm, relu, &[]));
            all.push(strips.step_kernel(&conv, norm, relu));
        }
    }
    all
}

#[cfg(test)]
mod tests;
