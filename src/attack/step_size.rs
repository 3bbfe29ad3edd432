//! The step size of PGD in an evaluation, and whether the steps of an attack can cross its ball.
//!
//! A search that starts at a random point in a ball of radius ε may have to travel `2ε` to reach the worst image. If
//! `steps · step_size` is far below that, it ends near its random start, and the reported robust accuracy is accuracy
//! under noise. A step longer than ε always leaves the ball and is projected back, so the search jumps between the
//! sides of the ball. Neither is visible in the accuracy, so [`Attack::warning`] warns of both, and
//! [`evaluation_step_size`] chooses a step with neither flaw if the user names none. In training such attacks leave a
//! network that never saw the worst images of its ball ([`Attack::training_warning`]).

use super::{Attack, AttackKind};
use crate::engine::Norm;
use crate::units::Epsilon;

/// Total length of all steps in units of ε in the default step size: 2.5, "which ensures that we can reach the boundary
/// of the ε-ball from any starting point within it (and still allow for movement on the boundary)" (Madry et al. 2018,
/// section 5, on attacks of various ε).
const FACTOR: f64 = 2.5;

/// Smallest total length of all steps, in units of ε, for a search from a random start: below this most starts cannot
/// reach the other side of the ball, which is up to 2ε away.
const REACH_FROM_RANDOM: f64 = 1.5;

/// The same for a search from the image itself, which is the centre of the ball.
const REACH_FROM_CENTRE: f64 = 1.0;

/// Relative tolerance of these comparisons: 6 · 2/255 is 1.5 · 8/255 up to rounding.
const TOLERANCE: f64 = 1e-9;

/// A run's settings for the balls of its training and its evaluation. An evaluation takes its step size from here if it
/// uses the same ball.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunSteps {
    /// Shape of both balls.
    pub norm: Norm,
    /// Radius of the training attack.
    pub epsilon: Epsilon,
    /// Step size of the training attack.
    pub step_size: Epsilon,
    /// Radius of the run's evaluation.
    pub eval_epsilon: Epsilon,
    /// Step size that the run sets for its evaluation; `None` if it sets none.
    pub eval_step_size: Option<Epsilon>,
}

/// Step size of a PGD evaluation with `steps` steps from a random start.
///
/// The first of these that applies:
///
/// 1. `named`: the user's value for this evaluation.
/// 2. The run's `eval_step_size`, if norm and ε are those of the run's evaluation.
/// 3. The step size of the training attack, if norm and ε are those of the training attack and the evaluation can cross
///    its ball with it ([`Attack::warning`] is `None`).
/// 4. [`default_step_size`].
///
/// ```
/// use fairtat::attack::{RunSteps, evaluation_step_size};
/// use fairtat::engine::Norm;
/// use fairtat::units::Epsilon;
///
/// let (epsilon, step_size) = (Epsilon::levels(8.0), Epsilon::levels(2.0));
/// let run = RunSteps { norm: Norm::Linf, epsilon, step_size, eval_epsilon: epsilon, eval_step_size: None };
/// assert_eq!(evaluation_step_size(Norm::Linf, epsilon, 20, None, &run), step_size);
/// let radius = Epsilon::new(0.5).unwrap();
/// assert_eq!(evaluation_step_size(Norm::L2, radius, 20, None, &run).to_string(), "15.938/255");
/// ```
pub fn evaluation_step_size(
    norm: Norm,
    epsilon: Epsilon,
    steps: u32,
    named: Option<Epsilon>,
    run: &RunSteps,
) -> Epsilon {
    if let Some(named) = named {
        return named;
    }
    if norm == run.norm
        && epsilon == run.eval_epsilon
        && let Some(step_size) = run.eval_step_size
    {
        return step_size;
    }
    let as_in_training = norm == run.norm && epsilon == run.epsilon;
    if as_in_training && Attack::pgd(epsilon, run.step_size, steps, norm, 0).flaw().is_none() {
        return run.step_size;
    }
    default_step_size(epsilon, steps)
}

/// The default step size for a radius and number of steps: `2.5 · ε / steps`, at most ε, rounded to a short form. ε
/// itself if there are no steps.
pub fn default_step_size(epsilon: Epsilon, steps: u32) -> Epsilon {
    let factor = FACTOR / f64::from(steps.max(1));
    if factor >= 1.0 { epsilon } else { epsilon.rounded_like(factor * epsilon.exact()) }
}

/// What an attack is for, which says what its flaws lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Evaluation,
    Training,
}

/// Why the steps of PGD cannot search its ball.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// The total length of all steps is too short.
    Short,
    /// One step is longer than the radius.
    Long,
}

impl Attack {
    /// Why this attack is weaker than its radius suggests, with numbers and advice. `None` if it is not, and always for
    /// clean images, for FGSM, and for ε = 0, which is a control without perturbation.
    pub fn warning(&self) -> Option<String> {
        self.warning_for(Purpose::Evaluation)
    }

    /// The same for the attack of a training.
    pub fn training_warning(&self) -> Option<String> {
        self.warning_for(Purpose::Training).map(|warning| format!("training attack {warning}"))
    }

