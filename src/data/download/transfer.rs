//! Download of one file over HTTP: from the start or resumed, retried if the connection breaks, with a limit on its
//! length.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use ureq::http::{HeaderMap, StatusCode};

use super::digest::CHUNK;
use super::unpack::remove_file;
use super::{FetchOptions, Phase, Watch, html, length};
use crate::data::DataError;
use crate::data::publishers::PublishedFile;
use crate::files;

/// Data about a `.part` file, stored next to it so that a later run can resume.
#[derive(Debug, Default, Serialize, Deserialize)]
struct PartState {
    /// Address that the bytes came from.
    url: String,
    etag: Option<String>,
    last_modified: Option<String>,
    /// Number of responses that the bytes came from.
    pieces: u32,
}

impl PartState {
    /// A missing or damaged state costs only the `If-Range` header, so it is not an error.
    fn load(path: &Path) -> Self {
        crate::files::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    fn save(&self, path: &Path) -> Result<(), DataError> {
        let bytes = serde_json::to_vec(self).map_err(|error| DataError::format(path, error.to_string()))?;
        Ok(crate::files::write_atomic(path, &bytes)?)
    }

    /// The value of `If-Range`, which must not be a weak ETag (RFC 9110, section 13.1.5).
    fn validator(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/")).or(self.last_modified.as_deref())
    }
}

/// Why one request did not complete the file.
enum Failure {
    /// The next attempt may succeed.
    Again(String),
    /// This address will not deliver the file.
    Elsewhere(String),
    /// No address can help.
    Fatal(DataError),
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::Fatal(error)
    }
}

/// Downloads of one published file to `part`.
pub(super) struct Transfer<'a> {
    pub(super) file: &'a PublishedFile,
    pub(super) options: &'a FetchOptions,
    pub(super) part: PathBuf,
    pub(super) state: PathBuf,
    agent: ureq::Agent,
}

