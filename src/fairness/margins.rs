//! The class-wise epsilon: the radius of the attack for each class.

use serde::{Deserialize, Serialize};

use super::ClassStats;

/// The class that counts as correct in a statistic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// The true class ("G" in the authors' options).
    GroundTruth,
    /// The target that the image was attacked towards ("T").
    Target,
}

/// Which statistic scales the radius.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// Accuracy of the class under the training attack.
    Robust,
    /// Proportion of all mistakes predicted as the class.
    Cfps,
    /// Proportion of all mistakes made on images of the class.
    Cfns,
}

/// One of the authors' six rules: `ε_k = (λ + s_k) · ε` with the statistic `s` of the last epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EpsilonRule {
    /// Robust accuracy of the class (the published setting; also CFA's class-wise calibrated margin)
    GRob,
    /// Share of the class that reached its target
    TRob,
    /// Twice the share of mistakes that landed on the class
    GCfps,
    /// Share of attacks short of their target that ended in the class
    TCfps,
    /// Share of mistakes made on images of the class
    GCfns,
    /// Share of attacks short of their target made on images of the class
    TCfns,
}

impl EpsilonRule {
    /// The reference and the statistic of the rule.
    pub const fn parts(self) -> (Reference, Statistic) {
        match self {
            Self::GRob => (Reference::GroundTruth, Statistic::Robust),
            Self::TRob => (Reference::Target, Statistic::Robust),
            Self::GCfps => (Reference::GroundTruth, Statistic::Cfps),
            Self::TCfps => (Reference::Target, Statistic::Cfps),
            Self::GCfns => (Reference::GroundTruth, Statistic::Cfns),
            Self::TCfns => (Reference::Target, Statistic::Cfns),
        }
    }

    /// `s_k` for every class. The authors' final code doubles `g-cfps`, and only that one.
    fn statistic(self, stats: &ClassStats) -> Vec<f64> {
        match self.parts() {
            (Reference::GroundTruth, Statistic::Robust) => stats.robust.class_accuracy(),
            (Reference::Target, Statistic::Robust) => stats.target_rate(),
            (Reference::GroundTruth, Statistic::Cfps) => stats.robust.cfps().into_iter().map(|s| 2.0 * s).collect(),
            (Reference::Target, Statistic::Cfps) => stats.target_cfps(),
            (Reference::GroundTruth, Statistic::Cfns) => stats.robust.cfns(),
            (Reference::Target, Statistic::Cfns) => stats.target_cfns(),
        }
    }
}

/// How the radii of several rules are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Combine {
    /// Their mean
    Average,
    /// The smallest for each class
    Minimum,
}

/// Computes the radii of an epoch from the statistics of the last one.
#[derive(Debug, Clone, PartialEq)]
pub struct Margins {
    /// The rules; if empty, every class has the base radius.
    pub rules: Vec<EpsilonRule>,
    /// How several rules are combined.
    pub combine: Combine,
    /// λ of the rules on robust accuracy.
    pub lambda_rob: f64,
    /// λ of the rules on CFPS and CFNS.
    pub lambda_count: f64,
    /// The radius of the experiment, in `[0, 1]` pixel units.
    pub base: f64,
    /// Smallest radius of a class.
    pub minimum: f64,
    /// Largest radius of a class.
    pub maximum: f64,
}

impl Margins {
    /// The radius of every class.
    pub fn class_epsilon(&self, stats: &ClassStats) -> Vec<f64> {
        let classes = stats.classes();
        if self.rules.is_empty() {
            return vec![self.base; classes];
        }
        let radii: Vec<Vec<f64>> = self.rules.iter().map(|rule| self.by_rule(*rule, stats)).collect();
        let combined = |k: usize| {
            let of_class = radii.iter().map(|r| r[k]);
            match self.combine {
                Combine::Average => of_class.sum::<f64>() / radii.len() as f64,
                Combine::Minimum => of_class.fold(f64::INFINITY, f64::min),
            }
        };
        (0..classes).map(|k| combined(k).max(self.minimum).min(self.maximum)).collect()
    }

    fn by_rule(&self, rule: EpsilonRule, stats: &ClassStats) -> Vec<f64> {
        let lambda = match rule.parts().1 {
            Statistic::Robust => self.lambda_rob,
            Statistic::Cfps | Statistic::Cfns => self.lambda_count,
        };
        rule.statistic(stats).into_iter().map(|s| (lambda + s) * self.base).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats() -> ClassStats {
        let mut s = ClassStats::new(3);
        // Class 0: 3 of 4 correct, one predicted as 1. Class 1: 1 of 2 correct, one predicted as 2. Class 2: none of 2
        // correct, both predicted as 1.
        let truths = [0, 0, 0, 0, 1, 1, 2, 2];
        let targets = [1, 2, 1, 1, 2, 2, 1, 0];
        s.add_robust(&truths, Some(&targets), &[0, 0, 0, 1, 1, 2, 1, 1]);
        s
    }

    fn margins(rules: &[EpsilonRule], combine: Combine) -> Margins {
        let (lambda_rob, lambda_count) = (0.5, 0.25);
        Margins { rules: rules.to_vec(), combine, lambda_rob, lambda_count, base: 0.1, minimum: 0.0, maximum: 1.0 }
    }

    fn check(rule: EpsilonRule, expected: [f64; 3]) {
        let found = margins(&[rule], Combine::Average).class_epsilon(&stats());
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() < 1e-12, "{rule:?} {found:?} {expected:?}");
        }
    }

    #[test]
    fn the_six_rules_by_hand() {
        check(EpsilonRule::GRob, [0.125, 0.1, 0.05]);
        check(EpsilonRule::TRob, [0.075, 0.1, 0.1]);
        check(EpsilonRule::GCfps, [0.025, 0.025 + 2.0 * 0.075, 0.025 + 2.0 * 0.025]);
        check(EpsilonRule::GCfns, [0.025 + 0.025, 0.025 + 0.025, 0.025 + 0.05]);
        // Target not reached: three of class 0 (predicted as 0), one of class 1 (as 1), one of class 2 (as 1).
        check(EpsilonRule::TCfps, [0.025 + 0.06, 0.025 + 0.04, 0.025]);
        check(EpsilonRule::TCfns, [0.025 + 0.06, 0.025 + 0.02, 0.025 + 0.02]);
    }

    #[test]
    fn combination_and_bounds() {
        let rules = [EpsilonRule::GRob, EpsilonRule::TRob];
        let close = |found: Vec<f64>, expected: [f64; 3]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
        };
        close(margins(&rules, Combine::Average).class_epsilon(&stats()), [0.1, 0.1, 0.075]);
        close(margins(&rules, Combine::Minimum).class_epsilon(&stats()), [0.075, 0.1, 0.05]);
        let bounded = Margins { minimum: 0.06, maximum: 0.09, ..margins(&rules, Combine::Minimum) };
        close(bounded.class_epsilon(&stats()), [0.075, 0.09, 0.06]);
        close(margins(&[], Combine::Average).class_epsilon(&stats()), [0.1; 3]);
    }
}
