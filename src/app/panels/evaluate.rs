//! Checkpoints under many attacks: what to evaluate, how it goes, and the result.

mod choices;
mod examples;
mod export;
mod progress;
mod results;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use egui::{Button, RichText, ScrollArea, Ui};

use crate::app::command::Command;
use crate::app::context::{Action, Context, Panel};
use crate::app::evaluation::{CheckpointView, EvaluationStatus, EvaluationView};
use crate::app::theme;
use crate::app::widgets::{card, scrolled, weak};
use crate::evaluate::robustness::Held;
use crate::worker::evaluation::{EvaluationJob, Prospect};

use choices::Choices;
use examples::Examples;

/// Time in seconds after a change of the choices before the evaluation thread is asked about them.
const DELAY: f64 = 0.2;
/// Time after which a question is asked again that is unanswered, or whose answer is that a checkpoint cannot be read.
const AGAIN: f64 = 5.0;
/// Minimum width for the choices beside the results.
const TWO_COLUMNS: f32 = 760.0;
const CONTROLS: f32 = 345.0;
/// Below this height a single-column panel shows one part at a time.
const TALL: f32 = 480.0;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Evaluate {
    choices: Choices,
    asked: Asked,
    /// The checkpoint of the job whose results are shown.
    shown: usize,
    examples: Examples,
    /// The part that a small panel shows.
    tab: Tab,
}

/// The parts of a panel that is too small to show all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Tab {
    #[default]
    Choices,
    Progress,
    Results,
    Examples,
}

impl Tab {
    const ALL: [(Self, &'static str); 4] = [
        (Self::Choices, "Choices"),
        (Self::Progress, "Progress"),
        (Self::Results, "Results"),
        (Self::Examples, "Adversarial examples"),
    ];
}

/// The last question to the evaluation thread.
#[derive(Debug, Default)]
struct Asked {
    job: Option<EvaluationJob>,
    revision: u64,
    /// When the job changed, or when it was sent.
    at: f64,
    sent: bool,
}

impl Panel for Evaluate {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        let job = self.choices.job(context);
        self.ask(ui, context, &job);
        let prospect = context.evaluation.prospect.clone().filter(|prospect| prospect.job == job);
        self.bar(ui, context, &job, prospect.as_deref());
        let width = ui.available_width();
        let small = width < TWO_COLUMNS && ui.available_height() < TALL;
        if small {
            ui.horizontal_wrapped(|ui| {
                for (tab, text) in Tab::ALL {
                    ui.selectable_value(&mut self.tab, tab, text);
                }
            });
        }
        ui.add_space(2.0);
        scrolled(ui, ScrollArea::vertical().auto_shrink(false), |ui| {
            if small {
                return match self.tab {
                    Tab::Choices => self.choices(ui, context, prospect.as_deref()),
                    tab => self.outcome(ui, context, &[tab]),
                };
            }
            // What is newest comes first.
            let is_done = self.shown(context.evaluation).is_some_and(|at| at.finished.is_some());
            let all = match is_done {
                true => [Tab::Results, Tab::Examples, Tab::Progress],
                false => [Tab::Progress, Tab::Results, Tab::Examples],
            };
            if width < TWO_COLUMNS {
                self.choices(ui, context, prospect.as_deref());
                return self.outcome(ui, context, &all);
            }
            let rest = ui.available_width() - CONTROLS - ui.spacing().item_spacing.x;
            ui.horizontal_top(|ui| {
                column(ui, CONTROLS, |ui| self.choices(ui, context, prospect.as_deref()));
                column(ui, rest, |ui| self.outcome(ui, context, &all));
            });
        });
    }
}

fn column(ui: &mut Ui, width: f32, contents: impl FnOnce(&mut Ui)) {
    ui.vertical(|ui| {
        ui.set_width(width);
        contents(ui);
    });
}

impl Evaluate {
    /// Adds a checkpoint or a run directory to those that are evaluated.
    pub fn add(&mut self, path: PathBuf) {
        self.tab = Tab::Choices;
        self.choices.add(path);
    }

    /// Writes the report to this directory.
    pub fn report_to(&mut self, path: &Path) {
        self.choices.directory = path.display().to_string();
    }

