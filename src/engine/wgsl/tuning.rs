//! Which algorithm and which tile computes each convolution.
//!
//! The fixed choice depends only on the layer's shape and on whether the matrix products use subgroups, so that a run
//! gives the same bits on every start. Choices that [`super::autotune`] measured on a device take precedence over it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::device::{Checks, Gpu};
use super::kernels::conv::{Conv, Pass};
use super::kernels::gemm::{BROADCAST_TILES, BROADCAST_WEIGHTS, PIXEL_TILES, Tile, WEIGHT_TILES};
use super::kernels::{gemm, winograd};
use super::shader;

/// How algorithm and tile of each convolution are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tuning {
    /// By its shape and by whether subgroups are used: the same on every start.
    #[default]
    Fixed,
    /// By measurement on the device, for at most three seconds at the first start. On a software adapter the same as
    /// [`Self::Fixed`].
    Auto,
    /// By measurement on any device, for at most this time.
    Measured(Duration),
}

/// How a pass of a convolution is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Algorithm {
    /// Implicit GEMM: one matrix product that gathers its patches while it runs.
    ImplicitGemm {
        /// Tile of the product.
        tile: Tile,
    },
    /// F(M×M, 3×3).
    Winograd {
        /// M: 2 or 4.
        outputs: usize,
        /// Tile of its matrix products.
        tile: Tile,
    },
}

impl Algorithm {
    /// M of Winograd's F(M×M, 3×3).
    pub(super) const fn outputs(self) -> Option<usize> {
        match self {
            Self::ImplicitGemm { .. } => None,
            Self::Winograd { outputs, .. } => Some(outputs),
        }
    }

    /// Whether a kernel exists for this choice and pass, on a device with or without subgroups. Choices read from a
    /// file must be tested: their tile becomes a constant of a shader that does not check its indices.
    pub(super) fn is_for(self, conv: &Conv, pass: Pass, subgroups: bool) -> bool {
        let (Self::ImplicitGemm { tile } | Self::Winograd { tile, .. }) = self;
        let is_broadcast = subgroups && BROADCAST_TILES.contains(&tile);
        match (self, pass) {
            (Self::ImplicitGemm { .. }, Pass::WeightGradient) => {
                WEIGHT_TILES.contains(&tile) || is_broadcast && tile == BROADCAST_WEIGHTS
            }
            (Self::ImplicitGemm { .. }, _) => PIXEL_TILES.contains(&tile) || is_broadcast,
            (Self::Winograd { .. }, Pass::WeightGradient) => false,
            (Self::Winograd { outputs, .. }, _) => {
                let has_tile = wide_tiles().contains(&tile) || is_broadcast;
                matches!(outputs, 2 | 4) && winograd::fits(conv) && has_tile
            }
        }
    }
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ImplicitGemm { tile } => write!(f, "implicit GEMM {tile}"),
            Self::Winograd { outputs, tile } => write!(f, "Winograd F({outputs},3) {tile}"),
        }
    }
}

/// Tiles of more than four columns: all but the last, which is for the gradient of images.
pub(super) fn wide_tiles() -> &'static [Tile] {
    const TILES: &[Tile] = &PIXEL_TILES;
    TILES.split_last().map_or(TILES, |(_, wide)| wide)
}

/// Fewest input and output channels for which transforming tiles costs less than it saves.
const WINOGRAD_CHANNELS: usize = 12;

/// The measured time of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Timing {
    /// Time of the choice.
    pub(super) milliseconds: f64,
    /// Time of the fixed choice.
    pub(super) fixed_milliseconds: f64,
    /// Number of images in both measurements.
    pub(super) images: usize,
}

/// The choice for every convolution of a network.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Choices {
    /// Measured choices; they take precedence over [`fixed`].
    pub(super) measured: BTreeMap<(Conv, Pass), Algorithm>,
    /// Measured times, where known.
    pub(super) timings: BTreeMap<(Conv, Pass), Timing>,
    /// Whether Winograd's algorithm and fused kernels are disabled.
    pub(super) plain: bool,
    /// Whether the matrix products broadcast values within subgroups.
    pub(super) subgroups: bool,
    /// A batch norm whose backward pass is materialised instead of fused into its consumers, so that it can be
    /// compared.
    pub(super) written: Option<usize>,
}

