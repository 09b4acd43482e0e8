//! A cache of its own: what one `httpCache` definition stores on one route. Found again across reloads by those two names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pingora_cache::lock::CacheLock;
use pingora_cache::predictor::Predictor;

use super::entry::Entry;
use super::freshness::now;
use super::status::Tally;
use super::storage::Tier;
use super::store::Store;
use crate::telemetry::caches::CacheFigures;

/// The caches of the process.
#[derive(Clone, Default)]
pub struct Zones(Arc<Mutex<Registry>>);

#[derive(Default)]
struct Registry {
    live: HashMap<Name, Weak<Zone>>,
    /// Those that nobody uses any more. Pingora wants what it is given to live for ever, so they are used again.
    parked: Vec<Parts>,
}

/// The definition and the route.
type Name = (String, String);

/// A cache in use; it is emptied when the last one lets go of it.
pub struct Zone {
    /// Name of the definition.
    pub name: String,
    /// Name of the route.
    pub route: String,
    /// What it counts.
    pub tally: Tally,
    parts: Parts,
    zones: Weak<Mutex<Registry>>,
}

/// What Pingora holds of a cache.
#[derive(Clone, Copy)]
pub struct Parts {
    /// Where it is stored.
    pub store: &'static Store,
    /// For responses of known length.
    pub streaming: &'static Tier,
    /// For others.
    pub plain: &'static Tier,
    /// Lets one request of many ask the backend.
    pub lock: &'static CacheLock,
    /// Remembers what was not to be stored, so that requests for it do not wait for each other.
    pub predictor: &'static Predictor<16>,
}

impl Parts {
    fn new() -> Parts {
        let store: &'static Store = Box::leak(Box::new(Store::new(0)));
        Parts {
            store,
            streaming: Box::leak(Box::new(Tier::new(store, true))),
            plain: Box::leak(Box::new(Tier::new(store, false))),
            lock: Box::leak(CacheLock::new_boxed(LOCK_AGE)),
            predictor: Box::leak(Box::new(Predictor::new(PREDICTIONS, None))),
        }
    }
}

/// How long one request may keep others waiting at most.
const LOCK_AGE: Duration = Duration::from_secs(60);
/// Keys remembered as not to be stored, by shard.
const PREDICTIONS: usize = 2048;

impl Zones {
    /// The cache of a definition on a route, with room for so many bytes: the one that is there, or an empty one.
    pub fn zone(&self, name: &str, route: &str, limit: usize) -> Arc<Zone> {
        let key = (name.to_owned(), route.to_owned());
        let mut registry = lock(&self.0);
        if let Some(zone) = registry.live.get(&key).and_then(Weak::upgrade) {
            return zone;
        }
        let parts = registry.parked.pop().unwrap_or_else(Parts::new);
        parts.store.resize(limit);
        let zone = Arc::new(Zone {
            name: key.0.clone(),
            route: key.1.clone(),
            tally: Tally::default(),
            parts,
            zones: Arc::downgrade(&self.0),
        });
        registry.live.insert(key, Arc::downgrade(&zone));
        zone
    }

    /// The caches in use, by name.
    pub fn all(&self) -> Vec<Arc<Zone>> {
        let mut all: Vec<Arc<Zone>> = lock(&self.0).live.values().filter_map(Weak::upgrade).collect();
        all.sort_by(|a, b| (&a.route, &a.name).cmp(&(&b.route, &b.name)));
        all
    }

    /// What the caches count, for metrics and status.
    pub fn figures(&self) -> Vec<CacheFigures> {
        let figures = |zone: &Arc<Zone>| {
            let (collapsed, purged, served) = zone.tally.others();
            CacheFigures {
                name: zone.name.clone(),
                route: zone.route.clone(),
                outcomes: zone.tally.outcomes().map(|(outcome, count)| (outcome.word(), count)).collect(),
                bypasses: zone.tally.bypasses().collect(),
                collapsed,
                purged,
                evicted: zone.store.evicted(),
                served,
                used: zone.store.used() as u64,
                limit: zone.store.limit() as u64,
                entries: zone.store.entries() as u64,
            }
        };
        self.all().iter().map(figures).collect()
    }

    /// Purges in all caches that are meant. Returns how many entries were.
    pub fn purge(&self, purge: &Purge) -> usize {
        let meant = |zone: &Arc<Zone>| purge.route.as_ref().is_none_or(|route| *route == zone.route);
        self.all().iter().filter(|zone| meant(zone)).map(|zone| zone.purge(purge)).sum()
    }
}

impl std::ops::Deref for Zone {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Zone {
    /// Purges what is meant. Returns how many entries were.
    pub fn purge(&self, purge: &Purge) -> usize {
        let soft = purge.soft.then(now);
        let count = self.store.purge(soft, |entry| purge.what.holds(entry));
        self.tally.purged(count);
        count
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.parts.store.clear();
        if let Some(zones) = self.zones.upgrade() {
            let mut registry = lock(&zones);
            registry.live.retain(|_, zone| zone.strong_count() > 0);
            registry.parked.push(self.parts);
        }
    }
}

fn lock(registry: &Mutex<Registry>) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is to go, or to be stale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// Which entries.
    pub what: What,
    /// Those of this route only.
    pub route: Option<String>,
    /// They stay and are stale from now on: to be validated, or served while or instead of that where it is allowed.
    pub soft: bool,
}

/// Which entries a purge is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// All.
    All,
    /// Those of a place, `host/path`, with any query.
    Place(String),
    /// Those whose place begins so.
    Prefix(String),
    /// Those with a tag.
    Tag(String),
}

impl What {
    fn holds(&self, entry: &Entry) -> bool {
        let place = &entry.subject.place;
        match self {
            What::All => true,
            What::Place(wanted) => **place == **wanted,
            What::Prefix(prefix) => place.starts_with(prefix.as_str()),
            What::Tag(tag) => entry.subject.tags.iter().any(|known| **known == **tag),
        }
    }

    /// A place, from a URL or `host/path`; a `*` at its end makes it a prefix.
    pub fn place(text: &str) -> What {
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let text = text.split(['?', '#']).next().unwrap_or(text);
        let (host, path) = text.split_at(text.find('/').unwrap_or(text.len()));
        let path = if path.is_empty() { "/" } else { path };
        let place = format!("{}{path}", host.to_ascii_lowercase());
        match place.strip_suffix('*') {
            Some(prefix) => What::Prefix(prefix.to_owned()),
            None => What::Place(place),
        }
    }
}
