//! `fairtat eval` with several checkpoints.

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};

use super::super::{Stopped, Usage, interrupt, progress};
use super::arguments::Attacks;
use super::{EvalArgs, Subject, check_report, evaluated, options};
use crate::attack::{Attack, AttackKind, norm_name};
use crate::console::tell;
use crate::evaluate::figures::{self, CheckpointBar, Context};
use crate::evaluate::robustness::{
    Compared, Described, Evaluation, ReportFiles, Role, Suite, Transfer, adversarial_images, classify, compare_csv,
    compare_markdown, finish, sweep,
};
use crate::fairness::ratio;
use crate::files::{FileError, write_atomic};

/// Evaluates every checkpoint under the same attacks, and writes one table.
pub(super) fn many(arguments: &EvalArgs) -> Result<()> {
    if !arguments.corruptions().is_empty() {
        bail!(Usage("--corruptions is for one checkpoint at a time".into()));
    }
    // Everything is checked before anything is computed.
    let (mut plan, mut subjects) = (None, Vec::new());
    for checkpoint in arguments.checkpoints() {
        let subject = Subject::open(arguments, checkpoint)?;
        if let Some(first) = subjects.first() {
            check_same_images(first, &subject)?;
        }
        let own = Attacks::of(arguments, &subject.stored.experiment, subject.set.shape())?;
        match &plan {
            None => plan = Some(own.plan),
            Some(plan) if *plan != own.plan => bail!(
                "{} would be attacked with other settings than {}: their experiments differ in radius, norm or step size; \
                 name --norm, --epsilon and --step-size",
                subject.stored.file.display(),
                arguments.stored.checkpoint.display()
            ),
            Some(_) => {}
        }
        subjects.push(subject);
    }
    let entries = plan.iter().flat_map(|plan| &plan.entries).filter(|entry| entry.role == Role::Attack);
    let attacks: Vec<Attack> = entries.map(|entry| entry.attack.clone()).collect();
    if arguments.transfer {
        check_transfer(&attacks)?;
    }
    let mut rows = Vec::new();
    let directory = |i: usize| arguments.report.as_ref().map(|report| report.join(format!("{:02}", i + 1)));
    let described = subjects.iter().map(|subject| subject.described(arguments)).collect::<Result<Vec<_>>>()?;
    if let (Some(report), Some(plan)) = (&arguments.report, &plan) {
        check_report(report, arguments.force, &serde_json::Value::Null)?;
        for (i, (subject, described)) in subjects.iter().zip(&described).enumerate() {
            let options = options(arguments, subject, described, None);
            directory(i).map_or(Ok(()), |place| check_report(&place, arguments.force, &options.records_of(plan)))?;
        }
    }
    for (i, (subject, described)) in subjects.iter_mut().zip(&described).enumerate() {
        let own = Attacks::of(arguments, &subject.stored.experiment, subject.set.shape())?;
        if i == 0 {
            own.warnings.iter().flatten().for_each(|warning| tell!("warning: {warning}"));
        }
        tell!("{}", subject.stored.file.display());
        let options = options(arguments, subject, described, directory(i).as_deref());
        let evaluation = evaluated(arguments, subject, &own, &options)?;
        for warning in &evaluation.warnings {
            tell!("warning: {}: {warning}", subject.stored.file.display());
        }
        if let Some(directory) = directory(i) {
            // The records stay until the table is written: the same command continues.
            ReportFiles { evaluation: &evaluation, described, corrupted: None }.write_files(&directory)?;
        }
        rows.push(compared(&evaluation, described));
    }
    let transfers = if arguments.transfer { transfers(arguments, &mut subjects, &attacks)? } else { Vec::new() };
    let markdown = compare_markdown(&rows, &transfers);
    let json = serde_json::json!({ "checkpoints": rows, "transfer": transfers });
    if let Some(report) = &arguments.report {
        std::fs::create_dir_all(report).map_err(FileError::writing(report))?;
        sweep(report);
        draw(arguments, &rows, &transfers, &subjects)?;
        write_atomic(&report.join("report.md"), markdown.as_bytes())?;
        write_atomic(&report.join("report.csv"), compare_csv(&rows).as_bytes())?;
        super::super::write_json(&report.join("report.json"), &json)?;
        (0..rows.len()).filter_map(directory).try_for_each(|directory| finish(&directory))?;
    }
    arguments.stored.json.write(&json)?;
    arguments.stored.json.print(&markdown)
}

/// Refuses attacks that leave images as they are, or end at the first image that fools one network: tested on another one,
/// they would count images that were hardly attacked.
fn check_transfer(attacks: &[Attack]) -> Result<()> {
    const NEEDS: &str = "--transfer needs attacks that move every image to the end: fgsm, pgd and pgd-targeted";
    for attack in attacks.iter().filter(|attack| attack.kind != AttackKind::Clean) {
        if !attack.kind.runs_in_engine() {
            bail!(Usage(format!("{NEEDS}; {} leaves images that it cannot change", attack.kind.title())));
        }
        if attack.any_iterate {
            bail!(Usage(format!(
                "{NEEDS}; with --any-iterate an image ends where it first fools the network that it was made on"
            )));
        }
    }
    Ok(())
}

