//! Who watches a run changes nothing: FAIR-TAT on the WGSL engine, TRADES on both.
#![allow(clippy::unwrap_used, reason = "a test says by a panic what does not hold")]

use std::path::Path;
use std::sync::Arc;

use fairtat::config::{DeviceChoice, EngineChoice, Experiment, MethodChoice};
use fairtat::engine::{Batch, BatchNormMode, Input, Norm};
use fairtat::train::{Event, Examples, Live, MetricsRow, Observer, Outcome, RunDir, Splits, Trainer, WatchRequest};

/// Looks at images of every batch, and uses the engine for others between batches and steps.
struct Watcher {
    step_by_step: bool,
    examples: Vec<Arc<Examples>>,
}

impl Watcher {
    fn meddle(live: &mut Live<'_>) {
        let set = Arc::clone(&live.splits().test);
        let pixels = &set.images()[..3 * set.shape().len()];
        let batch = Batch { pixels, labels: &set.labels()[..3], ids: &[0, 1, 2], augment: None, seed: 1, epoch: 0 };
        let attack = fairtat::attack::Attack::fgsm(fairtat::units::Epsilon::levels(9.0), Norm::Linf);
        live.engine().unwrap().perturb(&batch, &attack.perturbation(3, 0)).unwrap();
        live.engine().unwrap().logits(&Input::Batch(&batch), BatchNormMode::Eval).unwrap();
    }
}

impl Observer for Watcher {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Examples(examples) = event {
            self.examples.push(Arc::clone(examples));
        }
    }

    fn between(&mut self, live: &mut Live<'_>) {
        Self::meddle(live);
    }

    fn watch(&self) -> WatchRequest {
        WatchRequest { step_by_step: self.step_by_step, examples: 5 }
    }

    fn stepped(&mut self, live: &mut Live<'_>, _step: (u32, u32)) {
        Self::meddle(live);
    }
}

fn train(path: &Path, engine: EngineChoice, method: MethodChoice, observer: &mut dyn Observer) {
    let mut e = Experiment::preset("digits-60s").unwrap();
    e.data.limit = Some(120);
    e.data.test_limit = Some(20);
    e.data.validation_per_class = Some(2);
    e.model.width = Some(4);
    e.attack.steps = 2;
    (e.fairness.method, e.fairness.clean_passes) = (method, 2);
    (e.averaging.ema, e.averaging.average_from) = (true, 0);
    (e.optimizer.epochs, e.optimizer.batch_size) = (2, 40);
    e.evaluation.eval_steps = 2;
    (e.run.engine, e.run.device, e.run.deterministic) = (engine, DeviceChoice::Cpu, true);
    if engine == EngineChoice::Wgsl {
        e.run.device = DeviceChoice::Auto;
        e.run.adapter = std::env::var("FAIRTAT_TEST_ADAPTER").ok();
    }
    let directory = RunDir::create(path, &e).unwrap();
    let mut trainer = Trainer::begin(e.clone(), Splits::load(&e).unwrap(), directory).unwrap();
    assert_eq!(trainer.run(observer).unwrap(), Outcome::Finished);
}

/// Demands that two runs wrote the same, but for times.
#[track_caller]
fn wrote_the_same(a: &Path, b: &Path) {
    for name in
        ["classes.csv", "checkpoints/last.safetensors", "checkpoints/best.safetensors", "checkpoints/ema.safetensors"]
    {
        let [a, b] = [a, b].map(|path| std::fs::read(path.join(name)).unwrap());
        assert!(a == b, "{name} differs");
    }
    let [a, b] = [a, b].map(|path| {
        let without_times =
            |row| MetricsRow { seconds: 0.0, seconds_attack: 0.0, seconds_update: 0.0, seconds_statistics: 0.0, ..row };
        let (rows, _) = RunDir::open(path).unwrap().0.read_rows().unwrap();
        rows.into_iter().map(without_times).collect::<Vec<_>>()
    });
    assert_eq!(a, b);
}

#[test]
fn a_watched_run_writes_the_bytes_of_an_unwatched_one() {
    #[allow(unsafe_code, reason = "the pipelines of tests do not belong into the user's cache directory")]
    // SAFETY: this is the only test of this file, and no GPU driver is loaded yet.
    unsafe {
        std::env::set_var("FAIRTAT_CACHE", "");
    }
    fair_tat_on_the_wgsl_engine();
    trades(EngineChoice::Candle);
    trades(EngineChoice::Wgsl);
}

fn fair_tat_on_the_wgsl_engine() {
    let dir = tempfile::tempdir().unwrap();
    let [plain, watched, stepped] = ["plain", "watched", "stepped"].map(|name| dir.path().join(name));
    let train = |path: &Path, observer: &mut dyn Observer| {
        train(path, EngineChoice::Wgsl, MethodChoice::FairTat, observer);
    };
    train(&plain, &mut ());
    let mut watcher = Watcher { step_by_step: false, examples: Vec::new() };
    train(&watched, &mut watcher);
    wrote_the_same(&plain, &watched);
    assert_eq!(watcher.examples.len(), 6);
    assert!(watcher.examples.iter().all(|e| e.step == (2, 2) && e.probabilities.len() == 50));

    let whole = watcher.examples;
    let mut watcher = Watcher { step_by_step: true, examples: Vec::new() };
    train(&stepped, &mut watcher);
    let last: Vec<_> = watcher.examples.iter().filter(|e| e.step == (2, 2)).collect();
    assert_eq!((watcher.examples.len(), last.len()), (18, 6));
    // The first batch meets the same network in all runs; later ones one that differs in the last bits.
    assert_eq!((&whole[0].clean, &whole[0].targets), (&last[0].clean, &last[0].targets));
    let strayed = |i: usize| {
        whole[i].adversarial.iter().zip(&last[i].adversarial).filter(|(a, b)| (**a - **b).abs() > 1e-5).count()
    };
    assert!(strayed(0) <= 1, "{} pixels", strayed(0));
}

/// The clean predictions that the search of TRADES climbs away from outlast whatever else the engine is asked for between
/// two steps.
fn trades(engine: EngineChoice) {
    let dir = tempfile::tempdir().unwrap();
    let [plain, watched, stepped] = ["plain", "watched", "stepped"].map(|name| dir.path().join(name));
    train(&plain, engine, MethodChoice::Trades, &mut ());
    for (path, step_by_step, examples) in [(&watched, false, 6), (&stepped, true, 18)] {
        let mut watcher = Watcher { step_by_step, examples: Vec::new() };
        train(path, engine, MethodChoice::Trades, &mut watcher);
        assert_eq!(watcher.examples.len(), examples);
        wrote_the_same(&plain, path);
    }
}
