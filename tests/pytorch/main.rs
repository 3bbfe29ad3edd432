//! Every engine against the numbers that PyTorch gives (`tests/golden`), and against what must hold for any network.
//!
//! `cargo test --test pytorch -- --nocapture` prints the largest error of every quantity.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise"
)]

mod edges;
mod engines;
mod golden;
mod losses;
mod methods;
mod optimizer;
mod passes;
mod properties;
mod run;
mod search;
mod small_batches;
mod state_dicts;
mod tables;
mod training;
