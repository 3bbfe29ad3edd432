use resvg::usvg::roxmltree::{Document, Node};
use resvg::usvg::{self, Tree};

use super::*;

const NAMES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

pub(super) fn context(classes: usize) -> Context {
    Context {
        title: "FAIR-TAT on digits, digits-cnn".to_owned(),
        attack: "PGD-20, ε 8/255, step 2/255, 1 random start, seed 0".to_owned(),
        train_attack: "targeted PGD-10, class-wise ε".to_owned(),
        train_robust: "train robust, targeted",
        statistics: "training images under targeted PGD-10, class-wise ε".to_owned(),
        frozen_after: None,
        class_names: (0..classes).map(|class| format!("{}{}", NAMES[class % 10], class / 10)).collect(),
        base_epsilon: 8.0 / 255.0,
    }
}

/// Distinct, reproducible values in `[0, 1]`.
fn value(seed: usize) -> f64 {
    (seed as f64 * 0.618_033_988_75).fract()
}

fn metrics(epochs: u32) -> Vec<MetricsRow> {
    let row = |epoch: u32| MetricsRow {
        epoch,
        lr: 0.1,
        train_loss: 1.0,
        train_clean_accuracy: None,
        train_robust_accuracy: value(epoch as usize),
        val_clean_accuracy: value(epoch as usize + 1),
        val_clean_worst: value(epoch as usize + 2),
        val_robust_accuracy: 0.375,
        val_robust_worst: value(epoch as usize + 4),
        seconds: 1.0,
        seconds_attack: 0.8,
        seconds_update: 0.1,
        seconds_statistics: 0.1,
        val_attack: String::new(),
        val_without_gradient: None,
        method: String::new(),
        val_robust_worst_tenth: None,
    };
    (0..epochs).map(row).collect()
}

fn classes(epochs: u32, classes: u32) -> Vec<ClassRow> {
    let row = |epoch: u32, class: u32| {
        let seed = (epoch * 131 + class) as usize;
        ClassRow {
            epoch,
            class,
            name: String::new(),
            epsilon: (4.0 + 8.0 * value(seed)) / 255.0,
            target_probability: Some(value(seed + 1) / f64::from(classes)),
            cfps: 2.0 * value(seed + 2) / f64::from(classes),
            train_robust_accuracy: value(seed + 3),
            train_clean_accuracy: None,
            val_clean_accuracy: value(seed + 4),
            val_robust_accuracy: value(seed + 5),
            series: Vec::new(),
        }
    };
    (0..epochs).flat_map(|epoch| (0..classes).map(move |class| row(epoch, class))).collect()
}

fn confusion(classes: usize) -> Vec<u64> {
    (0..classes * classes)
        .map(|cell| if cell % (classes + 1) == 0 { 70 } else { (30.0 * value(cell)) as u64 })
        .collect()
}

fn example(channels: usize, height: usize, width: usize) -> Example {
    let size = channels * height * width;
    let original: Vec<f32> = (0..size).map(|pixel| value(pixel) as f32).collect();
    let adversarial = original.iter().enumerate().map(|(i, &pixel)| pixel + if i % 2 == 0 { 0.03 } else { -0.03 });
    Example {
        adversarial: adversarial.collect(),
        original,
        channels,
        height,
        width,
        label: 3,
        target: Some(5),
        prediction: 5,
        clean_prediction: Some(3),
        epsilon: 8.0 / 255.0,
    }
}

fn every_figure(context: &Context, epochs: u32) -> Vec<Figure> {
    let count = context.class_names.len();
    let rows = classes(epochs, count as u32);
    [
        accuracy_curves(&metrics(epochs), context),
        cfps_heatmap(&rows, context),
        confusion_matrix(&confusion(count), CellUnit::Percent, context),
        confusion_matrix(&confusion(count), CellUnit::Count, context),
        confusion_matrix(&confusion(count), CellUnit::ColumnPercent, context),
        confusion_difference(&confusion(count), &vec![1; count * count], CellUnit::Percent, "epoch 2", context),
        class_epsilon(&vec![0.02; count], &vec![0.03; count], context),
        loss_curve(&metrics(epochs), &[(0.5, 2.0), (1.0, 1.5)], context),
        learning_rate(&metrics(epochs), context),
        time_by_epoch(&metrics(epochs), context),
        epsilon_curves(&rows, context),
        target_distribution(&rows, context),
        class_accuracy(&rows, &metrics(epochs), context),
        adversarial_examples(&[example(1, 8, 8), example(3, 32, 32)], context),
    ]
    .into_iter()
    .map(Result::unwrap)
    .collect()
}

