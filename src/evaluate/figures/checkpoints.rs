//! Several checkpoints side by side, and what the adversarial images of one do to the others.

use super::attacks::whisker;
use super::axes::{
    BLUE, LABEL, MARGIN, Plot, SMALL, VERMILLION, evaluation_note, gutter, header, percent, row_labels, some,
};
use super::bars::share_axis;
use super::classes::is_fraction;
use super::corruptions::{accuracy_color, cell, chance, scale_marks};
use super::heatmap::{ASIDE, BAR_ROOM, ColorBar, Matrix, column_labels, hex};
use super::svg::{AXIS, Canvas, GRID, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};

/// A checkpoint of [`checkpoint_bars`].
#[derive(Debug, Clone, PartialEq)]
pub struct CheckpointBar {
    /// Its name.
    pub name: String,
    /// Clean accuracy.
    pub clean: f64,
    /// 95% confidence interval of the clean accuracy; not a number if it was not measured.
    pub clean_interval: [f64; 2],
    /// Robust accuracy.
    pub robust: f64,
    /// 95% confidence interval of the robust accuracy; not a number if it was not measured.
    pub robust_interval: [f64; 2],
    /// Robust accuracy of the worst class.
    pub worst: f64,
    /// 95% confidence interval of the worst class; not a number if it was not measured.
    pub worst_interval: [f64; 2],
    /// Name of the worst class.
    pub worst_class: String,
}

/// Widest name of a checkpoint.
const NAMES: f64 = 200.0;
/// Widest name of a worst class.
const CLASSES: f64 = 90.0;
/// Width of a column of numbers.
const NUMBER: f64 = 60.0;

