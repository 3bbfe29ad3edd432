//! Kernels on the logits of a network: objectives and losses, counts of predictions, draws of targets.
//!
//! Logits and their gradients are `B × K4`. A range of images is as in [`super::attack`]: tensors start at its first
//! image; `info`, `terms` and `results` hold the whole batch.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded};
use crate::engine::wgsl::layout::gpu_struct;
use crate::engine::wgsl::parameters::ALIGNMENT;
use crate::engine::{LossSpec, MAX_VIEWS, Term, View};

gpu_struct! {
    struct ObjectiveParams for "objective.wgsl" {
        images: u32,
        first_image: u32,
        classes: u32,
        stride: u32,
    }
}

impl ObjectiveParams {
    fn new(images: usize, first_image: usize, classes: usize) -> Self {
        Self {
            images: images as u32,
            first_image: first_image as u32,
            classes: classes as u32,
            stride: padded(classes) as u32,
        }
    }
}

/// Gradient of the attack's objective with respect to the logits. `call` specifies the objective and the scale of the
/// gradient ([`crate::engine::loss::GradientScale`]). `reference` are the logits of the clean images for KL, and any
/// slice of that size otherwise. `flag`, one word, becomes 1 if a logit is not finite. `info` is updated with whether
/// the prediction is wrong and with the resulting progress of the search
/// ([`ImageProgress`](crate::engine::held::ImageProgress)).
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn objective(
    images: usize,
    first_image: usize,
    classes: usize,
    call: Slice,
    info: Slice,
    logits: Slice,
    reference: Slice,
    dlogits: Slice,
    flag: Slice,
) -> Dispatch {
    let values = (images * padded(classes)) as u64;
    let work = Work { flops: 8 * values, bytes: 12 * values };
    let bindings = [call, info, logits, reference, dlogits, flag];
    let params = ObjectiveParams::new(images, first_image, classes);
    Dispatch::new(Kernel::plain("objective.wgsl"), params, &bindings, grid(images as u64), work)
}

gpu_struct! {
    struct OuterLossParams for "outer_loss.wgsl" {
        images: u32,
        first_image: u32,
        classes: u32,
        stride: u32,
        views: u32,
        view_stride: u32,
    }
}

/// Stride in words between the logits of two views of `images` images in the buffers of [`outer_loss`]. It is aligned
/// so that each view can be bound separately.
pub(in crate::engine::wgsl) const fn view_stride(images: usize, classes: usize) -> usize {
    (images * padded(classes)).next_multiple_of(ALIGNMENT as usize / 4)
}

/// The outer loss on `views` views, its gradients with respect to their logits, and the predictions.
///
/// `logits` and `dlogits` hold a block of `B × K4` for each view, [`view_stride`] apart. `results` holds for each image
/// the bits of its share of the loss, then its prediction on each view. A prediction is `u32::MAX` if a logit of that
/// view is not finite. `terms` is the result of [`encode_terms`].
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn outer_loss(
    images: usize,
    first_image: usize,
    classes: usize,
    views: usize,
    info: Slice,
    terms: Slice,
    logits: Slice,
    dlogits: Slice,
    results: Slice,
) -> Dispatch {
    let values = (views * images * padded(classes)) as u64;
    let work = Work { flops: 16 * values, bytes: 8 * values };
    let params = OuterLossParams {
        images: images as u32,
        first_image: first_image as u32,
        classes: classes as u32,
        stride: padded(classes) as u32,
        views: views as u32,
        view_stride: view_stride(images, classes) as u32,
    };
    let bindings = [info, terms, results, logits, dlogits];
    Dispatch::new(outer_kernel(), params, &bindings, grid(images as u64), work)
}

fn outer_kernel() -> Kernel {
    Kernel::new("outer_loss.wgsl", &[("MAX_VIEWS", MAX_VIEWS as u32)])
}

/// Number of words that [`outer_loss`] writes for each image.
pub(in crate::engine::wgsl) const fn result_words(views: usize) -> usize {
    1 + views
}

/// Number of words that [`encode_terms`] returns.
pub(in crate::engine::wgsl) const fn terms_len(loss: &LossSpec, n: usize) -> usize {
    2 + loss.terms.len() * (3 + n)
}

/// Encodes a loss for a batch with these labels, as [`outer_loss`] reads it: the numbers of terms and of images, kind
/// and views of each term, then for each term the weights of all images. A view is encoded as its index in `views`.
pub(in crate::engine::wgsl) fn encode_terms(loss: &LossSpec, views: &[View], labels: &[u32]) -> Vec<u32> {
    let at = |view: View| views.iter().position(|v| *v == view).unwrap_or(0) as u32;
    let mut words = vec![loss.terms.len() as u32, labels.len() as u32];
    for term in &loss.terms {
        words.extend(match term.term {
            Term::CrossEntropy(view) => [0, at(view), at(view)],
            Term::Kl { from, to } => [1, at(from), at(to)],
            Term::KlToUniform(view) => [2, at(view), at(view)],
            Term::Margin(view) => [3, at(view), at(view)],
        });
    }
    for term in &loss.terms {
        words.extend(term.image_weights(labels).into_iter().map(f32::to_bits));
    }
    words
}

gpu_struct! {
    struct ConfusionParams for "confusion.wgsl" {
        images: u32,
        first_image: u32,
        classes: u32,
        views: u32,
    }
}

/// Adds the predictions of [`outer_loss`] to `counts`, one word per view, true class and predicted class. Invalid
/// predictions are not counted.
pub(in crate::engine::wgsl) fn confusion(
    images: usize,
    first_image: usize,
    classes: usize,
    views: usize,
    info: Slice,
    results: Slice,
    counts: Slice,
) -> Dispatch {
    let params = ConfusionParams {
        images: images as u32,
        first_image: first_image as u32,
        classes: classes as u32,
        views: views as u32,
    };
    let work = Work { flops: 0, bytes: 24 * images as u64 };
    let groups = grid(images.div_ceil(64) as u64);
    Dispatch::new(Kernel::plain("confusion.wgsl"), params, &[info, results, counts], groups, work)
}

gpu_struct! {
    struct TargetsParams for "sample_targets.wgsl" {
        images: u32,
        first_image: u32,
        classes: u32,
    }
}

/// Draws the target of each image into `info`, from the thresholds of a [`TargetTable`](crate::engine::TargetTable).
pub(in crate::engine::wgsl) fn sample_targets(
    images: usize,
    first_image: usize,
    classes: usize,
    call: Slice,
    thresholds: Slice,
    info: Slice,
) -> Dispatch {
    let params = TargetsParams { images: images as u32, first_image: first_image as u32, classes: classes as u32 };
    let work = Work { flops: 0, bytes: 36 * images as u64 };
    let groups = grid(images.div_ceil(64) as u64);
    Dispatch::new(Kernel::plain("sample_targets.wgsl"), params, &[call, thresholds, info], groups, work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<crate::engine::wgsl::layout::Layout> {
    vec![ObjectiveParams::LAYOUT, OuterLossParams::LAYOUT, ConfusionParams::LAYOUT, TargetsParams::LAYOUT]
}

/// Every kernel variant of this file.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut kernels: Vec<Kernel> =
        ["objective.wgsl", "confusion.wgsl", "sample_targets.wgsl"].map(Kernel::plain).into();
    kernels.push(outer_kernel());
    kernels
}

#[cfg(test)]
mod search_tests;
#[cfg(test)]
mod target_tests;
#[cfg(test)]
mod tests;
