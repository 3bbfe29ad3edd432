//! Checkpoints: the file that a run resumes from, and the exports for other programs.
//!
//! `resume.safetensors` is a single file, so that it is either complete or absent. It holds all arrays under the
//! prefixes `model.`, `momentum.`, `ema.` and `fawa.`, and everything else as JSON in its header: the progress, the
//! experiment, and the version of this format. `last`, `best`, `ema` and `fawa` hold only arrays under PyTorch's names,
//! each with a `.json` beside it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::binding::HeldOut;
use super::methods::{Memory, ValidationCounts};
use super::{Batches, Hold, ValidationSetting};
use crate::config::Experiment;
use crate::engine::EngineState;
use crate::fairness::{ClassStats, DENSE_CLASSES};
use crate::model::{Array, ModelError, SHA256, State};

/// The state of a run, except its arrays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Checksum of the training images, which must not change during a run.
    pub images: u32,
    /// Checksums of the other images. `None` in files of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
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
            held_out: None,
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

    /// Moves on to the next epoch. Radii that are held by hand stay held.
    pub fn next_epoch(&mut self) {
        let (images, epoch, classes) = (self.images, self.epoch + 1, self.counted.classes());
        let held_out = self.held_out.take();
        let holds = std::mem::take(&mut self.holds);
        let (statistics, best, best_under) = (self.statistics.take(), self.best, self.best_under.take());
        let (validation, memory) = (self.validation.take(), std::mem::take(&mut self.memory));
        let last_sums = std::mem::take(&mut self.sums);
        *self = Self {
            images,
            held_out,
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

    /// Removes what only the method of the epochs before can use.
    pub(super) fn forget_method(&mut self) {
        (self.memory, self.sums, self.last_sums) = Default::default();
        self.validation = self.validation.take().map(|counts| ValidationCounts { costs: None, ..counts });
    }

    /// Checks that a run of `epochs` epochs, each of these batches, with images of `classes` classes can have come this
    /// far.
    ///
    /// # Errors
    /// Returns what is impossible.
    pub(super) fn check(&self, classes: usize, epochs: u32, batches: &Batches) -> Result<(), String> {
        let not_for = |what: &str| Err(format!("its {what} are not for the {classes} classes of the data set"));
        let statistics = [Some(&self.counted), self.statistics.as_ref()];
        if !statistics.into_iter().flatten().all(|statistics| statistics.is_for(classes)) {
            return not_for("statistics");
        }
        let mut counts = self.validation.iter().flat_map(|validation| [&validation.clean, &validation.robust]);
        if counts.any(|counts| counts.classes() != classes || counts.counts().len() != classes * classes) {
            return not_for("counts on the validation split");
        }
        if self.validation.iter().filter_map(|found| found.costs.as_ref()).any(|costs| !costs.is_for(classes)) {
            return not_for("losses on the validation split");
        }
        if !self.holds.is_empty() && self.holds.len() != classes {
            return not_for("radii");
        }
        let (epoch, batch, count) = (self.epoch, self.batch, batches.count());
        if epoch > epochs || batch > count || (epoch == epochs && batch > 0) {
            return Err(format!(
                "it is at epoch {epoch}, batch {batch}, counted from 0, of a run with {epochs} epochs of {count} batches"
            ));
        }
        let images: usize = (0..batch).map(|index| batches.range(index).len()).sum();
        let counted = self.counted.robust.total();
        if counted != images as u64 {
            return Err(format!(
                "it has counted {counted} images in the {images} of the first {batch} batches of its epoch; the batch size \
                 and the images can change between epochs only"
            ));
        }
        if epoch > 0 && (self.statistics.is_none() || self.best.is_none()) {
            return Err(format!("it has no results of the {epoch} epochs before it"));
        }
        if self.best.is_some_and(|(score, best)| !score.is_finite() || best >= epoch) {
            return Err(format!("its best epoch cannot be before epoch {epoch}, counted from 0"));
        }
        let held = self.holds.iter().filter_map(|hold| hold.epsilon);
        if !held.chain(self.seconds).chain([self.loss_sum.abs()]).all(|number| number.is_finite() && number >= 0.0) {
            return Err("its loss, times and radii are not all numbers of at least 0".into());
        }
        Ok(())
    }
}

/// A complete saved run.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Its state apart from the arrays.
    pub progress: Progress,
    /// What it trains, with changes that wait for the next epoch. `None` in files of earlier versions, which have no
    /// checksum either.
    pub experiment: Option<Experiment>,
    /// Parameters, running statistics, momentum.
    pub engine: EngineState,
    /// The exponential moving average, if it has begun.
    pub ema: Option<State>,
    /// The fairness-aware average, if it has begun.
    pub fawa: Option<State>,
}

