//! Selects the winner among the timed candidates.

use std::collections::BTreeSet;

use crate::engine::wgsl::tuning::Algorithm;

/// Another choice must take less than this fraction of the fixed choice's time.
pub(super) const GAIN: f64 = 0.95;

/// A candidate and its seconds.
pub(super) type Timed = (Algorithm, f64);

fn fastest(timed: impl Iterator<Item = Timed>) -> Option<Timed> {
    timed.min_by(|a, b| a.1.total_cmp(&b.1))
}

/// The fastest candidate, unless the fixed choice, which comes first, is nearly as fast.
pub(super) fn winner(timed: &[Timed]) -> Option<Timed> {
    let (first, best) = (timed.first().copied()?, fastest(timed.iter().copied())?);
    Some(if best.1 < GAIN * first.1 { best } else { first })
}

/// The winners of a forward pass and its input gradient. If they need two different transforms of the weights and gain
/// little over candidates that share one, the latter win.
pub(super) fn winners(forward: &[Timed], gradient: &[Timed]) -> Option<[Timed; 2]> {
    let best = [winner(forward)?, winner(gradient)?];
    let [Some(one), Some(other)] = best.map(|(algorithm, _)| algorithm.outputs()) else { return Some(best) };
    let sum = |pair: &[Timed; 2]| pair[0].1 + pair[1].1;
    let sharing = |outputs: usize| {
        let of = |timed: &[Timed]| {
            fastest(timed.iter().copied().filter(|(algorithm, _)| algorithm.outputs() == Some(outputs)))
        };
        Some([of(forward)?, of(gradient)?])
    };
    let shared = [one, other].into_iter().filter_map(sharing).min_by(|a, b| sum(a).total_cmp(&sum(b)));
    Some(shared.filter(|shared| one != other && GAIN * sum(shared) <= sum(&best)).unwrap_or(best))
}

/// The winners of the passes of a unit, in order: the fastest candidates that compute the same as the fixed choice.
/// `is_right` tells whether a candidate does so for the pass with this index; it returns `None` after the deadline. It
/// is called only for candidates that would win, and never for the fixed choice. Wrong candidates are removed from
/// `timed`. `None` if `is_right` returned `None`.
pub(super) fn settled<E>(
    timed: &mut [Vec<Timed>],
    mut is_right: impl FnMut(usize, Algorithm) -> Result<Option<bool>, E>,
) -> Result<Option<Vec<Timed>>, E> {
    let mut right: BTreeSet<(usize, Algorithm)> = BTreeSet::new();
    loop {
        let best: Vec<Timed> = match &timed[..] {
            [forward, gradient] => winners(forward, gradient).map(Vec::from).unwrap_or_default(),
            timed => timed.iter().filter_map(|timed| winner(timed)).collect(),
        };
        let is_fixed = |pass: usize, algorithm| timed[pass].first().is_some_and(|(fixed, _)| *fixed == algorithm);
        let unchecked = |(pass, (algorithm, _)): &(usize, Timed)| {
            !is_fixed(*pass, *algorithm) && !right.contains(&(*pass, *algorithm))
        };
        let Some((pass, (algorithm, _))) = best.iter().copied().enumerate().find(unchecked) else {
            return Ok(Some(best));
        };
        match is_right(pass, algorithm)? {
            None => return Ok(None),
            Some(true) => {
                right.insert((pass, algorithm));
            }
            Some(false) => timed[pass].retain(|(other, _)| *other != algorithm),
        }
    }
}
