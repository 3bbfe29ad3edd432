//! What the user opens: files and directories that are chosen, typed, dropped or pasted.

use std::path::{Path, PathBuf};

use super::App;
use crate::app::context::{Action, OpenFor};
use crate::app::dialogs::Purpose;
use crate::app::layout::PanelKind;
use crate::app::level::Level;
use crate::app::pictures;
use crate::app::reading::Read;
use crate::app::runs::holds_study;
use crate::app::view::Status;
use crate::config::ConfigError;
use crate::data::ImageShape;
use crate::worker::Request;

impl App {
    /// Opens the files that were dropped onto the window.
    pub(super) fn dropped(&mut self, context: &egui::Context) {
        for file in context.input(|input| input.raw.dropped_files.clone()) {
            self.open_any(file.path());
        }
    }

    /// Opens a file or directory according to its type.
    pub(in crate::app) fn open_any(&mut self, path: &Path) {
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        let purpose = match extension.as_str() {
            _ if path.is_dir() && (path.join("config.toml").exists() || holds_study(path)) => OpenFor::Compare,
            "png" | "jpg" | "jpeg" => OpenFor::Image,
            "toml" => OpenFor::Experiment,
            "safetensors" => OpenFor::Checkpoint,
            "pth" | "pt" => OpenFor::Evaluate,
            _ => {
                let text = format!(
                    "{}: expected an image (PNG, JPEG), an experiment (TOML), a checkpoint (safetensors, pth, pt), or the directory of a run or a study.",
                    path.display()
                );
                return self.tell(Level::Error, text);
            }
        };
        self.actions.push(Action::Opened(purpose, path.to_path_buf()));
    }

    pub(super) fn ask(&mut self, purpose: OpenFor) {
        self.surroundings.dialogs.ask(Purpose::Open(purpose));
    }

    /// Asks the user to type a path, starting from the most likely one.
    pub(super) fn type_path(&mut self, purpose: Purpose) {
        let last = || self.settings.last_run.clone().unwrap_or_else(|| self.surroundings.runs.clone());
        let suggestion = match &purpose {
            Purpose::Save { name, .. } => PathBuf::from(name),
            Purpose::Open(OpenFor::SaveExperiment) => "experiment.toml".into(),
            Purpose::Open(OpenFor::DataPath) => self.form.experiment.data.path.clone().unwrap_or_default(),
            Purpose::Open(OpenFor::Run | OpenFor::Resume | OpenFor::EvaluateRun | OpenFor::Compare) => last(),
            Purpose::Open(OpenFor::Checkpoint | OpenFor::Evaluate) => last().join("checkpoints/best.safetensors"),
            Purpose::Open(OpenFor::Report) => last().join("evaluation"),
            Purpose::Open(OpenFor::Experiment | OpenFor::Image) => PathBuf::new(),
        };
        // Relative paths start where the program was started, which a user of a window does not see.
        let absolute = std::path::absolute(&suggestion).unwrap_or(suggestion);
        self.typed.ask(purpose, &absolute);
    }

    /// Uses a chosen path.
    pub(super) fn chosen(&mut self, purpose: Purpose, path: PathBuf) {
        let shown = path.display().to_string();
        match purpose {
            Purpose::Save { bytes, .. } => self.exporter.write(path, bytes),
            Purpose::Open(OpenFor::Experiment) => self.began_to_read(self.reading.experiment(path)),
            Purpose::Open(OpenFor::SaveExperiment) => {
                let text = self.form.experiment.to_toml();
                match crate::files::write_atomic(&path, text.as_bytes()) {
                    Ok(()) => self.tell(Level::Info, format!("Wrote {shown}.")),
                    Err(error) => self.tell(Level::Error, format!("{error}; choose another place.")),
                }
            }
            Purpose::Open(OpenFor::Run) => {
                if !self.settings.compare.contains(&path) {
                    self.settings.compare.push(path.clone());
                }
                self.reveal(PanelKind::Compare);
                if !self.view.status.is_live() {
                    let engine = self.form.experiment.run.engine_options();
                    self.send(Request::Look { path, engine });
                }
            }
            Purpose::Open(OpenFor::Resume) => {
                self.view.status = Status::Opening;
                self.send(Request::Resume { directory: path, engine: None, paused: false });
            }
            Purpose::Open(OpenFor::Checkpoint) => {
                let engine = self.form.experiment.run.engine_options();
                self.send(Request::Look { path, engine });
            }
            Purpose::Open(OpenFor::Image) => self.open_image(path),
            Purpose::Open(OpenFor::Compare) => {
                if !self.settings.compare.contains(&path) {
                    self.settings.compare.push(path);
                }
                self.reveal(PanelKind::Compare);
            }
            Purpose::Open(OpenFor::Evaluate | OpenFor::EvaluateRun) => {
                self.panels.evaluate.add(path);
                self.reveal(PanelKind::Evaluate);
            }
            Purpose::Open(OpenFor::Report) => self.panels.evaluate.report_to(&path),
            Purpose::Open(OpenFor::DataPath) => {
                if let Err(error) = self.form.set_data_path(&path) {
                    self.tell(Level::Error, error);
                }
            }
        }
    }

    pub(super) fn open_image(&mut self, path: PathBuf) {
        if let Some(shape) = self.shape_to_inspect() {
            self.began_to_read(self.reading.image(path, shape));
        }
    }

    fn began_to_read(&mut self, begun: std::io::Result<()>) {
        if let Err(error) = begun {
            self.tell(Level::Error, format!("The file was not read: {error}"));
        }
    }

    /// Uses a file that was read.
    pub(super) fn use_read(&mut self, read: Read) {
        match read {
            Read::Image(Ok(subject)) => self.queue(Action::Inspect(subject)),
            Read::Image(Err(error)) => self.tell(Level::Error, error.to_string()),
            Read::Experiment(path, text) => {
                let shown = path.display().to_string();
                let loaded = text.map_err(ConfigError::from).and_then(|text| self.form.load_toml(&text, &shown));
                match loaded {
                    Ok(()) => self.tell(Level::Info, format!("Read {shown}.")),
                    Err(error) => self.tell(Level::Error, error.to_string()),
                }
            }
        }
    }

    /// The shape of the images that can be inspected; tells the user if there is no network.
    fn shape_to_inspect(&mut self) -> Option<ImageShape> {
        let shape = self.view.info.as_ref().map(|info| info.shape());
        if shape.is_none() {
            let text = "Inspecting an image needs a network: start a run or open a checkpoint first.";
            self.tell(Level::Warning, text.into());
        }
        shape
    }

    pub(super) fn open_pixels(&mut self, name: &str, image: &egui::ColorImage) {
        let Some(shape) = self.shape_to_inspect() else { return };
        let bytes: Vec<u8> = image.pixels.iter().flat_map(|pixel| pixel.to_srgba_unmultiplied()).collect();
        match pictures::subject_from_rgba(name, image.width(), image.height(), &bytes, shape) {
            Ok(subject) => self.queue(Action::Inspect(subject)),
            Err(error) => self.tell(Level::Error, error.to_string()),
        }
    }
}
