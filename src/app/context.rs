//! What a panel reads, and what it may request.

use std::path::PathBuf;

use super::command::Command;
use super::evaluation::EvaluationView;
use super::focus::Focus;
use super::form::Form;
use super::glossary::Glossary;
use super::layout::PanelKind;
use super::level::Level;
use super::panels::Cell;
use super::settings::Settings;
use super::view::RunView;
use crate::worker::evaluation::EvaluationJob;
use crate::worker::{Request, Subject};

/// Passed to every panel in every frame. A panel modifies only its own state and the fields that are `&mut` here; it
/// requests everything else by [`Context::ask`], and the application carries that out after the frame.
pub struct Context<'a> {
    /// The current run, or what remains of the last one.
    pub run: &'a RunView,
    /// The evaluation under way, or the last one.
    pub evaluation: &'a EvaluationView,
    /// The epoch that all panels show.
    pub focus: &'a mut Focus,
    /// The experiment being edited.
    pub form: &'a mut Form,
    /// Settings that persist across starts.
    pub settings: &'a mut Settings,
    /// Explanations of terms, for tooltips.
    pub glossary: &'a Glossary,
    /// Actions requested in this frame.
    pub actions: &'a mut Vec<Action>,
}

impl Context<'_> {
    /// Requests an action, carried out after this frame.
    pub fn ask(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Sends a request to the worker after this frame.
    pub fn request(&mut self, request: Request) {
        self.ask(Action::Worker(request));
    }
}

/// What a panel can request.
#[derive(Debug, Clone)]
pub enum Action {
    /// Send this request to the worker.
    Worker(Request),
    /// Ask what an evaluation would do.
    LookAtEvaluation(Box<EvaluationJob>),
    /// Start an evaluation, or continue it.
    StartEvaluation(Box<EvaluationJob>),
    /// Run a command, as from the menu.
    Command(Command),
    /// Start the finished run's experiment again as PGD-AT.
    TrainBaseline,
    /// Bring a panel to the front.
    Show(PanelKind),
    /// Open an image in the inspector.
    Inspect(Subject),
    /// Show the images that were counted in a cell of a statistic.
    ShowCell(Cell),
    /// Begin the lesson with this file name.
    Lesson(String),
    /// Train the first preset, as the window of a new user offers.
    WatchItTrain,
    /// Fetch this data set from its publisher.
    Download(String),
    /// End the download that is under way.
    CancelDownload,
    /// Show the setting with this path in the experiment panel.
    FindSetting(&'static str),
    /// Show the term with this key in the glossary.
    FindTerm(String),
    /// Show the user a transient message.
    Toast(Level, String),
    /// Show a file or directory in the system's own program for it.
    OpenPath(PathBuf),
    /// Copy text to the clipboard.
    CopyText(String),
    /// Save or copy a figure.
    Export(Export, Format),
    /// Ask the user for a file and use it for this purpose.
    Open(OpenFor),
    /// Use a file that was dropped onto the window or named elsewhere.
    Opened(OpenFor, PathBuf),
    /// Load the image on the clipboard into the inspector.
    PasteImage,
    /// Empty the panels of a run that is over. Its files stay.
    ClearRun,
    /// Leave the open lesson and restore what was there before it.
    LeaveLesson,
}

/// What a chosen file or directory is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenFor {
    /// Load an experiment (TOML) into the form.
    Experiment,
    /// Save the experiment of the form (TOML).
    SaveExperiment,
    /// Look into this run directory: its curves, and its best checkpoint.
    Run,
    /// Resume this run directory.
    Resume,
    /// Show an image in the inspector.
    Image,
    /// Load a checkpoint or run directory for inspection.
    Checkpoint,
    /// Add a run directory to the comparison.
    Compare,
    /// Directory of a data set, for the form.
    DataPath,
    /// Evaluate a checkpoint file.
    Evaluate,
    /// Evaluate the best checkpoint of a run directory.
    EvaluateRun,
    /// Write the report of an evaluation to this directory.
    Report,
}

/// A figure to export: redrawn as a document, not captured from the screen.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// File name without an extension.
    pub name: String,
    /// The figure.
    pub svg: String,
    /// Its numbers, with a header line.
    pub csv: String,
}

/// Format and destination of an [`Export`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The figure at two pixels per unit, to a file.
    Png,
    /// The document, to a file.
    Svg,
    /// The numbers, to a file.
    Csv,
    /// The figure at two pixels per unit, to the clipboard.
    CopyImage,
    /// The numbers, to the clipboard.
    CopyCsv,
}

/// One part of the window.
pub trait Panel {
    /// Draws the panel. Its content must not depend on how often this is called.
    fn ui(&mut self, ui: &mut egui::Ui, context: &mut Context<'_>);
}