fn elements<'a>(document: &'a Document<'a>, tag: &str) -> Vec<Node<'a, 'a>> {
    document.descendants().filter(|node| node.has_tag_name(tag)).collect()
}

pub(super) fn texts(figure: &Figure) -> Vec<String> {
    let document = Document::parse(&figure.svg).unwrap();
    elements(&document, "text").iter().map(|node| node.text().unwrap_or_default().to_owned()).collect()
}

pub(super) fn count(figure: &Figure, tag: &str, class: Option<&str>) -> usize {
    let document = Document::parse(&figure.svg).unwrap();
    elements(&document, tag).iter().filter(|node| class.is_none() || node.attribute("class") == class).count()
}

pub(super) fn says(figure: &Figure, needle: &str) -> bool {
    // Paragraphs are wrapped into several text elements.
    texts(figure).join(" ").contains(needle)
}

/// Asserts that every number of the document is finite and that every text is within the canvas as the renderer
/// measures it.
pub(super) fn check(figure: &Figure) {
    for wrong in ["NaN", "inf\"", "-inf"] {
        assert!(!figure.svg.contains(wrong), "{}: {wrong}", figure.name);
    }
    let mut fonts = fontdb::Database::new();
    fonts.load_font_data(text::REGULAR.to_vec());
    fonts.load_font_data(text::SEMI_BOLD.to_vec());
    let options = usvg::Options { fontdb: fonts.into(), ..usvg::Options::default() };
    let tree = Tree::from_str(&figure.svg, &options).unwrap();
    let size = tree.size();
    let bounds = tree.root().abs_layer_bounding_box();
    assert!(bounds.left() >= -0.5 && bounds.top() >= -0.5, "{}: {bounds:?}", figure.name);
    assert!(
        bounds.right() <= size.width() + 0.5 && bounds.bottom() <= size.height() + 0.5,
        "{}: {bounds:?} is beyond {size:?}",
        figure.name
    );
}

#[test]
fn figures_stay_within_their_canvas_at_any_size() {
    for (classes, epochs) in [(10, 20), (10, 1), (10, 200), (100, 3), (1000, 2), (2, 5), (1, 2)] {
        for figure in every_figure(&context(classes), epochs) {
            check(&figure);
        }
    }
}

#[test]
fn a_robust_number_names_its_attack() {
    let context = context(10);
    for figure in every_figure(&context, 3) {
        let attacks: &[&str] = match figure.name {
            "accuracy" => &[&context.attack, &context.train_attack],
            "confusion" | "confusion-difference" | "classes" => &[&context.attack],
            "epsilon" | "epsilon-now" => &["training attack"],
            "learning-rate" | "time" => &[],
            _ => &[&context.train_attack],
        };
        for attack in attacks {
            assert!(says(&figure, attack), "{} lacks {attack}: {:?}", figure.name, texts(&figure));
        }
        assert!(says(&figure, &context.title), "{}", figure.name);
    }
    let mut untargeted = example(1, 8, 8);
    untargeted.target = None;
    assert!(says(&adversarial_examples(&[untargeted], &context).unwrap(), &context.attack));
}

#[test]
fn curves_have_a_line_for_each_accuracy() {
    let figure = accuracy_curves(&metrics(20), &context(10)).unwrap();
    // Five lines and six leaders, chance being drawn as a straight line.
    assert_eq!(count(&figure, "polyline", None), 11);
    assert!(says(&figure, "robust 37.5%") && says(&figure, "chance 10.0%") && says(&figure, "Epoch"));

    let single = accuracy_curves(&metrics(1), &context(10)).unwrap();
    assert_eq!(count(&single, "circle", None), 5);
    assert_eq!(count(&single, "polyline", None), 6);
}

