//! Atomic writes of files, and errors that name the file.

use std::fs::{self, File};
use std::io::{self, Write};
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

/// [`fs::read`], with an error that names the file.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(FileError::reading(path))
}

/// [`fs::read_to_string`], with an error that names the file.
///
/// # Errors
/// Returns an error if the file cannot be read or is not UTF-8.
pub fn read_to_string(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(FileError::reading(path))
}

/// Writes `bytes` to a temporary file in the same directory, syncs it, and renames it to `path`.
///
/// At any time, also after a crash, `path` is either the old file or the complete new one. Creates missing directories.
///
/// # Errors
/// Returns an error if the file cannot be written. The temporary file is removed if possible.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    write(path, bytes).map_err(FileError::writing(path))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(directory)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(temporary);
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // Best effort: the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    }
    written
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
    fn failure_leaves_no_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(write_atomic(&dir.path().join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
