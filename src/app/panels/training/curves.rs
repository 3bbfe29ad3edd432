//! Accuracy, loss and learning rate over epochs.

use std::cell::Cell;
use std::collections::BTreeSet;

use egui::{Align2, Color32, Id, Ui};
use egui_plot::{GridMark, HoverPosition, Line, LineStyle, Plot, PlotPoint, PlotPoints, PlotUi, Text, VLine};

use super::class;
use super::numbers::{attack, extremes, gap};
use super::status::rate_text;
use crate::app::context::Context;
use crate::app::focus;
use crate::app::theme::{self, Palette};
use crate::app::view::RunView;
use crate::app::widgets::plot::{self, Curve, Scale, decimal};
use crate::app::widgets::{drawn, export_menu, percent, section, table, weak};
use crate::config::Schedule;
use crate::evaluate::figures;
use crate::train::{MetricsRow, ValidationChange, changes_between, methods, uninterrupted};
use crate::worker::EpochRecord;

/// Approximate number of points drawn for the loss within epochs.
const POINTS: usize = 1000;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Curves {
    hidden: BTreeSet<&'static str>,
    within: Within,
}

/// Loss within the epochs, thinned out; cached for the batches that it was computed from.
#[derive(Debug, Default)]
struct Within {
    key: (usize, u64, u64),
    points: Vec<PlotPoint>,
}

/// A line of the accuracy plot.
struct Series {
    name: &'static str,
    color: Color32,
    width: f32,
    style: LineStyle,
    value: fn(&EpochRecord) -> f64,
}

/// Where the validation attack changed. A line of the plot is interrupted there if its values are not comparable across
/// the change: those under the attack, and clean ones too if the evaluation of the network itself changed.
#[derive(Debug)]
struct Changes(Vec<ValidationChange>);

impl Changes {
    fn of(run: &RunView) -> Self {
        Self(changes_between(run.epochs.iter().map(|epoch| &epoch.metrics)))
    }

    fn breaking(&self, line: &Series, palette: &Palette) -> Vec<ValidationChange> {
        let (clean, train) = (line.color == palette.clean, line.color == palette.neutral);
        self.0.iter().filter(|change| !train && (!clean || change.concerns_clean())).cloned().collect()
    }

    /// Draws thin lines with a label at the top of the plot, one below the other. [`Self::note`] says what changed at
    /// each.
    fn draw(&self, plot: &mut PlotUi<'_>, palette: &Palette, last: f64) {
        for (i, change) in self.0.iter().enumerate() {
            // An epoch is drawn at its end, so the change lies between two epochs.
            let x = f64::from(change.epoch) + 0.5;
            let label = change.label();
            plot.vline(VLine::new(label, x).color(palette.weak).width(1.0).allow_hover(false));
            if self.0.len() > LABELLED_CHANGES {
                continue;
            }
            let (anchor, label) = match x > 0.6 * last {
                true => (Align2::RIGHT_TOP, "validation attack changed "),
                false => (Align2::LEFT_TOP, " validation attack changed"),
            };
            let at = PlotPoint::new(x, 1.06 - 0.07 * i as f64);
            let text = egui::RichText::new(label).size(12.0).color(palette.weak);
            plot.text(Text::new("validation attack", at, text).anchor(anchor).allow_hover(false));
        }
    }

    /// Says after which epochs the validation attack changed; empty if it never did.
    fn note(&self) -> String {
        let each: Vec<String> =
            self.0.iter().map(|change| format!("after epoch {} ({})", change.epoch, change.label())).collect();
        match each.is_empty() {
            true => String::new(),
            false => format!(
                " The validation attack changed {}: values before and after are not comparable.",
                each.join(", ")
            ),
        }
    }
}

/// With more changes than this, the lines have no labels.
const LABELLED_CHANGES: usize = 4;

/// Name of the line of the least robust class.
const WORST: &str = "robust, worst class";

