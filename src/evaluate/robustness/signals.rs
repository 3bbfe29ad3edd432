//! Signs that an evaluation overstates robustness, as the authors of AutoAttack and Carlini et al. 2019 ("On evaluating
//! adversarial robustness", section 3) give them.

use super::{Evaluation, Row};
use crate::attack::{Attack, AttackKind, warn_without_gradient};
use crate::data::Dataset;
use crate::engine::{Batch, BatchNormMode, Engine, EngineError, Input};
use crate::units::Epsilon;

/// Points by which a black-box attack must beat all others to be a sign, as in AutoAttack's `checks.py`.
const BLACK_BOX: f64 = 0.002;
/// Tolerance of the test whether outputs are probabilities, as there.
const PROBABILITY: f32 = 1e-5;

/// What speaks against the numbers of an evaluation, in sentences; empty if nothing does.
///
/// # Errors
/// If the engine fails.
pub fn signals(
    engine: &mut dyn Engine,
    set: &Dataset,
    evaluation: &Evaluation,
    batch_size: usize,
) -> Result<Vec<String>, EngineError> {
    let mut told = of_network(engine, set, batch_size)?;
    told.extend(of_rows(evaluation));
    Ok(told)
}

/// Outputs that change from call to call, or that are probabilities.
fn of_network(engine: &mut dyn Engine, set: &Dataset, batch_size: usize) -> Result<Vec<String>, EngineError> {
    let n = batch_size.clamp(1, set.len().max(1)).min(set.len());
    if n == 0 {
        return Ok(Vec::new());
    }
    let ids: Vec<u32> = (0..n as u32).collect();
    let pixels = &set.images()[..n * set.shape().len()];
    let batch = Batch { pixels, labels: &set.labels()[..n], ids: &ids, augment: None, seed: 0, epoch: 0 };
    let first = engine.logits(&Input::Batch(&batch), BatchNormMode::Eval)?;
    let second = engine.logits(&Input::Batch(&batch), BatchNormMode::Eval)?;
    Ok(of_logits(&first, &second, engine.network().classes))
}

fn of_logits(first: &[f32], second: &[f32], classes: usize) -> Vec<String> {
    let mut told = Vec::new();
    if first != second {
        told.push(
            "The network is randomised: two passes over the same images have different logits. Every attack here follows one \
             pass, which is too weak for it: average its gradients over many passes (EOT) elsewhere"
                .to_owned(),
        );
    }
    let is_probability = |z: &[f32]| {
        let sum: f32 = z.iter().sum();
        z.iter().all(|v| (-PROBABILITY..1.0 + PROBABILITY).contains(v)) && (sum - 1.0).abs() < PROBABILITY
    };
    if classes > 1 && first.chunks(classes).all(is_probability) {
        told.push(
            "The outputs are probabilities, not logits: cross-entropy and DLR of them have small gradients. Remove the \
             softmax"
                .to_owned(),
        );
    }
    told
}

fn of_rows(evaluation: &Evaluation) -> Vec<String> {
    let mut told = Vec::new();
    let rows = &evaluation.rows;
    told.extend(rows.iter().filter_map(without_gradient));
    let classes = evaluation.class_names().len();
    let replaced = |row: &Row| Some(format!("{}: {}", row.entry.attack, row.entry.attack.replacement(classes)?));
    told.extend(rows.iter().filter_map(replaced));
    let points = |share: f64| format!("{:.1}", 100.0 * share);
    let clean = rows.iter().find(|row| row.entry.attack.kind == AttackKind::Clean);
    for row in rows {
        let attack = &row.entry.attack;
        let is_nothing = attack.epsilon == Epsilon::ZERO && attack.kind != AttackKind::Clean;
        if let (true, Some(clean)) = (is_nothing, clean)
            && row.predictions != clean.predictions
        {
            let differ = row.predictions.iter().zip(&clean.predictions).filter(|(a, b)| a != b).count();
            told.push(format!(
                "{attack}: with radius 0 the predictions of {differ} images differ from the clean ones. The attack \
                 changes more than it says"
            ));
        }
    }
    // Random noise is the weakest attack in the ball.
    let noise = rows.iter().find(|row| row.entry.attack.kind == AttackKind::Noise);
    for row in rows.iter().filter(|row| row.entry.attack.kind.is_white_box()) {
        let Some(noise) = noise.filter(|noise| noise.entry.attack.epsilon == row.entry.attack.epsilon) else {
            continue;
        };
        let (own, other) = (evaluation.accuracy(row), evaluation.accuracy(noise));
        if own > other + BLACK_BOX {
            told.push(format!(
                "{}: accuracy {} %, but {} % under random noise in the same ball. The attack does not follow a gradient",
                row.entry.attack,
                points(own),
                points(other)
            ));
        }
    }
    told.extend(square_beats_gradients(evaluation));
    told.extend(more_is_weaker(evaluation));
    told
}

