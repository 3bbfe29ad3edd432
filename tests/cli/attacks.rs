//! `fairtat eval` with strong attacks, reports, curves, corruptions and several checkpoints.

use std::time::Duration;

use super::*;

/// Trains the tiny network of the tests.
fn trained(d: &Path) {
    ok(d, &[&TINY[..], &["2", "--test-steps", "0"]].concat());
}

fn eval<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    [&["eval", "run", "--engine", "candle"][..], flags].concat()
}

/// The values of a `.npy` file of bytes.
fn flags(path: &Path) -> Vec<u8> {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[header..].to_vec()
}

#[test]
fn autoattack_leaves_a_whole_report() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    trained(d);
    let call =
        eval(&["--attack", "autoattack", "--budget", "small", "--report", "rep", "--save-images", "--limit", "60"]);
    let shown = ok(d, &call);
    let report = json(&d.join("rep/report.json"));
    let results = report["results"].as_array().unwrap();
    let ran: Vec<&str> = results.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(
        ran,
        ["clean", "apgd-ce", "apgd-t", "fab-t", "square", "noise", "pgd-20-epsilon-0", "pgd-20", "pgd-100"]
    );
    // Survivors: each attack runs on those that the ones before have left.
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let images = number(&report["images"]);
    for pair in results[..5].windows(2) {
        assert_eq!(number(&pair[1]["attacked"]), (number(&pair[0]["accuracy"]) * images).round());
        assert!(number(&pair[1]["accuracy"]) <= number(&pair[0]["accuracy"]));
    }
    assert_eq!(results[6]["accuracy"], results[0]["accuracy"]);
    let (suite, worst) = (&report["suites"][0], &report["worst_case"]);
    assert_eq!(suite["name"], "autoattack-small");
    assert!(number(&worst["accuracy"]) <= number(&suite["accuracy"]));
    // The verdict on every image, and their combination.
    let of = |name: &str| flags(&d.join(format!("rep/flags/{name}.npy")));
    let share = |flags: &[u8]| flags.iter().map(|flag| f64::from(*flag)).sum::<f64>() / flags.len() as f64;
    assert!((share(&of("apgd-ce")) - number(&results[1]["accuracy"])).abs() < 1e-12);
    assert_eq!(of("autoattack-small"), of("square"));
    let combined: Vec<u8> = of("square").iter().zip(of("clean")).map(|(a, b)| a & b).collect();
    let combined: Vec<u8> = ["pgd-20", "pgd-100", "noise"]
        .iter()
        .fold(combined, |all, name| all.iter().zip(of(name)).map(|(a, b)| a & b).collect());
    assert_eq!(of("worst-case"), combined);
    let written = names(&d.join("rep"));
    for name in ["report.md", "report.csv", "labels.npy", "images.npy", "figures"] {
        assert!(written.contains(name), "{name} {written:?}");
    }
    assert!(!written.contains("unfinished") && !written.contains("robustbench.json"), "{written:?}");
    assert!(names(&d.join("rep/adversarial")).contains("worst-case.npy"));
    let text = std::fs::read_to_string(d.join("rep/report.md")).unwrap();
    let hash = report["checkpoint_sha256"].as_str().unwrap();
    assert!(hash.len() == 64 && text.contains(hash) && text.contains("## Checks"), "{text}");
    assert!(text.contains("fairtat eval run --engine candle --attack autoattack"), "{text}");
    assert!(shown.contains("worst case of each image") && shown.contains("AutoAttack with a small budget"), "{shown}");
    assert!(shown.contains("(control)"), "{shown}");

    // A report is not replaced by accident.
    assert!(fails(d, &call, 1).contains("rep holds a report already"));
    // Nothing of it is left when it is replaced by a smaller one.
    ok(d, &eval(&["--attack", "pgd", "--report", "rep", "--limit", "20", "--force"]));
    assert_eq!(names(&d.join("rep/flags")), ["clean.npy", "pgd-20.npy", "worst-case.npy"].map(String::from).into());
    assert!(!names(&d.join("rep")).contains("adversarial"));
}

