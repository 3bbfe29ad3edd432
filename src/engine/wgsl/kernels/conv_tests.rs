use super::*;
use crate::engine::wgsl::harness::{Harness, pad, random, relative_error};
use crate::engine::wgsl::kernel::MAX_GROUPS;
use crate::engine::wgsl::kernels::gemm::{SINGLE, SMALL};
use crate::engine::wgsl::kernels::norm;

const UNLIMITED: u64 = u64::MAX;

fn forward(c: &Conv, images: usize, budget: u64, x: Slice, w: Slice, y: Slice) -> Vec<Dispatch> {
    super::forward(c, images, Product::plain(c, Pass::Forward, budget), x, w, y)
}

fn input_gradient(c: &Conv, images: usize, budget: u64, dy: Slice, w: Slice, dx: Slice) -> Vec<Dispatch> {
    super::input_gradient(c, images, Product::plain(c, Pass::InputGradient, budget), dy, w, dx)
}

fn weight_gradient_parts(c: &Conv, images: usize) -> usize {
    super::weight_gradient_parts(c, c.tile(Pass::WeightGradient), images)
}

fn weight_gradient(
    c: &Conv,
    images: usize,
    budget: u64,
    x: Slice,
    dy: Slice,
    parts: Slice,
    first_part: usize,
) -> Vec<Dispatch> {
    let (x, dy, how) = ((x, Read::Plain), (dy, Read::Plain), (c.tile(Pass::WeightGradient), budget));
    super::weight_gradient(c, images, how, x, dy, parts, first_part)
}

