//! Networks that are certain of every image, and networks without a gradient.

use fairtat::attack::{Attack, measure};
use fairtat::data::{Dataset, ImageShape};
use fairtat::engine::wgsl::{WgslEngine, WgslOptions};
use fairtat::engine::{
    Batch, BatchNormMode, Engine, Input, LossSpec, Norm, Objective, SearchSpec, SgdStep, Start, View, loss,
};
use fairtat::model::{Architecture, Network, State};
use fairtat::rng::Purpose;
use fairtat::units::Epsilon;

use super::{CLASSES, patches};
use crate::engines::{ENGINES, Tested};
use crate::passes::no_search;

/// `state` with logits multiplied by `factor`: the same predictions with larger margins.
fn certain(state: &State, factor: f32) -> State {
    let mut state = state.clone();
    for name in ["linear.weight", "linear.bias"] {
        state.0.get_mut(name).unwrap().data.iter_mut().for_each(|v| *v *= factor);
    }
    state
}

/// A small network after some steps on `set`.
fn learned(tested: Tested, set: &Dataset) -> Box<dyn Engine> {
    let network = Architecture::DigitsCnn.build(set.shape(), set.classes(), Some((&[0.45], &[0.2])), Some(4));
    let mut engine = (tested.open)(network.clone(), &State::initialise(&network, 3));
    let ids: Vec<u32> = (0..set.len() as u32).collect();
    let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 0, epoch: 0 };
    let views = engine.perturb(&batch, &no_search(set.len())).unwrap();
    let sgd = SgdStep { lr: 0.05, momentum: 0.9, weight_decay: 0.0, nesterov: false };
    for _ in 0..20 {
        engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &sgd).unwrap();
    }
    engine
}

/// Share of images that are still classified correctly after ten steps. Every image has a gradient in each step.
fn robust(engine: &mut dyn Engine, set: &Dataset, objective: &Objective, norm: Norm, epsilon: f32) -> f64 {
    let n = set.len();
    let ids: Vec<u32> = (0..n as u32).collect();
    let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 1, epoch: 0 };
    let spec = SearchSpec {
        objective: objective.clone(),
        norm,
        epsilon: vec![epsilon; n],
        step_size: vec![epsilon / 4.0; n],
        steps: 10,
        start: Start::Uniform { purpose: Purpose::Test, epoch: 0 },
        batch_norm: BatchNormMode::Eval,
        ..SearchSpec::default()
    };
    let views = engine.perturb(&batch, &spec).unwrap();
    let without = engine.without_gradient(&views).unwrap().iter().filter(|without| **without).count();
    assert_eq!(without, 0, "{objective:?}, {norm:?}");
    let logits = engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval).unwrap();
    let predictions = logits.chunks(set.classes()).map(loss::argmax);
    predictions.zip(set.labels()).filter(|(prediction, label)| prediction == *label).count() as f64 / n as f64
}

/// Images whose gradient of the cross-entropy is zero in `f32`.
fn true_gradients_that_vanish(engine: &mut dyn Engine, set: &Dataset) -> usize {
    let ids: Vec<u32> = (0..set.len() as u32).collect();
    let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 1, epoch: 0 };
    let input = Input::Batch(&batch);
    let (_, gradient) = engine.input_gradient(&input, &Objective::CrossEntropy, BatchNormMode::Eval).unwrap();
    gradient.chunks(set.shape().len()).filter(|gradient| gradient.iter().all(|g| *g == 0.0)).count()
}

const FACTORS: [f32; 4] = [1.0, 50.0, 1e3, 1e6];
const BALLS: [(Norm, f32); 2] = [(Norm::Linf, 12.0 / 255.0), (Norm::L2, 0.25)];

/// Robust accuracy of a network with its own logits and with logits times [`FACTORS`], for each objective and ball.
fn accuracies(tested: Tested, classes: usize) -> Vec<(String, Vec<f64>)> {
    let with_classes = |set: Dataset| {
        let labels = set.labels().iter().map(|label| label % classes as u32).collect();
        let names = (0..classes).map(|k| k.to_string()).collect();
        Dataset::new("patches", names, set.shape(), set.images().to_vec(), labels).unwrap()
    };
    let mut engine = learned(tested, &with_classes(patches(60, 5)));
    let (state, set) = (engine.state().unwrap().model, with_classes(patches(200, 6)));
    let targets = set.labels().iter().map(|label| (label + 1) % classes as u32).collect();
    let mut objectives = vec![Objective::CrossEntropy, Objective::Targeted(targets), Objective::KlToClean];
    if classes > 2 {
        objectives.push(Objective::Dlr);
    }
    let mut found: Vec<(String, Vec<f64>)> = Vec::new();
    for factor in FACTORS {
        engine.load_model(&certain(&state, factor)).unwrap();
        if factor == 1e6 {
            // A search along these gradients would hardly move.
            assert!(true_gradients_that_vanish(engine.as_mut(), &set) > 180);
        }
        let searches = BALLS.iter().flat_map(|ball| objectives.iter().map(move |what| (what, *ball)));
        for (i, (what, (norm, epsilon))) in searches.enumerate() {
            if found.len() == i {
                let objective = match what {
                    Objective::Targeted(_) => "targeted".into(),
                    other => format!("{other:?}"),
                };
                found.push((format!("{}, {classes} classes, {norm:?}, {objective}", tested.name), Vec::new()));
            }
            found[i].1.push(robust(engine.as_mut(), &set, what, norm, epsilon));
        }
    }
    found.iter().for_each(|(what, accuracies)| println!("{what}: {accuracies:?} with logits times {FACTORS:?}"));
    found
}

fn apart(accuracies: &[f64]) -> f64 {
    let (low, high) = accuracies.iter().fold((1.0f64, 0.0f64), |(low, high), a| (low.min(*a), high.max(*a)));
    high - low
}

