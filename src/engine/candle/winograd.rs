//! Convolution with 3×3 kernels, stride 1 and padding 1 by Winograd's algorithm F(4×4, 3×3).
//!
//! `y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A` computes 4×4 outputs from a 6×6 tile of the input with 36 multiplications instead
//! of 144. The sum over channels is taken between the transforms, as 36 matrix products. The interpolation points are
//! 0, ±1/√2, ±√2 and ∞: with points whose products are 1 the entries stay small, and the error in single precision is
//! half that of the integer points (Barabasz et al., arXiv 1803.10986; ncnn uses the same).
//!
//! The gradient with respect to the input is the same convolution of `dy` with the kernel rotated by 180° and its
//! channels exchanged, so it uses the same code with weights packed for it. (Rotating the kernel only permutes and
//! scales the 36 matrices, but exchanging the channels transposes them, and the product needs contiguous columns.)
//!
//! A NaN spreads over the tiles that read it, at most six pixels farther than in a direct convolution.

use std::cell::Cell;
use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::field::{LANES, Line, blocks};
use super::kernels::{load, store};
use super::product::{Blocked, multiply};

/// Number of products per tile.
const POINTS: usize = 36;
/// Outputs and inputs of a tile in each direction.
const OUT: usize = 4;
const IN: usize = 6;

/// 1/√2 and √2.
const A: f32 = std::f32::consts::FRAC_1_SQRT_2;
const B: f32 = std::f32::consts::SQRT_2;

/// Largest weights, in bytes, for which each block of tiles computes all its products at once. Larger weights are read
/// only once, by splitting the products instead of the tiles.
const FUSED_WEIGHTS: usize = 1 << 20;
/// Target size in bytes of the transformed input of a block of tiles: half of a typical L2 cache.
const FUSED_INPUT: usize = 384 << 10;
/// Number of tiles whose products are computed together if the weights are large.
const STAGED_TILES: usize = 512;

/// `Bᵀ d`.
#[inline(always)]
fn input_1d<S: Simd>(simd: S, d: [S::f32s; IN]) -> [S::f32s; IN] {
    let splat = |v: f32| simd.splat_f32s(v);
    let fma = |a, b, c| simd.mul_add_e_f32s(a, b, c);
    let (near, far) = (fma(splat(-2.0), d[2], d[4]), fma(splat(-0.5), d[2], d[4]));
    let near_odd = simd.mul_f32s(splat(A), fma(splat(-2.0), d[1], d[3]));
    let far_odd = simd.mul_f32s(splat(B), fma(splat(-0.5), d[1], d[3]));
    [
        fma(splat(-2.5), d[2], simd.add_f32s(d[4], d[0])),
        simd.add_f32s(near, near_odd),
        simd.sub_f32s(near, near_odd),
        simd.add_f32s(far, far_odd),
        simd.sub_f32s(far, far_odd),
        fma(splat(-2.5), d[3], simd.add_f32s(d[5], d[1])),
    ]
}

/// `Aᵀ m`.
#[inline(always)]
fn output_1d<S: Simd>(simd: S, m: [S::f32s; IN]) -> [S::f32s; OUT] {
    let splat = |v: f32| simd.splat_f32s(v);
    let fma = |a, b, c| simd.mul_add_e_f32s(a, b, c);
    let (near, far) = (simd.add_f32s(m[1], m[2]), simd.add_f32s(m[3], m[4]));
    let near_odd = simd.mul_f32s(splat(A), simd.sub_f32s(m[1], m[2]));
    let far_odd = simd.mul_f32s(splat(B), simd.sub_f32s(m[3], m[4]));
    [
        simd.add_f32s(m[0], simd.add_f32s(near, far)),
        simd.add_f32s(near_odd, far_odd),
        fma(splat(0.5), near, simd.mul_f32s(splat(2.0), far)),
        fma(splat(0.5), near_odd, fma(splat(2.0), far_odd, m[5])),
    ]
}

