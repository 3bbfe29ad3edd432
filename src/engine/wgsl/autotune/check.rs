//! Checks that a choice that was measured to be faster computes the same as the fixed one.
//!
//! A driver may miscompile one of our kernels, and a wrong kernel is often fast. A choice other than the fixed one must
//! therefore reproduce the fixed choice's results on the noise that it was timed with. The comparison covers the values
//! that later layers read, not the intermediate values of its own kernels (Winograd's tiles, partial sums). Weights are
//! first transformed from the noise, so that both multiply with the same weights.

use std::collections::BTreeSet;

use super::{Bench, Subject, Unit, noise_everywhere, pass_key, target, window};
use crate::engine::wgsl::error::GpuError;
use crate::engine::wgsl::kernel::Slice;
use crate::engine::wgsl::kernels::conv::{Conv, Pass};
use crate::engine::wgsl::program::{Fixed, Program};
use crate::engine::wgsl::programs::{self, Key};
use crate::engine::wgsl::recorded::Recorded;
use crate::engine::wgsl::tuning::Algorithm;
use crate::model::{Network, Op};

/// Half the distance between 1 and the next number: the largest relative error of one rounding of `f32`.
const ROUNDING: f64 = 1.0 / 16_777_216.0;
/// Factor by which two choices may exceed the expected difference.
const MARGIN: f64 = 8.0;

/// The result arrays of a pass, each with its label.
pub(super) type Results = Vec<Named>;
/// A labelled array.
pub(super) type Named = (String, Vec<f32>);

/// The largest relative difference (Euclidean length of the difference over that of the fixed choice's values) that
/// rounding explains.
///
/// One value is a sum of n products of independent noise of mean zero. The k-th partial sum has √k times the magnitude
/// of a product. Rounding it adds an independent error of that magnitude times u = [`ROUNDING`]. Over the n steps the
/// error is u √(1 + 2 + … + n) ≈ u n / √2 products and the sum itself √n products, so the relative error is u √(n / 2).
/// Blocks and tiles reduce it. With Winograd's transforms of unit noise, the sum of the products is larger than the
/// result by a factor A (from the norms of the rows of A, B and G in shared/winograd_line.wgsl: 5.0 for F(4,3), 1.7 for
/// F(2,3)), and so is the error. Both choices round, so the expected difference is u √(n / 2) (A + A'). [`MARGIN`]
/// covers dependent errors and the adjacent batch norms. A single missing product makes a relative difference of 1 /
/// √n, far above the bound for every n here.
pub(super) fn tolerance(conv: &Conv, pass: Pass, images: usize, choices: [Algorithm; 2]) -> f64 {
    let taps = conv.kernel * conv.kernel;
    let terms = match pass {
        Pass::Forward => taps * conv.in_channels,
        Pass::InputGradient => taps * conv.out_channels,
        Pass::WeightGradient => images * conv.out_height * conv.out_width,
    };
    let amplification = |algorithm: Algorithm| match algorithm.outputs() {
        None => 1.0,
        Some(2) => 1.7,
        Some(_) => 5.0,
    };
    MARGIN * ROUNDING * (terms as f64 / 2.0).sqrt().max(1.0) * choices.map(amplification).iter().sum::<f64>()
}

/// The largest relative difference among the results. NaN or infinity if a value is not finite; infinity if the labels
/// or lengths of the arrays differ.
pub(super) fn difference(found: &Results, expected: &Results) -> f64 {
    let matching = |((a, x), (b, y)): (&Named, &Named)| a == b && x.len() == y.len();
    if expected.is_empty() || found.len() != expected.len() || !found.iter().zip(expected).all(matching) {
        return f64::INFINITY;
    }
    let of = |((_, found), (_, expected)): (&Named, &Named)| {
        let square = |x: f64| x * x;
        let pairs = found.iter().zip(expected).map(|(a, b)| (f64::from(*a), f64::from(*b)));
        let (error, size) = pairs.fold((0.0, 0.0), |(e, s), (a, b)| (e + square(a - b), s + square(b)));
        // 0 / 0 counts as no difference; NaN is kept.
        if error == 0.0 { 0.0 } else { (error / size).sqrt() }
    };
    // `f64::max` would drop NaN.
    found.iter().zip(expected).map(of).fold(0.0, |a, b| if a.is_nan() || a > b { a } else { b })
}

/// The batch norm whose backward pass consumes the input gradient of convolution `layer`. Winograd's algorithm applies
/// the ReLU mask in its epilogue, and an implicit product leaves it to consumers, so results are comparable only after
/// that batch norm. `None` if there is no such batch norm, or if another layer adds to the gradient later.
fn norm_before(network: &Network, layer: usize) -> Option<usize> {
    let value = network.layers[layer].inputs[0];
    let before = value.checked_sub(1)?;
    let norm = match network.layers[before].op {
        Op::BatchNorm { .. } => before,
        Op::Relu => network.layers[before].inputs[0].checked_sub(1)?,
        _ => return None,
    };
    let is_norm = matches!(network.layers[norm].op, Op::BatchNorm { .. });
    let first_reader = network.layers.iter().position(|reader| reader.inputs.contains(&value));
    (is_norm && first_reader == Some(layer)).then_some(norm)
}

