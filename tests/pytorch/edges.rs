//! Losses and rules of the training methods where classes are few, many, absent, perfect, lost or equal, and FAAL's class
//! distribution.

use std::collections::BTreeMap;

use fairtat::config::{BaseMethod, Experiment, FrlVariant, LossForm, MethodChoice};
use fairtat::engine::{Batch, BatchStats, LossSpec, View, loss};
use fairtat::fairness::{ClassStats, Confusion};
use fairtat::train::methods::{self, ClassCosts, Evidence, Memory, Method, ValidationCounts};
use serde::Deserialize;

use crate::golden::{Errors, Golden, path, wide};
use crate::methods::{SERIES, cfa, compare_if_there, dafa, faal, frl, values};

/// Cases of `method-losses`: two classes, a class without images, no mistakes, a class at 0 % under attack, one at 0 %
/// without, more classes than images in a batch, and classes with equal errors.
const CASES: [&str; 7] = ["two", "absent", "perfect", "zero", "lost", "hundred", "equal"];
/// Views of a loss by their keys.
const VIEWS: [(&str, View); 3] = [("p", View::Clean), ("q", View::Adversarial), ("r", View::LastClean)];
/// A method by its key.
type Named = (&'static str, fn(&mut Experiment));

const METHODS: [Named; 10] = [
    ("cfa", |e| cfa(e, BaseMethod::Trades)),
    ("frl", |e| frl(e, FrlVariant::ReweightRemargin)),
    ("fat", |e| (e.fairness.method, e.fat.tau) = (MethodChoice::Fat, vec![2])),
    ("bat", |e| e.fairness.method = MethodChoice::Bat),
    ("wat", |e| e.fairness.method = MethodChoice::Wat),
    ("dafa-at", |e| dafa(e, LossForm::At)),
    ("dafa-trades", |e| dafa(e, LossForm::Trades)),
    ("faal-at", |e| faal(e, LossForm::At)),
    ("faal-trades", |e| faal(e, LossForm::Trades)),
    ("trix", |e| e.fairness.method = MethodChoice::Trix),
];
/// They reach 4e-6.
const LIMIT: f64 = 1e-5;

/// A case of the file.
struct Case<'a> {
    golden: &'a Golden,
    name: &'static str,
    images: Vec<u32>,
}

impl Case<'_> {
    fn key(&self, what: &str) -> String {
        format!("{}.{what}", self.name)
    }

    fn integers(&self, what: &str) -> Vec<u32> {
        self.golden.integers(&self.key(what))
    }

    fn floats(&self, what: &str) -> &[f32] {
        self.golden.floats(&self.key(what))
    }

    fn classes(&self) -> usize {
        self.images.len()
    }

    /// Mistakes fall on the class after the true one.
    fn counted(&self, right: &str) -> Confusion {
        let classes = self.images.len() as u32;
        let mut confusion = Confusion::new(self.images.len());
        for (class, (images, right)) in (0..).zip(self.images.iter().zip(self.integers(right))) {
            for image in 0..*images {
                confusion.add(class, if image < right { class } else { (class + 1) % classes });
            }
        }
        confusion
    }

    /// What is known before an epoch.
    fn counts(&self, epoch: u32) -> (ClassStats, ValidationCounts) {
        let [clean, robust] = ["clean", "robust"].map(|what| self.counted(&format!("right.{epoch}.{what}")));
        let [cross_entropy, divergence] =
            ["cross_entropy", "divergence"].map(|what| wide(self.floats(&format!("costs.{epoch}.{what}"))));
        let images = self.images.iter().map(|n| u64::from(*n)).collect();
        let mut statistics = ClassStats::new(self.classes());
        statistics.robust = robust.clone();
        let costs = Some(ClassCosts { images, cross_entropy, divergence });
        (statistics, ValidationCounts { clean, robust, costs })
    }

    /// What a method sums up over an epoch of one batch, in which all views have the same logits.
    fn observed(&self, method: &dyn Method, epoch: u32) -> Memory {
        let (labels, budgets) = (self.integers("observed.labels"), self.integers("observed.left"));
        let logits = self.golden.bytes(&self.key("observed.logits"));
        let logits: Vec<f32> = logits.iter().map(|byte| f32::from(*byte) / 16.0).collect();
        let batch = batch(&labels, epoch);
        let spec = method.loss(&batch);
        let views = spec.views();
        let all = vec![logits; views.len()];
        let class_factors = loss::with_worst_case(&spec, &views, &all, &labels, self.classes()).1;
        let logits = views.into_iter().zip(all).collect();
        let stats = BatchStats { logits, class_factors, budgets, ..BatchStats::default() };
        let mut sums = Memory::default();
        method.observe(&batch, &stats, &mut sums);
        sums
    }

    /// The rules of two epochs.
    fn compare_rules(&self, name: &str, method: &mut dyn Method, base: f64, errors: &mut Errors) {
        let mut sums = Memory::default();
        for epoch in 0..2 {
            let (statistics, validation) = self.counts(epoch);
            let (statistics, validation) = (Some(&statistics), Some(&validation));
            method.plan(epoch, &Evidence { statistics, validation, sums: Some(&sums) });
            sums = self.observed(method, epoch);
            let key = |what: &str| self.key(&format!("{name}.{epoch}.{what}"));
            let expected = if self.golden.has(&key("epsilon")) {
                wide(self.golden.floats(&key("epsilon")))
            } else {
                vec![base; self.classes()]
            };
            errors.close_f64("epsilon", method.class_epsilon(), &expected);
            for series in SERIES {
                compare_if_there(self.golden, &key(series), series, values(&method.shown(&sums), series), errors);
            }
        }
    }

    /// The loss of a batch, its gradients, and the factors of the classes.
    fn compare_loss(&self, name: &str, spec: &LossSpec, errors: &mut Errors) {
        let labels = self.integers("labels");
        spec.check(labels.len(), self.classes()).unwrap();
        let views = spec.views();
        let keys: Vec<&str> = views.iter().map(|view| VIEWS.iter().find(|(_, v)| v == view).unwrap().0).collect();
        let logits: Vec<Vec<f32>> = keys.iter().map(|key| self.floats(key).to_vec()).collect();
        let (spec, factors) = loss::with_worst_case(spec, &views, &logits, &labels, self.classes());
        compare_if_there(self.golden, &self.key(&format!("{name}.factors")), "factors", &factors, errors);
        let (value, gradients) = loss::outer(&spec, &views, &logits, &labels, self.classes());
        errors.close_f64("loss", &[value], &wide(self.floats(&format!("{name}.loss"))));
        for (key, gradient) in keys.iter().zip(&gradients) {
            errors.close(&format!("gradient of {key}"), gradient, self.floats(&format!("{name}.grad_{key}")));
        }
    }
}

