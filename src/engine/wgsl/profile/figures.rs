//! Peak rates of the device, measured with dedicated kernels (`kernels/bench.rs`).

use std::time::{Duration, Instant};

use serde::Serialize;

use super::stopwatch::{Stopwatch, recording};
use super::{Clock, median};
use crate::engine::wgsl::device::{Gpu, GpuOptions};
use crate::engine::wgsl::error::GpuError;
use crate::engine::wgsl::kernels::bench;
use crate::engine::wgsl::program::{DispatchKind, Program};
use crate::engine::wgsl::recorded::{Command, Recorded, SlotPool};
use crate::engine::wgsl::{WgslOptions, adapters};

/// Duration of one dispatch of [`bench::fma`] beyond which a longer one would not be more accurate.
const LONG_ENOUGH: Duration = Duration::from_millis(10);
/// Workgroups of the first and of the largest such dispatch.
const GROUPS: [u32; 2] = [64, 16_384];
/// Rounds of the first such dispatch.
const ROUNDS: u32 = 64;
/// Bytes of each of the two buffers of the copy: the largest binding that every device has. Together they exceed the
/// caches of most devices.
const COPIED: u64 = 128 << 20;
/// The two buffers take at most this fraction of the device's memory: one fourth.
const MEMORY_SHARE: u64 = 4;
/// Dispatches in one submission when the cost of a dispatch is measured.
const DISPATCHES: usize = 256;
/// Minimum and maximum number of repetitions. A peak is their best result, a cost their median.
const REPEATS: [usize; 2] = [3, 9];
/// Time after which only the minimum number of repetitions is completed.
const ENOUGH: Duration = Duration::from_millis(200);

/// Peak rates and fixed costs of a device.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceFigures {
    /// How the figures were measured.
    pub clock: Clock,
    /// Operations per second of multiply-adds in registers, each counted as two.
    pub fma_flops_per_second: f64,
    /// Bytes per second, read and written, of a copy between two large buffers.
    pub copy_bytes_per_second: f64,
    /// Bytes of each of these buffers.
    pub copy_buffer_bytes: u64,
    /// Device time of a nearly empty dispatch that depends on the one before it.
    pub seconds_per_dispatch: f64,
    /// Host time for recording a dispatch and closing its command buffer.
    pub seconds_per_recorded_dispatch: f64,
    /// Time from submitting no commands until the host knows that the submission is done.
    pub seconds_per_submission: f64,
}

impl DeviceFigures {
    /// Measures the adapter that an engine with these options would run on.
    ///
    /// # Errors
    /// If no adapter matches, or if the device fails.
    pub fn measure(options: &WgslOptions) -> Result<Self, GpuError> {
        let found = adapters::choose(options.adapter.as_deref())?;
        Self::of(&Gpu::open_with(&found.adapter, &GpuOptions::of(options, true))?)
    }

    pub(in crate::engine::wgsl) fn of(gpu: &Gpu) -> Result<Self, GpuError> {
        let watch = Stopwatch::new(gpu)?;
        let room = gpu.memory.map_or(COPIED, |memory| (memory / MEMORY_SHARE / 2).min(COPIED));
        let copied = room.min(gpu.limits.max_storage_buffer_binding_size).next_multiple_of(1 << 20);
        let (dispatch, record) = dispatch_costs(gpu, &watch)?;
        Ok(Self {
            clock: watch.clock(),
            fma_flops_per_second: fma_peak(gpu, &watch)?,
            copy_bytes_per_second: copy_bandwidth(gpu, &watch, copied)?,
            copy_buffer_bytes: copied,
            seconds_per_dispatch: dispatch,
            seconds_per_recorded_dispatch: record,
            seconds_per_submission: watch.submission,
        })
    }
}

/// Records a program that uses no named buffer.
fn record(gpu: &Gpu, program: Program) -> Result<Vec<Command>, GpuError> {
    let named = |home, _| Err(gpu.refused(format!("a measurement without the buffer {home:?}")));
    Ok(Recorded::new(gpu, program, &mut SlotPool::default(), 0, named)?.commands)
}

/// The shortest time of `commands` as one part.
fn best(gpu: &Gpu, watch: &Stopwatch, commands: &[Command]) -> Result<f64, GpuError> {
    let (clock, mut best, mut repeats) = (Instant::now(), f64::INFINITY, 0);
    while repeats < REPEATS[0] || repeats < REPEATS[1] && clock.elapsed() < ENOUGH {
        best = best.min(watch.time(gpu, &[commands])?[0]);
        repeats += 1;
    }
    Ok(best)
}

/// Operations per second of the best number of chains.
fn fma_peak(gpu: &Gpu, watch: &Stopwatch) -> Result<f64, GpuError> {
    let mut peak: f64 = 0.0;
    for chains in bench::CHAINS {
        let (mut groups, mut rounds) = (GROUPS[0], ROUNDS);
        loop {
            let mut program = Program::default();
            let result = program.transient(bench::fma_bytes(groups), "sums");
            let dispatch = bench::fma(chains, groups, rounds, result);
            let flops = dispatch.work.flops as f64;
            program.push(None, DispatchKind::Other, dispatch);
            let commands = record(gpu, program)?;
            // The driver may finish compiling a pipeline at its first run.
            watch.time(gpu, &[&commands])?;
            let seconds = watch.time(gpu, &[&commands])?[0];
            let largest = groups == GROUPS[1] && rounds == bench::MOST_ROUNDS;
            if seconds >= LONG_ENOUGH.as_secs_f64() || largest {
                peak = peak.max(flops / best(gpu, watch, &commands)?.max(f64::MIN_POSITIVE));
                break;
            }
            // First enough workgroups for all processors, then longer loops.
            if groups < GROUPS[1] {
                groups = (4 * groups).min(GROUPS[1]);
            } else {
                rounds = (4 * rounds).min(bench::MOST_ROUNDS);
            }
        }
    }
    Ok(peak)
}

/// Bytes per second, read and written, of a copy and the copy back.
fn copy_bandwidth(gpu: &Gpu, watch: &Stopwatch, bytes: u64) -> Result<f64, GpuError> {
    let mut program = Program::default();
    let (from, to) = (program.transient(bytes, "copied"), program.transient(bytes, "copy"));
    let quads = bytes / 16;
    let copy = bench::copy(quads, from, to);
    let moved = copy.work.bytes as f64;
    program.push(None, DispatchKind::Other, bench::fill(quads, from));
    for dispatch in [copy, bench::copy(quads, to, from)] {
        program.push(None, DispatchKind::Other, dispatch);
    }
    let commands = record(gpu, program)?;
    watch.time(gpu, &[&commands])?;
    Ok(2.0 * moved / best(gpu, watch, &commands[1..])?.max(f64::MIN_POSITIVE))
}

/// Device time and host time of a dispatch, in seconds.
fn dispatch_costs(gpu: &Gpu, watch: &Stopwatch) -> Result<(f64, f64), GpuError> {
    let mut program = Program::default();
    let result = program.transient(16, "a number");
    for number in 0..DISPATCHES as u32 {
        program.push(None, DispatchKind::Other, bench::nothing(number, result));
    }
    let commands = record(gpu, program)?;
    watch.time(gpu, &[&commands])?;
    let (mut device, mut host) = (Vec::new(), Vec::new());
    let clock = Instant::now();
    while device.len() < REPEATS[1] || clock.elapsed() < LONG_ENOUGH {
        device.push(watch.time(gpu, &[&commands])?[0] / DISPATCHES as f64);
        host.push(recording(gpu, &commands) / DISPATCHES as f64);
    }
    Ok((median(&mut device), median(&mut host)))
}
