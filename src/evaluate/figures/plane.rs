//! The plane of images around one image, coloured by the class that a network predicts.

use super::axes::{CLASS_COLORS, LABEL, MARGIN, SMALL, header, k255};
use super::svg::{AXIS, Canvas, INK, MUTED, Stroke, Style};
use super::text::{self, Weight};
use super::{Context, Figure, FigureError};

/// The content of a decision map.
#[derive(Debug, Clone, PartialEq)]
pub struct PlaneFigure<'a> {
    /// Description of the image in the middle.
    pub image: &'a str,
    /// Descriptions of the axes: to the right, up.
    pub axes: [&'a str; 2],
    /// Number of points along a side.
    pub resolution: usize,
    /// Half of the side length, in `[0, 1]` pixel units.
    pub extent: f64,
    /// Predicted class of each point, row by row from the top.
    pub predictions: &'a [u32],
    /// Probability of the predicted class of each point.
    pub confidence: &'a [f32],
    /// Corners of the section of the attack's ball, in `[0, 1]` pixel units along the axes.
    pub ball: &'a [[f64; 2]],
    /// The attack's steps, likewise; empty if they are not drawn.
    pub path: &'a [[f64; 2]],
    /// The step that is marked.
    pub step: Option<usize>,
    /// The norm of the ball, such as `L∞`.
    pub norm: &'a str,
    /// Radius of the ball.
    pub epsilon: f64,
}

/// Longest side of the map in the figure.
const SIDE: f64 = 384.0;
/// Number of shades of a class, from unsure to certain: few enough for neighbouring points to merge into one shape.
const SHADES: usize = 12;

