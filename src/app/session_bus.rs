//! Whether the session bus of the desktop answers. The system's file dialogs are asked for through it; if it never answers,
//! neither do they.

use std::time::Duration;

/// Whether the session bus answers within this time. `true` also if there is none, or if its address is of a kind that is
/// not known here: the dialogs themselves then say that they are unavailable.
#[cfg(all(unix, not(target_os = "macos")))]
pub(super) fn answers(limit: Duration) -> bool {
    let address = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    answers_at(&address, limit)
}

/// Other systems show their dialogs without a bus.
#[cfg(not(all(unix, not(target_os = "macos"))))]
pub(super) fn answers(_: Duration) -> bool {
    true
}

/// The greeting of the D-Bus specification: a zero byte, then an authentication command. Without a mechanism, the server
/// answers with those that it knows.
#[cfg(all(unix, not(target_os = "macos")))]
fn answers_at(address: &str, limit: Duration) -> bool {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    let Some(path) = socket_of(address) else { return true };
    let greet = move || {
        let mut stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        stream.write_all(b"\0AUTH\r\n")?;
        stream.read(&mut [0; 16])
    };
    // Connecting waits as well, if the queue of the socket is full.
    let (sender, receiver) = std::sync::mpsc::channel();
    let asked = std::thread::Builder::new().name("bus".into()).spawn(move || {
        // After the limit nothing receives the answer.
        let _ = sender.send(greet());
    });
    if asked.is_err() {
        return true;
    }
    match receiver.recv_timeout(limit) {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        Err(_) => false,
    }
}

/// The path of the first Unix socket in an address such as `unix:path=/run/user/1000/bus,guid=…;tcp:…`.
#[cfg(all(unix, not(target_os = "macos")))]
fn socket_of(address: &str) -> Option<std::path::PathBuf> {
    let unix = address.split(';').find_map(|one| one.strip_prefix("unix:"))?;
    unix.split(',').find_map(|part| part.strip_prefix("path=")).map(Into::into)
}

#[cfg(all(test, unix, not(target_os = "macos")))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_bus_that_never_answers_is_told_from_one_that_does_and_from_none() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let address = |name: &str| format!("unix:path={},guid=1;tcp:host=x", place(name).display());
        let limit = Duration::from_millis(200);

        let _silent = UnixListener::bind(place("silent")).unwrap();
        let began = Instant::now();
        assert!(!answers_at(&address("silent"), limit));
        assert!(began.elapsed() < Duration::from_secs(10));

        let listener = UnixListener::bind(place("good")).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; 7];
            stream.read_exact(&mut greeting).unwrap();
            assert_eq!(&greeting, b"\0AUTH\r\n");
            stream.write_all(b"REJECTED EXTERNAL\r\n").unwrap();
        });
        assert!(answers_at(&address("good"), Duration::from_secs(20)));
        // Nothing is there: the dialog fails at once.
        assert!(answers_at(&address("none"), limit) && answers_at("", limit) && answers_at("autolaunch:", limit));
    }
}
