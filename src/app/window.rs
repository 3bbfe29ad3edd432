//! The application: panels, worker, and the communication between them.

mod commands;
mod opening;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use egui::Ui;

use super::bars;
use super::closing::{Closing, Ending};
use super::command::Command;
use super::context::{Action, Context};
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
use super::reading::Reading;
use super::settings::Settings;
use super::storage::StoredSettings;
use super::theme;
use super::toasts::Toasts;
use super::view::{RunView, Status};
use super::welcome::Welcome;
use crate::data::DataError;
use crate::evaluate::figures::SystemFonts;
use crate::evaluate::signatures;
use crate::worker::evaluation::Evaluator;
use crate::worker::{COUNTING, INSPECTING, MAPPING, Request, Speed, Update, Worker};

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
    reading: Reading,
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
        let mut form = Form::with_preset(super::welcome::FIRST_PRESET);
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
            reading: Reading::new(context.clone()),
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
        if let Some(panel) = self.toasts.ui(&context, began) {
            self.queue(Action::Show(panel));
        }
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
        for read in self.reading.done() {
            self.use_read(read);
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
                    self.send(Request::Seek(None));
                    self.send(Request::Cell(None));
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
                let (now, text) = (Instant::now(), format!("{}.", signature.kind.title()));
                self.toasts.add_about(now, Level::Warning, text.clone(), PanelKind::Watch);
                self.view.say(now, Level::Warning, text);
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
