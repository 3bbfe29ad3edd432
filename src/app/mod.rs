//! The window: panels round a worker.
//!
//! ```text
//! worker ── updates ──▶ RunView ──▶ panels ── actions ──▶ App ── requests ──▶ worker
//! ```
//!
//! Panels only read the view and ask for actions; the application carries them out after the frame. Nothing here waits for
//! the worker.

pub mod command;
pub mod context;
pub mod form;
pub mod glossary;
pub mod layout;
pub mod lessons;
pub mod panels;
pub mod runs;
#[cfg(test)]
mod sample;
pub mod settings;
#[cfg(test)]
mod testing;
pub mod theme;
pub mod view;
pub mod widgets;
