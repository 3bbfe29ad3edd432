//! Checkpoints for other programs: a loader in plain PyTorch, and files in the formats of PyTorch and ONNX.
//!
//! All of them are written from a [`Network`], the layers as data, and a [`State`], its arrays. Nothing here computes:
//! the logits of the [`probe_images`], which let a reader check that it computes the same function, come from an engine
//! and are stored among the facts of a file under [`PROBE_LOGITS`].
//!
//! | file | normalisation | facts |
//! |---|---|---|
//! | `.safetensors` ([`State::save`]) | in [`LOADER`] | metadata `fairtat`, one JSON text |
//! | `.pth` ([`save_pth`]) | in [`LOADER`], or as `0.mean` and `0.std` ([`Names::Sequential`]) | `archive/extra/fairtat.json` |
//! | `.onnx` ([`save_onnx`]) | nodes of the graph | `metadata_props` |

mod blocks;
mod body;
mod messages;
mod onnx;
mod pth;
mod python;

pub use onnx::save_onnx;
pub use pth::save_pth;
pub use python::loader;

use std::collections::BTreeMap;

use super::network::{Network, Op};
use super::state::{Array, ModelError, State};
use crate::data::ImageShape;

/// Name of the generated script that loads the checkpoints beside it.
pub const LOADER: &str = "load_in_pytorch.py";

/// Number of [`probe_images`].
pub const PROBE_IMAGES: usize = 4;

/// Name of the fact that stores the logits of the [`probe_images`], written by [`probe_text`].
pub const PROBE_LOGITS: &str = "probe_logits";

/// What a file records about itself, under the names that a checkpoint uses: `epoch`, `experiment` and so on.
pub type Facts = BTreeMap<String, String>;

/// Images that a reader can compute without a file, `[4, C, H, W]` in `[0, 1)`: value `i` of image `n` is
/// `(i · (i + 2n + 1) mod 251) / 256`. Multiples of 1/256 are exact in `f32`.
///
/// ```
/// use fairtat::data::ImageShape;
/// use fairtat::model::{PROBE_IMAGES, probe_images};
///
/// let images = probe_images(ImageShape::new(1, 2, 2));
/// assert_eq!(images.len(), PROBE_IMAGES * 4);
/// assert_eq!(images[4..8], [0.0, 4.0 / 256.0, 10.0 / 256.0, 18.0 / 256.0]);
/// ```
pub fn probe_images(shape: ImageShape) -> Vec<f32> {
    let image = |n: u64| (0..shape.len() as u64).map(move |i| (i * (i + 2 * n + 1) % 251) as f32 / 256.0);
    (0..PROBE_IMAGES as u64).flat_map(image).collect()
}

/// The logits of the [`probe_images`], `[4, K]`, as the JSON text of [`PROBE_LOGITS`]: a list for each image.
pub fn probe_text(logits: &[f32], classes: usize) -> String {
    let rows: Vec<&[f32]> = logits.chunks(classes.max(1)).collect();
    // Lists of numbers cannot fail to serialise.
    serde_json::to_string(&rows).unwrap_or_default()
}

/// The names of the arrays in a `.pth` file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Names {
    /// Those of the state dict.
    #[default]
    Plain,
    /// Those of `torch.nn.Sequential(normalisation, network)`: `0.mean` and `0.std` (`[1, C, 1, 1]`), and `1.` before
    /// the names of the state dict.
    Sequential,
}

/// Mean and standard deviation of each channel, if the network normalises its images.
pub fn normalisation(network: &Network) -> Option<(&[f32], &[f32])> {
    match &network.layers.first()?.op {
        Op::Normalize { mean, std } => Some((mean, std)),
        _ => None,
    }
}

/// Checks that the state fits the network, and that the network ends as exports assume: global pooling gives features
/// `[B, C]`, which only linear layers read, and linear layers read nothing else.
fn check(network: &Network, state: Option<&State>) -> Result<(), ModelError> {
    network.check()?;
    if let Some(state) = state {
        state.check(network)?;
    }
    for layer in &network.layers {
        for &value in &layer.inputs {
            let features = value > 0 && is_features(&network.layers[value - 1].op);
            if features != matches!(layer.op, Op::Linear { .. }) {
                let found = if features { "features `[B, C]`" } else { "maps `[B, C, H, W]`" };
                let what = format!("'{}' ({:?}) reads {found}, which exports cannot express", layer.name, layer.op);
                return Err(ModelError::Layers { architecture: network.architecture.clone(), what });
            }
        }
    }
    Ok(())
}

fn is_features(op: &Op) -> bool {
    matches!(op, Op::GlobalAvgPool | Op::Linear { .. })
}

/// The values of an array as bytes, little-endian.
fn bytes(array: &Array) -> Vec<u8> {
    array.data.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests;
