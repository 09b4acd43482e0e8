//! `goma config init`: a commented sample to start from.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};

use goma_edge::config::sample::{self, Existing};

use super::say;

/// Options of `config init`.
#[derive(clap::Args)]
pub struct Options {
    /// The file to write; its directory must exist.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write over a file that is there.
    #[arg(short, long)]
    force: bool,
}

/// Writes the sample.
pub fn run(options: &Options) -> Result<ExitCode> {
    let path = &options.output;
    let existing = if options.force { Existing::Replace } else { Existing::Keep };
    sample::write(path, existing).with_context(|| {
        let hint = if path.exists() { "; use --force to write over it" } else { "" };
        format!("cannot write {}{hint}", path.display())
    })?;
    say(&format!("Configuration written to {}\n", path.display()));
    Ok(ExitCode::SUCCESS)
}
