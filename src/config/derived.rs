//! The settings that an experiment took from its data set instead of from the user, in words.

use serde_json::Value;

use super::defaults::{DataKind, Images, OF_THE_IMAGES, OF_THE_RECIPE};
use super::fields::{self, Field, Values};
use super::{ConfigError, Experiment, without_effect};

/// The values that the experiment started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The defaults of the data set.
    DataSet,
    /// A preset that was made for another data set: the fields that depend on the images come from the current one.
    Preset {
        /// Its name.
        name: String,
        /// The data set it was made for.
        made_for: String,
    },
    /// A file that was written for another data set. Its values stay; those of the data set are only reported.
    File {
        /// Its name.
        name: String,
        /// The data set in it.
        made_for: String,
    },
}

/// A field that takes, or would take, its value from the data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The field.
    pub field: &'static Field,
    /// The value in the program's defaults, in the preset or in the file.
    pub old: Value,
    /// The value of the data set.
    pub new: Value,
}

/// Settings that come from the data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Derived {
    /// The values that the experiment started from.
    pub origin: Origin,
    /// The data set's name.
    pub dataset: String,
    /// Its images.
    pub images: Images,
    /// The fields, in the order of the form.
    pub changes: Vec<Change>,
    /// Flags of fields that the user set and that the data set would otherwise have set.
    pub named: Vec<&'static str>,
}

/// Fields that are reported for a data set even if they have the program's default.
const HEADLINES: [&str; 10] = [
    "data.validation_fraction",
    "data.validation_per_class",
    "data.crop_padding",
    "data.flip",
    "attack.epsilon",
    "attack.step_size",
    "model.arch",
    "optimizer.epochs",
    "optimizer.batch_size",
    "optimizer.lr",
];

/// The fields in which `experiment` differs from the defaults of `kind`, with both values. Those of the images come
/// first.
///
/// # Errors
/// As [`DataKind::defaults`].
pub fn deviations(experiment: &Experiment, kind: DataKind) -> Result<Vec<Change>, ConfigError> {
    let (old, new) = (Values::of(experiment), Values::of(&kind.defaults()?));
    let paths = OF_THE_IMAGES.iter().chain(&OF_THE_RECIPE);
    let all = paths.filter_map(|path| fields::field(path));
    let change = |field: &'static Field| {
        let (old, new) = (old.get(field.path).clone(), new.get(field.path).clone());
        Change { field, old, new }
    };
    Ok(all.map(change).filter(|change| change.old != change.new).collect())
}

impl Derived {
    /// The settings of `experiment` that come from its data set. `start` is the experiment without them: the program's
    /// defaults, the preset or the file. `is_named` says whether the user set a field (`attack.epsilon`).
    ///
    /// # Errors
    /// As [`DataKind::defaults`].
    pub fn new(
        origin: Origin,
        start: &Experiment,
        experiment: &Experiment,
        images: Images,
        is_named: impl Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        let (old, defaults) = (Values::of(start), images.kind.defaults()?);
        let new = Values::of(&defaults);
        let recipe = origin == Origin::DataSet;
        let paths = OF_THE_IMAGES.iter().chain(OF_THE_RECIPE.iter().filter(|_| recipe));
        let (mut changes, mut named) = (Vec::new(), Vec::new());
        for field in paths.filter_map(|path| fields::field(path)) {
            let change = Change { field, old: old.get(field.path).clone(), new: new.get(field.path).clone() };
            let headline = recipe && HEADLINES.contains(&field.path) && !change.new.is_null();
            let told = change.old != change.new || (headline && without_effect(experiment, field.path).is_none());
            if is_named(field.path) {
                named.push(field.flag.as_str());
            } else if told {
                changes.push(change);
            }
        }
        Ok(Self { origin, dataset: experiment.data.dataset.clone(), images, changes, named })
    }

    /// One or two lines for the terminal and for the log.
    pub fn lines(&self) -> Vec<String> {
        let mut images = self.images.kind.title().to_owned();
        if let Some(known_from) = &self.images.known_from {
            images += &format!("; {known_from}");
        }
        let value = |change: &Change| format!("--{} {}", change.field.flag, as_typed(change.field, &change.new));
        let both = |change: &Change| {
            let (old, new) = (as_typed(change.field, &change.old), as_typed(change.field, &change.new));
            format!("--{} {old} → {new}", change.field.flag)
        };
        let list = |words: &dyn Fn(&Change) -> String| self.changes.iter().map(words).collect::<Vec<_>>().join(", ");
        let dataset = &self.dataset;
        let mut lines = match &self.origin {
            Origin::DataSet => vec![format!("Defaults of {dataset} ({images}): {}.", list(&value))],
            Origin::Preset { name, made_for } => {
                let stay = "Network, method and schedule stay those of the preset.";
                let changed = if self.changes.is_empty() { "nothing else changes".into() } else { list(&both) };
                vec![
                    format!("The preset {name} was made for {made_for}. On {dataset} ({images}): {changed}."),
                    stay.to_owned(),
                ]
            }
            Origin::File { name, made_for } => {
                vec![
                    format!(
                        "{name} was written for {made_for}, and its settings stay as they are on {dataset} ({images})."
                    ),
                    format!("The defaults of {dataset} would be: {}.", list(&both)),
                ]
            }
        };
        if let (false, Some(last)) = (self.named.is_empty(), lines.last_mut()) {
            let flags = self.named.iter().map(|flag| format!("--{flag}")).collect::<Vec<_>>().join(", ");
            *last += &format!(" Set by you: {flags}.");
        }
        lines
    }

