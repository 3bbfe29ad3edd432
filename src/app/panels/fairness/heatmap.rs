//! CFPS of each class in each epoch.

use egui::{ComboBox, DragValue, Ui, vec2};
use egui_extras::{Column, TableBuilder};

use super::source::Source;
use super::version;
use crate::app::context::{Action, Context};
use crate::app::panels::Cell;
use crate::app::settings::CfpsScale;
use crate::app::theme;
use crate::app::view::RunView;
use crate::app::widgets::{
    Matrix, MatrixState, color_bar, drawn, export_menu, matrix, percent, section, short_percent, table, weak,
};
use crate::config::Experiment;
use crate::evaluate::figures;
use crate::train::{ClassRow, changes_between};
use crate::worker::EpochRecord;

/// See the [module](self).
pub(super) struct Heatmap {
    matrix: MatrixState,
    /// Whose mistakes are shown.
    source: Source,
    table: bool,
    /// The version of the data, CFPS by class and epoch, and the largest value.
    cells: Option<(u64, Vec<f64>, f64)>,
}

impl Default for Heatmap {
    fn default() -> Self {
        Self { matrix: MatrixState::default(), source: Source::Train, table: false, cells: None }
    }
}

impl Heatmap {
    /// Shows the card.
    pub(super) fn show(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: Option<&EpochRecord>) {
        let run = context.run;
        let names = run.class_names();
        let mut wanted = None;
        let mut scale = context.settings.cfps_scale;
        let as_table = self.table;
        let toggled = &mut self.table;
        let source = self.source;
        let explanation = context.glossary.tooltip("cfps");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "CFPS", || {
                let rows = counted_rows(run, source);
                let statistics = run.experiment.as_deref().zip(shown);
                let statistics = statistics.map(|(experiment, epoch)| source.describe(experiment, epoch));
                let draw = |figure: &figures::Context| {
                    let statistics = statistics.clone().unwrap_or_else(|| figure.statistics.clone());
                    figures::cfps_heatmap(&rows, &figures::Context { statistics, ..figure.clone() })
                };
                drawn(run, draw, || csv(&rows, source))
            });
            ui.toggle_value(toggled, "Table").on_hover_text("CFPS as numbers, a row for each epoch");
        };
        section(ui, "CFPS: which classes attract the mistakes", explanation, controls, |ui| {
            if run.epochs.is_empty() {
                ui.label(weak(
                    ui,
                    "Measured when the first epoch is done: the share of all mistakes that lands on each class.",
                ));
                return;
            }
            ui.horizontal_wrapped(|ui| self.source.choose(ui, "CFPS"));
            let source = self.source;
            let key = version(run, ("cfps", source));
            if self.cells.as_ref().is_none_or(|(old, ..)| *old != key) {
                let of_epochs = shares(run, source);
                let cells: Vec<f64> =
                    (0..names.len()).flat_map(|k| of_epochs.iter().map(move |shares| shares[k])).collect();
                let largest = cells.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
                self.cells = Some((key, cells, largest));
            }
            let Some((_, cells, largest)) = &self.cells else { return };
            if as_table {
                return numbers(ui, run, names, cells);
            }
            let chance = 1.0 / names.len().max(1) as f64;
            let top = match scale {
                CfpsScale::Chance => (3.0 * chance).min(1.0),
                CfpsScale::Fixed(top) => top.clamp(0.01, 1.0),
                CfpsScale::Automatic => largest.max(1e-6),
            };
            let columns: Vec<String> = run.epochs.iter().map(|epoch| (epoch.metrics.epoch + 1).to_string()).collect();
            let at = |class: usize, epoch: usize| cells.get(class * columns.len() + epoch).copied().unwrap_or(f64::NAN);
            let marked = shown.and_then(|shown| run.epochs.iter().position(|e| e.metrics.epoch == shown.metrics.epoch));
            let many = names.len() > 20;
            let what = Matrix {
                name: "CFPS by class and epoch",
                rows: names,
                columns: &columns,
                classes_in_columns: false,
                axis: "Epoch",
                color: &|class, epoch| theme::sequential(at(class, epoch) / top),
                text: &|class, epoch, wide| format!("{:.*}", usize::from(wide), 100.0 * at(class, epoch)),
                describe: &|class, epoch| {
                    let value = at(class, epoch);
                    let times = value / chance;
                    format!(
                        "{}, epoch {}: {} of all mistakes, {times:.1} × chance",
                        names[class],
                        columns[epoch],
                        percent(value)
                    )
                },
                marked,
                key: version(run, ("cfps", source, top.to_bits())),
                cell: (vec2(4.0, if many { 14.0 } else { 20.0 }), vec2(44.0, if many { 14.0 } else { 26.0 })),
                height: 420.0,
            };
            if let Some((class, column)) = matrix(ui, &mut self.matrix, &what) {
                let record = run.epochs.get(column);
                wanted = record.map(|record| Cell {
                    of: source.counted(),
                    epoch: record.metrics.epoch,
                    label: None,
                    prediction: class as u32,
                });
            }
            let mark = format!("chance, 1/{}: {}", names.len(), percent(chance));
            color_bar(ui, &|v| theme::sequential(v / top), (0.0, top), &short_percent, Some((chance, &mark)));
            ui.horizontal_wrapped(|ui| {
                choose_scale(ui, &mut scale);
                ui.label(weak(ui, "Click a cell to show the images that were counted there.").small());
            });
            if let (Some(experiment), Some(epoch)) = (run.experiment.as_deref(), shown) {
                ui.label(weak(ui, note(run, experiment, source, epoch)).small());
            }
        });
        context.settings.cfps_scale = scale;
        if let Some(cell) = wanted {
            context.ask(Action::ShowCell(cell));
        }
    }
}

