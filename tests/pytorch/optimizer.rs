//! Steps of SGD, and the average of the resulting parameters.

use fairtat::engine::{LossSpec, SgdStep, View};
use fairtat::train::Average;

use crate::engines::ENGINES;
use crate::golden::{Case, Errors, Golden};
use crate::passes::no_search;

#[test]
fn three_steps_of_sgd_and_their_average_are_pytorchs() {
    for (name, file) in [("small-cnn", "small-cnn-sgd"), ("preact-resnet-18", "preact-resnet-18-sgd")] {
        let (case, golden) = (Case::load(name), Golden::load(file));
        for tested in ENGINES {
            let mut errors = Errors::of(tested, name);
            let mut engine = case.open(tested);
            let views = engine.perturb(&case.batch(8), &no_search(8)).unwrap();
            let sgd = SgdStep { lr: 0.1, momentum: 0.9, weight_decay: 5e-4, nesterov: false };
            let (mut average, mut losses) = (Average::default(), Vec::new());
            for step in 1..=3 {
                let stats = engine.train_step(&views, &LossSpec::cross_entropy(View::Clean), &sgd).unwrap();
                losses.push(stats.loss as f32);
                let model = engine.state().unwrap().model;
                model.check(&case.network).unwrap();
                if step != 2 {
                    errors.close_states(
                        &format!("state after {step} steps"),
                        &model,
                        &golden.state(&format!("sgd.{step}")),
                    );
                }
                average.update(&model, 0.85);
            }
            errors.close("losses of three steps", &losses, golden.floats("sgd.losses"));
            let average = average.state().unwrap();
            average.check(&case.network).unwrap();
            errors.close_states("average of three steps", average, &golden.state("ema"));
        }
    }
}
