//! Opening the window.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Instant;

use resvg::{tiny_skia, usvg};

use super::closing::Ending;
use super::dialogs::SystemDialogs;
use super::message_window;
use super::storage::StoredSettings;
use super::tour::{Tour, TourOptions};
use super::window::{App, Surroundings, TITLE};

/// Why no window could be opened.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no display.
    #[error("the window cannot be opened: there is no display")]
    NoDisplay,
    /// The system refused to open a window.
    #[error(
        "the window could not be opened: {0}. It needs a graphics adapter with Vulkan, Metal or Direct3D 12, or a driver \
         that does without: the package mesa-vulkan-drivers on Debian and Ubuntu. `fairtat train` needs no window"
    )]
    Refused(String),
}

/// How to open the window.
#[derive(Debug, Clone, Default)]
pub struct LaunchOptions {
    /// Run, checkpoint or experiment to open.
    pub open: Option<PathBuf>,
    /// Lesson to open.
    pub lesson: Option<String>,
    /// Width and height in points, instead of the remembered size.
    pub size: Option<[f32; 2]>,
    /// Run the tour, then close.
    pub tour: Option<TourOptions>,
    /// Ends the window from outside.
    pub ending: Ending,
}

/// Whether there is a display.
pub fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    !cfg!(all(unix, not(target_os = "macos"))) || set("WAYLAND_DISPLAY") || set("WAYLAND_SOCKET") || set("DISPLAY")
}

/// Opens the window and blocks until it is closed. `opening` is called when it is about to open.
///
/// # Errors
/// [`LaunchError`]; no window has been shown then.
pub fn run(options: LaunchOptions, opening: impl FnOnce()) -> Result<(), LaunchError> {
    if !has_display() {
        return Err(LaunchError::NoDisplay);
    }
    opening();
    // A tour is run by a script, which nobody watches.
    let watched = options.tour.is_none();
    let began = Instant::now();
    let state = StoredSettings::place();
    let last = state.as_deref().map(StoredSettings::load).and_then(|stored| stored.size);
    let size = options.size.or(last).unwrap_or([1280.0, 820.0]);
    let native = eframe::NativeOptions {
        viewport: egui::ViewportBuilder::default()
            .with_title(TITLE)
            .with_app_id("fairtat")
            .with_icon(icon().unwrap_or_default())
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
            let mut app =
                App::new(context, Surroundings { runs: runs(), state, dialogs, ending: options.ending.clone() });
            let drawn_by = creation.wgpu_render_state.as_ref().map(|state| state.adapter.get_info().device_type);
            if drawn_by == Some(wgpu::DeviceType::Cpu) {
                app.spare_the_cpu();
            }
            let tour = options.tour.clone().map(|tour| Tour::new(tour, began, context)).transpose()?;
            app.start_with(options);
            Ok(Box::new(Window { app, tour }))
        }),
    )
    .map_err(|error| {
        let error = LaunchError::Refused(error.to_string());
        // Who starts the program from a menu does not see its standard error.
        if watched && !std::io::stderr().is_terminal() {
            message_window::show(TITLE, &capital(&error.to_string()));
        }
        error
    })
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).chain(['.']).collect())
}

/// Directory of new runs: `runs` in the current directory if that is writable, otherwise in the user's data directory.
fn runs() -> PathBuf {
    let here = PathBuf::from("runs");
    let probe = std::env::current_dir().and_then(|here| tempfile_in(&here));
    if here.is_dir() || probe.is_ok() {
        return here;
    }
    directories::ProjectDirs::from("", "", "fairtat").map_or(here, |dirs| dirs.data_dir().join("runs"))
}

/// The icon of the window where the desktop does not take it from `fairtat.desktop` (X11 without a package, Windows).
fn icon() -> Option<egui::IconData> {
    const SIZE: u32 = 128;
    let tree = usvg::Tree::from_str(include_str!("../../assets/icon.svg"), &usvg::Options::default()).ok()?;
    let mut pixmap = tiny_skia::Pixmap::new(SIZE, SIZE)?;
    let scale = SIZE as f32 / tree.size().width();
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixmap.as_mut());
    Some(egui::IconData { rgba: pixmap.take_demultiplied(), width: SIZE, height: SIZE })
}

/// Tests whether a directory is writable.
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
    fn raw_input_hook(&mut self, _: &egui::Context, input: &mut egui::RawInput) {
        // Wherever the pointer lies on a display that nobody looks at, no picture gets a tooltip.
        if self.tour.is_some() {
            for event in &mut input.events {
                if matches!(event, egui::Event::PointerMoved(_)) {
                    *event = egui::Event::PointerGone;
                }
            }
        }
    }

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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report failures by panicking")]
mod tests {
    #[test]
    fn the_icon_has_bars_of_equal_height_and_clear_corners() {
        let icon = super::icon().unwrap();
        let pixel =
            |x: usize, y: usize| <[u8; 4]>::try_from(&icon.rgba[(y * icon.width as usize + x) * 4..][..4]).unwrap();
        assert_eq!(pixel(0, 0)[3], 0);
        for (x, color) in [(45, [0x56, 0xb4, 0xe9]), (64, [0xf0, 0xb4, 0x2d]), (83, [0x2f, 0xbf, 0x95])] {
            assert_eq!(pixel(x, 48)[..3], color);
            assert_eq!(pixel(x, 78)[..3], color);
            assert_ne!(pixel(x, 40)[..3], color);
        }
    }
}
