//! The inner maximisation: projected gradient ascent on the perturbation.

use candle_core::Tensor;

use super::CandleEngine;
use crate::engine::held::{Held, ImageProgress};
use crate::engine::loss::GradientScale;
use crate::engine::search_spec::least_likely;
use crate::engine::{Batch, BatchNormMode, EngineError, Norm, Objective, SearchSpec, Start, View, loss};
use crate::rng::{Purpose, Stream};

/// A search in progress. The perturbation `delta` is stored separately from the image.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) held: Held,
    pub(super) progress: Vec<ImageProgress>,
    /// The objective with its targets, whether they were given, drawn or least likely.
    pub(super) objective: Objective,
    /// Logits on the clean images, for the KL objective.
    pub(super) reference: Option<Vec<f32>>,
    pub(super) clean: Tensor,
    pub(super) delta: Tensor,
    pub(super) adversarial: Tensor,
    pub(super) last_clean: Option<Tensor>,
    pub(super) first_adversarial: Option<Tensor>,
}

impl Search {
    /// The images of a view.
    pub(super) fn view(&self, view: View) -> Result<Tensor, EngineError> {
        self.held.check_view(view)?;
        let snapshot = match view {
            View::Clean => return Ok(self.clean.clone()),
            View::Adversarial => None,
            View::LastClean => self.last_clean.as_ref(),
            View::FirstAdversarial => self.first_adversarial.as_ref(),
        };
        let Some(snapshot) = snapshot else { return Ok(self.adversarial.clone()) };
        // An image that has not been misclassified so far keeps its last iterate.
        let never: Vec<u8> = self.progress.iter().map(|image| u8::from(!image.misclassified)).collect();
        Ok(choose(&never, &self.adversarial, snapshot)?)
    }

    /// The stored tensor of a view. In a snapshot only the images that were misclassified are valid.
    pub(super) fn kept(&self, view: View) -> Tensor {
        let kept = match view {
            View::Clean => Some(&self.clean),
            View::Adversarial => None,
            View::LastClean => self.last_clean.as_ref(),
            View::FirstAdversarial => self.first_adversarial.as_ref(),
        };
        kept.unwrap_or(&self.adversarial).clone()
    }
}

impl CandleEngine {
    /// Begins a search from `clean`, the prepared images of `batch`.
    pub(super) fn begin_search(
        &mut self,
        batch: &Batch<'_>,
        clean: Tensor,
        spec: &SearchSpec,
    ) -> Result<Search, EngineError> {
        let objective = match spec.objective.aimed(batch).into_owned() {
            Objective::LeastLikely => {
                let logits = self.logits_of(&clean, BatchNormMode::Eval)?;
                Objective::Targeted(least_likely(&logits, batch.labels, self.network.classes))
            }
            objective => objective,
        };
        let reference = match objective {
            Objective::KlToClean => Some(self.logits_of(&clean, spec.batch_norm)?),
            _ => None,
        };
        let delta = match self.start(batch, &clean, spec)? {
            Some(start) if spec.project_start => Ball::new(&clean, spec)?.project_and_clip(&start)?,
            Some(start) => start,
            None => clean.zeros_like()?,
        };
        self.generation += 1;
        let mut held = Held::new(self.generation, batch, spec);
        if let Objective::Targeted(targets) = &objective {
            held.targets = Some(targets.clone());
        }
        let progress = vec![ImageProgress::start(spec.stop); batch.len()];
        let adversarial = (&clean + &delta)?;
        let (last_clean, first_adversarial) = (None, None);
        Ok(Search { held, progress, objective, reference, clean, delta, adversarial, last_clean, first_adversarial })
    }

    fn logits_of(&mut self, x: &Tensor, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let tape = self.compiled.forward(&mut self.arrays, x, mode)?;
        self.read_logits(&tape)
    }

