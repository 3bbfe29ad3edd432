use super::super::conv::tests::{Case, conv};
use super::super::gemm::{BROADCAST_TILES, HUGE, MEDIUM, NARROW, SMALL, TALL, WIDE};
use super::super::norm;
use super::*;
use crate::engine::wgsl::harness::{Harness, pad, random, relative_error};
use crate::engine::wgsl::kernels::pointwise;

const UNLIMITED: u64 = u64::MAX;
const BINDING: u64 = 128 << 20;
const PASSES: [Pass; 2] = [Pass::Forward, Pass::InputGradient];

fn product(conv: Conv, pass: Pass, outputs: usize, tile: Tile) -> Product {
    Product { conv, pass, outputs, tile, budget: UNLIMITED, binding: BINDING }
}

/// Buffers of one pass around its source.
fn places(h: &mut Harness, p: &Product, images: usize, source: Slice, weight: Slice) -> Places {
    let u = h.output(weight_len(&p.conv, p.outputs));
    h.run(&[transform_weight(&p.conv, p.outputs, weight, u)]);
    let [v, m] = p.workspace(images).map(|bytes| h.output(bytes as usize / 4));
    let [height, width, channels] = p.sides().1;
    let result = h.output(images * height * width * padded(channels));
    let (read, finish) = (Read::Plain, Finish::Nothing);
    Places { source, read, u, v, m, result, add: None, finish, first_block: 0 }
}

/// The matrices of shared/winograd_*.wgsl in `f64`, from their points: Bᵀ, G, Aᵀ.
fn matrices(outputs: usize) -> [Vec<Vec<f64>>; 3] {
    let points: &[f64] = if outputs == 4 {
        &[
            0.0,
            std::f64::consts::FRAC_1_SQRT_2,
            -std::f64::consts::FRAC_1_SQRT_2,
            std::f64::consts::SQRT_2,
            -std::f64::consts::SQRT_2,
        ]
    } else {
        &[0.0, 1.0, -1.0]
    };
    // Coefficients of the product of (x - p), lowest first.
    let polynomial = |roots: &mut dyn Iterator<Item = f64>| {
        roots.fold(vec![1.0], |p: Vec<f64>, root| {
            let mut next = vec![0.0; p.len() + 1];
            for (i, c) in p.iter().enumerate() {
                next[i + 1] += c;
                next[i] -= root * c;
            }
            next
        })
    };
    let (mut b, mut g) = (Vec::new(), Vec::new());
    for (i, p) in points.iter().enumerate() {
        let mut row = polynomial(&mut points.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, q)| *q));
        row.push(0.0);
        let scale: f64 = points.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, q)| p - q).product();
        b.push(row);
        g.push((0..3).map(|k| p.powi(k) / scale).collect());
    }
    b.push(polynomial(&mut points.iter().copied()));
    g.push(vec![0.0, 0.0, 1.0]);
    let a = (0..outputs).map(|r| {
        let last = if r + 1 == outputs { 1.0 } else { 0.0 };
        points.iter().map(|p| p.powi(r as i32)).chain([last]).collect()
    });
    [b, g, a.collect()]
}

fn times(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| row.iter().zip(vector).map(|(a, b)| a * b).sum()).collect()
}

