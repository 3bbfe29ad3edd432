//! Names of points, placed so that they cover neither each other nor the points.
//!
//! Every name has a few dozen places around its point, near ones first. Each in turn takes the place of the lowest cost
//! (distance, and what it would cover), given where the others are, a few times over. A name that ends up away from its
//! point has a leader line.

/// Distances of a name from its point.
const DISTANCES: [f64; 9] = [6.0, 10.0, 15.0, 21.0, 28.0, 36.0, 46.0, 58.0, 72.0];
/// Directions, that to the upper right first.
const DIRECTIONS: usize = 16;
/// How often every name is placed again.
const ROUNDS: usize = 6;
/// Radius around a point that names should not cover.
const POINT: f64 = 4.0;
/// Names that are further away than this have a leader line.
const NEAR: f64 = 9.0;

/// A point whose name is placed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    /// The point.
    pub(super) at: (f64, f64),
    /// Size of the name.
    pub(super) size: (f64, f64),
}

/// A rectangle: left, top, right, bottom.
pub(super) type Area = [f64; 4];

/// A name in its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Placed {
    /// The rectangle of the name.
    pub(super) area: Area,
    /// Ends of a line from the point to the name, if it is not beside its point.
    pub(super) leader: Option<[(f64, f64); 2]>,
}

/// Places the names of all points within `inside`.
pub(super) fn place(anchors: &[Anchor], inside: Area) -> Vec<Placed> {
    let mut placed: Vec<Placed> = anchors.iter().map(|anchor| candidates(anchor, inside)[0]).collect();
    for _ in 0..ROUNDS {
        let before = placed.clone();
        for (own, anchor) in anchors.iter().enumerate() {
            let cost = |candidate: &Placed| cost(candidate, own, anchors, &placed);
            let best = candidates(anchor, inside).into_iter().map(|candidate| (cost(&candidate), candidate));
            if let Some((_, best)) = best.min_by(|a, b| a.0.total_cmp(&b.0)) {
                placed[own] = best;
            }
        }
        if placed == before {
            break;
        }
    }
    placed
}

/// The places of a name, the preferred one first. There is at least one.
fn candidates(anchor: &Anchor, [left, top, right, bottom]: Area) -> Vec<Placed> {
    let ((x, y), (width, height)) = (anchor.at, anchor.size);
    let mut all = Vec::with_capacity(DISTANCES.len() * DIRECTIONS);
    for distance in DISTANCES {
        for direction in 0..DIRECTIONS {
            let angle = std::f64::consts::TAU * (direction as f64 / DIRECTIONS as f64 + 1.0 / 16.0);
            let (dx, dy) = (angle.cos(), -angle.sin());
            // The point of the name that is nearest to its point lies in this direction.
            let (cx, cy) = (x + dx * (distance + width / 2.0), y + dy * (distance + height / 2.0));
            let (cx, cy) = (
                cx.clamp(left + width / 2.0, (right - width / 2.0).max(left + width / 2.0)),
                cy.clamp(top + height / 2.0, (bottom - height / 2.0).max(top + height / 2.0)),
            );
            let area = [cx - width / 2.0, cy - height / 2.0, cx + width / 2.0, cy + height / 2.0];
            let end = (x.clamp(area[0], area[2]), y.clamp(area[1], area[3]));
            let leader = (distance_of((x, y), end) > NEAR).then_some([(x, y), end]);
            all.push(Placed { area, leader });
        }
    }
    all
}

fn distance_of(a: (f64, f64), b: (f64, f64)) -> f64 {
    (a.0 - b.0).hypot(a.1 - b.1)
}

/// What is wrong with a place: its distance, and whatever would be covered or crossed.
fn cost(candidate: &Placed, own: usize, anchors: &[Anchor], placed: &[Placed]) -> f64 {
    let [left, top, right, bottom] = candidate.area;
    let at = anchors[own].at;
    let mut cost = distance_of(at, (at.0.clamp(left, right), at.1.clamp(top, bottom)));
    // Of places at the same distance, those above and on the right.
    cost += if (left + right) / 2.0 < at.0 { 0.4 } else { 0.0 } + if (top + bottom) / 2.0 > at.1 { 0.2 } else { 0.0 };
    for (other, anchor) in anchors.iter().enumerate() {
        let point = [anchor.at.0 - POINT, anchor.at.1 - POINT, anchor.at.0 + POINT, anchor.at.1 + POINT];
        cost += 200.0 * f64::from(u8::from(overlap(candidate.area, point)));
        if other == own {
            continue;
        }
        cost += 400.0 * f64::from(u8::from(overlap(candidate.area, placed[other].area)));
        cost += 120.0 * f64::from(u8::from(placed[other].leader.is_some_and(|line| crosses(line, candidate.area))));
        if let Some(line) = candidate.leader {
            cost += 120.0 * f64::from(u8::from(crosses(line, placed[other].area)));
            cost += 25.0 * f64::from(u8::from(crosses(line, point)));
            let met = placed[other].leader.is_some_and(|other| meet(line, other));
            cost += 25.0 * f64::from(u8::from(met));
        }
    }
    cost
}

