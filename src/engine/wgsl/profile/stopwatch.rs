//! Measures how long commands take on the device.

use std::time::Instant;

use super::Clock;
use super::median;
use crate::engine::wgsl::device::Gpu;
use crate::engine::wgsl::error::GpuError;
use crate::engine::wgsl::recorded::Command;

/// Maximum number of passes in one submission. Each uses two queries of the query set.
const PASSES: usize = 32;
/// Bytes of a timestamp.
const STAMP: u64 = 8;
/// Number of empty submissions that are timed.
const EMPTY: usize = 101;

/// Measures commands, with device timestamps if the device was opened with them.
#[derive(Debug)]
pub(in crate::engine::wgsl) struct Stopwatch {
    stamps: Option<Stamps>,
    /// Seconds from submitting no commands until the host knows that the submission is done.
    pub(in crate::engine::wgsl) submission: f64,
    /// Maximum cost of the commands in one submission, unless a single part costs more.
    quota: u64,
}

#[derive(Debug)]
struct Stamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds per tick.
    tick: f64,
}

impl Stopwatch {
    pub(in crate::engine::wgsl) fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let stamps = gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Stamps::new(gpu));
        let mut empty = Vec::with_capacity(EMPTY);
        for _ in 0..EMPTY {
            empty.push(submitted(gpu, &[])?);
        }
        // A few times the maximum cost of a dispatch: well below a driver's watchdog timeout.
        Ok(Self { stamps: stamps.transpose()?, submission: median(&mut empty), quota: 8 * gpu.budget().dispatch_flops })
    }

    pub(in crate::engine::wgsl) const fn clock(&self) -> Clock {
        if self.stamps.is_some() { Clock::Timestamps } else { Clock::Submissions }
    }

    /// Seconds of each part. The parts run in order and do not overlap.
    pub(in crate::engine::wgsl) fn time(&self, gpu: &Gpu, parts: &[&[Command]]) -> Result<Vec<f64>, GpuError> {
        let mut seconds = Vec::with_capacity(parts.len());
        let Some(stamps) = &self.stamps else {
            for part in parts {
                seconds.push((submitted(gpu, part)? - self.submission).max(0.0));
            }
            return Ok(seconds);
        };
        let mut rest = parts;
        while !rest.is_empty() {
            let mut cost = 0;
            let fits = |part: &&&[Command]| {
                cost += part.iter().map(|command| command.cost).sum::<u64>();
                cost <= self.quota
            };
            let taken = rest.iter().take(PASSES).take_while(fits).count().max(1);
            let (now, later) = rest.split_at(taken);
            seconds.extend(stamps.time(gpu, now)?);
            rest = later;
        }
        Ok(seconds)
    }
}

impl Stamps {
    fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let size = 2 * STAMP * PASSES as u64;
        let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
        let resolved = gpu.buffer_for("time stamps", size, usage)?;
        let queries = gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
            label: Some("time stamps"),
            ty: wgpu::QueryType::Timestamp,
            count: 2 * PASSES as u32,
        });
        gpu.check()?;
        Ok(Self { queries, resolved, tick: f64::from(gpu.queue.get_timestamp_period()) * 1e-9 })
    }

    /// One pass per part, with a timestamp at its beginning and its end.
    fn time(&self, gpu: &Gpu, parts: &[&[Command]]) -> Result<Vec<f64>, GpuError> {
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (i, part) in (0u32..).zip(parts) {
            let timestamp_writes = Some(wgpu::ComputePassTimestampWrites {
                query_set: &self.queries,
                beginning_of_pass_write_index: Some(2 * i),
                end_of_pass_write_index: Some(2 * i + 1),
            });
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes });
            for command in *part {
                command.record(&mut pass);
            }
        }
        encoder.resolve_query_set(&self.queries, 0..2 * parts.len() as u32, &self.resolved, 0);
        gpu.queue.submit([encoder.finish()]);
        let bytes = gpu.read(&[(&self.resolved, 0, 2 * STAMP * parts.len() as u64)])?.remove(0);
        let stamps: Vec<u64> = bytemuck::pod_collect_to_vec(&bytes);
        Ok(stamps.chunks(2).map(|pair| pair[1].saturating_sub(pair[0]) as f64 * self.tick).collect())
    }
}

/// Seconds from submitting commands until the host knows that they are done.
fn submitted(gpu: &Gpu, commands: &[Command]) -> Result<f64, GpuError> {
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for command in commands {
            command.record(&mut pass);
        }
    }
    let buffer = encoder.finish();
    let clock = Instant::now();
    gpu.queue.submit([buffer]);
    gpu.wait()?;
    Ok(clock.elapsed().as_secs_f64())
}

/// Seconds that the host takes to record `commands` into a command buffer, without submitting it.
pub(super) fn recording(gpu: &Gpu, commands: &[Command]) -> f64 {
    let clock = Instant::now();
    let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        for command in commands {
            command.record(&mut pass);
        }
    }
    drop(encoder.finish());
    clock.elapsed().as_secs_f64()
}
