//! The command line as a user calls it.

#![allow(clippy::unwrap_used, reason = "tests report failures by panicking")]

mod attacks;
mod damage;
mod engines;
mod evaluation;
#[cfg(unix)]
mod gpu;
mod interrupts;
#[cfg(unix)]
mod kills;
mod post;
mod reliability;
mod study;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

fn fairtat(directory: &Path, arguments: &[&str]) -> Output {
    command(directory, arguments).output().unwrap()
}

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fairtat"));
    command.args(arguments).current_dir(directory);
    command.env("FAIRTAT_DATA", directory.join("data")).env("FAIRTAT_CACHE", directory.join("cache"));
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn ok(directory: &Path, arguments: &[&str]) -> String {
    let output = fairtat(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Standard error of a call that fails with `status`.
fn fails(directory: &Path, arguments: &[&str], status: i32) -> String {
    let output = fairtat(directory, arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{message}");
    message
}

fn columns(path: &Path) -> (Vec<String>, Vec<csv::StringRecord>) {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
    (header, reader.records().map(Result::unwrap).collect())
}

fn names(directory: &Path) -> BTreeSet<String> {
    std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn training_real_digits_beats_chance_and_leaves_every_promised_file() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("runs/digits-60s");
    let table = ok(dir.path(), &["train", "--epochs", "3", "--average-from", "1", "--validation-per-class", "10"]);
    assert!(table.contains("PGD-20, L∞, ε 24/255, step 6/255, 1 random start, seed 0"), "{table}");

    let expected = [
        "checkpoints",
        "classes.csv",
        "config.toml",
        "confusion",
        "engine.json",
        "evaluation.json",
        "examples",
        "figures",
        "log.jsonl",
        "metrics.csv",
    ];
    let found = names(&run);
    assert!(expected.iter().all(|name| found.contains(*name)), "{found:?}");
    assert!(found.iter().any(|name| name.starts_with("events.out.tfevents")), "{found:?}");
    let checkpoints = names(&run.join("checkpoints"));
    for name in [
        "last.safetensors",
        "last.json",
        "best.safetensors",
        "best.json",
        "ema.safetensors",
        "ema.json",
        "resume.safetensors",
    ] {
        assert!(checkpoints.contains(name), "{name} {checkpoints:?}");
    }

    let (header, rows) = columns(&run.join("metrics.csv"));
    let promised = "epoch,lr,train_loss,train_clean_accuracy,train_robust_accuracy,val_clean_accuracy,val_clean_worst,\
                    val_robust_accuracy,val_robust_worst,seconds,seconds_attack,seconds_update,seconds_statistics,val_attack,\
                    val_without_gradient,method";
    assert_eq!(header.join(","), promised);
    assert!(
        rows.iter().all(|row| &row[13]
            == "PGD-10, L∞, ε 24/255, step 6/255, 1 random start, seed 0, batch norm recalibrated on up to 40 batches"),
        "{rows:?}"
    );
    assert_eq!(rows.len(), 3);
    let (header, rows) = columns(&run.join("classes.csv"));
    let promised = "epoch,class,name,epsilon,target_probability,cfps,train_robust_accuracy,train_clean_accuracy,\
                    val_clean_accuracy,val_robust_accuracy";
    assert_eq!(header.join(","), promised);
    assert_eq!(rows.len(), 30);
    for epoch in 0..3 {
        let sum =
            |column: usize| rows[epoch * 10..][..10].iter().map(|row| row[column].parse::<f64>().unwrap()).sum::<f64>();
        assert!((sum(4) - 1.0).abs() < 1e-9 && (sum(5) - 1.0).abs() < 1e-9);
    }

    // Ten classes: chance is 0.1. After one epoch of FAIR-TAT, more than half of the test digits are already right.
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(run.join("evaluation.json")).unwrap()).unwrap();
    let weights = report["weights"].as_array().unwrap();
    let best = weights.iter().find(|row| row["weights"] == "best").unwrap();
    assert!(best["clean"].as_f64().unwrap() > 0.6, "{best}");
    assert!(best["robust"].as_f64().unwrap() > 0.25, "{best}");
    assert!(best["robust"].as_f64() <= best["clean"].as_f64());

    for figure in ["accuracy", "cfps", "confusion", "epsilon", "targets", "classes", "examples"] {
        let png = image::open(run.join(format!("figures/{figure}.png"))).unwrap();
        assert!(png.width() > 300 && png.height() > 200, "{figure}");
        let svg = std::fs::read_to_string(run.join(format!("figures/{figure}.svg"))).unwrap();
        assert!(svg.starts_with("<svg") || svg.starts_with("<?xml"), "{figure}");
    }
    assert_eq!(names(&run.join("examples")).len(), 20);
    for line in std::fs::read_to_string(run.join("log.jsonl")).unwrap().lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let (shape, counts) = fairtat::data::read_npy_u64(&run.join("confusion/epoch-0002-validation.npy")).unwrap();
    assert_eq!((shape, counts.iter().sum::<u64>()), (vec![10, 10], 100));

    // The checkpoint alone is sufficient for an evaluation, and the numbers are those of the run.
    let json = dir.path().join("eval.json");
    let file = run.join("checkpoints/best.safetensors");
    let arguments = [
        "eval",
        file.to_str().unwrap(),
        "--attack",
        "clean,fgsm,pgd",
        "--batch-size",
        "100",
        "--json",
        json.to_str().unwrap(),
    ];
    let shown = ok(dir.path(), &arguments);
    assert!(shown.contains("FGSM, L∞, ε 24/255, no random start") && shown.contains("worst class"), "{shown}");
    let evaluated: serde_json::Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!(evaluated["results"][0]["accuracy"], best["clean"]);
    assert_eq!(evaluated["results"][2]["accuracy"], best["robust"]);

    // A second training in the same directory is refused, and resuming a finished run only evaluates it again.
    let message = fails(dir.path(), &["train", "--run-dir", run.to_str().unwrap()], 1);
    assert!(message.contains("already holds a run"), "{message}");
    let again = ok(dir.path(), &["resume", run.to_str().unwrap()]);
    assert_eq!(again, table);
}

#[test]
fn mistakes_are_answered_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    assert!(fails(d, &["train", "--stepsize", "1/255"], 2).contains("--step-size"));
    assert!(fails(d, &["train", "--epsilon", "x"], 2).contains("a fraction such as 8/255"));
    assert!(fails(d, &["train", "--lr=-1"], 2).contains("optimizer.lr: expected a number above 0, found -1"));
    assert!(fails(d, &["train", "--dataset", "digit"], 2).contains("digits"));
    assert!(fails(d, &["train", "--preset", "nothing"], 2).contains("shapes-unfair"));
    assert!(fails(d, &["train", "--preset", "cifar10-small"], 1).contains("fairtat data fetch cifar10"));
    assert!(fails(d, &["resume", "nowhere"], 1).contains("nowhere holds no run"));
    assert!(fails(d, &["eval", "nowhere.safetensors"], 1).contains("nowhere.safetensors"));
    assert!(fails(d, &["data", "check", "nowhere"], 1).contains("neither a path that exists nor a data set's name"));
    assert!(fails(d, &["data", "fetch", "cifar11"], 2).contains("cifar10"));
    std::fs::write(d.join("c.toml"), "[attack]\nstep-size = 0.01\n").unwrap();
    let message = fails(d, &["train", "--config", "c.toml"], 1);
    assert!(message.contains("c.toml: line 2") && message.contains("did you mean 'step_size'"), "{message}");
    assert!(fails(d, &["train", "--limit", "3"], 1).contains("limit of 3"));
    assert!(fails(d, &["train", "--fixed-target", "10"], 2).contains("fairness.fixed_target"));
    // A run that could not start leaves no directory that would block the next one.
    assert!(!d.join("runs/digits-60s").exists());
    let study = ["study", "run", "seeds", "--seed", "3", "--out", "s"];
    assert!(fails(d, &study, 2).contains("use --seeds"));
}

/// A run that takes a second; the number of steps of its training attack follows.
const TINY: [&str; 16] = [
    "train",
    "--run-dir",
    "run",
    "--epochs",
    "1",
    "--limit",
    "60",
    "--test-limit",
    "10",
    "--validation-per-class",
    "2",
    "--width",
    "4",
    "--engine",
    "candle",
    "--steps",
];

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_configuration_survives_being_shown_and_flags_go_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let shown =
        ok(d, &["config", "show", "--preset", "cifar10-paper", "--epsilon-rules", "g-rob,t-cfps", "--seed", "7"]);
    assert!(shown.contains("epsilon_rules = [\"g-rob\", \"t-cfps\"]") && shown.contains("seed = 7"), "{shown}");
    std::fs::write(d.join("c.toml"), &shown).unwrap();
    assert_eq!(ok(d, &["config", "show", "--config", "c.toml"]), shown);
    assert!(ok(d, &["config", "show", "--epsilon-rules"]).contains("epsilon_rules = []"));
    assert!(ok(d, &["config", "list"]).contains("digits-60s"));
    assert!(ok(d, &["data", "list"]).contains("shapes"));
    assert!(
        ok(d, &["data", "check", "digits"]).contains("1442") || ok(d, &["data", "check", "digits"]).contains("1,442")
    );
}

