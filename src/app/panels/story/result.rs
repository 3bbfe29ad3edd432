//! What came of a finished run: accuracies on the test set, beside PGD-AT on the same data if such a run exists.

use std::path::PathBuf;
use std::sync::Arc;

use egui::{Color32, RichText, Ui};

use crate::app::context::{Action, Context};
use crate::app::runs::{Entry, Library, Run};
use crate::app::theme;
use crate::app::widgets::{card, percent, points, strong, weak};
use crate::config::{Experiment, MethodChoice, ModelConfig};
use crate::evaluate::{FinalReport, WeightsReport};

/// Number of the newest neighbouring run directories among which the baseline is looked for.
const NEIGHBOURS: usize = 40;

/// Minimum width of the card for intervals beside the numbers.
const ROOMY: f32 = 700.0;

/// The card, and the runs beside the one that is shown.
#[derive(Debug, Default)]
pub struct ResultCard {
    library: Library,
    /// The run directory that the neighbours belong to.
    of: Option<PathBuf>,
    /// Whether all weights are shown, not only the first ones.
    all: bool,
}

/// A difference between two accuracies, with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Difference {
    value: f64,
    interval: [f64; 2],
}

impl Difference {
    /// Newcombe's interval of the difference of two proportions from independent samples (1998, method 10), from their
    /// Wilson intervals. The two networks saw the same test images, for which it is too wide rather than too narrow.
    fn new((a, [a_low, a_high]): (f64, [f64; 2]), (b, [b_low, b_high]): (f64, [f64; 2])) -> Self {
        let value = a - b;
        let below = ((a - a_low).powi(2) + (b_high - b).powi(2)).sqrt();
        let above = ((a_high - a).powi(2) + (b - b_low).powi(2)).sqrt();
        Self { value, interval: [value - below, value + above] }
    }

    /// Whether the interval excludes 0.
    fn is_shown(self) -> bool {
        self.interval[0] > 0.0 || self.interval[1] < 0.0
    }
}

/// Whether one of two runs is the baseline of the other: adversarial training of the same network on the same images, by the
/// same attack and schedule, evaluated in the same way. A network to start from is no part of the baseline.
fn is_counterpart(run: &Run, experiment: &Experiment, report: &FinalReport) -> bool {
    let theirs = &run.experiment;
    let network = |experiment: &Experiment| ModelConfig { init: None, ..experiment.model.clone() };
    let is_at = |experiment: &Experiment| experiment.fairness.method == MethodChoice::At;
    let same = is_at(theirs) != is_at(experiment)
        && theirs.data == experiment.data
        && network(theirs) == network(experiment)
        && theirs.attack == experiment.attack
        && theirs.optimizer == experiment.optimizer;
    let comparable = |other: &FinalReport| other.attack == report.attack && other.images == report.images;
    same && run.report.as_ref().is_some_and(comparable)
}

