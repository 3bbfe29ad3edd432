//! Convolution on the CPU: blocks of columns (im2col) times the weights, on all cores.
//!
//! Candle's own CPU convolution computes the weight gradient together with the input gradient and copies between
//! layouts; an attack needs the input gradient alone, ten times for every weight update. Here images stay
//! `B × C × H × W`: the columns of a few rows of pixels are gathered into a block that fits the cache, and one matrix
//! product writes straight into the output's planes.
//!
//! Work is cut by image, in pieces that do not depend on the number of threads, and partial weight gradients are added in
//! a fixed order: the same input gives the same bits.

use gemm::{Parallelism, gemm};
use rayon::prelude::*;

use super::kernels::vectorised;

/// Columns in a block: large enough for the matrix product, small enough for the cache.
const BLOCK: usize = 256;
/// Pieces of the batch that add up their weight gradients on their own.
const PARTS: usize = 8;

/// A convolution of a batch.
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

impl ConvShape {
    /// Values in one input image.
    const fn input(&self) -> usize {
        self.in_channels * self.height * self.width
    }

    /// Pixels in one output plane.
    const fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Values in one output image.
    const fn output(&self) -> usize {
        self.out_channels * self.pixels()
    }

    /// Rows of a block of columns: values of the input that make one output.
    const fn depth(&self) -> usize {
        self.in_channels * self.kernel * self.kernel
    }

    /// Images that share a block. Small planes are put side by side.
    fn group(&self) -> usize {
        (BLOCK / self.pixels().max(1)).max(1)
    }

    /// Output rows in a block where a block holds less than one image.
    fn band(&self) -> usize {
        (BLOCK / self.out_width.max(1)).clamp(1, self.out_height.max(1))
    }

    /// The input row or column that kernel element `k` reads for output `o`, if it lies inside.
    const fn source(&self, o: usize, k: usize, size: usize) -> Option<usize> {
        let position = o * self.stride + k;
        if position < self.padding || position - self.padding >= size { None } else { Some(position - self.padding) }
    }

    /// Outputs whose source for kernel element `k` lies inside: `source(o)` is `Some` exactly for these.
    fn inside(&self, k: usize, size: usize, outputs: usize) -> std::ops::Range<usize> {
        let first = self.padding.saturating_sub(k).div_ceil(self.stride).min(outputs);
        let last = (size + self.padding).saturating_sub(k).div_ceil(self.stride).min(outputs);
        first..last.max(first)
    }

    /// Whether a row of columns is a plane moved by a fixed distance: stride 1, and as wide as the input.
    const fn is_shift(&self) -> bool {
        self.stride == 1 && self.out_width == self.width
    }

    /// For [`Self::is_shift`]: which part of output rows `rows` reads inside the plane at kernel element `(ky, kx)` when
    /// left and right edges are not looked at, as a range of pixels from the first of `rows`; and where in the plane it
    /// starts.
    fn shifted(&self, rows: &std::ops::Range<usize>, ky: usize, kx: usize) -> (std::ops::Range<usize>, usize) {
        let inside = self.inside(ky, self.height, self.out_height);
        let (first, last) = (inside.start.max(rows.start), inside.end.min(rows.end));
        if first >= last {
            return (0..0, 0);
        }
        // Position in the plane of output (first, 0), which may lie before its start by up to the padding.
        let start = (first + ky - self.padding) as isize * self.width as isize + kx as isize - self.padding as isize;
        let length = ((last - first) * self.width) as isize;
        let skipped = (-start).clamp(0, length);
        let kept = (self.height * self.width) as isize - start;
        let end = length.min(kept).max(skipped);
        let at = (first - rows.start) * self.width;
        (at + skipped as usize..at + end as usize, (start + skipped).max(0) as usize)
    }

    /// Sets the values of `line`, whole output rows, to 0 where kernel column `kx` reads beside the plane.
    fn clear_edges(&self, line: &mut [f32], kx: usize) {
        let inside = self.inside(kx, self.width, self.out_width);
        if inside.len() < self.out_width {
            for row in line.chunks_mut(self.out_width) {
                row[..inside.start].fill(0.0);
                row[inside.end..].fill(0.0);
            }
        }
    }

