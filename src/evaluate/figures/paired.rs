//! Figures of studies: values of several arms paired by seed, and one quantity of each class against another.

use super::axes::{CLASS_COLORS, LABEL, MARGIN, Plot, SMALL, nice_above, percent, ticks, trimmed};
use super::svg::{AXIS, Canvas, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Figure, FigureError};

/// One quantity of [`paired_seeds`].
#[derive(Debug, Clone, PartialEq)]
pub struct PairedPanel {
    /// Its name.
    pub name: String,
    /// Value of each arm for each seed, `seeds × arms`; `None` for a run that is missing.
    pub values: Vec<Vec<Option<f64>>>,
}

/// Most arms whose names stand horizontally below their points.
const WIDE_ARMS: usize = 4;

/// A panel for each quantity: the arms beside each other, a line for each seed, a bar at each mean. Values are shares of
/// 1. The scale is that of the values, so that differences between arms are visible.
///
/// # Errors
/// [`FigureError::Empty`] if there is no value.
pub fn paired_seeds(
    heading: &str,
    notes: &[String],
    arms: &[String],
    seeds: &[u64],
    panels: &[PairedPanel],
) -> Result<Figure, FigureError> {
    const NAME: &str = "paired";
    let known = |panel: &PairedPanel| panel.values.iter().flatten().flatten().copied().collect::<Vec<f64>>();
    if panels.iter().all(|panel| known(panel).is_empty()) || arms.is_empty() {
        return Err(FigureError::Empty { figure: NAME, missing: "no values" });
    }
    let mut canvas = Canvas::new((200.0 + 92.0 * arms.len() as f64).clamp(420.0, 1400.0));
    let mut y = heads(&mut canvas, heading, notes);
    y = seed_legend(&mut canvas, seeds, y);
    let slanted = arms.len() > WIDE_ARMS;
    let longest = arms.iter().map(|arm| text::width(arm, SMALL, Weight::Regular)).fold(0.0, f64::max);
    let room = if slanted { 12.0 + 0.6 * longest.min(190.0) } else { 20.0 };
    for (at, panel) in panels.iter().enumerate() {
        canvas.text(MARGIN, y + 14.0, Style::new(LABEL).bold(), &panel.name);
        let values = known(panel);
        let (low, high) = bounds(&values);
        let left = MARGIN + 46.0;
        let plot = Plot {
            left,
            top: y + 26.0,
            width: canvas.width() - left - MARGIN - 12.0,
            height: 170.0,
            x: (-0.5, arms.len() as f64 - 0.5),
            y: (low, high),
        };
        let levels: Vec<f64> = ticks(low, high, 5).into_iter().filter(|level| (low..=high).contains(level)).collect();
        plot.grid(&mut canvas, &levels);
        for level in levels {
            let text = format!("{}%", trimmed(100.0 * level, 1));
            canvas.centered_text(plot.left - 8.0, plot.py(level), Style::new(SMALL).fill(MUTED).end(), &text);
        }
        for (seed, row) in panel.values.iter().enumerate() {
            let color = CLASS_COLORS[seed % CLASS_COLORS.len()];
            let points: Vec<(f64, f64)> = row
                .iter()
                .enumerate()
                .filter_map(|(arm, value)| Some((plot.px(arm as f64), plot.py((*value)?))))
                .collect();
            canvas.polyline(&points, Stroke::new(color, 1.2));
            points.iter().for_each(|point| canvas.dot(*point, 3.0, color));
        }
        for arm in 0..arms.len() {
            let own: Vec<f64> = panel.values.iter().filter_map(|row| *row.get(arm)?).collect();
            if own.is_empty() {
                continue;
            }
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let (x, level) = (plot.px(arm as f64), plot.py(mean));
            canvas.line((x - 16.0, level), (x + 16.0, level), Stroke::new(INK, 2.0));
            canvas.text(x + 18.0, level - 4.0, Style::new(SMALL).bold(), &percent(mean));
        }
        canvas.line((plot.left, plot.bottom()), (plot.right(), plot.bottom()), Stroke::new(AXIS, 1.0));
        y = plot.bottom() + 14.0;
        if at + 1 == panels.len() {
            for (arm, name) in arms.iter().enumerate() {
                let x = plot.px(arm as f64);
                if slanted {
                    let name = text::fit(name, SMALL, Weight::Regular, 190.0);
                    canvas.rotated_text(x + 4.0, y + 2.0, -36.0, Style::new(SMALL).end(), &name);
                } else {
                    let name = text::fit(name, SMALL, Weight::Regular, 0.95 * plot.width / arms.len() as f64);
                    canvas.text(x, y + 6.0, Style::new(SMALL).middle(), &name);
                }
            }
            y += room;
        }
    }
    Ok(Figure { name: NAME, svg: canvas.finish(y + MARGIN, heading) })
}

