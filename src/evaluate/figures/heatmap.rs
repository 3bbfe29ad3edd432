//! Matrices as colour: CFPS over epochs, confusion.

use colorous::Color;

use super::axes::{LABEL, MARGIN, SMALL, gutter, header, named, nice_above, percent, row_labels, thinning, trimmed};
use super::classes::ClassTable;
use super::shown::{NAMED_PITCH, Shown};
use super::svg::{AXIS, Canvas, INK, MISSING, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError, RenderError, raster};
use crate::train::ClassRow;

/// A matrix with more cells than this is one image in the SVG instead of one rectangle per cell.
const MOST_RECTANGLES: usize = 5000;

/// Space to the right of a matrix.
pub(super) const ASIDE: f64 = 26.0;
/// Width of a colour bar with its labels.
pub(super) const BAR_ROOM: f64 = 112.0;

/// Where the parts of a heatmap of classes by epochs are.
pub(super) struct EpochGrid {
    name_room: f64,
    left: f64,
    /// Width and height of a cell.
    pub(super) cell: (f64, f64),
    epochs: usize,
    classes: usize,
}

impl EpochGrid {
    pub(super) fn new(epochs: usize, classes: usize, names: &[String]) -> Self {
        let name_room = gutter(names, SMALL, 160.0);
        let left = MARGIN + name_room + 8.0;
        let width = ((760.0 - left - ASIDE - BAR_ROOM - MARGIN) / epochs as f64).min(44.0);
        Self { name_room, left, cell: (width, (440.0 / classes as f64).clamp(NAMED_PITCH, 24.0)), epochs, classes }
    }

    /// The right end of the cells.
    pub(super) fn right(&self) -> f64 {
        self.left + self.cell.0 * self.epochs as f64
    }

    /// A canvas for cells and colour bar.
    pub(super) fn canvas(&self) -> Canvas {
        Canvas::new((self.right() + ASIDE + BAR_ROOM + MARGIN).max(440.0))
    }

    pub(super) const fn matrix(&self, top: f64) -> Matrix {
        Matrix { left: self.left, top, cell: self.cell, rows: self.classes, columns: self.epochs }
    }

    /// Draws the names of classes and the numbers of epochs. Returns the lower end of the cells.
    pub(super) fn labels(&self, canvas: &mut Canvas, names: &[String], epochs: &[u32], top: f64) -> f64 {
        let (width, height) = self.cell;
        row_labels(canvas, names, self.left - 8.0, top, height, self.name_room);
        let bottom = top + height * self.classes as f64;
        for (index, epoch) in epochs.iter().enumerate().step_by(thinning(width, 26.0)) {
            let x = self.left + (index as f64 + 0.5) * width;
            canvas.line((x, bottom), (x, bottom + 4.0), Stroke::new(AXIS, 1.0));
            canvas.text(x, bottom + 16.0, Style::new(SMALL).fill(MUTED).middle(), &(epoch + 1).to_string());
        }
        let middle = self.left + (self.right() - self.left) / 2.0;
        canvas.text(middle, bottom + 33.0, Style::new(LABEL).middle(), "Epoch");
        bottom
    }
}

