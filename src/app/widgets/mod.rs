//! What several panels draw with.

pub mod markdown;
mod text;

pub use text::{card, empty, epsilon, export_menu, percent, strong, term, weak};
