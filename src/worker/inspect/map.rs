//! The plane of images around one image, coloured by predicted class.
//!
//! A point `(a, b)` of the plane is the image `clip(x + a·u + b·v)`. `u` and `v` are orthogonal, and the largest
//! absolute entry of each is 1, so that a step of 1 along an axis changes at least one value by 1 and none by more.
//!
//! The attack on the image runs first: its change may be an axis, and each of its steps `δ` is drawn at its projection
//! `(δ·u / u·u, δ·v / v·v)`. If the first axis is the change by the whole attack, the last step is on the plane itself.

use super::{DecisionMap, Direction, InspectionJob, MapJob, inspect, probabilities};
use crate::engine::{BatchNormMode, Engine, EngineError, Input, Norm, Objective, loss};
use crate::rng::{Purpose, Stream};

/// Largest number of points along a side.
const MAX_RESOLUTION: usize = 256;
/// Batch size of a forward pass.
const BATCH: usize = 256;
/// The second direction counts as parallel to the first if its orthogonal component has less than this fraction of its
/// length.
const PARALLEL: f64 = 1e-4;
/// The section of an L2 ball is drawn with this many corners.
const CORNERS: usize = 64;
/// The random direction that stands in for one that does not exist.
const STAND_IN: Direction = Direction::Random(1);

/// Predicts every point of the plane of `job`.
///
/// # Errors
/// Returns [`EngineError::Invalid`] if the job does not fit the network, or if its directions do not span a plane;
/// otherwise as [`Engine::input_gradient`].
pub fn map(engine: &mut dyn Engine, job: &MapJob, position: Option<f64>) -> Result<DecisionMap, EngineError> {
    let (shape, classes) = (engine.network().input, engine.network().classes);
    job.subject.check(shape, classes)?;
    let fail = |what: String| Err(EngineError::Invalid(what));
    if job.resolution == 0 || job.resolution > MAX_RESOLUTION {
        let found = job.resolution;
        return fail(format!("a decision map has 1 to {MAX_RESOLUTION} points along a side, found {found}"));
    }
    let x = job.subject.scaled();
    let attack = Attacked::new(engine, job, &x)?;
    let mut axes = job.axes.map(|axis| if axis == Direction::Rival { Direction::Class(attack.rival) } else { axis });
    let first = direction(engine, &x, &attack, axes[0])?;
    let second = match direction(engine, &x, &attack, axes[1]).map(|second| plane(&first, &second)) {
        Ok(Some(found)) => Some(found),
        // Where the class was not chosen by anyone, another plane through the attack is better than none.
        _ if job.axes[1] == Direction::Rival => {
            axes[1] = STAND_IN;
            plane(&first, &direction(engine, &x, &attack, STAND_IN)?)
        }
        Ok(None) => None,
        Err(error) => return Err(error),
    };
    let Some([u, v]) = second else {
        let [a, b] = axes.map(describe);
        return fail(format!("the directions {a} and {b} are parallel and span no plane; choose another second one"));
    };
    let radius = job.attack.epsilon.exact();
    let ball = match job.attack.norm {
        Norm::Linf => section(&u, &v, radius),
        Norm::L2 => ellipse(&u, &v, radius),
    };
    let border = match job.attack.norm {
        Norm::Linf => radius,
        Norm::L2 => radius / dot(&u, &u).sqrt(),
    };
    let extent = job.extent.map_or(2.0 * border, crate::units::Epsilon::exact);
    if extent <= 0.0 {
        return fail("a decision map needs an extent above 0, or an attack with a radius above 0".into());
    }
    let n = job.resolution;
    let mut points = (0..n * n).map(|i| [coordinate(n, extent, i % n), -coordinate(n, extent, i / n)]);
    let (mut predictions, mut confidence) = (Vec::with_capacity(n * n), Vec::with_capacity(n * n));
    let mut images = Vec::with_capacity(BATCH.min(n * n) * x.len());
    loop {
        images.clear();
        for [a, b] in points.by_ref().take(BATCH) {
            let moved = |((x, u), v): ((&f32, &f64), &f64)| (f64::from(*x) + a * u + b * v).clamp(0.0, 1.0) as f32;
            images.extend(x.iter().zip(&u).zip(&v).map(moved));
        }
        if images.is_empty() {
            break;
        }
        let labels = vec![0; images.len() / x.len()];
        let logits = engine.logits(&Input::Images(&images, &labels), BatchNormMode::Eval)?;
        for row in logits.chunks(classes) {
            let predicted = loss::argmax(row);
            predictions.push(predicted);
            confidence.push(probabilities(row)[predicted as usize]);
        }
    }
    let path = attack.changes.iter().map(|change| [&u, &v].map(|axis| dot(change, axis) / dot(axis, axis))).collect();
    Ok(DecisionMap { job: job.clone(), predictions, confidence, axes, extent, ball, path, position })
}

