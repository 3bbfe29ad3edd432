use bytemuck::Zeroable;

use super::*;
use crate::data::ImageShape;
use crate::engine::wgsl::harness::{Harness, pad, random, relative_error};
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::wgsl::kernels::pointwise::tests::{assert_padding, folded};
use crate::engine::wgsl::kernels::{attack, conv, norm};

const UNLIMITED: u64 = u64::MAX;

/// What follows the convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    /// Batch norm with batch statistics, or with constants, and whether a ReLU follows.
    Norm {
        batch: bool,
        relu: bool,
    },
}

const BEHIND: [Behind; 5] = [
    Behind::Nothing,
    Behind::Norm { batch: true, relu: false },
    Behind::Norm { batch: true, relu: true },
    Behind::Norm { batch: false, relu: false },
    Behind::Norm { batch: false, relu: true },
];

/// What follows the convolution in case `i`: all alternatives for one case, one of them for each other case.
fn behind(i: usize) -> impl Iterator<Item = Behind> {
    BEHIND.into_iter().enumerate().filter(move |(b, _)| i == 6 || *b == i % BEHIND.len()).map(|(_, behind)| behind)
}

/// A stem and its inputs, without padding.
struct Case {
    conv: Conv,
    images: usize,
    /// In `[0, 1]`, including black and white.
    x: Vec<f32>,
    weight: Vec<f32>,
    /// Scale and shift of the colours.
    colours: [Vec<f32>; 2],
    dy: Vec<f32>,
    /// The batch norm's input, its affine and its means.
    features: Vec<f32>,
    affine: [Vec<f32>; 4],
    means: [Vec<f32>; 2],
}

impl Case {
    fn new(conv: Conv, images: usize) -> Self {
        let (i, o) = (conv.in_channels, conv.out_channels);
        let outputs = images * conv.out_height * conv.out_width * o;
        let x = random(images * conv.height * conv.width * i, 0);
        let rstd: Vec<f32> = random(o, 1).iter().map(|r| 0.5 + 0.1 * r).collect();
        let mean: Vec<f32> = random(o, 2).iter().map(|m| 0.2 * m).collect();
        let scale: Vec<f32> = random(o, 3).iter().zip(&rstd).map(|(w, r)| (1.0 + 0.3 * w) * r).collect();
        let shift = random(o, 4).iter().zip(&scale).zip(&mean).map(|((b, s), m)| 0.3 * b - m * s).collect();
        Self {
            conv,
            images,
            x: x.iter().map(|x| (0.5 + 0.4 * x).clamp(0.0, 1.0)).collect(),
            weight: random(conv.kernel * conv.kernel * i * o, 5),
            colours: [(0..i).map(|c| 4.0 + c as f32 / 3.0).collect(), (0..i).map(|c| -2.0 + 0.1 * c as f32).collect()],
            dy: random(outputs, 6),
            features: random(outputs, 7),
            affine: [scale, shift, mean, rstd],
            means: [random(o, 8), random(o, 9)].map(|m| m.iter().map(|m| 0.1 * m).collect()),
        }
    }

    /// Calls `product(x index, w index, y index)` for every product of the convolution.
    fn products(&self, mut product: impl FnMut(usize, usize, usize)) {
        let c = &self.conv;
        for pixel in 0..self.images * c.out_height * c.out_width {
            let (n, v, u) =
                (pixel / (c.out_height * c.out_width), pixel / c.out_width % c.out_height, pixel % c.out_width);
            for tap in 0..c.kernel * c.kernel {
                let (row, column) = (v + tap / c.kernel, u + tap % c.kernel);
                let (row, column) = (row.wrapping_sub(c.padding), column.wrapping_sub(c.padding));
                if row >= c.height || column >= c.width {
                    continue;
                }
                let x = ((n * c.height + row) * c.width + column) * c.in_channels;
                for i in 0..c.in_channels {
                    for o in 0..c.out_channels {
                        product(x + i, (tap * c.in_channels + i) * c.out_channels + o, pixel * c.out_channels + o);
                    }
                }
            }
        }
    }

    /// The twin of [`forward`] in `f64`.
    fn forward(&self, x: &[f64]) -> Vec<f64> {
        let [scale, shift] = &self.colours;
        let i = self.conv.in_channels;
        let mut y = vec![0.0; self.dy.len()];
        self.products(|ix, iw, iy| {
            let value = f64::from(scale[ix % i]) * x[ix] + f64::from(shift[ix % i]);
            y[iy] += value * f64::from(self.weight[iw]);
        });
        y
    }

