//! The program `fairtat`: see [`fairtat::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    fairtat::cli::main()
}