/// Rows of a run whose validation attack changes before each of these epochs.
fn attacked(epochs: u32, changes: &[(u32, &str)]) -> Vec<MetricsRow> {
    let mut rows = metrics(epochs);
    for row in &mut rows {
        let now = changes.iter().rev().find(|change| change.0 <= row.epoch);
        row.val_attack = now.map_or("PGD-10, L∞, ε 2/255, step 1/255", |change| change.1).into();
    }
    rows
}

#[test]
fn a_change_of_the_validation_attack_is_marked_and_breaks_the_robust_lines() {
    let strong = "PGD-10, L∞, ε 16/255, step 1/255";
    let once = accuracy_curves(&attacked(20, &[(8, strong)]), &context(10)).unwrap();
    check(&once);
    let plain = accuracy_curves(&metrics(20), &context(10)).unwrap();
    // Mean and worst class under the attack are two lines each.
    assert_eq!(count(&once, "polyline", None), count(&plain, "polyline", None) + 2);
    assert_eq!(count(&once, "line", None), count(&plain, "line", None) + 1);
    assert!(says(&once, "validation attack changed"), "{:?}", texts(&once));
    assert!(says(&once, "Changed after epoch 8 (vertical line): ε 2/255 → 16/255"), "{:?}", texts(&once));
    assert!(says(&once, "left of the vertical line under PGD-10, L∞, ε 2/255"), "{:?}", texts(&once));
    assert!(says(&once, "train robust, targeted"));

    let recalibrated = format!("{strong}, batch norm recalibrated on up to 8 batches");
    let changes = [(1, strong), (19, "PGD-50, L∞, ε 16/255, step 1/255"), (21, recalibrated.as_str())];
    let often = accuracy_curves(&attacked(25, &changes), &context(10)).unwrap();
    check(&often);
    // Each label is complete, however close its line is to an edge.
    assert_eq!(texts(&often).iter().filter(|text| *text == "validation attack changed").count(), 3);
    assert!(says(&often, "Changed after epoch 21 (vertical line): PGD-50 → PGD-10"));
    // A change of the recalibration also interrupts the clean lines: 3 + 3 more robust lines and 1 + 1 more clean
    // lines, of which single epochs are dots.
    let lines = count(&often, "polyline", None) + count(&often, "circle", None);
    assert_eq!(lines, count(&plain, "polyline", None) + 8);

    let many: Vec<(u32, &str)> = (1..20).map(|epoch| (epoch, if epoch % 2 == 0 { "b" } else { "a" })).collect();
    let many = accuracy_curves(&attacked(20, &many), &context(10)).unwrap();
    check(&many);
    assert!(
        !says(&many, "Changed after") && says(&many, "Vertical lines: changes of that attack"),
        "{:?}",
        texts(&many)
    );

    if let Some(directory) = std::env::var_os("SHOTS") {
        for (name, figure) in [("accuracy-changed", &once), ("accuracy-changed-often", &often)] {
            let path = Path::new(&directory).join(format!("{name}.png"));
            write_atomic(&path, &figure.png().unwrap()).unwrap();
        }
    }
}

#[test]
fn a_missing_value_interrupts_its_line() {
    let mut rows = metrics(7);
    rows[3].val_robust_accuracy = f64::NAN;
    let figure = accuracy_curves(&rows, &context(10)).unwrap();
    assert_eq!(count(&figure, "polyline", None), 12);
    check(&figure);
}

#[test]
fn a_repeated_epoch_counts_once_and_late() {
    let mut rows = metrics(3);
    rows.push(MetricsRow { val_robust_accuracy: 0.875, ..rows[2].clone() });
    let figure = accuracy_curves(&rows, &context(10)).unwrap();
    assert!(says(&figure, "robust 87.5%") && !says(&figure, "robust 37.5%"));
}

#[test]
fn the_heatmap_has_a_cell_with_its_number_for_each_class_and_epoch() {
    let mut rows = classes(4, 10);
    rows[0].cfps = 0.271_8;
    let figure = cfps_heatmap(&rows, &context(10)).unwrap();
    assert_eq!(count(&figure, "rect", Some("cell")), 40);
    let texts = texts(&figure);
    assert!(texts.contains(&"27.2".to_owned()), "{texts:?}");
    assert!(texts.contains(&"10% chance".to_owned()) && texts.contains(&"≥ 30%".to_owned()));
    assert!(NAMES.iter().all(|name| texts.contains(&format!("{name}0"))));
}

