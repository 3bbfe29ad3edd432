//! What the directories of a study hold.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::measure::{Measured, measured};
use super::{PlannedRun, StudyError, StudyFile};
use crate::config::Experiment;
use crate::evaluate::FinalReport;
use crate::files;
use crate::lock;
use crate::train::{MetricsRow, RunDir};

/// A run that is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Finished {
    /// Directory of the study that holds it.
    pub study: PathBuf,
    /// Its experiment, as its config.toml has it.
    pub experiment: Experiment,
    /// Its evaluation on the test set.
    pub report: FinalReport,
    /// One row for each epoch.
    pub rows: Vec<MetricsRow>,
    /// What was measured afterwards; `None` if nothing was.
    pub measured: Option<Measured>,
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It is complete.
    Finished(Box<Finished>),
    /// It ended with an error.
    Failed(String),
    /// A process is at work on it.
    Running {
        /// The process, in words.
        holder: String,
        /// Epochs that are complete.
        epochs: u32,
    },
    /// It was begun and has not ended.
    Stopped {
        /// Epochs that are complete.
        epochs: u32,
    },
    /// It has not begun.
    Waiting,
}

/// A file that contradicts another one or cannot be read.
pub type Problem = String;

/// What became of all runs of a study, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results {
    /// The runs of the plan, in no particular order.
    pub runs: BTreeMap<String, Outcome>,
    /// What is wrong with the directories.
    pub problems: Vec<Problem>,
}

/// The file with the error of a run that failed.
pub fn name_of_failure(study: &Path, run: &str) -> PathBuf {
    study.join(format!("{run}.failed.txt"))
}

/// The text of the study in `directory`.
///
/// # Errors
/// If it holds none.
pub fn find_study(directory: &Path) -> Result<(String, PathBuf), StudyError> {
    let file = directory.join("study.toml");
    if !file.exists() {
        let what = "expected the directory of a study, with a study.toml".to_owned();
        return Err(StudyError::Directory { path: directory.into(), what });
    }
    Ok((files::read_to_string(&file)?, file))
}

/// The study whose parts are in `directories`, and its runs.
///
/// # Errors
/// If a directory holds no study, or one of them another than the first.
pub fn open_study(directories: &[PathBuf]) -> Result<(StudyFile, Vec<PlannedRun>), StudyError> {
    let mut first: Option<(StudyFile, PathBuf)> = None;
    for directory in directories {
        let (text, path) = find_study(directory)?;
        let file = StudyFile::from_toml(&text, &path.display().to_string())?;
        match &first {
            None => first = Some((file, path)),
            Some((known, _)) if *known == file => {}
            Some((_, other)) => return Err(StudyError::Different { first: other.clone(), second: path }),
        }
    }
    let nothing = || StudyError::Directory { path: PathBuf::new(), what: "expected the directory of a study".into() };
    let (file, _) = first.ok_or_else(nothing)?;
    let plan = file.runs()?;
    Ok((file, plan))
}

impl Outcome {
    /// What became of `run`, in words. `measures` is whether something is measured with its network after training.
    pub fn described(&self, run: &PlannedRun, measures: bool) -> String {
        let epochs = run.experiment.optimizer.epochs;
        match self {
            Self::Finished(finished) if measures && finished.measured.is_none() => "complete, not measured yet".into(),
            Self::Finished(_) => "complete".into(),
            Self::Failed(what) => format!("failed: {what}"),
            Self::Running { holder, epochs: at } => format!("epoch {} of {epochs}, {holder}", at + 1),
            Self::Stopped { epochs: at } => format!("stopped after {at} of {epochs} epochs"),
            Self::Waiting => "waiting".into(),
        }
    }
}

impl Results {
    /// Reads what `directories` hold of `plan`. The parts of a divided study may be in several of them; a run that is
    /// complete in one of them is complete.
    pub fn read(directories: &[PathBuf], plan: &[PlannedRun]) -> Self {
        let mut results = Self::default();
        for run in plan {
            let mut best = Outcome::Waiting;
            for directory in directories {
                match outcome(directory, &run.name) {
                    Ok(found) => best = results.better(run, best, found),
                    Err(problem) => results.problems.push(problem),
                }
            }
            results.runs.insert(run.name.clone(), best);
        }
        results
    }

    /// The one that says more. Two complete runs of one name must be equal.
    fn better(&mut self, run: &PlannedRun, known: Outcome, found: Outcome) -> Outcome {
        if let (Outcome::Finished(a), Outcome::Finished(b)) = (&known, &found) {
            if a.report != b.report {
                let [a, b] = [&a.study, &b.study].map(|path| path.display().to_string());
                self.problems.push(format!("{}: {a} and {b} hold different results; the first is used", run.name));
            } else if a.measured.is_none() && b.measured.is_some() {
                return found;
            }
            return known;
        }
        let rank = |outcome: &Outcome| match outcome {
            Outcome::Finished(_) => 4,
            Outcome::Running { .. } => 3,
            Outcome::Failed(_) => 2,
            Outcome::Stopped { .. } => 1,
            Outcome::Waiting => 0,
        };
        if rank(&found) > rank(&known) { found } else { known }
    }

    /// A run that is complete.
    pub fn finished(&self, run: &str) -> Option<&Finished> {
        match self.runs.get(run) {
            Some(Outcome::Finished(finished)) => Some(finished),
            _ => None,
        }
    }
}

fn outcome(study: &Path, run: &str) -> Result<Outcome, Problem> {
    let directory = study.join(run);
    let failure = name_of_failure(study, run);
    if !directory.join("config.toml").exists() {
        return match files::read_to_string(&failure) {
            Ok(what) => Ok(Outcome::Failed(what.trim().to_owned())),
            Err(_) if failure.exists() => Ok(Outcome::Failed("its error cannot be read".into())),
            Err(_) => {
                Ok(lock::holder(&directory).map_or(Outcome::Waiting, |holder| Outcome::Running { holder, epochs: 0 }))
            }
        };
    }
    let told = |error: &dyn std::fmt::Display| format!("{run}: {error}");
    let (opened, experiment) = RunDir::open(&directory).map_err(|error| told(&error))?;
    let epochs = |rows: &[MetricsRow]| rows.last().map_or(0, |row| row.epoch + 1);
    if let Some(holder) = lock::holder(&directory) {
        let rows = opened.read_rows().map(|(rows, _)| rows).unwrap_or_default();
        return Ok(Outcome::Running { holder, epochs: epochs(&rows) });
    }
    let path = directory.join("evaluation.json");
    if !path.exists() {
        if let Ok(what) = files::read_to_string(&failure) {
            return Ok(Outcome::Failed(what.trim().to_owned()));
        }
        let rows = opened.read_rows().map_err(|error| told(&error))?.0;
        return Ok(Outcome::Stopped { epochs: epochs(&rows) });
    }
    let rows = opened.read_rows().map_err(|error| told(&error))?.0;
    let bytes = files::read(&path).map_err(|error| told(&error))?;
    let report: FinalReport = serde_json::from_slice(&bytes)
        .map_err(|error| format!("{}: {error}; the study writes it again", path.display()))?;
    let measured = measured(study, run);
    Ok(Outcome::Finished(Box::new(Finished { study: study.into(), experiment, report, rows, measured })))
}
