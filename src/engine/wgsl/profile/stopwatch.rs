//! How long commands take on the device.

use std::time::Instant;

use super::Clock;
use super::median;
use crate::engine::wgsl::device::Gpu;
use crate::engine::wgsl::error::GpuError;
use crate::engine::wgsl::recorded::Command;

/// Most passes that are submitted at once; each takes two of the numbers that a set of queries holds.
const PASSES: usize = 32;
/// Bytes of a time stamp.
const STAMP: u64 = 8;
/// Empty submissions that are timed.
const EMPTY: usize = 101;

/// Measures commands, by the device's own clock where it was opened with one.
#[derive(Debug)]
pub(in crate::engine::wgsl) struct Stopwatch {
    stamps: Option<Stamps>,
    /// What a submission without any command takes until the host knows that it is done.
    pub(in crate::engine::wgsl) submission: f64,
    /// Cost of the commands that are submitted at once, unless one alone costs more.
    quota: u64,
}

#[derive(Debug)]
struct Stamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Seconds of a tick.
    tick: f64,
}

impl Stopwatch {
    pub(in crate::engine::wgsl) fn new(gpu: &Gpu) -> Result<Self, GpuError> {
        let stamps = gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY).then(|| Stamps::new(gpu));
        let mut empty = Vec::with_capacity(EMPTY);
        for _ in 0..EMPTY {
            empty.push(submitted(gpu, &[])?);
        }
        // A few times what a single dispatch may cost: well below the time at which a driver gives up on a submission.
        Ok(Self { stamps: stamps.transpose()?, submission: median(&mut empty), quota: 8 * gpu.budget().dispatch_flops })
    }

    pub(in crate::engine::wgsl) const fn clock(&self) -> Clock {
        if self.stamps.is_some() { Clock::Timestamps } else { Clock::Submissions }
    }

    /// Seconds of each part. The parts run in order, none beside another.
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

    /// A pass for each part, stamped when it begins and when it ends.
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

/// Seconds from handing commands over until the host knows that they are done.
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

/// Seconds that the host takes to record `commands` into a submission, without handing it over.
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
