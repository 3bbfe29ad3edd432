//! Convolution on the CPU, forward and backward, over activations in lines of sixteen channels.
//!
//! Candle's own CPU convolution computes the weight gradient together with the input gradient and copies between
//! layouts; an attack needs only the input gradient, ten times for every weight update. Here 3×3 kernels with stride 1
//! use [`super::winograd`]; all others gather the columns of a few rows of pixels into a block that fits the cache
//! (im2col) and multiply them by the weights with [`super::product`].
//!
//! The split into tasks does not depend on the number of threads, and partial weight gradients are added in a fixed
//! order, so the same input gives the same bits.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::field::{Field, LANES, Line, blocks};
use super::product::{Blocked, multiply, multiply_transposed};
use super::winograd::{self, with_scratch};

/// Number of pixels whose columns are gathered at a time: enough for the matrix product, few enough for the cache.
const PIXELS: usize = 128;
/// Number of parts of the batch that sum small weight gradients separately.
const PARTS: usize = 8;
/// Largest weight gradient, in lines, that each part computes in full.
const PART_LINES: usize = 4096;

/// Sizes of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConvShape {
    pub(super) in_channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) out_channels: usize,
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

/// Weights in the layout of the kernels.
#[derive(Debug)]
pub(super) enum Packed {
    /// For Winograd's algorithm.
    Tiles(winograd::Weights),
    /// `N/16 × K × 16`, `K` padded with zeros.
    Columns(Vec<Line>),
}

impl ConvShape {
    /// The convolution of `dy` that computes the input gradient at stride 1, with the kernel rotated by 180°.
    const fn turned(&self) -> Self {
        Self {
            in_channels: self.out_channels,
            height: self.out_height,
            width: self.out_width,
            out_channels: self.in_channels,
            out_height: self.height,
            out_width: self.width,
            kernel: self.kernel,
            stride: 1,
            padding: self.kernel - 1 - self.padding,
        }
    }

    /// Whether the input gradient is itself a convolution.
    const fn turns(&self) -> bool {
        self.stride == 1 && self.padding < self.kernel
    }

    /// Whether Winograd's algorithm is used: from 32 channels of 32×32 to 512 of 4×4 its rate was higher, by half or
    /// more, than that of im2col on layers of the same width with stride 2. With fewer channels than a line has, most
    /// of the transformed input would be zeros.
    const fn winograd(&self) -> bool {
        self.kernel == 3 && self.stride == 1 && self.padding == 1 && self.in_channels >= LANES
    }

    /// Whether taps are adjacent in the columns, without padding of the channels: for few channels.
    const fn dense(&self) -> bool {
        self.in_channels < LANES
    }

    /// Number of values of a column for one tap.
    const fn tap_depth(&self) -> usize {
        if self.dense() { self.in_channels } else { blocks(self.in_channels) * LANES }
    }

    /// Number of lines of a column.
    const fn depth(&self) -> usize {
        blocks(self.kernel * self.kernel * self.tap_depth())
    }

    const fn in_blocks(&self) -> usize {
        blocks(self.in_channels)
    }

    const fn out_blocks(&self) -> usize {
        blocks(self.out_channels)
    }

    const fn in_pixels(&self) -> usize {
        self.height * self.width
    }

    const fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// The outputs whose source for kernel element `k` is inside the input.
    fn inside(&self, k: usize, size: usize, outputs: usize) -> Range<usize> {
        let first = self.padding.saturating_sub(k).div_ceil(self.stride).min(outputs);
        let last = (size + self.padding).saturating_sub(k).div_ceil(self.stride).min(outputs);
        first..last.max(first)
    }

