//! What can be seen of a batch while it is trained on, and what can be steered by hand.

use serde::{Deserialize, Serialize};

use crate::data::ImageShape;

/// How the radius of one class is steered by hand.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Hold {
    /// The radius in `[0, 1]` pixel units; none leaves it to the method's rule.
    pub epsilon: Option<f64>,
    /// Keep it when the next epoch begins; otherwise the rule takes over again there.
    pub locked: bool,
}

/// What an observer wants to see of the next attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watch {
    /// Run the attack step by step, with [`super::Observer::stepped`] after each.
    pub step_by_step: bool,
    /// Images to read back after the attack, and after each of its steps; fewer where the batch has fewer.
    pub examples: usize,
}

/// Some images of the batch that is being trained on. All arrays are in the order of `labels`; images are `C × H × W` in
/// `[0, 1]`, one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Examples {
    /// Epoch index.
    pub epoch: u32,
    /// Batch index in the epoch.
    pub batch: u32,
    /// Steps of the attack that have been taken, and in all.
    pub step: (u32, u32),
    /// Shape of an image.
    pub shape: ImageShape,
    /// Index in the training images.
    pub ids: Vec<u32>,
    /// True classes.
    pub labels: Vec<u32>,
    /// Targets, where the attack has them.
    pub targets: Option<Vec<u32>>,
    /// Radius of each image.
    pub epsilon: Vec<f32>,
    /// Images before the attack, augmented as they were trained on.
    pub clean: Vec<f32>,
    /// Images after it.
    pub adversarial: Vec<f32>,
    /// Class probabilities before, `N × K`, batch norm in eval mode.
    pub clean_probabilities: Vec<f32>,
    /// Class probabilities after.
    pub probabilities: Vec<f32>,
}
