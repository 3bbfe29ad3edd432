//! Batch norm, pooling and elementwise operations on the CPU, each in one pass over memory on all cores.
//!
//! Written out by hand because the same operations put together from tensor operations read and write every activation
//! several times, on one core. [`super::portable`] is their twin in tensor operations, for other devices and for tests.

use pulp::Arch;
use rayon::prelude::*;

/// Values a thread works on at a time in elementwise operations.
const CHUNK: usize = 1 << 14;
/// Planes that a thread pools at a time.
const PLANES: usize = 64;

/// Runs a loop with the widest vectors that this CPU has, whatever the program was compiled for.
#[inline(always)]
pub(super) fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// `f(a)` for every value.
pub(super) fn map(a: &[f32], f: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).for_each(|(out, a)| {
        vectorised(|| out.iter_mut().zip(a).for_each(|(out, a)| *out = f(*a)));
    });
    out
}

/// `f(a, b)` for every pair of values.
pub(super) fn zip(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![0.0; a.len()];
    out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK)).for_each(|((out, a), b)| {
        vectorised(|| out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = f(*a, *b)));
    });
    out
}

/// `max(x, 0)` that lets NaN through, as PyTorch does. `f32::max` would turn it into 0, and an overflow inside the network
/// into logits that look sound.
#[inline]
pub(super) fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

/// What batch norm multiplies with and adds in one channel: `y = scale · x + shift`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Affine {
    pub(super) scale: f32,
    pub(super) shift: f32,
}

impl Affine {
    #[inline(always)]
    fn at(self, x: f32) -> f32 {
        self.scale * x + self.shift
    }
}

/// Sum of `f(i)` over a plane in double precision, in eight lanes so that the compiler can vectorise it.
#[inline(always)]
fn lanes<const N: usize>(len: usize, f: impl Fn(usize) -> [f64; N]) -> [f64; N] {
    let mut sums = [[0.0; N]; 8];
    let whole = len / 8 * 8;
    for first in (0..whole).step_by(8) {
        for (lane, sum) in sums.iter_mut().enumerate() {
            let value = f(first + lane);
            for (s, v) in sum.iter_mut().zip(value) {
                *s += v;
            }
        }
    }
    let mut total = [0.0; N];
    for (t, n) in total.iter_mut().zip(0..N) {
        *t = sums.iter().map(|s| s[n]).sum();
    }
    for i in whole..len {
        for (t, v) in total.iter_mut().zip(f(i)) {
            *t += v;
        }
    }
    total
}

/// Mean and biased variance of every channel over `B × H × W`, from sums in double precision.
pub(super) fn moments(x: &[f32], channels: usize, pixels: usize) -> Vec<(f32, f32)> {
    let n = x.len() / (channels * pixels);
    (0..channels)
        .into_par_iter()
        .map(|c| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for i in 0..n {
                let plane = &x[(i * channels + c) * pixels..][..pixels];
                let [s, q] = vectorised(|| {
                    lanes(pixels, |j| {
                        let v = f64::from(plane[j]);
                        [v, v * v]
                    })
                });
                sum += s;
                squares += q;
            }
            let count = (n * pixels) as f64;
            let mean = sum / count;
            (mean as f32, (squares / count - mean * mean).max(0.0) as f32)
        })
        .collect()
}

/// `scale · x + shift` for each channel, then ReLU if asked for.
pub(super) fn affine(x: &[f32], per_channel: &[Affine], pixels: usize, relu: bool) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    let channels = per_channel.len();
    let work = y.par_chunks_mut(channels * pixels).zip(x.par_chunks(channels * pixels));
    work.for_each(|(y, x)| {
        vectorised(|| {
            for ((y, x), a) in y.chunks_mut(pixels).zip(x.chunks(pixels)).zip(per_channel) {
                if relu {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = self::relu(a.at(*x)));
                } else {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = a.at(*x));
                }
            }
        });
    });
    y
}

/// Backward of [`affine`] with a fixed scale and shift: `dx = scale · dy`, where the ReLU let the value through.
pub(super) fn affine_backward(x: &[f32], dy: &[f32], per_channel: &[Affine], pixels: usize, relu: bool) -> Vec<f32> {
    let mut dx = vec![0.0; x.len()];
    let channels = per_channel.len();
    let image = channels * pixels;
    dx.par_chunks_mut(image).zip(x.par_chunks(image)).zip(dy.par_chunks(image)).for_each(|((dx, x), dy)| {
        vectorised(|| {
            let planes = dx.chunks_mut(pixels).zip(x.chunks(pixels)).zip(dy.chunks(pixels));
            for (((dx, x), dy), a) in planes.zip(per_channel) {
                for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                    *dx = if relu && a.at(*x) <= 0.0 { 0.0 } else { a.scale * dy };
                }
            }
        });
    });
    dx
}

