//! The kernels: for each operation, functions that give the dispatches which compute it.

pub(super) mod linear;
pub(super) mod norm;
pub(super) mod pointwise;
pub(super) mod pool;
