//! How serious a message to the user is.

/// How serious a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something went as it should.
    Info,
    /// Worth knowing, nothing is broken.
    Warning,
    /// Something did not work.
    Error,
}
