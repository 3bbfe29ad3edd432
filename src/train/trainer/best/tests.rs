//! Runs whose validation attack changes while they are in progress.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::config::EngineChoice;
use crate::evaluate::signatures::{self, Kind, Setup};
use crate::train::{Checkpoint, Live, MetricsRow, Outcome, Splits};
use crate::units::Epsilon;

const WEAK: f64 = 2.0;
const BATCH: usize = 20;
/// The first epoch under the strong attack.
const CHANGE: u32 = 3;
const STRONG: f64 = 24.0;

fn experiment() -> Experiment {
    let mut e = Experiment::preset("digits-60s").unwrap();
    e.data.limit = Some(300);
    e.data.test_limit = Some(20);
    e.data.validation_per_class = Some(4);
    e.model.width = Some(8);
    (e.attack.steps, e.evaluation.eval_steps) = (2, 2);
    (e.attack.epsilon, e.attack.step_size) = (Epsilon::levels(4.0), Epsilon::levels(2.0));
    (e.optimizer.epochs, e.optimizer.batch_size) = (5, BATCH);
    e.evaluation.eval_step_size = Some(Epsilon::levels(24.0));
    e.evaluation.eval_epsilon = Some(Epsilon::levels(WEAK));
    (e.run.engine, e.run.deterministic) = (EngineChoice::Candle, true);
    e
}

fn begin(experiment: &Experiment, path: &Path) -> Trainer {
    let directory = RunDir::create(path, experiment).unwrap();
    Trainer::begin(experiment.clone(), Splits::load(experiment).unwrap(), directory).unwrap()
}

fn resume(path: &Path) -> Trainer {
    let (directory, experiment) = RunDir::open(path).unwrap();
    let splits = Splits::load(&experiment).unwrap();
    Trainer::resume(experiment, splits, directory).unwrap()
}

/// Raises the evaluation's radius before the first batch of an epoch, and may stop the run after a number of batches.
struct Raise {
    at_epoch: u32,
    stop_after: Cell<u32>,
    told: Vec<(ValidationChange, Option<KeptBest>)>,
    /// The checkpoint that was written before the change.
    before: Vec<u8>,
}

fn raise(at_epoch: u32) -> Raise {
    Raise { at_epoch, stop_after: Cell::new(u32::MAX), told: Vec::new(), before: Vec::new() }
}

impl Observer for Raise {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Batch { .. } => self.stop_after.set(self.stop_after.get() - 1),
            Event::NewComparison { change, kept } => self.told.push(((*change).clone(), kept.cloned())),
            Event::Checkpoint { epoch, batch: 0, path, .. } if *epoch == self.at_epoch => {
                self.before = std::fs::read(path).unwrap();
            }
            _ => {}
        }
    }

    fn between(&mut self, live: &mut Live<'_>) {
        if live.progress().epoch == self.at_epoch && live.progress().batch == 0 {
            let mut changed = live.experiment().clone();
            changed.evaluation.eval_epsilon = Some(Epsilon::levels(STRONG));
            live.change(&changed).unwrap();
        }
    }

    fn stop(&self) -> bool {
        self.stop_after.get() == 0
    }
}

fn score_of(row: &MetricsRow) -> f64 {
    row.val_robust_accuracy + row.val_robust_worst
}

/// The highest score of some rows, and the first epoch that has it.
fn highest(rows: &[MetricsRow]) -> (f64, u32) {
    let first = rows.iter().rev().max_by(|a, b| score_of(a).total_cmp(&score_of(b))).unwrap();
    (score_of(first), first.epoch)
}

fn json_of(run: &Path, name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(run.join(format!("checkpoints/{name}.json"))).unwrap()).unwrap()
}

/// Every checkpoint except the one to resume from, and the table without its times.
fn results(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for file in std::fs::read_dir(run.join("checkpoints")).unwrap() {
        let path = file.unwrap().path();
        all.insert(path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap());
    }
    all.remove("resume.safetensors");
    let (metrics, _) = RunDir::open(run).unwrap().0.read_rows().unwrap();
    let untimed = |row: MetricsRow| MetricsRow {
        seconds: 0.0,
        seconds_attack: 0.0,
        seconds_update: 0.0,
        seconds_statistics: 0.0,
        ..row
    };
    let rows: Vec<MetricsRow> = metrics.into_iter().map(untimed).collect();
    all.insert("metrics".into(), serde_json::to_vec(&rows).unwrap());
    all
}

