//! Signatures of class series: weights, multipliers and budgets, judged by what they mean, whatever the method.

use super::score::{Score, percent};
use super::{Kind, Point, Series, Setup, UNUSED, effective_number, fewest_targets};
use crate::config::{Experiment, SeriesKind};

/// Tolerance of comparisons with a lower bound of weights.
const BOUND_TOLERANCE: f64 = 1e-9;
/// Tolerance of comparisons with the weight of a class without a multiplier, which is computed from the limit.
const LIMIT_TOLERANCE: f64 = 1e-6;
/// Classes that a sentence names at most.
const NAMED: usize = 5;

/// A class series of a run's method.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapted {
    /// The method. Epochs of another one, before the run was changed, are left out: their values have another meaning.
    pub method: String,
    /// Its column in `classes.csv`.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// What its values are.
    pub meaning: Meaning,
}

/// What the values of a class series are; [`SeriesKind`] with the settings of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    /// Weights of the loss.
    Weight {
        /// The lower bound to which they are clamped, if any.
        least: Option<f64>,
    },
    /// Weights `1/K + l_k - mean l` from multipliers `l ≥ 0` whose sum is at most `limit`.
    LimitedWeight {
        /// The limit, at most 1.
        limit: f64,
    },
    /// Mean steps per image, of at most a budget.
    Budget {
        /// The budget of each epoch of the run; later epochs have the last one.
        steps: Vec<u32>,
    },
}

impl Adapted {
    /// The class series of an experiment's method that signatures depend on.
    pub fn of(experiment: &Experiment) -> Vec<Self> {
        let epochs = experiment.optimizer.epochs;
        let meaning = |kind| {
            Some(match kind {
                SeriesKind::Weight { clamp } => Meaning::Weight { least: clamp },
                SeriesKind::LimitedWeight(limit) => Meaning::LimitedWeight { limit: limit(experiment) },
                SeriesKind::Budget(budget) => {
                    Meaning::Budget { steps: (0..epochs).map(|epoch| budget(experiment, epoch)).collect() }
                }
                SeriesKind::Number => return None,
            })
        };
        let series = experiment.series();
        series
            .filter_map(|series| {
                let (method, meaning) = (experiment.fairness.method.name(), meaning(series.kind)?);
                Some(Self { method, name: series.name, title: series.title, meaning })
            })
            .collect()
    }

    /// Whether a kind of signature is computed from this series.
    const fn concerns(&self, kind: Kind) -> bool {
        matches!(
            (kind, &self.meaning),
            (Kind::WeightsConcentrated, Meaning::Weight { .. })
                | (Kind::WeightAtMinimum, Meaning::Weight { least: Some(_) })
                | (Kind::MultipliersAtLimit, Meaning::LimitedWeight { .. })
                | (Kind::BudgetUnused, Meaning::Budget { .. })
        )
    }

    /// The values of an epoch, by class. `None` if it has none, or not of all classes.
    fn values<'a>(&self, point: &'a Point) -> Option<&'a [f64]> {
        if !point.method.is_empty() && point.method != self.method {
            return None;
        }
        let column = point.series.iter().find(|(name, _)| name == self.name);
        column
            .map(|(_, values)| &values[..])
            .filter(|values| !values.is_empty() && values.iter().all(|v| v.is_finite()))
    }

    /// The title inside a sentence.
    fn noun(&self) -> String {
        let mut letters = self.title.chars();
        letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
    }
}

/// The series of a run that a kind of signature is computed from.
fn concerned(kind: Kind, setup: &Setup) -> impl Iterator<Item = &Adapted> {
    setup.adapted.iter().filter(move |series| series.concerns(kind))
}

/// Whether a run has a series that can show the signature.
pub(super) fn applies(kind: Kind, points: &[Point], setup: &Setup) -> bool {
    // Two weights that differ have an effective number below 2.
    let enough = kind != Kind::WeightsConcentrated || points.last().is_none_or(|point| point.classes > 2);
    enough && concerned(kind, setup).next().is_some()
}

/// The score of an epoch: the highest one of its series.
pub(super) fn score(kind: Kind, point: &Point, setup: &Setup) -> Option<Score> {
    let of = |series: &Adapted| {
        let values = series.values(point)?;
        match &series.meaning {
            Meaning::Weight { least: Some(least) } if kind == Kind::WeightAtMinimum => {
                Some(at_minimum(values, *least, point))
            }
            Meaning::Weight { .. } => concentrated(values, point),
            Meaning::LimitedWeight { limit } => Some(at_limit(values, *limit, &series.noun(), point)),
            Meaning::Budget { steps } => Some(unused(values, budget(steps, point.epoch), point)),
        }
    };
    concerned(kind, setup).filter_map(of).max_by(|a, b| a.value.total_cmp(&b.value))
}

/// The effective number of weights. `None` if they are not weights.
fn effective_weights(weights: &[f64]) -> Option<f64> {
    let sum: f64 = weights.iter().sum();
    let shares: Vec<f64> = weights.iter().map(|weight| weight / sum).collect();
    effective_number(&shares).filter(|_| sum > 0.0)
}