    /// Asks what the chosen evaluation would do, once the choices stay as they are.
    fn ask(&mut self, ui: &Ui, context: &mut Context<'_>, job: &EvaluationJob) {
        let (now, revision) = (ui.input(|input| input.time), context.evaluation.revision);
        if job.checkpoints.is_empty() || context.evaluation.is_running() {
            return;
        }
        let asked = &mut self.asked;
        if asked.job.as_ref() != Some(job) || asked.revision != revision {
            *asked = Asked { job: Some(job.clone()), revision, at: now, sent: false };
        }
        // A checkpoint that cannot be read may be about to be written.
        let is_whole = |prospect: &Prospect| prospect.checkpoints.iter().all(|candidate| candidate.found.is_ok());
        let answer = context.evaluation.prospect.as_ref().filter(|prospect| prospect.job == *job);
        let wait = if asked.sent { AGAIN } else { DELAY };
        if asked.sent && answer.is_some_and(|prospect| is_whole(prospect)) {
            return;
        }
        if now - asked.at >= wait {
            (asked.at, asked.sent) = (now, true);
            context.ask(Action::LookAtEvaluation(Box::new(job.clone())));
        }
        ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(wait));
    }

    /// Start, resume, cancel, and where the evaluation is.
    fn bar(&mut self, ui: &mut Ui, context: &mut Context<'_>, job: &EvaluationJob, prospect: Option<&Prospect>) {
        ui.horizontal_wrapped(|ui| {
            let view = context.evaluation;
            if view.is_running() {
                let waiting = view.status == EvaluationStatus::Cancelling;
                let text = if waiting { "Cancelling…" } else { "Cancel evaluation" };
                let button = ui.add_enabled(!waiting, Button::new(text));
                if button.on_hover_text(Command::CancelEvaluation.tooltip()).clicked() {
                    context.ask(Action::Command(Command::CancelEvaluation));
                }
                let share = view.checkpoints.iter().map(CheckpointView::share).sum::<f64>();
                let share = share / view.checkpoints.len().max(1) as f64;
                let width = if ui.available_width() < 500.0 { 50.0 } else { 110.0 };
                progress::bar(ui, width, share, false, "Evaluation");
            } else {
                self.start(ui, context, job, prospect);
            }
            let directories = directories(context.evaluation, job, prospect);
            let copy = ui.add_enabled(!directories.is_empty(), Button::new("Copy as command"));
            let copy = copy
                .on_hover_text("Copy the command line that does the same, and continues this evaluation.")
                .on_disabled_hover_text("Choose a checkpoint first.");
            if copy.clicked() {
                context.ask(Action::CopyText(job.command_lines(&directories)));
            }
            ui.label(weak(ui, progress::status(context.evaluation)));
        });
    }

    fn start(&mut self, ui: &mut Ui, context: &mut Context<'_>, job: &EvaluationJob, prospect: Option<&Prospect>) {
        let why = why_not(job, prospect);
        let resumes = prospect.is_some_and(|prospect| {
            let held = |candidate: &crate::worker::evaluation::Candidate| {
                candidate.found.as_ref().is_ok_and(|known| known.held == Held::Same)
            };
            prospect.checkpoints.iter().any(held)
        });
        let (text, tooltip) = match resumes {
            true => (
                "Resume evaluation",
                "Continue the unfinished evaluation in that directory; its finished batches are kept.",
            ),
            false => ("Start evaluation", "Run the attacks. A training run may go on beside them."),
        };
        let accent = theme::palette(ui).accent;
        let label = RichText::new(text).color(theme::text_on(accent));
        let button = if why.is_none() { Button::new(label).fill(accent) } else { Button::new(text) };
        let button = ui.add_enabled(why.is_none(), button).on_hover_text(tooltip);
        let button = match why {
            Some(why) => button.on_disabled_hover_text(why),
            None => button,
        };
        if button.clicked() {
            self.tab = Tab::Progress;
            self.shown = 0;
            self.examples.forget();
            let job = context.evaluation.continued(job.clone());
            context.ask(Action::StartEvaluation(Box::new(job)));
        }
    }

    fn choices(&mut self, ui: &mut Ui, context: &mut Context<'_>, prospect: Option<&Prospect>) {
        let running = context.evaluation.is_running();
        ui.add_enabled_ui(!running, |ui| self.choices.ui(ui, context, prospect));
    }

    /// The parts about what was evaluated.
    fn outcome(&mut self, ui: &mut Ui, context: &mut Context<'_>, parts: &[Tab]) {
        let view = context.evaluation;
        if view.status == EvaluationStatus::Empty {
            return introduction(ui);
        }
        if view.checkpoints.len() > 1 {
            self.choose_checkpoint(ui, view);
        }
        let Some(at) = self.shown(view) else { return };
        for part in parts {
            match part {
                Tab::Choices => {}
                Tab::Progress => wide_card(ui, |ui| progress::ui(ui, context, at)),
                Tab::Results => {
                    if let Some(finished) = &at.finished {
                        results::ui(ui, context, finished);
                    } else if parts.len() == 1 {
                        ui.label(weak(ui, "The table appears when all attacks are done."));
                    }
                }
                Tab::Examples => {
                    if let Some(finished) = &at.finished {
                        let (examples, fallen) = (&mut self.examples, &at.fallen);
                        wide_card(ui, |ui| examples.ui(ui, context, &Arc::clone(finished), fallen));
                    } else if parts.len() == 1 {
                        ui.label(weak(ui, "They appear when all attacks are done."));
                    }
                }
            }
        }
    }

    /// The checkpoint whose results are shown.
    fn shown<'a>(&self, view: &'a EvaluationView) -> Option<&'a CheckpointView> {
        view.checkpoints.get(self.shown.min(view.checkpoints.len().saturating_sub(1)))
    }

    fn choose_checkpoint(&mut self, ui: &mut Ui, view: &EvaluationView) {
        ui.horizontal_wrapped(|ui| {
            for (index, at) in view.checkpoints.iter().enumerate() {
                let response = ui.selectable_label(self.shown == index, format!("{} {}", at.name(), state(at)));
                if response.on_hover_text(at.path.display().to_string()).clicked() {
                    self.shown = index;
                    self.examples.forget();
                }
            }
        });
    }
}

