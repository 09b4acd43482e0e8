//! What can be asked of the binary `goma`. Spec core §1.1.

mod cache;
mod check;
mod demo;
mod health;
mod init;
mod middleware;
mod upgrade;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

use goma_edge::config::{self, Env, Source};
use goma_edge::{explain, server};

/// Edge proxy and API gateway that runs Goma Gateway configuration.
#[derive(Parser)]
#[command(name = "goma", disable_version_flag = true)]
struct Cli {
    /// Configuration file; else GOMA_CONFIG_FILE, else /etc/goma/goma.yml.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the version and exit.
    #[arg(short, long)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Start the gateway (the default).
    Server {
        /// Configuration file; else GOMA_CONFIG_FILE, else /etc/goma/goma.yml.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Make, check or question a configuration.
    Config {
        #[command(subcommand)]
        command: Option<ConfigCommand>,
    },
    /// Look up the types of middlewares and their settings.
    Middleware {
        #[command(subcommand)]
        command: middleware::MiddlewareCommand,
    },
    /// Print version, configuration version, build time and commit.
    Version,
    /// Ask a running gateway what its caches hold, or purge in them.
    Cache {
        #[command(subcommand)]
        command: cache::CacheCommand,
    },
    /// Ask a running gateway whether it is ready; exit 1 when it is not.
    Healthcheck(health::Options),
    /// Replace the running gateway by the program that is on disk now, without losing a request.
    Upgrade(upgrade::Options),
    /// Start a gateway with small backends to try things out.
    Demo(demo::Options),
    /// Print the completion script of a shell.
    Completion {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Write a commented sample.
    Init(init::Options),
    /// Find everything that is wrong with a configuration.
    Check(check::Options),
    /// Say which route would take a request, why, and what would happen to it.
    Explain(explain::Options),
}

/// Writes to standard output. Whoever reads it may stop early, as `head` does; that is no mistake.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Runs the command line.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = matches!(
                error.kind(),
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            );
            // Nothing to tell anybody when the terminal is gone.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        }
    };
    match dispatch(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode> {
    if cli.version {
        say(&format!("goma version {}\n", env!("CARGO_PKG_VERSION")));
        return Ok(ExitCode::SUCCESS);
    }
    if cli.config.is_some() && !matches!(cli.command, None | Some(Command::Server { .. })) {
        bail!("--config stands before the command; write it behind");
    }
    match cli.command {
        None => serve(cli.config),
        Some(Command::Server { config }) => serve(config.or(cli.config)),
        Some(Command::Config { command: None }) => Ok(ExitCode::SUCCESS),
        Some(Command::Config { command: Some(ConfigCommand::Init(options)) }) => init::run(&options),
        Some(Command::Config { command: Some(ConfigCommand::Check(options)) }) => check::run(&options),
        Some(Command::Config { command: Some(ConfigCommand::Explain(options)) }) => {
            explain::run(&options, source).map(|text| {
                say(&text);
                ExitCode::SUCCESS
            })
        }
        Some(Command::Middleware { command }) => {
            say(&middleware::run(&command)?);
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Version) => {
            say(&version());
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::Cache { command }) => cache::run(&command),
        Some(Command::Healthcheck(options)) => health::run(&options),
        Some(Command::Upgrade(options)) => upgrade::run(&options),
        Some(Command::Demo(options)) => demo::run(&options),
        Some(Command::Completion { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "goma", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn serve(path: Option<PathBuf>) -> Result<ExitCode> {
    let source = source(path);
    let examined = config::examine(&source);
    server::run(source, examined)?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration that a path (or the environment) names.
fn source(path: Option<PathBuf>) -> Source {
    Source { path, env: Env::of_process() }
}

fn version() -> String {
    format!(
        "Gateway version: {}\nConfiguration version: 2\nBuild time: {}\nGit commit: {}\n",
        env!("CARGO_PKG_VERSION"),
        option_env!("GOMA_BUILD_TIME").unwrap_or("unknown"),
        option_env!("GOMA_COMMIT").unwrap_or("unknown"),
    )
}