    fn warning_for(&self, purpose: Purpose) -> Option<String> {
        let flaw = self.flaw()?;
        let shown = |distance: f64| self.epsilon.rounded_like(distance);
        let Self { epsilon, step_size, steps, .. } = self;
        if *steps == 0 {
            let images = if self.random_start { "random noise" } else { "the unperturbed ones" };
            let so = if purpose == Purpose::Training { ", so that the training is not adversarial" } else { "" };
            return Some(format!("{self}: without a step its images are {images}{so}; use at least 2 steps"));
        }
        let (short, long) = match purpose {
            Purpose::Evaluation => {
                ("the robust accuracy comes out too high", "the robust accuracy may come out too high")
            }
            Purpose::Training => {
                ("training sees weaker images than ε says", "training may see weaker images than ε says")
            }
        };
        let better = default_step_size(*epsilon, *steps);
        let advice = match better {
            better if (Self { step_size: better, ..self.clone() }).flaw().is_none() => {
                format!("a step size of {better} (2.5 · ε / steps)")
            }
            _ => "at least 2 steps".to_owned(),
        };
        Some(match flaw {
            Flaw::Short => {
                let (reach, from) = self.reach();
                let travelled = shown(f64::from(*steps) * step_size.exact());
                let needed = shown(reach * epsilon.exact());
                let (steps, go) =
                    if *steps == 1 { ("1 step".into(), "goes") } else { (format!("{steps} steps"), "go") };
                format!(
                    "{self}: {steps} of {step_size} {go} no further than {travelled}, less than {reach} · ε = {needed}; from \
                     {from} the attack cannot cross its ball and {short}. Use {advice}"
                )
            }
            Flaw::Long => format!(
                "{self}: a step of {step_size} is longer than ε, {epsilon}; every step leaves the ball and the search jumps \
                 between its sides, so that {long}. Use {advice}"
            ),
        })
    }

    /// Distance that the steps must be able to cover, in units of ε, and the point they start from.
    fn reach(&self) -> (f64, &'static str) {
        if self.random_start { (REACH_FROM_RANDOM, "a random start") } else { (REACH_FROM_CENTRE, "the image") }
    }

