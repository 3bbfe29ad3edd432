use super::*;
use crate::config::{Experiment, SeriesKind};

/// A healthy run of ten classes: all accuracies rise, then stay constant.
fn healthy(epochs: u32) -> Vec<Point> {
    let at = |epoch: u32| {
        let t = 1.0 - (-f64::from(epoch + 1) / 4.0).exp();
        // Noise of the size of a validation split of a thousand images.
        let wave = 0.01 * (f64::from(epoch) * 2.3).sin();
        Point {
            epoch,
            loss: 2.3 - 1.2 * t,
            train_clean: Some(0.9 * t + wave),
            train_robust: 0.6 * t,
            clean: 0.88 * t + wave,
            clean_worst: 0.7 * t - wave,
            robust: 0.52 * t - wave,
            robust_worst: (0.3 * t + 3.0 * wave).max(0.01),
            targets: Some(9.9),
            robust_classes: vec![("cat".into(), 0.3), ("dog".into(), 0.4)],
            classes: 10,
            series: Vec::new(),
            attack: String::new(),
            method: String::new(),
        }
    };
    (0..epochs).map(at).collect()
}

fn setup() -> Setup {
    Setup {
        targeted: true,
        without_attack: false,
        train_attack: "targeted PGD-10".into(),
        attack: "PGD-10, ε 8/255".into(),
        harder_validation: false,
        validation_images: 1000,
        adapted: Vec::new(),
    }
}

/// A healthy run whose epochs from `from` on are changed; `k` counts from there.
fn changed(epochs: u32, from: u32, change: impl Fn(&mut Point, f64)) -> Vec<Point> {
    let mut points = healthy(epochs);
    points.iter_mut().skip(from as usize).for_each(|point| change(point, f64::from(point.epoch - from + 1)));
    points
}

fn state(kind: Kind, points: &[Point]) -> SignatureState {
    readings(points, &setup()).into_iter().find(|reading| reading.kind == kind).unwrap().state
}

/// Asserts that `kind` is present with these words in its numbers, and returns the epoch since which it is.
fn found(points: &[Point], kind: Kind, words: &[&str]) -> u32 {
    let present = present(points, &setup());
    let signature = present.iter().find(|signature| signature.kind == kind).unwrap_or_else(|| panic!("{present:?}"));
    for word in words {
        assert!(signature.numbers.contains(word), "{word} in {}", signature.numbers);
    }
    signature.since_epoch
}

#[test]
fn a_healthy_run_has_none_at_any_epoch() {
    for epochs in 0..60 {
        assert_eq!(present(&healthy(epochs), &setup()), [], "{epochs}");
    }
}

#[test]
fn clean_falls_for_nothing() {
    let points = changed(24, 16, |point, k| point.clean -= 0.01 * k);
    let since = found(&points, Kind::CleanFalls, &["Clean −", "PGD-10, ε 8/255"]);
    assert!((18..=22).contains(&since), "{since}");
    // The same fall together with a gain in robust accuracy is a trade-off.
    let trade = changed(24, 16, |point, k| {
        point.clean -= 0.01 * k;
        point.robust += 0.01 * k;
    });
    assert_eq!(state(Kind::CleanFalls, &trade), SignatureState::Quiet);
}

#[test]
fn worst_class_up_while_the_mean_drops() {
    let points = changed(26, 16, |point, k| {
        point.robust -= 0.015 * k.min(6.0);
        point.robust_worst += 0.03 * k.min(6.0);
    });
    found(&points, Kind::LevellingDown, &["Robust: worst class +", "mean −"]);
    let only_up = changed(26, 16, |point, k| point.robust_worst += 0.03 * k.min(6.0));
    assert_eq!(state(Kind::LevellingDown, &only_up), SignatureState::Quiet);
    let clean = changed(26, 16, |point, k| {
        point.clean -= 0.015 * k.min(6.0);
        point.clean_worst += 0.03 * k.min(6.0);
    });
    found(&clean, Kind::LevellingDown, &["Clean: worst class +"]);
}

