//! Inputs of kernels that change from one call of the engine to the next. Dispatches are recorded once, so these are in
//! separate buffers. [`Call`] is a uniform, so that every compiler knows that a branch on it is uniform in a workgroup.
//! The WGSL twins are `shaders/shared/call.wgsl` and `image_info.wgsl`.

use bytemuck::Zeroable;

use crate::engine::held::{Held, ImageProgress};
use crate::engine::loss::GradientScale;
use crate::engine::wgsl::layout::gpu_struct;
use crate::engine::{Batch, Norm, Objective, Padding, SearchSpec, SgdStep, Start, Stop};

gpu_struct! {
/// Settings of a call.
pub(in crate::engine::wgsl) struct Call {
    /// Key of the random numbers, low and high half.
    pub(in crate::engine::wgsl) seed: [u32; 2],
    /// Epoch of augmentation and targets.
    pub(in crate::engine::wgsl) epoch: u32,
    /// 0: none, 1: padding with zeros, 2: with reflections.
    pub(in crate::engine::wgsl) augment: u32,
    /// Pixels on every side before the crop; below 2¹⁵.
    pub(in crate::engine::wgsl) padding: u32,
    /// Whether half of the images are mirrored.
    pub(in crate::engine::wgsl) flip: u32,
    /// 0: zero, 1: uniform, 2: normal, 3: given.
    pub(in crate::engine::wgsl) start: u32,
    /// Purpose of the start's random numbers.
    pub(in crate::engine::wgsl) start_purpose: u32,
    /// Their epoch.
    pub(in crate::engine::wgsl) start_epoch: u32,
    /// Standard deviation of a normal start.
    pub(in crate::engine::wgsl) deviation: f32,
    /// 0: L∞, 1: L2.
    pub(in crate::engine::wgsl) norm: u32,
    /// 0: cross-entropy, 1: towards a target, or away from the label if that is the target, 2: KL to the clean prediction, 3: DLR,
    /// 4: margin, 5: DLR towards a target, 6: margin of a target.
    pub(in crate::engine::wgsl) objective: u32,
    /// Learning rate of the SGD step.
    pub(in crate::engine::wgsl) lr: f32,
    /// Momentum of the SGD step.
    pub(in crate::engine::wgsl) momentum: f32,
    /// Weight decay of the SGD step.
    pub(in crate::engine::wgsl) weight_decay: f32,
    /// 0: the objective's gradient, 1: the gradient times a positive factor that depends on the image.
    pub(in crate::engine::wgsl) gradient_scale: u32,
    /// 0: never, 1: [`Stop::WhileMisclassified`], 2: [`Stop::Spent`].
    pub(in crate::engine::wgsl) stop: u32,
    /// Whether the start is projected onto ball and box.
    pub(in crate::engine::wgsl) project_start: u32,
    /// Standard deviation of the noise of a step.
    pub(in crate::engine::wgsl) noise: f32,
    /// Whether the momentum of the SGD step is Nesterov's.
    pub(in crate::engine::wgsl) nesterov: u32,
    }
}

impl Call {
    /// Settings for preparing a batch, without a search.
    pub(in crate::engine::wgsl) fn for_batch(batch: &Batch<'_>) -> Self {
        let augment = batch.augment.map_or((0, 0, false), |augment| {
            let mode = match augment.mode {
                Padding::Zero => 1,
                Padding::Reflect => 2,
            };
            (mode, augment.padding as u32, augment.flip)
        });
        Self {
            seed: [batch.seed as u32, (batch.seed >> 32) as u32],
            epoch: batch.epoch,
            augment: augment.0,
            padding: augment.1,
            flip: u32::from(augment.2),
            ..Self::zeroed()
        }
    }

    /// The same with a search.
    pub(in crate::engine::wgsl) fn with_search(self, spec: &SearchSpec) -> Self {
        let mut call = self.with_objective(&spec.objective);
        call.norm = match spec.norm {
            Norm::Linf => 0,
            Norm::L2 => 1,
        };
        call.start = match spec.start {
            Start::Zero => 0,
            Start::Uniform { purpose, epoch } => {
                (call.start_purpose, call.start_epoch) = (purpose as u32, epoch);
                1
            }
            Start::Normal { deviation, purpose, epoch } => {
                (call.start_purpose, call.start_epoch, call.deviation) = (purpose as u32, epoch, deviation);
                2
            }
            Start::Given(_) => 3,
        };
        call.stop = match spec.stop {
            Stop::Never => 0,
            Stop::WhileMisclassified { .. } => 1,
            Stop::Spent { .. } => 2,
        };
        (call.project_start, call.noise) = (u32::from(spec.project_start), spec.noise);
        call
    }

    /// Settings of a search that continues: its images are already prepared.
    pub(in crate::engine::wgsl) fn of_search(held: &Held) -> Self {
        let seed = [held.seed as u32, (held.seed >> 32) as u32];
        Self { seed, epoch: held.epoch, ..Self::zeroed() }.with_search(&held.spec)
    }

