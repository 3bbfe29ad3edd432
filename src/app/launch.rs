//! Opening the window.

use std::path::PathBuf;
use std::time::Instant;

use super::dialogs::SystemDialogs;
use super::storage::Stored;
use super::tour::{Tour, TourOptions};
use super::window::{App, Surroundings};

/// Why there is no window.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Nothing to show a window on.
    #[error("no display, so no window")]
    NoDisplay,
    /// The system refused.
    #[error("the window could not be opened: {0}")]
    Refused(String),
}

/// What the window is opened with.
#[derive(Debug, Clone, Default)]
pub struct LaunchOptions {
    /// Run or checkpoint or experiment to begin with.
    pub open: Option<PathBuf>,
    /// Lesson to begin with.
    pub lesson: Option<String>,
    /// Width and height in points, instead of the last ones.
    pub size: Option<[f32; 2]>,
    /// Show everything by itself, and close.
    pub tour: Option<TourOptions>,
}

/// Whether a window has something to be shown on.
pub fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(all(unix, not(target_os = "macos"))) || set("WAYLAND_DISPLAY") || set("WAYLAND_SOCKET") || set("DISPLAY")
}

/// Opens the window and stays until it is closed.
///
/// # Errors
/// [`LaunchError`]; nothing has been shown then.
pub fn run(options: LaunchOptions) -> Result<(), LaunchError> {
    if !has_display() {
        return Err(LaunchError::NoDisplay);
    }
    let began = Instant::now();
    let state = Stored::place();
    let last = state.as_deref().map(Stored::load).and_then(|stored| stored.size);
    let size = options.size.or(last).unwrap_or([1280.0, 820.0]);
    let native = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title("fairtat")
            .with_app_id("fairtat")
            .with_inner_size(size)
            .with_min_inner_size([480.0, 320.0])
            .with_drag_and_drop(true),
        ..Default::default()
    };
    eframe::run_native(
        "fairtat",
        native,
        Box::new(move |creation| {
            let context = &creation.egui_ctx;
            let dialogs = Box::new(SystemDialogs::new(context.clone()));
            let mut app = App::new(context, Surroundings { runs: runs(), state, dialogs });
            let drawn_by = creation.wgpu_render_state.as_ref().map(|state| state.adapter.get_info().device_type);
            if drawn_by == Some(wgpu::DeviceType::Cpu) {
                app.spare_the_cpu();
            }
            let tour = options.tour.clone().map(|tour| Tour::new(tour, began, context)).transpose()?;
            app.start_with(options);
            Ok(Box::new(Window { app, tour }))
        }),
    )
    .map_err(|error| LaunchError::Refused(error.to_string()))
}

/// Directory of new runs: `runs` here if that can be written, else in the user's own data.
fn runs() -> PathBuf {
    let here = PathBuf::from("runs");
    let probe = std::env::current_dir().and_then(|here| tempfile_in(&here));
    if here.is_dir() || probe.is_ok() {
        return here;
    }
    directories::ProjectDirs::from("", "", "fairtat").map_or(here, |dirs| dirs.data_dir().join("runs"))
}

/// Tries to write into a directory.
fn tempfile_in(directory: &std::path::Path) -> std::io::Result<()> {
    let probe = directory.join(format!(".fairtat-{}", std::process::id()));
    std::fs::write(&probe, [])?;
    std::fs::remove_file(&probe)
}

struct Window {
    app: App,
    tour: Option<Tour>,
}

impl eframe::App for Window {
    fn ui(&mut self, ui: &mut egui::Ui, _frame: &mut eframe::Frame) {
        self.app.show(ui);
        if let Some(tour) = &mut self.tour {
            tour.frame(&mut self.app, ui.ctx());
        }
    }

    fn on_exit(&mut self) {
        self.app.finish();
    }
}
