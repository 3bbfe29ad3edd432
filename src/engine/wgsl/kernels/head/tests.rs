use bytemuck::Zeroable;

use super::*;
use crate::engine::Objective;
use crate::engine::loss::{GradientScale, objective_gradient};
use crate::engine::wgsl::harness::{Harness, pad, random, relative_error};
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::wgsl::kernels::norm::{self, backward_apply, backward_finalize, backward_sums, partials_len};
use crate::engine::wgsl::kernels::pointwise::tests::{assert_padding, folded};
use crate::engine::wgsl::kernels::{linear, loss, pointwise, pool};

/// The batch norm before the mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Norm {
    None,
    Batch,
    Running,
}

/// A head and its inputs, without padding.
struct Case {
    images: usize,
    head: Head,
    norm: Norm,
    x: Vec<f32>,
    /// Scale, shift, mean, rstd.
    affine: [Vec<f32>; 4],
    weight: Vec<f32>,
    bias: Vec<f32>,
    labels: Vec<u32>,
    clean: Vec<f32>,
    scale: GradientScale,
}

impl Case {
    fn new(images: usize, map: FeatureMap, classes: usize, relu: bool, norm: Norm) -> Self {
        let c = map.channels;
        let x = random(images * map.height * map.width * c, 0).iter().map(|x| 2.0 * x + 0.5).collect();
        let rstd: Vec<f32> = random(c, 1).iter().map(|r| 0.5 + 0.1 * r).collect();
        let mean: Vec<f32> = random(c, 2).iter().map(|m| 0.5 + 0.1 * m).collect();
        let scale: Vec<f32> = random(c, 3).iter().zip(&rstd).map(|(w, r)| (1.0 + 0.3 * w) * r).collect();
        let shift = random(c, 4).iter().zip(&scale).zip(&mean).map(|((b, s), m)| 0.3 * b - m * s).collect();
        let size = 1.0 / (c as f32).sqrt();
        Self {
            images,
            head: Head { map, classes, relu },
            norm,
            x,
            affine: [scale, shift, mean, rstd],
            weight: random(c * classes, 5).iter().map(|w| w * size).collect(),
            bias: random(classes, 6),
            labels: (0..images).map(|i| (i * 7 % classes) as u32).collect(),
            clean: random(images * classes, 7),
            scale: GradientScale::True,
        }
    }

    fn pixels(&self) -> usize {
        self.head.map.height * self.head.map.width
    }

    fn rows(&self) -> usize {
        self.images * self.pixels()
    }

    fn objectives(&self) -> Vec<Objective> {
        let classes = self.head.classes;
        // Every third image has its own class as a target: it moves away from that.
        let target = |(i, label): (usize, &u32)| (label + u32::from(i % 3 != 2)) % classes as u32;
        let targets = self.labels.iter().enumerate().map(target).collect();
        let mut all = vec![Objective::CrossEntropy, Objective::Targeted(targets), Objective::KlToClean];
        if classes > 2 {
            all.push(Objective::Dlr);
        }
        all
    }

    /// `scale · x + shift` and the mean over the pixels, in `f64`.
    fn features(&self, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let c = self.head.map.channels;
        let [scale, shift, ..] = &self.affine;
        let value = |(i, x): (usize, &f64)| match self.norm {
            Norm::None => *x,
            _ => f64::from(scale[i % c]) * x + f64::from(shift[i % c]),
        };
        let y: Vec<f64> = x.iter().enumerate().map(value).collect();
        let mut means = vec![0.0; self.images * c];
        for (i, y) in y.iter().enumerate() {
            let y = if self.head.relu && *y < 0.0 { 0.0 } else { *y };
            means[i / c / self.pixels() * c + i % c] += y / self.pixels() as f64;
        }
        (y, means)
    }

    fn logits(&self, means: &[f64]) -> Vec<f64> {
        let (c, k) = (self.head.map.channels, self.head.classes);
        let logit = |i: usize| {
            let products = (0..c).map(|j| means[i / k * c + j] * f64::from(self.weight[j * k + i % k]));
            f64::from(self.bias[i % k]) + products.sum::<f64>()
        };
        (0..self.images * k).map(logit).collect()
    }