/// CFPS of each class in each epoch: the share of all mistakes that landed on the class.
///
/// The colour scale always goes from 0 to three times chance (1/K), so that runs are comparable.
///
/// # Errors
/// [`FigureError::Empty`] without rows or class names, [`FigureError::Class`] for a class without a name.
pub fn cfps_heatmap(rows: &[ClassRow], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "cfps";
    let table = ClassTable::new(NAME, rows, context)?;
    let (epochs, classes) = (table.epochs.len(), table.classes);
    let shown = Shown::highest(classes, |class| table.value(epochs - 1, class, |row| row.cfps).unwrap_or(f64::NAN));
    let names = &shown.names(context);
    let chance = 1.0 / classes as f64;
    let top_of_scale = (3.0 * chance).min(1.0);

    let grid = EpochGrid::new(epochs, shown.len(), names);
    let mut canvas = grid.canvas();
    let mut notes = vec![format!(
        "Share of all mistakes that landed on the class; {}",
        named(&context.statistics, "training images")
    )];
    notes.extend(shown.note("with the highest CFPS in the last epoch, highest first"));
    let top = header(&mut canvas, "CFPS: which classes attract the mistakes", context, &notes) + 12.0;

    let decimals = usize::from(grid.cell.0 >= 33.0);
    let matrix = grid.matrix(top);
    let value = |row: usize, epoch| table.value(epoch, shown.classes[row], |row| row.cfps);
    matrix.draw(&mut canvas, NAME, |row, epoch| match value(row, epoch) {
        Some(value) => Cell {
            color: Some(colorous::VIRIDIS.eval_continuous((value / top_of_scale).clamp(0.0, 1.0))),
            text: format!("{:.decimals$}", 100.0 * value),
            quiet: false,
        },
        None => Cell { color: None, text: "–".to_owned(), quiet: true },
    })?;
    let bottom = grid.labels(&mut canvas, names, &table.epochs, top);

    let bar = ColorBar {
        id: "cfps-scale",
        x: grid.right() + ASIDE,
        top: top + 22.0,
        height: (bottom - top - 22.0).clamp(60.0, 170.0),
        maximum: top_of_scale,
        title: if matrix.has_text() { "CFPS (%)" } else { "CFPS" },
    };
    let colors = (0..=16).map(|i| hex(colorous::VIRIDIS.eval_continuous(f64::from(i) / 16.0))).collect::<Vec<_>>();
    let mut marks = vec![(0.0, "0%".to_owned()), (chance, format!("{} chance", share(chance)))];
    for multiple in [2.0, 3.0] {
        let value = multiple * chance;
        if value < 1.0 {
            let text = if multiple == 3.0 { format!("≥ {}", share(value)) } else { share(value) };
            marks.push((value, text));
        }
    }
    if 3.0 * chance >= 1.0 && classes > 1 {
        marks.push((1.0, "100%".to_owned()));
    }
    bar.draw(&mut canvas, &colors, &marks, Some(chance));
    let height = (bottom + 40.0).max(bar.top + bar.height + 8.0) + MARGIN - 6.0;
    Ok(Figure { name: NAME, svg: canvas.finish(height, "CFPS by class and epoch") })
}

/// The values in the cells of a confusion matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellUnit {
    /// Share of the true class's images.
    Percent,
    /// Share of all predictions of the class.
    ColumnPercent,
    /// Number of images.
    Count,
}

impl CellUnit {
    /// The denominators of the shares: the number of images of each row or column.
    fn wholes(self, counts: &[u64], classes: usize) -> Vec<f64> {
        let sum = |k: usize| match self {
            Self::ColumnPercent => counts.iter().skip(k).step_by(classes).map(|&c| c as f64).sum(),
            Self::Percent | Self::Count => counts[k * classes..][..classes].iter().map(|&c| c as f64).sum(),
        };
        (0..classes).map(sum).collect()
    }

    /// The share of a cell. `None` in an empty row or column.
    fn share(self, counts: &[u64], wholes: &[f64], row: usize, column: usize) -> Option<f64> {
        let whole = wholes[if self == Self::ColumnPercent { column } else { row }];
        (whole > 0.0).then(|| counts[row * wholes.len() + column] as f64 / whole)
    }
}

