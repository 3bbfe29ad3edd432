//! Parameters and running statistics of a network: PyTorch's state dict as plain arrays, and its file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};

use super::checksum;
use super::network::{Initialisation, Network};
use crate::files::{self, FileError, write_atomic};
use crate::rng::{Purpose, Stream};

/// An `f32` array in row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values.
    pub data: Vec<f32>,
}

impl Array {
    /// Zeros of the given shape.
    pub fn zeros(shape: &[usize]) -> Self {
        Self { shape: shape.to_vec(), data: vec![0.0; shape.iter().product()] }
    }
}

/// Errors of parameters and their files.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not a safetensors file, or holds arrays other than `f32`.
    #[error("{path}: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        what: String,
    },
    /// Arrays do not fit the network.
    #[error("the parameters do not fit {architecture}: {what}")]
    Mismatch {
        /// The network's architecture.
        architecture: String,
        /// Which array, expected and found.
        what: String,
    },
    /// The layers of a network do not fit together, so that no engine can run it.
    #[error("{architecture} cannot run: {what}")]
    Layers {
        /// The network's architecture.
        architecture: String,
        /// Which layer, expected and found.
        what: String,
    },
}

/// Named arrays, sorted by name: parameters and running statistics under PyTorch's names.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State(pub BTreeMap<String, Array>);

impl State {
    /// PyTorch's default initialisation, with the project's own generator: array `i` in the order of
    /// [`Network::state_specs`] takes its values from the stream `(seed, Initialise, 0, i)`.
    pub fn initialise(network: &Network, seed: u64) -> Self {
        let arrays = network.state_specs().into_iter().enumerate().map(|(i, spec)| {
            let mut array = Array::zeros(&spec.shape);
            match spec.initialisation {
                Initialisation::Constant(value) => array.data.fill(value),
                Initialisation::Uniform { bound } => {
                    Stream::new(seed, Purpose::Initialise, 0, i as u32).fill_symmetric(&mut array.data);
                    array.data.iter_mut().for_each(|value| *value *= bound);
                }
            }
            (spec.name, array)
        });
        Self(arrays.collect())
    }

    /// Checks that the state holds exactly the arrays of `network`, with their shapes, and that all values are finite.
    ///
    /// # Errors
    /// Returns [`ModelError::Mismatch`] with the first array that is missing, superfluous, of another shape or not
    /// finite.
    pub fn check(&self, network: &Network) -> Result<(), ModelError> {
        let fail = |what| Err(ModelError::Mismatch { architecture: network.architecture.clone(), what });
        let specs = network.state_specs();
        for spec in &specs {
            match self.0.get(&spec.name) {
                None => return fail(format!("'{}' {:?} is missing", spec.name, spec.shape)),
                Some(array) if array.shape != spec.shape => {
                    return fail(format!("'{}' has shape {:?}, expected {:?}", spec.name, array.shape, spec.shape));
                }
                Some(array) if !array.data.iter().all(|v| v.is_finite()) => {
                    return fail(format!("'{}' holds values that are not finite", spec.name));
                }
                Some(_) => {}
            }
        }
        match self.0.keys().find(|name| !specs.iter().any(|spec| spec.name == **name)) {
            Some(extra) => fail(format!("'{extra}' is not part of it")),
            None => Ok(()),
        }
    }

    /// The name of the first array that holds a value that is not finite.
    pub fn not_finite(&self) -> Option<&str> {
        let finite = |array: &Array| array.data.iter().all(|value| value.is_finite());
        self.0.iter().find(|(_, array)| !finite(array)).map(|(name, _)| name.as_str())
    }

    /// `self ← decay · self + (1 - decay) · other` for every array, running statistics included.
    ///
    /// # Panics
    /// Panics if the two do not hold the same arrays; both must have passed [`Self::check`] for one network.
    pub fn average_with(&mut self, other: &Self, decay: f32) {
        assert_eq!(self.0.len(), other.0.len(), "both states belong to one network");
        for ((name, ours), (other_name, theirs)) in self.0.iter_mut().zip(&other.0) {
            assert_eq!((name, &ours.shape), (other_name, &theirs.shape), "both states belong to one network");
            for (a, b) in ours.data.iter_mut().zip(&theirs.data) {
                *a = decay * *a + (1.0 - decay) * b;
            }
        }
    }

