//! The whole window, operated without a display.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::closing::{Closing, Ending};
use super::command::Command;
use super::context::Action;
use super::dialogs::{Chosen, Dialogs, Purpose};
use super::evaluation::EvaluationStatus;
use super::layout::PanelKind;
use super::testing::shoot;
use super::view::Status;
use super::window::{App, Surroundings};
use crate::train::RunDir;

/// Answers every dialog with the next of these paths.
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

pub(super) type Window<'a> = Harness<'a, Option<App>>;

pub(super) fn open<'a>(
    directory: &std::path::Path,
    paths: Vec<PathBuf>,
    size: [f32; 2],
    scale: f32,
    dark: bool,
) -> Window<'a> {
    open_with(directory, paths, (size, scale, dark), Ending::default())
}

fn open_with<'a>(
    directory: &std::path::Path,
    paths: Vec<PathBuf>,
    (size, scale, dark): ([f32; 2], f32, bool),
    ending: Ending,
) -> Window<'a> {
    open_asking(directory, Box::new(Scripted { paths, ..Scripted::default() }), (size, scale, dark), ending)
}

/// A window with these file dialogs.
pub(super) fn open_asking<'a>(
    directory: &std::path::Path,
    dialogs: Box<dyn Dialogs>,
    (size, scale, dark): ([f32; 2], f32, bool),
    ending: Ending,
) -> Window<'a> {
    let (runs, state) = (directory.join("runs"), Some(directory.join("window.json")));
    let mut surroundings = Some(Surroundings { runs, state, dialogs, ending });
    Harness::builder()
        .with_size(size)
        .with_pixels_per_point(scale)
        .with_theme(if dark { egui::Theme::Dark } else { egui::Theme::Light })
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

/// Training on digits takes seconds; a busy machine may need longer.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) trait WindowExt {
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

/// A run small enough for a test.
pub(super) fn make_small(window: &mut Window<'_>) {
    let form = &mut window.state_mut().as_mut().unwrap().form;
    form.load_preset("digits-60s").unwrap();
    let experiment = &mut form.experiment;
    experiment.data.limit = Some(500);
    experiment.optimizer.epochs = 2;
    experiment.optimizer.batch_size = 16;
    experiment.evaluation.test_steps = 2;
}

pub(super) fn show(window: &mut Window<'_>, kind: PanelKind) {
    window.state_mut().as_mut().unwrap().queue(Action::Show(kind));
    window.run_steps(4);
}

#[test]
fn a_run_is_started_steered_stopped_resumed_and_looked_into() {
    let directory = tempfile::tempdir().unwrap();
    let (first, figure) = (directory.path().join("runs/digits-60s"), directory.path().join("map.png"));
    let mut window = open(directory.path(), vec![first.clone(), figure.clone()], [1500.0, 1700.0], 1.0, true);
    window.run_steps(3);
    make_small(&mut window);
    window.press("Start");
    window.wait("first batches", |app| app.view.batches.len() > 2);
    window.press("Pause");
    window.wait("the pause", |app| app.view.status == Status::Paused);

    show(&mut window, PanelKind::Fairness);
    let end = window.get_by_label_contains("Bar of 3:").rect().center();
    window.hover_at(end);
    window.run_steps(2);
    window.drag_at(end);
    window.run_steps(2);
    window.hover_at(end - egui::vec2(15.0, 0.0));
    window.run_steps(2);
    window.hover_at(end - egui::vec2(30.0, 0.0));
    window.run_steps(2);
    shoot(&mut window, "dragging");
    window.drop_at(end - egui::vec2(30.0, 0.0));
    window.wait("the radius", |app| app.view.holds[3].epsilon.is_some());
    let before = window.app().view.now().cloned().unwrap();

    window.press("One batch");
    window.wait("one batch", |app| app.view.now() != Some(&before) && app.view.status == Status::Paused);
    let after = window.app().view.now().cloned().unwrap();
    assert_eq!(after.done, before.done + 1);
    // Every position of the drag was sent; the batch came after the last one.
    let held = window.app().view.holds[3].epsilon.unwrap();
    assert!(held < before.epsilon[3], "{held} {before:?}");
    assert!((after.epsilon[3] - held).abs() < 1e-9, "{held} {after:?}");
    assert_eq!(after.epsilon[4], before.epsilon[4]);
    shoot(&mut window, "steered");

    window.press("One attack step");
    window.wait("an attack step", |app| app.view.examples.as_ref().is_some_and(|e| e.step.0 < e.step.1));
    window.press("Stop and save");
    window.wait("the stop", |app| app.view.status == Status::Over);
    assert!(first.join("checkpoints/resume.safetensors").exists());

    window.state_mut().as_mut().unwrap().queue(Action::Command(Command::Resume));
    window.wait("the run to be done", |app| app.view.report.is_some());
    assert_eq!(window.app().view.epochs.len(), 2);
    assert!(first.join("evaluation.json").exists());

    show(&mut window, PanelKind::Inspector);
    window.press("Next image");
    let name = "test image 1";
    window.wait("the attack", |app| app.view.inspection.as_ref().is_some_and(|i| i.job.subject.name == name));
    window.wait("the map", |app| app.view.map.as_ref().is_some_and(|map| map.job.subject.name == name));
    let inspection = window.app().view.inspection.clone().unwrap();
    assert_eq!(inspection.steps.len(), inspection.job.attack.steps as usize + 2);
    window.run_steps(4);
    window.get_all_by_label_contains("Export ").last().unwrap().scroll_to_me();
    window.run_steps(10);
    window.get_all_by_label_contains("Export ").last().unwrap().click();
    window.run_steps(3);
    shoot(&mut window, "exporting");
    window.press("Save as PNG…");
    window.wait("the figure", |_| figure.exists());
    assert!(image::open(&figure).unwrap().width() > 400);
    shoot(&mut window, "inspected");

    let times = &window.app().frame_times;
    let ms = |share| 1e3 * times.quantile(share).unwrap().as_secs_f64();
    println!("{} frames: p50 {:.1} ms, p99 {:.1} ms", times.len(), ms(0.5), ms(0.99));
    // The frame is computed while a run uses both cores; no frame may wait for the run.
    assert!(ms(0.5) < 100.0, "half of the frames took over {:.0} ms", ms(0.5));
}

