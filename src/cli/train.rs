//! `fairtat train` and `fairtat resume`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::overrides::{EngineOverride, ExperimentArgs, Source};
use super::print;
use super::progress::Terminal;
use crate::config::Experiment;
use crate::evaluate;
use crate::train::{Outcome, RunDir, Splits, Trainer};

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    source: Source,
    /// Directory for the run, which must not hold one yet [default: a new one in runs/, named after the preset]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    fields: ExperimentArgs,
}

impl TrainArgs {
    /// What runs without any argument.
    pub(super) fn default_preset() -> Self {
        Self { source: Source::default(), run_dir: None, fields: ExperimentArgs::default() }
    }

    /// What would be trained.
    #[cfg(test)]
    pub(super) fn experiment(&self) -> Result<Experiment> {
        self.fields.experiment(&self.source)
    }
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// Directory of the run
    dir: PathBuf,
    #[command(flatten)]
    engine: EngineOverride,
}

pub(super) fn train(arguments: TrainArgs) -> Result<()> {
    let (experiment, name) = arguments.fields.named(&arguments.source)?;
    let path = arguments.run_dir.unwrap_or_else(|| free_directory(Path::new("runs"), &name));
    run_new(experiment, &path).map(|_| ())
}

/// Trains an experiment in a new directory; gives the report, or none when the run was stopped.
pub(super) fn run_new(experiment: Experiment, path: &Path) -> Result<Option<evaluate::FinalReport>> {
    let mut experiment = experiment;
    if let Some(data) = &mut experiment.data.path {
        // A resume may be called from elsewhere.
        *data = std::path::absolute(&data)?;
    }
    let splits = load(&experiment)?;
    let directory = RunDir::create(path, &experiment)?;
    match Trainer::begin(experiment, splits, directory.clone()) {
        Ok(trainer) => drive(trainer),
        Err(error) => {
            directory.abandon();
            Err(error.into())
        }
    }
}

pub(super) fn resume(arguments: &ResumeArgs) -> Result<()> {
    resume_run(&arguments.dir, &arguments.engine).map(|_| ())
}

/// Goes on with a run; gives the report, or none when it was stopped again.
pub(super) fn resume_run(path: &Path, engine: &EngineOverride) -> Result<Option<evaluate::FinalReport>> {
    let (directory, mut experiment) = RunDir::open(path)?;
    engine.put_over(&mut experiment.run);
    experiment.validate()?;
    if !directory.checkpoint("resume").exists() {
        eprintln!("{} was stopped before its first checkpoint; beginning anew.", path.display());
        let splits = load(&experiment)?;
        return drive(Trainer::begin(experiment, splits, directory)?);
    }
    let splits = load(&experiment)?;
    let trainer = Trainer::resume(experiment, splits, directory)
        .with_context(|| format!("{} cannot be resumed", path.display()))?;
    drive(trainer)
}

fn load(experiment: &Experiment) -> Result<Splits> {
    let _spinner = super::progress::spinner(format!("loading {}", experiment.data.dataset));
    Splits::load(experiment).with_context(|| format!("data set '{}'", experiment.data.dataset))
}

fn drive(mut trainer: Trainer) -> Result<Option<evaluate::FinalReport>> {
    let path = trainer.directory().path().to_path_buf();
    let parameters = count(&mut trainer);
    let experiment = trainer.experiment();
    let splits = trainer.splits();
    eprintln!(
        "{} on {}: {} ({parameters} parameters); {} images to train on, {} for validation, {} for test.",
        experiment.fairness.method.title(),
        experiment.data.dataset,
        experiment.model.arch,
        splits.train.len(),
        splits.validation.len(),
        splits.test.len(),
    );
    let images = splits.train.len();
    eprintln!("Engine: {}. Run directory: {}", trainer.engine().describe(), path.display());
    let mut terminal = Terminal::new(images);
    let outcome = trainer.run(&mut terminal);
    terminal.finish();
    if outcome? == Outcome::Stopped {
        eprintln!("Stopped. Go on with: fairtat resume {}", shown(&path));
        return Ok(None);
    }
    let report = evaluate::finish(&mut trainer, &mut terminal);
    terminal.finish();
    match report? {
        Some(report) => {
            print(&report.table())?;
            let figures = path.join("figures");
            eprintln!("Figures: {}  Checkpoints: {}", figures.display(), path.join("checkpoints").display());
            Ok(Some(report))
        }
        None => {
            eprintln!("Stopped before the evaluation was done. Go on with: fairtat resume {}", shown(&path));
            Ok(None)
        }
    }
}

fn count(trainer: &mut Trainer) -> String {
    let digits = trainer.engine().network().parameter_count().to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

/// A path as it can be typed into a shell.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// `parent/name`, or `parent/name-2` and so on where that is taken.
fn free_directory(parent: &Path, name: &str) -> PathBuf {
    let numbered = (2u32..).map(|n| parent.join(format!("{name}-{n}")));
    let mut candidates = std::iter::once(parent.join(name)).chain(numbered);
    candidates.find(|path| !path.exists()).unwrap_or_else(|| parent.join(name))
}
