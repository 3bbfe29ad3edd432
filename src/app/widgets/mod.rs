//! What several panels draw with.

mod icon;
pub mod markdown;
pub mod picture;
mod text;

pub use icon::{Icon, Look, icon_button};
pub use text::{card, empty, epsilon, export_menu, percent, strong, term, weak};
