//! `goma demo`: placeholder until the demo lands in this change.

use std::process::ExitCode;

use anyhow::Result;

/// Options of `demo`.
#[derive(clap::Args)]
pub struct Options {}

/// Runs the demo.
pub fn run(_: &Options) -> Result<ExitCode> {
    anyhow::bail!("under construction")
}
