//! Figures of studies: values of several arms paired by seed, and one quantity of each class against another.

use super::axes::{CLASS_COLORS, LABEL, MARGIN, Plot, SMALL, nice_above, percent, ticks, trimmed};
use super::labels::{self, Anchor};
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

/// Most points of a scatter plot that have names.
const NAMED: usize = 80;
/// Size of these names.
const NAME_SIZE: f64 = 9.5;
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
        let (low, high) = share_bounds(&values);
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
            canvas.text_on_ground(x + 19.0, level + 4.0, Style::new(SMALL).bold(), &percent(mean));
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
        share_bounds(&all().map(|point| point.1).collect::<Vec<_>>()),
        share_bounds(&all().map(|point| point.2).collect::<Vec<_>>()),
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
    let points: Vec<(&str, (f64, f64), &str)> = groups
        .iter()
        .enumerate()
        .flat_map(|(i, group)| group.points.iter().map(move |point| (i, point)))
        .map(|(i, (class, a, b))| (class.as_str(), (plot.px(*a), plot.py(*b)), CLASS_COLORS[i % CLASS_COLORS.len()]))
        .collect();
    if points.len() <= NAMED {
        names(&mut canvas, &plot, &points);
    }
    points.iter().for_each(|(_, at, color)| canvas.dot(*at, 3.5, color));
    Ok(Figure { name: NAME, svg: canvas.finish(plot.bottom() + 34.0 + MARGIN, heading) })
}

/// The names of the points, apart from each other.
fn names(canvas: &mut Canvas, plot: &Plot, points: &[(&str, (f64, f64), &str)]) {
    let names: Vec<String> =
        points.iter().map(|(class, ..)| text::fit(class, NAME_SIZE, Weight::Regular, 90.0)).collect();
    let anchors: Vec<Anchor> = points
        .iter()
        .zip(&names)
        .map(|((_, at, _), name)| Anchor {
            at: *at,
            size: (text::width(name, NAME_SIZE, Weight::Regular) + 2.0, NAME_SIZE + 1.5),
        })
        .collect();
    let inside = [plot.left + 2.0, plot.top - 8.0, plot.right() + 18.0, plot.bottom() - 2.0];
    let placed = labels::place(&anchors, inside);
    for (place, (_, _, color)) in placed.iter().zip(points) {
        if let Some([from, to]) = place.leader {
            canvas.line(from, to, Stroke::new(color, 0.6));
        }
    }
    for ((place, name), (_, _, color)) in placed.iter().zip(&names).zip(points) {
        let [left, top, _, bottom] = place.area;
        canvas.centered_text(left + 1.0, f64::midpoint(top, bottom), Style::new(NAME_SIZE).fill(color), name);
    }
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
pub fn share_bounds(values: &[f64]) -> (f64, f64) {
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

    /// Lines between arms pass below the numbers.
    #[test]
    fn means_stand_on_a_ground() {
        let panel = PairedPanel { name: "robust".into(), values: vec![vec![Some(0.5), Some(0.6)]] };
        let arms = ["PGD-AT".to_owned(), "FAIR-TAT".to_owned()];
        let svg = paired_seeds("study", &[], &arms, &[0], &[panel]).unwrap().svg;
        let lines: Vec<&str> = svg.lines().collect();
        for mean in [">50.0%<", ">60.0%<"] {
            let labels: Vec<usize> = (0..lines.len()).filter(|i| lines[*i].contains(mean)).collect();
            let ground = |i: &usize| lines[i - 1].starts_with("<rect") && lines[i - 1].contains("#ffffff");
            assert!(labels.iter().any(ground), "{mean}");
            let last = *labels.last().unwrap();
            assert!(!lines[last..].iter().any(|line| line.starts_with("<polyline")), "{mean}");
        }
    }

    /// Figures to look at, if `SHOTS` names a directory.
    #[test]
    fn many_arms_are_drawn() {
        let classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
        for count in [3, 6] {
            let arms: Vec<String> = ["AT", "targets uniform", "targets CFPS", "class epsilon", "both", "FAIR-TAT"]
                .map(str::to_owned)[..count]
                .to_vec();
            let value = |arm: usize, seed: usize| 0.3 + 0.012 * ((3 * arm + 5 * seed) % 7) as f64;
            let row = |seed: usize| (0..count).map(|arm| Some(value(arm, seed))).collect();
            let panel = |name: &str| PairedPanel { name: name.into(), values: (0..3).map(row).collect() };
            let paired = paired_seeds("study", &[], &arms, &[0, 1, 2], &[panel("robust"), panel("worst")]).unwrap();
            let point = |arm: usize, k: usize, name: &&str| {
                let cfps = 0.04 + 0.02 * ((7 * k) % 10) as f64 / 1.5 + 0.002 * ((arm * 5 + k) % 4) as f64;
                ((*name).to_owned(), cfps, 0.3 + 2.1 * cfps + 0.015 * ((arm * 3 + k * 5) % 6) as f64)
            };
            let group = |(arm, name): (usize, &String)| ScatterGroup {
                name: name.clone(),
                points: classes.iter().enumerate().map(|(k, name)| point(arm, k, name)).collect(),
            };
            let groups: Vec<ScatterGroup> = arms.iter().enumerate().map(group).collect();
            let scatter = class_scatter("study", &[], ["CFPS", "success of attacks"], &groups).unwrap();
            assert_eq!(scatter.svg.matches(">cat<").count(), count);
            if let Some(directory) = std::env::var_os("SHOTS") {
                let directory = std::path::PathBuf::from(directory);
                std::fs::write(directory.join(format!("paired-{count}.png")), paired.png().unwrap()).unwrap();
                std::fs::write(directory.join(format!("scatter-{count}.png")), scatter.png().unwrap()).unwrap();
            }
        }
    }

    #[test]
    fn scales_enclose_the_values_within_0_and_1() {
        for values in [vec![0.0], vec![1.0], vec![0.5, 0.5], vec![0.01, 0.99], vec![0.333, 0.334], vec![]] {
            let (low, high) = share_bounds(&values);
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
        // More points than can be named.
        let many = |name: &str| ScatterGroup {
            name: name.into(),
            points: (0..50).map(|k| (format!("class {k}"), 0.02 * f64::from(k), 0.5)).collect(),
        };
        let figure = class_scatter("CFPS", &[], ["CFPS", "success"], &[many("AT"), many("TAT")]).unwrap();
        assert!(!figure.svg.contains(">class 7<") && figure.svg.matches("<circle").count() >= 100);
        assert!(class_scatter("CFPS", &[], ["", ""], &[]).is_err());
    }
}
