//! One line of the form: mark, label, control, tag, reset.

use egui::{Align, Layout, Rect, RichText, Ui, UiBuilder, pos2, vec2};
use serde_json::Value;

use super::control;
use super::download::Offered;
use super::icon::{self, Icon};
use super::machine::Machine;
use super::pending::tag;
use crate::app::context::{Action, Context};
use crate::app::form::{FieldError, Preset};
use crate::app::theme;
use crate::app::widgets::{strong, weak};
use crate::config::fields::{Field, Kind, Values};
use crate::config::{Applies, Experiment, applies, without_effect};

/// The data that all lines are drawn from, built once per frame.
pub(super) struct Sheet<'a> {
    /// The experiment of the form.
    pub(super) experiment: Experiment,
    /// Its values.
    pub(super) values: Values,
    /// The preset they are compared with.
    pub(super) base: Option<&'static Preset>,
    /// All errors.
    pub(super) errors: Vec<FieldError>,
    /// Whether a run is live, so that lines show when changes take effect.
    pub(super) live: bool,
    /// What is known about this machine.
    pub(super) machine: &'a Machine,
}

impl Sheet<'_> {
    /// Whether a field differs from the preset.
    pub(super) fn differs(&self, field: &Field) -> bool {
        self.base.is_some_and(|base| base.differs(field.path, &self.values))
    }

    /// The value of a field.
    pub(super) fn value(&self, field: &Field) -> &Value {
        self.values.get(field.path)
    }
}

/// Horizontal extent of the columns of a line, from its left end.
struct Columns {
    label: f32,
    control: (f32, f32),
    tag: (f32, f32),
    reset: (f32, f32),
}

impl Columns {
    const MARK: f32 = 12.0;
    const RESET: f32 = 22.0;
    const TAG: f32 = 56.0;

    fn of(width: f32, live: bool) -> Self {
        let gap = 6.0;
        let tag = if live { Self::TAG } else { 0.0 };
        let label = (0.3 * width + 10.0).clamp(if live { 108.0 } else { 118.0 }, 170.0);
        let end = width - Self::RESET - gap - if live { tag + gap } else { 0.0 };
        let control = (label + gap, end.min(label + gap + 240.0));
        let tag = (control.1 + gap, control.1 + gap + tag);
        let reset = if live { tag.1 + gap } else { control.1 + gap };
        Self { label, control, tag, reset: (reset, reset + Self::RESET) }
    }
}

/// Height of a line.
const HEIGHT: f32 = 24.0;

/// Draws the line of a field, with its errors below.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, sheet: &Sheet<'_>, field: &'static Field) {
    let palette = theme::palette(ui);
    let width = ui.available_width();
    let columns = Columns::of(width, sheet.live);
    let (rect, _) = ui.allocate_exact_size(vec2(width, HEIGHT), egui::Sense::hover());
    let part = |(left, right): (f32, f32)| {
        Rect::from_min_max(pos2(rect.left() + left, rect.top()), pos2(rect.left() + right, rect.bottom()))
    };
    let (differs, error) = (sheet.differs(field), sheet.errors.iter().find(|error| error.path == field.path));
    // A field with an error stays editable even if it has no effect.
    let idle = without_effect(&sheet.experiment, field.path).filter(|_| error.is_none());
    if differs {
        let center = pos2(rect.left() + 4.0, rect.center().y);
        ui.painter().circle_filled(center, 3.0, palette.accent);
    }
    let mut cell = |name: &str, range: (f32, f32)| {
        let layout = Layout::left_to_right(Align::Center);
        // Not by the number of widgets before it: a note that appears above must not take the focus from what is typed.
        let id = ui.scope_id().with((field.path, name));
        let builder = UiBuilder::new().scope_id(id).max_rect(part(range)).layout(layout);
        let mut cell = ui.new_child(builder);
        cell.spacing_mut().item_spacing.x = 4.0;
        cell
    };
    let mut place = cell("label", (Columns::MARK, columns.label));
    let text = if differs { strong(field.label) } else { RichText::new(field.label) };
    let text = if idle.is_some() { text.color(palette.weak) } else { text };
    let explain = |ui: &mut Ui| explain(ui, context, sheet, field, idle);
    let label = place.add(egui::Label::new(text).truncate().selectable(false).show_tooltip_when_elided(false));
    let label = label.on_hover_ui(explain);
    let mut place = cell("control", columns.control);
    if idle.is_some() {
        place.disable();
    }
    let response = control::show(&mut place, context, sheet, field, label.id);
    if let Some(response) = response {
        let explain = |ui: &mut Ui| self::explain(ui, context, sheet, field, idle);
        response.on_hover_ui(explain).on_disabled_hover_ui(explain);
    }
    if error.is_some() {
        let frame = part(columns.control).expand(1.0);
        place.painter().rect_stroke(frame, 3.0, (1.0, palette.error), egui::StrokeKind::Inside);
    }
    if sheet.live {
        let (word, sentence) = tag(applies(field.path).unwrap_or(Applies::Restart));
        cell("tag", columns.tag).label(weak(&place, word).small()).on_hover_text(format!("A change {sentence}."));
    }
    if differs {
        let mut place = cell("reset", columns.reset);
        let reset = icon::button(&mut place, Icon::Reset, true, vec2(Columns::RESET, Columns::RESET));
        let reset = reset.accessible_name(format!("Reset {}", field.label));
        let base = sheet.base.map(|base| field.written(base.values.get(field.path))).unwrap_or_default();
        if reset.on_hover_text(format!("Back to the preset's value: {base}")).clicked() {
            context.form.reset(field.path);
        }
    }
    below(ui, context, sheet, field);
}

