//! Several runs compared: numbers, curves, classes, settings, images; and the comparison that a study makes of its runs.

mod classes;
mod curves;
mod images;
mod study;
mod table;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use egui::{Color32, RichText, Ui};

use crate::app::context::{Action, Context, OpenFor, Panel};
use crate::app::runs::{Entry, Library, Run, Study};
use crate::app::theme;
use crate::app::widgets::{card, empty, scrolled, strong, weak};

/// Where to look for runs and studies; the default output directories of `fairtat train` and `fairtat study run`.
const PLACES: [&str; 2] = ["runs", "studies"];
/// Minimum width for results and curves side by side.
const TWO_COLUMNS: f32 = 1100.0;

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Compare {
    library: Library,
    /// Weights whose test results are shown.
    weights: Weights,
    quantity: curves::Quantity,
    images: images::Images,
    tables: table::Tables,
    /// What is chosen in each study.
    studies: HashMap<PathBuf, study::Choices>,
}

/// A set of weights of a finished run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Weights {
    /// Of the last epoch.
    #[default]
    Last,
    /// Of the best epoch by the validation split.
    Best,
    /// The average over epochs.
    Ema,
    /// The fairness-aware average.
    Fawa,
}

impl Weights {
    const ALL: [Self; 4] = [Self::Last, Self::Best, Self::Ema, Self::Fawa];

    const fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Best => "best",
            Self::Ema => "ema",
            Self::Fawa => "fawa",
        }
    }

    const fn term(self) -> &'static str {
        match self {
            Self::Last | Self::Best => "checkpoint",
            Self::Ema => "ema",
            Self::Fawa => "fawa",
        }
    }
}

/// A run as displayed: its index determines its colour and line style.
pub(super) struct Shown {
    run: Arc<Run>,
    index: usize,
}

impl Shown {
    fn color(&self, ui: &Ui) -> Color32 {
        theme::class_color(self.index, ui.visuals().dark_mode)
    }
}

impl Panel for Compare {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        self.library.poll();
        let entries: Vec<(PathBuf, Entry)> = context
            .settings
            .compare
            .clone()
            .into_iter()
            .map(|path| {
                let wake = ui.ctx().clone();
                let entry = self.library.get(&path, move || wake.request_repaint());
                (path, entry)
            })
            .collect();
        self.tools(ui, context);
        if entries.is_empty() {
            let how = "Add two or more run directories, or the directory of a study; they are only read.";
            return empty(ui, "No runs to compare yet", how);
        }
        let shown: Vec<Shown> = entries
            .iter()
            .enumerate()
            .filter_map(|(index, (_, entry))| match entry {
                Entry::Ready(run) => Some(Shown { run: run.clone(), index }),
                _ => None,
            })
            .collect();
        scrolled(ui, egui::ScrollArea::vertical().auto_shrink(false), |ui| {
            self.list(ui, context, &entries);
            let studies: Vec<Arc<Study>> = entries
                .iter()
                .filter_map(|(_, entry)| if let Entry::Study(study) = entry { Some(study.clone()) } else { None })
                .collect();
            for study in studies {
                ui.push_id(&study.path, |ui| {
                    let choices = self.studies.entry(study.path.clone()).or_default();
                    study::ui(ui, context, &study, choices);
                });
            }
            if shown.is_empty() {
                return;
            }
            if ui.available_width() < TWO_COLUMNS {
                self.results(ui, context, &shown);
                self.progress(ui, context, &shown);
                return;
            }
            ui.columns(2, |columns| {
                self.results(&mut columns[0], context, &shown);
                self.progress(&mut columns[1], context, &shown);
            });
        });
    }
}

