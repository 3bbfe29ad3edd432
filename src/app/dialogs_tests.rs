//! Where the system has no file dialog, or one that never answers; and the button that resumes a stopped run.

use std::time::{Duration, Instant};

use egui::Key;
use egui_kittest::kittest::Queryable;

use super::closing::Ending;
use super::command::Command;
use super::context::{Action, OpenFor};
use super::dialogs::{Chosen, Dialogs, PATIENCE, Purpose};
use super::testing::shoot;
use super::tests::{Window, WindowExt, make_small, open_asking};
use super::view::Status;

/// A system without dialogs, or with one that hangs.
struct Without {
    hangs: bool,
    answers: Vec<Chosen<Purpose>>,
    open: Option<(Purpose, Instant)>,
}

impl Dialogs for Without {
    fn ask(&mut self, purpose: Purpose) {
        if self.hangs {
            self.open = Some((purpose, Instant::now()));
        } else {
            self.answers.push(Chosen::Unavailable(purpose));
        }
    }

    fn poll(&mut self) -> Option<Chosen<Purpose>> {
        self.answers.pop()
    }

    fn waiting(&self) -> Option<(&Purpose, Instant)> {
        self.open.as_ref().map(|(purpose, since)| (purpose, *since))
    }

    fn give_up(&mut self) {
        self.open = None;
    }
}

fn window(directory: &std::path::Path, hangs: bool) -> Window<'static> {
    let dialogs = Box::new(Without { hangs, answers: Vec::new(), open: None });
    let mut window = open_asking(directory, dialogs, ([1280.0, 820.0], 1.0, true), Ending::default());
    window.run_steps(3);
    window
}

fn command(window: &mut Window<'_>, command: Command) {
    window.state_mut().as_mut().unwrap().queue(Action::Command(command));
    window.run_steps(4);
}

#[test]
fn a_typed_path_has_the_focus_is_prefilled_and_enter_accepts_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = window(directory.path(), false);
    command(&mut window, Command::SaveExperiment);
    let title = Purpose::Open(OpenFor::SaveExperiment).title();
    shoot(&mut window, "typed-path");
    assert!(window.query_all_by_label_contains("drop the file").next().is_none());
    assert!(window.query_by_label_contains("Type the path of the file to write.").is_some());
    let field = window.get_by_role_and_label(egui::accesskit::Role::TextInput, title);
    assert!(field.is_focused());
    let prefilled = field.value().unwrap();
    assert!(std::path::Path::new(&prefilled).is_absolute() && prefilled.ends_with("experiment.toml"), "{prefilled}");
    // What is typed is added at the end, and a path from elsewhere may replace all of it.
    window.key_press_modifiers(egui::Modifiers::COMMAND, Key::A);
    window.step();
    let file = directory.path().join("own.toml");
    field_of(&window, title).type_text(file.to_str().unwrap());
    window.run_steps(2);
    window.key_press(Key::Enter);
    window.wait("the file", |_| file.exists());
    assert!(window.query_by_label(title).is_none());

    // An empty path is not accepted, and the field keeps the focus.
    command(&mut window, Command::OpenExperiment);
    let title = Purpose::Open(OpenFor::Experiment).title();
    assert!(window.query_by_label_contains("or drop the file onto the window").is_some());
    window.key_press(Key::Enter);
    window.run_steps(3);
    assert!(field_of(&window, title).is_focused());
    field_of(&window, title).type_text(file.to_str().unwrap());
    window.run_steps(2);
    window.key_press(Key::Enter);
    let told = |line: &super::view::LogLine| line.text.starts_with("Read ") && line.text.contains("own.toml");
    window.wait("the experiment", |app| app.view.log.iter().any(told));
    // Directories are told from files.
    command(&mut window, Command::Resume);
    assert!(window.query_by_label_contains("Type the path of the directory.").is_some());
    window.key_press(Key::Escape);
    window.run_steps(3);
    assert!(window.query_by_label(Purpose::Open(OpenFor::Resume).title()).is_none());
}

fn field_of<'a>(window: &'a Window<'_>, title: &'a str) -> egui_kittest::Node<'a> {
    window.get_by_role_and_label(egui::accesskit::Role::TextInput, title)
}

#[test]
fn a_dialog_that_never_answers_is_replaced_by_typing_after_two_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = window(directory.path(), true);
    command(&mut window, Command::OpenExperiment);
    assert!(window.query_by_label("Type the path").is_none());
    // The window is alive meanwhile: the palette opens and closes.
    window.key_press_modifiers(egui::Modifiers::COMMAND, Key::P);
    window.run_steps(3);
    assert!(window.query_by_label("Command").is_some());
    window.key_press(Key::Escape);
    std::thread::sleep(PATIENCE + Duration::from_millis(50));
    window.run_steps(3);
    shoot(&mut window, "waiting-for-a-dialog");
    window.press("Type the path");
    window.run_steps(3);
    assert!(field_of(&window, Purpose::Open(OpenFor::Experiment).title()).is_focused());
    assert!(window.query_by_label("Type the path").is_none());
}

#[test]
fn a_stopped_run_has_a_button_that_resumes_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = window(directory.path(), false);
    make_small(&mut window);
    window.state_mut().as_mut().unwrap().form.experiment.optimizer.epochs = 500;
    assert!(window.query_by_label("Resume").is_none());
    window.press("Start");
    window.wait("a batch", |app| !app.view.batches.is_empty());
    assert!(window.query_by_label("Resume").is_none());
    window.press("Stop and save");
    window.wait("the stop", |app| app.view.status == Status::Over);
    window.run_steps(2);
    shoot(&mut window, "stopped");
    let run = window.app().view.directory().cloned().unwrap();
    let done = window.app().view.position().unwrap().0;
    window.press("Resume");
    window.wait("a batch of the resumed run", |app| app.view.status == Status::Running && app.view.now().is_some());
    assert_eq!(window.app().view.directory(), Some(&run));
    assert!(window.app().view.position().unwrap().0 >= done);
    assert!(window.query_by_label("Resume").is_none());
    window.press("Stop without saving");
    window.wait("the stop", |app| app.view.status == Status::Over);
    assert_eq!(std::fs::read_dir(directory.path().join("runs")).unwrap().count(), 1);
}
