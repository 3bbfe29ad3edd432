//! The panel `Fairness`: which classes are disadvantaged, and how the method responds.

mod classes;
mod confusion;
mod epsilon;
mod heatmap;
mod series;
#[cfg(test)]
mod series_tests;
mod targets;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};

use egui::Ui;

use crate::app::context::{Context, Panel};
use crate::app::view::{RunView, Status};
use crate::app::widgets::{Flow, card, empty, flow, strong, weak};
use crate::train::ClassRow;
use crate::worker::EpochRecord;

/// See the [module](self).
#[derive(Default)]
pub struct Fairness {
    /// The displayed epoch; `None` follows the newest.
    epoch: Option<u32>,
    heatmap: heatmap::Heatmap,
    confusion: confusion::Pairs,
    epsilon: epsilon::Epsilon,
    classes: classes::Classes,
    series: series::Series,
}

impl std::fmt::Debug for Fairness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fairness").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Epoch,
    Heatmap,
    Confusion,
    Epsilon,
    Targets,
    Series,
    Classes,
}

impl Panel for Fairness {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        if context.run.class_names().is_empty() {
            let what =
                if context.run.status == Status::Opening { "The run is being opened" } else { "Nothing is training" };
            return empty(ui, what, "Start one in the Experiment panel: what happens to each class shows up here.");
        }
        let parts = Flow {
            top: &[Part::Epoch],
            left: &[Part::Heatmap, Part::Confusion, Part::Series],
            right: &[Part::Epsilon, Part::Classes, Part::Targets],
            narrow: &[Part::Heatmap, Part::Epsilon, Part::Series, Part::Confusion, Part::Classes, Part::Targets],
        };
        let run = context.run;
        flow(ui, &parts, |ui, part| {
            let shown = shown(run, self.epoch);
            match part {
                Part::Epoch => self.epoch_slider(ui, run),
                Part::Heatmap => {
                    if let Some(epoch) = self.heatmap.show(ui, context, shown) {
                        self.epoch = Some(epoch);
                    }
                }
                Part::Confusion => self.confusion.show(ui, context, shown),
                Part::Epsilon => self.epsilon.show(ui, context),
                Part::Targets => targets::show(ui, context, shown, self.epoch.is_none()),
                Part::Series => {
                    if let Some(epoch) = self.series.show(ui, context, shown) {
                        self.epoch = Some(epoch);
                    }
                }
                Part::Classes => self.classes.show(ui, context, shown),
            }
        });
    }
}

impl Fairness {
    /// One slider for all cards that show an epoch.
    fn epoch_slider(&mut self, ui: &mut Ui, run: &RunView) {
        let (Some(first), Some(last)) = (run.epochs.first(), run.epochs.last()) else { return };
        card(ui, "", |ui| {
            ui.set_width(ui.available_width());
            ui.horizontal_wrapped(|ui| {
                let label = ui.label(strong("Epoch shown"));
                let ends = first.metrics.epoch + 1..=last.metrics.epoch + 1;
                let mut number = shown(run, self.epoch).map_or(*ends.end(), |epoch| epoch.metrics.epoch + 1);
                ui.spacing_mut().slider_width = (ui.available_width() - 220.0).clamp(80.0, 420.0);
                let slider = ui.add(egui::Slider::new(&mut number, ends)).labelled_by(label.id);
                if slider.changed() {
                    self.epoch = Some(number - 1);
                }
                let mut follow = self.epoch.is_none();
                if ui.checkbox(&mut follow, "Follow the newest").changed() {
                    self.epoch = if follow { None } else { Some(number - 1) };
                }
                ui.label(
                    weak(ui, "for CFPS, confusion, accuracies and targets; epsilon is always the run's own").small(),
                );
            });
        });
    }
}

/// The record of an epoch, or the last one before it; the newest if `epoch` is `None`.
fn shown(run: &RunView, epoch: Option<u32>) -> Option<&EpochRecord> {
    let Some(epoch) = epoch else { return run.epochs.last() };
    run.epochs.iter().rev().find(|record| record.metrics.epoch <= epoch).or(run.epochs.first())
}

/// The row of a class. It is at the index of the class except in files that were edited.
fn row(epoch: &EpochRecord, class: usize) -> Option<&ClassRow> {
    let is = |row: &&ClassRow| row.class as usize == class;
    epoch.classes.get(class).filter(is).or_else(|| epoch.classes.iter().find(is))
}

/// Differs between runs and changes whenever an epoch is added: the cache key of everything computed from epochs.
fn version(run: &RunView, more: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    run.info.as_ref().map(|info| std::sync::Arc::as_ptr(&info.train) as usize).hash(&mut hasher);
    run.directory().hash(&mut hasher);
    run.epochs.len().hash(&mut hasher);
    if let Some(last) = run.epochs.last() {
        (last.metrics.epoch, last.metrics.seconds.to_bits(), last.metrics.train_loss.to_bits()).hash(&mut hasher);
    }
    more.hash(&mut hasher);
    hasher.finish()
}

/// The smallest of 1, 2, 5, 10, … tenths that is at least `value`.
fn round_above(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|f| f * power)
        .find(|v| *v >= value * (1.0 - 1e-9))
        .unwrap_or(value)
}
