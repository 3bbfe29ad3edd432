//! The window: panels round a worker.
//!
//! ```text
//! worker ── updates ──▶ RunView ──▶ panels ── actions ──▶ App ── requests ──▶ worker
//! ```
//!
//! Panels only read the view and ask for actions; the application carries them out after the frame. Nothing here waits for
//! the worker.

mod bars;
mod closing;
pub mod command;
pub mod context;
pub mod dialogs;
#[cfg(test)]
mod dialogs_tests;
pub mod evaluation;
mod export;
pub mod focus;
mod fonts;
pub mod form;
mod frame_times;
pub mod glossary;
mod launch;
pub mod layout;
pub mod lessons;
pub mod level;
mod message_window;
#[cfg(test)]
mod naming_tests;
mod palette;
#[cfg(test)]
mod palette_tests;
pub mod panels;
pub mod past;
mod paths;
pub mod pictures;
mod reading;
pub mod runs;
#[cfg(test)]
mod sample;
mod session_bus;
pub mod settings;
#[cfg(test)]
mod snapshots;
#[cfg(test)]
mod steady_tests;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod theme;
mod toasts;
mod tour;
pub mod view;
mod welcome;
#[cfg(test)]
mod welcome_tests;
pub mod widgets;
mod window;

pub use closing::Ending;
pub use launch::{LaunchError, LaunchOptions, has_display, run};
pub use tour::TourOptions;
pub use window::{App, Surroundings};
