//! Sends dispatches to the device in submissions of bounded duration, with few of them in flight.
//!
//! A submission that takes seconds triggers a driver's watchdog and freezes a desktop that shares the GPU; thousands of
//! submissions in flight fill memory. The cost of a dispatch is estimated from its arithmetic and memory traffic; the
//! speed of the device is measured on earlier submissions.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::device::Gpu;
use super::error::GpuError;
use super::recorded::Command;
use super::wait::PATIENCE;

/// Maximum number of submissions in flight.
pub(super) const IN_FLIGHT: usize = 3;
/// A wait of at least this length blocked on the device; in a shorter one the submission was already done.
const BLOCKED: Duration = Duration::from_micros(50);
/// Number of initial measurements, made with small submissions.
const LEARNED: u64 = 3;
/// Planned duration of a submission as a share of the target: the estimate for one kernel can be off by a factor.
const SHARE: f64 = 0.4;
/// Cost units per second before the first measurement: those of a slow integrated GPU.
const FIRST_RATE: f64 = 5e10;

#[derive(Debug)]
struct Submitted {
    index: wgpu::SubmissionIndex,
    at: Instant,
    cost: u64,
}

/// What the pacer has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PaceStats {
    /// Submissions.
    pub submissions: u64,
    /// Dispatches.
    pub dispatches: u64,
    /// Largest number of submissions that were in flight at once.
    pub most_in_flight: usize,
    /// Longest duration of a submission in seconds, measured from the end of the one before it. The first few, on which
    /// the speed is measured, are not counted.
    pub longest: f64,
}

/// Groups commands into submissions; see the module.
#[derive(Debug)]
pub(super) struct Pacer {
    target: Duration,
    /// Cost units that the device completes per second.
    rate: f64,
    in_flight: VecDeque<Submitted>,
    last_done: Option<Instant>,
    measured: u64,
    open: Option<wgpu::CommandEncoder>,
    open_cost: u64,
    pub(super) stats: PaceStats,
}

impl Pacer {
    pub(super) fn new(target: Duration) -> Self {
        Self {
            target,
            rate: FIRST_RATE,
            in_flight: VecDeque::new(),
            last_done: None,
            measured: 0,
            open: None,
            open_cost: 0,
            stats: PaceStats::default(),
        }
    }

    /// Cost of a submission that takes [`SHARE`] of the target.
    fn quota(&self) -> u64 {
        // The first submissions are small, because the speed of the device is still unknown.
        let careful = if self.measured < LEARNED { 0.1 } else { 1.0 };
        (self.rate * self.target.as_secs_f64() * SHARE * careful) as u64
    }

    /// Appends commands; submits whenever they reach the quota.
    pub(super) fn run(&mut self, gpu: &Gpu, commands: &[Command]) -> Result<(), GpuError> {
        gpu.check()?;
        let mut rest = commands;
        while !rest.is_empty() {
            let quota = self.quota();
            let mut taken = 0;
            while taken < rest.len()
                && (taken == 0 && self.open_cost == 0 || self.open_cost + rest[taken].cost <= quota)
            {
                self.open_cost += rest[taken].cost;
                taken += 1;
            }
            let (now, later) = rest.split_at(taken);
            if !now.is_empty() {
                self.stats.dispatches += now.len() as u64;
                let mut pass = self.encoder(gpu).begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                for command in now {
                    command.record(&mut pass);
                }
            }
            rest = later;
            if !rest.is_empty() {
                self.flush(gpu)?;
            }
        }
        Ok(())
    }

    /// Appends a copy.
    pub(super) fn copy(&mut self, gpu: &Gpu, from: &wgpu::Buffer, to: &wgpu::Buffer, size: u64) {
        self.encoder(gpu).copy_buffer_to_buffer(from, 0, to, 0, size);
        self.open_cost += 20 * size;
    }

