//! Every setting of the experiment, and the run's controls.
//!
//! The most important settings are always visible; the others follow in sections. A line marks settings that differ
//! from the preset and, while a run is live, shows when a change takes effect.

mod control;
mod download;
mod icon;
mod machine;
mod offer;
mod pending;
mod row;
#[cfg(test)]
mod tests;

use egui::{Ui, vec2};

use self::icon::Icon;
use self::machine::Machine;
use self::row::Sheet;
use crate::app::command::Command;
use crate::app::context::{Action, Context, Panel};
use crate::app::form::{PRESET_GROUPS, presets};
use crate::app::theme;
use crate::app::widgets::{scrolled, strong, weak};
use crate::config::fields::{self, Field, Values};
use crate::config::without_effect;
use crate::data::ImageShape;

/// The fields that are always visible.
const BASICS: [(&str, &[&str]); 4] = [
    ("Data, model, method", &["data.dataset", "data.path", "model.arch", "fairness.method"]),
    ("Engine", &["run.engine", "run.adapter"]),
    (
        "Attack and fairness",
        &[
            "attack.epsilon",
            "attack.steps",
            "attack.step_size",
            "fairness.targeted",
            "fairness.target_mode",
            "fairness.temperature",
            "fairness.lambda_rob",
        ],
    ),
    ("Training", &["optimizer.epochs", "optimizer.batch_size", "optimizer.lr", "run.seed"]),
];

/// Minimum width for sections beside the basic fields.
const TWO_COLUMNS: f32 = 700.0;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Experiment {
    search: String,
    machine: Machine,
    choice: offer::Choice,
}

impl Experiment {
    /// Whether the images of an experiment are known to be missing on this machine.
    pub fn lacks_images(&self, experiment: &crate::config::Experiment) -> bool {
        self.machine.images(experiment).is_some_and(|images| images.missing)
    }

    /// Fetches a data set from its publisher, on a thread of its own.
    pub fn download(&mut self, context: &egui::Context, name: &str) {
        self.machine.download(context, name);
    }

    /// Ends the download; what has been received stays.
    pub fn cancel_download(&self) {
        self.machine.downloads().cancel();
    }

    /// The name and outcome of a download that has ended since the last call.
    pub fn downloaded(&mut self) -> Option<(String, Result<(), crate::data::DataError>)> {
        self.machine.downloaded()
    }

    /// Shows the setting with this path.
    pub fn find(&mut self, path: &str) {
        if let Some(field) = fields::field(path) {
            field.label.clone_into(&mut self.search);
        }
    }

    /// Shape of the first image of an experiment's folder or npy files; `None` while unknown.
    pub fn on_disk(&self, experiment: &crate::config::Experiment) -> Option<ImageShape> {
        self.machine.images(experiment).and_then(|images| images.shape)
    }

    /// A panel with a fixed description of the machine instead of the real one.
    #[cfg(test)]
    pub(in crate::app) fn on(machine: Machine) -> Self {
        Self { machine, ..Self::default() }
    }
}

impl Panel for Experiment {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        let experiment = context.form.experiment.clone();
        self.machine.look(ui, &experiment);
        let on_disk = self.on_disk(&experiment);
        let live = context.run.experiment.as_deref().filter(|_| context.run.status.is_live()).cloned();
        let sheet = Sheet {
            values: Values::of(&experiment),
            base: context.form.base(),
            errors: context.form.errors(),
            live: live.is_some(),
            machine: &self.machine,
            experiment,
        };
        let wrong = sheet.errors.first().map(|error| {
            let label = fields::field(error.path).map_or(error.path, |field| field.label);
            format!("{label}: {}", error.what)
        });
        if let Some(live) = &live {
            pending::show(ui, context, live, wrong.as_deref());
        }
        if let (Some(wrong), Some(error)) = (&wrong, sheet.errors.first()) {
            let text = egui::RichText::new(wrong).small().color(theme::palette(ui).error);
            let link = ui.add(egui::Button::new(text).frame(false).wrap());
            if link.on_hover_text("No run can begin before this is mended. Click to show the setting.").clicked() {
                self.search = fields::field(error.path).map_or_else(String::new, |field| field.label.to_owned());
            }
        }
        scrolled(ui, egui::ScrollArea::vertical().auto_shrink(false), |ui| {
            // Keep the lines clear of the scroll bar.
            ui.set_width(ui.available_width() - 4.0);
            offer::show(ui, context, &mut self.choice, on_disk);
            if ui.available_width() >= TWO_COLUMNS {
                ui.spacing_mut().item_spacing.x = 24.0;
                ui.columns(2, |columns| {
                    columns.iter_mut().for_each(|ui| ui.spacing_mut().item_spacing.x = 8.0);
                    if let [left, right] = columns {
                        head(left, context, wrong.as_deref(), on_disk);
                        basics(left, context, &sheet);
                        search_box(right, &mut self.search);
                        rest(right, context, &sheet, &self.search, true);
                    }
                });
            } else {
                head(ui, context, wrong.as_deref(), on_disk);
                search_box(ui, &mut self.search);
                if self.search.trim().is_empty() {
                    basics(ui, context, &sheet);
                }
                rest(ui, context, &sheet, &self.search, false);
            }
            ui.add_space(8.0);
        });
    }
}

