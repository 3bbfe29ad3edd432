//! Training methods: an inner attack, an outer loss, and what adapts between epochs. One file each.
//!
//! A method says what its paper says, as data: which search ([`Method::search`]), which loss ([`Method::loss`]), and how
//! both follow from what was counted ([`Method::plan`]). It never touches the engine.

pub mod adversarial;
pub mod cfa;
pub mod fair_tat;
pub mod frl;
pub mod trades;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use adversarial::AdversarialTraining;
pub use cfa::Cfa;
pub use fair_tat::FairTat;
pub use frl::Frl;
pub use trades::Trades;

use crate::attack::ClassMeans;
use crate::config::{AttackConfig, Experiment, MethodChoice};
use crate::engine::{Batch, LossSpec, Objective, SearchSpec, Start};
use crate::fairness::{ClassStats, Confusion, TargetDistribution};
use crate::rng::Purpose;

/// What a method asks the trainer for, beside the counts of the training pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// [`Evidence::validation`]: counts on the validation split, also before epoch 0.
    pub validation: bool,
    /// With them, mean losses and probabilities of each class ([`ValidationCounts::means`]).
    pub class_means: bool,
    /// A network that is trained already: the method fine-tunes.
    pub trained_network: bool,
}

/// Counts on the validation split, before an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationCounts {
    /// On unperturbed images.
    pub clean: Confusion,
    /// Under the evaluation attack.
    pub robust: Confusion,
    /// Mean losses and probabilities of each class, clean and under the attack, where the method asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub means: Option<[ClassMeans; 2]>,
}

/// What is known when an epoch is planned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// Counts of a training pass, or of the validation split where the experiment asks for those; `None` before the first
    /// epoch is done.
    pub statistics: Option<&'a ClassStats>,
    /// Counts on the validation split after the last epoch, where the method needs them.
    pub validation: Option<&'a ValidationCounts>,
}

/// What a method carries from one epoch to the next, beside [`Evidence`]: values by name. Part of the checkpoint, so that
/// a resumed run ends with the same bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(pub BTreeMap<String, Vec<f64>>);

impl Memory {
    /// Whether there is nothing to carry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The `count` finite numbers under `name`; `None` if there are others, as in a memory of another method.
    pub fn numbers(&self, name: &str, count: usize) -> Option<&[f64]> {
        self.0
            .get(name)
            .map(Vec::as_slice)
            .filter(|values| values.len() == count && values.iter().all(|v| v.is_finite()))
    }
}

/// A value of every class that a method decides or adapts, for tables and figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassSeries {
    /// Its name: a column of `classes.csv`, a tag of TensorBoard.
    pub name: &'static str,
    /// One value for each class.
    pub values: Vec<f64>,
}

/// Radius of each class that is in force: by hand where it is held, else by the method's rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Radii(pub Vec<f64>);

impl Radii {
    /// The radius of each image, which belongs to its true class.
    pub fn of(&self, labels: &[u32]) -> Vec<f32> {
        labels.iter().map(|label| self.0[*label as usize] as f32).collect()
    }
}

/// What a training method decides.
pub trait Method: Send {
    /// What it asks the trainer for.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Sets the epoch's radii, weights and targets. Called once before every epoch, and again with the same memory and
    /// evidence when a run goes on within one.
    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>);

    /// Radius for each true class in this epoch by the method's own rule, in `[0, 1]` pixel units.
    fn class_epsilon(&self) -> &[f64];

    /// Distribution that this epoch's targets are drawn from. `None` where there is none.
    fn target_distribution(&self) -> Option<&TargetDistribution> {
        None
    }

    /// The inner maximisation for a batch, with the radii that are in force.
    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec;

    /// The outer loss for a batch.
    fn loss(&self, batch: &Batch<'_>) -> LossSpec;

    /// What it carries over to the next epoch.
    fn memory(&self) -> Memory {
        Memory::default()
    }

    /// Takes up what an earlier [`Self::memory`] gave. What does not fit is left out.
    fn restore(&mut self, _memory: &Memory) {}

    /// Class-wise values of this epoch, beside radii and targets.
    fn shown(&self) -> Vec<ClassSeries> {
        Vec::new()
    }
}

/// The method that an experiment asks for, for `classes` classes.
pub fn build(experiment: &Experiment, classes: usize) -> Box<dyn Method> {
    match experiment.fairness.method {
        MethodChoice::FairTat => Box::new(FairTat::new(experiment, classes)),
        MethodChoice::At => Box::new(AdversarialTraining::new(experiment, classes)),
        MethodChoice::Trades => Box::new(Trades::new(experiment, classes)),
        MethodChoice::Cfa => Box::new(Cfa::new(experiment, classes)),
        MethodChoice::Frl => Box::new(Frl::new(experiment, classes)),
    }
}

/// What accuracy under the training attack is called where it is shown. A targeted attack is weaker than an untargeted one of
/// the same radius, so that its number must not pass for robust accuracy.
pub const fn train_robust(targeted: bool) -> &'static str {
    if targeted { "train robust, targeted" } else { "train robust" }
}

/// The training attack that an experiment describes, led by `objective`.
fn attack(attack: &AttackConfig, objective: Objective, batch: &Batch<'_>, radii: &Radii) -> SearchSpec {
    let random = Start::Uniform { purpose: Purpose::AttackStart, epoch: batch.epoch };
    SearchSpec {
        objective,
        norm: attack.norm,
        epsilon: radii.of(batch.labels),
        step_size: vec![attack.step_size.value(); batch.len()],
        steps: attack.steps,
        start: if attack.random_start { random } else { Start::Zero },
        batch_norm: attack.attack_bn,
        ..SearchSpec::default()
    }
}
