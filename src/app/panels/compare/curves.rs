//! One quantity of every run over epochs, on the same axes.

use egui::{Color32, Ui};
use egui_plot::{LineStyle, VLine};

use super::{Shown, legend, unseeded};
use crate::app::context::{Context, Export};
use crate::app::runs::Run;
use crate::app::theme;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::plot::{Curve, Scale, decimal, over_epochs};
use crate::app::widgets::{export_menu, weak};
use crate::evaluate::figures::{ComparedRun, compared_curves};
use crate::train::{MetricsRow, ValidationChange, changes_between, uninterrupted};

/// The quantity that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Quantity {
    #[default]
    Robust,
    RobustWorst,
    Gap,
    Clean,
    CleanWorst,
    TrainRobust,
    Loss,
    LearningRate,
    Seconds,
}

impl Quantity {
    const ALL: [Self; 9] = [
        Self::Robust,
        Self::RobustWorst,
        Self::Gap,
        Self::Clean,
        Self::CleanWorst,
        Self::TrainRobust,
        Self::Loss,
        Self::LearningRate,
        Self::Seconds,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Robust => "Robust accuracy, validation",
            Self::RobustWorst => "Robust accuracy of the worst class, validation",
            Self::Gap => "Gap of robust accuracy, validation",
            Self::Clean => "Clean accuracy, validation",
            Self::CleanWorst => "Clean accuracy of the worst class, validation",
            Self::TrainRobust => "Accuracy under the training attack, training images",
            Self::Loss => "Training loss",
            Self::LearningRate => "Learning rate",
            Self::Seconds => "Seconds per epoch",
        }
    }

    const fn is_share(self) -> bool {
        !matches!(self, Self::Loss | Self::LearningRate | Self::Seconds)
    }

    fn value(self, run: &Run, row: &MetricsRow) -> Option<f64> {
        let value = match self {
            Self::Robust => row.val_robust_accuracy,
            Self::RobustWorst => row.val_robust_worst,
            Self::Gap => run.gap(row.epoch)?,
            Self::Clean => row.val_clean_accuracy,
            Self::CleanWorst => row.val_clean_worst,
            Self::TrainRobust => row.train_robust_accuracy,
            Self::Loss => row.train_loss,
            Self::LearningRate => row.lr,
            Self::Seconds => row.seconds,
        };
        value.is_finite().then_some(value)
    }

    /// Where the validation attack of a run changed, if that makes earlier and later values of this quantity
    /// incomparable.
    fn changes(self, run: &Run) -> Vec<ValidationChange> {
        let mut changes = changes_between(&run.metrics);
        changes.retain(|change| match self {
            Self::Robust | Self::RobustWorst | Self::Gap => true,
            Self::Clean | Self::CleanWorst => change.concerns_clean(),
            Self::TrainRobust | Self::Loss | Self::LearningRate | Self::Seconds => false,
        });
        changes
    }

    /// The attack of robust numbers, in one line if all runs have the same one, and where a run changed it.
    fn notes(self, shown: &[Shown]) -> Vec<String> {
        let mut notes = self.attacks(shown);
        for shown in shown {
            let changes = self.changes(&shown.run);
            notes.extend(changes.iter().map(|change| {
                format!("{}: vertical line after epoch {}, {}.", shown.run.name, change.epoch, change.label())
            }));
        }
        notes
    }

    fn attacks(self, shown: &[Shown]) -> Vec<String> {
        if !matches!(self, Self::Robust | Self::RobustWorst | Self::Gap) {
            return match self {
                Self::TrainRobust => {
                    vec!["Each run under its own training attack: such numbers are not comparable.".into()]
                }
                _ => Vec::new(),
            };
        }
        let attack = |shown: &Shown| shown.run.validation_attack();
        let attacks: Vec<String> = shown.iter().map(attack).collect();
        match attacks.first() {
            Some(first) if attacks.iter().all(|attack| attack == first) => vec![format!("Under {first}.")],
            Some(first) if attacks.iter().all(|attack| unseeded(attack) == unseeded(first)) => {
                vec![format!("Under {}, each with the seed of its run.", unseeded(first))]
            }
            _ => shown
                .iter()
                .zip(attacks)
                .map(|(shown, attack)| format!("{}: under {attack}.", shown.run.name))
                .collect(),
        }
    }
}

