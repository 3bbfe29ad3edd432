//! The worker's observer of a run: reports events and carries out requests.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::desk::Desk;
use super::failure;
use super::open::Open;
use super::session::{Host, Stage};
use super::{BatchPoint, EpochRecord, Hold, Phase, Request, RunInfo, Update};
use crate::config::Experiment;
use crate::engine::Engine;
use crate::train::{ClassRow, Event, Live, MetricsRow, Observer, RunDir, RunDirError, Trainer, WatchRequest};

/// Weight updates that take less time are not shown as a phase.
const VISIBLE: Duration = Duration::from_millis(20);

/// Whether and how far a run continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Running,
    Paused,
    /// Until a batch is done.
    OneBatch,
    /// Until a step of the attack is done, or with the last one the batch.
    OneStep,
}

/// See the [module](self).
pub(super) struct Watcher<'d, 'a> {
    desk: &'d mut Desk<'a>,
    directory: PathBuf,
    /// The network that was open before, until a new one is about to be opened.
    former: Option<Open>,
    open: bool,
    pace: Pace,
    /// Whether the batch of [`Pace::OneBatch`] or [`Pace::OneStep`] is done.
    batch_done: bool,
    /// Whether a batch and an epoch have ended since the last wait for the speed, and when the ones after them began.
    batch_ended: bool,
    epoch_ended: bool,
    began: [Instant; 2],
    /// `None` while the run continues; otherwise whether to save before it ends.
    ending: Option<bool>,
    change: Option<Box<Experiment>>,
    holds: Option<Vec<Hold>>,
    /// When examples were last sent.
    shown: Cell<Option<Instant>>,
    update_began: Option<Instant>,
    last_update: Duration,
}

impl<'d, 'a> Watcher<'d, 'a> {
    pub(super) fn new(desk: &'d mut Desk<'a>, directory: &Path, paused: bool, former: Option<Open>) -> Self {
        Self {
            desk,
            directory: directory.to_path_buf(),
            former,
            open: false,
            pace: if paused { Pace::Paused } else { Pace::Running },
            batch_done: false,
            batch_ended: false,
            epoch_ended: false,
            began: [Instant::now(); 2],
            ending: None,
            change: None,
            holds: None,
            shown: Cell::new(None),
            update_began: None,
            last_update: Duration::ZERO,
        }
    }

    /// Whether the run had begun.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// Reports a change that came too late to become part of the run.
    pub(super) fn say_what_is_left(&self) {
        if self.ending.is_none() && (self.change.is_some() || self.holds.is_some()) {
            self.desk
                .tell(Update::Warning("The last change came after the last batch; the run ended without it.".into()));
        }
    }

    /// The network that was open before, if no other one was opened since.
    pub(super) fn former(&mut self) -> Option<Open> {
        self.former.take()
    }

    /// Handles a request. Changes of the run are stored until [`Self::steer`].
    fn handle(&mut self, request: Request) {
        let Some(request) = self.desk.take(request) else { return };
        match request {
            Request::Pause => self.pace = Pace::Paused,
            Request::Continue => self.pace = Pace::Running,
            Request::OneBatch => (self.pace, self.batch_done) = (Pace::OneBatch, false),
            Request::OneAttackStep => (self.pace, self.batch_done) = (Pace::OneStep, false),
            Request::Stop { save } => self.ending = Some(save && self.ending.unwrap_or(true)),
            Request::Change(experiment) => self.change = Some(experiment),
            Request::Epsilon(holds) => self.holds = Some(holds),
            Request::Begin { .. } | Request::Resume { .. } | Request::Look { .. } if self.ending.is_some() => {
                self.desk.put_off(request);
            }
            Request::Begin { directory, .. } => {
                directory.abandon();
                self.desk.tell(Update::Failed(failure::busy("beginning a run")));
            }
            Request::Resume { .. } => self.desk.tell(Update::Failed(failure::busy("resuming a run"))),
            Request::Look { .. } => self.desk.tell(Update::Failed(failure::busy("opening a checkpoint"))),
            Request::Speed(_)
            | Request::Examples(_)
            | Request::Inspect(_)
            | Request::Map(_)
            | Request::Cell(_)
            | Request::Seek(_) => {}
        }
    }

    /// Handles all waiting requests.
    fn drain(&mut self) {
        while let Some(request) = self.desk.waiting() {
            self.handle(request);
        }
        if self.desk.closed() {
            self.ending.get_or_insert(true);
        }
    }