/// Draws the error of a field and the information on its value.
fn below(ui: &mut Ui, context: &mut Context<'_>, sheet: &Sheet<'_>, field: &Field) {
    let palette = theme::palette(ui);
    let error = sheet.errors.iter().find(|error| error.path == field.path);
    let error = error.map(|error| (sentence(&error.what), palette.error, None, None));
    let note = control::note(sheet, field);
    let note = note.map(|note| {
        let color = if note.serious { palette.warning } else { palette.weak };
        (note.text, color, note.command, note.download)
    });
    for (text, color, command, download) in error.into_iter().chain(note) {
        // Closer to its own line than to the next one.
        ui.add_space(-4.0);
        ui.horizontal(|ui| {
            ui.spacing_mut().interact_size.y = 16.0;
            ui.add_space(Columns::MARK);
            ui.vertical(|ui| {
                ui.spacing_mut().item_spacing.y = 2.0;
                ui.add(egui::Label::new(RichText::new(text).small().color(color)).wrap());
                if let Some(offered) = download {
                    fetching(ui, context, sheet, &offered);
                }
                if let Some(command) = command
                    && ui.link(RichText::new(&command).small()).on_hover_text("Copy this command").clicked()
                {
                    context.ask(Action::CopyText(command));
                }
            });
        });
    }
}

/// A button that downloads a data set, with its size and licence; or the progress of the download, and a button that ends it.
fn fetching(ui: &mut Ui, context: &mut Context<'_>, sheet: &Sheet<'_>, offered: &Offered) {
    let now = sheet.machine.downloads().now();
    let Some((name, now)) = now else {
        let button = egui::Button::new(format!("Download {} ({})", offered.name, offered.size));
        if ui
            .add(button)
            .on_hover_text("Fetch it from its publisher and verify it. Can be cancelled and resumed.")
            .clicked()
        {
            context.ask(Action::Download(offered.name.clone()));
        }
        ui.add(egui::Label::new(weak(ui, format!("Licence: {}.", offered.licence)).small()).wrap());
        return;
    };
    if name != offered.name {
        ui.add(egui::Label::new(weak(ui, format!("{name} is being downloaded; then this one can be.")).small()).wrap());
    }
    let what = now.as_ref().map_or_else(|| format!("Connecting for {name}"), |now| now.what.clone());
    ui.add(egui::Label::new(RichText::new(what).small()).truncate());
    ui.horizontal(|ui| {
        let bar = egui::ProgressBar::new(now.as_ref().and_then(|now| now.share).unwrap_or_default());
        let text = now.map(|now| now.bytes).unwrap_or_default();
        let bar = bar.desired_width((ui.available_width() - 80.0).clamp(60.0, 220.0)).text(RichText::new(text).small());
        ui.add(bar);
        if ui
            .button("Cancel")
            .on_hover_text("What has been downloaded stays, and the download can go on later.")
            .clicked()
        {
            context.ask(Action::CancelDownload);
        }
    });
}

/// The tooltip of a field.
fn explain(ui: &mut Ui, context: &Context<'_>, sheet: &Sheet<'_>, field: &Field, idle: Option<&str>) {
    ui.set_max_width(340.0);
    ui.label(strong(field.label));
    ui.label(format!("{}.", field.help.trim_end_matches('.')));
    let value = sheet.value(field);
    let chosen = field.choices.iter().filter(|choice| match value {
        Value::Array(items) => items.iter().any(|item| item == choice.name.as_str()),
        value => value == choice.name.as_str(),
    });
    for choice in chosen.filter(|choice| !choice.help.is_empty()) {
        ui.label(format!("{}: {}.", choice.name, choice.help.trim_end_matches('.')));
    }
    if let Some(text) = context.glossary.tooltip(&field.flag) {
        ui.label(text);
    }
    let (least, most) = field.range;
    let number = |number: f64| match field.kind {
        Kind::Epsilon => format!("{number}/255"),
        _ => format!("{number}"),
    };
    let mut facts = Vec::new();
    if most > least {
        facts.push(format!("Sensible: {} to {} {}", number(least), number(most), field.unit).trim_end().to_owned());
    }
    if let Some(unset) = field.unset {
        facts.push(format!("Unset: {unset}"));
    }
    facts.push(format!("--{}", field.flag));
    ui.label(weak(ui, facts.join("  ·  ")).small());
    if let Some(idle) = idle {
        ui.label(RichText::new(format!("No effect now: {idle}")).color(theme::palette(ui).warning));
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}
