//! `fairtat study`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::overrides::{Asked, EngineOverride, ExperimentArgs, Source};
use super::train::{resume_run, run_new};
use super::{Stopped, Usage, print, write_json};
use crate::config::{Derived, Difference, Experiment, MethodChoice};
use crate::evaluate::FinalReport;
use crate::evaluate::method_study::{MethodRun, MethodStudy, recipe};
use crate::evaluate::study::Study;
use crate::files::FileError;
use crate::train::{MetricsRow, RunDir};

#[derive(Debug, Subcommand)]
pub(super) enum StudyCommand {
    /// Train several methods with several seeds, and tabulate mean and standard deviation
    Seeds(SeedsArgs),
    /// Train all methods with several seeds, and tabulate their differences from PGD-AT with intervals, and their time
    ///
    /// Without --preset, --config and --dataset, on the drawn shapes. All methods train for the same number of epochs;
    /// warm-ups are the published share of them. FRL and FAAL fine-tune the PGD-AT run of the same seed.
    Methods(MethodsArgs),
}

#[derive(Debug, Args)]
pub(super) struct MethodsArgs {
    /// Methods to compare with PGD-AT [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    methods: Vec<MethodChoice>,
    #[command(flatten)]
    runs: RunsArgs,
}

/// The runs of a study.
#[derive(Debug, Args)]
struct RunsArgs {
    #[command(flatten)]
    source: Source,
    /// Seeds of the runs
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Directory for the runs and the table; complete runs in it are reused, stopped ones continue
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    fields: ExperimentArgs,
}

#[derive(Debug, Args)]
pub(super) struct SeedsArgs {
    /// Methods to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [MethodChoice::At, MethodChoice::FairTat])]
    methods: Vec<MethodChoice>,
    #[command(flatten)]
    runs: RunsArgs,
}

/// Fails with the fields in which two experiments differ.
fn same(asked: &Experiment, found: &Experiment) -> Result<()> {
    let value = |value: &Value| match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let told = |Difference { path, old, new, .. }: &Difference| {
        let name = path.split_once('.').map_or(path.as_str(), |(_, name)| name);
        format!("{name}: asked for {}, found {}", value(old), value(new))
    };
    match &asked.differences(found)[..] {
        [] => Ok(()),
        differences => {
            let told = differences.iter().map(told).collect::<Vec<_>>().join("; ");
            bail!("{told}; name another directory with --out")
        }
    }
}

pub(super) fn study(command: &StudyCommand) -> Result<()> {
    match command {
        StudyCommand::Seeds(arguments) => seeds(arguments),
        StudyCommand::Methods(arguments) => methods(arguments),
    }
}

/// What the runs of a study share. Fails if a flag sets what the study varies.
fn asked(fields: &ExperimentArgs, source: &Source) -> Result<Asked> {
    let varied = [("run.seed", "seed"), ("fairness.method", "method")];
    if let Some((_, flag)) = varied.into_iter().find(|(path, _)| fields.names(path)) {
        bail!(Usage(format!("--{flag} is varied by the study; use --{flag}s")));
    }
    let mut asked = fields.asked(source)?;
    asked.tell()?;
    if asked.experiment.evaluation.test_steps == 0 {
        bail!(Usage("--test-steps: a study compares runs on the test set; expected at least 1 step, found 0".into()));
    }
    for path in [&mut asked.experiment.data.path, &mut asked.experiment.model.init].into_iter().flatten() {
        // As in the config.toml of a run.
        *path = std::path::absolute(&path).map_err(FileError::reading(&path))?;
    }
    asked.experiment.check_paths()?;
    Ok(asked)
}

/// Each value once, in the order of first appearance.
fn distinct<T: Copy + PartialEq>(values: &[T]) -> Vec<T> {
    let mut found = Vec::new();
    values.iter().for_each(|value| {
        if !found.contains(value) {
            found.push(*value);
        }
    });
    found
}

/// The directory of a run in a study.
fn run_directory(out: &Path, experiment: &Experiment) -> PathBuf {
    out.join(format!("{}-seed-{}", experiment.fairness.method.name(), experiment.run.seed))
}

/// The report of a run in `directory`: of a complete one, or after beginning or continuing it. Fails if it is stopped.
fn report(directory: &Path, experiment: Experiment, derived: Option<&Derived>) -> Result<FinalReport> {
    let done = directory.join("evaluation.json");
    if directory.join("config.toml").exists() {
        let mut found = RunDir::open(directory)?.1;
        // A study that has been moved: the weights that its own runs begin with have moved with it.
        if let (Some(asked), Some(init)) = (&experiment.model.init, &mut found.model.init)
            && within_study(asked) == within_study(init)
        {
            init.clone_from(asked);
        }
        same(&experiment, &found)
            .with_context(|| format!("{} holds a run of another experiment", directory.display()))?;
    }
    let report = if done.exists() {
        let text = crate::files::read_to_string(&done)?;
        Some(serde_json::from_str::<Box<FinalReport>>(&text).with_context(|| done.display().to_string())?)
    } else if directory.join("config.toml").exists() {
        resume_run(directory, &EngineOverride::default(), false)?
    } else {
        run_new(experiment, derived, directory)?
    };
    let stopped = || Stopped("The study is stopped; the same command continues it".into());
    report.map(|report| *report).ok_or_else(|| stopped().into())
}

