//! The evaluation of one checkpoint.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::look::{self, load, unreadable};
use super::{
    AttackProgress, Began, EvaluationJob, EvaluationStage, EvaluationUpdate, FallenImages, FinishedEvaluation,
};
use crate::attack::check_distance;
use crate::evaluate::robustness::{
    Described, Held, Options, Progress, ReportFiles, Row, fallen, identity, network_sha256, run, sha256,
};
use crate::files::write_atomic;
use crate::train::{Matching, StoredError, run_steps};
use crate::units::Epsilon;
use crate::worker::{Failure, failure};

/// Shortest time between two updates about one attack.
const EVERY: Duration = Duration::from_millis(50);
/// Adversarial images that are shown of each attack.
const EXAMPLES: usize = 8;

/// Evaluates a checkpoint of a job, and writes its report. Returns `false` if it was cancelled.
pub(super) fn evaluate(
    job: &EvaluationJob,
    checkpoint: usize,
    stop: &AtomicBool,
    tell: &dyn Fn(EvaluationUpdate),
) -> Result<bool, Failure> {
    let Some(path) = job.checkpoints.get(checkpoint) else { return Ok(true) };
    let stopped = || stop.load(Ordering::SeqCst);
    let stage = |stage| tell(EvaluationUpdate::Stage { checkpoint, stage });
    stage(EvaluationStage::LoadingData);
    let mut stored = load(path, job)?;
    // The run's own limit was for its own evaluations.
    stored.experiment.data.test_limit = job.limit;
    stored.experiment.validate().map_err(|error| failure::of_stored(path, &error.into()))?;
    let name = &stored.experiment.data.dataset;
    let splits = stored.splits(Matching::default()).map_err(|error| match error {
        StoredError::Data { source, .. } => failure::of_images(path, name, &source),
        other => failure::of_stored(path, &other),
    })?;
    let (epsilon, norm) = job.settings.ball(&run_steps(&stored.experiment));
    for distance in [Some(epsilon), job.settings.step_size].into_iter().flatten() {
        check_distance(distance, norm, Some(splits.test.shape()))
            .map_err(|what| failure::refused(path, what, "Choose a smaller epsilon."))?;
    }
    let plan = job.plan(&stored.experiment).map_err(|what| not_in_this_norm(path, what))?;
    if stopped() {
        return Ok(false);
    }
    stage(EvaluationStage::OpeningEngine);
    let mut engine = stored.open(&splits, &job.engine).map_err(|error| failure::of_stored(path, &error))?;
    let set = splits.test;
    let mut described = Described {
        program: concat!("fairtat ", env!("CARGO_PKG_VERSION")).into(),
        checkpoint: stored.file.display().to_string(),
        checkpoint_sha256: sha256(&stored.file).map_err(|error| unreadable(path, error))?,
        network_sha256: network_sha256(engine.network(), stored.state()),
        architecture: stored.experiment.model.arch.name().into(),
        method: stored.method().map(Into::into),
        dataset: stored.experiment.data.dataset.clone(),
        part: job.limit.map_or("test".into(), |limit| format!("test (limit {limit})")),
        engine: engine.describe(),
        norm,
        epsilon: epsilon.to_string(),
        seed: job.settings.seed,
        command: String::new(),
    };
    let mut options = Options {
        batch_size: stored.experiment.evaluation.eval_batch_size,
        directory: None,
        identity: identity(&described, &set, job.limit),
        keep_images: job.keep_images,
    };
    let (directory, holds) = look::directory(job, checkpoint, &options.records_of(&plan), &[]);
    check_directory(path, &directory, &holds)?;
    let experiment = stored.notes().map(|_| directory.join("experiment.toml"));
    described.command = job.command_line(path, &directory, experiment.as_deref());
    options.directory = Some(directory.clone());
    tell(EvaluationUpdate::Began(Box::new(Began {
        checkpoint,
        directory: directory.clone(),
        described: described.clone(),
        entries: plan.for_classes(set.classes()).entries,
        images: set.len(),
        warnings: plan.entries.iter().filter_map(|entry| entry.attack.warning()).collect(),
    })));
    let of_evaluation = |error| failure::of_evaluation(path, &error);
    let mut clock = Clock::default();
    let evaluation = run(engine.as_mut(), &set, &plan, &options, &mut |now: Progress<'_>| {
        if let Some(progress) = clock.at(checkpoint, now) {
            tell(EvaluationUpdate::Progress(progress));
        }
        !stopped()
    });
    let Some(evaluation) = evaluation.map_err(of_evaluation)? else { return Ok(false) };
    stage(EvaluationStage::Saving);
    if let Some(file) = experiment {
        write_atomic(&file, stored.experiment.to_toml().as_bytes()).map_err(|error| unreadable(path, error))?;
    }
    ReportFiles { evaluation: &evaluation, described: &described, corrupted: None }
        .write(&directory)
        .map_err(of_evaluation)?;
    let finished = std::sync::Arc::new(FinishedEvaluation { checkpoint, directory, described, evaluation });
    tell(EvaluationUpdate::Finished(std::sync::Arc::clone(&finished)));
    stage(EvaluationStage::Examples);
    let evaluation = &finished.evaluation;
    let moving = |row: &&Row| row.entry.attack.epsilon != Epsilon::ZERO;
    for (entry, row) in evaluation.rows.iter().enumerate().filter(|(_, row)| moving(row)) {
        if stopped() {
            break;
        }
        let images = fallen(engine.as_mut(), &set, evaluation, row, EXAMPLES, &mut |_| !stopped())
            .map_err(|error| failure::of_evaluation(path, &error.into()))?;
        if !images.is_empty() {
            let shown = FallenImages { checkpoint, entry, shape: set.shape(), images };
            tell(EvaluationUpdate::Fallen(shown.into()));
        }
    }
    // The report is complete, even if the examples are not.
    Ok(true)
}

