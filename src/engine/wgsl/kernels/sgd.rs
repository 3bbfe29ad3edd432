//! The update of the parameters.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

gpu_struct! {
    struct SgdParams for "sgd.wgsl" {
        quads: u32,
    }
}

/// The SGD step that `call` holds, over `quads` quads: `m ← momentum · m + g + decay · p`, `p ← p - lr · m`.
pub(in crate::engine::wgsl) fn sgd(
    quads: u64,
    call: Slice,
    gradient: Slice,
    parameter: Slice,
    momentum: Slice,
) -> Dispatch {
    let work = Work { flops: 24 * quads, bytes: 80 * quads };
    let params = SgdParams { quads: quads as u32 };
    let bindings = [call, gradient, parameter, momentum];
    Dispatch::new(Kernel::plain("sgd.wgsl"), params, &bindings, grid(quads.div_ceil(256)), work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![SgdParams::LAYOUT]
}

/// Every kernel variant of this file.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    vec![Kernel::plain("sgd.wgsl")]
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;
    use crate::engine::SgdStep;
    use crate::engine::wgsl::harness::{Harness, random};
    use crate::engine::wgsl::kernels::call::Call;

    /// Measured: below 3e-8, the rounding of one multiplication and addition.
    #[test]
    fn sgd_follows_the_formula_over_steps() {
        for (mut h, nesterov) in
            Harness::both().into_iter().zip([false, true]).chain(Harness::both().into_iter().zip([true, false]))
        {
            let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov };
            let call = h.input(&[Call::zeroed().with_sgd(&step)]);
            for quads in [1, 256, 257, 1000] {
                let n = 4 * quads;
                let (start, first, second) = (random(n, 0), random(n, 1), random(n, 2));
                let (p, m) = (h.input(&start), h.input(&vec![0.0f32; n]));
                let gradients = [h.input(&first), h.input(&second)];
                h.run(&gradients.map(|g| sgd(quads as u64, call, g, p, m)));
                let (mut parameter, mut momentum) = (start, vec![0.0; n]);
                for gradient in [&first, &second] {
                    for i in 0..n {
                        let decayed = f64::from(gradient[i]) + step.weight_decay * f64::from(parameter[i]);
                        momentum[i] = (step.momentum * f64::from(momentum[i]) + decayed) as f32;
                        let direction = f64::from(momentum[i]);
                        let direction = if nesterov { decayed + step.momentum * direction } else { direction };
                        parameter[i] = (f64::from(parameter[i]) - step.lr * direction) as f32;
                    }
                }
                h.expect("momentum", m, &momentum, 1e-7);
                h.expect("parameter", p, &parameter, 1e-7);
            }
        }
    }

    #[test]
    fn zero_stays_zero_and_not_a_number_is_seen() {
        for mut h in Harness::both() {
            let step = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
            let call = h.input(&[Call::zeroed().with_sgd(&step)]);
            let (p, m) = (h.input(&[0.0f32; 4]), h.input(&[0.0f32; 4]));
            let g = h.input(&[0.0, f32::NAN, f32::INFINITY, 0.0]);
            h.run(&[sgd(1, call, g, p, m)]);
            for slice in [p, m] {
                let found: Vec<f32> = h.read(slice);
                assert!(found[0] == 0.0 && found[1].is_nan() && found[2].is_infinite() && found[3] == 0.0, "{found:?}");
            }
        }
    }
}
