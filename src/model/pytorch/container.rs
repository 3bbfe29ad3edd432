//! The two formats of `torch.save`, and safetensors.
//!
//! Since version 1.6 a checkpoint is a zip archive without compression: `NAME/data.pkl`, and a file `NAME/data/KEY` for
//! each storage. Before, and with `_use_new_zipfile_serialization=False`, it is a sequence: pickles of a magic number,
//! of the version 1001, of the machine, of the object and of the list of storage keys, then for each key the number of
//! elements (8 bytes) and their bytes. Source: `torch/serialization.py`, `_save` and `_legacy_save`.
//!
//! Storages stay where they are: their places in the file are all that is read here, so that a small file that claims
//! much takes little memory.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;

use safetensors::tensor::{Dtype as SafeDtype, SafeTensors, TensorInfo};
use zip::{CompressionMethod, ZipArchive};

use super::super::checksum;
use super::pickle::{Pickle, Value, printable};
use super::tensors::{Dtype, Storage, Tensor, contiguous, storage_of};

/// The longest pickle that is read. Those of whole training states have a few megabytes.
const MAX_PICKLE: usize = 64 << 20;
/// `torch.serialization.MAGIC_NUMBER`, 0x1950a86a20f9469cfc6c, in little-endian order.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// `torch.serialization.PROTOCOL_VERSION`.
const VERSION: i64 = 1001;

/// What to do with a file that is not a state dict.
const SAVE_STATE_DICT: &str = "in Python, save the parameters alone: torch.save(model.state_dict(), 'weights.pth')";

/// A format of a file, from its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// `torch.save` since PyTorch 1.6.
    Zip,
    /// `torch.save` before.
    Legacy,
    /// Everything else.
    SafeTensors,
}

impl Format {
    /// The format of a file that begins with `bytes`, at least nine.
    pub(super) fn of(bytes: &[u8]) -> Self {
        match bytes {
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            // `PROTO` of a pickle and its version. A safetensors file may begin with the same bytes, but has a brace after
            // the eight bytes of its header's length.
            [0x80, 2..=5, ..] if bytes.get(8) != Some(&b'{') => Self::Legacy,
            _ => Self::SafeTensors,
        }
    }
}

/// What a file holds.
#[derive(Debug)]
pub(super) enum Contents<'a> {
    /// An object with tensors in it.
    Pickle(Pickle<'a>, BTreeMap<String, Storage>),
    /// Named arrays, and whether they were compared with a checksum.
    Arrays(BTreeMap<String, Tensor>, bool),
}

/// Reads the structure of a file.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn read(file: &[u8]) -> Result<Contents<'_>, String> {
    match Format::of(file) {
        Format::Zip => archive(file),
        Format::Legacy => legacy(file),
        Format::SafeTensors => safe_tensors(file),
    }
}

fn archive(file: &[u8]) -> Result<Contents<'_>, String> {
    let damaged = |e: zip::result::ZipError| format!("not a whole zip archive ({e}); fetch the file again");
    let mut archive = ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
    let mut entries: BTreeMap<String, Storage> = BTreeMap::new();
    for i in 0..archive.len() {
        let entry = archive.by_index_raw(i).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        if entry.compression() != CompressionMethod::Stored
            || entry.encrypted()
            || entry.size() != entry.compressed_size()
        {
            return Err(format!(
                "'{}' in the archive is compressed or encrypted, which torch.save never does; load it with Python and \
                 save it again",
                printable(&name)
            ));
        }
        let range = entry.data_start().and_then(|start| {
            let start = usize::try_from(start).ok()?;
            let end = start.checked_add(usize::try_from(entry.size()).ok()?)?;
            (end <= file.len()).then_some(start..end)
        });
        let range = range.ok_or_else(|| {
            format!("'{}' of {} bytes reaches beyond the file; fetch the file again", printable(&name), entry.size())
        })?;
        // With `set_crc32_options(False)` PyTorch writes 0.
        let crc = Some(entry.crc32()).filter(|crc| *crc != 0);
        if entries.insert(name.clone(), Storage { range, crc }).is_some() {
            return Err(format!("'{}' is in the archive twice", printable(&name)));
        }
    }
    let pickles: Vec<&str> = entries.keys().filter_map(|name| name.strip_suffix("data.pkl")).collect();
    let [directory] = pickles[..] else {
        return Err(format!(
            "a zip archive with {} files named data.pkl, expected one, as torch.save writes it",
            pickles.len()
        ));
    };
    if entries.keys().any(|name| name.strip_prefix(directory).is_some_and(|name| name.starts_with("code/"))) {
        return Err(format!("a TorchScript program, not a state dict; {SAVE_STATE_DICT}"));
    }
    let bytes_of =
        |name: &str| entries.get(&format!("{directory}{name}")).and_then(|e| Some((e, file.get(e.range.clone())?)));
    if let Some((_, order)) = bytes_of("byteorder")
        && order != b"little"
    {
        return Err(format!("its numbers are {}-endian, expected little", printable(&String::from_utf8_lossy(order))));
    }
    let (entry, bytes) = bytes_of("data.pkl").ok_or("its data.pkl cannot be read")?;
    check_sum(entry, file)?;
    let pickle = pickle(bytes)?;
    let prefix = format!("{directory}data/");
    let storages =
        entries.iter().filter_map(|(name, entry)| Some((name.strip_prefix(&prefix)?.to_owned(), entry.clone())));
    let storages = storages.collect();
    Ok(Contents::Pickle(pickle, storages))
}

