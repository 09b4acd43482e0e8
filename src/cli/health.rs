//! `goma healthcheck`: asks a running gateway whether it is ready, for images without curl.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use goma_edge::config;

/// Options of `healthcheck`.
#[derive(clap::Args)]
pub struct Options {
    /// Where to ask; else the entry point `web` of the configuration, on the loopback address.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// What to ask for.
    #[arg(long, default_value = "/readyz")]
    path: String,
    /// Configuration file that names the entry point.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Seconds to wait.
    #[arg(long, default_value_t = 3)]
    timeout: u64,
}

/// Asks, and says what came of it.
pub fn run(options: &Options) -> Result<ExitCode> {
    let address = address(options)?;
    let limit = Duration::from_secs(options.timeout.max(1));
    let status = ask(address, &options.path, limit).with_context(|| format!("http://{address}{}", options.path))?;
    println!("{status}");
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn address(options: &Options) -> Result<SocketAddr> {
    if let Some(text) = &options.address {
        return text.to_socket_addrs()?.next().ok_or_else(|| anyhow!("{text} has no address"));
    }
    let loaded = config::load(&super::source(options.config.clone())).map_err(|report| anyhow!("{report}"))?;
    let text = &loaded.config.gateway.entry_points.web.address;
    let mut address: SocketAddr = text.parse().with_context(|| text.clone())?;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    Ok(address)
}

fn ask(address: SocketAddr, path: &str, limit: Duration) -> Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: goma-healthcheck\r\nConnection: close\r\n\r\n")?;
    let mut reply = Vec::new();
    stream.take(4096).read_to_end(&mut reply)?;
    let Some(status) = reply.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()) else {
        bail!("no HTTP reply");
    };
    Ok(status)
}
