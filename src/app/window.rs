//! The application: panels, worker, and the communication between them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use egui::Ui;

use super::bars;
use super::closing::{Closing, Ending};
use super::command::{Command, SpeedChoice};
use super::context::{Action, Context, OpenFor};
use super::dialogs::{Chosen, Dialogs, Purpose};
use super::evaluation::EvaluationView;
use super::export::Exporter;
use super::focus::{self, Focus};
use super::fonts;
use super::form::Form;
use super::frame_times::FrameTimes;
use super::glossary::Glossary;
use super::layout::{Layout, PanelKind};
use super::lessons::{self, Before};
use super::level::Level;
use super::palette::CommandPalette;
use super::panels::{self, Panels};
use super::paths::TypedPath;
use super::runs::holds_study;
use super::settings::{Settings, Theme};
use super::storage::StoredSettings;
use super::theme;
use super::toasts::Toasts;
use super::view::{RunView, Status};
use super::welcome::Welcome;
use crate::data::DataError;
use crate::evaluate::figures::SystemFonts;
use crate::evaluate::signatures;
use crate::train::RunDir;
use crate::worker::evaluation::Evaluator;
use crate::worker::{COUNTING, ExamplesWish, INSPECTING, MAPPING, Request, Speed, Update, Worker};

/// Title of a window without a run.
pub(super) const TITLE: &str = "fairtat";

/// Minimum interval between frames that only updates of the run request.
const UPDATE_INTERVAL: Duration = Duration::from_millis(40);
/// The same if a software adapter draws the window: a frame takes it about a tenth of a second on all cores.
const SOFTWARE_UPDATE_INTERVAL: Duration = Duration::from_millis(600);

/// Storage locations and file dialogs of the window.
pub struct Surroundings {
    /// Directory of new runs.
    pub runs: PathBuf,
    /// File for settings and layout; `None` disables it.
    pub state: Option<PathBuf>,
    /// File dialogs.
    pub dialogs: Box<dyn Dialogs>,
    /// Ends the window from outside.
    pub ending: Ending,
}

/// The window.
pub struct App {
    pub(super) view: RunView,
    pub(super) evaluation: EvaluationView,
    pub(super) focus: Focus,
    pub(super) form: Form,
    pub(super) settings: Settings,
    pub(super) layout: Layout,
    pub(super) panels: Panels,
    pub(super) frame_times: FrameTimes,
    pub(super) closing: Closing,
    pub(super) speed: Speed,
    glossary: Glossary,
    palette: CommandPalette,
    toasts: Toasts,
    typed: TypedPath,
    welcome: Welcome,
    /// Whether the panels have taken the place of the welcome.
    welcomed: bool,
    exporter: Exporter,
    actions: Vec<Action>,
    /// Panels drawn in the last frame.
    seen: Vec<PanelKind>,
    surroundings: Surroundings,
    pub(super) evaluator: Option<Evaluator>,
    update_interval: Arc<AtomicU64>,
    before_lesson: Option<Before>,
    /// Failure signatures of this run that the user has been told about.
    announced: Vec<signatures::Kind>,
    window_size: Option<[f32; 2]>,
    /// The title of the window.
    title: String,
    stored: Option<(Instant, String)>,
}

impl App {
    /// An application in `context` with the stored state.
    pub fn new(context: &egui::Context, surroundings: Surroundings) -> Self {
        theme::install(context);
        fonts::install(context, SystemFonts::installed);
        context.options_mut(|options| options.zoom_with_keyboard = false);
        let stored = surroundings.state.as_deref().map(StoredSettings::load).unwrap_or_default();
        let mut form = Form::default();
        if let Ok(experiment) = crate::config::Experiment::from_toml(&stored.experiment, "the last window")
            && !stored.experiment.is_empty()
        {
            form = Form::restored(experiment, &stored.preset, stored.made_for);
        }
        let update_interval = Arc::new(AtomicU64::new(UPDATE_INTERVAL.as_millis() as u64));
        let wake = {
            let (context, every) = (context.clone(), Arc::clone(&update_interval));
            // Soon, but not once for each of a thousand batches per second.
            move || context.request_repaint_after(Duration::from_millis(every.load(Ordering::Relaxed)))
        };
        let evaluator = Evaluator::spawn(wake.clone()).ok();
        surroundings.ending.watch(context);
        let failure = match Worker::spawn(wake) {
            Ok(worker) => {
                surroundings.ending.put(worker);
                None
            }
            Err(error) => Some(format!("The thread for training could not be started: {error}. Close other programs.")),
        };
        let mut app = Self {
            view: RunView::default(),
            evaluation: EvaluationView::default(),
            focus: Focus::default(),
            form,
            layout: stored.layout.unwrap_or_default(),
            settings: stored.settings,
            panels: Panels::default(),
            frame_times: FrameTimes::default(),
            closing: Closing::default(),
            speed: Speed::Full,
            glossary: Glossary::default(),
            palette: CommandPalette::default(),
            toasts: Toasts::default(),
            typed: TypedPath::default(),
            welcome: Welcome::default(),
            welcomed: false,
            exporter: Exporter::new(context.clone()),
            actions: Vec::new(),
            seen: Vec::new(),
            surroundings,
            evaluator,
            update_interval,
            before_lesson: None,
            announced: Vec::new(),
            window_size: stored.size,
            title: TITLE.to_owned(),
            stored: None,
        };
        app.apply_theme(context);
        context.set_zoom_factor(app.settings.zoom.clamp(0.5, 4.0));
        app.layout.hide(&app.settings.hidden);
        if let Some(text) = failure {
            app.tell(Level::Error, text);
        }
        app
    }

