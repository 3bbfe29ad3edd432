use super::*;
use crate::engine::wgsl::harness::{Harness, pad, random, relative_error};
use crate::engine::wgsl::kernels::call::{Call, ImageInfo};
use crate::engine::wgsl::layout::gpu_struct;
use crate::engine::{Augment, Batch, BatchNormMode, Norm, Objective, Padding, SearchSpec, Start};
use crate::rng::{Purpose, Stream};

gpu_struct! {
    pub(super) struct WordsParams for "random_words.wgsl" {
        key: [u32; 2],
        id: u32,
        epoch: u32,
        purpose: u32,
        first: u32,
        count: u32,
    }
}

/// Measured difference of normal numbers: at most 5e-7.
#[test]
fn random_numbers_are_those_of_the_host() {
    const COUNT: usize = 3000;
    for mut h in Harness::both() {
        let mut farthest = 0.0f32;
        for (seed, purpose, epoch, id, first) in [
            (0, Purpose::AttackStart, 0, 0, 0),
            (u64::MAX, Purpose::Test, u32::MAX, u32::MAX, u32::MAX / 4 * 2),
            (0x0123_4567_89ab_cdef, Purpose::Target, 199, 49_999, 77),
            (1 << 63 | 5, Purpose::EvaluationStart, 3, 0x8000_0001, 0x7fff_fff3),
        ] {
            let [words, symmetric, normal] = [0; 3].map(|_| h.output(COUNT));
            let params = WordsParams {
                key: [seed as u32, (seed >> 32) as u32],
                id,
                epoch,
                purpose: purpose as u32,
                first,
                count: COUNT as u32,
            };
            let groups = grid(COUNT.div_ceil(64) as u64);
            let kernel = Kernel::plain("random_words.wgsl");
            h.run(&[Dispatch::new(kernel, params, &[words, symmetric, normal], groups, Work::default())]);
            let stream = Stream::new(seed, purpose, epoch, id);
            let (words, symmetric): (Vec<u32>, Vec<f32>) = (h.read(words), h.read(symmetric));
            let normal: Vec<f32> = h.read(normal);
            for i in 0..COUNT {
                let index = first + i as u32;
                assert_eq!(words[i], stream.word(index), "{index}");
                assert_eq!(symmetric[i].to_bits(), stream.symmetric(index).to_bits(), "{index}");
                farthest = farthest.max((normal[i] - stream.normal(index)).abs());
            }
        }
        println!("normal numbers: {farthest:.2e} apart");
        assert!(farthest <= 1e-6, "{farthest}");
    }
}

const SHAPES: [ImageShape; 4] =
    [ImageShape::new(3, 5, 7), ImageShape::new(1, 8, 8), ImageShape::new(20, 3, 5), ImageShape::new(3, 41, 41)];
const SEED: u64 = 0xfeed_0000_0007;

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect()
}

fn bytes(len: usize, sample: u32) -> Vec<u8> {
    let stream = Stream::new(SEED, Purpose::Test, 1, sample);
    // Black and white are more frequent than by chance, because clipping matters there.
    (0..len as u32).map(|i| (stream.word(i) >> 23).saturating_sub(128).min(255) as u8).collect()
}

/// Bytes padded to whole words for the upload.
fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(4).map(|c| c.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))).collect()
}

