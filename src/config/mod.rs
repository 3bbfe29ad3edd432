//! An experiment, described once: the command line, the file and later the form are this one struct.
//!
//! Every field's doc comment is its help text. A TOML file holds the same fields in the sections [`Experiment`] names; the
//! command line has a flag for each field, `--step-size` for `step_size`.

mod applies;
pub mod defaults;
mod derived;
mod distances;
pub mod fields;
mod relevance;
mod sections;

pub use applies::{Applies, Difference, applies};
pub use derived::{Change, Derived, Origin, deviations};
pub use relevance::without_effect;
pub use sections::{
    AttackConfig, AveragingConfig, DataConfig, DeviceChoice, EngineChoice, EngineOptions, EvaluationConfig,
    FairnessConfig, LastBatch, MethodChoice, ModelConfig, OptimizerConfig, RunConfig, StatisticsSource,
};

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::{Deserialize, Serialize};

use crate::data::{SourceOptions, ValidationChoice, ValidationSize, download};
use crate::engine::Augment;
use crate::fairness::{Margins, Reference};
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

/// The presets that the program carries: name and text. The first line of the text says what it is for.
pub const PRESETS: [(&str, &str); 4] = [
    ("digits-60s", include_str!("../../assets/presets/digits-60s.toml")),
    ("shapes-unfair", include_str!("../../assets/presets/shapes-unfair.toml")),
    ("cifar10-small", include_str!("../../assets/presets/cifar10-small.toml")),
    ("cifar10-paper", include_str!("../../assets/presets/cifar10-paper.toml")),
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
            let what = format!("{place}{}{}", in_words(error.message()), suggestion(error.message()));
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
        self.check_distances(None)?;
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
        self.run.engine_options().validate()
    }

    /// Where the images come from.
    pub fn source(&self) -> SourceOptions {
        SourceOptions {
            dataset: self.data.dataset.clone(),
            path: self.data.path.clone(),
            root: download::default_root(),
            image_size: self.data.image_size,
            channels: self.data.channels,
            // Not the seed of the run: a drawn set stays the same over runs, as a set from disk does.
            seed: self.data.shapes_seed,
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

/// A message of the TOML reader with what a number is expected to be in words.
fn in_words(message: &str) -> String {
    let whole = ["expected u32", "expected u64", "expected usize"];
    let words =
        whole.iter().fold(message.to_owned(), |text, kind| text.replace(kind, "expected a whole number of at least 0"));
    words.replace("expected f64", "expected a number")
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
    use crate::fairness::EpsilonRule;

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
        let message = error("[optimizer]\nepochs = \"many\"\n");
        assert!(message.ends_with("expected a whole number of at least 0"), "{message}");
        assert!(error("[optimizer]\nlr = \"fast\"\n").ends_with("expected a number"));
        assert!(error("[optimizer]\nepochs = -1\n").ends_with("expected a whole number of at least 0"));
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
    fn engine_device_and_adapter_belong_together() {
        use DeviceChoice::{Auto as AnyDevice, Cpu, Cuda, Metal};
        use EngineChoice::{Auto, Candle, Wgsl};
        let check = |engine, device, adapter: Option<&str>, deterministic| {
            let mut e = Experiment::default();
            (e.run.engine, e.run.device, e.run.deterministic) = (engine, device, deterministic);
            e.run.adapter = adapter.map(str::to_owned);
            assert_eq!(Experiment::from_toml(&e.to_toml(), "written").unwrap(), e);
            e.validate().map_err(|error| error.to_string())
        };
        for good in [
            check(Auto, AnyDevice, None, true),
            check(Auto, AnyDevice, Some("1"), false),
            check(Auto, Cuda, None, false),
            check(Candle, Cpu, None, true),
            check(Candle, Metal, None, false),
            check(Wgsl, AnyDevice, None, true),
            check(Wgsl, AnyDevice, Some("low-power"), true),
        ] {
            good.unwrap();
        }
        for (result, expected) in [
            (check(Wgsl, Cpu, None, false), "run.device: a device belongs to the Candle engine"),
            (check(Candle, AnyDevice, Some("0"), false), "run.adapter: an adapter belongs to the WGSL engine"),
            (check(Auto, Cpu, Some("0"), false), "run.adapter: an adapter belongs to the WGSL engine"),
            (check(Wgsl, AnyDevice, Some(" "), false), "run.adapter: expected an index"),
            (check(Auto, Cuda, None, true), "run.deterministic: the libraries behind Candle's cuda and metal"),
            (check(Candle, Metal, None, true), "run.deterministic: the libraries"),
        ] {
            let message = result.unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_file_from_before_there_were_adapters_still_loads() {
        let written = "[run]\nseed = 3\nengine = \"candle\"\ndevice = \"cpu\"\ncheckpoint_every = 2\nexamples = 10\n";
        let run = Experiment::from_toml(written, "config.toml").unwrap().run;
        let expected = RunConfig {
            seed: 3,
            engine: EngineChoice::Candle,
            device: DeviceChoice::Cpu,
            checkpoint_every: 2,
            ..RunConfig::default()
        };
        assert_eq!((run.adapter.as_deref(), run.deterministic), (None, false));
        assert_eq!(run, expected);
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
