//! What an evaluation would do: the checkpoints, the ball of each, and where its report goes.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{EvaluationJob, Foreign};
use crate::attack::norm_name;
use crate::config::Experiment;
use crate::engine::Norm;
use crate::evaluate::robustness::{Entry, Held, held, sha256};
use crate::files::FileError;
use crate::model::pytorch::{ImportError, Options};
use crate::train::{StoredError, StoredNetwork, run_steps};
use crate::units::Epsilon;
use crate::worker::{Failure, failure};

/// The advice for a checkpoint without an experiment.
const FOREIGN: &str = "Set the panel Experiment to the experiment that it belongs to, then tick “Files without an experiment \
                       belong to that of the panel Experiment”.";

/// The advice for a checkpoint of another program whose normalisation is not known.
const NORMALISATION: &str = "Name it in the field “Normalisation” below the checkpoints.";

/// What an evaluation would do.
#[derive(Debug, Clone)]
pub struct Prospect {
    /// The job.
    pub job: EvaluationJob,
    /// Its checkpoints, in order.
    pub checkpoints: Vec<Candidate>,
}

/// A checkpoint of a job.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// As the user named it.
    pub path: PathBuf,
    /// What is known about it, or why it cannot be evaluated.
    pub found: Result<Known, Failure>,
}

/// What is known about a checkpoint before it is evaluated.
#[derive(Debug, Clone)]
pub struct Known {
    /// Method, architecture, data set, epochs, ball, in one line.
    pub about: String,
    /// Radius and norm of its experiment's evaluation.
    pub own: (Epsilon, Norm),
    /// The attacks, or why there are none.
    pub entries: Result<Vec<Entry>, String>,
    /// Directory of the report.
    pub directory: PathBuf,
    /// What that holds.
    pub held: Held,
}

/// What was read from a file.
#[derive(Debug, Clone)]
struct Read {
    path: PathBuf,
    changed: Option<SystemTime>,
    foreign: Option<Foreign>,
    experiment: Experiment,
    about: String,
    sha256: String,
}

/// Files that have been read.
#[derive(Debug, Default)]
pub(super) struct Library {
    files: Vec<Read>,
}

impl Library {
    pub(super) fn prospect(&mut self, job: &EvaluationJob) -> Prospect {
        self.files.retain(|read| job.checkpoints.contains(&read.path));
        let mut taken = Vec::new();
        let mut candidate = |(checkpoint, path): (usize, &PathBuf)| {
            let found = self.read(path, job).map(|read| {
                let plan = job.plan(&read.experiment);
                let known = serde_json::json!({
                    "program": concat!("fairtat ", env!("CARGO_PKG_VERSION")),
                    "checkpoint_sha256": read.sha256,
                    "limit": job.limit,
                    "attacks": plan.as_ref().map(|plan| serde_json::to_value(plan).unwrap_or_default()).ok(),
                    "batch_size": read.experiment.evaluation.eval_batch_size,
                    "keep_images": job.keep_images,
                });
                let (directory, held) = directory(job, checkpoint, &known, &taken);
                taken.push(directory.clone());
                let run = run_steps(&read.experiment);
                Known {
                    about: read.about.clone(),
                    own: (run.eval_epsilon, run.norm),
                    entries: plan.map(|plan| plan.entries),
                    directory,
                    held,
                }
            });
            Candidate { path: path.clone(), found }
        };
        let checkpoints = job.checkpoints.iter().enumerate().map(&mut candidate).collect();
        Prospect { job: job.clone(), checkpoints }
    }

    fn read(&mut self, path: &Path, job: &EvaluationJob) -> Result<&Read, Failure> {
        let file = if path.is_dir() { path.join("checkpoints").join("best.safetensors") } else { path.to_path_buf() };
        let changed = std::fs::metadata(&file).and_then(|facts| facts.modified()).ok();
        let is_known = |read: &Read| read.path == path && read.changed == changed && read.foreign == job.foreign;
        if let Some(at) = self.files.iter().position(is_known) {
            return Ok(&self.files[at]);
        }
        self.files.retain(|read| read.path != path);
        let stored = load(path, job)?;
        let sha256 = sha256(&stored.file).map_err(|error| unreadable(path, error))?;
        let (experiment, about) = (stored.experiment.clone(), about(&stored));
        let foreign = job.foreign.clone();
        self.files.push(Read { path: path.to_path_buf(), changed, foreign, experiment, about, sha256 });
        // One has just been added.
        let last = self.files.len() - 1;
        Ok(&self.files[last])
    }
}

/// The directory of a checkpoint's report, and what it holds: an unfinished evaluation that would continue, else the
/// first one that is free. `known` are the values that decide it, `taken` those of other checkpoints.
pub(super) fn directory(
    job: &EvaluationJob,
    checkpoint: usize,
    known: &serde_json::Value,
    taken: &[PathBuf],
) -> (PathBuf, Held) {
    let mut first = None;
    let all = job.directories(checkpoint);
    let only = (all.len() == 1).then(|| all.first().cloned()).flatten();
    for directory in all.into_iter().filter(|directory| !taken.contains(directory)) {
        match held(&directory, known) {
            Held::Same => return (directory, Held::Same),
            Held::Nothing => {
                first.get_or_insert(directory);
                // Numbers are given without gaps.
                break;
            }
            other if only.is_some() => return (directory, other),
            Held::Other(_) | Held::Report => {}
        }
    }
    (first.or(only).unwrap_or_default(), Held::Nothing)
}

/// Reads a checkpoint.
pub(super) fn load(path: &Path, job: &EvaluationJob) -> Result<StoredNetwork, Failure> {
    let stored = match (StoredNetwork::load(path, None), &job.foreign) {
        (Err(StoredError::Foreign { .. }), Some(Foreign { experiment, normalize })) => {
            let options = Options { normalize: normalize.clone(), ..Options::default() };
            StoredNetwork::load_with(path, Some(experiment.as_ref().clone()), &options)
        }
        (loaded, _) => loaded,
    };
    stored.map_err(|error| {
        let failure = failure::of_stored(path, &error);
        let advice = match error {
            StoredError::Foreign { .. } => FOREIGN.into(),
            StoredError::Import(ImportError::Normalisation { .. }) => NORMALISATION.into(),
            _ => failure.advice.unwrap_or_else(|| "Choose another checkpoint.".into()),
        };
        Failure { advice: Some(advice), ..failure }
    })
}

pub(super) fn unreadable(path: &Path, error: FileError) -> Failure {
    failure::of_evaluation(path, &error.into())
}

fn about(stored: &StoredNetwork) -> String {
    let experiment = &stored.experiment;
    let run = run_steps(experiment);
    let method = stored.method().map_or_else(String::new, |method| format!("{method}, "));
    let epochs = stored.position.map_or_else(String::new, |epochs| {
        let unit = if epochs == 1.0 { "epoch" } else { "epochs" };
        format!(", {epochs} {unit}")
    });
    format!(
        "{method}{} on {}{epochs}; {}, ε {}",
        experiment.model.arch,
        experiment.data.dataset,
        norm_name(run.norm),
        run.eval_epsilon
    )
}
