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

/// An image has resisted only when the attack is over.
#[test]
fn during_the_attack_nothing_has_resisted_yet() {
    let mut window = window([1000.0, 900.0], true);
    let found = |window: &Window<'_>, text: &str| window.query_all_by_label_contains(text).count();
    assert_eq!((found(&window, ", resisted"), found(&window, "right so far")), (6, 0));
    let mut set = (**window.state().run.examples.as_ref().unwrap()).clone();
    set.step = (1, 10);
    window.state_mut().run.examples = Some(std::sync::Arc::new(set));
    window.run();
    assert_eq!((found(&window, "resisted"), found(&window, ", right so far")), (0, 6));
    assert!(window.query_by_label("attack step 1 of 10").is_some());
    assert_eq!((found(&window, "reached the target"), found(&window, ", at the target")), (0, 5));
}

/// The last job for the images of a cell.
fn job(window: &Window<'_>) -> worker::CellJob {
    let job = window.state().actions.iter().rev().find_map(|action| match action {
        Action::Worker(Request::Cell(Some(job))) => Some((**job).clone()),
        _ => None,
    });
    job.unwrap()
}

/// Answers it as a worker would.
fn answer(window: &mut Window<'_>) {
    let request = Request::Cell(Some(Box::new(job(window))));
    window.state_mut().run.apply(sample::answer(&request).unwrap(), std::time::Instant::now());
    window.run();
}

#[test]
fn the_images_of_a_cell_are_searched_for_if_their_predictions_are_not_known() {
    let mut window = window([1000.0, 900.0], true);
    let cell = Cell { of: Counted::Validation, epoch: 17, label: Some(2), prediction: 7 };
    window.state_mut().panel.show_cell(cell);
    window.run();
    assert!(window.query_by_label_contains("Attacking the images").is_some());
    assert_eq!(cards(&window), 0, "the current batch is not among them");
    let asked = job(&window);
    let validation = window.state().run.info.as_ref().unwrap().validation.clone();
    assert!(asked.images.iter().all(|image| validation.labels()[*image as usize] == 2));
    assert_eq!((asked.images.len(), asked.wanted, asked.epoch.epoch), (20, Some(7), 17));
    assert_eq!((asked.epoch.radii.len(), asked.epoch.targets.as_ref().map(Vec::len)), (10, Some(10)));
    answer(&mut window);
    assert!(window.query_by_label("True bird, predicted horse").is_some());
    assert_eq!(window.query_all_by_label_contains("Validation image").count(), 20);
    assert!(window.query_by_label_contains("only for the last 50 epochs since the run was opened").is_some());
    shoot(&mut window, "examples-cell");
    window.get_by_label_contains("Validation image 12:").click();
    window.run();
    let opened = window.state().actions.iter().find_map(|action| match action {
        Action::Inspect(subject) => Some(subject.clone()),
        _ => None,
    });
    assert_eq!(opened.unwrap().name, "validation image 12");
    window.get_by_label("Back to the current batch").click();
    window.run();
    assert!(matches!(window.state().actions.last(), Some(Action::Worker(Request::Cell(None)))));
    assert_eq!(cards(&window), 16);
}

