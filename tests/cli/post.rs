//! `fairtat post normalize-head`: what it writes, measures and refuses.

use std::path::PathBuf;

use super::*;

const NORMALIZE: [&str; 2] = ["post", "normalize-head"];

/// A directory with a tiny run, and its best checkpoint.
fn trained() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    // More test images than in other tests, so that the numbers before and after differ.
    let train = TINY.map(|word| if word == "10" { "100" } else { word });
    ok(dir.path(), &[&train[..], &["1"]].concat());
    let best = dir.path().join("run/checkpoints/best.safetensors");
    (dir, best)
}

/// The values and the shape of an array of `f32` in a file.
fn array(file: &Path, name: &str) -> (Vec<f32>, Vec<usize>) {
    let bytes = std::fs::read(file).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap();
    let values = view.data().chunks(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    (values, view.shape().to_vec())
}

fn norms(file: &Path, name: &str) -> Vec<f64> {
    let (values, shape) = array(file, name);
    let norm = |row: &[f32]| row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    values.chunks(shape[1]).map(norm).collect()
}

/// Names of all arrays, and all metadata.
fn header(file: &Path) -> (BTreeSet<String>, serde_json::Value) {
    let bytes = std::fs::read(file).unwrap();
    let names = safetensors::SafeTensors::deserialize(&bytes).unwrap().names().into_iter().map(str::to_owned).collect();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    (names, serde_json::from_str(&metadata.metadata().as_ref().unwrap()["fairtat"]).unwrap())
}

/// What `fairtat eval` and `fairtat post` both say of each attack: all but time and cost.
fn accuracies(results: &serde_json::Value) -> Vec<serde_json::Value> {
    let told = |result: &serde_json::Value| {
        let shared =
            ["attack", "settings", "images", "accuracy", "interval", "worst_class", "worst_class_ties", "classes"];
        shared.iter().map(|key| result[key].clone()).collect()
    };
    results.as_array().unwrap().iter().map(told).collect()
}

#[test]
fn the_new_checkpoint_is_what_was_measured_and_the_old_one_stays() {
    let (dir, best) = trained();
    let d = dir.path();
    let old = (std::fs::read(&best).unwrap(), std::fs::read(best.with_extension("json")).unwrap());
    let shown = ok(d, &[&NORMALIZE[..], &["run", "--engine", "candle", "--json", "p.json"]].concat());
    assert_eq!((std::fs::read(&best).unwrap(), std::fs::read(best.with_extension("json")).unwrap()), old);
    let new = best.with_file_name("best-normalized-head.safetensors");
    assert!(shown.ends_with("\nWritten: run/checkpoints/best-normalized-head.safetensors\n"), "{shown}");

    // All other arrays and all metadata are those of the old file, except the logits of the old weights.
    let ((old_names, mut metadata), (names, found)) = (header(&best), header(&new));
    metadata["post"] = "normalize-head".into();
    let (metadata_of, mut found) = (metadata.as_object_mut().unwrap(), found);
    assert!(metadata_of.remove("probe_logits").is_some());
    // And the checksum, which is that of the new arrays.
    assert_ne!(metadata_of.remove("sha256"), found.as_object_mut().unwrap().remove("sha256"));
    assert_eq!((&names, found), (&old_names, metadata));
    for name in names.iter().filter(|name| !name.starts_with("linear")) {
        assert_eq!(array(&new, name), array(&best, name), "{name}");
    }
    let (before, after) = (norms(&best, "linear.weight"), norms(&new, "linear.weight"));
    let mean = before.iter().sum::<f64>() / before.len() as f64;
    assert!(after.iter().all(|norm| (norm / mean - 1.0).abs() < 1e-6), "{after:?}");

    let report = json(&d.join("p.json"));
    assert_eq!((&report["post"], &report["layer"]), (&"normalize-head".into(), &"linear".into()));
    assert!((report["mean_norm"].as_f64().unwrap() - mean).abs() < 1e-9, "{report}");
    for (row, norm) in report["rows"].as_array().unwrap().iter().zip(&before) {
        assert!((row["norm"].as_f64().unwrap() - norm).abs() < 1e-9, "{row}");
        assert!(shown.contains(&format!("  {norm:>9.4}  ")), "{norm}: {shown}");
    }

    // `fairtat eval` measures the same with either file, under the same attack: on the whole test set, not on the 100 images
    // of the run's own evaluation.
    assert_eq!(json(&d.join("run/evaluation.json"))["images"], 100);
    assert_eq!(report["evaluation"]["before"][0]["images"], 355);
    for (file, when) in [(&best, "before"), (&new, "after")] {
        ok(d, &["eval", file.to_str().unwrap(), "--engine", "candle", "--json", "e.json"]);
        assert_eq!(accuracies(&json(&d.join("e.json"))["results"]), accuracies(&report["evaluation"][when]), "{when}");
    }
    let evaluation = &report["evaluation"];
    assert_ne!(evaluation["before"], evaluation["after"]);
    let cell = |when: &str, attack: usize, name: &str, interval: &str| {
        let result = &evaluation[when][attack];
        let number = |value: &serde_json::Value| 100.0 * value.as_f64().unwrap();
        let (low, high) = (number(&result[interval][0]), number(&result[interval][1]));
        format!("{:>5.1} % {:<14}", number(&result[name]), format!("[{low:.1}, {high:.1}]"))
    };
    for (line, attack, name, interval) in [
        ("clean mean", 0, "accuracy", "interval"),
        ("clean worst", 0, "worst_class_accuracy", "worst_class_interval"),
        ("robust mean", 1, "accuracy", "interval"),
        ("robust worst", 1, "worst_class_accuracy", "worst_class_interval"),
    ] {
        let [before, after] = ["before", "after"].map(|when| cell(when, attack, name, interval));
        let expected = format!("\n{line:<12}  {before}  {}\n", after.trim_end());
        assert!(shown.contains(&expected), "{expected}{shown}");
    }
    assert!(shown.contains("\nrobust: PGD-20, L∞, ε 24/255, step 6/255, 1 random start, seed 0\n"), "{shown}");

    // The description has what was done, and no results of the old weights.
    let (mut description, of_old) = (json(&new.with_extension("json")), json(&best.with_extension("json")));
    assert_eq!(description["post"], report);
    assert!(!of_old["validation"].is_null() && !of_old["score"].is_null());
    for name in ["validation", "score"] {
        assert!(description[name].is_null(), "{name}");
        description[name] = of_old[name].clone();
    }
    description.as_object_mut().unwrap().remove("post");
    assert_eq!(description, of_old);

    // A later start refuses the taken name, and replaces the file with the same bytes if it is told to.
    let bytes = std::fs::read(&new).unwrap();
    let again = [&NORMALIZE[..], &["run", "--no-eval"]].concat();
    let message = fails(d, &again, 1);
    let expected = "best-normalized-head.safetensors exists already; name another file with --out, or replace it with \
                    --force\n";
    assert!(message.contains(expected), "{message}");
    let shown = ok(d, &[&again[..], &["--force"]].concat());
    assert!(shown.starts_with("Row norms of 'linear' before") && !shown.contains("robust"), "{shown}");
    assert_eq!(std::fs::read(&new).unwrap(), bytes);
    assert!(json(&new.with_extension("json"))["post"]["evaluation"].is_null());
}

#[test]
fn wrong_files_and_names_are_refused_and_nothing_is_written() {
    let (dir, best) = trained();
    let d = dir.path();
    let resume = best.with_file_name("resume.safetensors");
    std::fs::write(d.join("notes.safetensors"), "text").unwrap();
    std::fs::create_dir(d.join("empty")).unwrap();
    let (best_name, resume) = (best.to_str().unwrap(), resume.to_str().unwrap());
    let before = (names(d), names(best.parent().unwrap()), std::fs::read(&best).unwrap());
    for (arguments, status, expected) in [
        (&["nope.safetensors"][..], 1, "error: cannot read nope.safetensors: No such file or directory (os error 2)\n"),
        (&["notes.safetensors"], 1, "notes.safetensors: not a whole safetensors file"),
        (&["empty"], 1, "error: empty is a directory without checkpoints/best.safetensors\n"),
        (&[resume], 2, "does not record its network and data; name its experiment with --config or --preset\n"),
        (&[resume, "--preset", "digits-60s", "--no-eval"], 1, "does not fit digits-cnn: missing (17): 'conv1.weight'"),
        (&["run", "--preset", "shapes-unfair"], 1, "is a digits-cnn, but the given experiment has a small-cnn"),
        (&["run", "--out", "new.pt"], 2, "error: --out: expected a name that ends in .safetensors, found new.pt\n"),
        (&["run", "--out", best_name, "--force"], 2, "best.safetensors would be overwritten; name another file\n"),
        (&["run", "--epsilon", "8"], 2, "--epsilon: expected at most 1"),
        (&["run", "--steps", "0"], 2, "--steps"),
        (&["run", "--no-eval", "--epsilon", "8/255"], 2, "--no-eval"),
        (&[], 2, "CHECKPOINT"),
    ] {
        let message = fails(d, &[&NORMALIZE[..], arguments].concat(), status);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    assert_eq!((names(d), names(best.parent().unwrap()), std::fs::read(&best).unwrap()), before);
}

#[test]
fn a_foreign_state_dict_keeps_its_names_and_what_only_its_program_reads() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/digits-cnn.safetensors");
    let bytes = std::fs::read(golden).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let state = file
        .tensors()
        .into_iter()
        .filter_map(|(name, view)| name.strip_prefix("state.").map(|name| (format!("module.1.{name}"), view)));
    let counter = 3i64.to_le_bytes();
    let counter = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![], &counter).unwrap();
    let dict: Vec<_> = state.chain([("module.1.bn1.num_batches_tracked".to_owned(), counter)]).collect();
    std::fs::write(d.join("foreign.safetensors"), safetensors::serialize(dict, None).unwrap()).unwrap();

    let call = [&NORMALIZE[..], &["foreign.safetensors", "--engine", "candle", "--json", "p.json"]].concat();
    assert!(fails(d, &call, 2).contains("--config or --preset"));
    let options = ["--preset", "digits-60s", "--limit", "50", "--steps", "2", "--out", "sub/new.safetensors"];
    let options = [&options[..], &["--normalize", "none"]].concat();
    let shown = ok(d, &[&call[..], &options].concat());
    assert!(shown.contains("(test, 50 images)") && shown.contains("PGD-2, L∞, ε 24/255"), "{shown}");
    let (old, new) = (d.join("foreign.safetensors"), d.join("sub/new.safetensors"));
    // A checkpoint without a description gets none, and one of other weights does not stay beside the new ones.
    assert_eq!(names(&d.join("sub")).len(), 1);
    std::fs::remove_file(d.join("sub/new.safetensors")).unwrap();
    std::fs::write(d.join("sub/new.json"), r#"{"epoch": 7}"#).unwrap();
    assert!(fails(d, &[&call[..], &options].concat(), 1).contains("new.json exists already"));
    ok(d, &[&call[..], &options, &["--force"]].concat());
    assert_eq!(names(&d.join("sub")).len(), 1);
    let (found, mut metadata) = header(&new);
    assert!(metadata.as_object_mut().unwrap().remove("sha256").is_some());
    assert_eq!(metadata, serde_json::json!({ "post": "normalize-head" }));
    let bytes = std::fs::read(&old).unwrap();
    let of_old = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(found, of_old.names().into_iter().map(str::to_owned).collect());
    assert_ne!(array(&new, "module.1.linear.weight"), array(&old, "module.1.linear.weight"));
    let after = norms(&new, "module.1.linear.weight");
    assert!(after.iter().all(|norm| (norm / after[0] - 1.0).abs() < 1e-6), "{after:?}");

    let evaluate = ["eval", "sub/new.safetensors", "--engine", "candle", "--json", "e.json", "--steps", "2"];
    ok(d, &[&evaluate[..], &["--preset", "digits-60s", "--limit", "50", "--normalize", "none"]].concat());
    assert_eq!(
        accuracies(&json(&d.join("e.json"))["results"]),
        accuracies(&json(&d.join("p.json"))["evaluation"]["after"])
    );
}
