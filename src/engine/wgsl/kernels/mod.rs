//! The kernels: for each operation, functions that give the dispatches which compute it.

pub(super) mod conv;
pub(super) mod attack;
pub(super) mod call;
pub(super) mod loss;
pub(super) mod pointwise;
pub(super) mod sgd;

/// Every variant of every kernel that an engine may run, for the tests that look at shaders without a GPU.
#[cfg(test)]
pub(super) fn variants() -> Vec<super::kernel::Kernel> {
    [pointwise::variants()].concat()
}
