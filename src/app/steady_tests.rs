//! What must not move, and what must fit a small window.

use egui_kittest::kittest::Queryable;

use super::layout::PanelKind;
use super::sample;
use super::testing::shoot;
use super::tests::{Window, WindowExt, open};
use super::view::Status;

fn with_a_run(directory: &std::path::Path, size: [f32; 2]) -> Window<'_> {
    let mut window = open(directory, Vec::new(), size, 1.0, true);
    window.run_steps(4);
    window.state_mut().as_mut().unwrap().view = sample::run();
    window.run_steps(4);
    window
}

#[test]
fn controls_stay_where_they_are_whatever_the_run_does() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = with_a_run(directory.path(), [1300.0, 800.0]);
    let place = |window: &Window<'_>| window.get_by_label("Stop without saving").rect();
    let before = place(&window);
    for status in [Status::Paused, Status::Over, Status::Running] {
        window.state_mut().as_mut().unwrap().view.status = status;
        window.run_steps(2);
        assert_eq!(place(&window), before, "{status:?}");
    }
    for choice in super::command::SpeedChoice::ALL {
        window.state_mut().as_mut().unwrap().speed = choice.speed();
        window.run_steps(2);
        assert_eq!(place(&window), before, "{choice:?}");
    }
}

#[test]
fn the_slider_over_epochs_has_its_place_before_there_are_two() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = with_a_run(directory.path(), [1024.0, 700.0]);
    let place = |window: &Window<'_>| window.get_by_label("Live").rect();
    let before = place(&window);
    for (epochs, shown) in [(2, "2 of 2"), (1, "1 of 1"), (0, "–")] {
        window.state_mut().as_mut().unwrap().view.epochs.truncate(epochs);
        window.run_steps(3);
        assert_eq!(place(&window), before, "{epochs} epochs");
        assert!(window.query_all_by_label(shown).count() > 0, "{shown}");
    }
}

/// 1024 × 700 at a zoom of 1.95.
#[test]
fn a_small_window_clips_and_overprints_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let size = [525.0, 359.0];
    let mut window = with_a_run(directory.path(), size);
    for kind in PanelKind::ALL {
        window.press_panel(kind);
        // In the status line the epoch, and the run by its name.
        let title = window.app().view.title().unwrap();
        let [epoch, run] = ["epoch 19/30", title.as_str()].map(|label| window.get_by_label(label).rect());
        assert!(epoch.right() < run.left() && run.width() > 60.0 && run.right() <= size[0], "{kind:?}: {epoch} {run}");
        shoot(&mut window, &format!("small-{kind:?}"));
    }
}

trait Show {
    fn press_panel(&mut self, kind: PanelKind);
}

impl Show for Window<'_> {
    fn press_panel(&mut self, kind: PanelKind) {
        self.state_mut().as_mut().unwrap().queue(super::context::Action::Show(kind));
        self.run_steps(6);
        assert!(self.app().view.info.is_some());
    }
}
