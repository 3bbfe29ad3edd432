//! `fairtat study`.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use serde_json::Value;

use super::overrides::{EngineOverride, ExperimentArgs, Source};
use super::train::{resume_run, run_new};
use super::{Stopped, Usage, interrupt, print, progress};
use crate::config::{DataConfig, Difference, Experiment, fields, without_effect};
use crate::console::tell;
use crate::data::{ImageShape, first_shape};
use crate::evaluate::FinalReport;
use crate::files::{FileError, write_atomic};
use crate::lock::DirectoryLock;
use crate::study::{
    CostReport, Outcome, PlannedRun, READY_MADE, Results, Shard, StudyError, StudyFile, StudyReport, add_peak,
    cost_csv, cost_markdown, figures, markdown, measure, measured, name_of_failure, named, open_study, report_csv,
    runs_csv, vulnerability_csv,
};
use crate::train::{RunDir, evaluation_attack, run_steps};

#[derive(Debug, Subcommand)]
pub(super) enum StudyCommand {
    /// Train and measure all runs of a study; one that was stopped continues
    ///
    /// A study is a TOML file, or one of those that come with the program (`fairtat study list`). Fields on the command
    /// line are set in all its runs. A run that fails is named in the report and does not stop the others; the same
    /// command tries it again. With --shard, processes divide the runs among themselves, on one machine or on several
    /// with a directory each; `fairtat study report` merges them.
    Run(RunArgs),
    /// Show what has become of every run
    Status(StatusArgs),
    /// Write the report of one or several directories of a study
    Report(ReportArgs),
    /// List the studies that come with the program
    List,
    /// Print the TOML file of a study, as a start for one's own
    Show {
        /// Name or file
        study: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Name of a study, its file, or the directory of one that was begun
    study: PathBuf,
    /// Directory for the runs and the report [default: studies/NAME, or the directory that was named]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Run one of N parts: the I-th of the runs, counted from 1
    #[arg(long, value_name = "I/N", default_value = "1/1")]
    shard: Shard,
    /// Seeds of the runs [default: those of the study]
    #[arg(long, value_delimiter = ',')]
    seeds: Vec<u64>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    fields: ExperimentArgs,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Directories of the study
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Directories of the study: that of the whole, or those of its parts
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Directory for the report [default: the first of them]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
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
        StudyCommand::Run(arguments) => run(arguments),
        StudyCommand::Status(arguments) => status(arguments),
        StudyCommand::Report(arguments) => {
            let directories = &arguments.dirs;
            let (file, plan) = open_study(directories)?;
            let out = arguments.out.as_ref().unwrap_or(&directories[0]);
            report(&file, &plan, directories, out)
        }
        StudyCommand::List => {
            let line = |(name, text): (&str, &str)| {
                let file = StudyFile::from_toml(text, name)?;
                Ok::<_, StudyError>(format!("{name:<14} {}, {} runs\n", file.title, file.runs()?.len()))
            };
            print(&READY_MADE.into_iter().map(line).collect::<Result<String, _>>()?)
        }
        StudyCommand::Show { study } => print(&named(study).map_err(usage)?.0),
    }
}

/// A study that does not exist or is not one is wrong usage.
fn usage(error: StudyError) -> anyhow::Error {
    match error {
        StudyError::Unknown { .. } | StudyError::Format { .. } | StudyError::Config { .. } => {
            Usage(error.to_string()).into()
        }
        other => other.into(),
    }
}

/// The study that the arguments ask for, with all its fields and absolute paths, and the directory for it.
fn asked(arguments: &RunArgs) -> Result<(StudyFile, PathBuf)> {
    let (text, origin) = named(&arguments.study).map_err(usage)?;
    let name = origin.as_ref().map_or_else(|| arguments.study.display().to_string(), |file| file.display().to_string());
    let mut file = StudyFile::from_toml(&text, &name).map_err(usage)?;
    let out = match (&arguments.out, &origin) {
        (Some(out), _) => out.clone(),
        (None, Some(_)) if arguments.study.is_dir() => arguments.study.clone(),
        (None, _) => Path::new("studies").join(arguments.study.file_stem().unwrap_or(arguments.study.as_os_str())),
    };
    if let (Some(config), Some(origin)) = (&mut file.config, &origin) {
        *config = origin.parent().unwrap_or(Path::new("")).join(&*config);
    }
    if let Some(preset) = &arguments.source.preset {
        (file.preset, file.config) = (Some(preset.clone()), None);
    }
    if let Some(config) = &arguments.source.config {
        (file.preset, file.config) = (None, Some(config.clone()));
    }
    if let Some(config) = &mut file.config {
        absolute(config)?;
    }
    if !arguments.seeds.is_empty() {
        file.seeds.clone_from(&arguments.seeds);
    }
    if arguments.fields.names("run.seed") {
        bail!(Usage("--seed is varied by the study; use --seeds".into()));
    }
    let varied = file.varied();
    let given = arguments.fields.experiment(&Source::default())?;
    for field in fields::all().iter().filter(|field| arguments.fields.names(field.path)) {
        if varied.contains(field.path) {
            bail!(Usage(format!(
                "--{} is varied by the study '{}'; edit its file to change that",
                field.flag, file.title
            )));
        }
        let mut value = fields::Values::of(&given).get(field.path).clone();
        if field.path == "data.path" || field.path == "model.init" {
            // As in the config.toml of a run.
            if let Some(path) = value.as_str() {
                let absolute = std::path::absolute(path).map_err(FileError::reading(Path::new(path)))?;
                value = absolute.to_str().map_or(Value::Null, Into::into);
            }
        }
        if let Ok(value) = toml::Value::try_from(&value) {
            file.give(field.path, value);
        }
    }
    Ok((file, out))
}

