//! `fairtat study`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};

use super::overrides::{ExperimentArgs, Source};
use super::train::{resume_run, run_new};
use super::{print, write_json};
use crate::config::MethodChoice;
use crate::evaluate::FinalReport;
use crate::evaluate::study::Study;

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

pub(super) fn study(command: &StudyCommand) -> Result<()> {
    let StudyCommand::Seeds(arguments) = command;
    let base = arguments.fields.experiment(&arguments.source)?;
    let mut reports = Vec::new();
    for &method in &arguments.methods {
        for &seed in &arguments.seeds {
            let mut experiment = base.clone();
            experiment.fairness.method = method;
            experiment.run.seed = seed;
            let name = method.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            let directory = arguments.out.join(format!("{name}-seed-{seed}"));
            let done = directory.join("evaluation.json");
            let report = if done.exists() {
                let text = std::fs::read_to_string(&done).with_context(|| done.display().to_string())?;
                Some(serde_json::from_str::<FinalReport>(&text).with_context(|| done.display().to_string())?)
            } else if directory.join("config.toml").exists() {
                resume_run(&directory)?
            } else {
                run_new(experiment, &directory)?
            };
            match report {
                Some(report) => reports.push(report),
                None => bail!("stopped; call the same command again to go on"),
            }
        }
    }
    let study = Study::new(&reports);
    let text = study.to_markdown();
    let table = arguments.out.join("study.md");
    crate::files::write_atomic(&table, text.as_bytes()).with_context(|| table.display().to_string())?;
    write_json(&arguments.out.join("study.json"), &study)?;
    print(&text)
}
