//! The window's view of an evaluation, and its part of the application.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::level::Level;
use super::window::App;
use crate::worker::Failure;
use crate::worker::evaluation::{
    AttackProgress, Began, EvaluationEnd, EvaluationJob, EvaluationStage, EvaluationUpdate, Evaluator, FallenImages,
    FinishedEvaluation, Prospect,
};

/// The state of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EvaluationStatus {
    /// There is no evaluation yet.
    #[default]
    Empty,
    /// Attacks are under way, or about to begin.
    Running,
    /// The user has cancelled; the thread ends after the pass of the network that is under way.
    Cancelling,
    /// Cancelled; it can be resumed.
    Cancelled,
    /// All checkpoints are evaluated, or have failed.
    Done,
}

/// One checkpoint of the job.
#[derive(Debug, Clone, Default)]
pub struct CheckpointView {
    /// As the user named it.
    pub path: PathBuf,
    /// What is being done beside attacks; `None` while attacks run.
    pub stage: Option<EvaluationStage>,
    /// What is known since the attacks began.
    pub began: Option<Box<Began>>,
    /// Progress of each attack; `None` before it begins.
    pub progress: Vec<Option<AttackProgress>>,
    /// The result.
    pub finished: Option<Arc<FinishedEvaluation>>,
    /// Images that fell to each attack.
    pub fallen: Vec<Option<Arc<FallenImages>>>,
    /// Why there is no result.
    pub failure: Option<Failure>,
}

impl CheckpointView {
    /// A short name: the run with the name of the weights, or the name of the file.
    pub fn name(&self) -> String {
        short_name(&self.path)
    }

    /// Attacks that are done, and the part of the one under way.
    pub fn share(&self) -> f64 {
        let share = |progress: &Option<AttackProgress>| {
            progress.map_or(0.0, |now| if now.images == 0 { 1.0 } else { now.done / now.images as f64 })
        };
        self.progress.iter().map(share).sum::<f64>() / self.progress.len().max(1) as f64
    }
}

/// `run/best` for the weights of a run, otherwise the name of the file or directory.
pub fn short_name(path: &Path) -> String {
    let name = |path: &Path| path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let run = path.parent().filter(|parent| parent.ends_with("checkpoints")).and_then(Path::parent);
    match (run, path.file_stem()) {
        (Some(run), Some(stem)) => format!("{}/{}", name(run), stem.to_string_lossy()),
        _ => name(path),
    }
}

/// See the [module](self).
#[derive(Debug, Clone, Default)]
pub struct EvaluationView {
    /// State of the job.
    pub status: EvaluationStatus,
    /// The job that was started last.
    pub job: Option<Box<EvaluationJob>>,
    /// Its checkpoints.
    pub checkpoints: Vec<CheckpointView>,
    /// What the evaluation that the user has described would do.
    pub prospect: Option<Arc<Prospect>>,
    /// Counts the jobs that were started or have ended: what a directory holds may have changed.
    pub revision: u64,
}

impl EvaluationView {
    /// Whether a job is under way.
    pub fn is_running(&self) -> bool {
        matches!(self.status, EvaluationStatus::Running | EvaluationStatus::Cancelling)
    }

    /// Applies an update.
    pub fn apply(&mut self, update: EvaluationUpdate) {
        match update {
            EvaluationUpdate::Prospect(prospect) => self.prospect = Some(prospect),
            EvaluationUpdate::Started(job) => {
                let same = self.job.as_ref().is_some_and(|old| continues(old, &job));
                let keep = if same { job.skip.min(self.checkpoints.len()) } else { 0 };
                self.checkpoints.truncate(keep);
                let fresh = |path: &PathBuf| CheckpointView { path: path.clone(), ..CheckpointView::default() };
                self.checkpoints.extend(job.checkpoints.iter().skip(keep).map(fresh));
                self.job = Some(job);
                self.status = EvaluationStatus::Running;
                self.revision += 1;
            }
            EvaluationUpdate::Stage { checkpoint, stage } => self.at(checkpoint, |at| at.stage = Some(stage)),
            EvaluationUpdate::Began(began) => self.at(began.checkpoint, |at| {
                at.stage = None;
                at.progress = vec![None; began.entries.len()];
                at.fallen = vec![None; began.entries.len()];
                at.began = Some(began.clone());
            }),
            EvaluationUpdate::Progress(now) => self.at(now.checkpoint, |at| {
                if let Some(place) = at.progress.get_mut(now.entry) {
                    *place = Some(now);
                }
            }),
            EvaluationUpdate::Finished(finished) => self.at(finished.checkpoint, |at| {
                for (place, row) in at.progress.iter_mut().zip(&finished.evaluation.rows) {
                    let images = row.attacked as usize;
                    let left = finished.evaluation.flags(&row.predictions).iter().filter(|flag| **flag == 1).count();
                    let (checkpoint, entry) = (finished.checkpoint, 0);
                    let (done, standing, seconds) = (images as f64, left, row.seconds);
                    let known = place.unwrap_or(AttackProgress {
                        checkpoint,
                        entry,
                        images,
                        done,
                        standing,
                        seconds,
                        rate: None,
                    });
                    *place = Some(AttackProgress { images, done, standing, seconds, ..known });
                }
                at.finished = Some(Arc::clone(&finished));
            }),
            EvaluationUpdate::Fallen(fallen) => self.at(fallen.checkpoint, |at| {
                if let Some(place) = at.fallen.get_mut(fallen.entry) {
                    *place = Some(Arc::clone(&fallen));
                }
            }),
            EvaluationUpdate::Failed { checkpoint, failure } => self.at(checkpoint, |at| {
                at.stage = None;
                at.failure = Some(failure.clone());
            }),
            EvaluationUpdate::Ended(end) => {
                self.checkpoints.iter_mut().for_each(|at| at.stage = None);
                self.status = match end {
                    EvaluationEnd::Done => EvaluationStatus::Done,
                    EvaluationEnd::Cancelled => EvaluationStatus::Cancelled,
                };
                self.revision += 1;
            }
        }
    }

