//! Locks on directories, so that one process at a time writes there.
//!
//! The operating system holds the lock on `.lock` for the process that took it, and releases it when that process ends,
//! however it ends: a lock of a dead process does not exist. `.lock.json` beside it names the holder for messages.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, write_atomic};

/// Why a directory cannot be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has locked it.
    #[error("{path} is in use by {holder}")]
    Held {
        /// The directory.
        path: PathBuf,
        /// The process, in words.
        holder: String,
    },
    /// The lock cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// A process that holds a lock.
#[derive(Debug, Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    /// Seconds since 1970.
    since: u64,
}

impl Holder {
    fn this_process() -> Self {
        let name = files::of_kernel(Path::new("/proc/sys/kernel/hostname"));
        let name = name.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok()));
        let host = name.map_or_else(|| "this machine".into(), |name| name.trim().to_owned());
        Self { pid: std::process::id(), host, since: now() }
    }

    fn describe(&self, now: u64) -> String {
        let age = match now.saturating_sub(self.since) {
            secs @ ..60 => format!("{secs} s"),
            secs @ ..3600 => format!("{} min", secs / 60),
            secs => format!("{} h {} min", secs / 3600, secs / 60 % 60),
        };
        format!("process {} on {} (for {age})", self.pid, self.host)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A locked directory, until this value is dropped or the process ends.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
    directory: PathBuf,
    /// Whether the file system has locks.
    locks: bool,
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.join(".lock")
}

fn holder_path(directory: &Path) -> PathBuf {
    directory.join(".lock.json")
}

/// Whether a directory holds a lock, taken or not, and nothing else.
pub fn is_all_there_is(directory: &Path) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    let own = [lock_path(directory), holder_path(directory)];
    own[0].exists() && entries.flatten().all(|entry| own.contains(&entry.path()))
}

/// The process that has locked a directory, in words; `None` if none has.
pub fn holder(directory: &Path) -> Option<String> {
    // Writing, because some systems lock only files that are open for it.
    let path = lock_path(directory);
    files::check_plain(&path).ok()?;
    let file = OpenOptions::new().write(true).open(path).ok()?;
    matches!(file.try_lock(), Err(TryLockError::WouldBlock)).then(|| holder_of(directory))
}

/// The process that `.lock.json` names.
fn holder_of(directory: &Path) -> String {
    let found = files::read(&holder_path(directory)).ok();
    let holder = found.and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
    holder.map_or_else(|| "another process".into(), |holder| holder.describe(now()))
}

impl DirectoryLock {
    /// Locks an existing directory.
    ///
    /// # Errors
    /// [`LockError::Held`] with the process that holds the lock, or [`LockError::File`].
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        let path = lock_path(directory);
        // The file may be removed between opening and locking it, by a holder that gives the directory up.
        for _ in 0..10 {
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                let other = io::Error::new(io::ErrorKind::InvalidInput, "it is not a plain file: remove it");
                return Err(FileError::writing(&path)(other).into());
            }
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(FileError::writing(&path))?;
            let locks = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => {
                    return Err(LockError::Held { path: directory.into(), holder: holder_of(directory) });
                }
                // Some network file systems have no locks.
                Err(TryLockError::Error(_)) => false,
            };
            let lock = Self { file, directory: directory.into(), locks };
            if lock.is_in_place() {
                let holder = serde_json::to_vec(&Holder::this_process()).map_err(io::Error::from);
                let holder = holder.map_err(FileError::writing(&path))?;
                write_atomic(&holder_path(directory), &holder)?;
                return Ok(lock);
            }
        }
        Err(LockError::Held { path: directory.into(), holder: "processes that begin and end".into() })
    }

    /// Whether the lock is still that of the directory: neither was removed, moved or replaced.
    pub fn is_in_place(&self) -> bool {
        let Ok(found) = fs::symlink_metadata(lock_path(&self.directory)) else { return false };
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            self.file.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (found.dev(), found.ino()))
        }
        #[cfg(not(unix))]
        {
            found.is_file()
        }
    }

    /// Whether the file system has locks. If not, nothing keeps other processes away.
    pub fn keeps_others_away(&self) -> bool {
        self.locks
    }

    /// Removes the files of the lock, from a directory that is given up.
    pub fn remove(&self) {
        // Best effort, as in `drop`.
        let _ = fs::remove_file(holder_path(&self.directory));
        let _ = fs::remove_file(lock_path(&self.directory));
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        if self.is_in_place() {
            // Best effort: the lock itself ends with its file.
            let _ = fs::remove_file(holder_path(&self.directory));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_who_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(dir.path()).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        let expected = format!("{} is in use by process {} on ", dir.path().display(), std::process::id());
        assert!(error.starts_with(&expected) && error.contains(" (for "), "{error}");
        // Without a name, as in the moment before it is written.
        fs::remove_file(holder_path(dir.path())).unwrap();
        assert!(DirectoryLock::take(dir.path()).unwrap_err().to_string().ends_with("in use by another process"));
        drop(first);
        // What a dead process leaves: both files, and no lock.
        let dead = Holder { pid: 1, host: "elsewhere".into(), since: 0 };
        fs::write(holder_path(dir.path()), serde_json::to_vec(&dead).unwrap()).unwrap();
        let taken_over = DirectoryLock::take(dir.path()).unwrap();
        assert!(taken_over.keeps_others_away());
        assert!(!DirectoryLock::take(dir.path()).unwrap_err().to_string().contains("elsewhere"));
        drop(taken_over);
        assert!(!holder_path(dir.path()).exists());
        assert_eq!(dead.describe(59), "process 1 on elsewhere (for 59 s)");
        assert_eq!(dead.describe(7_325), "process 1 on elsewhere (for 2 h 2 min)");
    }

    #[test]
    fn a_lock_is_not_in_place_in_a_directory_that_was_removed_or_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        fs::create_dir(&path).unwrap();
        let lock = DirectoryLock::take(&path).unwrap();
        assert!(lock.is_in_place());
        fs::rename(&path, dir.path().join("moved")).unwrap();
        assert!(!lock.is_in_place());
        fs::create_dir(&path).unwrap();
        let second = DirectoryLock::take(&path).unwrap();
        assert_eq!((lock.is_in_place(), second.is_in_place()), (!cfg!(unix), true));
        // The first one leaves the second one's name alone.
        drop(lock);
        assert!(holder_path(&path).exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_in_place_of_the_lock_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path().join("victim"), lock_path(dir.path())).unwrap();
        let error = DirectoryLock::take(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not a plain file") && !dir.path().join("victim").exists(), "{error}");
    }

    /// Opening a pipe for writing waits until somebody reads it.
    #[cfg(unix)]
    #[test]
    fn a_pipe_in_place_of_the_lock_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = lock_path(dir.path());
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (sender, receiver) = std::sync::mpsc::channel();
        let directory = dir.path().to_path_buf();
        std::thread::spawn(move || sender.send((holder(&directory), DirectoryLock::take(&directory).is_err())));
        assert_eq!(receiver.recv_timeout(std::time::Duration::from_secs(20)).unwrap(), (None, true));
    }
}
