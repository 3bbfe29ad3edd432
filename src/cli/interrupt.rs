//! Ctrl-C: the first finishes the batch and writes a checkpoint, the second stops at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit status of a program ended by Ctrl-C.
const INTERRUPTED: i32 = 130;

/// The flag that the first Ctrl-C sets. The second ends the process.
///
/// If no handler can be installed, Ctrl-C ends the process at once.
pub(super) fn flag() -> &'static AtomicBool {
    static STOP: AtomicBool = AtomicBool::new(false);
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let handler = || {
            if STOP.swap(true, Ordering::SeqCst) {
                std::process::exit(INTERRUPTED);
            }
            eprintln!("\nStopping after this batch; press Ctrl-C again to stop at once.");
        };
        if let Err(error) = ctrlc::set_handler(handler) {
            eprintln!("warning: Ctrl-C will end the program without a checkpoint: {error}");
        }
    });
    &STOP
}
