//! Accuracy on corrupted images, by severity and by class.

use colorous::Color;

use super::axes::{LABEL, MARGIN, SMALL, gutter, header, percent, row_labels, some};
use super::classes::is_fraction;
use super::heatmap::{ASIDE, BAR_ROOM, Cell, ColorBar, Matrix, column_labels, hex};
use super::shown::{NAMED_PITCH, Shown};
use super::svg::{AXIS, Canvas, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};

/// The accuracies under one corruption.
#[derive(Debug, Clone, PartialEq)]
pub struct CorruptionRow {
    /// Name of the corruption.
    pub name: String,
    /// Accuracy at each severity, from 1.
    pub severities: Vec<f64>,
    /// Accuracy of each class, the mean over the severities.
    pub classes: Vec<f64>,
    /// Mean accuracy over the severities.
    pub mean: f64,
}

/// The means over all corruptions. They are not computed here, so that they are those of the tables beside the figure.
#[derive(Debug, Clone, PartialEq)]
pub struct CorruptionMeans {
    /// At each severity.
    pub severities: Vec<f64>,
    /// Of each class.
    pub classes: Vec<f64>,
    /// Over all severities.
    pub all: f64,
}

const PITCH: f64 = 22.0;
/// Title of the row and the column of means.
const MEAN: &str = "mean";
/// Width of the column of means.
const MEANS: f64 = 46.0;
/// Space before a row or a column of means.
const GAP: f64 = 5.0;
const SCALE_HEIGHT: f64 = 150.0;
/// Widest name of a corruption.
const NAMES: f64 = 170.0;

/// Accuracy under each corruption at each severity with the means of both, best corruption first.
///
/// The colour scale always goes from 0 to 100%, so that runs are comparable.
///
/// # Errors
/// [`FigureError::Empty`] without an accuracy, [`FigureError::Length`] if the corruptions differ in their number of
/// severities.
pub fn corruption_heatmap(
    rows: &[CorruptionRow],
    means: &CorruptionMeans,
    context: &Context,
) -> Result<Figure, FigureError> {
    const NAME: &str = "corruptions";
    let severities = some(NAME, rows, "no corruptions")?[0].severities.len();
    let table = Table::new(NAME, rows, severities, (&means.severities, means.all), |row| &row.severities)?;
    let notes = ["Accuracy on corrupted images, without an attack; best corruption first".to_owned()];
    let (canvas, bottom) = table.draw("Accuracy under corruptions", &notes, context, |canvas, area| {
        let bottom = area.top + area.cell.1;
        for column in 0..severities {
            let x = area.left + (column as f64 + 0.5) * area.cell.0;
            canvas.text(x, bottom + 16.0, Style::new(SMALL).fill(MUTED).middle(), &(column + 1).to_string());
        }
        let middle = area.left + area.cell.0 * severities as f64 / 2.0;
        canvas.text(middle, bottom + 33.0, Style::new(LABEL).middle(), "Severity");
        bottom + 38.0
    })?;
    Ok(Figure { name: NAME, svg: canvas.finish(bottom, "Accuracy by corruption and severity") })
}

/// Accuracy of each class under each corruption with the means of both, best corruption first.
///
/// The worst class of each corruption has a frame.
///
/// # Errors
/// [`FigureError::Empty`] without an accuracy or class names, [`FigureError::Length`] if a corruption has another
/// number of classes than there are names.
pub fn corruption_classes(
    rows: &[CorruptionRow],
    means: &CorruptionMeans,
    context: &Context,
) -> Result<Figure, FigureError> {
    const NAME: &str = "corruptions-classes";
    /// Widest name of a class.
    const LIMIT: f64 = 130.0;
    some(NAME, rows, "no corruptions")?;
    let classes = context.class_names.len();
    if classes == 0 {
        return Err(FigureError::Empty { figure: NAME, missing: "no class names" });
    }
    let mut table = Table::new(NAME, rows, classes, (&means.classes, means.all), |row| &row.classes)?;
    let by_class = &means.classes;
    let shown = Shown::highest(classes, |class| by_class.get(class).map_or(f64::NAN, |accuracy| -accuracy));
    table.keep(&shown.classes);
    let names = &shown.names(context);
    table.width = (560.0 / names.len() as f64).clamp(NAMED_PITCH, 46.0);
    table.with_worst = true;
    // Names below the columns may be slanted, to the left.
    let slanted = gutter(names, SMALL, LIMIT) * std::f64::consts::FRAC_1_SQRT_2 - table.width / 2.0;
    table.left = table.left.max(MARGIN + slanted);
    let frame = if table.framed() { "; frame: worst class of the corruption" } else { "" };
    let mut notes = vec![
        "Accuracy on corrupted images, mean over the severities, without an attack".to_owned(),
        format!("Best corruption first{frame}"),
    ];
    notes.extend(shown.note("with the lowest mean, lowest first; the means are those of all classes"));
    let heading = "Accuracy of each class under corruptions";
    let (canvas, bottom) =
        table.draw(heading, &notes, context, |canvas, area| column_labels(canvas, names, &area, LIMIT))?;
    Ok(Figure { name: NAME, svg: canvas.finish(bottom, heading) })
}

