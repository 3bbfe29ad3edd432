//! From a network's layers to dispatches: forward, backward to the image, backward to the parameters.
//!
//! A batch whose activations are larger than a binding may be is cut into ranges of images. Every activation is then a
//! buffer for each range; reductions over the batch (batch norm, weight gradients) run over all ranges in order, so the
//! result is that of the whole batch.

use super::error::{GpuError, readable};
use super::kernel::{Slice, padded, quads};
use super::kernels::conv::{self, Conv};
use super::kernels::norm::{self, NormGradients};
use super::kernels::pool::Plane;
use super::kernels::{linear, pointwise, pool};
use super::parameters::Parameters;
use super::program::{Fixed, Phase, Place, Program};
use crate::data::ImageShape;
use crate::engine::BatchNormMode;
use crate::model::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Layer, Network, Op, Value};

/// A value of the network: a slice for each range of images.
pub(super) type Tensor = Vec<Slice>;

/// Bytes of a value for `images` images.
pub(super) const fn bytes(images: usize, shape: ImageShape) -> u64 {
    4 * (images * shape.height * shape.width * padded(shape.channels)) as u64
}

/// The ranges of images that a batch is cut into: number of images of each.
///
/// # Errors
/// [`GpuError::Limits`] when one image alone is too large for a binding.
pub(super) fn ranges(network: &Network, batch: usize, limits: &wgpu::Limits) -> Result<Vec<usize>, GpuError> {
    let values = (0..=network.layers.len()).map(|value| (value, bytes(1, network.shape_of(value))));
    let (value, largest) = values.max_by_key(|(_, bytes)| *bytes).unwrap_or((0, 1));
    let room = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    let most = (room / largest.max(1)) as usize;
    if most == 0 {
        let name = value.checked_sub(1).map_or("the input", |layer| network.layers[layer].name.as_str());
        return Err(GpuError::Limits(format!(
            "one image takes {} at '{name}', a binding of this adapter holds {}; --image-size makes images smaller, \
             --width the network",
            readable(largest),
            readable(room)
        )));
    }
    // Ranges of equal size, so that no dispatch is a small remainder.
    let count = batch.div_ceil(most).max(1);
    Ok((0..count).map(|i| (batch * (i + 1)) / count - (batch * i) / count).collect())
}

/// What a forward pass leaves for a backward pass.
#[derive(Debug, Clone)]
pub(super) struct Tape {
    values: Vec<Tensor>,
    /// Scale, shift, mean and rstd of each batch norm.
    affine: Vec<Option<Slice>>,
    mode: BatchNormMode,
}

impl Tape {
    /// `B × K`.
    pub(super) fn logits(&self) -> &Tensor {
        &self.values[self.values.len() - 1]
    }
}

/// What a backward pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// The gradient with respect to the images.
    Image,
    /// Gradients of all parameters, added to those that are there if so asked.
    Parameters { accumulate: bool },
}

/// Appends passes over a network to a program.
#[derive(Debug)]
pub(super) struct Lower<'a> {
    pub(super) network: &'a Network,
    pub(super) parameters: &'a Parameters,
    /// Images in each range.
    pub(super) ranges: Vec<usize>,
    /// Most floating-point operations of one dispatch.
    pub(super) budget: u64,
    pub(super) program: Program,
}

impl<'a> Lower<'a> {
    pub(super) fn new(network: &'a Network, parameters: &'a Parameters, ranges: Vec<usize>, budget: u64) -> Self {
        Self { network, parameters, ranges, budget, program: Program::default() }
    }

    /// Number of images, and index of the first one, of each range.
    pub(super) fn parts(&self) -> Vec<(usize, usize, usize)> {
        let mut first = 0;
        let next = |(i, images): (usize, &usize)| {
            let part = (i, *images, first);
            first += images;
            part
        };
        self.ranges.iter().enumerate().map(next).collect()
    }

