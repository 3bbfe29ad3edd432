//! Tests of study files and the runs that they stand for.

use super::super::file::*;
use super::*;
use crate::units::Epsilon;

const TEXT: &str = r#"
title = "t"
preset = "digits-60s"
seeds = [4, 2, 4]
set.optimizer.epochs = 3

[[arm]]
name = "PGD-AT"
set.fairness.method = "at"

[[arm]]
name = "FRL"
after = "PGD-AT"
published_shares = true
set.fairness.method = "frl"

[[arm]]
name = "slow / wide"
set = { "optimizer.lr" = 0.01, model.width = 8 }

[[axis]]
field = "attack.epsilon"
values = ["16/255", "24/255"]

[[axis]]
name = "images"
[[axis.value]]
name = "few"
set.data.limit = 100
[[axis.value]]
name = "shapes"
preset = "shapes-unfair"
"#;

fn file() -> StudyFile {
    StudyFile::from_toml(TEXT, "test.toml").unwrap()
}

#[test]
fn runs_are_the_product_of_seeds_cells_and_arms() {
    let runs = file().runs().unwrap();
    assert_eq!(runs.len(), 2 * 4 * 3);
    assert_eq!(runs[0].name, "16-255-few-pgd-at-seed-4");
    assert_eq!(runs[0].cell, "epsilon 16/255, images few");
    assert!(runs[..12].iter().all(|run| run.seed == 4), "seed by seed");
    let [at, frl, slow] = [0, 1, 2].map(|i| &runs[i]);
    assert_eq!((at.experiment.optimizer.epochs, at.experiment.data.limit), (3, Some(100)));
    assert_eq!(at.experiment.attack.epsilon, Epsilon::levels(16.0));
    // A fifth of three epochs, at least one.
    assert_eq!((frl.after.as_deref(), frl.experiment.optimizer.epochs), (Some("16-255-few-pgd-at-seed-4"), 1));
    assert_eq!((slow.name.as_str(), slow.experiment.optimizer.lr), ("16-255-few-slow-wide-seed-4", 0.01));
    assert_eq!(slow.experiment.model.width, Some(8));
    let shapes = runs.iter().find(|run| run.cell == "epsilon 24/255, images shapes").unwrap();
    assert_eq!((shapes.experiment.data.dataset.as_str(), shapes.experiment.data.limit), ("shapes", None));
    let names: BTreeSet<&String> = runs.iter().map(|run| &run.name).collect();
    assert_eq!(names.len(), runs.len());
}

#[test]
fn parts_hold_every_run_once_and_keep_what_belongs_together() {
    let runs = file().runs().unwrap();
    for count in [1, 2, 3, 7, 40] {
        let shards: Vec<Shard> = (1..=count).map(|i| format!("{i}/{count}").parse().unwrap()).collect();
        let held = |shard: &Shard, run: &PlannedRun| shard.of(&runs).iter().any(|own| own.name == run.name);
        for run in &runs {
            assert_eq!(shards.iter().filter(|shard| held(shard, run)).count(), 1, "{}", run.name);
            if let Some(after) = runs.iter().find(|other| run.after.as_ref() == Some(&other.name)) {
                assert!(shards.iter().all(|shard| held(shard, run) == held(shard, after)), "{}", run.name);
            }
        }
    }
    let sizes = ["1/2", "2/2"].map(|text| text.parse::<Shard>().unwrap().of(&runs).len());
    assert_eq!(sizes, [12, 12]);
    let huge: Shard = "1/18446744073709551615".parse().unwrap();
    assert_eq!(huge.of(&runs).len(), 2);
    for text in ["0/2", "3/2", "1", "1/0", "a/b", "-1/2"] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
}

#[test]
fn a_written_study_is_the_same_study() {
    for (name, text) in READY_MADE.into_iter().chain([("test", TEXT)]) {
        let file = StudyFile::from_toml(text, name).unwrap();
        let written = StudyFile::from_toml(&file.to_toml(), "written").unwrap();
        assert_eq!(written, file, "{name}");
        assert_eq!(written.runs().unwrap(), file.runs().unwrap(), "{name}");
    }
}

#[test]
fn fields_of_the_command_line_are_set_in_all_runs() {
    let mut file = file();
    file.give("optimizer.epochs", 7.into());
    file.give("data.flip", true.into());
    let runs = file.runs().unwrap();
    assert!(runs.iter().filter(|run| run.arm != "FRL").all(|run| run.experiment.optimizer.epochs == 7));
    assert!(runs.iter().all(|run| run.experiment.data.flip));
    let varied: Vec<String> = file.varied().into_iter().collect();
    assert_eq!(varied, ["attack.epsilon", "data.limit", "fairness.method", "model.width", "optimizer.lr"]);
}

#[test]
fn the_ablation_has_each_part_alone_and_together() {
    let file = StudyFile::from_toml(READY_MADE[0].1, "ablation").unwrap();
    let runs = file.runs().unwrap();
    let parts: Vec<_> = runs[..6]
        .iter()
        .map(|run| {
            let f = &run.experiment.fairness;
            let targets = (f.method == crate::config::MethodChoice::FairTat && f.targeted).then_some(f.target_mode);
            (targets, f.method == crate::config::MethodChoice::FairTat && !f.epsilon_rules.is_empty())
        })
        .collect();
    use crate::fairness::TargetMode::{Softmax, Uniform};
    let expected = [
        (None, false),
        (Some(Uniform), false),
        (Some(Softmax), false),
        (None, true),
        (Some(Uniform), true),
        (Some(Softmax), true),
    ];
    assert_eq!(parts, expected);
    // The last arm is FAIR-TAT as the preset has it.
    let preset = Experiment::preset("digits-60s").unwrap();
    assert_eq!(runs[5].experiment, Experiment { run: runs[5].experiment.run.clone(), ..preset });
}
