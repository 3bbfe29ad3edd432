//! How the time of an epoch is spent, which shows the cost of the statistics.

use egui::{Color32, Ui};

use super::curves::metrics;
use crate::app::context::Context;
use crate::app::theme;
use crate::app::view::RunView;
use crate::app::widgets::{self, Part, color_key, drawn, duration, export_menu, section, stacked, weak};
use crate::evaluate::figures;

/// Names of the parts; colours are chosen in [`parts`].
const NAMES: [&str; 4] = ["attack", "update", "statistics", "other"];
/// Their meanings.
const MEANING: [&str; 4] = [
    "searching for adversarial images",
    "computing gradients and changing the weights",
    "CFPS, targets that the method chooses itself, and passes on clean images",
    "evaluation, loading images, averaging and checkpoints",
];

/// Splits seconds of everything, attack, update and statistics into attack, update, statistics and the rest.
pub(super) fn split(seconds: [f64; 4]) -> [f64; 4] {
    let [all, attack, update, statistics] = seconds;
    [attack, update, statistics, (all - attack - update - statistics).max(0.0)]
}

/// The sentence about the cost of statistics.
pub(super) fn cost(seconds: [f64; 4]) -> String {
    let share = seconds[3] / seconds[0].max(f64::MIN_POSITIVE);
    format!("Statistics (CFPS and clean passes) cost {:.1} % of this epoch", 100.0 * share)
}

/// Shows the card.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>) {
    let run = context.run;
    let (live, shown) = (context.focus.is_live(), context.focus.record(run));
    section(
        ui,
        "Where the time goes",
        None,
        |ui| export(ui, context),
        |ui| {
            let next = run.epochs.last().map_or(0, |last| last.metrics.epoch + 1);
            let current = run.now().filter(|now| live && now.epoch >= next && now.seconds[0] > 0.0);
            if let Some(now) = current {
                let part = format!("Epoch {}, {} of {} batches", now.epoch + 1, now.done, now.batches);
                epoch(ui, &part, now.seconds);
            }
            if let Some(shown) = shown {
                let row = &shown.metrics;
                let seconds = [row.seconds, row.seconds_attack, row.seconds_update, row.seconds_statistics];
                epoch(ui, &format!("Epoch {}, whole", row.epoch + 1), seconds);
            }
            if current.is_none() && run.epochs.is_empty() {
                ui.label(weak(ui, "Measured from the first batch on."));
            }
        },
    );
}

fn export(ui: &mut Ui, context: &mut Context<'_>) {
    let run = context.run;
    export_menu(ui, context, "time", || {
        let rows = metrics(run);
        drawn(run, |figure| figures::time_by_epoch(&rows, figure), || csv(run))
    });
}

/// Seconds of every part by epoch.
fn csv(run: &RunView) -> String {
    let header = ["epoch", "seconds", "seconds_attack", "seconds_update", "seconds_statistics"];
    let rows = run.epochs.iter().map(|epoch| {
        let row = &epoch.metrics;
        let seconds = [row.seconds, row.seconds_attack, row.seconds_update, row.seconds_statistics];
        std::iter::once(row.epoch.to_string()).chain(seconds.map(|s| s.to_string())).collect::<Vec<_>>()
    });
    widgets::table(&header, rows)
}

fn epoch(ui: &mut Ui, title: &str, seconds: [f64; 4]) {
    let palette = theme::palette(ui);
    let colors: [Color32; 4] = [palette.robust, palette.clean, palette.good, palette.weak];
    let parts = split(seconds);
    let whole = parts.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    ui.horizontal_wrapped(|ui| {
        ui.label(title);
        ui.label(weak(ui, format!("{} in all", duration(seconds[0]))));
    });
    let part = |i: usize| Part {
        name: NAMES[i],
        value: parts[i],
        color: colors[i],
        describe: format!("{}: {:.1} s, {:.1} %; {}", NAMES[i], parts[i], 100.0 * parts[i] / whole, MEANING[i]),
    };
    ui.push_id(title, |ui| stacked(ui, &[part(0), part(1), part(2), part(3)]));
    ui.horizontal_wrapped(|ui| {
        for i in 0..NAMES.len() {
            color_key(ui, colors[i], &format!("{} {:.1} s", NAMES[i], parts[i]));
        }
    });
    ui.label(format!("{}.", cost(seconds)));
    ui.add_space(6.0);
}
