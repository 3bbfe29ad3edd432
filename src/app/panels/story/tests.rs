use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;

use super::*;
use crate::app::sample;
use crate::app::testing::{Stage, harness, shoot};
use crate::app::view::RunView;
use crate::worker::{Hold, Update};

type Window<'a> = Harness<'a, Stage<Story>>;

fn window<'a>(run: RunView, size: [f32; 2]) -> Window<'a> {
    let mut window = harness(Stage::new(Story::default(), run), size, 1.0, true);
    window.run_steps(30);
    window
}

fn row(window: &Window<'_>, class: &str) -> String {
    let label = |node: egui_kittest::Node<'_>| {
        use egui_kittest::kittest::NodeT;
        let node = node.accesskit_node();
        node.label().or_else(|| node.value()).unwrap_or_default()
    };
    let start = format!("{class}: ");
    let all: Vec<String> = window.query_all_by_label_contains(&start).map(label).collect();
    all.into_iter().find(|text| text.starts_with(&start)).unwrap()
}

#[test]
fn a_running_epoch_is_told_from_its_mistakes_to_its_radii() {
    let run = sample::run();
    let (now, last) = (run.now().unwrap().clone(), run.epochs.last().unwrap().clone());
    let mut window = window(run, [1200.0, 700.0]);
    shoot(&mut window, "story");
    let cat = row(&window, "cat");
    for text in [
        format!("CFPS, epoch 18 {}", percent(last.classes[3].cfps)),
        format!("Target, epoch 19 {}", percent(now.targets.as_ref().unwrap()[3])),
        format!("Epsilon, epoch 19 {}/255", (25_500.0 * now.epsilon[3]).round() / 100.0),
        format!("robust {} [", percent(last.classes[3].val_robust_accuracy)),
        "most often mistaken for dog".to_owned(),
    ] {
        assert!(cat.contains(&text), "{text} in {cat}");
    }
    window.get_by_label_contains("Worst: cat");
    window.get_by_label_contains("of all mistakes under attack landed on");
    // A hold shows at once.
    let mut holds = vec![Hold::default(); 10];
    holds[3].epsilon = Some(2.0 / 255.0);
    window.state_mut().run.apply(Update::Held(holds), std::time::Instant::now());
    window.run_steps(30);
    let cat = row(&window, "cat");
    assert!(cat.contains("2/255; by the rule"), "{cat}");
}

#[test]
fn even_targets_do_not_follow_from_the_mistakes() {
    let mut run = sample::run();
    let mut now = run.now().unwrap().clone();
    now.targets = Some(std::sync::Arc::from([0.1; 10]));
    run.apply(Update::Batch(now), std::time::Instant::now());
    let window = window(run, [1200.0, 700.0]);
    window.get_by_label_contains("Epoch 19 attacks towards all classes equally often.");
    assert!(window.query_by_label_contains("as often as an even draw").is_none());
}

#[test]
fn the_numbers_above_the_rows_keep_to_one_line() {
    for width in [620.0, 770.0, 1200.0] {
        let window = window(sample::run(), [width, 700.0]);
        let places = ["Worst: cat", "Gap ", "Robust ", "Clean "].map(|label| {
            let found = window
                .query_all_by_label_contains(label)
                .map(|node| node.rect())
                .min_by(|a, b| a.top().total_cmp(&b.top()));
            found.unwrap()
        });
        assert!(places.iter().all(|place| place.height() < 34.0), "{width}: {places:?}");
        let lines = places.map(|place| (place.center().y - places[0].center().y).abs());
        assert!(width < 700.0 || lines.iter().all(|off| *off < 2.0), "{width}: {places:?}");
    }
}

