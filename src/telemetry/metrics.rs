//! The metrics of the process, and the page that shows them.
//!
//! There is one [`Metrics`] a process and no global: whoever counts is handed what it needs. Series appear when they are
//! first counted, survive reloads, and go when their route goes.

use std::collections::HashSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

use super::caches::{CacheFigures, Caches};
use super::page::{Page, Shared};
use super::process;
use super::route::RouteMetrics;
use super::table;
use super::visitors::Visitors;
use crate::exchange::Reason;
use crate::redis::Meters;
use crate::tls::Certificate;

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    shared: Arc<Shared>,
    connections: IntGaugeVec,
    handshakes: IntCounterVec,
    certificates: IntGaugeVec,
    ocsp: IntCounterVec,
    streams: IntGaugeVec,
    upgrades: IntCounterVec,
    exploits: IntCounterVec,
    reloads: IntCounterVec,
    bots: IntCounterVec,
    geo_denied: IntCounterVec,
    geo_unknown: IntCounterVec,
    reloaded_at: IntGauge,
    routes_count: IntGauge,
    middlewares_count: IntGauge,
    auth: IntCounterVec,
    auth_outside: HistogramVec,
    retries: IntCounterVec,
    retries_denied: IntCounterVec,
    hedges: IntCounterVec,
    ejections: IntCounterVec,
    breaker: IntCounterVec,
    visitors: Arc<Visitors>,
    rate_limits: IntCounterVec,
    redis_up: IntGaugeVec,
    redis_failures: IntCounterVec,
    redis_changes: IntCounterVec,
}

/// What came of an attempt to apply a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// A new configuration is in force.
    Applied,
    /// It was the one already in force.
    Unchanged,
    /// It was refused; the old one stays.
    Failed,
}

/// What came of a request to be replaced by a newer program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// This process has taken over from another one.
    Succeeded,
    /// The new program did not come to serve; this process does.
    Failed,
    /// It was not the time for it.
    Refused,
}

/// What became of the intent to ask a second backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedged {
    /// It was asked.
    Sent,
    /// Its response was passed on.
    Won,
    /// Its response was not: another one came first, or none at all.
    Lost,
    /// The route's budget did not allow it.
    OverBudget,
    /// There was no other backend that was well.
    Nowhere,
}

impl Hedged {
    fn word(self) -> &'static str {
        match self {
            Hedged::Sent => "sent",
            Hedged::Won => "won",
            Hedged::Lost => "lost",
            Hedged::OverBudget => "over_budget",
            Hedged::Nowhere => "nowhere",
        }
    }
}

impl Metrics {
    /// Starts counting; the process's uptime counts from here.
    #[expect(clippy::new_without_default, reason = "starts a clock; a default would hide that")]
    pub fn new() -> Metrics {
        let visitors = table::VISITORS.gauges().with_label_values::<&str>(&[]);
        let metrics = Metrics {
            registry: Registry::new(),
            shared: Arc::new(Shared::default()),
            connections: table::CONNECTIONS.gauges(),
            handshakes: table::HANDSHAKES.counters(),
            certificates: table::CERTIFICATES.gauges(),
            ocsp: table::OCSP.counters(),
            streams: table::STREAMS.gauges(),
            upgrades: table::UPGRADES.counters(),
            exploits: table::EXPLOITS.counters(),
            reloads: table::RELOADS.counters(),
            bots: table::BOTS.counters(),
            geo_denied: table::GEO_DENIED.counters(),
            geo_unknown: table::GEO_UNKNOWN.counters(),
            reloaded_at: table::RELOADED_AT.gauges().with_label_values::<&str>(&[]),
            routes_count: table::ROUTES.gauges().with_label_values::<&str>(&[]),
            middlewares_count: table::MIDDLEWARES.gauges().with_label_values::<&str>(&[]),
            auth: table::AUTH.counters(),
            auth_outside: table::AUTH_OUTSIDE.histograms(),
            retries: table::RETRIES.counters(),
            retries_denied: table::RETRIES_DENIED.counters(),
            hedges: table::HEDGES.counters(),
            ejections: table::EJECTIONS.counters(),
            breaker: table::BREAKER.counters(),
            visitors: Arc::new(Visitors::new(visitors.clone())),
            rate_limits: table::RATE_LIMITS.counters(),
            redis_up: table::REDIS_UP.gauges(),
            redis_failures: table::REDIS_FAILURES.counters(),
            redis_changes: table::REDIS_CHANGES.counters(),
        };
        metrics.register(Page::new(metrics.shared.clone()));
        metrics.register(process::Process::new());
        metrics.register(metrics.connections.clone());
        metrics.register(metrics.certificates.clone());
        metrics.register(metrics.streams.clone());
        metrics.register(metrics.auth_outside.clone());
        metrics.register(metrics.redis_up.clone());
        metrics.register(visitors);
        for counters in [
            &metrics.reloads,
            &metrics.handshakes,
            &metrics.ocsp,
            &metrics.upgrades,
            &metrics.exploits,
            &metrics.bots,
            &metrics.geo_denied,
            &metrics.geo_unknown,
            &metrics.auth,
            &metrics.retries,
            &metrics.retries_denied,
            &metrics.hedges,
            &metrics.ejections,
            &metrics.breaker,
            &metrics.rate_limits,
            &metrics.redis_failures,
            &metrics.redis_changes,
        ] {
            metrics.register(counters.clone());
        }
        for gauge in [&metrics.reloaded_at, &metrics.routes_count, &metrics.middlewares_count] {
            metrics.register(gauge.clone());
        }
        metrics
    }

