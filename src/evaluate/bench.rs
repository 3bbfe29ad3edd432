//! How fast an engine trains: images per second of one FAIR-TAT step.
//!
//! One step is a targeted PGD attack with batch norm in train mode, one SGD update and the class statistics, on random
//! images. `benches/peers/torch_step.py` measures the same work in PyTorch and prints the same JSON.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::config::EngineOptions;
use crate::data::ImageShape;
use crate::engine::wgsl::{Checks, WgslEngine, WgslOptions};
use crate::engine::{
    Batch, BatchNormMode, Engine, EngineError, LossSpec, Norm, Objective, PerturbSpec, SgdStep, Start, View,
};
use crate::fairness::{ClassStats, TargetDistribution};
use crate::model::{Architecture, Network, State};
use crate::rng::{Purpose, Stream};
use crate::train::{ChosenEngine, choose_engine, open_engine};

/// Classes of the random labels.
const CLASSES: usize = 10;

/// Seconds of each phase of one step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Phases {
    /// The inner maximisation, for which the engine draws the targets.
    pub perturb: f64,
    /// The weight update.
    pub update: f64,
    /// Class statistics.
    pub statistics: f64,
}

impl Phases {
    fn total(&self) -> f64 {
        self.perturb + self.update + self.statistics
    }
}

/// One measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Architecture.
    pub architecture: &'static str,
    /// Channels of its first stage.
    pub width: usize,
    /// Engine, as the command line names it.
    pub engine: String,
    /// Images in a batch.
    pub batch: usize,
    /// Shape of an image.
    pub image: String,
    /// Number of classes.
    pub classes: usize,
    /// Steps of the attack.
    pub attack_steps: u32,
    /// Images trained on in a second: the batch over the median time of a step.
    pub images_per_second: f64,
    /// Phases of the median step.
    pub seconds: Phases,
    /// Steps measured, warm-up not counted.
    pub repeats: usize,
}

/// All measurements of a call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Name and version of this program.
    pub program: String,
    /// What the engine ran on.
    pub device: String,
    /// CPU threads.
    pub threads: usize,
    /// A row for each architecture and batch size.
    pub results: Vec<Measurement>,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Engine, and where it runs.
    pub engine: EngineOptions,
    /// Run-time checks in the shaders of the WGSL engine; the others have none.
    pub checks: Checks,
    /// Channels of the first stage; none for the published number.
    pub width: Option<usize>,
    /// Steps of the attack.
    pub attack_steps: u32,
    /// A measurement goes on for at least this time, and at least three steps.
    pub at_least: Duration,
}

/// The images an architecture is measured on: 8×8 grey for the digits network, 32×32 colour for the others.
pub const fn image_shape(architecture: Architecture) -> ImageShape {
    match architecture {
        Architecture::DigitsCnn => ImageShape::new(1, 8, 8),
        _ => ImageShape::new(3, 32, 32),
    }
}

/// Measures one architecture at one batch size. Also gives what the engine calls itself.
///
/// # Errors
/// When the engine cannot be opened or fails.
pub fn measure_step(
    architecture: Architecture,
    batch_size: usize,
    options: &BenchOptions,
) -> Result<(Measurement, String), EngineError> {
    let shape = image_shape(architecture);
    let normalisation = (vec![0.5; shape.channels], vec![0.25; shape.channels]);
    let normalisation = Some((normalisation.0.as_slice(), normalisation.1.as_slice()));
    let network = architecture.build(shape, CLASSES, normalisation, options.width);
    let state = State::initialise(&network, 0);
    let mut engine = open(options, network, &state)?;
    let mut random = Stream::new(0, Purpose::Test, 0, 0).sequence();
    let pixels: Vec<u8> = (0..batch_size * shape.len()).map(|_| random.word() as u8).collect();
    let labels: Vec<u32> = (0..batch_size).map(|_| random.below(CLASSES as u32)).collect();
    let ids: Vec<u32> = (0..batch_size as u32).collect();
    let targets = TargetDistribution::uniform(CLASSES).table();
    let sgd = SgdStep { lr: 0.01, momentum: 0.9, weight_decay: 5e-4 };
    let (epsilon, step_size) = (8.0 / 255.0, 2.0 / 255.0);

    let mut statistics = ClassStats::new(CLASSES);
    let mut step = |epoch: u32| -> Result<Phases, EngineError> {
        let clock = Instant::now();
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch };
        let spec = PerturbSpec {
            objective: Objective::Drawn(targets.clone()),
            norm: Norm::Linf,
            epsilon: vec![epsilon; batch_size],
            step_size: vec![step_size; batch_size],
            steps: options.attack_steps,
            start: Start::Uniform { purpose: Purpose::AttackStart, epoch },
            batch_norm: BatchNormMode::Train,
        };
        let views = engine.perturb(&batch, &spec)?;
        let attacked = clock.elapsed();
        let result = engine.train_step(&views, &LossSpec::cross_entropy(View::Adversarial), &sgd)?;
        let updated = clock.elapsed();
        if let Some(counts) = result.confusion(View::Adversarial) {
            statistics.robust.add_counts(counts);
        }
        if let (Some(targets), Some(predictions)) = (engine.targets(&views)?, result.predictions(View::Adversarial)) {
            statistics.add_targets(&labels, targets, predictions);
        }
        let counted = clock.elapsed();
        Ok(Phases {
            perturb: attacked.as_secs_f64(),
            update: (updated - attacked).as_secs_f64(),
            statistics: (counted - updated).as_secs_f64(),
        })
    };
    step(0)?;
    let mut steps = Vec::new();
    let clock = Instant::now();
    while steps.len() < 3 || clock.elapsed() < options.at_least {
        steps.push(step(1 + steps.len() as u32)?);
    }
    steps.sort_by(|a, b| a.total().total_cmp(&b.total()));
    let median = steps[steps.len() / 2];
    let measurement = Measurement {
        architecture: architecture.name(),
        width: options.width.unwrap_or(architecture.default_width()),
        engine: engine.name(),
        batch: batch_size,
        image: format!("{}x{}x{}", shape.channels, shape.height, shape.width),
        classes: CLASSES,
        attack_steps: options.attack_steps,
        images_per_second: batch_size as f64 / median.total(),
        seconds: median,
        repeats: steps.len(),
    };
    Ok((measurement, engine.describe()))
}

/// The engine that is to be measured.
fn open(options: &BenchOptions, network: Network, state: &State) -> Result<Box<dyn Engine>, EngineError> {
    if options.checks == Checks::Off || choose_engine(&options.engine) != ChosenEngine::Wgsl {
        return open_engine(&options.engine, network, state);
    }
    let adapter = options.engine.adapter.clone();
    let options = WgslOptions { adapter, checks: options.checks, ..WgslOptions::default() };
    Ok(Box::new(WgslEngine::new(network, state, &options)?))
}