/// What the backward pass of batch norm gives.
#[derive(Debug)]
pub(super) struct NormGradients {
    pub(super) input: Vec<f32>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Vec<f32>,
}

/// Backward of batch norm with statistics of the batch. With `x̂ = (x - mean) · rstd` and sums over `B × H × W` of `m`
/// values: `db = Σ dy`, `dw = Σ dy x̂`, `dx = scale · (dy - db / m - x̂ dw / m)`.
pub(super) fn norm_backward(
    x: &[f32],
    dy: &[f32],
    per_channel: &[Affine],
    moments: &[(f32, f32)],
    epsilon: f32,
    pixels: usize,
    relu: bool,
) -> NormGradients {
    let channels = per_channel.len();
    let image = channels * pixels;
    let n = x.len() / image;
    let count = (n * pixels) as f64;
    let sums: Vec<(f64, f64)> = (0..channels)
        .into_par_iter()
        .map(|c| {
            let (a, mean) = (per_channel[c], f64::from(moments[c].0));
            let (mut sum, mut product) = (0.0, 0.0);
            for i in 0..n {
                let at = (i * channels + c) * pixels;
                let (x, dy) = (&x[at..][..pixels], &dy[at..][..pixels]);
                let [s, p] = vectorised(|| {
                    lanes(pixels, |j| {
                        let dy = if relu && a.at(x[j]) <= 0.0 { 0.0 } else { f64::from(dy[j]) };
                        [dy, dy * (f64::from(x[j]) - mean)]
                    })
                });
                sum += s;
                product += p;
            }
            (sum, product / f64::from(moments[c].1 + epsilon).sqrt())
        })
        .collect();
    // dx = scale · dy + slope · (x - mean) + offset.
    let lines: Vec<(f32, f32)> = (0..channels)
        .map(|c| {
            let ((db, dw), (_, variance)) = (sums[c], moments[c]);
            let rstd = 1.0 / f64::from(variance + epsilon).sqrt();
            let scale = f64::from(per_channel[c].scale);
            ((-scale * dw * rstd / count) as f32, (-scale * db / count) as f32)
        })
        .collect();
    let mut dx = vec![0.0; x.len()];
    dx.par_chunks_mut(image).zip(x.par_chunks(image)).zip(dy.par_chunks(image)).for_each(|((dx, x), dy)| {
        vectorised(|| {
            for (c, ((dx, x), dy)) in dx.chunks_mut(pixels).zip(x.chunks(pixels)).zip(dy.chunks(pixels)).enumerate() {
                let (a, (slope, offset), mean) = (per_channel[c], lines[c], moments[c].0);
                for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                    let dy = if relu && a.at(*x) <= 0.0 { 0.0 } else { *dy };
                    *dx = a.scale * dy + (slope * (x - mean) + offset);
                }
            }
        });
    });
    NormGradients {
        input: dx,
        weight: sums.iter().map(|s| s.1 as f32).collect(),
        bias: sums.iter().map(|s| s.0 as f32).collect(),
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

    /// Index in the plane of a window's largest value; the first of equals, and NaN before all others, as in PyTorch.
    #[inline(always)]
    fn largest(&self, plane: &[f32], oy: usize, ox: usize) -> usize {
        let mut best = oy * self.size * self.width + ox * self.size;
        for y in oy * self.size..(oy + 1) * self.size {
            for x in ox * self.size..(ox + 1) * self.size {
                let value = plane[y * self.width + x];
                if value > plane[best] || value.is_nan() {
                    best = y * self.width + x;
                }
            }
        }
        best
    }

    /// Largest value of each window.
    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let (oh, ow) = self.out();
        let mut y = vec![0.0; x.len() / (self.height * self.width) * oh * ow];
        let work = y.par_chunks_mut(oh * ow).zip(x.par_chunks(self.height * self.width)).with_min_len(PLANES);
        work.for_each(|(y, plane)| {
            for (oy, row) in y.chunks_mut(ow).enumerate() {
                row.iter_mut().enumerate().for_each(|(ox, y)| *y = plane[self.largest(plane, oy, ox)]);
            }
        });
        y
    }

    /// Gives each window's gradient to its largest value.
    pub(super) fn backward(&self, x: &[f32], dy: &[f32]) -> Vec<f32> {
        let (oh, ow) = self.out();
        let plane = self.height * self.width;
        let mut dx = vec![0.0; x.len()];
        let work = dx.par_chunks_mut(plane).zip(x.par_chunks(plane)).zip(dy.par_chunks(oh * ow));
        work.with_min_len(PLANES).for_each(|((dx, plane), dy)| {
            for (oy, row) in dy.chunks(ow).enumerate() {
                row.iter().enumerate().for_each(|(ox, dy)| dx[self.largest(plane, oy, ox)] += dy);
            }
        });
        dx
    }
}