    /// The same with another objective.
    pub(in crate::engine::wgsl) fn with_objective(self, objective: &Objective) -> Self {
        let objective = match objective {
            Objective::CrossEntropy => 0,
            Objective::Targeted(_) | Objective::Drawn(_) | Objective::LeastLikely => 1,
            Objective::KlToClean => 2,
            Objective::Dlr => 3,
            Objective::Margin => 4,
            Objective::DlrTowards(_) => 5,
            Objective::MarginTo(_) => 6,
        };
        Self { objective, ..self }
    }

    /// The same with another scale of the objective's gradient.
    pub(in crate::engine::wgsl) fn with_scale(self, scale: GradientScale) -> Self {
        let gradient_scale = match scale {
            GradientScale::True => 0,
            GradientScale::PerImage => 1,
        };
        Self { gradient_scale, ..self }
    }

    /// The same with an SGD step.
    pub(in crate::engine::wgsl) fn with_sgd(self, sgd: &SgdStep) -> Self {
        Self {
            lr: sgd.lr as f32,
            momentum: sgd.momentum as f32,
            weight_decay: sgd.weight_decay as f32,
            nesterov: u32::from(sgd.nesterov),
            ..self
        }
    }
}

gpu_struct! {
/// Data of one image of a batch.
pub(in crate::engine::wgsl) struct ImageInfo {
    /// Its class.
    pub(in crate::engine::wgsl) label: u32,
    /// Target class of the attack.
    pub(in crate::engine::wgsl) target: u32,
    /// Key of its random numbers.
    pub(in crate::engine::wgsl) id: u32,
    /// Bits of [`STATUS_ACTIVE`] and the others of `image_info.wgsl`.
    pub(in crate::engine::wgsl) status: u32,
    /// Radius of its ball.
    pub(in crate::engine::wgsl) epsilon: f32,
    /// Size of its steps.
    pub(in crate::engine::wgsl) step_size: f32,
    /// Remaining steps while it is misclassified.
    pub(in crate::engine::wgsl) budget: u32,
    /// Number of steps of the search that have computed its prediction.
    pub(in crate::engine::wgsl) steps: u32,
    }
}

/// Steps still move the image.
pub(in crate::engine::wgsl) const STATUS_ACTIVE: u32 = 1;
/// One of its iterates was misclassified.
pub(in crate::engine::wgsl) const STATUS_MISCLASSIFIED: u32 = 2;

impl ImageInfo {
    fn new(label: u32, id: u32) -> Self {
        Self { label, id, status: STATUS_ACTIVE, ..Self::zeroed() }
    }

    /// Labelled images without a search.
    pub(in crate::engine::wgsl) fn for_labels(labels: &[u32]) -> Vec<Self> {
        labels.iter().map(|label| Self::new(*label, 0)).collect()
    }

    /// A batch without a search.
    pub(in crate::engine::wgsl) fn for_batch(batch: &Batch<'_>) -> Vec<Self> {
        batch.labels.iter().zip(batch.ids).map(|(label, id)| Self::new(*label, *id)).collect()
    }

    /// A batch and the search for each of its images.
    pub(in crate::engine::wgsl) fn for_search(batch: &Batch<'_>, spec: &SearchSpec) -> Vec<Self> {
        let mut images = Self::for_batch(batch);
        for ((image, epsilon), step_size) in images.iter_mut().zip(&spec.epsilon).zip(&spec.step_size) {
            (image.epsilon, image.step_size) = (*epsilon, *step_size);
            image.budget = ImageProgress::start(spec.stop).budget;
        }
        Self::aim(&mut images, &spec.objective);
        images
    }

    /// The images of a search that continues.
    pub(in crate::engine::wgsl) fn of_search(held: &Held, progress: &[ImageProgress]) -> Vec<Self> {
        let images = held.labels.iter().zip(&held.ids).zip(progress).enumerate();
        let image = |(i, ((label, id), progress)): (usize, ((&u32, &u32), &ImageProgress))| Self {
            label: *label,
            target: held.targets.as_ref().map_or(0, |targets| targets[i]),
            id: *id,
            status: if progress.active { STATUS_ACTIVE } else { 0 }
                | if progress.misclassified { STATUS_MISCLASSIFIED } else { 0 },
            epsilon: held.spec.epsilon[i],
            step_size: held.spec.step_size[i],
            budget: progress.budget,
            steps: held.taken,
        };
        images.map(image).collect()
    }

    /// The progress of its search.
    pub(in crate::engine::wgsl) const fn progress(&self) -> ImageProgress {
        ImageProgress {
            active: self.status & STATUS_ACTIVE != 0,
            misclassified: self.status & STATUS_MISCLASSIFIED != 0,
            budget: self.budget,
        }
    }

    /// Sets the targets of an objective that specifies them.
    pub(in crate::engine::wgsl) fn aim(images: &mut [Self], objective: &Objective) {
        if let Some(targets) = objective.given_targets() {
            for (image, target) in images.iter_mut().zip(targets) {
                image.target = *target;
            }
        }
    }
}

/// Sizes of the structs in WGSL.
const _: () = assert!(size_of::<Call>() == 80 && size_of::<ImageInfo>() == 32);
