//! The images that were counted in a cell of a statistic, instead of those of the current batch.

use std::sync::Arc;

use egui::Ui;

use crate::app::context::Context;
use crate::app::panels::inspector::after;
use crate::app::theme;
use crate::app::view::{PREDICTED, RunView};
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::{strong, weak};
use crate::config::StatisticsSource;
use crate::data::Dataset;
use crate::train::{CountedEpoch, ValidationSetting, training_attack};
use crate::worker::{COUNTING, CellImages, CellJob, Counted, EpochRecord, Request};

/// Maximum number of images that are shown.
const MOST: usize = 60;
/// Maximum number of images that are attacked to find those of an epoch from before the run was opened.
const TRIED: usize = 1000;

/// A cell: the images of an epoch with this true class that the network took for this class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// The images, and their attack.
    pub of: Counted,
    /// The epoch.
    pub epoch: u32,
    /// True class; `None` for every class but the predicted one.
    pub label: Option<u32>,
    /// Predicted class.
    pub prediction: u32,
}

/// A cell on display.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) cell: Cell,
    id: u64,
    /// Number of images that were counted; `None` if unknown.
    counted: Option<u64>,
    /// Number of images that the worker attacks.
    asked: usize,
    /// Whether the epoch's own predictions are known. Otherwise images are searched for with today's network.
    exact: bool,
    /// Training images of the run that the cell belongs to.
    run: Arc<Dataset>,
    pub(super) images: Option<Arc<CellImages>>,
}

impl Open {
    /// Asks the worker for the images. `None` if the run has no such epoch.
    pub(super) fn ask(cell: Cell, id: u64, context: &mut Context<'_>) -> Option<Self> {
        let run = context.run;
        let (info, experiment) = (run.info.as_ref()?, run.experiment.as_ref()?);
        let record = run.epochs.iter().find(|record| record.metrics.epoch == cell.epoch)?;
        let set = cell.of.set(info);
        let belongs = |label: u32| cell.label.map_or(label != cell.prediction, |wanted| wanted == label);
        let predicted = record.predicted.as_ref().map(|predicted| match cell.of {
            Counted::Training => &predicted.train,
            Counted::Validation => &predicted.validation,
        });
        // Of an epoch that was interrupted, only some predictions are known.
        let predicted = predicted.filter(|known| known.len() == set.len() && known.iter().all(Option::is_some));
        let candidates = set.labels().iter().enumerate().filter(|(_, label)| belongs(**label));
        let mut images: Vec<u32> = match predicted {
            Some(known) => candidates
                .filter(|(image, _)| known[*image] == Some(cell.prediction))
                .map(|(image, _)| image as u32)
                .collect(),
            None => candidates.map(|(image, _)| image as u32).collect(),
        };
        images.truncate(if predicted.is_some() { MOST } else { TRIED });
        let open = Self {
            cell,
            id,
            counted: counted(record, cell),
            asked: images.len(),
            exact: predicted.is_some(),
            run: Arc::clone(&info.train),
            images: None,
        };
        let job = CellJob {
            id,
            of: cell.of,
            set: Arc::clone(set),
            experiment: experiment.clone(),
            epoch: epoch(run, record),
            images,
            wanted: (!open.exact).then_some(cell.prediction),
            most: MOST,
        };
        if open.asked > 0 {
            context.request(Request::Cell(Some(Box::new(job))));
        }
        Some(open)
    }

    /// Whether the run is still the one that the cell belongs to.
    pub(super) fn belongs_to(&self, run: &RunView) -> bool {
        run.info.as_ref().is_some_and(|info| Arc::ptr_eq(&info.train, &self.run))
    }

    /// Takes the newest images from the worker. Returns whether there are new ones.
    pub(super) fn renew(&mut self, run: &RunView) -> bool {
        let Some(newest) = run.cell.as_ref().filter(|newest| newest.id == self.id) else { return false };
        let new = self.images.as_ref().is_none_or(|shown| !Arc::ptr_eq(shown, newest));
        if new {
            self.images = Some(Arc::clone(newest));
        }
        new
    }

