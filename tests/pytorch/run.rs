//! Two epochs of FAIR-TAT through the real training loop, from the seed to the final weights.

use fairtat::fairness::TargetDistribution;
use fairtat::rng::{Purpose, Stream};
use fairtat::train::methods::{Evidence, FairTat, Method};

use crate::engines::ENGINES;
use crate::golden::{Errors, Golden, wide};
use crate::training::{CLASSES, EPOCHS, Run, experiment};

#[test]
fn a_fair_tat_run_is_pytorchs_from_seed_to_final_weights() {
    let golden = Golden::load("fair_tat_epoch");
    for tested in ENGINES {
        let experiment = experiment(&golden);
        let mut errors = Errors::of(tested, "run");
        let mut run = Run::of(&golden, &experiment, tested);
        run.compare(&golden, &mut errors);
        compare_tables(&golden, &run, &mut errors);

        let statistics = run.trainer.progress().statistics.clone().unwrap();
        let mut method = FairTat::new(&experiment, CLASSES);
        method.plan(EPOCHS, &Evidence { statistics: Some(&statistics), ..Evidence::default() });
        let next = method.target_distribution().unwrap().probabilities();
        errors.close_f64("pi", next, &wide(golden.floats("epoch.2.pi")));
        errors.close_f64("epsilon", method.class_epsilon(), &wide(golden.floats("epoch.2.epsilon")));
    }
}

/// What the run's files tell of FAIR-TAT in each epoch.
fn compare_tables(golden: &Golden, run: &Run, errors: &mut Errors) {
    for epoch in 0..EPOCHS {
        let key = |what: &str| format!("epoch.{epoch}.{what}");
        let pi: Vec<f64> = run.rows(epoch).map(|row| row.target_probability.unwrap()).collect();
        for (what, found) in [
            ("pi", pi),
            ("cfps", run.rows(epoch).map(|row| row.cfps).collect()),
            ("robust_accuracy", run.rows(epoch).map(|row| row.train_robust_accuracy).collect()),
            ("train_loss", vec![run.trainer.rows().0[epoch as usize].train_loss]),
        ] {
            errors.close_f64(what, &found, &wide(golden.floats(&key(what))));
        }
    }
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
