//! Accuracy as one setting of an attack varies: its radius (the security curve) or its number of steps.

use super::axes::{
    CLASS_COLORS, EndLabel, LABEL, LEADER, MARGIN, Plot, SMALL, VERMILLION, end_labels, gutter, header, named, percent,
    some, ticks, trimmed,
};
use super::classes::is_fraction;
use super::shown::faint;
use super::svg::{AXIS, Canvas, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};
use crate::fairness::DENSE_CLASSES;

/// The setting that varies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurveAxis {
    /// Radius of the attack.
    Epsilon,
    /// Number of steps of the attack.
    Steps,
}

impl CurveAxis {
    /// Height of the lower axis: radii have two rows of numbers.
    const fn room(self) -> f64 {
        match self {
            Self::Epsilon => 54.0,
            Self::Steps => 40.0,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Epsilon => "security-curve",
            Self::Steps => "steps-curve",
        }
    }
}

/// The accuracy at one value of the setting.
#[derive(Debug, Clone, PartialEq)]
pub struct CurvePoint {
    /// Radius in `[0, 1]` pixel units, or number of steps.
    pub x: f64,
    /// Accuracy over all images.
    pub accuracy: f64,
    /// Its 95% confidence interval.
    pub interval: [f64; 2],
    /// Accuracy of the worst class.
    pub worst: f64,
    /// Accuracy of each class; empty if it was not measured.
    pub classes: Vec<f64>,
}

/// The content of a robustness curve.
#[derive(Debug, Clone, PartialEq)]
pub struct RobustnessCurve<'a> {
    /// The setting that varies.
    pub axis: CurveAxis,
    /// Description of the attack without that setting, such as `PGD-20, L∞, step ε/4, seed 0`.
    pub attack: &'a str,
    /// Points in any order; of points with the same `x` the last one counts.
    pub points: &'a [CurvePoint],
}

const BAND: &str = "#fbe6d9";
/// Line of a class that has no colour of its own.
const FAINT: &str = "#cfcfcf";
/// Number of highest and of lowest classes that get a colour and a label if there are more classes than colours.
const EXTREMES: usize = 5;
/// A number of steps beyond this ratio to the smallest one needs a logarithmic axis.
const LOGARITHMIC_FROM: f64 = 10.0;

