//! `fairtat completions` and `fairtat man`: what packages install beside the program.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, print};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// Shell that will read the script
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Directory to write `fairtat.1` and a page for each command to
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Prints the completion script of a shell.
pub(super) fn completions(arguments: &CompletionsArgs) -> Result<()> {
    print(&script(arguments.shell)?)
}

/// Writes the manual pages.
pub(super) fn man(arguments: &ManArgs) -> Result<()> {
    let directory = &arguments.directory;
    let written = std::fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.with_context(|| format!("cannot write the manual pages to {}", directory.display()))
}

fn script(shell: Shell) -> Result<String> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fairtat", &mut script);
    Ok(String::from_utf8(script)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests report failures by panicking")]
mod tests {
    use clap::{CommandFactory, ValueEnum};
    use clap_complete::Shell;

    use super::super::Cli;
    use super::{ManArgs, man, script};

    #[test]
    fn completions_of_every_shell_name_all_commands_that_help_lists() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
            assert!(script.contains("average-from"), "{shell}: flags of an experiment");
            assert!(script.contains("digits-cnn"), "{shell}: values of a flag");
        }
    }

    #[test]
    fn every_command_has_a_manual_page_that_tells_its_flags() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("share/man1");
        man(&ManArgs { directory: directory.clone() }).unwrap();
        let page = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            assert!(page("fairtat.1").contains(&format!("fairtat\\-{name}(1)")), "{name} is listed");
            assert!(page(&format!("fairtat-{name}.1")).contains(".SH NAME"), "{name}");
        }
        assert!(page("fairtat-train.1").contains("\\-\\-average\\-from"));
        assert!(!directory.join("fairtat-man.1").exists(), "a hidden command has no page");
    }

    #[test]
    fn manual_pages_without_a_directory_name_the_place() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = man(&ManArgs { directory: file.path().join("man") }).unwrap_err();
        assert!(error.to_string().contains(&file.path().display().to_string()), "{error}");
    }
}