/// Killed in the middle and started again: the same bytes as without.
#[test]
fn an_evaluation_goes_on_after_it_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    trained(d);
    // A radius that leaves survivors, and batches small enough that there are many, though the network is a bad one.
    let flags = [
        "--attack",
        "apgd-ce,square,fab",
        "--epsilon",
        "2/255",
        "--queries",
        "3000",
        "--steps",
        "20",
        "--batch-size",
        "5",
    ];
    let flags = [&flags[..], &["--limit", "350"]].concat();
    let whole = [&eval(&flags)[..], &["--report", "whole"]].concat();
    ok(d, &whole);
    // Replacing a report does not mean throwing away what the same evaluation has done.
    let call = [&eval(&flags)[..], &["--report", "killed", "--force"]].concat();
    let unfinished = d.join("killed/unfinished");
    // Runs until `done` batches of `attack` are kept, and is killed then.
    let killed_after = |attack: &str, done: usize| {
        let mut child = command(d, &call).stderr(std::process::Stdio::null()).spawn().unwrap();
        let kept = || if unfinished.exists() { names(&unfinished) } else { std::collections::BTreeSet::new() };
        let begun = (0..20_000).any(|_| {
            std::thread::sleep(Duration::from_millis(3));
            kept().iter().filter(|name| name.starts_with(attack)).count() >= done
        });
        assert!(begun, "{done} batches of {attack} were not done");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!d.join("killed/report.json").exists(), "finished before it could be killed");
    };
    killed_after("square", 1);
    // Other settings do not mix.
    let other = [&eval(&["--attack", "apgd-ce"])[..], &["--report", "killed"]].concat();
    assert!(fails(d, &other, 1).contains("holds an unfinished evaluation with other settings"));
    let written = |name: &str| std::fs::metadata(unfinished.join(name)).unwrap().modified().unwrap();
    let first = (written("apgd-ce-00000.safetensors"), written("square-00000.safetensors"));
    // Killed again: what was there is not computed again.
    killed_after("square", 3);
    assert_eq!((written("apgd-ce-00000.safetensors"), written("square-00000.safetensors")), first);
    ok(d, &call);
    assert!(!unfinished.exists());
    for name in ["clean", "apgd-ce", "square", "fab", "worst-case"] {
        let file = format!("flags/{name}.npy");
        assert_eq!(
            std::fs::read(d.join("whole").join(&file)).unwrap(),
            std::fs::read(d.join("killed").join(&file)).unwrap(),
            "{name}"
        );
    }
}

#[test]
fn curves_have_a_point_for_each_radius_and_number_of_steps() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    trained(d);
    let flags = ["--attack", "clean,pgd", "--epsilon-sweep", "0:16/255:3", "--steps-sweep", "1,5", "--report", "rep"];
    ok(d, &eval(&flags));
    let report = json(&d.join("rep/report.json"));
    let ran: Vec<&str> = report["results"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert_eq!(ran, ["clean", "pgd-20", "pgd-20-epsilon-0", "pgd-20-epsilon-8", "pgd-20-epsilon-16", "pgd-1", "pgd-5"]);
    let files = names(&d.join("rep/figures"));
    assert!(
        files.contains("attacks.png") && files.contains("security-curve.svg") && files.contains("steps-curve.png"),
        "{files:?}"
    );
    for wrong in ["8", "16/255:0", "0:16/255:1", "0:x", "0:1:2:3", "0:16"] {
        fails(d, &eval(&["--epsilon-sweep", wrong]), 2);
    }
}

