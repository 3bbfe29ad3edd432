//! What to evaluate: checkpoints, attacks, images, the report.

use std::path::PathBuf;

use clap::ValueEnum;
use egui::{DragValue, Grid, RichText, TextEdit, Ui};

use super::super::inspector::{distance, largest_radius, levels, usual_radius};
use crate::app::context::{Action, Context, OpenFor};
use crate::app::evaluation::short_name;
use crate::app::theme;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::{card, strong, weak};
use crate::attack::{Attack, AttackKind, AttackSettings};
use crate::engine::Norm;
use crate::evaluate::robustness::{Held, Suite, Wanted};
use crate::model::pytorch::Normalisation;
use crate::units::Epsilon;
use crate::worker::evaluation::{Candidate, EvaluationJob, Foreign, Known, Prospect};

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Choices {
    pub(super) checkpoints: Vec<PathBuf>,
    /// The text field for another checkpoint.
    typed: String,
    pub(super) wanted: Vec<Wanted>,
    /// Whether controls run; `None` for the default.
    controls: Option<bool>,
    own_steps: bool,
    steps: u32,
    own_ball: bool,
    norm: Norm,
    /// The radius, in levels of 255.
    epsilon: f64,
    all_images: bool,
    limit: usize,
    /// Directory of the report; empty for the default.
    pub(super) directory: String,
    keep_images: bool,
    foreign: bool,
    /// How files of other programs normalise images; empty if they say so themselves.
    pub(super) normalize: String,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            checkpoints: Vec::new(),
            typed: String::new(),
            wanted: vec![Wanted::Attack(AttackKind::Pgd)],
            controls: None,
            own_steps: false,
            steps: 20,
            own_ball: false,
            norm: Norm::Linf,
            epsilon: usual_radius(Norm::Linf),
            all_images: false,
            limit: 1000,
            directory: String::new(),
            keep_images: false,
            foreign: false,
            normalize: String::new(),
        }
    }
}

impl Choices {
    pub(super) fn add(&mut self, path: PathBuf) {
        if !self.checkpoints.contains(&path) {
            self.checkpoints.push(path);
        }
    }

    /// The evaluation that is described here.
    pub(super) fn job(&self, context: &Context<'_>) -> EvaluationJob {
        let directory = self.directory.trim();
        EvaluationJob {
            checkpoints: self.checkpoints.clone(),
            wanted: self.wanted.clone(),
            settings: AttackSettings {
                norm: self.own_ball.then_some(self.norm),
                epsilon: self.own_ball.then(|| Epsilon::levels(self.epsilon)),
                steps: self.own_steps.then_some(self.steps),
                ..AttackSettings::default()
            },
            controls: self.controls(),
            limit: (!self.all_images).then_some(self.limit),
            directory: (!directory.is_empty()).then(|| directory.into()),
            keep_images: self.keep_images,
            engine: context.form.experiment.run.engine_options(),
            foreign: self.foreign.then(|| Foreign {
                experiment: Box::new(context.form.experiment.clone()),
                normalize: self.normalize.trim().parse().ok(),
            }),
            skip: 0,
        }
    }

    /// As on the command line, a suite has controls by default.
    fn controls(&self) -> bool {
        self.controls.unwrap_or_else(|| self.wanted.iter().any(|wanted| matches!(wanted, Wanted::Suite(_))))
    }

