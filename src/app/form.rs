//! The experiment being edited, with its history.
//!
//! A step of the history is what a user considers one change: a whole drag, or everything typed into a field before
//! leaving it. [`Form::set`] extends the current step while the field stays the same; [`Form::settle`] ends it.

mod command_line;
mod offer;

pub use offer::{Offer, Offered};

use std::sync::OnceLock;

use serde_json::Value;

use crate::config::defaults::DataKind;
use crate::config::fields::{self, Field, Values};
use crate::config::{Applies, ConfigError, DEFAULT_PRESET, DataConfig, Experiment, PRESETS, applies};
use crate::data::source_names;

/// Maximum number of steps that can be undone.
const HISTORY: usize = 200;

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Form {
    /// The current experiment. Change it by [`Self::set`] and the other methods, which record the history.
    pub experiment: Experiment,
    /// What the experiment is compared with: a name of [`PRESETS`], or of a [`DataKind`] for the defaults of a data
    /// set.
    pub preset: String,
    /// The data that the settings were made for or kept for, see [`Form::offer`].
    pub made_for: DataConfig,
    past: Vec<FormState>,
    future: Vec<FormState>,
    /// The field that the newest step changes; `None` if that step is finished.
    open: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct FormState {
    experiment: Experiment,
    preset: String,
    made_for: DataConfig,
}

/// An error in a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// The field.
    pub path: &'static str,
    /// What was expected and what was found.
    pub what: String,
}

/// A field in which the form differs from the run.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// The field.
    pub field: &'static Field,
    /// When the run could adopt it.
    pub applies: Applies,
}

/// A parsed preset, or the parsed defaults of a kind of data set.
#[derive(Debug)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// What it is for: the first line of its file.
    pub purpose: &'static str,
    /// The experiment.
    pub experiment: Experiment,
    /// Its values.
    pub values: Values,
    /// The kind whose defaults these are; `None` for a preset.
    pub kind: Option<DataKind>,
    /// Its group in the menu, one of [`PRESET_GROUPS`]; `None` if it stands alone.
    pub group: Option<&'static str>,
}

/// Groups of presets that are alike but for their method.
pub const PRESET_GROUPS: [&str; 2] = ["One method on digits", "As each paper trains, on CIFAR-10"];

fn group_of(preset: &str) -> Option<&'static str> {
    let [small, paper] = PRESET_GROUPS;
    match preset {
        DEFAULT_PRESET => None,
        _ if preset.starts_with("digits-") => Some(small),
        _ if preset.starts_with("cifar10-paper") => Some(paper),
        _ => None,
    }
}

impl Preset {
    /// Whether the field at `path` has another value in `values`. The defaults of a data set define neither where its
    /// images are nor the shape they are converted to.
    pub fn differs(&self, path: &str, values: &Values) -> bool {
        let compared = self.kind.is_none() || !offer::WHICH_IMAGES.contains(&path);
        compared && self.values.get(path) != values.get(path)
    }

    /// The fields that have another value in `values`.
    pub fn differences(&self, values: &Values) -> impl Iterator<Item = &'static Field> {
        self.values.differences(values).filter(|field| self.differs(field.path, values))
    }
}

/// All presets.
pub fn presets() -> &'static [Preset] {
    static ALL: OnceLock<Vec<Preset>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |(name, text): &(&'static str, &'static str)| {
            let experiment = Experiment::preset(name).ok()?;
            let purpose = text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
            Some(Preset {
                name,
                purpose,
                values: Values::of(&experiment),
                experiment,
                kind: None,
                group: group_of(name),
            })
        };
        PRESETS.iter().filter_map(read).collect()
    })
}

/// The defaults of every kind of data set.
pub fn data_sets() -> &'static [Preset] {
    static ALL: OnceLock<Vec<Preset>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |kind: DataKind| {
            let experiment = kind.defaults().ok()?;
            let (name, purpose) = (kind.name(), kind.title());
            Some(Preset { name, purpose, values: Values::of(&experiment), experiment, kind: Some(kind), group: None })
        };
        DataKind::ALL.into_iter().filter_map(read).collect()
    })
}

/// The preset, or the kind of data set, of this name.
fn named(name: &str) -> Option<&'static Preset> {
    presets().iter().chain(data_sets()).find(|preset| preset.name == name)
}

impl Default for Form {
    fn default() -> Self {
        let preset = DEFAULT_PRESET.to_owned();
        let experiment = Experiment::preset(&preset).unwrap_or_default();
        let made_for = experiment.data.clone();
        Self { experiment, preset, made_for, past: Vec::new(), future: Vec::new(), open: None }
    }
}

