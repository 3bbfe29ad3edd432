//! Training methods: an inner attack, an outer loss, and what adapts between epochs. One file each.
//!
//! A method describes its paper's algorithm as data: the search ([`Method::search`]), the loss ([`Method::loss`]), and
//! how both follow from the statistics ([`Method::plan`]). It never calls the engine.

pub mod adversarial;
mod base;
pub mod bat;
pub mod cfa;
pub mod dafa;
pub mod faal;
pub mod fair_tat;
pub mod fat;
pub mod frl;
pub mod standard;
pub mod trades;
pub mod trix;
pub mod wat;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use adversarial::AdversarialTraining;
pub use bat::Bat;
pub use cfa::Cfa;
pub use dafa::Dafa;
pub use faal::Faal;
pub use fair_tat::FairTat;
pub use fat::Fat;
pub use frl::Frl;
pub use standard::Standard;
pub use trades::Trades;
pub use trix::Trix;
pub use wat::Wat;

use crate::config::{AttackConfig, Experiment, MethodChoice};
use crate::engine::{Batch, BatchStats, LossSpec, Objective, SearchSpec, Start, loss};
use crate::fairness::{ClassStats, Confusion, TargetDistribution};
use crate::rng::Purpose;

/// The inputs that a method needs in addition to the counts of the training pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// [`Evidence::validation`]: counts on the validation split, also before epoch 0.
    pub validation: bool,
    /// Losses of each class under the training search after every epoch ([`ValidationCounts::costs`]).
    pub costs: bool,
    /// A trained network to start from: the method fine-tunes.
    pub trained_network: bool,
}

/// Counts on the validation split, before an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationCounts {
    /// On unperturbed images.
    pub clean: Confusion,
    /// Under the evaluation attack.
    pub robust: Confusion,
    /// Losses of each class, if the method asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub costs: Option<ClassCosts>,
}

/// Losses on the validation split under the search of training, with batch norm in eval mode: sums over the images of
/// each class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassCosts {
    /// Number of images.
    pub images: Vec<u64>,
    /// Cross-entropy of the true class on unperturbed images.
    pub cross_entropy: Vec<f64>,
    /// `KL(p(x) ‖ p(x + d))`.
    pub divergence: Vec<f64>,
}

impl ClassCosts {
    /// Empty sums.
    pub fn new(classes: usize) -> Self {
        Self { images: vec![0; classes], cross_entropy: vec![0.0; classes], divergence: vec![0.0; classes] }
    }

    /// Whether there are finite sums for `classes` classes; values read from a file may be damaged.
    pub fn is_for(&self, classes: usize) -> bool {
        let whole = |sums: &[f64]| sums.len() == classes && sums.iter().all(|sum| sum.is_finite());
        self.images.len() == classes && whole(&self.cross_entropy) && whole(&self.divergence)
    }

    /// Adds a batch with these logits, `B × K`.
    ///
    /// # Panics
    /// Panics if a label is out of range or logits are missing.
    pub fn add(&mut self, labels: &[u32], clean: &[f32], adversarial: &[f32]) {
        let classes = self.images.len();
        for (i, label) in labels.iter().enumerate() {
            let [clean, adversarial] = [clean, adversarial].map(|logits| &logits[i * classes..][..classes]);
            let class = *label as usize;
            self.images[class] += 1;
            self.cross_entropy[class] -= f64::from(loss::log_softmax(clean)[class]);
            self.divergence[class] += f64::from(loss::kl(clean, adversarial, 0.0, None, None));
        }
    }
}

/// The statistics from which an epoch is planned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Evidence<'a> {
    /// Counts of a training pass, or of the validation split if the experiment selects it; `None` before the first
    /// epoch is done.
    pub statistics: Option<&'a ClassStats>,
    /// Counts on the validation split after the last epoch, if the method needs them.
    pub validation: Option<&'a ValidationCounts>,
    /// What [`Method::observe`] summed up in the last epoch.
    pub sums: Option<&'a Memory>,
}

/// Values of a method by name: the state that it carries from one epoch to the next, in addition to [`Evidence`], or its
/// sums over the batches of an epoch. Part of the checkpoint, so that a resumed run ends with the same bytes.
///
/// In JSON an array of up to [`DENSE_CLASSES`](crate::fairness::DENSE_CLASSES)² numbers is a list; a longer one, such as a
/// table of 1,000 × 1,000 classes, is `{"count": N, "compressed": "..."}`: in base64 the zlib stream of `N` 64-bit floats,
/// little-endian.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Memory(#[serde(with = "stored")] pub BTreeMap<String, Vec<f64>>);

/// The form of [`Memory`] in JSON.
mod stored {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::fairness::DENSE_CLASSES;
    use crate::packed;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Numbers {
        List(Vec<f64>),
        Compressed { count: u64, compressed: String },
    }