/// `B × C × H × W` to `B × H × W × C4`.
fn nhwc(values: &[f32], shape: ImageShape) -> Vec<f32> {
    let plane = shape.height * shape.width;
    let mut moved = Vec::with_capacity(values.len());
    for image in values.chunks(shape.len()) {
        moved.extend((0..shape.len()).map(|i| image[i % shape.channels * plane + i / shape.channels]));
    }
    pad(&moved, shape.channels)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn prepare_gives_the_bits_of_the_host() {
    let augments = [
        None,
        Some(Augment { padding: 4, mode: Padding::Reflect, flip: true }),
        Some(Augment { padding: 2, mode: Padding::Zero, flip: true }),
        Some(Augment { padding: 0, mode: Padding::Zero, flip: true }),
        Some(Augment { padding: 9, mode: Padding::Reflect, flip: false }),
    ];
    for mut h in Harness::both() {
        for (s, &shape) in SHAPES.iter().enumerate() {
            for (n, split) in [(1, 0), (7, 3)] {
                let (pixels, ids) = (bytes(n * shape.len(), s as u32), ids(n));
                let uploaded = h.input(&words(&pixels));
                for augment in augments {
                    let batch =
                        Batch { pixels: &pixels, labels: &vec![0; n], ids: &ids, augment, seed: SEED, epoch: 5 };
                    let call = h.input(&[Call::for_batch(&batch)]);
                    let info = h.input(&ImageInfo::for_batch(&batch));
                    let mut found = Vec::new();
                    for (first, images) in [(0, split), (split, n - split)].into_iter().filter(|(_, n)| *n > 0) {
                        let clean = h.output(4 * images * quads_of(shape));
                        h.run(&[prepare(images, first, shape, uploaded, call, info, clean)]);
                        found.extend(h.read::<f32>(clean));
                    }
                    let expected = nhwc(&batch.prepare(shape), shape);
                    assert_eq!(bits(&found), bits(&expected), "{shape}, {n} images, {augment:?}");
                }
            }
        }
    }
}

#[test]
fn every_byte_becomes_the_float_of_the_host() {
    let shape = ImageShape::new(1, 16, 16);
    let pixels: Vec<u8> = (0..=255).collect();
    let batch = Batch { pixels: &pixels, labels: &[0], ids: &[0], augment: None, seed: 0, epoch: 0 };
    for mut h in Harness::both() {
        let (call, info) = (h.input(&[Call::for_batch(&batch)]), h.input(&ImageInfo::for_batch(&batch)));
        let (uploaded, clean) = (h.input(&words(&pixels)), h.output(4 * 256));
        h.run(&[prepare(1, 0, shape, uploaded, call, info, clean)]);
        assert_eq!(bits(&h.read(clean)), bits(&nhwc(&batch.prepare(shape), shape)));
    }
}

/// Images, and a search with a separate epsilon and step size for each of them.
struct Case {
    shape: ImageShape,
    pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
    spec: SearchSpec,
}

impl Case {
    fn new(shape: ImageShape, n: usize, norm: Norm, start: Start) -> Self {
        let unit = match norm {
            Norm::Linf => 8.0 / 255.0,
            Norm::L2 => 0.5,
        };
        // The second image has epsilon zero.
        let epsilon = (0..n).map(|i| if i == 1 { 0.0 } else { unit * (0.5 + i as f32 / 3.0) }).collect();
        let step_size = (0..n).map(|i| unit * (0.3 + i as f32 / 5.0)).collect();
        let batch_norm = BatchNormMode::Eval;
        let objective = Objective::CrossEntropy;
        let spec =
            SearchSpec { objective, norm, epsilon, step_size, steps: 1, start, batch_norm, ..SearchSpec::default() };
        Self { shape, pixels: bytes(n * shape.len(), 9), labels: vec![0; n], ids: ids(n), spec }
    }

    fn batch(&self) -> Batch<'_> {
        let (pixels, labels, ids) = (&self.pixels, &self.labels, &self.ids);
        Batch { pixels, labels, ids, augment: None, seed: SEED, epoch: 2 }
    }

    fn clean(&self) -> Vec<f32> {
        self.batch().prepare(self.shape)
    }

    /// Projects onto the ball of image `i`, then clips the image to `[0, 1]`.
    fn lead(&self, i: usize, delta: &mut [f32], clean: &[f32]) {
        let epsilon = self.spec.epsilon[i];
        let length = length(delta);
        let factor = if length > epsilon { epsilon / length } else { 1.0 };
        for (d, c) in delta.iter_mut().zip(clean) {
            let projected = match self.spec.norm {
                Norm::Linf => d.min(epsilon).max(-epsilon),
                Norm::L2 => *d * factor,
            };
            *d = projected.max(-c).min(1.0 - c);
        }
    }

    /// The twin of `pgd_start`, in `B × C × H × W`.
    fn start(&self) -> Vec<f32> {
        let (len, clean) = (self.shape.len(), self.clean());
        let mut delta = vec![0.0; clean.len()];
        for (i, delta) in delta.chunks_mut(len).enumerate() {
            match &self.spec.start {
                Start::Zero => {}
                Start::Given(values) => delta.copy_from_slice(&values[i * len..][..len]),
                &Start::Uniform { purpose, epoch } => {
                    let stream = Stream::new(SEED, purpose, epoch, self.ids[i]);
                    match self.spec.norm {
                        Norm::Linf => {
                            (0..len).for_each(|p| delta[p] = stream.symmetric(p as u32) * self.spec.epsilon[i]);
                        }
                        Norm::L2 => stream.fill_ball(self.spec.epsilon[i], delta),
                    }
                }
                &Start::Normal { deviation, purpose, epoch } => {
                    let stream = Stream::new(SEED, purpose, epoch, self.ids[i]);
                    (0..len).for_each(|p| delta[p] = deviation * stream.normal(p as u32));
                }
            }
            self.lead(i, delta, &clean[i * len..][..len]);
        }
        delta
    }

    /// The twin of `pgd_step`.
    fn step(&self, delta: &mut [f32], gradient: &[f32], active: &[bool]) {
        let (len, clean) = (self.shape.len(), self.clean());
        for (i, (delta, gradient)) in delta.chunks_mut(len).zip(gradient.chunks(len)).enumerate() {
            if !active[i] {
                continue;
            }
            let length = length_in_f64(gradient);
            for (d, g) in delta.iter_mut().zip(gradient) {
                let direction = match self.spec.norm {
                    _ if *g == 0.0 => 0.0,
                    Norm::Linf => g.signum(),
                    Norm::L2 => (f64::from(*g) / length) as f32,
                };
                *d += direction * self.spec.step_size[i];
            }
            self.lead(i, delta, &clean[i * len..][..len]);
        }
    }
}

