//! `fairtat post`: changes to a trained network without training.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};

use super::stored::StoredArgs;
use super::{Stopped, Usage, counted_as, interrupt, progress, write_json};
use crate::attack::{
    Attack, Report, check_distance, describe_without_gradient, describe_worst_class, evaluation_step_size, measure,
};
use crate::config::Experiment;
use crate::console::tell;
use crate::data::{Dataset, ImageShape};
use crate::engine::Engine;
use crate::files;
use crate::model::pytorch::without_wrapping;
use crate::model::{HeadNorms, PROBE_LOGITS, State, normalize_head};
use crate::train::{RunDir, RunDirError, StoredNetwork, run_steps};
use crate::units::Epsilon;

/// The value of `post` in the metadata of a checkpoint.
const NORMALIZE_HEAD: &str = "normalize-head";

/// Ending of checkpoint files.
const EXTENSION: &str = "safetensors";

#[derive(Debug, Subcommand)]
pub(super) enum PostCommand {
    /// Give all rows of the last linear layer the same norm
    ///
    /// Divides each row of the layer and its bias entry by the Euclidean norm of the row, and multiplies them by the
    /// mean norm. Rows that are 0 stay as they are. Writes a new checkpoint and evaluates both on the test set: on clean
    /// images, and under PGD with the defaults of `fairtat eval`. For other attacks, call `fairtat eval` with each of
    /// the two files.
    ///
    /// The idea is from public notes on a submission to ICLR 2026 about class-wise disparity: the row norms correlate
    /// with the robustness of the classes. The notes report, for a WRN-28-5 trained with PGD, an accuracy under
    /// AutoAttack of 49.50 % (worst class 17.60 %) before and 48.25 % (29.10 %) after. These numbers have not been
    /// reproduced here, and other networks may gain less or lose.
    NormalizeHead(NormalizeHeadArgs),
}

#[derive(Debug, Args)]
pub(super) struct NormalizeHeadArgs {
    /// New checkpoint [default: NAME-normalized-head.safetensors beside the old one]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replace the new checkpoint if it exists
    #[arg(long)]
    force: bool,
    /// Only write the new checkpoint; needs neither the data set nor an engine
    #[arg(long, conflicts_with_all = ["steps", "epsilon", "step_size", "restarts", "limit", "path", "batch_size"])]
    no_eval: bool,
    /// Steps of PGD
    #[arg(long, value_name = "STEPS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Radius [default: that of the checkpoint's experiment]
    #[arg(long, value_name = "K/255")]
    epsilon: Option<Epsilon>,
    /// Step size of PGD [default: that of the checkpoint's experiment if the radius is its own and the steps can cross
    /// the ball with it, else 2.5 · radius / steps]
    #[arg(long, value_name = "K/255")]
    step_size: Option<Epsilon>,
    /// Random starts of PGD; an image counts as robust only if it withstands all of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    restarts: u32,
    /// Seed of the random starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Evaluate only this many test images: the first ones of each class [default: the whole test set]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    stored: StoredArgs,
}

pub(super) fn post(command: &PostCommand) -> Result<()> {
    match command {
        PostCommand::NormalizeHead(arguments) => normalize(arguments),
    }
}

/// The row of one class.
#[derive(Debug, serde::Serialize)]
struct Row {
    class: String,
    /// Euclidean norm before.
    norm: f64,
}

/// The results on the test set.
#[derive(Debug, serde::Serialize)]
struct Evaluation {
    dataset: String,
    /// Clean and PGD, with the weights of the old checkpoint.
    before: [Report; 2],
    /// The same with those of the new one.
    after: [Report; 2],
    /// Reasons why robust accuracies are higher than under a stronger attack.
    warnings: Vec<String>,
}

#[derive(Debug, serde::Serialize)]
struct PostReport {
    post: &'static str,
    /// The old file.
    checkpoint: String,
    /// The new file.
    written: String,
    /// Name of the layer.
    layer: String,
    /// Its rows in the order of the classes.
    rows: Vec<Row>,
    /// The norm of all rows after, except those that are 0.
    mean_norm: f64,
    /// Classes whose row is 0 and did not change.
    zero_rows: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evaluation: Option<Evaluation>,
}

