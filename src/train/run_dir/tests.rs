//! Claims of directories, what is written below them, and what earlier versions have left.

use super::*;
use crate::train::MetricsRow;

#[test]
fn a_kept_checkpoint_says_which_epochs_it_was_compared_with() {
    let kept = KeptBest {
        name: "best-until-epoch-0001".into(),
        epoch: 1,
        until_epoch: 1,
        attack: "PGD-10, ε 2/255".into(),
        score: Some(0.3),
    };
    assert_eq!(
        kept.to_string(),
        "the best of the epochs up to 2: epoch 2, score 0.300 (mean + worst class, validation, PGD-10, ε 2/255), in \
         checkpoints/best-until-epoch-0001.safetensors (files count epochs from 0)"
    );
}

/// Tables and directories of earlier versions have fewer columns and files.
#[test]
fn what_an_earlier_version_left_still_reads() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = Experiment::default();
    let run = RunDir::create(dir.path(), &experiment).unwrap();
    let header = "epoch,lr,train_loss,train_clean_accuracy,train_robust_accuracy,val_clean_accuracy,val_clean_worst,\
                  val_robust_accuracy,val_robust_worst,seconds,seconds_attack,seconds_update,seconds_statistics";
    run.write("metrics.csv", format!("{header}\n0,0.1,2,,0.5,0.6,0.3,0.4,0.2,1,0.7,0.2,0.1\n").as_bytes()).unwrap();
    let (metrics, _) = run.read_rows().unwrap();
    assert_eq!((metrics[0].val_attack.as_str(), metrics[0].val_without_gradient), ("", None));
    // The validation attack is then known from the experiment alone.
    assert!(metrics[0].validation_attack(&experiment).starts_with("PGD-10, L∞, ε 8/255"));
    assert!(run.engine().unwrap().is_none() && run.kept_bests().is_empty());

    let new = MetricsRow {
        epoch: 1,
        val_attack: "PGD-10, \"x\"".into(),
        val_without_gradient: Some(3),
        ..metrics[0].clone()
    };
    run.write_rows(&[metrics[0].clone(), new.clone()], &[]).unwrap();
    assert_eq!(run.read_rows().unwrap().0, [metrics[0].clone(), new]);
}

fn begun(path: &Path) -> RunDir {
    RunDir::create(path, &Experiment::default()).unwrap()
}

#[test]
fn runs_that_begin_at_once_get_directories_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let runs = dir.path().join("runs");
    let claims: Vec<RunDir> = std::thread::scope(|scope| {
        let claim = || RunDir::claim_free(&runs, "digits").unwrap();
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut paths: Vec<&Path> = claims.iter().map(RunDir::path).collect();
    paths.sort();
    let mut expected: Vec<PathBuf> = numbered(&runs, "digits").take(8).collect();
    expected.sort();
    assert_eq!(paths, expected);
    // A directory that someone else has made is never taken.
    std::fs::create_dir(runs.join("digits-9")).unwrap();
    let tenth = RunDir::claim_free(&runs, "digits").unwrap();
    assert_eq!(tenth.path(), runs.join("digits-10"));
    // As after a process that was killed before its run began.
    drop(tenth);
    assert_eq!(RunDir::claim_free(&runs, "digits").unwrap().path(), runs.join("digits-10"));
}

#[test]
fn a_directory_has_one_process_that_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let first = RunDir::claim_new(&path).unwrap();
    // Before config.toml is written, while data are loaded.
    let second = RunDir::claim_new(&path).unwrap_err().to_string();
    let holder = format!("run is in use by process {} on ", std::process::id());
    assert!(second.contains(&holder) && second.contains("wait until that has ended"), "{second}");
    assert!(matches!(RunDir::claim(&path).unwrap_err(), RunDirError::Empty { .. }));
    first.begin(&Experiment::default(), "").unwrap();
    let clone = first.clone();
    drop(first);
    for refused in [RunDir::claim_new(&path).unwrap_err(), RunDir::claim(&path).unwrap_err()] {
        assert!(matches!(refused, RunDirError::InUse { .. }), "{refused}");
    }
    // Everyone may read.
    assert_eq!(RunDir::open(&path).unwrap().1, Experiment::default());
    drop(clone);
    assert!(matches!(RunDir::claim_new(&path).unwrap_err(), RunDirError::Taken { .. }));
    let (run, _) = RunDir::claim(&path).unwrap();
    assert!(matches!(RunDir::claim(&path).unwrap_err(), RunDirError::InUse { .. }));
    // A checkpoint beside those of a run in progress.
    let checkpoint = run.checkpoint("last");
    assert!(matches!(RunDir::claim_of(&checkpoint).unwrap_err(), RunDirError::InUse { .. }));
    drop(run);
    assert_eq!(RunDir::claim_of(&checkpoint).unwrap().unwrap().path(), path);
    assert!(RunDir::claim_of(&path.join("last.safetensors")).unwrap().is_none());
}

