//! A study: what became of its runs, what their comparison shows, the arms paired by seed, and the classes.

mod classes;
mod paired;
mod states;
#[cfg(test)]
mod tests;

use egui::{RichText, Ui};

use super::{TWO_COLUMNS, wide_card};
use crate::app::context::Context;
use crate::app::runs::Study;
use crate::app::theme;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::weak;
use crate::study::{CellReport, HOW_STATED, claims};

/// Maximum number of warnings or failures that are listed.
const LISTED: usize = 12;

/// What the user has chosen in a study.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// The cell whose numbers are shown; the first one if there is none of this name.
    cell: String,
    /// The quantity that is drawn.
    quantity: String,
    /// Whether classes are in the order of the data set.
    in_class_order: bool,
}

/// Shows a study.
pub(super) fn ui(ui: &mut Ui, context: &mut Context<'_>, study: &Study, choices: &mut Choices) {
    let report = &study.report;
    wide_card(ui, &report.title, |ui| overview(ui, study, choices));
    let cell = report.cells.iter().find(|cell| cell.cell == choices.cell);
    let numbers = |ui: &mut Ui, context: &mut Context<'_>, choices: &mut Choices| {
        wide_card(ui, "Arms paired by seed", |ui| match cell {
            Some(cell) => paired::ui(ui, context, study, cell, &mut choices.quantity),
            None => nothing(ui),
        });
        wide_card(ui, "Robust accuracy of each class", |ui| match cell {
            Some(cell) => classes::ui(ui, context.run.class_names(), study, cell, &mut choices.in_class_order),
            None => nothing(ui),
        });
    };
    let told = |ui: &mut Ui, context: &mut Context<'_>| {
        wide_card(ui, "Runs of the study", |ui| states::ui(ui, context, study));
        wide_card(ui, "What the numbers show", |ui| match cell {
            Some(cell) => sentences(ui, cell),
            None => nothing(ui),
        });
    };
    if ui.available_width() < TWO_COLUMNS {
        told(ui, context);
        numbers(ui, context, choices);
        return;
    }
    ui.columns(2, |columns| {
        told(&mut columns[0], context);
        numbers(&mut columns[1], context, choices);
    });
}

fn nothing(ui: &mut Ui) {
    ui.label(weak(ui, "No run of this cell is complete yet."));
}

fn overview(ui: &mut Ui, study: &Study, choices: &mut Choices) {
    let report = &study.report;
    if !report.about.is_empty() {
        ui.label(report.about.replace('\n', " "));
    }
    let [done, all] = report.complete;
    let text = format!(
        "{done} of {all} runs are complete. Weights: {}. Differences from {}.",
        report.weights, report.baseline
    );
    ui.label(weak(ui, unbroken(&text)));
    let cells = study.cells();
    if !cells.contains(&choices.cell.as_str()) {
        // The first cell that has numbers.
        let first = report.cells.first().map(|cell| cell.cell.as_str()).or(cells.first().copied());
        choices.cell = first.unwrap_or_default().to_owned();
    }
    if cells.len() > 1 {
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Cell");
            let width = (ui.available_width() - 80.0).clamp(140.0, 480.0);
            let chosen =
                egui::ComboBox::from_id_salt("cell").selected_text(choices.cell.clone()).width(width).truncate();
            let chosen = chosen.show_ui(ui, |ui| {
                for cell in cells {
                    ui.selectable_value(&mut choices.cell, cell.to_owned(), cell);
                }
            });
            chosen.response.labelled_by(label.id);
        });
    }
    if let Some(cell) = report.cells.iter().find(|cell| cell.cell == choices.cell) {
        let text = format!("{}. Robust: {}, seed of the run.", cell.subject, cell.attack);
        ui.label(weak(ui, unbroken(&text)));
    }
    let warning = theme::palette(ui).warning;
    for text in report.warnings.iter().take(LISTED) {
        ui.label(RichText::new(text).color(warning));
    }
    more(ui, report.warnings.len(), "warnings");
}

/// Says how many lines are not listed.
fn more(ui: &mut Ui, count: usize, what: &str) {
    if count > LISTED {
        ui.label(weak(ui, format!("and {} more {what}", count - LISTED)));
    }
}

fn sentences(ui: &mut Ui, cell: &CellReport) {
    let claims = claims(cell);
    if claims.is_empty() {
        ui.label(weak(ui, "One arm: nothing is compared."));
        return;
    }
    for claim in claims {
        ui.label(unbroken(&claim));
    }
    ui.label(weak(ui, unbroken(HOW_STATED)).size(13.0));
}
