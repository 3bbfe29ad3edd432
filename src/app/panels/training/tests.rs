use egui_kittest::kittest::{NodeT, Queryable};

use super::time::{cost, split};
use super::*;
use crate::app::context::{Action, Format};
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::app::view::RunView;
use crate::worker::{Ended, Phase, Update};

#[test]
fn shares_of_the_time_add_up() {
    assert_eq!(split([10.0, 6.0, 2.0, 1.0]), [6.0, 2.0, 1.0, 1.0]);
    assert_eq!(split([1.0, 0.9, 0.2, 0.0])[3], 0.0);
    assert_eq!(cost([14.0, 10.4, 2.1, 0.7]), "Statistics (CFPS and clean passes) cost 5.0 % of this epoch");
}

#[test]
fn the_strip_says_where_the_run_is() {
    let mut harness = harness(Stage::new(Training::default(), sample::run()), [1024.0, 700.0], 1.0, true);
    harness.run();
    for text in ["Phase: attack", "Epoch: 19 of 30", "Batch: 45 of 90", "Images/s: 914", "Learning rate: 0.01"] {
        assert!(harness.query_by_label(text).is_some(), "{text}");
    }
    // 18 epochs of 14 s and half of the next one's 12.6 s; 11.5 epochs are left.
    assert!(harness.query_by_label("Trained for: 0:04:18").is_some());
    assert!(harness.query_by_label("Left, about: 0:02:41").is_some());
    assert!(harness.query_by_label("Checkpoint after epoch 3").is_some());
    assert!(harness.query_by_label_contains("Worst class, robust: cat: ").is_some());
    assert!(harness.query_by_label_contains("Robust: under PGD-").is_some());
}

#[test]
fn an_evaluation_shows_its_own_progress() {
    let mut run = sample::run();
    let now = std::time::Instant::now();
    run.apply(Update::Phase(Phase::Evaluating("PGD-20".into())), now);
    run.apply(Update::Evaluating { done: 1200, total: 5000 }, now);
    let mut harness = harness(Stage::new(Training::default(), run), [1024.0, 700.0], 1.0, true);
    harness.run();
    assert!(harness.query_by_label("evaluating PGD-20: 1,200 of 5,000 images").is_some());
}

#[test]
fn nothing_moves_when_the_phase_changes_or_the_run_ends() {
    let now = std::time::Instant::now();
    let mut harness = harness(Stage::new(Training::default(), sample::run()), [1024.0, 700.0], 1.0, true);
    harness.run();
    let places = |harness: &egui_kittest::Harness<'_, Stage<Training>>| {
        let labels = ["Batch: ", "Images/s: ", "Trained for: ", "Left, about: ", "Learning rate: ", "Engine: "];
        let mut places: Vec<egui::Rect> = labels.map(|label| harness.get_by_label_contains(label).rect()).to_vec();
        places.push(harness.get_by_label("Export accuracy").rect());
        places
    };
    let before = places(&harness);
    let long = "PGD-10, L∞, ε 8/255, step 2/255, 1 random start";
    let updates = [
        Update::Phase(Phase::Update),
        Update::Phase(Phase::Evaluating(long.into())),
        Update::Evaluating { done: 1200, total: 5000 },
        Update::Phase(Phase::Paused),
    ];
    for update in updates {
        let name = format!("{update:?}");
        harness.state_mut().run.apply(update, now);
        harness.run();
        assert_eq!(places(&harness), before, "{name}");
    }
    harness.state_mut().run.apply(Update::Ended(Ended::Saved), now);
    harness.run();
    assert_eq!(places(&harness), before);
    assert!(harness.query_by_label("Left, about: –").is_some());
}

#[test]
fn a_line_is_hidden_and_shown_by_its_key() {
    let mut harness = harness(Stage::new(Training::default(), sample::run()), [1024.0, 900.0], 1.0, true);
    harness.run();
    harness.get_by_label("gap").click();
    harness.run();
    assert_eq!(harness.state().panel.curves.hidden(), ["gap"]);
    harness.get_by_label("gap").click();
    harness.run();
    assert!(harness.state().panel.curves.hidden().is_empty());
}

#[test]
fn an_export_has_the_numbers_that_are_shown() {
    let mut harness = harness(Stage::new(Training::default(), sample::run()), [1024.0, 900.0], 1.0, true);
    harness.run();
    harness.get_by_label("Export accuracy").click();
    harness.run();
    harness.get_by_label("Copy numbers (CSV)").click();
    harness.run();
    let [Action::Export(export, Format::CopyCsv)] = &harness.state().actions[..] else {
        panic!("{:?}", harness.state().actions)
    };
    let rows: Vec<Vec<&str>> = export.csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 19);
    let last = &sample::run().epochs[17];
    assert_eq!(rows[18][0], "17");
    assert_eq!(rows[18][3].parse::<f64>().unwrap(), last.metrics.val_robust_accuracy);
    let robust = last.classes.iter().map(|row| row.val_robust_accuracy);
    let gap = robust.clone().fold(0.0, f64::max) - robust.fold(1.0, f64::min);
    assert_eq!(rows[18][5].parse::<f64>().unwrap(), gap);
    assert_eq!(export.name, "cifar10-small-accuracy");
    assert!(export.svg.starts_with("<svg"), "{}", &export.svg[..40]);
}