fn without_gradient(row: &Row) -> Option<String> {
    warn_without_gradient(&row.entry.attack, row.without_gradient, row.attacked)
}

/// Square removed images that no attack with gradients had removed.
fn square_beats_gradients(evaluation: &Evaluation) -> Option<String> {
    let attacks = || evaluation.rows.iter().filter(|row| row.entry.role.counts());
    let square = attacks().find(|row| row.entry.attack.kind == AttackKind::Square)?;
    let others: Vec<&Row> = attacks()
        .filter(|row| row.entry.attack.kind.is_white_box() && row.entry.attack.epsilon == square.entry.attack.epsilon)
        .collect();
    if others.is_empty() {
        return None;
    }
    let least = others.iter().map(|row| evaluation.accuracy(row)).fold(1.0, f64::min);
    let own = evaluation.accuracy(square);
    (own < least - BLACK_BOX).then(|| {
        format!(
            "Square, which needs no gradient, leaves {:.1} % where the attacks with gradients leave {:.1} %: gradients may be \
             masked",
            100.0 * own,
            100.0 * least
        )
    })
}

/// Pairs of rows that differ only in their steps, or only in their radius, the weaker first, and what differs.
fn pairs(evaluation: &Evaluation) -> Vec<(&Row, &Row, &'static str)> {
    let mut found = Vec::new();
    let rows: Vec<&Row> = evaluation.rows.iter().filter(|row| row.entry.suite.is_none()).collect();
    for (i, a) in rows.iter().enumerate() {
        for b in &rows[i + 1..] {
            let (one, two) = (&a.entry.attack, &b.entry.attack);
            let is_iterative = one.kind.is_white_box() && one.kind != AttackKind::Fgsm;
            let with = |steps, epsilon| Attack { steps, epsilon, step_size: two.step_size, ..one.clone() } == *two;
            if is_iterative && one.steps != two.steps && with(two.steps, one.epsilon) {
                let (weak, strong) = if one.steps < two.steps { (a, b) } else { (b, a) };
                found.push((*weak, *strong, "more steps"));
            } else if one.kind.is_white_box() && one.epsilon != two.epsilon && with(one.steps, two.epsilon) {
                let (weak, strong) = if one.epsilon.exact() < two.epsilon.exact() { (a, b) } else { (b, a) };
                found.push((*weak, *strong, "a larger radius"));
            }
        }
    }
    found
}

/// Of two attacks that differ only in their steps, or only in their radius, the larger one leaves more images.
fn more_is_weaker(evaluation: &Evaluation) -> Vec<String> {
    let mut told = Vec::new();
    for (weak, strong, what) in pairs(evaluation) {
        if gains(evaluation, weak, strong) {
            told.push(format!(
                "{} leaves {:.1} %, but {} leaves {:.1} %: {what} should not make an attack weaker",
                weak.entry.attack,
                100.0 * evaluation.accuracy(weak),
                strong.entry.attack,
                100.0 * evaluation.accuracy(strong),
            ));
        }
    }
    told
}

/// What was checked and found sound, if there are no warnings.
pub(super) fn checked(evaluation: &Evaluation) -> Vec<String> {
    let rows = &evaluation.rows;
    let mut parts = vec!["the network is deterministic and returns logits".to_owned()];
    let white_box = |row: &&Row| row.entry.attack.kind.is_white_box() && row.entry.role.counts();
    let in_ball_of =
        |other: &Row| rows.iter().filter(white_box).any(|row| row.entry.attack.epsilon == other.entry.attack.epsilon);
    let of_kind = |kind| rows.iter().find(|row| row.entry.attack.kind == kind);
    let white: Vec<&Row> = rows.iter().filter(white_box).collect();
    match white.iter().map(|row| row.without_gradient).max() {
        None => {}
        Some(0) => parts.push("no gradient is zero".into()),
        Some(some) => parts
            .push(format!("gradients are zero for at most {some} images of an attack, below the share of a warning")),
    }
    if of_kind(AttackKind::Square).is_some_and(in_ball_of) {
        parts.push("Square, which needs no gradient, does not beat the attacks that use them".into());
    }
    if of_kind(AttackKind::Noise).is_some_and(in_ball_of) {
        parts.push("random noise is weaker than every attack".into());
    }
    let is_nothing =
        |row: &Row| row.entry.attack.epsilon == Epsilon::ZERO && row.entry.attack.kind != AttackKind::Clean;
    if rows.iter().any(is_nothing) && of_kind(AttackKind::Clean).is_some() {
        parts.push("an attack with radius 0 changes nothing".into());
    }
    let pairs = pairs(evaluation);
    if pairs.iter().any(|(_, _, what)| *what == "more steps") {
        parts.push("more steps do not weaken an attack".into());
    }
    if pairs.iter().any(|(weak, _, what)| *what == "a larger radius" && weak.entry.attack.epsilon != Epsilon::ZERO) {
        parts.push("a larger radius does not weaken an attack".into());
    }
    parts
}

