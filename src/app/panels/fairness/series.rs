//! What a method adapts per class besides radii and targets, such as FRL's weights: one card for each of the method's
//! series ([`MethodInfo::series`](crate::config::MethodInfo)).

use egui::Ui;

use super::{round_above, row};
use crate::app::context::Context;
use crate::app::theme;
use crate::app::widgets::{BarRow, Bars, bars, section, weak};
use crate::worker::EpochRecord;

/// Shows the cards; a method without series has none.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, shown: Option<&EpochRecord>) {
    let run = context.run;
    let Some(experiment) = run.experiment.as_deref() else { return };
    for (name, title) in experiment.method().series {
        section(
            ui,
            title,
            None,
            |_: &mut Ui| (),
            |ui| {
                let classes = run.class_names().len();
                let value = |class: usize| {
                    let row = row(shown?, class)?;
                    row.series.iter().find(|(of, _)| of == name).map(|(_, value)| *value)
                };
                let values: Option<Vec<f64>> = (0..classes).map(value).collect();
                let (Some(values), Some(epoch)) = (values, shown) else {
                    ui.label(weak(ui, "Known from the end of the first epoch on."));
                    return;
                };
                let palette = theme::palette(ui);
                let number = |value: f64| format!("{value:.3}");
                let what = Bars {
                    id: name,
                    names: run.class_names(),
                    maximum: round_above(values.iter().copied().fold(0.0, f64::max)),
                    write: &number,
                    marks: &[],
                    number: 60.0,
                    numbers: 1,
                };
                bars(ui, &what, classes, |class| BarRow {
                    name: &run.class_names()[class],
                    emphasis: None,
                    bars: vec![(values[class], palette.accent)],
                    numbers: vec![(number(values[class]), palette.weak)],
                    describe: format!("{}: {title} {}", run.class_names()[class], number(values[class])),
                });
                ui.label(weak(ui, format!("Used in epoch {}.", epoch.metrics.epoch + 1)).small());
            },
        );
    }
}
