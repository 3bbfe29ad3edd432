//! The attack step by step: pictures, predictions and the course of the loss.

use std::sync::Arc;

use egui::{Align, Color32, FontId, Layout, Rect, Role, Sense, Slider, Stroke, Ui, WidgetInfo, pos2, vec2};

use super::attack::describe;
use super::export;
use super::source::{Sign, named};
use crate::app::context::Context;
use crate::app::panels::examples::Outcome;
use crate::app::theme;
use crate::app::widgets::picture::{self, Textures};
use crate::app::widgets::{epsilon, export_menu, percent, strong, weak};
use crate::engine::loss::argmax;
use crate::worker::{Inspection, InspectionStep};

/// Seconds per step during playback.
const STEP_SECS: f64 = 0.4;
/// Seconds for which original and adversarial image are shown alternately: two cycles per second.
const FLICKER_SECS: f64 = 0.25;
/// Longest side of a picture in points.
const LARGEST: f32 = 300.0;
/// Number of classes that are listed before and after.
const TOP: usize = 5;

/// Display state of an inspection.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// The displayed step: 0 is the start, `None` the last step.
    pub(super) step: Option<usize>,
    playing_since: Option<(f64, usize)>,
    pub(super) flicker: bool,
    textures: Textures,
}

impl Steps {
    /// Drops the textures of the last answer.
    pub(super) fn renew(&mut self) {
        self.textures.clear();
    }

    /// The step that is displayed: 0 is the start.
    pub(super) fn shown(&self, inspection: &Inspection) -> Option<usize> {
        let last = inspection.steps.len().checked_sub(2)?;
        Some(self.step.unwrap_or(last).min(last))
    }

    /// Displays a step, and ends playback.
    pub(super) fn show(&mut self, step: usize) {
        (self.step, self.playing_since) = (Some(step), None);
    }