#[track_caller]
fn assert_same(a: &Path, b: &Path) {
    let (a, b) = (results(a), results(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(b[name] == *bytes, "{name} differs");
    }
}

#[test]
fn a_score_under_a_weak_attack_does_not_stand_in_the_way_of_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut trainer = begin(&experiment(), &run);
    let mut observer = raise(CHANGE);
    assert_eq!(trainer.run(&mut observer).unwrap(), Outcome::Finished);
    let (rows, _) = trainer.rows();
    let (weak, strong) = rows.split_at(CHANGE as usize);
    assert!(highest(weak).0 > highest(strong).0, "the weak attack has the higher scores: {rows:?}");

    // The current comparison.
    assert_eq!(trainer.progress().best, Some(highest(strong)));
    let best = json_of(&run, "best");
    assert_eq!(
        (best["epoch"].as_u64(), best["score"].as_f64()),
        (Some(u64::from(highest(strong).1)), Some(highest(strong).0))
    );
    assert!(best["validation"]["robust"]["attack"].as_str().unwrap().contains("ε 24/255"), "{best}");

    // The earlier comparison: its own file, which records its validation setting.
    let kept = json_of(&run, "best-until-epoch-0002");
    let (score, epoch) = highest(weak);
    assert_eq!((kept["epoch"].as_u64(), kept["score"].as_f64()), (Some(u64::from(epoch)), Some(score)));
    assert!(kept["attack"].as_str().unwrap().starts_with("PGD-2, L∞, ε 2/255, "), "{kept}");
    let listed = trainer.directory().kept_bests();
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].name.as_str(), listed[0].until_epoch), ("best-until-epoch-0002", 2));
    let text = listed[0].to_string();
    for part in ["checkpoints/best-until-epoch-0002.safetensors", "the best of the epochs up to 3: ", "ε 2/255"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // It can be evaluated like any other.
    let stored = crate::train::StoredNetwork::load(&trainer.directory().checkpoint(&listed[0].name), None).unwrap();
    assert_eq!(stored.experiment.evaluation.eval_epsilon, Some(Epsilon::levels(WEAK)));

    // The observer is told once.
    let [(change, told)] = observer.told.as_slice() else { panic!("{:?}", observer.told) };
    assert_eq!((change.epoch, change.label().as_str()), (CHANGE, "validation: ε 2/255 → 24/255"));
    assert_eq!(told.as_ref(), listed.first());
    assert_eq!(crate::train::changes_between(rows), std::slice::from_ref(change));
    let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
    let line = log.lines().find(|line| line.contains("\"event\":\"validation\"")).unwrap();
    assert!(line.contains("best-until-epoch-0002"), "{line}");
}

#[test]
fn recalibrating_batch_norm_begins_a_new_comparison_too() {
    let dir = tempfile::tempdir().unwrap();
    let (run, experiment) = (dir.path().join("run"), experiment());
    let mut changed = experiment.clone();
    changed.evaluation.recalibrate_bn = 4;
    let [old, new] = [&experiment, &changed].map(ValidationSetting::of);
    let directory = RunDir::create(&run, &experiment).unwrap();
    let state = State(BTreeMap::new());
    let metadata = |epoch: u32| {
        BTreeMap::from([("epoch".to_owned(), epoch.to_string()), ("experiment".to_owned(), experiment.to_toml())])
    };
    state.save(&directory.checkpoint("best"), &metadata(3)).unwrap();
    let progress = Progress { epoch: 6, best: Some((0.75, 3)), ..Progress::start(10) };
    // Under the same setting there is nothing to keep.
    assert_eq!(keep(&directory, &progress, &old, &old).unwrap(), Kept::Nothing);
    let keep_as_new = || match keep(&directory, &progress, &old, &new).unwrap() {
        Kept::As(kept) => kept,
        other => panic!("{other:?}"),
    };
    let kept = keep_as_new();
    assert_eq!((kept.name.as_str(), kept.epoch, kept.score), ("best-until-epoch-0005", 3, Some(0.75)));
    let bytes = std::fs::read(directory.checkpoint(&kept.name)).unwrap();
    // A second call, as after a kill: the file stays.
    assert_eq!(keep_as_new(), kept);
    // Another best checkpoint until the same epoch gets another name.
    state.save(&directory.checkpoint("best"), &metadata(4)).unwrap();
    let other = keep_as_new();
    assert_eq!((other.name.as_str(), other.epoch), ("best-until-epoch-0005-2", 4));
    assert_eq!(std::fs::read(directory.checkpoint(&kept.name)).unwrap(), bytes);
    assert_eq!(directory.kept_bests().len(), 2);
}

