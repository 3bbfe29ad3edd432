//! The command line as a user calls it.

#![allow(clippy::unwrap_used, reason = "tests report failures by panicking")]

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
                    val_without_gradient";
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
    assert!(fails(d, &["train", "--dataset", "digit"], 1).contains("digits"));
    assert!(fails(d, &["train", "--preset", "nothing"], 2).contains("shapes-unfair"));
    assert!(fails(d, &["train", "--preset", "cifar10-small"], 1).contains("fairtat data fetch cifar10"));
    assert!(fails(d, &["resume", "nowhere"], 1).contains("nowhere holds no run"));
    assert!(fails(d, &["eval", "nowhere.safetensors"], 1).contains("nowhere.safetensors"));
    assert!(fails(d, &["data", "check", "nowhere"], 1).contains("neither a path that exists nor a data set's name"));
    assert!(fails(d, &["data", "fetch", "cifar11"], 1).contains("cifar10"));
    std::fs::write(d.join("c.toml"), "[attack]\nstep-size = 0.01\n").unwrap();
    let message = fails(d, &["train", "--config", "c.toml"], 1);
    assert!(message.contains("c.toml: line 2") && message.contains("did you mean 'step_size'"), "{message}");
    assert!(fails(d, &["train", "--limit", "3"], 1).contains("limit of 3"));
    assert!(fails(d, &["train", "--fixed-target", "10"], 1).contains("fairness.fixed_target"));
    // A run that could not start leaves no directory that would block the next one.
    assert!(!d.join("runs/digits-60s").exists());
    let study = ["study", "seeds", "--seed", "3", "--out", "s"];
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

/// The JSON of `fairtat eval run` with `flags`, its standard error and its standard output.
fn evaluated(d: &Path, flags: &[&str]) -> (serde_json::Value, String, String) {
    let call = [&["eval", "run", "--attack", "pgd", "--engine", "candle", "--json", "e.json"][..], flags].concat();
    let output = fairtat(d, &call);
    let message = text(&output.stderr);
    assert!(output.status.success(), "{flags:?}: {message}");
    (json(&d.join("e.json")), message, text(&output.stdout))
}

#[test]
fn an_evaluation_steps_as_far_as_its_ball_needs_or_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    // One long step: right for training, too long for an evaluation with twenty steps.
    let output = fairtat(d, &[&TINY[..], &["1", "--epsilon", "8/255", "--step-size", "10/255"]].concat());
    assert!(output.status.success() && !text(&output.stderr).contains("warning: PGD"), "{}", text(&output.stderr));
    let report = json(&d.join("run/evaluation.json"));
    assert!(report["attack"].as_str().unwrap().contains("PGD-20, L∞, ε 8/255, step 1/255"), "{report}");
    assert_eq!(report["warnings"], serde_json::json!([]));

    for (flags, expected) in [
        (&[][..], "PGD-20, L∞, ε 8/255, step 1/255"),
        (&["--norm", "l2", "--epsilon", "0.5"], "PGD-20, L2, ε 127.5/255, step 15.938/255"),
        (&["--epsilon", "64/255"], "PGD-20, L∞, ε 64/255, step 8/255"),
        (&["--steps", "5"], "PGD-5, L∞, ε 8/255, step 4/255"),
        (&["--epsilon", "0"], "PGD-20, L∞, ε 0/255, step 0/255"),
    ] {
        let (report, message, _) = evaluated(d, flags);
        let attack = report["results"][0]["attack"].as_str().unwrap();
        assert!(attack.starts_with(expected), "{flags:?}: {attack}");
        assert_eq!((&report["warnings"], message.contains("warning")), (&serde_json::json!([]), false), "{message}");
    }
    for (flags, expected) in [
        (
            &["--norm", "l2", "--epsilon", "0.5", "--step-size", "2/255"][..],
            "no further than 40/255, less than 1.5 · ε = 191.25/255",
        ),
        (&["--epsilon", "64/255", "--step-size", "2/255"], "no further than 40/255, less than 1.5 · ε = 96/255"),
        (&["--step-size", "10/255"], "a step of 10/255 is longer than ε, 8/255"),
        (&["--step-size", "0"], "go no further than 0/255"),
        (&["--norm", "l2"], "Name a radius for L2 with --epsilon"),
    ] {
        let (report, message, shown) = evaluated(d, flags);
        let warnings = report["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{report}");
        assert!(warnings[0].as_str().unwrap().contains(expected), "{flags:?}: {report}");
        let warning = format!("warning: {}", warnings[0].as_str().unwrap());
        assert!(message.contains(&warning) && shown.ends_with(&format!("    {warning}\n")), "{message}{shown}");
    }
}

