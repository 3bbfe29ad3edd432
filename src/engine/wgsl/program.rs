//! Programs: what the engine does for a batch of one size, as a list of dispatches that is recorded once and replayed.
//!
//! Building a program needs no device: buffers are entries of a table. Those with a name ([`Fixed`]) live as long as the
//! engine or the batch size, the others from the first dispatch that mentions them to the last; [`super::memory`] lets
//! these share memory.

use super::kernel::{BufferId, Dispatch, Slice};
use crate::engine::View;

/// Buffers that outlive a program. A number is the range of images (see [`super::lower`]), or the slab.
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
    /// Weights of a convolution as Winograd's algorithm multiplies with them, for tiles of so many outputs.
    Transformed {
        /// Index of the layer.
        layer: usize,
        /// Rows and columns of a tile of the result.
        outputs: usize,
    },
    /// Scale and shift of the input normalisation.
    Normalization,
    /// The numbers of a call that change from one to the next.
    Call,
    /// The same for the search, which may pause while other calls run.
    SearchCall,
    /// Thresholds of the target distribution, `K × K`.
    Thresholds,
    /// Pixels of the batch, as bytes.
    Pixels,
    /// Label, target, number, epsilon and step of each image.
    Info,
    /// The same for the search, with what it knows of each image.
    SearchInfo,
    /// Terms of the outer loss and their weights, in so many words.
    Terms(usize),
    /// Loss and predictions of each image on each view.
    Results,
    /// Whether logits were not finite.
    Flag,
    /// Whether the gradient of an image was not finite, and for each image whether its gradient was zero
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
    /// The same, while [`Self::LastClean`] is shown in the middle of a search, with the current iterate of images that were
    /// never misclassified.
    LastCleanKept(usize),
    /// The first iterate that was.
    FirstAdversarial(usize),
    /// The perturbation.
    Delta(usize),
    /// What the network reads where it is no view.
    Input(usize),
    /// Logits of a forward pass.
    Logits(usize),
    /// Logits on the clean images, for the KL objective.
    Reference(usize),
}

impl Fixed {
    /// Where the images of a view lie.
    pub(super) const fn of_view(view: View) -> fn(usize) -> Self {
        match view {
            View::Clean => Self::Clean,
            View::Adversarial => Self::Adversarial,
            View::LastClean => Self::LastClean,
            View::FirstAdversarial => Self::FirstAdversarial,
        }
    }

    /// Whether it belongs to a batch size; the others belong to the engine.
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

/// A range of a buffer that outlives programs.
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
    /// Its name, or none for a transient one.
    pub(super) home: Option<Fixed>,
    /// What it holds, for people.
    pub(super) label: String,
    /// Whether size and contents depend on how a convolution is computed: workspaces, parts of sums.
    pub(super) scratch: bool,
}

/// What a dispatch belongs to.
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

/// A dispatch with the layer that it is for.
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
    /// Where the host looks at results before the rest runs; the number of steps before it.
    pub(super) pause: Option<usize>,
    /// The gradient with respect to the images, which the host reads after the last step.
    pub(super) image_gradient: Vec<Slice>,
    /// The values that layers gave, and the number of steps after which they are there: for finding out which layer
    /// stopped giving numbers.
    pub(super) outputs: Vec<(usize, usize, Vec<Slice>)>,
}

impl Program {
    /// A buffer of its own, for as long as steps mention it.
    pub(super) fn transient(&mut self, size: u64, label: impl Into<String>) -> Slice {
        self.buffers.push(BufferSpec { size, home: None, label: label.into(), scratch: false });
        Slice { buffer: BufferId(self.buffers.len() - 1), offset: 0, size }
    }

    /// As [`Self::transient`], for what only the next kernels of one computation read: another algorithm leaves other
    /// values here for the same result.
    pub(super) fn scratch(&mut self, size: u64, label: impl Into<String>) -> Slice {
        self.buffers.push(BufferSpec { size, home: None, label: label.into(), scratch: true });
        Slice { buffer: BufferId(self.buffers.len() - 1), offset: 0, size }
    }

    /// A range of a buffer with a name. `whole` is the size of that buffer.
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

    /// First and last step that mentions each buffer, or none.
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
