//! The architectures, with the parameter names and shapes of their PyTorch models.

use super::network::{Builder, Network, Value};
use crate::data::ImageShape;

/// Which network to build.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Architecture {
    /// Three convolutions of 16, 32, 64 channels and one pooling; made for 8×8 digits
    DigitsCnn,
    /// Three convolutions of 32, 64, 128 channels with pooling between; for 28×28 and 32×32 images on a CPU
    SmallCnn,
    /// He et al. 2016 (CIFAR), 20 layers, projection shortcuts
    #[serde(rename = "resnet-20")]
    #[value(name = "resnet-20")]
    ResNet20,
    /// He et al. 2016 (identity mappings), 18 layers, with a final batch norm: the network of CFA and FAIR-TAT
    #[serde(rename = "preact-resnet-18")]
    #[value(name = "preact-resnet-18")]
    PreActResNet18,
    /// The same without the batch norm and ReLU before the pooling: the network of FRL
    #[serde(rename = "preact-resnet-18-no-final-bn")]
    #[value(name = "preact-resnet-18-no-final-bn")]
    PreActResNet18NoFinalBn,
    /// Zagoruyko and Komodakis 2016, depth 28, ten times as wide
    #[serde(rename = "wide-resnet-28-10")]
    #[value(name = "wide-resnet-28-10")]
    WideResNet28x10,
    /// Zagoruyko and Komodakis 2016, depth 34, ten times as wide: the network of TRADES
    #[serde(rename = "wide-resnet-34-10")]
    #[value(name = "wide-resnet-34-10")]
    WideResNet34x10,
}

/// The largest number of channels of a first stage.
pub const MAX_WIDTH: usize = 4096;

impl Architecture {
    /// All of them, smallest first.
    pub const ALL: [Self; 7] = [
        Self::DigitsCnn,
        Self::SmallCnn,
        Self::ResNet20,
        Self::PreActResNet18NoFinalBn,
        Self::PreActResNet18,
        Self::WideResNet28x10,
        Self::WideResNet34x10,
    ];

    /// The name used on the command line, in files and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DigitsCnn => "digits-cnn",
            Self::SmallCnn => "small-cnn",
            Self::ResNet20 => "resnet-20",
            Self::PreActResNet18 => "preact-resnet-18",
            Self::PreActResNet18NoFinalBn => "preact-resnet-18-no-final-bn",
            Self::WideResNet28x10 => "wide-resnet-28-10",
            Self::WideResNet34x10 => "wide-resnet-34-10",
        }
    }

    /// The published number of channels of the first stage; the channels of the later stages are multiples of it.
    pub const fn default_width(self) -> usize {
        match self {
            Self::DigitsCnn | Self::ResNet20 => 16,
            Self::SmallCnn => 32,
            Self::PreActResNet18 | Self::PreActResNet18NoFinalBn => 64,
            Self::WideResNet28x10 | Self::WideResNet34x10 => 160,
        }
    }

    /// Builds the network for images of shape `input` and `classes` logits.
    ///
    /// `normalisation` is the mean and standard deviation of each channel; if given, it becomes the network's first
    /// layer. `width` replaces [`Self::default_width`], for narrow versions. Its bound here is far above [`MAX_WIDTH`] and
    /// only keeps the products of its multiples within 64 bits.
    pub fn build(
        self,
        input: ImageShape,
        classes: usize,
        normalisation: Option<(&[f32], &[f32])>,
        width: Option<usize>,
    ) -> Network {
        let width = width.unwrap_or(self.default_width()).clamp(1, MAX_WIDTH << 8);
        let b = Builder::new(self.name(), input, classes, normalisation);
        match self {
            Self::DigitsCnn => digits_cnn(b, width),
            Self::SmallCnn => small_cnn(b, width),
            Self::ResNet20 => resnet(b, width, 3),
            Self::PreActResNet18 => preact_resnet(b, width, [2, 2, 2, 2], true),
            Self::PreActResNet18NoFinalBn => preact_resnet(b, width, [2, 2, 2, 2], false),
            Self::WideResNet28x10 => wide_resnet(b, width, 4),
            Self::WideResNet34x10 => wide_resnet(b, width, 5),
        }
    }
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

