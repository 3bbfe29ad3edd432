//! Recomputes the running statistics of batch norm for weights that are about to be evaluated.
//!
//! After training, the running statistics are an exponential average over the last forward passes: those of attacks in
//! train mode on the last few batches. For averaged weights they are an average of such averages. The recomputed
//! statistics are plain averages of the mean and the unbiased variance over some training batches, as
//! `torch.optim.swa_utils.update_bn` computes.

use std::collections::BTreeMap;

use crate::model::State;

/// The plain average of the statistics of batches
/// ([`Engine::batch_statistics`](crate::engine::Engine::batch_statistics)).
#[derive(Debug, Clone, Default)]
pub struct RunningAverage {
    sums: BTreeMap<String, Vec<f64>>,
    batches: u32,
}

impl RunningAverage {
    /// Adds the statistics of one batch.
    pub fn add(&mut self, statistics: &State) {
        for (name, array) in &statistics.0 {
            let sum = self.sums.entry(name.clone()).or_insert_with(|| vec![0.0; array.data.len()]);
            sum.iter_mut().zip(&array.data).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        self.batches += 1;
    }

    /// Replaces the running statistics in `weights` with the average; returns `weights` unchanged if no batch was
    /// added.
    pub fn put_into(&self, weights: &State) -> State {
        let mut weights = weights.clone();
        for (name, sum) in &self.sums {
            if let Some(array) = weights.0.get_mut(name) {
                array.data = sum.iter().map(|sum| (sum / f64::from(self.batches)) as f32).collect();
            }
        }
        weights
    }
}