/// The attack on the image of a map.
struct Attacked {
    /// Changes of the image: at the start of the attack, and after each step.
    changes: Vec<Vec<f64>>,
    /// The class that [`Direction::Rival`] stands for.
    rival: u32,
}

impl Attacked {
    fn new(engine: &mut dyn Engine, job: &MapJob, x: &[f32]) -> Result<Self, EngineError> {
        let asked = InspectionJob { id: job.id, subject: job.subject.clone(), attack: job.attack.clone() };
        let found = inspect(engine, &asked, None)?;
        let changes = found
            .steps
            .iter()
            .skip(1)
            .map(|step| step.image.iter().zip(x).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect())
            .collect();
        let likely = found.steps.last().map_or(&[][..], |last| &last.probabilities);
        let others = likely.iter().enumerate().filter(|(class, _)| *class != found.label as usize);
        let rival = others.max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class as u32);
        Ok(Self { changes, rival: job.attack.target.unwrap_or(rival) })
    }
}

/// Coordinate of column `index` of `n` on the first axis; that of row `index` on the second has the opposite sign.
fn coordinate(n: usize, extent: f64, index: usize) -> f64 {
    match n {
        1 => 0.0,
        n => extent * (2.0 * index as f64 / (n - 1) as f64 - 1.0),
    }
}

fn describe(direction: Direction) -> String {
    match direction {
        Direction::Attack => "of the attack".into(),
        Direction::Rival => "towards the runner-up".into(),
        Direction::Class(class) => format!("towards class {class}"),
        Direction::Random(seed) => format!("at random with seed {seed}"),
    }
}

fn direction(
    engine: &mut dyn Engine,
    x: &[f32],
    attack: &Attacked,
    direction: Direction,
) -> Result<Vec<f64>, EngineError> {
    let values = match direction {
        Direction::Attack => {
            let change = attack.changes.last().filter(|change| change.iter().any(|value| *value != 0.0));
            let nowhere = || {
                let what =
                    "the attack does not change this image, so it is no axis; give it steps, or choose other axes";
                EngineError::Invalid(what.into())
            };
            return change.cloned().map(scaled).ok_or_else(nowhere);
        }
        Direction::Rival => return self::direction(engine, x, attack, Direction::Class(attack.rival)),
        Direction::Random(seed) => {
            let stream = Stream::new(seed, Purpose::Direction, 0, 0);
            (0..x.len() as u32).map(|i| stream.normal(i)).collect()
        }
        Direction::Class(class) => {
            let classes = engine.network().classes;
            if class as usize >= classes {
                let what = format!("an axis leads towards class {class}, expected 0 to {}", classes - 1);
                return Err(EngineError::Invalid(what));
            }
            let towards = Objective::Targeted(vec![class]);
            engine.input_gradient(&Input::Images(x, &[class]), &towards, BatchNormMode::Eval)?.1
        }
    };
    if values.iter().all(|v| *v == 0.0) {
        let what = format!(
            "the gradient {} vanishes at this image, where the network is certain; choose another class or a random \
             direction",
            describe(direction)
        );
        return Err(EngineError::Invalid(what));
    }
    // In units of its largest entry, because squares of a tiny gradient would underflow.
    Ok(scaled(values.iter().map(|v| f64::from(*v)).collect()))
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn scaled(mut values: Vec<f64>) -> Vec<f64> {
    let largest = values.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()));
    values.iter_mut().for_each(|v| *v /= largest);
    values
}

/// Gram–Schmidt, then scaled so that the largest entry is 1; `None` for parallel vectors.
fn plane(first: &[f64], second: &[f64]) -> Option<[Vec<f64>; 2]> {
    let share = dot(first, second) / dot(first, first);
    let rest: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - share * a).collect();
    (dot(&rest, &rest) > PARALLEL * PARALLEL * dot(second, second)).then(|| [first.to_vec(), scaled(rest)])
}

/// Corners of `{(a, b): |a·uᵢ + b·vᵢ| ≤ ε for all i}`, counter-clockwise.
///
/// This is the polar of the convex hull of the points `±(uᵢ, vᵢ)`: each corner of the hull corresponds to a side of the
/// section, and the sides of two neighbouring corners `p`, `q` meet in the point `c` with `p·c = q·c = ε`.
fn section(u: &[f64], v: &[f64], epsilon: f64) -> Vec<[f64; 2]> {
    let hull = hull(u.iter().zip(v).flat_map(|(u, v)| [[*u, *v], [-*u, -*v]]).collect());
    let corner = |(i, p): (usize, &[f64; 2])| {
        let q = hull[(i + 1) % hull.len()];
        let determinant = p[0] * q[1] - p[1] * q[0];
        [epsilon * (q[1] - p[1]) / determinant, epsilon * (p[0] - q[0]) / determinant]
    };
    hull.iter().enumerate().map(corner).collect()
}

