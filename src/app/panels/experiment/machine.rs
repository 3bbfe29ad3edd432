//! What the form must know about this machine: its GPUs, and which data sets are on its disk. A separate thread finds
//! this out, because it takes a while.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use crate::config::{EngineOptions, Experiment};
use crate::data::download::{self, Status};
use crate::data::{ImageShape, detect, first_shape, publishers};
use crate::engine::candle::CandleDevice;
use crate::engine::wgsl::{AdapterSummary, adapters, default_adapter};
use crate::engines::{ChosenEngine, choose_engine};

/// The newest answer to a question that another thread answers.
#[derive(Debug)]
struct Latest<Q, A> {
    known: Option<(Q, A)>,
    pending: Option<Receiver<(Q, A)>>,
}

impl<Q, A> Default for Latest<Q, A> {
    fn default() -> Self {
        Self { known: None, pending: None }
    }
}

impl<Q: PartialEq + Send + 'static, A: Send + 'static> Latest<Q, A> {
    /// Receives a pending answer, and starts a thread if `question` is new.
    fn look(&mut self, context: &egui::Context, question: Q, answer: impl FnOnce(&Q) -> A + Send + 'static) {
        if let Some(pending) = &self.pending {
            match pending.try_recv() {
                Ok(known) => (self.known, self.pending) = (Some(known), None),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.pending = None,
            }
        }
        if self.known.as_ref().is_none_or(|(asked, _)| *asked != question) {
            let (sender, receiver) = channel();
            let context = context.clone();
            let ask = move || {
                let answer = answer(&question);
                // If the window is closed by now, nothing receives the answer.
                let _ = sender.send((question, answer));
                context.request_repaint();
            };
            self.pending = std::thread::Builder::new().name("form".into()).spawn(ask).ok().map(|_| receiver);
        }
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

/// See the [module](self).
#[derive(Debug, Default)]
pub(in crate::app) struct Machine {
    gpus: Latest<EngineOptions, Gpus>,
    images: Latest<Place, Images>,
    /// Fixed answers for tests.
    fixed: Option<(Gpus, Images)>,
}

impl Machine {
    /// A fixed description instead of the real machine.
    #[cfg(test)]
    pub(in crate::app) fn fixed(gpus: Gpus, images: Images) -> Self {
        Self { fixed: Some((gpus, images)), ..Self::default() }
    }

    /// Starts to find out what an experiment needs to know. Does not block.
    pub(super) fn look(&mut self, ui: &egui::Ui, experiment: &Experiment) {
        if self.fixed.is_some() {
            return;
        }
        self.gpus.look(ui.ctx(), experiment.run.engine_options(), gpus);
        let count = (ui.input(|input| input.time) / REFRESH_SECS) as u64;
        let place = (experiment.data.dataset.clone(), experiment.data.path.clone(), count);
        self.images.look(ui.ctx(), place, |(name, path, _)| images(name, path.as_ref()));
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
    let here = |text: String| Images { text, command: None, missing: false, shape: None };
    let gone = |text: String| Images { text, command: None, missing: true, shape: None };
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
            let missing = !root.join(name).exists();
            Images { text, command: Some(format!("fairtat data fetch {name}")), missing, shape: None }
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
                if latest.pending.is_none() && latest.known.is_some_and(|(asked, _)| asked == question) {
                    return latest.known;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            None
        };
        assert_eq!(wait(3), Some((3, 6)));
        assert_eq!(wait(4), Some((4, 8)));
        latest.look(&context, 4, |_| panic!("asked twice"));
        assert!(latest.pending.is_none());
    }

    #[test]
    fn places_of_images_are_told_apart() {
        assert!(!images("digits", None).missing);
        let empty = tempfile::tempdir().unwrap();
        let found = images("folder", Some(&empty.path().to_path_buf()));
        assert!(found.missing && found.text.contains(&empty.path().display().to_string()), "{found:?}");
    }
}
