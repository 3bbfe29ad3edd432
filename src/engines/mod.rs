//! Chooses the engine for the options of an experiment on this machine, and opens it.
//!
//! A layer above [`crate::config`], whose options it reads, and below [`crate::train`]: code that only attacks or
//! evaluates a network needs an engine but no training.

mod probe;

use crate::config::{DeviceChoice, EngineChoice, EngineOptions};
use crate::console::tell;
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::wgsl::{self, AdapterKind, KernelTable, Subgroups, Tuning, WgslEngine, WgslOptions};
use crate::engine::{Cancel, Engine, EngineError};
use crate::memory;
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

/// What to do about a network that is too large.
pub(crate) const SMALLER: &str = "choose a smaller network, batch or image";

/// The subject of an error about the size of a network and its batch.
pub(crate) fn describe(network: &Network, batch: usize) -> String {
    format!("{} with a batch of {batch} images of {} needs", network.architecture, network.input)
}

/// Checks that a network and its batches fit the memory of this machine, before any of it is allocated. On a GPU only
/// what the host holds is counted: its driver refuses what does not fit it. All counts are lower bounds.
///
/// # Errors
/// [`EngineError::TooLarge`] with the numbers.
pub fn check_memory(
    options: &EngineOptions,
    network: &Network,
    batch: usize,
    training: bool,
) -> Result<(), EngineError> {
    let state = network.state_bytes();
    let check = |needed: u128| memory::check(needed, || describe(network, batch), SMALLER);
    let on_host =
        if training { network.training_bytes(batch) } else { network.activation_bytes(batch).saturating_add(state) };
    match check(on_host) {
        Err(_) if choose_engine(options) != ChosenEngine::Candle(CandleDevice::Cpu) => {
            let pixels = (network.input.len() as u128).saturating_mul(batch as u128);
            Ok(check(state.saturating_add(pixels))?)
        }
        checked => Ok(checked?),
    }
}

/// Opens the engine that `options` select.
///
/// # Errors
/// Returns an error if the options contradict each other, if this machine or this build does not have the engine, or if
/// the state does not fit the network.
pub fn open_engine(options: &EngineOptions, network: Network, state: &State) -> Result<Box<dyn Engine>, EngineError> {
    open_engine_unless(options, network, state, None, &mut || false)
}

/// As [`open_engine`] for a run, which may be stopped before its engine is open. A run that is resumed uses its `kernels`
/// if the device and the program are unchanged.
///
/// `stop` is asked between the steps: finding the devices, opening each, measuring each kernel. A call of a driver is not
/// interrupted.
///
/// # Errors
/// As [`open_engine`]; [`EngineError::Stopped`].
pub fn open_engine_unless(
    options: &EngineOptions,
    network: Network,
    state: &State,
    kernels: Option<KernelTable>,
    stop: Cancel<'_>,
) -> Result<Box<dyn Engine>, EngineError> {
    options.validate().map_err(|error| EngineError::Invalid(error.to_string()))?;
    let mut go_on = || if stop() { Err(EngineError::Stopped) } else { Ok(()) };
    go_on()?;
    let chosen = choose_engine(options);
    go_on()?;
    let opened: Box<dyn Engine> = match chosen {
        ChosenEngine::Candle(device) => Box::new(CandleEngine::new(network, state, device)?),
        ChosenEngine::Wgsl => {
            let wgsl = WgslOptions { choices: kernels, ..wgsl_options(options) };
            let asked_for = options.engine == EngineChoice::Wgsl || options.adapter.is_some();
            let opened = WgslEngine::new_unless(network.clone(), state, &wgsl, &mut || go_on().is_err());
            go_on()?;
            match opened {
                Err(EngineError::Gpu(error)) if !asked_for => {
                    tell!("warning: the GPU cannot be used, using the CPU instead: {error}");
                    Box::new(CandleEngine::new(network, state, CandleDevice::Cpu)?)
                }
                opened if asked_for || options.deterministic || !is_doubtful() => Box::new(opened?),
                opened => {
                    let cpu = CandleEngine::new(network, state, CandleDevice::Cpu)?;
                    go_on()?;
                    probe::faster(Box::new(opened?), Box::new(cpu), &mut || go_on().is_err())?
                }
            }
        }
    };
    go_on()?;
    Ok(opened)
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
    fn what_does_not_fit_the_machine_is_refused_before_it_is_allocated() {
        use crate::data::ImageShape;
        use crate::model::Architecture;
        let network = |architecture: Architecture, side, width| {
            architecture.build(ImageShape::new(3, side, side), 10, None, Some(width))
        };
        let candle =
            EngineOptions { engine: EngineChoice::Candle, device: DeviceChoice::Cpu, ..EngineOptions::default() };
        let small = network(Architecture::SmallCnn, 32, 32);
        for training in [true, false] {
            check_memory(&candle, &small, 64, training).unwrap();
            for (network, batch) in [
                (&small, 1_000_000_000),
                (&network(Architecture::SmallCnn, 4096, 4096), 1 << 20),
                (&network(Architecture::WideResNet34x10, 32, 1 << 20), 2),
            ] {
                let refused = check_memory(&candle, network, batch, training).unwrap_err();
                assert!(matches!(refused, EngineError::TooLarge(_)), "{refused}");
            }
        }
        let message = check_memory(&candle, &small, 1_000_000_000, true).unwrap_err().to_string();
        assert!(
            message.starts_with("small-cnn with a batch of 1000000000 images of 3×32×32 needs at least "),
            "{message}"
        );
        assert!(message.ends_with(" of memory: choose a smaller network, batch or image"), "{message}");
    }

    /// Stops at each point at which the opening of an engine can be stopped.
    #[test]
    fn opening_an_engine_stops_between_its_steps() {
        use crate::data::ImageShape;
        use crate::model::Architecture;
        let network = Architecture::DigitsCnn.build(ImageShape::new(1, 8, 8), 10, None, Some(4));
        let state = State::initialise(&network, 0);
        let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
        for (engine, adapter, least) in [(EngineChoice::Candle, None, 3), (EngineChoice::Wgsl, adapter, 6)] {
            let options = EngineOptions { engine, adapter, deterministic: true, ..EngineOptions::default() };
            let mut stopped = 0;
            loop {
                let mut asked = 0;
                let mut stop = || {
                    asked += 1;
                    asked > stopped
                };
                match open_engine_unless(&options, network.clone(), &state, None, &mut stop) {
                    Err(EngineError::Stopped) => stopped += 1,
                    opened => break drop(opened.unwrap()),
                }
            }
            assert!(stopped >= least, "{engine:?}: {stopped}");
        }
    }

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