/// A program of the steps that depend on how a pass of a unit is computed and of the steps that consume its partial
/// sums, and the values that other steps read.
pub(super) fn program(
    subject: Subject<'_>,
    budget: u64,
    unit: &Unit,
    (pass, algorithm): (Pass, Algorithm),
    images: usize,
) -> Result<(Program, Vec<Slice>), GpuError> {
    let network = subject.network;
    let norm = norm_before(network, unit.layer).filter(|_| pass == Pass::InputGradient);
    let choices = super::choices_with(subject, unit, (pass, algorithm), norm);
    let (key, kind) = pass_key(pass);
    let mut program = programs::build(&key, target(subject, budget, &choices, images))?;
    let layers = window(network, unit.layer, pass);
    let in_window = |layer: usize| layers.contains(&layer) || norm == Some(layer);
    let mut kept: Vec<bool> =
        program.steps.iter().map(|step| step.kind == kind && step.layer.is_some_and(in_window)).collect();
    let buffers = |step: usize| program.steps[step].dispatch.bindings.iter().map(|slice| slice.buffer.0);
    let is_scratch = |buffer: &usize| program.buffers[*buffer].scratch;
    // A batch norm outside the window may read partial sums that the convolution writes.
    let scratch: BTreeSet<usize> = (0..kept.len()).filter(|i| kept[*i]).flat_map(buffers).filter(is_scratch).collect();
    for (step, kept) in kept.iter_mut().enumerate() {
        *kept |= buffers(step).any(|buffer| scratch.contains(&buffer));
    }
    // Results: gradients of weights, and buffers that are written here and read by steps that are left out. The first
    // use of a transient buffer is always a write.
    let lives = program.lives();
    let written = |buffer: usize| program.buffers[buffer].home.is_none() && lives[buffer].is_some_and(|(i, _)| kept[i]);
    let elsewhere: BTreeSet<usize> = (0..kept.len()).filter(|i| !kept[*i]).flat_map(buffers).collect();
    let mut results: Vec<Slice> = Vec::new();
    for step in (0..kept.len()).filter(|i| kept[*i]) {
        for slice in &program.steps[step].dispatch.bindings {
            let (buffer, spec) = (slice.buffer.0, &program.buffers[slice.buffer.0]);
            let is_result = match spec.home {
                Some(home) => matches!(home, Fixed::Gradients(_)) && pass == Pass::WeightGradient,
                None => !spec.scratch && written(buffer) && elsewhere.contains(&buffer),
            };
            if is_result && !results.contains(slice) {
                results.push(*slice);
            }
        }
    }
    let mut index = 0..;
    program.steps.retain(|_| index.next().is_some_and(|i: usize| kept[i]));
    noise_everywhere(&mut program);
    #[cfg(test)]
    sabotage::apply(&mut program, pass, algorithm);
    Ok((program, results))
}

impl Bench<'_> {
    /// The results of a pass of a unit, computed from noise.
    pub(super) fn results(
        &mut self,
        unit: &Unit,
        pass: Pass,
        algorithm: Algorithm,
        images: usize,
    ) -> Result<Results, GpuError> {
        let budget = self.gpu.budget().dispatch_flops;
        let (program, slices) = program(self.subject, budget, unit, (pass, algorithm), images)?;
        let labels: Vec<String> = slices.iter().map(|slice| program.buffers[slice.buffer.0].label.clone()).collect();
        let recorded = self.record(program)?;
        let transform = self.transform(unit, pass, algorithm, images)?;
        // Buffers still hold values of other candidates.
        let all: Vec<wgpu::Buffer> = self.fixed.values().chain(self.pool.slots()).cloned().collect();
        self.fill(&all);
        self.time(&transform.commands, 1)?;
        self.time(&recorded.commands, 1)?;
        let ranges: Vec<_> = slices.iter().map(|slice| recorded.range(*slice)).collect();
        let values = self.gpu.read(&ranges)?;
        Ok(labels.into_iter().zip(values.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes))).collect())
    }

    /// A program that transforms the weights of a unit's layer.
    fn transform(
        &mut self,
        unit: &Unit,
        pass: Pass,
        algorithm: Algorithm,
        images: usize,
    ) -> Result<Recorded, GpuError> {
        let budget = self.gpu.budget().dispatch_flops;
        let choices = super::choices_with(self.subject, unit, (pass, algorithm), None);
        let mut program = programs::build(&Key::Transform, target(self.subject, budget, &choices, images))?;
        program.steps.retain(|step| step.layer == Some(unit.layer));
        self.record(program)
    }
}

/// Makes kernels compute wrong results, for tests.
#[cfg(test)]
pub(super) mod sabotage {
    use std::cell::Cell;

    use super::{Algorithm, Pass, Program};

    thread_local! {
        /// Which candidates run only the first workgroup of their matrix product: a wrong kernel, and a fast one.
        pub(in super::super) static WRONG: Cell<fn(Pass, Algorithm) -> bool> = const { Cell::new(|_, _| false) };
    }

    pub(in super::super) fn apply(program: &mut Program, pass: Pass, algorithm: Algorithm) {
        if !WRONG.get()(pass, algorithm) {
            return;
        }
        for step in &mut program.steps {
            let file = step.dispatch.kernel.file;
            if ["conv_gemm", "conv_weight_gradient", "winograd_gemm"].iter().any(|name| file.starts_with(name)) {
                step.dispatch.grid = [1, 1, 1];
            }
        }
    }
}
