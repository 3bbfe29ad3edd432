//! Whether images are those that a stored network knows.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Splits, StoredError, StoredNetwork};
use crate::config::Experiment;
use crate::data::{self, Dataset, TrainTest};

/// How strictly images are compared with what a checkpoint records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Matching {
    /// Classes of other names are taken in their order.
    pub ignore_class_names: bool,
    /// The images lie elsewhere than those of the run. A folder without parts is then all test images: none of them was
    /// trained on.
    pub elsewhere: bool,
}

impl StoredNetwork {
    /// Whether `path` is another place than that of the training images, as far as the file records it.
    pub fn is_elsewhere(&self, path: &Path) -> bool {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let own = self.facts().get("experiment").and_then(|text| Experiment::from_toml(text, "").ok());
        own.and_then(|own| own.data.path).is_none_or(|trained| real(&trained) != real(path))
    }

    /// The images of [`Self::experiment`], in the order of classes that the file records. A file that records neither shape
    /// nor classes is not compared.
    ///
    /// # Errors
    /// As [`Splits::load`]; [`StoredError::Shape`] and [`StoredError::Classes`] if the images are others than the network
    /// was trained for.
    pub fn splits(&self, matching: Matching) -> Result<Splits, StoredError> {
        let experiment = &self.experiment;
        let unreadable = |source| StoredError::Data { dataset: experiment.data.dataset.clone(), source };
        let mut data = data::load(&experiment.source()).map_err(unreadable)?;
        if let Some(path) = experiment.data.path.as_ref().filter(|_| matching.elsewhere)
            && experiment.data.dataset == "folder"
            && !data::has_parts(path).map_err(unreadable)?
        {
            data.test = data.train.joined(&data.test).map_err(unreadable)?;
            data.notes.push(format!(
                "{} has no directories train and test: all of its {} images are test images",
                path.display(),
                data.test.len()
            ));
        }
        Splits::new(self.in_own_classes(data, matching)?, experiment).map_err(unreadable)
    }

    /// `data` in the classes that the file records.
    fn in_own_classes(&self, mut data: TrainTest, matching: Matching) -> Result<TrainTest, StoredError> {
        let (path, dataset) = (|| self.file.clone(), || self.experiment.data.dataset.clone());
        let found = data.train.shape();
        if let Some(trained) = self.recorded_shape().filter(|trained| *trained != found) {
            return Err(StoredError::Shape { path: path(), trained, dataset: dataset(), found });
        }
        let own = self.facts().get("class_names").and_then(|text| serde_json::from_str::<Vec<String>>(text).ok());
        let Some(own) = own.filter(|own| own != data.train.class_names()) else { return Ok(data) };
        let there = data.train.class_names().to_vec();
        let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
        let differ = || StoredError::Classes {
            path: path(),
            dataset: dataset(),
            difference: difference(&own, &there),
            hint: if own.len() == there.len() {
                "rename them, or pass --ignore-class-names if only the names differ and not their order"
            } else {
                "name a data set with the classes of the network"
            },
        };
        if own.len() == there.len() && sorted(&own) == sorted(&there) && sorted(&own).len() == own.len() {
            data.notes.push(format!(
                "the classes of '{}' are in another order than those of {}: taken by their names",
                dataset(),
                self.file.display()
            ));
            let arranged =
                |set: &Dataset| set.in_classes(&own).map_err(|source| StoredError::Data { dataset: dataset(), source });
            return Ok(TrainTest { train: arranged(&data.train)?, test: arranged(&data.test)?, notes: data.notes });
        }
        if own.len() != there.len() || !matching.ignore_class_names {
            return Err(differ());
        }
        data.notes.push(format!(
            "the classes of '{}' have other names than those of {} ({}): taken in their order",
            dataset(),
            self.file.display(),
            difference(&own, &there)
        ));
        Ok(data)
    }
}

