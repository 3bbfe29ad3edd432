//! The window's view of a run: accumulates the worker's updates.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::past::PastExamples;
use crate::config::Experiment;
use crate::evaluate::FinalReport;
use crate::train::KeptBest;
use crate::worker::{
    BatchPoint, COUNTING, CellImages, DecisionMap, Ended, EpochRecord, Examples, Failure, Hold, INSPECTING, Inspection,
    MAPPING, Phase, RunInfo, Sought, Update,
};

/// Number of batches kept for the loss curve; all epochs are kept.
const BATCHES: usize = 20_000;
/// Number of epochs whose predictions of every image are kept.
pub(super) const PREDICTED: usize = 50;
/// Number of log lines kept.
const LOG: usize = 2_000;

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// There is no run yet.
    #[default]
    Empty,
    /// Data and engine are being opened.
    Opening,
    /// Training or evaluating.
    Running,
    /// Paused by the user.
    Paused,
    /// A checkpoint is open for inspection; nothing trains.
    Looking,
    /// Finished, stopped or failed.
    Over,
}

impl Status {
    /// Whether a run is under way, paused or not.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Opening | Self::Running | Self::Paused)
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Time since the program started.
    pub at: Duration,
    /// Severity.
    pub level: super::level::Level,
    /// What happened.
    pub text: String,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct RunView {
    /// State of the run.
    pub status: Status,
    /// What the worker is doing now.
    pub phase: Phase,
    /// What has been known since the run was opened.
    pub info: Option<Box<RunInfo>>,
    /// The experiment in force; differs from `info` after a live change.
    pub experiment: Option<Box<Experiment>>,
    /// Finished epochs, oldest first.
    pub epochs: Vec<EpochRecord>,
    /// Batches since the run was opened, oldest first.
    pub batches: VecDeque<BatchPoint>,
    /// Number of finished epochs at the time of each checkpoint.
    pub checkpoints: Vec<f64>,
    /// The best checkpoints of earlier comparisons, oldest first.
    pub kept: Vec<KeptBest>,
    /// Images evaluated and total, for the evaluation under way.
    pub evaluating: Option<(usize, usize)>,
    /// Images of the current batch.
    pub examples: Option<Arc<Examples>>,
    /// The last of these of finished epochs.
    pub past: PastExamples,
    /// The newest inspection.
    pub inspection: Option<Arc<Inspection>>,
    /// The newest decision map.
    pub map: Option<Arc<DecisionMap>>,
    /// The newest images of a cell that was asked for.
    pub cell: Option<Arc<CellImages>>,
    /// How far the search for a misclassified image is.
    pub sought: Option<Sought>,
    /// Radii set by hand, one entry per class; empty if there is no run.
    pub holds: Vec<Hold>,
    /// The report on the test set, once all epochs are finished.
    pub report: Option<Box<FinalReport>>,
    /// The directory of the run if it was stopped, or failed, and can be resumed; otherwise `None`.
    pub resumable: Option<PathBuf>,
    /// The failure that ended the last run.
    pub failure: Option<Failure>,
    /// The failure of the last inspection or decision map.
    pub job_failure: Option<Failure>,
    /// What happened, oldest first.
    pub log: VecDeque<LogLine>,
    /// Images per second over the last seconds.
    pub rate: Rate,
    /// Whether this run was open before the lesson that is open now began.
    pub before_lesson: bool,
    began: Option<Instant>,
}

impl RunView {
    /// Applies an update; `now` is the time at which it was received.
    pub fn apply(&mut self, update: Update, now: Instant) {
        use super::level::Level::{Error, Info, Warning};
        match update {
            Update::Phase(phase) => {
                self.status = match (&phase, self.status) {
                    (Phase::LoadingData | Phase::OpeningEngine, _) => Status::Opening,
                    (Phase::Paused, _) => Status::Paused,
                    (Phase::Idle, Status::Opening | Status::Running | Status::Paused) => Status::Over,
                    (Phase::Idle, other) => other,
                    _ => Status::Running,
                };
                if phase == Phase::Paused {
                    self.rate.forget();
                }
                if !matches!(phase, Phase::Evaluating(_)) {
                    self.evaluating = None;
                }
                self.phase = phase;
            }
            Update::Opened(info) => {
                let place = info.directory.as_ref().map_or_else(String::new, |d| format!(" in {}", d.display()));
                let log = std::mem::take(&mut self.log);
                let began = self.began;
                let (inspection, map) = (self.inspection.take(), self.map.take());
                *self = Self { log, began, inspection, map, phase: self.phase.clone(), ..Self::default() };
                self.status = if info.directory.is_some() { Status::Running } else { Status::Looking };
                self.epochs = info.history.clone();
                self.checkpoints = info.checkpoints.clone();
                self.kept = info.kept.clone();
                self.experiment = Some(info.experiment.clone());
                self.holds = vec![Hold::default(); info.class_names().len()];
                self.say(now, Info, format!("Opened {}{place}, engine {}.", info.experiment.data.dataset, info.engine));
                self.info = Some(info);
            }
            Update::Batch(point) => {
                self.rate.add(now, point.images);
                if self.batches.len() == BATCHES {
                    self.batches.pop_front();
                }
                self.batches.push_back(point);
            }
            Update::Evaluating { done, total } => self.evaluating = Some((done, total)),
            Update::Epoch(record) => {
                let last = self.examples.as_ref().filter(|examples| examples.epoch == record.metrics.epoch);
                if let (Some(examples), Some(experiment)) = (last, &self.experiment) {
                    self.past.keep(examples, &experiment.attack);
                }
                self.epochs.retain(|old| old.metrics.epoch < record.metrics.epoch);
                self.epochs.push(*record);
                if let Some(old) = self.epochs.len().checked_sub(PREDICTED + 1) {
                    self.epochs[old].predicted = None;
                }
            }
            Update::Checkpoint(position) => self.checkpoints.push(position),
            Update::Kept(kept) => {
                self.kept.retain(|old| old.name != kept.name);
                self.kept.push(kept);
            }
            Update::Changed(experiment) => self.experiment = Some(experiment),
            Update::Held(holds) => self.holds = holds,
            Update::Examples(examples) => self.examples = Some(examples),
            Update::Inspected(inspection) => self.inspection = Some(inspection),
            Update::Mapped(map) => self.map = Some(map),
            Update::Cell(cell) => {
                self.cell = Some(cell);
                self.job_failure.take_if(|failure| failure.doing == COUNTING);
            }
            Update::Sought(sought) => self.sought = Some(sought),
            Update::Warning(text) => self.say(now, Warning, text),
            Update::Ended(ended) => {
                self.status = Status::Over;
                let text = match ended {
                    Ended::Finished(report) => {
                        self.report = Some(report);
                        "The run is done."
                    }
                    Ended::Saved => {
                        self.resumable = self.directory().cloned();
                        "Stopped with a checkpoint; the run can be resumed."
                    }
                    Ended::Discarded if self.checkpoints.is_empty() => "Stopped without a checkpoint.",
                    Ended::Discarded => {
                        self.resumable = self.directory().cloned();
                        "Stopped without a new checkpoint; the run can be resumed from its last one."
                    }
                };
                self.say(now, Info, text.into());
            }
            Update::Failed(failure) => {
                let text = format!("{} failed: {}", sentence(&failure.doing), failure.with_advice());
                self.say(now, Error, text);
                if [INSPECTING, MAPPING, COUNTING].contains(&failure.doing.as_str()) {
                    self.job_failure = Some(failure);
                } else {
                    self.resumable = failure.run.clone().or(self.resumable.take());
                    self.failure = Some(failure);
                }
            }
        }
    }

