//! Validation scores of a run are comparable only if they were measured under the same setting.
//!
//! Epsilon, norm and the evaluation attack can change during a run. An accuracy under ε 2/255 cannot be compared with
//! one under ε 16/255, so "the best epoch", curves and failure signatures restart at such a change.

use serde::{Deserialize, Serialize};

use super::evaluation_attack;
use crate::attack::Attack;
use crate::config::Experiment;

/// Precedes the recalibration in the text of a [`ValidationSetting`].
const RECALIBRATED: &str = ", batch norm recalibrated";

/// Precedes the number of batches. Earlier versions omitted it.
const UP_TO: &str = "up to ";

/// The setting of a validation score. Two scores are comparable only if their settings are equal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValidationSetting {
    /// The attack.
    pub attack: Attack,
    /// Training batches on which batch norm was recalibrated before the evaluation, at most those of one epoch; 0 for
    /// no recalibration.
    #[serde(default)]
    pub recalibrate_bn: u32,
}

impl ValidationSetting {
    /// The setting of an experiment's evaluation after each epoch.
    pub fn of(experiment: &Experiment) -> Self {
        let evaluation = &experiment.evaluation;
        let attack = evaluation_attack(experiment, evaluation.eval_steps);
        Self { attack, recalibrate_bn: evaluation.recalibrate_bn }
    }
}

/// The attack in one line, with the recalibration of batch norm if any: the column `val_attack`.
impl std::fmt::Display for ValidationSetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.attack)?;
        match self.recalibrate_bn {
            0 => Ok(()),
            1 => write!(f, "{RECALIBRATED} on 1 batch"),
            // An epoch may have fewer batches.
            n => write!(f, "{RECALIBRATED} on {UP_TO}{n} batches"),
        }
    }
}

/// A change of the setting between two epochs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidationChange {
    /// Index of the first epoch under the new setting.
    pub epoch: u32,
    /// The old setting, as in the column `val_attack`.
    pub old: String,
    /// The new one.
    pub new: String,
}

impl ValidationChange {
    /// The differences in short, such as `validation: ε 2/255 → 16/255`.
    pub fn label(&self) -> String {
        let ((old, old_batches), (new, new_batches)) = (parts(&self.old), parts(&self.new));
        let (old, new): (Vec<&str>, Vec<&str>) = (old.split(", ").collect(), new.split(", ").collect());
        let mut changes = Vec::new();
        for i in 0..old.len().max(new.len()) {
            match (old.get(i), new.get(i)) {
                (Some(old), Some(new)) if old == new => {}
                (Some(old), Some(new)) => {
                    // "ε 2/255" and "ε 16/255" share their first word.
                    let shared = old.split_once(' ').and_then(|(word, _)| new.strip_prefix(word)?.strip_prefix(' '));
                    changes.push(format!("{old} → {}", shared.unwrap_or(new)));
                }
                (Some(old), None) => changes.push(format!("no longer {old}")),
                (None, Some(new)) => changes.push((*new).to_owned()),
                (None, None) => {}
            }
        }
        match (old_batches, new_batches) {
            (old, new) if same_batches(old, new) => {}
            (_, None) => changes.push("batch norm no longer recalibrated".to_owned()),
            (None, Some(new)) => changes.push(format!("batch norm recalibrated on {new}")),
            (Some(old), Some(new)) => {
                // "up to 40 batches" and "up to 20 batches" share all but the number.
                let (old, new) = match (old.strip_suffix(" batches"), new.strip_prefix(UP_TO)) {
                    (Some(old), Some(new)) if old.starts_with(UP_TO) => (old, new),
                    _ => (old, new),
                };
                changes.push(format!("batch norm recalibrated on {old} → {new}"));
            }
        }
        format!("validation: {}", changes.join(", "))
    }

    /// Whether clean accuracies are not comparable either, because batch norm was recalibrated differently.
    pub fn concerns_clean(&self) -> bool {
        !same_batches(parts(&self.old).1, parts(&self.new).1)
    }
}

/// The attack of a setting, and the batches on which batch norm was recalibrated: `up to 40 batches`. `None` if it was
/// not.
fn parts(setting: &str) -> (&str, Option<&str>) {
    match setting.split_once(RECALIBRATED) {
        Some((attack, on)) => (attack, Some(on.strip_prefix(" on ").unwrap_or(on))),
        None => (setting, None),
    }
}

/// Whether two recalibrations are the same. Earlier versions wrote "40 batches" for "up to 40 batches".
fn same_batches(a: Option<&str>, b: Option<&str>) -> bool {
    let number = |on: Option<&str>| on.map(|on| on.strip_prefix(UP_TO).unwrap_or(on).to_owned());
    number(a) == number(b)
}

fn same_setting(a: &str, b: &str) -> bool {
    let ((a, a_batches), (b, b_batches)) = (parts(a), parts(b));
    a == b && same_batches(a_batches, b_batches)
}

