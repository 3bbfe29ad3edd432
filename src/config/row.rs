//! The row of a field: its properties other than the type, see [`section!`](super::section::section).

use std::path::PathBuf;

use clap::{Command, ValueEnum};
use serde_json::Value;

use super::{Applies, Experiment};
use crate::units::Epsilon;

/// The kind of value that a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Yes or no.
    Bool,
    /// One of [`Field::choices`](super::fields::Field::choices).
    Choice,
    /// Any number of [`Field::choices`](super::fields::Field::choices).
    Choices,
    /// A whole number.
    Integer,
    /// A number.
    Real,
    /// A list of whole numbers.
    Integers,
    /// A list of numbers.
    Reals,
    /// A distance between images, `k/255`; its range counts levels.
    Epsilon,
    /// A name.
    Text,
    /// A directory.
    Path,
}

impl Kind {
    /// Whether it has a range.
    pub const fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Real | Self::Integers | Self::Reals | Self::Epsilon)
    }
}

/// The type of a field.
pub(super) trait FieldType {
    /// Its kind.
    const KIND: Kind;
    /// Whether it can be unset.
    const OPTIONAL: bool = false;

    /// The numbers that the field's checks examine. Distances are checked separately.
    fn numbers(&self) -> Vec<f64> {
        Vec::new()
    }

    /// The distance that the field holds, if any.
    fn distance(&self) -> Option<Epsilon> {
        None
    }
}

/// Implements [`FieldType`] for types whose value is a number or a list of numbers.
macro_rules! numbers {
    ($($type:ty: $kind:ident $list:ident),*) => {$(
        impl FieldType for $type {
            const KIND: Kind = Kind::$kind;

            fn numbers(&self) -> Vec<f64> {
                vec![*self as f64]
            }
        }

        impl FieldType for Vec<$type> {
            const KIND: Kind = Kind::$list;

            fn numbers(&self) -> Vec<f64> {
                self.iter().map(|number| *number as f64).collect()
            }
        }
    )*};
}
numbers!(u32: Integer Integers, u64: Integer Integers, usize: Integer Integers, f64: Real Reals);

/// Implements [`FieldType`] for types without numbers.
macro_rules! plain {
    ($($type:ty: $kind:ident),*) => {$(impl FieldType for $type { const KIND: Kind = Kind::$kind; })*};
}
plain!(bool: Bool, String: Text, PathBuf: Path);
plain!(crate::engine::BatchNormMode: Choice, crate::engine::Norm: Choice, crate::engine::Padding: Choice);
plain!(crate::fairness::Combine: Choice, crate::fairness::TargetMode: Choice, crate::model::Architecture: Choice);
plain!(super::DeviceChoice: Choice, super::EngineChoice: Choice, super::LastBatch: Choice, super::MethodChoice: Choice);
plain!(super::BaseMethod: Choice, super::FrlVariant: Choice, super::TradesSearch: Choice);
plain!(super::FatStop: Choice, super::LossForm: Choice);
plain!(super::Schedule: Choice, super::StatisticsSource: Choice, Vec<crate::fairness::EpsilonRule>: Choices);

impl FieldType for Epsilon {
    const KIND: Kind = Kind::Epsilon;

    fn distance(&self) -> Option<Epsilon> {
        Some(*self)
    }
}

impl<T: FieldType> FieldType for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;

    fn numbers(&self) -> Vec<f64> {
        self.as_ref().map_or(Vec::new(), T::numbers)
    }

    fn distance(&self) -> Option<Epsilon> {
        self.as_ref().and_then(T::distance)
    }
}

/// A condition on the numbers of a field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Check {
    /// The expected value, in words.
    pub(super) expected: &'static str,
    /// Whether a number is accepted.
    pub(super) accepts: fn(f64) -> bool,
}

/// Whether a number is finite and above 0.
pub(super) fn above_zero(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// Whether a number is finite and at least 0.
pub(super) fn at_least_zero(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// Whether a number is at least 1.
pub(super) fn at_least_one(value: f64) -> bool {
    value >= 1.0
}

/// Whether a number is a share, 0 and 1 included.
pub(super) fn zero_to_one(value: f64) -> bool {
    (0.0..=1.0).contains(&value)
}

/// A condition under which a field has no effect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Idle {
    /// Why the field has no effect.
    pub(super) why: &'static str,
    /// Whether the condition holds.
    pub(super) holds: fn(&Experiment) -> bool,
}

/// The training methods that a field belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Methods {
    /// Names of [`MethodChoice`](super::MethodChoice) as in TOML files; `None` for all methods.
    pub(super) names: Option<&'static [&'static str]>,
    /// Why the field has no effect under other methods.
    otherwise: &'static str,
}

impl Methods {
    /// These methods and no others.
    pub(super) const fn only(names: &'static [&'static str], otherwise: &'static str) -> Self {
        Self { names: Some(names), otherwise }
    }

    fn without_effect(&self, experiment: &Experiment) -> Option<&'static str> {
        let names = self.names?;
        let method = experiment.fairness.method.to_possible_value()?;
        (!names.contains(&method.get_name())).then_some(self.otherwise)
    }
}

