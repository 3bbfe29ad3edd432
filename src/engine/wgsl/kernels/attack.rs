//! The search for adversarial images, without the network: preparation of images, start and steps.
//!
//! A range has `images` images; its first image is image `first_image` of the batch. Tensors of a range start at its
//! first image; `info` and `pixels` hold the whole batch.

use crate::data::ImageShape;
use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, quads};
use crate::engine::wgsl::layout::gpu_struct;

gpu_struct! {
    struct PrepareParams for "prepare.wgsl" {
        images: u32,
        first_image: u32,
        channels: u32,
        height: u32,
        width: u32,
    }
}

/// Prepares images: `clean` (`B × H × W × C4`, in `[0, 1]`) from the bytes `pixels` (`N × C × H × W`, four in a word),
/// with the random crop and flip that `call` specifies.
pub(in crate::engine::wgsl) fn prepare(
    images: usize,
    first_image: usize,
    shape: ImageShape,
    pixels: Slice,
    call: Slice,
    info: Slice,
    clean: Slice,
) -> Dispatch {
    let total = (images * quads_of(shape)) as u64;
    let params = PrepareParams {
        images: images as u32,
        first_image: first_image as u32,
        channels: shape.channels as u32,
        height: shape.height as u32,
        width: shape.width as u32,
    };
    let work = Work { flops: 4 * total, bytes: 20 * total };
    let bindings = [call, info, pixels, clean];
    Dispatch::new(Kernel::plain("prepare.wgsl"), params, &bindings, grid(total.div_ceil(256)), work)
}

gpu_struct! {
    struct BeginParams for "pgd_start.wgsl" {
        images: u32,
        first_image: u32,
        channels: u32,
        plane: u32,
        quads: u32,
    }
}

/// Starts a search: `delta` as `call` specifies (a given start is already in `delta`), projected onto the ball and
/// clipped so that `x = clean + delta` is in `[0, 1]`, unless `call` disables the projection. Applies to every image,
/// active or not.
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn pgd_start(
    images: usize,
    first_image: usize,
    shape: ImageShape,
    call: Slice,
    info: Slice,
    clean: Slice,
    delta: Slice,
    x: Slice,
) -> Dispatch {
    let params = BeginParams {
        images: images as u32,
        first_image: first_image as u32,
        channels: shape.channels as u32,
        plane: (shape.height * shape.width) as u32,
        quads: quads_of(shape) as u32,
    };
    let total = (images * quads_of(shape)) as u64;
    let work = Work { flops: 32 * total, bytes: 48 * total };
    Dispatch::new(Kernel::plain("pgd_start.wgsl"), params, &[call, info, clean, delta, x], grid(images as u64), work)
}

gpu_struct! {
    struct StepParams for "pgd_step.wgsl" {
        images: u32,
        first_image: u32,
        quads: u32,
    }
}

/// Bytes of the gradient flags of a search with `images` images: a word that becomes 1 if a gradient is not finite,
/// three words of padding, and one word per image that becomes 1 if its gradient is zero.
pub(in crate::engine::wgsl) const fn gradient_flags_bytes(images: usize) -> u64 {
    16 + 4 * images as u64
}

/// One step along `gradient`: `delta ← clip(project(delta + step · direction))`, `x = clean + delta`. Inactive images
/// do not change; nor do all images once the word `stopped` is not zero, and images whose gradient is not finite. Gradients
/// that are not finite or zero are recorded in `flags` ([`gradient_flags_bytes`], for the whole batch).
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn pgd_step(
    images: usize,
    first_image: usize,
    shape: ImageShape,
    call: Slice,
    info: Slice,
    clean: Slice,
    gradient: Slice,
    delta: Slice,
    x: Slice,
    stopped: Slice,
    flags: Slice,
) -> Dispatch {
    let params = StepParams { images: images as u32, first_image: first_image as u32, quads: quads_of(shape) as u32 };
    let total = (images * quads_of(shape)) as u64;
    let work = Work { flops: 32 * total, bytes: 80 * total };
    let bindings = [call, info, clean, gradient, delta, x, stopped, flags];
    Dispatch::new(Kernel::plain("pgd_step.wgsl"), params, &bindings, grid(images as u64), work)
}

gpu_struct! {
    struct NoiseParams for "attack_noise.wgsl" {
        images: u32,
        first_image: u32,
        channels: u32,
        plane: u32,
        quads: u32,
    }
}

/// Adds the noise of a step to `delta` of the active images. Runs between [`super::loss::objective`] and [`pgd_step`].
pub(in crate::engine::wgsl) fn noise(
    images: usize,
    first_image: usize,
    shape: ImageShape,
    call: Slice,
    info: Slice,
    delta: Slice,
) -> Dispatch {
    let params = NoiseParams {
        images: images as u32,
        first_image: first_image as u32,
        channels: shape.channels as u32,
        plane: (shape.height * shape.width) as u32,
        quads: quads_of(shape) as u32,
    };
    let total = (images * quads_of(shape)) as u64;
    let work = Work { flops: 160 * total, bytes: 32 * total };
    let groups = grid(total.div_ceil(256));
    Dispatch::new(Kernel::plain("attack_noise.wgsl"), params, &[call, info, delta], groups, work)
}

/// The images whose iterate a snapshot copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::wgsl) enum Keep {
    /// Those that were never misclassified.
    NeverMisclassified = 0,
    /// Those that were never misclassified, and those whose start is misclassified.
    LastClean = 1,
    /// Those that are misclassified for the first time.
    FirstAdversarial = 2,
}

gpu_struct! {
    struct SnapshotParams for "snapshot.wgsl" {
        images: u32,
        first_image: u32,
        quads: u32,
        rule: u32,
    }
}

/// Copies `x` of the images that `rule` selects into `kept`. Runs between [`super::loss::objective`] and [`pgd_step`],
/// or after the last step with [`Keep::NeverMisclassified`].
pub(in crate::engine::wgsl) fn snapshot(
    images: usize,
    first_image: usize,
    shape: ImageShape,
    rule: Keep,
    info: Slice,
    x: Slice,
    kept: Slice,
) -> Dispatch {
    let params = SnapshotParams {
        images: images as u32,
        first_image: first_image as u32,
        quads: quads_of(shape) as u32,
        rule: rule as u32,
    };
    let total = (images * quads_of(shape)) as u64;
    let work = Work { flops: 0, bytes: 32 * total };
    let groups = grid(total.div_ceil(256));
    Dispatch::new(Kernel::plain("snapshot.wgsl"), params, &[info, x, kept], groups, work)
}

/// Quads of one image.
fn quads_of(shape: ImageShape) -> usize {
    shape.height * shape.width * quads(shape.channels)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<crate::engine::wgsl::layout::Layout> {
    vec![
        PrepareParams::LAYOUT,
        BeginParams::LAYOUT,
        StepParams::LAYOUT,
        NoiseParams::LAYOUT,
        SnapshotParams::LAYOUT,
        tests::WordsParams::LAYOUT,
    ]
}

/// Every kernel variant of this file.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    ["prepare.wgsl", "pgd_start.wgsl", "pgd_step.wgsl", "attack_noise.wgsl", "snapshot.wgsl"].map(Kernel::plain).into()
}

#[cfg(test)]
mod tests;
