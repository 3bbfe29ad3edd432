//! Choosing files. The system's dialogs run on their own threads, so that no frame blocks on one.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::context::OpenFor;
use super::session_bus;

/// The answer to a dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen<T> {
    /// A file or directory, and what it is used for.
    Path(T, PathBuf),
    /// The user cancelled.
    Cancelled,
    /// The system has no dialog; the user has to type the path.
    Unavailable(T),
}

/// What a chosen path is used for.
#[derive(Debug, Clone, PartialEq)]
pub enum Purpose {
    /// Read something, or write the experiment.
    Open(OpenFor),
    /// Write these bytes.
    Save {
        /// Suggested file name.
        name: String,
        /// The contents.
        bytes: std::sync::Arc<[u8]>,
    },
}

impl Purpose {
    /// Title of the dialog.
    pub fn title(&self) -> &'static str {
        match self {
            Self::Open(OpenFor::Experiment) => "Open an experiment (TOML)",
            Self::Open(OpenFor::SaveExperiment) => "Save the experiment (TOML)",
            Self::Open(OpenFor::Run) => "Choose the run directory to open",
            Self::Open(OpenFor::Resume) => "Choose the run directory to resume",
            Self::Open(OpenFor::Image) => "Open an image (PNG or JPEG)",
            Self::Open(OpenFor::Checkpoint) => "Open a checkpoint (safetensors)",
            Self::Open(OpenFor::Compare) => "Choose the directory of a run or a study",
            Self::Open(OpenFor::DataPath) => "Choose the directory of the data set",
            Self::Open(OpenFor::Evaluate) => "Choose the checkpoint to evaluate (safetensors, pth, pt)",
            Self::Open(OpenFor::EvaluateRun) => "Choose the run directory to evaluate",
            Self::Open(OpenFor::Report) => "Choose the directory for the report",
            Self::Save { .. } => "Save the figure",
        }
    }

    /// What to type where the system has no dialog.
    pub fn typed(&self) -> &'static str {
        match self {
            Self::Save { .. } | Self::Open(OpenFor::SaveExperiment) => "Type the path of the file to write.",
            Self::Open(
                OpenFor::Run
                | OpenFor::Resume
                | OpenFor::Compare
                | OpenFor::DataPath
                | OpenFor::EvaluateRun
                | OpenFor::Report,
            ) => "Type the path of the directory.",
            Self::Open(OpenFor::Experiment | OpenFor::Image | OpenFor::Checkpoint | OpenFor::Evaluate) => {
                "Type the path of the file, or drop the file onto the window."
            }
        }
    }
}

/// Asks the user for paths.
pub trait Dialogs {
    /// Opens a dialog; [`Self::poll`] returns the answer. Call this on the main thread.
    fn ask(&mut self, purpose: Purpose);

    /// The next answer; `None` if there is none yet.
    fn poll(&mut self) -> Option<Chosen<Purpose>>;

    /// The dialog that was asked for and has not answered, and since when; `None` if there is none, or if the system shows
    /// its dialogs without another program that may hang.
    fn waiting(&self) -> Option<(&Purpose, Instant)> {
        None
    }

    /// Ignores the answer of the dialog that [`Self::waiting`] returns.
    fn give_up(&mut self) {}
}

/// Time after which the user is offered to type a path although the system has been asked for a dialog.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// The system's own dialogs.
pub(super) struct SystemDialogs {
    answers: Receiver<(u64, Chosen<Purpose>)>,
    sender: Sender<(u64, Chosen<Purpose>)>,
    wake: egui::Context,
    /// Number of dialogs asked for.
    asked: u64,
    /// The dialogs without an answer: number, purpose, and since when. The newest is last.
    open: Vec<(u64, Purpose, Instant)>,
}

/// A dialog that closes faster than a user can react was never shown.
const NEVER_SHOWN: Duration = Duration::from_millis(250);

impl SystemDialogs {
    /// Dialogs that repaint `context` when they are answered.
    pub(super) fn new(context: egui::Context) -> Self {
        let (sender, answers) = channel();
        Self { answers, sender, wake: context, asked: 0, open: Vec::new() }
    }
}

impl Dialogs for SystemDialogs {
    fn ask(&mut self, purpose: Purpose) {
        let dialog = rfd::AsyncFileDialog::new().set_title(purpose.title());
        // Created on this thread, as some systems require, and awaited on another.
        let asked: std::pin::Pin<Box<dyn Future<Output = Option<rfd::FileHandle>> + Send>> = match &purpose {
            Purpose::Open(OpenFor::Experiment) => Box::pin(dialog.add_filter("Experiment", &["toml"]).pick_file()),
            Purpose::Open(OpenFor::SaveExperiment) => {
                Box::pin(dialog.add_filter("Experiment", &["toml"]).set_file_name("experiment.toml").save_file())
            }
            Purpose::Open(OpenFor::Image) => Box::pin(dialog.add_filter("Image", &["png", "jpg", "jpeg"]).pick_file()),
            Purpose::Open(OpenFor::Checkpoint) => {
                Box::pin(dialog.add_filter("Checkpoint", &["safetensors"]).pick_file())
            }
            Purpose::Open(OpenFor::Evaluate) => {
                Box::pin(dialog.add_filter("Checkpoint", &["safetensors", "pth", "pt"]).pick_file())
            }
            Purpose::Open(
                OpenFor::Run
                | OpenFor::Resume
                | OpenFor::Compare
                | OpenFor::DataPath
                | OpenFor::EvaluateRun
                | OpenFor::Report,
            ) => Box::pin(dialog.pick_folder()),
            Purpose::Save { name, .. } => Box::pin(dialog.set_file_name(name).save_file()),
        };
        self.asked += 1;
        let number = self.asked;
        let started = Instant::now();
        self.open.push((number, purpose.clone(), started));
        self.wake.request_repaint_after(PATIENCE);
        let (sender, wake, again) = (self.sender.clone(), self.wake.clone(), purpose.clone());
        let hung = move || {
            if !session_bus::answers(PATIENCE) {
                let _ = sender.send((number, Chosen::Unavailable(again)));
                wake.request_repaint();
            }
        };
        // Without this thread the user is still offered to type the path.
        let _ = std::thread::Builder::new().name("dialog".into()).spawn(hung);
        let (sender, wake) = (self.sender.clone(), self.wake.clone());
        let again = purpose.clone();
        let thread = std::thread::Builder::new().name("dialog".into()).spawn(move || {
            let answer = match pollster::block_on(asked) {
                Some(file) => Chosen::Path(purpose, file.path().to_path_buf()),
                None if started.elapsed() < NEVER_SHOWN => Chosen::Unavailable(purpose),
                None => Chosen::Cancelled,
            };
            // If the window is closed by now, nothing receives the answer.
            let _ = sender.send((number, answer));
            wake.request_repaint();
        });
        if thread.is_err() {
            let _ = self.sender.send((number, Chosen::Unavailable(again)));
        }
    }

    fn poll(&mut self) -> Option<Chosen<Purpose>> {
        while let Ok((number, answer)) = self.answers.try_recv() {
            let before = self.open.len();
            self.open.retain(|(open, ..)| *open != number);
            // A second answer, or one to a dialog that was given up.
            if self.open.len() < before {
                return Some(answer);
            }
        }
        None
    }

    fn waiting(&self) -> Option<(&Purpose, Instant)> {
        // Elsewhere a dialog is part of this program.
        let portal = cfg!(all(unix, not(target_os = "macos")));
        self.open.last().filter(|_| portal).map(|(_, purpose, since)| (purpose, *since))
    }

    fn give_up(&mut self) {
        self.open.pop();
    }
}