/// `train_robust` is the label of accuracy under the training attack.
fn series(palette: &Palette, train_robust: &'static str) -> [Series; 6] {
    let line = |name, color, width, style, value| Series { name, color, width, style, value };
    let dashed = LineStyle::dashed_dense();
    [
        line("clean", palette.clean, 2.4, LineStyle::Solid, |e| e.metrics.val_clean_accuracy),
        line("clean, worst class", palette.clean, 1.5, dashed, |e| e.metrics.val_clean_worst),
        line("robust", palette.robust, 2.4, LineStyle::Solid, |e| e.metrics.val_robust_accuracy),
        line(WORST, palette.worst, 2.0, LineStyle::Solid, |e| e.metrics.val_robust_worst),
        line("gap", palette.gap, 1.6, LineStyle::Solid, |e| gap(e).unwrap_or(f64::NAN)),
        line(train_robust, palette.neutral, 1.2, LineStyle::dotted_dense(), |e| e.metrics.train_robust_accuracy),
    ]
}

/// The rows of `metrics.csv`.
pub(super) fn metrics(run: &RunView) -> Vec<MetricsRow> {
    run.epochs.iter().map(|epoch| epoch.metrics.clone()).collect()
}

/// An epoch is drawn at its end, as checkpoints are: the first one at 1.
pub(super) fn position(epoch: &EpochRecord) -> f64 {
    f64::from(epoch.metrics.epoch) + 1.0
}

/// A plot over epochs; all of them show the same range.
fn over_epochs<'a>(ui: &Ui, run: &RunView, name: &str, height: f32, scale: Scale) -> Plot<'a> {
    let color = theme::palette(ui).line.gamma_multiply(0.7);
    let group = Id::unique("epochs");
    let last = run.position().map_or(1.0, |(position, _)| position.max(1.0));
    plot::over_epochs(name, scale)
        .height(height)
        .link_axis(group, [true, false])
        .link_cursor(group, [true, false])
        .allow_scroll(false)
        .include_x(0.0)
        .include_x(last)
        .y_axis_min_width(46.0)
        .grid_color(color)
        .grid_fade(0.0)
        .set_margin_fraction(egui::vec2(0.01, 0.06))
}

/// The images of the training curves.
fn trained_on(run: &RunView) -> &'static str {
    match run.experiment.as_deref().is_none_or(crate::config::Experiment::trains_on_attacked_images) {
        true => "training images under the training attack",
        false => "training images, which are not attacked",
    }
}

/// The epoch that ended nearest to `x`.
fn nearest(epochs: &[EpochRecord], x: f64) -> Option<&EpochRecord> {
    epochs.iter().min_by(|a, b| (position(a) - x).abs().total_cmp(&(position(b) - x).abs()))
}

fn at(hover: &HoverPosition<'_>) -> f64 {
    match hover {
        HoverPosition::NearDataPoint { position, .. } | HoverPosition::Elsewhere { position } => position.x,
    }
}

/// A line at the end of the epoch that the window shows.
fn focus_line(plot: &mut PlotUi<'_>, epoch: Option<f64>, palette: &Palette) {
    if let Some(epoch) = epoch {
        plot.vline(VLine::new("epoch shown", epoch).color(palette.accent).width(1.5));
    }
}

