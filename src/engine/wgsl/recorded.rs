//! A program recorded for a device: its pipelines, bind groups and uniforms are created once, and replaying only sets
//! them.

use std::sync::Arc;

use super::device::Gpu;
use super::error::{GpuError, readable};
use super::kernel::{Dispatch, Slice};
use super::memory::{self, Life};
use super::parameters::ALIGNMENT;
use super::program::{Fixed, Program, ProgramStep};

/// One recorded dispatch.
#[derive(Debug)]
pub(super) struct Command {
    pipeline: Arc<wgpu::ComputePipeline>,
    group: wgpu::BindGroup,
    /// Parameters passed as immediates. `None` if they lie in a uniform buffer.
    immediates: Option<Box<[u8]>>,
    grid: [u32; 3],
    pub(super) cost: u64,
}

impl Command {
    pub(super) fn record(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline);
        if let Some(immediates) = &self.immediates {
            pass.set_immediates(0, immediates);
        }
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.grid[0], self.grid[1], self.grid[2]);
    }
}

/// Buffers that all programs of an engine share for their transient data.
#[derive(Debug, Default)]
pub(super) struct SlotPool {
    slots: Vec<wgpu::Buffer>,
}

impl SlotPool {
    /// Removes all slots. Recorded programs keep those that they use.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
    }

    pub(super) fn slots(&self) -> &[wgpu::Buffer] {
        &self.slots
    }

    /// Bytes of all slots.
    pub(super) fn bytes(&self) -> u64 {
        self.slots.iter().map(wgpu::Buffer::size).sum()
    }
}

/// A program with all objects needed to replay it.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) commands: Vec<Command>,
    /// Numbers of commands before each of the two points where the host may read results; all commands if the program
    /// has no such points.
    pub(super) pauses: [usize; 2],
    /// Training step: the logits of each view, valid at the first pause.
    pub(super) logits: Vec<Vec<Slice>>,
    /// Outputs of layers: layer, number of commands up to and including it, slices.
    pub(super) outputs: Vec<(usize, usize, Vec<Slice>)>,
    pub(super) image_gradient: Vec<Slice>,
    /// The step that each command was recorded from.
    pub(super) steps: Vec<ProgramStep>,
    buffers: Vec<wgpu::Buffer>,
}

/// The indices of a program's transient buffers and their lifetimes. A buffer that no dispatch uses is left out.
pub(super) fn transient_lives(program: &Program) -> (Vec<usize>, Vec<Life>) {
    let lives = program.lives();
    let end = program.steps.len();
    let mut ids = Vec::new();
    let mut found = Vec::new();
    for (i, (spec, life)) in program.buffers.iter().zip(&lives).enumerate() {
        let (None, Some((first, last))) = (spec.home, life) else { continue };
        // The host reads the image gradient after the program, so it lives until the end.
        let kept = program.image_gradient.iter().any(|slice| slice.buffer.0 == i);
        ids.push(i);
        found.push(Life { size: spec.size, first: *first, last: if kept { end } else { *last } });
    }
    (ids, found)
}

impl Recorded {
    /// Records a program. `fixed` returns the named buffers; `used` is the number of bytes that the engine has
    /// allocated.
    pub(super) fn new(
        gpu: &Gpu,
        program: Program,
        pool: &mut SlotPool,
        used: u64,
        mut fixed: impl FnMut(Fixed, u64) -> Result<wgpu::Buffer, GpuError>,
    ) -> Result<Self, GpuError> {
        let (ids, lives) = transient_lives(&program);
        let mut sizes: Vec<u64> = pool.slots.iter().map(wgpu::Buffer::size).collect();
        let slots = memory::place(&lives, &mut sizes);
        let wanted: u64 = sizes[pool.slots.len()..].iter().sum();
        if let Some(memory) = gpu.memory.filter(|memory| used + wanted > *memory) {
            return Err(GpuError::Limits(format!(
                "{} has {} of memory, this batch needs {}; a smaller batch needs less (`fairtat plan` shows how much)",
                gpu.info.name,
                readable(memory),
                readable(used + wanted)
            )));
        }
        let new = sizes[pool.slots.len()..].iter().map(|size| gpu.buffer("activations", *size));
        // All or none: memory that a failed recording allocated is freed for a smaller batch.
        pool.slots.extend(new.collect::<Result<Vec<_>, _>>()?);
        let mut buffers: Vec<Option<wgpu::Buffer>> = vec![None; program.buffers.len()];
        for (id, slot) in ids.into_iter().zip(slots) {
            buffers[id] = Some(pool.slots[slot].clone());
        }
        for (buffer, spec) in buffers.iter_mut().zip(&program.buffers) {
            if let Some(home) = spec.home {
                *buffer = Some(fixed(home, spec.size)?);
            }
        }
        // A buffer that no dispatch uses still needs an entry.
        let nothing = gpu.buffer("nothing", 16)?;
        let buffers: Vec<wgpu::Buffer> = buffers.into_iter().map(|b| b.unwrap_or_else(|| nothing.clone())).collect();

        let commands = commands(gpu, program.steps.iter().map(|step| &step.dispatch), &buffers)?;
        Ok(Self {
            pauses: program.pauses.unwrap_or([commands.len(); 2]),
            logits: program.logits,
            commands,
            outputs: program.outputs,
            image_gradient: program.image_gradient,
            steps: program.steps,
            buffers,
        })
    }

