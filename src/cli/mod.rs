//! The command line.
//!
//! Exit status: 0 for success, 1 for a failure (one sentence on standard error: what, where, what to do), 2 for wrong
//! usage, 130, 143 and 129 for a program that Ctrl-C, SIGTERM or SIGHUP has stopped. Progress goes to standard error;
//! output for other programs goes to files and standard output. Nothing depends on standard error: what cannot be
//! written there is dropped (`console`).

mod bench;
mod completions;
mod data;
mod engines;
mod eval;
mod export;
mod interrupt;
mod json;
mod overrides;
mod plan;
mod post;
mod progress;
mod stored;
mod study;
mod train;
#[cfg(feature = "window")]
mod window;
#[cfg(not(feature = "window"))]
#[path = "no_window.rs"]
mod window;

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use self::overrides::{ExperimentArgs, Source};
use crate::config::{ConfigError, DEFAULT_PRESET, PRESETS};
use crate::console::{self, tell};
use crate::data::{check_name, known_classes};
use crate::model::MAX_WIDTH;
use crate::train::check_classes;
use crate::worker::sentence;

/// Train image classifiers that are robust and fair across classes (FAIR-TAT), and watch the training
///
/// Without a command, the window opens. Without a display, or in a build without the window, the default preset is
/// trained: real handwritten digits, in under a minute on two CPU cores.
#[derive(Debug, Parser)]
#[command(name = "fairtat", version, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// The end of the help of commands that take the fields of an experiment.
const FIELDS: &str = "Fields that are not given come from the named preset or file, else from the defaults of the data set \
                      (--dataset), else from the preset digits-60s. A preset that was made for another data set keeps its \
                      network, method and schedule; its attack, augmentation and validation split are replaced by those \
                      of the data set. `fairtat config show` with the same flags prints all fields.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Open the window
    #[cfg_attr(not(feature = "window"), command(about = "Open the window (not in this build)"))]
    Window(window::WindowArgs),
    /// Train a network and write a run directory with checkpoints, tables and figures
    #[command(after_help = FIELDS)]
    Train(train::TrainArgs),
    /// Continue a run that was stopped
    Resume(train::ResumeArgs),
    /// Measure accuracy under an attack: mean, worst class, every class
    Eval(eval::EvalArgs),
    /// Write a trained network for PyTorch or ONNX
    Export(export::ExportArgs),
    /// Change a trained network without training
    #[command(subcommand)]
    Post(post::PostCommand),
    /// Studies over several runs
    #[command(subcommand)]
    Study(study::StudyCommand),
    /// List, fetch and check data sets
    #[command(subcommand)]
    Data(data::DataCommand),
    /// List the engines of this build, the devices that they find, and the choice of `--engine auto`
    Engines(engines::EnginesArgs),
    /// Show how the WGSL engine would run a network: algorithm, arithmetic and memory of every layer
    Plan(plan::PlanArgs),
    /// Measure images per second of a FAIR-TAT training step
    Bench(bench::BenchArgs),
    /// Show experiments
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script with which a shell completes commands, flags and their values
    #[command(after_help = "bash: `fairtat completions bash >~/.local/share/bash-completion/completions/fairtat`")]
    Completions(completions::CompletionsArgs),
    /// Write manual pages
    #[command(hide = true)]
    Man(completions::ManArgs),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a whole experiment as TOML
    Show {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        fields: ExperimentArgs,
    },
    /// List the presets
    List,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| refuse(&error));
    let status = match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_usage(&error) => {
            tell!("error: {}", sentence(error.as_ref()));
            ExitCode::from(2)
        }
        Err(error) if error.is::<Stopped>() => {
            tell!("{error}");
            ExitCode::FAILURE
        }
        // A closed pipe (`fairtat config show | head`) is not an error.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {}", sentence(error.as_ref()));
            ExitCode::FAILURE
        }
    };
    // So that `fairtat train && next` ends as well.
    interrupt::status().map_or(status, ExitCode::from)
}

/// Ends the program like [`clap::Error::exit`], but describes expected numbers in plain words.
fn refuse(error: &clap::Error) -> ! {
    if error.kind() != clap::error::ErrorKind::ValueValidation {
        error.exit();
    }
    let text = error.render();
    let text = if std::io::stderr().is_terminal() { text.ansi().to_string() } else { text.to_string() };
    console::note(&in_words(&text));
    std::process::exit(error.exit_code())
}