impl Curves {
    pub(super) fn accuracy(&mut self, ui: &mut Ui, context: &mut Context<'_>, height: f32) {
        let run = context.run;
        let epoch = context.focus.epoch.map(|epoch| f64::from(epoch) + 1.0);
        let explanation = context.glossary.tooltip("robust-accuracy");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "accuracy", || {
                let rows = metrics(run);
                drawn(run, |figure| figures::accuracy_curves(&rows, figure), || accuracy_csv(run))
            });
        };
        section(ui, "Accuracy", explanation, controls, |ui| {
            if run.epochs.is_empty() {
                ui.label(weak(ui, "Curves begin when the first epoch is done."));
                return;
            }
            let palette = theme::palette(ui);
            let train_robust = run.experiment.as_deref().map_or("train robust", methods::train_robust);
            let all = series(palette, train_robust);
            let changes = Changes::of(run);
            ui.horizontal_wrapped(|ui| {
                ui.spacing_mut().item_spacing = egui::vec2(4.0, 2.0);
                ui.spacing_mut().interact_size.y = 18.0;
                for line in &all {
                    self.toggle(ui, line);
                }
            });
            // A class that the pointer finds in the plot, which cannot highlight it while it is drawn.
            let pointed = Cell::new(None);
            let shown: Vec<&Series> = all.iter().filter(|line| !self.hidden.contains(line.name)).collect();
            let reading = |hover: &HoverPosition<'_>| {
                let epoch = nearest(&run.epochs, at(hover))?;
                if let HoverPosition::NearDataPoint { plot_name, .. } = hover
                    && *plot_name == WORST
                {
                    pointed.set(extremes(epoch).map(|(worst, _)| worst.class as usize));
                }
                let lines: String =
                    shown.iter().map(|l| format!("\n{} {}", l.name, percent((l.value)(epoch)))).collect();
                Some(format!("After epoch {}{lines}", position(epoch)))
            };
            let plot = over_epochs(ui, run, "accuracy", height, Scale::Linear)
                .include_y(0.0)
                .include_y(1.0)
                .y_axis_formatter(|mark, _| format!("{:.0} %", 100.0 * mark.value))
                .label_formatter(reading);
            let last = run.position().map_or(1.0, |(position, _)| position.max(1.0));
            let highlighted = focus::highlighted(ui).filter(|class| *class < run.class_names().len());
            let dark = ui.visuals().dark_mode;
            plot.show(ui, |plot| {
                focus_line(plot, epoch, palette);
                changes.draw(plot, palette, last);
                for line in &shown {
                    let breaks = changes.breaking(line, palette);
                    let Series { name, color, width, style, .. } = **line;
                    let curve = Curve { name, color, width, style, hover: true };
                    for part in uninterrupted(&run.epochs, &breaks, |epoch| epoch.metrics.epoch) {
                        curve.draw(plot, part.iter().map(|e| [position(e), (line.value)(e)]).collect());
                    }
                }
                if let Some(class) = highlighted {
                    class::draw(plot, run, &changes.0, class, theme::class_color(class, dark));
                }
            });
            if let Some(class) = pointed.get() {
                focus::highlight(ui, class);
            }
            let text = format!(
                "Validation split. Robust, worst class and gap: under {}.{} Dotted, {}: {}.",
                attack(run),
                changes.note(),
                train_robust,
                trained_on(run)
            );
            ui.label(weak(ui, text).small());
        });
    }

    /// An entry of the legend, which shows or hides its line.
    fn toggle(&mut self, ui: &mut Ui, line: &Series) {
        let shown = !self.hidden.contains(line.name);
        let color = if shown { line.color } else { theme::palette(ui).line };
        let text = egui::RichText::new(line.name).small();
        let text = if shown { text } else { text.color(theme::palette(ui).weak).strikethrough() };
        let swatch = egui::Atom::custom(egui::IdSalt::new("swatch"), egui::vec2(16.0, 10.0));
        let button = egui::Button::new((swatch, text)).small().frame(false);
        let found = button.atom_ui(ui);
        if let Some(rect) = found.rect(egui::IdSalt::new("swatch")) {
            let ends = [rect.left_center(), rect.right_center()];
            let stroke = egui::Stroke::new(line.width, color);
            match line.style {
                LineStyle::Solid => _ = ui.painter().line_segment(ends, stroke),
                _ => ui.painter().extend(egui::Shape::dashed_line(&ends, stroke, 3.5, 2.5)),
            }
        }
        let response = found.response.on_hover_text(if shown { "Hide this line" } else { "Show this line" });
        response.widget_info(|| egui::WidgetInfo::selected(egui::accesskit::Role::CheckBox, true, shown, line.name));
        if response.clicked() && !self.hidden.remove(line.name) {
            self.hidden.insert(line.name);
        }
    }

    pub(super) fn loss(&mut self, ui: &mut Ui, context: &mut Context<'_>, height: f32) {
        let run = context.run;
        let epoch = context.focus.epoch.map(|epoch| f64::from(epoch) + 1.0);
        self.within.update(run);
        let within = &self.within.points;
        let explanation = context.glossary.tooltip("outer-loss");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "loss", || {
                let (rows, within) = (metrics(run), within.iter().map(|p| (p.x, p.y)).collect::<Vec<_>>());
                drawn(run, |figure| figures::loss_curve(&rows, &within, figure), || loss_csv(run, &within))
            });
        };
        section(ui, "Training loss", explanation, controls, |ui| {
            if run.epochs.is_empty() && within.is_empty() {
                ui.label(weak(ui, "Begins with the first batch."));
                return;
            }
            let palette = theme::palette(ui);
            let reading = |hover: &HoverPosition<'_>| match hover {
                HoverPosition::NearDataPoint { plot_name, position, .. } => {
                    Some(format!("{plot_name}\n{:.2} epochs done\nloss {:.4}", position.x, position.y))
                }
                HoverPosition::Elsewhere { position } => {
                    let epoch = nearest(&run.epochs, position.x)?;
                    Some(format!("Epoch {}\nloss {:.4}", epoch.metrics.epoch + 1, epoch.metrics.train_loss))
                }
            };
            let plot = over_epochs(ui, run, "loss", height, Scale::Linear)
                .include_y(0.0)
                .y_axis_formatter(|mark, _| decimal(mark))
                .label_formatter(reading);
            plot.show(ui, |plot| {
                focus_line(plot, epoch, palette);
                let points = PlotPoints::Borrowed(within);
                plot.line(Line::new("epoch so far", points).color(palette.accent.gamma_multiply(0.7)).width(1.0));
                let (color, style) = (palette.neutral, LineStyle::Solid);
                let whole = Curve { name: "whole epoch", color, width: 2.2, style, hover: true };
                whole.draw(plot, run.epochs.iter().map(|e| [position(e), e.metrics.train_loss]).collect());
            });
            let images = trained_on(run);
            let text = format!("Thick: mean of each epoch. Thin: mean of the epoch so far. On {images}.");
            ui.label(weak(ui, text).small());
        });
    }

    pub(super) fn rate(&mut self, ui: &mut Ui, context: &mut Context<'_>, height: f32) {
        let run = context.run;
        let epoch = context.focus.epoch.map(|epoch| f64::from(epoch) + 1.0);
        let explanation = context.glossary.tooltip("learning-rate");
        let controls = |ui: &mut Ui| {
            export_menu(ui, context, "learning rate", || {
                let rows = metrics(run);
                drawn(run, |figure| figures::learning_rate(&rows, figure), || rate_csv(run))
            });
        };
        section(ui, "Learning rate", explanation, controls, |ui| {
            let points = rates(run);
            let Some(&[_, first]) = points.first() else {
                ui.label(weak(ui, "Begins with the first batch."));
                return;
            };
            let (low, high) = points.iter().fold((first, first), |(l, h), [_, y]| (l.min(*y), h.max(*y)));
            let color = theme::palette(ui).neutral;
            let reading = |hover: &HoverPosition<'_>| {
                let epoch = nearest(&run.epochs, at(hover))?;
                Some(format!("Epoch {}\nlearning rate {}", epoch.metrics.epoch + 1, rate_text(epoch.metrics.lr)))
            };
            let decade = |mark: GridMark| {
                if mark.value.fract().abs() < 1e-9 { rate_text(10f64.powf(mark.value)) } else { String::new() }
            };
            let plot = over_epochs(ui, run, "learning rate", height, Scale::Decades)
                .include_y((low - 0.05).floor())
                .include_y((high + 0.05).ceil())
                .y_axis_formatter(move |mark, _| decade(mark))
                .label_formatter(reading);
            let palette = theme::palette(ui);
            plot.show(ui, |plot| {
                focus_line(plot, epoch, palette);
                plot.line(Line::new("learning rate", points).color(color).width(2.0).allow_band(false));
            });
            ui.label(weak(ui, "At the last step of each epoch, and now. Logarithmic scale.").small());
        });
    }
}

