//! Backward passes: to the image, or to the parameters.

use super::{Lower, Tape, Tensor, Want, feature_map, geometry, has_parameters, rows, value_quads};
use crate::engine::BatchNormMode;
use crate::engine::wgsl::kernel::{Dispatch, Slice, padded};
use crate::engine::wgsl::kernels::conv::{self, Conv, Pass};
use crate::engine::wgsl::kernels::head::{self, HeadNorm};
use crate::engine::wgsl::kernels::norm::NormGradients;
use crate::engine::wgsl::kernels::read::Read;
use crate::engine::wgsl::kernels::stem::{self, StemNorm};
use crate::engine::wgsl::kernels::winograd::Finish;
use crate::engine::wgsl::kernels::{linear, loss, norm, pointwise, pool};
use crate::engine::wgsl::program::DispatchKind;
use crate::model::{Layer, Op, Value};

/// A batch norm whose backward pass the consumers of the gradient compute on load.
#[derive(Debug, Clone)]
struct Pending {
    norm: Slice,
    relu: bool,
    input: Tensor,
    means: Option<Slice>,
}

/// The gradient of a value: a tensor, and what its consumers compute from it on load.
#[derive(Debug, Clone)]
struct Gradient {
    tensor: Tensor,
    pending: Option<Pending>,
    /// Partial sums for the backward pass of the batch norm that produced the value, and the number of blocks, if the
    /// kernel that wrote the gradient computed them.
    sums: Option<(Slice, usize)>,
}

impl Gradient {
    const fn plain(tensor: Tensor) -> Self {
        Self { tensor, pending: None, sums: None }
    }

    fn read(&self, r: usize) -> Read {
        self.pending.as_ref().map_or(Read::Plain, |Pending { norm, relu, input, means }| Read::NormBackward {
            norm: *norm,
            relu: *relu,
            input: input[r],
            means: *means,
        })
    }
}

type Gradients = Vec<Option<Gradient>>;

/// The inputs of a search's objective.
#[derive(Debug, Clone)]
pub(in crate::engine::wgsl) struct Objective {
    pub(in crate::engine::wgsl) call: Slice,
    pub(in crate::engine::wgsl) info: Slice,
    /// Logits of the clean images.
    pub(in crate::engine::wgsl) reference: Tensor,
    pub(in crate::engine::wgsl) flag: Slice,
    /// Dispatches that run after the objective and before the images change.
    pub(in crate::engine::wgsl) between: Vec<Dispatch>,
}