/// A convolution; its output size follows from the arguments.
pub(in crate::engine::wgsl::kernels) fn conv(
    channels: [usize; 2],
    [height, width]: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Conv {
    let out = |size: usize| (size + 2 * padding - kernel) / stride + 1;
    let [in_channels, out_channels] = channels;
    let (out_height, out_width) = (out(height), out(width));
    Conv { in_channels, height, width, out_channels, out_height, out_width, kernel, stride, padding }
}

/// Calls `product(x index, w index, y index)` for every product of a convolution, on arrays without padding.
fn products(c: &Conv, images: usize, mut product: impl FnMut(usize, usize, usize)) {
    for n in 0..images {
        for v in 0..c.out_height {
            for u in 0..c.out_width {
                let y = ((n * c.out_height + v) * c.out_width + u) * c.out_channels;
                for tap in 0..c.kernel * c.kernel {
                    let (row, column) = (c.stride * v + tap / c.kernel, c.stride * u + tap % c.kernel);
                    let (Some(row), Some(column)) = (row.checked_sub(c.padding), column.checked_sub(c.padding)) else {
                        continue;
                    };
                    if row >= c.height || column >= c.width {
                        continue;
                    }
                    let x = ((n * c.height + row) * c.width + column) * c.in_channels;
                    for i in 0..c.in_channels {
                        for o in 0..c.out_channels {
                            product(x + i, (tap * c.in_channels + i) * c.out_channels + o, y + o);
                        }
                    }
                }
            }
        }
    }
}

/// Converts weights without padding to the layout of the kernels.
fn pad_weight(c: &Conv, w: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for tap in w.chunks(c.in_channels * c.out_channels) {
        out.extend(pad(tap, c.out_channels));
        out.resize(out.len().next_multiple_of(padded(c.in_channels) * padded(c.out_channels)), 0.0);
    }
    out
}

/// Random `x`, `w` and `dy` of a convolution, without padding.
pub(in crate::engine::wgsl::kernels) struct Case {
    pub(in crate::engine::wgsl::kernels) conv: Conv,
    pub(in crate::engine::wgsl::kernels) images: usize,
    pub(in crate::engine::wgsl::kernels) x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    pub(in crate::engine::wgsl::kernels) fn new(conv: Conv, images: usize) -> Self {
        let x = random(images * conv.height * conv.width * conv.in_channels, 0);
        let w = random(conv.taps() * conv.in_channels * conv.out_channels, 1);
        let dy = random(conv.out_pixels(images) * conv.out_channels, 2);
        Self { conv, images, x, w, dy }
    }

    /// `y`, `dx` and `dw` of the twin: `f64` sums in plain loops, padded as the kernels do.
    pub(in crate::engine::wgsl::kernels) fn twin(&self) -> [Vec<f32>; 3] {
        let c = &self.conv;
        let (mut y, mut dx, mut dw) = (vec![0.0; self.dy.len()], vec![0.0; self.x.len()], vec![0.0; self.w.len()]);
        products(c, self.images, |ix, iw, iy| {
            let [x, w, d] = [self.x[ix], self.w[iw], self.dy[iy]].map(f64::from);
            y[iy] += x * w;
            dx[ix] += d * w;
            dw[iw] += x * d;
        });
        let single = |sums: Vec<f64>| sums.into_iter().map(|v| v as f32).collect::<Vec<f32>>();
        [pad(&single(y), c.out_channels), pad(&single(dx), c.in_channels), pad_weight(c, &single(dw))]
    }

    /// Padded `x`, `w` and `dy` on the device.
    pub(in crate::engine::wgsl::kernels) fn upload(&self, h: &mut Harness) -> [Slice; 3] {
        let c = &self.conv;
        [
            h.input(&pad(&self.x, c.in_channels)),
            h.input(&pad_weight(c, &self.w)),
            h.input(&pad(&self.dy, c.out_channels)),
        ]
    }

    /// `y`, `dx` and `dw` of the kernels, and the number of dispatches of each.
    fn run(&self, h: &mut Harness, budget: u64) -> ([Slice; 3], [usize; 3]) {
        let (c, n) = (&self.conv, self.images);
        let [x, w, dy] = self.upload(h);
        let y = h.output(c.out_pixels(n) * padded(c.out_channels));
        let dx = h.output(n * c.height * c.width * padded(c.in_channels));
        let len = weight_len(c);
        let count = weight_gradient_parts(c, n);
        let (parts, dw) = (h.output(count * len), h.output(len));
        let passes = [
            forward(c, n, budget, x, w, y),
            input_gradient(c, n, budget, dy, w, dx),
            weight_gradient(c, n, budget, x, dy, parts, 0),
        ];
        for pass in &passes {
            h.run(pass);
            let flops = 2 * c.out_pixels(n) * c.taps() * c.in_channels * c.out_channels;
            assert_eq!(pass.iter().map(|d| d.work.flops).sum::<u64>(), flops as u64);
        }
        h.run(&[sum_parts(len, count, false, parts, dw)]);
        ([y, dx, dw], passes.map(|pass| pass.len()))
    }
}

/// Shapes that cover every tile, edge and phase.
fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |images, channels, size, kernel, stride, padding| {
        all.push(Case::new(conv(channels, size, kernel, stride, padding), images));
    };
    add(1, [20, 5], [41, 41], 3, 2, 1);
    add(7, [20, 5], [41, 41], 3, 2, 1);
    add(1, [64, 64], [8, 8], 3, 1, 1);
    add(3, [3, 10], [13, 9], 3, 1, 1);
    // Single pixels, and kernels larger than the image.
    add(7, [9, 6], [1, 1], 3, 1, 1);
    add(1, [5, 33], [2, 3], 5, 1, 2);
    add(2, [4, 7], [3, 2], 7, 2, 3);
    // Kernels of one tap: phases without taps, and plain products.
    add(2, [20, 36], [9, 7], 1, 2, 0);
    add(1, [130, 20], [5, 5], 1, 1, 0);
    // Without padding, a stride larger than the kernel, unused pixels at the end.
    add(2, [6, 12], [12, 10], 3, 3, 0);
    add(2, [6, 12], [11, 14], 2, 3, 0);
    add(1, [3, 70], [20, 20], 7, 2, 3);
    add(1, [4, 4], [8, 6], 5, 3, 0);
    // Enough pixels for the wide and the medium tile.
    add(1, [56, 61], [13, 12], 3, 1, 1);
    add(1, [30, 70], [17, 16], 3, 2, 1);
    all
}

