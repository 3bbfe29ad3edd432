//! Batch norm, pooling and elementwise operations on the CPU, each in one pass over memory on all cores.
//!
//! Written out by hand because the same operations put together from tensor operations read and write every activation
//! several times, on one core. [`super::portable`] is their twin in tensor operations, for other devices and for tests.
//!
//! Sums over pixels run in single precision over at most [`RUN`] pixels, and from there in double precision, plane after
//! plane: the same bits whatever the number of threads.

use pulp::Arch;
use rayon::prelude::*;

use super::field::{Field, LANES, Line};

/// Lines a thread works on at a time in elementwise operations.
const CHUNK: usize = 1 << 10;
/// Pixels that are summed in single precision.
const RUN: usize = 64;
/// Sums that run side by side, because each addition has to wait for the one before it.
const WAYS: usize = 4;

/// Runs a loop with the widest vectors that this CPU has, whatever the program was compiled for.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// `f` for each of sixteen channels.
#[inline(always)]
fn lanes(f: impl Fn(usize) -> f32) -> Line {
    let mut line = Line::ZERO;
    for (i, v) in line.0.iter_mut().enumerate() {
        *v = f(i);
    }
    line
}

/// `y = f(a)` for every value.
pub(super) fn map(a: &[Line], y: &mut [Line], f: impl Fn(f32) -> f32 + Sync) {
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).for_each(|(y, a)| {
        vectorised(|| y.iter_mut().zip(a).for_each(|(y, a)| *y = lanes(|i| f(a.0[i]))));
    });
}

/// `y = f(a, b)` for every pair of values.
pub(super) fn zip(a: &[Line], b: &[Line], y: &mut [Line], f: impl Fn(f32, f32) -> f32 + Sync) {
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK)).for_each(|((y, a), b)| {
        vectorised(|| y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = lanes(|i| f(a.0[i], b.0[i]))));
    });
}

/// `y += a`.
pub(super) fn add_to(y: &mut [Line], a: &[Line]) {
    y.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).for_each(|(y, a)| {
        vectorised(|| y.iter_mut().zip(a).for_each(|(y, a)| y.0.iter_mut().zip(a.0).for_each(|(y, a)| *y += a)));
    });
}

/// `max(x, 0)` that lets NaN through, as PyTorch does. `f32::max` would turn it into 0, and an overflow inside the network
/// into logits that look sound.
#[inline(always)]
pub(super) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// What batch norm multiplies with and adds in sixteen channels: `y = scale · x + shift`. Zero in channels that fill up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) scale: Line,
    pub(super) shift: Line,
}

impl Affine {
    #[inline(always)]
    fn at(&self, x: &Line, i: usize) -> f32 {
        self.scale.0[i] * x.0[i] + self.shift.0[i]
    }

    /// `dy` where the ReLU behind this let `x` through.
    #[inline(always)]
    fn masked(&self, x: &Line, dy: &Line, relu: bool) -> Line {
        lanes(|i| if relu && self.at(x, i) <= 0.0 { 0.0 } else { dy.0[i] })
    }
}

/// Sums over a plane of `N` quantities of each pixel.
#[inline(always)]
fn sums<const N: usize>(pixels: usize, f: impl Fn(usize) -> [Line; N]) -> [[f64; LANES]; N] {
    let mut total = [[0.0; LANES]; N];
    for first in (0..pixels).step_by(RUN) {
        let last = (first + RUN).min(pixels);
        let mut run = [[Line::ZERO; N]; WAYS];
        let mut pixel = first;
        while pixel + WAYS <= last {
            for (way, run) in run.iter_mut().enumerate() {
                for (sum, value) in run.iter_mut().zip(f(pixel + way)) {
                    *sum = lanes(|i| sum.0[i] + value.0[i]);
                }
            }
            pixel += WAYS;
        }
        while pixel < last {
            for (sum, value) in run[0].iter_mut().zip(f(pixel)) {
                *sum = lanes(|i| sum.0[i] + value.0[i]);
            }
            pixel += 1;
        }
        for (n, total) in total.iter_mut().enumerate() {
            for (i, total) in total.iter_mut().enumerate() {
                *total += f64::from((run[0][n].0[i] + run[1][n].0[i]) + (run[2][n].0[i] + run[3][n].0[i]));
            }
        }
    }
    total
}

