//! What an evaluation has computed so far, batch by batch, so that it can be stopped and continued.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::RobustnessError;
use crate::attack::Cost;
use crate::files::{self, write_atomic};

/// The result of an attack on one batch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) predictions: Vec<u32>,
    pub(super) without_gradient: Vec<u32>,
    /// The class that each image was moved towards.
    pub(super) targets: Option<Vec<u32>>,
    /// The images, if they are kept.
    pub(super) images: Option<Vec<f32>>,
    pub(super) cost: Cost,
    pub(super) seconds: f64,
}

#[derive(Serialize, Deserialize)]
struct About {
    cost: Cost,
    seconds: f64,
}

/// Where records are kept.
#[derive(Debug)]
pub(super) enum Store {
    /// Only until the end of the evaluation.
    Memory,
    /// In a directory, one file for each batch.
    Directory {
        /// The directory.
        records: PathBuf,
        /// Held as long as the evaluation runs.
        _lock: File,
    },
}

/// The directory of an unfinished evaluation, within that of its report.
const UNFINISHED: &str = "unfinished";
const DAMAGED: &str = "its plan is damaged";
/// What is being evaluated.
const PLAN: &str = "plan.json";

/// The files and directories of a report.
const OWN: [&str; 11] = [
    "report.json",
    "report.md",
    "report.csv",
    "robustbench.json",
    "corruptions.json",
    "corruptions.csv",
    "labels.npy",
    "images.npy",
    "flags",
    "figures",
    "adversarial",
];

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// No evaluation.
    Nothing,
    /// An unfinished evaluation that would continue.
    Same,
    /// Another unfinished evaluation, with what differs.
    Other(String),
    /// A report, or a file or directory of the name of one of its parts.
    Report,
}

/// What `directory` holds, for an evaluation of which the values in `known` are known ([`super::Options::records_of`]).
pub fn held(directory: &Path, known: &Value) -> Held {
    let plan = directory.join(UNFINISHED).join(PLAN);
    match files::read(&plan) {
        Err(_) if OWN.iter().any(|name| directory.join(name).exists()) => Held::Report,
        Err(_) => Held::Nothing,
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(found) => match difference(&found, known) {
                differs if differs.is_empty() => Held::Same,
                differs => Held::Other(differs),
            },
            Err(_) => Held::Other(DAMAGED.into()),
        },
    }
}

impl Store {
    /// Opens the records below `directory`; none there is a fresh start. `identity` is everything that the records
    /// depend on.
    ///
    /// # Errors
    /// [`RobustnessError::Other`] if there are records of another evaluation, [`RobustnessError::File`] if they cannot be
    /// read.
    pub(super) fn open(directory: &Path, identity: &Value) -> Result<Self, RobustnessError> {
        let unfinished = directory.join(UNFINISHED);
        let plan = unfinished.join(PLAN);
        if plan.exists() {
            let found: Option<Value> = serde_json::from_slice(&files::read(&plan)?).ok();
            if found.as_ref() != Some(identity) {
                let differs = found.as_ref().map_or_else(|| DAMAGED.into(), |found| difference(found, identity));
                return Err(RobustnessError::Other { directory: directory.into(), differs });
            }
        } else {
            // Nobody knows to which evaluation records without a plan belong.
            remove(&unfinished)?;
            std::fs::create_dir_all(&unfinished).map_err(files::FileError::writing(&unfinished))?;
            write_atomic(&plan, &serde_json::to_vec_pretty(identity).unwrap_or_default())?;
        }
        let lock = File::create(unfinished.join("lock")).map_err(files::FileError::writing(&unfinished))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self::Directory { records: unfinished, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(RobustnessError::Busy { directory: directory.into() }),
            // A file system without locks.
            Err(TryLockError::Error(_)) => Ok(Self::Directory { records: unfinished, _lock: lock }),
        }
    }

