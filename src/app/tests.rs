//! The whole window, clicked through without a display.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::command::Command;
use super::context::Action;
use super::dialogs::{Chosen, Dialogs, Purpose};
use super::testing::shoot;
use super::view::Status;
use super::window::{App, Surroundings};

/// Answers every question with the next of these paths.
#[derive(Default)]
struct Scripted {
    paths: Vec<PathBuf>,
    answers: Vec<Chosen<Purpose>>,
}

impl Dialogs for Scripted {
    fn ask(&mut self, purpose: Purpose) {
        assert!(!self.paths.is_empty(), "no answer was scripted for {purpose:?}");
        self.answers.push(Chosen::Path(purpose, self.paths.remove(0)));
    }

    fn poll(&mut self) -> Option<Chosen<Purpose>> {
        self.answers.pop()
    }
}

type Window<'a> = Harness<'a, Option<App>>;

fn open<'a>(directory: &std::path::Path, paths: Vec<PathBuf>, size: [f32; 2], scale: f32, dark: bool) -> Window<'a> {
    let (runs, state) = (directory.join("runs"), Some(directory.join("window.json")));
    let mut surroundings =
        Some(Surroundings { runs, state, dialogs: Box::new(Scripted { paths, ..Scripted::default() }) });
    Harness::builder()
        .with_size(size)
        .with_pixels_per_point(scale)
        .with_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light })
        .allow_missing_glyphs()
        .wgpu()
        .build_ui_state(
            move |ui, app: &mut Option<App>| match app {
                Some(app) => app.show(ui),
                None => {
                    *app = surroundings.take().map(|surroundings| App::new(ui.ctx(), surroundings));
                    ui.ctx().request_repaint();
                }
            },
            None,
        )
}

impl WindowExt for Window<'_> {
    fn app(&self) -> &App {
        self.state().as_ref().unwrap()
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&App) -> bool) {
        let began = Instant::now();
        while !done(self.app()) {
            let app = self.app();
            let told: Vec<&str> = app.view.log.iter().map(|line| line.text.as_str()).collect();
            assert!(began.elapsed() < PATIENCE, "{what}: {:?}, {:?}, {told:#?}", app.view.status, app.view.phase);
            std::thread::sleep(Duration::from_millis(5));
            self.step();
        }
        self.step();
    }

    fn press(&mut self, label: &str) {
        self.get_by_label(label).click();
        self.step();
        self.step();
    }
}

/// Training on digits takes seconds; a machine that is busy otherwise may take a while.
const PATIENCE: Duration = Duration::from_secs(120);

trait WindowExt {
    fn app(&self) -> &App;
    fn wait(&mut self, what: &str, done: impl FnMut(&App) -> bool);
    fn press(&mut self, label: &str);
}

#[test]
fn the_window_opens_and_finds_commands() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(6);
    shoot(&mut window, "first");
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::P);
    window.run_steps(3);
    shoot(&mut window, "palette");
    assert!(window.query_by_label("Stop without saving").is_some());
}

#[test]
fn a_run_is_started_steered_stopped_and_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let runs = directory.path().join("runs");
    let first = runs.join("digits-60s");
    let mut window = open(directory.path(), vec![first.clone()], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    {
        let experiment = &mut window.state_mut().as_mut().unwrap().form.experiment;
        experiment.data.limit = Some(400);
        experiment.optimizer.epochs = 3;
        experiment.optimizer.batch_size = 32;
        experiment.evaluation.test_steps = 2;
    }
    window.press("Start");
    window.wait("first batches", |app| app.view.batches.len() > 2);
    shoot(&mut window, "running");
    window.press("Pause");
    window.wait("the pause", |app| app.view.status == Status::Paused);
    let before = window.app().view.now().cloned();
    window.press("One batch");
    window.wait("one batch", |app| app.view.now() != before.as_ref() && app.view.status == Status::Paused);
    let after = window.app().view.now().cloned();
    assert_eq!(after.map(|now| now.done), before.map(|now| now.done + 1));

    window.press("One attack step");
    window.wait("an attack step", |app| app.view.examples.as_ref().is_some_and(|e| e.step.0 < e.step.1));
    shoot(&mut window, "step");
    window.press("Stop and save");
    window.wait("the stop", |app| app.view.status == Status::Over);
    assert!(first.join("checkpoints/resume.safetensors").exists());

    let app = window.state_mut().as_mut().unwrap();
    app.queue(Action::Command(Command::Resume));
    window.wait("the run to be done", |app| app.view.report.is_some());
    shoot(&mut window, "done");
    assert_eq!(window.app().view.epochs.len(), 3);
    assert!(first.join("evaluation.json").exists());
}
