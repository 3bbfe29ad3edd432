//! Every field of an [`Experiment`], described for a form.
//!
//! Name, help text, section and choices come from the declarations that make the command line and the file. A table adds
//! what those do not know: a short label, a unit, and the range that makes sense. A range is where sliders end, not what is
//! valid; that stays with [`Experiment::validate`].
//!
//! ```
//! use fairtat::config::{Experiment, fields};
//! use serde_json::json;
//!
//! let mut experiment = Experiment::default();
//! fields::write(&mut experiment, "optimizer.lr", json!(0.05)).unwrap();
//! assert_eq!(experiment.optimizer.lr, 0.05);
//! assert_eq!(fields::field("optimizer.lr").unwrap().label, "Learning rate");
//! ```

use std::sync::OnceLock;

use clap::{Args, Command};
use serde_json::Value;

use super::{
    AttackConfig, AveragingConfig, DataConfig, EvaluationConfig, Experiment, FairnessConfig, ModelConfig,
    OptimizerConfig, RunConfig,
};
use crate::units::Epsilon;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no.
    Bool,
    /// One of [`Field::choices`].
    Choice,
    /// Any number of [`Field::choices`].
    Choices,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// A distance between images, `k/255`; its range counts levels.
    Epsilon,
    /// A name.
    Text,
    /// A directory.
    Path,
}

/// A value that a field can have, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// As in files and on the command line.
    pub name: String,
    /// Its doc comment; empty for a name that explains itself.
    pub help: String,
}

/// One field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Section and name, such as `optimizer.lr`.
    pub path: &'static str,
    /// Title of its section, such as `Optimiser`.
    pub section: String,
    /// A few words.
    pub label: &'static str,
    /// Its doc comment.
    pub help: String,
    /// Its flag on the command line, without the dashes.
    pub flag: String,
    /// What it holds.
    pub kind: Kind,
    /// Least and greatest value that make sense, in the unit; both 0 where there is no number.
    pub range: (f64, f64),
    /// Whether its values spread over orders of magnitude.
    pub logarithmic: bool,
    /// Unit, or nothing.
    pub unit: &'static str,
    /// What it means to leave it unset, where that can be.
    pub unset: Option<&'static str>,
    /// What it can be.
    pub choices: Vec<Choice>,
}

impl Field {
    /// Its name within its section.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// A value of this field in words, without its unit.
    pub fn written(&self, value: &Value) -> String {
        match value {
            Value::Null => self.unset.unwrap_or("unset").to_owned(),
            Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            Value::String(text) if self.kind == Kind::Epsilon => distance(text),
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        }
    }

