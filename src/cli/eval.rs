//! `fairtat eval`.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::stored::StoredArgs;
use super::{Usage, counted_as, interrupt, print, progress, write_json};
use crate::attack::{
    Attack, AttackKind, Report, check_distance, describe_without_gradient, describe_worst_class, evaluation_step_size,
    measure, norm_name,
};
use crate::config::Experiment;
use crate::data::{Dataset, ImageShape};
use crate::engine::Norm;
use crate::train::{RunDir, Splits, run_steps};
use crate::units::Epsilon;

/// Default number of PGD steps.
const STEPS: u32 = 20;

/// Which images to evaluate on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Test,
    Validation,
    Train,
}

#[derive(Debug, Args)]
pub(super) struct EvalArgs {
    /// Attack; several are separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [AttackKind::Clean, AttackKind::Pgd])]
    attack: Vec<AttackKind>,
    /// Steps of PGD [default: 20]
    #[arg(long, value_name = "STEPS")]
    steps: Option<u32>,
    /// Radius [default: that of the checkpoint's experiment]
    #[arg(long, value_name = "K/255")]
    epsilon: Option<Epsilon>,
    /// Step size of PGD [default: that of the checkpoint's experiment if norm and radius are its own and the steps can
    /// cross the ball with it, else 2.5 · radius / steps]
    #[arg(long, value_name = "K/255")]
    step_size: Option<Epsilon>,
    /// Shape of the ball [default: that of the checkpoint's experiment]
    #[arg(long, value_enum)]
    norm: Option<Norm>,
    /// Random starts of PGD; an image counts as robust only if it withstands all of them [default: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    restarts: Option<u32>,
    /// Seed of the random starts
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Evaluate only this many images: the first ones of each class
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Which images
    #[arg(long, value_enum, default_value_t = Part::Test)]
    part: Part,
    #[command(flatten)]
    stored: StoredArgs,
}

#[derive(Debug, serde::Serialize)]
struct EvalReport {
    checkpoint: String,
    dataset: String,
    part: String,
    results: Vec<Report>,
    /// Reasons why robust accuracies are higher than under a stronger attack.
    warnings: Vec<String>,
    /// The same warnings for each result, for the text output. Warnings about all attacks are at the first attacked
    /// result.
    #[serde(skip)]
    beside: Vec<Vec<String>>,
}

pub(super) fn eval(arguments: &EvalArgs) -> Result<()> {
    arguments.stored.engine.validate()?;
    let has_pgd = arguments.attack.contains(&AttackKind::Pgd);
    let of_pgd = [
        ("--steps", arguments.steps.is_some()),
        ("--step-size", arguments.step_size.is_some()),
        ("--restarts", arguments.restarts.is_some()),
    ];
    for (flag, _) in of_pgd.iter().filter(|(_, named)| *named && !has_pgd) {
        eprintln!("warning: {flag} is ignored: it is an option of PGD, which is not evaluated; add pgd to --attack");
    }
    if arguments.steps == Some(0) && has_pgd {
        return Err(Usage(
            "--steps: PGD needs at least 1 step, found 0: it would only add random noise. `--attack clean` gives the \
             accuracy without an attack"
                .into(),
        )
        .into());
    }
    let mut stored = arguments.stored.load()?;
    if arguments.stored.checkpoint.is_dir()
        && let Ok((run, _)) = RunDir::open(&arguments.stored.checkpoint)
    {
        for kept in run.kept_bests() {
            eprintln!("The run was validated under another attack earlier. Not evaluated here: {kept}.");
        }
    }
    let experiment = &mut stored.experiment;
    if let Some(limit) = arguments.limit {
        match arguments.part {
            Part::Test => experiment.data.test_limit = Some(limit),
            Part::Train | Part::Validation => {}
        }
    }
    experiment.validate()?;
    let splits = Splits::load(experiment).with_context(|| format!("data set '{}'", experiment.data.dataset))?;
    check_ball(arguments, experiment, splits.test.shape())?;
    let mut engine = stored.open(&splits, &arguments.stored.engine)?;
    let set = match arguments.part {
        Part::Test => splits.test,
        Part::Validation => splits.validation,
        Part::Train => splits.train,
    };
    let set = match (arguments.part, arguments.limit) {
        (Part::Train | Part::Validation, Some(limit)) if limit < set.len() => {
            crate::train::limited(Dataset::clone(&set), Some(limit))?.into()
        }
        _ => set,
    };

    let experiment = &stored.experiment;
    let stop = interrupt::flag();
    let batch_size = arguments.stored.batch_size(experiment);
    let attacks: Vec<Attack> = arguments.attack.iter().map(|kind| attack(*kind, arguments, experiment)).collect();
    let mut beside = warnings(&attacks, arguments, experiment);
    for warning in beside.iter().flatten() {
        eprintln!("warning: {warning}");
    }
    let mut results = Vec::new();
    for (attack, beside) in attacks.into_iter().zip(&mut beside) {
        let bar = progress::images(set.len(), format!("evaluating {attack}"));
        let measured = measure(engine.as_mut(), &set, &attack, batch_size, &mut |_, done| {
            bar.set_position(done as u64);
            !stop.load(Ordering::SeqCst)
        })?;
        bar.finish_and_clear();
        let Some(measured) = measured else { bail!("stopped before {attack} was done") };
        if let Some(warning) = measured.warning() {
            eprintln!("warning: {warning}");
            beside.push(warning);
        }
        results.push(measured.report(set.class_names()));
    }
    let part = match arguments.part {
        Part::Test => "test",
        Part::Validation => "validation",
        Part::Train => "train",
    };
    let report = EvalReport {
        checkpoint: stored.file.display().to_string(),
        dataset: experiment.data.dataset.clone(),
        part: part.into(),
        results,
        warnings: beside.concat(),
        beside,
    };
    print(&table(&report))?;
    match &arguments.stored.json {
        Some(path) => write_json(path, &report),
        None => Ok(()),
    }
}