    /// The gradient that [`attack`] writes, given that of the logits.
    fn backward(&self, y: &[f64], dlogits: &[f64]) -> Vec<f64> {
        let (c, k) = (self.head.map.channels, self.head.classes);
        let means: Vec<f64> = (0..self.images * c)
            .map(|i| (0..k).map(|l| dlogits[i / c * k + l] * f64::from(self.weight[i % c * k + l])).sum())
            .collect();
        let gradient = |(i, y): (usize, &f64)| {
            let share = means[i / c / self.pixels() * c + i % c] / self.pixels() as f64;
            let g = if self.head.relu && *y <= 0.0 { 0.0 } else { share };
            if self.norm == Norm::Running { f64::from(self.affine[0][i % c]) * g } else { g }
        };
        y.iter().enumerate().map(gradient).collect()
    }
}

/// Value of an objective for one image and its gradient, in `f64`. The twin of engine/loss.rs.
fn exact(what: &Objective, z: &[f64], i: usize, label: u32, clean: &[f32]) -> (f64, Vec<f64>) {
    let log_p = |z: &[f64]| -> Vec<f64> {
        let most = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = z.iter().map(|z| (z - most).exp()).sum();
        z.iter().map(|z| z - most - sum.ln()).collect()
    };
    let own = log_p(z);
    let p: Vec<f64> = own.iter().map(|l| l.exp()).collect();
    let mut gradient = vec![0.0; z.len()];
    let value = match what {
        Objective::Targeted(targets) if targets[i] != label => {
            gradient.iter_mut().zip(&p).for_each(|(g, p)| *g = -p);
            gradient[targets[i] as usize] += 1.0;
            own[targets[i] as usize]
        }
        Objective::CrossEntropy | Objective::Targeted(_) => {
            gradient.copy_from_slice(&p);
            gradient[label as usize] -= 1.0;
            -own[label as usize]
        }
        Objective::KlToClean => {
            let clean = log_p(&clean.iter().map(|z| f64::from(*z)).collect::<Vec<_>>());
            gradient.iter_mut().zip(&p).zip(&clean).for_each(|((g, p), c)| *g = p - c.exp());
            clean.iter().zip(&own).map(|(c, l)| c.exp() * (c - l)).sum()
        }
        _ => {
            let mut order: Vec<usize> = (0..z.len()).collect();
            order.sort_by(|a, b| z[*b].total_cmp(&z[*a]));
            let y = label as usize;
            let other = if order[0] == y { order[1] } else { order[0] };
            let (top, bottom) = (z[y] - z[other], z[order[0]] - z[order[2]] + 1e-12);
            gradient[y] -= 1.0 / bottom;
            gradient[other] += 1.0 / bottom;
            gradient[order[0]] += top / (bottom * bottom);
            gradient[order[2]] -= top / (bottom * bottom);
            -top / bottom
        }
    };
    (value, gradient)
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// A case's tensors on the device, whole.
struct OnDevice {
    call: Slice,
    info: Slice,
    x: Slice,
    affine: Slice,
    weight: Slice,
    bias: Slice,
    clean: Slice,
}

impl OnDevice {
    fn new(h: &mut Harness, case: &Case, what: &Objective) -> Self {
        let (c, k) = (case.head.map.channels, case.head.classes);
        let mut info = ImageInfo::for_labels(&case.labels);
        ImageInfo::aim(&mut info, what);
        let mut weight = pad(&case.weight, k);
        weight.resize(padded(c) * padded(k), 0.0);
        let affine: Vec<f32> = case.affine.iter().flat_map(|row| pad(row, c)).collect();
        Self {
            call: h.input(&[Call::zeroed().with_objective(what).with_scale(case.scale)]),
            info: h.input(&info),
            x: h.input(&pad(&case.x, c)),
            affine: h.input(&affine),
            weight: h.input(&weight),
            bias: h.input(&pad(&case.bias, k)),
            clean: h.input(&pad(&case.clean, k)),
        }
    }
}

/// The results of a head's kernels.
struct Found {
    logits: Vec<f32>,
    gradient: Vec<f32>,
    /// `Σ g / count` and `Σ g · x̂ / count` of [`Norm::Batch`].
    means: Vec<f32>,
    flag: u32,
}

/// [`attack`] on two ranges of the images, or [`forward`] and [`backward`] with the objective between them.
fn fused(h: &mut Harness, case: &Case, what: &Objective, whole: bool) -> Found {
    let (head, c, k) = (&case.head, case.head.map.channels, case.head.classes);
    let on = OnDevice::new(h, case, what);
    let (flag, means) = (h.input(&[0u32]), h.output(2 * padded(c)));
    let partials = h.output(partials_len(case.images, c));
    let mut found = Found { logits: Vec::new(), gradient: Vec::new(), means: Vec::new(), flag: 0 };
    let split = case.images / 3;
    for (first, images) in [(0, split), (split, case.images - split)].into_iter().filter(|(_, n)| *n > 0) {
        let norm = match case.norm {
            Norm::None => None,
            Norm::Batch => Some(HeadNorm { affine: on.affine, sums: Some((partials, first)) }),
            Norm::Running => Some(HeadNorm { affine: on.affine, sums: None }),
        };
        let per_image = case.pixels() * c;
        let x = h.input(&pad(&case.x[first * per_image..(first + images) * per_image], c));
        let clean = h.input(&pad(&case.clean[first * k..(first + images) * k], k));
        let (logits, gradient) = (h.output(images * padded(k)), h.output(images * case.pixels() * padded(c)));
        let (weight, bias) = (on.weight, on.bias);
        if whole {
            let dispatch =
                attack(images, first, head, on.call, on.info, x, norm, weight, bias, clean, logits, gradient, flag);
            h.run(&[folded(dispatch)]);
        } else {
            let dlogits = h.output(images * padded(k));
            h.run(&[
                folded(forward(images, head, x, norm.map(|n| n.affine), weight, bias, logits, None)),
                loss::objective(images, first, k, on.call, on.info, logits, clean, dlogits, flag),
                folded(backward(images, head, x, norm, weight, dlogits, gradient)),
            ]);
        }
        found.logits.extend(h.read::<f32>(logits));
        found.gradient.extend(h.read::<f32>(gradient));
    }
    if case.norm == Norm::Batch {
        h.run(&[backward_finalize(case.images, c, case.rows() as u64, partials, means, None)]);
        found.means = h.read(means);
    }
    found.flag = h.read::<u32>(flag)[0];
    found
}

/// The same with one kernel per layer.
fn unfused(h: &mut Harness, case: &Case, what: &Objective) -> Found {
    let Head { map, classes: k, relu } = case.head;
    let (n, c, rows) = (case.images, map.channels, case.rows() as u64);
    let on = OnDevice::new(h, case, what);
    let (flag, means) = (h.input(&[0u32]), h.output(2 * padded(c)));
    let [y, dy, gradient] = [0; 3].map(|_| h.output(case.rows() * padded(c)));
    let [logits, dlogits] = [0; 2].map(|_| h.output(n * padded(k)));
    let [pooled, dpooled] = [0; 2].map(|_| h.output(n * padded(c)));
    let before = match (case.norm, relu) {
        (Norm::None, false) => None,
        (Norm::None, true) => Some(pointwise::relu(rows * quads(c) as u64, on.x, y)),
        _ => Some(norm::apply(rows, c, relu, on.x, on.affine, y)),
    };
    let y = if before.is_some() { y } else { on.x };
    let mut dispatches: Vec<Dispatch> = before.into_iter().collect();
    dispatches.extend([
        pool::global_pool(n, map, y, pooled),
        linear::forward(n, c, k, pooled, on.weight, on.bias, logits),
        loss::objective(n, 0, k, on.call, on.info, logits, on.clean, dlogits, flag),
        linear::input_gradient(n, c, k, dlogits, on.weight, dpooled),
        pool::global_pool_backward(n, map, dpooled, dy),
    ]);
    let gradient = match (case.norm, relu) {
        (Norm::Running, _) => {
            dispatches.push(backward_apply(rows, c, relu, on.x, dy, on.affine, None, None, gradient));
            gradient
        }
        (_, false) => dy,
        (_, true) => {
            dispatches.push(pointwise::relu_backward(rows * quads(c) as u64, y, dy, gradient));
            gradient
        }
    };
    if case.norm == Norm::Batch {
        let blocks = norm::statistics_blocks(rows);
        let partials = h.output(partials_len(blocks, c));
        dispatches.push(backward_sums(rows, c, relu, on.x, dy, on.affine, partials, 0));
        dispatches.push(backward_finalize(blocks, c, rows, partials, means, None));
    }
    h.run(&dispatches);
    let means = if case.norm == Norm::Batch { h.read(means) } else { Vec::new() };
    Found { logits: h.read(logits), gradient: h.read(gradient), means, flag: h.read::<u32>(flag)[0] }
}

const fn map(channels: usize, height: usize, width: usize) -> FeatureMap {
    FeatureMap { channels, height, width }
}

/// One line and many, more quads than lanes, a single image, odd sizes; 2 to 1004 classes.
const CASES: [(usize, FeatureMap, usize); 10] = [
    (1, map(20, 41, 41), 2),
    (7, map(3, 3, 5), 10),
    (4, map(64, 8, 8), 10),
    (5, map(512, 4, 4), 10),
    (2, map(640, 3, 4), 100),
    (3, map(130, 1, 1), 100),
    (4, map(36, 7, 2), 3),
    (1, map(1300, 2, 3), 5),
    (1, map(12, 2, 2), 1004),
    (2, map(8, 300, 1), 4),
];

/// Alternatives before the mean, besides a batch norm in training with a ReLU.
const RARER: [(bool, Norm); 6] = [
    (true, Norm::Running),
    (true, Norm::None),
    (true, Norm::Batch),
    (false, Norm::Batch),
    (false, Norm::Running),
    (false, Norm::None),
];

/// Largest number of classes for which the softmax adds in the same order as with a workgroup of 64.
const SAME_ORDER: usize = 128;

/// Whether both have the same bits or are both NaN: the bits of a NaN depend on the device.
fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()))
}