/// The first difference of two lists of classes, for a message.
fn difference(own: &[String], there: &[String]) -> String {
    if own.len() != there.len() {
        return format!("{} classes, not {}", there.len(), own.len());
    }
    let class = own.iter().zip(there).position(|(own, there)| own != there).unwrap_or_default();
    let name = |names: &[String]| names.get(class).cloned().unwrap_or_default();
    format!("class {class} is '{}', not '{}'", name(there), name(own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::ImageShape;
    use crate::model::{Facts, State};

    /// A folder with a directory of five images for each class, whose grey value is the number of the class.
    fn folder(place: &Path, classes: &[(&str, u8)]) {
        for (class, value) in classes {
            std::fs::create_dir_all(place.join(class)).unwrap();
            for i in 0..5 {
                image::GrayImage::from_pixel(8, 8, image::Luma([*value]))
                    .save(place.join(format!("{class}/{i}.png")))
                    .unwrap();
            }
        }
    }

    /// The checkpoint of a run on the images in `place`.
    fn stored(place: &Path, shape: ImageShape, names: &[&str]) -> StoredNetwork {
        let mut experiment = Experiment::default();
        (experiment.data.dataset, experiment.data.path) = ("folder".into(), Some(place.to_path_buf()));
        experiment.data.validation_per_class = Some(1);
        let facts = [
            ("experiment", experiment.to_toml()),
            ("shape", shape.to_string()),
            ("class_names", serde_json::to_string(names).unwrap()),
        ];
        let facts: Facts = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let file = place.with_extension("safetensors");
        State(std::collections::BTreeMap::new()).save(&file, &facts).unwrap();
        StoredNetwork::load(&file, None).unwrap()
    }

    #[test]
    fn classes_are_matched_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let (grey, strict) = (ImageShape::new(1, 8, 8), Matching::default());
        let place = dir.path().join("set");
        folder(&place, &[("a", 0), ("b", 1), ("c", 2)]);
        let value_of = |splits: &Splits, class: u32| {
            let set = &splits.test;
            set.image(set.labels().iter().position(|label| *label == class).unwrap())[0]
        };
        let same = stored(&place, grey, &["a", "b", "c"]).splits(strict).unwrap();
        assert_eq!((value_of(&same, 2), same.notes.len()), (2, 0));
        let other_order = stored(&place, grey, &["c", "a", "b"]).splits(strict).unwrap();
        assert_eq!([0, 1, 2].map(|class| value_of(&other_order, class)), [2, 0, 1]);
        assert!(other_order.notes[0].contains("taken by their names"), "{:?}", other_order.notes);

        let renamed = stored(&place, grey, &["a", "b", "z"]);
        let error = renamed.splits(strict).unwrap_err().to_string();
        assert!(error.contains("class 2 is 'c', not 'z'; rename them, or pass --ignore-class-names"), "{error}");
        let by_order = renamed.splits(Matching { ignore_class_names: true, ..strict }).unwrap();
        assert_eq!(value_of(&by_order, 2), 2);
        assert!(by_order.notes[0].contains("taken in their order"), "{:?}", by_order.notes);

        let fewer = stored(&place, grey, &["a", "b"]);
        for matching in [strict, Matching { ignore_class_names: true, ..strict }] {
            let error = fewer.splits(matching).unwrap_err().to_string();
            assert!(error.contains("3 classes, not 2; name a data set with the classes of the network"), "{error}");
        }
        let larger =
            stored(&place, ImageShape::new(1, 16, 16), &["a", "b", "c"]).splits(strict).unwrap_err().to_string();
        assert!(larger.contains("was trained on 1×16×16 images, but those of 'folder' are 1×8×8"), "{larger}");
    }

    #[test]
    fn a_folder_without_parts_is_evaluated_whole_unless_the_run_was_trained_on_it() {
        let dir = tempfile::tempdir().unwrap();
        let (trained, other) = (dir.path().join("trained"), dir.path().join("other"));
        for place in [&trained, &other] {
            folder(place, &[("a", 0), ("b", 1)]);
        }
        let mut stored = stored(&trained, ImageShape::new(1, 8, 8), &["a", "b"]);
        assert!(!stored.is_elsewhere(&trained.join(".")) && stored.is_elsewhere(&other));
        assert_eq!(stored.splits(Matching::default()).unwrap().test.len(), 2);
        stored.experiment.data.path = Some(other);
        let whole = stored.splits(Matching { elsewhere: true, ..Matching::default() }).unwrap();
        assert_eq!((whole.test.len(), whole.notes.len()), (10, 1));
        assert!(whole.notes[0].contains("all of its 10 images are test images"), "{:?}", whole.notes);
    }
}