#[test]
fn a_run_that_cannot_begin_leaves_nothing_and_removes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    begun(&path).abandon();
    assert!(!path.exists());
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    begun(&path).abandon();
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1);
    drop(begun(&path));
    RunDir::at(&path).abandon();
    assert!(RunDir::open(&path).is_ok(), "only the process that has claimed a directory gives it up");
    std::fs::remove_file(path.join("config.toml")).unwrap();
    std::fs::write(path.join("evaluation.json"), "{}").unwrap();
    assert!(matches!(RunDir::claim_new(&path).unwrap_err(), RunDirError::Leftover { .. }));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_directory_are_not_followed() {
    use std::os::unix::fs::symlink;
    for part in ["checkpoints", "confusion", "figures", "examples", "log.jsonl"] {
        let dir = tempfile::tempdir().unwrap();
        let run = begun(&dir.path().join("run"));
        let outside = dir.path().join("outside");
        match part {
            "log.jsonl" => std::fs::write(&outside, "").unwrap(),
            _ => std::fs::create_dir(&outside).unwrap(),
        }
        symlink(&outside, run.path().join(part)).unwrap();
        let refused = [
            run.write(format!("{part}/x"), b"x").unwrap_err(),
            run.log(&serde_json::json!({})).unwrap_err(),
            run.check().unwrap_err(),
        ];
        assert!(refused.iter().all(|error| error.to_string().contains(&format!("{part} is a link"))), "{refused:?}");
        let path = run.path().to_path_buf();
        drop(run);
        assert!(matches!(RunDir::claim(&path).unwrap_err(), RunDirError::Link { .. }));
        match part {
            "log.jsonl" => assert_eq!(std::fs::read(&outside).unwrap(), b""),
            _ => assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0),
        }
        // The run directory itself may be a link.
        std::fs::remove_file(path.join(part)).unwrap();
        symlink(&path, dir.path().join("linked")).unwrap();
        RunDir::claim(&dir.path().join("linked")).unwrap().0.write("checkpoints/x", b"x").unwrap();
    }
}

#[test]
fn a_directory_that_vanished_is_not_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let run = begun(&path);
    let gone = |run: &RunDir| {
        [run.write("metrics.csv", b"x"), run.log(&serde_json::json!({}))].into_iter().all(|written| {
            written.is_err_and(|error| error.to_string().contains("is no longer the directory of this run"))
        })
    };
    std::fs::rename(&path, dir.path().join("moved")).unwrap();
    assert!(gone(&run) && !path.exists());
    assert!(run.begin(&Experiment::default(), "").is_err() && !path.exists());
    #[cfg(unix)]
    {
        // Nor does the run write into that of another one that was begun there since.
        let other = begun(&path);
        assert!(gone(&run) && !gone(&other));
    }
}

#[test]
fn what_killed_processes_left_is_removed_when_a_run_continues() {
    let dir = tempfile::tempdir().unwrap();
    let run = begun(dir.path());
    let stale = [".last.safetensors.4711.tmp", "checkpoints/.fairtat-0123456789abcdef.tmp", "figures/.a.svg.1.tmp"];
    stale.iter().for_each(|name| run.write(name, b"x").unwrap());
    drop(run);
    RunDir::open(dir.path()).unwrap();
    assert!(stale.iter().all(|name| dir.path().join(name).exists()), "who only reads removes nothing");
    RunDir::claim(dir.path()).unwrap();
    assert!(!stale.iter().any(|name| dir.path().join(name).exists()));
}

#[test]
fn a_line_after_one_that_was_cut_off_is_a_line_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let run = begun(dir.path());
    let checkpoint = |epoch: u32| serde_json::json!({ "event": "checkpoint", "epoch": epoch, "batch": 0 });
    run.log(&checkpoint(1)).unwrap();
    let log = dir.path().join(LOG);
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, [&whole[..], b"{\"event\": \"epo\xff"].concat()).unwrap();
    run.log(&checkpoint(2)).unwrap();
    run.log(&checkpoint(3)).unwrap();
    assert_eq!(run.logged_checkpoints(1), [1.0, 2.0, 3.0]);
}

