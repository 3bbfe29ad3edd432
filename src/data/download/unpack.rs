//! Unpacks a verified archive atomically.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use sha2::{Digest, Sha256};

use super::digest::{CHUNK, Record, Recorded, hex};
use super::{Phase, Watch};
use crate::data::DataError;
use crate::data::publishers::Packing;
use crate::files::FileError;

/// Directory into which an archive is unpacked before the result is renamed into place.
const TEMPORARY: &str = ".unpacking";

/// Counts the compressed bytes read, so that progress can be reported relative to the archive's length.
struct Counted {
    file: File,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// Unpacks `archive` so that `directory` holds the archive's own directory `inner`, and writes the SHA-256 of every
/// file to `record`.
///
/// An existing directory is moved aside, never overwritten. If the process is killed, only [`TEMPORARY`] is left, which
/// the next call removes.
///
/// # Errors
/// Returns [`DataError::Format`] if an entry is outside `inner`'s parent, a link or a device, or if the archive is
/// truncated; [`DataError::File`] if a file cannot be read or written; [`DataError::Stopped`] if the user stopped it.
pub(super) fn unpack(
    archive: &Path,
    packing: &Packing,
    directory: &Path,
    record: &Path,
    against: &str,
    watch: &mut Watch<'_>,
) -> Result<(), DataError> {
    let Some(inner) = packing.directory() else { return Ok(()) };
    let temporary = directory.join(TEMPORARY);
    remove_tree(&temporary)?;
    fs::create_dir_all(&temporary).map_err(DataError::writing(&temporary))?;
    let unpacked = write_entries(archive, packing, inner, &temporary, watch).and_then(|files| {
        let place = directory.join(inner);
        remove_file(record)?;
        move_aside(&place)?;
        // The record is written first: without the directory it has no effect, and the directory never exists without
        // it.
        Record { against: against.to_owned(), files }.save(record)?;
        let from = temporary.join(inner);
        fs::rename(&from, &place).map_err(DataError::writing(&place))
    });
    // Best effort: the next unpacking removes what remains.
    let _ = fs::remove_dir_all(&temporary);
    unpacked
}

fn write_entries(
    archive: &Path,
    packing: &Packing,
    inner: &str,
    temporary: &Path,
    watch: &mut Watch<'_>,
) -> Result<Vec<Recorded>, DataError> {
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (file, total) = crate::files::open(archive, u64::MAX)?;
    let read = Rc::new(Cell::new(0));
    let counted = io::BufReader::with_capacity(CHUNK, Counted { file, read: Rc::clone(&read) });
    let reader: Box<dyn Read> = match packing {
        Packing::TarGz { .. } => Box::new(flate2::read::MultiGzDecoder::new(counted)),
        Packing::Tar { .. } | Packing::None => Box::new(counted),
    };
    let broken = |error: io::Error| DataError::format(archive, format!("cannot be unpacked: {error}"));
    let mut tar = tar::Archive::new(reader);
    let mut files = Vec::new();
    let mut buffer = vec![0; CHUNK];
    for entry in tar.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let relative = safe_path(&entry.path().map_err(broken)?).map_err(|what| DataError::format(archive, what))?;
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        let Some(text) = parts.map(|parts| parts.join("/")) else {
            return Err(DataError::format(archive, format!("entry {} is not named in UTF-8", relative.display())));
        };
        if !(kind.is_file() || kind.is_dir()) {
            let what = format!("entry {text} is neither a file nor a directory ({kind:?}); links are refused");
            return Err(DataError::format(archive, what));
        }
        if !relative.starts_with(inner) {
            continue;
        }
        let path = temporary.join(&relative);
        if kind.is_dir() {
            fs::create_dir_all(&path).map_err(DataError::writing(&path))?;
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(DataError::writing(parent))?;
        }
        let expected = entry.size();
        let mut out = File::create(&path).map_err(DataError::writing(&path))?;
        let (mut sha256, mut bytes) = (Sha256::new(), 0);
        loop {
            watch.check(|| format!("stopped while unpacking {}; no partial result is left", archive.display()))?;
            watch.report(&name, Phase::Unpacking, read.get(), Some(total));
            let count = match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error)),
            };
            sha256.update(&buffer[..count]);
            out.write_all(&buffer[..count]).map_err(DataError::writing(&path))?;
            bytes += count as u64;
        }
        if bytes != expected {
            let what = format!("entry {text} ends after {bytes} of {expected} bytes");
            return Err(DataError::format(archive, what));
        }
        out.sync_all().map_err(DataError::writing(&path))?;
        files.retain(|earlier: &Recorded| earlier.path != text);
        files.push(Recorded { sha256: hex(&sha256.finalize()), bytes, path: text });
    }
    if files.is_empty() {
        return Err(DataError::format(archive, format!("holds no file in a directory '{inner}'")));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    watch.report(&name, Phase::Unpacking, total, Some(total));
    Ok(files)
}

