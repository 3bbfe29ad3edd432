//! Choices that outlive the program.

use serde::{Deserialize, Serialize};

use super::layout::PanelKind;

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Theme {
    /// As the system is.
    #[default]
    System,
    /// Dark text on a light ground.
    Light,
    /// Light text on a dark ground.
    Dark,
}

/// How the cells of a confusion matrix are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CellUnit {
    /// Number of images.
    Counts,
    /// Share of the true class.
    #[default]
    Row,
    /// Share of the prediction.
    Column,
}

/// The largest CFPS on the colour scale.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CfpsScale {
    /// Three times chance, `3 / K`: the same for all runs with as many classes.
    #[default]
    Chance,
    /// A fixed share.
    Fixed(f64),
    /// The largest value that is shown.
    Automatic,
}

/// See the [module](self).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Light or dark.
    pub theme: Theme,
    /// Factor of all sizes.
    pub zoom: f32,
    /// How confusion matrices are written.
    pub cell_unit: CellUnit,
    /// Colour scale of the CFPS heatmap.
    pub cfps_scale: CfpsScale,
    /// Whether the colours of confusion matrices keep their meaning from epoch to epoch.
    pub confusion_scale_fixed: bool,
    /// Factor that perturbations are drawn with.
    pub magnification: f32,
    /// The lesson that is open, by the name of its file.
    pub lesson: Option<String>,
    /// Panels that a lesson hides.
    pub hidden: Vec<PanelKind>,
    /// Run directories in the comparison.
    pub compare: Vec<std::path::PathBuf>,
    /// The last run directory.
    pub last_run: Option<std::path::PathBuf>,
    /// The step of the lesson that is open, from 0.
    pub lesson_step: usize,
    /// Lessons that were gone through, by the names of their files.
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