#[test]
fn a_checkpoint_is_evaluated_beside_its_run() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1500.0, 1300.0], 1.0, true);
    window.run_steps(3);
    make_small(&mut window);
    let experiment = &mut window.state_mut().as_mut().unwrap().form.experiment;
    experiment.run.engine = crate::config::EngineChoice::Candle;
    experiment.data.limit = Some(200);
    experiment.data.test_limit = Some(20);
    experiment.data.validation_per_class = Some(4);
    experiment.model.width = Some(4);
    experiment.attack.steps = 2;
    experiment.evaluation.eval_steps = 2;
    experiment.optimizer.epochs = 500;
    window.press("Start");
    window.wait("an epoch", |app| !app.view.epochs.is_empty());
    // Both would go on at once, but slowly without optimisation.
    window.press("Pause");
    window.wait("the pause", |app| app.view.status == Status::Paused);
    show(&mut window, PanelKind::Evaluate);
    window.press("Best of this run");
    window.press("FGSM");
    window.press("PGD");
    let is_known = |app: &App| {
        let prospect = app.evaluation.prospect.as_ref();
        let fgsm = ["fgsm".parse().unwrap()];
        prospect.is_some_and(|prospect| prospect.job.wanted == fgsm && prospect.checkpoints[0].found.is_ok())
    };
    window.wait("the checkpoint", is_known);
    window.press("Start evaluation");
    window.wait("the result", |app| app.evaluation.status == EvaluationStatus::Done);
    assert_eq!(window.app().view.status, Status::Paused, "the run is as it was");
    shoot(&mut window, "evaluated");
    let run = directory.path().join("runs/digits-60s");
    assert!(run.join("evaluation/report.md").exists());
    assert!(window.app().evaluation.checkpoints[0].finished.is_some());
    assert!(window.query_by_label("Accuracy by class").is_some());
    let told = |app: &App| app.view.log.iter().any(|line| line.text.contains("withstand all attacks"));
    assert!(told(window.app()));
    window.press("Stop without saving");
    window.wait("the stop", |app| app.view.status == Status::Over);
}