    /// Takes `steps` steps: `d ← clip(project(d + noise + step · direction(gradient)))`, where `project` projects into
    /// the ball and `clip` keeps the image in `[0, 1]`. Images that have stopped do not change.
    pub(super) fn advance_search(&mut self, search: &mut Search, steps: u32) -> Result<(), EngineError> {
        let spec = search.held.spec.clone();
        let per_image = |values: &[f32]| Tensor::from_slice(values, (values.len(), 1, 1, 1), &self.device);
        let step_size = per_image(&spec.step_size)?;
        let ball = Ball::new(&search.clean, &spec)?;
        let scale = GradientScale::of_search(&self.network, spec.batch_norm);
        for _ in 0..steps {
            let labels = search.held.labels.clone();
            let (logits, gradient) = self.gradient_at(
                &search.adversarial,
                &labels,
                &search.objective,
                scale,
                spec.batch_norm,
                search.reference.as_deref(),
            )?;
            self.look(search, &logits)?;
            let largest = largest(&gradient)?;
            let sizes: Vec<f32> = largest.flatten_all()?.to_vec1()?;
            let images = search.held.without_gradient.iter_mut().zip(&search.progress).zip(sizes);
            images.for_each(|((without, image), size)| *without |= image.active && size == 0.0);
            let direction = match spec.norm {
                Norm::Linf => gradient.sign()?,
                Norm::L2 => unit(&gradient, &largest)?,
            };
            search.held.taken += 1;
            let mut moved = search.delta.clone();
            if spec.noise > 0.0 {
                moved = (moved + self.noise(&search.held)?)?;
            }
            moved = ball.project_and_clip(&(moved + direction.broadcast_mul(&step_size)?)?)?;
            if search.progress.iter().any(|image| !image.active) {
                let active: Vec<u8> = search.progress.iter().map(|image| u8::from(image.active)).collect();
                moved = choose(&active, &moved, &search.delta)?;
            }
            search.adversarial = (&search.clean + &moved)?;
            search.delta = moved;
        }
        search.held.budgets = search.progress.iter().map(|image| image.budget).collect();
        Ok(())
    }

    /// Updates the progress from the predictions on the current iterates, and stores the requested snapshots.
    fn look(&mut self, search: &mut Search, logits: &[f32]) -> Result<(), EngineError> {
        let stop = search.held.spec.stop;
        let predictions = logits.chunks(self.network.classes).map(loss::argmax);
        let mut first = Vec::with_capacity(search.held.labels.len());
        for ((image, label), prediction) in search.progress.iter_mut().zip(&search.held.labels).zip(predictions) {
            first.push(u8::from(image.look(stop, prediction != *label)));
        }
        if !search.held.spec.snapshots.any() {
            return Ok(());
        }
        let at_start = search.held.taken == 0;
        let clean = search.progress.iter().zip(&first);
        let clean: Vec<u8> =
            clean.map(|(image, first)| u8::from(!image.misclassified || at_start && *first == 1)).collect();
        search.keep(View::LastClean, &clean)?;
        search.keep(View::FirstAdversarial, &first)
    }

