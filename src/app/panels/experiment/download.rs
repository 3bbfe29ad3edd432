//! Fetching a data set from within the form.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::data::DataError;
use crate::data::download::{self, FetchOptions, Phase, Progress};
use crate::data::publishers::{self, Publisher};

/// A data set that can be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::app) struct Offered {
    /// Name of the set.
    pub(in crate::app) name: String,
    /// Size of its files, in words.
    pub(in crate::app) size: String,
    /// Its licence, and the page that states it.
    pub(in crate::app) licence: String,
}

impl Offered {
    pub(super) fn of(publisher: &Publisher) -> Self {
        let exact = publisher.files.iter().all(|file| file.bytes.is_some());
        let bytes: u64 = publisher.files.iter().map(|file| file.at_most).sum();
        let size = if exact { size(bytes) } else { format!("up to {}", size(bytes)) };
        Self { name: publisher.name.clone(), size, licence: publisher.licence.clone() }
    }
}

/// A number of bytes in decimal megabytes, as file managers show it.
pub(super) fn size(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes >= 10.0 { format!("{megabytes:.0} MB") } else { format!("{megabytes:.1} MB") }
}

/// What a download is doing.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Now {
    /// File and step, in words.
    pub(super) what: String,
    /// The part of the step that is done; `None` if unknown.
    pub(super) share: Option<f32>,
    /// Bytes done, and of how many.
    pub(super) bytes: String,
}

impl Now {
    fn of(progress: &Progress<'_>) -> Self {
        let step = match progress.phase {
            Phase::Downloading => "Downloading",
            Phase::Waiting => "The connection broke; waiting to go on with",
            Phase::Verifying => "Verifying",
            Phase::Unpacking => "Unpacking",
        };
        let total = progress.total.filter(|total| *total > 0);
        Self {
            what: format!("{step} {}", progress.file),
            share: total.map(|total| (progress.done as f64 / total as f64).clamp(0.0, 1.0) as f32),
            bytes: match total {
                Some(total) => format!("{} of {}", size(progress.done), size(total)),
                None => size(progress.done),
            },
        }
    }
}

type Report<'a> = &'a mut dyn FnMut(Progress<'_>);
/// Fetches the set of a name until it is there, or until the flag is set.
type Fetch = dyn Fn(&str, &AtomicBool, Report<'_>) -> Result<(), DataError> + Send + Sync;

#[derive(Debug, Default)]
struct Shared {
    now: Option<Now>,
    over: Option<Result<(), DataError>>,
}

/// The download under way, if any. It has a thread of its own; what is fetched so far stays if it is cancelled.
pub(super) struct Downloads {
    current: Option<Current>,
    fetch: Arc<Fetch>,
}

struct Current {
    name: String,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
}

impl std::fmt::Debug for Downloads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Downloads").field("current", &self.current.as_ref().map(|current| &current.name)).finish()
    }
}

impl Default for Downloads {
    fn default() -> Self {
        Self {
            current: None,
            fetch: Arc::new(|name, stop, report| fetch(name, &download::default_root(), stop, report)),
        }
    }
}

fn fetch(name: &str, root: &Path, stop: &AtomicBool, report: Report<'_>) -> Result<(), DataError> {
    download::fetch(&publishers::publisher(name)?, root, &FetchOptions::default(), stop, report).map(|_| ())
}

impl Downloads {
    /// Fetches with this function instead of from the publisher.
    #[cfg(test)]
    pub(super) fn with(fetch: Arc<Fetch>) -> Self {
        Self { current: None, fetch }
    }

    /// Starts a download; nothing happens while there is one.
    pub(super) fn start(&mut self, context: &egui::Context, name: &str) {
        if self.current.is_some() {
            return;
        }
        let (shared, stop) = (Arc::<Mutex<Shared>>::default(), Arc::<AtomicBool>::default());
        let (fetch, context, to, flag) =
            (Arc::clone(&self.fetch), context.clone(), Arc::clone(&shared), Arc::clone(&stop));
        let set = name.to_owned();
        let run = move || {
            let lock =
                |change: &mut dyn FnMut(&mut Shared)| change(&mut to.lock().unwrap_or_else(PoisonError::into_inner));
            let result = fetch(&set, &flag, &mut |progress| {
                lock(&mut |shared| shared.now = Some(Now::of(&progress)));
                context.request_repaint_after(std::time::Duration::from_millis(100));
            });
            let mut result = Some(result);
            lock(&mut |shared| shared.over = result.take());
            context.request_repaint();
        };
        if let Err(error) = std::thread::Builder::new().name("download".into()).spawn(run) {
            let over = Some(Err(DataError::Download(format!("{name}: no thread could be started: {error}"))));
            shared.lock().unwrap_or_else(PoisonError::into_inner).over = over;
        }
        self.current = Some(Current { name: name.to_owned(), shared, stop });
    }

    /// Ends the download after what it has received; it can be resumed.
    pub(super) fn cancel(&self) {
        if let Some(current) = &self.current {
            current.stop.store(true, Ordering::Relaxed);
        }
    }

    /// Name and progress of the download under way.
    pub(super) fn now(&self) -> Option<(&str, Option<Now>)> {
        let current = self.current.as_ref()?;
        let now = current.shared.lock().unwrap_or_else(PoisonError::into_inner).now.clone();
        Some((&current.name, now))
    }

    /// Name and outcome of a download that has ended since the last call.
    pub(super) fn ended(&mut self) -> Option<(String, Result<(), DataError>)> {
        let over = self.current.as_ref()?.shared.lock().unwrap_or_else(PoisonError::into_inner).over.take()?;
        let current = self.current.take()?;
        Some((current.name, over))
    }
}

impl Drop for Downloads {
    fn drop(&mut self) {
        self.cancel();
    }
}
