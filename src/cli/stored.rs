//! A stored network and its data, as `fairtat eval`, `fairtat export` and `fairtat post` name them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::Usage;
use super::overrides::{ExperimentArgs, Source};
use crate::config::{EngineOptions, Experiment};
use crate::train::{StoredError, StoredNetwork};

#[derive(Debug, Args)]
pub(super) struct StoredArgs {
    /// A .safetensors file, or a run directory (its best checkpoint)
    pub(super) checkpoint: PathBuf,
    /// Directory of the data set, if it differs from that in training
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Images in a batch; results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: Option<u32>,
    #[command(flatten)]
    pub(super) engine: EngineOptions,
    /// Also write the results as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
    /// For a checkpoint of another program: its experiment
    #[command(flatten)]
    source: Source,
}

impl StoredArgs {
    /// The network with its experiment, whose data are those that the arguments name.
    pub(super) fn load(&self) -> Result<StoredNetwork> {
        self.load_from(&self.checkpoint)
    }

    /// As [`Self::load`], from another checkpoint.
    pub(super) fn load_from(&self, checkpoint: &Path) -> Result<StoredNetwork> {
        load(checkpoint, &self.source, self.path.as_deref())
    }

    /// Images in a batch of an evaluation.
    pub(super) fn batch_size(&self, experiment: &Experiment) -> usize {
        self.batch_size.map_or(experiment.evaluation.eval_batch_size, |n| n as usize)
    }
}

/// The network in `checkpoint`. `source` is the experiment of a checkpoint that records none, `path` the directory of its
/// data set if that has moved.
pub(super) fn load(checkpoint: &Path, source: &Source, path: Option<&Path>) -> Result<StoredNetwork> {
    let named = match source.config.is_some() || source.preset.is_some() {
        true => Some(ExperimentArgs::default().experiment(source)?),
        false => None,
    };
    let mut stored = StoredNetwork::load(checkpoint, named).map_err(|error| match error {
        StoredError::Foreign { .. } => Usage(format!("{error}; name its experiment with --config or --preset")).into(),
        StoredError::Config(error) => error.into(),
        other => anyhow::Error::from(other),
    })?;
    if let Some(path) = path {
        stored.experiment.data.path = Some(path.to_path_buf());
    }
    Ok(stored)
}
