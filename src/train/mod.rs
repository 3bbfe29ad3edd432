//! The training loop, averaging and the run directory.

mod average;
mod batches;
mod checkpoint;
mod comparison;
mod engine_record;
mod evaluation;
mod events;
mod initial;
pub mod methods;
mod probe;
mod recalibrate;
mod record;
mod run_dir;
mod setup;
mod stored;
pub mod tensorboard;
mod trainer;
mod warnings;
mod watch;

pub use average::Average;
pub use batches::Batches;
pub use checkpoint::{Checkpoint, Progress};
pub use comparison::{ValidationChange, ValidationSetting, uninterrupted, validation_changes};
pub use engine_record::EngineRecord;
pub use evaluation::{evaluation_attack, run_steps, training_attack};
pub use events::{Event, Observer};
pub use initial::InitialRecord;
pub use probe::probe_logits;
pub use recalibrate::RunningAverage;
pub use record::{ClassRow, MetricsRow, changes_between};
pub use run_dir::{KeptBest, RunDir, RunDirError};
pub use setup::{Splits, limited, network, normalisation};
pub use stored::{StoredError, StoredNetwork};
pub use trainer::{Change, Live, Outcome, TrainError, Trainer, check_classes};
pub use warnings::run_warnings;
pub use watch::{Examples, Hold, WatchRequest};