    /// A value in buffers with names.
    pub(super) fn named(&mut self, home: fn(usize) -> Fixed, shape: ImageShape) -> Tensor {
        let sizes: Vec<u64> = self.ranges.iter().map(|images| bytes(*images, shape)).collect();
        let slice = |(i, size)| self.program.fixed(Place { home: home(i), offset: 0, size }, size);
        sizes.into_iter().enumerate().map(slice).collect()
    }

    /// A buffer with a name that is bound whole.
    pub(super) fn whole(&mut self, home: Fixed, size: u64) -> Slice {
        self.program.fixed(Place { home, offset: 0, size }, size)
    }

    fn tensor(&mut self, shape: ImageShape, label: &str) -> Tensor {
        let sizes: Vec<u64> = self.ranges.iter().map(|images| bytes(*images, shape)).collect();
        sizes.into_iter().map(|size| self.program.transient(size, label)).collect()
    }

    fn parameter(&mut self, layer: usize, which: usize) -> Slice {
        let place = self.parameters.of(layer, which);
        let whole = match place.home {
            Fixed::Parameters(slab) => self.parameters.slabs[slab],
            _ => self.parameters.running,
        };
        self.program.fixed(place, whole)
    }

    fn gradient(&mut self, layer: usize, which: usize) -> Slice {
        let place = self.parameters.of(layer, which);
        let Fixed::Parameters(slab) = place.home else { return self.parameter(layer, which) };
        self.program.fixed(Place { home: Fixed::Gradients(slab), ..place }, self.parameters.slabs[slab])
    }

    fn running(&mut self, layer: usize) -> Slice {
        self.program.fixed(self.parameters.running_of(layer), self.parameters.running)
    }

    /// Whether the ReLU behind this batch norm is computed with it: it is its only reader.
    fn with_relu(&self, layer: usize, readers: &[usize]) -> bool {
        let next = self.network.layers.get(layer + 1);
        readers[layer + 1] == 1 && next.is_some_and(|n| n.op == Op::Relu && n.inputs[0] == layer + 1)
    }

    fn is_fused_relu(&self, layer: usize, readers: &[usize]) -> bool {
        layer > 0
            && self.network.layers[layer].op == Op::Relu
            && matches!(self.network.layers[layer - 1].op, Op::BatchNorm { .. })
            && self.with_relu(layer - 1, readers)
    }

    /// One forward pass over `x`; the logits go into `logits`.
    pub(super) fn forward(&mut self, x: Tensor, logits: Tensor, mode: BatchNormMode) -> Tape {
        let network = self.network;
        let readers = network.readers();
        let mut values = vec![x];
        let mut affine: Vec<Option<Slice>> = vec![None; network.layers.len()];
        for (i, layer) in network.layers.iter().enumerate() {
            let x = values[layer.inputs[0]].clone();
            let shape = network.shape_of(layer.inputs[0]);
            if self.is_fused_relu(i, &readers) {
                values.push(x);
                continue;
            }
            let last = i + 1 == network.layers.len();
            let y = if last { logits.clone() } else { self.tensor(layer.shape, &layer.name) };
            let push = |program: &mut Program, dispatch| program.push(Some(i), Phase::Forward, dispatch);
            match &layer.op {
                Op::Normalize { mean, .. } => {
                    let size = 16 * padded(mean.len()) as u64;
                    let scale = self.whole(Fixed::Normalization, size);
                    affine[i] = Some(scale);
                    for (r, images, _) in self.parts() {
                        let rows = rows(images, shape);
                        push(&mut self.program, norm::apply(rows, shape.channels, false, x[r], scale, y[r]));
                    }
                }
                Op::Conv2d { .. } => {
                    let weight = self.parameter(i, 0);
                    if let Some(conv) = geometry(network, layer) {
                        for (r, images, _) in self.parts() {
                            for dispatch in conv::forward(&conv, images, self.budget, x[r], weight, y[r]) {
                                push(&mut self.program, dispatch);
                            }
                        }
                    }
                }
                Op::BatchNorm { channels } => {
                    affine[i] = Some(self.batch_norm(i, *channels, shape, &x, mode));
                    let relu = self.with_relu(i, &readers);
                    for (r, images, _) in self.parts() {
                        let Some(affine) = affine[i] else { continue };
                        let rows = rows(images, shape);
                        push(&mut self.program, norm::apply(rows, *channels, relu, x[r], affine, y[r]));
                    }
                }
                Op::Relu => {
                    for (r, images, _) in self.parts() {
                        push(&mut self.program, pointwise::relu(value_quads(images, shape), x[r], y[r]));
                    }
                }
                Op::Add => {
                    let other = values[layer.inputs[1]].clone();
                    for (r, images, _) in self.parts() {
                        push(&mut self.program, pointwise::add(value_quads(images, shape), x[r], other[r], y[r]));
                    }
                }
                Op::MaxPool { size } => {
                    for (r, images, _) in self.parts() {
                        push(&mut self.program, pool::max_pool(images, plane(shape), *size, x[r], y[r]));
                    }
                }
                Op::GlobalAvgPool => {
                    for (r, images, _) in self.parts() {
                        push(&mut self.program, pool::global_pool(images, plane(shape), x[r], y[r]));
                    }
                }
                Op::Linear { in_features, out_features } => {
                    let (weight, bias) = (self.parameter(i, 0), self.parameter(i, 1));
                    for (r, images, _) in self.parts() {
                        let dispatch = linear::forward(images, *in_features, *out_features, x[r], weight, bias, y[r]);
                        push(&mut self.program, dispatch);
                    }
                }
            }
            self.program.outputs.push((i, self.program.steps.len(), y.clone()));
            values.push(y);
        }
        Tape { values, affine, mode }
    }