/// A few words about a checkpoint, for a list of several.
fn state(at: &CheckpointView) -> String {
    match (&at.finished, &at.failure, at.began.is_some()) {
        (Some(finished), _, _) => {
            let worst = finished.evaluation.report_of("", &finished.evaluation.worst_case());
            crate::app::widgets::percent(worst.accuracy)
        }
        (None, Some(_), _) => "failed".into(),
        (None, None, true) => format!("{:.0} % done", (100.0 * at.share()).floor()),
        (None, None, false) => String::new(),
    }
}

/// Why the evaluation cannot start, as far as it is known.
fn why_not(job: &EvaluationJob, prospect: Option<&Prospect>) -> Option<String> {
    if job.checkpoints.is_empty() {
        return Some("Choose a checkpoint first.".into());
    }
    let candidates = prospect.map_or(&[][..], |prospect| &prospect.checkpoints);
    let wrong = candidates.iter().find_map(|candidate| candidate.found.as_ref().ok()?.entries.as_ref().err());
    if let Some(what) = wrong {
        return Some(what.clone());
    }
    let mut known = candidates.iter().filter_map(|candidate| candidate.found.as_ref().ok());
    if known.any(|known| matches!(known.held, Held::Report | Held::Other(_))) {
        return Some("Choose another directory for the report.".into());
    }
    let lost = !candidates.is_empty() && candidates.iter().all(|candidate| candidate.found.is_err());
    lost.then(|| "The checkpoint cannot be evaluated; the reason is beside it.".into())
}

/// Directories of the reports of a job, as far as they are known.
fn directories(view: &EvaluationView, job: &EvaluationJob, prospect: Option<&Prospect>) -> Vec<PathBuf> {
    let began = view.checkpoints.iter().filter_map(|at| Some(at.began.as_ref()?.directory.clone()));
    if view.is_running() && view.job.as_deref() == Some(job) {
        return began.collect();
    }
    let candidates = prospect.map_or(&[][..], |prospect| &prospect.checkpoints);
    candidates.iter().filter_map(|candidate| Some(candidate.found.as_ref().ok()?.directory.clone())).collect()
}

fn introduction(ui: &mut Ui) {
    wide_card(ui, |ui| {
        ui.label(crate::app::widgets::strong("How robust is a network really?"));
        ui.label(
            "Choose the weights of a run, or a file of another program, and the attacks. An image counts as robust only if \
             it withstands all of them. The result is a table by class with 95 % intervals, and a report on disk.",
        );
        ui.label(weak(
            ui,
            "AutoAttack is the standard for a published number. PGD alone is quick, and often too optimistic. What is \
             finished is stored: an evaluation that was cancelled can be resumed.",
        ));
    });
}

fn wide_card(ui: &mut Ui, contents: impl FnOnce(&mut Ui)) {
    card(ui, "", |ui| {
        ui.set_width(ui.available_width());
        contents(ui);
    });
}