    fn flaw(&self) -> Option<Flaw> {
        let (epsilon, step) = (self.epsilon.exact(), self.step_size.exact());
        if !matches!(self.kind, AttackKind::Pgd | AttackKind::PgdTargeted) || epsilon == 0.0 {
            return None;
        }
        if f64::from(self.steps) * step < self.reach().0 * epsilon * (1.0 - TOLERANCE) {
            Some(Flaw::Short)
        } else if self.steps > 1 && step > epsilon * (1.0 + TOLERANCE) {
            Some(Flaw::Long)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Norm::{L2, Linf};

    fn distance(text: &str) -> Epsilon {
        text.parse().unwrap()
    }

    fn run(norm: Norm, [epsilon, step, eval_epsilon]: [&str; 3], eval_step: Option<&str>) -> RunSteps {
        let [epsilon, step_size, eval_epsilon] = [epsilon, step, eval_epsilon].map(distance);
        RunSteps { norm, epsilon, step_size, eval_epsilon, eval_step_size: eval_step.map(distance) }
    }

    #[test]
    fn the_step_size_belongs_to_the_ball_of_the_evaluation() {
        let usual = run(Linf, ["8/255", "2/255", "8/255"], None);
        let named = run(Linf, ["8/255", "2/255", "4/255"], Some("0.5/255"));
        let one_step = run(Linf, ["8/255", "10/255", "8/255"], None);
        let euclidean = run(L2, ["128/255", "2/255", "128/255"], None);
        let (none, one) = (None, Some("1/255"));
        for (case, norm, epsilon, steps, flag, run, expected) in [
            ("the run's own ball", Linf, "8/255", 20, none, &usual, "2/255"),
            ("few steps, just enough", Linf, "8/255", 6, none, &usual, "2/255"),
            ("few steps, too few for the run's", Linf, "8/255", 5, none, &usual, "4/255"),
            ("a flag overrides everything", Linf, "8/255", 20, one, &usual, "1/255"),
            ("a flag applies even if it is a poor choice", L2, "0.5", 20, one, &usual, "1/255"),
            ("another norm", L2, "0.5", 20, none, &usual, "15.938/255"),
            ("another norm at the same radius", L2, "8/255", 20, none, &usual, "1/255"),
            ("a larger radius", Linf, "64/255", 20, none, &usual, "8/255"),
            ("a smaller radius", Linf, "1/255", 20, none, &usual, "0.125/255"),
            ("one step", Linf, "64/255", 1, none, &usual, "64/255"),
            ("two steps", Linf, "64/255", 2, none, &usual, "64/255"),
            ("no step", Linf, "64/255", 0, none, &usual, "64/255"),
            ("radius 0", Linf, "0", 20, none, &usual, "0/255"),
            ("the step named for the evaluation's ball", Linf, "4/255", 20, none, &named, "0.5/255"),
            ("and with any number of steps", Linf, "4/255", 2, none, &named, "0.5/255"),
            ("the training step for the training ball", Linf, "8/255", 20, none, &named, "2/255"),
            ("neither ball", Linf, "16/255", 20, none, &named, "2/255"),
            ("a training of one long step", Linf, "8/255", 20, none, &one_step, "1/255"),
            ("and for one step", Linf, "8/255", 1, none, &one_step, "8/255"),
            ("a training in L2 with a step meant for L∞", L2, "128/255", 20, none, &euclidean, "16/255"),
        ] {
            let found = evaluation_step_size(norm, distance(epsilon), steps, flag.map(distance), run);
            assert_eq!(found.to_string(), expected, "{case}");
        }
    }

    #[test]
    fn a_step_that_follows_from_the_attack_has_no_flaw() {
        for norm in [Linf, L2] {
            for epsilon in ["0", "0.01/255", "1/255", "8/255", "7.3/255", "0.031", "0.5", "1"].map(distance) {
                for steps in 2..200 {
                    let step = default_step_size(epsilon, steps);
                    let attack = Attack::pgd(epsilon, step, steps, norm, 0);
                    assert_eq!(attack.warning(), None);
                    let exact = (2.5 / f64::from(steps)).min(1.0) * epsilon.exact();
                    assert!((step.exact() - exact).abs() <= 0.01 * exact && step <= epsilon, "{attack}");
                }
            }
        }
    }

    #[test]
    fn what_cannot_cross_its_ball_is_named_with_numbers() {
        let pgd =
            |norm, epsilon: &str, step: &str, steps| Attack::pgd(distance(epsilon), distance(step), steps, norm, 0);
        for (attack, expected) in [
            (pgd(Linf, "8/255", "2/255", 20), None),
            (pgd(Linf, "8/255", "2/255", 6), None),
            (pgd(Linf, "8/255", "8/255", 2), None),
            (pgd(Linf, "0", "0", 20), None),
            (pgd(Linf, "0", "2/255", 20), None),
            (Attack::clean(), None),
            (Attack::fgsm(distance("8/255"), Linf), None),
            (Attack { random_start: false, ..pgd(Linf, "8/255", "2/255", 4) }, None),
            (
                Attack { random_start: false, ..pgd(Linf, "8/255", "2/255", 3) },
                Some("3 steps of 2/255 go no further than 6/255, less than 1 · ε = 8/255; from the image"),
            ),
            (
                pgd(L2, "0.5", "2/255", 20),
                Some(
                    "20 steps of 2/255 go no further than 40/255, less than 1.5 · ε = 191.25/255; from a random start",
                ),
            ),
            (pgd(L2, "0.5", "2/255", 20), Some("Use a step size of 15.938/255 (2.5 · ε / steps)")),
            (pgd(Linf, "64/255", "2/255", 20), Some("no further than 40/255, less than 1.5 · ε = 96/255")),
            (pgd(Linf, "8/255", "0", 20), Some("20 steps of 0/255 go no further than 0/255")),
            (pgd(Linf, "8/255", "10/255", 20), Some("a step of 10/255 is longer than ε, 8/255")),
            (pgd(Linf, "8/255", "10/255", 20), Some("Use a step size of 1/255")),
            (pgd(Linf, "8/255", "8/255", 1), Some("Use at least 2 steps")),
            (pgd(Linf, "8/255", "2/255", 0), Some("random noise")),
        ] {
            let found = attack.warning();
            match expected {
                None => assert_eq!(found, None),
                Some(expected) => {
                    let found = found.unwrap();
                    assert!(found.starts_with(&attack.to_string()) && found.contains(expected), "{found}");
                }
            }
        }
        // One step of 10/255 is FGSM from a random start with its usual 1.25 ε (Wong et al. 2020): no jumping with one.
        assert!(
            pgd(Linf, "8/255", "10/255", 1).warning().unwrap().contains("1 step of 10/255 goes no further than 10/255")
        );
    }

    #[test]
    fn a_training_attack_has_the_same_flaws_and_other_consequences() {
        let pgd = |epsilon: &str, step: &str, steps| Attack::pgd(distance(epsilon), distance(step), steps, Linf, 0);
        let from_the_image = |attack: Attack| Attack { random_start: false, ..attack };
        for (attack, expected) in [
            (pgd("8/255", "2/255", 10), None),
            (pgd("0", "2/255", 0), None),
            (pgd("8/255", "2/255", 0), Some("its images are random noise, so that the training is not adversarial")),
            (from_the_image(pgd("8/255", "2/255", 0)), Some("its images are the unperturbed ones, so that")),
            (pgd("8/255", "0", 10), Some("10 steps of 0/255 go no further than 0/255")),
            (pgd("8/255", "1/255", 10), Some("cannot cross its ball and training sees weaker images than ε says. Use")),
            (
                pgd("8/255", "10/255", 10),
                Some("so that training may see weaker images than ε says. Use a step size of"),
            ),
        ] {
            let found = attack.training_warning();
            match expected {
                None => assert_eq!(found, None),
                Some(expected) => {
                    let found = found.unwrap();
                    assert!(found.starts_with("training attack PGD-") && found.contains(expected), "{found}");
                    assert!(!found.contains("accuracy"), "{found}");
                }
            }
        }
    }
}
