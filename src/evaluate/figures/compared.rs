//! One quantity of several runs over epochs.

use super::axes::{
    CLASS_COLORS, EPOCH_AXIS, EndLabel, LEADER, MARGIN, Plot, SMALL, end_labels, epoch_range, header, nice_above,
    percent, ticks, trimmed, validation_series,
};
use super::svg::{Canvas, MUTED, Stroke, Style};
use super::{Context, Figure, FigureError};
use crate::train::ValidationChange;

/// A run of [`compared_curves`].
#[derive(Debug, Clone, PartialEq)]
pub struct ComparedRun {
    /// Its name.
    pub name: String,
    /// Epoch and value; `None` if it was not measured.
    pub points: Vec<(u32, Option<f64>)>,
    /// Changes of the validation attack, if the values depend on it.
    pub changes: Vec<ValidationChange>,
}

/// Dashes of the lines, one run after another.
const DASHES: [&str; 3] = ["", "6 4", "2 3"];

/// One line per run on the same axes. With `shares`, values are in percent on a fixed scale from 0 to 1. `notes` are
/// shown below the heading; for a robust accuracy they name the attack.
///
/// # Errors
/// [`FigureError::Empty`] if no run has a value.
pub fn compared_curves(
    quantity: &str,
    runs: &[ComparedRun],
    shares: bool,
    notes: &[String],
) -> Result<Figure, FigureError> {
    const NAME: &str = "comparison";
    let known = |run: &ComparedRun| -> Vec<(u32, f64)> {
        run.points
            .iter()
            .filter_map(|(epoch, value)| Some((*epoch, (*value)?)))
            .filter(|(_, v)| v.is_finite())
            .collect()
    };
    let all: Vec<(u32, f64)> = runs.iter().flat_map(known).collect();
    let highest = all.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let mut epochs: Vec<u32> = all.iter().map(|(epoch, _)| *epoch).collect();
    epochs.sort_unstable();
    if epochs.is_empty() {
        return Err(FigureError::Empty { figure: NAME, missing: "no values" });
    }
    let context = Context {
        title: format!("{} runs", runs.len()),
        attack: String::new(),
        train_attack: String::new(),
        train_robust: "train robust",
        statistics: String::new(),
        frozen_after: None,
        class_names: Vec::new(),
        base_epsilon: 0.0,
    };
    let mut canvas = Canvas::new(640.0);
    let top = header(&mut canvas, quantity, &context, notes) + 12.0;
    let room = 200.0;
    let step = nice_above(highest / 5.0);
    let top_value = if shares { 1.0 } else { (highest / step).ceil().max(1.0) * step };
    let left = MARGIN + 46.0;
    let plot = Plot {
        left,
        top,
        width: canvas.width() - left - MARGIN - room,
        height: 280.0,
        x: epoch_range(&epochs),
        y: (0.0, top_value),
    };
    let levels = ticks(0.0, top_value, 5);
    plot.grid(&mut canvas, &levels);
    for level in levels {
        let text = if shares { format!("{:.0}%", 100.0 * level) } else { trimmed(level, 4) };
        canvas.centered_text(plot.left - 8.0, plot.py(level), Style::new(SMALL).fill(MUTED).end(), &text);
    }
    plot.epoch_axis(&mut canvas, 1);
    let mut labels = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let color = CLASS_COLORS[i % CLASS_COLORS.len()];
        let stroke = match DASHES[i % DASHES.len()] {
            "" => Stroke::new(color, 2.0),
            dash => Stroke::new(color, 2.0).dashed(dash),
        };
        for change in &run.changes {
            let x = plot.px(f64::from(change.epoch) - 0.5);
            canvas.line((x, plot.top), (x, plot.bottom()), Stroke { width: 0.9, ..stroke });
        }
        validation_series(&mut canvas, &plot, &run.points, &run.changes, stroke);
        if let Some((epoch, last)) = known(run).last() {
            let value = if shares { percent(*last) } else { trimmed(*last, 4) };
            let at = (plot.px(f64::from(*epoch)), plot.py(*last));
            labels.push(EndLabel { name: run.name.clone(), value, at, color, bold: i == 0 });
        }
    }
    end_labels(&mut canvas, &plot, &labels, room - LEADER / 2.0);
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + EPOCH_AXIS + MARGIN - 6.0, quantity) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_a_line_of_its_own_kind_and_its_last_value() {
        let run = |name: &str, last: f64| ComparedRun {
            name: name.into(),
            points: vec![(0, Some(0.1)), (1, None), (2, Some(0.3)), (3, Some(last))],
            changes: Vec::new(),
        };
        let notes = ["Robust: under PGD-10, ε 8/255".to_owned()];
        let figure = compared_curves("robust accuracy", &[run("a", 0.42), run("b", 0.37)], true, &notes).unwrap();
        for part in ["42.0%", "37.0%", "PGD-10, ε 8/255", "6 4", "100%", "robust accuracy"] {
            assert!(figure.svg.contains(part), "{part}\n{}", figure.svg);
        }
        assert!(!figure.png().unwrap().is_empty());
        let loss = compared_curves("loss", &[run("a", 2.4)], false, &[]).unwrap();
        assert!(loss.svg.contains("2.4") && !loss.svg.contains('%'));
        assert!(compared_curves("loss", &[], false, &[]).is_err());
    }

    #[test]
    fn a_change_of_the_validation_attack_breaks_the_line_of_its_run() {
        let run = |changes: Vec<ValidationChange>| ComparedRun {
            name: "a".into(),
            points: (0..4).map(|epoch| (epoch, Some(0.1 * f64::from(epoch)))).collect(),
            changes,
        };
        let lines = |changes| {
            let svg = compared_curves("robust", &[run(changes)], true, &[]).unwrap().svg;
            (svg.matches("<polyline").count(), svg.matches("<line").count())
        };
        let change = ValidationChange { epoch: 2, old: "PGD-10, ε 2/255".into(), new: "PGD-10, ε 8/255".into() };
        let (whole, marked) = (lines(Vec::new()), lines(vec![change]));
        assert_eq!(marked, (whole.0 + 1, whole.1 + 1));
    }
}
