//! Tests of the worker through requests, updates and files, with small digits on the CPU.

mod cells;
mod evaluation;
mod failures;
mod steering;
mod watching;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::config::{EngineChoice, Experiment};

/// Much longer than any step here takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(120);

/// 160 training images in four batches.
fn experiment() -> Experiment {
    let mut e = Experiment::preset("digits-60s").unwrap();
    e.data.limit = Some(200);
    e.data.test_limit = Some(20);
    e.data.validation_per_class = Some(4);
    e.model.width = Some(4);
    e.attack.steps = 3;
    e.optimizer.epochs = 2;
    e.optimizer.batch_size = 48;
    e.averaging.fawa_threshold = 0.0;
    e.evaluation.eval_steps = 2;
    e.evaluation.test_steps = 2;
    e.run.engine = EngineChoice::Candle;
    e.run.deterministic = true;
    e
}

/// A worker, and all updates from it.
struct Driver {
    woken: Receiver<()>,
    /// Releases a worker that waits until its last update is fetched.
    fetched: Option<Sender<()>>,
    told: Vec<Update>,
    /// Number of updates that a test has seen.
    seen: usize,
    /// Dropped after the channels, because its thread may wait on them.
    worker: Worker,
}

impl Driver {
    fn new() -> Self {
        let (sender, woken) = channel();
        let worker = Worker::spawn(move || sender.send(()).unwrap_or(())).unwrap();
        Self { woken, fetched: None, told: Vec::new(), seen: 0, worker }
    }

    /// A driver whose worker waits until each update is fetched, so that none is replaced by a newer one, however busy
    /// the machine is.
    fn in_step() -> Self {
        let ((sender, woken), (fetched, go_on)) = (channel(), channel());
        let go_on = Mutex::new(go_on);
        let wake = move || {
            if sender.send(()).is_ok() {
                // If the driver is gone, there is nothing to wait for.
                go_on.lock().unwrap().recv().unwrap_or(());
            }
        };
        Self { woken, fetched: Some(fetched), told: Vec::new(), seen: 0, worker: Worker::spawn(wake).unwrap() }
    }

    fn send(&self, request: Request) {
        self.worker.send(request).unwrap();
    }

    fn begin(&self, experiment: Experiment, directory: &Path, paused: bool) {
        let experiment = Box::new(experiment);
        let directory = crate::train::RunDir::at(directory);
        self.send(Request::Begin { experiment, directory, derived: None, paused });
    }

    fn resume(&self, directory: &Path, paused: bool) {
        self.send(Request::Resume { directory: directory.into(), engine: None, paused });
    }

    /// Waits for the next update that `pick` accepts. All updates before it count as seen.
    fn until<T>(&mut self, what: &str, mut pick: impl FnMut(&Update) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.told.extend(self.worker.updates());
            while let Some(update) = self.told.get(self.seen) {
                self.seen += 1;
                if let Some(found) = pick(update) {
                    return found;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.woken.recv_timeout(left).is_ok(), "waited for {what}, got {:?}", self.summary());
            if let Some(fetched) = &self.fetched {
                self.told.extend(self.worker.updates());
                fetched.send(()).unwrap();
            }
        }
    }

    fn until_paused(&mut self) {
        self.until("a pause", |update| matches!(update, Update::Phase(Phase::Paused)).then_some(()));
    }

    fn until_ended(&mut self) -> Ended {
        self.until("the end", |update| match update {
            Update::Ended(ended) => Some(ended.clone()),
            Update::Failed(failure) => panic!("{failure:?}"),
            _ => None,
        })
    }

    fn failure(&mut self) -> Failure {
        self.until("a failure", |update| match update {
            Update::Failed(failure) => Some(failure.clone()),
            _ => None,
        })
    }

    fn opened(&mut self) -> RunInfo {
        self.until("an open run", |update| match update {
            Update::Opened(info) => Some((**info).clone()),
            Update::Failed(failure) => panic!("{failure:?}"),
            _ => None,
        })
    }

    /// All updates so far that `pick` accepts.
    fn all<T>(&self, pick: impl FnMut(&Update) -> Option<T>) -> Vec<T> {
        self.told.iter().filter_map(pick).collect()
    }

    fn batches(&self) -> Vec<BatchPoint> {
        self.all(|update| if let Update::Batch(point) = update { Some(point.clone()) } else { None })
    }

    fn examples(&self) -> Vec<Arc<Examples>> {
        self.all(|update| if let Update::Examples(examples) = update { Some(examples.clone()) } else { None })
    }

