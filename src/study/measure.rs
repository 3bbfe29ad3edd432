//! What a study measures with a trained network: other attacks, corruptions, and the success of targeted attacks.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{MeasuredAttack, Measures, StudyError};
use crate::attack::{self, Attack, AttackError, AttackSettings};
use crate::config::{EngineOptions, Experiment};
use crate::data::Dataset;
use crate::data::corruptions::Corruption;
use crate::engine::{Batch, Engine, Norm};
use crate::evaluate::robustness::{self, CorruptedImages, Options, Plan, Role, corrupted, network_sha256, sha256};
use crate::fairness::Confusion;
use crate::files::{self, write_atomic};
use crate::train::{Matching, Splits, StoredNetwork, evaluation_attack, run_steps};
use crate::units::Epsilon;

/// Directory of these files below that of the study.
pub const MEASURES: &str = "measured";

/// What was measured with one network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What it was measured with: program, weights, images and settings. Other values are measured again.
    pub of: serde_json::Value,
    /// Number of test images.
    pub images: usize,
    /// A row for each attack, then one for each corruption (the mean over its severities), and one for all corruptions.
    pub rows: Vec<MeasuredClasses>,
    /// Success of the attacks on every image towards every other class.
    pub targeted: Option<Targeted>,
    /// Most memory that a process used that trained one short epoch, in bytes; `None` where systems do not say.
    #[serde(default)]
    pub peak_bytes: Option<u64>,
}

/// Accuracy under one attack or corruption.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasuredClasses {
    /// Name in tables.
    pub title: String,
    /// Its settings in one line.
    pub settings: String,
    /// Mean accuracy.
    pub accuracy: f64,
    /// Accuracy of each class; `None` for a class without images.
    pub classes: Vec<Option<f64>>,
    /// Why the accuracy is higher than under a stronger attack.
    pub warning: Option<String>,
}

