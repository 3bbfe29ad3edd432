//! A study as a TOML file.
//!
//! ```toml
//! title = "What the targets of FAIR-TAT do"
//! preset = "digits-60s"
//! seeds = [0, 1, 2]
//!
//! [set]                          # fields of every run, as in config.toml
//! optimizer.epochs = 40
//!
//! [[arm]]                        # what is compared; the first is the baseline
//! name = "PGD-AT"
//! set.fairness.method = "at"
//!
//! [[arm]]
//! name = "FAIR-TAT"
//! set.fairness.method = "fair-tat"
//!
//! [[axis]]                       # under which conditions
//! field = "attack.epsilon"
//! values = ["16/255", "24/255"]
//!
//! [measure]
//! attack = [{ kind = "apgd-ce" }, { kind = "pgd", norm = "l2", epsilon = "0.5" }]
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attack::AttackKind;
use crate::config::ConfigError;
use crate::data::corruptions::Corruption;
use crate::engine::Norm;
use crate::files::{self, FileError};
use crate::units::Epsilon;

/// The studies that come with the program, by name.
pub const READY_MADE: [(&str, &str); 6] = [
    ("ablation", include_str!("../../assets/studies/ablation.toml")),
    ("cost", include_str!("../../assets/studies/cost.toml")),
    ("methods", include_str!("../../assets/studies/methods.toml")),
    ("seeds", include_str!("../../assets/studies/seeds.toml")),
    ("transfer", include_str!("../../assets/studies/transfer.toml")),
    ("vulnerability", include_str!("../../assets/studies/vulnerability.toml")),
];

/// Why a study cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The experiment of a run is not valid.
    #[error("{run}: {source}")]
    Config {
        /// The run, or what all runs share.
        run: String,
        /// The cause.
        source: ConfigError,
    },
    /// The text is not a study.
    #[error("{origin}: {what}")]
    Format {
        /// The file.
        origin: String,
        /// Where and what.
        what: String,
    },
    /// There is no study of this name.
    #[error(
        "'{name}' is neither a file nor a study that comes with the program ({}); see `fairtat study list`",
        READY_MADE.map(|(name, _)| name).join(", ")
    )]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// Two directories that should be parts of one study are not.
    #[error("{first} and {second} are different studies; report each alone, or name only parts of one study")]
    Different {
        /// The file of one study.
        first: PathBuf,
        /// The file of the other.
        second: PathBuf,
    },
    /// The directory of a study lacks something.
    #[error("{path}: {what}")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
}

/// A study. Its TOML form has one table for each arm and axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudyFile {
    /// Heading of the report.
    pub title: String,
    /// What the study asks, in sentences, for the report.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// Preset that all runs begin from; without one and without `config`, the defaults of the data set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// File that all runs begin from, such as the config.toml of a run; relative to the study file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// Seeds of the runs of each arm.
    #[serde(default = "three_seeds")]
    pub seeds: Vec<u64>,
    /// Weights that are compared: `last`, `best`, `ema` or `fawa`.
    #[serde(default = "last")]
    pub weights: String,
    /// Fields of all runs.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub set: toml::Table,
    /// What is measured besides the accuracies on the test set.
    #[serde(default)]
    pub measure: Measures,
    /// What is compared. The first is the baseline.
    #[serde(rename = "arm")]
    pub arms: Vec<Arm>,
    /// Conditions under which it is compared.
    #[serde(default, rename = "axis", skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<Axis>,
}

fn three_seeds() -> Vec<u64> {
    vec![0, 1, 2]
}

fn last() -> String {
    "last".into()
}

/// One of the things that are compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in tables and directories.
    pub name: String,
    /// Fields in which it differs.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub set: toml::Table,
    /// Arms besides the baseline that it is compared with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<String>,
    /// The arm whose last weights it begins with, of the same cell and seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Whether warm-ups and fine-tuning follow from the number of epochs, as shares of the published schedules
    /// ([`recipe`](super::recipe)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub published_shares: bool,
}

/// A condition that is varied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Its name in tables; by default that of its field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The field whose values are `values`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Values of `field`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<toml::Value>,
    /// Values that are more than one field.
    #[serde(default, rename = "value", skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<AxisValue>,
}

/// A value of an axis that sets several fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AxisValue {
    /// Its name in tables and directories.
    pub name: String,
    /// Preset that runs with this value begin from, instead of that of the study.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<String>,
    /// The fields that it sets.
    #[serde(default, skip_serializing_if = "toml::Table::is_empty")]
    pub set: toml::Table,
}

/// What is measured after each training, with the weights of the study.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Measures {
    /// Attacks on the test images.
    #[serde(rename = "attack", skip_serializing_if = "Vec::is_empty")]
    pub attacks: Vec<MeasuredAttack>,
    /// Common corruptions: `standard` (15), `authors` (18), `all` (19), or one by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub corruptions: Vec<String>,
    /// Whether every test image is attacked towards every other class, to compare the success of these attacks with
    /// CFPS.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub targeted: bool,
    /// Test images for all of this, the first ones of each class; all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Whether the time of an epoch and the memory are compared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cost: bool,
}

