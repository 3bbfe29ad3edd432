//! Bars by class: target distribution, accuracy under attack, epsilon.

use super::axes::{
    BLUE, LABEL, MARGIN, Plot, SMALL, VERMILLION, evaluation_note, gutter, header, named, nice_above, percent,
    row_labels, thinning, ticks, trimmed,
};
use super::classes::{ClassTable, is_fraction};
use super::shown::{MOST_SHOWN, NAMED_PITCH, Shown};
use super::svg::{AXIS, Canvas, GRID, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};
use crate::fairness::{DENSE_CLASSES, MANY_CLASSES};
use crate::train::{ClassRow, MetricsRow};

/// Height of the row of a class.
fn pitch(classes: usize) -> f64 {
    (420.0 / classes as f64).clamp(NAMED_PITCH, 22.0)
}

/// Minimum height of a row with a number.
const MINIMUM_TEXT: f64 = 13.0;

/// The target distribution of the last epoch, beside the CFPS of the epoch before, from which it was computed.
///
/// Both have the same scale, which shows how the softmax flattens CFPS. After a single epoch there are only the
/// targets.
///
/// # Errors
/// [`FigureError::Empty`] without rows or class names, [`FigureError::Class`] for a class without a name.
pub fn target_distribution(rows: &[ClassRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "targets";
    let table = ClassTable::new(NAME, rows, context)?;
    let last = table.epochs.len() - 1;
    let epoch = table.epochs[last];
    if rows.iter().all(|row| row.target_probability.is_none()) {
        return Err(FigureError::Empty { figure: NAME, missing: "targets are not drawn from a distribution" });
    }
    let targets = table.column(last, |row| row.target_probability.unwrap_or(f64::NAN));
    let shown = Shown::highest(table.classes, |class| targets[class].unwrap_or(f64::NAN));
    let names = &shown.names(context);
    // Targets come from the epoch just before (or the frozen one), not from the last earlier epoch that was written.
    let origin = epoch.checked_sub(1).map(|before| context.frozen_after.map_or(before, |frozen| frozen.min(before)));
    let previous = origin.and_then(|origin| table.epochs.iter().position(|written| *written == origin));
    let mut panels = Vec::new();
    if let Some(index) = previous {
        let title = format!("CFPS, epoch {}", table.epochs[index] + 1);
        panels.push((title, table.column(index, |row| row.cfps), "#9a9a9a"));
    }
    panels.push((format!("Target probability, epoch {}", epoch + 1), targets, BLUE));

    let chance = 1.0 / table.classes as f64;
    let highest = panels.iter().flat_map(|panel| &panel.1).flatten().copied().fold(chance, f64::max);
    let step = nice_above(highest / 4.0);
    let bound = (highest / step - 1e-9).ceil() * step;
    let pitch = pitch(shown.len());
    let name_room = gutter(names, SMALL, 150.0);
    let left = MARGIN + name_room + 8.0;
    let (panel_width, value_room, gap) = (180.0, 40.0, 22.0);
    let width = left + panels.len() as f64 * (panel_width + value_room) + (panels.len() - 1) as f64 * gap + MARGIN;
    let mut canvas = Canvas::new(width.max(440.0));
    let mut notes = vec![format!("CFPS of {}", named(&context.statistics, "training images"))];
    if previous.is_none() && epoch == 0 {
        notes.push("The first epoch has no mistakes to learn from yet".to_owned());
    }
    notes.extend(shown.note("with the highest target probability, highest first"));
    let top = header(&mut canvas, "Where the targets come from", context, &notes) + 48.0;
    let height = pitch * shown.len() as f64;
    row_labels(&mut canvas, names, left - 8.0, top, pitch, name_room);
    for (index, (title, values, color)) in panels.iter().enumerate() {
        let plot = Plot {
            left: left + index as f64 * (panel_width + value_room + gap),
            top,
            width: panel_width,
            height,
            x: (0.0, bound),
            y: (0.0, 1.0),
        };
        canvas.text(plot.left, top - 26.0, Style::new(LABEL).bold(), title);
        share_axis(&mut canvas, &plot, &ticks(0.0, bound, 4));
        for (row, value) in shown.classes.iter().map(|class| values[*class]).enumerate() {
            let y = top + row as f64 * pitch;
            let middle = y + pitch / 2.0;
            match value {
                Some(value) => {
                    let end = plot.px(value);
                    canvas.rect(plot.left, y + 0.15 * pitch, end - plot.left, 0.7 * pitch, color);
                    if pitch >= MINIMUM_TEXT {
                        let text = percent(value);
                        // To the right of the line of chance, not across it.
                        let clear = plot.px(chance) + 5.0;
                        let reach = end + 5.0 + text::width(&text, SMALL, Weight::Regular);
                        let x = if end < clear && reach > clear - 8.0 { clear.max(end + 4.0) } else { end + 5.0 };
                        canvas.centered_text(x, middle, Style::new(SMALL).fill(MUTED), &text);
                    }
                }
                None if pitch >= MINIMUM_TEXT => {
                    canvas.centered_text(plot.left + 5.0, middle, Style::new(SMALL).fill(MUTED), "not measured");
                }
                None => {}
            }
        }
        let x = plot.px(chance);
        canvas.line((x, top - 4.0), (x, top + height), Stroke::new(INK, 1.2).dashed("4 3"));
        let label = format!("uniform 1/{} = {}%", table.classes, trimmed(100.0 * chance, 1));
        let half = text::width(&label, SMALL, Weight::Regular) / 2.0;
        let x = x.max(plot.left + half).min(plot.right() + value_room - half);
        canvas.text(x, top - 9.0, Style::new(SMALL).middle(), &label);
        canvas.line((plot.left, top), (plot.left, top + height), Stroke::new(AXIS, 1.0));
    }
    Ok(Figure { name: NAME, svg: canvas.finish(top + height + 24.0 + MARGIN - 6.0, "Target distribution and CFPS") })
}

/// Light vertical lines with percentages below them.
pub(super) fn share_axis(canvas: &mut Canvas, plot: &Plot, values: &[f64]) {
    for &value in values {
        let x = plot.px(value);
        canvas.line((x, plot.top), (x, plot.bottom()), Stroke::new(GRID, 1.0));
        let label = format!("{}%", trimmed(100.0 * value, 1));
        canvas.text(x, plot.bottom() + 16.0, Style::new(SMALL).fill(MUTED).middle(), &label);
    }
}

/// Number of best classes among those shown of many.
const BEST_SHOWN: usize = 8;

/// Robust accuracy of each class in the last epoch, best first, with clean accuracy behind, mean, worst class and gap. Of
/// many classes the best and the worst. The mean is that of the epoch's row in `metrics`, over images; without one, the mean
/// over the classes.
///
/// # Errors
/// [`FigureError::Empty`] without class names or without a robust accuracy, [`FigureError::Class`] for a class without
/// a name.
pub fn class_accuracy(rows: &[ClassRow], metrics: &[MetricsRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "classes";
    const CLEAN: &str = "#cfdce8";
    let table = ClassTable::new(NAME, rows, context)?;
    let missing = FigureError::Empty { figure: NAME, missing: "no class has a robust accuracy" };
    let measured = |index: &usize| table.column(*index, |row| row.val_robust_accuracy).iter().any(Option::is_some);
    let Some(last) = (0..table.epochs.len()).rev().find(measured) else { return Err(missing) };
    let robust = table.column(last, |row| row.val_robust_accuracy);
    let clean = table.column(last, |row| row.val_clean_accuracy);
    // Best first. Classes without a value are at the top, so that they do not separate the worst class from the gap.
    let mut order: Vec<usize> = (0..table.classes).collect();
    order.sort_by(|&a, &b| {
        robust[b].unwrap_or(f64::INFINITY).total_cmp(&robust[a].unwrap_or(f64::INFINITY)).then(a.cmp(&b))
    });
    let known: Vec<f64> = order.iter().filter_map(|&class| robust[class]).collect();
    let (Some(&best), Some(&worst)) = (known.first(), known.last()) else { return Err(missing) };
    let of_epoch = metrics.iter().find(|row| row.epoch == table.epochs[last]).map(|row| row.val_robust_accuracy);
    let mean = of_epoch.filter(is_fraction).unwrap_or_else(|| known.iter().sum::<f64>() / known.len() as f64);
    let tenth = &known[known.len() - known.len().div_ceil(10)..];
    let tenth = tenth.iter().sum::<f64>() / tenth.len() as f64;
    // Of many classes the best and, above all, the worst; a row between them says how many are left out.
    let left_out = if table.classes > DENSE_CLASSES { table.classes - MOST_SHOWN } else { 0 };
    if left_out > 0 {
        order.drain(BEST_SHOWN..BEST_SHOWN + left_out);
    }
    let rows = order.len() + usize::from(left_out > 0);
    let row_of = |place: usize| if left_out > 0 && place >= BEST_SHOWN { place + 1 } else { place };

    let pitch = pitch(rows);
    let names = &context.labels();
    // The worst class is in bold.
    let name_room = gutter(names, SMALL, 150.0) * 1.06;
    let left = MARGIN + name_room + 8.0;
    let numbers = 108.0;
    let mut canvas = Canvas::new(560.0);
    let mut notes = vec![evaluation_note(context), format!("Validation split, after epoch {}", table.epochs[last] + 1)];
    if left_out > 0 {
        let worst = MOST_SHOWN - BEST_SHOWN;
        notes.push(format!("Shown: the {BEST_SHOWN} best and the {worst} worst of {} classes", table.classes));
    }
    let top = header(&mut canvas, "Robust accuracy by class", context, &notes) + 34.0;
    let plot = Plot {
        left,
        top,
        width: canvas.width() - left - numbers - MARGIN,
        height: pitch * rows as f64,
        x: (0.0, 1.0),
        y: (0.0, 1.0),
    };
    share_axis(&mut canvas, &plot, &[0.0, 0.25, 0.5, 0.75, 1.0]);
    let (robust_end, clean_end) = (canvas.width() - MARGIN - 54.0, canvas.width() - MARGIN);
    let head = Style::new(SMALL).bold().end();
    canvas.text(robust_end, top - 9.0, head.fill(BLUE), "robust");
    canvas.text(clean_end, top - 9.0, head.fill("#6f8ba3"), "clean");

    let step = thinning(pitch, 10.5);
    for (place, &class) in order.iter().enumerate() {
        let y = top + row_of(place) as f64 * pitch;
        let middle = y + pitch / 2.0;
        let is_worst = worst < best && robust[class] == Some(worst);
        if let Some(value) = clean[class] {
            canvas.rect(plot.left, y + 0.12 * pitch, plot.px(value) - plot.left, 0.76 * pitch, CLEAN);
        }
        if let Some(value) = robust[class] {
            let color = if is_worst { VERMILLION } else { BLUE };
            canvas.rect(plot.left, y + 0.26 * pitch, plot.px(value) - plot.left, 0.48 * pitch, color);
        }
        // Counted from the worst class upwards, so that the worst class is always labelled.
        if (order.len() - 1 - place).is_multiple_of(step) {
            let size = if pitch < MINIMUM_TEXT { 9.5 } else { SMALL };
            let style = Style::new(size).end();
            let style = if is_worst { style.bold().fill(VERMILLION) } else { style };
            let name = text::fit(&names[class], size, style.weight, name_room);
            canvas.centered_text(plot.left - 8.0, middle, style, &name);
            let number = |value: Option<f64>| value.map_or("–".to_owned(), percent);
            canvas.centered_text(robust_end, middle, style, &number(robust[class]));
            let style = Style::new(size).end().fill(MUTED);
            canvas.centered_text(clean_end, middle, style, &number(clean[class]));
        }
    }
    if left_out > 0 {
        let middle = top + (BEST_SHOWN as f64 + 0.5) * pitch;
        let style = Style::new(9.5).fill(MUTED);
        canvas.centered_text(plot.left + 8.0, middle, style, &format!("… {left_out} classes in between …"));
    }
    let bottom = plot.bottom();
    canvas.line((plot.left, top), (plot.left, bottom), Stroke::new(AXIS, 1.0));
    let x = plot.px(mean);
    canvas.line((x, top - 4.0), (x, bottom), Stroke::new(INK, 1.2).dashed("4 3"));
    let label = format!("mean robust {}", percent(mean));
    let half = text::width(&label, SMALL, Weight::Regular) / 2.0;
    let x = x.max(plot.left + half).min(plot.right() - half);
    canvas.text(x, top - 9.0, Style::new(SMALL).middle(), &label);

    // The gap is drawn as a dimension line below the axis.
    let y = bottom + 34.0;
    let (from, to) = (plot.px(worst), plot.px(best));
    canvas.line((from, y), (to, y), Stroke::new(INK, 1.2));
    for x in [from, to] {
        canvas.line((x, y - 4.0), (x, y + 4.0), Stroke::new(INK, 1.2));
    }
    let mut label = format!("gap {:.1} points, worst to best class", 100.0 * (best - worst));
    if table.classes > MANY_CLASSES {
        label += &format!("; worst 10% of the classes: {}", percent(tenth));
    }
    let half = text::width(&label, LABEL, Weight::SemiBold) / 2.0;
    let x = (0.5 * (from + to)).max(plot.left + half).min(canvas.width() - MARGIN - half);
    canvas.text(x, y + 18.0, Style::new(LABEL).bold().middle(), &label);
    Ok(Figure { name: NAME, svg: canvas.finish(y + 24.0 + MARGIN - 6.0, "Robust accuracy by class") })
}

/// The current radius of every class, with the radius of the rule as a tick and the base epsilon as a line.
///
/// # Errors
/// [`FigureError::Empty`] without radii, [`FigureError::Length`] if their number is not that of the classes.
pub fn class_epsilon(epsilon: &[f64], rule: &[f64], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "epsilon-now";
    let names = &context.labels();
    if epsilon.is_empty() || names.is_empty() {
        return Err(FigureError::Empty { figure: NAME, missing: "no class has a radius" });
    }
    for (what, values) in [("the radii", epsilon), ("the rule", rule)] {
        if values.len() != names.len() {
            let (expected, found) = (names.len(), values.len());
            return Err(FigureError::Length { figure: NAME, what: what.to_owned(), expected, found });
        }
    }
    let highest = epsilon.iter().chain(rule).copied().chain([context.base_epsilon]).fold(0.0, f64::max);
    let bound = nice_above(highest * 255.0) / 255.0;
    let shown = Shown::highest(names.len(), |class| (epsilon[class] - context.base_epsilon).abs());
    let names = &shown.names(context);
    let pitch = pitch(names.len());
    let name_room = gutter(names, SMALL, 150.0);
    let left = MARGIN + name_room + 8.0;
    let mut canvas = Canvas::new(560.0);
    let mut notes =
        vec!["Radius of the training attack; dark tick: what the rule says; dashed: base epsilon".to_owned()];
    notes.extend(shown.note("whose radius differs most from the base epsilon, largest difference first"));
    let top = header(&mut canvas, "Epsilon of each class", context, &notes) + 24.0;
    let width = canvas.width() - left - 112.0 - MARGIN;
    let plot = Plot { left, top, width, height: pitch * names.len() as f64, x: (0.0, bound), y: (0.0, 1.0) };
    row_labels(&mut canvas, names, left - 8.0, top, pitch, name_room);
    for level in ticks(0.0, bound * 255.0, 4) {
        let x = plot.px(level / 255.0);
        canvas.line((x, top), (x, plot.bottom()), Stroke::new(GRID, 1.0));
        let label = format!("{}/255", trimmed(level, 2));
        canvas.text(x, plot.bottom() + 16.0, Style::new(SMALL).fill(MUTED).middle(), &label);
    }
    for (row, (value, rule)) in shown.classes.iter().map(|class| (&epsilon[*class], &rule[*class])).enumerate() {
        let y = top + row as f64 * pitch;
        canvas.rect(left, y + 0.15 * pitch, plot.px(*value) - left, 0.7 * pitch, BLUE);
        let x = plot.px(*rule);
        canvas.line((x, y + 0.05 * pitch), (x, y + 0.95 * pitch), Stroke::new(INK, 1.6));
        if pitch >= MINIMUM_TEXT {
            let text = format!("{}/255 ({value:.4})", trimmed(value * 255.0, 2));
            canvas.centered_text(plot.right() + 8.0, y + pitch / 2.0, Style::new(SMALL).fill(MUTED), &text);
        }
    }
    let x = plot.px(context.base_epsilon);
    canvas.line((x, top - 4.0), (x, plot.bottom()), Stroke::new(INK, 1.2).dashed("4 3"));
    canvas.line((left, top), (left, plot.bottom()), Stroke::new(AXIS, 1.0));
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + 24.0 + MARGIN - 6.0, "Epsilon of each class") })
}
