//! Batch norm, pooling and elementwise operations on the CPU, each in one pass over memory on all cores.
//!
//! Hand-written, because the same operations composed of tensor operations read and write every activation several
//! times, on one core. [`super::portable`] is their twin in tensor operations, for other devices and for tests.
//!
//! Sums over at most [`RUN`] pixels are in single precision; these are added in double precision, plane by plane, so
//! the bits do not depend on the number of threads.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::field::{Field, LANES, Line};

/// Lines per task in elementwise operations.
const CHUNK: usize = 1 << 10;
/// Number of pixels summed in single precision.
const RUN: usize = 64;
/// Number of independent partial sums, to hide the latency of the additions.
const WAYS: usize = 4;

/// One vector of a line.
#[inline(always)]
pub(super) fn load<S: Simd>(line: &Line, part: usize) -> S::f32s {
    S::as_simd_f32s(&line.0).0[part]
}

/// Writes one vector of a line.
#[inline(always)]
pub(super) fn store<S: Simd>(line: &mut Line, part: usize, value: S::f32s) {
    S::as_mut_simd_f32s(&mut line.0).0[part] = value;
}

/// A function of vectors. A trait instead of a closure, because a closure that is not inlined is compiled for the
/// baseline CPU.
trait Elementwise<const N: usize>: Copy + Sync {
    fn at<S: Simd>(self, simd: S, values: [S::f32s; N]) -> S::f32s;
}

/// `y = f(inputs)`, elementwise.
struct Apply<'a, const N: usize, F> {
    inputs: [&'a [Line]; N],
    y: &'a mut [Line],
    f: F,
}

impl<const N: usize, F: Elementwise<N>> WithSimd for Apply<'_, N, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let inputs = self.inputs.map(|input| &input[..self.y.len()]);
        for (at, y) in self.y.iter_mut().enumerate() {
            for part in 0..LANES / S::F32_LANES {
                let mut values = [simd.splat_f32s(0.0); N];
                for (value, input) in values.iter_mut().zip(&inputs) {
                    *value = load::<S>(&input[at], part);
                }
                store::<S>(y, part, self.f.at(simd, values));
            }
        }
    }
}

/// `y = f(inputs)` on all cores.
fn apply<const N: usize>(inputs: [&[Line]; N], y: &mut [Line], f: impl Elementwise<N>) {
    y.par_chunks_mut(CHUNK).enumerate().for_each(|(i, y)| {
        let inputs = inputs.map(|input| &input[i * CHUNK..][..y.len()]);
        Arch::new().dispatch(Apply { inputs, y, f });
    });
}

#[derive(Clone, Copy)]
struct Relu;

impl Elementwise<1> for Relu {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [x]: [S::f32s; 1]) -> S::f32s {
        rectified(simd, x)
    }
}

#[derive(Clone, Copy)]
struct ReluBackward;

impl Elementwise<2> for ReluBackward {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [y, dy]: [S::f32s; 2]) -> S::f32s {
        let zero = simd.splat_f32s(0.0);
        simd.select_f32s(simd.greater_than_f32s(y, zero), dy, zero)
    }
}

#[derive(Clone, Copy)]
struct Sum;

impl Elementwise<2> for Sum {
    #[inline(always)]
    fn at<S: Simd>(self, simd: S, [a, b]: [S::f32s; 2]) -> S::f32s {
        simd.add_f32s(a, b)
    }
}

/// `max(x, 0)` that propagates NaN, as PyTorch does. A plain maximum would turn NaN into 0, so that logits would look
/// valid after an overflow inside the network.
#[inline(always)]
pub(super) fn rectified<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let zero = simd.splat_f32s(0.0);
    simd.select_f32s(simd.less_than_f32s(x, zero), zero, x)
}

/// `max(x, 0)`.
pub(super) fn relu(x: &[Line], y: &mut [Line]) {
    apply([x], y, Relu);
}

/// `dy` where the ReLU's output `y` is positive.
pub(super) fn relu_backward(y: &[Line], dy: &[Line], dx: &mut [Line]) {
    apply([y, dy], dx, ReluBackward);
}

/// `y = a + b`.
pub(super) fn add(a: &[Line], b: &[Line], y: &mut [Line]) {
    apply([a, b], y, Sum);
}

/// `y += a`.
pub(super) fn add_to(y: &mut [Line], a: &[Line]) {
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).for_each(|(y, a)| Arch::new().dispatch(AddTo { y, a }));
}

