//! An experiment is one struct, from which the command line, the TOML file and the form are derived.
//!
//! Each field is declared in one place, in `config/sections`: its type and default, its doc comment, which is the help
//! text, and its row: label, unit and range of the form, when a change applies, which values are valid and when the
//! field has no effect. A TOML file holds the fields in the sections that [`Experiment`] names; the command line has a
//! flag for each field, `--step-size` for `step_size`.

mod applies;
pub mod defaults;
mod derived;
mod distances;
pub mod fields;
mod methods;
mod presets;
mod relevance;
mod row;
mod schedule;
mod section;
mod sections;
mod validate;

pub use applies::{Applies, Difference, applies};
pub use derived::{Change, Derived, Origin, deviations};
pub use methods::{MethodInfo, SearchKind, SeriesInfo, SeriesKind};
pub use presets::{DEFAULT_PRESET, PRESETS};
pub use relevance::{keeps_results, without_effect};
pub use schedule::Schedule;
pub use sections::{
    AttackConfig, AveragingConfig, BaseMethod, BatConfig, CfaConfig, DafaConfig, DataConfig, DeviceChoice,
    EngineChoice, EngineOptions, EvaluationConfig, FaalConfig, FairnessConfig, FatConfig, FatStop, FrlConfig,
    FrlVariant, LastBatch, LossForm, MethodChoice, ModelConfig, OptimizerConfig, RunConfig, StatisticsSource,
    TradesConfig, TradesSearch, TrixConfig, WatConfig,
};

use std::path::Path;

use clap::Args;
use serde::{Deserialize, Serialize};

use self::sections::{SECTIONS, entries};
use crate::data::{SourceOptions, ValidationChoice, ValidationSize, download};
use crate::engine::Augment;
use crate::fairness::Margins;
use crate::files::{self, FileError};
use crate::units::Epsilon;

