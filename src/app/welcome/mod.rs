//! What an empty window shows: one sentence, one living picture, three ways to begin, and the runs of before.

mod living;

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};

use egui::{Align2, FontFamily, FontId, Rect, RichText, Role, Sense, Ui, WidgetInfo, pos2, vec2};

use self::living::{SHAPE, STEP, Story};
use super::context::{Action, OpenFor};
use super::lessons;
use super::runs::{Entry, Library, Run};
use super::theme;
use super::widgets::picture::{Textures, perturbation, plain};
use super::widgets::{epsilon, percent, scrolled, strong, weak};

/// The preset of *Watch it train*, and of the form at the first start: one whose targets and radii differ visibly.
pub(super) const FIRST_PRESET: &str = "shapes-watch";
/// Seconds for which each step of the attack is shown, and its end.
const STEP_SECS: f64 = 0.7;
const END_SECS: f64 = 4.0;
/// Runs that are listed.
const RECENT: usize = 6;
/// Width of the column, which grows with a large window.
const WIDTH: f32 = 760.0;
/// Magnification of the perturbation.
const MAGNIFICATION: f32 = 3.0;

/// See the [module](self).
#[derive(Default)]
pub(super) struct Welcome {
    stories: Vec<Story>,
    /// The thread that makes the stories; `None` before it is started.
    making: Option<Receiver<Vec<Story>>>,
    /// The time at which the first one began.
    began: Option<f64>,
    textures: Textures,
    library: Library,
}

impl Welcome {
    /// Draws it, with the runs below `runs`; returns what the user asks for.
    pub(super) fn ui(&mut self, ui: &mut Ui, runs: &Path) -> Vec<Action> {
        let mut actions = Vec::new();
        self.make(ui.ctx());
        self.library.poll();
        scrolled(ui, egui::ScrollArea::vertical().auto_shrink(false), |ui| {
            let width = (ui.available_width() - 32.0).min(WIDTH.max(0.62 * ui.available_width()));
            ui.vertical_centered(|ui| {
                ui.set_max_width(width);
                ui.add_space((0.08 * ui.clip_rect().height()).clamp(8.0, 96.0));
                let text = "Train image classifiers that withstand perturbations made to fool them, and see which classes pay \
                            for it.";
                ui.label(RichText::new(text).size(20.0).family(theme::strong_family()));
                ui.add_space(14.0);
                self.picture(ui, width);
                ui.add_space(16.0);
                buttons(ui, &mut actions);
                ui.add_space(6.0);
                if ui.link("Set up an experiment").on_hover_text("Every setting of a run, with all other panels.").clicked() {
                    actions.push(Action::Show(super::layout::PanelKind::Experiment));
                }
                ui.add_space(14.0);
                self.recent(ui, runs, &mut actions);
            });
        });
        actions
    }

    /// Receives the stories, and begins to make them at the first call.
    fn make(&mut self, context: &egui::Context) {
        match &self.making {
            Some(made) => {
                if let Ok(stories) = made.try_recv() {
                    self.stories = stories;
                }
            }
            None => {
                let (sender, made) = channel();
                let context = context.clone();
                let make = move || {
                    let _ = sender.send(living::stories());
                    context.request_repaint();
                };
                // Without the thread there is no picture.
                let _ = std::thread::Builder::new().name("welcome".into()).spawn(make);
                self.making = Some(made);
            }
        }
    }