    /// Gathers output rows `rows` of one image into `columns`, a matrix with `stride` values a row, from column `offset`.
    fn gather(&self, x: &[f32], rows: std::ops::Range<usize>, columns: &mut [f32], stride: usize, offset: usize) {
        let count = rows.len() * self.out_width;
        for (row, target) in columns.chunks_mut(stride).take(self.depth()).enumerate() {
            let (channel, ky, kx) = self.tap(row);
            let plane = &x[channel * self.height * self.width..][..self.height * self.width];
            let target = &mut target[offset..offset + count];
            if self.is_shift() {
                let (part, start) = self.shifted(&rows, ky, kx);
                target[..part.start].fill(0.0);
                target[part.end..].fill(0.0);
                let length = part.len();
                target[part].copy_from_slice(&plane[start..start + length]);
                self.clear_edges(target, kx);
                continue;
            }
            let inside = self.inside(kx, self.width, self.out_width);
            for (oy, line) in rows.clone().zip(target.chunks_mut(self.out_width)) {
                let source = self.source(oy, ky, self.height).filter(|_| !inside.is_empty());
                let Some(iy) = source else {
                    line.fill(0.0);
                    continue;
                };
                line[..inside.start].fill(0.0);
                line[inside.end..].fill(0.0);
                let first = iy * self.width + inside.start * self.stride + kx - self.padding;
                for (value, s) in line[inside.clone()].iter_mut().zip(plane[first..].iter().step_by(self.stride)) {
                    *value = *s;
                }
            }
        }
    }

    /// Adds `columns` back to the pixels that [`Self::gather`] took them from.
    fn scatter(&self, columns: &mut [f32], stride: usize, offset: usize, rows: std::ops::Range<usize>, dx: &mut [f32]) {
        let count = rows.len() * self.out_width;
        for (row, source) in columns.chunks_mut(stride).take(self.depth()).enumerate() {
            let (channel, ky, kx) = self.tap(row);
            let plane = &mut dx[channel * self.height * self.width..][..self.height * self.width];
            let source = &mut source[offset..offset + count];
            if self.is_shift() {
                self.clear_edges(source, kx);
                let (part, start) = self.shifted(&rows, ky, kx);
                let target = &mut plane[start..start + part.len()];
                let source = &source[part];
                vectorised(|| target.iter_mut().zip(source).for_each(|(value, s)| *value += s));
                continue;
            }
            let inside = self.inside(kx, self.width, self.out_width);
            if inside.is_empty() {
                continue;
            }
            for (oy, line) in rows.clone().zip(source.chunks(self.out_width)) {
                let Some(iy) = self.source(oy, ky, self.height) else { continue };
                let first = iy * self.width + inside.start * self.stride + kx - self.padding;
                let target = plane[first..][..(inside.len() - 1) * self.stride + 1].iter_mut();
                for (value, s) in target.step_by(self.stride).zip(&line[inside.clone()]) {
                    *value += s;
                }
            }
        }
    }

    /// Channel, kernel row and kernel column of a row of a block of columns.
    const fn tap(&self, row: usize) -> (usize, usize, usize) {
        let area = self.kernel * self.kernel;
        (row / area, row % area / self.kernel, row % self.kernel)
    }

    /// `y = w ∗ x`.
    pub(super) fn forward(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let n = x.len() / self.input();
        let mut y = vec![0.0; n * self.output()];
        let (group, pixels, depth) = (self.group(), self.pixels(), self.depth());
        let work = y.par_chunks_mut(group * self.output()).zip(x.par_chunks(group * self.input()));
        work.for_each_init(Vec::new, |scratch: &mut Vec<f32>, (y, x)| {
            if group == 1 {
                for rows in self.bands() {
                    let count = rows.len() * self.out_width;
                    let columns = take(scratch, depth * count);
                    self.gather(x, rows.clone(), columns, count, 0);
                    let (a, b) = (Matrix::new(weight, depth), Matrix::new(columns, count));
                    matmul(
                        [self.out_channels, count, depth],
                        &mut y[rows.start * self.out_width..],
                        pixels,
                        false,
                        a,
                        b,
                    );
                }
            } else {
                let count = x.len() / self.input() * pixels;
                let (columns, side) = take(scratch, (depth + self.out_channels) * count).split_at_mut(depth * count);
                self.gather_group(x, columns, count);
                let (a, b) = (Matrix::new(weight, depth), Matrix::new(columns, count));
                matmul([self.out_channels, count, depth], side, count, false, a, b);
                for (i, y) in y.chunks_mut(self.output()).enumerate() {
                    for (plane, source) in y.chunks_mut(pixels).zip(side.chunks(count)) {
                        plane.copy_from_slice(&source[i * pixels..][..pixels]);
                    }
                }
            }
        });
        y
    }

    /// Gradient with respect to the input: `wᵀ · dy`, added back to the pixels.
    pub(super) fn input_gradient(&self, dy: &[f32], weight: &[f32]) -> Vec<f32> {
        let n = dy.len() / self.output();
        let mut dx = vec![0.0; n * self.input()];
        let (group, pixels, depth) = (self.group(), self.pixels(), self.depth());
        let transposed = Matrix { data: weight, row_stride: 1, column_stride: depth };
        let work = dx.par_chunks_mut(group * self.input()).zip(dy.par_chunks(group * self.output()));
        work.for_each_init(Vec::new, |scratch: &mut Vec<f32>, (dx, dy)| {
            if group == 1 {
                for rows in self.bands() {
                    let count = rows.len() * self.out_width;
                    let columns = take(scratch, depth * count);
                    let b = Matrix::new(&dy[rows.start * self.out_width..], pixels);
                    matmul([depth, count, self.out_channels], columns, count, false, transposed, b);
                    self.scatter(columns, count, 0, rows, dx);
                }
            } else {
                let count = dy.len() / self.output() * pixels;
                let (columns, side) = take(scratch, (depth + self.out_channels) * count).split_at_mut(depth * count);
                self.side_by_side(dy, side, count);
                matmul([depth, count, self.out_channels], columns, count, false, transposed, Matrix::new(side, count));
                for (i, dx) in dx.chunks_mut(self.input()).enumerate() {
                    self.scatter(columns, count, i * pixels, 0..self.out_height, dx);
                }
            }
        });
        dx
    }

