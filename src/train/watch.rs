//! The parts of a batch that an observer can see during training, and the radii that can be set by hand.

use serde::{Deserialize, Serialize};

use crate::data::ImageShape;

/// The radius of one class as set by hand.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Hold {
    /// The radius in `[0, 1]` pixel units; `None` leaves it to the method's rule.
    pub epsilon: Option<f64>,
    /// Keep it when other classes are changed together with this one.
    pub locked: bool,
}

/// What an observer wants to see of the next attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatchRequest {
    /// Run the attack step by step, with [`super::Observer::stepped`] after each.
    pub step_by_step: bool,
    /// Images to read back after the attack, and after each of its steps; fewer if the batch has fewer.
    pub examples: usize,
}

/// Some images of the current training batch. All arrays are in the order of `labels`; images are `C × H × W` in
/// `[0, 1]`, contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// Epoch index.
    pub epoch: u32,
    /// Batch index in the epoch.
    pub batch: u32,
    /// Steps of the attack: done, and in all.
    pub step: (u32, u32),
    /// Shape of an image.
    pub shape: ImageShape,
    /// Indices in the training set.
    pub ids: Vec<u32>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Targets, if the attack is targeted.
    pub targets: Option<Vec<u32>>,
    /// Radius of each image.
    pub epsilon: Vec<f32>,
    /// Images before the attack, with the augmentation of this batch.
    pub clean: Vec<f32>,
    /// Images after the attack.
    pub adversarial: Vec<f32>,
    /// Class probabilities of `clean`, `N × K`, batch norm in eval mode.
    pub clean_probabilities: Vec<f32>,
    /// Class probabilities of `adversarial`, likewise.
    pub probabilities: Vec<f32>,
}