    /// Weights for the forward pass, from `out × in × k × k`.
    pub(super) fn pack(&self, weight: &[f32]) -> Packed {
        if self.winograd() {
            return Packed::Tiles(winograd::Weights::new(weight, self.out_channels, self.in_channels, false));
        }
        let (area, depth) = (self.kernel * self.kernel, self.depth() * LANES);
        let mut lines = vec![Line::ZERO; self.out_blocks() * depth];
        for (o, kernels) in weight.chunks(self.in_channels * area).enumerate() {
            let column = &mut lines[o / LANES * depth..][..depth];
            for (i, kernel) in kernels.chunks(area).enumerate() {
                for (tap, w) in kernel.iter().enumerate() {
                    column[tap * self.tap_depth() + i].0[o % LANES] = *w;
                }
            }
        }
        Packed::Columns(lines)
    }

    /// Weights for the input gradient.
    pub(super) fn pack_for_input(&self, weight: &[f32]) -> Packed {
        let turned = self.turned();
        if self.turns() && turned.winograd() {
            return Packed::Tiles(winograd::Weights::new(weight, self.out_channels, self.in_channels, true));
        }
        let area = self.kernel * self.kernel;
        if self.turns() {
            let mut flipped = vec![0.0; weight.len()];
            for (o, kernels) in weight.chunks(self.in_channels * area).enumerate() {
                for (i, kernel) in kernels.chunks(area).enumerate() {
                    let target = &mut flipped[(i * self.out_channels + o) * area..][..area];
                    target.iter_mut().zip(kernel.iter().rev()).for_each(|(t, w)| *t = *w);
                }
            }
            return turned.pack(&flipped);
        }
        // The gradient of the columns is `dy · w`, with the taps as columns of the product.
        let depth = self.out_blocks() * LANES;
        let mut lines = vec![Line::ZERO; self.depth() * depth];
        for (o, kernels) in weight.chunks(self.in_channels * area).enumerate() {
            for (i, kernel) in kernels.chunks(area).enumerate() {
                for (tap, w) in kernel.iter().enumerate() {
                    let k = tap * self.tap_depth() + i;
                    lines[k / LANES * depth + o].0[k % LANES] = *w;
                }
            }
        }
        Packed::Columns(lines)
    }

    /// `y = w ∗ x`; writes all of `y`.
    pub(super) fn forward(&self, x: &Field, weights: &Packed, y: &mut Field) {
        match weights {
            Packed::Tiles(weights) => {
                winograd::convolve(&x.lines, weights, &mut y.lines, self.height, self.width);
            }
            Packed::Columns(weights) => self.by_columns(&x.lines, weights, &mut y.lines),
        }
    }

    /// Gradient with respect to the input; writes all of `dx`.
    pub(super) fn input_gradient(&self, dy: &Field, weights: &Packed, dx: &mut Field) {
        if self.turns() {
            self.turned().forward(dy, weights, dx);
        } else if let Packed::Columns(weights) = weights {
            self.scattered(&dy.lines, weights, &mut dx.lines);
        }
    }

    fn by_columns(&self, x: &[Line], weights: &[Line], y: &mut [Line]) {
        let (image_in, image_out) = (self.in_blocks() * self.in_pixels(), self.out_blocks() * self.out_pixels());
        if x.is_empty() {
            return;
        }
        let group = (PIXELS / self.out_pixels()).max(1);
        let band = (PIXELS / self.out_width).clamp(1, self.out_height);
        let depth = self.depth();
        let work = y.par_chunks_mut(group * image_out).zip(x.par_chunks(group * image_in));
        work.for_each(|(y, x)| {
            for first in (0..self.out_height).step_by(band) {
                let rows = first..(first + band).min(self.out_height);
                let images = x.len() / image_in;
                let each = rows.len() * self.out_width;
                let count = images * each;
                with_scratch(depth * count, |columns| {
                    self.gather_images(x, rows.clone(), 0..depth, columns);
                    let planes = y.chunks_mut(self.out_pixels());
                    let mut planes: Vec<&mut [Line]> =
                        planes.map(|plane| &mut plane[rows.start * self.out_width..][..each]).collect();
                    Arch::new().dispatch(ConvProduct {
                        c: &mut planes,
                        out_blocks: self.out_blocks(),
                        a: Blocked::new(columns, count),
                        b: Blocked::new(weights, depth * LANES),
                        each,
                        depth,
                    });
                });
            }
        });
    }