#[test]
fn a_run_warns_of_an_evaluation_that_cannot_cross_its_ball() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let output = fairtat(d, &[&TINY[..], &["2", "--eval-epsilon", "64/255", "--eval-step-size", "1/255"]].concat());
    let (shown, message) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{message}");
    let warned = |steps: u32| format!("warning: PGD-{steps}, L∞, ε 64/255, step 1/255");
    // Once for each attack, before the first epoch; the test's warning again under its numbers.
    for steps in [10, 20] {
        assert_eq!(message.matches(&warned(steps)).count(), 1, "{message}");
        assert!(message.find(&warned(steps)) < message.find("epoch    loss"), "{message}");
    }
    assert!(shown.contains(&warned(20)) && !shown.contains(&warned(10)), "{shown}");
    let warnings = &json(&d.join("run/evaluation.json"))["warnings"];
    assert!(
        warnings.as_array().unwrap().len() == 1 && warnings[0].as_str().unwrap().starts_with("PGD-20"),
        "{warnings}"
    );
}

#[test]
fn a_radius_without_its_denominator_is_refused_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    for (flag, field) in [
        ("--epsilon", "attack.epsilon"),
        ("--step-size", "attack.step_size"),
        ("--eval-epsilon", "evaluation.eval_epsilon"),
        ("--eval-step-size", "evaluation.eval_step_size"),
        ("--epsilon-min", "fairness.epsilon_min"),
        ("--epsilon-max", "fairness.epsilon_max"),
    ] {
        let message = fails(d, &["train", flag, "8"], 2);
        assert!(message.contains(&format!("{field}: expected at most 1")), "{message}");
        assert!(message.contains("found 8; did you mean 8/255?"), "{message}");
    }
    std::fs::write(d.join("c.toml"), "[attack]\nepsilon = 8\n").unwrap();
    assert!(fails(d, &["train", "--config", "c.toml"], 2).contains("did you mean 8/255?"));
    // The diagonal of 8 × 8 pixels is 8, which is known as soon as there are images.
    let long = [&TINY[..], &["1", "--norm", "l2", "--epsilon", "9"]].concat();
    assert!(fails(d, &long, 1).contains("attack.epsilon: expected at most 8.00, the largest L2 distance"));
    assert!(!d.join("run").exists());

    ok(d, &[&TINY[..], &["1", "--test-steps", "0"]].concat());
    let evaluate = |flags: &[&str]| fails(d, &[&["eval", "run"][..], flags].concat(), 2);
    assert!(evaluate(&["--epsilon", "8"]).contains("--epsilon: expected at most 1"));
    assert!(evaluate(&["--step-size", "2"]).contains("--step-size: expected at most 1"));
    assert!(evaluate(&["--norm", "l2", "--epsilon", "9"]).contains("--epsilon: expected at most 8.00"));
    // PGD without steps is no attack; an evaluation on clean images has none.
    let message = evaluate(&["--steps", "0"]);
    assert!(message.contains("--steps: PGD needs at least 1 step, found 0") && message.contains("--attack clean"));
    ok(d, &["eval", "run", "--steps", "0", "--attack", "clean,fgsm"]);
    let ignored =
        fairtat(d, &["eval", "run", "--steps", "0", "--step-size", "1/255", "--attack", "fgsm", "--limit", "10"]);
    let message = text(&ignored.stderr);
    for flag in ["--steps", "--step-size"] {
        assert!(message.contains(&format!("warning: {flag} is ignored: it is an option of PGD")), "{message}");
    }
    assert!(!message.contains("--restarts"), "{message}");
    // Without test steps the test set is not evaluated.
    assert_eq!(json(&d.join("run/evaluation.json"))["weights"], serde_json::json!([]));
}

