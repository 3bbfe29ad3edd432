//! The [`Engine`] trait: perturbation, training step, logits and input gradients of one network.
//!
//! An [`Engine`] works on batches, not on tensors, so that an engine on a GPU can keep all data there: pixels and
//! labels go in, predictions and losses come out. The images of a search stay inside the engine as *views* until the
//! next search begins; [`Views`] is the handle to them.
//!
//! A search can pause: [`Engine::begin`] prepares it and [`Engine::advance`] takes any number of its steps. Between
//! steps, other calls ([`Engine::logits`] and the like) do not disturb it. Only another search replaces it;
//! [`Engine::set_aside`] and [`Engine::take_up`] save and restore a search across that.
//!
//! All engines share names ([`crate::model::State`]), random numbers ([`crate::rng`]) and losses ([`loss`]), so that
//! the same experiment can be run, resumed and compared on any of them.

mod batch;
pub mod candle;
mod checks;
mod held;
pub mod loss;
mod loss_spec;
mod search_spec;
mod targets;
mod types;
pub mod wgsl;

pub use batch::{Augment, Batch, Padding};
pub use held::SetAside;
pub use loss::GradientScale;
pub use loss_spec::{LossSpec, LossTerm, MAX_VIEWS, Reduction, Term, Weights, WorstCase};
pub use search_spec::{Norm, Objective, SearchSpec, Snapshots, Start, Stop};
pub use targets::TargetTable;
pub use types::{BatchNormMode, BatchStats, EngineState, Input, SgdStep, View, Views};

pub use wgsl::GpuError;

use crate::memory::TooLarge;
use crate::model::{Array, BATCH_NORM_MOMENTUM, ModelError, Network, State};

/// What can go wrong in an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A Candle operation failed, for example on an unsupported device or for lack of memory.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
    /// Parameters do not fit the network.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A batch or specification contradicts itself or the network.
    #[error("{0}")]
    Invalid(String),
    /// The GPU failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The logits hold NaN or infinity.
    #[error(
        "training diverged: NaN or infinity in the {what}, in a batch of {batch} images; lower --lr or go back to a \
         checkpoint from before"
    )]
    NotFinite {
        /// Where it was found first, such as `logits` or `output of layer 'layer2.0.conv1'`.
        what: String,
        /// Images in the batch.
        batch: usize,
    },
    /// The network and its batch do not fit the memory of this machine.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The requested engine is not part of this build or not available on this machine.
    #[error("{0}")]
    Unavailable(String),
    /// [`Cancel`] asked to stop while the engine was being opened.
    #[error("stopped while the engine was being opened")]
    Stopped,
}

/// Asked between the steps of an operation that takes long: whether to stop.
pub type Cancel<'a> = &'a mut dyn FnMut() -> bool;

/// Runs one network.
///
/// Every call checks its arguments and returns a typed error; none panics. Results depend only on the arguments and the
/// engine's state: the same calls give the same bits on the same machine.
pub trait Engine: Send {
    /// Short name and device, such as `candle (cpu, 8 threads)`.
    fn describe(&self) -> String;

    /// Name for tables and files, such as `candle-cpu`.
    fn name(&self) -> String;

    /// The network that this engine runs.
    fn network(&self) -> &Network;

    /// The kernels that an autotuned engine chose for its convolutions; `None` if it does not measure them. A run
    /// stores this table so that it resumes with the same kernels.
    fn kernels(&self) -> Option<wgsl::KernelTable> {
        None
    }

