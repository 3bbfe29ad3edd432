//! `fairtat data`.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use anyhow::{Result, bail};
use clap::Subcommand;
use indicatif::ProgressBar;

use super::{Stopped, Usage, interrupt, print, progress};
use crate::console::tell;
use crate::data::download::{self, FetchOptions, Phase, Progress, Status};
use crate::data::publishers::{Publisher, publisher, publishers};
use crate::data::{self, Corruptions, DataError, Layout, SourceOptions, corruption_class_names, describe, detect};
use crate::files::FileError;

/// The built-in data sets.
const BUILT_IN: [&str; 2] = ["digits", "shapes"];

#[derive(Debug, Subcommand)]
pub(super) enum DataCommand {
    /// List data sets: the built-in ones, and those that can be fetched
    List,
    /// Fetch a data set from its publisher and verify size and checksum; resumes an interrupted download
    Fetch {
        /// Name, as `fairtat data list` shows it
        name: String,
    },
    /// Check a data set: verify the checksums of its files and read every image
    Check {
        /// Name of a data set, or a path to one in any supported layout
        name_or_path: String,
    },
}

pub(super) fn data(command: &DataCommand) -> Result<()> {
    match command {
        DataCommand::List => list(),
        DataCommand::Fetch { name } if BUILT_IN.contains(&name.as_str()) => {
            print(&format!("'{name}' is built in: there is nothing to fetch\n"))
        }
        DataCommand::Fetch { name } => fetch(&publisher(name).map_err(|error| Usage(error.to_string()))?),
        DataCommand::Check { name_or_path } => check(name_or_path),
    }
}

fn list() -> Result<()> {
    let root = download::default_root();
    let mut text = String::new();
    let mut line = |name: &str, state: &str, what: &str| text += &format!("{name:<14} {state:<24} {what}\n");
    line("digits", "built in", "1,797 handwritten digits, 8×8 grey, 10 classes");
    line("shapes", "built in", "drawn shapes, 32×32 colour, 10 classes, some hard to tell apart");
    for publisher in publishers() {
        let state = match download::status(&publisher, &root)? {
            Status::Absent => "not fetched".to_owned(),
            Status::Partial { bytes, total } => match total {
                Some(total) => format!("partial, {} of {}", size(bytes), size(total)),
                None => format!("partial, {}", size(bytes)),
            },
            Status::Unverified { .. } => "here, not verified".to_owned(),
            Status::Verified { bytes } => format!("verified, {}", size(bytes)),
        };
        line(&publisher.name, &state, &publisher.title);
    }
    text += &format!("\nFetched data sets are in {} (set FAIRTAT_DATA to change this directory).\n", root.display());
    text += "Your own images: --dataset folder --path DIR, with a directory for each class.\n";
    print(&text)
}

/// Bars for the phases of a download.
#[derive(Default)]
struct Bars {
    current: Option<(String, ProgressBar)>,
}

impl Bars {
    fn show(&mut self, p: &Progress<'_>) {
        let what = match p.phase {
            Phase::Downloading => "fetching",
            Phase::Waiting => "waiting to retry",
            Phase::Verifying => "verifying",
            Phase::Unpacking => "unpacking",
        };
        let title = format!("{what} {}", p.file);
        if self.current.as_ref().is_none_or(|(shown, _)| *shown != title) {
            self.finish();
            let bar = progress::bytes(p.total, title.clone());
            bar.set_position(p.done);
            bar.reset_eta();
            self.current = Some((title, bar));
        }
        if let Some((_, bar)) = &self.current {
            bar.set_position(p.done);
        }
    }

    fn finish(&mut self) {
        if let Some((_, bar)) = self.current.take() {
            bar.finish_and_clear();
        }
    }
}

fn fetch(publisher: &Publisher) -> Result<()> {
    let root = download::default_root();
    let mut bars = Bars::default();
    let stop = interrupt::stops("the download, whose parts are kept");
    let fetched = download::fetch(publisher, &root, &FetchOptions::default(), stop, &mut |p| bars.show(&p));
    bars.finish();
    let fetched = fetched.map_err(|error| match error {
        DataError::Stopped(what) => Stopped(what).into(),
        other => anyhow::Error::from(other),
    })?;
    for file in &fetched.files {
        tell!("{}: {}", file.path.display(), file.against);
    }
    print(&format!("{} is ready in {}\n", publisher.name, fetched.data.display()))
}

fn check(name_or_path: &str) -> Result<()> {
    let path = Path::new(name_or_path);
    let options = |dataset: &str| SourceOptions {
        dataset: dataset.into(),
        path: None,
        root: download::default_root(),
        image_size: None,
        channels: None,
        seed: 0,
    };
    if BUILT_IN.contains(&name_or_path) {
        return print(&format!("{}\n", describe(&data::load(&options(name_or_path))?)));
    }
    if let Ok(publisher) = publisher(name_or_path) {
        let root = download::default_root();
        let mut bars = Bars::default();
        // Nothing is written, so a signal ends the program at once.
        let report = download::verify(&publisher, &root, &AtomicBool::new(false), &mut |p| bars.show(&p));
        bars.finish();
        let report = report?;
        print(&report.to_string())?;
        if !report.is_sound() {
            bail!("{} is incomplete or damaged; `fairtat data fetch {}` repairs it", publisher.name, publisher.name);
        }
        return contents(&publisher.data_directory(&root), &options(&publisher.name));
    }
    if !path.try_exists().map_err(FileError::reading(path))? {
        let names = publishers().into_iter().map(|publisher| publisher.name);
        let names = BUILT_IN.map(str::to_owned).into_iter().chain(names).collect::<Vec<_>>().join(", ");
        bail!("'{name_or_path}' is neither a path that exists nor a data set's name (known: {names})");
    }
    contents(path, &options("folder"))
}

/// Reads every image and prints the contents.
fn contents(path: &Path, options: &SourceOptions) -> Result<()> {
    let found = detect(path)?;
    if matches!(found.layout, Layout::Corruptions) {
        let set = Corruptions::open(&found.directory, &corruption_class_names(&found.directory)?)?;
        let mut text = format!("{}: corruptions\n", found.directory.display());
        for name in set.names() {
            for severity in 1..=data::SEVERITIES {
                let images = set.load(name, severity)?.len();
                text += &format!("{name} severity {severity}: {images} images\n");
            }
        }
        return print(&text);
    }
    let loaded = data::load_path(path, options)?;
    let notes: String = loaded.notes.iter().map(|note| format!("note: {note}\n")).collect();
    let (place, layout, summary) = (found.directory.display(), found.layout.name(), describe(&loaded));
    print(&format!("{place}: layout {layout}\n{summary}\n{notes}"))
}

/// A readable number of bytes.
fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}
