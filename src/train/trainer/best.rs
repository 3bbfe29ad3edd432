//! The best checkpoint: the highest validation score among epochs that were validated under one setting.
//!
//! When the setting changes, the best checkpoint so far is kept under its own name and the next epoch starts a new
//! comparison. Files are written in this order: the kept checkpoint, its `.json`, the new best, and with the next
//! checkpoint `resume.safetensors`. If a run is killed in between, its resume finds a `best` that is newer than its
//! progress, and restores the one that the progress records from the kept checkpoints.

use std::path::Path;

use serde_json::{Value, json};

use super::{Note, TrainError, Trainer, Validation};
use crate::config::Experiment;
use crate::model::{ModelError, State};
use crate::train::{Event, KeptBest, Observer, Progress, RunDir, RunDirError, ValidationChange, ValidationSetting};

/// The checkpoint score of CFA and FAIR-TAT, on the validation split instead of the test set.
pub(super) fn score(validation: &Validation) -> f64 {
    validation.robust.confusion.accuracy() + validation.robust.confusion.worst()
}

/// Epoch and validation setting recorded in a checkpoint file.
struct Identity {
    /// The epoch that it was trained to.
    epoch: Option<u32>,
    /// The setting of its run's validation.
    setting: Option<ValidationSetting>,
}

impl Identity {
    fn read(path: &Path) -> Result<Self, ModelError> {
        let (_, metadata) = State::load(path)?;
        let experiment = metadata.get("experiment").and_then(|text| Experiment::from_toml(text, "a checkpoint").ok());
        Ok(Self {
            epoch: metadata.get("epoch").and_then(|epoch| epoch.parse().ok()),
            setting: experiment.map(|experiment| ValidationSetting::of(&experiment)),
        })
    }
}

