//! The panel `Story`: one row per class, left to right as the data flow, from the mistakes that land on a class to what the
//! method does about them and what came of it.

mod result;
mod rows;
#[cfg(test)]
mod tests;
mod told;

use egui::{RichText, Ui};

use crate::app::context::{Action, Context, Panel};
use crate::app::panels::Cell;
use crate::app::theme;
use crate::app::view::Status;
use crate::app::welcome::buttons;
use crate::app::widgets::{drawn_of, elided, empty, export_menu, percent, strong, weak};
use crate::evaluate::figure_context;
use crate::evaluate::figures::{self, Story as Facts};
use crate::worker::Counted;

use rows::Portraits;

pub use result::ResultCard;

/// With more classes than this, the least robust stand first and classes can be searched.
const MANY: usize = 20;
/// Below this height the panel scrolls as a whole.
const ROOMY: f32 = 440.0;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Story {
    order: Option<Order>,
    search: String,
    portraits: Portraits,
    result: ResultCard,
}

/// The order of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Class,
    LeastRobust,
    MostMistakes,
}

impl Order {
    const ALL: [Self; 3] = [Self::Class, Self::LeastRobust, Self::MostMistakes];

    const fn title(self) -> &'static str {
        match self {
            Self::Class => "Class order",
            Self::LeastRobust => "Least robust first",
            Self::MostMistakes => "Most mistakes first",
        }
    }
}

impl Panel for Story {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        let run = context.run;
        if run.class_names().is_empty() {
            if run.status == Status::Opening {
                return empty(
                    ui,
                    "The run is being opened",
                    "What happens to each class is told here, epoch by epoch.",
                );
            }
            empty(ui, "Nothing is training", "Start what the Experiment panel describes, or begin with one of these.");
            ui.add_space(8.0);
            return buttons(ui, context.actions);
        }
        if ui.available_height() < ROOMY {
            egui::ScrollArea::vertical().id_salt("story").auto_shrink(false).show(ui, |ui| {
                self.contents(ui, context, true);
            });
        } else {
            self.contents(ui, context, false);
        }
    }
}

impl Story {
    /// `scrolls` says whether the panel scrolls as a whole, rather than only the rows.
    fn contents(&mut self, ui: &mut Ui, context: &mut Context<'_>, scrolls: bool) {
        let run = context.run;
        let facts = told::facts(run, *context.focus);
        self.result.show(ui, context);
        self.heading(ui, context, &facts);
        self.controls(ui, context, &facts);
        let order = self.rows_in_order(run.class_names(), &facts);
        if order.is_empty() {
            ui.label(weak(ui, format!("No class has “{}” in its name.", self.search)));
            return;
        }
        let clicked = rows::show(ui, context, &facts, &order, &mut self.portraits, scrolls);
        if let Some((label, prediction)) = clicked {
            let epoch = facts.measured.unwrap_or(facts.epoch);
            let (label, prediction) = (Some(label as u32), prediction as u32);
            context.ask(Action::ShowCell(Cell { of: Counted::Validation, epoch, label, prediction }));
        }
    }

    /// The worst class and the gap, with the attack, and the story in a sentence.
    fn heading(&self, ui: &mut Ui, context: &Context<'_>, facts: &Facts) {
        let (run, palette) = (context.run, theme::palette(ui));
        let names = run.class_names();
        let record = context.focus.record(run);
        let (Some(record), Some((worst, best))) = (record, facts.extremes()) else {
            ui.label(strong("What happens to each class"));
            ui.label(weak(ui, "Accuracies are measured when the first epoch is done."));
            return;
        };
        let rated = |class: usize| facts.rows[class].robust;
        let (Some(low), Some(high)) = (rated(worst), rated(best)) else { return };
        let interval = low.interval.map(told::interval);
        let best_of = format!("to {}", names[best]);
        let parts = [
            (format!("Worst: {}, {}", names[worst], percent(low.value)), palette.worst, interval),
            (format!("Gap {:.1} points", 100.0 * (high.value - low.value)), palette.gap, Some(best_of)),
            (format!("Robust {}", percent(record.metrics.val_robust_accuracy)), palette.robust, None),
            (format!("Clean {}", percent(record.metrics.val_clean_accuracy)), palette.clean, None),
        ];
        in_a_line(ui, &parts);
        if let Some(experiment) = run.experiment.as_deref() {
            let attack = record.metrics.validation_attack(experiment);
            let counted = figure_context(experiment, &[]).statistics;
            let text = format!(
                "After epoch {}, validation split. Robust: under {attack}. CFPS: {counted}.",
                record.metrics.epoch + 1
            );
            ui.label(weak(ui, text).small());
        }
        if let Some(sentence) = told::sentence(run, facts) {
            ui.label(sentence);
        }
    }

