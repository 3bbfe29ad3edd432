//! The figures of a run. Each is a function from rows to an SVG, from which a PNG is rendered.
//!
//! A figure that shows a robust accuracy names the attack, because the number is meaningless without it. Colours are
//! distinguishable with all common forms of colour vision. Where two runs are likely to be compared, scales depend on
//! the quantity, not on the values. Epochs are counted from 1, as everywhere on screen; files count from 0. Values that
//! are missing, not finite or out of range are left out.
//!
//! A figure has a bounded size: of more than [`DENSE_CLASSES`](crate::fairness::DENSE_CLASSES) classes it shows the 40 that
//! matter most for it, and says which. The longest side of a PNG stays below 4,096 pixels.

mod attacks;
mod axes;
mod bars;
mod checkpoints;
mod classes;
mod compared;
mod corruptions;
mod curves;
mod grid;
mod heatmap;
mod labels;
mod paired;
mod plane;
mod raster;
mod robustness_curves;
mod series;
mod shown;
mod story;
mod story_columns;
mod svg;
pub(crate) mod system_fonts;
mod text;
mod training;

use std::path::{Path, PathBuf};

use crate::files::{FileError, write_atomic};
use crate::train::{ClassRow, MetricsRow};

pub use attacks::{AttackBar, BarKind, attack_bars};
pub use axes::ticks;
pub use bars::{class_accuracy, class_epsilon, target_distribution};
pub use checkpoints::{CheckpointBar, checkpoint_bars, transfer_matrix};
pub use compared::{ComparedRun, compared_curves};
pub use corruptions::{CorruptionMeans, CorruptionRow, corruption_classes, corruption_heatmap};
pub use curves::{accuracy_curves, epsilon_curves};
pub use grid::{Example, adversarial_examples};
pub use heatmap::{CellUnit, cfps_heatmap, confusion_difference, confusion_matrix};
pub use paired::{PairedPanel, ScatterGroup, class_scatter, paired_seeds, share_bounds};
pub use plane::{PlaneFigure, decision_map};
pub use raster::RenderError;
pub use robustness_curves::{CurveAxis, CurvePoint, RobustnessCurve, robustness_curve};
pub use series::{SeriesScale, class_series};
pub use story::{Rated, Story, StoryRow, story};
pub use story_columns::{StoryColumn, StoryQuantity, StoryScale, StorySeries};
pub use system_fonts::{FoundFont, SystemFonts};
pub use training::{learning_rate, loss_curve, time_by_epoch};

/// Device pixels of a PNG per unit of its SVG.
pub const PNG_SCALE: f32 = 2.0;

/// The properties of a run that its figures show.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// Method, data set and architecture, such as `FAIR-TAT on digits, digits-cnn`.
    pub title: String,
    /// The evaluation attack, such as `PGD-10, ε 8/255, step 2/255, 1 random start, seed 0`.
    pub attack: String,
    /// The training attack.
    pub train_attack: String,
    /// The label of accuracy under it ([`methods::train_robust`](crate::train::methods::train_robust)).
    pub train_robust: &'static str,
    /// The images on which CFPS was measured, such as `training images under targeted PGD-10`; targets and radii are
    /// computed from it.
    pub statistics: String,
    /// The epoch whose statistics are kept for all later epochs, if they are frozen.
    pub frozen_after: Option<u32>,
    /// Name of each class; its length is the number of classes.
    pub class_names: Vec<String>,
    /// Epsilon before it is scaled by class, in `[0, 1]` pixel units.
    pub base_epsilon: f64,
}

impl Context {
    /// The name of a class, or its number if the name is missing or blank.
    fn label(&self, class: usize) -> String {
        let name = self.class_names.get(class).filter(|name| !name.trim().is_empty());
        name.cloned().unwrap_or_else(|| format!("class {class}"))
    }

    fn labels(&self) -> Vec<String> {
        (0..self.class_names.len()).map(|class| self.label(class)).collect()
    }
}

