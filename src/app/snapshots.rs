//! Pictures of every panel, compared with those in `tests/snapshots/`: both themes, a laptop and a large screen, at once and
//! at twice the size. `UPDATE_SNAPSHOTS=1 cargo test --lib snapshots` makes them anew.

use egui_kittest::{SnapshotOptions, SnapshotResults};

use super::context::{Context, Panel};
use super::layout::PanelKind;
use super::panels::Panels;
use super::testing::{Stage, harness};
use super::{sample, view::RunView};

/// Pixels that may differ where a panel is text and boxes: none but what a rounding in the rasteriser moves.
const PLAIN: usize = 20;
/// Where it has curves, whose edges are smoothed over many pixels.
const CURVES: usize = 200;

/// One panel out of all.
struct One {
    panels: Panels,
    kind: PanelKind,
}

impl Panel for One {
    fn ui(&mut self, ui: &mut egui::Ui, context: &mut Context<'_>) {
        self.panels.of(self.kind).ui(ui, context);
    }
}

/// Compares one panel in all its pictures.
fn check(kind: PanelKind, run: impl Fn() -> RunView, tolerance: usize) {
    let mut results = SnapshotResults::new();
    for (width, height) in [(1024.0, 700.0), (1600.0, 1000.0)] {
        for scale in [1.0, 2.0] {
            for dark in [true, false] {
                let stage = Stage::new(One { panels: Panels::default(), kind }, run());
                let mut harness = harness(stage, [width / scale, height / scale], scale, dark);
                harness.run_steps(8);
                let (theme, title) = (if dark { "dark" } else { "light" }, kind.title().to_lowercase());
                let name = format!("{}-{width}x{height}-{scale}x-{theme}", title.replace(' ', "-"));
                let options = SnapshotOptions::new().max_failed_pixels(tolerance);
                results.add(harness.try_snapshot_options(name, &options));
            }
        }
    }
}

#[test]
fn experiment() {
    check(PanelKind::Experiment, sample::run, PLAIN);
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
fn examples() {
    check(PanelKind::Examples, sample::run, PLAIN);
}

#[test]
fn inspector() {
    check(PanelKind::Inspector, sample::run, CURVES);
}

#[test]
fn compare() {
    check(PanelKind::Compare, sample::run, PLAIN);
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