    pub(super) fn serialize<S: Serializer>(memory: &BTreeMap<String, Vec<f64>>, to: S) -> Result<S::Ok, S::Error> {
        let stored = |values: &Vec<f64>| -> std::io::Result<Numbers> {
            if values.len() <= DENSE_CLASSES * DENSE_CLASSES {
                return Ok(Numbers::List(values.clone()));
            }
            let compressed = packed::pack_words(values.iter().map(|value| value.to_bits()))?;
            Ok(Numbers::Compressed { count: values.len() as u64, compressed })
        };
        let all: std::io::Result<BTreeMap<&String, Numbers>> =
            memory.iter().map(|(name, values)| Ok((name, stored(values)?))).collect();
        all.map_err(serde::ser::Error::custom)?.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Vec<f64>>, D::Error> {
        let stored = BTreeMap::<String, Numbers>::deserialize(from)?;
        let numbers = |(name, numbers)| match numbers {
            Numbers::List(values) => Ok((name, values)),
            Numbers::Compressed { count, compressed } => match packed::unpack_words(&compressed, count) {
                Ok(words) => Ok((name, words.into_iter().map(f64::from_bits).collect())),
                Err(what) => Err(serde::de::Error::custom(format!("'{name}': {what}"))),
            },
        };
        stored.into_iter().map(numbers).collect()
    }
}

impl Memory {
    /// Whether there is no state.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers under `name`. `None` if they are not `count` finite numbers, as in the memory of another method.
    pub fn numbers(&self, name: &str, count: usize) -> Option<&[f64]> {
        self.0
            .get(name)
            .map(Vec::as_slice)
            .filter(|values| values.len() == count && values.iter().all(|v| v.is_finite()))
    }

    /// The `count` numbers under `name`, to be changed; zeros if there are none.
    pub fn values(&mut self, name: &str, count: usize) -> &mut [f64] {
        let values = self.0.entry(name.to_owned()).or_default();
        values.resize(count, 0.0);
        values
    }
}

/// A class-wise value that a method chooses or adapts, for tables and figures.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassSeries {
    /// Its name: a column of `classes.csv` and a TensorBoard tag.
    pub name: &'static str,
    /// One value for each class.
    pub values: Vec<f64>,
}

/// Effective radius of each class: set by hand if it is held, else by the method's rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Radii(pub Vec<f64>);

impl Radii {
    /// The radius of each image: that of its true class.
    pub fn of(&self, labels: &[u32]) -> Vec<f32> {
        labels.iter().map(|label| self.0[*label as usize] as f32).collect()
    }
}

/// A training method.
pub trait Method: Send {
    /// The inputs that the method needs.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// Sets the epoch's radii, weights and targets. Called once before every epoch, and again with the same memory and
    /// evidence when a run resumes within an epoch.
    fn plan(&mut self, epoch: u32, seen: &Evidence<'_>);

    /// Radius for each true class in this epoch by the method's own rule, in `[0, 1]` pixel units.
    fn class_epsilon(&self) -> &[f64];

    /// Distribution that this epoch's targets are drawn from. `None` if targets are not drawn.
    fn target_distribution(&self) -> Option<&TargetDistribution> {
        None
    }

    /// The inner maximisation for a batch, with the effective radii.
    fn search(&self, batch: &Batch<'_>, radii: &Radii) -> SearchSpec;

    /// The outer loss for a batch.
    fn loss(&self, batch: &Batch<'_>) -> LossSpec;

    /// Adds what the method measures on a finished training batch to the sums of this epoch. They end up in
    /// [`Evidence::sums`] of the next one.
    fn observe(&self, _batch: &Batch<'_>, _stats: &BatchStats, _sums: &mut Memory) {}

    /// The state to carry over to the next epoch.
    fn memory(&self) -> Memory {
        Memory::default()
    }

    /// Restores the state that an earlier [`Self::memory`] returned. Values that are missing or do not fit begin anew.
    fn restore(&mut self, _memory: &Memory) {}

    /// Class-wise values of this epoch other than radii and targets, given its sums.
    fn shown(&self, _sums: &Memory) -> Vec<ClassSeries> {
        Vec::new()
    }
}

/// The method that an experiment asks for, for `classes` classes.
pub fn build(experiment: &Experiment, classes: usize) -> Box<dyn Method> {
    match experiment.fairness.method {
        MethodChoice::FairTat => Box::new(FairTat::new(experiment, classes)),
        MethodChoice::Standard => Box::new(Standard::new(experiment, classes)),
        MethodChoice::At => Box::new(AdversarialTraining::new(experiment, classes)),
        MethodChoice::Trades => Box::new(Trades::new(experiment, classes)),
        MethodChoice::Cfa => Box::new(Cfa::new(experiment, classes)),
        MethodChoice::Frl => Box::new(Frl::new(experiment, classes)),
        MethodChoice::Fat => Box::new(Fat::new(experiment, classes)),
        MethodChoice::Bat => Box::new(Bat::new(experiment, classes)),
        MethodChoice::Wat => Box::new(Wat::new(experiment, classes)),
        MethodChoice::Dafa => Box::new(Dafa::new(experiment, classes)),
        MethodChoice::Faal => Box::new(Faal::new(experiment, classes)),
        MethodChoice::Trix => Box::new(Trix::new(experiment, classes)),
    }
}

/// The label of accuracy under the training attack. A targeted attack is weaker than an untargeted one of the same
/// radius, and some methods do not attack at all: such accuracies must not be mistaken for robust accuracy.
pub fn train_robust(experiment: &Experiment) -> &'static str {
    match (experiment.trains_on_attacked_images(), experiment.is_targeted()) {
        (false, _) => "train, not attacked",
        (true, true) => "train robust, targeted",
        (true, false) => "train robust",
    }
}

/// The training attack that an experiment describes, with `objective`.
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
