//! The training methods: runs from the seed to the final weights.

use fairtat::config::{BaseMethod, Experiment, FatStop, FrlVariant, LossForm, MethodChoice};
use fairtat::engine::BatchNormMode;
use fairtat::fairness::Confusion;
use fairtat::train::methods::{self, ClassSeries, Evidence, Memory};
use fairtat::units::Epsilon;

use crate::engines::ENGINES;
use crate::golden::{Errors, Golden, wide};
use crate::training::{CLASSES, EPOCHS, Run, experiment};

/// A golden file, and what makes its method.
type Case = (&'static str, fn(&mut Experiment));

pub(crate) const RUNS: [Case; 19] = [
    ("trades", |e| e.fairness.method = MethodChoice::Trades),
    ("trades-scaled", |e| (e.fairness.method, e.trades.scaled) = (MethodChoice::Trades, true)),
    ("cfa-at", |e| cfa(e, BaseMethod::At)),
    ("cfa-trades", |e| cfa(e, BaseMethod::Trades)),
    ("frl-reweight", |e| frl(e, FrlVariant::Reweight)),
    ("frl-remargin", |e| frl(e, FrlVariant::ReweightRemargin)),
    ("fair-tat-trades", |e| e.fairness.base = BaseMethod::Trades),
    ("fat-spent", |e| fat(e, FatStop::Spent)),
    ("fat-original", |e| {
        fat(e, FatStop::WhileMisclassified);
        (e.fat.tau, e.fat.tau_epochs, e.fat.noise) = (vec![0, 1], vec![1], 0.001);
        e.attack.attack_bn = BatchNormMode::Eval;
    }),
    ("fat-kl", |e| {
        fat(e, FatStop::WhileMisclassified);
        e.fat.kl = true;
    }),
    ("cfa-fat", |e| {
        fat(e, FatStop::Spent);
        cfa(e, BaseMethod::Fat);
    }),
    ("fair-tat-fat", |e| {
        fat(e, FatStop::Spent);
        (e.fairness.method, e.fairness.base) = (MethodChoice::FairTat, BaseMethod::Fat);
    }),
    ("bat", |e| e.fairness.method = MethodChoice::Bat),
    // Ten times the authors' step, so that two epochs show what it does.
    ("wat", |e| (e.fairness.method, e.wat.eta) = (MethodChoice::Wat, 1.0)),
    ("dafa-at", |e| dafa(e, LossForm::At)),
    ("dafa-trades", |e| dafa(e, LossForm::Trades)),
    ("faal-at", |e| faal(e, LossForm::At)),
    ("faal-trades", |e| faal(e, LossForm::Trades)),
    ("trix", |e| e.fairness.method = MethodChoice::Trix),
];

/// With a budget of 1, which searches use up.
pub(crate) fn fat(experiment: &mut Experiment, stop: FatStop) {
    experiment.fairness.method = MethodChoice::Fat;
    (experiment.fat.stop, experiment.fat.tau) = (stop, vec![1]);
}

pub(crate) fn dafa(experiment: &mut Experiment, base: LossForm) {
    experiment.fairness.method = MethodChoice::Dafa;
    (experiment.dafa.base, experiment.dafa.warmup_epochs) = (base, 1);
}

pub(crate) fn faal(experiment: &mut Experiment, base: LossForm) {
    experiment.fairness.method = MethodChoice::Faal;
    experiment.faal.base = base;
}

pub(crate) fn cfa(experiment: &mut Experiment, base: BaseMethod) {
    experiment.fairness.method = MethodChoice::Cfa;
    (experiment.cfa.base, experiment.cfa.warmup_epochs) = (base, 0);
}

/// The steps are larger than the authors', so that two epochs show what they do.
pub(crate) fn frl(experiment: &mut Experiment, variant: FrlVariant) {
    experiment.fairness.method = MethodChoice::Frl;
    experiment.frl.variant = variant;
    (experiment.frl.alpha_1, experiment.frl.alpha_2) = (0.5, 0.5);
    (experiment.evaluation.eval_steps, experiment.evaluation.eval_step_size) = (5, Some(Epsilon::levels(4.0)));
}

/// Names of the values that methods choose or measure for each class.
pub(crate) const SERIES: [&str; 6] = ["beta", "clean_weight", "boundary_weight", "weight", "targeted", "budget_used"];

#[test]
fn runs_of_methods_are_pytorchs_from_seed_to_final_weights() {
    for (name, change) in RUNS {
        let golden = Golden::load(name);
        let mut experiment = experiment(&golden);
        change(&mut experiment);
        for tested in ENGINES {
            let mut errors = Errors::of(tested, name);
            let mut run = Run::of(&golden, &experiment, tested);
            run.compare(&golden, &mut errors);
            compare_gradient(&golden, &run, &experiment, &mut errors);
            for epoch in 0..EPOCHS {
                compare_classes(&golden, &run, epoch, &mut errors);
            }
            compare_next_plan(&golden, &run, &experiment, &mut errors);
        }
    }
}

/// The gradient of the first batch's loss: the momentum that the first step leaves, without its weight decay.
fn compare_gradient(golden: &Golden, run: &Run, experiment: &Experiment, errors: &mut Errors) {
    let (mut gradient, before) = (run.batches[0].momentum.clone().unwrap(), golden.state("state"));
    for (name, array) in &mut gradient.0 {
        let decay = experiment.optimizer.weight_decay as f32;
        array.data.iter_mut().zip(&before.0[name].data).for_each(|(m, value)| *m -= decay * value);
    }
    errors.close_states("gradient of the loss", &gradient, &golden.state("gradient"));
}

/// What `classes.csv` says of an epoch.
fn compare_classes(golden: &Golden, run: &Run, epoch: u32, errors: &mut Errors) {
    let key = |what: &str| format!("epoch.{epoch}.{what}");
    for name in SERIES {
        let of = |(known, value): &(String, f64)| (known == name).then_some(*value);
        let found: Vec<f64> = run.rows(epoch).filter_map(|row| row.series.iter().find_map(of)).collect();
        compare_if_there(golden, &key(name), name, &found, errors);
    }
    let pi: Vec<f64> = run.rows(epoch).filter_map(|row| row.target_probability).collect();
    compare_if_there(golden, &key("pi"), "pi", &pi, errors);
    let clean: Vec<f64> = run.rows(epoch).filter_map(|row| row.train_clean_accuracy).collect();
    compare_if_there(golden, &key("clean_accuracy"), "clean accuracy", &clean, errors);
    // Validated after an epoch is before the next one.
    if golden.has("epoch.0.validation.clean") {
        let counts = |what: &str| {
            let counts = golden.integers(&format!("epoch.{}.validation.{what}", epoch + 1));
            Confusion::from_counts(counts).unwrap().class_accuracy()
        };
        let (clean, robust): (Vec<f64>, Vec<f64>) =
            run.rows(epoch).map(|row| (row.val_clean_accuracy, row.val_robust_accuracy)).unzip();
        assert_eq!((clean, robust), (counts("clean"), counts("robust")));
    }
}

/// Demands that there is something found exactly where there is something expected, and that it is that.
pub(crate) fn compare_if_there(golden: &Golden, key: &str, what: &str, found: &[f64], errors: &mut Errors) {
    assert_eq!(golden.has(key), !found.is_empty(), "{key}");
    if golden.has(key) {
        errors.close_f64(what, found, &wide(golden.floats(key)));
    }
}

pub(crate) fn values<'a>(shown: &'a [ClassSeries], name: &str) -> &'a [f64] {
    shown.iter().find(|series| series.name == name).map_or(&[], |series| &series.values)
}