/// The version of the format. Files without one are of version 1: neither experiment nor checksum.
const FORMAT: u32 = 2;
/// The version with compressed counts, for more than [`DENSE_CLASSES`] classes. Earlier versions of the program then say
/// that they do not know it.
const COMPRESSED: u32 = 3;
/// What to do with a file of a later version.
const LATER_VERSION: &str = "continue with the version of fairtat that wrote it";

/// Whether an error of [`Checkpoint::load`] is that a later version wrote the file.
pub(super) fn is_of_later_version(error: &ModelError) -> bool {
    matches!(error, ModelError::Format { what, .. } if what.ends_with(LATER_VERSION))
}

impl Checkpoint {
    /// The name of the first array that is not finite. A run cannot go on from such a state.
    pub fn not_finite(&self) -> Option<&str> {
        let averages = [&self.ema, &self.fawa].into_iter().flatten();
        [&self.engine.model, &self.engine.momentum].into_iter().chain(averages).find_map(State::not_finite)
    }

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
        let json = |text: Result<String, serde_json::Error>| {
            text.map_err(|e| ModelError::Format { path: path.into(), what: e.to_string() })
        };
        let mut metadata = BTreeMap::from([("progress".to_owned(), json(serde_json::to_string(&self.progress))?)]);
        if let Some(experiment) = &self.experiment {
            metadata.insert("run".into(), json(serde_json::to_string(experiment))?);
            let format = if self.progress.counted.classes() > DENSE_CLASSES { COMPRESSED } else { FORMAT };
            metadata.insert("format".into(), format.to_string());
        }
        State(all).save(path, &metadata)
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// If the file is missing, incomplete or damaged, or was not written by [`Self::save`].
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let fail = |what: String| ModelError::Format { path: path.into(), what };
        let (State(all), metadata) = State::load(path)?;
        let text = |key: &str| metadata.get(key).map(String::as_str);
        let progress = text("progress").ok_or_else(|| fail("it does not hold the progress of a run".into()))?;
        let experiment = match text("format").map_or(Ok(1), str::parse::<u32>) {
            Ok(1) => None,
            Ok(FORMAT | COMPRESSED) if metadata.contains_key(SHA256) => {
                let run = text("run").ok_or_else(|| fail("it is damaged: it does not hold its experiment".into()))?;
                Some(serde_json::from_str(run).map_err(|e| fail(format!("its experiment cannot be read: {e}")))?)
            }
            Ok(FORMAT | COMPRESSED) => return Err(fail("it is damaged: it does not hold its checksum".into())),
            _ => {
                let format = text("format").unwrap_or_default();
                return Err(fail(format!(
                    "its format is {format}, and this program knows those up to {COMPRESSED}: {LATER_VERSION}"
                )));
            }
        };
        let progress = serde_json::from_str(progress).map_err(|e| fail(format!("its progress cannot be read: {e}")))?;
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
        let engine = EngineState { model, momentum };
        Ok(Self { progress, experiment, engine, ema: part("ema"), fawa: part("fawa") })
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

