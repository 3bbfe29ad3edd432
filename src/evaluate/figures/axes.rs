//! Shared parts of the figures: headings, ticks, epoch axes, line labels, colours.

use super::svg::{AXIS, Canvas, GRID, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, FigureError};
use crate::train::{ValidationChange, uninterrupted};

/// Margin around a figure.
pub(super) const MARGIN: f64 = 16.0;
/// Size of tick labels and captions.
pub(super) const SMALL: f64 = 11.0;
/// Size of axis titles and direct labels.
pub(super) const LABEL: f64 = 11.5;

// Okabe and Ito, "Color Universal Design" (2008).
pub(super) const BLUE: &str = "#0072b2";
pub(super) const VERMILLION: &str = "#d55e00";
pub(super) const GREEN: &str = "#00795a";

/// Ten colours for classes: Paul Tol's "muted" scheme (technical note SRON/EPS/TN/09-002) and a grey.
pub(super) const CLASS_COLORS: [&str; 10] =
    ["#332288", "#cc6677", "#117733", "#4db5e0", "#882255", "#b08e2c", "#44aa99", "#aa4499", "#7d7d1f", "#777777"];

/// Draws heading and notes at the top; returns the y coordinate below them.
pub(super) fn header(canvas: &mut Canvas, heading: &str, context: &Context, notes: &[String]) -> f64 {
    let width = canvas.width() - 2.0 * MARGIN;
    let mut y = canvas.paragraph(MARGIN, MARGIN + 11.0, width, Style::new(14.0).bold(), heading);
    y = canvas.paragraph(MARGIN, y, width, Style::new(SMALL).fill(MUTED), &context.title);
    for note in notes {
        y = canvas.paragraph(MARGIN, y, width, Style::new(SMALL).fill(MUTED), note);
    }
    y - 2.0
}

/// The attack of an evaluation, for the notes under a heading.
pub(super) fn evaluation_note(context: &Context) -> String {
    format!("Robust: under {}", named(&context.attack, "the evaluation attack"))
}

/// The attack during training, for the notes under a heading.
pub(super) fn training_note(what: &str, context: &Context) -> String {
    format!("{what} {}", named(&context.train_attack, "the training attack"))
}

/// `attack`, or `otherwise` if it is empty.
pub(super) fn named<'a>(attack: &'a str, otherwise: &'a str) -> &'a str {
    if attack.trim().is_empty() { otherwise } else { attack }
}

/// `0.314` as `31.4%`.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1}%", 100.0 * fraction)
}

/// An epsilon as multiples of one grey level: `8/255`, `5.3/255`.
pub(super) fn k255(epsilon: f64) -> String {
    format!("{}/255", trimmed(epsilon * 255.0, 1))
}

/// `value` with at most `digits` decimals and no trailing zeros.
pub(super) fn trimmed(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The smallest of …, 1, 2, 5, 10, … that is at least `value`.
pub(super) fn nice_above(value: f64) -> f64 {
    if !(value.is_finite() && value > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= value * (1.0 - 1e-9));
    step.unwrap_or(10.0) * power
}

/// Multiples of a round step in `[low, high]`, about `count` of them.
pub fn ticks(low: f64, high: f64, count: usize) -> Vec<f64> {
    if !(low.is_finite() && high.is_finite() && high > low) {
        return vec![low];
    }
    let step = nice_above((high - low) / count.max(1) as f64);
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// Positions as close as possible (least squares) to `wanted` with at least `gap` between neighbours, in `[low, high]`.
///
/// With p = q + gap·rank this is isotonic regression of q, solved by pooling adjacent violators.
pub(super) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let count = wanted.len();
    let gap = if count > 1 { gap.min((high - low).max(0.0) / (count - 1) as f64) } else { gap };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut pools: Vec<(f64, usize)> = Vec::new();
    for (rank, &index) in order.iter().enumerate() {
        let mut pool = (wanted[index] - gap * rank as f64, 1);
        while let Some(&(sum, size)) = pools.last() {
            if sum / (size as f64) <= pool.0 / pool.1 as f64 {
                break;
            }
            pool = (pool.0 + sum, pool.1 + size);
            pools.pop();
        }
        pools.push(pool);
    }
    let top = high - gap * count.saturating_sub(1) as f64;
    let free = pools.iter().flat_map(|&(sum, size)| std::iter::repeat_n((sum / size as f64).min(top).max(low), size));
    let mut positions = vec![0.0; count];
    for (rank, (position, &index)) in free.zip(&order).enumerate() {
        positions[index] = position + gap * rank as f64;
    }
    positions
}

/// Step between labels that are shown, so that they are at least `minimum` apart.
pub(super) fn thinning(pitch: f64, minimum: f64) -> usize {
    let needed = minimum / pitch.max(1e-6);
    if needed <= 1.0 { 1 } else { nice_above(needed) as usize }
}

/// A rectangle with a linear scale on each axis; y grows upwards.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plot {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) x: (f64, f64),
    pub(super) y: (f64, f64),
}

