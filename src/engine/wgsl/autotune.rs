//! Measures on the device which algorithm and which tile is fastest for each convolution of a network.
//!
//! The measured dispatches are those that a run replays: the steps of the attack's and the update's program that belong
//! to a layer and its adjacent batch norms, including fused work (batch norm on load, residuals, sums). Winograd's
//! transforms of tiles are included; the transform of the weights, once per update, is not. Buffers hold noise. Their
//! sizes are those of a run, for as many images as keep the measurement short.
//!
//! A time is the duration of a submission that repeats the steps, minus that of an empty submission: the minimum of
//! three after a warm-up. Measurement noise remains, so a choice other than the fixed one must be faster by
//! [`winners::GAIN`]. The most expensive layers come first. Layers for which the time budget does not suffice keep the
//! fixed choice and are measured at the next start.
//!
//! A choice other than the fixed one is used only if it computes the same ([`check`]). One that does not is reported
//! and discarded.

mod check;
mod winners;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use self::check::Results;
use self::winners::{Timed, settled};
use super::device::Gpu;
use super::error::GpuError;
use super::kernel::{BufferId, Slice};
use super::kernel_tables;
use super::kernels::conv::{Conv, Pass};
use super::kernels::gemm::{PIXEL_TILES, Tile, WEIGHT_TILES};
use super::kernels::winograd;
use super::lower::geometry;
use super::parameters::Parameters;
use super::program::{BufferSpec, DispatchKind, Fixed, Program};
use super::programs::{self, AttackStep, Key, Target};
use super::recorded::{Command, Recorded, SlotPool};
use super::tuning::{Algorithm, Choices, KernelDevice, KernelTable, Timing, Tuning, fixed, wide_tiles};
use crate::console::tell;
use crate::engine::{BatchNormMode, Cancel, View};
use crate::model::{Network, Op};
use crate::rng::{Purpose, Stream};

/// All three passes, in the order of tables.
pub(super) const PASSES: [Pass; 3] = [Pass::Forward, Pass::InputGradient, Pass::WeightGradient];
/// Time budget for all measurements of a start.
const BUDGET: Duration = Duration::from_secs(3);
/// A candidate that takes more than this factor of the best time so far is measured only once.
const HOPELESS: f64 = 1.5;
/// Fewest input and output channels for which Winograd's algorithm is tried.
const WINOGRAD_CHANNELS: usize = 8;
/// Maximum number of images in a measurement: the batch that fixed tiles are chosen for.
const MOST_IMAGES: usize = 128;
/// Maximum size of an activation in a measurement, in bytes.
const MOST_BYTES: usize = 64 << 20;
/// Timed submissions per candidate.
const REPEATS: usize = 3;
/// Maximum number of repetitions of the steps in a submission.
const MOST_LOOPS: usize = 64;
/// Size of the noise that buffers are filled with repeatedly, in bytes.
const NOISE_BYTES: u64 = 1 << 20;
/// Runs of the passes to activations for each run of the pass to the weights: a search of ten steps, and the update.
const STEPS: f64 = 11.0;

/// The network and the device properties for which choices are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) network: &'a Network,
    pub(super) parameters: &'a Parameters,
    pub(super) limits: &'a wgpu::Limits,
    /// Whether the matrix products use subgroups.
    pub(super) subgroups: bool,
}

