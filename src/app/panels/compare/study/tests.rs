//! The panel Compare on directories of studies.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use crate::app::context::{Action, Format};
use crate::app::panels::compare::Compare;
use crate::app::runs::testing::{robust_classes, study_text, write, write_study};
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::config::MethodChoice;
use crate::study::{PlannedRun, name_of_failure};
use crate::train::RunDir;

type Shown = Harness<'static, Stage<Compare>>;

fn show(paths: &[PathBuf], size: [f32; 2], dark: bool) -> Shown {
    let mut stage = Stage::new(Compare::default(), sample::run());
    stage.settings.compare = paths.to_vec();
    let mut harness = harness(stage, size, 1.0, dark);
    wait(&mut harness);
    harness
}

fn wait(harness: &mut Shown) {
    let begun = Instant::now();
    harness.run_steps(10);
    while harness.query_all_by_label("reading…").count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
        harness.run_steps(10);
    }
    harness.run_steps(4);
}

fn study(path: &Path, seeds: &str, more: &str, classes: usize) -> Vec<PlannedRun> {
    write_study(path, &study_text(seeds, more), |run| Some(robust_classes(run, classes)))
}

fn says(harness: &Shown, text: &str) -> bool {
    harness.query_all_by_label_contains(text).count() > 0
}

#[test]
fn a_complete_study_shows_its_sentences_arms_and_classes() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("parts");
    study(&path, "[0, 1, 2]", "", 10);
    let mut harness = show(std::slice::from_ref(&path), [1500.0, 1300.0], true);
    assert!(says(&harness, "study, 9 of 9 runs complete: What targets do"));
    assert!(says(&harness, "9 complete"));
    assert_eq!(harness.query_all_by_label("seed 2: complete").count(), 3);
    // The sentences are those of the report.
    let report = crate::app::runs::Study::read(&path).unwrap().report;
    let claims = crate::study::claims(&report.cells[0]);
    assert_eq!(claims.len(), 3);
    for claim in &claims {
        assert!(says(&harness, &crate::app::widgets::markdown::unbroken(claim)), "{claim}");
    }
    // The numbers of a row are those of the report.
    let arm = &report.cells[0].arms[2];
    let worst = arm.quantity("robust worst class").unwrap();
    let row = format!("FAIR-TAT: {} over 3 seeds, {} points against AT", worst.spread.unwrap(), worst.comparisons[0]);
    assert!(says(&harness, &row), "{row}");
    assert!(says(&harness, "AT: ") && says(&harness, "over 3 seeds, baseline"));
    let class = &arm.classes[3];
    let row = format!("FAIR-TAT {} ({} points, higher)", class.spread.unwrap(), class.comparisons[0]);
    assert!(says(&harness, &row), "{row}");
    shoot(&mut harness, "compare-study");
    // Another quantity.
    harness.get_by_role_and_label(egui::accesskit::Role::ComboBox, "Quantity").click();
    harness.run();
    harness.get_by_label("robust gap").click();
    harness.run();
    let gap = arm.quantity("robust gap").unwrap();
    assert!(says(&harness, &format!("FAIR-TAT: {} over 3 seeds", gap.spread.unwrap())));
    harness.get_by_label("Export arms paired by seed").click();
    harness.run();
    harness.get_by_label("Save as SVG…").click();
    harness.run();
    let [Action::Export(export, Format::Svg)] = &harness.state().actions[..] else {
        panic!("{:?}", harness.state().actions)
    };
    assert_eq!(export.name, "parts-paired");
    assert!(export.svg.contains("robust gap") && export.csv.starts_with("cell,arm,part,metric,"));
}