impl Form {
    /// The form of the first start, with this preset; the default preset if it does not exist.
    pub fn with_preset(name: &str) -> Self {
        let Some(preset) = named(name) else { return Self::default() };
        let (experiment, preset) = (preset.experiment.clone(), preset.name.to_owned());
        Self { made_for: experiment.data.clone(), experiment, preset, ..Self::default() }
    }

    /// The form as it was at the end of the last run of the program. Without `made_for`, its settings count as made for
    /// its data.
    pub fn restored(experiment: Experiment, preset: &str, made_for: Option<DataConfig>) -> Self {
        let preset = named(preset).map_or(DEFAULT_PRESET, |preset| preset.name);
        let made_for = made_for.unwrap_or_else(|| experiment.data.clone());
        Self { experiment, preset: preset.to_owned(), made_for, ..Self::default() }
    }

    /// What the experiment is compared with; `None` if [`Self::preset`] names nothing that exists.
    pub fn base(&self) -> Option<&'static Preset> {
        named(&self.preset)
    }

    /// Whether a field differs from the preset.
    pub fn differs(&self, path: &str) -> bool {
        self.base().is_some_and(|base| base.differs(path, &Values::of(&self.experiment)))
    }

    /// Changes a field.
    ///
    /// # Errors
    /// If the field does not exist or cannot hold the value; nothing changes then.
    pub fn set(&mut self, path: &str, value: Value) -> Result<(), String> {
        let mut changed = self.experiment.clone();
        fields::write(&mut changed, path, value)?;
        if changed != self.experiment {
            if self.open.as_deref() != Some(path) {
                self.remember();
                self.open = Some(path.to_owned());
            }
            self.experiment = changed;
        }
        Ok(())
    }

    /// Uses a directory of images as the data set: as the copy of the named set, or as the user's own images if the
    /// chosen set is built in. One step.
    ///
    /// # Errors
    /// If the name of the directory is not valid Unicode.
    pub fn set_data_path(&mut self, path: &std::path::Path) -> Result<(), String> {
        let Some(text) = path.to_str() else {
            return Err(format!(
                "data.path: {} is not valid Unicode and cannot be saved in an experiment file",
                path.display()
            ));
        };
        let mut experiment = self.experiment.clone();
        experiment.data.path = Some(text.into());
        if matches!(experiment.data.dataset.as_str(), "digits" | "shapes") {
            experiment.data.dataset = "folder".into();
        }
        self.replace(FormState { experiment, ..self.state() });
        Ok(())
    }

    /// Ends the step that the last [`Self::set`] began: later changes are undone separately.
    pub fn settle(&mut self) {
        // A drag that returns to where it began is not a step.
        if self.open.take().is_some() && self.past.last() == Some(&self.state()) {
            self.past.pop();
        }
    }

    /// Resets a field to the value of the preset.
    pub fn reset(&mut self, path: &str) {
        if let Some(base) = self.base() {
            self.settle();
            // The preset's own value is always valid for its field.
            let _ = self.set(path, base.values.get(path).clone());
            self.settle();
        }
    }

    /// Replaces the experiment by a preset, or by the defaults of a kind of data set while keeping the images.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPreset`].
    pub fn load_preset(&mut self, name: &str) -> Result<(), ConfigError> {
        let experiment = match named(name) {
            Some(base) if base.kind.is_some() => {
                let mut experiment = base.experiment.clone();
                offer::keep_images(&mut experiment.data, &self.experiment.data);
                experiment
            }
            _ => Experiment::preset(name)?,
        };
        let made_for = experiment.data.clone();
        self.replace(FormState { experiment, preset: name.to_owned(), made_for });
        Ok(())
    }

    /// Replaces the experiment, for example by that of a run, as one step; it is then compared with the closest preset.
    pub fn load(&mut self, experiment: Experiment) {
        let values = Values::of(&experiment);
        let current = self.base().into_iter();
        let kind = DataKind::of(&experiment.data, None);
        // The defaults of another kind of data set are no basis for a comparison.
        let fits = |base: &&Preset| base.kind.is_none_or(|of| kind.is_none_or(|kind| kind == of));
        let bases = current.chain(presets()).chain(data_sets()).filter(fits);
        let closest = bases.min_by_key(|preset| preset.differences(&values).count());
        let preset = closest.map_or_else(|| self.preset.clone(), |preset| preset.name.to_owned());
        let made_for = experiment.data.clone();
        self.replace(FormState { experiment, preset, made_for });
    }

    /// Replaces the experiment by the contents of a file.
    ///
    /// # Errors
    /// [`ConfigError::Format`] with the line; `origin` names the file. [`ConfigError::Invalid`] for numbers that are
    /// not finite.
    pub fn load_toml(&mut self, text: &str, origin: &str) -> Result<(), ConfigError> {
        let experiment = Experiment::from_toml(text, origin)?;
        // A form can hold values out of range, but no NaN or infinity.
        let again = serde_json::to_value(&experiment).and_then(serde_json::from_value::<Experiment>);
        if again.ok().as_ref() != Some(&experiment) {
            experiment.validate()?;
        }
        self.load(experiment);
        Ok(())
    }

    /// The experiment as a file with every field written out.
    pub fn to_toml(&self) -> String {
        self.experiment.to_toml()
    }

    /// Whether there is something to undo.
    pub fn can_undo(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether there is something to redo.
    pub fn can_redo(&self) -> bool {
        !self.future.is_empty()
    }

    /// Undoes the last step.
    pub fn undo(&mut self) {
        self.settle();
        if let Some(state) = self.past.pop() {
            self.future.push(self.state());
            self.restore(state);
        }
    }

    /// Redoes the step that was undone last.
    pub fn redo(&mut self) {
        self.settle();
        if let Some(state) = self.future.pop() {
            self.past.push(self.state());
            self.restore(state);
        }
    }

    /// All errors, each with its field; a run can start if there are none.
    pub fn errors(&self) -> Vec<FieldError> {
        let mut errors = self.data_errors();
        let mut experiment = self.experiment.clone();
        // `validate` reports the first error; once that is corrected it reports the next.
        while let Err(error) = experiment.validate() {
            let (path, what) = match error {
                ConfigError::Invalid { field, what } => (field, what),
                other => ("run.seed", other.to_string()),
            };
            let known = errors.iter().any(|error| error.path == path);
            if !known {
                errors.push(FieldError { path, what });
            }
            let mended = self.base().map(|base| fields::write(&mut experiment, path, base.values.get(path).clone()));
            if known || !matches!(mended, Some(Ok(()))) {
                break;
            }
        }
        errors
    }

    /// Errors of the data set that can be found without reading the disk.
    fn data_errors(&self) -> Vec<FieldError> {
        let data = &self.experiment.data;
        let name = data.dataset.as_str();
        let error = |path, what: String| vec![FieldError { path, what }];
        if !source_names().any(|known| known == name) {
            let known = source_names().collect::<Vec<_>>().join(", ");
            return error("data.dataset", format!("expected one of {known}, found '{name}'"));
        }
        match (&data.path, name) {
            (None, "folder" | "npy") => error("data.path", format!("the data set '{name}' needs a folder")),
            (Some(path), "digits" | "shapes") => {
                error("data.path", format!("'{name}' is built in and has no folder, found {}", path.display()))
            }
            _ => Vec::new(),
        }
    }

    /// The fields in which the form differs from the experiment of a run.
    pub fn pending(&self, live: &Experiment) -> Vec<Pending> {
        // A run keeps paths that do not depend on the working directory.
        let mut own = self.experiment.clone();
        let _ = own.make_paths_absolute();
        let differences = Values::of(&own);
        let differences = differences.differences(&Values::of(live)).collect::<Vec<_>>();
        // A change that is not known to apply during a run waits for the next run.
        let when = |path| applies(path).unwrap_or(Applies::Restart);
        differences.into_iter().map(|field| Pending { field, applies: when(field.path) }).collect()
    }

    /// The experiment of a run with every change of the form that the run can adopt; `None` if there is no such change.
    pub fn change(&self, live: &Experiment) -> Option<Experiment> {
        let changed = live.with(&self.experiment, &[Applies::Now, Applies::NextEpoch]);
        (changed != *live).then_some(changed)
    }

    fn state(&self) -> FormState {
        let (experiment, preset, made_for) = (self.experiment.clone(), self.preset.clone(), self.made_for.clone());
        FormState { experiment, preset, made_for }
    }

    fn restore(&mut self, state: FormState) {
        FormState { experiment: self.experiment, preset: self.preset, made_for: self.made_for } = state;
    }

    fn replace(&mut self, state: FormState) {
        self.settle();
        if state != self.state() {
            self.remember();
            self.restore(state);
        }
    }

    /// Begins a step.
    fn remember(&mut self) {
        self.future.clear();
        self.past.push(self.state());
        if self.past.len() > HISTORY {
            self.past.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_drag_is_one_step_and_so_is_each_field() {
        let mut form = Form::default();
        for lr in [0.09, 0.08, 0.05] {
            form.set("optimizer.lr", json!(lr)).unwrap();
        }
        form.settle();
        form.set("optimizer.lr", json!(0.04)).unwrap();
        form.set("optimizer.epochs", json!(5)).unwrap();
        assert!(form.differs("optimizer.lr") && form.differs("optimizer.epochs") && !form.differs("run.seed"));
        form.undo();
        assert_eq!((form.experiment.optimizer.lr, form.experiment.optimizer.epochs), (0.04, 80));
        form.undo();
        assert_eq!(form.experiment.optimizer.lr, 0.05);
        form.undo();
        assert!(!form.differs("optimizer.lr") && !form.can_undo());
        form.redo();
        form.redo();
        form.redo();
        assert_eq!((form.experiment.optimizer.lr, form.experiment.optimizer.epochs), (0.04, 5));
        assert!(!form.can_redo());
    }

    #[test]
    fn a_drag_back_to_the_start_is_no_step_and_a_new_change_ends_redoing() {
        let mut form = Form::default();
        form.set("optimizer.lr", json!(0.2)).unwrap();
        form.set("optimizer.lr", json!(0.1)).unwrap();
        form.settle();
        assert!(!form.can_undo());
        form.reset("optimizer.lr");
        assert!(!form.can_undo());
        form.set("optimizer.lr", json!(0.2)).unwrap();
        form.undo();
        form.set("run.seed", json!(7)).unwrap();
        assert!(!form.can_redo());
        for seed in 0..300 {
            form.set("run.seed", json!(seed)).unwrap();
            form.settle();
        }
        assert_eq!(form.past.len(), HISTORY);
    }

    #[test]
    fn presets_and_files_are_steps_that_can_be_taken_back() {
        let mut form = Form::default();
        form.load_preset("shapes-unfair").unwrap();
        form.set("run.seed", json!(3)).unwrap();
        form.reset("run.seed");
        assert!(!form.differs("run.seed"));
        let text = Experiment::preset("cifar10-paper").unwrap().to_toml().replace("momentum = 0.9", "momentum = 0.8");
        form.load_toml(&text, "own.toml").unwrap();
        assert_eq!(form.preset, "cifar10-paper");
        assert!(form.differs("optimizer.momentum"));
        let message = form.load_toml("[attack]\nradius = 1", "own.toml").unwrap_err().to_string();
        assert!(message.starts_with("own.toml: line 2"), "{message}");
        let message = form.load_toml("[optimizer]\nlr = nan", "own.toml").unwrap_err().to_string();
        assert!(message.contains("optimizer.lr: expected a number above 0"), "{message}");
        assert!(form.load_preset("none").is_err());
        assert_eq!(Experiment::from_toml(&form.to_toml(), "").unwrap(), form.experiment);
        form.undo();
        assert_eq!(form.preset, "shapes-unfair");
        form.set_data_path(std::path::Path::new("my/images")).unwrap();
        assert_eq!(form.experiment.data.dataset, "folder");
        assert_eq!(form.errors(), []);
        form.undo();
        assert_eq!((form.experiment.data.dataset.as_str(), &form.experiment.data.path), ("shapes", &None));
    }

    #[test]
    fn every_mistake_is_shown_at_its_field() {
        let mut form = Form::default();
        assert_eq!(form.errors(), []);
        form.set("optimizer.lr", json!(-1)).unwrap();
        form.set("optimizer.momentum", json!(1.5)).unwrap();
        form.set("data.dataset", json!("folder")).unwrap();
        let paths: Vec<_> = form.errors().iter().map(|error| error.path).collect();
        assert_eq!(paths, ["data.path", "optimizer.lr", "optimizer.momentum"]);
        form.set("data.dataset", json!("cifar")).unwrap();
        assert!(form.errors()[0].what.contains("cifar10"));
        let mut form = Form::default();
        form.set("data.path", json!("here")).unwrap();
        form.set("run.engine", json!("wgsl")).unwrap();
        form.set("run.device", json!("cpu")).unwrap();
        let paths: Vec<_> = form.errors().iter().map(|error| error.path).collect();
        assert_eq!(paths, ["data.path", "run.device"]);
    }

    #[test]
    fn a_run_takes_over_what_it_can_and_nothing_else() {
        let mut form = Form::default();
        let live = form.experiment.clone();
        assert!(form.pending(&live).is_empty());
        form.set("model.width", json!(8)).unwrap();
        assert_eq!(form.pending(&live)[0].applies, Applies::Restart);
        assert_eq!(form.change(&live), None);
        form.set("optimizer.lr", json!(0.02)).unwrap();
        assert_ne!(form.pending(&live)[1].applies, Applies::Restart);
        let mut expected = live.clone();
        expected.optimizer.lr = 0.02;
        assert_eq!(form.change(&live), Some(expected));
    }

    #[test]
    fn a_path_is_not_pending_because_the_run_keeps_it_absolute() {
        let mut form = Form::default();
        form.set("model.init", json!("runs/robust")).unwrap();
        let mut live = form.experiment.clone();
        live.make_paths_absolute().unwrap();
        assert_ne!(live.model.init, form.experiment.model.init);
        assert!(form.pending(&live).is_empty());
        form.set("model.init", json!("runs/other")).unwrap();
        assert_eq!(form.pending(&live).len(), 1);
    }
}
