//! `goma middleware list|show`: the reference of middlewares, made from the code.

use anyhow::{Result, bail};
use clap::Subcommand;

use goma_edge::config::nearest;
use goma_edge::middleware::{KINDS, reference};

#[derive(Subcommand)]
pub enum MiddlewareCommand {
    /// List all types.
    List,
    /// Show settings, defaults and an example of one type.
    Show {
        /// The type, as in `type: rewriteRegex`.
        kind: String,
    },
}

/// The text that was asked for.
pub fn run(command: &MiddlewareCommand) -> Result<String> {
    match command {
        MiddlewareCommand::List => Ok(reference::list()),
        MiddlewareCommand::Show { kind } => match reference::page(kind) {
            Some(page) => Ok(page),
            None => bail!(unknown(kind)),
        },
    }
}

fn unknown(kind: &str) -> String {
    let known: Vec<&str> = KINDS.iter().flat_map(|kind| kind.names).copied().collect();
    let same = known.iter().find(|known| known.eq_ignore_ascii_case(kind)).copied();
    match same.or_else(|| nearest(kind, &known).map(|(near, _)| near)) {
        Some(near) => format!("there is no middleware type `{kind}`; did you mean `{near}`?"),
        None => format!("there is no middleware type `{kind}`; `goma middleware list` names all"),
    }
}
