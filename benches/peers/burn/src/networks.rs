//! fairtat's architectures as burn modules: the same layers and widths as `tests/golden/networks.py`.
//!
//! No architecture has images of one channel: for a gradient of such images, which is in channels-last layout, burn
//! 0.22.1 fuses wrong kernels (the image minus the sign of the gradient repeats after four pixels).

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::activation::relu;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use clap::ValueEnum;

/// Mean and standard deviation with which the first layer normalises every channel.
pub const NORMALISATION: (f64, f64) = (0.5, 0.25);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    SmallCnn,
    #[value(name = "resnet-20")]
    ResNet20,
    #[value(name = "preact-resnet-18")]
    PreActResNet18,
}

impl Architecture {
    pub fn name(self) -> &'static str {
        match self {
            Self::SmallCnn => "small-cnn",
            Self::ResNet20 => "resnet-20",
            Self::PreActResNet18 => "preact-resnet-18",
        }
    }

    /// Channels after the first convolution, as published.
    pub fn default_width(self) -> usize {
        match self {
            Self::ResNet20 => 16,
            Self::SmallCnn => 32,
            Self::PreActResNet18 => 64,
        }
    }

    /// Channels, height and width of an image.
    pub fn image(self) -> [usize; 3] {
        [3, 32, 32]
    }

    pub fn build(self, width: usize, classes: usize, device: &Device) -> Network {
        let channels = self.image()[0];
        match self {
            Self::SmallCnn => Network::Plain(PlainCnn::new(channels, classes, width, [true, true, false], device)),
            Self::ResNet20 => Network::ResNet(ResNet::new(channels, classes, width, device)),
            Self::PreActResNet18 => Network::PreAct(PreActResNet::new(channels, classes, width, device)),
        }
    }
}

#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Network {
    Plain(PlainCnn),
    ResNet(ResNet),
    PreAct(PreActResNet),
}

impl Network {
    pub fn forward(&self, image: Tensor<4>) -> Tensor<2> {
        let (mean, deviation) = NORMALISATION;
        let x = image.sub_scalar(mean).div_scalar(deviation);
        match self {
            Self::Plain(network) => network.forward(x),
            Self::ResNet(network) => network.forward(x),
            Self::PreAct(network) => network.forward(x),
        }
    }
}

/// Three convolutions, each with batch norm, ReLU and optionally 2×2 max pooling.
#[derive(Module, Debug)]
pub struct PlainCnn {
    pub convolutions: Vec<Conv2d>,
    pub norms: Vec<BatchNorm>,
    pub linear: Linear,
    #[module(skip)]
    pub pools: [bool; 3],
}

impl PlainCnn {
    fn new(channels: usize, classes: usize, width: usize, pools: [bool; 3], device: &Device) -> Self {
        let widths = [channels, width, 2 * width, 4 * width];
        Self {
            convolutions: widths.windows(2).map(|w| conv3x3(w[0], w[1], 1, device)).collect(),
            norms: widths[1..].iter().map(|&w| norm(w, device)).collect(),
            linear: LinearConfig::new(4 * width, classes).init(device),
            pools,
        }
    }

    fn forward(&self, mut x: Tensor<4>) -> Tensor<2> {
        for ((convolution, norm), pool) in self.convolutions.iter().zip(&self.norms).zip(self.pools) {
            x = relu(norm.forward(convolution.forward(x)));
            if pool {
                x = max_pool2d(x, MaxPoolOptions::new([2, 2]));
            }
        }
        self.linear.forward(global_average(x))
    }
}

