//! `fairtat export`: a trained network as a file of another program.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::overrides::Source;
use super::{Usage, counted_as, print, stored};
use crate::files::{self, write_atomic};
use crate::model::{Facts, LOADER, Names, Network, PROBE_LOGITS, SHA256, loader, normalisation, save_onnx, save_pth};
use crate::train::{Matching, StoredNetwork, probe_logits};

/// Formats of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A safetensors file with the names of PyTorch's state dict
    Safetensors,
    /// A state dict that `torch.load` reads
    Pth,
    /// A graph with weights and normalisation, for ONNX Runtime and others
    Onnx,
}

impl Format {
    /// Ending of its files.
    const fn extension(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::Pth => "pth",
            Self::Onnx => "onnx",
        }
    }
}

/// Write a trained network for PyTorch or ONNX
///
/// The state dict has PyTorch's names and no normalisation. The script load_in_pytorch.py, which is written beside it,
/// builds the network with its normalisation and loads the file. `python load_in_pytorch.py` compares its logits of four
/// images with those that this program computed and stored in the file.
///
/// An ONNX file has the input `images` (values in [0, 1], any number of images) and the output `logits`. Its graph
/// includes the normalisation.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A .safetensors file, or a run directory (its best checkpoint)
    checkpoint: PathBuf,
    /// Format of the new file
    #[arg(long, value_enum)]
    format: Format,
    /// New file; its ending is that of the format
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Replace the new file, and a load_in_pytorch.py for another network beside it, if they exist
    #[arg(long)]
    force: bool,
    /// Names of `torch.nn.Sequential(normalisation, network)` in a .pth file: `0.mean` and `0.std`, and `1.` before all
    /// others
    #[arg(long)]
    sequential: bool,
    /// For a checkpoint of another program: directory of its data set, if it is not the usual one
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// For a checkpoint of another program: its experiment
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    foreign: stored::ForeignArgs,
}

pub(super) fn export(arguments: &ExportArgs) -> Result<()> {
    let ExportArgs { out, format, force, .. } = arguments;
    check(arguments)?;
    let stored = stored::load(&arguments.checkpoint, &arguments.source, arguments.path.as_deref(), &arguments.foreign)?;
    let network = network(&stored)?;
    let fitting = || stored.file.display().to_string();
    // An ONNX file contains its graph; the script could not read it.
    let script = match format {
        Format::Onnx => None,
        Format::Safetensors | Format::Pth => {
            Some((out.with_file_name(LOADER), loader(&network).with_context(fitting)?))
        }
    };
    check_free(&stored.file, out, script.as_ref(), *force)?;
    let facts = facts(&stored, &network).with_context(fitting)?;
    match format {
        Format::Safetensors => stored.state().save(out, &facts),
        Format::Pth => {
            let names = if arguments.sequential { Names::Sequential } else { Names::Plain };
            save_pth(out, &network, stored.state(), names, &facts)
        }
        Format::Onnx => save_onnx(out, &network, stored.state(), &facts),
    }?;
    if let Some((path, text)) = &script {
        write_atomic(path, text.as_bytes())?;
    }
    let script = script.map(|(path, _)| path);
    print(&text(arguments, &stored, &network, script.as_deref()))
}

/// Refuses arguments that do not fit together, before anything is read.
fn check(arguments: &ExportArgs) -> Result<(), Usage> {
    let ExportArgs { out, format, sequential, .. } = arguments;
    let expected = format.extension();
    if out.extension().is_none_or(|extension| extension != expected) {
        let what = format!("--out: expected a name that ends in .{expected} for --format {expected}, found ");
        return Err(Usage(format!("{what}{}", out.display())));
    }
    if *sequential && *format != Format::Pth {
        return Err(Usage("--sequential: only --format pth has these names".to_owned()));
    }
    Ok(())
}

/// The network of a checkpoint. If the file does not record its images and classes, those of its data set.
fn network(stored: &StoredNetwork) -> Result<Network> {
    if let Some(network) = stored.recorded_network() {
        return Ok(network);
    }
    Ok(stored.network(&stored.splits(Matching::default())?)?)
}

/// The facts of the checkpoint, with its normalisation and the logits of the probe images.
fn facts(stored: &StoredNetwork, network: &Network) -> Result<Facts> {
    let mut facts = stored.facts().clone();
    // That of the checkpoint, not of the export.
    facts.remove(SHA256);
    facts.entry("shape".into()).or_insert_with(|| network.input.to_string());
    if let Some((mean, std)) = normalisation(network) {
        for (name, values) in [("mean", mean), ("std", std)] {
            facts.insert(name.into(), serde_json::to_string(values)?);
        }
    }
    facts.insert(PROBE_LOGITS.into(), probe_logits(network, stored.state())?);
    Ok(facts)
}