    /// Adds a line to the log.
    pub fn say(&mut self, now: Instant, level: super::level::Level, text: String) {
        let began = *self.began.get_or_insert(now);
        if self.log.len() == LOG {
            self.log.pop_front();
        }
        self.log.push_back(LogLine { at: now - began, level, text });
    }

    /// The newest batch.
    pub fn now(&self) -> Option<&BatchPoint> {
        self.batches.back()
    }

    /// Names of the classes; empty if there is no run.
    pub fn class_names(&self) -> &[String] {
        self.info.as_ref().map_or(&[], |info| info.class_names())
    }

    /// The run directory.
    pub fn directory(&self) -> Option<&PathBuf> {
        self.info.as_ref()?.directory.as_ref()
    }

    /// The name of the run directory, without the directories above it; `None` if there is no run directory.
    pub fn directory_name(&self) -> Option<String> {
        Some(self.directory()?.file_name()?.to_string_lossy().into_owned())
    }

    /// Method, data set and directory, such as `FAIR-TAT on digits, digits-60s`; `None` if nothing is open.
    pub fn title(&self) -> Option<String> {
        let experiment = self.experiment.as_ref()?;
        let title = format!("{} on {}", experiment.fairness.method.title(), experiment.data.dataset);
        Some(match self.directory_name() {
            Some(directory) => format!("{title}, {directory}"),
            None => format!("{title}, a checkpoint"),
        })
    }

