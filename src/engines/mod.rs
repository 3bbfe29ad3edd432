//! Chooses the engine for the options of an experiment on this machine, and opens it.
//!
//! A layer above [`crate::config`], whose options it reads, and below [`crate::train`]: code that only attacks or
//! evaluates a network needs an engine but no training.

mod probe;

use crate::config::{DeviceChoice, EngineChoice, EngineOptions};
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::wgsl::{self, AdapterKind, KernelTable, Subgroups, Tuning, WgslEngine, WgslOptions};
use crate::engine::{Engine, EngineError};
use crate::model::{Network, State};

/// The engine that a choice of options selects on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenEngine {
    /// Candle on this device.
    Candle(CandleDevice),
    /// The WGSL engine, on the named or the preferred adapter.
    Wgsl,
}

/// The engine that `options` select on this machine. `auto` selects Candle on a GPU if it was built for one, otherwise
/// the WGSL engine on a GPU (never on a software adapter, which is for tests), otherwise Candle on the CPU. When
/// [`open_engine`] opens a GPU that is not discrete for `auto`, it uses it only if it is faster than the CPU.
pub fn choose_engine(options: &EngineOptions) -> ChosenEngine {
    decide(options, &CandleDevice::available(), || wgsl::default_adapter().map(|adapter| adapter.kind))
}

/// [`choose_engine`] for a machine with the Candle devices `candle` and the preferred adapter that `adapter` returns.
pub(crate) fn decide(
    options: &EngineOptions,
    candle: &[CandleDevice],
    adapter: impl FnOnce() -> Option<AdapterKind>,
) -> ChosenEngine {
    // The CPU comes first in the list; anything after it is a GPU, whose libraries do not guarantee reproducible bits.
    let native = candle.last().copied().filter(|device| *device != CandleDevice::Cpu && !options.deterministic);
    match (options.engine, options.device) {
        (EngineChoice::Wgsl, _) => ChosenEngine::Wgsl,
        (_, DeviceChoice::Cpu) => ChosenEngine::Candle(CandleDevice::Cpu),
        (_, DeviceChoice::Cuda) => ChosenEngine::Candle(CandleDevice::Cuda(0)),
        (_, DeviceChoice::Metal) => ChosenEngine::Candle(CandleDevice::Metal(0)),
        (EngineChoice::Candle, DeviceChoice::Auto) => ChosenEngine::Candle(native.unwrap_or_default()),
        (EngineChoice::Auto, DeviceChoice::Auto) => match native {
            // A named adapter implies the WGSL engine.
            _ if options.adapter.is_some() => ChosenEngine::Wgsl,
            Some(device) => ChosenEngine::Candle(device),
            None if adapter().is_some_and(|kind| kind != AdapterKind::Software) => ChosenEngine::Wgsl,
            None => ChosenEngine::Candle(CandleDevice::Cpu),
        },
    }
}

/// Opens the engine that `options` select.
///
/// # Errors
/// Returns an error if the options contradict each other, if this machine or this build does not have the engine, or if
/// the state does not fit the network.
pub fn open_engine(options: &EngineOptions, network: Network, state: &State) -> Result<Box<dyn Engine>, EngineError> {
    open_engine_with(options, network, state, None)
}

/// As [`open_engine`] for a run that is resumed: uses its kernels if the device and the program are unchanged.
///
/// # Errors
/// As [`open_engine`].
pub fn open_engine_with(
    options: &EngineOptions,
    network: Network,
    state: &State,
    kernels: Option<KernelTable>,
) -> Result<Box<dyn Engine>, EngineError> {
    options.validate().map_err(|error| EngineError::Invalid(error.to_string()))?;
    match choose_engine(options) {
        ChosenEngine::Candle(device) => Ok(Box::new(CandleEngine::new(network, state, device)?)),
        ChosenEngine::Wgsl => {
            let wgsl = WgslOptions { choices: kernels, ..wgsl_options(options) };
            let asked_for = options.engine == EngineChoice::Wgsl || options.adapter.is_some();
            let opened = WgslEngine::new(network.clone(), state, &wgsl);
            match opened {
                Err(EngineError::Gpu(error)) if !asked_for => {
                    eprintln!("warning: the GPU cannot be used, using the CPU instead: {error}");
                    Ok(Box::new(CandleEngine::new(network, state, CandleDevice::Cpu)?))
                }
                opened if asked_for || options.deterministic || !is_doubtful() => Ok(Box::new(opened?)),
                opened => {
                    let cpu = CandleEngine::new(network, state, CandleDevice::Cpu)?;
                    probe::faster(Box::new(opened?), Box::new(cpu))
                }
            }
        }
    }
}

/// The options of the WGSL engine for `options`.
pub fn wgsl_options(options: &EngineOptions) -> WgslOptions {
    WgslOptions {
        adapter: options.adapter.clone(),
        plain: options.no_fusion,
        tuning: if options.deterministic { Tuning::Fixed } else { Tuning::Auto },
        subgroups: Subgroups::WhereFaster,
        ..WgslOptions::default()
    }
}

/// Whether the preferred adapter may be slower than the CPU.
fn is_doubtful() -> bool {
    wgsl::default_adapter().is_some_and(|adapter| adapter.kind != AdapterKind::Discrete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_a_native_gpu_then_a_real_adapter_then_the_cpu() {
        use AdapterKind::{Discrete, Integrated, Software};
        use ChosenEngine::{Candle, Wgsl};
        let cpu = &[CandleDevice::Cpu][..];
        let cuda = &[CandleDevice::Cpu, CandleDevice::Cuda(0)][..];
        let auto = EngineOptions::default();
        let named = EngineOptions { adapter: Some("0".into()), ..auto.clone() };
        let strict = EngineOptions { deterministic: true, ..auto.clone() };
        let on_cpu = EngineOptions { device: DeviceChoice::Cpu, ..auto.clone() };
        let candle = EngineOptions { engine: EngineChoice::Candle, ..auto.clone() };
        let strict_candle = EngineOptions { engine: EngineChoice::Candle, ..strict.clone() };
        let wgsl = EngineOptions { engine: EngineChoice::Wgsl, ..auto.clone() };
        for (options, candle, adapter, expected) in [
            (&auto, cuda, Some(Discrete), Candle(CandleDevice::Cuda(0))),
            (&auto, cpu, Some(Integrated), Wgsl),
            (&auto, cpu, Some(Software), Candle(CandleDevice::Cpu)),
            (&auto, cpu, None, Candle(CandleDevice::Cpu)),
            (&named, cuda, Some(Software), Wgsl),
            (&strict, cuda, Some(Discrete), Wgsl),
            (&strict, cuda, None, Candle(CandleDevice::Cpu)),
            (&on_cpu, cuda, Some(Discrete), Candle(CandleDevice::Cpu)),
            (&candle, cuda, Some(Discrete), Candle(CandleDevice::Cuda(0))),
            (&strict_candle, cuda, Some(Discrete), Candle(CandleDevice::Cpu)),
            (&wgsl, cuda, Some(Software), Wgsl),
        ] {
            assert_eq!(decide(options, candle, || adapter), expected, "{options:?} {candle:?} {adapter:?}");
        }
    }
}
