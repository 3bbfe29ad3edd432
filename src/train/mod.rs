//! Schedules, averaging, the training loop and the run directory it leaves behind.

mod average;
mod checkpoint;
mod events;
pub mod methods;
mod record;
mod run_dir;
mod schedule;
mod setup;
pub mod tensorboard;
mod trainer;

pub use average::Average;
pub use checkpoint::{Checkpoint, Progress};
pub use events::{Event, Observer};
pub use record::{ClassRow, MetricsRow};
pub use run_dir::{RunDir, RunDirError};
pub use schedule::Schedule;
pub use setup::{ChosenEngine, Splits, choose_engine, limited, network, normalisation, open_engine};
pub use trainer::{Outcome, TrainError, Trainer, evaluation_attack};
