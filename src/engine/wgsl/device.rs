//! Adapters, the device of an engine, its pipelines, and what can go wrong with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::kernel::Kernel;
use super::shader;

/// What can go wrong with a GPU.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GpuError {
    /// No adapter, or none that fits what was asked for.
    #[error("{0}")]
    NoAdapter(String),
    /// The adapter refused to open a device.
    #[error("{adapter} does not open: {what}")]
    Open {
        /// Its name.
        adapter: String,
        /// What the driver says.
        what: String,
    },
    /// A buffer did not fit into the device's memory.
    #[error("{adapter} has no memory left ({what}); a smaller batch needs less")]
    OutOfMemory {
        /// Its name.
        adapter: String,
        /// What was to be allocated.
        what: String,
    },
    /// The device is gone: the driver was reset, the machine slept, the GPU was removed.
    #[error(
        "{adapter} was lost ({what}); the last checkpoint is intact: `fairtat resume` goes on from it, with `--engine candle` on the CPU"
    )]
    Lost {
        /// Its name.
        adapter: String,
        /// What the driver says.
        what: String,
    },
    /// A shader or a command was refused: a bug in fairtat or in the driver.
    #[error("{adapter} refused {what}; this is a bug in fairtat or in the driver, please report it")]
    Refused {
        /// Its name.
        adapter: String,
        /// What, and what the driver says.
        what: String,
    },
    /// The plan does not fit into what the adapter offers.
    #[error("{0}")]
    Limits(String),
}

/// Whether shaders check their indices while they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Checks {
    /// Without checks: our kernels guard their edges themselves, and the tests run both ways.
    #[default]
    Off,
    /// With the checks that WebGPU asks for.
    On,
}

/// An open device with its pipelines.
#[derive(Debug)]
pub(super) struct Gpu {
    pub(super) info: wgpu::AdapterInfo,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    checks: Checks,
    pipelines: Mutex<HashMap<Kernel, Arc<wgpu::ComputePipeline>>>,
    failure: Arc<Mutex<Option<GpuError>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens a device of its own on `adapter`.
    pub(super) fn open(adapter: &wgpu::Adapter, checks: Checks) -> Result<Self, GpuError> {
        let info = adapter.get_info();
        let limits = wgpu::Limits::default();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("fairtat"),
            required_features: wgpu::Features::empty(),
            required_limits: limits.clone(),
            memory_hints: wgpu::MemoryHints::Performance,
            ..Default::default()
        };
        let opened = pollster::block_on(adapter.request_device(&descriptor));
        let (device, queue) = opened.map_err(|e| GpuError::Open { adapter: info.name.clone(), what: e.to_string() })?;
        let failure = Arc::new(Mutex::new(None));
        let (seen, adapter_name) = (Arc::clone(&failure), info.name.clone());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let (adapter, what) = (adapter_name.clone(), error.to_string());
            let error = match error {
                wgpu::Error::OutOfMemory { .. } => GpuError::OutOfMemory { adapter, what },
                _ => GpuError::Refused { adapter, what },
            };
            lock(&seen).get_or_insert(error);
        }));
        let (seen, adapter) = (Arc::clone(&failure), info.name.clone());
        device.set_device_lost_callback(move |reason, message| {
            let what = if message.is_empty() { format!("{reason:?}") } else { message };
            // A lost device is what explains every error after it, and most before.
            *lock(&seen) = Some(GpuError::Lost { adapter: adapter.clone(), what });
        });
        Ok(Self { info, device, queue, limits, checks, pipelines: Mutex::default(), failure })
    }

    /// The first error that the device reported, if there was one.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// The pipeline of a kernel; compiled at its first use.
    pub(super) fn pipeline(&self, kernel: &Kernel) -> Result<Arc<wgpu::ComputePipeline>, GpuError> {
        if let Some(pipeline) = lock(&self.pipelines).get(kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let label = kernel.label();
        let refused = |what: String| GpuError::Refused {
            adapter: self.info.name.clone(),
            what: format!("the shader '{label}': {what}"),
        };
        let source = shader::expand(kernel.file, &kernel.constants).map_err(refused)?;
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let descriptor =
            wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(source.into()) };
        let checks = match self.checks {
            Checks::On => wgpu::ShaderRuntimeChecks::checked(),
            Checks::Off => wgpu::ShaderRuntimeChecks::unchecked(),
        };
        #[allow(unsafe_code)]
        // SAFETY: only shaders of this crate come here. They end their loops, divide by numbers above zero and guard
        // every index; the kernel tests run them with and without checks.
        let module = unsafe { self.device.create_shader_module_trusted(descriptor, checks) };
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: None,
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every kernel writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(refused(error.to_string()));
        }
        let pipeline = Arc::new(pipeline);
        lock(&self.pipelines).insert(kernel.clone(), Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// A storage buffer that can be copied from and to.
    pub(super) fn buffer(&self, label: &str, size: u64) -> Result<wgpu::Buffer, GpuError> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let size = size.max(16).next_multiple_of(4);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size,
            usage,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            None => Ok(buffer),
            Some(error) => Err(GpuError::OutOfMemory {
                adapter: self.info.name.clone(),
                what: format!("{label}, {size} bytes: {error}"),
            }),
        }
    }

    /// Waits until everything that was submitted is done.
    pub(super) fn wait(&self) -> Result<(), GpuError> {
        let done = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        done.map(|_| ()).map_err(|e| self.refused(format!("to wait: {e}")))
    }

    pub(super) fn refused(&self, what: String) -> GpuError {
        GpuError::Refused { adapter: self.info.name.clone(), what }
    }

    /// Reads ranges of buffers back, each as bytes. Waits for the device.
    pub(super) fn read(&self, ranges: &[(&wgpu::Buffer, u64, u64)]) -> Result<Vec<Vec<u8>>, GpuError> {
        let total: u64 = ranges.iter().map(|(_, _, size)| size.next_multiple_of(8)).sum();
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("staging"),
            size: total.max(8),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut at = 0;
        for (buffer, offset, size) in ranges {
            encoder.copy_buffer_to_buffer(buffer, *offset, &staging, at, *size);
            at += size.next_multiple_of(8);
        }
        self.queue.submit([encoder.finish()]);
        let (sender, receiver) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = sender.send(result);
        });
        self.wait()?;
        match receiver.recv() {
            Ok(Ok(())) => {}
            _ => {
                self.check()?;
                return Err(self.refused("to map a buffer for reading".into()));
            }
        }
        let view = staging.get_mapped_range(..).map_err(|e| self.refused(format!("to read a buffer: {e}")))?;
        let mut at = 0;
        let mut out = Vec::with_capacity(ranges.len());
        for (_, _, size) in ranges {
            out.push(view[at as usize..(at + size) as usize].to_vec());
            at += size.next_multiple_of(8);
        }
        Ok(out)
    }
}
