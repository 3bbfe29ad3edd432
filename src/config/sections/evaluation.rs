//! The evaluation after each epoch and at the end.

use serde_json::json;

use crate::config::Applies::Now;
use crate::config::row::{at_least_one, row};
use crate::config::section::section;
use crate::units::Epsilon;

section! {
    /// The evaluation on the validation split after each epoch, and on the test set at the end: PGD in eval mode.
    pub struct EvaluationConfig in evaluation "Evaluation" {
        /// Steps of PGD on the validation split
        #[arg(value_name = "N")]
        eval_steps: u32 = 10,
            row("Val. steps", Now).range(1.0, 100.0).unit("steps").valid("at least 1", at_least_one);
        /// Steps of PGD on the test set after the last epoch; 0 skips that evaluation
        #[arg(value_name = "N")]
        test_steps: u32 = 20, row("Test steps", Now).range(0.0, 100.0).unit("steps");
        /// Radius; unset uses the base radius of the training attack
        #[arg(value_name = "K/255")]
        eval_epsilon: Option<Epsilon> = None,
            row("Eval. epsilon", Now).range(0.0, 80.0).unset("as in training").first(|e| json!(e.attack.epsilon));
        /// Step size; unset uses the step size of training if the radius is that of training and the steps can cross
        /// the ball with it, else 2.5 · radius / steps
        #[arg(value_name = "K/255")]
        eval_step_size: Option<Epsilon> = None,
            row("Eval. step size", Now).range(0.0, 20.0).unset("for the attack").first(|e| json!(e.attack.step_size));
        /// Batch size of evaluations; results do not depend on it
        #[arg(value_name = "N")]
        eval_batch_size: usize = 256,
            row("Eval. batch", Now).range(16.0, 1024.0).unit("images").log().valid("at least 1", at_least_one).harmless();
        /// Number of training batches over which batch norm's running statistics are recomputed as plain averages
        /// before each evaluation; 0 uses the running statistics of training
        #[arg(value_name = "N")]
        recalibrate_bn: u32 = 0, row("Recalibrate BN", Now).range(0.0, 100.0).unit("batches");
    }
}