fn digits_cnn(mut b: Builder, width: usize) -> Network {
    let mut x = b.last();
    for (i, channels) in [(1, width), (2, 2 * width), (3, 4 * width)] {
        x = b.conv(&format!("conv{i}"), x, channels, 3, 1);
        x = b.norm_relu(&format!("bn{i}"), x);
        if i == 2 {
            x = b.max_pool(x);
        }
    }
    b.head("linear", x)
}

fn small_cnn(mut b: Builder, width: usize) -> Network {
    let mut x = b.last();
    for (i, channels) in [(1, width), (2, 2 * width), (3, 4 * width)] {
        x = b.conv(&format!("conv{i}"), x, channels, 3, 1);
        x = b.norm_relu(&format!("bn{i}"), x);
        if i < 3 {
            x = b.max_pool(x);
        }
    }
    b.head("linear", x)
}

fn resnet(mut b: Builder, width: usize, blocks: usize) -> Network {
    let x = b.last();
    let x = b.conv("conv1", x, width, 3, 1);
    let mut x = b.norm_relu("bn1", x);
    for stage in 0..3 {
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            x = basic_block(&mut b, &format!("layer{}.{block}", stage + 1), x, width << stage, stride);
        }
    }
    b.head("fc", x)
}

fn basic_block(b: &mut Builder, name: &str, x: Value, channels: usize, stride: usize) -> Value {
    let y = b.conv(&format!("{name}.conv1"), x, channels, 3, stride);
    let y = b.norm_relu(&format!("{name}.bn1"), y);
    let y = b.conv(&format!("{name}.conv2"), y, channels, 3, 1);
    let y = b.norm(&format!("{name}.bn2"), y);
    let shortcut = if stride != 1 || b.channels(x) != channels {
        let s = b.conv(&format!("{name}.downsample.0"), x, channels, 1, stride);
        b.norm(&format!("{name}.downsample.1"), s)
    } else {
        x
    };
    let sum = b.add(y, shortcut);
    b.relu(sum)
}

/// The network of "Overfitting in adversarially robust deep learning" (Rice, Wong, Kolter), CFA and FAIR-TAT: a
/// shortcut convolution reads the activation after the block's first batch norm and ReLU, an identity shortcut reads
/// the block's input. If `final_norm`, a batch norm and ReLU precede the pooling; FRL's network has none there.
fn preact_resnet(mut b: Builder, width: usize, blocks: [usize; 4], final_norm: bool) -> Network {
    let x = b.last();
    let mut x = b.conv("conv1", x, width, 3, 1);
    for (stage, blocks) in blocks.into_iter().enumerate() {
        for block in 0..blocks {
            let name = format!("layer{}.{block}", stage + 1);
            let (channels, stride) = (width << stage, if stage > 0 && block == 0 { 2 } else { 1 });
            let active = b.norm_relu(&format!("{name}.bn1"), x);
            let shortcut = if stride != 1 || b.channels(x) != channels {
                b.conv(&format!("{name}.shortcut.0"), active, channels, 1, stride)
            } else {
                x
            };
            let y = b.conv(&format!("{name}.conv1"), active, channels, 3, stride);
            let y = b.norm_relu(&format!("{name}.bn2"), y);
            let y = b.conv(&format!("{name}.conv2"), y, channels, 3, 1);
            x = b.add(y, shortcut);
        }
    }
    if final_norm {
        x = b.norm_relu("bn", x);
    }
    b.head("linear", x)
}

