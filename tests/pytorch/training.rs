//! Two epochs through the real training loop, with a record of every batch.

use std::sync::{Arc, Mutex};

use fairtat::config::{Experiment, Schedule};
use fairtat::data::{Dataset, read_npy_u64};
use fairtat::engine::{
    Batch, BatchNormMode, BatchStats, Engine, EngineError, EngineState, GradientScale, Input, LossSpec, Objective,
    SearchSpec, SetAside, SgdStep, Start, View, Views,
};
use fairtat::model::{Architecture, Network, State};
use fairtat::rng::Purpose;
use fairtat::train::{ClassRow, Event, Observer, Outcome, RunDir, Splits, Trainer};

use crate::engines::Tested;
use crate::golden::{Errors, Golden, wide};

pub(crate) const CLASSES: usize = 4;
pub(crate) const EPOCHS: u32 = 2;

/// What a training batch went through.
#[derive(Debug, Default)]
pub(crate) struct Trained {
    epoch: u32,
    ids: Vec<u32>,
    targets: Option<Vec<u32>>,
    epsilon: Vec<f32>,
    delta: Vec<f32>,
    predictions: Vec<u32>,
    /// Momentum after the step, of the first batch only.
    pub(crate) momentum: Option<State>,
}

/// An engine that writes down what the training loop asks of another one.
struct Recorder {
    engine: Box<dyn Engine>,
    batches: Arc<Mutex<Vec<Trained>>>,
}

impl Engine for Recorder {
    fn name(&self) -> String {
        self.engine.name()
    }

    fn describe(&self) -> String {
        self.engine.describe()
    }

    fn network(&self) -> &Network {
        self.engine.network()
    }

    fn perturb(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError> {
        let views = self.engine.perturb(batch, spec)?;
        // Evaluations start elsewhere.
        let (Start::Uniform { purpose, .. } | Start::Normal { purpose, .. }) = spec.start else { return Ok(views) };
        if purpose == Purpose::AttackStart {
            let targets = self.engine.targets(&views)?.map(<[u32]>::to_vec);
            let clean = self.engine.read_view(&views, View::Clean)?;
            let adversarial = self.engine.read_view(&views, View::Adversarial)?;
            self.batches.lock().unwrap().push(Trained {
                epoch: batch.epoch,
                ids: batch.ids.to_vec(),
                targets,
                epsilon: spec.epsilon.clone(),
                delta: adversarial.iter().zip(&clean).map(|(a, c)| a - c).collect(),
                ..Trained::default()
            });
        }
        Ok(views)
    }

    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError> {
        let stats = self.engine.train_step(views, loss, sgd)?;
        let predictions = stats.predictions(View::Adversarial).unwrap().to_vec();
        let mut batches = self.batches.lock().unwrap();
        let momentum = if batches.len() == 1 { Some(self.engine.state()?.momentum) } else { None };
        let batch = batches.last_mut().unwrap();
        (batch.predictions, batch.momentum) = (predictions, momentum);
        Ok(stats)
    }

    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        self.engine.logits(input, mode)
    }

    fn scaled_input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        scale: GradientScale,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        self.engine.scaled_input_gradient(input, objective, scale, mode)
    }

    fn begin(&mut self, batch: &Batch<'_>, spec: &SearchSpec) -> Result<Views, EngineError> {
        self.engine.begin(batch, spec)
    }

    fn advance(&mut self, views: &Views, steps: u32) -> Result<(), EngineError> {
        self.engine.advance(views, steps)
    }

    fn set_aside(&mut self, views: &Views) -> Result<SetAside, EngineError> {
        self.engine.set_aside(views)
    }

    fn take_up(&mut self, search: &SetAside) -> Result<Views, EngineError> {
        self.engine.take_up(search)
    }

    fn targets(&mut self, views: &Views) -> Result<Option<&[u32]>, EngineError> {
        self.engine.targets(views)
    }

    fn without_gradient(&self, views: &Views) -> Result<&[bool], EngineError> {
        self.engine.without_gradient(views)
    }

    fn read_view(&mut self, views: &Views, view: View) -> Result<Vec<f32>, EngineError> {
        self.engine.read_view(views, view)
    }

    fn state(&mut self) -> Result<EngineState, EngineError> {
        self.engine.state()
    }

    fn running_statistics(&mut self) -> Result<State, EngineError> {
        self.engine.running_statistics()
    }

    fn load_running_statistics(&mut self, running: &State) -> Result<(), EngineError> {
        self.engine.load_running_statistics(running)
    }

    fn load_model(&mut self, model: &State) -> Result<(), EngineError> {
        self.engine.load_model(model)
    }

    fn load_state(&mut self, state: &EngineState) -> Result<(), EngineError> {
        self.engine.load_state(state)
    }
}

/// The mean loss of each epoch after each of its batches.
#[derive(Debug, Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn event(&mut self, event: &Event<'_>) {
        if let Event::Batch { loss, .. } = event {
            self.0.push(*loss);
        }
    }
}

/// What the file's run was made with, but for the method.
pub(crate) fn experiment(golden: &Golden) -> Experiment {
    let mut experiment = Experiment::default();
    experiment.model.arch = Architecture::SmallCnn;
    experiment.model.width = Some(golden.integers("width")[0]);
    experiment.fairness.clean_passes = 0;
    experiment.optimizer.epochs = EPOCHS;
    experiment.optimizer.batch_size = golden.integers("batch")[0];
    experiment.optimizer.lr = golden.floats("lr")[0].into();
    // Stays constant for the first ten epochs.
    experiment.optimizer.schedule = Schedule::Steplr;
    experiment.run.seed = golden.integers("seed")[0];
    experiment
}