    /// What is shown, in words. Returns whether the user wants the current batch back.
    pub(super) fn heading(&self, ui: &mut Ui, context: &Context<'_>) -> bool {
        let names = context.run.class_names();
        let name = |class: u32| names.get(class as usize).cloned().unwrap_or_else(|| format!("class {class}"));
        let cell = self.cell;
        let predicted = name(cell.prediction);
        let mut back = false;
        ui.horizontal_wrapped(|ui| {
            let title = match cell.label {
                Some(label) => format!("True {}, predicted {predicted}", name(label)),
                None => format!("Mistaken for {predicted}"),
            };
            ui.label(strong(title).size(16.0));
            let counted = match self.counted {
                Some(1) => ", 1 image counted".into(),
                Some(count) => format!(", {count} images counted"),
                None => String::new(),
            };
            ui.label(format!("{} images, epoch {}{counted}", cell.of.name(), cell.epoch + 1));
            back = ui.button("Back to the current batch").clicked();
        });
        ui.label(weak(ui, unbroken(&self.attack(context.run))));
        if let Some(failure) = context.run.job_failure.as_ref().filter(|failure| failure.doing == COUNTING) {
            ui.colored_label(theme::palette(ui).error, failure.to_string());
            return back;
        }
        let Some(images) = &self.images else {
            let text = if self.asked == 0 { "No image was counted there." } else { "Attacking the images…" };
            ui.label(weak(ui, text));
            return back;
        };
        let network = images
            .position
            .map_or_else(|| "the open network".to_owned(), |position| format!("the {}", after(position)));
        let shown = images.images.ids.len();
        let mut text = if self.exact {
            let classes = images.images.probabilities.len().checked_div(shown).unwrap_or(0);
            let again = images
                .images
                .probabilities
                .chunks(classes.max(1))
                .filter(|row| crate::engine::loss::argmax(row) == cell.prediction)
                .count();
            format!(
                "These are the images that were counted. {again} of {shown} are taken for {predicted} by {network}."
            )
        } else {
            format!(
                "Which images were counted is known only for the last {PREDICTED} epochs since the run was opened. Of the first {} \
                 candidates, {network} takes {shown} for {predicted}.",
                images.tried
            )
        };
        if !images.done {
            text += &format!(" Attacked so far: {} of {}.", images.tried, self.asked);
        }
        ui.label(weak(ui, unbroken(&text)));
        back
    }

    /// The attack, as the heading of the statistic names it.
    fn attack(&self, run: &RunView) -> String {
        let Some(experiment) = run.experiment.as_deref() else { return String::new() };
        match self.cell.of {
            Counted::Training => {
                let attack = training_attack(experiment);
                format!(
                    "Under the training attack as it is set now ({attack}), with the radii, targets, random start and \
                     augmentation of that epoch; batch norm in eval mode."
                )
            }
            Counted::Validation => {
                let setting = ValidationSetting::of(experiment);
                let record = run.epochs.iter().find(|record| record.metrics.epoch == self.cell.epoch);
                let then = record.map(|record| record.metrics.validation_attack(experiment));
                let mut text = format!("Under {}.", setting.attack);
                if let Some(then) = then.filter(|then| *then != setting.to_string()) {
                    text += &format!(" That epoch was evaluated under {then}.");
                } else if setting.recalibrate_bn > 0 {
                    text += " The evaluation recalibrated batch norm, which this does not.";
                }
                text
            }
        }
    }
}

/// Number of images in a cell.
fn counted(record: &EpochRecord, cell: Cell) -> Option<u64> {
    let confusion = match cell.of {
        Counted::Training => record.train.as_ref(),
        Counted::Validation => record.validation.as_ref(),
    };
    let (confusion, column) = (confusion?, cell.prediction as usize);
    let classes = confusion.classes();
    match cell.label.map(|label| label as usize) {
        _ if column >= classes => None,
        Some(row) => (row < classes).then(|| confusion.at(row, column)),
        None => Some((0..classes).filter(|row| *row != column).map(|row| confusion.at(row, column)).sum()),
    }
}

/// What determined the training attack of an epoch.
fn epoch(run: &RunView, record: &EpochRecord) -> CountedEpoch {
    let epoch = record.metrics.epoch;
    let fairness = run.experiment.as_ref().map(|experiment| &experiment.fairness);
    // The epoch and the images from which the trainer planned this one.
    let frozen = fairness.and_then(|fairness| fairness.freeze_after).unwrap_or(u32::MAX);
    let before = epoch.checked_sub(1).map(|before| before.min(frozen));
    let before = before.and_then(|before| run.epochs.iter().find(|other| other.metrics.epoch == before));
    let validation = fairness.is_some_and(|fairness| fairness.statistics_source == StatisticsSource::Validation);
    CountedEpoch {
        epoch,
        radii: record.classes.iter().map(|row| row.epsilon).collect(),
        targets: record.classes.iter().map(|row| row.target_probability).collect(),
        before: before.and_then(|before| if validation { before.validation.clone() } else { before.train.clone() }),
    }
}
