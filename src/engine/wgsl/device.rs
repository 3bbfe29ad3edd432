//! The device of an engine: its pipelines, its buffers, and its errors as typed values.
//!
//! An engine opens a separate device. It never shares the window's: a hidden window would delay every submission, and
//! an error on a shared device would end the program.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::adapters::memory_bytes;
use super::cache::PipelineStore;
pub(super) use super::error::GpuError;
use super::error::scoped;
use super::kernel::Kernel;
use super::shader;
use super::wait::{PATIENCE, block_on, poll};
use crate::files::FileError;

/// Whether shaders check their indices while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Checks {
    /// Without checks: our kernels do their own bounds checks, and the tests run them both ways.
    #[default]
    Off,
    /// With the checks that WebGPU requires.
    On,
}

/// When matrix products broadcast values within subgroups. The adapter must have subgroups of at least eight lanes. The
/// result of a product is bit-identical; the fused statistics of batch norm use another block size and differ by
/// rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Subgroups {
    /// Never: only features of every WebGPU device are used.
    #[default]
    Never,
    /// Where measurements showed a gain: on software adapters.
    WhereFaster,
    /// On every adapter that supports them.
    Always,
}

impl Subgroups {
    /// Whether to request subgroups from an adapter of this kind.
    pub(super) fn on(self, kind: wgpu::DeviceType) -> bool {
        match self {
            Self::Never => false,
            Self::WhereFaster => kind == wgpu::DeviceType::Cpu,
            Self::Always => true,
        }
    }
}

/// Options of a device.
#[derive(Debug, Clone, Default)]
pub(super) struct GpuOptions {
    pub(super) checks: Checks,
    /// Directory of the pipeline cache; `None` disables it.
    pub(super) pipelines: Option<PathBuf>,
    /// Enables timestamp queries if supported: for profiles only.
    pub(super) timestamps: bool,
    /// Passes the parameters of dispatches as immediates, if supported, instead of in a uniform buffer.
    pub(super) immediates: bool,
    /// When to use subgroups, if supported.
    pub(super) subgroups: Subgroups,
}

/// How much work is submitted to the device at once. Windows resets a GPU that is busy for two seconds, and a GPU that
/// also draws the desktop must be free for it within a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Target duration of one submission.
    pub(super) submission_target: Duration,
    /// Maximum number of floating-point operations of one dispatch, a multiply-add counted as two.
    pub(super) dispatch_flops: u64,
}

impl Budget {
    const fn of(kind: wgpu::DeviceType) -> Self {
        let (milliseconds, dispatch_flops) = match kind {
            wgpu::DeviceType::DiscreteGpu => (50, 20_000_000_000),
            // The slowest GPU worth using reaches 30 GFLOP/s, a software adapter a few GFLOP/s.
            wgpu::DeviceType::Cpu => (50, 250_000_000),
            wgpu::DeviceType::IntegratedGpu | wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => {
                (16, 500_000_000)
            }
        };
        Self { submission_target: Duration::from_millis(milliseconds), dispatch_flops }
    }
}

/// An open device with its pipelines.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) info: wgpu::AdapterInfo,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    /// Device-local memory in bytes. `None` if the driver does not report it.
    pub(super) memory: Option<u64>,
    /// Whether parameters of dispatches are passed as immediates.
    pub(super) immediates: bool,
    /// Whether broadcasts within subgroups work, with enough lanes for the tiles that use them.
    pub(super) subgroups: bool,
    pub(super) checks: Checks,
    pipelines: Mutex<HashMap<Kernel, Arc<wgpu::ComputePipeline>>>,
    store: Option<PipelineStore>,
    failure: Arc<Mutex<Option<GpuError>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Maximum number of bytes of one readback copy: staging memory is scarce on some devices.
const READ_BYTES: u64 = 32 << 20;
/// Bytes of immediates per dispatch: almost every adapter with immediates offers as many.
pub(super) const IMMEDIATE_BYTES: u32 = 128;
/// Maximum delay of the callback of a mapping after the copy that it waits for.
const CALLBACK: Duration = Duration::from_secs(10);

