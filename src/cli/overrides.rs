//! An experiment from a preset, a file or the defaults of its data set, overridden by the fields on the command line.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::Usage;
use crate::config::defaults::{Images, run_name, starting_point};
use crate::config::fields::field;
use crate::config::{ConfigError, DEFAULT_PRESET, Derived, DeviceChoice, EngineChoice, Experiment, Origin, RunConfig};
use crate::console::tell;
use crate::data::{DataError, check_source};

/// The starting point of an experiment.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Source {
    /// Start from a preset (see `fairtat config list`)
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(super) preset: Option<String>,
    /// Start from a TOML file, such as the config.toml of a run
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// Another engine for an existing run. Its config.toml is not changed.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct EngineOverride {
    /// Continue with this engine instead of that of the run
    #[arg(long, value_enum)]
    engine: Option<EngineChoice>,
    /// Continue with this device of the Candle engine
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// Continue with this GPU of the WGSL engine: index, a part of its name, high-performance or low-power
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
}

impl EngineOverride {
    /// Whether nothing was given.
    pub(super) fn is_empty(&self) -> bool {
        self.engine.is_none() && self.device.is_none() && self.adapter.is_none()
    }

    /// Overrides the fields that were given. If any of engine, device and adapter is given, the other two are reset,
    /// because they belong to the run's own choice of an engine.
    pub(super) fn put_over(&self, run: &mut RunConfig) {
        if self.is_empty() {
            return;
        }
        run.engine = self.engine.unwrap_or(match (self.device, &self.adapter) {
            (Some(_), None) => EngineChoice::Candle,
            (None, Some(_)) => EngineChoice::Wgsl,
            _ => EngineChoice::Auto,
        });
        run.device = self.device.unwrap_or(DeviceChoice::Auto);
        run.adapter = self.adapter.clone();
    }
}

/// Flags for every field of [`Experiment`]. Stores the given values, so that they can override any other experiment.
#[derive(Debug, Clone, Default)]
pub(super) struct ExperimentArgs {
    given: Option<ArgMatches>,
}

impl Args for ExperimentArgs {
    fn augment_args(command: Command) -> Command {
        // No flag is required and none has a default: fields that are not given keep the value of the preset, file or
        // data set.
        Experiment::augment_args_for_update(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Experiment::augment_args_for_update(command)
    }
}

impl FromArgMatches for ExperimentArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self { given: Some(matches.clone()) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.given = Some(matches.clone());
        Ok(())
    }
}

/// An experiment and its origin.
#[derive(Debug)]
pub(super) struct Asked {
    /// The experiment, checked.
    pub(super) experiment: Experiment,
    /// A name for its run directory.
    pub(super) name: String,
    /// The settings from its data set. `None` if a preset or file is for the same kind of images.
    pub(super) derived: Option<Derived>,
}

impl Asked {
    /// Prints the settings from the data set on standard error.
    ///
    /// # Errors
    /// If the data set or its directory does not exist, because its defaults would then be meaningless.
    pub(super) fn tell(&self) -> Result<()> {
        let dataset = &self.experiment.data.dataset;
        check_source(&self.experiment.source()).map_err(|error| match error {
            DataError::Missing(what) => Usage(what).into(),
            other => anyhow::Error::from(other).context(format!("data set '{dataset}'")),
        })?;
        if let Some(derived) = &self.derived {
            let lines = derived.lines().join("\n");
            if derived.is_warning() { tell!("warning: {lines}") } else { tell!("{lines}") }
        }
        Ok(())
    }
}

impl ExperimentArgs {
    /// The experiment of `source`, overridden by these flags and checked.
    pub(super) fn experiment(&self, source: &Source) -> Result<Experiment> {
        Ok(self.asked(source)?.experiment)
    }

    /// As [`Self::experiment`], with a name for the run directory and the settings from the data set.
    pub(super) fn asked(&self, source: &Source) -> Result<Asked> {
        let asked = match &source.config {
            Some(path) => self.put_over_file(path)?,
            None => self.put_over_data_set(source.preset.as_deref())?,
        };
        asked.experiment.validate()?;
        Ok(asked)
    }

