//! The evaluation attacks of a run, and its training attack.

use crate::attack::{Attack, RunSteps, evaluation_step_size};
use crate::config::Experiment;

/// The PGD attack of an experiment's evaluations. If the experiment does not set their step size, it is derived from
/// the attack ([`evaluation_step_size`]).
pub fn evaluation_attack(experiment: &Experiment, steps: u32) -> Attack {
    let run = run_steps(experiment);
    let (norm, epsilon) = (run.norm, run.eval_epsilon);
    let step_size = evaluation_step_size(norm, epsilon, steps, None, &run);
    Attack::pgd(epsilon, step_size, steps, norm, experiment.run.seed)
}

/// The balls and step sizes of an experiment from which an evaluation's step size is derived.
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

/// The training attack of an experiment, for a class with the base radius, as the corresponding evaluation attack.
pub fn training_attack(experiment: &Experiment) -> Attack {
    let attack = &experiment.attack;
    let pgd = Attack::pgd(attack.epsilon, attack.step_size, attack.steps, attack.norm, experiment.run.seed);
    Attack { random_start: attack.random_start, ..pgd }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Norm;
    use crate::units::Epsilon;

    #[test]
    fn validation_and_test_each_have_a_step_of_their_own() {
        let mut e = Experiment::default();
        // As in training with one long step, in another ball than that of the evaluation.
        (e.attack.steps, e.attack.step_size) = (1, Epsilon::levels(10.0));
        (e.evaluation.eval_steps, e.evaluation.test_steps) = (10, 50);
        let step = |e: &Experiment, steps| evaluation_attack(e, steps).step_size.to_string();
        assert_eq!((step(&e, 10), step(&e, 50)), ("2/255".to_owned(), "0.4/255".to_owned()));
        e.evaluation.eval_epsilon = Some(Epsilon::levels(64.0));
        assert_eq!((step(&e, 10), step(&e, 50)), ("16/255".to_owned(), "3.2/255".to_owned()));
        (e.attack.norm, e.evaluation.eval_epsilon) = (Norm::L2, Some(Epsilon::levels(127.5)));
        assert_eq!(step(&e, 10), "31.875/255");
        assert!(evaluation_attack(&e, 10).warning().is_none() && evaluation_attack(&e, 50).warning().is_none());
    }
}
