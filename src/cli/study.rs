//! `fairtat study`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::overrides::{EngineOverride, ExperimentArgs, Source};
use super::train::{resume_run, run_new};
use super::{Usage, print, write_json};
use crate::config::{Difference, Experiment, MethodChoice};
use crate::evaluate::FinalReport;
use crate::evaluate::study::Study;
use crate::train::RunDir;

#[derive(Debug, Subcommand)]
pub(super) enum StudyCommand {
    /// Train several methods with several seeds, and tabulate mean and standard deviation
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
    /// Directory for the runs and the table; complete runs in it are reused, stopped ones continue
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    fields: ExperimentArgs,
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
    let StudyCommand::Seeds(arguments) = command;
    let varied = [("run.seed", "seed"), ("fairness.method", "method")];
    if let Some((_, flag)) = varied.into_iter().find(|(path, _)| arguments.fields.names(path)) {
        bail!(Usage(format!("--{flag} is varied by the study; use --{flag}s")));
    }
    let asked = arguments.fields.asked(&arguments.source)?;
    asked.tell()?;
    let base = &asked.experiment;
    if base.evaluation.test_steps == 0 {
        bail!(Usage("--test-steps: a study compares runs on the test set; expected at least 1 step, found 0".into()));
    }
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
            if let Some(path) = &mut experiment.data.path {
                // As in the config.toml of a run.
                *path = std::path::absolute(&path)?;
            }
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
                None => bail!("stopped; run the same command again to continue"),
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