#[test]
fn an_earlier_epoch_is_told_with_what_came_of_it() {
    let run = sample::run();
    let (before, then) = (run.epochs[3].clone(), run.epochs[4].clone());
    let mut window = window(run, [1200.0, 700.0]);
    window.state_mut().focus.epoch = Some(4);
    window.run_steps(30);
    let dog = row(&window, "dog");
    for text in [
        format!("CFPS, epoch 4 {}", percent(before.classes[5].cfps)),
        format!("Target, epoch 5 {}", percent(then.classes[5].target_probability.unwrap())),
        format!("robust {} [", percent(then.classes[5].val_robust_accuracy)),
    ] {
        assert!(dog.contains(&text), "{text} in {dog}");
    }
    // Nothing was counted before the first.
    window.state_mut().focus.epoch = Some(0);
    window.run_steps(30);
    assert!(!row(&window, "dog").contains("CFPS"));
}

#[test]
fn a_mistake_leads_to_its_images_and_a_row_is_highlighted_under_the_pointer() {
    let mut window = window(sample::run(), [1200.0, 700.0]);
    window.get_by_label_contains("of the images of cat are taken for dog").click();
    window.run_steps(4);
    let cell = window.state().actions.iter().find_map(|action| match action {
        Action::ShowCell(cell) => Some((cell.of, cell.epoch, cell.label, cell.prediction)),
        _ => None,
    });
    assert_eq!(cell, Some((crate::worker::Counted::Validation, 17, Some(3), 5)));
    let at = window.get_by_label_contains("of the images of bird are taken for").rect().left_center();
    window.hover_at(at);
    window.run_steps(4);
    assert_eq!(crate::app::focus::pointed(&window.ctx), Some(2));
}

#[test]
fn rows_can_be_sorted_and_many_classes_searched() {
    let mut window = window(sample::of_classes(100), [1100.0, 700.0]);
    shoot(&mut window, "story-100");
    window.get_by_label("Search classes").focus();
    window.run_steps(2);
    window.get_by_label("Search classes").type_text("class 7");
    window.run_steps(30);
    let shown = window.query_all_by_label_contains("; robust ").count();
    assert_eq!(shown, 11, "7 and 70 to 79");
    window.get_by_label("Search classes").type_text("77 x");
    window.run_steps(4);
    window.get_by_label_contains("No class has");
    let panel = &mut window.state_mut().panel;
    panel.search.clear();
    let facts = told::facts(&sample::of_classes(100), crate::app::focus::Focus::default());
    let names = sample::of_classes(100).class_names().to_vec();
    let order = panel.rows_in_order(&names, &facts);
    let robust = |class: usize| facts.rows[class].robust.unwrap().value;
    assert!(order.windows(2).all(|pair| robust(pair[0]) <= robust(pair[1])));
    panel.order = Some(Order::MostMistakes);
    let order = panel.rows_in_order(&names, &facts);
    let cfps = |class: usize| facts.rows[class].cfps.unwrap();
    assert!(order.windows(2).all(|pair| cfps(pair[0]) >= cfps(pair[1])));
}

#[test]
fn two_classes_and_a_run_without_targets_are_told_too() {
    let mut window = window(sample::of_classes(2), [700.0, 500.0]);
    shoot(&mut window, "story-2");
    assert!(row(&window, "class 0").contains("robust"));
    let mut run = sample::run();
    for epoch in &mut run.epochs {
        epoch.classes.iter_mut().for_each(|row| row.target_probability = None);
    }
    run.batches.iter_mut().for_each(|batch| batch.targets = None);
    let window = self::window(run, [1200.0, 700.0]);
    assert!(!row(&window, "cat").contains("Target"));
    assert!(window.query_by_label_contains("attacks towards it").is_none());
}

#[test]
fn the_export_has_the_numbers_that_are_shown() {
    let run = sample::run();
    let facts = told::facts(&run, crate::app::focus::Focus { epoch: Some(4) });
    let csv = told::csv(run.class_names(), &facts);
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 11);
    let cells: Vec<&str> = lines[4].split(',').collect();
    let row = &run.epochs[4].classes[3];
    assert_eq!(cells[..3], ["3", "cat", "3"]);
    assert_eq!(cells[3].parse::<f64>().unwrap(), run.epochs[3].classes[3].cfps);
    assert_eq!(cells[6].parse::<f64>().unwrap(), row.epsilon);
    assert_eq!(cells[9].parse::<f64>().unwrap(), row.val_robust_accuracy);
    assert_eq!(cells[12], "dog");
    let experiment = run.experiment.as_deref().unwrap();
    let context = crate::evaluate::figure_context(experiment, run.class_names());
    assert!(figures::story(&facts, &context).unwrap().svg.contains("Target, epoch 5"));
}

