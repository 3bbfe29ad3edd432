//! A network as data: layers in the order in which they run, each naming the values it reads.
//!
//! Value 0 is the image batch `B × C × H × W` in `[0, 1]`; value `i + 1` is the output of layer `i`. Residual joins are
//! layers with two inputs. Engines compile this list; nothing here computes.

use std::collections::BTreeSet;

use super::state::ModelError;
use crate::data::ImageShape;

/// Index of a value: 0 is the input, `i + 1` the output of layer `i`.
pub type Value = usize;

/// PyTorch's default for batch norm, which all architectures here use.
pub const BATCH_NORM_EPSILON: f32 = 1e-5;
/// PyTorch's default momentum of the running statistics.
pub const BATCH_NORM_MOMENTUM: f32 = 0.1;

/// What a layer computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// `(x - mean) / std` for each channel. Always the first layer: images stay in `[0, 1]` outside the network.
    Normalize {
        /// Mean of each channel.
        mean: Vec<f32>,
        /// Standard deviation of each channel.
        std: Vec<f32>,
    },
    /// Convolution without bias, square kernel, zero padding. Weight `out × in × kernel × kernel`.
    Conv2d {
        /// Input channels.
        in_channels: usize,
        /// Output channels.
        out_channels: usize,
        /// Rows and columns of the kernel.
        kernel: usize,
        /// Stride in both directions.
        stride: usize,
        /// Zeros added on each side.
        padding: usize,
    },
    /// Batch norm over `B × H × W` for each channel, affine, with running statistics.
    BatchNorm {
        /// Channels.
        channels: usize,
    },
    /// `max(x, 0)`.
    Relu,
    /// Sum of two values of the same shape.
    Add,
    /// Maximum over non-overlapping windows of `size × size`; rows and columns that do not fill a window are dropped.
    MaxPool {
        /// Rows and columns of a window, and the stride.
        size: usize,
    },
    /// Mean over all pixels of a channel: `B × C × H × W` to `B × C`.
    GlobalAvgPool,
    /// `x · weightᵀ + bias`. Weight `out × in`. Reads features, which have height and width 1.
    Linear {
        /// Input features.
        in_features: usize,
        /// Output features.
        out_features: usize,
    },
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// PyTorch's module path, such as `layer2.0.bn1`; parameters are named `NAME.weight` and so on.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The values it reads: one, or two for [`Op::Add`].
    pub inputs: Vec<Value>,
    /// Shape of its output for one image. Features after pooling have height and width 1.
    pub shape: ImageShape,
}

/// How a parameter is initialised: PyTorch's default for the layer it belongs to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Initialisation {
    /// Uniform in `±bound`, with `bound = 1 / √fan_in` (`kaiming_uniform` with `a = √5`, and the bias of linear
    /// layers).
    Uniform {
        /// Half the width of the interval.
        bound: f32,
    },
    /// The same value everywhere: 1 for scales and running variances, 0 for shifts and running means.
    Constant(f32),
}

/// A named array of the network's state.
#[derive(Debug, Clone, PartialEq)]
pub struct StateSpec {
    /// PyTorch's name in the state dict.
    pub name: String,
    /// PyTorch's shape.
    pub shape: Vec<usize>,
    /// Its initial values.
    pub initialisation: Initialisation,
    /// Trained by SGD; `false` for running statistics.
    pub trained: bool,
}

/// A classifier: layers from an image to `classes` logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Network {
    /// Which architecture, such as `preact-resnet-18`.
    pub architecture: String,
    /// Shape of the images.
    pub input: ImageShape,
    /// Number of logits `K`.
    pub classes: usize,
    /// The layers in execution order. The last one computes the logits.
    pub layers: Vec<Layer>,
}

