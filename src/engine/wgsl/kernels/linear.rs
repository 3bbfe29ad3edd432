//! The linear layer at the end of a network: `y = x · weight + bias` with `x` `B × C`, `weight` `C × K`.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

gpu_struct! {
    struct LinearParams for "linear_forward.wgsl", "linear_input_gradient.wgsl" {
        count: u32,
        features: u32,
        classes: u32,
    }
}

gpu_struct! {
    struct LinearWeightParams for "linear_weight_gradient.wgsl" {
        images: u32,
        features: u32,
        classes: u32,
    }
}

fn work(images: usize, features: usize, classes: usize) -> Work {
    let (b, c, k) = (images as u64, padded(features) as u64, padded(classes) as u64);
    Work { flops: 2 * b * c * k, bytes: 4 * (b * c + c * k + b * k) }
}

/// `y = x · weight + bias`.
pub(in crate::engine::wgsl) fn forward(
    images: usize,
    features: usize,
    classes: usize,
    x: Slice,
    weight: Slice,
    bias: Slice,
    y: Slice,
) -> Dispatch {
    let count = images * quads(classes);
    let params = LinearParams { count: count as u32, features: quads(features) as u32, classes: quads(classes) as u32 };
    let grid = grid(count.div_ceil(4) as u64);
    let work = work(images, features, classes);
    Dispatch::new(Kernel::plain("linear_forward.wgsl"), params, &[x, weight, bias, y], grid, work)
}

/// `dx = dy · weightᵀ`.
pub(in crate::engine::wgsl) fn input_gradient(
    images: usize,
    features: usize,
    classes: usize,
    dy: Slice,
    weight: Slice,
    dx: Slice,
) -> Dispatch {
    let count = images * quads(features);
    let params = LinearParams { count: count as u32, features: quads(features) as u32, classes: quads(classes) as u32 };
    let grid = grid(count.div_ceil(64) as u64);
    let work = work(images, features, classes);
    Dispatch::new(Kernel::plain("linear_input_gradient.wgsl"), params, &[dy, weight, dx], grid, work)
}