    /// The window is drawn by the CPU, which training needs too: frames for updates alone become rare. User input is
    /// still handled at once.
    pub(super) fn spare_the_cpu(&self) {
        self.update_interval.store(SOFTWARE_UPDATE_INTERVAL.as_millis() as u64, Ordering::Relaxed);
    }

    /// Opens a file, directory or lesson at the start.
    pub(super) fn start_with(&mut self, options: super::launch::LaunchOptions) {
        if let Some(path) = options.open {
            self.open_any(&path);
        }
        if let Some(lesson) = options.lesson {
            self.queue(Action::Lesson(lesson));
        }
    }

    /// One frame.
    pub fn show(&mut self, ui: &mut Ui) {
        let began = Instant::now();
        let context = ui.ctx().clone();
        focus::begin_frame(&context);
        self.receive(&context);
        self.dropped(&context);
        self.shortcuts(&context);
        bars::top(self, ui);
        bars::bottom(self, ui);
        bars::scrubber(self, ui);
        let ground = egui::Frame::new().fill(ui.visuals().panel_fill);
        egui::CentralPanel::default().frame(ground).show(ui, |ui| {
            if self.is_empty() {
                let asked = self.welcome.ui(ui, &self.surroundings.runs);
                self.actions.extend(asked);
            } else {
                self.tiles(ui);
            }
        });
        let mut palette = std::mem::take(&mut self.palette);
        let chosen = palette.ui(&context, &self.glossary, |command| self.enabled(command));
        self.palette = palette;
        self.actions.extend(chosen);
        if let Some((purpose, path)) = self.typed.ui(&context) {
            self.chosen(purpose, path);
        }
        let waiting = self.surroundings.dialogs.waiting().map(|(purpose, since)| (purpose.clone(), since));
        if let Some((purpose, since)) = waiting
            && !self.typed.is_open()
            && super::paths::offer(&context, since)
        {
            self.surroundings.dialogs.give_up();
            self.type_path(purpose);
        }
        self.toasts.ui(&context, began);
        self.closing_ui(&context);
        for action in std::mem::take(&mut self.actions) {
            self.act(action, &context);
        }
        self.name(&context);
        self.remember(&context);
        focus::end_frame(&context);
        self.frame_times.add(began.elapsed());
    }