/// Mean accuracy with its interval, the worst class at each value, and every class.
///
/// Numbers of steps have a logarithmic axis if the largest is more than ten times the smallest. With more than ten
/// classes only those that are highest and lowest on average have a colour and a label.
///
/// # Errors
/// [`FigureError::Empty`] without a point that can be drawn or without class names for the classes,
/// [`FigureError::Length`] if a point has another number of classes than there are names.
pub fn robustness_curve(curve: &RobustnessCurve<'_>, context: &Context) -> Result<Figure, FigureError> {
    let name = curve.axis.name();
    some(name, curve.points, "no points")?;
    let classes = class_count(name, curve.points, context)?;
    let points = drawable(curve.points);
    let (Some(first), Some(last)) = (points.first(), points.last()) else {
        return Err(FigureError::Empty { figure: name, missing: "no point has an accuracy" });
    };
    let scale = Scale::new(curve.axis, first.x, last.x, &points);
    let highlighted = highlighted(&points, classes);

    let mut canvas = Canvas::new(600.0);
    let (heading, place) = match curve.axis {
        CurveAxis::Epsilon => ("Accuracy by radius of the attack", "radius"),
        CurveAxis::Steps => ("Accuracy by number of steps of the attack", "number of steps"),
    };
    let mut note = if points.len() > 1 {
        format!("Band: 95% interval of the mean; dashed: the worst class at each {place}")
    } else {
        "Whisker: 95% interval of the mean".to_owned()
    };
    if highlighted.len() < classes {
        note.push_str(&format!("; of {classes} classes the {EXTREMES} highest and lowest on average are named"));
        if classes > DENSE_CLASSES {
            note.push_str(", and some of the others in grey");
        }
    }
    let notes = [format!("Robust: under {}", named(curve.attack, "the evaluation attack")), note];
    let top = header(&mut canvas, heading, context, &notes) + 12.0;
    let names: Vec<String> = highlighted.iter().map(|&class| context.label(class)).collect();
    let widest = gutter(&names, LABEL, 130.0).max(text::width("worst class", LABEL, Weight::SemiBold));
    let room = LEADER + widest + text::width(" 100.0%", LABEL, Weight::SemiBold) + 4.0;
    let left = MARGIN + 38.0;
    let width = canvas.width() - left - MARGIN - room;
    let plot = Plot { left, top, width, height: 290.0, x: scale.range, y: (0.0, 1.0) };
    let at = |x: f64, y: f64| (plot.px(scale.place(x)), plot.py(y));

    let levels = ticks(0.0, 1.0, 5);
    plot.grid(&mut canvas, &levels);
    for level in levels {
        let style = Style::new(SMALL).fill(MUTED).end();
        canvas.centered_text(plot.left - 8.0, plot.py(level), style, &format!("{:.0}%", 100.0 * level));
    }
    scale.draw(&mut canvas, &plot, curve.axis, &points);
    let chance = (context.class_names.len() > 1).then(|| 1.0 / context.class_names.len() as f64);
    if let Some(chance) = chance {
        let y = plot.py(chance);
        canvas.line((plot.left, y), (plot.right(), y), Stroke::new(MUTED, 0.8).dashed("2 3"));
    }

    let color_of = |class: usize| {
        let rank = highlighted.iter().position(|&other| other == class)?;
        Some(CLASS_COLORS[if highlighted.len() == classes { class } else { rank } % CLASS_COLORS.len()])
    };
    let value_of = |point: &CurvePoint, class: usize| point.classes.get(class).copied().filter(is_fraction);
    let mut labels = Vec::new();
    // Faint lines first, so that they do not cross the band and the other lines.
    for class in faint((0..classes).filter(|&class| color_of(class).is_none()).collect()) {
        line(&mut canvas, &points, at, |point| value_of(point, class), Stroke::new(FAINT, 0.7));
    }
    band(&mut canvas, &points, at);
    for &class in &highlighted {
        let Some(color) = color_of(class) else { continue };
        let end = line(&mut canvas, &points, at, |point| value_of(point, class), Stroke::new(color, 1.1));
        let Some((value, at)) = end else { continue };
        labels.push(EndLabel { name: context.label(class), value: percent(value), at, color, bold: false });
    }
    let worst = Stroke::new(VERMILLION, 2.0).dashed("5 4");
    let ends = [
        ("worst class", line(&mut canvas, &points, at, |point| Some(point.worst).filter(is_fraction), worst)),
        ("mean", line(&mut canvas, &points, at, |point| Some(point.accuracy), Stroke::new(VERMILLION, 2.4))),
    ];
    for point in &points {
        canvas.dot(at(point.x, point.accuracy), 2.8, VERMILLION);
    }
    for (name, end) in ends {
        let Some((value, at)) = end else { continue };
        labels.push(EndLabel { name: name.to_owned(), value: percent(value), at, color: VERMILLION, bold: true });
    }
    if let Some(chance) = chance {
        let at = (plot.right(), plot.py(chance));
        labels.push(EndLabel { name: "chance".to_owned(), value: percent(chance), at, color: MUTED, bold: false });
    }
    end_labels(&mut canvas, &plot, &labels, room);
    Ok(Figure { name, svg: canvas.finish(plot.bottom() + curve.axis.room() + MARGIN - 6.0, heading) })
}

/// The number of classes of the points, 0 if they have none.
fn class_count(figure: &'static str, points: &[CurvePoint], context: &Context) -> Result<usize, FigureError> {
    let names = context.class_names.len();
    let mut count = 0;
    for point in points.iter().filter(|point| !point.classes.is_empty()) {
        if names == 0 {
            return Err(FigureError::Empty { figure, missing: "no class names" });
        }
        let found = point.classes.len();
        if found != names {
            let what = format!("the point at {}", trimmed(point.x, 4));
            return Err(FigureError::Length { figure, what, expected: names, found });
        }
        count = names;
    }
    Ok(count)
}

/// The points with an accuracy, by `x`.
fn drawable(points: &[CurvePoint]) -> Vec<&CurvePoint> {
    let known = |point: &&CurvePoint| point.x.is_finite() && point.x >= 0.0 && is_fraction(&point.accuracy);
    let mut points: Vec<&CurvePoint> = points.iter().rev().filter(known).collect();
    // The sort is stable: of equal `x` the last one is now first and is kept.
    points.sort_by(|a, b| a.x.total_cmp(&b.x));
    points.dedup_by(|later, kept| later.x == kept.x);
    points
}