#[test]
fn the_points_give_a_correlation_and_reversed_taps_are_slots_in_another_order() {
    for outputs in [2, 4] {
        let [b, g, a] = matrices(outputs);
        let d: Vec<f64> = random(outputs + 2, 0).into_iter().map(f64::from).collect();
        let taps: Vec<f64> = random(3, 1).into_iter().map(f64::from).collect();
        let (v, u) = (times(&b, &d), times(&g, &taps));
        let y = times(&a, &v.iter().zip(&u).map(|(v, u)| v * u).collect::<Vec<_>>());
        for (i, y) in y.iter().enumerate() {
            let direct: f64 = (0..3).map(|k| taps[k] * d[i + k]).sum();
            assert!((y - direct).abs() < 1e-13, "F({outputs},3), output {i}: {y} against {direct}");
        }
        let reversed = times(&g, &taps.iter().rev().copied().collect::<Vec<_>>());
        let (slots, scales): (&[usize], &[f64]) = if outputs == 4 {
            (&[5, 3, 4, 1, 2, 0], &[1.0, -2.0, -2.0, -0.5, -0.5, 1.0])
        } else {
            // The shaders flip the sign of point 0 on both sides, so the scale is 1 everywhere.
            (&[3, 1, 2, 0], &[-1.0, 1.0, 1.0, -1.0])
        };
        for (i, r) in reversed.iter().enumerate() {
            assert!((r - scales[i] * u[slots[i]]).abs() < 1e-13);
        }
    }
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut add = |images, channels, size, padding| all.push(Case::new(conv(channels, size, 3, 1, padding), images));
    add(1, [20, 5], [41, 41], 1);
    add(7, [20, 5], [41, 41], 1);
    add(2, [64, 68], [8, 8], 1);
    add(3, [3, 10], [13, 9], 1);
    add(5, [9, 6], [1, 1], 1);
    add(2, [130, 33], [4, 4], 1);
    add(1, [6, 7], [5, 7], 2);
    add(2, [6, 7], [6, 9], 0);
    all
}

#[test]
fn both_passes_match_their_twins() {
    let mut worst = [[0.0_f64; 2]; 2];
    for case in cases() {
        let [y, dx, _] = case.twin();
        for mut h in Harness::both() {
            let [x, w, dy] = case.upload(&mut h);
            for (o, outputs) in [2, 4].into_iter().enumerate() {
                for (i, (pass, expected)) in PASSES.into_iter().zip([&y, &dx]).enumerate() {
                    let p = product(case.conv, pass, outputs, fixed_tile(&case.conv, pass, outputs));
                    let places = places(&mut h, &p, case.images, [x, dy][i], w);
                    h.run(&p.dispatches(case.images, &places));
                    let what = format!("F({outputs},3), {pass:?} of {:?}", case.conv);
                    h.expect(&what, places.result, expected, if outputs == 4 { 2e-6 } else { 1e-6 });
                    worst[o][i] = worst[o][i].max(relative_error(&h.read::<f32>(places.result), expected));
                }
            }
        }
    }
    println!(
        "worst relative errors, forward and input gradient: F(2,3) {:.1e} {:.1e}, F(4,3) {:.1e} {:.1e}",
        worst[0][0], worst[0][1], worst[1][0], worst[1][1]
    );
}

#[test]
fn every_tile_gives_the_same_sums() {
    let case = Case::new(conv([40, 72], [9, 10], 3, 1, 1), 3);
    let [y, dx, _] = case.twin();
    let mut bits: [Option<Vec<u32>>; 2] = [None, None];
    let mut check = |h: &mut Harness, tiles: &[Tile]| {
        let [x, w, dy] = case.upload(h);
        for ((pass, bits), (source, expected)) in PASSES.into_iter().zip(&mut bits).zip([(x, &y), (dy, &dx)]) {
            for tile in tiles {
                let p = product(case.conv, pass, 4, *tile);
                let places = places(h, &p, case.images, source, w);
                h.run(&p.dispatches(case.images, &places));
                h.expect(&format!("{pass:?} with {tile}"), places.result, expected, 2e-6);
                // The depth is summed in order for every tile.
                let found: Vec<u32> = h.read(places.result);
                assert!(bits.get_or_insert_with(|| found.clone()) == &found, "{pass:?} with {tile}");
            }
        }
    };
    check(&mut Harness::new(crate::engine::wgsl::Checks::On), &[WIDE, MEDIUM, SMALL, NARROW, TALL, HUGE]);
    for mut h in Harness::with_subgroups().into_iter().flatten() {
        check(&mut h, &BROADCAST_TILES);
    }
}

