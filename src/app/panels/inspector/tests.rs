use std::time::Instant;

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::app::view::RunView;
use crate::data::digits;
use crate::engine::candle::{CandleDevice, CandleEngine};
use crate::engine::loss::argmax;
use crate::engine::{Batch, BatchNormMode, Engine, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View};
use crate::model::{Architecture, State};
use crate::units::Epsilon;
use crate::worker::{self, Direction, RunInfo, Update};

type Window<'a> = Harness<'a, Stage<Inspector>>;

/// A small network after a few batches of `set`.
fn network(set: &Dataset, batches: usize) -> CandleEngine {
    let network = Architecture::SmallCnn.build(set.shape(), set.classes(), None, Some(4));
    let state = State::initialise(&network, 1);
    let mut engine = CandleEngine::new(network, &state, CandleDevice::Cpu).unwrap();
    let n = 32;
    for step in 0..batches {
        let ids: Vec<u32> = (0..n).map(|i| ((step * n + i) * 7 % set.len()) as u32).collect();
        let pixels: Vec<u8> = ids.iter().flat_map(|i| set.image(*i as usize)).copied().collect();
        let labels: Vec<u32> = ids.iter().map(|i| set.labels()[*i as usize]).collect();
        let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 0, epoch: 0 };
        let none = SearchSpec {
            objective: Objective::CrossEntropy,
            norm: Norm::Linf,
            epsilon: vec![0.0; n],
            step_size: vec![0.0; n],
            steps: 0,
            start: Start::Zero,
            batch_norm: BatchNormMode::Eval,
            ..SearchSpec::default()
        };
        let views = engine.perturb(&batch, &none).unwrap();
        let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 0.0, nesterov: false };
        engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &sgd).unwrap();
    }
    engine
}

/// A run on digits.
fn digits_run() -> RunView {
    let mut run = sample::run();
    let set = digits().unwrap();
    let info = run.info.clone().unwrap();
    let test = Arc::new(set.test);
    let info = RunInfo { train: Arc::new(set.train), validation: Arc::clone(&test), test, ..*info };
    run.apply(Update::Opened(Box::new(info)), Instant::now());
    run
}

fn window<'a>(run: RunView, size: [f32; 2], dark: bool) -> Window<'a> {
    let mut window = harness(Stage::new(Inspector::default(), run), size, 1.0, dark);
    window.run_steps(3);
    window
}

fn jobs(window: &Window<'_>) -> Vec<InspectionJob> {
    let job = |action: &Action| match action {
        Action::Worker(Request::Inspect(job)) => Some((**job).clone()),
        _ => None,
    };
    window.state().actions.iter().filter_map(job).collect()
}

fn maps(window: &Window<'_>) -> Vec<MapJob> {
    let job = |action: &Action| match action {
        Action::Worker(Request::Map(job)) => Some((**job).clone()),
        _ => None,
    };
    window.state().actions.iter().filter_map(job).collect()
}

/// Answers the newest requests as a worker would.
fn answer(window: &mut Window<'_>, engine: &mut CandleEngine) {
    if let Some(job) = jobs(window).last() {
        let found = worker::inspect(engine, job, Some(18.5)).unwrap();
        window.state_mut().run.inspection = Some(Arc::new(found));
    }
    if let Some(job) = maps(window).last() {
        let found = worker::map(engine, job, Some(18.5)).unwrap();
        window.state_mut().run.map = Some(Arc::new(found));
    }
    window.run_steps(2);
}

