//! [`WgslEngine`]: an [`Engine`] whose network lives on the GPU.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytemuck::Zeroable;

use super::device::{Checks, Gpu, GpuOptions};
use super::error::GpuError;
use super::kernel::padded;
use super::kernels::call::{Call, ImageInfo};
use super::kernels::loss;
use super::lower;
use super::pacing::{PaceStats, Pacer};
use super::parameters::Parameters;
use super::program::{Fixed, Place};
use super::programs::{self, Key, Target};
use super::recorded::{Pool, Recorded};
use super::{adapters, cache};
use crate::engine::types::check_labels;
use crate::engine::{
    Batch, BatchNormMode, BatchStats, Engine, EngineError, EngineState, Input, LossSpec, Objective, PerturbSpec,
    SgdStep, Start, View, Views,
};
use crate::model::{Array, ModelError, Network, Op, State, StateSpec};

/// How a [`WgslEngine`] is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WgslOptions {
    /// Index of an adapter, a part of its name, `high-performance` or `low-power`; none for the best one.
    pub adapter: Option<String>,
    /// Run-time checks in shaders.
    pub checks: Checks,
    /// Folder where compiled pipelines are kept from one run to the next; none keeps nothing.
    pub pipelines: Option<PathBuf>,
    /// Largest binding in bytes, for making the engine cut batches into ranges on a device that would not need it.
    pub binding_limit: Option<u64>,
}

impl Default for WgslOptions {
    /// The fastest adapter, without checks, with pipelines in the user's cache directory (`FAIRTAT_CACHE` names another,
    /// empty for none).
    fn default() -> Self {
        Self { adapter: None, checks: Checks::Off, pipelines: cache::default_folder(), binding_limit: None }
    }
}

/// Batch sizes whose programs are kept; a run has four (training and evaluation, and the last batch of each).
const KEPT: usize = 8;

/// What is not finite when no layer's output is to blame.
const LOGITS: &str = "logits";
/// What is not finite when all logits are.
const GRADIENT: &str = "gradient with respect to the images";

/// What a search leaves beside images.
#[derive(Debug)]
struct Search {
    /// Logits were not finite.
    bad_logits: bool,
    /// The gradient of an image was not finite.
    bad_gradient: bool,
    /// The target of each image; 0 where it had none.
    targets: Vec<u32>,
}

/// Everything that belongs to one batch size.
#[derive(Debug)]
struct BatchSet {
    images: usize,
    ranges: Vec<usize>,
    buffers: HashMap<Fixed, wgpu::Buffer>,
    programs: HashMap<Key, Recorded>,
}

/// The images that the last perturbation left here.
#[derive(Debug)]
struct Held {
    generation: u64,
    labels: Vec<u32>,
    targets: Option<Vec<u32>>,
}

/// Runs a [`Network`] in WGSL compute shaders.
#[derive(Debug)]
pub struct WgslEngine {
    network: Network,
    specs: Vec<StateSpec>,
    parameters: Parameters,
    pub(super) gpu: Gpu,
    limits: wgpu::Limits,
    pacer: Pacer,
    pool: Pool,
    /// Buffers that do not depend on the batch size. Those of class by class come with the first program that needs them.
    buffers: HashMap<Fixed, wgpu::Buffer>,
    /// The most recently used batch size last.
    sets: Vec<BatchSet>,
    held: Option<Held>,
    generation: u64,
}

impl WgslEngine {
    /// An engine for `network` with the parameters of `state`, on a device of its own.
    ///
    /// # Errors
    /// When there is no such adapter, it is too small for the network, or `state` does not fit.
    pub fn new(network: Network, state: &State, options: &WgslOptions) -> Result<Self, EngineError> {
        let found = adapters::choose(options.adapter.as_deref())?;
        let gpu = Gpu::open_with(
            &found.adapter,
            &GpuOptions { checks: options.checks, pipelines: options.pipelines.clone() },
        )?;
        Self::on(gpu, network, state, options.binding_limit)
    }

