//! Progress bars with rate and remaining time, and a line for every epoch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{counted_as, interrupt};
use crate::config::OptimizerConfig;
use crate::console::tell;
use crate::evaluate::signatures::{self, Kind, Point, Reading, Setup, Severity, Signature};
use crate::train::{Event, MetricsRow, Observer, Trainer, methods};
use crate::worker::session::{Host, Stage};

const IMAGES: &str = "{prefix} {bar:24} {human_pos}/{human_len} images  {per_sec}  ETA {eta}  {msg}";
const BYTES: &str = "{prefix} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  ETA {eta}  {msg}";

/// A bar on standard error; hidden if that is not a terminal.
fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(8));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A bar that counts images.
pub(super) fn images(length: usize, prefix: impl Into<String>) -> ProgressBar {
    let bar = bar(length as u64, IMAGES);
    bar.set_prefix(prefix.into());
    bar
}

/// A bar that counts bytes.
pub(super) fn bytes(length: Option<u64>, prefix: impl Into<String>) -> ProgressBar {
    let bar = bar(length.unwrap_or(0), BYTES);
    if length.is_none() {
        bar.unset_length();
    }
    bar.set_prefix(prefix.into());
    bar
}

/// An activity indicator for work of unknown length; removed when it is dropped.
pub(super) struct Spinner(ProgressBar);

/// Starts a [`Spinner`].
pub(super) fn spinner(what: impl Into<String>) -> Spinner {
    let bar = bar(0, "{spinner} {prefix} {elapsed}");
    bar.set_prefix(what.into());
    Spinner(bar)
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Writes a line above a bar, or directly if no bar is drawn.
pub(super) fn line(bar: Option<&ProgressBar>, text: &str) {
    match bar {
        Some(bar) if !bar.is_hidden() => bar.println(text),
        _ => tell!("{text}"),
    }
}

/// Where a run stops until its engine is open, while it trains, and in the evaluation after it.
const LOADING: &str = "before training begins";
const TRAINING: &str = "after this batch, with a checkpoint";
const TESTING: &str = "after this batch; what is trained is saved";

/// Shows a training run in the terminal.
pub(super) struct Terminal {
    stop: &'static AtomicBool,
    /// What failure signatures depend on.
    setup: Setup,
    /// The epochs so far.
    points: Vec<Point>,
    /// Failure signatures that are present.
    present: Vec<Kind>,
    /// Number of epochs.
    epochs: u32,
    /// Epochs since the beginning or the resume, and their seconds.
    timed: (u32, f64),
    /// Whether training was complete.
    pub(super) tested: bool,
    loading: Option<Spinner>,
    /// Images in an epoch.
    images: usize,
    /// The label of accuracy under the training attack.
    train_robust: &'static str,
    training: Option<ProgressBar>,
    evaluating: Option<(String, ProgressBar)>,
    header_shown: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self::stopped_by(interrupt::stops_early(LOADING))
    }

    fn stopped_by(stop: &'static AtomicBool) -> Self {
        Self {
            stop,
            setup: Setup::default(),
            points: Vec::new(),
            present: Vec::new(),
            epochs: 0,
            timed: (0, 0.0),
            tested: false,
            loading: None,
            images: 0,
            train_robust: "train robust",
            training: None,
            evaluating: None,
            header_shown: false,
        }
    }

    /// Removes the bars.
    pub(super) fn finish(&mut self) {
        self.loading = None;
        for bar in self.training.take().into_iter().chain(self.evaluating.take().map(|(_, bar)| bar)) {
            bar.finish_and_clear();
        }
    }

    fn say(&self, text: &str) {
        line(self.training.as_ref(), text);
    }

    /// Whether the remaining time has to be part of the lines, because no bar shows it.
    fn is_log(&self) -> bool {
        self.training.as_ref().is_none_or(ProgressBar::is_hidden)
    }

    /// Says which failure signatures have appeared with the last epoch.
    fn say_signatures(&mut self) {
        let readings = signatures::readings(&self.points, &self.setup);
        let now: Vec<Signature> = readings.iter().filter_map(Reading::signature).collect();
        for signature in now.iter().filter(|signature| !self.present.contains(&signature.kind)) {
            self.say(&signature_line(signature));
        }
        self.present = now.iter().map(|signature| signature.kind).collect();
    }
}