/// The choices for a network on a device, in order of precedence: those that its run recorded, those measured on this
/// device earlier, those measured now. Measurements end early if `stop` asks to stop.
///
/// # Errors
/// If the device is lost. If it only lacks memory for the measurements, the fixed choices are kept.
pub(super) fn choices(
    gpu: &mut Gpu,
    subject: Subject<'_>,
    tuning: Tuning,
    (recorded, folder): (Option<&KernelTable>, Option<&Path>),
    stop: Cancel<'_>,
) -> Result<Choices, GpuError> {
    let mut choices = Choices { subgroups: subject.subgroups, ..Choices::default() };
    let budget = match tuning {
        Tuning::Fixed => return Ok(choices),
        Tuning::Auto if gpu.info.device_type == wgpu::DeviceType::Cpu => Duration::ZERO,
        Tuning::Auto => BUDGET,
        Tuning::Measured(budget) => budget,
    };
    let device = KernelDevice::of(gpu);
    let recorded = recorded.filter(|table| table.device == device);
    let mut known = match (recorded, folder) {
        (Some(table), _) => table.convolutions.clone(),
        (None, Some(folder)) if !budget.is_zero() => kernel_tables::load(folder, &device),
        (None, _) => Vec::new(),
    };
    choices.take(&known);
    let units: Vec<Unit> = units(subject.network).into_iter().filter(|unit| !unit.is_known(&choices)).collect();
    if units.is_empty() || budget.is_zero() {
        return Ok(choices);
    }
    let deadline = Instant::now() + budget;
    let found = gpu.apart(|gpu| {
        let mut bench = Bench::new(gpu, subject, deadline)?;
        let found = bench.measure(&units, stop)?;
        Ok((found, bench.rejected))
    });
    match found {
        Ok((found, rejected)) => {
            rejected.iter().for_each(|rejected| tell!("warning: {}: {rejected}", gpu.info.name));
            if found.measured.is_empty() {
                return Ok(choices);
            }
            for (shape, pass) in found.measured.keys() {
                known.retain(|row| (row.shape, row.pass) != (*shape, *pass));
                known.push(found.row(shape, *pass, Vec::new()));
            }
            choices.take(&known);
            if let Some(folder) = folder.filter(|_| recorded.is_none()) {
                // If saving fails, the next start measures again.
                let _ = kernel_tables::save(folder, &KernelTable { device, convolutions: known });
            }
        }
        Err(GpuError::OutOfMemory { .. } | GpuError::Limits(_)) => {}
        Err(error) => return Err(error),
    }
    Ok(choices)
}

/// The choices as a table, one row per shape and pass in the order of the layers.
pub(super) fn table(device: KernelDevice, network: &Network, choices: &Choices) -> KernelTable {
    let mut rows = Vec::new();
    for (conv, layers) in shapes(network) {
        let names: Vec<String> = layers.iter().map(|layer| network.layers[*layer].name.clone()).collect();
        rows.extend(PASSES.map(|pass| choices.row(&conv, pass, names.clone())));
    }
    KernelTable { device, convolutions: rows }
}

/// The shapes of the network's convolutions, ordered by the first layer of each, with all layers of that shape.
fn shapes(network: &Network) -> Vec<(Conv, Vec<usize>)> {
    let mut shapes: Vec<(Conv, Vec<usize>)> = Vec::new();
    for (i, layer) in network.layers.iter().enumerate() {
        let Some(conv) = geometry(network, layer) else { continue };
        match shapes.iter_mut().find(|(known, _)| *known == conv) {
            Some((_, layers)) => layers.push(i),
            None => shapes.push((conv, vec![i])),
        }
    }
    shapes
}

/// Passes that are measured together. Forward pass and input gradient can share their transformed weights.
#[derive(Debug, Clone, PartialEq)]
struct Unit {
    conv: Conv,
    /// The layer that is measured on behalf of all layers of this shape.
    layer: usize,
    passes: &'static [Pass],
    /// Floating-point operations per training step.
    cost: f64,
}

impl Unit {
    fn is_known(&self, choices: &Choices) -> bool {
        self.passes.iter().all(|pass| choices.measured.contains_key(&(self.conv, *pass)))
    }
}

fn image_flops(conv: &Conv) -> usize {
    2 * conv.out_height * conv.out_width * conv.kernel.pow(2) * conv.in_channels * conv.out_channels
}

/// The units of a network, the most expensive first.
fn units(network: &Network) -> Vec<Unit> {
    let (both, weights): (&[Pass], &[Pass]) = (&[Pass::Forward, Pass::InputGradient], &[Pass::WeightGradient]);
    let mut units: Vec<Unit> = shapes(network)
        .into_iter()
        .flat_map(|(conv, layers)| {
            let once = image_flops(&conv) as f64 * layers.len() as f64;
            let layer = layers[0];
            [(both, 2.0 * STEPS), (weights, 1.0)].map(|(passes, times)| Unit {
                conv,
                layer,
                passes,
                cost: once * times,
            })
        })
        .collect();
    units.sort_by(|a, b| b.cost.total_cmp(&a.cost));
    units
}

/// `tile` and its neighbours, up to `before` larger and `after` smaller ones, in a list ordered from large to small
/// tiles.
fn around(tiles: &[Tile], tile: Tile, before: usize, after: usize) -> Vec<Tile> {
    let Some(at) = tiles.iter().position(|other| *other == tile) else { return vec![tile] };
    tiles[at.saturating_sub(before)..tiles.len().min(at + after + 1)].to_vec()
}

