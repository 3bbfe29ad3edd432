//! The sections of an experiment: their fields, help texts and defaults.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use crate::engine::{BatchNormMode, Norm, Padding};
use crate::fairness::{Combine, EpsilonRule, TargetMode};
use crate::model::Architecture;
use crate::train::Schedule;
use crate::units::Epsilon;

/// Which engine runs the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// Candle on a GPU of its own kind if this build finds one, else WGSL on a GPU, else Candle on the CPU
    Auto,
    /// Candle, on the CPU or on a GPU that this build was made for
    Candle,
    /// Our own shaders, on any GPU with Vulkan, Metal or DirectX 12
    Wgsl,
}

/// Where Candle computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceChoice {
    /// A GPU that this build can use, else the CPU
    Auto,
    /// All cores of the CPU
    Cpu,
    /// The first NVIDIA GPU (needs the cargo feature `cuda`)
    Cuda,
    /// The first Apple GPU (needs the cargo feature `metal`)
    Metal,
}

/// Which engine runs a network, and where.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct EngineOptions {
    /// Engine that runs the network
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Device of the Candle engine
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// GPU of the WGSL engine: its index or a part of its name (see `fairtat engines`), high-performance or low-power
    #[arg(long, value_name = "ADAPTER")]
    pub adapter: Option<String>,
    /// Make only choices that do not depend on measurements or on a vendor's library: the WGSL engine takes its kernels
    /// from a fixed table instead of measuring them
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1,
        default_missing_value = "true")]
    pub deterministic: bool,
    /// Give every layer a kernel of its own in the WGSL engine, and do without Winograd's algorithm: slower, to compare with
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1,
        default_missing_value = "true")]
    pub no_fusion: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            device: DeviceChoice::Auto,
            adapter: None,
            deterministic: false,
            no_fusion: false,
        }
    }
}

impl EngineOptions {
    /// Checks that engine, device and adapter belong together.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] says which does not, and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |field, what: &str| Err(ConfigError::Invalid { field, what: what.into() });
        let elsewhere = self.device != DeviceChoice::Auto;
        match &self.adapter {
            Some(name) if name.trim().is_empty() => {
                fail("run.adapter", "expected an index, a part of a name, high-performance or low-power, found nothing")
            }
            Some(_) if self.engine == EngineChoice::Candle || elsewhere => fail(
                "run.adapter",
                "an adapter belongs to the WGSL engine; choose that with --engine wgsl, without a device of Candle",
            ),
            _ if self.engine == EngineChoice::Wgsl && elsewhere => fail(
                "run.device",
                "a device belongs to the Candle engine; the WGSL engine's GPU is chosen with --adapter",
            ),
            _ if self.deterministic && matches!(self.device, DeviceChoice::Cuda | DeviceChoice::Metal) => fail(
                "run.deterministic",
                "the libraries behind Candle's cuda and metal do not promise the same bytes twice; use --device cpu or \
                 --engine wgsl",
            ),
            _ => Ok(()),
        }
    }
}

/// How training makes its adversarial images and adapts between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum MethodChoice {
    /// Fair targeted adversarial training
    FairTat,
    /// Plain adversarial training (Madry et al.): untargeted, one epsilon for all classes
    At,
}

impl MethodChoice {
    /// The name that papers use.
    pub const fn title(self) -> &'static str {
        match self {
            Self::FairTat => "FAIR-TAT",
            Self::At => "PGD-AT",
        }
    }
}

/// Which images CFPS and the class-wise epsilon are measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StatisticsSource {
    /// The adversarial images of the training pass, at no extra cost (the authors' code)
    Training,
    /// The validation split under the evaluation attack
    Validation,
}

/// What happens to the images of an epoch that do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LastBatch {
    /// The epoch is cut into batches whose sizes differ by at most one
    Even,
    /// The last batch is smaller than the others, as with PyTorch's DataLoader
    Keep,
    /// They are left out of this epoch
    Drop,
}