#[test]
fn a_large_heatmap_is_one_image_and_names_every_class() {
    let figure = cfps_heatmap(&classes(100, 100), &context(100)).unwrap();
    assert_eq!(count(&figure, "rect", Some("cell")), 0);
    assert_eq!(count(&figure, "image", None), 1);
    let names = texts(&figure).iter().filter(|text| text.starts_with(|c: char| c.is_ascii_lowercase())).count();
    assert_eq!(names, 100);
}

#[test]
fn the_confusion_matrix_shows_shares_of_the_row_and_lists_errors() {
    let mut context = context(3);
    context.class_names = ["cat", "dog", "owl"].map(String::from).to_vec();
    let counts = [60, 40, 0, 10, 190, 0, 1, 2, 7];
    let figure = confusion_matrix(&counts, CellUnit::Percent, &context).unwrap();
    assert_eq!(count(&figure, "rect", Some("cell")), 9);
    let found = texts(&figure);
    for text in ["60", "40", "5", "95", "20", "70", "cat → dog", "40.0%", "owl → cat"] {
        assert!(found.contains(&text.to_owned()), "{text} is not in {found:?}");
    }
    let figure = confusion_matrix(&counts, CellUnit::Count, &context).unwrap();
    assert!(texts(&figure).contains(&"190".to_owned()));

    let document = Document::parse(&figure.svg).unwrap();
    let fills: Vec<_> = elements(&document, "rect")
        .iter()
        .filter(|node| node.attribute("class") == Some("cell"))
        .map(|node| node.attribute("fill").unwrap().to_owned())
        .collect();
    assert!(fills[0] == fills[4] && fills[4] == fills[8], "the diagonal has one colour");
    assert!(fills[1] != fills[0] && fills[1] != fills[3]);
    assert_eq!(fills[2], "#ffffff");
}

#[test]
fn columns_and_differences_by_hand() {
    let mut context = context(2);
    context.class_names = ["cat", "dog"].map(String::from).to_vec();
    let (now, before) = ([60, 40, 20, 60], [50, 50, 20, 60]);
    let found = texts(&confusion_matrix(&now, CellUnit::ColumnPercent, &context).unwrap());
    for text in ["75", "40", "25", "60", "40.0%"] {
        assert!(found.contains(&text.to_owned()), "{text} is not in {found:?}");
    }
    let found = texts(&confusion_difference(&now, &before, CellUnit::Percent, "epoch 1", &context).unwrap());
    for text in ["+10", "−10", "0", "Difference from epoch 1, in percentage points of the true class"] {
        assert!(found.contains(&text.to_owned()), "{text} is not in {found:?}");
    }
    let equal = confusion_difference(&now, &now, CellUnit::Count, "itself", &context).unwrap();
    assert!(texts(&equal).iter().filter(|text| *text == "0").count() >= 4);
    let error = confusion_difference(&now, &[1; 3], CellUnit::Count, "x", &context).unwrap_err().to_string();
    assert!(error.contains('3') && error.contains('4'), "{error}");
}

#[test]
fn times_are_stacked_in_proportion() {
    let figure = time_by_epoch(&metrics(2), &context(2)).unwrap();
    let document = Document::parse(&figure.svg).unwrap();
    let height = |fill: &str| {
        let rects = elements(&document, "rect");
        let of = |node: &Node<'_, '_>| node.attribute("height").unwrap().parse::<f64>().unwrap();
        rects.iter().filter(|node| node.attribute("fill") == Some(fill)).map(of).fold(0.0, f64::max)
    };
    // 0.8 s of attack, 0.1 s of update.
    assert!((height("#d55e00") / height("#0072b2") - 8.0).abs() < 0.1);
}

#[test]
fn epsilons_are_labelled_at_their_ends() {
    let mut rows = classes(6, 10);
    rows[53].epsilon = 11.5 / 255.0;
    let figure = epsilon_curves(&rows, &context(10)).unwrap();
    // A line and a leader for each class, and a leader for the base.
    assert_eq!(count(&figure, "polyline", None), 21);
    assert!(says(&figure, "cat0 11.5/255") && says(&figure, "base 8/255") && says(&figure, "0.031"));

    let many = epsilon_curves(&classes(6, 100), &context(100)).unwrap();
    assert_eq!(count(&many, "polyline", None), 111);

    let mut equal = classes(6, 10);
    equal.iter_mut().for_each(|row| row.epsilon = 8.0 / 255.0);
    assert!(says(&epsilon_curves(&equal, &context(10)).unwrap(), "all classes 8/255"));
}

