//! How an evaluation goes: a row for each attack.

use egui::{Grid, ProgressBar, RichText, Ui};

use crate::app::bars::clock;
use crate::app::context::Context;
use crate::app::evaluation::{CheckpointView, EvaluationStatus, EvaluationView};
use crate::app::theme;
use crate::app::widgets::{percent, strong, weak};
use crate::evaluate::robustness::{Entry, Role};
use crate::fairness::wilson;
use crate::worker::evaluation::{AttackProgress, Began};

/// One line about the whole evaluation.
pub(super) fn status(view: &EvaluationView) -> String {
    let count = view.checkpoints.len();
    let at_work = view.checkpoints.iter().position(|at| at.finished.is_none() && at.failure.is_none());
    match (view.status, at_work) {
        (EvaluationStatus::Running | EvaluationStatus::Cancelling, at) => {
            let index = at.unwrap_or(count.saturating_sub(1));
            let Some(at) = view.checkpoints.get(index) else { return "waiting".into() };
            let which = if count > 1 { format!("checkpoint {} of {count}, ", index + 1) } else { String::new() };
            match (at.stage, &at.began) {
                (Some(stage), _) => format!("{which}{}", stage.describe()),
                (None, Some(began)) => {
                    let now = at.progress.iter().rposition(Option::is_some).unwrap_or(0);
                    let title = began.entries.get(now).map(Entry::title).unwrap_or_default();
                    format!("{which}attack {} of {}: {title}", now + 1, began.entries.len())
                }
                (None, None) => format!("{which}waiting"),
            }
        }
        (EvaluationStatus::Cancelled, _) => "cancelled; what is finished is kept".into(),
        (EvaluationStatus::Done, _) if view.checkpoints.iter().all(|at| at.finished.is_none()) => "failed".into(),
        (EvaluationStatus::Done, _) => "done".into(),
        (EvaluationStatus::Empty, _) => String::new(),
    }
}

/// The attacks of a checkpoint.
pub(super) fn ui(ui: &mut Ui, context: &mut Context<'_>, at: &CheckpointView) {
    let palette = theme::palette(ui);
    ui.horizontal_wrapped(|ui| {
        ui.label(strong(at.name())).on_hover_text(at.path.display().to_string());
        if let Some(Began { described, images, .. }) = at.began.as_deref() {
            let (arch, data) = (&described.architecture, &described.dataset);
            let method = described.method.as_ref().map_or_else(String::new, |method| format!("{method}, "));
            ui.label(weak(ui, format!("{method}{arch}; {images} {} images of {data}", described.part)))
                .on_hover_text(&described.engine);
        } else if let Some(stage) = at.stage {
            ui.label(weak(ui, format!("{}…", stage.describe())));
        }
    });
    if let Some(failure) = &at.failure {
        ui.colored_label(palette.error, &failure.what);
        ui.label(failure.advice.as_deref().unwrap_or_default());
    }
    let Some(began) = at.began.as_deref() else { return };
    for warning in &began.warnings {
        ui.label(RichText::new(warning).color(palette.warning));
    }
    let narrow = ui.available_width() < 560.0;
    let bar = if narrow { 70.0 } else { (ui.available_width() * 0.22).clamp(90.0, 220.0) };
    egui::ScrollArea::horizontal().id_salt("attacks").auto_shrink([false, true]).show(ui, |ui| {
        Grid::new("progress").num_columns(5).striped(true).spacing([12.0, 5.0]).show(ui, |ui| {
            let mut suite = None;
            for (index, entry) in began.entries.iter().enumerate() {
                if entry.suite.is_some() && entry.suite != suite {
                    let name = entry.suite.map_or("", |suite| suite.short_title());
                    let label = ui.label(weak(ui, name));
                    let tooltip = entry.suite.and_then(|suite| context.glossary.tooltip(suite.name()));
                    label.on_hover_text(tooltip.unwrap_or(name));
                    ui.label(weak(ui, "each on the images that are left"));
                    ui.end_row();
                }
                suite = entry.suite;
                let running = context.evaluation.is_running();
                row(ui, entry, at.progress.get(index).copied().flatten(), began.images, bar, running);
            }
        });
    });
}

fn row(ui: &mut Ui, entry: &Entry, now: Option<AttackProgress>, images: usize, width: f32, running: bool) {
    let palette = theme::palette(ui);
    ui.horizontal(|ui| {
        if entry.suite.is_some() {
            ui.add_space(12.0);
        }
        ui.label(entry.title()).on_hover_text(entry.attack.to_string());
        if entry.role == Role::Control {
            ui.label(weak(ui, "control"))
                .on_hover_text("It checks the other attacks and does not count for the result.");
        }
    });
    let share = now.map_or(0.0, |now| if now.images == 0 { 1.0 } else { now.done / now.images as f64 });
    let is_done = now.is_some_and(|now| now.is_done());
    let color = if is_done { palette.good } else { palette.accent };
    let bar = ProgressBar::new(share as f32).desired_width(width).desired_height(10.0).fill(color).corner_radius(3);
    let response = ui.add(bar);
    let title = entry.title();
    response.widget_info(|| {
        let text = format!("{title}: {:.0} % done", 100.0 * share);
        egui::WidgetInfo::labeled(egui::Role::ProgressIndicator, true, text)
    });
    let Some(now) = now else {
        ui.label(weak(ui, "to come"));
        ui.end_row();
        return;
    };
    response.on_hover_text(format!("{:.0} of {} images", now.done.floor(), now.images));
    ui.label(format!("{} of {} withstand", now.standing, now.images));
    if is_done {
        // The others of a suite have fallen to an attack before.
        let (low, high) = wilson(now.standing as u64, images as u64);
        let accuracy = now.standing as f64 / images.max(1) as f64;
        ui.label(strong(percent(accuracy))).on_hover_text(format!(
            "{} of {images} images, 95 % interval {} to {}",
            now.standing,
            percent(low),
            percent(high)
        ));
        ui.label(weak(ui, format!("[{:.1}, {:.1}]  {}", 100.0 * low, 100.0 * high, seconds(now.seconds))));
    } else {
        ui.label(weak(ui, seconds(now.seconds)));
        let left = now.eta_secs().filter(|_| running);
        ui.label(weak(ui, left.map_or_else(String::new, |left| format!("{} left", clock(left)))));
    }
    ui.end_row();
}

/// A time in seconds, or as a clock from a minute on.
fn seconds(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.1} s") } else { clock(seconds) }
}