/// An attack that does not exist in the norm.
fn not_in_this_norm(path: &Path, what: String) -> Failure {
    failure::refused(path, what, "Choose the other norm, or leave out that attack.")
}

/// Refuses to replace a report, or to mix two evaluations.
fn check_directory(path: &Path, directory: &Path, held: &Held) -> Result<(), Failure> {
    let shown = directory.display();
    match held {
        Held::Nothing | Held::Same => Ok(()),
        Held::Report => Err(failure::refused(
            path,
            format!("{shown} holds a report already"),
            "Choose another directory for the report, or leave it empty for a new one.",
        )),
        Held::Other(differs) => Err(failure::refused(
            path,
            format!("{shown} holds another unfinished evaluation: {differs}"),
            "Choose another directory for the report, or its settings to continue that one.",
        )),
    }
}

/// Measures how long an attack takes.
#[derive(Default)]
struct Clock {
    entry: Option<usize>,
    began: Option<Instant>,
    told: Option<Instant>,
    /// Images done in the last call.
    before: f64,
    /// When the first batch that was not stored already began, and how many images were done then.
    computing: Option<(Instant, f64)>,
}

impl Clock {
    /// The progress to tell; `None` if the last one is recent.
    fn at(&mut self, checkpoint: usize, now: Progress<'_>) -> Option<AttackProgress> {
        let time = Instant::now();
        let [entry, _] = now.number;
        if self.entry != Some(entry) {
            *self = Self { entry: Some(entry), began: Some(time), ..Self::default() };
        }
        // A batch that is computed is announced before it begins; one that was stored is done at once.
        if now.done == self.before && self.computing.is_none() {
            self.computing = Some((time, now.done));
        }
        self.before = now.done;
        let is_done = now.done >= now.images as f64;
        if !is_done && self.told.is_some_and(|told| time - told < EVERY) {
            return None;
        }
        self.told = Some(time);
        let rate = self.computing.and_then(|(since, from)| {
            let seconds = (time - since).as_secs_f64();
            (seconds > 0.0 && now.done > from).then(|| (now.done - from) / seconds)
        });
        Some(AttackProgress {
            checkpoint,
            entry,
            images: now.images,
            done: now.done,
            standing: now.standing,
            seconds: self.began.map_or(0.0, |began| (time - began).as_secs_f64()),
            rate,
        })
    }
}
