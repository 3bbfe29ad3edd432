//! The inner maximisation: projected gradient ascent on the perturbation.

use candle_core::Tensor;

use super::CandleEngine;
use crate::engine::{Batch, BatchNormMode, EngineError, Norm, Objective, PerturbSpec, Start, loss};
use crate::rng::Stream;

/// What a search found.
#[derive(Debug)]
pub(super) struct Found {
    /// The images at the last step, `B × C × H × W`.
    pub(super) adversarial: Tensor,
    /// Whether each image's gradient was exactly zero in some step.
    pub(super) without_gradient: Vec<bool>,
}

impl CandleEngine {
    /// Finds the adversarial images of `clean`. The perturbation `d` is kept apart from the image:
    /// `d ← clip(project(d + step · direction(gradient)))`, where `project` leads into the ball and `clip` keeps the
    /// image in `[0, 1]`. `objective` is that of `spec`, with its targets drawn.
    pub(super) fn search(
        &mut self,
        batch: &Batch<'_>,
        clean: &Tensor,
        spec: &PerturbSpec,
        objective: &Objective,
    ) -> Result<Found, EngineError> {
        let per_image = |values: &[f32]| Tensor::from_slice(values, (values.len(), 1, 1, 1), &self.device);
        let (epsilon, step_size) = (per_image(&spec.epsilon)?, per_image(&spec.step_size)?);
        let (lowest, highest) = (clean.neg()?, (1.0 - clean)?);
        let clip = |delta: &Tensor| delta.maximum(&lowest)?.minimum(&highest);
        let project = |delta: &Tensor| match spec.norm {
            Norm::Linf => delta.broadcast_minimum(&epsilon)?.broadcast_maximum(&epsilon.neg()?),
            Norm::L2 => {
                let length = length(delta)?;
                let factor = length.gt(&epsilon)?.where_cond(&(&epsilon / &length)?, &length.ones_like()?)?;
                delta.broadcast_mul(&factor)
            }
        };
        let reference = match objective {
            Objective::KlToClean => {
                let tape = self.compiled.forward(&mut self.arrays, clean, spec.batch_norm)?;
                Some(self.read_logits(&tape)?)
            }
            _ => None,
        };
        let mut delta = match self.start(batch, clean, spec)? {
            Some(start) => clip(&project(&start)?)?,
            None => clean.zeros_like()?,
        };
        let mut without_gradient = vec![false; batch.len()];
        for _ in 0..spec.steps {
            let x = (clean + &delta)?;
            let (_, gradient) = self.gradient_at(&x, batch.labels, objective, spec.batch_norm, reference.as_deref())?;
            let largest = largest(&gradient)?;
            let sizes: Vec<f32> = largest.flatten_all()?.to_vec1()?;
            without_gradient.iter_mut().zip(sizes).for_each(|(without, size)| *without |= size == 0.0);
            let direction = match spec.norm {
                Norm::Linf => gradient.sign()?,
                Norm::L2 => unit(&gradient, &largest)?,
            };
            delta = clip(&project(&(delta + direction.broadcast_mul(&step_size)?)?)?)?;
        }
        Ok(Found { adversarial: (clean + delta)?, without_gradient })
    }

    /// The start before it is led into the ball, or none for zero.
    fn start(&self, batch: &Batch<'_>, clean: &Tensor, spec: &PerturbSpec) -> Result<Option<Tensor>, EngineError> {
        let image = self.network.input.len();
        let mut noise = vec![0.0; clean.elem_count()];
        let images = noise.chunks_mut(image).zip(batch.ids).zip(&spec.epsilon);
        match &spec.start {
            Start::Zero => return Ok(None),
            Start::Given(values) => noise.copy_from_slice(values),
            &Start::Uniform { purpose, epoch } => {
                for ((noise, id), epsilon) in images {
                    Stream::new(batch.seed, purpose, epoch, *id).fill_symmetric(noise);
                    noise.iter_mut().for_each(|v| *v *= epsilon);
                }
            }
            &Start::Normal { deviation, purpose, epoch } => {
                for ((noise, id), _) in images {
                    let stream = Stream::new(batch.seed, purpose, epoch, *id);
                    noise.iter_mut().enumerate().for_each(|(i, v)| *v = deviation * stream.normal(i as u32));
                }
            }
        }
        Ok(Some(Tensor::from_vec(noise, clean.shape(), &self.device)?))
    }

    /// Logits at `x`, and the gradient of each image's objective with respect to it, both checked to be numbers.
    pub(super) fn gradient_at(
        &mut self,
        x: &Tensor,
        labels: &[u32],
        objective: &Objective,
        mode: BatchNormMode,
        reference: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Tensor), EngineError> {
        let classes = self.network.classes;
        let tape = self.compiled.forward(&mut self.arrays, x, mode)?;
        let logits = self.read_logits(&tape)?;
        let (_, gradient) = loss::objective(objective, &logits, labels, classes, reference)?;
        let gradient = Tensor::from_vec(gradient, (labels.len(), classes), &self.device)?;
        let gradient = self.compiled.input_gradient(&self.arrays, tape, gradient)?;
        // The sign of NaN would make a direction that looks like any other.
        if finite(&gradient)? {
            Ok((logits, gradient))
        } else {
            Err(EngineError::NotFinite { what: "gradient with respect to the images".into(), batch: labels.len() })
        }
    }
}

/// Whether all values are numbers: zero times NaN or infinity is NaN, and a sum keeps it.
fn finite(x: &Tensor) -> candle_core::Result<bool> {
    Ok(x.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0)
}

/// Largest absolute value of each image, `B × 1 × 1 × 1`.
fn largest(x: &Tensor) -> candle_core::Result<Tensor> {
    x.abs()?.flatten_from(1)?.max_keepdim(1)?.reshape((x.dim(0)?, 1, 1, 1))
}

/// `g / ‖g‖` for each image, and zero where the gradient is zero. `largest` is what [`largest`] gives for `gradient`: it
/// is divided by first, because the squares of a gradient may overflow, or all be zero, where the gradient does not.
fn unit(gradient: &Tensor, largest: &Tensor) -> candle_core::Result<Tensor> {
    let scale = largest.gt(&largest.zeros_like()?)?.where_cond(largest, &largest.ones_like()?)?;
    let scaled = gradient.broadcast_div(&scale)?;
    // At least 1, unless all values are zero.
    let length = length(&scaled)?;
    scaled.broadcast_div(&length.maximum(&length.ones_like()?)?)
}

/// Euclidean length of each image, `B × 1 × 1 × 1`.
fn length(x: &Tensor) -> candle_core::Result<Tensor> {
    x.sqr()?.sum_keepdim((1, 2, 3))?.sqrt()
}