impl Choices {
    /// Plain matrix products and one kernel per layer: the reference that faster kernels are compared with.
    pub(super) fn plain() -> Self {
        Self { plain: true, ..Self::default() }
    }

    /// How `pass` of `conv` is computed.
    pub(super) fn of(&self, conv: &Conv, pass: Pass) -> Algorithm {
        if self.plain {
            return Algorithm::ImplicitGemm { tile: conv.tile(pass) };
        }
        self.measured.get(&(*conv, pass)).copied().unwrap_or_else(|| fixed(conv, pass, self.subgroups))
    }

    /// The tile of `pass` of `conv` where it is computed as an implicit product.
    pub(super) fn product_tile(&self, conv: &Conv, pass: Pass) -> Tile {
        match self.of(conv, pass) {
            Algorithm::ImplicitGemm { tile } => tile,
            Algorithm::Winograd { .. } => product_tile(conv, pass, self.subgroups),
        }
    }

    /// Adopts the choices of a table for which kernels exist.
    pub(super) fn take(&mut self, rows: &[KernelChoice]) {
        for row in rows.iter().filter(|row| row.algorithm.is_for(&row.shape, row.pass, self.subgroups)) {
            self.measured.insert((row.shape, row.pass), row.algorithm);
            match row.timing {
                Some(timing) => self.timings.insert((row.shape, row.pass), timing),
                None => self.timings.remove(&(row.shape, row.pass)),
            };
        }
    }

    /// The table row of `pass` of `conv`.
    pub(super) fn row(&self, conv: &Conv, pass: Pass, layers: Vec<String>) -> KernelChoice {
        KernelChoice {
            layers,
            shape: *conv,
            pass,
            algorithm: self.of(conv, pass),
            fixed: fixed(conv, pass, self.subgroups),
            timing: self.timings.get(&(*conv, pass)).copied().filter(|_| !self.plain),
        }
    }
}

/// The choice without a measurement, on a device with or without subgroups.
pub(super) fn fixed(conv: &Conv, pass: Pass, subgroups: bool) -> Algorithm {
    let narrow = conv.in_channels.min(conv.out_channels) < WINOGRAD_CHANNELS;
    if pass == Pass::WeightGradient || narrow || !winograd::fits(conv) {
        return Algorithm::ImplicitGemm { tile: product_tile(conv, pass, subgroups) };
    }
    let outputs = 4;
    let tile = broadcast_tile(conv, pass, subgroups).unwrap_or_else(|| winograd::fixed_tile(conv, pass, outputs));
    Algorithm::Winograd { outputs, tile }
}

/// The fixed tile of an implicit product.
fn product_tile(conv: &Conv, pass: Pass, subgroups: bool) -> Tile {
    broadcast_tile(conv, pass, subgroups).unwrap_or_else(|| conv.tile(pass))
}

fn broadcast_tile(conv: &Conv, pass: Pass, subgroups: bool) -> Option<Tile> {
    match pass {
        _ if !subgroups => None,
        Pass::Forward => gemm::broadcast_tile(conv.out_channels),
        Pass::InputGradient => gemm::broadcast_tile(conv.in_channels),
        Pass::WeightGradient => Some(BROADCAST_WEIGHTS),
    }
}

/// What measured times are valid for: another adapter, driver or program has other times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDevice {
    /// Name of the adapter.
    pub adapter: String,
    /// `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Name and version of the driver.
    pub driver: String,
    /// Versions of this program and of its shader compiler.
    pub program: String,
    /// SHA-256 of all shader sources and of how they are compiled: with checks, with immediates, with subgroups.
    pub shaders: String,
}

