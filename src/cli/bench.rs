//! `fairtat bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::{print, write_json};
use crate::config::EngineOptions;
use crate::engine::wgsl::Checks;
use crate::evaluate::bench::{BenchOptions, BenchReport, image_shape, measure_step};
use crate::model::Architecture;

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Architecture; more than one may be named [default: the four that a CPU can bear]
    #[arg(long, value_enum, value_name = "NAME")]
    arch: Vec<Architecture>,
    /// Images in a batch; more than one may be named
    #[arg(long, default_values_t = [64])]
    batch: Vec<usize>,
    /// Channels of the first stage instead of the published number
    #[arg(long, value_name = "CHANNELS")]
    width: Option<usize>,
    #[command(flatten)]
    engine: EngineOptions,
    /// Run-time checks in the shaders of the WGSL engine, which WebGPU asks for and training leaves out
    #[arg(long, value_enum, default_value = "off", value_name = "ON|OFF")]
    checks: Switch,
    /// Steps of the attack
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Time for each measurement, which takes at least three training steps
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Also write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
        .map_err(|e| super::Usage(format!("--seconds {}: {e}", arguments.seconds)))?;
    arguments.engine.validate()?;
    anyhow::ensure!(arguments.width != Some(0), super::Usage("--width: expected at least 1, found 0".into()));
    let options = BenchOptions {
        engine: arguments.engine.clone(),
        checks: if arguments.checks == Switch::On { Checks::On } else { Checks::Off },
        width: arguments.width,
        attack_steps: arguments.steps,
        at_least,
    };
    let mut report = BenchReport {
        program: format!("fairtat {}", env!("CARGO_PKG_VERSION")),
        device: String::new(),
        threads: rayon::current_num_threads(),
        results: Vec::new(),
    };
    print("architecture        width engine       batch   images/s   perturb     update      statistics\n")?;
    for &architecture in architectures {
        for &batch in &arguments.batch {
            anyhow::ensure!(batch > 0, super::Usage("--batch: expected at least 1 image, found 0".into()));
            eprint!("\r{architecture}, {batch} images of {} …\x1b[K", image_shape(architecture));
            let (row, device) = measure_step(architecture, batch, &options)?;
            eprint!("\r\x1b[K");
            let milliseconds = |seconds: f64| format!("{:.3} ms", 1e3 * seconds);
            print(&format!(
                "{:<19} {:>5} {:<12} {:>5} {:>10.1}   {:<11} {:<11} {}\n",
                row.architecture,
                row.width,
                row.engine,
                row.batch,
                row.images_per_second,
                milliseconds(row.seconds.perturb),
                milliseconds(row.seconds.update),
                milliseconds(row.seconds.statistics),
            ))?;
            report.device = device;
            report.results.push(row);
        }
    }
    match &arguments.json {
        Some(path) => write_json(path, &report),
        None => Ok(()),
    }
}