pub(super) fn ui(ui: &mut Ui, context: &mut Context<'_>, shown: &[Shown], quantity: &mut Quantity) {
    ui.horizontal_wrapped(|ui| {
        let label = ui.label("Quantity");
        let width = (ui.available_width() - 80.0).clamp(140.0, 360.0);
        let chosen = egui::ComboBox::from_id_salt("quantity").selected_text(quantity.name()).width(width).truncate();
        let chosen = chosen.show_ui(ui, |ui| {
            for choice in Quantity::ALL {
                ui.selectable_value(quantity, choice, choice.name());
            }
        });
        chosen.response.labelled_by(label.id);
        export_menu(ui, context, "comparison", || export(shown, *quantity));
    });
    for note in quantity.notes(shown) {
        ui.label(weak(ui, unbroken(&note)).size(13.0));
    }
    legend(ui, shown);
    let share = quantity.is_share();
    let scale = if share { 100.0 } else { 1.0 };
    let plot = over_epochs("curves", Scale::Linear)
        .height((ui.available_width() * 0.55).clamp(180.0, 340.0))
        .grid_color(theme::palette(ui).line)
        .allow_scroll(false)
        .allow_zoom(false)
        .allow_drag(false)
        .include_y(0.0)
        .y_axis_formatter(move |mark, _| if share { format!("{} %", decimal(mark)) } else { decimal(mark) });
    let plot = if share { plot.include_y(100.0) } else { plot };
    let color_of: Vec<Color32> = shown.iter().map(|shown| shown.color(ui)).collect();
    plot.show(ui, |plot| {
        for (shown, color) in shown.iter().zip(color_of) {
            let style = match shown.index % 3 {
                0 => LineStyle::Solid,
                1 => LineStyle::dashed_loose(),
                _ => LineStyle::dotted_dense(),
            };
            let changes = quantity.changes(&shown.run);
            for change in &changes {
                let mark = VLine::new(change.label(), f64::from(change.epoch) + 0.5);
                plot.vline(mark.color(color).width(1.0).style(style));
            }
            let point = |row: &MetricsRow| Some([f64::from(row.epoch) + 1.0, scale * quantity.value(&shown.run, row)?]);
            let curve = Curve { name: &shown.run.name, color, width: 2.2, style, hover: true };
            for part in uninterrupted(&shown.run.metrics, &changes, |row| row.epoch) {
                curve.draw(plot, part.iter().filter_map(point).collect());
            }
        }
    });
    // A title of the axis would lie on its numbers.
    ui.vertical_centered(|ui| ui.label(weak(ui, "Epoch").small()));
}

fn compared(shown: &[Shown], quantity: Quantity) -> Vec<ComparedRun> {
    let run = |shown: &Shown| ComparedRun {
        name: shown.run.name.clone(),
        points: shown.run.metrics.iter().map(|row| (row.epoch, quantity.value(&shown.run, row))).collect(),
        changes: quantity.changes(&shown.run),
    };
    shown.iter().map(run).collect()
}

/// The curves as a document; `None` if there is nothing to draw.
pub(super) fn figure(shown: &[Shown], quantity: Quantity) -> Option<String> {
    let runs = compared(shown, quantity);
    compared_curves(quantity.name(), &runs, quantity.is_share(), &quantity.notes(shown)).ok().map(|figure| figure.svg)
}

fn export(shown: &[Shown], quantity: Quantity) -> Option<Export> {
    let svg = figure(shown, quantity)?;
    let runs = compared(shown, quantity);
    let names: Vec<String> = runs.iter().map(|run| run.name.replace([',', '"', '\n'], "_")).collect();
    let mut csv = format!("epoch,{}\n", names.join(","));
    let epochs: std::collections::BTreeSet<u32> =
        runs.iter().flat_map(|run| run.points.iter().map(|point| point.0)).collect();
    for epoch in epochs {
        let value = |run: &ComparedRun| run.points.iter().find(|point| point.0 == epoch).and_then(|point| point.1);
        let values: Vec<String> =
            runs.iter().map(|run| value(run).map_or_else(String::new, |v| v.to_string())).collect();
        csv += &format!("{epoch},{}\n", values.join(","));
    }
    Some(Export { name: "comparison-curves".into(), svg, csv })
}
