//! A run that is stopped and resumed produces the same bytes as an uninterrupted one.

#![allow(clippy::unwrap_used, reason = "tests report failures by panicking")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Once;

use clap::ValueEnum;
use fairtat::config::{BaseMethod, EngineChoice, Experiment, LastBatch, LossForm, MethodChoice, StatisticsSource};
use fairtat::evaluate;
use fairtat::fairness::TargetMode;
use fairtat::model::State;
use fairtat::train::{Event, Observer, Outcome, ResumeOptions, RunDir, Splits, TrainError, Trainer};

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

/// `metrics.csv` without the columns that contain times.
fn metrics_without_times(path: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(path.join("metrics.csv")).unwrap();
    let kept: Vec<usize> = (0..reader.headers().unwrap().len())
        .filter(|i| !reader.headers().unwrap()[*i].starts_with("seconds"))
        .collect();
    assert_eq!(kept.len(), 12);
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
        for part in ["train", "validation"] {
            let file = format!("confusion/epoch-{epoch:04}-{part}.npy");
            assert_eq!(std::fs::read(a.join(&file)).unwrap(), std::fs::read(b.join(&file)).unwrap(), "{file}");
        }
    }
}

#[test]
fn a_run_stopped_anywhere_ends_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    assert_eq!(begin(&experiment(), &whole).run(&mut ()).unwrap(), Outcome::Finished);
    // During the first epoch, at the end of one, and several times.
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

/// Every method, with the settings that let it adapt within four epochs.
fn methods(robust: &Path) -> Vec<(String, Experiment)> {
    let mut all = Vec::new();
    for method in MethodChoice::value_variants() {
        for base in [BaseMethod::At, BaseMethod::Fat, BaseMethod::Trades] {
            let mut e = experiment();
            (e.fairness.method, e.fairness.base, e.cfa.base) = (*method, base, base);
            let form = if base == BaseMethod::Trades { LossForm::Trades } else { LossForm::At };
            (e.fat.kl, e.dafa.base, e.faal.base) = (base == BaseMethod::Trades, form, form);
            (e.fat.tau, e.fat.tau_epochs, e.fat.noise) = (vec![0, 1], vec![2], 0.001);
            (e.cfa.warmup_epochs, e.dafa.warmup_epochs, e.wat.eta) = (1, 2, 1.0);
            (e.frl.alpha_1, e.frl.alpha_2) = (0.5, 1.0);
            if matches!(method, MethodChoice::Frl | MethodChoice::Faal) {
                e.model.init = Some(robust.into());
            }
            // Methods without a base are the same for all of them.
            if !all.iter().any(|(_, known): &(String, Experiment)| known.fairness.method == *method)
                || e.base().is_some_and(|own| own == base)
            {
                all.push((format!("{method:?} on {base:?}"), e));
            }
        }
    }
    all
}

/// Stopped within an epoch, at its end, and several times, between the steps in which each method adapts.
#[test]
fn every_method_that_is_stopped_ends_as_if_it_had_not_been() {
    let dir = tempfile::tempdir().unwrap();
    let robust = dir.path().join("robust");
    begin(&experiment(), &robust).run(&mut ()).unwrap();
    let mut adapted = 0;
    for (name, e) in methods(&robust) {
        let whole = dir.path().join(&name);
        let mut trainer = begin(&e, &whole);
        trainer.run(&mut ()).unwrap();
        let series: Vec<f64> =
            trainer.rows().1.iter().flat_map(|row| row.series.iter().map(|(_, value)| *value)).collect();
        adapted += usize::from(series.iter().any(|value| *value != series[0]));
        for stops in [vec![3], vec![8], vec![9, 1, 3]] {
            let path = dir.path().join(format!("{name}, stopped after {stops:?}"));
            let mut trainer = begin(&e, &path);
            for batches in stops {
                let mut observer = StopAfter { batches: Cell::new(batches) };
                assert_eq!(trainer.run(&mut observer).unwrap(), Outcome::Stopped);
                trainer = resume(&path);
            }
            trainer.run(&mut ()).unwrap();
            println!("{}", path.display());
            assert_same(&whole, &path);
        }
    }
    // FAIR-TAT and CFA on FAT, CFA on TRADES, FRL, two forms each of FAT, DAFA and FAAL, WAT and TRIX.
    assert_eq!(adapted, 12, "methods with series that vary");
}