#[test]
fn closing_asks_saves_and_leaves_a_run_that_can_be_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1000.0, 700.0], 1.0, false);
    window.run_steps(3);
    make_small(&mut window);
    window.press("Start");
    window.wait("a batch", |app| !app.view.batches.is_empty());
    let close = |window: &mut Window<'_>| {
        let viewport = window.input_mut().viewports.entry(egui::ViewportId::ROOT).or_default();
        viewport.events.push(egui::ViewportEvent::Close);
        window.run_steps(2);
    };
    close(&mut window);
    assert!(window.query_by_label("A run is under way").is_some());
    window.press("Keep running");
    assert_eq!(window.app().closing, Closing::No);
    close(&mut window);
    shoot(&mut window, "closing");
    window.press("Save and close");
    window.wait("the window to close", |app| app.closing == Closing::Yes);
    let run = directory.path().join("runs/digits-60s");
    assert!(run.join("checkpoints/resume.safetensors").exists());
    window.state_mut().as_mut().unwrap().finish();

    // The form is restored at the next start.
    let again = open(directory.path(), vec![], [1000.0, 700.0], 1.0, false);
    assert_eq!(again.app().form.experiment.data.limit, Some(500));
    assert_eq!(again.app().settings.last_run, Some(run));
}

#[test]
fn a_window_that_is_ended_from_outside_saves_its_run_without_drawing_a_frame() {
    for paused in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let ending = Ending::default();
        let mut window = open_with(directory.path(), vec![], ([1000.0, 700.0], 1.0, false), ending.clone());
        window.run_steps(3);
        make_small(&mut window);
        window.state_mut().as_mut().unwrap().form.experiment.optimizer.epochs = 500;
        window.press("Start");
        window.wait("a batch", |app| !app.view.batches.is_empty());
        if paused {
            window.press("Pause");
            window.wait("the pause", |app| app.view.status == Status::Paused);
        }
        ending.save_and_stop();
        let run = directory.path().join("runs/digits-60s");
        assert!(run.join("checkpoints/resume.safetensors").exists());
        assert!(RunDir::claim(&run).is_ok(), "the run still has its directory");
        // If there is a frame, it says so; nothing is asked, and no request is answered.
        window.run_steps(2);
        assert!(window.query_by_label("Finishing the batch that is under way, then closing…").is_some());
        assert_eq!(window.app().closing, Closing::Stopping);
        window.state_mut().as_mut().unwrap().finish();
    }
}

#[test]
fn what_fails_becomes_a_message_and_the_window_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (runs, broken) = (directory.path().join("runs"), directory.path().join("cat.png"));
    std::fs::write(&runs, "a file where runs would go").unwrap();
    std::fs::write(&broken, "no picture").unwrap();
    let mut window = open(directory.path(), vec![], [1000.0, 700.0], 1.0, true);
    window.run_steps(3);
    make_small(&mut window);
    window.press("Start");
    window.wait("the failure", |app| app.view.failure.is_some() && app.view.status == Status::Over);
    shoot(&mut window, "failed");
    assert!(window.query_all_by_label_contains("runs").next().is_some());
    std::fs::remove_file(&runs).unwrap();
    window.press("Start");
    window.wait("a batch", |app| !app.view.batches.is_empty());
    assert_eq!(window.app().view.failure, None);
    let before = window.app().view.log.len();
    window.state_mut().as_mut().unwrap().open_any(&broken);
    window.wait("the message", |app| app.view.log.len() > before);
    let text = window.app().view.log.back().unwrap().text.clone();
    assert!(text.contains("cat.png"), "{text}");
    window.press("Stop without saving");
    window.wait("the stop", |app| app.view.status == Status::Over);
    assert!(!directory.path().join("runs/digits-60s/checkpoints/resume.safetensors").exists());
}

#[test]
fn a_lesson_sets_the_window_up_and_gives_it_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, false);
    window.run_steps(3);
    let before = (window.app().form.experiment.clone(), window.app().layout.visible());
    show(&mut window, PanelKind::Learn);
    let lesson = &super::lessons::all()[1];
    window.state_mut().as_mut().unwrap().queue(Action::Lesson(lesson.id.clone()));
    window.run_steps(6);
    shoot(&mut window, "lesson");
    let app = window.app();
    assert_eq!(app.form.experiment, lesson.experiment().unwrap());
    let visible = app.layout.visible();
    assert!(visible.contains(&PanelKind::Learn) && visible.contains(&lesson.focus), "{visible:?}");
    assert!(visible.iter().all(|kind| lesson.panels.contains(kind)), "{visible:?}");
    window.press("Leave lesson");
    window.run_steps(3);
    assert_eq!(window.app().form.experiment, before.0);
    assert!(window.app().settings.hidden.is_empty());
}
