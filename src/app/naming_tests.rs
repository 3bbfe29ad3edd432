//! Whose numbers the window shows: the run is named in the title bar, the status line and exports, and a lesson tells the run
//! that was there before it.

use std::time::Instant;

use egui_kittest::kittest::Queryable;

use super::context::Action;
use super::layout::PanelKind;
use super::sample;
use super::testing::shoot;
use super::tests::{Window, WindowExt, open, show};
use super::view::Status;
use super::widgets::{export_file_name, export_title};
use crate::worker::{Ended, Phase, Update};

/// A window with the sample run, which is over.
fn after_a_run(directory: &std::path::Path) -> Window<'static> {
    let mut window = open(directory, vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    let app = window.state_mut().as_mut().unwrap();
    app.view = sample::run();
    app.view.apply(Update::Ended(Ended::Saved), Instant::now());
    app.view.apply(Update::Phase(Phase::Idle), Instant::now());
    window.run_steps(3);
    window
}

/// The last title that the window asked the system for.
fn title(window: &Window<'_>) -> Option<String> {
    let output = &window.output().viewport_output[&egui::ViewportId::ROOT];
    output.commands.iter().rev().find_map(|command| match command {
        egui::ViewportCommand::Title(title) => Some(title.clone()),
        _ => None,
    })
}

#[test]
fn the_run_is_named_in_the_title_the_status_line_and_exports() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    window.state_mut().as_mut().unwrap().view = sample::run();
    window.step();
    let run = window.app().view.title().unwrap();
    assert_eq!(title(&window), Some(format!("{run} – fairtat")));
    let view = &window.app().view;
    let name = view.directory_name().unwrap();
    let experiment = view.experiment.as_ref().unwrap();
    for part in [name.as_str(), experiment.data.dataset.as_str(), experiment.fairness.method.title()] {
        assert!(run.contains(part), "{run} does not name {part}");
    }
    assert_eq!(export_file_name(view, "decision-map"), format!("{name}-decision-map"));
    assert_eq!(export_title(view, "FAIR-TAT on digits"), format!("FAIR-TAT on digits, {name}"));
    window.step();
    assert_eq!(title(&window), None, "it is sent once");
    assert!(window.query_by_label(&run).is_some(), "the status line names it");
    shoot(&mut window, "named");
    window.state_mut().as_mut().unwrap().view = Default::default();
    window.step();
    assert_eq!(title(&window).as_deref(), Some("fairtat"));
}

#[test]
fn a_lesson_names_the_run_before_it_and_clears_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = after_a_run(directory.path());
    let (run, logged) = (window.app().view.title().unwrap(), window.app().view.log.len());
    let lesson = &super::lessons::all()[1];
    window.state_mut().as_mut().unwrap().queue(Action::Lesson(lesson.id.clone()));
    window.run_steps(6);
    let told = format!("The panels show a run from before this lesson: {run}.");
    assert!(window.query_by_label(&told).is_some());
    shoot(&mut window, "lesson-over-a-run");
    window.press("Clear it");
    window.run_steps(3);
    assert!(window.query_by_label(&told).is_none());
    let view = &window.app().view;
    assert!(view.info.is_none() && view.epochs.is_empty() && view.status == Status::Empty);
    assert!(view.log.len() >= logged, "the log stays");
    show(&mut window, PanelKind::Fairness);
    assert!(window.query_all_by_label_contains("Bar of").next().is_none(), "no panel shows its numbers");

    // A run of the lesson itself is not told.
    window.press("Leave lesson");
    let mut window = after_a_run(directory.path());
    window.state_mut().as_mut().unwrap().queue(Action::Lesson(lesson.id.clone()));
    window.run_steps(4);
    let again = window.app().view.info.clone().unwrap();
    window.state_mut().as_mut().unwrap().view.apply(Update::Opened(again), Instant::now());
    window.run_steps(3);
    assert!(window.query_by_label_contains("from before this lesson").is_none());
}

#[test]
fn a_run_under_way_is_not_cleared() {
    let mut view = sample::run();
    assert!(view.status.is_live());
    view.clear();
    assert!(view.info.is_some());
}