impl<'a> Transfer<'a> {
    pub(super) fn new(file: &'a PublishedFile, options: &'a FetchOptions, directory: &Path) -> Self {
        let mut config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(options.connect_timeout))
            .timeout_connect(Some(options.connect_timeout))
            .timeout_recv_response(Some(options.stall_timeout))
            .timeout_per_read(Some(options.stall_timeout))
            .timeout_per_write(Some(options.stall_timeout))
            .accept_encoding("identity")
            .user_agent(concat!("fairtat/", env!("CARGO_PKG_VERSION")));
        if !options.proxy_from_environment {
            config = config.proxy(None);
        }
        Self {
            file,
            options,
            part: directory.join(format!("{}.part", file.name)),
            state: directory.join(format!("{}.part.json", file.name)),
            agent: config.build().new_agent(),
        }
    }

    /// Whether the bytes of `part` came in more than one response, so that a fresh start may fix a wrong checksum.
    pub(super) fn is_pieced(&self) -> bool {
        PartState::load(&self.state).pieces > 1
    }

    /// Deletes the partial download.
    pub(super) fn discard(&self) -> Result<(), DataError> {
        remove_file(&self.part)?;
        remove_file(&self.state)
    }

    /// Completes `part` from the first address that delivers, and returns that address.
    pub(super) fn run(&self, by_hand: &str, watch: &mut Watch<'_>) -> Result<String, DataError> {
        let mut refusals = String::new();
        for url in &self.file.urls {
            let mut failures = 0;
            let mut longest = length(&self.part)?.unwrap_or(0);
            let mut ranges = true;
            let why = loop {
                let why = match self.attempt(url, &mut ranges, watch) {
                    Ok(()) => return Ok(url.clone()),
                    Err(Failure::Fatal(error)) => return Err(error),
                    Err(Failure::Elsewhere(why)) => break why,
                    Err(Failure::Again(why)) => why,
                };
                let have = length(&self.part)?.unwrap_or(0);
                // Only bytes beyond the longest part so far count as progress. Otherwise a server that always starts
                // over would be asked forever.
                failures = if have > longest { 1 } else { failures + 1 };
                longest = longest.max(have);
                if failures >= self.options.attempts.max(1) {
                    break format!("{why} ({failures} attempts)");
                }
                self.wait(failures, have, watch)?;
            };
            refusals.push_str(&format!("\n  {url}: {why}"));
        }
        Err(DataError::Download(format!("{} could not be downloaded:{refusals}\n{by_hand}", self.file.name)))
    }

    /// Sleeps before the attempt after `failures` failed ones: the back-off doubles up to 30 s.
    fn wait(&self, failures: u32, have: u64, watch: &mut Watch<'_>) -> Result<(), DataError> {
        let pause = self.options.backoff.saturating_mul(1 << (failures - 1).min(10)).min(Duration::from_secs(30));
        let until = Instant::now() + pause;
        loop {
            watch.check(|| self.stopped(have))?;
            watch.report(&self.file.name, Phase::Waiting, have, self.file.bytes);
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn stopped(&self, have: u64) -> String {
        format!("stopped; {} keeps the first {have} bytes, the next download continues from there", self.part.display())
    }

    /// One request; `Ok` when `part` is complete.
    fn attempt(&self, url: &str, ranges: &mut bool, watch: &mut Watch<'_>) -> Result<(), Failure> {
        let mut have = length(&self.part)?.unwrap_or(0);
        if self.file.bytes == Some(have) {
            return Ok(());
        }
        if have > 0 && (!*ranges || have > self.file.at_most) {
            self.discard()?;
            have = 0;
        }
        watch.check(|| self.stopped(have))?;
        watch.report(&self.file.name, Phase::Downloading, have, self.file.bytes);

        let mut state = PartState::load(&self.state);
        let mut request = self.agent.get(url);
        if have > 0 {
            request = request.header("Range", format!("bytes={have}-"));
            if let Some(validator) = state.validator().filter(|_| state.url == url) {
                request = request.header("If-Range", validator);
            }
        }
        let response = request.call().map_err(classify)?;
        let (head, body) = response.into_parts();
        let header = |name: &str| text(&head.headers, name);
        let range = header("content-range").unwrap_or_default();

        let start = match head.status {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if have > 0 => {
                let known = state.etag.as_ref().filter(|_| state.url == url);
                if known.zip(header("etag")).is_some_and(|(known, now)| *known != now) {
                    self.discard()?;
                    return Err(Failure::Again("the file at the server changed between two attempts".into()));
                }
                if !continues(&range, have, self.file.bytes) {
                    // The server's ranges cannot be trusted; a download of the whole file still can.
                    *ranges = false;
                    return Err(Failure::Again(format!(
                        "asked for the bytes from {have} on, it answered with the range '{range}'"
                    )));
                }
                have
            }
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                if range == format!("bytes */{have}") && self.file.bytes.is_none_or(|bytes| bytes == have) {
                    return Ok(());
                }
                self.discard()?;
                return Err(Failure::Again(format!("it has no bytes from {have} on ('{range}')")));
            }
            status => {
                let why = format!("it answered {status}");
                let later = status.is_server_error()
                    || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
                return Err(if later { Failure::Again(why) } else { Failure::Elsewhere(why) });
            }
        };
        let kind = header("content-type").unwrap_or_default();
        if kind.trim_start().to_ascii_lowercase().starts_with("text/html") {
            return Err(Failure::Elsewhere(format!("it sent a web page (Content-Type {kind}) instead of the file")));
        }
        let total = body.content_length().map(|rest| start + rest);
        if let Some(total) = total {
            self.plausible(total)?;
        }

        let mut out = self.open(start)?;
        if start == 0 || state.url != url {
            let pieces = if start == 0 { 0 } else { state.pieces.max(1) };
            state = PartState { url: url.into(), etag: None, last_modified: None, pieces };
        }
        state.etag = header("etag").or(state.etag);
        state.last_modified = header("last-modified").or(state.last_modified);
        state.pieces += 1;
        state.save(&self.state)?;
        let reader = body.into_with_config().limit(u64::MAX).reader();
        let copied = self.copy(reader, &mut out, start, total, watch);
        // The next step relies on the bytes being on disk; a remaining part is resumed.
        out.sync_all().map_err(DataError::writing(&self.part))?;
        copied
    }

    /// Rejects a length that the published file cannot have.
    fn plausible(&self, total: u64) -> Result<(), Failure> {
        let file = self.file;
        let wrong = match file.bytes {
            Some(bytes) if bytes != total => format!("expected {bytes} bytes ({})", file.size_source),
            None if total > file.at_most => format!("expected at most {} bytes ({})", file.at_most, file.size_source),
            _ => return Ok(()),
        };
        Err(Failure::Elsewhere(format!("it announces {total} bytes, {wrong}")))
    }

    fn open(&self, start: u64) -> Result<File, DataError> {
        files::check_plain(&self.part).map_err(DataError::writing(&self.part))?;
        if start == 0 {
            return File::create(&self.part).map_err(DataError::writing(&self.part));
        }
        OpenOptions::new().append(true).open(&self.part).map_err(DataError::writing(&self.part))
    }

    fn copy(
        &self,
        mut reader: impl Read,
        out: &mut File,
        start: u64,
        total: Option<u64>,
        watch: &mut Watch<'_>,
    ) -> Result<(), Failure> {
        let expected = total.or(self.file.bytes);
        let cut = |done: u64| match expected {
            Some(expected) => format!("the connection broke after {done} of {expected} bytes"),
            None => format!("the connection broke after {done} bytes"),
        };
        let mut done = start;
        let mut buffer = vec![0; CHUNK];
        let mut head = Vec::new();
        loop {
            watch.check(|| self.stopped(done))?;
            watch.report(&self.file.name, Phase::Downloading, done, expected);
            let read = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Failure::Again(format!("{}: {error}", cut(done)))),
            };
            if start == 0 && head.len() < html::SNIFF {
                head.extend_from_slice(&buffer[..read.min(html::SNIFF)]);
                if html::looks_like_page(&head) {
                    self.discard()?;
                    return Err(Failure::Elsewhere("it sent a web page instead of the file".into()));
                }
            }
            done += read as u64;
            if done > self.file.at_most {
                self.discard()?;
                return Err(Failure::Elsewhere(format!(
                    "it sends more than {} bytes ({})",
                    self.file.at_most, self.file.size_source
                )));
            }
            out.write_all(&buffer[..read]).map_err(DataError::writing(&self.part))?;
        }
        match expected {
            Some(expected) if done < expected => Err(Failure::Again(cut(done))),
            _ => Ok(()),
        }
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// Whether `range` (`bytes FIRST-LAST/TOTAL`) starts at `have` and reaches the end of a file of the right length.
fn continues(range: &str, have: u64, bytes: Option<u64>) -> bool {
    let parse = || {
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total.parse::<u64>().ok()?))
    };
    parse().is_some_and(|(first, last, total)| {
        first == have && last >= first && last.checked_add(1) == Some(total) && bytes.is_none_or(|bytes| bytes == total)
    })
}