/// The properties of a field. Built by [`row`] and the methods below.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    /// A short, unique label.
    pub(super) label: &'static str,
    /// When a change takes effect in a run in progress.
    pub(super) applies: Applies,
    /// Smallest and largest number of the slider, in the unit.
    pub(super) range: (f64, f64),
    /// Whether the slider is logarithmic.
    pub(super) logarithmic: bool,
    /// Unit; empty if there is none.
    pub(super) unit: &'static str,
    /// The meaning of leaving the field unset.
    pub(super) unset: Option<&'static str>,
    /// The value that the form suggests when the field is set; by default the smallest of the range.
    pub(super) first: Option<fn(&Experiment) -> Value>,
    checks: [Option<Check>; 2],
    idle: [Option<Idle>; 3],
    /// The methods that the field belongs to.
    pub(super) methods: Methods,
    /// Whether the field has no influence on any result.
    pub(super) harmless: bool,
}

/// A row with this label; `applies` says when a change takes effect.
pub(super) const fn row(label: &'static str, applies: Applies) -> Row {
    Row {
        label,
        applies,
        range: (0.0, 0.0),
        logarithmic: false,
        unit: "",
        unset: None,
        first: None,
        checks: [None; 2],
        idle: [None; 3],
        methods: Methods { names: None, otherwise: "" },
        harmless: false,
    }
}

impl Row {
    /// The ends of the slider. Required for numbers.
    pub(super) const fn range(self, least: f64, most: f64) -> Self {
        Self { range: (least, most), ..self }
    }

    /// Makes the slider logarithmic.
    pub(super) const fn log(self) -> Self {
        Self { logarithmic: true, ..self }
    }

    pub(super) const fn unit(self, unit: &'static str) -> Self {
        Self { unit, ..self }
    }

    /// The meaning of leaving the field unset. Required for an `Option`.
    pub(super) const fn unset(self, meaning: &'static str) -> Self {
        Self { unset: Some(meaning), ..self }
    }

    /// The value that the form suggests for a field that was unset.
    pub(super) const fn first(self, value: fn(&Experiment) -> Value) -> Self {
        Self { first: Some(value), ..self }
    }

    /// A condition on each number. The error message is `expected {expected}, found {number}`.
    pub(super) const fn valid(self, expected: &'static str, accepts: fn(f64) -> bool) -> Self {
        Self { checks: with(self.checks, Check { expected, accepts }), ..self }
    }

    /// A condition under which the field has no effect, and why. The first condition that holds gives the reason.
    pub(super) const fn idle(self, why: &'static str, holds: fn(&Experiment) -> bool) -> Self {
        Self { idle: with(self.idle, Idle { why, holds }), ..self }
    }

    /// The field has no influence on any result: a run may be resumed with another value.
    pub(super) const fn harmless(self) -> Self {
        Self { harmless: true, ..self }
    }

    /// The methods that the field belongs to; all by default.
    pub(super) const fn only(self, methods: Methods) -> Self {
        Self { methods, ..self }
    }

    /// Why the field has no effect in an experiment. `None` if it has one.
    pub(super) fn without_effect(&self, experiment: &Experiment) -> Option<&'static str> {
        let mut idle = self.idle.iter().flatten();
        self.methods
            .without_effect(experiment)
            .or_else(|| idle.find(|idle| (idle.holds)(experiment)).map(|idle| idle.why))
    }

    /// The error message for the first invalid number. `None` if all are valid.
    pub(super) fn wrong(&self, numbers: &[f64]) -> Option<String> {
        let checks = self.checks.iter().flatten();
        let mut pairs = checks.flat_map(|check| numbers.iter().map(move |number| (check, *number)));
        let (check, number) = pairs.find(|(check, number)| !(check.accepts)(*number))?;
        Some(format!("expected {}, found {number}", check.expected))
    }
}

/// `list` with `item` in the first free place. Evaluated at compile time; fails to compile if `list` is full.
const fn with<T: Copy, const N: usize>(mut list: [Option<T>; N], item: T) -> [Option<T>; N] {
    let mut place = 0;
    while list[place].is_some() {
        place += 1;
    }
    list[place] = Some(item);
    list
}

/// A field: its row, and the properties that the macro adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Section and name, such as `optimizer.lr`.
    pub(super) path: &'static str,
    /// The kind of its value.
    pub(super) kind: Kind,
    /// Its row.
    pub(super) row: Row,
    /// Its numbers in a given experiment.
    pub(super) numbers: fn(&Experiment) -> Vec<f64>,
    /// Its distance in a given experiment.
    pub(super) distance: fn(&Experiment) -> Option<Epsilon>,
}

impl Entry {
    /// The entry of a field of type `T`. Evaluated at compile time: an incomplete row does not compile.
    pub(super) const fn new<T: FieldType>(
        path: &'static str,
        row: Row,
        numbers: fn(&Experiment) -> Vec<f64>,
        distance: fn(&Experiment) -> Option<Epsilon>,
    ) -> Self {
        assert!(!row.label.is_empty(), "a field needs a label");
        assert!(T::KIND.is_numeric() == (row.range.0 < row.range.1), "exactly the numeric fields need a range");
        assert!(T::OPTIONAL == row.unset.is_some(), "exactly the Option fields need `unset`");
        assert!(T::OPTIONAL || row.first.is_none(), "only an Option field has a first value");
        Self { path, kind: T::KIND, row, numbers, distance }
    }
}

/// A section of an experiment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Section {
    /// Its name in TOML files.
    pub(super) name: &'static str,
    /// Its fields, in the order of their declaration.
    pub(super) entries: &'static [Entry],
    /// Its flags, in the same order.
    pub(super) command: fn() -> Command,
}
