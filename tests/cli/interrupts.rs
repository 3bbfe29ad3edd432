//! Ctrl-C.

use super::*;

/// Sends the signal of Ctrl-C.
#[cfg(unix)]
fn interrupt(process: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill -INT {process}")]).status().unwrap().success());
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

#[test]
#[cfg(unix)]
fn ctrl_c_once_writes_a_checkpoint_and_says_how_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_fairtat"))
        .args(["train", "--run-dir", "run", "--epochs", "500", "--limit", "300"])
        .current_dir(dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let log = dir.path().join("run/metrics.csv");
    let begun = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        log.exists()
    });
    assert!(begun, "no epoch was done within a minute");
    interrupt(child.id());
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("Continue with: fairtat resume run"), "{message}");
    assert!(dir.path().join("run/checkpoints/resume.safetensors").exists());
}
