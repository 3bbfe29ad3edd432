//! Verified downloads: a published set is either here, whole and checked, or it is not used.
//!
//! A set `NAME` lies in `root/NAME`. Of a published file `FILE` there are, in the order in which they appear,
//!
//! | path | what it is |
//! |---|---|
//! | `FILE.part`, `FILE.part.json` | a download under way, and what is needed to resume it |
//! | `FILE`, `FILE.sha256` | the verified file, and its SHA-256 in the format of `sha256sum` |
//! | `DIRECTORY`, `DIRECTORY.sha256` | what an archive held, and the SHA-256 of each of its files |
//! | `FILE.bad` | a file that was not what the publisher describes, kept for inspection |
//!
//! Every step ends with a rename, so a killed process leaves the earlier state and never a half file under a final name.

mod digest;
mod html;
mod transfer;
mod unpack;
mod verify;

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::DataError;
use super::publishers::{PublishedFile, Publisher};
use digest::{Record, Recorded, digest_file};
use transfer::Transfer;

pub use super::publishers::Digests;
pub use digest::digests;
pub use verify::{Finding, Report, Status, Verdict, status, verify};

/// What is being done with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Bytes arrive.
    Downloading,
    /// The connection broke, the next attempt follows after a pause.
    Waiting,
    /// Checksums are computed.
    Verifying,
    /// An archive is unpacked; the bytes are those of the archive.
    Unpacking,
}

/// How far one file is. `done` starts above 0 when a download is resumed.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// Name of the published file.
    pub file: &'a str,
    /// What is being done with it.
    pub phase: Phase,
    /// Bytes done in this phase.
    pub done: u64,
    /// Bytes to do, where that is known.
    pub total: Option<u64>,
}

/// How patient a download is.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// Longest wait for a name look-up and for a connection.
    pub connect_timeout: Duration,
    /// Longest time without a single byte.
    pub stall_timeout: Duration,
    /// Attempts in a row without progress before an address is given up.
    pub attempts: u32,
    /// Pause after the first failed attempt; it doubles with each further one.
    pub backoff: Duration,
    /// Keep an archive after it was unpacked: it can then be checked against its publisher's checksum again.
    pub keep_archives: bool,
    /// Use the proxy that `HTTPS_PROXY` and its like name.
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

/// How a file came to be here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Downloaded just now from this address.
    Downloaded(String),
    /// Put there by the user and verified just now.
    FoundUnverified,
    /// Verified by an earlier run.
    FoundVerified,
}

/// One file of a fetched set.
#[derive(Debug, Clone)]
pub struct FetchedFile {
    /// Where the published file lies, or lay if it was an archive that is no longer kept.
    pub path: PathBuf,
    /// How it came to be here.
    pub origin: Origin,
    /// What it was verified against.
    pub against: String,
}

/// A set that is here, whole and verified.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// What a reader opens, see [`Publisher::data_directory`].
    pub data: PathBuf,
    /// Its files.
    pub files: Vec<FetchedFile>,
}

/// The user's wish to stop, and whoever draws the progress.
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

/// Where sets lie unless told otherwise: `FAIRTAT_DATA`, or `fairtat/data` in the platform's directory for data.
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

/// Brings `publisher`'s set below `root`: downloads what is missing, verifies it, unpacks archives.
///
/// A file that the user put in place is verified and used. Setting `stop` ends it early; the download can be resumed.
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
/// [`DataError::Download`] with each address, what came from it and what to do by hand; [`DataError::Checksum`];
/// [`DataError::Format`] for a broken archive; [`DataError::File`] with its path; [`DataError::Stopped`].
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
    /// Keeps a second process out of the directory until the returned file is dropped.
    fn lock(&self) -> Result<File, DataError> {
        fs::create_dir_all(&self.directory).map_err(DataError::writing(&self.directory))?;
        let path = self.directory.join(".lock");
        let file = File::create(&path).map_err(DataError::writing(&path))?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => Err(DataError::Download(format!(
                "another process is working on {}; wait until it is done",
                self.directory.display()
            ))),
            // Some network file systems have no locks: one process alone is as safe there without.
            Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    fn path(&self, file: &PublishedFile) -> PathBuf {
        self.directory.join(&file.name)
    }

    fn record(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.sha256"))
    }

    /// The record of what `name` is or holds, if everything in it is here with the right length.
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
            // What an earlier download left is of no more use.
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

    /// Verifies what lies at `from`, renames it to its final name and records it; moves it aside if it is wrong.
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
                        "the file is not used and was moved to {}.{what} Run `fairtat data fetch {}` to download it anew. {}",
                        bad.display(),
                        self.publisher.name,
                        self.by_hand(file)
                    ),
                })
            }
        }
    }

    /// Downloads `file`, verifies and renames it; returns the address it came from and what it was verified against.
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
            // The pieces may stem from two versions of the file; one whole answer cannot.
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

/// Length of the file at `path`, or `None` if there is none.
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
    let file = File::open(path).map_err(DataError::reading(path))?;
    file.take(html::SNIFF as u64).read_to_end(&mut head).map_err(DataError::reading(path))?;
    Ok(html::looks_like_page(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_chosen_then_the_platform_s_then_here() {
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
        assert!(set.lock().unwrap_err().to_string().contains("another process"));
        drop(first);
        set.lock().unwrap();
    }
}
