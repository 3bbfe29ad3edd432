//! An experiment, described once: the command line, the file and later the form are this one struct.
//!
//! Every field's doc comment is its help text. A TOML file holds the same fields in the sections [`Experiment`] names; the
//! command line has a flag for each field, `--step-size` for `step_size`.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::{Deserialize, Serialize};

use crate::data::{SourceOptions, ValidationChoice, ValidationSize, download};
use crate::engine::{Augment, BatchNormMode, Norm, Padding};
use crate::fairness::{Combine, EpsilonRule, Margins, Reference, TargetMode};
use crate::model::Architecture;
use crate::train::Schedule;
use crate::units::Epsilon;

/// What can be wrong with the description of an experiment.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The text is not TOML, has an unknown key or a value of the wrong kind.
    #[error("{origin}: {what}")]
    Format {
        /// File or preset.
        origin: String,
        /// Where and what.
        what: String,
    },
    /// A value is out of range, or values contradict each other.
    #[error("{field}: {what}")]
    Invalid {
        /// Section and field.
        field: &'static str,
        /// Expected and found.
        what: String,
    },
    /// There is no such preset.
    #[error("no preset is called '{name}'; there are {known}")]
    UnknownPreset {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
}

/// Which engine runs the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// The fastest that this machine has
    Auto,
    /// Candle
    Candle,
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

/// Images and how they are prepared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(next_help_heading = "Data")]
pub struct DataConfig {
    /// Data set: digits, shapes, cifar10, cifar100, mnist, fashion-mnist, folder, npy
    #[arg(long, value_name = "NAME")]
    pub dataset: String,
    /// Directory of the data set; a named set is otherwise looked for where `fairtat data fetch` puts it
    #[arg(long, value_name = "DIR")]
    pub path: Option<PathBuf>,
    /// Side in pixels that every image is cut to a square and scaled to; unset keeps the size
    #[arg(long, value_name = "PIXELS")]
    pub image_size: Option<usize>,
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
    /// Step size; unset takes the training attack's
    #[arg(long, value_name = "K/255")]
    pub eval_step_size: Option<Epsilon>,
    /// Images in a batch of an evaluation; results do not depend on it
    #[arg(long, value_name = "N")]
    pub eval_batch_size: usize,
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
    /// Epochs from one checkpoint to the next
    #[arg(long, value_name = "EPOCHS")]
    pub checkpoint_every: u32,
    /// Images in the figure of adversarial examples
    #[arg(long, value_name = "N")]
    pub examples: usize,
}

/// Everything that determines a run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
pub struct Experiment {
    /// Images and how they are prepared.
    #[command(flatten)]
    pub data: DataConfig,
    /// The network.
    #[command(flatten)]
    pub model: ModelConfig,
    /// The training attack.
    #[command(flatten)]
    pub attack: AttackConfig,
    /// The method, and what it adapts.
    #[command(flatten)]
    pub fairness: FairnessConfig,
    /// Optimiser.
    #[command(flatten)]
    pub optimizer: OptimizerConfig,
    /// Averages of the weights.
    #[command(flatten)]
    pub averaging: AveragingConfig,
    /// Evaluation.
    #[command(flatten)]
    pub evaluation: EvaluationConfig,
    /// The run itself.
    #[command(flatten)]
    pub run: RunConfig,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            dataset: "digits".into(),
            path: None,
            image_size: None,
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
        Self { epochs: 200, batch_size: 128, lr: 0.1, schedule: Schedule::Step3, momentum: 0.9, weight_decay: 5e-4 }
    }
}

impl Default for AveragingConfig {
    fn default() -> Self {
        Self { ema: true, fawa: true, average_decay: 0.85, fawa_threshold: 0.2, average_from: 0 }
    }
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { eval_steps: 10, test_steps: 20, eval_epsilon: None, eval_step_size: None, eval_batch_size: 256 }
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { seed: 0, engine: EngineChoice::Auto, device: DeviceChoice::Auto, checkpoint_every: 1, examples: 10 }
    }
}