/// Accuracies of corruptions × columns, in the order of the figure.
struct Table {
    figure: &'static str,
    names: Vec<String>,
    values: Vec<Vec<Option<f64>>>,
    columns: usize,
    /// The mean of each row, of each column, and of all.
    means: (Vec<Option<f64>>, Vec<Option<f64>>, Option<f64>),
    /// Left end of the cells.
    left: f64,
    /// Width of a cell.
    width: f64,
    /// Whether the worst column of each row is framed, if cells are large enough.
    with_worst: bool,
}

impl Table {
    fn new(
        figure: &'static str,
        rows: &[CorruptionRow],
        columns: usize,
        (of_columns, of_all): (&[f64], f64),
        values: impl Fn(&CorruptionRow) -> &Vec<f64>,
    ) -> Result<Self, FigureError> {
        if rows.iter().all(|row| !values(row).iter().any(is_fraction)) {
            return Err(FigureError::Empty { figure, missing: "no corruption has an accuracy" });
        }
        if let Some(row) = rows.iter().find(|row| values(row).len() != columns) {
            let what = format!("corruption `{}`", row.name);
            return Err(FigureError::Length { figure, what, expected: columns, found: values(row).len() });
        }
        if of_columns.len() != columns {
            let (what, found) = ("the means".to_owned(), of_columns.len());
            return Err(FigureError::Length { figure, what, expected: columns, found });
        }
        let measured = |value: f64| Some(value).filter(is_fraction);
        let mut order: Vec<(&CorruptionRow, Vec<Option<f64>>)> =
            rows.iter().map(|row| (row, values(row).iter().map(|value| measured(*value)).collect())).collect();
        // Corruptions without an accuracy are last.
        let key = |row: &CorruptionRow| measured(row.mean).unwrap_or(-1.0);
        order.sort_by(|a, b| key(b.0).total_cmp(&key(a.0)));
        let of_rows = order.iter().map(|(row, _)| measured(row.mean)).collect();
        let means = (of_rows, of_columns.iter().map(|value| measured(*value)).collect(), measured(of_all));
        let names: Vec<String> = order.iter().map(|(row, _)| row.name.clone()).collect();
        let name_room = gutter(&names, SMALL, NAMES).max(text::width(MEAN, SMALL, Weight::SemiBold).ceil());
        let values: Vec<Vec<Option<f64>>> = order.into_iter().map(|row| row.1).collect();
        let left = MARGIN + name_room + 8.0;
        Ok(Self { figure, names, values, columns, means, left, width: 46.0, with_worst: false })
    }

    /// Shows these columns only. The means of rows stay those of all columns.
    fn keep(&mut self, columns: &[usize]) {
        let kept = |values: &[Option<f64>]| columns.iter().map(|column| values[*column]).collect::<Vec<_>>();
        for values in &mut self.values {
            *values = kept(values);
        }
        self.means.1 = kept(&self.means.1);
        self.columns = columns.len();
    }

    fn framed(&self) -> bool {
        self.with_worst && self.matrix(0.0).has_text() && self.columns > 1
    }

    const fn matrix(&self, top: f64) -> Matrix {
        Matrix { left: self.left, top, cell: (self.width, PITCH), rows: self.names.len(), columns: self.columns }
    }