#[test]
fn targets_stand_beside_the_mistakes_of_the_epoch_before() {
    let mut rows = classes(3, 10);
    rows[12].cfps = 0.171;
    rows[22].target_probability = Some(0.123);
    let figure = target_distribution(&rows, &context(10)).unwrap();
    for text in ["CFPS, epoch 2", "Target probability, epoch 3", "17.1%", "12.3%", "uniform 1/10 = 10%"] {
        assert!(says(&figure, text), "{text}");
    }
    rows.retain(|row| row.epoch != 1);
    let figure = target_distribution(&rows, &context(10)).unwrap();
    assert!(!says(&figure, "CFPS, epoch"), "the epoch before is not there");
}

#[test]
fn the_worst_class_stands_last_with_the_gap() {
    let mut rows = classes(1, 4);
    for (row, accuracy) in rows.iter_mut().zip([0.5, 0.25, f64::NAN, 0.75]) {
        row.val_robust_accuracy = accuracy;
    }
    let figure = class_accuracy(&rows, &[], &context(4)).unwrap();
    assert!(says(&figure, "gap 50.0 points") && says(&figure, "mean robust 50.0%"));
    // Classes of different sizes: the mean over images is that of metrics.csv.
    let mut of_epoch = metrics(1);
    of_epoch[0].val_robust_accuracy = 0.4125;
    let figure = class_accuracy(&rows, &of_epoch, &context(4)).unwrap();
    assert!(says(&figure, &format!("mean robust {}", axes::percent(0.4125))));
    let texts = texts(&figure);
    let place = |name: &str| texts.iter().position(|text| text == name).unwrap();
    assert!(place("cat0") < place("airplane0") && place("airplane0") < place("automobile0"));
    check(&figure);
}

#[test]
fn examples_show_three_images_each_and_their_story() {
    let examples: Vec<Example> = (0..13).map(|_| example(3, 32, 32)).collect();
    let figure = adversarial_examples(&examples, &context(10)).unwrap();
    assert_eq!(count(&figure, "image", None), 39);
    let texts = texts(&figure);
    let written = |name: &str| texts.iter().filter(|text| *text == name).count();
    assert_eq!((written("cat0"), written("dog0"), written("8/255")), (13, 26, 13));
    assert!(says(&figure, "Perturbation: 15 × (adversarial − original) on mid grey"));

    let document = Document::parse(&figure.svg).unwrap();
    for image in elements(&document, "image") {
        assert!(image.attribute("style").unwrap().contains("pixelated"));
        let side: f64 = image.attribute("width").unwrap().parse().unwrap();
        assert_eq!((side * 2.0) % 32.0, 0.0, "pixels of the image are whole pixels of the PNG");
    }
}

#[test]
fn odd_images_are_drawn_or_refused() {
    for (channels, height, width) in [(1, 8, 8), (1, 28, 28), (3, 64, 64), (4, 5, 7), (1, 1, 1), (3, 300, 200)] {
        check(&adversarial_examples(&[example(channels, height, width)], &context(10)).unwrap());
    }
    let mut broken = example(3, 8, 8);
    broken.adversarial.pop();
    let error = adversarial_examples(&[example(3, 8, 8), broken], &context(10)).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("adversarial image 1") && message.contains("191") && message.contains("192"), "{message}");

    let mut unknown = example(1, 8, 8);
    unknown.adversarial[3] = f32::INFINITY;
    unknown.epsilon = f64::NAN;
    unknown.prediction = 99;
    let figure = adversarial_examples(&[unknown], &context(10)).unwrap();
    check(&figure);
    assert!(says(&figure, "class 99"));
}

