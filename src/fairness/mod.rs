//! Statistics of mistakes between classes, and what FAIR-TAT derives from them: CFPS, target distribution, class-wise
//! epsilon.
//!
//! Everything here is counted in integers and computed in `f64` from counts, so that it can be checked by hand.

mod interval;
mod margins;
mod statistics;
mod stored;
mod targets;

pub use interval::wilson;
pub use margins::{Combine, EpsilonRule, Margins, Reference, Statistic};
pub use statistics::{ClassStats, Confusion, MANY_CLASSES, ratio};
pub use stored::DENSE_CLASSES;
pub use targets::{TargetDistribution, TargetMode};
