//! A network from a file: its experiment, and an engine that runs it.

use std::path::{Path, PathBuf};

use super::{Splits, network};
use crate::config::{ConfigError, EngineOptions, Experiment};
use crate::data::ImageShape;
use crate::engine::{Engine, EngineError};
use crate::engines::{check_memory, open_engine};
use crate::files::FileError;
use crate::model::pytorch::{self, Checkpoint, ImportError, Options};
use crate::model::{Architecture, Facts, ModelError, Network, Op, PROBE_IMAGES, State};

/// Why a checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A directory holds no finished epoch.
    #[error("{path} is a directory without checkpoints/best.safetensors")]
    NoBest {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The file cannot be opened.
    #[error(transparent)]
    File(#[from] FileError),
    /// The experiment in the file, or the one that the caller gave, is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file was not written by a run, and the caller gave no experiment.
    #[error("{path} does not record its network and data")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A file of another program cannot be used.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The channel statistics in the file cannot be read.
    #[error("{path}: its mean and standard deviation cannot be read: {source}")]
    Statistics {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The network is for images with another number of channels.
    #[error(
        "{path} is for {trained} images, but those of '{dataset}' are {found}; name the experiment of the checkpoint with \
         --config or --preset"
    )]
    Channels {
        /// The file.
        path: PathBuf,
        /// The images that it was trained on: grey or colour.
        trained: &'static str,
        /// The experiment's data set.
        dataset: String,
        /// The images of that data set: grey or colour.
        found: &'static str,
    },
    /// The network has another architecture.
    #[error(
        "{path} is a {trained}, but the given experiment has a {named}; name the experiment of the checkpoint with \
         --config or --preset"
    )]
    Architecture {
        /// The file.
        path: PathBuf,
        /// The architecture that the file records.
        trained: Architecture,
        /// The architecture of the experiment.
        named: Architecture,
    },
    /// No engine can run the network.
    #[error("{path}")]
    Engine {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: EngineError,
    },
}

fn kind(channels: usize) -> &'static str {
    if channels == 1 { "grey" } else { "colour" }
}

/// Mean and standard deviation of each channel.
type Statistics = (Vec<f32>, Vec<f32>);

/// Weights from a file, with their experiment.
#[derive(Debug, Clone)]
pub struct StoredNetwork {
    /// The file.
    pub file: PathBuf,
    /// The experiment, which the caller may change if the data has moved.
    pub experiment: Experiment,
    /// Epochs that the weights were trained for, if the file records them.
    pub position: Option<f64>,
    state: State,
    metadata: Facts,
    notes: Option<Vec<String>>,
}

