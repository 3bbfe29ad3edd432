//! fairtat's architectures with candle-nn's layers: the same layers and widths as `tests/golden/networks.py`.

use candle_core::{Result, Tensor};
use candle_nn::{
    BatchNorm, Conv2d, Conv2dConfig, Linear, Module, ModuleT, VarBuilder, batch_norm, conv2d_no_bias, linear,
};
use clap::ValueEnum;

/// Mean and standard deviation with which the first layer normalises every channel.
const NORMALISATION: (f64, f64) = (0.5, 0.25);

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Architecture {
    DigitsCnn,
    SmallCnn,
    #[value(name = "resnet-20")]
    ResNet20,
    #[value(name = "preact-resnet-18")]
    PreActResNet18,
}

impl Architecture {
    pub fn name(self) -> &'static str {
        match self {
            Self::DigitsCnn => "digits-cnn",
            Self::SmallCnn => "small-cnn",
            Self::ResNet20 => "resnet-20",
            Self::PreActResNet18 => "preact-resnet-18",
        }
    }

    /// Channels after the first convolution, as published.
    pub fn default_width(self) -> usize {
        match self {
            Self::DigitsCnn | Self::ResNet20 => 16,
            Self::SmallCnn => 32,
            Self::PreActResNet18 => 64,
        }
    }

    /// Channels, height and width of an image.
    pub fn image(self) -> [usize; 3] {
        match self {
            Self::DigitsCnn => [1, 8, 8],
            _ => [3, 32, 32],
        }
    }

    pub fn build(self, width: usize, classes: usize, variables: &VarBuilder) -> Result<Network> {
        let channels = self.image()[0];
        let plain = |pools| PlainCnn::new(channels, classes, width, pools, variables);
        Ok(match self {
            Self::DigitsCnn => Network::Plain(plain([false, true, false])?),
            Self::SmallCnn => Network::Plain(plain([true, true, false])?),
            Self::ResNet20 => Network::ResNet(ResNet::new(channels, classes, width, variables)?),
            Self::PreActResNet18 => Network::PreAct(PreActResNet::new(channels, classes, width, variables)?),
        })
    }
}

pub enum Network {
    Plain(PlainCnn),
    ResNet(ResNet),
    PreAct(PreActResNet),
}

impl Network {
    pub fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let (mean, deviation) = NORMALISATION;
        let x = image.affine(1.0 / deviation, -mean / deviation)?;
        match self {
            Self::Plain(network) => network.forward(x),
            Self::ResNet(network) => network.forward(x),
            Self::PreAct(network) => network.forward(x),
        }
    }
}

/// Three convolutions, each with batch norm, ReLU and optionally 2×2 max pooling.
pub struct PlainCnn {
    layers: Vec<(Conv2d, BatchNorm, bool)>,
    linear: Linear,
}

impl PlainCnn {
    fn new(channels: usize, classes: usize, width: usize, pools: [bool; 3], variables: &VarBuilder) -> Result<Self> {
        let widths = [channels, width, 2 * width, 4 * width];
        let mut layers = Vec::new();
        for (i, pool) in pools.into_iter().enumerate() {
            let names = variables.pp(i);
            layers.push((
                conv3x3(widths[i], widths[i + 1], 1, names.pp("conv"))?,
                norm(widths[i + 1], names.pp("bn"))?,
                pool,
            ));
        }
        Ok(Self { layers, linear: linear(4 * width, classes, variables.pp("linear"))? })
    }

    fn forward(&self, mut x: Tensor) -> Result<Tensor> {
        for (convolution, norm, pool) in &self.layers {
            x = norm.forward_t(&convolution.forward(&x)?, true)?.relu()?;
            if *pool {
                x = x.max_pool2d(2)?;
            }
        }
        self.linear.forward(&global_average(&x)?)
    }
}

/// ResNet's block: normalisation after each convolution, ReLU after the addition.
struct BasicBlock {
    convolutions: [Conv2d; 2],
    norms: [BatchNorm; 2],
    shortcut: Option<(Conv2d, BatchNorm)>,
}

