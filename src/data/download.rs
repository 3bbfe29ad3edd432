//! Verified downloads: a published set is used only if it is complete and verified.
//!
//! The set `NAME` is stored in `root/NAME`. For a published file `FILE` there are, in the order of their creation,
//!
//! | path | content |
//! |---|---|
//! | `FILE.part`, `FILE.part.json` | a download in progress, and the data needed to resume it |
//! | `FILE`, `FILE.sha256` | the verified file, and its SHA-256 in the format of `sha256sum` |
//! | `DIRECTORY`, `DIRECTORY.sha256` | the content of an archive, and the SHA-256 of each of its files |
//! | `FILE.bad` | a file that is not the one that the publisher describes, kept for inspection |
//!
//! Every step ends with a rename, so a killed process leaves the earlier state and never a partial file under a final
//! name.

mod digest;
mod html;
mod transfer;
mod unpack;
mod verify;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::DataError;
use super::publishers::{PublishedFile, Publisher};
use crate::lock::{DirectoryLock, LockError};
use digest::{Record, Recorded, digest_file};
use transfer::Transfer;

pub use super::publishers::Digests;
pub use digest::digests;
pub use verify::{Finding, Report, Status, Verdict, status, verify};

/// The current step for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The file is downloaded.
    Downloading,
    /// The connection broke; the next attempt follows after a pause.
    Waiting,
    /// Checksums are computed.
    Verifying,
    /// An archive is unpacked; the bytes are those of the archive.
    Unpacking,
}

/// Progress of one file. `done` starts above 0 if a download is resumed.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Name of the published file.
    pub file: &'a str,
    /// The current step.
    pub phase: Phase,
    /// Bytes processed in this phase.
    pub done: u64,
    /// Bytes to process in this phase; `None` if not known.
    pub total: Option<u64>,
}

/// Time limits, retries and other options of a download.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Time limit for a name look-up and for a connection.
    pub connect_timeout: Duration,
    /// Time limit without any received byte.
    pub stall_timeout: Duration,
    /// Consecutive attempts without progress before an address is given up.
    pub attempts: u32,
    /// Pause after the first failed attempt; it doubles with each further one.
    pub backoff: Duration,
    /// Whether to keep an archive after unpacking, so that it can be checked against its publisher's checksum again.
    pub keep_archives: bool,
    /// Whether to use the proxy of `HTTPS_PROXY` and similar variables.
    pub proxy_from_environment: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(20),
            stall_timeout: Duration::from_secs(60),
            attempts: 5,
            backoff: Duration::from_secs(1),
            keep_archives: true,
            proxy_from_environment: true,
        }
    }
}

/// Where a file came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Downloaded from this address in this run.
    Downloaded(String),
    /// Put there by the user and verified in this run.
    FoundUnverified,
    /// Verified by an earlier run.
    FoundVerified,
}

/// One file of a fetched set.
#[derive(Debug, Clone)]
pub struct FetchedFile {
    /// Path of the published file, also if it was an archive that is no longer kept.
    pub path: PathBuf,
    /// Where it came from.
    pub origin: Origin,
    /// What it was verified against.
    pub against: String,
}

/// A complete and verified set.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The directory that a reader opens, see [`Publisher::data_directory`].
    pub data: PathBuf,
    /// Its files.
    pub files: Vec<FetchedFile>,
}

/// The user's stop flag, and the receiver of progress reports.
pub(crate) struct Watch<'a> {
    pub(crate) stop: &'a AtomicBool,
    pub(crate) progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Watch<'_> {
    fn check(&self, what: impl FnOnce() -> String) -> Result<(), DataError> {
        if self.stop.load(Ordering::Relaxed) { Err(DataError::Stopped(what())) } else { Ok(()) }
    }

    fn report(&mut self, file: &str, phase: Phase, done: u64, total: Option<u64>) {
        (self.progress)(Progress { file, phase, done, total });
    }
}

/// The default directory of the sets: `FAIRTAT_DATA`, or `fairtat/data` in the platform's data directory.
pub fn default_root() -> PathBuf {
    let platform = directories::BaseDirs::new().map(|base| base.data_dir().to_path_buf());
    root_from(std::env::var_os("FAIRTAT_DATA").map(PathBuf::from), platform)
}