/// `G g` for a column of a kernel. Rows belong to the points 0, 1/√2, -1/√2, √2, -√2, ∞.
#[inline(always)]
fn kernel_1d<S: Simd>(simd: S, g: [S::f32s; 3]) -> [S::f32s; IN] {
    let times = |factor: f32, v| simd.mul_f32s(simd.splat_f32s(factor), v);
    let near = times(-1.0 / 1.5, simd.add_f32s(g[0], times(0.5, g[2])));
    let far = times(1.0 / 6.0, simd.add_f32s(g[0], times(2.0, g[2])));
    let (near_odd, far_odd) = (times(A / -1.5, g[1]), times(B / 6.0, g[1]));
    [
        g[0],
        simd.add_f32s(near, near_odd),
        simd.sub_f32s(near, near_odd),
        simd.add_f32s(far, far_odd),
        simd.sub_f32s(far, far_odd),
        g[2],
    ]
}

/// `G g Gᵀ` of the kernels from one input to sixteen outputs, written to line `at` of 36 matrices.
struct KernelTransform<'a, 'b> {
    kernels: &'a [Line; 9],
    matrices: &'a mut [&'b mut [Line]],
    at: usize,
}

impl WithSimd for KernelTransform<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for part in 0..LANES / S::F32_LANES {
            let mut half = [[simd.splat_f32s(0.0); 3]; IN];
            for x in 0..3 {
                let column = [0, 3, 6].map(|y| load::<S>(&self.kernels[y + x], part));
                for (half, value) in half.iter_mut().zip(kernel_1d(simd, column)) {
                    half[x] = value;
                }
            }
            for (y, half) in half.into_iter().enumerate() {
                for (x, value) in kernel_1d(simd, half).into_iter().enumerate() {
                    store::<S>(&mut self.matrices[y * IN + x][self.at], part, value);
                }
            }
        }
    }
}

/// Transformed weights: 36 matrices `outputs/16 × inputs × 16`, `inputs` padded with zeros.
#[derive(Debug)]
pub(super) struct Weights {
    lines: Vec<Line>,
    inputs: usize,
    outputs: usize,
}

impl Weights {
    /// Weights for the forward pass, from `outputs × inputs × 3 × 3`; if `turned`, for the input gradient, where
    /// outputs and inputs are exchanged.
    pub(super) fn new(weight: &[f32], outputs: usize, inputs: usize, turned: bool) -> Self {
        let (to, from) = if turned { (inputs, outputs) } else { (outputs, inputs) };
        let (to_blocks, depth) = (blocks(to), blocks(from) * LANES);
        let mut lines = vec![Line::ZERO; POINTS * to_blocks * depth];
        let mut matrices: Vec<Vec<&mut [Line]>> = (0..to_blocks).map(|_| Vec::with_capacity(POINTS)).collect();
        for matrix in lines.chunks_mut((to_blocks * depth).max(1)) {
            matrix.chunks_mut(depth).zip(&mut matrices).for_each(|(block, list)| list.push(block));
        }
        matrices.into_par_iter().enumerate().for_each(|(block, mut matrices)| {
            for i in 0..from {
                let mut kernels = [Line::ZERO; 9];
                for (lane, o) in (block * LANES..to.min((block + 1) * LANES)).enumerate() {
                    let at = if turned { i * inputs + o } else { o * inputs + i };
                    for (tap, w) in weight[at * 9..][..9].iter().enumerate() {
                        kernels[if turned { 8 - tap } else { tap }].0[lane] = *w;
                    }
                }
                Arch::new().dispatch(KernelTransform { kernels: &kernels, matrices: &mut matrices, at: i });
            }
        });
        Self { lines, inputs: from, outputs: to }
    }

    fn matrix(&self, point: usize) -> &[Line] {
        let size = blocks(self.outputs) * self.depth();
        &self.lines[point * size..][..size]
    }

    const fn depth(&self) -> usize {
        blocks(self.inputs) * LANES
    }
}

/// The split of a plane into tiles.
#[derive(Debug, Clone, Copy)]
struct Tiling {
    height: usize,
    width: usize,
    across: usize,
    down: usize,
}

