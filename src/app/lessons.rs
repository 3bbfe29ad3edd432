//! Lessons.
use super::layout::PanelKind;
use crate::config::{ConfigError, Experiment};
/// A lesson.
#[derive(Debug)]
pub struct Lesson {
    /// File name.
    pub id: String,
    /// Title.
    pub title: String,
}
impl Lesson {
    /// Hidden panels.
    pub fn hidden(&self) -> Vec<PanelKind> {
        vec![]
    }
    /// Experiment.
    pub fn experiment(&self) -> Result<(String, Experiment), ConfigError> {
        Ok((String::new(), Experiment::default()))
    }
}
/// All.
pub fn all() -> &'static [Lesson] {
    &[]
}
/// One.
pub fn find(id: &str) -> Option<&'static Lesson> {
    all().iter().find(|l| l.id == id)
}
