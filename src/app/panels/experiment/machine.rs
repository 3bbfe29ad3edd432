//! What the form must know about this machine: its GPUs, and which data sets are on its disk. A separate thread finds
//! this out, because it takes a while.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use super::download::{Downloads, Offered};
use crate::config::{EngineOptions, Experiment};
use crate::data::download::{self, Status};
use crate::data::{DataError, ImageShape, detect, first_shape, publishers};
use crate::engine::candle::CandleDevice;
use crate::engine::wgsl::{AdapterSummary, adapters, default_adapter};
use crate::engines::{ChosenEngine, choose_engine};

/// Time after which a question counts as unanswered: the next one is then asked without waiting for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// Maximum number of threads that wait for a disk or a driver that does not answer.
const WAITING: usize = 8;

/// The newest answer to a question that another thread answers. A thread that never answers, such as one that reads an
/// unreachable network drive, does not keep later questions from being answered.
#[derive(Debug)]
struct Latest<Q, A> {
    known: Option<(Q, A)>,
    /// Oldest first.
    pending: Vec<Pending<Q, A>>,
}

#[derive(Debug)]
struct Pending<Q, A> {
    question: Q,
    since: Instant,
    answer: Receiver<A>,
}

impl<Q, A> Default for Latest<Q, A> {
    fn default() -> Self {
        Self { known: None, pending: Vec::new() }
    }
}

impl<Q: Clone + PartialEq + Send + 'static, A: Send + 'static> Latest<Q, A> {
    /// Receives pending answers, and starts a thread if `question` is new.
    fn look(&mut self, context: &egui::Context, question: Q, answer: impl FnOnce(&Q) -> A + Send + 'static) {
        let mut i = 0;
        while let Some(pending) = self.pending.get(i) {
            match pending.answer.try_recv() {
                Ok(answer) => {
                    // Answers to earlier questions are no longer of interest.
                    let mut answered = self.pending.drain(..=i);
                    self.known = answered.next_back().map(|pending| (pending.question, answer));
                    drop(answered);
                    i = 0;
                }
                Err(TryRecvError::Empty) => i += 1,
                Err(TryRecvError::Disconnected) => drop(self.pending.remove(i)),
            }
        }
        if let Some(newest) = self.pending.last() {
            let waited = newest.since.elapsed();
            if waited < PATIENCE {
                // In order to say then that nothing answers.
                context.request_repaint_after(PATIENCE - waited);
                return;
            }
            if newest.question == question || self.pending.len() >= WAITING {
                return;
            }
        }
        if self.known.as_ref().is_none_or(|(asked, _)| *asked != question) {
            let (sender, receiver) = channel();
            let (context, asked) = (context.clone(), question.clone());
            let ask = move || {
                // If the window is closed by now, nothing receives the answer.
                let _ = sender.send(answer(&asked));
                context.request_repaint();
            };
            if std::thread::Builder::new().name("form".into()).spawn(ask).is_ok() {
                self.pending.push(Pending { question, since: Instant::now(), answer: receiver });
            }
        }
    }

    /// The newest question without an answer, and whether it has waited for too long.
    fn waiting(&self) -> Option<(&Q, bool)> {
        self.pending.last().map(|pending| (&pending.question, pending.since.elapsed() >= PATIENCE))
    }
}

/// The GPUs, and the engine that the options select.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::app) struct Gpus {
    /// Every adapter, including those that cannot run the engine.
    pub(in crate::app) adapters: Vec<AdapterSummary>,
    /// Description of the engine and device.
    pub(in crate::app) engine: String,
}

/// Information on the images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::app) struct Images {
    /// Whether they are on this machine, in words.
    pub(in crate::app) text: String,
    /// A command that fetches them.
    pub(in crate::app) command: Option<String>,
    /// What a download would fetch; `None` if they are here, or cannot be fetched.
    pub(in crate::app) download: Option<Offered>,
    /// Whether a run could not start without them.
    pub(in crate::app) missing: bool,
    /// Shape of the first image of a folder or of npy files on disk; `None` if unknown.
    pub(in crate::app) shape: Option<ImageShape>,
}

/// Identifies the images: name, path, and a counter that advances every few seconds, because they may have been fetched
/// in the meantime.
type Place = (String, Option<PathBuf>, u64);

/// Interval in seconds between checks of the disk.
const REFRESH_SECS: f64 = 5.0;
/// Pause in seconds after which a path that is being typed is looked up.
const TYPING_SECS: f64 = 1.0;