/// Mean and biased variance of every channel over `B × H × W`: of each plane about its first pixel, so that a mean far from
/// zero costs no digits, then of all planes together (Chan, Golub and LeVeque, 1979).
pub(super) fn moments(x: &Field) -> Vec<(f32, f32)> {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let planes: Vec<[[f64; LANES]; 2]> = x
        .lines
        .par_chunks(pixels)
        .map(|plane| {
            vectorised(|| {
                let about = plane[0];
                let [sum, squares] = sums(pixels, |p| {
                    let d = lanes(|i| plane[p].0[i] - about.0[i]);
                    [d, lanes(|i| d.0[i] * d.0[i])]
                });
                let count = pixels as f64;
                let mean = std::array::from_fn(|i| f64::from(about.0[i]) + sum[i] / count);
                let squares = std::array::from_fn(|i| squares[i] - sum[i] * sum[i] / count);
                [mean, squares]
            })
        })
        .collect();
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

/// `scale · x + shift` for each channel, then ReLU if asked for.
pub(super) fn affine(x: &Field, per_block: &[Affine], y: &mut Field, relu: bool) {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let work = y.lines.par_chunks_mut(pixels).zip(x.lines.par_chunks(pixels)).enumerate();
    work.for_each(|(at, (y, x))| {
        let a = per_block[at % blocks];
        vectorised(|| {
            if relu {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = lanes(|i| self::relu(a.at(x, i))));
            } else {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = lanes(|i| a.at(x, i)));
            }
        });
    });
}

/// Backward of [`affine`] with a fixed scale and shift: `dx = scale · dy`, where the ReLU let the value through.
pub(super) fn affine_backward(x: &Field, dy: &Field, per_block: &[Affine], dx: &mut Field, relu: bool) {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let work = dx.lines.par_chunks_mut(pixels).zip(x.lines.par_chunks(pixels)).zip(dy.lines.par_chunks(pixels));
    work.enumerate().for_each(|(at, ((dx, x), dy))| {
        let a = per_block[at % blocks];
        vectorised(|| {
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                let dy = a.masked(x, dy, relu);
                *dx = lanes(|i| a.scale.0[i] * dy.0[i]);
            }
        });
    });
}

/// What the backward pass of batch norm gives for its parameters.
#[derive(Debug)]
pub(super) struct NormGradients {
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Backward of batch norm with statistics of the batch. With `x̂ = (x - mean) · rstd` and sums over `B × H × W` of `m`
/// values: `db = Σ dy`, `dw = Σ dy x̂`, `dx = scale · (dy - db / m - x̂ dw / m)`.
pub(super) fn norm_backward(
    x: &Field,
    dy: &Field,
    per_block: &[Affine],
    moments: &[(f32, f32)],
    epsilon: f32,
    dx: &mut Field,
    relu: bool,
) -> NormGradients {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let count = (x.images * pixels) as f64;
    let means = Line::fill(moments.iter().map(|m| m.0), blocks);
    let planes = x.lines.par_chunks(pixels).zip(dy.lines.par_chunks(pixels)).enumerate();
    let planes: Vec<[[f64; LANES]; 2]> = planes
        .map(|(at, (x, dy))| {
            let (a, mean) = (per_block[at % blocks], means[at % blocks]);
            vectorised(|| {
                sums(pixels, |p| {
                    let dy = a.masked(&x[p], &dy[p], relu);
                    [dy, lanes(|i| dy.0[i] * (x[p].0[i] - mean.0[i]))]
                })
            })
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
    work.enumerate().for_each(|(at, ((dx, x), dy))| {
        let block = at % blocks;
        let (a, mean, slope, offset) = (per_block[block], means[block], slopes[block], offsets[block]);
        vectorised(|| {
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                let dy = a.masked(x, dy, relu);
                *dx = lanes(|i| a.scale.0[i] * dy.0[i] + (slope.0[i] * (x.0[i] - mean.0[i]) + offset.0[i]));
            }
        });
    });
    NormGradients {
        weight: gradients.iter().map(|g| g.0 as f32).collect(),
        bias: gradients.iter().map(|g| g.1 as f32).collect(),
    }
}

/// Planes of `height × width` and windows of `size × size` that do not overlap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pool {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) size: usize,
}

impl Pool {
    const fn out(&self) -> (usize, usize) {
        (self.height / self.size, self.width / self.size)
    }

