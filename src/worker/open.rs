//! The engine that is open, for inspections between runs.

use crate::engine::Engine;

/// An open network for inspections, and the epochs it was trained for.
pub(super) struct Open {
    pub(super) engine: Box<dyn Engine>,
    pub(super) position: Option<f64>,
}