/// `width` is the number of channels of the first group, ten times that of the convolution before it.
fn wide_resnet(mut b: Builder, width: usize, blocks: usize) -> Network {
    let x = b.last();
    let mut x = b.conv("conv1", x, width.div_ceil(10), 3, 1);
    for group in 0..3 {
        for block in 0..blocks {
            let name = format!("block{}.layer.{block}", group + 1);
            let (channels, stride) = (width << group, if group > 0 && block == 0 { 2 } else { 1 });
            let active = b.norm_relu(&format!("{name}.bn1"), x);
            let shortcut = if b.channels(x) != channels {
                b.conv(&format!("{name}.convShortcut"), active, channels, 1, stride)
            } else {
                x
            };
            let y = b.conv(&format!("{name}.conv1"), active, channels, 3, stride);
            let y = b.norm_relu(&format!("{name}.bn2"), y);
            let y = b.conv(&format!("{name}.conv2"), y, channels, 3, 1);
            x = b.add(y, shortcut);
        }
    }
    let x = b.norm_relu("bn1", x);
    b.head("fc", x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(architecture: Architecture, input: ImageShape, classes: usize) -> usize {
        architecture.build(input, classes, None, None).parameter_count()
    }

    #[test]
    fn parameter_counts_are_the_published_ones() {
        let cifar = ImageShape::new(3, 32, 32);
        assert_eq!(count(Architecture::PreActResNet18, cifar, 10), 11_172_170);
        assert_eq!(count(Architecture::PreActResNet18, cifar, 100), 11_218_340);
        assert_eq!(count(Architecture::PreActResNet18NoFinalBn, cifar, 10), 11_171_146);
        assert_eq!(count(Architecture::ResNet20, cifar, 10), 272_474);
        assert_eq!(count(Architecture::WideResNet28x10, cifar, 10), 36_479_194);
        assert_eq!(count(Architecture::WideResNet34x10, cifar, 10), 46_160_474);
        assert_eq!(count(Architecture::DigitsCnn, ImageShape::new(1, 8, 8), 10), 144 + 4608 + 18432 + 2 * 112 + 650);
        assert_eq!(count(Architecture::SmallCnn, cifar, 10), 864 + 18432 + 73728 + 2 * 224 + 1290);
    }

    #[test]
    fn work_of_the_reference_network() {
        let network = Architecture::PreActResNet18.build(ImageShape::new(3, 32, 32), 10, None, None);
        // 1.111 GFLOP forward for one image, counting a multiply-add as two.
        assert!((network.multiply_adds() as f64 * 2.0 / 1e9 - 1.111).abs() < 0.002);
    }

    #[test]
    fn names_and_shapes_are_pytorchs() {
        let network = Architecture::PreActResNet18.build(ImageShape::new(3, 32, 32), 10, None, None);
        let specs = network.state_specs();
        let shape = |name: &str| specs.iter().find(|s| s.name == name).map(|s| s.shape.clone());
        assert_eq!(shape("layer2.0.shortcut.0.weight"), Some(vec![128, 64, 1, 1]));
        assert_eq!(shape("layer4.1.bn2.running_var"), Some(vec![512]));
        assert_eq!(shape("linear.weight"), Some(vec![10, 512]));
        assert_eq!(shape("layer1.0.shortcut.0.weight"), None);
    }

    #[test]
    fn every_layer_reads_earlier_values_of_the_right_shape() {
        for architecture in Architecture::ALL {
            for (channels, side) in [(1, 8), (3, 28), (3, 41), (1, 1), (3, 3)] {
                let network = architecture.build(ImageShape::new(channels, side, side), 7, None, Some(4));
                for (i, layer) in network.layers.iter().enumerate() {
                    assert!(layer.inputs.iter().all(|v| *v <= i), "{architecture} {}", layer.name);
                    if let [a, b] = layer.inputs[..] {
                        assert_eq!(network.shape_of(a), network.shape_of(b), "{architecture} {}", layer.name);
                    }
                }
                assert_eq!(network.layers.last().unwrap().shape, ImageShape::new(7, 1, 1));
            }
        }
    }
}
