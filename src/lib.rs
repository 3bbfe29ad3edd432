//! Training of image classifiers that are robust *and fair across classes*.
//!
//! Data flows one way through the modules, and each module depends only on those before it:
//!
//! ```text
//! data → model → engine → fairness → config → engines → train → evaluate → worker → app
//! ```
//!
//! * [`data`]: images as bytes with labels, built in, from disk, or downloaded from their publishers
//! * [`rng`]: counter-based random numbers, identical on every engine
//! * [`model`]: networks as data, their parameters, initialisation and files
//! * [`engine`]: running a network: perturbation, training step, logits, gradients
//! * [`fairness`]: class statistics, CFPS, target distribution, class-wise epsilon
//! * [`engines`]: selecting and opening the engine of an experiment
//! * [`train`]: averaging, the training loop, the run directory
//! * [`evaluate`]: accuracy under attack, figures
//! * [`worker`]: the thread that owns the engine of a window
//! * `app`: the window (with the feature `window`)
//! * [`config`]: the description of an experiment, shared by command line and file

#[cfg(feature = "window")]
pub mod app;
pub mod attack;
pub mod cli;
pub mod config;
pub(crate) mod console;
pub mod data;
pub mod engine;
pub mod engines;
pub mod evaluate;
pub mod fairness;
pub mod files;
pub mod lock;
pub mod memory;
pub mod model;
mod packed;
#[doc(hidden)]
pub mod readers;
pub mod rng;
pub mod statistics;
pub mod study;
pub mod train;
pub mod units;
pub mod worker;
