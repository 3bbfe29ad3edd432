//! Examples of finished epochs, kept in memory as bytes while the window watches a run.
//!
//! An image before the attack is rounded to bytes. Its change is stored in 255 steps from minus to plus its largest absolute
//! value, because a radius is only a few bytes wide. Probabilities are stored as they are.

use std::sync::Arc;

use crate::config::AttackConfig;
use crate::worker::Examples;

/// Largest number of bytes that the examples of all epochs take.
const LIMIT: usize = 64 << 20;
/// A set takes at most this share of it; further images of the set are not kept.
const SHARE: usize = 16;

/// The examples of an epoch.
#[derive(Debug)]
pub struct PastSet {
    /// The training attack of the epoch.
    pub attack: AttackConfig,
    /// Number of images that were shown at the end of the epoch, of which the first ones are kept.
    pub of: usize,
    /// Everything but the images.
    rest: Examples,
    clean: Vec<u8>,
    change: Vec<i8>,
    /// The largest absolute change of each image.
    largest: Vec<f32>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct PastExamples {
    /// In the order of epochs.
    sets: Vec<Arc<PastSet>>,
    /// Epochs whose examples were dropped for lack of room.
    dropped: Vec<u32>,
    limit: usize,
}

impl Default for PastExamples {
    fn default() -> Self {
        Self { sets: Vec::new(), dropped: Vec::new(), limit: LIMIT }
    }
}

/// The first `count` rows of `length` values.
fn first<T: Clone>(values: &[T], count: usize, length: usize) -> Vec<T> {
    values[..(count * length).min(values.len())].to_vec()
}

impl PastSet {
    fn new(shown: &Examples, attack: &AttackConfig, most_bytes: usize) -> Self {
        let (of, length) = (shown.labels.len(), shown.shape.len());
        let classes = shown.probabilities.len() / of.max(1);
        let each = 2 * length + 8 * classes + 20;
        let count = (most_bytes / each.max(1)).clamp(1, of.max(1)).min(of);
        let clean = first(&shown.clean, count, length);
        let adversarial = first(&shown.adversarial, count, length);
        let differences: Vec<f32> = adversarial.iter().zip(&clean).map(|(after, before)| after - before).collect();
        let rows = differences.chunks(length.max(1));
        let largest: Vec<f32> = rows.map(|row| row.iter().fold(0.0, |most: f32, v| most.max(v.abs()))).collect();
        let step = |(i, v): (usize, &f32)| {
            let largest = largest[i / length.max(1)];
            // The cast saturates and maps NaN to 0.
            if largest > 0.0 { (127.0 * v / largest).round() as i8 } else { 0 }
        };
        let change = differences.iter().enumerate().map(step).collect();
        let rest = Examples {
            epoch: shown.epoch,
            batch: shown.batch,
            step: shown.step,
            shape: shown.shape,
            ids: first(&shown.ids, count, 1),
            labels: first(&shown.labels, count, 1),
            targets: shown.targets.as_ref().map(|targets| first(targets, count, 1)),
            epsilon: first(&shown.epsilon, count, 1),
            clean: Vec::new(),
            adversarial: Vec::new(),
            clean_probabilities: first(&shown.clean_probabilities, count, classes),
            probabilities: first(&shown.probabilities, count, classes),
        };
        let clean = clean.iter().map(|v| (255.0 * v).round() as u8).collect();
        Self { attack: attack.clone(), of, rest, clean, change, largest }
    }

    fn epoch(&self) -> u32 {
        self.rest.epoch
    }

    /// Number of images.
    pub fn kept(&self) -> usize {
        self.rest.labels.len()
    }

    fn bytes(&self) -> usize {
        let rest = &self.rest;
        let words = rest.ids.len() + rest.labels.len() + rest.epsilon.len() + self.largest.len();
        let words = words + rest.targets.as_ref().map_or(0, Vec::len);
        let words = words + rest.clean_probabilities.len() + rest.probabilities.len();
        self.clean.len() + self.change.len() + 4 * words
    }

