//! Lines over the course of a run: loss, learning rate, time.

use super::axes::{EPOCH_AXIS, MARGIN, Plot, SMALL, VERMILLION, header, nice_above, series, some, ticks, trimmed};
use super::svg::{Canvas, INK, MUTED, Stroke, Style};
use super::{Context, Figure, FigureError};
use crate::train::MetricsRow;

/// A plot below a heading, with room for its axes.
fn plot(canvas: &Canvas, top: f64, epochs: f64, y: (f64, f64)) -> Plot {
    let left = MARGIN + 54.0;
    Plot { left, top, width: canvas.width() - left - MARGIN, height: 240.0, x: (0.0, epochs.max(1.0)), y }
}

fn levels(canvas: &mut Canvas, plot: &Plot, values: &[(f64, String)]) {
    plot.grid(canvas, &values.iter().map(|(value, _)| *value).collect::<Vec<_>>());
    for (value, text) in values {
        canvas.centered_text(plot.left - 8.0, plot.py(*value), Style::new(SMALL).fill(MUTED).end(), text);
    }
}

/// Epochs done at the end of the last row.
fn end(rows: &[MetricsRow]) -> f64 {
    rows.iter().map(|row| f64::from(row.epoch) + 1.0).fold(0.0, f64::max)
}

const COUNTING: &str = "The axis counts epochs that are done";

/// Mean training loss of each epoch. `within` adds the running mean of the current epoch at positions (epochs done)
/// within the epochs.
///
/// # Errors
/// [`FigureError::Empty`] if there is neither.
pub fn loss_curve(rows: &[MetricsRow], within: &[(f64, f64)], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "loss";
    let epochs: Vec<(u32, Option<f64>)> =
        rows.iter().map(|row| (row.epoch + 1, Some(row.train_loss).filter(|loss| loss.is_finite()))).collect();
    let within: Vec<(f64, f64)> =
        within.iter().copied().filter(|point| point.0.is_finite() && point.1.is_finite()).collect();
    let known: Vec<f64> = epochs.iter().filter_map(|point| point.1).chain(within.iter().map(|point| point.1)).collect();
    some(NAME, &known, "no loss was measured")?;
    let mut canvas = Canvas::new(560.0);
    let thin = if within.is_empty() { "" } else { "; the thin line is the mean of the epoch so far" };
    let notes = [format!("Loss on training images under {}{thin}", context.train_attack), COUNTING.to_owned()];
    let top = header(&mut canvas, "Training loss", context, &notes) + 12.0;
    let highest = known.iter().copied().fold(0.0, f64::max);
    let step = nice_above(highest / 5.0);
    let last = within.iter().map(|point| point.0).fold(end(rows), f64::max);
    let plot = plot(&canvas, top, last, (0.0, (highest / step - 1e-9).ceil().max(1.0) * step));
    let marks = ticks(plot.y.0, plot.y.1, 5).into_iter().map(|v| (v, trimmed(v, 3))).collect::<Vec<_>>();
    levels(&mut canvas, &plot, &marks);
    plot.epoch_axis(&mut canvas, 0);
    let points: Vec<(f64, f64)> = within.iter().map(|(x, y)| (plot.px(*x), plot.py(*y))).collect();
    if points.len() > 1 {
        canvas.polyline(&points, Stroke::new("#9a9a9a", 0.9));
    }
    series(&mut canvas, &plot, &epochs, Stroke::new(INK, 2.0));
    Ok(Figure {
        name: NAME,
        svg: canvas.finish(plot.bottom() + EPOCH_AXIS + MARGIN - 6.0, "Training loss over epochs"),
    })
}

