//! Fields that have no effect because of the values of other fields.

use super::Experiment;
use super::sections::entry;

/// Why the field at `path` has no effect in this experiment. `None` if it has one.
pub fn without_effect(experiment: &Experiment, path: &str) -> Option<&'static str> {
    entry(path)?.row.without_effect(experiment)
}

/// Whether a run that began with the first experiment gives the same results with the value of the second at `path`.
pub fn keeps_results(path: &str, experiments: [&Experiment; 2]) -> bool {
    let without_effect = |row: super::row::Row| experiments.iter().all(|e| row.without_effect(e).is_some());
    entry(path).is_some_and(|entry| entry.row.harmless || without_effect(entry.row))
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::config::sections::{SECTIONS, entries};
    use crate::config::{BaseMethod, EngineChoice, MethodChoice, Schedule, TradesSearch, fields};
    use crate::fairness::{EpsilonRule, TargetMode};

    #[test]
    fn the_paper_preset_uses_what_it_sets() {
        let paper = Experiment::preset("cifar10-paper").unwrap();
        let idle: Vec<_> = fields::all()
            .iter()
            .map(|field| field.path)
            .filter(|path| without_effect(&paper, path).is_some())
            .collect();
        // Only the sections of other methods.
        let sections = ["trades", "cfa", "frl", "fat", "bat", "wat", "dafa", "faal", "trix"];
        let other = |path: &&str| path.split_once('.').is_some_and(|(section, _)| sections.contains(&section));
        assert!(fields::all().iter().map(|field| field.path).filter(other).all(|path| idle.contains(&path)));
        let idle: Vec<_> = idle.into_iter().filter(|path| !other(path)).collect();
        let expected = [
            "data.shapes_seed",
            "fairness.trades_search",
            "fairness.fixed_target",
            "fairness.combine",
            "fairness.lambda_count",
            "optimizer.milestones",
            "optimizer.decay",
        ];
        assert_eq!(idle, expected);
    }

    #[test]
    fn every_method_that_a_field_belongs_to_is_one() {
        let methods: Vec<_> = MethodChoice::value_variants().iter().filter_map(ValueEnum::to_possible_value).collect();
        // A section may exist before its method can be chosen.
        let known = |name: &str| {
            methods.iter().any(|method| method.get_name() == name)
                || SECTIONS.iter().any(|section| section.name == name)
        };
        for entry in entries() {
            assert!(entry.row.methods.names.is_none_or(|names| names.iter().all(|name| known(name))), "{}", entry.path);
        }
    }

    #[test]
    fn a_base_wakes_the_settings_of_trades() {
        let mut e = Experiment::default();
        let idle = |e: &Experiment, path| without_effect(e, path).is_some();
        assert!(idle(&e, "fairness.trades_search") && idle(&e, "trades.beta") && idle(&e, "trades.start_deviation"));
        e.fairness.base = BaseMethod::Trades;
        assert!(!idle(&e, "fairness.trades_search") && !idle(&e, "trades.beta"));
        // Both searches start from normal noise, in eval mode; the loss is always divided.
        for search in [TradesSearch::Targeted, TradesSearch::Kl] {
            e.fairness.trades_search = search;
            assert!(!idle(&e, "trades.start_deviation") && idle(&e, "trades.scaled"));
            assert!(idle(&e, "attack.random_start") && idle(&e, "attack.attack_bn"));
        }
        (e.fairness.trades_search, e.fairness.targeted) = (TradesSearch::Targeted, false);
        assert!(idle(&e, "fairness.trades_search") && !idle(&e, "trades.start_deviation"));
        e.fairness.method = MethodChoice::At;
        assert!(idle(&e, "trades.beta") && idle(&e, "fairness.base") && !idle(&e, "attack.random_start"));
        e.fairness.method = MethodChoice::Trades;
        assert!(!idle(&e, "trades.beta") && !idle(&e, "trades.scaled") && idle(&e, "fairness.targeted"));
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
