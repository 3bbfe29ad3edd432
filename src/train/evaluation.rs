//! The attacks that a run evaluates with.

use crate::attack::{Attack, RunSteps, evaluation_step_size};
use crate::config::Experiment;

/// PGD as an experiment evaluates with it. Where the experiment names no step size for its evaluations, it follows from the
/// attack ([`evaluation_step_size`]).
pub fn evaluation_attack(experiment: &Experiment, steps: u32) -> Attack {
    let run = run_steps(experiment);
    let (norm, epsilon) = (run.norm, run.eval_epsilon);
    let step_size = evaluation_step_size(norm, epsilon, steps, None, &run);
    Attack::pgd(epsilon, step_size, steps, norm, experiment.run.seed)
}

/// The balls and step sizes of an experiment, which an evaluation's step size can come from.
pub fn run_steps(experiment: &Experiment) -> RunSteps {
    let (attack, evaluation) = (&experiment.attack, &experiment.evaluation);
    RunSteps {
        norm: attack.norm,
        epsilon: attack.epsilon,
        step_size: attack.step_size,
        eval_epsilon: evaluation.eval_epsilon.unwrap_or(attack.epsilon),
        eval_step_size: evaluation.eval_step_size,
    }
}

/// What makes the attacks of an experiment's evaluations, on the validation split and on the test set, weaker than their
/// radius says ([`Attack::warning`]).
pub fn evaluation_warnings(experiment: &Experiment) -> Vec<String> {
    let evaluation = &experiment.evaluation;
    let mut all: Vec<String> = Vec::new();
    for steps in [evaluation.eval_steps, evaluation.test_steps] {
        // Without test steps there is no test.
        if steps > 0
            && let Some(warning) = evaluation_attack(experiment, steps).warning()
            && !all.contains(&warning)
        {
            all.push(warning);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PRESETS;
    use crate::engine::Norm;
    use crate::units::Epsilon;

    #[test]
    fn no_preset_evaluates_with_a_flawed_attack() {
        for (name, _) in PRESETS {
            assert_eq!(evaluation_warnings(&Experiment::preset(name).unwrap()), [""; 0], "{name}");
        }
    }

    #[test]
    fn validation_and_test_each_have_a_step_of_their_own() {
        let mut e = Experiment::default();
        // As a training with one long step has it, in another ball than that of the evaluation.
        (e.attack.steps, e.attack.step_size) = (1, Epsilon::levels(10.0));
        (e.evaluation.eval_steps, e.evaluation.test_steps) = (10, 50);
        let step = |e: &Experiment, steps| evaluation_attack(e, steps).step_size.to_string();
        assert_eq!((step(&e, 10), step(&e, 50)), ("2/255".to_owned(), "0.4/255".to_owned()));
        e.evaluation.eval_epsilon = Some(Epsilon::levels(64.0));
        assert_eq!((step(&e, 10), step(&e, 50)), ("16/255".to_owned(), "3.2/255".to_owned()));
        (e.attack.norm, e.evaluation.eval_epsilon) = (Norm::L2, Some(Epsilon::levels(127.5)));
        assert_eq!(step(&e, 10), "31.875/255");
        assert!(evaluation_warnings(&e).is_empty());
    }

    #[test]
    fn a_named_step_that_is_too_short_is_a_warning_for_each_attack_that_takes_place() {
        let mut e = Experiment::default();
        e.evaluation.eval_step_size = Some(Epsilon::levels(0.1));
        (e.evaluation.eval_steps, e.evaluation.test_steps) = (10, 20);
        let warnings = evaluation_warnings(&e);
        assert_eq!(warnings.len(), 2);
        assert!(warnings[0].starts_with("PGD-10") && warnings[1].starts_with("PGD-20"), "{warnings:?}");
        e.evaluation.test_steps = 10;
        assert_eq!(evaluation_warnings(&e).len(), 1);
        e.evaluation.test_steps = 0;
        assert_eq!(evaluation_warnings(&e).len(), 1);
    }
}