#[test]
fn every_accuracy_has_its_interval() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let shown = ok(d, &[&TINY[..], &["2"]].concat());
    let inside = |value: &serde_json::Value, interval: &serde_json::Value| {
        let number = |value: &serde_json::Value| value.as_f64().unwrap();
        let (low, high) = (number(&interval[0]), number(&interval[1]));
        assert!(0.0 <= low && low <= number(value) && number(value) <= high && high <= 1.0 && low < high, "{interval}");
        format!("{:.1} % [{:.1}, {:.1}]", 100.0 * number(value), 100.0 * low, 100.0 * high)
    };
    let report = json(&d.join("run/evaluation.json"));
    let best = report["weights"].as_array().unwrap().iter().find(|row| row["weights"] == "best").unwrap();
    for name in ["clean", "clean_worst", "robust", "robust_worst"] {
        let cell = inside(&best[name], &best[format!("{name}_interval")]);
        // The table only has room for the intervals of the attack.
        assert!(name.starts_with("clean") || shown.contains(&cell), "{cell} {shown}");
    }
    for kind in ["clean", "robust"] {
        let intervals = best[format!("{kind}_class_intervals")].as_array().unwrap();
        for (accuracy, interval) in best[format!("{kind}_classes")].as_array().unwrap().iter().zip(intervals) {
            inside(accuracy, interval);
        }
        assert_eq!(intervals.len(), 10);
    }
    assert_eq!(best["images_without_gradient"], 0);
    assert!(shown.contains("best     worst robust class: ") && !shown.contains("had no gradient"), "{shown}");
    assert!(shown.lines().skip(1).all(|line| line.chars().count() <= 120), "{shown}");

    let shown = ok(d, &["eval", "run", "--engine", "candle", "--json", "e.json"]);
    let report = json(&d.join("e.json"));
    for result in report["results"].as_array().unwrap() {
        assert!(shown.contains(&inside(&result["accuracy"], &result["interval"])), "{shown}");
        assert!(shown.contains(&inside(&result["worst_class_accuracy"], &result["worst_class_interval"])), "{shown}");
        for class in result["classes"].as_array().unwrap() {
            assert!(shown.contains(&inside(&class["accuracy"], &class["interval"])), "{shown}");
        }
        // One image per class: the worst class cannot be determined.
        assert_eq!(result["worst_class_ties"].as_array().unwrap().len(), 9);
    }
    // All images had a gradient, so nothing is printed about it.
    assert!(!shown.contains("had no gradient"), "{shown}");
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
fn the_engines_are_listed_for_people_and_for_programs() {
    let dir = tempfile::tempdir().unwrap();
    let shown = ok(dir.path(), &["engines", "--json", "e.json"]);
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.path().join("e.json")).unwrap()).unwrap();
    assert_eq!((&report["candle"][0]["device"], &report["candle"][0]["available"]), (&"cpu".into(), &true.into()));
    let adapters = report["wgsl"].as_array().unwrap();
    assert!(!adapters.is_empty(), "these tests need an adapter: {shown}");
    for adapter in adapters {
        let name: String = adapter["name"].as_str().unwrap().chars().take(50).collect();
        assert!(shown.contains(&name), "{name}\n{shown}");
        assert!(adapter["limits"]["binding_bytes"].as_u64().unwrap() > 0);
    }
    let auto = report["auto"]["engine"].as_str().unwrap();
    assert!(shown.contains(&format!("--engine auto takes --engine {auto}")), "{shown}");
    let real = |adapter: &serde_json::Value| adapter["kind"] != "software" && adapter["tier"] == "base";
    if !report["candle"].as_array().unwrap()[1..].iter().any(|device| device["available"] == true) {
        assert_eq!(auto == "wgsl", adapters.iter().any(real), "{report}");
    }
}

