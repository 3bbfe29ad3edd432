//! Studies: runs, measures, reports; parts, failures and kills.

use std::process::Stdio;

use super::*;

/// Two arms, two seeds, seconds of training each, and every measure.
const STUDY: &str = r#"
title = "A | small study"
preset = "digits-60s"
seeds = [0, 1]

[set]
data = { limit = 200, test_limit = 60, validation_per_class = 2 }
model.width = 4
optimizer.epochs = 2
attack.steps = 2
averaging.average_from = 1
evaluation.test_steps = 20
evaluation.recalibrate_bn = 0
run.engine = "candle"

[[arm]]
name = "PGD-AT"
set.fairness.method = "at"

[[arm]]
name = "FAIR-TAT"
set.fairness.method = "fair-tat"

[measure]
targeted = true
corruptions = ["fog"]
limit = 40
attack = [{ kind = "pgd", norm = "l2", epsilon = "0.5", steps = 5 }, { kind = "fgsm", epsilon_factor = 1.5 }]
"#;

/// Files of a report that hold no times.
const REPORT: [&str; 5] = ["report.json", "report.csv", "runs.csv", "vulnerability.csv", "report.md"];

fn written(directory: &Path, text: &str) -> String {
    let path = directory.join("study.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn reports(directory: &Path) -> Vec<(&'static str, String)> {
    REPORT.map(|name| (name, std::fs::read_to_string(directory.join(name)).unwrap())).to_vec()
}

#[test]
fn a_study_is_trained_measured_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let study = written(d, STUDY);
    let text = ok(d, &["study", "run", &study, "--out", "out"]);
    let out = d.join("out");
    assert!(text.starts_with("# A | small study\n"), "{text}");
    assert!(text.contains("* FAIR-TAT against PGD-AT. Fewer than three seeds, so no difference is stated."), "{text}");
    assert!(text.contains("### CFPS and the success of targeted attacks"), "{text}");

    // The means are those of the runs.
    let (header, rows) = columns(&out.join("report.csv"));
    let column = |name: &str| header.iter().position(|known| known == name).unwrap();
    let row = |arm: &str, part: &str, metric: &str| {
        let found = |row: &&csv::StringRecord| {
            &row[column("arm")] == arm && &row[column("part")] == part && &row[column("metric")] == metric
        };
        rows.iter().find(found).unwrap_or_else(|| panic!("{arm} {part} {metric}: {rows:?}")).clone()
    };
    let value = |arm: &str, seed: u32| {
        let report = json(&out.join(format!("{arm}-seed-{seed}/evaluation.json")));
        let weights = report["weights"].as_array().unwrap().clone();
        weights.iter().find(|row| row["weights"] == "last").unwrap()["robust_worst"].as_f64().unwrap()
    };
    let found = row("FAIR-TAT", "test", "robust worst class");
    let of = |name: &str| found[column(name)].parse::<f64>().unwrap();
    let [a, b] = [0, 1].map(|seed| value("fair-tat", seed));
    let [c, e] = [0, 1].map(|seed| value("pgd-at", seed));
    assert!((of("mean") - (a + b) / 2.0).abs() < 1e-12 && (of("difference") - (a - c + b - e) / 2.0).abs() < 1e-12);
    // Student's interval of two differences, by hand: t = 12.706.
    let half = 12.7062047 * ((a - c) - (b - e)).abs() / 2.0;
    assert!((of("t_high") - of("difference") - half).abs() < 1e-6, "{found:?} {half}");
    row("PGD-AT", "transfer", "PGD, L2, ε 127.5/255, 5 steps");
    row("PGD-AT", "transfer", "FGSM, 1.5 ε, worst class");
    row("PGD-AT", "transfer", "Fog");
    row("PGD-AT", "class", "7");

    let (_, points) = columns(&out.join("vulnerability.csv"));
    assert_eq!(points.len(), 20);
    let sum: f64 = points.iter().filter(|row| &row[1] == "PGD-AT").map(|row| row[3].parse::<f64>().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "CFPS of an arm are shares: {sum}");
    for figure in ["paired.png", "paired.svg", "cfps-towards.png", "cfps-from.svg"] {
        assert!(out.join("figures").join(figure).exists(), "{figure}");
    }
    assert!(std::fs::read_to_string(out.join("cost.md")).unwrap().contains("| PGD-AT |"));
    // What is complete is not computed again; a moved study is the same, and may be named by its directory.
    let before = reports(&out);
    std::fs::rename(&out, d.join("moved")).unwrap();
    let again = fairtat(d, &["study", "run", "moved"]);
    assert!(again.status.success() && !self::text(&again.stderr).contains("epoch "), "{}", self::text(&again.stderr));
    assert_eq!(reports(&d.join("moved")), before);
    let status = ok(d, &["study", "status", "moved"]);
    assert!(status.ends_with("4 of 4 runs complete\n"), "{status}");
    // Another seed is added to it; another radius is another study.
    let message = fails(d, &["study", "run", "moved", "--epsilon", "8/255"], 1);
    assert!(message.contains("epsilon: asked for 8/255, found 24/255"), "{message}");
}

