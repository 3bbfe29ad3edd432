//! All methods on batches of two images and on batches of a single class: results are finite, and the engines agree.

use fairtat::config::Experiment;
use fairtat::engine::{Batch, BatchNormMode, Engine, EngineState, Input, SgdStep, View};
use fairtat::fairness::ClassStats;
use fairtat::model::Architecture;
use fairtat::train::methods::{self, ClassCosts, Evidence, Memory, Radii, ValidationCounts};

use crate::engines::ENGINES;
use crate::golden::{Errors, Golden};
use crate::methods::RUNS;
use crate::training::{CLASSES, EPOCHS};

/// What two epochs of one batch leave.
#[derive(Debug, Default)]
struct Left {
    losses: Vec<f64>,
    perturbations: Vec<f32>,
    factors: Vec<f64>,
    shown: Vec<f64>,
    epsilon: Vec<f64>,
    state: EngineState,
}

/// Trains two epochs of one batch; the second adapts to the first.
fn train(engine: &mut dyn Engine, experiment: &Experiment, pixels: &[u8], labels: &[u32], ids: &[u32]) -> Left {
    let mut method = methods::build(experiment, CLASSES);
    let (mut left, mut sums) = (Left::default(), Memory::default());
    let (mut statistics, mut validation) = (None, None);
    for epoch in 0..EPOCHS {
        let seen = Evidence { statistics: statistics.as_ref(), validation: validation.as_ref(), sums: Some(&sums) };
        method.plan(epoch, &seen);
        let batch = Batch { pixels, labels, ids, augment: None, seed: 1, epoch };
        let spec = method.search(&batch, &Radii(method.class_epsilon().to_vec()));
        let views = engine.perturb(&batch, &spec).unwrap();
        let [clean, adversarial] = [View::Clean, View::Adversarial].map(|view| engine.read_view(&views, view).unwrap());
        left.perturbations.extend(adversarial.iter().zip(&clean).map(|(a, c)| a - c));
        let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
        let stats = engine.train_step(&views, &method.loss(&batch), &sgd).unwrap();
        sums = Memory::default();
        method.observe(&batch, &stats, &mut sums);
        left.losses.push(stats.loss);
        left.factors.extend(&stats.class_factors);
        left.shown.extend(method.shown(&sums).iter().flat_map(|series| series.values.clone()));
        left.epsilon.extend(method.class_epsilon());
        // The batch stands for the validation split, too.
        let mut counted = ClassStats::new(CLASSES);
        counted.robust.add_all(labels, stats.predictions(View::Adversarial).unwrap());
        let mut logits = |view| engine.logits(&Input::View(&views, view), BatchNormMode::Eval).unwrap();
        let mut costs = ClassCosts::new(CLASSES);
        costs.add(labels, &logits(View::Clean), &logits(View::Adversarial));
        let (clean, robust) = (counted.robust.clone(), counted.robust.clone());
        validation = Some(ValidationCounts { clean, robust, costs: Some(costs) });
        statistics = Some(counted);
    }
    left.state = engine.state().unwrap();
    left
}

/// Labels of two images, of two of one class, and of six of one class.
const LABELS: [&[u32]; 3] = [&[0, 3], &[2, 2], &[1; 6]];

#[test]
fn small_batches_and_batches_of_one_class_are_no_problem() {
    let golden = Golden::load("trades");
    let network = golden.network(Architecture::SmallCnn, CLASSES);
    let start = golden.state("state");
    let of_all = golden.integers::<u32>("labels");
    for labels in LABELS {
        let mut free: Vec<u32> = (0..of_all.len() as u32).collect();
        let mut take = |label: &u32| free.remove(free.iter().position(|id| of_all[*id as usize] == *label).unwrap());
        let ids: Vec<u32> = labels.iter().map(&mut take).collect();
        let image = network.input.len();
        let pixels: Vec<u8> =
            ids.iter().flat_map(|id| &golden.bytes("images")[*id as usize * image..][..image]).copied().collect();
        let mut engines = ENGINES.map(|tested| (tested, (tested.open)(network.clone(), &start)));
        let fresh = engines[0].1.state().unwrap();
        for (name, change) in RUNS {
            let mut experiment = Experiment::default();
            change(&mut experiment);
            let found = engines.each_mut().map(|(_, engine)| {
                engine.load_state(&fresh).unwrap();
                train(engine.as_mut(), &experiment, &pixels, labels, &ids)
            });
            let [reference, others @ ..] = &found;
            let finite = |state: &EngineState| {
                let arrays = state.model.0.values().chain(state.momentum.0.values());
                arrays.flat_map(|array| &array.data).all(|v| v.is_finite())
            };
            assert!(finite(&reference.state), "{name}, {labels:?}");
            for (other, (tested, _)) in others.iter().zip(&engines[1..]) {
                let mut errors = Errors::new(format!("{}, {name}, {labels:?}", tested.name), tested.tolerance);
                errors.close_f64("losses", &other.losses, &reference.losses);
                errors.close("perturbations", &other.perturbations, &reference.perturbations);
                errors.close_f64("factors", &other.factors, &reference.factors);
                errors.close_f64("class-wise values", &other.shown, &reference.shown);
                errors.close_f64("epsilon", &other.epsilon, &reference.epsilon);
                errors.close_states("state", &other.state.model, &reference.state.model);
            }
        }
    }
}