    /// Applies the stored changes of the run.
    fn steer(&mut self, live: &mut Live<'_>) {
        if let Some(experiment) = self.change.take() {
            match live.change(&experiment) {
                Err(error) => self.desk.tell(Update::Failed(failure::of_change(&error))),
                Ok(change) => {
                    if !change.ignored.is_empty() {
                        let names: Vec<&str> = change.ignored.iter().map(|field| field.path.as_str()).collect();
                        let text = format!("{} can only change in a new run.", names.join(", "));
                        self.desk.tell(Update::Warning(text));
                    }
                    self.desk.tell(Update::Changed(Box::new(live.experiment().clone())));
                }
            }
        }
        if let Some(holds) = self.holds.take() {
            match live.hold(holds.clone()) {
                Err(error) => self.desk.tell(Update::Failed(failure::of_change(&error))),
                Ok(()) => self.desk.tell(Update::Held(holds)),
            }
        }
    }

    /// Handles requests and runs jobs; blocks while the run is paused.
    fn hold_up(&mut self, live: &mut Live<'_>) {
        loop {
            self.drain();
            self.steer(live);
            if self.ending.is_some() {
                return;
            }
            if self.desk.has_jobs() {
                let position = live.position();
                match live.engine() {
                    Ok(engine) => self.desk.do_jobs(engine, Some(position)),
                    Err(error) => self.desk.fail_jobs(&error),
                }
            }
            if self.pace != Pace::Paused {
                return;
            }
            if self.desk.has_jobs() {
                continue;
            }
            self.desk.phase(Phase::Paused);
            if let Some(request) = self.desk.next(None) {
                self.handle(request);
            }
        }
    }

    /// Waits until a part of the run that began at `begun` has taken the time that the speed prescribes for it: 0 a step of
    /// the attack, 1 a batch, 2 an epoch.
    fn linger(&mut self, live: &mut Live<'_>, part: usize, begun: Instant) {
        while matches!(self.pace, Pace::Running | Pace::OneBatch) && self.ending.is_none() {
            let deadline = begun + self.desk.speed.least()[part];
            if Instant::now() >= deadline {
                return;
            }
            if let Some(request) = self.desk.next(Some(deadline)) {
                self.handle(request);
                self.hold_up(live);
            } else if self.desk.closed() {
                self.drain();
            }
        }
    }
}

impl Host for Watcher<'_, '_> {
    fn stage(&mut self, stage: Stage<'_>) {
        match stage {
            Stage::LoadingData(_) => self.desk.phase(Phase::LoadingData),
            Stage::OpeningEngine => {
                self.former = None;
                self.desk.phase(Phase::OpeningEngine);
            }
            Stage::BeginningAnew(path) => self.desk.tell(Update::Warning(format!(
                "{} was stopped before its first checkpoint; it starts again from the beginning.",
                path.display()
            ))),
            Stage::Testing => {}
        }
    }

    fn attend(&mut self) {
        self.drain();
    }

    fn opened(&mut self, trainer: &mut Trainer) {
        let (engine, parameters) = (trainer.engine().describe(), trainer.engine().network().parameter_count());
        let (metrics, classes) = trainer.rows();
        let history = history(trainer.directory(), metrics, classes).unwrap_or_else(|error| {
            self.desk.tell(Update::Warning(format!("Earlier epochs are not shown: {error}")));
            Vec::new()
        });
        let splits = trainer.splits();
        let info = RunInfo {
            directory: Some(self.directory.clone()),
            experiment: Box::new(trainer.wanted().clone()),
            engine,
            parameters,
            train: splits.train.clone(),
            validation: splits.validation.clone(),
            test: splits.test.clone(),
            history,
            checkpoints: trainer.directory().logged_checkpoints(trainer.batches()),
            kept: trainer.directory().kept_bests(),
            looked: None,
        };
        self.open = true;
        self.desk.tell(Update::Opened(Box::new(info)));
        let holds = &trainer.progress().holds;
        if !holds.is_empty() {
            self.desk.tell(Update::Held(holds.clone()));
        }
    }
}

/// The completed epochs with these rows.
pub(super) fn history(
    directory: &RunDir,
    metrics: &[MetricsRow],
    classes: &[ClassRow],
) -> Result<Vec<EpochRecord>, RunDirError> {
    let record = |row: &MetricsRow| {
        Ok(EpochRecord {
            metrics: row.clone(),
            classes: classes.iter().filter(|class| class.epoch == row.epoch).cloned().collect(),
            train: directory.confusion(row.epoch, "train")?,
            validation: directory.confusion(row.epoch, "validation")?,
            predicted: None,
        })
    };
    metrics.iter().map(record).collect()
}

