//! A cache of its own: what one `httpCache` definition stores on one route. Found again across reloads by those two names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pingora_cache::lock::CacheLock;
use pingora_cache::predictor::Predictor;
use tokio::runtime::Handle;

use super::entry::Subject;
use super::freshness::now;
use super::purges::{self, Purges};
use super::shared::Shared;
use super::status::Tally;
use super::storage::Tier;
use super::store::Store;
use crate::redis::Redis;
use crate::telemetry::caches::CacheFigures;

/// The caches of the process.
#[derive(Clone, Default)]
pub struct Zones(Arc<Inner>);

/// The same without keeping them.
pub struct WeakZones(Weak<Inner>);

#[derive(Default)]
struct Inner {
    registry: Mutex<Registry>,
    purges: Arc<Purges>,
    redis: OnceLock<(Redis, Handle)>,
}

impl WeakZones {
    /// The caches, while anybody keeps them.
    pub fn upgrade(&self) -> Option<Zones> {
        self.0.upgrade().map(Zones)
    }
}

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
    zones: Weak<Inner>,
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
    /// What is shared with other gateways, where there is a Redis.
    pub shared: &'static ArcSwapOption<Shared>,
    /// Remembers what was not to be stored, so that requests for it do not wait for each other.
    pub predictor: &'static Predictor<16>,
}

impl Parts {
    fn new() -> Parts {
        let store: &'static Store = Box::leak(Box::new(Store::new(0)));
        let shared: &'static ArcSwapOption<Shared> = Box::leak(Box::default());
        Parts {
            store,
            shared,
            streaming: Box::leak(Box::new(Tier::new(store, shared, true))),
            plain: Box::leak(Box::new(Tier::new(store, shared, false))),
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
    /// Shares what is stored from now on with other gateways, and follows their purges.
    pub fn share(&self, redis: &Redis, handle: &Handle) {
        if self.0.redis.set((redis.clone(), handle.clone())).is_ok() {
            purges::follow(WeakZones(Arc::downgrade(&self.0)), self.0.purges.clone(), redis.clone(), handle);
        }
    }

    /// The cache of a definition on a route, with room for so many bytes: the one that is there, or an empty one.
    pub fn zone(&self, name: &str, route: &str, limit: usize) -> Arc<Zone> {
        let key = (name.to_owned(), route.to_owned());
        let mut registry = lock(&self.0.registry);
        if let Some(zone) = registry.live.get(&key).and_then(Weak::upgrade) {
            return zone;
        }
        let parts = registry.parked.pop().unwrap_or_else(Parts::new);
        parts.store.resize(limit);
        let shared = |(redis, handle): &(Redis, Handle)| Shared::new(redis, handle, name, route, self.0.purges.clone());
        parts.shared.store(self.0.redis.get().map(|there| Arc::new(shared(there))));
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
        let mut all: Vec<Arc<Zone>> = lock(&self.0.registry).live.values().filter_map(Weak::upgrade).collect();
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

    /// Purges in all caches that are meant, and in those of other gateways. Returns how many entries were, here.
    pub fn purge(&self, purge: &Purge) -> usize {
        self.tell(purge);
        self.purge_here(purge)
    }

    /// Tells other gateways of a purge.
    fn tell(&self, purge: &Purge) {
        if let Some((redis, handle)) = self.0.redis.get() {
            self.0.purges.tell(redis, handle, purge);
        }
    }

    /// Purges in the caches of this gateway.
    pub fn purge_here(&self, purge: &Purge) -> usize {
        let meant = |zone: &Arc<Zone>| purge.route.as_ref().is_none_or(|route| *route == zone.route);
        self.all().iter().filter(|zone| meant(zone)).map(|zone| zone.purge_here(purge)).sum()
    }
}

impl std::ops::Deref for Zone {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Zone {
    /// Purges what is meant, here and in other gateways. Returns how many entries were, here.
    pub fn purge(&self, purge: &Purge) -> usize {
        self.tell(purge);
        self.purge_here(purge)
    }

    /// Removes a URL whose response has changed, here and in other gateways.
    pub fn invalidate(&self, key: u128, place: String) {
        self.store.remove(key, None);
        if let Some(shared) = self.shared.load_full() {
            shared.forget(key);
            self.tell(&Purge { what: What::Place(place), route: Some(self.route.clone()), soft: false });
        }
    }

    fn tell(&self, purge: &Purge) {
        if let Some(zones) = self.zones.upgrade() {
            Zones(zones).tell(purge);
        }
    }

    fn purge_here(&self, purge: &Purge) -> usize {
        let soft = purge.soft.then(now);
        let count = self.store.purge(soft, |entry| purge.what.is_about(&entry.subject));
        self.tally.purged(count);
        count
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        self.parts.store.clear();
        self.parts.shared.store(None);
        if let Some(zones) = self.zones.upgrade() {
            let mut registry = lock(&zones.registry);
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
    /// Whether it is about such an entry.
    pub fn is_about(&self, subject: &Subject) -> bool {
        let place = &subject.place;
        match self {
            What::All => true,
            What::Place(wanted) => **place == **wanted,
            What::Prefix(prefix) => place.starts_with(prefix.as_str()),
            What::Tag(tag) => subject.tags.iter().any(|known| **known == **tag),
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