#[test]
fn a_run_stopped_before_or_after_the_change_ends_with_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    begin(&experiment(), &whole).run(&mut raise(CHANGE)).unwrap();
    assert!(results(&whole).contains_key("best-until-epoch-0002.safetensors"));
    let epoch = Splits::load(&experiment()).unwrap().train.len().div_ceil(BATCH) as u32;
    let change = CHANGE * epoch;
    // Within the last epoch before the change, before its validation, within the first epoch after it, before its
    // validation.
    for batches in [change - 1, change, change + 1, change + epoch] {
        let path = dir.path().join(format!("stopped-{batches}"));
        let mut observer = Raise { stop_after: Cell::new(batches), ..raise(CHANGE) };
        assert_eq!(begin(&experiment(), &path).run(&mut observer).unwrap(), Outcome::Stopped);
        assert_eq!(resume(&path).run(&mut raise(CHANGE)).unwrap(), Outcome::Finished);
        assert_same(&whole, &path);
    }
}

/// A process that dies after a change began a new comparison, while its last checkpoint is from before the change.
#[test]
fn a_killed_run_loses_neither_best() {
    let dir = tempfile::tempdir().unwrap();
    let [unchanged, changed] = ["unchanged", "changed"].map(|name| dir.path().join(name));
    begin(&experiment(), &unchanged).run(&mut ()).unwrap();
    let mut observer = raise(CHANGE);
    begin(&experiment(), &changed).run(&mut observer).unwrap();
    let expected = results(&changed);
    let checkpoint = changed.join("checkpoints/resume.safetensors");

    // It continues with the changed experiment: the results are the same, and nothing is written twice.
    std::fs::write(&checkpoint, &observer.before).unwrap();
    let trainer = resume(&changed);
    assert_eq!(json_of(&changed, "best")["epoch"], trainer.progress().best.unwrap().1, "best is the one that it knows");
    let mut trainer = trainer;
    trainer.run(&mut ()).unwrap();
    assert!(results(&changed) == expected);

    // Or it continues with the old attack: as if it had never been changed, and the kept checkpoint stays.
    std::fs::write(&checkpoint, &observer.before).unwrap();
    std::fs::copy(unchanged.join("config.toml"), changed.join("config.toml")).unwrap();
    resume(&changed).run(&mut ()).unwrap();
    let (mut found, plain) = (results(&changed), results(&unchanged));
    for extension in ["safetensors", "json"] {
        let name = format!("best-until-epoch-0002.{extension}");
        assert!(found.remove(&name).unwrap() == expected[&name]);
    }
    // `best.json` was restored from the kept one, which records the last epoch of its comparison.
    assert_eq!(found.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for name in ["best.safetensors", "last.safetensors", "last.json", "metrics"] {
        assert!(found[name] == plain[name], "{name} differs");
    }
}

#[test]
fn an_attack_that_was_edited_into_the_config_of_an_earlier_version_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut observer = Raise { stop_after: Cell::new(20), ..raise(u32::MAX) };
    begin(&experiment(), &run).run(&mut observer).unwrap();
    let path = run.join("checkpoints/resume.safetensors");
    let mut checkpoint = Checkpoint::load(&path).unwrap();
    assert!(checkpoint.progress.best_under.take().is_some() && checkpoint.experiment.take().is_some());
    checkpoint.save(&path).unwrap();
    let (directory, mut experiment) = RunDir::open(&run).unwrap();
    experiment.evaluation.eval_epsilon = Some(Epsilon::levels(STRONG));
    let splits = Splits::load(&experiment).unwrap();
    let mut observer = raise(u32::MAX);
    Trainer::resume(experiment, splits, directory.clone()).unwrap().run(&mut observer).unwrap();
    assert_eq!(observer.told.len(), 1);
    assert!(directory.kept_bests()[0].attack.contains("ε 2/255"));
}

