//! The open lesson, one step at a time.

use std::collections::HashSet;

use egui::{RichText, Ui};

use super::column;
use crate::app::command::Command;
use crate::app::context::{Action, Context};
use crate::app::glossary::Glossary;
use crate::app::lessons::{Lesson, Link};
use crate::app::theme;
use crate::app::view::Status;
use crate::app::widgets::markdown::{Markdown, outlined, reading_size};
use crate::app::widgets::{strong, weak};

/// What is remembered about lessons while the program runs.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Revealed answers: lesson and step.
    answers: HashSet<(String, usize)>,
    /// The lesson and step drawn last; when they change, the text starts at its top.
    drawn: Option<(String, usize)>,
}

impl Reader {
    /// Draws the lesson. Returns the address of the link that was followed.
    pub(super) fn ui(&mut self, ui: &mut Ui, lesson: &Lesson, context: &mut Context<'_>) -> Option<String> {
        let last = lesson.steps.len().saturating_sub(1);
        context.settings.lesson_step = context.settings.lesson_step.min(last);
        let index = context.settings.lesson_step;
        let size = reading_size(ui.available_width());
        header(ui, lesson, size, context);
        egui::Panel::bottom("steps").show_separator_line(false).frame(egui::Frame::new()).show(ui, |ui| {
            ui.add_space(4.0);
            column(ui, size, |ui| steps(ui, lesson, context));
        });
        let place = (lesson.id.clone(), index);
        let mut area = egui::ScrollArea::vertical().id_salt("lesson").auto_shrink(false);
        if self.drawn.as_ref() != Some(&place) {
            area = area.vertical_scroll_offset(0.0);
            self.drawn = Some(place);
        }
        let glossary = context.glossary;
        area.show(ui, |ui| column(ui, size, |ui| self.step(ui, lesson, index, size, glossary))).inner
    }

    fn step(&mut self, ui: &mut Ui, lesson: &Lesson, index: usize, size: f32, glossary: &Glossary) -> Option<String> {
        let step = lesson.steps.get(index)?;
        let palette = theme::palette(ui);
        let mut link = None;
        let text =
            |ui: &mut Ui, text: &Markdown| text.ui(ui, size, &|address| explain(glossary, address)).map(str::to_owned);
        ui.add_space(6.0);
        ui.label(RichText::new(&step.title).size(1.5 * size).family(theme::strong_family()));
        ui.add_space(6.0);
        link = text(ui, &step.text).or(link);
        ui.add_space(10.0);
        for (name, part, color) in [
            ("Do", &step.todo, palette.accent),
            ("Look for", &step.look, palette.good),
            ("Think", &step.question, palette.warning),
        ] {
            if part.is_empty() {
                continue;
            }
            let frame = egui::Frame::new()
                .fill(palette.card)
                .stroke((1.0, palette.line))
                .corner_radius(8)
                .inner_margin(egui::Margin { left: 20, right: 14, top: 10, bottom: 12 });
            let rect = frame
                .show(ui, |ui| {
                    ui.set_width(ui.available_width());
                    ui.label(strong(name).size(0.9 * size).color(color));
                    link = text(ui, part).or(link.take());
                    if name == "Think" && !step.answer.is_empty() {
                        link = self.answer(ui, lesson, index, &text).or(link.take());
                    }
                })
                .response
                .rect;
            let bar = egui::Rect::from_min_size(rect.min, egui::vec2(5.0, rect.height()));
            let corners = egui::CornerRadius { nw: 8, sw: 8, ..egui::CornerRadius::ZERO };
            ui.painter().rect_filled(bar, corners, color);
            ui.add_space(4.0);
        }
        ui.add_space(8.0);
        link
    }

    fn answer(
        &mut self,
        ui: &mut Ui,
        lesson: &Lesson,
        index: usize,
        text: &dyn Fn(&mut Ui, &Markdown) -> Option<String>,
    ) -> Option<String> {
        let place = (lesson.id.clone(), index);
        let shown = self.answers.contains(&place);
        ui.add_space(4.0);
        if ui.button(if shown { "Hide the answer" } else { "Show the answer" }).clicked() {
            if shown {
                self.answers.remove(&place);
            } else {
                self.answers.insert(place);
            }
        }
        if !shown {
            return None;
        }
        ui.add_space(4.0);
        text(ui, &lesson.steps.get(index)?.answer)
    }
}

