//! The kernels: for each operation, functions that give the dispatches which compute it.

pub(super) mod conv;
pub(super) mod pointwise;
