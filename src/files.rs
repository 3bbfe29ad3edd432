//! Bounded reads and atomic writes of files, and errors that name the file.

use std::collections::hash_map::RandomState;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The failed operation, the file or directory, and the error of the operating system:
/// `cannot read runs/digits/config.toml: Permission denied (os error 13)`.
///
/// The cause is part of the message. It is not the error's `source` as well, because an error chain printed on one line
/// would then contain it twice.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} {}: {cause}", path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    cause: io::Error,
}

impl FileError {
    fn new(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |cause| Self { doing, path, cause }
    }

    /// A closure that wraps a failure to read `path`: `fs::metadata(path).map_err(FileError::reading(path))`.
    pub fn reading(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        Self::new("read", path)
    }

    /// A closure that wraps a failure to create, write or rename to `path`.
    pub fn writing(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        Self::new("write", path)
    }

    /// A closure that wraps a failure to remove `path`.
    pub fn removing(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        Self::new("remove", path)
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The error of the operating system.
    pub const fn cause(&self) -> &io::Error {
        &self.cause
    }
}

/// Limit of [`read`]: no file of this program and no checkpoint that it can use is larger.
const MAX_BYTES: u64 = 1 << 33;
/// Limit of [`read_to_string`].
const MAX_TEXT_BYTES: u64 = 1 << 28;

/// Opens a regular file of at most `max` bytes; returns its length as well.
///
/// Anything else is refused before it is opened, because opening or reading it may block forever, never end or have side
/// effects: pipes, sockets, devices, and on Linux all files below `/proc` and `/sys`.
///
/// # Errors
/// Returns an error if the file cannot be opened, is not a regular one or is longer than `max`.
pub fn open(path: &Path, max: u64) -> Result<(File, u64), FileError> {
    open_regular(path, max).map_err(FileError::reading(path))
}

fn open_regular(path: &Path, max: u64) -> io::Result<(File, u64)> {
    check_regular(&fs::metadata(path)?)?;
    if is_virtual(path) {
        return Err(irregular(io::ErrorKind::InvalidInput, "a file that the kernel makes up"));
    }
    let file = File::open(path)?;
    // The path may have been replaced in between.
    let metadata = file.metadata()?;
    check_regular(&metadata)?;
    match metadata.len() {
        length if length > max => Err(too_long(length, max)),
        length => Ok((file, length)),
    }
}

fn check_regular(metadata: &fs::Metadata) -> io::Result<()> {
    if metadata.is_dir() {
        return Err(irregular(io::ErrorKind::IsADirectory, "a directory"));
    }
    if !metadata.is_file() {
        return Err(irregular(io::ErrorKind::InvalidInput, special(metadata)));
    }
    Ok(())
}

/// Whether Linux makes up the content of a file on reading; its length then says nothing about it.
fn is_virtual(path: &Path) -> bool {
    cfg!(target_os = "linux")
        && fs::canonicalize(path).is_ok_and(|path| ["/proc", "/sys"].iter().any(|of| path.starts_with(of)))
}

fn irregular(kind: io::ErrorKind, what: &str) -> io::Error {
    io::Error::new(kind, format!("it is {what}, expected a regular file"))
}

#[cfg(unix)]
fn special(metadata: &fs::Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match metadata.file_type() {
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(not(unix))]
fn special(_: &fs::Metadata) -> &'static str {
    "a device"
}

fn too_long(length: u64, max: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is {length} bytes long, expected at most {max}"))
}

/// Checks that a file at `path` can be opened for writing without waiting: that nothing is there, or a regular file.
/// Opening a pipe waits for its other end, and writing to a device has side effects.
///
/// # Errors
/// Returns an error that names what is there instead.
pub fn check_plain(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) => check_regular(&metadata),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The content of a regular file of at most `max` bytes, see [`open`].
///
/// # Errors
/// As [`open`]; also if the file cannot be read, does not fit into memory, or grows beyond `max`.
pub fn read_up_to(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let read = || {
        let (file, length) = open_regular(path, max)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length as usize).map_err(io::Error::other)?;
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max { Err(too_long(bytes.len() as u64, max)) } else { Ok(bytes) }
    };
    read().map_err(FileError::reading(path))
}