impl Network {
    /// Every array of the state dict in execution order: parameters and running statistics.
    pub fn state_specs(&self) -> Vec<StateSpec> {
        let mut specs = Vec::new();
        for layer in &self.layers {
            let mut add = |field: &str, shape: Vec<usize>, initialisation, trained| {
                specs.push(StateSpec { name: format!("{}.{field}", layer.name), shape, initialisation, trained });
            };
            match layer.op {
                Op::Conv2d { in_channels, out_channels, kernel, .. } => {
                    let bound = 1.0 / ((in_channels * kernel * kernel) as f32).sqrt();
                    let shape = vec![out_channels, in_channels, kernel, kernel];
                    add("weight", shape, Initialisation::Uniform { bound }, true);
                }
                Op::BatchNorm { channels } => {
                    add("weight", vec![channels], Initialisation::Constant(1.0), true);
                    add("bias", vec![channels], Initialisation::Constant(0.0), true);
                    add("running_mean", vec![channels], Initialisation::Constant(0.0), false);
                    add("running_var", vec![channels], Initialisation::Constant(1.0), false);
                }
                Op::Linear { in_features, out_features } => {
                    let bound = 1.0 / (in_features as f32).sqrt();
                    add("weight", vec![out_features, in_features], Initialisation::Uniform { bound }, true);
                    add("bias", vec![out_features], Initialisation::Uniform { bound }, true);
                }
                Op::Normalize { .. } | Op::Relu | Op::Add | Op::MaxPool { .. } | Op::GlobalAvgPool => {}
            }
        }
        specs
    }

    /// Number of trained parameters.
    pub fn parameter_count(&self) -> usize {
        let trained = self.state_specs().into_iter().filter(|spec| spec.trained);
        trained.map(|spec| spec.shape.iter().product::<usize>()).sum()
    }

    /// Bytes of the parameters and running statistics.
    pub fn state_bytes(&self) -> u128 {
        let elements = |spec: StateSpec| spec.shape.iter().fold(1, |all: u128, n| all.saturating_mul(*n as u128));
        self.state_specs().into_iter().map(elements).fold(0, u128::saturating_add).saturating_mul(4)
    }

    /// Bytes of `batch` images and of the outputs of all convolutions for them: what a backward pass needs at least.
    pub fn activation_bytes(&self, batch: usize) -> u128 {
        let convolutions = self.layers.iter().filter(|layer| matches!(layer.op, Op::Conv2d { .. }));
        let shapes = convolutions.map(|layer| layer.shape).chain([self.input]);
        let of = |ImageShape { channels, height, width }| {
            [channels, height, width].iter().fold(4, |all: u128, n| all.saturating_mul(*n as u128))
        };
        shapes.map(of).fold(0, u128::saturating_add).saturating_mul(batch as u128)
    }

    /// Bytes that training on batches of `batch` images takes at least: weights, gradients and momentum, and
    /// [`Self::activation_bytes`].
    pub fn training_bytes(&self, batch: usize) -> u128 {
        self.state_bytes().saturating_mul(3).saturating_add(self.activation_bytes(batch))
    }

    /// Multiply-adds of convolutions and linear layers in one forward pass of one image.
    pub fn multiply_adds(&self) -> u64 {
        let of = |layer: &Layer| match layer.op {
            Op::Conv2d { in_channels, kernel, .. } => layer.shape.len() * in_channels * kernel * kernel,
            Op::Linear { in_features, out_features } => in_features * out_features,
            _ => 0,
        };
        self.layers.iter().map(|layer| of(layer) as u64).sum()
    }

    /// Shape of a value for one image.
    pub fn shape_of(&self, value: Value) -> ImageShape {
        match value.checked_sub(1) {
            None => self.input,
            Some(layer) => self.layers[layer].shape,
        }
    }

    /// How many layers read each value.
    pub fn readers(&self) -> Vec<usize> {
        let mut readers = vec![0; self.layers.len() + 1];
        for &value in self.layers.iter().flat_map(|layer| &layer.inputs) {
            readers[value] += 1;
        }
        readers
    }

