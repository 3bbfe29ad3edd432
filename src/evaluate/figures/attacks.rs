//! Accuracy under each attack of an evaluation, and under all of them together.

use super::axes::{BLUE, MARGIN, Plot, SMALL, VERMILLION, header, percent, some};
use super::bars::share_axis;
use super::classes::is_fraction;
use super::robustness_curves::is_interval;
use super::svg::{AXIS, Canvas, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};

/// What a bar shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BarKind {
    /// Images without an attack.
    Clean,
    /// An attack that counts for the robust accuracy.
    Attack,
    /// An attack that only checks the others.
    Control,
    /// The worst case over all attacks that count.
    Total,
}

/// A bar of [`attack_bars`].
#[derive(Debug, Clone, PartialEq)]
pub struct AttackBar {
    /// Title of the attack.
    pub name: String,
    /// The suite of the attack. Each attack of a suite runs on the images that withstood the previous ones.
    pub group: Option<String>,
    /// What the bar shows.
    pub kind: BarKind,
    /// Accuracy over all images.
    pub accuracy: f64,
    /// Its 95% confidence interval.
    pub interval: [f64; 2],
    /// Accuracy of the worst class.
    pub worst: f64,
    /// Name of the worst class.
    pub worst_class: String,
}

const CLEAN: &str = "#a9bfd3";
const CONTROL: &str = "#c4c4c4";
/// Images that an attack of a suite broke.
const BROKEN: &str = "#e3ecf3";
const PITCH: f64 = 23.0;
const HEADING: f64 = 22.0;
const INDENT: f64 = 12.0;
/// Space between clean images, attacks, controls and total.
const GAP: f64 = 7.0;
/// Widest name of an attack.
const NAMES: f64 = 240.0;
/// Widest name of a worst class.
const CLASSES: f64 = 96.0;

/// A line of the figure.
enum Line<'a> {
    Gap,
    /// A solid line before the total.
    Rule,
    Heading(&'a str),
    Bar {
        bar: &'a AttackBar,
        indent: f64,
        /// Accuracy before the attack, in a suite.
        before: Option<f64>,
    },
}

impl Line<'_> {
    const fn height(&self) -> f64 {
        match self {
            Self::Gap | Self::Rule => GAP,
            Self::Heading(_) => HEADING,
            Self::Bar { .. } => PITCH,
        }
    }
}

/// One bar for each attack with the interval of the mean and the worst class: clean images, attacks and suites in the
/// given order, controls, and last the worst case over all attacks.
///
/// `context.attack` is what the attacks have in common, such as `L∞, ε 8/255`.
///
/// # Errors
/// [`FigureError::Empty`] without a bar that has an accuracy.
pub fn attack_bars(rows: &[AttackBar], context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "attacks";
    some(NAME, rows, "no attacks")?;
    if !rows.iter().any(|bar| is_fraction(&bar.accuracy)) {
        return Err(FigureError::Empty { figure: NAME, missing: "no attack has an accuracy" });
    }
    let lines = lines(rows);
    let suites = lines.iter().any(|line| matches!(line, Line::Bar { before: Some(_), .. }));

    let mut canvas = Canvas::new(720.0);
    let mut notes = Vec::new();
    if !context.attack.trim().is_empty() {
        notes.push(format!("Attacks: {}", context.attack));
    }
    notes.push("Bar: mean accuracy with its 95% interval; dot: worst class".to_owned());
    if suites {
        notes.push(
            "Within a suite each attack runs on the images that withstood the previous ones; pale: what it broke"
                .to_owned(),
        );
    }
    let top = header(&mut canvas, "Accuracy under each attack", context, &notes) + 30.0;
    let needed = |line: &Line<'_>| match line {
        Line::Bar { bar, indent, .. } => indent + text::width(&bar.name, SMALL, weight(bar)),
        // A heading may extend over the plot.
        _ => 0.0,
    };
    let name_room = lines.iter().map(needed).fold(0.0, f64::max).min(NAMES).ceil();
    let left = MARGIN + name_room + 8.0;
    let class_width = |bar: &AttackBar| text::width(&bar.worst_class, SMALL, weight(bar));
    let class_room = rows.iter().map(class_width).fold(0.0, f64::max).min(CLASSES).ceil();
    let class_left = canvas.width() - MARGIN - class_room.max(30.0);
    let (mean_end, worst_end) = (class_left - 6.0 - 52.0, class_left - 6.0);
    let height = lines.iter().map(Line::height).sum();
    let width = mean_end - 50.0 - left;
    let plot = Plot { left, top, width, height, x: (0.0, 1.0), y: (0.0, 1.0) };
    share_axis(&mut canvas, &plot, &[0.0, 0.25, 0.5, 0.75, 1.0]);
    let head = Style::new(SMALL).bold();
    canvas.text(mean_end, top - 9.0, head.end().fill(BLUE), "mean");
    canvas.text(class_left + class_room.max(30.0), top - 9.0, head.end().fill(VERMILLION), "worst class");

    let mut y = top;
    for line in &lines {
        match line {
            Line::Gap => {}
            Line::Rule => {
                let y = y + GAP / 2.0;
                canvas.line((MARGIN, y), (canvas.width() - MARGIN, y), Stroke::new(AXIS, 1.0));
            }
            Line::Heading(title) => {
                let title = text::fit(title, SMALL, Weight::SemiBold, canvas.width() - 2.0 * MARGIN);
                let width = text::width(&title, SMALL, Weight::SemiBold);
                // Over the plot, the grid must not cross it.
                canvas.rect(MARGIN, y + 3.0, width + 4.0, HEADING - 6.0, "#ffffff");
                canvas.centered_text(MARGIN, y + HEADING / 2.0, Style::new(SMALL).bold(), &title);
            }
            Line::Bar { bar, indent, before } => {
                draw_bar(&mut canvas, &plot, y, bar, *before);
                let middle = y + PITCH / 2.0;
                let style = style(bar);
                let name = text::fit(&bar.name, SMALL, style.weight, name_room - indent);
                canvas.centered_text(MARGIN + indent, middle, style, &name);
                let number = |value: f64| if is_fraction(&value) { percent(value) } else { "–".to_owned() };
                canvas.centered_text(mean_end, middle, style.end(), &number(bar.accuracy));
                canvas.centered_text(worst_end, middle, style.end(), &number(bar.worst));
                let class = text::fit(&bar.worst_class, SMALL, style.weight, class_room);
                canvas.centered_text(class_left, middle, style, &class);
            }
        }
        y += line.height();
    }
    canvas.line((plot.left, top), (plot.left, plot.bottom()), Stroke::new(AXIS, 1.0));
    let chance = 1.0 / context.class_names.len().max(1) as f64;
    if chance < 1.0 {
        let x = plot.px(chance);
        canvas.line((x, top - 4.0), (x, plot.bottom()), Stroke::new(MUTED, 0.8).dashed("2 3"));
        let label = format!("chance {}", percent(chance));
        let half = text::width(&label, SMALL, Weight::Regular) / 2.0;
        canvas.text(x.max(plot.left + half), top - 9.0, Style::new(SMALL).fill(MUTED).middle(), &label);
    }
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + 24.0 + MARGIN - 6.0, "Accuracy under each attack") })
}