    /// Scale and shift of a batch norm, from the batch or from the running statistics.
    fn batch_norm(&mut self, i: usize, channels: usize, shape: ImageShape, x: &Tensor, mode: BatchNormMode) -> Slice {
        let (weight, bias, running) = (self.parameter(i, 0), self.parameter(i, 1), self.running(i));
        let affine = self.program.transient(16 * padded(channels) as u64, "scale and shift");
        let push = |program: &mut Program, dispatch| program.push(Some(i), Phase::Forward, dispatch);
        match mode {
            BatchNormMode::Eval => {
                let dispatch = norm::from_running(channels, BATCH_NORM_EPSILON, weight, bias, running, affine);
                push(&mut self.program, dispatch);
            }
            BatchNormMode::Train => {
                let blocks = self.blocks(shape);
                let size = 4 * norm::partials_len(blocks, channels) as u64;
                let partials = self.program.transient(size, "batch norm sums");
                let mut first = 0;
                for (r, images, _) in self.parts() {
                    let rows = rows(images, shape);
                    push(&mut self.program, norm::statistics(rows, channels, x[r], partials, first));
                    first += norm::statistics_blocks(rows);
                }
                let (epsilon, momentum) = (BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM);
                push(
                    &mut self.program,
                    norm::finalize(blocks, channels, epsilon, momentum, partials, weight, bias, running, affine),
                );
            }
        }
        affine
    }

    fn blocks(&self, shape: ImageShape) -> usize {
        self.ranges.iter().map(|images| norm::statistics_blocks(rows(*images, shape))).sum()
    }

