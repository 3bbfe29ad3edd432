//! Clean and robust accuracy of each class, with the means, the worst class and the gap.

use egui::Ui;

use super::heatmap::class_rows;
use super::row;
use crate::app::context::Context;
use crate::app::theme;
use crate::app::widgets::{
    BarRow, Bars, bars, color_key, drawn, export_menu, percent, section, short_percent, table, weak,
};
use crate::evaluate::figures;
use crate::train::ClassRow;
use crate::worker::EpochRecord;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Classes {
    in_class_order: bool,
}

impl Classes {
    /// Shows the card.
    pub(super) fn show(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: Option<&EpochRecord>) {
        let run = context.run;
        let in_order = self.in_class_order;
        let toggled = &mut self.in_class_order;
        let explanation = context.glossary.tooltip("worst-class");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "accuracy by class", || {
                let epoch = shown?;
                let rows = class_rows(run, Some(epoch.metrics.epoch));
                let experiment = run.experiment.as_deref()?;
                let draw = |figure: &figures::Context| {
                    let attack = epoch.metrics.validation_attack(experiment);
                    figures::class_accuracy(
                        &rows,
                        std::slice::from_ref(&epoch.metrics),
                        &figures::Context { attack, ..figure.clone() },
                    )
                };
                drawn(run, draw, || csv(epoch))
            });
            ui.toggle_value(toggled, "Class order").on_hover_text("Otherwise the least robust class stands first");
        };
        section(ui, "Accuracy by class", explanation, controls, |ui| {
            let Some(epoch) = shown else {
                ui.label(weak(ui, "Measured on the validation split when the first epoch is done."));
                return;
            };
            let palette = theme::palette(ui);
            let names = run.class_names();
            let robust = |class: usize| row(epoch, class).map_or(f64::NAN, |row| row.val_robust_accuracy);
            let clean = |class: usize| row(epoch, class).map_or(f64::NAN, |row| row.val_clean_accuracy);
            let mut order: Vec<usize> = (0..names.len()).collect();
            order.sort_by(|a, b| robust(*a).total_cmp(&robust(*b)).then(a.cmp(b)));
            let measured: Vec<usize> = order.iter().copied().filter(|k| robust(*k).is_finite()).collect();
            let (Some(&worst), Some(&best)) = (measured.first(), measured.last()) else {
                ui.label(weak(ui, "This epoch has no accuracies of single classes."));
                return;
            };
            if in_order {
                order.sort_unstable();
            }
            let (m, gap) = (&epoch.metrics, robust(best) - robust(worst));
            ui.horizontal_wrapped(|ui| {
                ui.spacing_mut().interact_size.y = 16.0;
                color_key(ui, palette.clean, &format!("clean, mean {}", percent(m.val_clean_accuracy)));
                color_key(ui, palette.robust, &format!("robust, mean {}", percent(m.val_robust_accuracy)));
                color_key(ui, palette.worst, &format!("worst: {} {}", names[worst], percent(robust(worst))));
                let gap = format!("gap {:.1} points, {} to {}", 100.0 * gap, names[best], names[worst]);
                color_key(ui, palette.gap, &gap);
            });
            let marks = [
                (m.val_robust_accuracy, palette.robust, "mean robust".to_owned()),
                (robust(worst), palette.gap, String::new()),
                (robust(best), palette.gap, "gap, from worst to best".to_owned()),
            ];
            let what = Bars {
                id: "accuracy by class",
                names,
                maximum: 1.0,
                write: &short_percent,
                marks: &marks,
                number: 56.0,
                numbers: 2,
            };
            bars(ui, &what, order.len(), |place| {
                let class = order[place];
                let is_worst = class == worst;
                let color = if is_worst { palette.worst } else { palette.robust };
                BarRow {
                    class,
                    name: &names[class],
                    emphasis: is_worst.then_some(palette.worst),
                    bars: vec![(clean(class), palette.clean), (robust(class), color)],
                    numbers: vec![(percent(clean(class)), palette.clean), (percent(robust(class)), color)],
                    describe: format!(
                        "{}: clean {}, robust {}{}",
                        names[class],
                        percent(clean(class)),
                        percent(robust(class)),
                        if is_worst { ", the worst class" } else { "" }
                    ),
                }
            });
            if let Some(experiment) = &run.experiment {
                let attack = m.validation_attack(experiment);
                let text = format!("Epoch {}, validation split. Robust: under {attack}.", m.epoch + 1);
                ui.label(weak(ui, text).small());
            }
        });
    }
}

fn csv(epoch: &EpochRecord) -> String {
    let row = |row: &ClassRow| {
        [
            row.epoch.to_string(),
            row.class.to_string(),
            row.name.clone(),
            row.val_clean_accuracy.to_string(),
            row.val_robust_accuracy.to_string(),
        ]
    };
    let header = ["epoch", "class", "name", "val_clean_accuracy", "val_robust_accuracy"];
    table(&header, epoch.classes.iter().map(row))
}
