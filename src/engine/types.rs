//! Inputs and outputs of an engine other than batches, searches and losses.

use super::{Batch, EngineError};
use crate::model::{ModelError, Network, State};

/// Where batch norm takes its statistics from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormMode {
    /// From the batch; every forward pass updates the running statistics (the authors' code)
    Train,
    /// From the running statistics, which do not change
    Eval,
}

/// One version of a batch's images inside an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// Prepared but not perturbed.
    Clean,
    /// The last iterate of the search.
    Adversarial,
    /// The last iterate before an image was first misclassified, if the search kept it
    /// ([`Snapshots`](super::Snapshots)).
    LastClean,
    /// The first misclassified iterate, if the search kept it.
    FirstAdversarial,
}

/// Handle to the views that an engine holds. It is valid until the next search begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Views {
    pub(super) generation: u64,
    pub(super) len: usize,
}

impl Views {
    /// Number of images in each view.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no image. An engine never returns such views.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Images for a forward pass or an input gradient.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A batch, which the engine prepares as for a perturbation.
    Batch(&'a Batch<'a>),
    /// A view of the current search.
    View(&'a Views, View),
    /// Images in `[0, 1]`, `B × C × H × W`, and their labels.
    Images(&'a [f32], &'a [u32]),
}

/// One step of stochastic gradient descent with PyTorch's momentum: `g ← g + decay · p`, `m ← momentum · m + g`,
/// `p ← p - lr · m`, or with Nesterov momentum `p ← p - lr · (g + momentum · m)`, for all parameters, batch norm's
/// included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Factor of the previous momentum buffer.
    pub momentum: f64,
    /// Weight decay (added to the gradient).
    pub weight_decay: f64,
    /// Whether the momentum is Nesterov's.
    pub nesterov: bool,
}

/// Statistics of a training step, measured before its update.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchStats {
    /// The loss.
    pub loss: f64,
    /// Predicted class of each image, for each view that the loss names, in the order of
    /// [`LossSpec::views`](super::LossSpec::views).
    pub predictions: Vec<(View, Vec<u32>)>,
    /// How often each true class (row) was predicted as each class (column), `K × K`, for the same views.
    pub confusion: Vec<(View, Vec<u32>)>,
    /// Logits, `B × K`, for the same views; empty unless [`LossSpec::keep_logits`](super::LossSpec) asks for them.
    pub logits: Vec<(View, Vec<f32>)>,
    /// The factor of each class that [`LossSpec::worst_case`](super::LossSpec) led to, with mean 1; empty without it.
    pub class_factors: Vec<f64>,
    /// For each image, the number of steps that the search could still have taken from misclassified iterates
    /// ([`Stop`](super::Stop)); zeros without a budget.
    pub budgets: Vec<u32>,
}

impl BatchStats {
    /// Predictions on one view; `None` if the loss does not name it.
    pub fn predictions(&self, view: View) -> Option<&[u32]> {
        self.predictions.iter().find(|(v, _)| *v == view).map(|(_, p)| p.as_slice())
    }

    /// Logits on one view; `None` if they were not kept.
    pub fn logits(&self, view: View) -> Option<&[f32]> {
        self.logits.iter().find(|(v, _)| *v == view).map(|(_, z)| z.as_slice())
    }

    /// Confusion counts on one view; `None` if the loss does not name it.
    pub fn confusion(&self, view: View) -> Option<&[u32]> {
        self.confusion.iter().find(|(v, _)| *v == view).map(|(_, counts)| counts.as_slice())
    }
}

/// All state that an engine carries from one step to the next.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EngineState {
    /// Parameters and running statistics.
    pub model: State,
    /// SGD's momentum for every parameter.
    pub momentum: State,
}

impl EngineState {
    /// Checks that there is finite momentum of the right shape for every parameter of `network`. The model is checked
    /// when it is loaded.
    pub(super) fn check_momentum(&self, network: &Network) -> Result<(), EngineError> {
        for spec in network.state_specs().iter().filter(|spec| spec.trained) {
            let what = match self.momentum.0.get(&spec.name) {
                None => format!("momentum of '{}' is missing", spec.name),
                Some(array) if array.shape != spec.shape => {
                    format!("momentum of '{}' has shape {:?}, expected {:?}", spec.name, array.shape, spec.shape)
                }
                Some(array) if !array.data.iter().all(|v| v.is_finite()) => {
                    format!("momentum of '{}' holds values that are not finite", spec.name)
                }
                Some(_) => continue,
            };
            return Err(ModelError::Mismatch { architecture: network.architecture.clone(), what }.into());
        }
        Ok(())
    }
}