/// `path` relative to the directory it is unpacked to; an error if it would leave that directory.
fn safe_path(path: &Path) -> Result<PathBuf, String> {
    let mut safe = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => safe.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(format!("entry {} would be written outside of its directory; refused", path.display()));
            }
        }
    }
    Ok(safe)
}

/// Renames whatever is at `path` to an unused name in the same directory.
fn move_aside(path: &Path) -> Result<(), DataError> {
    if !path.try_exists().map_err(DataError::reading(path))? {
        return Ok(());
    }
    let mut number = 1;
    loop {
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".unverified-{number}"));
        let free = path.with_file_name(name);
        if !free.try_exists().map_err(DataError::reading(&free))? {
            return fs::rename(path, &free).map_err(DataError::writing(&free));
        }
        number += 1;
    }
}

pub(super) fn remove_file(path: &Path) -> Result<(), DataError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::removing(path)(error).into()),
        _ => Ok(()),
    }
}

fn remove_tree(path: &Path) -> Result<(), DataError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::removing(path)(error).into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    fn tar_with(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, kind, body) in entries {
            let mut header = tar::Header::new_gnu();
            // Written directly into the header, because the builder rejects hostile names.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(body.len() as u64);
            header.set_mode(0o644);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_link_name("/etc/passwd").unwrap();
            }
            header.set_cksum();
            builder.append(&header, *body).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Unpacks `bytes` and returns the result and the names left in the directory, apart from the archive.
    fn try_unpack(bytes: &[u8], stop: bool) -> (Result<(), DataError>, Vec<String>, tempfile::TempDir) {
        let root = tempfile::tempdir().unwrap();
        let set = root.path().join("set");
        fs::create_dir(&set).unwrap();
        let archive = set.join("a.tar");
        fs::write(&archive, bytes).unwrap();
        let stop = AtomicBool::new(stop);
        let mut silent = |_: super::super::Progress<'_>| {};
        let mut watch = Watch { stop: &stop, progress: &mut silent };
        let packing = Packing::Tar { directory: "in".into() };
        let result = unpack(&archive, &packing, &set, &set.join("in.sha256"), "x", &mut watch);
        let mut left: Vec<String> = fs::read_dir(&set)
            .unwrap()
            .chain(fs::read_dir(root.path()).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "a.tar" && name != "set")
            .collect();
        left.sort();
        (result, left, root)
    }

    const FILE: tar::EntryType = tar::EntryType::Regular;

    #[test]
    fn hostile_entries_are_rejected_and_leave_nothing() {
        for (name, kind) in [
            ("in/../../evil", FILE),
            ("../evil", FILE),
            ("/evil-entry", FILE),
            ("in/link", tar::EntryType::Symlink),
            ("in/link", tar::EntryType::Link),
            ("in/device", tar::EntryType::Char),
        ] {
            let (result, left, _root) = try_unpack(&tar_with(&[("in/a", FILE, b"1"), (name, kind, b"")]), false);
            let message = result.unwrap_err().to_string();
            assert!(message.contains("refused") && message.contains("a.tar"), "{name}: {message}");
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }

    #[test]
    fn truncated_and_foreign_archives_are_rejected() {
        let whole = tar_with(&[("in/a", FILE, &[7; 5000])]);
        for bytes in [&whole[..3000], &whole[..700], b"not a tar file at all".as_slice(), b"".as_slice()] {
            let (result, left, _root) = try_unpack(bytes, false);
            assert!(matches!(result, Err(DataError::Format { .. })), "{} bytes: {result:?}", bytes.len());
            assert!(left.is_empty());
        }
        let (result, _, _root) = try_unpack(&tar_with(&[("other/a", FILE, b"1")]), false);
        assert!(result.unwrap_err().to_string().contains("no file in a directory 'in'"));
    }

    #[test]
    fn a_good_archive_is_unpacked_and_recorded_and_a_stop_leaves_nothing() {
        let bytes = tar_with(&[("./in/b", FILE, b"abc"), ("in/c/a", FILE, b""), ("stray", FILE, b"x")]);
        let (result, left, root) = try_unpack(&bytes, false);
        result.unwrap();
        assert_eq!(left, ["in", "in.sha256"]);
        let record = Record::load(&root.path().join("set/in.sha256")).unwrap().unwrap();
        assert_eq!(record.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["in/b", "in/c/a"]);
        assert!(record.files[0].sha256.starts_with("ba7816bf"));
        let (result, left, _root) = try_unpack(&bytes, true);
        assert!(matches!(result, Err(DataError::Stopped(_))));
        assert!(left.is_empty());
    }

    #[test]
    fn an_existing_directory_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in");
        for number in 1..=2 {
            fs::create_dir(&path).unwrap();
            move_aside(&path).unwrap();
            assert!(!path.exists() && dir.path().join(format!("in.unverified-{number}")).is_dir());
        }
    }
}
