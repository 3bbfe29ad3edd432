//! Checkpoints of other programs: `.pth` and `.pt` files of `torch.save`, and safetensors without this program's
//! metadata.
//!
//! | step | what | file |
//! |---|---|---|
//! | container | zip archive, legacy sequence of pickles, or safetensors; storages stay in the file | `container.rs` |
//! | pickle | values, nothing is called | `pickle.rs` |
//! | wrapper | the state dict among the other things that a training script saves ([`WRAPPERS`]) | `wrappers.rs` |
//! | names | prefixes ([`PREFIXES`]), `num_batches_tracked`, buffers of a normalisation layer | `names.rs` |
//! | normalisation | those buffers, or [`Options::normalize`]; never a guess | `normalise.rs` |
//! | fit | all arrays against the network's, at once, and what the network is if it is a near twin | `fit.rs`, `twins.rs` |
//! | numbers | `float16`, `bfloat16`, `float32` or `float64` with any strides, as `f32` | `tensors.rs` |
//!
//! Only arrays whose name and shape the network has are read, so that memory is bounded by the file and the network,
//! whatever the file claims.
//!
//! A state dict records neither the activation function nor the constant of batch norm. Where names give them away, as
//! those of RobustBench's SiLU networks do, the file is refused; otherwise a note says what is assumed.

mod container;
mod fit;
mod names;
mod normalise;
mod pickle;
mod tensors;
mod twins;
mod wrappers;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use names::PREFIXES;
pub use normalise::Normalisation;
pub use wrappers::WRAPPERS;

use self::container::{Contents, Format};
use self::normalise::{Buffers, Shaped};
use self::pickle::printable;
use self::tensors::Tensor;
use super::architectures::Architecture;
use super::network::{Network, StateSpec};
use super::state::{Array, MAX_HEADER, ModelError, State};
use crate::data::ImageShape;
use crate::files::{self, FileError};

/// Numbers in a buffer of a normalisation layer, and channels of images and classes that a file can be for.
const MAX_CHANNELS: usize = 4096;

/// What a file does not say about itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Options {
    /// Key of the state dict, such as `ema` or `last.model`. `None` takes one at the top, then those in [`WRAPPERS`] in
    /// their order, then the only one there is. For a file without wrappers, such as safetensors, the arrays whose names
    /// begin with it.
    pub weights: Option<String>,
    /// How images are normalised. `None` if the file has buffers that say so.
    pub normalize: Option<Normalisation>,
    /// Leave out arrays that the network does not have.
    pub ignore_extra: bool,
}

/// A network's state from a foreign file.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Parameters and running statistics; they fit the network and are finite.
    pub state: State,
    /// Mean and standard deviation of each channel for the network's first layer. `None` if images are not normalised.
    pub normalisation: Option<(Vec<f32>, Vec<f32>)>,
    /// What was chosen, removed, converted and assumed; for people.
    pub notes: Vec<String>,
}

/// Why a foreign file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is damaged, of another format or hostile.
    #[error("{path}: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Expected and found, and what to do.
        what: String,
    },
    /// It holds no state dict, several, or none of the wanted name.
    #[error("{path} {what}")]
    Weights {
        /// The file.
        path: PathBuf,
        /// What it holds, and what to do.
        what: String,
    },
    /// The normalisation of the images is unknown or contradictory.
    #[error("{path} {what}")]
    Normalisation {
        /// The file.
        path: PathBuf,
        /// Expected and found, and what to do.
        what: String,
    },
    /// Its arrays do not fit the network.
    #[error("{path} does not fit {architecture}: {what}")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The network's architecture.
        architecture: String,
        /// All arrays that are missing, superfluous or of another shape, and what the file seems to be.
        what: String,
    },
    /// Its numbers do not fit the network.
    #[error("{path}: {source}")]
    Numbers {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ModelError,
    },
}

/// An array, or why it cannot be read, to be put after its name.
type Entry = Result<Tensor, String>;

/// A foreign file whose state dict has been found.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    arrays: BTreeMap<String, Entry>,
    normalisation: Option<(Normalisation, String)>,
    options: Options,
    notes: Vec<String>,
}

