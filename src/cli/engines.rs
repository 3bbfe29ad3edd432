//! `fairtat engines`.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use super::counted_as;
use super::json::JsonArgs;
use crate::config::EngineOptions;
use crate::engine::candle::CandleDevice;
use crate::engine::wgsl::{AdapterKind, AdapterSummary, adapters, default_adapter, how_to_get_an_adapter};
use crate::engines::{ChosenEngine, choose_engine};

#[derive(Debug, Args)]
pub(super) struct EnginesArgs {
    #[command(flatten)]
    json: JsonArgs,
}

/// A device of Candle.
#[derive(Debug, Serialize)]
struct Device {
    device: &'static str,
    available: bool,
    note: String,
}

/// An engine and its device.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Choice {
    engine: &'static str,
    /// Candle's device.
    device: Option<&'static str>,
    /// Index of the WGSL engine's adapter.
    adapter: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Report {
    candle: Vec<Device>,
    /// Adapters of the WGSL engine.
    wgsl: Vec<AdapterSummary>,
    /// The adapter of `--engine wgsl` without `--adapter`.
    default_adapter: Option<usize>,
    /// The choice of `--engine auto`.
    auto: Choice,
}

pub(super) fn engines(arguments: &EnginesArgs) -> Result<()> {
    arguments.json.check()?;
    let available = CandleDevice::available();
    let device = |device: CandleDevice, note: String| Device {
        device: flag(device),
        available: available.contains(&device),
        note,
    };
    let threads = rayon::current_num_threads();
    let candle = vec![
        device(CandleDevice::Cpu, counted_as(threads, "thread", "threads")),
        device(CandleDevice::Cuda(0), "needs an NVIDIA GPU and a build with `--features cuda`".into()),
        device(CandleDevice::Metal(0), "needs an Apple GPU and a build with `--features metal`".into()),
    ];
    let default_adapter = default_adapter().map(|adapter| adapter.index);
    let auto = match choose_engine(&EngineOptions::default()) {
        ChosenEngine::Candle(device) => Choice { engine: "candle", device: Some(flag(device)), adapter: None },
        ChosenEngine::Wgsl => Choice { engine: "wgsl", device: None, adapter: default_adapter },
    };
    let report = Report { candle, wgsl: adapters(), default_adapter, auto };
    arguments.json.write(&report)?;
    arguments.json.print(&table(&report))
}

const fn flag(device: CandleDevice) -> &'static str {
    match device {
        CandleDevice::Cpu => "cpu",
        CandleDevice::Cuda(_) => "cuda",
        CandleDevice::Metal(_) => "metal",
    }
}

/// At most 100 columns wide.
fn table(report: &Report) -> String {
    let mut text = String::from("--engine candle, by --device\n");
    for Device { device, available, note } in &report.candle {
        let state = if *available { "available" } else { "not here" };
        text += &format!("  {device:<6} {state:<10} {note}\n");
    }
    text += "\n--engine wgsl, by --adapter\n";
    if report.wgsl.is_empty() {
        for line in wrapped(&format!("None: {}.", how_to_get_an_adapter()), 96) {
            text += &format!("  {line}\n");
        }
    }
    for adapter in &report.wgsl {
        text += &format!(
            "  {:<2} {:<52} {:<10} {:<6}  {}\n",
            adapter.index,
            shortened(&adapter.name, 52),
            adapter.kind.name(),
            adapter.backend,
            adapter.tier.map_or("not usable".into(), |tier| format!("tier {}", tier.name())),
        );
        let driver = if adapter.driver.is_empty() { "unknown" } else { &adapter.driver };
        text += &format!("     driver {}\n", shortened(driver, 88));
        let limits = &adapter.limits;
        text += &format!(
            "     a binding {}, a buffer {}, a workgroup {} KiB and {} invocations\n",
            size(limits.binding_bytes),
            size(limits.buffer_bytes),
            limits.workgroup_bytes >> 10,
            limits.invocations,
        );
        if let Some(memory) = limits.memory_bytes {
            text += &format!("     memory {}\n", size(memory));
        }
        if !adapter.lacks.is_empty() {
            for line in wrapped(&format!("cannot be used: {}", adapter.lacks.join(", ")), 95) {
                text += &format!("     {line}\n");
            }
        }
        let features = adapter.features.names();
        if !features.is_empty() {
            text += &format!("     has {}\n", features.join(", "));
        }
    }
    let software = |adapter: &AdapterSummary| adapter.kind == AdapterKind::Software;
    let note = if !report.wgsl.is_empty() && report.wgsl.iter().all(software) {
        "  (a software adapter is for tests: it is used only on request)\n"
    } else {
        ""
    };
    let chosen = match (report.auto.device, report.auto.adapter) {
        (Some(device), _) => format!("--engine candle --device {device}"),
        (None, Some(index)) => format!("--engine wgsl --adapter {index}"),
        (None, None) => "--engine wgsl".into(),
    };
    text + &format!("\n--engine auto takes {chosen}\n{note}")
}

/// Mebibytes or gibibytes; drivers without a limit report the largest possible number.
fn size(bytes: u64) -> String {
    match bytes {
        _ if bytes >= 1 << 40 => "without limit".into(),
        _ if bytes >= 1 << 30 => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
        _ => format!("{} MiB", bytes >> 20),
    }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Lines of at most `width` characters, broken between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::wgsl::{AdapterFeatures, AdapterLimits, Tier};

    fn adapter(index: usize, name: &str, kind: AdapterKind) -> AdapterSummary {
        AdapterSummary {
            index,
            name: name.into(),
            backend: "vulkan".into(),
            kind,
            driver: "a driver with a very long name ".repeat(5),
            limits: AdapterLimits {
                binding_bytes: (1 << 32) - 4,
                buffer_bytes: 1 << 60,
                workgroup_bytes: 49_152,
                invocations: 1024,
                storage_buffers: 8,
                memory_bytes: Some(24 << 30),
            },
            features: AdapterFeatures { subgroups: true, f16: true, timestamps: true, pipeline_cache: true },
            tier: Some(Tier::Base),
            lacks: Vec::new(),
        }
    }

    fn report(wgsl: Vec<AdapterSummary>, auto: Choice) -> Report {
        let candle = vec![Device { device: "cpu", available: true, note: "2 threads".into() }];
        Report { candle, default_adapter: auto.adapter, wgsl, auto }
    }

    #[test]
    fn the_table_fits_a_terminal_whatever_drivers_call_themselves() {
        let mut below = adapter(11, &"Ancient GPU ".repeat(9), AdapterKind::Integrated);
        below.tier = None;
        below.lacks = vec!["max_storage_buffers_per_shader_stage is 4, needed are 8".into(); 5];
        let auto = Choice { engine: "wgsl", device: None, adapter: Some(0) };
        let text = table(&report(vec![adapter(0, "GeForce", AdapterKind::Discrete), below], auto));
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
        for part in [
            "cannot be used: max_storage",
            "not usable",
            "takes --engine wgsl --adapter 0\n",
            "a binding 4.0 GiB, a buffer without limit",
            "memory 24.0 GiB",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn without_a_gpu_the_table_says_what_to_do() {
        let auto = || Choice { engine: "candle", device: Some("cpu"), adapter: None };
        let text = table(&report(Vec::new(), auto()));
        assert!(
            text.contains("None: no GPU driver") && text.ends_with("takes --engine candle --device cpu\n"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        let text = table(&report(vec![adapter(0, "llvmpipe", AdapterKind::Software)], auto()));
        assert!(text.contains("--device cpu\n  (a software adapter is for tests"), "{text}");
    }
}
