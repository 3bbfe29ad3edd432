//! `fairtat eval`.

mod arguments;
mod corrupted;
mod many;
mod table;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};

pub(super) use self::arguments::EvalArgs;
use self::arguments::{Attacks, Part};
use super::{Stopped, interrupt, progress, shell_word};
use crate::attack::check_distance;
use crate::config::Experiment;
use crate::console::tell;
use crate::data::{Dataset, ImageShape};
use crate::engine::Engine;
use crate::evaluate::robustness::{
    Described, Evaluation, Held, Options, Progress, ReportFiles, clear, held, identity, network_sha256, run, sha256,
};
use crate::train::{RunDir, StoredNetwork};

pub(super) fn eval(arguments: &EvalArgs) -> Result<()> {
    arguments.check()?;
    if !arguments.more.is_empty() {
        return many::many(arguments);
    }
    let subject = Subject::open(arguments, &arguments.stored.checkpoint)?;
    single(arguments, subject)
}

/// One network on its images.
struct Subject {
    stored: StoredNetwork,
    engine: Box<dyn Engine>,
    set: Arc<Dataset>,
}

impl Subject {
    /// Opens a checkpoint with the images that the arguments choose.
    fn open(arguments: &EvalArgs, checkpoint: &Path) -> Result<Self> {
        let mut stored = arguments.stored.load_from(checkpoint)?;
        if checkpoint.is_dir()
            && let Ok((run, _)) = RunDir::open(checkpoint)
        {
            for kept in run.kept_bests() {
                tell!("The run was validated under another attack earlier. Not evaluated here: {kept}.");
            }
        }
        // The run's own limit was for its own evaluations.
        stored.experiment.data.test_limit = arguments.limit.filter(|_| arguments.part == Part::Test);
        stored.experiment.validate()?;
        let splits = arguments.stored.splits(&stored)?;
        check_ball(arguments, &stored.experiment, splits.test.shape())?;
        let engine = stored.open(&splits, &arguments.stored.engine)?;
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
        Ok(Self { stored, engine, set })
    }

    fn described(&self, arguments: &EvalArgs) -> Result<Described> {
        let experiment = &self.stored.experiment;
        let (epsilon, norm) = arguments.ball(experiment);
        Ok(Described {
            program: concat!("fairtat ", env!("CARGO_PKG_VERSION")).into(),
            checkpoint: self.stored.file.display().to_string(),
            checkpoint_sha256: sha256(&self.stored.file)?,
            architecture: experiment.model.arch.name().into(),
            method: self.stored.method().map(Into::into),
            dataset: experiment.data.dataset.clone(),
            network_sha256: network_sha256(self.engine.network(), self.stored.state()),
            part: match arguments.limit {
                None => arguments.part.name().into(),
                Some(limit) => format!("{} (limit {limit})", arguments.part.name()),
            },
            engine: self.engine.describe(),
            norm,
            epsilon: epsilon.to_string(),
            seed: arguments.seed,
            command: command_line(std::env::args_os().skip(1)),
        })
    }
}

/// This command, as it can be typed again.
fn command_line(arguments: impl Iterator<Item = OsString>) -> String {
    let words: Vec<String> =
        std::iter::once("fairtat".to_owned()).chain(arguments.map(|word| shell_word(&word))).collect();
    words.join(" ")
}

/// Evaluates one checkpoint.
fn single(arguments: &EvalArgs, mut subject: Subject) -> Result<()> {
    let attacks = Attacks::of(arguments, &subject.stored.experiment, subject.set.shape())?;
    for warning in attacks.warnings.iter().flatten() {
        tell!("warning: {warning}");
    }
    let described = subject.described(arguments)?;
    let options = options(arguments, &subject, &described, arguments.report.as_deref());
    if let Some(report) = &arguments.report {
        check_report(report, arguments.force, &options.records_of(&attacks.plan))?;
    }
    let published = corrupted::published(arguments, &subject)?;
    let mut evaluation = evaluated(arguments, &mut subject, &attacks, &options)?;
    for warning in &evaluation.warnings {
        tell!("warning: {warning}");
    }
    let corrupted = corrupted::corrupted_accuracy(arguments, &mut subject, published)?;
    evaluation.attack_warnings = attacks.warnings.iter().flatten().cloned().collect();
    let files = ReportFiles { evaluation: &evaluation, described: &described, corrupted: corrupted.as_ref() };
    if let Some(report) = &arguments.report {
        files.write(report)?;
    }
    let json = &arguments.stored.json;
    json.write(&files.to_json())?;
    json.print(&table::text(&evaluation, &described, &attacks.warnings))?;
    if let Some(corrupted) = &corrupted {
        json.print(&format!("\n{}", corrupted::text(corrupted)))?;
    }
    match &arguments.report {
        Some(report) => json.print(&format!("\nWritten: {}\n", report.join("report.md").display())),
        None => Ok(()),
    }
}

