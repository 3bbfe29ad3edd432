//! `--json`: the results of a command for other programs.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use serde::Serialize;

use super::{Usage, print, print_or_warn};
use crate::console::note;
use crate::files::{self, FileError, write_atomic};

/// Where the results go.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct JsonArgs {
    /// Also write the results as JSON; `-` is standard output, and the text then goes to standard error
    #[arg(id = "json", long, value_name = "FILE")]
    path: Option<PathBuf>,
}

impl JsonArgs {
    /// Refuses a file that cannot be written before anything is computed. Nothing is changed, and neither a pipe nor a device
    /// is opened.
    ///
    /// # Errors
    /// [`Usage`] for a directory; otherwise the reason.
    pub(super) fn check(&self) -> Result<()> {
        match &self.path {
            Some(path) if path.is_dir() => {
                bail!(Usage(format!("--json: {} is a directory; name a file in it", path.display())))
            }
            Some(path) if !is_standard_output(path) => {
                check_writable(path).map_err(|error| anyhow!("--json: {error}; name another file"))
            }
            _ => Ok(()),
        }
    }

    /// Writes text for people.
    ///
    /// # Errors
    /// If it cannot be written, unless the results are also wanted as JSON: that must not be lost with it.
    pub(super) fn print(&self, text: &str) -> Result<()> {
        match &self.path {
            None => print(text)?,
            Some(path) if is_standard_output(path) => note(text),
            Some(_) => print_or_warn(text),
        }
        Ok(())
    }

    /// Writes the results, if they are wanted as JSON. To be called before [`Self::print`] where all text is printed at
    /// the end.
    ///
    /// # Errors
    /// If they cannot be written.
    pub(super) fn write(&self, value: &impl Serialize) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let text = format!("{}\n", serde_json::to_string_pretty(value)?);
        if is_standard_output(path) {
            return print(&text);
        }
        Ok(write(path, text.as_bytes())?)
    }
}

/// `-`, or another name of the file or pipe that standard output is.
fn is_standard_output(path: &Path) -> bool {
    path == Path::new("-") || is_same_as_standard_output(path)
}

/// Whether both are one file or pipe. A terminal and `/dev/null` take text and JSON alike.
#[cfg(unix)]
fn is_same_as_standard_output(path: &Path) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let own = std::io::stdout().as_fd().try_clone_to_owned().and_then(|fd| fs::File::from(fd).metadata());
    match (own, fs::metadata(path)) {
        (Ok(own), Ok(found)) => {
            (own.dev(), own.ino()) == (found.dev(), found.ino()) && !found.file_type().is_char_device()
        }
        _ => false,
    }
}

#[cfg(not(unix))]
fn is_same_as_standard_output(_path: &Path) -> bool {
    false
}

/// Writes a file whole or not at all; it keeps its mode, and links to it stay. What is not a file of its own (a pipe, a
/// device, a file with several names) is written into.
fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let into = |options: &mut OpenOptions| {
        options.open(path).and_then(|mut file| file.write_all(bytes)).map_err(FileError::writing(path))
    };
    match fs::metadata(path) {
        Ok(found) if found.is_file() && has_one_name(&found) => {
            let target = path.canonicalize().map_err(FileError::writing(path))?;
            write_atomic(&target, bytes)?;
            fs::set_permissions(&target, found.permissions()).map_err(FileError::writing(&target))
        }
        Ok(found) => into(OpenOptions::new().write(true).truncate(found.is_file())),
        // A link to a file that is yet to be made.
        Err(_) if path.is_symlink() => into(OpenOptions::new().write(true).create(true).truncate(true)),
        Err(_) => write_atomic(path, bytes),
    }
}

/// Checks what [`write`] needs.
fn check_writable(path: &Path) -> Result<(), FileError> {
    let fail = FileError::writing(path);
    match fs::metadata(path) {
        Ok(found) if found.is_file() && has_one_name(&found) => {
            files::check_writable(&path.canonicalize().map_err(FileError::writing(path))?)
        }
        Ok(found) if found.is_file() => OpenOptions::new().write(true).open(path).map(drop).map_err(fail),
        // Opening a pipe waits for its reader, and tells the reader that there was a writer.
        Ok(found) => may_be_written(path, &found).map_err(fail),
        // A link to a file that is yet to be made, in a directory that must exist.
        Err(_) if path.is_symlink() => {
            let to = fs::read_link(path).map_err(FileError::writing(path))?;
            let to = path.parent().unwrap_or(Path::new("")).join(to);
            match to.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.is_dir()) {
                Some(_) => Err(fail(ErrorKind::NotFound.into())),
                None => files::check_writable(&to),
            }
        }
        Err(_) => files::check_writable(path),
    }
}

