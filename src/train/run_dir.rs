//! The directory of a run: all its output, under names that scripts rely on.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{ClassRow, EngineRecord, MetricsRow};
use crate::config::{Applies, ConfigError, Experiment, LastBatch, MethodChoice};
use crate::data::write_npy_u64;
use crate::engine::wgsl::KernelTable;
use crate::fairness::Confusion;
use crate::files::{self, FileError, write_atomic};

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

/// The directory of a run.
#[derive(Debug, Clone)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Checks that a directory holds no run.
    ///
    /// # Errors
    /// [`RunDirError::Taken`], or [`RunDirError::IsFile`].
    pub fn check_free(path: &Path) -> Result<(), RunDirError> {
        Self::check_no_file(path)?;
        let run = Self { path: path.to_path_buf() };
        if run.config_path().exists() { Err(RunDirError::Taken { path: run.path }) } else { Ok(()) }
    }

    fn check_no_file(path: &Path) -> Result<(), RunDirError> {
        if path.is_file() { Err(RunDirError::IsFile { path: path.to_path_buf() }) } else { Ok(()) }
    }

    /// Begins a run in a directory that does not exist yet or holds no run.
    ///
    /// # Errors
    /// [`RunDirError::Taken`], or if it cannot be written.
    pub fn create(path: &Path, experiment: &Experiment) -> Result<Self, RunDirError> {
        Self::create_with(path, experiment, "")
    }

    /// As [`Self::create`], with `comment` at the head of config.toml: whole lines that each begin with `#`.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_with(path: &Path, experiment: &Experiment, comment: &str) -> Result<Self, RunDirError> {
        Self::check_free(path)?;
        let run = Self { path: path.to_path_buf() };
        let header = "# Everything that determined this run. `fairtat train --config THIS-FILE` runs it again.\n";
        run.write_config(&format!("{header}{comment}"), experiment)?;
        Ok(run)
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
        self.write("config.toml", format!("{header}{SEAL}{}\n{text}", sha256(&text)).as_bytes())
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
        let run = Self { path: path.to_path_buf() };
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
    /// [`RunDirError::File`].
    pub fn write(&self, name: impl AsRef<Path>, bytes: &[u8]) -> Result<(), RunDirError> {
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

    /// Rewrites `metrics.csv` and `classes.csv`.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_rows(&self, metrics: &[MetricsRow], classes: &[ClassRow]) -> Result<(), RunDirError> {
        self.write_csv("metrics.csv", metrics)?;
        self.write_classes("classes.csv", classes)
    }

    /// Writes the rows, with the columns of every method that the run used after the common ones.
    fn write_classes(&self, name: &str, rows: &[ClassRow]) -> Result<(), RunDirError> {
        let fail = |e: String| RunDirError::Format { path: self.path.join(name), what: e };
        let mut series: Vec<&str> = Vec::new();
        for (column, _) in rows.iter().flat_map(|row| &row.series) {
            if !series.contains(&column.as_str()) {
                series.push(column);
            }
        }
        let mut own = csv::Writer::from_writer(Vec::new());
        rows.iter().try_for_each(|row| own.serialize(row)).map_err(|e| fail(e.to_string()))?;
        let own = own.into_inner().map_err(|e| fail(e.to_string()))?;
        if series.is_empty() {
            return self.write(name, &own);
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(own.as_slice());
        let mut writer = csv::Writer::from_writer(Vec::new());
        for (i, record) in reader.records().enumerate() {
            let mut record = record.map_err(|e| fail(e.to_string()))?;
            for column in &series {
                let value = i.checked_sub(1).and_then(|i| rows[i].series.iter().find(|(name, _)| name == column));
                match (i, value) {
                    (0, _) => record.push_field(column),
                    (_, Some((_, value))) => record.push_field(&value.to_string()),
                    (_, None) => record.push_field(""),
                }
            }
            writer.write_record(&record).map_err(|e| fail(e.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|e| fail(e.to_string()))?;
        self.write(name, &bytes)
    }

    fn write_csv<T: Serialize>(&self, name: &str, rows: &[T]) -> Result<(), RunDirError> {
        let fail = |e: String| RunDirError::Format { path: self.path.join(name), what: e };
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in rows {
            writer.serialize(row).map_err(|e| fail(e.to_string()))?;
        }
        let bytes = writer.into_inner().map_err(|e| fail(e.to_string()))?;
        self.write(name, &bytes)
    }

    /// Reads both tables; empty if they do not exist yet.
    ///
    /// # Errors
    /// [`RunDirError::Format`] with line and column.
    pub fn read_rows(&self) -> Result<(Vec<MetricsRow>, Vec<ClassRow>), RunDirError> {
        Ok((self.read_csv("metrics.csv")?, self.read_classes("classes.csv")?))
    }

    /// Checks a file like `metrics.csv` or, if `classes`, like `classes.csv`, under any name.
    pub(crate) fn check_rows(path: &Path, classes: bool) -> Result<(), RunDirError> {
        let run = Self { path: path.parent().unwrap_or(Path::new("")).to_path_buf() };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        match classes {
            true => run.read_classes(&name).map(|_| ()),
            false => run.read_csv::<MetricsRow>(&name).map(|_| ()),
        }
    }

    fn read_classes(&self, name: &str) -> Result<Vec<ClassRow>, RunDirError> {
        let mut rows: Vec<ClassRow> = self.read_csv(name)?;
        if rows.is_empty() {
            return Ok(rows);
        }
        let path = self.path.join(name);
        let fail = |e: csv::Error| RunDirError::Format { path: path.clone(), what: e.to_string() };
        let bytes = files::read(&path)?;
        let mut reader = csv::Reader::from_reader(bytes.as_slice());
        let columns = reader.headers().map_err(fail)?.clone();
        let known = MethodChoice::value_variants().iter().flat_map(|method| method.about().series);
        let known: Vec<&str> = known.map(|series| series.name).collect();
        for (row, record) in rows.iter_mut().zip(reader.records()) {
            let record = record.map_err(fail)?;
            for (column, value) in columns.iter().zip(&record).filter(|(column, _)| known.contains(column)) {
                if let Ok(value) = value.parse() {
                    row.series.push((column.to_owned(), value));
                }
            }
        }
        Ok(rows)
    }

    fn read_csv<T: DeserializeOwned>(&self, name: &str) -> Result<Vec<T>, RunDirError> {
        let path = self.path.join(name);
        if !path.exists() {
            return Ok(Vec::new());
        }
        let fail = |e: csv::Error| RunDirError::Format { path: path.clone(), what: e.to_string() };
        let bytes = files::read(&path)?;
        csv::Reader::from_reader(bytes.as_slice()).deserialize().map(|row| row.map_err(fail)).collect()
    }

    /// Writes the counts of an epoch as `confusion/epoch-NNNN-PART.npy`: true class × prediction.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_confusion(&self, epoch: u32, part: &str, confusion: &Confusion) -> Result<(), RunDirError> {
        let name = format!("confusion/epoch-{epoch:04}-{part}.npy");
        let k = confusion.classes();
        let bytes = write_npy_u64(&[k, k], confusion.counts())
            .map_err(|e| RunDirError::Format { path: self.path.join(&name), what: e.to_string() })?;
        self.write(name, &bytes)
    }

    /// The counts on the validation split in the last of `epochs` epochs; empty if there are none.
    ///
    /// # Errors
    /// [`RunDirError::Format`] if the file does not hold counts.
    pub fn last_confusion(&self, epochs: usize) -> Result<Vec<u64>, RunDirError> {
        let Some(epoch) = epochs.checked_sub(1) else { return Ok(Vec::new()) };
        let path = self.path.join(format!("confusion/epoch-{epoch:04}-validation.npy"));
        let fail = |e: crate::data::DataError| RunDirError::Format { path: path.clone(), what: e.to_string() };
        Ok(crate::data::read_npy_u64(&path).map_err(fail)?.1)
    }

    /// The counts of an epoch, of the part `train` or `validation`. `None` if the file is missing.
    ///
    /// # Errors
    /// [`RunDirError::Format`] if the file does not hold counts.
    pub fn confusion(&self, epoch: u32, part: &str) -> Result<Option<Confusion>, RunDirError> {
        let path = self.path.join(format!("confusion/epoch-{epoch:04}-{part}.npy"));
        if !path.exists() {
            return Ok(None);
        }
        let fail = |what: String| RunDirError::Format { path: path.clone(), what };
        let (shape, counts) = crate::data::read_npy_u64(&path).map_err(|e| fail(e.to_string()))?;
        let confusion = Confusion::from_counts(counts);
        confusion
            .map(Some)
            .ok_or_else(|| fail(format!("expected a table with one row and one column per class, found {shape:?}")))
    }

    /// The kernels that the run computes with, as [`Self::write_kernels`] wrote them. `None` if the file is missing or
    /// cannot be read: they are then chosen again.
    pub fn kernels(&self) -> Option<KernelTable> {
        serde_json::from_slice(&files::read(&self.path.join(KERNELS)).ok()?).ok()
    }

    /// Writes the kernels of an engine that chooses them.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn write_kernels(&self, kernels: &KernelTable) -> Result<(), RunDirError> {
        self.write_json(KERNELS, kernels)
    }

    /// The engine that the run began with. `None` in directories of earlier versions, or if the file cannot be read.
    pub fn engine(&self) -> Option<EngineRecord> {
        serde_json::from_slice(&files::read(&self.path.join(ENGINE)).ok()?).ok()
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
        let text = files::read_to_string(&self.path.join("log.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let written = lines.filter(|line| line["event"] == "checkpoint");
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

    /// Cleans up after a run that could not begin: removes config.toml, and the directory if it is empty.
    pub fn abandon(self) {
        // Best effort: the error to report is why the run could not begin.
        let _ = std::fs::remove_file(self.config_path());
        let _ = std::fs::remove_dir(&self.path);
    }

    /// Adds a line to `log.jsonl`. Each line is written by one call, so that a killed run leaves only whole lines.
    ///
    /// # Errors
    /// [`RunDirError::File`].
    pub fn log(&self, line: &serde_json::Value) -> Result<(), RunDirError> {
        let path = self.path.join("log.jsonl");
        let write = || {
            std::fs::create_dir_all(&self.path)?;
            OpenOptions::new().create(true).append(true).open(&path)?.write_all(format!("{line}\n").as_bytes())
        };
        Ok(write().map_err(FileError::writing(&path))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_checkpoint_says_which_epochs_it_was_compared_with() {
        let kept = KeptBest {
            name: "best-until-epoch-0001".into(),
            epoch: 1,
            until_epoch: 1,
            attack: "PGD-10, ε 2/255".into(),
            score: Some(0.3),
        };
        assert_eq!(
            kept.to_string(),
            "the best of the epochs up to 2: epoch 2, score 0.300 (mean + worst class, validation, PGD-10, ε 2/255), in \
             checkpoints/best-until-epoch-0001.safetensors (files count epochs from 0)"
        );
    }

    /// 225 of 1,103 prefixes of a config.toml are another experiment: fields that are missing have their defaults.
    #[test]
    fn no_part_of_a_config_passes_for_the_whole() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), &Experiment::preset("cifar10-paper").unwrap()).unwrap();
        run.check_config().unwrap();
        let text = std::fs::read_to_string(run.config_path()).unwrap();
        for length in 0..text.len() {
            std::fs::write(run.config_path(), &text[..length]).unwrap();
            assert!(run.check_config().is_err(), "{length} bytes");
        }
        std::fs::write(run.config_path(), text.replace("seed = 0", "seed = 1")).unwrap();
        let error = run.check_config().unwrap_err().to_string();
        assert!(
            error.contains("config.toml: it was cut off or edited") && error.contains("--accept-changes"),
            "{error}"
        );
        // As an earlier version wrote it.
        let earlier: Vec<&str> = text.lines().filter(|line| !line.starts_with(SEAL)).collect();
        std::fs::write(run.config_path(), earlier.join("\n")).unwrap();
        run.check_config().unwrap();
        // After a change of the run in progress.
        let mut changed = Experiment::preset("cifar10-paper").unwrap();
        changed.optimizer.lr = 0.5;
        run.change_config(&changed, 1, 2).unwrap();
        run.check_config().unwrap();
        assert_eq!(run.load_config().unwrap().optimizer.lr, 0.5);
    }

    /// Tables and directories of earlier versions have fewer columns and files.
    #[test]
    fn what_an_earlier_version_left_still_reads() {
        let dir = tempfile::tempdir().unwrap();
        let experiment = Experiment::default();
        let run = RunDir::create(dir.path(), &experiment).unwrap();
        let header = "epoch,lr,train_loss,train_clean_accuracy,train_robust_accuracy,val_clean_accuracy,val_clean_worst,\
                      val_robust_accuracy,val_robust_worst,seconds,seconds_attack,seconds_update,seconds_statistics";
        run.write("metrics.csv", format!("{header}\n0,0.1,2,,0.5,0.6,0.3,0.4,0.2,1,0.7,0.2,0.1\n").as_bytes()).unwrap();
        let (metrics, _) = run.read_rows().unwrap();
        assert_eq!((metrics[0].val_attack.as_str(), metrics[0].val_without_gradient), ("", None));
        // The validation attack is then known from the experiment alone.
        assert!(metrics[0].validation_attack(&experiment).starts_with("PGD-10, L∞, ε 8/255"));
        assert!(run.engine().is_none() && run.kept_bests().is_empty());

        let new = MetricsRow {
            epoch: 1,
            val_attack: "PGD-10, \"x\"".into(),
            val_without_gradient: Some(3),
            ..metrics[0].clone()
        };
        run.write_rows(&[metrics[0].clone(), new.clone()], &[]).unwrap();
        assert_eq!(run.read_rows().unwrap().0, [metrics[0].clone(), new]);
    }
}