/// Confusion under the evaluation attack: rows are true classes, columns predictions, colour the share of the row.
///
/// `counts` is K × K, row by row. The diagonal is grey, so that the colours show errors only. The most frequent errors
/// are also listed. Of many classes only those in these errors are shown.
///
/// # Errors
/// [`FigureError::Empty`] without counts or class names, [`FigureError::Length`] if there are not K × K counts.
pub fn confusion_matrix(counts: &[u64], unit: CellUnit, context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "confusion";
    let all_names = &context.labels();
    let classes = all_names.len();
    if counts.is_empty() || classes == 0 || counts.iter().all(|&count| count == 0) {
        return Err(FigureError::Empty { figure: NAME, missing: "no predictions were counted" });
    }
    if counts.len() != classes * classes {
        let what = format!("the confusion of {classes} classes");
        return Err(FigureError::Length { figure: NAME, what, expected: classes * classes, found: counts.len() });
    }
    let wholes = unit.wholes(counts, classes);
    let share_of = |row: usize, column: usize| unit.share(counts, &wholes, row, column);
    let mut errors: Vec<(usize, usize, f64)> = (0..classes)
        .flat_map(|row| (0..classes).map(move |column| (row, column)))
        .filter(|(row, column)| row != column)
        .filter_map(|(row, column)| Some((row, column, share_of(row, column).filter(|share| *share > 0.0)?)))
        .collect();
    errors.sort_by(|a, b| b.2.total_cmp(&a.2));
    let maximum = nice_above(errors.first().map_or(0.1, |error| error.2)).min(1.0);
    if unit == CellUnit::Count {
        errors.sort_by_key(|&(row, column, _)| std::cmp::Reverse(counts[row * classes + column]));
    }
    let chosen = Shown::in_pairs(classes, errors.iter().map(|&(row, column, _)| (row, column)));
    let names = &chosen.names(context);

    let limit = 130.0;
    let name_room = gutter(names, SMALL, limit);
    let left = MARGIN + 20.0 + name_room + 8.0;
    let pitch = (400.0 / chosen.len() as f64).clamp(NAMED_PITCH, 44.0);
    let size = pitch * chosen.len() as f64;
    let panel = 210.0;
    let mut canvas = Canvas::new((left + size + ASIDE + panel + MARGIN).max(440.0));
    let shown = match unit {
        CellUnit::Percent => "Numbers: % of the true class's images",
        CellUnit::ColumnPercent => "Numbers: % of all predictions of the class",
        CellUnit::Count => "Numbers: images; colour: % of the true class",
    };
    let mut notes = vec![format!("Predictions under {}", named(&context.attack, "the evaluation attack"))];
    if pitch >= MINIMUM_TEXT.0 {
        notes.push(format!("{shown}; correct predictions in grey"));
    }
    notes.extend(chosen.note("with the most frequent errors; other predictions are not shown"));
    let top = header(&mut canvas, "Which class is mistaken for which", context, &notes) + 12.0;
    let matrix = Matrix { left, top, cell: (pitch, pitch), rows: chosen.len(), columns: chosen.len() };
    matrix.draw(&mut canvas, NAME, |row, column| {
        let (row, column) = (chosen.classes[row], chosen.classes[column]);
        let Some(share) = share_of(row, column) else {
            return Cell { color: None, text: "–".to_owned(), quiet: true };
        };
        let text = match unit {
            CellUnit::Percent | CellUnit::ColumnPercent if share > 0.0 && share < 0.005 => "<1".to_owned(),
            CellUnit::Percent | CellUnit::ColumnPercent => format!("{:.0}", 100.0 * share),
            CellUnit::Count => counts[row * classes + column].to_string(),
        };
        if row == column {
            return Cell { color: Some(Color { r: 226, g: 226, b: 226 }), text, quiet: true };
        }
        Cell { color: Some(error_color(share / maximum)), text, quiet: share == 0.0 }
    })?;
    canvas.frame(left, top, size, size, Stroke::new(AXIS, 0.8));
    row_labels(&mut canvas, names, left - 8.0, top, pitch, name_room);
    let bottom = column_labels(&mut canvas, names, &matrix, limit);
    canvas.rotated_text(MARGIN + 9.0, top + size / 2.0, -90.0, Style::new(LABEL).middle(), "True class");
    canvas.text(left + size / 2.0, bottom + 18.0, Style::new(LABEL).middle(), "Predicted class");

    let x = left + size + ASIDE;
    let bar = ColorBar {
        id: "confusion-scale",
        x,
        top: top + 22.0,
        height: 110.0,
        maximum,
        title: if unit == CellUnit::ColumnPercent {
            "Errors, % of the prediction"
        } else {
            "Errors, % of the true class"
        },
    };
    let colors = (0..=16).map(|i| hex(error_color(f64::from(i) / 16.0))).collect::<Vec<_>>();
    let marks = [0.0, 0.5, 1.0].map(|part| (part * maximum, share(part * maximum)));
    bar.draw(&mut canvas, &colors, &marks, None);
    let list_top = bar.top + bar.height + 34.0;
    let fitting = ((top + size - list_top) / 18.0).clamp(FREQUENT.0, FREQUENT.1) as usize;
    errors.truncate(fitting);
    let panel_end = frequent_errors(&mut canvas, (x, list_top), panel, &errors, all_names, |row, column| match unit {
        CellUnit::Percent | CellUnit::ColumnPercent => share_of(row, column).map_or(String::new(), percent),
        CellUnit::Count => counts[row * classes + column].to_string(),
    });
    let height = (bottom + 26.0).max(panel_end) + MARGIN - 6.0;
    Ok(Figure { name: NAME, svg: canvas.finish(height, "Confusion matrix under attack") })
}

