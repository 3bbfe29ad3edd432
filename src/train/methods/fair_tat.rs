//! FAIR-TAT: fair targeted adversarial training (Medi, Jung, Keuper; WACV 2025, arXiv 2410.23142).
//!
//! For every epoch `e` after the warm-up, with CFPS and robust accuracy `r` of epoch `e - 1`:
//!
//! ```text
//! π   = softmax(2 · CFPS)                          target distribution
//! ε_k = (λ + r_k) · ε                              radius for true class k
//! t_i ~ π without y_i                              target of image i
//! d_i = PGD-10 towards t_i inside ε_{y_i}          perturbation
//! θ   ← SGD on mean CE(f(x_i + d_i), y_i)          update
//! ```
//!
//! The defaults are the authors' final code; in warm-up epochs targets are uniform and every class has the base radius.
//!
//! On TRADES ([`FairnessConfig::base`]) the search starts from small normal noise in eval mode and the loss is
//! `mean (1 - b) CE(f(x_i), y_i) + b KL(p(x_i) ‖ p(x_i + d_i))` with `b = β / (1 + β)`. The authors never published this
//! search in its targeted form; this one is a reconstruction. With [`TradesSearch::Kl`] the search is that of TRADES, as
//! in their earlier code, and the method only adapts the radii. On Friendly adversarial training the targeted search
//! stops early ([`super::fat`]).

use super::base::Base;
use super::{ClassSeries, Evidence, Memory, Method, Radii};
use crate::config::{BaseMethod, Experiment, FairnessConfig, TradesSearch};
use crate::engine::{Batch, BatchStats, LossSpec, Objective, SearchSpec, TargetTable};
use crate::fairness::{Margins, TargetDistribution, TargetMode};

/// See the [module](self).
#[derive(Debug)]
pub struct FairTat {
    base: Base,
    fairness: FairnessConfig,
    margins: Margins,
    epsilon: Vec<f64>,
    distribution: TargetDistribution,
    /// The target distribution as the table that engines draw from.
    table: TargetTable,
    adapted: bool,
}

impl FairTat {
    /// For `classes` classes.
    pub fn new(experiment: &Experiment, classes: usize) -> Self {
        let distribution = TargetDistribution::uniform(classes);
        let base = Base::new(experiment, experiment.fairness.base);
        Self {
            fairness: experiment.fairness.clone(),
            margins: experiment.margins(),
            epsilon: base.equal_radii(classes),
            base,
            table: distribution.table(),
            distribution,
            adapted: false,
        }
    }

    /// The fixed target, or the class after it for images of that class.
    fn fixed(&self, label: u32) -> u32 {
        let classes = self.epsilon.len() as u32;
        let target = self.fairness.fixed_target;
        if target == label { (target + 1) % classes } else { target }
    }

    /// Whether the search is targeted.
    fn is_targeted(&self) -> bool {
        self.fairness.targeted
            && !(self.base.method == BaseMethod::Trades && self.fairness.trades_search == TradesSearch::Kl)
    }

    fn objective(&self, labels: &[u32]) -> Objective {
        match self.fairness.target_mode {
            _ if !self.is_targeted() => self.base.untargeted(),
            TargetMode::Fixed if self.adapted => {
                Objective::Targeted(labels.iter().map(|label| self.fixed(*label)).collect())
            }
            TargetMode::LeastLikely if self.adapted => Objective::LeastLikely,
            _ => Objective::Drawn(self.table.clone()),
        }
    }
}