/// Why nothing is known about the images yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// The path is being typed.
    Typing,
    /// The disk is being read.
    Reading,
    /// The disk has not answered for some seconds.
    Unanswered,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::app) struct Machine {
    gpus: Latest<EngineOptions, Gpus>,
    images: Latest<Place, Images>,
    /// The data set of the last frame, and the time at which it became that.
    seen: Option<(String, Option<PathBuf>, f64)>,
    /// Time of the last key.
    typed_at: f64,
    /// Whether the data set is still being typed.
    typing: bool,
    downloads: Downloads,
    /// Fixed answers for tests.
    fixed: Option<(Gpus, Images)>,
}

impl Machine {
    /// A fixed description instead of the real machine.
    #[cfg(test)]
    pub(in crate::app) fn fixed(gpus: Gpus, images: Images) -> Self {
        Self { fixed: Some((gpus, images)), ..Self::default() }
    }

    /// Fetches data sets with `downloads`.
    #[cfg(test)]
    pub(super) fn fetching(self, downloads: Downloads) -> Self {
        Self { downloads, ..self }
    }

    /// The downloads.
    pub(super) fn downloads(&self) -> &Downloads {
        &self.downloads
    }

    /// Fetches a data set.
    pub(super) fn download(&mut self, context: &egui::Context, name: &str) {
        self.downloads.start(context, name);
    }

    /// The outcome of a download that has ended since the last call; the disk is then looked at again.
    pub(super) fn downloaded(&mut self) -> Option<(String, Result<(), DataError>)> {
        let ended = self.downloads.ended()?;
        self.images.known = None;
        Some(ended)
    }

    /// The paths of images that are known or being looked up, oldest first.
    #[cfg(test)]
    pub(super) fn asked(&self) -> impl Iterator<Item = &PathBuf> {
        let known = self.images.known.iter().map(|(place, _)| place);
        let places = known.chain(self.images.pending.iter().map(|pending| &pending.question));
        places.filter_map(|(_, path, _)| path.as_ref())
    }

    /// Starts to find out what an experiment needs to know. Does not block.
    pub(super) fn look(&mut self, ui: &egui::Ui, experiment: &Experiment) {
        if self.fixed.is_some() {
            return;
        }
        self.gpus.look(ui.ctx(), experiment.run.engine_options(), gpus);
        let now = ui.input(|input| input.time);
        let data = &experiment.data;
        let same = |(name, path, _): &Place| *name == data.dataset && *path == data.path;
        // Not every prefix of a typed path is looked up: it may name the root of a file system, or a device.
        let changed = match self.seen.take() {
            Some((name, path, at)) if name == data.dataset && path == data.path => at,
            Some(_) => now,
            None => now - TYPING_SECS,
        };
        self.seen = Some((data.dataset.clone(), data.path.clone(), changed));
        // Also what does not change the path yet, such as the slash at its end.
        let is_typed = |event: &egui::Event| {
            matches!(
                event,
                egui::Event::Text(_) | egui::Event::Key { .. } | egui::Event::Paste(_) | egui::Event::Ime(_)
            )
        };
        if ui.input(|input| input.events.iter().any(is_typed)) {
            self.typed_at = now;
        }
        let pause = now - changed.max(self.typed_at);
        self.typing = ui.ctx().text_edit_focused() && pause < TYPING_SECS;
        if self.typing {
            ui.ctx().request_repaint_after(Duration::from_secs_f64(TYPING_SECS - pause));
            return;
        }
        let count = match self.images.waiting() {
            // A disk that does not answer is not asked again.
            Some((place, _)) if same(place) => place.2,
            _ => (now / REFRESH_SECS) as u64,
        };
        let place = (data.dataset.clone(), data.path.clone(), count);
        self.images.look(ui.ctx(), place, |(name, path, _)| images(name, path.as_ref()));
    }

    /// Why [`Self::images`] is `None`.
    pub(super) fn unknown(&self) -> Unknown {
        match self.images.waiting() {
            _ if self.typing => Unknown::Typing,
            Some((_, true)) => Unknown::Unanswered,
            _ => Unknown::Reading,
        }
    }

    /// The GPUs; `None` while the search is running.
    pub(super) fn gpus(&self) -> Option<&Gpus> {
        self.fixed.as_ref().map(|(gpus, _)| gpus).or_else(|| self.gpus.known.as_ref().map(|(_, gpus)| gpus))
    }

    /// Information on an experiment's images; `None` while the disk is being read.
    pub(super) fn images(&self, experiment: &Experiment) -> Option<&Images> {
        let same = |(name, path, _): &Place| *name == experiment.data.dataset && *path == experiment.data.path;
        let known = self.images.known.as_ref().filter(|(place, _)| same(place)).map(|(_, images)| images);
        self.fixed.as_ref().map(|(_, images)| images).or(known)
    }
}

