//! One look-up of a name: the hosts file first, then DNS.
//!
//! DNS is asked as the system says (`/etc/resolv.conf`, with its search list), or the servers of
//! `dnsCache.resolver`, one after the other in their order. The hosts file is read at each look-up, so that a
//! change needs no restart.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::read_system_conf;
use tokio::sync::Semaphore;

/// How names are resolved. Fixed for the life of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// Longest time that an answer is used; its own TTL may be shorter, but one second is the least. 300 s by
    /// default.
    pub ttl: Duration,
    /// Ask for every name again after a reload.
    pub clear_on_reload: bool,
    /// Name servers, tried in this order; empty means the system's. See [`resolver_address`].
    pub resolvers: Vec<SocketAddr>,
    /// The hosts file, `/etc/hosts` by default.
    pub hosts: PathBuf,
}

impl Default for DnsSettings {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            clear_on_reload: false,
            resolvers: Vec::new(),
            hosts: PathBuf::from("/etc/hosts"),
        }
    }
}

/// Reads an entry of `dnsCache.resolver`: an IP address with an optional port, 53 by default.
///
/// # Errors
/// What is wrong and what to write, in one sentence.
pub fn resolver_address(text: &str) -> Result<SocketAddr, String> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    match (text.parse(), bare.parse::<IpAddr>()) {
        (Ok(address), _) => Ok(address),
        (_, Ok(ip)) => Ok(SocketAddr::new(ip, 53)),
        _ => Err(format!("expected an IP address like \"10.0.0.2\" or \"10.0.0.2:5353\", found {text:?}")),
    }
}

/// What a look-up found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// At least one; IPv4 first.
    pub ips: Vec<IpAddr>,
    /// How long to use it, within the bounds of [`DnsSettings::ttl`].
    pub ttl: Duration,
}

/// Why a look-up found nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LookupError {
    TimedOut,
    Failed(String),
}

/// The means to look names up. Cheap to share, no state of its own worth keeping.
pub(super) struct Lookup {
    settings: DnsSettings,
    /// Asked in this order; empty when there is none.
    resolvers: Vec<TokioResolver>,
    permits: Semaphore,
}

impl Lookup {
    pub fn new(settings: DnsSettings) -> Self {
        let resolvers = resolvers(&settings).unwrap_or_else(|error| {
            log::warn!(target: "dns", "only the hosts file resolves names: {error}");
            Vec::new()
        });
        Self { settings, resolvers, permits: Semaphore::new(LOOK_UPS_AT_ONCE) }
    }

    pub async fn find(&self, host: &str) -> Result<Answer, LookupError> {
        let mut ips = self.in_hosts_file(host).await;
        if ips.is_empty() && is_localhost(host) {
            ips = vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
        }
        if ips.is_empty() {
            return self.in_dns(host).await;
        }
        let ttl = self.bounded(HOSTS_TTL);
        Ok(Answer { ips: in_order(ips), ttl })
    }

    async fn in_hosts_file(&self, host: &str) -> Vec<IpAddr> {
        let Ok(bytes) = tokio::fs::read(&self.settings.hosts).await else {
            return Vec::new();
        };
        hosts_entries(&String::from_utf8_lossy(&bytes), host)
    }

    /// The next server is asked when one is silent or unreachable; "no such name" is an answer.
    async fn in_dns(&self, host: &str) -> Result<Answer, LookupError> {
        let _permit = self.permits.acquire().await;
        let failed = |error: &dyn ToString| LookupError::Failed(error.to_string());
        let name = Name::from_str_relaxed(host).map_err(|error| failed(&error))?;
        let mut silence = LookupError::Failed("there is no name server".to_owned());
        for resolver in &self.resolvers {
            match resolver.lookup_ip(name.clone()).await {
                Ok(found) => return self.answer(&found),
                Err(NetError::Timeout) => silence = LookupError::TimedOut,
                Err(error) if error.is_no_records_found() => return Err(failed(&error)),
                Err(error) => silence = failed(&error),
            }
        }
        Err(silence)
    }

