//! The images that a statistic of an epoch counted in one cell, attacked again as they were counted.
//!
//! The attack is the epoch's, with the same random start, augmentation and targets, which follow from seed, epoch and
//! image; the network is the one that is open now. The work is done in small portions, between which a run continues.

use std::sync::Arc;

use crate::config::Experiment;
use crate::data::Dataset;
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, View, loss};
use crate::train::{CountedEpoch, Examples, evaluation_attack};

/// [`Failure::doing`](super::Failure) of this work.
pub const COUNTING: &str = "attacking the images of a cell";
/// Images of a portion.
const PORTION: usize = 32;

/// The images that are counted, and their attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Training images under the training attack.
    Training,
    /// The validation split under the evaluation attack.
    Validation,
}

impl Counted {
    /// As it precedes "image".
    pub const fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Validation => "validation",
        }
    }

    /// The images.
    pub fn set(self, info: &super::RunInfo) -> &Arc<Dataset> {
        match self {
            Self::Training => &info.train,
            Self::Validation => &info.validation,
        }
    }
}

/// A cell whose images are attacked.
#[derive(Debug, Clone)]
pub struct CellJob {
    /// Returned with the result.
    pub id: u64,
    /// What was counted.
    pub of: Counted,
    /// The images.
    pub set: Arc<Dataset>,
    /// The experiment.
    pub experiment: Box<Experiment>,
    /// The epoch.
    pub epoch: CountedEpoch,
    /// The images to attack, by index.
    pub images: Vec<u32>,
    /// Keeps only images that the network now takes for this class; `None` keeps all.
    pub wanted: Option<u32>,
    /// Ends the work after this many images.
    pub most: usize,
}

/// The images of a cell that are attacked so far.
#[derive(Debug, Clone, PartialEq)]
pub struct CellImages {
    /// That of the job.
    pub id: u64,
    /// The images, before and after the attack.
    pub images: Examples,
    /// Number of images that have been attacked.
    pub tried: usize,
    /// Whether this is all.
    pub done: bool,
    /// Number of epochs that the network had been trained for, if known.
    pub position: Option<f64>,
}

/// A job under way.
#[derive(Debug)]
pub(super) struct CellWork {
    job: Box<CellJob>,
    tried: usize,
    found: Examples,
}

impl CellWork {
    pub(super) fn new(job: Box<CellJob>) -> Self {
        let found = Examples {
            epoch: job.epoch.epoch,
            batch: 0,
            step: (0, 0),
            shape: job.set.shape(),
            ids: Vec::new(),
            labels: Vec::new(),
            targets: None,
            epsilon: Vec::new(),
            clean: Vec::new(),
            adversarial: Vec::new(),
            clean_probabilities: Vec::new(),
            probabilities: Vec::new(),
        };
        Self { job, tried: 0, found }
    }

    /// A name for messages.
    pub(super) fn name(&self) -> String {
        format!("{} images of epoch {}", self.job.of.name(), self.job.epoch.epoch + 1)
    }

    /// Attacks the next portion. The engine's state does not change.
    pub(super) fn portion(
        &mut self,
        engine: &mut dyn Engine,
        position: Option<f64>,
    ) -> Result<CellImages, EngineError> {
        let job = &self.job;
        let last = (self.tried + PORTION).min(job.images.len());
        let ids = job.images.get(self.tried..last).unwrap_or_default();
        if let Some(bad) = ids.iter().find(|id| **id as usize >= job.set.len()) {
            return Err(EngineError::Invalid(format!("there is no image {bad}; the set has {}", job.set.len())));
        }
        if !ids.is_empty() {
            let attacked = attack(engine, job, ids)?;
            let wanted = job.wanted;
            self.found.take(&attacked, engine.network().classes, |prediction| wanted.is_none_or(|p| p == prediction));
        }
        self.tried = last;
        let done = self.tried >= job.images.len() || self.found.ids.len() >= job.most;
        Ok(CellImages { id: job.id, images: self.found.clone(), tried: self.tried, done, position })
    }
}

/// Attacks these images as the epoch did.
fn attack(engine: &mut dyn Engine, job: &CellJob, ids: &[u32]) -> Result<Examples, EngineError> {
    let (set, experiment, classes) = (&job.set, &job.experiment, engine.network().classes);
    let mut pixels = Vec::with_capacity(ids.len() * set.shape().len());
    ids.iter().for_each(|id| pixels.extend_from_slice(set.image(*id as usize)));
    let labels: Vec<u32> = ids.iter().map(|id| set.labels()[*id as usize]).collect();
    let (seed, epoch) = (experiment.run.seed, job.epoch.epoch);
    let (batch, spec) = match job.of {
        Counted::Training => {
            let augment = experiment.augment();
            let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed, epoch };
            (batch, job.epoch.search(experiment, classes, &batch))
        }
        Counted::Validation => {
            let attack = evaluation_attack(experiment, experiment.evaluation.eval_steps);
            let seed = attack.seed;
            let batch = Batch { pixels: &pixels, labels: &labels, ids, augment: None, seed, epoch: 0 };
            (batch, attack.perturbation(ids.len(), 0))
        }
    };
    let views = engine.perturb(&batch, &spec)?;
    let targets = engine.targets(&views)?.map(<[u32]>::to_vec);
    let mut read = |view| -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        let images = engine.read_view(&views, view)?;
        let logits = engine.logits(&Input::View(&views, view), BatchNormMode::Eval)?;
        Ok((images, logits.chunks(classes).flat_map(loss::log_softmax).map(f32::exp).collect()))
    };
    let (adversarial, probabilities) = read(View::Adversarial)?;
    let (clean, clean_probabilities) = read(View::Clean)?;
    Ok(Examples {
        epoch,
        batch: 0,
        step: (spec.steps, spec.steps),
        shape: set.shape(),
        ids: ids.to_vec(),
        labels,
        targets,
        epsilon: spec.epsilon,
        clean,
        adversarial,
        clean_probabilities,
        probabilities,
    })
}

impl Examples {
    /// Adds the images of `other` whose prediction is admitted.
    fn take(&mut self, other: &Self, classes: usize, admits: impl Fn(u32) -> bool) {
        let pixels = self.shape.len();
        self.step = other.step;
        for i in 0..other.ids.len() {
            let of = |values: &[f32], length: usize| values[i * length..(i + 1) * length].to_vec();
            let probabilities = of(&other.probabilities, classes);
            if !admits(loss::argmax(&probabilities)) {
                continue;
            }
            self.ids.push(other.ids[i]);
            self.labels.push(other.labels[i]);
            self.epsilon.push(other.epsilon[i]);
            if let Some(targets) = &other.targets {
                self.targets.get_or_insert_default().push(targets[i]);
            }
            self.clean.extend(of(&other.clean, pixels));
            self.adversarial.extend(of(&other.adversarial, pixels));
            self.clean_probabilities.extend(of(&other.clean_probabilities, classes));
            self.probabilities.extend(probabilities);
        }
    }
}