    /// Handles everything that arrived since the last frame.
    fn receive(&mut self, context: &egui::Context) {
        let now = Instant::now();
        for update in self.surroundings.ending.worker(Worker::updates).unwrap_or_default() {
            match &update {
                Update::Warning(text) => self.toasts.add(now, Level::Warning, text.clone()),
                // The inspector displays its own failures.
                Update::Failed(failure) if [INSPECTING, MAPPING, COUNTING].contains(&failure.doing.as_str()) => {}
                Update::Failed(failure) => self.toasts.add(now, Level::Error, format!("{failure}")),
                Update::Opened(info) => {
                    self.settings.last_run = info.directory.clone().or(self.settings.last_run.take());
                    if self.speed != Speed::Full {
                        self.send(Request::Speed(self.speed));
                    }
                }
                _ => {}
            }
            let (opened, epoch) = (matches!(update, Update::Opened(_)), matches!(update, Update::Epoch(_)));
            self.view.apply(update, now);
            if opened {
                self.focus = Focus::opened(&self.view);
                // Do not announce signatures that a resumed run had before.
                self.announced = panels::watch::present(&self.view).iter().map(|signature| signature.kind).collect();
            }
            if epoch {
                self.announce();
            }
        }
        self.receive_evaluation(now);
        while let Some(answer) = self.surroundings.dialogs.poll() {
            match answer {
                Chosen::Path(purpose, path) => self.chosen(purpose, path),
                Chosen::Cancelled => {}
                Chosen::Unavailable(purpose) => self.type_path(purpose),
            }
        }
        match self.panels.experiment.downloaded() {
            Some((name, Ok(()))) => self.tell(Level::Info, format!("{name} is downloaded and verified.")),
            Some((name, Err(DataError::Stopped(_)))) => {
                self.tell(Level::Info, format!("The download of {name} is cancelled; it can go on later."));
            }
            Some((name, Err(error))) => self.tell(Level::Error, format!("{name} was not downloaded: {error}")),
            None => {}
        }
        for (level, text) in self.exporter.done() {
            self.tell(level, text);
        }
        if let Some(image) = context.input(|input| {
            input.events.iter().find_map(|event| match event {
                egui::Event::PasteImage(image) => Some(image.clone()),
                _ => None,
            })
        }) {
            self.open_pixels("pasted image", &image);
        }
    }

    /// Opens the files that were dropped onto the window.
    fn dropped(&mut self, context: &egui::Context) {
        for file in context.input(|input| input.raw.dropped_files.clone()) {
            self.open_any(file.path());
        }
    }