/// `xᵀ · dy` and `Σ dy` over the images, in a fixed order; with `accumulate` added to the existing values.
#[allow(clippy::too_many_arguments, reason = "the inputs of one backward pass")]
pub(in crate::engine::wgsl) fn weight_gradient(
    images: usize,
    features: usize,
    classes: usize,
    accumulate: bool,
    x: Slice,
    dy: Slice,
    weight_gradient: Slice,
    bias_gradient: Slice,
) -> Dispatch {
    let params =
        LinearWeightParams { images: images as u32, features: padded(features) as u32, classes: quads(classes) as u32 };
    let quads_of_result = (padded(features) + 1) * quads(classes);
    let kernel = Kernel::new("linear_weight_gradient.wgsl", &[("ACCUMULATE", u32::from(accumulate))]);
    let bindings = [x, dy, weight_gradient, bias_gradient];
    let work = work(images, features, classes);
    Dispatch::new(kernel, params, &bindings, grid(quads_of_result.div_ceil(16) as u64), work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![LinearParams::LAYOUT, LinearWeightParams::LAYOUT]
}

/// Every kernel that the functions of this file can give.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = ["linear_forward.wgsl", "linear_input_gradient.wgsl"].map(Kernel::plain).to_vec();
    all.extend([0, 1].map(|a| Kernel::new("linear_weight_gradient.wgsl", &[("ACCUMULATE", a)])));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgsl::harness::{Harness, pad, random};
    use crate::engine::wgsl::kernels::pointwise::tests::{assert_padding, folded};

    /// Rows of `columns` values, padded to whole quads of rows and of columns.
    fn pad_matrix(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
        let mut out = pad(values, columns);
        out.resize(padded(rows) * padded(columns), 0.0);
        out
    }

    /// `a · b` for `n × m` and `m × k` matrices that are given by their elements.
    fn product(
        n: usize,
        m: usize,
        k: usize,
        a: impl Fn(usize, usize) -> f32,
        b: impl Fn(usize, usize) -> f32,
    ) -> Vec<f64> {
        let element = |i: usize| (0..m).map(|j| f64::from(a(i / k, j)) * f64::from(b(j, i % k))).sum();
        (0..n * k).map(element).collect()
    }

    fn plus(a: &[f64], b: impl Fn(usize) -> f32) -> Vec<f32> {
        a.iter().enumerate().map(|(i, a)| (a + f64::from(b(i))) as f32).collect()
    }

    const SHAPES: [(usize, usize, usize); 7] =
        [(7, 20, 10), (1, 10, 3), (7, 640, 10), (1, 1, 1), (3, 130, 100), (129, 64, 10), (2, 5, 700)];

    #[test]
    fn linear_and_its_gradients_match_their_twins() {
        let mut harnesses = Harness::both();
        for (n, c, k) in SHAPES {
            let (x, w, b, dy) = (random(n * c, 0), random(c * k, 1), random(k, 2), random(n * k, 3));
            let y = plus(&product(n, c, k, |i, j| x[i * c + j], |j, l| w[j * k + l]), |i| b[i % k]);
            let dx = plus(&product(n, k, c, |i, l| dy[i * k + l], |l, j| w[j * k + l]), |_| 0.0);
            let dw = product(c, n, k, |j, i| x[i * c + j], |i, l| dy[i * k + l]);
            let db = product(1, n, k, |_, _| 1.0, |i, l| dy[i * k + l]);
            let (old_w, old_b) = (random(c * k, 4), random(k, 5));
            for h in &mut harnesses {
                let (sx, sdy) = (h.input(&pad(&x, c)), h.input(&pad(&dy, k)));
                let (sw, sb) = (h.input(&pad_matrix(&w, c, k)), h.input(&pad(&b, k)));
                let (sy, sdx) = (h.output(n * padded(k)), h.output(n * padded(c)));
                h.run(&[folded(forward(n, c, k, sx, sw, sb, sy)), folded(input_gradient(n, c, k, sdy, sw, sdx))]);
                // Measured: 9.9e-8 and 2.6e-7; 1.9e-7 and 1.7e-7 below.
                h.expect("forward", sy, &pad(&y, k), 4e-7);
                h.expect("input_gradient", sdx, &pad(&dx, c), 1e-6);
                assert_padding(&h.read(sy), k);
                assert_padding(&h.read(sdx), c);
                for accumulate in [false, true] {
                    let (sdw, sdb) = (h.input(&pad_matrix(&old_w, c, k)), h.input(&pad(&old_b, k)));
                    h.run(&[folded(weight_gradient(n, c, k, accumulate, sx, sdy, sdw, sdb))]);
                    let old = |values: &[f32], i: usize| if accumulate { values[i] } else { 0.0 };
                    let expected = pad_matrix(&plus(&dw, |i| old(&old_w, i)), c, k);
                    h.expect("weight gradient", sdw, &expected, 7e-7);
                    h.expect("bias gradient", sdb, &pad(&plus(&db, |i| old(&old_b, i)), k), 7e-7);
                    let found: Vec<f32> = h.read(sdw);
                    assert_padding(&found, k);
                    assert!(found[c * padded(k)..].iter().all(|v| *v == 0.0));
                    assert_padding(&h.read(sdb), k);
                }
                let bits = h.read::<u32>(sy);
                h.run(&[forward(n, c, k, sx, sw, sb, sy)]);
                assert_eq!(bits, h.read::<u32>(sy));
            }
        }
    }

    #[test]
    fn gradients_match_finite_differences() {
        // The loss Σ dy · y is linear in each of the three: the step may be large.
        const STEP: f32 = 0.5;
        let (n, c, k) = (3, 6, 5);
        let (x, w, b, dy) = (random(n * c, 6), random(c * k, 7), random(k, 8), random(n * k, 9));
        let loss = |x: &[f32], w: &[f32], b: &[f32]| -> f64 {
            let y = product(n, c, k, |i, j| x[i * c + j], |j, l| w[j * k + l]);
            y.iter().enumerate().map(|(i, y)| (y + f64::from(b[i % k])) * f64::from(dy[i])).sum()
        };
        let slope = |values: &[f32], i: usize, loss: &dyn Fn(&[f32]) -> f64| {
            let (mut above, mut below) = (values.to_vec(), values.to_vec());
            above[i] += STEP;
            below[i] -= STEP;
            (loss(&above) - loss(&below)) / (f64::from(above[i]) - f64::from(below[i]))
        };
        for mut h in Harness::both() {
            let (sx, sdy, sw) = (h.input(&pad(&x, c)), h.input(&pad(&dy, k)), h.input(&pad_matrix(&w, c, k)));
            let (sdx, sdw, sdb) = (h.output(n * 8), h.output(8 * 8), h.output(8));
            h.run(&[input_gradient(n, c, k, sdy, sw, sdx), weight_gradient(n, c, k, false, sx, sdy, sdw, sdb)]);
            let check = |what: &str, found: Vec<f32>, columns: usize, slopes: Vec<f64>| {
                for (i, slope) in slopes.iter().enumerate() {
                    let found = f64::from(found[i / columns * 8 + i % columns]);
                    // Measured: 1.6e-7.
                    assert!((found - slope).abs() < 6e-7, "{what} {i}: {found}, slope {slope}");
                }
            };
            check("input", h.read(sdx), c, (0..n * c).map(|i| slope(&x, i, &|x| loss(x, &w, &b))).collect());
            check("weight", h.read(sdw), k, (0..c * k).map(|i| slope(&w, i, &|w| loss(&x, w, &b))).collect());
            check("bias", h.read(sdb), k, (0..k).map(|i| slope(&b, i, &|b| loss(&x, &w, b))).collect());
        }
    }

    #[test]
    fn nan_passes_through() {
        let (n, c, k) = (2, 5, 3);
        for mut h in Harness::both() {
            let (mut x, mut dy) = (vec![1.0f32; n * c], vec![1.0f32; n * k]);
            (x[1], dy[4]) = (f32::NAN, f32::NAN);
            let (sx, sdy) = (h.input(&pad(&x, c)), h.input(&pad(&dy, k)));
            let (sw, sb) = (h.input(&pad_matrix(&vec![1.0; c * k], c, k)), h.input(&pad(&[0.0; 3], k)));
            let (sy, sdx, sdw, sdb) = (h.output(n * 4), h.output(n * 8), h.output(8 * 4), h.output(4));
            h.run(&[
                forward(n, c, k, sx, sw, sb, sy),
                input_gradient(n, c, k, sdy, sw, sdx),
                weight_gradient(n, c, k, false, sx, sdy, sdw, sdb),
            ]);
            let nan = |slice: Slice| h.read::<f32>(slice).iter().map(|v| v.is_nan()).collect::<Vec<_>>();
            let real =
                |i: usize, columns: usize, count: usize| i % padded(columns) < columns && i / padded(columns) < count;
            assert!(nan(sy).iter().enumerate().all(|(i, nan)| !real(i, k, n) || *nan == (i < 4)));
            assert!(nan(sdx).iter().enumerate().all(|(i, nan)| !real(i, c, n) || *nan == (i >= 8)));
            let expected = |i: usize| i / 4 == 1 || i % 4 == 1;
            assert!(nan(sdw).iter().enumerate().all(|(i, nan)| !real(i, k, c) || *nan == expected(i)));
            assert_eq!(nan(sdb), [false, true, false, false]);
        }
    }
}
