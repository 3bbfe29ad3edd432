//! Which running statistics of batch norm to evaluate with: those from training or recalibrated ones
//! (`recalibrate_bn`), with attacks in train mode or in eval mode (`attack_bn`).
//!
//! ```sh
//! cargo run --release --example batch_norm -- OUT PRESET [SECTION.FIELD=VALUE]...
//! cargo run --release --example batch_norm -- OUT digits-60s optimizer.epochs=14 optimizer.batch_size=32
//! ```
//!
//! Trains FAIR-TAT once for every mode of the attack and every seed, and validates after each epoch with several
//! numbers of recalibration batches. Recalibration does not affect training, so all of them see the same weights.
//! Appends one line per epoch and number of batches to `OUT/batch_norm.csv`; `benches/batch_norm.py` makes the table of
//! `docs/batch-norm.md` from it.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use fairtat::attack::{Attack, measure};
use fairtat::config::{EngineChoice, Experiment, fields};
use fairtat::engine::{Batch, BatchNormMode, Engine, Input};
use fairtat::model::State;
use fairtat::rng::{Purpose, Stream};
use fairtat::train::{Event, Live, Observer, RunDir, RunningAverage, Splits, Trainer};

/// Numbers of recalibration batches; 0 keeps the statistics of training.
const BATCHES: [u32; 4] = [0, 1, 10, 40];
/// Number of runs for each mode of the attack.
const SEEDS: u64 = 3;

/// Validates after every epoch.
struct Validating {
    set: String,
    experiment: Experiment,
    attack: Attack,
    path: PathBuf,
    /// Epochs that were validated.
    done: u32,
    failed: Option<anyhow::Error>,
}

impl Validating {
    fn validate(&mut self, live: &mut Live<'_>, epoch: u32) -> Result<()> {
        let splits = live.splits().clone();
        let trained = live.engine()?.state()?.model;
        for batches in BATCHES {
            let weights = self.recalibrated(live.engine()?, &splits, &trained, epoch, batches)?;
            live.engine()?.load_model(&weights)?;
            let mut accuracy = Vec::new();
            for attack in [Attack::clean(), self.attack.clone()] {
                let found = measure(live.engine()?, &splits.validation, &attack, 256, &mut |_, _| true)?;
                let confusion = found.context("the measurement was not stopped")?.confusion;
                accuracy.extend([confusion.accuracy(), confusion.worst()]);
            }
            live.engine()?.load_model(&trained)?;
            let e = &self.experiment;
            let line: Vec<String> = accuracy.iter().map(|value| format!("{value:.4}")).collect();
            let mode = if e.attack.attack_bn == BatchNormMode::Train { "train" } else { "eval" };
            let (set, seed, line) = (&self.set, e.run.seed, line.join(","));
            let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
            writeln!(file, "{set},{mode},{seed},{epoch},{batches},{line}")?;
        }
        Ok(())
    }

    /// As a run with `recalibrate_bn` does.
    fn recalibrated(
        &self,
        engine: &mut dyn Engine,
        splits: &Splits,
        trained: &State,
        epoch: u32,
        batches: u32,
    ) -> Result<State> {
        let (set, seed, o) = (&splits.train, self.experiment.run.seed, &self.experiment.optimizer);
        let mut order: Vec<u32> = (0..set.len() as u32).collect();
        Stream::new(seed, Purpose::Shuffle, epoch, 0).sequence().shuffle(&mut order);
        let cut = fairtat::train::Batches::new(set.len(), o.batch_size, o.last_batch);
        let mut average = RunningAverage::default();
        for index in 0..batches.min(cut.count()) {
            let ids = &order[cut.range(index)];
            let pixels: Vec<u8> = ids.iter().flat_map(|id| set.image(*id as usize)).copied().collect();
            let labels: Vec<u32> = ids.iter().map(|id| set.labels()[*id as usize]).collect();
            let augment = self.experiment.augment();
            let batch = Batch { pixels: &pixels, labels: &labels, ids, augment, seed, epoch };
            average.add(&engine.batch_statistics(&Input::Batch(&batch))?);
        }
        Ok(average.put_into(trained))
    }
}

impl Observer for Validating {
    fn event(&mut self, _event: &Event<'_>) {}

    fn between(&mut self, live: &mut Live<'_>) {
        let (epoch, batch) = (live.progress().epoch, live.progress().batch);
        if batch == 0 && epoch > self.done && self.failed.is_none() {
            self.done = epoch;
            self.failed = self.validate(live, epoch - 1).err();
        }
    }

    fn stop(&self) -> bool {
        self.failed.is_some()
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [out, preset, changes @ ..] = &arguments[..] else {
        bail!("usage: batch_norm OUT PRESET [SECTION.FIELD=VALUE]...")
    };
    let mut base = Experiment::preset(preset)?;
    for change in changes {
        let (path, value) = change.split_once('=').context("expected SECTION.FIELD=VALUE")?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        fields::write(&mut base, path, value).map_err(anyhow::Error::msg)?;
    }
    let out = Path::new(out);
    for mode in [BatchNormMode::Train, BatchNormMode::Eval] {
        for seed in 0..SEEDS {
            let mut experiment = base.clone();
            (experiment.attack.attack_bn, experiment.evaluation.recalibrate_bn) = (mode, 0);
            (experiment.run.seed, experiment.run.engine) = (seed, EngineChoice::Candle);
            // The run's own validation is not needed.
            experiment.evaluation.eval_steps = 1;
            let splits = Splits::load(&experiment)?;
            let directory = RunDir::create(&out.join(format!("{preset}-{mode:?}-{seed}")), &experiment)?;
            let mut trainer = Trainer::begin(experiment.clone(), splits, directory)?;
            let attack = trainer.evaluation_attack(10);
            let (set, path) = (preset.clone(), out.join("batch_norm.csv"));
            let mut observer = Validating { set, experiment, attack, path, done: 0, failed: None };
            trainer.run(&mut observer)?;
            if let Some(error) = observer.failed {
                return Err(error);
            }
        }
    }
    Ok(())
}
