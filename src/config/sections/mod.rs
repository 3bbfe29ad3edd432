//! The sections of an experiment, one file each.

mod attack;
mod averaging;
mod data;
mod evaluation;
mod fairness;
mod methods;
mod model;
mod optimizer;
mod run;

pub use attack::AttackConfig;
pub use averaging::AveragingConfig;
pub use data::DataConfig;
pub use evaluation::EvaluationConfig;
pub use fairness::{FairnessConfig, MethodChoice, StatisticsSource};
pub use methods::{
    BaseMethod, BatConfig, CfaConfig, DafaConfig, FaalConfig, FatConfig, FatStop, FrlConfig, FrlVariant, LossForm,
    TradesConfig, TradesSearch, TrixConfig, WatConfig,
};
pub use model::ModelConfig;
pub use optimizer::{LastBatch, OptimizerConfig};
pub use run::{DeviceChoice, EngineChoice, EngineOptions, RunConfig};

use super::row::{Entry, Section};

/// The sections in the order of [`Experiment`](super::Experiment), the help and the form.
pub(super) const SECTIONS: [Section; 17] = [
    DataConfig::SECTION,
    ModelConfig::SECTION,
    AttackConfig::SECTION,
    FairnessConfig::SECTION,
    TradesConfig::SECTION,
    CfaConfig::SECTION,
    FrlConfig::SECTION,
    FatConfig::SECTION,
    BatConfig::SECTION,
    WatConfig::SECTION,
    DafaConfig::SECTION,
    FaalConfig::SECTION,
    TrixConfig::SECTION,
    OptimizerConfig::SECTION,
    AveragingConfig::SECTION,
    EvaluationConfig::SECTION,
    RunConfig::SECTION,
];

/// The rows of all fields.
pub(super) fn entries() -> impl Iterator<Item = &'static Entry> {
    SECTIONS.iter().flat_map(|section| section.entries)
}

/// The row of the field at `path`, such as `optimizer.lr`.
pub(super) fn entry(path: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.path == path)
}
