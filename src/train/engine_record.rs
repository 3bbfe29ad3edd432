//! The engine that a run began with: `engine.json` in its directory.
//!
//! `--engine auto` examines the machine and may choose another engine at a resume: a GPU may be missing, or an
//! integrated GPU may now measure slower than the CPU. Engines agree only up to rounding, so a run continues with the
//! engine that it began with.

use serde::{Deserialize, Serialize};

use crate::config::{DeviceChoice, EngineChoice, EngineOptions};
use crate::engine::Engine;

/// Which engine and device a run began with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineRecord {
    /// Engine and kind of device, as [`Engine::name`] returns it: `candle-cpu`, `candle-cuda`, `candle-metal`, `wgsl`.
    pub name: String,
    /// Name of the adapter, for the WGSL engine.
    #[serde(default)]
    pub adapter: Option<String>,
    /// Engine and device in words, for messages.
    pub description: String,
}

impl EngineRecord {
    /// The record of an engine.
    pub fn of(engine: &dyn Engine) -> Self {
        Self {
            name: engine.name(),
            adapter: engine.kernels().map(|kernels| kernels.device.adapter),
            description: engine.describe(),
        }
    }

    /// Whether this program knows the engine.
    pub(super) fn is_known(&self) -> bool {
        let auto = EngineOptions::default();
        self.put_over(&auto) != auto
    }

    /// `options` with this engine in place of an automatic choice. Returns `options` unchanged if they name an engine,
    /// device or adapter, or if this program does not know the recorded engine.
    pub fn put_over(&self, options: &EngineOptions) -> EngineOptions {
        let (engine, device, adapter) = match self.name.as_str() {
            _ if !is_automatic(options) => return options.clone(),
            "candle-cpu" => (EngineChoice::Candle, DeviceChoice::Cpu, None),
            "candle-cuda" => (EngineChoice::Candle, DeviceChoice::Cuda, None),
            "candle-metal" => (EngineChoice::Candle, DeviceChoice::Metal, None),
            "wgsl" => (EngineChoice::Wgsl, DeviceChoice::Auto, self.adapter.clone()),
            _ => return options.clone(),
        };
        EngineOptions { engine, device, adapter, ..options.clone() }
    }
}

/// Whether `options` names neither engine, device nor adapter.
pub(super) fn is_automatic(options: &EngineOptions) -> bool {
    options.engine == EngineChoice::Auto && options.device == DeviceChoice::Auto && options.adapter.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, adapter: Option<&str>) -> EngineRecord {
        EngineRecord { name: name.into(), adapter: adapter.map(Into::into), description: String::new() }
    }

    #[test]
    fn an_automatic_choice_goes_on_with_the_recorded_engine_and_any_other_stands() {
        let auto = EngineOptions { no_fusion: true, ..EngineOptions::default() };
        let (candle, wgsl) = (EngineChoice::Candle, EngineChoice::Wgsl);
        for (name, adapter, engine, device) in [
            ("candle-cpu", None, candle, DeviceChoice::Cpu),
            ("candle-cuda", None, candle, DeviceChoice::Cuda),
            ("candle-metal", None, candle, DeviceChoice::Metal),
            ("wgsl", Some("Radeon 780M"), wgsl, DeviceChoice::Auto),
        ] {
            let options = record(name, adapter).put_over(&auto);
            let expected = EngineOptions {
                engine,
                device,
                adapter: adapter.map(Into::into),
                no_fusion: true,
                deterministic: false,
            };
            assert_eq!(options, expected);
            options.validate().unwrap();
        }
        for chosen in [
            EngineOptions { engine: candle, ..auto.clone() },
            EngineOptions { device: DeviceChoice::Cpu, ..auto.clone() },
            EngineOptions { adapter: Some("0".into()), ..auto.clone() },
        ] {
            assert_eq!(record("wgsl", Some("Radeon 780M")).put_over(&chosen), chosen);
        }
        assert_eq!(record("abacus", None).put_over(&auto), auto);
        assert!(record("wgsl", None).is_known() && !record("abacus", None).is_known());
    }
}