    /// Draws the newest answer.
    pub(super) fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: &Arc<Inspection>) {
        let Some((clean, last)) = shown.steps.first().zip(shown.steps.len().checked_sub(2)) else { return };
        let step = self.now(ui, last);
        let current = &shown.steps[step + 1];
        let names = context.run.class_names().to_vec();
        ui.horizontal_wrapped(|ui| {
            ui.label(verdict(shown, &names)).on_hover_text(describe(&shown.job.attack, &names));
        });
        ui.label(weak(ui, attack_line(shown, &names)));
        self.pictures(ui, context, shown, current, step);
        self.scrubber(ui, step, last);
        ui.horizontal_wrapped(|ui| {
            let linf = format!("L∞ {}", epsilon(current.linf));
            ui.label(linf).on_hover_text("Largest change of a single value.");
            ui.separator();
            ui.label(format!("L2 {:.4}", current.l2))
                .on_hover_text("Euclidean length of the change, in pixel units of [0, 1].");
            ui.separator();
            ui.label(format!("loss {:.3}", current.loss)).on_hover_text("Cross-entropy of the class that is attacked.");
        });
        if let Some(step) = loss_curve(ui, shown, step) {
            self.step = Some(step);
        }
        bars(ui, &clean.probabilities, &current.probabilities, shown, step, &names);
        ui.horizontal(|ui| {
            let (inspection, names) = (Arc::clone(shown), names);
            let run = context.run;
            export_menu(ui, context, "attack", || export::triple(&inspection, step, run, &names));
            if let Some(position) = shown.position {
                ui.label(weak(ui, after(position)));
            }
        });
    }

    /// The step to show now; advances during playback.
    fn now(&mut self, ui: &Ui, last: usize) -> usize {
        if let Some((since, from)) = self.playing_since {
            let now = ui.input(|input| input.time);
            let step = (from + ((now - since) / STEP_SECS) as usize).min(last);
            self.step = Some(step);
            if step == last {
                self.playing_since = None;
            } else {
                let next = STEP_SECS - (now - since) % STEP_SECS;
                ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(next));
            }
        }
        self.step.unwrap_or(last).min(last)
    }

    fn scrubber(&mut self, ui: &mut Ui, step: usize, last: usize) {
        ui.horizontal_wrapped(|ui| {
            if named(ui, Sign::First, "First step").clicked() {
                (self.step, self.playing_since) = (Some(0), None);
            }
            if named(ui, Sign::Back, "Step back").clicked() {
                (self.step, self.playing_since) = (Some(step.saturating_sub(1)), None);
            }
            let playing = self.playing_since.is_some();
            if named(
                ui,
                if playing { Sign::Pause } else { Sign::Play },
                if playing { "Stop playing" } else { "Play the attack" },
            )
            .clicked()
            {
                let from = if step == last { 0 } else { step };
                self.playing_since = (!playing).then(|| (ui.input(|input| input.time), from));
                self.step = Some(if playing { step } else { from });
                ui.ctx().request_repaint();
            }
            if named(ui, Sign::Next, "Step forward").clicked() {
                (self.step, self.playing_since) = (Some((step + 1).min(last)), None);
            }
            if named(ui, Sign::Last, "Last step").clicked() {
                (self.step, self.playing_since) = (None, None);
            }
            let mut value = step;
            ui.spacing_mut().slider_width = (ui.available_size_before_wrap().x - 150.0).clamp(60.0, 240.0);
            let label = ui.label("Step");
            let slider = Slider::new(&mut value, 0..=last.max(1)).suffix(format!(" of {last}"));
            if ui.add_enabled(last > 0, slider).labelled_by(label.id).changed() {
                (self.step, self.playing_since) = (Some(value.min(last)), None);
            }
        });
    }

    fn pictures(
        &mut self,
        ui: &mut Ui,
        context: &mut Context<'_>,
        shown: &Inspection,
        current: &InspectionStep,
        step: usize,
    ) {
        let (shape, id) = (shown.job.subject.shape, shown.job.id);
        let Some(clean) = shown.steps.first() else { return };
        let mut held = false;
        ui.horizontal_wrapped(|ui| {
            let response = ui.button("Hold: original");
            held = response.is_pointer_button_down_on();
            response.on_hover_text("While held, shows the original in place of the adversarial image.");
            ui.toggle_value(&mut self.flicker, "A/B flicker")
                .on_hover_text("Original and adversarial image alternate in the same place, twice a second.");
            ui.spacing_mut().slider_width = 70.0;
            let label = ui.label("Perturbation");
            ui.add(
                Slider::new(&mut context.settings.magnification, 1.0..=50.0)
                    .logarithmic(true)
                    .max_decimals(0)
                    .prefix("×"),
            )
            .labelled_by(label.id)
            .on_hover_text("Factor by which the displayed change is magnified.");
        });
        if self.flicker {
            let time = ui.input(|input| input.time);
            held ^= (time / FLICKER_SECS) as u64 % 2 == 1;
            let left = FLICKER_SECS - time % FLICKER_SECS;
            ui.ctx().request_repaint_after(std::time::Duration::from_secs_f64(left.max(0.01)));
        }
        let gap = 10.0;
        let side = ((ui.available_width() - 2.0 * gap) / 3.0).clamp(40.0, LARGEST);
        let factor = context.settings.magnification.round();
        let textures = &mut self.textures;
        ui.horizontal_top(|ui| {
            ui.spacing_mut().item_spacing.x = gap;
            let mut place = |ui: &mut Ui,
                             caption: String,
                             color: Option<Color32>,
                             key: (u8, usize, u32),
                             make: &dyn Fn() -> egui::ColorImage| {
                ui.vertical(|ui| {
                    ui.set_width(side);
                    let texture = textures.get(ui.ctx(), (id, key), make);
                    let response = picture::show(ui, texture, side, &caption);
                    picture::explain_pixel(&response, shape, &clean.image, &current.image);
                    ui.with_layout(Layout::top_down(Align::Center), |ui| {
                        let text = egui::RichText::new(&caption).size(12.0);
                        ui.label(match color {
                            Some(color) => text.color(color).family(theme::strong_family()),
                            None => text.color(theme::palette(ui).weak),
                        });
                    });
                });
            };
            place(ui, "original".into(), None, (0, 0, 0), &|| picture::plain(&clean.image, shape));
            place(ui, format!("perturbation ×{factor}"), None, (1, step, factor.to_bits()), &|| {
                picture::perturbation(&clean.image, &current.image, shape, factor)
            });
            let accent = theme::palette(ui).accent;
            if held {
                place(ui, "A: original".into(), Some(accent), (0, 0, 0), &|| picture::plain(&clean.image, shape));
            } else {
                let caption = if self.flicker { "B: adversarial" } else { "adversarial" };
                let color = self.flicker.then_some(accent);
                place(ui, caption.into(), color, (2, step, 0), &|| picture::plain(&current.image, shape));
            }
        });
    }
}

