//! Inspections of one image: its attack step by step, and a decision map of the plane of images around it.
//!
//! Both are functions of an engine and a job, and do not change the engine's state: batch norm is in eval mode.

mod attack;
mod map;
#[cfg(test)]
pub(super) mod tests;

use std::sync::Arc;

use crate::data::ImageShape;
use crate::engine::{Norm, loss};
use crate::units::Epsilon;

pub use attack::inspect;
pub(super) use attack::perturbed;
pub use map::map;

/// [`Failure::doing`](super::Failure) of an inspection.
pub const INSPECTING: &str = "inspecting an image";
/// [`Failure::doing`](super::Failure) of a decision map.
pub const MAPPING: &str = "colouring the decision map";

/// `softmax(logits)`.
fn probabilities(logits: &[f32]) -> Vec<f32> {
    loss::log_softmax(logits).into_iter().map(f32::exp).collect()
}

/// An image to inspect.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    /// Its origin, such as `test image 17` or `cat.png`.
    pub name: String,
    /// Shape, which must be the network's.
    pub shape: ImageShape,
    /// `C × H × W` bytes.
    pub pixels: Arc<[u8]>,
    /// Its true class; `None` for a user's own image, for which the network's prediction is used.
    pub label: Option<u32>,
}

/// The attack of an inspection: PGD. FGSM is PGD with one step of size ε from the image itself.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionAttack {
    /// Target class; `None` for an untargeted attack.
    pub target: Option<u32>,
    /// Shape of the ball.
    pub norm: Norm,
    /// Radius.
    pub epsilon: Epsilon,
    /// Step size.
    pub step_size: Epsilon,
    /// Steps.
    pub steps: u32,
    /// Whether to start at a random point in the ball.
    pub random_start: bool,
    /// Seed of that point.
    pub seed: u64,
}

/// An image and how to attack it.
#[derive(Debug, Clone, PartialEq)]
pub struct InspectionJob {
    /// Returned with the result.
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

/// The result of an [`InspectionJob`].
#[derive(Debug, Clone, PartialEq)]
pub struct Inspection {
    /// The job.
    pub job: InspectionJob,
    /// The label that was attacked: the true one, or the network's own prediction.
    pub label: u32,
    /// The image itself first, then the start of the attack, then the image after each step.
    pub steps: Vec<InspectionStep>,
    /// Number of epochs that the network had been trained for, if known.
    pub position: Option<f64>,
}

/// The direction of an axis of a decision map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The change by the attack: from the image to its last step.
    Attack,
    /// Along the gradient towards the target of the attack; without one, towards the class other than the label that is most
    /// likely after the attack.
    Rival,
    /// Along the gradient towards a class.
    Class(u32),
    /// Along a random direction with this seed.
    Random(u64),
}

/// A plane of images to colour by predicted class.
#[derive(Debug, Clone, PartialEq)]
pub struct MapJob {
    /// Returned with the result.
    pub id: u64,
    /// The image at the centre.
    pub subject: Subject,
    /// The two directions; the second is orthogonalised to the first.
    pub axes: [Direction; 2],
    /// Half the side of the plane, in pixel units along an axis; `None` for twice the distance from the image to the border of
    /// the attack's ball along the first axis.
    pub extent: Option<Epsilon>,
    /// Number of points along a side.
    pub resolution: usize,
    /// The attack whose ball and path are drawn into the map.
    pub attack: InspectionAttack,
}

/// The result of a [`MapJob`].
#[derive(Debug, Clone, PartialEq)]
pub struct DecisionMap {
    /// The job.
    pub job: MapJob,
    /// Predicted class of each point, row by row from the top; the first axis goes right, the second up.
    pub predictions: Vec<u32>,
    /// Probability of the predicted class of each point.
    pub confidence: Vec<f32>,
    /// The axes that were used: [`Direction::Rival`] is the class that it stands for, or a random direction if there is no
    /// gradient towards it beside the first axis.
    pub axes: [Direction; 2],
    /// Half the side of the plane, in pixel units along an axis.
    pub extent: f64,
    /// Corners of the section of the attack's ball with the plane, in pixel units along both axes.
    pub ball: Vec<[f64; 2]>,
    /// The attack's start and its images after each step, projected onto the plane.
    pub path: Vec<[f64; 2]>,
    /// Number of epochs that the network had been trained for, if known.
    pub position: Option<f64>,
}
