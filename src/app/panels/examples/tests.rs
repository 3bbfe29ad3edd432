use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};

type Window<'a> = Harness<'a, Stage<Examples>>;

fn window<'a>(size: [f32; 2], dark: bool) -> Window<'a> {
    let mut window = harness(Stage::new(Examples::default(), sample::run()), size, 1.0, dark);
    window.run();
    window
}

fn cards(window: &Window<'_>) -> usize {
    window.query_all_by_label_contains("Training image").count()
}

fn requests(window: &Window<'_>) -> Vec<Option<ExamplesWish>> {
    let wish = |action: &Action| match action {
        Action::Worker(Request::Examples(wish)) => Some(*wish),
        _ => None,
    };
    window.state().actions.iter().filter_map(wish).collect()
}

fn with_context(stage: &mut Stage<Examples>, call: impl FnOnce(&mut Examples, &mut Context<'_>)) {
    let Stage { panel, run, evaluation, focus, form, settings, glossary, actions, .. } = stage;
    call(panel, &mut Context { run, evaluation, focus, form, settings, glossary, actions });
}

#[test]
fn outcomes_are_told_apart_counted_and_filtered() {
    let mut window = window([1000.0, 900.0], true);
    assert_eq!(cards(&window), 16);
    // In the sample, every third image resists and every third reaches its target.
    window.get_by_label("reached the target 5").click();
    window.run();
    assert_eq!(cards(&window), 5);
    assert!(window.query_by_label("5 of 16 shown").is_some());
    assert_eq!(window.query_all_by_label_contains("resisted").count(), 1, "only the button");
    window.get_by_label("Show all").click();
    window.run();
    assert_eq!(cards(&window), 16);
}

#[test]
fn a_cell_of_the_confusion_matrix_is_shown_and_left_again() {
    let mut window = window([1000.0, 900.0], true);
    window.state_mut().panel.show_cell(Some(2), Some(7));
    window.run();
    assert_eq!(cards(&window), 1);
    assert_eq!(window.query_all_by_label_contains(": bird, target").count(), 1);
    window.state_mut().panel.show_cell(Some(2), Some(9));
    window.run();
    assert_eq!(cards(&window), 0);
    assert!(window.query_by_label_contains("None of these images").is_some());
    assert!(window.query_by_label("0 of 16 shown").is_some());
}

#[test]
fn a_card_opens_its_image_in_the_inspector() {
    let mut window = window([1000.0, 900.0], false);
    window.get_by_label_contains("Training image 6:").click();
    window.run();
    let opened = window.state().actions.iter().find_map(|action| match action {
        Action::Inspect(subject) => Some(subject.clone()),
        _ => None,
    });
    let subject = opened.unwrap();
    let train = &window.state().run.info.as_ref().unwrap().train;
    assert_eq!((subject.name.as_str(), subject.label), ("training image 6", Some(train.labels()[6])));
    assert_eq!(*subject.pixels, *train.image(6));
}

#[test]
fn images_are_asked_for_once_and_no_longer_when_nobody_looks() {
    let mut window = window([1000.0, 900.0], true);
    window.run_steps(5);
    let asked = requests(&window);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert!(asked[0].is_some_and(|wish| (16..=64).contains(&wish.count)));
    with_context(window.state_mut(), |panel, context| {
        panel.hidden(context);
        panel.hidden(context);
    });
    assert_eq!(requests(&window)[1..], [None]);
    window.run();
    assert_eq!(requests(&window).len(), 3, "asked again when shown again");
    // A new run needs a request, too.
    window.state_mut().run = sample::run();
    window.run();
    assert_eq!(requests(&window).len(), 4);
    window.set_size(vec2(3000.0, 2500.0));
    window.run();
    assert_eq!(requests(&window)[4].unwrap().count, 64);
}

#[test]
fn frozen_images_stay_until_released() {
    let mut window = window([1000.0, 900.0], true);
    window.get_by_label("Freeze").click();
    window.run();
    assert_eq!(requests(&window).last(), Some(&None));
    let mut next = sample::examples();
    (next.batch, next.step) = (46, (3, 10));
    window.state_mut().run.examples = Some(Arc::new(next));
    window.run();
    assert!(window.query_by_label("Epoch 19, batch 46").is_some());
    window.get_by_label("Freeze").click();
    window.run();
    assert!(window.query_by_label("Epoch 19, batch 47").is_some());
    assert!(window.query_by_label("attack step 3 of 10").is_some());
    assert!(window.query_by_label_contains("targeted PGD-").is_some());
    assert!(requests(&window).last().unwrap().is_some());
}

#[test]
fn an_untargeted_attack_misleads() {
    let mut stage = Stage::new(Examples::default(), sample::run());
    let mut examples = sample::examples();
    examples.targets = None;
    stage.run.examples = Some(Arc::new(examples));
    let mut window = harness(stage, [700.0, 500.0], 1.0, true);
    window.run();
    assert!(window.query_by_label("misled 10").is_some());
    assert!(window.query_by_label_contains("target").is_none());
}

#[test]
fn without_a_run_the_panel_says_what_will_be_here() {
    let mut window = harness(Stage::new(Examples::default(), Default::default()), [600.0, 400.0], 1.0, true);
    window.run();
    assert!(window.query_by_label("No images yet").is_some());
    assert!(requests(&window).is_empty());
}

#[test]
fn it_looks_well_at_every_size() {
    for (name, size, dark) in [
        ("examples-wide", [1600.0, 1000.0], true),
        ("examples-light", [1024.0, 700.0], false),
        ("examples-small", [512.0, 350.0], true),
    ] {
        let mut window = window(size, dark);
        assert!(cards(&window) > 0, "{name}");
        shoot(&mut window, name);
    }
}