impl ResultCard {
    /// Shows the card if the run is finished.
    pub fn show(&mut self, ui: &mut Ui, context: &mut Context<'_>) {
        let run = context.run;
        let (Some(report), Some(experiment)) = (run.report.as_deref(), run.experiment.as_deref()) else { return };
        if run.status.is_live() || report.weights.is_empty() {
            return;
        }
        let is_at = experiment.fairness.method == MethodChoice::At;
        let other = self.counterpart(ui, context, experiment, report);
        let method = other.as_ref().and_then(|run| Some(run.report.as_ref()?.method.clone())).unwrap_or_default();
        card(ui, "", |ui| {
            ui.set_width(ui.available_width());
            ui.label(strong(format!("Result of {} on {} test images", report.method, report.images)));
            let wide = ui.available_width() >= ROOMY;
            let brackets = if wide { " In brackets: 95 % intervals." } else { "" };
            ui.label(weak(ui, format!("Robust: {}.{brackets}", report.attack)).small());
            let shown = if self.all { report.weights.len() } else { 1 };
            egui::ScrollArea::horizontal().id_salt("result").show(ui, |ui| {
                egui::Grid::new("result").num_columns(6).spacing([14.0, 4.0]).show(ui, |ui| {
                    for title in ["Weights", "Clean", "Worst, clean", "Robust", "Worst, robust", "Gap"] {
                        ui.label(weak(ui, title).small());
                    }
                    ui.end_row();
                    for row in &report.weights[..shown] {
                        numbers(ui, row, &report.class_names, wide);
                        let theirs = other.as_ref().and_then(|run| run.report.as_ref()?.of(&row.weights));
                        if let Some(theirs) = theirs {
                            differences(ui, row, theirs, &method);
                        }
                    }
                });
            });
            let others: Vec<&str> = report.weights[1..].iter().map(|row| row.weights.as_str()).collect();
            if !others.is_empty() {
                let text = format!("The other weights of this run: {}", others.join(", "));
                ui.checkbox(&mut self.all, "All weights").on_hover_text(text);
            }
            match &other {
                Some(run) => {
                    let text = format!(
                        "Beside {}, {method} with the same data, network, attack and schedule. Grey: the 95 % interval of the \
                         difference contains 0. One run each: other seeds give other differences.",
                        run.path.display()
                    );
                    ui.label(weak(ui, text).small());
                }
                None if is_at => {}
                None => {
                    let button = ui.button("Train PGD-AT to compare");
                    let text = "Starts a run of PGD-AT with the same data, network, attack and schedule.";
                    if button.on_hover_text(text).clicked() {
                        context.ask(Action::TrainBaseline);
                    }
                }
            }
        });
    }

    /// The newest run beside this one that is its baseline, or whose baseline it is.
    fn counterpart(
        &mut self,
        ui: &Ui,
        context: &Context<'_>,
        experiment: &Experiment,
        report: &FinalReport,
    ) -> Option<Arc<Run>> {
        let own = context.run.directory()?;
        if self.of.as_ref() != Some(own) {
            *self = Self { of: Some(own.clone()), ..Self::default() };
        }
        self.library.poll();
        let wake = ui.ctx().clone();
        let found = self.library.below(&[own.parent()?], move || wake.request_repaint())?.to_vec();
        let others = found.into_iter().filter(|path| path != own).take(NEIGHBOURS);
        let read = others.filter_map(|path| {
            let wake = ui.ctx().clone();
            match self.library.get(&path, move || wake.request_repaint()) {
                Entry::Ready(run) => Some(run),
                _ => None,
            }
        });
        read.collect::<Vec<_>>().into_iter().find(|run| is_counterpart(run, experiment, report))
    }
}

/// The accuracies of a row; with little room their intervals are in the tooltips.
fn numbers(ui: &mut Ui, row: &WeightsReport, names: &[String], wide: bool) {
    let rated = |ui: &mut Ui, value: f64, interval: Option<[f64; 2]>, color: Color32, more: &str| {
        let text = RichText::new(format!("{}{more}", percent(value))).color(color).family(theme::strong_family());
        ui.horizontal(|ui| {
            ui.spacing_mut().item_spacing.x = 3.0;
            let label = ui.label(text);
            if let Some([low, high]) = interval {
                let ends = format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high);
                match wide {
                    true => _ = ui.label(weak(ui, ends).small()),
                    false => _ = label.on_hover_text(format!("95 % interval {ends} %")),
                }
            }
        });
    };
    let palette = theme::palette(ui);
    ui.label(strong(&row.weights));
    rated(ui, row.clean, row.clean_interval, palette.clean, "");
    rated(ui, row.clean_worst, row.clean_worst_interval, palette.clean, "");
    rated(ui, row.robust, row.robust_interval, palette.robust, "");
    let worst = row.robust_worst_class.and_then(|class| names.get(class));
    let worst = worst.map_or(String::new(), |name| format!(" ({name})"));
    rated(ui, row.robust_worst, row.robust_worst_interval, palette.worst, &worst);
    ui.label(RichText::new(format!("{:.1} points", 100.0 * row.robust_gap)).color(palette.gap));
    ui.end_row();
}