/// The classes with a colour and a label, highest on average first. At the end of a security curve most classes are at
/// 0, so the order there says little.
fn highlighted(points: &[&CurvePoint], classes: usize) -> Vec<usize> {
    let mean = |class: usize| {
        let known: Vec<f64> =
            points.iter().filter_map(|point| point.classes.get(class).copied().filter(is_fraction)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    };
    let mut order: Vec<(usize, f64)> = (0..classes).filter_map(|class| Some((class, mean(class)?))).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    if order.len() > CLASS_COLORS.len() {
        order.drain(EXTREMES..order.len() - EXTREMES);
    }
    order.into_iter().map(|(class, _)| class).collect()
}

/// The scale of the lower axis.
struct Scale {
    /// Smallest positive value of a logarithmic scale.
    logarithmic: Option<f64>,
    range: (f64, f64),
}

impl Scale {
    fn new(axis: CurveAxis, first: f64, last: f64, points: &[&CurvePoint]) -> Self {
        let positive = points.iter().map(|point| point.x).find(|x| *x > 0.0);
        let logarithmic =
            positive.filter(|smallest| axis == CurveAxis::Steps && last > LOGARITHMIC_FROM * smallest * (1.0 + 1e-9));
        let mut scale = Self { logarithmic, range: (0.0, 1.0) };
        scale.range = if first < last {
            (scale.place(first), scale.place(last))
        } else {
            // A single point is centred.
            let half = if first > 0.0 { 0.5 * first } else { 1.0 };
            (first - half, first + half)
        };
        scale
    }

    /// The value on the linear scale of the plot. On a logarithmic scale 0 is at half of the smallest positive value.
    fn place(&self, x: f64) -> f64 {
        self.logarithmic.map_or(x, |smallest| x.max(0.5 * smallest).ln())
    }

    /// The lower axis with its title. Ticks are round radii, or the numbers of steps that were measured.
    fn draw(&self, canvas: &mut Canvas, plot: &Plot, axis: CurveAxis, points: &[&CurvePoint]) {
        let y = plot.bottom();
        canvas.line((plot.left, y), (plot.right(), y), Stroke::new(AXIS, 1.0));
        let single = points.len() == 1;
        let values: Vec<f64> = match axis {
            CurveAxis::Epsilon if !single => radii(plot.x, (plot.width / 48.0) as usize),
            _ => points.iter().map(|point| point.x).collect(),
        };
        let title = match axis {
            CurveAxis::Epsilon => "Radius ε, as decimal below",
            CurveAxis::Steps if self.logarithmic.is_some() => "Steps (logarithmic)",
            CurveAxis::Steps => "Steps",
        };
        let mut free = f64::NEG_INFINITY;
        // From the right: the largest value is always labelled.
        for &value in values.iter().rev() {
            let x = plot.px(self.place(value));
            canvas.line((x, y), (x, y + 4.0), Stroke::new(AXIS, 1.0));
            let label = match axis {
                CurveAxis::Epsilon => tick(value),
                CurveAxis::Steps => trimmed(value, 1),
            };
            let half = text::width(&label, SMALL, Weight::Regular) / 2.0;
            if -x - half < free {
                continue;
            }
            free = -x + half + 6.0;
            let style = Style::new(SMALL).middle();
            match axis {
                CurveAxis::Epsilon => {
                    canvas.text(x, y + 16.0, style, &label);
                    let decimal = if value == 0.0 { "0".to_owned() } else { format!("{value:.3}") };
                    canvas.text(x, y + 30.0, style.fill(MUTED), &decimal);
                }
                CurveAxis::Steps => canvas.text(x, y + 16.0, style.fill(MUTED), &label),
            }
        }
        canvas.text(plot.left + plot.width / 2.0, y + axis.room() - 7.0, Style::new(LABEL).middle(), title);
    }
}

/// At most about `count` radii in a range, at multiples of 2ⁿ/255: the radii of papers are 2/255, 4/255, 8/255, ….
fn radii((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let needed = (high - low) * 255.0 / count.max(1) as f64;
    let step = needed.log2().ceil().exp2() / 255.0;
    if !(step.is_finite() && step > 0.0) {
        return vec![low];
    }
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|index| index as f64 * step).collect()
}

/// A radius in grey levels, with as many digits as a small one needs.
fn tick(epsilon: f64) -> String {
    if epsilon == 0.0 { "0".to_owned() } else { format!("{}/255", trimmed(epsilon * 255.0, 2)) }
}

/// The interval of the mean: an area between neighbours, and a whisker where a point has none.
fn band(canvas: &mut Canvas, points: &[&CurvePoint], at: impl Fn(f64, f64) -> (f64, f64)) {
    for part in points.split(|point| !is_interval(point.interval)) {
        match part {
            [] => {}
            [point] => {
                let [from, to] = point.interval.map(|value| at(point.x, value));
                canvas.line(from, to, Stroke::new(VERMILLION, 1.2));
                for (x, y) in [from, to] {
                    canvas.line((x - 4.0, y), (x + 4.0, y), Stroke::new(VERMILLION, 1.2));
                }
            }
            part => {
                let upper = part.iter().map(|point| at(point.x, point.interval[1]));
                let lower = part.iter().rev().map(|point| at(point.x, point.interval[0]));
                canvas.polygon(&upper.chain(lower).collect::<Vec<_>>(), BAND);
            }
        }
    }
}

/// Whether an interval was measured.
pub(super) fn is_interval([low, high]: [f64; 2]) -> bool {
    is_fraction(&low) && is_fraction(&high) && low <= high
}

/// A line that is interrupted where a value is missing; a point without neighbours is a dot. Returns the last value and
/// its place.
fn line(
    canvas: &mut Canvas,
    points: &[&CurvePoint],
    at: impl Fn(f64, f64) -> (f64, f64),
    value: impl Fn(&CurvePoint) -> Option<f64>,
    stroke: Stroke<'_>,
) -> Option<(f64, (f64, f64))> {
    let known: Vec<Option<(f64, (f64, f64))>> =
        points.iter().map(|point| value(point).map(|value| (value, at(point.x, value)))).collect();
    for part in known.split(Option::is_none) {
        let part: Vec<(f64, f64)> = part.iter().flatten().map(|(_, at)| *at).collect();
        match part.as_slice() {
            [] => {}
            [point] => canvas.dot(*point, (1.3 * stroke.width).max(2.0), stroke.color),
            part => canvas.polyline(part, stroke),
        }
    }
    known.into_iter().flatten().next_back()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{check, context, count, says};
    use super::*;

    fn point(x: f64, classes: usize) -> CurvePoint {
        let accuracy = 0.8 / (1.0 + x);
        let class = |class: usize| accuracy * (0.5 + 0.5 * class as f64 / classes as f64);
        let interval = [accuracy - 0.02, accuracy + 0.02];
        CurvePoint { x, accuracy, interval, worst: 0.5 * accuracy, classes: (0..classes).map(class).collect() }
    }

    fn curve(axis: CurveAxis, points: &[CurvePoint], context: &Context) -> Figure {
        let figure = robustness_curve(&RobustnessCurve { axis, attack: "PGD-20, L∞", points }, context).unwrap();
        check(&figure);
        figure
    }

    fn security(classes: usize) -> Vec<CurvePoint> {
        [8.0, 0.0, 2.0, 4.0, 16.0].map(|level| point(level / 255.0, classes)).to_vec()
    }

    #[test]
    fn a_security_curve_has_a_band_and_a_labelled_line_for_each_class() {
        let figure = curve(CurveAxis::Epsilon, &security(10), &context(10));
        assert_eq!(figure.name, "security-curve");
        // Twelve lines, thirteen leaders (with chance), one band.
        assert_eq!(count(&figure, "polyline", None), 25);
        assert_eq!(count(&figure, "polygon", None), 1);
        assert_eq!(count(&figure, "circle", None), 5);
        for text in ["Robust: under PGD-20, L∞", "chance 10.0%", "mean 75.3%", "worst class 37.6%", "cat0", "16/255"]
        {
            assert!(says(&figure, text), "{text}");
        }
        assert!(says(&figure, "0.063") && says(&figure, "Radius ε"));
    }

    #[test]
    fn of_many_classes_the_extremes_are_named() {
        let figure = curve(CurveAxis::Epsilon, &security(100), &context(100));
        // 102 lines; leaders of ten classes, mean, worst class and chance.
        assert_eq!(count(&figure, "polyline", None), 115);
        assert!(says(&figure, "of 100 classes the 5 highest and lowest on average are named"));
        assert!(says(&figure, "airplane0") && says(&figure, "truck9") && !says(&figure, "airplane5"));
        for (classes, points) in [(2, security(2)), (1, security(1))] {
            curve(CurveAxis::Epsilon, &points, &context(classes));
        }
    }

    #[test]
    fn many_steps_are_on_a_logarithmic_axis() {
        let place = |points: &[f64], axis| {
            let points: Vec<CurvePoint> = points.iter().map(|x| point(*x, 2)).collect();
            let points: Vec<&CurvePoint> = points.iter().collect();
            let scale = Scale::new(axis, points[0].x, points[points.len() - 1].x, &points);
            let (low, high) = scale.range;
            points.iter().map(|point| (scale.place(point.x) - low) / (high - low)).collect::<Vec<_>>()
        };
        let near = |found: Vec<f64>, expected: &[f64]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9), "{found:?}");
        };
        near(place(&[1.0, 10.0, 100.0], CurveAxis::Steps), &[0.0, 0.5, 1.0]);
        near(place(&[1.0, 5.5, 10.0], CurveAxis::Steps), &[0.0, 0.5, 1.0]);
        near(place(&[0.0, 1.0, 64.0], CurveAxis::Steps), &[0.0, 1.0 / 7.0, 1.0]);
        near(place(&[0.001, 0.5, 0.999], CurveAxis::Epsilon), &[0.0, 0.5, 1.0]);
        let points: Vec<CurvePoint> = [1.0, 10.0, 20.0, 100.0, 1000.0].map(|x| point(x, 10)).to_vec();
        let figure = curve(CurveAxis::Steps, &points, &context(10));
        assert_eq!(figure.name, "steps-curve");
        assert!(says(&figure, "Steps (logarithmic)") && says(&figure, "1000"));
    }

    #[test]
    fn radii_are_multiples_of_powers_of_two() {
        let levels = |low: f64, high: f64| -> Vec<f64> {
            radii((low / 255.0, high / 255.0), 8).iter().map(|radius| (radius * 2550.0).round() / 10.0).collect()
        };
        assert_eq!(levels(0.0, 32.0), [0.0, 4.0, 8.0, 12.0, 16.0, 20.0, 24.0, 28.0, 32.0]);
        assert_eq!(levels(0.0, 8.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(levels(1.0, 3.0), [1.0, 1.3, 1.5, 1.8, 2.0, 2.3, 2.5, 2.8, 3.0]);
        assert_eq!(levels(0.0, 255.0), [0.0, 32.0, 64.0, 96.0, 128.0, 160.0, 192.0, 224.0]);
        assert_eq!(radii((0.0, 0.0), 8), [0.0]);
    }

    #[test]
    fn one_point_has_a_whisker_and_no_line() {
        for (axis, x) in [(CurveAxis::Epsilon, 8.0 / 255.0), (CurveAxis::Steps, 20.0), (CurveAxis::Epsilon, 0.0)] {
            let figure = curve(axis, &[point(x, 10)], &context(10));
            assert_eq!(count(&figure, "polygon", None), 0);
            assert!(says(&figure, "Whisker") && !says(&figure, "dashed"));
            assert_eq!(count(&figure, "polyline", None), 13, "leaders only");
        }
    }

    #[test]
    fn what_is_not_measured_is_left_out() {
        for wrong in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
            let mut points = security(10);
            points[0].classes[3] = wrong;
            points[1].worst = wrong;
            points[2].interval = [wrong, 0.5];
            points[3].accuracy = wrong;
            points[4].classes.clear();
            curve(CurveAxis::Epsilon, &points, &context(10));
            points.iter_mut().for_each(|point| point.classes.clear());
            curve(CurveAxis::Epsilon, &points, &Context { class_names: Vec::new(), ..context(1) });
            points.iter_mut().for_each(|point| point.x = wrong);
            if !(wrong.is_finite() && wrong > 0.0) {
                let curve = RobustnessCurve { axis: CurveAxis::Epsilon, attack: "", points: &points };
                assert!(matches!(robustness_curve(&curve, &context(10)), Err(FigureError::Empty { .. })));
            }
        }
        let equal: Vec<CurvePoint> = security(10)
            .into_iter()
            .map(|point| CurvePoint { accuracy: 0.0, interval: [0.0; 2], worst: 0.0, classes: vec![0.0; 10], ..point })
            .collect();
        curve(CurveAxis::Epsilon, &equal, &context(10));
        let mut twice = security(10);
        twice.push(CurvePoint { accuracy: 0.125, ..twice[4].clone() });
        assert!(says(&curve(CurveAxis::Epsilon, &twice, &context(10)), "mean 12.5%"));
    }

    #[test]
    fn wrong_sizes_are_errors() {
        let refused = |points: &[CurvePoint], context: &Context| {
            let curve = RobustnessCurve { axis: CurveAxis::Steps, attack: "", points };
            robustness_curve(&curve, context).unwrap_err()
        };
        assert!(matches!(refused(&[], &context(10)), FigureError::Empty { figure: "steps-curve", .. }));
        assert!(matches!(refused(&[point(1.0, 3)], &context(10)), FigureError::Length { expected: 10, found: 3, .. }));
        let nameless = Context { class_names: Vec::new(), ..context(1) };
        assert!(refused(&[point(1.0, 3)], &nameless).to_string().contains("no class names"));
    }
}