    /// Forgets a run that is over; the log stays.
    pub fn clear(&mut self) {
        if !self.status.is_live() {
            let (log, began) = (std::mem::take(&mut self.log), self.began);
            *self = Self { log, began, ..Self::default() };
        }
    }

    /// Finished epochs including the fraction of the current one, and the total number of epochs.
    pub fn position(&self) -> Option<(f64, u32)> {
        let epochs = self.experiment.as_ref()?.optimizer.epochs;
        let done = self.epochs.last().map_or(0.0, |last| f64::from(last.metrics.epoch + 1));
        let now = self.now().map_or(0.0, BatchPoint::position);
        Some((done.max(now), epochs))
    }

    /// Number of the epoch under way, from 1; an epoch is complete only after its evaluation.
    pub fn epoch_under_way(&self) -> Option<u32> {
        let (_, epochs) = self.position()?;
        let done = self.epochs.last().map_or(0, |last| last.metrics.epoch + 1);
        let now = self.now().map_or(0, |now| now.epoch);
        Some((done.max(now) + 1).min(epochs))
    }

    /// Seconds until all epochs are finished, estimated from the latest ones; `None` if there is no basis for an
    /// estimate.
    pub fn eta_secs(&self) -> Option<f64> {
        let (position, epochs) = self.position()?;
        let left = f64::from(epochs) - position;
        // The time of a whole epoch includes its evaluation.
        let recent = &self.epochs[self.epochs.len().saturating_sub(3)..];
        let per_epoch = match (recent.len(), self.now()) {
            (0, Some(now)) if now.done > 0 => now.seconds[0] * f64::from(now.batches) / f64::from(now.done),
            (0, _) => return None,
            (n, _) => recent.iter().map(|epoch| epoch.metrics.seconds).sum::<f64>() / n as f64,
        };
        Some((left * per_epoch).max(0.0))
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Images per second over a short window of time.
#[derive(Debug, Clone, Default)]
pub struct Rate {
    recent: VecDeque<(Instant, usize)>,
}

impl Rate {
    const SPAN: Duration = Duration::from_secs(5);

    fn add(&mut self, now: Instant, images: usize) {
        self.recent.push_back((now, images));
        while self.recent.len() > 2 && self.recent.front().is_some_and(|(at, _)| now - *at > Self::SPAN) {
            self.recent.pop_front();
        }
    }

    fn forget(&mut self) {
        self.recent.clear();
    }

    /// Images per second; `None` before the second batch.
    pub fn per_second(&self) -> Option<f64> {
        let (first, last) = (self.recent.front()?.0, self.recent.back()?.0);
        let images: usize = self.recent.iter().skip(1).map(|(_, images)| images).sum();
        let seconds = (last - first).as_secs_f64();
        (seconds > 0.0).then(|| images as f64 / seconds)
    }
}
