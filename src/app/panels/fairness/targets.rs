//! How often each class is the target, and the effective number of targets.

use egui::Ui;

use super::heatmap::class_rows;
use super::{round_above, row};
use crate::app::context::Context;
use crate::app::theme;
use crate::app::view::RunView;
use crate::app::widgets::{
    BarRow, Bars, bars, drawn, export_menu, percent, section, short_percent, strong, table, weak,
};
use crate::evaluate::figures;
use crate::fairness::TargetMode;
use crate::train::ClassRow;
use crate::worker::EpochRecord;

/// `exp(H(π))`, the number of classes that a uniform distribution of the same entropy would have.
pub(super) fn effective(probabilities: &[f64]) -> f64 {
    let total: f64 = probabilities.iter().filter(|p| **p > 0.0).sum();
    let entropy: f64 = probabilities.iter().filter(|p| **p > 0.0).map(|p| p / total).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

/// Shows the card: for the epoch under way if the newest is followed, otherwise for the displayed epoch.
pub(super) fn show(ui: &mut Ui, context: &mut Context<'_>, shown: Option<&EpochRecord>) {
    let run = context.run;
    let newest = context.focus.is_live();
    let names = run.class_names();
    let found = distribution(run, shown, newest);
    let explanation = context.glossary.tooltip("target-distribution");
    let number = context.glossary.tooltip("effective-targets");
    let controls = |ui: &mut Ui| {
        export_menu(ui, context, "targets", || {
            let (epoch, probabilities) = distribution(run, shown, newest)?;
            let mut rows = class_rows(run, Some(epoch));
            if rows.last().is_none_or(|last| last.epoch < epoch) {
                rows.extend(
                    probabilities.iter().enumerate().map(|(class, p)| unmeasured(epoch, class, &names[class], *p)),
                );
            }
            drawn(run, |figure| figures::target_distribution(&rows, figure), || csv(epoch, names, &probabilities))
        });
    };
    section(ui, "Where targets are drawn from", explanation, controls, |ui| {
        let Some((epoch, probabilities)) = found else {
            ui.label(weak(ui, reason(run)));
            return;
        };
        let palette = theme::palette(ui);
        let classes = probabilities.len();
        ui.horizontal_wrapped(|ui| {
            ui.label("Effective number of targets");
            ui.label(strong(format!("{:.2} of {classes}", effective(&probabilities)))).on_hover_text(number.unwrap_or(
                "exp of the entropy of the distribution: this many equally likely classes would be as hard to predict",
            ));
        });
        let uniform = 1.0 / classes as f64;
        let largest = probabilities.iter().copied().fold(uniform, f64::max);
        let marks = [(uniform, ui.visuals().text_color(), format!("uniform, 1/{classes}: {}", percent(uniform)))];
        let what = Bars {
            id: "targets",
            names,
            maximum: round_above(largest),
            write: &short_percent,
            marks: &marks,
            number: 60.0,
            numbers: 1,
        };
        bars(ui, &what, classes, |class| {
            let p = probabilities[class];
            BarRow {
                class,
                name: &names[class],
                emphasis: None,
                bars: vec![(p, palette.accent)],
                numbers: vec![(percent(p), palette.weak)],
                describe: format!(
                    "{}: target with probability {}, {:.2} × uniform",
                    names[class],
                    percent(p),
                    p / uniform
                ),
            }
        });
        let text = format!("In force in epoch {}, before the true class of each image is left out.", epoch + 1);
        ui.label(weak(ui, text).small());
    });
}

/// Epoch index and probability of each class.
fn distribution(run: &RunView, shown: Option<&EpochRecord>, newest: bool) -> Option<(u32, Vec<f64>)> {
    let classes = run.class_names().len();
    let live = run.now().filter(|_| newest && run.status.is_live());
    if let Some(now) = live {
        return now.targets.as_ref().filter(|t| t.len() == classes).map(|targets| (now.epoch, targets.to_vec()));
    }
    let shown = shown?;
    let probabilities: Option<Vec<f64>> = (0..classes).map(|class| row(shown, class)?.target_probability).collect();
    probabilities.map(|probabilities| (shown.metrics.epoch, probabilities))
}

/// The reason why there is nothing to show.
fn reason(run: &RunView) -> String {
    let Some(experiment) = run.experiment.as_deref() else {
        return "Known from the first batch on.".into();
    };
    if !experiment.trains_on_attacked_images() {
        return format!("{} makes no attack: there are no targets.", experiment.method().title);
    }
    if !experiment.is_targeted() {
        let from = if (experiment.method().divergence)(experiment) { "clean prediction" } else { "true class" };
        return format!("{} attacks away from the {from}: there are no targets.", experiment.method().title);
    }
    match experiment.fairness.target_mode {
        TargetMode::LeastLikely => {
            "Every image is attacked towards its own least likely class: targets are not drawn from a distribution."
                .into()
        }
        TargetMode::Fixed => "All images are attacked towards the same class: targets are not drawn.".into(),
        TargetMode::Uniform | TargetMode::Softmax | TargetMode::Proportional => "Known from the first batch on.".into(),
    }
}

/// A row of the epoch under way, for which only the target probability is known.
fn unmeasured(epoch: u32, class: usize, name: &str, probability: f64) -> ClassRow {
    ClassRow {
        epoch,
        class: class as u32,
        name: name.to_owned(),
        epsilon: f64::NAN,
        target_probability: Some(probability),
        cfps: f64::NAN,
        train_robust_accuracy: f64::NAN,
        train_clean_accuracy: None,
        val_clean_accuracy: f64::NAN,
        val_robust_accuracy: f64::NAN,
        series: Vec::new(),
    }
}

fn csv(epoch: u32, names: &[String], probabilities: &[f64]) -> String {
    let rows = names.iter().zip(probabilities).enumerate();
    let rows = rows.map(|(class, (name, p))| [epoch.to_string(), class.to_string(), name.clone(), p.to_string()]);
    table(&["epoch", "class", "name", "target_probability"], rows)
}

#[cfg(test)]
mod tests {
    use super::effective;

    #[test]
    fn the_effective_number_counts_classes_that_share_alike() {
        assert!((effective(&[0.25; 4]) - 4.0).abs() < 1e-12);
        assert!((effective(&[0.5, 0.5, 0.0]) - 2.0).abs() < 1e-12);
        assert!((effective(&[1.0, 0.0]) - 1.0).abs() < 1e-12);
        assert!(effective(&[0.9, 0.1]) < 1.4);
    }
}