    /// A file keeps its values on any data set; the changes that the data set would make are reported.
    fn put_over_file(&self, path: &Path) -> Result<Asked> {
        let start = Experiment::load(path)?;
        let experiment = self.over(&start)?;
        let name = path.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
        let made_for = Images::of(&start.data).map(|images| images.kind);
        let images =
            Images::of(&experiment.data).filter(|images| self.names("data.dataset") && Some(images.kind) != made_for);
        let origin = || Origin::File { name: path.display().to_string(), made_for: start.data.dataset.clone() };
        let derived = images.map(|images| self.derived(origin(), &start, &experiment, images)).transpose()?;
        Ok(Asked { experiment, name, derived })
    }

    fn put_over_data_set(&self, preset: Option<&str>) -> Result<Asked> {
        // The requested data set determines the experiment that the other flags override.
        let first = Experiment::preset(preset.unwrap_or(DEFAULT_PRESET))?;
        let wanted = self.over(&first)?;
        let images = Images::of(&wanted.data).filter(|_| self.names("data.dataset"));
        let kind = images.as_ref().map(|images| images.kind);
        let start = match (preset, kind) {
            (None, None) => first.clone(),
            _ => starting_point(preset, &wanted.data, kind)?,
        };
        let experiment = self.over(&start)?;
        let origin = match preset {
            None => Some(Origin::DataSet),
            Some(_) if start == first => None,
            Some(name) => Some(Origin::Preset { name: name.to_owned(), made_for: first.data.dataset.clone() }),
        };
        let derived = origin.zip(images).map(|(origin, images)| {
            let without = if origin == Origin::DataSet { Experiment::default() } else { first };
            self.derived(origin, &without, &experiment, images)
        });
        // The name of an unknown data set is not used for the directory.
        let named = self.names("data.dataset") && kind.is_some();
        let name = match (preset, named) {
            (None, false) => DEFAULT_PRESET.to_owned(),
            (Some(name), false) => name.to_owned(),
            (preset, true) => run_name(preset, &experiment.data.dataset),
        };
        Ok(Asked { experiment, name, derived: derived.transpose()? })
    }

    fn derived(
        &self,
        origin: Origin,
        without: &Experiment,
        experiment: &Experiment,
        images: Images,
    ) -> Result<Derived, ConfigError> {
        let is_named = |path: &str| {
            self.names(path) || (path == "data.validation_per_class" && self.names("data.validation_fraction"))
        };
        Derived::new(origin, without, experiment, images, is_named)
    }

    /// `start`, overridden by these flags.
    fn over(&self, start: &Experiment) -> Result<Experiment> {
        let mut experiment = start.clone();
        self.put_over(&mut experiment)?;
        Ok(experiment)
    }

    /// Whether the field at `path` was given on the command line.
    pub(super) fn names(&self, path: &str) -> bool {
        let Some((field, given)) = field(path).zip(self.given.as_ref()) else { return false };
        given.try_contains_id(&field.argument).unwrap_or(false)
    }

