//! Processes that are killed at random moments, and what `resume` makes of what they leave.
//!
//! `FAIRTAT_KILLS=200 FAIRTAT_KILLS_SEED=1 cargo test --test cli random_kills` kills more often, at other moments;
//! `FAIRTAT_KILLS_ENGINE=wgsl` on the GPU.

use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::interrupts::send;
use super::*;

/// A run of four epochs and with every file, in seconds.
const RUN: [&str; 25] = [
    "train",
    "--run-dir",
    "run",
    "--epochs",
    "4",
    "--limit",
    "400",
    "--test-limit",
    "100",
    "--steps",
    "3",
    "--validation-per-class",
    "4",
    "--average-from",
    "1",
    "--fawa-threshold",
    "0",
    "--test-steps",
    "20",
    "--recalibrate-bn",
    "4",
    "--examples",
    "3",
    "--checkpoint-minutes",
    "0.002",
];

/// A number in `[0, bound)` from a linear congruential generator.
pub(super) fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*state >> 33) % bound
}

/// Number of kills and the first state of [`draw`], from the environment.
pub(super) fn asked_for(kills: u64) -> (u64, u64) {
    let number = |name, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    (number("FAIRTAT_KILLS", kills), number("FAIRTAT_KILLS_SEED", 0))
}

fn engine() -> String {
    std::env::var("FAIRTAT_KILLS_ENGINE").unwrap_or_else(|_| "candle".into())
}

fn start(directory: &Path, arguments: &[&str]) -> Child {
    command(directory, arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Everything in a run that does not contain times, by path.
fn contents(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![run.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(run).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                open.push(path);
            } else if name == "metrics.csv" {
                let (header, rows) = columns(&path);
                let timeless = |row: &csv::StringRecord| {
                    let kept = header.iter().zip(row).filter(|(column, _)| !column.starts_with("seconds"));
                    kept.map(|(_, value)| value.to_owned()).collect::<Vec<_>>().join(",")
                };
                found.insert(name, rows.iter().map(timeless).collect::<Vec<_>>().join("\n").into_bytes());
            } else if !(name.starts_with("events.out") || name == "log.jsonl" || name == "lock") {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The files in which two runs differ, or that only one of them has.
fn differences(expected: &BTreeMap<String, Vec<u8>>, run: &Path) -> Vec<String> {
    let found = contents(run);
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    names.into_iter().filter(|name| expected.get(*name) != found.get(*name)).cloned().collect()
}

/// After a run is killed once or several times by random signals, in whatever it does at that moment, the program either
/// continues it to the files of an uninterrupted run, or has said that there is nothing to continue, and it begins anew.
#[test]
#[cfg(unix)]
fn random_kills_end_with_the_files_of_an_uninterrupted_run() {
    let (kills, mut state) = asked_for(8);
    let engine = engine();
    let train: Vec<&str> = RUN.into_iter().chain(["--engine", &engine]).collect();
    let whole = tempfile::tempdir().unwrap();
    // Once for the caches of the engine, and once for the time.
    ok(whole.path(), &train);
    std::fs::remove_dir_all(whole.path().join("run")).unwrap();
    let begun = Instant::now();
    ok(whole.path(), &train);
    let time = begun.elapsed();
    let expected = contents(&whole.path().join("run"));
    assert!(expected.len() > 30, "{:?}", expected.keys());

    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    let mut done = 0;
    while done < kills {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let mut resumed = false;
        let mut story = Vec::new();
        loop {
            // One life in three ends by itself; a story of kills would never end otherwise.
            let (signal, code) = [("KILL", None), ("TERM", Some(143)), ("HUP", Some(129)), ("INT", Some(130))]
                [draw(&mut state, 4) as usize];
            let killed = done < kills && draw(&mut state, 3) > 0;
            let resume = ["resume", "run"];
            let mut child = start(dir.path(), if resumed { &resume } else { &train });
            if killed {
                std::thread::sleep(Duration::from_micros(draw(&mut state, (time * 11 / 10).as_micros() as u64)));
                if child.try_wait().unwrap().is_none() {
                    send(signal, child.id());
                }
            }
            let output = child.wait_with_output().unwrap();
            let message = text(&output.stderr);
            let status = output.status.code();
            story.push(format!("resumed: {resumed}, killed: {killed} by {signal}, status {status:?}\n{message}"));
            let told = story.join("----\n");
            assert!(!message.contains("panicked"), "{told}");
            let files = if run.exists() { names(&run) } else { BTreeSet::new() };
            let checkpoint = run.join("checkpoints/resume.safetensors").exists();
            if status == Some(0) {
                *tally.entry(if killed { "over before the signal" } else { "uninterrupted" }.into()).or_default() += 1;
                break;
            }
            // A run without a checkpoint has nothing to resume, and says so.
            let nothing = status == Some(1) && resumed && !checkpoint;
            if !nothing {
                assert!(killed && (status == code || status.is_none()), "{told}");
                done += 1;
                let phase = match (resumed, checkpoint, files.contains("evaluation.json")) {
                    (_, false, _) => "before a checkpoint",
                    (_, true, true) => "after the evaluation",
                    (false, true, false) => "in training",
                    (true, true, false) => "in a resumed run",
                };
                *tally.entry(format!("{signal} {phase}")).or_default() += 1;
            }
            if message.contains("Continue with: fairtat resume run") {
                assert!(checkpoint, "{told}");
            }
            if !resumed || checkpoint {
                resumed = checkpoint || files.contains("config.toml");
            } else {
                assert!(nothing || killed, "{told}");
                std::fs::remove_dir_all(&run).ok();
                resumed = false;
            }
        }
        let different = differences(&expected, &run);
        assert!(different.is_empty(), "{different:?} differ\n{}", story.join("----\n"));
    }
    println!("{tally:#?}");
}
