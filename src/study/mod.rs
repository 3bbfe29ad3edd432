//! Studies: many runs that differ in what is studied and share everything else, and what their comparison shows.
//!
//! A [`StudyFile`] names *arms* (what is compared: methods, or parts of one), *axes* (under which conditions: data sets,
//! architectures, radii), seeds, and what is measured besides the accuracies on the test set. The runs of a study are
//! the product of axes, arms and seeds ([`StudyFile::runs`]); the combination of one value of each axis is a *cell*. A
//! comparison always pairs two arms of the same cell and seed.
//!
//! Each run is a run directory below that of the study. What is measured after its training ([`measure`]) is a file
//! beside it, and the report ([`StudyReport`]) is computed from these files alone, so that it can be made of several
//! directories, and again at any time.

mod cost;
mod csv;
mod figures;
mod file;
mod markdown;
mod measure;
mod plan;
mod recipe;
mod report;
mod results;

pub use cost::{CostReport, CostRow};
pub use csv::{cost_csv, report_csv, runs_csv, vulnerability_csv};
pub use figures::{figures, paired_figure};
pub use file::{Arm, Axis, AxisValue, MeasuredAttack, Measures, READY_MADE, StudyError, StudyFile, named};
pub use markdown::{HOW_STATED, claims, cost_markdown, markdown};
pub use measure::{MEASURES, Measured, MeasuredClasses, Targeted, add_peak, measure, measured};
pub use plan::{PlannedRun, Shard};
pub use recipe::recipe;
pub use report::{ArmReport, CellReport, Comparison, Correlation, Metric, Spread, StudyReport, Verdict, Vulnerability};
pub use results::{Finished, Outcome, Problem, Results, find_study, name_of_failure, open_study};
