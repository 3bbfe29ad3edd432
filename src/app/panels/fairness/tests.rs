use egui::{Key, pos2};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::context::{Action, Format};
use crate::app::layout::PanelKind;
use crate::app::sample;
use crate::app::settings::CellUnit;
use crate::app::testing::{Stage, harness, shoot};
use crate::config::MethodChoice;
use crate::worker::{Counted, Hold, Phase, Request, Update};

pub(super) type Shown<'a> = Harness<'a, Stage<Fairness>>;

/// High enough to show everything.
pub(super) fn tall<'a>(run: RunView) -> Shown<'a> {
    let mut harness = harness(Stage::new(Fairness::default(), run), [1200.0, 1500.0], 1.0, true);
    harness.run();
    harness
}

/// The holds of the last request.
fn asked(harness: &Shown<'_>) -> Vec<Hold> {
    let last = harness.state().actions.iter().rev().find_map(|action| match action {
        Action::Worker(Request::Epsilon(holds)) => Some(holds.clone()),
        _ => None,
    });
    last.unwrap_or_else(|| panic!("no radius was asked for: {:?}", harness.state().actions))
}

/// Drags the end of a bar by a number of points.
fn drag_bar(harness: &mut Shown<'_>, class: &str, by: f32) {
    let from = harness.get_by_label_contains(&format!("Bar of {class}:")).rect().center();
    harness.hover_at(from);
    harness.run_steps(2);
    harness.drag_at(from);
    harness.run_steps(2);
    harness.hover_at(from + egui::vec2(by / 2.0, 0.0));
    harness.run_steps(1);
    harness.hover_at(from + egui::vec2(by, 0.0));
    harness.run_steps(2);
    harness.drop_at(from + egui::vec2(by, 0.0));
    harness.run_steps(3);
}

fn type_epsilon(harness: &mut Shown<'_>, class: &str, levels: &str) {
    let name = format!("Epsilon of {class}");
    harness.get_by_label(&name).focus();
    harness.run();
    harness.key_press_modifiers(egui::Modifiers::COMMAND, Key::A);
    harness.get_by_label(&name).type_text(levels);
    harness.run();
    harness.key_press(Key::Enter);
    harness.run();
}

#[test]
fn a_bar_that_is_dragged_asks_for_a_hold_of_its_class_alone() {
    let mut harness = tall(sample::run());
    drag_bar(&mut harness, "cat", 40.0);
    let holds = asked(&harness);
    let before = sample::run().now().unwrap().epsilon[3];
    assert!(holds[3].epsilon.unwrap() > before * 1.05, "{holds:?}");
    assert!(holds.iter().enumerate().all(|(k, hold)| k == 3 || *hold == Hold::default()), "{holds:?}");
    // The requested value is shown until the worker answers.
    let shown = format!("{:.4}", holds[3].epsilon.unwrap());
    assert!(
        harness
            .query_by_label_contains(&format!(
                "Bar of cat: {}",
                crate::app::widgets::epsilon(holds[3].epsilon.unwrap())
            ))
            .is_some(),
        "{shown}"
    );
}

#[test]
fn a_linked_change_scales_what_is_not_locked() {
    let mut run = sample::run();
    let radii = run.now().unwrap().epsilon.to_vec();
    let mut holds = vec![Hold::default(); 10];
    holds[0] = Hold { epsilon: Some(0.02), locked: true };
    run.apply(Update::Held(holds), std::time::Instant::now());
    let mut harness = tall(run);
    harness.get_by_label("Link all classes").click();
    harness.run();
    type_epsilon(&mut harness, "cat", "10");
    let holds = asked(&harness);
    let factor = 10.0 / 255.0 / radii[3];
    assert_eq!(holds[0], Hold { epsilon: Some(0.02), locked: true });
    assert!((holds[3].epsilon.unwrap() - 10.0 / 255.0).abs() < 1e-12);
    for k in [1, 2, 4, 9] {
        assert!((holds[k].epsilon.unwrap() - radii[k] * factor).abs() < 1e-9, "class {k}: {holds:?}");
    }
}

