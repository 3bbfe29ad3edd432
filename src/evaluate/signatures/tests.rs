use super::*;

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
            attack: String::new(),
        }
    };
    (0..epochs).map(at).collect()
}

fn setup() -> Setup {
    Setup {
        targeted: true,
        train_attack: "targeted PGD-10".into(),
        attack: "PGD-10, ε 8/255".into(),
        harder_validation: false,
        validation_images: 1000,
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
        series: Vec::new(),
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
    };
    let classes = [class(0, 0, Some(0.5)), class(0, 1, Some(0.5)), class(1, 0, None), class(1, 1, None)];
    let points = points(&[row(0), row(1)], &classes);
    assert_eq!((points[0].targets.map(f64::round), points[1].targets), (Some(2.0), None));
    assert_eq!(
        (points[0].robust_classes.clone(), points[0].classes),
        (vec![("c0".to_owned(), 0.0), ("c1".to_owned(), 0.4)], 2)
    );
}