#[test]
fn targets_collapse() {
    assert_eq!(fewest_targets(10), 10.0 / 3.0);
    assert_eq!(fewest_targets(4), 2.0);
    let points = changed(10, 5, |point, _| point.targets = Some(2.4));
    assert_eq!(found(&points, Kind::TargetCollapse, &["2.4 of 10", "below 3.3"]), 5);
    assert_eq!(state(Kind::TargetCollapse, &points[..6]), SignatureState::Watching { needs: 1, suspected: true });
    assert_eq!(state(Kind::TargetCollapse, &healthy(10)), SignatureState::Quiet);
    let untargeted = Setup { targeted: false, ..setup() };
    assert!(present(&points, &untargeted).iter().all(|signature| signature.kind != Kind::TargetCollapse));
    // With two classes every image has one possible target, which is not a collapse.
    let two = changed(10, 0, |point, _| (point.classes, point.targets) = (2, Some(1.2)));
    assert_eq!(state(Kind::TargetCollapse, &two), SignatureState::NotApplicable);
}

#[test]
fn robust_overfitting_as_published() {
    // PGD-AT of Rice et al.: 53.5 % at the best epoch falls to 45.6 % while training robust accuracy rises to 81 %.
    let points = changed(40, 16, |point, k| {
        point.robust -= 0.004 * k.min(20.0);
        point.train_robust += 0.012 * k;
    });
    let since = found(&points, Kind::RobustOverfitting, &["validation −", "training +", "targeted PGD-10"]);
    assert!((20..=32).contains(&since), "{since}");
    // A network that is trained without an attack has no robustness to lose.
    let standard = Setup { without_attack: true, ..setup() };
    assert!(present(&points, &standard).iter().all(|signature| signature.kind != Kind::RobustOverfitting));
    let both_fall = changed(40, 16, |point, k| {
        point.robust -= 0.004 * k.min(20.0);
        point.train_robust -= 0.004 * k.min(20.0);
    });
    assert_eq!(state(Kind::RobustOverfitting, &both_fall), SignatureState::Quiet);
    // The same fall on 100 images may be chance.
    let few = Setup { validation_images: 100, ..setup() };
    assert!(present(&points, &few).iter().all(|signature| signature.kind != Kind::RobustOverfitting));
}

#[test]
fn robust_against_its_own_targets_only() {
    let points = changed(12, 4, |point, _| point.train_robust += 0.25);
    let since = found(&points, Kind::TargetedOverfitting, &["Training", "validation", "threshold 20.0 points"]);
    assert!((4..=6).contains(&since), "{since}");
    // A difference that clean accuracy shows too is ordinary overfitting.
    let ordinary = changed(12, 4, |point, _| {
        point.train_robust += 0.25;
        point.train_clean = Some(point.clean + 0.2);
    });
    assert_eq!(state(Kind::TargetedOverfitting, &ordinary), SignatureState::Quiet);
    // Under an attack in a larger ball, a lower accuracy is not evidence about targets.
    for other in [Setup { targeted: false, ..setup() }, Setup { harder_validation: true, ..setup() }] {
        let reading = readings(&points, &other).pop().unwrap();
        assert_eq!((reading.kind, reading.state), (Kind::TargetedOverfitting, SignatureState::NotApplicable));
    }
}

#[test]
fn divergence() {
    let nan = changed(3, 2, |point, _| point.loss = f64::NAN);
    assert_eq!(found(&nan, Kind::Diverged, &["epoch 3 is not a number"]), 2);
    let worse = changed(12, 8, |point, _| point.loss = 3.4);
    assert_eq!(found(&worse, Kind::Diverged, &["3.400", "2.303"]), 8);
    // The first epoch of FAIR-TAT is often worse than guessing, and a slow start stays near it.
    let start = changed(8, 0, |point, k| point.loss = if k < 2.0 { 3.0 } else { 2.35 });
    assert_eq!(state(Kind::Diverged, &start), SignatureState::Quiet);
}