/// A group of points of [`class_scatter`].
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterGroup {
    /// Its name, with what is known about its correlation.
    pub name: String,
    /// Name of the class, and its two values, both shares of 1.
    pub points: Vec<(String, f64, f64)>,
}

/// A point for each class, a colour for each group. Points carry the names of their classes while there are few.
///
/// # Errors
/// [`FigureError::Empty`] without points.
pub fn class_scatter(
    heading: &str,
    notes: &[String],
    axes: [&str; 2],
    groups: &[ScatterGroup],
) -> Result<Figure, FigureError> {
    const NAME: &str = "vulnerability";
    let all = || groups.iter().flat_map(|group| &group.points);
    if all().next().is_none() {
        return Err(FigureError::Empty { figure: NAME, missing: "no points" });
    }
    let mut canvas = Canvas::new(640.0);
    let mut top = heads(&mut canvas, heading, notes) + 4.0;
    for (i, group) in groups.iter().enumerate() {
        canvas.dot((MARGIN + 5.0, top + 7.0), 4.0, CLASS_COLORS[i % CLASS_COLORS.len()]);
        let width = canvas.width() - 2.0 * MARGIN - 16.0;
        top = canvas.paragraph(MARGIN + 16.0, top + 11.0, width, Style::new(SMALL), &group.name) - 7.0;
    }
    let [x, y] = [
        bounds(&all().map(|point| point.1).collect::<Vec<_>>()),
        bounds(&all().map(|point| point.2).collect::<Vec<_>>()),
    ];
    let left = MARGIN + 52.0;
    let plot = Plot { left, top: top + 34.0, width: canvas.width() - left - MARGIN - 20.0, height: 340.0, x, y };
    let levels: Vec<f64> = ticks(y.0, y.1, 6).into_iter().filter(|level| (y.0..=y.1).contains(level)).collect();
    plot.grid(&mut canvas, &levels);
    let tick = |value: f64| format!("{}%", trimmed(100.0 * value, 1));
    for level in levels {
        canvas.centered_text(plot.left - 8.0, plot.py(level), Style::new(SMALL).fill(MUTED).end(), &tick(level));
    }
    canvas.line((plot.left, plot.bottom()), (plot.right(), plot.bottom()), Stroke::new(AXIS, 1.0));
    for value in ticks(x.0, x.1, 7).into_iter().filter(|value| (x.0..=x.1).contains(value)) {
        let at = plot.px(value);
        canvas.line((at, plot.bottom()), (at, plot.bottom() + 4.0), Stroke::new(AXIS, 1.0));
        canvas.text(at, plot.bottom() + 16.0, Style::new(SMALL).fill(MUTED).middle(), &tick(value));
    }
    canvas.text(plot.left + plot.width / 2.0, plot.bottom() + 34.0, Style::new(LABEL).middle(), axes[0]);
    canvas.text(MARGIN, plot.top - 16.0, Style::new(LABEL), axes[1]);
    let named = all().count() <= 40;
    for (i, group) in groups.iter().enumerate() {
        let color = CLASS_COLORS[i % CLASS_COLORS.len()];
        for (class, a, b) in &group.points {
            let (px, py) = (plot.px(*a), plot.py(*b));
            canvas.dot((px, py), 3.5, color);
            if named {
                // Names of points at the right edge stand on their left.
                let name = text::fit(class, 9.5, Weight::Regular, 90.0);
                let width = text::width(&name, 9.5, Weight::Regular);
                let style = Style::new(9.5).fill(color);
                if px + 6.0 + width > plot.right() + 16.0 {
                    canvas.text(px - 6.0, py - 3.0, style.end(), &name);
                } else {
                    canvas.text(px + 6.0, py - 3.0, style, &name);
                }
            }
        }
    }
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + 34.0 + MARGIN, heading) })
}

