//! `goma config check`: everything that `goma server` would refuse, and what it would warn of.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use goma_edge::config::{self, Report};
use goma_edge::snapshot::{Workshop, compile};

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
    let mut summary = String::new();
    let report = config::load(&source).map_or_else(
        |report| report,
        |loaded| {
            let config = loaded.config;
            summary = format!("Routes count={} Middlewares count={}", config.routes.len(), config.middlewares.len());
            let mut report = match compile(&config, &Workshop::detached(&config, &source.env)) {
                Ok((_, warnings)) => Report { warnings, ..Report::default() },
                Err(report) => report,
            };
            report.warnings.splice(0..0, loaded.warnings);
            report
        },
    );
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    if errors + warnings > 0 {
        println!("{report}");
    }
    if errors > 0 || options.strict && warnings > 0 {
        println!("The configuration is refused: {errors} errors, {warnings} warnings");
        return Ok(ExitCode::FAILURE);
    }
    println!("{summary}");
    Ok(ExitCode::SUCCESS)
}
