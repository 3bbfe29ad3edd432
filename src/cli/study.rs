//! `fairtat study`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::overrides::{EngineOverride, ExperimentArgs, Source};
use super::train::{resume_run, run_new};
use super::{Usage, print, write_json};
use crate::config::{Experiment, MethodChoice};
use crate::evaluate::FinalReport;
use crate::evaluate::study::Study;
use crate::train::RunDir;

#[derive(Debug, Subcommand)]
pub(super) enum StudyCommand {
    /// Train several methods with several seeds; mean and standard deviation as a table
    Seeds(SeedsArgs),
}

#[derive(Debug, Args)]
pub(super) struct SeedsArgs {
    #[command(flatten)]
    source: Source,
    /// Methods to compare
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [MethodChoice::At, MethodChoice::FairTat])]
    methods: Vec<MethodChoice>,
    /// Seeds of the runs
    #[arg(long, value_delimiter = ',', default_values_t = [0, 1, 2])]
    seeds: Vec<u64>,
    /// Directory for the runs and the table; runs that are there already are taken over, stopped ones go on
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    fields: ExperimentArgs,
}

/// Fails with the first field in which two experiments differ.
fn same(asked: &Experiment, found: &Experiment) -> Result<()> {
    let (asked, found) = (asked.to_toml(), found.to_toml());
    let differs = asked.lines().zip(found.lines()).find(|(a, b)| a != b);
    match differs {
        _ if asked == found => Ok(()),
        Some((a, b)) => bail!("asked for `{a}`, found `{b}`; name another directory with --out"),
        None => bail!("one names fields that the other does not; name another directory with --out"),
    }
}

pub(super) fn study(command: &StudyCommand) -> Result<()> {
    let StudyCommand::Seeds(arguments) = command;
    let varied = [("run.seed", "seed"), ("fairness.method", "method")];
    if let Some((_, flag)) = varied.into_iter().find(|(path, _)| arguments.fields.names(path)) {
        bail!(Usage(format!("--{flag} is what a study varies; use --{flag}s")));
    }
    let asked = arguments.fields.asked(&arguments.source)?;
    asked.tell();
    let base = &asked.experiment;
    let (mut methods, mut seeds) = (arguments.methods.clone(), arguments.seeds.clone());
    let mut seen = Vec::new();
    methods.retain(|method| {
        !seen.contains(method) && {
            seen.push(*method);
            true
        }
    });
    let mut seen = Vec::new();
    seeds.retain(|seed| {
        !seen.contains(seed) && {
            seen.push(*seed);
            true
        }
    });
    let mut reports = Vec::new();
    for &method in &methods {
        for &seed in &seeds {
            let mut experiment = base.clone();
            experiment.fairness.method = method;
            experiment.run.seed = seed;
            let name = method.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            let directory = arguments.out.join(format!("{name}-seed-{seed}"));
            let done = directory.join("evaluation.json");
            if directory.join("config.toml").exists() {
                same(&experiment, &RunDir::open(&directory)?.1)
                    .with_context(|| format!("{} holds a run of another experiment", directory.display()))?;
            }
            let report = if done.exists() {
                let text = std::fs::read_to_string(&done).with_context(|| done.display().to_string())?;
                Some(serde_json::from_str::<Box<FinalReport>>(&text).with_context(|| done.display().to_string())?)
            } else if directory.join("config.toml").exists() {
                resume_run(&directory, &EngineOverride::default())?
            } else {
                run_new(experiment, asked.derived.as_ref(), &directory)?
            };
            match report {
                Some(report) => reports.push(*report),
                None => bail!("stopped; call the same command again to go on"),
            }
        }
    }
    let study = Study::new(&reports);
    let text = study.to_markdown();
    let table = arguments.out.join("study.md");
    crate::files::write_atomic(&table, text.as_bytes())?;
    write_json(&arguments.out.join("study.json"), &study)?;
    print(&text)
}