    /// Draws the cells, the means and the scale; `labels` draws what is below the row of means, and returns its lower
    /// end. Returns the canvas and the height of the figure.
    fn draw(
        &self,
        heading: &str,
        notes: &[String],
        context: &Context,
        labels: impl FnOnce(&mut Canvas, Matrix) -> f64,
    ) -> Result<(Canvas, f64), FigureError> {
        let (left, width) = (self.left, self.width);
        let right = left + width * self.columns as f64;
        let means_left = right + GAP;
        let bar_left = means_left + MEANS + ASIDE;
        let mut canvas = Canvas::new((bar_left + BAR_ROOM + MARGIN).max(440.0));
        let top = header(&mut canvas, heading, context, notes) + 28.0;
        let matrix = self.matrix(top);
        let bottom = top + PITCH * self.names.len() as f64;
        row_labels(&mut canvas, &self.names, left - 8.0, top, PITCH, left - 8.0 - MARGIN);
        matrix.draw(&mut canvas, self.figure, |row, column| cell(self.values[row][column]))?;

        let (by_row, by_column, whole) = &self.means;
        let strip = |left, top, width, rows, columns| Matrix { left, top, cell: (width, PITCH), rows, columns };
        let below = bottom + GAP;
        strip(means_left, top, MEANS, by_row.len(), 1).draw(&mut canvas, self.figure, |row, _| cell(by_row[row]))?;
        let row = strip(left, below, width, 1, self.columns);
        row.draw(&mut canvas, self.figure, |_, column| cell(by_column[column]))?;
        strip(means_left, below, MEANS, 1, 1).draw(&mut canvas, self.figure, |_, _| cell(*whole))?;
        let style = Style::new(SMALL).bold();
        canvas.text(means_left + MEANS / 2.0, top - 8.0, style.middle(), MEAN);
        canvas.centered_text(left - 8.0, below + PITCH / 2.0, style.end(), MEAN);
        for (x, y, width, height) in [
            (left, top, right - left, bottom - top),
            (means_left, top, MEANS, bottom - top),
            (left, below, right - left, PITCH),
            (means_left, below, MEANS, PITCH),
        ] {
            canvas.frame(x, y, width, height, Stroke::new(AXIS, 0.8));
        }

        if self.framed() {
            for (row, values) in self.values.iter().enumerate() {
                let Some(worst) = worst(values) else { continue };
                let (x, y) = (left + worst as f64 * width, top + row as f64 * PITCH);
                canvas.frame(x + 1.0, y + 1.0, width - 2.0, PITCH - 2.0, Stroke::new("#ffffff", 1.0));
                canvas.frame(x, y, width, PITCH, Stroke::new(INK, 1.4));
            }
        }

        let bar =
            ColorBar { id: self.figure, x: bar_left, top, height: SCALE_HEIGHT, maximum: 1.0, title: "Accuracy (%)" };
        let colors = (0..=16).map(|i| hex(accuracy_color(f64::from(i) / 16.0))).collect::<Vec<_>>();
        bar.draw(&mut canvas, &colors, &scale_marks(context.class_names.len()), chance(context.class_names.len()));
        let end = labels(&mut canvas, row).max(below + PITCH).max(bar.top + bar.height + 8.0);
        Ok((canvas, end + MARGIN - 6.0))
    }
}

/// Colour of an accuracy, dark for 0.
pub(super) fn accuracy_color(accuracy: f64) -> Color {
    colorous::VIRIDIS.eval_continuous(accuracy.clamp(0.0, 1.0))
}

/// A cell with an accuracy in percent, or a dash.
pub(super) fn cell(value: Option<f64>) -> Cell {
    match value {
        Some(value) => Cell { color: Some(accuracy_color(value)), text: format!("{:.1}", 100.0 * value), quiet: false },
        None => Cell { color: None, text: "–".to_owned(), quiet: true },
    }
}

pub(super) fn chance(classes: usize) -> Option<f64> {
    (classes > 1).then(|| 1.0 / classes as f64)
}

/// Marks of a scale of accuracies: quarters, without those too close to chance.
pub(super) fn scale_marks(classes: usize) -> Vec<(f64, String)> {
    let chance = chance(classes);
    let clear = |value: &f64| chance.is_none_or(|chance| (chance - value).abs() > 0.09);
    let quarters = [0.0, 0.25, 0.5, 0.75, 1.0].into_iter().filter(clear);
    let mut marks: Vec<(f64, String)> = quarters.map(|value| (value, format!("{:.0}%", 100.0 * value))).collect();
    marks.extend(chance.map(|chance| (chance, format!("chance {}", percent(chance)))));
    marks
}

