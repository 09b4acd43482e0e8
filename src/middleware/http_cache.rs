//! Stores responses and answers with them: a shared cache by RFC 9111.
//!
//! Where it stands in the list does not matter: the look-up comes after all request hooks, so that nobody gets around an
//! authentication, and response headers and compression come after it. What is stored and reused is what the backend allows;
//! the settings narrow that, and say what counts where the backend says nothing. Of several that take a path the last one
//! counts. Spec middlewares §5.11.
//!
//! ```yaml
//! - name: cache
//!   type: httpCache
//!   paths: ["^/assets/", "^/catalog"]
//!   rule: { maxTtl: 3600, memoryLimit: 256Mi, staleIfError: 10m }
//! ```

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use super::ranges::{Range, Ranges};
use super::{Part, Paths, Scope, Settings};
use crate::cache::freshness::Policy;
use crate::cache::key::{KeyParts, QueryPart};
use crate::cache::zone::Zone;
use crate::config::{Place, Problem, units};

/// Stores responses and answers with them, as far as backend and client allow it (RFC 9111).
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpCache {
    /// The longest that a response is fresh, in seconds, whatever the backend says. Default 300.
    max_ttl: u64,
    /// The largest `max-stale` of a client that counts, in seconds: how stale a response it may ask for. Default 0.
    max_stale: u64,
    /// Memory for responses, with all that it takes to keep them, such as `256Mi`. Default 64Mi.
    memory_limit: String,
    /// The only statuses to store. Empty: all but `excludedResponseCodes`.
    cacheable_status_codes: Vec<u16>,
    /// Statuses not to store, as `404` or `400-499`. Default: most errors and redirects, as in Goma; an empty list leaves it to
    /// the backend.
    excluded_response_codes: Vec<String>,
    /// Whether the query counts. Default (ours): all of it; `false`: pages that differ by their query are one.
    include_query_in_key: Option<bool>,
    /// Query parameters that count; empty: all.
    query_params_to_cache: Vec<String>,
    /// Leaves out `X-Cache-Status`, `Cache-Status` and the `Cache-Control` made for responses that have none. Default false.
    disable_cache_status_header: bool,
    /// Further parts of the key (ours): `header:NAME`, `cookie:NAME`; and `-scheme` or `-host` to leave one of those out.
    key: Vec<String>,
    /// Request headers by which responses differ even if they do not say so in `Vary` (ours).
    vary: Vec<String>,
    /// The largest body to store (ours). Default: a fourth of `memoryLimit`, 32Mi at most.
    max_object_size: String,
    /// How long responses are fresh that do not say, such as `30s` (ours). Default: they are not stored.
    default_ttl: String,
    /// How long a response may be served stale while it is fetched anew, where it does not say (ours). Default 0.
    stale_while_revalidate: String,
    /// How long a response may be served stale when the backend fails, where it does not say (ours). Default 0.
    stale_if_error: String,
    /// How long requests wait for another one that fetches the same (ours); `0s`: they do not. Default 5s.
    lock: String,
    /// Who may purge with the method `PURGE` (ours). Default: nobody.
    purge: Option<PurgeSettings>,
}

/// Who may purge with the method `PURGE`: all that is given has to hold.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", default)]
struct PurgeSettings {
    /// Addresses, blocks and ranges of clients.
    allowed: Vec<String>,
    /// A token, as `Authorization: Bearer TOKEN`.
    token: String,
    /// Whether responses stay, stale, rather than go. Default false.
    soft: bool,
}

/// Goma's default. Spec middlewares §5.11.
const EXCLUDED: [&str; 18] = [
    "400", "401", "402", "403", "404", "405", "409", "410", "429", "500", "501", "502", "503", "504", "301", "302",
    "307", "308",
];

impl Default for HttpCache {
    fn default() -> Self {
        HttpCache {
            max_ttl: 300,
            max_stale: 0,
            memory_limit: "64Mi".to_owned(),
            cacheable_status_codes: Vec::new(),
            excluded_response_codes: EXCLUDED.map(str::to_owned).to_vec(),
            include_query_in_key: None,
            query_params_to_cache: Vec::new(),
            disable_cache_status_header: false,
            key: Vec::new(),
            vary: Vec::new(),
            max_object_size: String::new(),
            default_ttl: String::new(),
            stale_while_revalidate: String::new(),
            stale_if_error: String::new(),
            lock: "5s".to_owned(),
            purge: None,
        }
    }
}

/// The built cache of one route.
pub struct Caching {
    paths: Paths,
    /// What makes two requests the same.
    pub parts: KeyParts,
    /// Headers that always select.
    pub vary: Vec<HeaderName>,
    /// What may be stored and reused.
    pub policy: Policy,
    /// The largest body to store, in bytes.
    pub most: usize,
    /// How long to wait for another request that fetches the same; zero: not at all.
    pub patience: Duration,
    /// Whether `X-Cache-Status` and the like are sent.
    pub says: bool,
    /// Who may purge.
    pub purge: Option<Purging>,
    /// Where it is stored; nowhere in a configuration that is only looked at.
    pub zone: Option<Arc<Zone>>,
}