impl KernelDevice {
    pub(super) fn of(gpu: &Gpu) -> Self {
        let info = &gpu.info;
        let mut hash = Sha256::new();
        for (name, text) in shader::FILES {
            for part in [name, text] {
                hash.update(part.as_bytes());
                hash.update([0]);
            }
        }
        hash.update([gpu.checks == Checks::On, gpu.immediates, gpu.subgroups].map(u8::from));
        let driver = [info.driver.as_str(), info.driver_info.as_str()];
        Self {
            adapter: info.name.clone(),
            backend: info.backend.to_str().to_owned(),
            driver: driver.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" "),
            program: concat!("fairtat ", env!("CARGO_PKG_VERSION"), ", wgpu 30").to_owned(),
            shaders: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// How one pass of convolutions of one shape is computed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelChoice {
    /// The layers, by PyTorch's module paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
    pub(super) shape: Conv,
    pub(super) pass: Pass,
    pub(super) algorithm: Algorithm,
    /// The choice without a measurement.
    pub(super) fixed: Algorithm,
    /// `None` if nothing was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) timing: Option<Timing>,
}

impl KernelChoice {
    /// Whether it was measured.
    pub const fn is_measured(&self) -> bool {
        self.timing.is_some()
    }
}

/// The kernels of all convolutions of a network on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelTable {
    /// The device for which they were chosen.
    pub device: KernelDevice,
    /// One row per shape and pass.
    pub convolutions: Vec<KernelChoice>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_key_is_that_of_the_dependency() {
        let manifest = include_str!("../../../Cargo.toml");
        assert!(manifest.lines().any(|line| line.starts_with("wgpu = ") && line.contains("\"30")), "{manifest}");
    }

    /// Shapes and tiles come from files; a choice without a kernel must not reach a shader.
    #[test]
    fn foreign_algorithms_are_left_out() {
        let conv = |kernel, stride| Conv {
            in_channels: 16,
            height: 9,
            width: 9,
            out_channels: 16,
            out_height: 9,
            out_width: 9,
            kernel,
            stride,
            padding: kernel / 2,
        };
        let (three, one) = (conv(3, 1), conv(1, 1));
        let [first, .., single] = PIXEL_TILES;
        let product = |tile| Algorithm::ImplicitGemm { tile };
        let winograd = |outputs, tile| Algorithm::Winograd { outputs, tile };
        let foreign: Tile =
            serde_json::from_str(r#"{"rows":512,"columns":512,"depth":3,"thread_rows":1,"thread_columns":1}"#).unwrap();
        for (conv, pass, algorithm, good) in [
            (three, Pass::Forward, product(first), true),
            (three, Pass::Forward, product(single), true),
            (three, Pass::Forward, product(foreign), false),
            (three, Pass::WeightGradient, product(single), false),
            (three, Pass::InputGradient, winograd(4, first), true),
            (three, Pass::InputGradient, winograd(4, single), false),
            (three, Pass::InputGradient, winograd(3, first), false),
            (three, Pass::WeightGradient, winograd(4, first), false),
            (one, Pass::Forward, winograd(2, first), false),
            (conv(3, 2), Pass::Forward, winograd(2, first), false),
        ] {
            let row = KernelChoice {
                layers: Vec::new(),
                shape: conv,
                pass,
                algorithm,
                fixed: fixed(&conv, pass, false),
                timing: None,
            };
            let mut choices = Choices::default();
            choices.take(&[row]);
            assert_eq!(choices.measured.contains_key(&(conv, pass)), good, "{pass:?} {algorithm}");
        }
        let [narrow, wide] = BROADCAST_TILES;
        for (pass, algorithm, good) in [
            (Pass::Forward, product(wide), true),
            (Pass::InputGradient, winograd(4, narrow), true),
            (Pass::WeightGradient, product(narrow), true),
            (Pass::WeightGradient, product(wide), false),
        ] {
            assert_eq!(algorithm.is_for(&three, pass, true), good, "{pass:?} {algorithm}");
            assert!(!algorithm.is_for(&three, pass, false), "{pass:?} {algorithm}");
        }
    }
}
