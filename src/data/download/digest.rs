//! Checksums of files, and the record of them that is stored with the data.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::{Digest, Sha256};

use super::{Phase, Watch};
use crate::data::DataError;
use crate::data::publishers::Digests;

/// Number of bytes read at a time.
pub(super) const CHUNK: usize = 128 * 1024;

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads `reader` to its end and computes its checksums.
///
/// # Errors
/// Returns the reader's error.
pub fn digests(reader: impl Read) -> io::Result<Digests> {
    digests_of(reader, |_| Ok(())).map_err(|stopped: Stop<()>| match stopped {
        Stop::Read(error) => error,
        Stop::Asked(()) => io::Error::other("stopped"),
    })
}

enum Stop<E> {
    Read(io::Error),
    Asked(E),
}

fn digests_of<E>(mut reader: impl Read, mut each: impl FnMut(u64) -> Result<(), E>) -> Result<Digests, Stop<E>> {
    let (mut md5, mut sha256, mut bytes) = (Md5::new(), Sha256::new(), 0);
    let mut buffer = vec![0; CHUNK];
    loop {
        each(bytes).map_err(Stop::Asked)?;
        let read = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Stop::Read(error)),
        };
        md5.update(&buffer[..read]);
        sha256.update(&buffer[..read]);
        bytes += read as u64;
    }
    Ok(Digests { bytes, md5: hex(&md5.finalize()), sha256: hex(&sha256.finalize()) })
}

/// Checksums of the file at `path`, called `name` in progress reports.
pub(super) fn digest_file(path: &Path, name: &str, watch: &mut Watch<'_>) -> Result<Digests, DataError> {
    let (file, total) = crate::files::open(path, u64::MAX)?;
    digests_of(file, |done| {
        watch.check(|| format!("stopped while checking {}", path.display()))?;
        watch.report(name, Phase::Verifying, done, Some(total));
        Ok(())
    })
    .map_err(|stopped| match stopped {
        Stop::Read(error) => DataError::reading(path)(error),
        Stop::Asked(error) => error,
    })
}

/// One file in a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) sha256: String,
    pub(super) bytes: u64,
    /// Relative to the set's directory, with `/` as separator.
    pub(super) path: String,
}

/// The verified files, in the format of `sha256sum`, which skips lines that start with `#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// What the files were verified against, in one line.
    pub(super) against: String,
    pub(super) files: Vec<Recorded>,
}

impl Record {
    pub(super) fn to_text(&self) -> String {
        let mut text = format!("# Verified against {}\n", self.against.replace('\n', " "));
        for file in &self.files {
            // Writing to a String cannot fail.
            let _ = write!(text, "# {} bytes\n{}  {}\n", file.bytes, file.sha256, file.path);
        }
        text
    }

    /// `None` if [`Self::to_text`] would not write this text: such a record proves nothing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let against = lines.next()?.strip_prefix("# Verified against ")?.to_owned();
        let mut files = Vec::new();
        while let Some(size) = lines.next() {
            let bytes = size.strip_prefix("# ")?.strip_suffix(" bytes")?.parse().ok()?;
            let (sha256, path) = lines.next()?.split_once("  ")?;
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            files.push(Recorded { sha256: sha256.to_owned(), bytes, path: path.to_owned() });
        }
        (!files.is_empty()).then_some(Self { against, files })
    }

    /// The record at `path`; `None` if there is none or it cannot be parsed.
    pub(super) fn load(path: &Path) -> Result<Option<Self>, DataError> {
        match crate::files::read(path) {
            Ok(bytes) => Ok(std::str::from_utf8(&bytes).ok().and_then(Self::parse)),
            Err(error) if error.cause().kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn save(&self, path: &Path) -> Result<(), DataError> {
        Ok(crate::files::write_atomic(path, self.to_text().as_bytes())?)
    }

    /// The first recorded file that is missing below `directory` or has another length; `None` if all match.
    pub(super) fn first_of_other_length(&self, directory: &Path) -> Result<Option<PathBuf>, DataError> {
        for file in &self.files {
            let path = directory.join(&file.path);
            if super::length(&path)? != Some(file.bytes) {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1321, appendix A.5, and the SHA-256 examples of FIPS 180-2.
    #[test]
    fn known_vectors() {
        for (text, md5, sha256) in [
            (
                "",
                "d41d8cd98f00b204e9800998ecf8427e",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                "abc",
                "900150983cd24fb0d6963f7d28e17f72",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            let found = digests(text.as_bytes()).unwrap();
            assert_eq!(found, Digests { bytes: text.len() as u64, md5: md5.into(), sha256: sha256.into() });
        }
    }

    #[test]
    fn a_record_round_trips_and_garbage_is_rejected() {
        let files = vec![
            Recorded { sha256: "a".repeat(64), bytes: 3, path: "x.gz".into() },
            Recorded { sha256: "0".repeat(64), bytes: 0, path: "dir/two  spaces.bin".into() },
        ];
        let record = Record { against: "MD5 900150983cd24fb0d6963f7d28e17f72, printed somewhere".into(), files };
        assert_eq!(Record::parse(&record.to_text()), Some(record.clone()));
        for bad in ["", "# Verified against x\n", "<html>", &record.to_text()[..150]] {
            assert_eq!(Record::parse(bad), None, "{bad}");
        }
    }
}
