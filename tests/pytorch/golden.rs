//! The files of `tests/golden`, and how far an engine is from them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use fairtat::data::ImageShape;
use fairtat::engine::{Batch, Engine};
use fairtat::model::{Architecture, Array, Network, State};
use safetensors::{Dtype, SafeTensors};

use crate::engines::Tested;

/// The largest relative error that any quantity of any engine may have.
pub(crate) const TOLERANCE: f64 = 1e-4;

#[derive(Debug)]
enum Values {
    Float(Vec<f32>),
    Integer(Vec<i64>),
    Byte(Vec<u8>),
}

/// A golden file in memory.
#[derive(Debug)]
pub(crate) struct Golden {
    name: String,
    arrays: BTreeMap<String, (Vec<usize>, Values)>,
}

/// Where a golden file lies: in the repository, or in the directory that `benches/gpu.sh` names on another machine.
pub(crate) fn path(file: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(root).join("tests/golden").join(file)
}

impl Golden {
    pub(crate) fn load(name: &str) -> Self {
        let bytes = std::fs::read(path(&format!("{name}.safetensors"))).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let array = |(key, tensor): (String, safetensors::tensor::TensorView<'_>)| {
            let data = tensor.data();
            let values = match tensor.dtype() {
                Dtype::F32 => Values::Float(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
                Dtype::I64 => Values::Integer(data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()),
                Dtype::U8 => Values::Byte(data.to_vec()),
                other => panic!("{name}: '{key}' is {other:?}"),
            };
            (key, (tensor.shape().to_vec(), values))
        };
        Self { name: name.into(), arrays: tensors.tensors().into_iter().map(array).collect() }
    }

    fn get(&self, key: &str) -> &(Vec<usize>, Values) {
        self.arrays.get(key).unwrap_or_else(|| panic!("{} has no '{key}'", self.name))
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.arrays.contains_key(key)
    }

    pub(crate) fn shape(&self, key: &str) -> &[usize] {
        &self.get(key).0
    }

    pub(crate) fn floats(&self, key: &str) -> &[f32] {
        match &self.get(key).1 {
            Values::Float(values) => values,
            other => panic!("{}: '{key}' is {other:?}", self.name),
        }
    }

    /// Integers, none of which is negative.
    pub(crate) fn integers<T: TryFrom<i64, Error: std::fmt::Debug>>(&self, key: &str) -> Vec<T> {
        match &self.get(key).1 {
            Values::Integer(values) => values.iter().map(|v| T::try_from(*v).unwrap()).collect(),
            other => panic!("{}: '{key}' is {other:?}", self.name),
        }
    }

    pub(crate) fn bytes(&self, key: &str) -> &[u8] {
        match &self.get(key).1 {
            Values::Byte(values) => values,
            other => panic!("{}: '{key}' is {other:?}", self.name),
        }
    }

    /// The arrays whose names begin with `prefix.`, without it.
    pub(crate) fn state(&self, prefix: &str) -> State {
        let prefix = format!("{prefix}.");
        let within = self.arrays.keys().filter_map(|key| Some((key, key.strip_prefix(&prefix)?)));
        let array = |key: &str| Array { shape: self.shape(key).to_vec(), data: self.floats(key).to_vec() };
        State(within.map(|(key, name)| (name.to_owned(), array(key))).collect())
    }

    /// The numbers `T` of the keys `prefix.T`, ascending.
    pub(crate) fn steps(&self, prefix: &str) -> Vec<u32> {
        let mut steps: Vec<u32> =
            self.arrays.keys().filter_map(|key| key.strip_prefix(prefix)?.strip_prefix('.')?.parse().ok()).collect();
        steps.sort_unstable();
        steps
    }
}

/// A network with eight images, and what PyTorch makes of them.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) golden: Golden,
    pub(crate) network: Network,
    pub(crate) state: State,
    pub(crate) pixels: Vec<u8>,
    pub(crate) labels: Vec<u32>,
}