    fn path(&self, entry: &str, batch: usize) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Directory { records, .. } => Some(records.join(format!("{entry}-{batch:05}.safetensors"))),
        }
    }

    /// The record of a batch of `images` images of `len` values. `None` also if it is cut off or of another
    /// size.
    pub(super) fn load(&self, entry: &str, batch: usize, images: usize, len: usize) -> Option<Record> {
        let bytes = files::read(&self.path(entry, batch)?).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let words = |name: &str| -> Option<Vec<u32>> {
            let view = file.tensor(name).ok().filter(|view| view.dtype() == Dtype::U32)?;
            let values: Vec<u32> = view.data().as_chunks().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
            (values.len() == images).then_some(values)
        };
        let kept = || -> Option<Vec<f32>> {
            let view = file.tensor("images").ok().filter(|view| view.dtype() == Dtype::F32)?;
            let values: Vec<f32> = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (values.len() == images * len).then_some(values)
        };
        let (_, header) = SafeTensors::read_metadata(&bytes).ok()?;
        let about: About = serde_json::from_str(header.metadata().as_ref()?.get("fairtat")?).ok()?;
        Some(Record {
            predictions: words("predictions")?,
            without_gradient: words("without_gradient")?,
            targets: words("targets"),
            images: kept(),
            cost: about.cost,
            seconds: about.seconds,
        })
    }

    /// Keeps the record of a batch.
    pub(super) fn save(&self, entry: &str, batch: usize, record: &Record) -> Result<(), RobustnessError> {
        let Some(path) = self.path(entry, batch) else { return Ok(()) };
        let mut arrays: BTreeMap<&str, Bytes<'_>> = BTreeMap::new();
        arrays.insert("predictions", Bytes::words(&record.predictions));
        arrays.insert("without_gradient", Bytes::words(&record.without_gradient));
        if let Some(targets) = &record.targets {
            arrays.insert("targets", Bytes::words(targets));
        }
        if let Some(images) = &record.images {
            arrays.insert(
                "images",
                Bytes { dtype: Dtype::F32, shape: [images.len()], data: bytemuck::cast_slice(images) },
            );
        }
        let about = About { cost: record.cost, seconds: record.seconds };
        let header = HashMap::from([("fairtat".to_owned(), serde_json::to_string(&about).unwrap_or_default())]);
        let bytes = safetensors::serialize(arrays, Some(header))
            .map_err(|error| RobustnessError::State { path: path.clone(), what: error.to_string() })?;
        Ok(write_atomic(&path, &bytes)?)
    }
}

/// The directories below that of a report in which only evaluations write.
const PARTS: [&str; 3] = ["figures", "flags", "adversarial"];

/// Removes the temporary files that killed evaluations have left in the directories of a report.
pub fn sweep(directory: &Path) {
    PARTS.iter().for_each(|part| files::sweep(&directory.join(part)));
    for path in transfers(directory) {
        files::sweep(&path.join("figures"));
    }
}

/// The directories of the figures of a comparison's attacks.
fn transfers(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.strip_prefix("transfer-").is_some_and(|number| number.parse::<u32>().is_ok())
    };
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).filter(number)
}

/// Removes the records of an evaluation whose report has taken their place.
///
/// # Errors
/// If they cannot be removed.
pub fn finish(directory: &Path) -> Result<(), files::FileError> {
    remove(&directory.join(UNFINISHED))
}

/// Removes a report, and the records of an unfinished evaluation, but nothing else from `directory`.
///
/// # Errors
/// If something cannot be removed.
pub fn clear(directory: &Path) -> Result<(), files::FileError> {
    OWN.iter().try_for_each(|name| remove(&directory.join(name)))?;
    transfers(directory).try_for_each(|path| remove(&path))?;
    // The reports of its checkpoints.
    for path in std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.len() == 2 && name.parse::<u32>().is_ok() && held(&path, &Value::Null) == Held::Report {
            clear(&path)?;
            let _ = std::fs::remove_dir(&path);
        }
    }
    finish(directory)
}

/// Removes a file or a directory if it is there. A directory gets another name first, so that it is never half there.
fn remove(path: &Path) -> Result<(), files::FileError> {
    if path.is_dir() {
        let leaving = path.with_extension("removing");
        let _ = std::fs::remove_dir_all(&leaving);
        std::fs::rename(path, &leaving).map_err(files::FileError::removing(path))?;
        return std::fs::remove_dir_all(&leaving).map_err(files::FileError::removing(path));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(files::FileError::removing(path)(error)),
        _ => Ok(()),
    }
}