    /// Pixels of a window.
    fn window(self, oy: usize, ox: usize) -> impl Iterator<Item = usize> {
        let rows = oy * self.size..(oy + 1) * self.size;
        rows.flat_map(move |y| (ox * self.size..(ox + 1) * self.size).map(move |x| y * self.width + x))
    }

    /// A window's largest values and where they are; the first of equals, and NaN before all others, as in PyTorch.
    #[inline(always)]
    fn largest(self, plane: &[Line], oy: usize, ox: usize) -> (Line, [u32; LANES]) {
        let mut best = Line([f32::NEG_INFINITY; LANES]);
        let mut place = [(oy * self.size * self.width + ox * self.size) as u32; LANES];
        for at in self.window(oy, ox) {
            for ((best, place), value) in best.0.iter_mut().zip(&mut place).zip(plane[at].0) {
                let better = value > *best || value.is_nan();
                *place = if better { at as u32 } else { *place };
                *best = if better { value } else { *best };
            }
        }
        (best, place)
    }

    /// Largest value of each window.
    pub(super) fn forward(self, x: &[Line], y: &mut [Line]) {
        let (oh, ow) = self.out();
        y.par_chunks_mut(oh * ow).zip(x.par_chunks(self.height * self.width)).for_each(|(y, plane)| {
            vectorised(|| {
                for (oy, row) in y.chunks_mut(ow).enumerate() {
                    row.iter_mut().enumerate().for_each(|(ox, y)| *y = self.largest(plane, oy, ox).0);
                }
            });
        });
    }

    /// Gives each window's gradient to its largest value.
    pub(super) fn backward(self, x: &[Line], dy: &[Line], dx: &mut [Line]) {
        let (oh, ow) = self.out();
        let plane = self.height * self.width;
        let work = dx.par_chunks_mut(plane).zip(x.par_chunks(plane)).zip(dy.par_chunks(oh * ow));
        work.for_each(|((dx, plane), dy)| {
            vectorised(|| {
                if oh * self.size < self.height || ow * self.size < self.width {
                    dx.fill(Line::ZERO);
                }
                for (oy, row) in dy.chunks(ow).enumerate() {
                    for (ox, dy) in row.iter().enumerate() {
                        let (_, place) = self.largest(plane, oy, ox);
                        for at in self.window(oy, ox) {
                            dx[at] = lanes(|i| if place[i] == at as u32 { dy.0[i] } else { 0.0 });
                        }
                    }
                }
            });
        });
    }
}

/// Mean over the pixels: `B × C`.
pub(super) fn global_pool(x: &Field) -> Vec<f32> {
    let (pixels, blocks) = (x.pixels(), x.blocks());
    let mut means = Vec::with_capacity(x.images * x.channels);
    for image in x.lines.chunks(blocks * pixels) {
        for (block, plane) in image.chunks(pixels).enumerate() {
            let [sum] = vectorised(|| sums(pixels, |p| [plane[p]]));
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