    /// The twin of [`input_gradient`] in `f64`.
    fn backward(&self, behind: Behind) -> Vec<f64> {
        let (i, o) = (self.conv.in_channels, self.conv.out_channels);
        let [scale, shift, mean, rstd] = &self.affine;
        let before = |j: usize| {
            let (c, x, dy) = (j % o, f64::from(self.features[j]), f64::from(self.dy[j]));
            let Behind::Norm { batch, relu } = behind else { return dy };
            let stopped = relu && f64::from(scale[c]) * x + f64::from(shift[c]) <= 0.0;
            let g = if stopped { 0.0 } else { dy };
            let normalised = (x - f64::from(mean[c])) * f64::from(rstd[c]);
            let away = f64::from(self.means[0][c]) + normalised * f64::from(self.means[1][c]);
            f64::from(scale[c]) * (g - if batch { away } else { 0.0 })
        };
        let dy: Vec<f64> = (0..self.dy.len()).map(before).collect();
        let mut dx = vec![0.0; self.x.len()];
        self.products(|ix, iw, iy| dx[ix] += dy[iy] * f64::from(self.weight[iw]));
        dx.iter().enumerate().map(|(ix, dx)| f64::from(self.colours[0][ix % i]) * dx).collect()
    }

    fn upload(&self, h: &mut Harness) -> OnDevice {
        let (i, o) = (self.conv.in_channels, self.conv.out_channels);
        let mut weight = Vec::new();
        for tap in self.weight.chunks(i * o) {
            weight.extend(pad(tap, o));
            weight.resize(weight.len().next_multiple_of(4 * padded(o)), 0.0);
        }
        let rows = |rows: &[Vec<f32>], channels: usize| -> Vec<f32> {
            rows.iter().flat_map(|row| pad(row, channels)).collect()
        };
        let [scale, shift] = self.colours.clone();
        OnDevice {
            x: h.input(&pad(&self.x, i)),
            normalization: h.input(&rows(&[scale.clone(), shift, vec![0.0; i], scale], i)),
            weight: h.input(&weight),
            dy: h.input(&pad(&self.dy, o)),
            features: h.input(&pad(&self.features, o)),
            affine: h.input(&rows(&self.affine, o)),
            means: h.input(&rows(&self.means, o)),
        }
    }

    const fn pixels(&self) -> usize {
        self.images * self.conv.height * self.conv.width
    }

    const fn outputs(&self) -> usize {
        self.images * self.conv.out_height * self.conv.out_width * padded(self.conv.out_channels)
    }

    /// The gradient of the images by this module, in dispatches of `budget` FLOPs.
    fn fused(&self, h: &mut Harness, on: &OnDevice, behind: Behind, budget: u64) -> Slice {
        let gradient = h.output(4 * self.pixels());
        let (norm, conv) = (on.norm(behind), &self.conv);
        let dispatches = input_gradient(conv, self.images, budget, on.dy, norm, on.weight, on.normalization, gradient);
        if budget == UNLIMITED {
            h.run(&dispatches.into_iter().map(folded).collect::<Vec<_>>());
        } else {
            assert_eq!(dispatches.len(), self.images * (conv.height * conv.width).div_ceil(LANES));
            h.run(&dispatches);
        }
        gradient
    }

    /// The same with one kernel per layer.
    fn unfused(&self, h: &mut Harness, on: &OnDevice, behind: Behind) -> Slice {
        let (n, c, o) = (self.images, &self.conv, self.conv.out_channels);
        let (before, normalised) = (h.output(self.outputs()), h.output(4 * self.pixels()));
        let gradient = h.output(4 * self.pixels());
        let mut dispatches = Vec::new();
        let mut dy = on.dy;
        if let Some(StemNorm { x, affine, means, relu }) = on.norm(behind) {
            let rows = (n * c.out_height * c.out_width) as u64;
            dispatches.push(norm::backward_apply(rows, o, relu, x, dy, affine, means, None, before));
            dy = before;
        }
        dispatches.extend(conv::input_gradient(
            c,
            n,
            conv::Product::plain(c, conv::Pass::InputGradient, UNLIMITED),
            dy,
            on.weight,
            normalised,
        ));
        let (rows, colours) = (self.pixels() as u64, on.normalization);
        dispatches.push(norm::backward_apply(
            rows,
            c.in_channels,
            false,
            on.x,
            normalised,
            colours,
            None,
            None,
            gradient,
        ));
        h.run(&dispatches);
        gradient
    }
}