/// Who may purge with `PURGE`.
pub struct Purging {
    allowed: Option<Ranges>,
    token: Option<String>,
    /// Whether responses stay, stale.
    pub soft: bool,
}

impl Caching {
    /// Whether it takes requests of this raw path.
    pub fn takes(&self, path: &str) -> bool {
        self.paths.take(path)
    }
}

impl Purging {
    /// Whether this client may purge.
    pub fn admits(&self, client: IpAddr, authorization: Option<&[u8]>) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(client))
            && self.token.as_ref().is_none_or(|token| bears(authorization.unwrap_or_default(), token))
    }
}

/// Whether this is `Bearer TOKEN`; takes the same time wherever the two differ.
fn bears(authorization: &[u8], token: &str) -> bool {
    let given = authorization.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    given.is_some_and(|(_, given)| given.trim_ascii().ct_eq(token.as_bytes()).into())
}

impl Settings for HttpCache {
    const KIND: &'static [&'static str] = &["httpCache"];
    const GUARDS: bool = false;
    const EXAMPLE: &'static str = include_str!("../../conf/examples/middlewares/httpCache.yml");

    fn doubts(&self, scope: &Scope<'_>) -> Vec<Problem> {
        let place = scope.place.child("rule");
        let mut doubts = Vec::new();
        let mut doubt = |key: &str, holds: bool, message: &str, remedy: &str| {
            doubts.extend(holds.then(|| place.child(key).warning(message, remedy)));
        };
        doubt(
            "maxTtl",
            self.default_ttl.is_empty(),
            "is a cap: a response that does not say how long it is fresh is not stored (Goma stored all)",
            "let the backend send `Cache-Control`, or set `defaultTtl` for what it says nothing of",
        );
        doubts.extend(scope.paths.is_empty().then(|| {
            let message = "are not given: the whole route is cached (in Goma: nothing)";
            scope.place.child("paths").warning(message, "list the paths to cache, or `/*`")
        }));
        let mut doubt = |key: &str, holds: bool, message: &str, remedy: &str| {
            doubts.extend(holds.then(|| place.child(key).warning(message, remedy)));
        };
        doubt(
            "includeQueryInKey",
            self.include_query_in_key == Some(false),
            "is false: pages that differ by their query are one to the cache",
            "remove it, or name the parameters that count in `queryParamsToCache`",
        );
        doubt(
            "queryParamsToCache",
            self.include_query_in_key == Some(false) && !self.query_params_to_cache.is_empty(),
            "does not count, since `includeQueryInKey` is false",
            "remove one of them",
        );
        doubts
    }

    fn build(self, scope: &Scope<'_>) -> Result<Part, Vec<Problem>> {
        let place = scope.place.child("rule");
        let mut read = Reading { place: &place, problems: Vec::new() };
        let limit = read.size("memoryLimit", &self.memory_limit).filter(|limit| *limit > 0).unwrap_or(DEFAULT_LIMIT);
        let most = read.size("maxObjectSize", &self.max_object_size).unwrap_or((limit / 4).min(DEFAULT_MOST));
        let policy = Policy {
            max_ttl: seconds(self.max_ttl),
            default_ttl: read.duration("defaultTtl", &self.default_ttl).filter(|ttl| !ttl.is_zero()),
            max_stale: seconds(self.max_stale),
            stale_while_revalidate: read
                .duration("staleWhileRevalidate", &self.stale_while_revalidate)
                .unwrap_or_default(),
            stale_if_error: read.duration("staleIfError", &self.stale_if_error).unwrap_or_default(),
            cacheable: read.statuses(&self.cacheable_status_codes),
            excluded: read.ranges(&self.excluded_response_codes),
        };
        let parts = read.key(&self);
        let vary = self.vary.iter().enumerate().filter_map(|(i, name)| read.name("vary", i, name)).collect();
        let patience = read.duration("lock", &self.lock).unwrap_or_default();
        let purge = self.purge.as_ref().and_then(|purge| read.purge(purge));
        if !read.problems.is_empty() {
            return Err(read.problems);
        }
        let in_use = !scope.route.is_empty() && scope.tools.handle.is_some();
        let zone = in_use.then(|| {
            let zone = scope.tools.caches.zone(scope.name, scope.route, limit);
            zone.store.resize(limit);
            zone
        });
        let paths = Paths::of(scope);
        let says = !self.disable_cache_status_header;
        let most = most.min(limit);
        Ok(Part::Cache(Arc::new(Caching { paths, parts, vary, policy, most, patience, says, purge, zone })))
    }
}

const DEFAULT_LIMIT: usize = 64 << 20;
const DEFAULT_MOST: usize = 32 << 20;

/// No freshness is longer: a year, so that sums of times stay small.
fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(365 * 24 * 3600))
}

