use super::*;
use crate::engine::wgsl::harness::{Harness, pad, random};
use crate::engine::wgsl::kernels::pointwise::tests::{assert_padding, folded};

const EPSILON: f32 = 1e-5;
const MOMENTUM: f32 = 0.1;

/// A batch norm layer and its values, in double precision and without padding.
struct Twin {
    channels: usize,
    x: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

impl Twin {
    fn rows(&self) -> usize {
        self.x.len() / self.channels
    }

    fn channel(&self, c: usize) -> impl Iterator<Item = f64> {
        self.x.iter().skip(c).step_by(self.channels).copied()
    }

    /// Mean and biased variance of each channel.
    fn moments(&self) -> [Vec<f64>; 2] {
        let m = self.rows() as f64;
        let mean: Vec<f64> = (0..self.channels).map(|c| self.channel(c).sum::<f64>() / m).collect();
        let square = |c: usize| self.channel(c).map(|x| (x - mean[c]) * (x - mean[c])).sum::<f64>() / m;
        let variance = (0..self.channels).map(square).collect();
        [mean, variance]
    }

    /// Scale, shift, mean, rstd.
    fn affine(&self, [mean, variance]: &[Vec<f64>; 2]) -> [Vec<f64>; 4] {
        let rstd: Vec<f64> = variance.iter().map(|v| 1.0 / (v + f64::from(EPSILON)).sqrt()).collect();
        let scale: Vec<f64> = self.weight.iter().zip(&rstd).map(|(w, r)| w * r).collect();
        let shift = (0..self.channels).map(|c| self.bias[c] - mean[c] * scale[c]).collect();
        [scale, shift, mean.clone(), rstd]
    }

    fn apply(&self, [scale, shift, ..]: &[Vec<f64>; 4], relu: bool) -> Vec<f64> {
        let value = |(i, x): (usize, &f64)| scale[i % self.channels] * x + shift[i % self.channels];
        let values = self.x.iter().enumerate().map(value);
        values.map(|y| if relu && y < 0.0 { 0.0 } else { y }).collect()
    }