/// With two classes, the direction of the gradient does not depend on the scale of the logits.
#[test]
fn the_size_of_the_logits_changes_nothing_between_two_classes() {
    for tested in ENGINES {
        for (what, accuracies) in accuracies(tested, 2) {
            assert!((0.05..0.95).contains(&accuracies[0]) && apart(&accuracies) <= 0.02, "{what}: {accuracies:?}");
        }
    }
}

/// With several classes, the gradient approaches that of the two most likely ones as the logits grow: a different
/// direction, but here not a weaker one. If gradients vanished, accuracy would rise to that without an attack. DLR does
/// not depend on the scale.
#[test]
fn the_size_of_the_logits_hides_nothing_from_an_attack() {
    for tested in ENGINES {
        for (what, accuracies) in accuracies(tested, CLASSES) {
            let most = if what.ends_with("Dlr") { apart(&accuracies) } else { 0.0 };
            let above = accuracies.iter().fold(0.0, |most: f64, accuracy| most.max(accuracy - accuracies[0]));
            assert!((0.05..0.95).contains(&accuracies[0]), "{what}: {accuracies:?}");
            assert!(most <= 0.02 && above <= 0.02, "{what}: {accuracies:?}");
        }
    }
}

/// A network whose first ReLU outputs zero for dark images.
fn blind_to_dark() -> (Network, State) {
    let shape = ImageShape::new(1, 8, 8);
    let network = Architecture::DigitsCnn.build(shape, CLASSES, Some((&[0.0], &[1.0])), Some(4));
    let mut state = State::initialise(&network, 3);
    for (name, array) in &mut state.0 {
        if name.starts_with("conv") {
            array.data.fill(0.1);
        }
        if name == "bn1.bias" {
            array.data.fill(-0.3);
        }
    }
    (network, state)
}

#[test]
fn images_without_a_gradient_are_counted_and_no_others() {
    const N: usize = 25;
    let (network, state) = blind_to_dark();
    let dark = |i: usize| [1, 9, 24].contains(&i);
    let pixels: Vec<u8> = (0..N * 64).map(|i| if dark(i / 64) { 10 } else { 180 }).collect();
    let (labels, ids): (Vec<u32>, Vec<u32>) = (0..N as u32).map(|i| (i % CLASSES as u32, i)).unzip();
    let batch = Batch { pixels: &pixels, labels: &labels, ids: &ids, augment: None, seed: 1, epoch: 0 };
    let cut = WgslOptions {
        adapter: std::env::var("FAIRTAT_TEST_ADAPTER").ok(),
        pipelines: None,
        binding_limit: Some(16_384),
        ..Default::default()
    };
    let cut = WgslEngine::new(network.clone(), &state, &cut).unwrap();
    assert!(cut.ranges(N).unwrap().len() > 2);
    let mut engines: Vec<Box<dyn Engine>> = vec![Box::new(cut)];
    engines.extend(ENGINES.map(|tested| (tested.open)(network.clone(), &state)));
    for mut engine in engines {
        let name = engine.name();
        for norm in [Norm::Linf, Norm::L2] {
            let spec = |steps, objective: &Objective| SearchSpec {
                objective: objective.clone(),
                norm,
                epsilon: vec![0.02; N],
                step_size: vec![0.01; N],
                steps,
                start: Start::Zero,
                batch_norm: BatchNormMode::Eval,
                ..SearchSpec::default()
            };
            let mut counted = |steps, objective| {
                let views = engine.perturb(&batch, &spec(steps, &objective)).unwrap();
                engine.without_gradient(&views).unwrap().to_vec()
            };
            let expected: Vec<bool> = (0..N).map(dark).collect();
            for objective in [Objective::CrossEntropy, Objective::Targeted(vec![0; N]), Objective::Dlr] {
                for steps in [1, 3] {
                    assert_eq!(counted(steps, objective.clone()), expected, "{name} {norm:?} {objective:?}");
                }
                // Results of an earlier search must not persist.
                assert_eq!(counted(0, objective), [false; N], "{name}");
            }
            // At the clean image, the gradient of the divergence from it is zero.
            assert_eq!(counted(1, Objective::KlToClean), [true; N], "{name} {norm:?}");
        }
        // Constant logits: two random draws for every image, neither of which moves it.
        let mut constant = state.clone();
        constant.0.get_mut("linear.weight").unwrap().data.fill(0.0);
        engine.load_model(&constant).unwrap();
        let pgd = Attack { restarts: 2, ..Attack::pgd(Epsilon::levels(8.0), Epsilon::levels(2.0), 2, Norm::L2, 1) };
        let found = pgd.predictions(engine.as_mut(), &batch).unwrap();
        assert_eq!(found.without_gradient, [true; N], "{name}");
        assert!(found.predictions.iter().all(|class| *class == found.predictions[0]));
        let clean = Attack::clean().predictions(engine.as_mut(), &batch).unwrap();
        assert_eq!(clean.without_gradient, [false; N]);
        // Each image is counted once, independent of the batches.
        let names = (0..CLASSES).map(|k| k.to_string()).collect();
        let set = Dataset::new("dark", names, network.input, pixels.clone(), labels.clone()).unwrap();
        engine.load_model(&state).unwrap();
        let pgd =
            Attack { random_start: false, ..Attack::pgd(Epsilon::levels(4.0), Epsilon::levels(2.0), 2, Norm::Linf, 1) };
        let measured = measure(engine.as_mut(), &set, &pgd, 7, &mut |_, _| true).unwrap().unwrap();
        assert_eq!((measured.without_gradient, measured.report(&[]).images_without_gradient), (3, 3), "{name}");
    }
}