/// The change of confusion: counts now minus counts before, red for increases, blue for decreases.
///
/// # Errors
/// As [`confusion_matrix`], for either matrix.
pub fn confusion_difference(
    now: &[u64],
    before: &[u64],
    unit: CellUnit,
    than: &str,
    context: &Context,
) -> Result<Figure, FigureError> {
    const NAME: &str = "confusion-difference";
    let classes = context.class_names.len();
    for counts in [now, before] {
        if counts.is_empty() || classes == 0 {
            return Err(FigureError::Empty { figure: NAME, missing: "no predictions were counted" });
        }
        if counts.len() != classes * classes {
            let what = format!("the confusion of {classes} classes");
            return Err(FigureError::Length { figure: NAME, what, expected: classes * classes, found: counts.len() });
        }
    }
    let wholes = [unit.wholes(now, classes), unit.wholes(before, classes)];
    let difference = |row: usize, column: usize| match unit {
        CellUnit::Count => Some(now[row * classes + column] as f64 - before[row * classes + column] as f64),
        CellUnit::Percent | CellUnit::ColumnPercent => {
            Some(unit.share(now, &wholes[0], row, column)? - unit.share(before, &wholes[1], row, column)?)
        }
    };
    let cells = (0..classes).flat_map(|row| (0..classes).map(move |column| (row, column)));
    let size_of = |(row, column)| Some((row, column, difference(row, column)?.abs()));
    let mut changes: Vec<(usize, usize, f64)> = cells.filter_map(size_of).filter(|change| change.2 > 0.0).collect();
    changes.sort_by(|a, b| b.2.total_cmp(&a.2));
    let maximum = nice_above(changes.first().map_or(0.0, |change| change.2));
    let chosen = Shown::in_pairs(classes, changes.iter().map(|&(row, column, _)| (row, column)));
    let names = &chosen.names(context);
    let (scale, what) = match unit {
        CellUnit::Count => (1.0, "images"),
        CellUnit::Percent => (100.0, "percentage points of the true class"),
        CellUnit::ColumnPercent => (100.0, "percentage points of the prediction"),
    };

    let limit = 130.0;
    let name_room = gutter(names, SMALL, limit);
    let left = MARGIN + 20.0 + name_room + 8.0;
    let pitch = (400.0 / chosen.len() as f64).clamp(NAMED_PITCH, 44.0);
    let size = pitch * chosen.len() as f64;
    let mut canvas = Canvas::new((left + size + ASIDE + BAR_ROOM + MARGIN).max(440.0));
    let mut notes = vec![
        format!("Predictions under {}", named(&context.attack, "the evaluation attack")),
        format!("Difference from {than}, in {what}"),
    ];
    notes.extend(chosen.note("that changed most; other predictions are not shown"));
    let top = header(&mut canvas, "How confusion changed", context, &notes) + 12.0;
    let matrix = Matrix { left, top, cell: (pitch, pitch), rows: chosen.len(), columns: chosen.len() };
    let color_of = |value: f64| colorous::RED_BLUE.eval_continuous(0.5 - (value / maximum).clamp(-1.0, 1.0) / 2.0);
    let difference = |row: usize, column: usize| difference(chosen.classes[row], chosen.classes[column]);
    matrix.draw(&mut canvas, NAME, |row, column| match difference(row, column) {
        Some(value) => {
            let text = trimmed(scale * value, 0).replace('-', "−");
            let sign = if value > 0.0 && text != "0" { "+" } else { "" };
            Cell { color: Some(color_of(value)), quiet: text == "0", text: format!("{sign}{text}") }
        }
        None => Cell { color: None, text: "–".to_owned(), quiet: true },
    })?;
    canvas.frame(left, top, size, size, Stroke::new(AXIS, 0.8));
    row_labels(&mut canvas, names, left - 8.0, top, pitch, name_room);
    let bottom = column_labels(&mut canvas, names, &matrix, limit);
    canvas.rotated_text(MARGIN + 9.0, top + size / 2.0, -90.0, Style::new(LABEL).middle(), "True class");
    canvas.text(left + size / 2.0, bottom + 18.0, Style::new(LABEL).middle(), "Predicted class");
    // The scale of the bar begins at 0, so the values are shifted by half of its range.
    let bar = ColorBar {
        id: "difference-scale",
        x: left + size + ASIDE,
        top: top + 22.0,
        height: 150.0,
        maximum: 2.0 * maximum,
        title: "Difference",
    };
    let colors = (0..=16).map(|i| hex(color_of(maximum * (f64::from(i) / 8.0 - 1.0)))).collect::<Vec<_>>();
    let marks = [-1.0, 0.0, 1.0].map(|part| {
        let text = trimmed(scale * maximum * part, 1).replace('-', "−");
        (maximum * (part + 1.0), if part > 0.0 { format!("+{text}") } else { text })
    });
    bar.draw(&mut canvas, &colors, &marks, None);
    let height = (bottom + 26.0).max(bar.top + bar.height + 8.0) + MARGIN - 6.0;
    Ok(Figure { name: NAME, svg: canvas.finish(height, "Difference of two confusion matrices") })
}

