use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use egui::Key;
use egui_kittest::Harness;
use egui_kittest::kittest::{NodeT, Queryable};
use serde_json::json;

use super::Experiment;
use super::download::{Downloads, Offered};
use super::machine::{Gpus, Images, Machine};
use crate::app::command::Command;
use crate::app::context::{Action, OpenFor};
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::app::view::RunView;
use crate::data::DataError;
use crate::data::download::{Phase, Progress};
use crate::units::Epsilon;
use crate::worker::Request;

type Window<'a> = Harness<'a, Stage<Experiment>>;

fn machine(missing: bool) -> Machine {
    let gpus = Gpus { adapters: Vec::new(), engine: "WGSL on Example GPU (discrete)".into() };
    let images = if missing {
        let command = Some("fairtat data fetch cifar10".to_owned());
        let download =
            Some(Offered { name: "cifar10".into(), size: "171 MB".into(), licence: "none, see example.org".into() });
        Images { text: "not on this disk, must be fetched".into(), command, download, missing, shape: None }
    } else {
        let text = "built in: 1,797 handwritten digits, 8×8 grey".into();
        Images { text, command: None, download: None, missing, shape: None }
    };
    Machine::fixed(gpus, images)
}

fn window<'a>(run: RunView, size: [f32; 2]) -> Window<'a> {
    let mut harness = harness(Stage::new(Experiment::on(machine(false)), run), size, 1.0, true);
    harness.run();
    harness
}

/// High enough to show all basic fields.
const TALL: [f32; 2] = [360.0, 1000.0];

fn click(window: &mut Window<'_>, label: &str) {
    window.get_by_label(label).click();
    window.run();
}

fn is_disabled(window: &Window<'_>, label: &str) -> bool {
    window.get_by_label(label).accesskit_node().is_disabled()
}

#[test]
fn a_change_is_marked_until_it_is_taken_back() {
    let mut window = window(RunView::default(), TALL);
    assert!(is_disabled(&window, "Undo"));
    click(&mut window, "Targeted");
    assert!(!window.state().form.experiment.fairness.targeted);
    assert!(window.query_by_label("Reset Targeted").is_some() && window.query_by_label("Reset 1 change").is_some());
    // Without targets, the settings that choose them have no effect.
    assert!(is_disabled(&window, "Temperature") && !is_disabled(&window, "λ of accuracy"));
    click(&mut window, "Undo");
    assert!(matches!(window.state().actions[..], [Action::Command(Command::Undo)]));
    window.state_mut().form.undo();
    window.run();
    assert!(window.query_by_label("Reset Targeted").is_none());
    click(&mut window, "Targeted");
    click(&mut window, "Reset Targeted");
    assert!(window.state().form.experiment.fairness.targeted);
}

#[test]
fn a_drag_is_one_step() {
    let mut window = window(RunView::default(), TALL);
    let start = window.get_by_label("Learning rate").rect().center();
    window.drag_at(start);
    window.run();
    for x in [10.0, 20.0, 40.0] {
        window.hover_at(start + egui::vec2(x, 0.0));
        window.run();
    }
    window.drop_at(start + egui::vec2(40.0, 0.0));
    window.run();
    assert!(window.state().form.experiment.optimizer.lr > 0.11);
    let form = &mut window.state_mut().form;
    form.undo();
    assert!(form.experiment.optimizer.lr == 0.1 && !form.can_undo());
}

#[test]
fn numbers_can_be_typed_beyond_what_makes_sense() {
    let mut window = window(RunView::default(), TALL);
    for (label, text) in [("Epsilon", "64/255"), ("Epochs", "500"), ("Learning rate", "-1")] {
        click(&mut window, label);
        window.get_by_label(label).type_text(text);
        window.run();
        window.key_press(Key::Enter);
        window.run();
    }
    let experiment = &window.state().form.experiment;
    assert_eq!(experiment.attack.epsilon, Epsilon::levels(64.0));
    assert_eq!(experiment.optimizer.epochs, 500);
    // A negative number becomes 0, which is reported as an error.
    assert_eq!(experiment.optimizer.lr, 0.0);
    assert!(window.query_by_label_contains("Expected a number above 0").is_some());
    window.state_mut().form.undo();
    window.state_mut().form.undo();
    assert_eq!(window.state().form.experiment.optimizer.epochs, 80);
}