/// A checkpoint as it is in its file.
struct Contents {
    /// All arrays under the names in the file.
    arrays: State,
    metadata: BTreeMap<String, String>,
}

impl Contents {
    /// The arrays under the names of the network, as [`StoredNetwork`] reads them.
    fn state(&self) -> State {
        let arrays = self.arrays.clone();
        if self.metadata.contains_key("experiment") { arrays } else { without_wrapping(arrays) }
    }

    /// The arrays of `layer` in `state`, under the names in the file.
    fn renamed(&self, state: &State, layer: &str) -> State {
        let stored = |name: &str| {
            // All names have the same prefix, so the shortest one that fits is that of the layer.
            let fits = |stored: &&String| *stored == name || stored.ends_with(&format!(".{name}"));
            self.arrays.0.keys().filter(fits).min_by_key(|stored| stored.len()).cloned()
        };
        let of_layer = |name: &String| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        let arrays = state.0.iter().filter(|(name, _)| of_layer(name));
        State(arrays.filter_map(|(name, array)| Some((stored(name)?, array.clone()))).collect())
    }
}

fn normalize(arguments: &NormalizeHeadArgs) -> Result<()> {
    arguments.stored.engine.validate()?;
    arguments.stored.json.check()?;
    let claim = claim(&arguments.stored.checkpoint)?;
    let stored = load(arguments)?;
    let old = &stored.file;
    let new = target(arguments, old)?;
    let _claim_of_new = match &claim {
        Some(claim) if new.parent() == old.parent() || new.starts_with(claim.path()) => None,
        _ => RunDir::claim_of(&new)?,
    };
    let (arrays, metadata) =
        State::load(old).context("post writes a changed copy of a safetensors file of F32 arrays")?;
    let contents = Contents { arrays, metadata };
    let mut state = contents.state();
    let fitting = || old.display().to_string();

    let mut test = None;
    let (norms, class_names) = if arguments.no_eval {
        // Name and features of the last layer do not depend on the images.
        let model = &stored.experiment.model;
        let network = model.arch.build(ImageShape::new(1, 1, 1), 1, None, model.width);
        let norms = normalize_head(&mut state, &network).with_context(fitting)?;
        let names = contents.metadata.get("class_names").and_then(|names| serde_json::from_str(names).ok());
        (norms, names.unwrap_or_default())
    } else {
        let splits = arguments.stored.splits(&stored)?;
        let attack = attack(arguments, &stored.experiment, splits.test.shape())?;
        let engine = stored.open(&splits, &arguments.stored.engine)?;
        let norms = normalize_head(&mut state, engine.network()).with_context(fitting)?;
        let names = splits.test.class_names().to_vec();
        test = Some(Test { engine, set: splits.test, attack });
        (norms, names)
    };
    let evaluation = match test {
        Some(test) => Some(test.evaluate(arguments, &stored.experiment, &state)?),
        None => None,
    };

    let report = report(old, &new, &norms, &class_names, evaluation);
    let mut metadata = contents.metadata.clone();
    let done = match metadata.get("post") {
        Some(earlier) => format!("{earlier},{NORMALIZE_HEAD}"),
        None => NORMALIZE_HEAD.to_owned(),
    };
    metadata.insert("post".into(), done);
    // Those of the old weights.
    metadata.remove(PROBE_LOGITS);
    contents.renamed(&state, &norms.layer).save_into_copy(old, &new, &metadata)?;
    describe(old, &new, &report)?;
    arguments.stored.json.write(&report)?;
    arguments.stored.json.print(&text(&report))
}

/// The checkpoint and its experiment, with the data that the arguments name.
fn load(arguments: &NormalizeHeadArgs) -> Result<StoredNetwork> {
    let mut stored = arguments.stored.load()?;
    // As in `fairtat eval`: the run's own limit was for its own evaluations.
    stored.experiment.data.test_limit = arguments.limit;
    stored.experiment.validate()?;
    Ok(stored)
}

/// Claims the run of a checkpoint, because a run in progress replaces its checkpoints. `None` if it belongs to no run, or to
/// one that cannot be written.
fn claim(checkpoint: &Path) -> Result<Option<RunDir>> {
    let best = checkpoint.join("checkpoints").join("best.safetensors");
    match RunDir::claim_of(if checkpoint.is_dir() { &best } else { checkpoint }) {
        Err(RunDirError::File(_)) => Ok(None),
        other => Ok(other?),
    }
}