fn splits(golden: &Golden, network: &Network) -> Splits {
    let names = (0..CLASSES).map(|k| format!("class {k}")).collect();
    let (images, labels) = (golden.bytes("images").to_vec(), golden.integers("labels"));
    let train = Dataset::new("golden", names, network.input, images, labels).unwrap();
    let few = train.select(&[0, 1, 2, 3]).unwrap();
    let validation = if golden.has("validation_images") {
        let (images, labels) = (golden.bytes("validation_images"), golden.integers("validation_labels"));
        Dataset::new("golden", train.class_names().to_vec(), network.input, images.to_vec(), labels).unwrap()
    } else {
        few.clone()
    };
    Splits { validation: validation.into(), test: few.into(), train: train.into(), notes: Vec::new() }
}

/// A finished run.
pub(crate) struct Run {
    pub(crate) trainer: Trainer,
    pub(crate) batches: Vec<Trained>,
    losses: Vec<f64>,
    _directory: tempfile::TempDir,
}

impl Run {
    /// Trains the file's network as `experiment` says.
    pub(crate) fn of(golden: &Golden, experiment: &Experiment, tested: Tested) -> Self {
        let network = golden.network(Architecture::SmallCnn, CLASSES);
        let directory = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(&directory.path().join("run"), experiment).unwrap();
        let batches = Arc::default();
        let engine = (tested.open)(network.clone(), &golden.state("state"));
        let engine = Box::new(Recorder { engine, batches: Arc::clone(&batches) });
        let mut trainer = Trainer::begin_with(experiment.clone(), splits(golden, &network), engine, run_dir).unwrap();
        let mut losses = Losses::default();
        assert_eq!(trainer.run(&mut losses).unwrap(), Outcome::Finished);
        let batches = std::mem::take(&mut *batches.lock().unwrap());
        Self { trainer, batches, losses: losses.0, _directory: directory }
    }

    /// Compares batches, confusions, losses, radii and the final state.
    pub(crate) fn compare(&mut self, golden: &Golden, errors: &mut Errors) {
        compare_batches(golden, &self.batches, errors);
        let batches = self.trainer.batches() as usize;
        for epoch in 0..EPOCHS {
            let key = |what: &str| format!("epoch.{epoch}.{what}");
            let file = format!("confusion/epoch-{epoch:04}-train.npy");
            let (shape, counts) = read_npy_u64(&self.trainer.directory().path().join(file)).unwrap();
            assert_eq!((shape, counts), (vec![CLASSES, CLASSES], golden.integers(&key("confusion"))));
            let losses = single_losses(&self.losses[epoch as usize * batches..][..batches]);
            errors.close_f64("batch losses", &losses, &wide(golden.floats(&key("batch_losses"))));
            let radii: Vec<f64> = self.rows(epoch).map(|row| row.epsilon).collect();
            errors.close_f64("epsilon", &radii, &wide(golden.floats(&key("epsilon"))));
        }
        let (found, expected) = (self.trainer.engine().state().unwrap().model, golden.state("final"));
        errors.close_states("final state", &found, &expected);
        assert_eq!(found.0.len(), expected.0.len());
    }

    /// What `classes.csv` says of an epoch.
    pub(crate) fn rows(&self, epoch: u32) -> impl Iterator<Item = &ClassRow> {
        self.trainer.rows().1.iter().filter(move |row| row.epoch == epoch)
    }
}

/// What went in and out of the engine, image by image.
fn compare_batches(golden: &Golden, batches: &[Trained], errors: &mut Errors) {
    let labels: Vec<u32> = golden.integers("labels");
    let image = golden.bytes("images").len() / labels.len();
    for epoch in 0..EPOCHS {
        let key = |what: &str| format!("epoch.{epoch}.{what}");
        let of_epoch = || batches.iter().filter(|b| b.epoch == epoch);
        let order: Vec<u32> = of_epoch().flat_map(|b| b.ids.clone()).collect();
        assert_eq!(order, golden.integers::<u32>(&key("order")));
        let targeted = golden.has(&key("targets"));
        let (mut targets, mut predictions) = (vec![0; labels.len()], vec![0; labels.len()]);
        let mut delta = vec![0.0; labels.len() * image];
        for batch in of_epoch() {
            for (i, &id) in batch.ids.iter().enumerate() {
                let id = id as usize;
                assert_eq!(batch.targets.is_some(), targeted);
                if let Some(of_batch) = &batch.targets {
                    targets[id] = of_batch[i];
                }
                predictions[id] = batch.predictions[i];
                delta[id * image..][..image].copy_from_slice(&batch.delta[i * image..][..image]);
                let expected = golden.floats(&key("epsilon"))[labels[id] as usize];
                errors.close("epsilon of an image", &[batch.epsilon[i]], &[expected]);
            }
        }
        if targeted {
            assert_eq!(targets, golden.integers::<u32>(&key("targets")));
        }
        assert_eq!(predictions, golden.integers::<u32>(&key("predictions")));
        let expected = golden.floats(&key("delta"));
        assert_eq!(delta.iter().zip(expected).filter(|(a, b)| (**a - **b).abs() > 1e-5).count(), 0, "strayed pixels");
        errors.close("perturbation", &delta, expected);
    }
}

/// The loss of each batch from the means up to it; all batches are of one size.
fn single_losses(means: &[f64]) -> Vec<f64> {
    let sum = |batches: usize| if batches == 0 { 0.0 } else { means[batches - 1] * batches as f64 };
    (1..=means.len()).map(|batches| sum(batches) - sum(batches - 1)).collect()
}
