//! Pooling: the maximum of windows, and the mean of a feature map.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

/// Geometry of a feature map; channels without padding to quads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::wgsl) struct FeatureMap {
    pub(in crate::engine::wgsl) channels: usize,
    pub(in crate::engine::wgsl) height: usize,
    pub(in crate::engine::wgsl) width: usize,
}

impl FeatureMap {
    const fn pixels(self) -> u64 {
        self.height as u64 * self.width as u64
    }

    const fn quads(self) -> u64 {
        quads(self.channels) as u64
    }

    /// Bytes of `pixels` pixels in each of `images` images.
    const fn bytes(self, images: usize, pixels: u64) -> u64 {
        4 * images as u64 * pixels * padded(self.channels) as u64
    }
}

gpu_struct! {
    struct MaxPoolParams for "max_pool.wgsl", "max_pool_backward.wgsl" {
        count: u32,
        quads: u32,
        height: u32,
        width: u32,
        size: u32,
        down: u32,
        across: u32,
    }
}

impl MaxPoolParams {
    fn new(images: usize, map: FeatureMap, size: usize, down: usize, across: usize) -> Self {
        Self {
            count: (images * down * across * quads(map.channels)) as u32,
            quads: map.quads() as u32,
            height: map.height as u32,
            width: map.width as u32,
            size: size as u32,
            down: down as u32,
            across: across as u32,
        }
    }
}

gpu_struct! {
    struct GlobalPoolParams for "global_pool.wgsl" {
        count: u32,
        quads: u32,
        height: u32,
        width: u32,
    }
}

gpu_struct! {
    struct GlobalPoolBackwardParams for "global_pool_backward.wgsl" {
        count: u32,
        quads: u32,
        pixels: u32,
    }
}

/// The maximum of each window of `size × size`. Windows do not overlap; rows and columns that do not fill a window are
/// dropped.
pub(in crate::engine::wgsl) fn max_pool(images: usize, map: FeatureMap, size: usize, x: Slice, y: Slice) -> Dispatch {
    let (down, across) = (map.height / size, map.width / size);
    let params = MaxPoolParams::new(images, map, size, down, across);
    let windows = (down * across) as u64;
    let read = windows * (size * size) as u64;
    let work = Work { flops: map.bytes(images, read) / 4, bytes: map.bytes(images, read) + map.bytes(images, windows) };
    let grid = grid(u64::from(params.count).div_ceil(256));
    Dispatch::new(Kernel::plain("max_pool.wgsl"), params, &[x, y], grid, work)
}

/// Gives each window's gradient to its largest value (the first of equals), 0 to all others.
pub(in crate::engine::wgsl) fn max_pool_backward(
    images: usize,
    map: FeatureMap,
    size: usize,
    x: Slice,
    dy: Slice,
    dx: Slice,
) -> Dispatch {
    let params = MaxPoolParams::new(images, map, size, map.height.div_ceil(size), map.width.div_ceil(size));
    let windows = ((map.height / size) * (map.width / size)) as u64;
    let work =
        Work { flops: map.bytes(images, map.pixels()) / 4, bytes: map.bytes(images, 2 * map.pixels() + windows) };
    let grid = grid(u64::from(params.count).div_ceil(256));
    Dispatch::new(Kernel::plain("max_pool_backward.wgsl"), params, &[x, dy, dx], grid, work)
}

/// Mean over the pixels of each image: `B × C`.
pub(in crate::engine::wgsl) fn global_pool(images: usize, map: FeatureMap, x: Slice, y: Slice) -> Dispatch {
    let count = images as u64 * map.quads();
    let (height, width) = (map.height as u32, map.width as u32);
    let params = GlobalPoolParams { count: count as u32, quads: map.quads() as u32, height, width };
    let work = Work { flops: map.bytes(images, map.pixels()) / 4, bytes: map.bytes(images, map.pixels() + 1) };
    Dispatch::new(Kernel::plain("global_pool.wgsl"), params, &[x, y], grid(count.div_ceil(64)), work)
}