#[test]
fn values_that_are_not_finite_are_left_out() {
    let context = Context { base_epsilon: f64::NAN, ..context(10) };
    for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, 1e300] {
        let mut rows = classes(5, 10);
        for row in rows.iter_mut().step_by(3) {
            row.epsilon = wrong;
            row.target_probability = Some(wrong);
            row.cfps = wrong;
            row.val_clean_accuracy = wrong;
            row.val_robust_accuracy = wrong;
        }
        for figure in [
            cfps_heatmap(&rows, &context),
            epsilon_curves(&rows, &context),
            target_distribution(&rows, &context),
            class_accuracy(&rows, &[], &context),
        ] {
            check(&figure.unwrap());
        }
        let mut rows = metrics(3);
        rows[1].val_clean_worst = wrong;
        rows[2].val_robust_accuracy = wrong;
        check(&accuracy_curves(&rows, &context).unwrap());
    }
}

#[test]
fn hostile_names_stay_text() {
    let mut context = context(10);
    context.title = "<script>alert(1)</script> & \"Müller\"\u{0}".to_owned();
    context.attack = "]]><!-- ".repeat(30);
    let hostile =
        ["<b>&amp;</b>", "\u{0}\u{1}\u{b}", "\"><svg/onload=x>", "猫猫猫", "🐈‍⬛", "\u{202e}tac", "", " ", "e\u{301}"];
    for (name, hostile) in context.class_names.iter_mut().zip(hostile) {
        *name = hostile.to_owned();
    }
    context.class_names[9] = "very long ".repeat(500);
    for figure in every_figure(&context, 4) {
        let document = Document::parse(&figure.svg).unwrap();
        for tag in ["script", "b"] {
            assert!(elements(&document, tag).is_empty(), "{}", figure.name);
        }
        assert_eq!(elements(&document, "svg").len(), 1);
        let named_by_class = !matches!(figure.name, "accuracy" | "examples" | "loss" | "learning-rate" | "time");
        assert!(!named_by_class || says(&figure, "class 6"), "{}: a blank name is its number", figure.name);
        assert!(says(&figure, "<script>alert(1)</script> & \"Müller\"\u{fffd}"), "{}", figure.name);
        figure.png().unwrap();
    }
}

#[test]
fn nothing_to_draw_is_an_error_that_says_so() {
    let context = context(10);
    for error in [
        accuracy_curves(&[], &context),
        cfps_heatmap(&[], &context),
        confusion_matrix(&[], CellUnit::Percent, &context),
        confusion_matrix(&[0; 100], CellUnit::Percent, &context),
        epsilon_curves(&[], &context),
        target_distribution(&[], &context),
        class_accuracy(&[], &[], &context),
        adversarial_examples(&[], &context),
        confusion_difference(&[], &[], CellUnit::Percent, "epoch 0", &context),
        class_epsilon(&[], &[], &context),
        loss_curve(&[], &[], &context),
        learning_rate(&[], &context),
        time_by_epoch(&[], &context),
    ] {
        assert!(matches!(error, Err(FigureError::Empty { .. })), "{error:?}");
    }
    let nameless = Context { class_names: Vec::new(), ..context.clone() };
    assert!(matches!(cfps_heatmap(&classes(1, 1), &nameless), Err(FigureError::Empty { .. })));
    let error = confusion_matrix(&[1; 99], CellUnit::Percent, &context).unwrap_err().to_string();
    assert!(error.contains("99") && error.contains("100"), "{error}");
    let error = cfps_heatmap(&classes(1, 11), &context).unwrap_err();
    assert!(matches!(error, FigureError::Class { class: 10, count: 10, .. }), "{error}");
}

#[test]
fn files_come_in_pairs_and_the_png_has_twice_the_size() {
    let dir = tempfile::tempdir().unwrap();
    let (metrics, classes) = (metrics(3), classes(3, 10));
    let paths = draw_all(dir.path(), &metrics, &classes, &confusion(10), &[example(1, 8, 8)], &context(10)).unwrap();
    assert_eq!(paths.len(), 14);
    for pair in paths.chunks(2) {
        let svg = std::fs::read_to_string(&pair[0]).unwrap();
        let document = Document::parse(&svg).unwrap();
        let side = |name| document.root_element().attribute(name).unwrap().parse::<u32>().unwrap();
        let png = image::ImageReader::open(&pair[1]).unwrap().with_guessed_format().unwrap().decode().unwrap();
        assert_eq!((png.width(), png.height()), (2 * side("width"), 2 * side("height")), "{:?}", pair[1]);
        let dark = png.to_luma8().pixels().filter(|pixel| pixel.0[0] < 100).count();
        assert!(dark > 1000, "{:?}: text and lines are drawn", pair[1]);
    }
    assert!(dir.path().join("figures/accuracy.svg").exists());
}