/// Refuses checkpoints for other images.
fn check_same_images(first: &Subject, other: &Subject) -> Result<()> {
    if first.set.shape() == other.set.shape()
        && first.set.labels() == other.set.labels()
        && first.set.images() == other.set.images()
    {
        return Ok(());
    }
    bail!(
        "{} is for other images ({}) than {} ({}); a table needs the same images for all",
        other.stored.file.display(),
        other.stored.experiment.data.dataset,
        first.stored.file.display(),
        first.stored.experiment.data.dataset
    );
}

fn compared(evaluation: &Evaluation, described: &Described) -> Compared {
    let clean = evaluation.rows.iter().find(|row| row.entry.attack.kind == AttackKind::Clean);
    let named = |name: &str, predictions: &[u32]| (name.to_owned(), evaluation.report_of(name, predictions));
    let mut attacks = Vec::new();
    for row in &evaluation.rows {
        if row.entry.role == Role::Attack && row.entry.suite.is_none() && row.entry.attack.kind != AttackKind::Clean {
            attacks.push((row.entry.attack.to_string(), evaluation.report(row)));
        }
    }
    let ball = format!("{}, ε {}", norm_name(described.norm), described.epsilon);
    let title = |suite: Suite| format!("{}, {ball}, seed {}", suite.title(), described.seed);
    attacks.extend(evaluation.suites().into_iter().map(|(suite, row)| named(&title(suite), &row.predictions)));
    Compared {
        described: described.clone(),
        images: evaluation.labels().len(),
        clean: evaluation.report_of("clean", clean.map_or(evaluation.labels(), |row| &row.predictions)),
        robust: evaluation.report_of("worst case over all attacks", &evaluation.worst_case()),
        attacks,
    }
}

/// The images of each attack on each checkpoint, tested on all.
fn transfers(arguments: &EvalArgs, subjects: &mut [Subject], attacks: &[Attack]) -> Result<Vec<Transfer>> {
    let stop = interrupt::stops("after this batch");
    let mut all = Vec::new();
    for attack in attacks.iter().filter(|attack| attack.kind != AttackKind::Clean) {
        let mut correct = Vec::new();
        for source in 0..subjects.len() {
            let subject = &mut subjects[source];
            let batch_size = arguments.stored.batch_size(&subject.stored.experiment);
            let set = subject.set.clone();
            let bar = progress::images(set.len(), format!("{} on {}", attack.kind.title(), source + 1));
            let images = adversarial_images(subject.engine.as_mut(), &set, attack, batch_size, &mut |done| {
                bar.set_position(done as u64);
                !stop.load(Ordering::SeqCst)
            })?;
            bar.finish_and_clear();
            let Some(images) = images else { bail!(Stopped("Stopped".into())) };
            let mut row = Vec::new();
            for target in subjects.iter_mut() {
                let found = classify(target.engine.as_mut(), &images, batch_size)?;
                row.push(found.iter().zip(set.labels()).filter(|(found, label)| found == label).count() as u64);
            }
            correct.push(row);
        }
        let images = subjects[0].set.len() as u64;
        all.push(Transfer { attack: attack.to_string(), correct, images });
    }
    Ok(all)
}

fn draw(arguments: &EvalArgs, rows: &[Compared], transfers: &[Transfer], subjects: &[Subject]) -> Result<()> {
    let (Some(report), Some(first)) = (&arguments.report, subjects.first()) else { return Ok(()) };
    let context = |attack: &str| Context {
        title: format!("{}, {}", first.stored.experiment.data.dataset, arguments.part.name()),
        attack: attack.to_owned(),
        train_attack: String::new(),
        train_robust: "train robust",
        statistics: String::new(),
        frozen_after: None,
        class_names: first.set.class_names().to_vec(),
        base_epsilon: 0.0,
    };
    let bar = |row: &Compared| CheckpointBar {
        name: row.described.checkpoint.clone(),
        clean: row.clean.accuracy,
        clean_interval: row.clean.interval,
        robust: row.robust.accuracy,
        robust_interval: row.robust.interval,
        worst: row.robust.worst_class_accuracy,
        worst_interval: row.robust.worst_class_interval,
        worst_class: row.robust.worst_class.clone(),
    };
    let bars: Vec<CheckpointBar> = rows.iter().map(bar).collect();
    let attacks: Vec<&str> = rows[0].attacks.iter().map(|(name, _)| name.as_str()).collect();
    figures::checkpoint_bars(&bars, &context(&attacks.join("; ")))?.save(report)?;
    let names: Vec<String> = rows.iter().map(|row| row.described.checkpoint.clone()).collect();
    for (i, transfer) in transfers.iter().enumerate() {
        let share = |correct: &u64| Some(ratio(*correct, transfer.images));
        let values: Vec<Vec<Option<f64>>> =
            transfer.correct.iter().map(|row| row.iter().map(share).collect()).collect();
        let figure = figures::transfer_matrix(&names, &values, &context(&transfer.attack))?;
        // One figure for each attack.
        let directory = if transfers.len() == 1 { report.clone() } else { report.join(format!("transfer-{}", i + 1)) };
        std::fs::create_dir_all(&directory).map_err(FileError::writing(&directory))?;
        figure.save(&directory)?;
    }
    Ok(())
}
