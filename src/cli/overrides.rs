//! An experiment from a preset or a file, with the fields that the command line names put over it.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::config::{DEFAULT_PRESET, DeviceChoice, EngineChoice, Experiment, RunConfig};

/// Where an experiment starts from.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Source {
    /// Start from a preset (see `fairtat config list`)
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub(super) preset: Option<String>,
    /// Start from a TOML file, such as the config.toml of a run
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl Source {
    /// The experiment, and a name for its run directory.
    fn load(&self) -> Result<(Experiment, String)> {
        match &self.config {
            Some(path) => {
                let stem = path.file_stem().map_or("run".into(), |stem| stem.to_string_lossy().into_owned());
                Ok((Experiment::load(path)?, stem))
            }
            None => {
                let name = self.preset.as_deref().unwrap_or(DEFAULT_PRESET);
                Ok((Experiment::preset(name)?, name.to_owned()))
            }
        }
    }
}

/// Another engine for a run that is there already. Its config.toml stays as it is.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct EngineOverride {
    /// Go on with this engine instead of the run's own
    #[arg(long, value_enum)]
    engine: Option<EngineChoice>,
    /// Go on with this device of the Candle engine
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// Go on with this GPU of the WGSL engine: index, a part of its name, high-performance or low-power
    #[arg(long, value_name = "ADAPTER")]
    adapter: Option<String>,
}

impl EngineOverride {
    /// Whether nothing was given.
    pub(super) fn is_empty(&self) -> bool {
        self.engine.is_none() && self.device.is_none() && self.adapter.is_none()
    }

    /// Replaces what was given. Device and adapter of the run belong to its own choice of an engine: who names any of
    /// the three anew does not want the rest of the old choice.
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

/// Flags for every field of [`Experiment`]. Keeps what was given, so that it can be put over any other experiment.
#[derive(Debug, Clone, Default)]
pub(super) struct ExperimentArgs {
    given: Option<ArgMatches>,
}

impl Args for ExperimentArgs {
    fn augment_args(command: Command) -> Command {
        // No flag is required and none has a default: what is not given stays as the preset or file has it.
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

impl ExperimentArgs {
    /// The experiment of `source` with these flags put over it, checked.
    pub(super) fn experiment(&self, source: &Source) -> Result<Experiment> {
        Ok(self.named(source)?.0)
    }

    /// The same with a name for its run directory.
    pub(super) fn named(&self, source: &Source) -> Result<(Experiment, String)> {
        let (mut experiment, name) = source.load()?;
        self.put_over(&mut experiment)?;
        experiment.validate()?;
        Ok((experiment, name))
    }

    /// Whether a field was given on the command line.
    pub(super) fn names(&self, field: &str) -> bool {
        let given = |matches: &ArgMatches| matches.try_contains_id(field).unwrap_or(false);
        self.given.as_ref().is_some_and(given)
    }

    /// Replaces the fields that were given.
    pub(super) fn put_over(&self, experiment: &mut Experiment) -> Result<()> {
        if let Some(given) = &self.given {
            experiment.update_from_arg_matches(given)?;
            // The number of images replaces the share; who names the share alone does not want the preset's number.
            if self.names("validation_fraction") && !self.names("validation_per_class") {
                experiment.data.validation_per_class = None;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::trained_by;

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
}