#[test]
fn all_passes_match_their_twins() {
    let names = ["forward", "input gradient", "weight gradient"];
    let mut worst = [0.0_f64; 3];
    let mut used = std::collections::BTreeSet::new();
    for case in cases() {
        let expected = case.twin();
        let c = &case.conv;
        used.extend([Pass::Forward, Pass::InputGradient, Pass::WeightGradient].map(|pass| (pass, c.tile(pass))));
        for mut h in Harness::both() {
            let (found, _) = case.run(&mut h, UNLIMITED);
            for (i, name) in names.iter().enumerate() {
                let values: Vec<f32> = h.read(found[i]);
                worst[i] = worst[i].max(relative_error(&values, &expected[i]));
                h.expect(&format!("{name} of {c:?}, {} images", case.images), found[i], &expected[i], 1e-6);
            }
        }
    }
    let [y, dx, dw] = worst;
    println!("worst relative errors: forward {y:.1e}, input gradient {dx:.1e}, weight gradient {dw:.1e}");
    for tile in [WIDE, MEDIUM, SMALL, NARROW, SINGLE] {
        assert!(used.contains(&(Pass::Forward, tile)) && used.contains(&(Pass::InputGradient, tile)), "{tile}");
    }
    assert!(WEIGHT_TILES.iter().all(|tile| used.contains(&(Pass::WeightGradient, *tile))));
}

/// Bits of `y`, `dx` and `dw`.
fn bits(h: &Harness, found: [Slice; 3]) -> [Vec<u32>; 3] {
    found.map(|slice| h.read(slice))
}

#[test]
fn a_budget_splits_the_work_and_keeps_the_bits() {
    for case in [
        Case::new(conv([20, 5], [41, 41], 3, 2, 1), 1),
        Case::new(conv([3, 40], [24, 23], 3, 1, 1), 1),
        Case::new(conv([12, 20], [24, 23], 1, 2, 0), 2),
    ] {
        let mut h = Harness::new(crate::engine::wgsl::Checks::Off);
        let (whole, dispatches) = case.run(&mut h, UNLIMITED);
        assert_eq!(dispatches, [1; 3]);
        let whole = bits(&h, whole);
        // One workgroup per dispatch, then a few.
        for budget in [1, 130_000] {
            let (cut, dispatches) = case.run(&mut h, budget);
            assert!(dispatches.iter().all(|count| *count > 1), "{dispatches:?} dispatches with {budget}");
            assert!(bits(&h, cut) == whole, "a budget of {budget} changes the result of {:?}", case.conv);
        }
        let (again, _) = case.run(&mut h, UNLIMITED);
        assert!(bits(&h, again) == whole, "a second run of {:?} differs", case.conv);
    }
}

#[test]
fn no_dispatch_is_over_its_budget() {
    let c = conv([64, 128], [32, 32], 3, 2, 1);
    let slice = Slice { buffer: crate::engine::wgsl::kernel::BufferId(0), offset: 0, size: 0 };
    let budget = 300_000_000;
    for pass in [
        forward(&c, 128, budget, slice, slice, slice),
        input_gradient(&c, 128, budget, slice, slice, slice),
        weight_gradient(&c, 128, budget, slice, slice, slice, 0),
    ] {
        let whole: u64 = pass.iter().map(|d| d.work.flops).sum();
        assert_eq!(whole, 2 * 128 * 16 * 16 * 9 * 64 * 128);
        assert!(pass.len() as u64 >= whole / budget);
        assert!(pass.iter().all(|d| d.work.flops <= budget && d.grid[0] <= MAX_GROUPS));
    }
    // Without a budget, the maximum grid limits a dispatch.
    let pass = forward(&conv([4, 512], [32, 32], 1, 1, 0), 2000, UNLIMITED, slice, slice, slice);
    assert!(pass.len() > 1 && pass.iter().all(|d| d.grid[0] <= MAX_GROUPS));
}