/// Images and how they are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Data")]
pub struct DataConfig {
    /// Data set: digits, shapes, cifar10, cifar100, mnist, fashion-mnist, folder, npy. It brings its own defaults for attack,
    /// augmentation, network and schedule
    #[arg(long, value_name = "NAME")]
    pub dataset: String,
    /// Directory of the data set; a named set is otherwise looked for where `fairtat data fetch` puts it
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// Side in pixels that every image is cut to a square and scaled to; unset keeps the size
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
    /// Seed that the data set shapes is drawn from; every run on one seed sees the same images
    #[arg(long, value_name = "N")]
    pub shapes_seed: u64,
    /// 1 for grey, 3 for colour; unset keeps what is there
    #[arg(long, value_name = "1|3")]
    pub channels: Option<usize>,
    /// Training images in all, the first of each class in equal shares, before the validation split; unset takes all
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Test images in all, chosen in the same way
    #[arg(long, value_name = "N")]
    pub test_limit: Option<usize>,
    /// Share of each class's training images kept for validation
    #[arg(long, value_name = "SHARE")]
    pub validation_fraction: f64,
    /// Validation images of each class as a number, for small sets; replaces the share
    #[arg(long, value_name = "N")]
    pub validation_per_class: Option<usize>,
    /// Choose the validation images at random (by the seed) instead of the first ones of each class
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub validation_random: bool,
    /// Make input normalisation (mean and standard deviation of each channel) the network's first layer
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub normalize: bool,
    /// Pixels added on each side before a random crop of training images; 0 for no crop
    #[arg(long, value_name = "PIXELS")]
    pub crop_padding: usize,
    /// What those pixels are
    #[arg(long, value_enum)]
    pub padding: Padding,
    /// Mirror half of the training images
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub flip: bool,
}

/// The network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Model")]
pub struct ModelConfig {
    /// Architecture
    #[arg(long, value_enum, value_name = "NAME")]
    pub arch: Architecture,
    /// Channels of the first stage instead of the published number; the other stages follow
    #[arg(long, value_name = "CHANNELS")]
    pub width: Option<usize>,
}

/// The training attack (inner maximisation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Training attack")]
pub struct AttackConfig {
    /// Base radius of the perturbation, such as 8/255
    #[arg(long, value_name = "K/255")]
    pub epsilon: Epsilon,
    /// Size of a step
    #[arg(long, value_name = "K/255")]
    pub step_size: Epsilon,
    /// Number of steps
    #[arg(long, value_name = "N")]
    pub steps: u32,
    /// Shape of the ball
    #[arg(long, value_enum)]
    pub norm: Norm,
    /// Start at a random point of the ball
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub random_start: bool,
    /// Batch norm during the attack
    #[arg(long, value_enum)]
    pub attack_bn: BatchNormMode,
}

/// The method, and what it adapts between epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Method and fairness")]
pub struct FairnessConfig {
    /// Training method; targets, CFPS and class-wise epsilon are fair-tat's
    #[arg(long, value_enum)]
    pub method: MethodChoice,
    /// Attack towards a target class instead of away from the true one
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub targeted: bool,
    /// How targets are chosen after the warm-up
    #[arg(long, value_enum)]
    pub target_mode: TargetMode,
    /// Factor of CFPS in the softmax target mode
    #[arg(long, value_name = "FACTOR")]
    pub temperature: f64,
    /// Class that the fixed target mode attacks towards
    #[arg(long, value_name = "CLASS")]
    pub fixed_target: u32,
    /// Images that CFPS and the class-wise epsilon come from
    #[arg(long, value_enum)]
    pub statistics_source: StatisticsSource,
    /// Keep the statistics of this epoch from then on instead of updating them each epoch
    #[arg(long, value_name = "EPOCH")]
    pub freeze_after: Option<u32>,
    /// Rules for the class-wise epsilon, separated by commas; none leaves every class at the base radius
    #[arg(long, value_enum, value_delimiter = ',', num_args = 0.., value_name = "RULES")]
    pub epsilon_rules: Vec<EpsilonRule>,
    /// How several rules become one radius
    #[arg(long, value_enum)]
    pub combine: Combine,
    /// Lambda of the rules on robust accuracy: epsilon_k = (lambda + accuracy_k) * epsilon
    #[arg(long, value_name = "LAMBDA")]
    pub lambda_rob: f64,
    /// Lambda of the rules on CFPS and CFNS
    #[arg(long, value_name = "LAMBDA")]
    pub lambda_count: f64,
    /// No class gets a smaller radius
    #[arg(long, value_name = "K/255")]
    pub epsilon_min: Epsilon,
    /// No class gets a larger radius; unset for no bound
    #[arg(long, value_name = "K/255")]
    pub epsilon_max: Option<Epsilon>,
    /// Epochs with uniform targets and the base radius before the method adapts
    #[arg(long, value_name = "EPOCHS")]
    pub warmup_epochs: u32,
    /// Forward passes on clean images in train mode for each batch: 0, 1 (after the step, gives
    /// train_clean_accuracy), or 2 (also one before it, as in the authors' code, where it only moves running statistics)
    #[arg(long, value_name = "0|1|2")]
    pub clean_passes: u32,
}

