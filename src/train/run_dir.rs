//! The directory of a run: all its output, under names that scripts rely on.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::EngineRecord;
use crate::config::{Applies, ConfigError, Experiment, LastBatch};
use crate::data::{read_npy_u64, read_npz_u64, write_npy_u64, write_npz_u64};
use crate::engine::wgsl::KernelTable;
use crate::fairness::{Confusion, DENSE_CLASSES};
use crate::files::{self, FileError, write_atomic};
use crate::lock::{self, DirectoryLock, LockError};

/// What can go wrong with a run directory.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file does not hold what a run writes.
    #[error("{path}: {what}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        what: String,
    },
    /// The directory belongs to another run.
    #[error("{path} already holds a run; continue it with `fairtat resume {path}`, or name another directory")]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds results without the experiment that they belong to.
    #[error("{path} holds results of a run, but not its config.toml: put that back, or name another directory")]
    Leftover {
        /// The directory.
        path: PathBuf,
    },
    /// Another process writes into the directory.
    #[error("{path} is in use by {holder}: wait until that has ended or stop it, or name another directory")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, in words.
        holder: String,
    },
    /// The directory was removed, moved or replaced while a run wrote into it.
    #[error(
        "{path} is no longer the directory of this run, it or its .lock was removed, moved or replaced: put it back and \
         continue with `fairtat resume {path}`"
    )]
    Gone {
        /// The directory.
        path: PathBuf,
    },
    /// A part of the directory is a link.
    #[error("{path} is a link, and a run writes only into its own directory: replace it by a directory or a file")]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// The checkpoint to resume from is missing, and beginning again would overwrite results.
    #[error(
        "{path}/checkpoints/resume.safetensors is missing, and beginning again would overwrite the results of {epochs} epochs: \
         put it back, or train in a new directory with `fairtat train --config {path}/config.toml`"
    )]
    NoCheckpoint {
        /// The directory.
        path: PathBuf,
        /// Epochs that were completed.
        epochs: u32,
    },
    /// The path is a file where a directory is expected.
    #[error("{path} is a file, not a directory")]
    IsFile {
        /// The file.
        path: PathBuf,
    },
    /// The directory holds no run.
    #[error("{path} holds no run: there is no config.toml in it")]
    Empty {
        /// The directory.
        path: PathBuf,
    },
    /// Its config.toml is not a valid experiment.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Algorithm and tile of every convolution, with times if they were measured.
const KERNELS: &str = "kernels.json";
/// The engine that the run began with.
const ENGINE: &str = "engine.json";
/// The experiment that a run began with, if it was changed since.
const BEGIN: &str = "config.begin.toml";

/// The line above the experiment in config.toml.
const SEAL: &str = "# SHA-256 of everything below, which tells a resume whether it is whole: ";

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The best checkpoint of a comparison that ended when the validation attack changed, read from the `.json` beside it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct KeptBest {
    /// Name of the checkpoint, such as `best-until-epoch-0007`.
    #[serde(skip)]
    pub name: String,
    /// Index of the epoch that it was trained to.
    pub epoch: u32,
    /// Index of the last epoch that it was compared with, which is the number in its name.
    pub until_epoch: u32,
    /// Its validation setting, in one line.
    pub attack: String,
    /// Its validation score under that attack: mean + worst robust accuracy.
    pub score: Option<f64>,
}

impl KeptBest {
    /// Prefix of the names of these checkpoints.
    pub const PREFIX: &str = "best-until-epoch-";
}

/// A sentence that counts epochs from 1. File names count from 0, which the sentence states.
impl std::fmt::Display for KeptBest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, epoch, until_epoch, attack, .. } = self;
        write!(f, "the best of the epochs up to {}: epoch {}", until_epoch + 1, epoch + 1)?;
        if let Some(score) = self.score {
            write!(f, ", score {score:.3}")?;
        }
        write!(
            f,
            " (mean + worst class, validation, {attack}), in checkpoints/{name}.safetensors (files count epochs from 0)"
        )
    }
}

/// The name of the counts in a `.npz` file.
const COUNTS: &str = "counts";

/// The directories that a run writes into, below its own.
const PARTS: [&str; 4] = ["checkpoints", "confusion", "figures", "examples"];
/// The log, which is the only file that a run opens to write more into it.
pub(super) const LOG: &str = "log.jsonl";

/// The directory of a run.
///
/// It is written by the one process that has claimed it ([`Self::claim_new`], [`Self::claim_free`], [`Self::claim`]), until
/// the last clone of the claimed value is dropped. Everyone may read it.
#[derive(Debug, Clone)]
pub struct RunDir {
    pub(super) path: PathBuf,
    claim: Option<Arc<DirectoryLock>>,
}

