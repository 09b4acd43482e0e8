//! How the requests of a route are shared among its backends (ours).

use std::time::Duration;

use serde::Deserialize;

use super::resilience::Queue;
use super::secret::Secret;
use super::units;

/// The `loadBalancer` of a route. Without it the choice is Goma's: canary rules, weights, turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LoadBalancer {
    /// One of [`ALGORITHMS`]; empty for Goma's choice.
    pub algorithm: String,
    /// What `consistentHash` hashes. Default the client's address.
    pub hash: HashOn,
    /// Keeps a client at its backend by a cookie. Default off.
    pub sticky: Option<Sticky>,
    /// How long a backend that appears or comes back takes to its full share. Default 0 s: at once.
    #[serde(deserialize_with = "units::go_duration")]
    pub slow_start: Duration,
    /// When fewer of the backends than so many percent are up, all of them get requests. Default 0: never.
    pub panic_threshold: u32,
    /// Requests at a time at each backend, of this route. Default 0: unlimited.
    pub max_in_flight: u32,
    /// Who waits when every backend has as many as it may.
    pub queue: Queue,
}

/// Algorithms of a [`LoadBalancer`].
pub const ALGORITHMS: [&str; 4] = ["roundRobin", "random", "leastRequests", "consistentHash"];

/// A fact of a request to hash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HashOn {
    /// One of [`HASH_SOURCES`]; empty is `address`.
    pub source: String,
    /// Name of the header or cookie.
    pub name: String,
}

/// Sources of a [`HashOn`].
pub const HASH_SOURCES: [&str; 3] = ["address", "header", "cookie"];

/// The cookie that keeps a client at its backend. It names the backend by a code that only the gateway can make.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sticky {
    /// Name of the cookie. Default `goma_backend`.
    pub cookie: String,
    /// Key of the code, at least 16 characters; the same in all instances of a gateway. Default: one that is made at the
    /// start, so that a restart forgets who was where.
    pub secret: Secret,
    /// How long browsers keep it. Default 0 s: until they are closed.
    #[serde(deserialize_with = "units::go_duration")]
    pub max_age: Duration,
    /// Its `Path`. Default `/`.
    pub path: String,
    /// Its `Domain`. Default none: the host that was asked.
    pub domain: String,
    /// `lax`, `strict` or `none`. Default `lax`.
    pub same_site: String,
    /// Only over TLS: `always`, `never`, or `auto`, which is as the request came. Default `auto`.
    pub secure: String,
}

/// Values of [`Sticky::same_site`].
pub const SAME_SITE: [&str; 3] = ["lax", "strict", "none"];
/// Values of [`Sticky::secure`].
pub const SECURE: [&str; 3] = ["auto", "always", "never"];

impl Default for Sticky {
    fn default() -> Sticky {
        Sticky {
            cookie: "goma_backend".to_owned(),
            secret: Secret::default(),
            max_age: Duration::ZERO,
            path: "/".to_owned(),
            domain: String::new(),
            same_site: "lax".to_owned(),
            secure: "auto".to_owned(),
        }
    }
}
