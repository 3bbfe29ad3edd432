//! The controls of the attack.

use egui::{DragValue, Grid, Slider, Ui};

use super::choose_class;
use crate::app::widgets::weak;
use crate::config::Experiment;
use crate::engine::Norm;
use crate::units::Epsilon;
use crate::worker::InspectionAttack;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fgsm,
    Pgd,
}

/// The settings; distances are in levels of 255.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AttackForm {
    pub(super) kind: Kind,
    pub(super) target: Option<u32>,
    pub(super) norm: Norm,
    pub(super) epsilon: f64,
    pub(super) step_size: f64,
    pub(super) steps: u32,
    pub(super) random_start: bool,
    pub(super) seed: u64,
}

impl Default for AttackForm {
    fn default() -> Self {
        Self {
            kind: Kind::Pgd,
            target: None,
            norm: Norm::Linf,
            epsilon: 8.0,
            step_size: 2.0,
            steps: 10,
            random_start: true,
            seed: 0,
        }
    }
}

impl AttackForm {
    /// The training attack of a run without a target.
    pub(super) fn of_run(experiment: &Experiment) -> Self {
        let attack = &experiment.attack;
        Self {
            norm: attack.norm,
            epsilon: levels(attack.epsilon),
            step_size: levels(attack.step_size),
            steps: attack.steps.clamp(1, 100),
            random_start: attack.random_start,
            ..Self::default()
        }
    }

    pub(super) fn attack(&self) -> InspectionAttack {
        let (epsilon, step_size) = (Epsilon::levels(self.epsilon), Epsilon::levels(self.step_size));
        let (target, norm, seed) = (self.target, self.norm, self.seed);
        match self.kind {
            Kind::Fgsm => {
                InspectionAttack { target, norm, epsilon, step_size: epsilon, steps: 1, random_start: false, seed }
            }
            Kind::Pgd => {
                let (steps, random_start) = (self.steps, self.random_start);
                InspectionAttack { target, norm, epsilon, step_size, steps, random_start, seed }
            }
        }
    }

    /// Ensures that the target is not the class of the image.
    pub(super) fn avoid(&mut self, label: Option<u32>, classes: usize) {
        if let Some(target) = self.target
            && (self.target == label || target as usize >= classes)
        {
            self.target = Some((label.unwrap_or(0) + 1) % classes.max(1) as u32);
        }
    }

    pub(super) fn ui(&mut self, ui: &mut Ui, names: &[String], label: Option<u32>) {
        ui.horizontal_wrapped(|ui| {
            ui.selectable_value(&mut self.kind, Kind::Fgsm, "FGSM")
                .on_hover_text("Fast gradient sign method: one step of size epsilon from the image itself.");
            ui.selectable_value(&mut self.kind, Kind::Pgd, "PGD")
                .on_hover_text("Projected gradient descent: several small steps, each projected back into the ball.");
            ui.separator();
            let norm = self.norm;
            ui.selectable_value(&mut self.norm, Norm::Linf, "L∞")
                .on_hover_text("No value changes by more than epsilon.");
            ui.selectable_value(&mut self.norm, Norm::L2, "L2")
                .on_hover_text("The Euclidean length of the whole change is at most epsilon.");
            if norm != self.norm {
                // The same radius is a much smaller change in L2; these are the usual radii.
                (self.epsilon, self.step_size) = (usual_radius(self.norm), usual_radius(self.norm) / 4.0);
            }
        });
        let most = largest_radius(self.norm);
        ui.spacing_mut().slider_width = (ui.available_width() - 190.0).clamp(60.0, 180.0);
        Grid::new("attack").num_columns(2).spacing([8.0, 4.0]).show(ui, |ui| {
            ui.label("Target");
            choose_class(ui, "Target", &mut self.target, names, "none: untargeted", label)
                .on_hover_text("Untargeted: away from the true class. Otherwise the attack leads towards this class.");
            ui.end_row();
            distance(ui, "Epsilon", &mut self.epsilon, most, "Radius of the ball that the image stays in.");
            if self.kind == Kind::Pgd {
                distance(ui, "Step size", &mut self.step_size, most, "How far each step goes.");
                let text = ui.label("Steps");
                ui.add(Slider::new(&mut self.steps, 1..=100).logarithmic(true)).labelled_by(text.id);
                ui.end_row();
                ui.label("Start");
                ui.horizontal(|ui| {
                    ui.checkbox(&mut self.random_start, "random")
                        .on_hover_text("Begin at a random point of the ball instead of the image itself.");
                    if self.random_start {
                        let text = ui.label("seed");
                        ui.add(DragValue::new(&mut self.seed).range(0..=9999)).labelled_by(text.id);
                    }
                });
                ui.end_row();
            }
        });
    }
}

