//! Networks of layers that no built-in architecture has: chosen ones and random ones. For tests.

use crate::data::ImageShape;
use crate::model::{Layer, Network, Op, Value};
use crate::rng::{Purpose, Sequence, Stream};

/// Number of classes of all networks.
pub(super) const CLASSES: usize = 4;

/// Builds a network from operations; derives the shapes.
pub(super) struct Builder {
    input: ImageShape,
    layers: Vec<Layer>,
}

impl Builder {
    pub(super) fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { input: ImageShape::new(channels, height, width), layers: Vec::new() }
    }

    fn last(&self) -> Value {
        self.layers.len()
    }

    fn shape(&self, value: Value) -> ImageShape {
        value.checked_sub(1).map_or(self.input, |layer| self.layers[layer].shape)
    }

    fn add(&mut self, op: Op, inputs: &[Value]) -> Value {
        let shapes: Vec<ImageShape> = inputs.iter().map(|value| self.shape(*value)).collect();
        let shape = op.output(&shapes).unwrap_or_else(|| panic!("{op:?} of {shapes:?}"));
        let name = format!("layer{}", self.layers.len());
        self.layers.push(Layer { name, op, inputs: inputs.to_vec(), shape });
        self.last()
    }

    fn normalize(&mut self) -> Value {
        let channels = self.input.channels;
        let row = |first: f32, step: f32| (0..channels).map(|c| first + step * c as f32).collect();
        self.add(Op::Normalize { mean: row(0.4, 0.05), std: row(0.2, 0.03) }, &[0])
    }

    pub(super) fn conv(&mut self, x: Value, out_channels: usize, [kernel, stride, padding]: [usize; 3]) -> Value {
        let in_channels = self.shape(x).channels;
        self.add(Op::Conv2d { in_channels, out_channels, kernel, stride, padding }, &[x])
    }

    fn norm(&mut self, x: Value) -> Value {
        self.add(Op::BatchNorm { channels: self.shape(x).channels }, &[x])
    }

    pub(super) fn norm_relu(&mut self, x: Value) -> Value {
        let x = self.norm(x);
        self.add(Op::Relu, &[x])
    }

    pub(super) fn linear(&mut self, x: Value, out_features: usize) -> Value {
        self.add(Op::Linear { in_features: self.shape(x).channels, out_features }, &[x])
    }

    /// Adds layers from any value to logits.
    pub(super) fn head(&mut self, x: Value) -> Value {
        let pooled = self.add(Op::GlobalAvgPool, &[x]);
        self.linear(pooled, CLASSES)
    }

    pub(super) fn build(self, name: &str) -> Network {
        let network = Network { architecture: name.into(), input: self.input, classes: CLASSES, layers: self.layers };
        network.check().unwrap_or_else(|error| panic!("{error}: {:#?}", network.layers));
        network
    }
}

/// Kernel, stride and padding of a convolution that keeps the size.
pub(super) const SAME: [usize; 3] = [3, 1, 1];

