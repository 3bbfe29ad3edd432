//! When a change of an experiment takes effect in a run in progress.

use serde_json::Value;

use super::Experiment;
use super::sections::entry;

/// When a changed field takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Applies {
    /// Before the next batch, or the next evaluation.
    Now,
    /// When the next epoch begins: the method adapts between epochs.
    NextEpoch,
    /// Only in a new run.
    Restart,
}

/// When a change of the field at `path`, such as `optimizer.lr`, takes effect; `None` if there is no such field.
pub fn applies(path: &str) -> Option<Applies> {
    entry(path).map(|entry| entry.row.applies)
}

/// One field in which two experiments differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Section and field, such as `optimizer.lr`.
    pub path: String,
    /// The value in the first; null if it is unset.
    pub old: Value,
    /// The value in the second.
    pub new: Value,
    /// When the change from the first to the second takes effect.
    pub applies: Applies,
}

impl Experiment {
    /// Every field in which `new` differs.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let (Value::Object(old), Value::Object(new)) = (tree(self), tree(new)) else { return Vec::new() };
        let mut differences = Vec::new();
        for (section, fields) in new {
            let Value::Object(fields) = fields else { continue };
            for (field, new) in fields {
                let old = old.get(&section).and_then(|section| section.get(&field)).cloned().unwrap_or_default();
                let path = format!("{section}.{field}");
                let applies = applies(&path).unwrap_or(Applies::Restart);
                if old != new {
                    differences.push(Difference { path, old, new, applies });
                }
            }
        }
        differences
    }

    /// This experiment with those fields of `other` whose changes take effect at one of `times`.
    pub fn with(&self, other: &Self, times: &[Applies]) -> Self {
        let mut merged = tree(self);
        for difference in self.differences(other).into_iter().filter(|d| times.contains(&d.applies)) {
            if let Some((section, field)) = difference.path.split_once('.') {
                merged[section][field] = difference.new;
            }
        }
        // Deserialising succeeds, because every value comes from one of the two experiments.
        serde_json::from_value(merged).unwrap_or_else(|_| self.clone())
    }
}

fn tree(experiment: &Experiment) -> Value {
    serde_json::to_value(experiment).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MethodChoice;

    #[test]
    fn every_field_has_an_answer_and_nothing_else_has() {
        let Value::Object(sections) = tree(&Experiment::default()) else { panic!("no table") };
        for (section, fields) in sections {
            for name in fields.as_object().unwrap().keys() {
                assert!(applies(&format!("{section}.{name}")).is_some(), "{section}.{name}");
            }
        }
        assert_eq!(applies("data.flip"), Some(Applies::Restart));
        assert_eq!(applies("attack.epsilon"), Some(Applies::NextEpoch));
        assert_eq!(applies("attack.steps"), Some(Applies::Now));
        for path in ["lr", "optimizer", "optimizer.", "fairness.lr", ""] {
            assert_eq!(applies(path), None, "{path}");
        }
    }

    #[test]
    fn only_fields_of_the_asked_time_are_taken_over() {
        let old = Experiment::default();
        let mut new = old.clone();
        new.optimizer.lr = 0.1 + 0.2;
        new.fairness.method = MethodChoice::At;
        new.fairness.epsilon_max = Some(crate::units::Epsilon::levels(12.5));
        new.run.seed = u64::MAX;
        let paths: Vec<String> = old.differences(&new).into_iter().map(|d| d.path).collect();
        let mut sorted = paths.clone();
        sorted.sort();
        assert_eq!(sorted, ["fairness.epsilon_max", "fairness.method", "optimizer.lr", "run.seed"]);
        let now = old.with(&new, &[Applies::Now]);
        assert_eq!((now.optimizer.lr, now.fairness.method, now.run.seed), (0.1 + 0.2, MethodChoice::FairTat, 0));
        let next = old.with(&new, &[Applies::Now, Applies::NextEpoch]);
        assert_eq!(next.fairness, new.fairness);
        assert_eq!(next.run, old.run);
        assert_eq!(old.with(&new, &[Applies::Now, Applies::NextEpoch, Applies::Restart]), new);
        assert!(old.differences(&old).is_empty());
    }
}
