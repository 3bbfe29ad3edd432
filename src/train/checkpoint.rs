//! Checkpoints: the file that a run resumes from, and the exports for other programs.
//!
//! `resume.safetensors` is a single file, so that it is either complete or absent. It holds all arrays under the
//! prefixes `model.`, `momentum.`, `ema.` and `fawa.`, and everything else as JSON in its header. `last`, `best`, `ema`
//! and `fawa` hold only arrays under PyTorch's names, each with a `.json` beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::methods::{Memory, ValidationCounts};
use super::{Hold, ValidationSetting};
use crate::config::Experiment;
use crate::engine::EngineState;
use crate::fairness::ClassStats;
use crate::model::{Array, ModelError, State};

/// The state of a run, except its arrays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Checksum of the training images, which must not change during a run.
    pub images: u32,
    /// Index of the current epoch, or the number of epochs if all are done.
    pub epoch: u32,
    /// The next batch of that epoch.
    pub batch: u32,
    /// The counts of this epoch so far.
    pub counted: ClassStats,
    /// Sum of this epoch's loss over images.
    pub loss_sum: f64,
    /// The statistics that radii and targets come from.
    pub statistics: Option<ClassStats>,
    /// The best validation score (mean + worst robust accuracy) and its epoch.
    pub best: Option<(f64, u32)>,
    /// The validation setting of that score; a score under another setting begins a new comparison. `None` before the
    /// first epoch is done, and in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_under: Option<ValidationSetting>,
    /// Seconds that this epoch has taken so far: all, attack, update, statistics.
    pub seconds: [f64; 4],
    /// Radii set by hand, one entry for each class; empty if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Hold>,
    /// Counts on the validation split before this epoch, if the method needs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<ValidationCounts>,
    /// The state of the method from the epoch before.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub memory: Memory,
    /// What the method summed up over the batches of this epoch so far.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub sums: Memory,
    /// What it summed up over the epoch before.
    #[serde(default, skip_serializing_if = "Memory::is_empty")]
    pub last_sums: Memory,
    /// The experiment that this epoch began with, if a change of the run waits for the next epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub this_epoch: Option<Box<Experiment>>,
}

impl Progress {
    /// The state before the first batch.
    pub fn start(classes: usize) -> Self {
        Self {
            images: 0,
            epoch: 0,
            batch: 0,
            counted: ClassStats::new(classes),
            loss_sum: 0.0,
            statistics: None,
            best: None,
            best_under: None,
            seconds: [0.0; 4],
            holds: Vec::new(),
            validation: None,
            memory: Memory::default(),
            sums: Memory::default(),
            last_sums: Memory::default(),
            this_epoch: None,
        }
    }

    /// Moves on to the next epoch. Releases the radii that are held by hand but not locked.
    pub fn next_epoch(&mut self) {
        let (images, epoch, classes) = (self.images, self.epoch + 1, self.counted.classes());
        let mut holds = std::mem::take(&mut self.holds);
        holds.iter_mut().filter(|hold| !hold.locked).for_each(|hold| hold.epsilon = None);
        if holds.iter().all(|hold| *hold == Hold::default()) {
            holds.clear();
        }
        let (statistics, best, best_under) = (self.statistics.take(), self.best, self.best_under.take());
        let (validation, memory) = (self.validation.take(), std::mem::take(&mut self.memory));
        let last_sums = std::mem::take(&mut self.sums);
        *self = Self {
            images,
            epoch,
            statistics,
            best,
            best_under,
            holds,
            validation,
            memory,
            last_sums,
            ..Self::start(classes)
        };
    }
}

/// A complete saved run.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its state apart from the arrays.
    pub progress: Progress,
    /// Parameters, running statistics, momentum.
    pub engine: EngineState,
    /// The exponential moving average, if it has begun.
    pub ema: Option<State>,
    /// The fairness-aware average, if it has begun.
    pub fawa: Option<State>,
}

const KEY: &str = "progress";

