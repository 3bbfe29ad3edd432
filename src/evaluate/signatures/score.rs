//! The score of each signature, and its state over the epochs.

use super::adapted;
use super::{
    CLEAN_FALL, DIVERGED, HOLD, Kind, LEARNING, LOST, MEAN_DROP, NOISE, Point, RELEASE, ROBUST_FALL, ROBUST_GAIN,
    Reading, Series, Setup, SignatureState, TARGETED_EXCESS, TRAIN_GAIN, WINDOW, WORST_GAIN, fewest_targets,
};
use crate::train::validation_changes;

/// The score of a signature after one epoch.
pub(super) struct Score {
    /// 1 if the thresholds are just met.
    pub(super) value: f64,
    /// The measured values, in a sentence.
    pub(super) numbers: String,
}

/// See [`super::readings`].
pub(super) fn reading(kind: Kind, points: &[Point], setup: &Setup) -> Reading {
    let (series, limit) = series(kind, points, setup);
    let changes = if looks_at_validation(kind) { changes(points) } else { Vec::new() };
    let blank = |state| Reading {
        kind,
        state,
        numbers: String::new(),
        series: series.clone(),
        limit,
        changes: changes.clone(),
    };
    if !applies(kind, points, setup) {
        return Reading {
            series: Vec::new(),
            limit: None,
            changes: Vec::new(),
            ..blank(SignatureState::NotApplicable)
        };
    }
    let points = &points[changes.last().copied().unwrap_or(0)..];
    let (mut state, mut streak, mut numbers) = (SignatureState::Quiet, 0u32, String::new());
    let mut scored = false;
    for t in 0..points.len() {
        let Some(score) = score(kind, &points[..=t], setup) else {
            streak = 0;
            continue;
        };
        scored = true;
        streak = if score.value >= 1.0 { streak + 1 } else { 0 };
        let hold = hold(kind, &points[t]);
        state = match state {
            SignatureState::Present { .. } if score.value >= RELEASE => state,
            _ if streak >= hold => SignatureState::Present { since: points[t + 1 - streak as usize].epoch },
            _ if streak > 0 => SignatureState::Watching { needs: hold - streak, suspected: true },
            _ => SignatureState::Quiet,
        };
        numbers = score.numbers;
    }
    if !scored {
        let needs = (first(kind).saturating_sub(points.len()) as u32).max(1);
        return blank(SignatureState::Watching { needs, suspected: false });
    }
    Reading { state, numbers, ..blank(SignatureState::Quiet) }
}

/// Indices of the points at which the validation attack changed.
fn changes(points: &[Point]) -> Vec<usize> {
    let numbered = points.iter().enumerate().map(|(i, point)| (i as u32, point.attack.as_str()));
    validation_changes(numbered).iter().map(|change| change.epoch as usize).collect()
}

/// Whether the score uses accuracies on the validation split, which are not comparable with those under another attack.
const fn looks_at_validation(kind: Kind) -> bool {
    match kind {
        Kind::Diverged
        | Kind::TargetCollapse
        | Kind::WeightsConcentrated
        | Kind::WeightAtMinimum
        | Kind::MultipliersAtLimit
        | Kind::BudgetUnused => false,
        Kind::DeadClass
        | Kind::CleanFalls
        | Kind::LevellingDown
        | Kind::RobustOverfitting
        | Kind::TargetedOverfitting => true,
    }
}

/// Whether the signature can appear in the run at all.
fn applies(kind: Kind, points: &[Point], setup: &Setup) -> bool {
    match kind {
        // Without a training attack there is no robustness to lose.
        Kind::RobustOverfitting => !setup.without_attack,
        Kind::TargetedOverfitting => setup.targeted && !setup.harder_validation,
        // With two classes there is only one possible target.
        Kind::TargetCollapse => {
            setup.targeted && points.last().is_none_or(|point| point.targets.is_some() && point.classes > 2)
        }
        Kind::WeightsConcentrated | Kind::WeightAtMinimum | Kind::MultipliersAtLimit | Kind::BudgetUnused => {
            adapted::applies(kind, points, setup)
        }
        _ => true,
    }
}

