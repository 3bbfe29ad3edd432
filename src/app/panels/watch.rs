//! Failure watch: known failure modes of this kind of training, named when they appear.

use egui::{Align, Color32, Layout, RichText, Sense, Stroke, Ui};

use crate::app::context::{Action, Context, Panel};
use crate::app::layout::PanelKind;
use crate::app::theme::{self, Palette};
use crate::app::view::RunView;
use crate::app::widgets::markdown::{measure, reading_size, unbroken};
use crate::app::widgets::{empty, strong, weak};
use crate::evaluate::signatures::{self, Kind, Point, Reading, Setup, Severity, Signature, SignatureState};
use crate::worker::EpochRecord;

/// What the readings depend on: number of epochs read and the last of them, whether the run failed, and its setup. The cache
/// key, so that they are computed once per epoch.
type Key = (usize, Option<u32>, bool, Setup);

/// Part of the message of [`crate::engine::EngineError::NotFinite`]: the window only receives failures as text.
const NOT_FINITE: &str = "training diverged";

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Watch {
    readings: Option<(Key, Vec<Reading>)>,
}

/// The signatures that are present in a run now; the user is told about each new one.
pub fn present(run: &RunView) -> Vec<Signature> {
    read(run, &run.epochs, &setup_of(run)).iter().filter_map(Reading::signature).collect()
}

/// The reading of every signature after the last of these epochs. A NaN loss ends a run before its epoch has a row, so it
/// is detected from the failure alone, once all epochs are read.
fn read(run: &RunView, epochs: &[EpochRecord], setup: &Setup) -> Vec<Reading> {
    let mut readings = signatures::readings(&points(epochs), setup);
    let whole = epochs.len() == run.epochs.len();
    if let Some(failure) = run.failure.as_ref().filter(|failure| whole && failure.what.contains(NOT_FINITE))
        && let Some(diverged) = readings.iter_mut().find(|reading| reading.kind == Kind::Diverged)
    {
        let since = run.now().map_or(run.epochs.len() as u32, |batch| batch.epoch);
        diverged.state = SignatureState::Present { since };
        diverged.numbers.clone_from(&failure.what);
    }
    readings
}

fn setup_of(run: &RunView) -> Setup {
    let images = run.info.as_ref().map_or(0, |info| info.validation.len());
    run.experiment.as_deref().map_or_else(Setup::default, |experiment| Setup::of(experiment, images))
}

fn points(epochs: &[EpochRecord]) -> Vec<Point> {
    epochs.iter().map(|epoch| Point::new(&epoch.metrics, &epoch.classes)).collect()
}

impl Panel for Watch {
    fn ui(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        if context.run.epochs.is_empty() && context.run.failure.is_none() {
            return empty(
                ui,
                "Nothing to watch yet",
                "After each epoch the numbers are searched for known ways of going wrong.",
            );
        }
        let epochs = context.focus.until(context.run);
        let readings = self.readings(context.run, epochs);
        let present = readings.iter().filter(|reading| matches!(reading.state, SignatureState::Present { .. })).count();
        let text = match present {
            0 => "No failure signature is present.".to_owned(),
            1 => "One failure signature is present.".to_owned(),
            n => format!("{n} failure signatures are present."),
        };
        ui.label(strong(text).size(1.1 * reading_size(ui.available_width())));
        if let Some(last) = epochs.last().filter(|_| !context.focus.is_live()) {
            let text = format!("As it read after epoch {}.", last.metrics.epoch + 1);
            ui.label(weak(ui, text));
        }
        ui.add_space(2.0);
        let mut order: Vec<&Reading> = readings.iter().collect();
        order.sort_by_key(|reading| rank(reading.state));
        let mut show = None;
        egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
            for reading in order {
                row(ui, reading, context, &mut show);
            }
        });
        if let Some(panel) = show {
            context.ask(Action::Show(panel));
        }
    }
}

impl Watch {
    fn readings(&mut self, run: &RunView, epochs: &[EpochRecord]) -> Vec<Reading> {
        let last = epochs.last().map(|epoch| epoch.metrics.epoch);
        let key = (epochs.len(), last, run.failure.is_some(), setup_of(run));
        match &self.readings {
            Some((known, readings)) if *known == key => readings.clone(),
            _ => {
                let readings = read(run, epochs, &key.3);
                self.readings = Some((key, readings.clone()));
                readings
            }
        }
    }
}

/// Present signatures come first, those that cannot appear last.
fn rank(state: SignatureState) -> u8 {
    match state {
        SignatureState::Present { .. } => 0,
        SignatureState::Watching { suspected: true, .. } => 1,
        SignatureState::Quiet | SignatureState::Watching { .. } => 2,
        SignatureState::NotApplicable => 3,
    }
}