/// The candidates for a pass, the fixed choice first.
fn candidates(conv: &Conv, pass: Pass, subgroups: bool) -> Vec<Algorithm> {
    let mut all = vec![fixed(conv, pass, subgroups)];
    let mut add = |algorithm| {
        if !all.contains(&algorithm) {
            all.push(algorithm);
        }
    };
    let tile = conv.tile(pass);
    let tiles = match pass {
        Pass::WeightGradient => WEIGHT_TILES.to_vec(),
        _ if wide_tiles().contains(&tile) => around(wide_tiles(), tile, 2, 1),
        _ => around(&PIXEL_TILES, tile, 1, 0),
    };
    tiles.into_iter().for_each(|tile| add(Algorithm::ImplicitGemm { tile }));
    let channels = conv.in_channels.min(conv.out_channels);
    if pass != Pass::WeightGradient && winograd::fits(conv) && channels >= WINOGRAD_CHANNELS {
        for outputs in [4, 2] {
            let tiles = around(wide_tiles(), winograd::fixed_tile(conv, pass, outputs), 1, 1);
            tiles.into_iter().for_each(|tile| add(Algorithm::Winograd { outputs, tile }));
        }
    }
    all
}

/// Measures programs on a device. Shares no buffers with the engine.
struct Bench<'a> {
    gpu: &'a Gpu,
    subject: Subject<'a>,
    deadline: Instant,
    /// Duration of an empty submission.
    empty: Duration,
    noise: wgpu::Buffer,
    /// The named buffers.
    fixed: HashMap<Fixed, wgpu::Buffer>,
    pool: SlotPool,
    /// A sentence for each candidate that was fastest but computed something else than the fixed choice.
    rejected: Vec<String>,
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Gpu, subject: Subject<'a>, deadline: Instant) -> Result<Self, GpuError> {
        let noise = gpu.buffer("noise", NOISE_BYTES)?;
        let mut random = Stream::new(0, Purpose::Test, 0, 0).sequence();
        // Between -1/2 and 1/2: a device that multiplies zeros draws less power and may run faster. With thirteen
        // binary digits, so that the product of two values is exact: whether a ReLU after scale and shift passes a
        // value then does not depend on how a driver contracts `scale · x + shift`.
        let value = |word: u32| (f64::from(word >> 19) / 8192.0 - 0.5) as f32;
        let values: Vec<f32> = (0..NOISE_BYTES / 4).map(|_| value(random.word())).collect();
        gpu.queue.write_buffer(&noise, 0, bytemuck::cast_slice(&values));
        let (fixed, pool, rejected) = Default::default();
        let mut bench = Self { gpu, subject, deadline, empty: Duration::ZERO, noise, fixed, pool, rejected };
        // The first submission also uploads the noise.
        bench.time(&[], 0)?;
        let empty = (0..5).map(|_| bench.time(&[], 0)).collect::<Result<Vec<_>, _>>()?;
        bench.empty = empty.into_iter().min().unwrap_or_default();
        Ok(bench)
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Measures units in order until the deadline, or until `stop` asks to stop.
    fn measure(&mut self, units: &[Unit], stop: Cancel<'_>) -> Result<Choices, GpuError> {
        let mut found = Choices { subgroups: self.subject.subgroups, ..Choices::default() };
        for unit in units {
            if stop() {
                break;
            }
            let images = self.images(&unit.conv);
            let timed = unit.passes.iter().map(|pass| self.pass(unit, *pass, images));
            // A unit that is not finished in time is left out as a whole.
            let Some(mut timed) = timed.collect::<Result<Option<Vec<_>>, _>>()? else { break };
            let several: Vec<bool> = timed.iter().map(|timed| timed.len() > 1).collect();
            let mut expected: BTreeMap<Pass, Results> = BTreeMap::new();
            let best = settled(&mut timed, |pass, algorithm| {
                if self.is_late() {
                    return Ok(None);
                }
                self.is_right(unit, (unit.passes[pass], algorithm), images, &mut expected).map(Some)
            })?;
            let Some(best) = best else { break };
            let passes = unit.passes.iter().zip(&timed).zip(several);
            for (((pass, timed), several), (algorithm, seconds)) in passes.zip(best) {
                let fixed_milliseconds = 1e3 * timed.first().map_or(seconds, |(_, seconds)| *seconds);
                let timing = Timing { milliseconds: 1e3 * seconds, fixed_milliseconds, images };
                found.measured.insert((unit.conv, *pass), algorithm);
                if several {
                    found.timings.insert((unit.conv, *pass), timing);
                }
            }
            self.pool.clear();
        }
        Ok(found)
    }

    /// Whether a candidate computes the same as the fixed choice. If not, it is added to `rejected`. `expected` caches
    /// the results of the fixed choice of each pass.
    fn is_right(
        &mut self,
        unit: &Unit,
        (pass, algorithm): (Pass, Algorithm),
        images: usize,
        expected: &mut BTreeMap<Pass, Results>,
    ) -> Result<bool, GpuError> {
        let fixed = fixed(&unit.conv, pass, self.subject.subgroups);
        let reference = match expected.remove(&pass) {
            Some(reference) => reference,
            None => self.results(unit, pass, fixed, images)?,
        };
        let found = self.results(unit, pass, algorithm, images)?;
        let difference = check::difference(&found, &reference);
        expected.insert(pass, reference);
        let tolerance = check::tolerance(&unit.conv, pass, images, [algorithm, fixed]);
        // False for NaN.
        let is_right = difference <= tolerance;
        if !is_right {
            let layer = &self.subject.network.layers[unit.layer].name;
            self.rejected.push(format!(
                "convolution '{layer}', {pass}: {algorithm} is faster than {fixed} but differs by {difference:.1e} \
                 (relative, {tolerance:.0e} is allowed), so it is not used; a newer driver may fix this"
            ));
        }
        Ok(is_right)
    }

    /// Number of images that a shape is measured with: a quarter of a dispatch's arithmetic budget.
    fn images(&self, conv: &Conv) -> usize {
        let flops = self.gpu.budget().dispatch_flops / 4 / image_flops(conv).max(1) as u64;
        let (x, y) =
            (conv.height * conv.width * conv.in_channels, conv.out_height * conv.out_width * conv.out_channels);
        (flops as usize).min(MOST_BYTES / (4 * x.max(y)).max(1)).clamp(1, MOST_IMAGES)
    }

    /// The candidates of a pass with their seconds, the fixed choice first. A single candidate is not measured. `None`
    /// if the deadline has passed.
    fn pass(&mut self, unit: &Unit, pass: Pass, images: usize) -> Result<Option<Vec<Timed>>, GpuError> {
        let budget = self.gpu.budget().dispatch_flops;
        let mut programs: Vec<(Algorithm, Program)> = Vec::new();
        for algorithm in candidates(&unit.conv, pass, self.subject.subgroups) {
            let program = program(self.subject, budget, unit, (pass, algorithm), images)?;
            // Different choices can give the same program: Winograd's algorithm is not used if its tiles exceed a
            // binding, and a convolution of images has a dedicated kernel.
            if programs.iter().all(|(_, other)| other.steps != program.steps) {
                programs.push((algorithm, program));
            }
        }
        if let [(algorithm, _)] = programs[..] {
            return Ok(Some(vec![(algorithm, 0.0)]));
        }
        let mut timed: Vec<Timed> = Vec::new();
        for (algorithm, program) in programs {
            if self.is_late() {
                return Ok(None);
            }
            let best = timed.iter().map(|(_, seconds)| *seconds).min_by(f64::total_cmp);
            timed.push((algorithm, self.seconds(program, best)?));
        }
        Ok(Some(timed))
    }

    /// Seconds of one run of a program. A program that takes much longer than `best` is measured only once.
    fn seconds(&mut self, program: Program, best: Option<f64>) -> Result<f64, GpuError> {
        let recorded = self.record(program)?;
        let commands = &recorded.commands;
        // A driver may finish compiling a pipeline at its first use.
        self.time(commands, 1)?;
        let glance = self.net(self.time(commands, 1)?);
        if best.is_some_and(|best| glance > HOPELESS * best + self.empty.as_secs_f64()) {
            return Ok(glance);
        }
        let wanted = Duration::from_micros(500).max(8 * self.empty).as_secs_f64();
        let most = self.gpu.budget().submission_target.as_secs_f64();
        let loops = ((wanted.min(most) / glance).ceil() as usize).clamp(1, MOST_LOOPS);
        let mut seconds = f64::INFINITY;
        for _ in 0..REPEATS {
            seconds = seconds.min(self.net(self.time(commands, loops)?) / loops as f64);
        }
        Ok(seconds)
    }

    /// Records a program. Fills newly created buffers with noise.
    fn record(&mut self, program: Program) -> Result<Recorded, GpuError> {
        let before = self.pool.slots().len();
        let (gpu, fixed) = (self.gpu, &mut self.fixed);
        let mut new = Vec::new();
        let recorded = Recorded::new(gpu, program, &mut self.pool, 0, |home, bytes| {
            if let Some(buffer) = fixed.get(&home).filter(|buffer| buffer.size() >= bytes) {
                return Ok(buffer.clone());
            }
            let buffer = gpu.buffer(&format!("{home:?}"), bytes)?;
            fixed.insert(home, buffer.clone());
            new.push(buffer.clone());
            Ok(buffer)
        })?;
        new.extend_from_slice(&self.pool.slots()[before..]);
        self.fill(&new);
        Ok(recorded)
    }

    /// Seconds of a submission minus those of an empty one; always positive.
    fn net(&self, time: Duration) -> f64 {
        time.saturating_sub(self.empty).as_secs_f64().max(1e-7)
    }

    /// Time from submitting `loops` repetitions of `commands` until they are done.
    fn time(&self, commands: &[Command], loops: usize) -> Result<Duration, GpuError> {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            for _ in 0..loops {
                commands.iter().for_each(|command| command.record(&mut pass));
            }
        }
        let commands = encoder.finish();
        let clock = Instant::now();
        self.gpu.queue.submit([commands]);
        self.gpu.wait()?;
        Ok(clock.elapsed())
    }

    fn fill(&self, buffers: &[wgpu::Buffer]) {
        let mut encoder = self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for buffer in buffers {
            for at in (0..buffer.size()).step_by(NOISE_BYTES as usize) {
                encoder.copy_buffer_to_buffer(&self.noise, 0, buffer, at, NOISE_BYTES.min(buffer.size() - at));
            }
        }
        self.gpu.queue.submit([encoder.finish()]);
    }
}