#[test]
fn runs_that_are_missing_failed_or_under_way_are_shown_by_cell() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("radii");
    let axis = "[[axis]]\nfield = \"attack.epsilon\"\nvalues = [\"4/255\", \"8/255\"]\n";
    // The first cell is complete for one seed only, the second has no complete run.
    let plan = write_study(&path, &study_text("[0, 1]", axis), |run| {
        (run.cell.contains("4/255") && run.seed == 0).then(|| robust_classes(run, 10))
    });
    let other: Vec<&PlannedRun> = plan.iter().filter(|run| run.cell.contains("8/255")).collect();
    std::fs::write(name_of_failure(&path, &other[0].name), "the disk is full\n").unwrap();
    let _held = RunDir::create(&path.join(&other[1].name), &other[1].experiment).unwrap();
    drop(RunDir::create(&path.join(&other[2].name), &other[2].experiment).unwrap());
    let mut harness = show(std::slice::from_ref(&path), [1500.0, 1200.0], false);
    assert!(says(&harness, "3 complete, 1 under way, 1 stopped, 1 failed, 6 missing"));
    assert!(says(&harness, "epsilon 4/255") && says(&harness, "epsilon 8/255"));
    assert!(harness.query_by_label("seed 0: failed").is_some());
    assert!(harness.query_by_label("seed 0: epoch 1").is_some());
    assert!(harness.query_by_label("seed 0: stopped after 0").is_some());
    assert_eq!(harness.query_all_by_label("seed 1: missing").count(), 6);
    assert!(says(&harness, &format!("{} failed: the disk is full", other[0].name)));
    assert!(says(&harness, "Fewer than three seeds, so no difference is stated."));
    assert!(says(&harness, "fewer than three seeds"));
    shoot(&mut harness, "compare-study-incomplete");
    // A run that has begun joins the comparison of runs.
    harness.query_all_by_label("seed 0: complete").next().unwrap().click();
    harness.run_steps(4);
    assert_eq!(harness.state().settings.compare, [path.clone(), path.join(&plan[0].name)]);
    wait(&mut harness);
    assert!(says(&harness, "PGD-AT on cifar10"));
    // The other cell has no numbers.
    harness.get_by_role_and_label(egui::accesskit::Role::ComboBox, "Cell").click();
    harness.run();
    harness.get_by_role_and_label(egui::accesskit::Role::Button, "epsilon 8/255").click();
    harness.run();
    assert_eq!(harness.query_all_by_label("No run of this cell is complete yet.").count(), 3);
}

#[test]
fn one_seed_two_classes_and_a_hundred_classes() {
    let place = tempfile::tempdir().unwrap();
    for (name, seeds, classes) in [("two", "[0]", 2), ("hundred", "[0, 1]", 100)] {
        let path = place.path().join(name);
        study(&path, seeds, "", classes);
        let mut harness = show(&[path], [1024.0, 2400.0], true);
        assert!(says(&harness, "AT: ") && says(&harness, "airplane: AT"), "{name}");
        shoot(&mut harness, &format!("compare-study-{name}"));
    }
}

#[test]
fn an_empty_study_and_one_beside_runs() {
    let place = tempfile::tempdir().unwrap();
    let (empty, run) = (place.path().join("empty"), place.path().join("run"));
    write_study(&empty, &study_text("[0]", ""), |_| None);
    write(&run, MethodChoice::At, 3, Some(0.4));
    let mut harness = show(&[empty, run], [700.0, 1800.0], true);
    assert!(says(&harness, "0 of 3 runs are complete."));
    assert!(says(&harness, "3 missing") && says(&harness, "PGD-AT on cifar10"));
    shoot(&mut harness, "compare-study-empty");
}

#[test]
fn damaged_files_are_named() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("parts");
    let plan = study(&path, "[0, 1]", "", 10);
    // A report that is cut off; measurements for another number of classes, which are left out.
    let cut = path.join(&plan[0].name).join("evaluation.json");
    std::fs::write(&cut, "{\"method\"").unwrap();
    std::fs::create_dir_all(path.join(crate::study::MEASURES)).unwrap();
    let measured = r#"{"of": null, "images": 1, "rows": [{"title": "t", "settings": "", "accuracy": 0.5, "classes": [],
        "warning": null}], "targeted": {"attack": "", "hits": [[1]], "images": [1, 2, 3], "cfps": [], "mistakes": 1},
        "peak_bytes": null}"#;
    std::fs::write(path.join(crate::study::MEASURES).join(format!("{}.json", plan[1].name)), measured).unwrap();
    assert!(crate::study::measured(&path, &plan[1].name).is_some());
    let harness = show(std::slice::from_ref(&path), [1500.0, 1200.0], true);
    assert!(says(&harness, "evaluation.json") && says(&harness, "the study writes it again"));
    assert!(says(&harness, "5 complete, 1 missing"));
    drop(harness);
    std::fs::write(path.join("study.toml"), "title = \"x\"\nseeds = 3\n").unwrap();
    let harness = show(&[path], [1000.0, 700.0], true);
    assert!(says(&harness, "study.toml: line 2"));
}