    pub(super) fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>, prospect: Option<&Prospect>) {
        let candidates = prospect.map_or(&[][..], |prospect| &prospect.checkpoints);
        full_card(ui, "Checkpoints", |ui| self.checkpoints(ui, context, candidates));
        full_card(ui, "Attacks", |ui| self.attacks(ui, context, candidates));
        full_card(ui, "Ball", |ui| self.ball(ui, candidates));
        full_card(ui, "Images and report", |ui| self.report(ui, context, candidates));
    }

    fn checkpoints(&mut self, ui: &mut Ui, context: &mut Context<'_>, candidates: &[Candidate]) {
        let palette = theme::palette(ui);
        let mut removed = None;
        for (index, path) in self.checkpoints.iter().enumerate() {
            let name = short_name(path);
            ui.horizontal_wrapped(|ui| {
                ui.label(strong(&name)).on_hover_text(path.display().to_string());
                let remove = ui.small_button("Remove");
                remove.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Remove {name}")));
                if remove.clicked() {
                    removed = Some(index);
                }
            });
            match candidates.get(index).map(|candidate| &candidate.found) {
                None => drop(ui.label(weak(ui, "reading…"))),
                Some(Ok(known)) => drop(ui.label(weak(ui, unbroken(&known.about)))),
                Some(Err(failure)) => {
                    ui.label(RichText::new(&failure.what).color(palette.error));
                    ui.label(failure.advice.as_deref().unwrap_or_default());
                }
            }
        }
        if let Some(index) = removed {
            self.checkpoints.remove(index);
        }
        ui.horizontal(|ui| {
            let width = (ui.available_width() - 60.0).max(80.0);
            let typed =
                ui.add(field(ui, &mut self.typed).hint_text("run directory, .safetensors, .pth").desired_width(width));
            typed.widget_info(|| egui::WidgetInfo::labeled(egui::Role::TextInput, true, "Path of a checkpoint"));
            let entered = typed.lost_focus() && ui.input(|input| input.key_pressed(egui::Key::Enter));
            let can_add = !self.typed.trim().is_empty();
            let added = ui.add_enabled(can_add, egui::Button::new("Add")).clicked();
            if can_add && (added || entered) {
                let path = PathBuf::from(self.typed.trim());
                self.typed.clear();
                self.add(path);
            }
        });
        ui.horizontal_wrapped(|ui| {
            if ui.button("File…").on_hover_text("Choose a .safetensors, .pth or .pt file.").clicked() {
                context.ask(Action::Open(OpenFor::Evaluate));
            }
            if ui.button("Run…").on_hover_text("Choose a run directory; its best checkpoint is evaluated.").clicked()
            {
                context.ask(Action::Open(OpenFor::EvaluateRun));
            }
            // Both are written after the first epoch.
            let run = context.run.directory().filter(|_| !context.run.epochs.is_empty()).cloned();
            for (text, name) in [("Best of this run", "best"), ("Last of this run", "last")] {
                let Some(run) = &run else { continue };
                let path = run.join("checkpoints").join(format!("{name}.safetensors"));
                if !self.checkpoints.contains(&path)
                    && ui.button(text).on_hover_text(path.display().to_string()).clicked()
                {
                    self.add(path);
                }
            }
        });
        if !self.checkpoints.is_empty() {
            ui.checkbox(&mut self.foreign, "Files without an experiment belong to that of the panel Experiment")
                .on_hover_text("For weights of other programs: architecture and data set are those of the form.");
        }
        if self.foreign && !self.checkpoints.is_empty() {
            self.normalisation(ui);
        }
    }

    fn normalisation(&mut self, ui: &mut Ui) {
        ui.horizontal(|ui| {
            let label = ui.label("Normalisation");
            let width = ui.available_width() - 10.0;
            ui.add(field(ui, &mut self.normalize).hint_text("as the file says").desired_width(width))
                .labelled_by(label.id)
                .on_hover_text("cifar10, cifar100, imagenet, mnist, none, or MEAN/STD with one number per channel.");
        });
        let text = self.normalize.trim();
        if let (false, Err(what)) = (text.is_empty(), text.parse::<Normalisation>()) {
            ui.colored_label(theme::palette(ui).error, what);
        }
    }

    fn attacks(&mut self, ui: &mut Ui, context: &mut Context<'_>, candidates: &[Candidate]) {
        ui.scope(|ui| {
            ui.spacing_mut().item_spacing.y = 2.0;
            for suite in Suite::ALL {
                let term = context.glossary.tooltip(suite.name()).unwrap_or_default();
                let tooltip = format!("{}.\n{term}", suite.title());
                self.choice(ui, Wanted::Suite(suite), suite.short_title(), tooltip.trim_end(), true);
            }
        });
        ui.separator();
        let norm = self.norm_in_use(candidates);
        let kinds: Vec<AttackKind> =
            AttackKind::value_variants().iter().copied().filter(|kind| *kind != Attack::clean().kind).collect();
        let columns = if ui.available_width() < 260.0 { 2 } else { 3 };
        Grid::new("attacks").num_columns(columns).spacing([8.0, 2.0]).show(ui, |ui| {
            for (index, kind) in kinds.into_iter().enumerate() {
                let possible = Attack::published(kind, Epsilon::ZERO, norm, 0).check();
                let help = kind.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
                let mut tooltip = help.unwrap_or_default();
                if let Err(what) = &possible {
                    tooltip = format!("{tooltip}\n{what}.");
                }
                self.choice(ui, Wanted::Attack(kind), kind.title(), &tooltip, possible.is_ok());
                if (index + 1) % columns == 0 {
                    ui.end_row();
                }
            }
        });
        let wrong = candidates.iter().find_map(|candidate| candidate.found.as_ref().ok()?.entries.as_ref().err());
        if let Some(what) = wrong {
            ui.colored_label(theme::palette(ui).error, what);
            ui.label("Choose the other norm below, or leave out that attack.");
        }
        ui.separator();
        let mut controls = self.controls();
        let response = ui.checkbox(&mut controls, "Controls that check the attacks").on_hover_text(
            "Noise in the same ball, an attack with radius 0, and PGD with more steps: they show an attack that is too weak. \
             An image that falls to one of them is not robust either.",
        );
        if response.changed() {
            self.controls = Some(controls);
        }
        ui.horizontal(|ui| {
            ui.label("Steps").on_hover_text(published_steps());
            ui.radio_value(&mut self.own_steps, false, "as published");
            ui.radio_value(&mut self.own_steps, true, "own number");
            let number = DragValue::new(&mut self.steps).range(1..=10_000);
            ui.add_enabled(self.own_steps, number).accessible_name("Number of steps");
        });
    }

    /// A check box for an attack or a suite.
    fn choice(&mut self, ui: &mut Ui, wanted: Wanted, title: &str, tooltip: &str, possible: bool) {
        let mut chosen = self.wanted.contains(&wanted);
        let response = ui.add_enabled(possible || chosen, egui::Checkbox::new(&mut chosen, title));
        let response = response.on_hover_text(tooltip).on_disabled_hover_text(tooltip);
        if response.changed() {
            match chosen {
                true => self.wanted.push(wanted),
                false => self.wanted.retain(|other| *other != wanted),
            }
            // In the order of the table, in which they run.
            let suites = Suite::ALL.map(Wanted::Suite);
            let kinds = AttackKind::value_variants().iter().map(|kind| Wanted::Attack(*kind));
            let order: Vec<Wanted> = kinds.chain(suites).collect();
            self.wanted.sort_by_key(|wanted| order.iter().position(|other| other == wanted));
        }
    }

    /// The norm of the attacks, as far as it is known.
    fn norm_in_use(&self, candidates: &[Candidate]) -> Norm {
        if self.own_ball { self.norm } else { own_ball(candidates).map_or(self.norm, |(_, norm)| norm) }
    }

    fn ball(&mut self, ui: &mut Ui, candidates: &[Candidate]) {
        let mut of_experiment = !self.own_ball;
        let response = ui.checkbox(&mut of_experiment, "That of the checkpoint's experiment");
        if response.changed() {
            self.own_ball = !of_experiment;
            if let Some((epsilon, norm)) = own_ball(candidates).filter(|_| self.own_ball) {
                (self.epsilon, self.norm) = (levels(epsilon), norm);
            }
        }
        if !self.own_ball {
            return;
        }
        let norm = self.norm;
        ui.horizontal(|ui| {
            ui.selectable_value(&mut self.norm, Norm::Linf, "L∞")
                .on_hover_text("No value changes by more than epsilon.");
            ui.selectable_value(&mut self.norm, Norm::L2, "L2")
                .on_hover_text("The Euclidean length of the whole change is at most epsilon.");
        });
        if norm != self.norm {
            self.epsilon = usual_radius(self.norm);
        }
        ui.spacing_mut().slider_width = (ui.available_width() - 205.0).clamp(40.0, 180.0);
        Grid::new("ball").num_columns(2).spacing([8.0, 4.0]).show(ui, |ui| {
            let tooltip = "Radius of the ball that every image stays in.";
            distance(ui, "Epsilon", &mut self.epsilon, largest_radius(self.norm), tooltip);
        });
    }

    fn report(&mut self, ui: &mut Ui, context: &mut Context<'_>, candidates: &[Candidate]) {
        ui.radio_value(&mut self.all_images, true, "All test images");
        ui.horizontal(|ui| {
            let text = ui.radio_value(&mut self.all_images, false, "The first").on_hover_text(
                "In equal shares of each class. A few hundred are enough for a first look; published numbers use all.",
            );
            ui.add(DragValue::new(&mut self.limit).range(1..=1_000_000).suffix(" images")).labelled_by(text.id);
        });
        ui.checkbox(&mut self.keep_images, "Write the adversarial images").on_hover_text(
            "Every attack's images as .npy files of exact values: the images, times the attacks, times four bytes a value.",
        );
        ui.horizontal(|ui| {
            let label = ui.label("Report");
            let width = (ui.available_width() - 94.0).max(60.0);
            ui.add(field(ui, &mut self.directory).hint_text("a new directory").desired_width(width))
                .labelled_by(label.id)
                .on_hover_text(
                    "Directory of the report; empty for a new one in the run directory, or beside the file.",
                );
            if ui.button("Choose…").clicked() {
                context.ask(Action::Open(OpenFor::Report));
            }
        });
        for known in candidates.iter().filter_map(|candidate| candidate.found.as_ref().ok()) {
            goes_to(ui, known);
        }
    }
}