#[test]
fn an_opened_image_is_attacked_as_the_run_is() {
    let mut window = window(sample::run(), [1024.0, 700.0], true);
    let set = Arc::clone(&window.state().run.info.as_ref().unwrap().train);
    let subject = crate::app::pictures::subject_from_set("training", &set, 7).unwrap();
    window.state_mut().panel.open(subject.clone());
    window.run_steps(4);
    let asked = jobs(&window);
    assert_eq!(asked.len(), 2, "the first test image, then this one");
    let attack = &window.state().run.experiment.as_ref().unwrap().attack;
    let found = &asked[1].attack;
    assert_eq!(asked[1].subject, subject);
    assert_eq!((found.target, found.norm, found.steps), (None, attack.norm, attack.steps));
    assert_eq!((found.epsilon, found.step_size), (attack.epsilon, attack.step_size));
    assert_eq!(maps(&window).last().unwrap().subject, subject);
    let plane = maps(&window).pop().unwrap();
    assert_eq!((plane.axes, plane.extent, &plane.attack), ([Direction::Attack, Direction::Rival], None, found));
}

#[test]
fn every_change_is_asked_for_once_and_under_a_new_id() {
    let mut window = window(sample::run(), [1024.0, 700.0], true);
    window.run_steps(8);
    assert_eq!((jobs(&window).len(), maps(&window).len()), (1, 1));
    window.state_mut().panel.attack.epsilon = 12.0;
    window.run_steps(1);
    assert_eq!(jobs(&window).len(), 1, "not in the same frame");
    window.run_steps(8);
    let (inspections, planes) = (jobs(&window), maps(&window));
    assert_eq!((inspections.len(), planes.len()), (2, 2), "the ball of the map follows");
    assert!(inspections[1].id > inspections[0].id && planes[1].id > planes[0].id);
    assert_eq!(inspections[1].attack.epsilon, Epsilon::levels(12.0));
    assert_eq!(planes[1].attack.epsilon, Epsilon::levels(12.0));
    window.get_by_label("FGSM").click();
    window.run_steps(4);
    let last = jobs(&window).pop().unwrap();
    assert_eq!((last.attack.steps, last.attack.step_size), (1, Epsilon::levels(12.0)));
    let planes = maps(&window);
    assert_eq!((planes.len(), &planes[2].attack), (3, &last.attack), "the plane is that of the attack");
}

#[test]
fn answers_to_older_questions_are_ignored() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 0);
    let mut window = window(digits_run(), [1024.0, 700.0], true);
    assert!(window.query_all_by_label("computing…").count() == 2);
    let old = worker::inspect(&mut engine, &jobs(&window)[0], None).unwrap();
    window.state_mut().panel.attack.epsilon = 20.0;
    window.run_steps(4);
    window.state_mut().run.inspection = Some(Arc::new(old));
    window.run_steps(2);
    assert!(window.state().panel.inspection.is_none());
    answer(&mut window, &mut engine);
    let shown = window.state().panel.inspection.clone().unwrap();
    assert_eq!(shown.job.attack.epsilon, Epsilon::levels(20.0));
    assert!(window.query_by_label("computing…").is_none());
    assert_eq!(jobs(&window).len(), 2, "an answer is no new question");
}

#[test]
fn scrubbing_shows_the_numbers_of_that_step() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 20);
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    window.state_mut().panel.attack.random_start = false;
    window.run_steps(4);
    answer(&mut window, &mut engine);
    let shown = window.state().panel.inspection.clone().unwrap();
    let last = shown.steps.last().unwrap();
    assert!(window.query_by_label(&format!("L∞ {}", crate::app::widgets::epsilon(last.linf))).is_some());
    assert!(window.query_by_label(&format!("loss {:.3}", last.loss)).is_some());
    window.get_by_label("First step").click();
    window.run_steps(2);
    assert!(window.query_by_label("L∞ 0/255 (0.0000)").is_some());
    assert!(window.query_by_label("After step 0").is_some());
    window.get_by_label("Step forward").click();
    window.run_steps(2);
    assert!(window.query_by_label("L∞ 2/255 (0.0078)").is_some());
    assert!(window.query_by_label(&format!("loss {:.3}", shown.steps[2].loss)).is_some());
    // If playback continues, it ends at the last step and requests no more frames.
    window.get_by_label("Play the attack").click();
    window.run_steps(24);
    assert!(window.query_by_label("After step 10").is_some());
    assert!(window.query_by_label("Play the attack").is_some());
}

