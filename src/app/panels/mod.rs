//! One file a panel.

pub mod compare;
pub mod examples;
pub mod experiment;
pub mod fairness;
pub mod inspector;
pub mod learn;
pub mod log;
pub mod training;
pub mod watch;