/// [`fs::read`] of a regular file of at most 8 GiB, with an error that names the file.
///
/// # Errors
/// As [`read_up_to`].
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_up_to(path, MAX_BYTES)
}

/// [`fs::read_to_string`] of a regular file of at most 256 MiB, with an error that names the file.
///
/// # Errors
/// As [`read_up_to`]; also if the content is not UTF-8.
pub fn read_to_string(path: &Path) -> Result<String, FileError> {
    let bytes = read_up_to(path, MAX_TEXT_BYTES)?;
    String::from_utf8(bytes).map_err(|error| {
        let what = format!("byte {} is not UTF-8 text", error.utf8_error().valid_up_to());
        FileError::reading(path)(io::Error::new(io::ErrorKind::InvalidData, what))
    })
}

/// The text of a file that the kernel makes up, whose path is not a user's; `None` if there is none.
pub(crate) fn of_kernel(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(1 << 20).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Beginning and end of the names of temporary files, around a random part.
const TEMPORARY: [&str; 2] = [".fairtat-", ".tmp"];

/// Writes `bytes` to a new temporary file in the same directory, syncs it, renames it to `path`, and syncs the directory.
///
/// At any time, also after a crash, `path` is either the old file or the complete new one. A link at `path` is replaced,
/// not followed. The permissions of a file that is replaced are kept. Creates missing directories.
///
/// # Errors
/// Returns an error if the file cannot be written. The temporary file is removed if possible.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes).map_err(FileError::writing(path))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file name"));
    }
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let (mut file, temporary) = temporary(directory)?;
    let written = file.write_all(bytes).and_then(|()| {
        if let Some(old) = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file) {
            // Best effort: some file systems have no permissions.
            let _ = file.set_permissions(old.permissions());
        }
        file.sync_all()
    });
    // Windows does not rename a file that is open.
    drop(file);
    if let Err(error) = written.and_then(|()| fs::rename(&temporary, path)) {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    // The new name itself; only Unix opens directories, and some file systems cannot sync them.
    #[cfg(unix)]
    let _ = fs::File::open(directory).and_then(|directory| directory.sync_all());
    Ok(())
}

/// A new temporary file in a directory, and its path.
fn temporary(directory: &Path) -> io::Result<(File, PathBuf)> {
    // A new name for each file, which nobody can foresee, and `create_new`: neither an earlier file nor a link is followed.
    let random = RandomState::new().build_hasher().finish();
    let path = directory.join(format!("{}{random:016x}{}", TEMPORARY[0], TEMPORARY[1]));
    Ok((OpenOptions::new().write(true).create_new(true).open(&path)?, path))
}

/// Checks that [`write_atomic`] can write a file at `path`, and changes nothing: a temporary file is made and removed in its
/// directory, or in the one in which that directory would be made.
///
/// # Errors
/// Returns the error that [`write_atomic`] would return.
pub fn check_writable(path: &Path) -> Result<(), FileError> {
    let check = || {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // Such as a name that is too long.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let absolute = std::path::absolute(path)?;
        let existing = absolute.ancestors().skip(1).find(|directory| directory.exists());
        let (file, made) = temporary(existing.ok_or(io::ErrorKind::NotFound)?)?;
        drop(file);
        fs::remove_file(made)
    };
    check().map_err(FileError::writing(path))
}

