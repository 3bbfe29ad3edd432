//! What the window remembers between starts: a small file, validated when read and written atomically.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::form::Form;
use super::layout::Layout;
use super::settings::Settings;
use crate::config::DataConfig;
use crate::files::{FileError, write_atomic};

/// Increased when older files can no longer be read.
const VERSION: u32 = 1;

/// See the [module](self).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct StoredSettings {
    version: u32,
    /// Persistent settings.
    pub(super) settings: Settings,
    /// Arrangement of the panels; `None` for the default.
    pub(super) layout: Option<Layout>,
    /// The form's preset.
    pub(super) preset: String,
    /// The form's experiment, as TOML.
    pub(super) experiment: String,
    /// The data that the form's settings were made for.
    pub(super) made_for: Option<DataConfig>,
    /// Size of the window in points.
    pub(super) size: Option<[f32; 2]>,
}

impl StoredSettings {
    /// The current version with this content.
    pub(super) fn new(settings: Settings, layout: Layout, form: &Form, size: Option<[f32; 2]>) -> Self {
        let (preset, experiment, made_for) = (form.preset.clone(), form.to_toml(), Some(form.made_for.clone()));
        Self { version: VERSION, settings, layout: Some(layout), preset, experiment, made_for, size }
    }

    /// Path of the file: `$FAIRTAT_STATE`, or the system's configuration directory if that is not set. `None` if
    /// `$FAIRTAT_STATE` is empty, which disables storage, or if there is no such directory.
    pub(super) fn place() -> Option<PathBuf> {
        match std::env::var_os("FAIRTAT_STATE") {
            Some(path) if path.is_empty() => None,
            Some(path) => Some(path.into()),
            None => Some(directories::ProjectDirs::from("", "", "fairtat")?.config_dir().join("window.json")),
        }
    }

    /// Reads the file. Contents that cannot be used are replaced by the defaults of a first start.
    pub(super) fn load(path: &Path) -> Self {
        let Ok(text) = crate::files::read_to_string(path) else { return Self::default() };
        let stored: Self = serde_json::from_str(&text).unwrap_or_default();
        if stored.version != VERSION {
            return Self::default();
        }
        Self { layout: stored.layout.clone().filter(Layout::is_whole), ..stored }
    }

    /// Writes the file atomically.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written.
    pub(super) fn save(&self, path: &Path) -> Result<(), FileError> {
        let text = serde_json::to_string(self).map_err(|e| FileError::writing(path)(e.into()))?;
        write_atomic(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Experiment;

    #[test]
    fn what_was_written_is_read_and_what_is_broken_is_a_first_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state/window.json");
        assert!(StoredSettings::load(&path).layout.is_none());
        let settings = Settings { zoom: 2.0, ..Settings::default() };
        let form = Form::restored(Experiment::default(), "digits-60s", None);
        let stored = StoredSettings::new(settings, Layout::default(), &form, Some([800.0, 600.0]));
        stored.save(&path).unwrap();
        let read = StoredSettings::load(&path);
        assert_eq!((read.settings.zoom, read.size), (2.0, Some([800.0, 600.0])));
        assert_eq!(Experiment::from_toml(&read.experiment, "stored").unwrap(), Experiment::default());
        assert_eq!((read.made_for, read.layout.is_some()), (Some(form.made_for), true));
        for text in ["", "{", r#"{"version": 99, "settings": {"zoom": 3}}"#, r#"{"version": 1, "layout": 7}"#] {
            std::fs::write(&path, text).unwrap();
            let read = StoredSettings::load(&path);
            assert_eq!(read.settings.zoom, 1.0, "{text}");
        }
    }
}