impl Within {
    /// Keeps the last point of each of about [`POINTS`] equal sections, so that existing points do not move when new
    /// ones arrive.
    fn update(&mut self, run: &RunView) {
        let (Some(first), Some(last)) = (run.batches.front(), run.batches.back()) else {
            self.points.clear();
            return;
        };
        let key = (run.batches.len(), last.position().to_bits(), last.loss.to_bits());
        if self.key == key {
            return;
        }
        self.key = key;
        let from = first.position();
        // The section length doubles rather than growing continuously, or every point would move with every batch.
        let wanted = (last.position() - from) / POINTS as f64;
        let smallest = 1.0 / f64::from(last.batches.max(1));
        let mut section = smallest;
        while section < wanted {
            section *= 2.0;
        }
        self.points.clear();
        let mut place = u64::MAX;
        for batch in &run.batches {
            let position = batch.position();
            let point = PlotPoint::new(position, batch.loss);
            let here = (position / section).ceil() as u64;
            match self.points.last_mut() {
                Some(last) if here == place => *last = point,
                _ => self.points.push(point),
            }
            place = here;
        }
    }
}

/// Position and exponent of the learning rate, as a step function if the schedule changes it only between epochs.
fn rates(run: &RunView) -> Vec<[f64; 2]> {
    let smooth = run.experiment.as_ref().is_some_and(|e| e.optimizer.schedule == Schedule::OneCycle);
    let live = run.now().map(|now| (now.position(), now.lr));
    let mut points = Vec::new();
    for (x, lr) in run.epochs.iter().map(|epoch| (position(epoch), epoch.metrics.lr)).chain(live) {
        let begin = x.ceil() - 1.0;
        let corner = Some([begin, lr.log10()]).filter(|corner| !smooth && points.last() != Some(corner));
        if lr > 0.0 {
            points.extend(corner);
            points.push([x, lr.log10()]);
        }
    }
    points
}