impl MeasuredClasses {
    /// Accuracy of the worst class.
    pub fn worst(&self) -> f64 {
        self.classes.iter().flatten().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Attacks on every image towards every other class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Targeted {
    /// The attack in one line.
    pub attack: String,
    /// `K × K`, a row for each true class: how many of its images are classified as the class of the column after the
    /// attack towards it. The diagonal is 0.
    pub hits: Vec<Vec<u64>>,
    /// Number of images of each class.
    pub images: Vec<u64>,
    /// CFPS under the untargeted attack of the same radius and steps on the same images.
    pub cfps: Vec<f64>,
    /// Number of images that the untargeted attack makes the network misclassify; CFPS are shares of them.
    pub mistakes: u64,
}

impl Targeted {
    /// Whether every count is there for this number of classes. A file can be damaged and still be JSON.
    pub fn is_of(&self, classes: usize) -> bool {
        let lengths = [self.hits.len(), self.images.len(), self.cfps.len()];
        lengths.into_iter().chain(self.hits.iter().map(Vec::len)).all(|length| length == classes)
    }

    /// Mean success of the attacks on images of `class`, over all targets. `None` without images.
    pub fn from_class(&self, class: usize) -> Option<f64> {
        let tries = self.images[class] * (self.images.len() as u64 - 1);
        (tries > 0).then(|| self.hits[class].iter().sum::<u64>() as f64 / tries as f64)
    }

    /// Mean success of the attacks towards `class`, over the other classes that have images, each class alike.
    pub fn towards_class(&self, class: usize) -> Option<f64> {
        let others = (0..self.images.len()).filter(|k| *k != class && self.images[*k] > 0);
        let rates: Vec<f64> = others.map(|k| self.hits[k][class] as f64 / self.images[k] as f64).collect();
        (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
    }
}

/// What there is of [`measure`] already; `None` if there is nothing, or something else was measured.
pub fn measured(study: &Path, run: &str) -> Option<Measured> {
    serde_json::from_slice(&files::read(&file(study, run)).ok()?).ok()
}

fn file(study: &Path, run: &str) -> PathBuf {
    study.join(MEASURES).join(format!("{run}.json"))
}

/// Measures the checkpoint `weights` of the run in `study/run`, and writes the result beside it. What has been measured
/// before is not measured again. `progress` gets what is at work and the part of it that is done, and stops the work by
/// returning `false`; then the result is `None`, and the finished batches of attacks are kept.
///
/// # Errors
/// If the network, its images or a file cannot be read, or the engine fails.
pub fn measure(
    study: &Path,
    run: &str,
    weights: &str,
    measures: &Measures,
    progress: &mut dyn FnMut(&str, f64) -> bool,
) -> Result<Option<Measured>, StudyError> {
    let checkpoint = study.join(run).join("checkpoints").join(format!("{weights}.safetensors"));
    let failed =
        |error: &dyn std::fmt::Display| StudyError::Directory { path: checkpoint.clone(), what: error.to_string() };
    let of = serde_json::json!({
        "program": concat!("fairtat ", env!("CARGO_PKG_VERSION")),
        "checkpoint_sha256": sha256(&checkpoint)?,
        "measures": Measures { cost: false, ..measures.clone() },
    });
    let known = measured(study, run);
    if let Some(known) = known.as_ref().filter(|known| known.of == of) {
        return Ok(Some(known.clone()));
    }
    let mut stored = StoredNetwork::load(&checkpoint, None).map_err(|error| failed(&error))?;
    stored.experiment.data.test_limit = measures.limit;
    let splits = stored.splits(Matching::default()).map_err(|error| failed(&error))?;
    let options: EngineOptions = stored.experiment.run.engine_options();
    let mut engine = stored.open(&splits, &options).map_err(|error| failed(&error))?;
    let work = Work { stored: &stored, splits: &splits, measures };
    let Some((rows, targeted)) = work.all(engine.as_mut(), study, run, progress)? else { return Ok(None) };
    let peak_bytes = known.and_then(|known| known.peak_bytes);
    let found = Measured { of, images: splits.test.len(), rows, targeted, peak_bytes };
    store(study, run, &found)?;
    robustness::clear(&unfinished(study, run))?;
    let _ = std::fs::remove_dir(unfinished(study, run));
    Ok(Some(found))
}

/// Adds the memory of training to what was measured with a run.
///
/// # Errors
/// If the file cannot be written.
pub fn add_peak(study: &Path, run: &str, peak_bytes: u64) -> Result<(), StudyError> {
    let nothing =
        || Measured { of: serde_json::Value::Null, images: 0, rows: Vec::new(), targeted: None, peak_bytes: None };
    let known = measured(study, run).unwrap_or_else(nothing);
    store(study, run, &Measured { peak_bytes: Some(peak_bytes), ..known })
}

/// Writes what was measured.
fn store(study: &Path, run: &str, found: &Measured) -> Result<(), StudyError> {
    let path = file(study, run);
    let directory = study.join(MEASURES);
    std::fs::create_dir_all(&directory).map_err(files::FileError::writing(&directory))?;
    let bytes =
        serde_json::to_vec_pretty(found).map_err(std::io::Error::from).map_err(files::FileError::writing(&path))?;
    Ok(write_atomic(&path, &bytes)?)
}

/// Directory of the finished batches of attacks.
fn unfinished(study: &Path, run: &str) -> PathBuf {
    study.join(MEASURES).join(run)
}

type Parts = (Vec<MeasuredClasses>, Option<Targeted>);

struct Work<'a> {
    stored: &'a StoredNetwork,
    splits: &'a Splits,
    measures: &'a Measures,
}

impl Work<'_> {
    fn experiment(&self) -> &Experiment {
        &self.stored.experiment
    }

    fn set(&self) -> &Dataset {
        &self.splits.test
    }

    fn all(
        &self,
        engine: &mut dyn Engine,
        study: &Path,
        run: &str,
        progress: &mut dyn FnMut(&str, f64) -> bool,
    ) -> Result<Option<Parts>, StudyError> {
        let Some(mut rows) = self.attacks(engine, study, run, progress)? else { return Ok(None) };
        let corruptions = self.measures.chosen_corruptions().unwrap_or_default();
        if !corruptions.is_empty() {
            let Some(more) = self.corruptions(engine, &corruptions, progress)? else { return Ok(None) };
            rows.extend(more);
        }
        if !self.measures.targeted {
            return Ok(Some((rows, None)));
        }
        Ok(self.targeted(engine, progress)?.map(|targeted| (rows, Some(targeted))))
    }

    fn attacks(
        &self,
        engine: &mut dyn Engine,
        study: &Path,
        run: &str,
        progress: &mut dyn FnMut(&str, f64) -> bool,
    ) -> Result<Option<Vec<MeasuredClasses>>, StudyError> {
        if self.measures.attacks.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let mut plan = Plan::clean();
        let mut titles = Vec::new();
        for wanted in &self.measures.attacks {
            let attack = self.attack(wanted)?;
            plan.add(attack.clone(), Role::Attack);
            titles.push((wanted.title(), attack));
        }
        let directory = unfinished(study, run);
        let identity = serde_json::json!({
            "network": network_sha256(engine.network(), self.stored.state()),
            "engine": engine.describe(),
            "limit": self.measures.limit,
        });
        let options = Options {
            batch_size: self.experiment().evaluation.eval_batch_size,
            directory: Some(directory),
            identity,
            keep_images: false,
        };
        let found = robustness::run(engine, self.set(), &plan, &options, &mut |now| {
            progress(&now.entry.title(), now.done / now.images.max(1) as f64)
        });
        let found = match found {
            // Records of other settings, or of an earlier version.
            Err(robustness::RobustnessError::Other { directory, .. }) => {
                robustness::clear(&directory)?;
                return self.attacks(engine, study, run, progress);
            }
            found => found.map_err(|error| self.failed(&error))?,
        };
        let Some(found) = found else { return Ok(None) };
        let row = |(title, attack): (String, Attack)| {
            let row = found.rows.iter().find(|row| row.entry.suite.is_none() && row.entry.attack == attack)?;
            let confusion = found.confusion(&row.predictions);
            Some(classes(title, attack.to_string(), &confusion, attack.warning()))
        };
        Ok(Some(titles.into_iter().filter_map(row).collect()))
    }

    fn attack(&self, wanted: &MeasuredAttack) -> Result<Attack, StudyError> {
        let run = run_steps(self.experiment());
        let scaled = |factor: f64| run.eval_epsilon.rounded_like(run.eval_epsilon.exact() * factor);
        let epsilon: Option<Epsilon> = wanted.epsilon.or(wanted.epsilon_factor.map(scaled));
        let norm: Option<Norm> = wanted.norm;
        if norm.is_some_and(|norm| norm != run.norm) && wanted.epsilon.is_none() {
            let what = "in another norm than that of the run an attack needs an epsilon of its own";
            return Err(self.failed(&format!("measure.attack '{}': {what}", wanted.title())));
        }
        let settings = AttackSettings {
            norm,
            epsilon,
            steps: wanted.steps,
            queries: wanted.queries,
            restarts: wanted.restarts,
            ..AttackSettings::default()
        };
        let unknown = || self.failed(&format!("there is no attack '{}'", wanted.kind));
        let attack = settings.attack(wanted.kind().ok_or_else(unknown)?, &run);
        attack.check().map_err(|what| self.failed(&format!("measure.attack '{}': {what}", wanted.title())))?;
        Ok(attack)
    }

    fn corruptions(
        &self,
        engine: &mut dyn Engine,
        all: &[Corruption],
        progress: &mut dyn FnMut(&str, f64) -> bool,
    ) -> Result<Option<Vec<MeasuredClasses>>, StudyError> {
        let images = CorruptedImages::Generated(self.set());
        let batch_size = self.experiment().evaluation.eval_batch_size;
        let mut tick = |done: usize, total: usize| progress("corruptions", done as f64 / total.max(1) as f64);
        let found = corrupted(engine, &images, all, 0, None, batch_size, &mut tick);
        let Some(found) = found.map_err(|error| self.failed(&error))? else { return Ok(None) };
        let sum = |corruption: Option<Corruption>| {
            let mut sum = vec![0; self.set().classes() * self.set().classes()];
            for row in found.rows.iter().filter(|row| corruption.is_none_or(|one| row.corruption == one)) {
                sum.iter_mut().zip(row.confusion.counts()).for_each(|(sum, count)| *sum += count);
            }
            Confusion::from_counts(sum).unwrap_or_else(|| Confusion::new(self.set().classes()))
        };
        let of = |corruption: &Corruption| {
            classes(corruption.title().into(), "mean over five severities".into(), &sum(Some(*corruption)), None)
        };
        let mut rows: Vec<MeasuredClasses> = all.iter().map(of).collect();
        if all.len() > 1 {
            let title = format!("mean of {} corruptions", all.len());
            rows.push(classes(title, format!("five severities each, {}", found.source), &sum(None), None));
        }
        Ok(Some(rows))
    }

    fn targeted(
        &self,
        engine: &mut dyn Engine,
        progress: &mut dyn FnMut(&str, f64) -> bool,
    ) -> Result<Option<Targeted>, StudyError> {
        let (set, experiment) = (self.set(), self.experiment());
        let attack = evaluation_attack(experiment, experiment.evaluation.test_steps.max(1));
        let (classes, len, batch_size) = (set.classes(), set.len(), experiment.evaluation.eval_batch_size.max(1));
        let pixels = set.shape().len();
        let measured = attack::measure(engine, set, &attack, batch_size, &mut |_, done| {
            progress("CFPS", done as f64 / len.max(1) as f64)
        });
        let Some(measured) = measured.map_err(|error| self.failed(&error))? else { return Ok(None) };
        // For each target, how many images of each class reach it.
        let mut columns = Vec::new();
        for target in 0..classes {
            let mut column = vec![0; classes];
            let others: Vec<usize> = (0..len).filter(|i| set.labels()[*i] as usize != target).collect();
            for (done, chunk) in others.chunks(batch_size).enumerate() {
                let labels: Vec<u32> = chunk.iter().map(|i| set.labels()[*i]).collect();
                let ids: Vec<u32> = chunk.iter().map(|i| *i as u32).collect();
                let bytes: Vec<u8> =
                    chunk.iter().flat_map(|i| &set.images()[i * pixels..][..pixels]).copied().collect();
                let batch =
                    Batch { pixels: &bytes, labels: &labels, ids: &ids, augment: None, seed: attack.seed, epoch: 0 };
                let title = format!("towards {} of {classes} classes", target + 1);
                let share = (done * batch_size) as f64 / others.len() as f64;
                let mut tick = |_: f64| progress(&title, share);
                let found = match attack.towards(engine, &batch, vec![target as u32; chunk.len()], &mut tick) {
                    Err(AttackError::Stopped) => return Ok(None),
                    found => found.map_err(|error| self.failed(&error))?,
                };
                for (label, prediction) in labels.iter().zip(found) {
                    column[*label as usize] += u64::from(prediction as usize == target);
                }
            }
            columns.push(column);
        }
        let row = |k: usize| columns.iter().map(|column| column[k]).collect();
        Ok(Some(Targeted {
            attack: attack.to_string(),
            hits: (0..classes).map(row).collect(),
            images: (0..classes).map(|k| measured.confusion.of_class(k)).collect(),
            cfps: measured.confusion.cfps(),
            mistakes: measured.confusion.mistakes(),
        }))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> StudyError {
        StudyError::Directory { path: self.stored.file.clone(), what: error.to_string() }
    }
}

fn classes(title: String, settings: String, confusion: &Confusion, warning: Option<String>) -> MeasuredClasses {
    let (accuracy, classes) = (confusion.accuracy(), confusion.measured_class_accuracy());
    MeasuredClasses { title, settings, accuracy, classes, warning }
}
