//! Every metric, declared once: name, kind, labels and meaning.
//!
//! The names and labels of `gateway_*` and `http_*` are Goma's (core reference §7.3); `goma_edge_*` are ours. A metric
//! whose twin is named is counted once and shown under both names: the `http_*` names are deprecated.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Metric, MetricFamily, MetricType};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

/// One metric as operators see it.
#[derive(Debug)]
pub struct Declared {
    /// Name on the metrics page.
    pub name: &'static str,
    /// Deprecated second name for the same figures.
    pub twin: Option<&'static str>,
    /// What Prometheus calls its type.
    pub kind: Kind,
    /// Label names, sorted.
    pub labels: &'static [&'static str],
    /// One sentence for the page.
    pub help: &'static str,
}

/// What Prometheus calls the type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket, with sum and count. Seconds; the buckets are [`BUCKETS`].
    Histogram,
}

/// Upper bounds of every histogram, in seconds.
pub const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

macro_rules! declare {
    ($($id:ident = $kind:ident $name:literal $(also $twin:literal)? [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Declared = Declared {
                name: $name,
                twin: declare!(@twin $($twin)?),
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*
        /// Every metric there is.
        pub const ALL: &[&Declared] = &[$(&$id),*];
    };
    (@twin) => { None };
    (@twin $twin:literal) => { Some($twin) };
}

declare! {
    UPTIME = Gauge "gateway_uptime_seconds" [] "Seconds since the process started.";
    ROUTES = Gauge "gateway_routes_count" [] "Routes in the configuration, disabled ones included.";
    MIDDLEWARES = Gauge "gateway_middlewares_count" [] "Middleware definitions in the configuration.";

    VISITORS = Gauge "gateway_realtime_visitors_count" []
        "Visitors (addresses with their user agents) that were seen lately, by all gateways where they share a Redis.";

    REQUESTS = Counter "gateway_requests_total" also "http_requests_total" ["method", "name"]
        "Requests that reached a route.";
    STATUSES = Counter "gateway_response_status_total" also "http_response_status_total" ["method", "name", "status"]
        "Responses by status.";
    DURATION = Histogram "gateway_request_duration_seconds" also "http_request_duration_seconds" ["method", "name"]
        "Time from the request head to the end of the response.";
    UPSTREAM = Histogram "gateway_upstream_duration_seconds" ["name"]
        "Time spent in the upstream alone.";
    REQUEST_BYTES = Counter "gateway_request_bytes_total" ["method", "name"]
        "Bytes of request bodies as announced by Content-Length, 0 where unknown.";
    RESPONSE_BYTES = Counter "gateway_response_bytes_total" ["method", "name"]
        "Bytes of response bodies sent to clients.";
    INTERCEPTED = Counter "gateway_total_errors_intercepted" ["name", "status"]
        "Responses whose body an error interceptor replaced.";
    GEO_DENIED = Counter "gateway_geoblock_denied_total" ["country", "name"]
        "Requests refused by a geoBlock middleware; the country is `unknown` where the database has none.";
    GEO_UNKNOWN = Counter "goma_edge_geoblock_unknown_total" ["name"]
        "Requests that met a geoBlock middleware and whose country is not known.";
    BOTS = Counter "goma_edge_bots_total" ["action", "category", "name"]
        "Requests that a botDetection middleware took for a bot's, by what became of them: allowed, blocked or detected.";
    ENDS = Counter "goma_edge_request_ends_total" ["name", "reason"]
        "Requests of a route by the reason for which they ended.";

    RETRIES = Counter "goma_edge_retries_total" ["cause", "name"]
        "Attempts after a first one that failed, by how it failed.";
    RETRIES_DENIED = Counter "goma_edge_retries_denied_total" ["name"]
        "Retries that the route's budget did not allow.";
    HEDGES = Counter "goma_edge_hedges_total" ["name", "result"]
        "Requests that a slow backend kept waiting: sent to another one as well, which won or lost; or not, over_budget or nowhere to go.";
    EJECTIONS = Counter "goma_edge_ejections_total" ["backend", "cause", "name"]
        "Times that a backend was left out for failing, by the last failure.";
    BREAKER = Counter "goma_edge_breaker_changes_total" ["backend", "name", "state"]
        "Changes of a backend's circuit breaker, by its new state.";

    REFUSED = Counter "goma_edge_refused_requests_total" ["reason"]
        "Requests refused before a route was known.";
    EXPLOITS = Counter "goma_edge_exploits_total" ["family", "mode", "place"]
        "Requests that looked like an attack to exploit protection, by what they looked like and where.";
    CONNECTIONS = Gauge "goma_edge_connections" ["entry_point"]
        "Connections from clients that are open now.";
    HANDSHAKES = Counter "goma_edge_tls_handshakes_total" ["result"]
        "TLS handshakes with clients by how they ended: full, resumed, plain (no TLS at all), overdue, left or failed.";
    CERTIFICATES = Gauge "goma_edge_certificate_expiry_timestamp_seconds" ["certificate"]
        "Unix time of the last second for which a certificate that is served is valid, by the first of its names.";
    OCSP = Counter "goma_edge_ocsp_requests_total" ["result"]
        "Questions to OCSP responders about certificates that are served, by the answer: good, revoked, unknown or failed.";
    STREAMS = Gauge "goma_edge_streams" ["kind"]
        "Open WebSockets (websocket) and event streams (events).";
    UPGRADES = Counter "goma_edge_upgrades_total" ["result"]
        "Swaps of the program: succeeded counts in the process that took over, failed and refused in the one that serves on.";
    RELOADS = Counter "goma_edge_reloads_total" ["result"]
        "Attempts to apply a configuration: applied, unchanged or failed.";
    RELOADED_AT = Gauge "goma_edge_config_last_reload_success_timestamp_seconds" []
        "Unix time at which the configuration in force was confirmed.";
    LOG_DROPPED = Counter "goma_edge_log_lines_dropped_total" []
        "Log lines given up because they could not be written fast enough.";

    AUTH = Counter "goma_edge_auth_total" ["kind", "middleware", "reason", "result"]
        "Requests that had to prove who they are: allowed, denied, answered (sent to a login) or error, with the reason.";
    AUTH_OUTSIDE = Histogram "goma_edge_auth_call_duration_seconds" ["kind", "middleware"]
        "Time that an authenticating middleware waited for another server.";

    CACHE_REQUESTS = Counter "goma_edge_cache_requests_total" ["name", "outcome", "route"]
        "GET requests that met an httpCache middleware: hit, miss, expired, revalidated, stale, stale_error or bypass.";
    CACHE_BYPASSES = Counter "goma_edge_cache_bypasses_total" ["name", "reason", "route"]
        "Requests that an httpCache middleware did not look for, by the reason.";
    CACHE_COLLAPSED = Counter "goma_edge_cache_collapsed_total" ["name", "route"]
        "Requests that got the response that another one was fetching.";
    CACHE_PURGED = Counter "goma_edge_cache_purged_total" ["name", "route"] "Stored responses that were purged.";
    CACHE_EVICTED = Counter "goma_edge_cache_evicted_total" ["name", "route"]
        "Stored responses that had to go for others.";
    CACHE_SERVED = Counter "goma_edge_cache_served_bytes_total" ["name", "route"] "Body bytes served from the store.";
    CACHE_BYTES = Gauge "goma_edge_cache_bytes" ["name", "route"] "Memory that stored responses take.";
    CACHE_LIMIT = Gauge "goma_edge_cache_limit_bytes" ["name", "route"] "Memory that stored responses may take.";
    CACHE_ENTRIES = Gauge "goma_edge_cache_entries" ["name", "route"] "Stored responses.";
    RATE_LIMITS = Counter "goma_edge_rate_limit_total" ["by", "middleware", "result"]
        "Requests that met a rateLimit: allowed, limited, banned or refused; by memory, redis, lease (what Redis said before) or fallback (memory while Redis is down).";
    REDIS_UP = Gauge "goma_edge_redis_up" []
        "1 while the shared Redis is in use, 0 while it is not.";
    REDIS_FAILURES = Counter "goma_edge_redis_failures_total" ["reason"]
        "Calls to Redis that came to nothing: down (not in use, nothing sent), slow, broken or refused.";
    REDIS_CHANGES = Counter "goma_edge_redis_changes_total" ["state"]
        "How often Redis came into use (up) and went out of it (down).";

    CPU = Counter "process_cpu_seconds_total" [] "User and system CPU time of the process.";
    OPEN_FDS = Gauge "process_open_fds" [] "Open file descriptors.";
    MAX_FDS = Gauge "process_max_fds" [] "Limit of open file descriptors.";
    RESIDENT = Gauge "process_resident_memory_bytes" [] "Resident memory.";
    VIRTUAL = Gauge "process_virtual_memory_bytes" [] "Virtual memory.";
    STARTED = Gauge "process_start_time_seconds" [] "Unix time at which the process started.";
    THREADS = Gauge "process_threads" [] "Threads of the process.";
}

impl Declared {
    /// The families to show: this metric, and the same figures under the deprecated name.
    pub(super) fn families(&self, samples: Vec<Metric>) -> impl Iterator<Item = MetricFamily> {
        let twin = self.twin.map(|name| self.family(name, samples.clone()));
        [Some(self.family(self.name, samples)), twin].into_iter().flatten()
    }

    /// What the registry must know of a collector that makes its own families.
    pub(super) fn descs(metrics: &[&Declared]) -> Vec<Desc> {
        let names = metrics.iter().flat_map(|m| [Some(m.name), m.twin].map(|name| Some((m, name?))));
        let desc = |(metric, name): (&&Declared, &str)| {
            let labels = metric.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(name.to_owned(), metric.help.to_owned(), labels, HashMap::new())
                .expect("the test below builds every declared metric")
        };
        names.flatten().map(desc).collect()
    }

    fn family(&self, name: &str, samples: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(match self.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        family.set_metric(samples);
        family
    }

    /// A family of counters of the `prometheus` crate, for what is not counted on every request.
    pub(super) fn counters(&self) -> IntCounterVec {
        IntCounterVec::new(Opts::new(self.name, self.help), self.labels)
            .expect("the test below builds every declared metric")
    }

    /// A family of histograms of the `prometheus` crate.
    pub(super) fn histograms(&self) -> HistogramVec {
        HistogramVec::new(HistogramOpts::new(self.name, self.help).buckets(BUCKETS.to_vec()), self.labels)
            .expect("the test below builds every declared metric")
    }

    /// A family of gauges of the `prometheus` crate.
    pub(super) fn gauges(&self) -> IntGaugeVec {
        IntGaugeVec::new(Opts::new(self.name, self.help), self.labels)
            .expect("the test below builds every declared metric")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_declared_metric_is_valid_and_unique() {
        assert_eq!(Declared::descs(ALL).len(), ALL.len() + 3);
        let mut names = std::collections::HashSet::new();
        for metric in ALL {
            let _ = (metric.counters(), metric.gauges());
            assert!(metric.labels.is_sorted(), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            for name in [Some(metric.name), metric.twin].into_iter().flatten() {
                assert!(names.insert(name), "{name} is declared twice");
            }
        }
    }

    #[test]
    fn the_deprecated_names_show_the_same_figures() {
        let twins: Vec<_> = ALL.iter().filter_map(|m| Some((m.name, m.twin?))).collect();
        assert_eq!(
            twins,
            [
                ("gateway_requests_total", "http_requests_total"),
                ("gateway_response_status_total", "http_response_status_total"),
                ("gateway_request_duration_seconds", "http_request_duration_seconds"),
            ]
        );
    }
}