fn overlap(a: Area, b: Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

/// Whether a line runs through the inside of a rectangle (Liang and Barsky).
fn crosses([from, to]: [(f64, f64); 2], [left, top, right, bottom]: Area) -> bool {
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let (mut enter, mut leave) = (0.0_f64, 1.0_f64);
    for (along, room) in [(-dx, from.0 - left), (dx, right - from.0), (-dy, from.1 - top), (dy, bottom - from.1)] {
        if along == 0.0 {
            if room <= 0.0 {
                return false;
            }
        } else if along < 0.0 {
            enter = enter.max(room / along);
        } else {
            leave = leave.min(room / along);
        }
    }
    enter < leave
}

/// Whether two lines cross.
fn meet([a, b]: [(f64, f64); 2], [c, d]: [(f64, f64); 2]) -> bool {
    let side = |p: (f64, f64), q: (f64, f64), r: (f64, f64)| (q.0 - p.0) * (r.1 - p.1) - (q.1 - p.1) * (r.0 - p.0);
    side(a, b, c) * side(a, b, d) < 0.0 && side(c, d, a) * side(c, d, b) < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    fn overlaps(placed: &[Placed]) -> usize {
        let pairs = (0..placed.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        pairs.filter(|(i, j)| overlap(placed[*i].area, placed[*j].area)).count()
    }

    #[test]
    fn a_single_name_stands_beside_its_point() {
        let anchor = Anchor { at: (100.0, 100.0), size: (30.0, 11.0) };
        let [placed] = place(&[anchor], [0.0, 0.0, 200.0, 200.0])[..] else { panic!() };
        assert!(placed.leader.is_none() && placed.area[0] > 100.0 && placed.area[1] < 100.0, "{placed:?}");
    }

    /// Points in clusters, as the classes of several arms are.
    #[test]
    fn crowded_names_do_not_cover_each_other_and_stay_inside() {
        let stream = Stream::new(1, Purpose::Test, 0, 0);
        for (groups, classes) in [(1, 10), (3, 10), (6, 10)] {
            let point = |i: u32| {
                let (group, class) = (i % groups, i / groups);
                let jitter = |k: u32| 9.0 * stream.normal(2 * i + k);
                let x = 80.0 + 42.0 * f64::from(class) + f64::from(jitter(0));
                let y = 60.0 + 20.0 * f64::from((class * 7) % 10) + 8.0 * f64::from(group) + f64::from(jitter(1));
                Anchor { at: (x, y), size: (24.0 + f64::from(class % 4) * 8.0, 11.0) }
            };
            let anchors: Vec<Anchor> = (0..groups * classes).map(point).collect();
            let inside = [20.0, 10.0, 600.0, 350.0];
            let placed = place(&anchors, inside);
            assert_eq!(overlaps(&placed), 0, "{groups} groups");
            for Placed { area, .. } in &placed {
                assert!(area[0] >= 20.0 && area[1] >= 10.0 && area[2] <= 600.0 && area[3] <= 350.0, "{area:?}");
            }
        }
    }

    /// All at one place: every name has its own, with a leader.
    #[test]
    fn names_of_equal_points_are_placed_apart() {
        let anchors = [Anchor { at: (300.0, 200.0), size: (40.0, 11.0) }; 10];
        let placed = place(&anchors, [0.0, 0.0, 600.0, 400.0]);
        assert_eq!(overlaps(&placed), 0);
        assert!(placed.iter().any(|placed| placed.leader.is_some()));
    }

    #[test]
    fn lines_and_rectangles() {
        let area = [0.0, 0.0, 10.0, 10.0];
        assert!(crosses([(-5.0, 5.0), (15.0, 5.0)], area) && crosses([(5.0, 5.0), (20.0, 20.0)], area));
        assert!(!crosses([(-5.0, 5.0), (-1.0, 5.0)], area) && !crosses([(-5.0, 11.0), (15.0, 11.0)], area));
        assert!(meet([(0.0, 0.0), (10.0, 10.0)], [(0.0, 10.0), (10.0, 0.0)]));
        assert!(!meet([(0.0, 0.0), (1.0, 1.0)], [(0.0, 10.0), (10.0, 0.0)]));
    }
}
