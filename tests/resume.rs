//! A run that was stopped and resumed ends with the same bytes as one that was not.

#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::cell::Cell;
use std::path::Path;

use fairtat::config::{Experiment, StatisticsSource};
use fairtat::fairness::TargetMode;
use fairtat::train::{Event, Observer, Outcome, RunDir, Splits, Trainer};

/// Stops a run after a number of batches.
struct StopAfter {
    batches: Cell<u32>,
}

impl Observer for StopAfter {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Batch { .. }) {
            self.batches.set(self.batches.get().saturating_sub(1));
        }
    }

    fn stop(&self) -> bool {
        self.batches.get() == 0
    }
}

fn experiment() -> Experiment {
    let mut e = Experiment::preset("digits-60s").unwrap();
    e.data.limit = Some(200);
    e.data.test_limit = Some(20);
    e.data.validation_per_class = Some(4);
    e.data.crop_padding = 1;
    e.data.flip = true;
    e.model.width = Some(4);
    e.attack.steps = 2;
    e.optimizer.epochs = 4;
    e.optimizer.batch_size = 48;
    e.averaging.fawa_threshold = 0.0;
    e.averaging.average_from = 1;
    e.evaluation.eval_steps = 2;
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

/// `metrics.csv` without the columns that hold times.
fn metrics_without_times(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path.join("metrics.csv")).unwrap();
    let kept: Vec<usize> = (0..reader.headers().unwrap().len())
        .filter(|i| !reader.headers().unwrap()[*i].starts_with("seconds"))
        .collect();
    assert_eq!(kept.len(), 9);
    reader.records().map(|row| kept.iter().map(|i| row.as_ref().unwrap()[*i].to_owned()).collect()).collect()
}

fn assert_same(a: &Path, b: &Path) {
    for name in ["last", "best", "ema", "fawa"] {
        for kind in ["safetensors", "json"] {
            let file = format!("checkpoints/{name}.{kind}");
            assert!(std::fs::read(a.join(&file)).unwrap() == std::fs::read(b.join(&file)).unwrap(), "{file} differs");
        }
    }
    assert_eq!(std::fs::read(a.join("classes.csv")).unwrap(), std::fs::read(b.join("classes.csv")).unwrap());
    assert_eq!(metrics_without_times(a), metrics_without_times(b));
    assert_eq!(metrics_without_times(a).len(), 4);
    for epoch in 0..4 {
        let file = format!("confusion/epoch-{epoch:04}-train.npy");
        assert_eq!(std::fs::read(a.join(&file)).unwrap(), std::fs::read(b.join(&file)).unwrap());
    }
}

#[test]
fn a_run_stopped_anywhere_ends_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    assert_eq!(begin(&experiment(), &whole).run(&mut ()).unwrap(), Outcome::Finished);
    // In the first epoch, at the end of one, and twice in a row.
    for (i, stops) in [vec![1], vec![4], vec![6, 1, 3]].into_iter().enumerate() {
        let path = dir.path().join(format!("stopped-{i}"));
        let mut trainer = begin(&experiment(), &path);
        for batches in stops {
            let mut observer = StopAfter { batches: Cell::new(batches) };
            assert_eq!(trainer.run(&mut observer).unwrap(), Outcome::Stopped);
            trainer = resume(&path);
        }
        assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
        assert_same(&whole, &path);
    }
}

#[test]
fn frozen_and_validation_statistics_survive_a_stop_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.fairness.freeze_after = Some(1);
    e.fairness.statistics_source = StatisticsSource::Validation;
    e.fairness.target_mode = TargetMode::LeastLikely;
    let (whole, stopped) = (dir.path().join("whole"), dir.path().join("stopped"));
    begin(&e, &whole).run(&mut ()).unwrap();
    let mut observer = StopAfter { batches: Cell::new(13) };
    assert_eq!(begin(&e, &stopped).run(&mut observer).unwrap(), Outcome::Stopped);
    resume(&stopped).run(&mut ()).unwrap();
    assert_same(&whole, &stopped);
    // Frozen after epoch 1: the radii of epochs 2 and 3 are the same.
    let (_, classes) = RunDir::open(&whole).unwrap().0.read_rows().unwrap();
    let radii = |epoch| classes.iter().filter(|row| row.epoch == epoch).map(|row| row.epsilon).collect::<Vec<_>>();
    assert_eq!(radii(2), radii(3));
    assert_ne!(radii(1), radii(2));
}

#[test]
fn a_killed_run_goes_on_from_its_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    begin(&experiment(), &whole).run(&mut ()).unwrap();
    let mut observer = StopAfter { batches: Cell::new(9) };
    begin(&experiment(), &killed).run(&mut observer).unwrap();
    let checkpoint = killed.join("checkpoints/resume.safetensors");
    let kept = std::fs::read(&checkpoint).unwrap();
    // Two more epochs are trained and written, then the process dies before its next checkpoint.
    resume(&killed).run(&mut ()).unwrap();
    std::fs::write(&checkpoint, kept).unwrap();
    resume(&killed).run(&mut ()).unwrap();
    assert_same(&whole, &killed);
}

#[test]
fn a_damaged_or_foreign_directory_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    assert!(RunDir::open(&path).unwrap_err().to_string().contains("holds no run"));
    let mut observer = StopAfter { batches: Cell::new(1) };
    begin(&experiment(), &path).run(&mut observer).unwrap();
    assert!(RunDir::create(&path, &experiment()).unwrap_err().to_string().contains("already holds a run"));
    let checkpoint = path.join("checkpoints/resume.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    std::fs::write(&checkpoint, &bytes[..bytes.len() / 2]).unwrap();
    let (directory, e) = RunDir::open(&path).unwrap();
    let error = Trainer::resume(e.clone(), Splits::load(&e).unwrap(), directory.clone()).err().unwrap().to_string();
    assert!(error.contains("resume.safetensors") && error.contains("not a whole safetensors file"), "{error}");
    std::fs::write(&checkpoint, &bytes).unwrap();
    let mut wider = e.clone();
    wider.model.width = Some(5);
    let error = Trainer::resume(wider, Splits::load(&e).unwrap(), directory).err().unwrap().to_string();
    assert!(error.contains("do not fit digits-cnn"), "{error}");
}