    /// Overrides the fields that were given.
    fn put_over(&self, experiment: &mut Experiment) -> Result<()> {
        if let Some(given) = &self.given {
            experiment.update_from_arg_matches(given)?;
            // A number of images takes precedence over the share. If only the share is given, the preset's number is
            // removed.
            if self.names("data.validation_fraction") && !self.names("data.validation_per_class") {
                experiment.data.validation_per_class = None;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::trained_by;
    use crate::config::{BaseMethod, Experiment, Schedule, TradesSearch};
    use crate::units::Epsilon;

    #[test]
    fn switches_need_no_value_and_take_one() {
        let run = |flags: &[&str]| {
            let words = ["fairtat", "train"].iter().chain(flags).map(|word| (*word).to_owned()).collect::<Vec<_>>();
            trained_by(&words).map(|experiment| (experiment.run.deterministic, experiment.run.no_fusion))
        };
        assert_eq!(run(&[]).unwrap(), (false, false));
        assert_eq!(run(&["--deterministic", "--no-fusion"]).unwrap(), (true, true));
        assert_eq!(run(&["--deterministic", "true", "--no-fusion", "false"]).unwrap(), (true, false));
        assert_eq!(run(&["--no-fusion=true", "--seed", "3"]).unwrap(), (false, true));
        assert!(run(&["--no-fusion", "maybe"]).is_err());
    }

    #[test]
    fn lists_are_separated_by_commas_and_can_be_empty() {
        let optimizer = |line: &str| trained(line).optimizer;
        let steps = optimizer("fairtat train --schedule multi-step --milestones 75,90,100 --lr-decay 0.1,0.1,0.5");
        assert_eq!((steps.schedule, steps.milestones), (Schedule::MultiStep, vec![75, 90, 100]));
        assert_eq!(steps.decay, [0.1, 0.1, 0.5]);
        assert_eq!(optimizer("fairtat train --milestones --seed 3").milestones, [0; 0]);
        assert_eq!(optimizer("fairtat train --lr-decay 0.2").decay, [0.2]);
    }

    #[test]
    fn flags_of_a_methods_section_bear_its_name() {
        let own =
            trained("fairtat train --trades-beta 5 --cfa-base trades --cfa-lambda-1 0.2 --frl-beta 2 --frl-tau 0.1");
        assert_eq!((own.trades.beta, own.cfa.base, own.cfa.lambda_1), (5.0, BaseMethod::Trades, Some(0.2)));
        assert_eq!((own.frl.beta, own.frl.tau, own.fairness.base), (2.0, Some(0.1), BaseMethod::At));
        let own = trained("fairtat train --fair-tat-base trades --trades-search kl --cfa-warmup-epochs 5");
        assert_eq!((own.fairness.base, own.fairness.trades_search), (BaseMethod::Trades, TradesSearch::Kl));
        assert_eq!(
            (own.cfa.warmup_epochs, own.fairness.warmup_epochs),
            (5, Experiment::preset("digits-60s").unwrap().fairness.warmup_epochs)
        );
    }

    fn trained(line: &str) -> crate::config::Experiment {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        trained_by(&words).unwrap()
    }

    #[test]
    fn a_data_set_brings_its_own_defaults_and_flags_go_over_them() {
        // The command of the README, whose folder does not exist here.
        let own = trained("fairtat train --dataset folder --path my-images --image-size 32 --arch small-cnn");
        assert_eq!((own.attack.epsilon, own.attack.step_size), (Epsilon::levels(8.0), Epsilon::levels(2.0)));
        assert_eq!((own.data.validation_per_class, own.optimizer.epochs), (None, 30));
        let cifar = trained("fairtat train --dataset cifar10");
        assert_eq!(cifar, Experiment::preset("cifar10-small").unwrap());
        let named = trained("fairtat train --dataset cifar10 --epsilon 4/255 --flip false --epochs 3");
        assert_eq!((named.attack.epsilon, named.data.flip, named.optimizer.epochs), (Epsilon::levels(4.0), false, 3));
        assert_eq!((named.attack.step_size, named.data.crop_padding), (Epsilon::levels(2.0), 4));
        let shares = trained("fairtat train --dataset digits --validation-fraction 0.2");
        assert_eq!(shares.data.validation_per_class, None);
        assert_eq!(trained("fairtat train"), Experiment::preset("digits-60s").unwrap());
    }

    #[test]
    fn a_preset_on_another_data_set_keeps_its_recipe_alone() {
        let adapted = trained("fairtat train --preset digits-60s --dataset cifar10 --step-size 1/255");
        assert_eq!((adapted.attack.epsilon, adapted.attack.step_size), (Epsilon::levels(8.0), Epsilon::levels(1.0)));
        assert_eq!((adapted.model.arch.name(), adapted.optimizer.epochs), ("digits-cnn", 80));
        let mut paper = Experiment::preset("cifar10-paper").unwrap();
        assert_eq!(trained("fairtat train --preset cifar10-paper"), paper);
        paper.data.dataset = "cifar100".into();
        assert_eq!(trained("fairtat train --preset cifar10-paper --dataset cifar100"), paper);
    }
}