/// A run of an older program version, which offered no choice of how to split an epoch into batches.
#[test]
fn a_run_without_a_rule_for_the_last_batch_keeps_its_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut e = experiment();
    (e.optimizer.last_batch, e.optimizer.batch_size) = (LastBatch::Keep, 60);
    let mut observer = StopAfter { batches: Cell::new(2) };
    assert_eq!(begin(&e, &path).run(&mut observer).unwrap(), Outcome::Stopped);
    let config = std::fs::read_to_string(path.join("config.toml")).unwrap();
    assert!(config.contains("last_batch = \"keep\"\n"), "{config}");
    std::fs::write(path.join("config.toml"), config.replace("last_batch = \"keep\"\n", "")).unwrap();
    let resumed = resume(&path);
    assert_eq!(resumed.cut().sizes(), [60, 60, 40]);
    assert_eq!(resumed.experiment(), &e);
}

/// Also with images dropped from an epoch, and with running statistics that are recomputed for every evaluation.
#[test]
fn dropped_images_and_recalibrated_statistics_survive_a_stop_too() {
    let dir = tempfile::tempdir().unwrap();
    for (name, last_batch) in [("even", LastBatch::Even), ("drop", LastBatch::Drop)] {
        let mut e = experiment();
        e.optimizer.last_batch = last_batch;
        // 160 images: batches of 54, 53 and 53, or two of 60.
        e.optimizer.batch_size = 60;
        e.evaluation.recalibrate_bn = 2;
        let (whole, stopped) = (dir.path().join(format!("{name}-whole")), dir.path().join(format!("{name}-stopped")));
        begin(&e, &whole).run(&mut ()).unwrap();
        let mut observer = StopAfter { batches: Cell::new(5) };
        assert_eq!(begin(&e, &stopped).run(&mut observer).unwrap(), Outcome::Stopped);
        resume(&stopped).run(&mut ()).unwrap();
        assert_same(&whole, &stopped);
        let ends = [&whole, &stopped].map(|path| resume(path).engine().state().unwrap());
        assert_eq!(ends[0], ends[1]);
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
    // Frozen after epoch 1, so the radii of epochs 2 and 3 are the same.
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
    // Two more epochs are trained and written, then the process is killed before its next checkpoint.
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
    for (accept_changes, expected) in [(false, "model.width is 5, was 4"), (true, "do not fit digits-cnn")] {
        let options = ResumeOptions { accept_changes, ..ResumeOptions::default() };
        let splits = Splits::load(&e).unwrap();
        let error = Trainer::resume_with(wider.clone(), splits, directory.clone(), options).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Copies each checkpoint of a run beside it.
#[derive(Default)]
struct Keep {
    copies: Vec<((u32, u32), Vec<u8>)>,
    notes: Vec<String>,
}

impl Observer for Keep {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Checkpoint { epoch, batch, path, .. } => {
                self.copies.push(((*epoch, *batch), std::fs::read(path).unwrap()));
            }
            Event::Note(note) => self.notes.push((*note).to_owned()),
            _ => {}
        }
    }
}

/// A run with checkpoints within its epochs is killed after some of them.
#[test]
fn a_run_goes_on_from_checkpoints_by_time_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.run.checkpoint_minutes = 1e-9;
    let whole = dir.path().join("whole");
    let mut kept = Keep::default();
    begin(&e, &whole).run(&mut kept).unwrap();
    // Four batches in each of the four epochs.
    let places: Vec<(u32, u32)> = kept.copies.iter().map(|(place, _)| *place).collect();
    let expected = (0..4).flat_map(|epoch| [(epoch, 1), (epoch, 2), (epoch, 3), (epoch, 4), (epoch + 1, 0)]);
    assert_eq!(places, expected.collect::<Vec<_>>());
    let killed = dir.path().join("killed");
    begin(&e, &killed).run(&mut StopAfter { batches: Cell::new(11) }).unwrap();
    for place in [(0, 1), (1, 4), (2, 2)] {
        let copy = &kept.copies.iter().find(|(found, _)| *found == place).unwrap().1;
        std::fs::write(killed.join("checkpoints/resume.safetensors"), copy).unwrap();
        let mut trainer = resume(&killed);
        assert_eq!((trainer.progress().epoch, trainer.progress().batch), place);
        trainer.run(&mut ()).unwrap();
        assert_same(&whole, &killed);
    }

    e.run.checkpoint_minutes = 0.0;
    let mut kept = Keep::default();
    begin(&e, &dir.path().join("never")).run(&mut kept).unwrap();
    assert!(kept.copies.iter().all(|((_, batch), _)| *batch == 0));
}

