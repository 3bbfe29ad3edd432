//! PyTorch's file format: a zip archive of stored (not compressed) records, as `torch.save` writes it since version 1.6.
//!
//! `archive/data.pkl` is a pickle of an ordered dictionary from names to tensors. Each tensor refers to a record
//! `archive/data/KEY` with its values. The pickle uses only what `torch.load(weights_only=True)` accepts: protocol 2, the
//! functions `collections.OrderedDict` and `torch._utils._rebuild_tensor_v2`, and the class `torch.FloatStorage`.

use std::io::{self, Cursor, Write};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::{Facts, Names, bytes, check, normalisation};
use crate::files::write_atomic;
use crate::model::network::Network;
use crate::model::state::{Array, ModelError, State};

/// Start of each record's values in the file is a multiple of this, as `torch.load(mmap=True)` expects.
const ALIGNMENT: u16 = 64;

/// Writes the state dict as a `.pth` file, atomically. The order of the names is the order of execution. The same
/// arrays and facts always give the same bytes.
///
/// # Errors
/// [`ModelError::Mismatch`] or [`ModelError::Layers`] if the state does not fit the network; [`ModelError::Format`] if
/// [`Names::Sequential`] is asked for a network without normalisation; [`ModelError::File`] if the file cannot be
/// written.
pub fn save_pth(path: &Path, network: &Network, state: &State, names: Names, facts: &Facts) -> Result<(), ModelError> {
    check(network, Some(state))?;
    let fail = |what: String| ModelError::Format { path: path.into(), what };
    let mut arrays = Vec::new();
    if names == Names::Sequential {
        let Some((mean, std)) = normalisation(network) else {
            return Err(fail(
                "names of a sequence need a network that normalises its images, and this one does not".into(),
            ));
        };
        for (name, values) in [("0.mean", mean), ("0.std", std)] {
            arrays.push((name.to_owned(), Array { shape: vec![1, values.len(), 1, 1], data: values.to_vec() }));
        }
    }
    let prefix = if names == Names::Sequential { "1." } else { "" };
    let specs = network.state_specs().into_iter();
    let own = specs.filter_map(|spec| Some((format!("{prefix}{}", spec.name), state.0.get(&spec.name)?)));
    let arrays: Vec<(String, &Array)> = arrays.iter().map(|(name, array)| (name.clone(), array)).chain(own).collect();
    let file = archive(&arrays, facts).map_err(|error| fail(format!("the archive cannot be written: {error}")))?;
    Ok(write_atomic(path, &file)?)
}

/// The bytes of the file.
fn archive(arrays: &[(String, &Array)], facts: &Facts) -> Result<Vec<u8>, io::Error> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let mut add = |name: &str, bytes: &[u8]| {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .with_alignment(ALIGNMENT)
            .large_file(u32::try_from(bytes.len()).is_err());
        zip.start_file(format!("archive/{name}"), options)?;
        zip.write_all(bytes)
    };
    // PyTorch takes the name of the archive from the first record.
    add("data.pkl", &pickle(arrays))?;
    add("byteorder", b"little")?;
    for (key, (_, array)) in arrays.iter().enumerate() {
        add(&format!("data/{key}"), &bytes(array))?;
    }
    add("extra/fairtat.json", serde_json::to_string(facts).unwrap_or_default().as_bytes())?;
    add("version", b"3\n")?;
    Ok(zip.finish()?.into_inner())
}

/// The ordered dictionary, tensors with the key of their record.
fn pickle(arrays: &[(String, &Array)]) -> Vec<u8> {
    let mut p = Pickle(vec![0x80, 2]);
    p.empty_ordered_dict();
    p.mark();
    for (key, (name, array)) in arrays.iter().enumerate() {
        p.text(name);
        p.tensor(&key.to_string(), &array.shape);
    }
    // SETITEMS
    p.0.push(b'u');
    p.0.push(b'.');
    p.0
}

/// Opcodes of pickle, in the order in which a reader executes them.
struct Pickle(Vec<u8>);

impl Pickle {
    fn mark(&mut self) {
        self.0.push(b'(');
    }

    /// TUPLE of everything since the last mark.
    fn tuple(&mut self) {
        self.0.push(b't');
    }

    fn global(&mut self, module: &str, name: &str) {
        self.0.extend_from_slice(format!("c{module}\n{name}\n").as_bytes());
    }

    /// BINUNICODE. Names are far shorter than its limit of 4 GiB.
    fn text(&mut self, text: &str) {
        self.0.push(b'X');
        self.0.extend_from_slice(&(text.len() as u32).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }

    /// BININT up to its limit, then LONG1 of eight bytes.
    fn integer(&mut self, value: usize) {
        if let Ok(value) = i32::try_from(value) {
            self.0.push(b'J');
            self.0.extend_from_slice(&value.to_le_bytes());
        } else {
            self.0.extend_from_slice(&[0x8a, 8]);
            self.0.extend_from_slice(&(value as i64).to_le_bytes());
        }
    }

    fn integers(&mut self, values: &[usize]) {
        self.mark();
        values.iter().for_each(|value| self.integer(*value));
        self.tuple();
    }

    /// `collections.OrderedDict()`.
    fn empty_ordered_dict(&mut self) {
        self.global("collections", "OrderedDict");
        // EMPTY_TUPLE, REDUCE
        self.0.extend_from_slice(b")R");
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks)` for a whole contiguous record.
    fn tensor(&mut self, key: &str, shape: &[usize]) {
        self.global("torch._utils", "_rebuild_tensor_v2");
        self.mark();
        {
            self.mark();
            self.text("storage");
            self.global("torch", "FloatStorage");
            self.text(key);
            self.text("cpu");
            self.integer(shape.iter().product());
            self.tuple();
            // BINPERSID
            self.0.push(b'Q');
        }
        self.integer(0);
        self.integers(shape);
        self.integers(&strides(shape));
        // NEWFALSE
        self.0.push(0x89);
        self.empty_ordered_dict();
        self.tuple();
        // REDUCE
        self.0.push(b'R');
    }
}

/// Elements between neighbours along each dimension, in row-major order.
fn strides(shape: &[usize]) -> Vec<usize> {
    (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect()
}