#[test]
fn a_class_without_robust_accuracy() {
    let dead = |point: &mut Point, _| point.robust_classes[0].1 = 0.0;
    let points = changed(10, 5, dead);
    assert_eq!(state(Kind::DeadClass, &points[..7]), SignatureState::Quiet);
    assert_eq!(state(Kind::DeadClass, &points[..8]), SignatureState::Watching { needs: 1, suspected: true });
    found(&points, Kind::DeadClass, &["cat", "PGD-10"]);
    // One correct image of twenty does not end the signature, three do.
    let mut one_right = points.clone();
    one_right[9].robust_classes[0].1 = 0.05;
    assert_eq!(state(Kind::DeadClass, &one_right), SignatureState::Present { since: 7 });
    one_right[9].robust_classes[0].1 = 0.15;
    assert_eq!(state(Kind::DeadClass, &one_right), SignatureState::Quiet);
    // Different classes at zero in turn are noise, and before a network has learnt anything, every class may be at
    // zero.
    let turns = changed(10, 0, |point, k| point.robust_classes[k as usize % 2].1 = 0.0);
    assert_eq!(state(Kind::DeadClass, &turns), SignatureState::Quiet);
    let beginning = changed(10, 0, |point, _| (point.robust, point.robust_classes[0].1) = (0.1, 0.0));
    assert_eq!(state(Kind::DeadClass, &beginning), SignatureState::Quiet);
}

/// Between the two thresholds a signature keeps its state; below the lower one it disappears.
#[test]
fn noise_round_the_threshold_does_not_flicker() {
    let limit = fewest_targets(10);
    let wobble = |point: &mut Point, k: f64| {
        point.targets = Some(limit * if (k as u32).is_multiple_of(2) { 1.05 } else { 0.97 })
    };
    // Every second epoch above the threshold is not two in a row.
    let points = changed(20, 5, wobble);
    for t in 1..20 {
        assert!(!matches!(state(Kind::TargetCollapse, &points[..t]), SignatureState::Present { .. }), "{t}");
    }
    // Once the signature is clearly present, the same noise does not make it disappear and reappear.
    let points = changed(20, 5, |point, k| if k < 3.0 { point.targets = Some(2.0) } else { wobble(point, k) });
    for t in 7..20 {
        assert_eq!(state(Kind::TargetCollapse, &points[..t]), SignatureState::Present { since: 5 }, "{t}");
    }
    let points = changed(20, 5, |point, k| point.targets = Some(if k < 5.0 { 2.0 } else { 6.0 }));
    assert_eq!(state(Kind::TargetCollapse, &points), SignatureState::Quiet);
}

const WEAK: &str = "PGD-10, ε 2/255";
const STRONG: &str = "PGD-10, ε 16/255";

/// A healthy run that is validated under a weak attack up to epoch `from` and under a strong one after that: robust
/// accuracy falls from one epoch to the next, and nothing else is different.
fn harder_from(from: u32, epochs: u32, names: [&str; 2]) -> Vec<Point> {
    let mut points = healthy(epochs);
    for point in &mut points {
        let strong = point.epoch >= from;
        point.attack = names[usize::from(strong)].into();
        if strong {
            point.robust *= 0.4;
            point.robust_worst *= 0.4;
            point.robust_classes.iter_mut().for_each(|class| class.1 *= 0.4);
        }
    }
    points
}

#[test]
fn a_change_of_the_validation_attack_alone_is_no_signature() {
    for from in [4, 8, 15] {
        for epochs in from..40 {
            let points = harder_from(from, epochs, [WEAK, STRONG]);
            let harder = Setup { harder_validation: true, ..setup() };
            assert_eq!(present(&points, &harder), [], "changed at {from}, {epochs} epochs");
            // With the attacks swapped, robust accuracy rises.
            let mut easier = points;
            easier.iter_mut().for_each(|point| point.robust = if point.epoch < from { 0.4 } else { 0.5 });
            let found = present(&easier, &setup());
            assert_eq!(found, [], "easier from {from}, {epochs} epochs");
        }
    }
    // The same values under one attack do show signatures.
    let kinds = |points: &[Point]| present(points, &setup()).iter().map(|s| s.kind).collect::<Vec<_>>();
    assert!(kinds(&harder_from(8, 24, [STRONG, STRONG])).contains(&Kind::RobustOverfitting));
    assert!(kinds(&harder_from(8, 24, ["", ""])).contains(&Kind::RobustOverfitting));
}