impl Plot {
    pub(super) fn right(&self) -> f64 {
        self.left + self.width
    }

    pub(super) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub(super) fn px(&self, x: f64) -> f64 {
        self.left + self.width * ((x - self.x.0) / (self.x.1 - self.x.0)).clamp(0.0, 1.0)
    }

    pub(super) fn py(&self, y: f64) -> f64 {
        self.bottom() - self.height * ((y - self.y.0) / (self.y.1 - self.y.0)).clamp(0.0, 1.0)
    }

    /// Light horizontal lines at `values`.
    pub(super) fn grid(&self, canvas: &mut Canvas, values: &[f64]) {
        for &value in values {
            let y = self.py(value);
            canvas.line((self.left, y), (self.right(), y), Stroke::new(GRID, 1.0));
        }
    }

    /// The lower axis, with its title and epoch numbers, counted from 1. `first` is the number shown at position 0: 1
    /// if rows are placed at their index, 0 if they are placed at the number of completed epochs.
    pub(super) fn epoch_axis(&self, canvas: &mut Canvas, first: u32) {
        let y = self.bottom();
        canvas.line((self.left, y), (self.right(), y), Stroke::new(AXIS, 1.0));
        let count = (self.width / 48.0) as usize;
        let first = f64::from(first);
        let numbers = ticks(self.x.0 + first, self.x.1 + first, count);
        for epoch in numbers.into_iter().filter(|number| number.fract() == 0.0) {
            let x = self.px(epoch - first);
            canvas.line((x, y), (x, y + 4.0), Stroke::new(AXIS, 1.0));
            canvas.text(x, y + 16.0, Style::new(SMALL).fill(MUTED).middle(), &format!("{epoch}"));
        }
        canvas.text(self.left + self.width / 2.0, y + 33.0, Style::new(LABEL).middle(), "Epoch");
    }
}

/// Height above a plot for the labels of changes of the validation attack.
pub(super) fn change_room(changes: &[ValidationChange]) -> f64 {
    if changes.len() > LABELLED_CHANGES { 0.0 } else { changes.len() as f64 * CHANGE_ROW }
}

/// With more changes than this, as after dragging a slider, only lines are drawn.
const LABELLED_CHANGES: usize = 4;
const CHANGE_ROW: f64 = 14.0;
const CHANGED: &str = "validation attack changed";

/// Notes of a figure that describe the change at each line of [`mark_changes`]; one general note if there are too many.
pub(super) fn change_notes(changes: &[ValidationChange]) -> Vec<String> {
    if changes.len() > LABELLED_CHANGES {
        return vec!["Vertical lines: changes of that attack".to_owned()];
    }
    let note = |change: &ValidationChange| {
        let label = change.label();
        let what = label.strip_prefix("validation: ").unwrap_or(&label);
        format!("Changed after epoch {} (vertical line): {what}", change.epoch)
    };
    changes.iter().map(note).collect()
}

