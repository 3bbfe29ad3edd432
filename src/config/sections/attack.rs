//! The training attack.

use clap::ArgAction;

use crate::config::Applies::{NextEpoch, Now};
use crate::config::Experiment;
use crate::config::row::row;
use crate::config::section::section;
use crate::engine::{BatchNormMode, Norm};
use crate::units::Epsilon;

const NO_STEPS: &str = "The attack takes no steps.";

fn no_steps(experiment: &Experiment) -> bool {
    experiment.attack.steps == 0
}

const NO_ATTACK: &str = "The method trains without an attack.";

fn no_attack(experiment: &Experiment) -> bool {
    !experiment.trains_on_attacked_images()
}

section! {
    /// The training attack (inner maximisation).
    pub struct AttackConfig in attack "Training attack" {
        /// Base radius of the perturbation, such as 8/255
        #[arg(value_name = "K/255")]
        epsilon: Epsilon = Epsilon::levels(8.0), row("Epsilon", NextEpoch).range(0.0, 80.0);
        /// Size of a step
        #[arg(value_name = "K/255")]
        step_size: Epsilon = Epsilon::levels(2.0), row("Step size", Now).range(0.0, 20.0).idle(NO_STEPS, no_steps)
                .idle("The method takes a quarter of the largest radius in the batch.", |e| (e.method().own_step_size)(e));
        /// Number of steps
        #[arg(value_name = "N")]
        steps: u32 = 10, row("Attack steps", Now).range(0.0, 50.0).unit("steps").idle(NO_ATTACK, no_attack);
        /// Shape of the ball
        #[arg(value_enum)]
        norm: Norm = Norm::Linf, row("Norm", NextEpoch);
        /// Start at a random point of the ball
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        random_start: bool = true,
            row("Random start", Now)
                .idle(NO_ATTACK, no_attack)
                .idle("The search of TRADES starts from normal noise.", Experiment::searches_as_trades);
        /// Batch norm during the attack
        #[arg(value_enum)]
        attack_bn: BatchNormMode = BatchNormMode::Train, row("Batch norm", Now).idle(NO_STEPS, no_steps)
                .idle(NO_ATTACK, no_attack)
                .idle("The search of TRADES runs batch norm in eval mode.", Experiment::searches_as_trades);
    }
}