impl Host for Terminal {
    fn stage(&mut self, stage: Stage<'_>) {
        self.finish();
        match stage {
            Stage::LoadingData(name) => {
                interrupt::stops_early(LOADING);
                self.loading = Some(spinner(format!("loading {name}")));
            }
            Stage::BeginningAnew(path) => {
                tell!("{} was stopped before its first checkpoint; starting from the beginning.", path.display());
            }
            Stage::OpeningEngine => self.loading = Some(spinner("opening the engine")),
            Stage::Testing => {
                interrupt::stops(TESTING);
                self.tested = true;
            }
        }
    }

    fn opened(&mut self, trainer: &mut Trainer) {
        self.loading = None;
        interrupt::stops(TRAINING);
        let engine = trainer.engine().describe();
        let parameters = grouped(trainer.engine().network().parameter_count());
        let (experiment, splits) = (trainer.experiment(), trainer.splits());
        tell!(
            "{} on {}: {} ({parameters} parameters); {} images for training, {} for validation, {} for test.",
            experiment.fairness.method.title(),
            experiment.data.dataset,
            experiment.model.arch,
            splits.train.len(),
            splits.validation.len(),
            splits.test.len(),
        );
        tell!("Engine: {engine}. Run directory: {}", trainer.directory().path().display());
        let (done, epochs) = (trainer.progress().epoch, experiment.optimizer.epochs);
        if done >= epochs {
            let evaluated = trainer.directory().path().join("evaluation.json").exists();
            let again = if evaluated { "evaluating again" } else { "evaluating" };
            tell!("The run is complete ({done} of {}); {again}.", counted_as(epochs as usize, "epoch", "epochs"));
        }
        if let Some(recomputed) = recomputed_schedule(&experiment.optimizer, trainer.rows().0, trainer.batches()) {
            tell!("{recomputed}");
        }
        self.setup = Setup::of(experiment, splits.validation.len());
        let (metrics, classes) = trainer.rows();
        self.points = signatures::points(metrics, classes);
        // Those of a resumed run have been said.
        let readings = signatures::readings(&self.points, &self.setup);
        self.present = readings.iter().filter_map(Reading::signature).map(|signature| signature.kind).collect();
        self.images = splits.train.len();
        self.train_robust = methods::train_robust(experiment);
    }
}

/// The columns of [`epoch_line`]; `many` if there are more than [`MANY_CLASSES`](crate::fairness::MANY_CLASSES) classes.
fn header(train_robust: &str, many: bool) -> String {
    let tenth = if many { "worst 10 %   " } else { "" };
    format!("epoch    loss   {train_robust}   val clean (worst)   val robust (worst)   {tenth}seconds")
}

/// The values of an epoch; accuracy under the training attack is aligned below its label.
fn epoch_line(train_robust: &str, row: &MetricsRow) -> String {
    let tenth = row.val_robust_worst_tenth.map_or(String::new(), |tenth| format!("{:>8.1} %   ", 100.0 * tenth));
    format!(
        "{:>5} {:>7.3} {:>width$.1} %   {:>6.1} % ({:>5.1} %)   {:>7.1} % ({:>5.1} %)   {tenth}{:>7.1}",
        row.epoch + 1,
        row.train_loss,
        100.0 * row.train_robust_accuracy,
        100.0 * row.val_clean_accuracy,
        100.0 * row.val_clean_worst,
        100.0 * row.val_robust_accuracy,
        100.0 * row.val_robust_worst,
        row.seconds,
        width = train_robust.len(),
    )
}

/// What a failure signature says, in one line.
fn signature_line(signature: &Signature) -> String {
    let Signature { kind, severity, numbers, explanation, advice, .. } = signature;
    let level = match severity {
        Severity::Notice => "note",
        Severity::Warning | Severity::Error => "warning",
    };
    format!("{level}: {}: {numbers} {explanation} {advice}", kind.title())
}

/// The time that the rest of a run takes if its epochs take as long as those so far; `None` after the last.
fn remaining(done: u32, epochs: u32, (timed, seconds): (u32, f64)) -> Option<Duration> {
    let left = f64::from(epochs.saturating_sub(done));
    let seconds = seconds / f64::from(timed.max(1)) * left;
    Duration::try_from_secs_f64(seconds).ok().filter(|_| left > 0.0)
}

