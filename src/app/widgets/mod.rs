//! Widgets shared by several panels.

mod bars;
mod export;
mod flow;
mod heatmap;
mod icon;
pub mod markdown;
pub mod picture;
pub mod plot;
mod quantity;
mod scroll;
mod text;

pub use bars::{BarRow, Bars, Part, bars, color_key, elided, mark_key, name_room, rows, stacked};
pub use export::{drawn, drawn_of, file_name as export_file_name, title as export_title};
pub use flow::{Flow, flow, section};
pub use heatmap::{Matrix, MatrixState, color_bar, matrix};
pub use icon::{Icon, Look, icon_button};
pub use quantity::{duration, grouped, points, short_percent, table};
pub use scroll::scrolled;
pub use text::{card, empty, epsilon, export_menu, percent, strong, term, weak};
