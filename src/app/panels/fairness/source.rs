//! The predictions that a statistic counts: of which images, under which attack.

use egui::Ui;

use super::row;
use crate::config::{Experiment, StatisticsSource};
use crate::evaluate::figure_context;
use crate::fairness::Confusion;
use crate::worker::{Counted, EpochRecord};

/// See the [module](self).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    /// Training images under the training attack.
    Train,
    /// The validation split under the evaluation attack.
    Validation,
}

impl Source {
    /// The counts of an epoch; `None` if their file is missing.
    pub(super) fn of(self, epoch: &EpochRecord) -> Option<&Confusion> {
        match self {
            Self::Train => epoch.train.as_ref(),
            Self::Validation => epoch.validation.as_ref(),
        }
    }

    /// The images.
    pub(super) fn counted(self) -> Counted {
        match self {
            Self::Train => Counted::Training,
            Self::Validation => Counted::Validation,
        }
    }

    /// What the method itself counts, which is the CFPS in `classes.csv`.
    pub(super) fn of_method(experiment: &Experiment) -> Self {
        match experiment.fairness.statistics_source {
            StatisticsSource::Training => Self::Train,
            StatisticsSource::Validation => Self::Validation,
        }
    }

    /// CFPS of each class in an epoch: from its counts, or without them from `classes.csv` if that has these. NaN if
    /// unknown.
    pub(super) fn cfps(self, epoch: &EpochRecord, classes: usize, of_method: Self) -> Vec<f64> {
        match self.of(epoch).filter(|counts| counts.classes() == classes) {
            Some(counts) => counts.cfps(),
            None if self == of_method => {
                (0..classes).map(|class| row(epoch, class).map_or(f64::NAN, |row| row.cfps)).collect()
            }
            None => vec![f64::NAN; classes],
        }
    }

    /// Images and attack, such as `validation split under PGD-10, …`.
    pub(super) fn describe(self, experiment: &Experiment, epoch: &EpochRecord) -> String {
        match self {
            Self::Train => format!("training images under {}", figure_context(experiment, &[]).train_attack),
            Self::Validation => format!("validation split under {}", epoch.metrics.validation_attack(experiment)),
        }
    }

    /// The choice between the two; `what` names the statistic for screen readers.
    pub(super) fn choose(&mut self, ui: &mut Ui, what: &str) {
        for (source, title, tooltip) in [
            (Self::Validation, "Validation", "The validation split under the evaluation attack"),
            (
                Self::Train,
                "Training",
                "Training images under the training attack, counted during the epoch, with the weights of that moment",
            ),
        ] {
            let response = ui.selectable_value(self, source, title);
            let chosen = *self == source;
            response.widget_info(|| {
                egui::WidgetInfo::selected(egui::Role::RadioButton, true, chosen, format!("{what}: {title}"))
            });
            response.on_hover_text(tooltip);
        }
    }
}
