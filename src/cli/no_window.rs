//! `fairtat window` in a build without the feature `window`.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::Args;

const WHY: &str = "this program was built without the feature `window`";

/// Accepts all arguments of the command in other builds, so that the error explains more than an unknown flag.
#[derive(Debug, Args)]
pub(super) struct WindowArgs {
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    _ignored: Vec<OsString>,
}

/// Returns the reason why no window opens.
pub(super) fn open() -> Result<(), &'static str> {
    Err(WHY)
}

pub(super) fn window(_arguments: WindowArgs) -> Result<()> {
    bail!("{WHY}; build it with `cargo build --release`, without `--no-default-features`, or use `fairtat train`")
}