/// Why an experiment cannot be read or is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
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
    #[error("there is no preset '{name}'; the presets are {known}")]
    UnknownPreset {
        /// The name that was asked for.
        name: String,
        /// The names of all presets.
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
    /// TRADES.
    #[command(flatten)]
    pub trades: TradesConfig,
    /// CFA.
    #[command(flatten)]
    pub cfa: CfaConfig,
    /// FRL.
    #[command(flatten)]
    pub frl: FrlConfig,
    /// Friendly adversarial training.
    #[command(flatten)]
    pub fat: FatConfig,
    /// BAT.
    #[command(flatten)]
    pub bat: BatConfig,
    /// WAT.
    #[command(flatten)]
    pub wat: WatConfig,
    /// DAFA.
    #[command(flatten)]
    pub dafa: DafaConfig,
    /// FAAL.
    #[command(flatten)]
    pub faal: FaalConfig,
    /// TRIX.
    #[command(flatten)]
    pub trix: TrixConfig,
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

impl Experiment {
    /// Reads a TOML file. Missing fields have their defaults.
    ///
    /// # Errors
    /// [`ConfigError::File`], or [`ConfigError::Format`] with the line, and a suggestion for an unknown key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = files::read_to_string(path)?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// Reads TOML text; error messages name `origin`.
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

    /// The whole experiment as TOML, with every field.
    pub fn to_toml(&self) -> String {
        // Only a path that is not UTF-8 cannot be written, which `validate` refuses. Its text must not read as another
        // experiment: an empty one would be the defaults.
        toml::to_string(self).unwrap_or_else(|error| format!("cannot-be-written = {:?}\n", error.to_string()))
    }

    /// The source of the images.
    pub fn source(&self) -> SourceOptions {
        SourceOptions {
            dataset: self.data.dataset.clone(),
            path: self.data.path.clone(),
            root: download::default_root(),
            image_size: self.data.image_size,
            channels: self.data.channels,
            // Not the seed of the run: a generated set is the same in all runs, as a set on disk is.
            seed: self.data.shapes_seed,
        }
    }

    /// How many images of each class are held out for validation, and which.
    pub fn validation(&self) -> (ValidationSize, ValidationChoice) {
        let size = match self.data.validation_per_class {
            Some(count) => ValidationSize::PerClass(count),
            None => ValidationSize::Fraction(self.data.validation_fraction),
        };
        let random = ValidationChoice::Random(self.run.seed);
        (size, if self.data.validation_random { random } else { ValidationChoice::First })
    }

    /// Augmentation of training images, if any.
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

/// Replaces Rust's type names in a message of the TOML reader with plain descriptions of the expected number.
fn in_words(message: &str) -> String {
    let whole = ["expected u32", "expected u64", "expected usize"];
    let words =
        whole.iter().fold(message.to_owned(), |text, kind| text.replace(kind, "expected a whole number of at least 0"));
    words.replace("expected f64", "expected a number")
}

/// A suggestion for the unknown key in a message.
fn suggestion(message: &str) -> String {
    let Some(unknown) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) else {
        return String::new();
    };
    let wanted = unknown.replace('-', "_");
    if SECTIONS.iter().any(|section| section.name == wanted) {
        return format!("; '{wanted}' is a section, not a field of this one");
    }
    let all = entries().filter_map(|entry| entry.path.split_once('.'));
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
    #[cfg(unix)]
    fn a_path_that_no_file_can_record_is_refused_and_never_another_experiment() {
        type Set = fn(&mut Experiment, std::path::PathBuf);
        let fields: [(&str, Set); 2] =
            [("data.path", |e, path| e.data.path = Some(path)), ("model.init", |e, path| e.model.init = Some(path))];
        for (field, set) in fields {
            let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
            let mut experiment = Experiment::default();
            set(&mut experiment, path.into());
            let message = experiment.validate().unwrap_err().to_string();
            assert_eq!(message, format!("{field}: a\u{fffd} is not valid UTF-8, so no file can record it: rename it"));
            assert!(error(&experiment.to_toml()).contains("unknown field"), "{}", experiment.to_toml());
        }
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
        check(
            &|e| e.optimizer.milestones = vec![75, 75],
            "optimizer.milestones: expected epochs in rising order, found 75 after 75",
        );
        check(&|e| e.trades.beta = f64::INFINITY, "trades.beta: expected at least 0, found inf");
        check(&|e| e.cfa.lambda_1 = Some(-0.1), "cfa.lambda_1: expected at least 0, found -0.1");
        check(&|e| e.frl.tau = Some(7.0), "frl.tau: expected 0 to 1, found 7");
        check(&|e| e.frl.limit = 0.0, "frl.limit: expected a number above 0, found 0");
        check(&|e| e.optimizer.milestones = vec![0, 3], "optimizer.milestones: expected at least 1, found 0");
        let factors = "optimizer.decay: expected one factor, or one for each of the 2 milestones, found";
        check(&|e| e.optimizer.decay = Vec::new(), factors);
        check(&|e| e.optimizer.decay = vec![0.1; 3], factors);
        check(&|e| e.optimizer.decay = vec![0.1, 0.0], "optimizer.decay: expected a number above 0, found 0");
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
    fn a_file_from_before_there_were_other_methods_still_loads() {
        let mut written: toml::Table = toml::from_str(&Experiment::default().to_toml()).unwrap();
        for section in ["trades", "cfa", "frl"] {
            written.remove(section).unwrap();
        }
        for (section, field) in
            [("fairness", "base"), ("fairness", "trades_search"), ("optimizer", "milestones"), ("optimizer", "decay")]
        {
            written[section].as_table_mut().unwrap().remove(field).unwrap();
        }
        assert_eq!(Experiment::from_toml(&written.to_string(), "config.toml").unwrap(), Experiment::default());
    }

    #[test]
    fn what_is_unset_has_the_published_value() {
        let mut e = Experiment::default();
        assert_eq!((e.cfa.lambda_1(), e.frl.tau()), (0.5, 0.07));
        (e.cfa.base, e.frl.variant) = (BaseMethod::Trades, FrlVariant::Reweight);
        assert_eq!((e.cfa.lambda_1(), e.frl.tau()), (0.3, 0.1));
        (e.cfa.lambda_1, e.frl.tau) = (Some(0.0), Some(0.02));
        assert_eq!((e.cfa.lambda_1(), e.frl.tau()), (0.0, 0.02));
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