/// The relative error to the twin, measured: logits 9.5e-8, gradients 2.4e-6 (DLR).
#[test]
fn one_kernel_does_what_the_layers_do() {
    let mut farthest = [0.0f64; 4];
    let mut note = |which: usize, error: f64, limit: f64, what: &str| {
        farthest[which] = farthest[which].max(error);
        assert!(error <= limit, "{what}: {error:e}");
    };
    for mut h in Harness::both() {
        for (i, (images, map, classes)) in CASES.into_iter().enumerate() {
            let (usual, rarer) = ((true, Norm::Batch), RARER[i % RARER.len()]);
            for (relu, norm) in [usual, rarer] {
                let case = Case::new(images, map, classes, relu, norm);
                let (y, means) = case.features(&wide(&case.x));
                let logits = case.logits(&means);
                // The objective does not depend on the layers before the mean.
                let objectives = if (relu, norm) == usual { 4 } else { 1 };
                for objective in case.objectives().into_iter().take(objectives) {
                    let what = format!("{images} {map:?} {classes} relu {relu} {norm:?} {objective:?}");
                    let expected = unfused(&mut h, &case, &objective);
                    let dlogits: Vec<f64> = (0..images)
                        .flat_map(|i| {
                            let row = i * classes..(i + 1) * classes;
                            let (z, clean) = (&logits[row.clone()], &case.clean[row]);
                            exact(&objective, z, i, case.labels[i], clean).1
                        })
                        .collect();
                    let gradient = pad(&narrow(&case.backward(&y, &dlogits)), map.channels);
                    for whole in [true, false].into_iter().filter(|whole| *whole || (relu, norm) == rarer) {
                        let found = fused(&mut h, &case, &objective, whole);
                        assert_eq!(found.flag, 0, "{what}");
                        assert!(same(&found.logits, &expected.logits), "{what}");
                        if !whole || classes <= SAME_ORDER {
                            assert!(same(&found.gradient, &expected.gradient), "{what}");
                        }
                        note(0, relative_error(&found.gradient, &expected.gradient), 1e-6, &what);
                        note(1, relative_error(&found.means, &expected.means), 1e-6, &what);
                        note(2, relative_error(&found.logits, &pad(&narrow(&logits), classes)), 1e-6, &what);
                        // The gradient of DLR divides by differences of logits.
                        let limit = if objective == Objective::Dlr { 1e-5 } else { 2e-6 };
                        note(3, relative_error(&found.gradient, &gradient), limit, &what);
                        assert_padding(&found.logits, classes);
                        assert_padding(&found.gradient, map.channels);
                        assert_padding(&found.means, map.channels);
                    }
                }
            }
        }
    }
    println!("gradients, means, then logits and gradients of the twin: {farthest:?}");
}

