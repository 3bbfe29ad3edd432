//! [`WgslEngine`]: an [`Engine`] whose network lives on the GPU.

mod calls;
mod not_finite;
mod profile;
mod transfer;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;

use self::transfer::find_or_make;
use super::device::{Checks, Gpu, GpuOptions, Subgroups};
use super::kernel::padded;
use super::kernels::call::Call;
use super::lower;
use super::pacing::{PaceStats, Pacer};
use super::parameters::Parameters;
use super::program::Fixed;
use super::programs::{self, Key, Target};
use super::recorded::{Recorded, SlotPool};
use super::tuning::{Choices, KernelDevice, KernelTable, Tuning};
use super::{adapters, autotune, cache};
use crate::engine::held::Held;
use crate::engine::{Cancel, Engine, EngineError};
use crate::model::{Network, Op, State, StateSpec};

/// Options of a [`WgslEngine`].
#[derive(Debug, Clone, PartialEq)]
pub struct WgslOptions {
    /// Index of an adapter, a part of its name, `high-performance` or `low-power`. `None` selects the best one.
    pub adapter: Option<String>,
    /// Run-time checks in shaders.
    pub checks: Checks,
    /// Directory in which compiled pipelines and measured choices are cached between runs; `None` disables the cache.
    pub pipelines: Option<PathBuf>,
    /// Whether Winograd's algorithm and fused kernels are disabled: the reference that the others are compared with.
    pub plain: bool,
    /// How algorithm and tile of each convolution are chosen. Other choices add in another order, so results differ in
    /// the last bits.
    pub tuning: Tuning,
    /// The choices of an earlier engine ([`WgslEngine::choices`]). They take precedence over measurements if the device
    /// is the same and [`Self::tuning`] is not fixed.
    pub choices: Option<KernelTable>,
    /// Maximum size of a binding in bytes. A small value makes the engine split batches into ranges on a device that
    /// does not need it.
    pub binding_limit: Option<u64>,
    /// Whether the parameters of dispatches are passed as immediates instead of uniform buffers, if the adapter
    /// supports them.
    pub immediates: bool,
    /// When the matrix products broadcast values within subgroups.
    pub subgroups: Subgroups,
}

impl GpuOptions {
    /// The options of the device for an engine with `options`.
    pub(super) fn of(options: &WgslOptions, timestamps: bool) -> Self {
        Self {
            checks: options.checks,
            pipelines: options.pipelines.clone(),
            timestamps,
            immediates: options.immediates,
            subgroups: if options.plain { Subgroups::Never } else { options.subgroups },
        }
    }
}

impl Default for WgslOptions {
    /// The fastest adapter, the base tier, no run-time checks, fixed choices, and a pipeline cache in the user's cache
    /// directory (`FAIRTAT_CACHE` names another directory; an empty value disables the cache).
    fn default() -> Self {
        Self {
            adapter: None,
            checks: Checks::Off,
            pipelines: cache::default_folder(),
            plain: false,
            tuning: Tuning::Fixed,
            choices: None,
            binding_limit: None,
            immediates: false,
            subgroups: Subgroups::Never,
        }
    }
}

/// Number of batch sizes whose programs are kept. A run has four (two in training, two in evaluation).
const KEPT: usize = 8;

/// The programs of one batch size. All batch sizes share their buffers.
#[derive(Debug)]
struct BatchSet {
    images: usize,
    ranges: Vec<usize>,
    programs: HashMap<Key, Recorded>,
}

/// Runs a [`Network`] in WGSL compute shaders.
#[derive(Debug)]
pub struct WgslEngine {
    network: Network,
    specs: Vec<StateSpec>,
    parameters: Parameters,
    pub(super) gpu: Gpu,
    limits: wgpu::Limits,
    choices: Choices,
    /// Whether the transformed weights are up to date with the parameters.
    transformed: bool,
    pacer: Pacer,
    pool: SlotPool,
    /// The named buffers, as large as the largest batch so far needs them. Class-by-class tables are allocated with the
    /// first program that needs them.
    buffers: HashMap<Fixed, wgpu::Buffer>,
    /// Ordered by last use, the most recent one last.
    sets: Vec<BatchSet>,
    held: Option<Held>,
    /// Whether the snapshots of the held search contain the current iterate of images that were never misclassified.
    shown: bool,
    generation: u64,
    /// The commands of each program that were replayed. `None` unless a profile records them.
    replayed: Option<Vec<(Key, Range<usize>)>>,
}