/// A thin line where the validation attack changed, between the last epoch under one attack and the first under
/// another, with a label above the plot. The change itself is too long for the label and is described in the notes of
/// the figure ([`change_notes`]).
pub(super) fn mark_changes(canvas: &mut Canvas, plot: &Plot, changes: &[ValidationChange]) {
    let labelled = changes.len() <= LABELLED_CHANGES;
    for (i, change) in changes.iter().enumerate() {
        let x = plot.px(f64::from(change.epoch) - 0.5);
        if !labelled {
            canvas.line((x, plot.top), (x, plot.bottom()), Stroke::new(MUTED, 0.9));
            continue;
        }
        // One row per change, the first at the top: a later label is to the right of the lines of earlier ones.
        let y = plot.top - 4.0 - (changes.len() - 1 - i) as f64 * CHANGE_ROW;
        canvas.line((x, y - 9.0), (x, plot.bottom()), Stroke::new(MUTED, 0.9));
        let (label, style) = (CHANGED, Style::new(SMALL).fill(MUTED));
        let room = canvas.width() - MARGIN - (x + 5.0);
        let width = text::width(label, SMALL, Weight::Regular);
        if width <= room {
            canvas.text(x + 5.0, y, style, label);
            continue;
        }
        // To the left of its line, where the lines of earlier changes must not cross it.
        let label = text::fit(label, SMALL, Weight::Regular, x - 5.0 - plot.left);
        let width = text::width(&label, SMALL, Weight::Regular);
        canvas.rect(x - 8.0 - width, y - 10.0, width + 6.0, CHANGE_ROW - 1.0, "#ffffff");
        canvas.text(x - 5.0, y, style.end(), &label);
    }
}

/// Height of an epoch axis below a plot.
pub(super) const EPOCH_AXIS: f64 = 40.0;

/// The range of an epoch axis; a single epoch is centred.
pub(super) fn epoch_range(epochs: &[u32]) -> (f64, f64) {
    let first = epochs.first().copied().unwrap_or(0);
    let last = epochs.last().copied().unwrap_or(first);
    if first == last { (f64::from(first) - 0.5, f64::from(first) + 0.5) } else { (f64::from(first), f64::from(last)) }
}

/// [`series`] of an accuracy under the validation attack: also interrupted where the attack changed, because values on
/// the two sides are not comparable.
pub(super) fn validation_series(
    canvas: &mut Canvas,
    plot: &Plot,
    points: &[(u32, Option<f64>)],
    changes: &[ValidationChange],
    stroke: Stroke<'_>,
) {
    for part in uninterrupted(points, changes, |point| point.0) {
        series(canvas, plot, part, stroke);
    }
}

/// A line over epochs, interrupted where a value is missing; a point without neighbours is a dot.
pub(super) fn series(canvas: &mut Canvas, plot: &Plot, points: &[(u32, Option<f64>)], stroke: Stroke<'_>) {
    for run in points.split(|(_, value)| value.is_none()) {
        let run: Vec<(f64, f64)> =
            run.iter().filter_map(|&(x, y)| Some((plot.px(f64::from(x)), plot.py(y?)))).collect();
        match run.as_slice() {
            [] => {}
            [point] => canvas.dot(*point, (1.3 * stroke.width).max(2.0), stroke.color),
            run => canvas.polyline(run, stroke),
        }
    }
}

/// A label at the right end of a line.
pub(super) struct EndLabel<'a> {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) at: (f64, f64),
    pub(super) color: &'a str,
    pub(super) bold: bool,
}