/// `⟨y, dy⟩ = ⟨x, dx⟩ = ⟨w, dw⟩`, because `y` is linear in `x` and in `w`. If the forward pass is right, this shows
/// that the gradients are right in every direction.
#[test]
fn gradients_are_adjoint_to_the_forward_pass() {
    for case in [
        Case::new(conv([20, 5], [41, 41], 3, 2, 1), 2),
        Case::new(conv([3, 10], [13, 9], 5, 1, 2), 3),
        Case::new(conv([10, 18], [11, 12], 3, 3, 0), 2),
    ] {
        let c = &case.conv;
        for mut h in Harness::both() {
            let (found, _) = case.run(&mut h, UNLIMITED);
            let [y, dx, dw] = found.map(|slice| h.read::<f32>(slice));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            let forward = dot(&y, &pad(&case.dy, c.out_channels));
            let input = dot(&pad(&case.x, c.in_channels), &dx);
            let weight = dot(&pad_weight(c, &case.w), &dw);
            let size = dot(&y, &y).sqrt() * dot(&case.dy, &case.dy).sqrt();
            for (name, other) in [("input", input), ("weight", weight)] {
                let error = (forward - other).abs() / size;
                assert!(error < 6e-8, "{name} gradient of {c:?}: {forward} against {other}, {error:.1e} of the norms");
            }
        }
    }
}

/// The kernels' gradients against finite differences of the kernels' own loss `⟨y, dy⟩`. It is linear, so large steps
/// are exact up to rounding.
#[test]
fn gradients_match_finite_differences() {
    let case = Case::new(conv([6, 7], [9, 8], 3, 2, 1), 2);
    let (c, step) = (&case.conv, 4.0);
    let mut h = Harness::new(crate::engine::wgsl::Checks::Off);
    let loss = |h: &mut Harness, x: &[f32], w: &[f32]| {
        let changed = Case { conv: *c, images: case.images, x: x.to_vec(), w: w.to_vec(), dy: case.dy.clone() };
        let [x, w, _] = changed.upload(h);
        let y = h.output(c.out_pixels(case.images) * padded(c.out_channels));
        h.run(&forward(c, case.images, UNLIMITED, x, w, y));
        let y: Vec<f32> = h.read(y);
        let dy = pad(&case.dy, c.out_channels);
        y.iter().zip(&dy).map(|(y, d)| f64::from(*y) * f64::from(*d)).sum::<f64>()
    };
    let (found, _) = case.run(&mut h, UNLIMITED);
    let [_, dx, dw] = found.map(|slice| h.read::<f32>(slice));
    let unpad = |values: &[f32], channels: usize| -> Vec<f32> {
        values.chunks(padded(channels)).flat_map(|row| row[..channels].to_vec()).collect()
    };
    let dx = unpad(&dx, c.in_channels);
    // The padding rows of a tap lie between those of two taps.
    let rows = unpad(&dw, c.out_channels);
    let tap = padded(c.in_channels) * c.out_channels;
    let dw: Vec<f32> = rows.chunks(tap).flat_map(|t| t[..c.in_channels * c.out_channels].to_vec()).collect();
    let check = |name: &str, i: usize, gradient: f32, difference: f64| {
        let error = (difference - f64::from(gradient)).abs() / (1.0 + difference.abs());
        assert!(error < 4e-6, "{name} {i}: gradient {gradient}, difference {difference}");
    };
    for i in (0..case.x.len()).step_by(29) {
        let losses = [step, -step].map(|by| {
            let mut x = case.x.clone();
            x[i] += by;
            loss(&mut h, &x, &case.w)
        });
        check("x", i, dx[i], (losses[0] - losses[1]) / f64::from(2.0 * step));
    }
    for i in (0..case.w.len()).step_by(17) {
        let losses = [step, -step].map(|by| {
            let mut w = case.w.clone();
            w[i] += by;
            loss(&mut h, &case.x, &w)
        });
        check("w", i, dw[i], (losses[0] - losses[1]) / f64::from(2.0 * step));
    }
}

/// All exponent bits set: infinity or NaN.
fn is_broken(value: f32) -> bool {
    value.to_bits() & 0x7f80_0000 == 0x7f80_0000
}