/// Where a report goes, and what is there.
fn goes_to(ui: &mut Ui, known: &Known) {
    let palette = theme::palette(ui);
    let shown = known.directory.display();
    match &known.held {
        Held::Nothing => ui.label(weak(ui, format!("→ {shown}"))),
        Held::Same => {
            let text = format!("→ {shown}: unfinished; Resume continues it");
            ui.label(RichText::new(text).color(palette.accent))
        }
        Held::Report => {
            let text = format!("{shown} holds a report already. Choose another directory.");
            ui.label(RichText::new(text).color(palette.error))
        }
        Held::Other(differs) => {
            let text = format!(
                "{shown} holds another unfinished evaluation: {differs}. Choose another directory, or its settings."
            );
            ui.label(RichText::new(text).color(palette.error))
        }
    };
}

/// Radius and norm of the first checkpoint's experiment.
fn own_ball(candidates: &[Candidate]) -> Option<(Epsilon, Norm)> {
    candidates.iter().find_map(|candidate| Some(candidate.found.as_ref().ok()?.own))
}

/// The published numbers of steps, for a tooltip.
fn published_steps() -> String {
    let run = crate::train::run_steps(&crate::config::Experiment::default());
    let settings = AttackSettings::default();
    let steps = |kind: &&AttackKind| {
        let varied = AttackSettings { steps: Some(1), ..settings }.attack(**kind, &run);
        let usual = settings.attack(**kind, &run);
        (varied != usual).then(|| format!("{} {}", kind.title(), usual.steps))
    };
    let all: Vec<String> = AttackKind::value_variants().iter().filter_map(|kind| steps(&kind)).collect();
    format!("Another number of steps for attacks chosen by themselves. As published: {}.", all.join(", "))
}

/// A text field that stands out from a card in both themes.
fn field<'a>(ui: &Ui, text: &'a mut String) -> TextEdit<'a> {
    let visuals = ui.visuals();
    let ground = if visuals.dark_mode { visuals.extreme_bg_color } else { visuals.faint_bg_color };
    TextEdit::singleline(text).background_color(ground)
}

fn full_card(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui)) {
    card(ui, title, |ui| {
        ui.set_width(ui.available_width());
        contents(ui);
    });
}
