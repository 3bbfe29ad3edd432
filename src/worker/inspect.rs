//! One image under the microscope: its attack step by step, and the plane of images around it.
//!
//! Both are functions of an engine and a job, and leave the engine as it was: batch norm is in eval mode.

mod attack;
mod map;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::data::ImageShape;
use crate::engine::{Norm, loss};
use crate::units::Epsilon;

pub use attack::inspect;
pub use map::map;

/// What a failure names as its doing when an inspection did not work.
pub const INSPECTING: &str = "inspecting an image";
/// What a failure names as its doing when a decision map could not be made.
pub const MAPPING: &str = "colouring the decision map";

/// `softmax(logits)`.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    loss::log_softmax(logits).into_iter().map(f32::exp).collect()
}

/// An image to look at.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Where it comes from, such as `test image 17` or `cat.png`.
    pub name: String,
    /// Shape, which must be the network's.
    pub shape: ImageShape,
    /// `C × H × W` bytes.
    pub pixels: Arc<[u8]>,
    /// Its true class; none for an image of one's own, of which the network's own prediction stands in.
    pub label: Option<u32>,
}

/// The attack of an inspection: FGSM is PGD with one step of the radius from the image itself.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionAttack {
    /// Class to be led towards; none for away from the label.
    pub target: Option<u32>,
    /// Shape of the ball.
    pub norm: Norm,
    /// Radius.
    pub epsilon: Epsilon,
    /// Step size.
    pub step_size: Epsilon,
    /// Steps.
    pub steps: u32,
    /// Start at a random point of the ball.
    pub random_start: bool,
    /// Seed of that point.
    pub seed: u64,
}

/// An image and how to attack it.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionJob {
    /// Given back with the answer.
    pub id: u64,
    /// The image.
    pub subject: Subject,
    /// The attack.
    pub attack: InspectionAttack,
}

/// The image at one point of the attack.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionStep {
    /// `C × H × W` in `[0, 1]`.
    pub image: Vec<f32>,
    /// Class probabilities.
    pub probabilities: Vec<f32>,
    /// Cross-entropy of the label.
    pub loss: f64,
    /// Largest absolute change of a value.
    pub linf: f64,
    /// Euclidean length of the change.
    pub l2: f64,
}

/// The answer to an [`InspectionJob`].
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The job.
    pub job: InspectionJob,
    /// The label that was attacked: the true one, or the network's own prediction.
    pub label: u32,
    /// The image itself first, then the start of the attack, then the image after each step.
    pub steps: Vec<InspectionStep>,
    /// Epochs that the network had been trained for, where it is known.
    pub position: Option<f64>,
}

/// Where an axis of a decision map leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Along the gradient towards a class.
    Class(u32),
    /// Along a random direction with this seed.
    Random(u64),
}

/// A plane of images to colour by predicted class.
#[derive(Debug, Clone, PartialEq)]
pub struct MapJob {
    /// Given back with the answer.
    pub id: u64,
    /// The image in the middle.
    pub subject: Subject,
    /// The two directions; the second is made orthogonal to the first.
    pub axes: [Direction; 2],
    /// Half of the side of the plane, in pixel units along an axis.
    pub extent: Epsilon,
    /// Points along a side.
    pub resolution: usize,
    /// Radius whose L∞ ball is drawn in.
    pub epsilon: Epsilon,
}

/// The answer to a [`MapJob`].
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionMap {
    /// The job.
    pub job: MapJob,
    /// Predicted class of each point, row by row from the top; the first axis goes right, the second up.
    pub predictions: Vec<u32>,
    /// Probability of the predicted class of each point.
    pub confidence: Vec<f32>,
    /// Corners of the ball's section with the plane, in pixel units along both axes.
    pub ball: Vec<[f64; 2]>,
    /// Epochs that the network had been trained for, where it is known.
    pub position: Option<f64>,
}
