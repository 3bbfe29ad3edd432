//! The kernels: for each operation, functions that return the dispatches that compute it.

pub(super) mod attack;
pub(super) mod bench;
pub(super) mod call;
pub(super) mod conv;
pub(super) mod gemm;
pub(super) mod head;
pub(super) mod linear;
pub(super) mod loss;
pub(super) mod norm;
pub(super) mod pointwise;
pub(super) mod pool;
pub(super) mod read;
pub(super) mod sgd;
pub(super) mod stem;
pub(super) mod winograd;

/// The layouts of all parameter structs, for the test that compares them with the shaders.
#[cfg(test)]
pub(super) fn layouts() -> Vec<super::layout::Layout> {
    [
        attack::layouts(),
        bench::layouts(),
        conv::layouts(),
        head::layouts(),
        linear::layouts(),
        loss::layouts(),
        norm::layouts(),
        pointwise::layouts(),
        pool::layouts(),
        sgd::layouts(),
        super::subgroups::layouts(),
        winograd::layouts(),
        stem::layouts(),
    ]
    .concat()
}

/// Every kernel variant that an engine may run, for the tests that validate shaders without a GPU.
#[cfg(test)]
pub(super) fn variants() -> Vec<super::kernel::Kernel> {
    [
        attack::variants(),
        bench::variants(),
        conv::variants(),
        head::variants(),
        linear::variants(),
        loss::variants(),
        norm::variants(),
        pointwise::variants(),
        pool::variants(),
        sgd::variants(),
        super::subgroups::variants(),
        winograd::variants(),
        stem::variants(),
        // Writes the random words themselves, for the test that compares them with `rng`.
        vec![super::kernel::Kernel::plain("random_words.wgsl")],
    ]
    .concat()
}
