//! A network from a file: its experiment, and an engine that runs it.

use std::path::{Path, PathBuf};

use super::{Splits, network};
use crate::config::{ConfigError, EngineOptions, Experiment};
use crate::data::{DataError, ImageShape, same_name};
use crate::engine::{Engine, EngineError};
use crate::engines::{check_memory, open_engine};
use crate::files::{self, FileError};
use crate::model::pytorch::{self, Checkpoint, ImportError, Options};
use crate::model::{Architecture, Facts, ModelError, Network, Op, SHA256, State, StateSpec};

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
    /// What the file records about its images is damaged.
    #[error("{path}: its metadata is damaged: {what}; use another copy of the file")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// Which value, expected and found.
        what: String,
    },
    /// The file is far larger than its network.
    #[error(
        "{path} holds {found} bytes, expected at most {expected} for a {architecture}: it is damaged, or of another network"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The limit.
        expected: u64,
        /// The network.
        architecture: Architecture,
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
    /// The data set cannot be loaded.
    #[error("data set '{dataset}'")]
    Data {
        /// Name of the data set.
        dataset: String,
        /// The cause.
        source: DataError,
    },
    /// The network was trained on images of another shape.
    #[error(
        "{path} was trained on {trained} images, but those of '{dataset}' are {found}; name the data set of the checkpoint, \
         or its experiment with --config or --preset"
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The shape that the file records.
        trained: ImageShape,
        /// The experiment's data set.
        dataset: String,
        /// Its shape.
        found: ImageShape,
    },
    /// The network was trained on other classes.
    #[error("the classes of '{dataset}' are not those of {path}: {difference}; {hint}")]
    Classes {
        /// The file.
        path: PathBuf,
        /// The experiment's data set.
        dataset: String,
        /// The first difference.
        difference: String,
        /// What to do.
        hint: &'static str,
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
    statistics: Option<Statistics>,
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
        let metadata = State::load_metadata(&file)?;
        let damaged = |what| StoredError::Metadata { path: file.clone(), what };
        let (shape, class_names) = (shape_in(&metadata).map_err(damaged)?, class_names_in(&metadata).map_err(damaged)?);
        let statistics = statistics_in(&metadata, shape).map_err(damaged)?;
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
        if let (Some(shape), Some(names)) = (shape, class_names) {
            check_size(&file, &experiment, shape, names.len(), (OWN_COPIES, 1 << 20))?;
        }
        let state = State::load(&file)?.0;
        Ok(Self { file, experiment, position, state, metadata, statistics, notes: None })
    }

    /// A file of another program. The images and classes are those of the file; they are compared with those of the data
    /// when an engine is opened.
    fn import(file: PathBuf, mut experiment: Experiment, options: &Options) -> Result<Self, StoredError> {
        check_size(&file, &experiment, ImageShape::new(3, 32, 32), 1000, (FOREIGN_COPIES, FOREIGN_BYTES))?;
        let checkpoint = Checkpoint::open(&file, options)?;
        let imported = checkpoint.fit(&checkpoint.network(experiment.model.arch, experiment.model.width))?;
        experiment.data.normalize = imported.normalisation.is_some();
        let mut metadata = Facts::new();
        let statistics = imported.normalisation;
        if let Some((mean, std)) = &statistics {
            for (key, values) in [("mean", mean), ("std", std)] {
                let text = serde_json::to_string(values)
                    .map_err(|error| StoredError::Metadata { path: file.clone(), what: error.to_string() })?;
                metadata.insert(key.to_owned(), text);
            }
        }
        let (state, notes) = (imported.state, Some(imported.notes));
        Ok(Self { file, experiment, position: None, state, metadata, statistics, notes })
    }

    /// What was chosen, converted and assumed in reading a file of another program; `None` for this program's files.
    pub fn notes(&self) -> Option<&[String]> {
        self.notes.as_deref()
    }

    /// That a file of this program has no checksum, as those of earlier versions; `None` if it has one. [`Self::notes`]
    /// say so about files of other programs.
    pub fn unverified(&self) -> Option<String> {
        let without = self.notes.is_none() && !self.metadata.contains_key(SHA256);
        without.then(|| {
            let file = self.file.display();
            format!("{file} was written by an earlier version: it has no checksum, so that damage would not be noticed")
        })
    }

    /// The weights, under the names of the network.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What the file records about itself; the normalisation at most if another program wrote it.
    pub fn facts(&self) -> &Facts {
        &self.metadata
    }

    /// Shape of the images that the network was trained on, if the file records it.
    pub fn recorded_shape(&self) -> Option<ImageShape> {
        shape_in(&self.metadata).ok().flatten()
    }

    /// The network for the images and classes that the file records, without its data set; `None` if it does not record
    /// them.
    pub fn recorded_network(&self) -> Option<Network> {
        let shape = shape_in(&self.metadata).ok()??;
        let names = class_names_in(&self.metadata).ok()??;
        let statistics = self.statistics.as_ref().map(|(mean, std)| (mean.as_slice(), std.as_slice()));
        let model = &self.experiment.model;
        Some(model.arch.build(shape, names.len(), statistics, model.width))
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
    /// [`StoredError::Channels`].
    pub fn network(&self, splits: &Splits) -> Result<Network, StoredError> {
        let mut network = network(&self.experiment, &splits.train);
        // The statistics of the original training images, even if the data is now read from elsewhere.
        if let Some((mean, std)) = self.statistics.clone() {
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

/// Largest multiple of its network's size that a checkpoint of this program can have.
const OWN_COPIES: u64 = 2;
/// The same for files of other programs, which may hold an optimizer's state, averages and more, in double precision,
/// and the size up to which any such file is read, so that a misfit is explained.
const FOREIGN_COPIES: u64 = 64;
const FOREIGN_BYTES: u64 = 1 << 31;

/// Checks the length of a file before it is read: the size of a network, times the first of `limits`, plus the second.
fn check_size(
    path: &Path,
    experiment: &Experiment,
    shape: ImageShape,
    classes: usize,
    (copies, more): (u64, u64),
) -> Result<(), StoredError> {
    let (architecture, width) = (experiment.model.arch, experiment.model.width);
    let network = architecture.build(shape, classes, None, width);
    let values = |spec: StateSpec| spec.shape.iter().fold(1u64, |n, size| n.saturating_mul(*size as u64));
    let bytes = network.state_specs().into_iter().map(values).fold(0, u64::saturating_add).saturating_mul(4);
    let expected = bytes.saturating_mul(copies).saturating_add(more);
    let (_, found) = files::open(path, u64::MAX)?;
    if found > expected {
        return Err(StoredError::Size { path: path.to_path_buf(), found, expected, architecture });
    }
    Ok(())
}

/// The statistics of the images that the network was trained on, if the file records them.
fn statistics_in(metadata: &Facts, shape: Option<ImageShape>) -> Result<Option<Statistics>, String> {
    let read = |key: &str| -> Result<Option<Vec<f32>>, String> {
        let parsed = metadata.get(key).map(|text| serde_json::from_str(text)).transpose();
        parsed.map_err(|error| format!("'{key}' is not a list of numbers: {error}"))
    };
    let (mean, std) = match (read("mean")?, read("std")?) {
        (Some(mean), Some(std)) => (mean, std),
        (None, None) => return Ok(None),
        (mean, _) => {
            let (there, lacks) = if mean.is_some() { ("mean", "std") } else { ("std", "mean") };
            return Err(format!("it has '{there}' without '{lacks}'"));
        }
    };
    let expected = shape.map_or(mean.len(), |shape| shape.channels);
    if mean.len() != expected || std.len() != expected || expected == 0 {
        let (means, stds) = (mean.len(), std.len());
        return Err(format!(
            "'mean' has {means} values and 'std' {stds}, expected one for each of {expected} channels"
        ));
    }
    if !mean.iter().all(|v| v.is_finite()) || !std.iter().all(|v| v.is_finite() && *v > 0.0) {
        return Err(format!("'mean' is {mean:?} and 'std' {std:?}, expected finite values and positive deviations"));
    }
    Ok(Some((mean, std)))
}

/// The shape of the images.
fn shape_in(metadata: &Facts) -> Result<Option<ImageShape>, String> {
    let shape = metadata
        .get("shape")
        .map(|text| parse_shape(text).ok_or_else(|| format!("'shape' is '{text}', expected channels×height×width")));
    shape.transpose()
}

fn class_names_in(metadata: &Facts) -> Result<Option<Vec<String>>, String> {
    let names = metadata.get("class_names").map(|text| serde_json::from_str::<Vec<String>>(text)).transpose();
    match names.map_err(|error| format!("'class_names' is not a list of names: {error}"))? {
        Some(names) if names.len() < 2 => {
            Err(format!("'class_names' has {} names, expected at least two", names.len()))
        }
        Some(names) => match same_name(&names) {
            Some((a, b)) => Err(format!("'class_names' has the name '{}' for class {a} and class {b}", names[a])),
            None => Ok(Some(names)),
        },
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DeviceChoice, EngineChoice};

    /// A checkpoint of a small network for 3×8×8 images of two classes with this metadata beside its experiment.
    fn checkpoint(path: &Path, facts: &[(&str, &str)]) -> Experiment {
        let mut experiment = Experiment::preset("digits-60s").unwrap();
        experiment.model.width = Some(4);
        let network = experiment.model.arch.build(ImageShape::new(3, 8, 8), 2, None, Some(4));
        let mut metadata: Facts = [("shape", "3×8×8"), ("class_names", "[\"a\",\"b\"]")]
            .into_iter()
            .chain(facts.iter().copied())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        metadata.insert("experiment".into(), experiment.to_toml());
        State::initialise(&network, 1).save(path, &metadata).unwrap();
        experiment
    }

    #[test]
    fn metadata_of_wrong_lengths_is_refused_wherever_a_checkpoint_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let three = ("mean", "[0.5,0.5,0.5]");
        for (facts, expected) in [
            (&[("mean", "[0.5]"), ("std", "[0.5]")][..], "'mean' has 1 values and 'std' 1, expected one for each of 3"),
            (&[three, ("std", "[0.2,0.2]")], "'mean' has 3 values and 'std' 2"),
            (&[three, ("std", "[]")], "'std' 0"),
            (&[three], "it has 'mean' without 'std'"),
            (&[("std", "[0.5,0.5,0.5]")], "it has 'std' without 'mean'"),
            (&[three, ("std", "[0.2,0.0,0.2]")], "expected finite values and positive deviations"),
            (
                &[("mean", "[0.5,1e99,0.5]"), ("std", "[0.2,0.2,0.2]")],
                "'mean' is not a list of numbers: number out of range",
            ),
            (&[three, ("std", "0.2")], "'std' is not a list of numbers"),
            (&[("shape", "3×8")], "'shape' is '3×8', expected channels×height×width"),
            (&[("class_names", "[\"a\"]")], "'class_names' has 1 names, expected at least two"),
            (&[("class_names", "[\"a\",\"a\"]")], "'class_names' has the name 'a' for class 0 and class 1"),
            (&[("class_names", "7")], "'class_names' is not a list of names"),
        ] {
            checkpoint(&path, facts);
            let error = StoredNetwork::load(&path, None).unwrap_err().to_string();
            assert!(error.contains("a.safetensors: its metadata is damaged: ") && error.contains(expected), "{error}");
        }
        checkpoint(&path, &[three, ("std", "[0.2,0.2,0.2]")]);
        assert_eq!(StoredNetwork::load(&path, None).unwrap().recorded_network().unwrap().classes, 2);
    }

    /// A second line: networks reach the engines from elsewhere, too.
    #[test]
    fn engines_refuse_a_normalisation_of_another_length() {
        let mut network =
            Architecture::SmallCnn.build(ImageShape::new(3, 8, 8), 2, Some((&[0.5; 3], &[0.5; 3])), Some(4));
        network.layers[0].op = Op::Normalize { mean: vec![0.5; 3], std: vec![0.5; 2] };
        let state = State::initialise(&network, 1);
        for (engine, device) in
            [(EngineChoice::Candle, DeviceChoice::Cpu), (EngineChoice::Wgsl, EngineOptions::default().device)]
        {
            let options = EngineOptions { engine, device, ..EngineOptions::default() };
            let error = open_engine(&options, network.clone(), &state).err().unwrap().to_string();
            assert!(error.contains("mean of 3 values and standard deviation of 2"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_far_larger_than_its_network_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let experiment = checkpoint(&path, &[]);
        // Sparse: it takes no room on the disk, but would in memory.
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 32).unwrap();
        let error = StoredNetwork::load(&path, None).unwrap_err().to_string();
        assert!(error.contains("holds 4294967296 bytes, expected at most"), "{error}");
        std::fs::write(&path, b"\x80\x02}q\x00.").unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 32).unwrap();
        let error = StoredNetwork::load(&path, Some(experiment)).unwrap_err().to_string();
        assert!(error.contains("holds 4294967296 bytes, expected at most"), "{error}");
    }
}