#[test]
fn classes_are_locked_and_given_back() {
    let mut harness = tall(sample::run());
    let radius = harness.state().run.now().unwrap().epsilon[3];
    harness.get_by_label("Lock cat").click();
    harness.run();
    assert_eq!(asked(&harness)[3], Hold { epsilon: Some(radius), locked: true });
    let holds = asked(&harness);
    harness.state_mut().run.apply(Update::Held(holds), std::time::Instant::now());
    harness.run();
    harness.get_by_label("Give cat back to the rule").click();
    harness.run();
    assert_eq!(asked(&harness), vec![Hold::default(); 10]);
    harness
        .state_mut()
        .run
        .apply(Update::Held(vec![Hold { epsilon: Some(0.01), locked: true }; 10]), std::time::Instant::now());
    harness.run();
    assert!(harness.query_by_label_contains("Bar of dog: 2.55/255 (0.0100), held by hand").is_some());
    harness.get_by_label("Give all back to the rule").click();
    harness.run();
    assert_eq!(asked(&harness), vec![Hold::default(); 10]);
}

#[test]
fn a_run_that_is_over_gives_a_reason_instead_of_a_handle() {
    let mut run = sample::run();
    run.apply(Update::Phase(Phase::Idle), std::time::Instant::now());
    let mut harness = tall(run);
    assert!(harness.query_by_label_contains("No run is training").is_some());
    drag_bar(&mut harness, "cat", 40.0);
    harness.get_by_label("Lock cat").click();
    harness.run();
    assert!(harness.state().actions.is_empty(), "{:?}", harness.state().actions);
}

#[test]
fn the_epoch_in_focus_drives_the_confusion() {
    let mut harness = tall(sample::run());
    let value = |harness: &Shown<'_>| harness.get_by_label("Confusion matrix").value().unwrap();
    let of = |epoch: usize| {
        let run = sample::run();
        let counted = run.epochs[epoch].validation.as_ref().unwrap();
        format!("({} of {} images)", counted.at(0, 0), counted.of_class(0))
    };
    assert!(value(&harness).ends_with(&of(17)), "{}", value(&harness));
    harness.state_mut().focus.epoch = Some(2);
    harness.run();
    assert!(value(&harness).ends_with(&of(2)), "{}", value(&harness));
    assert_ne!(of(2), of(17));
    harness.state_mut().focus.epoch = None;
    harness.run();
    assert!(value(&harness).ends_with(&of(17)));
}

#[test]
fn a_cell_shows_its_images_by_pointer_and_by_keyboard() {
    let mut harness = tall(sample::run());
    let rect = harness.get_by_label("Confusion matrix").rect();
    let cell = rect.size() / 10.0;
    let at = pos2(rect.left() + 5.5 * cell.x, rect.top() + 3.5 * cell.y);
    harness.hover_at(at);
    harness.drag_at(at);
    harness.drop_at(at);
    harness.run();
    let cell = |action: &Action| match action {
        Action::ShowCell(cell) => {
            assert_eq!((cell.of, cell.epoch), (Counted::Validation, 17));
            Some((cell.label.unwrap(), cell.prediction))
        }
        _ => None,
    };
    assert_eq!(harness.state().actions.iter().find_map(cell), Some((3, 5)));
    assert!(matches!(harness.state().actions[1], Action::Show(PanelKind::Examples)));
    harness.state_mut().actions.clear();
    harness.get_by_label("Confusion matrix").focus();
    harness.run();
    harness.key_press(Key::ArrowDown);
    harness.key_press(Key::ArrowLeft);
    harness.run();
    assert!(harness.get_by_label("Confusion matrix").value().unwrap().starts_with("true deer, predicted deer"));
    harness.key_press(Key::Enter);
    harness.run();
    assert_eq!(harness.state().actions.iter().find_map(cell), Some((4, 4)));
}

#[test]
fn units_and_the_pinned_epoch_change_the_numbers() {
    let mut harness = tall(sample::run());
    let value = |harness: &Shown<'_>| harness.get_by_label("Confusion matrix").value().unwrap();
    assert!(value(&harness).contains("of the true class"));
    harness.get_by_label("Counts").click();
    harness.run();
    assert_eq!(harness.state().settings.cell_unit, CellUnit::Counts);
    let run = sample::run();
    let at = |epoch: usize| run.epochs[epoch].validation.as_ref().unwrap().at(0, 0) as i64;
    assert!(value(&harness).contains(&format!(": {} images (", at(17))), "{}", value(&harness));
    harness.get_by_label("Pin epoch 18").click();
    harness.run();
    assert!(value(&harness).contains(": +0 images ("), "{}", value(&harness));
    harness.state_mut().focus.epoch = Some(0);
    harness.run();
    let difference = format!(": −{} images (", at(17) - at(0));
    assert!(value(&harness).contains(&difference), "{} {difference}", value(&harness));
    harness.get_by_label("Unpin epoch 18").click();
    harness.run();
    assert!(value(&harness).contains(&format!(": {} images (", at(0))));
}