/// A run that lost its checkpoint does not begin again over its results; one that was killed before the first one does.
#[test]
fn results_are_not_overwritten_by_a_new_beginning() {
    let experiment = |every| {
        let mut e = Experiment::default();
        e.run.checkpoint_every = every;
        e
    };
    let check = |every, leave: &dyn Fn(&RunDir)| {
        let dir = tempfile::tempdir().unwrap();
        let run = begun(dir.path());
        leave(&run);
        run.check_beginning_again(&experiment(every)).map_err(|error| error.to_string())
    };
    let last = |run: &RunDir| run.write("checkpoints/last.json", b"{\"epoch\": 2}").unwrap();
    check(1, &|_| ()).unwrap();
    check(4, &last).unwrap();
    let message = check(3, &last).unwrap_err();
    assert!(message.contains("resume.safetensors is missing") && message.contains("results of 3 epochs"), "{message}");
    assert!(message.contains("fairtat train --config"), "{message}");
    check(9, &|run| run.write("evaluation.json", b"{}").unwrap()).unwrap_err();
    check(9, &|run| run.log(&serde_json::json!({ "event": "checkpoint", "epoch": 0, "batch": 3 })).unwrap())
        .unwrap_err();
}

/// 225 of 1,103 prefixes of a config.toml are another experiment: fields that are missing have their defaults.
#[test]
fn no_part_of_a_config_passes_for_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path(), &Experiment::preset("cifar10-paper").unwrap()).unwrap();
    run.check_config().unwrap();
    let text = std::fs::read_to_string(run.config_path()).unwrap();
    for length in 0..text.len() {
        std::fs::write(run.config_path(), &text[..length]).unwrap();
        assert!(run.check_config().is_err(), "{length} bytes");
    }
    std::fs::write(run.config_path(), text.replace("seed = 0", "seed = 1")).unwrap();
    let error = run.check_config().unwrap_err().to_string();
    assert!(error.contains("config.toml: it was cut off or edited") && error.contains("--accept-changes"), "{error}");
    // As an earlier version wrote it.
    let earlier: Vec<&str> = text.lines().filter(|line| !line.starts_with(SEAL)).collect();
    std::fs::write(run.config_path(), earlier.join("\n")).unwrap();
    run.check_config().unwrap();
    // After a change of the run in progress.
    let mut changed = Experiment::preset("cifar10-paper").unwrap();
    changed.optimizer.lr = 0.5;
    run.change_config(&changed, 1, 2).unwrap();
    run.check_config().unwrap();
    assert_eq!(run.load_config().unwrap().optimizer.lr, 0.5);
}

/// Of many classes the counts are compressed; files of earlier versions, which never were, still read.
#[test]
fn confusion_of_many_classes_is_compressed_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = begun(dir.path());
    let counts = |classes: usize| {
        let mut found = Confusion::new(classes);
        (0..3 * classes).for_each(|i| found.add((i % classes) as u32, (i * i % classes) as u32));
        found
    };
    for (epoch, classes, extension) in [(0, 10, "npy"), (1, DENSE_CLASSES, "npy"), (2, 1000, "npz")] {
        run.write_confusion(epoch, "train", &counts(classes)).unwrap();
        let name = RunDir::confusion_name(epoch, "train", classes);
        assert!(name.ends_with(extension), "{name}");
        let bytes = std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(bytes < 200_000, "{bytes} bytes");
        assert_eq!(run.confusion(epoch, "train").unwrap(), Some(counts(classes)));
    }
    let old = write_npy_u64(&[200, 200], &[7; 200 * 200]).unwrap();
    run.write("confusion/epoch-0003-train.npy", &old).unwrap();
    assert_eq!(run.confusion(3, "train").unwrap().unwrap().counts(), [7; 200 * 200]);
    // The epoch was trained again.
    run.write_confusion(3, "train", &counts(200)).unwrap();
    assert_eq!(run.confusion(3, "train").unwrap(), Some(counts(200)));
    assert_eq!(run.confusion(4, "train").unwrap(), None);
    run.write("confusion/epoch-0004-train.npz", b"PK").unwrap();
    let error = run.confusion(4, "train").unwrap_err().to_string();
    assert!(error.contains("epoch-0004-train.npz"), "{error}");
}

/// Opening a pipe for appending waits until somebody reads it.
#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_the_log_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let run = begun(dir.path());
    let path = dir.path().join(LOG);
    std::fs::remove_file(&path).unwrap_or_default();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(run.log(&serde_json::json!({})).map_err(|error| error.to_string())));
    let error = receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap().unwrap_err();
    assert!(error.contains("it is a pipe, expected a regular file"), "{error}");
}
