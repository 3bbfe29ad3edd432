//! The result of an evaluation: what speaks against it, the table by class, and the report.

use egui::text::{LayoutJob, TextFormat};
use egui::{FontId, Grid, RichText, TextStyle, Ui};

use super::{export, wide_card};
use crate::app::context::{Action, Context};
use crate::app::theme;
use crate::app::widgets::{export_menu, percent, strong, weak};
use crate::attack::{Report, describe_worst_class};
use crate::evaluate::robustness::{Evaluation, Role, Row};
use crate::worker::evaluation::FinishedEvaluation;

/// A column of the table.
struct Column {
    title: String,
    tooltip: String,
    report: Report,
}

pub(super) fn ui(ui: &mut Ui, context: &mut Context<'_>, finished: &FinishedEvaluation) {
    wide_card(ui, |ui| warnings(ui, &finished.evaluation));
    wide_card(ui, |ui| {
        let columns = columns(&finished.evaluation);
        ui.horizontal_wrapped(|ui| {
            ui.label(strong("Accuracy by class"));
            export_menu(ui, context, "evaluation", || export::bars(finished));
        });
        // The worst case, or clean images alone.
        if let Some(worst) = columns.get(1).or(columns.first()).map(|column| &column.report) {
            let Report { worst_class, worst_class_accuracy, worst_class_interval, worst_class_ties, .. } = worst;
            let class =
                describe_worst_class(worst_class, *worst_class_accuracy, *worst_class_interval, worst_class_ties);
            let label = ui.label(format!("Worst class: {class}."));
            if let Some(tooltip) = context.glossary.tooltip("worst-class") {
                label.on_hover_text(tooltip);
            }
        }
        table(ui, context, &columns);
        ui.label(weak(ui, "Bold is the worst class under each attack. In brackets: 95 % intervals.").size(13.0));
        ui.separator();
        report(ui, context, finished);
    });
}

/// Signs that the numbers are too high.
fn warnings(ui: &mut Ui, evaluation: &Evaluation) {
    let palette = theme::palette(ui);
    let has_controls = evaluation.rows.iter().any(|row| row.entry.role == Role::Control);
    let warnings: Vec<&String> = evaluation.attack_warnings.iter().chain(&evaluation.warnings).collect();
    match (warnings.as_slice(), has_controls) {
        ([], true) => {
            ui.label(RichText::new("No sign that the attacks were too weak: the controls agree.").color(palette.good));
        }
        ([], false) => {
            ui.label(weak(ui, "No sign that the attacks were too weak; controls would look for more of them."));
        }
        (warnings, _) => {
            ui.label(strong("These numbers may be too high").color(palette.warning));
            for warning in warnings {
                ui.horizontal_top(|ui| {
                    ui.label(RichText::new("•").color(palette.warning));
                    ui.add(egui::Label::new(*warning).wrap());
                });
            }
        }
    }
}

/// A column for each attack that counts, and one for the worst case.
fn columns(evaluation: &Evaluation) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut suite = None;
    let counts = |row: &&Row| row.entry.role == Role::Attack;
    for row in evaluation.rows.iter().filter(counts) {
        let entry = &row.entry;
        // In a suite, each attack adds to the ones before.
        let goes_on = entry.suite.is_some() && entry.suite == suite;
        suite = entry.suite;
        let title = if goes_on { format!("+ {}", entry.title()) } else { entry.title() };
        let after = match entry.suite.filter(|_| goes_on) {
            Some(suite) => format!("\nAfter the attacks of {} so far.", suite.short_title()),
            None => String::new(),
        };
        let tooltip = format!("{}{after}", entry.attack);
        columns.push(Column { title, tooltip, report: evaluation.report(row) });
    }
    if evaluation.has_attacks() {
        let report = evaluation.report_of("worst case", &evaluation.worst_case());
        let tooltip = "An image counts only if it withstands every attack.".into();
        // Beside the clean accuracy, so that a narrow panel shows both.
        let place = columns.len().min(1);
        columns.insert(place, Column { title: "worst case".into(), tooltip, report });
    }
    columns
}

fn table(ui: &mut Ui, context: &Context<'_>, columns: &[Column]) {
    let Some(first) = columns.first() else { return };
    egui::ScrollArea::horizontal().id_salt("classes").auto_shrink([false, true]).show(ui, |ui| {
        Grid::new("accuracy").striped(true).spacing([16.0, 4.0]).show(ui, |ui| {
            ui.label("");
            for column in columns {
                ui.label(strong(&column.title)).on_hover_text(&column.tooltip);
            }
            ui.end_row();
            term(ui, context, "mean", "robust-accuracy");
            for column in columns {
                cell(ui, column.report.accuracy, Some(column.report.interval), false);
            }
            ui.end_row();
            if first.report.shown_worst_tenth().is_some() {
                term(ui, context, "worst 10 %", "worst-class");
                for column in columns {
                    cell(ui, column.report.worst_tenth_accuracy, None, false);
                }
                ui.end_row();
            }
            term(ui, context, "gap", "gap");
            for column in columns {
                cell(ui, column.report.gap, None, false);
            }
            ui.end_row();
            for (k, class) in first.report.classes.iter().enumerate() {
                ui.label(&class.name).on_hover_text(format!("{} images", class.images));
                for column in columns {
                    let Some(class) = column.report.classes.get(k) else { continue };
                    let worst = class.name == column.report.worst_class;
                    match class.accuracy {
                        Some(accuracy) => cell(ui, accuracy, Some(class.interval), worst),
                        None => {
                            ui.label(weak(ui, "n/a")).on_hover_text("The class has no test images.");
                        }
                    }
                }
                ui.end_row();
            }
        });
    });
}

fn term(ui: &mut Ui, context: &Context<'_>, text: &str, key: &str) {
    crate::app::widgets::term(ui, context, text, key);
}

/// A share with its interval.
fn cell(ui: &mut Ui, value: f64, interval: Option<[f64; 2]>, worst: bool) {
    let palette = theme::palette(ui);
    let size = TextStyle::Body.resolve(ui.style()).size;
    let family = if worst { theme::strong_family() } else { egui::FontFamily::Proportional };
    let color = if worst { palette.worst } else { ui.visuals().text_color() };
    let mut job = LayoutJob::default();
    let format = |font_id, color| TextFormat { font_id, color, valign: egui::Align::Center, ..Default::default() };
    job.append(&percent(value), 0.0, format(FontId::new(size, family), color));
    if let Some([low, high]) = interval {
        let text = format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high);
        job.append(&text, 5.0, format(FontId::proportional(size - 2.5), palette.weak));
    }
    ui.add(egui::Label::new(job).wrap_mode(egui::TextWrapMode::Extend));
}

/// Where the report is, and what to do with it.
fn report(ui: &mut Ui, context: &mut Context<'_>, finished: &FinishedEvaluation) {
    let file = finished.directory.join("report.md");
    ui.horizontal_wrapped(|ui| {
        ui.label(strong("Report"));
        ui.label(weak(ui, finished.directory.display().to_string()))
            .on_hover_text("report.md, report.json, report.csv, a figure, and every attack's verdict on every image.");
        if ui.button("Open report").on_hover_text(file.display().to_string()).clicked() {
            context.ask(Action::OpenPath(file));
        }
        if ui.button("Open folder").on_hover_text(finished.directory.display().to_string()).clicked() {
            context.ask(Action::OpenPath(finished.directory.clone()));
        }
        if ui.button("Copy path").clicked() {
            context.ask(Action::CopyText(finished.directory.display().to_string()));
        }
    });
}
