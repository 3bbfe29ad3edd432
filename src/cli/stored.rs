//! A stored network and its data, as `fairtat eval`, `fairtat export` and `fairtat post` name them.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use super::Usage;
use super::json::JsonArgs;
use super::overrides::{ExperimentArgs, Source};
use crate::config::{EngineOptions, Experiment};
use crate::console::tell;
use crate::model::pytorch::{Normalisation, Options};
use crate::train::{Matching, Splits, StoredError, StoredNetwork};

#[derive(Debug, Args)]
pub(super) struct StoredArgs {
    /// A .safetensors file, a run directory (its best checkpoint), or PyTorch's .pth or .pt
    pub(super) checkpoint: PathBuf,
    /// Directory of the data set, if it differs from that in training
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Evaluate images whose classes have other names than those of the network, in their order
    #[arg(long)]
    ignore_class_names: bool,
    /// Images in a batch; results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: Option<u32>,
    #[command(flatten)]
    pub(super) engine: EngineOptions,
    #[command(flatten)]
    pub(super) json: JsonArgs,
    /// For a checkpoint of another program: its experiment
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    foreign: ForeignArgs,
}

/// What a checkpoint of another program does not say about itself.
#[derive(Debug, Default, Args)]
pub(super) struct ForeignArgs {
    /// For a checkpoint of another program: key of its state dict, such as ema or last.model
    #[arg(long, value_name = "KEY")]
    weights: Option<String>,
    /// For a checkpoint of another program without buffers that say so: how it normalises images; cifar10, cifar100,
    /// imagenet, mnist, none, or MEAN/STD such as 0.49,0.48,0.45/0.25,0.24,0.26
    #[arg(long, value_name = "NAME")]
    normalize: Option<Normalisation>,
    /// For a checkpoint of another program: leave out arrays that the network does not have
    #[arg(long)]
    ignore_extra: bool,
}

impl StoredArgs {
    /// The network with its experiment, whose data are those that the arguments name.
    pub(super) fn load(&self) -> Result<StoredNetwork> {
        self.load_from(&self.checkpoint)
    }

    /// The images of a network that [`Self::load`] has read; says on standard error what was assumed about them.
    pub(super) fn splits(&self, stored: &StoredNetwork) -> Result<Splits> {
        let elsewhere = self.path.as_ref().is_some_and(|path| stored.is_elsewhere(path));
        let matching = Matching { ignore_class_names: self.ignore_class_names, elsewhere };
        let splits = stored.splits(matching)?;
        splits.notes.iter().for_each(|note| tell!("note: {note}"));
        Ok(splits)
    }

    /// As [`Self::load`], from another checkpoint.
    pub(super) fn load_from(&self, checkpoint: &Path) -> Result<StoredNetwork> {
        let mut stored = load(checkpoint, &self.source, self.path.as_deref(), &self.foreign)?;
        if let Some(size) = self.batch_size {
            stored.experiment.evaluation.eval_batch_size = size as usize;
        }
        Ok(stored)
    }

    /// Images in a batch of an evaluation.
    pub(super) fn batch_size(&self, experiment: &Experiment) -> usize {
        experiment.evaluation.eval_batch_size
    }
}

/// The network in `checkpoint`. `source` is the experiment of a checkpoint that records none, `path` the directory of its
/// data set if that has moved. Says on standard error what was assumed about a checkpoint of another program.
pub(super) fn load(
    checkpoint: &Path,
    source: &Source,
    path: Option<&Path>,
    foreign: &ForeignArgs,
) -> Result<StoredNetwork> {
    let named = match source.config.is_some() || source.preset.is_some() {
        true => Some(ExperimentArgs::default().experiment(source)?),
        false => None,
    };
    let ForeignArgs { weights, normalize, ignore_extra } = foreign;
    let options = Options { weights: weights.clone(), normalize: normalize.clone(), ignore_extra: *ignore_extra };
    let mut stored = StoredNetwork::load_with(checkpoint, named, &options).map_err(|error| match error {
        StoredError::Foreign { .. } => Usage(format!("{error}; name its experiment with --config or --preset")).into(),
        StoredError::Config(error) => error.into(),
        other => anyhow::Error::from(other),
    })?;
    match stored.notes() {
        Some(notes) => notes.iter().for_each(|note| tell!("note: {note}")),
        None if options != Options::default() => {
            let file = stored.file.display();
            bail!(Usage(format!(
                "--weights, --normalize and --ignore-extra are for checkpoints of other programs; {file} records its \
                 network and its normalisation"
            )));
        }
        None => {}
    }
    if let Some(note) = stored.unverified() {
        tell!("note: {note}");
    }
    if let Some(path) = path {
        stored.experiment.data.path = Some(path.to_path_buf());
    }
    Ok(stored)
}
