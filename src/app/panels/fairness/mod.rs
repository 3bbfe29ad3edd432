//! The panel `Fairness`: which classes are disadvantaged, and how the method responds.

mod classes;
mod confusion;
mod epsilon;
mod heatmap;
mod series;
#[cfg(test)]
mod series_tests;
mod source;
mod targets;
#[cfg(test)]
mod tests;

use std::hash::{DefaultHasher, Hash, Hasher};

use egui::Ui;

use crate::app::context::{Context, Panel};
use crate::app::view::{RunView, Status};
use crate::app::widgets::{Flow, empty, flow};
use crate::train::ClassRow;
use crate::worker::EpochRecord;

/// See the [module](self).
#[derive(Default)]
pub struct Fairness {
    heatmap: heatmap::Heatmap,
    confusion: confusion::Pairs,
    epsilon: epsilon::Epsilon,
    classes: classes::Classes,
    series: series::Series,
}

impl std::fmt::Debug for Fairness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fairness").finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
enum Part {
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
            top: &[],
            left: &[Part::Heatmap, Part::Confusion, Part::Series],
            right: &[Part::Epsilon, Part::Classes, Part::Targets],
            narrow: &[Part::Heatmap, Part::Epsilon, Part::Series, Part::Confusion, Part::Classes, Part::Targets],
        };
        let run = context.run;
        flow(ui, &parts, |ui, part| {
            let shown = context.focus.record(run);
            match part {
                Part::Heatmap => self.heatmap.show(ui, context, shown),
                Part::Confusion => self.confusion.show(ui, context, shown),
                Part::Epsilon => self.epsilon.show(ui, context),
                Part::Targets => targets::show(ui, context, shown),
                Part::Series => {
                    if let Some(epoch) = self.series.show(ui, context, shown) {
                        context.focus.epoch = Some(epoch);
                    }
                }
                Part::Classes => self.classes.show(ui, context, shown),
            }
        });
    }
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
