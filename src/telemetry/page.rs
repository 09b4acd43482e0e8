//! The metrics page: what our own cells hold, read when somebody looks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily};

use super::cells::Reasons;
use super::route::RouteMetrics;
use super::table::{self, Declared};

/// What [`Metrics`](super::metrics::Metrics) and the page share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) routes: RwLock<BTreeMap<Box<str>, Arc<RouteMetrics>>>,
    pub(super) refused: Reasons,
    pub(super) log_dropped: AtomicU64,
}

/// Shows the counters that are our own cells.
pub(super) struct Page {
    shared: Arc<Shared>,
    started: Instant,
    descs: Vec<Desc>,
}

impl Page {
    pub(super) fn new(shared: Arc<Shared>) -> Page {
        let shown = [
            &table::UPTIME,
            &table::REQUESTS,
            &table::STATUSES,
            &table::DURATION,
            &table::UPSTREAM,
            &table::REQUEST_BYTES,
            &table::RESPONSE_BYTES,
            &table::INTERCEPTED,
            &table::ENDS,
            &table::REFUSED,
            &table::LOG_DROPPED,
        ];
        Page { shared, started: Instant::now(), descs: Declared::descs(&shown) }
    }
}

impl Collector for Page {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        for (name, route) in self.shared.routes.read().unwrap_or_else(PoisonError::into_inner).iter() {
            samples.route(name, route);
        }
        for (reason, count) in self.shared.refused.seen() {
            samples.counter(&table::REFUSED, &[&reason], count);
        }
        samples.counter(&table::LOG_DROPPED, &[], self.shared.log_dropped.load(Relaxed));
        samples.gauge(&table::UPTIME, self.started.elapsed().as_secs_f64().floor());
        samples.families()
    }
}

/// Samples by metric, on their way to the page.
#[derive(Default)]
pub(super) struct Samples(BTreeMap<&'static str, (Option<&'static Declared>, Vec<Metric>)>);

impl Samples {
    fn route(&mut self, name: &str, route: &RouteMetrics) {
        for (method, cells) in route.seen() {
            let labels = [method.word(), name];
            self.counter(&table::REQUESTS, &labels, cells.requests.load(Relaxed));
            self.counter(&table::REQUEST_BYTES, &labels, cells.request_bytes.load(Relaxed));
            for (status, count) in cells.statuses.seen() {
                self.counter(&table::STATUSES, &[method.word(), name, &status.to_string()], count);
            }
            if let Some(histogram) = cells.duration.sample() {
                self.add(&table::DURATION, &labels, |metric| metric.set_histogram(histogram));
                self.counter(&table::RESPONSE_BYTES, &labels, cells.response_bytes.load(Relaxed));
            }
        }
        if let Some(histogram) = route.upstream.sample() {
            self.add(&table::UPSTREAM, &[name], |metric| metric.set_histogram(histogram));
        }
        for (status, count) in route.intercepts() {
            self.counter(&table::INTERCEPTED, &[name, &status.to_string()], count);
        }
        for (reason, count) in route.ends.seen() {
            self.counter(&table::ENDS, &[name, &reason], count);
        }
    }

    pub(super) fn counter(&mut self, declared: &'static Declared, labels: &[&str], count: u64) {
        self.value(declared, labels, count as f64);
    }

    fn value(&mut self, declared: &'static Declared, labels: &[&str], value: f64) {
        let mut counter = Counter::default();
        counter.set_value(value);
        self.add(declared, labels, |metric| metric.set_counter(counter));
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, declared: &'static Declared, value: f64) {
        self.level(declared, &[], value);
    }

    /// A gauge.
    pub(super) fn level(&mut self, declared: &'static Declared, labels: &[&str], value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.add(declared, labels, |metric| metric.set_gauge(gauge));
    }

    /// A counter without labels.
    pub(super) fn total(&mut self, declared: &'static Declared, value: f64) {
        self.value(declared, &[], value);
    }

    fn add(&mut self, declared: &'static Declared, labels: &[&str], fill: impl FnOnce(&mut Metric)) {
        let pairs = declared.labels.iter().zip(labels).map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        fill(&mut metric);
        let (owner, samples) = self.0.entry(declared.name).or_default();
        *owner = Some(declared);
        samples.push(metric);
    }

    pub(super) fn families(self) -> Vec<MetricFamily> {
        let owned = self.0.into_values().filter_map(|(declared, samples)| Some((declared?, samples)));
        owned.flat_map(|(declared, samples)| declared.families(samples)).collect()
    }
}
