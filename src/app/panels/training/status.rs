//! Phase, progress, speed and remaining time, with the checkpoints on the progress bar.

use egui::{Align2, Color32, Rect, Sense, Shape, Stroke, TextStyle, Ui, WidgetInfo, accesskit::Role, pos2, vec2};

use crate::app::context::Context;
use crate::app::theme::{self, Palette};
use crate::app::view::{RunView, Status};
use crate::app::widgets::{card, duration, grouped, weak};
use crate::worker::Phase;

/// Shows the card.
pub(super) fn show(ui: &mut Ui, context: &Context<'_>) {
    let run = context.run;
    card(ui, "", |ui| {
        ui.set_width(ui.available_width());
        let palette = theme::palette(ui);
        ui.horizontal_wrapped(|ui| {
            phase(ui, run, palette);
            for fact in facts(run) {
                fact.show(ui, context.glossary.tooltip(fact.key));
            }
        });
        progress(ui, run, palette);
        for kept in &run.kept {
            ui.label(weak(ui, format!("Kept when the validation attack changed: {kept}.")).small());
        }
    });
}

/// A value with its name.
struct Fact {
    name: &'static str,
    value: String,
    /// The longest that the value becomes in this run: the fact has room for it, so that nothing moves when it changes.
    longest: String,
    /// Its glossary key.
    key: &'static str,
}

impl Fact {
    fn show(&self, ui: &mut Ui, tooltip: Option<&str>) {
        fact_with(ui, self.name, &self.value, &self.longest, tooltip, None);
    }
}

/// The known facts. They are the same from the first batch to the end of the run and after it.
fn facts(run: &RunView) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut add =
        |name, value: String, longest: &str, key| facts.push(Fact { name, value, longest: longest.to_owned(), key });
    let live = run.status.is_live();
    let trained = live || run.now().is_some();
    if let (Some((position, epochs)), Some(under_way)) = (run.position(), run.epoch_under_way()) {
        let (what, current) = match (live, trained) {
            (true, _) => ("Epoch", f64::from(under_way)),
            // The epoch in which it ended.
            (false, true) => ("Epoch", position.ceil()),
            (false, false) => ("Epochs done", position.floor()),
        };
        add(what, format!("{current:.0} of {epochs}"), &format!("{epochs} of {epochs}"), "epoch");
    }
    let none = || "–".to_owned();
    if trained {
        let batch = run.now().map_or_else(none, |now| format!("{} of {}", now.done, now.batches));
        let longest = run.now().map_or_else(none, |now| format!("{0} of {0}", now.batches));
        add("Batch", batch, &longest, "batch");
        let rate = run.rate.per_second().filter(|_| live);
        add("Images/s", rate.map_or_else(none, |rate| grouped(rate.round() as u64)), "99,999", "images-per-second");
    }
    let of_time = duration(0.0);
    if let Some(secs) = elapsed_secs(run).or(trained.then_some(0.0)) {
        add("Trained for", duration(secs), &of_time, "elapsed");
    }
    if trained {
        let left = run.eta_secs().filter(|left| live && *left > 0.0).map_or_else(none, duration);
        add("Left, about", left, &of_time, "eta");
    }
    let lr = run.now().map(|now| now.lr).or(run.epochs.last().map(|epoch| epoch.metrics.lr));
    if let Some(lr) = lr {
        add("Learning rate", rate_text(lr), "0.000000", "learning-rate");
    }
    if let Some(info) = &run.info {
        add("Engine", info.engine.clone(), "", "engine");
    }
    facts
}

/// A learning rate with its significant digits.
pub(super) fn rate_text(lr: f64) -> String {
    if lr > 0.0 && lr < 1e-4 { format!("{lr:.2e}") } else { format!("{}", (lr * 1e6).round() / 1e6) }
}

/// Seconds spent on all epochs including the one under way, without pauses.
fn elapsed_secs(run: &RunView) -> Option<f64> {
    let done: f64 = run.epochs.iter().map(|epoch| epoch.metrics.seconds).sum();
    let next = run.epochs.last().map_or(0, |last| last.metrics.epoch + 1);
    let now = run.now().filter(|now| now.epoch >= next).map_or(0.0, |now| now.seconds[0]);
    (run.info.is_some() && (done + now) > 0.0).then_some(done + now)
}

fn phase(ui: &mut Ui, run: &RunView, palette: &Palette) {
    let (color, text): (Color32, String) = match (&run.phase, run.status) {
        (_, Status::Over) if run.failure.is_some() => (palette.error, "failed".into()),
        (_, Status::Over) => (palette.good, "over".into()),
        (_, Status::Looking) => (palette.weak, "a checkpoint is open; nothing trains".into()),
        (phase @ Phase::Attack, _) => (palette.robust, phase.describe()),
        (phase @ Phase::Update, _) => (palette.good, phase.describe()),
        (phase @ Phase::Evaluating(_), _) => (palette.clean, phase.short()),
        (phase @ Phase::Paused, _) => (palette.warning, phase.describe()),
        (phase @ (Phase::LoadingData | Phase::OpeningEngine | Phase::Saving), _) => (palette.accent, phase.describe()),
        (phase @ Phase::Idle, _) => (palette.weak, phase.describe()),
    };
    // Attack and update alternate many times per second, and each epoch ends with an evaluation.
    fact_with(ui, "Phase", &text, &Phase::Evaluating(String::new()).short(), None, Some(color));
}