#[test]
fn flicker_shows_the_original_in_turn() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 0);
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    answer(&mut window, &mut engine);
    assert!(window.query_by_label("A: original").is_none());
    window.get_by_label("A/B flicker").click();
    let mut seen = [0, 0];
    for _ in 0..8 {
        window.step();
        seen[0] += usize::from(window.query_all_by_label("A: original").count() > 0);
        seen[1] += usize::from(window.query_all_by_label("B: adversarial").count() > 0);
    }
    assert!(seen[0] >= 3 && seen[1] >= 3, "{seen:?}");
}

/// The newest search that was asked for; `None` if it was ended.
fn search(window: &Window<'_>) -> Option<Option<worker::SeekJob>> {
    let job = |action: &Action| match action {
        Action::Worker(Request::Seek(job)) => Some(job.as_deref().cloned()),
        _ => None,
    };
    window.state().actions.iter().rev().find_map(job)
}

#[test]
fn the_next_misclassified_image_is_looked_for_in_the_worker() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 20);
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    answer(&mut window, &mut engine);
    for (label, under_attack) in [("as it is", false), ("under this attack", true)] {
        let from = window.state().panel.source.index;
        window.get_by_label(label).click();
        window.run_steps(2);
        let job = search(&window).unwrap().unwrap();
        assert_eq!(job.attack.is_some(), under_attack);
        let n = set.len();
        let following: Vec<u32> = (1..=n).map(|i| ((from + i) % n) as u32).collect();
        assert!(job.images == following && job.set.len() == n);
        assert!(window.query_by_label("0 of 355 tried").is_some());
        let before = window.get_by_label("Next image").rect();
        // The image stays while the search goes on.
        for sought in worker::seek(&mut engine, job) {
            assert_eq!(window.state().panel.source.index, from);
            window.state_mut().run.apply(Update::Sought(sought), Instant::now());
            window.run_steps(2);
        }
        assert!(window.state().panel.source.seeking.is_none());
        assert_eq!(window.get_by_label("Next image").rect(), before, "nothing moves");
        std::thread::sleep(std::time::Duration::from_millis(200));
        window.run_steps(12);
        assert_eq!(
            jobs(&window).last().unwrap().subject.name,
            format!("test image {}", window.state().panel.source.index)
        );
        answer(&mut window, &mut engine);
        let shown = window.state().panel.inspection.clone().unwrap();
        let step = if under_attack { shown.steps.len() - 1 } else { 0 };
        assert_ne!(argmax(&shown.steps[step].probabilities), shown.label);
    }
}

#[test]
fn a_search_can_be_ended_finds_nothing_or_fails() {
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    let begin = |window: &mut Window<'_>| {
        window.get_by_label("as it is").click();
        window.run_steps(2);
        search(window).unwrap().unwrap().id
    };
    let toast = |window: &Window<'_>| {
        window.state().actions.iter().rev().find_map(|action| match action {
            Action::Toast(_, text) => Some(text.clone()),
            _ => None,
        })
    };
    begin(&mut window);
    window.get_by_label("Stop").click();
    window.run_steps(3);
    assert!(matches!(search(&window), Some(None)) && window.query_by_label("Stop").is_none());
    // So does another choice.
    begin(&mut window);
    window.get_by_label("Next image").click();
    window.run_steps(3);
    assert!(matches!(search(&window), Some(None)));
    let old = begin(&mut window);
    let state = worker::SeekState::Exhausted;
    window
        .state_mut()
        .run
        .apply(Update::Sought(worker::Sought { id: old, tried: 355, state: state.clone() }), Instant::now());
    window.run_steps(2);
    assert_eq!(
        toast(&window).unwrap(),
        "Each of the 355 test images of this choice is classified right without an attack."
    );
    // An answer to an earlier search ends no later one.
    let new = begin(&mut window);
    window.state_mut().run.apply(Update::Sought(worker::Sought { id: old, tried: 9, state }), Instant::now());
    window.run_steps(2);
    assert!(window.query_by_label("Stop").is_some());
    let failure = Failure { doing: "looking".into(), what: "the device is lost".into(), advice: None, run: None };
    let state = worker::SeekState::Failed(failure);
    window.state_mut().run.apply(Update::Sought(worker::Sought { id: new, tried: 9, state }), Instant::now());
    window.run_steps(2);
    assert!(toast(&window).unwrap().contains("the device is lost") && window.query_by_label("Stop").is_none());
}

