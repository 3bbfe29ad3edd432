//! Losses and their gradients with respect to logits, without an engine.

use fairtat::engine::{LossSpec, LossTerm, Objective, Reduction, Term, View, loss};

use crate::golden::{Errors, Golden, wide};

const CLASSES: usize = 10;
/// The errors reach 2e-6.
const LIMIT: f64 = 1e-5;

/// The loss and the gradients of each row.
type Rows = (Vec<f32>, Vec<Vec<f32>>);

/// Runs `row` on each row of logits `p` and `q` with its label.
fn rows(golden: &Golden, row: impl Fn(&[f32], &[f32], u32, &mut [f32], &mut [f32]) -> f32) -> Rows {
    let (p, q, labels) = (golden.floats("p"), golden.floats("q"), golden.integers::<u32>("labels"));
    let (mut grad_p, mut grad_q) = (vec![0.0; p.len()], vec![0.0; q.len()]);
    let mut values = Vec::new();
    for (i, label) in labels.into_iter().enumerate() {
        let at = i * CLASSES..(i + 1) * CLASSES;
        values.push(row(&p[at.clone()], &q[at.clone()], label, &mut grad_p[at.clone()], &mut grad_q[at]));
    }
    (values, vec![grad_p, grad_q])
}

/// Compares with the file. The four extreme rows are compared separately, because the errors of the others would be
/// negligible beside them.
fn compare(golden: &Golden, name: &str, (values, gradients): &Rows) {
    let mut errors = Errors::new("losses", LIMIT);
    let count = values.len();
    for (part, rows) in [("", 0..count - 4), (" of extreme rows", count - 4..count)] {
        errors.close(&format!("{name}{part}"), &values[rows.clone()], &golden.floats(name)[rows.clone()]);
        let at = rows.start * CLASSES..rows.end * CLASSES;
        for (gradient, view) in gradients.iter().zip(["p", "q"]) {
            let key = format!("{name}.grad_{view}");
            errors.close(&format!("{key}{part}"), &gradient[at.clone()], &golden.floats(&key)[at.clone()]);
        }
    }
}

#[test]
fn losses_and_their_gradients_are_pytorchs() {
    let golden = Golden::load("losses");
    let one = |(values, mut gradients): Rows| {
        gradients.truncate(1);
        (values, gradients)
    };
    compare(&golden, "ce", &one(rows(&golden, |p, _, y, g, _| loss::cross_entropy(p, y, 1.0, g))));
    compare(&golden, "kl_uniform", &one(rows(&golden, |p, _, _, g, _| loss::kl_to_uniform(p, 1.0, g))));
    compare(&golden, "dlr", &one(rows(&golden, |p, _, y, g, _| loss::dlr(p, y, 1.0, g))));
    compare(&golden, "kl", &rows(&golden, |p, q, _, gp, gq| loss::kl(p, q, 1.0, Some(gp), Some(gq))));
}

#[test]
fn objectives_are_the_losses_that_an_attack_maximises() {
    let golden = Golden::load("losses");
    let (p, q, labels) = (golden.floats("p"), golden.floats("q"), golden.integers::<u32>("labels"));
    let found = |objective, logits, clean| loss::objective(&objective, logits, &labels, CLASSES, clean).unwrap();
    let (values, gradient) = found(Objective::CrossEntropy, p, None);
    compare(&golden, "ce", &(values, vec![gradient]));
    let (values, gradient) = found(Objective::Dlr, p, None);
    compare(&golden, "dlr", &(values, vec![gradient]));
    let (values, gradient) = found(Objective::KlToClean, q, Some(p));
    let mut errors = Errors::new("losses", LIMIT);
    errors.close("kl to clean", &values, golden.floats("kl"));
    errors.close("kl to clean, gradient", &gradient, golden.floats("kl.grad_q"));
}

/// `(1 - b) CE(p) + b KL(p ‖ q)` with `b = 6/7`, as an outer loss of two terms with `Reduction::Sum`.
#[test]
fn the_trades_loss_is_pytorchs() {
    let golden = Golden::load("losses");
    let labels = golden.integers::<u32>("labels");
    let logits = [golden.floats("p").to_vec(), golden.floats("q").to_vec()];
    let (n, share) = (labels.len(), 6.0 / 7.0);
    let spec = |reduction| {
        LossSpec::of(
            [
                (1.0 - share, Term::CrossEntropy(View::Clean)),
                (share, Term::Kl { from: View::Clean, to: View::Adversarial }),
            ]
            .map(|(factor, term)| LossTerm { reduction, ..LossTerm::mean(factor, term) })
            .into(),
        )
    };
    let run = |spec: &LossSpec, rows: std::ops::Range<usize>| {
        let part = |view: &Vec<f32>| view[rows.start * CLASSES..rows.end * CLASSES].to_vec();
        loss::outer(spec, &spec.views(), &[part(&logits[0]), part(&logits[1])], &labels[rows.clone()], CLASSES)
    };
    let sum = spec(Reduction::Sum);
    let (_, gradients) = run(&sum, 0..n);
    let values = (0..n).map(|i| run(&sum, i..i + 1).0 as f32).collect();
    compare(&golden, "trades", &(values, gradients.clone()));

    let (mean, mean_gradients) = run(&spec(Reduction::Mean), 0..n);
    let expected = wide(golden.floats("trades")).iter().sum::<f64>() / n as f64;
    let mut errors = Errors::new("losses", LIMIT);
    errors.close_f64("mean of trades", &[mean], &[expected]);
    for (mean, sum) in mean_gradients.iter().zip(&gradients) {
        let expected: Vec<f32> = sum.iter().map(|v| v / n as f32).collect();
        errors.close("gradient of the mean of trades", mean, &expected);
    }
}
