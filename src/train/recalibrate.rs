//! Running statistics of batch norm, recomputed for weights that are about to be evaluated.
//!
//! The running statistics that training leaves are an exponential average over the last forward passes: those of attacks in
//! train mode on the last few batches, and for averaged weights an average of such averages. Recomputed, they are plain
//! averages of the mean and the unbiased variance over some training batches, as `torch.optim.swa_utils.update_bn` gives.

use std::collections::BTreeMap;

use crate::model::State;

/// The plain average of statistics of batches ([`Engine::batch_statistics`](crate::engine::Engine::batch_statistics)).
#[derive(Debug, Clone, Default)]
pub struct RunningAverage {
    sums: BTreeMap<String, Vec<f64>>,
    batches: u32,
}

impl RunningAverage {
    /// Takes the statistics of one more batch in.
    pub fn add(&mut self, statistics: &State) {
        for (name, array) in &statistics.0 {
            let sum = self.sums.entry(name.clone()).or_insert_with(|| vec![0.0; array.data.len()]);
            sum.iter_mut().zip(&array.data).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        self.batches += 1;
    }

    /// `weights` with the average in the place of their running statistics; unchanged if there was no batch.
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