#[test]
fn windows_begin_anew_with_the_attack() {
    let reading = |points: &[Point], kind| readings(points, &setup()).into_iter().find(|r| r.kind == kind).unwrap();
    let points = harder_from(8, 12, [WEAK, STRONG]);
    let overfitting = reading(&points, Kind::RobustOverfitting);
    assert_eq!(overfitting.state, SignatureState::Watching { needs: 2, suspected: false });
    // The curves cover the whole run and mark the change.
    assert_eq!((overfitting.series[1].values.len(), overfitting.changes.as_slice()), (12, &[8][..]));
    assert!(overfitting.series[1].name.contains(STRONG), "{}", overfitting.series[1].name);
    // Loss and targets do not depend on the validation attack.
    assert_eq!(reading(&points, Kind::Diverged).changes, [0usize; 0]);
    assert_eq!(state(Kind::TargetCollapse, &points), SignatureState::Quiet);
    // A fall under the new attack is found among its own epochs.
    let mut falling = harder_from(8, 40, [WEAK, STRONG]);
    for point in falling.iter_mut().skip(20) {
        point.robust -= 0.006 * f64::from(point.epoch - 19).min(15.0);
        point.train_robust += 0.02 * f64::from(point.epoch - 19);
    }
    let since = found(&falling, Kind::RobustOverfitting, &["validation −", STRONG]);
    assert!((20..36).contains(&since), "{since}");
}

#[test]
fn says_how_many_epochs_are_missing() {
    assert_eq!(state(Kind::RobustOverfitting, &healthy(4)), SignatureState::Watching { needs: 2, suspected: false });
    assert_eq!(state(Kind::TargetedOverfitting, &healthy(1)), SignatureState::Watching { needs: 2, suspected: false });
    assert_eq!(state(Kind::RobustOverfitting, &healthy(6)), SignatureState::Quiet);
}

#[test]
fn effective_number_by_hand() {
    assert_eq!(effective_number(&[1.0, 0.0]), Some(1.0));
    assert!((effective_number(&[0.25; 4]).unwrap() - 4.0).abs() < 1e-12);
    // H = 2 · ½ · ln 2, so exp(H) = 2.
    assert!((effective_number(&[0.5, 0.5, 0.0]).unwrap() - 2.0).abs() < 1e-12);
    assert_eq!(effective_number(&[0.5, f64::NAN]), None);
    assert_eq!(effective_number(&[0.5, 0.2]), None);
    assert_eq!(effective_number(&[]), None);
}

#[test]
fn points_come_from_the_rows_of_their_epoch() {
    let class = |epoch, k: u32, p| ClassRow {
        epoch,
        class: k,
        name: format!("c{k}"),
        epsilon: 0.03,
        target_probability: p,
        cfps: 0.5,
        train_robust_accuracy: 0.4,
        train_clean_accuracy: None,
        val_clean_accuracy: 0.8,
        val_robust_accuracy: f64::from(k) * 0.4,
        series: if epoch == 0 { vec![("weight".into(), f64::from(k))] } else { Vec::new() },
    };
    let row = |epoch| MetricsRow {
        epoch,
        lr: 0.1,
        train_loss: 1.0,
        train_clean_accuracy: None,
        train_robust_accuracy: 0.4,
        val_clean_accuracy: 0.8,
        val_clean_worst: 0.8,
        val_robust_accuracy: 0.2,
        val_robust_worst: 0.0,
        seconds: 1.0,
        seconds_attack: 0.7,
        seconds_update: 0.2,
        seconds_statistics: 0.1,
        val_attack: String::new(),
        val_without_gradient: None,
        method: String::new(),
        val_robust_worst_tenth: None,
    };
    let classes = [class(0, 0, Some(0.5)), class(0, 1, Some(0.5)), class(1, 0, None), class(1, 1, None)];
    let points = points(&[row(0), row(1)], &classes);
    assert_eq!((points[0].targets.map(f64::round), points[1].targets), (Some(2.0), None));
    assert_eq!(points[0].series, [("weight".to_owned(), vec![0.0, 1.0])]);
    assert_eq!(points[1].series, []);
    assert_eq!(
        (points[0].robust_classes.clone(), points[0].classes),
        (vec![("c0".to_owned(), 0.0), ("c1".to_owned(), 0.4)], 2)
    );
}