impl Compare {
    /// The controls that add runs.
    fn tools(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        ui.horizontal_wrapped(|ui| {
            if ui.button("Add a run…").on_hover_text("Choose the directory of a run or a study.").clicked() {
                context.ask(Action::Open(OpenFor::Compare));
            }
            let mut chosen = None;
            let places = PLACES.map(|place| format!("{place}/")).join(" and ");
            let menu = ui.menu_button("Runs found", |ui| {
                let wake = ui.ctx().clone();
                match self.library.below(&PLACES.map(Path::new), move || wake.request_repaint()) {
                    None => drop(ui.label("Looking…")),
                    Some([]) => drop(ui.label(weak(ui, format!("There are no runs or studies below {places}.")))),
                    Some(found) => {
                        ui.set_min_width(360.0_f32.min(ui.ctx().content_rect().width() - 40.0));
                        egui::ScrollArea::vertical().max_height(300.0).min_scrolled_height(300.0).show(ui, |ui| {
                            for path in found.iter().filter(|path| !context.settings.compare.contains(path)) {
                                if ui.button(path.display().to_string()).clicked() {
                                    chosen = Some(path.clone());
                                }
                            }
                        });
                    }
                }
            });
            if menu.response.on_hover_text(format!("Runs and studies below {places}.")).clicked() {
                self.library.rescan();
            }
            let own = context.run.directory().filter(|own| !context.settings.compare.contains(own)).cloned();
            if let Some(own) = own {
                let text = format!("Add {}, the run of this window.", own.display());
                if ui.button("Add this run").on_hover_text(text).clicked() {
                    chosen = Some(own);
                }
            }
            if !context.settings.compare.is_empty()
                && ui
                    .button("Read again")
                    .on_hover_text("Read every directory again, to update runs that are under way.")
                    .clicked()
            {
                context.settings.compare.iter().for_each(|path| self.library.forget(path));
            }
            context.settings.compare.extend(chosen);
        });
    }

    /// The runs with their colours; for a directory that cannot be read, the reason.
    fn list(&mut self, ui: &mut Ui, context: &mut Context<'_>, entries: &[(PathBuf, Entry)]) {
        let palette = theme::palette(ui);
        let mut removed = None;
        for (index, (path, entry)) in entries.iter().enumerate() {
            ui.horizontal_wrapped(|ui| {
                if !matches!(entry, Entry::Study(_)) {
                    swatch(ui, index);
                }
                let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                ui.label(strong(&name)).on_hover_text(path.display().to_string());
                let remove = ui.small_button("Remove");
                remove.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Remove {name}")));
                if remove.clicked() {
                    removed = Some(index);
                }
                match entry {
                    Entry::Reading => drop(ui.label(weak(ui, "reading…"))),
                    Entry::Ready(run) => drop(ui.label(weak(ui, described(run)))),
                    Entry::Study(study) => {
                        let [done, all] = study.report.complete;
                        let text = format!("study, {done} of {all} runs complete: {}", study.report.title);
                        drop(ui.label(weak(ui, text)));
                    }
                    Entry::Failed(what) => drop(ui.label(RichText::new(what).color(palette.error))),
                }
            });
        }
        if let Some(index) = removed {
            let path = context.settings.compare.remove(index);
            self.library.forget(&path);
            self.studies.remove(&path);
        }
        ui.add_space(4.0);
    }

    fn results(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: &[Shown]) {
        wide_card(ui, "Results", |ui| self.tables.ui(ui, context, shown, &mut self.weights));
        wide_card(ui, "Adversarial examples", |ui| self.images.ui(ui, shown));
    }

    fn progress(&mut self, ui: &mut Ui, context: &mut Context<'_>, shown: &[Shown]) {
        wide_card(ui, "Over epochs", |ui| curves::ui(ui, context, shown, &mut self.quantity));
        wide_card(ui, "Robust accuracy of each class", |ui| {
            classes::ui(ui, context.run.class_names(), shown, self.weights);
        });
    }
}

fn wide_card(ui: &mut Ui, title: &str, contents: impl FnOnce(&mut Ui)) {
    card(ui, title, |ui| {
        ui.set_width(ui.available_width());
        contents(ui);
    });
}

/// The description of an attack without its seed, which differs between runs: numbers under different seeds are still
/// comparable.
fn unseeded(attack: &str) -> String {
    attack.split(", ").filter(|part| !part.starts_with("seed ")).collect::<Vec<_>>().join(", ")
}