/// The tooltip of a link.
fn explain<'g>(glossary: &'g Glossary, address: &str) -> Option<&'g str> {
    match Link::parse(address)? {
        Link::Term(key) => glossary.tooltip(&key),
        Link::Do(command) => Some(command.tooltip()),
        Link::Show(panel) => Some(panel.tooltip()),
        Link::Inspect(_) => Some("Open this image of the test set in the inspector."),
        Link::Set { .. } => Some("Change this field in the experiment panel."),
        Link::Lesson(_) => Some("Begin this lesson."),
    }
}

fn header(ui: &mut Ui, lesson: &Lesson, size: f32, context: &mut Context<'_>) {
    column(ui, size, |ui| {
        ui.horizontal(|ui| {
            ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                if ui
                    .button("Leave lesson")
                    .on_hover_text("Show every panel again and restore the experiment.")
                    .clicked()
                {
                    context.ask(Action::LeaveLesson);
                }
                ui.with_layout(egui::Layout::left_to_right(egui::Align::Center), |ui| {
                    ui.add(egui::Label::new(weak(ui, &lesson.title).size(14.0)).truncate());
                });
            });
        });
    });
    ui.separator();
    // While the lesson's own run is being opened, nothing has to be said of the one before.
    if context.run.before_lesson && context.run.status != Status::Opening {
        column(ui, size, |ui| earlier_run(ui, size, context));
    }
}

/// Says that the panels show a run from before the lesson, whose numbers are not those that the lesson speaks of.
fn earlier_run(ui: &mut Ui, size: f32, context: &mut Context<'_>) {
    let Some(run) = context.run.title() else { return };
    let live = context.run.status.is_live();
    let palette = theme::palette(ui);
    egui::Frame::new().stroke((1.0, palette.warning)).corner_radius(6).inner_margin(8).show(ui, |ui| {
        ui.horizontal_wrapped(|ui| {
            let text = if live {
                format!(
                    "A run from before this lesson is under way: {run}. Stop it before you start that of the lesson."
                )
            } else {
                format!("The panels show a run from before this lesson: {run}.")
            };
            ui.label(RichText::new(text).size(0.9 * size));
            if live {
                if ui.button("Stop and save").clicked() {
                    context.ask(Action::Command(Command::StopAndSave));
                }
            } else if ui.button("Clear it").on_hover_text("Empty the panels. The files of the run stay.").clicked() {
                context.ask(Action::ClearRun);
            }
        });
    });
}

/// Previous, a dot for each step, next.
fn steps(ui: &mut Ui, lesson: &Lesson, context: &mut Context<'_>) {
    let palette = theme::palette(ui);
    let (index, count) = (context.settings.lesson_step, lesson.steps.len());
    ui.horizontal(|ui| {
        let size = egui::vec2(86.0, 30.0);
        if ui.add_enabled(index > 0, egui::Button::new(RichText::new("Previous").size(15.0)).min_size(size)).clicked() {
            context.settings.lesson_step -= 1;
        }
        let dots = count as f32 * 24.0;
        ui.add_space(((ui.available_width() - size.x - dots - 16.0) / 2.0).max(0.0));
        ui.spacing_mut().item_spacing.x = 0.0;
        for (i, step) in lesson.steps.iter().enumerate() {
            let (rect, dot) = ui.allocate_exact_size(egui::vec2(24.0, 30.0), egui::Sense::click());
            let name = format!("Step {}: {}", i + 1, step.title);
            dot.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, i == index, &name));
            let (radius, color) = match i.cmp(&index) {
                std::cmp::Ordering::Less => (4.0, palette.accent),
                std::cmp::Ordering::Equal => (7.0, palette.accent),
                std::cmp::Ordering::Greater => (4.0, palette.line),
            };
            ui.painter().circle_filled(rect.center(), radius + if dot.hovered() { 1.0 } else { 0.0 }, color);
            if dot.has_focus() {
                ui.painter().circle_stroke(rect.center(), 10.0, (1.5, palette.accent));
            }
            if dot.on_hover_text(name).clicked() {
                context.settings.lesson_step = i;
            }
        }
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let next = if index + 1 < count { "Next" } else { "Finish" };
            let text = RichText::new(next).size(15.0).color(palette.accent);
            outlined(ui);
            if ui.add(egui::Button::new(text).min_size(size)).clicked() {
                if index + 1 < count {
                    context.settings.lesson_step += 1;
                } else {
                    if !context.settings.lessons_done.contains(&lesson.id) {
                        context.settings.lessons_done.push(lesson.id.clone());
                    }
                    context.ask(Action::LeaveLesson);
                }
            }
        });
    });
}