/// The image ids of a case: its images have no random numbers, but a batch names each of them.
const IDS: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

impl Case {
    pub(crate) fn load(name: &'static str) -> Self {
        let golden = Golden::load(name);
        let network = golden.network(Architecture::from_str(name, false).unwrap(), 10);
        let (pixels, labels) = (golden.bytes("images").to_vec(), golden.integers("labels"));
        Self { network, state: golden.state("state"), pixels, labels, golden }
    }

    pub(crate) fn open(&self, tested: Tested) -> Box<dyn Engine> {
        (tested.open)(self.network.clone(), &self.state)
    }

    /// The first `n` images.
    pub(crate) fn batch(&self, n: usize) -> Batch<'_> {
        let pixels = &self.pixels[..n * self.network.input.len()];
        Batch { pixels, labels: &self.labels[..n], ids: &IDS[..n], augment: None, seed: 0, epoch: 0 }
    }
}

impl Golden {
    /// The network that the file is about.
    pub(crate) fn network(&self, architecture: Architecture, classes: usize) -> Network {
        let [_, channels, height, width] = self.shape("images") else { panic!("{}: images", self.name) };
        let normalisation = Some((self.floats("mean"), self.floats("std")));
        // The file counts the channels after the first convolution; a wide network's first stage is ten times as wide.
        let wide = matches!(architecture, Architecture::WideResNet28x10 | Architecture::WideResNet34x10);
        let stem = self.integers::<usize>("width")[0];
        let stage = if wide { 10 * stem } else { stem };
        architecture.build(ImageShape::new(*channels, *height, *width), classes, normalisation, Some(stage))
    }
}

/// The largest relative error of each quantity, printed at the end.
#[derive(Debug)]
pub(crate) struct Errors {
    subject: String,
    limit: f64,
    largest: BTreeMap<String, f64>,
}

impl Errors {
    /// For `subject`, with a limit for every relative error.
    pub(crate) fn new(subject: impl Into<String>, limit: f64) -> Self {
        assert!(limit <= TOLERANCE);
        Self { subject: subject.into(), limit, largest: BTreeMap::new() }
    }

    /// For an engine on a network.
    pub(crate) fn of(tested: Tested, network: &str) -> Self {
        Self::new(format!("{}, {network}", tested.name), tested.tolerance)
    }

    /// Demands `‖found - expected‖ ≤ limit · ‖expected‖`.
    #[track_caller]
    pub(crate) fn close(&mut self, what: &str, found: &[f32], expected: &[f32]) {
        self.close_f64(what, &wide(found), &wide(expected));
    }

    /// As [`Self::close`], for numbers that are computed in double precision.
    #[track_caller]
    pub(crate) fn close_f64(&mut self, what: &str, found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{}: {what}", self.subject);
        let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let distance = length(&mut found.iter().zip(expected).map(|(a, b)| a - b));
        let error = if distance == 0.0 { 0.0 } else { distance / length(&mut expected.iter().copied()) };
        let (subject, limit) = (&self.subject, self.limit);
        assert!(error <= limit, "{subject}: {what} is off by {error:.2e}, expected at most {limit:.0e}");
        let largest = self.largest.entry(what.to_owned()).or_default();
        *largest = largest.max(error);
    }

    /// [`Self::close`] for every array of `expected`.
    #[track_caller]
    pub(crate) fn close_states(&mut self, what: &str, found: &State, expected: &State) {
        assert!(!expected.0.is_empty(), "{}: {what} has no numbers to compare with", self.subject);
        for (name, array) in &expected.0 {
            assert_eq!(found.0[name].shape, array.shape, "{}: {what} of '{name}'", self.subject);
            self.close(what, &found.0[name].data, &array.data);
        }
    }
}

impl Drop for Errors {
    fn drop(&mut self) {
        for (what, error) in &self.largest {
            println!("{}: {what}: {error:.1e}", self.subject);
        }
    }
}

/// In double precision.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}
