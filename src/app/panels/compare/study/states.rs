//! The runs of a study by cell and arm, with what became of each.

use egui::{Color32, FontId, RichText, Sense, TextStyle, Ui};

use super::{LISTED, more};
use crate::app::context::Context;
use crate::app::runs::{Study, StudyGroup};
use crate::app::theme::{self, Palette};
use crate::app::widgets::{name_room, strong, weak};
use crate::study::{Outcome, PlannedRun};

/// Height of a row.
const ROW: f32 = 22.0;
/// More rows than this scroll.
const ROWS: f32 = 14.0;

/// A row of the list.
enum Line<'a> {
    Cell(&'a str),
    Arm(&'a StudyGroup),
}

/// Shows the runs. One that has begun is added to the comparison when it is clicked.
pub(super) fn ui(ui: &mut Ui, context: &mut Context<'_>, study: &Study) {
    let mut lines = Vec::new();
    let mut cell = "";
    for group in &study.groups {
        if group.cell != cell {
            cell = &group.cell;
            lines.push(Line::Cell(cell));
        }
        lines.push(Line::Arm(group));
    }
    ui.label(weak(ui, counts(study)));
    let arms: Vec<String> = study.file.arms.iter().map(|arm| arm.name.clone()).collect();
    let font = TextStyle::Body.resolve(ui.style());
    let room = name_room(ui, &arms, &font);
    let mut opened = None;
    egui::ScrollArea::both().id_salt("runs of the study").max_height(ROWS * ROW).auto_shrink([false, true]).show_rows(
        ui,
        ROW,
        lines.len(),
        |ui, range| {
            for line in &lines[range] {
                ui.horizontal(|ui| {
                    ui.set_height(ROW);
                    match line {
                        Line::Cell(cell) => drop(ui.label(strong(*cell))),
                        Line::Arm(group) => arm(ui, study, group, room, &font, &mut opened),
                    }
                });
            }
        },
    );
    for (run, what) in study.report.failed.iter().take(LISTED) {
        ui.label(RichText::new(format!("{run} failed: {what}")).color(theme::palette(ui).error));
    }
    more(ui, study.report.failed.len(), "failed runs");
    if let Some(run) = opened {
        let path = study.path.join(&run.name);
        if !context.settings.compare.contains(&path) {
            context.settings.compare.push(path);
        }
    }
}

/// How many runs are in each state, such as `5 complete, 1 failed, 3 missing`.
fn counts(study: &Study) -> String {
    let states = ["complete", "under way", "stopped", "failed", "missing"];
    let mut counts = [0; 5];
    for run in &study.plan {
        let at = match outcome(study, run) {
            Outcome::Finished(_) => 0,
            Outcome::Running { .. } => 1,
            Outcome::Stopped { .. } => 2,
            Outcome::Failed(_) => 3,
            Outcome::Waiting => 4,
        };
        counts[at] += 1;
    }
    let told = counts.iter().zip(states).filter(|(count, _)| **count > 0);
    told.map(|(count, state)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

fn outcome<'a>(study: &'a Study, run: &PlannedRun) -> &'a Outcome {
    study.results.runs.get(&run.name).unwrap_or(&Outcome::Waiting)
}

/// The name of an arm and the states of its runs.
fn arm<'a>(
    ui: &mut Ui,
    study: &'a Study,
    group: &StudyGroup,
    room: f32,
    font: &FontId,
    opened: &mut Option<&'a PlannedRun>,
) {
    let palette = theme::palette(ui);
    let name = crate::app::widgets::elided(ui, &group.arm, font.clone(), room - 8.0, ui.visuals().text_color());
    let (rect, response) = ui.allocate_exact_size(egui::vec2(room, ROW), Sense::hover());
    let at = egui::pos2(rect.left(), rect.center().y - name.size().y / 2.0);
    ui.painter().galley(at, name, Color32::PLACEHOLDER);
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, &group.arm));
    response.on_hover_text(&group.arm);
    for run in group.runs.iter().filter_map(|at| study.plan.get(*at)) {
        let outcome = outcome(study, run);
        let (word, color) = short(outcome, palette);
        let begun = !matches!(outcome, Outcome::Waiting | Outcome::Failed(_));
        let text = RichText::new(format!("seed {}: {word}", run.seed)).color(color);
        let label = egui::Label::new(text).sense(if begun { Sense::click() } else { Sense::hover() });
        let described = outcome.described(run, study.file.measure.needs_network());
        let hint = if begun { "\nClick to add this run to the comparison." } else { "" };
        let response = ui.add(label.extend()).on_hover_text(format!("{}: {described}{hint}", run.name));
        if response.clicked() {
            *opened = Some(run);
        }
        ui.add_space(8.0);
    }
}

fn short(outcome: &Outcome, palette: &Palette) -> (String, Color32) {
    match outcome {
        Outcome::Finished(_) => ("complete".into(), palette.good),
        Outcome::Running { epochs, .. } => (format!("epoch {}", epochs + 1), palette.accent),
        Outcome::Stopped { epochs } => (format!("stopped after {epochs}"), palette.warning),
        Outcome::Failed(_) => ("failed".into(), palette.error),
        Outcome::Waiting => ("missing".into(), palette.weak),
    }
}