#[test]
fn signatures_are_quiet_about_the_change_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.optimizer.epochs = 11;
    let mut trainer = begin(&e, &dir.path().join("run"));
    trainer.run(&mut raise(CHANGE)).unwrap();
    let (metrics, classes) = trainer.rows();
    let setup = Setup { validation_images: 40, harder_validation: true, ..Setup::default() };
    let kinds = |metrics: &[MetricsRow]| -> Vec<Kind> {
        let points = signatures::points(metrics, classes);
        signatures::present(&points, &setup).iter().map(|signature| signature.kind).collect()
    };
    let compares = [Kind::CleanFalls, Kind::LevellingDown, Kind::RobustOverfitting];
    assert!(kinds(metrics).iter().all(|kind| !compares.contains(kind)), "{:?}", kinds(metrics));
    // Without the column, the same rows look like a failing run.
    let unmarked: Vec<MetricsRow> =
        metrics.iter().map(|row| MetricsRow { val_attack: String::new(), ..row.clone() }).collect();
    assert!(kinds(&unmarked).contains(&Kind::RobustOverfitting), "{:?}", kinds(&unmarked));
}

/// Everything that a run says.
#[derive(Default)]
struct Told(Vec<String>);

impl Observer for Told {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Warning(text) = event {
            self.0.push((*text).to_owned());
        }
    }
}

/// A run of two epochs of three batches with averages, until its end or after some batches.
fn short(path: &Path, batches: u32) {
    let mut e = experiment();
    (e.data.limit, e.optimizer.epochs, e.averaging.average_from) = (Some(100), 2, 0);
    (e.averaging.fawa_threshold, e.evaluation.recalibrate_bn, e.run.examples) = (0.0, 2, 1);
    (e.evaluation.eval_epsilon, e.evaluation.test_steps) = (None, 1);
    let mut observer = raise(u32::MAX);
    observer.stop_after.set(batches);
    begin(&e, path).run(&mut observer).unwrap();
}

/// Damaged or deleted, every exported checkpoint comes back where the state of the run allows it, and the run ends.
#[test]
fn exported_checkpoints_that_cannot_be_read_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run, u32::MAX);
    for name in ["last", "ema", "fawa"] {
        let path = run.join(format!("checkpoints/{name}.safetensors"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        let mut told = Told::default();
        let mut trainer = resume(&run);
        assert_eq!(trainer.run(&mut told).unwrap(), Outcome::Finished);
        assert!(told.0.iter().any(|text| text.contains(name) && text.contains("written again")), "{:?}", told.0);
        assert!(std::fs::read(&path).unwrap() == whole, "{name} differs");
        assert!(crate::evaluate::finish(&mut trainer, &mut ()).unwrap().is_some());
    }
    let mut told = Told::default();
    resume(&run).run(&mut told).unwrap();
    assert!(!told.0.iter().any(|text| text.contains("checkpoints/")), "{:?}", told.0);
}

#[test]
fn a_damaged_best_checkpoint_is_found_at_the_start_and_does_not_end_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run, u32::MAX);
    let best = run.join("checkpoints/best.safetensors");
    let progress = Checkpoint::load(&run.join("checkpoints/resume.safetensors")).unwrap().progress;
    let was_last = progress.best.unwrap().1 == 1;
    let whole = std::fs::read(&best).unwrap();
    for damaged in [None, Some(&whole[..whole.len() - 9]), Some(b"no weights")] {
        match damaged {
            Some(bytes) => std::fs::write(&best, bytes).unwrap(),
            None => std::fs::remove_file(&best).unwrap(),
        }
        let mut told = Told::default();
        let mut trainer = resume(&run);
        trainer.run(&mut told).unwrap();
        assert!(told.0.iter().any(|text| text.contains("best.safetensors")), "{:?}", told.0);
        let report = crate::evaluate::finish(&mut trainer, &mut ()).unwrap().unwrap();
        assert_eq!(report.of("best").is_some(), was_last);
        assert_eq!(std::fs::read(&best).is_ok_and(|bytes| bytes == whole), was_last);
    }
}

#[test]
fn the_best_checkpoint_comes_back_from_the_last_one_also_without_its_description() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run, u32::MAX);
    let [path, best, last] = ["resume", "best", "last"].map(|name| run.join(format!("checkpoints/{name}.safetensors")));
    let mut checkpoint = Checkpoint::load(&path).unwrap();
    checkpoint.progress.best = Some((9.0, 1));
    checkpoint.save(&path).unwrap();
    std::fs::write(&best, "no weights").unwrap();
    std::fs::remove_file(last.with_extension("json")).unwrap();
    let mut told = Told::default();
    resume(&run).run(&mut told).unwrap();
    assert!(told.0.iter().any(|text| text.contains("because the best epoch is the last one")), "{:?}", told.0);
    assert!(std::fs::read(&best).unwrap() == std::fs::read(&last).unwrap());
    assert_eq!(json_of(&run, "best")["epoch"], 1);
}

