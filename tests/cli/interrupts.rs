//! Ctrl-C and other signals, and what they leave; a terminal that goes away.

use super::*;

#[cfg(unix)]
pub(super) fn send(signal: &str, process: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -{signal} {process}")]).status().unwrap().success());
}

/// Sends the signal of Ctrl-C.
#[cfg(unix)]
fn interrupt(process: u32) {
    send("INT", process);
}

#[test]
#[cfg(unix)]
fn ctrl_c_twice_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    // One batch of this would take hours.
    let mut child = Command::new(env!("CARGO_BIN_EXE_fairtat"))
        .args(["train", "--run-dir", "run", "--batch-size", "2000", "--steps", "10000000"])
        .current_dir(dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    assert!(lines.any(|line| line.unwrap().starts_with("Engine:")));
    let pause = || std::thread::sleep(std::time::Duration::from_millis(500));
    pause();
    interrupt(child.id());
    assert!(lines.any(|line| line.unwrap().contains("press Ctrl-C again")));
    pause();
    assert!(child.try_wait().unwrap().is_none(), "the batch is not done yet");
    interrupt(child.id());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// A run that is waiting for nothing: its first epoch has begun, or is about to.
#[cfg(unix)]
fn long_run(directory: &Path) -> (std::process::Child, impl Iterator<Item = String>) {
    let mut child = command(directory, &["train", "--run-dir", "run", "--epochs", "5000", "--limit", "300"])
        .args(["--engine", "candle"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap())).map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("Engine:")));
    (child, lines)
}

#[test]
#[cfg(unix)]
fn every_signal_is_one_ctrl_c_with_its_own_status() {
    use std::os::unix::process::ExitStatusExt;
    let hung_up = Command::new("sh").args(["-c", "kill -HUP $$; exit 9"]).status().unwrap();
    assert_eq!(hung_up.signal(), Some(1), "nohup makes programs ignore SIGHUP: run the tests without it");
    for (signal, status) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, lines) = long_run(dir.path());
        send(signal, child.id());
        let message = lines.collect::<Vec<_>>().join("\n");
        assert_eq!(child.wait().unwrap().code(), Some(status), "{message}");
        assert!(message.contains("Stopping after this batch, with a checkpoint; press Ctrl-C again"), "{message}");
        assert!(message.ends_with("Stopped. Continue with: fairtat resume run"), "{message}");
        assert!(dir.path().join("run/checkpoints/resume.safetensors").exists());
    }
}

/// The window, as a desktop that ends a session, a service manager and a terminal end it.
#[test]
#[cfg(all(target_os = "linux", feature = "window"))]
#[ignore = "needs a display; test.sh runs it by `xvfb-run cargo test --test cli -- --ignored a_signal_saves`"]
fn a_signal_saves_the_run_of_the_window_and_ends_it() {
    for (signal, status) in [("TERM", 143), ("HUP", 129), ("INT", 130)] {
        let dir = tempfile::tempdir().unwrap();
        let small =
            ["--limit", "60", "--validation-per-class", "2", "--width", "4", "--steps", "1", "--eval-steps", "1"];
        let long = ["config", "show", "--epochs", "5000", "--engine", "candle"];
        let shown = ok(dir.path(), &[&long[..], &small].concat());
        std::fs::write(dir.path().join("long.toml"), shown).unwrap();
        let mut child = command(dir.path(), &["window", "--tour", "pictures", "--tour-epochs", "4000", "long.toml"])
            .env("XDG_CONFIG_HOME", dir.path().join("config"))
            .env("XDG_DATA_HOME", dir.path().join("data"))
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let began = std::time::Instant::now();
        let metrics = || -> Option<std::path::PathBuf> {
            let runs = std::fs::read_dir(dir.path().join("runs")).ok()?;
            runs.flatten().map(|run| run.path()).find(|run| run.join("metrics.csv").exists())
        };
        let run = loop {
            if let Some(run) = metrics() {
                break run;
            }
            assert!(began.elapsed().as_secs() < 300 && child.try_wait().unwrap().is_none(), "no epoch was trained");
            std::thread::sleep(std::time::Duration::from_millis(100));
        };
        let checkpoint = run.join("checkpoints/resume.safetensors");
        let modified = || std::fs::metadata(&checkpoint).and_then(|found| found.modified()).ok();
        let before = modified();
        send(signal, child.id());
        let output = child.wait_with_output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{message}");
        assert!(
            message.contains("Stopping and closing the window; a run that is under way is saved first"),
            "{message}"
        );
        assert!(modified().is_some() && modified() != before);
        let log = std::fs::read_to_string(run.join("log.jsonl")).unwrap();
        assert!(log.lines().last().unwrap().contains("\"checkpoint\""), "{log}");
    }
}

#[test]
#[cfg(unix)]
fn a_run_outlives_the_terminal_that_began_it() {
    let dir = tempfile::tempdir().unwrap();
    for (out, error) in [("/dev/null", None), ("/dev/full", Some("/dev/full"))] {
        let file = |path: &str| std::fs::OpenOptions::new().write(true).open(path);
        if error.is_some() && !cfg!(target_os = "linux") {
            // Only Linux has the device that is always full.
            continue;
        }
        let mut run = command(dir.path(), &[&TINY[..], &["1"]].concat());
        run.stdout(file(out).unwrap());
        match error {
            Some(path) => run.stderr(file(path).unwrap()),
            None => run.stderr(std::process::Stdio::piped()),
        };
        let mut child = run.spawn().unwrap();
        // Nobody reads standard error any more.
        drop(child.stderr.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{out}");
        assert!(dir.path().join("run/evaluation.json").exists());
        std::fs::remove_dir_all(dir.path().join("run")).unwrap();
    }
    // A listing ends without a word where nobody reads it.
    let mut listing = command(dir.path(), &["config", "show"]);
    let mut child = listing.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(0), ""));
}
