//! Pictures of every panel, compared with those in `tests/snapshots/`: both themes, a laptop and a large screen, at
//! normal and double scale. `UPDATE_SNAPSHOTS=1 cargo test --lib snapshots` regenerates them.

use std::time::{Duration, Instant};

use egui_kittest::kittest::Queryable;
use egui_kittest::{Harness, SnapshotOptions, SnapshotResults};

use super::context::{Action, Context, Panel};
use super::evaluation::{EvaluationStatus, EvaluationView};
use super::layout::PanelKind;
use super::panels::Panels;
use super::testing::{Stage, harness};
use super::{runs, sample, view::RunView};
use crate::config::MethodChoice;
use crate::evaluate::robustness::Held;
use crate::worker::evaluation::EvaluationUpdate;

/// Number of pixels that may differ in a panel of text and boxes: only what rounding in the rasteriser changes.
const PLAIN: usize = 20;
/// The same for a panel with curves, whose edges are antialiased over many pixels.
const CURVES: usize = 200;

/// Name of the pictures of a study in the comparison.
const STUDY: &str = "compare-study";

/// One panel, selected at run time.
struct One {
    panels: Panels,
    kind: PanelKind,
    /// Whether the comparison is of a study.
    study: bool,
}

impl Panel for One {
    fn ui(&mut self, ui: &mut egui::Ui, context: &mut Context<'_>) {
        self.panels.of(self.kind).ui(ui, context);
    }
}

/// Compares all pictures of one panel.
fn check(kind: PanelKind, run: impl Fn() -> RunView, tolerance: usize) {
    let title = kind.title().to_lowercase().replace(' ', "-");
    check_as(&title, kind, run, EvaluationView::default, tolerance);
}

/// Compares all pictures of one panel, which begin with `name`.
fn check_as(
    name: &str,
    kind: PanelKind,
    run: impl Fn() -> RunView,
    evaluation: impl Fn() -> EvaluationView,
    tolerance: usize,
) {
    let mut results = SnapshotResults::new();
    for (width, height) in [(1024.0, 700.0), (1600.0, 1000.0)] {
        for scale in [1.0, 2.0] {
            for dark in [true, false] {
                let mut stage = Stage::new(One { panels: Panels::default(), kind, study: name == STUDY }, run());
                let _ = stage.form.load_preset("cifar10-small");
                let mut harness = harness(stage, [width / scale, height / scale], scale, dark);
                prepare(&mut harness, kind);
                show_evaluation(&mut harness, evaluation());
                let theme = if dark { "dark" } else { "light" };
                let name = format!("{name}-{width}x{height}-{scale}x-{theme}");
                let options = SnapshotOptions::new().max_failed_pixels(tolerance);
                results.add(harness.try_snapshot_options(name, &options));
            }
        }
    }
}

/// Shows an evaluation, in a small panel the part with its newest numbers.
fn show_evaluation(harness: &mut Harness<'_, Stage<One>>, evaluation: EvaluationView) {
    if evaluation.status == EvaluationStatus::Empty {
        return;
    }
    let tab = if evaluation.is_running() { "Progress" } else { "Results" };
    let prospect = harness.state().evaluation.prospect.clone();
    harness.state_mut().evaluation = EvaluationView { prospect, ..evaluation };
    harness.run_steps(2);
    if harness.query_by_label(tab).is_some() {
        harness.get_by_label(tab).click();
    }
    harness.run_steps(4);
}

