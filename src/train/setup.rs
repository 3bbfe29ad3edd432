//! From the description of an experiment to images, network and engine.

use std::sync::Arc;

use crate::config::{DeviceChoice, EngineChoice, EngineOptions, Experiment};
use crate::data::{self, DataError, Dataset, TrainTest, channel_statistics};
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::wgsl::{self, AdapterKind, KernelTable, Subgroups, Tuning, WgslEngine, WgslOptions};
use crate::engine::{Engine, EngineError};
use crate::model::{Network, State};

/// The images of a run.
#[derive(Debug, Clone)]
pub struct Splits {
    /// Trained on.
    pub train: Arc<Dataset>,
    /// Part of the training images, kept for choosing between epochs.
    pub validation: Arc<Dataset>,
    /// Only ever evaluated.
    pub test: Arc<Dataset>,
}

impl Splits {
    /// Loads, limits and splits the data set of an experiment.
    ///
    /// # Errors
    /// Whatever [`data::load`] and [`data::split`] find.
    pub fn load(experiment: &Experiment) -> Result<Self, DataError> {
        Self::new(data::load(&experiment.source())?, experiment)
    }

    /// Limits and splits a data set that is in memory.
    ///
    /// # Errors
    /// When a limit leaves a class without images.
    pub fn new(TrainTest { train, test }: TrainTest, experiment: &Experiment) -> Result<Self, DataError> {
        let train = limited(train, experiment.data.limit)?;
        let test = limited(test, experiment.data.test_limit)?;
        let (size, choice) = experiment.validation();
        let (training, validation) = data::split(&train, size, choice)?;
        let (validation, train) = (train.select(&validation)?, train.select(&training)?);
        Ok(Self { train: train.into(), validation: validation.into(), test: test.into() })
    }
}

/// The first images of each class, `limit` in all, in equal shares; a remainder goes to the first classes.
///
/// # Errors
/// When the limit leaves a class without images.
pub fn limited(set: Dataset, limit: Option<usize>) -> Result<Dataset, DataError> {
    let Some(limit) = limit.filter(|limit| *limit < set.len()) else { return Ok(set) };
    let classes = set.classes();
    if limit < classes {
        let what = format!("a limit of {limit} images leaves some of its {classes} classes without any");
        return Err(DataError::Inconsistent { name: set.name().to_owned(), what });
    }
    let mut room: Vec<usize> = (0..classes).map(|k| limit / classes + usize::from(k < limit % classes)).collect();
    let fits = |label: u32| {
        let room = &mut room[label as usize];
        let fits = *room > 0;
        *room -= usize::from(fits);
        fits
    };
    let mut fits = fits;
    let kept: Vec<usize> = set.labels().iter().enumerate().filter(|(_, l)| fits(**l)).map(|(i, _)| i).collect();
    set.select(&kept)
}

/// Mean and standard deviation of each channel that the network's first layer takes out: for CIFAR those in the authors'
/// final script, else those of the training images.
pub fn normalisation(experiment: &Experiment, train: &Dataset) -> Option<(Vec<f32>, Vec<f32>)> {
    let colour = train.shape().channels == 3;
    match experiment.data.dataset.as_str() {
        _ if !experiment.data.normalize => None,
        "cifar10" if colour => {
            Some((vec![0.491_399_7, 0.482_158_4, 0.446_530_9], vec![0.247_032_2, 0.243_484_9, 0.261_587_8]))
        }
        "cifar100" if colour => Some((vec![0.5071, 0.4867, 0.4408], vec![0.2675, 0.2565, 0.2761])),
        _ => Some(channel_statistics(train)),
    }
}

/// The network of an experiment for these training images.
pub fn network(experiment: &Experiment, train: &Dataset) -> Network {
    let normalisation = normalisation(experiment, train);
    let normalisation = normalisation.as_ref().map(|(mean, std)| (mean.as_slice(), std.as_slice()));
    experiment.model.arch.build(train.shape(), train.classes(), normalisation, experiment.model.width)
}

