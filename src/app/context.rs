//! What a panel is shown, and what it may ask for.

use std::path::PathBuf;

use super::command::Command;
use super::form::Form;
use super::glossary::Glossary;
use super::layout::PanelKind;
use super::level::Level;
use super::settings::Settings;
use super::view::RunView;
use crate::worker::{Request, Subject};

/// Given to every panel in every frame. A panel changes nothing but its own state and the fields that are `&mut` here;
/// everything else it asks for by [`Context::ask`], and it happens after the frame.
pub struct Context<'a> {
    /// The run, or what is left of the last one.
    pub run: &'a RunView,
    /// The experiment that is being put together.
    pub form: &'a mut Form,
    /// Choices that outlive the program.
    pub settings: &'a mut Settings,
    /// Explanations of terms, for tooltips.
    pub glossary: &'a Glossary,
    /// What was asked for in this frame.
    pub actions: &'a mut Vec<Action>,
}

impl Context<'_> {
    /// Asks for something to happen after this frame.
    pub fn ask(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Asks the worker for something.
    pub fn request(&mut self, request: Request) {
        self.ask(Action::Worker(request));
    }
}

/// What a panel can ask for.
#[derive(Debug, Clone)]
pub enum Action {
    /// Hand this to the worker.
    Worker(Request),
    /// Carry out a command, as from the menu.
    Command(Command),
    /// Bring a panel to the front.
    Show(PanelKind),
    /// Open an image in the inspector.
    Inspect(Subject),
    /// Show the images of a cell of the confusion matrix: true class, predicted class.
    ShowCell {
        /// True class, or any.
        label: Option<u32>,
        /// Predicted class, or any.
        prediction: Option<u32>,
    },
    /// Begin a lesson, by the name of its file.
    Lesson(String),
    /// Tell the user something in passing.
    Toast(Level, String),
    /// Copy text to the clipboard.
    CopyText(String),
    /// Save or copy a figure.
    Export(Export, Format),
    /// Ask for a file and read it, for the purpose named.
    Open(OpenFor),
    /// Read a file that was dropped onto the window or named elsewhere.
    Opened(OpenFor, PathBuf),
    /// Take the image that is on the clipboard into the inspector.
    PasteImage,
    /// Leave the lesson that is open and put back what was there before it.
    LeaveLesson,
}

/// What a chosen file or directory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFor {
    /// Load an experiment (TOML) into the form.
    Experiment,
    /// Save the experiment of the form (TOML).
    SaveExperiment,
    /// Resume this run directory.
    Resume,
    /// Show an image in the inspector.
    Image,
    /// Load a checkpoint or run directory to look at.
    Checkpoint,
    /// Add a run directory to the comparison.
    Compare,
    /// Directory of a data set, for the form.
    DataPath,
}

/// A figure as it leaves the window: drawn anew as a document, not taken off the screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// File name without an extension.
    pub name: String,
    /// The figure.
    pub svg: String,
    /// Its numbers, with a header line.
    pub csv: String,
}

/// What an [`Export`] is turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The figure at two pixels a unit, to a file.
    Png,
    /// The document, to a file.
    Svg,
    /// The numbers, to a file.
    Csv,
    /// The figure at two pixels a unit, to the clipboard.
    CopyImage,
    /// The numbers, to the clipboard.
    CopyCsv,
}

/// One part of the window.
pub trait Panel {
    /// Draws it. What it shows must not depend on how often this is called.
    fn ui(&mut self, ui: &mut egui::Ui, context: &mut Context<'_>);
}
