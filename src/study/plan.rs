//! The runs that a study stands for, and how they are divided.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::file::{AxisValue, StudyError, StudyFile, paths, slug};
use super::recipe::recipe;
use crate::config::defaults::{Images, starting_point};
use crate::config::{DEFAULT_PRESET, Experiment, fields};

/// Most runs of one study: more are probably an axis too many.
const MOST_RUNS: usize = 10_000;

/// One run of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedRun {
    /// Name of its directory.
    pub name: String,
    /// Its arm.
    pub arm: String,
    /// The values of the axes, such as `attack.epsilon 16/255`; empty without axes.
    pub cell: String,
    /// Its seed.
    pub seed: u64,
    /// Its experiment, without the weights that it begins with if those come from another run.
    pub experiment: Experiment,
    /// Name of the run whose last weights it begins with.
    pub after: Option<String>,
    /// Number of its group: itself and the runs that begin with its weights.
    place: usize,
}

/// One of the parts of a study that is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The whole.
    pub const ALL: Self = Self { index: 0, count: 1 };

    /// The runs of this part. Runs that begin with the weights of another belong to its part; each group of them goes to
    /// the part that has the fewest runs so far.
    pub fn of(self, runs: &[PlannedRun]) -> Vec<&PlannedRun> {
        let groups = runs.iter().map(|run| run.place + 1).max().unwrap_or(0);
        let mut sizes = vec![0; groups];
        runs.iter().for_each(|run| sizes[run.place] += 1);
        // More parts than groups: the last ones are empty.
        let mut loads = vec![0; self.count.min(groups)];
        let mut owner = Vec::new();
        for size in sizes {
            let least = (0..loads.len()).min_by_key(|part| loads[*part]).unwrap_or(0);
            loads[least] += size;
            owner.push(least);
        }
        runs.iter().filter(|run| owner[run.place] == self.index).collect()
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse::<usize>().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index: index - 1, count }),
            _ => Err(format!("expected I/N with I from 1 to N, such as 1/4, found '{text}'")),
        }
    }
}

impl StudyFile {
    /// The experiment of a run: that of the preset or file, else the defaults of the data set, with the fields of
    /// `tables`, later ones over earlier ones.
    fn experiment(&self, preset: Option<&str>, tables: &[&toml::Table], run: &str) -> Result<Experiment, StudyError> {
        let config = |source| StudyError::Config { run: run.to_owned(), source };
        let over = |start: &Experiment| {
            let mut experiment = start.clone();
            tables.iter().try_for_each(|table| put(&mut experiment, table, run))?;
            Ok::<_, StudyError>(experiment)
        };
        if let (Some(file), None) = (&self.config, preset) {
            return over(&Experiment::load(file).map_err(config)?);
        }
        let first = Experiment::preset(preset.unwrap_or(DEFAULT_PRESET)).map_err(config)?;
        let wanted = over(&first)?;
        if !tables.iter().any(|table| paths(table).iter().any(|(path, _)| path == "data.dataset")) {
            return Ok(wanted);
        }
        // As on the command line: a named data set determines what the other fields override.
        let kind = Images::of(&wanted.data).map(|images| images.kind);
        over(&starting_point(preset, &wanted.data, kind).map_err(config)?)
    }

    /// All runs, in the order in which they are trained: seed by seed, so that an interrupted study has complete
    /// comparisons.
    ///
    /// # Errors
    /// If a field does not exist, or an experiment is not valid.
    pub fn runs(&self) -> Result<Vec<PlannedRun>, StudyError> {
        let cells = self.cells();
        let seeds: BTreeSet<u64> = self.seeds.iter().copied().collect();
        let total = cells.len().saturating_mul(self.arms.len()).saturating_mul(seeds.len());
        if total > MOST_RUNS {
            let what = format!("{total} runs, expected at most {MOST_RUNS}");
            return Err(StudyError::Format { origin: self.title.clone(), what });
        }
        let mut runs: Vec<PlannedRun> = Vec::new();
        let mut place = 0;
        let mut seen = BTreeSet::new();
        for seed in self.seeds.iter().filter(|seed| seen.insert(**seed)) {
            for choices in &cells {
                let preset =
                    choices.iter().rev().find_map(|(_, choice)| choice.preset.as_deref()).or(self.preset.as_deref());
                let cell = choices.iter().map(|(axis, choice)| format!("{axis} {}", choice.name)).collect::<Vec<_>>();
                let parts: Vec<String> = choices.iter().map(|(_, choice)| slug(&choice.name)).collect();
                let name = |arm: &str| {
                    let words = parts.iter().cloned().chain([slug(arm), format!("seed-{seed}")]);
                    words.collect::<Vec<_>>().join("-")
                };
                for arm in &self.arms {
                    let run = name(&arm.name);
                    let config = |source| StudyError::Config { run: run.clone(), source };
                    let tables = [&self.set].into_iter().chain(choices.iter().map(|(_, choice)| &choice.set));
                    let tables: Vec<&toml::Table> = tables.chain([&arm.set]).collect();
                    let mut experiment = self.experiment(preset, &tables, &run)?;
                    if arm.published_shares {
                        let named: BTreeSet<String> =
                            tables.iter().flat_map(|table| paths(table)).map(|(path, _)| path).collect();
                        let method = experiment.fairness.method;
                        experiment = recipe(&experiment, method, |path| named.contains(path));
                    }
                    experiment.run.seed = *seed;
                    experiment.validate().map_err(config)?;
                    let after = arm.after.as_deref().map(name);
                    let own = after.as_ref().and_then(|after| runs.iter().find(|other| other.name == *after));
                    let at = own.map_or(place, |other| other.place);
                    if own.is_none() {
                        place += 1;
                    }
                    let cell = cell.join(", ");
                    runs.push(PlannedRun {
                        name: run,
                        arm: arm.name.clone(),
                        cell,
                        seed: *seed,
                        experiment,
                        after,
                        place: at,
                    });
                }
            }
        }
        Ok(runs)
    }

    /// All combinations of one value of each axis, with the title of the axis.
    fn cells(&self) -> Vec<Vec<(String, AxisValue)>> {
        let mut cells = vec![Vec::new()];
        for axis in &self.axes {
            let choices = axis.choices();
            let extended = |cell: &Vec<(String, AxisValue)>| {
                let of = |choice: &AxisValue| [&cell[..], &[(axis.title(), choice.clone())]].concat();
                choices.iter().map(of).collect::<Vec<_>>()
            };
            // More combinations than runs are allowed need not be listed.
            cells = cells.iter().flat_map(extended).take(MOST_RUNS + 1).collect();
        }
        cells
    }
}

/// Sets the fields of `table`.
fn put(experiment: &mut Experiment, table: &toml::Table, run: &str) -> Result<(), StudyError> {
    for (path, value) in paths(table) {
        let wrong = |what: String| StudyError::Format { origin: run.to_owned(), what: format!("{path}: {what}") };
        if fields::field(&path).is_none() {
            let near = fields::all().iter().map(|field| (strsim::jaro_winkler(field.path, &path), field.path));
            let near = near.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score > 0.75);
            let hint = near.map_or(String::new(), |(_, near)| format!("; did you mean {near}?"));
            return Err(wrong(format!("no experiment has this field{hint}")));
        }
        if path == "run.seed" {
            return Err(wrong("the study varies it: see `seeds`".into()));
        }
        let value = serde_json::to_value(&value).map_err(|error| wrong(error.to_string()))?;
        fields::write(experiment, &path, value).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
