//! Training methods: an inner attack, an outer loss, and what adapts between epochs. One file each.

pub mod adversarial;
pub mod fair_tat;

pub use adversarial::AdversarialTraining;
pub use fair_tat::FairTat;

use crate::config::{Experiment, MethodChoice};
use crate::engine::{Batch, Engine, EngineError, LossSpec, Objective, SearchSpec, Start, View};
use crate::fairness::{ClassStats, TargetDistribution};
use crate::rng::Purpose;

/// What a training method decides.
///
/// A method carries nothing from one epoch to the next but what [`Method::plan`] is given, so a run that is resumed goes
/// on as if it had never stopped.
pub trait Method: Send {
    /// Sets the epoch's radii and targets from the statistics in force, if there are any yet.
    fn plan(&mut self, epoch: u32, statistics: Option<&ClassStats>);

    /// Radius for each true class in this epoch, in `[0, 1]` pixel units.
    fn class_epsilon(&self) -> &[f64];

    /// Distribution that this epoch's targets are drawn from, where there is one.
    fn target_distribution(&self) -> Option<&TargetDistribution>;

    /// What the attack on a batch is led by: away from the true class, towards targets that the method chose, or towards
    /// targets that the engine draws from the method's distribution.
    ///
    /// # Errors
    /// When the engine fails.
    fn objective(&self, engine: &mut dyn Engine, batch: &Batch<'_>) -> Result<Objective, EngineError>;

    /// The inner maximisation of that objective for a batch.
    fn perturbation(&self, batch: &Batch<'_>, objective: Objective) -> SearchSpec;

    /// The outer loss.
    fn loss(&self) -> LossSpec {
        LossSpec::cross_entropy(View::Adversarial)
    }
}

/// The method that an experiment asks for, for `classes` classes.
pub fn build(experiment: &Experiment, classes: usize) -> Box<dyn Method> {
    match experiment.fairness.method {
        MethodChoice::FairTat => Box::new(FairTat::new(experiment, classes)),
        MethodChoice::At => Box::new(AdversarialTraining::new(experiment, classes)),
    }
}

/// Whether the training attack of an experiment leads images towards target classes.
pub fn is_targeted(experiment: &Experiment) -> bool {
    experiment.fairness.method == MethodChoice::FairTat && experiment.fairness.targeted
}

/// What accuracy under the training attack is called where it is shown. A targeted attack is weaker than an untargeted one of
/// the same radius, so that its number must not pass for robust accuracy.
pub const fn train_robust(targeted: bool) -> &'static str {
    if targeted { "train robust, targeted" } else { "train robust" }
}

/// Where a training attack starts in an epoch.
fn start(random: bool, epoch: u32) -> Start {
    if random { Start::Uniform { purpose: Purpose::AttackStart, epoch } } else { Start::Zero }
}