/// Corners of a polygon within `{(a, b): ‖a·u + b·v‖₂ ≤ ε}`, an ellipse, as `u` and `v` are orthogonal; counter-clockwise.
fn ellipse(u: &[f64], v: &[f64], epsilon: f64) -> Vec<[f64; 2]> {
    let [right, up] = [u, v].map(|axis| epsilon / dot(axis, axis).sqrt());
    let angle = |corner: usize| std::f64::consts::TAU * corner as f64 / CORNERS as f64;
    (0..CORNERS).map(|corner| [right * angle(corner).cos(), up * angle(corner).sin()]).collect()
}

/// Corners of the convex hull, counter-clockwise (Andrew's monotone chain).
fn hull(mut points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    points.sort_by(|p, q| p[0].total_cmp(&q[0]).then(p[1].total_cmp(&q[1])));
    let turn = |o: [f64; 2], p: [f64; 2], q: [f64; 2]| (p[0] - o[0]) * (q[1] - o[1]) - (p[1] - o[1]) * (q[0] - o[0]);
    let chain = |points: &mut dyn Iterator<Item = [f64; 2]>| {
        let mut chain: Vec<[f64; 2]> = Vec::new();
        for point in points {
            while let [.., o, p] = chain[..]
                && turn(o, p, point) <= 1e-12
            {
                chain.pop();
            }
            chain.push(point);
        }
        chain.pop();
        chain
    };
    let mut corners = chain(&mut points.iter().copied());
    corners.extend(chain(&mut points.iter().rev().copied()));
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(n: u32, sample: u32) -> Vec<f64> {
        let stream = Stream::new(4, Purpose::Test, 0, sample);
        (0..n).map(|i| f64::from(stream.normal(i))).collect()
    }

    #[test]
    fn axes_are_orthogonal_and_in_pixel_units() {
        let [u, v] = plane(&scaled(random(50, 0)), &scaled(random(50, 1))).unwrap();
        let dot: f64 = u.iter().zip(&v).map(|(a, b)| a * b).sum();
        assert!(dot.abs() < 1e-12, "{dot}");
        for axis in [&u, &v] {
            assert_eq!(axis.iter().fold(0.0, |m: f64, v| m.max(v.abs())), 1.0);
        }
        let minus: Vec<f64> = u.iter().map(|v| -3.0 * v).collect();
        assert!(plane(&u, &minus).is_none());
    }

    /// Points of a fine grid are inside the polygon exactly where no value changes by more than epsilon.
    #[test]
    fn the_section_of_the_ball_is_the_set_of_points_within_epsilon() {
        for sample in 0..10 {
            let n = [2, 3, 64, 500][sample as usize % 4];
            let [u, v] = plane(&scaled(random(n, 10 + sample)), &scaled(random(n, 30 + sample))).unwrap();
            let epsilon = 8.0 / 255.0;
            let corners = section(&u, &v, epsilon);
            assert!(corners.len() >= 4 && corners.len().is_multiple_of(2), "{corners:?}");
            let mut inside = 0;
            for i in 0..120 {
                for j in 0..120 {
                    let [a, b] = [i, j].map(|k| 3.0 * epsilon * (f64::from(k) / 59.7 - 1.0));
                    let change = u.iter().zip(&v).map(|(u, v)| (a * u + b * v).abs()).fold(0.0, f64::max);
                    let margin = corners.iter().enumerate().map(|(i, p)| {
                        let q = corners[(i + 1) % corners.len()];
                        (q[0] - p[0]) * (b - p[1]) - (q[1] - p[1]) * (a - p[0])
                    });
                    let within = margin.fold(f64::INFINITY, f64::min) >= 0.0;
                    if (change - epsilon).abs() > 1e-9 {
                        assert_eq!(within, change < epsilon, "{sample}: ({a}, {b}) changes {change}");
                    }
                    inside += usize::from(within);
                }
            }
            assert!(inside > 50, "{inside}");
            for [a, b] in corners {
                let change = u.iter().zip(&v).map(|(u, v)| (a * u + b * v).abs()).fold(0.0, f64::max);
                assert!((change - epsilon).abs() < 1e-9, "a corner changes {change}");
            }
        }
    }

    #[test]
    fn the_section_of_an_l2_ball_is_an_ellipse() {
        let [u, v] = plane(&scaled(random(30, 5)), &scaled(random(30, 6))).unwrap();
        for [a, b] in ellipse(&u, &v, 0.5) {
            let length = u.iter().zip(&v).map(|(u, v)| (a * u + b * v).powi(2)).sum::<f64>().sqrt();
            assert!((length - 0.5).abs() < 1e-12, "{length}");
        }
    }

    #[test]
    fn a_ball_of_no_radius_is_a_point() {
        assert!(section(&[1.0, 0.0], &[0.0, 1.0], 0.0).iter().flatten().all(|c| *c == 0.0));
    }
}