fn accept(path: &Path) -> Result<Trainer, TrainError> {
    let (directory, experiment) = RunDir::open(path).unwrap();
    let splits = Splits::load(&experiment).unwrap();
    let options = ResumeOptions { accept_changes: true, ..ResumeOptions::default() };
    Trainer::resume_with(experiment, splits, directory, options)
}

fn refused(path: &Path) -> String {
    let (directory, experiment) = RunDir::open(path).unwrap();
    let splits = Splits::load(&experiment).unwrap();
    Trainer::resume(experiment, splits, directory).err().unwrap().to_string()
}

/// Replaces a line of the config of a run.
fn edit(path: &Path, old: &str, new: &str) {
    let config = std::fs::read_to_string(path.join("config.toml")).unwrap();
    assert!(config.contains(old), "{config}");
    std::fs::write(path.join("config.toml"), config.replace(old, new)).unwrap();
}

#[test]
fn another_experiment_is_refused_by_name_and_accepted_by_request() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    begin(&experiment(), &path).run(&mut StopAfter { batches: Cell::new(6) }).unwrap();
    let checkpoint = path.join("checkpoints/resume.safetensors");
    let before = std::fs::read(&checkpoint).unwrap();
    let config = std::fs::read_to_string(path.join("config.toml")).unwrap();

    // What reads as an experiment, although it is only a part of it, is another one.
    let mut read = 0;
    for (at, _) in config.match_indices("\n[") {
        std::fs::write(path.join("config.toml"), &config[..at]).unwrap();
        let Ok((_, part)) = RunDir::open(&path) else { continue };
        // Only the last section has nothing but defaults.
        if part == experiment() {
            continue;
        }
        read += 1;
        let error = refused(&path);
        assert!(error.contains(", was ") && error.contains("--accept-changes"), "{error}");
    }
    assert!(read > 5, "{read} parts");
    std::fs::write(path.join("config.toml"), &config).unwrap();

    edit(&path, "\nsteps = 2\n", "\nsteps = 3\n");
    edit(&path, "\nepsilon = \"24/255\"\n", "\nepsilon = \"12/255\"\n");
    let error = refused(&path);
    for expected in ["attack.steps is 3, was 2", "attack.epsilon is 12/255, was 24/255", "--accept-changes"] {
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(std::fs::read(&checkpoint).unwrap(), before);
    let mut accepted = accept(&path).unwrap();
    // Within an epoch, fields of the next one wait.
    let epsilon = |e: &Experiment| e.attack.epsilon.to_string();
    assert_eq!((accepted.experiment().attack.steps, epsilon(accepted.experiment()).as_str()), (3, "24/255"));
    assert_eq!(epsilon(accepted.wanted()), "12/255");
    let mut seen = Keep::default();
    accepted.run(&mut seen).unwrap();
    assert!(seen.notes.iter().any(|note| note.contains("attack.steps is 3, was 2")), "{:?}", seen.notes);
    assert_eq!(epsilon(accepted.experiment()), "12/255");
    // The changes are part of the run now.
    drop(resume(&path));
    edit(&path, "batch_size = 48\n", "batch_size = 10\n");
    accept(&path).unwrap();
}

#[test]
fn more_epochs_need_no_acceptance_and_images_of_others_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    begin(&experiment(), &path).run(&mut StopAfter { batches: Cell::new(5) }).unwrap();
    edit(&path, "\nepochs = 4\n", "\nepochs = 5\n");
    let mut seen = Keep::default();
    let mut trainer = resume(&path);
    trainer.run(&mut seen).unwrap();
    assert_eq!(trainer.progress().epoch, 5);
    assert!(seen.notes.len() == 1 && seen.notes[0].starts_with("optimizer.epochs is 5, was 4"), "{:?}", seen.notes);
    edit(&path, "\nepochs = 5\n", "\nepochs = 3\n");
    assert!(refused(&path).contains("optimizer.epochs is 3, was 5"));
    edit(&path, "\nepochs = 3\n", "\nepochs = 5\n");
    edit(&path, "\ntest_limit = 20\n", "\ntest_limit = 30\n");
    let error = refused(&path);
    assert!(error.contains("data.test_limit is 30, was 20; the test images are not those"), "{error}");
    accept(&path).unwrap().run(&mut ()).unwrap();
}

