//! Several checkpoints under the same attacks, and adversarial images of one tested on another.

use std::fmt::Write as _;

use serde::Serialize;

use super::files::escaped;
use super::{Described, RobustnessError};
use crate::attack::{Attack, AttackError, Report};
use crate::data::Dataset;
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input, loss};
use crate::fairness::{ratio, wilson};

/// One checkpoint of a comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// The checkpoint, the images and the ball.
    #[serde(flatten)]
    pub described: Described,
    /// Number of images.
    pub images: usize,
    /// Accuracy without an attack.
    pub clean: Report,
    /// Accuracy of the worst case over all attacks.
    pub robust: Report,
    /// Name and accuracy of each attack.
    pub attacks: Vec<(String, Report)>,
}

/// Robust accuracy of each checkpoint (column) on the adversarial images of each checkpoint (row).
#[derive(Debug, Clone, Serialize)]
pub struct Transfer {
    /// The attack in one line.
    pub attack: String,
    /// Images classified correctly, source × target.
    pub correct: Vec<Vec<u64>>,
    /// Images.
    pub images: u64,
}

/// Classifies images in `[0, 1]`, `N × C × H × W`.
///
/// # Errors
/// If the engine fails.
pub fn classify(engine: &mut dyn Engine, images: &[f32], batch_size: usize) -> Result<Vec<u32>, EngineError> {
    let (len, classes) = (engine.network().input.len(), engine.network().classes);
    let mut found = Vec::with_capacity(images.len() / len);
    for images in images.chunks(len * batch_size.max(1)) {
        let labels = vec![0; images.len() / len];
        let logits = engine.logits(&Input::Images(images, &labels), BatchNormMode::Eval)?;
        found.extend(logits.chunks(classes).map(loss::argmax));
    }
    Ok(found)
}

/// The adversarial images of every image of `set`, in `[0, 1]`. `progress` gets the number of images done and stops the
/// work by returning `false`; then the result is `None`.
///
/// # Errors
/// If the engine fails.
pub fn adversarial_images(
    engine: &mut dyn Engine,
    set: &Dataset,
    attack: &Attack,
    batch_size: usize,
    progress: &mut dyn FnMut(f64) -> bool,
) -> Result<Option<Vec<f32>>, RobustnessError> {
    let len = set.shape().len();
    let mut all = Vec::with_capacity(set.len() * len);
    for first in (0..set.len()).step_by(batch_size.max(1)) {
        let last = (first + batch_size.max(1)).min(set.len());
        let ids: Vec<u32> = (first as u32..last as u32).collect();
        let pixels = &set.images()[first * len..last * len];
        let batch =
            Batch { pixels, labels: &set.labels()[first..last], ids: &ids, augment: None, seed: attack.seed, epoch: 0 };
        let mut tick = |share: f64| progress(first as f64 + share * (last - first) as f64);
        match attack.run(engine, &batch, true, &mut tick) {
            Ok(found) => all.extend(found.images.unwrap_or_default()),
            Err(AttackError::Stopped) => return Ok(None),
            Err(AttackError::Engine(error)) => return Err(error.into()),
        }
    }
    Ok(Some(all))
}

fn within(correct: u64, images: u64) -> String {
    let (low, high) = wilson(correct, images);
    format!("{:.1} [{:.1}, {:.1}]", 100.0 * ratio(correct, images), 100.0 * low, 100.0 * high)
}

fn of(report: &Report) -> String {
    let [low, high] = report.interval;
    format!("{:.1} [{:.1}, {:.1}]", 100.0 * report.accuracy, 100.0 * low, 100.0 * high)
}

fn worst(report: &Report) -> String {
    let [low, high] = report.worst_class_interval;
    let accuracy = 100.0 * report.worst_class_accuracy;
    let tenth = report.shown_worst_tenth();
    let tenth = tenth.map_or(String::new(), |tenth| format!("; worst 10 % of classes {:.1}", 100.0 * tenth));
    format!("{}, {accuracy:.1} [{:.1}, {:.1}]{tenth}", escaped(&report.worst_class), 100.0 * low, 100.0 * high)
}