impl Tiling {
    const fn new(height: usize, width: usize) -> Self {
        Self { height, width, across: width.div_ceil(OUT), down: height.div_ceil(OUT) }
    }

    const fn tiles(&self) -> usize {
        self.across * self.down
    }
}

/// `Bᵀ d B` for tile rows `rows` of one plane; `v` has one slice per point.
struct InputTransform<'a> {
    plane: &'a [Line],
    tiling: Tiling,
    rows: Range<usize>,
    v: &'a mut [&'a mut [Line]],
}

impl WithSimd for InputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiling { height, width, across, .. } = self.tiling;
        let zero = Line::ZERO;
        let mut tile = 0;
        for row in self.rows {
            for column in 0..across {
                // Because of the padding, input pixels start one before the tile's first output.
                let pixel = |y: usize, x: usize| {
                    let (y, x) = (row * OUT + y, column * OUT + x);
                    if y == 0 || x == 0 || y > height || x > width {
                        &zero
                    } else {
                        &self.plane[(y - 1) * width + x - 1]
                    }
                };
                let mut lines = [[&zero; IN]; IN];
                for (y, lines) in lines.iter_mut().enumerate() {
                    for (x, line) in lines.iter_mut().enumerate() {
                        *line = pixel(y, x);
                    }
                }
                for part in 0..LANES / S::F32_LANES {
                    let mut half = [[simd.splat_f32s(0.0); IN]; IN];
                    for x in 0..IN {
                        let mut d = [simd.splat_f32s(0.0); IN];
                        for (d, line) in d.iter_mut().zip(&lines) {
                            *d = load::<S>(line[x], part);
                        }
                        let d = input_1d(simd, d);
                        for (half, d) in half.iter_mut().zip(d) {
                            half[x] = d;
                        }
                    }
                    for (y, half) in half.into_iter().enumerate() {
                        let d = input_1d(simd, half);
                        for (x, d) in d.into_iter().enumerate() {
                            store::<S>(&mut self.v[y * IN + x][tile], part, d);
                        }
                    }
                }
                tile += 1;
            }
        }
    }
}

/// `Aᵀ m A`, written to `plane`, the part of a plane that tile rows `rows` cover.
struct OutputTransform<'a> {
    m: &'a [&'a [Line]; POINTS],
    tiling: Tiling,
    rows: Range<usize>,
    plane: &'a mut [Line],
}

impl WithSimd for OutputTransform<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiling { height, width, across, .. } = self.tiling;
        let first = self.rows.start;
        let mut tile = 0;
        for row in self.rows {
            for column in 0..across {
                let top = row * OUT;
                let (inside_y, inside_x) = (OUT.min(height - top), OUT.min(width - column * OUT));
                let corner = (row - first) * OUT * width + column * OUT;
                for part in 0..LANES / S::F32_LANES {
                    let mut half = [[simd.splat_f32s(0.0); IN]; OUT];
                    for x in 0..IN {
                        let mut m = [simd.splat_f32s(0.0); IN];
                        for (y, m) in m.iter_mut().enumerate() {
                            *m = load::<S>(&self.m[y * IN + x][tile], part);
                        }
                        let m = output_1d(simd, m);
                        for (half, m) in half.iter_mut().zip(m) {
                            half[x] = m;
                        }
                    }
                    for (y, half) in half.into_iter().enumerate().take(inside_y) {
                        let out = output_1d(simd, half);
                        let line = &mut self.plane[corner + y * width..][..inside_x];
                        for (line, out) in line.iter_mut().zip(out) {
                            store::<S>(line, part, out);
                        }
                    }
                }
                tile += 1;
            }
        }
    }
}

/// The matrix product of one point, for all blocks of columns.
struct PointProducts<'a, 'b> {
    c: &'a mut [&'b mut [Line]],
    a: Blocked<'a>,
    b: Blocked<'a>,
    rows: usize,
    depth: usize,
}