    /// The start before projection; `None` if it is zero.
    fn start(&self, batch: &Batch<'_>, clean: &Tensor, spec: &SearchSpec) -> Result<Option<Tensor>, EngineError> {
        let image = self.network.input.len();
        let mut noise = vec![0.0; clean.elem_count()];
        let images = noise.chunks_mut(image).zip(batch.ids).zip(&spec.epsilon);
        match &spec.start {
            Start::Zero => return Ok(None),
            Start::Given(values) => noise.copy_from_slice(values),
            &Start::Uniform { purpose, epoch } => {
                for ((noise, id), epsilon) in images {
                    let stream = Stream::new(batch.seed, purpose, epoch, *id);
                    if spec.norm == Norm::L2 {
                        stream.fill_ball(*epsilon, noise);
                        continue;
                    }
                    stream.fill_symmetric(noise);
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

    /// The noise of a step, `B × C × H × W`. Steps are counted from one.
    fn noise(&self, held: &Held) -> Result<Tensor, EngineError> {
        let shape = self.network.input;
        let mut noise = vec![0.0; held.ids.len() * shape.len()];
        let first = held.taken.wrapping_mul(shape.len() as u32);
        for (noise, id) in noise.chunks_mut(shape.len()).zip(&held.ids) {
            let stream = Stream::new(held.seed, Purpose::AttackNoise, held.epoch, *id);
            let value = |i: usize| held.spec.noise * stream.normal(first.wrapping_add(i as u32));
            noise.iter_mut().enumerate().for_each(|(i, v)| *v = value(i));
        }
        self.images(noise)
    }

    /// Logits at `x`, and the gradient of each image's objective with respect to `x` in the given scale; both are
    /// checked to be finite.
    pub(super) fn gradient_at(
        &mut self,
        x: &Tensor,
        labels: &[u32],
        objective: &Objective,
        scale: GradientScale,
        mode: BatchNormMode,
        reference: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Tensor), EngineError> {
        let classes = self.network.classes;
        let tape = self.compiled.forward(&mut self.arrays, x, mode)?;
        let logits = self.read_logits(&tape)?;
        let gradient = loss::objective_gradient(objective, scale, &logits, labels, classes, reference)?;
        let gradient = Tensor::from_vec(gradient, (labels.len(), classes), &self.device)?;
        let gradient = self.compiled.input_gradient(&self.arrays, tape, gradient)?;
        // A direction made from the sign of NaN would look valid.
        if finite(&gradient)? {
            Ok((logits, gradient))
        } else {
            Err(EngineError::NotFinite { what: "gradient with respect to the images".into(), batch: labels.len() })
        }
    }
}

impl Search {
    /// Stores the current iterate of the images whose `chosen` is 1 in the snapshot `view`, if the search keeps it.
    fn keep(&mut self, view: View, chosen: &[u8]) -> Result<(), EngineError> {
        let kept = self.held.check_view(view).is_ok();
        let slot = match view {
            View::LastClean if kept => &mut self.last_clean,
            View::FirstAdversarial if kept => &mut self.first_adversarial,
            _ => return Ok(()),
        };
        *slot = Some(match slot.as_ref() {
            Some(before) => choose(chosen, &self.adversarial, before)?,
            None => self.adversarial.clone(),
        });
        Ok(())
    }
}

/// The allowed perturbations of a batch.
struct Ball {
    norm: Norm,
    epsilon: Tensor,
    lowest: Tensor,
    highest: Tensor,
}

impl Ball {
    fn new(clean: &Tensor, spec: &SearchSpec) -> candle_core::Result<Self> {
        let epsilon = Tensor::from_slice(&spec.epsilon, (spec.epsilon.len(), 1, 1, 1), clean.device())?;
        Ok(Self { norm: spec.norm, epsilon, lowest: clean.neg()?, highest: (1.0 - clean)? })
    }

    /// The perturbation, projected into the ball and then clipped so that the image stays in `[0, 1]`.
    fn project_and_clip(&self, delta: &Tensor) -> candle_core::Result<Tensor> {
        let projected = match self.norm {
            Norm::Linf => delta.broadcast_minimum(&self.epsilon)?.broadcast_maximum(&self.epsilon.neg()?)?,
            Norm::L2 => {
                let length = length(delta)?;
                let factor = length.gt(&self.epsilon)?.where_cond(&(&self.epsilon / &length)?, &length.ones_like()?)?;
                delta.broadcast_mul(&factor)?
            }
        };
        projected.maximum(&self.lowest)?.minimum(&self.highest)
    }
}

/// For each image, `a` if its `first` is 1, otherwise `b`.
fn choose(first: &[u8], a: &Tensor, b: &Tensor) -> candle_core::Result<Tensor> {
    let mask = Tensor::from_slice(first, (first.len(), 1, 1, 1), a.device())?;
    mask.broadcast_as(a.shape())?.where_cond(a, b)
}

/// Whether all values are finite: zero times NaN or infinity is NaN, and a sum propagates it.
fn finite(x: &Tensor) -> candle_core::Result<bool> {
    Ok(x.affine(0.0, 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0)
}

/// Largest absolute value of each image, `B × 1 × 1 × 1`.
fn largest(x: &Tensor) -> candle_core::Result<Tensor> {
    x.abs()?.flatten_from(1)?.max_keepdim(1)?.reshape((x.dim(0)?, 1, 1, 1))
}

/// `g / ‖g‖` for each image; zero if the gradient is zero. `largest` is the result of [`largest`] for `gradient`:
/// values are first divided by it, because squares may overflow, or all underflow to zero, where the gradient itself
/// does not.
fn unit(gradient: &Tensor, largest: &Tensor) -> candle_core::Result<Tensor> {
    let scale = largest.gt(&largest.zeros_like()?)?.where_cond(largest, &largest.ones_like()?)?;
    let scaled = gradient.broadcast_div(&scale)?;
    // The length is at least 1 unless all values are zero.
    let length = length(&scaled)?;
    scaled.broadcast_div(&length.maximum(&length.ones_like()?)?)
}

/// Euclidean length of each image, `B × 1 × 1 × 1`.
fn length(x: &Tensor) -> candle_core::Result<Tensor> {
    x.sqr()?.sum_keepdim((1, 2, 3))?.sqrt()
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// Includes gradients whose squares overflow or underflow `f32`.
    #[test]
    fn directions_have_length_one_whatever_the_size_of_the_gradient() {
        let sizes = [3e38f32, 1e30, 1e19, 1.0, 1e-12, 1e-19, 1e-30, 1e-38, 1e-40, f32::from_bits(1), 0.0];
        let values: Vec<f32> = sizes.iter().flat_map(|size| [*size, -0.5 * size, 0.0, 0.25 * size]).collect();
        let gradient = Tensor::from_vec(values, (sizes.len(), 1, 2, 2), &Device::Cpu).unwrap();
        let found = unit(&gradient, &largest(&gradient).unwrap()).unwrap();
        let lengths: Vec<f32> = length(&found).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        for (length, size) in lengths.iter().zip(sizes) {
            let expected = if size == 0.0 { 0.0 } else { 1.0 };
            assert!((length - expected).abs() < 1e-6, "{size:e}: {length}");
        }
    }
}
