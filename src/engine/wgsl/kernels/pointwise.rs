//! Operations that work on each value alone.

use bytemuck::{Pod, Zeroable};

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid};

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Count {
    quads: u32,
}

/// `sum = a + b` over `quads` quads.
pub(in crate::engine::wgsl) fn add(quads: u64, a: Slice, b: Slice, sum: Slice) -> Dispatch {
    let work = Work { flops: 4 * quads, bytes: 48 * quads };
    let params = Count { quads: quads as u32 };
    Dispatch::new(Kernel::plain("add.wgsl"), params, &[a, b, sum], grid(quads.div_ceil(256)), work)
}

/// Every variant of the kernels here.
#[cfg(test)]
pub(super) fn variants() -> Vec<Kernel> {
    vec![Kernel::plain("add.wgsl")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgsl::harness::{Harness, random};

    #[test]
    fn add_matches_its_twin() {
        for mut h in Harness::both() {
            for quads in [1, 255, 256, 257, 41 * 41 * 5] {
                let (a, b) = (random(4 * quads, 0), random(4 * quads, 1));
                let (sa, sb, sum) = (h.input(&a), h.input(&b), h.output(4 * quads));
                h.run(&[add(quads as u64, sa, sb, sum)]);
                let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
                h.expect("add", sum, &expected, 0.0);
            }
        }
    }
}