    /// Gradient of the input, `Σ g` and `Σ g · x̂`. Without `batch`, the statistics are constants.
    fn backward(&self, affine: &[Vec<f64>; 4], dy: &[f64], relu: bool, batch: bool) -> [Vec<f64>; 3] {
        let [scale, _, mean, rstd] = affine;
        let c = self.channels;
        let y = self.apply(affine, false);
        let g: Vec<f64> = dy.iter().zip(&y).map(|(dy, y)| if relu && *y <= 0.0 { 0.0 } else { *dy }).collect();
        let normal: Vec<f64> = self.x.iter().enumerate().map(|(i, x)| (x - mean[i % c]) * rstd[i % c]).collect();
        let (mut sums, mut products) = (vec![0.0; c], vec![0.0; c]);
        for (i, g) in g.iter().enumerate() {
            sums[i % c] += g;
            products[i % c] += g * normal[i];
        }
        let (m, on) = (self.rows() as f64, f64::from(u8::from(batch)));
        let dx = |i: usize| scale[i % c] * (g[i] - on * (sums[i % c] + normal[i] * products[i % c]) / m);
        [(0..g.len()).map(dx).collect(), sums, products]
    }
}

/// Padded rows, such as an affine.
fn padded_rows(rows: &[Vec<f64>]) -> Vec<f32> {
    rows.iter().flat_map(|row| pad(&narrow(row), row.len())).collect()
}

fn layer(rows: usize, channels: usize, sample: u32) -> Twin {
    let x: Vec<f32> = random(rows * channels, sample).iter().map(|x| 2.0 * x + 1.5).collect();
    let (weight, bias) = (wide(&random(channels, sample + 1)), wide(&random(channels, sample + 2)));
    Twin { channels, x: wide(&x), weight, bias }
}

/// The buffers of a layer that ran forward with batch statistics on a batch of two ranges.
struct Run {
    /// Rows of the ranges, their inputs and their first blocks.
    ranges: Vec<(u64, Slice, usize)>,
    blocks: usize,
    running: Slice,
    affine: Slice,
}

/// The rows of a batch in two ranges, or in one if there is only one row.
fn cut(rows: usize) -> Vec<std::ops::Range<usize>> {
    let middle = rows / 3 + 1;
    [0..middle, middle..rows].into_iter().filter(|range| !range.is_empty()).collect()
}

fn forward(h: &mut Harness, twin: &Twin, running: &[f32]) -> Run {
    let c = twin.channels;
    let mut ranges = Vec::new();
    let mut blocks = 0;
    for range in cut(twin.rows()) {
        let x = h.input(&pad(&narrow(&twin.x[range.start * c..range.end * c]), c));
        ranges.push((range.len() as u64, x, blocks));
        blocks += statistics_blocks(range.len() as u64);
    }
    let partials = h.output(partials_len(blocks, c));
    let weight = h.input(&pad(&narrow(&twin.weight), c));
    let bias = h.input(&pad(&narrow(&twin.bias), c));
    let running = h.input(&pad(running, c));
    let affine = h.output(4 * padded(c));
    let mut dispatches: Vec<Dispatch> =
        ranges.iter().map(|(rows, x, first)| folded(statistics(*rows, c, *x, partials, *first))).collect();
    dispatches.push(finalize(blocks, c, EPSILON, MOMENTUM, partials, weight, bias, running, affine));
    h.run(&dispatches);
    Run { ranges, blocks, running, affine }
}

/// Rows and channels: each assignment of quads to lanes, one row, more blocks than lanes, 41 × 41 images.
const CASES: [(usize, usize); 11] = [
    (7 * 41 * 41, 20),
    (41 * 41, 10),
    (1, 5),
    (7, 3),
    (7 * 4 * 4, 640),
    (300, 36),
    (1000, 12),
    (513, 44),
    (259, 28),
    (768, 8),
    (66_000, 1),
];

/// The largest relative error measured is 1.5e-7.
const TOLERANCE: f64 = 4e-7;

#[test]
fn training_matches_its_twin() {
    let mut harnesses = Harness::both();
    for (rows, channels) in CASES {
        let twin = layer(rows, channels, 0);
        let running = random(2 * channels, 3);
        // Correlated with x, so that no sum of products cancels.
        let dy: Vec<f32> = random(rows * channels, 4).iter().zip(&twin.x).map(|(n, x)| n + 0.2 * *x as f32).collect();
        let moments = twin.moments();
        let affine = twin.affine(&moments);
        let [mean, variance] = moments;
        let unbiased = rows as f64 / (rows as f64 - 1.0).max(1.0);
        let batch = mean.iter().copied().chain(variance.iter().map(|v| v * unbiased));
        let moved: Vec<f64> = running.iter().zip(batch).map(|(r, b)| 0.9 * f64::from(*r) + 0.1 * b).collect();
        // A variance of zero leaves a scale of 316, and scale · x + shift cancels all but 18 bits (measured: 2.7e-5).
        let tolerance = if rows == 1 { 1e-4 } else { TOLERANCE };
        let runs = harnesses.each_mut().map(|h| {
            let what = format!("{rows} × {channels}");
            let run = forward(h, &twin, &running);
            h.expect(&format!("{what}: affine"), run.affine, &padded_rows(&affine), TOLERANCE);
            assert_padding(&h.read(run.affine), channels);
            h.expect(&format!("{what}: running"), run.running, &pad(&narrow(&moved), channels), TOLERANCE);
            run
        });
        for relu in [false, true] {
            let y = narrow(&twin.apply(&affine, relu));
            let back = twin.backward(&affine, &wide(&dy), relu, true);
            for (h, run) in harnesses.iter_mut().zip(&runs) {
                for ((rows, x, _), range) in run.ranges.iter().zip(cut(rows)) {
                    let part = range.start * channels..range.end * channels;
                    let out = h.output(*rows as usize * padded(channels));
                    h.run(&[folded(apply(*rows, channels, relu, *x, run.affine, out))]);
                    h.expect(&format!("{rows} × {channels}: y"), out, &pad(&y[part], channels), tolerance);
                    assert_padding(&h.read(out), channels);
                }
                backward_matches(h, run, channels, relu, &dy, &back);
            }
        }
    }
}

/// The whole backward pass after [`forward`], compared with the twin's input gradient, `Σ g` and `Σ g · x̂`.
fn backward_matches(h: &mut Harness, run: &Run, channels: usize, relu: bool, dy: &[f32], twin: &[Vec<f64>; 3]) {
    let [dx, sums, products] = twin;
    let rows = dy.len() / channels;
    let what = format!("{rows} × {channels}, relu {relu}");
    let partials = h.output(partials_len(run.blocks, channels));
    let mut gradients = Vec::new();
    for ((rows, x, first), range) in run.ranges.iter().zip(cut(rows)) {
        let dy = h.input(&pad(&dy[range.start * channels..range.end * channels], channels));
        h.run(&[folded(backward_sums(*rows, channels, relu, *x, dy, run.affine, partials, *first))]);
        gradients.push((*rows, *x, dy, range));
    }

    let means = h.output(2 * padded(channels));
    let (old_weight, old_bias) = (random(channels, 5), random(channels, 6));
    for accumulate in [false, true] {
        let weight = h.input(&pad(&old_weight, channels));
        let bias = h.input(&pad(&old_bias, channels));
        let to = Some(NormGradients { accumulate, weight, bias });
        h.run(&[folded(backward_finalize(run.blocks, channels, rows as u64, partials, means, to))]);
        for (name, slice, old, new) in [("weight", weight, &old_weight, products), ("bias", bias, &old_bias, sums)] {
            let before = |o: f32| if accumulate { f64::from(o) } else { 0.0 };
            let sums: Vec<f32> = old.iter().zip(new).map(|(o, n)| (before(*o) + n) as f32).collect();
            h.expect(&format!("{what}: {name}"), slice, &pad(&sums, channels), TOLERANCE);
            assert_padding(&h.read(slice), channels);
        }
    }
    let by_count = |v: &[f64]| v.iter().map(|v| v / rows as f64).collect::<Vec<_>>();
    h.expect(&format!("{what}: means"), means, &padded_rows(&[by_count(sums), by_count(products)]), TOLERANCE);
    assert_padding(&h.read(means), channels);
    let again = h.output(2 * padded(channels));
    h.run(&[backward_finalize(run.blocks, channels, rows as u64, partials, again, None)]);
    assert_eq!(h.read::<u32>(again), h.read::<u32>(means));

    for (rows, x, dy, range) in gradients {
        let out = h.output(rows as usize * padded(channels));
        h.run(&[folded(backward_apply(rows, channels, relu, x, dy, run.affine, Some(means), None, out))]);
        let part = narrow(&dx[range.start * channels..range.end * channels]);
        h.expect(&format!("{what}: dx"), out, &pad(&part, channels), TOLERANCE);
        assert_padding(&h.read(out), channels);
    }
}

#[test]
fn running_statistics_match_their_twin() {
    for mut h in Harness::both() {
        for (rows, channels) in [(41 * 41, 10), (1, 10), (7 * 9, 3), (5, 700)] {
            let twin = layer(rows, channels, 10);
            let mean = wide(&random(channels, 13));
            let variance: Vec<f64> = random(channels, 14).iter().map(|v| f64::from(v.abs())).collect();
            let affine = twin.affine(&[mean.clone(), variance.clone()]);
            let x = h.input(&pad(&narrow(&twin.x), channels));
            let weight = h.input(&pad(&narrow(&twin.weight), channels));
            let bias = h.input(&pad(&narrow(&twin.bias), channels));
            let running = h.input(&padded_rows(&[mean, variance]));
            let on_device = h.output(4 * padded(channels));
            h.run(&[folded(from_running(channels, EPSILON, weight, bias, running, on_device))]);
            h.expect("affine", on_device, &padded_rows(&affine), TOLERANCE);
            assert_padding(&h.read(on_device), channels);
            let dy = random(rows * channels, 15);
            for relu in [false, true] {
                let [dx, ..] = twin.backward(&affine, &wide(&dy), relu, false);
                let dy = h.input(&pad(&dy, channels));
                let (y, out) = (h.output(rows * padded(channels)), h.output(rows * padded(channels)));
                h.run(&[
                    apply(rows as u64, channels, relu, x, on_device, y),
                    folded(backward_apply(rows as u64, channels, relu, x, dy, on_device, None, None, out)),
                ]);
                h.expect("y", y, &pad(&narrow(&twin.apply(&affine, relu)), channels), TOLERANCE);
                h.expect("dx", out, &pad(&narrow(&dx), channels), TOLERANCE);
                assert_padding(&h.read(out), channels);
            }
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    const STEP: f64 = 1e-5;
    let (rows, channels) = (63, 5);
    for mut h in Harness::both() {
        for relu in [false, true] {
            let mut twin = layer(rows, channels, 20);
            let dy = random(rows * channels, 23);
            let margin = twin.apply(&twin.affine(&twin.moments()), false).iter().fold(1.0, |m: f64, y| m.min(y.abs()));
            assert!(margin > 10.0 * STEP, "a value lies {margin} from the kink");

            let run = forward(&mut h, &twin, &random(2 * channels, 24));
            let partials = h.output(partials_len(run.blocks, channels));
            let means = h.output(2 * padded(channels));
            let gradients = NormGradients {
                accumulate: false,
                weight: h.output(padded(channels)),
                bias: h.output(padded(channels)),
            };
            let mut outputs = Vec::new();
            for ((rows, x, first), range) in run.ranges.iter().zip(cut(rows)) {
                let dy = h.input(&pad(&dy[range.start * channels..range.end * channels], channels));
                h.run(&[backward_sums(*rows, channels, relu, *x, dy, run.affine, partials, *first)]);
                outputs.push((*rows, *x, dy, h.output(*rows as usize * padded(channels))));
            }
            let count = rows as u64;
            h.run(&[backward_finalize(run.blocks, channels, count, partials, means, Some(gradients))]);
            let mut dx: Vec<f32> = Vec::new();
            for (rows, x, dy, out) in outputs {
                h.run(&[backward_apply(rows, channels, relu, x, dy, run.affine, Some(means), None, out)]);
                dx.extend(h.read::<f32>(out));
            }

            let loss = |twin: &Twin| -> f64 {
                let y = twin.apply(&twin.affine(&twin.moments()), relu);
                y.iter().zip(&dy).map(|(y, dy)| y * f64::from(*dy)).sum()
            };
            type Values = fn(&mut Twin) -> &mut Vec<f64>;
            // Measured: 2.3e-7, 1.0e-6, 6.9e-7.
            let inputs: [(&str, Values, Vec<f32>, f64); 3] = [
                ("input", |t| &mut t.x, dx, 9e-7),
                ("weight", |t| &mut t.weight, h.read(gradients.weight), 4e-6),
                ("bias", |t| &mut t.bias, h.read(gradients.bias), 2.8e-6),
            ];
            for (what, values, found, tolerance) in inputs {
                let found: Vec<f32> =
                    found.chunks(padded(channels)).flat_map(|row| &row[..channels]).copied().collect();
                for (i, found) in found.iter().enumerate() {
                    let at = values(&mut twin)[i];
                    values(&mut twin)[i] = at + STEP;
                    let above = loss(&twin);
                    values(&mut twin)[i] = at - STEP;
                    let slope = (above - loss(&twin)) / (2.0 * STEP);
                    values(&mut twin)[i] = at;
                    let error = (slope - f64::from(*found)).abs();
                    assert!(error < tolerance, "{what} {i}: found {found}, slope {slope}, {error:.1e} apart");
                }
            }
        }
    }
}

/// A mean of 1000 with a deviation of 0.01, where `f32` has a spacing of 6e-5: sums of squares would lose all digits of
/// the variance. Measured: the mean is within 1.9e-5 of the exact one, rstd within 1.4e-5 of its value. (This error is
/// from the spacing of the blocks' means; `scale · x + shift` loses more, 1e-2 of a deviation.)
#[test]
fn a_large_mean_leaves_the_variance_four_digits() {
    for mut h in Harness::both() {
        let (rows, channels) = (20_000, 3);
        let mut twin = layer(rows, channels, 30);
        twin.x = random(rows * channels, 31).iter().map(|x| f64::from(1000.0 + 0.01 * x)).collect();
        let run = forward(&mut h, &twin, &random(2 * channels, 34));
        let [_, _, mean, rstd] = twin.affine(&twin.moments());
        let found: Vec<f32> = h.read(run.affine);
        for c in 0..channels {
            let mean_error = (f64::from(found[8 + c]) - mean[c]).abs();
            let rstd_error = (f64::from(found[12 + c]) / rstd[c] - 1.0).abs();
            assert!(mean_error < 6.2e-5, "mean of channel {c} is {mean_error:.1e} off");
            assert!(rstd_error < 5e-5, "rstd of channel {c} is {rstd_error:.1e} off");
        }
    }
}

#[test]
fn one_value_for_each_channel_has_variance_zero() {
    for mut h in Harness::both() {
        let twin = Twin { channels: 2, x: vec![3.0, -5.0], weight: vec![2.0, 1.0], bias: vec![0.25, -0.5] };
        let run = forward(&mut h, &twin, &[1.0, 1.0, 4.0, 4.0]);
        let y = h.output(4);
        h.run(&[apply(1, 2, false, run.ranges[0].1, run.affine, y)]);
        h.expect("running", run.running, &pad(&[1.2, 0.4, 3.6, 3.6], 2), 1e-7);
        h.expect("y", y, &[0.25, -0.5, 0.0, 0.0], 4e-4);
    }
}

#[test]
fn nan_and_infinity_pass_through() {
    for mut h in Harness::both() {
        for bad in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (rows, channels) = (600, 5);
            let mut twin = layer(rows, channels, 40);
            twin.x[100 * channels + 1] = bad;
            let run = forward(&mut h, &twin, &random(2 * channels, 44));
            let affine: Vec<f32> = h.read(run.affine);
            for (i, value) in affine.iter().enumerate() {
                let hit = i % 8 == 1;
                assert!(value.is_finite() != hit, "{bad}: affine {i} is {value}");
            }
            // With constant statistics only the value itself is affected; a NaN passes through the ReLU and its
            // backward pass.
            let affine = h.input(&padded_rows(&[vec![1.0; 5], vec![0.0; 5], vec![0.0; 5], vec![1.0; 5]]));
            let x = h.input(&pad(&narrow(&twin.x), channels));
            let dy = h.input(&pad(&vec![1.0; rows * channels], channels));
            let (y, dx) = (h.output(rows * 8), h.output(rows * 8));
            h.run(&[
                apply(rows as u64, channels, true, x, affine, y),
                backward_apply(rows as u64, channels, true, x, dy, affine, None, None, dx),
            ]);
            let (y, dx): (Vec<f32>, Vec<f32>) = (h.read(y), h.read(dx));
            let expected = if bad == f64::NEG_INFINITY { 0.0 } else { bad as f32 };
            assert!(y[801] == expected || y[801].is_nan() && bad.is_nan(), "{bad} became {}", y[801]);
            assert_eq!(dx[801], if bad == f64::NEG_INFINITY { 0.0 } else { 1.0 });
            assert!(y.iter().enumerate().all(|(i, y)| i == 801 || y.is_finite()));
        }
        // A NaN gradient.
        let (rows, channels) = (300, 4);
        let twin = layer(rows, channels, 45);
        let run = forward(&mut h, &twin, &random(2 * channels, 48));
        let mut dy = random(rows * channels, 49);
        dy[2] = f32::NAN;
        let (partials, means) = (h.output(partials_len(run.blocks, channels)), h.output(2 * channels));
        for ((rows, x, first), range) in run.ranges.iter().zip(cut(rows)) {
            let dy = h.input(&dy[range.start * channels..range.end * channels]);
            h.run(&[backward_sums(*rows, channels, false, *x, dy, run.affine, partials, *first)]);
        }
        h.run(&[backward_finalize(run.blocks, channels, rows as u64, partials, means, None)]);
        let means: Vec<f32> = h.read(means);
        assert!(means.iter().enumerate().all(|(i, v)| v.is_nan() == (i % channels == 2)), "{means:?}");
    }
}

#[test]
fn the_same_input_gives_the_same_bits() {
    let (rows, channels) = (7 * 41 * 41, 20);
    let twin = layer(rows, channels, 50);
    let dy = random(rows * channels, 53);
    let bits = || {
        let mut h = Harness::new(crate::engine::wgsl::device::Checks::Off);
        let run = forward(&mut h, &twin, &random(2 * channels, 54));
        let x = h.input(&narrow(&twin.x));
        let dy = h.input(&dy);
        let blocks = statistics_blocks(rows as u64);
        let (partials, means) = (h.output(partials_len(blocks, channels)), h.output(2 * channels));
        h.run(&[
            backward_sums(rows as u64, channels, true, x, dy, run.affine, partials, 0),
            backward_finalize(blocks, channels, rows as u64, partials, means, None),
        ]);
        [run.affine, run.running, means].map(|slice| h.read::<u32>(slice))
    };
    assert_eq!(bits(), bits());
}

#[test]
fn variants_are_complete_and_tiles_cover_every_quad() {
    let slice = {
        let mut h = Harness::new(crate::engine::wgsl::device::Checks::Off);
        h.output(4)
    };
    let all = variants();
    for channels in 1..=1000 {
        let tiling = Tiling::new(channels);
        assert!(tiling.columns * tiling.tiles >= quads(channels) && tiling.columns <= MAX_COLUMNS);
        assert!(tiling.columns * (tiling.tiles - 1) < quads(channels), "an idle tile at {channels} channels");
        assert!(tiling.lanes * tiling.columns <= LANES && tiling.lanes * tiling.held >= BLOCK as usize);
        for rows in [1, 1 << 25] {
            let s = statistics(rows, channels, slice, slice, 0);
            assert!(all.contains(&s.kernel), "{:?}", s.kernel);
            let groups: u64 = s.grid.iter().map(|g| u64::from(*g)).product();
            assert!(groups >= rows.div_ceil(BLOCK) * tiling.tiles as u64 && s.grid[1] <= 65_535);
            for relu in [false, true] {
                let b = backward_sums(rows, channels, relu, slice, slice, slice, slice, 0);
                assert!(all.contains(&b.kernel), "{:?}", b.kernel);
            }
        }
    }
    for relu in [false, true] {
        assert!(all.contains(&apply(1, 4, relu, slice, slice, slice).kernel));
        for means in [None, Some(slice)] {
            assert!(all.contains(&backward_apply(1, 4, relu, slice, slice, slice, means, None, slice).kernel));
        }
    }
    let to = |accumulate| Some(NormGradients { accumulate, weight: slice, bias: slice });
    for gradients in [None, to(false), to(true)] {
        assert!(all.contains(&backward_finalize(1, 4, 1, slice, slice, gradients).kernel));
    }
    assert!(all.contains(&finalize(1, 4, EPSILON, MOMENTUM, slice, slice, slice, slice, slice).kernel));
    assert!(all.contains(&from_running(4, EPSILON, slice, slice, slice, slice).kernel));
}