/// A drawn figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Name of its files, without extension.
    pub name: &'static str,
    /// The figure as an SVG document.
    pub svg: String,
}

/// Why a figure cannot be drawn or written.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// There is no data to draw.
    #[error("figure `{figure}`: nothing to draw, {missing}")]
    Empty {
        /// The figure.
        figure: &'static str,
        /// What is missing.
        missing: &'static str,
    },
    /// A class index is beyond the class names.
    #[error("figure `{figure}`: class {class} in epoch {epoch}, but there are only {count} class names")]
    Class {
        /// The figure.
        figure: &'static str,
        /// Epoch of the row.
        epoch: u32,
        /// Class of the row.
        class: u32,
        /// Number of class names.
        count: usize,
    },
    /// Data and their stated size differ.
    #[error("figure `{figure}`: {what} has {found} values, expected {expected}")]
    Length {
        /// The figure.
        figure: &'static str,
        /// The data.
        what: String,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// The PNG cannot be rendered.
    #[error("figure `{figure}`: {source}")]
    Render {
        /// The figure.
        figure: &'static str,
        /// The cause.
        source: RenderError,
    },
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Renders the SVG document of a figure as a PNG, [`PNG_SCALE`] pixels per unit.
///
/// # Errors
/// If it is not a valid SVG, or has too many pixels for the memory.
pub fn png(svg: &str) -> Result<Vec<u8>, RenderError> {
    raster::render(svg, PNG_SCALE)
}

impl Figure {
    /// Renders the figure as a PNG, [`PNG_SCALE`] pixels per unit of the SVG.
    ///
    /// # Errors
    /// If it has too many pixels for the memory.
    pub fn png(&self) -> Result<Vec<u8>, FigureError> {
        raster::render(&self.svg, PNG_SCALE).map_err(|source| FigureError::Render { figure: self.name, source })
    }

    /// Writes `figures/NAME.svg` and `figures/NAME.png` under the run directory `dir`, and returns both paths.
    ///
    /// # Errors
    /// If a file cannot be written, or the PNG cannot be rendered.
    pub fn save(&self, dir: &Path) -> Result<[PathBuf; 2], FigureError> {
        let png = self.png()?;
        let path = |extension: &str| dir.join("figures").join(format!("{}.{extension}", self.name));
        let paths = [path("svg"), path("png")];
        for (path, bytes) in paths.iter().zip([self.svg.as_bytes(), &png]) {
            write_atomic(path, bytes)?;
        }
        Ok(paths)
    }
}

/// Draws and writes every figure for which the run has data, and returns the paths.
///
/// `confusion` holds the counts under the evaluation attack, true × predicted, row by row. It and `examples` may be
/// empty.
///
/// # Errors
/// [`FigureError::Empty`] if there is no data for any figure; otherwise the error of the first figure that fails for
/// another reason, after the others are written.
pub fn draw_all(
    dir: &Path,
    metrics: &[MetricsRow],
    classes: &[ClassRow],
    confusion: &[u64],
    examples: &[Example],
    context: &Context,
) -> Result<Vec<PathBuf>, FigureError> {
    let figures = [
        accuracy_curves(metrics, context),
        cfps_heatmap(classes, context),
        confusion_matrix(confusion, CellUnit::Percent, context),
        epsilon_curves(classes, context),
        target_distribution(classes, context),
        class_accuracy(classes, metrics, context),
        adversarial_examples(examples, context),
    ];
    let mut written = Vec::new();
    let mut failure = None;
    let mut empty = None;
    for figure in figures {
        match figure.and_then(|figure| figure.save(dir)) {
            Ok(paths) => written.extend(paths),
            Err(error @ FigureError::Empty { .. }) => empty = empty.or(Some(error)),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure.or(if written.is_empty() { empty } else { None }) {
        Some(error) => Err(error),
        None => Ok(written),
    }
}

#[cfg(test)]
mod tests;