impl Checkpoint {
    /// Writes the checkpoint.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut all = BTreeMap::new();
        let mut add = |prefix: &str, state: &State| {
            all.extend(state.0.iter().map(|(name, array)| (format!("{prefix}.{name}"), array.clone())));
        };
        add("model", &self.engine.model);
        add("momentum", &self.engine.momentum);
        for (prefix, average) in [("ema", &self.ema), ("fawa", &self.fawa)] {
            if let Some(average) = average {
                add(prefix, average);
            }
        }
        let text = serde_json::to_string(&self.progress)
            .map_err(|e| ModelError::Format { path: path.into(), what: e.to_string() })?;
        State(all).save(path, &BTreeMap::from([(KEY.to_owned(), text)]))
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file is missing or incomplete, or was not written by [`Self::save`].
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let fail = |what: String| ModelError::Format { path: path.into(), what };
        let (State(all), metadata) = State::load(path)?;
        let text = metadata.get(KEY).ok_or_else(|| fail("it does not hold the progress of a run".into()))?;
        let progress = serde_json::from_str(text).map_err(|e| fail(format!("its progress cannot be read: {e}")))?;
        let mut parts: BTreeMap<&str, BTreeMap<String, Array>> = BTreeMap::new();
        for (name, array) in all {
            let known = ["model", "momentum", "ema", "fawa"];
            match name.split_once('.').and_then(|(p, rest)| known.iter().find(|k| **k == p).map(|k| (*k, rest))) {
                Some((prefix, rest)) => parts.entry(prefix).or_default().insert(rest.to_owned(), array),
                None => return Err(fail(format!("'{name}' is not part of a run"))),
            };
        }
        let mut part = |prefix| parts.remove(prefix).map(State);
        let model = part("model").ok_or_else(|| fail("it does not hold a model".into()))?;
        let momentum = part("momentum").unwrap_or_default();
        Ok(Self { progress, engine: EngineState { model, momentum }, ema: part("ema"), fawa: part("fawa") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times, losses and scores round-trip exactly: a resumed run must take the same decisions.
    #[test]
    fn numbers_keep_every_bit() {
        let mut random = crate::rng::Stream::new(1, crate::rng::Purpose::Test, 0, 0).sequence();
        for _ in 0..5_000 {
            let value = f64::from(random.word()) * f64::from(random.word()) / f64::from(random.word().max(1)) / 1e9;
            let progress = Progress { loss_sum: value, best: Some((value / 3.0, 0)), ..Progress::start(2) };
            let text = serde_json::to_string(&progress).unwrap();
            assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
        }
    }

    #[test]
    fn what_is_steered_by_hand_takes_no_place_in_other_checkpoints() {
        let plain = serde_json::to_string(&Progress::start(2)).unwrap();
        assert!(plain.ends_with("\"seconds\":[0.0,0.0,0.0,0.0]}"), "{plain}");
        let hold = |epsilon, locked| Hold { epsilon, locked };
        let holds = vec![hold(Some(0.1), true), hold(Some(0.2), false)];
        let mut progress =
            Progress { holds, this_epoch: Some(Box::default()), ..serde_json::from_str(&plain).unwrap() };
        let text = serde_json::to_string(&progress).unwrap();
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), progress);
        progress.next_epoch();
        assert_eq!(progress.holds, [hold(Some(0.1), true), hold(None, false)]);
        progress.holds[0].locked = false;
        progress.next_epoch();
        assert_eq!(serde_json::to_string(&Progress { epoch: 0, ..progress }).unwrap(), plain);
    }

    /// Files of earlier versions do not record the attack of the best score.
    #[test]
    fn files_without_the_setting_of_the_best_score_still_load() {
        let old = Progress { best: Some((1.0 / 3.0, 2)), ..Progress::start(2) };
        let text = serde_json::to_string(&old).unwrap();
        assert!(!text.contains("best_under"), "{text}");
        assert_eq!(serde_json::from_str::<Progress>(&text).unwrap(), old);
        let setting = ValidationSetting::of(&Experiment::default());
        let mut new = Progress { best_under: Some(setting.clone()), ..old };
        assert_eq!(serde_json::from_str::<Progress>(&serde_json::to_string(&new).unwrap()).unwrap(), new);
        new.next_epoch();
        assert_eq!((new.best, new.best_under), (Some((1.0 / 3.0, 2)), Some(setting)));
    }

    #[test]
    fn a_run_at_rest_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resume.safetensors");
        let state = |v: f32| State([("a.weight".to_owned(), Array { shape: vec![2], data: vec![v, -v] })].into());
        let mut progress = Progress { loss_sum: 0.1 + 0.2, best: Some((1.0 / 3.0, 2)), ..Progress::start(3) };
        progress.counted.add_robust(&[0, 1], Some(&[1, 2]), &[1, 1]);
        let engine = EngineState { model: state(1.0), momentum: state(2.0) };
        let checkpoint = Checkpoint { progress, engine, ema: Some(state(3.0)), fawa: None };
        checkpoint.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint);
        state(1.0).save(&path, &BTreeMap::new()).unwrap();
        assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("does not hold the progress of a run"));
    }
}