/// The new file. It and its description must not be those of the old one, and must not exist unless they may be
/// replaced.
fn target(arguments: &NormalizeHeadArgs, old: &Path) -> Result<PathBuf> {
    let new = match &arguments.out {
        Some(out) if out.extension().is_some_and(|extension| extension == EXTENSION) => out.clone(),
        Some(out) => {
            let what = format!("--out: expected a name that ends in .{EXTENSION}, found {}", out.display());
            bail!(Usage(what));
        }
        None => {
            let mut name = old.file_stem().unwrap_or_default().to_os_string();
            name.push(format!("-normalized-head.{EXTENSION}"));
            old.with_file_name(name)
        }
    };
    let real = |path: &Path| path.canonicalize().ok();
    let mut files = vec![(old.to_path_buf(), new.clone())];
    // Also if the old checkpoint has none: a description of other weights must not stay beside the new ones.
    files.push((beside(old), beside(&new)));
    for (old, new) in files.iter().filter(|(_, new)| new.exists()) {
        if old.exists() && real(new) == real(old) {
            bail!(Usage(format!("--out: {} would be overwritten; name another file", old.display())));
        }
        if !arguments.force {
            bail!("{} exists already; name another file with --out, or replace it with --force", new.display());
        }
    }
    Ok(new)
}

/// The description beside a checkpoint.
fn beside(checkpoint: &Path) -> PathBuf {
    checkpoint.with_extension("json")
}

/// PGD with the defaults of `fairtat eval`.
fn attack(arguments: &NormalizeHeadArgs, experiment: &Experiment, shape: ImageShape) -> Result<Attack> {
    let run = run_steps(experiment);
    let epsilon = arguments.epsilon.unwrap_or(run.eval_epsilon);
    for (flag, distance) in [("--epsilon", Some(epsilon)), ("--step-size", arguments.step_size)] {
        if let Some(distance) = distance {
            check_distance(distance, run.norm, Some(shape)).map_err(|what| Usage(format!("{flag}: {what}")))?;
        }
    }
    let step_size = evaluation_step_size(run.norm, epsilon, arguments.steps, arguments.step_size, &run);
    let pgd = Attack::pgd(epsilon, step_size, arguments.steps, run.norm, arguments.seed);
    Ok(Attack { restarts: arguments.restarts, ..pgd })
}

/// An evaluation that is ready to begin.
struct Test {
    /// With the weights of the old checkpoint.
    engine: Box<dyn Engine>,
    set: std::sync::Arc<Dataset>,
    attack: Attack,
}

impl Test {
    /// Evaluates the old weights, then those of `new`.
    fn evaluate(mut self, arguments: &NormalizeHeadArgs, experiment: &Experiment, new: &State) -> Result<Evaluation> {
        let mut warnings: Vec<String> = self.attack.warning().into_iter().collect();
        for warning in &warnings {
            tell!("warning: {warning}");
        }
        let batch_size = arguments.stored.batch_size(experiment);
        let stop = interrupt::stops("after this batch");
        let attacks = [Attack::clean(), self.attack];
        let mut both = |engine: &mut dyn Engine, when: &str| -> Result<[Report; 2]> {
            let mut one = |attack: &Attack| -> Result<Report> {
                let bar = progress::images(self.set.len(), format!("{when}: evaluating {attack}"));
                let measured = measure(engine, &self.set, attack, batch_size, &mut |_, done| {
                    bar.set_position(done as u64);
                    !stop.load(Ordering::SeqCst)
                })?;
                bar.finish_and_clear();
                let Some(measured) = measured else {
                    bail!(Stopped(format!("Stopped before {attack} was done; nothing was written")))
                };
                if let Some(warning) = measured.warning() {
                    let warning = format!("{when}: {warning}");
                    tell!("warning: {warning}");
                    warnings.push(warning);
                }
                Ok(measured.report(self.set.class_names()))
            };
            Ok([one(&attacks[0])?, one(&attacks[1])?])
        };
        let before = both(self.engine.as_mut(), "before")?;
        self.engine.load_model(new)?;
        let after = both(self.engine.as_mut(), "after")?;
        Ok(Evaluation { dataset: experiment.data.dataset.clone(), before, after, warnings })
    }
}

