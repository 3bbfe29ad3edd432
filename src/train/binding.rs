//! What binds a checkpoint to its run: the experiment and the images. A run that goes on with others is another run, so
//! every difference is named, and those that alter results are accepted by name only.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Checkpoint, Progress, Splits};
use crate::config::{Difference, Experiment, keeps_results};
use crate::data::Dataset;

/// Checksums of the images that a run is not trained on, and the names of its classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Images and labels of the validation split.
    pub validation: u32,
    /// Those of the test set.
    pub test: u32,
    /// The classes.
    pub class_names: Vec<String>,
}

impl HeldOut {
    pub(super) fn of(splits: &Splits) -> Self {
        let class_names = splits.train.class_names().to_vec();
        Self { validation: checksum(&splits.validation), test: checksum(&splits.test), class_names }
    }
}

/// A checksum of all images and labels of a set, in order.
pub(super) fn checksum(set: &Dataset) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(set.images());
    set.labels().iter().for_each(|label| crc.update(&label.to_le_bytes()));
    crc.sum()
}

/// How an experiment and its images differ from those of a checkpoint, in words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Differences {
    /// Those that alter the method or the data.
    pub(super) changes: Vec<String>,
    /// Those that do not, or that the log records, and what is not known.
    pub(super) notes: Vec<String>,
}