fn color_of(kind: Kind, state: SignatureState, palette: &Palette) -> Color32 {
    match (state, kind.severity()) {
        (SignatureState::Present { .. }, Severity::Error) => palette.error,
        (SignatureState::Present { .. }, Severity::Warning) => palette.worst,
        (SignatureState::Present { .. }, Severity::Notice) | (SignatureState::Watching { suspected: true, .. }, _) => {
            palette.warning
        }
        (SignatureState::Quiet, _) => palette.good,
        _ => palette.weak,
    }
}

fn describe(state: SignatureState) -> String {
    let epochs = |n: u32| if n == 1 { "1 more epoch".to_owned() } else { format!("{n} more epochs") };
    match state {
        SignatureState::Present { since } => format!("present since epoch {}", since + 1),
        SignatureState::Watching { needs, suspected: true } => format!("suspected, needs {}", epochs(needs)),
        SignatureState::Watching { needs, suspected: false } => format!("watching, needs {}", epochs(needs)),
        SignatureState::Quiet => "quiet".into(),
        SignatureState::NotApplicable => "not in this run".into(),
    }
}

/// The panel that shows the signature.
const fn place(kind: Kind) -> PanelKind {
    match kind {
        Kind::DeadClass
        | Kind::TargetCollapse
        | Kind::WeightsConcentrated
        | Kind::WeightAtMinimum
        | Kind::MultipliersAtLimit
        | Kind::BudgetUnused => PanelKind::Fairness,
        _ => PanelKind::Training,
    }
}

fn row(ui: &mut Ui, reading: &Reading, context: &Context<'_>, show: &mut Option<PanelKind>) {
    let palette = theme::palette(ui);
    let color = color_of(reading.kind, reading.state, palette);
    let size = 0.95 * reading_size(ui.available_width());
    let present = matches!(reading.state, SignatureState::Present { .. });
    let frame = egui::Frame::new()
        .fill(palette.card)
        .stroke((1.0, if present { color } else { palette.line }))
        .corner_radius(6)
        .inner_margin(egui::Margin { left: 18, right: 12, top: 8, bottom: 8 });
    let rect = frame
        .show(ui, |ui| {
            ui.set_width(ui.available_width());
            let wide = ui.available_width() > 520.0;
            let graph = !reading.series.is_empty() && reading.series.iter().any(|series| series.values.len() > 1);
            ui.horizontal_top(|ui| {
                let side = if wide && graph { 190.0 } else { 0.0 };
                ui.vertical(|ui| {
                    ui.set_width(ui.available_width() - side);
                    head(ui, reading, context, size, color);
                    if !reading.numbers.is_empty() {
                        ui.label(
                            RichText::new(unbroken(&reading.numbers)).size(0.95 * size).line_height(Some(1.35 * size)),
                        );
                    }
                });
                if side > 0.0 {
                    sparkline(ui, reading, egui::vec2(176.0, 54.0));
                }
            });
            if graph && !wide && (present || matches!(reading.state, SignatureState::Watching { suspected: true, .. }))
            {
                sparkline(ui, reading, egui::vec2(ui.available_width(), 54.0));
            }
            if present {
                ui.vertical(|ui| {
                    ui.set_max_width((1.4 * measure(size)).min(ui.available_width()));
                    ui.add_space(2.0);
                    let running = |text: RichText| text.size(size).line_height(Some(1.45 * size));
                    ui.label(running(RichText::new(reading.kind.explanation())));
                    ui.horizontal_wrapped(|ui| {
                        ui.spacing_mut().item_spacing.x = 0.0;
                        ui.label(running(strong("What to do: ")));
                        ui.label(running(RichText::new(reading.kind.advice())));
                    });
                });
                let place = place(reading.kind);
                let button = ui.button("Show me");
                button.widget_info(|| {
                    let name = format!("Show me: {}", reading.kind.title());
                    egui::WidgetInfo::labeled(egui::Role::Button, true, name)
                });
                if button.on_hover_text(format!("Go to the panel {}.", place.title())).clicked() {
                    *show = Some(place);
                }
            }
        })
        .response
        .rect;
    let bar = egui::Rect::from_min_size(rect.min, egui::vec2(5.0, rect.height()));
    ui.painter().rect_filled(bar, egui::CornerRadius { nw: 6, sw: 6, ..egui::CornerRadius::ZERO }, color);
}

/// Title and state.
fn head(ui: &mut Ui, reading: &Reading, context: &Context<'_>, size: f32, color: Color32) {
    ui.horizontal_wrapped(|ui| {
        let title = ui.label(strong(reading.kind.title()).size(1.05 * size));
        title.on_hover_ui(|ui| {
            ui.label(strong("Named when"));
            ui.label(reading.kind.rule());
            if let Some(tooltip) = context.glossary.tooltip(reading.kind.term()) {
                ui.separator();
                ui.label(tooltip);
            }
        });
        ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
            ui.label(RichText::new(describe(reading.state)).color(color).size(0.95 * size));
        });
    });
}