#[test]
fn exports_have_the_numbers_that_are_shown() {
    let mut harness = tall(sample::run());
    let mut export = |name: &str| {
        harness.state_mut().actions.clear();
        harness.get_by_label(&format!("Export {name}")).click();
        harness.run();
        harness.get_by_label("Save numbers as CSV…").click();
        harness.run();
        match &harness.state().actions[..] {
            [Action::Export(export, Format::Csv)] => export.clone(),
            other => panic!("{name}: {other:?}"),
        }
    };
    let run = sample::run();
    let last = &run.epochs[17];
    let line = |text: &str, number: usize| text.lines().nth(number).unwrap().to_owned();
    let cfps = export("CFPS").csv;
    assert_eq!(cfps.lines().count(), 1 + 18 * 10);
    assert_eq!(line(&cfps, 1 + 17 * 10 + 3), format!("17,3,cat,{}", last.classes[3].cfps));
    let counted = last.validation.as_ref().unwrap();
    let share = counted.at(3, 5) as f64 / counted.of_class(3) as f64;
    let confusion = export("confusion").csv;
    assert_eq!(line(&confusion, 1 + 35), format!("17,cat,dog,{},{share}", counted.at(3, 5)));
    let epsilon = export("epsilon");
    assert_eq!(line(&epsilon.csv, 4).split(',').nth(2), Some(run.now().unwrap().epsilon[3].to_string().as_str()));
    assert!(epsilon.svg.contains("cat"));
    let targets = export("targets").csv;
    assert_eq!(line(&targets, 4), format!("18,3,cat,{}", run.now().unwrap().targets.as_ref().unwrap()[3]));
    let classes = export("accuracy by class").csv;
    let row = &last.classes[3];
    assert_eq!(line(&classes, 4), format!("17,3,cat,{},{}", row.val_clean_accuracy, row.val_robust_accuracy));
}

#[test]
fn worst_class_and_gap_stand_beside_the_mean() {
    let harness = tall(sample::run());
    let last = &sample::run().epochs[17];
    let robust: Vec<f64> = last.classes.iter().map(|row| row.val_robust_accuracy).collect();
    let gap = robust.iter().copied().fold(0.0, f64::max) - robust[3];
    assert!(harness.query_by_label(&format!("worst: cat {:.1} %", 100.0 * robust[3])).is_some());
    assert!(harness.query_by_label(&format!("gap {:.1} points, automobile to cat", 100.0 * gap)).is_some());
    assert!(harness.query_by_label_contains("cat: clean ").is_some());
}

#[test]
fn what_is_missing_is_said() {
    let mut run = sample::run();
    run.epochs.clear();
    run.batches.clear();
    let experiment = run.experiment.as_mut().unwrap();
    experiment.fairness.method = MethodChoice::At;
    let harness = tall(run);
    for text in
        ["Measured when the first epoch is done", "Counted when", "PGD-AT attacks away", "Measured on the validation"]
    {
        assert!(harness.query_by_label_contains(text).is_some(), "{text}");
    }
    let mut run = sample::run();
    run.epochs[17].validation = None;
    let harness = tall(run);
    assert!(harness.query_by_label_contains("The confusion file of epoch 18 is not there").is_some());
}

#[test]
fn a_table_holds_the_same_numbers() {
    let mut harness = tall(sample::run());
    harness.get_by_label("Table").click();
    harness.run();
    let cfps = sample::run().epochs[17].classes[3].cfps;
    assert!(harness.query_all_by_label(&crate::app::widgets::percent(cfps)).next().is_some());
    shoot(&mut harness, "fairness-table");
}