/// Every change during a run, from the epochs in order and their `val_attack`. An epoch without a recorded setting
/// (empty, from an earlier version) counts as measured under the one before it.
pub fn validation_changes<'a>(epochs: impl IntoIterator<Item = (u32, &'a str)>) -> Vec<ValidationChange> {
    let mut known: Option<&str> = None;
    let mut changes = Vec::new();
    for (epoch, setting) in epochs.into_iter().filter(|(_, setting)| !setting.is_empty()) {
        if let Some(old) = known.filter(|old| !same_setting(old, setting)) {
            changes.push(ValidationChange { epoch, old: old.to_owned(), new: setting.to_owned() });
        }
        known = Some(setting);
    }
    changes
}

/// `rows` split where one of `changes` lies between two of them: each part may be drawn as one line.
pub fn uninterrupted<'a, T>(
    rows: &'a [T],
    changes: &'a [ValidationChange],
    epoch: impl Fn(&T) -> u32 + 'a,
) -> impl Iterator<Item = &'a [T]> {
    rows.chunk_by(move |a, b| {
        let (before, after) = (epoch(a), epoch(b));
        !changes.iter().any(|change| before < change.epoch && change.epoch <= after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Norm;
    use crate::units::Epsilon;

    fn setting(change: impl Fn(&mut Experiment)) -> String {
        let mut experiment = Experiment::default();
        change(&mut experiment);
        ValidationSetting::of(&experiment).to_string()
    }

    #[test]
    fn a_label_says_what_differs_and_no_more() {
        let plain = setting(|_| {});
        let label = |old: &str, new: &str| ValidationChange { epoch: 1, old: old.into(), new: new.into() }.label();
        let wide = setting(|e| e.evaluation.eval_epsilon = Some(Epsilon::levels(16.0)));
        assert_eq!(label(&plain, &wide), "validation: ε 8/255 → 16/255, step 2/255 → 4/255");
        let several = setting(|e| {
            e.evaluation.eval_steps = 50;
            e.attack.norm = Norm::L2;
            e.evaluation.eval_step_size = Some(Epsilon::levels(1.0));
        });
        assert_eq!(label(&plain, &several), "validation: PGD-10 → PGD-50, L∞ → L2, step 2/255 → 1/255");
        let recalibrated = setting(|e| e.evaluation.recalibrate_bn = 8);
        assert_eq!(label(&plain, &recalibrated), "validation: batch norm recalibrated on up to 8 batches");
        assert_eq!(label(&recalibrated, &plain), "validation: batch norm no longer recalibrated");
        let [one, more] = [1, 20].map(|n| setting(|e| e.evaluation.recalibrate_bn = n));
        assert_eq!(label(&recalibrated, &more), "validation: batch norm recalibrated on up to 8 → 20 batches");
        assert_eq!(label(&one, &more), "validation: batch norm recalibrated on 1 batch → up to 20 batches");
        assert_eq!(label(&more, &one), "validation: batch norm recalibrated on up to 20 batches → 1 batch");
        let both = setting(|e| (e.evaluation.recalibrate_bn, e.evaluation.eval_steps) = (20, 50));
        assert_eq!(
            label(&recalibrated, &both),
            "validation: PGD-10 → PGD-50, batch norm recalibrated on up to 8 → 20 batches"
        );
        let clean = |new: &str| ValidationChange { epoch: 1, old: plain.clone(), new: new.into() }.concerns_clean();
        assert!(clean(&recalibrated) && !clean(&wide));
    }

    #[test]
    fn what_changes_no_number_changes_no_setting() {
        let plain = setting(|_| {});
        assert_eq!(setting(|e| e.evaluation.eval_batch_size = 7), plain);
        assert_eq!(setting(|e| e.evaluation.test_steps = 100), plain);
        // The training attack's radius is used if the evaluation has none of its own.
        assert_ne!(setting(|e| e.attack.epsilon = Epsilon::levels(2.0)), plain);
        let own = |epsilon| {
            setting(|e| {
                e.evaluation.eval_epsilon = Some(Epsilon::levels(8.0));
                e.attack.epsilon = Epsilon::levels(epsilon);
            })
        };
        assert_eq!(own(2.0), own(4.0));
    }

    #[test]
    fn changes_are_found_over_epochs_that_do_not_tell() {
        let found = validation_changes([(0, ""), (1, "a"), (2, ""), (3, "a"), (4, "b"), (5, "b"), (7, "a")]);
        let found: Vec<(u32, &str, &str)> = found.iter().map(|c| (c.epoch, &*c.old, &*c.new)).collect();
        assert_eq!(found, [(4, "a", "b"), (7, "b", "a")]);
        assert!(validation_changes([(0, ""), (1, "")]).is_empty());
        // The same setting, written by an earlier version and by this one.
        let [old, new] = ["40 batches", "up to 40 batches"].map(|on| format!("PGD-10{RECALIBRATED} on {on}"));
        assert!(validation_changes([(0, old.as_str()), (1, new.as_str())]).is_empty());
        let fewer = format!("PGD-10{RECALIBRATED} on up to 20 batches");
        assert_eq!(validation_changes([(0, old.as_str()), (1, fewer.as_str())]).len(), 1);
        assert!(validation_changes([]).is_empty());
    }
}
