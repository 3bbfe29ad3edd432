//! The local state of a set, and whether its files are still those that the publisher describes.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use super::digest::{Record, digest_file};
use super::transfer::Transfer;
use super::unpack::remove_file;
use super::{FetchOptions, Progress, Set, Watch, length};
use crate::data::DataError;
use crate::data::publishers::{PublishedFile, Publisher};

/// The local state of a set, judged only by names, lengths and records, which is fast enough for a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// No file is present.
    Absent,
    /// Some files, or parts of files, are present.
    Partial {
        /// Bytes of published files that are present.
        bytes: u64,
        /// Bytes of all of them, if the publisher gives every length.
        total: Option<u64>,
    },
    /// All files may be present, but not all were verified or unpacked.
    Unverified {
        /// Bytes of published files that are present.
        bytes: u64,
        /// What to do.
        what: String,
    },
    /// All files are present, and were verified when they arrived.
    Verified {
        /// Bytes on disk.
        bytes: u64,
    },
}

/// The local state of `publisher`'s set, determined without reading the data.
///
/// # Errors
/// Returns [`DataError::File`] if a directory cannot be read.
pub fn status(publisher: &Publisher, root: &Path) -> Result<Status, DataError> {
    let set = Set { publisher, directory: publisher.directory(root) };
    let options = FetchOptions::default();
    let (mut ready, mut present, mut bytes, mut on_disk) = (0, 0, 0, 0);
    let mut to_do = None;
    for file in &publisher.files {
        let have = length(&set.path(file))?;
        let part = length(&Transfer::new(file, &options, &set.directory).part)?;
        bytes += have.or(part).unwrap_or(0);
        let unpacked = match file.packing.directory() {
            Some(inner) => set.vouched(inner)?,
            None => None,
        };
        let vouched = set.vouched(&file.name)?.is_some();
        on_disk += have.unwrap_or(0) + unpacked.iter().flat_map(|r| &r.files).map(|f| f.bytes).sum::<u64>();
        if unpacked.is_some() || (vouched && file.packing.directory().is_none()) {
            ready += 1;
            present += 1;
        } else if have.is_some() {
            present += 1;
            let state = if vouched { "verified but not unpacked" } else { "not verified yet" };
            to_do = Some(format!("{} is {state}; run `fairtat data check {}`", file.name, publisher.name));
        } else if let Some(inner) = file.packing.directory().filter(|inner| set.directory.join(inner).exists()) {
            present += 1;
            to_do = Some(format!("{inner} is not what was verified; run `fairtat data check {}`", publisher.name));
        }
    }
    Ok(match to_do {
        _ if ready == publisher.files.len() => Status::Verified { bytes: on_disk },
        Some(what) if present == publisher.files.len() => Status::Unverified { bytes, what },
        _ if bytes == 0 && present == 0 => Status::Absent,
        _ => Status::Partial { bytes, total: publisher.files.iter().map(|file| file.bytes).sum() },
    })
}

/// The result of checking one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It matches this description.
    Verified {
        /// The publisher's checksum, or the record made when the file was unpacked.
        against: String,
    },
    /// It does not match.
    Wrong {
        /// The expected length or checksum with its source, the found one, and what to do.
        what: String,
    },
    /// It is missing.
    Missing {
        /// What to do.
        advice: String,
    },
    /// It could not be checked.
    Unchecked {
        /// Why not, and what is needed for it.
        why: String,
    },
}

/// One file and the result of checking it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: PathBuf,
    /// The result.
    pub verdict: Verdict,
}

/// The result of [`verify`]. Its `Display` has a line for each file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Name of the set.
    pub set: String,
    /// In the order of the publisher's files; unpacked files follow their archive.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether the set can be used: nothing is wrong or missing, and every file that a reader opens was verified.
    pub fn is_sound(&self) -> bool {
        let verified = |f: &Finding| matches!(f.verdict, Verdict::Verified { .. });
        let tolerable = |f: &Finding| verified(f) || matches!(f.verdict, Verdict::Unchecked { .. });
        self.findings.iter().any(verified) && self.findings.iter().all(tolerable)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Finding { path, verdict } in &self.findings {
            let path = path.display();
            match verdict {
                Verdict::Verified { against } => writeln!(f, "verified   {path} against {against}")?,
                Verdict::Wrong { what } => writeln!(f, "wrong      {path}: {what}")?,
                Verdict::Missing { advice } => writeln!(f, "missing    {path}: {advice}")?,
                Verdict::Unchecked { why } => writeln!(f, "unchecked  {path}: {why}")?,
            }
        }
        Ok(())
    }
}

