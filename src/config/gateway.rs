//! The `gateway` section: what holds for the whole process (goma-core §2.1).

use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny};

use super::certs::Tls;
use super::networking::{DnsCache, Networking, Transport};
use super::place::Place;
use super::provider::{Directory, Providers};
use super::replies::{Cors, ErrorInterceptor};
use super::secret::Secret;
use super::{monitoring, units};

/// The `gateway` section.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Gateway {
    /// Deadlines of client connections.
    pub timeouts: Timeouts,
    /// The addresses we listen on.
    pub entry_points: EntryPoints,
    /// Certificates we serve and client certificates we ask for.
    pub tls: Tls,
    /// The Redis that several gateways share.
    pub redis: Redis,
    /// Whose word about the client's address counts.
    pub proxy: Proxy,
    /// Health endpoints and metrics.
    pub monitoring: monitoring::Monitoring,
    /// The log.
    pub log: monitoring::Log,
    /// Request and response detail in access log lines. Default false; `log.level: debug` sets it too.
    pub debug: bool,
    /// Redirect to the other slash form where only that one exists. Default true. §4.4.
    pub strict_slash: bool,
    /// Connections to backends, `networking.transport`.
    #[serde(skip)]
    pub transport: Transport,
    /// Names of backends, `networking.dnsCache`.
    #[serde(skip)]
    pub dns_cache: DnsCache,
    pub(super) networking: Networking,
    /// Older form of the middleware of that name, for every route. §5.7.
    pub error_interceptor: ErrorInterceptor,
    /// Older form of CORS, for routes that have none of their own. §5.6.
    pub cors: Cors,
    /// A folder of further routes and middlewares. §8.2.
    pub extra_config: Directory,
    /// What every route gets.
    pub defaults: Defaults,
    /// Where dynamic configuration comes from. §8.3.
    pub providers: Providers,
    /// The reload endpoint. §8.1.
    pub reload: Reload,
    /// The endpoint of the HTTP caches (ours).
    pub cache: CacheEndpoint,
    /// Request events in a Redis stream. §7.5.
    pub analytics: monitoring::Analytics,
    /// The country database.
    pub geoip: GeoIp,
    /// How the gateway stops (ours).
    pub shutdown: Shutdown,
    /// The same as `shutdown.delay`, in one word.
    #[serde(deserialize_with = "units::filled_duration")]
    pub(super) shutdown_delay: Option<Duration>,
    /// How a newer program takes the place of the running one (ours).
    pub upgrade: Upgrade,
    /// Threads (ours).
    pub workers: Workers,
    /// Bounds on what clients may send (ours).
    pub limits: Limits,
    /// Read apart from this section, into [`super::Config::routes`].
    routes: IgnoredAny,
    /// Where the section stands.
    #[serde(skip)]
    pub at: Place,
}

impl Default for Gateway {
    fn default() -> Gateway {
        Gateway {
            timeouts: Timeouts::default(),
            entry_points: EntryPoints::default(),
            tls: Tls::default(),
            redis: Redis::default(),
            proxy: Proxy::default(),
            monitoring: monitoring::Monitoring::default(),
            log: monitoring::Log::default(),
            debug: false,
            strict_slash: true,
            transport: Transport::default(),
            dns_cache: DnsCache::default(),
            networking: Networking::default(),
            error_interceptor: ErrorInterceptor::default(),
            cors: Cors::default(),
            extra_config: Directory::default(),
            defaults: Defaults::default(),
            providers: Providers::default(),
            reload: Reload::default(),
            cache: CacheEndpoint::default(),
            analytics: monitoring::Analytics::default(),
            geoip: GeoIp::default(),
            shutdown: Shutdown::default(),
            shutdown_delay: None,
            upgrade: Upgrade::default(),
            workers: Workers::default(),
            limits: Limits::default(),
            routes: IgnoredAny,
            at: Place::default(),
        }
    }
}

/// Deadlines of client connections, whole seconds in the file; 0 or absent is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// For reading a whole request with its body.
    #[serde(deserialize_with = "units::seconds")]
    pub read: Option<Duration>,
    /// From the end of the request's head to the end of the response. Not for upgraded connections.
    #[serde(deserialize_with = "units::seconds")]
    pub write: Option<Duration>,
    /// For a kept-alive connection without a request; none means that `read` counts.
    #[serde(deserialize_with = "units::seconds")]
    pub idle: Option<Duration>,
}

/// The addresses we listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryPoints {
    /// Cleartext HTTP. Default address `[::]:8080`.
    pub web: EntryPoint,
    /// HTTP over TLS. Default address `[::]:8443`.
    pub web_secure: EntryPoint,
    /// TCP and UDP ports. §5.11.
    pub pass_through: PassThrough,
}

