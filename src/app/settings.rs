//! Settings that persist across starts.

use serde::{Deserialize, Serialize};

use super::layout::PanelKind;

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Theme {
    /// Follow the system.
    #[default]
    System,
    /// Dark text on a light background.
    Light,
    /// Light text on a dark background.
    Dark,
}

/// Unit of the cells of a confusion matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellUnit {
    /// Number of images.
    Counts,
    /// Share of the images of the true class.
    #[default]
    Row,
    /// Share of the images with the predicted class.
    Column,
}

/// The largest CFPS on the colour scale.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CfpsScale {
    /// Three times chance, `3 / K`: the same for all runs with the same number of classes.
    #[default]
    Chance,
    /// A fixed value.
    Fixed(f64),
    /// The largest displayed value.
    Automatic,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Light or dark.
    pub theme: Theme,
    /// Scale factor of the whole window.
    pub zoom: f32,
    /// Unit of the confusion matrices.
    pub cell_unit: CellUnit,
    /// Colour scale of the CFPS heatmap.
    pub cfps_scale: CfpsScale,
    /// Whether confusion matrices use the same colour scale for all epochs.
    pub confusion_scale_fixed: bool,
    /// Magnification of displayed perturbations.
    pub magnification: f32,
    /// File name of the open lesson; `None` if no lesson is open.
    pub lesson: Option<String>,
    /// Panels that a lesson hides.
    pub hidden: Vec<PanelKind>,
    /// Run directories in the comparison.
    pub compare: Vec<std::path::PathBuf>,
    /// The last run directory.
    pub last_run: Option<std::path::PathBuf>,
    /// Step of the open lesson, from 0.
    pub lesson_step: usize,
    /// File names of the completed lessons.
    pub lessons_done: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: Theme::default(),
            zoom: 1.0,
            cell_unit: CellUnit::default(),
            cfps_scale: CfpsScale::default(),
            confusion_scale_fixed: true,
            magnification: 10.0,
            lesson: None,
            hidden: Vec::new(),
            compare: Vec::new(),
            last_run: None,
            lesson_step: 0,
            lessons_done: Vec::new(),
        }
    }
}