    fn on(gpu: Gpu, network: Network, state: &State, binding_limit: Option<u64>) -> Result<Self, EngineError> {
        let mut limits = gpu.limits.clone();
        if let Some(limit) = binding_limit {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(limit);
        }
        if network.layers.iter().filter(|layer| matches!(layer.op, Op::Normalize { .. })).count() > 1 {
            return Err(EngineError::Invalid("a network has one normalisation layer, its first".into()));
        }
        let parameters = Parameters::new(&network, &limits)?;
        let mut engine = Self {
            specs: network.state_specs(),
            pacer: Pacer::new(gpu.budget().submission_target),
            network,
            parameters,
            gpu,
            limits,
            pool: Pool::default(),
            buffers: HashMap::new(),
            sets: Vec::new(),
            held: None,
            generation: 0,
        };
        engine.create_buffers()?;
        engine.load_model(state)?;
        Ok(engine)
    }

    /// The buffers that every program uses. A new buffer is all zeros: momentum starts there.
    fn create_buffers(&mut self) -> Result<(), EngineError> {
        let mut wanted = vec![(Fixed::Running, self.parameters.running), (Fixed::Call, size_of::<Call>() as u64)];
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
            // As batch norm: scale, shift, mean, 1 / std. The channels added have scale and shift zero.
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

    /// What the pacing of submissions has done so far.
    pub fn pace(&self) -> PaceStats {
        self.pacer.stats
    }

    /// Bytes that this engine has allocated on the device.
    pub fn device_bytes(&self) -> u64 {
        let fixed = self.buffers.values().chain(self.sets.iter().flat_map(|set| set.buffers.values()));
        self.pool.bytes() + fixed.map(wgpu::Buffer::size).sum::<u64>()
    }

    /// Images in each range that a batch of `images` is cut into, so that a binding holds every activation.
    ///
    /// # Errors
    /// When one image alone is too large for a binding.
    pub fn ranges(&self, images: usize) -> Result<Vec<usize>, EngineError> {
        Ok(lower::ranges(&self.network, images, &self.limits)?)
    }

    /// Makes the set of a batch size the last one in the list.
    fn set(&mut self, images: usize) -> Result<&mut BatchSet, EngineError> {
        match self.sets.iter().position(|set| set.images == images) {
            Some(at) => {
                let set = self.sets.remove(at);
                self.sets.push(set);
            }
            None => {
                let ranges = self.ranges(images)?;
                if self.sets.len() >= KEPT {
                    let gone = self.sets.remove(0).images;
                    self.held.take_if(|held| held.labels.len() == gone);
                }
                if self.sets.iter().all(|set| set.images < images) {
                    // The slots of smaller batches are of no use to this one, but its slots are to them: they are
                    // recorded again into these when they come back.
                    self.pool.clear();
                    self.sets.iter_mut().for_each(|set| set.programs.clear());
                }
                self.sets.push(BatchSet { images, ranges, buffers: HashMap::new(), programs: HashMap::new() });
            }
        }
        self.sets.last_mut().ok_or_else(|| EngineError::Invalid("a batch needs at least one image".into()))
    }

    /// Builds and records a program unless it is there.
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
        };
        let program = programs::build(key, target)?;
        let used = self.device_bytes();
        let Some(set) = self.sets.last_mut() else { return Ok(()) };
        let (gpu, engine_wide) = (&self.gpu, &mut self.buffers);
        let of_batch = &mut set.buffers;
        let recorded = Recorded::new(gpu, program, &mut self.pool, used, |home, bytes| {
            find_or_make(gpu, if home.of_batch() { of_batch } else { engine_wide }, home, bytes)
        })?;
        set.programs.insert(key.clone(), recorded);
        Ok(())
    }

    /// Replays a program without waiting for it.
    fn replay(&mut self, images: usize, key: &Key) -> Result<(), EngineError> {
        self.replay_part(images, key, 0, usize::MAX)
    }

    fn replay_part(&mut self, images: usize, key: &Key, from: usize, to: usize) -> Result<(), EngineError> {
        self.ensure(images, key)?;
        let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(key)) else { return Ok(()) };
        let to = to.min(recorded.commands.len());
        Ok(self.pacer.run(&self.gpu, &recorded.commands[from.min(to)..to])?)
    }

    fn pause_of(&self, images: usize, key: &Key) -> usize {
        let set = self.sets.iter().find(|set| set.images == images);
        set.and_then(|set| set.programs.get(key)).map_or(0, |recorded| recorded.pause)
    }

    /// The buffer with a name; made if no program has asked for it yet.
    fn buffer(&mut self, images: usize, home: Fixed, bytes: u64) -> Result<wgpu::Buffer, EngineError> {
        self.set(images)?;
        let buffers = match self.sets.last_mut() {
            Some(set) if home.of_batch() => &mut set.buffers,
            _ => &mut self.buffers,
        };
        Ok(find_or_make(&self.gpu, buffers, home, bytes)?)
    }

    /// Writes into a buffer, after everything that was asked for before.
    fn write<T: bytemuck::NoUninit>(
        &mut self,
        images: usize,
        home: Fixed,
        bytes: u64,
        values: &[T],
    ) -> Result<(), EngineError> {
        self.pacer.flush(&self.gpu)?;
        let buffer = self.buffer(images, home, bytes)?;
        self.gpu.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        Ok(())
    }

    fn write_call(&mut self, images: usize, call: &Call) -> Result<(), EngineError> {
        self.write(images, Fixed::Call, size_of::<Call>() as u64, std::slice::from_ref(call))
    }

    fn write_info(&mut self, info: &[ImageInfo]) -> Result<(), EngineError> {
        self.write(info.len(), Fixed::Info, size_of_val(info) as u64, info)
    }

    fn write_pixels(&mut self, batch: &Batch<'_>) -> Result<(), EngineError> {
        let mut bytes = batch.pixels.to_vec();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.write(batch.len(), Fixed::Pixels, bytes.len() as u64, &bytes)
    }

    /// Uploads images or perturbations, `B × C × H × W`.
    fn write_images(&mut self, home: fn(usize) -> Fixed, data: &[f32]) -> Result<(), EngineError> {
        let shape = self.network.input;
        let images = data.len() / shape.len();
        let ranges = self.set(images)?.ranges.clone();
        let mut rest = data;
        for (r, count) in ranges.into_iter().enumerate() {
            let (now, later) = rest.split_at(count * shape.len());
            rest = later;
            let packed = pack_images(now, shape);
            self.write(images, home(r), 4 * packed.len() as u64, &packed)?;
        }
        Ok(())
    }

    /// Copies an image tensor into another.
    fn copy_images(
        &mut self,
        images: usize,
        from: fn(usize) -> Fixed,
        to: fn(usize) -> Fixed,
    ) -> Result<(), EngineError> {
        let shape = self.network.input;
        self.copy(images, from, to, shape)
    }

    fn copy(
        &mut self,
        images: usize,
        from: fn(usize) -> Fixed,
        to: fn(usize) -> Fixed,
        shape: crate::data::ImageShape,
    ) -> Result<(), EngineError> {
        let ranges = self.set(images)?.ranges.clone();
        for (r, count) in ranges.into_iter().enumerate() {
            let bytes = lower::bytes(count, shape);
            let from = self.buffer(images, from(r), bytes)?;
            let to = self.buffer(images, to(r), bytes)?;
            self.pacer.copy(&self.gpu, &from, &to, bytes);
        }
        Ok(())
    }

    /// Waits, and reads a tensor with a name back.
    fn read_named(
        &mut self,
        images: usize,
        home: fn(usize) -> Fixed,
        shape: crate::data::ImageShape,
    ) -> Result<Vec<f32>, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let ranges = self.set(images)?.ranges.clone();
        let mut buffers = Vec::with_capacity(ranges.len());
        for (r, count) in ranges.into_iter().enumerate() {
            let bytes = lower::bytes(count, shape);
            buffers.push((self.buffer(images, home(r), bytes)?, bytes));
        }
        let wanted: Vec<_> = buffers.iter().map(|(buffer, bytes)| (buffer, 0, *bytes)).collect();
        Ok(unpack(&self.gpu.read(&wanted)?, shape))
    }

    fn held(&self, views: &Views) -> Result<&Held, EngineError> {
        match &self.held {
            Some(held) if held.generation == views.generation => Ok(held),
            _ => Err(EngineError::Invalid("these views are gone: a later perturbation has replaced them".into())),
        }
    }

    /// Brings an input to where the network reads it, and gives its labels.
    fn resolve(&mut self, input: &Input<'_>, objective: Option<&Objective>) -> Result<Vec<u32>, EngineError> {
        let labels = match input {
            Input::Batch(batch) => {
                batch.check(self.network.input, self.network.classes)?;
                batch.labels.to_vec()
            }
            Input::View(views, _) => self.held(views)?.labels.clone(),
            Input::Images(data, labels) => {
                let expected = labels.len() * self.network.input.len();
                if labels.is_empty() || data.len() != expected {
                    return Err(EngineError::Invalid(format!(
                        "{} images of {} hold {expected} values, found {}",
                        labels.len(),
                        self.network.input,
                        data.len()
                    )));
                }
                check_labels(labels, self.network.classes)?;
                labels.to_vec()
            }
        };
        let n = labels.len();
        if let Some(objective) = objective {
            objective.check(n, self.network.classes)?;
        }
        let mut info = match input {
            Input::Batch(batch) => ImageInfo::for_batch(batch),
            Input::View(..) | Input::Images(..) => ImageInfo::for_labels(&labels),
        };
        let mut call = match input {
            Input::Batch(batch) => Call::for_batch(batch),
            Input::View(..) | Input::Images(..) => Call::zeroed(),
        };
        if let Some(objective) = objective {
            ImageInfo::aim(&mut info, objective);
            call = call.with_objective(objective);
        }
        self.write_info(&info)?;
        self.write_call(n, &call)?;
        match input {
            Input::Batch(batch) => {
                self.write_pixels(batch)?;
                self.replay(n, &Key::Prepare { view: false })?;
            }
            Input::View(_, view) => {
                let from = match view {
                    View::Clean => Fixed::Clean,
                    View::Adversarial => Fixed::Adversarial,
                };
                self.copy_images(n, from, Fixed::Input)?;
            }
            Input::Images(data, _) => self.write_images(Fixed::Input, data)?,
        }
        Ok(labels)
    }

    /// Logits of the last forward pass over the network's input, checked to be numbers.
    fn read_logits(&mut self, images: usize, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let shape = self.network.shape_of(self.network.layers.len());
        let logits = self.read_named(images, Fixed::Logits, shape)?;
        if logits.iter().all(|v| v.is_finite()) { Ok(logits) } else { Err(self.not_finite(images, mode)) }
    }

    /// Runs the forward pass over the network's input again, layer by layer, and names the first one that does not give
    /// numbers. Running statistics stay as they are.
    fn not_finite(&mut self, images: usize, mode: BatchNormMode) -> EngineError {
        match self.find_not_finite(images, mode) {
            Ok(what) => EngineError::NotFinite { what, batch: images },
            Err(error) => error,
        }
    }

    fn find_not_finite(&mut self, images: usize, mode: BatchNormMode) -> Result<String, EngineError> {
        let shape = self.network.input;
        if !self.read_named(images, Fixed::Input, shape)?.iter().all(|v| v.is_finite()) {
            return Ok("images".into());
        }
        let key = Key::Forward(mode);
        self.ensure(images, &key)?;
        let running = match self.buffers.get(&Fixed::Running) {
            Some(buffer) => Some((buffer.clone(), self.gpu.read(&[(buffer, 0, self.parameters.running)])?.remove(0))),
            None => None,
        };
        let mut from = 0;
        let mut found = LOGITS.to_owned();
        for output in 0..self.network.layers.len() {
            let outputs = self.sets.last().and_then(|set| set.programs.get(&key)).map(|r| &r.outputs);
            let Some((layer, to, _)) = outputs.and_then(|o| o.get(output)).map(|(l, t, s)| (*l, *t, s.len())) else {
                break;
            };
            self.replay_part(images, &key, from, to)?;
            self.pacer.finish(&self.gpu)?;
            from = to;
            let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(&key)) else { break };
            let ranges: Vec<_> = recorded.outputs[output].2.iter().map(|slice| recorded.range(*slice)).collect();
            let finite = |bytes: &Vec<u8>| bytemuck::pod_collect_to_vec::<u8, f32>(bytes).iter().all(|v| v.is_finite());
            if !self.gpu.read(&ranges)?.iter().all(finite) {
                found = format!("output of layer '{}'", self.network.layers[layer].name);
                break;
            }
        }
        if let Some((buffer, bytes)) = running {
            self.gpu.queue.write_buffer(&buffer, 0, &bytes);
        }
        Ok(found)
    }

    /// Waits for a search, and reads what it left beside images.
    fn read_search(&mut self, images: usize) -> Result<Search, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let bytes = (images * size_of::<ImageInfo>()) as u64;
        let flags = [self.buffer(images, Fixed::Flag, 16)?, self.buffer(images, Fixed::GradientFlag, 16)?];
        let info = self.buffer(images, Fixed::Info, bytes)?;
        let read = self.gpu.read(&[(&flags[0], 0, 4), (&flags[1], 0, 4), (&info, 0, bytes)])?;
        let raised = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
        let info: Vec<ImageInfo> = bytemuck::pod_collect_to_vec(&read[2]);
        let targets = info.iter().map(|image| image.target).collect();
        Ok(Search { bad_logits: raised(&read[0]), bad_gradient: raised(&read[1]), targets })
    }

    /// Uploads an array to its place in a kind of slab.
    fn upload(&self, values: &State, momentum: bool) -> Result<(), EngineError> {
        for (spec, placed) in self.specs.iter().zip(&self.parameters.arrays) {
            if momentum && !spec.trained {
                continue;
            }
            let Some(array) = values.0.get(&spec.name) else { continue };
            let home = home_of(placed.place, momentum);
            let Some(buffer) = self.buffers.get(&home) else { continue };
            self.gpu.queue.write_buffer(buffer, placed.place.offset, bytemuck::cast_slice(&placed.pack(array)));
        }
        Ok(self.gpu.check()?)
    }

    fn mismatch(&self, what: String) -> EngineError {
        ModelError::Mismatch { architecture: self.network.architecture.clone(), what }.into()
    }
}

