//! Tests of the comparison, on results made by hand.

use std::path::PathBuf;

use super::*;
use crate::evaluate::FinalReport;
use crate::study::Measured;

fn file(arms: &[&str]) -> StudyFile {
    let mut text = "title = \"t\"\npreset = \"digits-60s\"\n".to_owned();
    for arm in arms {
        text += &format!("[[arm]]\nname = \"{arm}\"\n");
    }
    StudyFile::from_toml(&text, "test").unwrap()
}

fn finished(robust_worst: f64, targeted: Option<Targeted>) -> Outcome {
    let weights = WeightsReport {
        weights: "last".into(),
        clean: 0.9,
        robust: 0.5,
        robust_worst,
        robust_classes: vec![Some(0.5), None],
        ..WeightsReport::default()
    };
    let report = FinalReport {
        dataset: "digits".into(),
        architecture: "digits-cnn".into(),
        attack: "PGD-20, ε 8/255, seed 3".into(),
        images: 100,
        class_names: vec!["a".into(), "b".into()],
        weights: vec![weights],
        ..FinalReport::default()
    };
    let experiment = crate::config::Experiment::preset("digits-60s").unwrap();
    let measured = targeted.map(|targeted| Measured {
        of: serde_json::Value::Null,
        images: 100,
        rows: Vec::new(),
        targeted: Some(targeted),
        peak_bytes: None,
    });
    Outcome::Finished(Box::new(Finished { study: PathBuf::new(), experiment, report, rows: Vec::new(), measured }))
}

fn report(file: &StudyFile, worst: &[(&str, [f64; 3])]) -> StudyReport {
    let plan = file.runs().unwrap();
    let mut results = Results::default();
    for run in &plan {
        let outcome = match worst.iter().find(|(arm, _)| *arm == run.arm) {
            Some((_, values)) if values[run.seed as usize].is_finite() => finished(values[run.seed as usize], None),
            Some(_) => Outcome::Failed("no memory".into()),
            None => Outcome::Waiting,
        };
        results.runs.insert(run.name.clone(), outcome);
    }
    StudyReport::new(file, &plan, &results)
}

fn worst<'a>(report: &'a StudyReport, arm: &str) -> &'a Metric {
    let arm = report.cells[0].arms.iter().find(|known| known.arm == arm).unwrap();
    arm.metrics.iter().find(|metric| metric.name == "robust worst class").unwrap()
}

/// By hand: differences 0.10, 0.12, 0.14 have the mean 0.12 and the deviation 0.02; t = 4.3027.
#[test]
fn differences_are_paired_by_seed_and_stated_only_where_both_intervals_agree() {
    let file = file(&["AT", "up", "down", "same"]);
    let found = report(
        &file,
        &[
            ("AT", [0.10, 0.20, 0.30]),
            ("up", [0.20, 0.32, 0.44]),
            ("down", [0.09, 0.19, 0.29]),
            // All three higher, so the bootstrap interval excludes 0, but Student's does not.
            ("same", [0.11, 0.21, 0.40]),
        ],
    );
    assert_eq!(found.complete, [12, 12]);
    let up = &worst(&found, "up").comparisons[0];
    let half = 4.302_652_73 * 0.02 / 3f64.sqrt();
    assert!((up.spread.mean - 0.12).abs() < 1e-12 && (up.spread.deviation.unwrap() - 0.02).abs() < 1e-12);
    assert!((up.t.unwrap()[0] - (0.12 - half)).abs() < 1e-9 && (up.t.unwrap()[1] - (0.12 + half)).abs() < 1e-9);
    let [low, high] = up.bootstrap.unwrap();
    assert!((0.10..0.12).contains(&low) && (0.12..=0.14).contains(&high));
    let verdicts = ["up", "down", "same"].map(|arm| worst(&found, arm).comparisons[0].verdict);
    assert_eq!(verdicts, [Verdict::Higher, Verdict::Lower, Verdict::NotShown]);
    assert!(worst(&found, "same").comparisons[0].bootstrap.unwrap()[0] > 0.0);
    assert!(worst(&found, "AT").comparisons.is_empty());
    let text = crate::study::markdown(&found);
    assert!(
        text.contains("* up against AT. Higher: robust worst class +12.0 [7.0, 17.0]. No difference shown: clean; "),
        "{text}"
    );
    assert!(text.contains("* same against AT. No difference shown: clean;"), "{text}");
    let core = ["clean", "clean worst class", "robust", "robust worst class", "robust gap"].join("; ");
    assert!(text.contains(&format!("* same against AT. No difference shown: {core}.")), "{text}");
    assert!(text.contains("| AT | 3 | 90.0 ± 0.0 |"), "{text}");
}

