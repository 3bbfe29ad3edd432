//! Averages of the weights.

use clap::ArgAction;

use crate::config::Applies::{NextEpoch, Now};
use crate::config::Experiment;
use crate::config::row::{row, zero_to_one};
use crate::config::section::section;

const NO_AVERAGE: &str = "No average of the weights is kept.";

fn no_average(experiment: &Experiment) -> bool {
    !experiment.averaging.ema && !experiment.averaging.fawa
}

section! {
    /// Averages of the weights over epochs.
    pub struct AveragingConfig in averaging "Weight averaging" {
        /// Keep an exponential moving average of the weights, updated after every epoch
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        ema: bool = true, row("EMA weights", NextEpoch);
        /// Keep a fairness-aware average (CFA), updated only after epochs whose worst class is robust enough
        #[arg(value_name = "BOOL", action = ArgAction::Set)]
        fawa: bool = true, row("FAWA weights", NextEpoch);
        /// Share of the old average that is kept at each update
        #[arg(value_name = "SHARE")]
        average_decay: f64 = 0.85,
            row("Decay", Now).range(0.0, 1.0).unit("share").valid("0 to 1", zero_to_one).idle(NO_AVERAGE, no_average);
        /// Robust accuracy on the validation split that the worst class must have for a FAWA update
        #[arg(value_name = "ACCURACY")]
        fawa_threshold: f64 = 0.2,
            row("FAWA threshold", Now).range(0.0, 1.0).unit("accuracy").valid("0 to 1", zero_to_one)
                .idle("The fairness-aware average is not kept.", |e| !e.averaging.fawa);
        /// First epoch that is averaged
        #[arg(value_name = "EPOCH")]
        average_from: u32 = 0,
            row("Average from", Now).range(0.0, 200.0).unit("epoch").idle(NO_AVERAGE, no_average);
    }
}
