//! What `fairtat eval` and the evaluations of a run measure, refuse and warn of.

use super::*;

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
    assert!(fails(d, &long, 2).contains("attack.epsilon: expected at most 8.00, the largest L2 distance"));
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

    let shown = ok(d, &["eval", "run", "--engine", "candle", "--limit", "10", "--json", "e.json"]);
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
        message.contains("best.safetensors was trained on 1×8×8 images, but those of 'shapes' are 3×32×32; name the"),
        "{message}"
    );
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
    let call = ["eval", "foreign.safetensors", "--preset", "digits-60s", "--attack", "clean", "--limit", "20"];
    let message = fails(d, &call, 1);
    assert!(
        message.contains("does not record how images are normalised") && message.contains("--normalize"),
        "{message}"
    );
    let shown = ok(d, &[&call[..], &["--normalize", "0.3/0.38"]].concat());
    assert!(shown.contains("20 images") && shown.contains("worst class"), "{shown}");
}
