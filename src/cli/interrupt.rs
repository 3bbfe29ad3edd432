//! Ctrl-C, SIGTERM and SIGHUP: a command that has something to save stops where it can be continued; any other ends at
//! once. A second Ctrl-C always does, and so does any second signal as long as there is nothing to save yet: a driver that
//! opens a device cannot be interrupted.
//!
//! The window saves a run that is under way and closes, as after "Save and close".
//!
//! The exit status is 128 and the number of the signal: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::console::tell;

/// The number of Ctrl-C's signal.
const INTERRUPT: i32 = 2;

/// Whether a command should stop.
static STOP: AtomicBool = AtomicBool::new(false);
/// The signal that set it; 0 before.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// Where the command stops. `None` if it can end anywhere.
static STOPPING: Mutex<Option<Place>> = Mutex::new(None);
/// Saves what is under way where no command looks at [`STOP`]; the program ends afterwards.
static CLOSE: Mutex<Option<Box<dyn FnOnce() + Send>>> = Mutex::new(None);

/// Where a command stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// In words.
    name: &'static str,
    /// Whether there is something to save.
    saves: bool,
}

/// What follows from a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// The program ends with this status.
    End(i32),
    /// The command stops there, in words.
    Stop(&'static str),
    /// It is stopping already. Whoever asks twice with SIGTERM or SIGHUP, as a shell and a closing terminal do, wants
    /// the checkpoint.
    Nothing,
}

fn response(signal: i32, is_stopping: bool, stops: Option<Place>) -> Response {
    match stops {
        None => Response::End(128 + signal),
        Some(place) if is_stopping && (signal == INTERRUPT || !place.saves) => Response::End(128 + signal),
        Some(_) if is_stopping => Response::Nothing,
        Some(place) => Response::Stop(place.name),
    }
}

fn receive(signal: i32) {
    let stops = *STOPPING.lock().unwrap_or_else(PoisonError::into_inner);
    match response(signal, STOP.load(Ordering::SeqCst), stops) {
        Response::End(status) => std::process::exit(status),
        Response::Stop(place) => {
            SIGNAL.store(signal, Ordering::SeqCst);
            STOP.store(true, Ordering::SeqCst);
            tell!("\nStopping {place}; press Ctrl-C again to stop at once.");
            let close = CLOSE.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(close) = close {
                // This thread still listens for the second signal.
                let closing = move || {
                    close();
                    end(128 + signal);
                };
                if let Err(error) = std::thread::Builder::new().name("closing".into()).spawn(closing) {
                    tell!("warning: the window cannot be closed: {error}");
                }
            }
        }
        Response::Nothing => {}
    }
}

/// Ends the program without the cleanup of libraries, which other threads still use.
#[cfg(unix)]
fn end(status: i32) -> ! {
    signal_hook::low_level::exit(status)
}

#[cfg(not(unix))]
fn end(status: i32) -> ! {
    std::process::exit(status)
}

/// Handles the signals from here on. If that fails, they end the program at once, as the system has it.
pub(super) fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        if let Err(error) = listen() {
            tell!("warning: Ctrl-C will end the program without a checkpoint: {error}");
        }
    });
}

#[cfg(unix)]
fn listen() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = vec![SIGINT, SIGTERM];
    if !is_ignored(SIGHUP) {
        signals.push(SIGHUP);
    }
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(receive))?;
    Ok(())
}

/// Whether the program was started so that it outlives this signal: `nohup fairtat train`.
#[cfg(unix)]
#[allow(unsafe_code, reason = "the standard library cannot ask how a signal is handled")]
fn is_ignored(signal: i32) -> bool {
    use nix::libc;
    let mut found = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action, `sigaction` only writes the present one; zeros are a valid value of it.
    let found = unsafe {
        libc::sigaction(signal, std::ptr::null(), found.as_mut_ptr());
        found.assume_init()
    };
    found.sa_sigaction == libc::SIG_IGN
}

#[cfg(not(unix))]
fn listen() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| receive(INTERRUPT))
}

/// The command has something to save from here on: the first signal sets [`flag`], and it stops at `place`, such as
/// `after this batch`.
pub(super) fn stops(place: &'static str) -> &'static AtomicBool {
    stops_at(Place { name: place, saves: true })
}

/// As [`stops`], but there is nothing to save yet: the second signal ends the program, whichever it is.
pub(super) fn stops_early(place: &'static str) -> &'static AtomicBool {
    stops_at(Place { name: place, saves: false })
}

fn stops_at(place: Place) -> &'static AtomicBool {
    install();
    *CLOSE.lock().unwrap_or_else(PoisonError::into_inner) = None;
    *STOPPING.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    &STOP
}

/// The window is open from here on: the first signal calls `close`, which saves what is under way, and then ends the program.
#[cfg(feature = "window")]
pub(super) fn closes(close: impl FnOnce() + Send + 'static) {
    stops(WINDOW);
    *CLOSE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(close));
}

/// What the first signal does to the window, in words.
#[cfg(feature = "window")]
const WINDOW: &str = "and closing the window; a run that is under way is saved first";

/// The exit status of a command that a signal has stopped.
pub(super) fn status() -> Option<u8> {
    let signal = SIGNAL.load(Ordering::SeqCst);
    u8::try_from(128 + signal).ok().filter(|_| signal > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HANGUP: i32 = 1;
    const TERMINATION: i32 = 15;

    #[test]
    fn a_signal_is_one_ctrl_c_and_only_ctrl_c_insists_once_there_is_something_to_save() {
        let [soon, early] = [true, false].map(|saves| Place { name: "soon", saves });
        for (signal, status) in [(INTERRUPT, 130), (TERMINATION, 143), (HANGUP, 129)] {
            assert_eq!(response(signal, false, None), Response::End(status));
            for place in [soon, early] {
                assert_eq!(response(signal, false, Some(place)), Response::Stop("soon"));
            }
            assert_eq!(response(signal, true, Some(early)), Response::End(status));
        }
        assert_eq!(response(INTERRUPT, true, Some(soon)), Response::End(130));
        assert_eq!(response(TERMINATION, true, Some(soon)), Response::Nothing);
        assert_eq!(response(HANGUP, true, Some(soon)), Response::Nothing);
    }
}