impl WgslEngine {
    /// An engine for `network` with the parameters of `state`, on a separate device.
    ///
    /// # Errors
    /// If `network` is invalid ([`Network::check`]), no adapter matches, the adapter's limits are too small for the
    /// network, or `state` does not match the network.
    pub fn new(network: Network, state: &State, options: &WgslOptions) -> Result<Self, EngineError> {
        Self::new_unless(network, state, options, &mut || false)
    }

    /// As [`Self::new`], unless `stop` asks to stop between the steps.
    ///
    /// # Errors
    /// As [`Self::new`]; [`EngineError::Stopped`].
    pub fn new_unless(
        network: Network,
        state: &State,
        options: &WgslOptions,
        stop: Cancel<'_>,
    ) -> Result<Self, EngineError> {
        let found = adapters::choose(options.adapter.as_deref())?;
        if stop() {
            return Err(EngineError::Stopped);
        }
        let gpu = Gpu::open_with(&found.adapter, &GpuOptions::of(options, false))?;
        Self::on_unless(gpu, network, state, options, stop)
    }

    /// As [`Self::new`], on an open device.
    pub(super) fn on(gpu: Gpu, network: Network, state: &State, options: &WgslOptions) -> Result<Self, EngineError> {
        Self::on_unless(gpu, network, state, options, &mut || false)
    }

    fn on_unless(
        mut gpu: Gpu,
        network: Network,
        state: &State,
        options: &WgslOptions,
        stop: Cancel<'_>,
    ) -> Result<Self, EngineError> {
        if stop() {
            return Err(EngineError::Stopped);
        }
        let mut limits = gpu.limits.clone();
        if let Some(limit) = options.binding_limit {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(limit);
        }
        network.check()?;
        let parameters = Parameters::new(&network, &limits)?;
        let choices = if options.plain {
            Choices::plain()
        } else {
            let (network, subgroups) = (&network, gpu.subgroups);
            let subject = autotune::Subject { network, parameters: &parameters, limits: &limits, subgroups };
            let (recorded, folder) = (options.choices.as_ref(), options.pipelines.as_deref());
            autotune::choices(&mut gpu, subject, options.tuning, (recorded, folder), stop)?
        };
        if stop() {
            return Err(EngineError::Stopped);
        }
        let mut engine = Self {
            specs: network.state_specs(),
            pacer: Pacer::new(gpu.budget().submission_target),
            network,
            parameters,
            gpu,
            limits,
            choices,
            transformed: false,
            pool: SlotPool::default(),
            buffers: HashMap::new(),
            sets: Vec::new(),
            held: None,
            shown: false,
            generation: 0,
            replayed: None,
        };
        engine.create_buffers()?;
        engine.load_model(state)?;
        Ok(engine)
    }

    /// Whether the matrix products broadcast values within subgroups.
    pub fn has_subgroups(&self) -> bool {
        self.choices.subgroups
    }