    /// Opens a file or directory according to its type.
    pub(super) fn open_any(&mut self, path: &Path) {
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

    fn shortcuts(&mut self, context: &egui::Context) {
        if self.palette.is_open() || self.closing.is_asking() || self.typed.is_open() {
            return;
        }
        // A key without modifiers belongs to the focused widget, and every key to a text field.
        let (focused, typing) =
            (context.memory(|memory| memory.focused().is_some()), context.egui_wants_keyboard_input());
        for (command, keys) in Command::shortcuts() {
            let plain = keys.modifiers.is_none() && !matches!(keys.logical_key, egui::Key::F1 | egui::Key::F11);
            let edits = matches!(command, Command::Undo | Command::Redo | Command::PasteImage);
            if (plain && focused) || (edits && typing) {
                continue;
            }
            if context.input_mut(|input| input.consume_shortcut(&keys)) {
                self.actions.push(Action::Command(command));
            }
        }
    }

    /// Whether there is nothing to show yet, and no panel has been asked for.
    fn is_empty(&self) -> bool {
        let nothing = self.view.status == Status::Empty && self.view.info.is_none();
        nothing && !self.welcomed && self.settings.lesson.is_none()
    }

    /// Brings a panel to the front.
    fn reveal(&mut self, kind: PanelKind) {
        self.welcomed = true;
        self.layout.show(kind);
    }

    fn tiles(&mut self, ui: &mut Ui) {
        let Self { layout, view, evaluation, focus, form, settings, glossary, actions, panels, seen, .. } = self;
        let mut context = Context { run: view, evaluation, focus, form, settings, glossary, actions };
        let hidden = context.settings.hidden.clone();
        let mut now = Vec::new();
        layout.ui(ui, &hidden, &mut |kind, ui| {
            now.push(kind);
            panels.of(kind).ui(ui, &mut context);
        });
        for gone in seen.iter().filter(|kind| !now.contains(kind)) {
            panels.hidden(*gone, &mut context);
        }
        *seen = now;
    }

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
            Command::ResumeThis if self.view.resumable.is_none() => Err("No run is shown that was stopped."),
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

    fn zoom(&mut self, context: &egui::Context, factor: f32) {
        self.settings.zoom = (self.settings.zoom * factor).clamp(0.5, 4.0);
        context.set_zoom_factor(self.settings.zoom);
    }

    fn set_theme(&mut self, context: &egui::Context, theme: Theme) {
        self.settings.theme = theme;
        self.apply_theme(context);
    }

    fn apply_theme(&self, context: &egui::Context) {
        context.set_theme(match self.settings.theme {
            Theme::System => egui::ThemePreference::System,
            Theme::Light => egui::ThemePreference::Light,
            Theme::Dark => egui::ThemePreference::Dark,
        });
    }

    /// Starts the form's experiment in a new directory.
    fn begin(&mut self, paused: bool) {
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
    fn go(&mut self, speed: Speed) {
        self.speed = speed;
        self.send(Request::Speed(speed));
    }

    /// Starts the experiment of the finished run with PGD-AT instead of its method.
    fn train_baseline(&mut self) {
        let Some(mut experiment) = self.view.experiment.as_deref().cloned() else { return };
        if self.view.status.is_live() {
            return self.tell(Level::Warning, "A run is under way; stop it first.".into());
        }
        experiment.fairness.method = crate::config::MethodChoice::At;
        experiment.model.init = None;
        self.form.load(experiment);
        self.begin(false);
    }

    fn ask(&mut self, purpose: OpenFor) {
        self.surroundings.dialogs.ask(Purpose::Open(purpose));
    }

    /// Asks the user to type a path, starting from the most likely one.
    fn type_path(&mut self, purpose: Purpose) {
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

    /// Sends a request to the worker.
    pub(super) fn send(&mut self, request: Request) {
        let sent = self.surroundings.ending.worker(|worker| worker.send(request));
        if let Some(Err(busy)) = sent {
            self.tell(Level::Warning, busy.to_string());
        }
    }

    /// Shows the user a transient message and adds it to the log.
    pub(super) fn tell(&mut self, level: Level, text: String) {
        let now = Instant::now();
        self.toasts.add(now, level, text.clone());
        self.view.say(now, level, text);
    }

    /// Queues an action for after this frame.
    pub(super) fn queue(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn act(&mut self, action: Action, context: &egui::Context) {
        match action {
            Action::Worker(request) => self.send(request),
            Action::Command(command) => self.run(command, context),
            Action::LookAtEvaluation(job) => self.look_at_evaluation(*job),
            Action::StartEvaluation(job) => self.start_evaluation(*job),
            Action::TrainBaseline => self.train_baseline(),
            Action::Show(kind) => self.reveal(kind),
            Action::Inspect(subject) => {
                self.panels.inspector.open(subject);
                self.reveal(PanelKind::Inspector);
            }
            Action::ShowCell(cell) => {
                self.panels.examples.show_cell(cell);
                self.reveal(PanelKind::Examples);
            }
            Action::WatchItTrain => match self.form.load_preset(super::welcome::FIRST_PRESET) {
                Ok(()) => {
                    self.reveal(PanelKind::Story);
                    self.run(Command::Start, context);
                }
                Err(error) => self.tell(Level::Error, error.to_string()),
            },
            Action::Download(name) => self.panels.experiment.download(context, &name),
            Action::CancelDownload => self.panels.experiment.cancel_download(),
            Action::FindSetting(path) => {
                self.panels.experiment.find(path);
                self.reveal(PanelKind::Experiment);
            }
            Action::FindTerm(key) => {
                self.panels.learn.find(&key);
                self.reveal(PanelKind::Learn);
            }
            Action::Lesson(id) => self.begin_lesson(&id),
            Action::LeaveLesson => self.leave_lesson(),
            Action::ClearRun => {
                self.view.clear();
                if self.view.info.is_none() {
                    self.panels.forget_run();
                }
            }
            Action::Toast(level, text) => self.tell(level, text),
            Action::OpenPath(path) => context.open_url(egui::OpenUrl::new_tab(super::evaluation::file_url(&path))),
            Action::CopyText(text) => {
                context.copy_text(text);
                self.toasts.add(Instant::now(), Level::Info, "Copied.".into());
            }
            Action::Export(export, format) => {
                if let Some((name, bytes)) = self.exporter.begin(export, format) {
                    self.surroundings.dialogs.ask(Purpose::Save { name, bytes });
                }
            }
            Action::Open(purpose) => self.ask(purpose),
            Action::Opened(purpose, path) => self.chosen(Purpose::Open(purpose), path),
            Action::PasteImage => context.send_viewport_cmd(egui::ViewportCommand::RequestPaste),
        }
    }

    /// Uses a chosen path.
    fn chosen(&mut self, purpose: Purpose, path: PathBuf) {
        let shown = path.display().to_string();
        match purpose {
            Purpose::Save { bytes, .. } => self.exporter.write(path, bytes),
            Purpose::Open(OpenFor::Experiment) => match self.load_experiment(&path) {
                Ok(()) => self.tell(Level::Info, format!("Read {shown}.")),
                Err(error) => self.tell(Level::Error, format!("{error}")),
            },
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
            Purpose::Open(OpenFor::Image) => self.open_image(&path),
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

    fn load_experiment(&mut self, path: &Path) -> Result<(), crate::config::ConfigError> {
        let shown = path.display().to_string();
        let text = crate::files::read_to_string(path)?;
        self.form.load_toml(&text, &shown)
    }

    fn open_image(&mut self, path: &Path) {
        let Some(shape) = self.view.info.as_ref().map(|info| info.shape()) else {
            let text = "Inspecting an image needs a network: start a run or open a checkpoint first.";
            return self.tell(Level::Warning, text.into());
        };
        match super::pictures::subject_from_file(path, shape) {
            Ok(subject) => self.queue(Action::Inspect(subject)),
            Err(error) => self.tell(Level::Error, error.to_string()),
        }
    }

    fn open_pixels(&mut self, name: &str, image: &egui::ColorImage) {
        let Some(shape) = self.view.info.as_ref().map(|info| info.shape()) else {
            let text = "Inspecting an image needs a network: start a run or open a checkpoint first.";
            return self.tell(Level::Warning, text.into());
        };
        let bytes: Vec<u8> = image.pixels.iter().flat_map(|pixel| pixel.to_srgba_unmultiplied()).collect();
        match super::pictures::subject_from_rgba(name, image.width(), image.height(), &bytes, shape) {
            Ok(subject) => self.queue(Action::Inspect(subject)),
            Err(error) => self.tell(Level::Error, error.to_string()),
        }
    }

    /// Sets up the window for a lesson.
    fn begin_lesson(&mut self, id: &str) {
        let Some(lesson) = lessons::find(id) else {
            return self.tell(Level::Error, format!("There is no lesson '{id}'."));
        };
        match lesson.begin(&mut self.settings, &mut self.form) {
            Ok(before) => {
                // When one lesson follows another, the state from before the first is restored in the end.
                self.before_lesson.get_or_insert(before);
                self.view.before_lesson = self.view.info.is_some();
                self.layout.begin_lesson();
                self.layout.hide(&self.settings.hidden);
                self.reveal(PanelKind::Learn);
                self.reveal(lesson.focus);
            }
            Err(error) => self.tell(Level::Error, error.to_string()),
        }
    }

    fn leave_lesson(&mut self) {
        self.view.before_lesson = false;
        match self.before_lesson.take() {
            Some(before) => before.restore(&mut self.settings, &mut self.form),
            None => lessons::leave(&mut self.settings),
        }
        self.layout.end_lesson();
        self.layout.hide(&self.settings.hidden);
        self.reveal(PanelKind::Learn);
    }

    /// Tells the user when a failure signature appears.
    fn announce(&mut self) {
        for signature in panels::watch::present(&self.view) {
            if !self.announced.contains(&signature.kind) {
                self.announced.push(signature.kind);
                let text = format!("{}. See the panel Failure watch.", signature.kind.title());
                self.tell(Level::Warning, text);
            }
        }
    }

    /// Names the run in the title bar.
    fn name(&mut self, context: &egui::Context) {
        let title = self.view.title().map_or_else(|| TITLE.to_owned(), |run| format!("{run} – {TITLE}"));
        if title != self.title {
            self.title.clone_from(&title);
            context.send_viewport_cmd(egui::ViewportCommand::Title(title));
        }
    }

    /// Saves the state, at most every few seconds and only if it has changed.
    fn remember(&mut self, context: &egui::Context) {
        if let Some(rect) = context.input(|input| input.viewport().inner_rect) {
            let size = rect.size() * self.settings.zoom;
            self.window_size = Some([size.x, size.y]);
        }
        let due = self.stored.as_ref().is_none_or(|(at, _)| at.elapsed() > Duration::from_secs(5));
        if due {
            self.store();
        }
    }

    /// Writes settings and layout if they have changed.
    pub(super) fn store(&mut self) {
        let Some(path) = self.surroundings.state.clone() else { return };
        let stored = StoredSettings::new(self.settings.clone(), self.layout.clone(), &self.form, self.window_size);
        let text = format!("{stored:?}");
        if self.stored.as_ref().is_some_and(|(_, old)| *old == text) {
            self.stored = Some((Instant::now(), text));
            return;
        }
        let first_failure = self.stored.is_none();
        self.stored = Some((Instant::now(), text));
        if let Err(error) = stored.save(&path)
            && first_failure
        {
            self.tell(Level::Warning, format!("{error}; the settings are not saved."));
        }
    }

    /// Whether the window is being ended from outside.
    pub(super) fn is_ended(&self) -> bool {
        self.surroundings.ending.is_asked()
    }

    /// Shuts down the worker: saves a run that is under way and waits for it.
    pub(super) fn finish(&mut self) {
        self.store();
        self.cancel_evaluation();
        self.panels.experiment.cancel_download();
        self.surroundings.ending.stop();
        self.evaluator = None;
    }
}
