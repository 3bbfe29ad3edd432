//! An automatic tour through the panels during a run: pictures of each panel, and how quickly the window responds.
//!
//! The pictures of the README and the measurements of the window are made with it, on any machine.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::command::Command;
use super::context::Action;
use super::frame_times::FrameTimes;
use super::layout::PanelKind;
use super::level::Level;
use super::window::App;
use crate::files::write_atomic;

/// How long a panel is shown before its picture is taken, and the window afterwards: answers must arrive, files must be
/// written.
const SETTLE: Duration = Duration::from_millis(2500);
/// Interval between checks of whether the window responds.
const PING: Duration = Duration::from_millis(1000);

/// Options of a tour.
#[derive(Debug, Clone)]
pub struct TourOptions {
    /// Output directory of the pictures and `window.json`.
    pub directory: PathBuf,
    /// Number of epochs to wait for before the first picture.
    pub epochs: usize,
}

/// The response times of the window: `window.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Answers {
    /// From the start of the program to the end of the first frame.
    first_frame_ms: f64,
    /// Number of frames measured: all but the first few.
    frames: usize,
    /// Time to build a frame, median.
    frame_p50_ms: f64,
    /// Time to build a frame, 99th percentile.
    frame_p99_ms: f64,
    /// From an event to the end of the frame that handles it, median.
    answer_p50_ms: f64,
    /// From an event to the end of the frame that handles it, 99th percentile.
    answer_p99_ms: f64,
    /// The slowest response.
    answer_max_ms: f64,
    /// Number of events measured.
    answers: usize,
    /// Engine of the run during the tour.
    engine: String,
    /// Size of the window in pixels.
    pixels: [u32; 2],
}

enum Stop {
    Start,
    Epochs,
    Panel(usize, Instant),
    /// The picture of this panel has been requested.
    Picture(usize),
    Leaving(Instant),
    Done,
}

/// Requests a repaint, as a system event would, and records the time.
struct Ping {
    since: Instant,
    /// Time of the pending request in nanoseconds after `since`; 0 if none is pending.
    asked: AtomicU64,
    over: AtomicBool,
}

/// See the [module](self).
pub(super) struct Tour {
    options: TourOptions,
    stop: Stop,
    began: Instant,
    first_frame: Option<Duration>,
    answers: FrameTimes,
    /// Number of upcoming frames that reading back a picture slows down.
    reading_back: u32,
    ping: Arc<Ping>,
    /// Whether the last requested picture has been read back.
    taken: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
}

impl Tour {
    pub(super) fn new(options: TourOptions, began: Instant, context: &egui::Context) -> std::io::Result<Self> {
        std::fs::create_dir_all(&options.directory)?;
        let ping = Arc::new(Ping { since: Instant::now(), asked: AtomicU64::new(0), over: AtomicBool::new(false) });
        let (theirs, context) = (Arc::clone(&ping), context.clone());
        std::thread::Builder::new().name("ping".into()).spawn(move || {
            while !theirs.over.load(Ordering::Relaxed) {
                std::thread::sleep(PING);
                let now = theirs.since.elapsed().as_nanos() as u64;
                let free = theirs.asked.compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
                if free.is_ok() {
                    context.request_repaint();
                }
            }
        })?;
        let (first_frame, answers, reading_back, taken, failure) = Default::default();
        Ok(Self { options, stop: Stop::Start, began, first_frame, answers, reading_back, ping, taken, failure })
    }