impl RunDir {
    /// The directory at `path`, not claimed yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), claim: None }
    }

    /// Claims the directory at `path` for a new run: creates it, or takes one that exists and holds no run.
    ///
    /// # Errors
    /// [`RunDirError::Taken`], [`RunDirError::Leftover`], [`RunDirError::InUse`], [`RunDirError::IsFile`], or if it cannot
    /// be created.
    pub fn claim_new(path: &Path) -> Result<Self, RunDirError> {
        if path.is_file() {
            return Err(RunDirError::IsFile { path: path.to_path_buf() });
        }
        std::fs::create_dir_all(path).map_err(FileError::writing(path))?;
        let run = Self::at(path).locked()?;
        if run.config_path().exists() {
            return Err(RunDirError::Taken { path: run.path });
        }
        if ["evaluation.json", "metrics.csv", "checkpoints"].iter().any(|name| path.join(name).exists()) {
            return Err(RunDirError::Leftover { path: run.path });
        }
        Ok(run)
    }

    /// Creates and claims `parent/name`, or `parent/name-2` and so on if it exists. A directory that holds only the lock of
    /// a process that was killed before its run began counts as free.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn claim_free(parent: &Path, name: &str) -> Result<Self, RunDirError> {
        std::fs::create_dir_all(parent).map_err(FileError::writing(parent))?;
        for path in numbered(parent, name) {
            match std::fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists && lock::is_all_there_is(&path) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(FileError::writing(&path)(error).into()),
            }
            match Self::claim_new(&path) {
                // Another process has named this directory in the meantime.
                Err(RunDirError::InUse { .. } | RunDirError::Taken { .. }) => {}
                claimed => return claimed,
            }
        }
        Err(RunDirError::Taken { path: parent.join(name) })
    }

    /// Claims the directory of an earlier run to continue it, and removes what killed processes have left there.
    ///
    /// # Errors
    /// [`RunDirError::Empty`], [`RunDirError::InUse`], [`RunDirError::Link`], or if its config cannot be read.
    pub fn claim(path: &Path) -> Result<(Self, Experiment), RunDirError> {
        let (run, _) = Self::open(path)?;
        let run = run.locked()?;
        run.check()?;
        files::sweep(path);
        PARTS.iter().for_each(|part| files::sweep(&path.join(part)));
        // Read after the claim: the process that had it before may have changed it.
        let experiment = run.load_config()?;
        Ok((run, experiment))
    }

    /// Claims the run that a checkpoint file belongs to, to write beside it. `None` if it belongs to none.
    ///
    /// # Errors
    /// [`RunDirError::InUse`], or if the lock cannot be written.
    pub fn claim_of(checkpoint: &Path) -> Result<Option<Self>, RunDirError> {
        let checkpoint = std::path::absolute(checkpoint).map_err(FileError::reading(checkpoint))?;
        let run = checkpoint.parent().filter(|parent| parent.ends_with("checkpoints")).and_then(Path::parent);
        run.map(Self::at).filter(|run| run.config_path().exists()).map(Self::locked).transpose()
    }

    /// This directory, claimed for a new run if it is not yet.
    ///
    /// # Errors
    /// As [`Self::claim_new`].
    pub fn claimed(self) -> Result<Self, RunDirError> {
        if self.claim.is_some() { Ok(self) } else { Self::claim_new(&self.path) }
    }

    fn locked(self) -> Result<Self, RunDirError> {
        let lock = DirectoryLock::take(&self.path).map_err(|error| match error {
            LockError::Held { path, holder } => RunDirError::InUse { path, holder },
            LockError::File(error) => error.into(),
        })?;
        Ok(Self { claim: Some(lock.into()), ..self })
    }

    /// Why other processes are not kept away, if they are not.
    pub fn unprotected(&self) -> Option<String> {
        let lock = self.claim.as_ref().filter(|lock| !lock.keeps_others_away());
        let path = self.path.display();
        lock.map(|_| format!("the file system of {path} has no locks: let no other process use that directory"))
    }

    /// Checks that the directory is still that of the run, and that no part of it is a link to elsewhere.
    ///
    /// # Errors
    /// [`RunDirError::Gone`] or [`RunDirError::Link`].
    pub fn check(&self) -> Result<(), RunDirError> {
        if !self.config_path().exists() || self.claim.as_ref().is_some_and(|lock| !lock.is_in_place()) {
            return Err(RunDirError::Gone { path: self.path.clone() });
        }
        let mut parts = PARTS.iter().chain(&[LOG]).map(|part| self.path.join(part));
        match parts.find(|path| path.is_symlink()) {
            Some(path) => Err(RunDirError::Link { path }),
            None => Ok(()),
        }
    }

    /// Claims a directory and begins a run in it.
    ///
    /// # Errors
    /// As [`Self::claim_new`], or if it cannot be written.
    pub fn create(path: &Path, experiment: &Experiment) -> Result<Self, RunDirError> {
        let run = Self::claim_new(path)?;
        run.begin(experiment, "")?;
        Ok(run)
    }

    /// Begins a run in a claimed directory: writes config.toml, with `comment` at its head: whole lines that each begin
    /// with `#`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, experiment: &Experiment, comment: &str) -> Result<(), RunDirError> {
        if self.claim.as_ref().is_some_and(|lock| !lock.is_in_place()) {
            return Err(RunDirError::Gone { path: self.path.clone() });
        }
        let header = "# Everything that determined this run. `fairtat train --config THIS-FILE` runs it again.\n";
        self.write_config(&format!("{header}{comment}"), experiment)
    }

    /// Rewrites config.toml, from which a resume continues, after a change of a run in progress. The original
    /// experiment is kept as `config.begin.toml`. The fields of the machine (engine, device, adapter) keep their values
    /// in the file.
    ///
    /// # Errors
    /// If it cannot be read or written.
    pub fn change_config(&self, experiment: &Experiment, epoch: u32, batch: u32) -> Result<(), RunDirError> {
        let path = self.config_path();
        let text = files::read(&path)?;
        if !self.path.join(BEGIN).exists() {
            self.write(BEGIN, &text)?;
        }
        let changed = self.load_config()?.with(experiment, &[Applies::Now, Applies::NextEpoch]);
        let header = format!(
            "# The experiment since it was last changed, in epoch {} before batch {} (both counted from 1). The run began \
             with {BEGIN};\n# log.jsonl records every change.\n",
            epoch + 1,
            batch + 1
        );
        self.write_config(&header, &changed)
    }

    /// Writes config.toml: `header`, and the experiment below its checksum.
    fn write_config(&self, header: &str, experiment: &Experiment) -> Result<(), RunDirError> {
        let text = format!("\n{}", experiment.to_toml());
        let text = format!("{header}{SEAL}{}\n{text}", sha256(&text));
        Ok(write_atomic(&self.config_path(), text.as_bytes())?)
    }

    /// Checks that config.toml is whole and as a run wrote it. Without a checkpoint, nothing else records the
    /// experiment, and a part of the file is an experiment as well.
    ///
    /// # Errors
    /// [`RunDirError::Format`].
    pub fn check_config(&self) -> Result<(), RunDirError> {
        let path = self.config_path();
        let text = files::read_to_string(&path)?;
        let intact = match text.split_once(SEAL).and_then(|(_, rest)| rest.split_once('\n')) {
            Some((sum, rest)) => sum == sha256(rest),
            // An earlier version wrote it, or it ends before its checksum.
            None => text.contains("\n[run]"),
        };
        let what = format!(
            "it was cut off or edited, and there is no checkpoint that records the experiment; correct it and begin another \
             run with `fairtat train --config`, or begin this one with it by `fairtat resume {} --accept-changes`",
            self.path.display()
        );
        if intact { Ok(()) } else { Err(RunDirError::Format { path, what }) }
    }

    /// Opens the directory of an earlier run.
    ///
    /// # Errors
    /// [`RunDirError::Empty`], or if its config cannot be read.
    pub fn open(path: &Path) -> Result<(Self, Experiment), RunDirError> {
        let run = Self::at(path);
        if !run.config_path().exists() {
            return Err(RunDirError::Empty { path: run.path });
        }
        let experiment = run.load_config()?;
        Ok((run, experiment))
    }

    fn load_config(&self) -> Result<Experiment, RunDirError> {
        let path = self.config_path();
        let mut experiment = Experiment::load(&path)?;
        let text = files::read_to_string(&path)?;
        if !text.lines().any(|line| line.trim_start().starts_with("last_batch")) {
            // Written before `last_batch` existed: the run keeps the batches that it began with.
            experiment.optimizer.last_batch = LastBatch::Keep;
        }
        Ok(experiment)
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn config_path(&self) -> PathBuf {
        self.path.join("config.toml")
    }

    /// `checkpoints/NAME.safetensors`.
    pub fn checkpoint(&self, name: &str) -> PathBuf {
        self.path.join("checkpoints").join(format!("{name}.safetensors"))
    }

    /// Writes a file below the directory, whole or not at all.
    ///
    /// # Errors
    /// [`RunDirError::File`], or as [`Self::check`].
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), RunDirError> {
        self.check()?;
        let path = self.path.join(name);
        Ok(write_atomic(&path, bytes)?)
    }

    /// Writes a value as indented JSON.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_json(&self, name: impl AsRef<Path>, value: &impl Serialize) -> Result<(), RunDirError> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|e| RunDirError::Format { path: self.path.join(name.as_ref()), what: e.to_string() })?;
        self.write(name, format!("{text}\n").as_bytes())
    }

    /// Writes a value that has entries for each of `classes` classes as JSON: indented up to [`DENSE_CLASSES`] of them,
    /// otherwise on one line.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_class_json(
        &self,
        name: impl AsRef<Path>,
        value: &impl Serialize,
        classes: usize,
    ) -> Result<(), RunDirError> {
        if classes <= DENSE_CLASSES {
            return self.write_json(name, value);
        }
        let text = serde_json::to_string(value)
            .map_err(|e| RunDirError::Format { path: self.path.join(name.as_ref()), what: e.to_string() })?;
        self.write(name, format!("{text}\n").as_bytes())
    }

    /// The file of an epoch's counts below the directory: `confusion/epoch-NNNN-PART.npy` up to [`DENSE_CLASSES`] classes,
    /// otherwise `.npz`, which is compressed.
    pub(super) fn confusion_name(epoch: u32, part: &str, classes: usize) -> String {
        let extension = if classes <= DENSE_CLASSES { "npy" } else { "npz" };
        format!("confusion/epoch-{epoch:04}-{part}.{extension}")
    }

    /// Writes the counts of an epoch, `K × K` with a row for each true class: as `confusion/epoch-NNNN-PART.npy`, or beyond
    /// [`DENSE_CLASSES`] classes as the array `counts` of a compressed `.npz` file.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_confusion(&self, epoch: u32, part: &str, confusion: &Confusion) -> Result<(), RunDirError> {
        let k = confusion.classes();
        let name = Self::confusion_name(epoch, part, k);
        let bytes = if k <= DENSE_CLASSES {
            write_npy_u64(&[k, k], confusion.counts())
        } else {
            write_npz_u64(COUNTS, &[k, k], confusion.counts())
        };
        let bytes = bytes.map_err(|e| RunDirError::Format { path: self.path.join(&name), what: e.to_string() })?;
        self.write(name, &bytes)
    }

    /// The counts of an epoch, of the part `train` or `validation`, from either kind of file. `None` if there is none.
    ///
    /// # Errors
    /// [`RunDirError::Format`] if the file does not hold counts.
    pub fn confusion(&self, epoch: u32, part: &str) -> Result<Option<Confusion>, RunDirError> {
        let plain = self.path.join(format!("confusion/epoch-{epoch:04}-{part}.npy"));
        let compressed = plain.with_extension("npz");
        // Where both are, an earlier version began the epoch that this one trained again.
        let path = if compressed.exists() { compressed } else { plain };
        if !path.exists() {
            return Ok(None);
        }
        let fail = |what: String| RunDirError::Format { path: path.clone(), what };
        let is_compressed = path.extension().is_some_and(|extension| extension == "npz");
        let read = if is_compressed { read_npz_u64(&path, COUNTS) } else { read_npy_u64(&path) };
        let (shape, counts) = read.map_err(|e| fail(e.to_string()))?;
        let confusion = Confusion::from_counts(counts);
        confusion
            .map(Some)
            .ok_or_else(|| fail(format!("expected a table with one row and one column per class, found {shape:?}")))
    }

    /// The kernels that the run computes with, as [`Self::write_kernels`] wrote them. `None` if the file is missing.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn kernels(&self) -> Result<Option<KernelTable>, RunDirError> {
        self.read_json(KERNELS)
    }

    /// A value that [`Self::write_json`] wrote. `None` if the file is missing.
    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, RunDirError> {
        let path = self.path.join(name);
        match files::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(RunDirError::Format { path, what: format!("it is damaged ({error})") }),
            },
            Err(error) if error.cause().kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the kernels of an engine that chooses them.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_kernels(&self, kernels: &KernelTable) -> Result<(), RunDirError> {
        self.write_json(KERNELS, kernels)
    }

    /// The engine that the run began with. `None` in directories of earlier versions.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn engine(&self) -> Result<Option<EngineRecord>, RunDirError> {
        self.read_json(ENGINE)
    }

    /// Records the engine that the run begins with.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_engine(&self, engine: &EngineRecord) -> Result<(), RunDirError> {
        self.write_json(ENGINE, engine)
    }

    /// The best checkpoints of earlier comparisons, which were kept when the validation attack changed, oldest first.
    /// Files that cannot be read are left out.
    pub fn kept_bests(&self) -> Vec<KeptBest> {
        let files = std::fs::read_dir(self.path.join("checkpoints")).into_iter().flatten().flatten();
        let mut kept: Vec<KeptBest> = files
            .filter_map(|file| {
                let name = file.file_name().into_string().ok()?;
                let name = name.strip_suffix(".json").filter(|name| name.starts_with(KeptBest::PREFIX))?;
                let mut kept: KeptBest = serde_json::from_slice(&files::read(&file.path()).ok()?).ok()?;
                kept.name = name.to_owned();
                self.checkpoint(name).exists().then_some(kept)
            })
            .collect();
        kept.sort_by(|a, b| (a.until_epoch, &a.name).cmp(&(b.until_epoch, &b.name)));
        kept
    }

    /// The positions of the checkpoints in the log: completed epochs plus the fraction of the current one. Lines that
    /// cannot be read are left out.
    pub fn logged_checkpoints(&self, batches: u32) -> Vec<f64> {
        let written = self.logged("checkpoint").into_iter();
        let position = |line: serde_json::Value| {
            Some(line["epoch"].as_f64()? + line["batch"].as_f64()? / f64::from(batches.max(1)))
        };
        let mut positions: Vec<f64> = Vec::new();
        for position in written.filter_map(position) {
            // A run that continued from an earlier checkpoint has overwritten what came after it.
            positions.retain(|earlier| *earlier < position);
            positions.push(position);
        }
        positions
    }

    /// Refuses to begin again where a run has left results, although it has no checkpoint to resume from. A run that was
    /// stopped before its first checkpoint may begin again.
    ///
    /// # Errors
    /// [`RunDirError::NoCheckpoint`].
    pub fn check_beginning_again(&self, experiment: &Experiment) -> Result<(), RunDirError> {
        let of_last = files::read(&self.path.join("checkpoints/last.json")).ok();
        let of_last = of_last.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let of_last = of_last.and_then(|json| json["epoch"].as_u64()).map_or(0, |epoch| epoch as u32 + 1);
        let epochs = self.tables().epochs().max(of_last);
        let due = experiment.run.checkpoint_every.min(experiment.optimizer.epochs);
        let finished = self.path.join("evaluation.json").exists();
        if finished || !self.logged_checkpoints(1).is_empty() || epochs >= due {
            return Err(RunDirError::NoCheckpoint { path: self.path.clone(), epochs });
        }
        Ok(())
    }

    /// Cleans up after a run that could not begin: removes config.toml, and the directory if it is empty. Does nothing to
    /// a directory that was not claimed.
    pub fn abandon(self) {
        let Some(lock) = &self.claim else { return };
        // Best effort: the error to report is why the run could not begin.
        let _ = std::fs::remove_file(self.config_path());
        lock.remove();
        let _ = std::fs::remove_dir(&self.path);
    }

    /// The lines of the log about this event. Lines that cannot be read are left out.
    pub(super) fn logged(&self, event: &str) -> Vec<serde_json::Value> {
        let text = files::read(&self.path.join(LOG)).unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        let lines = lines.filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
        lines.filter(|line| line["event"] == event).collect()
    }

    /// Adds a line to `log.jsonl`. Each line is written by one call, so that a killed run leaves only whole lines.
    ///
    /// # Errors
    /// [`RunDirError::File`], or as [`Self::check`].
    pub fn log(&self, line: &serde_json::Value) -> Result<(), RunDirError> {
        self.check()?;
        let path = self.path.join(LOG);
        let write = || {
            files::check_plain(&path)?;
            let mut file = OpenOptions::new().create(true).read(true).append(true).open(&path)?;
            // A full disk may have cut off the last line.
            let mut last = [b'\n'];
            if file.seek(SeekFrom::End(-1)).is_ok() {
                file.read_exact(&mut last)?;
            }
            let begin = if last == [b'\n'] { "" } else { "\n" };
            file.write_all(format!("{begin}{line}\n").as_bytes())
        };
        Ok(write().map_err(FileError::writing(&path))?)
    }
}

/// `parent/name`, `parent/name-2`, `parent/name-3` and so on.
pub(crate) fn numbered(parent: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let more = (2u32..).map(move |n| parent.join(format!("{name}-{n}")));
    std::iter::once(parent.join(name)).chain(more)
}

#[cfg(test)]
mod tests;