    /// One backward pass from `logits`, the gradient with respect to the logits. Gives the gradient with respect to the
    /// images, if that was wanted.
    pub(super) fn backward(&mut self, tape: &Tape, logits: Tensor, want: Want) -> Option<Tensor> {
        let network = self.network;
        let readers = network.readers();
        let mut gradients: Vec<Option<Tensor>> = vec![None; network.layers.len() + 1];
        gradients[network.layers.len()] = Some(logits);
        // Nothing before the first layer with parameters needs a gradient when only parameters do.
        let first = match want {
            Want::Image => 0,
            Want::Parameters { .. } => network.layers.iter().position(has_parameters).unwrap_or(0),
        };
        for (i, layer) in network.layers.iter().enumerate().skip(first).rev() {
            let Some(dy) = gradients[i + 1].take() else { continue };
            if self.is_fused_relu(i, &readers) {
                gradients[layer.inputs[0]] = Some(dy);
                continue;
            }
            if let (Want::Parameters { accumulate }, Op::Conv2d { .. } | Op::Linear { .. }) = (want, &layer.op) {
                self.weight_gradient(i, layer, &tape.values[layer.inputs[0]], &dy, accumulate);
            }
            let wanted = matches!(want, Want::Image) || i > first;
            match &layer.op {
                Op::Add => {
                    // Both inputs share the gradient: a buffer is written once and never changed.
                    self.accumulate(i, &mut gradients, layer.inputs[1], dy.clone());
                    self.accumulate(i, &mut gradients, layer.inputs[0], dy);
                }
                Op::BatchNorm { channels } => {
                    let relu = self.with_relu(i, &readers);
                    let dx = self.batch_norm_backward(i, *channels, tape, &dy, want, relu, wanted);
                    if let Some(dx) = dx {
                        self.accumulate(i, &mut gradients, layer.inputs[0], dx);
                    }
                }
                _ if wanted => {
                    let dx = self.input_gradient(i, layer, tape, &dy);
                    self.accumulate(i, &mut gradients, layer.inputs[0], dx);
                }
                _ => {}
            }
        }
        gradients[0].take()
    }

    /// Adds a gradient to what is there for a value.
    fn accumulate(&mut self, layer: usize, gradients: &mut [Option<Tensor>], value: Value, gradient: Tensor) {
        gradients[value] = Some(match gradients[value].take() {
            None => gradient,
            Some(earlier) => {
                let shape = self.network.shape_of(value);
                let sum = self.tensor(shape, "gradient sum");
                for (r, images, _) in self.parts() {
                    let dispatch = pointwise::add(value_quads(images, shape), earlier[r], gradient[r], sum[r]);
                    self.program.push(Some(layer), Phase::Backward, dispatch);
                }
                sum
            }
        });
    }

    fn input_gradient(&mut self, i: usize, layer: &Layer, tape: &Tape, dy: &Tensor) -> Tensor {
        let shape = self.network.shape_of(layer.inputs[0]);
        let dx = self.tensor(shape, &format!("gradient before {}", layer.name));
        let (x, y) = (&tape.values[layer.inputs[0]], &tape.values[i + 1]);
        let weight = matches!(layer.op, Op::Conv2d { .. } | Op::Linear { .. }).then(|| self.parameter(i, 0));
        for (r, images, _) in self.parts() {
            let dispatches = match (&layer.op, weight) {
                (Op::Conv2d { .. }, Some(weight)) => match geometry(self.network, layer) {
                    Some(conv) => conv::input_gradient(&conv, images, self.budget, dy[r], weight, dx[r]),
                    None => Vec::new(),
                },
                (Op::Linear { in_features, out_features }, Some(weight)) => {
                    vec![linear::input_gradient(images, *in_features, *out_features, dy[r], weight, dx[r])]
                }
                (Op::Normalize { .. }, _) => {
                    let affine = tape.affine[i].unwrap_or(dy[r]);
                    let rows = rows(images, shape);
                    vec![norm::backward_apply(rows, shape.channels, false, x[r], dy[r], affine, None, dx[r])]
                }
                (Op::Relu, _) => vec![pointwise::relu_backward(value_quads(images, shape), y[r], dy[r], dx[r])],
                (Op::MaxPool { size }, _) => {
                    vec![pool::max_pool_backward(images, plane(shape), *size, x[r], dy[r], dx[r])]
                }
                (Op::GlobalAvgPool, _) => vec![pool::global_pool_backward(images, plane(shape), dy[r], dx[r])],
                (Op::Add | Op::BatchNorm { .. } | Op::Conv2d { .. } | Op::Linear { .. }, _) => Vec::new(),
            };
            for dispatch in dispatches {
                self.program.push(Some(i), Phase::Backward, dispatch);
            }
        }
        dx
    }