/// Reads all local files of `publisher`'s set and compares them with the publisher's checksums and with the records.
///
/// A file that the user put in place becomes verified, and an archive is unpacked if it was not yet. A wrong file is
/// moved aside; a wrong unpacked file makes the set count as unverified.
///
/// # Errors
/// Returns [`DataError::Missing`] if no file is present; [`DataError::File`] if a file cannot be read or written;
/// [`DataError::Format`] if a verified archive cannot be unpacked; [`DataError::Stopped`] if `stop` was set.
pub fn verify(
    publisher: &Publisher,
    root: &Path,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Report, DataError> {
    let set = Set { publisher, directory: publisher.directory(root) };
    if status(publisher, root)? == Status::Absent {
        return Err(DataError::Missing(format!(
            "nothing of '{}' is at {}; run `fairtat data fetch {}`",
            publisher.name,
            set.directory.display(),
            publisher.name
        )));
    }
    let mut watch = Watch { stop, progress };
    let _lock = set.lock()?;
    let mut findings = Vec::new();
    for file in &publisher.files {
        set.verify_file(file, &mut findings, &mut watch)?;
    }
    Ok(Report { set: publisher.name.clone(), findings })
}

impl Set<'_> {
    fn verify_file(
        &self,
        file: &PublishedFile,
        findings: &mut Vec<Finding>,
        watch: &mut Watch<'_>,
    ) -> Result<(), DataError> {
        let path = self.path(file);
        let fetch = format!("run `fairtat data fetch {}`", self.publisher.name);
        let archive = if length(&path)?.is_none() {
            None
        } else {
            match self.accept(file, &path, watch) {
                Ok(against) => Some(against),
                Err(DataError::Checksum { expected, found, advice, .. }) => {
                    let what = format!("expected {expected}, found {found}; {advice}");
                    findings.push(Finding { path: path.clone(), verdict: Verdict::Wrong { what } });
                    None
                }
                Err(error) => return Err(error),
            }
        };
        let already_told = findings.last().is_some_and(|finding| finding.path == path);
        if let Some(against) = &archive {
            let verdict = Verdict::Verified { against: against.clone() };
            findings.push(Finding { path: path.clone(), verdict });
        }
        let Some(inner) = file.packing.directory() else {
            if archive.is_none() && !already_told {
                findings.push(Finding { path, verdict: Verdict::Missing { advice: fetch } });
            }
            return Ok(());
        };

        let record_path = self.record(inner);
        let mut record = Record::load(&record_path)?;
        let directory = self.directory.join(inner);
        if let Some(against) = archive.as_ref().filter(|_| record.is_none() || !directory.exists()) {
            self.unpack(file, against, watch)?;
            record = Record::load(&record_path)?;
        }
        let Some(record) = record else {
            let verdict = if directory.exists() {
                let why = format!("it was not unpacked by this program and {} is not here; {fetch}", path.display());
                Verdict::Wrong { what: why }
            } else {
                Verdict::Missing { advice: fetch }
            };
            findings.push(Finding { path: directory, verdict });
            return Ok(());
        };
        if archive.is_none() && !already_told {
            let why =
                "the archive is not here, so its publisher's checksum cannot be computed; its unpacked files are \
                       compared with the SHA-256 recorded when they were unpacked"
                    .to_owned();
            findings.push(Finding { path, verdict: Verdict::Unchecked { why } });
        }
        let before = findings.len();
        for recorded in &record.files {
            let path = self.directory.join(&recorded.path);
            let verdict = if length(&path)?.is_none() {
                Verdict::Missing { advice: fetch.clone() }
            } else {
                let found = digest_file(&path, &recorded.path, watch)?;
                if found.sha256 == recorded.sha256 {
                    Verdict::Verified { against: format!("SHA-256 {}, {}", recorded.sha256, record.against) }
                } else {
                    let what = format!(
                        "expected SHA-256 {} ({} bytes), found {} ({} bytes); {fetch}",
                        recorded.sha256, recorded.bytes, found.sha256, found.bytes
                    );
                    Verdict::Wrong { what }
                }
            };
            findings.push(Finding { path, verdict });
        }
        if findings[before..].iter().any(|finding| !matches!(finding.verdict, Verdict::Verified { .. })) {
            // Without its record the directory no longer counts as verified, and the next fetch unpacks it again.
            remove_file(&record_path)?;
        }
        Ok(())
    }
}
