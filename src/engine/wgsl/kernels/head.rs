//! The head of a network as one kernel: batch norm and ReLU of the last feature map, the mean over its pixels, the
//! linear layer, and for an attack the gradient of the objective and the backward pass. It computes the same as the
//! separate kernels of [`super::norm`], [`super::pool`], [`super::linear`] and [`super::loss`], with the same order of
//! additions.
//!
//! A workgroup computes one image, whose means and logits are in workgroup memory; [`fits`] tells whether there is
//! room.

use super::pool::FeatureMap;
use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid, padded, quads};
use crate::engine::wgsl::layout::gpu_struct;

/// Maximum quads of means and logits in 16 KiB of workgroup memory, in addition to the sums over lanes.
const MAX_QUADS: usize = 576;
/// Invocations of a workgroup.
const LANES: usize = 256;

/// Whether the kernels of this module can compute a head of this size. The separate kernels can compute any size.
pub(in crate::engine::wgsl) const fn fits(channels: usize, classes: usize) -> bool {
    quads(channels) + quads(classes) <= MAX_QUADS
}

/// The geometry of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine::wgsl) struct Head {
    /// The feature map `x`.
    pub(in crate::engine::wgsl) map: FeatureMap,
    /// Number of logits.
    pub(in crate::engine::wgsl) classes: usize,
    /// Whether a ReLU comes before the mean.
    pub(in crate::engine::wgsl) relu: bool,
}

/// The batch norm before the ReLU, for the backward pass.
#[derive(Debug, Clone, Copy)]
pub(in crate::engine::wgsl) struct HeadNorm {
    /// Scale, shift, mean and rstd, `4 × C`.
    pub(in crate::engine::wgsl) affine: Slice,
    /// With batch statistics: the buffer for the partial sums of the backward pass (as those of
    /// [`super::norm::backward_sums`], with one block per image), and the first block. `None` if the statistics were
    /// constants.
    pub(in crate::engine::wgsl) sums: Option<(Slice, usize)>,
}

/// The constant NORM of the kernels.
const fn norm_constant(norm: Option<HeadNorm>) -> u32 {
    match norm {
        None => 0,
        Some(HeadNorm { sums: Some(_), .. }) => 1,
        Some(HeadNorm { sums: None, .. }) => 2,
    }
}

gpu_struct! {
    struct HeadParams for "head_forward.wgsl", "head_backward.wgsl", "head_attack.wgsl" {
        images: u32,
        first_image: u32,
        channels: u32,
        classes: u32,
        height: u32,
        width: u32,
        first_block: u32,
    }
}

impl Head {
    fn params(&self, images: usize, first_image: usize, norm: Option<HeadNorm>) -> HeadParams {
        HeadParams {
            images: images as u32,
            first_image: first_image as u32,
            channels: self.map.channels as u32,
            classes: self.classes as u32,
            height: self.map.height as u32,
            width: self.map.width as u32,
            first_block: norm.and_then(|norm| norm.sums).map_or(0, |(_, first)| first as u32),
        }
    }

    fn kernel(&self, file: &'static str, norm: u32, more: &[(&'static str, u32)]) -> Kernel {
        let features = quads(self.map.channels);
        let mut constants = vec![
            ("FEATURES", features as u32),
            ("CLASSES", quads(self.classes) as u32),
            ("COLUMNS", features.min(LANES) as u32),
            ("NORM", norm),
            ("RELU", u32::from(self.relu)),
        ];
        constants.extend(more);
        Kernel::new(file, &constants)
    }

    /// Values of `x`, padding included.
    const fn values(&self, images: usize) -> u64 {
        (images * self.map.height * self.map.width * padded(self.map.channels)) as u64
    }

    /// Products of the linear layer.
    const fn products(&self, images: usize) -> u64 {
        (images * padded(self.map.channels) * padded(self.classes)) as u64
    }

    fn forward_work(&self, images: usize) -> Work {
        let weights = (padded(self.map.channels) * padded(self.classes)) as u64;
        let logits = (images * padded(self.classes)) as u64;
        Work {
            flops: 4 * self.values(images) + 2 * self.products(images),
            bytes: 4 * (self.values(images) + weights + logits),
        }
    }

    fn backward_work(&self, images: usize, reads_x: bool) -> Work {
        let forward = self.forward_work(images);
        let again = 4 * u64::from(reads_x) * self.values(images);
        Work { flops: forward.flops + 4 * self.values(images), bytes: forward.bytes + again }
    }
}