/// A NaN or an infinity in `x` or `dy` reaches every value that depends on it, and no other; padding stays zero.
#[test]
fn broken_values_reach_exactly_what_depends_on_them() {
    let c = conv([6, 10], [9, 8], 3, 2, 1);
    for broken in [f32::NAN, f32::INFINITY] {
        let mut case = Case::new(c, 2);
        let (in_x, in_dy) = (((9 + 4) * 8 + 3) * 6 + 2, ((5 + 2) * 4 + 1) * 10 + 9);
        case.x[in_x] = broken;
        case.dy[in_dy] = broken;
        let (mut y, mut dx, mut dw) = (vec![0.0; case.dy.len()], vec![0.0; case.x.len()], vec![0.0; case.w.len()]);
        products(&c, 2, |ix, iw, iy| {
            let mark = |hit: bool, at: &mut f32| *at = if hit { 1.0 } else { *at };
            mark(ix == in_x, &mut y[iy]);
            mark(iy == in_dy, &mut dx[ix]);
            mark(ix == in_x || iy == in_dy, &mut dw[iw]);
        });
        let marked = [pad(&y, 10), pad(&dx, 6), pad_weight(&c, &dw)];
        let ones = vec![1.0; case.w.len()];
        let real = [pad(&vec![1.0; y.len()], 10), pad(&vec![1.0; dx.len()], 6), pad_weight(&c, &ones)];
        for mut h in Harness::both() {
            let (found, _) = case.run(&mut h, UNLIMITED);
            for ((slice, marked), real) in found.iter().zip(&marked).zip(&real) {
                let values: Vec<f32> = h.read(*slice);
                assert!(marked.contains(&1.0) && marked.contains(&0.0));
                for (i, value) in values.iter().enumerate() {
                    assert_eq!(is_broken(*value), marked[i] == 1.0, "{broken}: value {i} is {value}");
                    assert!(real[i] == 1.0 || value.to_bits() == 0, "{broken}: padding {i} is {value}");
                }
            }
        }
    }
}

#[test]
fn parts_of_several_ranges_add_up() {
    let c = conv([12, 20], [10, 9], 3, 1, 1);
    let (len, ranges) = (weight_len(&c), [3, 2]);
    let case = Case::new(c, ranges.iter().sum());
    let [_, _, whole] = case.twin();
    let before = random(len, 5);
    for mut h in Harness::both() {
        let counts = ranges.map(|images| weight_gradient_parts(&c, images));
        let parts = h.output(len * counts.iter().sum::<usize>());
        let (mut pixels, mut outputs, mut first) = (0, 0, 0);
        for (images, count) in ranges.into_iter().zip(counts) {
            let x = &case.x[pixels * 12..(pixels + images * 90) * 12];
            let dy = &case.dy[outputs * 20..(outputs + images * 90) * 20];
            let (x, dy) = (h.input(&pad(x, 12)), h.input(&pad(dy, 20)));
            h.run(&weight_gradient(&c, images, UNLIMITED, x, dy, parts, first));
            pixels += images * 90;
            outputs += images * 90;
            first += count;
        }
        let (alone, added) = (h.output(len), h.input(&before));
        h.run(&[sum_parts(len, first, false, parts, alone), sum_parts(len, first, true, parts, added)]);
        h.expect("sum of the parts", alone, &whole, 1e-6);
        let expected: Vec<f32> = whole.iter().zip(&before).map(|(a, b)| a + b).collect();
        h.expect("sum of the parts and what was there", added, &expected, 1e-6);
    }
}

#[test]
fn parts_are_added_in_order() {
    for mut h in Harness::both() {
        for (len, count) in [(4, 1), (260, 3), (1000, 9), (12, 130)] {
            let (parts, out) = (random(len * count, 0), random(len, 1));
            let (p, sum, added) = (h.input(&parts), h.output(len), h.input(&out));
            h.run(&[sum_parts(len, count, false, p, sum), sum_parts(len, count, true, p, added)]);
            let twin = |i: usize, first: f32| (0..count).fold(first, |sum, p| sum + parts[p * len + i]);
            h.expect("sum", sum, &(0..len).map(|i| twin(i, 0.0)).collect::<Vec<_>>(), 0.0);
            h.expect("added", added, &(0..len).map(|i| twin(i, out[i])).collect::<Vec<_>>(), 0.0);
        }
    }
}

