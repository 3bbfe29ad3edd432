//! A single image in detail: its attack step by step, and the decision regions around it.

mod ask;
mod attack;
mod export;
mod map;
mod network;
mod source;
mod steps;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use egui::{ComboBox, Role, ScrollArea, Ui, WidgetInfo};

use crate::app::command::Command;
use crate::app::context::{Action, Context, Panel};
use crate::app::theme;
use crate::app::view::Status;
use crate::app::widgets::{card, empty, scrolled, weak};
use crate::data::Dataset;
use crate::worker::{DecisionMap, Failure, INSPECTING, Inspection, InspectionJob, MAPPING, MapJob, Request, Subject};

pub(super) use attack::{distance, largest_radius, levels, usual_radius};
pub(super) use steps::after;

use ask::Asking;
use attack::AttackForm;
use map::MapForm;
use source::Source;
use steps::Steps;

/// Minimum interval in seconds between recomputations while following a run.
const FOLLOW_SECS: f64 = 2.0;
/// Minimum width for controls beside the results; the next constant: for the map beside the attack.
const TWO_COLUMNS: f32 = 700.0;
const THREE_COLUMNS: f32 = 1200.0;
const CONTROLS: f32 = 290.0;
/// Below this height a single-column panel shows one part at a time.
const TALL: f32 = 480.0;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Inspector {
    source: Source,
    subject: Option<Subject>,
    attack: AttackForm,
    map: MapForm,
    steps: Steps,
    follow: Follow,
    inspecting: Asking<InspectionJob>,
    mapping: Asking<MapJob>,
    inspection: Option<Arc<Inspection>>,
    shown_map: Option<Arc<DecisionMap>>,
    /// The part that a small panel shows.
    tab: Tab,
    /// Images of the run that was open in the last frame; another run means another network.
    model: Option<Arc<Dataset>>,
}

/// The parts of a panel that is too small to show all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Tab {
    Settings,
    #[default]
    Attack,
    Map,
}

/// Counts the networks that were queried: a new revision requires a new request.
#[derive(Debug, Default)]
struct Follow {
    on: bool,
    revision: u64,
    at: f64,
    position: Option<f64>,
}