impl Gpu {
    /// Opens a separate device on `adapter`. It has the limits of the base tier even if the adapter allows more, so
    /// that whatever fits here fits everywhere. Whether it uses subgroups is decided once it is open
    /// ([`super::opening`]).
    pub(super) fn new(adapter: &wgpu::Adapter, options: &GpuOptions) -> Result<Self, GpuError> {
        let (info, memory) = (adapter.get_info(), memory_bytes(adapter));
        let mut limits = wgpu::Limits::default();
        let mut wanted = wgpu::Features::PIPELINE_CACHE;
        wanted.set(wgpu::Features::TIMESTAMP_QUERY, options.timestamps);
        let immediates = options.immediates
            && adapter.features().contains(wgpu::Features::IMMEDIATES)
            && adapter.limits().max_immediate_size >= IMMEDIATE_BYTES;
        if immediates {
            wanted |= wgpu::Features::IMMEDIATES;
            limits.max_immediate_size = IMMEDIATE_BYTES;
        }
        wanted.set(wgpu::Features::SUBGROUP, options.subgroups.on(info.device_type));
        let features = adapter.features() & wanted;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("fairtat"),
            required_features: features,
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let opened = block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| GpuError::Open { adapter: info.name.clone(), what: e.to_string() })?;
        let failure = Arc::new(Mutex::new(None));
        let (seen, adapter_name) = (Arc::clone(&failure), info.name.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&seen).get_or_insert(typed(&adapter_name, "a command", &error));
        }));
        let (seen, adapter) = (Arc::clone(&failure), info.name.clone());
        device.set_device_lost_callback(move |reason, message| {
            let what = if message.is_empty() { format!("{reason:?}").to_lowercase() } else { message };
            // The loss of the device explains every later error and most earlier ones.
            *lock(&seen) = Some(GpuError::Lost { adapter: adapter.clone(), what });
        });
        let store = options.pipelines.as_deref().and_then(|folder| PipelineStore::open(&device, &info, folder));
        Ok(Self {
            memory,
            immediates,
            subgroups: false,
            info,
            device,
            queue,
            limits,
            checks: options.checks,
            pipelines: Mutex::default(),
            store,
            failure,
        })
    }

    /// How much work to submit at once.
    pub(super) const fn budget(&self) -> Budget {
        Budget::of(self.info.device_type)
    }

    /// Returns the first error that the device reported, if any. The loss of the device takes precedence over all
    /// others: a lost device rejects commands, and reports the loss only when polled.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        let polled = poll(&self.device, wgpu::PollType::Poll);
        match lock(&self.failure).clone() {
            Some(error) => Err(error),
            None => polled.map(|_| ()).map_err(|what| self.refused(format!("to report its state: {what}"))),
        }
    }

    /// `error`, or the loss of the device if that is its cause.
    fn explained(&self, error: GpuError) -> GpuError {
        match self.check() {
            Err(lost @ GpuError::Lost { .. }) => lost,
            _ => error,
        }
    }

    /// The pipeline of a kernel, compiled at its first use.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Result<Arc<wgpu::ComputePipeline>, GpuError> {
        if let Some(pipeline) = lock(&self.pipelines).get(kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let label = kernel.label();
        let expanded = shader::expand(kernel.file, &kernel.constants);
        let source = if self.immediates { expanded.and_then(|s| shader::with_immediates(&s)) } else { expanded };
        let source = source.map_err(|e| self.refused(format!("the shader '{label}': {e}")))?;
        let pipeline = Arc::new(self.compile(&label, source)?);
        lock(&self.pipelines).insert(kernel.clone(), Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// Runs `work` with temporary pipelines that are neither kept nor stored: for kernels that are only measured.
    pub(super) fn apart<T>(&mut self, work: impl FnOnce(&Self) -> T) -> T {
        let (store, pipelines) = (self.store.take(), std::mem::take(&mut self.pipelines));
        let result = work(self);
        (self.store, self.pipelines) = (store, pipelines);
        result
    }

    /// Compiles a shader of this crate.
    pub(super) fn compile(&self, label: &str, source: String) -> Result<wgpu::ComputePipeline, GpuError> {
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let checks = match self.checks {
            Checks::On => wgpu::ShaderRuntimeChecks::checked(),
            Checks::Off => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        let compiled = scoped(&self.device, || {
            #[allow(unsafe_code)]
            // SAFETY: only shaders of this crate are compiled here. Their loops terminate, their divisors are positive
            // and every index is in bounds; the kernel tests run them with and without checks.
            let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
            self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.store.as_ref().map(PipelineStore::cache),
            })
        });
        let pipeline = compiled.map_err(|error| self.typed(&format!("the shader '{label}'"), &error))?;
        self.check()?;
        if let Some(store) = &self.store {
            store.grew();
        }
        Ok(pipeline)
    }

    /// Writes newly compiled pipelines to the cache, if it is enabled. Dropping the device does the same.
    ///
    /// # Errors
    /// If the file cannot be written. The engine does not depend on it.
    pub(super) fn save_pipelines(&self) -> Result<(), FileError> {
        self.store.as_ref().map_or(Ok(()), PipelineStore::save)
    }

    /// Creates a buffer for shaders that can be copied from and to.
    pub(super) fn buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer, GpuError> {
        let copies = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        self.buffer_for(label, size, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::UNIFORM | copies)
    }

    /// Number of pipelines compiled so far.
    #[cfg(test)]
    pub(super) fn pipeline_count(&self) -> usize {
        lock(&self.pipelines).len()
    }

    /// Creates a buffer for another usage.
    pub(super) fn buffer_for(
        &self,
        label: &str,
        size: u64,
        usage: wgpu::BufferUsages,
    ) -> Result<wgpu::Buffer, GpuError> {
        let (size, most) = (size.max(16).next_multiple_of(4), self.limits.max_buffer_size);
        if size > most {
            return Err(GpuError::Limits(format!(
                "{label} needs {}, and a buffer on {} holds at most {}; a smaller batch needs less",
                mebibytes(size),
                self.info.name,
                mebibytes(most)
            )));
        }
        let descriptor = wgpu::BufferDescriptor { label: Some(label), size, usage, mapped_at_creation: false };
        let buffer = scoped(&self.device, || self.device.create_buffer(&descriptor))
            .map_err(|error| self.typed(&format!("{label}, {}", mebibytes(size)), &error))?;
        self.check()?;
        Ok(buffer)
    }

    /// Waits until all submissions are done.
    pub(super) fn wait(&self) -> Result<(), GpuError> {
        self.poll(wgpu::PollType::Wait { submission_index: None, timeout: Some(PATIENCE) }).map(|_| ())
    }

    /// Polls the device: runs its callbacks, and waits if `kind` requests it.
    pub(super) fn poll(&self, kind: wgpu::PollType) -> Result<wgpu::PollStatus, GpuError> {
        let done = poll(&self.device, kind);
        self.check()?;
        done.map_err(|e| self.refused(format!("to wait: {e}")))
    }

    /// An error for a request that the device or the driver refused.
    pub(super) fn refused(&self, what: String) -> GpuError {
        GpuError::Refused { adapter: self.info.name.clone(), what }
    }

    fn typed(&self, what: &str, error: &wgpu::Error) -> GpuError {
        self.explained(typed(&self.info.name, what, error))
    }

    /// Reads ranges of buffers back as bytes. Waits for the device. Offsets and sizes must be multiples of four.
    pub(super) fn read(&self, ranges: &[(&wgpu::Buffer, u64, u64)]) -> Result<Vec<Vec<u8>>, GpuError> {
        let mut out: Vec<Vec<u8>> = ranges.iter().map(|(_, _, size)| Vec::with_capacity(*size as usize)).collect();
        let total: u64 = ranges.iter().map(|(_, _, size)| size).sum();
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer_for("the staging buffer", total.min(READ_BYTES), usage)?;
        let mut copies = Vec::new();
        let mut filled = 0;
        for (range, &(buffer, offset, size)) in ranges.iter().enumerate() {
            let mut done = 0;
            while done < size {
                let part = (size - done).min(READ_BYTES - filled);
                copies.push(Piece { range, buffer, offset: offset + done, to: filled, size: part });
                (done, filled) = (done + part, filled + part);
                if filled == READ_BYTES {
                    self.read_staged(&staging, &copies, &mut out)?;
                    copies.clear();
                    filled = 0;
                }
            }
        }
        self.read_staged(&staging, &copies, &mut out)?;
        Ok(out)
    }

    fn read_staged(&self, staging: &wgpu::Buffer, copies: &[Piece<'_>], out: &mut [Vec<u8>]) -> Result<(), GpuError> {
        if copies.is_empty() {
            return Ok(());
        }
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for copy in copies {
            encoder.copy_buffer_to_buffer(copy.buffer, copy.offset, staging, copy.to, copy.size);
        }
        self.queue.submit([encoder.finish()]);
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = sender.send(result);
        });
        self.wait()?;
        // The wait has run the callback, or another thread that polls this device is about to run it. The timeout
        // covers devices that never do.
        let Ok(Ok(())) = receiver.recv_timeout(CALLBACK) else {
            return Err(self.explained(self.refused("to map a buffer for reading".into())));
        };
        {
            let view = staging.get_mapped_range(..).map_err(|e| self.refused(format!("to read a buffer: {e}")))?;
            for copy in copies {
                out[copy.range].extend_from_slice(&view[copy.to as usize..(copy.to + copy.size) as usize]);
            }
        }
        staging.unmap();
        Ok(())
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // If saving fails, the next start compiles again.
        let _ = self.save_pipelines();
    }
}

/// A part of a range in the staging buffer.
struct Piece<'a> {
    range: usize,
    buffer: &'a wgpu::Buffer,
    offset: u64,
    to: u64,
    size: u64,
}

fn typed(adapter: &str, what: &str, error: &wgpu::Error) -> GpuError {
    let adapter = adapter.to_owned();
    match error {
        wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { adapter, what: what.to_owned() },
        _ => GpuError::Refused { adapter, what: format!("{what}: {error}") },
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
