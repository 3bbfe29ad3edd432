//! `fairtat train` and `fairtat resume`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::overrides::{EngineOverride, ExperimentArgs, Source};
use super::print;
use super::progress::Terminal;
use crate::config::{Derived, Experiment};
use crate::evaluate::FinalReport;
use crate::train::RunDir;
use crate::worker::session::{self, Ending, RunStart, SessionError};

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    #[command(flatten)]
    source: Source,
    /// Directory for the run, which must not hold a run yet [default: a new one in runs/, named after the preset or
    /// data set]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    fields: ExperimentArgs,
}

impl TrainArgs {
    /// The arguments of a call without any.
    pub(super) fn default_preset() -> Self {
        Self { source: Source::default(), run_dir: None, fields: ExperimentArgs::default() }
    }

    /// The experiment that would be trained.
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
    let asked = arguments.fields.asked(&arguments.source)?;
    asked.tell()?;
    let directory = match arguments.run_dir {
        Some(path) => RunDir::at(path),
        None => RunDir::claim_free(Path::new("runs"), &asked.name)?,
    };
    run_new(asked.experiment, asked.derived.as_ref(), directory).map(|_| ())
}

/// Trains an experiment in a new directory and returns the report. `None` if the run was stopped. `derived` is written
/// to its config.toml.
pub(super) fn run_new(
    experiment: Experiment,
    derived: Option<&Derived>,
    directory: RunDir,
) -> Result<Option<Box<FinalReport>>> {
    let derived = derived.cloned().map(Box::new);
    drive(RunStart::New { experiment: Box::new(experiment), directory, derived })
}

pub(super) fn resume(arguments: &ResumeArgs) -> Result<()> {
    resume_run(&arguments.dir, &arguments.engine).map(|_| ())
}

/// Continues a run and returns the report. `None` if it was stopped again.
pub(super) fn resume_run(path: &Path, engine: &EngineOverride) -> Result<Option<Box<FinalReport>>> {
    let mut run = RunDir::open(path)?.1.run;
    engine.put_over(&mut run);
    let engine = (!engine.is_empty()).then(|| run.engine_options());
    drive(RunStart::Resume { directory: path.to_path_buf(), engine })
}

fn drive(start: RunStart) -> Result<Option<Box<FinalReport>>> {
    let path = start.directory().to_path_buf();
    let mut terminal = Terminal::new();
    let ended = session::run(start, &mut terminal);
    terminal.finish();
    let (ending, _) = ended.map_err(|error| match error {
        // So that contradictions count as wrong usage.
        SessionError::Config(error) => error.into(),
        other => anyhow::Error::from(other),
    })?;
    match ending {
        Ending::Finished(report) => {
            print(&report.table())?;
            let figures = path.join("figures");
            eprintln!("Figures: {}  Checkpoints: {}", figures.display(), path.join("checkpoints").display());
            Ok(Some(report))
        }
        Ending::Stopped | Ending::Discarded => {
            let when = if terminal.tested { " before the evaluation was complete" } else { "" };
            eprintln!("Stopped{when}. Continue with: fairtat resume {}", shown(&path));
            Ok(None)
        }
    }
}

/// A path, quoted for a shell if necessary.
fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_alphanumeric() || "/._-+".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
