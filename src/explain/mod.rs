//! `goma config explain`: what would become of a request, said without sending it.
//!
//! The configuration is loaded and compiled as the server does it, and the request goes through the same functions as a
//! real one: the gate, the route table, the chain, the rewrite, the canary rules. What is missing is what only a running
//! gateway knows: health of backends, name look-ups, and the answers of servers that a middleware would ask.
//!
//! | file | holds |
//! |---|---|
//! | `ask` | the request that is asked about |
//! | `way` | its way through the gateway |
//! | `backends` | which backends may get it, and why the others may not |
//! | `answer` | the explanation as data, with stable names: `--json` |
//! | `page` | the explanation as text |

mod answer;
mod ask;
mod backends;
mod page;
mod policies;
mod way;

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Result, anyhow};

pub use answer::{Backend, Considered, Explanation, Header, Headers, Middleware, Said, Tls};
use ask::Ask;

use crate::config::{self, DEFAULT_FILE, Source};
use crate::snapshot::{Workshop, compile};

/// Options of `config explain`.
#[derive(clap::Args)]
pub struct Options {
    /// Method of the request.
    method: String,
    /// `http://host/path?query`, or `/path?query`; the path is taken as it is written.
    url: String,
    /// Configuration file; else GOMA_CONFIG_FILE, else /etc/goma/goma.yml.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A header of the request; may be given again.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The address that the request comes from.
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    from: IpAddr,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Explains one request.
///
/// # Errors
/// When the configuration is refused, or the question itself makes no request.
pub fn run(options: &Options, source: impl Fn(Option<PathBuf>) -> Source) -> Result<String> {
    let ask = Ask::new(options)?;
    let source = only_there(source(options.config.clone()));
    let config = config::load(&source).map_err(|report| anyhow!("{report}"))?.config;
    let (snapshot, _) =
        compile(&config, &Workshop::detached(&config, &source.env)).map_err(|report| anyhow!("{report}"))?;
    let explanation = way::explain(&ask, &config, &snapshot);
    Ok(match options.json {
        true => serde_json::to_string_pretty(&explanation)? + "\n",
        false => page::text(&ask, &explanation),
    })
}

/// A question makes no files: the default file is named, so that it is not made from the sample.
fn only_there(source: Source) -> Source {
    let named = source.path.is_some() || source.env.get("GOMA_CONFIG_FILE").is_some_and(|path| !path.is_empty());
    if named { source } else { Source { path: Some(PathBuf::from(DEFAULT_FILE)), ..source } }
}