/// A setup whose method has one class series, and a healthy run of `epochs` epochs with the values of `series` in it.
fn adapting(meaning: Meaning, classes: usize, epochs: u32, series: impl Fn(u32) -> Vec<f64>) -> (Setup, Vec<Point>) {
    let adapted = vec![Adapted { method: "wat".into(), name: "weight", title: "Weight of the loss", meaning }];
    let mut points = healthy(epochs);
    for point in &mut points {
        point.classes = classes;
        point.robust_classes = (0..classes).map(|k| (format!("c{k}"), 0.3)).collect();
        point.series = vec![("other".into(), vec![0.0; classes]), ("weight".into(), series(point.epoch))];
    }
    (Setup { adapted, ..setup() }, points)
}

/// The reading of a kind after `epochs` epochs.
fn after(kind: Kind, (setup, points): &(Setup, Vec<Point>), epochs: usize) -> Reading {
    readings(&points[..epochs], setup).into_iter().find(|reading| reading.kind == kind).unwrap()
}

/// Asserts that a kind is present since an epoch at the end of a run, with these words in its numbers.
fn present_since(kind: Kind, run: &(Setup, Vec<Point>), since: u32, words: &[&str]) {
    let reading = after(kind, run, run.1.len());
    assert_eq!(reading.state, SignatureState::Present { since }, "{}", reading.numbers);
    for word in words {
        assert!(reading.numbers.contains(word), "{word} in {}", reading.numbers);
    }
}

const WEIGHT: Meaning = Meaning::Weight { least: None };

/// `exceptions` among weights that are 1 otherwise.
fn weights(classes: usize, others: f64, exceptions: &[(usize, f64)]) -> Vec<f64> {
    let mut weights = vec![others; classes];
    exceptions.iter().for_each(|(k, weight)| weights[*k] = *weight);
    weights
}

#[test]
fn weights_that_concentrate_on_few_classes() {
    // As WAT: all 2 at first, then nearly everything on two of ten classes: exp(H) is a little above 2.
    let few = weights(10, 0.05, &[(3, 4.9), (5, 4.7)]);
    let run = adapting(WEIGHT, 10, 12, |epoch| if epoch < 5 { vec![2.0; 10] } else { few.clone() });
    present_since(Kind::WeightsConcentrated, &run, 5, &["2.5 of 10", "below 3.3", "c3 4.90"]);
    let reading = after(Kind::WeightsConcentrated, &run, 12);
    assert_eq!((reading.series[0].values[0].map(f64::round), reading.limit), (Some(10.0), Some(10.0 / 3.0)));
    let suspected = SignatureState::Watching { needs: 1, suspected: true };
    assert_eq!(after(Kind::WeightsConcentrated, &run, 6).state, suspected);
    assert_eq!(after(Kind::WeightsConcentrated, &run, 5).state, SignatureState::Quiet);
    // It disappears when the weights spread again; nothing else is found in the run.
    let spread = adapting(WEIGHT, 10, 12, |epoch| if epoch < 9 { few.clone() } else { weights(10, 0.9, &[(3, 1.9)]) });
    present_since(Kind::WeightsConcentrated, &(spread.0.clone(), spread.1[..9].to_vec()), 0, &[]);
    assert_eq!(after(Kind::WeightsConcentrated, &spread, 12).state, SignatureState::Quiet);
    assert_eq!(present(&spread.1, &spread.0), []);
    // A third of a hundred classes; two classes cannot concentrate.
    let many = weights(100, 0.0, &(0..20).map(|k| (5 * k, 5.0)).collect::<Vec<_>>());
    present_since(Kind::WeightsConcentrated, &adapting(WEIGHT, 100, 4, |_| many.clone()), 0, &["20.0 of 100"]);
    let two = adapting(WEIGHT, 2, 4, |_| vec![1.99, 0.01]);
    assert_eq!(after(Kind::WeightsConcentrated, &two, 4).state, SignatureState::NotApplicable);
}

/// The same column belongs to several methods.
#[test]
fn epochs_of_another_method_are_not_judged() {
    let mut run = adapting(WEIGHT, 10, 8, |_| weights(10, 0.05, &[(3, 9.0)]));
    present_since(Kind::WeightsConcentrated, &run, 0, &[]);
    run.1.iter_mut().for_each(|point| point.method = if point.epoch < 5 { "dafa" } else { "wat" }.into());
    present_since(Kind::WeightsConcentrated, &run, 5, &[]);
    // No epoch of the run's own method yet.
    run.1.iter_mut().for_each(|point| point.method = "dafa".into());
    let waiting = SignatureState::Watching { needs: 1, suspected: false };
    assert_eq!(after(Kind::WeightsConcentrated, &run, 8).state, waiting);
}