impl StoredNetwork {
    /// Title of the method that trained the weights; `None` if the file does not record it.
    pub fn method(&self) -> Option<&'static str> {
        self.metadata.contains_key("experiment").then(|| self.experiment.fairness.method.title())
    }

    /// The weights alone.
    pub(super) fn into_state(self) -> State {
        self.state
    }

    /// Reads a checkpoint, or the best one of a run directory. `experiment` replaces the one in the file.
    ///
    /// # Errors
    /// If there is no checkpoint, if it is damaged, or if its experiment is unknown.
    pub fn load(path: &Path, experiment: Option<Experiment>) -> Result<Self, StoredError> {
        Self::load_with(path, experiment, &Options::default())
    }

    /// As [`Self::load`]; `options` tell what a file of another program does not say about itself. How it normalises
    /// images becomes part of the experiment and of [`Self::facts`].
    ///
    /// # Errors
    /// As [`Self::load`], [`Checkpoint::open`] and [`Checkpoint::fit`].
    pub fn load_with(path: &Path, experiment: Option<Experiment>, options: &Options) -> Result<Self, StoredError> {
        let mut file = path.to_path_buf();
        if path.is_dir() {
            file = path.join("checkpoints").join("best.safetensors");
            if !file.try_exists().map_err(FileError::reading(&file))? {
                return Err(StoredError::NoBest { path: path.to_path_buf() });
            }
        }
        if pytorch::is_foreign(&file)? {
            let Some(experiment) = experiment else { return Err(StoredError::Foreign { path: file }) };
            return Self::import(file, experiment, options);
        }
        let (state, metadata) = State::load(&file)?;
        let experiment = match (experiment, metadata.get("experiment")) {
            (Some(named), text) => {
                let own = text.and_then(|text| Experiment::from_toml(text, "").ok());
                if let Some(trained) = own.map(|own| own.model.arch).filter(|arch| *arch != named.model.arch) {
                    return Err(StoredError::Architecture { path: file, trained, named: named.model.arch });
                }
                named
            }
            (None, Some(text)) => {
                let experiment = Experiment::from_toml(text, &format!("{}: its experiment", file.display()))?;
                experiment.validate()?;
                experiment
            }
            (None, None) => return Err(StoredError::Foreign { path: file }),
        };
        let epoch = metadata.get("epoch").and_then(|epoch| epoch.parse::<u32>().ok());
        let position = epoch.map(|epoch| f64::from(epoch) + 1.0);
        Ok(Self { file, experiment, position, state, metadata, notes: None })
    }

    /// A file of another program. The images and classes are those of the file; they are compared with those of the data
    /// when an engine is opened.
    fn import(file: PathBuf, mut experiment: Experiment, options: &Options) -> Result<Self, StoredError> {
        let checkpoint = Checkpoint::open(&file, options)?;
        let imported = checkpoint.fit(&checkpoint.network(experiment.model.arch, experiment.model.width))?;
        experiment.data.normalize = imported.normalisation.is_some();
        let mut metadata = Facts::new();
        if let Some((mean, std)) = imported.normalisation {
            for (key, values) in [("mean", mean), ("std", std)] {
                let text = serde_json::to_string(&values)
                    .map_err(|source| StoredError::Statistics { path: file.clone(), source })?;
                metadata.insert(key.to_owned(), text);
            }
        }
        let (state, notes) = (imported.state, Some(imported.notes));
        Ok(Self { file, experiment, position: None, state, metadata, notes })
    }

    /// What was chosen, converted and assumed in reading a file of another program; `None` for this program's files.
    pub fn notes(&self) -> Option<&[String]> {
        self.notes.as_deref()
    }

    /// The weights, under the names of the network.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the file records about itself; the normalisation at most if another program wrote it.
    pub fn facts(&self) -> &Facts {
        &self.metadata
    }

    /// The statistics of the images that the network was trained on, if the file records them.
    fn statistics(&self) -> Result<Option<Statistics>, StoredError> {
        let read = |text: &str| {
            serde_json::from_str(text).map_err(|source| StoredError::Statistics { path: self.file.clone(), source })
        };
        match (self.metadata.get("mean"), self.metadata.get("std")) {
            (Some(mean), Some(std)) => Ok(Some((read(mean)?, read(std)?))),
            _ => Ok(None),
        }
    }

    /// The network for the images and classes that the file records, without its data set; `None` if it does not record
    /// them.
    ///
    /// # Errors
    /// [`StoredError::Statistics`].
    pub fn recorded_network(&self) -> Result<Option<Network>, StoredError> {
        let shape = self.metadata.get("shape").and_then(|text| parse_shape(text));
        let names = self.metadata.get("class_names").and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
        let (Some(shape), Some(names)) = (shape, names) else { return Ok(None) };
        let statistics = self.statistics()?;
        let statistics = statistics.as_ref().map(|(mean, std)| (mean.as_slice(), std.as_slice()));
        let model = &self.experiment.model;
        let network = model.arch.build(shape, names.len(), statistics, model.width);
        self.check_memory(&network, PROBE_IMAGES, &EngineOptions::default())?;
        Ok(Some(network))
    }

    /// Opens an engine with these weights, in the network for these images.
    ///
    /// # Errors
    /// If the weights do not fit, or the engine cannot be opened.
    pub fn open(&self, splits: &Splits, options: &EngineOptions) -> Result<Box<dyn Engine>, StoredError> {
        let network = self.network(splits)?;
        let batch = self.experiment.evaluation.eval_batch_size.min(splits.test.len());
        self.check_memory(&network, batch, options)?;
        open_engine(options, network, &self.state)
            .map_err(|source| StoredError::Engine { path: self.file.clone(), source })
    }

    fn check_memory(&self, network: &Network, batch: usize, options: &EngineOptions) -> Result<(), StoredError> {
        check_memory(options, network, batch, false)
            .map_err(|source| StoredError::Engine { path: self.file.clone(), source })
    }

    /// The network for these images.
    ///
    /// # Errors
    /// [`StoredError::Statistics`] or [`StoredError::Channels`].
    pub fn network(&self, splits: &Splits) -> Result<Network, StoredError> {
        let mut network = network(&self.experiment, &splits.train);
        // The statistics of the original training images, even if the data is now read from elsewhere.
        if let Some((mean, std)) = self.statistics()? {
            let found = splits.train.shape().channels;
            if mean.len() != found {
                let (path, dataset) = (self.file.clone(), self.experiment.data.dataset.clone());
                return Err(StoredError::Channels { path, trained: kind(mean.len()), dataset, found: kind(found) });
            }
            if let Some(layer) = network.layers.first_mut()
                && matches!(layer.op, Op::Normalize { .. })
            {
                layer.op = Op::Normalize { mean, std };
            }
        }
        Ok(network)
    }
}

/// The shape that [`ImageShape`]'s `Display` wrote; `None` if the text is damaged.
fn parse_shape(text: &str) -> Option<ImageShape> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0).map(usize::from);
    match text.split('×').map(number).collect::<Option<Vec<_>>>()?[..] {
        [channels, height, width] => Some(ImageShape::new(channels, height, width)),
        _ => None,
    }
}