    /// Called at the end of every frame.
    pub(super) fn frame(&mut self, app: &mut App, context: &egui::Context) {
        self.first_frame.get_or_insert_with(|| self.began.elapsed());
        let asked = self.ping.asked.swap(0, Ordering::SeqCst);
        // The tour itself causes the read-back of a picture; that must not count as response time.
        self.reading_back = self.reading_back.saturating_sub(1);
        if asked > 0 && self.reading_back == 0 {
            let now = self.ping.since.elapsed();
            self.answers.add(now.saturating_sub(Duration::from_nanos(asked)));
        }
        if let Some(what) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            app.tell(Level::Error, what);
        }
        match self.stop {
            Stop::Start => {
                app.queue(Action::Command(Command::Start));
                self.stop = Stop::Epochs;
            }
            Stop::Epochs if app.view.epochs.len() >= self.options.epochs || app.view.failure.is_some() => {
                self.visit(0, app);
            }
            Stop::Panel(index, since) if since.elapsed() > SETTLE => {
                self.taken.store(false, Ordering::SeqCst);
                self.picture(PanelKind::ALL[index], context);
                self.stop = Stop::Picture(index);
            }
            Stop::Picture(index) if self.taken.load(Ordering::SeqCst) => {
                if index + 1 < PanelKind::ALL.len() {
                    self.visit(index + 1, app);
                } else {
                    self.stop = Stop::Leaving(Instant::now());
                }
            }
            Stop::Leaving(since) if since.elapsed() > SETTLE => {
                self.write(app, context);
                self.stop = Stop::Done;
                self.ping.over.store(true, Ordering::Relaxed);
                app.closing = super::closing::Closing::Yes;
                context.send_viewport_cmd(egui::ViewportCommand::Close);
            }
            Stop::Epochs | Stop::Panel(..) | Stop::Picture(_) | Stop::Leaving(_) | Stop::Done => {}
        }
        context.request_repaint_after(Duration::from_millis(500));
    }

    fn visit(&mut self, index: usize, app: &mut App) {
        let kind = PanelKind::ALL[index];
        app.layout.show(kind);
        if kind == PanelKind::Inspector
            && let Some(info) = &app.view.info
            && let Some(subject) = super::pictures::subject_from_set("test", &info.test, 3)
        {
            app.queue(Action::Inspect(subject));
        }
        self.stop = Stop::Panel(index, Instant::now());
    }

    fn picture(&mut self, kind: PanelKind, context: &egui::Context) {
        let name = kind.title().to_lowercase().replace(' ', "-");
        let path = self.options.directory.join(format!("{name}.png"));
        let (failure, taken) = (Arc::clone(&self.failure), Arc::clone(&self.taken));
        let callback = egui::ScreenshotCallback::new(move |image: Arc<egui::ColorImage>| {
            taken.store(true, Ordering::SeqCst);
            // Encoding a PNG takes longer than a frame.
            std::thread::spawn(move || {
                if let Err(error) = save(&image, &path) {
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                }
            });
        });
        context.send_viewport_cmd(egui::ViewportCommand::Screenshot(callback));
        self.reading_back = 4;
    }

    fn write(&self, app: &mut App, context: &egui::Context) {
        let ms = |time: Option<Duration>| time.map_or(0.0, |time| (1e4 * time.as_secs_f64()).round() / 10.0);
        let pixels = context.content_rect().size() * context.pixels_per_point();
        let answers = Answers {
            first_frame_ms: ms(self.first_frame),
            frames: app.frame_times.len(),
            frame_p50_ms: ms(app.frame_times.quantile(0.5)),
            frame_p99_ms: ms(app.frame_times.quantile(0.99)),
            answer_p50_ms: ms(self.answers.quantile(0.5)),
            answer_p99_ms: ms(self.answers.quantile(0.99)),
            answer_max_ms: ms(self.answers.quantile(1.0)),
            answers: self.answers.len(),
            engine: app.view.info.as_ref().map_or_else(String::new, |info| info.engine.clone()),
            pixels: [pixels.x as u32, pixels.y as u32],
        };
        let text = serde_json::to_string_pretty(&answers).unwrap_or_default();
        let path = self.options.directory.join("window.json");
        if let Err(error) = write_atomic(&path, format!("{text}\n").as_bytes()) {
            app.tell(Level::Error, error.to_string());
        }
        let _ = crate::console::print(&format!("{text}\n"));
    }
}

fn save(image: &egui::ColorImage, path: &Path) -> Result<(), String> {
    let (width, height) = (image.width() as u32, image.height() as u32);
    let bytes: Vec<u8> = image.pixels.iter().flat_map(|pixel| [pixel.r(), pixel.g(), pixel.b()]).collect();
    let picture = image::RgbImage::from_raw(width, height, bytes).ok_or("a picture of the wrong size")?;
    picture.save(path).map_err(|error| format!("{}: {error}", path.display()))
}
