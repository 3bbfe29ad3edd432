//! The checksum of a safetensors file of this program: damage must not change a result without a word.
//!
//! SHA-256 over the metadata of this program, then over name, type, shape and bytes of every array, all in the order of
//! their names and each after its length. It is stored with the metadata, under [`SHA256`].

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Metadata, SafeTensors, View};
use sha2::{Digest, Sha256};

/// The key of the checksum in the metadata of a file.
pub const SHA256: &str = "sha256";

/// The key under which a header holds the metadata of this program, as one JSON text: its own map has no fixed order.
const OWN: &str = "fairtat";

/// The metadata of this program in a header; empty in files of other programs.
///
/// # Errors
/// Returns what is wrong with it.
pub(super) fn metadata(header: &Metadata) -> Result<BTreeMap<String, String>, String> {
    match header.metadata().as_ref().and_then(|texts| texts.get(OWN)) {
        Some(text) => serde_json::from_str(text).map_err(|error| format!("its metadata is not JSON: {error}")),
        None => Ok(BTreeMap::new()),
    }
}

/// Adds `metadata`, with the checksum of a file with it and these arrays, to the texts of a header.
///
/// # Errors
/// As `serde_json`.
pub(super) fn seal<'a, V: View + 'a>(
    texts: &mut HashMap<String, String>,
    metadata: &BTreeMap<String, String>,
    arrays: impl IntoIterator<Item = (&'a str, &'a V)>,
) -> Result<(), serde_json::Error> {
    let mut metadata = metadata.clone();
    metadata.insert(SHA256.to_owned(), checksum(&metadata, arrays));
    texts.insert(OWN.to_owned(), serde_json::to_string(&metadata)?);
    Ok(())
}

/// Compares a file with its checksum. Returns whether it has one.
///
/// # Errors
/// Returns that it is damaged, and what to do.
pub(super) fn verify(file: &SafeTensors<'_>, metadata: &BTreeMap<String, String>) -> Result<bool, String> {
    let Some(expected) = metadata.get(SHA256) else { return Ok(false) };
    let arrays = file.tensors();
    if checksum(metadata, arrays.iter().map(|(name, array)| (name.as_str(), array))) == *expected {
        return Ok(true);
    }
    Err("the file is damaged: its contents do not have the SHA-256 that it records; restore it from a copy, or use \
         another checkpoint"
        .into())
}

fn checksum<'a, V: View + 'a>(
    metadata: &BTreeMap<String, String>,
    arrays: impl IntoIterator<Item = (&'a str, &'a V)>,
) -> String {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    for (key, text) in metadata.iter().filter(|(key, _)| *key != SHA256) {
        add(key.as_bytes());
        add(text.as_bytes());
    }
    let arrays: BTreeMap<_, _> = arrays.into_iter().collect();
    for (name, array) in arrays {
        add(name.as_bytes());
        add(format!("{:?} {:?}", array.dtype(), array.shape()).as_bytes());
        add(&array.data());
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