    fn register(&self, collector: impl Collector + 'static) {
        let registered = self.registry.register(Box::new(collector));
        registered.expect("every name is declared once, which a test in `table` checks");
    }

    /// Shows caches: read when the page is made.
    pub fn caches(&self, read: impl Fn() -> Vec<CacheFigures> + Send + Sync + 'static) {
        self.register(Caches::new(read));
    }

    /// The counters of a route: the same ones for the same name, across reloads. A look-up: once a snapshot, not a request.
    pub fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.shared.routes.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.get(name) {
            return known.clone();
        }
        routes.entry(name.into()).or_default().clone()
    }

    /// Drops the series of every route that is not in `live`. Requests still under way on a dropped route count to nowhere.
    pub fn sweep<'a>(&self, live: impl IntoIterator<Item = &'a str>) {
        let live: HashSet<&str> = live.into_iter().collect();
        let mut routes = self.shared.routes.write().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|name, _| live.contains(&**name));
    }

    /// The gauge of open connections of an entry point; a handle to keep, not to look up per connection.
    pub fn connections(&self, entry_point: &str) -> IntGauge {
        self.connections.with_label_values(&[entry_point])
    }

    /// Counters of handshakes, in the order of [`crate::entry::Ended`].
    pub fn handshakes(&self) -> [IntCounter; 6] {
        ["full", "resumed", "plain", "overdue", "left", "failed"].map(|word| self.handshakes.with_label_values(&[word]))
    }

    /// Counters of answers of OCSP responders, in the order of [`crate::tls::ocsp::keep::Heard`].
    pub fn ocsp(&self) -> [IntCounter; 4] {
        ["good", "revoked", "unknown", "failed"].map(|word| self.ocsp.with_label_values(&[word]))
    }

    /// Until when the certificates in force are valid.
    pub fn certificates(&self, certificates: &[Arc<Certificate>]) {
        self.certificates.reset();
        for certificate in certificates {
            let name = certificate.names.first().map_or("default", String::as_str);
            self.certificates.with_label_values(&[name]).set(certificate.not_after);
        }
    }

    /// The gauge of open streams that have no end of their own, `websocket` or `events`.
    pub fn streams(&self, kind: &str) -> IntGauge {
        self.streams.with_label_values(&[kind])
    }

    /// Open streams of all kinds.
    pub fn open_streams(&self) -> u64 {
        let open: i64 = STREAM_KINDS.iter().map(|kind| self.streams(kind).get()).sum();
        u64::try_from(open).unwrap_or(0)
    }

    /// An upgrade was tried.
    pub fn upgraded(&self, result: Upgraded) {
        let word = match result {
            Upgraded::Succeeded => "succeeded",
            Upgraded::Failed => "failed",
            Upgraded::Refused => "refused",
        };
        self.upgrades.with_label_values(&[word]).inc();
    }

    /// Bots by action, category and guard; take counters from it when building, not per request.
    pub fn bots(&self) -> &IntCounterVec {
        &self.bots
    }

    /// Requests refused by country and guard.
    pub fn geo_denied(&self) -> &IntCounterVec {
        &self.geo_denied
    }

    /// Requests without a known country by guard.
    pub fn geo_unknown(&self) -> &IntCounterVec {
        &self.geo_unknown
    }

    /// A request was refused before its route was known.
    pub fn refused(&self, reason: Reason) {
        self.shared.refused.add(reason);
    }

    /// A request looked like an attack. A look-up: for findings, not for every request.
    pub fn exploit(&self, family: &str, place: &str, mode: &str) {
        self.exploits.with_label_values(&[family, mode, place]).inc();
    }

    /// A request of a route is tried again after a failure. A look-up, as those below: for failures, not for every request.
    pub fn retried(&self, route: &str, cause: &str) {
        self.retries.with_label_values(&[cause, route]).inc();
    }

    /// A retry that the budget of a route did not allow.
    pub fn retry_denied(&self, route: &str) {
        self.retries_denied.with_label_values(&[route]).inc();
    }

    /// Requests of a route that went to more than one backend at a time.
    pub fn hedged(&self, route: &str, what: Hedged, times: usize) {
        if times > 0 {
            self.hedges.with_label_values(&[route, what.word()]).inc_by(times as u64);
        }
    }

    /// A backend of a route is left out for failing.
    pub fn ejected(&self, route: &str, backend: &str, cause: &str) {
        self.ejections.with_label_values(&[backend, cause, route]).inc();
    }

    /// The circuit breaker of a backend of a route turned.
    pub fn breaker(&self, route: &str, backend: &str, state: &str) {
        self.breaker.with_label_values(&[backend, route, state]).inc();
    }

    /// Log lines were dropped; `total` since the start.
    pub fn log_dropped(&self, total: u64) {
        self.shared.log_dropped.store(total, Relaxed);
    }

    /// Decisions of authenticating middlewares, by kind, middleware, reason and result.
    pub fn auth(&self) -> IntCounterVec {
        self.auth.clone()
    }

    /// How long an authenticating middleware waits for another server.
    pub fn auth_outside(&self, kind: &str, middleware: &str) -> Histogram {
        self.auth_outside.with_label_values(&[kind, middleware])
    }

    /// Who is there now.
    pub fn visitors(&self) -> &Arc<Visitors> {
        &self.visitors
    }

    /// Requests that met a limit, by where it was decided, middleware and result.
    pub fn rate_limits(&self) -> &IntCounterVec {
        &self.rate_limits
    }

    /// What the Redis client counts. The series appear where Redis is configured.
    pub fn redis(&self) -> Meters {
        Meters {
            up: self.redis_up.with_label_values::<&str>(&[]),
            failures: self.redis_failures.clone(),
            changes: self.redis_changes.clone(),
        }
    }

    /// The size of the configuration in force.
    pub fn loaded(&self, routes: usize, middlewares: usize) {
        self.routes_count.set(i64::try_from(routes).unwrap_or(i64::MAX));
        self.middlewares_count.set(i64::try_from(middlewares).unwrap_or(i64::MAX));
    }

    /// A configuration was applied, or not.
    pub fn reloaded(&self, result: Reload) {
        let word = match result {
            Reload::Applied => "applied",
            Reload::Unchanged => "unchanged",
            Reload::Failed => "failed",
        };
        self.reloads.with_label_values(&[word]).inc();
        if result != Reload::Failed {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.reloaded_at.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// The metrics page: its content type and its text. Grows with routes × methods × statuses: with thousands of routes
    /// this takes a while, so do it off the threads that carry requests.
    pub fn render(&self) -> (&'static str, String) {
        let mut page = String::new();
        let written = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut page);
        written.expect("writing to a string; the registry leaves empty families out");
        (CONTENT_TYPE, page)
    }
}

