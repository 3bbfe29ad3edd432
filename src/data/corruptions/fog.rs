//! Fog: a plasma fractal over the image.

use super::picture::{Picture, Plane};
use super::{Draws, Severity};

/// `(x + c p) m / (m + c)`, with the fractal `p` and the largest value `m` of the image. A black image stays black.
pub(super) fn fog(mut picture: Picture, severity: Severity, draws: &Draws) -> Vec<u8> {
    let (c, decay) = severity.of([(0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)]);
    let side = picture.height().max(picture.width()).next_power_of_two();
    let plasma = plasma(side, decay, draws);
    let largest = picture.planes.iter().map(Plane::max).fold(0.0, f64::max);
    for plane in &mut picture.planes {
        for y in 0..plane.height {
            for x in 0..plane.width {
                let value = &mut plane.values[y * plane.width + x];
                *value = (*value + c * plasma.at(y, x)) * largest / (largest + c);
            }
        }
    }
    picture.truncated()
}

/// A height map by the diamond-square algorithm on a torus of `side` (a power of two) pixels, from 0 to 1.
///
/// A new point is the mean of its four neighbours plus `w U(−w, w)`, where `w` is 100 at first and is divided by
/// `decay` for every halving of the distance. Part `3 k` has the numbers of the squares of level `k`, parts `3 k + 1`
/// and `3 k + 2` those of its diamonds.
pub(super) fn plasma(side: usize, decay: f64, draws: &Draws) -> Plane {
    let mut map = Plane { height: side, width: side, values: vec![0.0; side * side] };
    let (mut step, mut wobble, mut part) = (side, 100.0, 0);
    while step >= 2 {
        let half = step / 2;
        let neighbours = [[0, 0], [0, step], [step, 0], [step, step]];
        fill(
            &mut map,
            step,
            [half, half],
            neighbours.map(|[y, x]| [y + side - half, x + side - half]),
            wobble,
            draws,
            part,
        );
        for (i, start) in [[0, half], [half, 0]].into_iter().enumerate() {
            let around = [[side - half, 0], [half, 0], [0, side - half], [0, half]];
            fill(&mut map, step, start, around, wobble, draws, part + 1 + i as u32);
        }
        (step, wobble, part) = (half, wobble / decay, part + 3);
    }
    let (low, high) = map.values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let range = high - low;
    map.map(|v| if range > 0.0 { (v - low) / range } else { 0.0 })
}

/// Sets the points at `start` and every `step` pixels from there. `neighbours` are offsets modulo the side.
fn fill(
    map: &mut Plane,
    step: usize,
    start: [usize; 2],
    neighbours: [[usize; 2]; 4],
    wobble: f64,
    draws: &Draws,
    part: u32,
) {
    let (side, stream) = (map.width, draws.part(part));
    let mut index = 0;
    for y in (start[0]..side).step_by(step) {
        for x in (start[1]..side).step_by(step) {
            let sum: f64 = neighbours.iter().map(|[dy, dx]| map.at((y + dy) % side, (x + dx) % side)).sum();
            map.values[y * side + x] = sum / 4.0 + wobble * (wobble * f64::from(stream.symmetric(index)));
            index += 1;
        }
    }
}