#[test]
fn several_checkpoints_share_one_table() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    trained(d);
    let last = "run/checkpoints/last.safetensors";
    let call = [
        "eval",
        "run",
        last,
        "--engine",
        "candle",
        "--attack",
        "pgd,pgd-targeted",
        "--transfer",
        "--report",
        "rep",
        "--limit",
        "50",
    ];
    let shown = ok(d, &call);
    let report = json(&d.join("rep/report.json"));
    let checkpoints = report["checkpoints"].as_array().unwrap();
    assert_eq!(checkpoints.len(), 2);
    let transfer = report["transfer"].as_array().unwrap();
    assert_eq!(transfer.len(), 2);
    // The diagonal is the attack itself.
    let images = transfer[0]["images"].as_f64().unwrap();
    for (i, checkpoint) in checkpoints.iter().enumerate() {
        let own = checkpoint["attacks"][0][1]["accuracy"].as_f64().unwrap();
        assert_eq!(transfer[0]["correct"][i][i].as_f64().unwrap(), (own * images).round());
    }
    assert!(shown.contains("Transfer of PGD-20") && shown.contains("last.safetensors"), "{shown}");
    let files = names(&d.join("rep"));
    for name in ["figures", "report.md", "report.csv", "01", "02", "transfer-1"] {
        assert!(files.contains(name), "{name} {files:?}");
    }
    fails(d, &["eval", "run", "--transfer"], 2);
    let message = fails(d, &["eval", "run", last, "--transfer", "--attack", "square"], 2);
    assert!(message.contains("Square leaves images that it cannot change"), "{message}");
    let message = fails(d, &["eval", "run", last, "--transfer", "--attack", "pgd", "--any-iterate"], 2);
    assert!(message.contains("ends where it first fools the network"), "{message}");

    // Every number has its images, ball, seed and checkpoint.
    let sha256 = checkpoints[0]["checkpoint_sha256"].as_str().unwrap();
    assert!(
        shown.contains("50 images, test (limit 50) of digits; L∞, ε 24/255; seed 0") && shown.contains(sha256),
        "{shown}"
    );
    let (header, rows) = columns(&d.join("rep/report.csv"));
    assert_eq!(
        (&header[1..8], &rows[0][1]),
        (&["sha256", "method", "dataset", "images", "norm", "epsilon", "seed"].map(String::from)[..], sha256)
    );

    // Another comparison takes its place whole, and only if asked for.
    let smaller = ["eval", "run", last, "--engine", "candle", "--attack", "fgsm", "--report", "rep", "--limit", "20"];
    assert!(fails(d, &smaller, 1).contains("rep holds a report already"));
    ok(d, &[&smaller[..], &["--force"]].concat());
    assert!(!names(&d.join("rep")).contains("transfer-1"));
    assert_eq!(names(&d.join("rep/01/flags")), ["clean.npy", "fgsm.npy", "worst-case.npy"].map(String::from).into());
    // A report of one of its checkpoints is a report too.
    std::fs::remove_file(d.join("rep/report.json")).unwrap();
    assert!(fails(d, &smaller, 1).contains("holds a report already"));
}

#[test]
fn corruptions_are_generated_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    trained(d);
    let flags = ["--attack", "clean", "--corruptions", "all", "--report", "rep", "--limit", "40"];
    let shown = ok(d, &eval(&flags));
    let report = json(&d.join("rep/report.json"));
    let corruptions = &report["corruptions"];
    assert_eq!(corruptions["results"].as_array().unwrap().len(), 19 * 5);
    let means: Vec<&str> =
        corruptions["means"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!(means, ["all 19 measured", "the standard 15 (RobustBench)", "the 18 of FAIR-TAT"]);
    assert!(shown.contains("frost is drawn") && shown.contains("mean over the standard 15"), "{shown}");
    assert!(names(&d.join("rep/figures")).contains("corruptions-classes.png"));
    assert!(fails(d, &eval(&["--corruptions", "rain"]), 2).contains("expected standard, authors, all"));
    assert!(fails(d, &eval(&["--corruptions", "fog", "--corruptions-dir", "nowhere"]), 1).contains("nowhere"));
}

#[test]
fn attacks_that_do_not_exist_are_refused_with_what_does() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    trained(d);
    assert!(fails(d, &eval(&["--attack", "apgd"]), 2).contains("expected one of clean, noise, fgsm"));
    let message = fails(d, &eval(&["--attack", "cw", "--norm", "linf"]), 2);
    assert!(message.contains("--attack cw: CW searches the nearest image in L2; use --norm l2"), "{message}");
    let shown = ok(d, &eval(&["--attack", "clean,cw", "--norm", "l2", "--epsilon", "1", "--limit", "30"]));
    assert!(shown.contains("CW, L2, ε 255/255, 50 steps, c 1"), "{shown}");
    let shown = ok(d, &eval(&["--attack", "pgd-targeted", "--limit", "30"]));
    assert!(shown.contains("Targeted PGD-20") && shown.contains("reached its target: "), "{shown}");
    assert!(fails(d, &eval(&["--save-images"]), 2).contains("--report"));
    let message = fails(d, &eval(&["--attack", "clean", "--report", "run"]), 1);
    assert!(message.contains("run is the directory of a run; name another, such as run/report"), "{message}");
    let output = fairtat(d, &eval(&["--attack", "rand", "--budget", "small", "--limit", "10"]));
    assert!(text(&output.stderr).contains("--budget is ignored: it is an option of AutoAttack's version standard"));
    // The limit of the run was for its own evaluation.
    assert!(ok(d, &eval(&["--attack", "clean"])).contains("(test, 355 images)"));
    let output = fairtat(d, &eval(&["--attack", "fgsm", "--queries", "5", "--limit", "10"]));
    assert!(text(&output.stderr).contains("--queries is ignored: it is an option of Square"));
}