    fn controls(&mut self, ui: &mut Ui, context: &mut Context<'_>, facts: &Facts) {
        let run = context.run;
        ui.horizontal_wrapped(|ui| {
            let now = self.order(facts.rows.len());
            for order in Order::ALL {
                if ui.selectable_label(order == now, order.title()).clicked() {
                    self.order = Some(order);
                }
            }
            if facts.rows.len() > MANY {
                let field =
                    egui::TextEdit::singleline(&mut self.search).hint_text("Search classes").desired_width(140.0);
                ui.add(field).accessible_name("Search classes");
            }
            let record = context.focus.record(run);
            export_menu(ui, context, "story", || {
                let csv = || told::csv(run.class_names(), facts);
                drawn_of(run, record, |figure| figures::story(facts, figure), csv)
            });
        });
    }

    fn order(&self, classes: usize) -> Order {
        self.order.unwrap_or(if classes > MANY { Order::LeastRobust } else { Order::Class })
    }

    /// The classes to show, in their order.
    fn rows_in_order(&self, names: &[String], facts: &Facts) -> Vec<usize> {
        // Where the field is not shown, what was typed for another run does not count.
        let wanted = if names.len() > MANY { self.search.trim().to_lowercase() } else { String::new() };
        let mut order: Vec<usize> =
            (0..names.len()).filter(|class| names[*class].to_lowercase().contains(&wanted)).collect();
        let rows = &facts.rows;
        match self.order(names.len()) {
            Order::Class => {}
            // Unknown ones last.
            Order::LeastRobust => {
                let of = |class: &usize| rows[*class].robust.map_or(f64::INFINITY, |robust| robust.value);
                order.sort_by(|a, b| of(a).total_cmp(&of(b)));
            }
            Order::MostMistakes => {
                let of = |class: &usize| rows[*class].cfps.unwrap_or(f64::NEG_INFINITY);
                order.sort_by(|a, b| of(b).total_cmp(&of(a)));
            }
        }
        order
    }
}

/// Numbers with what is beside them, as large as one line allows.
fn in_a_line(ui: &mut Ui, parts: &[(String, egui::Color32, Option<String>)]) {
    const BETWEEN: f32 = 12.0;
    let (strong, beside) = (theme::strong_family(), egui::TextStyle::Body.resolve(ui.style()));
    let gap = ui.spacing().item_spacing.x;
    let width_of = |text: &str, font: egui::FontId| {
        ui.painter().layout_no_wrap(text.to_owned(), font, egui::Color32::WHITE).size().x + gap
    };
    let width = |size: f32| -> f32 {
        let part = |(text, _, after): &(String, _, Option<String>)| {
            let after = after.as_ref().map_or(0.0, |text| width_of(text, beside.clone()));
            width_of(text, egui::FontId::new(size, strong.clone())) + after + BETWEEN + gap
        };
        parts.iter().map(part).sum()
    };
    let room = ui.available_width();
    let size = [22.0, 20.0, 18.0, 16.5].into_iter().find(|size| width(*size) <= room).unwrap_or(15.0);
    ui.horizontal_wrapped(|ui| {
        for (i, (text, color, after)) in parts.iter().enumerate() {
            if i > 0 {
                ui.add_space(BETWEEN);
            }
            let number = RichText::new(text).size(size).family(strong.clone()).color(*color);
            for text in [number].into_iter().chain(after.as_ref().map(|after| weak(ui, after))) {
                // Where several lines are needed, they do not begin within a text.
                ui.add(egui::Label::new(text).extend());
            }
        }
    });
}

/// A class name within a width.
fn name(ui: &Ui, text: &str, width: f32) -> std::sync::Arc<egui::Galley> {
    elided(ui, text, egui::TextStyle::Body.resolve(ui.style()), width, ui.visuals().text_color())
}