fn class(names: &[String], class: u32) -> String {
    names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"))
}

fn attack_line(shown: &Inspection, names: &[String]) -> String {
    let from = match shown.job.subject.label {
        Some(label) => format!("true class {}", class(names, label)),
        None => format!("away from the network's own {}", class(names, shown.label)),
    };
    format!("{}; {from}; {}", shown.job.subject.name, describe(&shown.job.attack, names))
}

/// How long the network had been trained: `network after 14 epochs`.
pub(in crate::app) fn after(position: f64) -> String {
    if position.fract() == 0.0 {
        let epochs = if position == 1.0 { "epoch" } else { "epochs" };
        return format!("network after {position:.0} {epochs}");
    }
    format!("network in epoch {:.0}, at {:.0} % of it", position.floor() + 1.0, 100.0 * position.fract())
}

/// The outcome of the attack and the step at which it was first reached.
pub(super) fn verdict(shown: &Inspection, names: &[String]) -> egui::RichText {
    let Some((clean, last)) = shown.steps.first().zip(shown.steps.last()) else { return strong("") };
    let label = shown.label;
    let says = |step: &InspectionStep| argmax(&step.probabilities);
    let prediction = says(last);
    let before = says(clean);
    let first = |wanted: &dyn Fn(u32) -> bool| shown.steps.iter().skip(1).position(|step| wanted(says(step)));
    let at = |step: Option<usize>| match step {
        Some(0) => " at once, from its random start".to_owned(),
        Some(step) => format!(", first at step {step}"),
        None => String::new(),
    };
    let steps = shown.steps.len().saturating_sub(2);
    let text = match Outcome::of(label, shown.job.attack.target, prediction) {
        _ if before != label && before == prediction => {
            let target = if shown.job.attack.target == Some(before) { ", which is the target," } else { "" };
            format!("Misclassified as {}{target} without any attack, and after {steps} steps.", class(names, before))
        }
        Outcome::Reached => {
            format!(
                "Reached the target {}{}.",
                class(names, prediction),
                at(first(&|p| Some(p) == shown.job.attack.target))
            )
        }
        Outcome::Error if shown.job.subject.label.is_none() => {
            // Its true class is not known: the network was led away from its own answer.
            format!(
                "Now {}, no longer {}{}.",
                class(names, prediction),
                class(names, label),
                at(first(&|p| p != label))
            )
        }
        Outcome::Error => {
            let missed = match shown.job.attack.target {
                Some(target) => format!(", not the target {}", class(names, target)),
                None => String::new(),
            };
            format!("Misclassified as {}{missed}{}.", class(names, prediction), at(first(&|p| p != label)))
        }
        Outcome::Resisted => format!("Resisted: still {} after {steps} steps.", class(names, label)),
    };
    strong(text).size(16.0)
}

