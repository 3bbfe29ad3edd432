//! Learning rates, and the names and shapes of state dicts.

use std::collections::BTreeMap;

use clap::ValueEnum;
use fairtat::config::{OptimizerConfig, Schedule};
use fairtat::data::ImageShape;
use fairtat::model::Architecture;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::golden::{Errors, path};

fn read<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&std::fs::read(path(file)).unwrap()).unwrap()
}

#[derive(Debug, Deserialize)]
struct Rates {
    #[serde(alias = "max_lr")]
    lr: f64,
    rates: Vec<f64>,
    milestones: Option<Vec<u32>>,
    gamma: Option<f64>,
}

#[test]
fn learning_rates_are_pytorchs() {
    let tables: BTreeMap<String, Rates> = read("schedules.json");
    assert_eq!(tables.len(), 4);
    for (name, table) in tables {
        let count = table.rates.len() as u32;
        // One-cycle has a learning rate per step: here for epochs of ten steps.
        let (schedule, batches) = match name.as_str() {
            "one_cycle" => (Schedule::OneCycle, 10),
            "cosine" => (Schedule::Cosine, 1),
            "multi_step" => (Schedule::Step3, 1),
            "step" => (Schedule::Steplr, 1),
            _ => panic!("no schedule is called {name}"),
        };
        let epochs = count / batches;
        let optimizer = OptimizerConfig { lr: table.lr, epochs, schedule, ..OptimizerConfig::default() };
        let mut checked = vec![optimizer.clone()];
        if let Some((milestones, gamma)) = table.milestones.zip(table.gamma) {
            let schedule = Schedule::MultiStep;
            checked.push(OptimizerConfig { schedule, milestones, decay: vec![gamma], ..optimizer });
        }
        let mut errors = Errors::new("schedules", 1e-12);
        for optimizer in checked {
            for (i, expected) in (0..count).zip(&table.rates) {
                errors.close_f64(&name, &[optimizer.lr_at(i / batches, i % batches, batches)], &[*expected]);
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct StateDict {
    channels: usize,
    parameters: BTreeMap<usize, usize>,
    state: BTreeMap<String, Vec<usize>>,
}

/// The order is not compared: states are maps, and PyTorch lists a block's shortcut last regardless of when it runs.
#[test]
fn state_dicts_have_pytorchs_names_and_shapes() {
    let tables: BTreeMap<String, StateDict> = read("architectures.json");
    assert_eq!(tables.len(), Architecture::ALL.len());
    for (name, table) in tables {
        let architecture = Architecture::from_str(&name, false).unwrap();
        let side = if architecture == Architecture::DigitsCnn { 8 } else { 32 };
        let build = |classes| architecture.build(ImageShape::new(table.channels, side, side), classes, None, None);
        let specs = build(10).state_specs();
        let count = specs.len();
        let found: BTreeMap<String, Vec<usize>> = specs.into_iter().map(|spec| (spec.name, spec.shape)).collect();
        assert_eq!(found.len(), count, "{name} has a name twice");
        assert_eq!(found, table.state, "{name}");
        assert_eq!(table.parameters.len(), 2);
        for (classes, parameters) in table.parameters {
            assert_eq!(build(classes).parameter_count(), parameters, "{name} with {classes} classes");
        }
    }
}
