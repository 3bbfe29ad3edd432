//! Benchmark of an engine: images per second of one training step of a method, and the time of each phase.
//!
//! One step is the search of the method, one SGD update and the class statistics, on random images; for FAIR-TAT a
//! targeted PGD attack with batch norm in train mode. `benches/peers/torch_step.py` measures the same work for FAIR-TAT
//! in PyTorch and prints the same JSON.
//!
//! For the WGSL engine a profile times every dispatch of a step and compares it with the peak arithmetic and copy rates
//! of the device, measured in the same call ([`DeviceFigures`]).

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::{EngineOptions, Experiment, MethodChoice};
use crate::data::ImageShape;
use crate::engine::wgsl::{Checks, DeviceFigures, PaceStats, Profile, Subgroups, WgslEngine, WgslOptions};
use crate::engine::{Batch, Engine, EngineError, SearchSpec, SgdStep, View};
use crate::engines::{ChosenEngine, check_memory, choose_engine, open_engine, wgsl_options};
use crate::fairness::ClassStats;
use crate::model::{Architecture, Network, State};
use crate::rng::{Purpose, Stream};
use crate::train::methods::{self, Method, Radii};

/// Classes of the random labels.
const CLASSES: usize = 10;
/// Images of an epoch: CIFAR-10's.
pub const EPOCH_IMAGES: usize = 50_000;

/// Seconds of each phase of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Phases {
    /// The inner maximisation, including the drawing of targets.
    pub perturb: f64,
    /// The weight update.
    pub update: f64,
    /// Class statistics.
    pub statistics: f64,
}

impl Phases {
    /// Seconds of the step.
    pub fn total(&self) -> f64 {
        self.perturb + self.update + self.statistics
    }
}

/// Seconds of one epoch of [`EPOCH_IMAGES`] images, without validation and evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Epoch {
    /// Images.
    pub images: usize,
    /// Extrapolated from the median step.
    pub extrapolated_seconds: f64,
    /// Measured by running an epoch. `None` if it was not asked for.
    pub measured_seconds: Option<f64>,
}

/// Memory, dispatches and submissions of a step on the WGSL engine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Device {
    /// Bytes that the engine has allocated on the device.
    pub bytes: u64,
    /// Dispatches of a step.
    pub dispatches: f64,
    /// Mean number of submissions of a step; it varies because their size follows the speed of the device.
    pub submissions: f64,
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Architecture.
    pub architecture: &'static str,
    /// Channels of its first stage.
    pub width: usize,
    /// Training method.
    pub method: &'static str,
    /// Engine, as the command line names it.
    pub engine: String,
    /// Whether shaders check their indices at run time. `None` for engines without shaders.
    pub checks: Option<bool>,
    /// Whether parameters of dispatches are immediates if the adapter supports them. `None` likewise.
    pub immediates: Option<bool>,
    /// Whether matrix products use subgroup broadcasts. `None` likewise.
    pub subgroups: Option<bool>,
    /// Images in a batch.
    pub batch: usize,
    /// Shape of an image.
    pub image: String,
    /// Number of classes.
    pub classes: usize,
    /// Steps of the attack.
    pub attack_steps: u32,
    /// Training images per second: batch size divided by the median time of a step.
    pub images_per_second: f64,
    /// Seconds of the median step.
    pub step_seconds: f64,
    /// Phases of the median step.
    pub seconds: Phases,
    /// Steps measured, without warm-up.
    pub repeats: usize,
    /// Time of an epoch.
    pub epoch: Epoch,
    /// Memory and submissions. `None` for engines other than WGSL.
    pub device: Option<Device>,
    /// Times of every dispatch. `None` if they were not asked for.
    pub profile: Option<Profile>,
}

/// All measurements of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Name and version of this program.
    pub program: String,
    /// The device that the engine ran on.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
    /// Peak rates of the device. `None` without a profile.
    pub figures: Option<DeviceFigures>,
    /// A row for each architecture, batch size and method.
    pub results: Vec<Measurement>,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Engine and device.
    pub engine: EngineOptions,
    /// Run-time checks in the shaders of the WGSL engine; other engines have none.
    pub checks: Checks,
    /// Whether its dispatch parameters are immediates if the adapter supports them.
    pub immediates: bool,
    /// Whether its matrix products use subgroup broadcasts.
    pub subgroups: Subgroups,
    /// Channels of the first stage. `None` for the published number.
    pub width: Option<usize>,
    /// Training method, with its default settings.
    pub method: MethodChoice,
    /// Steps of the attack.
    pub attack_steps: u32,
    /// Minimum time of a measurement, which takes at least three steps.
    pub at_least: Duration,
    /// Whether to run a whole epoch.
    pub epoch: bool,
    /// Profile every dispatch, and compare with these figures of the device. `None` for no profile.
    pub figures: Option<DeviceFigures>,
}

