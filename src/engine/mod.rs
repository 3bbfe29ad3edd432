//! What runs a network: perturbation, training step, logits, input gradients.
//!
//! An [`Engine`] works on batches, not on tensors, so that one that lives on a GPU can keep everything there: pixels and
//! labels go in, predictions and losses come out. The images of a search stay inside the engine as *views* until the next
//! search begins; [`Views`] is the receipt for them.
//!
//! A search can pause: [`Engine::begin`] prepares it, [`Engine::advance`] takes any number of its steps, and in between the
//! engine answers other questions ([`Engine::logits`] and the like) without disturbing it. Only another search takes its
//! place; [`Engine::set_aside`] and [`Engine::take_up`] keep one for that time.
//!
//! All engines share names ([`crate::model::State`]), random numbers ([`crate::rng`]) and losses ([`loss`]), so that the
//! same experiment can be run, resumed and compared on any of them.

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
pub use loss_spec::{LossSpec, LossTerm, MAX_VIEWS, Reduction, Term, Weights};
pub use search_spec::{Norm, Objective, SearchSpec, Snapshots, Start, Stop};
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

    /// Prepares a batch (augmentation, scaling to `[0, 1]`) and begins the search of `spec` on it: targets, the clean
    /// prediction where the objective needs it, and the start. No step is taken. Gives views of the batch:
    /// [`View::Clean`], [`View::Adversarial`] and those that [`SearchSpec::snapshots`] names.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] when sizes do not fit, or when batch norm in train mode would see one value per channel (one
    /// image, maps of 1×1); [`EngineError::NotFinite`] when the network has diverged.
    fn begin(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError>;

    /// Takes `steps` more of the [`SearchSpec::steps`] of the search that these views belong to. A search that is advanced
    /// in pieces ends with the same bits, running statistics included, as one that is advanced at once, whatever is looked
    /// at in between.
    ///
    /// # Errors
    /// As [`Self::begin`]; also when another search has begun since, or fewer steps are left. After an error of the device
    /// or of the network the views are gone.
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

    /// Copies everything that the search of these views needs to go on later, when other searches have taken its place.
    ///
    /// # Errors
    /// When another search has begun since.
    fn set_aside(&mut self, views: &Views) -> Result<SetAside, EngineError>;

    /// Puts a search back that [`Self::set_aside`] kept, bit for bit. Running statistics are not part of it: other searches
    /// in train mode move them.
    ///
    /// # Errors
    /// When it was kept by an engine for another network, or the device fails.
    fn take_up(&mut self, search: &SetAside) -> Result<Views, EngineError>;

    /// One forward pass in train mode for every view that `loss` names, one backward pass and one SGD step.
    ///
    /// The statistics are those of the network before the step.
    ///
    /// # Errors
    /// As [`Self::begin`]; also when another search has begun since.
    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError>;

    /// Logits, `B × K` in row-major order. In [`BatchNormMode::Train`] the running statistics move.
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
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError>;

    /// The class that each image was led towards by the search that made these views, given or drawn; none where it had no
    /// targets.
    ///
    /// # Errors
    /// When another search has begun since.
    fn targets(&mut self, views: &Views) -> Result<Option<&[u32]>, EngineError>;

    /// Whether each image's gradient was exactly zero, in every value, in at least one step of the search that made these
    /// views. Such a step moved nothing: the search did not see a way up, which does not say that there is none. A search
    /// without steps meets no gradient.
    ///
    /// # Errors
    /// When another search has begun since.
    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError>;

    /// Reads the images of a view back, `B × C × H × W` in `[0, 1]`.
    ///
    /// # Errors
    /// When another search has begun since, or these views do not hold `view`.
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