/// Optimiser (outer minimisation).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Optimiser")]
pub struct OptimizerConfig {
    /// Passes over the training images
    #[arg(long, value_name = "N")]
    pub epochs: u32,
    /// Images in a batch
    #[arg(long, value_name = "N")]
    pub batch_size: usize,
    /// What happens to the images of an epoch that do not fill a batch
    #[arg(long, value_enum)]
    pub last_batch: LastBatch,
    /// Largest learning rate
    #[arg(long, value_name = "RATE")]
    pub lr: f64,
    /// How the learning rate falls
    #[arg(long, value_enum)]
    pub schedule: Schedule,
    /// Momentum of SGD
    #[arg(long, value_name = "SHARE")]
    pub momentum: f64,
    /// Weight decay of SGD, for all parameters
    #[arg(long, value_name = "RATE")]
    pub weight_decay: f64,
}

/// Averages of the weights over epochs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Weight averaging")]
pub struct AveragingConfig {
    /// Keep an exponential moving average of the weights, updated after every epoch
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub ema: bool,
    /// Keep a fairness-aware average (CFA), updated only after epochs whose worst class is robust enough
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    pub fawa: bool,
    /// Share of the average that is kept at an update
    #[arg(long, value_name = "SHARE")]
    pub average_decay: f64,
    /// Robust accuracy on the validation split that the worst class must have for a FAWA update
    #[arg(long, value_name = "ACCURACY")]
    pub fawa_threshold: f64,
    /// First epoch that is averaged
    #[arg(long, value_name = "EPOCH")]
    pub average_from: u32,
}

/// The evaluation on the validation split after each epoch, and on the test set at the end: PGD in eval mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Evaluation")]
pub struct EvaluationConfig {
    /// Steps of PGD on the validation split
    #[arg(long, value_name = "N")]
    pub eval_steps: u32,
    /// Steps of PGD on the test set after the last epoch; 0 leaves that evaluation out
    #[arg(long, value_name = "N")]
    pub test_steps: u32,
    /// Radius; unset takes the training attack's base radius
    #[arg(long, value_name = "K/255")]
    pub eval_epsilon: Option<Epsilon>,
    /// Step size; unset takes the training attack's for the training radius, where its steps can cross the ball with it, and
    /// else 2.5 times the radius divided by the steps
    #[arg(long, value_name = "K/255")]
    pub eval_step_size: Option<Epsilon>,
    /// Images in a batch of an evaluation; results do not depend on it
    #[arg(long, value_name = "N")]
    pub eval_batch_size: usize,
    /// Training batches from which batch norm's running statistics of the evaluated weights are recomputed, as plain
    /// averages, before each evaluation; 0 evaluates with the statistics that training left
    #[arg(long, value_name = "N")]
    pub recalibrate_bn: u32,
}