struct AddTo<'a> {
    y: &'a mut [Line],
    a: &'a [Line],
}

impl WithSimd for AddTo<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (y, a) in self.y.iter_mut().zip(self.a) {
            for part in 0..LANES / S::F32_LANES {
                store::<S>(y, part, simd.add_f32s(load::<S>(y, part), load::<S>(a, part)));
            }
        }
    }
}

/// Batch norm of sixteen channels as `y = scale · x + shift`, and whether a ReLU follows. Padding channels are zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) scale: Line,
    pub(super) shift: Line,
    pub(super) relu: bool,
}

/// [`Affine`] for one vector of a line.
#[derive(Clone, Copy)]
pub(super) struct AffinePart<S: Simd> {
    scale: S::f32s,
    shift: S::f32s,
    relu: bool,
}

impl Affine {
    #[inline(always)]
    pub(super) fn part<S: Simd>(&self, part: usize) -> AffinePart<S> {
        AffinePart { scale: load::<S>(&self.scale, part), shift: load::<S>(&self.shift, part), relu: self.relu }
    }
}

impl<S: Simd> AffinePart<S> {
    #[inline(always)]
    pub(super) fn at(&self, simd: S, x: S::f32s) -> S::f32s {
        let y = simd.mul_add_e_f32s(self.scale, x, self.shift);
        if self.relu { rectified(simd, y) } else { y }
    }

    /// `dy` where the ReLU of `x` is active, 0 elsewhere.
    #[inline(always)]
    fn masked(&self, simd: S, x: S::f32s, dy: S::f32s) -> S::f32s {
        if !self.relu {
            return dy;
        }
        let zero = simd.splat_f32s(0.0);
        let y = simd.mul_add_e_f32s(self.scale, x, self.shift);
        simd.select_f32s(simd.less_than_or_equal_f32s(y, zero), zero, dy)
    }
}

/// Two quantities of each pixel.
trait Pair {
    fn at<S: Simd>(&self, simd: S, pixel: usize, part: usize) -> [S::f32s; 2];
}

/// The sums of a [`Pair`] over a plane.
struct Sums<P> {
    pixels: usize,
    pair: P,
}

impl<P: Pair> WithSimd for Sums<P> {
    type Output = [[f64; LANES]; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let mut total = [[0.0; LANES]; 2];
        for first in (0..self.pixels).step_by(RUN) {
            let last = (first + RUN).min(self.pixels);
            for part in 0..LANES / S::F32_LANES {
                let mut run = [[simd.splat_f32s(0.0); 2]; WAYS];
                let mut pixel = first;
                while pixel + WAYS <= last {
                    for (way, run) in run.iter_mut().enumerate() {
                        let value = self.pair.at(simd, pixel + way, part);
                        *run = [simd.add_f32s(run[0], value[0]), simd.add_f32s(run[1], value[1])];
                    }
                    pixel += WAYS;
                }
                for pixel in pixel..last {
                    let value = self.pair.at(simd, pixel, part);
                    run[0] = [simd.add_f32s(run[0][0], value[0]), simd.add_f32s(run[0][1], value[1])];
                }
                for (n, total) in total.iter_mut().enumerate() {
                    let sum = simd.add_f32s(simd.add_f32s(run[0][n], run[1][n]), simd.add_f32s(run[2][n], run[3][n]));
                    let mut line = Line::ZERO;
                    store::<S>(&mut line, part, sum);
                    total.iter_mut().zip(line.0).for_each(|(t, s)| *t += f64::from(s));
                }
            }
        }
        total
    }
}

/// `x - about` and its square.
struct Centred<'a> {
    plane: &'a [Line],
    about: Line,
}

impl Pair for Centred<'_> {
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, pixel: usize, part: usize) -> [S::f32s; 2] {
        let d = simd.sub_f32s(load::<S>(&self.plane[pixel], part), load::<S>(&self.about, part));
        [d, simd.mul_f32s(d, d)]
    }
}

/// The plane's values, and zero.
struct Plain<'a>(&'a [Line]);

impl Pair for Plain<'_> {
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, pixel: usize, part: usize) -> [S::f32s; 2] {
        [load::<S>(&self.0[pixel], part), simd.splat_f32s(0.0)]
    }
}

/// `dy` after the ReLU's backward pass, and its product with `x - mean`.
struct Backward<'a> {
    x: &'a [Line],
    dy: &'a [Line],
    affine: &'a Affine,
    mean: Line,
}