impl Differences {
    /// Compares `checkpoint` with what is to go on. `log` is the log of its run.
    pub(super) fn of(checkpoint: &Checkpoint, experiment: &Experiment, splits: &Splits, log: &Path) -> Self {
        let mut found = Self::default();
        let progress = &checkpoint.progress;
        match &checkpoint.experiment {
            None => found.notes.push(
                "the checkpoint was written by an earlier version: it records neither its experiment nor a checksum, so \
                 that neither a change of config.toml nor damage would be noticed"
                    .into(),
            ),
            Some(old) => {
                let logged = logged(log, progress);
                for difference in old.differences(experiment) {
                    let Difference { path, old: was, new: is, .. } = &difference;
                    let more_epochs = path == "optimizer.epochs" && is.as_u64() > was.as_u64();
                    let mut text = format!("{path} is {}, was {}", value(is), value(was));
                    if more_epochs && !same_rates(old, experiment) {
                        text += ": the schedule spans all epochs, so the learning rates of the remaining ones are computed \
                                 anew";
                    }
                    let harmless = more_epochs || keeps_results(path, [old, experiment]) || logged.get(path) == Some(is);
                    if harmless { &mut found.notes } else { &mut found.changes }.push(text);
                }
            }
        }
        let mut differ = |what: &str| found.changes.push(format!("the {what} are not those that the run began with"));
        if progress.images != checksum(&splits.train) {
            differ("training images");
        }
        let now = HeldOut::of(splits);
        if let Some(began) = &progress.held_out {
            if began.validation != now.validation {
                differ("validation images");
            }
            if began.test != now.test {
                differ("test images");
            }
            if began.class_names != now.class_names {
                differ("class names");
            }
        }
        found
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Null => "unset".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether both schedules give the same learning rates to the end of the shorter run.
fn same_rates(a: &Experiment, b: &Experiment) -> bool {
    let (a, b) = (&a.optimizer, &b.optimizer);
    // The number of batches is irrelevant to whether a schedule depends on the number of epochs.
    (0..a.epochs.min(b.epochs)).all(|epoch| a.lr_at(epoch, 0, 2) == b.lr_at(epoch, 0, 2))
}

/// The changes that the program itself made after it wrote the checkpoint with this progress, by path: a run that was
/// killed before its next checkpoint goes on with them.
fn logged(log: &Path, progress: &Progress) -> BTreeMap<String, Value> {
    let text = crate::files::read_to_string(log).unwrap_or_default();
    let mut changes = None;
    for line in text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        match (line["event"].as_str(), &mut changes) {
            (Some("checkpoint"), _) if line["epoch"] == progress.epoch && line["batch"] == progress.batch => {
                changes = Some(BTreeMap::new());
            }
            (Some("change"), Some(changes)) => {
                let fields = line["fields"].as_array().into_iter().flatten();
                changes
                    .extend(fields.filter_map(|field| Some((field["field"].as_str()?.into(), field["new"].clone()))));
            }
            _ => {}
        }
    }
    changes.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{MethodChoice, Schedule};
    use crate::engine::EngineState;
    use crate::model::State;
    use crate::units::Epsilon;

    fn checkpoint(experiment: &Experiment, splits: &Splits) -> Checkpoint {
        let images = checksum(&splits.train);
        let progress = Progress { images, held_out: Some(HeldOut::of(splits)), ..Progress::start(10) };
        let engine = EngineState { model: State::default(), momentum: State::default() };
        Checkpoint { progress, experiment: Some(experiment.clone()), engine, ema: None, fawa: None }
    }

    fn small() -> Experiment {
        let mut e = Experiment::preset("digits-60s").unwrap();
        (e.data.limit, e.data.test_limit, e.data.validation_per_class) = (Some(100), Some(20), Some(2));
        e
    }

    type Alter = &'static dyn Fn(&mut Experiment);

    #[test]
    fn what_alters_results_is_told_from_what_does_not() {
        let old = small();
        let splits = Splits::load(&old).unwrap();
        let checkpoint = checkpoint(&old, &splits);
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.jsonl");
        let compare = |change: &dyn Fn(&mut Experiment)| {
            let mut new = old.clone();
            change(&mut new);
            Differences::of(&checkpoint, &new, &splits, &log)
        };
        assert_eq!(compare(&|_| ()), Differences::default());
        let altering: [(Alter, &str); 8] = [
            (&|e| e.optimizer.lr = 0.5, "optimizer.lr is 0.5, was "),
            (&|e| e.run.seed = 9, "run.seed is 9, was 0"),
            (&|e| e.fairness.method = MethodChoice::At, "fairness.method is at, was fair-tat"),
            (&|e| e.attack.epsilon = Epsilon::levels(1.0), "attack.epsilon is 1/255, was 24/255"),
            (&|e| e.optimizer.epochs -= 1, "optimizer.epochs is "),
            (&|e| e.data.limit = None, "data.limit is unset, was 100"),
            (&|e| e.evaluation.eval_steps = 3, "evaluation.eval_steps is 3"),
            (&|e| e.model.width = Some(3), "model.width is 3"),
        ];
        for (change, expected) in altering {
            let found = compare(change);
            assert!(found.notes.is_empty() && found.changes.len() == 1, "{found:?}");
            assert!(found.changes[0].starts_with(expected), "{found:?}");
        }
        let harmless: [Alter; 6] = [
            &|e| e.run.checkpoint_every = 7,
            &|e| e.run.checkpoint_minutes = 0.0,
            &|e| e.run.examples = 1,
            &|e| e.data.path = Some("elsewhere".into()),
            &|e| e.evaluation.eval_batch_size = 3,
            // The method is not TRADES.
            &|e| e.trades.beta = 1.0,
        ];
        for change in harmless {
            let found = compare(change);
            assert!(found.changes.is_empty() && found.notes.len() == 1, "{found:?}");
        }
    }

    #[test]
    fn more_epochs_say_whether_the_schedule_is_another() {
        let mut old = small();
        let splits = Splits::load(&old).unwrap();
        for (schedule, other) in [(Schedule::Cosine, true), (Schedule::OneCycle, true), (Schedule::Steplr, false)] {
            old.optimizer.schedule = schedule;
            let mut new = old.clone();
            new.optimizer.epochs += 5;
            let found = Differences::of(&checkpoint(&old, &splits), &new, &splits, Path::new("none"));
            assert!(found.changes.is_empty() && found.notes.len() == 1, "{found:?}");
            assert_eq!(found.notes[0].contains("the schedule spans all epochs"), other, "{found:?}");
        }
    }

    #[test]
    fn all_images_and_the_class_names_are_compared() {
        let e = small();
        let splits = Splits::load(&e).unwrap();
        let checkpoint = checkpoint(&e, &splits);
        let changed = |set: &Dataset, names: Vec<String>| {
            let labels = set.labels().iter().map(|label| (label + 1) % 10).collect();
            Dataset::new(set.name(), names, set.shape(), set.images().to_vec(), labels).unwrap().into()
        };
        let names = splits.train.class_names().to_vec();
        let mut renamed = names.clone();
        renamed[3] = "drei".into();
        let of_train = Dataset::new(
            "digits",
            renamed,
            splits.train.shape(),
            splits.train.images().to_vec(),
            splits.train.labels().to_vec(),
        );
        let train = Splits { train: changed(&splits.train, names.clone()), ..splits.clone() };
        let validation = Splits { validation: changed(&splits.validation, names.clone()), ..splits.clone() };
        let test = Splits { test: changed(&splits.test, names), ..splits.clone() };
        let classes = Splits { train: of_train.unwrap().into(), ..splits };
        for (splits, what) in [
            (train, "training images"),
            (validation, "validation images"),
            (test, "test images"),
            (classes, "class names"),
        ] {
            let found = Differences::of(&checkpoint, &e, &splits, Path::new("none"));
            assert_eq!(found.changes, [format!("the {what} are not those that the run began with")]);
        }
    }

    /// A change from the window reaches config.toml and the log with the next batch, and the checkpoint only later.
    #[test]
    fn changes_that_the_log_records_since_the_checkpoint_need_no_acceptance() {
        let old = small();
        let splits = Splits::load(&old).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log.jsonl");
        let mut new = old.clone();
        new.optimizer.lr = 0.5;
        let change =
            "{\"event\":\"change\",\"epoch\":0,\"batch\":1,\"fields\":[{\"field\":\"optimizer.lr\",\"new\":0.5}]}\n";
        let checkpoint_line = "{\"event\":\"checkpoint\",\"epoch\":0,\"batch\":0}\n";
        for (text, changes) in [
            (format!("{checkpoint_line}{change}"), 0),
            (format!("{checkpoint_line}{change}{}", checkpoint_line.replace("\"batch\":0", "\"batch\":2")), 0),
            (format!("{checkpoint_line}{change}{{\"eve"), 0),
            (format!("{change}{checkpoint_line}"), 1),
            (format!("{checkpoint_line}{}", change.replace("0.5", "0.25")), 1),
            (change.to_owned(), 1),
        ] {
            std::fs::write(&log, &text).unwrap();
            let found = Differences::of(&checkpoint(&old, &splits), &new, &splits, &log);
            assert_eq!((found.changes.len(), found.notes.len()), (changes, 1 - changes), "{text}");
        }
    }

    #[test]
    fn an_earlier_checkpoint_is_taken_with_a_note() {
        let e = small();
        let splits = Splits::load(&e).unwrap();
        let mut earlier = checkpoint(&e, &splits);
        (earlier.experiment, earlier.progress.held_out) = (None, None);
        let found = Differences::of(&earlier, &Experiment::default(), &splits, Path::new("none"));
        assert!(found.changes.is_empty() && found.notes[0].contains("earlier version"), "{found:?}");
    }
}
