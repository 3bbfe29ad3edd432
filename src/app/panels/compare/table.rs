//! The numbers of each run in its own column, and the settings in which the runs differ.

use egui::{RichText, Ui};

use super::{Shown, Weights, swatch, unseeded};
use crate::app::context::{Context, Export};
use crate::app::runs::{Difference, Run, Summary, differences};
use crate::app::theme;
use crate::app::widgets::markdown::unbroken;
use crate::app::widgets::{export_menu, percent, strong, weak};
use crate::config::Experiment;

/// Cached results for the displayed runs.
#[derive(Debug, Default)]
pub(super) struct Tables {
    differences: Vec<Difference>,
    of: Vec<Experiment>,
}

/// A row of the table: its name, glossary term, value, and whether higher is better.
type Row = (&'static str, &'static str, fn(&Summary) -> f64, bool);

const ROWS: [Row; 6] = [
    ("clean", "clean-accuracy", |summary| summary.clean, true),
    ("clean, worst class", "worst-class", |summary| summary.clean_worst, true),
    ("robust", "robust-accuracy", |summary| summary.robust, true),
    ("robust, worst class", "worst-class", |summary| summary.robust_worst, true),
    (WORST_TENTH, "worst-class", |summary| summary.robust_worst_tenth.unwrap_or(f64::NAN), true),
    ("gap (robust)", "gap", |summary| summary.gap, false),
];

/// A row that is shown only if a run has many classes.
const WORST_TENTH: &str = "robust, worst 10 %";

impl Tables {
    pub(super) fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: &[Shown], weights: &mut Weights) {
        let known = self.of.len() == shown.len()
            && self.of.iter().zip(shown).all(|(experiment, shown)| *experiment == shown.run.experiment);
        if !known {
            self.of = shown.iter().map(|shown| shown.run.experiment.clone()).collect();
            self.differences = differences(&self.of.iter().collect::<Vec<_>>());
        }
        ui.horizontal_wrapped(|ui| {
            ui.label("Weights");
            for choice in Weights::ALL {
                let response = ui.selectable_value(weights, choice, choice.name());
                if let Some(tooltip) = context.glossary.tooltip(choice.term()) {
                    response.on_hover_text(tooltip);
                }
            }
            export_menu(ui, context, "comparison", || Some(export(shown, *weights)));
        });
        let summaries: Vec<Option<Summary>> = shown.iter().map(|shown| shown.run.summary(weights.name())).collect();
        for warning in warnings(shown, &summaries) {
            ui.label(RichText::new(warning).color(theme::palette(ui).warning));
        }
        egui::ScrollArea::horizontal().id_salt("table").auto_shrink([false, true]).show(ui, |ui| {
            egui::Grid::new("results").striped(true).spacing([18.0, 6.0]).show(ui, |ui| {
                ui.label("");
                for shown in shown {
                    ui.horizontal(|ui| {
                        swatch(ui, shown.index);
                        ui.label(strong(&shown.run.name));
                    });
                }
                ui.end_row();
                let many = summaries.iter().flatten().any(|summary| summary.robust_worst_tenth.is_some());
                for (name, term, value, more) in ROWS.into_iter().filter(|row| many || row.0 != WORST_TENTH) {
                    numbers(ui, context, &summaries, (name, term, value, more));
                }
                text_row(ui, "measured on", summaries.iter().map(|summary| measured(summary.as_ref())));
                text_row(ui, "attack", summaries.iter().map(|summary| attack(summary.as_ref())));
                text_row(
                    ui,
                    "epochs",
                    shown.iter().map(|shown| {
                        format!("{} of {}", shown.run.metrics.len(), shown.run.experiment.optimizer.epochs)
                    }),
                );
                ui.label(strong("Settings that differ"));
                ui.end_row();
                if self.differences.is_empty() {
                    ui.label(weak(ui, if shown.len() > 1 { "none" } else { "add a second run" }));
                    ui.end_row();
                }
                for difference in &self.differences {
                    text_row(ui, &difference.field, difference.values.iter().cloned());
                }
            });
        });
        if shown.len() > 1 {
            let note = "Bold is the best of a row. One run of each is no proof: a few points come from the seed alone.";
            ui.label(weak(ui, note).size(13.0));
        }
    }
}