/// The last three parts of the path of a checkpoint: its run, `checkpoints` and its name.
fn within_study(path: &Path) -> Vec<std::path::Component<'_>> {
    path.components().rev().take(3).collect()
}

/// Writes `study.md` and `study.json`, and prints the table.
fn write(out: &Path, text: &str, study: &impl serde::Serialize) -> Result<()> {
    crate::files::write_atomic(&out.join("study.md"), text.as_bytes())?;
    write_json(&out.join("study.json"), study)?;
    print(text)
}

fn seeds(arguments: &SeedsArgs) -> Result<()> {
    let asked = asked(&arguments.runs.fields, &arguments.runs.source)?;
    let mut reports = Vec::new();
    for method in distinct(&arguments.methods) {
        for seed in distinct(&arguments.runs.seeds) {
            let mut experiment = asked.experiment.clone();
            (experiment.fairness.method, experiment.run.seed) = (method, seed);
            let directory = run_directory(&arguments.runs.out, &experiment);
            reports.push(report(&directory, experiment, asked.derived.as_ref())?);
        }
    }
    let study = Study::new(&reports);
    write(&arguments.runs.out, &study.to_markdown(), &study)
}

/// The preset of `study methods` if no other source of settings is named.
const METHODS_PRESET: &str = "shapes-unfair";

fn methods(arguments: &MethodsArgs) -> Result<()> {
    let mut source = arguments.runs.source.clone();
    if source.preset.is_none() && source.config.is_none() && !arguments.runs.fields.names("data.dataset") {
        source.preset = Some(METHODS_PRESET.into());
    }
    let asked = asked(&arguments.runs.fields, &source)?;
    let wanted = if arguments.methods.is_empty() { MethodChoice::value_variants() } else { &arguments.methods };
    // The baseline comes first: others begin with its weights.
    let wanted = distinct(&[&[MethodChoice::At], wanted].concat());
    for method in &wanted {
        recipe(&asked.experiment, *method, |path| arguments.runs.fields.names(path)).validate()?;
    }
    let out = std::path::absolute(&arguments.runs.out).map_err(FileError::reading(&arguments.runs.out))?;
    if out.to_str().is_none() {
        let what = format!("--out: {} is not valid UTF-8, so runs cannot record where they began", out.display());
        bail!(Usage(what));
    }
    let (mut runs, mut settings) = (Vec::new(), Vec::new());
    // Seed by seed, so that an interrupted study has complete rows.
    for seed in distinct(&arguments.runs.seeds) {
        let mut baseline = None;
        for &method in &wanted {
            let mut experiment = recipe(&asked.experiment, method, |path| arguments.runs.fields.names(path));
            experiment.run.seed = seed;
            if crate::train::methods::build(&experiment, 2).needs().trained_network && experiment.model.init.is_none() {
                experiment.model.init.clone_from(&baseline);
            }
            let directory = run_directory(&out, &experiment);
            if let Some(told) = changed(&asked.experiment, &experiment).filter(|told| !settings.contains(told)) {
                settings.push(told);
            }
            let report = report(&directory, experiment, asked.derived.as_ref())?;
            let rows = RunDir::open(&directory)?.0.read_rows()?.0;
            let trained = |row: &MetricsRow| row.seconds_attack + row.seconds_update + row.seconds_statistics;
            if method == MethodChoice::At {
                baseline = Some(directory.join("checkpoints").join("last.safetensors"));
            }
            runs.push(MethodRun { method, report, epoch_seconds: rows.iter().map(trained).collect() });
        }
    }
    let study = MethodStudy::new(&runs, MethodChoice::At, settings);
    write(&arguments.runs.out, &study.to_markdown(), &study)
}

/// The settings of a method in which it differs from the others, in words.
fn changed(base: &Experiment, experiment: &Experiment) -> Option<String> {
    let differences = base.differences(experiment).into_iter();
    let shared = ["fairness.method", "run.seed", "model.init"];
    let flags: Vec<String> = differences
        .filter(|difference| !shared.contains(&difference.path.as_str()))
        .filter_map(|difference| {
            let field = crate::config::fields::field(&difference.path)?;
            Some(format!("--{} {}", field.flag, field.written(&difference.new)))
        })
        .collect();
    let from = experiment.model.init.as_ref().filter(|_| base.model.init.is_none()).map(|_| "from PGD-AT");
    let told: Vec<String> = from.map(str::to_owned).into_iter().chain(flags).collect();
    (!told.is_empty()).then(|| format!("{} {}", experiment.method().title, told.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiments_are_compared_field_by_field() {
        let asked = Experiment::preset("digits-60s").unwrap();
        assert!(same(&asked, &asked).is_ok());
        let mut found = asked.clone();
        // A field that is missing in one of the files shifts all lines after it.
        found.data.test_limit = Some(20);
        let message = |found: &Experiment| same(&asked, found).unwrap_err().to_string();
        assert_eq!(message(&found), "test_limit: asked for none, found 20; name another directory with --out");
        found.optimizer.epochs = 3;
        assert!(message(&found).contains("test_limit: asked for none, found 20; epochs: asked for 80, found 3; name"));
    }
}
