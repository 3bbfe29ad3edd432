//! Elementwise operations.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

gpu_struct! {
    struct PointwiseParams for "add.wgsl", "relu.wgsl", "relu_backward.wgsl" {
        quads: u32,
    }
}

/// `sum = a + b` over `quads` quads.
pub(in crate::engine::wgsl) fn add(quads: u64, a: Slice, b: Slice, sum: Slice) -> Dispatch {
    let work = Work { flops: 4 * quads, bytes: 48 * quads };
    let params = PointwiseParams { quads: quads as u32 };
    Dispatch::new(Kernel::plain("add.wgsl"), params, &[a, b, sum], grid(quads.div_ceil(256)), work)
}

/// `y = max(x, 0)` over `quads` quads.
pub(in crate::engine::wgsl) fn relu(quads: u64, x: Slice, y: Slice) -> Dispatch {
    let work = Work { flops: 4 * quads, bytes: 32 * quads };
    let params = PointwiseParams { quads: quads as u32 };
    Dispatch::new(Kernel::plain("relu.wgsl"), params, &[x, y], grid(quads.div_ceil(256)), work)
}

/// `dx = dy` where the ReLU's output `y` is above zero, over `quads` quads.
pub(in crate::engine::wgsl) fn relu_backward(quads: u64, y: Slice, dy: Slice, dx: Slice) -> Dispatch {
    let work = Work { flops: 4 * quads, bytes: 48 * quads };
    let params = PointwiseParams { quads: quads as u32 };
    Dispatch::new(Kernel::plain("relu_backward.wgsl"), params, &[y, dy, dx], grid(quads.div_ceil(256)), work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![PointwiseParams::LAYOUT]
}

/// Every kernel that the functions of this file use.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    ["add.wgsl", "relu.wgsl", "relu_backward.wgsl"].map(Kernel::plain).to_vec()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::wgsl::harness::{Harness, random};
    use crate::engine::wgsl::kernel::padded;

    /// The same work in a grid with rows of three workgroups and more workgroups than needed, like a grid that is too
    /// long for one row.
    pub(in crate::engine::wgsl::kernels) fn folded(mut dispatch: Dispatch) -> Dispatch {
        let groups: u32 = dispatch.grid.iter().product();
        dispatch.grid = [3, groups.div_ceil(3) + 1, 1];
        dispatch
    }

    /// Asserts that the padding channels are zero in rows of `channels`.
    pub(in crate::engine::wgsl::kernels) fn assert_padding(values: &[f32], channels: usize) {
        for (row, values) in values.chunks(padded(channels)).enumerate() {
            assert!(values[channels..].iter().all(|v| *v == 0.0), "row {row} of {channels} channels: {values:?}");
        }
    }

    #[test]
    fn add_matches_its_twin() {
        for mut h in Harness::both() {
            for quads in [1, 255, 256, 257, 41 * 41 * 5] {
                let (a, b) = (random(4 * quads, 0), random(4 * quads, 1));
                let (sa, sb, sum) = (h.input(&a), h.input(&b), h.output(4 * quads));
                h.run(&[add(quads as u64, sa, sb, sum)]);
                let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
                h.expect("add", sum, &expected, 0.0);
            }
        }
    }

    #[test]
    fn relu_and_its_backward_match_their_twins() {
        for mut h in Harness::both() {
            for quads in [1, 257, 41 * 41 * 5] {
                let (mut x, dy) = (random(4 * quads, 2), random(4 * quads, 3));
                x[..4].copy_from_slice(&[0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE]);
                let (sx, sdy) = (h.input(&x), h.input(&dy));
                let (y, dx) = (h.output(4 * quads), h.output(4 * quads));
                let n = quads as u64;
                h.run(&[folded(relu(n, sx, y)), folded(relu_backward(n, y, sdy, dx))]);
                let expected: Vec<f32> = x.iter().map(|x| if *x < 0.0 { 0.0 } else { *x }).collect();
                h.expect("relu", y, &expected, 0.0);
                let expected: Vec<f32> = x.iter().zip(&dy).map(|(x, dy)| if *x > 0.0 { *dy } else { 0.0 }).collect();
                h.expect("relu_backward", dx, &expected, 0.0);
            }
        }
    }

    #[test]
    fn relu_lets_nan_through() {
        for mut h in Harness::both() {
            let bad = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
            let (x, dy) = (h.input(&bad), h.input(&[1.0f32, 2.0, 3.0, 4.0]));
            let (y, dx, poisoned) = (h.output(4), h.output(4), h.output(4));
            h.run(&[relu(1, x, y), relu_backward(1, y, dy, dx), relu_backward(1, dy, x, poisoned)]);
            for (i, found) in [h.read::<f32>(y), h.read(poisoned)].into_iter().enumerate() {
                assert!(found[0].is_nan() && found[1].is_nan() && found[2] == f32::INFINITY, "{found:?}");
                assert_eq!(found[3], [0.0, f32::NEG_INFINITY][i]);
            }
            assert_eq!(h.read::<f32>(dx), [1.0, 2.0, 3.0, 0.0]);
        }
    }

    #[test]
    fn the_gradient_of_relu_matches_finite_differences() {
        const STEP: f64 = 1e-3;
        let relu64 = |x: f64| if x < 0.0 { 0.0 } else { x };
        for mut h in Harness::both() {
            // Away from the kink.
            let x: Vec<f32> = random(64, 4).iter().map(|x| x + 0.1 * x.signum()).collect();
            let dy = random(64, 5);
            let (sx, sdy, y, dx) = (h.input(&x), h.input(&dy), h.output(64), h.output(64));
            h.run(&[relu(16, sx, y), relu_backward(16, y, sdy, dx)]);
            for ((found, x), dy) in h.read::<f32>(dx).iter().zip(&x).zip(&dy) {
                let x = f64::from(*x);
                let slope = f64::from(*dy) * (relu64(x + STEP) - relu64(x - STEP)) / (2.0 * STEP);
                assert!((f64::from(*found) - slope).abs() < 1e-12, "at {x}: {found}, slope {slope}");
            }
        }
    }
}
