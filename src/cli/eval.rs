//! `fairtat eval`.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::overrides::Source;
use super::{Usage, interrupt, print, progress, write_json};
use crate::attack::{Attack, AttackKind, Report, measure};
use crate::config::{EngineOptions, Experiment};
use crate::data::Dataset;
use crate::engine::Norm;
use crate::train::{RunDir, Splits, Stored, StoredError};
use crate::units::Epsilon;

/// Which images to evaluate on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Test,
    Validation,
    Train,
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// A .safetensors file, or a run directory (its best checkpoint)
    checkpoint: PathBuf,
    /// Attack; more than one may be named
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [AttackKind::Clean, AttackKind::Pgd])]
    attack: Vec<AttackKind>,
    /// Steps of PGD
    #[arg(long, default_value_t = 20)]
    steps: u32,
    /// Radius [default: that of the checkpoint's experiment]
    #[arg(long, value_name = "K/255")]
    epsilon: Option<Epsilon>,
    /// Step size of PGD [default: that of the checkpoint's experiment]
    #[arg(long, value_name = "K/255")]
    step_size: Option<Epsilon>,
    /// Shape of the ball [default: that of the checkpoint's experiment]
    #[arg(long, value_enum)]
    norm: Option<Norm>,
    /// Random starts of PGD; an image counts as robust only if it withstands all of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    restarts: u32,
    /// Seed of the random starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Evaluate the first images of each class only, this many in all
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Which images
    #[arg(long, value_enum, default_value_t = Part::Test)]
    part: Part,
    /// Directory of the data set, when it lies elsewhere than in training
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Images in a batch; results do not depend on it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: Option<u32>,
    #[command(flatten)]
    engine: EngineOptions,
    /// Also write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// For a checkpoint of another program: the experiment that it belongs to
    #[command(flatten)]
    source: Source,
}

#[derive(Debug, serde::Serialize)]
struct EvalReport {
    checkpoint: String,
    dataset: String,
    part: String,
    results: Vec<Report>,
}

pub(super) fn eval(arguments: &EvalArgs) -> Result<()> {
    arguments.engine.validate()?;
    let named = match arguments.source.config.is_some() || arguments.source.preset.is_some() {
        true => Some(super::overrides::ExperimentArgs::default().experiment(&arguments.source)?),
        false => None,
    };
    let mut stored = Stored::load(&arguments.checkpoint, named).map_err(|error| match error {
        StoredError::Foreign { .. } => Usage(format!("{error}; name its experiment with --config or --preset")).into(),
        StoredError::Config(error) => error.into(),
        other => anyhow::Error::from(other),
    })?;
    if arguments.checkpoint.is_dir()
        && let Ok((run, _)) = RunDir::open(&arguments.checkpoint)
    {
        for kept in run.kept_bests() {
            eprintln!("The run was validated under another attack before; not evaluated here is {kept}.");
        }
    }
    let experiment = &mut stored.experiment;
    if let Some(path) = &arguments.path {
        experiment.data.path = Some(path.clone());
    }
    if let Some(limit) = arguments.limit {
        match arguments.part {
            Part::Test => experiment.data.test_limit = Some(limit),
            Part::Train | Part::Validation => {}
        }
    }
    experiment.validate()?;
    let splits = Splits::load(experiment).with_context(|| format!("data set '{}'", experiment.data.dataset))?;
    let mut engine = stored.open(&splits, &arguments.engine)?;
    let set = match arguments.part {
        Part::Test => splits.test,
        Part::Validation => splits.validation,
        Part::Train => splits.train,
    };
    let set = match (arguments.part, arguments.limit) {
        (Part::Train | Part::Validation, Some(limit)) if limit < set.len() => {
            crate::train::limited(Dataset::clone(&set), Some(limit))?.into()
        }
        _ => set,
    };

    let experiment = &stored.experiment;
    let stop = interrupt::flag();
    let batch_size = arguments.batch_size.map_or(experiment.evaluation.eval_batch_size, |n| n as usize);
    let mut results = Vec::new();
    for kind in &arguments.attack {
        let attack = attack(*kind, arguments, experiment);
        let bar = progress::images(set.len(), format!("evaluating {attack}"));
        let measured = measure(engine.as_mut(), &set, &attack, batch_size, &mut |_, done| {
            bar.set_position(done as u64);
            !stop.load(Ordering::SeqCst)
        })?;
        bar.finish_and_clear();
        let Some(measured) = measured else { bail!("stopped before {attack} was done") };
        results.push(measured.report(set.class_names()));
    }
    let part = match arguments.part {
        Part::Test => "test",
        Part::Validation => "validation",
        Part::Train => "train",
    };
    let report = EvalReport {
        checkpoint: stored.file.display().to_string(),
        dataset: experiment.data.dataset.clone(),
        part: part.into(),
        results,
    };
    print(&table(&report))?;
    match &arguments.json {
        Some(path) => write_json(path, &report),
        None => Ok(()),
    }
}

fn attack(kind: AttackKind, arguments: &EvalArgs, experiment: &Experiment) -> Attack {
    let (training, evaluation) = (&experiment.attack, &experiment.evaluation);
    let epsilon = arguments.epsilon.or(evaluation.eval_epsilon).unwrap_or(training.epsilon);
    let step_size = arguments.step_size.or(evaluation.eval_step_size).unwrap_or(training.step_size);
    let norm = arguments.norm.unwrap_or(training.norm);
    match kind {
        AttackKind::Clean => Attack::clean(),
        AttackKind::Fgsm => Attack::fgsm(epsilon, norm),
        AttackKind::Pgd => {
            let pgd = Attack::pgd(epsilon, step_size, arguments.steps, norm, arguments.seed);
            Attack { restarts: arguments.restarts, ..pgd }
        }
    }
}

/// Classes as rows, attacks as columns, and the attacks named below.
fn table(report: &EvalReport) -> String {
    let images = report.results.first().map_or(0, |r| r.images);
    let mut text = format!("{} on {} ({}, {images} images)\n\n", report.checkpoint, report.dataset, report.part);
    let short = |i: usize| format!("[{}]", i + 1);
    let classes = report.results.first().map_or(&[][..], |r| &r.classes);
    let width = classes.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(12);
    let mut line = |name: &str, cell: &dyn Fn(&Report) -> f64| {
        let cells: Vec<String> = report.results.iter().map(|r| format!("{:>7.1} %", 100.0 * cell(r))).collect();
        text += &format!("{name:<width$} {}\n", cells.join(" "));
    };
    line("mean", &|r| r.accuracy);
    line("worst class", &|r| r.worst_class_accuracy);
    line("gap", &|r| r.gap);
    for (k, class) in classes.iter().enumerate() {
        line(&class.name, &|r| r.classes[k].accuracy);
    }
    let header: Vec<String> = (0..report.results.len()).map(|i| format!("{:>9}", short(i))).collect();
    let at = text.find("\n\n").map_or(0, |at| at + 2);
    text.insert_str(at, &format!("{:<width$} {}\n", "", header.join(" ")));
    text += "\n";
    for (i, result) in report.results.iter().enumerate() {
        text += &format!("{} {} (worst class: {})\n", short(i), result.attack, result.worst_class);
    }
    text
}
