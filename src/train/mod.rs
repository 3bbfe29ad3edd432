//! Schedules, averaging, the training loop and the run directory it leaves behind.

mod record;
pub mod tensorboard;

pub use record::{ClassRow, MetricsRow};