    /// Checks that an engine can run these layers: each reads earlier values, of shapes that its operation accepts, and
    /// has the shape that its operation produces; every value is read; [`Op::Normalize`] comes first; the last layer
    /// has `classes` outputs.
    ///
    /// # Errors
    /// Returns [`ModelError::Layers`] with the first layer that does not fit, and the expected and found values.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |what| Err(ModelError::Layers { architecture: self.architecture.clone(), what });
        let Some(last) = self.layers.last() else { return fail("it has no layers".into()) };
        for (i, layer) in self.layers.iter().enumerate() {
            let at = |what: String| format!("layer {i} ('{}') {what}", layer.name);
            let wanted = if layer.op == Op::Add { 2 } else { 1 };
            if layer.inputs.len() != wanted {
                return fail(at(format!("reads {} values, expected {wanted}", layer.inputs.len())));
            }
            if let Some(value) = layer.inputs.iter().find(|value| **value > i) {
                return fail(at(format!("reads value {value}, expected one of 0 to {i}")));
            }
            if matches!(layer.op, Op::Normalize { .. }) && i > 0 {
                return fail(at("normalises, which only layer 0 may do".into()));
            }
            let shapes: Vec<ImageShape> = layer.inputs.iter().map(|value| self.shape_of(*value)).collect();
            match layer.op.output(&shapes) {
                None => {
                    if let Op::Normalize { mean, std } = &layer.op
                        && (mean.len(), std.len()) != (self.input.channels, self.input.channels)
                    {
                        return fail(at(format!(
                            "has a mean of {} values and standard deviation of {}, expected one for each of {} channels",
                            mean.len(),
                            std.len(),
                            self.input.channels
                        )));
                    }
                    let found = shapes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ");
                    return fail(at(format!("cannot compute {:?} from {found}", layer.op)));
                }
                Some(shape) if shape != layer.shape => {
                    return fail(at(format!("computes {shape}, but its shape field is {}", layer.shape)));
                }
                Some(_) => {}
            }
        }
        if let Some(value) = self.readers()[..self.layers.len()].iter().position(|readers| *readers == 0) {
            let what = value.checked_sub(1).map_or("the images".into(), |i| format!("'{}'", self.layers[i].name));
            return fail(format!("no layer reads {what} (value {value})"));
        }
        let logits = ImageShape::new(self.classes, 1, 1);
        if last.shape != logits {
            return fail(format!("the last layer, '{}', computes {}, expected {logits}", last.name, last.shape));
        }
        let mut names = BTreeSet::new();
        match self.state_specs().into_iter().find(|spec| !names.insert(spec.name.clone())) {
            Some(twice) => fail(format!("two layers have an array '{}'", twice.name)),
            None => Ok(()),
        }
    }
}

impl Op {
    /// Shape of the output for one image, from the shapes of the inputs; `None` if the operation does not accept them.
    pub fn output(&self, inputs: &[ImageShape]) -> Option<ImageShape> {
        let x = *inputs.first()?;
        let fits = |channels: usize| channels > 0 && channels == x.channels && x.height > 0 && x.width > 0;
        match self {
            Self::Normalize { mean, std } => (fits(mean.len()) && std.len() == mean.len()).then_some(x),
            Self::Conv2d { in_channels, out_channels, kernel, stride, padding } => {
                let size = |n: usize| ((n + 2 * padding).checked_sub(*kernel)? / stride).checked_add(1);
                let fits = fits(*in_channels) && *out_channels > 0 && *kernel > 0 && *stride > 0;
                if !fits {
                    return None;
                }
                Some(ImageShape::new(*out_channels, size(x.height)?, size(x.width)?))
            }
            Self::BatchNorm { channels } => fits(*channels).then_some(x),
            Self::Relu => fits(x.channels).then_some(x),
            Self::Add => (fits(x.channels) && inputs.get(1) == Some(&x)).then_some(x),
            Self::MaxPool { size } => {
                let fits = fits(x.channels) && *size > 0 && x.height >= *size && x.width >= *size;
                fits.then(|| ImageShape::new(x.channels, x.height / size, x.width / size))
            }
            Self::GlobalAvgPool => fits(x.channels).then(|| ImageShape::new(x.channels, 1, 1)),
            Self::Linear { in_features, out_features } => {
                let fits = fits(*in_features) && *out_features > 0 && (x.height, x.width) == (1, 1);
                fits.then(|| ImageShape::new(*out_features, 1, 1))
            }
        }
    }
}

