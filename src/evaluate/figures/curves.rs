//! Lines over epochs: accuracies, class-wise epsilon.

use std::collections::BTreeMap;

use super::axes::{
    BLUE, CLASS_COLORS, EPOCH_AXIS, EndLabel, LABEL, LEADER, MARGIN, Plot, SMALL, VERMILLION, change_notes,
    change_room, end_labels, epoch_range, evaluation_note, gutter, header, k255, mark_changes, nice_above, percent,
    series, some, ticks, trimmed, validation_series,
};
use super::classes::{ClassTable, is_fraction};
use super::shown::faint;
use super::svg::{Canvas, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};
use crate::fairness::DENSE_CLASSES;
use crate::train::{ClassRow, MetricsRow, ValidationChange, changes_between};

/// Mean and worst-class accuracy on the validation split, clean and robust, and on the training attack's images.
///
/// # Errors
/// [`FigureError::Empty`] without rows.
pub fn accuracy_curves(rows: &[MetricsRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "accuracy";
    some(NAME, rows, "no rows of metrics")?;
    // A resumed run may have written an epoch twice; the later row counts.
    let rows: BTreeMap<u32, &MetricsRow> = rows.iter().map(|row| (row.epoch, row)).collect();
    let epochs: Vec<u32> = rows.keys().copied().collect();

    let changes = changes_between(rows.values().copied());

    let mut canvas = Canvas::new(560.0);
    let mut notes = vec![
        evaluation_note(context),
        super::axes::training_note("Validation split; the thin line is training images under", context),
    ];
    if let [only] = changes.as_slice() {
        notes[0] = format!("Robust: under {}; left of the vertical line under {}", only.new, only.old);
    }
    notes.extend(change_notes(&changes));
    let room = 176.0;
    let width = canvas.width() - 2.0 * MARGIN - 38.0 - room;
    let top = header(&mut canvas, "Accuracy", context, &notes) + 12.0 + change_room(&changes);
    let plot = Plot { left: MARGIN + 38.0, top, width, height: 260.0, x: epoch_range(&epochs), y: (0.0, 1.0) };
    let levels = ticks(0.0, 1.0, 5);
    plot.grid(&mut canvas, &levels);
    for level in levels {
        let style = Style::new(SMALL).fill(MUTED).end();
        canvas.centered_text(plot.left - 8.0, plot.py(level), style, &format!("{:.0}%", 100.0 * level));
    }
    plot.epoch_axis(&mut canvas, 1);
    if context.class_names.len() > 1 {
        let y = plot.py(1.0 / context.class_names.len() as f64);
        canvas.line((plot.left, y), (plot.right(), y), Stroke::new(MUTED, 0.8).dashed("2 3"));
    }

    type Column = fn(&MetricsRow) -> f64;
    let columns: [(&str, Column, Stroke<'_>, bool); 5] = [
        (context.train_robust, |row| row.train_robust_accuracy, Stroke::new("#777777", 0.9), false),
        ("clean, worst class", |row| row.val_clean_worst, Stroke::new(BLUE, 1.4).dashed("5 3"), false),
        ("robust, worst class", |row| row.val_robust_worst, Stroke::new(VERMILLION, 1.4).dashed("5 3"), false),
        ("clean", |row| row.val_clean_accuracy, Stroke::new(BLUE, 2.2), true),
        ("robust", |row| row.val_robust_accuracy, Stroke::new(VERMILLION, 2.2), true),
    ];
    mark_changes(&mut canvas, &plot, &changes);
    let mut labels = Vec::new();
    for (name, value, stroke, bold) in columns {
        let robust = name.starts_with("robust");
        let points: Vec<(u32, Option<f64>)> =
            rows.iter().map(|(&epoch, row)| (epoch, Some(value(row)).filter(is_fraction))).collect();
        let not_compared = |change: &&ValidationChange| robust || (stroke.color == BLUE && change.concerns_clean());
        let breaks: Vec<ValidationChange> = changes.iter().filter(not_compared).cloned().collect();
        validation_series(&mut canvas, &plot, &points, &breaks, stroke);
        if let Some((epoch, last)) = points.iter().rev().find_map(|&(epoch, value)| Some((epoch, value?))) {
            let at = (plot.px(f64::from(epoch)), plot.py(last));
            labels.push(EndLabel { name: name.to_owned(), value: percent(last), at, color: stroke.color, bold });
        }
    }
    if context.class_names.len() > 1 {
        let chance = 1.0 / context.class_names.len() as f64;
        let at = (plot.right(), plot.py(chance));
        labels.push(EndLabel { name: "chance".to_owned(), value: percent(chance), at, color: MUTED, bold: false });
    }
    end_labels(&mut canvas, &plot, &labels, room);
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + EPOCH_AXIS + MARGIN - 6.0, "Accuracy over epochs") })
}

/// Number of highest and of lowest lines that get a colour and a label if there are more classes than colours.
const EXTREMES: usize = 5;

