//! Kernels that measure the peak rates of a device: bound by arithmetic, by memory, or by launch overhead.

use crate::engine::wgsl::kernel::{Dispatch, Kernel, Slice, Work, grid};
#[cfg(test)]
use crate::engine::wgsl::layout::Layout;
use crate::engine::wgsl::layout::gpu_struct;

/// Invocations of a workgroup.
const LANES: u64 = 256;
/// Steps of a chain per loop iteration (round).
const UNROLL: u64 = 8;
/// Numbers of independent chains per invocation to try: too few hide too little latency, too many spill registers.
pub(in crate::engine::wgsl) const CHAINS: [u32; 3] = [2, 4, 8];
/// Maximum number of rounds. Every sum of [`fma`] is then exact in `f32`, `8 · (64 + 8 + 8 · rounds) < 2²⁴`, and
/// lavapipe runs every round: it ends any loop after 65,535 iterations.
pub(in crate::engine::wgsl) const MOST_ROUNDS: u32 = 1 << 15;

gpu_struct! {
    struct FmaParams for "bench_fma.wgsl" {
        invocations: u32,
        rounds: u32,
        factor: f32,
        step: f32,
    }
}

gpu_struct! {
    struct NothingParams for "bench_nothing.wgsl" {
        number: u32,
    }
}

gpu_struct! {
    struct CopyParams for "bench_copy.wgsl", "bench_fill.wgsl" {
        quads: u32,
    }
}

/// Bytes that [`fma`] writes.
pub(in crate::engine::wgsl) const fn fma_bytes(groups: u32) -> u64 {
    16 * LANES * groups as u64
}

/// Each invocation increments `chains` vectors by one, `8 · rounds` times, as `x · 1 + 1`; the factor is unknown to the
/// compiler. The sums of the vectors are written to `result`.
pub(in crate::engine::wgsl) fn fma(chains: u32, groups: u32, rounds: u32, result: Slice) -> Dispatch {
    let invocations = LANES * u64::from(groups);
    let steps = u64::from(chains) * UNROLL * u64::from(rounds);
    let work = Work { flops: 2 * 4 * invocations * steps, bytes: fma_bytes(groups) };
    let params = FmaParams { invocations: invocations as u32, rounds, factor: 1.0, step: 1.0 };
    Dispatch::new(fma_kernel(chains), params, &[result], grid(u64::from(groups)), work)
}

fn fma_kernel(chains: u32) -> Kernel {
    Kernel::new("bench_fma.wgsl", &[("CHAINS", chains), ("UNROLL", UNROLL as u32)])
}

/// `to = from` over `quads` quads.
pub(in crate::engine::wgsl) fn copy(quads: u64, from: Slice, to: Slice) -> Dispatch {
    let params = CopyParams { quads: quads as u32 };
    let work = Work { flops: 0, bytes: 32 * quads };
    Dispatch::new(Kernel::plain("bench_copy.wgsl"), params, &[from, to], grid(quads.div_ceil(LANES)), work)
}

/// Fills `quads` quads with pseudo-random words.
pub(in crate::engine::wgsl) fn fill(quads: u64, words: Slice) -> Dispatch {
    let params = CopyParams { quads: quads as u32 };
    let work = Work { flops: 0, bytes: 16 * quads };
    Dispatch::new(Kernel::plain("bench_fill.wgsl"), params, &[words], grid(quads.div_ceil(LANES)), work)
}

/// Writes `number`.
pub(in crate::engine::wgsl) fn nothing(number: u32, result: Slice) -> Dispatch {
    let work = Work { flops: 0, bytes: 4 };
    Dispatch::new(Kernel::plain("bench_nothing.wgsl"), NothingParams { number }, &[result], [1, 1, 1], work)
}

/// The structs that kernels of this file read.
#[cfg(test)]
pub(in crate::engine::wgsl) fn layouts() -> Vec<Layout> {
    vec![FmaParams::LAYOUT, NothingParams::LAYOUT, CopyParams::LAYOUT]
}

/// Every kernel that the functions of this file use.
#[cfg(test)]
pub(in crate::engine::wgsl) fn variants() -> Vec<Kernel> {
    let plain = ["bench_copy.wgsl", "bench_fill.wgsl", "bench_nothing.wgsl"].map(Kernel::plain);
    CHAINS.map(fma_kernel).into_iter().chain(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgsl::harness::Harness;

    /// The expected result if the kernel runs every step: each adds one.
    fn fma_twin(chains: u32, invocations: u32, rounds: u32) -> Vec<f32> {
        let steps = UNROLL * u64::from(rounds);
        let sum = |i: u32| (0..chains).map(|c| u64::from(i % 64 + c) + steps).sum::<u64>();
        (0..invocations).flat_map(|i| [sum(i) as f32; 4]).collect()
    }

    #[test]
    fn every_multiply_add_is_carried_out() {
        for mut h in Harness::both() {
            for chains in CHAINS {
                for (groups, rounds) in [(1, 1), (3, 0), (2, 1000), (1, MOST_ROUNDS)] {
                    let invocations = LANES as u32 * groups;
                    let result = h.output(4 * invocations as usize);
                    let dispatch = fma(chains, groups, rounds, result);
                    assert_eq!(result.size, fma_bytes(groups));
                    h.run(&[dispatch]);
                    h.expect("fma", result, &fma_twin(chains, invocations, rounds), 0.0);
                }
            }
        }
    }

    #[test]
    fn the_arithmetic_is_counted() {
        let slice = Slice { buffer: crate::engine::wgsl::kernel::BufferId(0), offset: 0, size: 16 };
        // Two operations for each of four lanes of a vector.
        assert_eq!(fma(4, 3, 5, slice).work.flops, 2 * 4 * (3 * 256) * 4 * (8 * 5));
    }

    #[test]
    fn a_copy_is_the_same_words_and_the_words_differ() {
        for mut h in Harness::both() {
            for quads in [1usize, 255, 257, 5000] {
                let (from, to) = (h.output(4 * quads), h.output(4 * quads + 4));
                h.run(&[fill(quads as u64, from), copy(quads as u64, from, to)]);
                let (words, copied): (Vec<u32>, Vec<u32>) = (h.read(from), h.read(to));
                assert_eq!(words, copied[..4 * quads]);
                // Nothing is written after the last quad.
                let unwritten = h.output(4);
                assert_eq!(copied[4 * quads..], h.read::<u32>(unwritten));
                let mut sorted = words.clone();
                sorted.sort_unstable();
                sorted.dedup();
                assert_eq!(sorted.len(), words.len());
            }
            let result = h.output(1);
            h.run(&[nothing(77, result)]);
            assert_eq!(h.read::<u32>(result), [77]);
        }
    }
}