/// Removes the temporary files that killed processes have left in `directory`, also those of earlier versions. No other
/// process may write there.
pub fn sweep(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (name, is_file) = (entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_file()));
        if is_file && name.to_str().is_some_and(is_temporary) {
            // Best effort: what stays costs only space.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn is_temporary(name: &str) -> bool {
    let Some(inner) = name.strip_suffix(TEMPORARY[1]) else { return false };
    // `.NAME.PID.tmp` in earlier versions.
    let earlier =
        || inner.starts_with('.') && inner[1..].rsplit_once('.').is_some_and(|(_, pid)| pid.parse::<u32>().is_ok());
    inner.strip_prefix(TEMPORARY[0]).is_some_and(|random| random.len() == 16) || earlier()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_whole_file_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.txt");
        write_atomic(&path, b"long first text").unwrap();
        write_atomic(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }

    #[test]
    fn errors_name_the_operation_and_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (none, taken) = (dir.path().join("none.toml"), dir.path().join("taken"));
        fs::create_dir(&taken).unwrap();
        let missing = read(&none).unwrap_err();
        assert_eq!((missing.path(), missing.cause().kind()), (none.as_path(), io::ErrorKind::NotFound));
        assert_eq!(missing.to_string(), format!("cannot read {}: {}", none.display(), missing.cause()));
        let refused = write_atomic(&taken, b"x").unwrap_err();
        assert_eq!(refused.to_string(), format!("cannot write {}: {}", taken.display(), refused.cause()));
        let removing = FileError::removing(&none)(io::ErrorKind::NotFound.into());
        assert!(removing.to_string().starts_with(&format!("cannot remove {}: ", none.display())), "{removing}");
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused_before_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, [7; 11]).unwrap();
        assert_eq!(read_up_to(&path, 11).unwrap(), [7; 11]);
        let error = read_up_to(&path, 10).unwrap_err().to_string();
        assert_eq!(error, format!("cannot read {}: it is 11 bytes long, expected at most 10", path.display()));
        // Sparse: no disk could hold it, and no memory.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains("it is 1099511627776 bytes long"), "{error}");
        fs::write(&path, [b'a', 0xff]).unwrap();
        assert!(read_to_string(&path).unwrap_err().to_string().ends_with("byte 1 is not UTF-8 text"));
        assert!(read(dir.path()).unwrap_err().to_string().ends_with("it is a directory, expected a regular file"));
    }

    /// Each of these would hang, never end, or yield what nobody wrote.
    #[cfg(target_os = "linux")]
    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, link) = (dir.path().join("socket"), dir.path().join("link"));
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink("/proc/self/maps", &link).unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, what) in [
            (pipe.as_path(), "a pipe"),
            (&socket, "a socket"),
            (&link, "a file that the kernel makes up"),
            (Path::new("/dev/urandom"), "a device"),
            (Path::new("/dev/zero"), "a device"),
            (Path::new("/proc/kmsg"), "a file that the kernel makes up"),
            (Path::new("/sys/kernel/notes"), "a file that the kernel makes up"),
        ] {
            // Not every kernel has each of them.
            if path.exists() {
                let error = read_to_string(path).unwrap_err().to_string();
                assert!(error.ends_with(&format!("it is {what}, expected a regular file")), "{error}");
            }
        }
    }

    #[test]
    fn failure_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write_atomic(&dir.path().join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Links at the names that an earlier version used for its temporary files, and at the name itself.
    #[cfg(unix)]
    #[test]
    fn links_are_replaced_and_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("out/last.json"));
        fs::write(&victim, "precious").unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        let planted = dir.path().join(format!("out/.last.json.{}.tmp", std::process::id()));
        std::os::unix::fs::symlink(&victim, &planted).unwrap();
        write_atomic(&path, b"new").unwrap();
        assert_eq!((fs::read(&victim).unwrap(), fs::read(&path).unwrap()), (b"precious".to_vec(), b"new".to_vec()));
        assert!(fs::symlink_metadata(&path).unwrap().is_file() && planted.is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn permissions_are_those_of_any_new_file_or_of_the_one_that_is_replaced() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (plain, path) = (dir.path().join("plain"), dir.path().join("file"));
        fs::write(&plain, "").unwrap();
        write_atomic(&path, b"x").unwrap();
        assert_eq!(mode(&path), mode(&plain));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write_atomic(&path, b"y").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn what_killed_processes_left_is_swept_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let kept = ["a.tmp", ".x.tmp", ".fairtat-notes.tmp", ".a.b.tmp", "last.json", ".lock"];
        for name in kept.iter().chain(&[".fairtat-0123456789abcdef.tmp", ".last.json.4711.tmp"]) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        fs::create_dir(dir.path().join(".fairtat-fedcba9876543210.tmp")).unwrap();
        sweep(dir.path());
        let mut found: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        let mut expected: Vec<_> = kept.iter().map(|name| (*name).to_owned()).collect();
        expected.push(".fairtat-fedcba9876543210.tmp".into());
        found.sort();
        expected.sort();
        assert_eq!(found, expected);
    }
}