/// As in the config.toml of a run, a path does not depend on the working directory.
fn absolute(path: &mut PathBuf) -> Result<(), FileError> {
    let found = std::path::absolute(&*path).map_err(FileError::reading(&*path))?;
    *path = found;
    Ok(())
}

fn run(arguments: &RunArgs) -> Result<()> {
    let (file, out) = asked(arguments)?;
    let mut plan = file.runs().map_err(usage)?;
    for run in &mut plan {
        if run.experiment.evaluation.test_steps == 0 {
            bail!(Usage(
                "--test-steps: a study compares runs on the test set; expected at least 1 step, found 0".into()
            ));
        }
        let DataConfig { path, .. } = &mut run.experiment.data;
        for path in [path, &mut run.experiment.model.init].into_iter().flatten() {
            absolute(path)?;
        }
        run.experiment.check_paths()?;
    }
    if out.to_str().is_none() {
        let what = format!("--out: {} is not valid UTF-8, so runs cannot record where they began", out.display());
        bail!(Usage(what));
    }
    let out = std::path::absolute(&out).map_err(FileError::reading(&out))?;
    std::fs::create_dir_all(&out).map_err(FileError::writing(&out))?;
    write_study(&out, &file)?;
    let own = arguments.shard.of(&plan);
    tell!("{}: {} of {} runs, in {}.", file.title, own.len(), plan.len(), out.display());
    let mut failed = 0;
    for (at, run) in own.iter().enumerate() {
        match finish(&file, &out, run, &format!("{}/{}", at + 1, own.len())) {
            Ok(()) => {
                let _ = std::fs::remove_file(name_of_failure(&out, &run.name));
            }
            Err(error) if error.is::<Stopped>() => return Err(error),
            Err(error) => {
                failed += 1;
                let what = crate::worker::sentence(&*error);
                tell!("error: {}: {what}", run.name);
                write_atomic(&name_of_failure(&out, &run.name), format!("{what}\n").as_bytes())?;
            }
        }
    }
    let directories = [out.clone()];
    let results = Results::read(&directories, &plan);
    let open = plan
        .iter()
        .filter(|run| matches!(results.runs.get(&run.name), Some(Outcome::Finished(_) | Outcome::Failed(_))))
        .count();
    if open == plan.len() {
        report(&file, &plan, &directories, &out)?;
    } else {
        let rest = plan.len() - open;
        tell!("This part is done. {rest} runs belong to others; then: fairtat study report DIR...");
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} runs failed; the same command tries them again", own.len()),
    }
}

/// Writes `study.toml`. Of several processes at once, each writes the same.
fn write_study(out: &Path, file: &StudyFile) -> Result<()> {
    let path = out.join("study.toml");
    let text = file.to_toml();
    if crate::files::read_to_string(&path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    let _lock = DirectoryLock::take(out);
    Ok(write_atomic(&path, text.as_bytes())?)
}

/// Trains and measures one run, if it is not complete.
fn finish(file: &StudyFile, out: &Path, run: &PlannedRun, number: &str) -> Result<()> {
    let mut experiment = run.experiment.clone();
    if let Some(after) = &run.after {
        let weights = out.join(after).join("checkpoints").join("last.safetensors");
        if !out.join(after).join("evaluation.json").exists() {
            bail!("it begins with the weights of {after}, which is not complete");
        }
        experiment.model.init = Some(weights);
    }
    trained(&out.join(&run.name), experiment.clone(), number)?;
    if file.measure.needs_network() {
        let stop = interrupt::stops("after this batch");
        let bar = progress::images(1000, format!("{number} {}", run.name));
        let found = measure(out, &run.name, &file.weights, &file.measure, &mut |what, part| {
            bar.set_message(what.to_owned());
            bar.set_position((1000.0 * part) as u64);
            !stop.load(Ordering::SeqCst)
        });
        bar.finish_and_clear();
        if found?.is_none() {
            bail!(stopped());
        }
    }
    if file.measure.cost {
        measure_memory(out, run, &experiment)?;
    }
    Ok(())
}

fn stopped() -> Stopped {
    Stopped("The study is stopped; the same command continues it".into())
}

/// Trains one run, or continues it. Fails if it is stopped.
fn trained(directory: &Path, experiment: Experiment, number: &str) -> Result<()> {
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
    if known.is_some() && begun {
        return Ok(());
    }
    tell!("\n{number} {}", directory.display());
    let report = match begun {
        true => resume_run(directory, &EngineOverride::default(), false)?,
        false => run_new(experiment, None, RunDir::at(directory))?,
    };
    report.map(|_| ()).ok_or_else(|| stopped().into())
}

/// The last three parts of the path of a checkpoint: its run, `checkpoints` and its name.
fn within_study(path: &Path) -> Vec<std::path::Component<'_>> {
    path.components().rev().take(3).collect()
}