    /// Whether a search for `words` finds it: every word stands in its label, name, section or help.
    pub fn matches(&self, words: &str) -> bool {
        let text = format!("{} {} {} {} {}", self.label, self.path, self.flag, self.section, self.help).to_lowercase();
        words.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// A distance in levels; where they are not whole, as a decimal, too, for that is how it was meant.
fn distance(text: &str) -> String {
    let decimal = text.parse::<Epsilon>().map(Epsilon::exact).unwrap_or_default();
    let levels = decimal * 255.0;
    let whole = (levels - levels.round()).abs() < 1e-6;
    if whole { text.to_owned() } else { format!("{text} ({})", (decimal * 1e4).round() / 1e4) }
}

/// What the declarations do not know.
#[derive(Debug, Clone, Copy)]
struct Detail {
    path: &'static str,
    label: &'static str,
    kind: Kind,
    range: (f64, f64),
    logarithmic: bool,
    unit: &'static str,
    unset: Option<&'static str>,
}

impl Detail {
    const fn new(path: &'static str, label: &'static str, kind: Kind, range: (f64, f64)) -> Self {
        Self { path, label, kind, range, logarithmic: false, unit: "", unset: None }
    }

    const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    const fn log(self) -> Self {
        Self { logarithmic: true, ..self }
    }

    const fn unset(self, meaning: &'static str) -> Self {
        Self { unset: Some(meaning), ..self }
    }
}

const fn flag(path: &'static str, label: &'static str) -> Detail {
    Detail::new(path, label, Kind::Bool, (0.0, 0.0))
}

const fn choice(path: &'static str, label: &'static str) -> Detail {
    Detail::new(path, label, Kind::Choice, (0.0, 0.0))
}

const fn text(path: &'static str, label: &'static str) -> Detail {
    Detail::new(path, label, Kind::Text, (0.0, 0.0))
}

const fn integer(path: &'static str, label: &'static str, least: f64, most: f64) -> Detail {
    Detail::new(path, label, Kind::Integer, (least, most))
}

const fn real(path: &'static str, label: &'static str, least: f64, most: f64) -> Detail {
    Detail::new(path, label, Kind::Real, (least, most))
}

const fn levels(path: &'static str, label: &'static str, most: f64) -> Detail {
    Detail::new(path, label, Kind::Epsilon, (0.0, most))
}

const TABLE: &[Detail] = &[
    text("data.dataset", "Data set"),
    Detail::new("data.path", "Folder", Kind::Path, (0.0, 0.0)).unset("the usual place"),
    integer("data.image_size", "Image size", 8.0, 64.0).unit("pixels").unset("as it is"),
    integer("data.shapes_seed", "Shapes seed", 0.0, 99.0),
    integer("data.channels", "Channels", 1.0, 3.0).unset("as they are"),
    integer("data.limit", "Train images", 100.0, 60_000.0).unit("images").log().unset("all"),
    integer("data.test_limit", "Test images", 100.0, 10_000.0).unit("images").log().unset("all"),
    real("data.validation_fraction", "Val. share", 0.01, 0.5).unit("share"),
    integer("data.validation_per_class", "Val. per class", 1.0, 1000.0).unit("images").log().unset("by the share"),
    flag("data.validation_random", "Val. at random"),
    flag("data.normalize", "Normalise"),
    integer("data.crop_padding", "Random crop", 0.0, 8.0).unit("pixels"),
    choice("data.padding", "Crop border"),
    flag("data.flip", "Mirror images"),
    choice("model.arch", "Architecture"),
    integer("model.width", "Width", 4.0, 256.0).unit("channels").log().unset("as published"),
    levels("attack.epsilon", "Epsilon", 80.0),
    levels("attack.step_size", "Step size", 20.0),
    integer("attack.steps", "Attack steps", 0.0, 50.0).unit("steps"),
    choice("attack.norm", "Norm"),
    flag("attack.random_start", "Random start"),
    choice("attack.attack_bn", "Batch norm"),
    choice("fairness.method", "Method"),
    flag("fairness.targeted", "Targeted"),
    choice("fairness.target_mode", "Targets"),
    real("fairness.temperature", "Temperature", 0.0, 20.0),
    integer("fairness.fixed_target", "Fixed target", 0.0, 9.0).unit("class"),
    choice("fairness.statistics_source", "Statistics from"),
    integer("fairness.freeze_after", "Freeze after", 0.0, 200.0).unit("epoch").unset("never"),
    Detail::new("fairness.epsilon_rules", "Epsilon rules", Kind::Choices, (0.0, 0.0)),
    choice("fairness.combine", "Combine rules"),
    real("fairness.lambda_rob", "λ of accuracy", 0.0, 1.0),
    real("fairness.lambda_count", "λ of counts", 0.0, 1.0),
    levels("fairness.epsilon_min", "Min. epsilon", 80.0),
    levels("fairness.epsilon_max", "Max. epsilon", 120.0).unset("no bound"),
    integer("fairness.warmup_epochs", "Warm-up", 0.0, 50.0).unit("epochs"),
    integer("fairness.clean_passes", "Clean passes", 0.0, 2.0),
    integer("optimizer.epochs", "Epochs", 1.0, 200.0).unit("epochs"),
    integer("optimizer.batch_size", "Batch size", 8.0, 1024.0).unit("images").log(),
    choice("optimizer.last_batch", "Last batch"),
    real("optimizer.lr", "Learning rate", 1e-4, 1.0).log(),
    choice("optimizer.schedule", "Schedule"),
    real("optimizer.momentum", "Momentum", 0.0, 0.99).unit("share"),
    real("optimizer.weight_decay", "Weight decay", 0.0, 0.01).log(),
    flag("averaging.ema", "EMA weights"),
    flag("averaging.fawa", "FAWA weights"),
    real("averaging.average_decay", "Decay", 0.0, 1.0).unit("share"),
    real("averaging.fawa_threshold", "FAWA threshold", 0.0, 1.0).unit("accuracy"),
    integer("averaging.average_from", "Average from", 0.0, 200.0).unit("epoch"),
    integer("evaluation.eval_steps", "Val. steps", 1.0, 100.0).unit("steps"),
    integer("evaluation.test_steps", "Test steps", 0.0, 100.0).unit("steps"),
    levels("evaluation.eval_epsilon", "Eval. epsilon", 80.0).unset("as in training"),
    levels("evaluation.eval_step_size", "Eval. step size", 20.0).unset("for the attack"),
    integer("evaluation.eval_batch_size", "Eval. batch", 16.0, 1024.0).unit("images").log(),
    integer("evaluation.recalibrate_bn", "Recalibrate BN", 0.0, 100.0).unit("batches"),
    integer("run.seed", "Seed", 0.0, 99.0),
    choice("run.engine", "Engine"),
    choice("run.device", "Candle device"),
    text("run.adapter", "GPU").unset("the fastest kind"),
    flag("run.deterministic", "Deterministic"),
    flag("run.no_fusion", "No fusion"),
    integer("run.checkpoint_every", "Checkpoints", 1.0, 50.0).unit("epochs"),
    integer("run.examples", "Examples", 0.0, 100.0).unit("images"),
];

/// All fields, in the order of the sections and of the help.
pub fn all() -> &'static [Field] {
    static ALL: OnceLock<Vec<Field>> = OnceLock::new();
    ALL.get_or_init(|| {
        let commands = [
            ("data", command::<DataConfig>()),
            ("model", command::<ModelConfig>()),
            ("attack", command::<AttackConfig>()),
            ("fairness", command::<FairnessConfig>()),
            ("optimizer", command::<OptimizerConfig>()),
            ("averaging", command::<AveragingConfig>()),
            ("evaluation", command::<EvaluationConfig>()),
            ("run", command::<RunConfig>()),
        ];
        let described = |(section, command): &(&str, Command)| {
            let arguments: Vec<_> = command.get_arguments().cloned().collect();
            let section = (*section).to_owned();
            arguments.into_iter().filter_map(move |argument| describe(&section, &argument)).collect::<Vec<_>>()
        };
        commands.iter().flat_map(described).collect()
    })
}

/// The field with this path.
pub fn field(path: &str) -> Option<&'static Field> {
    all().iter().find(|field| field.path == path)
}

