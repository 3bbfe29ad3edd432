//! Lowers a network's layers to dispatches: forward, backward to the image, backward to the parameters.
//!
//! A batch whose activations exceed the maximum size of a binding is split into ranges of images. Every activation then
//! has one buffer per range. Reductions over the batch (batch norm, weight gradients) run over all ranges in order, so
//! the result is that of the whole batch.
//!
//! A batch norm and the ReLU after it are not materialised: the convolution that consumes them computes them on load
//! from the batch norm's input ([`StoredValue`]), and their backward pass likewise ([`Gradient`]). Residuals are added
//! in the epilogue of a convolution. With [`Choices::plain`] every layer has its own kernel; tests compare with that.

mod backward;
mod forward;

pub(super) use self::backward::Objective;

use std::collections::BTreeSet;

use super::error::{GpuError, readable};
use super::kernel::{Dispatch, Slice, padded, quads};
use super::kernels::conv::{Conv, Pass};
use super::kernels::pool::FeatureMap;
use super::kernels::read::Read;
use super::kernels::stem::Search;
use super::kernels::winograd;
use super::parameters::Parameters;
use super::program::{DispatchKind, Fixed, Place, Program};
use super::tuning::{Algorithm, Choices};
use crate::data::ImageShape;
use crate::engine::BatchNormMode;
use crate::model::{Layer, Network, Op};

/// A value of the network: one slice per range of images.
pub(super) type Tensor = Vec<Slice>;

/// Bytes of a value for `images` images.
pub(super) const fn bytes(images: usize, shape: ImageShape) -> u64 {
    4 * (images * shape.height * shape.width * padded(shape.channels)) as u64
}

/// The ranges of images that a batch is split into: the number of images of each.
///
/// # Errors
/// [`GpuError::Limits`] if a single image is too large for a binding.
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
    // Ranges differ by at most one image, so that no dispatch is a small remainder.
    let count = batch.div_ceil(most).max(1);
    Ok((0..count).map(|i| (batch * (i + 1)) / count - (batch * i) / count).collect())
}

/// A value of the forward pass: a tensor, and what its consumers compute from it on load.
///
/// If `norm` is set, `tensor` is the input of the batch norm and not the value. A kernel that does not accept
/// [`Self::read`] needs [`Lower::ready`] or [`Lower::in_memory`].
#[derive(Debug, Clone)]
struct StoredValue {
    tensor: Tensor,
    /// The batch norm that consumers apply (scale, shift, mean and rstd), and whether a ReLU follows it.
    norm: Option<(Slice, bool)>,
    /// The materialised value, once a consumer needed it in memory. `None` if `norm` is `None`: `tensor` is the value
    /// then.
    ready: Option<Tensor>,
    /// Partial statistics of `tensor` and the number of blocks, if the kernel that wrote it computed them.
    partials: Option<(Slice, usize)>,
}

impl StoredValue {
    const fn plain(tensor: Tensor) -> Self {
        Self { tensor, norm: None, ready: None, partials: None }
    }

    fn read(&self) -> Read {
        self.norm.map_or(Read::Plain, |(norm, relu)| Read::Norm { norm, relu })
    }
}

/// What a forward pass keeps for the backward pass.
#[derive(Debug, Clone)]
pub(super) struct Tape {
    values: Vec<StoredValue>,
    /// Scale, shift, mean and rstd of each batch norm.
    affine: Vec<Option<Slice>>,
    mode: BatchNormMode,
    logits: Tensor,
    /// The linear layer's input, for the gradient of its weights, if one kernel computed pooling and linear layer.
    pooled: Option<Tensor>,
}

/// What a backward pass computes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Want<'a> {
    /// The gradient with respect to the images.
    Image,
    /// One step of a search along that gradient, for each range. The gradient is returned if the step needs a separate
    /// kernel.
    Step(&'a [Search]),
    /// Gradients of all parameters; with `accumulate` added to the existing ones.
    Parameters { accumulate: bool },
}

/// Appends passes over a network to a program.
#[derive(Debug)]
pub(super) struct Lower<'a> {
    pub(super) network: &'a Network,
    pub(super) parameters: &'a Parameters,
    /// Images in each range.
    pub(super) ranges: Vec<usize>,
    /// Maximum number of floating-point operations of one dispatch.
    pub(super) budget: u64,
    /// Maximum size of a binding in bytes.
    pub(super) binding: u64,
    pub(super) choices: &'a Choices,
    pub(super) program: Program,
}