/// The usual radius of a ball, in levels of 255.
pub(in crate::app::panels) const fn usual_radius(norm: Norm) -> f64 {
    match norm {
        Norm::Linf => 8.0,
        Norm::L2 => 127.5,
    }
}

/// The largest radius that a slider offers.
pub(in crate::app::panels) const fn largest_radius(norm: Norm) -> f64 {
    match norm {
        Norm::Linf => 32.0,
        Norm::L2 => 512.0,
    }
}

pub(in crate::app::panels) fn levels(epsilon: Epsilon) -> f64 {
    (epsilon.exact() * 255.0 * 1000.0).round() / 1000.0
}

/// A row with a distance as `k/255` and as a decimal.
pub(in crate::app::panels) fn distance(ui: &mut Ui, name: &str, value: &mut f64, most: f64, tooltip: &str) {
    let label = ui.label(name).on_hover_text(tooltip);
    ui.horizontal(|ui| {
        let slider = Slider::new(value, 0.0..=most)
            .step_by(if most > 100.0 { 0.5 } else { 0.25 })
            .custom_formatter(|value, _| format!("{}/255", (value * 100.0).round() / 100.0))
            .custom_parser(read_levels);
        ui.add(slider).labelled_by(label.id).on_hover_text(tooltip);
        ui.label(weak(ui, format!("{:.4}", *value / 255.0)));
    });
    ui.end_row();
}

/// Parses `8/255`, `8` or `0.031`: a number is in levels unless it is less than one.
fn read_levels(text: &str) -> Option<f64> {
    if text.contains('/') {
        return text.parse::<Epsilon>().ok().map(levels);
    }
    let value: f64 = text.trim().parse().ok()?;
    Some(if value > 0.0 && value < 0.25 { 255.0 * value } else { value })
}

/// The attack in one line, with everything needed to interpret a number measured under it.
pub(super) fn describe(attack: &InspectionAttack, names: &[String]) -> String {
    let norm = match attack.norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    };
    let target = match attack.target {
        None => "untargeted".to_owned(),
        Some(class) => {
            let name = names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
            format!("targeted at {name}")
        }
    };
    let epsilon = attack.epsilon;
    if attack.steps == 1 && attack.step_size == epsilon && !attack.random_start {
        return format!("FGSM, {target}, {norm}, ε {epsilon}");
    }
    let start =
        if attack.random_start { format!("random start, seed {}", attack.seed) } else { "no random start".into() };
    format!("PGD-{}, {target}, {norm}, ε {epsilon}, step {}, {start}", attack.steps, attack.step_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fgsm_is_one_step_of_the_radius() {
        let form = AttackForm { kind: Kind::Fgsm, epsilon: 4.0, ..AttackForm::default() };
        let attack = form.attack();
        assert_eq!((attack.steps, attack.random_start), (1, false));
        assert_eq!((attack.step_size, attack.epsilon), (Epsilon::levels(4.0), Epsilon::levels(4.0)));
        assert_eq!(describe(&attack, &[]), "FGSM, untargeted, L∞, ε 4/255");
        let pgd = AttackForm { target: Some(1), ..AttackForm::default() }.attack();
        let names = ["cat", "dog"].map(str::to_owned);
        assert_eq!(describe(&pgd, &names), "PGD-10, targeted at dog, L∞, ε 8/255, step 2/255, random start, seed 0");
    }

    #[test]
    fn a_target_is_never_the_class_of_the_image() {
        let mut form = AttackForm { target: Some(9), ..AttackForm::default() };
        form.avoid(Some(3), 10);
        assert_eq!(form.target, Some(9));
        form.avoid(Some(9), 10);
        assert_eq!(form.target, Some(0));
        form.target = Some(9);
        form.avoid(Some(3), 5);
        assert_eq!(form.target, Some(4));
    }

    #[test]
    fn distances_are_read_as_people_write_them() {
        assert_eq!(read_levels("8/255"), Some(8.0));
        assert_eq!(read_levels("8"), Some(8.0));
        assert_eq!(read_levels("0.1"), Some(25.5));
        assert_eq!(read_levels("x"), None);
    }
}