impl BasicBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, variables: VarBuilder) -> Result<Self> {
        let mut shortcut = None;
        if stride != 1 || inputs != outputs {
            let convolution = conv1x1(inputs, outputs, stride, variables.pp("downsample.0"))?;
            shortcut = Some((convolution, norm(outputs, variables.pp("downsample.1"))?));
        }
        Ok(Self {
            convolutions: [
                conv3x3(inputs, outputs, stride, variables.pp("conv1"))?,
                conv3x3(outputs, outputs, 1, variables.pp("conv2"))?,
            ],
            norms: [norm(outputs, variables.pp("bn1"))?, norm(outputs, variables.pp("bn2"))?],
            shortcut,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.norms[0].forward_t(&self.convolutions[0].forward(x)?, true)?.relu()?;
        let y = self.norms[1].forward_t(&self.convolutions[1].forward(&y)?, true)?;
        match &self.shortcut {
            Some((convolution, norm)) => y + norm.forward_t(&convolution.forward(x)?, true)?,
            None => y + x,
        }?
        .relu()
    }
}

/// ResNet-20.
pub struct ResNet {
    stem: Conv2d,
    norm: BatchNorm,
    blocks: Vec<BasicBlock>,
    linear: Linear,
}

impl ResNet {
    fn new(channels: usize, classes: usize, width: usize, variables: &VarBuilder) -> Result<Self> {
        let blocks = stages(3, 3, width).map(|(name, i, o, stride)| BasicBlock::new(i, o, stride, variables.pp(name)));
        Ok(Self {
            stem: conv3x3(channels, width, 1, variables.pp("conv1"))?,
            norm: norm(width, variables.pp("bn1"))?,
            blocks: blocks.collect::<Result<_>>()?,
            linear: linear(4 * width, classes, variables.pp("fc"))?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.norm.forward_t(&self.stem.forward(&x)?, true)?.relu()?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(&x))?;
        self.linear.forward(&global_average(&x)?)
    }
}

/// Normalisation before each convolution; a shortcut convolution sees the activated input, an identity the raw one.
struct PreActBlock {
    convolutions: [Conv2d; 2],
    norms: [BatchNorm; 2],
    shortcut: Option<Conv2d>,
}

impl PreActBlock {
    fn new(inputs: usize, outputs: usize, stride: usize, variables: VarBuilder) -> Result<Self> {
        let mut shortcut = None;
        if stride != 1 || inputs != outputs {
            shortcut = Some(conv1x1(inputs, outputs, stride, variables.pp("shortcut.0"))?);
        }
        Ok(Self {
            convolutions: [
                conv3x3(inputs, outputs, stride, variables.pp("conv1"))?,
                conv3x3(outputs, outputs, 1, variables.pp("conv2"))?,
            ],
            norms: [norm(inputs, variables.pp("bn1"))?, norm(outputs, variables.pp("bn2"))?],
            shortcut,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let a = self.norms[0].forward_t(x, true)?.relu()?;
        let y = self.norms[1].forward_t(&self.convolutions[0].forward(&a)?, true)?.relu()?;
        let y = self.convolutions[1].forward(&y)?;
        match &self.shortcut {
            Some(convolution) => y + convolution.forward(&a)?,
            None => y + x,
        }
    }
}

/// PreActResNet-18.
pub struct PreActResNet {
    stem: Conv2d,
    blocks: Vec<PreActBlock>,
    norm: BatchNorm,
    linear: Linear,
}

impl PreActResNet {
    fn new(channels: usize, classes: usize, width: usize, variables: &VarBuilder) -> Result<Self> {
        let blocks = stages(4, 2, width).map(|(name, i, o, stride)| PreActBlock::new(i, o, stride, variables.pp(name)));
        Ok(Self {
            stem: conv3x3(channels, width, 1, variables.pp("conv1"))?,
            blocks: blocks.collect::<Result<_>>()?,
            norm: norm(8 * width, variables.pp("bn"))?,
            linear: linear(8 * width, classes, variables.pp("linear"))?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let x = self.blocks.iter().try_fold(self.stem.forward(&x)?, |x, block| block.forward(&x))?;
        self.linear.forward(&global_average(&self.norm.forward_t(&x, true)?.relu()?)?)
    }
}

/// Name, input channels, output channels and stride of each block: every stage after the first doubles the channels and
/// halves the image in its first block.
fn stages(stages: usize, blocks: usize, width: usize) -> impl Iterator<Item = (String, usize, usize, usize)> {
    (0..stages * blocks).map(move |i| {
        let (stage, block) = (i / blocks, i % blocks);
        let name = format!("layer{}.{block}", stage + 1);
        match (stage, block) {
            (1.., 0) => (name, width << (stage - 1), width << stage, 2),
            _ => (name, width << stage, width << stage, 1),
        }
    })
}

fn conv3x3(inputs: usize, outputs: usize, stride: usize, variables: VarBuilder) -> Result<Conv2d> {
    conv2d_no_bias(inputs, outputs, 3, Conv2dConfig { padding: 1, stride, ..Default::default() }, variables)
}

fn conv1x1(inputs: usize, outputs: usize, stride: usize, variables: VarBuilder) -> Result<Conv2d> {
    conv2d_no_bias(inputs, outputs, 1, Conv2dConfig { stride, ..Default::default() }, variables)
}

fn norm(channels: usize, variables: VarBuilder) -> Result<BatchNorm> {
    batch_norm(channels, 1e-5, variables)
}

fn global_average(x: &Tensor) -> Result<Tensor> {
    x.mean((2, 3))
}