/// Runs frames until the panel is idle, and answers its requests.
fn prepare(harness: &mut Harness<'_, Stage<One>>, kind: PanelKind) {
    harness.run_steps(4);
    if kind == PanelKind::Experiment {
        // Another thread looks at the disk and for adapters.
        let began = Instant::now();
        while harness.query_all_by_label_contains("looking").count() > 0 {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
            harness.run_steps(2);
        }
        harness.run_steps(4);
    }
    if kind == PanelKind::Compare {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["fair-tat-0", "pgd-at-0", "study"].map(|name| directory.path().join(name));
        harness.state_mut().settings.compare = if harness.state().panel.study {
            let text = runs::testing::study_text("[0, 1, 2]", "");
            // One run is missing.
            runs::testing::write_study(&paths[2], &text, |run| {
                let missing = run.arm == "FAIR-TAT" && run.seed == 2;
                (!missing).then(|| runs::testing::robust_classes(run, 10))
            });
            paths[2..].to_vec()
        } else {
            runs::testing::write(&paths[0], MethodChoice::FairTat, 12, Some(0.42));
            runs::testing::write(&paths[1], MethodChoice::At, 9, Some(0.36));
            paths[..2].to_vec()
        };
        let began = Instant::now();
        harness.run_steps(10);
        while harness.query_all_by_label("reading…").count() > 0 {
            assert!(began.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(10));
            harness.run_steps(2);
        }
        harness.run_steps(4);
    }
    if kind == PanelKind::Evaluate {
        for label in ["AutoAttack", "PGD", "Best of this run"] {
            harness.get_by_label(label).click();
            harness.run_steps(4);
        }
        let stage = harness.state_mut();
        for action in std::mem::take(&mut stage.actions) {
            if let Action::LookAtEvaluation(job) = action {
                let prospect = sample::evaluation::prospect(&job, &Held::Nothing);
                stage.evaluation.apply(EvaluationUpdate::Prospect(prospect));
            }
        }
        harness.run_steps(4);
    }
    if kind == PanelKind::Inspector {
        // Changes are requested after a short delay.
        std::thread::sleep(Duration::from_millis(200));
        harness.run_steps(12);
        let stage = harness.state_mut();
        for action in std::mem::take(&mut stage.actions) {
            if let Action::Worker(request) = action
                && let Some(update) = sample::answer(&request)
            {
                stage.run.apply(update, Instant::now());
            }
        }
        harness.run_steps(6);
    }
}

#[test]
fn experiment() {
    check(PanelKind::Experiment, sample::run, PLAIN);
}

#[test]
fn story() {
    check(PanelKind::Story, sample::run, CURVES);
}

#[test]
fn story_of_two_classes() {
    check_as("story-2", PanelKind::Story, || sample::of_classes(2), EvaluationView::default, CURVES);
}

#[test]
fn story_of_a_hundred_classes() {
    check_as("story-100", PanelKind::Story, || sample::of_classes(100), EvaluationView::default, CURVES);
}

#[test]
fn story_with_class_series() {
    check_as("story-series", PanelKind::Story, || sample::with_series(10), EvaluationView::default, CURVES);
}

#[test]
fn training() {
    check(PanelKind::Training, sample::run, CURVES);
}

#[test]
fn fairness() {
    check(PanelKind::Fairness, sample::run, CURVES);
}

#[test]
fn fairness_of_two_classes() {
    check_as("fairness-2", PanelKind::Fairness, || sample::run_with(2), EvaluationView::default, CURVES);
}

#[test]
fn fairness_of_a_hundred_classes() {
    check_as("fairness-100", PanelKind::Fairness, || sample::run_with(100), EvaluationView::default, CURVES);
}

#[test]
fn examples() {
    check(PanelKind::Examples, sample::run, PLAIN);
}

#[test]
fn inspector() {
    check(PanelKind::Inspector, sample::run, CURVES);
}

#[test]
fn evaluate() {
    check(PanelKind::Evaluate, sample::run, PLAIN);
}

#[test]
fn evaluate_running() {
    let evaluation = || sample::evaluation::view(sample::evaluation::first(3));
    check_as("evaluate-running", PanelKind::Evaluate, sample::run, evaluation, PLAIN);
}

#[test]
fn evaluate_done() {
    let warnings = [
        "Square, which needs no gradient, leaves 38.0 % where the attacks with gradients leave 39.0 %: gradients may be \
         masked",
    ];
    let evaluation = || sample::evaluation::view(sample::evaluation::all(&warnings));
    check_as("evaluate-done", PanelKind::Evaluate, sample::run, evaluation, PLAIN);
}

#[test]
fn compare() {
    check(PanelKind::Compare, sample::run, CURVES);
}

#[test]
fn compare_study() {
    check_as(STUDY, PanelKind::Compare, sample::run, EvaluationView::default, CURVES);
}

#[test]
fn watch() {
    check(PanelKind::Watch, sample::run, PLAIN);
}

#[test]
fn learn() {
    check(PanelKind::Learn, sample::run, PLAIN);
}

#[test]
fn log() {
    check(PanelKind::Log, sample::run, PLAIN);
}