impl Lower<'_> {
    /// Continues after [`Self::body`] with the logits, the objective and the backward pass to the images. Returns what
    /// [`Self::backward`] returns.
    pub(in crate::engine::wgsl) fn attack(
        &mut self,
        tape: &Tape,
        objective: Objective,
        want: Want<'_>,
    ) -> Option<Tensor> {
        let Objective { call, info, reference, flag, between } = objective;
        let Some((end, head)) = self.head() else {
            let mut gradients = Tensor::new();
            for (r, images, first) in self.parts() {
                let logits = tape.logits[r];
                let found = self.program.transient(logits.size, "gradient of the logits");
                let dispatch =
                    loss::objective(images, first, self.network.classes, call, info, logits, reference[r], found, flag);
                self.program.push(None, DispatchKind::Other, dispatch);
                gradients.push(found);
            }
            self.push_all(between);
            return self.backward(tape, gradients, want);
        };
        let (weight, bias) = (self.parameter(end + 1, 0), self.parameter(end + 1, 1));
        let features = &tape.values[tape.values.len() - 1];
        let (gradient, norms) = self.before_head(tape, end);
        for (r, images, first) in self.parts() {
            let (x, logits) = (features.tensor[r], tape.logits[r]);
            let (norm, to) = (norms.get(r).copied(), gradient.tensor[r]);
            let dispatch =
                head::attack(images, first, &head, call, info, x, norm, weight, bias, reference[r], logits, to, flag);
            self.push(end + 1, DispatchKind::Backward, dispatch);
        }
        self.push_all(between);
        self.continue_from(tape, end, gradient, want)
    }

    /// Appends dispatches that belong to no layer.
    fn push_all(&mut self, dispatches: Vec<Dispatch>) {
        dispatches.into_iter().for_each(|dispatch| self.program.push(None, DispatchKind::Other, dispatch));
    }

    /// One backward pass from `logits`, the gradient with respect to the logits. Returns the gradient with respect to
    /// the images. `None` if it was not wanted, or if the step of the search has consumed it.
    pub(in crate::engine::wgsl) fn backward(&mut self, tape: &Tape, logits: Tensor, want: Want<'_>) -> Option<Tensor> {
        let Some((end, head)) = self.head() else {
            return self.continue_from(tape, self.network.layers.len(), Gradient::plain(logits), want);
        };
        if let (Want::Parameters { accumulate }, Some(pooled)) = (want, &tape.pooled) {
            self.linear_weights(end + 1, [head.map.channels, head.classes], pooled, &logits, accumulate);
        }
        let weight = self.parameter(end + 1, 0);
        let features = &tape.values[tape.values.len() - 1];
        let (gradient, norms) = self.before_head(tape, end);
        for (r, images, _) in self.parts() {
            let (x, norm, to) = (features.tensor[r], norms.get(r).copied(), gradient.tensor[r]);
            self.push(end + 1, DispatchKind::Backward, head::backward(images, &head, x, norm, weight, logits[r], to));
        }
        self.continue_from(tape, end, gradient, want)
    }

    /// The gradient that the head's kernels write with respect to their input, and the batch norm whose backward pass
    /// they compute: one per range, empty if no batch norm precedes the head.
    fn before_head(&mut self, tape: &Tape, end: usize) -> (Gradient, Vec<HeadNorm>) {
        let shape = self.network.shape_of(end);
        let gradient = Gradient::plain(self.tensor(shape, "gradient before the head"));
        let Some((affine, _)) = tape.values[end].norm else { return (gradient, Vec::new()) };
        let blocks: usize = self.ranges.iter().sum();
        let sums = (tape.mode == BatchNormMode::Train).then(|| {
            let size = 4 * norm::partials_len(blocks, shape.channels) as u64;
            (self.program.scratch(size, "batch norm sums"), blocks)
        });
        let norms = self.parts().into_iter();
        // One block per image.
        let norms = norms.map(|(.., first)| HeadNorm { affine, sums: sums.map(|(partials, _)| (partials, first)) });
        (Gradient { sums, ..gradient }, norms.collect())
    }

    /// The value whose gradient [`Self::before_head`] allocates. If the batch norm before the head uses constants
    /// instead of batch statistics, the head's kernels compute its backward pass too, and this is its input.
    fn value_before_head(&self, tape: &Tape, end: usize) -> Value {
        let normed = tape.values.get(end).is_some_and(|value| value.norm.is_some());
        if end == self.network.layers.len() || !normed || tape.mode == BatchNormMode::Train {
            return end;
        }
        let relu = usize::from(self.network.layers[end - 1].op == Op::Relu);
        self.network.layers[end - 1 - relu].inputs[0]
    }

    /// The backward pass from the gradient before the head, or from the gradient of the logits if the head is not
    /// fused.
    fn continue_from(&mut self, tape: &Tape, end: usize, gradient: Gradient, want: Want<'_>) -> Option<Tensor> {
        let network = self.network;
        let readers = network.readers();
        let mut gradients: Gradients = vec![None; network.layers.len() + 1];
        gradients[self.value_before_head(tape, end)] = Some(gradient);
        // If only parameters need gradients, the pass ends at the first layer with parameters.
        let first = match want {
            Want::Image | Want::Step(_) => 0,
            Want::Parameters { .. } => network.layers.iter().position(has_parameters).unwrap_or(0),
        };
        for (i, layer) in network.layers.iter().enumerate().skip(first).rev() {
            let Some(dy) = gradients[i + 1].take() else { continue };
            if self.is_fused_relu(i, &readers) {
                gradients[layer.inputs[0]] = Some(dy);
                continue;
            }
            let wanted = !matches!(want, Want::Parameters { .. }) || i > first;
            match &layer.op {
                Op::Conv2d { .. } => {
                    let Some(conv) = geometry(network, layer) else { continue };
                    if let Want::Parameters { accumulate } = want {
                        self.conv_weights(i, &conv, tape, &dy, accumulate);
                    }
                    let normalization = self.stem(i).filter(|_| !matches!(want, Want::Parameters { .. }));
                    if let Some(normalization) = normalization.filter(|_| stem::fits_gradient(&conv)) {
                        return self.stem_backward(i, &conv, normalization, &dy, want);
                    }
                    if wanted {
                        self.conv_backward(i, layer, &conv, tape, &dy, &mut gradients);
                    }
                }
                Op::BatchNorm { channels } => {
                    let relu = self.with_relu(i, &readers);
                    self.batch_norm_backward(i, *channels, tape, dy, want, relu, wanted.then_some(&mut gradients));
                }
                Op::Add => {
                    // Both inputs share the gradient: a buffer is written once and never changed.
                    let dy = self.written(i, dy, None);
                    self.accumulate(i, &mut gradients, layer.inputs[1], dy.clone());
                    self.accumulate(i, &mut gradients, layer.inputs[0], dy);
                }
                _ => {
                    let dy = self.written(i, dy, None);
                    if let (Want::Parameters { accumulate }, Op::Linear { in_features, out_features }) =
                        (want, &layer.op)
                    {
                        let x = self.in_memory(i, tape, layer.inputs[0]);
                        self.linear_weights(i, [*in_features, *out_features], &x, &dy, accumulate);
                    }
                    if wanted {
                        let dx = self.input_gradient(i, layer, tape, &dy);
                        self.accumulate(i, &mut gradients, layer.inputs[0], dx);
                    }
                }
            }
        }
        let image = gradients[0].take()?;
        Some(self.written(0, image, None))
    }

    /// From the gradient of the first convolution's output to that of the images, or directly to a step of the search.
    fn stem_backward(
        &mut self,
        i: usize,
        conv: &Conv,
        normalization: Slice,
        dy: &Gradient,
        want: Want<'_>,
    ) -> Option<Tensor> {
        let weight = self.parameter(i, 0);
        let norms = |r: usize| {
            let Pending { norm, relu, input, means } = dy.pending.as_ref()?;
            Some(StemNorm { x: input[r], affine: *norm, means: *means, relu: *relu })
        };
        if let Want::Step(searches) = want
            && stem::fits_step(conv)
        {
            for ((r, images, first), search) in self.parts().into_iter().zip(searches) {
                let (from, norm) = (dy.tensor[r], norms(r));
                let steps = stem::step(conv, images, first, self.budget, from, norm, weight, normalization, search);
                for dispatch in steps {
                    self.push(i, DispatchKind::Backward, dispatch);
                }
            }
            return None;
        }
        let image = self.tensor(self.network.input, "gradient of the images");
        for (r, images, _) in self.parts() {
            let (from, norm) = (dy.tensor[r], norms(r));
            let dispatches =
                stem::input_gradient(conv, images, self.budget, from, norm, weight, normalization, image[r]);
            for dispatch in dispatches {
                self.push(i, DispatchKind::Backward, dispatch);
            }
        }
        Some(image)
    }

    /// A gradient in memory. Computes a pending batch norm, and adds `other` to its result.
    fn written(&mut self, layer: usize, gradient: Gradient, other: Option<&Tensor>) -> Tensor {
        let Some(Pending { norm, relu, input, means }) = gradient.pending else { return gradient.tensor };
        // Scale, shift, mean and rstd of each channel.
        let channels = norm.size / 16;
        let sizes = gradient.tensor.iter().map(|slice| slice.size);
        let dx: Tensor = sizes.map(|size| self.program.transient(size, "gradient before batch norm")).collect();
        for (r, dy) in gradient.tensor.into_iter().enumerate() {
            let (rows, add) = (dy.size / (4 * channels), other.map(|other| other[r]));
            let dispatch = norm::backward_apply(rows, channels as usize, relu, input[r], dy, norm, means, add, dx[r]);
            self.push(layer, DispatchKind::Backward, dispatch);
        }
        dx
    }

    /// Adds a gradient to the existing gradient of a value.
    fn accumulate(&mut self, layer: usize, gradients: &mut Gradients, value: Value, gradient: Tensor) {
        let sum = match gradients[value].take() {
            None => gradient,
            Some(earlier) if earlier.pending.is_some() => self.written(layer, earlier, Some(&gradient)),
            Some(earlier) => {
                let shape = self.network.shape_of(value);
                let sum = self.tensor(shape, "gradient sum");
                for (r, images, _) in self.parts() {
                    let dispatch = pointwise::add(value_quads(images, shape), earlier.tensor[r], gradient[r], sum[r]);
                    self.push(layer, DispatchKind::Backward, dispatch);
                }
                sum
            }
        };
        gradients[value] = Some(Gradient::plain(sum));
    }

    fn input_gradient(&mut self, i: usize, layer: &Layer, tape: &Tape, dy: &Tensor) -> Tensor {
        let shape = self.network.shape_of(layer.inputs[0]);
        let dx = self.tensor(shape, &format!("gradient before {}", layer.name));
        // What the layer's kernel reads besides the gradient: the layer's input, its output, or nothing.
        let read = match layer.op {
            Op::MaxPool { .. } => self.in_memory(i, tape, layer.inputs[0]),
            Op::Relu => self.in_memory(i, tape, i + 1),
            _ => dy.clone(),
        };
        for (r, images, _) in self.parts() {
            let dispatch = match &layer.op {
                Op::Linear { in_features, out_features } => {
                    let weight = self.parameter(i, 0);
                    linear::input_gradient(images, *in_features, *out_features, dy[r], weight, dx[r])
                }
                Op::Normalize { .. } => {
                    let Some(affine) = tape.affine[i] else { continue };
                    // Constant statistics and no ReLU: the gradient does not depend on the input.
                    let rows = rows(images, shape);
                    norm::backward_apply(rows, shape.channels, false, read[r], dy[r], affine, None, None, dx[r])
                }
                Op::Relu => pointwise::relu_backward(value_quads(images, shape), read[r], dy[r], dx[r]),
                Op::MaxPool { size } => {
                    pool::max_pool_backward(images, feature_map(shape), *size, read[r], dy[r], dx[r])
                }
                Op::GlobalAvgPool => pool::global_pool_backward(images, feature_map(shape), dy[r], dx[r]),
                Op::Add | Op::BatchNorm { .. } | Op::Conv2d { .. } => continue,
            };
            self.push(i, DispatchKind::Backward, dispatch);
        }
        dx
    }

    fn conv_backward(
        &mut self,
        i: usize,
        layer: &Layer,
        conv: &Conv,
        tape: &Tape,
        dy: &Gradient,
        gradients: &mut Gradients,
    ) {
        let value = layer.inputs[0];
        let (stored, shape) = (&tape.values[value], self.network.shape_of(value));
        let earlier = gradients[value].take().map(|earlier| self.written(i, earlier, None));
        // Without fusion, sums have their own kernel.
        let (add, sum) = if self.choices.plain { (None, earlier) } else { (earlier, None) };
        let dx = self.tensor(shape, &format!("gradient before {}", layer.name));
        let mut found = Gradient::plain(dx.clone());
        if let Some(product) = self.winograd(conv, Pass::InputGradient) {
            let norm = stored.norm.filter(|_| tape.mode == BatchNormMode::Train && self.last_reader(i, value));
            let partials = norm.map(|_| {
                let blocks = self.ranges.iter().map(|images| product.blocks(*images)).sum();
                let size = 4 * norm::partials_len(blocks, conv.in_channels) as u64;
                (self.program.scratch(size, "batch norm sums"), blocks)
            });
            found.sums = partials;
            let finish = |r: usize| match (partials, norm) {
                (Some((partials, _)), Some((norm, relu))) => {
                    Finish::Sums { partials, norm, relu, input: stored.tensor[r] }
                }
                _ => Finish::Nothing,
            };
            let (kind, read) = (DispatchKind::Backward, |r| dy.read(r));
            self.push_winograd(i, kind, product, &dy.tensor, read, &dx, add.as_ref(), finish);
        } else {
            let weight = self.parameter(i, 0);
            let tile = self.choices.product_tile(conv, Pass::InputGradient);
            for (r, images, _) in self.parts() {
                let add = add.as_ref().map(|add| add[r]);
                let product = conv::Product { tile, budget: self.budget, read: dy.read(r), add, statistics: None };
                for dispatch in conv::input_gradient(conv, images, product, dy.tensor[r], weight, dx[r]) {
                    self.push(i, DispatchKind::Backward, dispatch);
                }
            }
        }
        gradients[value] = sum.map(Gradient::plain);
        if gradients[value].is_some() {
            self.accumulate(i, gradients, value, dx);
        } else {
            gradients[value] = Some(found);
        }
    }

    /// Whether `value` is the output of a batch norm (or of its ReLU) and `layer` is the last, in a backward pass, to
    /// add to its gradient.
    fn last_reader(&self, layer: usize, value: Value) -> bool {
        let reads = |layer: &Layer| layer.inputs.contains(&value);
        let normalises = |value: Value| {
            value.checked_sub(1).is_some_and(|layer| {
                let layer = &self.network.layers[layer];
                matches!(layer.op, Op::BatchNorm { .. } | Op::Relu)
            })
        };
        normalises(value) && self.network.layers.iter().position(reads) == Some(layer)
    }

    #[allow(clippy::too_many_arguments, reason = "the inputs of one backward pass")]
    fn batch_norm_backward(
        &mut self,
        i: usize,
        channels: usize,
        tape: &Tape,
        dy: Gradient,
        want: Want<'_>,
        relu: bool,
        gradients: Option<&mut Gradients>,
    ) {
        let layer = &self.network.layers[i];
        let (value, shape) = (layer.inputs[0], layer.shape);
        let x = self.in_memory(i, tape, value);
        let Some(norm) = tape.affine[i] else { return };
        let sums = dy.sums;
        let dy = self.written(i, dy, None);
        let means = (tape.mode == BatchNormMode::Train).then(|| {
            let means = self.program.transient(8 * padded(channels) as u64, "batch norm means");
            let (partials, blocks) = sums.unwrap_or_else(|| self.backward_sums(i, channels, relu, &x, &dy, norm));
            let weights = match want {
                Want::Image | Want::Step(_) => None,
                Want::Parameters { accumulate } => {
                    let (weight, bias) = (self.gradient(i, 0), self.gradient(i, 1));
                    Some(NormGradients { accumulate, weight, bias })
                }
            };
            let count = self.ranges.iter().map(|images| rows(*images, shape)).sum();
            self.push(
                i,
                DispatchKind::Backward,
                norm::backward_finalize(blocks, channels, count, partials, means, weights),
            );
            means
        });
        let Some(gradients) = gradients else { return };
        let found = Gradient { tensor: dy, pending: Some(Pending { norm, relu, input: x, means }), sums: None };
        let written = self.choices.plain || self.choices.written == Some(i);
        match gradients[value].take() {
            None if !written => gradients[value] = Some(found),
            None => gradients[value] = Some(Gradient::plain(self.written(i, found, None))),
            Some(earlier) => {
                let earlier = self.written(i, earlier, None);
                if self.choices.plain {
                    let dx = self.written(i, found, None);
                    gradients[value] = Some(Gradient::plain(earlier));
                    self.accumulate(i, gradients, value, dx);
                } else {
                    gradients[value] = Some(Gradient::plain(self.written(i, found, Some(&earlier))));
                }
            }
        }
    }

    fn backward_sums(
        &mut self,
        i: usize,
        channels: usize,
        relu: bool,
        x: &Tensor,
        dy: &Tensor,
        norm: Slice,
    ) -> (Slice, usize) {
        let shape = self.network.layers[i].shape;
        let blocks = self.blocks(shape);
        let partials = self.program.scratch(4 * norm::partials_len(blocks, channels) as u64, "batch norm sums");
        let mut first = 0;
        for (r, images, _) in self.parts() {
            let rows = rows(images, shape);
            let dispatch = norm::backward_sums(rows, channels, relu, x[r], dy[r], norm, partials, first);
            self.push(i, DispatchKind::Backward, dispatch);
            first += norm::statistics_blocks(rows);
        }
        (partials, blocks)
    }

    fn linear_weights(&mut self, i: usize, [inputs, outputs]: [usize; 2], x: &Tensor, dy: &Tensor, accumulate: bool) {
        let (weight, bias) = (self.gradient(i, 0), self.gradient(i, 1));
        for (r, images, _) in self.parts() {
            let add = accumulate || r > 0;
            let dispatch = linear::weight_gradient(images, inputs, outputs, add, x[r], dy[r], weight, bias);
            self.push(i, DispatchKind::Weights, dispatch);
        }
    }

    fn conv_weights(&mut self, i: usize, conv: &Conv, tape: &Tape, dy: &Gradient, accumulate: bool) {
        let weight = self.gradient(i, 0);
        let x = &tape.values[self.network.layers[i].inputs[0]];
        let len = conv::weight_len(conv);
        let tile = self.choices.product_tile(conv, Pass::WeightGradient);
        for (r, images, _) in self.parts() {
            let count = conv::weight_gradient_parts(conv, tile, images);
            let parts = self.program.scratch(4 * (count * len) as u64, "weight gradient parts");
            let (x, dy) = ((x.tensor[r], x.read()), (dy.tensor[r], dy.read(r)));
            for dispatch in conv::weight_gradient(conv, images, (tile, self.budget), x, dy, parts, 0) {
                self.push(i, DispatchKind::Weights, dispatch);
            }
            self.push(i, DispatchKind::Weights, conv::sum_parts(len, count, accumulate || r > 0, parts, weight));
        }
    }
}
