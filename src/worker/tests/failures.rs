//! Failures are reported with advice, and the worker continues.

use super::*;
use crate::config::EngineOptions;
use crate::data::ImageShape;
use crate::engine::Norm;
use crate::files::FileError;
use crate::units::Epsilon;

fn look(driver: &Driver, path: &Path) {
    let engine = EngineOptions { engine: EngineChoice::Candle, deterministic: true, ..EngineOptions::default() };
    driver.send(Request::Look { path: path.into(), engine });
}

fn inspection(id: u64) -> Request {
    let subject = Subject {
        name: format!("image {id}"),
        shape: ImageShape::new(1, 8, 8),
        pixels: vec![7; 64].into(),
        label: Some(1),
    };
    let attack = InspectionAttack {
        target: None,
        norm: Norm::Linf,
        epsilon: Epsilon::levels(8.0),
        step_size: Epsilon::levels(4.0),
        steps: 2,
        random_start: false,
        seed: 0,
    };
    Request::Inspect(Box::new(InspectionJob { id, subject, attack }))
}

#[test]
fn failures_to_open_say_why_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::new();

    let mut cifar = experiment();
    cifar.data = crate::config::DataConfig { dataset: "cifar10".into(), ..Default::default() };
    cifar.data.path = Some(dir.path().join("nothing"));
    driver.begin(cifar, &run_in(&dir), false);
    let failure = driver.failure();
    assert_eq!((failure.doing.as_str(), &failure.run), ("beginning a run", &None));
    assert!(failure.what.contains("data set 'cifar10'") && failure.what.contains("nothing"), "{failure:?}");
    assert!(!run_in(&dir).exists(), "nothing is left of a run that did not begin");

    let mut wrong = experiment();
    wrong.optimizer.lr = -1.0;
    driver.begin(wrong, &run_in(&dir), false);
    let failure = driver.failure();
    assert!(failure.what.contains("optimizer.lr") && failure.advice.is_some(), "{failure:?}");

    let mut misfit = experiment();
    misfit.fairness.fixed_target = 10;
    driver.begin(misfit, &run_in(&dir), false);
    assert!(driver.failure().what.contains("fairness.fixed_target"));
    assert!(!run_in(&dir).exists());

    driver.resume(&run_in(&dir), false);
    let failure = driver.failure();
    assert!(failure.what.contains("holds no run") && failure.advice.unwrap().contains("config.toml"));

    std::fs::create_dir(run_in(&dir)).unwrap();
    std::fs::write(run_in(&dir).join("config.toml"), "[optimizer]\nlearning_rate = 1\n").unwrap();
    driver.resume(&run_in(&dir), false);
    let failure = driver.failure();
    assert!(failure.what.contains("config.toml: line 2") && failure.run.is_none(), "{failure:?}");
    driver.begin(experiment(), &run_in(&dir), false);
    let failure = driver.failure();
    assert!(failure.what.contains("already holds a run"), "{failure:?}");
    let free = dir.path().join("run-2");
    assert!(failure.advice.unwrap().contains(free.to_str().unwrap()) && failure.run.is_none());

    look(&driver, &dir.path().join("run"));
    assert!(driver.failure().what.contains("best.safetensors"));
    look(&driver, &dir.path().join("cat.safetensors"));
    assert!(driver.failure().what.contains("cat.safetensors"));
    driver.send(inspection(1));
    let failure = driver.failure();
    assert_eq!((failure.doing.as_str(), failure.what.as_str()), (crate::worker::INSPECTING, "no network is open"));

    // The worker still works after all these failures.
    driver.begin(experiment(), &free, false);
    driver.opened();
    driver.send(Request::Stop { save: false });
    assert!(matches!(driver.until_ended(), Ended::Discarded));
}

#[test]
fn a_missing_data_set_is_named_with_the_command_that_fetches_it() {
    let error = session::SessionError::Data {
        name: "cifar10".into(),
        source: crate::data::DataError::Missing("cifar10 is not here".into()),
    };
    let failure = failure::of_run("beginning a run", &error, Path::new("no such run"));
    assert_eq!(failure.what, "data set 'cifar10': cifar10 is not here");
    assert!(failure.advice.unwrap().contains("`fairtat data fetch cifar10`"));
    let error = session::SessionError::Data {
        name: "digit".into(),
        source: crate::data::DataError::Missing("no data set is called 'digit'".into()),
    };
    assert_eq!(failure::of_run("beginning a run", &error, Path::new("no such run")).advice, None);
}

