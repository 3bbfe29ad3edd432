//! Forward passes.

use super::{Lower, StoredValue, Tape, Tensor, feature_map, geometry, rows, value_quads};
use crate::data::ImageShape;
use crate::engine::BatchNormMode;
use crate::engine::wgsl::kernel::{BufferId, Slice, padded};
use crate::engine::wgsl::kernels::conv::{self, Conv, Pass};
use crate::engine::wgsl::kernels::head::{self, Head};
use crate::engine::wgsl::kernels::winograd::Finish;
use crate::engine::wgsl::kernels::{linear, norm, pointwise, pool, stem};
use crate::engine::wgsl::program::{DispatchKind, Fixed};
use crate::model::{BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM, Layer, Op, Value};

const FORWARD: DispatchKind = DispatchKind::Forward;

impl Lower<'_> {
    /// One forward pass over `x`; writes `logits`. With `trains`, keeps what the gradients of parameters need.
    pub(in crate::engine::wgsl) fn forward(
        &mut self,
        x: Tensor,
        logits: Tensor,
        mode: BatchNormMode,
        trains: bool,
    ) -> Tape {
        let mut tape = self.body(x, &logits, mode);
        let Some((end, head)) = self.head() else { return tape };
        let (weight, bias) = (self.parameter(end + 1, 0), self.parameter(end + 1, 1));
        let features = tape.values[tape.values.len() - 1].clone();
        let norm = features.norm.map(|(norm, _)| norm);
        let pooled = trains.then(|| self.tensor(self.network.layers[end].shape, "pooled"));
        for (r, images, _) in self.parts() {
            let (x, logits, pooled) = (features.tensor[r], logits[r], pooled.as_ref().map(|pooled| pooled[r]));
            self.push(end + 1, FORWARD, head::forward(images, &head, x, norm, weight, bias, logits, pooled));
        }
        self.program.outputs.push((end + 1, self.program.steps.len(), logits));
        tape.pooled = pooled;
        tape
    }

    /// The pooling and the linear layer at the end, if one kernel computes both: index of the pooling, sizes.
    pub(super) fn head(&self) -> Option<(usize, Head)> {
        let [.., pool, linear] = &self.network.layers[..] else { return None };
        let (end, readers) = (self.network.layers.len() - 2, self.network.readers());
        let shape = self.network.shape_of(pool.inputs[0]);
        let Op::Linear { out_features, .. } = linear.op else { return None };
        let fused = !self.choices.plain
            && pool.op == Op::GlobalAvgPool
            && linear.inputs[0] == end + 1
            && readers[end + 1] == 1
            && readers[pool.inputs[0]] == 1
            && pool.inputs[0] == end
            && head::fits(shape.channels, out_features);
        // The ReLU that consumers apply together with its batch norm.
        let relu = end >= 1 && self.is_fused_relu(end - 1, &readers);
        fused.then_some((end, Head { map: feature_map(shape), classes: out_features, relu }))
    }

    /// The forward pass up to the head, or up to the logits if the head is not fused.
    pub(in crate::engine::wgsl) fn body(&mut self, x: Tensor, logits: &Tensor, mode: BatchNormMode) -> Tape {
        let network = self.network;
        let end = self.head().map_or(network.layers.len(), |(end, _)| end);
        let readers = network.readers();
        let mut values = vec![StoredValue::plain(x)];
        let mut affine: Vec<Option<Slice>> = vec![None; network.layers.len()];
        for (i, layer) in network.layers.iter().enumerate().take(end) {
            let input = layer.inputs[0];
            let shape = network.shape_of(input);
            if self.is_fused_relu(i, &readers) || self.is_fused_add(i, &readers) {
                values.push(values[input].clone());
                continue;
            }
            let is_last = self.is_last(i, &readers);
            let fresh =
                |lower: &mut Self| if is_last { logits.clone() } else { lower.tensor(layer.shape, &layer.name) };
            let stored = match &layer.op {
                Op::Normalize { mean, .. } => {
                    let scale = self.whole(Fixed::Normalization, 16 * padded(mean.len()) as u64);
                    affine[i] = Some(scale);
                    let x = self.ready(i, &mut values, input);
                    self.normed(i, x, scale, false, is_last, fresh)
                }
                Op::BatchNorm { channels } => {
                    let x = self.ready(i, &mut values, input);
                    let found = self.batch_norm(i, *channels, shape, &x, values[input].partials, mode);
                    affine[i] = Some(found);
                    let relu = self.with_relu(i, &readers);
                    self.normed(i, x, found, relu, is_last, fresh)
                }
                Op::Conv2d { .. } => self.conv(i, layer, &mut values, &readers, mode, fresh),
                Op::Relu => {
                    let (x, y) = (self.ready(i, &mut values, input), fresh(self));
                    for (r, images, _) in self.parts() {
                        self.push(i, FORWARD, pointwise::relu(value_quads(images, shape), x[r], y[r]));
                    }
                    StoredValue::plain(y)
                }
                Op::Add => {
                    let [x, other] = [input, layer.inputs[1]].map(|value| self.ready(i, &mut values, value));
                    let y = fresh(self);
                    for (r, images, _) in self.parts() {
                        self.push(i, FORWARD, pointwise::add(value_quads(images, shape), x[r], other[r], y[r]));
                    }
                    StoredValue::plain(y)
                }
                Op::MaxPool { size } => {
                    let (x, y) = (self.ready(i, &mut values, input), fresh(self));
                    for (r, images, _) in self.parts() {
                        self.push(i, FORWARD, pool::max_pool(images, feature_map(shape), *size, x[r], y[r]));
                    }
                    StoredValue::plain(y)
                }
                Op::GlobalAvgPool => {
                    let (x, y) = (self.ready(i, &mut values, input), fresh(self));
                    for (r, images, _) in self.parts() {
                        self.push(i, FORWARD, pool::global_pool(images, feature_map(shape), x[r], y[r]));
                    }
                    StoredValue::plain(y)
                }
                Op::Linear { in_features, out_features } => {
                    let (weight, bias) = (self.parameter(i, 0), self.parameter(i, 1));
                    let (x, y) = (self.ready(i, &mut values, input), fresh(self));
                    for (r, images, _) in self.parts() {
                        let dispatch = linear::forward(images, *in_features, *out_features, x[r], weight, bias, y[r]);
                        self.push(i, FORWARD, dispatch);
                    }
                    StoredValue::plain(y)
                }
            };
            if stored.norm.is_none() {
                self.program.outputs.push((i, self.program.steps.len(), stored.tensor.clone()));
            }
            values.push(stored);
        }
        Tape { values, affine, mode, logits: logits.clone(), pooled: None }
    }

    /// Whether the value of `layer` is the logits: it is the last layer, or the last but one if the last is a ReLU
    /// fused with it.
    fn is_last(&self, layer: usize, readers: &[usize]) -> bool {
        let relu = matches!(self.network.layers[layer].op, Op::BatchNorm { .. }) && self.with_relu(layer, readers);
        layer + 1 + usize::from(relu) == self.network.layers.len()
    }

    /// The value of a batch norm or of the input normalisation over `x`: computed by its consumers on load, or
    /// materialised if the host reads it or fusion is off.
    fn normed(
        &mut self,
        i: usize,
        x: Tensor,
        affine: Slice,
        relu: bool,
        is_last: bool,
        fresh: impl FnOnce(&mut Self) -> Tensor,
    ) -> StoredValue {
        if !self.choices.plain && !is_last {
            return StoredValue { norm: Some((affine, relu)), ..StoredValue::plain(x) };
        }
        let shape = self.network.layers[i].shape;
        let y = fresh(self);
        for (r, images, _) in self.parts() {
            let dispatch = norm::apply(rows(images, shape), shape.channels, relu, x[r], affine, y[r]);
            self.push(i, FORWARD, dispatch);
        }
        StoredValue::plain(y)
    }

    /// A value in memory; materialises it if needed.
    fn ready(&mut self, layer: usize, values: &mut [StoredValue], value: Value) -> Tensor {
        let shape = self.network.shape_of(value);
        let tensor = self.materialise(layer, &mut values[value], shape);
        // A batch norm and the ReLU fused with it share one value.
        let norm = values[value].norm;
        for other in values.iter_mut().filter(|other| other.norm.is_some() && other.norm == norm) {
            other.ready = Some(tensor.clone());
        }
        tensor
    }

    /// A value in memory for the backward pass. The forward pass has materialised it if one of its layers needed it
    /// there.
    pub(super) fn in_memory(&mut self, layer: usize, tape: &Tape, value: Value) -> Tensor {
        self.materialise(layer, &mut tape.values[value].clone(), self.network.shape_of(value))
    }

    fn materialise(&mut self, layer: usize, stored: &mut StoredValue, shape: ImageShape) -> Tensor {
        let Some((affine, relu)) = stored.norm else { return stored.tensor.clone() };
        if let Some(ready) = &stored.ready {
            return ready.clone();
        }
        let y = self.tensor(shape, "normalised");
        for (r, images, _) in self.parts() {
            let (x, rows) = (stored.tensor[r], rows(images, shape));
            self.push(layer, FORWARD, norm::apply(rows, shape.channels, relu, x, affine, y[r]));
        }
        stored.ready = Some(y.clone());
        y
    }

    /// The other branch of the residual addition after convolution `layer`, if the addition is fused with it: it must
    /// be the convolution's only consumer, and the other branch must be computed earlier.
    fn joins(&self, layer: usize, readers: &[usize]) -> Option<Value> {
        let next = self.network.layers.get(layer + 1)?;
        let joins = !self.choices.plain
            && next.op == Op::Add
            && matches!(self.network.layers[layer].op, Op::Conv2d { .. })
            && readers[layer + 1] == 1
            && next.inputs[0] == layer + 1
            && next.inputs[1] <= layer
            && layer + 2 < self.network.layers.len();
        joins.then(|| next.inputs[1])
    }

    fn is_fused_add(&self, layer: usize, readers: &[usize]) -> bool {
        layer > 0 && self.network.layers[layer].op == Op::Add && self.joins(layer - 1, readers).is_some()
    }

    fn conv(
        &mut self,
        i: usize,
        layer: &Layer,
        values: &mut [StoredValue],
        readers: &[usize],
        mode: BatchNormMode,
        fresh: impl FnOnce(&mut Self) -> Tensor,
    ) -> StoredValue {
        let Some(conv) = geometry(self.network, layer) else { return values[layer.inputs[0]].clone() };
        let other = self.joins(i, readers).map(|value| self.ready(i, values, value));
        let x = values[layer.inputs[0]].clone();
        let y = fresh(self);
        if let Some(normalization) = self.stem(i).filter(|_| stem::fits_forward(&conv)) {
            return self.stem_forward(i, &conv, &x.tensor, normalization, y, mode);
        }
        let written = i + 1 + usize::from(other.is_some());
        let wanted = mode == BatchNormMode::Train && self.feeds_batch_norm(written);
        if let Some(product) = self.winograd(&conv, Pass::Forward) {
            let blocks = |images: usize| product.blocks(images);
            let partials = self.partials(wanted, conv.out_channels, blocks);
            let finish = partials.map_or(Finish::Nothing, |(partials, _)| Finish::Statistics { partials });
            self.push_winograd(i, FORWARD, product, &x.tensor, |_| x.read(), &y, other.as_ref(), |_| finish);
            return StoredValue { partials, ..StoredValue::plain(y) };
        }
        let weight = self.parameter(i, 0);
        let tile = self.choices.product_tile(&conv, Pass::Forward);
        let blocks = |images: usize| conv::statistics_blocks(&conv, tile, images);
        let partials = self.partials(wanted && !self.choices.plain, conv.out_channels, blocks);
        let mut first = 0;
        for (r, images, _) in self.parts() {
            let add = other.as_ref().map(|other| other[r]);
            let statistics = partials.map(|(partials, _)| (partials, first));
            let product = conv::Product { tile, budget: self.budget, read: x.read(), add, statistics };
            for dispatch in conv::forward(&conv, images, product, x.tensor[r], weight, y[r]) {
                self.push(i, FORWARD, dispatch);
            }
            first += blocks(images);
        }
        StoredValue { partials, ..StoredValue::plain(y) }
    }

    /// A buffer for the partial statistics that a kernel writes, and their number of blocks; `of` gives the blocks of a
    /// range. `None` if they are not `wanted` or exceed one binding.
    fn partials(&mut self, wanted: bool, channels: usize, of: impl Fn(usize) -> usize) -> Option<(Slice, usize)> {
        let blocks = self.ranges.iter().map(|images| of(*images)).sum();
        let size = 4 * norm::partials_len(blocks, channels) as u64;
        (wanted && size <= self.binding).then(|| (self.program.scratch(size, "batch norm sums"), blocks))
    }

    /// The normalisation of the images, if convolution `layer` is its only consumer and the images have no other
    /// consumer: the convolution's backward pass then gives the whole gradient of the images.
    pub(super) fn stem(&self, layer: usize) -> Option<Slice> {
        let network = self.network;
        let first = network.layers.first().is_some_and(|first| matches!(first.op, Op::Normalize { .. }));
        let alone = network.readers()[..2] == [1, 1];
        if layer != 1 || !first || self.choices.plain || !alone || network.layers[1].inputs[0] != 1 {
            return None;
        }
        let known = self.program.buffers.iter().position(|buffer| buffer.home == Some(Fixed::Normalization));
        known.map(|index| Slice { buffer: BufferId(index), offset: 0, size: self.program.buffers[index].size })
    }

    fn stem_forward(
        &mut self,
        i: usize,
        conv: &Conv,
        x: &Tensor,
        normalization: Slice,
        y: Tensor,
        mode: BatchNormMode,
    ) -> StoredValue {
        let weight = self.parameter(i, 0);
        let wanted = mode == BatchNormMode::Train && self.feeds_batch_norm(i + 1);
        let blocks = |images: usize| stem::statistics_blocks(conv, images);
        let partials = self.partials(wanted, conv.out_channels, blocks);
        let mut first = 0;
        for (r, images, _) in self.parts() {
            let statistics = partials.map(|(partials, _)| (partials, first));
            for dispatch in stem::forward(conv, images, self.budget, x[r], normalization, weight, y[r], statistics) {
                self.push(i, FORWARD, dispatch);
            }
            first += blocks(images);
        }
        StoredValue { partials, ..StoredValue::plain(y) }
    }

    fn feeds_batch_norm(&self, value: Value) -> bool {
        let reads = |layer: &Layer| matches!(layer.op, Op::BatchNorm { .. }) && layer.inputs[0] == value;
        self.network.layers.iter().any(reads)
    }

    /// Scale and shift of a batch norm over `x`, from the batch or from the running statistics. `partials` are the
    /// partial statistics of `x`, if the kernel that wrote it computed them.
    fn batch_norm(
        &mut self,
        i: usize,
        channels: usize,
        shape: ImageShape,
        x: &Tensor,
        partials: Option<(Slice, usize)>,
        mode: BatchNormMode,
    ) -> Slice {
        let (weight, bias, running) = (self.parameter(i, 0), self.parameter(i, 1), self.running(i));
        let affine = self.program.transient(16 * padded(channels) as u64, "scale and shift");
        match mode {
            BatchNormMode::Eval => {
                let dispatch = norm::from_running(channels, BATCH_NORM_EPSILON, weight, bias, running, affine);
                self.push(i, FORWARD, dispatch);
            }
            BatchNormMode::Train => {
                let (partials, blocks) = partials.unwrap_or_else(|| self.statistics(i, channels, shape, x));
                let (epsilon, momentum) = (BATCH_NORM_EPSILON, BATCH_NORM_MOMENTUM);
                let dispatch =
                    norm::finalize(blocks, channels, epsilon, momentum, partials, weight, bias, running, affine);
                self.push(i, FORWARD, dispatch);
            }
        }
        affine
    }

    fn statistics(&mut self, i: usize, channels: usize, shape: ImageShape, x: &Tensor) -> (Slice, usize) {
        let blocks = self.blocks(shape);
        let partials = self.program.scratch(4 * norm::partials_len(blocks, channels) as u64, "batch norm sums");
        let mut first = 0;
        for (r, images, _) in self.parts() {
            let rows = rows(images, shape);
            self.push(i, FORWARD, norm::statistics(rows, channels, x[r], partials, first));
            first += norm::statistics_blocks(rows);
        }
        (partials, blocks)
    }

    pub(super) fn blocks(&self, shape: ImageShape) -> usize {
        self.ranges.iter().map(|images| norm::statistics_blocks(rows(*images, shape))).sum()
    }
}