#[test]
fn the_selector_names_the_image_that_is_shown() {
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    let info = window.state().run.info.clone().unwrap();
    let subject = crate::app::pictures::subject_from_set("validation", &info.validation, 17).unwrap();
    window.state_mut().panel.open(subject);
    window.run_steps(3);
    let source = &window.state().panel.source;
    assert_eq!((source.part, source.index), (source::Part::Validation, 17));
    // An image from elsewhere leaves the choice.
    let cat = Subject { name: "cat.png".into(), label: None, ..window.state().panel.subject.clone().unwrap() };
    window.state_mut().panel.open(cat);
    window.run_steps(3);
    assert_eq!(window.state().panel.source.index, 17);
}

#[test]
fn an_image_of_unknown_class_is_never_called_misclassified() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 20);
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    let own = Subject { name: "mine.png".into(), label: None, ..window.state().panel.subject.clone().unwrap() };
    window.state_mut().panel.open(own);
    window.state_mut().panel.attack.epsilon = 96.0;
    std::thread::sleep(std::time::Duration::from_millis(200));
    window.run_steps(12);
    answer(&mut window, &mut engine);
    let shown = window.state().panel.inspection.clone().unwrap();
    let text = steps::verdict(&shown, window.state().run.class_names()).text().to_owned();
    let [before, now] = [0, shown.steps.len() - 1].map(|step| argmax(&shown.steps[step].probabilities));
    assert_ne!(before, now, "the attack must move the answer");
    let names = window.state().run.class_names();
    let expected = format!("Now {}, no longer {}", names[now as usize], names[before as usize]);
    assert!(text.starts_with(&expected), "{text}");
}

#[test]
fn the_class_filter_leads_to_images_of_the_class() {
    let mut window = window(digits_run(), [1024.0, 700.0], true);
    window.state_mut().panel.source.class = Some(6);
    for _ in 0..2 {
        window.get_by_label("Next image").click();
        window.run_steps(4);
        assert_eq!(jobs(&window).last().unwrap().subject.label, Some(6));
    }
    let there = window.state().panel.source.index;
    window.get_by_label("Previous image").click();
    window.run_steps(4);
    assert!(window.state().panel.source.index < there);
    window.get_by_label("Open…").click();
    window.get_by_label("Paste").click();
    window.run_steps(2);
    let actions = &window.state().actions;
    assert!(actions.iter().any(|a| matches!(a, Action::Open(crate::app::context::OpenFor::Image))));
    assert!(actions.iter().any(|a| matches!(a, Action::PasteImage)));
}

#[test]
fn a_followed_run_is_asked_again_every_two_seconds_at_most() {
    let mut window = window(sample::run(), [1024.0, 900.0], true);
    window.run_steps(10);
    assert_eq!(jobs(&window).len(), 1, "only when it is followed");
    window.get_by_label("Follow the run").click();
    for done in 46..62 {
        let mut point = window.state().run.now().unwrap().clone();
        point.done = done;
        window.state_mut().run.apply(Update::Batch(point), Instant::now());
        window.step();
    }
    // Sixteen frames of a quarter of a second.
    assert!((2..=3).contains(&(jobs(&window).len() - 1)), "{}", jobs(&window).len());
}