#[test]
fn without_an_adapter_the_program_says_what_to_install_and_candle_works() {
    let dir = tempfile::tempdir().unwrap();
    // Without a wgpu back end, no machine has an adapter.
    let alone = |arguments: &[&str]| command(dir.path(), arguments).env("WGPU_BACKEND", "noop").output().unwrap();
    let output = alone(&["engines"]);
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("None: no GPU driver provides an adapter (WGPU_BACKEND allows only 'noop')"), "{shown}");
    let train = ["train", "--epochs", "1", "--limit", "60", "--test-limit", "10", "--validation-per-class", "2"];
    let output = alone(&[&train[..], &["--engine", "wgsl"]].concat());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("`--engine candle` runs without") && !message.contains("panicked"), "{message}");
    assert!(!dir.path().join("runs/digits-60s").exists());
    let output = alone(&[&train[..], &["--steps", "1"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn engines_devices_and_adapters_that_do_not_belong_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let train = |flags: &[&str], status| fails(d, &[&["train"][..], flags].concat(), status);
    assert!(train(&["--engine", "wgsl", "--device", "cpu"], 2).contains("run.device: a device belongs to the Candle"));
    assert!(
        train(&["--engine", "candle", "--adapter", "0"], 2).contains("run.adapter: an adapter belongs to the WGSL")
    );
    assert!(train(&["--device", "cuda", "--deterministic", "true"], 2).contains("run.deterministic"));
    let message = train(&["--engine", "wgsl", "--adapter", "no such gpu"], 1);
    assert!(message.contains("no adapter is called 'no such gpu'; available: [0] "), "{message}");
    assert!(fails(d, &["bench", "--engine", "candle", "--adapter", "0"], 2).contains("run.adapter"));
    assert!(fails(d, &["bench", "--width", "0"], 2).contains("--width: expected at least 1"));
    assert!(fails(d, &["eval", "x.safetensors", "--engine", "wgsl", "--device", "cpu"], 2).contains("run.device"));
    let study = ["study", "seeds", "--out", "s", "--engine", "candle", "--adapter", "0"];
    assert!(fails(d, &study, 2).contains("run.adapter"));
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
        ("bench --steps 0", 2, "error: --steps: expected at least 1 step of the attack, found 0\n"),
        ("bench --seconds nan", 2, "error: --seconds: expected a number of at least 0, found NaN\n"),
        ("config show --dataset nope", 1, "error: data set 'nope': no data set is called 'nope'"),
        (
            "config show --target-mode fixed --fixed-target 10",
            2,
            "error: fairness.fixed_target: expected 0 to 9, found 10\n",
        ),
        ("study seeds --out s --test-steps 0", 2, "error: --test-steps: a study compares runs on the test set"),
        ("eval c.toml --steps 0", 2, "error: --steps: PGD needs at least 1 step, found 0"),
        ("eval nope.safetensors", 1, "error: cannot read nope.safetensors: No such file or directory (os error 2)\n"),
        ("train --config nope.toml", 1, "error: cannot read nope.toml: No such file or directory (os error 2)\n"),
        ("train --dataset folder", 1, "error: data set 'folder' needs --path DIR, the directory that holds it\n"),
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

/// A checkpoint that is evaluated with the experiment of another network or of other images.
#[test]
fn a_checkpoint_of_other_images_or_another_network_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    ok(d, &[&TINY[..], &["1"]].concat());
    let message = fails(d, &["eval", "run", "--preset", "shapes-unfair"], 1);
    let expected = "best.safetensors is a digits-cnn, but the given experiment has a small-cnn; name the experiment of";
    assert!(message.contains(expected), "{message}");
    let other = ok(d, &["config", "show", "--dataset", "shapes", "--arch", "digits-cnn", "--width", "4"]);
    std::fs::write(d.join("other.toml"), other).unwrap();
    let message = fails(d, &["eval", "run", "--config", "other.toml"], 1);
    assert!(
        message.contains("best.safetensors is for grey images, but those of 'shapes' are colour; name the"),
        "{message}"
    );
}

#[test]
fn a_run_goes_on_with_another_engine_and_remembers_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let small = ["--limit", "60", "--test-limit", "10", "--validation-per-class", "2", "--steps", "1", "--width", "4"];
    ok(d, &[&["train", "--run-dir", "run", "--epochs", "1", "--engine", "candle"][..], &small].concat());
    // As if the run had used a GPU that no longer exists.
    let config = d.join("run/config.toml");
    let written = std::fs::read_to_string(&config).unwrap().replace("epochs = 1\n", "epochs = 2\n");
    let written = written.replace("engine = \"candle\"", "engine = \"wgsl\"\nadapter = \"a gpu that is gone\"");
    std::fs::write(&config, &written).unwrap();
    assert!(fails(d, &["resume", "run"], 1).contains("no adapter is called 'a gpu that is gone'"));
    assert!(fails(d, &["resume", "run", "--engine", "candle", "--adapter", "0"], 2).contains("run.adapter"));
    ok(d, &["resume", "run", "--engine", "candle"]);
    assert_eq!(columns(&d.join("run/metrics.csv")).1.len(), 2);
    assert_eq!(std::fs::read_to_string(&config).unwrap(), written);
}

#[test]
fn the_wgsl_engine_trains_goes_on_and_evaluates() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    let mut wgsl = vec!["--engine", "wgsl"];
    wgsl.extend(adapter.iter().flat_map(|name| ["--adapter", name]));
    let train = ["train", "--preset", "digits-60s", "--run-dir", "run", "--epochs", "1", "--deterministic", "true"];
    let small = ["--limit", "60", "--test-limit", "10", "--validation-per-class", "2", "--steps", "1", "--width", "4"];
    let short = ["--eval-steps", "1", "--test-steps", "1"];
    let output = fairtat(d, &[&train[..], &wgsl, &small, &short].concat());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{message}");
    assert!(message.contains("Engine: wgsl ("), "{message}");
    let config = d.join("run/config.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    assert!(written.contains("engine = \"wgsl\"") && written.contains("deterministic = true"), "{written}");
    assert!(names(&d.join("run/figures")).contains("accuracy.png"));
    assert_eq!(columns(&d.join("run/metrics.csv")).1.len(), 1);

    // As if the run had been stopped after the first of two epochs.
    std::fs::write(&config, written.replace("epochs = 1\n", "epochs = 2\n")).unwrap();
    let output = fairtat(d, &["resume", "run", "--engine", "candle"]);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("Engine: candle ("), "{message}");
    assert_eq!(columns(&d.join("run/metrics.csv")).1.len(), 2);

    let evaluate = |engine: &[&str], file: &str| -> serde_json::Value {
        ok(d, &[&["eval", "run", "--steps", "2", "--json", file][..], engine].concat());
        serde_json::from_slice(&std::fs::read(d.join(file)).unwrap()).unwrap()
    };
    let (gpu, cpu) = (evaluate(&wgsl, "gpu.json"), evaluate(&["--engine", "candle"], "cpu.json"));
    let accuracy = |report: &serde_json::Value, i: usize| report["results"][i]["accuracy"].as_f64().unwrap();
    assert_eq!(accuracy(&gpu, 0), accuracy(&cpu, 0));
    // Rounding may decide one image of ten.
    assert!((accuracy(&gpu, 1) - accuracy(&cpu, 1)).abs() < 0.11, "{gpu} {cpu}");
}