impl Measures {
    /// Whether anything is measured with the network after training.
    pub fn needs_network(&self) -> bool {
        !self.attacks.is_empty() || !self.corruptions.is_empty() || self.targeted
    }

    /// The corruptions, each once.
    ///
    /// # Errors
    /// The name that no corruption has.
    pub fn chosen_corruptions(&self) -> Result<Vec<Corruption>, String> {
        let mut all = Vec::new();
        for name in &self.corruptions {
            let chosen = match name.as_str() {
                "standard" => Corruption::STANDARD.to_vec(),
                "authors" => Corruption::AUTHORS.to_vec(),
                "all" => Corruption::ALL.to_vec(),
                _ => vec![Corruption::ALL.into_iter().find(|known| known.name() == name).ok_or_else(|| name.clone())?],
            };
            chosen.into_iter().for_each(|corruption| {
                if !all.contains(&corruption) {
                    all.push(corruption);
                }
            });
        }
        Ok(all)
    }
}

/// An attack on the test images. Settings that are not given are those of an evaluation of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredAttack {
    /// Its name in tables; by default its kind and what differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which attack, as `fairtat eval --attack` names it.
    pub kind: String,
    /// Shape of the ball.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub norm: Option<Norm>,
    /// Radius.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<Epsilon>,
    /// Radius as a multiple of that of the run's evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epsilon_factor: Option<f64>,
    /// Steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Queries of Square.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<u32>,
    /// Random starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
}

impl MeasuredAttack {
    /// Which attack.
    pub fn kind(&self) -> Option<AttackKind> {
        let kinds = <AttackKind as clap::ValueEnum>::value_variants();
        kinds.iter().copied().find(|kind| kind.name() == self.kind)
    }

    /// Its name in tables.
    pub fn title(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let kind = self.kind().map_or_else(|| self.kind.clone(), |kind| kind.title().to_owned());
        let mut parts = vec![kind];
        parts.extend(self.norm.map(|norm| crate::attack::norm_name(norm).to_owned()));
        parts.extend(self.epsilon.map(|epsilon| format!("ε {epsilon}")));
        parts.extend(self.epsilon_factor.map(|factor| format!("{factor} ε")));
        parts.extend(self.steps.map(|steps| format!("{steps} steps")));
        parts.extend(self.queries.map(|queries| format!("{queries} queries")));
        parts.extend(self.restarts.map(|restarts| format!("{restarts} starts")));
        parts.join(", ")
    }
}

/// The text of a study: that of a file, or of one that comes with the program. The second value is the file.
///
/// # Errors
/// If there is neither.
pub fn named(name: &Path) -> Result<(String, Option<PathBuf>), StudyError> {
    let file = if name.is_dir() { name.join("study.toml") } else { name.to_path_buf() };
    if file.exists() {
        return Ok((files::read_to_string(&file)?, Some(file)));
    }
    let known = READY_MADE.into_iter().find(|(known, _)| name == Path::new(known));
    let unknown = || StudyError::Unknown { name: name.display().to_string() };
    known.map(|(_, text)| (text.to_owned(), None)).ok_or_else(unknown)
}