/// Logits, and the gradient of their objective with respect to `x`, `B × H × W × C`.
///
/// With a batch norm that used batch statistics, `gradient` is that of `scale · x + shift`: its backward pass continues
/// with [`super::norm::backward_finalize`] (one block per image) and [`super::norm::backward_apply`] without ReLU.
/// Otherwise it is that of `x`. `call`, `info`, `reference` and `flag` are as for [`super::loss::objective`].
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn attack(
    images: usize,
    first_image: usize,
    head: &Head,
    call: Slice,
    info: Slice,
    x: Slice,
    norm: Option<HeadNorm>,
    weight: Slice,
    bias: Slice,
    reference: Slice,
    logits: Slice,
    gradient: Slice,
    flag: Slice,
) -> Dispatch {
    let mut bindings = vec![call, info, x, weight, bias, reference, logits, gradient, flag];
    bindings.extend(norm.map(|norm| norm.affine));
    bindings.extend(norm.and_then(|norm| norm.sums).map(|(partials, _)| partials));
    let (there, back) = (head.forward_work(images), head.backward_work(images, true));
    let work = Work { flops: there.flops + back.flops, bytes: there.bytes + back.bytes };
    let kernel = head.kernel("head_attack.wgsl", norm_constant(norm), &[]);
    Dispatch::new(kernel, head.params(images, first_image, norm), &bindings, grid(images as u64), work)
}

/// Logits, and the means `pooled`, `B × C`, for [`super::linear::weight_gradient`].
#[allow(clippy::too_many_arguments, reason = "the tensors of one kernel")]
pub(in crate::engine::wgsl) fn forward(
    images: usize,
    head: &Head,
    x: Slice,
    affine: Option<Slice>,
    weight: Slice,
    bias: Slice,
    logits: Slice,
    pooled: Option<Slice>,
) -> Dispatch {
    let mut bindings = vec![x, weight, bias, logits];
    bindings.extend(affine);
    bindings.extend(pooled);
    let constants = [("POOLED", u32::from(pooled.is_some()))];
    let kernel = head.kernel("head_forward.wgsl", u32::from(affine.is_some()), &constants);
    Dispatch::new(kernel, head.params(images, 0, None), &bindings, grid(images as u64), head.forward_work(images))
}

/// From the gradient of the logits to the gradient that [`attack`] computes.
pub(in crate::engine::wgsl) fn backward(
    images: usize,
    head: &Head,
    x: Slice,
    norm: Option<HeadNorm>,
    weight: Slice,
    dlogits: Slice,
    gradient: Slice,
) -> Dispatch {
    let sums = norm.and_then(|norm| norm.sums);
    let reads_x = head.relu || sums.is_some();
    let mut bindings = vec![weight, dlogits, gradient];
    if reads_x {
        bindings.push(x);
    }
    bindings.extend(norm.map(|norm| norm.affine));
    bindings.extend(sums.map(|(partials, _)| partials));
    let kernel = head.kernel("head_backward.wgsl", norm_constant(norm), &[]);
    let work = head.backward_work(images, reads_x);
    Dispatch::new(kernel, head.params(images, 0, norm), &bindings, grid(images as u64), work)
}

/// Heads of the built-in networks, of a narrow one, and the largest.
#[cfg(test)]
const SIZES: [(usize, usize); 10] =
    [(20, 2), (64, 10), (64, 100), (128, 10), (256, 10), (512, 10), (512, 100), (640, 100), (640, 1000), (1300, 1004)];

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<crate::engine::wgsl::layout::Layout> {
    vec![HeadParams::LAYOUT]
}

/// Every kernel that the functions of this file use, for some sizes.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let mut all = Vec::new();
    for (channels, classes) in SIZES {
        for relu in [false, true] {
            let head = Head { map: FeatureMap { channels, height: 4, width: 4 }, classes, relu };
            for norm in 0..3 {
                all.extend(["head_attack.wgsl", "head_backward.wgsl"].map(|file| head.kernel(file, norm, &[])));
            }
            for (norm, pooled) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                all.push(head.kernel("head_forward.wgsl", norm, &[("POOLED", pooled)]));
            }
        }
    }
    all
}

#[cfg(test)]
mod tests;
