//! Engines and adapters, plans and benches.

use super::*;

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
    assert!(fails(d, &["bench", "--width", "0"], 2).contains("--width: expected 1 to 4096, found 0"));
    assert!(fails(d, &["eval", "x.safetensors", "--engine", "wgsl", "--device", "cpu"], 2).contains("run.device"));
    let study = ["study", "run", "seeds", "--out", "s", "--engine", "candle", "--adapter", "0"];
    assert!(fails(d, &study, 2).contains("run.adapter"));
}

#[test]
fn a_run_goes_on_with_another_engine_and_remembers_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let small = ["--limit", "60", "--test-limit", "10", "--validation-per-class", "2", "--steps", "1", "--width", "4"];
    ok(d, &[&["train", "--run-dir", "run", "--epochs", "1", "--engine", "candle"][..], &small].concat());
    // As if the run had used a GPU that no longer exists.
    let config = d.join("run/config.toml");
    let written = std::fs::read_to_string(&config).unwrap().replace("\nepochs = 1\n", "\nepochs = 2\n");
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
    std::fs::write(&config, written.replace("\nepochs = 1\n", "\nepochs = 2\n")).unwrap();
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
        (&["--arch", "small-cnn", "--width", "0"], "--width: expected 1 to 4096, found 0"),
        (&["--arch", "small-cnn", "--image-size", "0"], "--image-size: expected at least 1, found 0"),
        (&["--arch", "large-cnn"], "small-cnn"),
        (&[], "--arch"),
    ] {
        let message = fails(d, &[&["plan"][..], flags].concat(), 2);
        assert!(message.contains(expected), "{flags:?}: {message}");
    }
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
