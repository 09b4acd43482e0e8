//! `goma config check`: everything that `goma server` would refuse, and what it would warn of.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;

use goma_edge::config::{self, Report};
use goma_edge::snapshot::{Workshop, build};
use goma_edge::tls::{Certificate, Table};

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
    let (report, staples) = match build(examined, &workshop) {
        Ok((snapshot, loaded)) => (Report { warnings: loaded.warnings, ..Report::default() }, staples(&snapshot.tls)),
        Err(report) => (report, Vec::new()),
    };
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    if errors + warnings > 0 {
        say(&format!("{report}\n"));
    }
    if errors > 0 || options.strict && warnings > 0 {
        say(&format!("The configuration is refused: {errors} errors, {warnings} warnings\n"));
        return Ok(ExitCode::FAILURE);
    }
    staples.iter().for_each(|line| say(&format!("{line}\n")));
    say(&format!("{summary}\n"));
    Ok(ExitCode::SUCCESS)
}

/// For each certificate whose authority has a responder, or that has a response by a file: what clients will hear of it.
fn staples(table: &Table) -> Vec<String> {
    let line = |certificate: &Arc<Certificate>| {
        let of = &certificate.revocation;
        let what = match (certificate.filed_until(), &of.responder, &of.subject) {
            (Some(until), ..) => format!("stapled from a file until {}", day(until)),
            (None, Some(_), _) if !table.asks_responders() => "not asked for (gateway.tls.askOcsp)".to_owned(),
            (None, Some(responder), Some(_)) => format!("asked of {responder} and stapled"),
            (None, Some(_), None) => "not asked for: the chain lacks the certificate of the authority".to_owned(),
            (None, None, _) => return None,
        };
        Some(format!("Certificate {}: OCSP {what}", certificate.name()))
    };
    table.certificates().iter().filter_map(line).collect()
}

fn day(seconds: i64) -> String {
    let moment = chrono::DateTime::from_timestamp(seconds, 0);
    moment.map(|moment| moment.format("%Y-%m-%d %H:%M UTC").to_string()).unwrap_or_default()
}