/// The preset, its purpose, and the actions on the whole form.
fn head(ui: &mut Ui, context: &mut Context<'_>, wrong: Option<&str>, on_disk: Option<ImageShape>) {
    let values = Values::of(&context.form.experiment);
    let changed = context.form.base().map_or(0, |base| base.differences(&values).count());
    let dataset = context.form.experiment.data.dataset.clone();
    let shown = match context.form.base() {
        Some(base) if base.kind.is_some() => format!("defaults of {dataset}"),
        _ => context.form.preset.clone(),
    };
    ui.horizontal(|ui| {
        let label = ui.label("Preset");
        let reset = if changed > 0 { 130.0 } else { 0.0 };
        let width = (ui.available_width() - reset).clamp(120.0, 260.0);
        let mut chosen = None;
        let combo = egui::ComboBox::from_id_salt("preset").width(width).height(340.0).truncate().selected_text(shown);
        let response = combo.show_ui(ui, |ui| {
            ui.set_max_width(300.0);
            for preset in presets().iter().filter(|preset| preset.group.is_none()) {
                let current = preset.name == context.form.preset;
                if ui.selectable_label(current, preset.name).on_hover_text(preset.purpose).clicked() {
                    chosen = Some(preset.name);
                }
                ui.label(weak(ui, preset.purpose).small());
            }
            if let Some(kind) = context.form.kind(on_disk) {
                let what = "What the images of the data set usually take; the data set stays.";
                let current = kind.name() == context.form.preset;
                if ui.selectable_label(current, format!("defaults of {dataset}")).on_hover_text(what).clicked() {
                    chosen = Some(kind.name());
                }
                ui.label(weak(ui, kind.title()).small());
            }
            for group in PRESET_GROUPS {
                ui.separator();
                ui.label(weak(ui, group));
                for preset in presets().iter().filter(|preset| preset.group == Some(group)) {
                    let current = preset.name == context.form.preset;
                    if ui.selectable_label(current, preset.name).on_hover_text(preset.purpose).clicked() {
                        chosen = Some(preset.name);
                    }
                }
            }
        });
        response.response.labelled_by(label.id);
        if changed > 0 {
            let text = if changed == 1 { "1 change".to_owned() } else { format!("{changed} changes") };
            let what = "Give all settings the preset's values again. Can be undone.";
            if ui.button(format!("Reset {text}")).on_hover_text(what).clicked() {
                chosen = Some(context.form.base().map_or("", |base| base.name));
            }
        }
        if let Some(name) = chosen
            && let Err(error) = context.form.load_preset(name)
        {
            context.ask(Action::Toast(crate::app::level::Level::Error, error.to_string()));
        }
    });
    if let Some(base) = context.form.base() {
        ui.add(egui::Label::new(weak(ui, base.purpose).small()).wrap());
    }
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let (undo, redo) = (context.form.can_undo(), context.form.can_redo());
        for (icon, command, enabled) in [(Icon::Undo, Command::Undo, undo), (Icon::Redo, Command::Redo, redo)] {
            let button = icon::button(ui, icon, enabled, vec2(28.0, 24.0)).accessible_name(command.title());
            let button = button.on_hover_ui(|ui| pending::explain(ui, command));
            if button.on_disabled_hover_text("There is nothing to undo or redo.").clicked() {
                context.ask(Action::Command(command));
            }
        }
        ui.spacing_mut().button_padding.x = 6.0;
        for (text, command) in [
            ("Copy as command", Command::CopyAsCommand),
            ("Open…", Command::OpenExperiment),
            ("Save…", Command::SaveExperiment),
        ] {
            // Do not copy a command or save a file with which no run could start.
            let blocked = wrong.filter(|_| command != Command::OpenExperiment);
            let button = egui::Button::new(egui::RichText::new(text).size(13.0));
            let button = ui.add_enabled(blocked.is_none(), button).on_hover_ui(|ui| pending::explain(ui, command));
            let button = button.on_disabled_hover_ui(|ui| {
                pending::explain(ui, command);
                ui.label(weak(ui, format!("Correct this first: {}.", blocked.unwrap_or_default())));
            });
            if button.clicked() {
                context.ask(Action::Command(command));
            }
        }
    });
}