/// Epochs that are needed before a signature can be detected.
const fn first(kind: Kind) -> usize {
    match kind {
        Kind::Diverged
        | Kind::TargetCollapse
        | Kind::WeightsConcentrated
        | Kind::WeightAtMinimum
        | Kind::MultipliersAtLimit
        | Kind::BudgetUnused => 1,
        Kind::DeadClass | Kind::TargetedOverfitting => WINDOW,
        // The best window must lie before the last one.
        Kind::CleanFalls | Kind::LevellingDown | Kind::RobustOverfitting => 2 * WINDOW,
    }
}

/// Epochs in a row that must show it. One is enough if the loss is not a number, because training cannot recover from
/// that.
fn hold(kind: Kind, point: &Point) -> u32 {
    if kind == Kind::Diverged && !point.loss.is_finite() { 1 } else { HOLD }
}

/// The score after the last of `points`. `None` while it cannot be computed.
fn score(kind: Kind, points: &[Point], setup: &Setup) -> Option<Score> {
    let last = points.last()?;
    if points.len() < first(kind) {
        return None;
    }
    match kind {
        Kind::Diverged => diverged(points, last),
        Kind::DeadClass => dead_class(points, last, setup),
        Kind::TargetCollapse => collapse(last),
        Kind::WeightsConcentrated | Kind::WeightAtMinimum | Kind::MultipliersAtLimit | Kind::BudgetUnused => {
            adapted::score(kind, last, setup)
        }
        Kind::CleanFalls => clean_falls(points, setup),
        Kind::LevellingDown => levelling_down(points, setup),
        Kind::RobustOverfitting => robust_overfitting(points, setup),
        Kind::TargetedOverfitting => targeted_overfitting(points, setup),
    }
}

fn diverged(points: &[Point], last: &Point) -> Option<Score> {
    let guessing = (last.classes.max(2) as f64).ln();
    if !last.loss.is_finite() {
        let numbers = format!("The loss of epoch {} is not a number.", last.epoch + 1);
        return Some(Score { value: f64::INFINITY, numbers });
    }
    let numbers = format!("Loss {:.3}; guessing gives {guessing:.3}.", last.loss);
    // A network may begin worse than guessing, but must not stay so.
    let value = if points.len() < WINDOW { 0.0 } else { last.loss / (DIVERGED * guessing) };
    // 0.84 · ln K would reach score 0.7, but is a slow start, not divergence.
    Some(Score { value: if value < 1.0 { 0.0 } else { value }, numbers })
}

fn dead_class(points: &[Point], last: &Point, setup: &Setup) -> Option<Score> {
    let recent = &points[points.len() - WINDOW..];
    let learning = LEARNING / last.classes.max(1) as f64;
    let learnt = recent.iter().all(|point| point.robust >= learning);
    // The highest accuracy of each class in the window.
    let highest = |name: &str| {
        let of = |point: &Point| point.robust_classes.iter().find(|class| class.0 == name).map_or(0.0, |class| class.1);
        recent.iter().map(of).fold(0.0, f64::max)
    };
    let at_most = |limit: f64| -> Vec<&str> {
        let names = last.robust_classes.iter().map(|class| class.0.as_str());
        names.filter(|name| learnt && highest(name) <= limit).collect()
    };
    let (dead, lost) = (at_most(0.0), at_most(LOST));
    let (attack, mean) = (&setup.attack, percent(last.robust));
    let (value, numbers) = match (dead.is_empty(), lost.is_empty()) {
        (false, _) => {
            (1.0, format!("0 % for {WINDOW} epochs or more: {} (validation, {attack}). Mean {mean}.", dead.join(", ")))
        }
        (_, false) => (
            RELEASE,
            format!(
                "At most {} in the last {WINDOW} epochs: {} (validation, {attack}). Mean {mean}.",
                percent(LOST),
                lost.join(", ")
            ),
        ),
        _ => (0.0, format!("Mean {mean}, worst class {} (validation, {attack}).", percent(last.robust_worst))),
    };
    Some(Score { value, numbers })
}