impl WithSimd for PointProducts<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        multiply(simd, self.c, self.a, self.b, self.rows, self.depth, false);
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `work` with a scratch buffer of `len` lines with unspecified contents. Each thread keeps its buffer for the
/// next call; a nested call, from a task that the thread runs while `work` waits, allocates a new one.
pub(super) fn with_scratch<R>(len: usize, work: impl FnOnce(&mut [Line]) -> R) -> R {
    let mut scratch = SCRATCH.take();
    if scratch.len() < len {
        scratch.resize(len, Line::ZERO);
    }
    let result = work(&mut scratch[..len]);
    SCRATCH.set(scratch);
    result
}

/// Distance in lines between consecutive matrices of the 36. One more than a multiple of 64, so that the same position
/// in all of them does not map to the same cache set.
const fn spread(lines: usize) -> usize {
    lines.next_multiple_of(64) + 1
}

/// The work of one task: some tile rows of an image, or several whole images.
struct Block<'a> {
    image: usize,
    images: usize,
    rows: Range<usize>,
    /// The output slices, ordered by image, then by block of channels.
    planes: Vec<&'a mut [Line]>,
}

/// Splits the output into blocks of about `tiles` tiles.
fn cut(y: &mut [Line], tiling: Tiling, y_blocks: usize, tiles: usize) -> Vec<Block<'_>> {
    let pixels = tiling.height * tiling.width;
    let images = (tiles / tiling.tiles()).max(1);
    if tiles >= tiling.tiles() {
        let chunks = y.chunks_mut(images * y_blocks * pixels).enumerate();
        let block = |(i, chunk): (usize, &'_ mut [Line])| (i * images, chunk.len() / (y_blocks * pixels));
        return chunks
            .map(|(i, chunk)| {
                let (image, images) = block((i, &mut *chunk));
                Block { image, images, rows: 0..tiling.down, planes: chunk.chunks_mut(pixels).collect() }
            })
            .collect();
    }
    let step = (tiles / tiling.across).max(1);
    let mut found = Vec::new();
    for (image, chunk) in y.chunks_mut(y_blocks * pixels).enumerate() {
        let first = found.len();
        for start in (0..tiling.down).step_by(step) {
            let rows = start..(start + step).min(tiling.down);
            found.push(Block { image, images: 1, rows, planes: Vec::with_capacity(y_blocks) });
        }
        for plane in chunk.chunks_mut(pixels) {
            let parts = plane.chunks_mut(step * OUT * tiling.width);
            parts.zip(&mut found[first..]).for_each(|(part, block)| block.planes.push(part));
        }
    }
    found
}

/// `y = w ∗ x` for planes of `height × width`.
pub(super) fn convolve(x: &[Line], weights: &Weights, y: &mut [Line], height: usize, width: usize) {
    if x.is_empty() {
        return;
    }
    let tiling = Tiling::new(height, width);
    let bytes = size_of_val(weights.lines.as_slice());
    if bytes <= FUSED_WEIGHTS {
        let line = POINTS * size_of::<Line>() * blocks(weights.inputs);
        let tiles = (FUSED_INPUT / line).clamp(16, 64);
        let work = cut(y, tiling, blocks(weights.outputs), tiles);
        work.into_par_iter().for_each(|block| fused(x, weights, tiling, block));
    } else {
        staged(x, weights, y, tiling);
    }
}