#[test]
fn images_in_several_chunks_give_the_same_bits() {
    let case = Case::new(conv([16, 20], [10, 9], 3, 1, 1), 5);
    let mut h = Harness::new(crate::engine::wgsl::Checks::Off);
    let [x, w, _] = case.upload(&mut h);
    let whole = product(case.conv, Pass::Forward, 4, NARROW);
    let run = |h: &mut Harness, p: Product| {
        let places = places(h, &p, case.images, x, w);
        let blocks = p.blocks(case.images);
        let partials = h.output(norm::partials_len(blocks, 20));
        let places = Places { finish: Finish::Statistics { partials }, ..places };
        let dispatches = p.dispatches(case.images, &places);
        h.run(&dispatches);
        (dispatches.len(), h.read::<u32>(places.result))
    };
    let (one, bits) = run(&mut h, whole);
    let limited = [
        Product { budget: 2 * whole.image_flops(), ..whole },
        Product { binding: 2 * whole.image_bytes()[1], ..whole },
        Product { budget: 1, ..whole },
    ];
    assert_eq!(one, 3);
    for (p, dispatches) in limited.into_iter().zip([9, 9, 15]) {
        let (count, found) = run(&mut h, p);
        assert_eq!(count, dispatches);
        assert!(found == bits, "{p:?}");
        let largest = p.workspace(case.images).into_iter().max().unwrap();
        assert!(
            p.dispatches(5, &Places { finish: Finish::Nothing, ..places(&mut h, &p, 5, x, w) }).len() == dispatches
                && largest <= p.binding
        );
    }
}

/// A batch norm of `channels` over `rows`: its input, and scale, shift, mean, rstd on the device.
struct Norm {
    input: Slice,
    affine: Slice,
    means: Slice,
}

impl Norm {
    fn new(h: &mut Harness, rows: usize, channels: usize) -> Self {
        let input: Vec<f32> = random(rows * channels, 30).iter().map(|v| 1.5 * v + 0.3).collect();
        let input = h.input(&pad(&input, channels));
        let affine: Vec<f32> = (40..44)
            .flat_map(|s| pad(&random(channels, s).iter().map(|v| 0.5 * v).collect::<Vec<_>>(), channels))
            .collect();
        let means: Vec<f32> = (50..52)
            .flat_map(|s| pad(&random(channels, s).iter().map(|v| 0.1 * v).collect::<Vec<_>>(), channels))
            .collect();
        Self { input, affine: h.input(&affine), means: h.input(&means) }
    }
}

/// Values computed on load are those that a separate kernel writes.
#[test]
fn reading_through_batch_norm_is_batch_norm_then_reading() {
    let case = Case::new(conv([14, 18], [9, 11], 3, 1, 1), 2);
    let (c, n) = (case.conv, case.images);
    let rows = n * 9 * 11;
    for mut h in Harness::both() {
        let [_, w, dy] = case.upload(&mut h);
        for relu in [false, true] {
            let norm = Norm::new(&mut h, rows, 14);
            let p = product(c, Pass::Forward, 4, NARROW);
            let fused = places(&mut h, &p, n, norm.input, w);
            let fused = Places { read: Read::Norm { norm: norm.affine, relu }, ..fused };
            h.run(&p.dispatches(n, &fused));
            let between = h.output(rows * 16);
            let apart = places(&mut h, &p, n, between, w);
            h.run(&[norm::apply(rows as u64, 14, relu, norm.input, norm.affine, between)]);
            h.run(&p.dispatches(n, &apart));
            h.expect("forward through batch norm", fused.result, &h.read::<f32>(apart.result), 1e-6);

            for batch in [false, true] {
                let norm = Norm::new(&mut h, rows, 18);
                let means = batch.then_some(norm.means);
                let p = product(c, Pass::InputGradient, 4, NARROW);
                let fused = places(&mut h, &p, n, dy, w);
                let read = Read::NormBackward { norm: norm.affine, relu, input: norm.input, means };
                h.run(&p.dispatches(n, &Places { read, ..fused }));
                let between = h.output(rows * 20);
                let apart = places(&mut h, &p, n, between, w);
                let apply =
                    norm::backward_apply(rows as u64, 18, relu, norm.input, dy, norm.affine, means, None, between);
                h.run(&[apply]);
                h.run(&p.dispatches(n, &apart));
                h.expect("backward through batch norm", fused.result, &h.read::<f32>(apart.result), 1e-6);
            }
        }
    }
}