impl<'a> Lower<'a> {
    /// Index, number of images and first image of each range.
    pub(super) fn parts(&self) -> Vec<(usize, usize, usize)> {
        let mut first = 0;
        let next = |(i, images): (usize, &usize)| {
            let part = (i, *images, first);
            first += images;
            part
        };
        self.ranges.iter().enumerate().map(next).collect()
    }

    /// A value in named buffers.
    pub(super) fn named(&mut self, home: fn(usize) -> Fixed, shape: ImageShape) -> Tensor {
        let sizes: Vec<u64> = self.ranges.iter().map(|images| bytes(*images, shape)).collect();
        let slice = |(i, size)| self.program.fixed(Place { home: home(i), offset: 0, size }, size);
        sizes.into_iter().enumerate().map(slice).collect()
    }

    /// A named buffer, bound as a whole.
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

    /// Whether the next layer is a ReLU that is fused with this batch norm: it must be its only consumer.
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

    fn push(&mut self, layer: usize, kind: DispatchKind, dispatch: Dispatch) {
        self.program.push(Some(layer), kind, dispatch);
    }

    /// Winograd's product for a pass of a convolution, if it is the choice and an image fits.
    fn winograd(&self, conv: &Conv, pass: Pass) -> Option<winograd::Product> {
        let Algorithm::Winograd { outputs, tile } = self.choices.of(conv, pass) else { return None };
        let (budget, binding) = (self.budget, self.binding);
        let product = winograd::Product { conv: *conv, pass, outputs, tile, budget, binding };
        product.fits().then_some(product)
    }

    /// Appends the dispatches of Winograd's product over all ranges. The partials of `finish` are ordered by range.
    #[allow(clippy::too_many_arguments, reason = "what a convolution reads and writes")]
    fn push_winograd(
        &mut self,
        layer: usize,
        kind: DispatchKind,
        product: winograd::Product,
        source: &Tensor,
        read: impl Fn(usize) -> Read,
        result: &Tensor,
        add: Option<&Tensor>,
        finish: impl Fn(usize) -> winograd::Finish,
    ) {
        let u = self.transformed(layer, &product.conv, product.outputs);
        let most = self.ranges.iter().map(|images| product.workspace(*images));
        let [v, m] = most.reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1])]).unwrap_or_default();
        let (v, m) = (self.program.scratch(v, "Winograd tiles"), self.program.scratch(m, "Winograd products"));
        let mut first_block = 0;
        for (r, images, _) in self.parts() {
            let places = winograd::Places {
                source: source[r],
                read: read(r),
                u,
                v,
                m,
                result: result[r],
                add: add.map(|add| add[r]),
                finish: finish(r),
                first_block,
            };
            for dispatch in product.dispatches(images, &places) {
                self.push(layer, kind, dispatch);
            }
            first_block += product.blocks(images);
        }
    }

    fn transformed(&mut self, layer: usize, conv: &Conv, outputs: usize) -> Slice {
        let size = 4 * winograd::weight_len(conv, outputs) as u64;
        self.whole(Fixed::Transformed { layer, outputs }, size)
    }

    /// Transforms the weights of all layers that Winograd's algorithm computes. Must run after every change of the
    /// weights.
    pub(super) fn transform_weights(&mut self) {
        for (i, layer) in self.network.layers.iter().enumerate() {
            let Some(conv) = geometry(self.network, layer) else { continue };
            let used = [Pass::Forward, Pass::InputGradient].map(|pass| self.winograd(&conv, pass).map(|p| p.outputs));
            for outputs in used.into_iter().flatten().collect::<BTreeSet<_>>() {
                let (weight, u) = (self.parameter(i, 0), self.transformed(i, &conv, outputs));
                self.push(i, DispatchKind::Other, winograd::transform_weight(&conv, outputs, weight, u));
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

const fn feature_map(shape: ImageShape) -> FeatureMap {
    FeatureMap { channels: shape.channels, height: shape.height, width: shape.width }
}

const fn rows(images: usize, shape: ImageShape) -> u64 {
    (images * shape.height * shape.width) as u64
}

const fn value_quads(images: usize, shape: ImageShape) -> u64 {
    rows(images, shape) * quads(shape.channels) as u64
}