/// Logits so far apart that the gradient underflows to zero.
#[test]
fn a_confident_network_has_gradients_in_a_search() {
    for mut h in Harness::both() {
        for (images, map, classes) in CASES.into_iter().filter(|(.., classes)| *classes <= SAME_ORDER) {
            let mut case = Case::new(images, map, classes, true, Norm::Running);
            case.weight.iter_mut().chain(&mut case.bias).chain(&mut case.clean).for_each(|v| *v *= 1e6);
            case.scale = GradientScale::PerImage;
            for objective in case.objectives() {
                let what = format!("{images} {map:?} {classes} {objective:?}");
                let (found, expected) = (fused(&mut h, &case, &objective, true), unfused(&mut h, &case, &objective));
                assert!(same(&found.gradient, &expected.gradient), "{what}");
                let logits: Vec<f32> =
                    found.logits.chunks(padded(classes)).flat_map(|row| row[..classes].to_vec()).collect();
                let (labels, clean) = (&case.labels, Some(case.clean.as_slice()));
                let dlogits = objective_gradient(&objective, case.scale, &logits, labels, classes, clean).unwrap();
                let (y, _) = case.features(&wide(&case.x));
                let gradient = pad(&narrow(&case.backward(&y, &wide(&dlogits))), map.channels);
                let per_image = case.pixels() * padded(map.channels);
                for (found, expected) in found.gradient.chunks(per_image).zip(gradient.chunks(per_image)) {
                    assert!(expected.iter().any(|g| g.abs() > 1.0), "{what}");
                    let error = relative_error(found, expected);
                    assert!(error < 1e-5, "{what}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn means_are_left_for_the_gradient_of_the_weight() {
    for mut h in Harness::both() {
        for (images, map, classes) in CASES {
            let case = Case::new(images, map, classes, true, Norm::Batch);
            let on = OnDevice::new(&mut h, &case, &Objective::CrossEntropy);
            let (c, k) = (map.channels, classes);
            let y = h.output(case.rows() * padded(c));
            let [means, logits, expected, expected_logits] =
                [padded(c), padded(k), padded(c), padded(k)].map(|len| h.output(images * len));
            let affine = Some(on.affine);
            h.run(&[
                forward(images, &case.head, on.x, affine, on.weight, on.bias, logits, Some(means)),
                norm::apply(case.rows() as u64, c, true, on.x, on.affine, y),
                pool::global_pool(images, map, y, expected),
                linear::forward(images, c, k, expected, on.weight, on.bias, expected_logits),
            ]);
            assert_eq!(h.read::<u32>(means), h.read::<u32>(expected));
            assert_eq!(h.read::<u32>(logits), h.read::<u32>(expected_logits));
        }
    }
}

/// Measured difference: 1.1e-7.
#[test]
fn gradients_match_finite_differences_of_the_objective() {
    const STEP: f64 = 1e-5;
    for mut h in Harness::both() {
        for norm in [Norm::None, Norm::Running] {
            let mut case = Case::new(2, map(5, 3, 2), 4, true, norm);
            // Away from the kink of the ReLU.
            let away = |case: &Case| case.features(&wide(&case.x)).0.iter().all(|y| y.abs() > 10.0 * STEP);
            case.x.iter_mut().for_each(|x| *x += 0.013);
            assert!(away(&case));
            for objective in case.objectives() {
                let value = |x: &[f64]| -> f64 {
                    let logits = case.logits(&case.features(x).1);
                    let row = |i: usize| &logits[4 * i..4 * i + 4];
                    (0..2).map(|i| exact(&objective, row(i), i, case.labels[i], &case.clean[4 * i..][..4]).0).sum()
                };
                let found = fused(&mut h, &case, &objective, true).gradient;
                let mut x = wide(&case.x);
                for i in 0..x.len() {
                    let at = x[i];
                    x[i] = at + STEP;
                    let above = value(&x);
                    x[i] = at - STEP;
                    let slope = (above - value(&x)) / (2.0 * STEP);
                    x[i] = at;
                    let found = f64::from(found[i / 5 * 8 + i % 5]);
                    assert!(
                        (found - slope).abs() < 1e-6 * (1.0 + slope.abs()),
                        "{norm:?} {objective:?} {i}: {found}, slope {slope}"
                    );
                }
            }
        }
    }
}

/// NaN and infinity in one image do not affect the others, propagate as they do layer by layer, and raise the flag.
#[test]
fn values_that_are_not_finite_pass_through() {
    for mut h in Harness::both() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for (relu, norm) in [(true, Norm::Batch), (true, Norm::Running), (true, Norm::None), (false, Norm::None)] {
                let mut case = Case::new(3, map(6, 2, 3), 10, relu, norm);
                case.x[2 * 6 * 6 - 8] = bad;
                let reaches = !(bad == f32::NEG_INFINITY && relu);
                for objective in case.objectives() {
                    let what = format!("{bad} {relu} {norm:?} {objective:?}");
                    let (found, expected) =
                        (fused(&mut h, &case, &objective, true), unfused(&mut h, &case, &objective));
                    let real = |values: &[f32], columns: usize| -> Vec<f32> {
                        values.chunks(padded(columns)).flat_map(|row| row[..columns].to_vec()).collect()
                    };
                    assert!(same(&real(&found.logits, 10), &real(&expected.logits, 10)), "{what}");
                    assert!(same(&real(&found.gradient, 6), &real(&expected.gradient, 6)), "{what}");
                    assert_padding(&found.gradient, 6);
                    assert_eq!((found.flag, expected.flag), (u32::from(reaches), u32::from(reaches)), "{what}");
                    let finite = |i: usize| found.gradient[i * 48..(i + 1) * 48].iter().all(|v| v.is_finite());
                    assert!(finite(0) && finite(2) && finite(1) != reaches, "{what}");
                    // A sum with a NaN is NaN in any order.
                    let nan = |means: &[f32]| means.iter().map(|m| m.is_nan()).collect::<Vec<_>>();
                    assert_eq!(nan(&real(&found.means, 6)), nan(&real(&expected.means, 6)), "{what}");
                }
            }
        }
    }
}

#[test]
fn the_same_images_give_the_same_bits() {
    let case = Case::new(5, map(36, 7, 5), 100, true, Norm::Batch);
    for mut h in Harness::both() {
        let [a, b] = [0; 2].map(|_| fused(&mut h, &case, &Objective::CrossEntropy, true));
        assert!(same(&a.logits, &b.logits) && same(&a.gradient, &b.gradient) && same(&a.means, &b.means));
    }
}

#[test]
fn what_fits_is_what_workgroup_memory_holds() {
    assert!(fits(640, 1000) && fits(512, 100) && fits(1300, 1004));
    assert!(!fits(1300, 1008) && !fits(640, 2000));
}