/// All three steps (input transform, products, output transform) for one block of tiles.
fn fused(x: &[Line], weights: &Weights, tiling: Tiling, mut block: Block<'_>) {
    let arch = Arch::new();
    let pixels = tiling.height * tiling.width;
    let (in_blocks, out_blocks) = (blocks(weights.inputs), blocks(weights.outputs));
    let per_image = block.rows.len() * tiling.across;
    let tiles = block.images * per_image;
    let (v_size, m_size) = (spread(in_blocks * tiles), spread(2 * tiles));
    with_scratch(POINTS * (v_size + m_size), |scratch| {
        let (v, m) = scratch.split_at_mut(POINTS * v_size);
        for i in 0..block.images {
            for c in 0..in_blocks {
                let plane = &x[((block.image + i) * in_blocks + c) * pixels..][..pixels];
                let mut v: Vec<&mut [Line]> =
                    v.chunks_mut(v_size).map(|v| &mut v[c * tiles + i * per_image..][..per_image]).collect();
                arch.dispatch(InputTransform { plane, tiling, rows: block.rows.clone(), v: &mut v });
            }
        }
        for pair in (0..out_blocks).step_by(2) {
            let count = (out_blocks - pair).min(2);
            for (p, (v, m)) in v.chunks(v_size).zip(m.chunks_mut(m_size)).enumerate() {
                let (first, second) = m.split_at_mut(tiles);
                let mut c = [first, second];
                let depth = weights.depth();
                arch.dispatch(PointProducts {
                    c: &mut c[..count],
                    a: Blocked::new(v, tiles),
                    b: Blocked::new(&weights.matrix(p)[pair * depth..], depth),
                    rows: tiles,
                    depth: in_blocks,
                });
            }
            for i in 0..block.images {
                for c in 0..count {
                    let m: [&[Line]; POINTS] =
                        std::array::from_fn(|p| &m[p * m_size + c * tiles + i * per_image..][..per_image]);
                    let plane = &mut *block.planes[i * out_blocks + pair + c];
                    arch.dispatch(OutputTransform { m: &m, tiling, rows: block.rows.clone(), plane });
                }
            }
        }
    });
}