impl Observer for Watcher<'_, '_> {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::EpochStarted { .. } => {}
            Event::Attack => self.desk.phase(Phase::Attack),
            Event::Update => {
                self.update_began = Some(Instant::now());
                if self.last_update >= VISIBLE {
                    self.desk.phase(Phase::Update);
                }
            }
            Event::Examples(examples) => {
                self.shown.set(Some(Instant::now()));
                self.desk.tell(Update::Examples(examples.clone()));
            }
            Event::Batch {
                epoch,
                epochs,
                done,
                batches,
                images,
                loss,
                robust_accuracy,
                lr,
                seconds,
                epsilon,
                rule,
                targets,
            } => {
                (self.batch_done, self.batch_ended) = (true, true);
                self.last_update = self.update_began.take().map_or(Duration::ZERO, |began| began.elapsed());
                self.desk.tell(Update::Batch(BatchPoint {
                    epoch: *epoch,
                    epochs: *epochs,
                    done: *done,
                    batches: *batches,
                    images: *images,
                    loss: *loss,
                    robust_accuracy: *robust_accuracy,
                    lr: *lr,
                    seconds: *seconds,
                    epsilon: (*epsilon).into(),
                    rule: (*rule).into(),
                    targets: targets.map(Into::into),
                }));
            }
            Event::Evaluating { attack, done, total } => {
                let named = matches!(self.desk.current_phase(), Phase::Evaluating(name) if name == attack);
                if !named {
                    self.desk.phase(Phase::Evaluating((*attack).to_owned()));
                }
                self.desk.tell(Update::Evaluating { done: *done, total: *total });
            }
            Event::EpochDone { row, classes, train, validation, predicted } => {
                self.epoch_ended = true;
                self.desk.tell(Update::Epoch(Box::new(EpochRecord {
                    metrics: (*row).clone(),
                    classes: classes.to_vec(),
                    train: Some((*train).clone()),
                    validation: Some((*validation).clone()),
                    predicted: Some(Arc::new((*predicted).clone())),
                })));
            }
            Event::Saving => self.desk.phase(Phase::Saving),
            Event::Checkpoint { epoch, batch, batches, .. } => {
                let position = f64::from(*epoch) + f64::from(*batch) / f64::from((*batches).max(1));
                self.desk.tell(Update::Checkpoint(position));
            }
            Event::NewComparison { change, kept } => {
                let text = format!("From epoch {} on, {}: best begins anew.", change.epoch + 1, change.label());
                self.desk.tell(Update::Warning(text));
                if let Some(kept) = kept {
                    self.desk.tell(Update::Kept((*kept).clone()));
                }
            }
            Event::Note(text) | Event::Warning(text) => self.desk.tell(Update::Warning((*text).to_owned())),
        }
    }

    fn stop(&self) -> bool {
        self.ending.is_some()
    }

    fn discard(&self) -> bool {
        self.ending == Some(false)
    }

    fn between(&mut self, live: &mut Live<'_>) {
        if self.batch_done && matches!(self.pace, Pace::OneBatch | Pace::OneStep) {
            self.pace = Pace::Paused;
        }
        self.hold_up(live);
        for (part, done) in [(1, std::mem::take(&mut self.batch_ended)), (2, std::mem::take(&mut self.epoch_ended))] {
            if done {
                self.linger(live, part, self.began[part - 1]);
                // The batch after an epoch begins with the next epoch.
                self.began[..part].fill(Instant::now());
            }
        }
    }

    fn watch(&self) -> WatchRequest {
        let slow = self.pace == Pace::OneStep || !self.desk.speed.least()[0].is_zero();
        let step_by_step = slow && self.ending.is_none();
        let due = |every: Duration| self.shown.get().is_none_or(|shown| shown.elapsed() >= every);
        // A single step that the user requested is always shown.
        let wish = self.desk.wish.filter(|wish| self.pace != Pace::Running || due(wish.every));
        WatchRequest { step_by_step, examples: wish.map_or(0, |wish| wish.count) }
    }

    fn stepped(&mut self, live: &mut Live<'_>, (done, total): (u32, u32)) {
        if self.pace == Pace::OneStep && 0 < done && done < total {
            self.pace = Pace::Paused;
        }
        let last_of_one = self.pace == Pace::OneStep && done == total;
        self.hold_up(live);
        if !last_of_one && self.pace != Pace::OneStep {
            self.linger(live, 0, Instant::now());
        }
        if self.ending.is_none() {
            self.desk.phase(Phase::Attack);
        }
    }

    fn wait(&mut self, mut network: Option<(&mut dyn Engine, f64)>) {
        let phase = self.desk.current_phase().clone();
        loop {
            self.drain();
            if let Some((engine, position)) = &mut network
                && self.ending.is_none()
            {
                self.desk.do_jobs(*engine, Some(*position));
                if self.pace == Pace::Paused && self.desk.has_jobs() {
                    continue;
                }
            }
            if self.pace != Pace::Paused || self.ending.is_some() {
                break;
            }
            self.desk.phase(Phase::Paused);
            if let Some(request) = self.desk.next(None) {
                self.handle(request);
            }
        }
        if self.ending.is_none() {
            self.desk.phase(phase);
        }
    }
}