#[test]
fn a_plan_shows_layers_memory_and_programs() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let shown = ok(d, &["plan", "--arch", "small-cnn", "--batch", "32", "--json", "p.json"]);
    let plan: serde_json::Value = serde_json::from_slice(&std::fs::read(d.join("p.json")).unwrap()).unwrap();
    assert_eq!((&plan["architecture"], &plan["batch"]), (&"small-cnn".into(), &32.into()));
    let layers = plan["layers"].as_array().unwrap();
    let layer = |name: &str| layers.iter().find(|layer| layer["name"] == name).unwrap();
    assert!(layers.iter().all(|layer| shown.contains(layer["operation"].as_str().unwrap())), "{shown}");
    // 64 channels of 16 × 16 pixels from 3 × 3 of 32 channels each; a multiply-add counts as two operations.
    let flops: u64 = 32 * 64 * 16 * 16 * 32 * 9 * 2;
    // F(4,3) needs a quarter of the products, plus the transforms.
    for (pass, range) in [("flops_forward", 0.25..0.4), ("flops_backward", 0.25..0.4), ("flops_weights", 1.0..1.1)] {
        let share = layer("conv2")[pass].as_f64().unwrap() / flops as f64;
        assert!(range.contains(&share), "{pass}: {share}, {}", layer("conv2"));
    }
    assert_eq!(layer("conv2")["bytes_output"].as_u64(), Some(32 * 64 * 16 * 16 * 4));
    assert_eq!(plan["ranges"], serde_json::json!([32]));
    let of = |part: &str| plan["memory"][part].as_u64().unwrap();
    assert_eq!(of("total"), of("parameters") + of("batch") + of("activations"));
    assert!(of("activations") < of("activations_unshared"), "{plan}");
    let programs: Vec<_> = plan["programs"].as_array().unwrap().iter().map(|program| &program["name"]).collect();
    assert_eq!(programs, ["attack step", "update"]);
    assert!(plan["programs"][1]["dispatches"].as_u64() > Some(layers.len() as u64));
    // A plan does not need an adapter.
    let alone = command(d, &["plan", "--arch", "resnet-20"]).env("WGPU_BACKEND", "noop").output().unwrap();
    assert!(alone.status.success(), "{}", text(&alone.stderr));

    // An epoch of 1000 images, split into batches as in training.
    let epoch = ["plan", "--arch", "small-cnn", "--batch", "60", "--images", "1000"];
    let shown = ok(d, &epoch);
    assert!(shown.contains("17 batches: 14 of 59, 3 of 58 images; the other size adds"), "{shown}");
    let shown = ok(d, &[&epoch[..], &["--last-batch", "drop"]].concat());
    assert!(shown.contains("16 batches: 16 of 60 images\n"), "{shown}");

    for (flags, expected) in [
        (&["--arch", "small-cnn", "--batch", "60", "--images", "961", "--last-batch", "keep"][..], "holds one image"),
        (&["--arch", "small-cnn", "--last-batch", "keep"], "--images"),
        (&["--arch", "small-cnn", "--batch", "0"][..], "--batch: expected at least 1, found 0"),
        (&["--arch", "small-cnn", "--batch", "many"], "--batch"),
        (&["--arch", "small-cnn", "--classes", "1"], "--classes: expected at least 2, found 1"),
        (&["--arch", "small-cnn", "--width", "0"], "--width: expected at least 1, found 0"),
        (&["--arch", "small-cnn", "--image-size", "0"], "--image-size: expected at least 1, found 0"),
        (&["--arch", "large-cnn"], "small-cnn"),
        (&[], "--arch"),
    ] {
        let message = fails(d, &[&["plan"][..], flags].concat(), 2);
        assert!(message.contains(expected), "{flags:?}: {message}");
    }
}