/// The map with the ball, its axes in levels of 255, and the classes that occur with their share.
///
/// # Errors
/// [`FigureError::Length`] if the number of points is not `resolution²`, [`FigureError::Empty`] if there are none.
pub fn decision_map(plane: &PlaneFigure<'_>, context: &Context) -> Result<Figure, FigureError> {
    const NAME: &str = "decision-map";
    let n = plane.resolution;
    if n == 0 {
        return Err(FigureError::Empty { figure: NAME, missing: "no points" });
    }
    let lengths = [("predictions", plane.predictions.len()), ("confidence", plane.confidence.len())];
    if let Some((what, found)) = lengths.into_iter().find(|(_, found)| *found != n * n) {
        return Err(FigureError::Length { figure: NAME, what: what.into(), expected: n * n, found });
    }
    let classes = context.class_names.len().max(2);
    let mut counts = std::collections::BTreeMap::new();
    for class in plane.predictions {
        *counts.entry(*class).or_insert(0usize) += 1;
    }
    let mut shares: Vec<(u32, usize)> = counts.into_iter().collect();
    shares.sort_by_key(|(class, count)| (std::cmp::Reverse(*count), *class));

    let (left, gap) = (MARGIN + 56.0, 18.0);
    let mut canvas = Canvas::new(left + SIDE + gap + 170.0 + MARGIN);
    let middle = format!("Middle: {}", plane.image);
    let ball = format!(
        "Outline: the section of the {} ball of radius {}; colour: predicted class, paler where it is less certain{}",
        plane.norm,
        k255(plane.epsilon),
        if plane.path.is_empty() { "" } else { "; line: the attack, projected onto the plane" }
    );
    let top = header(&mut canvas, "Decision map", context, &[middle, ball]) + 12.0;
    let side = SIDE / n as f64;
    let shade = |i: usize| {
        // From the probability of guessing to certainty.
        let floor = 1.0 / classes as f64;
        let sure = ((f64::from(plane.confidence[i]) - floor) / (1.0 - floor)).clamp(0.0, 1.0);
        (plane.predictions[i], (sure * (SHADES - 1) as f64).round() as usize)
    };
    for row in 0..n {
        let mut from = 0;
        for column in 1..=n {
            let here = shade(row * n + from);
            if column < n && shade(row * n + column) == here {
                continue;
            }
            let (x, y) = (left + from as f64 * side, top + row as f64 * side);
            canvas.cell(x, y, (column - from) as f64 * side, side, &color(here.0, here.1));
            from = column;
        }
    }
    canvas.frame(left, top, SIDE, SIDE, Stroke::new(AXIS, 1.0));
    let place = |a: f64, b: f64| {
        let across = |v: f64| SIDE / 2.0 * (1.0 + v / plane.extent);
        (left + across(a), top + across(-b))
    };
    let mut outline: Vec<(f64, f64)> = visible(plane.ball, plane.extent).iter().map(|[a, b]| place(*a, *b)).collect();
    outline.extend(outline.first().copied());
    if outline.len() > 3 {
        canvas.polyline(&outline, Stroke::new("#ffffff", 3.5));
        canvas.polyline(&outline, Stroke::new(INK, 1.5));
    }
    let steps: Vec<(f64, f64)> = plane
        .path
        .iter()
        .map(|[a, b]| place(a.clamp(-plane.extent, plane.extent), b.clamp(-plane.extent, plane.extent)))
        .collect();
    if steps.len() > 1 {
        canvas.polyline(&steps, Stroke::new("#ffffff", 3.5));
        canvas.polyline(&steps, Stroke::new(INK, 1.5));
    }
    for (step, at) in steps.iter().enumerate() {
        let radius = if plane.step == Some(step) { 5.0 } else { 2.5 };
        canvas.dot(*at, radius + 1.5, "#ffffff");
        canvas.dot(*at, radius, INK);
    }
    canvas.dot(place(0.0, 0.0), 5.0, "#ffffff");
    canvas.dot(place(0.0, 0.0), 3.0, INK);

    let style = Style::new(SMALL).fill(MUTED);
    let bottom = top + SIDE;
    for (share, anchor) in [(-1.0, style), (0.0, style.middle()), (1.0, style.end())] {
        let value = share * plane.extent;
        let text = if share == 0.0 { "0".to_owned() } else { k255(value).replace('-', "−") };
        canvas.text(place(value, 0.0).0, bottom + 15.0, anchor, &text);
        canvas.centered_text(left - 6.0, place(0.0, value).1.clamp(top + 6.0, bottom - 6.0), style.end(), &text);
    }
    let title = Style::new(LABEL).middle();
    canvas.text(left + SIDE / 2.0, bottom + 32.0, title, &format!("{} →", plane.axes[0]));
    canvas.rotated_text(MARGIN + 9.0, top + SIDE / 2.0, -90.0, title, &format!("{} →", plane.axes[1]));

    let x = left + SIDE + gap;
    for (row, (class, count)) in shares.iter().enumerate() {
        let y = top + 8.0 + 18.0 * row as f64;
        canvas.rect(x, y - 6.0, 12.0, 12.0, &color(*class, SHADES - 1));
        let share = format!("{:.1}%", 100.0 * *count as f64 / (n * n) as f64);
        let name = text::fit(&context.label(*class as usize), LABEL, Weight::Regular, 104.0);
        canvas.centered_text(x + 18.0, y, Style::new(LABEL), &name);
        canvas.centered_text(x + 168.0, y, Style::new(SMALL).fill(MUTED).end(), &share);
    }
    let below = (bottom + 40.0).max(top + 18.0 * shares.len() as f64);
    Ok(Figure { name: NAME, svg: canvas.finish(below + MARGIN, "Decision map") })
}

/// The part of a convex polygon within `extent` of the centre along both axes (Sutherland and Hodgman).
fn visible(corners: &[[f64; 2]], extent: f64) -> Vec<[f64; 2]> {
    let mut kept = corners.to_vec();
    for (axis, sign) in [(0, 1.0), (0, -1.0), (1, 1.0), (1, -1.0)] {
        let room = |p: &[f64; 2]| extent - sign * p[axis];
        let mut next = Vec::with_capacity(kept.len() + 1);
        for (i, p) in kept.iter().enumerate() {
            let q = &kept[(i + 1) % kept.len()];
            let (here, there) = (room(p), room(q));
            if here >= 0.0 {
                next.push(*p);
            }
            if (here < 0.0) != (there < 0.0) {
                let t = here / (here - there);
                next.push([p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]);
            }
        }
        kept = next;
    }
    kept
}

