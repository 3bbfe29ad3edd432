//! What the network took each image for when an epoch counted it, and how those images were attacked.

use super::methods::{self, Evidence, Radii};
use crate::config::Experiment;
use crate::engine::{Batch, BatchNormMode, Objective, SearchSpec};
use crate::fairness::{ClassStats, Confusion, TargetDistribution};

/// The predictions that an epoch counted, by image. Kept in memory only: the files have the counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predicted {
    /// Predictions under the training attack; `None` for an image that was counted before the run was resumed.
    pub train: Vec<Option<u32>>,
    /// Predictions on the validation split under the evaluation attack.
    pub validation: Vec<Option<u32>>,
}

impl Predicted {
    /// For an epoch that begins or continues.
    pub(super) fn of_training_images(count: usize) -> Self {
        Self { train: vec![None; count], validation: Vec::new() }
    }

    /// Adds the predictions for a batch of training images.
    pub(super) fn add(&mut self, ids: &[u32], predictions: &[u32]) {
        for (id, prediction) in ids.iter().zip(predictions) {
            if let Some(known) = self.train.get_mut(*id as usize) {
                *known = Some(*prediction);
            }
        }
    }
}

/// What determined the training attack of an epoch, as its records have it.
#[derive(Debug, Clone, PartialEq)]
pub struct CountedEpoch {
    /// Its index.
    pub epoch: u32,
    /// Radius of each class.
    pub radii: Vec<f64>,
    /// Probability of each class as a target; `None` if targets were not drawn.
    pub targets: Option<Vec<f64>>,
    /// Counts of the epoch before.
    pub before: Option<Confusion>,
}

impl CountedEpoch {
    /// The search by which this epoch attacked the training images of `batch`, with batch norm in eval mode: in training
    /// mode an image's attack depends on the other images of its batch, and the network would change.
    pub fn search(&self, experiment: &Experiment, classes: usize, batch: &Batch<'_>) -> SearchSpec {
        let mut method = methods::build(experiment, classes);
        let statistics = self.before.as_ref().filter(|before| before.classes() == classes).map(|before| {
            let mut statistics = ClassStats::new(classes);
            statistics.robust = before.clone();
            statistics
        });
        method.plan(self.epoch, &Evidence { statistics: statistics.as_ref(), ..Evidence::default() });
        let mut spec = method.search(batch, &Radii(self.radii.clone()));
        if let (Objective::Drawn(table), Some(targets)) = (&mut spec.objective, &self.targets)
            && targets.len() == classes
        {
            *table = TargetDistribution::proportional(targets).table();
        }
        spec.batch_norm = BatchNormMode::Eval;
        spec
    }
}
