//! Two epochs of FAIR-TAT through the real training loop, from the seed to the final weights.

use std::sync::{Arc, Mutex};

use fairtat::config::{Experiment, Schedule};
use fairtat::data::{Dataset, read_npy_u64};
use fairtat::engine::{
    Batch, BatchNormMode, BatchStats, Engine, EngineError, EngineState, Input, LossSpec, Objective, SearchSpec,
    SetAside, SgdStep, View, Views,
};
use fairtat::fairness::TargetDistribution;
use fairtat::model::{Architecture, Network, State};
use fairtat::rng::{Purpose, Stream};
use fairtat::train::methods::{Evidence, FairTat, Method};
use fairtat::train::{Event, Observer, Outcome, RunDir, Splits, Trainer};

use crate::engines::ENGINES;
use crate::golden::{Errors, Golden, wide};

const CLASSES: usize = 4;
const EPOCHS: u32 = 2;

/// What a training batch went through.
#[derive(Debug, Default)]
struct Trained {
    epoch: u32,
    ids: Vec<u32>,
    targets: Vec<u32>,
    epsilon: Vec<f32>,
    delta: Vec<f32>,
    predictions: Vec<u32>,
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
        // Evaluations search in eval mode.
        if spec.batch_norm == BatchNormMode::Train {
            let targets = self.engine.targets(&views)?.unwrap().to_vec();
            let clean = self.engine.read_view(&views, View::Clean)?;
            let adversarial = self.engine.read_view(&views, View::Adversarial)?;
            self.batches.lock().unwrap().push(Trained {
                epoch: batch.epoch,
                ids: batch.ids.to_vec(),
                targets,
                epsilon: spec.epsilon.clone(),
                delta: adversarial.iter().zip(&clean).map(|(a, c)| a - c).collect(),
                predictions: Vec::new(),
            });
        }
        Ok(views)
    }

    fn train_step(&mut self, views: &Views, loss: &LossSpec, sgd: &SgdStep) -> Result<BatchStats, EngineError> {
        let stats = self.engine.train_step(views, loss, sgd)?;
        let predictions = stats.predictions(View::Adversarial).unwrap().to_vec();
        self.batches.lock().unwrap().last_mut().unwrap().predictions = predictions;
        Ok(stats)
    }

    fn logits(&mut self, input: &Input<'_>, mode: BatchNormMode) -> Result<Vec<f32>, EngineError> {
        self.engine.logits(input, mode)
    }

    fn input_gradient(
        &mut self,
        input: &Input<'_>,
        objective: &Objective,
        mode: BatchNormMode,
    ) -> Result<(Vec<f32>, Vec<f32>), EngineError> {
        self.engine.input_gradient(input, objective, mode)
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

fn experiment(golden: &Golden) -> Experiment {
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
    Splits { validation: few.clone().into(), test: few.into(), train: train.into() }
}

#[test]
fn a_fair_tat_run_is_pytorchs_from_seed_to_final_weights() {
    let golden = Golden::load("fair_tat_epoch");
    let network = golden.network(Architecture::SmallCnn, CLASSES);
    let state = golden.state("state");
    for tested in ENGINES {
        let experiment = experiment(&golden);
        let directory = tempfile::tempdir().unwrap();
        let run_dir = RunDir::create(&directory.path().join("run"), &experiment).unwrap();
        let batches = Arc::default();
        let engine =
            Box::new(Recorder { engine: (tested.open)(network.clone(), &state), batches: Arc::clone(&batches) });
        let mut trainer = Trainer::begin_with(experiment.clone(), splits(&golden, &network), engine, run_dir).unwrap();
        let mut losses = Losses::default();
        assert_eq!(trainer.run(&mut losses).unwrap(), Outcome::Finished);

        let mut errors = Errors::of(tested, "run");
        compare_batches(&golden, &batches.lock().unwrap(), &mut errors);
        compare_tables(&golden, &trainer, &losses.0, &mut errors);

        let statistics = trainer.progress().statistics.clone().unwrap();
        let mut method = FairTat::new(&experiment, CLASSES);
        method.plan(EPOCHS, &Evidence { statistics: Some(&statistics), validation: None });
        let next = method.target_distribution().unwrap().probabilities();
        errors.close_f64("pi", next, &wide(golden.floats("epoch.2.pi")));
        errors.close_f64("epsilon", method.class_epsilon(), &wide(golden.floats("epoch.2.epsilon")));
        let model = trainer.engine().state().unwrap().model;
        errors.close_states("final state", &model, &golden.state("final"));
        assert_eq!(model.0.len(), state.0.len());
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
        let (mut targets, mut predictions) = (vec![0; labels.len()], vec![0; labels.len()]);
        let mut delta = vec![0.0; labels.len() * image];
        for batch in of_epoch() {
            for (i, &id) in batch.ids.iter().enumerate() {
                let id = id as usize;
                targets[id] = batch.targets[i];
                predictions[id] = batch.predictions[i];
                delta[id * image..][..image].copy_from_slice(&batch.delta[i * image..][..image]);
                let expected = golden.floats(&key("epsilon"))[labels[id] as usize];
                errors.close("epsilon of an image", &[batch.epsilon[i]], &[expected]);
            }
        }
        assert_eq!(targets, golden.integers::<u32>(&key("targets")));
        assert_eq!(predictions, golden.integers::<u32>(&key("predictions")));
        let expected = golden.floats(&key("delta"));
        assert_eq!(delta.iter().zip(expected).filter(|(a, b)| (**a - **b).abs() > 1e-5).count(), 0, "strayed pixels");
        errors.close("perturbation", &delta, expected);
    }
}

/// What the run tells of each epoch, in its files and to who watches.
fn compare_tables(golden: &Golden, trainer: &Trainer, losses: &[f64], errors: &mut Errors) {
    let (metrics, classes) = trainer.rows();
    let batches = trainer.batches() as usize;
    for epoch in 0..EPOCHS {
        let key = |what: &str| format!("epoch.{epoch}.{what}");
        let file = format!("confusion/epoch-{epoch:04}-train.npy");
        let (shape, counts) = read_npy_u64(&trainer.directory().path().join(file)).unwrap();
        assert_eq!((shape, counts), (vec![CLASSES, CLASSES], golden.integers(&key("confusion"))));
        let row = &metrics[epoch as usize];
        let of_epoch = || classes.iter().filter(|row| row.epoch == epoch);
        let pi: Vec<f64> = of_epoch().map(|row| row.target_probability.unwrap()).collect();
        for (what, found) in [
            ("pi", pi),
            ("epsilon", of_epoch().map(|row| row.epsilon).collect()),
            ("cfps", of_epoch().map(|row| row.cfps).collect()),
            ("robust_accuracy", of_epoch().map(|row| row.train_robust_accuracy).collect()),
            ("train_loss", vec![row.train_loss]),
            ("batch_losses", single_losses(&losses[epoch as usize * batches..][..batches])),
        ] {
            errors.close_f64(what, &found, &wide(golden.floats(&key(what))));
        }
    }
}

/// The loss of each batch from the means up to it; all batches are of one size.
fn single_losses(means: &[f64]) -> Vec<f64> {
    let sum = |batches: usize| if batches == 0 { 0.0 } else { means[batches - 1] * batches as f64 };
    (1..=means.len()).map(|batches| sum(batches) - sum(batches - 1)).collect()
}

/// The parts of a run that need no network, each by itself.
#[test]
fn order_and_targets_are_those_of_the_python_twin() {
    let golden = Golden::load("fair_tat_epoch");
    let (seed, labels) = (golden.integers("seed")[0], golden.integers::<u32>("labels"));
    let ids: Vec<u32> = (0..labels.len() as u32).collect();
    let mut distribution = TargetDistribution::uniform(CLASSES);
    for epoch in 0..EPOCHS {
        let key = |what: &str| format!("epoch.{epoch}.{what}");
        let mut order = ids.clone();
        Stream::new(seed, Purpose::Shuffle, epoch, 0).sequence().shuffle(&mut order);
        assert_eq!(order, golden.integers::<u32>(&key("order")));
        assert_eq!(distribution.sample(&labels, &ids, seed, epoch), golden.integers::<u32>(&key("targets")));
        distribution = TargetDistribution::softmax(&wide(golden.floats(&key("cfps"))), 2.0);
        let expected = wide(golden.floats(&format!("epoch.{}.pi", epoch + 1)));
        Errors::new("targets", 1e-6).close_f64("pi", distribution.probabilities(), &expected);
    }
}