    #[allow(clippy::too_many_arguments)]
    fn batch_norm_backward(
        &mut self,
        i: usize,
        channels: usize,
        tape: &Tape,
        dy: &Tensor,
        want: Want,
        relu: bool,
        wanted: bool,
    ) -> Option<Tensor> {
        let layer = &self.network.layers[i];
        let shape = layer.shape;
        let x = tape.values[layer.inputs[0]].clone();
        let affine = tape.affine[i]?;
        let means = (tape.mode == BatchNormMode::Train).then(|| {
            let blocks = self.blocks(shape);
            let size = 4 * norm::partials_len(blocks, channels) as u64;
            let partials = self.program.transient(size, "batch norm sums");
            let means = self.program.transient(8 * padded(channels) as u64, "batch norm means");
            let (mut first, mut count) = (0, 0);
            for (r, images, _) in self.parts() {
                let rows = rows(images, shape);
                let dispatch = norm::backward_sums(rows, channels, relu, x[r], dy[r], affine, partials, first);
                self.program.push(Some(i), Phase::Backward, dispatch);
                first += norm::statistics_blocks(rows);
                count += rows;
            }
            let gradients = match want {
                Want::Image => None,
                Want::Parameters { accumulate } => {
                    let (weight, bias) = (self.gradient(i, 0), self.gradient(i, 1));
                    Some(NormGradients { accumulate, weight, bias })
                }
            };
            let dispatch = norm::backward_finalize(blocks, channels, count, partials, means, gradients);
            self.program.push(Some(i), Phase::Backward, dispatch);
            means
        });
        wanted.then(|| {
            let dx = self.tensor(shape, &format!("gradient before {}", layer.name));
            for (r, images, _) in self.parts() {
                let rows = rows(images, shape);
                let dispatch = norm::backward_apply(rows, channels, relu, x[r], dy[r], affine, means, dx[r]);
                self.program.push(Some(i), Phase::Backward, dispatch);
            }
            dx
        })
    }

    fn weight_gradient(&mut self, i: usize, layer: &Layer, x: &Tensor, dy: &Tensor, accumulate: bool) {
        let weight = self.gradient(i, 0);
        match layer.op {
            Op::Linear { in_features, out_features } => {
                let bias = self.gradient(i, 1);
                for (r, images, _) in self.parts() {
                    let add = accumulate || r > 0;
                    let dispatch =
                        linear::weight_gradient(images, in_features, out_features, add, x[r], dy[r], weight, bias);
                    self.program.push(Some(i), Phase::Weights, dispatch);
                }
            }
            _ => {
                let Some(conv) = geometry(self.network, layer) else { return };
                let len = conv::weight_len(&conv);
                for (r, images, _) in self.parts() {
                    let count = conv::weight_gradient_parts(&conv, images);
                    let parts = self.program.transient(4 * (count * len) as u64, "weight gradient parts");
                    for dispatch in conv::weight_gradient(&conv, images, self.budget, x[r], dy[r], parts, 0) {
                        self.program.push(Some(i), Phase::Weights, dispatch);
                    }
                    let dispatch = conv::sum_parts(len, count, accumulate || r > 0, parts, weight);
                    self.program.push(Some(i), Phase::Weights, dispatch);
                }
            }
        }
    }
}

const fn has_parameters(layer: &Layer) -> bool {
    matches!(layer.op, Op::Conv2d { .. } | Op::BatchNorm { .. } | Op::Linear { .. })
}

/// The geometry of a convolution layer.
pub(super) fn geometry(network: &Network, layer: &Layer) -> Option<Conv> {
    let Op::Conv2d { in_channels, out_channels, kernel, stride, padding } = layer.op else { return None };
    let input = network.shape_of(layer.inputs[0]);
    Some(Conv {
        in_channels,
        height: input.height,
        width: input.width,
        out_channels,
        out_height: layer.shape.height,
        out_width: layer.shape.width,
        kernel,
        stride,
        padding,
    })
}

const fn plane(shape: ImageShape) -> Plane {
    Plane { channels: shape.channels, height: shape.height, width: shape.width }
}

const fn rows(images: usize, shape: ImageShape) -> u64 {
    (images * shape.height * shape.width) as u64
}

const fn value_quads(images: usize, shape: ImageShape) -> u64 {
    rows(images, shape) * quads(shape.channels) as u64
}
