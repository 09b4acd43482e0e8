//! `goma cache status|purge`: asks a running gateway what its caches hold, or purges in them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use goma_edge::config;

use super::{health, say};

/// What to do with the caches.
#[derive(clap::Subcommand)]
pub enum CacheCommand {
    /// Say what the caches hold and what they were asked for.
    Status(Options),
    /// Remove responses, or make them stale.
    Purge(PurgeOptions),
}

/// Which gateway.
#[derive(clap::Args)]
pub struct Options {
    /// Where to ask; else the entry point `web` of the configuration, on the loopback address.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// The token; else that of `gateway.cache` in the configuration.
    #[arg(long)]
    token: Option<String>,
    /// Configuration file that names entry point, path and token.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What to purge.
#[derive(clap::Args)]
pub struct PurgeOptions {
    /// Everything.
    #[arg(long)]
    all: bool,
    /// A URL, `host/path`, with any query; a `*` at its end stands for all below.
    #[arg(long)]
    url: Option<String>,
    /// All URLs that begin so: `host/path`.
    #[arg(long)]
    prefix: Option<String>,
    /// All responses with this `Cache-Tag` or `Surrogate-Key`.
    #[arg(long)]
    tag: Option<String>,
    /// Of this route only.
    #[arg(long)]
    route: Option<String>,
    /// Leave responses there, stale.
    #[arg(long)]
    soft: bool,
    #[command(flatten)]
    gateway: Options,
}

/// Asks, and says what came of it.
pub fn run(command: &CacheCommand) -> Result<ExitCode> {
    let (options, method, query) = match command {
        CacheCommand::Status(options) => (options, "GET", String::new()),
        CacheCommand::Purge(purge) => (&purge.gateway, "POST", query(purge)),
    };
    let config = config::examine(&super::source(options.config.clone())).loaded.config;
    let cache = &config.gateway.cache;
    let addresses: Vec<SocketAddr> = match &options.address {
        Some(text) => text.to_socket_addrs().with_context(|| text.clone())?.collect(),
        None => {
            let text = &config.gateway.entry_points.web.address;
            health::reachable(text.parse().with_context(|| text.clone())?)
        }
    };
    let token = options.token.clone().unwrap_or_else(|| cache.token.as_str().to_owned());
    let mut answer = None;
    for address in addresses {
        let asked = ask(address, method, &format!("{}{query}", cache.path), &token, &cache.host);
        match asked.with_context(|| format!("http://{address}{}", cache.path)) {
            Ok(found) => {
                answer = Some(found);
                break;
            }
            Err(error) if answer.is_none() => answer = Some((0, format!("{error:#}\n"))),
            Err(_) => {}
        }
    }
    let Some((status, body)) = answer else { bail!("the gateway has no address") };
    match status {
        200 => {
            say(&body);
            Ok(ExitCode::SUCCESS)
        }
        0 => bail!("{}", body.trim()),
        404 => bail!("the gateway has no such endpoint: set `gateway.cache: {{enabled: true, token: …}}`"),
        _ => bail!("{status} {}", body.trim()),
    }
}

fn query(purge: &PurgeOptions) -> String {
    let mut pairs = Vec::new();
    let named = [("url", &purge.url), ("prefix", &purge.prefix), ("tag", &purge.tag), ("route", &purge.route)];
    for (name, value) in named {
        pairs.extend(value.as_ref().map(|value| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))));
    }
    pairs.extend(purge.all.then(|| "all=true".to_owned()));
    pairs.extend(purge.soft.then(|| "soft=true".to_owned()));
    format!("?{}", pairs.join("&"))
}

fn ask(address: SocketAddr, method: &str, target: &str, token: &str, host: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let host = if host.is_empty() || host.contains(['*', '{']) { address.to_string() } else { host.to_owned() };
    write!(
        stream,
        "{method} {target} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nContent-Length: 0\r\n\r\n"
    )?;
    let mut reply = Vec::new();
    stream.take(16 << 20).read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply);
    let status = reply.get(9..12).and_then(|code| code.parse().ok());
    let (Some(status), Some((_, body))) = (status, reply.split_once("\r\n\r\n")) else { bail!("no HTTP reply") };
    Ok((status, body.to_owned()))
}

const LIMIT: Duration = Duration::from_secs(10);