#[test]
fn counts_that_cannot_be_drawn_at_the_end_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut e = experiment();
    (e.data.limit, e.optimizer.epochs, e.evaluation.test_steps, e.run.examples) = (Some(100), 1, 0, 0);
    let mut trainer = begin(&e, &run);
    trainer.run(&mut ()).unwrap();
    std::fs::write(run.join("confusion/epoch-0000-validation.npy"), "no counts").unwrap();
    let mut told = Told::default();
    crate::evaluate::finish(&mut trainer, &mut told).unwrap();
    let about: Vec<&String> = told.0.iter().filter(|text| text.contains("epoch-0000-validation.npy")).collect();
    assert!(about.len() == 1 && about[0].ends_with("the confusion matrix is not drawn"), "{:?}", told.0);
}

/// Damages the best checkpoint while a run is under way, before its validation attack changes.
struct Damage {
    raise: Raise,
    file: std::path::PathBuf,
    content: &'static [u8],
    told: Told,
}

impl Observer for Damage {
    fn event(&mut self, event: &Event<'_>) {
        self.raise.event(event);
        self.told.event(event);
        if matches!(event, Event::Batch { epoch: CHANGE, done: 1, .. }) {
            std::fs::write(&self.file, self.content).unwrap();
        }
    }

    fn between(&mut self, live: &mut Live<'_>) {
        self.raise.between(live);
    }
}

#[test]
fn a_best_checkpoint_that_is_damaged_when_the_attack_changes_is_named_and_replaced() {
    for content in [&b"no weights"[..], b""] {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let file = run.join("checkpoints/best.safetensors");
        let (raise, told) = (raise(CHANGE), Told::default());
        let mut observer = Damage { raise, file: file.clone(), content, told };
        let mut trainer = begin(&experiment(), &run);
        assert_eq!(trainer.run(&mut observer).unwrap(), Outcome::Finished);
        let about: Vec<&String> = observer.told.0.iter().filter(|text| text.contains("best.safetensors")).collect();
        assert!(about.len() == 1 && about[0].contains("the best checkpoint until now is lost"), "{about:?}");
        let [(_, kept)] = observer.raise.told.as_slice() else { panic!("{:?}", observer.raise.told) };
        assert_eq!(kept, &None);
        assert_eq!(trainer.progress().best.unwrap(), highest(&trainer.rows().0[CHANGE as usize..]));
        assert_eq!(Identity::read(&file).unwrap().epoch, Some(trainer.progress().best.unwrap().1));
    }
}

/// No other file has the weights of the best epoch: they are lost, and the next epochs are compared with each other.
#[test]
fn after_a_lost_best_checkpoint_the_next_epoch_is_the_best() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    short(&run, 4);
    let path = run.join("checkpoints/resume.safetensors");
    let mut checkpoint = Checkpoint::load(&path).unwrap();
    checkpoint.progress.best = Some((9.0, 0));
    checkpoint.save(&path).unwrap();
    for name in ["best", "last"] {
        std::fs::write(run.join(format!("checkpoints/{name}.safetensors")), "").unwrap();
    }
    let mut trainer = resume(&run);
    let mut told = Told::default();
    trainer.run(&mut told).unwrap();
    assert!(told.0.iter().any(|text| text.contains("the best epoch was 1, from here on")), "{:?}", told.0);
    assert_eq!(trainer.progress().best.unwrap().1, 1);
    assert_eq!(json_of(&run, "best")["epoch"], 1);
}

/// Removes the directory of the run during its first epoch.
struct Remove(std::path::PathBuf);

impl Observer for Remove {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Batch { done: 1, .. }) {
            std::fs::remove_dir_all(&self.0).unwrap_or(());
        }
    }
}

#[test]
fn a_run_whose_directory_vanished_stops_and_does_not_make_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let mut e = experiment();
    (e.data.limit, e.optimizer.epochs) = (Some(100), 2);
    let error = begin(&e, &run).run(&mut Remove(run.clone())).unwrap_err().to_string();
    assert!(error.contains("run is no longer the directory of this run"), "{error}");
    assert!(!run.exists());
}
