//! The columns of bars of a story, shared by the window and the figure: their titles, values, and how values become
//! lengths.

use super::Story;
use crate::config::{Experiment, SeriesInfo, SeriesKind};
use crate::train::ClassRow;

/// How the values of a column become lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StoryScale {
    /// Bars that begin at a value without effect, which is in the middle, zoomed to the farthest value.
    Around {
        /// The value without effect.
        base: f64,
        /// The distance of either end from it, larger than 0.
        span: f64,
    },
    /// Bars from 0 to `top`, with a mark at a limit.
    UpTo {
        /// Value at the right end, larger than 0.
        top: f64,
        /// The largest value that is possible.
        limit: f64,
    },
    /// Points between the lowest and the highest value.
    Between {
        /// Value at the left end.
        low: f64,
        /// Value at the right end, larger than `low`.
        high: f64,
    },
}

impl StoryScale {
    fn around(base: f64, values: impl IntoIterator<Item = Option<f64>>) -> Self {
        Self::Around { base, span: story_span(values, base) }
    }

    fn between(values: &[Option<f64>]) -> Self {
        let known = || values.iter().flatten().copied();
        let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(f64::NEG_INFINITY, f64::max));
        let (middle, half) = (0.5 * (low + high), 0.5 * (high - low));
        let half = half.max(0.05 * middle.abs().max(f64::MIN_POSITIVE));
        Self::Between { low: middle - half, high: middle + half }
    }

    /// The place of a value, from 0 at the left end to 1 at the right end.
    pub fn place(&self, value: f64) -> f64 {
        let place = match *self {
            Self::Around { base, span } => 0.5 + 0.5 * (value - base) / span,
            Self::UpTo { top, .. } => value / top,
            Self::Between { low, high } => (value - low) / (high - low),
        };
        place.clamp(0.0, 1.0)
    }

    /// The place where bars begin; `None` if values are points.
    pub fn start(&self) -> Option<f64> {
        match self {
            Self::Around { .. } => Some(0.5),
            Self::UpTo { .. } => Some(0.0),
            Self::Between { .. } => None,
        }
    }

    /// The value that is marked: the one without effect, or the limit.
    pub fn marked(&self) -> Option<f64> {
        match *self {
            Self::Around { base, .. } => Some(base),
            Self::UpTo { limit, .. } => Some(limit),
            Self::Between { .. } => None,
        }
    }
}

/// The largest distance of a value from `base`, at least a twentieth of `base`, so that differences that mean nothing
/// stay small.
pub(super) fn story_span(values: impl IntoIterator<Item = Option<f64>>, base: f64) -> f64 {
    let distances = values.into_iter().flatten().map(|value| (value - base).abs());
    distances.fold(0.05 * base.abs().max(f64::MIN_POSITIVE), f64::max)
}

/// A class series of the method in an epoch, as a column of a story.
#[derive(Debug, Clone, PartialEq)]
pub struct StorySeries {
    /// Its column in `classes.csv`.
    pub name: &'static str,
    /// Its title.
    pub title: &'static str,
    /// How its values become lengths.
    pub scale: StoryScale,
    /// What is marked; empty if nothing is.
    pub mark: &'static str,
    /// The value of each class.
    pub values: Vec<Option<f64>>,
}

impl StorySeries {
    /// The values of a series in the rows of an epoch, which must have finite ones. `None` without values.
    pub(super) fn new(series: &SeriesInfo, classes: usize, rows: &[ClassRow], experiment: &Experiment) -> Option<Self> {
        let mut values = vec![None; classes];
        for row in rows {
            let value = row.series.iter().find(|(name, _)| name == series.name).map(|(_, value)| *value);
            if let (Some(to), Some(value)) = (values.get_mut(row.class as usize), value) {
                *to = value.is_finite().then_some(value);
            }
        }
        let known: Vec<f64> = values.iter().flatten().copied().collect();
        let epoch = rows.first()?.epoch;
        if known.is_empty() {
            return None;
        }
        let (scale, mark) = match series.kind {
            SeriesKind::Weight { .. } | SeriesKind::LimitedWeight(_) => {
                let mean = known.iter().sum::<f64>() / known.len() as f64;
                (StoryScale::around(mean, values.iter().copied()), "equal weights")
            }
            SeriesKind::Budget(budget) => {
                let limit = f64::from(budget(experiment, epoch));
                let top = known.iter().copied().fold(limit, f64::max).max(f64::MIN_POSITIVE);
                (StoryScale::UpTo { top, limit }, "budget")
            }
            SeriesKind::Number => (StoryScale::between(&values), ""),
        };
        Some(Self { name: series.name, title: series.title, scale, mark, values })
    }
}

/// What the numbers of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoryQuantity {
    /// Share of all mistakes.
    Cfps,
    /// Probability as a target.
    Target,
    /// Radius of the attack.
    Epsilon,
    /// A number of a class series with three decimals, which align.
    Decimal,
    /// Another number of a class series, such as a switch, with at most three decimals.
    Number,
}

/// A column of bars or points, with one value for each class.
#[derive(Debug, Clone, PartialEq)]
pub struct StoryColumn {
    /// Title with the epoch of the values, counted from 1.
    pub title: String,
    /// The same without the epoch.
    pub short: &'static str,
    /// What its numbers are.
    pub quantity: StoryQuantity,
    /// The value of each class.
    pub values: Vec<Option<f64>>,
    /// A second value of each class, shown as a line: what the rule gives.
    pub rule: Vec<Option<f64>>,
    /// How values become lengths.
    pub scale: StoryScale,
    /// Name of the value that [`StoryScale::marked`] gives.
    pub mark: &'static str,
}