#[test]
fn presets_are_chosen_with_their_purpose() {
    let mut window = window(RunView::default(), TALL);
    assert!(window.query_by_label_contains("in under a minute").is_some());
    click(&mut window, "Preset");
    click(&mut window, "shapes-unfair");
    assert_eq!(window.state().form.experiment.data.dataset, "shapes");
    assert!(window.query_by_label_contains("see unfairness appear").is_some());
    assert!(window.query_by_label_contains("Reset").is_none());
}

#[test]
fn another_data_set_shows_what_would_change_and_nothing_changes_before_it_is_taken() {
    let mut window = window(RunView::default(), [420.0, 1000.0]);
    window.state_mut().form.set("optimizer.lr", json!(0.05)).unwrap();
    window.run();
    assert!(window.query_by_label_contains("usually takes other settings").is_none());
    click(&mut window, "Data set");
    click(&mut window, "cifar10");
    assert!(window.query_by_label("cifar10 usually takes other settings").is_some());
    assert!(window.query_by_label("32×32 colour photographs; these settings were made for digits.").is_some());
    for text in ["24/255", "8/255", "yours"] {
        assert!(window.query_all_by_label(text).count() > 0, "{text}");
    }
    assert_eq!(window.state().form.experiment.attack.epsilon, Epsilon::levels(24.0));
    shoot(&mut window, "offer");
    let settings = window.state().form.offer(None).unwrap().settings.len();
    // The user typed the learning rate, so it is not ticked; epsilon has just been unticked.
    window.get_all_by_label("Epsilon").next().unwrap().click();
    window.run();
    click(&mut window, &format!("Take {} settings", settings - 2));
    let experiment = &window.state().form.experiment;
    assert_eq!((experiment.attack.epsilon, experiment.optimizer.lr), (Epsilon::levels(24.0), 0.05));
    assert_eq!((experiment.data.flip, experiment.model.arch.name()), (true, "small-cnn"));
    assert!(window.query_by_label_contains("usually takes other settings").is_none());
    assert!(window.query_by_label("Reset 2 changes").is_some());
    shoot(&mut window, "offer-taken");
    click(&mut window, "Reset 2 changes");
    assert_eq!(window.state().form.experiment, crate::config::Experiment::preset("cifar10-small").unwrap());

    click(&mut window, "Data set");
    click(&mut window, "mnist");
    let before = window.state().form.experiment.clone();
    click(&mut window, "Keep mine");
    assert_eq!(window.state().form.experiment, before);
    assert!(window.query_by_label_contains("usually takes other settings").is_none());
    // The defaults remain available.
    click(&mut window, "Preset");
    click(&mut window, "defaults of mnist");
    assert_eq!(window.state().form.experiment.attack.epsilon, Epsilon::new(0.3).unwrap());
}

#[test]
fn the_offer_keeps_within_the_panel() {
    for (size, dark) in [([360.0, 700.0], true), ([1000.0, 700.0], false)] {
        let mut stage = Stage::new(Experiment::on(machine(false)), RunView::default());
        stage.form.set("data.dataset", json!("mnist")).unwrap();
        let mut window = harness(stage, size, 1.0, dark);
        window.run();
        let (take, keep) = (window.get_by_label_contains("Take ").rect(), window.get_by_label("Keep mine").rect());
        assert!(take.right() < keep.left() && keep.right() < size[0], "{take:?} {keep:?}");
        // The widest value must not reach the margins of card and panel.
        let widest = window.get_by_label("19.125/255 (0.075)").rect();
        assert!(widest.right() < size[0] - 28.0, "{widest:?}");
        shoot(&mut window, &format!("offer-{}", size[0]));
    }
}

#[test]
fn an_error_is_shown_and_no_run_can_begin() {
    let mut window = window(RunView::default(), TALL);
    click(&mut window, "Copy as command");
    assert!(matches!(window.state().actions[..], [Action::Command(Command::CopyAsCommand)]));
    window.state_mut().form.set("optimizer.epochs", json!(0)).unwrap();
    window.run();
    for label in ["Copy as command", "Save…"] {
        assert!(is_disabled(&window, label), "{label}");
    }
    assert!(window.query_by_label("Expected at least 1, found 0.").is_some());
    // A click on the summary scrolls to the setting.
    click(&mut window, "Epochs: expected at least 1, found 0");
    assert_eq!(window.state().panel.search, "Epochs");
    assert!(window.query_by_label("Architecture").is_none());
}