fn length(values: &[f32]) -> f32 {
    length_in_f64(values) as f32
}

/// In `f64`, because squares of the smallest `f32` underflow in `f32`.
fn length_in_f64(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// The initial gradient flags of `n` images.
fn no_flags(h: &mut Harness, n: usize) -> Slice {
    h.input(&vec![0u8; gradient_flags_bytes(n) as usize])
}

fn plus(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The search's tensors on the device, for a range of a case's images.
struct OnDevice {
    images: usize,
    first: usize,
    shape: ImageShape,
    call: Slice,
    info: Slice,
    clean: Slice,
    delta: Slice,
    x: Slice,
    stopped: Slice,
    flags: Slice,
}

impl OnDevice {
    fn new(h: &mut Harness, case: &Case, first: usize, images: usize, active: &[bool]) -> Self {
        let mut info = ImageInfo::for_search(&case.batch(), &case.spec);
        info.iter_mut().zip(active).for_each(|(image, active)| image.status = u32::from(*active));
        let range = first * case.shape.len()..(first + images) * case.shape.len();
        let delta = match &case.spec.start {
            Start::Given(values) => h.input(&nhwc(&values[range.clone()], case.shape)),
            _ => h.output(4 * images * quads_of(case.shape)),
        };
        Self {
            images,
            first,
            shape: case.shape,
            call: h.input(&[Call::for_batch(&case.batch()).with_search(&case.spec)]),
            info: h.input(&info),
            clean: h.input(&nhwc(&case.clean()[range], case.shape)),
            delta,
            x: h.output(4 * images * quads_of(case.shape)),
            stopped: h.input(&[0u32]),
            flags: no_flags(h, case.labels.len()),
        }
    }

    fn start(&self) -> Dispatch {
        folded(pgd_start(self.images, self.first, self.shape, self.call, self.info, self.clean, self.delta, self.x))
    }

    fn step(&self, gradient: Slice) -> Dispatch {
        folded(pgd_step(
            self.images,
            self.first,
            self.shape,
            self.call,
            self.info,
            self.clean,
            gradient,
            self.delta,
            self.x,
            self.stopped,
            self.flags,
        ))
    }
}

/// A grid with rows of three workgroups, so that some are beyond the last image.
fn folded(dispatch: Dispatch) -> Dispatch {
    let grid = [3, dispatch.grid[0] / 3 + 1, 1];
    Dispatch { grid, ..dispatch }
}

/// Every kind of start. Given values exceed the ball and `[0, 1]`.
fn starts(len: usize) -> [Start; 4] {
    let given = random(len, 3).iter().map(|v| 0.2 * v).collect();
    [
        Start::Zero,
        Start::Uniform { purpose: Purpose::AttackStart, epoch: 11 },
        Start::Normal { deviation: 0.01, purpose: Purpose::EvaluationStart, epoch: 2 },
        Start::Given(given),
    ]
}

/// Exact for L∞ with a uniform start. Measured for L2: up to 9e-8.
fn tolerance(norm: Norm, start: &Start) -> f64 {
    match (norm, start) {
        (Norm::Linf, Start::Normal { .. }) | (Norm::L2, _) => 3e-7,
        (Norm::Linf, _) => 0.0,
    }
}

/// Numbers of images, and how many of them are in the first range. Large images come alone, to save time.
fn sizes(shape: ImageShape) -> impl Iterator<Item = (usize, usize)> {
    [(1, 0), (7, 2)].into_iter().take(if shape.len() > 1000 { 1 } else { 2 })
}

#[test]
fn starts_are_those_of_the_twin() {
    let mut farthest = 0.0f64;
    for mut h in Harness::both() {
        for shape in SHAPES {
            for (n, split, norm) in sizes(shape).flat_map(|(n, split)| [(n, split, Norm::Linf), (n, split, Norm::L2)]) {
                for start in starts(n * shape.len()) {
                    let case = Case::new(shape, n, norm, start);
                    let (delta, tolerance) = (case.start(), tolerance(norm, &case.spec.start));
                    let x = plus(&case.clean(), &delta);
                    for (first, images) in [(0, split), (split, n - split)].into_iter().filter(|(_, n)| *n > 0) {
                        let device = OnDevice::new(&mut h, &case, first, images, &[true; 7]);
                        h.run(&[device.start()]);
                        let range = first * shape.len()..(first + images) * shape.len();
                        let expected = nhwc(&delta[range.clone()], shape);
                        farthest = farthest.max(relative_error(&h.read::<f32>(device.delta), &expected));
                        let what = format!("start {shape} {norm:?}");
                        h.expect(&what, device.delta, &expected, tolerance);
                        h.expect(&what, device.x, &nhwc(&x[range], shape), tolerance);
                    }
                }
            }
        }
    }
    println!("starts: {farthest:.2e} apart");
}

/// Gradients of very different magnitudes, including zeros of both signs, and one image with a zero gradient.
fn gradient(shape: ImageShape, n: usize, sample: u32) -> Vec<f32> {
    let mut values = random(n * shape.len(), sample);
    for (i, image) in values.chunks_mut(shape.len()).enumerate() {
        let scale = if i == 2 { 0.0 } else { [1e-7, 1.0, 1e4][i % 3] };
        image.iter_mut().for_each(|v| *v *= scale);
        image.iter_mut().step_by(5).for_each(|v| *v *= 0.0);
    }
    values
}

#[test]
fn steps_are_those_of_the_twin() {
    let mut farthest = 0.0f64;
    for mut h in Harness::both() {
        for shape in SHAPES {
            for (n, norm) in sizes(shape).flat_map(|(n, _)| [(n, Norm::Linf), (n, Norm::L2)]) {
                let start = Start::Uniform { purpose: Purpose::AttackStart, epoch: 1 };
                let case = Case::new(shape, n, norm, start);
                let active: Vec<bool> = (0..n).map(|i| i % 4 != 3).collect();
                let device = OnDevice::new(&mut h, &case, 0, n, &active);
                let gradients = [5, 6, 7].map(|sample| gradient(shape, n, sample));
                let uploaded = gradients.each_ref().map(|g| h.input(&nhwc(g, shape)));
                h.run(&[device.start()]);
                h.run(&uploaded.map(|g| device.step(g)));
                let mut delta = case.start();
                gradients.iter().for_each(|g| case.step(&mut delta, g, &active));
                let expected = nhwc(&delta, shape);
                farthest = farthest.max(relative_error(&h.read::<f32>(device.delta), &expected));
                let (what, tolerance) = (format!("step {shape} {norm:?}"), tolerance(norm, &case.spec.start));
                h.expect(&what, device.delta, &expected, tolerance);
                h.expect(&what, device.x, &nhwc(&plus(&case.clean(), &delta), shape), tolerance);
            }
        }
    }
    println!("steps: {farthest:.2e} apart");
}

#[test]
fn perturbations_stay_in_ball_and_box_and_padding_stays_zero() {
    let shape = ImageShape::new(3, 5, 7);
    for mut h in Harness::both() {
        for norm in [Norm::Linf, Norm::L2] {
            let case = Case::new(shape, 7, norm, Start::Uniform { purpose: Purpose::AttackStart, epoch: 0 });
            let device = OnDevice::new(&mut h, &case, 0, 7, &[true; 7]);
            let uploaded = [5, 6, 7, 8].map(|sample| h.input(&nhwc(&gradient(shape, 7, sample), shape)));
            h.run(&[device.start()]);
            h.run(&uploaded.map(|g| device.step(g)));
            let (delta, x): (Vec<f32>, Vec<f32>) = (h.read(device.delta), h.read(device.x));
            assert!(x.iter().all(|v| (0.0..=1.0).contains(v)));
            assert!(delta.iter().chain(&x).skip(3).step_by(4).all(|v| *v == 0.0));
            for (delta, epsilon) in delta.chunks(4 * quads_of(shape)).zip(&case.spec.epsilon) {
                let size = match norm {
                    Norm::Linf => delta.iter().fold(0.0f32, |size, d| size.max(d.abs())),
                    Norm::L2 => length(delta),
                };
                let allowed = if norm == Norm::L2 { epsilon * (1.0 + 3e-7) } else { *epsilon };
                assert!(size <= allowed, "{norm:?}: {size}, ball {epsilon}");
            }
        }
    }
}

/// A nearly certain network has subnormal gradients: their signs count too.
#[test]
fn tiny_gradients_count() {
    let shape = ImageShape::new(1, 1, 4);
    for mut h in Harness::both() {
        let mut case = Case::new(shape, 1, Norm::Linf, Start::Zero);
        case.pixels = vec![128; 4];
        let device = OnDevice::new(&mut h, &case, 0, 1, &[true]);
        let tiny = h.input(&nhwc(&[1e-40, -1e-42, f32::from_bits(1), -0.0], shape));
        h.run(&[device.start(), device.step(tiny)]);
        let delta: Vec<f32> = h.read(device.delta);
        let step = case.spec.step_size[0];
        assert_eq!([delta[0], delta[4], delta[8], delta[12]], [step, -step, step, 0.0]);
        assert_eq!(h.read::<u32>(device.flags), [0; 5]);
    }
}

/// The direction has length one for any magnitude of the gradient, even if its squares overflow or underflow in `f32`.
#[test]
fn a_gradient_of_any_size_has_a_direction_in_an_l2_ball() {
    let shape = ImageShape::new(3, 5, 7);
    let smallest = f32::from_bits(1);
    for mut h in Harness::both() {
        for size in [3e38, 1e30, 1e19, 1.0, 1e-12, 1e-19, 1e-30, 1.2e-38, 1e-40, 1000.0 * smallest] {
            let mut case = Case::new(shape, 1, Norm::L2, Start::Zero);
            case.pixels = vec![128; shape.len()];
            (case.spec.epsilon[0], case.spec.step_size[0]) = (1.0, 0.25);
            // Smaller than one, so that the largest gradient is finite.
            let values: Vec<f32> = random(shape.len(), 4).iter().map(|v| v.clamp(-4.0, 4.0) / 4.0 * size).collect();
            let device = OnDevice::new(&mut h, &case, 0, 1, &[true]);
            let uploaded = h.input(&nhwc(&values, shape));
            h.run(&[device.start(), device.step(uploaded)]);
            let mut expected = case.start();
            case.step(&mut expected, &values, &[true]);
            h.expect(&format!("direction of {size:e}"), device.delta, &nhwc(&expected, shape), 1e-6);
            let moved = length(&h.read::<f32>(device.delta));
            assert!((moved - 0.25).abs() < 1e-6, "{size:e}: {moved}");
            assert_eq!(h.read::<u32>(device.flags), [0; 5]);
        }
    }
}

/// A gradient is zero only if every value is zero; the smallest number is not. Images that do not move are not
/// examined.
#[test]
fn images_whose_gradient_is_zero_are_flagged_in_their_range() {
    let shape = ImageShape::new(3, 5, 7);
    for mut h in Harness::both() {
        for norm in [Norm::Linf, Norm::L2] {
            let case = Case::new(shape, 7, norm, Start::Uniform { purpose: Purpose::AttackStart, epoch: 0 });
            let active: Vec<bool> = (0..7).map(|i| i != 5).collect();
            let mut values = random(7 * shape.len(), 3);
            for (image, lone) in [(1, -0.0), (2, f32::from_bits(1)), (4, 0.0), (5, 0.0), (6, -1e-30)] {
                let image = &mut values[image * shape.len()..][..shape.len()];
                image.fill(0.0);
                image[17] = lone;
            }
            let flags = no_flags(&mut h, 7);
            let mut deltas = Vec::new();
            for (first, images) in [(0, 2), (2, 5)] {
                let mut device = OnDevice::new(&mut h, &case, first, images, &active);
                device.flags = flags;
                let uploaded = h.input(&nhwc(&values[first * shape.len()..][..images * shape.len()], shape));
                h.run(&[device.start(), device.step(uploaded)]);
                deltas.extend(h.read::<f32>(device.delta));
            }
            let mut expected = case.start();
            case.step(&mut expected, &values, &active);
            assert!(relative_error(&deltas, &nhwc(&expected, shape)) < 3e-7, "{norm:?}");
            assert_eq!(h.read::<u32>(flags), [0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0], "{norm:?}");
        }
    }
}

/// An image whose gradient is not finite does not move and is reported; the others move.
#[test]
fn a_gradient_that_is_not_finite_moves_nothing_and_raises_the_flag() {
    let shape = ImageShape::new(1, 3, 5);
    for mut h in Harness::both() {
        for norm in [Norm::Linf, Norm::L2] {
            for (at, bad) in [(0, f32::NAN), (14, -f32::NAN), (7, f32::INFINITY), (3, f32::NEG_INFINITY)] {
                let case = Case::new(shape, 3, norm, Start::Zero);
                let device = OnDevice::new(&mut h, &case, 0, 3, &[true; 3]);
                let mut values = gradient(shape, 3, 1);
                values[15 + at] = bad;
                let poisoned = h.input(&nhwc(&values, shape));
                h.run(&[device.start(), device.step(poisoned)]);
                let delta: Vec<f32> = h.read(device.delta);
                let moved = |image: usize| delta[60 * image..60 * (image + 1)].iter().any(|d| *d != 0.0);
                assert_eq!([0, 1].map(moved), [true, false], "{norm:?} {bad}");
                assert_eq!(h.read::<u32>(device.flags), [1, 0, 0, 0, 0, 0, 1], "{norm:?} {bad}");
            }
            // No image moves once a logit was not finite.
            let case = Case::new(shape, 3, norm, Start::Zero);
            let mut device = OnDevice::new(&mut h, &case, 0, 3, &[true; 3]);
            device.stopped = h.input(&[1u32]);
            let sound = h.input(&nhwc(&gradient(shape, 3, 1), shape));
            h.run(&[device.start(), device.step(sound)]);
            assert!(h.read::<f32>(device.delta).iter().all(|d| *d == 0.0), "{norm:?}");
            assert_eq!(h.read::<u32>(device.flags), [0; 7]);
        }
    }
}

#[test]
fn the_same_search_gives_the_same_bits() {
    let shape = ImageShape::new(3, 20, 19);
    for mut h in Harness::both() {
        for norm in [Norm::Linf, Norm::L2] {
            let case = Case::new(shape, 7, norm, Start::Normal { deviation: 0.1, purpose: Purpose::Test, epoch: 0 });
            let gradient = h.input(&nhwc(&gradient(shape, 7, 1), shape));
            let found = [0; 2].map(|_| {
                let device = OnDevice::new(&mut h, &case, 0, 7, &[true; 7]);
                h.run(&[device.start(), device.step(gradient)]);
                bits(&h.read(device.x))
            });
            assert!(found[0] == found[1], "{norm:?}");
        }
    }
}
