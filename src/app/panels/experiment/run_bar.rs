//! The run's controls, and what stands between the form and the run.

use egui::{Button, RichText, Ui, vec2};

use crate::app::command::Command;
use crate::app::context::{Action, Context};
use crate::app::theme;
use crate::app::view::Status;
use crate::app::widgets::weak;
use crate::config::{Applies, Experiment};
use crate::worker::Request;

/// Width of a button below which a second line of buttons is begun.
const BUTTON: f32 = 78.0;

/// A button: its text, what it does, and why it cannot now.
struct Control {
    text: &'static str,
    command: Command,
    blocked: Option<String>,
    /// The next thing that most people want.
    first: bool,
}

/// Shows the controls; `wrong` says why no run can begin.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, wrong: Option<String>) {
    let controls = controls(context.run.status, wrong);
    let gap = 6.0;
    let width = ui.available_width();
    let columns = if width >= 8.0 * (BUTTON + gap) { 8 } else { 4 };
    let size = vec2(((width - gap * (columns as f32 - 1.0)) / columns as f32).min(132.0), 26.0);
    ui.scope(|ui| {
        ui.spacing_mut().item_spacing = vec2(gap, gap);
        ui.spacing_mut().button_padding.x = 2.0;
        for line in controls.chunks(columns) {
            ui.horizontal(|ui| line.iter().for_each(|control| button(ui, context, control, size)));
        }
    });
}

fn controls(status: Status, wrong: Option<String>) -> [Control; 8] {
    let live = status.is_live();
    let opening = status == Status::Opening;
    let no_run = || (!live).then(|| "There is no run.".to_owned());
    let not_yet = || no_run().or_else(|| opening.then(|| "The run is still being opened.".to_owned()));
    let busy = || live.then(|| "A run is under way: stop it first.".to_owned());
    let control = |text, command, blocked| Control { text, command, blocked, first: false };
    [
        Control {
            first: !live,
            ..control(
                "Start",
                Command::Start,
                busy().or_else(|| wrong.map(|wrong| format!("Mend this first: {wrong}."))),
            )
        },
        Control {
            first: live,
            ..control(if status == Status::Paused { "Continue" } else { "Pause" }, Command::PlayPause, not_yet())
        },
        control("One batch", Command::OneBatch, not_yet()),
        control("Attack step", Command::OneAttackStep, not_yet()),
        control("Slow motion", Command::SlowMotion, no_run()),
        control("Stop & save", Command::StopAndSave, no_run()),
        control("Stop only", Command::StopWithoutSaving, no_run()),
        control("Resume…", Command::Resume, busy()),
    ]
}

fn button(ui: &mut Ui, context: &mut Context<'_>, control: &Control, size: egui::Vec2) {
    let palette = theme::palette(ui);
    let enabled = control.blocked.is_none();
    let text = RichText::new(control.text).size(if size.x < 90.0 { 12.0 } else { 13.0 });
    let button = if control.first && enabled {
        Button::new(text.color(theme::text_on(palette.accent))).fill(palette.accent)
    } else {
        Button::new(text)
    };
    let response = ui.add_enabled_ui(enabled, |ui| ui.add_sized(size, button)).inner;
    let explained = response.on_hover_ui(|ui| explain(ui, control.command));
    let explained = explained.on_disabled_hover_ui(|ui| {
        explain(ui, control.command);
        ui.label(weak(ui, control.blocked.clone().unwrap_or_default()));
    });
    if explained.clicked() {
        context.ask(Action::Command(control.command));
    }
}

/// What a command does, and its keys.
pub(super) fn explain(ui: &mut Ui, command: Command) {
    ui.set_max_width(300.0);
    ui.label(command.tooltip());
    if let Some(shortcut) = command.shortcut() {
        let keys = ui.ctx().format_shortcut(&shortcut);
        ui.label(weak(ui, keys));
    }
}

/// The fields in which the form differs from the run, and the way to hand them over.
pub(super) fn pending(ui: &mut Ui, context: &mut Context<'_>, live: &Experiment, wrong: Option<&str>) {
    let pending = context.form.pending(live);
    if pending.is_empty() {
        return;
    }
    let count = |when| pending.iter().filter(|pending| pending.applies == when).count();
    let parts = [(Applies::Now, "now"), (Applies::NextEpoch, "next epoch"), (Applies::Restart, "restart")];
    let parts = parts.map(|(when, text)| (count(when), text));
    let parts =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, text)| format!("{n} {text}")).collect::<Vec<_>>().join(", ");
    let change = context.form.change(live);
    let palette = theme::palette(ui);
    let frame = egui::Frame::new().fill(palette.accent.gamma_multiply(0.12)).corner_radius(6).inner_margin(6);
    frame.show(ui, |ui| {
        ui.set_width(ui.available_width());
        ui.horizontal_wrapped(|ui| {
            ui.spacing_mut().item_spacing.x = 6.0;
            ui.label(RichText::new(format!("Not in the run: {parts}")).size(13.0)).on_hover_ui(|ui| {
                ui.label("Settings in which this panel differs from the run, and when the run can take them over:");
                for pending in &pending {
                    ui.label(format!("{}: {}", pending.field.label, tag(pending.applies).1));
                }
            });
            let blocked = match (&change, wrong) {
                (None, _) => Some("All of this needs a new run: stop this one and start again.".to_owned()),
                (_, Some(wrong)) => Some(format!("Mend this first: {wrong}.")),
                _ => None,
            };
            let apply = ui.add_enabled(blocked.is_none(), Button::new(RichText::new("Apply to the run").size(13.0)));
            let apply = apply
                .on_hover_text("Hand over what the run can take; each setting takes effect as its tag says.")
                .on_disabled_hover_text(blocked.unwrap_or_default());
            if let (true, Some(change)) = (apply.clicked(), change) {
                context.request(Request::Change(Box::new(change)));
            }
            let take = ui.button(RichText::new("Show the run's").size(13.0));
            if take.on_hover_text("Take the run's settings into this panel. Can be undone.").clicked() {
                context.form.load(live.clone());
            }
        });
    });
}

/// A word for when a change takes effect, and a sentence.
pub(super) const fn tag(applies: Applies) -> (&'static str, &'static str) {
    match applies {
        Applies::Now => ("now", "takes effect from the next batch or evaluation"),
        Applies::NextEpoch => ("next epoch", "takes effect when the next epoch begins"),
        Applies::Restart => ("restart", "takes effect in a new run only"),
    }
}