fn concentrated(weights: &[f64], point: &Point) -> Option<Score> {
    let (effective, limit) = (effective_weights(weights)?, fewest_targets(weights.len()));
    let (class, largest) = extreme(weights, |a, b| a > b);
    let numbers = format!(
        "Effective number of weights {effective:.1} of {} classes; concentrated below {limit:.1}. Largest: {} {largest:.2}.",
        weights.len(),
        name(point, class)
    );
    Some(Score { value: limit / effective.max(1.0), numbers })
}

fn at_minimum(weights: &[f64], least: f64, point: &Point) -> Score {
    let bound = least + BOUND_TOLERANCE;
    let (class, smallest) = extreme(weights, |a, b| a < b);
    let at: Vec<String> = (0..weights.len()).filter(|k| weights[*k] <= bound).map(|k| name(point, k)).collect();
    if at.is_empty() {
        let numbers = format!("Smallest weight: {} {smallest:.2}; the lower bound is {least}.", name(point, class));
        return Score { value: (bound / smallest).min(1.0 - BOUND_TOLERANCE), numbers };
    }
    Score { value: 1.0, numbers: format!("Weight {least}, the lower bound: {}.", list(&at)) }
}

/// A class whose errors are below the tolerance has no multiplier: its weight `1/K - Σl/K` shows their sum.
fn at_limit(weights: &[f64], limit: f64, noun: &str, point: &Point) -> Score {
    let classes = weights.len() as f64;
    let (_, smallest) = extreme(weights, |a, b| a < b);
    let (class, largest) = extreme(weights, |a, b| a > b);
    let sum = (1.0 - classes * smallest).max(0.0);
    let reached = smallest <= (1.0 - limit) / classes + LIMIT_TOLERANCE;
    let numbers = format!(
        "The multipliers sum to {sum:.2} of at most {limit:.2} ({noun}). Largest: {} {largest:.3}, against {:.3} if all \
         were equal.",
        name(point, class),
        1.0 / classes
    );
    Score { value: if reached { 1.0 } else { (sum / limit).min(1.0 - LIMIT_TOLERANCE) }, numbers }
}

fn budget(steps: &[u32], epoch: u32) -> u32 {
    steps.get(epoch as usize).or(steps.last()).copied().unwrap_or(0)
}

/// The largest share of the budget that a class used. `None` if the budget is 0.
fn used(steps: &[f64], budget: u32) -> Option<f64> {
    (budget > 0).then(|| extreme(steps, |a, b| a > b).1 / f64::from(budget))
}

fn unused(steps: &[f64], budget: u32, point: &Point) -> Score {
    let Some(share) = used(steps, budget) else {
        return Score { value: 0.0, numbers: format!("The budget of epoch {} is 0.", point.epoch + 1) };
    };
    let class = extreme(steps, |a, b| a > b).0;
    let numbers = format!(
        "Used most by {}: {:.3} of {budget} steps, {}; unused if below {:.0} % for every class.",
        name(point, class),
        steps[class],
        percent(share),
        100.0 * UNUSED
    );
    // Finite, for a budget of which nothing is used.
    Score { value: UNUSED / share.max(1e-6), numbers }
}

/// The curves that the signature is computed from, at most two, and the level that they must not cross.
pub(super) fn curves(kind: Kind, points: &[Point], setup: &Setup) -> (Vec<Series>, Option<f64>) {
    let classes = points.last().map_or(0, |point| point.classes);
    let mut limit = None;
    let mut curves = Vec::new();
    for series in concerned(kind, setup).take(2) {
        let noun = series.noun();
        let smallest = |values: &[f64]| Some(extreme(values, |a, b| a < b).1);
        let of = |name: String, value: &dyn Fn(&Point, &[f64]) -> Option<f64>| Series {
            name,
            values: points.iter().map(|point| value(point, series.values(point)?)).collect(),
        };
        let (curve, level) = match &series.meaning {
            Meaning::Weight { least: Some(least) } if kind == Kind::WeightAtMinimum => {
                (of(format!("smallest {noun}"), &|_, values| smallest(values)), Some(*least))
            }
            Meaning::Weight { .. } => (
                of(format!("effective number, {noun}"), &|_, values| effective_weights(values)),
                (classes > 2).then(|| fewest_targets(classes)),
            ),
            Meaning::LimitedWeight { limit } => (
                of(format!("smallest {noun}"), &|_, values| smallest(values)),
                (classes > 0).then(|| (1.0 - limit) / classes as f64),
            ),
            Meaning::Budget { steps } => (
                of("largest share of the budget that a class uses".into(), &|point, values| {
                    used(values, budget(steps, point.epoch))
                }),
                Some(UNUSED),
            ),
        };
        curves.push(curve);
        limit = limit.or(level);
    }
    (curves, limit)
}

/// The first class that is ahead of all others, and its value; class 0 and NaN without values.
fn extreme(values: &[f64], ahead: impl Fn(f64, f64) -> bool) -> (usize, f64) {
    let first = (0, values.first().copied().unwrap_or(f64::NAN));
    values.iter().copied().enumerate().fold(first, |best, next| if ahead(next.1, best.1) { next } else { best })
}

fn name(point: &Point, class: usize) -> String {
    point.robust_classes.get(class).map_or_else(|| format!("class {class}"), |(name, _)| name.clone())
}

/// The names of a few classes, and how many others there are.
fn list(names: &[String]) -> String {
    match names.len().checked_sub(NAMED) {
        None | Some(0) => names.join(", "),
        Some(others) => format!("{} and {others} others", names[..NAMED].join(", ")),
    }
}
