//! Runs a [`Plan`].

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::files::ImageFile;
use super::result::{Evaluation, Row, TargetCount};
use super::state::{Record, Store};
use super::{Described, Entry, Plan, RobustnessError, signals};
use crate::attack::{Attack, AttackError, AttackKind, Cost, Predictions};
use crate::data::Dataset;
use crate::engine::{Batch, Engine};
use crate::files::FileError;
use crate::model::{Network, State};

/// How an evaluation is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Images that are attacked at once. Results do not depend on it beyond rounding.
    pub batch_size: usize,
    /// Directory of the report, where finished batches are stored; without one, a stopped evaluation begins anew.
    pub directory: Option<PathBuf>,
    /// Everything that identifies the network, the images and the program, so that records of another evaluation are
    /// never mixed in.
    pub identity: Value,
    /// Whether every attack's images are written to `directory`.
    pub keep_images: bool,
}

impl Options {
    /// Everything that the records of an evaluation depend on.
    pub fn records_of(&self, plan: &Plan) -> Value {
        let mut identity = self.identity.clone();
        if let Some(map) = identity.as_object_mut() {
            map.insert("attacks".into(), serde_json::to_value(plan).unwrap_or_default());
            map.insert("batch_size".into(), self.batch_size.into());
            map.insert("keep_images".into(), self.keep_images.into());
        }
        identity
    }
}

/// What identifies the network, the images and the program of an evaluation ([`Options::identity`]); `limit` is the
/// number of images that the user chose.
pub fn identity(described: &Described, set: &Dataset, limit: Option<usize>) -> Value {
    let mut images = Sha256::new();
    images.update(set.images());
    set.labels().iter().for_each(|label| images.update(label.to_le_bytes()));
    set.class_names().iter().for_each(|name| images.update(format!("{name}\n")));
    serde_json::json!({
        "program": described.program,
        "checkpoint_sha256": described.checkpoint_sha256,
        "network_sha256": described.network_sha256,
        "engine": described.engine,
        "images_sha256": hex(&images.finalize()),
        "limit": limit,
    })
}

/// SHA-256 of a network as it runs: its layers with their normalisation, and its weights.
pub fn network_sha256(network: &Network, state: &State) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{:?}", network.layers));
    for (name, array) in &state.0 {
        digest.update(format!("{name} {:?}\n", array.shape));
        array.data.iter().for_each(|value| digest.update(value.to_le_bytes()));
    }
    hex(&digest.finalize())
}