/// Whether this process may write into a pipe or a device.
#[cfg(unix)]
fn may_be_written(path: &Path, found: &fs::Metadata) -> std::io::Result<()> {
    if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, "it is a socket"));
    }
    Ok(nix::unistd::access(path, nix::unistd::AccessFlags::W_OK)?)
}

#[cfg(not(unix))]
fn may_be_written(_path: &Path, _found: &fs::Metadata) -> std::io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn has_one_name(found: &fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::nlink(found) == 1
}

#[cfg(not(unix))]
fn has_one_name(_found: &fs::Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    use super::*;

    fn json(path: &Path) -> JsonArgs {
        JsonArgs { path: Some(path.to_path_buf()) }
    }

    #[test]
    fn a_file_keeps_its_mode_and_its_other_names() {
        let dir = tempfile::tempdir().unwrap();
        let [file, other, link, new] = ["file", "other", "link", "new"].map(|name| dir.path().join(name));
        fs::write(&file, "a text that is longer than the new one").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("file", &link).unwrap();
        json(&link).write(&1).unwrap();
        assert!(link.is_symlink() && fs::read(&file).unwrap() == b"1\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

        fs::hard_link(&file, &other).unwrap();
        json(&file).write(&2).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"2\n");

        fs::remove_file(&link).unwrap();
        symlink("new", &link).unwrap();
        json(&link).write(&3).unwrap();
        assert!(link.is_symlink() && fs::read(&new).unwrap() == b"3\n");
    }

    #[test]
    fn pipes_and_devices_are_written_into() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || {
                let mut text = String::new();
                fs::File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            })
        };
        json(&pipe).write(&[1]).unwrap();
        assert_eq!(reader.join().unwrap(), "[\n  1\n]\n");
        assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
        json(Path::new("/dev/null")).write(&[1]).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(json(dir.path()).check().unwrap_err().to_string().contains("is a directory; name a file in it"));
        assert!(json(&pipe).check().is_ok() && JsonArgs::default().check().is_ok());
    }

    #[test]
    fn a_file_that_cannot_be_written_is_refused_at_the_start_and_nothing_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let [file, other, link, dangling, pipe, socket] =
            ["file", "other", "link", "dangling", "pipe", "socket"].map(|name| dir.path().join(name));
        fs::write(&file, "results").unwrap();
        fs::hard_link(&file, &other).unwrap();
        fs::write(dir.path().join("single"), "results").unwrap();
        symlink("file", &link).unwrap();
        symlink("yet-to-be-made", &dangling).unwrap();
        symlink("nowhere/file", dir.path().join("lost")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let listing = || {
            let mut all: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap()).collect();
            all.sort_by_key(fs::DirEntry::file_name);
            let state = |entry: &fs::DirEntry| {
                let found = entry.metadata().unwrap();
                let unchanged = std::os::unix::fs::MetadataExt::ino(&found);
                (entry.file_name(), unchanged, found.len(), found.modified().unwrap())
            };
            all.iter().map(state).collect::<Vec<_>>()
        };
        let before = listing();
        // The pipe has no reader: opening it would wait for one.
        for good in [&file, &other, &link, &dangling, &pipe, &dir.path().join("single"), &dir.path().join("a/b/new")] {
            json(good).check().unwrap();
        }
        for good in ["-", "/dev/null", "/dev/stdout"] {
            json(Path::new(good)).check().unwrap();
        }
        for (bad, expected) in [
            (dir.path().join("file/new"), "Not a directory"),
            (dir.path().join("lost"), "not found"),
            (dir.path().join("n".repeat(300)), "too long"),
            (socket, "it is a socket"),
        ] {
            let error = json(&bad).check().unwrap_err().to_string();
            let start = format!("--json: cannot write {}: ", bad.display());
            assert!(error.starts_with(&start) && error.contains(expected), "{error}");
            assert!(error.ends_with("; name another file"), "{error}");
            assert!(json(&bad).write(&1).is_err(), "{bad:?}");
        }
        assert_eq!(listing(), before);
        if cfg!(target_os = "linux") {
            // Not even root can make files there.
            let error = json(Path::new("/proc/results.json")).check().unwrap_err().to_string();
            assert!(error.starts_with("--json: cannot write /proc/results.json: "), "{error}");
        }
    }
}