#[test]
fn settings_follow_from_the_data_set_and_the_program_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let shown = |arguments: &[&str]| ok(d, &[&["config", "show"][..], arguments].concat());
    let has = |text: &str, lines: &[&str]| {
        for line in lines {
            assert!(text.lines().any(|found| found == *line), "{line}: {text}");
        }
    };
    let cifar = shown(&["--dataset", "cifar10"]);
    has(&cifar, &["epsilon = \"8/255\"", "step_size = \"2/255\"", "flip = true", "crop_padding = 4"]);
    assert!(cifar.starts_with("# Defaults of cifar10 (32×32 colour photographs): "), "{cifar}");
    // The line of the README, before such a folder exists.
    let own = ["--dataset", "folder", "--path", "my-images", "--image-size", "32", "--arch", "small-cnn"];
    has(&shown(&own), &["epsilon = \"8/255\"", "step_size = \"2/255\"", "flip = false", "arch = \"small-cnn\""]);
    let named = shown(&["--dataset", "cifar10", "--epsilon", "4/255", "--flip", "false"]);
    has(&named, &["epsilon = \"4/255\"", "step_size = \"2/255\"", "flip = false"]);
    assert!(named.replace("\n# ", " ").contains("Set by you: --epsilon, --flip."), "{named}");
    let adapted = shown(&["--preset", "digits-60s", "--dataset", "cifar10"]);
    has(&adapted, &["epsilon = \"8/255\"", "arch = \"digits-cnn\"", "epochs = 80"]);
    assert!(adapted.contains("epsilon 24/255 → 8/255"), "{adapted}");
    // The settings of a preset or a file stay as they are if no other data set is given.
    assert!(!shown(&["--preset", "digits-60s"]).contains('#') && !shown(&[]).contains('#'));
    std::fs::write(d.join("c.toml"), shown(&[])).unwrap();
    let kept = shown(&["--config", "c.toml", "--dataset", "cifar10"]);
    has(&kept, &["dataset = \"cifar10\"", "epsilon = \"24/255\""]);
    assert!(kept.starts_with("# c.toml was written for digits, and its settings stay"), "{kept}");
    let warned = fairtat(d, &["train", "--config", "c.toml", "--dataset", "cifar10"]);
    assert!(text(&warned.stderr).contains("warning: c.toml was written for digits"), "{}", text(&warned.stderr));

    // Grey images of 12 × 12 pixels: inferred from the first one, reported at the start, and written to the run.
    for part in ["train", "test"] {
        for (class, value) in [("dark", 40), ("light", 200)] {
            let place = d.join("grey").join(part).join(class);
            std::fs::create_dir_all(&place).unwrap();
            for i in 0..6 {
                image::GrayImage::from_pixel(12, 12, image::Luma([value + i]))
                    .save(place.join(format!("{i}.png")))
                    .unwrap();
            }
        }
    }
    let train = ["train", "--dataset", "folder", "--path", "grey", "--epochs", "1", "--width", "4", "--steps", "1"];
    let output = fairtat(d, &train);
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    let notice = "Defaults of folder (small grey images; by the first image, 12 × 12 pixels): ";
    assert!(message.starts_with(notice), "{message}");
    let written = std::fs::read_to_string(d.join("runs/folder/config.toml")).unwrap();
    has(&written, &["epsilon = \"8/255\"", "validation_fraction = 0.1", "epochs = 1"]);
    let comment: Vec<&str> = written.lines().take_while(|line| line.starts_with("# ")).collect();
    assert!(comment[0].contains("runs it again") && comment[1..].join(" ").contains(notice), "{written}");
    // The file alone reproduces the experiment.
    let again = shown(&["--config", "runs/folder/config.toml"]);
    assert!(written.ends_with(&again), "{again}");
}