#[test]
fn images_that_are_not_here_keep_a_run_from_beginning() {
    let stage = Stage::new(Experiment::on(machine(true)), RunView::default());
    let mut window = harness(stage, TALL, 1.0, true);
    window.state_mut().form.load_preset("cifar10-small").unwrap();
    window.run();
    let (panel, form) = (&window.state().panel, &window.state().form);
    assert!(panel.lacks_images(&form.experiment));
    click(&mut window, "fairtat data fetch cifar10");
    click(&mut window, "Choose Folder");
    let actions = &window.state().actions[..];
    assert!(
        matches!(actions, [Action::CopyText(text), Action::Open(OpenFor::DataPath)] if text.ends_with("fetch cifar10"))
    );
}

#[test]
fn a_live_run_says_when_changes_apply_and_takes_them() {
    let mut window = window(sample::run(), TALL);
    window.state_mut().form.load_preset("cifar10-small").unwrap();
    window.run();
    let live = *window.state().run.experiment.clone().unwrap();
    assert_eq!(window.state().form.experiment, live);
    assert!(window.query_by_label("Apply to the run").is_none());
    assert!(window.query_all_by_label("next epoch").count() > 3 && window.query_all_by_label("restart").count() > 3);
    let form = &mut window.state_mut().form;
    form.set("model.arch", json!("resnet-20")).unwrap();
    window.run();
    assert!(is_disabled(&window, "Apply to the run"));
    window.state_mut().form.set("optimizer.lr", json!(0.03)).unwrap();
    window.state_mut().form.set("fairness.lambda_rob", json!(0.7)).unwrap();
    window.run();
    assert!(window.query_by_label("Not in the run: 1 now, 1 next epoch, 1 restart").is_some());
    click(&mut window, "Apply to the run");
    let mut expected = live.clone();
    (expected.optimizer.lr, expected.fairness.lambda_rob) = (0.03, 0.7);
    let actions = &window.state().actions[..];
    assert!(matches!(actions, [Action::Worker(Request::Change(change))] if **change == expected));
    click(&mut window, "Show the run's");
    assert_eq!(window.state().form.experiment, live);
}

#[test]
fn a_search_finds_settings_in_every_section() {
    let mut window = window(RunView::default(), TALL);
    assert!(window.query_by_label("Momentum").is_none());
    window.get_by_label("Search settings").focus();
    window.get_by_label("Search settings").type_text("sgd momentum");
    window.run();
    assert!(window.query_by_label("Momentum").is_some() && window.query_by_label("Architecture").is_none());
    click(&mut window, "Clear the search");
    assert!(window.query_by_label("Architecture").is_some());
    window.state_mut().panel.search = "nothing like this".into();
    window.run();
    assert!(window.query_by_label_contains("No setting has").is_some());
}

#[test]
fn optional_numbers_and_rules_are_set_and_unset() {
    let mut window = window(RunView::default(), [1000.0, 1400.0]);
    click(&mut window, "Width");
    assert_eq!(window.state().form.experiment.model.width, Some(16));
    click(&mut window, "Set Width");
    assert_eq!(window.state().form.experiment.model.width, None);
    click(&mut window, "Epsilon rules");
    click(&mut window, "g-cfps");
    let names = serde_json::to_value(&window.state().form.experiment.fairness.epsilon_rules).unwrap();
    assert_eq!(names, json!(["g-rob", "g-cfps"]));
}

