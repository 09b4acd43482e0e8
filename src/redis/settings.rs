//! What the operator wrote about Redis, checked: addresses, and certificates read once at start.

use std::fmt;
use std::time::Duration;

use crate::config::{Gateway, Place, Problem};

/// Everything that a connection needs.
#[derive(Clone)]
pub struct Settings {
    pub(super) topology: Topology,
    pub(super) username: String,
    pub(super) password: String,
    pub(super) db: u32,
    pub(super) flush: bool,
    pub(super) tls: Option<Tls>,
    pub(super) connect_timeout: Duration,
    pub(super) timeout: Duration,
}

/// Where the data is.
#[derive(Clone)]
pub(super) enum Topology {
    /// At one server.
    Standalone(Address),
    /// At the master that Sentinels name.
    Sentinel { nodes: Vec<Address>, master: String, username: String, password: String },
    /// Spread over the nodes of a Cluster, of which these are some.
    Cluster(Vec<Address>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
}

/// PEM texts.
#[derive(Clone)]
pub(super) struct Tls {
    /// Authorities; `None` for the system's.
    pub roots: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Settings {
    /// Reads the section; `None` where no Redis is configured.
    ///
    /// # Errors
    /// Everything that is wrong with it, with the key.
    pub fn of(gateway: &Gateway) -> Result<Option<Settings>, Vec<Problem>> {
        let (redis, at) = (&gateway.redis, gateway.at.child("redis"));
        let mut problems = Vec::new();
        let addresses = addresses(&redis.addr, &redis.addrs, &at, &mut problems);
        if addresses.is_empty() && problems.is_empty() {
            return Ok(None);
        }
        let mode = match redis.mode.trim() {
            "" if redis.sentinel.master.is_empty() => "standalone",
            "" => "sentinel",
            mode => mode,
        };
        let sentinel = &redis.sentinel;
        let topology = match mode {
            "standalone" => addresses.first().cloned().map(Topology::Standalone),
            "cluster" => Some(Topology::Cluster(addresses.clone())),
            "sentinel" => Some(Topology::Sentinel {
                nodes: addresses.clone(),
                master: sentinel.master.clone(),
                username: sentinel.username.clone(),
                password: sentinel.password.as_str().to_owned(),
            }),
            other => {
                let message = format!("`{other}` is unknown");
                problems.push(at.child("mode").error(message, "write standalone, sentinel or cluster"));
                None
            }
        };
        if mode == "standalone" && addresses.len() > 1 {
            problems.push(at.child("addrs").error("names several servers", "set mode to sentinel or cluster"));
        }
        if mode == "sentinel" && sentinel.master.is_empty() {
            let master = at.child("sentinel").child("master");
            problems.push(master.error("is missing", "write the name that the Sentinels know the master by"));
        }
        if mode == "cluster" && redis.db != 0 {
            problems.push(at.child("db").error("a Cluster has only database 0", "remove it"));
        }
        for (key, limit) in [("timeout", redis.timeout), ("connectTimeout", redis.connect_timeout)] {
            if limit.is_zero() {
                problems.push(at.child(key).error("is 0: nothing could ever be answered", "remove it for the default"));
            }
        }
        let tls = tls(gateway, &at.child("tls"), &mut problems);
        match topology {
            Some(topology) if problems.is_empty() => Ok(Some(Settings {
                topology,
                username: redis.username.clone(),
                password: redis.password.as_str().to_owned(),
                db: redis.db,
                flush: redis.flush_on_startup,
                tls,
                connect_timeout: redis.connect_timeout,
                timeout: redis.timeout,
            })),
            _ => Err(problems),
        }
    }

    /// What means something else than it does in Goma.
    pub fn doubts(gateway: &Gateway) -> Vec<Problem> {
        let (tls, at) = (&gateway.redis.tls, gateway.at.child("redis").child("tls"));
        let files = [&tls.client_ca, &tls.client_cert, &tls.client_key];
        let some = files.iter().any(|file| !file.is_empty()) && files.iter().any(|file| file.is_empty());
        let message = "asks for TLS with what is here; Goma takes it for none at all without all three files";
        if some { vec![at.warning(message, "")] } else { Vec::new() }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.topology, Topology::Cluster(_))
    }
}

fn addresses(one: &str, more: &[String], at: &Place, problems: &mut Vec<Problem>) -> Vec<Address> {
    let single = (!one.trim().is_empty()).then(|| (one, at.child("addr")));
    let listed = more.iter().enumerate().map(|(index, text)| (text.as_str(), at.child("addrs").item(index)));
    let mut found = Vec::new();
    for (text, place) in single.into_iter().chain(listed) {
        match Address::parse(text) {
            Some(address) if found.contains(&address) => {}
            Some(address) => found.push(address),
            None => problems.push(place.error(format!("`{text}` is no address"), "write it like redis.internal:6379")),
        }
    }
    found
}

/// TLS is wanted where anything of it is written. (Goma wants all three files, and checks the server against the system's
/// authorities all the same.)
fn tls(gateway: &Gateway, at: &Place, problems: &mut Vec<Problem>) -> Option<Tls> {
    let tls = &gateway.redis.tls;
    let mut read = |path: &str, key: &str| {
        let text = (!path.is_empty()).then(|| std::fs::read(path))?;
        text.map_err(|error| problems.push(at.child(key).error(format!("cannot read {path}: {error}"), ""))).ok()
    };
    let roots = read(&tls.client_ca, "clientCa");
    let (certificate, key) = (read(&tls.client_cert, "clientCert"), read(&tls.client_key, "clientKey"));
    if let Some(roots) = &roots
        && let Err(why) = crate::outbound::tls_trusting(roots)
    {
        problems.push(at.child("clientCa").error(format!("{} {why}", tls.client_ca), "it must hold PEM certificates"));
    }
    match (tls.client_cert.is_empty(), tls.client_key.is_empty()) {
        (true, false) => problems.push(at.child("clientCert").error("is missing beside clientKey", "set both or none")),
        (false, true) => problems.push(at.child("clientKey").error("is missing beside clientCert", "set both or none")),
        _ => {}
    }
    let wanted = tls.enabled || !tls.client_ca.is_empty() || !tls.client_cert.is_empty();
    wanted.then(|| Tls { roots, client: certificate.zip(key) })
}

impl Address {
    fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let harmless = !host.is_empty() && !host.contains(['/', '@', ' ', '[', ']']);
        harmless.then_some(Address { host: host.to_owned(), port: port.parse().ok().filter(|port| *port != 0)? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(out, "[{}]:{}", self.host, self.port),
            false => write!(out, "{}:{}", self.host, self.port),
        }
    }
}

/// Where it is, for the log.
impl fmt::Display for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[Address]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match &self.topology {
            Topology::Standalone(address) => write!(out, "{address}"),
            Topology::Sentinel { nodes, master, .. } => write!(out, "`{master}` of Sentinels {}", list(nodes)),
            Topology::Cluster(nodes) => write!(out, "Cluster {}", list(nodes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let shown = |text: &str| Address::parse(text).map(|address| address.to_string());
        for (text, expected) in [
            ("redis:6379", Some("redis:6379")),
            (" 10.0.0.1:1 ", Some("10.0.0.1:1")),
            ("[::1]:6379", Some("[::1]:6379")),
            ("redis", None),
            (":6379", None),
            ("redis:0", None),
            ("redis:port", None),
            ("redis://redis:6379", None),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
    }
}