impl Pair for Backward<'_> {
    #[inline(always)]
    fn at<S: Simd>(&self, simd: S, pixel: usize, part: usize) -> [S::f32s; 2] {
        let x = load::<S>(&self.x[pixel], part);
        let dy = self.affine.part::<S>(part).masked(simd, x, load::<S>(&self.dy[pixel], part));
        [dy, simd.mul_f32s(dy, simd.sub_f32s(x, load::<S>(&self.mean, part)))]
    }
}

/// Mean and sum of squared deviations from it, for sixteen channels of a plane.
pub(super) type PlaneMoments = [[f64; LANES]; 2];

/// Mean and biased variance of every channel over `B × H × W`. Each plane is centred on its first pixel, so that a mean
/// far from zero costs no precision; planes are then combined (Chan, Golub and LeVeque, 1979).
pub(super) fn moments(x: &Field) -> Vec<(f32, f32)> {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let plane = |plane: &[Line]| {
        let about = plane[0];
        let [sum, squares] = Arch::new().dispatch(Sums { pixels, pair: Centred { plane, about } });
        let count = pixels as f64;
        let mean = std::array::from_fn(|i| f64::from(about.0[i]) + sum[i] / count);
        [mean, std::array::from_fn(|i| squares[i] - sum[i] * sum[i] / count)]
    };
    let planes: Vec<PlaneMoments> = x.lines.par_chunks(pixels).map(plane).collect();
    let images = x.images as f64;
    let channel = |c: usize| {
        let of = |which: usize| planes.iter().skip(c / LANES).step_by(blocks).map(move |p| p[which][c % LANES]);
        let mean = of(0).sum::<f64>() / images;
        let between: f64 = of(0).map(|m| (m - mean) * (m - mean)).sum();
        let within: f64 = of(1).sum();
        (mean as f32, (within / (images * pixels as f64) + between / images).max(0.0) as f32)
    };
    (0..x.channels).map(channel).collect()
}

/// A map of the pixels of `inputs` to `y` for one plane, with constants of its channels.
struct PlaneMap<'a, const N: usize, C> {
    inputs: [&'a [Line]; N],
    y: &'a mut [Line],
    constants: C,
}

impl WithSimd for PlaneMap<'_, 1, Affine> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [x] = self.inputs;
        for part in 0..LANES / S::F32_LANES {
            let affine = self.constants.part::<S>(part);
            for (y, x) in self.y.iter_mut().zip(x) {
                store::<S>(y, part, affine.at(simd, load::<S>(x, part)));
            }
        }
    }
}

impl WithSimd for PlaneMap<'_, 2, Affine> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [x, dy] = self.inputs;
        for part in 0..LANES / S::F32_LANES {
            let affine = self.constants.part::<S>(part);
            for ((dx, x), dy) in self.y.iter_mut().zip(x).zip(dy) {
                let dy = affine.masked(simd, load::<S>(x, part), load::<S>(dy, part));
                store::<S>(dx, part, simd.mul_f32s(affine.scale, dy));
            }
        }
    }
}

/// `dx = scale · dy + slope · (x - mean) + offset`.
#[derive(Clone, Copy)]
struct NormLine {
    affine: Affine,
    mean: Line,
    slope: Line,
    offset: Line,
}

impl WithSimd for PlaneMap<'_, 2, NormLine> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [x, dy] = self.inputs;
        for part in 0..LANES / S::F32_LANES {
            let affine = self.constants.affine.part::<S>(part);
            let mean = load::<S>(&self.constants.mean, part);
            let (slope, offset) = (load::<S>(&self.constants.slope, part), load::<S>(&self.constants.offset, part));
            for ((dx, x), dy) in self.y.iter_mut().zip(x).zip(dy) {
                let x = load::<S>(x, part);
                let dy = affine.masked(simd, x, load::<S>(dy, part));
                let line = simd.mul_add_e_f32s(slope, simd.sub_f32s(x, mean), offset);
                store::<S>(dx, part, simd.mul_add_e_f32s(affine.scale, dy, line));
            }
        }
    }
}

/// `scale · x + shift` for each channel, then the ReLU if there is one.
pub(super) fn affine(x: &Field, per_block: &[Affine], y: &mut Field) {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let work = y.lines.par_chunks_mut(pixels).zip(x.lines.par_chunks(pixels)).enumerate();
    work.for_each(|(at, (y, x))| Arch::new().dispatch(PlaneMap { inputs: [x], y, constants: per_block[at % blocks] }));
}