    /// Whether this is a warning, because the settings may not suit the data set.
    pub fn is_warning(&self) -> bool {
        matches!(self.origin, Origin::File { .. }) && !self.changes.is_empty()
    }

    /// The lines as comments of a TOML file, each terminated by a newline.
    pub fn comment(&self) -> String {
        comment(&self.lines())
    }
}

/// Comment lines of at most 120 characters, each terminated by a newline.
fn comment(lines: &[String]) -> String {
    const WIDTH: usize = 118;
    let mut text = String::new();
    for line in lines {
        let mut length = 0;
        for word in line.split_whitespace() {
            let word_length = word.chars().count();
            if length == 0 || length + 1 + word_length > WIDTH {
                text += if length == 0 { "# " } else { "\n# " };
                length = word_length;
            } else {
                text.push(' ');
                length += 1 + word_length;
            }
            text += word;
        }
        text.push('\n');
    }
    text
}

/// A value as it is written after a flag, or, if it is unset, where it comes from.
fn as_typed(field: &Field, value: &Value) -> String {
    match (field.path, value) {
        (_, Value::Bool(yes)) => yes.to_string(),
        ("evaluation.eval_step_size", Value::Null) => "derived from the attack".to_owned(),
        ("data.validation_per_class", Value::Null) => "by --validation-fraction".to_owned(),
        _ => field.written(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults::starting_point;
    use crate::units::Epsilon;

    fn images(kind: DataKind) -> Images {
        Images { kind, known_from: None }
    }

    #[test]
    fn the_notice_says_what_is_derived_from_what_and_what_was_named() {
        let mut experiment = DataKind::Cifar.defaults().unwrap();
        experiment.attack.epsilon = Epsilon::levels(4.0);
        let named = |path: &str| path == "attack.epsilon";
        let derived =
            Derived::new(Origin::DataSet, &Experiment::default(), &experiment, images(DataKind::Cifar), named).unwrap();
        let [line] = &derived.lines()[..] else { panic!("{derived:?}") };
        assert!(line.starts_with("Defaults of cifar10 (32×32 colour photographs): "), "{line}");
        for part in ["--step-size 2/255", "--crop-padding 4", "--flip true", "--arch small-cnn", "--epochs 30"] {
            assert!(line.contains(part), "{part}: {line}");
        }
        assert!(line.ends_with("Set by you: --epsilon.") && !line.contains("epsilon 8/255"), "{line}");
        assert!(!derived.is_warning());
    }

    #[test]
    fn a_preset_and_a_file_of_other_images_say_old_and_new() {
        let start = Experiment::preset("digits-60s").unwrap();
        let mut data = start.data.clone();
        data.dataset = "cifar10".into();
        let mut adapted = starting_point(Some("digits-60s"), &data, Some(DataKind::Cifar)).unwrap();
        adapted.data.dataset = "cifar10".into();
        let origin = Origin::Preset { name: "digits-60s".into(), made_for: "digits".into() };
        let derived = Derived::new(origin, &start, &adapted, images(DataKind::Cifar), |_| false).unwrap();
        let text = derived.lines().join(" ");
        for part in [
            "The preset digits-60s was made for digits",
            "--epsilon 24/255 → 8/255",
            "--flip false → true",
            "--validation-per-class 20 → by --validation-fraction",
            "Network, method and schedule stay those of the preset.",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("--arch"), "{text}");

        let origin = Origin::File { name: "my.toml".into(), made_for: "digits".into() };
        let told = Derived::new(origin, &start, &start, images(DataKind::Cifar), |_| false).unwrap();
        assert!(told.is_warning());
        assert!(told.lines()[0].contains("its settings stay as they are"), "{told:?}");
    }

    #[test]
    fn a_comment_is_one_in_toml_and_not_too_wide() {
        let derived = Derived::new(
            Origin::DataSet,
            &Experiment::default(),
            &DataKind::Mnist.defaults().unwrap(),
            images(DataKind::Mnist),
            |_| false,
        )
        .unwrap();
        let comment = derived.comment();
        assert!(comment.lines().count() > 1 && comment.ends_with('\n'), "{comment}");
        assert!(comment.lines().all(|line| line.starts_with("# ") && line.chars().count() <= 120), "{comment}");
        let words = comment.replace("\n# ", " ");
        assert_eq!(words.trim_start_matches("# ").trim_end(), derived.lines()[0]);
        Experiment::from_toml(&format!("{comment}{}", Experiment::default().to_toml()), "commented").unwrap();
    }

    #[test]
    fn deviations_are_what_the_window_offers() {
        let digits = Experiment::preset("digits-60s").unwrap();
        let paths: Vec<_> =
            deviations(&digits, DataKind::Cifar).unwrap().iter().map(|change| change.field.path).collect();
        assert!(paths.contains(&"attack.epsilon") && paths.contains(&"model.arch"), "{paths:?}");
        assert!(deviations(&digits, DataKind::Digits).unwrap().is_empty());
    }
}
