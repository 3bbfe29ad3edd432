//! The network.

use std::path::PathBuf;

use serde_json::json;

use crate::config::Applies::Restart;
use crate::config::row::{at_least_one, row};
use crate::config::section::section;
use crate::model::{Architecture, MAX_WIDTH};

section! {
    /// The network.
    pub struct ModelConfig in model "Model" {
        /// Architecture
        #[arg(value_enum, value_name = "NAME")]
        arch: Architecture = Architecture::DigitsCnn, row("Architecture", Restart);
        /// Channels of the first stage instead of the published number; the other stages scale with it
        #[arg(value_name = "CHANNELS")]
        width: Option<usize> = None,
            row("Width", Restart).range(4.0, 256.0).unit("channels").log().unset("as published")
                .first(|e| json!(e.model.arch.default_width()))
                .valid("at least 1", at_least_one)
                .valid("at most 4096", |value| value <= MAX_WIDTH as f64);
        /// Checkpoint or run directory with the initial weights (fine-tuning); unset draws random weights from the
        /// seed. Architecture and input normalisation are those of this run
        #[arg(value_name = "CHECKPOINT")]
        init: Option<PathBuf> = None, row("Start from", Restart).unset("random weights").harmless();
    }
}