    /// Input gradient from the gradient of the columns, which is added back to the pixels that they came from (col2im).
    fn scattered(&self, dy: &[Line], weights: &[Line], dx: &mut [Line]) {
        let (image_in, image_out) = (self.in_blocks() * self.in_pixels(), self.out_blocks() * self.out_pixels());
        if dx.is_empty() {
            return;
        }
        let band = (PIXELS / self.out_width).clamp(1, self.out_height);
        let depth = self.depth();
        dx.par_chunks_mut(image_in).zip(dy.par_chunks(image_out)).for_each(|(dx, dy)| {
            dx.fill(Line::ZERO);
            for first in (0..self.out_height).step_by(band) {
                let rows = first..(first + band).min(self.out_height);
                let count = rows.len() * self.out_width;
                with_scratch(depth * count, |columns| {
                    let mut targets: Vec<&mut [Line]> = columns.chunks_mut(count).collect();
                    Arch::new().dispatch(ConvProduct {
                        out_blocks: targets.len(),
                        c: &mut targets,
                        a: Blocked::new(&dy[rows.start * self.out_width..], self.out_pixels()),
                        b: Blocked::new(weights, self.out_blocks() * LANES),
                        each: count,
                        depth: self.out_blocks(),
                    });
                    self.scatter(columns, count, rows.clone(), dx);
                });
            }
        });
    }

    /// Gathers lines `part` of the columns of output rows `rows`, for several consecutive images.
    fn gather_images(&self, x: &[Line], rows: Range<usize>, part: Range<usize>, columns: &mut [Line]) {
        let image_in = self.in_blocks() * self.in_pixels();
        let each = rows.len() * self.out_width;
        let stride = x.len() / image_in * each;
        for (i, x) in x.chunks(image_in).enumerate() {
            if self.dense() {
                self.gather_dense(x, rows.clone(), columns, stride, i * each);
                continue;
            }
            for (line, target) in part.clone().zip(columns.chunks_mut(stride)) {
                let (tap, block) = (line / self.in_blocks(), line % self.in_blocks());
                let plane = &x[block * self.in_pixels()..][..self.in_pixels()];
                self.gather_plane(plane, rows.clone(), tap, &mut target[i * each..][..each]);
            }
        }
    }

    /// The pixels that output rows `rows` read at one tap of the kernel.
    fn gather_plane(&self, plane: &[Line], rows: Range<usize>, tap: usize, target: &mut [Line]) {
        let (ky, kx) = (tap / self.kernel, tap % self.kernel);
        let inside_y = self.inside(ky, self.height, self.out_height);
        let inside = self.inside(kx, self.width, self.out_width);
        for (oy, line) in rows.zip(target.chunks_mut(self.out_width)) {
            if !inside_y.contains(&oy) || inside.is_empty() {
                line.fill(Line::ZERO);
                continue;
            }
            line[..inside.start].fill(Line::ZERO);
            line[inside.end..].fill(Line::ZERO);
            let first = (oy * self.stride + ky - self.padding) * self.width;
            let source = &plane[first + inside.start * self.stride + kx - self.padding..first + self.width];
            if self.stride == 1 {
                line[inside.clone()].copy_from_slice(&source[..inside.len()]);
            } else {
                let pixels = source.iter().step_by(self.stride);
                line[inside.clone()].iter_mut().zip(pixels).for_each(|(value, s)| *value = *s);
            }
        }
    }

