//! Speed of plain Candle on the FAIR-TAT step: candle-nn's layers and `Tensor::backward`, not fairtat's engine on
//! Candle. Targeted PGD in train mode, one SGD update, the class statistics; flags and JSON are those of
//! `torch_step.py`.
//!
//! Candle's backward pass cannot skip the gradients of weights: for every convolution or matrix product on the path
//! from the images to the loss it computes both gradients, even if one belongs to a tensor that does not require a
//! gradient. So every step of the attack pays for weight gradients that it discards.
//!
//! Warm-up is two short steps and one whole step; it is not counted. Images per second are measured on steps that wait
//! for the device only at their end; the phases on one more step that waits between them.

mod check;
mod networks;
mod step;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::Device;
use clap::Parser;
use serde::Serialize;

use networks::Architecture;
use step::{CLASSES, Step};

/// Measures the speed of plain Candle on the FAIR-TAT step.
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
    /// Compare the gradient with differences, then see losses fall; measure nothing
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
    engine: String,
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
    on_gpu: bool,
}

impl Warm {
    fn up(architecture: Architecture, batch: usize, options: &Options, device: &Device) -> Result<Self> {
        let width = options.width.unwrap_or(architecture.default_width());
        let mut step = Step::new(architecture, width, batch, 0.01, device)?;
        let clock = Instant::now();
        for steps in [options.steps.min(2), options.steps.min(2), options.steps] {
            whole(&mut step, steps)?;
        }
        let warm_up_seconds = clock.elapsed().as_secs_f64();
        Ok(Self { architecture, batch, width, step, warm_up_seconds, on_gpu: device.is_cuda() })
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
            engine: format!("candle-plain-{}", if self.on_gpu { "cuda" } else { "cpu" }),
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

fn whole(step: &mut Step, attack_steps: u32) -> Result<()> {
    let adversarial = step.perturb(attack_steps)?;
    let (logits, _) = step.update(&adversarial)?;
    step.count(&logits)?;
    step.synchronise()
}

fn phases(step: &mut Step, attack_steps: u32) -> Result<Phases> {
    let clock = Instant::now();
    let adversarial = step.perturb(attack_steps)?;
    step.synchronise()?;
    let perturb = clock.elapsed().as_secs_f64();
    let (logits, _) = step.update(&adversarial)?;
    step.synchronise()?;
    let update = clock.elapsed().as_secs_f64() - perturb;
    step.count(&logits)?;
    Ok(Phases { perturb, update, statistics: clock.elapsed().as_secs_f64() - perturb - update })
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(options.width != Some(0), "--width: expected at least 1, found 0");
    ensure!(!options.batch.contains(&0), "--batch: expected at least 1 image, found 0");
    let device = Device::cuda_if_available(0)?;
    let name = if device.is_cuda() { "CUDA device 0".to_owned() } else { processor() };
    if options.check {
        return check::check(&device, &name);
    }
    let mut report = Report {
        program: concat!("candle-step ", env!("CARGO_PKG_VERSION"), ", candle 0.11.1"),
        device: name,
        threads: rayon::current_num_threads(),
        results: Vec::new(),
    };
    if options.serve {
        return serve(&options, &device, &mut report);
    }
    eprintln!("{} on {}, PGD-{}", report.program, report.device, options.steps);
    println!("architecture       batch width   images/s   perturb    update  statist. repeats  warm-up");
    let all = [Architecture::DigitsCnn, Architecture::SmallCnn, Architecture::ResNet20, Architecture::PreActResNet18];
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

fn processor() -> String {
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = information.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(':'));
    name.map_or_else(|| "CPU".to_owned(), |(_, name)| name.trim().to_owned())
}