    /// An image, its perturbation, the sum, and what the network says of it.
    fn picture(&mut self, ui: &mut Ui, width: f32) {
        let gap = 16.0;
        let side = ((width - 3.0 * gap) / 4.4).min((0.3 * ui.clip_rect().height()).clamp(60.0, 260.0));
        let (rect, response) = ui.allocate_exact_size(vec2(4.4 * side + 3.0 * gap, side + 40.0), Sense::hover());
        let palette = theme::palette(ui);
        let Some((story, step)) = self.now(ui) else {
            let font = FontId::proportional(14.0);
            ui.painter().text(
                rect.center(),
                Align2::CENTER_CENTER,
                "A small network is being trained…",
                font,
                palette.weak,
            );
            return;
        };
        let story = &self.stories[story];
        let (clean, now) = (&story.steps[0], &story.steps[step]);
        let largest = f64::from(STEP) * step as f64 / 255.0;
        let prediction = now.prediction();
        let fooled = prediction != story.label;
        let said = percent(f64::from(now.probabilities[prediction]));
        let place = |i: usize| Rect::from_min_size(rect.min + vec2(i as f32 * (side + gap), 0.0), vec2(side, side));
        let captions = [
            format!("a handwritten {}", story.label),
            format!("± {} × {MAGNIFICATION}", epsilon(largest)),
            "their sum".to_owned(),
        ];
        let key = (story.label, step);
        for (i, caption) in captions.iter().enumerate() {
            let texture = self.textures.get(ui.ctx(), (i, key), || match i {
                0 => plain(&clean.image, SHAPE),
                1 => perturbation(&clean.image, &now.image, SHAPE, MAGNIFICATION),
                _ => plain(&now.image, SHAPE),
            });
            let (place, whole) = (place(i), Rect::from_min_max(pos2(0.0, 0.0), pos2(1.0, 1.0)));
            ui.painter().image(texture.id(), place, whole, egui::Color32::WHITE);
            ui.painter().rect_stroke(place, 0.0, (1.0, palette.line), egui::StrokeKind::Outside);
            let below = place.center_bottom() + vec2(0.0, 6.0);
            below_picture(ui, below, caption, side + gap - 4.0, FontFamily::Proportional, ui.visuals().text_color());
            if i > 0 {
                let sign = if i == 1 { "+" } else { "=" };
                let at = place.left_center() - vec2(0.5 * gap, 0.0);
                ui.painter().text(at, Align2::CENTER_CENTER, sign, FontId::proportional(18.0), palette.weak);
            }
        }
        let bars = Rect::from_min_size(place(3).min, vec2(1.4 * side, side));
        let row = bars.height() / now.probabilities.len() as f32;
        for (class, probability) in now.probabilities.iter().enumerate() {
            let top = bars.top() + row * class as f32;
            let font = FontId::proportional((0.85 * row).clamp(7.0, 13.0));
            let color = if class == prediction { ui.visuals().text_color() } else { palette.weak };
            let middle = top + 0.5 * row;
            ui.painter().text(pos2(bars.left(), middle), Align2::LEFT_CENTER, class.to_string(), font, color);
            let from = bars.left() + 16.0;
            let to = from + (bars.right() - from) * probability;
            let bar = Rect::from_min_max(pos2(from, top + 0.15 * row), pos2(to.max(from + 1.0), top + 0.85 * row));
            let fill = match (class == story.label, class == prediction) {
                (true, _) => palette.good,
                (_, true) => palette.worst,
                _ => palette.line,
            };
            ui.painter().rect_filled(bar, 2.0, fill);
        }
        let verdict = format!("the network says {prediction} ({said})");
        let color = if fooled { palette.worst } else { palette.good };
        let below = bars.center_bottom() + vec2(0.0, 6.0);
        below_picture(ui, below, &verdict, bars.width(), theme::strong_family(), color);
        let told =
            format!("A handwritten {}, a perturbation of at most {}, and {verdict}.", story.label, epsilon(largest));
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &told));
        response.on_hover_text(format!(
            "This happens now: a linear network was trained on {} digits when the window opened, and PGD moves every pixel by \
             {STEP}/255 a step against it.",
            living::TRAINED_ON
        ));
    }

    /// The story and step that are shown at this time; `None` before there are any. Requests the frame of the next step.
    fn now(&mut self, ui: &Ui) -> Option<(usize, usize)> {
        let length = |story: &Story| (story.steps.len() - 1) as f64 * STEP_SECS + END_SECS;
        let whole: f64 = self.stories.iter().map(length).sum();
        if whole <= 0.0 {
            return None;
        }
        let now = ui.input(|input| input.time);
        let mut time = (now - *self.began.get_or_insert(now)) % whole;
        for (i, story) in self.stories.iter().enumerate() {
            if time < length(story) {
                let step = ((time / STEP_SECS) as usize).min(story.steps.len() - 1);
                let next = if step + 1 < story.steps.len() { (step + 1) as f64 * STEP_SECS } else { length(story) };
                ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64((next - time).max(0.02)));
                return Some((i, step));
            }
            time -= length(story);
        }
        Some((0, 0))
    }

    /// The newest runs, each of which can be opened, or resumed if it is not done.
    fn recent(&mut self, ui: &mut Ui, runs: &Path, actions: &mut Vec<Action>) {
        let wake = |context: egui::Context| move || context.request_repaint();
        let found = self.library.below(&[runs], wake(ui.ctx().clone())).unwrap_or_default();
        let newest: Vec<_> = found.iter().take(RECENT).cloned().collect();
        if newest.is_empty() {
            return;
        }
        ui.label(weak(ui, format!("Recent runs in {}", runs.display())));
        for path in newest {
            let entry = self.library.get(&path, wake(ui.ctx().clone()));
            let name =
                path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into());
            ui.horizontal(|ui| {
                let open = ui.button(strong(&name)).on_hover_text(format!("Open {}.", path.display()));
                if open.clicked() {
                    let purpose = if matches!(entry, Entry::Study(_)) { OpenFor::Compare } else { OpenFor::Run };
                    actions.push(Action::Opened(purpose, path.clone()));
                }
                match &entry {
                    Entry::Reading => drop(ui.label(weak(ui, "reading…"))),
                    Entry::Failed(what) => drop(ui.add(egui::Label::new(weak(ui, what)).truncate())),
                    Entry::Study(_) => drop(ui.label(weak(ui, "a study"))),
                    Entry::Ready(run) => {
                        if run.report.is_none() && ui.button("Resume").clicked() {
                            actions.push(Action::Opened(OpenFor::Resume, path.clone()));
                        }
                        ui.add(egui::Label::new(weak(ui, summary(run))).truncate());
                    }
                }
            });
        }
    }
}

