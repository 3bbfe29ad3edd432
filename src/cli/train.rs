//! `fairtat train` and `fairtat resume`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::overrides::{EngineOverride, ExperimentArgs, Source};
use super::progress::Terminal;
use super::{print_or_warn, shell_word};
use crate::config::{Derived, Experiment};
use crate::console::tell;
use crate::engine::EngineError;
use crate::evaluate::FinalReport;
use crate::train::{RunDir, TrainError};
use crate::worker::session::{self, Ending, RunStart, SessionError};
use crate::worker::{is_full, sentence};

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
    /// Go on with a config.toml or with images that are not those of the checkpoint, even if that alters the method
    #[arg(long)]
    accept_changes: bool,
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
    run_new(asked.experiment, asked.derived.as_ref(), directory).map(show)
}

/// Prints the accuracies of a run that is complete; `evaluation.json` has them too.
fn show(report: Option<Box<FinalReport>>) {
    if let Some(report) = report {
        print_or_warn(&report.table());
    }
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
    resume_run(&arguments.dir, &arguments.engine, arguments.accept_changes).map(show)
}

/// Continues a run and returns the report. `None` if it was stopped again.
pub(super) fn resume_run(
    path: &Path,
    engine: &EngineOverride,
    accept_changes: bool,
) -> Result<Option<Box<FinalReport>>> {
    let mut run = RunDir::open(path)?.1.run;
    engine.put_over(&mut run);
    let engine = (!engine.is_empty()).then(|| run.engine_options());
    drive(RunStart::Resume { directory: path.to_path_buf(), engine, accept_changes })
}

fn drive(start: RunStart) -> Result<Option<Box<FinalReport>>> {
    let path = start.directory().to_path_buf();
    let is_new = matches!(start, RunStart::New { .. });
    let mut terminal = Terminal::new();
    let ended = session::run(start, &mut terminal);
    terminal.finish();
    let ending = match ended {
        Ok((ending, _)) => ending,
        Err(SessionError::Stopped) => {
            match is_new {
                true => tell!("Stopped before training began."),
                false => tell!("Stopped before training went on. Continue with: {}", resume_command(&path)),
            }
            return Ok(None);
        }
        Err(error) => return Err(explained(error, &path)),
    };
    match ending {
        Ending::Finished(report) => {
            let figures = path.join("figures");
            tell!("Figures: {}  Checkpoints: {}", figures.display(), path.join("checkpoints").display());
            Ok(Some(report))
        }
        Ending::Stopped | Ending::Discarded => {
            let when = if terminal.tested { " before the evaluation was complete" } else { "" };
            tell!("Stopped{when}. Continue with: {}", resume_command(&path));
            Ok(None)
        }
    }
}

fn resume_command(path: &Path) -> String {
    format!("fairtat resume {}", shell_word(path.as_os_str()))
}

/// An error of a run. Contradictions of the experiment count as wrong usage; a run that had begun continues with a command
/// that is named, unless it would fail in the same way.
fn explained(error: SessionError, path: &Path) -> anyhow::Error {
    match error {
        SessionError::Config(error) | SessionError::Begin(TrainError::Config(error)) => error.into(),
        SessionError::Train(TrainError::Engine(EngineError::NotFinite { .. } | EngineError::TooLarge(_))) => {
            error.into()
        }
        SessionError::Train(_) | SessionError::Report(_) if path.join("config.toml").exists() => {
            let first = if is_full(&error) { "free some space on that disk, then " } else { "" };
            let (what, command) = (sentence(&error), resume_command(path));
            anyhow::anyhow!("{what}; {first}`{command}` continues from the last checkpoint")
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;
    use crate::config::ConfigError;
    use crate::files::FileError;

    #[test]
    fn errors_of_a_run_say_how_it_continues_and_contradictions_are_wrong_usage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a run");
        let failed = |kind: ErrorKind| {
            let file = FileError::writing("events")(kind.into());
            explained(SessionError::Train(TrainError::TensorBoard(file)), &path).to_string()
        };
        assert!(!failed(ErrorKind::StorageFull).contains("fairtat resume"), "there is no run to resume");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("config.toml"), "").unwrap();
        let command = format!("`fairtat resume '{}'` continues from the last checkpoint", path.display());
        let full = failed(ErrorKind::StorageFull);
        assert!(full.starts_with("cannot write events: "), "{full}");
        assert!(full.ends_with(&format!("; free some space on that disk, then {command}")), "{full}");
        assert!(failed(ErrorKind::BrokenPipe).ends_with(&format!("; {command}")));
        let contradiction = || ConfigError::Invalid { field: "fairness.fixed_target", what: "found 10".into() };
        for error in [SessionError::Config(contradiction()), SessionError::Begin(TrainError::Config(contradiction()))] {
            assert!(super::super::is_usage(&explained(error, &path)));
        }
        let diverged = EngineError::NotFinite { what: "loss".into(), batch: 8 };
        assert!(!explained(SessionError::Train(diverged.into()), &path).to_string().contains("fairtat resume"));
    }
}
