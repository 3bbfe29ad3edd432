//! Attacks for evaluation: the same ball for every image, the network in eval mode, the worst of several restarts.
//!
//! FGSM and PGD are searches of the engine; their images stay on its device. The others move the images on the host and
//! ask the engine for logits and gradients (`oracle`). What an attack does to an image depends on that image, its number
//! and the seed alone, never on the other images of a batch.

mod apgd;
mod cw;
mod fab;
mod geometry;
#[cfg(test)]
mod golden_tests;
mod kind;
mod limits;
mod measure;
mod oracle;
mod run;
#[cfg(test)]
mod run_tests;
mod settings;
mod square;
mod step_size;

pub use kind::{Attack, AttackKind, norm_name};
pub use limits::{check_distance, largest_distance};
pub(crate) use measure::warn_without_gradient;
pub use measure::{ClassAccuracy, Measured, Report, describe_without_gradient, describe_worst_class, measure};
pub use oracle::{AttackError, Cost};
pub use run::Predictions;
pub use settings::AttackSettings;
pub use step_size::{RunSteps, default_step_size, evaluation_step_size};