/// The lines from top to bottom. The attacks of a suite are together, where the first of them is.
fn lines(rows: &[AttackBar]) -> Vec<Line<'_>> {
    let mut order: Vec<&AttackBar> = rows.iter().collect();
    order.sort_by_key(|bar| bar.kind);
    let clean = order.iter().find(|bar| bar.kind == BarKind::Clean).map(|bar| bar.accuracy).filter(is_fraction);
    let mut lines = Vec::new();
    let mut kind = None;
    let mut drawn: Vec<&str> = Vec::new();
    for (place, &bar) in order.iter().enumerate() {
        if kind.is_some_and(|kind| kind != bar.kind) {
            lines.push(if bar.kind == BarKind::Total { Line::Rule } else { Line::Gap });
        }
        if kind != Some(bar.kind) && bar.kind == BarKind::Control {
            lines.push(Line::Heading("Controls"));
        }
        kind = Some(bar.kind);
        let Some(group) = bar.group.as_deref().filter(|_| bar.kind == BarKind::Attack) else {
            let indent = if bar.kind == BarKind::Control { INDENT } else { 0.0 };
            lines.push(Line::Bar { bar, indent, before: None });
            continue;
        };
        if drawn.contains(&group) {
            continue;
        }
        drawn.push(group);
        lines.push(Line::Heading(group));
        let mut before = clean;
        for member in &order[place..] {
            if member.kind == bar.kind && member.group.as_deref() == Some(group) {
                lines.push(Line::Bar { bar: member, indent: INDENT, before });
                before = Some(member.accuracy).filter(is_fraction).or(before);
            }
        }
    }
    lines
}

fn weight(bar: &AttackBar) -> Weight {
    if bar.kind == BarKind::Total { Weight::SemiBold } else { Weight::Regular }
}

fn style(bar: &AttackBar) -> Style<'static> {
    let style = Style::new(SMALL).fill(if bar.kind == BarKind::Control { MUTED } else { INK });
    Style { weight: weight(bar), ..style }
}

fn draw_bar(canvas: &mut Canvas, plot: &Plot, y: f64, bar: &AttackBar, before: Option<f64>) {
    let (from, thickness) = (y + 0.2 * PITCH, 0.6 * PITCH);
    let middle = y + PITCH / 2.0;
    if is_fraction(&bar.accuracy) {
        let end = plot.px(bar.accuracy);
        if let Some(before) = before.filter(|before| *before > bar.accuracy) {
            canvas.rect(end, from, plot.px(before) - end, thickness, BROKEN);
        }
        let color = match bar.kind {
            BarKind::Clean => CLEAN,
            BarKind::Attack | BarKind::Total => BLUE,
            BarKind::Control => CONTROL,
        };
        canvas.rect(plot.left, from, end - plot.left, thickness, color);
        whisker(canvas, plot, middle, bar.interval, INK);
    }
    if is_fraction(&bar.worst) {
        let place = (plot.px(bar.worst), middle);
        canvas.dot(place, 5.2, "#ffffff");
        canvas.dot(place, 3.8, VERMILLION);
    }
}

