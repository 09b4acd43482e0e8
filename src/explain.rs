//! `goma config explain`: under construction.

use std::path::PathBuf;

use anyhow::Result;

use crate::config::Source;

/// Options of `config explain`.
#[derive(clap::Args)]
pub struct Options {
    #[arg(short, long)]
    config: Option<PathBuf>,
}

/// Explains.
pub fn run(options: &Options, source: impl Fn(Option<PathBuf>) -> Source) -> Result<String> {
    let _ = source(options.config.clone());
    anyhow::bail!("under construction")
}