/// Makes progress and `best` agree before a run continues. Progress that an earlier version wrote does not record the
/// setting of its best score; it is then read from the checkpoint. If a killed run had already begun a new comparison,
/// the best checkpoint of the old one is restored from its kept copy.
pub(super) fn settle(progress: &mut Progress, directory: &RunDir) -> Result<(), TrainError> {
    let Some((score, epoch)) = progress.best else { return Ok(()) };
    // A missing or damaged file is not an error here: the next best epoch rewrites it.
    let found = Identity::read(&directory.checkpoint("best")).ok();
    let found = found.filter(|found| found.epoch == Some(epoch)).and_then(|found| found.setting);
    if progress.best_under.is_none() {
        progress.best_under.clone_from(&found);
    }
    if progress.best_under.is_none() || progress.best_under == found {
        return Ok(());
    }
    for kept in directory.kept_bests().iter().filter(|kept| kept.epoch == epoch && kept.score == Some(score)) {
        if Identity::read(&directory.checkpoint(&kept.name)).is_ok_and(|found| found.setting == progress.best_under) {
            for extension in ["safetensors", "json"] {
                let name = |name: &str| format!("checkpoints/{name}.{extension}");
                directory.write(name("best"), &read(&directory.path().join(name(&kept.name)))?)?;
            }
            break;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, RunDirError> {
    Ok(crate::files::read(path)?)
}

/// What became of the best checkpoint of a comparison that ended.
#[derive(Debug, PartialEq)]
enum Kept {
    /// It is kept under this name.
    As(KeptBest),
    /// There was nothing to keep.
    Nothing,
    /// Its file cannot be read, for this reason.
    Damaged(String),
}

/// Keeps the best checkpoint of a comparison that ended with an epoch as `best-until-epoch-NNNN`. No file is ever
/// overwritten: if two different comparisons ended with the same epoch, the second gets the suffix `-2`, and so on.
/// Nothing is kept if there is no file, or if it already belongs to the comparison under `new`; a damaged one is named.
fn keep(
    directory: &RunDir,
    progress: &Progress,
    old: &ValidationSetting,
    new: &ValidationSetting,
) -> Result<Kept, TrainError> {
    let best = directory.checkpoint("best");
    let Some((score, epoch)) = progress.best.filter(|_| best.exists()) else { return Ok(Kept::Nothing) };
    let (found, bytes) = match Identity::read(&best).and_then(|found| Ok((found, crate::files::read(&best)?))) {
        Ok(read) => read,
        Err(error) => return Ok(Kept::Damaged(error.to_string())),
    };
    // If the file does not record them, it is the one that progress records.
    let (found, setting) = (found.epoch.unwrap_or(epoch), found.setting.unwrap_or_else(|| old.clone()));
    if setting == *new {
        return Ok(Kept::Nothing);
    }
    let until = progress.epoch.saturating_sub(1);
    let described = crate::files::read(&directory.path().join("checkpoints/best.json")).ok();
    let described = described.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    // A run that was killed between writing the two files leaves a description of another epoch.
    let mut description = described.filter(|json| json["epoch"] == found).unwrap_or_else(|| json!({ "epoch": found }));
    if found == epoch {
        description["score"] = score.into();
    }
    description["attack"] = setting.to_string().into();
    description["until_epoch"] = until.into();
    let kept = |name: String| {
        let (attack, score) = (setting.to_string(), description["score"].as_f64());
        Kept::As(KeptBest { name, epoch: found, until_epoch: until, attack, score })
    };
    let first = format!("{}{until:04}", KeptBest::PREFIX);
    let numbered = (2u32..).map(|n| format!("{first}-{n}"));
    for name in std::iter::once(first.clone()).chain(numbered) {
        let json = format!("checkpoints/{name}.json");
        if !directory.path().join(&json).exists() {
            // The description is written last: its presence marks the kept checkpoint as complete.
            directory.write(format!("checkpoints/{name}.safetensors"), &bytes)?;
            directory.write_json(json, &description)?;
            return Ok(kept(name));
        }
        if read(&directory.checkpoint(&name)).is_ok_and(|there| there == bytes) {
            return Ok(kept(name));
        }
    }
    Ok(Kept::Nothing)
}

impl Trainer {
    /// Checks the exported checkpoints of a run that continues, so that it does not fail at its end. `last` and the averages
    /// are written again from the state of the run, and `best` from `last` if that is the best epoch. Otherwise the search
    /// for the best epoch begins again.
    pub(super) fn restore_checkpoints(&mut self) -> Result<(), TrainError> {
        let network = self.engine.network().clone();
        let damage = |directory: &RunDir, name: &str| {
            let path = directory.checkpoint(name);
            let read = State::load(&path).and_then(|(state, _)| state.check(&network));
            let (file, exists) = (path.display().to_string(), path.exists());
            read.err().map(|error| error.to_string()).map(|error| match exists {
                true if error.contains(&file) => error,
                true => format!("{file}: {error}"),
                false => format!("{file} is missing"),
            })
        };
        if self.progress.epoch == 0 {
            return Ok(());
        }
        let trained = self.engine.state()?.model;
        // Within an epoch, `last` is that of the epoch before, and the end of this one replaces it.
        let last = (self.progress.batch == 0).then(|| trained.clone());
        let states = [("last", last), ("ema", self.ema.state().cloned()), ("fawa", self.fawa.state().cloned())];
        for (name, state) in states {
            let (Some(state), Some(what)) = (state, damage(&self.directory, name)) else { continue };
            // The weights belong to the epoch before.
            self.progress.epoch -= 1;
            let written = self.recalibrated(&state).and_then(|state| self.save_model(name, &state, None));
            self.progress.epoch += 1;
            written?;
            self.engine.load_model(&trained)?;
            self.notes.push(Note::Problem(format!("{what}: it was written again from checkpoints/resume.safetensors")));
        }
        let Some((_, best)) = self.progress.best else { return Ok(()) };
        let Some(what) = damage(&self.directory, "best") else { return Ok(()) };
        let last = Identity::read(&self.directory.checkpoint("last")).ok();
        if last.is_some_and(|last| last.epoch == Some(best) && last.setting == self.progress.best_under) {
            let file = |name: &str, extension: &str| format!("checkpoints/{name}.{extension}");
            let of_last = |extension: &str| read(&self.directory.path().join(file("last", extension)));
            self.directory.write(file("best", "safetensors"), &of_last("safetensors")?)?;
            match of_last("json") {
                Ok(description) => self.directory.write(file("best", "json"), &description)?,
                // Nothing depends on it.
                Err(_) => self.directory.write_json(file("best", "json"), &json!({ "epoch": best }))?,
            }
            self.notes
                .push(Note::Problem(format!("{what}: it was written again, because the best epoch is the last one")));
        } else {
            self.progress.best = None;
            self.notes.push(Note::Problem(format!(
                "{what}: the best epoch was {}, from here on others are the best",
                best + 1
            )));
        }
        Ok(())
    }

    /// Compares an epoch with the best one so far, or begins a new comparison if it was validated under another
    /// setting.
    pub(super) fn compare(
        &mut self,
        model: &State,
        validation: &Validation,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let setting = ValidationSetting::of(&self.experiment);
        if let Some(old) = self.progress.best_under.take().filter(|old| *old != setting) {
            let kept = match keep(&self.directory, &self.progress, &old, &setting)? {
                Kept::As(kept) => Some(kept),
                Kept::Nothing => None,
                Kept::Damaged(what) => {
                    let text = format!(
                        "{what}: the best checkpoint until now is lost, and the search for the best epoch begins again with \
                         epoch {}",
                        epoch + 1
                    );
                    observer.event(&Event::Warning(&text));
                    None
                }
            };
            let change = ValidationChange { epoch, old: old.to_string(), new: setting.to_string() };
            let name = kept.as_ref().map(|kept| &kept.name);
            self.directory.log(
                &json!({ "event": "validation", "epoch": epoch, "old": change.old, "new": change.new, "kept": name }),
            )?;
            observer.event(&Event::NewComparison { change: &change, kept: kept.as_ref() });
            self.progress.best = None;
        }
        self.progress.best_under = Some(setting);
        let score = score(validation);
        if self.progress.best.is_none_or(|(best, _)| score > best) {
            self.progress.best = Some((score, epoch));
            self.save_model("best", model, Some(validation))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