fn gpus(options: &EngineOptions) -> Gpus {
    let adapters = adapters();
    let engine = match choose_engine(options) {
        ChosenEngine::Candle(CandleDevice::Cpu) => "Candle on the CPU".to_owned(),
        ChosenEngine::Candle(CandleDevice::Cuda(_)) => "Candle on an NVIDIA GPU".to_owned(),
        ChosenEngine::Candle(CandleDevice::Metal(_)) => "Candle on an Apple GPU".to_owned(),
        ChosenEngine::Wgsl => match (&options.adapter, default_adapter()) {
            (Some(name), _) => format!("WGSL on the GPU that '{name}' names"),
            (None, Some(adapter)) => format!("WGSL on {} ({})", adapter.name, adapter.kind.name()),
            (None, None) => "WGSL, but there is no GPU for it".to_owned(),
        },
    };
    Gpus { adapters, engine }
}

fn images(name: &str, path: Option<&PathBuf>) -> Images {
    let here = |text: String| Images { text, command: None, download: None, missing: false, shape: None };
    let gone = |text: String| Images { missing: true, ..here(text) };
    match (name, path) {
        ("digits", _) => here("built in: 1,797 handwritten digits, 8×8 grey".into()),
        ("shapes", _) => here("built in: drawn shapes, 32×32 colour".into()),
        (_, Some(path)) => match detect(path) {
            Ok(found) => Images {
                shape: first_shape(name, Some(path)).ok(),
                ..here(format!("found: layout {}", found.layout.name()))
            },
            Err(error) => gone(error.to_string()),
        },
        (_, None) => {
            let root = download::default_root();
            let Ok(publisher) = publishers::publisher(name) else { return here(String::new()) };
            let text = match download::status(&publisher, &root) {
                Ok(Status::Verified { .. }) => return here("on this disk, verified".into()),
                Ok(Status::Unverified { what, .. }) => format!("on this disk; {what}"),
                Ok(Status::Partial { .. }) => "only a part is on this disk".to_owned(),
                Ok(Status::Absent) => "not on this disk, must be fetched".to_owned(),
                Err(error) => error.to_string(),
            };
            // A directory with half a download is not a data set.
            let missing = detect(&publisher.directory(&root)).is_err();
            let command = Some(format!("fairtat data fetch {name}"));
            Images { text, command, download: Some(Offered::of(&publisher)), missing, shape: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_from_elsewhere_and_only_new_questions_are_asked() {
        let context = egui::Context::default();
        let mut latest = Latest::<u32, u32>::default();
        let mut wait = |question: u32| {
            for _ in 0..1000 {
                latest.look(&context, question, |q| q * 2);
                if latest.pending.is_empty() && latest.known.is_some_and(|(asked, _)| asked == question) {
                    return latest.known;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            None
        };
        assert_eq!(wait(3), Some((3, 6)));
        assert_eq!(wait(4), Some((4, 8)));
        latest.look(&context, 4, |_| panic!("asked twice"));
        assert!(latest.pending.is_empty());
    }

    #[test]
    fn a_question_that_is_never_answered_does_not_keep_others_from_being_answered() {
        let context = egui::Context::default();
        let mut latest = Latest::<u32, u32>::default();
        let (_never, block) = channel::<()>();
        latest.look(&context, 1, move |q| {
            let _ = block.recv();
            *q
        });
        // Not even after a long time is it asked again.
        latest.pending[0].since -= 2 * PATIENCE;
        assert_eq!(latest.waiting(), Some((&1, true)));
        latest.look(&context, 1, |_| panic!("asked twice"));
        for _ in 0..1000 {
            latest.look(&context, 2, |q| *q);
            if latest.known.is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(latest.known, Some((2, 2)));
        assert_eq!(latest.waiting(), None);
        // The number of threads is bounded.
        for i in 3..40 {
            latest.look(&context, i, |_| {
                loop {
                    std::thread::park();
                }
            });
            latest.pending.iter_mut().for_each(|pending| pending.since -= 2 * PATIENCE);
        }
        assert_eq!(latest.pending.len(), WAITING);
    }

    #[test]
    fn places_of_images_are_told_apart() {
        assert!(!images("digits", None).missing);
        let empty = tempfile::tempdir().unwrap();
        let found = images("folder", Some(&empty.path().to_path_buf()));
        assert!(found.missing && found.text.contains(&empty.path().display().to_string()), "{found:?}");
    }
}