/// Gives each pixel its share of the gradient of the mean.
pub(in crate::engine::wgsl) fn global_pool_backward(images: usize, map: FeatureMap, dy: Slice, dx: Slice) -> Dispatch {
    let count = images as u64 * map.pixels() * map.quads();
    let params =
        GlobalPoolBackwardParams { count: count as u32, quads: map.quads() as u32, pixels: map.pixels() as u32 };
    let work = Work { flops: 4 * count, bytes: map.bytes(images, map.pixels() + 1) };
    Dispatch::new(Kernel::plain("global_pool_backward.wgsl"), params, &[dy, dx], grid(count.div_ceil(256)), work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![MaxPoolParams::LAYOUT, GlobalPoolParams::LAYOUT, GlobalPoolBackwardParams::LAYOUT]
}

/// Every kernel that the functions of this file can give.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    ["max_pool.wgsl", "max_pool_backward.wgsl", "global_pool.wgsl", "global_pool_backward.wgsl"]
        .map(Kernel::plain)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgsl::harness::{Harness, pad, random};
    use crate::engine::wgsl::kernels::pointwise::tests::{assert_padding, folded};

    const STEP: f64 = 1e-3;

    impl FeatureMap {
        fn at(self, image: usize, y: usize, x: usize, c: usize) -> usize {
            ((image * self.height + y) * self.width + x) * self.channels + c
        }

        fn len(self, images: usize) -> usize {
            images * self.height * self.width * self.channels
        }
    }

    /// For each value of the output, the index of its input value: the first of the largest, or the last NaN.
    fn largest(images: usize, map: FeatureMap, size: usize, x: &[f32]) -> Vec<usize> {
        let mut found = Vec::new();
        for image in 0..images {
            for oy in 0..map.height / size {
                for ox in 0..map.width / size {
                    for c in 0..map.channels {
                        let mut best = map.at(image, oy * size, ox * size, c);
                        for y in oy * size..(oy + 1) * size {
                            for px in ox * size..(ox + 1) * size {
                                let i = map.at(image, y, px, c);
                                if x[i] > x[best] || x[i].is_nan() {
                                    best = i;
                                }
                            }
                        }
                        found.push(best);
                    }
                }
            }
        }
        found
    }

    fn mean_twin(images: usize, map: FeatureMap, x: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0; images * map.channels];
        for image in 0..images {
            for y in 0..map.height {
                for px in 0..map.width {
                    for c in 0..map.channels {
                        sums[image * map.channels + c] += f64::from(x[map.at(image, y, px, c)]);
                    }
                }
            }
        }
        sums.into_iter().map(|s: f64| (s / map.pixels() as f64) as f32).collect()
    }

    const fn map(channels: usize, height: usize, width: usize) -> FeatureMap {
        FeatureMap { channels, height, width }
    }

    #[test]
    fn max_pool_and_its_backward_match_their_twins() {
        let cases = [
            (1, map(20, 41, 41), 2),
            (7, map(10, 41, 41), 3),
            (2, map(3, 41, 41), 41),
            (7, map(5, 2, 3), 2),
            (1, map(6, 1, 1), 1),
            (3, map(64, 8, 8), 2),
        ];
        let mut harnesses = Harness::both();
        for (images, map, size) in cases {
            // Few different values, so that most windows have ties.
            let x: Vec<f32> = random(map.len(images), 0).iter().map(|x| (2.0 * x).round()).collect();
            let best = largest(images, map, size, &x);
            let y: Vec<f32> = best.iter().map(|i| x[*i]).collect();
            let dy = random(y.len(), 1);
            let mut dx = vec![0.0; x.len()];
            best.iter().zip(&dy).for_each(|(i, dy)| dx[*i] += dy);
            let c = map.channels;
            for h in &mut harnesses {
                let (sx, sdy) = (h.input(&pad(&x, c)), h.input(&pad(&dy, c)));
                let (sy, sdx) = (h.output(y.len() / c * padded(c)), h.output(x.len() / c * padded(c)));
                h.run(&[
                    folded(max_pool(images, map, size, sx, sy)),
                    folded(max_pool_backward(images, map, size, sx, sdy, sdx)),
                ]);
                h.expect("max_pool", sy, &pad(&y, c), 0.0);
                h.expect("max_pool_backward", sdx, &pad(&dx, c), 0.0);
                assert_padding(&h.read(sy), c);
                assert_padding(&h.read(sdx), c);
            }
        }
    }

    #[test]
    fn the_gradient_of_max_pool_matches_finite_differences() {
        let (images, map, size) = (2, map(5, 5, 7), 2);
        for mut h in Harness::both() {
            // All values differ by at least 0.01, in a pseudo-random order.
            let n = map.len(images);
            let x: Vec<f32> = (0..n).map(|i| 0.01 * (i * 101 % n) as f32 - 1.0).collect();
            let dy = random(largest(images, map, size, &x).len(), 2);
            let (sx, sdy) = (h.input(&pad(&x, 5)), h.input(&pad(&dy, 5)));
            let sdx = h.output(n / 5 * 8);
            h.run(&[max_pool_backward(images, map, size, sx, sdy, sdx)]);
            let loss = |x: &[f32]| -> f64 {
                let best = largest(images, map, size, x);
                best.iter().zip(&dy).map(|(i, dy)| f64::from(x[*i]) * f64::from(*dy)).sum()
            };
            let found: Vec<f32> = h.read(sdx);
            for i in 0..n {
                let (mut above, mut below) = (x.clone(), x.clone());
                above[i] += STEP as f32;
                below[i] -= STEP as f32;
                let slope = (loss(&above) - loss(&below)) / f64::from(above[i] - below[i]);
                let found = f64::from(found[i / 5 * 8 + i % 5]);
                // Measured: 1.8e-12.
                assert!((found - slope).abs() < 7e-12, "{i}: {found}, slope {slope}");
            }
        }
    }

    #[test]
    fn max_pool_lets_nan_through() {
        for mut h in Harness::both() {
            for bad in [f32::NAN, -f32::NAN] {
                for position in 0..4 {
                    let mut x = vec![0.0f32; 16];
                    x[4 * position + 1] = bad;
                    x[4 * position + 2] = f32::NEG_INFINITY;
                    x[4 * position + 3] = f32::INFINITY;
                    let (sx, sdy) = (h.input(&x), h.input(&[1.0f32, 2.0, 3.0, 4.0]));
                    let (y, dx) = (h.output(4), h.output(16));
                    let p = map(4, 2, 2);
                    h.run(&[max_pool(1, p, 2, sx, y), max_pool_backward(1, p, 2, sx, sdy, dx)]);
                    let (y, dx): (Vec<f32>, Vec<f32>) = (h.read(y), h.read(dx));
                    assert!(y[0] == 0.0 && y[1].is_nan() && y[2] == 0.0 && y[3] == f32::INFINITY, "{y:?}");
                    let mut expected = vec![0.0; 16];
                    expected[0] = 1.0;
                    expected[4 * position + 1] = 2.0;
                    expected[4 * usize::from(position == 0) + 2] = 3.0;
                    expected[4 * position + 3] = 4.0;
                    assert_eq!(dx, expected);
                }
            }
        }
    }

    #[test]
    fn global_pool_and_its_backward_match_their_twins() {
        let mut harnesses = Harness::both();
        for (images, map) in [(7, map(20, 41, 41)), (1, map(10, 41, 41)), (7, map(3, 1, 1)), (5, map(70, 2, 3))] {
            let c = map.channels;
            let x: Vec<f32> = random(map.len(images), 3).iter().map(|x| x + 0.5).collect();
            let dy = random(images * c, 4);
            let y = mean_twin(images, map, &x);
            let share = |i: usize| f64::from(dy[i / map.len(1) * c + i % c]) / map.pixels() as f64;
            let dx: Vec<f32> = (0..x.len()).map(|i| share(i) as f32).collect();
            for h in &mut harnesses {
                let (sx, sdy) = (h.input(&pad(&x, c)), h.input(&pad(&dy, c)));
                let (sy, sdx) = (h.output(images * padded(c)), h.output(x.len() / c * padded(c)));
                h.run(&[folded(global_pool(images, map, sx, sy)), folded(global_pool_backward(images, map, sdy, sdx))]);
                // Measured: 1.2e-7 and 0; a GPU may divide with an error of 2.5 ULP.
                h.expect("global_pool", sy, &pad(&y, c), 4e-7);
                h.expect("global_pool_backward", sdx, &pad(&dx, c), 2e-7);
                assert_padding(&h.read(sy), c);
                assert_padding(&h.read(sdx), c);
                let bits = h.read::<u32>(sy);
                h.run(&[global_pool(images, map, sx, sy)]);
                assert_eq!(bits, h.read::<u32>(sy));
            }
        }
    }

    #[test]
    fn the_gradient_of_global_pool_matches_finite_differences() {
        // The mean is linear: steps of any size are exact.
        let (images, map) = (2, map(3, 3, 5));
        let dy = random(images * 3, 5);
        for mut h in Harness::both() {
            let (sdy, sdx) = (h.input(&pad(&dy, 3)), h.output(images * 15 * 4));
            h.run(&[global_pool_backward(images, map, sdy, sdx)]);
            let found: Vec<f32> = h.read(sdx);
            for i in 0..map.len(images) {
                let mut x = vec![0.0; map.len(images)];
                x[i] = 1.0;
                let y = mean_twin(images, map, &x);
                let slope: f64 = y.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).sum();
                let found = f64::from(found[i / 3 * 4 + i % 3]);
                // Measured: 7.1e-9.
                assert!((found - slope).abs() < 2.8e-8, "{i}: {found}, slope {slope}");
            }
        }
    }

    #[test]
    fn global_pool_lets_nan_through() {
        for mut h in Harness::both() {
            let mut x = vec![1.0f32; 2 * 6 * 4];
            (x[9], x[2]) = (f32::NAN, f32::INFINITY);
            let (sx, y) = (h.input(&x), h.output(8));
            h.run(&[global_pool(2, map(4, 2, 3), sx, y)]);
            let y: Vec<f32> = h.read(y);
            assert!(y[1].is_nan() && y[2] == f32::INFINITY && y[0] == 1.0 && y[3..] == [1.0; 5], "{y:?}");
        }
    }
}