impl StudyFile {
    /// Reads TOML text; messages name `origin`.
    ///
    /// # Errors
    /// If it is not a study.
    pub fn from_toml(text: &str, origin: &str) -> Result<Self, StudyError> {
        let wrong = |what: String| StudyError::Format { origin: origin.to_owned(), what };
        let file: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            let place = line.map_or(String::new(), |line| format!("line {line}: "));
            wrong(format!("{place}{}", error.message()))
        })?;
        file.check().map_err(wrong)?;
        Ok(file)
    }

    /// The study as TOML.
    pub fn to_toml(&self) -> String {
        // As for an experiment: only a path that is not UTF-8 cannot be written, and its text must not read as a study.
        toml::to_string(self).unwrap_or_else(|error| format!("cannot-be-written = {:?}\n", error.to_string()))
    }

    fn check(&self) -> Result<(), String> {
        if self.arms.is_empty() {
            return Err("a study needs at least one [[arm]]".into());
        }
        if self.seeds.is_empty() {
            return Err("seeds: expected at least one".into());
        }
        if !["last", "best", "ema", "fawa"].contains(&self.weights.as_str()) {
            return Err(format!("weights: expected last, best, ema or fawa, found '{}'", self.weights));
        }
        if self.preset.is_some() && self.config.is_some() {
            return Err("preset and config are two starting points; name one".into());
        }
        let mut slugs = BTreeSet::new();
        for (at, arm) in self.arms.iter().enumerate() {
            if !slugs.insert(slug(&arm.name)) {
                return Err(format!("arm '{}': another arm has this name, or one with the same directory", arm.name));
            }
            if let Some(other) = arm.against.iter().find(|other| !self.arms.iter().any(|arm| arm.name == **other)) {
                return Err(format!("arm '{}': against: there is no arm '{other}'", arm.name));
            }
            if let Some(after) = &arm.after
                && !self.arms[..at].iter().any(|earlier| earlier.name == *after)
            {
                return Err(format!("arm '{}': after: expected an earlier arm, found '{after}'", arm.name));
            }
        }
        for axis in &self.axes {
            let of_field = axis.field.is_some() && !axis.values.is_empty() && axis.named.is_empty();
            let by_name = axis.field.is_none() && axis.values.is_empty() && !axis.named.is_empty();
            if !of_field && !by_name {
                return Err(format!("axis '{}': expected either a field with values, or [[axis.value]]", axis.title()));
            }
            let names: BTreeSet<String> = axis.choices().iter().map(|choice| slug(&choice.name)).collect();
            if names.len() < axis.choices().len() {
                return Err(format!("axis '{}': two values have the same name", axis.title()));
            }
        }
        for attack in &self.measure.attacks {
            if attack.kind().is_none() {
                let known: Vec<&str> =
                    <AttackKind as clap::ValueEnum>::value_variants().iter().map(|k| k.name()).collect();
                let known = known.join(", ");
                return Err(format!("measure.attack: kind: expected one of {known}, found '{}'", attack.kind));
            }
            if attack.epsilon.is_some() && attack.epsilon_factor.is_some() {
                return Err(format!(
                    "measure.attack '{}': epsilon and epsilon_factor exclude each other",
                    attack.title()
                ));
            }
            if attack.epsilon_factor.is_some_and(|factor| !(factor > 0.0 && factor.is_finite())) {
                return Err(format!("measure.attack '{}': epsilon_factor: expected a number above 0", attack.title()));
            }
        }
        let titles: BTreeSet<String> = self.measure.attacks.iter().map(MeasuredAttack::title).collect();
        if titles.len() < self.measure.attacks.len() {
            return Err("measure.attack: two attacks have the same name".into());
        }
        self.measure.chosen_corruptions().map_err(|name| format!("measure.corruptions: there is no '{name}'"))?;
        if self.measure.limit == Some(0) {
            return Err("measure.limit: expected at least 1 image".into());
        }
        Ok(())
    }

    /// The name of the baseline.
    pub fn baseline(&self) -> &str {
        self.arms.first().map_or("", |arm| &arm.name)
    }

    /// Sets a field of all runs. Null leaves it as it is.
    pub fn give(&mut self, path: &str, value: toml::Value) {
        let Some((section, name)) = path.split_once('.') else { return };
        // The same field may be written as a path.
        self.set.remove(path);
        let table = self.set.entry(section).or_insert_with(|| toml::Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(name.to_owned(), value);
        }
    }

    /// The paths of all fields that arms and axes vary.
    pub fn varied(&self) -> BTreeSet<String> {
        let axes = self.axes.iter().flat_map(Axis::choices).map(|choice| choice.set);
        let tables = self.arms.iter().map(|arm| arm.set.clone()).chain(axes);
        tables.flat_map(|table| paths(&table)).map(|(path, _)| path).collect()
    }
}

impl Axis {
    /// Its name in tables.
    pub fn title(&self) -> String {
        let of_field =
            || self.field.as_deref().map(|path| path.split_once('.').map_or(path, |(_, name)| name).to_owned());
        self.name.clone().or_else(of_field).unwrap_or_default()
    }

    /// All values as tables of fields.
    pub fn choices(&self) -> Vec<AxisValue> {
        let Some(field) = &self.field else { return self.named.clone() };
        let single = |value: &toml::Value| {
            let mut set = toml::Table::new();
            set.insert(field.clone(), value.clone());
            let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            AxisValue { name, preset: None, set }
        };
        self.values.iter().map(single).collect()
    }
}

/// The fields in a table, by path. A key may be a path itself.
pub(super) fn paths(table: &toml::Table) -> Vec<(String, toml::Value)> {
    let mut found = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => {
                found.extend(paths(inner).into_iter().map(|(path, value)| (format!("{key}.{path}"), value)));
            }
            value => found.push((key.clone(), value.clone())),
        }
    }
    found
}

/// A name as part of a directory's: lower-case letters and digits, joined by hyphens.
pub(super) fn slug(name: &str) -> String {
    let kept =
        name.to_lowercase().chars().map(|c| if c.is_alphanumeric() || c == '.' { c } else { ' ' }).collect::<String>();
    let text = kept.split_whitespace().collect::<Vec<_>>().join("-");
    if text.is_empty() { "x".into() } else { text }
}
