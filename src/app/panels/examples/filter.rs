//! The outcome of the attack on each image, and a filter for the gallery.

use egui::{Color32, Painter, Rect, Stroke, Ui, vec2};

use crate::app::theme::{self, Palette};
use crate::engine::loss::argmax;
use crate::worker;

/// The outcome of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The prediction is the target class.
    Reached,
    /// The prediction is another wrong class.
    Error,
    /// The prediction is still the true class.
    Resisted,
}

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 3] = [Self::Reached, Self::Error, Self::Resisted];

    /// The outcome for a prediction under attack.
    pub fn of(label: u32, target: Option<u32>, prediction: u32) -> Self {
        match prediction {
            _ if prediction == label => Self::Resisted,
            _ if target == Some(prediction) => Self::Reached,
            _ => Self::Error,
        }
    }

    /// Its description; without targets, any error counts as success of the attack. Nothing has resisted an attack that
    /// is not `over`.
    pub const fn text(self, targeted: bool, over: bool) -> &'static str {
        match self {
            Self::Reached if over => "reached the target",
            Self::Reached => "at the target",
            Self::Error if targeted => "other error",
            Self::Error => "misled",
            Self::Resisted if over => "resisted",
            Self::Resisted => "right so far",
        }
    }

    /// Its colour.
    pub const fn color(self, palette: &Palette) -> Color32 {
        match self {
            Self::Reached => palette.error,
            Self::Error => palette.warning,
            Self::Resisted => palette.good,
        }
    }

    /// Draws its symbol, which makes outcomes distinguishable without colours: a target, a cross, a check mark.
    pub fn sign(self, painter: &Painter, rect: Rect, color: Color32) {
        let (c, r, stroke) = (rect.center(), rect.width() / 2.0, Stroke::new(1.6, color));
        match self {
            Self::Reached => {
                painter.circle_stroke(c, r, stroke);
                painter.circle_filled(c, 0.4 * r, color);
            }
            Self::Error => {
                painter.line_segment([c + vec2(-r, -r) * 0.8, c + vec2(r, r) * 0.8], stroke);
                painter.line_segment([c + vec2(-r, r) * 0.8, c + vec2(r, -r) * 0.8], stroke);
            }
            Self::Resisted => {
                let points = vec![c + vec2(-0.9 * r, 0.0), c + vec2(-0.2 * r, 0.7 * r), c + vec2(r, -0.8 * r)];
                painter.line(points, stroke);
            }
        }
    }
}

/// The labels and predictions of an image of the gallery.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    /// Its index in the set.
    pub(super) index: usize,
    pub(super) label: u32,
    pub(super) target: Option<u32>,
    pub(super) prediction: u32,
    pub(super) confidence: f32,
    pub(super) clean_prediction: u32,
    pub(super) epsilon: f32,
    pub(super) outcome: Outcome,
}

impl Row {
    /// The images of a set, without those whose data is incomplete.
    pub(super) fn all(set: &worker::Examples) -> Vec<Self> {
        let classes = set.probabilities.len() / set.labels.len().max(1);
        let row = |(index, label): (usize, &u32)| {
            let of = |values| chunk(values, index, classes);
            let pixels = |values| chunk(values, index, set.shape.len());
            let probabilities = of(&set.probabilities)?;
            let complete = pixels(&set.clean).is_some() && pixels(&set.adversarial).is_some() && index < set.ids.len();
            if !complete {
                return None;
            }
            let prediction = argmax(probabilities);
            // An image whose target is its own class is attacked without one.
            let target = set.targets.as_ref().and_then(|targets| targets.get(index)).copied();
            let target = target.filter(|target| target != label);
            Some(Self {
                index,
                label: *label,
                target,
                prediction,
                confidence: probabilities[prediction as usize],
                clean_prediction: of(&set.clean_probabilities).map_or(*label, argmax),
                epsilon: *set.epsilon.get(index)?,
                outcome: Outcome::of(*label, target, prediction),
            })
        };
        set.labels.iter().enumerate().filter_map(row).collect()
    }
}

/// Whether the attack on a set has made all its steps.
pub(super) fn over(set: &worker::Examples) -> bool {
    let (step, steps) = set.step;
    step >= steps
}

fn chunk(values: &[f32], index: usize, length: usize) -> Option<&[f32]> {
    values.get(index * length..(index + 1) * length).filter(|values| !values.is_empty())
}

/// Which images to show; `None` matches any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub(super) label: Option<u32>,
    pub(super) target: Option<u32>,
    pub(super) prediction: Option<u32>,
    pub(super) outcome: Option<Outcome>,
}

impl Filter {
    pub(super) fn admits(&self, row: &Row) -> bool {
        self.admits_classes(row) && self.outcome.is_none_or(|outcome| outcome == row.outcome)
    }

    fn admits_classes(&self, row: &Row) -> bool {
        self.label.is_none_or(|label| label == row.label)
            && self.target.is_none_or(|target| Some(target) == row.target)
            && self.prediction.is_none_or(|prediction| prediction == row.prediction)
    }

    /// The controls, with the number of images of each outcome.
    pub(super) fn ui(&mut self, ui: &mut Ui, names: &[String], rows: &[Row], targeted: bool, over: bool) {
        ui.horizontal_wrapped(|ui| {
            class_choice(ui, "Class", &mut self.label, names);
            if targeted {
                class_choice(ui, "Target", &mut self.target, names);
            }
            class_choice(ui, "Prediction", &mut self.prediction, names);
            let of_classes: Vec<&Row> = rows.iter().filter(|row| self.admits_classes(row)).collect();
            ui.selectable_value(&mut self.outcome, None, format!("all {}", of_classes.len()));
            for outcome in Outcome::ALL.into_iter().filter(|outcome| targeted || *outcome != Outcome::Reached) {
                let count = of_classes.iter().filter(|row| row.outcome == outcome).count();
                let text = format!("{} {count}", outcome.text(targeted, over));
                let chosen = self.outcome == Some(outcome);
                // Spaces leave room for the symbol.
                let response = ui.add(egui::Button::selectable(chosen, format!("     {text}")));
                let color = outcome.color(theme::palette(ui));
                let middle = response.rect.left_center() + vec2(14.0, 0.0);
                outcome.sign(ui.painter(), Rect::from_center_size(middle, vec2(10.0, 10.0)), color);
                response.widget_info(|| egui::WidgetInfo::selected(egui::Role::Button, true, chosen, &text));
                if response.clicked() {
                    self.outcome = if chosen { None } else { Some(outcome) };
                }
            }
            if *self != Self::default() && ui.button("Show all").clicked() {
                *self = Self::default();
            }
        });
    }
}

fn class_choice(ui: &mut Ui, name: &str, choice: &mut Option<u32>, names: &[String]) {
    let of = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
    let text = choice.map_or_else(|| format!("{name}: any"), |class| format!("{name}: {}", of(class)));
    let response = egui::ComboBox::from_id_salt(name)
        .selected_text(&text)
        .width(120.0)
        .show_ui(ui, |ui| {
            ui.selectable_value(choice, None, "any");
            for class in 0..names.len() as u32 {
                ui.selectable_value(choice, Some(class), of(class));
            }
        })
        .response;
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, &text));
}
