//! Programs: an operation of the engine for one batch size, as a list of dispatches that is recorded once and replayed.
//!
//! Building a program needs no device: buffers are entries of a table. Named buffers ([`Fixed`]) live as long as the
//! engine or the batch size. Transient buffers live from the first dispatch that uses them to the last;
//! [`super::memory`] lets them share memory.

use super::kernel::{BufferId, Dispatch, Slice};
use crate::engine::View;

/// Named buffers: they outlive a program. A number is the index of a range of images (see [`super::lower`]) or of a
/// slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fixed {
    /// A slab of parameters.
    Parameters(usize),
    /// Their gradients.
    Gradients(usize),
    /// Their momentum.
    Momentum(usize),
    /// Running means and variances of all batch norms.
    Running,
    /// Weights of a convolution, transformed for Winograd's algorithm.
    Transformed {
        /// Index of the layer.
        layer: usize,
        /// Rows (and columns) of a tile of the result.
        outputs: usize,
    },
    /// Scale and shift of the input normalisation.
    Normalization,
    /// Settings that change from one call to the next.
    Call,
    /// Settings of the search, which may pause while other calls run.
    SearchCall,
    /// Thresholds of the target distribution, `K × K`.
    Thresholds,
    /// Pixels of the batch, as bytes.
    Pixels,
    /// Label, target, number, epsilon and step of each image.
    Info,
    /// The same for the search, with the search state of each image.
    SearchInfo,
    /// Terms of the outer loss and their weights; the number is the length in words.
    Terms(usize),
    /// Loss and predictions of each image on each view.
    Results,
    /// Whether a logit was not finite.
    Flag,
    /// The same for the search.
    SearchFlag,
    /// Whether the gradient of any image was not finite, and for each image whether its gradient was zero
    /// (`kernels::attack::gradient_flags_bytes`).
    GradientFlag,
    /// Confusion counts of the step, `K × K` for each view.
    Counts,
    /// Prepared images.
    Clean(usize),
    /// The iterate of the search.
    Adversarial(usize),
    /// The last iterate before an image was misclassified.
    LastClean(usize),
    /// Backup of [`Self::LastClean`] while that holds, in the middle of a search, the current iterate of images that
    /// were never misclassified.
    LastCleanKept(usize),
    /// The first misclassified iterate.
    FirstAdversarial(usize),
    /// The perturbation.
    Delta(usize),
    /// The network's input, if it is not a view.
    Input(usize),
    /// Logits of a forward pass.
    Logits(usize),
    /// Logits on the clean images, for the KL objective.
    Reference(usize),
}

impl Fixed {
    /// The buffers that hold the images of a view.
    pub(super) const fn of_view(view: View) -> fn(usize) -> Self {
        match view {
            View::Clean => Self::Clean,
            View::Adversarial => Self::Adversarial,
            View::LastClean => Self::LastClean,
            View::FirstAdversarial => Self::FirstAdversarial,
        }
    }

    /// Whether the buffer belongs to a batch size. The others belong to the engine.
    pub(super) const fn of_batch(self) -> bool {
        !matches!(
            self,
            Self::Parameters(_)
                | Self::Gradients(_)
                | Self::Momentum(_)
                | Self::Running
                | Self::Transformed { .. }
                | Self::Normalization
                | Self::Call
                | Self::SearchCall
                | Self::Thresholds
                | Self::Counts
        )
    }
}

/// A range of a named buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) home: Fixed,
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// A buffer of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BufferSpec {
    pub(super) size: u64,
    /// Its name. `None` if it is transient.
    pub(super) home: Option<Fixed>,
    /// Human-readable description of its contents.
    pub(super) label: String,
    /// Whether size and contents depend on how a convolution is computed: workspaces and partial sums.
    pub(super) scratch: bool,
}

/// What a dispatch computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DispatchKind {
    /// Forward pass.
    Forward,
    /// Backward pass to the input of a layer.
    Backward,
    /// Backward pass to parameters.
    Weights,
    /// Losses, search, update.
    Other,
}

/// A dispatch with its layer. `layer` is `None` if it belongs to none.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProgramStep {
    pub(super) layer: Option<usize>,
    pub(super) kind: DispatchKind,
    pub(super) dispatch: Dispatch,
}

/// A list of dispatches over a table of buffers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Program {
    pub(super) buffers: Vec<BufferSpec>,
    pub(super) steps: Vec<ProgramStep>,
    /// Training step: numbers of steps after the forward passes and after the loss, where the host may read results
    /// before the rest runs.
    pub(super) pauses: Option<[usize; 2]>,
    /// Training step: the logits of each view, which the host may read after the forward passes.
    pub(super) logits: Vec<Vec<Slice>>,
    /// The gradient with respect to the images, which the host reads after the last step.
    pub(super) image_gradient: Vec<Slice>,
    /// Outputs of layers: layer, number of steps after which the output is complete, slices. Used to find the layer
    /// whose output is not finite.
    pub(super) outputs: Vec<(usize, usize, Vec<Slice>)>,
}

impl Program {
    /// Adds a transient buffer. It lives while steps use it.
    pub(super) fn transient(&mut self, size: u64, label: impl Into<String>) -> Slice {
        self.buffers.push(BufferSpec { size, home: None, label: label.into(), scratch: false });
        Slice { buffer: BufferId(self.buffers.len() - 1), offset: 0, size }
    }

    /// As [`Self::transient`], for intermediate values that only the kernels of one computation read. Another algorithm
    /// writes other values here for the same result.
    pub(super) fn scratch(&mut self, size: u64, label: impl Into<String>) -> Slice {
        self.buffers.push(BufferSpec { size, home: None, label: label.into(), scratch: true });
        Slice { buffer: BufferId(self.buffers.len() - 1), offset: 0, size }
    }

    /// A range of a named buffer. `whole` is the size of that buffer.
    pub(super) fn fixed(&mut self, place: Place, whole: u64) -> Slice {
        let known = self.buffers.iter().position(|b| b.home == Some(place.home));
        let index = known.unwrap_or_else(|| {
            let label = format!("{:?}", place.home);
            self.buffers.push(BufferSpec { size: whole, home: Some(place.home), label, scratch: false });
            self.buffers.len() - 1
        });
        let spec = &mut self.buffers[index];
        spec.size = spec.size.max(whole);
        Slice { buffer: BufferId(index), offset: place.offset, size: place.size }
    }

    /// Appends a dispatch.
    pub(super) fn push(&mut self, layer: Option<usize>, kind: DispatchKind, dispatch: Dispatch) {
        self.steps.push(ProgramStep { layer, kind, dispatch });
    }

    /// Liveness: the first and last step that use each buffer. `None` if no step does.
    pub(super) fn lives(&self) -> Vec<Option<(usize, usize)>> {
        let mut lives: Vec<Option<(usize, usize)>> = vec![None; self.buffers.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for slice in &step.dispatch.bindings {
                let life = &mut lives[slice.buffer.0];
                *life = Some((life.map_or(i, |(first, _)| first), i));
            }
        }
        lives
    }
}
