//! How an evaluation goes: a row for each attack.

use egui::{Grid, RichText, Ui};

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
        (EvaluationStatus::Done, _) => match view.checkpoints.as_slice() {
            [CheckpointView { finished: Some(finished), .. }] if finished.evaluation.has_attacks() => {
                let worst = finished.evaluation.report_of("", &finished.evaluation.worst_case());
                format!("done: {} of the images withstand all attacks", percent(worst.accuracy))
            }
            _ => "done".into(),
        },
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
    let width = ui.available_width();
    let look = Look {
        narrow: width < NARROW,
        bar: (width * if width < TIGHT { 0.12 } else { 0.2 }).clamp(40.0, 220.0),
        running: context.evaluation.is_running(),
        images: began.images,
    };
    egui::ScrollArea::horizontal().id_salt("attacks").auto_shrink([false, true]).show(ui, |ui| {
        let gap = if look.narrow { 8.0 } else { 14.0 };
        Grid::new("progress").num_columns(5).striped(true).spacing([gap, 5.0]).show(ui, |ui| {
            let mut suite = None;
            for (index, entry) in began.entries.iter().enumerate() {
                if let Some(own) = entry.suite.filter(|own| Some(*own) != suite) {
                    let tooltip = context.glossary.tooltip(own.name()).unwrap_or_default();
                    ui.label(weak(ui, own.short_title())).on_hover_text(format!(
                        "{}. Each attack runs on the images that are left.\n{tooltip}",
                        own.title()
                    ));
                    ui.end_row();
                }
                suite = entry.suite;
                look.row(ui, entry, at.progress.get(index).copied().flatten());
            }
        });
    });
}

/// Below this width, texts are shortened.
const NARROW: f32 = 620.0;
/// Below this width, bars are shortened, too.
const TIGHT: f32 = 430.0;

/// What all rows have in common.
struct Look {
    narrow: bool,
    /// Width of a bar.
    bar: f32,
    running: bool,
    /// Images of the whole set.
    images: usize,
}

impl Look {
    fn row(&self, ui: &mut Ui, entry: &Entry, now: Option<AttackProgress>) {
        ui.horizontal(|ui| {
            if entry.suite.is_some() {
                ui.add_space(12.0);
            }
            ui.label(entry.title()).on_hover_text(entry.attack.to_string());
            if entry.role == Role::Control {
                ui.label(weak(ui, "control"))
                    .on_hover_text("It checks the other attacks. An image that falls to it is not robust either.");
            }
        });
        let share = now.map_or(0.0, |now| if now.images == 0 { 1.0 } else { now.done / now.images as f64 });
        let is_done = now.is_some_and(|now| now.is_done());
        let response = bar(ui, self.bar, share, is_done, &entry.title());
        let Some(now) = now else {
            ui.label(weak(ui, "to come"));
            ui.end_row();
            return;
        };
        response.on_hover_text(format!("{:.0} of {} images", now.done.floor(), now.images));
        let AttackProgress { standing, images, seconds: time, .. } = now;
        let text =
            if self.narrow { format!("{standing} of {images}") } else { format!("{standing} of {images} withstand") };
        ui.label(text).on_hover_text(format!("{standing} of the {images} images that it attacks withstand it."));
        if is_done {
            // The others of a suite have fallen to an attack before.
            let (low, high) = wilson(standing as u64, self.images as u64);
            let accuracy = standing as f64 / self.images.max(1) as f64;
            let (low, high) = (100.0 * low, 100.0 * high);
            ui.label(strong(percent(accuracy)))
                .on_hover_text(format!("{standing} of {} images, 95 % interval [{low:.1}, {high:.1}]", self.images));
            if !self.narrow {
                ui.label(weak(ui, format!("[{low:.1}, {high:.1}]")));
            }
            ui.label(weak(ui, seconds(time)));
        } else {
            let left = now.eta_secs().filter(|_| self.running);
            ui.label(weak(ui, left.map_or_else(|| "…".into(), |left| format!("{} left", clock(left)))));
            if !self.narrow {
                ui.label("");
            }
            ui.label(weak(ui, seconds(time)));
        }
        ui.end_row();
    }
}

/// A bar with a name for screen readers.
pub(super) fn bar(ui: &mut Ui, width: f32, share: f64, is_done: bool, name: &str) -> egui::Response {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(egui::vec2(width, 10.0), egui::Sense::hover());
    ui.painter().rect_filled(rect, 3, palette.line);
    if share > 0.0 {
        let filled = egui::Rect::from_min_size(rect.min, egui::vec2(width * share.min(1.0) as f32, rect.height()));
        ui.painter().rect_filled(filled, 3, if is_done { palette.good } else { palette.accent });
    }
    response.widget_info(|| {
        let text = format!("{name}: {:.0} % done", (100.0 * share).floor());
        egui::WidgetInfo::labeled(egui::Role::ProgressIndicator, true, text)
    });
    response
}

/// A time in seconds, or as a clock from a minute on.
fn seconds(seconds: f64) -> String {
    if seconds < 60.0 { format!("{seconds:.1} s") } else { clock(seconds) }
}
