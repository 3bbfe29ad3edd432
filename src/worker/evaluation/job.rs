//! What an evaluation is asked to do, and the command line that does the same.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::attack::AttackSettings;
use crate::config::{EngineOptions, Experiment};
use crate::evaluate::robustness::{Plan, Wanted};
use crate::model::pytorch::{Normalisation, is_foreign};
use crate::train::run_steps;

/// Checkpoints and what to do with them.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationJob {
    /// Run directories or checkpoint files.
    pub checkpoints: Vec<PathBuf>,
    /// The attacks; clean images come first in any case.
    pub wanted: Vec<Wanted>,
    /// Their settings.
    pub settings: AttackSettings,
    /// Whether attacks are run that check the others.
    pub controls: bool,
    /// Number of test images, in equal shares of each class; `None` for all.
    pub limit: Option<usize>,
    /// Directory of the report, with one directory in it for each of several checkpoints; `None` for a free one
    /// beside each checkpoint.
    pub directory: Option<PathBuf>,
    /// Whether the images of every attack are written, too.
    pub keep_images: bool,
    /// The engine.
    pub engine: EngineOptions,
    /// What checkpoints of other programs do not say about themselves.
    pub foreign: Option<Foreign>,
    /// Number of checkpoints that are evaluated already, when a job is continued.
    pub skip: usize,
}

/// What a checkpoint of another program does not say about itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Foreign {
    /// Its experiment: architecture and data set.
    pub experiment: Box<Experiment>,
    /// How it normalises images, if its buffers do not say so.
    pub normalize: Option<Normalisation>,
}

impl EvaluationJob {
    /// The attacks on a network of this experiment.
    ///
    /// # Errors
    /// If an attack does not exist in the norm.
    pub fn plan(&self, experiment: &Experiment) -> Result<Plan, String> {
        Plan::of(&self.wanted, &self.settings, &run_steps(experiment), self.controls)
    }

    /// Directories for the report of a checkpoint, in order of preference; only one if the user chose it.
    pub(super) fn directories(&self, checkpoint: usize) -> Vec<PathBuf> {
        /// More reports of one checkpoint than anyone keeps.
        const MOST: usize = 10_000;
        match (&self.directory, self.checkpoints.get(checkpoint)) {
            (Some(directory), _) if self.checkpoints.len() > 1 => {
                vec![directory.join(format!("{:02}", checkpoint + 1))]
            }
            (Some(directory), _) => vec![directory.clone()],
            (None, Some(path)) => {
                let (place, name) = beside(path);
                let numbered = |k: usize| if k == 1 { name.clone() } else { format!("{name}-{k}") };
                (1..=MOST).map(|k| place.join(numbered(k))).collect()
            }
            (None, None) => Vec::new(),
        }
    }

    /// The command lines that do the same, one for each checkpoint with its directory. An experiment for checkpoints of
    /// other programs is written to a file first.
    pub fn command_lines(&self, directories: &[PathBuf]) -> String {
        let mut text = String::new();
        let is_foreign = |path: &PathBuf| self.foreign.is_some() && is_foreign(path).unwrap_or(true);
        if let Some(foreign) = self.foreign.as_ref().filter(|_| self.checkpoints.iter().any(is_foreign)) {
            let toml = foreign.experiment.to_toml();
            text = format!("cat > experiment.toml <<'END'\n{}\nEND\n", toml.trim_end());
        }
        let line = |(path, directory): (&PathBuf, &PathBuf)| {
            let experiment = is_foreign(path).then_some(Path::new("experiment.toml"));
            self.command_line(path, directory, experiment)
        };
        text += &self.checkpoints.iter().zip(directories).map(line).collect::<Vec<_>>().join("\n");
        text
    }

    /// The command line that evaluates one checkpoint. `experiment` is a file with the experiment of a checkpoint that
    /// another program wrote.
    pub fn command_line(&self, checkpoint: &Path, directory: &Path, experiment: Option<&Path>) -> String {
        let mut words = vec!["fairtat".to_owned(), "eval".to_owned(), checkpoint.display().to_string()];
        let mut flag = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        let names: Vec<&str> = self.wanted.iter().map(|wanted| wanted.name()).collect();
        flag("attack", if names.is_empty() { "clean".into() } else { names.join(",") });
        let settings = &self.settings;
        let numbers = [("steps", settings.steps), ("queries", settings.queries), ("targets", settings.targets)];
        for (name, value) in numbers.into_iter().chain([("restarts", settings.restarts)]) {
            if let Some(value) = value {
                flag(name, value.to_string());
            }
        }
        if let Some(norm) = settings.norm {
            flag("norm", value_name(&norm));
        }
        for (name, distance) in [("epsilon", settings.epsilon), ("step-size", settings.step_size)] {
            if let Some(distance) = distance {
                flag(name, distance.to_string());
            }
        }
        flag("controls", self.controls.to_string());
        if settings.seed != 0 {
            flag("seed", settings.seed.to_string());
        }
        if let Some(limit) = self.limit {
            flag("limit", limit.to_string());
        }
        if let Some(experiment) = experiment {
            flag("config", experiment.display().to_string());
            if let Some(normalize) = self.foreign.as_ref().and_then(|foreign| foreign.normalize.as_ref()) {
                flag("normalize", normalize.to_string());
            }
        }
        let usual = EngineOptions::default();
        let engine = &self.engine;
        if engine.engine != usual.engine {
            flag("engine", value_name(&engine.engine));
        }
        if engine.device != usual.device {
            flag("device", value_name(&engine.device));
        }
        if let Some(adapter) = &engine.adapter {
            flag("adapter", adapter.clone());
        }
        flag("report", directory.display().to_string());
        let switches = [
            ("--any-iterate", settings.any_iterate),
            ("--deterministic", engine.deterministic),
            ("--no-fusion", engine.no_fusion),
            ("--save-images", self.keep_images),
        ];
        words.extend(switches.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()));
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// The name of a value on the command line.
fn value_name(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

/// A word quoted for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "/._-+,=:@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// Where the reports of a checkpoint are, and their name: `evaluation` within its run directory, or beside a file.
fn beside(path: &Path) -> (PathBuf, String) {
    const NAME: &str = "evaluation";
    let is_run = |path: &Path| path.join("config.toml").exists();
    let parent = path.parent().unwrap_or(Path::new(""));
    let run = parent.parent().filter(|run| parent.ends_with("checkpoints") && is_run(run));
    match (path.is_dir(), run) {
        (true, _) => (path.to_path_buf(), NAME.into()),
        (false, Some(run)) => (run.to_path_buf(), NAME.into()),
        (false, None) => {
            let stem = path.file_stem().map_or_else(String::new, |stem| format!("{}-", stem.to_string_lossy()));
            (parent.to_path_buf(), format!("{stem}{NAME}"))
        }
    }
}