/// Number of errors listed beside the matrix: minimum, and maximum if the matrix is high enough.
const FREQUENT: (f64, f64) = (8.0, 14.0);

fn frequent_errors(
    canvas: &mut Canvas,
    (x, mut y): (f64, f64),
    width: f64,
    errors: &[(usize, usize, f64)],
    names: &[String],
    value: impl Fn(usize, usize) -> String,
) -> f64 {
    canvas.text(x, y, Style::new(LABEL).bold(), "Most frequent errors");
    if errors.is_empty() {
        canvas.text(x, y + 18.0, Style::new(LABEL).fill(MUTED), "none");
        return y + 24.0;
    }
    for &(row, column, _) in errors {
        y += 18.0;
        let style = Style::new(LABEL);
        canvas.text(x + width, y, style.end(), &value(row, column));
        let arrow = " → ";
        let room = width - 52.0 - text::width(arrow, LABEL, Weight::Regular);
        let (from, to) = (&names[row], &names[column]);
        let (from_width, to_width) =
            (text::width(from, LABEL, Weight::Regular), text::width(to, LABEL, Weight::Regular));
        // If one name is shorter than half of the room, the other may use the rest.
        let half = room / 2.0;
        let from_room = if from_width + to_width <= room { room } else { half.max(room - to_width) };
        let from = text::fit(from, LABEL, Weight::Regular, from_room);
        let to = text::fit(to, LABEL, Weight::Regular, room - text::width(&from, LABEL, Weight::Regular));
        canvas.text(x, y, style, &format!("{from}{arrow}{to}"));
    }
    y + 6.0
}

/// Names below the columns, horizontal if they fit, slanted if all of them fit then, and upright otherwise; returns the y
/// coordinate of their end.
pub(super) fn column_labels(canvas: &mut Canvas, names: &[String], matrix: &Matrix, limit: f64) -> f64 {
    let bottom = matrix.top + matrix.cell.1 * matrix.rows as f64;
    let pitch = matrix.cell.0;
    let widest = gutter(names, SMALL, limit);
    let center = |column: usize| matrix.left + (column as f64 + 0.5) * pitch;
    if widest + 6.0 <= pitch {
        for (column, name) in names.iter().enumerate() {
            canvas.text(center(column), bottom + 16.0, Style::new(SMALL).middle(), name);
        }
        return bottom + 20.0;
    }
    let size = if pitch < 13.0 { 9.5 } else { SMALL };
    // Lines of text at 45° are closer together than their columns.
    let step = thinning(pitch * std::f64::consts::FRAC_1_SQRT_2, size + 0.5);
    if step > 1 && pitch >= NAMED_PITCH {
        for (column, name) in names.iter().enumerate() {
            let name = text::fit(name, size, Weight::Regular, limit);
            canvas.rotated_text(center(column) + 0.35 * size, bottom + 6.0, -90.0, Style::new(size).end(), &name);
        }
        return bottom + 10.0 + widest;
    }
    for (column, name) in names.iter().enumerate().step_by(step) {
        let name = text::fit(name, size, Weight::Regular, limit);
        canvas.rotated_text(center(column) + 3.0, bottom + 11.0, -45.0, Style::new(size).end(), &name);
    }
    bottom + 14.0 + widest * std::f64::consts::FRAC_1_SQRT_2
}

/// From white through orange to dark brown.
fn error_color(part: f64) -> Color {
    let part = part.clamp(0.0, 1.0);
    if part <= 0.0 { Color { r: 255, g: 255, b: 255 } } else { colorous::ORANGES.eval_continuous(0.06 + 0.84 * part) }
}

pub(super) fn hex(color: Color) -> String {
    format!("#{color:x}")
}

fn share(fraction: f64) -> String {
    format!("{}%", trimmed(100.0 * fraction, 1))
}