    /// Writes a safetensors file with `metadata` and a checksum in its header, atomically.
    ///
    /// # Errors
    /// Returns [`ModelError::File`] if the file cannot be written.
    pub fn save(&self, path: &Path, metadata: &BTreeMap<String, String>) -> Result<(), ModelError> {
        let fail = |what: String| ModelError::Format { path: path.into(), what };
        let arrays: BTreeMap<&str, ArrayView<'_>> =
            self.0.iter().map(|(name, array)| (name.as_str(), ArrayView(array))).collect();
        let mut texts = HashMap::new();
        checksum::seal(&mut texts, metadata, arrays.iter().map(|(name, array)| (*name, array)))
            .map_err(|e| fail(e.to_string()))?;
        let bytes = safetensors::serialize(arrays, Some(texts)).map_err(|e| fail(e.to_string()))?;
        Ok(write_atomic(path, &bytes)?)
    }

    /// Reads only the metadata that [`Self::save`] wrote (empty for foreign files). The arrays are not checked.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_metadata(path: &Path) -> Result<BTreeMap<String, String>, ModelError> {
        let fail = |what: String| ModelError::Format { path: path.into(), what };
        let (mut file, found) = files::open(path, u64::MAX)?;
        let mut length = [0; 8];
        let mut header = Vec::new();
        let whole =
            |e: &dyn std::fmt::Display| fail(format!("not a whole safetensors file ({e}); found {found} bytes"));
        file.read_exact(&mut length).map_err(|e| whole(&e))?;
        let length = u64::from_le_bytes(length).min(MAX_HEADER);
        file.take(length).read_to_end(&mut header).map_err(|e| whole(&e))?;
        let header: Header = serde_json::from_slice(&header).map_err(|e| whole(&e))?;
        metadata_of(header.texts.as_ref()).map_err(fail)
    }

    /// Reads a safetensors file and the metadata that [`Self::save`] wrote (empty for foreign files), with the checksum
    /// as [`SHA256`](super::SHA256) unless an earlier version wrote the file.
    ///
    /// # Errors
    /// Returns [`ModelError::File`] if the file cannot be read; [`ModelError::Format`] if it is not a safetensors file
    /// of `f32` arrays, or does not have the checksum that it records.
    pub fn load(path: &Path) -> Result<(Self, BTreeMap<String, String>), ModelError> {
        let bytes = files::read(path)?;
        let fail = |what: String| ModelError::Format { path: path.into(), what };
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|e| fail(format!("not a whole safetensors file ({e}); found {} bytes", bytes.len())))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| fail(e.to_string()))?;
        let metadata = checksum::metadata(&header).map_err(fail)?;
        checksum::verify(&file, &metadata).map_err(fail)?;
        let mut arrays = BTreeMap::new();
        for (name, view) in file.tensors() {
            let data = match view.dtype() {
                Dtype::F32 => {
                    view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
                }
                // PyTorch's counter of batches, which nothing here needs.
                Dtype::I64 if name.ends_with("num_batches_tracked") => continue,
                other => return Err(fail(format!("'{name}' holds {other:?}, expected F32"))),
            };
            arrays.insert(name, Array { shape: view.shape().to_vec(), data });
        }
        Ok((Self(arrays), metadata))
    }
}

/// The longest header that the `safetensors` crate reads.
pub(super) const MAX_HEADER: u64 = 100_000_000;

/// What [`State::load_metadata`] needs of a header.
#[derive(serde::Deserialize)]
struct Header {
    #[serde(rename = "__metadata__", default)]
    texts: Option<HashMap<String, String>>,
}

fn metadata_of(texts: Option<&HashMap<String, String>>) -> Result<BTreeMap<String, String>, String> {
    let Some(text) = texts.and_then(|texts| texts.get("fairtat")) else { return Ok(BTreeMap::new()) };
    serde_json::from_str(text).map_err(|e| format!("its metadata is not JSON: {e}"))
}

struct ArrayView<'a>(&'a Array);