/// The presets that the program carries: name and text. The first line of the text says what it is for.
pub const PRESETS: [(&str, &str); 4] = [
    ("digits-60s", include_str!("../assets/presets/digits-60s.toml")),
    ("shapes-unfair", include_str!("../assets/presets/shapes-unfair.toml")),
    ("cifar10-small", include_str!("../assets/presets/cifar10-small.toml")),
    ("cifar10-paper", include_str!("../assets/presets/cifar10-paper.toml")),
];

/// The preset that runs when nothing is asked for.
pub const DEFAULT_PRESET: &str = "digits-60s";

impl Experiment {
    /// One of [`PRESETS`].
    ///
    /// # Errors
    /// [`ConfigError::UnknownPreset`] lists what there is.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let Some((_, text)) = PRESETS.iter().find(|(known, _)| *known == name) else {
            let known = PRESETS.map(|(name, _)| name).join(", ");
            return Err(ConfigError::UnknownPreset { name: name.into(), known });
        };
        Self::from_toml(text, &format!("preset {name}"))
    }

    /// Reads a TOML file. Fields that it does not name have their defaults.
    ///
    /// # Errors
    /// [`ConfigError::Io`], or [`ConfigError::Format`] with the line, and a suggestion for an unknown key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Io { path: path.into(), source })?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// Reads TOML text; `origin` stands in error messages.
    ///
    /// # Errors
    /// [`ConfigError::Format`].
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            let what = format!("{place}{}{}", error.message(), suggestion(error.message()));
            ConfigError::Format { origin: origin.into(), what }
        })
    }

    /// The whole experiment as TOML, every field written out.
    pub fn to_toml(&self) -> String {
        // Serialising plain numbers, strings and enums into memory has no way to fail.
        toml::to_string(self).unwrap_or_default()
    }

    /// Checks ranges and contradictions that the types cannot express.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the first field that is amiss.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let check = |good: bool, field: &'static str, what: String| {
            if good { Ok(()) } else { Err(ConfigError::Invalid { field, what }) }
        };
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let not_negative = |value: f64| value.is_finite() && value >= 0.0;
        let (data, o, f) = (&self.data, &self.optimizer, &self.fairness);
        let share = |value: f64| (0.0..1.0).contains(&value);
        let v = data.validation_fraction;
        check(v > 0.0 && v < 1.0, "data.validation_fraction", format!("expected a share between 0 and 1, found {v}"))?;
        let at_least_one = |value: usize, field| check(value >= 1, field, "expected at least 1, found 0".into());
        at_least_one(data.validation_per_class.unwrap_or(1), "data.validation_per_class")?;
        at_least_one(data.limit.unwrap_or(1), "data.limit")?;
        at_least_one(data.test_limit.unwrap_or(1), "data.test_limit")?;
        check(
            data.crop_padding <= 64,
            "data.crop_padding",
            format!("expected at most 64, found {}", data.crop_padding),
        )?;
        at_least_one(self.model.width.unwrap_or(1), "model.width")?;
        let width = self.model.width.unwrap_or(1);
        check(width <= 4096, "model.width", format!("expected at most 4096, found {width}"))?;
        at_least_one(o.epochs as usize, "optimizer.epochs")?;
        at_least_one(o.batch_size, "optimizer.batch_size")?;
        at_least_one(self.evaluation.eval_batch_size, "evaluation.eval_batch_size")?;
        at_least_one(self.evaluation.eval_steps as usize, "evaluation.eval_steps")?;
        at_least_one(self.run.checkpoint_every as usize, "run.checkpoint_every")?;
        check(positive(o.lr), "optimizer.lr", format!("expected a number above 0, found {}", o.lr))?;
        check(
            share(o.momentum),
            "optimizer.momentum",
            format!("expected at least 0 and below 1, found {}", o.momentum),
        )?;
        check(
            not_negative(o.weight_decay),
            "optimizer.weight_decay",
            format!("expected at least 0, found {}", o.weight_decay),
        )?;
        check(
            not_negative(f.temperature),
            "fairness.temperature",
            format!("expected at least 0, found {}", f.temperature),
        )?;
        check(
            not_negative(f.lambda_rob),
            "fairness.lambda_rob",
            format!("expected at least 0, found {}", f.lambda_rob),
        )?;
        check(
            not_negative(f.lambda_count),
            "fairness.lambda_count",
            format!("expected at least 0, found {}", f.lambda_count),
        )?;
        check(f.clean_passes <= 2, "fairness.clean_passes", format!("expected 0, 1 or 2, found {}", f.clean_passes))?;
        let against_target = f.epsilon_rules.iter().find(|rule| rule.parts().0 == Reference::Target);
        if let (StatisticsSource::Validation, Some(rule)) = (f.statistics_source, against_target) {
            let what = format!("{rule:?} counts against targets, which the validation attack does not have");
            return Err(ConfigError::Invalid { field: "fairness.epsilon_rules", what });
        }
        if let (false, Some(rule)) = (f.targeted, against_target) {
            let what = format!("{rule:?} counts against targets, which an untargeted attack does not have");
            return Err(ConfigError::Invalid { field: "fairness.epsilon_rules", what });
        }
        if let Some(maximum) = f.epsilon_max {
            let what = format!("expected at least epsilon_min, {}, found {maximum}", f.epsilon_min);
            check(maximum >= f.epsilon_min, "fairness.epsilon_max", what)?;
        }
        let a = &self.averaging;
        check(
            (0.0..=1.0).contains(&a.average_decay),
            "averaging.average_decay",
            format!("expected 0 to 1, found {}", a.average_decay),
        )?;
        check(
            (0.0..=1.0).contains(&a.fawa_threshold),
            "averaging.fawa_threshold",
            format!("expected 0 to 1, found {}", a.fawa_threshold),
        )?;
        let examples = self.run.examples;
        check(examples <= 100, "run.examples", format!("expected at most 100, found {examples}"))?;
        if let Some(channels) = data.channels {
            check(matches!(channels, 1 | 3), "data.channels", format!("expected 1 or 3, found {channels}"))?;
        }
        Ok(())
    }

    /// Where the images come from.
    pub fn source(&self) -> SourceOptions {
        SourceOptions {
            dataset: self.data.dataset.clone(),
            path: self.data.path.clone(),
            root: download::default_root(),
            image_size: self.data.image_size,
            channels: self.data.channels,
            // The drawn set is the same for every seed of a run, as a set from disk is.
            seed: 0,
        }
    }

    /// How many images of each class are kept for validation, and which.
    pub fn validation(&self) -> (ValidationSize, ValidationChoice) {
        let size = match self.data.validation_per_class {
            Some(count) => ValidationSize::PerClass(count),
            None => ValidationSize::Fraction(self.data.validation_fraction),
        };
        let random = ValidationChoice::Random(self.run.seed);
        (size, if self.data.validation_random { random } else { ValidationChoice::First })
    }

    /// Augmentation of training images, if there is any.
    pub fn augment(&self) -> Option<Augment> {
        let data = &self.data;
        let augment = Augment { padding: data.crop_padding, mode: data.padding, flip: data.flip };
        (augment.padding > 0 || augment.flip).then_some(augment)
    }

    /// The rules for the class-wise epsilon.
    pub fn margins(&self) -> Margins {
        let f = &self.fairness;
        Margins {
            rules: f.epsilon_rules.clone(),
            combine: f.combine,
            lambda_rob: f.lambda_rob,
            lambda_count: f.lambda_count,
            base: self.attack.epsilon.exact(),
            minimum: f.epsilon_min.exact(),
            maximum: f.epsilon_max.map_or(f64::INFINITY, Epsilon::exact),
        }
    }
}