fn find_or_make(
    gpu: &Gpu,
    buffers: &mut HashMap<Fixed, wgpu::Buffer>,
    home: Fixed,
    bytes: u64,
) -> Result<wgpu::Buffer, GpuError> {
    if let Some(buffer) = buffers.get(&home) {
        return Ok(buffer.clone());
    }
    let buffer = gpu.buffer(&format!("{home:?}"), bytes)?;
    buffers.insert(home, buffer.clone());
    Ok(buffer)
}

/// Where an array lies, or where its momentum does.
const fn home_of(place: Place, momentum: bool) -> Fixed {
    match place.home {
        Fixed::Parameters(slab) if momentum => Fixed::Momentum(slab),
        home => home,
    }
}

/// `B × C × H × W` to `B × H × W × C`, channels rounded up with zeros.
fn pack_images(data: &[f32], shape: crate::data::ImageShape) -> Vec<f32> {
    let (channels, plane) = (padded(shape.channels), shape.height * shape.width);
    let mut out = vec![0.0; data.len() / shape.channels * channels];
    for (image, out) in data.chunks(shape.len()).zip(out.chunks_mut(plane * channels)) {
        for (c, values) in image.chunks(plane).enumerate() {
            for (p, value) in values.iter().enumerate() {
                out[p * channels + c] = *value;
            }
        }
    }
    out
}