    /// As [`Self::gather_plane`], for all taps of an image with few channels.
    fn gather_dense(&self, x: &[Line], rows: Range<usize>, columns: &mut [Line], stride: usize, offset: usize) {
        let depth = self.depth();
        // A whole line is written for each tap; the next tap overwrites the excess.
        let mut column = vec![0.0; (depth + 1) * LANES];
        let used = self.kernel * self.kernel * self.in_channels;
        for (y, oy) in rows.enumerate() {
            for ox in 0..self.out_width {
                let mut at = 0;
                for ky in 0..self.kernel {
                    for kx in 0..self.kernel {
                        let (iy, ix) = (oy * self.stride + ky, ox * self.stride + kx);
                        let line = if iy < self.padding
                            || ix < self.padding
                            || iy - self.padding >= self.height
                            || ix - self.padding >= self.width
                        {
                            &Line::ZERO
                        } else {
                            &x[(iy - self.padding) * self.width + ix - self.padding]
                        };
                        column[at..at + LANES].copy_from_slice(&line.0);
                        at += self.in_channels;
                    }
                }
                column[used..depth * LANES].fill(0.0);
                let to = offset + y * self.out_width + ox;
                for (target, part) in columns.chunks_mut(stride).zip(column.chunks_exact(LANES)).take(depth) {
                    target[to].0.copy_from_slice(part);
                }
            }
        }
    }

    /// Adds `columns` back to the pixels that they were gathered from.
    fn scatter(&self, columns: &[Line], stride: usize, rows: Range<usize>, dx: &mut [Line]) {
        for tap in 0..self.kernel * self.kernel {
            let (ky, kx) = (tap / self.kernel, tap % self.kernel);
            let inside_y = self.inside(ky, self.height, self.out_height);
            let inside = self.inside(kx, self.width, self.out_width);
            for (y, oy) in rows.clone().enumerate().filter(|(_, oy)| inside_y.contains(oy)) {
                for ox in inside.clone() {
                    let from = y * self.out_width + ox;
                    let to = (oy * self.stride + ky - self.padding) * self.width + ox * self.stride + kx - self.padding;
                    if self.dense() {
                        for c in 0..self.in_channels {
                            let k = tap * self.in_channels + c;
                            dx[to].0[c] += columns[k / LANES * stride + from].0[k % LANES];
                        }
                    } else {
                        for block in 0..self.in_blocks() {
                            let source = &columns[(tap * self.in_blocks() + block) * stride + from];
                            let target = &mut dx[block * self.in_pixels() + to];
                            target.0.iter_mut().zip(source.0).for_each(|(t, s)| *t += s);
                        }
                    }
                }
            }
        }
    }

    /// Gradient with respect to the weights, summed over the batch: `out × in × k × k`.
    pub(super) fn weight_gradient(&self, x: &Field, dy: &Field) -> Vec<f32> {
        let (image_in, image_out) = (self.in_blocks() * self.in_pixels(), self.out_blocks() * self.out_pixels());
        let depth = self.depth();
        let images = dy.images;
        // Large gradients are split by rows, small ones by images, so that both give several tasks.
        let parts = if self.out_blocks() * depth * LANES <= PART_LINES { PARTS.min(images.max(1)) } else { 1 };
        let range = if parts > 1 || self.dense() { depth } else { self.in_blocks() };
        let per_part = images.div_ceil(parts).max(1);
        let tasks: Vec<(usize, usize)> = (0..images.div_ceil(per_part))
            .flat_map(|part| (0..depth).step_by(range).map(move |line| (part, line)))
            .collect();
        let gradients: Vec<Vec<Line>> = tasks
            .par_iter()
            .map(|&(part, line)| {
                let count = per_part.min(images - part * per_part);
                let x = &x.lines[part * per_part * image_in..][..count * image_in];
                let dy = &dy.lines[part * per_part * image_out..][..count * image_out];
                self.partial_gradient(x, dy, line..(line + range).min(depth))
            })
            .collect();
        let mut total = vec![Line::ZERO; self.out_blocks() * depth * LANES];
        for (&(_, line), gradient) in tasks.iter().zip(gradients) {
            let rows = range.min(depth - line) * LANES;
            for (target, source) in total.chunks_mut(depth * LANES).zip(gradient.chunks(rows)) {
                for (t, s) in target[line * LANES..][..rows].iter_mut().zip(source) {
                    t.0.iter_mut().zip(s.0).for_each(|(t, s)| *t += s);
                }
            }
        }
        let area = self.kernel * self.kernel;
        let mut weight = vec![0.0; self.out_channels * self.in_channels * area];
        for (o, kernels) in weight.chunks_mut(self.in_channels * area).enumerate() {
            let column = &total[o / LANES * depth * LANES..];
            for (i, kernel) in kernels.chunks_mut(area).enumerate() {
                for (tap, w) in kernel.iter_mut().enumerate() {
                    *w = column[tap * self.tap_depth() + i].0[o % LANES];
                }
            }
        }
        weight
    }