fn batch(labels: &[u32], epoch: u32) -> Batch<'_> {
    Batch { pixels: &[], labels, ids: &[], augment: None, seed: 0, epoch }
}

#[test]
fn rules_and_losses_of_methods_are_pytorchs_at_their_edges() {
    let golden = Golden::load("method-losses");
    for name in CASES {
        let case = Case { golden: &golden, name, images: golden.integers(&format!("{name}.images")) };
        for (name, change) in METHODS {
            let mut errors = Errors::new(format!("{name}, {}", case.name), LIMIT);
            let mut experiment = Experiment::default();
            change(&mut experiment);
            let mut method = methods::build(&experiment, case.classes());
            case.compare_rules(name, method.as_mut(), experiment.attack.epsilon.exact(), &mut errors);
            if golden.has(&case.key(&format!("{name}.loss"))) {
                case.compare_loss(name, &method.loss(&batch(&case.integers("labels"), 1)), &mut errors);
            }
        }
    }
}

/// What DAFA gives to one class it takes from another, unless a weight is clamped, as in `lost` only.
#[test]
fn weights_of_similar_classes_sum_to_their_number() {
    let golden = Golden::load("method-losses");
    for name in CASES {
        let case = Case { golden: &golden, name, images: golden.integers(&format!("{name}.images")) };
        let mut experiment = Experiment::default();
        dafa(&mut experiment, LossForm::At);
        let mut method = methods::build(&experiment, case.classes());
        method.plan(0, &Evidence::default());
        let sums = case.observed(method.as_ref(), 0);
        method.plan(1, &Evidence { sums: Some(&sums), ..Evidence::default() });
        let shown = method.shown(&sums);
        let weights = values(&shown, "weight");
        let clamped = weights.contains(&methods::dafa::MINIMUM);
        assert_eq!(clamped, name == "lost", "{name}: {weights:?}");
        let (sum, classes) = (weights.iter().sum::<f64>(), case.classes() as f64);
        assert_eq!((sum - classes).abs() < 1e-6 * classes, !clamped, "{name}: the weights sum to {sum}");
    }
}

#[derive(Debug, Deserialize)]
struct Solved {
    c: Vec<f64>,
    radius: f64,
    q: Vec<f64>,
}

/// They reach 4e-9, which is how far the file's numbers are rounded.
#[test]
fn the_worst_class_distribution_is_that_of_a_convex_solver() {
    let cases: BTreeMap<String, Solved> =
        serde_json::from_slice(&std::fs::read(path("worst-case.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 30);
    let mut errors = Errors::new("worst case", 1e-7);
    for Solved { c, radius, q } in cases.values() {
        errors.close_f64(&format!("{} classes", c.len()), &loss::worst_case(c, *radius), q);
    }
}
