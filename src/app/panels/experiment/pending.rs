//! The differences between the form and the run.

use egui::{Button, RichText, Ui};

use crate::app::command::Command;
use crate::app::context::Context;
use crate::app::theme;
use crate::app::widgets::weak;
use crate::config::{Applies, Experiment};
use crate::worker::Request;

/// The effect of a command, and its shortcut.
pub(super) fn explain(ui: &mut Ui, command: Command) {
    ui.set_max_width(300.0);
    ui.label(command.tooltip());
    if let Some(shortcut) = command.shortcut() {
        let keys = ui.ctx().format_shortcut(&shortcut);
        ui.label(weak(ui, keys));
    }
}

/// The fields in which the form differs from the run, and controls to apply them.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, live: &Experiment, wrong: Option<&str>) {
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
                ui.label("Settings in which this panel differs from the run, and when the run can adopt them:");
                for pending in &pending {
                    ui.label(format!("{}: {}", pending.field.label, tag(pending.applies).1));
                }
            });
            let blocked = match (&change, wrong) {
                (None, _) => Some("All of this needs a new run: stop this one and start again.".to_owned()),
                (_, Some(wrong)) => Some(format!("Correct this first: {wrong}.")),
                _ => None,
            };
            let apply = ui.add_enabled(blocked.is_none(), Button::new(RichText::new("Apply to the run").size(13.0)));
            let apply = apply
                .on_hover_text("Apply the settings that the run can adopt; the tag of each says when it takes effect.")
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

/// A word and a sentence that say when a change takes effect.
pub(super) const fn tag(applies: Applies) -> (&'static str, &'static str) {
    match applies {
        Applies::Now => ("now", "takes effect from the next batch or evaluation"),
        Applies::NextEpoch => ("next epoch", "takes effect when the next epoch begins"),
        Applies::Restart => ("restart", "takes effect in a new run only"),
    }
}