impl View for ArrayView<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        if cfg!(target_endian = "little") {
            return Cow::Borrowed(bytemuck::cast_slice(&self.0.data));
        }
        Cow::Owned(self.0.data.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        self.0.data.len() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Architecture, SHA256};
    use super::*;
    use crate::data::ImageShape;

    fn network() -> Network {
        Architecture::SmallCnn.build(ImageShape::new(3, 8, 8), 4, Some((&[0.5; 3], &[0.25; 3])), Some(4))
    }

    #[test]
    fn initialisation_is_pytorchs_distribution() {
        let network = Architecture::PreActResNet18.build(ImageShape::new(3, 32, 32), 10, None, Some(32));
        let state = State::initialise(&network, 1);
        state.check(&network).unwrap();
        let weight = &state.0["layer3.0.conv2.weight"];
        let bound = 1.0 / (128.0f64 * 9.0).sqrt();
        let n = weight.data.len() as f64;
        assert!(weight.data.iter().all(|v| f64::from(v.abs()) <= bound));
        let variance = weight.data.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
        // Variance of a uniform number is bound²/3; five standard errors of its estimate.
        assert!((variance / (bound * bound / 3.0) - 1.0).abs() < 5.0 * (0.8 / n).sqrt());
        assert!(state.0["bn.weight"].data.iter().all(|v| *v == 1.0));
        assert!(state.0["bn.running_mean"].data.iter().all(|v| *v == 0.0));
        assert_ne!(state, State::initialise(&network, 2));
    }

    #[test]
    fn files_keep_every_bit_and_the_same_state_gives_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let state = State::initialise(&network(), 3);
        let metadata: BTreeMap<_, _> = [("a", "1"), ("b", "ε"), ("c", "")].map(|(k, v)| (k.into(), v.into())).into();
        state.save(&path, &metadata).unwrap();
        let first = std::fs::read(&path).unwrap();
        state.save(&path, &metadata).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());
        let (found, mut facts) = State::load(&path).unwrap();
        assert_eq!(facts.remove(SHA256).unwrap().len(), 64);
        assert_eq!((found, facts), (state, metadata));
    }

    /// Whichever bit of the arrays or of the metadata is flipped. In the header it may also be no header any more, or
    /// hide the checksum, but never change what is read.
    #[test]
    fn a_flipped_bit_is_noticed_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let state = State([("a".into(), Array { shape: vec![2, 3], data: vec![0.5; 6] })].into());
        let metadata = BTreeMap::from([("mean".to_owned(), "[0.5]".to_owned())]);
        state.save(&path, &metadata).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes.len() - header, 24);
        let mut unnoticed = 0;
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &damaged).unwrap();
            match State::load(&path) {
                Err(error) => {
                    let text = error.to_string();
                    assert!(
                        text.contains("the file is damaged: ") && text.contains("restore") || bit / 8 < header,
                        "{text}"
                    );
                }
                Ok((found, facts)) => {
                    assert!(!facts.contains_key(SHA256) || (found == state && facts["mean"] == "[0.5]"), "bit {bit}");
                    unnoticed += usize::from(bit / 8 >= header);
                }
            }
        }
        assert_eq!(unnoticed, 0);
    }

    #[test]
    fn wrong_states_are_named() {
        let network = network();
        let state = State::initialise(&network, 0);
        let broken = |change: &dyn Fn(&mut State)| {
            let mut state = state.clone();
            change(&mut state);
            state.check(&network).unwrap_err().to_string()
        };
        assert!(broken(&|s| drop(s.0.remove("bn2.bias"))).contains("'bn2.bias' [8] is missing"));
        assert!(broken(&|s| drop(s.0.insert("x".into(), Array::zeros(&[1])))).contains("'x' is not part of it"));
        assert!(broken(&|s| s.0.get_mut("bn1.bias").unwrap().shape = vec![2]).contains("shape [2], expected [4]"));
        assert!(broken(&|s| s.0.get_mut("bn1.bias").unwrap().data[0] = f32::NAN).contains("not finite"));
    }

    #[test]
    fn truncated_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let state = State::initialise(&network(), 3);
        state.save(&path, &BTreeMap::new()).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for length in [0, 7, 8, 100, bytes.len() - 1] {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let message = State::load(&path).unwrap_err().to_string();
            assert!(message.contains("a.safetensors") && message.contains("not a whole safetensors file"), "{message}");
        }
    }
}
