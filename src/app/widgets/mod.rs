//! What several panels draw with.

mod icon;
mod text;

pub use icon::{Icon, Look, icon_button};
pub use text::{card, empty, epsilon, export_menu, percent, strong, term, weak};
