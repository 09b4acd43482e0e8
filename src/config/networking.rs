//! The `networking` section: connections to backends, and how their names are looked up (goma-core §2.1).

use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;

use super::units;

/// The `networking` section, as it stands in the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Networking {
    pub(super) transport: Transport,
    pub(super) dns_cache: DnsCache,
}

/// Connections to backends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Transport {
    /// Never check backends' certificates, whatever a route says. Default false.
    pub insecure_skip_verify: bool,
    /// Do not ask backends for gzip on behalf of clients that named no encoding. Default false.
    pub disable_compression: bool,
    /// Idle connections kept in all. Default 512, which stands for 4096 here, where all routes share them; 0 is unlimited.
    pub max_idle_conns: u32,
    /// Idle connections kept to one backend; has no effect yet. Default 256; 0 means 2.
    pub max_idle_conns_per_host: u32,
    /// Requests under way at one backend of `http` or `https`, of all routes together, which HTTP/1.1 needs a connection each
    /// for; more wait. Counts where the file has it. Default 256, which is unlimited here; 0 is unlimited.
    pub max_conns_per_host: u32,
    /// How long an idle connection is kept, whole seconds. Default 90 s; 0 is forever (none).
    #[serde(deserialize_with = "units::seconds")]
    pub idle_conn_timeout: Option<Duration>,
    /// Deadline of a TLS handshake, whole seconds. Default none.
    #[serde(deserialize_with = "units::seconds")]
    pub tls_handshake_timeout: Option<Duration>,
    /// Deadline from the sent request to the head of the response, whole seconds; then 504. Default none.
    #[serde(deserialize_with = "units::seconds")]
    pub response_header_timeout: Option<Duration>,
    /// HTTP/2 to `https` backends that offer it. Default true.
    #[serde(rename = "forceAttemptHTTP2")]
    pub force_attempt_http2: bool,
}

impl Default for Transport {
    fn default() -> Transport {
        Transport {
            insecure_skip_verify: false,
            disable_compression: false,
            max_idle_conns: 512,
            max_idle_conns_per_host: 256,
            max_conns_per_host: 256,
            idle_conn_timeout: Some(Duration::from_secs(90)),
            tls_handshake_timeout: None,
            response_header_timeout: None,
            force_attempt_http2: true,
        }
    }
}

/// Looking up names of backends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DnsCache {
    /// Longest time an answer is used, whole seconds. Default 300 s, also for 0 and less.
    #[serde(deserialize_with = "lifetime")]
    pub ttl: Duration,
    /// Forget all answers when the configuration is reloaded. Default false.
    pub clear_on_reload: bool,
    /// Name servers, `host[:port]`, tried in order. Default none: the system's.
    pub resolver: Vec<String>,
}

const DNS_TTL: Duration = Duration::from_secs(300);

impl Default for DnsCache {
    fn default() -> DnsCache {
        DnsCache { ttl: DNS_TTL, clear_on_reload: false, resolver: Vec::new() }
    }
}

fn lifetime<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    let seconds = i64::deserialize(value)?;
    Ok(u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map_or(DNS_TTL, Duration::from_secs))
}
