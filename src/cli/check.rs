//! `goma config check`: everything that `goma server` would refuse, and what it would warn of.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use goma_edge::config::{self, Report};
use goma_edge::snapshot::{Workshop, build};

use super::say;

/// Options of `config check`.
#[derive(clap::Args)]
pub struct Options {
    /// The file to check; its extra files and file provider are read as well.
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Warnings count as errors.
    #[arg(long)]
    strict: bool,
}

/// Checks a configuration and prints what was found.
pub fn run(options: &Options) -> Result<ExitCode> {
    let source = super::source(Some(options.config.clone()));
    let examined = config::examine(&source);
    let config = &examined.loaded.config;
    let summary = format!("Routes count={} Middlewares count={}", config.routes.len(), config.middlewares.len());
    let workshop = Workshop::detached(config, &source.env);
    let report = match build(examined, &workshop) {
        Ok((_, loaded)) => Report { warnings: loaded.warnings, ..Report::default() },
        Err(report) => report,
    };
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    if errors + warnings > 0 {
        say(&format!("{report}\n"));
    }
    if errors > 0 || options.strict && warnings > 0 {
        say(&format!("The configuration is refused: {errors} errors, {warnings} warnings\n"));
        return Ok(ExitCode::FAILURE);
    }
    say(&format!("{summary}\n"));
    Ok(ExitCode::SUCCESS)
}