/// Where `web` listens unless told otherwise.
pub const WEB_ADDRESS: &str = "[::]:8080";
/// Where `webSecure` listens unless told otherwise.
pub const WEB_SECURE_ADDRESS: &str = "[::]:8443";

impl Default for EntryPoints {
    fn default() -> EntryPoints {
        EntryPoints {
            web: EntryPoint { address: WEB_ADDRESS.to_owned(), ..EntryPoint::default() },
            web_secure: EntryPoint { address: WEB_SECURE_ADDRESS.to_owned(), ..EntryPoint::default() },
            pass_through: PassThrough::default(),
        }
    }
}

/// One HTTP entry point.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct EntryPoint {
    /// `host:port`; after loading never empty, the host an IP address in the form a socket address has.
    pub address: String,
    /// Open client connections here (ours); 0 is unlimited. Default `limits.maxConnections`.
    pub max_connections: Option<u32>,
    /// Open client connections here from one address (ours); 0 is unlimited. Default `limits.maxConnectionsPerAddress`.
    pub max_connections_per_address: Option<u32>,
}

/// Ports that are passed through as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PassThrough {
    /// Accepted and not used, as in Goma.
    pub address: String,
    /// The ports.
    pub forwards: Vec<Forward>,
}

/// One port of a pass-through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Forward {
    /// `tcp`, `udp` or `tcp/udp`.
    pub protocol: String,
    /// The port we listen on.
    pub port: u16,
    /// `host:port` of the backend.
    pub target: String,
}

/// The shared Redis.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Redis {
    /// `host:port`; empty for no Redis, unless `addrs` names some. Variables in it are expanded a second time.
    pub addr: String,
    /// More addresses (ours): nodes of a Cluster, or Sentinels.
    pub addrs: Vec<String>,
    /// `standalone`, `sentinel` or `cluster` (ours). Default: `sentinel` where a `sentinel.master` is named, else `standalone`.
    pub mode: String,
    /// Name of the user (ours). Default none: the server's default user.
    pub username: String,
    /// Empty for none. Variables in it are expanded a second time.
    pub password: Secret,
    /// Number of the database. Default 0.
    pub db: u32,
    /// Empty the database at start. Default false. Not when a process takes over from one that is being upgraded.
    pub flush_on_startup: bool,
    /// TLS towards Redis.
    pub tls: RedisTls,
    /// Sentinels that know the master (ours).
    pub sentinel: Sentinel,
    /// Longest time until a connection is made, Go duration (ours). Default 1 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub connect_timeout: Duration,
    /// Longest time that a request waits for an answer, Go duration (ours). Default 50 ms.
    #[serde(deserialize_with = "units::go_duration")]
    pub timeout: Duration,
}

impl Default for Redis {
    fn default() -> Redis {
        Redis {
            addr: String::new(),
            addrs: Vec::new(),
            mode: String::new(),
            username: String::new(),
            password: Secret::default(),
            db: 0,
            flush_on_startup: false,
            tls: RedisTls::default(),
            sentinel: Sentinel::default(),
            connect_timeout: Duration::from_secs(1),
            timeout: Duration::from_millis(50),
        }
    }
}

/// Sentinels that know the master; their addresses are `redis.addrs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Sentinel {
    /// The name that they know the master by.
    pub master: String,
    /// Name of the user at the Sentinels. Default none.
    pub username: String,
    /// Password at the Sentinels. Default none.
    pub password: Secret,
}

/// TLS towards Redis: paths of files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RedisTls {
    /// TLS also without any of the files: the system's authorities are asked (ours). Default false.
    pub enabled: bool,
    /// Authorities that may have signed the server's certificate. Default: the system's.
    pub client_ca: String,
    /// Our certificate. Default none.
    pub client_cert: String,
    /// Its key.
    pub client_key: String,
}

/// Whose word about the client's address counts. §5.2.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Proxy {
    /// Default false: the client is who opened the connection.
    pub enabled: bool,
    /// Peers whose headers count; single addresses are networks of one. Empty: one hop is trusted, with a warning.
    #[serde(rename = "trustedProxies", deserialize_with = "networks")]
    pub trusted: Vec<IpNet>,
    /// Headers that may carry the address, tried in order. Default `X-Forwarded-For`, `X-Real-IP`.
    pub ip_headers: Vec<String>,
}

impl Default for Proxy {
    fn default() -> Proxy {
        Proxy {
            enabled: false,
            trusted: Vec::new(),
            ip_headers: vec!["X-Forwarded-For".to_owned(), "X-Real-IP".to_owned()],
        }
    }
}