    fn encoder(&mut self, gpu: &Gpu) -> &mut wgpu::CommandEncoder {
        self.open.get_or_insert_with(|| gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()))
    }

    /// Submits the appended commands. Must be called before the host writes into a buffer that those commands read: a
    /// write takes effect before all commands that are submitted after it.
    ///
    /// After an error nothing is open and nothing is in flight: the commands are lost and the pacer is reset.
    pub(super) fn flush(&mut self, gpu: &Gpu) -> Result<(), GpuError> {
        let cost = std::mem::take(&mut self.open_cost);
        let Some(encoder) = self.open.take() else { return Ok(()) };
        self.submit(gpu, encoder, cost).inspect_err(|_| self.in_flight.clear())
    }

    fn submit(&mut self, gpu: &Gpu, encoder: wgpu::CommandEncoder, cost: u64) -> Result<(), GpuError> {
        // Frees the resources of finished submissions. An empty queue does not tell how long they took.
        if gpu.poll(wgpu::PollType::Poll)?.is_queue_empty() {
            self.in_flight.clear();
            self.last_done = None;
        }
        while self.in_flight.len() >= IN_FLIGHT {
            self.wait_for_oldest(gpu)?;
        }
        let index = gpu.queue.submit([encoder.finish()]);
        self.in_flight.push_back(Submitted { index, at: Instant::now(), cost });
        self.stats.submissions += 1;
        self.stats.most_in_flight = self.stats.most_in_flight.max(self.in_flight.len());
        gpu.check()
    }

    fn wait_for_oldest(&mut self, gpu: &Gpu) -> Result<(), GpuError> {
        let Some(oldest) = self.in_flight.pop_front() else { return Ok(()) };
        let before = Instant::now();
        gpu.poll(wgpu::PollType::Wait { submission_index: Some(oldest.index), timeout: Some(PATIENCE) })?;
        let now = Instant::now();
        // The device starts a submission when the previous one is done.
        let began = self.last_done.map_or(oldest.at, |done| done.max(oldest.at));
        self.last_done = Some(now);
        // A submission that was done before the wait may have finished much earlier, so only a wait that blocked
        // counts.
        if now - before < BLOCKED {
            return Ok(());
        }
        let seconds = (now - began).as_secs_f64().max(1e-6);
        self.measured += 1;
        if self.measured > LEARNED {
            self.stats.longest = self.stats.longest.max(seconds);
        }
        self.rate = adapted(self.rate, oldest.cost as f64 / seconds);
        Ok(())
    }

    /// Submits and waits until everything is done.
    pub(super) fn finish(&mut self, gpu: &Gpu) -> Result<(), GpuError> {
        self.flush(gpu)?;
        while !self.in_flight.is_empty() {
            self.wait_for_oldest(gpu).inspect_err(|_| self.in_flight.clear())?;
        }
        Ok(())
    }
}

/// The rate after a measurement: a decrease applies at once, an increase gradually.
fn adapted(rate: f64, measured: f64) -> f64 {
    if measured < rate { measured } else { rate + 0.3 * (measured - rate).min(rate) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rate converges to a constant device speed from any initial estimate, and the quota then takes [`SHARE`] of
    /// the target.
    #[test]
    fn the_rate_settles_at_the_speed_of_the_device() {
        for speed in [1e9, 5e10, 3e13] {
            let mut pacer = Pacer::new(Duration::from_millis(50));
            let mut longest: f64 = 0.0;
            for submission in 0..60 {
                let seconds = pacer.quota() as f64 / speed;
                if submission > 3 {
                    longest = longest.max(seconds);
                }
                pacer.measured += 1;
                pacer.rate = adapted(pacer.rate, speed);
            }
            let share = pacer.quota() as f64 / speed / 0.050;
            assert!((share - SHARE).abs() < 1e-6, "{speed}: {share}");
            assert!(longest <= 0.050, "{speed}: {longest}");
        }
    }
}