/// Radius and shape of the ball of every attack.
fn ball(arguments: &EvalArgs, experiment: &Experiment) -> (Epsilon, Norm) {
    let run = run_steps(experiment);
    (arguments.epsilon.unwrap_or(run.eval_epsilon), arguments.norm.unwrap_or(run.norm))
}

fn attack(kind: AttackKind, arguments: &EvalArgs, experiment: &Experiment) -> Attack {
    let (epsilon, norm) = ball(arguments, experiment);
    match kind {
        AttackKind::Clean => Attack::clean(),
        AttackKind::Fgsm => Attack::fgsm(epsilon, norm),
        AttackKind::Pgd => {
            let run = run_steps(experiment);
            let steps = arguments.steps.unwrap_or(STEPS);
            let step_size = evaluation_step_size(norm, epsilon, steps, arguments.step_size, &run);
            let pgd = Attack::pgd(epsilon, step_size, steps, norm, arguments.seed);
            Attack { restarts: arguments.restarts.unwrap_or(1), ..pgd }
        }
    }
}

/// Refuses distances larger than the largest distance between two images.
fn check_ball(arguments: &EvalArgs, experiment: &Experiment, shape: ImageShape) -> Result<(), Usage> {
    let (epsilon, norm) = ball(arguments, experiment);
    for (flag, distance) in [("--epsilon", Some(epsilon)), ("--step-size", arguments.step_size)] {
        if let Some(distance) = distance {
            check_distance(distance, norm, Some(shape)).map_err(|what| Usage(format!("{flag}: {what}")))?;
        }
    }
    Ok(())
}

/// Why each attack is weaker than its radius suggests, or is not what its options suggest. Warnings about all attacks
/// are at the first that is not a clean evaluation.
fn warnings(attacks: &[Attack], arguments: &EvalArgs, experiment: &Experiment) -> Vec<Vec<String>> {
    let mut warnings: Vec<Vec<String>> = attacks.iter().map(|attack| attack.warning().into_iter().collect()).collect();
    let run = run_steps(experiment);
    let attacked = attacks.iter().position(|attack| attack.kind != AttackKind::Clean);
    if let (Some(norm), None) = (arguments.norm, arguments.epsilon)
        && norm != run.norm
        && let Some(attacked) = attacked
    {
        let (own, other) = (norm_name(run.norm), norm_name(norm));
        warnings[attacked].push(format!(
            "ε {} is the radius of the checkpoint's experiment in {own}; an {other} ball of that radius holds other images. \
             Name a radius for {other} with --epsilon",
            run.eval_epsilon
        ));
    }
    warnings
}

