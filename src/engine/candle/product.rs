//! Matrix products of lines.
//!
//! `a` is `K/16 × rows × 16`, `b` is `N/16 × K × 16`, and the product `c` is `N/16 × rows × 16`, so a convolution reads
//! the layout that the previous one writes. A tile of `c` stays in registers for the whole depth; each element of `a`
//! is broadcast to a vector and multiplied with sixteen columns of `b`. Terms are summed in order along the depth,
//! whatever the tile size.

use pulp::{Simd, WithSimd};

use super::field::{LANES, Line};

/// Blocks of lines with a fixed distance from one block to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocked<'a> {
    pub(super) lines: &'a [Line],
    pub(super) stride: usize,
}

impl<'a> Blocked<'a> {
    pub(super) const fn new(lines: &'a [Line], stride: usize) -> Self {
        Self { lines, stride }
    }

    /// Whether the slice holds `blocks` blocks of `rows` lines.
    const fn covers(&self, blocks: usize, rows: usize) -> bool {
        blocks == 0 || (blocks - 1) * self.stride + rows <= self.lines.len()
    }
}

/// A tile of `M` rows and `N` vectors of columns: `c (+)= a · b`.
struct Tile<const M: usize, const N: usize> {
    /// First of `M` consecutive lines of the first block of `a`.
    a: *const f32,
    a_stride: usize,
    /// First line of the first block of columns.
    b: *const f32,
    b_stride: usize,
    /// The same `M` lines of one or two blocks of `c`.
    c: [*mut f32; 2],
    /// Blocks of sixteen along the depth.
    depth: usize,
    add: bool,
}

impl<const M: usize, const N: usize> WithSimd for Tile<M, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // SAFETY: `multiply` has checked that the lines of all blocks are inside their slices. A vector starts at a
        // multiple of its own length within a line, so it also ends in that line.
        #[allow(unsafe_code)]
        unsafe {
            let mut sums = [[simd.splat_f32s(0.0); N]; M];
            for block in 0..self.depth {
                let a = self.a.add(block * self.a_stride * LANES);
                let b = self.b.add(block * LANES * LANES);
                for k in 0..LANES {
                    let mut columns = [simd.splat_f32s(0.0); N];
                    for (n, column) in columns.iter_mut().enumerate() {
                        let at = n * S::F32_LANES;
                        let from = b.add((at / LANES * self.b_stride + k) * LANES + at % LANES);
                        *column = from.cast::<S::f32s>().read();
                    }
                    for (m, row) in sums.iter_mut().enumerate() {
                        let value = simd.splat_f32s(*a.add(m * LANES + k));
                        for (sum, column) in row.iter_mut().zip(columns) {
                            *sum = simd.mul_add_e_f32s(value, column, *sum);
                        }
                    }
                }
            }
            write(simd, &sums, self.c, self.add);
        }
    }
}

/// Writes a tile of sums to the lines at `c`, or adds it to them.
///
/// # Safety
/// Each pointer of `c` that the columns reach must point to at least `M` lines.
#[inline(always)]
#[allow(unsafe_code)]
unsafe fn write<S: Simd, const M: usize, const N: usize>(
    simd: S,
    sums: &[[S::f32s; N]; M],
    c: [*mut f32; 2],
    add: bool,
) {
    for (m, row) in sums.iter().enumerate() {
        for (n, sum) in row.iter().enumerate() {
            let at = n * S::F32_LANES;
            // SAFETY: as above.
            unsafe {
                let to = c[at / LANES].add(m * LANES + at % LANES).cast::<S::f32s>();
                to.write(if add { simd.add_f32s(to.read(), *sum) } else { *sum });
            }
        }
    }
}