/// A program of only the steps that depend on how a pass is computed.
fn program(
    subject: Subject<'_>,
    budget: u64,
    unit: &Unit,
    (pass, algorithm): (Pass, Algorithm),
    images: usize,
) -> Result<Program, GpuError> {
    let network = subject.network;
    let choices = choices_with(subject, unit, (pass, algorithm), None);
    let (key, kind) = pass_key(pass);
    let mut program = programs::build(&key, target(subject, budget, &choices, images))?;
    let layers = window(network, unit.layer, pass);
    program.steps.retain(|step| step.kind == kind && step.layer.is_some_and(|layer| layers.contains(&layer)));
    noise_everywhere(&mut program);
    #[cfg(test)]
    check::sabotage::apply(&mut program, pass, algorithm);
    Ok(program)
}

/// Fixed choices except for one pass of a unit. The backward pass of batch norm `written` is materialised.
fn choices_with(
    subject: Subject<'_>,
    unit: &Unit,
    (pass, algorithm): (Pass, Algorithm),
    written: Option<usize>,
) -> Choices {
    let measured = BTreeMap::from([((unit.conv, pass), algorithm)]);
    Choices { measured, subgroups: subject.subgroups, written, ..Choices::default() }
}

const fn target<'a>(subject: Subject<'a>, budget: u64, choices: &'a Choices, batch: usize) -> Target<'a> {
    let Subject { network, parameters, limits, .. } = subject;
    Target { network, parameters, batch, limits, budget, choices }
}