#[test]
fn json_on_standard_output_has_it_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let output = fairtat(dir.path(), &["plan", "--arch", "digits-cnn", "--batch", "8", "--json", "-"]);
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["architecture"], "digits-cnn");
    assert!(text(&output.stderr).starts_with("digits-cnn, 8 images of 1×8×8\n"), "{}", text(&output.stderr));
    let shown = ok(dir.path(), &["plan", "--arch", "digits-cnn", "--batch", "8", "--json", "plan.json"]);
    assert_eq!((shown, json(&dir.path().join("plan.json"))), (text(&output.stderr), plan));
}

#[test]
#[cfg(unix)]
fn a_path_that_no_file_can_record_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a\xff");
    for flags in [&["train", "--dataset", "folder", "--path"][..], &["train", "--init"], &["config", "show", "--init"]]
    {
        let output = command(dir.path(), flags).arg(path).output().unwrap();
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("is not valid UTF-8, so no file can record it: rename it"), "{message}");
    }
    assert!(!dir.path().join("runs").exists());
}

/// Each message says once what was wrong and names the option that it is about.
#[test]
fn wrong_calls_are_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    std::fs::write(d.join("c.toml"), "").unwrap();
    for (call, status, expected) in [
        ("plan --arch small-cnn --images 0", 2, "error: --images: expected at least 2, found 0\n"),
        ("plan --arch small-cnn --images 1", 2, "error: --images: expected at least 2, found 1\n"),
        ("plan --arch small-cnn --images 10 --last-batch drop", 2, "10 training images do not fill one batch of 128"),
        (
            "bench --batch 1",
            2,
            "error: --batch: expected at least 2 images, which batch norm needs for training, found 1\n",
        ),
        (
            "plan --arch small-cnn --width 9223372036854775807",
            2,
            "error: --width: expected 1 to 4096, found 9223372036",
        ),
        ("plan --arch small-cnn --image-size 4097", 2, "error: --image-size: expected at most 4096, found 4097\n"),
        (
            "plan --arch small-cnn --batch 4294967295",
            1,
            "small-cnn with a batch of 4294967295 images of 3×32×32 needs at",
        ),
        ("plan --arch small-cnn --classes 18446744073709551615", 2, "error: --classes: expected at most 4294967295"),
        ("bench --width 4611686018427387905", 2, "error: --width: expected 1 to 4096, found 4611686018427387905\n"),
        (
            "bench --engine candle --arch small-cnn --batch 1000000000",
            1,
            "of memory: choose a smaller network, batch or",
        ),
        ("train --image-size 0", 2, "error: data.image_size: expected at least 1, found 0\n"),
        ("train --image-size 4097", 2, "error: data.image_size: expected at most 4096, found 4097\n"),
        ("train --batch-size 1", 2, "error: optimizer.batch_size: batch norm needs at least 2 images in a batch"),
        ("eval c.toml c.toml --corruptions fog", 2, "error: --corruptions is for one checkpoint at a time\n"),
        ("plan --arch small-cnn --json .", 2, "error: --json: . is a directory; name a file in it\n"),
        ("bench --json .", 2, "error: --json: . is a directory; name a file in it\n"),
        ("bench --steps 0", 2, "error: --steps: expected at least 1 step of the attack, found 0\n"),
        ("bench --seconds nan", 2, "error: --seconds: expected a number of at least 0, found NaN\n"),
        ("config show --dataset nope", 2, "error: data set 'nope': no data set is called 'nope'"),
        (
            "config show --target-mode fixed --fixed-target 10",
            2,
            "error: fairness.fixed_target: expected 0 to 9, found 10\n",
        ),
        ("study run seeds --out s --test-steps 0", 2, "error: --test-steps: a study compares runs on the test set"),
        ("eval c.toml --steps 0", 2, "error: --steps: PGD needs at least 1 step, found 0"),
        ("eval nope.safetensors", 1, "error: cannot read nope.safetensors: No such file or directory (os error 2)\n"),
        ("train --config nope.toml", 1, "error: cannot read nope.toml: No such file or directory (os error 2)\n"),
        ("train --dataset folder", 2, "error: data set 'folder' needs --path DIR, the directory that holds it\n"),
        (
            "train --dataset npy --path nope",
            1,
            "error: data set 'npy': cannot read nope: No such file or directory (os error 2)\n",
        ),
        ("train --limit 5", 1, "error: data set 'digits': a limit of 5 images leaves"),
        (
            "train --limit 10 --validation-per-class 1",
            1,
            "error: data set 'digits': class '0' has 1 image, which validation takes; raise --limit or",
        ),
        ("train --run-dir c.toml", 1, "error: c.toml is a file, not a directory\n"),
        ("train --epochs x", 2, "invalid value 'x' for '--epochs <N>': expected a whole number of at least 0\n"),
        ("train --lr x", 2, "invalid value 'x' for '--lr <RATE>': expected a number\n"),
        ("data check nope", 1, "(known: digits, shapes, cifar10, "),
    ] {
        let message = fails(d, &call.split(' ').collect::<Vec<_>>(), status);
        assert!(message.contains(expected), "{call}: {message}");
        assert!(!message.contains("Defaults of"), "{call}: {message}");
    }
    assert_eq!(ok(d, &["data", "fetch", "digits"]), "'digits' is built in: there is nothing to fetch\n");
    assert!(ok(d, &["config", "show", "--dataset", "cifar100", "--fixed-target", "10"]).contains("fixed_target = 10"));
    assert_eq!(std::fs::read_to_string(d.join("c.toml")).unwrap(), "");
}

#[test]
fn a_finished_run_says_that_it_is_complete_and_why_it_has_no_averages() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let output = fairtat(d, &[&TINY[..], &["0", "--average-from", "1"]].concat());
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    let start = message.find("epoch    loss").unwrap();
    let late = "warning: averaging begins with epoch 2, and the run";
    for (expected, at_start) in [
        ("warning: training attack PGD-0, L∞, ε 24/255, step 6/255, 1 random start, seed 0: without a step", true),
        (&format!("{late} has 1 epoch: no EMA, no FAWA; --average-from, now 1"), true),
        (&format!("{late} ended after 1 epoch: no EMA, no FAWA; --average-from, now 1"), false),
    ] {
        let at = message.find(expected);
        assert!(at.is_some_and(|at| (at < start) == at_start), "{expected}: {message}");
    }
    assert!(!message.contains("fawa-threshold"), "{message}");

    let output = fairtat(d, &["resume", "run"]);
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(message.contains("The run is complete (1 of 1 epoch); evaluating again.\n"), "{message}");
}