/// The differences from a run of `method`; a gap has no interval.
fn differences(ui: &mut Ui, ours: &WeightsReport, theirs: &WeightsReport, method: &str) {
    let palette = theme::palette(ui);
    ui.label(weak(ui, format!("− {method}")).small());
    let all = [
        (ours.clean, ours.clean_interval, theirs.clean, theirs.clean_interval),
        (ours.clean_worst, ours.clean_worst_interval, theirs.clean_worst, theirs.clean_worst_interval),
        (ours.robust, ours.robust_interval, theirs.robust, theirs.robust_interval),
        (ours.robust_worst, ours.robust_worst_interval, theirs.robust_worst, theirs.robust_worst_interval),
    ];
    for (a, a_interval, b, b_interval) in all {
        let difference = a_interval.zip(b_interval).map(|(x, y)| Difference::new((a, x), (b, y)));
        let color = match difference {
            Some(difference) if difference.is_shown() && difference.value > 0.0 => palette.good,
            Some(difference) if difference.is_shown() => palette.worst,
            _ => palette.weak,
        };
        let response = ui.label(RichText::new(points(a - b)).color(color));
        if let Some(Difference { interval: [low, high], .. }) = difference {
            response.on_hover_text(format!("95 % interval {} to {}", points(low), points(high)));
        }
    }
    ui.label(RichText::new(points(ours.robust_gap - theirs.robust_gap)).color(palette.weak));
    ui.end_row();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fairness::wilson;

    #[test]
    fn a_difference_has_newcombes_interval() {
        // Newcombe (1998), table II, method 10: 56/70 and 48/80 differ by 0.2, 0.0524 to 0.3339.
        let of = |correct: u64, n: u64| (correct as f64 / n as f64, wilson(correct, n).into());
        let difference = Difference::new(of(56, 70), of(48, 80));
        assert!((difference.value - 0.2).abs() < 1e-12);
        assert!((difference.interval[0] - 0.0524).abs() < 1e-4 && (difference.interval[1] - 0.3339).abs() < 1e-4);
        assert!(difference.is_shown());
        assert!(!Difference::new(of(56, 70), of(60, 80)).is_shown());
    }

    #[test]
    fn a_baseline_has_the_same_data_network_schedule_and_attack() {
        use crate::app::runs::testing::write;
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let ours = write(&path("fair"), MethodChoice::FairTat, 2, Some(0.4));
        write(&path("at"), MethodChoice::At, 2, Some(0.4));
        write(&path("unfinished"), MethodChoice::At, 2, None);
        let read = |name: &str| Run::read(&path(name)).unwrap();
        let report = read("fair").report.unwrap();
        let is = |run: &Run, experiment: &Experiment| is_counterpart(run, experiment, &report);
        assert!(is(&read("at"), &ours) && !is(&read("fair"), &ours) && !is(&read("unfinished"), &ours));
        let mut wider = ours.clone();
        wider.model.width = Some(128);
        assert!(!is(&read("at"), &wider));
        let mut longer = ours.clone();
        longer.attack.steps += 1;
        assert!(!is(&read("at"), &longer));
        let mut tuned = ours.clone();
        tuned.model.init = Some("runs/robust".into());
        assert!(is(&read("at"), &tuned), "the baseline begins from scratch");
        // And the other way round: after the baseline has been trained, it is the run that is shown.
        let at = read("at");
        assert!(is_counterpart(&read("fair"), &at.experiment, at.report.as_ref().unwrap()));
        let other = FinalReport { attack: "PGD-50".into(), ..report.clone() };
        assert!(!is_counterpart(&read("at"), &ours, &other));
    }
}
