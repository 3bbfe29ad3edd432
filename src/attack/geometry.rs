//! Balls, boxes and hyperplanes: the projections of attacks. An image is a slice of values in `[0, 1]`.

use crate::engine::Norm;

/// `‖a - b‖` in L∞ or L2.
pub(super) fn distance(norm: Norm, a: &[f32], b: &[f32]) -> f32 {
    let differences = a.iter().zip(b).map(|(a, b)| a - b);
    match norm {
        Norm::Linf => differences.fold(0.0, |most, d| most.max(d.abs())),
        Norm::L2 => differences.map(|d| f64::from(d) * f64::from(d)).sum::<f64>().sqrt() as f32,
    }
}

/// `‖v‖` in L∞ or L2.
pub(super) fn length(norm: Norm, v: &[f32]) -> f32 {
    match norm {
        Norm::Linf => v.iter().fold(0.0, |most, v| most.max(v.abs())),
        Norm::L2 => v.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt() as f32,
    }
}

/// Clips every value to `[0, 1]`.
pub(super) fn clip(x: &mut [f32]) {
    x.iter_mut().for_each(|x| *x = x.clamp(0.0, 1.0));
}

/// Moves `x` into the ball around `clean`, then into the box. For L2 the ball comes first and the box second, once each;
/// the result is still in the ball, because `clean` is in the box.
pub(super) fn project(norm: Norm, epsilon: f32, clean: &[f32], x: &mut [f32]) {
    match norm {
        Norm::Linf => {
            for (x, c) in x.iter_mut().zip(clean) {
                *x = x.max(c - epsilon).min(c + epsilon).clamp(0.0, 1.0);
            }
        }
        Norm::L2 => {
            let far = distance(norm, x, clean);
            let factor = far.min(epsilon) / (far + 1e-12);
            for (x, c) in x.iter_mut().zip(clean) {
                *x = (c + (*x - c) * factor).clamp(0.0, 1.0);
            }
        }
    }
}

