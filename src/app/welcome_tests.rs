//! The first seconds of a new user, and the runs of an earlier one.

use std::path::PathBuf;

use egui_kittest::kittest::{NodeT, Queryable};

use super::layout::PanelKind;
use super::runs::testing::write;
use super::testing::shoot;
use super::tests::{Window, WindowExt, open};
use super::view::Status;
use crate::config::MethodChoice;

const SENTENCE: &str = "Train image classifiers that withstand perturbations";

fn has(window: &Window<'_>, label: &str) -> bool {
    window.query_all_by_label_contains(label).next().is_some()
}

/// Waits for the living picture; returns what it says.
fn picture(window: &mut Window<'_>) -> String {
    for _ in 0..20_000 {
        window.step();
        if let Some(found) = window.query_all_by_label_contains("the network says").next() {
            return found.accesskit_node().label().unwrap_or_default();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("no picture");
}

#[test]
fn an_empty_window_has_a_sentence_a_living_picture_and_three_ways_to_begin() {
    let directory = tempfile::tempdir().unwrap();
    for (size, dark, name) in
        [([1600.0, 1000.0], true, "large"), ([1024.0, 700.0], false, "laptop"), ([480.0, 640.0], true, "narrow")]
    {
        let mut window = open(directory.path(), vec![], size, 1.0, dark);
        let first = picture(&mut window);
        assert!(has(&window, SENTENCE));
        assert_eq!(window.app().form.preset, super::welcome::FIRST_PRESET);
        assert!(!has(&window, "Nothing is training") && !has(&window, "Recent runs"));
        for label in ["Watch it train", "First lesson", "Open a run…"] {
            let rect = window.get_by_label(label).rect();
            assert!(rect.left() >= 0.0 && rect.right() <= size[0] && rect.bottom() <= size[1], "{label} {rect:?}");
        }
        assert!(first.contains("a perturbation of at most 0/255"), "{first}");
        // It lives: after some seconds the network is fooled.
        let mut seen = vec![first];
        for _ in 0..60 {
            window.step();
            let now = picture(&mut window);
            if seen.last() != Some(&now) {
                seen.push(now);
            }
        }
        assert!(seen.len() > 4, "{seen:?}");
        shoot(&mut window, &format!("welcome-{name}"));
    }
}

#[test]
fn watching_it_train_starts_the_first_preset() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    window.press("Watch it train");
    window.wait("a batch", |app| !app.view.batches.is_empty());
    assert_eq!(window.app().form.preset, super::welcome::FIRST_PRESET);
    assert!(window.app().layout.visible().contains(&PanelKind::Story));
    assert!(!has(&window, SENTENCE));
    window.press("Stop without saving");
    window.wait("the stop", |app| app.view.status == Status::Over);
    window.run_steps(3);
    assert!(!has(&window, SENTENCE), "what the run has shown stays");
}

#[test]
fn the_first_lesson_and_single_panels_take_the_place_of_the_welcome() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    window.press("First lesson");
    window.run_steps(4);
    assert_eq!(window.app().settings.lesson.as_deref(), Some(super::lessons::all()[0].id.as_str()));
    assert!(!has(&window, SENTENCE));
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    window.press("Set up an experiment");
    window.run_steps(4);
    assert!(!has(&window, SENTENCE) && window.query_by_label("Search settings").is_some());
    // Nor is there a desert beside the form.
    assert!(has(&window, "Nothing is training") && window.query_by_label("Watch it train").is_some());
    shoot(&mut window, "welcome-set-up");
}

#[test]
fn recent_runs_are_listed_and_opened() {
    let directory = tempfile::tempdir().unwrap();
    let run = |name: &str| -> PathBuf { directory.path().join("runs").join(name) };
    write(&run("done"), MethodChoice::FairTat, 3, Some(0.5));
    write(&run("stopped"), MethodChoice::At, 2, None);
    let mut window = open(directory.path(), vec![run("done")], [1280.0, 820.0], 1.0, true);
    let mut summary = None;
    for _ in 0..4000 {
        window.step();
        summary = window.query_all_by_label_contains("worst class").next().and_then(|found| found.value());
        if summary.is_some() && window.query_by_label("Resume").is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let summary = summary.unwrap();
    assert!(summary.contains(" on cifar10: robust ") && summary.contains("PGD-"), "{summary}");
    picture(&mut window);
    shoot(&mut window, "welcome-recent");
    window.press("Open a run…");
    window.run_steps(3);
    assert_eq!(window.app().settings.compare, [run("done")]);
    assert!(window.app().layout.visible().contains(&PanelKind::Compare));
    let directory_of_other = run("stopped");
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    for _ in 0..4000 {
        window.step();
        if window.query_by_label("stopped").is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    window.press("stopped");
    window.run_steps(3);
    assert!(window.app().settings.compare.contains(&directory_of_other));
}
