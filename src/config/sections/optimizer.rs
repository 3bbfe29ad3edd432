//! The optimiser.

use clap::ArgAction;
use serde::{Deserialize, Serialize};

use crate::config::Applies::{Now, Restart};
use crate::config::Experiment;
use crate::config::Schedule;
use crate::config::row::{above_zero, at_least_one, at_least_zero, row};
use crate::config::section::section;

/// What happens to the images of an epoch that do not fill a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LastBatch {
    /// The epoch is split into batches whose sizes differ by at most one
    Even,
    /// The last batch is smaller than the others, as with PyTorch's DataLoader
    Keep,
    /// They are left out of this epoch
    Drop,
}

const NO_MILESTONES: &str = "Only the schedule multi-step has milestones.";

fn no_milestones(experiment: &Experiment) -> bool {
    experiment.optimizer.schedule != Schedule::MultiStep
}

section! {
    /// Optimiser (outer minimisation).
    pub struct OptimizerConfig in optimizer "Optimiser" {
        /// Passes over the training images
        #[arg(value_name = "N")]
        epochs: u32 = 200,
            row("Epochs", Now).range(1.0, 200.0).unit("epochs").valid("at least 1", at_least_one);
        /// Images in a batch
        #[arg(value_name = "N")]
        batch_size: usize = 128,
            row("Batch size", Restart).range(8.0, 1024.0).unit("images").log().valid("at least 1", at_least_one);
        /// What happens to the images of an epoch that do not fill a batch
        #[arg(value_enum)]
        last_batch: LastBatch = LastBatch::Even, row("Last batch", Restart);
        /// Largest learning rate
        #[arg(value_name = "RATE")]
        lr: f64 = 0.1, row("Learning rate", Now).range(1e-4, 1.0).log().valid("a number above 0", above_zero);
        /// How the learning rate falls
        #[arg(value_enum)]
        schedule: Schedule = Schedule::Step3, row("Schedule", Now);
        /// Epochs, counted from 0, at which the schedule multi-step multiplies the rate by a factor; separated by
        /// commas
        #[arg(value_delimiter = ',', num_args = 0.., value_name = "EPOCHS")]
        milestones: Vec<u32> = vec![100, 150],
            row("Milestones", Now).range(1.0, 200.0).valid("at least 1", at_least_one).idle(NO_MILESTONES, no_milestones);
        /// Factors of the schedule multi-step, separated by commas: one for each milestone, or one for all
        #[arg(id = "lr-decay", value_delimiter = ',', num_args = 0.., value_name = "FACTORS")]
        decay: Vec<f64> = vec![0.1],
            row("Decay factors", Now).range(0.01, 1.0).valid("a number above 0", above_zero)
                .idle(NO_MILESTONES, no_milestones);
        /// Momentum of SGD
        #[arg(value_name = "SHARE")]
        momentum: f64 = 0.9,
            row("Momentum", Now).range(0.0, 0.99).unit("share")
                .valid("at least 0 and below 1", |value| (0.0..1.0).contains(&value));
        /// Nesterov momentum
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        nesterov: bool = false, row("Nesterov", Now).idle("There is no momentum.", |e| e.optimizer.momentum == 0.0);
        /// Weight decay of SGD, for all parameters
        #[arg(value_name = "RATE")]
        weight_decay: f64 = 5e-4,
            row("Weight decay", Now).range(0.0, 0.01).log().valid("at least 0", at_least_zero);
    }
}
