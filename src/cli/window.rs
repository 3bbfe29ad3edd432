//! `fairtat window`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::{Usage, interrupt};
use crate::app::{self, LaunchError, LaunchOptions, TourOptions};

#[derive(Debug, Args)]
pub(super) struct WindowArgs {
    /// What to open: a run directory to compare, an experiment (TOML), a checkpoint (safetensors) or an image
    path: Option<PathBuf>,
    /// Begin with this lesson; `list` prints all lessons
    #[arg(long, value_name = "NAME")]
    lesson: Option<String>,
    /// Size of the window in points, such as 1280x820
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<[f32; 2]>,
    /// Train the experiment, write a picture of every panel and the response times of the window to DIR, and close
    #[arg(long, value_name = "DIR")]
    tour: Option<PathBuf>,
    /// Epochs that the tour waits for before its first picture
    #[arg(long, value_name = "N", default_value_t = 3, requires = "tour")]
    tour_epochs: usize,
}

fn size(text: &str) -> Result<[f32; 2], String> {
    let number = |text: &str| text.parse().ok().filter(|n: &f32| (200.0..=16_000.0).contains(n));
    text.split_once('x')
        .and_then(|(w, h)| Some([number(w)?, number(h)?]))
        .ok_or_else(|| "expected width and height from 200 to 16000, such as 1280x820".into())
}

/// Opens the window without any argument.
pub(super) fn open() -> Result<(), LaunchError> {
    launch(LaunchOptions::default())
}

fn launch(options: LaunchOptions) -> Result<(), LaunchError> {
    let ending = options.ending.clone();
    app::run(options, || interrupt::closes(move || ending.save_and_stop()))
}

pub(super) fn window(arguments: WindowArgs) -> Result<()> {
    let lessons = app::lessons::all();
    let listed = || lessons.iter().map(|lesson| format!("{}  {}\n", lesson.id, lesson.title)).collect::<String>();
    match arguments.lesson.as_deref() {
        Some("list") => return super::print(&listed()),
        Some(name) if app::lessons::find(name).is_none() => {
            return Err(Usage(format!("there is no lesson '{name}'; the lessons are:\n{}", listed())).into());
        }
        _ => {}
    }
    let tour = arguments.tour.map(|directory| TourOptions { directory, epochs: arguments.tour_epochs });
    let (open, lesson, size) = (arguments.path, arguments.lesson, arguments.size);
    Ok(launch(LaunchOptions { open, lesson, size, tour, ..LaunchOptions::default() })?)
}
