//! `fairtat bench`.

mod table;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::json::JsonArgs;
use super::{Usage, check_width};
use crate::config::{EngineOptions, MethodChoice};
use crate::console::note;
use crate::engine::wgsl::{Checks, DeviceFigures, Subgroups};
use crate::evaluate::bench::{BenchOptions, BenchReport, image_shape, measure_step};
use crate::model::Architecture;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Architecture; may be given several times [default: the four that are feasible on a CPU]
    #[arg(long, value_enum, value_name = "NAME")]
    arch: Vec<Architecture>,
    /// Images in a batch; may be given several times
    #[arg(long, default_values_t = [64])]
    batch: Vec<usize>,
    /// Training method, with its default settings; may be given several times
    #[arg(long, value_enum, value_name = "NAME", default_values_t = [MethodChoice::FairTat])]
    method: Vec<MethodChoice>,
    /// Channels of the first stage instead of the published number
    #[arg(long, value_name = "CHANNELS")]
    width: Option<usize>,
    #[command(flatten)]
    engine: EngineOptions,
    /// Run-time checks in the shaders of the WGSL engine, which WebGPU requires and training omits
    #[arg(long, value_enum, default_value = "off", value_name = "ON|OFF")]
    checks: Switch,
    /// Pass dispatch parameters as immediates instead of in uniform buffers, if the adapter supports them
    #[arg(long, value_enum, default_value = "off", value_name = "ON|OFF")]
    immediates: Switch,
    /// Use subgroup broadcasts in matrix products, if the adapter supports them [default: on for software adapters]
    #[arg(long, value_enum, value_name = "ON|OFF")]
    subgroups: Option<Switch>,
    /// Steps of the attack
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Minimum time of each measurement, which takes at least three training steps
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Time every dispatch of the WGSL engine, and compare with the peak arithmetic and copy rates of the device
    #[arg(long)]
    profile: bool,
    /// Rows of the profile to print; the JSON has all
    #[arg(long, value_name = "ROWS", default_value_t = 20)]
    top: usize,
    /// Also run an epoch of 50,000 images; without it, its time is extrapolated from the step
    #[arg(long)]
    epoch: bool,
    #[command(flatten)]
    json: JsonArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

pub(super) fn bench(arguments: &BenchArgs) -> Result<()> {
    let small = [Architecture::DigitsCnn, Architecture::SmallCnn, Architecture::ResNet20, Architecture::PreActResNet18];
    let architectures = if arguments.arch.is_empty() { &small[..] } else { &arguments.arch };
    let at_least = Duration::try_from_secs_f64(arguments.seconds)
        .map_err(|_| Usage(format!("--seconds: expected a number of at least 0, found {}", arguments.seconds)))?;
    arguments.engine.validate()?;
    arguments.json.check()?;
    check_width(arguments.width)?;
    if let Some(batch) = arguments.batch.iter().find(|batch| **batch < 2) {
        let what = format!("--batch: expected at least 2 images, which batch norm needs for training, found {batch}");
        anyhow::bail!(Usage(what));
    }
    anyhow::ensure!(arguments.steps > 0, Usage("--steps: expected at least 1 step of the attack, found 0".into()));
    let mut options = BenchOptions {
        engine: arguments.engine.clone(),
        checks: if arguments.checks == Switch::On { Checks::On } else { Checks::Off },
        immediates: arguments.immediates == Switch::On,
        subgroups: match arguments.subgroups {
            None => Subgroups::WhereFaster,
            Some(Switch::On) => Subgroups::Always,
            Some(Switch::Off) => Subgroups::Never,
        },
        width: arguments.width,
        method: MethodChoice::FairTat,
        attack_steps: arguments.steps,
        at_least,
        epoch: arguments.epoch,
        figures: None,
    };
    if arguments.profile {
        let wgsl = options.wgsl().ok_or_else(|| {
            Usage("--profile times the dispatches of the WGSL engine; use it with --engine wgsl".into())
        })?;
        let figures = with_note("the peak rates of the device", || DeviceFigures::measure(&wgsl))?;
        arguments.json.print(&table::figures(&figures))?;
        options.figures = Some(figures);
    }
    let mut report = BenchReport {
        program: format!("fairtat {}", env!("CARGO_PKG_VERSION")),
        device: String::new(),
        threads: rayon::current_num_threads(),
        figures: options.figures.clone(),
        results: Vec::new(),
    };
    arguments.json.print(&table::heading())?;
    for &architecture in architectures {
        for &batch in &arguments.batch {
            for &method in &arguments.method {
                options.method = method;
                let title = method.title();
                let what = format!("{title}, {architecture}, {batch} images of {}", image_shape(architecture));
                let (row, device) = with_note(&what, || measure_step(architecture, batch, &options))?;
                arguments.json.print(&table::row(&row))?;
                report.device = device;
                report.results.push(row);
            }
        }
    }
    arguments.json.write(&report)?;
    for row in &report.results {
        if let Some(profile) = &row.profile {
            arguments.json.print(&table::profile(row, profile, arguments.top))?;
        }
    }
    Ok(())
}

/// Shows on a terminal what is being measured, until it is done.
fn with_note<T>(what: &str, measure: impl FnOnce() -> T) -> T {
    let shown = std::io::stderr().is_terminal();
    if shown {
        note(&format!("\r{what} …\x1b[K"));
    }
    let measured = measure();
    if shown {
        note("\r\x1b[K");
    }
    measured
}
