//! Helpers of all file readers: bounded reads, class names, hints for common mistakes.

use std::ffi::OsStr;
use std::fs::{DirEntry, File};
use std::io::{self, Read};
use std::path::Path;

use super::DataError;
use crate::files;

/// Upper limit for any single part of a set that is read into memory.
pub(super) const MAX_PART_BYTES: u64 = 1 << 34;

/// Opens a regular file of at most [`MAX_PART_BYTES`] (plus a header) and returns its length.
pub(super) fn open(path: &Path) -> Result<(File, u64), DataError> {
    Ok(files::open(path, MAX_PART_BYTES + (1 << 20))?)
}

/// The content of a regular file of at most `max` bytes.
pub(super) fn read_file(path: &Path, max: u64) -> Result<Vec<u8>, DataError> {
    Ok(files::read_up_to(path, max)?)
}

/// Reads until `buffer` is full or the stream ends; returns how many bytes were read.
pub(super) fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Describes the first bytes of a file, for a message about a file of the wrong kind.
///
/// `rest` is the stream that follows `head`; a few bytes of it are read.
pub(super) fn describe_start(head: &[u8], rest: &mut impl Read) -> String {
    let mut start = [0; 80];
    let taken = head.len().min(start.len());
    start[..taken].copy_from_slice(&head[..taken]);
    // On a read error only the bytes before it are described.
    let more = fill(rest, &mut start[taken..]).unwrap_or(0);
    let head = &start[..taken + more];
    if head.is_empty() {
        return "it is empty".into();
    }
    let text: String = head.iter().map(|b| b.to_ascii_lowercase() as char).collect();
    let text = text.trim_start();
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return "it holds an HTML page, as left by a download that failed".into();
    }
    let hex: Vec<String> = head.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("it starts with the bytes {}", hex.join(" "))
}

/// A text file of at most `max` bytes, without the byte-order mark that editors on Windows put at its start.
pub(super) fn read_text(path: &Path, max: u64) -> Result<String, DataError> {
    let text = String::from_utf8(read_file(path, max)?).map_err(|e| {
        let what = format!("byte {} is not UTF-8; save it as a UTF-8 text", e.utf8_error().valid_up_to());
        DataError::format(path, what)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// Checks a file of class names.
pub(crate) fn check_class_names(path: &Path) -> Result<(), DataError> {
    read_class_names(path).map(|_| ())
}

/// Names from a text file, one per line; blank lines at the end are ignored.
pub(super) fn read_class_names(path: &Path) -> Result<Vec<String>, DataError> {
    let text = read_text(path, 1 << 20)?;
    let mut names: Vec<String> = Vec::new();
    for (number, line) in text.trim_end().lines().enumerate() {
        let name = line.trim();
        if name.is_empty() {
            return Err(DataError::format(path, format!("line {} is blank, expected a class name", number + 1)));
        }
        if let Some(first) = names.iter().position(|n| n == name) {
            let what = format!("lines {} and {} both name the class '{name}'", first + 1, number + 1);
            return Err(DataError::format(path, what));
        }
        names.push(name.into());
    }
    Ok(names)
}

/// The names in `path` if that file exists, otherwise `built_in`; the file must have the same number of names.
pub(super) fn class_names_or(path: &Path, built_in: &[&str]) -> Result<Vec<String>, DataError> {
    if !path.exists() {
        return Ok(built_in.iter().map(|n| (*n).to_owned()).collect());
    }
    let names = read_class_names(path)?;
    if names.len() != built_in.len() {
        return Err(DataError::format(path, format!("expected {} class names, found {}", built_in.len(), names.len())));
    }
    Ok(names)
}

/// Whether the name of a file or directory starts with a dot.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// Entries of a directory that are not hidden, in bytewise order of their names.
pub(super) fn entries(directory: &Path) -> Result<Vec<DirEntry>, DataError> {
    let mut found = all_entries(directory)?;
    found.retain(|entry| !is_hidden(&entry.file_name()));
    Ok(found)
}

/// Entries of a directory in bytewise order of their names.
pub(super) fn all_entries(directory: &Path) -> Result<Vec<DirEntry>, DataError> {
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<DirEntry>>>);
    let mut found = entries.map_err(DataError::reading(directory))?;
    found.sort_by(|a, b| a.file_name().as_encoded_bytes().cmp(b.file_name().as_encoded_bytes()));
    Ok(found)
}

/// A suggestion with the candidate closest to `name` in spelling, as the end of a sentence; empty if none is close.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::normalized_damerau_levenshtein(&wanted, &c.to_lowercase()), c))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(similarity, _)| *similarity >= 0.5)
        .map_or_else(String::new, |(_, c)| format!("; did you mean '{c}'?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_are_checked_line_by_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.txt");
        let names = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            class_names_or(&path, &["x", "y"])
        };
        assert_eq!(names(b"cat\r\ndog\n\n").unwrap(), ["cat", "dog"]);
        assert_eq!(names("\u{feff}cat\r\ndog".as_bytes()).unwrap(), ["cat", "dog"]);
        for (text, expected) in [
            (&b"cat\n"[..], "expected 2 class names, found 1"),
            (b"cat\n\ndog", "line 2 is blank"),
            (b"cat\ncat", "lines 1 and 2 both name the class 'cat'"),
            (b"ca\xff", "byte 2 is not UTF-8"),
        ] {
            let message = names(text).unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("names.txt"), "{message}");
        }
        assert_eq!(class_names_or(&dir.path().join("none"), &["x", "y"]).unwrap(), ["x", "y"]);
    }

    #[test]
    fn the_start_of_a_file_is_described() {
        assert!(describe_start(b"\n <!DOC", &mut &b"TYPE HTML><html>"[..]).contains("HTML page"));
        assert!(describe_start(b"\x00\x01", &mut io::empty()).contains("00 01"));
        assert!(describe_start(b"", &mut io::empty()).contains("empty"));
    }

    #[test]
    fn suggestions_are_close_or_absent() {
        let names = ["cifar10", "cifar100", "mnist"];
        assert_eq!(did_you_mean("cifra10", names), "; did you mean 'cifar10'?");
        assert_eq!(did_you_mean("MNST", names), "; did you mean 'mnist'?");
        assert_eq!(did_you_mean("zzzz", names), "");
    }
}