/// Whether `strong` leaves more images than `weak`, and not by chance: images that change sides by chance do so both
/// ways.
fn gains(evaluation: &Evaluation, weak: &Row, strong: &Row) -> bool {
    let (before, after) = (evaluation.flags(&weak.predictions), evaluation.flags(&strong.predictions));
    let gained = before.iter().zip(&after).filter(|(a, b)| a < b).count() as f64;
    let lost = before.iter().zip(&after).filter(|(a, b)| a > b).count() as f64;
    gained - lost > 2.0 * (gained + lost).sqrt() && gained - lost > BLACK_BOX * before.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Cost;
    use crate::data::ImageShape;
    use crate::engine::Norm;
    use crate::evaluate::robustness::{Plan, Role, Suite};

    /// An evaluation of a hundred images of class 0, of which each attack of a plan leaves so many.
    fn leaving(plan: &Plan, left: &[usize]) -> Evaluation {
        let images = vec![0; 100];
        let names = ["a", "b", "c", "d"].map(String::from).to_vec();
        let set = Dataset::new("test", names, ImageShape::new(1, 1, 1), images, vec![0; 100]).unwrap();
        let mut evaluation = Evaluation::new(&set);
        for (entry, left) in plan.entries.iter().zip(left) {
            evaluation.rows.push(Row {
                entry: entry.clone(),
                attacked: 100,
                predictions: (0..100).map(|i| u32::from(i >= *left)).collect(),
                without_gradient: 0,
                targets: None,
                cost: Cost::default(),
                seconds: 1.0,
            });
        }
        evaluation
    }

    fn plan() -> Plan {
        let pgd = Attack::pgd(Epsilon::levels(8.0), Epsilon::levels(2.0), 20, Norm::Linf, 0);
        let mut plan = Plan::clean();
        plan.add_suite(Suite::AutoAttack, pgd.epsilon, Norm::Linf, 0);
        plan.add_controls(&pgd);
        plan
    }

    /// Clean, the four attacks of AutoAttack, noise, radius 0, PGD-20, PGD-100.
    const HONEST: [usize; 9] = [80, 50, 45, 45, 45, 79, 80, 52, 51];

    #[test]
    fn honest_numbers_raise_no_doubt() {
        assert_eq!(of_rows(&leaving(&plan(), &HONEST)), [""; 0]);
    }

    #[test]
    fn each_sign_is_told() {
        for (at, left, expected) in [
            (4, 44, "Square, which needs no gradient, leaves 44.0 % where the attacks with gradients leave 45.0 %"),
            (5, 49, "but 49.0 % under random noise in the same ball"),
            (6, 78, "with radius 0 the predictions of 2 images differ"),
            (8, 70, "more steps should not make an attack weaker"),
        ] {
            let mut left_by = HONEST;
            left_by[at] = left;
            let told = of_rows(&leaving(&plan(), &left_by));
            assert!(told.iter().any(|told| told.contains(expected)), "{expected}: {told:?}");
        }
        let mut evaluation = leaving(&plan(), &HONEST);
        evaluation.rows[2].without_gradient = 2;
        assert!(
            of_rows(&evaluation)[0].contains("APGD-T") && of_rows(&evaluation)[0].contains("2 of 100 images had no")
        );
    }

    #[test]
    fn curves_must_not_rise() {
        let mut plan = Plan::clean();
        let pgd = |levels| Attack::pgd(Epsilon::levels(levels), Epsilon::levels(1.0), 20, Norm::Linf, 0);
        plan.add_sweep([pgd(2.0), pgd(4.0), pgd(8.0)], Role::EpsilonSweep);
        assert_eq!(of_rows(&leaving(&plan, &[80, 70, 60, 40])), [""; 0]);
        let told = of_rows(&leaving(&plan, &[80, 70, 60, 68]));
        assert!(told.len() == 1 && told[0].contains("a larger radius should not"), "{told:?}");
    }

    #[test]
    fn probabilities_and_randomness_are_told() {
        assert_eq!(of_logits(&[0.5, 3.0], &[0.5, 3.0], 2), [""; 0]);
        assert!(of_logits(&[0.25, 0.75], &[0.25, 0.75], 2)[0].contains("probabilities"));
        assert!(of_logits(&[0.5, 3.0], &[0.5, 3.1], 2)[0].contains("randomised"));
    }
}