/// Writes pictures for viewing if `SHOTS` is set; otherwise only checks that every size can be drawn.
#[test]
fn it_draws_at_every_size() {
    for (name, size, scale, dark) in [
        ("fairness-wide", [1600.0, 1000.0], 1.0, true),
        ("fairness-light", [1024.0, 700.0], 1.0, false),
        ("fairness-small", [512.0, 350.0], 2.0, true),
        ("fairness-column", [512.0, 2200.0], 1.0, false),
    ] {
        let mut harness = harness(Stage::new(Fairness::default(), sample::run()), size, scale, dark);
        harness.run();
        shoot(&mut harness, name);
    }
    let mut harness = tall(sample::run());
    harness.state_mut().focus.epoch = Some(4);
    harness.run();
    harness.get_by_label("Pin epoch 5").click();
    harness.run();
    harness.state_mut().focus.epoch = None;
    harness.state_mut().run.apply(Update::Phase(Phase::Paused), std::time::Instant::now());
    harness.run();
    type_epsilon(&mut harness, "cat", "12");
    let holds = asked(&harness);
    harness.state_mut().run.apply(Update::Held(holds), std::time::Instant::now());
    harness.run();
    shoot(&mut harness, "fairness-difference");
    let mut harness = tall(sample::run_with(2));
    shoot(&mut harness, "fairness-two");
    let mut harness = harness_empty();
    assert!(harness.query_by_label("Nothing is training").is_some());
    shoot(&mut harness, "fairness-empty");
}

fn harness_empty<'a>() -> Shown<'a> {
    let mut harness = harness(Stage::new(Fairness::default(), RunView::default()), [600.0, 300.0], 1.0, false);
    harness.run();
    harness
}

#[test]
fn a_hundred_classes_draw_in_a_frame() {
    let mut harness = harness(Stage::new(Fairness::default(), sample::run_with(100)), [1600.0, 1000.0], 1.0, true);
    harness.run();
    let began = std::time::Instant::now();
    harness.run_steps(20);
    let each = began.elapsed().as_secs_f64() * 1000.0 / 20.0;
    println!("100 classes: {each:.2} ms a frame");
    assert!(each < 50.0, "{each} ms a frame");
    shoot(&mut harness, "fairness-hundred");
}

#[test]
fn the_workers_echo_replaces_what_was_asked_for() {
    let mut harness = tall(sample::run());
    type_epsilon(&mut harness, "dog", "4");
    assert!(harness.query_by_label_contains("Bar of dog: 4/255 (0.0157), held by hand").is_some());
    let mut echo = asked(&harness);
    echo[5].epsilon = Some(5.0 / 255.0);
    harness.state_mut().run.apply(Update::Held(echo), std::time::Instant::now());
    harness.run();
    assert!(harness.query_by_label_contains("Bar of dog: 5/255 (0.0196), held by hand").is_some());
    // A request that the worker never answers disappears after a while.
    type_epsilon(&mut harness, "dog", "7");
    assert!(harness.query_by_label_contains("Bar of dog: 7/255").is_some());
    let last = harness.state().run.now().unwrap().clone();
    for more in 1..=5 {
        let point = crate::worker::BatchPoint { done: last.done + more, ..last.clone() };
        harness.state_mut().run.apply(Update::Batch(point), std::time::Instant::now());
        harness.run();
    }
    assert!(harness.query_by_label_contains("Bar of dog: 5/255").is_some());
}

/// Clicks the cell of class 3 and epoch 3, of 18, in the heatmap of CFPS.
fn click_cat_in_epoch_3(harness: &mut Harness<'_, Stage<Fairness>>) {
    let rect = harness.get_by_label("CFPS by class and epoch").rect();
    let at = pos2(rect.left() + 2.5 * rect.width() / 18.0, rect.top() + 3.5 * rect.height() / 10.0);
    harness.hover_at(at);
    harness.drag_at(at);
    harness.drop_at(at);
    harness.run();
}

#[test]
fn a_cell_of_cfps_shows_the_training_images_that_were_mistaken_for_its_class() {
    let mut harness = tall(sample::run());
    click_cat_in_epoch_3(&mut harness);
    assert!(harness.state().focus.is_live(), "the other cards keep their epoch");
    let cell = harness.state().actions.iter().find_map(|action| match action {
        Action::ShowCell(cell) => Some(*cell),
        _ => None,
    });
    let cell = cell.unwrap();
    assert_eq!((cell.of, cell.epoch, cell.label, cell.prediction), (Counted::Training, 2, None, 3));
}

