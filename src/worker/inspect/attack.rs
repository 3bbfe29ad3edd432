//! The attack on one image, step by step.

use super::{Inspection, InspectionAttack, InspectionJob, InspectionStep, Subject, probabilities};
use crate::engine::{
    Batch, BatchNormMode, Engine, EngineError, Input, Objective, SearchSpec, Start, View, Views, loss,
};
use crate::rng::Purpose;

/// Largest number of steps of an attack; the result holds an image for each.
const MAX_STEPS: u32 = 1000;

/// Attacks the image of `job` and returns the image itself, the start, and the image after every step.
///
/// Replaces the views that the engine holds: call this between batches, not between an attack and its update.
///
/// # Errors
/// Returns [`EngineError::Invalid`] if the job does not fit the network; otherwise as [`Engine::perturb`].
pub fn inspect(engine: &mut dyn Engine, job: &InspectionJob, position: Option<f64>) -> Result<Inspection, EngineError> {
    let (subject, attack) = (&job.subject, &job.attack);
    let (shape, classes) = (engine.network().input, engine.network().classes);
    subject.check(shape, classes)?;
    let fail = |what: String| Err(EngineError::Invalid(what));
    let clean = subject.scaled();
    let logits = engine.logits(&Input::Images(&clean, &[subject.label.unwrap_or(0)]), BatchNormMode::Eval)?;
    let label = subject.label.unwrap_or_else(|| loss::argmax(&logits));
    if attack.target == Some(label) {
        let whose = if subject.label.is_some() { "the image's own class" } else { "what the network already predicts" };
        return fail(format!("the target is class {label}, {whose}; expected another class"));
    }
    let mut steps = vec![step(clean.clone(), &clean, &logits, label)];
    let views = perturbed(engine, &subject.pixels, &[label], attack, 0)?;
    for taken in 0..=attack.steps {
        if taken > 0 {
            engine.advance(&views, 1)?;
        }
        let image = engine.read_view(&views, View::Adversarial)?;
        let logits = engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval)?;
        steps.push(step(image, &clean, &logits, label));
    }
    Ok(Inspection { job: job.clone(), label, steps, position })
}

/// Begins the attack on images with these labels and takes some of its steps. Every image starts where it would start alone.
///
/// # Errors
/// Returns [`EngineError::Invalid`] if the attack does not fit the network; otherwise as [`Engine::begin`].
pub(in crate::worker) fn perturbed(
    engine: &mut dyn Engine,
    pixels: &[u8],
    labels: &[u32],
    attack: &InspectionAttack,
    steps: u32,
) -> Result<Views, EngineError> {
    let classes = engine.network().classes;
    let fail = |what: String| Err(EngineError::Invalid(what));
    if attack.steps > MAX_STEPS {
        return fail(format!("an inspection takes at most {MAX_STEPS} attack steps, found {}", attack.steps));
    }
    if let Some(target) = attack.target.filter(|target| *target as usize >= classes) {
        return fail(format!("the target is class {target}, expected 0 to {}", classes - 1));
    }
    let ids = vec![0; labels.len()];
    let batch = Batch { pixels, labels, ids: &ids, augment: None, seed: attack.seed, epoch: 0 };
    let spec = SearchSpec {
        objective: match attack.target {
            Some(target) => Objective::Targeted(vec![target; labels.len()]),
            None => Objective::CrossEntropy,
        },
        norm: attack.norm,
        epsilon: vec![attack.epsilon.value(); labels.len()],
        step_size: vec![attack.step_size.value(); labels.len()],
        steps: attack.steps,
        start: match attack.random_start {
            true => Start::Uniform { purpose: Purpose::EvaluationStart, epoch: 0 },
            false => Start::Zero,
        },
        batch_norm: BatchNormMode::Eval,
        ..SearchSpec::default()
    };
    let views = engine.begin(&batch, &spec)?;
    if steps > 0 {
        engine.advance(&views, steps)?;
    }
    Ok(views)
}

fn step(image: Vec<f32>, clean: &[f32], logits: &[f32], label: u32) -> InspectionStep {
    let mut ignored = vec![0.0; logits.len()];
    let loss = f64::from(loss::cross_entropy(logits, label, 0.0, &mut ignored));
    let change = || image.iter().zip(clean).map(|(a, b)| f64::from(a - b));
    let linf = change().fold(0.0, |largest: f64, d| largest.max(d.abs()));
    let l2 = change().map(|d| d * d).sum::<f64>().sqrt();
    InspectionStep { probabilities: probabilities(logits), image, loss, linf, l2 }
}

impl Subject {
    /// Checks shape, bytes and label against a network.
    pub(super) fn check(&self, shape: crate::data::ImageShape, classes: usize) -> Result<(), EngineError> {
        let fail = |what: String| Err(EngineError::Invalid(what));
        if self.shape != shape {
            return fail(format!("'{}' is an image of {}, the network takes {shape}", self.name, self.shape));
        }
        if self.pixels.len() != shape.len() {
            let (expected, found) = (shape.len(), self.pixels.len());
            return fail(format!("'{}', an image of {shape}, needs {expected} bytes, found {found}", self.name));
        }
        match self.label.filter(|label| *label as usize >= classes) {
            Some(label) => fail(format!("'{}' has class {label}, expected 0 to {}", self.name, classes - 1)),
            None => Ok(()),
        }
    }

    /// The image in `[0, 1]`.
    pub(in crate::worker) fn scaled(&self) -> Vec<f32> {
        self.pixels.iter().map(|pixel| f32::from(*pixel) / 255.0).collect()
    }
}
