//! Training of image classifiers that are robust *and fair across classes*.
//!
//! Data flows one way through the modules, and a module knows only those before it:
//!
//! ```text
//! data → model → engine → fairness → config → engines → train → evaluate → worker → app
//! ```
//!
//! * [`data`]: images as bytes with labels, from the program itself, from disk, from their publishers
//! * [`rng`]: counter-based random numbers, the same on every engine
//! * [`model`]: networks as data, their parameters, initialisation and files
//! * [`engine`]: what runs a network: perturbation, training step, logits, gradients
//! * [`fairness`]: class statistics, CFPS, target distribution, class-wise epsilon
//! * [`engines`]: which engine an experiment asks for, and opening it
//! * [`train`]: averaging, the training loop, the run directory
//! * [`evaluate`]: accuracy under attack, figures
//! * [`worker`]: the thread that owns the engine of a window
//! * `app`: the window (with the feature `window`)
//! * [`config`]: the one description of an experiment behind command line and file

#[cfg(feature = "window")]
pub mod app;
pub mod attack;
pub mod cli;
pub mod config;
pub mod data;
pub mod engine;
pub mod engines;
pub mod evaluate;
pub mod fairness;
pub mod files;
pub mod model;
pub mod rng;
pub mod train;
pub mod units;
pub mod worker;
