//! The experiment that is being put together, with its history.

use crate::config::{DEFAULT_PRESET, Experiment};

/// See the [module](self).
#[derive(Debug, Clone)]
pub struct Form {
    /// The experiment as it stands.
    pub experiment: Experiment,
    /// The preset that it began as.
    pub preset: String,
}

impl Default for Form {
    fn default() -> Self {
        let preset = DEFAULT_PRESET.to_owned();
        Self { experiment: Experiment::preset(&preset).unwrap_or_default(), preset }
    }
}