/// The epsilon of each class over epochs, with the base epsilon.
///
/// With more than ten classes only those that end highest and lowest have a colour and a label.
///
/// # Errors
/// [`FigureError::Empty`] without rows or class names, [`FigureError::Class`] for a class without a name.
pub fn epsilon_curves(rows: &[ClassRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "epsilon";
    let table = ClassTable::new(NAME, rows, context)?;
    let lines: Vec<Vec<(u32, Option<f64>)>> = (0..table.classes)
        .map(|class| {
            let value = |epoch| table.value(epoch, class, |row| row.epsilon);
            table.epochs.iter().enumerate().map(|(index, &epoch)| (epoch, value(index))).collect()
        })
        .collect();
    let base = Some(context.base_epsilon).filter(|base| is_fraction(base) && *base > 0.0);
    let known: Vec<f64> = lines.iter().flatten().filter_map(|point| point.1).chain(base).collect();
    let (lowest, highest) =
        known.iter().fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), &v| (low.min(v), high.max(v)));
    if highest <= 0.0 {
        return Err(FigureError::Empty { figure: NAME, missing: "no epsilon above 0" });
    }

    // Ends of the lines from low to high, to choose the lines that are highlighted.
    let mut ends: Vec<(usize, u32, f64)> = lines
        .iter()
        .enumerate()
        .filter_map(|(class, line)| line.iter().rev().find_map(|&(epoch, value)| Some((class, epoch, value?))))
        .collect();
    ends.sort_by(|a, b| a.2.total_cmp(&b.2));
    let shown: Vec<(usize, u32, f64)> = if ends.len() <= CLASS_COLORS.len() {
        ends
    } else {
        let upper = ends.len() - EXTREMES;
        ends.into_iter().enumerate().filter(|(rank, _)| *rank < EXTREMES || *rank >= upper).map(|end| end.1).collect()
    };
    let all = shown.len() == table.classes;
    let color_of = |class: usize| {
        let place = if all { Some(class) } else { shown.iter().position(|end| end.0 == class) };
        place.map(|place| CLASS_COLORS[place % CLASS_COLORS.len()])
    };

    // As in a method without class-wise epsilon, or in the first epoch: one label is enough.
    let uniform = base.is_some_and(|base| known.iter().all(|epsilon| (epsilon - base).abs() < 1e-9));

    let mut canvas = Canvas::new(560.0);
    let mut note = "Radius of the training attack on the images of each class".to_owned();
    if !all && !uniform {
        note.push_str(&format!(
            "; of {} classes the {EXTREMES} highest and lowest at the end are named",
            table.classes
        ));
        if table.classes > DENSE_CLASSES {
            note.push_str(", and some of the others in grey");
        }
    }
    let top = header(&mut canvas, "Class-wise epsilon", context, &[note]) + 28.0;
    let widest = text::width(" 12.3/255", LABEL, Weight::Regular);
    let names: Vec<String> = shown.iter().map(|end| context.label(end.0)).collect();
    let room =
        LEADER + gutter(&names, LABEL, 130.0).max(text::width("all classes", LABEL, Weight::SemiBold)) + widest + 6.0;
    // The axis need not start at 0, because lines have no area. In steps of `step` grey levels, from `first` to `last`.
    let step = nice_above((highest - lowest).max(0.5 * highest) * 255.0 / 7.0);
    let last = (highest * 255.0 / step + 0.1).ceil();
    let first = (lowest * 255.0 / step - 0.1).floor().min(last - 3.0).max(0.0);
    let count = (last - first) as u32;
    let levels: Vec<f64> = (0..=count).map(|index| (first + f64::from(index)) * step / 255.0).collect();
    let left = MARGIN + 96.0;
    let plot = Plot {
        left,
        top,
        width: canvas.width() - left - MARGIN - room,
        height: 270.0,
        x: epoch_range(&table.epochs),
        y: (first * step / 255.0, last * step / 255.0),
    };
    plot.grid(&mut canvas, &levels);
    let title = Style::new(SMALL).fill(MUTED).end();
    canvas.text(plot.left - 8.0, plot.top - 14.0, Style::new(LABEL).end(), "ε");
    canvas.text(plot.left - 54.0, plot.top - 14.0, title, "decimal");
    for &level in &levels {
        canvas.centered_text(plot.left - 8.0, plot.py(level), Style::new(SMALL).end(), &tick_k255(level));
        canvas.centered_text(plot.left - 54.0, plot.py(level), title, &format!("{level:.3}"));
    }
    plot.epoch_axis(&mut canvas, 1);

    let mut labels = Vec::new();
    for class in faint((0..table.classes).filter(|&class| color_of(class).is_none()).collect()) {
        series(&mut canvas, &plot, &lines[class], Stroke::new("#cfcfcf", 0.7));
    }
    if let Some(base) = base {
        let y = plot.py(base);
        canvas.line((plot.left, y), (plot.right(), y), Stroke::new(INK, 1.2).dashed("5 4"));
        let at = (plot.right(), y);
        let name = if uniform { "all classes" } else { "base" }.to_owned();
        labels.push(EndLabel { name, value: k255(base), at, color: INK, bold: true });
    }
    for (class, line) in lines.iter().enumerate() {
        if let Some(color) = color_of(class) {
            series(&mut canvas, &plot, line, Stroke::new(color, 1.6));
        }
    }
    for &(class, epoch, value) in &shown {
        if uniform {
            break;
        }
        labels.push(EndLabel {
            name: context.label(class),
            value: k255(value),
            at: (plot.px(f64::from(epoch)), plot.py(value)),
            color: color_of(class).unwrap_or(MUTED),
            bold: false,
        });
    }
    end_labels(&mut canvas, &plot, &labels, room);
    Ok(Figure {
        name: NAME,
        svg: canvas.finish(plot.bottom() + EPOCH_AXIS + MARGIN - 6.0, "Class-wise epsilon over epochs"),
    })
}

/// As [`k255`], with as many digits as a tick of a small epsilon needs.
fn tick_k255(epsilon: f64) -> String {
    if epsilon <= 0.0 { "0".to_owned() } else { format!("{}/255", trimmed(epsilon * 255.0, 3)) }
}