/// Draws the labels to the right of `plot` without overlaps, each with a leader to its line; `room` is their width.
pub(super) fn end_labels(canvas: &mut Canvas, plot: &Plot, labels: &[EndLabel<'_>], room: f64) {
    let wanted: Vec<f64> = labels.iter().map(|label| label.at.1).collect();
    let positions = spread(&wanted, 14.0, plot.top, plot.bottom());
    let x = plot.right() + LEADER;
    for (label, y) in labels.iter().zip(positions) {
        let (from, to) = ((label.at.0 + 3.0, label.at.1), (x - 3.0, y));
        canvas.polyline(&[from, (plot.right() + 4.0, label.at.1), to], Stroke::new(label.color, 0.6));
        let style = Style::new(LABEL).fill(label.color);
        let style = if label.bold { style.bold() } else { style };
        let value = format!(" {}", label.value);
        let rest = room - LEADER - text::width(&value, style.size, style.weight);
        let name = text::fit(&label.name, style.size, style.weight, rest);
        canvas.centered_text(x, y, style, &format!("{name}{value}"));
    }
}

/// Space between the right end of a plot and its labels.
pub(super) const LEADER: f64 = 18.0;

/// The width of the widest of `names`, at most `limit`.
pub(super) fn gutter(names: &[String], size: f64, limit: f64) -> f64 {
    names.iter().map(|name| text::width(name, size, Weight::Regular)).fold(0.0, f64::max).min(limit).ceil()
}

/// Class names to the left of rows of height `pitch`; some are left out if they would touch.
pub(super) fn row_labels(canvas: &mut Canvas, names: &[String], right: f64, top: f64, pitch: f64, limit: f64) {
    let size = if pitch < 13.0 { 9.5 } else { SMALL };
    let step = thinning(pitch, size + 1.0);
    for (row, name) in names.iter().enumerate().step_by(step) {
        let name = text::fit(name, size, Weight::Regular, limit);
        canvas.centered_text(right, top + (row as f64 + 0.5) * pitch, Style::new(size).fill(INK).end(), &name);
    }
}

/// `data`, or [`FigureError::Empty`] if it is empty.
pub(super) fn some<'a, T>(figure: &'static str, data: &'a [T], missing: &'static str) -> Result<&'a [T], FigureError> {
    if data.is_empty() { Err(FigureError::Empty { figure, missing }) } else { Ok(data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(0.0, 199.0, 5), [0.0, 50.0, 100.0, 150.0]);
        assert_eq!(ticks(3.0, 3.0, 5), [3.0]);
        assert_eq!(ticks(f64::NAN, 1.0, 5).len(), 1);
    }

    #[test]
    fn labels_keep_their_distance_and_stay_inside() {
        let wanted = [50.0, 50.0, 51.0, 10.0, 99.0, 98.0];
        let positions = spread(&wanted, 10.0, 0.0, 100.0);
        let mut sorted = positions.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= 10.0 - 1e-9), "{sorted:?}");
        assert!(sorted[0] >= 0.0 && sorted[5] <= 100.0);
        assert_eq!(positions[3], 10.0);
        assert!((positions[0] + positions[1] + positions[2] - 151.0).abs() < 1e-9, "clusters stay centred");
        let crowded = spread(&[5.0; 30], 10.0, 0.0, 100.0);
        assert!(crowded.iter().all(|p| (0.0..=100.0 + 1e-9).contains(p)));
        assert!(spread(&[], 10.0, 0.0, 100.0).is_empty());
    }

    #[test]
    fn numbers_as_readers_expect_them() {
        assert_eq!(k255(8.0 / 255.0), "8/255");
        assert_eq!(k255(5.34 / 255.0), "5.3/255");
        assert_eq!(percent(0.3141), "31.4%");
        assert_eq!(trimmed(-0.001, 2), "0");
        assert_eq!(trimmed(10.0, 0), "10");
        assert_eq!((nice_above(3.0), nice_above(0.1), nice_above(0.11)), (5.0, 0.1, 0.2));
        assert_eq!((thinning(20.0, 12.0), thinning(6.5, 12.0), thinning(0.5, 12.0)), (1, 2, 50));
    }
}