/// Compares the bytes of a storage with their check sum, if the file has one.
///
/// # Errors
/// Returns both sums.
pub(super) fn check_sum(storage: &Storage, file: &[u8]) -> Result<(), String> {
    let Some(expected) = storage.crc else { return Ok(()) };
    let mut crc = flate2::Crc::new();
    crc.update(file.get(storage.range.clone()).unwrap_or_default());
    if crc.sum() == expected {
        return Ok(());
    }
    Err(format!("is damaged: expected the check sum {expected:08x}, found {:08x}; fetch the file again", crc.sum()))
}

fn pickle(bytes: &[u8]) -> Result<Pickle<'_>, String> {
    let start = bytes.get(..MAX_PICKLE).unwrap_or(bytes);
    Pickle::read(start).map_err(|what| {
        // The limit, not the file, ends a longer pickle.
        let long = if bytes.len() > MAX_PICKLE && what.contains("more bytes") {
            "; pickles of more than 64 MiB are not read"
        } else {
            ""
        };
        format!("not a checkpoint that can be read: {what}{long}")
    })
}

fn legacy(file: &[u8]) -> Result<Contents<'_>, String> {
    let mut at = 0;
    let mut next = || {
        let pickle = pickle(file.get(at..).unwrap_or_default())?;
        at += pickle.length;
        Ok::<_, String>(pickle)
    };
    let magic = next()?;
    if *magic.get(magic.root()) != Value::Long(&MAGIC) {
        return Err(format!("a pickle that was not written by torch.save; {SAVE_STATE_DICT}"));
    }
    let version = next()?;
    if *version.get(version.root()) != Value::Int(VERSION) {
        return Err(format!("expected version {VERSION} of the format, found {:?}", version.get(version.root())));
    }
    let machine = next()?;
    let little = machine
        .dict(machine.root())
        .unwrap_or_default()
        .iter()
        .find(|(key, _)| machine.text(*key) == Some("little_endian"));
    if little.is_some_and(|(_, value)| *machine.get(*value) == Value::Bool(false)) {
        return Err("its numbers are big-endian, expected little".into());
    }
    let (object, keys) = (next()?, next()?);
    let sizes: HashMap<&str, usize> = object
        .externals()
        .filter_map(|id| storage_of(&object, id).ok())
        .map(|(dtype, key, _)| (key, dtype.size()))
        .collect();
    let mut storages = BTreeMap::new();
    for key in keys.list(keys.root()).ok_or("its list of storages cannot be read")? {
        let key = keys.text(*key).ok_or("the name of a storage is not a text")?;
        let size =
            *sizes.get(key).ok_or_else(|| format!("nothing describes the type of storage '{}'", printable(key)))?;
        let cut = || {
            format!(
                "the file ends within storage '{}' after {} bytes; fetch the file again",
                printable(key),
                file.len()
            )
        };
        let count = file
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map(|bytes| u64::from_le_bytes(*bytes))
            .ok_or_else(cut)?;
        let start = at + 8;
        let end = usize::try_from(count).ok().and_then(|count| start.checked_add(count.checked_mul(size)?));
        let range: Range<usize> = start..end.filter(|end| *end <= file.len()).ok_or_else(cut)?;
        at = range.end;
        storages.insert(key.to_owned(), Storage { range, crc: None });
    }
    Ok(Contents::Pickle(object, storages))
}

fn safe_tensors(file: &[u8]) -> Result<Contents<'_>, String> {
    // PyTorch before 0.1.10 wrote tar archives.
    if file.get(257..262) == Some(b"ustar") {
        return Err("a tar archive, as PyTorch wrote it before 2017; load it with Python and save it again".into());
    }
    let whole = SafeTensors::deserialize(file).and_then(|whole| Ok((whole, SafeTensors::read_metadata(file)?)));
    let (whole, (header, metadata)) = whole.map_err(|e| {
        format!("neither a checkpoint of torch.save nor a whole safetensors file ({e}); found {} bytes", file.len())
    })?;
    let verified = checksum::verify(&whole, &checksum::metadata(&metadata)?)?;
    let tensor = |(name, info): (String, &TensorInfo)| {
        let dtype = match info.dtype {
            SafeDtype::F16 => Dtype::F16,
            SafeDtype::BF16 => Dtype::BF16,
            SafeDtype::F32 => Dtype::F32,
            SafeDtype::F64 => Dtype::F64,
            SafeDtype::I64 => Dtype::Other(8, "int64"),
            _ => Dtype::Other(1, "a type that is not floating point"),
        };
        // Offsets count from the end of the header, which follows its length of eight bytes.
        let (start, end) = info.data_offsets;
        let storage = Storage { range: start + header + 8..end + header + 8, crc: None };
        (name, Tensor { dtype, strides: contiguous(&info.shape), shape: info.shape.clone(), offset: 0, storage })
    };
    Ok(Contents::Arrays(metadata.tensors().into_iter().map(tensor).collect(), verified))
}