/// The names of checkpoints, or their numbers where a name is blank. If a name is wider than `limit`, folders and files
/// that all of them share at the beginning and at the end are left out: `…/seed-3/…`.
fn labels<'a>(names: impl Iterator<Item = &'a str>, limit: f64) -> Vec<String> {
    let numbered = |(index, name): (usize, &str)| {
        if name.trim().is_empty() { format!("checkpoint {}", index + 1) } else { name.to_owned() }
    };
    let names: Vec<String> = names.enumerate().map(numbered).collect();
    if names.len() < 2 || names.iter().all(|name| text::width(name, SMALL, Weight::Regular) <= limit) {
        return names;
    }
    let parts: Vec<Vec<&str>> = names.iter().map(|name| name.split(['/', '\\']).collect()).collect();
    // At least one part of each name remains.
    let most = parts.iter().map(Vec::len).min().unwrap_or(1) - 1;
    let head = (0..most).take_while(|&i| parts.iter().all(|name| name[i] == parts[0][i])).count();
    let from_end = |name: &[&'_ str], i: usize| name[name.len() - 1 - i].to_owned();
    let same = |i: &usize| parts.iter().all(|name| from_end(name, *i) == from_end(&parts[0], *i));
    let tail = (0..most - head).take_while(same).count();
    let short = |name: &Vec<&str>| {
        let middle = name[head..name.len() - tail].join("/");
        format!("{}{middle}{}", if head > 0 { "…/" } else { "" }, if tail > 0 { "/…" } else { "" })
    };
    parts.iter().map(short).collect()
}

/// Clean accuracy, robust accuracy and worst class of each checkpoint, in the given order. The best numbers are bold.
///
/// # Errors
/// [`FigureError::Empty`] without an accuracy.
pub fn checkpoint_bars(rows: &[CheckpointBar], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "checkpoints";
    type Column = (&'static str, &'static str, fn(&CheckpointBar) -> (f64, [f64; 2]), bool);
    /// Title, colour, value, and whether the dot is open.
    const COLUMNS: [Column; 3] = [
        ("clean", BLUE, |row| (row.clean, row.clean_interval), false),
        ("robust", VERMILLION, |row| (row.robust, row.robust_interval), false),
        ("worst class", VERMILLION, |row| (row.worst, row.worst_interval), true),
    ];
    some(NAME, rows, "no checkpoints")?;
    let best = COLUMNS.map(|(_, _, value, _)| rows.iter().map(|row| value(row).0).filter(is_fraction).reduce(f64::max));
    if best.iter().all(Option::is_none) {
        return Err(FigureError::Empty { figure: NAME, missing: "no checkpoint has an accuracy" });
    }
    let pitch = if rows.len() > 20 { 20.0 } else { 26.0 };
    let names = labels(rows.iter().map(|row| row.name.as_str()), NAMES);
    let name_room = gutter(&names, SMALL, NAMES);
    let classes: Vec<String> = rows.iter().map(|row| row.worst_class.clone()).collect();
    let class_room = gutter(&classes, SMALL, CLASSES).max(24.0);
    let mut canvas = Canvas::new(720.0);
    let bold = if rows.len() > 1 { "; bold: best of its column" } else { "" };
    let notes = [evaluation_note(context), format!("Whiskers: 95% intervals{bold}")];
    let top = header(&mut canvas, "Checkpoints compared", context, &notes) + 34.0;
    let left = MARGIN + name_room + 12.0;
    let class_left = canvas.width() - MARGIN - class_room;
    let ends = [class_left - 6.0 - 2.0 * NUMBER, class_left - 6.0 - NUMBER, class_left - 6.0];
    let height = pitch * rows.len() as f64;
    let plot = Plot { left, top, width: ends[0] - NUMBER - left, height, x: (0.0, 1.0), y: (0.0, 1.0) };
    row_labels(&mut canvas, &names, left - 12.0, top, pitch, name_room);
    share_axis(&mut canvas, &plot, &[0.0, 0.25, 0.5, 0.75, 1.0]);
    if let Some(chance) = chance(context.class_names.len()) {
        let x = plot.px(chance);
        canvas.line((x, top - 4.0), (x, plot.bottom()), Stroke::new(MUTED, 0.8).dashed("2 3"));
        let text = format!("chance {}", percent(chance));
        let half = text::width(&text, SMALL, Weight::Regular) / 2.0;
        canvas.text(x.max(plot.left + half), top - 9.0, Style::new(SMALL).fill(MUTED).middle(), &text);
    }
    for (index, (title, color, _, open)) in COLUMNS.iter().enumerate() {
        let style = Style::new(SMALL).bold().end().fill(color);
        // The title of the worst class extends over its name.
        let end = if index == 2 { class_left + text::width("class", SMALL, Weight::SemiBold) } else { ends[index] };
        canvas.text(end, top - 9.0, style, title);
        dot(&mut canvas, (end - text::width(title, SMALL, Weight::SemiBold) - 8.0, top - 13.0), color, *open);
    }
    for (row, bar) in rows.iter().enumerate() {
        let y = top + (row as f64 + 0.5) * pitch;
        let known = COLUMNS.iter().map(|(_, _, value, _)| value(bar).0).filter(is_fraction);
        let (low, high) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if low < high {
            canvas.line((plot.px(low), y), (plot.px(high), y), Stroke::new("#cfcfcf", 2.0));
        }
        for (index, (_, color, value, open)) in COLUMNS.iter().enumerate() {
            let (value, interval) = value(bar);
            let style = Style::new(SMALL).end();
            if !is_fraction(&value) {
                canvas.centered_text(ends[index], y, style.fill(MUTED), "–");
                continue;
            }
            whisker(&mut canvas, &plot, y, interval, color);
            dot(&mut canvas, (plot.px(value), y), color, *open);
            let style = if best[index] == Some(value) && rows.len() > 1 { style.bold() } else { style };
            canvas.centered_text(ends[index], y, style, &percent(value));
        }
        let class = text::fit(&bar.worst_class, SMALL, Weight::Regular, class_room);
        canvas.centered_text(class_left, y, Style::new(SMALL).fill(MUTED), &class);
    }
    for row in 1..rows.len() {
        let y = top + row as f64 * pitch;
        canvas.line((plot.left, y), (plot.right(), y), Stroke::new(GRID, 0.7));
    }
    canvas.line((plot.left, top), (plot.left, plot.bottom()), Stroke::new(AXIS, 1.0));
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + 24.0 + MARGIN - 6.0, "Checkpoints compared") })
}

fn dot(canvas: &mut Canvas, at: (f64, f64), color: &str, open: bool) {
    canvas.dot(at, 4.8, "#ffffff");
    canvas.dot(at, 3.8, color);
    if open {
        canvas.dot(at, 2.1, "#ffffff");
    }
}

