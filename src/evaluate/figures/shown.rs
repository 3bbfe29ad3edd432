//! Which classes a figure shows if there are too many for all of them.

use super::Context;
use crate::fairness::DENSE_CLASSES;

/// Number of classes that a figure shows of more than [`DENSE_CLASSES`]: each still has its name.
pub(super) const MOST_SHOWN: usize = 40;

/// Least height of a row whose class has its name, and least width of a column.
pub(super) const NAMED_PITCH: f64 = 10.5;

/// The classes that a figure shows: all, or some of them.
pub(super) struct Shown {
    /// Their indices, in the order of the figure.
    pub(super) classes: Vec<usize>,
    all: usize,
}

impl Shown {
    /// All of `all` classes in their order; of more than [`DENSE_CLASSES`] the [`MOST_SHOWN`] with the highest score, highest
    /// first. Scores that are not numbers are lowest.
    pub(super) fn highest(all: usize, score: impl Fn(usize) -> f64) -> Self {
        let mut classes: Vec<usize> = (0..all).collect();
        if all > DENSE_CLASSES {
            let score =
                |class: &usize| Some(score(*class)).filter(|score| !score.is_nan()).unwrap_or(f64::NEG_INFINITY);
            classes.sort_by(|a, b| score(b).total_cmp(&score(a)));
            classes.truncate(MOST_SHOWN);
        }
        Self { classes, all }
    }

    /// All of `all` classes; of more than [`DENSE_CLASSES`] up to [`MOST_SHOWN`] that are in the first of these pairs, in
    /// their order.
    pub(super) fn in_pairs(all: usize, pairs: impl Iterator<Item = (usize, usize)>) -> Self {
        if all <= DENSE_CLASSES {
            return Self { classes: (0..all).collect(), all };
        }
        let mut classes = std::collections::BTreeSet::new();
        for (a, b) in pairs {
            let new = [a, b].iter().filter(|class| !classes.contains(*class)).count();
            if classes.len() + new <= MOST_SHOWN {
                classes.extend([a, b]);
            }
            if classes.len() == MOST_SHOWN {
                break;
            }
        }
        // Without any pair there is nothing to choose by.
        let classes = if classes.is_empty() { (0..MOST_SHOWN).collect() } else { classes.into_iter().collect() };
        Self { classes, all }
    }

    /// The number of classes shown.
    pub(super) fn len(&self) -> usize {
        self.classes.len()
    }

    /// Their names.
    pub(super) fn names(&self, context: &Context) -> Vec<String> {
        self.classes.iter().map(|class| context.label(*class)).collect()
    }

    /// A note below the heading if classes are left out: `Shown: the 40 of 1000 classes WITH`.
    pub(super) fn note(&self, with: &str) -> Option<String> {
        let shown = self.len();
        (shown < self.all).then(|| format!("Shown: the {shown} of {} classes {with}", self.all))
    }
}

/// Of `classes`, at most [`DENSE_CLASSES`] at even distances, for the faint lines of a figure with a line for each class.
pub(super) fn faint(classes: Vec<usize>) -> Vec<usize> {
    let step = classes.len().div_ceil(DENSE_CLASSES).max(1);
    classes.into_iter().step_by(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_classes_are_all_shown_and_many_by_their_score() {
        for all in [2, DENSE_CLASSES] {
            let shown = Shown::highest(all, |class| class as f64);
            assert_eq!((shown.classes.clone(), shown.note("x")), ((0..all).collect(), None));
            assert_eq!(Shown::in_pairs(all, [(1, 0)].into_iter()).len(), all);
        }
        let shown = Shown::highest(1000, |class| if class % 2 == 0 { class as f64 } else { f64::NAN });
        assert_eq!((shown.classes[..2].to_vec(), shown.len()), (vec![998, 996], MOST_SHOWN));
        assert_eq!(shown.note("with an even number").unwrap(), "Shown: the 40 of 1000 classes with an even number");
        let shown = Shown::in_pairs(1000, (0..1000).rev().map(|class| (class, (class + 500) % 1000)));
        assert_eq!((shown.len(), shown.classes[0], shown.classes[39]), (MOST_SHOWN, 480, 999));
        assert_eq!(Shown::in_pairs(1000, std::iter::empty()).len(), MOST_SHOWN);
        assert_eq!(faint((0..1000).collect()).len(), 125);
    }
}