/// Builds a [`Network`] layer by layer and tracks shapes.
#[derive(Debug)]
pub(super) struct Builder {
    network: Network,
}

impl Builder {
    /// Starts with the input normalisation, if there is one.
    pub(super) fn new(
        architecture: &str,
        input: ImageShape,
        classes: usize,
        normalisation: Option<(&[f32], &[f32])>,
    ) -> Self {
        let network = Network { architecture: architecture.into(), input, classes, layers: Vec::new() };
        let mut builder = Self { network };
        if let Some((mean, std)) = normalisation {
            let op = Op::Normalize { mean: mean.to_vec(), std: std.to_vec() };
            builder.push("normalize", op, vec![0], input);
        }
        builder
    }

    /// The value computed last: the input, or the output of the last layer.
    pub(super) fn last(&self) -> Value {
        self.network.layers.len()
    }

    /// Channels of a value.
    pub(super) fn channels(&self, value: Value) -> usize {
        self.network.shape_of(value).channels
    }

    fn push(&mut self, name: &str, op: Op, inputs: Vec<Value>, shape: ImageShape) -> Value {
        self.network.layers.push(Layer { name: name.into(), op, inputs, shape });
        self.last()
    }

    /// 3×3 or 1×1 convolution whose padding keeps the size at stride 1.
    pub(super) fn conv(&mut self, name: &str, x: Value, out_channels: usize, kernel: usize, stride: usize) -> Value {
        let input = self.network.shape_of(x);
        let padding = kernel / 2;
        let size = |n: usize| (n + 2 * padding - kernel) / stride + 1;
        let shape = ImageShape::new(out_channels, size(input.height), size(input.width));
        self.push(
            name,
            Op::Conv2d { in_channels: input.channels, out_channels, kernel, stride, padding },
            vec![x],
            shape,
        )
    }

    /// Batch norm.
    pub(super) fn norm(&mut self, name: &str, x: Value) -> Value {
        let shape = self.network.shape_of(x);
        self.push(name, Op::BatchNorm { channels: shape.channels }, vec![x], shape)
    }

    /// Batch norm, then ReLU.
    pub(super) fn norm_relu(&mut self, name: &str, x: Value) -> Value {
        let x = self.norm(name, x);
        self.relu(x)
    }

    /// ReLU.
    pub(super) fn relu(&mut self, x: Value) -> Value {
        self.push("relu", Op::Relu, vec![x], self.network.shape_of(x))
    }

    /// Residual join.
    pub(super) fn add(&mut self, a: Value, b: Value) -> Value {
        self.push("add", Op::Add, vec![a, b], self.network.shape_of(a))
    }

    /// 2×2 max pooling; skipped if the maps are one pixel wide or high.
    pub(super) fn max_pool(&mut self, x: Value) -> Value {
        let input = self.network.shape_of(x);
        if input.height < 2 || input.width < 2 {
            return x;
        }
        let shape = ImageShape::new(input.channels, input.height / 2, input.width / 2);
        self.push("pool", Op::MaxPool { size: 2 }, vec![x], shape)
    }