#[test]
fn a_foreign_state_dict_can_be_evaluated_with_a_config() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/digits-cnn.safetensors");
    // The golden file holds PyTorch's state dict under a prefix, next to other arrays: as it is, it fits no network.
    let message = fails(d, &["eval", golden.to_str().unwrap(), "--preset", "digits-60s"], 1);
    assert!(message.contains("digits-cnn.safetensors"), "{message}");
    // The state dict of a network behind a normalisation layer, as the authors' code saves it.
    let bytes = std::fs::read(golden).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let dict: Vec<_> = file
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| name.strip_prefix("state.").map(|name| (format!("module.1.{name}"), view)))
        .collect();
    std::fs::write(d.join("foreign.safetensors"), safetensors::serialize(dict, None).unwrap()).unwrap();
    assert!(fails(d, &["eval", "foreign.safetensors"], 2).contains("--config or --preset"));
    let shown = ok(d, &["eval", "foreign.safetensors", "--preset", "digits-60s", "--attack", "clean", "--limit", "20"]);
    assert!(shown.contains("20 images") && shown.contains("worst class"), "{shown}");
}

#[test]
fn the_bench_measures_what_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "--arch",
        "digits-cnn",
        "--batch",
        "8",
        "--batch",
        "16",
        "--width",
        "4",
        "--steps",
        "2",
        "--seconds",
        "0.01",
        "--json",
        "b.json",
    ];
    ok(dir.path(), &arguments);
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.path().join("b.json")).unwrap()).unwrap();
    let rows = report["results"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    for row in rows {
        assert_eq!(row["width"], 4);
        assert!(row["images_per_second"].as_f64().unwrap() > 0.0);
        assert!(["perturb", "update", "statistics"].iter().all(|phase| row["seconds"][phase].as_f64().unwrap() >= 0.0));
    }
}

