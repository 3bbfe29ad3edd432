//! Which algorithm and which tile computes each convolution.
//!
//! The fixed choice depends on the layer's shape alone, so that a run gives the same bits on every start.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::kernels::conv::{Conv, Pass};
use super::kernels::gemm::Tile;
use super::kernels::winograd;

/// How a pass of a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Algorithm {
    /// One matrix product whose patches are gathered while it runs.
    ImplicitGemm {
        /// Its tile.
        tile: Tile,
    },
    /// F(M×M, 3×3).
    Winograd {
        /// M: 2 or 4.
        outputs: usize,
        /// Of its matrix products.
        tile: Tile,
    },
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ImplicitGemm { tile } => write!(f, "implicit GEMM {tile}"),
            Self::Winograd { outputs, tile } => write!(f, "Winograd F({outputs},3) {tile}"),
        }
    }
}

/// Fewest channels on either side for which transforming tiles costs less than it saves.
const WINOGRAD_CHANNELS: usize = 12;

/// The choice for every convolution of a network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choices {
    /// Where a measurement said otherwise than [`fixed`].
    pub(super) measured: BTreeMap<(Conv, Pass), Algorithm>,
    /// Whether Winograd's algorithm and kernels that do several layers' work are left out.
    pub(super) plain: bool,
}

impl Choices {
    /// Plain matrix products and a kernel for each layer: the oracle of everything faster.
    pub(super) fn plain() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// How `pass` of `conv` is computed.
    pub(super) fn of(&self, conv: &Conv, pass: Pass) -> Algorithm {
        if self.plain {
            return Algorithm::ImplicitGemm { tile: conv.tile(pass) };
        }
        self.measured.get(&(*conv, pass)).copied().unwrap_or_else(|| fixed(conv, pass))
    }
}

/// The choice without a measurement.
pub(super) fn fixed(conv: &Conv, pass: Pass) -> Algorithm {
    let narrow = conv.in_channels.min(conv.out_channels) < WINOGRAD_CHANNELS;
    if pass == Pass::WeightGradient || narrow || !winograd::fits(conv) {
        return Algorithm::ImplicitGemm { tile: conv.tile(pass) };
    }
    let outputs = 4;
    Algorithm::Winograd { outputs, tile: winograd::fixed_tile(conv, pass, outputs) }
}
