//! `benches/gpu.sh run`, with scripts in place of the programs of a bundle.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Runs the script beside programs that print their name and arguments; returns its status and the report.
fn run(directory: &Path, failing: &str, variables: &[(&str, &str)]) -> (i32, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/gpu.sh");
    std::fs::copy(script, directory.join("gpu.sh")).unwrap();
    for name in ["fairtat", "test-fairtat", "test-wgsl", "test-pytorch", "test-soak"] {
        let status = i32::from(name == failing);
        let program = format!("#!/bin/sh\necho \"test {name} $* ... ok\"\necho \"1 {name} $*\"\nexit {status}\n");
        std::fs::write(directory.join(name), program).unwrap();
        std::fs::set_permissions(directory.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("bash");
    command.args(["gpu.sh", "run", "out", "radeon"]).current_dir(directory).env("PYTHON", "no-python-with-torch");
    let status = command.envs(variables.iter().copied()).output().unwrap().status;
    (status.code().unwrap(), std::fs::read_to_string(directory.join("out/report.md")).unwrap())
}

fn headings(report: &str) -> Vec<&str> {
    report.lines().filter_map(|line| line.strip_prefix("## ")).map(|line| line.split(':').next().unwrap()).collect()
}

const ORDER: [&str; 11] = [
    "engines",
    "test-kernels",
    "test-networks",
    "test-pytorch",
    "bench",
    "peers",
    "digits-60s",
    "bench-subgroups-off",
    "bench-subgroups-on",
    "bench-others",
    "test-soak",
];

#[test]
fn parts_come_in_the_order_of_their_value_and_one_that_fails_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (status, report) = run(dir.path(), "test-wgsl", &[("LIMIT", "100000")]);
    assert_eq!(headings(&report), ORDER);
    assert_eq!(status, 1);
    assert!(
        report.contains("## test-networks: FAILED with status 1, see test-networks.log, 1 passed, 0 failed"),
        "{report}"
    );
    assert!(report.contains("## test-kernels: ok, 1 passed, 0 failed"), "{report}");
    assert!(
        report.contains("1 fairtat bench --engine wgsl --adapter radeon --arch preact-resnet-18 --batch 128"),
        "{report}"
    );
    let log = std::fs::read_to_string(dir.path().join("out/test-kernels.log")).unwrap();
    assert!(log.contains("test test-fairtat engine::wgsl ... ok"), "{log}");
}

#[test]
fn without_time_nothing_begins_and_the_status_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (status, report) = run(dir.path(), "", &[("LIMIT", "0"), ("PARTS", "tests digits")]);
    assert_eq!(status, 1);
    assert_eq!(headings(&report), ["engines", "test-kernels", "test-networks", "test-pytorch", "digits-60s"]);
    assert_eq!(report.matches("not begun, the time is up").count(), 5, "{report}");
}

#[test]
fn all_parts_that_succeed_are_a_success() {
    let dir = tempfile::tempdir().unwrap();
    let (status, report) = run(dir.path(), "", &[("LIMIT", "100000"), ("QUICK", "1")]);
    assert_eq!(status, 0, "{report}");
    assert_eq!(headings(&report), ORDER[..10]);
}