fn command<T: Args>() -> Command {
    T::augment_args(Command::new("fields"))
}

fn describe(section: &str, argument: &clap::Arg) -> Option<Field> {
    let path = format!("{section}.{}", argument.get_id());
    let detail = TABLE.iter().find(|detail| detail.path == path)?;
    let choices = match detail.kind {
        Kind::Choice | Kind::Choices => argument.get_possible_values(),
        _ => Vec::new(),
    };
    let choice = |value: &clap::builder::PossibleValue| Choice {
        name: value.get_name().to_owned(),
        help: value.get_help().map(ToString::to_string).unwrap_or_default(),
    };
    Some(Field {
        path: detail.path,
        section: argument.get_help_heading().unwrap_or(section).to_owned(),
        label: detail.label,
        help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
        flag: argument.get_long().unwrap_or_default().to_owned(),
        kind: detail.kind,
        range: detail.range,
        logarithmic: detail.logarithmic,
        unit: detail.unit,
        unset: detail.unset,
        choices: choices.iter().map(choice).collect(),
    })
}

/// The values of all fields of an experiment, to be read by path.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Value);

impl Values {
    /// Those of `experiment`.
    pub fn of(experiment: &Experiment) -> Self {
        // What cannot be written as JSON, a path that is no Unicode, reads as if nothing were set.
        Self(serde_json::to_value(experiment).unwrap_or_default())
    }

    /// The value of one field; null for one that is unset or does not exist.
    pub fn get(&self, path: &str) -> &Value {
        let found = path.split_once('.').and_then(|(section, name)| self.0.get(section)?.get(name));
        found.unwrap_or(&Value::Null)
    }

    /// The paths of the fields in which two experiments differ.
    pub fn differences(&self, other: &Self) -> impl Iterator<Item = &'static Field> {
        all().iter().filter(|field| self.get(field.path) != other.get(field.path))
    }
}