impl Method for FairTat {
    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>) {
        let classes = self.epsilon.len();
        let statistics = seen.statistics.filter(|_| epoch >= self.fairness.warmup_epochs);
        self.adapted = statistics.is_some();
        self.epsilon = match statistics {
            Some(statistics) => self.margins.class_epsilon(statistics),
            None => vec![self.margins.base; classes],
        };
        let cfps = statistics.map(|statistics| statistics.robust.cfps());
        self.distribution = match (self.fairness.target_mode, cfps) {
            (TargetMode::Softmax, Some(cfps)) => TargetDistribution::softmax(&cfps, self.fairness.temperature),
            (TargetMode::Proportional, Some(cfps)) => TargetDistribution::proportional(&cfps),
            _ => TargetDistribution::uniform(classes),
        };
        self.table = self.distribution.table();
    }

    fn class_epsilon(&self) -> &[f64] {
        &self.epsilon
    }

    fn target_distribution(&self) -> Option<&TargetDistribution> {
        let drawn = !matches!(self.fairness.target_mode, TargetMode::LeastLikely | TargetMode::Fixed);
        (self.is_targeted() && (drawn || !self.adapted)).then_some(&self.distribution)
    }

    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
        self.base.search(self.objective(batch.labels), batch, radii)
    }

    fn loss(&self, _batch: &Batch<'_>) -> LossSpec {
        self.base.loss(&vec![self.base.trades.beta; self.epsilon.len()])
    }

    fn observe(&self, batch: &Batch<'_>, stats: &BatchStats, sums: &mut Memory) {
        self.base.observe(batch, stats, self.epsilon.len(), sums);
    }

    fn shown(&self, sums: &Memory) -> Vec<ClassSeries> {
        self.base.shown(self.epsilon.len(), sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::{ClassStats, EpsilonRule};

    fn statistics() -> ClassStats {
        let mut s = ClassStats::new(3);
        s.add_robust(&[0, 0, 1, 1, 2, 2], Some(&[1, 1, 2, 2, 0, 0]), &[0, 0, 1, 0, 0, 1]);
        s
    }

    #[test]
    fn adapts_after_the_warm_up_only() {
        let mut experiment = Experiment::default();
        experiment.fairness.warmup_epochs = 2;
        let mut method = FairTat::new(&experiment, 3);
        let base = experiment.attack.epsilon.exact();
        for epoch in 0..2 {
            method.plan(epoch, &Evidence { statistics: Some(&statistics()), ..Evidence::default() });
            assert_eq!(method.class_epsilon(), [base; 3]);
        }
        method.plan(2, &Evidence { statistics: Some(&statistics()), ..Evidence::default() });
        assert_eq!(method.class_epsilon(), [1.5 * base, base, 0.5 * base]);
        let cfps = statistics().robust.cfps();
        assert_eq!(method.target_distribution(), Some(&TargetDistribution::softmax(&cfps, 2.0)));
        method.plan(3, &Evidence::default());
        assert_eq!(method.class_epsilon(), [base; 3]);
    }

    #[test]
    fn each_way_to_targets_is_an_objective() {
        let objective = |change: &dyn Fn(&mut FairnessConfig), adapted: bool| {
            let mut experiment = Experiment::default();
            change(&mut experiment.fairness);
            let mut method = FairTat::new(&experiment, 3);
            method.plan(1, &Evidence { statistics: adapted.then(statistics).as_ref(), ..Evidence::default() });
            method.objective(&[2, 0])
        };
        let mode = |mode| move |fairness: &mut FairnessConfig| fairness.target_mode = mode;
        let drawn = |distribution: TargetDistribution| Objective::Drawn(distribution.table());
        let cfps = statistics().robust.cfps();
        assert_eq!(objective(&|f| f.targeted = false, true), Objective::CrossEntropy);
        assert_eq!(objective(&mode(TargetMode::Softmax), true), drawn(TargetDistribution::softmax(&cfps, 2.0)));
        assert_eq!(objective(&mode(TargetMode::Proportional), true), drawn(TargetDistribution::proportional(&cfps)));
        assert_eq!(objective(&mode(TargetMode::Uniform), true), drawn(TargetDistribution::uniform(3)));
        assert_eq!(objective(&mode(TargetMode::Fixed), true), Objective::Targeted(vec![0, 1]));
        assert_eq!(objective(&mode(TargetMode::LeastLikely), true), Objective::LeastLikely);
        for way in [TargetMode::Softmax, TargetMode::Fixed, TargetMode::LeastLikely] {
            assert_eq!(objective(&mode(way), false), drawn(TargetDistribution::uniform(3)), "{way:?} in the warm-up");
        }
        let on_trades = |search, targeted| {
            move |fairness: &mut FairnessConfig| {
                (fairness.base, fairness.trades_search, fairness.targeted) = (BaseMethod::Trades, search, targeted);
            }
        };
        let targeted = objective(&on_trades(TradesSearch::Targeted, true), true);
        assert_eq!(targeted, drawn(TargetDistribution::softmax(&cfps, 2.0)));
        assert_eq!(objective(&on_trades(TradesSearch::Targeted, false), true), Objective::KlToClean);
        assert_eq!(objective(&on_trades(TradesSearch::Kl, true), true), Objective::KlToClean);
    }

    #[test]
    fn each_image_gets_the_radius_of_its_own_class() {
        let mut experiment = Experiment::default();
        experiment.fairness.epsilon_rules = vec![EpsilonRule::GRob];
        let mut method = FairTat::new(&experiment, 3);
        method.plan(1, &Evidence { statistics: Some(&statistics()), ..Evidence::default() });
        let batch = Batch { pixels: &[], labels: &[2, 0], ids: &[0, 1], augment: None, seed: 0, epoch: 1 };
        let spec = method.search(&batch, &Radii(method.class_epsilon().to_vec()));
        let base = experiment.attack.epsilon.exact();
        assert_eq!(spec.epsilon, [0.5 * base, 1.5 * base].map(|epsilon| epsilon as f32));
        // A radius that is held by hand replaces that of the rule.
        assert_eq!(method.search(&batch, &Radii(vec![0.3, 0.2, 0.1])).epsilon, [0.1, 0.3]);
    }

    #[test]
    fn fixed_targets_avoid_the_label() {
        let mut experiment = Experiment::default();
        experiment.fairness.fixed_target = 2;
        let method = FairTat::new(&experiment, 3);
        assert_eq!([0, 1, 2].map(|label| method.fixed(label)), [2, 2, 0]);
    }
}