/// Each step for many images at once, so that large weights are read once.
fn staged(x: &[Line], weights: &Weights, y: &mut [Line], tiling: Tiling) {
    let pixels = tiling.height * tiling.width;
    let (in_blocks, out_blocks) = (blocks(weights.inputs), blocks(weights.outputs));
    let (depth, per_image) = (weights.depth(), tiling.tiles());
    let images = (STAGED_TILES / per_image).max(1);
    let work = x.chunks(images * in_blocks * pixels).zip(y.chunks_mut(images * out_blocks * pixels));
    for (x, y) in work {
        let images = x.len() / (in_blocks * pixels);
        let tiles = images * per_image;
        let (v_size, m_size) = (spread(in_blocks * tiles), out_blocks * tiles);
        with_scratch(POINTS * (v_size + m_size), |scratch| {
            let (v, m) = scratch.split_at_mut(POINTS * v_size);
            let mut by_block: Vec<Vec<&mut [Line]>> = (0..in_blocks).map(|_| Vec::with_capacity(POINTS)).collect();
            for v in v.chunks_mut(v_size) {
                v.chunks_mut(tiles).zip(&mut by_block).for_each(|(part, list)| list.push(part));
            }
            by_block.into_par_iter().enumerate().for_each(|(c, mut v)| {
                for i in 0..images {
                    let plane = &x[(i * in_blocks + c) * pixels..][..pixels];
                    let mut v: Vec<&mut [Line]> = v.iter_mut().map(|v| &mut v[i * per_image..][..per_image]).collect();
                    Arch::new().dispatch(InputTransform { plane, tiling, rows: 0..tiling.down, v: &mut v });
                }
            });
            let v = &*v;
            m.par_chunks_mut(m_size).enumerate().for_each(|(p, m)| {
                let mut c: Vec<&mut [Line]> = m.chunks_mut(tiles).collect();
                Arch::new().dispatch(PointProducts {
                    c: &mut c,
                    a: Blocked::new(&v[p * v_size..][..v_size], tiles),
                    b: Blocked::new(weights.matrix(p), depth),
                    rows: tiles,
                    depth: in_blocks,
                });
            });
            let m = &*m;
            let planes = y.par_chunks_mut(pixels).enumerate();
            planes.with_min_len(4).for_each(|(at, plane)| {
                let (i, c) = (at / out_blocks, at % out_blocks);
                let m: [&[Line]; POINTS] =
                    std::array::from_fn(|p| &m[p * m_size + c * tiles + i * per_image..][..per_image]);
                Arch::new().dispatch(OutputTransform { m: &m, tiling, rows: 0..tiling.down, plane });
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pulp::Scalar;

    use super::*;
    use crate::engine::candle::conv::ConvShape;
    use crate::engine::candle::field::{BufferPool, Field};
    use crate::rng::{Purpose, Stream};

    /// The finite interpolation points.
    fn points() -> [f64; 5] {
        let (a, b) = (0.5_f64.sqrt(), 2_f64.sqrt());
        [0.0, a, -a, b, -b]
    }

    /// Columns of a linear map: its images of the unit vectors.
    fn columns<const I: usize, const O: usize>(map: impl Fn([f32; I]) -> [f32; O]) -> [[f64; O]; I] {
        std::array::from_fn(|i| map(std::array::from_fn(|j| f32::from(u8::from(i == j)))).map(f64::from))
    }

    #[test]
    fn the_matrices_are_those_of_toom_and_cook() {
        let points = points();
        let (bt, at, g) = (
            columns(|d| input_1d(Scalar::new(), d)),
            columns(|m| output_1d(Scalar::new(), m)),
            columns(|g| kernel_1d(Scalar::new(), g)),
        );
        for (i, p) in points.iter().enumerate() {
            let others = || points.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, q)| *q);
            // Coefficients of the product of (x - q) over the other points.
            let mut polynomial = vec![1.0];
            for q in others() {
                let mut next = vec![0.0; polynomial.len() + 1];
                for (power, c) in polynomial.iter().enumerate() {
                    next[power + 1] += c;
                    next[power] -= q * c;
                }
                polynomial = next;
            }
            for (power, c) in polynomial.iter().enumerate() {
                assert!((bt[power][i] - c).abs() < 1e-6, "point {i}, power {power}: {} instead of {c}", bt[power][i]);
            }
            let scale: f64 = others().map(|q| p - q).product();
            for (power, g) in g.iter().enumerate() {
                assert!((g[i] - p.powi(power as i32) / scale).abs() < 1e-6);
            }
            for (power, found) in at[i].iter().enumerate() {
                assert!((found - p.powi(power as i32)).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn one_dimension_is_a_convolution() {
        let (bt, at, g) = (
            columns(|d| input_1d(Scalar::new(), d)),
            columns(|m| output_1d(Scalar::new(), m)),
            columns(|g| kernel_1d(Scalar::new(), g)),
        );
        for out in 0..OUT {
            for (tap, g) in g.iter().enumerate() {
                for (input, bt) in bt.iter().enumerate() {
                    let found: f64 = at.iter().zip(g).zip(bt).map(|((at, g), bt)| at[out] * g * bt).sum();
                    let expected = f64::from(u8::from(input == out + tap));
                    assert!((found - expected).abs() < 1e-6, "output {out}, tap {tap}, input {input}: {found}");
                }
            }
        }
    }

    fn random(len: usize, sample: u32) -> Vec<f32> {
        let stream = Stream::new(3, Purpose::Test, 0, sample);
        (0..len).map(|i| stream.normal(i as u32)).collect()
    }

    /// Convolution in double precision, directly from the definition.
    fn direct(x: &[f32], w: &[f32], [n, inputs, outputs, height, width]: [usize; 5]) -> Vec<f64> {
        let mut y = vec![0.0; n * outputs * height * width];
        for (at, y) in y.iter_mut().enumerate() {
            let (i, o) = (at / (outputs * height * width), at / (height * width) % outputs);
            let (oy, ox) = (at / width % height, at % width);
            for c in 0..inputs {
                for ky in (0..3).filter(|ky| (1..=height).contains(&(oy + ky))) {
                    for kx in (0..3).filter(|kx| (1..=width).contains(&(ox + kx))) {
                        let pixel = x[((i * inputs + c) * height + oy + ky - 1) * width + ox + kx - 1];
                        *y += f64::from(pixel) * f64::from(w[((o * inputs + c) * 3 + ky) * 3 + kx]);
                    }
                }
            }
        }
        y
    }

    fn difference(a: &[f32], b: &[f64]) -> f64 {
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - b)) / norm(&mut b.iter().copied())
    }

    /// Runs the convolution with all weights read by each block of tiles, or only once.
    fn run(x: &[f32], w: &[f32], dims: [usize; 5], turned: bool, once: bool) -> Vec<f32> {
        let [n, inputs, outputs, height, width] = dims;
        let weights =
            if turned { Weights::new(w, inputs, outputs, true) } else { Weights::new(w, outputs, inputs, false) };
        let pool = Arc::new(BufferPool::default());
        let x = Field::from_planes(&pool, [n, inputs, height, width], x);
        let mut y = Field::new(&pool, [n, outputs, height, width]);
        if once {
            staged(&x.lines, &weights, &mut y.lines, Tiling::new(height, width));
        } else {
            let tiling = Tiling::new(height, width);
            cut(&mut y.lines, tiling, blocks(outputs), 20)
                .into_iter()
                .for_each(|b| fused(&x.lines, &weights, tiling, b));
        }
        y.to_planes()
    }

    #[test]
    fn agrees_with_the_definition() {
        let cases = [
            [2, 64, 64, 16, 16],
            [1, 20, 5, 41, 41],
            [3, 1, 20, 5, 7],
            [2, 3, 33, 1, 1],
            [5, 17, 16, 4, 4],
            [1, 16, 48, 8, 3],
            [40, 16, 16, 2, 6],
        ];
        for dims in cases {
            let [n, inputs, outputs, height, width] = dims;
            let x = random(n * inputs * height * width, 0);
            let w = random(outputs * inputs * 9, 1);
            let expected = direct(&x, &w, dims);
            for once in [false, true] {
                let found = difference(&run(&x, &w, dims, false, once), &expected);
                assert!(found < 2e-6, "{dims:?}, weights read once {once}: {found:e}");
            }
        }
    }

    /// The gradient is the convolution with the kernel rotated by 180° and its channels exchanged.
    #[test]
    fn the_turned_kernel_gives_the_input_gradient() {
        let (n, inputs, outputs, height, width) = (2, 20, 35, 9, 6);
        let (w, dy) = (random(outputs * inputs * 9, 1), random(n * outputs * height * width, 2));
        let mut turned = vec![0.0; w.len()];
        for o in 0..outputs {
            for i in 0..inputs {
                for tap in 0..9 {
                    turned[(i * outputs + o) * 9 + tap] = w[(o * inputs + i) * 9 + 8 - tap];
                }
            }
        }
        let dims = [n, outputs, inputs, height, width];
        let expected = direct(&dy, &turned, dims);
        for once in [false, true] {
            let found = difference(&run(&dy, &w, dims, true, once), &expected);
            assert!(found < 2e-6, "{found:e}");
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (n, inputs, outputs, size) = (6, 128, 160, 8);
        let shape = ConvShape {
            in_channels: inputs,
            height: size,
            width: size,
            out_channels: outputs,
            out_height: size,
            out_width: size,
            kernel: 3,
            stride: 1,
            padding: 1,
        };
        let weights = shape.pack(&random(outputs * inputs * 9, 1));
        let pool = Arc::new(BufferPool::default());
        let x = Field::from_planes(&pool, [n, inputs, size, size], &random(n * inputs * size * size, 0));
        let bits = |threads| {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut y = Field::new(&pool, [n, outputs, size, size]);
            threads.install(|| shape.forward(&x, &weights, &mut y));
            y.to_planes().into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        assert_eq!(bits(1), bits(3));
    }

    #[test]
    fn nan_arrives_where_it_belongs() {
        let dims = [1, 16, 16, 9, 9];
        let mut x = random(16 * 81, 0);
        x[4 * 9 + 4] = f32::NAN;
        for once in [false, true] {
            let y = run(&x, &random(16 * 16 * 9, 1), dims, false, once);
            for plane in y.chunks(81) {
                assert!((3..=5).all(|oy| (3..=5).all(|ox| plane[oy * 9 + ox].is_nan())));
            }
            assert!(y.iter().any(|v| v.is_finite()));
        }
    }
}
