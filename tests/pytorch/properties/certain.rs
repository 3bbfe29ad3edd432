//! Networks that are certain of every image, and networks without a gradient.

use fairtat::attack::{Attack, measure};
use fairtat::data::{Dataset, ImageShape};
use fairtat::engine::wgsl::{WgslEngine, WgslOptions};
use fairtat::engine::{Batch, BatchNormMode, Engine, Input, Norm, Objective, PerturbSpec, Start, View, loss};
use fairtat::model::{Architecture, Network, State};
use fairtat::rng::Purpose;
use fairtat::units::Epsilon;

use super::{CLASSES, patches, trained};
use crate::engines::ENGINES;

/// `state` with logits `factor` times as large: the same predictions, with larger margins.
fn certain(state: &State, factor: f32) -> State {
    let mut state = state.clone();
    for name in ["linear.weight", "linear.bias"] {
        state.0.get_mut(name).unwrap().data.iter_mut().for_each(|v| *v *= factor);
    }
    state
}

/// Share of images still predicted right after a search.
fn robust(engine: &mut dyn Engine, set: &Dataset, objective: &Objective, norm: Norm, epsilon: f32) -> f64 {
    let n = set.len();
    let ids: Vec<u32> = (0..n as u32).collect();
    let batch = Batch { pixels: set.images(), labels: set.labels(), ids: &ids, augment: None, seed: 1, epoch: 0 };
    let spec = PerturbSpec {
        objective: objective.clone(),
        norm,
        epsilon: vec![epsilon; n],
        step_size: vec![epsilon / 4.0; n],
        steps: 10,
        start: Start::Uniform { purpose: Purpose::Test, epoch: 0 },
        batch_norm: BatchNormMode::Eval,
    };
    let views = engine.perturb(&batch, &spec).unwrap();
    assert!(engine.without_gradient(&views).unwrap().iter().all(|without| !without));
    let logits = engine.logits(&Input::View(&views, View::Adversarial), BatchNormMode::Eval).unwrap();
    let right = logits.chunks(CLASSES).zip(set.labels()).filter(|(z, label)| loss::argmax(z) == **label).count();
    right as f64 / n as f64
}

#[test]
fn the_size_of_the_logits_hides_nothing_from_an_attack() {
    for tested in ENGINES {
        let (mut engine, _) = trained(tested);
        let (state, set) = (engine.state().unwrap().model, patches(300, 6));
        let targets = set.labels().iter().map(|label| (label + 1) % CLASSES as u32).collect();
        let objectives = [Objective::Targeted(targets), Objective::KlToClean, Objective::Dlr];
        for (norm, epsilon) in [(Norm::Linf, 12.0 / 255.0), (Norm::L2, 0.25)] {
            let radius = f64::from(epsilon);
            let [radius, step] = [radius, radius / 4.0].map(|distance| Epsilon::new(distance).unwrap());
            let pgd = Attack::pgd(radius, step, 20, norm, 7);
            let mut unscaled: Vec<f64> = Vec::new();
            for factor in [1.0, 50.0, 1e3, 1e6] {
                engine.load_model(&certain(&state, factor)).unwrap();
                let measured = measure(engine.as_mut(), &set, &pgd, 100, &mut |_, _| true).unwrap().unwrap();
                assert_eq!(measured.without_gradient, 0);
                let mut found = vec![measured.confusion.accuracy()];
                found.extend(objectives.iter().map(|what| robust(engine.as_mut(), &set, what, norm, epsilon)));
                println!("{}, {norm:?}, logits times {factor}: {found:?}", tested.name);
                if unscaled.is_empty() {
                    assert!(found.iter().all(|accuracy| (0.1..0.9).contains(accuracy)), "{found:?}");
                    unscaled = found;
                } else {
                    let apart = |(a, b): (&f64, &f64)| (a - b).abs();
                    let most = found.iter().zip(&unscaled).map(apart).fold(0.0, f64::max);
                    assert!(most <= 0.02, "{} {norm:?}, logits times {factor}: {found:?} {unscaled:?}", tested.name);
                }
            }
        }
    }
}

/// A network whose first ReLU lets nothing of a dark image through.
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
    const N: usize = 11;
    let (network, state) = blind_to_dark();
    let dark = |i: usize| [1, 4, 10].contains(&i);
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
            let spec = |steps, objective: &Objective| PerturbSpec {
                objective: objective.clone(),
                norm,
                epsilon: vec![0.02; N],
                step_size: vec![0.01; N],
                steps,
                start: Start::Zero,
                batch_norm: BatchNormMode::Eval,
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
                // What an earlier search left is forgotten.
                assert_eq!(counted(0, objective), [false; N], "{name}");
            }
            // At the clean image the divergence from it has no slope.
            assert_eq!(counted(1, Objective::KlToClean), [true; N], "{name} {norm:?}");
        }
        // Logits that depend on nothing: two draws for every image, none of which moves it.
        let mut constant = state.clone();
        constant.0.get_mut("linear.weight").unwrap().data.fill(0.0);
        engine.load_model(&constant).unwrap();
        let pgd = Attack { restarts: 2, ..Attack::pgd(Epsilon::levels(8.0), Epsilon::levels(2.0), 2, Norm::L2, 1) };
        let found = pgd.predictions(engine.as_mut(), &batch).unwrap();
        assert_eq!(found.without_gradient, [true; N], "{name}");
        assert!(found.predictions.iter().all(|class| *class == found.predictions[0]));
        let clean = Attack::clean().predictions(engine.as_mut(), &batch).unwrap();
        assert_eq!(clean.without_gradient, [false; N]);
    }
}