/// The values of the accuracy curves, by epoch.
fn accuracy_csv(run: &RunView) -> String {
    let header = [
        "epoch",
        "val_clean_accuracy",
        "val_clean_worst",
        "val_robust_accuracy",
        "val_robust_worst",
        "val_robust_gap",
        "train_robust_accuracy",
    ];
    let rows = run.epochs.iter().map(|epoch| {
        let m = &epoch.metrics;
        let gap = gap(epoch).map_or(String::new(), |gap| gap.to_string());
        let numbers = [m.val_clean_accuracy, m.val_clean_worst, m.val_robust_accuracy, m.val_robust_worst];
        std::iter::once(m.epoch.to_string())
            .chain(numbers.map(|v| v.to_string()))
            .chain([gap, m.train_robust_accuracy.to_string()])
            .collect::<Vec<_>>()
    });
    table(&header, rows)
}

/// Loss at positions within epochs, then for whole epochs.
fn loss_csv(run: &RunView, within: &[(f64, f64)]) -> String {
    let row = |kind: &str, x: f64, loss: f64| vec![kind.to_owned(), x.to_string(), loss.to_string()];
    let within = within.iter().map(|(x, loss)| row("epoch so far", *x, *loss));
    let whole = run.epochs.iter().map(|epoch| row("whole epoch", position(epoch), epoch.metrics.train_loss));
    table(&["mean_of", "epochs_done", "train_loss"], whole.chain(within))
}

fn rate_csv(run: &RunView) -> String {
    let rows = run.epochs.iter().map(|epoch| [epoch.metrics.epoch.to_string(), epoch.metrics.lr.to_string()]);
    table(&["epoch", "lr"], rows)
}

#[cfg(test)]
impl Curves {
    pub(super) fn hidden(&self) -> Vec<&'static str> {
        self.hidden.iter().copied().collect()
    }
}
