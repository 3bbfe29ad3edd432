//! Values that a convolution computes on load (shared/read.wgsl), so that they need not be materialised.

use crate::engine::wgsl::kernel::Slice;

/// How a value is computed from a tensor in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::engine::wgsl) enum Read {
    /// The tensor is the value.
    #[default]
    Plain,
    /// Batch norm of the tensor, with an optional ReLU after it. `norm`: scale, shift, mean, rstd, `4 × C`.
    Norm { norm: Slice, relu: bool },
    /// The backward pass of such a batch norm with input `input`: the tensor is the gradient of its output. `means` as
    /// [`super::norm::backward_finalize`] computes them; `None` if the statistics were constants.
    NormBackward { norm: Slice, relu: bool, input: Slice, means: Option<Slice> },
}

/// Constants of shared/read.wgsl, in the order NORM, RELU, BACKWARD, BATCH.
pub(super) type Flags = [u32; 4];

impl Read {
    pub(super) fn flags(&self) -> Flags {
        match self {
            Self::Plain => [0; 4],
            Self::Norm { relu, .. } => [1, u32::from(*relu), 0, 0],
            Self::NormBackward { relu, means, .. } => [0, u32::from(*relu), 1, u32::from(means.is_some())],
        }
    }

    /// `norm`, `norm_input` and `norm_means`, those that are used.
    pub(super) fn bindings(&self) -> Vec<Slice> {
        match self {
            Self::Plain => Vec::new(),
            Self::Norm { norm, .. } => vec![*norm],
            // With constant statistics and without ReLU, the input is not needed.
            Self::NormBackward { norm, relu: false, means: None, .. } => vec![*norm],
            Self::NormBackward { norm, input, means, .. } => [*norm, *input].into_iter().chain(*means).collect(),
        }
    }

    /// Operations per value, and loads per value.
    pub(super) const fn cost(&self) -> (u64, u64) {
        match self {
            Self::Plain => (0, 1),
            Self::Norm { .. } => (2, 1),
            Self::NormBackward { .. } => (8, 2),
        }
    }
}

pub(super) fn constants(flags: Flags) -> [(&'static str, u32); 4] {
    let [norm, relu, backward, batch] = flags;
    [("NORM", norm), ("RELU", relu), ("BACKWARD", backward), ("BATCH", batch)]
}

/// Flags of forward passes: a value, or its batch norm with and without ReLU.
#[cfg(test)]
pub(super) const FORWARD_FLAGS: [Flags; 3] = [[0; 4], [1, 0, 0, 0], [1, 1, 0, 0]];
/// Flags of backward passes: a gradient, or the backward pass of batch norm applied to it.
#[cfg(test)]
pub(super) const BACKWARD_FLAGS: [Flags; 5] = [[0; 4], [0, 0, 1, 0], [0, 0, 1, 1], [0, 1, 1, 0], [0, 1, 1, 1]];