fn report(
    old: &Path,
    new: &Path,
    norms: &HeadNorms,
    class_names: &[String],
    evaluation: Option<Evaluation>,
) -> PostReport {
    let class = |k: usize| class_names.get(k).cloned().unwrap_or_else(|| k.to_string());
    PostReport {
        post: NORMALIZE_HEAD,
        checkpoint: old.display().to_string(),
        written: new.display().to_string(),
        layer: norms.layer.clone(),
        rows: norms.before.iter().enumerate().map(|(k, norm)| Row { class: class(k), norm: *norm }).collect(),
        mean_norm: norms.mean,
        zero_rows: norms.zero_rows().into_iter().map(class).collect(),
        evaluation,
    }
}

/// Writes the description of the new checkpoint if the old one has one: the same without what was measured with the old
/// weights, and with what was done.
fn describe(old: &Path, new: &Path, report: &PostReport) -> Result<()> {
    let path = beside(old);
    let read = |path: &Path| -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
        if !path.exists() {
            return Ok(None);
        }
        let found = serde_json::from_slice(&files::read(path)?).ok();
        if found.is_none() {
            tell!("warning: {} is not a JSON object, so the new checkpoint gets no description", path.display());
        }
        Ok(found)
    };
    let Some(mut description) = read(&path)? else {
        // The description of a checkpoint that was replaced.
        let stale = beside(new);
        if stale.exists() {
            std::fs::remove_file(&stale).with_context(|| stale.display().to_string())?;
        }
        return Ok(());
    };
    for measured in ["validation", "score"] {
        if let Some(value) = description.get_mut(measured) {
            *value = serde_json::Value::Null;
        }
    }
    // These mark the best checkpoint of a comparison, which the new one was not part of.
    for marker in ["until_epoch", "attack"] {
        description.remove(marker);
    }
    description.insert("post".into(), serde_json::to_value(report)?);
    write_json(&beside(new), &description)
}

/// An accuracy with its 95 % interval.
fn accuracy(value: f64, [low, high]: [f64; 2]) -> String {
    format!("{:>5.1} % {:<14}", 100.0 * value, format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high))
}