/// Checks that no file is lost: neither the checkpoint, nor, without `--force`, any other.
fn check_free(checkpoint: &Path, out: &Path, script: Option<&(PathBuf, String)>, force: bool) -> Result<()> {
    if out.exists() && out.canonicalize().ok() == checkpoint.canonicalize().ok() {
        bail!(Usage(format!("--out: {} would be overwritten; name another file", checkpoint.display())));
    }
    if force {
        return Ok(());
    }
    if out.exists() {
        bail!("{} exists already; name another file with --out, or replace it with --force", out.display());
    }
    if let Some((path, text)) = script
        && path.exists()
        && files::read(path)? != text.as_bytes()
    {
        bail!(
            "{} exists already and is for another network; name a file in another directory with --out, or replace it \
             with --force",
            path.display()
        );
    }
    Ok(())
}

fn text(arguments: &ExportArgs, stored: &StoredNetwork, network: &Network, script: Option<&Path>) -> String {
    let classes = counted_as(network.classes, "class", "classes");
    let parameters = network.parameter_count();
    let mut text =
        format!("{}: {} for {} images, {classes}, ", stored.file.display(), network.architecture, network.input);
    text += &format!("{parameters} parameters\n");
    let inside = match arguments.format {
        Format::Onnx => Some("the graph normalises them"),
        Format::Pth if arguments.sequential => Some("the normalisation is module 0 (0.mean, 0.std)"),
        Format::Safetensors | Format::Pth => None,
    };
    text += "Images are in [0, 1]; ";
    text += &match (normalisation(network), inside) {
        (None, _) => "the network does not normalise them.\n".to_owned(),
        (Some(_), Some(inside)) => format!("{inside}.\n"),
        (Some((mean, std)), None) => format!(
            "the state dict does not include their normalisation: (images - mean) / std\n    mean {mean:?}\n    std  {std:?}\n"
        ),
    };
    text += &format!("\nWritten: {}\n", arguments.out.display());
    if let Some(script) = script {
        text += &format!("         {} loads it in PyTorch with its normalisation, and checks it\n", script.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(format: Format, out: &Path, sequential: bool) -> ExportArgs {
        let (checkpoint, source) = ("a.safetensors".into(), Source::default());
        ExportArgs {
            checkpoint,
            format,
            out: out.into(),
            force: false,
            sequential,
            path: None,
            source,
            foreign: stored::ForeignArgs::default(),
        }
    }

    #[test]
    fn endings_and_names_belong_to_the_format() {
        for format in [Format::Safetensors, Format::Pth, Format::Onnx] {
            let name = format!("a.{}", format.extension());
            check(&arguments(format, Path::new(&name), false)).unwrap();
            for other in ["a", "a.pt", "pth"] {
                let what = check(&arguments(format, Path::new(other), false)).unwrap_err().to_string();
                assert!(what.ends_with(&format!("for --format {}, found {other}", format.extension())), "{what}");
            }
            let sequential = check(&arguments(format, Path::new(&name), true));
            assert_eq!(sequential.is_ok(), format == Format::Pth);
        }
    }

    #[test]
    fn files_are_replaced_only_on_request_and_the_checkpoint_never() {
        let dir = tempfile::tempdir().unwrap();
        let [checkpoint, out, script] = ["a.safetensors", "b.safetensors", LOADER].map(|name| dir.path().join(name));
        std::fs::write(&checkpoint, "weights").unwrap();
        let new = (script.clone(), "new".to_owned());
        let refused = |out: &Path, force| {
            check_free(&checkpoint, out, Some(&new), force).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(refused(&out, false), "");
        std::fs::write(&script, "new").unwrap();
        assert_eq!(refused(&out, false), "");
        std::fs::write(&script, "old").unwrap();
        assert!(refused(&out, false).contains("is for another network"));
        std::fs::write(&out, "earlier").unwrap();
        assert!(refused(&out, false).contains("b.safetensors exists already; name another file with --out"));
        assert_eq!(refused(&out, true), "");
        for force in [false, true] {
            assert!(refused(&dir.path().join("./a.safetensors"), force).contains("would be overwritten"));
        }
    }
}