/// The other way round, from the bytes of each range.
fn unpack(ranges: &[Vec<u8>], shape: crate::data::ImageShape) -> Vec<f32> {
    let (channels, plane) = (padded(shape.channels), shape.height * shape.width);
    let mut out = Vec::new();
    for bytes in ranges {
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
        for image in values.chunks(plane * channels) {
            for c in 0..shape.channels {
                out.extend((0..plane).map(|p| image[p * channels + c]));
            }
        }
    }
    out
}

impl Engine for WgslEngine {
    fn describe(&self) -> String {
        format!("wgsl ({}, {:?})", self.gpu.info.name, self.gpu.info.backend)
    }

    fn name(&self) -> String {
        "wgsl".into()
    }

    fn network(&self) -> &Network {
        &self.network
    }

    fn perturb(&mut self, batch: &Batch<'_>, spec: &PerturbSpec) -> Result<Views, EngineError> {
        batch.check(self.network.input, self.network.classes)?;
        spec.check(batch.len(), self.network.input, self.network.classes)?;
        let n = batch.len();
        // The buffers of the views are about to change.
        self.held = None;
        self.set(n)?;
        self.write_pixels(batch)?;
        self.write_info(&ImageInfo::for_perturb(batch, spec))?;
        self.write_call(n, &Call::for_perturb(batch, spec))?;
        self.write(n, Fixed::Flag, 16, &[0u32; 4])?;
        self.write(n, Fixed::GradientFlag, 16, &[0u32; 4])?;
        if let Start::Given(values) = &spec.start {
            self.write_images(Fixed::Delta, values)?;
        }
        if let Objective::Drawn(table) = &spec.objective {
            let bytes = programs::table_bytes(table.classes(), 1);
            self.write(n, Fixed::Thresholds, bytes, table.thresholds())?;
            self.replay(n, &Key::Targets)?;
        }
        self.replay(n, &Key::Prepare { view: true })?;
        if spec.objective == Objective::KlToClean {
            self.copy_images(n, Fixed::Clean, Fixed::Input)?;
            self.replay(n, &Key::Forward(spec.batch_norm))?;
            self.read_logits(n, spec.batch_norm)?;
            let shape = self.network.shape_of(self.network.layers.len());
            self.copy(n, Fixed::Logits, Fixed::Reference, shape)?;
        }
        self.replay(n, &Key::Start)?;
        for _ in 0..spec.steps {
            self.replay(n, &Key::Attack(spec.batch_norm))?;
        }
        self.copy_images(n, Fixed::Input, Fixed::Adversarial)?;
        let Search { bad_logits, bad_gradient, targets } = self.read_search(n)?;
        if bad_logits || bad_gradient {
            // The images have stayed where it happened.
            let what = match self.find_not_finite(n, spec.batch_norm)? {
                what if what == LOGITS && bad_gradient => GRADIENT.to_owned(),
                what => what,
            };
            return Err(EngineError::NotFinite { what, batch: n });
        }
        self.generation += 1;
        let generation = self.generation;
        let targets = matches!(spec.objective, Objective::Targeted(_) | Objective::Drawn(_)).then_some(targets);
        self.held = Some(Held { generation, labels: batch.labels.to_vec(), targets });
        Ok(Views { generation, len: n })
    }

    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError> {
        loss.check(views.len())?;
        let held = self.held(views)?;
        let info = ImageInfo::for_labels(&held.labels);
        let n = info.len();
        let names = loss.views();
        let terms = loss::encode_terms(loss, &names, n);
        let key = Key::Train { views: names.clone(), terms: terms.len() };
        self.write_info(&info)?;
        self.write_call(n, &Call::zeroed().with_sgd(sgd))?;
        self.write(n, Fixed::Terms(terms.len()), 4 * terms.len() as u64, &terms)?;
        self.ensure(n, &key)?;
        let table = self.network.classes * self.network.classes;
        let counts_bytes = programs::table_bytes(self.network.classes, 2);
        self.write(n, Fixed::Counts, counts_bytes, &vec![0u32; names.len() * table])?;
        let pause = self.pause_of(n, &key);
        self.replay_part(n, &key, 0, pause)?;
        self.pacer.finish(&self.gpu)?;
        let results = self.buffer(n, Fixed::Results, 12 * n as u64)?;
        let counts = self.buffer(n, Fixed::Counts, counts_bytes)?;
        let counted = programs::table_bytes(self.network.classes, names.len());
        let read = self.gpu.read(&[(&results, 0, 12 * n as u64), (&counts, 0, counted)])?;
        let [words, counts] = [&read[0], &read[1]].map(|bytes| bytemuck::pod_collect_to_vec::<u8, u32>(bytes));
        let predictions: Vec<(View, Vec<u32>)> = names
            .iter()
            .enumerate()
            .map(|(v, view)| (*view, words.chunks(3).map(|word| word[1 + v]).collect()))
            .collect();
        if let Some((view, _)) = predictions.iter().find(|(_, found)| found.contains(&u32::MAX)) {
            let from = match view {
                View::Clean => Fixed::Clean,
                View::Adversarial => Fixed::Adversarial,
            };
            self.copy_images(n, from, Fixed::Input)?;
            return Err(self.not_finite(n, BatchNormMode::Train));
        }
        let confusion = names.iter().copied().zip(counts.chunks(table).map(<[u32]>::to_vec)).collect();
        let value = words.chunks(3).map(|word| f64::from(f32::from_bits(word[0]))).sum();
        self.replay_part(n, &key, pause, usize::MAX)?;
        self.pacer.flush(&self.gpu)?;
        Ok(BatchStats { loss: value, predictions, confusion })
    }

    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        let n = self.resolve(input, None)?.len();
        self.replay(n, &Key::Forward(mode))?;
        self.read_logits(n, mode)
    }

    fn input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        objective.check_without_search()?;
        let n = self.resolve(input, Some(objective))?.len();
        let key = Key::Gradient(mode);
        self.replay(n, &key)?;
        let logits = self.read_logits(n, mode)?;
        let Some(recorded) = self.sets.last().and_then(|set| set.programs.get(&key)) else {
            return Err(EngineError::Invalid("a batch needs at least one image".into()));
        };
        let ranges: Vec<_> = recorded.image_gradient.iter().map(|slice| recorded.range(*slice)).collect();
        let gradient = unpack(&self.gpu.read(&ranges)?, self.network.input);
        if gradient.iter().all(|v| v.is_finite()) {
            Ok((logits, gradient))
        } else {
            Err(EngineError::NotFinite { what: GRADIENT.into(), batch: n })
        }
    }

    fn targets(&self, views: &Views) -> Result<Option<&[u32]>, EngineError> {
        Ok(self.held(views)?.targets.as_deref())
    }

    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError> {
        self.held(views)?;
        let home = match view {
            View::Clean => Fixed::Clean,
            View::Adversarial => Fixed::Adversarial,
        };
        self.read_named(views.len(), home, self.network.input)
    }

    fn state(&mut self) -> Result<EngineState, EngineError> {
        self.pacer.finish(&self.gpu)?;
        let mut read = HashMap::new();
        for (home, buffer) in &self.buffers {
            if matches!(home, Fixed::Parameters(_) | Fixed::Momentum(_) | Fixed::Running) {
                let bytes = self.gpu.read(&[(buffer, 0, buffer.size())])?.remove(0);
                read.insert(*home, bytemuck::pod_collect_to_vec::<u8, f32>(&bytes));
            }
        }
        let find = |place: Place, momentum: bool| -> &[f32] {
            let (from, len) = (place.offset as usize / 4, place.size as usize / 4);
            read.get(&home_of(place, momentum)).and_then(|values| values.get(from..from + len)).unwrap_or_default()
        };
        let (mut model, mut momentum) = (BTreeMap::new(), BTreeMap::new());
        for (spec, placed) in self.specs.iter().zip(&self.parameters.arrays) {
            let array = |of_momentum| -> Array { placed.unpack(find(placed.place, of_momentum)) };
            model.insert(spec.name.clone(), array(false));
            if spec.trained {
                momentum.insert(spec.name.clone(), array(true));
            }
        }
        Ok(EngineState { model: State(model), momentum: State(momentum) })
    }

    fn load_model(&mut self, model: &State) -> Result<(), EngineError> {
        model.check(&self.network)?;
        self.pacer.finish(&self.gpu)?;
        self.upload(model, false)
    }

    fn load_state(&mut self, state: &EngineState) -> Result<(), EngineError> {
        for spec in self.specs.iter().filter(|spec| spec.trained) {
            let what = match state.momentum.0.get(&spec.name) {
                None => format!("momentum of '{}' is missing", spec.name),
                Some(array) if array.shape != spec.shape => {
                    format!("momentum of '{}' has shape {:?}, expected {:?}", spec.name, array.shape, spec.shape)
                }
                Some(array) if !array.data.iter().all(|v| v.is_finite()) => {
                    format!("momentum of '{}' holds values that are not finite", spec.name)
                }
                Some(_) => continue,
            };
            return Err(self.mismatch(what));
        }
        self.load_model(&state.model)?;
        self.upload(&state.momentum, true)
    }
}
