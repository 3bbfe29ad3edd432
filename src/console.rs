//! Text for the terminal, or for whatever stands in its place: a pipe that was closed, a full disk, a terminal that is
//! gone. Rust's own macros panic there.

use std::fmt::Arguments;
use std::io::{self, Write};

/// Writes a line to standard error. Nothing depends on it: what cannot be written is dropped.
macro_rules! tell {
    ($($text:tt)*) => { $crate::console::line(format_args!($($text)*)) };
}
pub(crate) use tell;

/// The function behind [`tell!`].
pub(crate) fn line(text: Arguments<'_>) {
    write_to(&mut io::stderr().lock(), format_args!("{text}\n"));
}

/// Writes to standard error without a line break.
pub(crate) fn note(text: &str) {
    write_to(&mut io::stderr().lock(), format_args!("{text}"));
}

/// In one call, so that lines of several threads are not mixed.
fn write_to(out: &mut dyn Write, text: Arguments<'_>) {
    let _ = out.write_all(text.to_string().as_bytes()).and_then(|()| out.flush());
}

/// Writes to standard output.
///
/// # Errors
/// If it cannot be written; a pipe that was closed is [`io::ErrorKind::BrokenPipe`].
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that takes nothing.
    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    #[test]
    fn a_line_that_cannot_be_written_is_dropped() {
        write_to(&mut Full, format_args!("epoch {}\n", 1));
        let mut written = Vec::new();
        write_to(&mut written, format_args!("epoch {}\n", 2));
        assert_eq!(written, b"epoch 2\n");
    }
}
