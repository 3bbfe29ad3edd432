//! TRADES, CFA, FRL and FAIR-TAT on TRADES: runs from the seed to the final weights, and losses and rules where a class
//! is absent, perfect or lost.

use fairtat::config::{BaseMethod, Experiment, FrlVariant, MethodChoice};
use fairtat::engine::{Batch, loss};
use fairtat::fairness::{ClassStats, Confusion};
use fairtat::train::methods::{self, ClassSeries, Evidence, ValidationCounts};
use fairtat::units::Epsilon;

use crate::engines::ENGINES;
use crate::golden::{Errors, Golden, wide};
use crate::training::{CLASSES, EPOCHS, Run, experiment};

/// A golden file, and what makes its method.
type Case = (&'static str, fn(&mut Experiment));

const RUNS: [Case; 7] = [
    ("trades", |e| e.fairness.method = MethodChoice::Trades),
    ("trades-scaled", |e| (e.fairness.method, e.trades.scaled) = (MethodChoice::Trades, true)),
    ("cfa-at", |e| cfa(e, BaseMethod::At)),
    ("cfa-trades", |e| cfa(e, BaseMethod::Trades)),
    ("frl-reweight", |e| frl(e, FrlVariant::Reweight)),
    ("frl-remargin", |e| frl(e, FrlVariant::ReweightRemargin)),
    ("fair-tat-trades", |e| e.fairness.base = BaseMethod::Trades),
];

fn cfa(experiment: &mut Experiment, base: BaseMethod) {
    experiment.fairness.method = MethodChoice::Cfa;
    (experiment.cfa.base, experiment.cfa.warmup_epochs) = (base, 0);
}

/// The steps are larger than the authors', so that two epochs show what they do.
fn frl(experiment: &mut Experiment, variant: FrlVariant) {
    experiment.fairness.method = MethodChoice::Frl;
    experiment.frl.variant = variant;
    (experiment.frl.alpha_1, experiment.frl.alpha_2) = (0.5, 0.5);
    (experiment.evaluation.eval_steps, experiment.evaluation.eval_step_size) = (5, Some(Epsilon::levels(4.0)));
}

/// Names of the values that methods adapt for each class.
const SERIES: [&str; 3] = ["beta", "clean_weight", "boundary_weight"];

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
    if golden.has("validation_images") {
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
fn compare_if_there(golden: &Golden, key: &str, what: &str, found: &[f64], errors: &mut Errors) {
    assert_eq!(golden.has(key), !found.is_empty(), "{key}");
    if golden.has(key) {
        errors.close_f64(what, found, &wide(golden.floats(key)));
    }
}

fn values<'a>(shown: &'a [ClassSeries], name: &str) -> &'a [f64] {
    shown.iter().find(|series| series.name == name).map_or(&[], |series| &series.values)
}

/// What the method makes of the last epoch.
fn compare_next_plan(golden: &Golden, run: &Run, experiment: &Experiment, errors: &mut Errors) {
    let progress = run.trainer.progress();
    let mut method = methods::build(experiment, CLASSES);
    method.restore(&progress.memory);
    let (statistics, validation) = (progress.statistics.as_ref(), progress.validation.as_ref());
    method.plan(EPOCHS, &Evidence { statistics, validation });
    let key = |what: &str| format!("epoch.{EPOCHS}.{what}");
    errors.close_f64("epsilon", method.class_epsilon(), &wide(golden.floats(&key("epsilon"))));
    for name in SERIES {
        compare_if_there(golden, &key(name), name, values(&method.shown(), name), errors);
    }
    let pi = method.target_distribution().map_or(&[][..], |distribution| distribution.probabilities());
    compare_if_there(golden, &key("pi"), "pi", pi, errors);
}

/// Cases of `method-losses`: two classes, a class without images, no mistakes, a class at 0 % under attack, one at 0 %
/// without, and more classes than images in a batch.
const EDGES: [&str; 6] = ["two", "absent", "perfect", "zero", "lost", "hundred"];
/// They reach 6e-7.
const LIMIT: f64 = 1e-5;

/// Mistakes fall on the class after the true one.
fn counted(images: &[u32], right: &[u32]) -> Confusion {
    let classes = images.len() as u32;
    let mut confusion = Confusion::new(images.len());
    for (class, (images, right)) in (0..).zip(images.iter().zip(right)) {
        for image in 0..*images {
            confusion.add(class, if image < *right { class } else { (class + 1) % classes });
        }
    }
    confusion
}

#[test]
fn rules_and_losses_are_pytorchs_at_their_edges() {
    let golden = Golden::load("method-losses");
    for case in EDGES {
        let key = |what: &str| format!("{case}.{what}");
        let images: Vec<u32> = golden.integers(&key("images"));
        let labels: Vec<u32> = golden.integers(&key("labels"));
        let batch = Batch { pixels: &[], labels: &labels, ids: &[], augment: None, seed: 0, epoch: 1 };
        for (name, change) in [
            ("cfa", (|e| cfa(e, BaseMethod::Trades)) as fn(&mut Experiment)),
            ("frl", |e| frl(e, FrlVariant::ReweightRemargin)),
        ] {
            let mut errors = Errors::new(format!("{name}, {case}"), LIMIT);
            let mut experiment = Experiment::default();
            change(&mut experiment);
            let mut method = methods::build(&experiment, images.len());
            for epoch in 0..2 {
                let [clean, robust] = ["clean", "robust"]
                    .map(|what| counted(&images, &golden.integers::<u32>(&format!("{case}.right.{epoch}.{what}"))));
                let mut statistics = ClassStats::new(images.len());
                statistics.robust = robust.clone();
                let validation = ValidationCounts { clean, robust, means: None };
                method.plan(epoch, &Evidence { statistics: Some(&statistics), validation: Some(&validation) });
                let key = |what: &str| format!("{case}.{name}.{epoch}.{what}");
                errors.close_f64("epsilon", method.class_epsilon(), &wide(golden.floats(&key("epsilon"))));
                for series in SERIES {
                    compare_if_there(&golden, &key(series), series, values(&method.shown(), series), &mut errors);
                }
            }
            let spec = method.loss(&batch);
            spec.check(labels.len(), images.len()).unwrap();
            let logits = ["p", "q"].map(|view| golden.floats(&key(view)).to_vec());
            let (value, gradients) = loss::outer(&spec, &spec.views(), &logits, &labels, images.len());
            errors.close_f64("loss", &[value], &wide(golden.floats(&key(&format!("{name}.loss")))));
            for (view, gradient) in ["p", "q"].iter().zip(&gradients) {
                errors.close(
                    &format!("gradient of {view}"),
                    gradient,
                    golden.floats(&key(&format!("{name}.grad_{view}"))),
                );
            }
        }
    }
}