fn collapse(last: &Point) -> Option<Score> {
    let (effective, limit) = (last.targets?, fewest_targets(last.classes));
    let numbers =
        format!("Effective number of targets {effective:.1} of {} classes; collapsed below {limit:.1}.", last.classes);
    Some(Score { value: limit / effective.max(1.0), numbers })
}

fn clean_falls(points: &[Point], setup: &Setup) -> Option<Score> {
    let (best, now) = best_and_last(points, |point| point.clean)?;
    let (clean, robust) = (|point: &Point| point.clean, |point: &Point| point.robust);
    let fall = mean(best, clean) - mean(now, clean);
    let gain = mean(now, robust) - mean(best, robust);
    let threshold = CLEAN_FALL.max(noise(mean(best, clean), setup.validation_images));
    let value = fall / threshold;
    let numbers = format!(
        "Clean {} since epochs {} (threshold {}); robust {} in that time ({}).",
        change(-fall),
        span(best),
        change(-threshold),
        change(gain),
        setup.attack
    );
    // A gain above the threshold lowers the score in proportion.
    Some(Score { value: if gain > ROBUST_GAIN { value.min(ROBUST_GAIN / gain) } else { value }, numbers })
}

fn levelling_down(points: &[Point], setup: &Setup) -> Option<Score> {
    type Column = fn(&Point) -> f64;
    let pairs: [(&str, Column, Column); 2] = [
        ("Robust", |point| point.robust, |point| point.robust_worst),
        ("Clean", |point| point.clean, |point| point.clean_worst),
    ];
    let classes = points.last()?.classes.max(1);
    let scores = pairs.iter().filter_map(|(name, all, worst)| {
        let (best, now) = best_and_last(points, all)?;
        let drop = mean(best, all) - mean(now, all);
        let gain = mean(now, worst) - mean(best, worst);
        let images = setup.validation_images;
        let least_drop = MEAN_DROP.max(noise(mean(best, all), images));
        let least_gain = WORST_GAIN.max(noise(mean(now, worst), images / classes));
        let attack = if *name == "Robust" { format!(" ({})", setup.attack) } else { String::new() };
        let numbers = format!(
            "{name}: worst class {}, mean {} since epochs {}{attack}; named from {} and {}.",
            change(gain),
            change(-drop),
            span(best),
            change(least_gain),
            change(-least_drop)
        );
        Some(Score { value: (drop / least_drop).min(gain / least_gain), numbers })
    });
    scores.max_by(|a, b| a.value.total_cmp(&b.value))
}

fn robust_overfitting(points: &[Point], setup: &Setup) -> Option<Score> {
    let (robust, train) = (|point: &Point| point.robust, |point: &Point| point.train_robust);
    let (best, now) = best_and_last(points, robust)?;
    let fall = mean(best, robust) - mean(now, robust);
    let gain = mean(now, train) - mean(best, train);
    let threshold = ROBUST_FALL.max(noise(mean(best, robust), setup.validation_images));
    let numbers = format!(
        "Since epochs {}: validation {} ({}; threshold {}), training {} ({}).",
        span(best),
        change(-fall),
        setup.attack,
        change(-threshold),
        change(gain),
        setup.train_attack
    );
    Some(Score { value: (fall / threshold).min(gain / TRAIN_GAIN), numbers })
}