/// Reads a foreign file for a network. The network's own normalisation is not used.
///
/// # Errors
/// As [`Checkpoint::open`] and [`Checkpoint::fit`].
pub fn load(path: &Path, network: &Network, options: &Options) -> Result<Imported, ImportError> {
    Checkpoint::open(path, options)?.fit(network)
}

/// Whether a file is a checkpoint of another program: one of `torch.save`, or safetensors without the experiment that
/// this program records. A damaged safetensors file is not.
///
/// # Errors
/// If the file cannot be read.
pub fn is_foreign(path: &Path) -> Result<bool, FileError> {
    let (mut file, _) = files::open(path, u64::MAX)?;
    let mut start = Vec::new();
    file.by_ref().take(9).read_to_end(&mut start).map_err(FileError::reading(path))?;
    if Format::of(&start) != Format::SafeTensors {
        return Ok(true);
    }
    let Some(length) = start.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return Ok(false) };
    let mut header = start.get(8..).unwrap_or_default().to_vec();
    file.take(length.min(MAX_HEADER).saturating_sub(1)).read_to_end(&mut header).map_err(FileError::reading(path))?;
    let Ok(serde_json::Value::Object(header)) = serde_json::from_slice(&header) else { return Ok(false) };
    let own = header.get("__metadata__").and_then(|metadata| metadata.get("fairtat")?.as_str());
    let own = own.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    Ok(own.is_none_or(|metadata| metadata.get("experiment").is_none()))
}

/// A state under the names of the network: without prefixes, counters of batches and the buffers of a normalisation
/// layer, as [`Checkpoint::open`] removes them.
pub fn without_wrapping(state: State) -> State {
    State(names::plain(state.0, false).arrays)
}

impl Checkpoint {
    /// Reads a file and finds its state dict and its normalisation.
    ///
    /// # Errors
    /// [`ImportError::File`] if it cannot be read, [`ImportError::Format`] if it is damaged or hostile,
    /// [`ImportError::Weights`] if there is no state dict or the choice is not clear, [`ImportError::Normalisation`] if
    /// the buffers of a normalisation layer do not fit together.
    pub fn open(path: &Path, options: &Options) -> Result<Self, ImportError> {
        Self::read(path, files::read(path)?, options)
    }