impl BenchOptions {
    /// Options for opening the WGSL engine. `None` if another engine is measured.
    pub fn wgsl(&self) -> Option<WgslOptions> {
        let wgsl = choose_engine(&self.engine) == ChosenEngine::Wgsl;
        let Self { checks, immediates, subgroups, .. } = *self;
        wgsl.then(|| WgslOptions { checks, immediates, subgroups, ..wgsl_options(&self.engine) })
    }
}

/// The image shape for measuring an architecture: 8×8 grey for the digits network, 32×32 colour for the others.
pub const fn image_shape(architecture: Architecture) -> ImageShape {
    match architecture {
        Architecture::DigitsCnn => ImageShape::new(1, 8, 8),
        _ => ImageShape::new(3, 32, 32),
    }
}

/// Measures one architecture at one batch size. Also returns the engine's description of itself.
///
/// # Errors
/// If the engine cannot be opened or fails.
pub fn measure_step(
    architecture: Architecture,
    batch_size: usize,
    options: &BenchOptions,
) -> Result<(Measurement, String), EngineError> {
    let shape = image_shape(architecture);
    let normalisation = (vec![0.5; shape.channels], vec![0.25; shape.channels]);
    let normalisation = Some((normalisation.0.as_slice(), normalisation.1.as_slice()));
    let network = architecture.build(shape, CLASSES, normalisation, options.width);
    check_memory(&options.engine, &network, batch_size, true)?;
    let state = State::initialise(&network, 0);
    let wgsl = options.wgsl();
    let mut opened = Opened::new(options, wgsl.as_ref(), network.clone(), &state)?;
    let work = Work::new(shape, batch_size, options);

    let mut statistics = ClassStats::new(CLASSES);
    work.step(&mut opened, 0, &mut statistics)?;
    let before = opened.pace();
    let mut steps = Vec::new();
    let clock = Instant::now();
    while steps.len() < 3 || clock.elapsed() < options.at_least {
        steps.push(work.step(&mut opened, 1 + steps.len() as u32, &mut statistics)?);
    }
    let device = opened.device(before, steps.len());
    steps.sort_by(|a, b| a.total().total_cmp(&b.total()));
    let median = steps[steps.len() / 2];
    let epoch = Epoch {
        images: EPOCH_IMAGES,
        extrapolated_seconds: median.total() * EPOCH_IMAGES as f64 / batch_size as f64,
        measured_seconds: if options.epoch { Some(work.epoch(&mut opened)?) } else { None },
    };
    let (name, description) = (opened.engine().name(), opened.engine().describe());
    let subgroups = match &opened {
        Opened::Wgsl(engine) => Some(engine.has_subgroups()),
        _ => None,
    };
    // The profile opens its own device: free this engine's memory first.
    drop(opened);
    let profile = match (&wgsl, &options.figures) {
        (Some(wgsl), Some(figures)) => {
            let mut engine = WgslEngine::for_profile(network, &state, wgsl)?;
            let (spec, loss) = (work.spec(0), work.method.loss(&work.batch(0)));
            Some(engine.profile(&work.batch(0), &spec, &loss, &SGD, figures, options.at_least)?)
        }
        _ => None,
    };
    let measurement = Measurement {
        architecture: architecture.name(),
        width: options.width.unwrap_or(architecture.default_width()),
        method: options.method.title(),
        engine: name,
        checks: wgsl.as_ref().map(|wgsl| wgsl.checks == Checks::On),
        immediates: wgsl.as_ref().map(|wgsl| wgsl.immediates),
        subgroups,
        batch: batch_size,
        image: format!("{}x{}x{}", shape.channels, shape.height, shape.width),
        classes: CLASSES,
        attack_steps: options.attack_steps,
        images_per_second: batch_size as f64 / median.total(),
        step_seconds: median.total(),
        seconds: median,
        repeats: steps.len(),
        epoch,
        device,
        profile,
    };
    Ok((measurement, description))
}

/// The engine that is measured. The WGSL engine reports more than the trait provides.
enum Opened {
    Wgsl(Box<WgslEngine>),
    Other(Box<dyn Engine>),
}