#[test]
fn a_profile_says_where_the_time_of_a_step_goes() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let refused = fails(d, &["bench", "--engine", "candle", "--profile"], 2);
    assert!(refused.contains("--engine wgsl"), "{refused}");
    let adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    let adapter: Vec<&str> = adapter.iter().flat_map(|name| ["--adapter", name.as_str()]).collect();
    let size = ["--arch", "digits-cnn", "--batch", "4", "--width", "4", "--steps", "2", "--seconds", "0.01"];
    let what = ["bench", "--engine", "wgsl", "--profile", "--top", "3", "--json", "b.json"];
    let shown = ok(d, &[&what[..], &size, &adapter].concat());
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(d.join("b.json")).unwrap()).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();

    let figures = &report["figures"];
    let (peak, copy) = (number(&figures["fma_flops_per_second"]), number(&figures["copy_bytes_per_second"]));
    assert!(peak > 0.0 && copy > 0.0);
    assert!(shown.contains(&format!("{:.1} GFLOP/s of multiply-adds, {:.1} GB/s of a copy", peak / 1e9, copy / 1e9)));

    let row = &report["results"][0];
    let step = number(&row["step_seconds"]);
    assert!((4.0 / step / number(&row["images_per_second"]) - 1.0).abs() < 1e-9);
    let epoch = &row["epoch"];
    assert!((number(&epoch["extrapolated_seconds"]) / (step * 50_000.0 / 4.0) - 1.0).abs() < 1e-9);
    assert!(epoch["measured_seconds"].is_null());
    assert!(number(&row["device"]["bytes"]) > 0.0 && number(&row["device"]["submissions"]) >= 1.0);

    let profile = &row["profile"];
    let clocks = ["timestamps", "submissions"];
    assert!(clocks.contains(&profile["clock"].as_str().unwrap()) && profile["clock"] == figures["clock"]);
    assert_eq!(profile["dispatches"], number(&row["device"]["dispatches"]) as u64);
    let rows = profile["rows"].as_array().unwrap();
    let shares: f64 = rows.iter().map(|row| number(&row["share"])).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{shares}");
    for name in ["program", "phase", "kernel", "file"] {
        assert!(rows.iter().all(|row| row[name].is_string()), "{name}");
    }
    for name in ["runs", "dispatches", "seconds", "flops_per_second", "of_fma_peak", "of_copy_bandwidth"] {
        assert!(rows.iter().all(|row| number(&row[name]) >= 0.0), "{name}");
    }
    // Three rows as requested, the longest first, and the number of remaining rows.
    assert!(rows.len() > 3 && shown.contains(&format!("and {} rows more", rows.len() - 3)), "{shown}");
    for row in &rows[..3] {
        let kernel = row["kernel"].as_str().unwrap();
        let time = format!("{:.3} ms", 1e3 * number(&row["seconds"]));
        assert!(shown.lines().any(|line| line.contains(kernel) && line.contains(&time)), "{kernel} {time}: {shown}");
    }
    let phases: BTreeSet<&str> =
        profile["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(phases, BTreeSet::from(["backward", "forward", "other", "weights"]));
}

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