    /// Gradient with respect to the weights: `dy · columnsᵀ`, summed over the batch.
    pub(super) fn weight_gradient(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let n = dy.len() / self.output();
        let (group, pixels, depth) = (self.group(), self.pixels(), self.depth());
        let part = n.div_ceil(PARTS).next_multiple_of(group);
        let work = x.par_chunks(part * self.input()).zip(dy.par_chunks(part * self.output()));
        let parts: Vec<Vec<f32>> = work
            .map(|(x, dy)| {
                let mut dw = vec![0.0; self.out_channels * depth];
                let mut scratch = Vec::new();
                for (x, dy) in x.chunks(group * self.input()).zip(dy.chunks(group * self.output())) {
                    if group == 1 {
                        for rows in self.bands() {
                            let count = rows.len() * self.out_width;
                            let columns = take(&mut scratch, depth * count);
                            self.gather(x, rows.clone(), columns, count, 0);
                            let a = Matrix::new(&dy[rows.start * self.out_width..], pixels);
                            let b = Matrix { data: columns, row_stride: 1, column_stride: count };
                            matmul([self.out_channels, depth, count], &mut dw, depth, true, a, b);
                        }
                    } else {
                        let count = dy.len() / self.output() * pixels;
                        let (columns, side) =
                            take(&mut scratch, (depth + self.out_channels) * count).split_at_mut(depth * count);
                        self.gather_group(x, columns, count);
                        self.side_by_side(dy, side, count);
                        let b = Matrix { data: columns, row_stride: 1, column_stride: count };
                        matmul([self.out_channels, depth, count], &mut dw, depth, true, Matrix::new(side, count), b);
                    }
                }
                dw
            })
            .collect();
        let mut parts = parts.into_iter();
        let mut total = parts.next().unwrap_or_else(|| vec![0.0; self.out_channels * depth]);
        for part in parts {
            total.iter_mut().zip(part).for_each(|(a, b)| *a += b);
        }
        total
    }

    fn bands(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let (band, height) = (self.band(), self.out_height);
        (0..height).step_by(band).map(move |first| first..(first + band).min(height))
    }

    fn gather_group(&self, x: &[f32], columns: &mut [f32], count: usize) {
        for (i, x) in x.chunks(self.input()).enumerate() {
            self.gather(x, 0..self.out_height, columns, count, i * self.pixels());
        }
    }

    /// Puts the planes of several images next to each other: `C × (images · pixels)`.
    fn side_by_side(&self, dy: &[f32], side: &mut [f32], count: usize) {
        let pixels = self.pixels();
        for (i, dy) in dy.chunks(self.output()).enumerate() {
            for (target, plane) in side.chunks_mut(count).zip(dy.chunks(pixels)) {
                target[i * pixels..][..pixels].copy_from_slice(plane);
            }
        }
    }
}

/// The first `len` values of a buffer that only ever grows.
fn take(scratch: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if scratch.len() < len {
        scratch.resize(len, 0.0);
    }
    &mut scratch[..len]
}

/// A matrix in somebody's memory.
#[derive(Debug, Clone, Copy)]
struct Matrix<'a> {
    data: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Row-major, with `row_stride` values from one row to the next.
    const fn new(data: &'a [f32], row_stride: usize) -> Self {
        Self { data, row_stride, column_stride: 1 }
    }

    const fn covers(&self, rows: usize, columns: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.row_stride + (columns - 1) * self.column_stride < self.data.len()
    }
}

/// `dst = a · b`, or `dst += a · b`, for `[rows, columns, depth]`; `dst` is row-major. One thread: the batch is what is
/// shared out.
fn matmul([m, n, k]: [usize; 3], dst: &mut [f32], dst_stride: usize, accumulate: bool, a: Matrix<'_>, b: Matrix<'_>) {
    assert!(a.covers(m, k) && b.covers(k, n) && Matrix::new(dst, dst_stride).covers(m, n) && dst_stride >= n);
    // SAFETY: the assertion shows that every element the product reads or writes lies inside its slice, rows of `dst` do
    // not overlap, and `dst` is borrowed exclusively.
    #[allow(unsafe_code)]
    unsafe {
        gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_stride as isize,
            accumulate,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