/// One network, as a type so that each wrong entry of a list is a finding of its own.
struct Network(IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(value: D) -> Result<Network, D::Error> {
        let text = String::deserialize(value)?;
        let text = text.trim();
        let network = text.parse().or_else(|_| text.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
        network.map(Network).map_err(|_| {
            Error::custom(format!("\"{text}\" is no IP address or network; write it like 10.0.0.0/8 or 192.0.2.1"))
        })
    }
}

fn networks<'de, D: Deserializer<'de>>(value: D) -> Result<Vec<IpNet>, D::Error> {
    let list: Vec<Network> = Vec::deserialize(value)?;
    Ok(list.into_iter().map(|network| network.0).collect())
}

/// What every route gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Defaults {
    /// Names of middlewares that stand before every route's own.
    pub middlewares: Vec<String>,
}

/// The reload endpoint; only there when enabled and with a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Reload {
    /// Default false.
    pub enabled: bool,
    /// Default `/gateway/reload`.
    pub path: String,
    /// Bearer token that callers must show.
    pub token: Secret,
    /// Host pattern it is restricted to; empty for any.
    pub host: String,
}

/// Path of the reload endpoint unless told otherwise.
pub const RELOAD_PATH: &str = "/gateway/reload";

impl Default for Reload {
    fn default() -> Reload {
        Reload { enabled: false, path: RELOAD_PATH.to_owned(), token: Secret::default(), host: String::new() }
    }
}

/// The endpoint that tells what the HTTP caches hold and purges in them; only there when enabled and with a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct CacheEndpoint {
    /// Default false.
    pub enabled: bool,
    /// Default `/gateway/cache`.
    pub path: String,
    /// Bearer token that callers must show.
    pub token: Secret,
    /// Host pattern it is restricted to; empty for any.
    pub host: String,
}

/// Path of the caches' endpoint unless told otherwise.
pub const CACHE_PATH: &str = "/gateway/cache";

impl Default for CacheEndpoint {
    fn default() -> CacheEndpoint {
        CacheEndpoint { enabled: false, path: CACHE_PATH.to_owned(), token: Secret::default(), host: String::new() }
    }
}

/// The country database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GeoIp {
    /// Path of the database; empty for the two usual places.
    pub database: String,
}

/// How the gateway stops (ours); Go durations.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Shutdown {
    /// How long to stay open, not ready, before draining. Default 0 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub delay: Duration,
    /// How long running requests may take to finish. Default 30 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Shutdown {
        Shutdown { delay: Duration::ZERO, grace: Duration::from_secs(30) }
    }
}

/// How a newer program takes the place of the running one (ours); Go durations.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Upgrade {
    /// How long the successor may take until it can serve. Default 60 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub timeout: Duration,
    /// How long what runs in the old process, WebSockets and event streams among it, may go on. Default 5 min.
    #[serde(deserialize_with = "units::go_duration")]
    pub grace: Duration,
}

impl Default for Upgrade {
    fn default() -> Upgrade {
        Upgrade { timeout: Duration::from_secs(60), grace: Duration::from_secs(300) }
    }
}

/// Threads and how connections are accepted (ours). Read once at start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Workers {
    /// Threads that carry requests. Default 0: as many CPUs as the process may use, by its affinity and by the CPU quota of
    /// its control group, rounded up.
    pub threads: usize,
    /// Tasks that accept connections on each listening socket. Default 0: as many as threads, four at most.
    pub acceptors: usize,
}

/// Most threads that a configuration may ask for.
pub const MOST_THREADS: usize = 1024;
/// Most accepting tasks that a configuration may ask for.
pub const MOST_ACCEPTORS: usize = 64;

/// Bounds on what clients may send (ours).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Limits {
    /// Size of a request's head. Default 64 KiB.
    #[serde(deserialize_with = "units::size")]
    pub header_bytes: usize,
    /// Header fields of a request. Default 100.
    pub header_count: usize,
    /// Deadline from the first byte of a request's head to its last, Go duration. Default 10 s.
    #[serde(deserialize_with = "units::go_duration")]
    pub header_timeout: Duration,
    /// Open client connections of an entry point. Default 0: unlimited.
    pub max_connections: u32,
    /// Open client connections of an entry point from one address. Default 0: unlimited.
    pub max_connections_per_address: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            header_bytes: 64 * 1024,
            header_count: 100,
            header_timeout: Duration::from_secs(10),
            max_connections: 0,
            max_connections_per_address: 0,
        }
    }
}