/// Residual additions and sums are those of separate kernels.
#[test]
fn the_epilogue_computes_the_same_as_separate_kernels() {
    const EPSILON: f32 = 1e-5;
    for (channels, size, images) in [([14, 18], [9, 11], 2), ([20, 70], [5, 3], 7), ([12, 12], [1, 1], 1)] {
        let case = Case::new(conv(channels, size, 3, 1, 1), images);
        let rows = images * size[0] * size[1];
        for (mut h, outputs) in Harness::both().into_iter().zip([2, 4]) {
            let [x, w, dy] = case.upload(&mut h);
            let forward = product(case.conv, Pass::Forward, outputs, NARROW);
            let width = padded(channels[1]);
            let other = h.input(&pad(&random(rows * channels[1], 60), channels[1]));
            let plain = places(&mut h, &forward, images, x, w);
            let sum = h.output(rows * width);
            h.run(&forward.dispatches(images, &plain));
            h.run(&[pointwise::add((rows * width / 4) as u64, plain.result, other, sum)]);
            let blocks = forward.blocks(images);
            let partials = h.output(norm::partials_len(blocks, channels[1]));
            let fused = places(&mut h, &forward, images, x, w);
            let fused = Places { add: Some(other), finish: Finish::Statistics { partials }, ..fused };
            h.run(&forward.dispatches(images, &fused));
            h.expect("result and residual", fused.result, &h.read::<f32>(sum), 0.0);
            let [weight, bias] = [70, 71].map(|s| h.input(&pad(&random(channels[1], s), channels[1])));
            let affine = |h: &mut Harness, partials, blocks| {
                let (running, affine) = (h.input(&vec![0.0f32; 2 * width]), h.output(4 * width));
                h.run(&[norm::finalize(blocks, channels[1], EPSILON, 0.1, partials, weight, bias, running, affine)]);
                [h.read::<f32>(affine), h.read::<f32>(running)].concat()
            };
            let apart = h.output(norm::partials_len(norm::statistics_blocks(rows as u64), channels[1]));
            h.run(&[norm::statistics(rows as u64, channels[1], sum, apart, 0)]);
            let expected = affine(&mut h, apart, norm::statistics_blocks(rows as u64));
            let found = affine(&mut h, partials, blocks);
            assert!(relative_error(&found, &expected) < 1e-6, "{}", relative_error(&found, &expected));

            let backward = product(case.conv, Pass::InputGradient, outputs, NARROW);
            let width = padded(channels[0]);
            let norm_of = Norm::new(&mut h, rows, channels[0]);
            let other = h.input(&pad(&random(rows * channels[0], 61), channels[0]));
            for relu in [false, true] {
                let plain = places(&mut h, &backward, images, dy, w);
                let sum = h.output(rows * width);
                h.run(&backward.dispatches(images, &plain));
                h.run(&[pointwise::add((rows * width / 4) as u64, plain.result, other, sum)]);
                let count = norm::statistics_blocks(rows as u64);
                let apart = h.output(norm::partials_len(count, channels[0]));
                let (input, norm) = (norm_of.input, norm_of.affine);
                h.run(&[norm::backward_sums(rows as u64, channels[0], relu, input, sum, norm, apart, 0)]);
                let blocks = backward.blocks(images);
                let partials = h.output(norm::partials_len(blocks, channels[0]));
                let finish = Finish::Sums { partials, norm, relu, input };
                let fused = places(&mut h, &backward, images, dy, w);
                let fused = Places { add: Some(other), finish, ..fused };
                h.run(&backward.dispatches(images, &fused));
                let means = |h: &mut Harness, partials, blocks| {
                    let means = h.output(2 * width);
                    h.run(&[norm::backward_finalize(blocks, channels[0], rows as u64, partials, means, None)]);
                    h.read::<f32>(means)
                };
                let (expected, found) = (means(&mut h, apart, count), means(&mut h, partials, blocks));
                assert!(relative_error(&found, &expected) < 2e-6, "{}", relative_error(&found, &expected));
                // Values masked by the ReLU are already zero; batch norm's backward pass gives the same result from
                // them.
                let apply = |h: &mut Harness, dy| {
                    let (means, dx) = (norm_of.means, h.output(rows * width));
                    let dispatch =
                        norm::backward_apply(rows as u64, channels[0], relu, input, dy, norm, Some(means), None, dx);
                    h.run(&[dispatch]);
                    h.read::<f32>(dx)
                };
                let (expected, found) = (apply(&mut h, sum), apply(&mut h, fused.result));
                assert!(found == expected, "{relu}");
            }
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_and_padding_stays_zero() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut case = Case::new(conv([14, 18], [9, 11], 3, 1, 1), 2);
        // Row 5, column 4 of the first image, channel 3.
        case.x[(5 * 11 + 4) * 14 + 3] = bad;
        for mut h in Harness::both() {
            let [x, w, _] = case.upload(&mut h);
            let p = product(case.conv, Pass::Forward, 4, NARROW);
            let places = places(&mut h, &p, 2, x, w);
            h.run(&p.dispatches(2, &places));
            let y: Vec<f32> = h.read(places.result);
            for (pixel, values) in y.chunks(20).enumerate() {
                let (row, column) = (pixel / 11, pixel % 11);
                if (4..=6).contains(&row) && (3..=5).contains(&column) {
                    assert!(values[..18].iter().all(|v| !v.is_finite()), "{bad} is lost at {row}, {column}");
                }
                assert!(values[18..].iter().all(|v| v.to_bits() == 0), "{bad} in the padding of {row}, {column}");
            }
            assert!(y[9 * 11 * 20..].iter().all(|v| v.is_finite()), "{bad} went to another image");
        }
    }
}

#[test]
fn every_dispatch_is_a_listed_variant() {
    let all = variants();
    let slice = Slice { buffer: crate::engine::wgsl::kernel::BufferId(0), offset: 0, size: 0 };
    for outputs in [2, 4] {
        for pass in PASSES {
            let p = product(conv([64, 64], [32, 32], 3, 1, 1), pass, outputs, WIDE);
            let norm_backward = |relu, means| Read::NormBackward { norm: slice, relu, input: slice, means };
            let reads: &[Read] = if pass == Pass::Forward {
                &[Read::Plain, Read::Norm { norm: slice, relu: true }, Read::Norm { norm: slice, relu: false }]
            } else {
                &[Read::Plain, norm_backward(true, None), norm_backward(false, Some(slice))]
            };
            for read in reads {
                let finish = if pass == Pass::Forward {
                    Finish::Statistics { partials: slice }
                } else {
                    Finish::Sums { partials: slice, norm: slice, relu: true, input: slice }
                };
                for finish in [Finish::Nothing, finish] {
                    let add = (outputs == 2).then_some(slice);
                    let places = Places {
                        source: slice,
                        read: *read,
                        u: slice,
                        v: slice,
                        m: slice,
                        result: slice,
                        add,
                        finish,
                        first_block: 0,
                    };
                    for dispatch in p.dispatches(128, &places) {
                        assert!(all.contains(&dispatch.kernel), "{}", dispatch.kernel.label());
                        assert!(dispatch.grid.iter().all(|g| *g <= 65_535) && dispatch.bindings.len() <= 8);
                    }
                }
            }
        }
    }
}