/// The first values that differ, with the keys that lead to them.
fn difference(found: &Value, expected: &Value) -> String {
    if !(found.is_object() && expected.is_object()) {
        return DAMAGED.into();
    }
    let mut told = Vec::new();
    compare("", found, expected, &mut told);
    told.truncate(3);
    told.join("; ")
}

fn compare(place: &str, found: &Value, expected: &Value, told: &mut Vec<String>) {
    let short = |value: &Value| {
        let text = value.to_string();
        if text.chars().count() > 60 { format!("{}…", text.chars().take(60).collect::<String>()) } else { text }
    };
    let nothing = Value::Null;
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (key, value) in expected {
                let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                compare(&place, found.get(key).unwrap_or(&nothing), value, told);
            }
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                compare(&format!("{place}[{i}]"), found, expected, told);
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            told.push(format!("{place} had {} entries, now {}", found.len(), expected.len()));
        }
        _ if found == expected => {}
        _ => told.push(format!("{place} was {}, now {}", short(found), short(expected))),
    }
}

struct Bytes<'a> {
    dtype: Dtype,
    shape: [usize; 1],
    data: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn words(values: &'a [u32]) -> Self {
        Self { dtype: Dtype::U32, shape: [values.len()], data: bytemuck::cast_slice(values) }
    }
}

impl View for Bytes<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.data.into()
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn records_survive_and_damaged_ones_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), &json!({"images": 3})).unwrap();
        let path = store.path("pgd", 4).unwrap();
        let record = Record {
            predictions: vec![1, 2, 3],
            without_gradient: vec![0, 1, 0],
            targets: Some(vec![4, 5, 6]),
            images: Some(vec![0.5; 6]),
            cost: Cost { forward: 7, gradient: 9 },
            seconds: 1.25,
        };
        store.save("pgd", 4, &record).unwrap();
        assert_eq!(store.load("pgd", 4, 3, 2), Some(record.clone()));
        assert_eq!((store.load("pgd", 5, 3, 2), store.load("pgd", 4, 2, 2)), (None, None));
        let bytes = std::fs::read(&path).unwrap();
        for end in 0..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            assert_eq!(store.load("pgd", 4, 3, 2), None, "{end} bytes");
        }
        // The same evaluation again, and another one.
        drop(store);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Store::open(dir.path(), &json!({"images": 3})).unwrap().load("pgd", 4, 3, 2), Some(record));
        let error = Store::open(dir.path(), &json!({"images": 4})).unwrap_err().to_string();
        assert!(error.contains("images was 3, now 4"), "{error}");
        let nested = difference(&json!({"a": [{"seed": 0, "b": 1}]}), &json!({"a": [{"seed": 1, "b": 1}]}));
        assert_eq!(nested, "a[0].seed was 0, now 1");
        assert_eq!(difference(&json!({"a": [1]}), &json!({"a": [1, 2]})), "a had 1 entries, now 2");
        // Another process, or another evaluation in this one, is at work.
        let busy = Store::open(dir.path(), &json!({"images": 3})).unwrap();
        let error = Store::open(dir.path(), &json!({"images": 3})).unwrap_err().to_string();
        assert!(error.contains("another evaluation is writing to"), "{error}");
        drop(busy);
        assert_eq!(held(dir.path(), &json!({"images": 3})), Held::Same);
        assert_eq!(held(dir.path(), &json!({"images": 4})), Held::Other("images was 3, now 4".into()));
        finish(dir.path()).unwrap();
        finish(dir.path()).unwrap();
        assert!(!path.exists());
        assert_eq!(held(dir.path(), &json!({"images": 3})), Held::Nothing);
        std::fs::write(dir.path().join("report.json"), "{}").unwrap();
        assert_eq!(held(dir.path(), &json!({"images": 3})), Held::Report);
    }
}
