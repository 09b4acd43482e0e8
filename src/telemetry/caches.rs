//! What the HTTP caches show on the metrics page. They count for themselves and are read when the page is made.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

use super::page::Samples;
use super::table::{self, Declared};

/// The figures of one cache.
#[derive(Clone, Debug, Default)]
pub struct CacheFigures {
    /// Name of the definition.
    pub name: String,
    /// Name of the route.
    pub route: String,
    /// Requests by what became of them.
    pub outcomes: Vec<(&'static str, u64)>,
    /// Requests that were not looked for, by the reason.
    pub bypasses: Vec<(&'static str, u64)>,
    /// Requests that waited for another one's response, or read along.
    pub collapsed: u64,
    /// Entries purged.
    pub purged: u64,
    /// Entries that had to go for others.
    pub evicted: u64,
    /// Body bytes served from the store.
    pub served: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that may be in use.
    pub limit: u64,
    /// Entries.
    pub entries: u64,
}

/// Shows caches.
pub(super) struct Caches<F> {
    read: F,
    descs: Vec<Desc>,
}

impl<F: Fn() -> Vec<CacheFigures> + Send + Sync> Caches<F> {
    pub fn new(read: F) -> Caches<F> {
        let shown = [
            &table::CACHE_REQUESTS,
            &table::CACHE_BYPASSES,
            &table::CACHE_COLLAPSED,
            &table::CACHE_PURGED,
            &table::CACHE_EVICTED,
            &table::CACHE_SERVED,
            &table::CACHE_BYTES,
            &table::CACHE_LIMIT,
            &table::CACHE_ENTRIES,
        ];
        Caches { read, descs: Declared::descs(&shown) }
    }
}

impl<F: Fn() -> Vec<CacheFigures> + Send + Sync> Collector for Caches<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut samples = Samples::default();
        for cache in (self.read)() {
            let labels = [cache.name.as_str(), &cache.route];
            for (outcome, count) in cache.outcomes.iter().filter(|(_, count)| *count > 0) {
                samples.counter(&table::CACHE_REQUESTS, &[labels[0], outcome, labels[1]], *count);
            }
            for (reason, count) in cache.bypasses.iter().filter(|(_, count)| *count > 0) {
                samples.counter(&table::CACHE_BYPASSES, &[labels[0], reason, labels[1]], *count);
            }
            for (metric, count) in [
                (&table::CACHE_COLLAPSED, cache.collapsed),
                (&table::CACHE_PURGED, cache.purged),
                (&table::CACHE_EVICTED, cache.evicted),
                (&table::CACHE_SERVED, cache.served),
            ] {
                samples.counter(metric, &labels, count);
            }
            for (metric, value) in [
                (&table::CACHE_BYTES, cache.used),
                (&table::CACHE_LIMIT, cache.limit),
                (&table::CACHE_ENTRIES, cache.entries),
            ] {
                samples.level(metric, &labels, value as f64);
            }
        }
        samples.families()
    }
}