/// Reads texts of the settings, and remembers what is wrong with them.
struct Reading<'a> {
    place: &'a Place,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn size(&mut self, key: &str, text: &str) -> Option<usize> {
        if text.is_empty() {
            return None;
        }
        match units::bytes(text) {
            Ok(size) => usize::try_from(size).ok(),
            Err(message) => self.wrong(self.place.child(key), format!("`{text}` {message}"), ""),
        }
    }

    /// A duration, or a bare number of seconds as in Goma's other keys.
    fn duration(&mut self, key: &str, text: &str) -> Option<Duration> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if let Ok(number) = text.parse::<u64>() {
            return Some(seconds(number));
        }
        match units::duration(text) {
            Ok(duration) => Some(duration.min(seconds(u64::MAX))),
            Err(message) => self.wrong(self.place.child(key), format!("`{text}` {message}"), ""),
        }
    }

    fn statuses(&mut self, codes: &[u16]) -> Vec<u16> {
        for (index, code) in codes.iter().enumerate().filter(|(_, code)| !(200..600).contains(*code)) {
            let place = self.place.child("cacheableStatusCodes").item(index);
            self.problems.push(place.error(format!("{code} is no status of a response"), "write one from 200 to 599"));
        }
        codes.to_vec()
    }

    fn ranges(&mut self, codes: &[String]) -> Vec<u16> {
        let mut all = Vec::new();
        for (index, text) in codes.iter().enumerate() {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let range = first.trim().parse().ok().zip(last.trim().parse::<u16>().ok());
            match range.filter(|(first, last): &(u16, u16)| (100..600).contains(first) && first <= last && *last < 600)
            {
                Some((first, last)) => all.extend(first..=last),
                None => {
                    let place = self.place.child("excludedResponseCodes").item(index);
                    let message = format!("`{text}` is neither a status nor a range of statuses");
                    self.problems.push(place.error(message, "write `404` or `400-499`"));
                }
            }
        }
        all
    }

    fn name(&mut self, key: &str, index: usize, name: &str) -> Option<HeaderName> {
        match HeaderName::try_from(name.trim()) {
            Ok(name) => Some(name),
            Err(_) => {
                let place = self.place.child(key).item(index);
                self.wrong(place, format!("`{name}` is no header name"), "use a name such as X-Device")
            }
        }
    }

    fn key(&mut self, settings: &HttpCache) -> KeyParts {
        let query = match (settings.include_query_in_key, settings.query_params_to_cache.is_empty()) {
            (Some(false), _) => QueryPart::None,
            (_, true) => QueryPart::All,
            (_, false) => QueryPart::Only(settings.query_params_to_cache.clone()),
        };
        let mut parts = KeyParts { query, ..KeyParts::default() };
        for (index, part) in settings.key.iter().enumerate() {
            match part.trim().split_once(':') {
                Some(("header", name)) => parts.headers.extend(self.name("key", index, name)),
                Some(("cookie", name)) if !name.trim().is_empty() => parts.cookies.push(name.trim().to_owned()),
                None if part.trim() == "-scheme" => parts.scheme = false,
                None if part.trim() == "-host" => parts.host = false,
                None if matches!(part.trim(), "scheme" | "host" | "path" | "query" | "method") => {}
                _ => {
                    let place = self.place.child("key").item(index);
                    let remedy = "write `header:NAME`, `cookie:NAME`, `-scheme` or `-host`";
                    self.wrong::<()>(place, format!("`{part}` is no part of a request"), remedy);
                }
            }
        }
        parts
    }

    fn purge(&mut self, purge: &PurgeSettings) -> Option<Purging> {
        let place = self.place.child("purge");
        if purge.allowed.is_empty() && purge.token.trim().is_empty() {
            return self.wrong(place, "would let everybody purge".to_owned(), "give `allowed` addresses or a `token`");
        }
        let mut ranges = Vec::new();
        for (index, entry) in purge.allowed.iter().enumerate() {
            match Range::parse(entry) {
                Ok(range) => ranges.push(range),
                Err(message) => {
                    let place = place.child("allowed").item(index);
                    self.wrong::<()>(place, format!("`{entry}` {message}"), "write an address or a block");
                }
            }
        }
        let allowed = (!purge.allowed.is_empty()).then(|| Ranges::from_iter(ranges));
        let token = Some(purge.token.trim().to_owned()).filter(|token| !token.is_empty());
        Some(Purging { allowed, token, soft: purge.soft })
    }

    fn wrong<T>(&mut self, place: Place, message: String, remedy: &str) -> Option<T> {
        self.problems.push(place.error(message, remedy));
        None
    }
}

/// Whether a request says who the client is. RFC 9111 §3.5.
pub fn authorized(headers: &HeaderMap, identity: &[HeaderName]) -> bool {
    headers.contains_key(http::header::AUTHORIZATION) || identity.iter().any(|name| headers.contains_key(name))
}
