//! The kernels: for each operation, functions that give the dispatches which compute it.

pub(super) mod conv;
pub(super) mod attack;
pub(super) mod call;
pub(super) mod loss;
pub(super) mod pointwise;
pub(super) mod sgd;
