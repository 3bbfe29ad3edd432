//! [`AttackSettings`]: what a user may set for the attacks of an evaluation, and the attacks that follow from it.

use super::{Attack, AttackKind, RunSteps, evaluation_step_size};
use crate::engine::Norm;
use crate::units::Epsilon;

/// Default number of PGD steps in an evaluation.
const PGD_STEPS: u32 = 20;

/// Settings for any attack; `None` is the default of each attack, or that of the run. An attack ignores settings that it
/// does not have.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AttackSettings {
    /// Shape of the ball; that of the run's evaluation by default.
    pub norm: Option<Norm>,
    /// Its radius; that of the run's evaluation by default.
    pub epsilon: Option<Epsilon>,
    /// Steps of PGD (20 by default), and of APGD, FAB and CW (as published by default).
    pub steps: Option<u32>,
    /// Step size of PGD; see [`evaluation_step_size`] for the default.
    pub step_size: Option<Epsilon>,
    /// Queries of Square.
    pub queries: Option<u32>,
    /// Target classes of APGD-T and FAB-T.
    pub targets: Option<u32>,
    /// Number of searches from different starts; 1 by default.
    pub restarts: Option<u32>,
    /// Whether PGD counts every iterate.
    pub any_iterate: bool,
    /// Seed of all random numbers.
    pub seed: u64,
}

impl AttackSettings {
    /// Radius and shape of the ball of every attack.
    pub fn ball(&self, run: &RunSteps) -> (Epsilon, Norm) {
        (self.epsilon.unwrap_or(run.eval_epsilon), self.norm.unwrap_or(run.norm))
    }

    /// An attack with these settings, on a network of this run.
    pub fn attack(&self, kind: AttackKind, run: &RunSteps) -> Attack {
        let (epsilon, norm) = self.ball(run);
        let restarts = self.restarts.unwrap_or(1);
        match kind {
            AttackKind::Clean => Attack::clean(),
            AttackKind::Fgsm => Attack::fgsm(epsilon, norm),
            AttackKind::Pgd | AttackKind::PgdTargeted => {
                let steps = self.steps.unwrap_or(PGD_STEPS);
                let step_size = evaluation_step_size(norm, epsilon, steps, self.step_size, run);
                let pgd = Attack::pgd(epsilon, step_size, steps, norm, self.seed);
                Attack { kind, restarts, any_iterate: self.any_iterate && kind == AttackKind::Pgd, ..pgd }
            }
            _ => {
                let published = Attack::published(kind, epsilon, norm, self.seed);
                let given = if kind == AttackKind::Square { self.queries } else { self.steps };
                let steps = given.filter(|_| published.steps > 0).unwrap_or(published.steps);
                let targets = self.targets.filter(|_| published.targets > 0).unwrap_or(published.targets);
                Attack { steps, targets, restarts, ..published }
            }
        }
    }
}