/// Learning rate at the last step of each epoch, on a logarithmic scale.
///
/// # Errors
/// [`FigureError::Empty`] if no rate is above 0.
pub fn learning_rate(rows: &[MetricsRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "learning-rate";
    let points: Vec<(u32, Option<f64>)> =
        rows.iter().map(|row| (row.epoch + 1, Some(row.lr.log10()).filter(|exponent| exponent.is_finite()))).collect();
    let known: Vec<f64> = points.iter().filter_map(|point| point.1).collect();
    some(NAME, &known, "no learning rate is above 0")?;
    let (low, high) = known.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let mut canvas = Canvas::new(560.0);
    let notes = ["At the last step of each epoch".to_owned(), COUNTING.to_owned()];
    let top = header(&mut canvas, "Learning rate", context, &notes) + 12.0;
    let low = low.floor();
    let plot = plot(&canvas, top, end(rows), (low, high.ceil().max(low + 1.0)));
    let decades = plot.y.0 as i32..=plot.y.1 as i32;
    let marks = decades.map(|power| (f64::from(power), format!("{}", 10f64.powi(power)))).collect::<Vec<_>>();
    levels(&mut canvas, &plot, &marks);
    plot.epoch_axis(&mut canvas, 0);
    series(&mut canvas, &plot, &points, Stroke::new(INK, 2.0));
    Ok(Figure {
        name: NAME,
        svg: canvas.finish(plot.bottom() + EPOCH_AXIS + MARGIN - 6.0, "Learning rate over epochs"),
    })
}

/// Colours of the parts of an epoch's time: attack, update, statistics, the rest.
const PARTS: [(&str, &str); 4] =
    [("attack", VERMILLION), ("update", "#0072b2"), ("statistics", "#00795a"), ("evaluation and the rest", "#b5b5b5")];

/// Seconds of each epoch, stacked by part.
///
/// # Errors
/// [`FigureError::Empty`] without rows.
pub fn time_by_epoch(rows: &[MetricsRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "time";
    some(NAME, rows, "no epoch is done")?;
    let highest = rows.iter().map(|row| row.seconds).filter(|s| s.is_finite()).fold(0.0, f64::max);
    let mut canvas = Canvas::new(560.0);
    let top = header(&mut canvas, "Where the time goes", context, &["Seconds of each epoch".to_owned()]) + 30.0;
    let step = nice_above(highest / 5.0);
    let first = rows.iter().map(|row| row.epoch).min().unwrap_or(0);
    let last = rows.iter().map(|row| row.epoch).max().unwrap_or(0);
    let base = plot(&canvas, top, 1.0, (0.0, (highest / step - 1e-9).ceil().max(1.0) * step));
    let plot = Plot { x: (f64::from(first) - 0.5, f64::from(last) + 0.5), ..base };
    let marks =
        ticks(plot.y.0, plot.y.1, 5).into_iter().map(|v| (v, format!("{} s", trimmed(v, 3)))).collect::<Vec<_>>();
    levels(&mut canvas, &plot, &marks);
    plot.epoch_axis(&mut canvas, 1);
    let width = 0.8 * (plot.px(f64::from(first) + 1.0) - plot.px(f64::from(first)));
    for row in rows {
        let parts = [row.seconds_attack, row.seconds_update, row.seconds_statistics];
        let rest = (row.seconds - parts.iter().sum::<f64>()).max(0.0);
        let mut sum = 0.0;
        for (seconds, (_, color)) in parts.into_iter().chain([rest]).zip(PARTS) {
            let (from, to) = (plot.py(sum), plot.py(sum + seconds));
            canvas.rect(plot.px(f64::from(row.epoch)) - width / 2.0, to, width, from - to, color);
            sum += seconds;
        }
    }
    let mut x = plot.left;
    for (name, color) in PARTS {
        canvas.rect(x, top - 20.0, 9.0, 9.0, color);
        canvas.text(x + 13.0, top - 12.0, Style::new(SMALL), name);
        x += 30.0 + super::text::width(name, SMALL, super::text::Weight::Regular);
    }
    Ok(Figure {
        name: NAME,
        svg: canvas.finish(plot.bottom() + EPOCH_AXIS + MARGIN - 6.0, "Time of each epoch by part"),
    })
}