    /// `N/16 × part × 16`: rows `part` of the gradient, summed over the images of `x`.
    fn partial_gradient(&self, x: &[Line], dy: &[Line], part: Range<usize>) -> Vec<Line> {
        let (image_in, image_out) = (self.in_blocks() * self.in_pixels(), self.out_blocks() * self.out_pixels());
        let group = (PIXELS / self.out_pixels()).max(1);
        let band = (PIXELS / self.out_width).clamp(1, self.out_height);
        let mut gradient = vec![Line::ZERO; self.out_blocks() * part.len() * LANES];
        for (x, dy) in x.chunks(group * image_in).zip(dy.chunks(group * image_out)) {
            let images = x.len() / image_in;
            for first in (0..self.out_height).step_by(band) {
                let rows = first..(first + band).min(self.out_height);
                let each = rows.len() * self.out_width;
                let count = images * each;
                with_scratch((part.len() + self.out_blocks()) * count, |scratch| {
                    let (columns, side) = scratch.split_at_mut(part.len() * count);
                    self.gather_images(x, rows.clone(), part.clone(), columns);
                    let b = if images == 1 {
                        Blocked::new(&dy[rows.start * self.out_width..], self.out_pixels())
                    } else {
                        for (at, plane) in dy.chunks(self.out_pixels()).enumerate() {
                            let (i, block) = (at / self.out_blocks(), at % self.out_blocks());
                            side[block * count + i * each..][..each].copy_from_slice(plane);
                        }
                        Blocked::new(side, count)
                    };
                    Arch::new().dispatch(WeightGradientProduct {
                        c: &mut gradient,
                        a: Blocked::new(columns, count),
                        b,
                        size: [count, part.len(), self.out_blocks()],
                    });
                });
            }
        }
        gradient
    }
}

/// Columns times weights, for images whose output planes are separate slices.
struct ConvProduct<'a, 'b> {
    /// `out_blocks` slices of `each` lines for every image.
    c: &'a mut [&'b mut [Line]],
    out_blocks: usize,
    a: Blocked<'a>,
    b: Blocked<'a>,
    each: usize,
    depth: usize,
}

impl WithSimd for ConvProduct<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // Two blocks at a time, so that their weights stay in the cache for all images.
        for pair in (0..self.out_blocks).step_by(2) {
            let count = (self.out_blocks - pair).min(2);
            let b = Blocked::new(&self.b.lines[pair * self.b.stride..], self.b.stride);
            for (i, c) in self.c.chunks_mut(self.out_blocks).enumerate() {
                let a = Blocked::new(&self.a.lines[i * self.each..], self.a.stride);
                multiply(simd, &mut c[pair..pair + count], a, b, self.each, self.depth, false);
            }
        }
    }
}

/// Transposed columns times the output's gradient.
struct WeightGradientProduct<'a> {
    c: &'a mut [Line],
    a: Blocked<'a>,
    b: Blocked<'a>,
    size: [usize; 3],
}

impl WithSimd for WeightGradientProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [_, depth, _] = self.size;
        multiply_transposed(simd, self.c, depth * LANES, self.a, self.b, self.size);
    }
}