#[test]
fn the_images_of_a_cell_are_those_that_were_counted() {
    let mut run = sample::run();
    let train = run.info.as_ref().unwrap().train.clone();
    // Every third image of the training set was taken for a horse, all others were classified right.
    let horse = |(i, label): (usize, &u32)| Some(if i % 3 == 0 { 7 } else { *label });
    let predicted = crate::train::Predicted {
        train: train.labels().iter().enumerate().map(horse).collect(),
        validation: Vec::new(),
    };
    run.epochs[5].predicted = Some(Arc::new(predicted));
    let mut window = harness(Stage::new(Examples::default(), run), [1000.0, 900.0], 1.0, false);
    window.run();
    let cell = |label| Cell { of: Counted::Training, epoch: 5, label, prediction: 7 };
    window.state_mut().panel.show_cell(cell(Some(2)));
    window.run();
    let asked = job(&window);
    assert!(asked.images.iter().all(|image| image % 3 == 0 && train.labels()[*image as usize] == 2));
    assert_eq!((asked.images.len(), asked.wanted), (13, None));
    answer(&mut window);
    assert_eq!(cards(&window), 13);
    assert!(window.query_by_label_contains("These are the images that were counted.").is_some());
    assert!(window.query_by_label_contains("0 of 13 are taken for horse by the network in").is_some());
    // The mistakes of all classes that land on one, as CFPS counts them.
    window.state_mut().panel.show_cell(cell(None));
    window.run();
    let asked = job(&window);
    assert!(asked.images.iter().all(|image| image % 3 == 0 && train.labels()[*image as usize] != 7));
    assert!(window.query_by_label("Mistaken for horse").is_some());
    // A cell without images.
    window.state_mut().panel.show_cell(Cell { prediction: 4, ..cell(Some(2)) });
    window.run();
    assert!(window.query_by_label("No image was counted there.").is_some());
    // Another run ends the display.
    window.state_mut().run = sample::run();
    window.run();
    assert_eq!(cards(&window), 16);
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

#[test]
fn images_of_a_class_that_is_pointed_at_are_framed() {
    use crate::app::testing::is_highlighted;
    let mut window = window([1000.0, 900.0], true);
    // The label of the image with this number.
    let rect = window.get_by_label_contains("Training image 3: cat").rect();
    assert!(is_highlighted(&mut window, rect, 3));
    assert!(!is_highlighted(&mut window, rect, 4));
    window.hover_at(rect.center());
    window.run_steps(3);
    assert_eq!(crate::app::focus::pointed(&window.ctx), Some(3));
}

#[test]
fn an_earlier_epoch_shows_its_own_examples_or_says_that_there_are_none() {
    let mut run = sample::run();
    let now = std::time::Instant::now();
    run.apply(crate::worker::Update::Epoch(Box::new(sample::epoch(18))), now);
    let mut next = sample::examples();
    (next.epoch, next.batch, next.step) = (19, 3, (7, 10));
    run.apply(crate::worker::Update::Examples(Arc::new(next)), now);
    // Since then the attack has been changed by hand.
    run.experiment.as_mut().unwrap().attack.steps = 3;
    let mut window = harness(Stage::new(Examples::default(), run), [1000.0, 900.0], 1.0, true);
    window.run();
    assert!(window.query_by_label("Epoch 20, batch 4").is_some());
    assert!(window.query_by_label_contains("targeted PGD-3").is_some());
    window.state_mut().focus.epoch = Some(18);
    window.run();
    assert!(window.query_by_label("Epoch 19, batch 46").is_some());
    assert!(window.query_by_label("after 10 attack steps").is_some());
    assert!(window.query_by_label("kept as bytes").is_some() && window.query_by_label("Freeze").is_none());
    assert!(window.query_by_label_contains("targeted PGD-10").is_some());
    assert_eq!(cards(&window), 16);
    shoot(&mut window, "examples-past");
    window.state_mut().focus.epoch = Some(4);
    window.run();
    assert_eq!(cards(&window), 0);
    assert!(window.query_by_label("No examples of epoch 5").is_some());
    assert!(window.query_by_label_contains("only while the window watches a run").is_some());
    shoot(&mut window, "examples-none");
    window.get_by_label("Show epoch 19").click();
    window.run();
    assert_eq!((window.state().focus.epoch, cards(&window)), (Some(18), 16));
    window.state_mut().focus.epoch = Some(4);
    window.run();
    window.get_by_label("Live").click();
    window.run();
    assert!(window.query_by_label("Epoch 20, batch 4").is_some());
}

#[test]
fn examples_that_were_dropped_say_so() {
    let mut run = sample::run();
    run.past = crate::app::past::PastExamples::with_limit(2 << 20);
    for epoch in 0..60 {
        let examples = worker::Examples { epoch, ..sample::examples() };
        run.past.keep(&examples, &Default::default());
    }
    let mut window = harness(Stage::new(Examples::default(), run), [1000.0, 900.0], 1.0, true);
    window.state_mut().focus.epoch = Some(1);
    window.run();
    assert!(window.query_by_label_contains("take at most 2 MiB of memory").is_some());
}

#[test]
fn a_cell_of_another_epoch_than_the_scrubber_shows_says_so() {
    let mut window = window([1000.0, 900.0], true);
    let cell = Cell { of: Counted::Validation, epoch: 17, label: Some(2), prediction: 7 };
    window.state_mut().panel.show_cell(cell);
    window.run();
    assert!(window.query_by_label_contains("which the scrubber shows").is_none());
    window.state_mut().focus.epoch = Some(5);
    window.run();
    window.get_by_label("These are not of epoch 6, which the scrubber shows.");
    window.get_by_label("Show those of epoch 6").click();
    window.run();
    assert_eq!((job(&window).epoch.epoch, job(&window).wanted), (5, Some(7)));
    assert!(window.query_by_label_contains("which the scrubber shows").is_none());
}