/// Cross-entropy after each step; returns the step that was clicked.
fn loss_curve(ui: &mut Ui, shown: &Inspection, step: usize) -> Option<usize> {
    let losses: Vec<f64> = shown.steps.iter().skip(1).map(|step| step.loss).collect();
    let (&first, &end) = losses.first().zip(losses.last())?;
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 64.0), Sense::click_and_drag());
    let name = format!("Cross-entropy over the steps, from {first:.3} to {end:.3}");
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &name));
    let (palette, painter) = (theme::palette(ui), ui.painter());
    painter.rect_filled(rect, 4, ui.visuals().faint_bg_color);
    let (low, high) = losses.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let span = (high - low).max(1e-9);
    let area = Rect::from_min_max(rect.min + vec2(52.0, 8.0), rect.max - vec2(10.0, 8.0));
    let count = losses.len().max(2) - 1;
    let at = |i: usize| {
        let up = ((losses[i] - low) / span) as f32;
        pos2(area.left() + area.width() * i as f32 / count as f32, area.bottom() - up * area.height())
    };
    let small = FontId::proportional(11.0);
    for (value, y) in [(high, area.top()), (low, area.bottom())] {
        // A loss of exactly 0 may carry a sign.
        let text = match value.abs() {
            0.0 => "0".to_owned(),
            size if size < 0.01 => format!("{value:.1e}"),
            _ => format!("{value:.2}"),
        };
        painter.text(pos2(area.left() - 6.0, y), egui::Align2::RIGHT_CENTER, text, small.clone(), palette.weak);
    }
    painter.text(pos2(rect.left() + 6.0, area.center().y), egui::Align2::LEFT_CENTER, "loss", small, palette.weak);
    let marked = at(step.min(losses.len() - 1));
    painter.vline(marked.x, area.y_range(), Stroke::new(1.0, palette.accent));
    painter.line((0..losses.len()).map(at).collect(), Stroke::new(1.8, palette.neutral));
    painter.circle_filled(marked, 4.0, palette.accent);
    let pointer = response.interact_pointer_pos()?;
    let part = ((pointer.x - area.left()) / area.width()).clamp(0.0, 1.0);
    Some((part * count as f32).round() as usize)
}

/// The most likely classes of the image itself and of the step, side by side.
fn bars(ui: &mut Ui, before: &[f32], after: &[f32], shown: &Inspection, step: usize, names: &[String]) {
    let gap = 16.0;
    let width = (ui.available_width() - gap) / 2.0;
    ui.horizontal_top(|ui| {
        ui.spacing_mut().item_spacing.x = gap;
        for (title, probabilities) in [("Before".to_owned(), before), (format!("After step {step}"), after)] {
            ui.vertical(|ui| {
                ui.set_width(width);
                ui.spacing_mut().item_spacing.y = 3.0;
                ui.label(strong(title));
                let mut order: Vec<usize> = (0..probabilities.len()).collect();
                order.sort_by(|a, b| probabilities[*b].total_cmp(&probabilities[*a]).then(a.cmp(b)));
                for k in order.into_iter().take(TOP) {
                    bar(ui, k, probabilities[k], shown, names);
                }
            });
        }
    });
}

fn bar(ui: &mut Ui, k: usize, probability: f32, shown: &Inspection, names: &[String]) {
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width(), 20.0), Sense::hover());
    let name = class(names, k as u32);
    let role = match k as u32 {
        k if k == shown.label => " (true)",
        k if Some(k) == shown.job.attack.target => " (target)",
        _ => "",
    };
    let role = if role == " (true)" && shown.job.subject.label.is_none() { " (attacked)" } else { role };
    let share = percent(f64::from(probability));
    let color = theme::class_color(k, ui.visuals().dark_mode);
    let painter = ui.painter();
    painter.rect_filled(rect, 3, ui.visuals().faint_bg_color);
    crate::app::focus::row(ui, rect, k);
    let filled = Rect::from_min_size(rect.min, vec2(rect.width() * probability.clamp(0.0, 1.0), rect.height()));
    painter.rect_filled(filled, 3, color.gamma_multiply(if ui.visuals().dark_mode { 0.45 } else { 0.35 }));
    painter.rect_filled(Rect::from_min_size(rect.min, vec2(3.0, rect.height())), 0, color);
    let font = FontId::proportional(13.0);
    let ink = ui.visuals().text_color();
    let right =
        painter.text(rect.right_center() - vec2(6.0, 0.0), egui::Align2::RIGHT_CENTER, &share, font.clone(), ink);
    let mut job = egui::text::LayoutJob::simple_singleline(format!("{name}{role}"), font, ink);
    job.wrap = egui::text::TextWrapping::truncate_at_width((right.left() - rect.left() - 16.0).max(10.0));
    let galley = painter.layout_job(job);
    let down = (rect.height() - galley.size().y) / 2.0;
    painter.galley(rect.min + vec2(9.0, down), galley, ink);
    let text = format!("{name}{role} {share}");
    response.widget_info(|| WidgetInfo::labeled(Role::Label, true, &text));
    response.on_hover_text(text);
}