    /// Global average pooling and the linear layer that computes the logits.
    pub(super) fn head(mut self, name: &str, x: Value) -> Network {
        let channels = self.channels(x);
        let pooled = self.push("pool", Op::GlobalAvgPool, vec![x], ImageShape::new(channels, 1, 1));
        let classes = self.network.classes;
        let op = Op::Linear { in_features: channels, out_features: classes };
        self.push(name, op, vec![pooled], ImageShape::new(classes, 1, 1));
        self.network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Architecture;

    fn layer(name: &str, op: Op, inputs: &[Value], shape: [usize; 3]) -> Layer {
        let [channels, height, width] = shape;
        Layer { name: name.into(), op, inputs: inputs.to_vec(), shape: ImageShape::new(channels, height, width) }
    }

    fn conv() -> Op {
        Op::Conv2d { in_channels: 2, out_channels: 3, kernel: 3, stride: 2, padding: 1 }
    }

    /// Normalisation, a convolution, pooling, a linear layer.
    fn small() -> Network {
        let layers = vec![
            layer("normalize", Op::Normalize { mean: vec![0.5; 2], std: vec![0.25; 2] }, &[0], [2, 5, 4]),
            layer("conv", conv(), &[1], [3, 3, 2]),
            layer("mean", Op::GlobalAvgPool, &[2], [3, 1, 1]),
            layer("linear", Op::Linear { in_features: 3, out_features: 4 }, &[3], [4, 1, 1]),
        ];
        Network { architecture: "small".into(), input: ImageShape::new(2, 5, 4), classes: 4, layers }
    }

    #[test]
    fn every_architecture_can_run() {
        for architecture in Architecture::ALL {
            for (side, normalised) in [(8, true), (33, false)] {
                let normalisation: Option<(&[f32], &[f32])> = normalised.then_some((&[0.5; 3], &[0.25; 3]));
                architecture.build(ImageShape::new(3, side, side), 7, normalisation, Some(5)).check().unwrap();
            }
        }
        small().check().unwrap();
    }

    #[test]
    fn sizes_are_counted_without_overflow() {
        let network = small();
        // 54 weights of the convolution, 12 and 4 of the linear layer; 40 values of an image and 18 of the convolution.
        assert_eq!((network.state_bytes(), network.activation_bytes(2)), (4 * 70, 4 * 2 * (40 + 18)));
        assert_eq!(network.training_bytes(2), 3 * 4 * 70 + 4 * 2 * 58);
        for architecture in Architecture::ALL {
            let side = usize::from(u16::MAX);
            let huge = architecture.build(ImageShape::new(3, side, side), 1 << 32, None, Some(usize::MAX / 2));
            assert!(huge.training_bytes(usize::MAX) > 1 << 64, "{architecture}");
        }
    }

    #[test]
    fn layers_that_do_not_fit_together_are_rejected() {
        type Change = fn(&mut Network);
        let changes: [(Change, &str); 14] = [
            (|n| n.layers.clear(), "no layers"),
            (|n| n.layers[1].inputs = vec![1, 1], "reads 2 values, expected 1"),
            (|n| n.layers[1].op = Op::Add, "reads 1 values, expected 2"),
            (|n| n.layers[1].inputs = vec![2], "expected one of 0 to 1"),
            (|n| n.layers[1].inputs = vec![0], "no layer reads 'normalize' (value 1)"),
            (|n| n.layers[1].shape.width = 3, "computes 3×3×2"),
            (|n| n.layers[1].op = Op::MaxPool { size: 5 }, "cannot compute"),
            (|n| n.layers[1].op = Op::BatchNorm { channels: 3 }, "cannot compute"),
            (|n| n.layers[1].op = n.layers[0].op.clone(), "only layer 0"),
            (|n| n.layers[0].op = Op::Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] }, "a mean of 3 values"),
            (|n| n.layers[2].op = Op::Linear { in_features: 3, out_features: 3 }, "cannot compute"),
            (|n| n.classes = 5, "expected 5×1×1"),
            (|n| n.layers[3].name = "conv".into(), "two layers have an array 'conv.weight'"),
            (
                |n| n.layers[1].op = Op::Conv2d { in_channels: 2, out_channels: 3, kernel: 9, stride: 1, padding: 1 },
                "cannot",
            ),
        ];
        for (change, expected) in changes {
            let mut network = small();
            change(&mut network);
            let error = network.check().unwrap_err();
            assert!(matches!(error, ModelError::Layers { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}: expected '{expected}'");
        }
    }
}
