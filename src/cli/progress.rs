//! Progress bars with rate and remaining time, and a line for every epoch.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{counted_as, interrupt};
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
        _ => eprintln!("{text}"),
    }
}

/// Shows a training run in the terminal.
pub(super) struct Terminal {
    stop: &'static AtomicBool,
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
        Self {
            stop: interrupt::flag(),
            tested: false,
            loading: None,
            images: 0,
            train_robust: methods::train_robust(false),
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
}

impl Host for Terminal {
    fn stage(&mut self, stage: Stage<'_>) {
        self.finish();
        match stage {
            Stage::LoadingData(name) => self.loading = Some(spinner(format!("loading {name}"))),
            Stage::BeginningAnew(path) => {
                eprintln!("{} was stopped before its first checkpoint; starting from the beginning.", path.display());
            }
            Stage::OpeningEngine => {}
            Stage::Testing => self.tested = true,
        }
    }

    fn opened(&mut self, trainer: &mut Trainer) {
        let engine = trainer.engine().describe();
        let parameters = grouped(trainer.engine().network().parameter_count());
        let (experiment, splits) = (trainer.experiment(), trainer.splits());
        eprintln!(
            "{} on {}: {} ({parameters} parameters); {} images for training, {} for validation, {} for test.",
            experiment.fairness.method.title(),
            experiment.data.dataset,
            experiment.model.arch,
            splits.train.len(),
            splits.validation.len(),
            splits.test.len(),
        );
        eprintln!("Engine: {engine}. Run directory: {}", trainer.directory().path().display());
        let (done, epochs) = (trainer.progress().epoch, experiment.optimizer.epochs);
        if done >= epochs {
            let evaluated = trainer.directory().path().join("evaluation.json").exists();
            let again = if evaluated { "evaluating again" } else { "evaluating" };
            eprintln!("The run is complete ({done} of {}); {again}.", counted_as(epochs as usize, "epoch", "epochs"));
        }
        self.images = splits.train.len();
        self.train_robust = methods::train_robust(experiment.is_targeted());
    }
}

/// The columns of [`epoch_line`].
fn header(train_robust: &str) -> String {
    format!("epoch    loss   {train_robust}   val clean (worst)   val robust (worst)   seconds")
}

/// The values of an epoch; accuracy under the training attack is aligned below its label.
fn epoch_line(train_robust: &str, row: &MetricsRow) -> String {
    format!(
        "{:>5} {:>7.3} {:>width$.1} %   {:>6.1} % ({:>5.1} %)   {:>7.1} % ({:>5.1} %)   {:>7.1}",
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
            Event::EpochDone { row, .. } => {
                if !self.header_shown {
                    self.say(&header(self.train_robust));
                    self.header_shown = true;
                }
                self.say(&epoch_line(self.train_robust, row));
            }
            Event::Attack
            | Event::Update
            | Event::Examples(_)
            | Event::Held(_)
            | Event::Saving
            | Event::Checkpoint { .. } => {}
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

    /// A targeted attack is weaker than an untargeted one: its accuracy must not be mistaken for robust accuracy.
    #[test]
    fn training_accuracy_is_labelled_and_aligned_below_its_label() {
        let row = MetricsRow {
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
        };
        for targeted in [false, true] {
            let name = methods::train_robust(targeted);
            assert_eq!(name.contains("targeted"), targeted);
            let (header, line) = (header(name), epoch_line(name, &row));
            let end = header.find(name).unwrap() + name.len();
            let number = format!("{:.1} %", 100.0 * row.train_robust_accuracy);
            assert_eq!(line.find(&number).unwrap() + number.len(), end, "{header}\n{line}");
        }
    }
}