/// The run itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Run")]
pub struct RunConfig {
    /// Seed of everything random
    #[arg(long, value_name = "N")]
    pub seed: u64,
    /// Engine that runs the network
    #[arg(long, value_enum)]
    pub engine: EngineChoice,
    /// Device of the Candle engine
    #[arg(long, value_enum)]
    pub device: DeviceChoice,
    /// GPU of the WGSL engine: its index or a part of its name (see `fairtat engines`), high-performance or low-power;
    /// unset takes the fastest kind
    #[arg(long, value_name = "ADAPTER")]
    pub adapter: Option<String>,
    /// Make only choices that do not depend on measurements or on a vendor's library, so that the same seed, device and
    /// build give the same bytes: the WGSL engine takes its kernels from a fixed table. Without, it measures on a GPU which
    /// are fastest, once for a device and a network, and a run keeps them (kernels.json)
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub deterministic: bool,
    /// Give every layer a kernel of its own in the WGSL engine, and do without Winograd's algorithm: slower, to compare with
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub no_fusion: bool,
    /// Epochs from one checkpoint to the next
    #[arg(long, value_name = "EPOCHS")]
    pub checkpoint_every: u32,
    /// Images in the figure of adversarial examples
    #[arg(long, value_name = "N")]
    pub examples: usize,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: "digits".into(),
            path: None,
            image_size: None,
            shapes_seed: 0,
            channels: None,
            limit: None,
            test_limit: None,
            validation_fraction: 0.02,
            validation_per_class: None,
            validation_random: false,
            normalize: true,
            crop_padding: 0,
            padding: Padding::Reflect,
            flip: false,
        }
    }
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self { arch: Architecture::DigitsCnn, width: None }
    }
}

impl Default for AttackConfig {
    fn default() -> Self {
        Self {
            epsilon: Epsilon::levels(8.0),
            step_size: Epsilon::levels(2.0),
            steps: 10,
            norm: Norm::Linf,
            random_start: true,
            attack_bn: BatchNormMode::Train,
        }
    }
}

impl Default for FairnessConfig {
    fn default() -> Self {
        Self {
            method: MethodChoice::FairTat,
            targeted: true,
            target_mode: TargetMode::Softmax,
            temperature: 2.0,
            fixed_target: 0,
            statistics_source: StatisticsSource::Training,
            freeze_after: None,
            epsilon_rules: vec![EpsilonRule::GRob],
            combine: Combine::Average,
            lambda_rob: 0.5,
            lambda_count: 0.5,
            epsilon_min: Epsilon::ZERO,
            epsilon_max: None,
            warmup_epochs: 1,
            clean_passes: 1,
        }
    }
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            epochs: 200,
            batch_size: 128,
            last_batch: LastBatch::Even,
            lr: 0.1,
            schedule: Schedule::Step3,
            momentum: 0.9,
            weight_decay: 5e-4,
        }
    }
}

impl Default for AveragingConfig {
    fn default() -> Self {
        Self { ema: true, fawa: true, average_decay: 0.85, fawa_threshold: 0.2, average_from: 0 }
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self {
            eval_steps: 10,
            test_steps: 20,
            eval_epsilon: None,
            eval_step_size: None,
            eval_batch_size: 256,
            recalibrate_bn: 0,
        }
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            engine: EngineChoice::Auto,
            device: DeviceChoice::Auto,
            adapter: None,
            deterministic: false,
            no_fusion: false,
            checkpoint_every: 1,
            examples: 10,
        }
    }
}

impl RunConfig {
    /// The part that says which engine to open.
    pub fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            engine: self.engine,
            device: self.device,
            adapter: self.adapter.clone(),
            deterministic: self.deterministic,
            no_fusion: self.no_fusion,
        }
    }

    /// Replaces that part.
    pub fn set_engine_options(&mut self, options: EngineOptions) {
        let EngineOptions { engine, device, adapter, deterministic, no_fusion } = options;
        (self.engine, self.device, self.adapter) = (engine, device, adapter);
        (self.deterministic, self.no_fusion) = (deterministic, no_fusion);
    }
}