/// Backward of [`affine`] with a fixed scale and shift: `dx = scale · dy` where the ReLU is active, 0 elsewhere.
pub(super) fn affine_backward(x: &Field, dy: &Field, per_block: &[Affine], dx: &mut Field) {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let work = dx.lines.par_chunks_mut(pixels).zip(x.lines.par_chunks(pixels)).zip(dy.lines.par_chunks(pixels));
    work.enumerate().for_each(|(at, ((y, x), dy))| {
        Arch::new().dispatch(PlaneMap { inputs: [x, dy], y, constants: per_block[at % blocks] });
    });
}

/// Gradients of the parameters of batch norm.
#[derive(Debug)]
pub(super) struct NormGradients {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Backward of batch norm with batch statistics. With `x̂ = (x - mean) · rstd` and sums over the `m` values of
/// `B × H × W`: `db = Σ dy`, `dw = Σ dy x̂`, `dx = scale · (dy - db / m - x̂ dw / m)`.
pub(super) fn norm_backward(
    x: &Field,
    dy: &Field,
    per_block: &[Affine],
    moments: &[(f32, f32)],
    epsilon: f32,
    dx: &mut Field,
) -> NormGradients {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let count = (x.images * pixels) as f64;
    let means = Line::fill(moments.iter().map(|m| m.0), blocks);
    let planes = x.lines.par_chunks(pixels).zip(dy.lines.par_chunks(pixels)).enumerate();
    let planes: Vec<[[f64; LANES]; 2]> = planes
        .map(|(at, (x, dy))| {
            let pair = Backward { x, dy, affine: &per_block[at % blocks], mean: means[at % blocks] };
            Arch::new().dispatch(Sums { pixels, pair })
        })
        .collect();
    let sum = |c: usize, which: usize| {
        planes.iter().skip(c / LANES).step_by(blocks).map(|p| p[which][c % LANES]).sum::<f64>()
    };
    let gradients = (0..x.channels).map(|c| {
        let rstd = 1.0 / f64::from(moments[c].1 + epsilon).sqrt();
        (sum(c, 1) * rstd, sum(c, 0), rstd)
    });
    let gradients: Vec<(f64, f64, f64)> = gradients.collect();
    // dx = scale · dy + slope · (x - mean) + offset.
    let scale = |c: usize| f64::from(per_block[c / LANES].scale.0[c % LANES]);
    let per_channel = || gradients.iter().enumerate();
    let slopes = Line::fill(per_channel().map(|(c, (dw, _, rstd))| (-scale(c) * dw * rstd / count) as f32), blocks);
    let offsets = Line::fill(per_channel().map(|(c, (_, db, _))| (-scale(c) * db / count) as f32), blocks);
    let work = dx.lines.par_chunks_mut(pixels).zip(x.lines.par_chunks(pixels)).zip(dy.lines.par_chunks(pixels));
    work.enumerate().for_each(|(at, ((y, x), dy))| {
        let block = at % blocks;
        let constants =
            NormLine { affine: per_block[block], mean: means[block], slope: slopes[block], offset: offsets[block] };
        Arch::new().dispatch(PlaneMap { inputs: [x, dy], y, constants });
    });
    NormGradients {
        weight: gradients.iter().map(|g| g.0 as f32).collect(),
        bias: gradients.iter().map(|g| g.1 as f32).collect(),
    }
}

/// Max pooling of planes of `height × width` with non-overlapping windows of `size × size`.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxPool {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) size: usize,
}

impl MaxPool {
    const fn out(&self) -> (usize, usize) {
        (self.height / self.size, self.width / self.size)
    }

    /// Largest value of each window.
    pub(super) fn forward(self, x: &[Line], y: &mut [Line]) {
        let (oh, ow) = self.out();
        let work = y.par_chunks_mut(oh * ow).zip(x.par_chunks(self.height * self.width));
        work.for_each(|(y, x)| Arch::new().dispatch(Largest { pool: self, x, y }));
    }

    /// Routes each window's gradient to its largest value: the first if several are equal; NaN takes precedence over
    /// all numbers, as in PyTorch.
    pub(super) fn backward(self, x: &[Line], dy: &[Line], dx: &mut [Line]) {
        let (oh, ow) = self.out();
        let plane = self.height * self.width;
        let work = dx.par_chunks_mut(plane).zip(x.par_chunks(plane)).zip(dy.par_chunks(oh * ow));
        work.for_each(|((dx, x), dy)| Arch::new().dispatch(LargestBackward { pool: self, x, dy, dx }));
    }