#[test]
fn the_choice_of_tiles_and_parts() {
    let wide = conv([64, 64], [32, 32], 3, 1, 1);
    assert_eq!(wide.tile(Pass::Forward).to_string(), "64x64x16");
    let stem = conv([3, 64], [32, 32], 3, 1, 1);
    assert_eq!(stem.tile(Pass::InputGradient).to_string(), "128x4x16");
    assert_eq!(conv([8, 10], [8, 8], 3, 1, 1).tile(Pass::WeightGradient).to_string(), "64x16x16");
    // Enough workgroups, no more memory than allowed, no empty part.
    for (c, images) in [(wide, 128), (stem, 128), (stem, 1), (conv([512, 512], [4, 4], 3, 1, 1), 128)] {
        let tile = c.tile(Pass::WeightGradient);
        let (count, pixels) = (weight_gradient_parts(&c, images), part_pixels(&c, tile, images));
        assert!(4 * count * weight_len(&c) <= PARTS_BYTES);
        assert!((count - 1) * pixels < c.out_pixels(images) && count * pixels >= c.out_pixels(images));
        let groups = count * weight_tiles(&c, tile).0;
        assert!(groups >= 200 || pixels <= 2 * PART_PIXELS, "{c:?}: {groups} groups");
    }
}

/// The fused statistics of a forward pass are those of a separate kernel, for every tile, in one dispatch or in many,
/// in one range of images or in two; the result is bit-identical.
#[test]
fn fused_statistics_are_those_of_a_separate_kernel() {
    for (i, (channels, size, stride)) in
        [([6, 10], [9, 8], 2), ([5, 70], [12, 7], 1), ([4, 3], [1, 1], 1)].into_iter().enumerate()
    {
        let (c, images) = (conv(channels, size, 3, stride, 1), 5);
        let case = Case::new(c, images);
        let residual = random(case.dy.len(), 60);
        let (rows, width) = (c.out_pixels(images) as u64, padded(channels[1]));
        let (mut base, mut with_subgroups) = (Harness::both(), Harness::with_subgroups());
        for (t, tile) in PIXEL_TILES.into_iter().chain(BROADCAST_TILES).enumerate() {
            let harnesses = if tile.broadcast { with_subgroups.as_mut() } else { Some(&mut base) };
            let Some(harnesses) = harnesses else { continue };
            // With run-time checks or without, alternating between cases.
            let h = &mut harnesses[(t + i) % 2];
            let w = h.input(&pad_weight(&c, &case.w));
            let part = |h: &mut Harness, values: &[f32], first: usize, count: usize, channels: usize| {
                let each = values.len() / images;
                h.input(&pad(&values[first * each..(first + count) * each], channels))
            };
            // The result of some images, with the residual.
            let run = |h: &mut Harness, first, count, budget, statistics| {
                let x = part(h, &case.x, first, count, channels[0]);
                let add = Some(part(h, &residual, first, count, channels[1]));
                let y = h.output(c.out_pixels(count) * width);
                let product = Product { tile, budget, read: Read::Plain, add, statistics };
                h.run(&super::forward(&c, count, product, x, w, y));
                y
            };
            let [weight, bias] = [70, 71].map(|s| h.input(&pad(&random(channels[1], s), channels[1])));
            let affine = |h: &mut Harness, partials, blocks| {
                let (running, affine) = (h.input(&vec![0.0f32; 2 * width]), h.output(4 * width));
                h.run(&[norm::finalize(blocks, channels[1], 1e-5, 0.1, partials, weight, bias, running, affine)]);
                [h.read::<f32>(affine), h.read::<f32>(running)].concat()
            };
            let (whole, blocks) = (run(h, 0, images, UNLIMITED, None), norm::statistics_blocks(rows));
            let partials = h.output(norm::partials_len(blocks, channels[1]));
            h.run(&[norm::statistics(rows, channels[1], whole, partials, 0)]);
            let wanted = affine(h, partials, blocks);

            for (ranges, budget) in [(&[5][..], UNLIMITED), (&[5], 1), (&[3, 2], UNLIMITED)] {
                let blocks = ranges.iter().map(|count| statistics_blocks(&c, tile, *count)).sum();
                let partials = h.output(norm::partials_len(blocks, channels[1]));
                let (mut first, mut block, mut y) = (0, 0, Vec::new());
                for count in ranges {
                    let found = run(h, first, *count, budget, Some((partials, block)));
                    y.extend(h.read::<u32>(found));
                    first += count;
                    block += statistics_blocks(&c, tile, *count);
                }
                assert!(y == h.read::<u32>(whole), "{tile}");
                let error = relative_error(&affine(h, partials, blocks), &wanted);
                assert!(error < 1e-6, "{tile}, {ranges:?}: {error:.1e}");
            }
        }
    }
}