/// Small plots of the curves that decide; the second one is dashed.
fn sparkline(ui: &mut Ui, reading: &Reading, size: egui::Vec2) {
    let palette = theme::palette(ui);
    let (rect, response) = ui.allocate_exact_size(size, Sense::hover());
    let known: Vec<f64> =
        reading.series.iter().flat_map(|series| series.values.iter().flatten().copied()).chain(reading.limit).collect();
    let (low, high) =
        known.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let count = reading.series.iter().map(|series| series.values.len()).max().unwrap_or(0);
    ui.painter().rect_filled(rect, 3.0, ui.visuals().faint_bg_color);
    if !(low.is_finite() && high.is_finite()) || count < 2 {
        return;
    }
    let inner = rect.shrink(5.0);
    let span = (high - low).max(1e-9);
    let at = |i: usize, value: f64| {
        egui::pos2(
            inner.left() + inner.width() * i as f32 / (count - 1) as f32,
            inner.bottom() - inner.height() * ((value - low) / span) as f32,
        )
    };
    if let Some(limit) = reading.limit {
        let ends = [at(0, limit), at(count - 1, limit)];
        ui.painter().extend(egui::Shape::dashed_line(&ends, Stroke::new(1.0, palette.worst), 3.0, 3.0));
    }
    for change in &reading.changes {
        // Between the last epoch under one attack and the first under another.
        let x = at(*change, low).x - 0.5 * inner.width() / (count - 1) as f32;
        ui.painter().vline(x, rect.y_range(), Stroke::new(1.0, palette.weak));
    }
    for (i, series) in reading.series.iter().enumerate() {
        let points: Vec<egui::Pos2> =
            series.values.iter().enumerate().filter_map(|(i, value)| value.map(|value| at(i, value))).collect();
        let stroke = Stroke::new(1.8, if i == 0 { palette.neutral } else { palette.accent });
        if i == 0 {
            ui.painter().line(points, stroke);
        } else {
            ui.painter().extend(egui::Shape::dashed_line(&points, stroke, 5.0, 3.0));
        }
    }
    if let SignatureState::Present { since } = reading.state {
        let x = at((since as usize).min(count - 1), low).x;
        ui.painter().vline(x, rect.y_range(), Stroke::new(1.0, palette.worst));
    }
    let names: Vec<String> = reading
        .series
        .iter()
        .enumerate()
        .map(|(i, series)| format!("{}: {}", ["solid", "dashed"][i.min(1)], series.name))
        .collect();
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, names.join("; ")));
    response.on_hover_ui(|ui| {
        for (series, name) in reading.series.iter().zip(&names) {
            let last = series.values.iter().rev().find_map(|value| *value);
            let last = last.map_or_else(String::new, |value| {
                if value <= 1.0 && reading.limit.is_none() {
                    format!(", now {:.1} %", 100.0 * value)
                } else {
                    format!(", now {value:.2}")
                }
            });
            ui.label(format!("{name}{last}"));
        }
        if let Some(limit) = reading.limit {
            ui.label(weak(ui, format!("dotted: {limit:.2}")));
        }
        if !reading.changes.is_empty() {
            ui.label(weak(ui, "vertical line: the validation attack changed"));
        }
    });
}

#[cfg(test)]
mod tests {
    use egui_kittest::kittest::Queryable;

    use super::*;
    use crate::app::sample;
    use crate::app::testing::{Stage, harness};

    /// The sample run with collapsing targets and a class that is lost, in its last six epochs.
    fn failing() -> RunView {
        let mut run = sample::run();
        for epoch in run.epochs.iter_mut().skip(12) {
            for class in &mut epoch.classes {
                class.target_probability = Some(if class.class == 3 { 0.91 } else { 0.01 });
                if class.class == 5 {
                    class.val_robust_accuracy = 0.0;
                }
            }
        }
        run
    }