/// Classifies ureq's errors by whether a later attempt may succeed.
fn classify(error: ureq::Error) -> Failure {
    let why = error.to_string();
    match error {
        ureq::Error::Io(_)
        | ureq::Error::Timeout(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::ConnectProxyFailed(_)
        | ureq::Error::Protocol(_)
        | ureq::Error::BodyStalled => Failure::Again(why),
        _ => Failure::Elsewhere(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_must_continue_where_the_part_ends() {
        assert!(continues("bytes 10-99/100", 10, Some(100)));
        assert!(continues("bytes 10-99/100", 10, None));
        for wrong in [
            "",
            "bytes 0-99/100",
            "bytes 11-99/100",
            "bytes 10-98/100",
            "bytes 10-99/*",
            "bytes 10-109/110",
            "bytes 10-5/6",
            "bytes 10-18446744073709551615/18446744073709551615",
            "items 10-99/100",
        ] {
            assert!(!continues(wrong, 10, Some(100)), "{wrong}");
        }
    }

    #[test]
    fn a_weak_etag_is_not_a_validator() {
        let state = |etag: &str, date: Option<&str>| PartState {
            etag: Some(etag.into()),
            last_modified: date.map(Into::into),
            ..PartState::default()
        };
        assert_eq!(state("\"a\"", None).validator(), Some("\"a\""));
        assert_eq!(state("W/\"a\"", None).validator(), None);
        assert_eq!(state("W/\"a\"", Some("Mon")).validator(), Some("Mon"));
    }
}