/// The engine that a choice comes down to on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChosenEngine {
    /// Candle on this device.
    Candle(CandleDevice),
    /// Our shaders, on the adapter that is named or preferred.
    Wgsl,
}

/// What `options` come down to on this machine. `auto` is a GPU that Candle was built for, else a GPU for our shaders
/// (never a software one, which is for tests), else Candle on the CPU. A GPU that is not a discrete one still has to be
/// faster than the CPU when [`open_engine`] opens it for `auto`.
pub fn choose_engine(options: &EngineOptions) -> ChosenEngine {
    decide(options, &CandleDevice::available(), || wgsl::default_adapter().map(|adapter| adapter.kind))
}

fn decide(
    options: &EngineOptions,
    candle: &[CandleDevice],
    adapter: impl FnOnce() -> Option<AdapterKind>,
) -> ChosenEngine {
    // The CPU comes first in the list; anything after it is a GPU, whose libraries do not promise the same bytes twice.
    let native = candle.last().copied().filter(|device| *device != CandleDevice::Cpu && !options.deterministic);
    match (options.engine, options.device) {
        (EngineChoice::Wgsl, _) => ChosenEngine::Wgsl,
        (_, DeviceChoice::Cpu) => ChosenEngine::Candle(CandleDevice::Cpu),
        (_, DeviceChoice::Cuda) => ChosenEngine::Candle(CandleDevice::Cuda(0)),
        (_, DeviceChoice::Metal) => ChosenEngine::Candle(CandleDevice::Metal(0)),
        (EngineChoice::Candle, DeviceChoice::Auto) => ChosenEngine::Candle(native.unwrap_or_default()),
        (EngineChoice::Auto, DeviceChoice::Auto) => match native {
            // Who names an adapter wants the engine that it belongs to.
            _ if options.adapter.is_some() => ChosenEngine::Wgsl,
            Some(device) => ChosenEngine::Candle(device),
            None if adapter().is_some_and(|kind| kind != AdapterKind::Software) => ChosenEngine::Wgsl,
            None => ChosenEngine::Candle(CandleDevice::Cpu),
        },
    }
}

/// Opens the engine that is asked for.
///
/// # Errors
/// When the options contradict each other, when this machine or this build does not have the engine, or when the state
/// does not fit the network.
pub fn open_engine(options: &EngineOptions, network: Network, state: &State) -> Result<Box<dyn Engine>, EngineError> {
    open_engine_with(options, network, state, None)
}

/// The same for a run that was begun before: with its kernels, where the device and the program are still the same.
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
                    eprintln!("warning: the GPU cannot be used, so the CPU is: {error}");
                    Ok(Box::new(CandleEngine::new(network, state, CandleDevice::Cpu)?))
                }
                opened if asked_for || options.deterministic || !is_doubtful() => Ok(Box::new(opened?)),
                opened => {
                    let cpu = CandleEngine::new(network, state, CandleDevice::Cpu)?;
                    super::probe::faster(Box::new(opened?), Box::new(cpu))
                }
            }
        }
    }
}

/// How the WGSL engine is opened for `options`.
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
    use crate::data::ImageShape;

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

    #[test]
    fn limits_keep_classes_in_balance_and_order() {
        let names = (0..3).map(|k| k.to_string()).collect();
        let labels = vec![0, 0, 0, 1, 1, 1, 2, 2, 2];
        let set = Dataset::new("t", names, ImageShape::new(1, 1, 1), (0..9).collect(), labels).unwrap();
        let kept = limited(set.clone(), Some(5)).unwrap();
        assert_eq!((kept.labels(), kept.images()), (&[0, 0, 1, 1, 2][..], &[0, 1, 3, 4, 6][..]));
        assert_eq!(limited(set.clone(), Some(9)).unwrap(), set);
        assert!(limited(set, Some(2)).unwrap_err().to_string().contains("limit of 2"));
    }
}