    fn answer(&self, found: &LookupIp) -> Result<Answer, LookupError> {
        let ips = in_order(found.iter().collect());
        if ips.is_empty() {
            return Err(LookupError::Failed("the name has no addresses".to_owned()));
        }
        let ttl = found.valid_until().saturating_duration_since(Instant::now());
        let ttl = self.bounded(ttl);
        Ok(Answer { ips, ttl })
    }

    fn bounded(&self, ttl: Duration) -> Duration {
        ttl.min(self.settings.ttl).max(MIN_TTL)
    }
}

/// One for the system's servers together, or one for each server of the settings: hickory's own way through a list
/// has one limit for all of it.
fn resolvers(settings: &DnsSettings) -> Result<Vec<TokioResolver>, NetError> {
    let system = read_system_conf();
    let Some(last) = settings.resolvers.len().checked_sub(1) else {
        let (config, options) = system?;
        return Ok(vec![resolver(config, options)?]);
    };
    let (config, options) = system.unwrap_or_default();
    let ndots = options.ndots;
    let servers = settings.resolvers.iter().enumerate();
    let one = |(index, address)| {
        let (domain, search) = (config.domain().cloned(), config.search().to_vec());
        let config = ResolverConfig::from_parts(domain, search, vec![name_server(address)]);
        let mut options = ResolverOpts::default();
        options.ndots = ndots;
        options.attempts = 0;
        options.timeout = if index == last { LIMIT } else { LIMIT_BEFORE_NEXT };
        resolver(config, options)
    };
    servers.map(one).collect()
}

fn resolver(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    // Names keep their answers themselves; a second cache would hide a forced look-up from the server.
    options.cache_size = 0;
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options).build()
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connection = |mut kind: ConnectionConfig| {
        kind.port = address.port();
        kind
    };
    let connections = vec![connection(ConnectionConfig::udp()), connection(ConnectionConfig::tcp())];
    NameServerConfig::new(address.ip(), true, connections)
}

/// Addresses of the lines `address name alias… # comment` that hold the name.
fn hosts_entries(text: &str, host: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let ip = words.next()?.parse().ok()?;
            words.any(|name| name.trim_end_matches('.').eq_ignore_ascii_case(host)).then_some(ip)
        })
        .collect()
}

/// RFC 6761 §6.3: such names never leave the machine.
fn is_localhost(host: &str) -> bool {
    host == "localhost" || host.ends_with(".localhost")
}

/// IPv4 before IPv6, each in the order of the answer, none twice, a bounded number.
fn in_order(ips: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut ordered: Vec<IpAddr> = Vec::with_capacity(ips.len());
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = ips.into_iter().partition(IpAddr::is_ipv4);
    for ip in v4.into_iter().chain(v6) {
        if !ordered.contains(&ip) && ordered.len() < MAX_ADDRESSES {
            ordered.push(ip);
        }
    }
    ordered
}