/// An accuracy or a gap, with its 95 % interval if it has one.
type Cell = (f64, Option<[f64; 2]>);

/// Classes as rows, attacks as columns, and the names of the attacks below.
fn table(report: &EvalReport) -> String {
    let images = report.results.first().map_or(0, |r| r.images);
    let images = counted_as(images as usize, "image", "images");
    let mut text = format!("{} on {} ({}, {images})\n", report.checkpoint, report.dataset, report.part);
    text += "In brackets: 95 % intervals.\n\n";
    let short = |i: usize| format!("[{}]", i + 1);
    let classes = report.results.first().map_or(&[][..], |r| &r.classes);
    let width = classes.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(12);
    let header: Vec<String> = (0..report.results.len()).map(|i| format!("{:>9}{:15}", short(i), "")).collect();
    text += format!("{:<width$} {}", "", header.join(" ")).trim_end();
    text += "\n";
    let mut line = |name: &str, cell: &dyn Fn(&Report) -> Cell| {
        let cell = |r| {
            let (value, interval) = cell(r);
            let bounds = interval.map(|[low, high]| format!("[{:.1}, {:.1}]", 100.0 * low, 100.0 * high));
            format!("{:>7.1} % {:<14}", 100.0 * value, bounds.unwrap_or_default())
        };
        let cells: Vec<String> = report.results.iter().map(cell).collect();
        text += format!("{name:<width$} {}", cells.join(" ")).trim_end();
        text += "\n";
    };
    line("mean", &|r| (r.accuracy, Some(r.interval)));
    line("worst class", &|r| (r.worst_class_accuracy, Some(r.worst_class_interval)));
    line("gap", &|r| (r.gap, None));
    for (k, class) in classes.iter().enumerate() {
        line(&class.name, &|r| (r.classes[k].accuracy, Some(r.classes[k].interval)));
    }
    text += "\n";
    for (i, result) in report.results.iter().enumerate() {
        let Report { attack, worst_class, worst_class_accuracy, worst_class_interval, worst_class_ties, .. } = result;
        let worst = describe_worst_class(worst_class, *worst_class_accuracy, *worst_class_interval, worst_class_ties);
        text += &format!("{} {attack}\n    worst class: {worst}\n", short(i));
        if result.images_without_gradient > 0 {
            text += &format!("    {}\n", describe_without_gradient(result.images_without_gradient, result.images));
        }
        for warning in report.beside.get(i).into_iter().flatten() {
            text += &format!("    warning: {warning}\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Measured;
    use crate::fairness::Confusion;

    #[test]
    fn what_is_amiss_with_a_number_stands_under_it() {
        let result = |attack: Attack, without_gradient| {
            let mut confusion = Confusion::new(2);
            confusion.add_all(&[0, 0, 1, 1], &[0, 1, 1, 1]);
            Measured { attack, confusion, without_gradient }.report(&["cat".into(), "dog".into()])
        };
        let pgd = Attack::pgd(Epsilon::levels(8.0), Epsilon::levels(0.1), 10, Norm::Linf, 0);
        let warning = pgd.warning().unwrap();
        let report = EvalReport {
            checkpoint: "run".into(),
            dataset: "pets".into(),
            part: "test".into(),
            results: vec![
                result(Attack::clean(), 0),
                result(pgd, 0),
                result(Attack::fgsm(Epsilon::levels(8.0), Norm::Linf), 3),
            ],
            warnings: vec![warning.clone()],
            beside: vec![vec![], vec![warning.clone()], vec![]],
        };
        let text = table(&report);
        let (pgd, fgsm) = (text.find("[2] PGD-10").unwrap(), text.find("[3] FGSM").unwrap());
        let warned = text.find(&format!("    warning: {warning}\n")).unwrap();
        assert!(pgd < warned && warned < fgsm && text.matches("warning: ").count() == 1, "{text}");
        // Usually there are none, which is not printed.
        assert!(text.ends_with("    3 of 4 images had no gradient\n"), "{text}");
        assert_eq!(text.matches("had no gradient").count(), 1, "{text}");
    }
}