/// Measures the memory of a process that trains one short epoch, where the system says it.
fn measure_memory(out: &Path, run: &PlannedRun, experiment: &Experiment) -> Result<()> {
    if !cfg!(target_os = "linux") || measured(out, &run.name).is_some_and(|known| known.peak_bytes.is_some()) {
        return Ok(());
    }
    let mut short = experiment.clone();
    (short.optimizer.epochs, short.evaluation.test_steps) = (1, 0);
    (short.averaging.average_from, short.run.examples) = (0, 0);
    let directory = out.join(format!(".memory-{}", run.name));
    // What a process left that was killed here.
    let remove = || if directory.exists() { std::fs::remove_dir_all(&directory) } else { Ok(()) };
    remove().map_err(FileError::writing(&directory))?;
    std::fs::create_dir(&directory).map_err(FileError::writing(&directory))?;
    let config = directory.join("config.toml");
    write_atomic(&config, short.to_toml().as_bytes())?;
    let program = std::env::current_exe().map_err(FileError::reading(Path::new("/proc/self/exe")))?;
    let mut child = std::process::Command::new(&program)
        .arg("train")
        .arg("--config")
        .arg(&config)
        .arg("--run-dir")
        .arg(directory.join("run"))
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .map_err(FileError::reading(&program))?;
    let stop = interrupt::stops("now");
    let status = PathBuf::from(format!("/proc/{}/status", child.id()));
    let mut peak = None;
    let ended = loop {
        peak = crate::files::of_kernel(&status).as_deref().and_then(peak_of).max(peak);
        if stop.load(Ordering::SeqCst) {
            let _ = child.kill();
            let _ = child.wait();
            remove().map_err(FileError::writing(&directory))?;
            bail!(stopped());
        }
        if let Some(ended) = child.try_wait().map_err(FileError::reading(&program))? {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    remove().map_err(FileError::writing(&directory))?;
    match peak {
        Some(peak) if ended.success() => Ok(add_peak(out, &run.name, peak)?),
        _ => bail!("the process whose memory is measured ended with {ended}"),
    }
}

/// Most resident memory in bytes, from the text of `/proc/PID/status`.
fn peak_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

fn status(arguments: &StatusArgs) -> Result<()> {
    let (file, plan) = open_study(&arguments.dirs)?;
    let results = Results::read(&arguments.dirs, &plan);
    let width = plan.iter().map(|run| run.name.chars().count()).max().unwrap_or(0);
    let mut text = format!("{}\n", file.title);
    let mut done = 0;
    for run in &plan {
        let outcome = results.runs.get(&run.name).unwrap_or(&Outcome::Waiting);
        done += usize::from(matches!(outcome, Outcome::Finished(_)));
        let state = outcome.described(run, file.measure.needs_network());
        text += &format!("{:<width$}  {state}\n", run.name);
    }
    text += &format!("{done} of {} runs complete\n", plan.len());
    results.problems.iter().for_each(|problem| text += &format!("warning: {problem}\n"));
    print(&text)
}

/// Writes the report into `out`, and prints it.
fn report(file: &StudyFile, plan: &[PlannedRun], directories: &[PathBuf], out: &Path) -> Result<()> {
    let results = Results::read(directories, plan);
    let report = StudyReport::new(file, plan, &results);
    std::fs::create_dir_all(out).map_err(FileError::writing(out))?;
    let mut text = markdown(&report);
    write_atomic(&out.join("report.json"), &json_of(&report)?)?;
    write_atomic(&out.join("report.csv"), &report_csv(&report))?;
    write_atomic(&out.join("runs.csv"), &runs_csv(&report, plan, &results))?;
    if let Some(points) = vulnerability_csv(&report) {
        write_atomic(&out.join("vulnerability.csv"), &points)?;
    }
    for name in figures(&report, &out.join("figures"))? {
        text += &format!("\n![{name}](figures/{name}.png)\n");
    }
    write_atomic(&out.join("report.md"), text.as_bytes())?;
    print(&text)?;
    let cost = CostReport::new(file, plan, &results);
    write_atomic(&out.join("cost.json"), &json_of(&cost)?)?;
    write_atomic(&out.join("cost.csv"), &cost_csv(&cost))?;
    write_atomic(&out.join("cost.md"), cost_markdown(&cost).as_bytes())?;
    if file.measure.cost {
        print(&cost_markdown(&cost))?;
    }
    tell!("Written: {}", out.join("report.md").display());
    Ok(())
}

fn json_of(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    Ok(bytes)
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
        let error = trained(dir.path(), Experiment::preset("digits-60s").unwrap(), "1/1").unwrap_err().to_string();
        assert!(error.contains("holds results of a run, but not its config.toml"), "{error}");
    }
}