    #[test]
    fn a_signature_is_shown_with_its_numbers_and_its_place() {
        let mut harness = harness(Stage::new(Watch::default(), failing()), [800.0, 900.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("2 failure signatures are present.").is_some());
        assert!(harness.query_by_label("Targets collapse onto few classes").is_some());
        // exp(-(0.91 ln 0.91 + 9 · 0.01 ln 0.01)) = 1.65
        assert!(harness.query_by_label_contains("Effective number of targets 1.6 of 10 classes").is_some());
        assert!(harness.query_by_label_contains("dog (validation, PGD-10, L∞").is_some());
        assert!(harness.query_by_label("present since epoch 13").is_some());
        harness.get_by_label("Show me: Targets collapse onto few classes").click();
        harness.run();
        assert!(matches!(&harness.state().actions[..], [Action::Show(PanelKind::Fairness)]));
    }

    #[test]
    fn class_series_are_watched_with_their_numbers() {
        use crate::config::MethodChoice;
        // Ten weights with mean 1, nearly all of it on two classes in the last epochs.
        let weight = |_: &str, epoch: u32, class: usize| match (epoch, class) {
            (0..10, _) => 2.0,
            (_, 3 | 5) => 4.8,
            _ => 0.05,
        };
        let run = sample::run_of(MethodChoice::Wat, 10, weight);
        let mut harness = harness(Stage::new(Watch::default(), run), [800.0, 1500.0], 1.0, false);
        harness.run();
        assert!(harness.query_by_label("One failure signature is present.").is_some());
        assert!(harness.query_by_label("present since epoch 11").is_some());
        assert!(harness.query_by_label_contains("Effective number of weights 2.5 of 10").is_some());
        crate::app::testing::shoot(&mut harness, "watch-weights");
        harness.get_by_label("Show me: Weights concentrate on few classes").click();
        harness.run();
        assert!(matches!(&harness.state().actions[..], [Action::Show(PanelKind::Fairness)]));
        // A method without series cannot show it.
        harness.state_mut().run = sample::run();
        harness.run();
        assert!(harness.query_by_label("No failure signature is present.").is_some());
        assert!(harness.query_all_by_label("not in this run").count() >= 4);
    }

    #[test]
    fn a_sound_run_is_quiet_and_an_epoch_more_is_seen() {
        let mut harness = harness(Stage::new(Watch::default(), sample::run()), [800.0, 900.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("No failure signature is present.").is_some());
        assert!(present(&harness.state().run).is_empty());
        let mut failing = failing();
        failing.epochs.truncate(14);
        harness.state_mut().run = failing;
        harness.run();
        assert!(harness.query_by_label("One failure signature is present.").is_some());
        assert_eq!(present(&harness.state().run)[0].kind, Kind::TargetCollapse);
    }

    #[test]
    fn an_earlier_epoch_reads_as_it_did_then() {
        let mut harness = harness(Stage::new(Watch::default(), failing()), [800.0, 900.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("2 failure signatures are present.").is_some());
        assert!(harness.query_by_label_contains("As it read").is_none());
        harness.state_mut().focus.epoch = Some(11);
        harness.run();
        assert!(harness.query_by_label("No failure signature is present.").is_some());
        assert!(harness.query_by_label("As it read after epoch 12.").is_some());
        // Too early to tell.
        harness.state_mut().focus.epoch = Some(3);
        harness.run();
        assert!(harness.query_all_by_label("watching, needs 2 more epochs").count() >= 2);
        // The failure that ended the run came after its last epoch.
        let error = crate::engine::EngineError::NotFinite { what: "loss".into(), batch: 64 };
        let (doing, what) = ("training".to_owned(), error.to_string());
        harness.state_mut().run.failure = Some(crate::worker::Failure { doing, what, advice: None, run: None });
        harness.run();
        assert!(harness.query_by_label("present since epoch 19").is_none());
        harness.state_mut().focus.epoch = None;
        harness.run();
        assert!(harness.query_by_label("present since epoch 19").is_some());
    }

    #[test]
    fn a_run_that_ended_in_not_a_number_has_diverged() {
        let error = crate::engine::EngineError::NotFinite { what: "loss".into(), batch: 64 };
        let failure =
            crate::worker::Failure { doing: "training".into(), what: error.to_string(), advice: None, run: None };
        let mut run = sample::run();
        run.failure = Some(failure.clone());
        assert_eq!(present(&run).iter().map(|s| (s.kind, s.since_epoch)).collect::<Vec<_>>(), [(Kind::Diverged, 18)]);
        let mut early = RunView::default();
        early.failure = Some(failure.clone());
        assert_eq!(present(&early)[0].since_epoch, 0);
        early.failure = Some(crate::worker::Failure { what: "the disk is full".into(), ..failure });
        assert!(present(&early).is_empty());
        let mut harness = harness(Stage::new(Watch::default(), run), [800.0, 900.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("present since epoch 19").is_some());
        assert!(harness.query_by_label_contains("NaN or infinity in the loss").is_some());
    }

    #[test]
    fn says_what_is_missing_before_there_is_anything() {
        let mut harness = harness(Stage::new(Watch::default(), RunView::default()), [600.0, 400.0], 1.0, true);
        harness.run();
        assert!(harness.query_by_label("Nothing to watch yet").is_some());
        let mut run = sample::run();
        run.epochs.truncate(4);
        harness.state_mut().run = run;
        harness.run();
        assert!(harness.query_all_by_label("watching, needs 2 more epochs").count() >= 2);
    }
}