    /// As [`Self::open`], from the content of the file.
    fn read(path: &Path, bytes: Vec<u8>, options: &Options) -> Result<Self, ImportError> {
        let at = || path.to_path_buf();
        let mut notes = Vec::new();
        let contents = container::read(&bytes).map_err(|what| ImportError::Format { path: at(), what })?;
        let is_verified = match &contents {
            Contents::Arrays(_, is_verified) => *is_verified,
            Contents::Pickle(_, storages) => storages.values().all(|storage| storage.crc.is_some()),
        };
        if !is_verified {
            notes.push("the file has no checksum: damage to it would not be noticed".into());
        }
        let arrays =
            arrays_of(contents, options, &mut notes).map_err(|what| ImportError::Weights { path: at(), what })?;
        let plain = names::plain(arrays, options.ignore_extra);
        if !plain.prefix.is_empty() {
            notes.push(format!("the prefix '{}' of all arrays was removed", plain.prefix));
        }
        let normalisation = buffers_of(&plain.normalisation, &bytes)
            .and_then(|buffers| normalise::of_buffers(&buffers))
            .map_err(|what| ImportError::Normalisation { path: at(), what })?;
        Ok(Self { path: at(), bytes, arrays: plain.arrays, normalisation, options: options.clone(), notes })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The network of an architecture for the images and classes that this file is for, as far as its arrays tell: three
    /// channels and ten classes otherwise. The size of the images, which has no influence on a state, is 32×32.
    pub fn network(&self, architecture: Architecture, width: Option<usize>) -> Network {
        let build = |channels, classes| architecture.build(ImageShape::new(channels, 32, 32), classes, None, width);
        let specs = build(3, 10).state_specs();
        let size = |spec: Option<&StateSpec>, dimension: usize| {
            let tensor = self.arrays.get(&spec?.name)?.as_ref().ok()?;
            tensor.shape.get(dimension).copied().filter(|size| (1..=MAX_CHANNELS).contains(size))
        };
        build(size(specs.first(), 1).unwrap_or(3), size(specs.last(), 0).unwrap_or(10))
    }
}

/// The arrays of the chosen state dict under the names in the file.
fn arrays_of(
    contents: Contents<'_>,
    options: &Options,
    notes: &mut Vec<String>,
) -> Result<BTreeMap<String, Entry>, String> {
    let wanted = options.weights.as_deref();
    let (pickle, storages) = match contents {
        Contents::Pickle(pickle, storages) => (pickle, storages),
        Contents::Arrays(arrays, _) => {
            let arrays = arrays.into_iter().map(|(name, tensor)| (name, Ok(tensor))).collect();
            return below(arrays, wanted);
        }
    };
    let top = wrappers::choose(&pickle, None);
    // A flat state dict has no key to choose by, but may have arrays that begin with it.
    if let (Some(_), Ok((top, others))) = (wanted, &top)
        && top.name().is_empty()
        && others.is_empty()
    {
        return below(entries(&pickle, top.dict, &storages, notes), wanted);
    }
    let (chosen, others) = wrappers::choose(&pickle, wanted)?;
    let name = chosen.name();
    if !name.is_empty() || !others.is_empty() {
        let mut note = format!("the state dict is {}", wrappers::quoted(&name));
        if !others.is_empty() {
            let others = others.iter().map(|name| wrappers::quoted(name)).collect::<Vec<_>>();
            note += &format!("; there are also {}, which --weights chooses", listed(&others));
        }
        notes.push(note);
    }
    Ok(entries(&pickle, chosen.dict, &storages, notes))
}

/// The tensors of a state dict. Other values, such as counters, are noted.
fn entries(
    pickle: &pickle::Pickle<'_>,
    dict: pickle::Id,
    storages: &BTreeMap<String, tensors::Storage>,
    notes: &mut Vec<String>,
) -> BTreeMap<String, Entry> {
    let find = |key: &str| storages.get(key).cloned();
    let (mut arrays, mut others) = (BTreeMap::new(), Vec::new());
    for (key, value) in pickle.dict(dict).unwrap_or_default() {
        match pickle.text(*key) {
            Some(name) if tensors::is_tensor(pickle, *value) => {
                arrays.insert(name.to_owned(), tensors::tensor(pickle, *value, &find));
            }
            Some(name) => others.push(format!("'{}'", printable(name))),
            None => others.push("a key that is not a text".into()),
        }
    }
    if !others.is_empty() {
        notes.push(format!("not tensors, so left out: {}", listed(&others)));
    }
    arrays
}

/// The arrays whose names begin with a key, without it.
fn below(arrays: BTreeMap<String, Entry>, key: Option<&str>) -> Result<BTreeMap<String, Entry>, String> {
    let Some(key) = key else { return Ok(arrays) };
    let strip = |name: &str| Some(name.strip_prefix(key)?.strip_prefix('.')?.to_owned());
    let chosen: BTreeMap<_, _> =
        arrays.iter().filter_map(|(name, array)| Some((strip(name)?, array.clone()))).collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let names: Vec<String> = arrays.keys().map(|name| format!("'{}'", printable(name))).collect();
    Err(format!(
        "has a single state dict, and none of its arrays begins with '{}.'; its arrays are {}",
        printable(key),
        listed(&names)
    ))
}

/// Shapes and values of the buffers of a normalisation layer.
fn buffers_of(buffers: &Buffers<Entry>, file: &[u8]) -> Result<Buffers<Shaped>, String> {
    let read = |(name, entry): (&String, &Entry)| {
        let of = |what: String| format!("has a buffer '{}' that {what}", printable(name));
        let tensor = entry.as_ref().map_err(|what| of(what.clone()))?;
        if tensor.len().is_none_or(|length| length > MAX_CHANNELS) {
            return Err(of(format!("has the shape {:?}, expected one value per channel", tensor.shape)));
        }
        container::check_sum(&tensor.storage, file).map_err(of)?;
        Ok((name.clone(), (tensor.shape.clone(), tensor.values(file).map_err(of)?)))
    };
    buffers.iter().map(read).collect()
}

/// A list for a message: every name, unless the file is no network at all.
fn listed(names: &[String]) -> String {
    const MOST: usize = 1000;
    let shown = names[..names.len().min(MOST)].join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
