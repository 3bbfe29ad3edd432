//! Profile of a training step: every dispatch measured alone, compared with the peak rates of the device.
//!
//! A device that is opened for a profile enables timestamp queries if the adapter supports them (`TIMESTAMP_QUERY`):
//! each dispatch is then a pass between two timestamps. Otherwise each dispatch is a submission that the host waits
//! for, minus the time of an empty one. In both cases no two dispatches overlap, so the sum is an upper bound of the
//! device's time for a step.

mod figures;
mod stopwatch;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;

pub use self::figures::DeviceFigures;
pub(super) use self::stopwatch::Stopwatch;
use super::program::{DispatchKind, ProgramStep};
use crate::model::Network;

/// How dispatches are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clock {
    /// Device timestamps before and after each dispatch.
    Timestamps,
    /// The host's clock around a submission of the dispatch alone, minus the time of an empty submission.
    Submissions,
}

impl Clock {
    /// Its name, as in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Timestamps => "timestamps",
            Self::Submissions => "submissions",
        }
    }
}

/// The dispatches of one kernel for one layer in one program. All numbers except `runs` and `share` are for one run of
/// the program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelRow {
    /// Name of the program, such as `attack step`.
    pub program: String,
    /// Runs of the program per training step.
    pub runs: u64,
    /// PyTorch's module path. `None` for losses, search and update.
    pub layer: Option<String>,
    /// `forward`, `backward` (to the input of a layer), `weights` (to its parameters) or `other`.
    pub phase: &'static str,
    /// File and constants of the shader.
    pub kernel: String,
    /// File of the shader.
    pub file: String,
    /// Number of dispatches.
    pub dispatches: u64,
    /// Seconds: the sum of the medians of the dispatches.
    pub seconds: f64,
    /// Floating-point operations, a multiply-add counted as two. Winograd's algorithm has fewer than the definition of
    /// a convolution.
    pub flops: u64,
    /// Bytes read and written if every value moved once.
    pub bytes: u64,
    /// Operations per second; 0 if the time was too short to measure.
    pub flops_per_second: f64,
    /// Bytes per second; 0 if the time was too short to measure.
    pub bytes_per_second: f64,
    /// Share of the time of all dispatches of a training step.
    pub share: f64,
    /// `flops_per_second` over [`DeviceFigures::fma_flops_per_second`].
    pub of_fma_peak: f64,
    /// `bytes_per_second` over [`DeviceFigures::copy_bytes_per_second`].
    pub of_copy_bandwidth: f64,
}

/// A sum of rows, for a whole training step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// The property that the rows have in common.
    pub name: String,
    /// Number of dispatches.
    pub dispatches: u64,
    /// Seconds.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Share of the time of all dispatches.
    pub share: f64,
}

/// Every dispatch of a training step: preparation, search, update.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// How dispatches were timed.
    pub clock: Clock,
    /// Measurements of each dispatch.
    pub repeats: usize,
    /// Seconds of all dispatches of a training step.
    pub seconds: f64,
    /// Dispatches of a training step.
    pub dispatches: u64,
    /// Their floating-point operations.
    pub flops: u64,
    /// Sums by phase.
    pub phases: Vec<Share>,
    /// Sums by shader file.
    pub files: Vec<Share>,
    /// Sums by program.
    pub programs: Vec<Share>,
    /// The rows, longest first.
    pub rows: Vec<KernelRow>,
}

/// A measured dispatch.
#[derive(Debug)]
pub(super) struct Timed<'a> {
    pub(super) program: &'a str,
    /// Runs per training step.
    pub(super) runs: u64,
    pub(super) step: &'a ProgramStep,
    pub(super) seconds: f64,
}

impl Profile {
    pub(super) fn new(
        network: &Network,
        clock: Clock,
        repeats: usize,
        figures: &DeviceFigures,
        timed: &[Timed<'_>],
    ) -> Self {
        let mut rows: Vec<KernelRow> = Vec::new();
        let mut known = BTreeMap::new();
        for Timed { program, runs, step, seconds } in timed {
            let (kernel, work) = (&step.dispatch.kernel, step.dispatch.work);
            let key = (*program, *runs, step.layer, step.kind, kernel);
            let at = *known.entry(key).or_insert_with(|| {
                rows.push(KernelRow {
                    program: (*program).to_owned(),
                    runs: *runs,
                    layer: step.layer.and_then(|layer| network.layers.get(layer)).map(|layer| layer.name.clone()),
                    phase: kind_name(step.kind),
                    kernel: kernel.label(),
                    file: kernel.file.to_owned(),
                    dispatches: 0,
                    seconds: 0.0,
                    flops: 0,
                    bytes: 0,
                    flops_per_second: 0.0,
                    bytes_per_second: 0.0,
                    share: 0.0,
                    of_fma_peak: 0.0,
                    of_copy_bandwidth: 0.0,
                });
                rows.len() - 1
            });
            let row = &mut rows[at];
            row.dispatches += 1;
            row.seconds += seconds;
            row.flops += work.flops;
            row.bytes += work.bytes;
        }
        let total: f64 = rows.iter().map(step_seconds).sum();
        for row in &mut rows {
            row.flops_per_second = ratio(row.flops as f64, row.seconds);
            row.bytes_per_second = ratio(row.bytes as f64, row.seconds);
            row.share = ratio(step_seconds(row), total);
            row.of_fma_peak = ratio(row.flops_per_second, figures.fma_flops_per_second);
            row.of_copy_bandwidth = ratio(row.bytes_per_second, figures.copy_bytes_per_second);
        }
        rows.sort_by(|a, b| step_seconds(b).total_cmp(&step_seconds(a)));
        Self {
            clock,
            repeats,
            seconds: total,
            dispatches: rows.iter().map(|row| row.runs * row.dispatches).sum(),
            flops: rows.iter().map(|row| row.runs * row.flops).sum(),
            phases: shares(&rows, total, |row| row.phase),
            files: shares(&rows, total, |row| &row.file),
            programs: shares(&rows, total, |row| &row.program),
            rows,
        }
    }
}

/// Seconds of a row in a training step.
fn step_seconds(row: &KernelRow) -> f64 {
    row.runs as f64 * row.seconds
}

/// Sums of rows with the same name, longest first.
fn shares(rows: &[KernelRow], total: f64, name: impl Fn(&KernelRow) -> &str) -> Vec<Share> {
    let mut sums: BTreeMap<&str, Share> = BTreeMap::new();
    for row in rows {
        let name = name(row);
        let empty = || Share { name: name.to_owned(), dispatches: 0, seconds: 0.0, flops: 0, share: 0.0 };
        let sum = sums.entry(name).or_insert_with(empty);
        sum.dispatches += row.runs * row.dispatches;
        sum.seconds += step_seconds(row);
        sum.flops += row.runs * row.flops;
        sum.share = ratio(sum.seconds, total);
    }
    let mut sums: Vec<Share> = sums.into_values().collect();
    sums.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    sums
}

const fn kind_name(kind: DispatchKind) -> &'static str {
    match kind {
        DispatchKind::Forward => "forward",
        DispatchKind::Backward => "backward",
        DispatchKind::Weights => "weights",
        DispatchKind::Other => "other",
    }
}

/// `a / b`; 0 if `b` is not positive.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// The upper median of `values`, which are sorted in place; 0 if there are none.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