/// A case's tensors on the device.
struct OnDevice {
    x: Slice,
    normalization: Slice,
    weight: Slice,
    dy: Slice,
    features: Slice,
    affine: Slice,
    means: Slice,
}

impl OnDevice {
    fn norm(&self, behind: Behind) -> Option<StemNorm> {
        let Behind::Norm { batch, relu } = behind else { return None };
        Some(StemNorm { x: self.features, affine: self.affine, means: batch.then_some(self.means), relu })
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

/// Every shape; the large ones have one image.
fn cases() -> impl Iterator<Item = Case> {
    SHAPES.into_iter().map(|(channels, size, kernel, padding)| {
        let images = if size[0] * size[1] * channels[1] > 10_000 { 1 } else { 3 };
        Case::new(shape(channels, size, kernel, padding), images)
    })
}

/// Measured differences: 5.8e-7 from the layers, 4.5e-7 from the twin.
#[test]
fn gradients_are_those_of_the_layers_and_of_the_twin() {
    let mut farthest = [0.0f64; 2];
    for mut h in Harness::both() {
        for (i, case) in cases().enumerate() {
            let on = case.upload(&mut h);
            for behind in behind(i) {
                let what = format!("{:?}, {behind:?}", case.conv);
                let found = case.fused(&mut h, &on, behind, UNLIMITED);
                let layers: Vec<f32> = {
                    let slice = case.unfused(&mut h, &on, behind);
                    h.read(slice)
                };
                let twin = pad(&narrow(&case.backward(behind)), case.conv.in_channels);
                h.expect(&what, found, &layers, 1e-6);
                h.expect(&what, found, &twin, 1e-6);
                let values: Vec<f32> = h.read(found);
                assert_padding(&values, case.conv.in_channels);
                let errors = [relative_error(&values, &layers), relative_error(&values, &twin)];
                farthest.iter_mut().zip(errors).for_each(|(most, error)| *most = most.max(error));
                let cut = case.fused(&mut h, &on, behind, 1);
                assert_eq!(h.read::<u32>(cut), h.read::<u32>(found), "{what}");
            }
        }
    }
    println!("gradients: {farthest:?} off the layers and the twin");
}

/// The stem is linear: steps of any size are exact. Measured: 1.1e-6 of one and the slope.
#[test]
fn gradients_match_finite_differences() {
    let case = Case::new(shape([3, 5], [4, 5], 3, 1), 2);
    let slope = |i: usize| -> f64 {
        let mut x = wide(&case.x);
        let value = |x: &[f64]| case.forward(x).iter().zip(&case.dy).map(|(y, dy)| y * f64::from(*dy)).sum::<f64>();
        x[i] += 0.5;
        let above = value(&x);
        x[i] -= 1.0;
        above - value(&x)
    };
    for mut h in Harness::both() {
        let on = case.upload(&mut h);
        let gradient = case.fused(&mut h, &on, Behind::Nothing, UNLIMITED);
        let found: Vec<f32> = h.read(gradient);
        for i in 0..case.x.len() {
            let (found, slope) = (f64::from(found[i / 3 * 4 + i % 3]), slope(i));
            assert!((found - slope).abs() < 5e-6 * (1.0 + slope.abs()), "{i}: {found}, slope {slope}");
        }
    }
}

/// The state of a search for a case on the device.
fn search(h: &mut Harness, case: &Case, l2: bool, stopped: bool) -> Search {
    let c = &case.conv;
    let unit = if l2 { 0.5 } else { 8.0 / 255.0 };
    // One image before those of the range, one inactive image, one with epsilon zero.
    let mut info = ImageInfo::for_labels(&vec![0; 1 + case.images]);
    for (i, about) in info.iter_mut().enumerate() {
        (about.epsilon, about.step_size) = (unit * (0.5 + i as f32 / 3.0), unit * (0.3 + i as f32 / 5.0));
        about.status = u32::from(i != 2);
    }
    if case.images > 3 {
        info[4].epsilon = 0.0;
    }
    let delta = random(case.x.len(), 11).iter().map(|d| 0.01 * d).collect::<Vec<_>>();
    Search {
        call: h.input(&[Call { norm: u32::from(l2), ..Call::zeroed() }]),
        info: h.input(&info),
        clean: h.input(&pad(&case.x, c.in_channels)),
        delta: h.input(&pad(&delta, c.in_channels)),
        x: h.input(&pad(&case.x, c.in_channels)),
        stopped: h.input(&[u32::from(stopped)]),
        flags: h.input(&vec![0u8; attack::gradient_flags_bytes(1 + case.images) as usize]),
    }
}

/// The results of [`step`] and of the separate kernel: perturbation, image and flags.
fn both_steps(
    h: &mut Harness,
    case: &Case,
    on: &OnDevice,
    behind: Behind,
    [l2, stopped]: [bool; 2],
) -> [(Vec<u32>, Vec<u32>, Vec<u32>); 2] {
    let (c, n) = (&case.conv, case.images);
    let gradient = case.fused(h, on, behind, UNLIMITED);
    let searches = [0; 2].map(|_| search(h, case, l2, stopped));
    let [one, two] = &searches;
    let image = ImageShape::new(c.in_channels, c.height, c.width);
    let fused = step(c, n, 1, UNLIMITED, on.dy, on.norm(behind), on.weight, on.normalization, one);
    let Search { call, info, clean, delta, x, stopped, flags } = *two;
    h.run(&fused.into_iter().map(folded).collect::<Vec<_>>());
    h.run(&[attack::pgd_step(n, 1, image, call, info, clean, gradient, delta, x, stopped, flags)]);
    searches.map(|s| (h.read(s.delta), h.read(s.x), h.read(s.flags)))
}

#[test]
fn a_step_is_bit_identical_to_the_separate_kernel() {
    for mut h in Harness::both() {
        for (i, case) in cases().enumerate() {
            let on = case.upload(&mut h);
            for l2 in [false, true] {
                let behind = BEHIND[i % BEHIND.len()];
                let [fused, alone] = both_steps(&mut h, &case, &on, behind, [l2, false]);
                assert!(
                    fused == alone && fused.2.iter().all(|flag| *flag == 0),
                    "{:?}, {behind:?}, L2 {l2}",
                    case.conv
                );
                let before = pad(&case.x, case.conv.in_channels);
                let image = before.len() / case.images;
                let moved = |i: usize| {
                    let range = i * image..(i + 1) * image;
                    fused.1[range.clone()].iter().zip(&before[range]).any(|(x, b)| *x != b.to_bits())
                };
                // Image 2 of the batch is image 1 of the range.
                assert!((0..case.images).all(|i| moved(i) == (i != 1)));
            }
            let [fused, alone] = both_steps(&mut h, &case, &on, BEHIND[i % BEHIND.len()], [false, true]);
            assert_eq!(fused, alone);
            assert_eq!(fused.1, pad(&case.x, case.conv.in_channels).iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        }
    }
}

/// An image whose gradient is not finite does not move; the others do.
#[test]
fn values_that_are_not_finite_pass_through() {
    for mut h in Harness::both() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut case = Case::new(shape([3, 6], [5, 7], 3, 1), 4);
            // In the last image, at the corner where only four taps read it.
            let len = case.dy.len();
            case.dy[len - 1] = bad;
            case.features[len - 1] = 10.0;
            for behind in BEHIND {
                let on = case.upload(&mut h);
                let what = format!("{bad} {behind:?}");
                let (found, layers) = (case.fused(&mut h, &on, behind, UNLIMITED), case.unfused(&mut h, &on, behind));
                let (found, layers): (Vec<f32>, Vec<f32>) = (h.read(found), h.read(layers));
                assert_padding(&found, 3);
                for (i, (found, layers)) in found.iter().zip(&layers).enumerate() {
                    assert_eq!(found.is_finite(), layers.is_finite(), "{what} {i}");
                }
                assert!(found.iter().any(|v| !v.is_finite()), "{what}");
                for l2 in [false, true] {
                    let [fused, alone] = both_steps(&mut h, &case, &on, behind, [l2, false]);
                    assert_eq!(fused, alone, "{what} {l2}");
                    assert_eq!(fused.2[0], 1, "{what}");
                }
            }
            // Forward, in a pixel of the first image.
            case.x[3] = bad;
            let on = case.upload(&mut h);
            let (y, len) = (h.output(case.outputs()), norm::partials_len(statistics_blocks(&case.conv, 4), 6));
            let partials = h.output(len);
            h.run(&forward(&case.conv, 4, UNLIMITED, on.x, on.normalization, on.weight, y, Some((partials, 0))));
            let y: Vec<f32> = h.read(y);
            assert_padding(&y, 6);
            let reached = |i: usize| i / 8 < 35 && i / 8 / 7 < 2 && i / 8 % 7 < 3 && i % 8 < 6;
            assert!(y.iter().enumerate().all(|(i, y)| y.is_finite() != reached(i)), "{bad}");
            let partials: Vec<f32> = h.read(partials);
            // Means and squares of the first block.
            assert!(partials[4..10].iter().chain(&partials[12..18]).all(|v| !v.is_finite()));
        }
    }
}

/// The affine from this module's statistics differs by 9.8e-8 (measured) from that of norm_statistics.
#[test]
fn the_forward_pass_has_the_bits_of_the_layers() {
    let mut farthest = 0.0f64;
    for mut h in Harness::both() {
        for case in cases() {
            let (c, n, o) = (&case.conv, case.images, case.conv.out_channels);
            let what = format!("{c:?}");
            let on = case.upload(&mut h);
            let [y, alone, layers] = [0; 3].map(|_| h.output(case.outputs()));
            let normalised = h.output(4 * case.pixels());
            let blocks = statistics_blocks(c, n);
            let partials = h.output(norm::partials_len(blocks + 1, o));
            let (colours, rows) = (on.normalization, (n * c.out_height * c.out_width) as u64);
            // A block of another range before these.
            let dispatches = forward(c, n, UNLIMITED, on.x, colours, on.weight, y, Some((partials, 1)));
            h.run(&dispatches.into_iter().map(folded).collect::<Vec<_>>());
            let cut = forward(c, n, 1, on.x, colours, on.weight, alone, None);
            assert!(cut.len() >= blocks, "{what}");
            h.run(&cut);
            h.run(&[norm::apply(case.pixels() as u64, c.in_channels, false, on.x, colours, normalised)]);
            h.run(&conv::forward(
                c,
                n,
                conv::Product::plain(c, conv::Pass::Forward, UNLIMITED),
                normalised,
                on.weight,
                layers,
            ));
            let found: Vec<f32> = h.read(y);
            assert!(found == h.read::<f32>(layers) && found == h.read::<f32>(alone), "{what}");
            assert_padding(&found, o);
            h.expect(&what, y, &pad(&narrow(&case.forward(&wide(&case.x))), o), 1e-6);

            let values: Vec<f32> = h.read(partials);
            let own = h.input(&values[values.len() / (blocks + 1)..]);
            let others = h.output(norm::partials_len(norm::statistics_blocks(rows), o));
            let (weight, bias) = (h.input(&pad(&random(o, 12), o)), h.input(&pad(&random(o, 13), o)));
            let [affine, expected] = [0; 2].map(|_| h.output(4 * padded(o)));
            let [running, moved] = [0; 2].map(|_| h.input(&vec![0.5f32; 2 * padded(o)]));
            h.run(&[
                norm::finalize(blocks, o, 1e-5, 0.1, own, weight, bias, running, affine),
                norm::statistics(rows, o, y, others, 0),
                norm::finalize(norm::statistics_blocks(rows), o, 1e-5, 0.1, others, weight, bias, moved, expected),
            ]);
            let expected: Vec<f32> = h.read(expected);
            h.expect(&what, affine, &expected, 1e-6);
            h.expect(&what, running, &h.read::<f32>(moved), 1e-6);
            assert_padding(&h.read(affine), o);
            farthest = farthest.max(relative_error(&h.read::<f32>(affine), &expected));
        }
    }
    println!("affine: {farthest:.2e} off");
}

#[test]
fn what_fits_is_known_beforehand() {
    for case in cases() {
        assert!(fits_forward(&case.conv) && fits_gradient(&case.conv) && fits_step(&case.conv), "{:?}", case.conv);
    }
    // Strided, with five channels, too large for the registers, too wide for workgroup memory.
    let strided = Conv { stride: 2, out_height: 16, out_width: 16, ..shape([3, 64], [32, 32], 3, 1) };
    let [five, large, wide] =
        [([5, 8], [8, 8]), ([3, 64], [96, 96]), ([3, 64], [8, 2000])].map(|(c, s)| shape(c, s, 3, 1));
    assert!([strided, five, wide].iter().all(|c| !fits_forward(c) && !fits_gradient(c) && !fits_step(c)));
    assert!(fits_gradient(&large) && !fits_step(&large));
}
