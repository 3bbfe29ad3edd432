//! The engine that is open, for inspections between runs.

use crate::engine::Engine;

/// What images can be looked at with.
pub(super) struct Open {
    pub(super) engine: Box<dyn Engine>,
    pub(super) position: Option<f64>,
}
