//! What a configuration says about the backends of one route, as plain data.

use std::fmt;
use std::time::Duration;

use super::balance::Hedge;
use super::guard::GuardSettings;
use super::matching::Match;
use super::retry::Policy;
use super::slots::Queue;

/// The backends of one route and how to reach them.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The route's name: for log lines, and so that a reload finds its round-robin position again.
    pub name: String,
    /// In the order of the configuration.
    pub backends: Vec<BackendSettings>,
    /// How requests are shared; Goma's way by default.
    pub balance: Balance,
    /// What is learned from the requests.
    pub guard: GuardSettings,
    /// What is tried again beyond what loses nothing.
    pub retry: Option<Policy>,
    /// When a second backend is asked before the first one has answered.
    pub hedge: Option<Hedge>,
    /// Requests at a time at one origin, of all routes together.
    pub origin_bound: Option<usize>,
    /// Active health check; `None` means that the route checks nothing itself.
    pub health: Option<HealthSettings>,
    /// Limits and protocol of the connections.
    pub transport: Transport,
    /// Certificates of `https` backends.
    pub tls: Tls,
}

/// One backend of a route.
#[derive(Clone, Debug, Default)]
pub struct BackendSettings {
    /// `http://`, `https://` or `h2c://`, host, and optionally port, base path and query.
    pub endpoint: String,
    /// Share of the requests; 0 in all of a route's backends means round robin.
    pub weight: u32,
    /// Rules that all must hold; any backend with rules makes the route a canary.
    pub matches: Vec<Match>,
    /// Takes every request that its rules allow.
    pub exclusive: bool,
    /// Among exclusive backends whose rules hold, the highest wins.
    pub priority: i64,
}

/// How requests are shared among the backends of a route.
#[derive(Clone, Debug, Default)]
pub struct Balance {
    /// Who of those that may take a request takes it.
    pub algorithm: Algorithm,
    /// The cookie that keeps a client at its backend; `None` for none.
    pub sticky: Option<Sticky>,
    /// When fewer of the backends than so many percent are up, all count as up; 0 for never.
    pub panic_percent: u32,
    /// How many of the backends may be out for failing, in percent; of several always one.
    pub ejected_percent: u32,
    /// Who may wait for a free place at a backend.
    pub queue: Option<Queue>,
}

/// Who of several backends takes a request. Weights are shares for each of them; those without weights are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// At random when any backend has a weight or rules, else in turn.
    #[default]
    Goma,
    /// In turn, weights included.
    RoundRobin,
    /// At random.
    Random,
    /// Of two drawn at random the one with fewer requests in flight.
    LeastRequests,
    /// By a hash of a fact of the request, so that equal facts come to the same backend (Ketama).
    ConsistentHash(HashKey),
}

/// What is hashed. A request that lacks it is hashed by the client's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Address,
    /// The first value of a header.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
}

/// A cookie that keeps a client at its backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// Key of the code that names a backend; `None` for the key of the process.
    pub secret: Option<Vec<u8>>,
    /// Its attributes, `; Path=/` and so on, without `Secure`.
    pub attributes: String,
    /// Whether it is for TLS only.
    pub secure: Secure,
}

/// Whether a cookie is for TLS only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// When the request came over TLS.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// How to check whether a backend is alive.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HealthSettings {
    /// Appended to the text of the endpoint; no slash is put between.
    pub path: String,
    /// Time between two checks; whole seconds, at least one. 30 s by default.
    pub interval: Duration,
    /// Limit for one check with all its redirects. 5 s by default.
    pub timeout: Duration,
    /// Statuses of a healthy backend; empty means every status below 400.
    pub healthy: Vec<u16>,
    /// Successes in a row that bring a backend back. 1 by default.
    pub rise: u32,
    /// Failures in a row that take a backend out. 1 by default.
    pub fall: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            path: String::new(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
            healthy: Vec::new(),
            rise: 1,
            fall: 1,
        }
    }
}

/// Limits and protocol of the connections to backends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transport {
    /// Limit for the TCP connection to one address, and for the first look-up of a name. 5 s by default.
    pub connect_timeout: Duration,
    /// Limit for the TLS handshake; `None` means none. 10 s by default.
    pub tls_handshake_timeout: Option<Duration>,
    /// Whether requests have limits that [`Deadline`](super::deadline::Deadline) enforces by closing the connection. Then
    /// an HTTP/2 connection carries one request at a time, so that an expiry hurts no other. Not by default.
    pub one_stream: bool,
    /// How long an unused connection is kept; `None` means for ever. 90 s by default.
    pub idle_timeout: Option<Duration>,
    /// HTTP/2 to `https` backends that offer it. On by default.
    pub http2: bool,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            tls_handshake_timeout: Some(Duration::from_secs(10)),
            one_stream: false,
            idle_timeout: Some(Duration::from_secs(90)),
            http2: true,
        }
    }
}

/// Certificates towards `https` backends. PEM texts, already read from their files.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Authorities to trust instead of the system's.
    pub root_cas: Option<Vec<u8>>,
    /// What we present when the backend asks for a certificate.
    pub client: Option<ClientCertificate>,
}

/// A certificate chain, leaf first, and its key.
#[derive(Clone)]
pub struct ClientCertificate {
    /// One or more `CERTIFICATE` blocks.
    pub certificates: Vec<u8>,
    /// One `PRIVATE KEY`, `RSA PRIVATE KEY` or `EC PRIVATE KEY` block, not encrypted.
    pub key: Vec<u8>,
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate").finish_non_exhaustive()
    }
}

/// Something in [`Settings`] that we refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct SettingError {
    /// Position in [`Settings::backends`]; `None` for a setting of the whole route.
    pub backend: Option<usize>,
    /// The key of the configuration: `endpoint`, `healthCheck.path`, `rootCAs`, `clientCert`, `clientKey`.
    pub field: &'static str,
    /// What is wrong. Holds no secrets.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
}

/// Connections to backends that are kept while unused, in all, for `maxIdleConns`; 0 lifts the bound. In Goma every route has
/// a pool of its own, so its default of 512 is too few for the one that they share here.
pub fn most_kept(asked: u32) -> usize {
    match asked {
        0 => 1 << 16,
        512 => 4096,
        asked => asked as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_connections_are_kept_as_the_operator_says() {
        for (asked, expected) in [(7, 7), (512, 4096), (0, 65_536)] {
            assert_eq!(most_kept(asked), expected, "maxIdleConns: {asked}");
        }
    }
}
