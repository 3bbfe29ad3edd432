//! Which fields have no effect as long as others are what they are.

use super::Experiment;
use super::sections::entry;

/// Why the field at `path` changes nothing in this experiment; `None` if it does.
pub fn without_effect(experiment: &Experiment, path: &str) -> Option<&'static str> {
    entry(path)?.row.without_effect(experiment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EngineChoice, MethodChoice, Schedule, fields};
    use crate::fairness::{EpsilonRule, TargetMode};

    #[test]
    fn the_paper_preset_uses_what_it_sets() {
        let paper = Experiment::preset("cifar10-paper").unwrap();
        let idle: Vec<_> = fields::all()
            .iter()
            .map(|field| field.path)
            .filter(|path| without_effect(&paper, path).is_some())
            .collect();
        let expected = [
            "data.shapes_seed",
            "fairness.fixed_target",
            "fairness.combine",
            "fairness.lambda_count",
            "optimizer.milestones",
            "optimizer.decay",
        ];
        assert_eq!(idle, expected);
    }

    #[test]
    fn other_choices_wake_and_silence_fields() {
        let mut e = Experiment::default();
        assert!(without_effect(&e, "data.path").is_some());
        assert!(without_effect(&e, "data.padding").is_some());
        e.fairness.target_mode = TargetMode::Fixed;
        assert_eq!(without_effect(&e, "fairness.fixed_target"), None);
        assert!(without_effect(&e, "fairness.temperature").is_some());
        e.fairness.epsilon_rules = vec![EpsilonRule::GCfps, EpsilonRule::GRob];
        assert_eq!(without_effect(&e, "fairness.lambda_count"), None);
        assert_eq!(without_effect(&e, "fairness.combine"), None);
        e.fairness.epsilon_rules.clear();
        assert!(without_effect(&e, "fairness.epsilon_max").is_some());
        e.fairness.targeted = false;
        assert_eq!(without_effect(&e, "fairness.target_mode"), Some("The attack is not targeted."));
        e.fairness.method = MethodChoice::At;
        assert!(without_effect(&e, "fairness.warmup_epochs").is_some());
        assert_eq!(without_effect(&e, "fairness.method"), None);
        assert!(
            without_effect(&e, "optimizer.milestones").is_some() && without_effect(&e, "optimizer.decay").is_some()
        );
        e.optimizer.schedule = Schedule::MultiStep;
        assert_eq!(without_effect(&e, "optimizer.milestones"), None);
        e.run.engine = EngineChoice::Candle;
        assert!(without_effect(&e, "run.adapter").is_some() && without_effect(&e, "run.no_fusion").is_some());
        e.run.engine = EngineChoice::Wgsl;
        assert_eq!(without_effect(&e, "run.no_fusion"), None);
        assert!(without_effect(&e, "run.device").is_some() && without_effect(&e, "run.adapter").is_none());
    }
}
