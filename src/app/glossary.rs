//! What every term means: for the Learn panel and for tooltips.

/// See the [module](self).
#[derive(Debug, Default)]
pub struct Glossary;

impl Glossary {
    /// What a term means, short enough for a tooltip.
    pub fn tooltip(&self, _key: &str) -> Option<&str> {
        None
    }
}
