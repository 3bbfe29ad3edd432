//! FAT: Friendly adversarial training (Zhang et al., ICML 2020, arXiv 2002.11242).
//!
//! PGD that stops early: an image takes at most `τ` steps from misclassified iterates, so that training images are wrong
//! but not needlessly so.
//!
//! ```text
//! budget ← τ
//! up to 10 rounds:  predict;  misclassified and budget = 0: the image stops
//!                             misclassified and budget > 0: budget ← budget - 1, one step
//!                             classified correctly: one step
//! θ ← SGD on mean CE(f(x + d), y)
//! ```
//!
//! There are two published forms. In the original (zjfheart/Friendly-Adversarial-Training, `earlystop.py`) the search
//! runs in eval mode, each step adds normal noise of 0.001, and `τ` rises from 0 with the epochs. In the code of CFA,
//! which FAIR-TAT copies, it runs in train mode with `τ = 3`, and an image whose budget is spent stays where it is even
//! if it is classified correctly there ([`FatStop`]). FAT for TRADES ([`FatConfig::kl`]) searches on the divergence from
//! the clean prediction, from normal noise clipped to `[0, 1]`, and trains on the loss of TRADES.

use super::trades::{search, trades_loss};
use super::{ClassSeries, Evidence, Memory, Method, Radii, attack};
use crate::config::{AttackConfig, Experiment, FatConfig, FatStop, TradesConfig};
use crate::engine::{Batch, BatchStats, LossSpec, Objective, SearchSpec, Stop, View};

/// Names of the sums over an epoch: images of each class, and steps that they took from misclassified iterates.
const IMAGES: &str = "images";
const USED: &str = "budget_used";

/// The stopping rule of a search, and how much of its budget each class used.
#[derive(Debug)]
pub(super) struct Budget(FatConfig);

impl Budget {
    pub(super) fn new(settings: &FatConfig) -> Self {
        Self(settings.clone())
    }

    /// `spec` with the stopping rule and the noise of an epoch.
    pub(super) fn limit(&self, spec: SearchSpec, epoch: u32) -> SearchSpec {
        let budget = self.0.tau_at(epoch);
        let stop = match self.0.stop {
            FatStop::Spent => Stop::Spent { budget },
            FatStop::WhileMisclassified => Stop::WhileMisclassified { budget },
        };
        SearchSpec { stop, noise: self.0.noise as f32, ..spec }
    }

    pub(super) fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, classes: usize, sums: &mut Memory) {
        let tau = self.0.tau_at(batch.epoch);
        for (label, left) in batch.labels.iter().zip(&stats.budgets) {
            sums.values(USED, classes)[*label as usize] += f64::from(tau.saturating_sub(*left));
            sums.values(IMAGES, classes)[*label as usize] += 1.0;
        }
    }

    /// Mean number of steps from misclassified iterates of each class in an epoch; 0 for a class without images.
    pub(super) fn shown(classes: usize, sums: &Memory) -> ClassSeries {
        let of = |name| sums.numbers(name, classes).map_or_else(|| vec![0.0; classes], <[f64]>::to_vec);
        let values = of(USED).iter().zip(of(IMAGES)).map(|(used, images)| used / images.max(1.0)).collect();
        ClassSeries { name: USED, values }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Fat {
    attack: AttackConfig,
    trades: TradesConfig,
    kl: bool,
    budget: Budget,
    epsilon: Vec<f64>,
}

impl Fat {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        Self {
            epsilon: vec![experiment.attack.epsilon.exact(); classes],
            attack: experiment.attack.clone(),
            trades: experiment.trades.clone(),
            kl: experiment.fat.kl,
            budget: Budget::new(&experiment.fat),
        }
    }
}

impl Method for Fat {
    fn plan(&mut self, _epoch: u32, _seen: &Evidence<'_>) {}

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        let spec = if self.kl {
            let spec = search(&self.attack, &self.trades, Objective::KlToClean, batch, radii);
            SearchSpec { project_start: true, ..spec }
        } else {
            attack(&self.attack, Objective::CrossEntropy, batch, radii)
        };
        self.budget.limit(spec, batch.epoch)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        if self.kl { trades_loss(&self.trades, self.epsilon.len()) } else { LossSpec::cross_entropy(View::Adversarial) }
    }

    fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, sums: &mut Memory) {
        self.budget.observe(batch, stats, self.epsilon.len(), sums);
    }

    fn shown(&self, sums: &Memory) -> Vec<ClassSeries> {
        vec![Budget::shown(self.epsilon.len(), sums)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{BatchNormMode, Start};

    fn spec(change: &dyn Fn(&mut Experiment), epoch: u32) -> SearchSpec {
        let mut experiment = Experiment::default();
        change(&mut experiment);
        let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch };
        Fat::new(&experiment, 3).search(&batch, &Radii(vec![0.1, 0.2, 0.3]))
    }

    #[test]
    fn the_default_is_the_form_of_cfa_and_fair_tat() {
        let found = spec(&|_| (), 7);
        assert_eq!((found.stop, found.noise), (Stop::Spent { budget: 3 }, 0.0));
        assert_eq!((found.batch_norm, found.objective), (BatchNormMode::Train, Objective::CrossEntropy));
        assert_eq!(found.epsilon, [0.3, 0.1]);
    }

    #[test]
    fn the_original_raises_its_budget_with_the_epochs() {
        let original = |e: &mut Experiment| {
            (e.fat.stop, e.fat.noise) = (FatStop::WhileMisclassified, 0.001);
            (e.fat.tau, e.fat.tau_epochs) = (vec![0, 1, 2], vec![50, 90]);
        };
        for (epoch, budget) in [(0, 0), (49, 0), (50, 1), (89, 1), (90, 2), (119, 2)] {
            let found = spec(&original, epoch);
            assert_eq!((found.stop, found.noise), (Stop::WhileMisclassified { budget }, 0.001), "{epoch}");
        }
    }

    #[test]
    fn on_trades_it_searches_by_kl_from_a_clipped_start() {
        let found = spec(&|e| e.fat.kl = true, 0);
        assert_eq!((found.objective, found.project_start), (Objective::KlToClean, true));
        assert!(matches!(found.start, Start::Normal { deviation: 0.001, .. }));
    }

    #[test]
    fn the_used_budget_is_a_mean_over_the_images_of_a_class() {
        let method = Fat::new(&Experiment::default(), 3);
        let mut sums = Memory::default();
        assert_eq!(method.shown(&sums)[0].values, [0.0; 3]);
        for (labels, budgets) in [([0, 0, 2], vec![3, 2, 0]), ([0, 2, 2], vec![0, 3, 3])] {
            let batch = Batch { pixels: &[], labels: &labels, ids: &[0, 1, 2], augment: None, seed: 0, epoch: 0 };
            method.observe(&batch, &BatchStats { budgets, ..BatchStats::default() }, &mut sums);
        }
        assert_eq!(method.shown(&sums)[0].values, [4.0 / 3.0, 0.0, 1.0]);
    }
}