/// Refuses to replace a report, and one in the directory of a run. With `force` the files of another evaluation are removed,
/// so that none of them is left; records of this one, `records`, stay.
fn check_report(directory: &Path, force: bool, records: &serde_json::Value) -> Result<()> {
    if directory.join("config.toml").exists() {
        let place = directory.join("report");
        bail!("{} is the directory of a run; name another, such as {}", directory.display(), place.display());
    }
    match held(directory, records) {
        Held::Nothing | Held::Same => Ok(()),
        Held::Report if !force => {
            bail!("{} holds a report already; name another directory, or replace it with --force", directory.display())
        }
        // Its message is that of the records themselves.
        Held::Other(_) if !force => Ok(()),
        Held::Report | Held::Other(_) => Ok(clear(directory)?),
    }
}

/// How the attacks run, and where their records are kept.
fn options(arguments: &EvalArgs, subject: &Subject, described: &Described, directory: Option<&Path>) -> Options {
    Options {
        batch_size: arguments.stored.batch_size(&subject.stored.experiment),
        directory: directory.map(Into::into),
        identity: identity(described, &subject.set, arguments.limit),
        keep_images: arguments.save_images,
    }
}

fn evaluated(arguments: &EvalArgs, subject: &mut Subject, attacks: &Attacks, options: &Options) -> Result<Evaluation> {
    let stop = interrupt::stops("after this batch");
    let mut bar: Option<(usize, indicatif::ProgressBar)> = None;
    let evaluation = run(subject.engine.as_mut(), &subject.set, &attacks.plan, options, &mut |now: Progress<'_>| {
        let [number, all] = now.number;
        if bar.as_ref().is_none_or(|(shown, _)| *shown != number) {
            if let Some((_, bar)) = bar.take() {
                bar.finish_and_clear();
            }
            let title = now.entry.attack.kind.title();
            bar = Some((number, progress::images(now.images, format!("{}/{all} {title}", number + 1))));
        }
        if let Some((_, bar)) = &bar {
            bar.set_position(now.done as u64);
            bar.set_message(format!("{} withstand", now.standing));
        }
        !stop.load(Ordering::SeqCst)
    })?;
    if let Some((_, bar)) = bar {
        bar.finish_and_clear();
    }
    match (evaluation, &arguments.report) {
        (Some(evaluation), _) => Ok(evaluation),
        (None, Some(report)) => {
            let what = format!(
                "Stopped; the finished batches are kept in {}, and the same command continues",
                report.display()
            );
            bail!(Stopped(what))
        }
        (None, None) => {
            let what = "Stopped; with --report DIR finished batches are kept, and the same command continues";
            bail!(Stopped(what.into()))
        }
    }
}

/// Refuses distances larger than the largest distance between two images.
fn check_ball(arguments: &EvalArgs, experiment: &Experiment, shape: ImageShape) -> Result<(), super::Usage> {
    let (epsilon, norm) = arguments.ball(experiment);
    for (flag, distance) in [("--epsilon", Some(epsilon)), ("--step-size", arguments.step_size)] {
        if let Some(distance) = distance {
            check_distance(distance, norm, Some(shape)).map_err(|what| super::Usage(format!("{flag}: {what}")))?;
        }
    }
    Ok(())
}