#[test]
fn a_weight_at_its_lower_bound() {
    let clamped = Meaning::Weight { least: Some(0.01) };
    let of = |smallest| weights(10, 1.1, &[(1, smallest), (9, 0.4)]);
    let run = adapting(clamped.clone(), 10, 10, |epoch| if epoch < 4 { vec![1.0; 10] } else { of(0.01) });
    present_since(Kind::WeightAtMinimum, &run, 4, &["Weight 0.01", "c1."]);
    assert_eq!(after(Kind::WeightAtMinimum, &run, 4).state, SignatureState::Quiet);
    let above = adapting(clamped.clone(), 10, 10, |epoch| of(if epoch < 6 { 0.01 } else { 0.02 }));
    assert_eq!(after(Kind::WeightAtMinimum, &above, 6).state, SignatureState::Present { since: 0 });
    assert_eq!(after(Kind::WeightAtMinimum, &above, 10).state, SignatureState::Quiet);
    assert!(after(Kind::WeightAtMinimum, &above, 10).numbers.contains("c1 0.02; the lower bound is 0.01"));
    // Without a bound, a weight of 0 is nothing unusual: a class without mistakes.
    let unbounded = adapting(WEIGHT, 10, 10, |_| of(0.0));
    assert_eq!(after(Kind::WeightAtMinimum, &unbounded, 10).state, SignatureState::NotApplicable);
    let many = weights(100, 1.0, &(0..8).map(|k| (k, 0.01)).collect::<Vec<_>>());
    let many = adapting(clamped.clone(), 100, 3, |_| many.clone());
    present_since(Kind::WeightAtMinimum, &many, 0, &["c0, c1, c2, c3, c4 and 3 others"]);
    present_since(Kind::WeightAtMinimum, &adapting(clamped, 2, 3, |_| vec![1.99, 0.01]), 0, &["c1"]);
}

/// `1/K + l - mean l` for these multipliers.
fn limited(multipliers: &[f64]) -> Vec<f64> {
    let classes = multipliers.len() as f64;
    let mean = multipliers.iter().sum::<f64>() / classes;
    multipliers.iter().map(|l| 1.0 / classes + l - mean).collect()
}

#[test]
fn multipliers_that_reach_the_limit_of_their_sum() {
    let kind = Kind::MultipliersAtLimit;
    for classes in [2, 10, 100] {
        let of = |sum: f64| limited(&weights(classes, 0.0, &[(0, 0.4 * sum), (1, 0.6 * sum)]));
        // Two classes with a multiplier each do not show their sum.
        let of = |sum: f64| if classes == 2 { limited(&[0.0, sum]) } else { of(sum) };
        let sum = |epoch: u32| [0.0, 0.2, 0.4, 0.499, 0.5, 0.5, 0.5, 0.36, 0.34, 0.1][epoch as usize];
        let run = adapting(Meaning::LimitedWeight { limit: 0.5 }, classes, 10, |epoch| of(sum(epoch)));
        let state = |epochs| after(kind, &run, epochs).state;
        assert_eq!((state(1), state(4)), (SignatureState::Quiet, SignatureState::Quiet), "{classes}");
        assert_eq!(state(5), SignatureState::Watching { needs: 1, suspected: true });
        // It stays while the sum is near the limit, and disappears below 0.7 of it.
        assert_eq!((state(6), state(8)), (SignatureState::Present { since: 4 }, SignatureState::Present { since: 4 }));
        assert_eq!((state(9), state(10)), (SignatureState::Quiet, SignatureState::Quiet));
        let reading = after(kind, &run, 6);
        assert!(reading.numbers.contains("0.50 of at most 0.50 (weight of the loss)"), "{}", reading.numbers);
        assert_eq!((reading.series.len(), reading.limit), (1, Some(0.5 / classes as f64)));
    }
    let whole = adapting(Meaning::LimitedWeight { limit: 1.0 }, 3, 3, |_| limited(&[0.0, 0.0, 1.0]));
    present_since(kind, &whole, 0, &["1.00 of at most 1.00", "c2 1.000, against 0.333"]);
}