/// The column with the lowest value.
fn worst(values: &[Option<f64>]) -> Option<usize> {
    let known = values.iter().enumerate().filter_map(|(column, value)| Some((column, (*value)?)));
    known.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(column, _)| column)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, context, count, says, texts};
    use super::*;

    fn rows(count: usize, classes: usize) -> Vec<CorruptionRow> {
        let value = |seed: usize| (seed as f64 * 0.618_033_988_75).fract();
        let row = |row: usize| CorruptionRow {
            name: format!("corruption_{row}"),
            severities: (0..5).map(|severity| value(row * 7 + severity)).collect(),
            classes: (0..classes).map(|class| value(row * 31 + class)).collect(),
            mean: (0..5).map(|severity| value(row * 7 + severity)).sum::<f64>() / 5.0,
        };
        (0..count).map(row).collect()
    }

    fn heatmap(rows: &[CorruptionRow], context: &Context) -> Result<Figure, FigureError> {
        corruption_heatmap(rows, &means(rows), context)
    }

    fn by_class(rows: &[CorruptionRow], context: &Context) -> Result<Figure, FigureError> {
        corruption_classes(rows, &means(rows), context)
    }

    /// The means over the corruptions that have an accuracy.
    fn means(rows: &[CorruptionRow]) -> CorruptionMeans {
        let mean = |values: Vec<f64>| {
            let known: Vec<f64> = values.into_iter().filter(is_fraction).collect();
            known.iter().sum::<f64>() / known.len() as f64
        };
        let column = |of: fn(&CorruptionRow) -> &Vec<f64>| {
            let columns = rows.first().map_or(0, |row| of(row).len());
            (0..columns)
                .map(|k| mean(rows.iter().map(|row| of(row).get(k).copied().unwrap_or(f64::NAN)).collect()))
                .collect()
        };
        CorruptionMeans {
            severities: column(|row| &row.severities),
            classes: column(|row| &row.classes),
            all: mean(rows.iter().map(|row| row.mean).collect()),
        }
    }

    #[test]
    fn corruptions_are_sorted_and_have_means_by_hand() {
        let row = |name: &str, severities: [f64; 2]| CorruptionRow {
            name: name.to_owned(),
            severities: severities.to_vec(),
            classes: vec![severities[0], 0.0],
            mean: (severities[0] + severities[1]) / 2.0,
        };
        let rows = [row("fog", [0.5, 0.25]), row("blur", [0.75, 0.5]), row("snow", [f64::NAN; 2])];
        let figure = heatmap(&rows, &context(2)).unwrap();
        check(&figure);
        // 3 × 2 cells, 3 means of corruptions, 2 of severities, 1 of all.
        assert_eq!(count(&figure, "rect", Some("cell")), 12);
        let texts = texts(&figure);
        for text in ["62.5", "37.5", "50.0", "–", "mean", "Severity", "chance 50.0%"] {
            assert!(texts.contains(&text.to_owned()), "{text} is not in {texts:?}");
        }
        let place = |name: &str| texts.iter().position(|text| text == name).unwrap();
        assert!(place("blur") < place("fog") && place("fog") < place("snow"));
        let of_classes = by_class(&rows, &context(2)).unwrap();
        check(&of_classes);
        assert!(says(&of_classes, "frame: worst class"));
    }

    #[test]
    fn any_number_of_classes_stays_within_the_canvas() {
        for (corruptions, classes) in [(15, 10), (15, 100), (1, 2), (4, 1), (19, 43), (60, 100)] {
            let context = context(classes);
            let rows = rows(corruptions, classes);
            check(&heatmap(&rows, &context).unwrap());
            let figure = by_class(&rows, &context).unwrap();
            check(&figure);
            assert!(says(&figure, "airplane0"));
        }
        let mut long = context(10);
        long.class_names.iter_mut().for_each(|name| *name = name.repeat(20));
        let mut rows = rows(3, 10);
        rows[0].name = "<b>".repeat(50);
        rows[1].name = String::new();
        rows[2].name = "fog".to_owned();
        check(&heatmap(&rows, &long).unwrap());
        check(&by_class(&rows, &long).unwrap());
        check(&by_class(&rows[2..], &long).unwrap());
    }

    #[test]
    fn what_is_not_measured_is_left_out_or_refused() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let mut rows = rows(5, 10);
            rows[1].severities[2] = wrong;
            rows[2].classes[3] = wrong;
            check(&heatmap(&rows, &context(10)).unwrap());
            check(&by_class(&rows, &context(10)).unwrap());
            for row in &mut rows {
                row.severities.fill(wrong);
                row.classes.fill(wrong);
            }
            assert!(matches!(heatmap(&rows, &context(10)), Err(FigureError::Empty { .. })));
            assert!(matches!(by_class(&rows, &context(10)), Err(FigureError::Empty { .. })));
        }
        assert!(matches!(heatmap(&[], &context(10)), Err(FigureError::Empty { .. })));
        assert!(matches!(by_class(&[], &context(10)), Err(FigureError::Empty { .. })));
        let nameless = Context { class_names: Vec::new(), ..context(1) };
        assert!(heatmap(&rows(2, 3), &nameless).is_ok());
        assert!(matches!(by_class(&rows(2, 3), &nameless), Err(FigureError::Empty { .. })));
        let mut uneven = rows(2, 3);
        uneven[1].severities.pop();
        let error = heatmap(&uneven, &context(3)).unwrap_err().to_string();
        assert!(error.contains("corruption_1") && error.contains('4') && error.contains('5'), "{error}");
        let error = by_class(&uneven, &context(10)).unwrap_err();
        assert!(matches!(error, FigureError::Length { expected: 10, found: 3, .. }), "{error}");
    }
}
