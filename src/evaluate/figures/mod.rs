//! The figures of a run: each a function from rows to an SVG, which a PNG is then rendered from.
//!
//! A figure that shows a robust accuracy names the attack under it, for the number means nothing without. Colours are
//! told apart with every common colour vision; scales are fixed by what is shown, not by the values met, where two runs
//! are likely to be compared. Epochs are counted from 1, as everywhere on screen; files count from 0. Values that are
//! missing, not finite or beyond what they can be are left out.

mod axes;
mod bars;
mod classes;
mod compared;
mod curves;
mod grid;
mod heatmap;
mod plane;
mod raster;
mod svg;
mod text;
mod training;

use std::path::{Path, PathBuf};

use crate::files::{FileError, write_atomic};
use crate::train::{ClassRow, MetricsRow};

pub use bars::{class_accuracy, class_epsilon, target_distribution};
pub use compared::{ComparedRun, compared_curves};
pub use curves::{accuracy_curves, epsilon_curves};
pub use grid::{Example, adversarial_examples};
pub use heatmap::{CellUnit, cfps_heatmap, confusion_difference, confusion_matrix};
pub use plane::{PlaneFigure, decision_map};
pub use raster::RenderError;
pub use training::{learning_rate, loss_curve, time_by_epoch};

/// Device pixels of a PNG per unit of its SVG.
pub const PNG_SCALE: f32 = 2.0;

/// What the figures of a run say about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// Method, data set and architecture, such as `FAIR-TAT on digits, digits-cnn`.
    pub title: String,
    /// The evaluation attack, such as `PGD-10, ε 8/255, step 2/255, 1 random start, seed 0`.
    pub attack: String,
    /// The training attack.
    pub train_attack: String,
    /// Whether it is targeted.
    pub targeted: bool,
    /// What CFPS was measured on, such as `training images under targeted PGD-10`; targets and radii come from it.
    pub statistics: String,
    /// The epoch whose statistics stay in force after it, if they are frozen.
    pub frozen_after: Option<u32>,
    /// Name of each class; its length is the number of classes.
    pub class_names: Vec<String>,
    /// Epsilon before it is scaled by class, in `[0, 1]` pixel units.
    pub base_epsilon: f64,
}

impl Context {
    /// The name of a class, or its number where it has none that can be seen.
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
    /// Name of its files, without an extension.
    pub name: &'static str,
    /// The figure as an SVG document.
    pub svg: String,
}

/// Why a figure was not drawn or not written.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// There is nothing to draw.
    #[error("figure `{figure}`: nothing to draw, {missing}")]
    Empty {
        /// The figure.
        figure: &'static str,
        /// What is not there.
        missing: &'static str,
    },
    /// A class index is beyond the class names.
    #[error("figure `{figure}`: class {class} in epoch {epoch}, but only {count} class names")]
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
    /// The PNG could not be made.
    #[error("figure `{figure}`: {source}")]
    Render {
        /// The figure.
        figure: &'static str,
        /// Why.
        source: RenderError,
    },
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A figure's document as a PNG, [`PNG_SCALE`] pixels per unit.
///
/// # Errors
/// When it is no SVG, or has too many pixels for the memory.
pub fn png(svg: &str) -> Result<Vec<u8>, RenderError> {
    raster::render(svg, PNG_SCALE)
}

impl Figure {
    /// The figure as a PNG, [`PNG_SCALE`] pixels per unit of the SVG.
    ///
    /// # Errors
    /// When it has too many pixels for the memory.
    pub fn png(&self) -> Result<Vec<u8>, FigureError> {
        raster::render(&self.svg, PNG_SCALE).map_err(|source| FigureError::Render { figure: self.name, source })
    }

    /// Writes `figures/NAME.svg` and `figures/NAME.png` under the run directory `dir`, and returns both paths.
    ///
    /// # Errors
    /// When a file cannot be written, or the PNG not be made.
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

/// Draws and writes every figure that the run has data for, and returns the paths.
///
/// `confusion` has the counts under the evaluation attack, true × predicted, row by row; it and `examples` may be empty.
///
/// # Errors
/// [`FigureError::Empty`] when there is no data for any figure; otherwise the first figure that fails for another reason,
/// after the others are written.
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
        class_accuracy(classes, context),
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