/// `c[n][row] (+)= Σ_k a[k / 16][row][k % 16] · b[n][k]`, with `depth` blocks of sixteen `k`. Each slice of `c` is one
/// block of columns.
#[inline(always)]
pub(super) fn multiply<S: Simd>(
    simd: S,
    c: &mut [&mut [Line]],
    a: Blocked<'_>,
    b: Blocked<'_>,
    rows: usize,
    depth: usize,
    add: bool,
) {
    assert!(a.covers(depth, rows) && b.covers(c.len(), depth * LANES) && c.iter().all(|c| c.len() >= rows));
    // Two blocks of columns at a time if a block is one vector.
    let (width, most) = if S::F32_LANES == LANES { (2, 12) } else { (1, 4) };
    for (pair, c) in c.chunks_mut(width).enumerate() {
        let two = c.len() == 2;
        let b_at = b.lines[pair * width * b.stride..].as_ptr().cast::<f32>();
        let mut first = 0;
        while first < rows {
            let a_at = a.lines[first..].as_ptr().cast::<f32>();
            let at = |c: &mut [Line]| c[first..].as_mut_ptr().cast::<f32>();
            let first_block = at(c[0]);
            let targets = [first_block, if two { at(c[1]) } else { first_block }];
            let height = height(rows - first, most);
            macro_rules! tile {
                ($n:literal: $($m:literal)*) => {
                    match height {
                        $($m => simd.vectorize(Tile::<$m, $n> {
                            a: a_at,
                            a_stride: a.stride,
                            b: b_at,
                            b_stride: b.stride,
                            c: targets,
                            depth,
                            add,
                        }),)*
                        _ => {}
                    }
                };
            }
            match S::F32_LANES {
                16 if two => tile!(2: 12 8 4 2 1),
                16 => tile!(1: 12 8 4 2 1),
                8 => tile!(2: 4 2 1),
                4 => tile!(4: 4 2 1),
                2 => tile!(8: 4 2 1),
                _ => tile!(16: 4 2 1),
            }
            first += height;
        }
    }
}

/// Rows of the next tile if `left` rows are left, chosen so that there are as few small tiles as possible.
const fn height(left: usize, most: usize) -> usize {
    match left {
        12 | 20.. if most >= 12 => 12,
        8.. if most >= 8 => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// A tile of the product with `a` transposed: `M` lanes of a block of `a`, summed over pixels.
struct Transposed<const M: usize, const N: usize> {
    /// The first of `M` lanes in the first line.
    a: *const f32,
    b: *const f32,
    b_stride: usize,
    c: [*mut f32; 2],
    rows: usize,
}

impl<const M: usize, const N: usize> WithSimd for Transposed<M, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // SAFETY: `multiply_transposed` has checked that all lines are inside their slices.
        #[allow(unsafe_code)]
        unsafe {
            let mut sums = [[simd.splat_f32s(0.0); N]; M];
            for row in 0..self.rows {
                let mut columns = [simd.splat_f32s(0.0); N];
                for (n, column) in columns.iter_mut().enumerate() {
                    let at = n * S::F32_LANES;
                    let from = self.b.add((at / LANES * self.b_stride + row) * LANES + at % LANES);
                    *column = from.cast::<S::f32s>().read();
                }
                for (m, sum) in sums.iter_mut().enumerate() {
                    let value = simd.splat_f32s(*self.a.add(row * LANES + m));
                    for (sum, column) in sum.iter_mut().zip(columns) {
                        *sum = simd.mul_add_e_f32s(value, column, *sum);
                    }
                }
            }
            write(simd, &sums, self.c, true);
        }
    }
}

/// `c[n][k] += Σ_row a[k / 16][row][k % 16] · b[n][row]` for `depth` blocks of sixteen `k`; blocks of columns of `c`
/// are `c_stride` lines apart.
#[inline(always)]
pub(super) fn multiply_transposed<S: Simd>(
    simd: S,
    c: &mut [Line],
    c_stride: usize,
    a: Blocked<'_>,
    b: Blocked<'_>,
    [rows, depth, columns]: [usize; 3],
) {
    assert!(a.covers(depth, rows) && b.covers(columns, rows) && c_stride >= depth * LANES);
    assert!(Blocked::new(c, c_stride).covers(columns, depth * LANES));
    let wide = S::F32_LANES == LANES;
    let step = if wide { 2 } else { 1 };
    for n in (0..columns).step_by(step) {
        let two = wide && n + 1 < columns;
        let b_at = b.lines[n * b.stride..].as_ptr().cast::<f32>();
        for block in 0..depth {
            let a_at = a.lines[block * a.stride..].as_ptr().cast::<f32>();
            let height = if wide { 8 } else { 4 };
            for lane in (0..LANES).step_by(height) {
                // SAFETY: the lanes are inside the line, and the assertions above cover the lines.
                #[allow(unsafe_code)]
                let (a, first) =
                    unsafe { (a_at.add(lane), c.as_mut_ptr().add(n * c_stride + block * LANES + lane).cast::<f32>()) };
                #[allow(unsafe_code)]
                let second = if two { unsafe { first.add(c_stride * LANES) } } else { first };
                macro_rules! run {
                    ($m:literal, $n:literal) => {
                        simd.vectorize(Transposed::<$m, $n> {
                            a,
                            b: b_at,
                            b_stride: b.stride,
                            c: [first, second],
                            rows,
                        })
                    };
                }
                match S::F32_LANES {
                    16 if two => run!(8, 2),
                    16 => run!(8, 1),
                    8 => run!(4, 2),
                    4 => run!(4, 4),
                    2 => run!(4, 8),
                    _ => run!(4, 16),
                }
            }
        }
    }
}