#[test]
fn a_lost_gpu_and_a_full_disk_end_a_run_that_can_be_resumed() {
    use crate::engine::{EngineError, GpuError};
    use crate::train::{RunDirError, TrainError};
    let dir = tempfile::tempdir().unwrap();
    let lost = || GpuError::Lost { adapter: "Example GPU".into(), what: "reset".into() };
    let fail = |error: TrainError| failure::of_run("training", &session::SessionError::Train(error), dir.path());
    let before = fail(EngineError::Gpu(lost()).into());
    assert!(before.run.is_none() && before.advice.unwrap().contains("Try again"));
    std::fs::write(dir.path().join("config.toml"), "").unwrap();
    let failure = fail(EngineError::Gpu(lost()).into());
    assert_eq!(failure.run.as_deref(), Some(dir.path()));
    let advice = failure.advice.unwrap();
    for way in ["same engine", "another adapter", "Candle on the CPU"] {
        assert!(advice.contains(way), "{advice}");
    }
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let failure = fail(RunDirError::from(FileError::writing("metrics.csv")(full)).into());
    assert!(failure.what.contains("metrics.csv"), "{failure:?}");
    assert_eq!(failure.advice.as_deref(), Some("Free some space on that disk, then resume the run."));
    let closed = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
    let failure = fail(RunDirError::from(FileError::writing("metrics.csv")(closed)).into());
    assert!(failure.advice.unwrap().contains("may write"));
    let (what, then) = ("NaN or infinity in the loss".into(), "begin again".into());
    let diverged = TrainError::Diverged { epoch: 1, batch: 2, batches: 3, what, then };
    for error in [EngineError::NotFinite { what: "loss".into(), batch: 3 }.into(), diverged] {
        let failure = fail(error);
        assert!(failure.what.starts_with("training diverged"), "{failure:?}");
        assert!(failure.advice.unwrap().contains("learning rate"));
    }
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_created_is_reported_before_training() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    let mut driver = Driver::new();
    driver.begin(experiment(), &dir.path().join("file/run"), false);
    let failure = driver.failure();
    assert!(failure.what.contains("file") && failure.run.is_none(), "{failure:?}");
    assert!(driver.batches().is_empty());
}

#[test]
fn a_panic_is_a_failure_that_names_the_last_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("checkpoints")).unwrap();
    for name in ["config.toml", "checkpoints/resume.safetensors"] {
        std::fs::write(dir.path().join(name), "").unwrap();
    }
    let panic = std::panic::catch_unwind(|| panic!("index out of bounds")).unwrap_err();
    let failure = failure::of_panic("training", panic.as_ref(), Some(dir.path()));
    assert_eq!(
        (failure.what.as_str(), failure.run.as_deref()),
        ("a bug in fairtat: index out of bounds", Some(dir.path()),)
    );
    assert!(failure.advice.unwrap().contains("resume.safetensors"));
}

#[test]
fn only_one_run_at_a_time_and_requests_after_a_stop_wait_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let mut driver = Driver::new();
    driver.begin(experiment(), &first, true);
    driver.until_paused();
    driver.begin(experiment(), &second, true);
    let failure = driver.failure();
    assert_eq!((failure.what.as_str(), &failure.run), ("a run is under way", &None));

    driver.send(Request::Stop { save: true });
    driver.begin(experiment(), &second, true);
    assert!(matches!(driver.until_ended(), Ended::Saved));
    assert_eq!(driver.opened().directory, Some(second.clone()));
    driver.until_paused();
    driver.send(Request::Stop { save: false });
    driver.resume(&first, true);
    assert!(matches!(driver.until_ended(), Ended::Discarded));
    assert!(!second.join("checkpoints").exists());
    assert_eq!(driver.opened().directory, Some(first));
}

#[test]
fn a_checkpoint_can_be_inspected_without_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.optimizer.epochs = 1;
    let mut driver = Driver::new();
    driver.begin(e.clone(), &run_in(&dir), false);
    driver.until_ended();
    for path in [run_in(&dir), run_in(&dir).join("checkpoints/last.safetensors")] {
        look(&driver, &path);
        let info = driver.opened();
        assert_eq!((info.directory, info.experiment.as_ref()), (None, &e));
        // With the epochs of the run that it lies in.
        assert_eq!((info.test.len(), info.history.len()), (20, 1));
        assert_eq!(info.history[0].validation.as_ref().unwrap().total(), 40);
        assert_eq!(info.looked.unwrap().position, Some(1.0));
        driver.until("idleness", |update| matches!(update, Update::Phase(Phase::Idle)).then_some(()));
    }
    // Elsewhere there are none.
    let alone = dir.path().join("alone.safetensors");
    std::fs::copy(run_in(&dir).join("checkpoints/last.safetensors"), &alone).unwrap();
    look(&driver, &alone);
    assert!(driver.opened().history.is_empty());
    driver.until("idleness", |update| matches!(update, Update::Phase(Phase::Idle)).then_some(()));
    // A network stays open if the next one cannot be opened.
    look(&driver, &dir.path().join("nothing.safetensors"));
    driver.failure();
    driver.send(inspection(7));
    let answer = driver.until("an answer", |update| match update {
        Update::Inspected(inspection) => Some(format!("{} after {:?}", inspection.job.id, inspection.position)),
        Update::Failed(failure) => Some(failure.what.clone()),
        _ => None,
    });
    assert_ne!(answer, "no network is open");
}
