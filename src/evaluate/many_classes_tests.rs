//! A whole run of 1,000 classes: its files stay small, and it resumes to the same bytes.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;

use super::finish;
use crate::config::{EngineChoice, Experiment, MethodChoice};
use crate::data::write_npy_u64;
use crate::evaluate::FinalReport;
use crate::model::Architecture;
use crate::train::{Event, Observer, Outcome, RunDir, Splits, Trainer};

const CLASSES: usize = 1000;

/// Two training images and one test image of 8 × 8 for each class.
fn write_images(directory: &Path) {
    for (part, each) in [("train", 2), ("test", 1)] {
        let labels: Vec<u64> = (0..each * CLASSES as u64).map(|i| i % CLASSES as u64).collect();
        let pixel = |i: usize, p: usize| ((i % CLASSES * 7919 + p * 104_729) / 64 % 251 + i / CLASSES) as u8;
        let pixels: Vec<u8> = (0..labels.len()).flat_map(|i| (0..64).map(move |p| pixel(i, p))).collect();
        let shape = [labels.len(), 8, 8];
        let images = crate::data::write_npy("|u1", 1, &shape, &pixels).unwrap();
        std::fs::write(directory.join(format!("{part}_images.npy")), images).unwrap();
        let labels = write_npy_u64(&shape[..1], &labels).unwrap();
        std::fs::write(directory.join(format!("{part}_labels.npy")), labels).unwrap();
    }
}

fn experiment(images: &Path) -> Experiment {
    let mut e = Experiment::default();
    e.data.dataset = "npy".into();
    e.data.path = Some(images.into());
    e.data.validation_per_class = Some(1);
    (e.model.arch, e.model.width) = (Architecture::SmallCnn, Some(2));
    (e.attack.steps, e.evaluation.eval_steps, e.evaluation.test_steps) = (1, 1, 1);
    (e.optimizer.epochs, e.optimizer.batch_size, e.evaluation.eval_batch_size) = (2, 250, 250);
    e.fairness.method = MethodChoice::FairTat;
    (e.run.engine, e.run.deterministic) = (EngineChoice::Candle, true);
    e
}

/// Stops a run after a number of batches.
struct StopAfter(Cell<u32>);

impl Observer for StopAfter {
    fn event(&mut self, event: &Event<'_>) {
        if matches!(event, Event::Batch { .. }) {
            self.0.set(self.0.get() - 1);
        }
    }

    fn stop(&self) -> bool {
        self.0.get() == 0
    }
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

/// The files of a run by name.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        } else {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_run_of_1000_classes_stays_small_and_resumes_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    write_images(dir.path());
    let experiment = experiment(dir.path());
    let whole = dir.path().join("whole");
    let mut trainer = begin(&experiment, &whole);
    assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
    let report = finish(&mut trainer, &mut ()).unwrap().unwrap();
    assert!(report.table().contains("Worst 10 %: mean robust accuracy of the 100 worst of 1000 classes"));
    let train = trainer.progress().statistics.clone().unwrap().robust;
    drop(trainer);

    let of_whole = files(&whole);
    let bytes: usize = of_whole.values().map(Vec::len).sum();
    let mut sizes: Vec<(usize, &String)> = of_whole.iter().map(|(name, bytes)| (bytes.len(), name)).collect();
    sizes.sort();
    assert!(bytes < 4_000_000, "{bytes} bytes: {sizes:?}");
    for (name, bytes) in of_whole.iter().filter(|(name, _)| name.starts_with("figures/") && name.ends_with(".png")) {
        let side = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert!(side(16) < 4096 && side(20) < 4096, "{name}: {} × {}", side(16), side(20));
    }
    // The counts of an epoch come back from the file that the description of a checkpoint names.
    let run = RunDir::open(&whole).unwrap().0;
    assert_eq!(run.confusion(1, "train").unwrap().unwrap(), train);
    let last: serde_json::Value = serde_json::from_slice(&of_whole["checkpoints/last.json"]).unwrap();
    assert!(of_whole.contains_key(last["statistics"]["robust"].as_str().unwrap()), "{}", last["statistics"]);
    let again: FinalReport = serde_json::from_slice(&of_whole["evaluation.json"]).unwrap();
    assert_eq!(again, report);
    let metrics = String::from_utf8(of_whole["metrics.csv"].clone()).unwrap();
    assert!(metrics.lines().next().unwrap().ends_with(",val_robust_worst_tenth"), "{metrics}");
    let (rows, classes) = run.read_rows().unwrap();
    // What the tables lack comes from the log.
    std::fs::write(whole.join("classes.csv"), "").unwrap();
    assert_eq!(run.read_rows().unwrap(), (rows, classes));

    let stopped = dir.path().join("stopped");
    let mut trainer = begin(&experiment, &stopped);
    for batches in [2, 3] {
        assert_eq!(trainer.run(&mut StopAfter(Cell::new(batches))).unwrap(), Outcome::Stopped);
        drop(trainer);
        trainer = resume(&stopped);
    }
    assert_eq!(trainer.run(&mut ()).unwrap(), Outcome::Finished);
    let of_stopped = files(&stopped);
    let same = |name: &str| {
        ["confusion/", "classes.csv", "checkpoints/"].iter().any(|start| name.starts_with(start))
            // It holds times.
            && name != "checkpoints/resume.safetensors"
    };
    let names: Vec<&String> = of_whole.keys().filter(|name| same(name)).collect();
    assert!(names.len() >= 9, "{names:?}");
    for name in names {
        assert!(of_stopped[name] == of_whole[name], "{name} differs");
    }
}