    /// The examples, with rounded images.
    pub fn examples(&self) -> Examples {
        let length = self.rest.shape.len().max(1);
        let clean: Vec<f32> = self.clean.iter().map(|v| f32::from(*v) / 255.0).collect();
        let moved = |(i, before): (usize, &f32)| before + f32::from(self.change[i]) / 127.0 * self.largest[i / length];
        let adversarial = clean.iter().enumerate().map(moved).collect();
        Examples { clean, adversarial, ..self.rest.clone() }
    }
}

impl PastExamples {
    /// Keeps the last examples of an epoch that has ended. If there is no room, every epoch but the first and the newest may
    /// be dropped: the one whose neighbours are closest to each other, of equal ones the oldest. So epochs become sparse
    /// evenly.
    pub fn keep(&mut self, shown: &Examples, attack: &AttackConfig) {
        self.sets.retain(|set| set.epoch() < shown.epoch);
        self.dropped.retain(|epoch| *epoch < shown.epoch);
        self.sets.push(Arc::new(PastSet::new(shown, attack, self.limit / SHARE)));
        while self.sets.len() > 1 && self.sets.iter().map(|set| set.bytes()).sum::<usize>() > self.limit {
            let between = |place: &usize| self.sets[place + 1].epoch() - self.sets[place - 1].epoch();
            let place = (1..self.sets.len() - 1).min_by_key(between).unwrap_or(0);
            self.dropped.push(self.sets.remove(place).epoch());
        }
    }

    /// The examples of an epoch.
    pub fn of(&self, epoch: u32) -> Option<&Arc<PastSet>> {
        self.sets.iter().find(|set| set.epoch() == epoch)
    }

    /// The epoch with examples that is nearest to `epoch`.
    pub fn nearest(&self, epoch: u32) -> Option<u32> {
        self.sets.iter().map(|set| set.epoch()).min_by_key(|kept| kept.abs_diff(epoch))
    }

    /// Whether the examples of an epoch were dropped for lack of room.
    pub fn was_dropped(&self, epoch: u32) -> bool {
        self.dropped.contains(&epoch)
    }

    /// Largest number of MiB that the examples of all epochs take.
    pub fn limit_mib(&self) -> usize {
        self.limit >> 20
    }
}

#[cfg(test)]
impl PastExamples {
    pub(in crate::app) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    fn epochs(&self) -> Vec<u32> {
        self.sets.iter().map(|set| set.epoch()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::sample;

    fn of_epoch(epoch: u32) -> Examples {
        Examples { epoch, ..sample::examples() }
    }

    #[test]
    fn images_return_rounded_and_all_else_as_it_was() {
        let (shown, attack) = (of_epoch(3), AttackConfig::default());
        let mut past = PastExamples::default();
        past.keep(&shown, &attack);
        let set = past.of(3).unwrap();
        let again = set.examples();
        let near =
            |a: &[f32], b: &[f32], by: f32| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by);
        assert!(near(&again.clean, &shown.clean, 0.5 / 255.0 + 1e-6));
        let change =
            |set: &Examples| -> Vec<f32> { set.adversarial.iter().zip(&set.clean).map(|(a, b)| a - b).collect() };
        // Half a step of the largest radius of the sample, 1.5 times 8/255.
        assert!(near(&change(&again), &change(&shown), 12.0 / 255.0 / 127.0 / 2.0 + 1e-6));
        let without = |set: &Examples| Examples { clean: Vec::new(), adversarial: Vec::new(), ..set.clone() };
        assert_eq!(without(&again), without(&shown));
        assert_eq!((set.of, past.of(2).is_none(), past.nearest(7)), (16, true, Some(3)));
        // An epoch that is trained again replaces what came after it.
        past.keep(&of_epoch(4), &attack);
        past.keep(&of_epoch(3), &attack);
        assert_eq!(past.epochs(), [3]);
    }

    #[test]
    fn epochs_become_sparse_within_the_limit() {
        let attack = AttackConfig::default();
        let each = PastSet::new(&of_epoch(0), &attack, usize::MAX).bytes();
        // Room for sixteen sets, each within its share.
        let mut past = PastExamples::with_limit(SHARE * (each + 400));
        for epoch in 0..40 {
            past.keep(&of_epoch(epoch), &attack);
            assert!(past.sets.iter().map(|set| set.bytes()).sum::<usize>() <= past.limit);
        }
        let kept = past.epochs();
        assert_eq!((kept.len(), kept[0], kept[kept.len() - 1]), (16, 0, 39));
        assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= 4), "{kept:?}");
        assert!(past.was_dropped(1) && past.of(1).is_none() && !past.was_dropped(39));
    }

    #[test]
    fn a_set_of_large_images_keeps_the_first_ones() {
        let attack = AttackConfig::default();
        let mut past = PastExamples::with_limit(SHARE * 5 * (2 * 3072 + 80 + 20));
        past.keep(&of_epoch(0), &attack);
        let set = past.of(0).unwrap();
        assert_eq!((set.examples().labels.len(), set.of), (5, 16));
        assert_eq!(set.examples().labels, of_epoch(0).labels[..5]);
        let mut past = PastExamples::with_limit(1);
        past.keep(&of_epoch(0), &attack);
        assert_eq!(past.of(0).unwrap().examples().ids, [0]);
    }
}