#[test]
fn what_a_method_adapts_is_a_column_of_the_epoch_shown() {
    let mut window = window(sample::with_series(10), [1500.0, 700.0]);
    shoot(&mut window, "story-series");
    assert!(window.query_by_label("Weight of the loss, epoch 18").is_some());
    let cat = row(&window, "cat");
    assert!(cat.contains("Weight of the loss, epoch 18 1.070; Attack: 1 targeted, 0 untargeted, epoch 18 1"), "{cat}");
    window.get_by_label_contains("even share, base epsilon, equal weights");
    window.state_mut().focus.epoch = Some(4);
    window.run_steps(30);
    let cat = row(&window, "cat");
    assert!(cat.contains("Weight of the loss, epoch 5 0.940"), "{cat}");
    // Numbers and figure are those that are shown.
    let run = sample::with_series(10);
    let facts = told::facts(&run, crate::app::focus::Focus { epoch: Some(4) });
    let csv = told::csv(run.class_names(), &facts);
    let line = |number: usize| csv.lines().nth(number).unwrap().split(',').collect::<Vec<_>>();
    assert_eq!(line(0)[14..], ["series_epoch", "weight", "targeted"]);
    assert_eq!(line(4)[14..], ["4", "0.9400000000000001", "0"]);
    let context = crate::evaluate::figure_context(run.experiment.as_deref().unwrap(), run.class_names());
    let svg = figures::story(&facts, &context).unwrap().svg;
    assert!(svg.contains("Weight of the loss, epoch 5") && svg.contains(">0.940<"), "{svg}");
    if let Some(directory) = std::env::var_os("SHOTS") {
        let png = figures::png(&svg).unwrap();
        std::fs::write(std::path::Path::new(&directory).join("story-figure.png"), png).unwrap();
    }
}

#[test]
fn columns_without_room_are_named_and_their_values_stay_in_the_rows() {
    let mut window = window(sample::with_series(10), [512.0, 640.0]);
    shoot(&mut window, "story-series-narrow");
    let left_out = window.get_by_label_contains("No room for Weight of the loss, Attack: 1 targeted, 0 untargeted");
    assert!(left_out.rect().bottom() <= 640.0, "{:?}", left_out.rect());
    assert!(window.query_by_label("Weight of the loss").is_none());
    assert!(row(&window, "cat").contains("Weight of the loss, epoch 18 1.070"));
    // A low panel scrolls as a whole.
    let mut low = self::window(sample::with_series(10), [512.0, 350.0]);
    let bottom = |low: &Window<'_>| low.get_by_label_contains("No room for").rect().bottom();
    assert!(bottom(&low) > 350.0);
    low.hover_at(egui::pos2(300.0, 60.0));
    low.event(egui::Event::MouseWheel {
        unit: egui::MouseWheelUnit::Point,
        delta: egui::vec2(0.0, -2000.0),
        phase: egui::TouchPhase::Move,
        source: egui::MouseWheelSource::Unknown,
        modifiers: egui::Modifiers::NONE,
    });
    low.run_steps(60);
    shoot(&mut low, "story-series-low");
    assert!(bottom(&low) <= 350.0, "{}", bottom(&low));
    for classes in [2, 100] {
        let mut window = self::window(sample::with_series(classes), [1500.0, 700.0]);
        shoot(&mut window, &format!("story-series-{classes}"));
        assert!(window.query_by_label("Weight of the loss, epoch 18").is_some());
        assert!(window.query_by_label_contains("No room for").is_none());
    }
}

#[test]
fn a_class_that_is_pointed_at_elsewhere_is_highlighted() {
    let mut window = window(sample::run(), [1200.0, 700.0]);
    let rect = window.get_by_label_contains("cat: CFPS").rect();
    assert!(crate::app::testing::is_highlighted(&mut window, rect, 3));
    assert!(!crate::app::testing::is_highlighted(&mut window, rect, 5));
}