/// Colours and names of the runs in one row.
fn legend(ui: &mut Ui, shown: &[Shown]) {
    ui.horizontal_wrapped(|ui| {
        for shown in shown {
            swatch(ui, shown.index);
            ui.label(&shown.run.name);
            ui.add_space(6.0);
        }
    });
}

fn described(run: &Run) -> String {
    let experiment = &run.experiment;
    let epochs = match run.metrics.len() {
        1 => "1 epoch".to_owned(),
        n => format!("{n} epochs"),
    };
    let (method, data, arch) = (experiment.fairness.method.title(), &experiment.data.dataset, experiment.model.arch);
    format!("{method} on {data}, {arch}, {epochs}, seed {}", experiment.run.seed)
}

/// A sample of a run's line.
fn swatch(ui: &mut Ui, index: usize) {
    let (rect, _) = ui.allocate_exact_size(egui::vec2(30.0, 16.0), egui::Sense::hover());
    let color = theme::class_color(index, ui.visuals().dark_mode);
    let ends = [rect.left_center(), rect.right_center()];
    let stroke = egui::Stroke::new(3.0, color);
    let dash = match index % 3 {
        0 => {
            ui.painter().line_segment(ends, stroke);
            return;
        }
        1 => 8.0,
        _ => 3.0,
    };
    ui.painter().extend(egui::Shape::dashed_line(&ends, stroke, dash, 3.0));
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use egui_kittest::Harness;
    use egui_kittest::kittest::Queryable;

    use super::*;
    use crate::app::context::Format;
    use crate::app::runs::testing;
    use crate::app::sample;
    use crate::app::testing::{Stage, harness};
    use crate::app::widgets::markdown::unbroken;
    use crate::config::MethodChoice;

    /// A harness with two runs, written as by training, and a directory without a run.
    fn two_runs(size: [f32; 2], scale: f32, dark: bool) -> (tempfile::TempDir, Harness<'static, Stage<Compare>>) {
        let place = tempfile::tempdir().unwrap();
        let paths = ["fair-tat-0", "pgd-at-0", "broken"].map(|name| place.path().join(name));
        testing::write(&paths[0], MethodChoice::FairTat, 12, Some(0.42));
        testing::write(&paths[1], MethodChoice::At, 9, Some(0.36));
        std::fs::create_dir_all(&paths[2]).unwrap();
        let mut stage = Stage::new(Compare::default(), sample::run());
        stage.settings.compare = paths.to_vec();
        let mut harness = harness(stage, size, scale, dark);
        wait(&mut harness);
        (place, harness)
    }

    /// Waits until no directory is being read.
    fn wait(harness: &mut Harness<'static, Stage<Compare>>) {
        let begun = Instant::now();
        harness.run_steps(10);
        while harness.query_all_by_label("reading…").count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
            harness.run_steps(10);
        }
    }

    #[test]
    fn two_runs_side_by_side_and_a_broken_one_says_why() {
        let (_place, mut harness) = two_runs([1400.0, 1600.0], 1.0, true);
        assert!(harness.query_by_label_contains("holds no run").is_some());
        assert!(harness.query_by_label_contains("PGD-AT on cifar10").is_some());
        assert!(harness.query_all_by_label("42.0 %").count() >= 1);
        assert!(harness.query_all_by_label("36.0 %").count() >= 1);
        assert!(harness.query_all_by_label_contains("PGD-20, L∞").count() >= 1);
        assert!(harness.query_by_label("fairness.method").is_some(), "the settings that differ are listed");
        assert!(harness.query_by_label_contains("are not comparable").is_none());
        harness.get_by_label("Remove broken").click();
        harness.run();
        assert_eq!(harness.state().settings.compare.len(), 2);
        assert!(harness.query_by_label_contains("holds no run").is_none());
    }

    #[test]
    fn a_class_is_highlighted_from_and_in_the_bars() {
        let (_place, mut harness) = two_runs([1400.0, 1600.0], 1.0, true);
        let rect = harness.get_by_label_contains("cat: fair-tat-0").rect();
        assert!(crate::app::testing::is_highlighted(&mut harness, rect, 3));
        assert!(!crate::app::testing::is_highlighted(&mut harness, rect, 4));
        harness.hover_at(rect.center());
        harness.run_steps(3);
        assert_eq!(crate::app::focus::pointed(&harness.ctx), Some(3));
    }

    #[test]
    fn numbers_under_different_attacks_are_warned_of() {
        let (place, mut harness) = two_runs([1400.0, 1600.0], 1.0, true);
        // Without a report, the last validation row is shown, which has another attack and other images.
        std::fs::remove_file(place.path().join("pgd-at-0/evaluation.json")).unwrap();
        harness.get_by_label("Read again").click();
        harness.run_steps(10);
        wait(&mut harness);
        assert!(harness.query_all_by_label_contains("are not comparable").count() >= 2);
        assert!(harness.query_by_label("validation split, epoch 9").is_some());
    }

    #[test]
    fn runs_are_added_by_asking_and_from_this_window() {
        let mut harness = harness(Stage::new(Compare::default(), sample::run()), [900.0, 500.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("No runs to compare yet").is_some());
        harness.get_by_label("Add a run…").click();
        harness.run();
        assert!(matches!(&harness.state().actions[..], [Action::Open(OpenFor::Compare)]));
        harness.get_by_label("Add this run").click();
        // The file is read in the background; this test does not depend on how long that takes.
        harness.run_steps(4);
        assert_eq!(harness.state().settings.compare, [PathBuf::from("runs/cifar10-small")]);
    }

    #[test]
    fn a_run_whose_validation_attack_changed_says_so() {
        let (place, mut harness) = two_runs([1400.0, 1600.0], 1.0, false);
        let (run, _) = crate::train::RunDir::open(&place.path().join("fair-tat-0")).unwrap();
        let mut records: Vec<_> = (0..12).map(sample::epoch).collect();
        sample::strengthen(&mut records, 7);
        let metrics: Vec<_> = records.iter().map(|record| record.metrics.clone()).collect();
        let classes: Vec<_> = records.iter().flat_map(|record| record.classes.clone()).collect();
        run.write_rows(&metrics, &classes).unwrap();
        harness.get_by_label("Read again").click();
        harness.run_steps(10);
        wait(&mut harness);
        // No line break between a number and its unit.
        let note = unbroken("fair-tat-0: vertical line after epoch 7, validation: ε 2/255 → 16/255.");
        assert!(harness.query_by_label_contains(&note).is_some());
        let attack = unbroken("fair-tat-0: under PGD-10, L∞, ε 16/255, step 2/255");
        assert!(harness.query_by_label_contains(&attack).is_some());
        crate::app::testing::shoot(&mut harness, "compare-changed");
    }

    #[test]
    fn the_table_and_the_curves_leave_as_files() {
        let (_place, mut harness) = two_runs([1400.0, 1600.0], 1.0, true);
        for (button, format) in [("Save numbers as CSV…", Format::Csv), ("Save as SVG…", Format::Svg)] {
            // The first export belongs to the table, the second to the curves.
            let which = usize::from(format == Format::Svg);
            let export = harness.get_all_by_label_contains("Export ").nth(which).unwrap();
            export.click();
            harness.run();
            harness.get_by_label(button).click();
            harness.run();
        }
        let [Action::Export(table, Format::Csv), Action::Export(curves, Format::Svg)] = &harness.state().actions[..]
        else {
            panic!("{:?}", harness.state().actions)
        };
        assert!(table.csv.starts_with("run,method,data,"), "{}", table.csv);
        assert!(table.csv.contains("fair-tat-0,FAIR-TAT,cifar10,") && table.csv.contains(",0.42,"), "{}", table.csv);
        assert!(curves.svg.contains("pgd-at-0") && curves.svg.contains("PGD-10"));
        assert!(curves.csv.starts_with("epoch,fair-tat-0,pgd-at-0\n0,"), "{}", curves.csv);
        assert_eq!(curves.csv.lines().count(), 13);
    }
}