fn root_from(chosen: Option<PathBuf>, platform: Option<PathBuf>) -> PathBuf {
    chosen
        .filter(|path| !path.as_os_str().is_empty())
        .or_else(|| platform.map(|base| base.join("fairtat").join("data")))
        .unwrap_or_else(|| PathBuf::from("fairtat-data"))
}

/// Obtains `publisher`'s set below `root`: downloads missing files, verifies them, unpacks archives.
///
/// A file that the user put in place is verified and used. Setting `stop` ends the call early; the download can be
/// resumed.
///
/// ```no_run
/// use std::sync::atomic::AtomicBool;
///
/// use fairtat::data::{download, publishers};
///
/// let set = publishers::publisher("mnist")?;
/// let stop = AtomicBool::new(false);
/// let options = download::FetchOptions::default();
/// let fetched = download::fetch(&set, &download::default_root(), &options, &stop, &mut |progress| {
///     println!("{} {:?} {}", progress.file, progress.phase, progress.done);
/// })?;
/// println!("read it from {}", fetched.data.display());
/// # Ok::<(), fairtat::data::DataError>(())
/// ```
///
/// # Errors
/// Returns [`DataError::Download`] if no address delivers a file, with the failure of each and instructions for a
/// manual download; [`DataError::Checksum`] if a file is not the published one; [`DataError::Format`] if an archive is
/// damaged; [`DataError::File`] if a file cannot be read or written; [`DataError::Stopped`] if `stop` was set.
pub fn fetch(
    publisher: &Publisher,
    root: &Path,
    options: &FetchOptions,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched, DataError> {
    let mut watch = Watch { stop, progress };
    let set = Set { publisher, directory: publisher.directory(root) };
    let _lock = set.lock()?;
    let mut files = Vec::new();
    for file in &publisher.files {
        files.push(set.obtain(file, options, &mut watch)?);
    }
    Ok(Fetched { data: publisher.data_directory(root), files })
}

/// A set's directory.
struct Set<'a> {
    publisher: &'a Publisher,
    directory: PathBuf,
}

