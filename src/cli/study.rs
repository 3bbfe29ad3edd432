//! `fairtat study`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::overrides::{Asked, EngineOverride, ExperimentArgs, Source};
use super::train::{resume_run, run_new};
use super::{Stopped, Usage, print, write_json};
use crate::config::{Derived, Difference, Experiment, MethodChoice, without_effect};
use crate::data::{ImageShape, first_shape};
use crate::evaluate::FinalReport;
use crate::evaluate::method_study::{MethodRun, MethodStudy, recipe};
use crate::evaluate::study::Study;
use crate::files::FileError;
use crate::train::{MetricsRow, RunDir, evaluation_attack, run_steps};

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

/// Fails with the fields in which two experiments differ. Values count, not how they are written: an unset field is what it
/// stands for, a path is the directory that it names, and a field without effect in either does not count.
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
    let [asked, found] = [asked, found].map(as_it_runs);
    let counts = |difference: &Difference| {
        [&asked, &found].iter().any(|experiment| without_effect(experiment, &difference.path).is_none())
    };
    match &asked.differences(&found).into_iter().filter(counts).collect::<Vec<_>>()[..] {
        [] => Ok(()),
        differences => {
            let told = differences.iter().map(told).collect::<Vec<_>>().join("; ");
            bail!("{told}; name another directory with --out")
        }
    }
}

/// The experiment with a value in every field that stands for one when it is unset, and with real paths.
fn as_it_runs(experiment: &Experiment) -> Experiment {
    let mut e = experiment.clone();
    let real = |path: &Path| {
        let absolute = || std::path::absolute(path).map(|path| path.components().collect());
        path.canonicalize().or_else(|_| absolute()).unwrap_or_else(|_| path.to_path_buf())
    };
    let named = |e: &Experiment| e.source().root.join(&e.data.dataset);
    if without_effect(&e, "data.path").is_none() {
        e.data.path = Some(real(&e.data.path.clone().unwrap_or_else(|| named(&e))));
    }
    e.model.init = e.model.init.as_deref().map(real);
    e.model.width = Some(e.model.width.unwrap_or(e.model.arch.default_width()));
    (e.cfa.lambda_1, e.frl.tau) = (Some(e.cfa.lambda_1()), Some(e.frl.tau()));
    e.evaluation.eval_epsilon = Some(run_steps(&e).eval_epsilon);
    // One step size for all evaluations, if it is the one that each has without it.
    let mut unset = e.clone();
    unset.evaluation.eval_step_size = None;
    let steps =
        |e: &Experiment| [e.evaluation.eval_steps, e.evaluation.test_steps].map(|n| evaluation_attack(e, n).step_size);
    if steps(&e) == steps(&unset) {
        e = unset;
    }
    if let Some(shape) = native_shape(&e) {
        e.data.channels = Some(e.data.channels.unwrap_or(shape.channels));
        let side = (shape.width == shape.height).then_some(shape.width);
        e.data.image_size = e.data.image_size.or(side);
    }
    e
}

/// The shape of the images of a data set before they are fitted; `None` if it is not known.
fn native_shape(experiment: &Experiment) -> Option<ImageShape> {
    match experiment.data.dataset.as_str() {
        "digits" => Some(ImageShape::new(1, 8, 8)),
        "cifar10" | "cifar100" | "shapes" => Some(ImageShape::new(3, 32, 32)),
        "mnist" | "fashion-mnist" => Some(ImageShape::new(1, 28, 28)),
        other => first_shape(other, experiment.data.path.as_deref()).ok(),
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
    let begun = directory.join("config.toml").exists();
    if begun {
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
    // A report that cannot be read is written again. Without a config.toml nobody knows what it is of.
    let known = crate::files::read(&done).ok().and_then(|text| serde_json::from_slice::<Box<FinalReport>>(&text).ok());
    let report = match known.filter(|_| begun) {
        Some(report) => Some(report),
        None if begun => resume_run(directory, &EngineOverride::default(), false)?,
        None => run_new(experiment, derived, RunDir::at(directory))?,
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

    /// What is written in another way is not another experiment.
    #[test]
    fn the_values_of_a_run_count_and_not_their_text() {
        let dir = tempfile::tempdir().unwrap();
        let (images, other) = (dir.path().join("images"), dir.path().join("other"));
        for path in [&images, &other] {
            std::fs::create_dir(path).unwrap();
        }
        let mut asked = Experiment::preset("digits-60s").unwrap();
        (asked.data.dataset, asked.data.path) = ("cifar10".into(), Some(images.clone()));
        let is_same = |change: &dyn Fn(&mut Experiment)| {
            let mut found = asked.clone();
            change(&mut found);
            (same(&asked, &found).is_ok(), same(&found, &asked).is_ok())
        };
        let same_as: [&dyn Fn(&mut Experiment); 9] = [
            &|e| e.data.path = Some(format!("{}/", images.display()).into()),
            &|e| e.data.path = Some(dir.path().join("other/.././images")),
            &|e| e.model.width = Some(e.model.arch.default_width()),
            &|e| e.evaluation.eval_epsilon = Some(e.attack.epsilon),
            &|e| e.evaluation.eval_step_size = Some(e.attack.step_size),
            &|e| (e.data.channels, e.data.image_size) = (Some(3), Some(32)),
            &|e| (e.cfa.lambda_1, e.frl.tau) = (Some(e.cfa.lambda_1()), Some(e.frl.tau())),
            // Without effect in this method and on these images.
            &|e| e.trades.beta += 1.0,
            &|e| e.data.shapes_seed = 7,
        ];
        for (i, change) in same_as.iter().enumerate() {
            assert_eq!(is_same(*change), (true, true), "{i}");
        }
        let other_than: [&dyn Fn(&mut Experiment); 6] = [
            &|e| e.data.path = Some(other.clone()),
            &|e| e.data.path = None,
            &|e| e.model.width = Some(e.model.arch.default_width() + 1),
            &|e| e.evaluation.eval_epsilon = Some(crate::units::Epsilon::levels(1.0)),
            &|e| e.data.channels = Some(1),
            &|e| e.run.seed += 1,
        ];
        for (i, change) in other_than.iter().enumerate() {
            assert_eq!(is_same(*change), (false, false), "{i}");
        }
        #[cfg(unix)]
        {
            let link = dir.path().join("link");
            std::os::unix::fs::symlink(&images, &link).unwrap();
            assert_eq!(is_same(&|e| e.data.path = Some(link.clone())), (true, true));
        }
        // The directory of a named set is what an unset path stands for.
        let named = asked.source().root.join("cifar10");
        (asked.data.path, asked.data.limit) = (None, Some(10));
        let mut found = asked.clone();
        found.data.path = Some(named);
        assert!(same(&asked, &found).is_ok());
    }

    /// A report without the experiment that it is of is not taken for the one that is asked for.
    #[test]
    fn a_report_without_its_experiment_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("evaluation.json"), serde_json::to_vec(&FinalReport::default()).unwrap())
            .unwrap();
        let error = report(dir.path(), Experiment::preset("digits-60s").unwrap(), None).unwrap_err().to_string();
        assert!(error.contains("holds results of a run, but not its config.toml"), "{error}");
    }
}
