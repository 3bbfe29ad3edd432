//! What the commands do, and when they can.

use std::time::{Duration, Instant};

use super::App;
use crate::app::command::{Command, SpeedChoice};
use crate::app::context::{Action, OpenFor};
use crate::app::layout::PanelKind;
use crate::app::level::Level;
use crate::app::settings::Theme;
use crate::app::view::Status;
use crate::config::MethodChoice;
use crate::train::RunDir;
use crate::worker::{ExamplesWish, Request, Speed};

impl App {
    /// Whether a command can run now.
    ///
    /// # Errors
    /// The reason why it cannot.
    pub fn enabled(&self, command: Command) -> Result<(), &'static str> {
        let live = self.view.status.is_live();
        match command {
            Command::Start if live => Err("A run is under way; stop it first."),
            Command::Start | Command::CopyAsCommand | Command::SaveExperiment if !self.form.errors().is_empty() => {
                Err("The experiment has an invalid value; see the panel Experiment.")
            }
            Command::PlayPause | Command::OneBatch | Command::OneAttackStep
                if !live && !self.form.errors().is_empty() =>
            {
                Err("The experiment has an invalid value; see the panel Experiment.")
            }
            Command::PlayPause | Command::OneBatch | Command::OneAttackStep if self.view.status == Status::Over => {
                Err("The run has ended. Start begins a new one (Ctrl+Enter).")
            }
            Command::Start | Command::PlayPause | Command::OneBatch | Command::OneAttackStep
                if !live && self.panels.experiment.lacks_images(&self.form.experiment) =>
            {
                Err("The images are not on this machine; the panel Experiment downloads them.")
            }
            Command::PlayPause | Command::OneBatch | Command::OneAttackStep if self.view.status == Status::Opening => {
                Err("The run is being opened.")
            }
            Command::StopAndSave | Command::StopWithoutSaving if !live => Err("No run is under way."),
            Command::Resume | Command::ResumeThis | Command::OpenCheckpoint if live => {
                Err("A run is under way; stop it first.")
            }
            Command::ResumeThis if self.view.resumable.is_none() => {
                Err("No run is shown that was stopped and has a checkpoint.")
            }
            Command::CancelEvaluation if !self.evaluation.is_running() => Err("No evaluation is under way."),
            Command::Undo if !self.form.can_undo() => Err("There is nothing to undo."),
            Command::Redo if !self.form.can_redo() => Err("There is nothing to redo."),
            _ => Ok(()),
        }
    }

    /// Runs a command.
    pub fn run(&mut self, command: Command, context: &egui::Context) {
        if let Err(why) = self.enabled(command) {
            return self.toasts.add(Instant::now(), Level::Warning, why.into());
        }
        match command {
            Command::Start => self.begin(false),
            Command::PlayPause => match self.view.status {
                Status::Running => self.send(Request::Pause),
                Status::Paused => self.send(Request::Continue),
                _ => self.begin(false),
            },
            Command::OneBatch if self.view.status.is_live() => self.send(Request::OneBatch),
            Command::OneAttackStep if self.view.status.is_live() => {
                // The user takes a single step in order to look at it.
                if !self.settings.hidden.contains(&PanelKind::Examples) {
                    self.reveal(PanelKind::Examples);
                }
                if !self.seen.contains(&PanelKind::Examples) {
                    // The panel requests images when it is drawn, which is after this step.
                    self.send(Request::Examples(Some(ExamplesWish { count: 16, every: Duration::from_millis(500) })));
                }
                self.send(Request::OneAttackStep);
            }
            Command::OneBatch | Command::OneAttackStep => self.begin(true),
            Command::SlowMotion => {
                let step = SpeedChoice::Step.speed();
                self.go(if self.speed == step { Speed::Full } else { step });
            }
            Command::Speed(choice) => self.go(choice.speed()),
            Command::StopAndSave => self.send(Request::Stop { save: true }),
            Command::StopWithoutSaving => self.send(Request::Stop { save: false }),
            Command::Resume => self.ask(OpenFor::Resume),
            Command::ResumeThis => {
                if let Some(directory) = self.view.resumable.clone() {
                    self.queue(Action::Opened(OpenFor::Resume, directory));
                }
            }
            Command::OpenCheckpoint => self.ask(OpenFor::Checkpoint),
            Command::OpenExperiment => self.ask(OpenFor::Experiment),
            Command::SaveExperiment => self.ask(OpenFor::SaveExperiment),
            Command::Evaluate => self.ask(OpenFor::Evaluate),
            Command::CancelEvaluation => self.cancel_evaluation(),
            Command::OpenImage => self.ask(OpenFor::Image),
            Command::AddToComparison => self.ask(OpenFor::Compare),
            Command::PasteImage => context.send_viewport_cmd(egui::ViewportCommand::RequestPaste),
            Command::CopyAsCommand => {
                context.copy_text(self.form.command_line());
                self.tell(Level::Info, "The command line is on the clipboard.".into());
            }
            Command::Undo => self.form.undo(),
            Command::Redo => self.form.redo(),
            Command::Show(kind) => self.reveal(kind),
            Command::ResetLayout => {
                self.welcomed = true;
                self.layout.reset();
                self.layout.hide(&self.settings.hidden);
            }
            Command::Palette => self.palette.toggle(),
            Command::Help => self.reveal(PanelKind::Learn),
            Command::FullScreen => {
                let full = context.input(|input| input.viewport().fullscreen.unwrap_or(false));
                context.send_viewport_cmd(egui::ViewportCommand::Fullscreen(!full));
            }
            Command::ZoomIn => self.zoom(context, 1.1),
            Command::ZoomOut => self.zoom(context, 1.0 / 1.1),
            Command::ZoomReset => self.zoom(context, 1.0 / self.settings.zoom),
            Command::ThemeLight => self.set_theme(context, Theme::Light),
            Command::ThemeDark => self.set_theme(context, Theme::Dark),
            Command::ThemeSystem => self.set_theme(context, Theme::System),
            Command::Quit => context.send_viewport_cmd(egui::ViewportCommand::Close),
        }
    }

    pub(super) fn zoom(&mut self, context: &egui::Context, factor: f32) {
        self.settings.zoom = (self.settings.zoom * factor).clamp(0.5, 4.0);
        context.set_zoom_factor(self.settings.zoom);
    }

    pub(super) fn set_theme(&mut self, context: &egui::Context, theme: Theme) {
        self.settings.theme = theme;
        self.apply_theme(context);
    }

    pub(super) fn apply_theme(&self, context: &egui::Context) {
        context.set_theme(match self.settings.theme {
            Theme::System => egui::ThemePreference::System,
            Theme::Light => egui::ThemePreference::Light,
            Theme::Dark => egui::ThemePreference::Dark,
        });
    }

    /// Starts the form's experiment in a new directory.
    pub(super) fn begin(&mut self, paused: bool) {
        let (runs, name) = (&self.surroundings.runs, self.form.run_name());
        // The worker reports why a directory cannot be claimed.
        let directory = RunDir::claim_free(runs, &name)
            .unwrap_or_else(|_| RunDir::at(crate::worker::session::free_directory(runs, &name)));
        let experiment = Box::new(self.form.experiment.clone());
        let derived = self.form.derived(self.panels.experiment.on_disk(&experiment)).map(Box::new);
        for line in derived.iter().flat_map(|derived| derived.lines()) {
            let warns = derived.as_ref().is_some_and(|derived| derived.is_warning());
            self.view.say(Instant::now(), if warns { Level::Warning } else { Level::Info }, line);
        }
        self.send(Request::Begin { experiment, directory, derived, paused });
        self.view.status = Status::Opening;
    }

    /// Runs at a speed from now on, in this run and in later ones.
    pub(super) fn go(&mut self, speed: Speed) {
        self.speed = speed;
        self.send(Request::Speed(speed));
    }

    /// Starts the experiment of the finished run with PGD-AT instead of its method.
    pub(super) fn train_baseline(&mut self) {
        let Some(mut experiment) = self.view.experiment.as_deref().cloned() else { return };
        if self.view.status.is_live() {
            return self.tell(Level::Warning, "A run is under way; stop it first.".into());
        }
        experiment.fairness.method = MethodChoice::At;
        experiment.model.init = None;
        self.form.load(experiment);
        self.begin(false);
    }
}