impl StoryColumn {
    fn new(
        title: (&'static str, Option<u32>),
        quantity: StoryQuantity,
        base: f64,
        rows: [Vec<Option<f64>>; 2],
    ) -> Self {
        let [values, rule] = rows;
        let mark = if quantity == StoryQuantity::Epsilon { "base epsilon" } else { "even share" };
        let scale = StoryScale::around(base, values.iter().chain(&rule).copied());
        Self { title: dated(title.0, title.1), short: title.0, quantity, values, rule, scale, mark }
    }

    fn of_series(series: &StorySeries, epoch: Option<u32>) -> Self {
        let quantity = match series.scale {
            StoryScale::Between { .. } => StoryQuantity::Number,
            _ => StoryQuantity::Decimal,
        };
        let (values, rule) = (series.values.clone(), vec![None; series.values.len()]);
        let title = dated(series.title, epoch);
        Self { title, short: series.title, quantity, values, rule, scale: series.scale, mark: series.mark }
    }
}

/// A title with an epoch, counted from 1.
fn dated(title: &str, epoch: Option<u32>) -> String {
    epoch.map_or_else(|| title.to_owned(), |epoch| format!("{title}, epoch {}", epoch + 1))
}

impl Story {
    /// The columns that have values: CFPS, targets, radii, and the class series of the method.
    pub fn columns(&self, base_epsilon: f64) -> Vec<StoryColumn> {
        let none = || vec![None; self.rows.len()];
        let even = 1.0 / self.rows.len().max(1) as f64;
        let of = |value: &dyn Fn(&super::StoryRow) -> Option<f64>| self.rows.iter().map(value).collect::<Vec<_>>();
        let (cfps, target) = ([of(&|row| row.cfps), none()], [of(&|row| row.target), none()]);
        let epsilon = [of(&|row| row.epsilon), of(&|row| row.rule)];
        let now = Some(self.epoch);
        let mut columns = vec![
            StoryColumn::new(("CFPS", self.counted), StoryQuantity::Cfps, even, cfps),
            StoryColumn::new(("Target", now), StoryQuantity::Target, even, target),
            StoryColumn::new(("Epsilon", now), StoryQuantity::Epsilon, base_epsilon, epsilon),
        ];
        columns.extend(self.series.iter().map(|series| StoryColumn::of_series(series, self.adapted)));
        columns.retain(|column| column.values.iter().any(Option::is_some));
        columns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MethodChoice;

    fn rows(values: &[(&str, [f64; 3])]) -> Vec<ClassRow> {
        let row = |class: usize| ClassRow {
            epoch: 4,
            class: class as u32,
            name: format!("c{class}"),
            epsilon: 0.03,
            target_probability: None,
            cfps: 0.3,
            train_robust_accuracy: 0.5,
            train_clean_accuracy: None,
            val_clean_accuracy: 0.8,
            val_robust_accuracy: 0.5,
            series: values.iter().map(|(name, of)| ((*name).to_owned(), of[class])).collect(),
        };
        (0..3).map(row).collect()
    }

    fn adapted(method: MethodChoice, values: &[(&str, [f64; 3])], set: impl Fn(&mut Experiment)) -> Story {
        let mut experiment = Experiment::default();
        experiment.fairness.method = method;
        set(&mut experiment);
        let mut story = Story::new(4, 3);
        story.adapt(4, &rows(values), &experiment);
        story
    }

    #[test]
    fn bars_reach_the_farthest_value_and_small_differences_stay_small() {
        assert!((story_span([Some(0.1), None, Some(0.3)], 0.2) - 0.1).abs() < 1e-12);
        assert!((story_span([Some(0.2001)], 0.2) - 0.01).abs() < 1e-12);
        assert!(story_span([None], 0.0) > 0.0);
    }

    #[test]
    fn weights_begin_at_equal_weights() {
        let story = adapted(MethodChoice::Wat, &[("weight", [0.5, 1.0, 1.8])], |_| ());
        let columns = story.columns(0.03);
        let [weight] = &columns[..] else { panic!("{columns:?}") };
        assert_eq!((weight.title.as_str(), weight.mark), ("Weight of the loss, epoch 5", "equal weights"));
        let StoryScale::Around { base, span } = weight.scale else { panic!("{:?}", weight.scale) };
        assert!((base - 1.1).abs() < 1e-12 && (span - 0.7).abs() < 1e-12);
        assert!((weight.scale.place(1.8) - 1.0).abs() < 1e-12 && weight.scale.start() == Some(0.5));
    }

    #[test]
    fn steps_reach_up_to_their_budget_and_other_numbers_are_points() {
        let values = [("beta", [5.0, 6.0, f64::NAN]), ("budget_used", [0.5, 1.0, 0.25])];
        let story = adapted(MethodChoice::Cfa, &values, |e| {
            e.cfa.base = crate::config::BaseMethod::Trades;
        });
        let [beta] = &story.columns(0.03)[..] else { panic!() };
        assert_eq!((beta.short, beta.mark, beta.scale.start()), ("KL weight of each class", "", None));
        assert_eq!(beta.values, [Some(5.0), Some(6.0), None]);
        assert_eq!(beta.scale, StoryScale::Between { low: 5.0, high: 6.0 });
        let story = adapted(MethodChoice::Fat, &values, |e| e.fat.tau = vec![2]);
        let [budget] = &story.columns(0.03)[..] else { panic!() };
        assert_eq!((budget.scale.marked(), budget.scale.start(), budget.mark), (Some(2.0), Some(0.0), "budget"));
        assert_eq!(budget.scale.place(0.5), 0.25);
        // Equal numbers have a place, too.
        assert_eq!(StoryScale::between(&[Some(6.0), Some(6.0)]).place(6.0), 0.5);
        assert_eq!(StoryScale::between(&[Some(0.0)]).place(0.0), 0.5);
    }
}