    /// Index of the first pixel of the window of output `(oy, ox)`.
    const fn corner(self, oy: usize, ox: usize) -> usize {
        oy * self.size * self.width + ox * self.size
    }
}

/// The largest value of each window of a plane.
struct Largest<'a> {
    pool: MaxPool,
    x: &'a [Line],
    y: &'a mut [Line],
}

/// Whether `value` replaces `best`: it is larger, or one of the two is NaN.
#[inline(always)]
fn better<S: Simd>(simd: S, value: S::f32s, best: S::f32s) -> S::m32s {
    simd.not_m32s(simd.less_than_or_equal_f32s(value, best))
}

impl WithSimd for Largest<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (oh, ow) = self.pool.out();
        for oy in 0..oh {
            for ox in 0..ow {
                let corner = self.pool.corner(oy, ox);
                for part in 0..LANES / S::F32_LANES {
                    let mut best = load::<S>(&self.x[corner], part);
                    for y in 0..self.pool.size {
                        for line in &self.x[corner + y * self.pool.width..][..self.pool.size] {
                            let value = load::<S>(line, part);
                            // Once `best` is NaN, it is not replaced.
                            let kept = simd.equal_f32s(best, best);
                            let first = simd.and_m32s(kept, better(simd, value, best));
                            best = simd.select_f32s(first, value, best);
                        }
                    }
                    store::<S>(&mut self.y[oy * ow + ox], part, best);
                }
            }
        }
    }
}

struct LargestBackward<'a> {
    pool: MaxPool,
    x: &'a [Line],
    dy: &'a [Line],
    dx: &'a mut [Line],
}

impl WithSimd for LargestBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (oh, ow) = self.pool.out();
        let MaxPool { height, width, size } = self.pool;
        if oh * size < height || ow * size < width {
            self.dx.fill(Line::ZERO);
        }
        let zero = simd.splat_f32s(0.0);
        for oy in 0..oh {
            for ox in 0..ow {
                let corner = self.pool.corner(oy, ox);
                for part in 0..LANES / S::F32_LANES {
                    let mut best = load::<S>(&self.x[corner], part);
                    for y in 0..size {
                        for line in &self.x[corner + y * width..][..size] {
                            let value = load::<S>(line, part);
                            let kept = simd.equal_f32s(best, best);
                            best = simd.select_f32s(simd.and_m32s(kept, better(simd, value, best)), value, best);
                        }
                    }
                    // The part of the gradient not yet assigned: all of it until the largest value is found, then 0.
                    let mut left = load::<S>(&self.dy[oy * ow + ox], part);
                    let largest_is_nan = simd.not_m32s(simd.equal_f32s(best, best));
                    for y in 0..size {
                        for x in 0..size {
                            let at = corner + y * width + x;
                            let value = load::<S>(&self.x[at], part);
                            let value_is_nan = simd.not_m32s(simd.equal_f32s(value, value));
                            let both_nan = simd.and_m32s(largest_is_nan, value_is_nan);
                            let hit = simd.or_m32s(simd.equal_f32s(value, best), both_nan);
                            store::<S>(&mut self.dx[at], part, simd.select_f32s(hit, left, zero));
                            left = simd.select_f32s(hit, zero, left);
                        }
                    }
                }
            }
        }
    }
}

/// Mean over the pixels: `B × C`.
pub(super) fn global_pool(x: &Field) -> Vec<f32> {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let mut means = Vec::with_capacity(x.images * x.channels);
    for image in x.lines.chunks(blocks * pixels) {
        for (block, plane) in image.chunks(pixels).enumerate() {
            let [sum, _] = Arch::new().dispatch(Sums { pixels, pair: Plain(plane) });
            let left = LANES.min(x.channels - block * LANES);
            means.extend(sum[..left].iter().map(|s| (s / pixels as f64) as f32));
        }
    }
    means
}

/// Backward of [`global_pool`], from `B × C`.
pub(super) fn global_pool_backward(dy: &[f32], dx: &mut Field) {
    let (pixels, blocks, channels) = (dx.pixels(), dx.blocks(), dx.channels);
    for (image, dy) in dx.lines.chunks_mut(blocks * pixels).zip(dy.chunks(channels)) {
        let shares = Line::fill(dy.iter().map(|v| v / pixels as f32), blocks);
        image.chunks_mut(pixels).zip(shares).for_each(|(plane, share)| plane.fill(share));
    }
}
