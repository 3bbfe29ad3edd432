//! The palette in the whole window: what is chosen is shown.

use egui::Key;
use egui_kittest::kittest::Queryable;

use super::layout::PanelKind;
use super::testing::shoot;
use super::tests::{Window, WindowExt, open};

/// Types a query and presses Enter.
fn choose(window: &mut Window<'_>, query: &str) {
    window.key_press_modifiers(egui::Modifiers::COMMAND, Key::P);
    window.run_steps(3);
    window.get_by_label("Command").type_text(query);
    window.run_steps(3);
    shoot(window, &format!("palette-{}", query.replace(' ', "-")));
    window.key_press(Key::Enter);
    window.run_steps(5);
    assert!(window.query_by_label("Command").is_none(), "the palette closes");
}

#[test]
fn settings_terms_lessons_and_panels_are_found_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let mut window = open(directory.path(), vec![], [1280.0, 820.0], 1.0, true);
    window.run_steps(3);
    choose(&mut window, "failure watch");
    assert!(window.app().layout.visible().contains(&PanelKind::Watch));
    choose(&mut window, "weight-decay");
    assert!(window.app().layout.visible().contains(&PanelKind::Experiment));
    let search = window.get_by_label("Search settings").value();
    assert_eq!(search.as_deref(), Some("Weight decay"));
    choose(&mut window, "robust accuracy");
    assert!(window.app().layout.visible().contains(&PanelKind::Learn));
    assert!(window.query_by_label("Search the glossary").is_some());
    let lesson = &super::lessons::all()[0];
    choose(&mut window, &lesson.title);
    assert_eq!(window.app().settings.lesson.as_deref(), Some(lesson.id.as_str()));
}