#[test]
fn a_batch_size_changes_between_epochs_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    begin(&experiment(), &path).run(&mut StopAfter { batches: Cell::new(6) }).unwrap();
    edit(&path, "batch_size = 48\n", "batch_size = 60\n");
    let error = accept(&path).err().unwrap().to_string();
    assert!(error.contains("it has counted 80 images in the "), "{error}");
}

/// Without the checksum, experiment and data that later versions record.
#[test]
fn a_checkpoint_of_an_earlier_version_goes_on_with_a_note() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, path) = (dir.path().join("whole"), dir.path().join("run"));
    begin(&experiment(), &whole).run(&mut ()).unwrap();
    begin(&experiment(), &path).run(&mut StopAfter { batches: Cell::new(6) }).unwrap();
    let checkpoint = path.join("checkpoints/resume.safetensors");
    let bytes = std::fs::read(&checkpoint).unwrap();
    let (_, parsed) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    let own = &parsed.metadata().as_ref().unwrap()["fairtat"];
    let mut own: BTreeMap<String, serde_json::Value> = serde_json::from_str(own).unwrap();
    let mut progress: serde_json::Value = serde_json::from_str(own["progress"].as_str().unwrap()).unwrap();
    assert!(progress.as_object_mut().unwrap().remove("held_out").is_some());
    own.retain(|key, _| key == "progress");
    own.insert("progress".into(), progress.to_string().into());
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let text = [("fairtat".to_owned(), serde_json::to_string(&own).unwrap())];
    std::fs::write(&checkpoint, safetensors::serialize(file.tensors(), Some(text.into())).unwrap()).unwrap();
    let mut seen = Keep::default();
    resume(&path).run(&mut seen).unwrap();
    assert!(seen.notes.len() == 1 && seen.notes[0].contains("an earlier version"), "{:?}", seen.notes);
    assert_same(&whole, &path);

    // Its progress is still looked at.
    progress["epoch"] = 4_000_000_000u32.into();
    own.insert("progress".into(), progress.to_string().into());
    let text = [("fairtat".to_owned(), serde_json::to_string(&own).unwrap())];
    std::fs::write(&checkpoint, safetensors::serialize(file.tensors(), Some(text.into())).unwrap()).unwrap();
    let error = refused(&path);
    assert!(error.contains("resume.safetensors: it is at epoch 4000000000"), "{error}");
}

#[test]
fn a_flipped_bit_in_any_checkpoint_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    begin(&experiment(), &path).run(&mut ()).unwrap();
    for name in ["resume", "last", "best", "ema", "fawa"] {
        let file = path.join(format!("checkpoints/{name}.safetensors"));
        let bytes = std::fs::read(&file).unwrap();
        for from_end in [1, bytes.len() / 3, bytes.len() / 2] {
            let mut damaged = bytes.clone();
            damaged[bytes.len() - from_end] ^= 4;
            std::fs::write(&file, damaged).unwrap();
            let error = match name {
                "resume" => refused(&path),
                _ => fairtat::train::StoredNetwork::load(&file, None).unwrap_err().to_string(),
            };
            assert!(error.contains(name) && error.contains("the file is damaged"), "{error}");
        }
        std::fs::write(&file, bytes).unwrap();
    }
    drop(resume(&path));
}

