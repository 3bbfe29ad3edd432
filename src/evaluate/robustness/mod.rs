//! An evaluation of a trained network under many attacks: each attack's accuracy, the worst case over all attacks for each
//! image, checks of the attacks themselves, and a report.
//!
//! A plan is a list of attacks ([`Plan`]). The attacks of a suite, such as AutoAttack, run on the images that have
//! withstood the ones before; any other attack runs on all images. Every attack's verdict on every image is kept. An image
//! counts as robust only if it withstands all of them.
//!
//! Finished batches are stored, so that an evaluation that was stopped or killed continues, with the same result.

mod compare;
mod corruptions;
mod fallen;
mod files;
mod plan;
mod result;
mod run;
mod signals;
mod state;

use std::path::PathBuf;

pub use compare::{Compared, Transfer, adversarial_images, classify, csv as compare_csv, markdown as compare_markdown};
pub use corruptions::{Corrupted, CorruptedError, CorruptedImages, CorruptedMean, CorruptedRow, check_fits, corrupted};
pub use fallen::{Fallen, fallen};
pub use files::{Described, ReportFiles, write_npy};
pub use plan::{Budget, Entry, Plan, Role, Suite, Wanted};
pub use result::{Evaluation, Row, TargetCount};
pub use run::{Options, Progress, identity, network_sha256, run, sha256};
pub use signals::signals;
pub use state::{Held, clear, finish, held, sweep};

use crate::engine::EngineError;
use crate::files::FileError;

/// Why an evaluation has no result.
#[derive(Debug, thiserror::Error)]
pub enum RobustnessError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The records of a batch cannot be stored.
    #[error("{path}: {what}")]
    State {
        /// The file.
        path: PathBuf,
        /// The cause.
        what: String,
    },
    /// The directory holds another, unfinished evaluation.
    #[error(
        "{directory} holds an unfinished evaluation with other settings: {differs}. Continue that one with its own \
         settings, name another directory, or replace it with --force"
    )]
    Other {
        /// The directory of the report.
        directory: PathBuf,
        /// What differs.
        differs: String,
    },
    /// Another evaluation uses the directory.
    #[error("another evaluation is writing to {directory}; wait for it, or name another directory")]
    Busy {
        /// The directory of the report.
        directory: PathBuf,
    },
    /// A figure cannot be drawn.
    #[error(transparent)]
    Figure(#[from] super::figures::FigureError),
}
