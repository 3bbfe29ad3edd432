//! The run itself, and the engine that it runs on.

use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use crate::config::Applies::{Now, Restart};
use crate::config::ConfigError;
use crate::config::Experiment;
use crate::config::row::{at_least_one, at_least_zero, row};
use crate::config::section::section;

/// Which engine runs the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum EngineChoice {
    /// Candle on a GPU that this build of Candle supports, else WGSL on a GPU, else Candle on the CPU
    Auto,
    /// Candle, on the CPU or on a GPU that this build supports
    Candle,
    /// The WGSL shaders of this program, on any GPU with Vulkan, Metal or DirectX 12
    Wgsl,
}

/// The device of the Candle engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceChoice {
    /// A GPU that this build supports, else the CPU
    Auto,
    /// All cores of the CPU
    Cpu,
    /// The first NVIDIA GPU (needs the cargo feature `cuda`)
    Cuda,
    /// The first Apple GPU (needs the cargo feature `metal`)
    Metal,
}

/// Which engine runs a network, and where.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct EngineOptions {
    /// Engine that runs the network
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// Device of the Candle engine
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// GPU of the WGSL engine: its index or a part of its name (see `fairtat engines`), high-performance or low-power
    #[arg(long, value_name = "ADAPTER")]
    pub adapter: Option<String>,
    /// Make no choices that depend on measurements or on a vendor's library: the WGSL engine takes its kernels from a
    /// fixed table instead of measuring them
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1,
        default_missing_value = "true")]
    pub deterministic: bool,
    /// Give every layer its own kernel in the WGSL engine, without Winograd's algorithm: slower, for comparisons
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set, default_value_t = false, num_args = 0..=1,
        default_missing_value = "true")]
    pub no_fusion: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            device: DeviceChoice::Auto,
            adapter: None,
            deterministic: false,
            no_fusion: false,
        }
    }
}

impl EngineOptions {
    /// Checks that engine, device and adapter are compatible.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] names the one that is not, and what to do.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let fail = |field, what: &str| Err(ConfigError::Invalid { field, what: what.into() });
        let elsewhere = self.device != DeviceChoice::Auto;
        match &self.adapter {
            Some(name) if name.trim().is_empty() => {
                fail("run.adapter", "expected an index, a part of a name, high-performance or low-power, found nothing")
            }
            Some(_) if self.engine == EngineChoice::Candle || elsewhere => fail(
                "run.adapter",
                "an adapter belongs to the WGSL engine; choose it with --engine wgsl, without --device",
            ),
            _ if self.engine == EngineChoice::Wgsl && elsewhere => fail(
                "run.device",
                "a device belongs to the Candle engine; the WGSL engine's GPU is chosen with --adapter",
            ),
            _ if self.deterministic && matches!(self.device, DeviceChoice::Cuda | DeviceChoice::Metal) => fail(
                "run.deterministic",
                "the libraries behind Candle's cuda and metal do not promise the same bytes twice; use --device cpu or \
                 --engine wgsl",
            ),
            _ => Ok(()),
        }
    }
}

/// Whether the fields select the Candle engine.
fn names_candle(experiment: &Experiment) -> bool {
    experiment.run.engine == EngineChoice::Candle || experiment.run.device != DeviceChoice::Auto
}

section! {
    /// The run itself.
    pub struct RunConfig in run "Run" {
        /// Seed of everything random
        #[arg(value_name = "N")]
        seed: u64 = 0, row("Seed", Restart).range(0.0, 99.0);
        /// Engine that runs the network
        #[arg(value_enum)]
        engine: EngineChoice = EngineChoice::Auto, row("Engine", Restart).harmless();
        /// Device of the Candle engine
        #[arg(value_enum)]
        device: DeviceChoice = DeviceChoice::Auto,
            row("Candle device", Restart).harmless().idle("The GPU of the WGSL engine is chosen by its name.", |e| {
                e.run.engine == EngineChoice::Wgsl || (e.run.engine == EngineChoice::Auto && e.run.adapter.is_some())
            });
        /// GPU of the WGSL engine: its index or a part of its name (see `fairtat engines`), high-performance or
        /// low-power; unset chooses the fastest kind
        #[arg(value_name = "ADAPTER")]
        adapter: Option<String> = None,
            row("GPU", Restart).harmless().unset("the fastest kind")
                .idle("The device of the Candle engine is chosen by its own field.", names_candle);
        /// Make no choices that depend on measurements or on a vendor's library, so that the same seed, device and
        /// build give the same bytes: the WGSL engine takes its kernels from a fixed table. By default it measures on a
        /// GPU which kernels are fastest, once per device and network, and a run keeps them (kernels.json)
        #[arg(value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        deterministic: bool = false, row("Deterministic", Restart).harmless();
        /// Give every layer its own kernel in the WGSL engine, without Winograd's algorithm: slower, for comparisons
        #[arg(value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
        no_fusion: bool = false,
            row("No fusion", Restart).harmless()
                .idle("Only the WGSL engine has kernels that compute several layers.", names_candle);
        /// Epochs between checkpoints
        #[arg(value_name = "EPOCHS")]
        checkpoint_every: u32 = 1,
            row("Checkpoints", Now).range(1.0, 50.0).unit("epochs").valid("at least 1", at_least_one).harmless();
        /// Minutes after which a checkpoint is also written within an epoch; 0 writes none there
        #[arg(value_name = "MINUTES")]
        checkpoint_minutes: f64 = 5.0,
            row("Within epochs", Now).range(0.0, 60.0).unit("minutes").valid("at least 0", at_least_zero).harmless();
        /// Images in the figure of adversarial examples
        #[arg(value_name = "N")]
        examples: usize = 10,
            row("Examples", Now).harmless().range(0.0, 100.0).unit("images").valid("at most 100", |value| value <= 100.0);
    }
}

impl RunConfig {
    /// The fields that select the engine.
    pub fn engine_options(&self) -> EngineOptions {
        EngineOptions {
            engine: self.engine,
            device: self.device,
            adapter: self.adapter.clone(),
            deterministic: self.deterministic,
            no_fusion: self.no_fusion,
        }
    }

    /// Replaces these fields.
    pub fn set_engine_options(&mut self, options: EngineOptions) {
        let EngineOptions { engine, device, adapter, deterministic, no_fusion } = options;
        (self.engine, self.device, self.adapter) = (engine, device, adapter);
        (self.deterministic, self.no_fusion) = (deterministic, no_fusion);
    }
}
