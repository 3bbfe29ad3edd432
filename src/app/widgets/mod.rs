//! What several panels draw with.

pub mod picture;
mod text;

pub use text::{card, empty, epsilon, export_menu, percent, strong, term, weak};
