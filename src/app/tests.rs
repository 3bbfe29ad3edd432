//! The whole window, clicked through without a display.

use std::path::PathBuf;

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::dialogs::{Chosen, Dialogs, Purpose};
use super::testing::shoot;
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

#[test]
fn the_window_opens_and_finds_commands() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run();
    shoot(&mut window, "first");
    window.key_press_modifiers(egui::Modifiers::COMMAND, egui::Key::P);
    window.run();
    shoot(&mut window, "palette");
    assert!(window.query_by_label("Stop without saving").is_some());
}