fn search_box(ui: &mut Ui, search: &mut String) {
    ui.horizontal(|ui| {
        let clear = if search.is_empty() { 0.0 } else { 30.0 };
        let width = ui.available_width() - clear;
        ui.add_sized(vec2(width, 24.0), egui::TextEdit::singleline(search).hint_text("Search settings"))
            .accessible_name("Search settings");
        if !search.is_empty() && ui.button("×").accessible_name("Clear the search").clicked() {
            search.clear();
        }
    });
    ui.add_space(2.0);
}

/// Whether a field is among the basic ones; the folder only for data sets that have one.
fn is_basic(sheet: &Sheet<'_>, field: &Field) -> bool {
    let named = BASICS.iter().any(|(_, paths)| paths.contains(&field.path));
    let folder = !matches!(sheet.experiment.data.dataset.as_str(), "digits" | "shapes");
    named && (field.path != "data.path" || folder || sheet.experiment.data.path.is_some())
}

fn basics(ui: &mut Ui, context: &mut Context<'_>, sheet: &Sheet<'_>) {
    for (title, paths) in BASICS {
        title_line(ui, title);
        for field in paths.iter().filter_map(|path| fields::field(path)).filter(|field| is_basic(sheet, field)) {
            row::show(ui, context, sheet, field);
        }
    }
    ui.add_space(6.0);
}

fn title_line(ui: &mut Ui, title: &str) {
    ui.add_space(4.0);
    ui.label(strong(title).size(13.0).color(theme::palette(ui).weak));
}

/// The sections, or the matches of a search.
fn rest(ui: &mut Ui, context: &mut Context<'_>, sheet: &Sheet<'_>, search: &str, wide: bool) {
    let mut sections: Vec<&str> = Vec::new();
    for field in fields::all() {
        if !sections.contains(&field.section.as_str()) {
            sections.push(&field.section);
        }
    }
    if !search.trim().is_empty() {
        let found: Vec<_> = fields::all().iter().filter(|field| field.matches(search)).collect();
        for section in sections {
            let mut of_section = found.iter().filter(|field| field.section == section).peekable();
            if of_section.peek().is_some() {
                title_line(ui, section);
                of_section.for_each(|field| row::show(ui, context, sheet, field));
            }
        }
        if found.is_empty() {
            ui.label(weak(ui, format!("No setting has “{}” in its name or explanation.", search.trim())));
        }
        return;
    }
    for section in sections {
        let of_section: Vec<_> =
            fields::all().iter().filter(|field| field.section == section && !is_basic(sheet, field)).collect();
        let changed = of_section.iter().filter(|field| sheet.differs(field)).count();
        let wrong = of_section.iter().any(|field| sheet.errors.iter().any(|error| error.path == field.path));
        // The section of a method that is not selected. A search still finds its settings.
        let idle = of_section.iter().all(|field| without_effect(&sheet.experiment, field.path).is_some());
        if idle && changed == 0 && !wrong {
            continue;
        }
        let mut title = egui::text::LayoutJob::default();
        let visuals = ui.visuals();
        let mut add = |text: &str, color| {
            title.append(
                text,
                0.0,
                egui::TextFormat { font_id: egui::TextStyle::Body.resolve(ui.style()), color, ..Default::default() },
            );
        };
        add(section, visuals.text_color());
        if changed > 0 {
            add(&format!("   {changed} changed"), theme::palette(ui).accent);
        }
        if wrong {
            add("   needs mending", theme::palette(ui).error);
        }
        let header = egui::CollapsingHeader::new(title).id_salt(section).default_open(wide);
        header.show_unindented(ui, |ui| of_section.iter().for_each(|field| row::show(ui, context, sheet, field)));
    }
}