/// What the method makes of the last epoch.
fn compare_next_plan(golden: &Golden, run: &Run, experiment: &Experiment, errors: &mut Errors) {
    let progress = run.trainer.progress();
    let mut method = methods::build(experiment, CLASSES);
    method.restore(&progress.memory);
    let (statistics, validation) = (progress.statistics.as_ref(), progress.validation.as_ref());
    let key = |what: &str| format!("epoch.{EPOCHS}.{what}");
    let costs = validation.and_then(|validation| validation.costs.as_ref());
    assert_eq!(golden.has(&key("costs.images")), costs.is_some());
    if let Some(costs) = costs {
        assert_eq!(costs.images, golden.integers::<u64>(&key("costs.images")));
        errors.close_f64("costs", &costs.cross_entropy, &wide(golden.floats(&key("costs.cross_entropy"))));
        errors.close_f64("costs", &costs.divergence, &wide(golden.floats(&key("costs.divergence"))));
    }
    method.plan(EPOCHS, &Evidence { statistics, validation, sums: Some(&progress.last_sums) });
    errors.close_f64("epsilon", method.class_epsilon(), &wide(golden.floats(&key("epsilon"))));
    for name in SERIES {
        // Nothing is measured yet.
        compare_if_there(golden, &key(name), name, values(&method.shown(&Memory::default()), name), errors);
    }
    let pi = method.target_distribution().map_or(&[][..], |distribution| distribution.probabilities());
    compare_if_there(golden, &key("pi"), "pi", pi, errors);
}