fn text(report: &PostReport) -> String {
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        text += cells.join("  ").trim_end();
        text += "\n";
    };
    let width = report.rows.iter().map(|row| row.class.chars().count()).max().unwrap_or(0).max(12);
    if let Some(Evaluation { dataset, before, after, warnings }) = &report.evaluation {
        let images = counted_as(before[0].images as usize, "image", "images");
        line(&[format!("{} on {dataset} (test, {images})", report.checkpoint)]);
        line(&["In brackets: 95 % intervals.\n".into()]);
        line(&[format!("{:width$}", ""), format!("{:>7} {:14}", "before", ""), format!("{:>7}", "after")]);
        for (name, attack) in [("clean", 0), ("robust", 1)] {
            let mean = |r: &[Report; 2]| accuracy(r[attack].accuracy, r[attack].interval);
            let worst = |r: &[Report; 2]| accuracy(r[attack].worst_class_accuracy, r[attack].worst_class_interval);
            line(&[format!("{:width$}", format!("{name} mean")), mean(before), mean(after)]);
            line(&[format!("{:width$}", format!("{name} worst")), worst(before), worst(after)]);
            if before[attack].shown_worst_tenth().is_some() {
                let tenth = |r: &[Report; 2]| format!("{:>5.1} % {:14}", 100.0 * r[attack].worst_tenth_accuracy, "");
                line(&[format!("{:width$}", format!("{name} worst 10 %")), tenth(before), tenth(after)]);
            }
        }
        line(&[format!("\nrobust: {}", before[1].attack)]);
        for (when, [_, robust]) in [("before", before), ("after", after)] {
            let Report { worst_class, worst_class_accuracy, worst_class_interval, worst_class_ties, .. } = robust;
            let worst =
                describe_worst_class(worst_class, *worst_class_accuracy, *worst_class_interval, worst_class_ties);
            line(&[format!("    worst class {when}: {worst}")]);
            if robust.images_without_gradient > 0 {
                let without = describe_without_gradient(robust.images_without_gradient, robust.images);
                line(&[format!("    {when}: {without}")]);
            }
        }
        for warning in warnings {
            line(&[format!("    warning: {warning}")]);
        }
        line(&[String::new()]);
    }
    let PostReport { layer, mean_norm, .. } = report;
    line(&[format!("Row norms of '{layer}' before; the mean, {mean_norm:.4}, is the norm of all rows after.\n")]);
    let robust = report.evaluation.as_ref().map(|evaluation| [&evaluation.before[1], &evaluation.after[1]]);
    let heads = [format!("{:width$}", ""), format!("{:>9}", "row norm")];
    line(&match robust {
        Some(_) => [&heads[..], &[format!("{:22}", "robust before"), "robust after".into()]].concat(),
        None => heads.to_vec(),
    });
    for (k, Row { class, norm }) in report.rows.iter().enumerate() {
        let row = [format!("{class:width$}"), format!("{norm:>9.4}")];
        let cell = |report: &Report| {
            let class = &report.classes[k];
            class.accuracy.map_or_else(|| format!("{:22}", "n/a"), |value| accuracy(value, class.interval))
        };
        line(&match robust {
            Some([before, after]) => [&row[..], &[cell(before), cell(after)]].concat(),
            None => row.to_vec(),
        });
    }
    if !report.zero_rows.is_empty() {
        let classes = report.zero_rows.join(", ");
        line(&[format!("\nUnchanged, because the row is 0 and has no direction; not part of the mean: {classes}.")]);
    }
    line(&[format!("\nWritten: {}", report.written)]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoints_of_a_run_in_progress_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path(), &Experiment::default()).unwrap();
        for path in [dir.path().to_path_buf(), run.checkpoint("last")] {
            let error = claim(&path).unwrap_err().to_string();
            assert!(error.contains("is in use by process"), "{error}");
        }
        drop(run);
        assert!(claim(dir.path()).unwrap().is_some() && claim(Path::new("elsewhere.safetensors")).unwrap().is_none());
    }

    #[test]
    fn rows_that_are_zero_are_named() {
        let norms = |before: &[f64]| HeadNorms { layer: "fc".into(), before: before.to_vec(), mean: 2.0 };
        let text = |before: &[f64], names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            text(&report(Path::new("a.safetensors"), Path::new("b.safetensors"), &norms(before), &names, None))
        };
        let shown = text(&[1.0, 0.0, 3.0], &["cat", "dog", "eel"]);
        assert!(shown.starts_with("Row norms of 'fc' before; the mean, 2.0000, is the norm of all rows"), "{shown}");
        assert!(shown.contains(&format!("\ndog{:14}0.0000\n", "")), "{shown}");
        assert!(shown.contains("\nUnchanged, because the row is 0 and has no direction"), "{shown}");
        assert!(shown.contains("not part of the mean: dog.\n") && shown.ends_with("\nWritten: b.safetensors\n"));
        let shown = text(&[1.0, 3.0], &[]);
        assert!(shown.contains(&format!("\n1{:16}3.0000\n", "")) && !shown.contains("Unchanged"), "{shown}");
    }

    #[test]
    fn arrays_are_found_under_the_prefixes_of_other_programs() {
        let state = |names: &[&str]| {
            let arrays = names.iter().map(|name| ((*name).to_owned(), crate::model::Array::zeros(&[1])));
            State(arrays.collect())
        };
        let names = |state: State| state.0.into_keys().collect::<Vec<_>>();
        for prefix in ["", "module.", "1.", "module.1."] {
            let stored: Vec<String> =
                ["linear.weight", "linear.bias", "a.linear.weight"].map(|name| format!("{prefix}{name}")).into();
            let arrays = state(&stored.iter().map(String::as_str).collect::<Vec<_>>());
            let contents = Contents { arrays, metadata: BTreeMap::new() };
            let renamed = contents.renamed(&contents.state(), "linear");
            assert_eq!(names(renamed), [format!("{prefix}linear.bias"), format!("{prefix}linear.weight")]);
        }
    }
}