impl Set<'_> {
    /// Locks the directory against other processes until the returned value is dropped.
    fn lock(&self) -> Result<DirectoryLock, DataError> {
        fs::create_dir_all(&self.directory).map_err(DataError::writing(&self.directory))?;
        DirectoryLock::take(&self.directory).map_err(|error| match error {
            LockError::Held { .. } => DataError::Download(format!("{error}; wait until it is done")),
            LockError::File(error) => error.into(),
        })
    }

    fn path(&self, file: &PublishedFile) -> PathBuf {
        self.directory.join(&file.name)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.sha256"))
    }

    /// The record of `name`; `None` if there is none, or if a file in it is missing or has another length.
    fn vouched(&self, name: &str) -> Result<Option<Record>, DataError> {
        let Some(record) = Record::load(&self.record(name))? else { return Ok(None) };
        let other = record.first_of_other_length(&self.directory)?;
        Ok(other.is_none().then_some(record))
    }

    fn by_hand(&self, file: &PublishedFile) -> String {
        format!(
            "To do it by hand: download {} with a browser (its page is {}), put the file at {} and run `fairtat data check {}`.",
            file.urls.first().map_or(self.publisher.page.as_str(), String::as_str),
            self.publisher.page,
            self.path(file).display(),
            self.publisher.name,
        )
    }

    fn obtain(
        &self,
        file: &PublishedFile,
        options: &FetchOptions,
        watch: &mut Watch<'_>,
    ) -> Result<FetchedFile, DataError> {
        let path = self.path(file);
        let unpacked = match file.packing.directory() {
            Some(inner) => self.vouched(inner)?,
            None => None,
        };
        if let Some(Record { against, .. }) = unpacked.or(match file.packing.directory() {
            None => self.vouched(&file.name)?,
            Some(_) => None,
        }) {
            return Ok(FetchedFile { path, origin: Origin::FoundVerified, against });
        }
        let (origin, against) = if length(&path)?.is_some() {
            let against = self.accept(file, &path, watch)?;
            // The rest of an earlier download is no longer needed.
            Transfer::new(file, options, &self.directory).discard()?;
            (Origin::FoundUnverified, against)
        } else {
            let (url, against) = self.download(file, options, watch)?;
            (Origin::Downloaded(url), against)
        };
        self.unpack(file, &against, watch)?;
        if !options.keep_archives && file.packing.directory().is_some() {
            unpack::remove_file(&path)?;
            unpack::remove_file(&self.record(&file.name))?;
        }
        Ok(FetchedFile { path, origin, against })
    }

    fn unpack(&self, file: &PublishedFile, against: &str, watch: &mut Watch<'_>) -> Result<(), DataError> {
        let Some(inner) = file.packing.directory() else { return Ok(()) };
        let against = format!("{} when it was unpacked from {}", against, file.name);
        unpack::unpack(&self.path(file), &file.packing, &self.directory, &self.record(inner), &against, watch)
    }

    /// Verifies the file at `from`, renames it to its final name and records it; moves it aside if it is wrong.
    fn accept(&self, file: &PublishedFile, from: &Path, watch: &mut Watch<'_>) -> Result<String, DataError> {
        let page = starts_like_page(from)?;
        let digests = digest_file(from, &file.name, watch)?;
        let path = self.path(file);
        let record = self.record(&file.name);
        match file.compare(&digests) {
            Ok(against) => {
                if from != path {
                    fs::rename(from, &path).map_err(DataError::writing(&path))?;
                }
                let recorded = Recorded { sha256: digests.sha256, bytes: digests.bytes, path: file.name.clone() };
                Record { against: against.clone(), files: vec![recorded] }.save(&record)?;
                Ok(against)
            }
            Err(mismatch) => {
                unpack::remove_file(&record)?;
                let bad = self.directory.join(format!("{}.bad", file.name));
                fs::rename(from, &bad).map_err(DataError::writing(&bad))?;
                let what = if page { " It is a web page, not the file." } else { "" };
                Err(DataError::Checksum {
                    path: from.to_path_buf(),
                    expected: mismatch.expected,
                    found: mismatch.found,
                    advice: format!(
                        "the file is not used and was moved to {}.{what} Run `fairtat data fetch {}` to download it again. {}",
                        bad.display(),
                        self.publisher.name,
                        self.by_hand(file)
                    ),
                })
            }
        }
    }

    /// Downloads `file`, verifies and renames it; returns its address and what it was verified against.
    fn download(
        &self,
        file: &PublishedFile,
        options: &FetchOptions,
        watch: &mut Watch<'_>,
    ) -> Result<(String, String), DataError> {
        let transfer = Transfer::new(file, options, &self.directory);
        let mut url = transfer.run(&self.by_hand(file), watch)?;
        let mut accepted = self.accept(file, &transfer.part, watch);
        if matches!(accepted, Err(DataError::Checksum { .. })) && transfer.is_pieced() {
            // The pieces may come from two versions of the file; a single complete response cannot.
            transfer.discard()?;
            url = transfer.run(&self.by_hand(file), watch)?;
            accepted = self.accept(file, &transfer.part, watch);
        }
        if !matches!(accepted, Err(DataError::Stopped(_) | DataError::File(_))) {
            transfer.discard()?;
        }
        Ok((url, accepted?))
    }
}

/// Length of the file at `path`; `None` if there is none.
fn length(path: &Path) -> Result<Option<u64>, DataError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Err(DataError::format(path, "expected a file, found something else; move it away")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DataError::reading(path)(error)),
    }
}

fn starts_like_page(path: &Path) -> Result<bool, DataError> {
    let mut head = Vec::new();
    let (file, _) = crate::files::open(path, u64::MAX)?;
    file.take(html::SNIFF as u64).read_to_end(&mut head).map_err(DataError::reading(path))?;
    Ok(html::looks_like_page(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_the_chosen_one_then_the_platforms_then_the_working_directory() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(root_from(path("/x"), path("/home/u")), PathBuf::from("/x"));
        assert_eq!(root_from(path(""), path("/home/u")), PathBuf::from("/home/u/fairtat/data"));
        assert_eq!(root_from(None, None), PathBuf::from("fairtat-data"));
        assert!(!default_root().as_os_str().is_empty());
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let root = tempfile::tempdir().unwrap();
        let publisher = crate::data::publishers::publisher("mnist").unwrap();
        let set = Set { publisher: &publisher, directory: publisher.directory(root.path()) };
        let first = set.lock().unwrap();
        assert!(set.lock().unwrap_err().to_string().contains("is in use by process"));
        drop(first);
        set.lock().unwrap();
    }
}