/// ResNet's block: normalisation after each convolution, ReLU after the addition.
#[derive(Module, Debug)]
pub struct BasicBlock {
    convolutions: [Conv2d; 2],
    norms: [BatchNorm; 2],
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Self {
        let changes = stride != 1 || inputs != outputs;
        Self {
            convolutions: [conv3x3(inputs, outputs, stride, device), conv3x3(outputs, outputs, 1, device)],
            norms: [norm(outputs, device), norm(outputs, device)],
            shortcut: changes.then(|| (conv1x1(inputs, outputs, stride, device), norm(outputs, device))),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = relu(self.norms[0].forward(self.convolutions[0].forward(x.clone())));
        let y = self.norms[1].forward(self.convolutions[1].forward(y));
        let shortcut = match &self.shortcut {
            Some((convolution, norm)) => norm.forward(convolution.forward(x)),
            None => x,
        };
        relu(y + shortcut)
    }
}

/// ResNet-20.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<BasicBlock>,
    linear: Linear,
}

impl ResNet {
    fn new(channels: usize, classes: usize, width: usize, device: &Device) -> Self {
        Self {
            stem: conv3x3(channels, width, 1, device),
            norm: norm(width, device),
            blocks: stages(3, 3, width).map(|(i, o, stride)| BasicBlock::new(i, o, stride, device)).collect(),
            linear: LinearConfig::new(4 * width, classes).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.stem.forward(x)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        self.linear.forward(global_average(x))
    }
}

/// Normalisation before each convolution; a shortcut convolution sees the activated input, an identity the raw one.
#[derive(Module, Debug)]
pub struct PreActBlock {
    convolutions: [Conv2d; 2],
    norms: [BatchNorm; 2],
    shortcut: Option<Conv2d>,
}

impl PreActBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Self {
        let changes = stride != 1 || inputs != outputs;
        Self {
            convolutions: [conv3x3(inputs, outputs, stride, device), conv3x3(outputs, outputs, 1, device)],
            norms: [norm(inputs, device), norm(outputs, device)],
            shortcut: changes.then(|| conv1x1(inputs, outputs, stride, device)),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let a = relu(self.norms[0].forward(x.clone()));
        let shortcut = match &self.shortcut {
            Some(convolution) => convolution.forward(a.clone()),
            None => x,
        };
        let y = relu(self.norms[1].forward(self.convolutions[0].forward(a)));
        self.convolutions[1].forward(y) + shortcut
    }
}

/// PreActResNet-18.
#[derive(Module, Debug)]
pub struct PreActResNet {
    stem: Conv2d,
    blocks: Vec<PreActBlock>,
    norm: BatchNorm,
    linear: Linear,
}

impl PreActResNet {
    fn new(channels: usize, classes: usize, width: usize, device: &Device) -> Self {
        Self {
            stem: conv3x3(channels, width, 1, device),
            blocks: stages(4, 2, width).map(|(i, o, stride)| PreActBlock::new(i, o, stride, device)).collect(),
            norm: norm(8 * width, device),
            linear: LinearConfig::new(8 * width, classes).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.blocks.iter().fold(self.stem.forward(x), |x, block| block.forward(x));
        self.linear.forward(global_average(relu(self.norm.forward(x))))
    }
}

/// Input channels, output channels and stride of each block: every stage after the first doubles the channels and
/// halves the image in its first block.
fn stages(stages: usize, blocks: usize, width: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..stages * blocks).map(move |i| match (i / blocks, i % blocks) {
        (stage @ 1.., 0) => (width << (stage - 1), width << stage, 2),
        (stage, _) => (width << stage, width << stage, 1),
    })
}

fn conv3x3(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([inputs, outputs], [3, 3])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(false)
        .init(device)
}

fn conv1x1(inputs: usize, outputs: usize, stride: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([inputs, outputs], [1, 1]).with_stride([stride, stride]).with_bias(false).init(device)
}

fn norm(channels: usize, device: &Device) -> BatchNorm {
    BatchNormConfig::new(channels).init(device)
}

fn global_average(x: Tensor<4>) -> Tensor<2> {
    let [batch, channels, ..] = x.dims();
    x.mean_dims(&[2, 3]).reshape([batch, channels])
}