    /// The buffer, offset and size of a slice, for reading it back.
    pub(super) fn range(&self, slice: Slice) -> (&wgpu::Buffer, u64, u64) {
        (&self.buffers[slice.buffer.0], slice.offset, slice.size)
    }
}

/// Records dispatches over `buffers`.
pub(super) fn commands<'a>(
    gpu: &Gpu,
    dispatches: impl Iterator<Item = &'a Dispatch> + Clone,
    buffers: &[wgpu::Buffer],
) -> Result<Vec<Command>, GpuError> {
    let uniforms = if gpu.immediates { None } else { Some(Uniforms::new(gpu, dispatches.clone())?) };
    let binding = |i| uniforms.as_ref().map(|uniforms| uniforms.binding(i));
    let commands = dispatches.enumerate().map(|(i, dispatch)| command(gpu, dispatch, buffers, binding(i)));
    let commands = commands.collect::<Result<Vec<_>, _>>()?;
    gpu.check()?;
    Ok(commands)
}

/// The parameters of all dispatches in one buffer.
struct Uniforms {
    buffer: wgpu::Buffer,
    ranges: Vec<(u64, u64)>,
}

impl Uniforms {
    fn new<'a>(gpu: &Gpu, dispatches: impl Iterator<Item = &'a Dispatch>) -> Result<Self, GpuError> {
        let mut bytes = Vec::new();
        let mut ranges = Vec::new();
        for dispatch in dispatches {
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
            // The size of a uniform struct is a multiple of 16 bytes.
            let size = dispatch.params.len().next_multiple_of(16);
            ranges.push((bytes.len() as u64, size as u64));
            bytes.extend_from_slice(&dispatch.params);
            bytes.resize(bytes.len().next_multiple_of(16), 0);
        }
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("uniforms"),
            size: (bytes.len() as u64).max(16),
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        gpu.queue.write_buffer(&buffer, 0, &bytes);
        gpu.check()?;
        Ok(Self { buffer, ranges })
    }

    fn binding(&self, step: usize) -> wgpu::BufferBinding<'_> {
        let (offset, size) = self.ranges[step];
        wgpu::BufferBinding { buffer: &self.buffer, offset, size: std::num::NonZeroU64::new(size) }
    }
}

fn command(
    gpu: &Gpu,
    dispatch: &Dispatch,
    buffers: &[wgpu::Buffer],
    uniform: Option<wgpu::BufferBinding<'_>>,
) -> Result<Command, GpuError> {
    let pipeline = gpu.pipeline(&dispatch.kernel)?;
    let immediates = uniform.is_none().then(|| dispatch.params.clone().into_boxed_slice());
    let uniform = uniform.map(wgpu::BindingResource::Buffer);
    let mut entries: Vec<_> =
        uniform.map(|resource| wgpu::BindGroupEntry { binding: 0, resource }).into_iter().collect();
    for (i, slice) in dispatch.bindings.iter().enumerate() {
        let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &buffers[slice.buffer.0],
            offset: slice.offset,
            size: std::num::NonZeroU64::new(slice.size),
        });
        entries.push(wgpu::BindGroupEntry { binding: 1 + i as u32, resource });
    }
    let label = dispatch.kernel.label();
    let group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: Some(&label),
        layout: &pipeline.get_bind_group_layout(0),
        entries: &entries,
    });
    Ok(Command { pipeline, group, immediates, grid: dispatch.grid, cost: dispatch.work.cost() })
}