#[test]
fn what_this_machine_has_is_found_out_while_the_form_can_be_used() {
    let mut window = harness(Stage::new(Experiment::default(), RunView::default()), TALL, 1.0, true);
    window.run_steps(2);
    assert!(window.query_by_label("Architecture").is_some());
    for _ in 0..1000 {
        window.step();
        let found = window.query_by_label_contains("1,797 handwritten digits").is_some()
            && window.query_by_label_contains("selects ").is_some();
        if found {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("nothing was found out in ten seconds");
}

#[test]
fn the_section_of_another_method_is_left_out_until_something_in_it_differs() {
    let mut window = window(RunView::default(), [360.0, 2000.0]);
    let shown = |window: &Window<'_>, title| window.query_by_label_contains(title).is_some();
    assert!(shown(&window, "Optimiser") && !shown(&window, "TRADES") && !shown(&window, "FRL"));
    window.state_mut().form.set("fairness.base", json!("trades")).unwrap();
    window.run();
    assert!(shown(&window, "TRADES") && !shown(&window, "FRL"));
    window.state_mut().form.set("frl.beta", json!(2)).unwrap();
    window.run();
    assert!(shown(&window, "FRL   1 changed"));
    // A search finds the others.
    window.state_mut().panel.search = "margin multipliers".into();
    window.run();
    assert!(is_disabled(&window, "Margin step α₂"));
}

#[test]
fn a_list_is_taken_over_when_its_box_is_left() {
    let mut window = window(RunView::default(), TALL);
    window.state_mut().form.set("optimizer.schedule", json!("multi-step")).unwrap();
    window.state_mut().panel.search = "milestones".into();
    window.run();
    window.get_by_label("Milestones").focus();
    window.run();
    window.key_press_modifiers(egui::Modifiers::COMMAND, Key::A);
    window.run();
    window.get_by_label("Milestones").type_text("20, 40,");
    window.run();
    assert_eq!(window.state().form.experiment.optimizer.milestones, [100, 150]);
    window.key_press(Key::Enter);
    window.run();
    assert_eq!(window.state().form.experiment.optimizer.milestones, [20, 40]);
}

#[test]
fn every_line_keeps_to_its_columns() {
    for (run, live) in [(sample::run(), true), (RunView::default(), false)] {
        let mut stage = Stage::new(Experiment::on(machine(false)), run);
        stage.form.load_preset("cifar10-paper").unwrap();
        stage.form.set("fairness.epsilon_max", json!("12.5/255")).unwrap();
        stage.form.set("data.limit", json!(10_000)).unwrap();
        let mut window = harness(stage, [360.0, 2800.0], 1.0, false);
        // Every field matches "e".
        window.state_mut().panel.search = "e".into();
        window.run();
        for field in crate::config::fields::all() {
            let Some(control) = window.query_by_label(field.label) else { panic!("{} is missing", field.label) };
            let rect = control.rect();
            assert!(rect.left() >= 110.0 && rect.right() < if live { 254.0 } else { 330.0 }, "{} {rect:?}", field.path);
        }
        shoot(&mut window, if live { "all-live" } else { "all-idle" });
    }
}

#[test]
fn it_looks_well() {
    for (size, name) in [([360.0, 900.0], "360x900"), ([512.0, 350.0], "512x350"), ([1000.0, 700.0], "1000x700")] {
        for (dark, theme) in [(true, "dark"), (false, "light")] {
            for (run, state) in [(sample::run(), "live"), (RunView::default(), "idle")] {
                let mut stage = Stage::new(Experiment::on(machine(false)), run);
                let preset = if state == "live" { "cifar10-small" } else { "digits-60s" };
                stage.form.load_preset(preset).unwrap();
                stage.form.set("optimizer.lr", json!(0.05)).unwrap();
                stage.form.set("attack.epsilon", json!("16/255")).unwrap();
                if state == "idle" {
                    stage.form.set("optimizer.epochs", json!(0)).unwrap();
                }
                let mut window = harness(stage, size, 2.0, dark);
                window.run();
                // The actions on the whole form stay within the panel.
                for label in ["Undo", "Redo", "Copy as command", "Save…"] {
                    let rect = window.get_by_label(label).rect();
                    assert!(rect.right() <= size[0], "{label} {rect:?}");
                }
                shoot(&mut window, &format!("{name}-{theme}-{state}"));
            }
        }
    }
}

/// The real disk: what is typed on the way to a path is not looked up.
#[cfg(unix)]
#[test]
fn a_path_is_looked_up_when_its_typing_ends() {
    let place = tempfile::tempdir().unwrap();
    let pipe = place.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut stage = Stage::new(Experiment::default(), RunView::default());
    stage.form.set("data.dataset", json!("folder")).unwrap();
    let mut window = harness(stage, TALL, 1.0, true);
    window.run_steps(4);
    click_soon(&mut window, "Folder");
    let mut looked_up = Vec::new();
    for letter in pipe.to_str().unwrap().chars() {
        window.get_by_label("Folder").type_text(&letter.to_string());
        window.run_steps(2);
        let path = window.state().form.experiment.data.path.clone();
        let told = window.query_by_label("checked when you stop typing").is_some();
        assert!(told, "after '{letter}': {path:?}, {:?}", window.state().panel.machine.unknown());
        looked_up.extend(window.state().panel.machine.asked().cloned());
    }
    assert_eq!(looked_up, Vec::<std::path::PathBuf>::new());
    window.key_press(Key::Enter);
    let found = wait_for(&mut window, "is a file, expected the directory of a data set");
    assert!(found.contains("pipe"), "{found}");
    assert_eq!(window.state().panel.machine.asked().collect::<Vec<_>>(), [&pipe]);

    // After a pause, too.
    click_soon(&mut window, "Folder");
    window.get_by_label("Folder").type_text("-2");
    window.run_steps(2);
    assert!(window.query_by_label("checked when you stop typing").is_some());
    window.run_steps(8);
    wait_for(&mut window, "No such file");
}

/// A click on a panel that keeps asking for frames.
fn click_soon(window: &mut Window<'_>, label: &str) {
    window.get_by_label(label).click();
    window.run_steps(2);
}

/// Waits for a label with this text, and returns all of it.
fn wait_for(window: &mut Window<'_>, text: &str) -> String {
    for _ in 0..2000 {
        window.step();
        if let Some(found) = window.query_by_label_contains(text) {
            let node = found.accesskit_node();
            return node.label().or_else(|| node.value()).unwrap_or_default();
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let (panel, experiment) = (&window.state().panel, &window.state().form.experiment);
    panic!("no {text}: {:?}, {:?}", experiment.data.path, panel.machine.images(experiment));
}

#[test]
fn missing_images_are_downloaded_with_progress_and_can_be_cancelled() {
    let (report, reports) = std::sync::mpsc::sync_channel::<u64>(0);
    let reports = std::sync::Mutex::new(reports);
    let fetch = move |name: &str, stop: &AtomicBool, progress: &mut dyn FnMut(Progress<'_>)| {
        let file = format!("{name}.tar.gz");
        while let Ok(done) = reports.lock().unwrap().recv() {
            progress(Progress { file: &file, phase: Phase::Downloading, done, total: Some(170_000_000) });
            if stop.load(Ordering::Relaxed) {
                return Err(DataError::Stopped("the download".into()));
            }
        }
        Ok(())
    };
    let machine = machine(true).fetching(Downloads::with(Arc::new(fetch)));
    let stage = Stage::new(Experiment::on(machine), RunView::default());
    let mut window = harness(stage, TALL, 1.0, true);
    window.state_mut().form.load_preset("cifar10-small").unwrap();
    window.run();
    shoot(&mut window, "download-offered");
    assert!(window.query_by_label_contains("Licence: none, see example.org").is_some());
    click(&mut window, "Download cifar10 (171 MB)");
    let asked = window.state_mut().actions.pop();
    assert!(matches!(asked, Some(Action::Download(name)) if name == "cifar10"));
    let context = window.ctx.clone();
    window.state_mut().panel.download(&context, "cifar10");
    report.send(68_000_000).unwrap();
    wait_for(&mut window, "Downloading cifar10.tar.gz");
    assert!(window.query_by_label_contains("Download cifar10 (").is_none());
    shoot(&mut window, "downloading");
    window.get_by_label("Cancel").click();
    window.run_steps(2);
    assert!(matches!(window.state_mut().actions.pop(), Some(Action::CancelDownload)));
    window.state_mut().panel.cancel_download();
    let cancelled = loop {
        // It looks for the cancellation after each report, perhaps already after the first one: then it takes no more.
        let _ = report.try_send(70_000_000);
        if let Some(ended) = window.state_mut().panel.downloaded() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(matches!(cancelled, (name, Err(DataError::Stopped(_))) if name == "cifar10"));
    // Again, to the end.
    window.state_mut().panel.download(&context, "cifar10");
    report.send(170_000_000).unwrap();
    drop(report);
    let mut ended = || loop {
        if let Some(ended) = window.state_mut().panel.downloaded() {
            return ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(matches!(ended(), (_, Ok(()))));
    window.run_steps(2);
    assert!(window.query_by_label("Download cifar10 (171 MB)").is_some());
}
