//! What runs a network: perturbation, training step, logits, input gradients.
//!
//! An [`Engine`] works on batches, not on tensors, so that one that lives on a GPU can keep everything there: pixels and
//! labels go in, predictions and losses come out. The images that [`Engine::perturb`] makes stay inside the engine as
//! *views* until the next call; [`Views`] is the receipt for them.
//!
//! All engines share names ([`crate::model::State`]), random numbers ([`crate::rng`]) and losses ([`loss`]), so that the
//! same experiment can be run, resumed and compared on any of them.

mod batch;
pub mod candle;
mod checks;
pub mod loss;
mod loss_spec;
mod search_spec;
mod targets;
mod types;
pub mod wgsl;

pub use batch::{Augment, Batch, Padding};
pub use loss_spec::{LossSpec, LossTerm, Term, Weights};
pub use search_spec::{Norm, Objective, PerturbSpec, Start};
pub use targets::TargetTable;
pub use types::{BatchNormMode, BatchStats, EngineState, Input, SgdStep, View, Views};

pub use wgsl::GpuError;

use crate::model::{Array, BATCH_NORM_MOMENTUM, ModelError, Network, State};

/// What can go wrong in an engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Candle refused an operation: an unsupported device, or no memory.
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
    /// Logits stopped being numbers.
    #[error(
        "training diverged: NaN or infinity in the {what}, in a batch of {batch} images; lower --lr or go back to a \
         checkpoint from before"
    )]
    NotFinite {
        /// Where it was met first, such as `logits` or `output of layer 'layer2.0.conv1'`.
        what: String,
        /// Images in the batch.
        batch: usize,
    },
    /// The engine that was asked for is not in this build or on this machine.
    #[error("{0}")]
    Unavailable(String),
}

/// Runs one network.
///
/// Every call checks its arguments and gives a typed error; none panics. Results are a function of the arguments and the
/// engine's state alone: the same calls give the same bits on the same machine.
pub trait Engine: Send {
    /// Short name and device, such as `candle (cpu, 8 threads)`.
    fn describe(&self) -> String;

    /// Name for tables and files, such as `candle-cpu`.
    fn name(&self) -> String;

    /// The network that this engine runs.
    fn network(&self) -> &Network;

    /// How it computes convolutions, where that is chosen by measuring: what a run keeps, so that it goes on with the same
    /// kernels.
    fn kernels(&self) -> Option<wgsl::KernelTable> {
        None
    }

    /// The inner maximisation: prepares the batch (augmentation, scaling to `[0, 1]`) and searches a perturbation of
    /// every image. Gives views of the batch: [`View::Clean`] and [`View::Adversarial`].
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when sizes do not fit, or when batch norm in train mode would see one value per channel (one
    /// image, maps of 1×1); [`EngineError::NotFinite`] when the network has diverged.
    fn perturb(&mut self, batch: &Batch<'_>, spec: &PerturbSpec) -> Result<Views, EngineError>;

    /// One forward pass in train mode for every view that `loss` names, one backward pass and one SGD step.
    ///
    /// The statistics are those of the network before the step.
    ///
    /// # Errors
    /// As [`Self::perturb`]; also when `views` is older than the last call to it.
    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError>;

    /// Logits, `B × K` in row-major order. In [`BatchNormMode::Train`] the running statistics move.
    ///
    /// # Errors
    /// As [`Self::perturb`].
    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError>;

    /// Logits, and the gradient of each image's `objective` with respect to its pixels in `[0, 1]`, `B × C × H × W`.
    ///
    /// # Errors
    /// As [`Self::perturb`].
    fn input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError>;

    /// The class that each image was led towards by the search that made these views, given or drawn; none where it had no
    /// targets.
    ///
    /// # Errors
    /// When `views` is older than the last call to [`Self::perturb`].
    fn targets(&self, views: &Views) -> Result<Option<&[u32]>, EngineError>;

    /// Whether each image's gradient was exactly zero, in every value, in at least one step of the search that made these
    /// views. Such a step moved nothing: the search did not see a way up, which does not say that there is none. A search
    /// without steps meets no gradient.
    ///
    /// # Errors
    /// When `views` is older than the last call to [`Self::perturb`].
    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError>;

    /// Reads the images of a view back, `B × C × H × W` in `[0, 1]`.
    ///
    /// # Errors
    /// When `views` is older than the last call to [`Self::perturb`] or does not hold `view`.
    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError>;

    /// Reads parameters, running statistics and momentum back.
    ///
    /// # Errors
    /// When the device fails.
    fn state(&mut self) -> Result<EngineState, EngineError>;

    /// Reads the running statistics of all batch norms back, under PyTorch's names.
    ///
    /// # Errors
    /// When the device fails.
    fn running_statistics(&mut self) -> Result<State, EngineError>;

    /// Replaces the running statistics that `running` names. Everything else stays.
    ///
    /// # Errors
    /// [`EngineError::Model`] when one of them does not fit the network.
    fn load_running_statistics(&mut self, running: &State) -> Result<(), EngineError>;

    /// Mean and unbiased variance that every batch norm finds in `input`, from one forward pass in train mode, under the
    /// names of the running statistics. The running statistics themselves stay as they are.
    ///
    /// # Errors
    /// As [`Self::logits`].
    fn batch_statistics(&mut self, input: &Input<'_>) -> Result<State, EngineError> {
        let before = self.running_statistics()?;
        let mut zeros = before.clone();
        zeros.0.values_mut().for_each(|array| array.data.fill(0.0));
        self.load_running_statistics(&zeros)?;
        // From zero, the running statistics move to `momentum` times those of the batch.
        let passed = self.logits(input, BatchNormMode::Train).and_then(|_| self.running_statistics());
        self.load_running_statistics(&before)?;
        let mut found = passed?;
        let unscale = |array: &mut Array| array.data.iter_mut().for_each(|value| *value /= BATCH_NORM_MOMENTUM);
        found.0.values_mut().for_each(unscale);
        Ok(found)
    }

    /// Replaces parameters and running statistics. Momentum stays.
    ///
    /// # Errors
    /// [`EngineError::Model`] when they do not fit the network.
    fn load_model(&mut self, model: &State) -> Result<(), EngineError>;

    /// Replaces everything that [`Self::state`] gives.
    ///
    /// # Errors
    /// [`EngineError::Model`] when it does not fit the network.
    fn load_state(&mut self, state: &EngineState) -> Result<(), EngineError>;
}