/// The comparison as Markdown.
pub fn markdown(rows: &[Compared], transfers: &[Transfer]) -> String {
    let mut text = String::from("# Checkpoints under the same attacks\n\n");
    if let Some(Compared { described: d, images, .. }) = rows.first() {
        let norm = crate::attack::norm_name(d.norm);
        let _ = write!(
            text,
            "{images} images, {} of {}; {norm}, ε {}; seed {}; {}, {}. In brackets: 95 % intervals (Wilson).\n\n",
            d.part, d.dataset, d.epsilon, d.seed, d.program, d.engine
        );
    }
    let attacks: Vec<&str> =
        rows.first().map_or(&[][..], |row| &row.attacks).iter().map(|(name, _)| name.as_str()).collect();
    let _ = writeln!(
        text,
        "| | checkpoint | method | clean % | clean, worst class | {} | worst case % | worst case, worst class |\n|---|---|---|---|---|{}---|---|",
        attacks.join(" | "),
        "---|".repeat(attacks.len())
    );
    for (i, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.attacks.iter().map(|(_, report)| of(report)).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {}, {} | {} | {} | {} | **{}** | {} |",
            i + 1,
            escaped(&row.described.checkpoint),
            row.described.method.as_deref().unwrap_or("unknown"),
            row.described.architecture,
            of(&row.clean),
            worst(&row.clean),
            cells.join(" | "),
            of(&row.robust),
            worst(&row.robust),
        );
    }
    text += "\n";
    for (i, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "{}. SHA-256 `{}`", i + 1, row.described.checkpoint_sha256);
    }
    for transfer in transfers {
        let _ = write!(
            text,
            "\n## Transfer of {}\n\nAccuracy in % of the column's network on the images that were made on the row's network. The \
             diagonal is the attack with knowledge of the network.\n\n| made on \\ tested on |",
            transfer.attack
        );
        (1..=rows.len()).for_each(|i| {
            let _ = write!(text, " {i} |");
        });
        let _ = writeln!(text, "\n|---|{}", "---|".repeat(rows.len()));
        for (i, correct) in transfer.correct.iter().enumerate() {
            let cells: Vec<String> = correct.iter().map(|correct| within(*correct, transfer.images)).collect();
            let _ = writeln!(text, "| {} | {} |", i + 1, cells.join(" | "));
        }
    }
    text
}

/// The comparison as CSV: one line for each checkpoint and attack.
pub fn csv(rows: &[Compared]) -> String {
    let many = rows.iter().any(|row| row.robust.shown_worst_tenth().is_some());
    let mut text = format!(
        "checkpoint,sha256,method,dataset,images,norm,epsilon,seed,attack,accuracy,low,high,worst_class,\
         worst_class_accuracy,worst_class_low,worst_class_high{}\n",
        if many { ",worst_tenth_accuracy" } else { "" }
    );
    for row in rows {
        let (d, all) = (&row.described, [("clean", &row.clean)]);
        let attacks = row.attacks.iter().map(|(name, report)| (name.as_str(), report));
        for (name, report) in all.into_iter().chain(attacks).chain([("worst case", &row.robust)]) {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let [low, high] = report.interval;
            let [worst_low, worst_high] = report.worst_class_interval;
            let mut cells = vec![
                quoted(&d.checkpoint),
                d.checkpoint_sha256.clone(),
                quoted(d.method.as_deref().unwrap_or("")),
                quoted(&d.dataset),
                row.images.to_string(),
                crate::attack::norm_name(d.norm).into(),
                d.epsilon.clone(),
                d.seed.to_string(),
                quoted(name),
                report.accuracy.to_string(),
                low.to_string(),
                high.to_string(),
                quoted(&report.worst_class),
                report.worst_class_accuracy.to_string(),
                worst_low.to_string(),
                worst_high.to_string(),
            ];
            if many {
                cells.push(report.worst_tenth_accuracy.to_string());
            }
            let _ = writeln!(text, "{}", cells.join(","));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 100 · correct / images and 100 · (correct / images) are rounded to other digits for some counts, such as 255 of 400.
    #[test]
    fn a_share_is_the_same_number_in_the_table_and_in_the_figure() {
        for images in 1..=400 {
            for correct in 0..=images {
                let in_figure = format!("{:.1} ", 100.0 * ratio(correct, images));
                assert!(within(correct, images).starts_with(&in_figure), "{correct} of {images}");
            }
        }
    }
}