#[test]
fn cfps_of_the_validation_split_has_its_own_numbers_images_and_name() {
    let mut harness = tall(sample::run());
    let named = |harness: &Shown<'_>, text: &str| harness.query_by_label_contains(text).is_some();
    assert!(named(&harness, "Counted: training images under PGD-"));
    let value = |harness: &Shown<'_>| harness.get_by_label("CFPS by class and epoch").value().unwrap();
    let expected = |counts: &crate::fairness::Confusion| {
        format!("airplane, epoch 1: {} of all mistakes", crate::app::widgets::percent(counts.cfps()[0]))
    };
    let first = sample::run().epochs[0].clone();
    let [train, validation] = [first.train.as_ref(), first.validation.as_ref()].map(|counts| expected(counts.unwrap()));
    assert_ne!(train, validation);
    assert!(value(&harness).starts_with(&train), "{}", value(&harness));
    harness.get_by_label("CFPS: Validation").click();
    harness.run();
    assert!(value(&harness).starts_with(&validation), "{}", value(&harness));
    assert!(named(&harness, "Counted: validation split under PGD-"));
    assert!(named(&harness, "FAIR-TAT itself counts training images under PGD-"));
    harness.get_by_label("Export CFPS").click();
    harness.run();
    harness.get_by_label("Save numbers as CSV…").click();
    harness.run();
    let [Action::Export(export, Format::Csv)] = &harness.state().actions[..] else { panic!() };
    let cat = sample::run().epochs[17].validation.as_ref().unwrap().cfps()[3];
    assert!(export.csv.starts_with("epoch,class,name,val_cfps\n"));
    assert_eq!(export.csv.lines().nth(1 + 17 * 10 + 3), Some(format!("17,3,cat,{cat}").as_str()));
    assert!(export.svg.contains("landed on the class; validation split under"), "{}", export.svg);
    // A cell leads to images of the validation split.
    click_cat_in_epoch_3(&mut harness);
    let cell = harness.state().actions.iter().find_map(|action| match action {
        Action::ShowCell(cell) => Some((cell.of, cell.epoch, cell.label, cell.prediction)),
        _ => None,
    });
    assert_eq!(cell, Some((Counted::Validation, 2, None, 3)));
}

#[test]
fn without_counts_cfps_is_what_the_file_of_classes_says() {
    let mut run = sample::run();
    run.epochs.iter_mut().for_each(|epoch| (epoch.train, epoch.validation) = (None, None));
    let mut harness = tall(run);
    let value = |harness: &Shown<'_>| harness.get_by_label("CFPS by class and epoch").value().unwrap();
    let cfps = crate::app::widgets::percent(sample::run().epochs[0].classes[0].cfps);
    assert!(value(&harness).contains(&cfps), "{}", value(&harness));
    // That is not of the validation split.
    harness.get_by_label("CFPS: Validation").click();
    harness.run();
    assert!(!value(&harness).contains('%'), "{}", value(&harness));
}

#[test]
fn a_class_is_highlighted_from_and_in_every_matrix() {
    use crate::app::testing::is_highlighted;
    let run = sample::run_of(MethodChoice::Wat, 10, |_, _, class| 0.5 + class as f64 / 10.0);
    let mut harness = harness(Stage::new(Fairness::default(), run), [1200.0, 2300.0], 1.0, true);
    harness.run();
    let names = ["CFPS by class and epoch", "Confusion matrix", "Weight of the loss by class and epoch"];
    for name in names {
        let rect = harness.get_by_label(name).rect();
        let row = |class: f32| {
            egui::Rect::from_min_size(
                pos2(rect.left(), rect.top() + class * rect.height() / 10.0),
                egui::vec2(rect.width(), rect.height() / 10.0),
            )
        };
        assert!(is_highlighted(&mut harness, row(3.0).expand(3.0), 3), "{name}");
        harness.hover_at(row(6.0).center());
        harness.run_steps(3);
        assert_eq!(crate::app::focus::pointed(&harness.ctx), Some(6), "{name}");
        harness.hover_at(pos2(1.0, 1.0));
        harness.run_steps(3);
        assert_eq!(crate::app::focus::pointed(&harness.ctx), None, "{name}");
    }
    // In the confusion matrix the column, too, of which only the frame is drawn.
    let rect = harness.get_by_label("Confusion matrix").rect();
    let width = rect.width() / 10.0;
    let cell = |row: f32, column: f32| {
        egui::Rect::from_center_size(
            pos2(rect.left() + (column + 0.5) * width, rect.top() + (row + 0.5) * rect.height() / 10.0),
            egui::vec2(width + 6.0, 4.0),
        )
    };
    assert!(is_highlighted(&mut harness, cell(8.0, 3.0), 3));
    assert!(!is_highlighted(&mut harness, cell(8.0, 6.0), 3));
    // And the name below it.
    harness.hover_at(pos2(rect.left() + 4.5 * width, rect.bottom() + 10.0));
    harness.run_steps(3);
    assert_eq!(crate::app::focus::pointed(&harness.ctx), Some(4));
}
