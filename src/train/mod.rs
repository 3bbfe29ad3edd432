//! Schedules, averaging, the training loop and the run directory it leaves behind.

mod record;

pub use record::{ClassRow, MetricsRow};