/// Robust accuracy of each checkpoint (column) on the adversarial images of each checkpoint (row).
///
/// The diagonal, white-box attacks, has a frame. A dot marks images of another checkpoint that are stronger than the
/// white-box attack: that attack is then not as strong as it could be, often because gradients are masked
/// (Athalye et al. 2018).
///
/// # Errors
/// [`FigureError::Empty`] without an accuracy, [`FigureError::Length`] if `values` is not names × names.
pub fn transfer_matrix(
    names: &[String],
    values: &[Vec<Option<f64>>],
    context: &Context,
) -> Result<Figure, FigureError> {
    const NAME: &str = "transfer";
    /// Widest name of a checkpoint.
    const LIMIT: f64 = 150.0;
    let count = some(NAME, names, "no checkpoints")?.len();
    if values.len() != count {
        let what = "the matrix of sources".to_owned();
        return Err(FigureError::Length { figure: NAME, what, expected: count, found: values.len() });
    }
    let names = labels(names.iter().map(String::as_str), LIMIT);
    if let Some((row, name)) = values.iter().zip(&names).find(|(row, _)| row.len() != count) {
        let what = format!("the row of source `{name}`");
        return Err(FigureError::Length { figure: NAME, what, expected: count, found: row.len() });
    }
    let value = |row: usize, column: usize| values[row][column].filter(is_fraction);
    let cells = || (0..count).flat_map(|row| (0..count).map(move |column| (row, column)));
    if cells().all(|(row, column)| value(row, column).is_none()) {
        return Err(FigureError::Empty { figure: NAME, missing: "no pair of checkpoints has an accuracy" });
    }
    let stronger = |&(row, column): &(usize, usize)| {
        value(row, column).zip(value(column, column)).is_some_and(|(other, own)| row != column && other < own - 1e-9)
    };
    let marked: Vec<(usize, usize)> = cells().filter(stronger).collect();

    let name_room = gutter(&names, SMALL, LIMIT);
    let left = MARGIN + 20.0 + name_room + 8.0;
    let pitch = (400.0 / count as f64).clamp(6.5, 52.0);
    let size = pitch * count as f64;
    let mut canvas = Canvas::new((left + size + ASIDE + BAR_ROOM + MARGIN).max(440.0));
    let matrix = Matrix { left, top: 0.0, cell: (pitch, pitch), rows: count, columns: count };
    let mut notes = vec![evaluation_note(context)];
    notes.push("Accuracy of the target on adversarial images of the source; frame: white-box".to_owned());
    if !marked.is_empty() && matrix.has_text() {
        notes.push("Dot: stronger than the white-box attack on that target".to_owned());
    }
    let top = header(&mut canvas, "Transfer between checkpoints", context, &notes) + 12.0;
    let matrix = Matrix { top, ..matrix };
    matrix.draw(&mut canvas, NAME, |row, column| cell(value(row, column)))?;
    canvas.frame(left, top, size, size, Stroke::new(AXIS, 0.8));
    let corner = |row: usize, column: usize| (left + column as f64 * pitch, top + row as f64 * pitch);
    for index in 0..count {
        let (x, y) = corner(index, index);
        if matrix.has_text() {
            canvas.frame(x + 1.6, y + 1.6, pitch - 3.2, pitch - 3.2, Stroke::new("#ffffff", 1.2));
        }
        canvas.frame(x, y, pitch, pitch, Stroke::new(INK, if matrix.has_text() { 1.8 } else { 0.8 }));
    }
    if matrix.has_text() {
        for (row, column) in marked {
            let (x, y) = corner(row, column);
            let radius = if pitch < 30.0 { 2.2 } else { 3.2 };
            let at = (x + pitch - radius - 3.0, y + radius + 3.0);
            canvas.dot(at, radius + 1.2, "#ffffff");
            canvas.dot(at, radius, VERMILLION);
        }
    }
    row_labels(&mut canvas, &names, left - 8.0, top, pitch, name_room);
    let bottom = column_labels(&mut canvas, &names, &matrix, LIMIT);
    canvas.rotated_text(MARGIN + 9.0, top + size / 2.0, -90.0, Style::new(LABEL).middle(), "Source");
    canvas.text(left + size / 2.0, bottom + 18.0, Style::new(LABEL).middle(), "Target");
    let (x, top) = (left + size + ASIDE, top + 22.0);
    let bar = ColorBar { id: "transfer-scale", x, top, height: 150.0, maximum: 1.0, title: "Accuracy (%)" };
    let colors = (0..=16).map(|i| hex(accuracy_color(f64::from(i) / 16.0))).collect::<Vec<_>>();
    let classes = context.class_names.len();
    bar.draw(&mut canvas, &colors, &scale_marks(classes), chance(classes));
    let height = (bottom + 26.0).max(bar.top + bar.height + 8.0) + MARGIN - 6.0;
    Ok(Figure { name: NAME, svg: canvas.finish(height, "Transfer between checkpoints") })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, context, count, says, texts};
    use super::*;

    fn bar(name: &str, clean: f64, robust: f64, worst: f64) -> CheckpointBar {
        let interval = |value: f64| [(value - 0.02).max(0.0), (value + 0.02).min(1.0)];
        CheckpointBar {
            name: name.to_owned(),
            clean,
            clean_interval: interval(clean),
            robust,
            robust_interval: interval(robust),
            worst,
            worst_interval: interval(worst),
            worst_class: "cat".to_owned(),
        }
    }

    #[test]
    fn every_checkpoint_has_three_dots_and_their_numbers() {
        let rows = [bar("TRADES", 0.81, 0.5, 0.21), bar("FAIR-TAT", 0.79, 0.49, 0.27)];
        let figure = checkpoint_bars(&rows, &context(10)).unwrap();
        check(&figure);
        // Three dots of each checkpoint and three in the head, with a halo; the worst class also has a white middle.
        assert_eq!(count(&figure, "circle", None), 3 * (3 * 2 + 1));
        for text in ["TRADES", "81.0%", "50.0%", "27.0%", "cat", "chance 10.0%"] {
            assert!(says(&figure, text), "{text}");
        }
        assert!(says(&figure, &context(10).attack));
        let bold = |text: &str| figure.svg.lines().any(|line| line.contains("600") && line.contains(text));
        assert!(bold("81.0%") && bold("27.0%") && !bold("79.0%") && !bold("21.0%"));
    }

    #[test]
    fn long_names_keep_what_differs() {
        let of = |names: &[&str], limit| labels(names.iter().copied(), limit);
        let runs = ["runs/a/seed-0/last.safetensors", "runs/a/seed-1/last.safetensors"];
        assert_eq!(of(&runs, 500.0), runs);
        assert_eq!(of(&runs, 50.0), ["…/seed-0/…", "…/seed-1/…"]);
        assert_eq!(of(&["a/b/c", "a/b"], 1.0), ["…/b/c", "…/b"]);
        assert_eq!(of(&["a/b/c", "b/c"], 1.0), ["a/b/…", "b/…"]);
        assert_eq!(of(&["a/b", "a/b"], 1.0), ["…/b", "…/b"]);
        assert_eq!(of(&["a/b", " "], 1.0), ["a/b", "checkpoint 2"]);
        assert_eq!(of(&["a/b"], 1.0), ["a/b"]);
    }

    #[test]
    fn odd_checkpoints_are_drawn_or_refused() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let mut rows: Vec<CheckpointBar> = (0..30).map(|i| bar(&"long ".repeat(i), 0.9, 0.4, 0.0)).collect();
            rows[3].clean = wrong;
            rows[4].worst_interval = [wrong; 2];
            rows[5] = bar("nothing", wrong, wrong, wrong);
            rows[6].worst_class = "<b>long</b>".repeat(20);
            let figure = checkpoint_bars(&rows, &context(100)).unwrap();
            check(&figure);
            assert!(says(&figure, "checkpoint 1") && texts(&figure).contains(&"–".to_owned()));
            assert!(matches!(checkpoint_bars(&rows[5..6], &context(10)), Err(FigureError::Empty { .. })));
            check(&checkpoint_bars(&rows[..1], &context(1)).unwrap());
        }
        assert!(matches!(checkpoint_bars(&[], &context(10)), Err(FigureError::Empty { .. })));
    }

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|index| format!("run {index}")).collect()
    }

    #[test]
    fn transfer_marks_the_white_box_and_what_is_stronger() {
        let values = vec![vec![Some(0.5), Some(0.625), None], vec![Some(0.25), Some(0.375), Some(0.75)], vec![None; 3]];
        let figure = transfer_matrix(&names(3), &values, &context(10)).unwrap();
        check(&figure);
        assert_eq!(count(&figure, "rect", Some("cell")), 9);
        // Only the images of run 1 are stronger against run 0 than its own: a dot and its halo.
        assert_eq!(count(&figure, "circle", None), 2);
        for text in ["50.0", "62.5", "25.0", "–", "Source", "Target", "run 2", "stronger than the white-box attack"] {
            assert!(says(&figure, text), "{text}");
        }
        assert!(says(&figure, &context(10).attack));
    }

    #[test]
    fn odd_transfers_are_drawn_or_refused() {
        for size in [1, 2, 9, 40, 100] {
            let values: Vec<Vec<Option<f64>>> = (0..size)
                .map(|row| (0..size).map(|column| Some(((row * 7 + column * 3) % 11) as f64 / 10.0)).collect())
                .collect();
            check(&transfer_matrix(&names(size), &values, &context(10)).unwrap());
            let long: Vec<String> = names(size).iter().map(|name| name.repeat(40)).collect();
            check(&transfer_matrix(&long, &values, &context(100)).unwrap());
            check(&transfer_matrix(&vec![" ".to_owned(); size], &values, &context(2)).unwrap());
        }
        let refused =
            |size, values: &[Vec<Option<f64>>]| transfer_matrix(&names(size), values, &context(10)).unwrap_err();
        assert!(matches!(refused(0, &[]), FigureError::Empty { figure: "transfer", .. }));
        assert!(matches!(refused(2, &[vec![None; 2], vec![Some(f64::NAN); 2]]), FigureError::Empty { .. }));
        assert!(matches!(refused(2, &[vec![None; 2]]), FigureError::Length { expected: 2, found: 1, .. }));
        let error = refused(2, &[vec![None; 2], vec![Some(0.5); 3]]).to_string();
        assert!(error.contains("run 1") && error.contains('3'), "{error}");
    }
}