/// Kinds of [`Metrics::streams`].
const STREAM_KINDS: [&str; 2] = ["websocket", "events"];

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::route::{End, Method};

    fn end(method: Method, status: u16, reason: Reason) -> End {
        let (duration, upstream) = (Duration::from_millis(20), Some(Duration::from_millis(7)));
        End { method, status, duration, upstream, response_bytes: 5, reason }
    }

    fn served(metrics: &Metrics, name: &str, status: u16) {
        let route = metrics.route(name);
        route.begin(Method::Get, Some(3));
        route.end(&end(Method::Get, status, Reason::Ok));
    }

    /// Values of the lines that start with `prefix`, summed.
    fn shown(page: &str, prefix: &str) -> Option<f64> {
        let lines = page.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).reduce(|a, b| a + b)
    }

    #[test]
    fn a_request_is_counted_under_both_names() {
        let metrics = Metrics::new();
        for status in [200, 200, 404] {
            served(&metrics, "r", status);
        }
        let (content_type, page) = metrics.render();
        assert!(content_type.starts_with("text/plain; version=0.0.4"));
        for (line, what) in [
            ("gateway_requests_total{method=\"GET\",name=\"r\"} 3", "requests"),
            ("http_requests_total{method=\"GET\",name=\"r\"} 3", "deprecated name"),
            ("gateway_response_status_total{method=\"GET\",name=\"r\",status=\"200\"} 2", "status"),
            ("http_response_status_total{method=\"GET\",name=\"r\",status=\"404\"} 1", "deprecated name"),
            ("gateway_request_duration_seconds_bucket{method=\"GET\",name=\"r\",le=\"0.01\"} 0", "below"),
            ("gateway_request_duration_seconds_bucket{method=\"GET\",name=\"r\",le=\"0.025\"} 3", "above"),
            ("http_request_duration_seconds_count{method=\"GET\",name=\"r\"} 3", "deprecated name"),
            ("gateway_upstream_duration_seconds_bucket{name=\"r\",le=\"0.01\"} 3", "the upstream only"),
            ("gateway_request_bytes_total{method=\"GET\",name=\"r\"} 9", "bytes in"),
            ("gateway_response_bytes_total{method=\"GET\",name=\"r\"} 15", "bytes out"),
            ("goma_edge_request_ends_total{name=\"r\",reason=\"ok\"} 3", "reasons"),
            ("# TYPE gateway_request_duration_seconds histogram", "type"),
        ] {
            assert!(page.lines().any(|l| l == line), "{what}: {line} is not in\n{page}");
        }
    }

    #[test]
    fn a_route_has_no_series_before_its_first_request() {
        let metrics = Metrics::new();
        let route = metrics.route("idle");
        assert!(!metrics.render().1.contains("idle"));
        route.begin(Method::Post, None);
        let page = metrics.render().1;
        assert_eq!(shown(&page, "gateway_request_bytes_total{method=\"POST\",name=\"idle\"}"), Some(0.0));
        assert_eq!(shown(&page, "gateway_request_duration_seconds"), None, "it has not ended yet");
    }

    #[test]
    fn counters_survive_a_reload_and_go_with_their_route() {
        let metrics = Metrics::new();
        served(&metrics, "stays", 200);
        served(&metrics, "goes", 200);
        let held = metrics.route("goes");
        metrics.sweep(["stays", "new"]);
        served(&metrics, "stays", 200);
        held.end(&end(Method::Get, 200, Reason::Ok));
        let page = metrics.render().1;
        assert_eq!(shown(&page, "gateway_requests_total{method=\"GET\",name=\"stays\"}"), Some(2.0));
        assert!(!page.contains("goes"));
    }

    #[test]
    fn what_is_not_counted_by_route_is_shown_too() {
        let metrics = Metrics::new();
        metrics.connections("web").add(2);
        metrics.connections("web").dec();
        metrics.refused(Reason::BadRequest);
        metrics.loaded(7, 3);
        metrics.reloaded(Reload::Failed);
        let before = metrics.render().1;
        metrics.reloaded(Reload::Applied);
        metrics.log_dropped(4);
        metrics.route("r").intercepted(500);
        let page = metrics.render().1;
        for (name, value) in [
            ("goma_edge_connections{entry_point=\"web\"}", 1.0),
            ("goma_edge_refused_requests_total{reason=\"bad_request\"}", 1.0),
            ("gateway_routes_count ", 7.0),
            ("gateway_middlewares_count ", 3.0),
            ("goma_edge_reloads_total{result=\"failed\"}", 1.0),
            ("goma_edge_reloads_total{result=\"applied\"}", 1.0),
            ("goma_edge_log_lines_dropped_total ", 4.0),
            ("gateway_total_errors_intercepted{name=\"r\",status=\"500\"}", 1.0),
            ("gateway_uptime_seconds ", 0.0),
        ] {
            assert_eq!(shown(&page, name), Some(value), "{name} in\n{page}");
        }
        let at = "goma_edge_config_last_reload_success_timestamp_seconds ";
        assert_eq!(shown(&before, at), Some(0.0), "a failure is no success");
        assert!(shown(&page, at).unwrap() > 1.7e9);
    }

    #[test]
    fn every_family_on_the_page_is_declared() {
        let metrics = Metrics::new();
        metrics.connections("web").inc();
        served(&metrics, "a \"quoted\" name", 200);
        let page = metrics.render().1;
        for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = line.split(' ').next().unwrap();
            assert!(table::ALL.iter().any(|m| m.name == name || m.twin == Some(name)), "{name}");
        }
        assert!(page.contains(r#"name="a \"quoted\" name""#));
    }
}