/// A network and a description of its special feature.
pub(super) type Case = (&'static str, [usize; 3], fn(&mut Builder));

/// Combinations of layers that no built-in network has.
pub(super) const CASES: [Case; 16] = [
    ("batch norm of the normalised images", [3, 6, 5], |b| {
        let x = b.normalize();
        let x = b.norm(x);
        let x = b.conv(x, 8, SAME);
        b.head(x);
    }),
    ("linear layer behind batch norm and ReLU of maps of 1×1", [3, 4, 4], |b| {
        let x = b.conv(0, 12, [4, 1, 0]);
        let x = b.norm_relu(x);
        b.linear(x, CLASSES);
    }),
    ("linear layers in the middle", [3, 6, 6], |b| {
        let x = b.normalize();
        let x = b.conv(x, 9, SAME);
        let x = b.norm_relu(x);
        let x = b.add(Op::GlobalAvgPool, &[x]);
        let x = b.linear(x, 10);
        let x = b.norm_relu(x);
        let x = b.conv(x, 7, SAME);
        b.linear(x, CLASSES);
    }),
    ("batch norm and ReLU give the logits", [3, 5, 5], |b| {
        let x = b.conv(0, 6, SAME);
        let x = b.head(x);
        b.norm_relu(x);
    }),
    ("batch norm gives the logits", [3, 5, 5], |b| {
        let x = b.normalize();
        let x = b.head(x);
        b.norm(x);
    }),
    ("pooling gives the logits", [2, 7, 5], |b| {
        let x = b.conv(0, 16, SAME);
        let x = b.norm_relu(x);
        let x = b.conv(x, CLASSES, SAME);
        b.add(Op::GlobalAvgPool, &[x]);
    }),
    ("a sum gives the logits", [3, 4, 5], |b| {
        let x = b.conv(0, 12, SAME);
        let x = b.norm_relu(x);
        let x = b.add(Op::GlobalAvgPool, &[x]);
        let y = b.linear(x, CLASSES);
        let z = b.conv(x, CLASSES, [1, 1, 0]);
        b.add(Op::Add, &[z, y]);
    }),
    ("images that skip the first convolution", [3, 7, 6], |b| {
        let x = b.normalize();
        let x = b.conv(x, 8, SAME);
        let x = b.norm_relu(x);
        let y = b.conv(0, 8, [1, 1, 0]);
        let x = b.add(Op::Add, &[x, y]);
        b.head(x);
    }),
    ("a residual join of the images", [3, 6, 6], |b| {
        let x = b.normalize();
        let x = b.conv(x, 3, SAME);
        let x = b.add(Op::Add, &[x, 0]);
        let x = b.norm_relu(x);
        b.head(x);
    }),
    ("batch norm of batch norm", [2, 6, 6], |b| {
        let x = b.conv(0, 12, SAME);
        let x = b.norm_relu(x);
        let x = b.norm_relu(x);
        let x = b.norm(x);
        let x = b.conv(x, 12, SAME);
        let x = b.norm(x);
        let x = b.norm_relu(x);
        b.head(x);
    }),
    ("several readers of batch norm with ReLU", [3, 8, 6], |b| {
        let x = b.normalize();
        let x = b.conv(x, 12, SAME);
        let x = b.norm_relu(x);
        let y = b.conv(x, 12, SAME);
        let z = b.norm(x);
        let y = b.add(Op::Add, &[y, z]);
        let x = b.add(Op::MaxPool { size: 2 }, &[x]);
        let y = b.add(Op::MaxPool { size: 2 }, &[y]);
        let x = b.add(Op::Add, &[x, y]);
        b.head(x);
    }),
    ("several readers of batch norm without ReLU", [3, 6, 6], |b| {
        let x = b.conv(0, 12, SAME);
        let x = b.norm(x);
        let y = b.add(Op::Relu, &[x]);
        let z = b.conv(x, 12, SAME);
        let y = b.conv(y, 12, SAME);
        let x = b.add(Op::Add, &[y, x]);
        let x = b.add(Op::Add, &[x, z]);
        let x = b.norm_relu(x);
        b.head(x);
    }),
    ("the sum of two batch norms, and of a value with itself", [3, 6, 5], |b| {
        let x = b.conv(0, 13, SAME);
        let y = b.norm_relu(x);
        let z = b.norm(x);
        let x = b.add(Op::Add, &[z, y]);
        let x = b.norm(x);
        let x = b.add(Op::Add, &[x, x]);
        b.head(x);
    }),
    ("pooling and ReLU of the normalised images", [5, 9, 7], |b| {
        let x = b.normalize();
        let y = b.add(Op::Relu, &[x]);
        let x = b.add(Op::MaxPool { size: 3 }, &[x]);
        let y = b.add(Op::MaxPool { size: 3 }, &[y]);
        let x = b.add(Op::Add, &[x, y]);
        let x = b.norm(x);
        let x = b.add(Op::MaxPool { size: 2 }, &[x]);
        b.head(x);
    }),
    ("images read by batch norm alone", [4, 5, 5], |b| {
        let x = b.norm_relu(0);
        b.head(x);
    }),
    ("Winograd's algorithm on normalised images of many channels", [12, 6, 7], |b| {
        let x = b.normalize();
        let y = b.conv(x, 12, SAME);
        let x = b.add(Op::Add, &[y, x]);
        let x = b.norm_relu(x);
        let x = b.conv(x, 12, [3, 1, 2]);
        let x = b.norm_relu(x);
        b.head(x);
    }),
];

/// A network of random layers. Every value has a consumer, if necessary through linear layers at the end.
pub(super) fn random_network(seed: u32) -> Network {
    let mut random = Stream::new(17, Purpose::Test, 3, seed).sequence();
    let r = &mut random;
    let mut b = Builder::new(pick(r, &[1, 3, 4, 5, 12]), 2 + below(r, 7), 2 + below(r, 7));
    if below(r, 4) > 0 {
        b.normalize();
    }
    for _ in 0..5 + below(r, 6) {
        let x = if below(r, 4) == 0 { below(r, b.last() + 1) } else { b.last() };
        random_layer(&mut b, r, x);
    }
    let mut read = vec![false; b.last() + 1];
    b.layers.iter().flat_map(|layer| &layer.inputs).for_each(|value| read[*value] = true);
    let mut logits = None;
    for value in (0..read.len()).filter(|value| !read[*value]) {
        let shape = b.shape(value);
        let is_pooled = (shape.height, shape.width) == (1, 1) && below(r, 2) == 0;
        let found = if is_pooled { b.linear(value, CLASSES) } else { b.head(value) };
        logits = Some(logits.map_or(found, |earlier| b.add(Op::Add, &[found, earlier])));
    }
    match below(r, 5) {
        0 => b.norm(b.last()),
        1 => b.norm_relu(b.last()),
        _ => b.last(),
    };
    b.build(&format!("random network {seed}"))
}

/// Adds one or two layers that read `x`, and possibly another value.
fn random_layer(b: &mut Builder, r: &mut Sequence, x: Value) {
    let shape = b.shape(x);
    let is_pooled = (shape.height, shape.width) == (1, 1);
    match below(r, 12) {
        0..4 => {
            let (kernel, stride): (usize, usize) = (pick(r, &[1, 2, 3, 3, 3, 5]), pick(r, &[1, 1, 1, 2, 3]));
            let least = kernel.saturating_sub(shape.height.min(shape.width)).div_ceil(2);
            let padding = least.max(pick(r, &[kernel / 2, kernel / 2, 0]));
            b.conv(x, pick(r, &[3, 8, 12, 13, 17]), [kernel, stride, padding]);
        }
        4..6 => {
            b.norm_relu(x);
        }
        6 => {
            b.norm(x);
        }
        7 => {
            b.add(Op::Relu, &[x]);
        }
        8 if is_pooled => {
            b.linear(x, pick(r, &[3, 6, 13]));
        }
        8 => {
            let size = pick(r, &[2, 2, 3]).min(shape.height).min(shape.width);
            b.add(Op::MaxPool { size }, &[x]);
        }
        9 if !is_pooled && below(r, 3) == 0 => {
            b.add(Op::GlobalAvgPool, &[x]);
        }
        _ => {
            let same: Vec<Value> = (0..=b.last()).filter(|value| b.shape(*value) == shape).collect();
            let other = pick(r, &same);
            let inputs = if below(r, 2) == 0 { [x, other] } else { [other, x] };
            b.add(Op::Add, &inputs);
        }
    }
}

fn below(r: &mut Sequence, bound: usize) -> usize {
    r.below(bound as u32) as usize
}

fn pick<T: Copy>(r: &mut Sequence, from: &[T]) -> T {
    from[below(r, from.len())]
}
