//! Speed of burn's wgpu backend on the FAIR-TAT step: targeted PGD in train mode, one SGD update, the class statistics.
//! The flags and the JSON are those of `torch_step.py`.
//!
//! burn is configured for speed: fusion and autotuning are on, the attack runs on a network whose parameters do not
//! require gradients (burn then computes the gradient of the images alone), and nothing waits for the device inside a
//! step. Shaders are WGSL; the Cargo feature `vulkan` makes burn write SPIR-V itself if the adapter supports it.
//! `CUBECL_WGPU_DEFAULT_DEVICE` (`Cpu`, `DiscreteGpu(1)`) chooses another adapter than the fastest.
//!
//! Autotuning is not counted: two short steps and one whole step run first, and their time is reported as warm-up.
//! Images per second are measured on steps that wait for the device only at their end; the phases on one more step that
//! waits between them.

mod check;
mod networks;
mod step;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use burn::tensor::{Device, DeviceKind};
use clap::Parser;
use serde::Serialize;

use networks::Architecture;
use step::{CLASSES, Step};

/// Measures the speed of burn's wgpu backend on the FAIR-TAT step.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// Architecture; repeatable [default: all]
    #[arg(long, value_enum)]
    arch: Vec<Architecture>,
    /// Channels after the first convolution [default: the published number]
    #[arg(long)]
    width: Option<usize>,
    /// Images in a batch; repeatable
    #[arg(long, default_values_t = [128])]
    batch: Vec<usize>,
    /// Steps of the attack
    #[arg(long, default_value_t = 10)]
    steps: u32,
    /// Minimum time of one measurement
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Minimum number of measured steps
    #[arg(long, default_value_t = 3)]
    least: usize,
    /// Write the results to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure once for each line on standard input and answer with the results as one line of JSON
    #[arg(long)]
    serve: bool,
    /// Compare with a network in f64, then see losses fall; measure nothing
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    program: &'static str,
    device: String,
    threads: usize,
    results: Vec<Measurement>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Phases {
    perturb: f64,
    update: f64,
    statistics: f64,
}

#[derive(Debug, Serialize)]
struct Measurement {
    architecture: &'static str,
    engine: &'static str,
    batch: usize,
    width: usize,
    image: String,
    classes: usize,
    attack_steps: u32,
    images_per_second: f64,
    seconds: Phases,
    repeats: usize,
    warm_up_seconds: f64,
}

/// A step after its warm-up.
struct Warm {
    architecture: Architecture,
    batch: usize,
    width: usize,
    step: Step,
    warm_up_seconds: f64,
}

impl Warm {
    fn up(architecture: Architecture, batch: usize, options: &Options, device: &Device) -> Result<Self> {
        let width = options.width.unwrap_or(architecture.default_width());
        let mut step = Step::new(architecture, width, batch, 0.01, device);
        let clock = Instant::now();
        for steps in [options.steps.min(2), options.steps.min(2), options.steps] {
            whole(&mut step, steps)?;
        }
        let warm_up_seconds = clock.elapsed().as_secs_f64();
        Ok(Self { architecture, batch, width, step, warm_up_seconds })
    }

    fn measure(&mut self, options: &Options) -> Result<Measurement> {
        let mut totals = Vec::new();
        let clock = Instant::now();
        while totals.len() < options.least.max(1) || clock.elapsed().as_secs_f64() < options.seconds {
            let clock = Instant::now();
            whole(&mut self.step, options.steps)?;
            totals.push(clock.elapsed().as_secs_f64());
        }
        totals.sort_by(f64::total_cmp);
        let middle = totals.len() / 2;
        let median = (totals[middle] + totals[(totals.len() - 1) / 2]) / 2.0;
        let [channels, rows, columns] = self.architecture.image();
        Ok(Measurement {
            architecture: self.architecture.name(),
            engine: ENGINE,
            batch: self.batch,
            width: self.width,
            image: format!("{channels}x{rows}x{columns}"),
            classes: CLASSES,
            attack_steps: options.steps,
            images_per_second: self.batch as f64 / median,
            seconds: phases(&mut self.step, options.steps)?,
            repeats: totals.len(),
            warm_up_seconds: self.warm_up_seconds,
        })
    }
}

const ENGINE: &str = if cfg!(feature = "vulkan") { "burn-vulkan" } else { "burn-wgpu" };

fn whole(step: &mut Step, attack_steps: u32) -> Result<()> {
    let adversarial = step.perturb(attack_steps)?;
    let (logits, _) = step.update(adversarial)?;
    step.count(logits)?;
    step.synchronise()
}

fn phases(step: &mut Step, attack_steps: u32) -> Result<Phases> {
    let clock = Instant::now();
    let adversarial = step.perturb(attack_steps)?;
    step.synchronise()?;
    let perturb = clock.elapsed().as_secs_f64();
    let (logits, _) = step.update(adversarial)?;
    step.synchronise()?;
    let update = clock.elapsed().as_secs_f64() - perturb;
    step.count(logits)?;
    Ok(Phases { perturb, update, statistics: clock.elapsed().as_secs_f64() - perturb - update })
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.width != Some(0), "--width: expected at least 1, found 0");
    ensure!(!options.batch.contains(&0), "--batch: expected at least 1 image, found 0");
    let device = Device::wgpu(DeviceKind::DefaultDevice).autodiff();
    let name = device.identity().map_or_else(|| "unknown adapter".to_owned(), |identity| identity.name);
    if options.check {
        return check::check(&device, &name);
    }
    let mut report = Report {
        program: concat!("burn-step ", env!("CARGO_PKG_VERSION"), ", burn 0.22.1"),
        device: name,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        results: Vec::new(),
    };
    if options.serve {
        return serve(&options, &device, &mut report);
    }
    eprintln!("{} on {}, PGD-{}", report.program, report.device, options.steps);
    println!("architecture       batch width   images/s   perturb    update  statist. repeats  warm-up");
    let all = [Architecture::SmallCnn, Architecture::ResNet20, Architecture::PreActResNet18];
    let architectures = if options.arch.is_empty() { &all[..] } else { &options.arch };
    for &architecture in architectures {
        for &batch in &options.batch {
            let row = Warm::up(architecture, batch, &options, &device)?.measure(&options)?;
            println!(
                "{:<18} {:>5} {:>5} {:>10.2} {:>8.1}ms {:>7.1}ms {:>7.1}ms {:>7} {:>7.1}s",
                row.architecture,
                row.batch,
                row.width,
                row.images_per_second,
                row.seconds.perturb * 1e3,
                row.seconds.update * 1e3,
                row.seconds.statistics * 1e3,
                row.repeats,
                row.warm_up_seconds,
            );
            report.results.push(row);
            if let Some(path) = &options.json {
                let text = serde_json::to_string_pretty(&report)? + "\n";
                std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    Ok(())
}

fn serve(options: &Options, device: &Device, report: &mut Report) -> Result<()> {
    let (&[architecture], &[batch]) = (&options.arch[..], &options.batch[..]) else {
        anyhow::bail!("--serve measures one network: expected one --arch and one --batch");
    };
    let mut warm = None;
    for line in std::io::stdin().lines() {
        line.context("cannot read standard input")?;
        let warm = match &mut warm {
            Some(warm) => warm,
            none => none.insert(Warm::up(architecture, batch, options, device)?),
        };
        report.results = vec![warm.measure(options)?];
        println!("{}", serde_json::to_string(&report)?);
        std::io::stdout().flush()?;
    }
    Ok(())
}