/// The program that computes a pass, and the kind of its dispatches.
fn pass_key(pass: Pass) -> (Key, DispatchKind) {
    match pass {
        Pass::Forward => (Key::Attack(AttackStep::plain(BatchNormMode::Train)), DispatchKind::Forward),
        Pass::InputGradient => (Key::Attack(AttackStep::plain(BatchNormMode::Train)), DispatchKind::Backward),
        Pass::WeightGradient => (Key::Train { views: vec![View::Adversarial], terms: 1 }, DispatchKind::Weights),
    }
}

/// Prepares a part of a program for repeated runs on noise. Its inputs must survive until the end, so no two buffers
/// may share memory: all are kept like the image gradient.
fn noise_everywhere(program: &mut Program) {
    program.outputs.clear();
    program.pauses = None;
    let whole = |(i, spec): (usize, &BufferSpec)| Slice { buffer: BufferId(i), offset: 0, size: spec.size };
    program.image_gradient = program.buffers.iter().enumerate().map(whole).collect();
}

/// The layers whose steps depend on how a pass of convolution `layer` is computed: it writes partial sums for the batch
/// norm after it, or in the backward pass for the one before it.
fn window(network: &Network, layer: usize, pass: Pass) -> Range<usize> {
    let is_conv = |layer: &usize| matches!(network.layers[*layer].op, Op::Conv2d { .. });
    match pass {
        Pass::Forward => layer..(layer + 1..network.layers.len()).find(is_conv).unwrap_or(network.layers.len()),
        Pass::InputGradient => (0..layer).rev().find(is_conv).map_or(0, |before| before + 1)..layer + 1,
        Pass::WeightGradient => layer..layer + 1,
    }
}

#[cfg(test)]
#[path = "autotune_tests.rs"]
mod tests;