#[cfg(test)]
impl EvalArgs {
    /// Attacks, number of images and report.
    pub(super) fn asked_for(
        &self,
        experiment: &Experiment,
    ) -> Result<(crate::evaluate::robustness::Plan, Option<usize>, Option<std::path::PathBuf>)> {
        Ok((Attacks::of(self, experiment, ImageShape::new(3, 32, 32))?.plan, self.limit, self.report.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::{Attack, Cost};
    use crate::engine::Norm;
    use crate::evaluate::robustness::{Entry, Role, Row};

    #[test]
    fn a_command_can_be_typed_again() {
        let words = ["eval", "runs/a b", "--epsilon", "8/255", "it's"].map(OsString::from);
        assert_eq!(command_line(words.into_iter()), r"fairtat eval 'runs/a b' --epsilon 8/255 'it'\''s'");
    }

    fn described() -> Described {
        let word = || "x".to_owned();
        Described {
            program: word(),
            checkpoint: word(),
            checkpoint_sha256: word(),
            network_sha256: word(),
            architecture: word(),
            method: None,
            dataset: word(),
            part: word(),
            engine: word(),
            norm: Norm::Linf,
            epsilon: word(),
            seed: 0,
            command: word(),
        }
    }

    /// Class `k` of 200 is right in its first `k % 10` of 10 images: the worst tenth never is, the mean is 45 %.
    #[test]
    fn of_many_classes_tables_show_the_worst_and_their_worst_tenth() {
        let evaluated = |classes: usize| {
            let names = (0..classes).map(|k| format!("class {k}")).collect();
            let labels: Vec<u32> = (0..10 * classes).map(|i| (i / 10) as u32).collect();
            let right = |i: usize| i % 10 < i / 10 % 10;
            let predictions = (0..labels.len())
                .map(|i| if right(i) { labels[i] } else { (labels[i] + 1) % classes as u32 })
                .collect();
            let pixels = vec![0; labels.len()];
            let set = Dataset::new("s", names, ImageShape::new(1, 1, 1), pixels, labels).unwrap();
            let mut evaluation = Evaluation::new(&set);
            let attack = Attack::fgsm(crate::units::Epsilon::levels(8.0), Norm::Linf);
            let entry = Entry { name: "fgsm".into(), attack, suite: None, role: Role::Attack };
            let cost = Cost::default();
            let attacked = set.len() as u64;
            evaluation.rows.push(Row {
                entry,
                attacked,
                predictions,
                without_gradient: 0,
                targets: None,
                cost,
                seconds: 0.0,
            });
            evaluation
        };
        for (classes, many, shortened) in [(10, false, false), (100, true, false), (200, true, true)] {
            let (evaluation, described) = (evaluated(classes), described());
            let table = table::text(&evaluation, &described, &[]);
            let files = ReportFiles { evaluation: &evaluation, described: &described, corrupted: None };
            let markdown = files.markdown();
            assert_eq!(table.contains("\nworst 10 %       0.0 %"), many, "{table}");
            assert_eq!(markdown.contains("| worst 10 % of classes |"), many, "{markdown}");
            assert_eq!(markdown.contains("Worst 10 % of the classes: 0.0 %."), many, "{markdown}");
            let rows = |text: &str, start: &str| text.lines().filter(|line| line.starts_with(start)).count();
            let expected = if shortened { (20, 40) } else { (classes, classes) };
            assert_eq!((rows(&table, "class "), rows(&markdown, "| class ")), (expected.0, expected.1 + 1), "{table}");
            assert_eq!(table.contains("the 20 worst of 200 classes"), shortened);
            assert_eq!(
                markdown.contains("the 40 worst of 200 classes by `worst case`; `report.csv` has all"),
                shortened
            );
            // The table for programs has every class.
            assert_eq!(rows(std::str::from_utf8(&files.csv()).unwrap(), "fgsm,"), classes + 1);
        }
    }

    #[test]
    fn what_killed_evaluations_left_is_swept_when_the_report_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let left: Vec<std::path::PathBuf> = ["figures", "flags", "adversarial", "transfer-2/figures"]
            .map(|part| dir.path().join(part).join(".fairtat-0123456789abcdef.tmp"))
            .to_vec();
        let kept = dir.path().join("figures/notes.tmp");
        for path in left.iter().chain([&kept]) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "half a figure").unwrap();
        }
        let (evaluation, described) = evaluation_without_a_class();
        ReportFiles { evaluation: &evaluation, described: &described, corrupted: None }
            .write_files(dir.path())
            .unwrap();
        assert!(!left.iter().any(|path| path.exists()) && kept.exists());
    }

    #[test]
    fn a_class_without_images_is_not_measured_in_any_table() {
        let (evaluation, described) = evaluation_without_a_class();
        let files = ReportFiles { evaluation: &evaluation, described: &described, corrupted: None };
        assert_tables(&files);
    }

    /// Two images of the class `a`, none of `b`, one of `c`.
    fn evaluation_without_a_class() -> (Evaluation, Described) {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let set = Dataset::new("s", names, ImageShape::new(1, 1, 1), vec![0; 3], vec![0, 0, 2]).unwrap();
        let mut evaluation = Evaluation::new(&set);
        let entry = Entry { name: "clean".into(), attack: Attack::clean(), suite: None, role: Role::Attack };
        evaluation.rows.push(Row {
            entry,
            attacked: 3,
            predictions: vec![0, 1, 2],
            without_gradient: 0,
            targets: None,
            cost: Cost::default(),
            seconds: 0.0,
        });
        (evaluation, described())
    }

    fn assert_tables(files: &ReportFiles<'_>) {
        let (evaluation, described) = (files.evaluation, files.described);
        let csv = String::from_utf8(files.csv()).unwrap();
        let line = |start: &str| csv.lines().find(|line| line.contains(start)).unwrap().to_owned();
        assert!(line(",\"a\",").contains(",\"a\",0.5,") && line(",\"c\",").contains(",\"c\",1,"), "{csv}");
        assert!(line(",\"b\",").contains(",\"b\",,0,1,0"), "{csv}");
        let report = evaluation.report(&evaluation.rows[0]);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(
            (&json["classes"][1]["accuracy"], &json["classes"][1]["name"]),
            (&serde_json::Value::Null, &"b".into())
        );
        assert_eq!((report.worst_class.as_str(), report.gap), ("a", 0.5));
        assert!(!report.worst_class_ties.contains(&"b".to_owned()), "{:?}", report.worst_class_ties);
        let markdown = files.markdown();
        assert!(markdown.contains("| b | 0 | n/a |") && markdown.contains("| c | 1 | 100.0 ["), "{markdown}");
        let text = table::text(evaluation, described, &[Vec::new()]);
        let of_class = |name: &str| text.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap().to_owned();
        assert!(of_class("b").ends_with("n/a") && of_class("c").contains("100.0 %"), "{text}");
    }

    #[test]
    #[cfg(unix)]
    fn a_word_that_is_not_utf_8_keeps_its_bytes() {
        let word: OsString = std::os::unix::ffi::OsStringExt::from_vec(b"r'\\ \xff".to_vec());
        assert_eq!(command_line([word].into_iter()), r"fairtat $'r\'\\ \xff'");
    }
}
