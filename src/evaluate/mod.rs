//! Evaluation of a trained network: accuracy under attack, reports and figures.

pub mod bench;
pub mod figures;
#[cfg(test)]
mod many_classes_tests;
mod report;
pub mod robustness;
pub mod signatures;

pub use report::{FinalReport, ReportError, WeightsReport, examples, figure_context, finish};