/// Student's interval of two equal differences is a point, which excludes 0.
#[test]
fn two_equal_differences_state_nothing() {
    let file = file(&["AT", "up"]);
    let found = report(&file, &[("AT", [0.10, 0.20, f64::NAN]), ("up", [0.15, 0.25, 0.3])]);
    let up = &worst(&found, "up").comparisons[0];
    assert!(up.t.unwrap()[0] > 0.0 && up.seeds == [0, 1]);
    assert_eq!(up.verdict, Verdict::TooFewSeeds);
}

#[test]
fn what_is_missing_is_named_and_never_counted() {
    let file = file(&["AT", "other", "never"]);
    let found = report(&file, &[("AT", [0.1, 0.2, 0.3]), ("other", [f64::NAN, 0.25, f64::NAN])]);
    assert_eq!(found.complete, [4, 9]);
    assert_eq!(found.failed.len(), 2);
    assert_eq!((found.failed[0].0.as_str(), found.failed[0].1.as_str()), ("other-seed-0", "no memory"));
    assert_eq!(found.missing, ["never-seed-0", "never-seed-1", "never-seed-2"]);
    // The difference is that of the seed that both have.
    let other = &worst(&found, "other").comparisons[0];
    assert_eq!((other.seeds.as_slice(), other.verdict, other.t), (&[1][..], Verdict::TooFewSeeds, None));
    assert!((other.spread.mean - 0.05).abs() < 1e-12);
    // A class without test images has no value, and does not shift the others.
    let classes = &found.cells[0].arms[0].classes;
    assert_eq!((classes[0].spread.unwrap().mean, classes[1].spread), (0.5, None));
    let text = crate::study::markdown(&found);
    assert!(text.contains("**4 of 9 runs are complete.**") && text.contains("* other-seed-0: no memory"), "{text}");
    assert!(text.contains("Fewer than three seeds, so no difference is stated"), "{text}");
    assert!(text.contains("| b | n/a | n/a |"), "{text}");
}

#[test]
fn rates_of_targeted_attacks_count_each_class_alike() {
    let targeted = Targeted {
        attack: "PGD".into(),
        hits: vec![vec![0, 3, 1], vec![2, 0, 2], vec![0, 0, 0]],
        images: vec![4, 2, 0],
        cfps: vec![0.5, 0.5, 0.0],
        mistakes: 2,
    };
    assert_eq!(targeted.from_class(0), Some(4.0 / 8.0));
    assert_eq!(targeted.from_class(2), None);
    // Of class 1 both reach class 0; class 2 has no images.
    assert_eq!(targeted.towards_class(0), Some(1.0));
    assert_eq!(targeted.towards_class(2), Some((0.25 + 1.0) / 2.0));
    let found = vulnerability(&[&targeted, &targeted]);
    assert_eq!(found.cfps, [Some(0.5), Some(0.5), Some(0.0)]);
    assert_eq!(found.from[2], None);
    // Class 2 is no point of the correlation with `from`; two equal CFPS have no correlation.
    assert_eq!(found.correlations.iter().find(|c| c.with == "from" && c.kind == "pearson").unwrap().value, None);
    assert_eq!(found.correlations.len(), 4);
    let silent = Targeted { mistakes: 0, ..targeted };
    assert!(vulnerability(&[&silent]).cfps.iter().all(Option::is_none), "CFPS without mistakes is not measured");
}

/// Equal gaps from different sums: 0.7 - 0.3 and 0.8 - 0.4 differ by 1e-16.
#[test]
fn rounding_is_no_difference() {
    let file = file(&["AT", "same"]);
    let (a, b) = (0.7_f64 - 0.3, 0.8_f64 - 0.4);
    assert_ne!(a, b);
    let found = report(&file, &[("AT", [a, a, a]), ("same", [b, b, b])]);
    let same = &worst(&found, "same").comparisons[0];
    assert_eq!((same.verdict, same.to_string().as_str()), (Verdict::NotShown, "+0.0 [0.0, 0.0]"));
}