/// The sample run, validated under a stronger attack from epoch 10 on.
fn strengthened() -> RunView {
    let mut run = sample::run();
    sample::strengthen(&mut run.epochs, 9);
    run.apply(
        Update::Kept(crate::train::KeptBest {
            name: "best-until-epoch-0008".into(),
            epoch: 7,
            until_epoch: 8,
            attack: run.epochs[8].metrics.val_attack.clone(),
            score: Some(0.8125),
        }),
        std::time::Instant::now(),
    );
    run
}

#[test]
fn a_change_of_the_validation_attack_is_named_and_no_difference_is_taken_across_it() {
    let mut harness = harness(Stage::new(Training::default(), strengthened()), [1024.0, 900.0], 1.0, true);
    harness.run();
    let note = "changed after epoch 9 (validation: ε 2/255 → 16/255)";
    assert!(harness.query_by_label_contains(note).is_some());
    // The numbers name the attack they were measured under, not the experiment's current one.
    assert!(
        harness
            .query_by_label_contains("After epoch 18, validation split. Robust: under PGD-10, L∞, ε 16/255")
            .is_some()
    );
    assert!(harness.query_by_label_contains("checkpoints/best-until-epoch-0008.safetensors").is_some());
    assert_eq!(harness.query_all_by_label_contains("points since the epoch before").count(), 4);

    let mut run = strengthened();
    run.epochs.truncate(10);
    let mut harness = crate::app::testing::harness(Stage::new(Training::default(), run), [1024.0, 900.0], 1.0, true);
    harness.run();
    let differences: Vec<bool> = ["Clean: ", "Robust: ", "Worst class, robust: ", "Gap, "]
        .iter()
        .map(|name| {
            let labels: Vec<String> = harness
                .query_all_by_label_contains(name)
                .filter_map(|node| node.accesskit_node().value())
                .filter(|label| label.starts_with(name))
                .collect();
            labels.iter().any(|label| label.contains("since the epoch before"))
        })
        .collect();
    assert_eq!(differences, [true, false, false, false]);
}

/// Writes pictures for viewing if `SHOTS` is set; otherwise only checks that every size can be drawn.
#[test]
fn it_draws_at_every_size() {
    for (name, size, scale, dark) in [
        ("training-wide", [1600.0, 1000.0], 1.0, true),
        ("training-light", [1024.0, 700.0], 1.0, false),
        ("training-small", [512.0, 350.0], 2.0, true),
    ] {
        let mut harness = harness(Stage::new(Training::default(), sample::run()), size, scale, dark);
        harness.run();
        shoot(&mut harness, name);
    }
    for (name, size, dark) in
        [("training-changed", [1024.0, 900.0], true), ("training-changed-light", [1600.0, 1000.0], false)]
    {
        let mut harness = harness(Stage::new(Training::default(), strengthened()), size, 1.0, dark);
        harness.run();
        shoot(&mut harness, name);
    }
    let mut paused = sample::run();
    paused.apply(Update::Phase(Phase::Paused), std::time::Instant::now());
    let mut harness = harness(Stage::new(Training::default(), paused), [1024.0, 700.0], 1.0, true);
    harness.run();
    assert!(harness.query_by_label("Phase: paused").is_some());
    shoot(&mut harness, "training-paused");
    let empty = RunView::default();
    let mut harness = crate::app::testing::harness(Stage::new(Training::default(), empty), [600.0, 300.0], 1.0, false);
    harness.run();
    assert!(harness.query_by_label("Nothing is training").is_some());
}

#[test]
fn a_class_that_is_pointed_at_has_its_curves_and_the_worst_one_can_be_pointed_at() {
    let mut harness = harness(Stage::new(Training::default(), sample::run()), [1024.0, 1100.0], 1.0, true);
    harness.run();
    let whole = egui::Rect::from_min_max(egui::pos2(0.0, 200.0), egui::pos2(1024.0, 1100.0));
    assert!(crate::app::testing::is_highlighted(&mut harness, whole, 6), "no curve of a class was drawn");
    harness.state_mut().pointed = Some(6);
    harness.run_steps(3);
    shoot(&mut harness, "training-class");
    harness.state_mut().pointed = None;
    let worst = harness.get_by_label_contains("Worst class, robust: cat: ").rect();
    assert!(crate::app::testing::is_highlighted(&mut harness, worst, 3));
    harness.hover_at(worst.center());
    harness.run_steps(3);
    assert_eq!(crate::app::focus::pointed(&harness.ctx), Some(3));
}

#[test]
fn an_earlier_epoch_shows_where_its_own_time_went() {
    let mut run = sample::run();
    run.epochs[4].metrics.seconds_statistics = 7.0;
    let mut harness = harness(Stage::new(Training::default(), run), [1024.0, 1100.0], 1.0, true);
    harness.run();
    assert!(harness.query_by_label_contains("Epoch 19, 45 of 90 batches").is_some());
    assert!(harness.query_by_label_contains("Epoch 18, whole").is_some());
    harness.state_mut().focus.epoch = Some(4);
    harness.run();
    assert!(harness.query_by_label_contains("Epoch 19, 45 of 90 batches").is_none());
    assert!(harness.query_by_label_contains("Epoch 5, whole").is_some());
    assert!(harness.query_by_label_contains("cost 50.0 % of this epoch").is_some());
}
