//! A route as written: rule, chain and upstream (goma-core §3).

use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::balancing::LoadBalancer;
use super::certs::CertificatePair;
use super::place::Place;
use super::replies::{Cors, ErrorInterceptor};
use super::resilience::{CircuitBreaker, Hedge, Outlier, Retry, RouteTimeouts};
use super::units;

/// One route.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Route {
    /// Unique; label in metrics and log.
    pub name: String,
    /// What the request's path must begin with, on segment boundaries. §4.2.
    pub path: String,
    /// What takes the place of `path` towards the backend. §4.6.
    #[serde(deserialize_with = "units::filled")]
    pub rewrite: Option<String>,
    /// Lower wins. Default 0. §4.5.
    pub priority: i64,
    /// Default true; otherwise not routed, but still checked.
    pub enabled: bool,
    /// Host patterns; empty for any. No blank ones after loading. §4.3.
    pub hosts: Vec<String>,
    /// Methods let through, compared with their case; empty for all.
    pub methods: Vec<String>,
    /// The only backend, where `backends` is empty.
    #[serde(deserialize_with = "units::filled")]
    pub target: Option<String>,
    /// The backends; they win over `target`.
    pub backends: Vec<Backend>,
    /// How requests are shared among the backends (ours); none for Goma's choice.
    pub load_balancer: Option<LoadBalancer>,
    /// Deadlines towards the backends (ours); those that are not set are the gateway's.
    pub timeouts: RouteTimeouts,
    /// What is tried again (ours); none for what loses nothing only.
    pub retry: Option<Retry>,
    /// When a second backend is asked as well (ours); none for never.
    pub hedge: Option<Hedge>,
    /// When backends that fail requests are left out (ours); none for never.
    pub outlier: Option<Outlier>,
    /// When a backend that fails many requests gets none for a while (ours); none for never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How backends are checked; none for not at all. §5.10.
    pub health_check: Option<HealthCheck>,
    /// Towards the backend.
    pub security: Security,
    /// Older CORS. §5.6.
    pub cors: Cors,
    /// Older error interceptor. §5.7.
    pub error_interceptor: ErrorInterceptor,
    /// Answers instead of the backend. §5.8.
    pub maintenance: Maintenance,
    /// The certificate for its hosts.
    pub tls: RouteTls,
    /// Leave it out of the metrics. Default false.
    pub disable_metrics: bool,
    /// Names of its chain, outermost first. After loading the gateway's defaults stand before its own.
    pub middlewares: Vec<String>,
    /// Where it stands.
    #[serde(skip)]
    pub at: Place,
}

impl Default for Route {
    fn default() -> Route {
        Route {
            name: String::new(),
            path: String::new(),
            rewrite: None,
            priority: 0,
            enabled: true,
            hosts: Vec::new(),
            methods: Vec::new(),
            target: None,
            backends: Vec::new(),
            load_balancer: None,
            timeouts: RouteTimeouts::default(),
            retry: None,
            hedge: None,
            outlier: None,
            circuit_breaker: None,
            health_check: None,
            security: Security::default(),
            cors: Cors::default(),
            error_interceptor: ErrorInterceptor::default(),
            maintenance: Maintenance::default(),
            tls: RouteTls::default(),
            disable_metrics: false,
            middlewares: Vec::new(),
            at: Place::default(),
        }
    }
}

impl Route {
    /// Fills in what the values themselves do not know: where each stands, and what empty ones mean.
    pub(super) fn settle(&mut self, at: Place) {
        let backends = at.child("backends");
        for (index, backend) in self.backends.iter_mut().enumerate() {
            backend.at = backends.item(index);
        }
        self.hosts.retain(|host| !host.trim().is_empty());
        self.health_check = self.health_check.take().filter(|check| !check.path.is_empty());
        self.at = at;
    }
}

