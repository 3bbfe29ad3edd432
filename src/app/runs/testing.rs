//! Directories of runs and studies for tests.

use super::*;
use crate::app::sample;
use crate::config::MethodChoice;
use crate::evaluate::WeightsReport;
use crate::train::evaluation_attack;

/// Writes a run as training does: some epochs of the sample run, a report if `robust` is given, and two examples.
pub(in crate::app) fn write(path: &Path, method: MethodChoice, epochs: u32, robust: Option<f64>) -> Experiment {
    let mut experiment = Experiment::preset("cifar10-small").unwrap();
    experiment.fairness.method = method;
    let directory = RunDir::create(path, &experiment).unwrap();
    let records: Vec<_> = (0..epochs).map(sample::epoch).collect();
    let metrics: Vec<MetricsRow> = records
        .iter()
        .map(|record| MetricsRow {
            val_robust_accuracy: record.metrics.val_robust_accuracy + robust.unwrap_or(0.4) - 0.4,
            ..record.metrics.clone()
        })
        .collect();
    let classes: Vec<ClassRow> = records.iter().flat_map(|record| record.classes.clone()).collect();
    directory.write_rows(&metrics, &classes).unwrap();
    if let Some(robust) = robust {
        let of_class = |k: usize| robust + 0.05 * (k as f64 - 4.5);
        let weights = ["last", "best"].map(|weights| WeightsReport {
            weights: weights.into(),
            clean: 0.8,
            clean_worst: 0.6,
            robust,
            robust_worst: of_class(0),
            robust_gap: 0.45,
            robust_worst_tenth: of_class(0),
            clean_classes: vec![Some(0.8); 10],
            robust_classes: (0..10).map(of_class).map(Some).collect(),
            ..WeightsReport::default()
        });
        let report = FinalReport {
            method: method.title().into(),
            dataset: "cifar10".into(),
            architecture: "small-cnn".into(),
            seed: 0,
            attack: evaluation_attack(&experiment, 20).to_string(),
            images: 10_000,
            class_names: records[0].classes.iter().map(|class| class.name.clone()).collect(),
            weights: weights.to_vec(),
            ..FinalReport::default()
        };
        directory.write_json("evaluation.json", &report).unwrap();
    }
    let set = sample::images(1);
    for i in 0..2 {
        let pixels = set.image(i);
        let original = |x: u32, y: u32| [0, 1, 2].map(|c| pixels[c * 1024 + (y * 32 + x) as usize]);
        let original = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb(original(x, y)));
        let shift = if method == MethodChoice::At { 8 } else { 4 };
        let mut adversarial = original.clone();
        adversarial.pixels_mut().for_each(|pixel| pixel.0[0] = pixel.0[0].saturating_add(shift));
        std::fs::create_dir_all(path.join("examples")).unwrap();
        original.save(path.join(format!("examples/{i:02}-original.png"))).unwrap();
        adversarial.save(path.join(format!("examples/{i:02}-adversarial.png"))).unwrap();
    }
    experiment
}

/// Writes a study with the arms `AT`, `targets` and `both`, whose runs are those for which `robust` returns the robust
/// accuracy of each class.
pub(in crate::app) fn write_study(
    path: &Path,
    text: &str,
    robust: impl Fn(&PlannedRun) -> Option<Vec<f64>>,
) -> Vec<PlannedRun> {
    std::fs::create_dir_all(path).unwrap();
    let file = StudyFile::from_toml(text, "test").unwrap();
    std::fs::write(path.join("study.toml"), file.to_toml()).unwrap();
    let plan = file.runs().unwrap();
    for run in &plan {
        let Some(classes) = robust(run) else { continue };
        let directory = RunDir::create(&path.join(&run.name), &run.experiment).unwrap();
        directory.write_rows(&[sample::epoch(0).metrics], &[]).unwrap();
        let ends = classes.iter().fold((1.0_f64, 0.0_f64), |(low, high), value| (low.min(*value), high.max(*value)));
        let mean = classes.iter().sum::<f64>() / classes.len() as f64;
        let weights = WeightsReport {
            weights: "last".into(),
            clean: mean + 0.3,
            clean_worst: ends.0 + 0.3,
            robust: mean,
            robust_worst: ends.0,
            robust_gap: ends.1 - ends.0,
            robust_worst_tenth: ends.0,
            clean_classes: vec![Some(mean + 0.3); classes.len()],
            robust_classes: classes.iter().copied().map(Some).collect(),
            ..WeightsReport::default()
        };
        let names = sample::epoch(0).classes.into_iter().map(|class| class.name);
        let class_names = names.chain((10..classes.len()).map(|k| format!("class {k}"))).take(classes.len()).collect();
        let report = FinalReport {
            dataset: "cifar10".into(),
            architecture: "small-cnn".into(),
            seed: run.seed,
            attack: evaluation_attack(&run.experiment, 20).to_string(),
            images: 2_000,
            class_names,
            weights: vec![weights],
            ..FinalReport::default()
        };
        directory.write_json("evaluation.json", &report).unwrap();
    }
    plan
}

/// A study with three arms, these seeds and further lines.
pub(in crate::app) fn study_text(seeds: &str, more: &str) -> String {
    format!(
        r#"title = "What targets do"
about = "A study for a test."
preset = "cifar10-small"
seeds = {seeds}

[[arm]]
name = "AT"
set.fairness = {{ method = "at" }}

[[arm]]
name = "targets uniform, no class epsilon"
set.fairness = {{ method = "fair-tat", target_mode = "uniform", epsilon_rules = [] }}

[[arm]]
name = "FAIR-TAT"
against = ["targets uniform, no class epsilon"]
set.fairness = {{ method = "fair-tat" }}
{more}"#
    )
}

/// Robust accuracy of `classes` classes of a run: 2 points higher with targets, 6 with FAIR-TAT, and a little noise.
pub(in crate::app) fn robust_classes(run: &PlannedRun, classes: usize) -> Vec<f64> {
    let of_arm = match run.arm.as_str() {
        "AT" => 0.0,
        "FAIR-TAT" => 0.06,
        _ => 0.02,
    };
    let of_class = |k: usize| {
        let noise = f64::from((7 * k as u32 + 3 * run.seed as u32 + run.arm.len() as u32) % 5) - 2.0;
        0.3 + of_arm + 0.3 * k as f64 / classes as f64 + 0.01 * run.seed as f64 + 0.004 * noise
    };
    (0..classes).map(of_class).collect()
}