#[test]
fn a_run_without_some_data_gets_the_other_figures() {
    let dir = tempfile::tempdir().unwrap();
    let paths = draw_all(dir.path(), &metrics(3), &[], &[], &[], &context(10)).unwrap();
    assert_eq!(paths.len(), 2);
    let nothing = draw_all(dir.path(), &[], &[], &[], &[], &context(10));
    assert!(matches!(nothing, Err(FigureError::Empty { figure: "accuracy", .. })), "{nothing:?}");
    let wrong = draw_all(dir.path(), &metrics(3), &[], &[1, 2], &[], &context(10));
    assert!(matches!(wrong, Err(FigureError::Length { figure: "confusion", .. })), "{wrong:?}");

    std::fs::write(dir.path().join("taken"), b"").unwrap();
    let refused = draw_all(&dir.path().join("taken"), &metrics(3), &[], &[], &[], &context(10));
    assert!(matches!(refused, Err(FigureError::File(_))), "{refused:?}");
}

/// Whatever the number of classes and epochs, a figure fits a screen, every class that it shows has its name, and it says
/// which of many classes these are.
#[test]
fn figures_of_1000_classes_have_a_bounded_size_and_say_what_they_show() {
    for (count, epochs) in [(128, 3), (129, 1), (1000, 2), (1000, 100)] {
        let mut context = context(count);
        context.class_names =
            (0..count).map(|class| format!("a class with a name of some length, number {class}")).collect();
        let rows = classes(epochs, count as u32);
        let counts = confusion(count);
        let equal = vec![1; count * count];
        for figure in [
            cfps_heatmap(&rows, &context),
            confusion_matrix(&counts, CellUnit::Percent, &context),
            confusion_matrix(&counts, CellUnit::Count, &context),
            confusion_difference(&counts, &equal, CellUnit::Percent, "epoch 2", &context),
            class_epsilon(&vec![0.02; count], &vec![0.03; count], &context),
            epsilon_curves(&rows, &context),
            target_distribution(&rows, &context),
            class_accuracy(&rows, &[], &context),
        ]
        .map(Result::unwrap)
        {
            let name = figure.name;
            let png = figure.png().unwrap();
            let side = |at: usize| u32::from_be_bytes(png[at..at + 4].try_into().unwrap());
            assert!(side(16) < 4096 && side(20) < 4096, "{name}, {count}: {} × {}", side(16), side(20));
            assert!(figure.svg.len() < 1 << 20, "{name}, {count}: {} bytes", figure.svg.len());
            let told = texts(&figure).join(" ");
            let expected = if name == "epsilon" { "of the others in grey" } else { "Shown: the " };
            assert_eq!(told.contains(expected), count > 128, "{name}, {count}: {told}");
        }
    }
}

/// The confusion matrix of many classes shows those of the most frequent errors, the bars the best and the worst.
#[test]
fn of_many_classes_those_that_matter_are_shown() {
    let context = context(1000);
    let mut counts = vec![0; 1_000_000];
    (0..1000).for_each(|class| counts[class * 1001] = 10);
    counts[777 * 1000 + 3] = 9;
    let told = texts(&confusion_matrix(&counts, CellUnit::Count, &context).unwrap());
    for class in [777, 3] {
        assert!(told.contains(&context.class_names[class]), "{told:?}");
    }
    assert!(!told.contains(&context.class_names[500]), "{told:?}");
    let mut rows = classes(1, 1000);
    rows.iter_mut().for_each(|row| row.val_robust_accuracy = 0.5 + 0.0001 * f64::from(row.class));
    rows[500].val_robust_accuracy = 0.0;
    let told = texts(&class_accuracy(&rows, &[], &context).unwrap());
    for class in [500, 0, 30, 999, 992] {
        assert!(told.contains(&context.class_names[class]), "{class}: {told:?}");
    }
    assert!(!told.contains(&context.class_names[600]), "{told:?}");
    assert!(told.contains(&"… 960 classes in between …".to_owned()), "{told:?}");
    assert!(told.iter().any(|text| text.contains("worst 10% of the classes: 50.0%")), "{told:?}");
}