    /// Prepares a batch (augmentation, scaling to `[0, 1]`) and begins the search of `spec` on it: chooses targets,
    /// computes the clean prediction if the objective needs it, and sets the starting point. Takes no step. Returns
    /// views of the batch: [`View::Clean`], [`View::Adversarial`] and those that [`SearchSpec::snapshots`] names.
    ///
    /// # Errors
    /// Returns [`EngineError::Invalid`] if sizes do not fit, or if batch norm in train mode would see one value per
    /// channel (one image, maps of 1×1); [`EngineError::NotFinite`] if the network has diverged.
    fn begin(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError>;

    /// Takes `steps` more of the [`SearchSpec::steps`] of the search that these views belong to. A search that is
    /// advanced in several calls ends with the same bits, running statistics included, as one that is advanced in one
    /// call, whatever other calls happen in between.
    ///
    /// # Errors
    /// As [`Self::begin`]; also if another search has begun since, or fewer steps are left. After an error of the
    /// device or of the network the views are invalid.
    fn advance(&mut self, views: &Views, steps: u32) -> Result<(), EngineError>;

    /// A whole search: [`Self::begin`], then [`Self::advance`] by [`SearchSpec::steps`].
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn perturb(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError> {
        let views = self.begin(batch, spec)?;
        self.advance(&views, spec.steps)?;
        Ok(views)
    }

    /// Copies everything that is needed to continue the search of these views after other searches have replaced it.
    ///
    /// # Errors
    /// Returns an error if another search has begun since.
    fn set_aside(&mut self, views: &Views) -> Result<SetAside, EngineError>;

    /// Restores a search that [`Self::set_aside`] saved, bit for bit. Running statistics are not part of it: other
    /// searches in train mode change them.
    ///
    /// # Errors
    /// Returns an error if the search was saved by an engine for another network, or if the device fails.
    fn take_up(&mut self, search: &SetAside) -> Result<Views, EngineError>;

    /// One forward pass in train mode for every view that `loss` names, one backward pass and one SGD step.
    ///
    /// The returned statistics are those of the network before the step.
    ///
    /// # Errors
    /// As [`Self::begin`]; also if another search has begun since.
    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError>;

    /// Logits, `B × K` in row-major order. [`BatchNormMode::Train`] updates the running statistics.
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError>;

    /// Logits, and the gradient of each image's `objective` with respect to its pixels in `[0, 1]`, `B × C × H × W`.
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        self.scaled_input_gradient(input, objective, GradientScale::True, mode)
    }

    /// As [`Self::input_gradient`], in the given scale. Attacks that need only a direction ask for
    /// [`GradientScale::PerImage`], which does not underflow; in train mode it makes sense only without batch norm
    /// ([`GradientScale::of_search`]).
    ///
    /// # Errors
    /// As [`Self::begin`].
    fn scaled_input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        scale: GradientScale,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError>;

    /// Whether each number of images in a batch costs this engine preparation and memory, so that a caller should use
    /// few of them.
    fn prefers_few_sizes(&self) -> bool {
        false
    }

    /// The target class of each image in the search that made these views, given or drawn; `None` if the objective has
    /// no targets.
    ///
    /// # Errors
    /// Returns an error if another search has begun since.
    fn targets(&mut self, views: &Views) -> Result<Option<&[u32]>, EngineError>;

    /// Whether each image's gradient was exactly zero, in every value, in at least one step of the search that made
    /// these views. Such a step follows no gradient: the search found no direction of ascent, which does not prove that none
    /// exists. A search without steps computes no gradient.
    ///
    /// # Errors
    /// Returns an error if another search has begun since.
    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError>;

    /// Reads back the images of a view, `B × C × H × W` in `[0, 1]`.
    ///
    /// # Errors
    /// Returns an error if another search has begun since, or if these views do not include `view`.
    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError>;

    /// Reads back parameters, running statistics and momentum.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    fn state(&mut self) -> Result<EngineState, EngineError>;

    /// Reads back the running statistics of all batch norms, under PyTorch's names.
    ///
    /// # Errors
    /// Returns an error if the device fails.
    fn running_statistics(&mut self) -> Result<State, EngineError>;

    /// Replaces the running statistics that `running` names; everything else is unchanged.
    ///
    /// # Errors
    /// Returns [`EngineError::Model`] if one of them does not fit the network.
    fn load_running_statistics(&mut self, running: &State) -> Result<(), EngineError>;

    /// Mean and unbiased variance of `input` at every batch norm, from one forward pass in train mode, under the names
    /// of the running statistics. The running statistics themselves do not change.
    ///
    /// # Errors
    /// As [`Self::logits`].
    fn batch_statistics(&mut self, input: &Input<'_>) -> Result<State, EngineError> {
        let before = self.running_statistics()?;
        let mut zeros = before.clone();
        zeros.0.values_mut().for_each(|array| array.data.fill(0.0));
        self.load_running_statistics(&zeros)?;
        // Starting from zero, one update sets the running statistics to `momentum` times those of the batch.
        let passed = self.logits(input, BatchNormMode::Train).and_then(|_| self.running_statistics());
        self.load_running_statistics(&before)?;
        let mut found = passed?;
        let unscale = |array: &mut Array| array.data.iter_mut().for_each(|value| *value /= BATCH_NORM_MOMENTUM);
        found.0.values_mut().for_each(unscale);
        Ok(found)
    }

    /// Replaces parameters and running statistics; momentum is unchanged.
    ///
    /// # Errors
    /// Returns [`EngineError::Model`] if they do not fit the network.
    fn load_model(&mut self, model: &State) -> Result<(), EngineError>;

    /// Replaces everything that [`Self::state`] returns.
    ///
    /// # Errors
    /// Returns [`EngineError::Model`] if it does not fit the network.
    fn load_state(&mut self, state: &EngineState) -> Result<(), EngineError>;
}
