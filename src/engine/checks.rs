//! Checks that all engines make before they run a network.

use super::{BatchNormMode, EngineError};
use crate::data::ImageShape;
use crate::model::{Layer, ModelError, Network, Op, State};

pub(super) fn check_labels(labels: &[u32], classes: usize) -> Result<(), EngineError> {
    match labels.iter().enumerate().find(|(_, label)| **label as usize >= classes) {
        Some((i, label)) => {
            Err(EngineError::Invalid(format!("image {i} has class {label}, expected 0 to {}", classes - 1)))
        }
        None => Ok(()),
    }
}

/// Checks images of `shape`, `B × C × H × W`, and their labels.
pub(super) fn check_images(data: &[f32], labels: &[u32], shape: ImageShape, classes: usize) -> Result<(), EngineError> {
    let expected = labels.len() * shape.len();
    if labels.is_empty() || data.len() != expected {
        return Err(EngineError::Invalid(format!(
            "{} images of {shape} hold {expected} values, found {}",
            labels.len(),
            data.len()
        )));
    }
    check_labels(labels, classes)
}

/// Checks that each array of `running` is a running statistic of `network`, has its shape and holds finite numbers.
pub(super) fn check_running(running: &State, network: &Network) -> Result<(), EngineError> {
    let specs = network.state_specs();
    for (name, array) in &running.0 {
        let what = match specs.iter().find(|spec| spec.name == *name && !spec.trained) {
            None => format!("'{name}' is not one of its running statistics"),
            Some(spec) if spec.shape != array.shape => {
                format!("'{name}' has shape {:?}, expected {:?}", array.shape, spec.shape)
            }
            Some(_) if !array.data.iter().all(|v| v.is_finite()) => {
                format!("'{name}' holds values that are not finite")
            }
            Some(_) => continue,
        };
        return Err(ModelError::Mismatch { architecture: network.architecture.clone(), what }.into());
    }
    Ok(())
}

/// Checks that batch norm in train mode sees more than one value per channel, as PyTorch does. With one value the
/// output is the layer's bias whatever the image, the gradient is zero, and the running variance tends to zero.
///
/// # Errors
/// Returns [`EngineError::Invalid`] with the name of the first layer that would see one value per channel.
pub(super) fn check_batch_norm(network: &Network, images: usize, mode: BatchNormMode) -> Result<(), EngineError> {
    let single = |layer: &&Layer| {
        matches!(layer.op, Op::BatchNorm { .. }) && images * layer.shape.height * layer.shape.width == 1
    };
    if mode == BatchNormMode::Eval {
        return Ok(());
    }
    match network.layers.iter().find(single) {
        None => Ok(()),
        Some(layer) => Err(EngineError::Invalid(format!(
            "batch norm '{}' sees one value per channel in train mode: {images} image with maps of 1×1; expected \
             more than one. Use at least two images per batch, larger images, or batch norm in eval mode",
            layer.name
        ))),
    }
}