    fn summary(&self) -> Vec<String> {
        self.told.iter().map(|update| format!("{update:?}").chars().take(80).collect()).collect()
    }
}

fn run_in(dir: &tempfile::TempDir) -> PathBuf {
    dir.path().join("run")
}

#[test]
fn a_run_goes_from_beginning_to_report() {
    let dir = tempfile::tempdir().unwrap();
    let mut driver = Driver::in_step();
    driver.begin(experiment(), &run_in(&dir), false);
    let info = driver.opened();
    assert_eq!((info.train.len(), info.validation.len(), info.test.len()), (160, 40, 20));
    assert_eq!(info.experiment.as_ref(), &experiment());
    assert!(info.history.is_empty() && info.checkpoints.is_empty() && info.engine.contains("candle"));
    let Ended::Finished(report) = driver.until_ended() else { panic!("not finished") };
    assert_eq!(report.weights.len(), 2);
    driver.until("idleness", |update| matches!(update, Update::Phase(Phase::Idle)).then_some(()));

    let batches = driver.batches();
    assert_eq!(batches.len(), 8);
    let last = &batches[7];
    assert_eq!((last.epoch, last.epochs, last.done, last.batches, last.images), (1, 2, 4, 4, 40));
    assert_eq!(last.position(), 2.0);
    assert!(last.seconds[0] >= last.seconds[1] && last.seconds[1] > 0.0 && last.seconds[2] > 0.0);
    assert_eq!((last.epsilon.len(), last.targets.as_ref().unwrap().len()), (10, 10));
    assert_eq!(last.epsilon, last.rule);
    let epochs = driver.all(|update| if let Update::Epoch(epoch) = update { Some((**epoch).clone()) } else { None });
    assert_eq!(epochs.len(), 2);
    assert_eq!((epochs[1].classes.len(), epochs[1].metrics.epoch), (10, 1));
    assert_eq!(epochs[1].train.as_ref().unwrap().total(), 160);
    assert_eq!(epochs[1].validation.as_ref().unwrap().total(), 40);
    let checkpoints = driver.all(|update| if let Update::Checkpoint(at) = update { Some(*at) } else { None });
    assert_eq!(checkpoints, [1.0, 2.0]);
    let phases = driver.all(|update| if let Update::Phase(phase) = update { Some(phase.describe()) } else { None });
    for phase in ["loading data", "opening the engine, compiling shaders", "attack", "saving"] {
        assert!(phases.iter().any(|told| told == phase), "{phase}: {phases:?}");
    }
    assert!(phases.iter().any(|told| told.starts_with("evaluating PGD-2")), "{phases:?}");
    assert!(driver.examples().is_empty(), "no examples were requested");
    assert!(run_in(&dir).join("evaluation.json").exists() && run_in(&dir).join("figures/cfps.png").exists());
}

#[test]
fn dropping_the_handle_saves_at_once_and_the_run_can_be_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let mut e = experiment();
    e.optimizer.epochs = 500;
    let mut driver = Driver::new();
    driver.begin(e, &run_in(&dir), false);
    driver.until("six batches", |update| matches!(update, Update::Batch(p) if p.position() > 1.4).then_some(()));
    let clock = Instant::now();
    drop(driver);
    assert!(clock.elapsed() < Duration::from_secs(5), "{:?}", clock.elapsed());

    let mut driver = Driver::new();
    driver.resume(&run_in(&dir), true);
    let info = driver.opened();
    assert!(!info.history.is_empty());
    let epochs: Vec<u32> = info.history.iter().map(|epoch| epoch.metrics.epoch).collect();
    assert_eq!(epochs, (0..epochs.len() as u32).collect::<Vec<_>>());
    assert!(info.history.iter().all(|epoch| epoch.train.is_some() && epoch.validation.is_some()));
    assert!(*info.checkpoints.last().unwrap() > 1.4, "{:?}", info.checkpoints);
    driver.until_paused();
    driver.send(Request::OneBatch);
    let first = driver.until("a batch", |u| if let Update::Batch(point) = u { Some(point.clone()) } else { None });
    let went_on = first.position() - 0.25;
    assert!((went_on - info.checkpoints.last().unwrap()).abs() < 1e-9, "{went_on} {:?}", info.checkpoints);
    driver.send(Request::Stop { save: false });
    assert!(matches!(driver.until_ended(), Ended::Discarded));
}