pub(super) struct Cell {
    /// `None` for a missing value.
    pub(super) color: Option<Color>,
    pub(super) text: String,
    pub(super) quiet: bool,
}

/// Minimum width and height of a cell with a number.
const MINIMUM_TEXT: (f64, f64) = (19.0, 13.0);

pub(super) struct Matrix {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) cell: (f64, f64),
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Matrix {
    pub(super) fn has_text(&self) -> bool {
        self.cell.0 >= MINIMUM_TEXT.0 && self.cell.1 >= MINIMUM_TEXT.1
    }

    pub(super) fn draw(
        &self,
        canvas: &mut Canvas,
        figure: &'static str,
        cell: impl Fn(usize, usize) -> Cell,
    ) -> Result<(), FigureError> {
        if self.rows * self.columns > MOST_RECTANGLES {
            return self.draw_image(canvas, figure, cell);
        }
        let (width, height) = self.cell;
        for row in 0..self.rows {
            for column in 0..self.columns {
                let Cell { color, text, quiet } = cell(row, column);
                let (x, y) = (self.left + column as f64 * width, self.top + row as f64 * height);
                let fill = color.map_or_else(|| MISSING.to_owned(), hex);
                canvas.cell(x, y, width, height, &fill);
                if !self.has_text() {
                    continue;
                }
                let mut size = if width < 30.0 || height < 16.0 { 9.5 } else { 10.5 };
                let needed = text::width(&text, size, Weight::Regular);
                size *= ((width - 3.0) / needed).min(1.0);
                let style = Style::new(size).middle().fill(match color {
                    _ if quiet => "#8f8f8f",
                    Some(color) if is_dark(color) => "#ffffff",
                    _ => INK,
                });
                canvas.centered_text(x + width / 2.0, y + height / 2.0, style, &text);
            }
        }
        Ok(())
    }

    fn draw_image(
        &self,
        canvas: &mut Canvas,
        figure: &'static str,
        cell: impl Fn(usize, usize) -> Cell,
    ) -> Result<(), FigureError> {
        let mut pixels = Vec::with_capacity(self.rows * self.columns * 3);
        for row in 0..self.rows {
            for column in 0..self.columns {
                let Color { r, g, b } = cell(row, column).color.unwrap_or(Color { r: 236, g: 236, b: 236 });
                pixels.extend([r, g, b]);
            }
        }
        let png = raster::encode(&pixels, self.columns as u32, self.rows as u32, 3)
            .map_err(|source| FigureError::Render { figure, source: RenderError::Encode(source) })?;
        let (width, height) = (self.cell.0 * self.columns as f64, self.cell.1 * self.rows as f64);
        canvas.pixels(self.left, self.top, width, height, &png);
        Ok(())
    }
}

/// Whether white text is more legible than black on `color` (ITU-R BT.601 luma).
fn is_dark(color: Color) -> bool {
    0.299 * f64::from(color.r) + 0.587 * f64::from(color.g) + 0.114 * f64::from(color.b) < 110.0
}

pub(super) struct ColorBar<'a> {
    pub(super) id: &'a str,
    pub(super) x: f64,
    pub(super) top: f64,
    pub(super) height: f64,
    pub(super) maximum: f64,
    pub(super) title: &'a str,
}

impl ColorBar<'_> {
    pub(super) fn draw(&self, canvas: &mut Canvas, colors: &[String], marks: &[(f64, String)], chance: Option<f64>) {
        let width = 12.0;
        canvas.text(self.x, self.top - 13.0, Style::new(SMALL).fill(INK), self.title);
        canvas.gradient(self.id, self.x, self.top, width, self.height, colors);
        canvas.frame(self.x, self.top, width, self.height, Stroke::new(AXIS, 0.6));
        let y_of = |value: f64| self.top + self.height * (1.0 - (value / self.maximum).clamp(0.0, 1.0));
        for (value, label) in marks {
            let y = y_of(*value);
            canvas.line((self.x + width, y), (self.x + width + 4.0, y), Stroke::new(AXIS, 1.0));
            canvas.centered_text(self.x + width + 8.0, y, Style::new(SMALL).fill(MUTED), label);
        }
        if let Some(chance) = chance {
            let y = y_of(chance);
            canvas.line((self.x - 3.0, y), (self.x + width + 4.0, y), Stroke::new(INK, 1.4));
        }
    }
}
