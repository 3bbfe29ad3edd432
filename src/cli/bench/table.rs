//! The measurements of a bench as text.

use crate::engine::wgsl::{Clock, DeviceFigures, KernelRow, Profile, Share};
use crate::evaluate::bench::{EPOCH_IMAGES, Measurement};

/// The peak rates of the device.
pub(super) fn figures(figures: &DeviceFigures) -> String {
    let clock = match figures.clock {
        Clock::Timestamps => "the device's clock",
        Clock::Submissions => "the host's clock, each dispatch submitted alone",
    };
    format!(
        "device peak     {:.1} GFLOP/s of multiply-adds, {:.1} GB/s of a copy (two buffers of {} MiB)\n\
         overheads       {:.2} µs a dispatch on the device, {:.2} µs on the host, {:.1} µs a submission\n\
         timed by        {clock}\n\n",
        giga(figures.fma_flops_per_second),
        giga(figures.copy_bytes_per_second),
        figures.copy_buffer_bytes >> 20,
        1e6 * figures.seconds_per_dispatch,
        1e6 * figures.seconds_per_recorded_dispatch,
        1e6 * figures.seconds_per_submission,
    )
}

/// The line above those of [`row`].
pub(super) fn heading() -> String {
    format!(
        "{:<19} {:>5} {:<21} {:<12} {:>5} {:>10} {:>12} {:>12} {:>12} {:>12} {:>11} {:>10} {:>7}\n",
        "architecture",
        "width",
        "method",
        "engine",
        "batch",
        "images/s",
        "step",
        "perturb",
        "update",
        "statistics",
        "memory",
        "dispatches",
        "submits"
    )
}

/// One measurement.
pub(super) fn row(row: &Measurement) -> String {
    let (memory, dispatches, submissions) = row.device.map_or_else(Default::default, |device| {
        let memory = format!("{:.1} MiB", device.bytes as f64 / f64::from(1 << 20));
        (memory, format!("{:.0}", device.dispatches), format!("{:.1}", device.submissions))
    });
    let mut text = format!(
        "{:<19} {:>5} {:<21} {:<12} {:>5} {:>10.1} {:>12} {:>12} {:>12} {:>12} {:>11} {:>10} {:>7}",
        row.architecture,
        row.width,
        row.method,
        row.engine,
        row.batch,
        row.images_per_second,
        milliseconds(row.step_seconds),
        milliseconds(row.seconds.perturb),
        milliseconds(row.seconds.update),
        milliseconds(row.seconds.statistics),
        memory,
        dispatches,
        submissions
    );
    text.truncate(text.trim_end().len());
    text.push('\n');
    if let Some(seconds) = row.epoch.measured_seconds {
        text += &format!(
            "    an epoch of {EPOCH_IMAGES} images: {seconds:.1} s measured, {:.1} s extrapolated\n",
            row.epoch.extrapolated_seconds
        );
    }
    text
}

/// The longest rows of a profile, and the sums.
pub(super) fn profile(row: &Measurement, profile: &Profile, top: usize) -> String {
    let mut text = format!(
        "\n{}, width {}, batch {}: a step takes {}, its {} dispatches one by one {} (extrapolated from the step: {:.1} s \
         for an epoch of {EPOCH_IMAGES} images)\n\n",
        row.architecture,
        row.width,
        row.batch,
        milliseconds(row.step_seconds),
        profile.dispatches,
        milliseconds(profile.seconds),
        row.epoch.extrapolated_seconds,
    );
    let shown = &profile.rows[..top.min(profile.rows.len())];
    if !shown.is_empty() {
        text += &rows(shown);
        if shown.len() < profile.rows.len() {
            text += &format!("… and {} rows more\n", profile.rows.len() - shown.len());
        }
        text.push('\n');
    }
    text += &shares("phase", &profile.phases);
    text += &shares("program", &profile.programs);
    text += &shares("kernel", &profile.files);
    text
}

fn rows(rows: &[KernelRow]) -> String {
    let layer = |row: &KernelRow| row.layer.clone().unwrap_or_else(|| "-".into());
    let width = |longest: Option<usize>, least: usize| longest.unwrap_or(0).max(least);
    let (name, kernel) = (
        width(rows.iter().map(|row| layer(row).len()).max(), 5),
        width(rows.iter().map(|row| row.kernel.len()).max(), 6),
    );
    let mut text = format!(
        "{:<name$}  {:<8} {:<kernel$}  {:<11} {:>4} {:>11} {:>6}  {:>9} {:>5}  {:>8} {:>5}\n",
        "layer", "phase", "kernel", "program", "runs", "each run", "share", "GFLOP/s", "peak", "GB/s", "copy"
    );
    for row in rows {
        text += &format!(
            "{:<name$}  {:<8} {:<kernel$}  {:<11} {:>4} {:>11} {:>6}  {:>9.1} {:>5}  {:>8.1} {:>5}\n",
            layer(row),
            row.phase,
            row.kernel,
            row.program,
            row.runs,
            milliseconds(row.seconds),
            percent(row.share),
            giga(row.flops_per_second),
            whole_percent(row.of_fma_peak),
            giga(row.bytes_per_second),
            whole_percent(row.of_copy_bandwidth),
        );
    }
    text
}

fn shares(what: &str, shares: &[Share]) -> String {
    let name = shares.iter().map(|share| share.name.len()).max().unwrap_or(0).max(what.len());
    let mut text = format!("{what:<name$}  {:>10} {:>12} {:>6}  {:>9}\n", "dispatches", "a step", "share", "GFLOP/s");
    for share in shares {
        let rate = if share.seconds > 0.0 { giga(share.flops as f64 / share.seconds) } else { 0.0 };
        text += &format!(
            "{:<name$}  {:>10} {:>12} {:>6}  {rate:>9.1}\n",
            share.name,
            share.dispatches,
            milliseconds(share.seconds),
            percent(share.share),
        );
    }
    text.push('\n');
    text
}

fn giga(value: f64) -> f64 {
    value / 1e9
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.3} ms", 1e3 * seconds)
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn whole_percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}