#[test]
fn a_failure_stands_where_the_answer_would() {
    let mut window = window(sample::run(), [1024.0, 900.0], true);
    window.state_mut().run.job_failure = Some(Failure {
        doing: INSPECTING.into(),
        what: "the target is class 3, what the network already predicts".into(),
        advice: None,
        run: None,
    });
    window.run_steps(2);
    assert!(window.query_by_label_contains("already predicts").is_some());
    assert_eq!(window.query_all_by_label("computing…").count(), 1, "the map is still to come");
}

#[test]
fn without_a_network_it_says_how_to_get_one() {
    let mut window = window(RunView::default(), [600.0, 400.0], true);
    assert!(window.query_by_label("No network to question").is_some());
    window.get_by_label("Start a run").click();
    window.get_by_label("Open a checkpoint…").click();
    window.run_steps(2);
    let commands: Vec<_> = window.state().actions.iter().collect();
    assert!(matches!(
        commands[..],
        [Action::Command(Command::Start), Action::Command(Command::OpenCheckpoint)]
            | [Action::Command(Command::OpenCheckpoint), Action::Command(Command::Start)]
    ));
}

#[test]
fn verdicts_are_told_in_words() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 0);
    let subject = crate::app::pictures::subject_from_set("test", &set, 0).unwrap();
    let job = InspectionJob { id: 1, subject, attack: AttackForm::default().attack() };
    let mut found = worker::inspect(&mut engine, &job, None).unwrap();
    let names = set.class_names();
    let said = |found: &Inspection| steps::verdict(found, names).text().to_owned();
    let says = |found: &mut Inspection, classes: [u32; 12]| {
        for (step, class) in found.steps.iter_mut().zip(classes) {
            step.probabilities = (0..10).map(|k| if k == class { 0.91 } else { 0.01 }).collect();
        }
        found.label = 0;
    };
    says(&mut found, [0; 12]);
    assert_eq!(said(&found), "Resisted: still 0 after 10 steps.");
    says(&mut found, [0, 0, 0, 0, 4, 4, 4, 4, 4, 4, 4, 4]);
    assert_eq!(said(&found), "Misclassified as 4, first at step 3.");
    found.job.attack.target = Some(4);
    assert_eq!(said(&found), "Reached the target 4, first at step 3.");
    found.job.attack.target = Some(5);
    assert_eq!(said(&found), "Misclassified as 4, not the target 5, first at step 3.");
    says(&mut found, [7; 12]);
    assert_eq!(said(&found), "Misclassified as 7 without any attack, and after 10 steps.");
    says(&mut found, [5; 12]);
    assert_eq!(said(&found), "Misclassified as 5, which is the target, without any attack, and after 10 steps.");
}

#[test]
fn figures_leave_with_their_numbers() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 5);
    let mut window = window(digits_run(), [1024.0, 900.0], true);
    answer(&mut window, &mut engine);
    let panel = &window.state().panel;
    let (shown, plane) = (panel.inspection.clone().unwrap(), panel.shown_map.clone().unwrap());
    let triple = export::triple(&shown, 10, &window.state().run, set.class_names()).unwrap();
    assert_eq!(triple.csv.lines().count(), 1 + 64);
    assert!(triple.svg.contains("PGD-10, untargeted, L∞, ε 8/255"), "the attack is named");
    let figure = export::map(&plane, Some(3), &window.state().run, set.class_names()).unwrap();
    assert_eq!(figure.csv.lines().count(), 1 + 33 * 33);
    let [right, up] = plane.axes.map(|axis| map::describe(axis, set.class_names()));
    assert!(
        figure.svg.contains("test image 0") && figure.svg.contains(&right) && figure.svg.contains(&up),
        "{right} {up}"
    );
    assert_eq!(right, "the attack");
    let first: Vec<&str> = figure.csv.lines().nth(1).unwrap().split(',').collect();
    assert!(first[0].starts_with('-') && !first[1].starts_with('-'), "rows begin top left: {first:?}");
}

