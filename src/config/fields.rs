//! Every field of an [`Experiment`], described for a form.
//!
//! All of it comes from the declarations in `config/sections`: help text, section and choices from the command line
//! that they generate, the rest from their rows. A range gives the ends of a slider; [`Experiment::validate`] decides
//! which values are valid.
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

use serde_json::Value;

use super::Experiment;
pub use super::row::Kind;
use super::row::{Entry, Section};
use super::sections::{SECTIONS, entry};
use crate::units::Epsilon;

/// A value that a field can have, and its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The name in TOML files and on the command line.
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
    /// A short label.
    pub label: &'static str,
    /// Its doc comment.
    pub help: String,
    /// Its id in the parsed command line.
    pub(crate) argument: String,
    /// Its command-line flag, without the dashes.
    pub flag: String,
    /// The kind of its value.
    pub kind: Kind,
    /// Smallest and largest value of the slider, in the unit; both 0 if the field is not a number.
    pub range: (f64, f64),
    /// Whether the slider is logarithmic.
    pub logarithmic: bool,
    /// Unit; empty if there is none.
    pub unit: &'static str,
    /// The meaning of leaving it unset. `None` if it cannot be unset.
    pub unset: Option<&'static str>,
    /// The possible values; empty if the field is not a choice.
    pub choices: Vec<Choice>,
}

impl Field {
    /// Its name within its section.
    pub fn name(&self) -> &'static str {
        self.path.split_once('.').map_or(self.path, |(_, name)| name)
    }

    /// The value that the form suggests when the field is set after it was unset. `None` if there is no suggestion.
    pub fn first(&self, experiment: &Experiment) -> Option<Value> {
        entry(self.path)?.row.first.map(|first| first(experiment))
    }

    /// A value of this field as text, without its unit.
    pub fn written(&self, value: &Value) -> String {
        match value {
            Value::Null => self.unset.unwrap_or("unset").to_owned(),
            Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
            Value::String(text) if self.kind == Kind::Epsilon => distance(text),
            Value::String(text) => text.clone(),
            Value::Array(items) if items.is_empty() => "none".to_owned(),
            Value::Array(items) => items.iter().map(item).collect::<Vec<_>>().join(", "),
            other => other.to_string(),
        }
    }

    /// Whether a search for `words` finds the field: every word occurs in its label, name, section or help.
    pub fn matches(&self, words: &str) -> bool {
        let text = format!("{} {} {} {} {}", self.label, self.path, self.flag, self.section, self.help).to_lowercase();
        words.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }
}

/// An element of a list, as in TOML files and on the command line.
pub(crate) fn item(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A distance in levels; if they are not whole, also as a decimal, because it was probably entered as one.
fn distance(text: &str) -> String {
    let decimal = text.parse::<Epsilon>().map(Epsilon::exact).unwrap_or_default();
    let levels = decimal * 255.0;
    let whole = (levels - levels.round()).abs() < 1e-6;
    if whole { text.to_owned() } else { format!("{text} ({})", (decimal * 1e4).round() / 1e4) }
}

/// All fields, in the order of the sections and of the help.
pub fn all() -> &'static [Field] {
    static ALL: OnceLock<Vec<Field>> = OnceLock::new();
    ALL.get_or_init(|| SECTIONS.iter().flat_map(described).collect())
}

/// The field with this path.
pub fn field(path: &str) -> Option<&'static Field> {
    all().iter().find(|field| field.path == path)
}

fn described(section: &Section) -> Vec<Field> {
    let command = (section.command)();
    // Both come from the same declarations, so they have the same order.
    command.get_arguments().zip(section.entries).map(|(argument, entry)| describe(section, entry, argument)).collect()
}

fn describe(section: &Section, entry: &Entry, argument: &clap::Arg) -> Field {
    let choices = match entry.kind {
        Kind::Choice | Kind::Choices => argument.get_possible_values(),
        _ => Vec::new(),
    };
    let choice = |value: &clap::builder::PossibleValue| Choice {
        name: value.get_name().to_owned(),
        help: value.get_help().map(ToString::to_string).unwrap_or_default(),
    };
    let row = &entry.row;
    Field {
        path: entry.path,
        section: argument.get_help_heading().unwrap_or(section.name).to_owned(),
        label: row.label,
        help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
        argument: argument.get_id().to_string(),
        flag: argument.get_long().unwrap_or_default().to_owned(),
        kind: entry.kind,
        range: row.range,
        logarithmic: row.logarithmic,
        unit: row.unit,
        unset: row.unset,
        choices: choices.iter().map(choice).collect(),
    }
}

/// The values of all fields of an experiment, by path.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(Value);

impl Values {
    /// Those of `experiment`.
    pub fn of(experiment: &Experiment) -> Self {
        // A path that is not Unicode cannot be written as JSON; the experiment then reads as if all fields were unset.
        Self(serde_json::to_value(experiment).unwrap_or_default())
    }

    /// The value of one field; null if it is unset or does not exist.
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
/// If there is no such field, or if it cannot hold `value`; the experiment is then unchanged.
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
            // If the flag is longer than the name, the field's id on the command line is the flag.
            let prefixed = field.argument == field.flag && field.flag.contains('-');
            let plain = field.argument == field.name() && field.flag == field.name().replace('_', "-");
            assert!(plain || prefixed, "{field:?}");
        }
        assert_eq!(all().len(), written.len());
        let named: Vec<_> = SECTIONS.iter().flat_map(|section| section.entries).map(|entry| entry.path).collect();
        assert_eq!(all().iter().map(|field| field.path).collect::<Vec<_>>(), named);
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
                    Kind::Integers => value.as_array().unwrap().iter().all(Value::is_u64),
                    Kind::Reals => value.as_array().unwrap().iter().all(|item| inside(item.as_f64().unwrap())),
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
                Kind::Integers => json!([3, 4]),
                Kind::Reals => json!([0.25]),
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
        assert_eq!(written("data.validation_per_class", Value::Null), "from the share");
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