    /// Allocates the buffers that belong to no batch size. A new buffer is zero, the initial value of momentum.
    fn create_buffers(&mut self) -> Result<(), EngineError> {
        let mut wanted = vec![(Fixed::Running, self.parameters.running), (Fixed::Call, size_of::<Call>() as u64)];
        wanted.push((Fixed::SearchCall, size_of::<Call>() as u64));
        for (slab, bytes) in self.parameters.slabs.iter().enumerate() {
            for home in [Fixed::Parameters(slab), Fixed::Gradients(slab), Fixed::Momentum(slab)] {
                wanted.push((home, *bytes));
            }
        }
        for (home, bytes) in wanted {
            let buffer = self.gpu.buffer(&format!("{home:?}"), bytes)?;
            self.buffers.insert(home, buffer);
        }
        let normalization = self.network.layers.iter().find_map(|layer| match &layer.op {
            Op::Normalize { mean, std } => Some((mean, std)),
            _ => None,
        });
        if let Some((mean, std)) = normalization {
            // As for batch norm: scale, shift, mean, 1 / std. Padding channels have scale and shift zero.
            let channels = padded(mean.len());
            let mut rows = vec![0.0f32; 4 * channels];
            for (c, (mean, std)) in mean.iter().zip(std).enumerate() {
                let scale = 1.0 / std;
                for (row, value) in [scale, -mean * scale, *mean, scale].into_iter().enumerate() {
                    rows[row * channels + c] = value;
                }
            }
            let buffer = self.gpu.buffer("Normalization", 4 * rows.len() as u64)?;
            self.gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&rows));
            self.buffers.insert(Fixed::Normalization, buffer);
        }
        Ok(())
    }

    /// The algorithm of each convolution, with its time if it was measured.
    pub fn choices(&self) -> KernelTable {
        autotune::table(KernelDevice::of(&self.gpu), &self.network, &self.choices)
    }

    /// Statistics of the submissions so far.
    pub fn pace(&self) -> PaceStats {
        self.pacer.stats
    }

    /// Bytes that this engine has allocated on the device.
    pub fn device_bytes(&self) -> u64 {
        self.pool.bytes() + self.buffers.values().map(wgpu::Buffer::size).sum::<u64>()
    }

    /// Images in each range that a batch of `images` is split into, so that a binding holds every activation.
    ///
    /// # Errors
    /// If a single image is too large for a binding.
    pub fn ranges(&self, images: usize) -> Result<Vec<usize>, EngineError> {
        Ok(lower::ranges(&self.network, images, &self.limits)?)
    }

    /// Moves the set of a batch size to the end of the list; creates it if needed.
    fn set(&mut self, images: usize) -> Result<&mut BatchSet, EngineError> {
        match self.sets.iter().position(|set| set.images == images) {
            Some(at) => {
                let set = self.sets.remove(at);
                self.sets.push(set);
            }
            None => {
                programs::pixel_bytes(&self.network, images, &self.limits)?;
                let ranges = self.ranges(images)?;
                if self.sets.len() >= KEPT {
                    self.sets.remove(0);
                }
                if self.sets.iter().all(|set| set.images < images) {
                    // The slots of smaller batches are too small for this one, but they can use its slots: their
                    // programs are recorded again when they are next used.
                    self.pool.clear();
                    self.sets.iter_mut().for_each(|set| set.programs.clear());
                }
                self.sets.push(BatchSet { images, ranges, programs: HashMap::new() });
            }
        }
        self.sets.last_mut().ok_or_else(|| EngineError::Invalid("a batch needs at least one image".into()))
    }

    /// Builds and records a program unless it exists.
    fn ensure(&mut self, images: usize, key: &Key) -> Result<(), EngineError> {
        if self.set(images)?.programs.contains_key(key) {
            return Ok(());
        }
        let target = Target {
            network: &self.network,
            parameters: &self.parameters,
            batch: images,
            limits: &self.limits,
            budget: self.gpu.budget().dispatch_flops,
            choices: &self.choices,
        };
        let program = programs::build(key, target)?;
        let used = self.device_bytes();
        let (gpu, pacer, buffers) = (&self.gpu, &mut self.pacer, &mut self.buffers);
        let mut replaced = false;
        let recorded = Recorded::new(gpu, program, &mut self.pool, used, |home, bytes| {
            let found = find_or_make(gpu, pacer, buffers, home, bytes)?;
            replaced |= found.1;
            Ok(found.0)
        });
        self.forget_programs(replaced);
        if let Some(set) = self.sets.last_mut() {
            set.programs.insert(key.clone(), recorded?);
        }
        Ok(())
    }

    /// Drops all programs if a buffer that some of them were recorded with was `replaced` by a larger one.
    fn forget_programs(&mut self, replaced: bool) {
        if replaced {
            self.sets.iter_mut().for_each(|set| set.programs.clear());
        }
    }

    /// Replays a program without waiting for it.
    fn replay(&mut self, images: usize, key: &Key) -> Result<(), EngineError> {
        self.replay_part(images, key, 0, usize::MAX)
    }

    fn replay_part(&mut self, images: usize, key: &Key, from: usize, to: usize) -> Result<(), EngineError> {
        if !self.transformed && key.reads_weights() {
            self.transformed = true;
            self.replay(images, &Key::Transform)?;
        }
        self.ensure(images, key)?;
        let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(key)) else { return Ok(()) };
        let to = to.min(recorded.commands.len());
        let range = from.min(to)..to;
        if let Some(replayed) = &mut self.replayed {
            replayed.push((key.clone(), range.clone()));
        }
        Ok(self.pacer.run(&self.gpu, &recorded.commands[range])?)
    }

    /// The numbers of commands before each of the two pauses of a training step: after the forward passes, and after the
    /// loss.
    fn pauses_of(&self, images: usize, key: &Key) -> [usize; 2] {
        let set = self.sets.iter().find(|set| set.images == images);
        set.and_then(|set| set.programs.get(key)).map_or([0; 2], |recorded| recorded.pauses)
    }
}