/// A value under its name, kept together so that lines break only between facts.
/// There is room for the longest value.
fn fact_with(ui: &mut Ui, name: &str, value: &str, longest: &str, tooltip: Option<&str>, dot: Option<Color32>) {
    let palette = theme::palette(ui);
    let ink = ui.visuals().text_color();
    let small = TextStyle::Small.resolve(ui.style());
    let body = egui::FontId::new(15.0, theme::strong_family());
    let room = ui.max_rect().width() - 20.0;
    let name_galley = ui.painter().layout_no_wrap(name.to_owned(), small, palette.weak);
    let value_galley = ui.painter().layout(value.to_owned(), body.clone(), ink, room);
    let least = ui.painter().layout_no_wrap(longest.to_owned(), body, ink).size().x.min(room);
    let shift = if dot.is_some() { 15.0 } else { 0.0 };
    let size = vec2(
        (value_galley.size().x.max(least) + shift).max(name_galley.size().x) + 14.0,
        name_galley.size().y + value_galley.size().y + 1.0,
    );
    let (rect, response) = ui.allocate_exact_size(size, Sense::HOVER);
    let under = rect.min + vec2(shift, name_galley.size().y + 1.0);
    if let Some(color) = dot {
        ui.painter().circle_filled(pos2(rect.left() + 5.0, under.y + 9.0), 4.5, color);
    }
    ui.painter().galley(rect.min, name_galley, palette.weak);
    ui.painter().galley(under, value_galley, ink);
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, format!("{name}: {value}")));
    if let Some(tooltip) = tooltip {
        response.on_hover_text(tooltip);
    }
}

/// All epochs as a bar with a pin for every checkpoint; below it the evaluation under way.
fn progress(ui: &mut Ui, run: &RunView, palette: &Palette) {
    let Some((position, epochs)) = run.position() else { return };
    let whole = f64::from(epochs.max(1));
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 24.0), Sense::HOVER);
    let bar = Rect::from_min_size(rect.min + vec2(4.0, 0.0), vec2(rect.width() - 8.0, 10.0));
    let x_of = |epoch: f64| bar.left() + bar.width() * (epoch / whole).clamp(0.0, 1.0) as f32;
    let percent = 100.0 * position / whole;
    let painter = ui.painter();
    painter.rect_filled(bar, 5, palette.line);
    painter.rect_filled(Rect::from_x_y_ranges(bar.left()..=x_of(position), bar.y_range()), 5, palette.accent);
    let text = format!("{position:.1} of {epochs} epochs are done ({percent:.0} %)");
    response.widget_info(|| {
        let mut info = WidgetInfo::labeled(Role::ProgressIndicator, true, "Progress of the run");
        info.current_text_value = Some(text.clone());
        info
    });
    response.on_hover_text(&text);
    for (i, done) in run.checkpoints.iter().enumerate() {
        let x = x_of(*done);
        let (top, bottom) = (bar.bottom() + 2.0, bar.bottom() + 10.0);
        let pin = vec![pos2(x, top), pos2(x + 4.0, bottom), pos2(x - 4.0, bottom)];
        ui.painter().line_segment([pos2(x, bar.top()), pos2(x, bar.bottom())], Stroke::new(1.0, palette.card));
        ui.painter().add(Shape::convex_polygon(pin, palette.good, Stroke::NONE));
        let area = Rect::from_x_y_ranges(x - 5.0..=x + 5.0, bar.top()..=bottom + 2.0);
        let text = if done.fract() == 0.0 {
            format!("Checkpoint after epoch {done}")
        } else {
            format!("Checkpoint in epoch {:.0}, at {:.0} % of it", done.floor() + 1.0, 100.0 * done.fract())
        };
        let pin = ui.interact(area, ui.scope_id().with(("checkpoint", i)), Sense::HOVER);
        pin.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
        pin.on_hover_text(text);
    }
    // Each epoch ends with an evaluation, whose line keeps its place in between and after the run.
    if run.status.is_live() || run.now().is_some() {
        let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 20.0), Sense::HOVER);
        let Some((done, total)) = run.evaluating.filter(|(_, total)| *total > 0) else { return };
        let text = format!("{}: {} of {} images", run.phase.describe(), grouped(done as u64), grouped(total as u64));
        let thin = Rect::from_min_size(rect.min + vec2(4.0, 0.0), vec2(rect.width() - 8.0, 4.0));
        ui.painter().rect_filled(thin, 2, palette.line);
        let part = thin.width() * done as f32 / total as f32;
        ui.painter().rect_filled(Rect::from_min_size(thin.min, vec2(part, 4.0)), 2, palette.clean);
        let font = TextStyle::Small.resolve(ui.style());
        ui.painter().text(thin.left_bottom() + vec2(0.0, 1.0), Align2::LEFT_TOP, &text, font, palette.weak);
        response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
    }
}