/// The shortest change `δ` in the given norm that takes `t` onto the hyperplane `w · v = b` without leaving the box
/// `[0, 1]`; if the box does not reach the hyperplane, the change that comes closest to it. (Croce and Hein 2020:
/// "Minimally distorted adversarial examples with a fast adaptive boundary attack", eqs. 4 and 5, solved by sorting.)
///
/// In L∞ each value moves by `min(λ, r_i)` against the sign of `w_i`, where `r_i` is its distance to the box's edge; in
/// L2 by `w_i · min(λ, r_i / |w_i|)`.
pub(super) fn project_onto_hyperplane(norm: Norm, t: &[f32], w: &[f32], b: f64) -> Vec<f32> {
    let offset = t.iter().zip(w).map(|(t, w)| f64::from(*t) * f64::from(*w)).sum::<f64>() - b;
    let side = if offset < 0.0 { -1.0 } else { 1.0 };
    let wanted = offset.abs();
    // For each value that can move: the λ at which it meets the edge, and what it contributes for each unit of λ.
    let smallest = if norm == Norm::L2 { 1e-8 } else { 0.0 };
    let part = |t: f32, w: f32| {
        let w = side * f64::from(w);
        let room = if w > 0.0 { f64::from(t) } else { 1.0 - f64::from(t) };
        match norm {
            Norm::Linf => (room, w.abs()),
            Norm::L2 => (room / w.abs(), w * w),
        }
    };
    let moves = |w: f32| f64::from(w.abs()) > smallest;
    let mut parts: Vec<(f64, f64)> = t.iter().zip(w).filter(|(_, w)| moves(**w)).map(|(t, w)| part(*t, *w)).collect();
    parts.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // Below the first edge the sum grows by the slope of all; each edge removes one of them.
    let mut slope: f64 = parts.iter().map(|part| part.1).sum();
    let (mut reached, mut last, mut lambda) = (0.0, 0.0, f64::INFINITY);
    for (edge, own) in &parts {
        let next = reached + slope * (edge - last);
        if next >= wanted && slope > 0.0 {
            lambda = last + (wanted - reached) / slope;
            break;
        }
        (reached, last, slope) = (next, *edge, slope - own);
    }
    let change = |(t, w): (&f32, &f32)| {
        if !moves(*w) {
            return 0.0;
        }
        let (edge, _) = part(*t, *w);
        let moved = lambda.min(edge).max(0.0);
        let signed = side * f64::from(*w);
        (match norm {
            Norm::Linf => -signed.signum() * moved,
            Norm::L2 => -signed * moved,
        }) as f32
    };
    t.iter().zip(w).map(change).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    #[test]
    fn projections_by_hand() {
        // One value may move by 0.5 and is at the edge by 0.2: the rest is the other's.
        for norm in [Norm::Linf, Norm::L2] {
            let found = project_onto_hyperplane(norm, &[0.2, 0.9], &[1.0, 1.0], 0.5);
            assert!((found[0] + 0.2).abs() < 1e-6 && (found[1] + 0.4).abs() < 1e-6, "{norm:?} {found:?}");
            // Out of reach: every value at its edge.
            assert_eq!(project_onto_hyperplane(norm, &[0.25, 0.5], &[1.0, -1.0], -5.0), [-0.25, 0.5]);
            assert_eq!(project_onto_hyperplane(norm, &[0.25, 0.5], &[0.0, 0.0], 1.0), [0.0, 0.0]);
            assert_eq!(project_onto_hyperplane(norm, &[0.25, 0.5], &[1.0, 1.0], 0.75), [0.0, 0.0]);
        }
        let found = project_onto_hyperplane(Norm::L2, &[0.5, 0.5], &[3.0, 4.0], 2.5);
        assert!((found[0] + 0.12).abs() < 1e-6 && (found[1] + 0.16).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn balls_and_boxes() {
        let mut x = [0.9, -0.3, 0.5];
        project(Norm::Linf, 0.25, &[0.5, 0.1, 0.5], &mut x);
        assert_eq!(x, [0.75, 0.0, 0.5]);
        let mut x = [0.5 + 0.3, 0.5 + 0.4];
        project(Norm::L2, 0.25, &[0.5, 0.5], &mut x);
        assert!((x[0] - 0.65).abs() < 1e-6 && (x[1] - 0.7).abs() < 1e-6, "{x:?}");
    }

    proptest! {
        /// The change stays in the box, reaches the plane if the box does, and no random change of the same kind that
        /// also reaches it is shorter.
        #[test]
        fn projections_are_feasible_and_shortest(
            t in prop::collection::vec(0.0f32..=1.0, 1..20),
            seed in prop::collection::vec(-1.0f32..=1.0, 20),
            other in prop::collection::vec(0.0f32..=1.0, 20),
            b in -3.0f64..3.0,
        ) {
            let w: Vec<f32> = seed[..t.len()].iter().map(|w| if w.abs() < 0.2 { 0.0 } else { *w }).collect();
            for norm in [Norm::Linf, Norm::L2] {
                let change = project_onto_hyperplane(norm, &t, &w, b);
                let moved: Vec<f32> = t.iter().zip(&change).map(|(t, d)| t + d).collect();
                prop_assert!(moved.iter().all(|x| (-1e-6..=1.0 + 1e-6).contains(x)));
                let before = dot(&w, &t) - b;
                let after = dot(&w, &moved) - b;
                // The extreme value of w · v in the box, on the plane's side.
                let corner: Vec<f32> = w.iter().map(|w| f32::from((before > 0.0) != (*w > 0.0))).collect();
                let furthest = dot(&w, &corner) - b;
                let reachable = before == 0.0 || (furthest > 0.0) != (before > 0.0);
                if reachable {
                    prop_assert!(after.abs() < 1e-5, "{norm:?}: {after}");
                    let candidate = &other[..t.len()];
                    let across = dot(&w, candidate) - b;
                    if (across > 0.0) != (before > 0.0) {
                        // The segment from t to the candidate crosses the plane, inside the box.
                        let share = (before / (before - across)) as f32;
                        let rival: Vec<f32> = t.iter().zip(candidate).map(|(t, c)| share * (c - t)).collect();
                        prop_assert!(length(norm, &change) <= length(norm, &rival) + 1e-5);
                    }
                } else {
                    prop_assert!((after - furthest).abs() < 1e-5);
                }
            }
        }
    }
}
