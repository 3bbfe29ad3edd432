//! `fairtat plan`.

use anyhow::Result;
use clap::Args;

use super::json::JsonArgs;
use super::{Usage, check_width, counted_as};
use crate::config::LastBatch;
use crate::data::{ImageShape, MAX_IMAGE_SIZE};
use crate::engine::wgsl::{LayerPlan, Plan};
use crate::engines::{SMALLER, describe};
use crate::evaluate::bench::image_shape;
use crate::memory;
use crate::model::Architecture;
use crate::train::Batches;

/// Images and classes are counted in 32 bits.
const MOST: usize = u32::MAX as usize;

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Architecture
    #[arg(long, value_enum, value_name = "NAME")]
    arch: Architecture,
    /// Images in a batch
    #[arg(long, default_value_t = 128, value_name = "N")]
    batch: usize,
    /// Images in an epoch, which is split into batches according to --last-batch; the plan covers all their sizes
    #[arg(long, value_name = "N")]
    images: Option<usize>,
    /// What happens to the images of an epoch that do not fill a batch
    #[arg(long, value_enum, default_value_t = LastBatch::Even, requires = "images")]
    last_batch: LastBatch,
    /// Channels of the first stage instead of the published number
    #[arg(long, value_name = "CHANNELS")]
    width: Option<usize>,
    /// Number of classes
    #[arg(long, default_value_t = 10, value_name = "N")]
    classes: usize,
    /// Side of the images in pixels [default: 8 for digits-cnn, 32 for the others]
    #[arg(long, value_name = "PIXELS")]
    image_size: Option<usize>,
    #[command(flatten)]
    json: JsonArgs,
}

pub(super) fn plan(arguments: &PlanArgs) -> Result<()> {
    let within = |name: &str, value: usize, least: usize, most: usize| {
        anyhow::ensure!(value >= least, Usage(format!("--{name}: expected at least {least}, found {value}")));
        anyhow::ensure!(value <= most, Usage(format!("--{name}: expected at most {most}, found {value}")));
        Ok(())
    };
    within("batch", arguments.batch, 1, MOST)?;
    // Every architecture has batch norm, which cannot train on one image.
    within("images", arguments.images.unwrap_or(2), 2, MOST)?;
    within("classes", arguments.classes, 2, MOST)?;
    check_width(arguments.width)?;
    arguments.json.check()?;
    within("image-size", arguments.image_size.unwrap_or(1), 1, MAX_IMAGE_SIZE)?;
    let usual = image_shape(arguments.arch);
    let side = arguments.image_size.unwrap_or(usual.height);
    let shape = ImageShape::new(usual.channels, side, side);
    let normalisation = (vec![0.5; shape.channels], vec![0.25; shape.channels]);
    let normalisation = Some((normalisation.0.as_slice(), normalisation.1.as_slice()));
    let network = arguments.arch.build(shape, arguments.classes, normalisation, arguments.width);
    let epoch = arguments.images.map(|images| Batches::new(images, arguments.batch, arguments.last_batch));
    let sizes = match &epoch {
        Some(batches) => {
            batches.check(&network)?;
            batches.distinct_sizes()
        }
        None => vec![arguments.batch],
    };
    memory::check_address_space(network.training_bytes(sizes[0]), || describe(&network, sizes[0]), SMALLER)?;
    let plan = Plan::for_epoch(&network, &sizes)?;
    arguments.json.write(&plan)?;
    arguments.json.print(&text(&plan))?;
    match epoch {
        Some(batches) => arguments.json.print(&epoch_text(&batches, &plan)),
        None => Ok(()),
    }
}

/// Such as `epoch        42 batches: 28 of 65, 14 of 64 images; the other size adds 0 B to the memory`.
fn epoch_text(batches: &Batches, plan: &Plan) -> String {
    let sizes = batches.sizes();
    let counted = batches.distinct_sizes().into_iter().map(|size| {
        let count = sizes.iter().filter(|other| **other == size).count();
        format!("{count} of {size}")
    });
    let counted = counted.collect::<Vec<_>>().join(", ");
    let shared = match &plan.other_sizes[..] {
        [] => String::new(),
        _ => format!("; the other size adds {} to the memory", bytes(plan.memory.other_sizes)),
    };
    let count = counted_as(batches.count() as usize, "batch", "batches");
    format!("epoch        {count}: {counted} images{shared}\n")
}

fn text(plan: &Plan) -> String {
    let images = counted_as(plan.batch, "image", "images");
    let mut out = format!("{}, {images} of {}\n\n", plan.architecture, plan.image);
    let name = plan.layers.iter().map(|layer| layer.name.len()).max().unwrap_or(0).max(5);
    out += &format!(
        "{:<name$}  {:<14} {:<11} {:>9} {:>9} {:>9} {:>9} {:>6}  tiles: forward, backward, weights\n",
        "layer", "operation", "output", "forward", "backward", "weights", "moves", "buffer"
    );
    for layer in &plan.layers {
        out += row(layer, name).trim_end();
        out.push('\n');
    }
    out.push('\n');
    for program in &plan.programs {
        out += &format!(
            "{:<12} {:>5} dispatches {:>12} {:>12} moved\n",
            program.name,
            program.dispatches,
            flops(program.flops),
            bytes(program.bytes)
        );
    }
    let m = &plan.memory;
    out += &format!(
        "\nmemory       {} = {} parameters and momentum + {} batch + {} activations in {} buffers ({} if they did not \
         share)\n",
        bytes(m.total),
        bytes(m.parameters),
        bytes(m.batch),
        bytes(m.activations),
        plan.buffers.len(),
        bytes(m.activations_unshared)
    );
    if plan.ranges.len() > 1 {
        let ranges: Vec<String> = plan.ranges.iter().map(ToString::to_string).collect();
        out +=
            &format!("split into   ranges of {} images, so that every activation fits a binding\n", ranges.join(", "));
    }
    out
}

fn row(layer: &LayerPlan, name: usize) -> String {
    let count = |value: u64| if value == 0 { String::new() } else { flops(value) };
    format!(
        "{:<name$}  {:<14} {:<11} {:>9} {:>9} {:>9} {:>9} {:>6}  {}",
        layer.name,
        layer.operation,
        layer.output,
        count(layer.flops_forward),
        count(layer.flops_backward),
        count(layer.flops_weights),
        if layer.bytes_forward == 0 { String::new() } else { bytes(layer.bytes_forward) },
        layer.buffer.map_or(String::new(), |slot| slot.to_string()),
        layer.algorithm
    )
}

/// Such as `9.66 GF`.
fn flops(value: u64) -> String {
    scaled(value as f64, 1000.0, &["F", "kF", "MF", "GF", "TF", "PF"])
}

/// Such as `315 MiB`.
fn bytes(value: u64) -> String {
    scaled(value as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// Three digits and a unit.
fn scaled(value: f64, step: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (value, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let decimals = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.decimals$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!([0, 999, 9_663_676_416].map(flops), ["0 F", "999 F", "9.66 GF"]);
        assert_eq!([1023, 1024, 330_301_440].map(bytes), ["1.00 KiB", "1.00 KiB", "315 MiB"]);
    }
}
