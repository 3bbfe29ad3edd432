//! The panel `Training`: the progress of the run, its results, and where its time goes.

mod class;
mod curves;
mod numbers;
mod status;
#[cfg(test)]
mod tests;
mod time;

use crate::app::context::{Context, Panel};
use crate::app::view::Status;
use crate::app::welcome::buttons;
use crate::app::widgets::{Flow, empty, flow};

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Training {
    curves: curves::Curves,
    result: crate::app::panels::story::ResultCard,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Status,
    Result,
    Numbers,
    Accuracy,
    Loss,
    Rate,
    Time,
}

impl Panel for Training {
    fn ui(&mut self, ui: &mut egui::Ui, context: &mut Context<'_>) {
        if context.run.info.is_none() && context.run.status == Status::Empty {
            empty(ui, "Nothing is training", "Start what the Experiment panel describes, or begin with one of these.");
            ui.add_space(8.0);
            return buttons(ui, context.actions);
        }
        let parts = Flow {
            top: &[Part::Status, Part::Result, Part::Numbers],
            left: &[Part::Accuracy, Part::Rate],
            right: &[Part::Loss, Part::Time],
            narrow: &[Part::Accuracy, Part::Time, Part::Loss, Part::Rate],
        };
        // Plots are tall if there is room, but a single one never fills a small window.
        let height = (0.38 * ui.available_height()).clamp(180.0, 460.0);
        flow(ui, &parts, |ui, part| match part {
            Part::Status => status::show(ui, context),
            Part::Result => self.result.show(ui, context),
            Part::Numbers => numbers::show(ui, context),
            Part::Accuracy => self.curves.accuracy(ui, context, height),
            Part::Loss => self.curves.loss(ui, context, 0.7 * height),
            Part::Rate => self.curves.rate(ui, context, 0.45 * height),
            Part::Time => time::show(ui, context),
        });
    }
}