const MIN_TTL: Duration = Duration::from_secs(1);
const HOSTS_TTL: Duration = Duration::from_secs(10);
const MAX_ADDRESSES: usize = 64;
const LOOK_UPS_AT_ONCE: usize = 64;
/// For a server of the settings.
const LIMIT: Duration = Duration::from_secs(5);
/// For one that is not the last: a first request waits as long as for a connection, and the next shall have its turn.
const LIMIT_BEFORE_NEXT: Duration = Duration::from_secs(2);

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arc_swap::ArcSwap;
    use tokio::net::UdpSocket;

    use super::*;

    /// A DNS server on a free port of the loopback: one name, any number of IPv4 addresses.
    pub struct Server {
        pub address: SocketAddr,
        pub queries: Arc<AtomicUsize>,
        ips: Arc<ArcSwap<Vec<[u8; 4]>>>,
    }

    impl Server {
        /// No addresses means "no such name".
        pub async fn start(ttl: u32, ips: &[[u8; 4]]) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let server = Self {
                address: socket.local_addr().unwrap(),
                queries: Arc::default(),
                ips: Arc::new(ArcSwap::from_pointee(ips.to_vec())),
            };
            let (queries, ips) = (server.queries.clone(), server.ips.clone());
            tokio::spawn(async move {
                let mut query = [0; 512];
                while let Ok((length, from)) = socket.recv_from(&mut query).await {
                    queries.fetch_add(1, Ordering::SeqCst);
                    let answer = answer(&query[..length], ttl, &ips.load());
                    let _ = socket.send_to(&answer, from).await;
                }
            });
            server
        }

        pub fn change(&self, ips: &[[u8; 4]]) {
            self.ips.store(Arc::new(ips.to_vec()));
        }

        pub fn settings(&self) -> DnsSettings {
            DnsSettings {
                resolvers: vec![self.address],
                hosts: PathBuf::from("/nonexistent"),
                ..DnsSettings::default()
            }
        }
    }

    /// RFC 1035: the question repeated, then A records that point to its name.
    fn answer(query: &[u8], ttl: u32, ips: &[[u8; 4]]) -> Vec<u8> {
        let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
        let is_a = query[end - 4..end - 2] == [0, 1];
        let count = if is_a { ips.len() } else { 0 };
        let code = if ips.is_empty() { 3 } else { 0 };
        let mut out = query[..2].to_vec();
        out.extend([0x81, 0x80 | code, 0, 1, 0, count as u8, 0, 0, 0, 0]);
        out.extend(&query[12..end]);
        for ip in &ips[..count] {
            out.extend([0xC0, 12, 0, 1, 0, 1]);
            out.extend(ttl.to_be_bytes());
            out.extend([0, 4]);
            out.extend(ip);
        }
        out
    }

    #[tokio::test]
    async fn the_ttl_of_a_record_is_capped_and_never_below_a_second() {
        for (ttl, expected) in [(0, 1), (7, 7), (3600, 300)] {
            let server = Server::start(ttl, &[[10, 0, 0, 1], [10, 0, 0, 2]]).await;
            let lookup = Lookup::new(server.settings());
            let answer = lookup.find("app.test").await.unwrap();
            assert_eq!(answer.ips, [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from));
            let seconds = answer.ttl.as_secs_f64();
            let expected = f64::from(expected);
            assert!((expected - 0.9..=expected).contains(&seconds), "{ttl}: {seconds}");
        }
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_an_error() {
        let server = Server::start(60, &[]).await;
        let lookup = Lookup::new(server.settings());
        let found = lookup.find("app.test").await;
        assert!(matches!(found, Err(LookupError::Failed(_))), "{found:?}");
    }

    #[tokio::test]
    async fn a_name_with_underscores_is_asked_for() {
        let server = Server::start(60, &[[10, 0, 0, 9]]).await;
        let lookup = Lookup::new(server.settings());
        assert!(lookup.find("shop_api_").await.is_ok());
    }

    #[tokio::test]
    async fn the_next_resolver_is_asked_when_the_first_is_gone() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let gone = closed.local_addr().unwrap();
        drop(closed);
        let server = Server::start(60, &[[10, 0, 0, 1]]).await;
        let mut settings = server.settings();
        settings.resolvers.insert(0, gone);
        let lookup = Lookup::new(settings);
        assert!(lookup.find("app.test").await.is_ok());
    }

    #[tokio::test]
    async fn the_hosts_file_and_localhost_need_no_network() {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, "# comment\n::2 app\n10.1.1.1 other App.  # x\nnonsense app\n").unwrap();
        let server = Server::start(60, &[]).await;
        let settings = DnsSettings { hosts, ..server.settings() };
        let lookup = Lookup::new(settings);
        let rows = [
            ("app", vec!["10.1.1.1", "::2"]),
            ("localhost", vec!["127.0.0.1", "::1"]),
            ("x.localhost", vec!["127.0.0.1", "::1"]),
        ];
        for (host, expected) in rows {
            let answer = lookup.find(host).await.unwrap();
            let ips: Vec<_> = answer.ips.iter().map(IpAddr::to_string).collect();
            assert_eq!(ips, expected, "{host}");
        }
        assert_eq!(server.queries.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_resolver_is_an_address_with_an_optional_port() {
        let rows = [
            ("10.0.0.2", Some("10.0.0.2:53")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("2001:db8::1", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]", Some("[2001:db8::1]:53")),
            ("[2001:db8::1]:54", Some("[2001:db8::1]:54")),
            ("dns.example", None),
        ];
        for (text, expected) in rows {
            let address = resolver_address(text).ok().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{text}");
        }
    }
}