impl Panel for Inspector {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        self.adopt_model(context);
        self.follow_run(ui, context);
        self.take_answers(context);
        self.ask(ui, context);
        if context.run.info.is_none() && self.inspection.is_none() {
            return without_model(ui, context);
        }
        let small = ui.available_width() < TWO_COLUMNS && ui.available_height() < TALL;
        if small {
            ui.horizontal_wrapped(|ui| {
                for (tab, text) in [(Tab::Settings, "Settings"), (Tab::Attack, "Attack"), (Tab::Map, "Decision map")] {
                    ui.selectable_value(&mut self.tab, tab, text);
                }
            });
        }
        scrolled(ui, ScrollArea::vertical().auto_shrink(false), |ui| {
            if small {
                return match self.tab {
                    Tab::Settings => self.controls(ui, context),
                    Tab::Attack => self.attack_card(ui, context),
                    Tab::Map => self.map_card(ui, context),
                };
            }
            let width = ui.available_width();
            let gap = ui.spacing().item_spacing.x;
            if width < TWO_COLUMNS {
                self.controls(ui, context);
                self.attack_card(ui, context);
                self.map_card(ui, context);
                return;
            }
            let rest = width - CONTROLS - gap;
            ui.horizontal_top(|ui| {
                column(ui, CONTROLS, |ui| self.controls(ui, context));
                if width < THREE_COLUMNS {
                    column(ui, rest, |ui| {
                        self.attack_card(ui, context);
                        self.map_card(ui, context);
                    });
                } else {
                    let map = ((rest - gap) * 0.46).min(660.0);
                    column(ui, rest - gap - map, |ui| self.attack_card(ui, context));
                    column(ui, map, |ui| self.map_card(ui, context));
                }
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

fn without_model(ui: &mut Ui, context: &mut Context<'_>) {
    empty(ui, "No network to question", "An image can be attacked once a run is under way or a checkpoint is open.");
    ui.vertical_centered(|ui| {
        ui.add_space(8.0);
        if ui.button("Start a run").clicked() {
            context.ask(Action::Command(Command::Start));
        }
        if ui.button("Open a checkpoint…").clicked() {
            context.ask(Action::Command(Command::OpenCheckpoint));
        }
    });
}

impl Inspector {
    /// Shows this image.
    pub fn open(&mut self, subject: Subject) {
        self.source.select(&subject);
        self.steps.step = None;
        self.subject = Some(subject);
    }

    /// Handles a newly opened run or checkpoint: queries its network, with an image of its data set if the shapes
    /// differ.
    fn adopt_model(&mut self, context: &Context<'_>) {
        let Some(info) = &context.run.info else {
            self.model = None;
            return;
        };
        if self.model.as_ref().is_some_and(|known| Arc::ptr_eq(known, &info.train)) {
            return;
        }
        let first = self.model.is_none() && self.inspection.is_none();
        self.model = Some(Arc::clone(&info.train));
        self.follow.revision += 1;
        self.follow.position = context.run.now().map(|now| now.position());
        self.source.abandon();
        let classes = info.class_names().len();
        let fits = |subject: &Subject| {
            subject.shape == info.shape() && subject.label.is_none_or(|label| (label as usize) < classes)
        };
        if !self.subject.as_ref().is_some_and(fits) {
            self.subject = self.source.subject(info);
        }
        if first {
            self.attack = AttackForm::of_run(context.run.experiment.as_ref().unwrap_or(&info.experiment));
        }
        self.map.choose_axes(classes);
    }

    fn follow_run(&mut self, ui: &Ui, context: &Context<'_>) {
        if !self.follow.on {
            return;
        }
        let position = context.run.now().map(|now| now.position());
        let now = ui.input(|input| input.time);
        if position.is_some() && position != self.follow.position && now - self.follow.at >= FOLLOW_SECS {
            self.follow.revision += 1;
            (self.follow.position, self.follow.at) = (position, now);
        }
    }

    fn take_answers(&mut self, context: &mut Context<'_>) {
        if let Some(newest) = &context.run.inspection
            && self.inspection.as_ref().is_none_or(|shown| !Arc::ptr_eq(shown, newest))
            && self.inspecting.accepts(newest.job.id)
        {
            self.steps.renew();
            self.inspection = Some(Arc::clone(newest));
        }
        if let Some(newest) = &context.run.map
            && self.shown_map.as_ref().is_none_or(|shown| !Arc::ptr_eq(shown, newest))
            && self.mapping.accepts(newest.job.id)
        {
            self.map.renew();
            self.shown_map = Some(Arc::clone(newest));
        }
        if let (Some(sought), Some(info)) = (&context.run.sought, &context.run.info)
            && self.source.take(sought, context.actions)
        {
            self.subject = self.source.subject(info);
            self.steps.step = None;
        }
    }

    fn ask(&mut self, ui: &Ui, context: &mut Context<'_>) {
        if context.run.info.is_none() || context.run.status == Status::Opening {
            return;
        }
        let Some(subject) = self.subject.clone() else { return };
        self.attack.avoid(subject.label, context.run.class_names().len());
        let failure = context.run.job_failure.as_ref();
        let settings = self.attack.attack();
        let of_map = settings.clone();
        let mut job = InspectionJob { id: self.follow.revision, subject: subject.clone(), attack: settings };
        if let Some(id) = self.inspecting.due(ui, &job, failure) {
            job.id = id;
            context.request(Request::Inspect(Box::new(job)));
        }
        let mut job = self.map.job(self.follow.revision, subject, of_map);
        let failure = context.run.job_failure.as_ref();
        if let Some(id) = self.mapping.due(ui, &job, failure) {
            job.id = id;
            context.request(Request::Map(Box::new(job)));
        }
    }

    fn controls(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        card(ui, "Image", |ui| {
            ui.set_width(ui.available_width());
            if self.source.ui(ui, context, self.subject.as_mut(), &self.attack.attack())
                && let Some(info) = &context.run.info
            {
                self.subject = self.source.subject(info);
                self.steps.step = None;
            }
        });
        card(ui, "Attack", |ui| {
            ui.set_width(ui.available_width());
            let label = self.subject.as_ref().and_then(|subject| subject.label);
            self.attack.ui(ui, context.run.class_names(), label);
        });
        card(ui, "Plane of the decision map", |ui| {
            ui.set_width(ui.available_width());
            self.map.controls(ui, context.run.class_names(), &self.attack.attack());
        });
        if context.run.status.is_live() {
            ui.checkbox(&mut self.follow.on, "Follow the run").on_hover_text(
                "Attack and map again while the network learns, every two seconds at most. Training waits meanwhile.",
            );
        }
        if context.run.info.is_none() {
            ui.label(weak(ui, "No network is open: what is shown is the last answer."));
        }
    }

    fn attack_card(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        card(ui, "", |ui| {
            ui.set_width(ui.available_width());
            let failed = self.inspecting.failed(ui, context.run.job_failure.as_ref(), INSPECTING);
            note(ui, "Attack step by step", self.inspecting.is_waiting(), failed);
            if let Some(shown) = self.inspection.clone() {
                self.steps.ui(ui, context, &shown);
            }
        });
    }

    fn map_card(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        card(ui, "", |ui| {
            ui.set_width(ui.available_width());
            let failed = self.mapping.failed(ui, context.run.job_failure.as_ref(), MAPPING);
            note(ui, "Decision map", self.mapping.is_waiting(), failed);
            if let Some(shown) = self.shown_map.clone() {
                // The step of another attack, or of another image, has no place in this map.
                let step = self.inspection.as_ref().filter(|inspection| {
                    inspection.job.attack == shown.job.attack && inspection.job.subject == shown.job.subject
                });
                let step = step.and_then(|inspection| self.steps.shown(inspection));
                if let Some(chosen) = self.map.ui(ui, context, &shown, step) {
                    self.steps.show(chosen);
                }
            }
        });
    }
}

/// The title of a part, with the state of its answer: pending or failed.
fn note(ui: &mut Ui, title: &str, waiting: bool, failed: Option<&Failure>) {
    ui.horizontal(|ui| {
        ui.label(crate::app::widgets::strong(title));
        if waiting && failed.is_none() {
            ui.label(weak(ui, "computing…"));
        }
    });
    if let Some(failure) = failed {
        ui.colored_label(theme::palette(ui).error, &failure.what);
        if let Some(advice) = &failure.advice {
            ui.label(advice);
        }
    }
}

/// A selection of a class, or of none. `without` is left out.
fn choose_class(
    ui: &mut Ui,
    name: &str,
    choice: &mut Option<u32>,
    names: &[String],
    none: &str,
    without: Option<u32>,
) -> egui::Response {
    let of = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
    let text = choice.map_or_else(|| none.to_owned(), of);
    let response = ComboBox::from_id_salt(name)
        .selected_text(&text)
        .width(140.0)
        .show_ui(ui, |ui| {
            ui.selectable_value(choice, None, none);
            for class in (0..names.len() as u32).filter(|class| Some(*class) != without) {
                ui.selectable_value(choice, Some(class), of(class));
            }
        })
        .response;
    let text = format!("{name}: {text}");
    response.widget_info(|| WidgetInfo::labeled(Role::ComboBox, true, &text));
    response
}