/// The values that a convolution computes on load: forward or backward, for `rows` pixels of `channels`.
fn reads(h: &mut Harness, backward: bool, rows: usize, channels: usize) -> Vec<Read> {
    let mut vectors = |count: usize, sample: u32| {
        let values: Vec<f32> = (0..count as u32).flat_map(|v| pad(&random(channels, sample + v), channels)).collect();
        h.input(&values)
    };
    let (norm, means) = (vectors(4, 80), vectors(2, 90));
    let input = h.input(&pad(&random(rows * channels, 95), channels));
    let mut all = vec![Read::Plain];
    for relu in [false, true] {
        if backward {
            all.extend([None, Some(means)].map(|means| Read::NormBackward { norm, relu, input, means }));
        } else {
            all.push(Read::Norm { norm, relu });
        }
    }
    all
}

/// Tiles with subgroup broadcasts give bit-identical results. How the source is read, whether something is added, and
/// whether a budget splits the work vary between cases.
#[test]
fn tiles_that_broadcast_give_the_same_bits() {
    let Some(mut harnesses) = Harness::with_subgroups() else { return };
    for (i, case) in cases().into_iter().enumerate() {
        let (c, n, h) = (case.conv, case.images, &mut harnesses[i % 2]);
        let (x_rows, y_rows) = (n * c.height * c.width, c.out_pixels(n));
        let [x, w, dy] = case.upload(h);
        let forward = reads(h, false, x_rows, c.in_channels);
        let backward = reads(h, true, y_rows, c.out_channels);
        let (read_x, read_dy) = (forward[i % forward.len()], backward[i % backward.len()]);
        let budget = if i % 4 == 1 { 1 } else { UNLIMITED };
        for (pass, read, len) in [
            (Pass::Forward, read_x, y_rows * padded(c.out_channels)),
            (Pass::InputGradient, read_dy, x_rows * padded(c.in_channels)),
        ] {
            let add = (i % 4 < 2).then(|| h.input(&random(len, 96)));
            let mut product = |tile| {
                let (product, out) = (Product { tile, budget, read, add, statistics: None }, h.output(len));
                h.run(&match pass {
                    Pass::Forward => super::forward(&c, n, product, x, w, out),
                    _ => super::input_gradient(&c, n, product, dy, w, out),
                });
                h.read::<u32>(out)
            };
            let wanted = product(c.tile(pass));
            for tile in BROADCAST_TILES {
                assert!(product(tile) == wanted, "{pass:?} of {c:?} with {tile}, {read:?}, add {add:?}");
            }
        }
        let mut weights = |tile| {
            let parts = h.output(super::weight_gradient_parts(&c, tile, n) * weight_len(&c));
            h.run(&super::weight_gradient(&c, n, (tile, budget), (x, read_x), (dy, read_dy), parts, 0));
            h.read::<u32>(parts)
        };
        let wanted = weights(c.tile(Pass::WeightGradient));
        assert!(weights(BROADCAST_WEIGHTS) == wanted, "weight gradient of {c:?}, {read_x:?}, {read_dy:?}");
    }
}