/// One address with a weight.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// URL of scheme http, https or h2c (ours).
    pub endpoint: String,
    /// Default 0; any above 0 makes the choice weighted. §5.5.
    pub weight: u32,
    /// Which requests may go there; all of them must hold. Empty for any request.
    #[serde(rename = "match")]
    pub matches: Vec<Match>,
    /// Takes all requests that match. Default false.
    pub exclusive: bool,
    /// Among exclusive ones the highest wins. Default 0.
    pub priority: i64,
    /// Where it stands.
    #[serde(skip)]
    pub at: Place,
}

/// One condition on a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Match {
    /// `header`, `cookie`, `query` or `ip`; anything else never matches.
    pub source: String,
    /// Name of the header, cookie or parameter.
    pub name: String,
    /// One of [`OPERATORS`]; anything else never matches.
    pub operator: String,
    /// What to compare with; for `in` a comma list.
    pub value: String,
}

/// Sources of a [`Match`].
pub const SOURCES: [&str; 4] = ["header", "cookie", "query", "ip"];
/// Operators of a [`Match`].
pub const OPERATORS: [&str; 8] =
    ["equals", "not_equals", "contains", "not_contains", "starts_with", "ends_with", "regex", "in"];

/// How backends are checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HealthCheck {
    /// Appended to the endpoint as it is.
    pub path: String,
    /// Time between two checks, Go duration, whole seconds of it, at least 1 s. Default 30 s.
    #[serde(deserialize_with = "interval")]
    pub interval: Duration,
    /// Deadline of one check, Go duration. Default 5 s.
    #[serde(deserialize_with = "timeout")]
    pub timeout: Duration,
    /// Good answers; empty for every status below 400.
    pub healthy_statuses: Vec<u16>,
    /// Good checks in a row that bring a backend back (ours). Default 1.
    pub rise: u32,
    /// Bad checks in a row that take a backend out (ours). Default 1.
    pub fall: u32,
}

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(5);

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        HealthCheck {
            path: String::new(),
            interval: INTERVAL,
            timeout: TIMEOUT,
            healthy_statuses: Vec::new(),
            rise: 1,
            fall: 1,
        }
    }
}

fn interval<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    let interval = units::filled_duration(value)?.unwrap_or(INTERVAL);
    Ok(Duration::from_secs(interval.as_secs().max(1)))
}

fn timeout<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    Ok(units::filled_duration(value)?.filter(|timeout| !timeout.is_zero()).unwrap_or(TIMEOUT))
}

/// Towards the backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Security {
    /// Send the client's Host instead of the backend's. Default true.
    pub forward_host_headers: bool,
    /// The built-in filter for attacks. Default false.
    #[serde(rename = "enableExploitProtection")]
    pub exploit_protection: bool,
    /// Keeps bots out, as a `botDetection` middleware without settings would. Default false.
    #[serde(rename = "enableBotDetection")]
    pub bot_detection: bool,
    /// TLS to the backend.
    pub tls: BackendTls,
}

impl Default for Security {
    fn default() -> Security {
        Security {
            forward_host_headers: true,
            exploit_protection: false,
            bot_detection: false,
            tls: BackendTls::default(),
        }
    }
}

/// TLS to the backend; the last three are paths, PEM, or base64 of PEM. The last two go together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct BackendTls {
    /// Do not check the backend's certificate. Default false.
    pub insecure_skip_verify: bool,
    /// Authorities to trust instead of the system's.
    #[serde(rename = "rootCAs")]
    pub root_cas: String,
    /// Our certificate.
    pub client_cert: String,
    /// Its key.
    pub client_key: super::secret::Secret,
}

/// Answers instead of the backend.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Maintenance {
    /// Default false.
    pub enabled: bool,
    /// Default 503.
    #[serde(rename = "statusCode")]
    pub status: u16,
    /// Default `503 Service temporarily unavailable`.
    pub message: String,
}

impl Default for Maintenance {
    fn default() -> Maintenance {
        Maintenance { enabled: false, status: 503, message: "503 Service temporarily unavailable".to_owned() }
    }
}

/// The certificate for a route's hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteTls {
    /// Its own certificate.
    pub certificate: Option<CertificatePair>,
    /// Name of the issuer; `none` for no certificate; empty for the default issuer.
    pub provider: String,
}