fn targeted_overfitting(points: &[Point], setup: &Setup) -> Option<Score> {
    let recent = &points[points.len() - WINDOW..];
    let (train, robust) = (mean(recent, |point| point.train_robust), mean(recent, |point| point.robust));
    let clean: Option<Vec<f64>> =
        recent.iter().map(|point| point.train_clean.map(|train| (train - point.clean).max(0.0))).collect();
    let memorised = clean.map_or(0.0, |differences| differences.iter().sum::<f64>() / WINDOW as f64);
    let threshold = TARGETED_EXCESS.max(noise(robust, setup.validation_images));
    let excess = train - robust - memorised;
    let numbers = format!(
        "Training {} ({}), validation {} ({}), mean of {WINDOW} epochs. Difference without the {} that clean accuracy \
         differs by: {}; threshold {}.",
        percent(train),
        setup.train_attack,
        percent(robust),
        setup.attack,
        points_of(memorised),
        points_of(excess),
        points_of(threshold)
    );
    Some(Score { value: excess / threshold, numbers })
}

/// The window with the highest mean that ends before the last window begins, and the last window.
fn best_and_last(points: &[Point], value: impl Fn(&Point) -> f64) -> Option<(&[Point], &[Point])> {
    let (before, now) = points.split_at(points.len().checked_sub(WINDOW)?);
    let best = before.windows(WINDOW).max_by(|a, b| mean(a, &value).total_cmp(&mean(b, &value)))?;
    Some((best, now))
}

fn mean(points: &[Point], value: impl Fn(&Point) -> f64) -> f64 {
    points.iter().map(value).sum::<f64>() / points.len().max(1) as f64
}

/// The sampling error of an accuracy on this many images: [`NOISE`] standard errors.
fn noise(accuracy: f64, images: usize) -> f64 {
    if images == 0 { 0.0 } else { NOISE * (accuracy * (1.0 - accuracy)).max(0.0).sqrt() / (images as f64).sqrt() }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

fn points_of(share: f64) -> String {
    format!("{:.1} points", 100.0 * share)
}

/// A signed change.
fn change(share: f64) -> String {
    let sign = if share < 0.0 { '−' } else { '+' };
    format!("{sign}{:.1} points", 100.0 * share.abs())
}

/// The epochs of a window, counted from 1.
fn span(window: &[Point]) -> String {
    match (window.first(), window.last()) {
        (Some(first), Some(last)) => format!("{}–{}", first.epoch + 1, last.epoch + 1),
        _ => String::new(),
    }
}

/// The curves that the signature is computed from, and the level that one of them must not cross, if any.
fn series(kind: Kind, points: &[Point], setup: &Setup) -> (Vec<Series>, Option<f64>) {
    let of = |name: String, value: &dyn Fn(&Point) -> Option<f64>| Series {
        name,
        values: points.iter().map(value).collect(),
    };
    let (attack, train_attack) = (&setup.attack, &setup.train_attack);
    let robust = || of(format!("robust, validation, {attack}"), &|point| Some(point.robust));
    let worst = || of(format!("worst class, validation, {attack}"), &|point| Some(point.robust_worst));
    let train = || of(format!("robust, training, {train_attack}"), &|point| Some(point.train_robust));
    let clean = || of("clean, validation".into(), &|point| Some(point.clean));
    let classes = points.last().map_or(0, |point| point.classes);
    match kind {
        Kind::Diverged => {
            let loss = of("training loss".into(), &|point| Some(point.loss).filter(|loss| loss.is_finite()));
            (vec![loss], (classes > 1).then(|| DIVERGED * (classes as f64).ln()))
        }
        Kind::DeadClass => (vec![robust(), worst()], None),
        Kind::TargetCollapse => {
            let targets = of("effective number of targets".into(), &|point| point.targets);
            (vec![targets], (classes > 2).then(|| fewest_targets(classes)))
        }
        Kind::WeightsConcentrated | Kind::WeightAtMinimum | Kind::MultipliersAtLimit | Kind::BudgetUnused => {
            adapted::curves(kind, points, setup)
        }
        Kind::CleanFalls => (vec![clean(), robust()], None),
        Kind::LevellingDown => (vec![robust(), worst()], None),
        Kind::RobustOverfitting | Kind::TargetedOverfitting => (vec![train(), robust()], None),
    }
}
