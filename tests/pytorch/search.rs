//! Ten steps of targeted PGD from a given start.

use fairtat::engine::{BatchNormMode, Input, Norm, Objective, SearchSpec, Start, View};

use crate::engines::ENGINES;
use crate::golden::{Case, Errors};
use crate::passes::{MODES, running};

const CASES: [&str; 2] = ["small-cnn", "preact-resnet-18"];
/// The first images of the case are attacked.
const IMAGES: usize = 4;

fn spec(case: &Case, steps: u32, batch_norm: BatchNormMode) -> SearchSpec {
    let epsilon = case.golden.floats("pgd.epsilon").to_vec();
    let noise = case.golden.floats("pgd.noise").chunks(case.network.input.len()).zip(&epsilon);
    SearchSpec {
        objective: Objective::Targeted(case.golden.integers("pgd.targets")),
        norm: Norm::Linf,
        start: Start::Given(noise.flat_map(|(noise, epsilon)| noise.iter().map(move |v| v * epsilon)).collect()),
        epsilon,
        step_size: vec![2.0 / 255.0; IMAGES],
        steps,
        batch_norm,
        ..SearchSpec::default()
    }
}

#[test]
fn perturbations_are_pytorchs_after_every_step() {
    for name in CASES {
        let case = Case::load(name);
        for tested in ENGINES {
            let mut errors = Errors::of(tested, name);
            for (mode, batch_norm) in MODES {
                for steps in case.golden.steps(&format!("pgd.{mode}.delta")) {
                    let mut engine = case.open(tested);
                    let views = engine.perturb(&case.batch(IMAGES), &spec(&case, steps, batch_norm)).unwrap();
                    let clean = engine.read_view(&views, View::Clean).unwrap();
                    let adversarial = engine.read_view(&views, View::Adversarial).unwrap();
                    let delta: Vec<f32> = adversarial.iter().zip(&clean).map(|(a, c)| a - c).collect();
                    let expected = case.golden.floats(&format!("pgd.{mode}.delta.{steps}"));
                    let strayed = delta.iter().zip(expected).filter(|(a, b)| (**a - **b).abs() > 1e-5).count();
                    assert_eq!(strayed, 0, "{name}, {mode}: pixels elsewhere after {steps} steps");
                    errors.close(&format!("perturbation {mode}"), &delta, expected);
                    if steps == 10 {
                        let after = running(engine.state().unwrap().model);
                        let expected = case.golden.state(&format!("pgd.{mode}.after"));
                        errors.close_states(&format!("running statistics after the search {mode}"), &after, &expected);
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_along_the_search_are_pytorchs() {
    for name in CASES {
        let case = Case::load(name);
        let clean = case.batch(IMAGES).prepare(case.network.input);
        let objective = Objective::Targeted(case.golden.integers("pgd.targets"));
        for tested in ENGINES {
            let mut errors = Errors::of(tested, name);
            for (mode, batch_norm) in MODES {
                for step in case.golden.steps(&format!("pgd.{mode}.grad")) {
                    let delta = case.golden.floats(&format!("pgd.{mode}.delta.{step}"));
                    let images: Vec<f32> = clean.iter().zip(delta).map(|(c, d)| c + d).collect();
                    let input = Input::Images(&images, &case.labels[..IMAGES]);
                    let (_, gradient) = case.open(tested).input_gradient(&input, &objective, batch_norm).unwrap();
                    // The search maximises the negative of the loss that PyTorch minimises.
                    let expected: Vec<f32> =
                        case.golden.floats(&format!("pgd.{mode}.grad.{step}")).iter().map(|g| -g).collect();
                    errors.close(&format!("targeted gradient {mode}"), &gradient, &expected);
                }
            }
        }
    }
}