/// CFPS of each class in each epoch.
fn shares(run: &RunView, source: Source) -> Vec<Vec<f64>> {
    let classes = run.class_names().len();
    let of_method = run.experiment.as_deref().map_or(Source::Train, Source::of_method);
    run.epochs.iter().map(|epoch| source.cfps(epoch, classes, of_method)).collect()
}

/// The rows of `classes.csv` with the CFPS of these images.
fn counted_rows(run: &RunView, source: Source) -> Vec<ClassRow> {
    let shares = shares(run, source);
    let rows = run.epochs.iter().zip(shares).flat_map(|(epoch, shares)| {
        let cfps = move |row: &ClassRow| shares.get(row.class as usize).copied().unwrap_or(f64::NAN);
        epoch.classes.iter().map(move |row| ClassRow { cfps: cfps(row), ..row.clone() })
    });
    rows.collect()
}

/// Whose mistakes are shown, and whose the method uses.
fn note(run: &RunView, experiment: &Experiment, source: Source, epoch: &EpochRecord) -> String {
    let mut text = format!("Counted: {}.", source.describe(experiment, epoch));
    let changed = !changes_between(run.epochs.iter().map(|epoch| &epoch.metrics)).is_empty();
    if source == Source::Validation && changed {
        text += " Other epochs were evaluated under another attack.";
    }
    let of_method = Source::of_method(experiment);
    if source != of_method {
        text += &format!(" {} itself counts {}.", experiment.method().title, of_method.describe(experiment, epoch));
    }
    text
}

fn choose_scale(ui: &mut Ui, scale: &mut CfpsScale) {
    let label = ui.label("Scale");
    let name = |scale: &CfpsScale| match scale {
        CfpsScale::Chance => "0 to 3 × chance",
        CfpsScale::Fixed(_) => "fixed",
        CfpsScale::Automatic => "automatic",
    };
    let chosen = name(scale);
    ComboBox::from_id_salt("cfps scale")
        .selected_text(chosen)
        .show_ui(ui, |ui| {
            for option in [CfpsScale::Chance, CfpsScale::Fixed(0.3), CfpsScale::Automatic] {
                if ui.selectable_label(name(&option) == chosen, name(&option)).clicked() && name(&option) != chosen {
                    *scale = option;
                }
            }
        })
        .response
        .labelled_by(label.id);
    if let CfpsScale::Fixed(top) = scale {
        let mut percent = 100.0 * *top;
        let value = DragValue::new(&mut percent).range(1.0..=100.0).speed(0.2).max_decimals(1).suffix(" %");
        if ui.add(value).accessible_name("Largest CFPS on the colour scale").changed() {
            *top = percent / 100.0;
        }
    }
}

fn numbers(ui: &mut Ui, run: &RunView, names: &[String], cells: &[f64]) {
    let height = ui.text_style_height(&egui::TextStyle::Body) + 4.0;
    let epochs = run.epochs.len();
    egui::ScrollArea::horizontal().id_salt("cfps table").show(ui, |ui| {
        TableBuilder::new(ui)
            .striped(true)
            .max_scroll_height(360.0)
            .auto_shrink([false, true])
            .column(Column::exact(52.0))
            .columns(Column::initial(84.0).at_least(40.0), names.len())
            .header(height, |mut header| {
                header.col(|ui| {
                    ui.label("Epoch");
                });
                for name in names {
                    header.col(|ui| {
                        ui.add(egui::Label::new(name).truncate()).on_hover_text(name);
                    });
                }
            })
            .body(|body| {
                body.rows(height, epochs, |mut line| {
                    // Newest first.
                    let epoch = epochs - 1 - line.index();
                    line.col(|ui| {
                        ui.label((run.epochs[epoch].metrics.epoch + 1).to_string());
                    });
                    for class in 0..names.len() {
                        line.col(|ui| {
                            if ui.is_rect_visible(ui.max_rect()) {
                                ui.label(percent(cells[class * epochs + epoch]));
                            }
                        });
                    }
                });
            });
    });
}

/// The rows of `classes.csv` up to and including an epoch.
pub(super) fn class_rows(run: &RunView, until: Option<u32>) -> Vec<ClassRow> {
    let wanted = run.epochs.iter().filter(|epoch| until.is_none_or(|until| epoch.metrics.epoch <= until));
    wanted.flat_map(|epoch| epoch.classes.iter().cloned()).collect()
}

fn csv(rows: &[ClassRow], source: Source) -> String {
    let cells = |row: &ClassRow| [row.epoch.to_string(), row.class.to_string(), row.name.clone(), row.cfps.to_string()];
    let cfps = if source == Source::Validation { "val_cfps" } else { "cfps" };
    table(&["epoch", "class", "name", cfps], rows.iter().map(cells))
}