#[test]
fn it_looks_well_at_every_size() {
    let digits = digits().unwrap().train;
    let mut grey = network(&digits, 60);
    let colours = sample::images(40);
    let mut colour = network(&colours, 25);
    for (name, size, dark) in [
        ("inspector-wide", [1600.0, 1000.0], true),
        ("inspector-wide-light", [1600.0, 1000.0], false),
        ("inspector-light", [1024.0, 700.0], false),
        ("inspector-small", [512.0, 350.0], true),
        ("inspector-narrow", [480.0, 1000.0], false),
    ] {
        for (what, engine) in [("grey", &mut grey), ("colour", &mut colour)] {
            let run = if what == "grey" { digits_run() } else { sample::run() };
            let mut window = window(run, size, dark);
            window.state_mut().panel.attack.target = Some(3);
            window.state_mut().panel.map.extent = (what == "grey").then_some(96.0);
            window.run_steps(4);
            answer(&mut window, engine);
            assert!(window.state().panel.shown_map.is_some(), "{name}");
            shoot(&mut window, &format!("{name}-{what}"));
            if name == "inspector-small" {
                for part in ["Settings", "Decision map"] {
                    window.get_by_label(part).click();
                    window.run_steps(3);
                    shoot(&mut window, &format!("{name}-{what}-{}", &part[..3]));
                }
            }
        }
    }
}

#[test]
fn a_small_panel_shows_one_part_at_a_time() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 0);
    let mut window = window(digits_run(), [512.0, 350.0], true);
    answer(&mut window, &mut engine);
    let shows = |window: &Window<'_>, label: &str| window.query_all_by_label(label).count() > 0;
    assert!(shows(&window, "original") && !shows(&window, "Epsilon"));
    window.get_by_label("Settings").click();
    window.run_steps(3);
    assert!(!shows(&window, "original") && shows(&window, "Epsilon"));
    window.get_by_label("Decision map").click();
    window.run_steps(3);
    assert!(window.query_by_label("Decision map of test image 0, at step 10 of 10").is_some());
}

/// The slider moves the mark in the map, and a click on the path moves the slider.
#[test]
fn the_map_shows_the_step_of_the_slider() {
    let set = digits().unwrap().test;
    let mut engine = network(&set, 20);
    let mut window = window(digits_run(), [1600.0, 1000.0], true);
    window.state_mut().panel.attack.random_start = false;
    window.run_steps(4);
    answer(&mut window, &mut engine);
    let at = |window: &Window<'_>, step: usize| {
        window.query_by_label(&format!("Decision map of test image 0, at step {step} of 10")).is_some()
    };
    assert!(at(&window, 10));
    window.get_by_label("First step").click();
    window.run_steps(2);
    assert!(at(&window, 0));
    window.get_by_label("Step forward").click();
    window.run_steps(2);
    assert!(at(&window, 1));
    // The end of the attack is on the first axis, half way to the border.
    let rect = window.get_by_label_contains("Decision map of").rect();
    let side = rect.width() - 26.0;
    let end = egui::pos2(rect.left() + 24.0 + 0.75 * side, rect.top() + 0.5 * side);
    window.hover_at(end);
    window.drag_at(end);
    window.drop_at(end);
    window.run_steps(3);
    assert!(at(&window, 10), "{:?}", window.state().panel.shown_map.as_ref().unwrap().path);
    assert!(window.query_by_label("After step 10").is_some());
    shoot(&mut window, "inspector-map");
    // A map of another attack than the one on the left has no mark.
    window.state_mut().panel.attack.epsilon = 20.0;
    window.run_steps(4);
    if let Some(job) = jobs(&window).last() {
        let found = worker::inspect(&mut engine, job, Some(18.5)).unwrap();
        window.state_mut().run.inspection = Some(Arc::new(found));
    }
    window.run_steps(2);
    assert!(window.query_by_label("Decision map of test image 0").is_some());
}