    /// The state of many classes does not grow with the square of their number in the header of the file, and comes back.
    #[test]
    fn the_state_of_many_classes_is_small_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resume.safetensors");
        let save = |classes: usize| {
            let mut progress = Progress::start(classes);
            for i in 0..2 * classes as u32 {
                progress.counted.robust.add(i % classes as u32, i * 7 % classes as u32);
            }
            progress.statistics = Some(progress.counted.clone());
            progress.sums.values("similarity", classes * classes)[1] = 1.0 / 3.0;
            let engine = EngineState { model: State::default(), momentum: State::default() };
            let experiment = Some(Experiment::default());
            Checkpoint { progress, experiment, engine, ema: None, fawa: None }
        };
        for (classes, format) in [(100, FORMAT), (1000, COMPRESSED)] {
            let checkpoint = save(classes);
            let array = Array { shape: vec![1], data: vec![1.0] };
            let model = State(BTreeMap::from([("w".to_owned(), array)]));
            let engine = EngineState { model, momentum: State::default() };
            let checkpoint = Checkpoint { engine, ..checkpoint };
            checkpoint.save(&path).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() < 200_000, "{classes} classes");
            assert_eq!(State::load(&path).unwrap().1["format"], format.to_string());
            assert_eq!(Checkpoint::load(&path).unwrap().progress, checkpoint.progress);
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
        assert_eq!(progress.holds, [hold(Some(0.1), true), hold(Some(0.2), false)]);
        progress.holds.clear();
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
        let experiment = Some(Experiment::preset("digits-60s").unwrap());
        let mut checkpoint = Checkpoint { progress, experiment, engine, ema: Some(state(3.0)), fawa: None };
        checkpoint.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint);
        assert_eq!(checkpoint.not_finite(), None);
        let broken = State([("a.bias".to_owned(), Array { shape: vec![1], data: vec![f32::NEG_INFINITY] })].into());
        (checkpoint.ema, checkpoint.experiment) = (Some(broken), None);
        assert_eq!(checkpoint.not_finite(), Some("a.bias"));
        // As earlier versions wrote it.
        checkpoint.save(&path).unwrap();
        assert_eq!(Checkpoint::load(&path).unwrap(), checkpoint);
        state(1.0).save(&path, &BTreeMap::new()).unwrap();
        assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("does not hold the progress of a run"));
    }

    #[test]
    fn files_of_later_versions_and_incomplete_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resume.safetensors");
        let weights = State([("model.a".to_owned(), Array { shape: vec![1], data: vec![1.0] })].into());
        let progress = serde_json::to_string(&Progress::start(2)).unwrap();
        let run = serde_json::to_string(&Experiment::default()).unwrap();
        let load = |format: &str, run: Option<&str>| {
            let mut metadata =
                BTreeMap::from([("progress".into(), progress.clone()), ("format".into(), format.into())]);
            metadata.extend(run.map(|run| ("run".into(), run.into())));
            weights.save(&path, &metadata).unwrap();
            Checkpoint::load(&path).map_err(|error| error.to_string())
        };
        assert_eq!(load("2", Some(&run)).unwrap().experiment, Some(Experiment::default()));
        for (format, run, expected) in [
            ("4", Some(run.as_str()), "its format is 4, and this program knows those up to 3"),
            ("two", Some(run.as_str()), "its format is two"),
            ("2", None, "does not hold its experiment"),
            ("2", Some("{\"optimizer\":{\"epochs\":"), "its experiment cannot be read"),
        ] {
            let error = load(format, run).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        load("2", Some(&run)).unwrap();
        // One flipped bit in the name of the checksum.
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|name| name == b"sha256").unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Checkpoint::load(&path).unwrap_err().to_string().contains("does not hold its checksum"));
    }

    #[test]
    fn progress_that_no_run_can_have_made_is_refused() {
        let batches = Batches::new(100, 40, crate::config::LastBatch::Keep);
        let mut done = Progress::start(2);
        done.best = Some((1.0, 0));
        done.statistics = Some(ClassStats::new(2));
        done.epoch = 1;
        done.check(2, 3, &batches).unwrap();
        let mut within = done.clone();
        within.batch = 3;
        within.counted.robust.add_counts(&[50, 0, 0, 50]);
        within.check(2, 3, &batches).unwrap();
        let holds = |epsilon| vec![Hold { epsilon, locked: false }; 2];
        for (progress, expected) in [
            (Progress { epoch: 4_000_000_000, ..done.clone() }, "at epoch 4000000000, batch 0"),
            (Progress { epoch: 4, ..done.clone() }, "of a run with 3 epochs of 3 batches"),
            (Progress { batch: 4, ..within.clone() }, "at epoch 1, batch 4"),
            (Progress { epoch: 3, ..within.clone() }, "at epoch 3, batch 3"),
            (Progress { batch: 2, ..within.clone() }, "counted 100 images in the 80 of the first 2 batches"),
            (Progress { batch: 0, ..within.clone() }, "counted 100 images in the 0"),
            (Progress { statistics: None, ..done.clone() }, "no results of the 1 epochs before it"),
            (Progress { best: None, ..done.clone() }, "no results"),
            (Progress { best: Some((1.0, 1)), ..done.clone() }, "best epoch"),
            (Progress { best: Some((f64::INFINITY, 0)), ..done.clone() }, "best epoch"),
            (Progress { loss_sum: f64::NAN, ..done.clone() }, "not all numbers"),
            (Progress { seconds: [1.0, -1.0, 0.0, 0.0], ..done.clone() }, "not all numbers"),
            (Progress { holds: holds(Some(f64::INFINITY)), ..done.clone() }, "not all numbers"),
            (Progress { holds: holds(None)[..1].to_vec(), ..done.clone() }, "its radii are not for the 2 classes"),
            (Progress { counted: ClassStats::new(3), ..done.clone() }, "its statistics are not for the 2 classes"),
        ] {
            let error = progress.check(2, 3, &batches).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
