//! Which fields have no effect as long as others are what they are.

use super::{DeviceChoice, EngineChoice, Experiment, MethodChoice};
use crate::fairness::{Statistic, TargetMode};

/// Why the field at `path` changes nothing in this experiment; none where it does.
pub fn without_effect(experiment: &Experiment, path: &str) -> Option<&'static str> {
    let Experiment { data, attack, fairness: f, averaging, run, .. } = experiment;
    let (section, name) = path.split_once('.')?;
    let plain = f.method == MethodChoice::At;
    let uses = |wanted: &[Statistic]| f.epsilon_rules.iter().any(|rule| wanted.contains(&rule.parts().1));
    let when = |condition: bool, why| condition.then_some(why);
    match (section, name) {
        ("data", "path") => {
            when(matches!(data.dataset.as_str(), "digits" | "shapes"), "This data set is built in and has no folder.")
        }
        ("data", "shapes_seed") => when(data.dataset != "shapes", "Only the data set shapes is drawn."),
        ("data", "validation_fraction") => {
            when(data.validation_per_class.is_some(), "The number of images per class replaces the share.")
        }
        ("data", "padding") => when(data.crop_padding == 0, "There is no random crop."),
        ("attack", "step_size" | "attack_bn") => when(attack.steps == 0, "The attack takes no steps."),
        // CFPS is counted under every method; only FAIR-TAT makes something of it.
        ("fairness", "method" | "clean_passes" | "statistics_source") => None,
        ("fairness", _) if plain => Some("Plain adversarial training has no targets and one epsilon for all classes."),
        ("fairness", "target_mode" | "temperature" | "fixed_target") if !f.targeted => {
            Some("The attack is not targeted.")
        }
        ("fairness", "temperature") => {
            when(f.target_mode != TargetMode::Softmax, "Only the target mode softmax has a temperature.")
        }
        ("fairness", "fixed_target") => {
            when(f.target_mode != TargetMode::Fixed, "Only the target mode fixed names a class.")
        }
        ("fairness", "combine") => when(f.epsilon_rules.len() < 2, "There are not two rules to combine."),
        ("fairness", "epsilon_min" | "epsilon_max") => {
            when(f.epsilon_rules.is_empty(), "There is no rule: every class has the base epsilon.")
        }
        ("fairness", "lambda_rob") => when(!uses(&[Statistic::Robust]), "No rule looks at robust accuracy."),
        ("fairness", "lambda_count") => {
            when(!uses(&[Statistic::Cfps, Statistic::Cfns]), "No rule looks at CFPS or CFNS.")
        }
        ("averaging", "average_decay" | "average_from") => {
            when(!averaging.ema && !averaging.fawa, "No average of the weights is kept.")
        }
        ("averaging", "fawa_threshold") => when(!averaging.fawa, "The fairness-aware average is not kept."),
        ("run", "device") => when(
            run.engine == EngineChoice::Wgsl || (run.engine == EngineChoice::Auto && run.adapter.is_some()),
            "The WGSL engine runs on a GPU that is chosen by its name.",
        ),
        ("run", "adapter") => when(
            run.engine == EngineChoice::Candle || run.device != DeviceChoice::Auto,
            "Candle chooses its device by the field beside it.",
        ),
        ("run", "no_fusion") => when(
            run.engine == EngineChoice::Candle || run.device != DeviceChoice::Auto,
            "Only the WGSL engine has kernels that do several layers' work.",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fields;
    use crate::fairness::EpsilonRule;

    #[test]
    fn the_paper_preset_uses_what_it_sets() {
        let paper = Experiment::preset("cifar10-paper").unwrap();
        let idle: Vec<_> = fields::all()
            .iter()
            .map(|field| field.path)
            .filter(|path| without_effect(&paper, path).is_some())
            .collect();
        let expected = ["data.shapes_seed", "fairness.fixed_target", "fairness.combine", "fairness.lambda_count"];
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
        e.run.engine = EngineChoice::Candle;
        assert!(without_effect(&e, "run.adapter").is_some() && without_effect(&e, "run.no_fusion").is_some());
        e.run.engine = EngineChoice::Wgsl;
        assert_eq!(without_effect(&e, "run.no_fusion"), None);
        assert!(without_effect(&e, "run.device").is_some() && without_effect(&e, "run.adapter").is_none());
    }
}