/// Replaces the messages of Rust's number parsers with descriptions of the expected number.
fn in_words(message: &str) -> String {
    let words = [
        ("invalid digit found in string", "expected a whole number of at least 0"),
        ("cannot parse integer from empty string", "expected a whole number of at least 0"),
        ("number too large to fit in target type", "expected a smaller number"),
        ("is not in 0..=4294967295", "is not a whole number from 0 to 4294967295"),
        ("invalid float literal", "expected a number"),
        ("cannot parse float from empty string", "expected a number"),
    ];
    words.iter().fold(message.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Arguments that are valid each, but not together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// A command that a signal has stopped before its end: what is left of it, and how it continues.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Stopped(String);

/// Whether an error concerns the request, not its execution.
fn is_usage(error: &anyhow::Error) -> bool {
    let config = error.downcast_ref::<ConfigError>();
    error.downcast_ref::<Usage>().is_some()
        || matches!(config, Some(ConfigError::Invalid { .. } | ConfigError::UnknownPreset { .. }))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.into_iter().any(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

fn run(cli: Cli) -> Result<()> {
    // The window handles signals itself once it is about to open.
    if !matches!(cli.command, None | Some(Command::Window(_))) {
        interrupt::install();
    }
    match cli.command {
        None => match window::open() {
            Ok(()) => Ok(()),
            Err(why) => {
                let why = why.to_string();
                let (first, rest) = why.split_at(why.chars().next().map_or(0, char::len_utf8));
                let why = format!("{}{rest}", first.to_uppercase());
                tell!("{why}: training the preset {DEFAULT_PRESET}. `fairtat --help` lists what else there is.");
                train::train(train::TrainArgs::default_preset())
            }
        },
        Some(Command::Window(arguments)) => window::window(arguments),
        Some(Command::Train(arguments)) => train::train(arguments),
        Some(Command::Resume(arguments)) => train::resume(&arguments),
        Some(Command::Eval(arguments)) => eval::eval(&arguments),
        Some(Command::Export(arguments)) => export::export(&arguments),
        Some(Command::Post(command)) => post::post(&command),
        Some(Command::Study(command)) => study::study(&command),
        Some(Command::Data(command)) => data::data(&command),
        Some(Command::Engines(arguments)) => engines::engines(&arguments),
        Some(Command::Plan(arguments)) => plan::plan(&arguments),
        Some(Command::Bench(arguments)) => bench::bench(&arguments),
        Some(Command::Completions(arguments)) => completions::completions(&arguments),
        Some(Command::Man(arguments)) => completions::man(&arguments),
        Some(Command::Config(ConfigCommand::Show { source, fields })) => {
            let asked = fields.asked(&source)?;
            // Refuse what `fairtat train` would refuse, as far as that is known without the images.
            let dataset = asked.experiment.data.dataset.as_str();
            check_name(dataset).map_err(|error| Usage(format!("data set '{dataset}': {error}")))?;
            if let Some(classes) = known_classes(dataset) {
                check_classes(&asked.experiment, classes)?;
            }
            let comment = asked.derived.as_ref().map(|derived| format!("{}\n", derived.comment()));
            print(&format!("{}{}", comment.unwrap_or_default(), asked.experiment.to_toml()))
        }
        Some(Command::Config(ConfigCommand::List)) => {
            let width = PRESETS.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
            let line = |(name, text): &(&str, &str)| {
                let purpose = text.lines().next().unwrap_or_default().trim_start_matches('#').trim();
                let default = if *name == DEFAULT_PRESET { " (default)" } else { "" };
                format!("{name:width$}  {purpose}{default}\n")
            };
            print(&PRESETS.iter().map(line).collect::<String>())
        }
    }
}

/// Refuses a width that no experiment may have.
fn check_width(width: Option<usize>) -> Result<(), Usage> {
    match width {
        Some(found) if !(1..=MAX_WIDTH).contains(&found) => {
            Err(Usage(format!("--width: expected 1 to {MAX_WIDTH}, found {found}")))
        }
        _ => Ok(()),
    }
}

/// `1 image`, `2 images`.
fn counted_as(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Writes to standard output.
fn print(text: &str) -> Result<()> {
    Ok(console::print(text)?)
}

/// Writes to standard output what is also in a file. It must not end a command that has more to do.
fn print_or_warn(text: &str) {
    if let Err(error) = console::print(text)
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tell!("warning: standard output cannot be written: {error}");
    }
}

/// A word of a command line, quoted for a shell if necessary.
fn shell_word(word: &OsStr) -> String {
    let Some(text) = word.to_str() else { return shell_bytes(word) };
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "-_./,:=+".contains(c));
    if is_plain { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

/// A word that is not UTF-8, in the quotes of bash and zsh.
#[cfg(unix)]
fn shell_bytes(word: &OsStr) -> String {
    let byte = |byte: &u8| match byte {
        b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    let text: String = std::os::unix::ffi::OsStrExt::as_bytes(word).iter().map(byte).collect();
    format!("$'{text}'")
}

#[cfg(not(unix))]
fn shell_bytes(word: &OsStr) -> String {
    format!("'{}'", word.display())
}

/// Writes JSON to a file, whole or not at all.
fn write_json(path: &std::path::Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    Ok(crate::files::write_atomic(path, format!("{text}\n").as_bytes())?)
}

/// The experiment that a command line `fairtat train …` would run.
#[cfg(test)]
pub(crate) fn trained_by(arguments: &[String]) -> Result<crate::config::Experiment> {
    match Cli::try_parse_from(arguments)?.command {
        Some(Command::Train(arguments)) => arguments.experiment(),
        _ => Err(Usage("no `fairtat train`".into()).into()),
    }
}

/// The attacks, the number of images and the report of a command line `fairtat eval …` on a network of this experiment.
#[cfg(test)]
pub(crate) fn evaluated_by(
    arguments: &[String],
    experiment: &crate::config::Experiment,
) -> Result<(crate::evaluate::robustness::Plan, Option<usize>, Option<std::path::PathBuf>)> {
    match Cli::try_parse_from(arguments)?.command {
        Some(Command::Eval(arguments)) => arguments.asked_for(experiment),
        _ => Err(Usage("no `fairtat eval`".into()).into()),
    }
}