/// The fields of each section, from the same declarations as the flags.
fn fields() -> Vec<(&'static str, Vec<String>)> {
    fn of<T: Args>() -> Vec<String> {
        let command = T::augment_args(Command::new("fields"));
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }
    vec![
        ("data", of::<DataConfig>()),
        ("model", of::<ModelConfig>()),
        ("attack", of::<AttackConfig>()),
        ("fairness", of::<FairnessConfig>()),
        ("optimizer", of::<OptimizerConfig>()),
        ("averaging", of::<AveragingConfig>()),
        ("evaluation", of::<EvaluationConfig>()),
        ("run", of::<RunConfig>()),
    ]
}

/// What was probably meant by the unknown key that a message complains about.
fn suggestion(message: &str) -> String {
    let Some(unknown) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) else {
        return String::new();
    };
    let wanted = unknown.replace('-', "_");
    let sections = fields();
    if sections.iter().any(|(section, _)| *section == wanted) {
        return format!("; '{wanted}' is a section, not a field of this one");
    }
    let all = sections.iter().flat_map(|(section, names)| names.iter().map(move |name| (*section, name)));
    let best = all
        .map(|(section, name)| (strsim::jaro_winkler(&wanted, name), section, name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((score, section, name)) if score > 0.75 => format!("; did you mean '{name}' in [{section}]?"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Experiment::from_toml(text, "test.toml").unwrap_err().to_string()
    }

    #[test]
    fn a_written_experiment_reads_back_the_same() {
        for (name, _) in PRESETS {
            let experiment = Experiment::preset(name).unwrap();
            experiment.validate().unwrap();
            assert_eq!(Experiment::from_toml(&experiment.to_toml(), "written").unwrap(), experiment, "{name}");
        }
        let mut experiment = Experiment::default();
        experiment.data.path = Some("a b/ü".into());
        experiment.fairness.epsilon_rules = vec![];
        experiment.fairness.epsilon_max = Some(Epsilon::levels(12.0));
        assert_eq!(Experiment::from_toml(&experiment.to_toml(), "written").unwrap(), experiment);
    }

    #[test]
    fn unknown_keys_are_errors_with_a_suggestion() {
        let message = error("[attack]\nepsilon = 0.03\nstepsize = 0.01\n");
        assert!(
            message.contains("test.toml: line 3") && message.contains("did you mean 'step_size' in [attack]?"),
            "{message}"
        );
        assert!(error("[attack]\nlr = 0.1\n").contains("did you mean 'lr' in [optimizer]?"));
        assert!(error("[attack]\nnorm = \"l3\"\n").contains("line 2"));
        assert!(error("[run]\nfairness = 1\n").contains("is a section"));
        assert!(error("x = 1").contains("unknown field"));
    }

    #[test]
    fn contradictions_are_named() {
        let check = |change: &dyn Fn(&mut Experiment), expected: &str| {
            let mut experiment = Experiment::default();
            change(&mut experiment);
            let message = experiment.validate().unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(&|e| e.optimizer.lr = f64::NAN, "optimizer.lr: expected a number above 0, found NaN");
        check(&|e| e.optimizer.epochs = 0, "optimizer.epochs");
        check(&|e| e.data.validation_fraction = 1.0, "data.validation_fraction");
        let t_rules = |e: &mut Experiment| {
            e.fairness.epsilon_rules = vec![EpsilonRule::TRob];
            e.fairness.statistics_source = StatisticsSource::Validation;
        };
        check(&t_rules, "fairness.epsilon_rules: TRob counts against targets");
    }

    #[test]
    fn every_preset_says_what_it_is_for_and_the_paper_preset_is_the_authors() {
        assert!(PRESETS.iter().all(|(_, text)| text.starts_with("# ")));
        let paper = Experiment::preset("cifar10-paper").unwrap();
        assert_eq!((paper.optimizer.epochs, paper.optimizer.batch_size, paper.optimizer.lr), (200, 128, 0.1));
        assert_eq!((paper.attack.epsilon, paper.attack.steps), (Epsilon::levels(8.0), 10));
        assert_eq!((paper.fairness.temperature, paper.fairness.lambda_rob), (2.0, 0.5));
        assert!(Experiment::preset("nothing").unwrap_err().to_string().contains("digits-60s"));
    }
}