/// A line of text, centred and no wider than this.
fn below_picture(ui: &Ui, top: egui::Pos2, text: &str, width: f32, family: FontFamily, color: egui::Color32) {
    let layout = |size: f32| ui.painter().layout_no_wrap(text.to_owned(), FontId::new(size, family.clone()), color);
    let galley = layout(13.0);
    let galley = if galley.size().x > width { layout((13.0 * width / galley.size().x).max(7.0)) } else { galley };
    ui.painter().galley(top - vec2(0.5 * galley.size().x, 0.0), galley, color);
}

/// Method, data set and accuracy, with the attack.
fn summary(run: &Run) -> String {
    let (method, data) = (run.experiment.fairness.method.title(), &run.experiment.data.dataset);
    match run.summary("last") {
        Some(found) => format!(
            "{method} on {data}: robust {}, worst class {} ({}, {})",
            percent(found.robust),
            percent(found.robust_worst),
            found.part,
            found.attack
        ),
        None => format!("{method} on {data}, no epoch is done"),
    }
}

/// The three ways to begin.
pub(super) fn buttons(ui: &mut Ui, actions: &mut Vec<Action>) {
    let palette = theme::palette(ui);
    let gaps = 2.0 * ui.spacing().item_spacing.x;
    let size = vec2(((ui.available_width() - gaps) / 3.0).floor().min(150.0), 36.0);
    let button = |text: &str| egui::Button::new(RichText::new(text).size(16.0)).min_size(size);
    let whole = 3.0 * size.x + gaps;
    ui.horizontal_wrapped(|ui| {
        ui.add_space(((ui.available_width() - whole) / 2.0).max(0.0));
        let watch = ui.add(button("Watch it train").fill(palette.accent.gamma_multiply(0.35)));
        let what = format!(
            "Train a network on drawn shapes with FAIR-TAT, in one to two minutes: the preset {FIRST_PRESET}, whose temperature is \
             higher than the paper's so that targets differ visibly."
        );
        if watch.on_hover_text(what).clicked() {
            actions.push(Action::WatchItTrain);
        }
        let lesson = lessons::all().first();
        let first = ui.add_enabled(lesson.is_some(), button("First lesson"));
        if let Some(lesson) = lesson
            && first.on_hover_text(&lesson.summary).clicked()
        {
            actions.push(Action::Lesson(lesson.id.clone()));
        }
        let open = ui.add(button("Open a run…"));
        if open.on_hover_text("Look into a run directory: its curves, and its best network in the inspector.").clicked()
        {
            actions.push(Action::Open(OpenFor::Run));
        }
    });
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome").field("stories", &self.stories.len()).finish_non_exhaustive()
    }
}