#[test]
fn a_budget_that_no_class_uses() {
    let kind = Kind::BudgetUnused;
    for classes in [2, 10, 100] {
        let budget = Meaning::Budget { steps: vec![0, 0, 3] };
        // From the third epoch on every image resists; in the last three one class uses a tenth of its budget.
        let used = |epoch: u32| match epoch {
            0 | 1 => vec![0.0; classes],
            2..=6 => weights(classes, 0.0, &[(1, 0.05)]),
            _ => weights(classes, 0.0, &[(1, 0.3)]),
        };
        let run = adapting(budget, classes, 10, used);
        let state = |epochs| after(kind, &run, epochs).state;
        assert_eq!(
            (state(2), state(3)),
            (SignatureState::Quiet, SignatureState::Watching { needs: 1, suspected: true })
        );
        assert!(after(kind, &run, 2).numbers.contains("budget of epoch 2 is 0"));
        assert_eq!((state(7), state(8)), (SignatureState::Present { since: 2 }, SignatureState::Quiet));
        let numbers = after(kind, &run, 7).numbers;
        assert!(numbers.contains("c1: 0.050 of 3 steps, 1.7 %"), "{numbers}");
        // The whole budget of every class is normal.
        let spent = adapting(Meaning::Budget { steps: vec![3] }, classes, 10, |_| vec![3.0; classes]);
        assert_eq!(after(kind, &spent, 10).state, SignatureState::Quiet);
    }
}

#[test]
fn class_series_follow_the_settings_of_the_method() {
    use crate::config::{BaseMethod, MethodChoice};
    use clap::ValueEnum;
    let kinds = [Kind::WeightsConcentrated, Kind::WeightAtMinimum, Kind::MultipliersAtLimit, Kind::BudgetUnused];
    let mut e = Experiment::default();
    // FAIR-TAT has none of them, unless it is built on Friendly adversarial training.
    assert_eq!(Adapted::of(&e), []);
    for kind in kinds {
        let reading = readings(&healthy(9), &setup()).into_iter().find(|reading| reading.kind == kind).unwrap();
        assert_eq!((reading.state, reading.series.len()), (SignatureState::NotApplicable, 0), "{kind:?}");
    }
    e.fairness.base = BaseMethod::Fat;
    (e.fat.tau, e.fat.tau_epochs, e.optimizer.epochs) = (vec![1, 3], vec![2], 4);
    assert_eq!(Adapted::of(&e)[0].meaning, Meaning::Budget { steps: vec![1, 1, 3, 3] });
    e.frl.limit = 0.25;
    for method in MethodChoice::value_variants() {
        e.fairness.method = *method;
        let found = Adapted::of(&e);
        let expected = e.series().filter(|series| !matches!(series.kind, SeriesKind::Number)).count();
        assert_eq!(found.len(), expected, "{method:?}");
        for series in found {
            match series.meaning {
                Meaning::LimitedWeight { limit } => assert_eq!(limit, 0.25),
                Meaning::Weight { least } => assert_eq!(least.is_some(), *method == MethodChoice::Dafa, "{method:?}"),
                Meaning::Budget { .. } => {}
            }
        }
    }
}

/// A run that has just switched to a method has rows without its series.
#[test]
fn rows_without_the_series_are_not_judged() {
    let (setup, mut points) = adapting(WEIGHT, 10, 6, |_| weights(10, 0.0, &[(3, 10.0)]));
    points.iter_mut().for_each(|point| point.series.clear());
    let run = (setup, points);
    let waiting = SignatureState::Watching { needs: 1, suspected: false };
    assert_eq!(after(Kind::WeightsConcentrated, &run, 6).state, waiting);
    assert_eq!(after(Kind::WeightsConcentrated, &run, 0).state, waiting);
    let (setup, mut points) = run;
    points[5].series = vec![("weight".into(), vec![f64::NAN; 10])];
    assert_eq!(after(Kind::WeightsConcentrated, &(setup, points), 6).state, waiting);
}
