//! `goma healthcheck`: asks a running gateway whether it is ready, for images without curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use goma_edge::config;

use super::say;

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
    let limit = Duration::from_secs(options.timeout.max(1));
    let mut answer = Err(anyhow!("the gateway has no address"));
    for address in addresses(options)? {
        answer = ask(address, &options.path, limit).with_context(|| format!("http://{address}{}", options.path));
        if answer.is_ok() {
            break;
        }
    }
    let status = answer?;
    say(&format!("{status}\n"));
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where to ask, in order.
///
/// A file that is wrong by now says nothing of the gateway that runs: only the address in it counts.
fn addresses(options: &Options) -> Result<Vec<SocketAddr>> {
    if let Some(text) = &options.address {
        return Ok(text.to_socket_addrs().with_context(|| text.clone())?.collect());
    }
    let config = config::examine(&super::source(options.config.clone())).loaded.config;
    let text = &config.gateway.entry_points.web.address;
    Ok(reachable(text.parse().with_context(|| text.clone())?))
}

/// Where a listener is reached from the same machine. One on `[::]` takes IPv4 as well, and many containers have no `::1`.
pub fn reachable(bound: SocketAddr) -> Vec<SocketAddr> {
    let at = |ip: IpAddr| SocketAddr::new(ip, bound.port());
    match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![at(Ipv4Addr::LOCALHOST.into())],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())],
        _ => vec![bound],
    }
}

fn ask(address: SocketAddr, path: &str, limit: Duration) -> Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: goma-healthcheck\r\nConnection: close\r\n\r\n"
    )?;
    let mut reply = Vec::new();
    stream.take(4096).read_to_end(&mut reply)?;
    let Some(status) = reply.get(9..12).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()) else {
        bail!("no HTTP reply");
    };
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_on_all_addresses_is_asked_on_the_loopback_that_is_there() {
        for (bound, asked) in [
            ("[::]:80", &["127.0.0.1:80", "[::1]:80"][..]),
            ("0.0.0.0:80", &["127.0.0.1:80"]),
            ("192.0.2.1:80", &["192.0.2.1:80"]),
            ("[::1]:80", &["[::1]:80"]),
        ] {
            let found = reachable(bound.parse().expect("an address"));
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), asked, "{bound}");
        }
    }
}