/// What a resumed run says if its schedule is not the one that its last epoch was trained with, because the number of
/// epochs or another setting of the optimiser was changed.
fn recomputed_schedule(optimizer: &OptimizerConfig, rows: &[MetricsRow], batches: u32) -> Option<String> {
    let last = rows.last()?;
    let (epochs, next) = (optimizer.epochs, last.epoch + 1);
    let now = optimizer.lr_at(last.epoch, batches.saturating_sub(1), batches);
    let differs = (now - last.lr).abs() > 1e-9 * last.lr.abs();
    (differs && next < epochs).then(|| {
        format!(
            "note: the learning rate is recomputed for {epochs} epochs: epoch {next} was trained with {:.3e}, where this \
             schedule has {now:.3e}; epoch {} begins with {:.3e}",
            last.lr,
            next + 1,
            optimizer.lr_at(next, 0, batches),
        )
    })
}

/// A number with commas between its thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|g| std::str::from_utf8(g).ok()).collect();
    groups.join(",")
}

impl Observer for Terminal {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::EpochStarted { epoch, epochs, batch, batches } => {
                self.epochs = *epochs;
                let total = self.images * *epochs as usize;
                let bar = self.training.get_or_insert_with(|| {
                    let bar = images(total, "");
                    // The rate is measured from here on, including after a resume.
                    let begun = self.images as u64 * u64::from(*batch) / u64::from((*batches).max(1));
                    bar.set_position(u64::from(*epoch) * self.images as u64 + begun);
                    bar.reset_eta();
                    bar
                });
                bar.set_prefix(format!("epoch {}/{epochs}", epoch + 1));
                if *batch > 0 && batch < batches {
                    self.say(&format!("Continuing in epoch {}, batch {}.", epoch + 1, batch + 1));
                }
            }
            Event::Batch { images, loss, robust_accuracy, .. } => {
                if let Some(bar) = &self.training {
                    bar.inc(*images as u64);
                    bar.set_message(format!("loss {loss:.3}  {} {:.1} %", self.train_robust, 100.0 * robust_accuracy));
                }
            }
            Event::Evaluating { attack, done, total } => {
                let same = matches!(&self.evaluating, Some((name, _)) if name == attack);
                if !same {
                    if let Some((_, bar)) = self.evaluating.take() {
                        bar.finish_and_clear();
                    }
                    self.evaluating = Some(((*attack).to_owned(), images(*total, format!("evaluating {attack}"))));
                }
                if let Some((_, bar)) = &self.evaluating {
                    bar.set_position(*done as u64);
                }
                if done == total
                    && let Some((_, bar)) = self.evaluating.take()
                {
                    bar.finish_and_clear();
                }
            }
            Event::EpochDone { row, classes, .. } => {
                if !self.header_shown {
                    let many = row.val_robust_worst_tenth.is_some();
                    self.say(&header(self.train_robust, many));
                    self.header_shown = true;
                }
                self.timed = (self.timed.0 + 1, self.timed.1 + row.seconds);
                let left = remaining(row.epoch + 1, self.epochs, self.timed).filter(|_| self.is_log());
                let left = left.map(|left| format!("   ETA {}", FormattedDuration(left)));
                self.say(&format!("{}{}", epoch_line(self.train_robust, row), left.unwrap_or_default()));
                self.points.push(Point::new(row, classes));
                self.say_signatures();
            }
            Event::Attack | Event::Update | Event::Examples(_) | Event::Saving | Event::Checkpoint { .. } => {}
            Event::NewComparison { change, kept } => {
                self.say(&format!(
                    "From epoch {} on, {}: the best epoch is chosen anew.",
                    change.epoch + 1,
                    change.label()
                ));
                if let Some(kept) = kept {
                    self.say(&format!("Kept {kept}."));
                }
            }
            Event::Note(text) => self.say(&format!("note: {text}")),
            Event::Warning(text) => self.say(&format!("warning: {text}")),
        }
    }

    fn stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Experiment, MethodChoice, Schedule};
    use crate::train::ClassRow;

    fn row() -> MetricsRow {
        MetricsRow {
            epoch: 6,
            lr: 0.1,
            train_loss: 1.25,
            train_clean_accuracy: None,
            train_robust_accuracy: 0.5125,
            val_clean_accuracy: 0.75,
            val_clean_worst: 0.5,
            val_robust_accuracy: 0.25,
            val_robust_worst: 0.125,
            seconds: 2.0,
            seconds_attack: 1.5,
            seconds_update: 0.25,
            seconds_statistics: 0.125,
            val_attack: String::new(),
            val_without_gradient: None,
            method: String::new(),
            val_robust_worst_tenth: None,
        }
    }

    #[test]
    fn the_remaining_time_follows_from_the_epochs_of_this_session() {
        assert_eq!(remaining(7, 10, (2, 4000.0)), Some(Duration::from_secs(6000)));
        assert_eq!(FormattedDuration(Duration::from_secs(6000)).to_string(), "01:40:00");
        assert_eq!((remaining(10, 10, (2, 9.0)), remaining(7, 10, (2, f64::NAN))), (None, None));
    }

    #[test]
    fn a_schedule_that_is_recomputed_is_said() {
        let cosine = |epochs| OptimizerConfig { schedule: Schedule::Cosine, epochs, ..OptimizerConfig::default() };
        let batches = 5;
        let last = MetricsRow { lr: cosine(8).lr_at(6, batches - 1, batches), ..row() };
        let said = |epochs| recomputed_schedule(&cosine(epochs), std::slice::from_ref(&last), batches);
        assert_eq!(said(8), None);
        let text = said(20).unwrap();
        assert!(
            text.starts_with("note: the learning rate is recomputed for 20 epochs: epoch 7 was trained with"),
            "{text}"
        );
        assert!(text.contains("; epoch 8 begins with "), "{text}");
        assert_eq!((said(7), recomputed_schedule(&cosine(20), &[], batches)), (None, None));
    }

    #[test]
    fn a_failure_signature_is_said_once() {
        static NEVER: AtomicBool = AtomicBool::new(false);
        let mut terminal = Terminal::stopped_by(&NEVER);
        let lost = |epoch| MetricsRow { epoch, train_loss: 50.0, ..row() };
        let class = |epoch, class: u32| ClassRow {
            epoch,
            class,
            name: class.to_string(),
            epsilon: 0.1,
            target_probability: None,
            cfps: 0.1,
            train_robust_accuracy: 0.1,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.1,
            val_robust_accuracy: 0.1,
            series: Vec::new(),
        };
        let mut present = Vec::new();
        for epoch in 0..5 {
            terminal.points.push(Point::new(&lost(epoch), &[class(epoch, 0), class(epoch, 1)]));
            terminal.say_signatures();
            present.push(terminal.present.contains(&Kind::Diverged));
        }
        // Not before it has held for some epochs.
        assert_eq!(present, [false, false, false, true, true]);
        let readings = signatures::readings(&terminal.points, &terminal.setup);
        let diverged = readings.iter().filter_map(Reading::signature).find(|found| found.kind == Kind::Diverged);
        let text = signature_line(&diverged.unwrap());
        assert!(text.starts_with(&format!("warning: {}: ", Kind::Diverged.title())) && !text.contains('\n'), "{text}");
    }

    /// A targeted attack is weaker than an untargeted one: its accuracy must not be mistaken for robust accuracy.
    #[test]
    fn training_accuracy_is_labelled_and_aligned_below_its_label() {
        let row = row();
        for (method, targeted) in
            [(MethodChoice::At, false), (MethodChoice::FairTat, true), (MethodChoice::Standard, false)]
        {
            let mut experiment = Experiment::default();
            experiment.fairness.method = method;
            let name = methods::train_robust(&experiment);
            assert_eq!(name.contains("targeted"), targeted);
            assert_eq!(name.contains("robust"), method != MethodChoice::Standard);
            let (header, line) = (header(name, false), epoch_line(name, &row));
            let end = header.find(name).unwrap() + name.len();
            let number = format!("{:.1} %", 100.0 * row.train_robust_accuracy);
            assert_eq!(line.find(&number).unwrap() + number.len(), end, "{header}\n{line}");
        }
    }
}