/// SHA-256 of a file.
///
/// # Errors
/// If it cannot be read.
pub fn sha256(path: &Path) -> Result<String, FileError> {
    Ok(hex(&Sha256::digest(crate::files::read(path)?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where an evaluation is.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The attack.
    pub entry: &'a Entry,
    /// Its number, from 0, and that of all.
    pub number: [usize; 2],
    /// Images that it attacks.
    pub images: usize,
    /// How many of them are done; the batch at work counts in part.
    pub done: f64,
    /// How many images have withstood it or are still to come.
    pub standing: usize,
}

/// Runs the attacks of `plan` on all images of `set`. `progress` is called between passes of the network, and stops the
/// work by returning `false`; then the result is `None`. Finished batches are kept until [`super::finish`].
///
/// # Errors
/// If the engine fails, or a file cannot be read or written.
pub fn run(
    engine: &mut dyn Engine,
    set: &Dataset,
    plan: &Plan,
    options: &Options,
    progress: &mut dyn FnMut(Progress<'_>) -> bool,
) -> Result<Option<Evaluation>, RobustnessError> {
    let store = match &options.directory {
        None => Store::Memory,
        Some(directory) => Store::open(directory, &options.records_of(plan))?,
    };
    let plan = &plan.for_classes(set.classes());
    let kept = options.directory.as_deref().filter(|_| options.keep_images);
    let mut runner = Runner { engine, set, store, batch_size: options.batch_size.max(1), kept };
    let mut evaluation = Evaluation::new(set);
    let mut images = kept.map(|_| Images::new(set));
    for (number, entry) in plan.entries.iter().enumerate() {
        let before = evaluation.before(entry, number).to_vec();
        let at = [number, plan.entries.len()];
        let Some((row, found)) = runner.entry(entry, at, &before, progress)? else { return Ok(None) };
        if let (Some(images), Some(directory)) = (&mut images, kept) {
            images.take(&row, set.labels(), found.unwrap_or_default(), directory)?;
        }
        evaluation.rows.push(row);
    }
    if let (Some(images), Some(directory)) = (&mut images, kept) {
        images.finish(&evaluation, directory)?;
        ImageFile::create(directory, "images", set.shape(), set.len())?.write_all(&scaled(set))?;
        let told = evaluation.recomputed(runner.engine, directory, runner.batch_size)?;
        told.into_iter().for_each(|told| evaluation.warnings.push(told));
    }
    evaluation.attack_warnings = plan.entries.iter().filter_map(|entry| entry.attack.warning()).collect();
    let told = signals(runner.engine, set, &evaluation, runner.batch_size)?;
    evaluation.warnings.extend(told);
    Ok(Some(evaluation))
}

/// The images of a set in `[0, 1]`.
fn scaled(set: &Dataset) -> Vec<f32> {
    let ids: Vec<u32> = (0..set.len() as u32).collect();
    let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 0, epoch: 0 };
    batch.prepare(set.shape())
}

struct Runner<'a> {
    engine: &'a mut dyn Engine,
    set: &'a Dataset,
    store: Store,
    batch_size: usize,
    kept: Option<&'a Path>,
}

/// The images that an attack has found, by number.
type Found = Vec<(usize, Vec<f32>)>;

impl Runner<'_> {
    /// Runs one attack on the images that its suite has left, or on all. `before` are the predictions so far.
    fn entry(
        &mut self,
        entry: &Entry,
        number: [usize; 2],
        before: &[u32],
        progress: &mut dyn FnMut(Progress<'_>) -> bool,
    ) -> Result<Option<(Row, Option<Found>)>, RobustnessError> {
        let labels = self.set.labels();
        // A misclassified image needs no attack; those of the engine attack every image nevertheless.
        let all = entry.suite.is_none() && entry.attack.kind.runs_in_engine();
        let attacked: Vec<usize> = (0..self.set.len()).filter(|i| all || before[*i] == labels[*i]).collect();
        let mut row = Row {
            entry: entry.clone(),
            attacked: attacked.len() as u64,
            predictions: before.to_vec(),
            without_gradient: 0,
            targets: None,
            cost: Cost::default(),
            seconds: 0.0,
        };
        let mut found = self.kept.map(|_| Found::new());
        let (mut done, mut fallen) = (0, 0);
        for (number_of_batch, images) in attacked.chunks(self.batch_size).enumerate() {
            let place = |share: f64| Progress {
                entry,
                number,
                images: attacked.len(),
                done: done as f64 + share * images.len() as f64,
                standing: attacked.len() - fallen,
            };
            let len = self.set.shape().len();
            let stored = self.store.load(&entry.name, number_of_batch, images.len(), len);
            let stored = stored.filter(|record| self.kept.is_none() || record.images.is_some());
            let record = match stored {
                Some(record) => record,
                None => {
                    let begun = Instant::now();
                    let mut tick = |share| progress(place(share));
                    let keep = self.kept.is_some();
                    let found = match attack_images(self.engine, self.set, &entry.attack, images, keep, &mut tick) {
                        Ok(found) => found,
                        Err(AttackError::Stopped) => return Ok(None),
                        Err(AttackError::Engine(error)) => return Err(error.into()),
                    };
                    let record = Record {
                        predictions: found.predictions,
                        without_gradient: found.without_gradient.iter().map(|without| u32::from(*without)).collect(),
                        targets: found.targets,
                        images: found.images,
                        cost: found.cost,
                        seconds: begun.elapsed().as_secs_f64(),
                    };
                    self.store.save(&entry.name, number_of_batch, &record)?;
                    record
                }
            };
            for (i, prediction) in images.iter().zip(&record.predictions) {
                row.predictions[*i] = *prediction;
                fallen += usize::from(*prediction != labels[*i]);
            }
            row.without_gradient += record.without_gradient.iter().map(|without| u64::from(*without != 0)).sum::<u64>();
            if let Some(targets) = &record.targets {
                let hit = targets.iter().zip(&record.predictions).filter(|(target, found)| target == found).count();
                let count = row.targets.get_or_insert(TargetCount { hit: 0, images: 0 });
                (count.hit, count.images) = (count.hit + hit as u64, count.images + targets.len() as u64);
            }
            row.cost += record.cost;
            row.seconds += record.seconds;
            if let (Some(found), Some(values)) = (&mut found, record.images) {
                found.extend(images.iter().copied().zip(values.chunks(len).map(<[f32]>::to_vec)));
            }
            done += images.len();
            let after = Progress {
                entry,
                number,
                images: attacked.len(),
                done: done as f64,
                standing: attacked.len() - fallen,
            };
            if !progress(after) {
                return Ok(None);
            }
        }
        Ok(Some((row, found)))
    }
}

/// Runs an attack on some images of a set, by number.
pub(super) fn attack_images(
    engine: &mut dyn Engine,
    set: &Dataset,
    attack: &Attack,
    images: &[usize],
    keep_images: bool,
    tick: &mut dyn FnMut(f64) -> bool,
) -> Result<Predictions, AttackError> {
    let ids: Vec<u32> = images.iter().map(|i| *i as u32).collect();
    let labels: Vec<u32> = images.iter().map(|i| set.labels()[*i]).collect();
    let pixels: Vec<u8> = images.iter().flat_map(|i| set.image(*i).iter().copied()).collect();
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: attack.seed, epoch: 0 };
    if attack.kind == AttackKind::Clean && !tick(0.0) {
        return Err(AttackError::Stopped);
    }
    attack.run(engine, &batch, keep_images, tick)
}

/// The images of every attack, and those of the worst case.
struct Images {
    len: usize,
    shape: crate::data::ImageShape,
    clean: Vec<f32>,
    /// The images of the suite at work, with its name.
    suite: Option<(super::Suite, Vec<f32>)>,
    worst: Vec<f32>,
    fallen: Vec<bool>,
}

impl Images {
    fn new(set: &Dataset) -> Self {
        let clean = scaled(set);
        Self {
            len: set.shape().len(),
            shape: set.shape(),
            worst: clean.clone(),
            clean,
            suite: None,
            fallen: vec![false; set.len()],
        }
    }

    /// Writes the images of an attack, those of its suite so far where it did not attack.
    fn take(&mut self, row: &Row, labels: &[u32], found: Found, directory: &Path) -> Result<(), RobustnessError> {
        let mut images = match (&mut self.suite, row.entry.suite) {
            (Some((at_work, images)), Some(suite)) if *at_work == suite => std::mem::take(images),
            _ => self.clean.clone(),
        };
        let counts = row.entry.role.counts();
        for (i, image) in found {
            images[i * self.len..][..self.len].copy_from_slice(&image);
            if counts && !self.fallen[i] && row.predictions[i] != labels[i] {
                self.fallen[i] = true;
                self.worst[i * self.len..][..self.len].copy_from_slice(&image);
            }
        }
        let name = &row.entry.name;
        ImageFile::create(directory, &format!("adversarial/{name}"), self.shape, labels.len())?.write_all(&images)?;
        self.suite = row.entry.suite.map(|suite| (suite, images));
        Ok(())
    }

    fn finish(&mut self, evaluation: &Evaluation, directory: &Path) -> Result<(), RobustnessError> {
        let images = evaluation.labels().len();
        ImageFile::create(directory, "adversarial/worst-case", self.shape, images)?.write_all(&self.worst)?;
        Ok(())
    }
}
