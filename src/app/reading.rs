//! Reads chosen files on threads, so that a slow disk does not stop the window.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::pictures::subject_from_file;
use crate::data::{DataError, ImageShape};
use crate::files::{self, FileError};
use crate::worker::Subject;

/// What was read.
pub(super) enum Read {
    /// An image, fitted to the network.
    Image(Result<Subject, DataError>),
    /// The text of an experiment.
    Experiment(PathBuf, Result<String, FileError>),
}

/// See the [module](self).
pub(super) struct Reading {
    context: egui::Context,
    done: Receiver<Read>,
    sender: Sender<Read>,
}

impl Reading {
    /// `context` is that of the window, which is woken when a file is read.
    pub(super) fn new(context: egui::Context) -> Self {
        let (sender, done) = channel();
        Self { context, done, sender }
    }

    /// What has been read since the last call.
    pub(super) fn done(&self) -> Vec<Read> {
        self.done.try_iter().collect()
    }

    /// Reads an image for a network that takes `shape`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn image(&self, path: PathBuf, shape: ImageShape) -> io::Result<()> {
        self.begin(move || Read::Image(subject_from_file(&path, shape)))
    }

    /// Reads the text of an experiment.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn experiment(&self, path: PathBuf) -> io::Result<()> {
        self.begin(move || {
            let text = files::read_to_string(&path);
            Read::Experiment(path, text)
        })
    }

    fn begin(&self, read: impl FnOnce() -> Read + Send + 'static) -> io::Result<()> {
        let (sender, context) = (self.sender.clone(), self.context.clone());
        let work = move || {
            // The window may have been closed meanwhile.
            let _ = sender.send(read());
            context.request_repaint();
        };
        std::thread::Builder::new().name("reading".into()).spawn(work).map(drop)
    }
}