/// A rate at which weights and loss leave the range of `f32` within a batch or two.
#[test]
fn a_run_that_diverges_keeps_its_last_finite_state() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut e = experiment();
    e.optimizer.lr = 1e300;
    let error = begin(&e, &path).run(&mut ()).unwrap_err().to_string();
    assert!(error.starts_with("training diverged in epoch 1, batch "), "{error}");
    assert!(error.contains("there is no checkpoint yet: begin another run with a lower --lr"), "{error}");
    // Also if it is stopped at once.
    let error = begin(&e, &dir.path().join("stopped")).run(&mut StopAfter { batches: Cell::new(1) }).unwrap_err();
    assert!(error.to_string().contains("training diverged in epoch 1, batch 1 of 4: NaN or infinity"), "{error}");
    assert!(!path.join("checkpoints").exists() && !dir.path().join("stopped/checkpoints").exists());

    let path = dir.path().join("later");
    begin(&experiment(), &path).run(&mut StopAfter { batches: Cell::new(6) }).unwrap();
    let names = ["resume", "last", "best"].map(|name| path.join(format!("checkpoints/{name}.safetensors")));
    let before = names.each_ref().map(|name| std::fs::read(name).unwrap());
    let config = std::fs::read_to_string(path.join("config.toml")).unwrap();
    let lr = config.lines().find(|line| line.starts_with("lr = ")).unwrap();
    edit(&path, lr, "lr = 1e300");
    let error = accept(&path).unwrap().run(&mut ()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { epoch: 2, .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("keeps the state before epoch 2, batch 3") && error.contains("--accept-changes"), "{error}");
    assert!(names.each_ref().map(|name| std::fs::read(name).unwrap()) == before);
    edit(&path, "lr = 1e300", lr);
    assert_eq!(resume(&path).run(&mut ()).unwrap(), Outcome::Finished);
}

/// `experiment` with `--engine ENGINE --deterministic`.
fn on(engine: EngineChoice, mut experiment: Experiment) -> Experiment {
    static WITHOUT_CACHE: Once = Once::new();
    #[allow(unsafe_code, reason = "tests must not write pipelines into the user's cache directory")]
    // SAFETY: only GPU drivers read the environment without Rust's lock here, and every test of this file calls this
    // function before it loads one.
    WITHOUT_CACHE.call_once(|| unsafe { std::env::set_var("FAIRTAT_CACHE", "") });
    let adapter = || std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    let run = &mut experiment.run;
    (run.engine, run.deterministic) = (engine, true);
    run.adapter = (engine == EngineChoice::Wgsl).then(adapter).flatten();
    experiment
}

#[test]
fn the_wgsl_engine_trains_to_the_same_bytes_stopped_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let e = on(EngineChoice::Wgsl, experiment());
    let [whole, again, stopped] = ["whole", "again", "stopped"].map(|name| dir.path().join(name));
    for path in [&whole, &again] {
        let mut trainer = begin(&e, path);
        assert_eq!(trainer.engine().name(), "wgsl");
        assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
    }
    assert_same(&whole, &again);
    let kernels = |run: &Path| RunDir::open(run).unwrap().0.kernels().unwrap().unwrap();
    let named: BTreeSet<String> = kernels(&whole).convolutions.into_iter().flat_map(|row| row.layers).collect();
    let expected: BTreeSet<String> = State::load(&whole.join("checkpoints/last.safetensors"))
        .unwrap()
        .0
        .0
        .into_iter()
        .filter(|(_, array)| array.shape.len() == 4)
        .map(|(name, _)| name.trim_end_matches(".weight").to_owned())
        .collect();
    assert!(!expected.is_empty() && named == expected, "{named:?} {expected:?}");
    assert!(kernels(&whole).convolutions.iter().all(|row| !row.is_measured()), "kernels were measured");
    let mut observer = StopAfter { batches: Cell::new(6) };
    assert_eq!(begin(&e, &stopped).run(&mut observer).unwrap(), Outcome::Stopped);
    // If the file cannot be parsed, the kernels are chosen again.
    std::fs::write(stopped.join("kernels.json"), "{").unwrap();
    let mut trainer = resume(&stopped);
    assert_eq!(kernels(&stopped), kernels(&whole));
    assert_eq!(trainer.engine().name(), "wgsl");
    assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
    assert_same(&whole, &stopped);
}

/// Trains to the end and writes the report, the examples and the figures, as the program does.
fn finish(mut trainer: Trainer, engine: &str) {
    assert_eq!(trainer.engine().name(), engine);
    assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
    assert!(evaluate::finish(&mut trainer, &mut ()).unwrap().is_some());
}

/// Every file of a run, except TensorBoard's, whose names contain the time, and the kernel choices, which only the WGSL
/// engine writes.
fn files(run: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![run.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => drop(found.insert(path.strip_prefix(run).unwrap().to_path_buf())),
            }
        }
    }
    // A process that still holds the run has its lock there.
    let is_other = |path: &str| [".lock", "events.out.tfevents"].iter().any(|start| path.starts_with(start));
    found.retain(|path| !is_other(path.to_str().unwrap()));
    found.remove(Path::new("kernels.json"));
    found
}