/// Heading and notes; returns the y coordinate below them.
fn heads(canvas: &mut Canvas, heading: &str, notes: &[String]) -> f64 {
    let width = canvas.width() - 2.0 * MARGIN;
    let mut y = canvas.paragraph(MARGIN, MARGIN + 11.0, width, Style::new(14.0).bold(), heading);
    for note in notes {
        y = canvas.paragraph(MARGIN, y, width, Style::new(SMALL).fill(MUTED), note);
    }
    y
}

/// A dot with its name for each seed, in rows; returns the y coordinate below them.
fn seed_legend(canvas: &mut Canvas, seeds: &[u64], y: f64) -> f64 {
    let (mut x, mut line) = (MARGIN, y + 2.0);
    for (i, seed) in seeds.iter().enumerate() {
        let name = format!("seed {seed}");
        let width = 28.0 + text::width(&name, SMALL, Weight::Regular);
        if x + width > canvas.width() - MARGIN && x > MARGIN {
            (x, line) = (MARGIN, line + 16.0);
        }
        canvas.dot((x + 5.0, line), 3.0, CLASS_COLORS[i % CLASS_COLORS.len()]);
        canvas.centered_text(x + 12.0, line, Style::new(SMALL).fill(MUTED), &name);
        x += width;
    }
    line + 18.0
}

/// Ends of a scale for shares: round numbers around the values, within 0 and 1.
fn bounds(values: &[f64]) -> (f64, f64) {
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    if !low.is_finite() || !high.is_finite() {
        return (0.0, 1.0);
    }
    let step = nice_above(((high - low) / 4.0).max(0.01));
    let (low, high) = (((low - 0.1 * step) / step).floor() * step, ((high + 0.1 * step) / step).ceil() * step);
    let (low, high) = (low.max(0.0), high.min(1.0));
    if high - low < step { ((low - step).max(0.0), (high + step).min(1.0)) } else { (low, high) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_has_a_line_and_every_arm_its_mean() {
        let panel = |name: &str| PairedPanel {
            name: name.into(),
            values: vec![vec![Some(0.5), Some(0.6)], vec![Some(0.3), None]],
        };
        let arms = ["PGD-AT".to_owned(), "FAIR-TAT".to_owned()];
        let figure = paired_seeds("study", &[], &arms, &[0, 7], &[panel("robust"), panel("worst")]).unwrap();
        for part in ["seed 7", "40.0%", "60.0%", "FAIR-TAT", "worst"] {
            assert!(figure.svg.contains(part), "{part}");
        }
        assert!(!figure.png().unwrap().is_empty());
        assert!(paired_seeds("study", &[], &arms, &[], &[]).is_err());
    }

    #[test]
    fn scales_enclose_the_values_within_0_and_1() {
        for values in [vec![0.0], vec![1.0], vec![0.5, 0.5], vec![0.01, 0.99], vec![0.333, 0.334], vec![]] {
            let (low, high) = bounds(&values);
            assert!(low >= 0.0 && high <= 1.0 && low < high, "{values:?} {low} {high}");
            assert!(values.iter().all(|value| (low..=high).contains(value)), "{values:?} {low} {high}");
        }
    }

    #[test]
    fn every_class_is_a_point_of_its_group() {
        let group = |name: &str| ScatterGroup {
            name: name.into(),
            points: vec![("cat".into(), 0.2, 0.9), ("ship".into(), 0.05, 0.4)],
        };
        let figure = class_scatter("CFPS", &[], ["CFPS", "success"], &[group("AT, r 0.9"), group("TAT")]).unwrap();
        assert_eq!(figure.svg.matches(">cat<").count(), 2);
        assert!(figure.svg.contains("AT, r 0.9") && !figure.png().unwrap().is_empty());
        assert!(class_scatter("CFPS", &[], ["", ""], &[]).is_err());
    }
}