#[test]
fn parts_of_a_study_merge_into_the_report_of_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let study = written(d, STUDY);
    ok(d, &["study", "run", &study, "--out", "whole"]);
    // Each part in a directory of its own; the second is killed in the middle of its work, and continued.
    ok(d, &["study", "run", &study, "--out", "one", "--shard", "1/2"]);
    let waiting = ok(d, &["study", "status", "one"]);
    assert!(waiting.contains("waiting") && waiting.ends_with("2 of 4 runs complete\n"), "{waiting}");
    let second = ["study", "run", &study, "--out", "two", "--shard", "2/2"];
    let mut child = command(d, &second).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = d.join("two/fair-tat-seed-0/config.toml");
    while !begun.exists() {
        assert!(child.try_wait().unwrap().is_none(), "the part ended before it began its run");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    ok(d, &second);
    ok(d, &["study", "report", "one", "two", "--out", "merged"]);
    for ((name, whole), (_, merged)) in reports(&d.join("whole")).iter().zip(reports(&d.join("merged"))) {
        assert_eq!(*whole, merged, "{name}");
    }
    let other = written(d, &STUDY.replace("seeds = [0, 1]", "seeds = [5]"));
    std::fs::create_dir(d.join("other")).unwrap();
    std::fs::copy(other, d.join("other/study.toml")).unwrap();
    assert!(fails(d, &["study", "report", "one", "other"], 1).contains("are different studies"));
}

#[test]
fn a_run_that_fails_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let arm = "[[arm]]\nname = \"too fast\"\nset.optimizer.lr = 1e30\n\n[[arm]]\nname = \"FAIR-TAT\"";
    let text = STUDY.replace("[[arm]]\nname = \"FAIR-TAT\"", arm).replace("seeds = [0, 1]", "seeds = [0]");
    let text = &text[..text.find("[measure]").unwrap()];
    let study = written(d, text);
    let output = fairtat(d, &["study", "run", &study, "--out", "out"]);
    let (message, table) = (self::text(&output.stderr), self::text(&output.stdout));
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.ends_with("1 of 3 runs failed; the same command tries them again\n"), "{message}");
    assert!(
        table.contains("## Runs that failed\n\n* too-fast-seed-0: ") && table.contains("| FAIR-TAT | 1 |"),
        "{table}"
    );
    let status = ok(d, &["study", "status", "out"]);
    assert!(status.contains("too-fast-seed-0  failed: ") && status.contains("2 of 3 runs complete"), "{status}");
}

#[test]
fn what_is_no_study_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let refused = |change: (&str, &str), expected: &str| {
        let study = written(d, &STUDY.replacen(change.0, change.1, 1));
        let message = fails(d, &["study", "run", &study, "--out", "out"], 2);
        assert!(message.contains(expected), "{expected}: {message}");
        assert!(!d.join("out").exists(), "{expected}");
    };
    refused(("optimizer.epochs = 2", "optimizer.epoch = 2"), "did you mean optimizer.epochs?");
    refused(("optimizer.epochs = 2", "optimizer.epochs = \"many\""), "optimizer.epochs");
    refused(("name = \"FAIR-TAT\"", "name = \"pgd at\""), "another arm has this name");
    refused(("kind = \"fgsm\"", "kind = \"fgsn\""), "measure.attack: kind: expected one of clean, ");
    refused(("[\"fog\"]", "[\"smog\"]"), "measure.corruptions: there is no 'smog'");
    refused(("seeds = [0, 1]", "seeds = []"), "seeds: expected at least one");
    refused(("[measure]", "[[axis]]\nfield = \"model.arch\"\n\n[measure]"), "expected either a field with values");
    refused(("seeds = [0, 1]", "sedes = [0, 1]"), "unknown field `sedes`");
    assert!(
        fails(d, &["study", "run", "seed"], 2).contains("(ablation, cost, methods, seeds, transfer, vulnerability)")
    );
    assert!(fails(d, &["study", "run", "seeds", "--method", "at"], 2).contains("--method is varied by the study"));
    assert!(fails(d, &["study", "run", "seeds", "--shard", "3/2"], 2).contains("expected I/N with I from 1 to N"));
    assert!(
        fails(d, &["study", "report", "nowhere"], 1).contains("expected the directory of a study, with a study.toml")
    );
    let list = ok(d, &["study", "list"]);
    assert!(list.contains("ablation       What each part of FAIR-TAT does, 18 runs"), "{list}");
    for (name, _) in list.lines().map(|line| line.split_once(' ').unwrap()) {
        assert!(ok(d, &["study", "show", name]).contains("[[arm]]"));
    }
}

/// `FAIRTAT_KILLS=20` kills more often, `FAIRTAT_KILLS_SEED` at other moments.
#[test]
#[cfg(unix)]
fn a_study_that_is_killed_at_random_moments_has_the_same_report() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let study = written(d, STUDY);
    let (kills, mut state) = kills::asked_for(3);
    let begun = std::time::Instant::now();
    ok(d, &["study", "run", &study, "--out", "whole"]);
    let time = begun.elapsed();
    let mut done = 0;
    let mut number = 0;
    while done < kills {
        number += 1;
        let out = format!("killed-{number}");
        loop {
            let mut child = command(d, &["study", "run", &study, "--out", &out])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            if done < kills {
                std::thread::sleep(std::time::Duration::from_micros(kills::draw(&mut state, time.as_micros() as u64)));
                let signal = ["KILL", "TERM", "HUP", "INT"][kills::draw(&mut state, 4) as usize];
                if child.try_wait().unwrap().is_none() {
                    interrupts::send(signal, child.id());
                    done += 1;
                }
            }
            if child.wait().unwrap().success() {
                break;
            }
        }
        assert_eq!(reports(&d.join(&out)), reports(&d.join("whole")), "{out} of {number}");
    }
}