fn checkpoint(run: &Path, name: &str) -> State {
    State::load(&run.join(format!("checkpoints/{name}.safetensors"))).unwrap().0
}

/// Relative L2 distance of all parameters and statistics.
fn distance(a: &State, b: &State) -> f64 {
    let shapes = |state: &State| state.0.iter().map(|(k, v)| (k.clone(), v.shape.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(shapes(a), shapes(b));
    let flat = |state: &State| state.0.values().flat_map(|array| array.data.clone()).collect::<Vec<f32>>();
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let (a, b) = (flat(a), flat(b));
    norm(&mut a.iter().zip(&b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|b| f64::from(*b)))
}

/// Compares rows of `metrics.csv` without times: epoch, learning rate, loss, accuracies in training, and accuracies on
/// the 40 images of the validation split and the 4 of the worst class.
fn assert_near(row: &[String], other: &[String]) {
    assert_eq!(row[..2], other[..2]);
    let loss_and_an_image = [1e-4, 1.01 / 160.0, 1.01 / 160.0, 1.01 / 40.0, 0.251, 1.01 / 40.0, 0.251];
    for (i, bound) in loss_and_an_image.into_iter().enumerate() {
        let [a, b] = [row, other].map(|row| row[2 + i].parse::<f64>().unwrap());
        assert!((a - b).abs() <= bound, "column {}: {row:?} {other:?}", 2 + i);
    }
}

/// The engines add in different orders, so their gradients differ in the last bits. Where the gradient of a pixel is
/// close to zero its sign may then differ, and with it a whole step of the attack. Runs of different engines are
/// therefore close, but never equal. On the CPU and lavapipe the losses of these runs differ by 2e-8, their weights by
/// 1e-7 and their accuracies not at all; the bounds leave room for a few different signs on other adapters.
#[test]
fn a_run_may_change_engines_in_the_middle() {
    let engines = [(EngineChoice::Candle, "candle-cpu"), (EngineChoice::Wgsl, "wgsl")];
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.optimizer.epochs = 3;
    e.evaluation.test_steps = 2;
    let whole = engines.map(|(engine, name)| {
        let path = dir.path().join(format!("whole-{name}"));
        finish(begin(&on(engine, e.clone()), &path), name);
        path
    });
    let expected = files(&whole[0]);
    assert_eq!(files(&whole[1]), expected);
    for figure in ["accuracy", "cfps", "confusion", "epsilon", "targets", "classes", "examples"] {
        assert!(expected.contains(Path::new(&format!("figures/{figure}.png"))), "{figure} {expected:?}");
    }
    for (first, second) in [(0, 1), (1, 0)] {
        let path = dir.path().join(format!("{}-then-{}", engines[first].1, engines[second].1));
        // In the middle of the second epoch.
        let mut observer = StopAfter { batches: Cell::new(6) };
        let mut trainer = begin(&on(engines[first].0, e.clone()), &path);
        assert_eq!(trainer.engine().name(), engines[first].1);
        assert_eq!(trainer.run(&mut observer).unwrap(), Outcome::Stopped);
        assert_eq!(metrics_without_times(&path), metrics_without_times(&whole[first])[..1]);

        let (directory, written) = RunDir::open(&path).unwrap();
        assert_eq!(written.run.engine, engines[first].0);
        let resumed = on(engines[second].0, written);
        let splits = Splits::load(&resumed).unwrap();
        finish(Trainer::resume(resumed, splits, directory).unwrap(), engines[second].1);

        assert_eq!(files(&path), expected);
        let rows = metrics_without_times(&path);
        assert_eq!(rows[0], metrics_without_times(&whole[first])[0]);
        for whole in &whole {
            let other = metrics_without_times(whole);
            assert_eq!(rows.len(), other.len());
            for (row, other) in rows.iter().zip(&other) {
                assert_near(row, other);
            }
            for name in ["last", "ema", "fawa"] {
                let distance = distance(&checkpoint(&path, name), &checkpoint(whole, name));
                assert!(distance < 1e-3, "{name}: {distance:.2e}");
            }
            // A single image may decide which epoch is best.
            distance(&checkpoint(&path, "best"), &checkpoint(whole, "best"));
        }
    }
}