/// A row of accuracies with the best one highlighted.
fn numbers(ui: &mut Ui, context: &Context<'_>, summaries: &[Option<Summary>], (name, term, value, more): Row) {
    let label = ui.label(name);
    if let Some(tooltip) = context.glossary.tooltip(term) {
        label.on_hover_text(tooltip);
    }
    let values: Vec<f64> = summaries.iter().map(|summary| summary.as_ref().map_or(f64::NAN, value)).collect();
    let known = values.iter().copied().filter(|value| value.is_finite());
    let best = if more { known.fold(f64::NEG_INFINITY, f64::max) } else { known.fold(f64::INFINITY, f64::min) };
    for value in &values {
        let text = percent(*value);
        let is_best =
            summaries.len() > 1 && *value == best && values.iter().filter(|other| *other == value).count() == 1;
        let text = if is_best { strong(text) } else { RichText::new(text) };
        ui.label(text.size(16.0));
    }
    ui.end_row();
}

fn text_row(ui: &mut Ui, name: &str, values: impl Iterator<Item = String>) {
    ui.label(name);
    for value in values {
        ui.add(egui::Label::new(RichText::new(value).size(13.0)).wrap_mode(egui::TextWrapMode::Extend));
    }
    ui.end_row();
}

fn measured(summary: Option<&Summary>) -> String {
    summary.map_or_else(|| "nothing yet".into(), |summary| summary.part.clone())
}

/// The attack in three lines, so that columns stay narrow.
fn attack(summary: Option<&Summary>) -> String {
    let text = summary.map_or_else(|| "–".to_owned(), |summary| unbroken(&summary.attack));
    [(", step", ",\nstep"), (", 1 random", ",\n1 random"), (", worst of", ",\nworst of")]
        .into_iter()
        .fold(text, |text, (from, to)| text.replacen(from, to, 1))
}

/// Reasons why the numbers of these runs are not comparable.
fn warnings(shown: &[Shown], summaries: &[Option<Summary>]) -> Vec<String> {
    let differ = |values: Vec<String>| values.windows(2).any(|pair| pair[0] != pair[1]);
    let runs = |value: &dyn Fn(&Run) -> String| differ(shown.iter().map(|shown| value(&shown.run)).collect());
    let of = |value: &dyn Fn(&Summary) -> String| differ(summaries.iter().flatten().map(value).collect());
    let data = |run: &Run| {
        let data = &run.experiment.data;
        format!("{} {:?} {:?} {:?} {}", data.dataset, data.path, data.image_size, data.test_limit, data.shapes_seed)
    };
    // The seed of the attack may differ: it is the run's own.
    let attack = |summary: &Summary| unseeded(&summary.attack);
    let part = |summary: &Summary| summary.part.split(',').next().unwrap_or_default().to_owned();
    [
        (runs(&data), "The runs have different data: their numbers are not comparable."),
        (of(&attack), "The robust numbers are under different attacks: they are not comparable."),
        (of(&part), "Some numbers are from the test set and some from the validation split: they are not comparable."),
    ]
    .into_iter()
    .filter(|(differs, _)| *differs)
    .map(|(_, text)| text.to_owned())
    .collect()
}

/// The table with one row per run, and a figure with the robust accuracies as bars.
fn export(shown: &[Shown], weights: Weights) -> Export {
    let of = |shown: &Shown| shown.run.summary(weights.name());
    let many = shown.iter().filter_map(of).any(|summary| summary.robust_worst_tenth.is_some());
    let mut csv = format!(
        "run,method,data,architecture,seed,epochs,measured_on,attack,clean,clean_worst,robust,robust_worst,robust_gap{}\n",
        if many { ",robust_worst_tenth" } else { "" }
    );
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
    };
    for shown in shown {
        let (run, e) = (&shown.run, &shown.run.experiment);
        let summary = run.summary(weights.name());
        let (part, attack) = summary.as_ref().map_or_else(Default::default, |s| (s.part.clone(), s.attack.clone()));
        let number = |value: fn(&Summary) -> f64| {
            summary.as_ref().map(value).filter(|v| v.is_finite()).map_or_else(String::new, |v| v.to_string())
        };
        let mut fields = vec![
            quoted(&run.name),
            e.fairness.method.title().into(),
            quoted(&e.data.dataset),
            e.model.arch.to_string(),
            e.run.seed.to_string(),
            run.metrics.len().to_string(),
            quoted(&part),
            quoted(&attack),
            number(|s| s.clean),
            number(|s| s.clean_worst),
            number(|s| s.robust),
            number(|s| s.robust_worst),
            number(|s| s.gap),
        ];
        if many {
            fields.push(number(|s| s.robust_worst_tenth.unwrap_or(f64::NAN)));
        }
        csv += &(fields.join(",") + "\n");
    }
    let svg = super::curves::figure(shown, super::curves::Quantity::Robust).unwrap_or_default();
    Export { name: "comparison".into(), svg, csv }
}