    fn at(&mut self, checkpoint: usize, change: impl FnOnce(&mut CheckpointView)) {
        if let Some(at) = self.checkpoints.get_mut(checkpoint) {
            change(at);
        }
    }

    /// The job that goes on with a cancelled one, without the checkpoints that are evaluated; `job` itself if it is
    /// another one.
    pub fn continued(&self, job: EvaluationJob) -> EvaluationJob {
        let same =
            self.status == EvaluationStatus::Cancelled && self.job.as_ref().is_some_and(|old| continues(old, &job));
        if !same {
            return job;
        }
        let skip = self.checkpoints.iter().take_while(|at| at.finished.is_some() || at.failure.is_some()).count();
        EvaluationJob { skip, ..job }
    }
}

/// Whether two jobs differ at most in where they begin.
fn continues(old: &EvaluationJob, new: &EvaluationJob) -> bool {
    EvaluationJob { skip: 0, ..old.clone() } == EvaluationJob { skip: 0, ..new.clone() }
}

/// The address of a file for a browser.
pub(super) fn file_url(path: &Path) -> String {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let mut url = String::from("file://");
    for byte in whole.to_string_lossy().replace('\\', "/").bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~:".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
    url
}

impl App {
    /// Handles the updates of the evaluation thread.
    pub(super) fn receive_evaluation(&mut self, now: Instant) {
        for update in self.evaluator.as_ref().map(Evaluator::updates).unwrap_or_default() {
            match &update {
                EvaluationUpdate::Failed { failure, .. } => self.tell(Level::Error, failure.to_string()),
                EvaluationUpdate::Finished(finished) => {
                    let evaluation = &finished.evaluation;
                    let worst = evaluation.report_of("worst case", &evaluation.worst_case());
                    let what =
                        if evaluation.has_attacks() { "withstand all attacks" } else { "correct without an attack" };
                    let text = format!(
                        "Evaluated {}: {:.1} % {what}. Report: {}",
                        short_name(Path::new(&finished.described.checkpoint)),
                        100.0 * worst.accuracy,
                        finished.directory.display()
                    );
                    self.tell(Level::Info, text);
                    for warning in &evaluation.warnings {
                        self.view.say(now, Level::Warning, warning.clone());
                    }
                }
                EvaluationUpdate::Ended(EvaluationEnd::Cancelled) => {
                    self.tell(Level::Info, "The evaluation is cancelled; it can be resumed.".into());
                }
                _ => {}
            }
            self.evaluation.apply(update);
        }
    }

    pub(super) fn look_at_evaluation(&mut self, job: EvaluationJob) {
        // If the thread is busy, the panel asks again.
        let _ = self.evaluator.as_ref().map(|evaluator| evaluator.look(job));
    }

    pub(super) fn start_evaluation(&mut self, job: EvaluationJob) {
        match self.evaluator.as_mut().map(|evaluator| evaluator.start(job)) {
            Some(Ok(())) => self.evaluation.status = EvaluationStatus::Running,
            Some(Err(busy)) => self.tell(Level::Warning, busy.to_string()),
            None => {
                let text = "The thread for evaluations could not be started. Close other programs, then open the window again.";
                self.tell(Level::Error, text.into());
            }
        }
    }

    /// Cancels the evaluation that is under way.
    pub(super) fn cancel_evaluation(&mut self) {
        if let Some(evaluator) = self.evaluator.as_ref().filter(|_| self.evaluation.is_running()) {
            evaluator.cancel();
            self.evaluation.status = EvaluationStatus::Cancelling;
        }
    }
}