/// A class colour blended with white, from a third of its strength (unsure) to full strength.
fn color(class: u32, shade: usize) -> String {
    let code = CLASS_COLORS[class as usize % CLASS_COLORS.len()];
    let strength = 0.3 + 0.7 * shade as f64 / (SHADES - 1) as f64;
    let channel = |at: usize| {
        let value = f64::from(u8::from_str_radix(code.get(at..at + 2).unwrap_or("80"), 16).unwrap_or(0x80));
        (255.0 + strength * (value - 255.0)).round() as u8
    };
    format!("#{:02x}{:02x}{:02x}", channel(1), channel(3), channel(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        Context {
            title: "FAIR-TAT on digits".into(),
            attack: String::new(),
            train_robust: "train robust",
            train_attack: String::new(),
            statistics: String::new(),
            frozen_after: None,
            class_names: ["zero", "one", "<two>"].map(str::to_owned).to_vec(),
            base_epsilon: 0.1,
        }
    }

    #[test]
    fn equal_neighbours_become_one_shape() {
        let plane = PlaneFigure {
            image: "test image 3",
            axes: ["towards one", "at random"],
            resolution: 3,
            extent: 0.2,
            predictions: &[2, 2, 2, 0, 0, 2, 0, 0, 0],
            confidence: &[0.9; 9],
            ball: &[[-0.1, -0.1], [0.1, -0.1], [0.1, 0.1], [-0.1, 0.1]],
            path: &[],
            step: None,
            norm: "L∞",
            epsilon: 0.1,
        };
        let figure = decision_map(&plane, &context()).unwrap();
        assert_eq!(figure.svg.matches("class=\"cell\"").count(), 4, "{}", figure.svg);
        for text in ["test image 3", "towards one", "at random", "&lt;two&gt;", "55.6%", "44.4%", "25.5/255"] {
            assert!(figure.svg.contains(text), "{text}");
        }
        assert_eq!(figure.svg.matches("<polyline").count(), 2);
        assert!(figure.png().unwrap().starts_with(b"\x89PNG"));
        let path = [[0.0, 0.0], [0.05, 0.02], [0.3, 0.0]];
        let attacked = decision_map(&PlaneFigure { path: &path, step: Some(1), ..plane.clone() }, &context()).unwrap();
        assert_eq!(attacked.svg.matches("<polyline").count(), 4, "the outline and the path, each on a ground");
        assert_eq!(attacked.svg.matches("<circle").count(), 2 + 2 * 3);
        let short = PlaneFigure { predictions: &[0; 8], ..plane.clone() };
        assert!(matches!(decision_map(&short, &context()), Err(FigureError::Length { expected: 9, found: 8, .. })));
        let none = PlaneFigure { resolution: 0, ..plane };
        assert!(matches!(decision_map(&none, &context()), Err(FigureError::Empty { .. })));
    }

    #[test]
    fn a_ball_larger_than_the_map_is_cut_at_its_border() {
        let diamond = [[1.5, 0.0], [0.0, 1.5], [-1.5, 0.0], [0.0, -1.5]];
        let cut = visible(&diamond, 1.0);
        assert_eq!(cut.len(), 8);
        assert!(cut.iter().all(|[a, b]| a.abs() <= 1.0 + 1e-12 && (a.abs() + b.abs() - 1.5).abs() < 1e-12), "{cut:?}");
        assert_eq!(visible(&diamond, 2.0), diamond);
        assert!(visible(&[], 1.0).is_empty());
    }
}