/// A horizontal interval with short ends; nothing if it was not measured.
pub(super) fn whisker(canvas: &mut Canvas, plot: &Plot, y: f64, interval: [f64; 2], color: &str) {
    if !is_interval(interval) {
        return;
    }
    let stroke = Stroke::new(color, 1.1);
    let [low, high] = interval.map(|value| plot.px(value));
    canvas.line((low, y), (high, y), stroke);
    for x in [low, high] {
        canvas.line((x, y - 3.5), (x, y + 3.5), stroke);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, context, count, says, texts};
    use super::*;

    fn bar(name: &str, group: Option<&str>, kind: BarKind, accuracy: f64) -> AttackBar {
        let interval = [(accuracy - 0.02).max(0.0), (accuracy + 0.02).min(1.0)];
        let group = group.map(str::to_owned);
        let worst_class = "cat".to_owned();
        AttackBar { name: name.to_owned(), group, kind, accuracy, interval, worst: 0.5 * accuracy, worst_class }
    }

    fn evaluation() -> Vec<AttackBar> {
        let suite = Some("AutoAttack, standard");
        vec![
            bar("Worst case over all attacks", None, BarKind::Total, 0.36),
            bar("Noise", None, BarKind::Control, 0.79),
            bar("Clean", None, BarKind::Clean, 0.8),
            bar("APGD-CE", suite, BarKind::Attack, 0.45),
            bar("PGD-20", None, BarKind::Attack, 0.46),
            bar("APGD-T", suite, BarKind::Attack, 0.38),
            bar("FAB-T", suite, BarKind::Attack, 0.38),
        ]
    }

    #[test]
    fn suites_are_together_and_the_worst_case_is_last() {
        let figure = attack_bars(&evaluation(), &context(10)).unwrap();
        check(&figure);
        let texts = texts(&figure);
        let order = [
            "Clean",
            "AutoAttack, standard",
            "APGD-CE",
            "APGD-T",
            "FAB-T",
            "PGD-20",
            "Controls",
            "Noise",
            "Worst case over all attacks",
        ];
        let places: Vec<usize> = order.iter().map(|name| texts.iter().position(|text| text == name).unwrap()).collect();
        assert!(places.is_sorted(), "{texts:?}");
        assert!(says(&figure, "45.0% 22.5% cat") && says(&figure, "chance 10.0%"));
        // A worst class and its halo for each bar.
        assert_eq!(count(&figure, "circle", None), 14);
        // What APGD-CE and APGD-T broke; FAB-T broke nothing.
        assert_eq!(figure.svg.matches(BROKEN).count(), 2);
    }

    #[test]
    fn bars_are_in_proportion() {
        let rows = [bar("a", None, BarKind::Attack, 0.8), bar("b", None, BarKind::Attack, 0.2)];
        let figure = attack_bars(&rows, &context(2)).unwrap();
        let width = |part: &str| {
            let tail = part.split("width=\"").nth(1).unwrap();
            tail.split('"').next().unwrap().parse::<f64>().unwrap()
        };
        let widths: Vec<f64> = figure
            .svg
            .lines()
            .filter(|line| line.starts_with("<rect") && line.contains(&format!("fill=\"{BLUE}\"")))
            .map(width)
            .collect();
        assert!((widths[0] / widths[1] - 4.0).abs() < 0.01, "{widths:?}");
        assert!(says(&figure, "chance 50.0%") && !says(&figure, "Controls") && !says(&figure, "suite"));
    }

    #[test]
    fn odd_rows_are_drawn_or_refused() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let mut rows = evaluation();
            rows[2].accuracy = wrong;
            rows[3].interval = [wrong; 2];
            rows[4].worst = wrong;
            rows[5].accuracy = wrong;
            rows[6].name = "<b>very long</b> ".repeat(40);
            rows[6].group = Some("long suite ".repeat(40));
            rows[6].worst_class = "class with a name ".repeat(20);
            rows[1].name = String::new();
            let figure = attack_bars(&rows, &context(100)).unwrap();
            check(&figure);
            assert!(texts(&figure).contains(&"–".to_owned()));
            rows.iter_mut().for_each(|row| row.accuracy = wrong);
            assert!(matches!(attack_bars(&rows, &context(10)), Err(FigureError::Empty { .. })));
        }
        let bounds = [bar("0", None, BarKind::Attack, 0.0), bar("1", None, BarKind::Clean, 1.0)];
        check(&attack_bars(&bounds, &context(1)).unwrap());
        assert!(matches!(attack_bars(&[], &context(10)), Err(FigureError::Empty { figure: "attacks", .. })));
    }
}