/// Sets one field.
///
/// # Errors
/// When there is no such field, or it cannot hold `value`; the experiment stays as it is.
pub fn write(experiment: &mut Experiment, path: &str, value: Value) -> Result<(), String> {
    let wrong = |what: String| format!("{path}: {what}");
    let mut all = serde_json::to_value(&*experiment).map_err(|error| wrong(error.to_string()))?;
    let place = path.split_once('.').and_then(|(section, name)| all.get_mut(section)?.get_mut(name));
    let Some(place) = place else {
        return Err(wrong("there is no such field".into()));
    };
    *place = value;
    *experiment = serde_json::from_value(all).map_err(|error| wrong(error.to_string()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::PRESETS;
    use crate::config::defaults::DataKind;

    #[test]
    fn every_field_of_an_experiment_has_an_entry() {
        let Values(Value::Object(sections)) = Values::of(&Experiment::default()) else { panic!() };
        let written: Vec<String> = sections
            .iter()
            .flat_map(|(section, fields)| {
                fields.as_object().unwrap().keys().map(move |name| format!("{section}.{name}"))
            })
            .collect();
        for path in &written {
            let field = field(path).unwrap_or_else(|| panic!("{path} has no entry"));
            assert!(!field.label.is_empty() && field.help.len() > 5 && !field.flag.is_empty(), "{field:?}");
            assert_eq!(field.flag, field.name().replace('_', "-"));
        }
        assert_eq!(all().len(), written.len());
        assert_eq!(TABLE.len(), written.len());
    }

    #[test]
    fn labels_tell_fields_apart_and_help_is_the_doc_comment() {
        let labels: std::collections::BTreeSet<_> = all().iter().map(|field| field.label).collect();
        assert_eq!(labels.len(), all().len());
        assert_eq!(field("optimizer.lr").unwrap().help, "Largest learning rate");
        assert_eq!(field("optimizer.lr").unwrap().section, "Optimiser");
        let norm = field("attack.norm").unwrap();
        assert_eq!(norm.choices[1].name, "l2");
        assert!(norm.choices[1].help.starts_with("Euclidean length"));
        assert!(field("attack.epsilon").unwrap().matches("radius ATTACK"));
        assert!(!field("attack.epsilon").unwrap().matches("radius optimiser"));
    }

    #[test]
    fn kinds_are_those_of_the_values_and_presets_lie_in_range() {
        let presets = PRESETS.iter().map(|(name, _)| (*name, Experiment::preset(name).unwrap()));
        let defaults = DataKind::ALL.iter().map(|kind| (kind.name(), kind.defaults().unwrap()));
        for (name, experiment) in presets.chain(defaults) {
            let values = Values::of(&experiment);
            for field in all() {
                let value = values.get(field.path);
                let known = |value: &Value| field.choices.iter().any(|choice| value == choice.name.as_str());
                let levels = || serde_json::from_value::<Epsilon>(value.clone()).unwrap().exact() * 255.0;
                let inside = |number: f64| field.range.0 <= number && number <= field.range.1 + 1e-9;
                let good = match field.kind {
                    _ if value.is_null() => field.unset.is_some(),
                    Kind::Bool => value.is_boolean(),
                    Kind::Choice => known(value),
                    Kind::Choices => value.as_array().unwrap().iter().all(known),
                    Kind::Integer => value.is_u64() && inside(value.as_f64().unwrap()),
                    Kind::Real => inside(value.as_f64().unwrap()),
                    Kind::Epsilon => inside(levels()),
                    Kind::Text | Kind::Path => value.is_string(),
                };
                assert!(good, "{name}: {} = {value}", field.path);
            }
        }
    }

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_changes() {
        let original = Experiment::preset("shapes-unfair").unwrap();
        for field in all() {
            let mut experiment = original.clone();
            let before = Values::of(&original).get(field.path).clone();
            let new = match field.kind {
                Kind::Bool => json!(!before.as_bool().unwrap()),
                Kind::Choice => json!(field.choices.iter().find(|choice| before != choice.name.as_str()).unwrap().name),
                Kind::Choices => json!([field.choices[4].name, field.choices[1].name]),
                Kind::Integer => json!(field.range.1 as u64 + 1),
                Kind::Real => json!(field.range.1 * 0.875),
                Kind::Epsilon => json!("3.25/255"),
                Kind::Text | Kind::Path => json!("a b/ü"),
            };
            write(&mut experiment, field.path, new.clone()).unwrap();
            let changed: Vec<_> = Values::of(&experiment).differences(&Values::of(&original)).collect();
            assert_eq!(changed, [field]);
            assert_eq!(*Values::of(&experiment).get(field.path), new);
            write(&mut experiment, field.path, before).unwrap();
            assert_eq!(experiment, original);
            assert_eq!(
                write(&mut experiment, field.path, Value::Null).is_ok(),
                field.unset.is_some(),
                "{}",
                field.path
            );
        }
    }

    #[test]
    fn values_are_written_in_words() {
        let written = |path, value: Value| field(path).unwrap().written(&value);
        assert_eq!(written("attack.epsilon", json!("8/255")), "8/255");
        assert_eq!(written("attack.epsilon", json!("76.5/255")), "76.5/255 (0.3)");
        assert_eq!(written("data.flip", json!(true)), "yes");
        assert_eq!(written("data.validation_per_class", Value::Null), "by the share");
        assert_eq!(written("fairness.epsilon_rules", json!([])), "none");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut experiment = Experiment::default();
        for (path, value, expected) in [
            ("optimizer.rate", json!(1), "no such field"),
            ("lr", json!(1), "no such field"),
            ("optimizer.epochs", json!(-1), "invalid value"),
            ("attack.norm", json!("l3"), "unknown variant"),
            ("attack.epsilon", json!("-1/255"), "at least 0"),
        ] {
            let message = write(&mut experiment, path, value).unwrap_err();
            assert!(message.starts_with(path) && message.contains(expected), "{message}");
        }
        assert_eq!(experiment, Experiment::default());
    }
}