impl Opened {
    fn new(
        options: &BenchOptions,
        wgsl: Option<&WgslOptions>,
        network: Network,
        state: &State,
    ) -> Result<Self, EngineError> {
        Ok(match wgsl {
            Some(wgsl) => Self::Wgsl(Box::new(WgslEngine::new(network, state, wgsl)?)),
            None => Self::Other(open_engine(&options.engine, network, state)?),
        })
    }

    fn engine(&mut self) -> &mut dyn Engine {
        match self {
            Self::Wgsl(engine) => engine.as_mut(),
            Self::Other(engine) => engine.as_mut(),
        }
    }

    fn pace(&self) -> PaceStats {
        match self {
            Self::Wgsl(engine) => engine.pace(),
            Self::Other(_) => PaceStats::default(),
        }
    }

    /// Waits until submitted work is complete: an update runs asynchronously, and without waiting its time would be
    /// counted in the next search.
    fn wait(&mut self) -> Result<(), EngineError> {
        match self {
            Self::Wgsl(engine) => engine.wait(),
            Self::Other(_) => Ok(()),
        }
    }

    /// The means over the steps since `before`.
    fn device(&self, before: PaceStats, steps: usize) -> Option<Device> {
        let Self::Wgsl(engine) = self else { return None };
        let each = |now: u64, before: u64| (now - before) as f64 / steps as f64;
        let now = engine.pace();
        Some(Device {
            bytes: engine.device_bytes(),
            dispatches: each(now.dispatches, before.dispatches),
            submissions: each(now.submissions, before.submissions),
        })
    }
}

const SGD: SgdStep = SgdStep { lr: 0.01, momentum: 0.9, weight_decay: 5e-4, nesterov: false };

/// The work of a step.
struct Work {
    pixels: Vec<u8>,
    labels: Vec<u32>,
    ids: Vec<u32>,
    method: Box<dyn Method>,
}

impl Work {
    fn new(shape: ImageShape, batch_size: usize, options: &BenchOptions) -> Self {
        let mut experiment = Experiment::default();
        (experiment.fairness.method, experiment.attack.steps) = (options.method, options.attack_steps);
        let mut random = Stream::new(0, Purpose::Test, 0, 0).sequence();
        Self {
            pixels: (0..batch_size * shape.len()).map(|_| random.word() as u8).collect(),
            labels: (0..batch_size).map(|_| random.below(CLASSES as u32)).collect(),
            ids: (0..batch_size as u32).collect(),
            method: methods::build(&experiment, CLASSES),
        }
    }

    fn batch(&self, epoch: u32) -> Batch<'_> {
        Batch { pixels: &self.pixels, labels: &self.labels, ids: &self.ids, augment: None, seed: 0, epoch }
    }

    fn spec(&self, epoch: u32) -> SearchSpec {
        self.method.search(&self.batch(epoch), &Radii(self.method.class_epsilon().to_vec()))
    }

    fn step(&self, opened: &mut Opened, epoch: u32, statistics: &mut ClassStats) -> Result<Phases, EngineError> {
        let engine = opened.engine();
        let clock = Instant::now();
        let views = engine.perturb(&self.batch(epoch), &self.spec(epoch))?;
        let attacked = clock.elapsed();
        let result = engine.train_step(&views, &self.method.loss(&self.batch(epoch)), &SGD)?;
        opened.wait()?;
        let (engine, updated) = (opened.engine(), clock.elapsed());
        if let Some(counts) = result.confusion(View::Adversarial) {
            statistics.robust.add_counts(counts);
        }
        if let (Some(targets), Some(predictions)) = (engine.targets(&views)?, result.predictions(View::Adversarial)) {
            statistics.add_targets(&self.labels, targets, predictions);
        }
        let counted = clock.elapsed();
        Ok(Phases {
            perturb: attacked.as_secs_f64(),
            update: (updated - attacked).as_secs_f64(),
            statistics: (counted - updated).as_secs_f64(),
        })
    }

    /// Seconds of the steps of one epoch.
    fn epoch(&self, opened: &mut Opened) -> Result<f64, EngineError> {
        let mut statistics = ClassStats::new(CLASSES);
        let clock = Instant::now();
        for step in 0..EPOCH_IMAGES.div_ceil(self.labels.len()) {
            self.step(opened, step as u32, &mut statistics)?;
        }
        Ok(clock.elapsed().as_secs_f64())
    }
}
